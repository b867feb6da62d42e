/* test_machine.c - the core of the machine: creation, buses, lines, power, the event loop, reset, the log. */
#include "machine_rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

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

static void test_intr(void **state)
{
	struct machine *m = *state;
	struct vcpu *c = machine_vcpu(m);

	intr_register(m, INTR_LAPIC, rig_give_vector, &ack_lapic);
	intr_register(m, INTR_PIC, rig_give_vector, &ack_pic);
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

/* ------------------------------------------------------------------ power */

static void *poweroff_soon(void *opaque)
{
	rig_sleep_us(5000);
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
		rig_sleep_us(1000);
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

	reset_order = rig_mode_changes = 0;
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
	assert_int_equal(rig_mode_changes, 1);
	m->cfg.no_reboot = true;
	machine_reset_request(m);
	assert_int_equal(m->vcpu.request, REQ_SHUTDOWN);
	assert_int_equal(machine_exit_status(m), EXIT_POWEROFF);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create_refuses),
		rig_test(test_pio_split),
		rig_test(test_pio_wide),
		rig_test(test_pio_unclaimed),
		rig_test(test_mmio),
		rig_test(test_irq_lines),
		rig_test(test_intr),
		rig_test(test_poweroff),
		rig_test(test_signal_ends),
		rig_test(test_evloop_removed_in_batch),
		rig_test(test_evloop_refuses),
		rig_test(test_reset),
		cmocka_unit_test(test_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
