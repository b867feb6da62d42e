/* execute.c - one case, two machines.
 *
 * The machines are whole ones (machine_create, machine_run) in this process, without the event loop and the
 * sandbox, whose functions the linker replaces by the ones below (--wrap). What is also replaced:
 *   vcpu_wait   HLT: nothing will ever come, so that is the end
 *   interp_run  -accel interp in steps: counts instructions and looks at each before it runs
 *
 * Ends. A case ends by HLT, by a triple fault or by a port write. What has not ended after STEPS_MAX
 * instructions of the interpreter, or has met an instruction whose result may differ between two runs, is
 * only run for a moment under the translator, which is then kicked: it must survive, nothing is compared.
 *
 * Each run gets a new machine, so that a case depends on nothing but itself.
 */
#include "execute.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "mem/internal.h"
#include "translator/translator.h"
#include "vmm/bt.h"
#include "vmm/interp/interp.h"

#define REP_STEPS    200u /* what a repeated instruction counts for: it does up to 1024 elements at a time */
#define STEPS_MAX    20000u
#define BRIEF_NS     4000000l	 /* for a run that is not compared */
#define LONG_NS	     4000000000l /* for one that must end */
#define STATUS_HALT  0x100
#define STATUS_PORT  0x101
#define STATUS_OVER  0x102 /* too long, or not comparable */
#define STATUS_KICK  0x103
#define HOLE_PATTERN 0x5a

/* A device of which every access leaves a trace. */
#define PORT_FIRST 0x60u
#define PORT_COUNT 0x20u
#define PORT_END   0x7fu
#define MMIO_AT	   0xfee00000u

const char *const verdict_names[VERDICTS] = {"same",  "not compared",	"TLB-dependent", "differs",
					     "hangs", "internal error", "stray write",	 "crash"};
uint64_t execute_steps;

struct run {
	struct machine *m;
	int status;
	uint64_t io_hash, io_count;
	uint64_t steps;
	bool no_tlb;	/* empty the software TLB after each instruction, and watch for what follows: */
	bool stale;	/* a live entry of a page table was changed, and no load of CR3 followed */
	unsigned dirty; /* instructions left for that */
	uint8_t *guard[2];
};

static struct run *current;

/* ------------------------------------------------------------------ what the linker puts in place of the
 * VMM's */

void __wrap_vcpu_wait(struct machine *m);
int __wrap_sandbox_enter(const struct sandbox_extra *extra, char *err, size_t errlen);
int __wrap_evloop_start(struct machine *m);
void __wrap_evloop_join(struct machine *m);
int __wrap_interp_run(struct vcpu *c, uint64_t n, bool stop_at_translatable);
int __real_interp_run(struct vcpu *c, uint64_t n, bool stop_at_translatable);

void __wrap_vcpu_wait(struct machine *m)
{
	machine_poweroff(m, STATUS_HALT);
}

int __wrap_sandbox_enter(const struct sandbox_extra *extra, char *err, size_t errlen)
{
	(void)extra;
	(void)err;
	(void)errlen;
	return 0;
}

int __wrap_evloop_start(struct machine *m)
{
	(void)m;
	return 0;
}

void __wrap_evloop_join(struct machine *m)
{
	(void)m;
}

static bool is_prefix(uint8_t b)
{
	static const uint8_t prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3};

	return memchr(prefixes, b, sizeof prefixes);
}

/* The bytes at linear address lin as code, as far as they lie in RAM: a device would notice. */
static void peek_code(struct vcpu *c, uint32_t lin, uint8_t b[15])
{
	const struct exception saved = c->exc;
	const uint8_t *p = NULL;
	struct walk w;

	memset(b, 0, 15);
	for (unsigned n = 0; n < 15; n++, p++) {
		if (n == 0 || ((lin + n) & (PAGE_SIZE - 1)) == 0) {
			if (mem_walk(c, lin + n, ACC_EXEC | ACC_PEEK, &w) < 0 ||
			    !(p = mem_ptr(c->mem, w.gpa, 1)))
				break;
		}
		b[n] = *p;
	}
	c->exc = saved;
}

/* The instruction reads time, noise, or the pointers of the last x87 instruction. */
static bool may_differ(const struct vcpu *c, const uint8_t code[15])
{
	const uint8_t *b = code;

	while (b < code + 12 && is_prefix(*b))
		b++;
	if (b[0] == 0xd9 || b[0] == 0xdd)
		return (b[1] >> 3 & 7) == 6 && b[1] < 0xc0;
	if (b[0] != 0x0f)
		return false;
	switch (b[1]) {
	case 0x31:
	case 0x33:
		return true;
	case 0x30:
	case 0x32:
		return c->gpr[ECX] == MSR_TSC;
	case 0xa2:
		return c->gpr[EAX] >> 16 == 0x4000;
	case 0xae:
		return (b[2] >> 3 & 7) == 0 && b[2] < 0xc0;
	case 0xc7:
		return (b[2] >> 3 & 7) >= 6 && b[2] >= 0xc0;
	default:
		return false;
	}
}

