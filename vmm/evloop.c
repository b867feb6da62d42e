/* evloop.c - the event-loop thread: everything that happens to the machine from the outside.
 *
 * One thread waits in epoll for the signals that end the process, the descriptors of character back ends and,
 * unless timers kick the vCPU (clock.c), the timerfd. The signals are blocked but while it waits. There is no
 * signalfd: the kernel wakes who waits for one at every signal of the process, and the vCPU thread has
 * thousands of faults a second. Each callback runs with the machine lock held. An event names its slot and
 * the slot's generation, so that an event fetched before its descriptor was removed finds nobody.
 */
#include "vmm/machine_private.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BATCH 16

/* ------------------------------------------------------------------ descriptors */

static struct evloop_fd *evloop_find(struct machine *m, int fd)
{
	for (unsigned i = 0; i < EVLOOP_FDS; i++)
		if (m->fds[i].fd == fd)
			return &m->fds[i];
	return NULL;
}

static struct epoll_event evloop_event(const struct machine *m, const struct evloop_fd *e, uint32_t events)
{
	return (struct epoll_event){.events = events,
				    .data.u64 = (uint64_t)e->generation << 32 | (uint64_t)(e - m->fds)};
}

int evloop_add_fd(struct machine *m, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events),
		  void *opaque)
{
	struct evloop_fd *e = evloop_find(m, -1);

	assert(fd >= 0 && !evloop_find(m, fd));
	if (!e)
		return -ENOSPC;
	*e = (struct evloop_fd){.fd = fd, .generation = ++m->fd_generation, .fn = fn, .opaque = opaque};
	struct epoll_event ev = evloop_event(m, e, events);
	if (epoll_ctl(m->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		e->fd = -1;
		return -errno;
	}
	return 0;
}

void evloop_mod_fd(struct machine *m, int fd, uint32_t events)
{
	struct evloop_fd *e = evloop_find(m, fd);

	if (!e)
		return;
	struct epoll_event ev = evloop_event(m, e, events);
	epoll_ctl(m->epoll_fd, EPOLL_CTL_MOD, fd, &ev);
}

void evloop_del_fd(struct machine *m, int fd)
{
	struct evloop_fd *e = evloop_find(m, fd);

	if (!e)
		return;
	epoll_ctl(m->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	e->fd = -1;
}

/* ------------------------------------------------------------------ the thread */

static void evloop_dispatch(struct machine *m, const struct epoll_event *ev)
{
	const struct evloop_fd *e = &m->fds[ev->data.u64 & 0xffffffffu];

	machine_lock(m);
	if (e->fd >= 0 && e->generation == ev->data.u64 >> 32)
		e->fn(e->opaque, ev->events);
	machine_unlock(m);
}

/* Signals that mean "end". */
static const int ending[] = {SIGINT, SIGTERM, SIGHUP};
#define ENDING (sizeof ending / sizeof ending[0])

static volatile sig_atomic_t signals_seen, last_signal;

static void on_ending_signal(int sig)
{
	last_signal = sig;
	signals_seen = signals_seen + 1;
}

static void evloop_signalled(struct machine *m)
{
	const int status = last_signal == SIGINT ? EXIT_INTERRUPTED : 128 + (int)last_signal;

	if (m->signals_handled++) {
		/* Asked twice, and still here: something is stuck. Go at once. */
		machine_run_fatal_hook();
		_exit(status);
	}
	machine_lock(m);
	machine_poweroff(m, status);
	machine_unlock(m);
}

static void *evloop_main(void *opaque)
{
	struct machine *m = opaque;
	struct epoll_event events[BATCH];
	sigset_t waiting;

	pthread_sigmask(SIG_SETMASK, NULL, &waiting);
	for (unsigned i = 0; i < ENDING; i++)
		sigdelset(&waiting, ending[i]);
	while (!atomic_load(&m->evloop_quit)) {
		int n = epoll_pwait(m->epoll_fd, events, BATCH, -1, &waiting);
		if (n < 0 && errno != EINTR)
			break;
		for (int i = 0; i < n; i++)
			evloop_dispatch(m, &events[i]);
		while (m->signals_handled < (unsigned)signals_seen)
			evloop_signalled(m);
	}
	return NULL;
}

static void evloop_woken(void *opaque, uint32_t events)
{
	struct machine *m = opaque;
	uint64_t count;

	(void)events;
	if (read(m->wake_fd, &count, sizeof count) < 0)
		return;
}

int evloop_init(struct machine *m)
{
	for (unsigned i = 0; i < EVLOOP_FDS; i++)
		m->fds[i].fd = -1;
	m->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	m->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int rc = m->epoll_fd < 0 || m->wake_fd < 0 ? -errno : 0;
	if (!rc)
		rc = evloop_add_fd(m, m->wake_fd, EPOLLIN, evloop_woken, m);
	if (!rc)
		rc = clock_watch(m);
	if (rc)
		evloop_fini(m);
	return rc;
}

void evloop_fini(struct machine *m)
{
	const int fds[] = {m->wake_fd, m->epoll_fd};

	for (unsigned i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* As by nohup. */
static bool hangup_ignored(void)
{
	struct sigaction now;

	return sigaction(SIGHUP, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

/* From now on they reach the event loop and nobody else. */
static void evloop_take_signals(void)
{
	struct sigaction sa = {.sa_handler = on_ending_signal};
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ENDING; i++)
		sigaddset(&set, ending[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (unsigned i = 0; i < ENDING; i++)
		if (ending[i] != SIGHUP || !hangup_ignored())
			sigaction(ending[i], &sa, NULL);
}

int evloop_start(struct machine *m)
{
	sigset_t all, before;
	const int keep[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};

	evloop_take_signals();
	m->vcpu_thread = pthread_self();
	atomic_store(&m->vcpu_thread_live, true);

	/* The thread is born with everything blocked but what a bug of its own would raise: signals for
	 * the process go to the vCPU thread, which knows what state it is in. */
	sigfillset(&all);
	for (unsigned i = 0; i < sizeof keep / sizeof keep[0]; i++)
		sigdelset(&all, keep[i]);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int rc = -pthread_create(&m->evloop_thread, NULL, evloop_main, m);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		atomic_store(&m->vcpu_thread_live, false);
		return rc;
	}
	pthread_setname_np(m->evloop_thread, "bt86-events");
	m->evloop_running = true;
	return 0;
}

void evloop_join(struct machine *m)
{
	const uint64_t one = 1;

	if (!m->evloop_running)
		return;
	machine_lock(m);
	atomic_store(&m->vcpu_thread_live, false);
	pthread_cond_broadcast(
		&m->parked_cond); /* a monitor command may be waiting for a vCPU that has left */
	machine_unlock(m);
	atomic_store(&m->evloop_quit, true);
	if (write(m->wake_fd, &one, sizeof one) < 0)
		return; /* cannot happen: the counter is far from full */
	pthread_join(m->evloop_thread, NULL);
	m->evloop_running = false;
}
