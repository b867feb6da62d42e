/* clock.c - guest time and timers.
 *
 * clock_ns is CLOCK_MONOTONIC less a base. When the monitor has stopped the guest, the value is frozen; on
 * continuing, the base moves by the length of the stop, and tsc_offset by the same stretch of TSC ticks, so
 * that the guest notices nothing.
 *
 * All timers share one of the host's. It is never set later than the earliest deadline; when a timer is moved
 * back or disarmed it is left as it is, at the price of one look in vain, because periodic timers are
 * re-armed far more often than they are cancelled.
 *
 * In a run that is a POSIX timer whose signal, the kick, interrupts the vCPU thread: the guest hears of its
 * tick without another thread that must be woken first, and that a busy host lets wait. The handler sets
 * REQ_TIMER, and the run loop runs what is due. While the vCPU sleeps in HLT it waits for the earliest timer
 * itself. Without a run, it is a timerfd that the event loop watches.
 */
#include "vmm/machine_private.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S	 1000000000ull
#define CALIBRATE_NS	 20000000ull /* two samples 20 ms apart, each good to some 30 ns: 3 ppm */
#define SAMPLES		 16
#define TIMERS_PER_BATCH 64

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void clock_program(struct machine *m);

/* ------------------------------------------------------------------ the clock */

uint64_t clock_ns(const struct machine *m)
{
	uint64_t frozen = atomic_load_explicit(&m->clock_frozen, memory_order_acquire);

	if (frozen)
		return frozen - 1;
	return monotonic_ns() - atomic_load_explicit(&m->clock_base, memory_order_relaxed);
}

void clock_freeze(struct machine *m)
{
	uint64_t now = clock_ns(m);

	m->clock_frozen_tsc = __builtin_ia32_rdtsc();
	atomic_store(&m->clock_frozen, now + 1);
}

void clock_thaw(struct machine *m)
{
	uint64_t now = atomic_load(&m->clock_frozen) - 1;

	atomic_store(&m->clock_base, monotonic_ns() - now);
	atomic_store(&m->clock_frozen, 0);
	m->vcpu.tsc_offset -= __builtin_ia32_rdtsc() - m->clock_frozen_tsc;
	m->timer_programmed = UINT64_MAX;
	clock_program(m);
}

/* ------------------------------------------------------------------ TSC rate */

/* One (ns, tsc) pair: the tightest of several tries, in case we are preempted in one. */
static void clock_sample(uint64_t *ns, uint64_t *tsc)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < SAMPLES; i++) {
		uint64_t before = __builtin_ia32_rdtsc();
		uint64_t t = monotonic_ns();
		uint64_t width = __builtin_ia32_rdtsc() - before;
		if (width < best) {
			best = width;
			*ns = t;
			*tsc = before + width / 2;
		}
	}
}

/* The first sample is taken at creation, the second when somebody asks, so that loading the guest is not
 * wasted. */
static uint64_t clock_measure_tsc(const struct machine *m)
{
	uint64_t ns = 0, tsc = 0;

	uint64_t now = monotonic_ns();
	if (now - m->cal_ns < CALIBRATE_NS) {
		struct timespec rest = {.tv_nsec = (long)(CALIBRATE_NS - (now - m->cal_ns))};
		while (nanosleep(&rest, &rest) < 0 && errno == EINTR)
			;
	}
	clock_sample(&ns, &tsc);
	return (uint64_t)((unsigned __int128)(tsc - m->cal_tsc) * NS_PER_S / (ns - m->cal_ns));
}

uint64_t clock_tsc_hz(const struct machine *m)
{
	uint64_t hz = atomic_load_explicit(&m->tsc_hz, memory_order_relaxed);

	if (!hz) {
		uint64_t unknown = 0;
		struct machine *cache =
			(struct machine *)(uintptr_t)m; /* measured once, constant from then on */
		hz = clock_measure_tsc(m);
		if (!atomic_compare_exchange_strong(&cache->tsc_hz, &unknown, hz))
			hz = unknown;
	}
	return hz;
}

/* ------------------------------------------------------------------ timers */

static uint64_t earliest_timer(const struct machine *m)
{
	return m->timers ? m->timers->deadline : UINT64_MAX;
}

/* CLOCK_MONOTONIC at that time. False if it is beyond the clock's range. */
static bool clock_absolute(const struct machine *m, uint64_t deadline, struct timespec *ts)
{
	uint64_t abs;

	if (__builtin_add_overflow(deadline, atomic_load(&m->clock_base), &abs) || abs > INT64_MAX)
		return false;
	*ts = (struct timespec){.tv_sec = (time_t)(abs / NS_PER_S), .tv_nsec = (long)(abs % NS_PER_S)};
	return true;
}

/* Zero: never */
static void clock_set(struct machine *m, const struct itimerspec *its)
{
	if (m->timer_kicks)
		timer_settime(m->kick_timer, TIMER_ABSTIME, its, NULL);
	else
		timerfd_settime(m->timer_fd, TFD_TIMER_ABSTIME, its, NULL);
}

