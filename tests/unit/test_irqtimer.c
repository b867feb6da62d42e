/* The 8254 with port 0x61 and the ACPI power-management block against their data sheets, and that the clocks
 * of the board agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "devices/acpi_pm.h"
#include "devices/device.h"
#include "devices/devices.h"
#include "tests/unit/fake_machine.h"

#define US     1000ull
#define MS     1000000ull
#define SEC    1000000000ull
#define PIT_HZ 1193182u

static int setup(void **state)
{
	struct machine *m = fake_machine_create();

	i8254_create(m);
	acpi_pm_create(m);
	lapic_create(m);
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

/* ------------------------------------------------------------------ 8254 */

/* Moves to the beginning of the nth clock from now. */
static void clocks(struct machine *m, uint64_t n)
{
	uint64_t now = device_ns_to_ticks(clock_ns(m), PIT_HZ);

	fake_clock_advance(m, device_ticks_to_ns(now + n, PIT_HZ) - clock_ns(m));
}

/* Low byte, high byte, then the clock that loads it. */
static void set_count(struct machine *m, unsigned channel, uint16_t count)
{
	out(m, (uint16_t)(0x40 + channel), count & 0xff);
	out(m, (uint16_t)(0x40 + channel), count >> 8);
	clocks(m, 1);
}

static uint16_t count(struct machine *m, unsigned channel)
{
	uint16_t low;

	out(m, 0x43, channel << 6);
	low = in(m, (uint16_t)(0x40 + channel));
	return (uint16_t)(low | in(m, (uint16_t)(0x40 + channel)) << 8);
}

static bool out2(struct machine *m)
{
	return in(m, 0x61) & 0x20;
}

static uint8_t status(struct machine *m, unsigned channel)
{
	out(m, 0x43, 0xe0 | 2u << channel);
	return in(m, (uint16_t)(0x40 + channel));
}

static void pit_mode0(void **state)
{
	struct machine *m = *state;

	out(m, 0x61, 1);
	clocks(m, 1);
	out(m, 0x43, 0xb0);
	assert_false(out2(m));		      /* low from the control word on */
	assert_int_equal(status(m, 2), 0x70); /* null count */
	set_count(m, 2, 4);
	assert_int_equal(status(m, 2), 0x30);
	assert_int_equal(count(m, 2), 4);
	clocks(m, 3);
	assert_int_equal(count(m, 2), 1);
	assert_false(out2(m));
	clocks(m, 1); /* N + 1 clocks after it was written */
	assert_true(out2(m));
	assert_int_equal(status(m, 2), 0xb0);
	clocks(m, 1); /* the counter goes on round */
	assert_int_equal(count(m, 2), 0xffff);
	assert_true(out2(m));
	/* The first byte of a new count stops the counting and lowers OUT. */
	out(m, 0x42, 10);
	assert_false(out2(m));
	clocks(m, 100);
	assert_int_equal(status(m, 2), 0x70);
	out(m, 0x42, 0);
	clocks(m, 1);
	assert_int_equal(count(m, 2), 10);
	/* GATE low holds it. */
	clocks(m, 4);
	out(m, 0x61, 0);
	clocks(m, 50);
	assert_int_equal(count(m, 2), 6);
	out(m, 0x61, 1);
	clocks(m, 5);
	assert_false(out2(m));
	clocks(m, 1);
	assert_true(out2(m));
}

static void pit_mode1(void **state)
{
	struct machine *m = *state;

	out(m, 0x43, 0xb2);
	assert_true(out2(m));
	set_count(m, 2, 5);
	clocks(m, 20);
	assert_true(out2(m)); /* nothing without a trigger */
	assert_int_equal(status(m, 2), 0xf2);
	out(m, 0x61, 1);
	assert_true(out2(m));
	clocks(m, 1); /* the clock after the trigger */
	assert_false(out2(m));
	assert_int_equal(count(m, 2), 5);
	clocks(m, 4);
	assert_false(out2(m));
	clocks(m, 1); /* a pulse of N clocks */
	assert_true(out2(m));
	/* Retriggered in the pulse, it lasts N clocks from there; a new count waits for a trigger. */
	out(m, 0x61, 0);
	out(m, 0x61, 1);
	clocks(m, 3);
	set_count(m, 2, 100);
	assert_int_equal(count(m, 2), 2);
	out(m, 0x61, 0);
	out(m, 0x61, 1);
	assert_false(out2(m));
	clocks(m, 1);
	assert_int_equal(count(m, 2), 100);
	clocks(m, 99);
	assert_false(out2(m));
	clocks(m, 1);
	assert_true(out2(m));
}

