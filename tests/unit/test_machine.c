/* test_machine.c - the core of the machine: buses, lines, time, the event loop, CPUID and MSRs.
 *
 * The real thing, with a memory system of nothing behind it. The test's own thread is the vCPU thread.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/machine_private.h"

static unsigned mode_changes;

struct mem *mem_create(uint64_t ram_bytes, char *err, size_t errlen)
{
	if (!ram_bytes) {
		snprintf(err, errlen, "no memory");
		return NULL;
	}
	return malloc(1);
}

void mem_destroy(struct mem *m)
{
	free(m);
}

void mem_mode_changed(struct vcpu *c)
{
	(void)c;
	mode_changes++;
}

static struct machine *create_model(const char *model)
{
	const struct machine_config cfg = {.ram_bytes = 1 << 20, .accel = ACCEL_INTERP, .cpu_model = model};
	char err[128] = "";
	struct machine *m = machine_create(&cfg, err, sizeof err);

	assert_non_null(m);
	return m;
}

static int setup(void **state)
{
	*state = create_model("max");
	return 0;
}

static int teardown(void **state)
{
	evloop_join(*state);
	machine_destroy(*state);
	return 0;
}

static void sleep_us(long us)
{
	const struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	nanosleep(&ts, NULL);
}

/* ------------------------------------------------------------------ creation */

static void test_create_refuses(void **state)
{
	struct machine_config cfg = {.ram_bytes = 1 << 20, .cpu_model = "z80"};
	char err[128] = "";

	(void)state;
	assert_null(machine_create(&cfg, err, sizeof err));
	assert_non_null(strstr(err, "z80"));
	cfg = (struct machine_config){0};
	err[0] = '\0';
	assert_null(machine_create(&cfg, err, sizeof err));
	assert_string_equal(err, "no memory");
}

/* ------------------------------------------------------------------ buses */

struct access {
	bool write;
	uint32_t offset, value;
	unsigned size;
};
static struct access accesses[16];
static unsigned access_count;

static uint32_t note_read(void *opaque, uint32_t offset, unsigned size)
{
	(void)opaque;
	accesses[access_count++] = (struct access){false, offset, 0, size};
	return 0xa0b0c0d0u + offset;
}

static void note_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	(void)opaque;
	accesses[access_count++] = (struct access){true, offset, value, size};
}

static const struct io_ops byte_ops = {.read = note_read, .write = note_write};
static const struct io_ops wide_ops = {.read = note_read, .write = note_write, .wide = true};

static void test_pio_split(void **state)
{
	struct machine *m = *state;

	access_count = 0;
	pio_register(m, 0x100, 4, &byte_ops, NULL);
	pio_write(m, 0x100, 0x44332211, 4);
	assert_int_equal(access_count, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(accesses[i].offset, i);
		assert_int_equal(accesses[i].value, 0x11 * (i + 1));
		assert_int_equal(accesses[i].size, 1);
	}
	assert_int_equal(pio_read(m, 0x101, 2), 0xd2d1);
	assert_int_equal(pio_read(m, 0x103, 2), 0xffd3); /* the second byte is nobody's */
}

static void test_pio_wide(void **state)
{
	struct machine *m = *state;

	access_count = 0;
	pio_register(m, 0x200, 4, &wide_ops, NULL);
	assert_int_equal(pio_read(m, 0x200, 4), 0xa0b0c0d0);
	assert_int_equal(pio_read(m, 0x202, 2), 0xc0d2);
	assert_int_equal(access_count, 2);
	assert_int_equal(accesses[1].size, 2);
	/* Beyond the region's end it is cut up after all. */
	assert_int_equal(pio_read(m, 0x203, 4), 0xffffffd3);
	assert_int_equal(access_count, 3);
	pio_write(m, 0x1ff, 0xccbbaa99, 4);
	assert_int_equal(access_count, 6);
	assert_int_equal(accesses[3].value, 0xaa);
}

static void test_pio_unclaimed(void **state)
{
	struct machine *m = *state;

	assert_int_equal(pio_read(m, 0x300, 1), 0xff);
	assert_int_equal(pio_read(m, 0x300, 2), 0xffff);
	assert_int_equal(pio_read(m, 0x300, 4), 0xffffffff);
	pio_write(m, 0xffff, 0x1234, 2); /* wraps to port 0 */
	pio_register(m, 0, 1, &byte_ops, NULL);
	access_count = 0;
	pio_write(m, 0xffff, 0x1234, 2);
	assert_int_equal(access_count, 1);
	assert_int_equal(accesses[0].value, 0x12);
}

