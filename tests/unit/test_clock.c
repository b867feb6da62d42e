/* test_clock.c - time: clock, TSC, timers, how a vCPU that sleeps or runs hears of them, standing still. */
#include "machine_rig.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void arm(struct machine *m, struct vtimer *t, uint64_t deadline)
{
	machine_lock(m);
	vtimer_arm(t, deadline);
	machine_unlock(m);
}

/* ------------------------------------------------------------------ time */

/* Whether 50 ms are as long by the TSC as by the clock, to 0.1 %. */
static bool tsc_agrees(struct machine *m, uint64_t hz)
{
	uint64_t ns = clock_ns(m), tsc = __builtin_ia32_rdtsc();

	rig_sleep_us(50000);
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
		rig_sleep_us(1000);
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
	rig_sleep_us(5000);
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
		rig_sleep_us(100);
	}
	assert_true(busy_runs > 1);
	machine_lock(m);
	vtimer_disarm(&busy);
	machine_unlock(m);
}

/* ------------------------------------------------------------------ the vCPU, asleep and at work */

static int pic_vector = 0x30;

static void raise_pic(void *opaque)
{
	intr_set(opaque, INTR_PIC, true);
}

static void raise_nmi(void *opaque)
{
	nmi_raise(opaque);
}

static void test_wait(void **state)
{
	struct machine *m = *state;
	struct vtimer irq, nmi;

	intr_register(m, INTR_PIC, rig_give_vector, &pic_vector);
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

	rig_sleep_us(5000);
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

	intr_register(m, INTR_PIC, rig_give_vector, &pic_vector);
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
	intr_register(m, INTR_PIC, rig_give_vector, &pic_vector);
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

/* ------------------------------------------------------------------ standing still */

static void continue_later(void *opaque, uint32_t events)
{
	struct machine *m = opaque;

	(void)events;
	assert_true(machine_wait_stopped(m));
	uint64_t stopped_at = clock_ns(m);
	rig_sleep_us(100000);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_tsc_rate),    rig_test(test_timers), rig_test(test_timer_moves),
		rig_test(test_timer_storm), rig_test(test_wait),   rig_test(test_wait_runs_timers),
		rig_test(test_timers_kick), rig_test(test_kick),   rig_test(test_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
