/* chardev.c - character back ends: stdio, files, pseudo-terminals, Unix sockets, nothing.
 *
 * Output. The guest's bytes go into a ring and are written by the event loop half a millisecond later, so
 * that a line costs one system call and not one a character. A slow reader is never waited for: at PRESSURE
 * bytes chardev_room says 0, the UART in front shows its transmitter busy, and the guest waits as it would
 * for a slow line. A writer that does not look may go on until the ring is full.
 *
 * Input. Bytes are read as they come, escapes are taken out, and what the device has no room for waits in a
 * ring. From a terminal reading never stops, or a guest that does not read could keep the user from quitting.
 *
 * A descriptor that epoll refuses (a regular file, /dev/null) is always ready: it is served from the
 * back end's own timer. That timer runs on host time, not guest time: output has to go out while the guest is
 * stopped.
 */
#include "devices/devices.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "devices/terminal.h"

#define OUT_SIZE       (1u << 20)
#define IN_SIZE	       4096u
#define PRESSURE       4096u  /* output waiting at which the writer should wait too */
#define KEEP_UNHEARD   65536u /* output kept while nobody is connected */
#define READ_CHUNK     256u
#define BLOCKING_WRITE 512u /* what a descriptor that says it is ready takes without blocking */
#define ESCAPE_KEY     0x01 /* Ctrl-a */
#define FLUSH_NS       500000
#define RECONNECT_NS   100000000
#define CLOSE_WAIT_MS  2000

const char chardev_escape_help[] = "\r\n"
				   "Ctrl-a h  this help\r\n"
				   "Ctrl-a x  quit\r\n"
				   "Ctrl-a c  monitor\r\n"
				   "Ctrl-a b  send break\r\n"
				   "Ctrl-a Ctrl-a  send Ctrl-a\r\n";

enum kind { NOTHING, STDIO, PLAIN_FILE, PTY, UNIX_SERVER, UNIX_CLIENT };

/* What the timer has been set for; a more urgent need replaces a lesser one. */
enum urgency { IDLE, RECONNECT, FLUSH, NOW };

struct ring {
	uint8_t *data;
	size_t size; /* a power of two */
	size_t head, len;
};

struct watch {
	int fd; /* -1: none */
	uint32_t events;
	bool always_ready; /* epoll does not take it */
	bool blocking;	   /* O_NONBLOCK could not be set: look before every read and write */
};

struct chardev {
	struct machine *machine;
	enum kind kind;
	struct watch in,
		out; /* a pty or socket is in .in; .out.fd is then the same, and .out otherwise unused */
	int listen_fd;
	bool listening; /* listen_fd is in the event loop */
	bool connected; /* there is, or may be, a reader */
	bool dead;	/* output failed for good */
	bool terminal;

	struct ring output, input;
	bool pressed;	 /* chardev_room has said 0 */
	bool want_write; /* the descriptor was full: wait for EPOLLOUT */
	bool input_eof;
	bool delivering;

	int timer_fd;
	enum urgency timer;

	bool escapes, escape_begun;
	size_t (*input_fn)(void *opaque, const uint8_t *buf, size_t n);
	void *input_opaque;
	size_t (*divert_fn)(void *opaque, const uint8_t *buf, size_t n);
	void *divert_opaque;
	void (*drain_fn)(void *opaque);
	void *drain_opaque;
	void (*break_fn)(void *opaque);
	void *break_opaque;
	void (*escape_fn)(void *opaque, int key);
	void *escape_opaque;
};

static bool stdio_in_use;

/* ------------------------------------------------------------------ rings */

static void ring_put(struct ring *r, uint8_t byte)
{
	r->data[(r->head + r->len++) & (r->size - 1)] = byte;
}

static void ring_drop(struct ring *r, size_t n)
{
	r->head = (r->head + n) & (r->size - 1);
	r->len -= n;
}

/* The bytes at the front that lie in one piece. */
static size_t ring_front(const struct ring *r, const uint8_t **at)
{
	size_t piece = r->size - r->head;

	*at = r->data + r->head;
	return piece < r->len ? piece : r->len;
}

/* ------------------------------------------------------------------ watching */

static void chardev_ready(void *opaque, uint32_t events);