static void pit_mode2(void **state)
{
	struct machine *m = *state;
	static const uint16_t expected[] = {3, 2, 1, 3, 2, 1, 3};

	out(m, 0x61, 1);
	out(m, 0x43, 0xb4);
	set_count(m, 2, 3);
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(count(m, 2), expected[i]);
		assert_int_equal(out2(m), expected[i] != 1); /* low for the last clock */
		clocks(m, 1);
	}
	/* At 2 now. A new count does not disturb the cycle. */
	assert_int_equal(count(m, 2), 2);
	out(m, 0x42, 5);
	out(m, 0x42, 0);
	assert_true(status(m, 2) & 0x40);
	clocks(m, 1);
	assert_int_equal(count(m, 2), 1);
	clocks(m, 1);
	assert_int_equal(count(m, 2), 5);
	assert_false(status(m, 2) & 0x40);
	/* GATE low: OUT high at once, even in the low clock; rising it reloads. */
	clocks(m, 4);
	assert_false(out2(m));
	out(m, 0x61, 0);
	assert_true(out2(m));
	clocks(m, 7);
	assert_int_equal(count(m, 2), 1);
	out(m, 0x61, 1);
	clocks(m, 1);
	assert_int_equal(count(m, 2), 5);
	/* 0 is 65536. */
	out(m, 0x43, 0xb4);
	set_count(m, 2, 0);
	assert_int_equal(count(m, 2), 0);
	clocks(m, 1);
	assert_int_equal(count(m, 2), 0xffff);
	clocks(m, 65534);
	assert_int_equal(count(m, 2), 1);
	assert_false(out2(m));
}

static void pit_mode3(void **state)
{
	struct machine *m = *state;
	static const uint16_t even[] = {4, 2, 4, 2, 4, 2};
	static const uint16_t odd[] = {4, 2, 0, 4, 2, 4, 2, 0, 4, 2};

	out(m, 0x61, 1);
	out(m, 0x43, 0xb6);
	set_count(m, 2, 4);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(count(m, 2), even[i]);
		assert_int_equal(out2(m), i % 4 < 2);
		clocks(m, 1);
	}
	/* Odd: high for (N + 1) / 2 clocks, low for (N - 1) / 2. */
	out(m, 0x43, 0xb6);
	set_count(m, 2, 5);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(count(m, 2), odd[i]);
		assert_int_equal(out2(m), i % 5 < 3);
		clocks(m, 1);
	}
	/* A new count waits for the end of the half-cycle: here the high one, so the low half is the new. */
	out(m, 0x42, 8);
	out(m, 0x42, 0);
	clocks(m, 2);
	assert_int_equal(count(m, 2), 0);
	assert_true(out2(m));
	clocks(m, 1);
	assert_int_equal(count(m, 2), 8);
	assert_false(out2(m));
	clocks(m, 3);
	assert_false(out2(m));
	clocks(m, 1);
	assert_true(out2(m));
	clocks(m, 3);
	assert_true(out2(m));
	clocks(m, 1);
	assert_false(out2(m));
}

static void pit_mode4_5(void **state)
{
	struct machine *m = *state;

	/* Software-triggered strobe. */
	out(m, 0x61, 1);
	out(m, 0x43, 0xb8);
	assert_true(out2(m));
	set_count(m, 2, 3);
	clocks(m, 2);
	assert_true(out2(m));
	clocks(m, 1);
	assert_false(out2(m)); /* N + 1 clocks after writing, for one clock */
	clocks(m, 1);
	assert_true(out2(m));
	assert_int_equal(count(m, 2), 0xffff);
	clocks(m, 65536);
	assert_true(out2(m)); /* once */
	set_count(m, 2, 3);   /* retriggered by a new count */
	assert_int_equal(count(m, 2), 3);
	/* Hardware-triggered strobe. */
	out(m, 0x61, 0);
	out(m, 0x43, 0xba);
	set_count(m, 2, 3);
	clocks(m, 10);
	out(m, 0x61, 1);
	clocks(m, 1 + 2);
	assert_true(out2(m));
	clocks(m, 1);
	assert_false(out2(m));
	clocks(m, 1);
	assert_true(out2(m));
	out(m, 0x61, 0); /* the level does not matter, the next edge triggers again */
	out(m, 0x61, 1);
	clocks(m, 1 + 3);
	assert_false(out2(m));
}

