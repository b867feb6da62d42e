/* The local APIC with its timer, and the I/O APIC, against their manuals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "devices/device.h"
#include "devices/devices.h"
#include "tests/unit/fake_machine.h"

#define LAPIC(offset) (LAPIC_GPA + (offset))
#define MS	      1000000ull

static int setup(void **state)
{
	struct machine *m = fake_machine_create();

	i8259_create(m);
	lapic_create(m);
	ioapic_create(m);
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	device_free_all(*state);
	fake_machine_destroy(*state);
	return 0;
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

static uint32_t apic(struct machine *m, uint32_t offset)
{
	return fake_mmio_read(m, LAPIC(offset), 4);
}

static void apic_set(struct machine *m, uint32_t offset, uint32_t value)
{
	fake_mmio_write(m, LAPIC(offset), value, 4);
}

static void eoi(struct machine *m)
{
	apic_set(m, 0xb0, 0);
}

static uint32_t ioapic(struct machine *m, uint32_t reg)
{
	fake_mmio_write(m, IOAPIC_GPA, reg, 4);
	return fake_mmio_read(m, IOAPIC_GPA + 0x10, 4);
}

static void ioapic_set(struct machine *m, uint32_t reg, uint32_t value)
{
	fake_mmio_write(m, IOAPIC_GPA, reg, 4);
	fake_mmio_write(m, IOAPIC_GPA + 0x10, value, 4);
}

/* ------------------------------------------------------------------ local APIC */

/* Masks what power-on left, and the 8259s with it. */
static void apic_init(struct machine *m)
{
	apic_set(m, 0xf0, 0x1ff);
	apic_set(m, 0x350, 0x10000);
	apic_set(m, 0xd0, 0x01000000);
}

static void self_ipi(struct machine *m, uint8_t vector)
{
	apic_set(m, 0x310, 0);
	apic_set(m, 0x300, 0x44000u | vector);
}

static void apic_power_on(void **state)
{
	struct machine *m = *state;

	assert_int_equal(apic(m, 0x20), 0);
	assert_int_equal(apic(m, 0x30), 0x00050014);
	assert_int_equal(apic(m, 0xf0), 0x1ff);
	assert_int_equal(apic(m, 0xe0), 0xffffffff);
	assert_int_equal(apic(m, 0x320), 0x10000);
	assert_int_equal(apic(m, 0x350), 0x8700); /* virtual wire */
	assert_int_equal(apic(m, 0x360), 0x8400);
	assert_true(fake_pic_enabled(m));
	apic_set(m, 0xd0, 0x12345678);
	assert_int_equal(apic(m, 0xd0), 0x12000000);
	apic_set(m, 0xe0, 0);
	assert_int_equal(apic(m, 0xe0), 0x0fffffff);
	apic_set(m, 0x30, 0);
	assert_int_equal(apic(m, 0x30), 0x00050014);
	assert_int_equal(fake_mmio_read(m, LAPIC(0x32), 1), 0x05); /* narrow reads see their bytes */
	fake_mmio_write(m, LAPIC(0x80), 0x20, 1);		   /* narrow writes are dropped */
	assert_int_equal(apic(m, 0x80), 0);
	fake_machine_reset(m);
	assert_int_equal(apic(m, 0xd0), 0);
	assert_int_equal(apic(m, 0xe0), 0xffffffff);
}

static void apic_priorities(void **state)
{
	struct machine *m = *state;

	apic_init(m);
	self_ipi(m, 0x41);
	self_ipi(m, 0x63);
	self_ipi(m, 0x4f);
	assert_int_equal(apic(m, 0x220), 1u << 1 | 1u << 15);
	assert_int_equal(apic(m, 0x230), 1u << 3);
	assert_int_equal(fake_intr_ack(m), 0x63);
	assert_int_equal(apic(m, 0x130), 1u << 3);
	assert_int_equal(apic(m, 0xa0), 0x60);
	assert_false(fake_intr_pending(m));
	self_ipi(m, 0x6f); /* same class: waits */
	assert_false(fake_intr_pending(m));
	self_ipi(m, 0x70);
	assert_int_equal(fake_intr_ack(m), 0x70);
	eoi(m);
	assert_int_equal(apic(m, 0xa0), 0x60);
	eoi(m);
	assert_int_equal(fake_intr_ack(m), 0x6f);
	apic_set(m, 0x80, 0x65); /* TPR and service in the same class: the subclass is TPR's */
	assert_int_equal(apic(m, 0xa0), 0x65);
	apic_set(m, 0x80, 0x4a); /* TPR holds off class 4 */
	eoi(m);
	assert_int_equal(apic(m, 0xa0), 0x4a);
	assert_false(fake_intr_pending(m));
	apic_set(m, 0x80, 0x3f);
	assert_int_equal(fake_intr_ack(m), 0x4f);
	eoi(m);
	assert_int_equal(fake_intr_ack(m), 0x41);
	eoi(m);
	eoi(m); /* with nothing in service: no effect */
	assert_false(fake_intr_pending(m));
}