/* Sets the host's timer for the earliest one, if nobody looks then or sooner. */
static void clock_program(struct machine *m)
{
	uint64_t earliest = earliest_timer(m);
	struct itimerspec its = {0};

	if (m->timers_running || earliest >= m->timer_programmed || earliest >= m->timer_awaited ||
	    atomic_load(&m->clock_frozen))
		return;
	m->timer_programmed = earliest;
	/* An absolute time in the past fires at once; one beyond the clock's range never does. */
	if (clock_absolute(m, earliest, &its.it_value))
		clock_set(m, &its);
}

static void vtimer_unlink(struct vtimer *t)
{
	for (struct vtimer **p = &t->machine->timers; *p; p = &(*p)->next) {
		if (*p == t) {
			*p = t->next;
			break;
		}
	}
	t->deadline = UINT64_MAX;
	t->next = NULL;
}

void vtimer_init(struct machine *m, struct vtimer *t, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct vtimer){.deadline = UINT64_MAX, .fn = fn, .opaque = opaque, .machine = m};
}

void vtimer_arm(struct vtimer *t, uint64_t deadline_ns)
{
	struct vtimer **p = &t->machine->timers;

	if (t->deadline == deadline_ns)
		return;
	vtimer_disarm(t);
	if (deadline_ns == UINT64_MAX)
		return;
	t->deadline = deadline_ns;
	while (*p && (*p)->deadline <= deadline_ns)
		p = &(*p)->next;
	t->next = *p;
	*p = t;
	clock_program(t->machine);
}

void vtimer_disarm(struct vtimer *t)
{
	if (t->deadline != UINT64_MAX)
		vtimer_unlink(t);
}

void clock_run_timers(struct machine *m)
{
	uint64_t now = clock_ns(m);

	if (atomic_load(&m->clock_frozen))
		return;
	m->timers_running = true;
	/* A timer that re-arms itself in the past catches up here, but cannot keep the lock for ever. */
	for (int i = 0; i < TIMERS_PER_BATCH && m->timers && m->timers->deadline <= now; i++) {
		struct vtimer *t = m->timers;
		vtimer_unlink(t);
		t->fn(t->opaque);
	}
	m->timers_running = false;
	clock_program(m);
}

bool clock_await(struct machine *m, struct timespec *until)
{
	const struct itimerspec never = {0};

	machine_lock(m);
	m->timer_awaited = 0; /* whatever is armed by those that run now, we shall see */
	clock_run_timers(m);
	m->timer_awaited = earliest_timer(m);
	if (m->timer_programmed != UINT64_MAX)
		clock_set(m, &never);
	m->timer_programmed = UINT64_MAX;
	bool any = clock_absolute(m, m->timer_awaited, until);
	machine_unlock(m);
	return any;
}

void clock_await_end(struct machine *m)
{
	machine_lock(m);
	m->timer_awaited = UINT64_MAX;
	clock_program(m);
	machine_unlock(m);
}

static void clock_timerfd_ready(void *opaque, uint32_t events)
{
	struct machine *m = opaque;
	uint64_t expirations;

	(void)events;
	if (read(m->timer_fd, &expirations, sizeof expirations) == sizeof expirations) {
		m->timer_programmed = UINT64_MAX;
		clock_run_timers(m);
	}
}

bool clock_kick_vcpu(struct machine *m)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = VCPU_KICK_SIG};

	ev._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &ev, &m->kick_timer) < 0)
		return false;
	machine_lock(m);
	m->timer_kicks = true;
	m->timer_programmed = UINT64_MAX;
	clock_program(m);
	machine_unlock(m);
	return true;
}

void clock_kick_no_more(struct machine *m)
{
	machine_lock(m);
	if (m->timer_kicks)
		timer_delete(m->kick_timer);
	m->timer_kicks = false;
	m->timer_programmed = UINT64_MAX;
	machine_unlock(m);
}

void clock_kicked(struct machine *m, const siginfo_t *si)
{
	if (si->si_code == SI_TIMER)
		atomic_fetch_or(&m->vcpu.request, REQ_TIMER);
}

void clock_due(struct machine *m)
{
	vcpu_request_clear(m, REQ_TIMER);
	machine_lock(m);
	m->timer_programmed = UINT64_MAX;
	clock_run_timers(m);
	machine_unlock(m);
}

int clock_init(struct machine *m)
{
	m->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (m->timer_fd < 0)
		return -errno;
	m->timer_programmed = m->timer_awaited = UINT64_MAX;
	clock_sample(&m->cal_ns, &m->cal_tsc);
	atomic_store(&m->clock_base, m->cal_ns);
	return 0;
}

int clock_watch(struct machine *m)
{
	return evloop_add_fd(m, m->timer_fd, EPOLLIN, clock_timerfd_ready, m);
}

void clock_fini(struct machine *m)
{
	close(m->timer_fd);
}