static void pit_bcd(void **state)
{
	struct machine *m = *state;

	out(m, 0x61, 1);
	out(m, 0x43, 0xb5);
	set_count(m, 2, 0x1000);
	assert_int_equal(count(m, 2), 0x1000);
	clocks(m, 1);
	assert_int_equal(count(m, 2), 0x0999);
	clocks(m, 998);
	assert_int_equal(count(m, 2), 0x0001);
	clocks(m, 1);
	assert_int_equal(count(m, 2), 0x1000);
	out(m, 0x43, 0xb1); /* mode 0 goes round through 9999; 0 is 10000 */
	set_count(m, 2, 0);
	assert_int_equal(count(m, 2), 0);
	clocks(m, 9999);
	assert_false(out2(m));
	assert_int_equal(count(m, 2), 1);
	clocks(m, 1);
	assert_true(out2(m));
	clocks(m, 1);
	assert_int_equal(count(m, 2), 0x9999);
	out(m, 0x43, 0xb5); /* a hostile count: digits above 9 */
	set_count(m, 2, 0xffff);
	assert_in_range(count(m, 2), 0, 0x9999);
}

static void pit_latches(void **state)
{
	struct machine *m = *state;

	out(m, 0x61, 1);
	out(m, 0x43, 0xb4);
	set_count(m, 2, 0x1234);
	/* A latch holds until it has been read; a second command changes nothing. */
	out(m, 0x43, 0x80);
	clocks(m, 0x100);
	out(m, 0x43, 0x80);
	assert_int_equal(in(m, 0x42), 0x34);
	clocks(m, 0x100);
	assert_int_equal(in(m, 0x42), 0x12);
	assert_int_equal(in(m, 0x42), 0x34); /* now the counter itself, still low byte first */
	assert_int_equal(in(m, 0x42), 0x10);
	/* Read-back of count and status: status first. */
	out(m, 0x43, 0xc8);
	clocks(m, 0x100);
	assert_int_equal(in(m, 0x42), 0xb4);
	assert_int_equal(in(m, 0x42), 0x34);
	assert_int_equal(in(m, 0x42), 0x10);
	assert_int_equal(in(m, 0x42), 0x34);
	assert_int_equal(in(m, 0x42), 0x0f);
	/* Several counters at one moment. */
	out(m, 0x43, 0x34);
	set_count(m, 0, 0x1000);
	out(m, 0x43, 0xb4);
	set_count(m, 2, 0x1000);
	out(m, 0x43, 0xda); /* counters 0 and 2, count only */
	clocks(m, 77);
	assert_int_equal(in(m, 0x42), 0x00);
	assert_int_equal(in(m, 0x42), 0x10);
	in(m, 0x40);
	in(m, 0x40);
	/* A control word drops latches and the byte order. */
	out(m, 0x43, 0x80);
	out(m, 0x43, 0xb4);
	set_count(m, 2, 0x5678);
	assert_int_equal(in(m, 0x42), 0x78);
	out(m, 0x43, 0xb4);
	set_count(m, 2, 0x5678);
	assert_int_equal(in(m, 0x42), 0x78);
	assert_int_equal(in(m, 0x42), 0x56);
	/* One byte only: low, high. */
	out(m, 0x43, 0x94);
	out(m, 0x42, 0x80);
	clocks(m, 1);
	assert_int_equal(in(m, 0x42), 0x80);
	assert_int_equal(in(m, 0x42), 0x80);
	out(m, 0x43, 0xa4);
	out(m, 0x42, 0x80);
	clocks(m, 2);
	assert_int_equal(in(m, 0x42), 0x7f);
	assert_int_equal(status(m, 2), 0xa4);
	/* The control port does not answer; modes 6 and 7 are 2 and 3. */
	assert_int_equal(in(m, 0x43), 0);
	out(m, 0x43, 0xbe);
	set_count(m, 2, 4);
	clocks(m, 2);
	assert_false(out2(m));
	assert_int_equal(status(m, 2), 0x3e);
}