static void apic_ipis(void **state)
{
	struct machine *m = *state;

	apic_init(m);
	/* Physical, our ID and somebody else's. */
	apic_set(m, 0x20, 0x03000000);
	apic_set(m, 0x310, 0x03000000);
	apic_set(m, 0x300, 0x4050);
	assert_int_equal(fake_intr_ack(m), 0x50);
	eoi(m);
	apic_set(m, 0x310, 0x04000000);
	apic_set(m, 0x300, 0x4050);
	assert_false(fake_intr_pending(m));
	assert_int_equal(apic(m, 0x300) & 0x1000, 0); /* delivery status: idle */
	/* Logical, flat. */
	apic_set(m, 0xd0, 0x06000000);
	apic_set(m, 0x310, 0x0a000000);
	apic_set(m, 0x300, 0x4851);
	assert_int_equal(fake_intr_ack(m), 0x51);
	eoi(m);
	apic_set(m, 0x310, 0x01000000);
	apic_set(m, 0x300, 0x4851);
	assert_false(fake_intr_pending(m));
	/* Logical, cluster 2, member 1; then lowest priority to everybody. */
	apic_set(m, 0xe0, 0x0fffffff);
	apic_set(m, 0xd0, 0x21000000);
	apic_set(m, 0x310, 0x23000000);
	apic_set(m, 0x300, 0x4852);
	assert_int_equal(fake_intr_ack(m), 0x52);
	eoi(m);
	apic_set(m, 0x310, 0x31000000);
	apic_set(m, 0x300, 0x4852);
	assert_false(fake_intr_pending(m));
	apic_set(m, 0x310, 0xff000000);
	apic_set(m, 0x300, 0x4953);
	assert_int_equal(fake_intr_ack(m), 0x53);
	eoi(m);
	/* All including self; all but self. */
	apic_set(m, 0x300, 0x84054);
	assert_int_equal(fake_intr_ack(m), 0x54);
	eoi(m);
	apic_set(m, 0x300, 0xc4054);
	assert_false(fake_intr_pending(m));
	/* NMI to us; INIT and start-up are for others. */
	apic_set(m, 0x300, 0x84400);
	assert_int_equal(fake_nmis(m), 1);
	apic_set(m, 0x300, 0xc4500);
	apic_set(m, 0x300, 0xc4608);
	assert_int_equal(fake_nmis(m), 1);
	assert_int_equal(fake_reset_requests(m), 0);
}

static void apic_errors(void **state)
{
	struct machine *m = *state;

	apic_init(m);
	apic_set(m, 0x370, 0xfe);
	self_ipi(m, 0x0f);
	assert_int_equal(fake_intr_ack(m), 0xfe);
	assert_int_equal(apic(m, 0x280), 0); /* not latched yet */
	apic_set(m, 0x280, 0);
	assert_int_equal(apic(m, 0x280), 0x20);
	apic_set(m, 0x280, 0);
	assert_int_equal(apic(m, 0x280), 0);
	eoi(m);
	apic_set(m, 0x370, 0x10000);
	apic_set(m, 0x3f0, 1); /* there is no such register */
	apic(m, 0x40);
	/* A message with an illegal vector. */
	ioapic_set(m, 0x10 + 2 * 5, 0x0005);
	pulse(m, 5);
	apic_set(m, 0x280, 0);
	assert_int_equal(apic(m, 0x280), 0xc0);
	/* An illegal vector in the error entry itself must not go round. */
	apic_set(m, 0x370, 0x03);
	self_ipi(m, 1);
	assert_false(fake_intr_pending(m));
}

static void apic_software_disable(void **state)
{
	struct machine *m = *state;

	apic_init(m);
	apic_set(m, 0x350, 0x700);
	apic_set(m, 0x320, 0x40);
	self_ipi(m, 0x33);
	apic_set(m, 0xf0, 0xff);
	assert_int_equal(apic(m, 0x320), 0x10040); /* every entry is masked and stays so */
	apic_set(m, 0x320, 0x40);
	assert_int_equal(apic(m, 0x320), 0x10040);
	assert_false(fake_pic_enabled(m));
	self_ipi(m, 0x34);			  /* not accepted */
	assert_int_equal(fake_intr_ack(m), 0x33); /* but what was pending is held */
	eoi(m);
	assert_false(fake_intr_pending(m));
	/* A level-triggered line that was refused comes when the APIC is enabled again. */
	ioapic_set(m, 0x10 + 2 * 10, 0x8035);
	line(m, 10, true);
	assert_false(fake_intr_pending(m));
	apic_set(m, 0xf0, 0x1ff);
	assert_int_equal(fake_intr_ack(m), 0x35);
}