static void chardev_watch(struct chardev *cd, struct watch *w, uint32_t events)
{
	if (w->fd < 0 || w->always_ready || w->events == events)
		return;
	if (!events) {
		evloop_del_fd(cd->machine, w->fd);
	} else if (w->events) {
		evloop_mod_fd(cd->machine, w->fd, events);
	} else if (evloop_add_fd(cd->machine, w->fd, events, chardev_ready, cd) < 0) {
		w->always_ready = true;
		return;
	}
	w->events = events;
}

static void chardev_set_timer(struct chardev *cd, enum urgency u)
{
	static const long delay[] = {[RECONNECT] = RECONNECT_NS, [FLUSH] = FLUSH_NS, [NOW] = 1};

	if (u <= cd->timer)
		return;
	cd->timer = u;
	const struct itimerspec its = {.it_value.tv_nsec = delay[u]};
	timerfd_settime(cd->timer_fd, 0, &its, NULL);
}

static bool same_descriptor(const struct chardev *cd)
{
	return cd->kind == PTY || cd->kind == UNIX_SERVER || cd->kind == UNIX_CLIENT;
}

/* Has the event loop look at what we could act upon now, and at nothing else: a descriptor at end of file
 * that nobody wants to read would wake it for ever. */
static void chardev_update_watches(struct chardev *cd)
{
	bool room = cd->input.len <= cd->input.size / 2 || cd->terminal;
	uint32_t in = room && !cd->input_eof && cd->connected ? EPOLLIN : 0;
	uint32_t out = cd->want_write && cd->connected ? EPOLLOUT : 0;

	if (same_descriptor(cd)) {
		chardev_watch(cd, &cd->in, in | out);
	} else {
		chardev_watch(cd, &cd->in, in);
		chardev_watch(cd, &cd->out, out);
	}
	if ((in && cd->in.always_ready) || (out && cd->out.always_ready))
		chardev_set_timer(cd, NOW);
	if (cd->kind == PTY && !cd->connected)
		chardev_set_timer(cd, RECONNECT);
}

/* ------------------------------------------------------------------ connections */

static void chardev_accept(void *opaque, uint32_t events)
{
	struct chardev *cd = opaque;

	(void)events;
	int fd = accept4(cd->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	evloop_del_fd(cd->machine, cd->listen_fd); /* one client at a time; the next waits in the backlog */
	cd->listening = false;
	cd->in.fd = cd->out.fd = fd;
	cd->connected = true;
	cd->input_eof = false;
	cd->want_write = false;
	if (cd->output.len)
		chardev_set_timer(cd, FLUSH);
	chardev_update_watches(cd);
}

static void chardev_listen(struct chardev *cd)
{
	if (evloop_add_fd(cd->machine, cd->listen_fd, EPOLLIN, chardev_accept, cd) == 0)
		cd->listening = true;
}

static void chardev_call_drain(struct chardev *cd)
{
	if (!cd->pressed)
		return;
	cd->pressed = false;
	if (cd->drain_fn)
		cd->drain_fn(cd->drain_opaque);
}

/* The other side has gone. A pty and a server wait for the next one. */
static void chardev_disconnect(struct chardev *cd)
{
	chardev_watch(cd, &cd->in, 0);
	cd->connected = false;
	cd->want_write = false;
	if (cd->kind == UNIX_SERVER || cd->kind == UNIX_CLIENT) {
		close(cd->in.fd);
		cd->in.fd = cd->out.fd = -1;
		cd->in.events = 0;
	}
	if (cd->kind == UNIX_SERVER)
		chardev_listen(cd);
	else if (cd->kind == UNIX_CLIENT)
		cd->dead = true;
	chardev_update_watches(cd);
	chardev_call_drain(cd);
}

/* Has somebody opened the pty's other side? */
static void chardev_pty_look(struct chardev *cd)
{
	struct pollfd p = {.fd = cd->in.fd, .events = POLLIN};

	if (poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP)) {
		cd->connected = true;
		cd->input_eof = false;
	}
}

/* ------------------------------------------------------------------ output */