static void test_mmio(void **state)
{
	struct machine *m = *state;

	access_count = 0;
	mmio_register(m, 0xfee00000, 0x1000, &wide_ops, NULL);
	mmio_register(m, 0xfec00000, 0x1000, &byte_ops, NULL); /* lower, registered later */
	assert_int_equal(mmio_read(m, 0xfee00010, 4), 0xa0b0c0e0);
	assert_int_equal(mmio_read(m, 0xfec00000, 2), 0xd1d0);
	assert_true(mmio_read(m, 0xfee00000, 8) == 0xa0b0c0d4a0b0c0d0);
	assert_true(mmio_read(m, 0xd0000000, 8) == UINT64_MAX);
	assert_int_equal(mmio_read(m, 0xd0000000, 1), 0xff);
	access_count = 0;
	mmio_write(m, 0xfee00ffe, 0x44332211, 4); /* half of it beyond the end */
	assert_int_equal(access_count, 2);
	assert_int_equal(accesses[1].offset, 0xfff);
	assert_int_equal(accesses[1].value, 0x22);
	mmio_write(m, 0xd0000000, 1, 4);
}

/* ------------------------------------------------------------------ lines and requests */

static unsigned line_events, last_line;
static bool last_level;

static void note_line(void *opaque, unsigned line, bool level)
{
	(void)opaque;
	line_events++;
	last_line = line;
	last_level = level;
}

static void test_irq_lines(void **state)
{
	struct machine *m = *state;

	line_events = 0;
	irq_sink_add(m, note_line, NULL);
	irq_sink_add(m, note_line, NULL);
	irq_set(m, 4, true);
	assert_int_equal(line_events, 2);
	irq_set(m, 4, true); /* no change, no news */
	assert_int_equal(line_events, 2);
	irq_pulse(m, 23);
	assert_int_equal(line_events, 6);
	assert_int_equal(last_line, 23);
	assert_false(last_level);
}

static int ack_lapic = 0x41, ack_pic = 0x30;

static int ack(void *opaque)
{
	return *(int *)opaque;
}

static void test_intr(void **state)
{
	struct machine *m = *state;
	struct vcpu *c = machine_vcpu(m);

	intr_register(m, INTR_LAPIC, ack, &ack_lapic);
	intr_register(m, INTR_PIC, ack, &ack_pic);
	assert_int_equal(c->request, 0);
	assert_int_equal(intr_ack(m), -1);
	intr_set(m, INTR_PIC, true);
	assert_int_equal(c->request, REQ_IRQ);
	assert_int_equal(intr_ack(m), 0x30);
	intr_set(m, INTR_LAPIC, true);
	assert_int_equal(intr_ack(m), 0x41); /* the local APIC first */
	intr_set(m, INTR_LAPIC, false);
	assert_int_equal(c->request, REQ_IRQ);
	intr_pic_enable(m, false);
	assert_int_equal(c->request, 0);
	assert_int_equal(intr_ack(m), -1);
	intr_pic_enable(m, true);
	assert_int_equal(c->request, REQ_IRQ);
	ack_lapic = -1; /* changed its mind: the PIC is asked */
	intr_set(m, INTR_LAPIC, true);
	assert_int_equal(intr_ack(m), 0x30);
	ack_lapic = 0x41;
	nmi_raise(m);
	assert_int_equal(c->request, REQ_IRQ | REQ_NMI);
}

static void raise_pic(void *opaque)
{
	intr_set(opaque, INTR_PIC, true);
}

static void raise_nmi(void *opaque)
{
	nmi_raise(opaque);
}

static void arm(struct machine *m, struct vtimer *t, uint64_t deadline)
{
	machine_lock(m);
	vtimer_arm(t, deadline);
	machine_unlock(m);
}

static void test_wait(void **state)
{
	struct machine *m = *state;
	struct vtimer irq, nmi;

	intr_register(m, INTR_PIC, ack, &ack_pic);
	assert_int_equal(evloop_start(m), 0);
	vtimer_init(m, &irq, raise_pic, m);
	vtimer_init(m, &nmi, raise_nmi, m);
	m->vcpu.iflag = FL_IF;
	uint64_t start = clock_ns(m);
	arm(m, &irq, start + 5000000);
	vcpu_wait(m);
	assert_in_range(clock_ns(m) - start, 5000000, 1000000000);
	assert_int_equal(m->vcpu.request, REQ_IRQ);
	/* With interrupts off, one that is pending does not end HLT; an NMI does. */
	m->vcpu.iflag = 0;
	start = clock_ns(m);
	arm(m, &nmi, start + 5000000);
	vcpu_wait(m);
	assert_in_range(clock_ns(m) - start, 5000000, 1000000000);
	assert_int_equal(m->vcpu.request, REQ_IRQ | REQ_NMI);
}

static _Atomic pthread_t ran_on;

static void raise_pic_here(void *opaque)
{
	ran_on = pthread_self();
	raise_pic(opaque);
}