static void apic_base(void **state)
{
	struct machine *m = *state;

	apic_init(m);
	assert_false(fake_pic_enabled(m));
	self_ipi(m, 0x40);
	fake_apic_base_write(m, 0xfee00100);
	assert_false(fake_intr_level(m, INTR_LAPIC));
	assert_true(fake_pic_enabled(m)); /* the pin is INTR now */
	assert_int_equal(apic(m, 0x30), 0xffffffff);
	apic_set(m, 0xf0, 0x1ff);
	fake_apic_base_write(m, 0xfee00900);
	assert_int_equal(apic(m, 0xf0), 0xff);
	assert_int_equal(apic(m, 0x350), 0x10000);
	assert_false(fake_pic_enabled(m));
	assert_false(fake_intr_pending(m));
	fake_apic_base_write(m, 0xfee00100);
	fake_machine_reset(m);
	assert_int_equal(apic(m, 0xf0), 0x1ff);
}

static void apic_lint0(void **state)
{
	struct machine *m = *state;

	pio_write(m, 0x21, 0xf7, 1); /* vectors from 0x08, as after power-on */
	pulse(m, 3);
	assert_true(fake_intr_pending(m));
	apic_set(m, 0x350, 0x10700);
	assert_false(fake_intr_pending(m));
	apic_set(m, 0x350, 0x700);
	self_ipi(m, 0x80);
	assert_int_equal(fake_intr_ack(m), 0x80); /* the local APIC before ExtINT */
	assert_int_equal(fake_intr_ack(m), 0x0b); /* which its priorities do not hold off */
	apic_set(m, 0x350, 0x31);
	assert_false(fake_pic_enabled(m));
}

#define TICK	    (1000000000u / LAPIC_BUS_HZ) /* ns */
#define TICKS_IN_MS (LAPIC_BUS_HZ / 1000)

static void apic_timer_one_shot(void **state)
{
	struct machine *m = *state;

	apic_init(m);
	apic_set(m, 0x3e0, 0x3); /* by 16 */
	apic_set(m, 0x320, 0x60);
	apic_set(m, 0x380, 1000);
	assert_int_equal(apic(m, 0x390), 1000);
	fake_clock_advance(m, 16 * TICK - 1);
	assert_int_equal(apic(m, 0x390), 1000);
	fake_clock_advance(m, 1);
	assert_int_equal(apic(m, 0x390), 999);
	fake_clock_advance(m, 16 * 999 * TICK - 1);
	assert_int_equal(apic(m, 0x390), 1);
	assert_false(fake_intr_pending(m));
	fake_clock_advance(m, 1);
	assert_int_equal(apic(m, 0x390), 0);
	assert_int_equal(apic(m, 0x380), 1000);
	assert_int_equal(fake_intr_ack(m), 0x60);
	eoi(m);
	fake_clock_advance(m, 100 * MS); /* once */
	assert_false(fake_intr_pending(m));
	assert_int_equal(fake_timer_next(m), UINT64_MAX);
	/* 0 stops. */
	apic_set(m, 0x380, 5000);
	apic_set(m, 0x380, 0);
	fake_clock_advance(m, 100 * MS);
	assert_false(fake_intr_pending(m));
	/* Masked: the count goes down, nothing comes, then or later. */
	apic_set(m, 0x320, 0x10060);
	apic_set(m, 0x380, 1000);
	fake_clock_advance(m, 16 * 400 * TICK);
	assert_int_equal(apic(m, 0x390), 600);
	fake_clock_advance(m, 16 * 1000 * TICK);
	apic_set(m, 0x320, 0x60);
	assert_false(fake_intr_pending(m));
	/* The divider: 111 divides by 1, 000 by 2; changing it keeps the count. */
	apic_set(m, 0x3e0, 0xb);
	apic_set(m, 0x380, 1000000);
	fake_clock_advance(m, 400000 * TICK);
	assert_int_equal(apic(m, 0x390), 600000);
	apic_set(m, 0x3e0, 0x0);
	assert_int_equal(apic(m, 0x390), 600000);
	fake_clock_advance(m, 400000 * TICK);
	assert_int_equal(apic(m, 0x390), 400000);
	apic_set(m, 0x3e0, 0xa); /* 110: by 128 */
	fake_clock_advance(m, 128ull * 399999 * TICK);
	assert_int_equal(apic(m, 0x390), 1);
	assert_false(fake_intr_pending(m));
	fake_clock_advance(m, 128 * TICK);
	assert_int_equal(fake_intr_ack(m), 0x60);
}