static void chardev_output_failed(struct chardev *cd, int error)
{
	if (same_descriptor(cd)) {
		chardev_disconnect(cd);
		return;
	}
	cd->dead = true;
	cd->output.len = 0;
	cd->want_write = false;
	if (error != EPIPE && error != EIO)
		fprintf(stderr, "bt86: console output fails and is discarded from here on: %s\n",
			strerror(error));
	chardev_call_drain(cd);
}

/* For a descriptor that would block: whether it is ready now. errno is EAGAIN if not. */
static bool watch_ready(const struct watch *w, short events)
{
	struct pollfd p = {.fd = w->fd, .events = events};

	errno = EAGAIN;
	return !w->blocking || poll(&p, 1, 0) > 0;
}

static ssize_t chardev_put_bytes(const struct chardev *cd, const uint8_t *at, size_t n)
{
	if (!watch_ready(&cd->out, POLLOUT))
		return -1;
	return write(cd->out.fd, at, cd->out.blocking && n > BLOCKING_WRITE ? BLOCKING_WRITE : n);
}

static void chardev_flush(struct chardev *cd)
{
	const uint8_t *at;

	cd->want_write = false;
	while (cd->output.len && cd->connected && !cd->dead) {
		size_t piece = ring_front(&cd->output, &at);
		ssize_t n = chardev_put_bytes(cd, at, piece);
		if (n > 0) {
			ring_drop(&cd->output, (size_t)n);
		} else if (n < 0 && errno == EAGAIN) {
			cd->want_write = true;
			break;
		} else if (n == 0 || errno != EINTR) {
			chardev_output_failed(cd, n ? errno : EIO);
		}
	}
	if (cd->output.len <= PRESSURE / 2)
		chardev_call_drain(cd);
}

void chardev_write(struct chardev *cd, const uint8_t *buf, size_t n)
{
	if (cd->kind == NOTHING || cd->dead)
		return;
	size_t limit = cd->connected ? OUT_SIZE : KEEP_UNHEARD;
	for (size_t i = 0; i < n; i++) {
		if (cd->output.len >= limit) {
			if (cd->connected)
				return;
			ring_drop(&cd->output, cd->output.len - limit + 1);
		}
		ring_put(&cd->output, buf[i]);
	}
	if (cd->connected && !cd->want_write)
		chardev_set_timer(cd, FLUSH);
}

size_t chardev_room(struct chardev *cd)
{
	if (cd->kind == NOTHING || cd->dead || !cd->connected)
		return PRESSURE;
	if (cd->output.len < PRESSURE)
		return PRESSURE - cd->output.len;
	cd->pressed = true;
	return 0;
}

/* ------------------------------------------------------------------ input */

/* Offers what waits to whoever takes input now. The taker may call chardev_resume, which is how it comes back
 * here. */
static void chardev_deliver(struct chardev *cd)
{
	if (cd->delivering)
		return;
	cd->delivering = true;
	while (cd->input.len) {
		const uint8_t *at;
		size_t n = ring_front(&cd->input, &at);
		size_t taken = 0;
		if (cd->divert_fn)
			taken = cd->divert_fn(cd->divert_opaque, at, n);
		else if (cd->input_fn)
			taken = cd->input_fn(cd->input_opaque, at, n);
		if (!taken)
			break;
		ring_drop(&cd->input, taken);
	}
	cd->delivering = false;
}

static void chardev_escape(struct chardev *cd, int key)
{
	if (key == ESCAPE_KEY) {
		if (cd->input.len < cd->input.size)
			ring_put(&cd->input, ESCAPE_KEY);
	} else if (key == 'b') {
		chardev_deliver(cd);
		if (cd->break_fn)
			cd->break_fn(cd->break_opaque);
	} else if (cd->escape_fn) {
		chardev_deliver(cd); /* what was typed before the escape goes where input went before it */
		cd->escape_fn(cd->escape_opaque, key);
	} else if (key == 'x') {
		machine_poweroff(cd->machine, EXIT_POWEROFF);
	} else if (key == 'h') {
		chardev_write(cd, (const uint8_t *)chardev_escape_help, strlen(chardev_escape_help));
	}
}

static void chardev_take(struct chardev *cd, uint8_t byte)
{
	if (cd->escape_begun) {
		cd->escape_begun = false;
		chardev_escape(cd, byte);
	} else if (cd->escapes && byte == ESCAPE_KEY) {
		cd->escape_begun = true;
	} else if (cd->input.len < cd->input.size) {
		ring_put(&cd->input, byte);
	} /* else typed far ahead of a guest that does not read: dropped, as a terminal driver does */
}

