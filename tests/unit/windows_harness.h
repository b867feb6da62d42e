/* windows_harness.h - a guest whose windows can be accessed for real.
 *
 * The tests dereference window addresses and take the SIGSEGV, ask mem_window_fault what it means, as the run
 * loop does, and try again.
 */
#ifndef BT86_TEST_WINDOWS_HARNESS_H
#define BT86_TEST_WINDOWS_HARNESS_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <ucontext.h>

#include <cmocka.h>

#include "mem/internal.h"

static sigjmp_buf fault_jump;
static volatile uintptr_t fault_address;
static volatile bool fault_write, fault_armed;

static void on_segv(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;

	if (!fault_armed) {
		signal(sig, SIG_DFL);
		return;
	}
	fault_address = (uintptr_t)info->si_addr;
	fault_write = uc->uc_mcontext.gregs[REG_ERR] & 2;
	siglongjmp(fault_jump, 1);
}

static inline void catch_faults(void)
{
	struct sigaction sa = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_NODEFER};

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}

/* One 32-bit access at a host address. false: it faulted. */
__attribute__((noinline, no_sanitize("address", "undefined"))) static bool touch(uintptr_t host, bool write,
										 uint32_t *v)
{
	if (sigsetjmp(fault_jump, 0)) {
		fault_armed = false;
		return false;
	}
	fault_armed = true;
	if (write)
		*(volatile uint32_t *)host = *v;
	else
		*v = *(volatile uint32_t *)host;
	fault_armed = false;
	return true;
}

struct guest {
	struct mem *m;
	struct vcpu c;
};

/* What an access through a window came to. */
enum outcome { DONE, EMULATED_TRACED, GUEST_FAULT, MMIO, OTHER_WINDOW, EMULATE };

static unsigned last_faults; /* hidden faults of the last access */

static inline enum outcome access_window(struct guest *g, struct window *w, uint32_t lin, bool write,
					 uint32_t *v)
{
	last_faults = 0;
	for (;;) {
		struct window *found;
		uint64_t at;

		if (touch(mem_window_base(w) + lin, write, v))
			return DONE;
		found = mem_window_find(g->m, fault_address, &at);
		assert_ptr_equal(found, w);
		assert_int_equal(at, lin);
		assert_int_equal(fault_write, write);
		assert_true(++last_faults < 4);
		switch (mem_window_fault(&g->c, w, at, write)) {
		case MEM_FAULT_MAPPED:
			break;
		case MEM_FAULT_GUEST:
			return GUEST_FAULT;
		case MEM_FAULT_TRACED:
			assert_true(write);
			assert_int_equal(mem_write(&g->c, lin, v, 4, g->c.cpl == 3 ? ACC_USER : 0), 0);
			return EMULATED_TRACED;
		case MEM_FAULT_MMIO:
			return MMIO;
		case MEM_FAULT_USER:
		case MEM_FAULT_SUPER:
			return OTHER_WINDOW;
		case MEM_FAULT_EMULATE:
			return EMULATE;
		}
	}
}

static inline struct guest *guest_new(uint64_t ram)
{
	struct guest *g = calloc(1, sizeof *g);
	char err[200];

	catch_faults(); /* here, because cmocka sets its own handlers for each test */
	assert_non_null(g);
	g->m = mem_create(ram, err, sizeof err);
	assert_non_null(g->m);
	g->c.mem = g->m;
	g->c.a20_mask = ~0u;
	g->c.cr0 = CR0_PE;
	assert_int_equal(mem_enable_windows(g->m, err, sizeof err), 0);
	return g;
}

static inline void guest_free(struct guest *g)
{
	mem_destroy(g->m);
	free(g);
}

static inline void put32(struct guest *g, uint64_t gpa, uint32_t v)
{
	mem_phys_write(g->m, gpa, &v, 4);
}

static inline uint32_t get32(struct guest *g, uint64_t gpa)
{
	uint32_t v;

	mem_phys_read(g->m, gpa, &v, 4);
	return v;
}

static inline void paging_on(struct guest *g, uint32_t cr3, uint32_t cr4)
{
	g->c.cr3 = cr3;
	g->c.cr4 = cr4;
	g->c.cr0 |= CR0_PG | CR0_WP;
	mem_mode_changed(&g->c);
}

static inline void assert_coherent(struct guest *g)
{
	assert_int_equal(mem_check(g->m, stderr, true), 0);
}

#endif
