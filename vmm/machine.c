/* machine.c - the machine's lifecycle: creation, reset, power-off, stop and continue, and how a sleeping or
 * running vCPU is made to notice (see machine_private.h). The run loop is in run.c.
 */
#include "vmm/machine_private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void (*_Atomic fatal_hook)(void);

/* until: CLOCK_MONOTONIC, or NULL */
static void futex_wait(_Atomic uint32_t *word, uint32_t expected, const struct timespec *until)
{
	syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, until, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* ------------------------------------------------------------------ creation */

/* Started with standard descriptors closed, we would be given their numbers for our own files. */
static void hold_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
			return;
}

struct machine *machine_create(const struct machine_config *cfg, char *err, size_t errlen)
{
	const char *model = cfg->cpu_model ? cfg->cpu_model : "max";

	if (!cpuid_model_known(model)) {
		snprintf(err, errlen, "unknown CPU model '%s'", model);
		return NULL;
	}
	hold_standard_descriptors();
	struct machine *m = aligned_alloc(_Alignof(struct machine), sizeof *m);
	if (!m) {
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	memset(m, 0, sizeof *m);
	m->cfg = *cfg;
	m->cfg.cpu_model = model;
	m->intr_pic_on = true;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->parked_cond, NULL);

	int rc = clock_init(m);
	if (rc) {
		snprintf(err, errlen, "cannot create a timer: %s", strerror(-rc));
		goto fail_clock;
	}
	rc = evloop_init(m);
	if (rc) {
		snprintf(err, errlen, "cannot create the event loop: %s", strerror(-rc));
		goto fail_evloop;
	}
	m->mem = mem_create(cfg->ram_bytes, err, errlen);
	if (!m->mem)
		goto fail_mem;