struct arming {
	struct machine *m;
	struct vtimer *t;
	uint64_t at;
};

static void *arm_soon(void *opaque)
{
	struct arming *a = opaque;

	sleep_us(5000);
	arm(a->m, a->t, a->at);
	return NULL;
}

/* A sleeping vCPU runs the timers it waits for; one that is armed meanwhile for a sooner time is not missed.
 */
static void test_wait_runs_timers(void **state)
{
	struct machine *m = *state;
	struct vtimer irq, nmi;
	pthread_t t;

	intr_register(m, INTR_PIC, ack, &ack_pic);
	assert_int_equal(evloop_start(m), 0);
	vtimer_init(m, &irq, raise_pic_here, m);
	vtimer_init(m, &nmi, raise_nmi, m);
	m->vcpu.iflag = FL_IF;
	ran_on = m->evloop_thread;
	arm(m, &irq, clock_ns(m) + 5000000);
	vcpu_wait(m);
	assert_true(pthread_equal(ran_on, m->vcpu_thread));
	intr_set(m, INTR_PIC, false);

	uint64_t start = clock_ns(m);
	struct arming sooner = {m, &nmi, start + 20000000};
	arm(m, &irq, start + 30000000000);
	assert_int_equal(pthread_create(&t, NULL, arm_soon, &sooner), 0);
	vcpu_wait(m);
	assert_in_range(clock_ns(m) - start, 20000000, 10000000000);
	assert_int_equal(m->vcpu.request, REQ_NMI);
	pthread_join(t, NULL);

	/* Awake again, it leaves them to the event loop. */
	vcpu_request_clear(m, REQ_NMI);
	arm(m, &irq, clock_ns(m) + 5000000);
	uint64_t limit = clock_ns(m) + 10000000000;
	while (!atomic_load(&m->vcpu.request) && clock_ns(m) < limit)
		;
	assert_true(pthread_equal(ran_on, m->evloop_thread));
}

static struct machine *kicked_machine;

static void on_timer_kick(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	clock_kicked(kicked_machine, si);
}

/* In a run, timers interrupt the vCPU thread, and it runs them: there is no event loop here at all. */
static void test_timers_kick(void **state)
{
	struct machine *m = *state;
	struct sigaction sa = {.sa_sigaction = on_timer_kick, .sa_flags = SA_SIGINFO}, old;
	struct vtimer irq;

	kicked_machine = m;
	sigaction(VCPU_KICK_SIG, &sa, &old);
	intr_register(m, INTR_PIC, ack, &ack_pic);
	vtimer_init(m, &irq, raise_pic, m);
	uint64_t start = clock_ns(m);
	arm(m, &irq, start + 5000000);
	assert_true(clock_kick_vcpu(m)); /* what was armed before counts, too */
	for (int round = 0; round < 3; round++) {
		while (!atomic_load(&m->vcpu.request) && clock_ns(m) < start + 10000000000)
			;
		assert_int_equal(m->vcpu.request, REQ_TIMER);
		assert_in_range(clock_ns(m) - start, 5000000, 10000000000);
		clock_due(m);
		assert_int_equal(m->vcpu.request, REQ_IRQ);
		intr_set(m, INTR_PIC, false);
		arm(m, &irq, clock_ns(m) + 1000000);
	}
	/* A signal of somebody else is no timer's. */
	vtimer_disarm(&irq);
	raise(VCPU_KICK_SIG);
	assert_int_equal(m->vcpu.request, 0);
	clock_kick_no_more(m);
	sigaction(VCPU_KICK_SIG, &old, NULL);
}

static volatile sig_atomic_t kicks;

static void on_kick(int sig)
{
	(void)sig;
	kicks++;
}

static void test_kick(void **state)
{
	struct machine *m = *state;
	struct sigaction sa = {.sa_handler = on_kick}, old;
	struct vtimer t;

	sigaction(VCPU_KICK_SIG, &sa, &old);
	assert_int_equal(evloop_start(m), 0);
	vtimer_init(m, &t, raise_nmi, m);
	kicks = 0;
	atomic_store(&m->vcpu_in_guest, true);
	arm(m, &t, clock_ns(m) + 1000000);
	uint64_t limit = clock_ns(m) + 10000000000;
	while (!kicks && clock_ns(m) < limit)
		;
	assert_int_equal(kicks, 1);
	atomic_store(&m->vcpu_in_guest, false);
	vcpu_request_clear(m, REQ_NMI);
	arm(m, &t, clock_ns(m));
	vcpu_wait(m);
	assert_int_equal(kicks, 1); /* outside translated code there is no need for a signal */
	sigaction(VCPU_KICK_SIG, &old, NULL);
}

/* ------------------------------------------------------------------ time */