static void chardev_read(struct chardev *cd)
{
	uint8_t buf[READ_CHUNK];

	ssize_t n = watch_ready(&cd->in, POLLIN) ? read(cd->in.fd, buf, sizeof buf) : -1;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		if (same_descriptor(cd))
			chardev_disconnect(cd);
		else
			cd->input_eof = true;
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		chardev_take(cd, buf[i]);
	chardev_deliver(cd);
}

/* ------------------------------------------------------------------ events */

static void chardev_ready(void *opaque, uint32_t events)
{
	struct chardev *cd = opaque;

	/* An error shows in what write or read returns. */
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && cd->want_write)
		chardev_flush(cd);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && (cd->in.events & EPOLLIN))
		chardev_read(cd);
	chardev_update_watches(cd);
}

static void chardev_tick(void *opaque, uint32_t events)
{
	struct chardev *cd = opaque;
	uint64_t expirations;

	(void)events;
	if (read(cd->timer_fd, &expirations, sizeof expirations) != sizeof expirations)
		return;
	cd->timer = IDLE;
	if (cd->kind == PTY && !cd->connected)
		chardev_pty_look(cd);
	if (!cd->want_write || cd->out.always_ready)
		chardev_flush(cd);
	if (cd->in.always_ready && !cd->input_eof && cd->input.len <= cd->input.size / 2)
		chardev_read(cd);
	chardev_update_watches(cd);
}

/* ------------------------------------------------------------------ opening */

static int open_failed(char *err, size_t errlen, const char *what)
{
	snprintf(err, errlen, "-serial %s: %s", what, strerror(errno));
	return -1;
}

/* A descriptor of our own for standard input or output, so that O_NONBLOCK does not reach the shell that
 * shares the inherited one. A file has to keep the shared offset and never blocks; a socket cannot be opened
 * again. */
static void stdio_descriptor(struct watch *w, int fd, int flags)
{
	char path[32];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return; /* closed */
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))
		w->fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (w->fd < 0) {
		w->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		w->blocking = !S_ISREG(st.st_mode);
	}
}

static int open_stdio(struct chardev *cd, bool monitor, char *err, size_t errlen)
{
	if (stdio_in_use) {
		snprintf(err, errlen, "-serial stdio: standard input is in use already");
		return -1;
	}
	stdio_in_use = true;
	cd->kind = STDIO;
	stdio_descriptor(&cd->in, STDIN_FILENO, O_RDONLY);
	stdio_descriptor(&cd->out, STDOUT_FILENO, O_WRONLY);
	cd->terminal = cd->in.fd >= 0 && isatty(cd->in.fd);
	cd->escapes = monitor || cd->terminal;
	cd->connected = true;
	cd->input_eof = cd->in.fd < 0;
	cd->dead = cd->out.fd < 0;
	if (cd->terminal)
		terminal_raw(STDIN_FILENO);
	return 0;
}

static int open_file(struct chardev *cd, const char *path, char *err, size_t errlen)
{
	cd->kind = PLAIN_FILE;
	cd->out.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
	if (cd->out.fd < 0)
		return open_failed(err, errlen, path);
	cd->connected = true;
	cd->input_eof = true;
	return 0;
}

static int open_pty(struct chardev *cd, char *err, size_t errlen)
{
	struct termios raw;
	char name[64];

	cd->kind = PTY;
	cd->in.fd = cd->out.fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (cd->in.fd < 0 || grantpt(cd->in.fd) < 0 || unlockpt(cd->in.fd) < 0 ||
	    ptsname_r(cd->in.fd, name, sizeof name))
		return open_failed(err, errlen, "pty");
	/* Opened once and closed: from here on the master tells by POLLHUP whether somebody is there. */
	int other = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (other < 0)
		return open_failed(err, errlen, name);
	if (tcgetattr(other, &raw) == 0) {
		cfmakeraw(&raw);
		tcsetattr(other, TCSANOW, &raw);
	}
	close(other);
	fprintf(stderr, "char device redirected to %s\n", name);
	return 0;
}