static bool is_rep(const uint8_t code[15])
{
	for (unsigned i = 0; i < 14 && is_prefix(code[i]); i++)
		if (code[i] >= 0xf2)
			return true;
	return false;
}

static bool loads_cr3(const uint8_t code[15])
{
	return code[0] == 0x0f && code[1] == 0x22 && (code[2] >> 3 & 7) == 3;
}

/* One instruction. False: the run is not comparable from here on. A repeated instruction that overwrites
 * itself is not: when the new bytes count depends on when it is interrupted. */
static bool step(struct vcpu *c, int *result)
{
	const uint32_t lin = c->seg[CS].base + c->eip;
	uint8_t code[15], after[15];

	peek_code(c, lin, code);
	if (may_differ(c, code))
		return false;
	if (loads_cr3(code))
		current->dirty = 0;
	*result = interp_step(c);
	if (!is_rep(code))
		return true;
	current->steps += REP_STEPS;
	peek_code(c, lin, after);
	return !memcmp(code, after, sizeof code);
}

static void log_step(const struct vcpu *c)
{
	log_printf(LOG_EXEC,
		   "step %04x:%08x eflags %08x eax %08x ecx %08x edx %08x ebx %08x esp %08x ebp %08x esi "
		   "%08x edi %08x\n",
		   c->seg[CS].sel, c->eip, cpu_eflags(c), c->gpr[EAX], c->gpr[ECX], c->gpr[EDX], c->gpr[EBX],
		   c->gpr[ESP], c->gpr[EBP], c->gpr[ESI], c->gpr[EDI]);
}

/* Some directory of the current address space, or table that a directory names, stands on this page. */
static bool is_page_table(const struct vcpu *c, uint64_t gpa)
{
	const bool pae = c->cr4 & CR4_PAE;
	const uint64_t page = gpa >> PAGE_SHIFT;

	if (!cpu_paging(c))
		return false;
	for (unsigned d = 0; d < (pae ? 4u : 1u); d++) {
		const uint64_t directory = pae ? c->pdpte[d] & PAE_ADDR : c->cr3 & PAGE_MASK;
		const uint8_t *p = mem_ptr(c->mem, directory, PAGE_SIZE);
		if (page == directory >> PAGE_SHIFT)
			return true;
		for (unsigned i = 0; p && i < PAGE_SIZE; i += pae ? 8 : 4) {
			uint32_t entry;
			memcpy(&entry, p + i, 4);
			if ((entry & PTE_P) && page == entry >> PAGE_SHIFT)
				return true;
		}
	}
	return false;
}

/* Before a store. One to an entry that is present may leave stale translations, which the machines need not
 * have in common. */
static bool watch_store(void *opaque, uint64_t gpa, unsigned len, bool ad)
{
	struct run *r = opaque;
	const struct vcpu *c = &r->m->vcpu;
	const uint8_t *ram = r->m->mem->ram;
	const unsigned size = c->cr4 & CR4_PAE ? 8 : 4;

	if (ad || !is_page_table(c, gpa))
		return true;
	for (uint64_t at = gpa & ~(uint64_t)(size - 1); at < gpa + len; at += size) {
		if (!(ram[at] & PTE_P))
			continue;
		r->stale |= c->cr4 & CR4_PGE && (ram[at + 1] & 1);
		r->dirty = 3; /* mov eax, cr3; mov cr3, eax */
	}
	return true;
}

/* After an instruction. */
static void forget_translations(struct run *r, const struct vcpu *c)
{
	if (r->dirty && --r->dirty == 0)
		r->stale = true;
	mem_set_store_log(c->mem, watch_store, r); /* which empties the TLB, and makes each store walk */
}

int __wrap_interp_run(struct vcpu *c, uint64_t n, bool stop_at_translatable)
{
	int r = 0;

	if (c->bt)
		return __real_interp_run(c, n, stop_at_translatable);
	if (current->no_tlb && !current->steps)
		mem_set_store_log(c->mem, watch_store, current);
	while (!r && !c->halted && !atomic_load_explicit(&c->request, memory_order_relaxed)) {
		if (log_on(LOG_EXEC))
			log_step(c);
		if (current->steps++ >= STEPS_MAX || !step(c, &r))
			machine_poweroff(c->machine, STATUS_OVER);
		else if (current->no_tlb)
			forget_translations(current, c);
	}
	return r;
}