/* Whether 50 ms are as long by the TSC as by the clock, to 0.1 %. */
static bool tsc_agrees(struct machine *m, uint64_t hz)
{
	uint64_t ns = clock_ns(m), tsc = __builtin_ia32_rdtsc();

	sleep_us(50000);
	ns = clock_ns(m) - ns;
	tsc = __builtin_ia32_rdtsc() - tsc;
	uint64_t expected = (uint64_t)((unsigned __int128)hz * ns / 1000000000);
	return tsc > expected - expected / 1000 && tsc < expected + expected / 1000;
}

static void test_tsc_rate(void **state)
{
	struct machine *m = *state;
	uint64_t hz = clock_tsc_hz(m);
	int tries = 0;

	assert_true(hz > 100000000 && hz < 10000000000);
	assert_true(clock_tsc_hz(m) == hz);
	while (!tsc_agrees(m, hz)) /* we may lose the processor between the two readings */
		assert_true(++tries < 5);
}

#define TIMERS 8
static struct {
	struct vtimer t;
	uint64_t fired;
	unsigned order;
} timers[TIMERS];
static _Atomic unsigned fired_count;

static void note_timer(void *opaque)
{
	unsigned i = (unsigned)(uintptr_t)opaque;

	timers[i].fired = clock_ns(timers[i].t.machine);
	timers[i].order = fired_count++;
}

static void wait_fired(unsigned n)
{
	for (int i = 0; i < 2000 && fired_count < n; i++)
		sleep_us(1000);
	machine_lock(timers[0].t.machine); /* the callback that counted has returned */
	machine_unlock(timers[0].t.machine);
	assert_int_equal(fired_count, n);
}

static void test_timers(void **state)
{
	struct machine *m = *state;
	static const unsigned order[TIMERS] = {3, 7, 1, 0, 6, 2, 5, 4};
	uint64_t due[TIMERS];

	fired_count = 0;
	for (unsigned i = 0; i < TIMERS; i++)
		vtimer_init(m, &timers[i].t, note_timer, (void *)(uintptr_t)i);
	assert_int_equal(evloop_start(m), 0);
	machine_lock(m);
	uint64_t base = clock_ns(m) + 2000000;
	for (unsigned i = 0; i < TIMERS; i++) {
		due[i] = base + order[i] * 1000000u;
		vtimer_arm(&timers[i].t, due[i]);
	}
	machine_unlock(m);
	wait_fired(TIMERS);
	for (unsigned i = 0; i < TIMERS; i++) {
		assert_int_equal(timers[i].order, order[i]);
		assert_true(timers[i].fired >= due[i]);
		assert_true(timers[i].fired - due[i] < 500000000);
		assert_true(timers[i].t.deadline == UINT64_MAX);
	}
}

static void test_timer_moves(void **state)
{
	struct machine *m = *state;

	fired_count = 0;
	for (unsigned i = 0; i < 2; i++)
		vtimer_init(m, &timers[i].t, note_timer, (void *)(uintptr_t)i);
	assert_int_equal(evloop_start(m), 0);
	machine_lock(m);
	uint64_t now = clock_ns(m);
	vtimer_arm(&timers[0].t, now + 3600000000000);
	vtimer_arm(&timers[1].t, now + 3000000);
	vtimer_arm(&timers[0].t, now + 1000000); /* sooner */
	vtimer_disarm(&timers[1].t);
	machine_unlock(m);
	wait_fired(1);
	assert_true(timers[0].fired >= now + 1000000);
	sleep_us(5000);
	assert_int_equal(fired_count, 1);
	/* Later than it was, and never. */
	machine_lock(m);
	now = clock_ns(m);
	vtimer_arm(&timers[0].t, now + 1000000);
	vtimer_arm(&timers[0].t, now + 8000000);
	vtimer_arm(&timers[1].t, UINT64_MAX - 1);
	machine_unlock(m);
	wait_fired(2);
	assert_true(timers[0].fired >= now + 8000000);
	machine_lock(m);
	vtimer_disarm(&timers[1].t);
	machine_unlock(m);
}

static struct vtimer busy;
static _Atomic unsigned busy_runs;

static void busy_timer(void *opaque)
{
	(void)opaque;
	busy_runs++;
	vtimer_arm(&busy, 0); /* always due */
}

/* A timer that is always due must not keep the vCPU from the lock, nor the loop from ending. */
static void test_timer_storm(void **state)
{
	struct machine *m = *state;

	busy_runs = 0;
	vtimer_init(m, &busy, busy_timer, NULL);
	assert_int_equal(evloop_start(m), 0);
	arm(m, &busy, 0);
	for (int i = 0; i < 100 || (busy_runs < 2 && i < 100000); i++) {
		pio_read(m, 0x80, 1);
		sleep_us(100);
	}
	assert_true(busy_runs > 1);
	machine_lock(m);
	vtimer_disarm(&busy);
	machine_unlock(m);
}

