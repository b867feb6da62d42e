/* The 8259A pair against its data sheet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "devices/device.h"
#include "devices/devices.h"
#include "tests/unit/fake_machine.h"

static int setup(void **state)
{
	struct machine *m = fake_machine_create();

	i8259_create(m);
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	device_free_all(*state);
	fake_machine_destroy(*state);
	return 0;
}

static void out(struct machine *m, uint16_t port, uint32_t value)
{
	pio_write(m, port, value, 1);
}

static uint8_t in(struct machine *m, uint16_t port)
{
	return (uint8_t)pio_read(m, port, 1);
}

static void line(struct machine *m, unsigned n, bool level)
{
	machine_lock(m);
	irq_set(m, n, level);
	machine_unlock(m);
}

static void pulse(struct machine *m, unsigned n)
{
	line(m, n, true);
	line(m, n, false);
}

/* As a PC does it: vectors 0x20 and 0x28, everything unmasked. */
static void pic_init(struct machine *m, uint8_t icw4)
{
	out(m, 0x20, 0x11);
	out(m, 0x21, 0x20);
	out(m, 0x21, 0x04);
	out(m, 0x21, icw4);
	out(m, 0xa0, 0x11);
	out(m, 0xa1, 0x28);
	out(m, 0xa1, 0x02);
	out(m, 0xa1, 0x01);
}

static uint8_t irr(struct machine *m, uint16_t port)
{
	out(m, port, 0x0a);
	return in(m, port);
}

static uint8_t isr(struct machine *m, uint16_t port)
{
	out(m, port, 0x0b);
	return in(m, port);
}

static void pic_edge(void **state)
{
	struct machine *m = *state;

	pic_init(m, 0x01);
	assert_int_equal(fake_intr_ack(m), -1);
	line(m, 3, true);
	assert_int_equal(irr(m, 0x20), 0x08);
	assert_true(fake_intr_pending(m));
	assert_int_equal(fake_intr_ack(m), 0x23);
	assert_int_equal(irr(m, 0x20), 0);
	assert_int_equal(isr(m, 0x20), 0x08);
	assert_false(fake_intr_pending(m));
	/* The input is still high: after EOI there is no new request without an edge. */
	out(m, 0x20, 0x20);
	assert_int_equal(isr(m, 0x20), 0);
	assert_false(fake_intr_pending(m));
	line(m, 3, false);
	line(m, 3, true);
	assert_int_equal(fake_intr_ack(m), 0x23);
}

static void pic_priority(void **state)
{
	struct machine *m = *state;

	pic_init(m, 0x01);
	pulse(m, 5);
	pulse(m, 1);
	pulse(m, 3);
	assert_int_equal(fake_intr_ack(m), 0x21);
	assert_false(fake_intr_pending(m)); /* 3 and 5 are below what is in service */
	pulse(m, 0);
	assert_int_equal(fake_intr_ack(m), 0x20); /* 0 is above: it nests */
	assert_int_equal(isr(m, 0x20), 0x03);
	out(m, 0x20, 0x20); /* non-specific EOI: the highest, 0 */
	assert_int_equal(isr(m, 0x20), 0x02);
	out(m, 0x20, 0x61); /* specific EOI for 1 */
	assert_int_equal(fake_intr_ack(m), 0x23);
	out(m, 0x20, 0x20);
	assert_int_equal(fake_intr_ack(m), 0x25);
}

static void pic_rotation(void **state)
{
	struct machine *m = *state;

	pic_init(m, 0x01);
	out(m, 0x20, 0xc0 | 4); /* set priority: 4 lowest, so 5 is the highest */
	pulse(m, 0);
	pulse(m, 5);
	assert_int_equal(fake_intr_ack(m), 0x25);
	out(m, 0x20, 0xa0); /* rotate on non-specific EOI: 5 becomes the lowest */
	pulse(m, 5);
	pulse(m, 6);
	assert_int_equal(fake_intr_ack(m), 0x26);
	out(m, 0x20, 0xe0 | 6); /* rotate on specific EOI: 6 becomes the lowest, 7 the highest */
	pulse(m, 7);
	assert_int_equal(fake_intr_ack(m), 0x27);
	out(m, 0x20, 0x20);
	assert_int_equal(fake_intr_ack(m), 0x20);
	out(m, 0x20, 0x20);
	assert_int_equal(fake_intr_ack(m), 0x25);
	out(m, 0x20, 0x20);
	/* Initialization restores the fixed order. */
	pic_init(m, 0x01);
	pulse(m, 7);
	pulse(m, 0);
	assert_int_equal(fake_intr_ack(m), 0x20);
}