/* ------------------------------------------------------------------ the device */

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 29;
}

static void log_access(const struct run *r, const char *what, uint32_t offset, uint32_t value, unsigned size)
{
	if (log_on(LOG_DEV))
		log_printf(LOG_DEV, "%s device %#x, %u bytes, value %#x, at %04x:%08x\n", what, offset, size,
			   value, r->m->vcpu.seg[CS].sel, r->m->vcpu.eip);
}

static uint32_t device_read(void *opaque, uint32_t offset, unsigned size)
{
	struct run *r = opaque;

	log_access(r, "read", offset, 0, size);
	r->io_count++;
	r->io_hash = mix(r->io_hash, (uint64_t)size << 32 | offset);
	return (uint32_t)(r->io_hash >> 8);
}

static void device_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct run *r = opaque;

	log_access(r, "write", offset, value, size);
	r->io_count++;
	r->io_hash = mix(mix(r->io_hash, (uint64_t)size << 40 | 1ull << 32 | offset), value);
}

static void port_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct run *r = opaque;

	device_write(opaque, offset, value, size);
	if (offset == PORT_END - PORT_FIRST)
		machine_poweroff(r->m, STATUS_PORT);
}

static const struct io_ops mmio_ops = {.read = device_read, .write = device_write, .wide = true};
static const struct io_ops port_ops = {.read = device_read, .write = port_write, .wide = true};

/* ------------------------------------------------------------------ limits */

/* CPU time is up: as a request and a kick from another thread would. */
static void on_time(int sig)
{
	struct machine *m = current->m;

	(void)sig;
	machine_poweroff(m, STATUS_KICK);
	pthread_kill(pthread_self(), VCPU_KICK_SIG); /* held back until this handler is left */
}

static timer_t arm(long ns)
{
	struct sigaction sa = {.sa_handler = on_time, .sa_flags = SA_ONSTACK | SA_RESTART};
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	const struct itimerspec when = {.it_value = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}};
	timer_t t;

	sigfillset(&sa.sa_mask);
	sigaction(SIGALRM, &sa, NULL);
	if (timer_create(CLOCK_THREAD_CPUTIME_ID, &ev, &t) < 0 || timer_settime(t, 0, &when, NULL) < 0) {
		perror("timer");
		abort();
	}
	return t;
}

/* ------------------------------------------------------------------ one run */