static void continue_later(void *opaque, uint32_t events)
{
	struct machine *m = opaque;

	(void)events;
	assert_true(machine_wait_stopped(m));
	uint64_t stopped_at = clock_ns(m);
	sleep_us(100000);
	if (clock_ns(m) == stopped_at)
		machine_cont(m);
	else
		machine_poweroff(m, EXIT_INTERNAL);
}

static void test_stop(void **state)
{
	struct machine *m = *state;
	const uint64_t one = 1;
	int fd = eventfd(0, 0);

	assert_int_equal(evloop_add_fd(m, fd, EPOLLIN | EPOLLONESHOT, continue_later, m), 0);
	assert_int_equal(evloop_start(m), 0);
	assert_false(machine_stopped(m));
	fired_count = 0;
	vtimer_init(m, &timers[0].t, note_timer, NULL);
	uint64_t before = clock_ns(m), tsc_before = __builtin_ia32_rdtsc() + m->vcpu.tsc_offset;
	arm(m, &timers[0].t, before + 10000000);
	machine_stop(m);
	assert_int_equal(m->vcpu.request, REQ_STOP);
	assert_int_equal(write(fd, &one, sizeof one), sizeof one);
	vcpu_park(m);
	assert_int_equal(m->vcpu.request, 0);
	/* 100 ms have passed outside, next to none inside: clock, TSC and timers agree. */
	uint64_t ns = clock_ns(m) - before;
	uint64_t ticks = __builtin_ia32_rdtsc() + m->vcpu.tsc_offset - tsc_before;
	assert_true(ns < 50000000);
	assert_true(ticks < clock_tsc_hz(m) / 20);
	wait_fired(1);
	assert_true(timers[0].fired >= before + 10000000);
	machine_lock(m);
	evloop_del_fd(m, fd);
	machine_unlock(m);
	close(fd);
}

static void *poweroff_soon(void *opaque)
{
	sleep_us(5000);
	machine_poweroff(opaque, 7);
	return NULL;
}

static void test_poweroff(void **state)
{
	struct machine *m = *state;
	pthread_t t;

	assert_int_equal(evloop_start(m), 0);
	machine_stop(m);
	assert_int_equal(pthread_create(&t, NULL, poweroff_soon, m), 0);
	vcpu_park(m); /* ended by the power-off */
	vcpu_wait(m);
	pthread_join(t, NULL);
	machine_poweroff(m, 9);
	assert_int_equal(machine_exit_status(m), 7); /* the first to ask decides */
	assert_true(m->vcpu.request & REQ_SHUTDOWN);
}

/* ------------------------------------------------------------------ event loop */