static void pic_auto_eoi(void **state)
{
	struct machine *m = *state;

	pic_init(m, 0x03);
	pulse(m, 4);
	assert_int_equal(fake_intr_ack(m), 0x24);
	assert_int_equal(isr(m, 0x20), 0);
	out(m, 0x20, 0x80); /* rotate in automatic EOI mode */
	pulse(m, 4);
	assert_int_equal(fake_intr_ack(m), 0x24);
	pulse(m, 4);
	pulse(m, 5);
	assert_int_equal(fake_intr_ack(m), 0x25); /* 4 is the lowest now */
	assert_int_equal(fake_intr_ack(m), 0x24);
	out(m, 0x20, 0x00);
}

static void pic_special_mask(void **state)
{
	struct machine *m = *state;

	pic_init(m, 0x01);
	pulse(m, 2 + 1);
	assert_int_equal(fake_intr_ack(m), 0x23);
	pulse(m, 6);
	assert_false(fake_intr_pending(m));
	out(m, 0x21, 0x08); /* the handler masks itself and sets special mask mode: lower levels may come */
	out(m, 0x20, 0x68);
	assert_int_equal(fake_intr_ack(m), 0x26);
	/* A non-specific EOI passes over the masked level in service. */
	out(m, 0x20, 0x20);
	assert_int_equal(isr(m, 0x20), 0x08);
	out(m, 0x20, 0x48); /* reset special mask mode */
	out(m, 0x20, 0x20);
	assert_int_equal(isr(m, 0x20), 0);
}

static void pic_cascade(void **state)
{
	struct machine *m = *state;

	pic_init(m, 0x01);
	pulse(m, 12);
	assert_int_equal(irr(m, 0x20), 0x04);
	assert_int_equal(irr(m, 0xa0), 0x10);
	assert_int_equal(fake_intr_ack(m), 0x2c);
	assert_int_equal(isr(m, 0x20), 0x04);
	assert_int_equal(isr(m, 0xa0), 0x10);
	/* A higher request of the slave waits for the master's EOI, as its input 2 is in service. */
	pulse(m, 8);
	assert_false(fake_intr_pending(m));
	out(m, 0xa0, 0x20);
	out(m, 0x20, 0x20);
	assert_int_equal(fake_intr_ack(m), 0x28);
	out(m, 0xa0, 0x20);
	out(m, 0x20, 0x20);
	assert_false(fake_intr_pending(m));
	/* The slave's lines rank at the master's 2: above 3, below 1. */
	pulse(m, 15);
	pulse(m, 3);
	pulse(m, 1);
	assert_int_equal(fake_intr_ack(m), 0x21);
	out(m, 0x20, 0x20);
	assert_int_equal(fake_intr_ack(m), 0x2f);
	out(m, 0xa0, 0x20);
	out(m, 0x20, 0x20);
	assert_int_equal(fake_intr_ack(m), 0x23);
}

static void pic_special_fully_nested(void **state)
{
	struct machine *m = *state;

	pic_init(m, 0x11);
	pulse(m, 12);
	assert_int_equal(fake_intr_ack(m), 0x2c);
	pulse(m, 14);
	pulse(m, 3);
	assert_false(fake_intr_pending(m)); /* below, at the slave and at the master */
	pulse(m, 8);
	assert_int_equal(fake_intr_ack(m), 0x28); /* the slave's own higher request comes through */
}

static void pic_level(void **state)
{
	struct machine *m = *state;

	out(m, 0x4d0, 0xff);
	out(m, 0x4d1, 0xff);
	assert_int_equal(in(m, 0x4d0), 0xf8); /* timer, keyboard and cascade stay edge-triggered */
	assert_int_equal(in(m, 0x4d1), 0xde); /* and so do the RTC and the FPU */
	pic_init(m, 0x01);
	line(m, 5, true);
	assert_int_equal(fake_intr_ack(m), 0x25);
	assert_int_equal(irr(m, 0x20), 0x20); /* follows the input */
	out(m, 0x20, 0x20);
	assert_int_equal(fake_intr_ack(m), 0x25); /* still asserted: again */
	line(m, 5, false);
	out(m, 0x20, 0x20);
	assert_int_equal(irr(m, 0x20), 0);
	assert_false(fake_intr_pending(m));
	/* The slave's too, and through initialization. */
	line(m, 11, true);
	pic_init(m, 0x01);
	assert_int_equal(fake_intr_ack(m), 0x2b);
}