static void pit_port_b(void **state)
{
	struct machine *m = *state;
	unsigned toggles = 0;
	uint8_t last = in(m, 0x61) & 0x10;

	out(m, 0x61, 0xff);
	assert_int_equal(in(m, 0x61) & 0xcf, 0x0f);
	for (unsigned i = 0; i < 1000; i++) { /* a refresh every 15 us */
		fake_clock_advance(m, US);
		toggles += (in(m, 0x61) & 0x10) != last;
		last = in(m, 0x61) & 0x10;
	}
	assert_in_range(toggles, 65, 67);
}

static void pit_irq_one_shot(void **state)
{
	struct machine *m = *state;
	unsigned rises;

	out(m, 0x43, 0x30);
	assert_false(fake_irq_level(m, 0));
	rises = fake_irq_rises(m, 0);
	set_count(m, 0, 1193);
	clocks(m, 1192);
	assert_false(fake_irq_level(m, 0));
	clocks(m, 1);
	assert_true(fake_irq_level(m, 0));
	assert_int_equal(fake_irq_rises(m, 0), rises + 1);
	fake_clock_advance(m, SEC);
	assert_int_equal(fake_irq_rises(m, 0), rises + 1);
	/* Mode 4, as an operating system uses it: count after count. */
	out(m, 0x43, 0x38);
	rises = fake_irq_rises(m, 0);
	for (unsigned i = 0; i < 10; i++) {
		set_count(m, 0, 100);
		clocks(m, 99);
		assert_int_equal(fake_irq_rises(m, 0), rises + i);
		clocks(m, 2);
		assert_int_equal(fake_irq_rises(m, 0), rises + i + 1);
	}
	/* Overtaken by a new count before the timer got to run: the edge is there all the same. */
	set_count(m, 0, 100);
	rises = fake_irq_rises(m, 0);
	fake_clock_skip(m, 200 * US);
	set_count(m, 0, 100);
	assert_int_equal(fake_irq_rises(m, 0), rises + 1);
	clocks(m, 101);
	assert_int_equal(fake_irq_rises(m, 0), rises + 2);
}

static void pit_irq_periodic(void **state)
{
	struct machine *m = *state;
	unsigned rises = fake_irq_rises(m, 0);

	/* Power-on: 18.2 Hz. */
	fake_clock_advance(m, 10 * SEC);
	assert_int_equal(fake_irq_rises(m, 0) - rises, 182);
	/* No drift: an hour of HZ=250 has exactly as many ticks as its clocks allow. */
	out(m, 0x43, 0x34);
	set_count(m, 0, 4773);
	rises = fake_irq_rises(m, 0);
	fake_clock_advance(m, 3600 * SEC);
	assert_int_equal(fake_irq_rises(m, 0) - rises, 3600ull * PIT_HZ / 4773);
	/* Mode 3, odd. */
	out(m, 0x43, 0x36);
	set_count(m, 0, 1193);
	rises = fake_irq_rises(m, 0);
	fake_clock_advance(m, SEC);
	assert_int_equal(fake_irq_rises(m, 0) - rises, PIT_HZ / 1193);
	/* A new count: the old period ends first. */
	rises = fake_irq_rises(m, 0);
	while (fake_irq_rises(m, 0) == rises)
		clocks(m, 1);
	rises++;
	out(m, 0x40, 0);
	out(m, 0x40, 0x40);
	clocks(m, 1192);
	assert_int_equal(fake_irq_rises(m, 0), rises);
	clocks(m, 1); /* mode 3, high half: the low half is of the new count, 0x2000 clocks */
	assert_int_equal(fake_irq_rises(m, 0), rises);
	clocks(m, 597 + 0x2000 - 1193 - 1);
	assert_int_equal(fake_irq_rises(m, 0), rises);
	clocks(m, 1);
	assert_int_equal(fake_irq_rises(m, 0), rises + 1);
	clocks(m, 0x4000);
	assert_int_equal(fake_irq_rises(m, 0), rises + 2);
}