static void test_signal_ends(void **state)
{
	struct machine *m = *state;
	sigset_t before;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	assert_int_equal(evloop_start(m), 0);
	kill(getpid(), SIGTERM);
	vcpu_wait(m);
	assert_int_equal(m->vcpu.request, REQ_SHUTDOWN);
	assert_int_equal(machine_exit_status(m), 128 + SIGTERM);
	evloop_join(m);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int fd_pair[2];
static _Atomic unsigned fd_calls;

static void fd_ready(void *opaque, uint32_t events)
{
	struct machine *m = opaque;

	(void)events;
	/* Both are ready and in the same batch: whoever comes first removes both. */
	evloop_del_fd(m, fd_pair[0]);
	evloop_del_fd(m, fd_pair[1]);
	fd_calls++;
}

static void test_evloop_removed_in_batch(void **state)
{
	struct machine *m = *state;

	fd_calls = 0;
	for (int i = 0; i < 2; i++) {
		fd_pair[i] = eventfd(1, 0);
		assert_int_equal(evloop_add_fd(m, fd_pair[i], EPOLLIN, fd_ready, m), 0);
	}
	assert_int_equal(evloop_start(m), 0);
	for (int i = 0; i < 10000 && !fd_calls; i++)
		sleep_us(1000);
	evloop_join(m);
	assert_int_equal(fd_calls, 1);
	close(fd_pair[0]);
	close(fd_pair[1]);
}

static void test_evloop_refuses(void **state)
{
	struct machine *m = *state;

	FILE *f = tmpfile();
	assert_non_null(f);
	assert_int_equal(evloop_add_fd(m, fileno(f), EPOLLIN, fd_ready, m), -EPERM);
	assert_int_equal(evloop_add_fd(m, fileno(f), EPOLLIN, fd_ready, m), -EPERM); /* no slot was used up */
	fclose(f);
}

/* ------------------------------------------------------------------ reset */

static unsigned reset_order;

static void first_reset(void *opaque)
{
	(void)opaque;
	reset_order = reset_order * 10 + 1;
}

static void second_reset(void *opaque)
{
	struct machine *m = opaque;

	reset_order = reset_order * 10 + 2;
	machine_vcpu(m)->eip = 0x1234;
}

static void test_reset(void **state)
{
	struct machine *m = *state;

	reset_order = mode_changes = 0;
	machine_on_reset(m, first_reset, m);
	machine_on_reset(m, second_reset, m);
	m->vcpu.cr0 |= CR0_PE | CR0_PG;
	machine_reset_request(m);
	assert_int_equal(m->vcpu.request, REQ_RESET);
	machine_reset_now(m);
	assert_int_equal(m->vcpu.request, 0);
	assert_int_equal(reset_order, 12);
	assert_int_equal(m->vcpu.eip, 0x1234);
	assert_false(cpu_protected(&m->vcpu));
	assert_int_equal(mode_changes, 1);
	m->cfg.no_reboot = true;
	machine_reset_request(m);
	assert_int_equal(m->vcpu.request, REQ_SHUTDOWN);
	assert_int_equal(machine_exit_status(m), EXIT_POWEROFF);
}

/* ------------------------------------------------------------------ CPUID */

static uint32_t cpuid_reg(struct machine *m, uint32_t leaf, int reg)
{
	uint32_t out[4];

	cpuid_query(&m->vcpu, leaf, 0, out);
	return out[reg];
}

static unsigned count_things(void *opaque, uint64_t *out, unsigned max)
{
	(void)opaque;
	assert_true(max >= 2);
	out[0] = 0x1122334455667788;
	out[1] = 42;
	return 2;
}

static void test_cpuid(void **state)
{
	struct machine *m = *state;
	uint32_t out[4];

	cpuid_query(&m->vcpu, 0, 0, out);
	assert_int_equal(out[0], 0x16);
	assert_memory_equal(&out[1], "Genu", 4);
	assert_memory_equal(&out[3], "ineI", 4);
	assert_memory_equal(&out[2], "ntel", 4);
	assert_int_equal(cpuid_reg(m, 1, 0), 0x106ca);
	assert_true(cpuid_reg(m, 1, 2) >> 31);						/* hypervisor */
	assert_false(cpuid_reg(m, 1, 2) & (1u << 3 | 1u << 5));				/* MONITOR, VMX */
	assert_false(cpuid_reg(m, 1, 2) & (1u << 21 | 1u << 24 | 1u << 26 | 1u << 28)); /* x2APIC.. AVX */
	assert_true(cpuid_reg(m, 1, 3) & 1u << 9);
	m->vcpu.apic_base &= ~0x800ull;
	assert_false(cpuid_reg(m, 1, 3) & 1u << 9);
	assert_int_equal(cpuid_reg(m, 6, 0), 1u << 2); /* the APIC timer never stops */
	assert_int_equal(cpuid_reg(m, 0xa, 0), 0);
	assert_int_equal(cpuid_reg(m, 0xb, 0), 0);
	assert_int_equal(cpuid_reg(m, 0x17, 0), cpuid_reg(m, 0x16, 0)); /* beyond the end: the last leaf's */
	assert_int_equal(cpuid_reg(m, 0x80000001, 3), 1u << 20);	/* NX, no long mode */
	cpuid_query(&m->vcpu, 0x80000002, 0, out);
	assert_memory_equal(out, "bt86 virtual CPU", 16);
	cpuid_query(&m->vcpu, 4, 2, out);
	assert_int_equal((out[1] >> 22) + 1, 8);
	assert_int_equal(out[2] + 1, 1024);
	cpuid_query(&m->vcpu, 4, 3, out);
	assert_int_equal(out[0], 0);
}

/* Leaf 15 as Linux computes with it: 32 bits, in kHz. Right to 10 ppm whatever the TSC's rate is. */
static void test_cpuid_rates(void **state)
{
	struct machine *m = *state;
	static const uint64_t rates[] = {100000000,  1000000001, 1999999999, 2000000001, 2000130000,
					 2595124000, 2600000000, 2999999000, 3141592653, 4999990000};
	uint64_t measured = clock_tsc_hz(m);
	uint32_t out[4];

	cpuid_query(&m->vcpu, 0x15, 0, out);
	if (!out[0]) /* the host's TSC stops or changes its rate */
		skip();
	for (unsigned i = 0; i <= sizeof rates / sizeof rates[0]; i++) {
		uint64_t hz = i ? rates[i - 1] : measured;
		atomic_store(&m->tsc_hz, hz);
		cpuid_query(&m->vcpu, 0x15, 0, out);
		assert_int_equal(out[2], CPUID_APIC_BUS_KHZ * 1000);
		uint64_t product = (uint64_t)(out[2] / 1000) * out[1];
		assert_true(product <= UINT32_MAX);
		assert_in_range(product / out[0], hz / 1000 - hz / 100000000 - 1,
				hz / 1000 + hz / 100000000 + 1);
		assert_int_equal(cpuid_reg(m, 0x16, 0), (hz + 500000) / 1000000);
		assert_int_equal(cpuid_reg(m, 0x16, 2), CPUID_APIC_BUS_KHZ / 1000);
	}
	atomic_store(&m->tsc_hz, measured);
}

static void test_cpuid_hypervisor(void **state)
{
	struct machine *m = *state;
	uint32_t out[4];

	cpuid_query(&m->vcpu, 0x40000000, 0, out);
	assert_memory_equal(&out[1], "bt86bt86bt86", 12);
	assert_int_equal(out[0], 0x40000010);
	assert_int_equal(cpuid_reg(m, 0x40000010, 0), clock_tsc_hz(m) / 1000);
	assert_int_equal(cpuid_reg(m, 0x40000010, 1), CPUID_APIC_BUS_KHZ);
	assert_int_equal(cpuid_reg(m, 0x40000100, 0), 0);
	cpuid_set_counters(m, count_things, NULL);
	assert_int_equal(cpuid_reg(m, 0x40000100, 0), 2);
	assert_int_equal(cpuid_reg(m, 0x40000101, 0), 0x55667788);
	assert_int_equal(cpuid_reg(m, 0x40000101, 1), 0x11223344);
	assert_int_equal(cpuid_reg(m, 0x40000102, 0), 42);
	assert_int_equal(cpuid_reg(m, 0x40000103, 0), 0);
}

static void test_cpuid_models(void **state)
{
	uint64_t v;

	(void)state;
	struct machine *m = create_model("486");
	assert_int_equal(cpuid_reg(m, 0, 0), 1);
	assert_int_equal(cpuid_reg(m, 1, 0) >> 8, 4);
	assert_int_equal(cpuid_cr4_allowed(&m->vcpu), CR4_VME | CR4_PVI | CR4_PSE);
	assert_false(cpuid_has_nx(&m->vcpu));
	assert_int_equal(msr_read(&m->vcpu, MSR_TSC, &v), -1);
	assert_int_equal(cpuid_reg(m, 0x80000000, 0),
			 cpuid_reg(m, 1, 0)); /* no such range: as the highest basic */
	machine_destroy(m);

	m = create_model("pentium3");
	assert_true(cpuid_cr4_allowed(&m->vcpu) & CR4_PAE);
	assert_int_equal(msr_read(&m->vcpu, MSR_EFER, &v), -1);
	assert_int_equal(msr_read(&m->vcpu, MSR_PAT, &v), 0);
	machine_destroy(m);

	m = create_model("max");
	assert_int_equal(cpuid_cr4_allowed(&m->vcpu), 0x7ff);
	assert_true(cpuid_has_nx(&m->vcpu));
	machine_destroy(m);
}

/* ------------------------------------------------------------------ MSRs */

static uint64_t msr_get(struct machine *m, uint32_t index)
{
	uint64_t v = 0;

	assert_int_equal(msr_read(&m->vcpu, index, &v), 0);
	return v;
}

static void assert_msr_gp(struct machine *m, uint32_t index, uint64_t value)
{
	m->vcpu.exc.pending = false;
	assert_int_equal(msr_write(&m->vcpu, index, value), -1);
	assert_true(m->vcpu.exc.pending && m->vcpu.exc.has_error);
	assert_int_equal(m->vcpu.exc.vector, VEC_GP);
	assert_int_equal(m->vcpu.exc.error, 0);
}

static void test_msr_plain(void **state)
{
	struct machine *m = *state;
	uint64_t v;

	assert_int_equal(msr_write(&m->vcpu, MSR_SYSENTER_EIP, 0xc0001234), 0);
	assert_int_equal(m->vcpu.sysenter_eip, 0xc0001234);
	assert_int_equal(msr_get(m, MSR_SYSENTER_EIP), 0xc0001234);
	assert_int_equal(msr_read(&m->vcpu, 0xdead, &v), -1);
	assert_msr_gp(m, 0xdead, 0);
	assert_msr_gp(m, MSR_MTRRCAP, 0);
	assert_int_equal(msr_write(&m->vcpu, MSR_BIOS_SIGN_ID, 0), 0);
	assert_int_equal(msr_get(m, MSR_BIOS_SIGN_ID), 0);
	assert_int_equal(msr_get(m, MSR_MCG_CAP), 0);
}

static void test_msr_tsc(void **state)
{
	struct machine *m = *state;

	assert_int_equal(msr_write(&m->vcpu, MSR_TSC, 1000), 0);
	uint64_t v = msr_get(m, MSR_TSC);
	assert_in_range(v, 1000, 1000 + clock_tsc_hz(m));
}

static void test_msr_checked(void **state)
{
	struct machine *m = *state;

	mode_changes = 0;
	assert_int_equal(msr_write(&m->vcpu, MSR_EFER, 0x800), 0);
	assert_int_equal(mode_changes, 1);
	assert_msr_gp(m, MSR_EFER, 0x801); /* SCE */
	assert_msr_gp(m, MSR_EFER, 0x100); /* LME */
	assert_int_equal(msr_get(m, MSR_EFER), 0x800);

	assert_int_equal(msr_write(&m->vcpu, MSR_PAT, 0x0007040600010406), 0);
	assert_msr_gp(m, MSR_PAT, 0x02);
	assert_msr_gp(m, MSR_PAT, 0x0300000000000000);

	assert_int_equal(msr_write(&m->vcpu, MSR_MTRR_PHYSBASE0 + 15, 0xfc0000800), 0);
	assert_msr_gp(m, MSR_MTRR_PHYSBASE0, 0x2);
	assert_msr_gp(m, MSR_MTRR_PHYSBASE0 + 1, 1ull << 36);
	assert_msr_gp(m, MSR_MTRR_PHYSBASE0 + 16, 0);
	assert_msr_gp(m, MSR_MTRR_DEF_TYPE, 0x1000);
	assert_int_equal(msr_write(&m->vcpu, 0x26f, 0x0606060606060606), 0);
	assert_true(m->vcpu.mtrr_fixed[10] == 0x0606060606060606);
	assert_int_equal(msr_write(&m->vcpu, 0x259, 0x0505050505050505), 0);
	assert_true(m->vcpu.mtrr_fixed[2] == 0x0505050505050505);
	assert_msr_gp(m, MSR_MTRR_FIX64K, 7);

	assert_int_equal(msr_get(m, MSR_MISC_ENABLE), 0x1801);
	assert_int_equal(msr_write(&m->vcpu, MSR_MISC_ENABLE, 0x1800), 0);
	assert_int_equal(msr_get(m, MSR_MISC_ENABLE), 0x1800);
	assert_msr_gp(m, MSR_MISC_ENABLE, 1ull << 34);
}

static uint64_t hooked_base;

static void apic_hook(void *opaque, uint64_t base)
{
	(void)opaque;
	hooked_base = base;
}

static void test_msr_apic_base(void **state)
{
	struct machine *m = *state;

	machine_set_apic_hook(m, apic_hook, NULL);
	assert_int_equal(msr_write(&m->vcpu, MSR_APIC_BASE, 0xfee00000), 0);
	assert_int_equal(hooked_base, 0xfee00100);   /* the bootstrap processor stays one */
	assert_msr_gp(m, MSR_APIC_BASE, 0xfee00c00); /* x2APIC */
	assert_msr_gp(m, MSR_APIC_BASE, 1ull << 36 | 0x900);
}

/* ------------------------------------------------------------------ logging */

static void test_log(void **state)
{
	const char *name;

	(void)state;
	log_mask = 0;
	assert_int_equal(log_set_categories("int,bogus"), -1);
	assert_int_equal(log_mask, 0);
	assert_int_equal(log_set_categories(""), -1);
	assert_int_equal(log_set_categories("int,"), -1);
	assert_int_equal(log_set_categories("int,in_asm"), 0);
	assert_true(log_on(LOG_INT) && log_on(LOG_IN_ASM) && !log_on(LOG_OP));
	for (unsigned c = 0; c < LOG_CATS; c++) {
		assert_true(strlen(log_category_help(c, &name)) > 0);
		assert_int_equal(log_set_categories(name), 0);
	}
	assert_int_equal(log_set_file("/nonexistent/dir/log"), -ENOENT);
	log_mask = 0;
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create_refuses),
		T(test_pio_split),
		T(test_pio_wide),
		T(test_pio_unclaimed),
		T(test_mmio),
		T(test_irq_lines),
		T(test_intr),
		T(test_wait),
		T(test_wait_runs_timers),
		T(test_timers_kick),
		T(test_kick),
		T(test_tsc_rate),
		T(test_timers),
		T(test_timer_moves),
		T(test_timer_storm),
		T(test_stop),
		T(test_poweroff),
		T(test_signal_ends),
		T(test_evloop_removed_in_batch),
		T(test_evloop_refuses),
		T(test_reset),
		T(test_cpuid),
		T(test_cpuid_rates),
		T(test_cpuid_hypervisor),
		cmocka_unit_test(test_cpuid_models),
		T(test_msr_plain),
		T(test_msr_tsc),
		T(test_msr_checked),
		T(test_msr_apic_base),
		cmocka_unit_test(test_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