static void pic_spurious(void **state)
{
	struct machine *m = *state;

	out(m, 0x4d0, 0x20);
	out(m, 0x4d1, 0x08);
	pic_init(m, 0x01);
	/* A request that goes away lowers INT. A CPU that acknowledges even so gets IRQ 7 and no ISR bit. */
	line(m, 5, true);
	line(m, 5, false);
	assert_false(fake_intr_pending(m));
	assert_int_equal(fake_intr_inta(m, INTR_PIC), 0x27);
	assert_int_equal(isr(m, 0x20), 0);
	/* The same by masking. */
	pulse(m, 4);
	out(m, 0x21, 0x10);
	assert_int_equal(fake_intr_inta(m, INTR_PIC), 0x27);
	assert_int_equal(isr(m, 0x20), 0);
	out(m, 0x21, 0x00);
	assert_int_equal(fake_intr_ack(m), 0x24); /* the edge was kept */
	out(m, 0x20, 0x20);
	/* From the slave: IRQ 15; the master has its input 2 in service, the slave nothing. */
	line(m, 11, true);
	line(m, 11, false);
	assert_false(fake_intr_pending(m));
	assert_int_equal(irr(m, 0x20), 0);
	assert_int_equal(fake_intr_inta(m, INTR_PIC), 0x2f);
	assert_int_equal(isr(m, 0xa0), 0);
	assert_int_equal(isr(m, 0x20), 0x04);
	out(m, 0x20, 0x20);
	/* A real IRQ 7 has its ISR bit. */
	pulse(m, 7);
	assert_int_equal(fake_intr_ack(m), 0x27);
	assert_int_equal(isr(m, 0x20), 0x80);
}

static void pic_poll(void **state)
{
	struct machine *m = *state;

	pic_init(m, 0x01);
	out(m, 0x20, 0x0c);
	assert_int_equal(in(m, 0x20), 0); /* nothing */
	pulse(m, 6);
	pulse(m, 4);
	out(m, 0x20, 0x0c);
	assert_int_equal(in(m, 0x20), 0x84);
	assert_int_equal(isr(m, 0x20), 0x10); /* the read was the acknowledge */
	out(m, 0x20, 0x20);
	out(m, 0x20, 0x0c);
	assert_int_equal(in(m, 0x21), 0x86); /* A0 does not matter */
	assert_false(fake_intr_pending(m));
	assert_int_equal(in(m, 0x21), 0x00); /* and the next read is an ordinary one */
}

static void pic_initialization(void **state)
{
	struct machine *m = *state;

	/* Power-on: as firmware leaves it, masked. */
	assert_int_equal(in(m, 0x21), 0xff);
	assert_int_equal(in(m, 0xa1), 0xff);
	out(m, 0x21, 0xfb);
	assert_int_equal(in(m, 0x21), 0xfb);
	/* ICW1 forgets edges, clears the mask and inhibits interrupts until the sequence is complete. */
	pulse(m, 1);
	out(m, 0x20, 0x11);
	assert_int_equal(irr(m, 0x20), 0);
	line(m, 1, true);
	assert_false(fake_intr_pending(m));
	out(m, 0x21, 0x67); /* the low three bits of ICW2 do not count */
	out(m, 0x21, 0x04);
	assert_false(fake_intr_pending(m));
	out(m, 0x21, 0x01);
	assert_int_equal(in(m, 0x21), 0x00);
	assert_int_equal(fake_intr_ack(m), 0x61);
	/* Single mode takes no ICW3, and without IC4 there is no ICW4: its functions are off. */
	out(m, 0x20, 0x11);
	out(m, 0x21, 0x40);
	out(m, 0x21, 0x04);
	out(m, 0x21, 0x03);
	out(m, 0x20, 0x12);
	out(m, 0x21, 0x40);
	out(m, 0x21, 0x5a);
	assert_int_equal(in(m, 0x21), 0x5a);
	pulse(m, 0);
	assert_int_equal(fake_intr_ack(m), 0x40);
	assert_int_equal(isr(m, 0x20), 0x01);
	fake_machine_reset(m);
	assert_int_equal(in(m, 0x21), 0xff);
	assert_false(fake_intr_pending(m));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(pic_edge),
		TEST(pic_priority),
		TEST(pic_rotation),
		TEST(pic_auto_eoi),
		TEST(pic_special_mask),
		TEST(pic_cascade),
		TEST(pic_special_fully_nested),
		TEST(pic_level),
		TEST(pic_spurious),
		TEST(pic_poll),
		TEST(pic_initialization),
	};

	return cmocka_run_group_tests_name("i8259", tests, NULL, NULL);
}
