/* test_chardevs.c - the serial port and what is behind it, the keyboard controller, PCI configuration space,
 * port 92 and the debug ports, against their datasheets.
 *
 * The UART's other side is a Unix socket held by the test, or nothing. Standard input and output, which
 * cmocka needs itself, are exercised in a child process: a failed CHECK there ends it with the line number in
 * the message.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "devices/device.h"
#include "devices/devices.h"
#include "tests/unit/fake_machine.h"

#define COM1 0x3f8
#define IRQ4 4

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define THR RBR
#define FCR IIR

static char scratch_dir[64];

static char *scratch_path(const char *name)
{
	static char path[128];

	snprintf(path, sizeof path, "%s/%s", scratch_dir, name);
	return path;
}

static void pump(struct machine *m, int rounds)
{
	for (int i = 0; i < rounds; i++)
		fake_evloop_poll(m, 2);
}

static struct chardev *open_ok(struct machine *m, const char *spec)
{
	char err[256] = "";
	struct chardev *cd = chardev_open(m, spec, err, sizeof err);

	if (!cd)
		fail_msg("%s: %s", spec, err);
	return cd;
}

/* ------------------------------------------------------------------ a UART with a socket behind it */

struct rig {
	struct machine *m;
	struct chardev *cd;
	int far; /* the test's end of the line */
};