	m->vcpu.mem = m->mem;
	m->vcpu.machine = m;
	cpuid_init(m, model);
	cpu_reset(&m->vcpu);
	m->vcpu.tsc_offset = 0 - __builtin_ia32_rdtsc();
	return m;

fail_mem:
	evloop_fini(m);
fail_evloop:
	clock_fini(m);
fail_clock:
	pthread_cond_destroy(&m->parked_cond);
	pthread_mutex_destroy(&m->lock);
	free(m);
	return NULL;
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	if (m->accel_free)
		m->accel_free(m);
	mem_destroy(m->mem);
	evloop_fini(m);
	clock_fini(m);
	pthread_cond_destroy(&m->parked_cond);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

const struct machine_config *machine_cfg(const struct machine *m)
{
	return &m->cfg;
}

struct mem *machine_mem(struct machine *m)
{
	return m->mem;
}

struct vcpu *machine_vcpu(struct machine *m)
{
	return &m->vcpu;
}

void machine_lock(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
}

void machine_unlock(struct machine *m)
{
	pthread_mutex_unlock(&m->lock);
}

/* ------------------------------------------------------------------ getting the vCPU's attention */

void vcpu_kick(struct machine *m)
{
	if (!atomic_load(&m->vcpu_thread_live) || pthread_equal(pthread_self(), m->vcpu_thread))
		return;
	if (atomic_load(&m->vcpu_asleep))
		futex_wake(&m->vcpu.request);
	if (atomic_load(&m->vcpu_in_guest))
		pthread_kill(m->vcpu_thread, VCPU_KICK_SIG);
}

void vcpu_request(struct machine *m, uint32_t bits)
{
	if ((atomic_fetch_or(&m->vcpu.request, bits) & bits) != bits)
		vcpu_kick(m);
}

void vcpu_request_clear(struct machine *m, uint32_t bits)
{
	atomic_fetch_and(&m->vcpu.request, ~bits);
}

void vcpu_wait(struct machine *m)
{
	const uint32_t ends = m->vcpu.iflag ? ~0u : ~REQ_IRQ;
	struct timespec until;

	if (atomic_load(&m->vcpu.request) & ends)
		return;
	atomic_store(&m->vcpu_asleep, true);
	for (;;) {
		bool timed = clock_await(m, &until);
		uint32_t r = atomic_load(&m->vcpu.request);
		if (r & ends)
			break;
		futex_wait(&m->vcpu.request, r, timed ? &until : NULL);
	}
	atomic_store(&m->vcpu_asleep, false);
	clock_await_end(m);
}

/* ------------------------------------------------------------------ stop and continue */

void machine_stop(struct machine *m)
{
	atomic_store(&m->stop_wanted, true);
	vcpu_request(m, REQ_STOP);
}

void machine_cont(struct machine *m)
{
	atomic_store(&m->stop_wanted, false);
	vcpu_request_clear(m, REQ_STOP);
	atomic_fetch_add(&m->park_futex, 1);
	futex_wake(&m->park_futex);
}

bool machine_stopped(struct machine *m)
{
	return atomic_load(&m->parked) || !atomic_load(&m->vcpu_thread_live);
}

bool machine_wait_stopped(struct machine *m)
{
	while (!machine_stopped(m) && !atomic_load(&m->exiting))
		pthread_cond_wait(&m->parked_cond, &m->lock);
	return machine_stopped(m) && !atomic_load(&m->exiting);
}

void vcpu_park(struct machine *m)
{
	machine_lock(m);
	vcpu_request_clear(m, REQ_STOP);
	clock_freeze(m);
	atomic_store(&m->parked, true);
	pthread_cond_broadcast(&m->parked_cond);
	machine_unlock(m);

	for (;;) {
		uint32_t word = atomic_load(&m->park_futex);
		if (!atomic_load(&m->stop_wanted) || atomic_load(&m->exiting))
			break;
		futex_wait(&m->park_futex, word, NULL);
	}

	machine_lock(m);
	atomic_store(&m->parked, false);
	clock_thaw(m);
	machine_unlock(m);
}

/* ------------------------------------------------------------------ power and reset */

void machine_poweroff(struct machine *m, int status)
{
	int expected = 0;

	/* The first to ask decides the status. It is stored with a bit that tells it from "not asked". */
	if (!atomic_compare_exchange_strong(&m->exit_status, &expected, status | EXIT_STATUS_GIVEN))
		return;
	atomic_store(&m->exiting, true);
	atomic_fetch_add(&m->park_futex, 1);
	futex_wake(&m->park_futex);
	vcpu_request(m, REQ_SHUTDOWN);
}

int machine_exit_status(struct machine *m)
{
	return atomic_load(&m->exit_status) & ~EXIT_STATUS_GIVEN;
}

void machine_reset_request(struct machine *m)
{
	if (m->cfg.no_reboot)
		machine_poweroff(m, EXIT_POWEROFF);
	else
		vcpu_request(m, REQ_RESET);
}

void machine_on_reset(struct machine *m, void (*fn)(void *opaque), void *opaque)
{
	assert(m->reset_hook_count < RESET_HOOKS);
	m->reset_hooks[m->reset_hook_count++] = (struct reset_hook){fn, opaque};
}

void machine_reset_now(struct machine *m)
{
	struct vcpu *c = &m->vcpu;

	machine_lock(m);
	vcpu_request_clear(m, REQ_RESET | REQ_NMI);
	cpu_reset(c);
	c->tsc_offset = 0 - __builtin_ia32_rdtsc();
	m->msr_debugctl = 0;
	mem_mode_changed(c);
	for (unsigned i = 0; i < m->reset_hook_count; i++)
		m->reset_hooks[i].fn(m->reset_hooks[i].opaque);
	machine_unlock(m);
}

void machine_set_fatal_hook(void (*fn)(void))
{
	atomic_store(&fatal_hook, fn);
}

void machine_run_fatal_hook(void)
{
	void (*fn)(void) = atomic_load(&fatal_hook);

	if (fn)
		fn();
}