static void pit_lost_ticks(void **state)
{
	struct machine *m = *state;
	unsigned rises;

	out(m, 0x43, 0x34);
	set_count(m, 0, 1193); /* about 1 ms */
	rises = fake_irq_rises(m, 0);
	fake_clock_jump(m, 20 * MS + 500 * US);
	assert_int_equal(fake_irq_rises(m, 0), rises + 1); /* late, and one at a time */
	fake_clock_advance(m, 2 * MS);
	assert_in_range(fake_irq_rises(m, 0) - rises, 8, 10); /* four times the rate meanwhile */
	fake_clock_advance(m, 10 * MS);
	assert_int_equal(fake_irq_rises(m, 0) - rises, 32);
	fake_clock_advance(m, 10 * MS);
	assert_int_equal(fake_irq_rises(m, 0) - rises, 42); /* and the old rate again */
	/* A second's worth at most. */
	rises = fake_irq_rises(m, 0);
	fake_clock_jump(m, 3600 * SEC);
	fake_clock_advance(m, SEC);
	assert_in_range(fake_irq_rises(m, 0) - rises, 1990, 2005);
	/* Programming anew forgets what was owed. */
	fake_clock_jump(m, 500 * MS);
	out(m, 0x43, 0x34);
	rises = fake_irq_rises(m, 0);
	set_count(m, 0, 1193);
	fake_clock_advance(m, 10 * MS);
	assert_int_equal(fake_irq_rises(m, 0) - rises, 10);
	/* A period of one clock does not occupy the host. */
	set_count(m, 0, 1);
	fake_clock_advance(m, 2 * MS);
	rises = fake_irq_rises(m, 0);
	fake_clock_advance(m, 100 * MS);
	assert_in_range(fake_irq_rises(m, 0) - rises, 1900, 2000);
	fake_machine_reset(m);
	rises = fake_irq_rises(m, 0);
	fake_clock_advance(m, SEC);
	assert_int_equal(fake_irq_rises(m, 0) - rises, 18);
}

/* ------------------------------------------------------------------ ACPI */

static void acpi_timer(void **state)
{
	struct machine *m = *state;
	uint32_t start = pio_read(m, ACPI_PM_TMR, 4), value;

	fake_clock_advance(m, SEC);
	assert_int_equal(pio_read(m, ACPI_PM_TMR, 4) - start, 3579545);
	fake_clock_advance(m, 3600 * SEC);
	value = pio_read(m, ACPI_PM_TMR, 4);
	assert_int_equal((uint32_t)(value - start), (uint32_t)(3601ull * 3579545));
	assert_int_equal(pio_read(m, ACPI_PM_TMR, 2), value & 0xffff);
	assert_int_equal(pio_read(m, ACPI_PM_TMR + 2, 2), value >> 16);
	pio_write(m, ACPI_PM_TMR, 0, 4); /* read-only */
	pio_write(m, 0xa79, 0xff, 1);	 /* a search for ISA Plug and Play cards */
	assert_int_equal(pio_read(m, ACPI_PM_TMR, 4), value);
	assert_int_equal(pio_read(m, 0x608, 4), value); /* as a PIIX4 has it */
	/* TMR_STS at each change of bit 23. */
	pio_write(m, ACPI_PM1A_EVT, 0x0001, 2);
	assert_int_equal(pio_read(m, ACPI_PM1A_EVT, 2), 0);
	pio_write(m, ACPI_PM1A_EVT + 2, 0x0001, 2);
	assert_false(fake_irq_level(m, ACPI_SCI_IRQ));
	fake_clock_advance(m, 2400 * MS);
	assert_true(fake_irq_level(m, ACPI_SCI_IRQ));
	assert_int_equal(pio_read(m, ACPI_PM1A_EVT, 2), 0x0001);
	pio_write(m, ACPI_PM1A_EVT, 0x0001, 2);
	assert_false(fake_irq_level(m, ACPI_SCI_IRQ));
	fake_clock_advance(m, 2400 * MS);
	assert_true(fake_irq_level(m, ACPI_SCI_IRQ));
	fake_machine_reset(m);
	assert_false(fake_irq_level(m, ACPI_SCI_IRQ));
}