/* A socket file that nobody answers at is left over from an earlier run: the sandbox, which still holds when
 * a run ends, lets us remove no files. */
static void remove_stale_socket(const struct sockaddr_un *addr)
{
	int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (probe < 0)
		return;
	if (connect(probe, (const struct sockaddr *)addr, sizeof *addr) < 0 && errno == ECONNREFUSED)
		unlink(addr->sun_path);
	close(probe);
}

static int open_unix_server(struct chardev *cd, const struct sockaddr_un *addr, bool wait, char *err,
			    size_t errlen)
{
	cd->kind = UNIX_SERVER;
	cd->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (cd->listen_fd < 0)
		return open_failed(err, errlen, addr->sun_path);
	remove_stale_socket(addr);
	if (bind(cd->listen_fd, (const struct sockaddr *)addr, sizeof *addr) < 0)
		return open_failed(err, errlen, addr->sun_path);
	if (listen(cd->listen_fd, 1) < 0)
		return open_failed(err, errlen, addr->sun_path);
	if (wait) {
		struct pollfd p = {.fd = cd->listen_fd, .events = POLLIN};
		fprintf(stderr, "bt86: waiting for a connection at %s\n", addr->sun_path);
		while (poll(&p, 1, -1) < 0 && errno == EINTR)
			;
	}
	fcntl(cd->listen_fd, F_SETFL, O_NONBLOCK);
	return 0;
}

static int open_unix_client(struct chardev *cd, const struct sockaddr_un *addr, char *err, size_t errlen)
{
	cd->kind = UNIX_CLIENT;
	cd->in.fd = cd->out.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (cd->in.fd < 0 || connect(cd->in.fd, (const struct sockaddr *)addr, sizeof *addr) < 0)
		return open_failed(err, errlen, addr->sun_path);
	fcntl(cd->in.fd, F_SETFL, O_NONBLOCK);
	cd->connected = true;
	return 0;
}

/* PATH[,server[=on|off]][,nowait | ,wait[=on|off]] */
static int open_unix(struct chardev *cd, const char *arg, char *err, size_t errlen)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	bool server = false, wait = true;
	const size_t len = strcspn(arg, ",");

	if (!len || len >= sizeof addr.sun_path) {
		snprintf(err, errlen, "-serial unix: the path must have 1 to %zu characters",
			 sizeof addr.sun_path - 1);
		return -1;
	}
	memcpy(addr.sun_path, arg, len);
	for (const char *p = arg + len; *p;) {
		const char *option = p + 1;
		const size_t n = strcspn(option, ",");
		static const struct {
			const char *name;
			int server, wait; /* -1: says nothing about it */
		} options[] = {
			{"server", 1, -1}, {"server=on", 1, -1}, {"server=off", 0, -1}, {"nowait", -1, 0},
			{"wait", -1, 1},   {"wait=on", -1, 1},	 {"wait=off", -1, 0},
		};
		bool known = false;
		for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
			if (strlen(options[i].name) != n || strncmp(options[i].name, option, n))
				continue;
			known = true;
			server = options[i].server >= 0 ? options[i].server : server;
			wait = options[i].wait >= 0 ? options[i].wait : wait;
		}
		if (!known) {
			snprintf(err, errlen, "-serial unix: unknown option '%.*s' (server, nowait)", (int)n,
				 option);
			return -1;
		}
		p = option + n;
	}
	return server ? open_unix_server(cd, &addr, wait, err, errlen)
		      : open_unix_client(cd, &addr, err, errlen);
}

static int chardev_open_spec(struct chardev *cd, const char *spec, char *err, size_t errlen)
{
	if (!strcmp(spec, "null") || !strcmp(spec, "none"))
		return 0;
	if (!strcmp(spec, "stdio"))
		return open_stdio(cd, false, err, errlen);
	if (!strcmp(spec, "mon:stdio"))
		return open_stdio(cd, true, err, errlen);
	if (!strcmp(spec, "pty"))
		return open_pty(cd, err, errlen);
	if (!strncmp(spec, "file:", 5))
		return open_file(cd, spec + 5, err, errlen);
	if (!strncmp(spec, "unix:", 5))
		return open_unix(cd, spec + 5, err, errlen);
	snprintf(err, errlen,
		 "-serial %s: not one of stdio, mon:stdio, file:PATH, pty, unix:PATH[,server[,nowait]], null",
		 spec);
	return -1;
}