static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_true(strlen(path) < sizeof addr.sun_path);
	memcpy(addr.sun_path, path, strlen(path));
	if (connect(fd, (const struct sockaddr *)&addr, sizeof addr) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int rig_setup(void **state)
{
	static struct rig rig;
	char spec[160];

	rig.m = fake_machine_create();
	snprintf(spec, sizeof spec, "unix:%s,server,nowait", scratch_path("line"));
	rig.cd = open_ok(rig.m, spec);
	uart16550_create(rig.m, COM1, IRQ4, rig.cd);
	rig.far = connect_to(scratch_path("line"));
	assert_true(rig.far >= 0);
	pump(rig.m, 1);
	*state = &rig;
	return 0;
}

static int rig_teardown(void **state)
{
	struct rig *r = *state;

	close(r->far);
	chardev_close(r->cd);
	device_free_all(r->m);
	fake_machine_destroy(r->m);
	return 0;
}

static void out(struct rig *r, unsigned reg, unsigned value)
{
	pio_write(r->m, (uint16_t)(COM1 + reg), value, 1);
}

static unsigned in(struct rig *r, unsigned reg)
{
	return pio_read(r->m, (uint16_t)(COM1 + reg), 1);
}

static void type(struct rig *r, const char *text)
{
	assert_int_equal(send(r->far, text, strlen(text), 0), strlen(text));
	pump(r->m, 2);
}

static bool irq(struct rig *r)
{
	return fake_irq_level(r->m, IRQ4);
}

static void test_uart_reset_state(void **state)
{
	struct rig *r = *state;

	assert_int_equal(in(r, IER), 0);
	assert_int_equal(in(r, IIR), 0x01);
	assert_int_equal(in(r, LCR), 0);
	assert_int_equal(in(r, MCR), 0);
	assert_int_equal(in(r, LSR), 0x60);
	assert_int_equal(in(r, MSR), 0xb0);
	out(r, SCR, 0x5a);
	assert_int_equal(in(r, SCR), 0x5a);
	out(r, IER, 0xff);
	assert_int_equal(in(r, IER), 0x0f);
	out(r, MCR, 0xff);
	assert_int_equal(in(r, MCR), 0x1f);
	fake_machine_reset(r->m);
	assert_int_equal(in(r, IER), 0);
	assert_int_equal(in(r, MCR), 0);
	assert_false(irq(r));
}

static void test_uart_divisor(void **state)
{
	struct rig *r = *state;

	out(r, IER, 0x05);
	out(r, LCR, 0x83);
	out(r, RBR, 0x34);
	out(r, IER, 0x12);
	assert_int_equal(in(r, RBR), 0x34);
	assert_int_equal(in(r, IER), 0x12);
	out(r, LCR, 0x03);
	assert_int_equal(in(r, IER), 0x05);
}

static void test_uart_fifo_detection(void **state)
{
	struct rig *r = *state;

	assert_int_equal(in(r, IIR) & 0xc0, 0);
	out(r, FCR, 0x01);
	assert_int_equal(in(r, IIR) & 0xf0, 0xc0); /* a 16550A: no 64-byte FIFO */
	out(r, FCR, 0x21);
	assert_int_equal(in(r, IIR) & 0xf0, 0xc0);
	out(r, FCR, 0xc6); /* without bit 0: FIFOs off, nothing else looked at */
	assert_int_equal(in(r, IIR) & 0xc0, 0);
}

static void test_uart_transmit(void **state)
{
	struct rig *r = *state;
	char buf[32];

	for (const char *p = "hello\n"; *p; p++)
		out(r, THR, (unsigned char)*p);
	assert_int_equal(in(r, LSR), 0x60);
	pump(r->m, 3);
	assert_int_equal(recv(r->far, buf, sizeof buf, 0), 6);
	assert_memory_equal(buf, "hello\n", 6);
}

static void test_uart_thr_interrupt(void **state)
{
	struct rig *r = *state;

	out(r, MCR, 0x08);
	out(r, IER, 0x02); /* enabling it with THR empty raises it */
	assert_true(irq(r));
	assert_int_equal(in(r, IIR), 0x02);
	assert_false(irq(r)); /* reading IIR acknowledged it */
	assert_int_equal(in(r, IIR), 0x01);
	out(r, THR, 'x');
	assert_true(irq(r));
	assert_int_equal(in(r, IIR), 0x02);
	out(r, IER, 0x00);
	out(r, IER, 0x02);
	assert_true(irq(r));
}

static void test_uart_thr_pauses(void **state)
{
	struct rig *r = *state;
	unsigned n = 0;

	out(r, MCR, 0x08);
	out(r, FCR, 0x01);
	out(r, IER, 0x02);
	for (; n < 512 && irq(r); n++) { /* as a driver does that never leaves its handler */
		assert_int_equal(in(r, IIR) & 0x0f, 0x02);
		for (int i = 0; i < 16; i++)
			out(r, THR, '.');
		pump(r->m, 1);
	}
	assert_in_range(n, 64, 256);
	fake_clock_advance(r->m, 1000000);
	assert_true(irq(r));
}

static void test_uart_out2_gate(void **state)
{
	struct rig *r = *state;

	out(r, IER, 0x02);
	assert_false(irq(r));
	out(r, MCR, 0x08);
	assert_true(irq(r));
	out(r, MCR, 0x18); /* loopback: OUT2 is inactive at the pin */
	assert_false(irq(r));
}

static void test_uart_receive_unbuffered(void **state)
{
	struct rig *r = *state;

	out(r, MCR, 0x08);
	out(r, IER, 0x01);
	type(r, "ab");
	assert_true(irq(r));
	assert_int_equal(in(r, IIR), 0x04);
	assert_int_equal(in(r, LSR) & 0x1f, 0x01); /* no overrun: the second waits outside */
	assert_int_equal(in(r, RBR), 'a');
	assert_true(irq(r));
	assert_int_equal(in(r, RBR), 'b');
	assert_false(irq(r));
	assert_int_equal(in(r, LSR) & 0x1f, 0);
	assert_int_equal(in(r, RBR), 'b'); /* empty: the last one again */
}

static void test_uart_trigger_and_timeout(void **state)
{
	struct rig *r = *state;

	out(r, MCR, 0x08);
	out(r, FCR, 0x81); /* trigger at 8 */
	out(r, IER, 0x01);
	type(r, "1234567");
	assert_false(irq(r));
	fake_clock_advance(r->m, 4 * 10 * 1000000000ull / 115200 - 1000);
	assert_false(irq(r));
	fake_clock_advance(r->m, 2000);
	assert_true(irq(r));
	assert_int_equal(in(r, IIR), 0xcc);
	assert_int_equal(in(r, RBR), '1'); /* reading one ends the time-out and starts it anew */
	assert_false(irq(r));
	fake_clock_advance(r->m, 1000000);
	assert_int_equal(in(r, IIR), 0xcc);
	type(r, "89");
	assert_int_equal(in(r, IIR), 0xc4); /* 8 characters: data available has priority */
	for (int i = 0; i < 8; i++)
		assert_int_equal(in(r, RBR), "23456789"[i]);
	assert_int_equal(in(r, IIR), 0xc1);
	fake_clock_advance(r->m, 10000000);
	assert_false(irq(r)); /* nothing waits, nothing times out */
}

static void test_uart_receive_keeps_all(void **state)
{
	struct rig *r = *state;
	char text[1001];

	for (int i = 0; i < 1000; i++)
		text[i] = (char)('a' + i % 26);
	text[1000] = '\0';
	out(r, FCR, 0xc1);
	type(r, text);
	for (int i = 0; i < 1000; i++) {
		for (int tries = 0; !(in(r, LSR) & 1) && tries < 100; tries++)
			pump(r->m, 1);
		assert_false(in(r, LSR) & 0x02);
		assert_int_equal(in(r, RBR), text[i]);
	}
	assert_int_equal(in(r, LSR) & 1, 0);
}

static void test_uart_fifo_clear(void **state)
{
	struct rig *r = *state;

	out(r, FCR, 0x01);
	type(r, "junk");
	assert_int_equal(in(r, LSR) & 1, 1);
	out(r, FCR, 0x03);
	assert_int_equal(in(r, LSR) & 1, 0);
}

static void test_uart_loopback(void **state)
{
	struct rig *r = *state;
	char c;

	out(r, MCR, 0x1a); /* RTS, OUT2 -> CTS, DCD: what Linux probes with */
	assert_int_equal(in(r, MSR) & 0xf0, 0x90);
	out(r, MCR, 0x15); /* DTR, OUT1 -> DSR, RI */
	in(r, MSR);
	assert_int_equal(in(r, MSR), 0x60);
	out(r, MCR, 0x10);
	assert_int_equal(in(r, MSR), 0x06); /* DSR changed; RI fell: TERI */
	assert_int_equal(in(r, MSR), 0x00);

	out(r, FCR, 0x01);
	for (int i = 0; i < 17; i++)
		out(r, THR, (unsigned)i);
	assert_int_equal(in(r, LSR) & 0x03, 0x03); /* the 17th overran */
	assert_int_equal(in(r, LSR) & 0x03, 0x01);
	for (int i = 0; i < 16; i++)
		assert_int_equal(in(r, RBR), i);
	pump(r->m, 3);
	assert_int_equal(recv(r->far, &c, 1, 0), -1); /* nothing went out */

	out(r, FCR, 0x00); /* without FIFO the newer character stays */
	out(r, THR, 'a');
	out(r, THR, 'b');
	assert_int_equal(in(r, LSR) & 0x03, 0x03);
	assert_int_equal(in(r, RBR), 'b');
}

static void test_uart_line_status_interrupt(void **state)
{
	struct rig *r = *state;

	out(r, FCR, 0x01);
	out(r, MCR, 0x10);
	for (int i = 0; i < 17; i++)
		out(r, THR, 'x');
	out(r, IER, 0x07);
	assert_int_equal(in(r, IIR), 0xc6); /* above data and THR empty */
	in(r, LSR);
	assert_int_equal(in(r, IIR), 0xc4);
	out(r, FCR, 0x03);
	assert_int_equal(in(r, IIR), 0xc2);
	assert_int_equal(in(r, IIR), 0xc1);
}

static void test_uart_modem_interrupt(void **state)
{
	struct rig *r = *state;

	out(r, IER, 0x08);
	assert_int_equal(in(r, IIR), 0x01);
	out(r, MCR, 0x10); /* all inputs drop */
	assert_int_equal(in(r, IIR), 0x00);
	assert_int_equal(in(r, MSR), 0x0b);
	assert_int_equal(in(r, IIR), 0x01);
}

/* The reader takes nothing: the transmitter looks busy, and not a byte is lost in the end. */
static void test_uart_back_pressure(void **state)
{
	struct rig *r = *state;
	static char buf[65536];
	uint32_t sent = 0, received = 0;

	out(r, MCR, 0x08);
	while (sent < 4000000 && in(r, LSR) & 0x20) {
		out(r, THR, sent++ * 7 & 0xff);
		if (sent % 1000 == 0)
			pump(r->m, 1);
	}
	assert_true(sent < 4000000);
	assert_int_equal(in(r, LSR) & 0x60, 0);
	out(r, IER, 0x02);
	assert_false(irq(r));
	for (int tries = 0; received < sent && tries < 1000; tries++) {
		ssize_t n = recv(r->far, buf, sizeof buf, 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal((uint8_t)buf[i], received++ * 7 & 0xff);
		pump(r->m, 1);
	}
	assert_int_equal(received, sent);
	assert_true(irq(r)); /* and the driver was told */
	assert_int_equal(in(r, LSR) & 0x60, 0x60);
}

static void test_socket_reconnects(void **state)
{
	struct rig *r = *state;
	char buf[32];

	close(r->far);
	pump(r->m, 2);
	for (const char *p = "kept"; *p; p++)
		out(r, THR, (unsigned char)*p);
	assert_int_equal(in(r, LSR), 0x60);
	pump(r->m, 2);
	r->far = connect_to(scratch_path("line"));
	assert_true(r->far >= 0);
	pump(r->m, 4);
	assert_int_equal(recv(r->far, buf, sizeof buf, 0), 4);
	type(r, "!");
	assert_int_equal(in(r, RBR), '!');
}

/* Nobody is there for a long time: the guest is not held up, and the newest output is kept. */
static void test_socket_unheard(void **state)
{
	struct rig *r = *state;
	static char buf[200000];
	size_t got = 0;

	close(r->far);
	pump(r->m, 2);
	for (unsigned i = 0; i < 200000; i++) {
		assert_int_equal(in(r, LSR), 0x60);
		out(r, THR, i % 251);
	}
	r->far = connect_to(scratch_path("line"));
	for (int tries = 0; tries < 50; tries++) {
		pump(r->m, 1);
		ssize_t n = recv(r->far, buf + got, sizeof buf - got, 0);
		got += n > 0 ? (size_t)n : 0;
	}
	assert_int_equal(got, 65536);
	assert_int_equal((uint8_t)buf[got - 1], 199999 % 251);
	assert_int_equal((uint8_t)buf[0], (200000 - 65536) % 251);
}

static size_t take_divert(void *opaque, const uint8_t *buf, size_t n)
{
	char *line = opaque;

	strncat(line, (const char *)buf, n);
	return n;
}

static void test_divert(void **state)
{
	struct rig *r = *state;
	char line[64] = "";

	out(r, FCR, 0x01);
	chardev_divert(r->cd, take_divert, line);
	type(r, "info");
	assert_string_equal(line, "info");
	assert_int_equal(in(r, LSR) & 1, 0);
	chardev_divert(r->cd, NULL, NULL);
	type(r, "g");
	assert_int_equal(in(r, RBR), 'g');
}

/* ------------------------------------------------------------------ other back ends */

static struct machine *machine;

static int plain_setup(void **state)
{
	(void)state;
	machine = fake_machine_create();
	return 0;
}

static int plain_teardown(void **state)
{
	(void)state;
	device_free_all(machine);
	fake_machine_destroy(machine);
	return 0;
}

static void put(struct chardev *cd, const char *text)
{
	chardev_write(cd, (const uint8_t *)text, strlen(text));
}

static void test_null(void **state)
{
	(void)state;
	struct chardev *cd = open_ok(machine, "null");
	put(cd, "into the void");
	assert_true(chardev_room(cd) > 0);
	chardev_resume(cd);
	chardev_close(cd);
}

static void test_file(void **state)
{
	char spec[160], buf[32] = "";

	(void)state;
	snprintf(spec, sizeof spec, "file:%s", scratch_path("out.txt"));
	struct chardev *cd = open_ok(machine, spec);
	put(cd, "one ");
	pump(machine, 2);
	put(cd, "two");
	chardev_close(cd); /* what has not been written yet is */
	FILE *f = fopen(scratch_path("out.txt"), "r");
	assert_non_null(f);
	assert_non_null(fgets(buf, sizeof buf, f));
	assert_string_equal(buf, "one two");
	fclose(f);
}

static void test_file_full(void **state)
{
	(void)state;
	struct chardev *cd = open_ok(machine, "file:/dev/full");
	put(cd, "nowhere to go");
	pump(machine, 2);
	put(cd, "still not");
	assert_true(chardev_room(cd) > 0);
	chardev_close(cd);
}

static void assert_refused(const char *spec, const char *word)
{
	char err[256] = "";

	assert_null(chardev_open(machine, spec, err, sizeof err));
	if (!strstr(err, word) || strchr(err, '\n'))
		fail_msg("%s: %s", spec, err);
}

static void test_refusals(void **state)
{
	char longest[300] = "unix:/";

	(void)state;
	memset(longest + 6, 'x', 200);
	assert_refused("tcp:1234", "tcp:1234");
	assert_refused("", "stdio");
	assert_refused("file:", "No such file");
	assert_refused("file:/nonexistent/x", "/nonexistent/x");
	assert_refused("unix:", "path");
	assert_refused(longest, "path");
	assert_refused("unix:/tmp/x,bogus", "bogus");
	assert_refused("unix:/nonexistent/sock", "/nonexistent/sock");
	assert_refused("unix:/nonexistent/sock,server,nowait", "/nonexistent/sock");
}

static char input_seen[256];

static size_t note_input(void *opaque, const uint8_t *buf, size_t n)
{
	(void)opaque;
	strncat(input_seen, (const char *)buf, n);
	return n;
}

static void test_unix_stale_and_client(void **state)
{
	char spec[160];
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	(void)state;
	/* A socket file whose server is dead is replaced; one whose server lives is not. */
	strcpy(addr.sun_path, scratch_path("stale"));
	int old = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(old, (struct sockaddr *)&addr, sizeof addr), 0);
	close(old);
	snprintf(spec, sizeof spec, "unix:%s,server=on,wait=off", addr.sun_path);
	struct chardev *server = open_ok(machine, spec);
	assert_refused(spec, "in use");

	snprintf(spec, sizeof spec, "unix:%s", addr.sun_path);
	struct chardev *client = open_ok(machine, spec);
	pump(machine, 1);
	input_seen[0] = '\0';
	chardev_on_input(server, note_input, NULL);
	put(client, "c");
	pump(machine, 4);
	assert_string_equal(input_seen, "c");
	chardev_close(server);
	pump(machine, 4);
	put(client, "gone");
	assert_true(chardev_room(client) > 0);
	chardev_close(client);
	unlink(addr.sun_path);
}

static void test_pty(void **state)
{
	char line[128] = "", buf[64] = {0};
	int fds[2], saved = dup(STDERR_FILENO);

	(void)state;
	/* The name is printed on standard error. */
	assert_int_equal(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	struct chardev *cd = open_ok(machine, "pty");
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_true(read(fds[0], line, sizeof line - 1) > 0);
	close(fds[0]);
	close(fds[1]);
	char *name = strstr(line, "/dev/pts/");
	assert_true(!strncmp(line, "char device redirected to ", 26) && name);
	name[strcspn(name, " \n")] = '\0';

	input_seen[0] = '\0';
	chardev_on_input(cd, note_input, NULL);
	for (int i = 0; i < 100000; i++)
		put(cd, "."); /* nobody there */
	put(cd, "early\n");
	for (int session = 0; session < 2; session++) {
		int far = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
		assert_true(far >= 0);
		size_t got = 0;
		for (int tries = 0; tries < 200 && !strstr(buf, "early\n"); tries++) {
			char chunk[4096];
			pump(machine, 2);
			ssize_t n = read(far, chunk, sizeof chunk);
			got += n > 0 ? (size_t)n : 0;
			if (n >= 6)
				memcpy(buf, chunk + n - 6, 6);
		}
		assert_string_equal(buf, "early\n");
		assert_true(got >= 6 && got <= 65536);
		assert_int_equal(write(far, "in\r", 3), 3);
		pump(machine, 3);
		assert_string_equal(input_seen, session ? "in\rin\r" : "in\r"); /* raw: no CR to NL */
		close(far);
		pump(machine, 3);
		memset(buf, 0, sizeof buf);
		put(cd, "early\n");
	}
	chardev_close(cd);
}

/* ------------------------------------------------------------------ stdio, in a child */

#define CHECK(x)                                                                                             \
	do {                                                                                                 \
		if (!(x)) {                                                                                  \
			fprintf(stderr, "child: line %d: %s\n", __LINE__, #x);                               \
			_exit(1);                                                                            \
		}                                                                                            \
	} while (0)

static char escapes_seen[16];

static void note_escape(void *opaque, int key)
{
	(void)opaque;
	escapes_seen[strlen(escapes_seen)] = (char)key;
}

static unsigned breaks_seen;

static void note_break(void *opaque)
{
	(void)opaque;
	breaks_seen++;
}

/* Runs fn in a child whose standard input and output are the given descriptors. */
static pid_t start_child(int (*fn)(void), int input, int output)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	if (input >= 0)
		dup2(input, STDIN_FILENO);
	else
		close(STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	input_seen[0] = '\0';
	alarm(20);
	_exit(fn());
}

static void end_child(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int child_escapes(void)
{
	struct machine *m = fake_machine_create();
	char err[128];
	struct chardev *cd = chardev_open(m, "mon:stdio", err, sizeof err);

	CHECK(cd);
	CHECK(!chardev_open(m, "stdio", err, sizeof err) && strstr(err, "in use"));
	chardev_on_input(cd, note_input, NULL);
	chardev_on_escape(cd, note_escape, NULL);
	chardev_on_break(cd, note_break, NULL);
	for (int i = 0; i < 100 && !strstr(input_seen, "end"); i++)
		pump(m, 1);
	CHECK(!strcmp(input_seen, "ab\001cend"));
	CHECK(!strcmp(escapes_seen, "ch"));
	CHECK(breaks_seen == 1);
	/* Left to itself, h prints the keys and x quits. */
	chardev_on_escape(cd, NULL, NULL);
	CHECK(write(STDOUT_FILENO, "go\n", 3) == 3);
	for (int i = 0; i < 500 && fake_poweroff_status(m) < 0; i++)
		pump(m, 1);
	CHECK(fake_poweroff_status(m) == EXIT_POWEROFF);
	chardev_close(cd);
	return 0;
}

static void test_stdio_escapes(void **state)
{
	int in_pipe[2], out_pipe[2];
	char buf[512];
	size_t got = 0;
	const char keys[] = "a\001c"
			    "b\001b\001\001\001h"
			    "cend";

	(void)state;
	assert_int_equal(pipe2(in_pipe, O_CLOEXEC) | pipe2(out_pipe, O_CLOEXEC), 0);
	pid_t pid = start_child(child_escapes, in_pipe[0], out_pipe[1]);
	close(out_pipe[1]);
	assert_int_equal(write(in_pipe[1], keys, sizeof keys - 1), sizeof keys - 1);
	assert_int_equal(read(out_pipe[0], buf, 3), 3);
	assert_int_equal(write(in_pipe[1], "\001h\001x", 4), 4);
	for (ssize_t n; (n = read(out_pipe[0], buf + got, sizeof buf - 1 - got)) > 0;)
		got += (size_t)n;
	buf[got] = '\0';
	assert_string_equal(buf, chardev_escape_help);
	end_child(pid);
	/* The child's O_NONBLOCK was its own. */
	assert_false(fcntl(in_pipe[0], F_GETFL) & O_NONBLOCK);
	close(in_pipe[0]);
	close(in_pipe[1]);
	close(out_pipe[0]);
}

/* All of a pipe or file arrives, then its end; escapes are no concern of plain stdio off a terminal. */
static int child_reads_all(void)
{
	struct machine *m = fake_machine_create();
	char err[128];
	struct chardev *cd = chardev_open(m, "stdio", err, sizeof err);

	CHECK(cd);
	chardev_on_input(cd, note_input, NULL);
	for (int i = 0; i < 20; i++)
		pump(m, 1);
	CHECK(!strcmp(input_seen, "text\001x"));
	put(cd, "done");
	chardev_close(cd);
	return 0;
}

static int child_reads_nothing(void)
{
	struct machine *m = fake_machine_create();
	char err[128];
	struct chardev *cd = chardev_open(m, "mon:stdio", err, sizeof err);

	CHECK(cd);
	chardev_on_input(cd, note_input, NULL);
	for (int i = 0; i < 5; i++)
		pump(m, 1);
	CHECK(!input_seen[0]);
	put(cd, "done");
	chardev_close(cd);
	return 0;
}

static void test_stdio_inputs(void **state)
{
	int in_pipe[2];

	(void)state;
	int file = open(scratch_path("input"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(file, "text\001x", 6), 6);
	lseek(file, 0, SEEK_SET);
	int output = open(scratch_path("output"), O_RDWR | O_CREAT | O_TRUNC, 0600);

	end_child(start_child(child_reads_all, file, output));
	assert_int_equal(pipe(in_pipe), 0);
	assert_int_equal(write(in_pipe[1], "text\001x", 6), 6);
	close(in_pipe[1]);
	end_child(start_child(child_reads_all, in_pipe[0], output));
	close(in_pipe[0]);
	int nothing = open("/dev/null", O_RDWR);
	end_child(start_child(child_reads_nothing, nothing, output));
	end_child(start_child(child_reads_nothing, -1, output)); /* closed */
	assert_int_equal(lseek(output, 0, SEEK_CUR), 16);	 /* four times "done", one shared offset */
	close(nothing);
	close(file);
	close(output);
}

/* ------------------------------------------------------------------ the terminal */

static int terminal_how; /* how the child below ends */
enum { BY_CLOSE, BY_EXIT, BY_SIGNAL, BY_ABORT };

static int child_on_terminal(void)
{
	struct machine *m = fake_machine_create();
	char err[128];
	struct termios t;

	struct chardev *cd = chardev_open(m, "stdio", err, sizeof err);
	CHECK(cd);
	chardev_on_input(cd, note_input, NULL);
	CHECK(tcgetattr(STDIN_FILENO, &t) == 0 && !(t.c_lflag & (ICANON | ECHO | ISIG)) && t.c_oflag & OPOST);
	CHECK(write(STDOUT_FILENO, "R", 1) == 1);
	for (int i = 0; i < 500 && fake_poweroff_status(m) < 0; i++)
		pump(m, 1);
	CHECK(fake_poweroff_status(m) == EXIT_POWEROFF);
	CHECK(!strcmp(input_seen, "\003")); /* Ctrl-c is the guest's */
	if (terminal_how == BY_EXIT)
		exit(0);
	if (terminal_how == BY_SIGNAL)
		raise(SIGTERM);
	if (terminal_how == BY_ABORT)
		abort();
	chardev_close(cd);
	return 0;
}

static void terminal_case(int how)
{
	struct termios before, after;
	char c = 0;
	int status;

	terminal_how = how;
	int master = posix_openpt(O_RDWR | O_NOCTTY);
	assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	assert_int_equal(tcgetattr(slave, &before), 0);
	pid_t pid = fork();
	if (!pid) {
		setsid();
		ioctl(slave, TIOCSCTTY, 0);
		dup2(slave, STDIN_FILENO);
		dup2(slave, STDOUT_FILENO);
		input_seen[0] = '\0';
		alarm(20);
		_exit(child_on_terminal());
	}
	assert_int_equal(read(master, &c, 1), 1);
	assert_int_equal(c, 'R');
	assert_int_equal(write(master, "\003\001x", 3), 3);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (how == BY_SIGNAL)
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	else if (how == BY_ABORT)
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	else
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(tcgetattr(slave, &after), 0);
	assert_int_equal(after.c_lflag, before.c_lflag);
	assert_int_equal(after.c_iflag, before.c_iflag);
	close(slave);
	close(master);
}

static void test_terminal(void **state)
{
	(void)state;
	terminal_case(BY_CLOSE);
	terminal_case(BY_EXIT);
	terminal_case(BY_SIGNAL);
	terminal_case(BY_ABORT);
}

/* ------------------------------------------------------------------ keyboard controller */

static unsigned kbc_status(void)
{
	return pio_read(machine, 0x64, 1);
}

static unsigned kbc_data(void)
{
	return pio_read(machine, 0x60, 1);
}

static unsigned kbc_ask(unsigned command)
{
	pio_write(machine, 0x64, command, 1);
	assert_int_equal(kbc_status() & 1, 1);
	return kbc_data();
}

static void kbc_config(unsigned value)
{
	pio_write(machine, 0x64, 0x60, 1);
	pio_write(machine, 0x60, value, 1);
}

static void test_kbc_controller(void **state)
{
	(void)state;
	i8042_create(machine);
	assert_int_equal(kbc_status() & 0x05, 0x04); /* SYS set as after POST, nothing to read */
	assert_int_equal(kbc_ask(0xaa), 0x55);
	assert_int_equal(kbc_status() & 1, 0);
	assert_int_equal(kbc_ask(0xab), 0x00);
	kbc_config(0x44);
	assert_int_equal(kbc_ask(0x20), 0x44);
	pio_write(machine, 0x64, 0xad, 1);
	assert_int_equal(kbc_ask(0x20), 0x54);
	pio_write(machine, 0x64, 0xae, 1);
	pio_write(machine, 0x64, 0xa7, 1);
	assert_int_equal(kbc_ask(0x20), 0x64);
	pio_write(machine, 0x64, 0xa8, 1);
	assert_int_equal(kbc_ask(0x20), 0x44);
	assert_int_equal(kbc_status() & 0x08, 0x08); /* the last write was a command */
	pio_write(machine, 0x64, 0xd2, 1);
	pio_write(machine, 0x60, 0x99, 1);
	assert_int_equal(kbc_status() & 0x29, 0x01);
	assert_int_equal(kbc_data(), 0x99);
}

static void test_kbc_no_mouse(void **state)
{
	(void)state;
	i8042_create(machine);
	assert_int_not_equal(kbc_ask(0xa9), 0); /* port test fails */
	pio_write(machine, 0x64, 0xd3, 1);
	pio_write(machine, 0x60, 0x5a, 1);
	assert_int_equal(kbc_status() & 0x21, 0x01); /* loop answers, but not from the second port */
	kbc_data();
	pio_write(machine, 0x64, 0xd4, 1);
	pio_write(machine, 0x60, 0xf2, 1);
	assert_int_equal(kbc_status() & 0x61, 0x61); /* time-out */
	assert_int_equal(kbc_data(), 0xfe);
}

static void test_kbc_keyboard(void **state)
{
	static const struct {
		uint8_t config, n_in, in[2], n_out, out[3];
	} cases[] = {
		{0x05, 1, {0xff}, 2, {0xfa, 0xaa}},
		{0x05, 1, {0xf2}, 3, {0xfa, 0xab, 0x83}},
		{0x45, 1, {0xf2}, 3, {0xfa, 0xab, 0x41}}, /* translated */
		{0x05, 1, {0xee}, 1, {0xee}},
		{0x05, 2, {0xed, 0x07}, 2, {0xfa, 0xfa}},
		{0x05, 2, {0xf3, 0x20}, 2, {0xfa, 0xfa}},
		{0x05, 2, {0xf0, 0x00}, 3, {0xfa, 0xfa, 0x02}},
		{0x05, 1, {0xf4}, 1, {0xfa}},
		{0x05, 1, {0x13}, 1, {0xfe}},
		{0x05, 2, {0xed, 0xf4}, 2, {0xfa, 0xfa}}, /* a command in place of the argument */
	};

	(void)state;
	i8042_create(machine);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		kbc_config(cases[i].config);
		for (unsigned j = 0; j < cases[i].n_in; j++)
			pio_write(machine, 0x60, cases[i].in[j], 1);
		for (unsigned j = 0; j < cases[i].n_out; j++) {
			assert_int_equal(kbc_status() & 0x21, 0x01);
			assert_int_equal(kbc_data(), cases[i].out[j]);
		}
		assert_int_equal(kbc_status() & 1, 0);
	}
}

static void test_kbc_interrupt(void **state)
{
	(void)state;
	i8042_create(machine);
	kbc_config(0x04);
	pio_write(machine, 0x60, 0xee, 1);
	assert_false(fake_irq_level(machine, 1));
	kbc_config(0x05);
	assert_true(fake_irq_level(machine, 1));
	kbc_data();
	assert_false(fake_irq_level(machine, 1));
	unsigned rises = fake_irq_rises(machine, 1);
	pio_write(machine, 0x60, 0xff, 1);
	kbc_data();
	assert_true(fake_irq_level(machine, 1)); /* the second byte: an edge of its own */
	kbc_data();
	assert_int_equal(fake_irq_rises(machine, 1), rises + 2);
}

static void test_kbc_a20_and_reset(void **state)
{
	struct vcpu *c = machine_vcpu(machine);

	(void)state;
	i8042_create(machine);
	port92_create(machine);
	pio_write(machine, 0x64, 0xd1, 1);
	pio_write(machine, 0x60, 0xdd, 1);
	assert_int_equal(c->a20_mask, ~(1u << 20));
	assert_int_equal(fake_mode_changes(machine), 1);
	assert_int_equal(pio_read(machine, 0x92, 1), 0);
	assert_int_equal(kbc_ask(0xd0) & 0x03, 0x01);
	pio_write(machine, 0x92, 0x02, 1);
	assert_int_equal(c->a20_mask, ~0u);
	assert_int_equal(kbc_ask(0xd0) & 0x03, 0x03);
	pio_write(machine, 0x64, 0xdd, 1);
	assert_int_equal(c->a20_mask, ~(1u << 20));
	pio_write(machine, 0x64, 0xdf, 1);
	assert_int_equal(c->a20_mask, ~0u);
	pio_write(machine, 0x92, 0x02, 1); /* no change, no work */
	assert_int_equal(fake_mode_changes(machine), 4);
	assert_int_equal(fake_reset_requests(machine), 0);
	pio_write(machine, 0x64, 0xff, 1);
	assert_int_equal(fake_reset_requests(machine), 0);
	pio_write(machine, 0x64, 0xfe, 1);
	assert_int_equal(fake_reset_requests(machine), 1);
	pio_write(machine, 0x64, 0xd1, 1);
	pio_write(machine, 0x60, 0xde, 1);
	assert_int_equal(fake_reset_requests(machine), 2);
	pio_write(machine, 0x92, 0x03, 1);
	assert_int_equal(fake_reset_requests(machine), 3);
	pio_write(machine, 0x92, 0x03, 1); /* only its rise resets */
	assert_int_equal(fake_reset_requests(machine), 3);
}

/* ------------------------------------------------------------------ PCI */

static uint32_t pci_get(unsigned bus, unsigned dev, unsigned fn, unsigned reg)
{
	pio_write(machine, 0xcf8, 0x80000000 | bus << 16 | dev << 11 | fn << 8 | (reg & 0xfc), 4);
	return pio_read(machine, 0xcfc, 4);
}

static void test_pci(void **state)
{
	(void)state;
	pci_host_create(machine);
	/* How Linux finds mechanism #1. */
	pio_write(machine, 0xcfb, 0x01, 1);
	pio_write(machine, 0xcf8, 0x80000000, 4);
	assert_int_equal(pio_read(machine, 0xcf8, 4), 0x80000000);
	assert_int_equal(pci_get(0, 0, 0, 0), 0x12378086);
	assert_int_equal(pci_get(0, 0, 0, 8) >> 8, 0x060000);
	assert_int_equal(pci_get(0, 1, 0, 0), 0x70008086);
	assert_int_equal(pio_read(machine, 0xcfc, 2), 0x8086);
	assert_int_equal(pio_read(machine, 0xcfe, 2), 0x7000);
	assert_int_equal(pio_read(machine, 0xcff, 1), 0x70);
	pci_get(0, 1, 0, 8);
	assert_int_equal(pio_read(machine, 0xcfe, 2), 0x0601);
	unsigned present = 0;
	for (unsigned dev = 0; dev < 32; dev++)
		for (unsigned fn = 0; fn < 8; fn++)
			present += pci_get(0, dev, fn, 0) != 0xffffffff;
	assert_int_equal(present, 2);
	assert_int_equal(pci_get(1, 0, 0, 0), 0xffffffff);
	pio_write(machine, 0xcf8, 0, 4); /* not enabled */
	assert_int_equal(pio_read(machine, 0xcfc, 4), 0xffffffff);
	/* Read-only registers, no BARs, address bits that do not exist. */
	pci_get(0, 0, 0, 0);
	pio_write(machine, 0xcfc, 0xdeadbeef, 4);
	assert_int_equal(pio_read(machine, 0xcfc, 4), 0x12378086);
	pci_get(0, 0, 0, 0x10);
	pio_write(machine, 0xcfc, 0xffffffff, 4);
	assert_int_equal(pio_read(machine, 0xcfc, 4), 0);
	pci_get(0, 0, 0, 0x58);
	pio_write(machine, 0xcfd, 0x30, 1);
	assert_int_equal(pio_read(machine, 0xcfd, 1), 0x30);
	pio_write(machine, 0xcf8, 0xffffffff, 4);
	assert_int_equal(pio_read(machine, 0xcf8, 4), 0x80fffffc);
}

static void test_cf9(void **state)
{
	(void)state;
	pci_host_create(machine);
	pio_write(machine, 0xcf8, 0x80000800, 4);
	pio_write(machine, 0xcf9, 0x02, 1);
	assert_int_equal(fake_reset_requests(machine), 0);
	assert_int_equal(pio_read(machine, 0xcf9, 1), 0x02);
	assert_int_equal(pio_read(machine, 0xcf8, 4), 0x80000800); /* the address is untouched */
	pio_write(machine, 0xcf9, 0x06, 1);
	assert_int_equal(fake_reset_requests(machine), 1);
	fake_machine_reset(machine);
	assert_int_equal(pio_read(machine, 0xcf9, 1), 0);
	assert_int_equal(pio_read(machine, 0xcf8, 4), 0);
}

/* ------------------------------------------------------------------ debug ports */

static void test_debugport(void **state)
{
	char spec[160], buf[8] = "";

	(void)state;
	snprintf(spec, sizeof spec, "file:%s", scratch_path("debug.txt"));
	struct chardev *cd = open_ok(machine, spec);
	debugport_create(machine, true, cd);
	assert_int_equal(pio_read(machine, 0xe9, 1), 0xe9);
	pio_write(machine, 0xe9, 'h', 1);
	pio_write(machine, 0xe9, 'i', 1);
	pio_write(machine, 0x80, 0x42, 1);
	assert_int_equal(pio_read(machine, 0x80, 1), 0x42);
	assert_int_equal(fake_poweroff_status(machine), -1);
	pio_write(machine, 0xf4, 0x10, 1);
	assert_int_equal(fake_poweroff_status(machine), 0x21);
	pio_write(machine, 0xf4, 0x31, 4);
	assert_int_equal(fake_poweroff_status(machine), 0x63);
	chardev_close(cd);
	FILE *f = fopen(scratch_path("debug.txt"), "r");
	assert_non_null(fgets(buf, sizeof buf, f));
	assert_string_equal(buf, "hi");
	fclose(f);
}

static void test_debugport_off(void **state)
{
	(void)state;
	debugport_create(machine, false, NULL);
	pio_write(machine, 0xf4, 1, 1);
	pio_write(machine, 0xe9, 'x', 1);
	assert_int_equal(fake_poweroff_status(machine), -1);
	assert_int_equal(pio_read(machine, 0xf4, 1), 0xff);
}

/* ------------------------------------------------------------------ */

static int group_setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(scratch_dir, sizeof scratch_dir, "%s/bt86-chardev-XXXXXX",
		 tmp && strlen(tmp) < 32 ? tmp : "/tmp");
	return mkdtemp(scratch_dir) ? 0 : -1;
}

static int group_teardown(void **state)
{
	static const char *const left[] = {"out.txt", "input", "output", "debug.txt", "line", "stale"};

	(void)state;
	for (size_t i = 0; i < sizeof left / sizeof left[0]; i++)
		unlink(scratch_path(left[i]));
	return rmdir(scratch_dir);
}

#define U(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)
#define P(fn) cmocka_unit_test_setup_teardown(fn, plain_setup, plain_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		U(test_uart_reset_state),
		U(test_uart_divisor),
		U(test_uart_fifo_detection),
		U(test_uart_transmit),
		U(test_uart_thr_interrupt),
		U(test_uart_thr_pauses),
		U(test_uart_out2_gate),
		U(test_uart_receive_unbuffered),
		U(test_uart_trigger_and_timeout),
		U(test_uart_receive_keeps_all),
		U(test_uart_fifo_clear),
		U(test_uart_loopback),
		U(test_uart_line_status_interrupt),
		U(test_uart_modem_interrupt),
		U(test_uart_back_pressure),
		U(test_socket_reconnects),
		U(test_socket_unheard),
		U(test_divert),
		P(test_null),
		P(test_file),
		P(test_file_full),
		P(test_refusals),
		P(test_unix_stale_and_client),
		P(test_pty),
		P(test_stdio_escapes),
		P(test_stdio_inputs),
		P(test_terminal),
		P(test_kbc_controller),
		P(test_kbc_no_mouse),
		P(test_kbc_keyboard),
		P(test_kbc_interrupt),
		P(test_kbc_a20_and_reset),
		P(test_pci),
		P(test_cf9),
		P(test_debugport),
		P(test_debugport_off),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