static void acpi_events(void **state)
{
	struct machine *m = *state;

	assert_int_equal(pio_read(m, ACPI_PM1A_CNT, 2), 0x0001); /* SCI_EN */
	pio_write(m, ACPI_PM1A_CNT, 0, 2);
	assert_int_equal(pio_read(m, ACPI_PM1A_CNT, 2), 0x0001);
	machine_lock(m);
	acpi_pm_power_button(m);
	machine_unlock(m);
	assert_int_equal(pio_read(m, ACPI_PM1A_EVT, 2), 0x0100);
	assert_false(fake_irq_level(m, ACPI_SCI_IRQ)); /* not enabled */
	pio_write(m, ACPI_PM1A_EVT + 2, 0xffff, 2);
	assert_int_equal(pio_read(m, ACPI_PM1A_EVT + 2, 2), 0x0721);
	assert_true(fake_irq_level(m, ACPI_SCI_IRQ));
	pio_write(m, ACPI_PM1A_EVT, 0x0001, 2); /* another bit */
	assert_true(fake_irq_level(m, ACPI_SCI_IRQ));
	out(m, ACPI_PM1A_EVT + 1, 0x01); /* bytes do */
	assert_false(fake_irq_level(m, ACPI_SCI_IRQ));
	assert_int_equal(pio_read(m, ACPI_PM1A_EVT, 4), 0x07210000);
}

static void acpi_power_off(void **state)
{
	struct machine *m = *state;

	pio_write(m, ACPI_PM1A_CNT, 0x2000 | 3 << 10, 2); /* another sleep type */
	assert_int_equal(fake_poweroff_status(m), -1);
	pio_write(m, ACPI_PM1A_CNT, ACPI_S5_TYP << 10, 2); /* without SLP_EN */
	assert_int_equal(fake_poweroff_status(m), -1);
	assert_int_equal(pio_read(m, ACPI_PM1A_CNT, 2), ACPI_S5_TYP << 10 | 1);
	pio_write(m, ACPI_PM1A_CNT, 0x2000 | ACPI_S5_TYP << 10, 2);
	assert_int_equal(fake_poweroff_status(m), EXIT_POWEROFF);
}

/* ------------------------------------------------------------------ all of them */

/* Over ten seconds of odd steps, and after a day: the counters agree to one tick of each. */
static void clocks_agree(void **state)
{
	const uint64_t tick = 1000000000u / LAPIC_BUS_HZ;
	struct machine *m = *state;
	unsigned rises;
	uint32_t pm;
	uint64_t begin;

	out(m, 0x43, 0x34);
	set_count(m, 0, 1193);
	fake_clock_advance(m, 86400 * SEC + 12345);
	fake_mmio_write(m, LAPIC_GPA + 0x3e0, 0x3, 4); /* by 16 */
	rises = fake_irq_rises(m, 0);
	pm = pio_read(m, ACPI_PM_TMR, 4);
	begin = clock_ns(m);
	fake_mmio_write(m, LAPIC_GPA + 0x380, 0xffffffff, 4);
	while (clock_ns(m) < begin + 10 * SEC) {
		fake_clock_advance(m, 777777);
		uint64_t ns = clock_ns(m) - begin;
		uint64_t apic = (0xffffffffu - fake_mmio_read(m, LAPIC_GPA + 0x390, 4)) * 16ull * tick;
		uint64_t acpi = (uint32_t)(pio_read(m, ACPI_PM_TMR, 4) - pm) * SEC / 3579545;
		uint64_t pit = (fake_irq_rises(m, 0) - rises) * 1193ull * SEC / PIT_HZ;

		assert_in_range(apic, ns - 16 * tick, ns + tick);
		assert_in_range(acpi, ns - 280, ns + 280);
		assert_in_range(pit, ns < MS ? 0 : ns - MS, ns + MS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(pit_mode0),	TEST(pit_mode1),	TEST(pit_mode2),      TEST(pit_mode3),
		TEST(pit_mode4_5),	TEST(pit_bcd),		TEST(pit_latches),    TEST(pit_port_b),
		TEST(pit_irq_one_shot), TEST(pit_irq_periodic), TEST(pit_lost_ticks), TEST(acpi_timer),
		TEST(acpi_events),	TEST(acpi_power_off),	TEST(clocks_agree),
	};

	return cmocka_run_group_tests_name("irqtimer", tests, NULL, NULL);
}