static void apic_timer_periodic(void **state)
{
	struct machine *m = *state;

	apic_init(m);
	apic_set(m, 0x3e0, 0xb);
	apic_set(m, 0x320, 0x20061);
	apic_set(m, 0x380, TICKS_IN_MS);
	for (int i = 0; i < 5; i++) {
		fake_clock_advance(m, MS - 1);
		assert_int_equal(apic(m, 0x390), 1);
		assert_false(fake_intr_pending(m));
		fake_clock_advance(m, 1);
		assert_int_equal(apic(m, 0x390), TICKS_IN_MS); /* reloaded */
		assert_int_equal(fake_intr_ack(m), 0x61);
		eoi(m);
		assert_false(fake_intr_pending(m));
	}
	/* Made one-shot in the middle of a period, it ends with it. */
	fake_clock_advance(m, MS / 4);
	apic_set(m, 0x320, 0x61);
	assert_int_equal(apic(m, 0x390), TICKS_IN_MS * 3 / 4);
	fake_clock_advance(m, MS);
	assert_int_equal(fake_intr_ack(m), 0x61);
	eoi(m);
	fake_clock_advance(m, 10 * MS);
	assert_false(fake_intr_pending(m));
	/* Read while the host's timer is late: periods past do not show. */
	apic_set(m, 0x320, 0x20061);
	apic_set(m, 0x380, TICKS_IN_MS);
	fake_clock_skip(m, 2 * MS + MS / 4);
	assert_int_equal(apic(m, 0x390), TICKS_IN_MS * 3 / 4);
	/* TSC-deadline mode is not offered: bit 18 does not stick. */
	apic_set(m, 0x320, 0x40061);
	assert_int_equal(apic(m, 0x320), 0x61);
}

static void apic_timer_lost_ticks(void **state)
{
	struct machine *m = *state;
	unsigned ticks = 0;

	apic_init(m);
	apic_set(m, 0x3e0, 0xb);
	apic_set(m, 0x320, 0x20061);
	apic_set(m, 0x380, TICKS_IN_MS);
	fake_clock_jump(m, 7 * MS + MS / 2); /* the host was busy */
	while (fake_intr_pending(m)) {
		assert_int_equal(fake_intr_ack(m), 0x61);
		eoi(m);
		ticks++;
	}
	assert_int_equal(ticks, 7);
	fake_clock_advance(m, MS / 2);
	assert_int_equal(fake_intr_ack(m), 0x61);
	eoi(m);
	/* At most a second's worth. */
	fake_clock_jump(m, 5000 * MS);
	for (ticks = 0; fake_intr_pending(m); ticks++) {
		fake_intr_ack(m);
		eoi(m);
	}
	assert_in_range(ticks, 1000, 1001);
	/* A period of one bus tick does not occupy the host. */
	apic_set(m, 0x380, 1);
	assert_true(fake_timer_next(m) >= clock_ns(m) + 50000);
	fake_clock_advance(m, 60000);
	assert_int_equal(fake_intr_ack(m), 0x61);
	eoi(m);
	assert_false(fake_intr_pending(m));
	/* A stopped timer owes nothing. */
	apic_set(m, 0x380, 1000000);
	fake_clock_jump(m, 9 * MS);
	apic_set(m, 0x380, 0);
	assert_int_equal(fake_intr_ack(m), 0x61);
	eoi(m);
	assert_false(fake_intr_pending(m));
}

/* ------------------------------------------------------------------ I/O APIC */

static void ioapic_registers(void **state)
{
	struct machine *m = *state;

	assert_int_equal(ioapic(m, 1), 0x00170011);
	ioapic_set(m, 0, 0xffffffff);
	assert_int_equal(ioapic(m, 0), 0x0f000000);
	assert_int_equal(ioapic(m, 2), 0x0f000000); /* the arbitration ID takes it over */
	for (unsigned i = 0; i < 24; i++) {
		assert_int_equal(ioapic(m, 0x10 + 2 * i), 0x10000);
		assert_int_equal(ioapic(m, 0x11 + 2 * i), 0);
	}
	ioapic_set(m, 0x10, 0xffffffff);
	ioapic_set(m, 0x11, 0xffffffff);
	assert_int_equal(ioapic(m, 0x10), 0x1afff); /* not delivery status, remote IRR, reserved */
	assert_int_equal(ioapic(m, 0x11), 0xff000000);
	assert_int_equal(ioapic(m, 0x40), 0);
	ioapic_set(m, 0x40, 1);
	ioapic_set(m, 0xff, 1);
	fake_machine_reset(m);
	assert_int_equal(ioapic(m, 0x10), 0x10000);
	assert_int_equal(ioapic(m, 0), 0);
}