static int chardev_start(struct chardev *cd, char *err, size_t errlen)
{
	cd->output = (struct ring){.data = malloc(OUT_SIZE), .size = OUT_SIZE};
	cd->input = (struct ring){.data = malloc(IN_SIZE), .size = IN_SIZE};
	cd->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (!cd->output.data || !cd->input.data || cd->timer_fd < 0)
		return open_failed(err, errlen, "buffers");
	if (evloop_add_fd(cd->machine, cd->timer_fd, EPOLLIN, chardev_tick, cd) < 0) {
		snprintf(err, errlen, "-serial: too many character devices");
		return -1;
	}
	if (cd->listen_fd >= 0)
		chardev_listen(cd);
	chardev_update_watches(cd);
	return 0;
}

struct chardev *chardev_open(struct machine *m, const char *spec, char *err, size_t errlen)
{
	struct chardev *cd = calloc(1, sizeof *cd);

	if (!cd) {
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	cd->machine = m;
	cd->in.fd = cd->out.fd = cd->listen_fd = cd->timer_fd = -1;
	signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error of write(), not the end */
	if (chardev_open_spec(cd, spec, err, errlen) < 0 ||
	    (cd->kind != NOTHING && chardev_start(cd, err, errlen) < 0)) {
		chardev_close(cd);
		return NULL;
	}
	return cd;
}

/* ------------------------------------------------------------------ the device's side, and the end */

void chardev_on_input(struct chardev *cd, size_t (*fn)(void *opaque, const uint8_t *buf, size_t n),
		      void *opaque)
{
	cd->input_fn = fn;
	cd->input_opaque = opaque;
}

void chardev_divert(struct chardev *cd, size_t (*fn)(void *opaque, const uint8_t *buf, size_t n),
		    void *opaque)
{
	cd->divert_fn = fn;
	cd->divert_opaque = opaque;
	chardev_resume(cd);
}

void chardev_on_drain(struct chardev *cd, void (*fn)(void *opaque), void *opaque)
{
	cd->drain_fn = fn;
	cd->drain_opaque = opaque;
}

void chardev_on_break(struct chardev *cd, void (*fn)(void *opaque), void *opaque)
{
	cd->break_fn = fn;
	cd->break_opaque = opaque;
}

void chardev_on_escape(struct chardev *cd, void (*fn)(void *opaque, int key), void *opaque)
{
	cd->escape_fn = fn;
	cd->escape_opaque = opaque;
}

void chardev_resume(struct chardev *cd)
{
	if (cd->kind == NOTHING || !cd->input.len)
		return;
	chardev_deliver(cd);
	chardev_update_watches(cd);
}

/* The guest is gone; what it wrote last still has to go out, for as long as the reader takes any of it. */
static void chardev_drain_at_close(struct chardev *cd)
{
	while (cd->output.len && cd->connected && !cd->dead) {
		struct pollfd p = {.fd = cd->out.fd, .events = POLLOUT};
		if (poll(&p, 1, CLOSE_WAIT_MS) <= 0)
			break;
		chardev_flush(cd);
	}
}

void chardev_close(struct chardev *cd)
{
	if (!cd)
		return;
	cd->drain_fn = NULL;
	if (cd->timer_fd >= 0) {
		chardev_drain_at_close(cd);
		chardev_watch(cd, &cd->in, 0);
		chardev_watch(cd, &cd->out, 0);
		evloop_del_fd(cd->machine, cd->timer_fd);
		close(cd->timer_fd);
	}
	if (cd->listening)
		evloop_del_fd(cd->machine, cd->listen_fd);
	if (cd->kind == STDIO) {
		stdio_in_use = false;
		chardev_restore_terminal();
	}
	if (cd->in.fd >= 0)
		close(cd->in.fd);
	if (cd->out.fd >= 0 && cd->out.fd != cd->in.fd)
		close(cd->out.fd);
	if (cd->listen_fd >= 0)
		close(cd->listen_fd);
	free(cd->output.data);
	free(cd->input.data);
	free(cd);
}