/* Pages that nobody may touch, right before and behind RAM where these are free. */
static void guard_ram(struct run *r)
{
	uint8_t *ram = r->m->mem->ram, *at[2] = {ram - PAGE_SIZE, ram + CASE_RAM};

	for (unsigned i = 0; i < 2; i++) {
		r->guard[i] = mmap(at[i], PAGE_SIZE, PROT_NONE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		if (r->guard[i] == MAP_FAILED)
			r->guard[i] = NULL;
	}
	memset(ram + HOLE_START, HOLE_PATTERN, HOLE_END - HOLE_START);
}

static bool hole_is_intact(const struct run *r)
{
	const uint8_t *p = r->m->mem->ram;

	for (uint32_t at = HOLE_START; at < HOLE_END; at++)
		if (p[at] != HOLE_PATTERN)
			return false;
	return true;
}

static void load_ram(struct mem *m, const struct fuzz_case *k)
{
	static const uint8_t zero[PAGE_SIZE];

	for (uint32_t at = 0; at < CASE_RAM; at += PAGE_SIZE)
		if (memcmp(k->ram + at, zero, PAGE_SIZE) && (at < HOLE_START || at >= HOLE_END))
			memcpy(m->ram + at, k->ram + at, PAGE_SIZE);
}

/* ns: CPU time until the kick, 0: none. */
static void run_case(struct run *r, const struct fuzz_case *k, enum accel accel, unsigned verify, long ns)
{
	const struct machine_config cfg = {.ram_bytes = CASE_RAM,
					   .accel = accel,
					   .no_reboot = true,
					   .bt_last = 0xffffffffu,
					   .verify_every = verify};
	char err[200];
	timer_t timer;

	r->m = machine_create(&cfg, err, sizeof err);
	if (!r->m) {
		fprintf(stderr, "%s\n", err);
		abort();
	}
	current = r;
	if (log_mask)
		log_printf(LOG_CPU, "----- %s\n", accel == ACCEL_BT ? "bt" : "interp");
	guard_ram(r);
	load_ram(r->m->mem, k);
	case_copy_cpu(&r->m->vcpu, &k->cpu);
	pio_register(r->m, PORT_FIRST, PORT_COUNT, &port_ops, r);
	mmio_register(r->m, MMIO_AT, PAGE_SIZE, &mmio_ops, r);
	interp_flush(&r->m->vcpu);
	debug_pending = 0;
	cpu_fpu_live = false;
	site_forget_all();
	if (ns)
		timer = arm(ns);
	r->status = machine_run(r->m);
	if (ns)
		timer_delete(timer);
}

static void end_run(struct run *r)
{
	machine_destroy(r->m);
	for (unsigned i = 0; i < 2; i++)
		if (r->guard[i])
			munmap(r->guard[i], PAGE_SIZE);
}

/* ------------------------------------------------------------------ comparing */

/* A CPU may set the accessed bit of an entry that it uses ahead of time, and the translator does. */
static bool accessed_early(uint32_t at, uint8_t interp, uint8_t bt)
{
	return at % 4 == 0 && bt == (interp | PTE_A) && (interp & PTE_P);
}

/* Where the machines differ, "" if nowhere. */
static void compare(const struct run *a, const struct run *b, char *what, size_t len)
{
	const uint8_t *x = a->m->mem->ram, *y = b->m->mem->ram;

	if (a->status != b->status) {
		snprintf(what, len, "the end: %#x under interp, %#x under bt", a->status, b->status);
		return;
	}
	if (a->io_count != b->io_count || a->io_hash != b->io_hash) {
		snprintf(what, len, "device accesses: %lu under interp, %lu under bt", a->io_count,
			 b->io_count);
		return;
	}
	if (a->status == EXIT_TRIPLE_FAULT) { /* the FPU state is lost with the message about it */
		b->m->vcpu.fpu = a->m->vcpu.fpu;
		/* and an IRET in bt sets RF only where something could show it */
		b->m->vcpu.sysflags |= a->m->vcpu.sysflags & FL_RF;
	}
	case_compare_cpu(&a->m->vcpu, &b->m->vcpu, what, len);
	for (uint32_t at = 0; !*what && at < CASE_RAM; at++)
		if (x[at] != y[at] && !accessed_early(at, x[at], y[at]))
			snprintf(what, len, "memory at %#x: %02x under interp, %02x under bt", at, x[at],
				 y[at]);
}

/* A difference may have its reason in stale translations, which a CPU is allowed to have (SDM vol. 3A 4.10):
 * does the interpreter agree with itself when it has no TLB at all, and was every change of a page table
 * followed by a flush? */
static bool depends_on_tlb(const struct fuzz_case *k, const struct run *interp)
{
	struct run r = {.no_tlb = true};
	char what[200];

	run_case(&r, k, ACCEL_INTERP, 0, 0);
	compare(interp, &r, what, sizeof what);
	end_run(&r);
	return *what || r.stale || r.dirty;
}

static enum verdict judge(const struct fuzz_case *k, const struct run *interp, const struct run *bt,
			  char *what, size_t len)
{
	if (bt->status == EXIT_INTERNAL) {
		snprintf(what, len, "the VMM's own complaint is above");
		return VERDICT_INTERNAL;
	}
	if (!hole_is_intact(bt) || !hole_is_intact(interp)) {
		snprintf(what, len, "memory behind the video hole was written");
		return VERDICT_CANARY;
	}
	if (interp->status == STATUS_OVER)
		return VERDICT_UNEQUAL;
	if (bt->status == STATUS_KICK) {
		snprintf(what, len, "ends after %lu instructions under interp", interp->steps);
		return depends_on_tlb(k, interp) ? VERDICT_TLB : VERDICT_HANG;
	}
	compare(interp, bt, what, len);
	if (!*what)
		return VERDICT_SAME;
	return depends_on_tlb(k, interp) ? VERDICT_TLB : VERDICT_DIFFERS;
}

enum verdict execute_case(const struct fuzz_case *k, bool lockstep, char *what, size_t len)
{
	struct run interp = {0}, bt = {0}, verify = {0};
	enum verdict v;

	*what = 0;
	run_case(&interp, k, ACCEL_INTERP, 0, 0);
	execute_steps = interp.steps;
	run_case(&bt, k, ACCEL_BT, 0, interp.status == STATUS_OVER ? BRIEF_NS : LONG_NS);
	v = judge(k, &interp, &bt, what, len);
	end_run(&bt);
	/* Where what a TLB holds decides, lockstep's excuses do not cover everything; the outcome may be the
	 * same all the same. */
	if (lockstep && v != VERDICT_TLB && !verdict_is_finding(v)) {
		run_case(&verify, k, ACCEL_BT, 1, interp.status == STATUS_OVER ? BRIEF_NS : LONG_NS);
		if (verify.status == EXIT_INTERNAL) {
			snprintf(what, len, "in lockstep; the report is above");
			v = depends_on_tlb(k, &interp) ? VERDICT_TLB : VERDICT_INTERNAL;
		}
		end_run(&verify);
	}
	end_run(&interp);
	return v;
}