static void ioapic_edge(void **state)
{
	struct machine *m = *state;

	apic_init(m);
	pulse(m, 4); /* masked: forgotten */
	ioapic_set(m, 0x10 + 2 * 4, 0x44);
	assert_false(fake_intr_pending(m));
	line(m, 4, true);
	assert_int_equal(fake_intr_ack(m), 0x44);
	assert_int_equal(apic(m, 0x1a0) & 1u << 4, 0); /* TMR: edge */
	eoi(m);
	assert_false(fake_intr_pending(m));
	line(m, 4, false);
	pulse(m, 4);
	assert_int_equal(fake_intr_ack(m), 0x44);
	eoi(m);
	/* Line 0 is pin 2; lines 0 and 2 reach no other. */
	ioapic_set(m, 0x10 + 2 * 0, 0x50);
	ioapic_set(m, 0x10 + 2 * 2, 0x52);
	pulse(m, 0);
	assert_int_equal(fake_intr_ack(m), 0x52);
	eoi(m);
	pulse(m, 2);
	assert_false(fake_intr_pending(m));
	/* Destinations: somebody else; logical. NMI. */
	ioapic_set(m, 0x11 + 2 * 4, 0x07000000);
	pulse(m, 4);
	assert_false(fake_intr_pending(m));
	ioapic_set(m, 0x10 + 2 * 4, 0x844);
	pulse(m, 4);
	assert_int_equal(fake_intr_ack(m), 0x44);
	eoi(m);
	ioapic_set(m, 0x10 + 2 * 4, 0xc00);
	pulse(m, 4);
	assert_int_equal(fake_nmis(m), 1);
	line(m, 23, true); /* lines above 15 */
	ioapic_set(m, 0x10 + 2 * 23, 0x8057);
	assert_int_equal(fake_intr_ack(m), 0x57);
}

static void ioapic_level(void **state)
{
	struct machine *m = *state;
	unsigned rte = 0x10 + 2 * 9;

	apic_init(m);
	ioapic_set(m, rte, 0x8039);
	line(m, 9, true);
	assert_int_equal(ioapic(m, rte), 0xc039); /* remote IRR */
	assert_int_equal(fake_intr_ack(m), 0x39);
	assert_true(apic(m, 0x190) & 1u << 25); /* TMR */
	/* Asserted again while it waits for the EOI: nothing more. */
	line(m, 9, false);
	line(m, 9, true);
	assert_false(fake_intr_pending(m));
	eoi(m); /* still asserted: again */
	assert_int_equal(fake_intr_ack(m), 0x39);
	line(m, 9, false);
	eoi(m);
	assert_int_equal(ioapic(m, rte), 0x8039);
	assert_false(fake_intr_pending(m));
	/* Masked, asserted, unmasked. */
	ioapic_set(m, rte, 0x18039);
	line(m, 9, true);
	assert_false(fake_intr_pending(m));
	ioapic_set(m, rte, 0x8039);
	assert_int_equal(fake_intr_ack(m), 0x39);
	/* Masked during service: the EOI clears remote IRR, and unmasking sends. */
	ioapic_set(m, rte, 0x18039);
	eoi(m);
	assert_int_equal(ioapic(m, rte), 0x18039);
	assert_false(fake_intr_pending(m));
	ioapic_set(m, rte, 0x8039);
	assert_int_equal(fake_intr_ack(m), 0x39);
	/* What operating systems do without an EOI register: edge and back, masked. */
	line(m, 9, false);
	ioapic_set(m, rte, 0x10039);
	ioapic_set(m, rte, 0x18039);
	assert_int_equal(ioapic(m, rte), 0x18039);
	eoi(m);
	assert_false(fake_intr_pending(m));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(apic_power_on),
		TEST(apic_priorities),
		TEST(apic_ipis),
		TEST(apic_errors),
		TEST(apic_software_disable),
		TEST(apic_base),
		TEST(apic_lint0),
		TEST(apic_timer_one_shot),
		TEST(apic_timer_periodic),
		TEST(apic_timer_lost_ticks),
		TEST(ioapic_registers),
		TEST(ioapic_edge),
		TEST(ioapic_level),
	};

	return cmocka_run_group_tests_name("apic", tests, NULL, NULL);
}
