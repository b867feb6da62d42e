/* The real-time clock and CMOS memory against the MC146818A's data sheet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

#include "devices/device.h"
#include "devices/devices.h"
#include "tests/unit/fake_machine.h"

#define US  1000ull
#define MS  1000000ull
#define SEC 1000000000ull

static int setup(void **state)
{
	struct machine *m = fake_machine_create();

	mc146818_create(m);
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

static uint8_t cmos(struct machine *m, uint8_t index)
{
	out(m, 0x70, index);
	return in(m, 0x71);
}

static void cmos_set(struct machine *m, uint8_t index, uint8_t value)
{
	out(m, 0x70, index);
	out(m, 0x71, value);
}

/* BCD, 24 hours. The divider is released last: the first update comes 500 ms after. */
static void rtc_set(struct machine *m, uint8_t century, uint8_t year, uint8_t month, uint8_t date,
		    uint8_t hour, uint8_t minute, uint8_t second)
{
	cmos_set(m, 0x0b, 0x82);
	cmos_set(m, 0x0a, 0x66);
	cmos_set(m, 0x00, second);
	cmos_set(m, 0x02, minute);
	cmos_set(m, 0x04, hour);
	cmos_set(m, 0x07, date);
	cmos_set(m, 0x08, month);
	cmos_set(m, 0x09, year);
	cmos_set(m, 0x32, century);
	cmos_set(m, 0x0b, 0x02);
	cmos_set(m, 0x0a, 0x26);
}

static void rtc_expect(struct machine *m, uint8_t century, uint8_t year, uint8_t month, uint8_t date,
		       uint8_t hour, uint8_t minute, uint8_t second)
{
	assert_int_equal(cmos(m, 0x32), century);
	assert_int_equal(cmos(m, 0x09), year);
	assert_int_equal(cmos(m, 0x08), month);
	assert_int_equal(cmos(m, 0x07), date);
	assert_int_equal(cmos(m, 0x04), hour);
	assert_int_equal(cmos(m, 0x02), minute);
	assert_int_equal(cmos(m, 0x00), second);
}

static int bcd(uint8_t v)
{
	return (v >> 4) * 10 + (v & 15);
}

static void rtc_host_time(void **state)
{
	struct machine *m = *state;
	struct tm tm = {0};
	int64_t ahead;

	assert_int_equal(cmos(m, 0x0b), 0x02);
	assert_int_equal(cmos(m, 0x0d), 0x80);
	assert_int_equal(in(m, 0x70), 0xff);
	tm.tm_sec = bcd(cmos(m, 0x00));
	tm.tm_min = bcd(cmos(m, 0x02));
	tm.tm_hour = bcd(cmos(m, 0x04));
	tm.tm_mday = bcd(cmos(m, 0x07));
	tm.tm_mon = bcd(cmos(m, 0x08)) - 1;
	tm.tm_year = bcd(cmos(m, 0x32)) * 100 + bcd(cmos(m, 0x09)) - 1900;
	ahead = (int64_t)timegm(&tm) - (int64_t)time(NULL);
	assert_true(ahead <= 0 && ahead >= -5);
	assert_int_equal(cmos(m, 0x06), tm.tm_wday + 1);
}

static void rtc_calendar(void **state)
{
	struct machine *m = *state;

	rtc_set(m, 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58);
	rtc_expect(m, 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58);
	fake_clock_advance(m, 500 * MS - 1);
	assert_int_equal(cmos(m, 0x00), 0x58);
	fake_clock_advance(m, 1); /* half a second after the divider was released */
	assert_int_equal(cmos(m, 0x00), 0x59);
	fake_clock_advance(m, SEC);
	rtc_expect(m, 0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00);
	/* Leap years: 2000 and 2024 are, 2023 and 2100 are not. */
	rtc_set(m, 0x20, 0x00, 0x02, 0x28, 0x23, 0x59, 0x59);
	fake_clock_advance(m, SEC);
	rtc_expect(m, 0x20, 0x00, 0x02, 0x29, 0x00, 0x00, 0x00);
	rtc_set(m, 0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x59);
	fake_clock_advance(m, SEC);
	rtc_expect(m, 0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00);
	rtc_set(m, 0x20, 0x23, 0x02, 0x28, 0x23, 0x59, 0x59);
	fake_clock_advance(m, SEC);
	rtc_expect(m, 0x20, 0x23, 0x03, 0x01, 0x00, 0x00, 0x00);
	rtc_set(m, 0x21, 0x00, 0x02, 0x28, 0x23, 0x59, 0x59);
	fake_clock_advance(m, SEC);
	rtc_expect(m, 0x21, 0x00, 0x03, 0x01, 0x00, 0x00, 0x00);
	/* The day of the week is what was set, and goes on from there. */
	cmos_set(m, 0x06, 7);
	fake_clock_advance(m, 86400 * SEC);
	assert_int_equal(cmos(m, 0x06), 1);
	/* From a day 31 to February, month first: nothing runs over while SET holds the time. */
	rtc_set(m, 0x20, 0x24, 0x01, 0x31, 0x10, 0x00, 0x00);
	cmos_set(m, 0x0b, 0x82);
	cmos_set(m, 0x08, 0x02);
	assert_int_equal(cmos(m, 0x07), 0x31);
	cmos_set(m, 0x07, 0x15);
	cmos_set(m, 0x0b, 0x02);
	rtc_expect(m, 0x20, 0x24, 0x02, 0x15, 0x10, 0x00, 0x00);
	/* A machine reset changes neither time nor memory. */
	cmos_set(m, 0x40, 0x5a);
	fake_machine_reset(m);
	rtc_expect(m, 0x20, 0x24, 0x02, 0x15, 0x10, 0x00, 0x00);
	assert_int_equal(cmos(m, 0x40), 0x5a);
}

static void rtc_formats(void **state)
{
	struct machine *m = *state;

	rtc_set(m, 0x20, 0x24, 0x10, 0x25, 0x00, 0x45, 0x59);
	cmos_set(m, 0x0b, 0x00);	       /* BCD, 12 hours */
	assert_int_equal(cmos(m, 0x04), 0x12); /* 12 AM is midnight */
	cmos_set(m, 0x04, 0x92);
	assert_int_equal(cmos(m, 0x04), 0x92); /* 12 PM is noon */
	cmos_set(m, 0x0b, 0x02);
	assert_int_equal(cmos(m, 0x04), 0x12);
	cmos_set(m, 0x0b, 0x00);
	cmos_set(m, 0x04, 0x91);
	cmos_set(m, 0x0b, 0x02);
	assert_int_equal(cmos(m, 0x04), 0x23);
	cmos_set(m, 0x0b, 0x06); /* binary, 24 hours */
	assert_int_equal(cmos(m, 0x04), 23);
	assert_int_equal(cmos(m, 0x02), 45);
	assert_int_equal(cmos(m, 0x00), 59);
	assert_int_equal(cmos(m, 0x07), 25);
	assert_int_equal(cmos(m, 0x09), 24);
	assert_int_equal(cmos(m, 0x32), 0x20); /* the century stays BCD */
	cmos_set(m, 0x0b, 0x04);	       /* binary, 12 hours */
	assert_int_equal(cmos(m, 0x04), 0x80 | 11);
}

static void rtc_update(void **state)
{
	struct machine *m = *state;

	rtc_set(m, 0x20, 0x24, 0x01, 0x01, 0x00, 0x00, 0x00);
	cmos(m, 0x0c);
	/* UIP: 244 us of warning and 1984 us of update before the registers change. */
	fake_clock_advance(m, 500 * MS - 2228 * US - 1);
	assert_int_equal(cmos(m, 0x0a), 0x26);
	fake_clock_advance(m, 1);
	assert_int_equal(cmos(m, 0x0a), 0xa6);
	assert_int_equal(cmos(m, 0x00), 0x00);
	assert_int_equal(cmos(m, 0x0c) & 0x10, 0);
	fake_clock_advance(m, 2228 * US - 1);
	assert_int_equal(cmos(m, 0x0a), 0xa6);
	fake_clock_advance(m, 1);
	assert_int_equal(cmos(m, 0x0a), 0x26);
	assert_int_equal(cmos(m, 0x00), 0x01);
	assert_int_equal(cmos(m, 0x0c) & 0x90, 0x10); /* update ended; not enabled, so no IRQF */
	assert_int_equal(cmos(m, 0x0c) & 0x10, 0);
	assert_false(fake_irq_level(m, 8));
	/* The interrupt: once a second, line high until C is read. */
	cmos_set(m, 0x0b, 0x12);
	fake_clock_advance(m, SEC);
	assert_true(fake_irq_level(m, 8));
	assert_int_equal(cmos(m, 0x0c) & 0x90, 0x90);
	assert_false(fake_irq_level(m, 8));
	fake_clock_advance(m, 5 * SEC); /* unread: one */
	assert_int_equal(fake_irq_rises(m, 8), 2);
	cmos(m, 0x0c);
	/* SET stops the time, forbids UIP and clears UIE; the divider goes on under it. */
	cmos_set(m, 0x0b, 0x92);
	assert_int_equal(cmos(m, 0x0b), 0x82);
	fake_clock_advance(m, 10 * SEC + 999 * MS);
	assert_int_equal(cmos(m, 0x0a), 0x26);
	assert_int_equal(cmos(m, 0x00), 0x07);
	assert_int_equal(cmos(m, 0x0c) & 0x10, 0);
	cmos_set(m, 0x0b, 0x02);
	fake_clock_advance(m, MS);
	assert_int_equal(cmos(m, 0x00), 0x08);
	/* A flag that is up when its interrupt is enabled raises it at once. */
	cmos_set(m, 0x0b, 0x12);
	assert_true(fake_irq_level(m, 8));
	fake_machine_reset(m);
	assert_false(fake_irq_level(m, 8));
	assert_int_equal(cmos(m, 0x0b), 0x02);
}

static void rtc_alarm(void **state)
{
	struct machine *m = *state;

	rtc_set(m, 0x20, 0x24, 0x01, 0x01, 0x08, 0x30, 0x00);
	cmos_set(m, 0x05, 0x07);
	cmos_set(m, 0x03, 0x15);
	cmos_set(m, 0x01, 0x10);
	cmos(m, 0x0c);
	cmos_set(m, 0x0b, 0x22);
	fake_clock_advance(m, (22 * 3600 + 45 * 60 + 9) * SEC + 499 * MS);
	assert_false(fake_irq_level(m, 8));
	fake_clock_advance(m, MS); /* 07:15:10 of the next day */
	assert_int_equal(cmos(m, 0x00), 0x10);
	assert_true(fake_irq_level(m, 8));
	assert_int_equal(cmos(m, 0x0c) & 0xb0, 0xb0);
	fake_clock_advance(m, 86400 * SEC - 1);
	assert_false(fake_irq_level(m, 8));
	fake_clock_advance(m, 1);
	assert_true(fake_irq_level(m, 8));
	cmos(m, 0x0c);
	/* Don't care in hours and minutes: once a minute. In all: once a second. */
	cmos_set(m, 0x05, 0xc0);
	cmos_set(m, 0x03, 0xff);
	fake_clock_advance(m, 60 * SEC - 1);
	assert_false(fake_irq_level(m, 8));
	fake_clock_advance(m, 1);
	assert_true(fake_irq_level(m, 8));
	cmos(m, 0x0c);
	cmos_set(m, 0x01, 0xc0);
	fake_clock_advance(m, SEC);
	assert_true(fake_irq_level(m, 8));
	cmos(m, 0x0c);
	/* A time that never comes. */
	cmos_set(m, 0x05, 0x25);
	fake_clock_advance(m, 3 * 86400 * SEC);
	assert_false(fake_irq_level(m, 8));
	/* Without the interrupt the flag is there when looked for. */
	cmos_set(m, 0x0b, 0x02);
	cmos_set(m, 0x05, 0x12);
	cmos_set(m, 0x03, 0x00);
	cmos_set(m, 0x01, 0x00);
	cmos(m, 0x0c);
	fake_clock_advance(m, 86400 * SEC);
	assert_int_equal(cmos(m, 0x0c) & 0xa0, 0x20);
}

static void rtc_periodic(void **state)
{
	struct machine *m = *state;
	static const struct {
		uint8_t rs;
		unsigned hz;
	} rates[] = {{1, 256}, {2, 128}, {3, 8192}, {6, 1024}, {10, 64}, {15, 2}};

	for (unsigned i = 0; i < sizeof rates / sizeof *rates; i++) {
		unsigned flags = 0;

		cmos_set(m, 0x0a, 0x20 | rates[i].rs);
		cmos_set(m, 0x0b, 0x42);
		cmos(m, 0x0c);
		for (uint64_t end = clock_ns(m) + SEC; clock_ns(m) < end;) {
			uint64_t next = fake_timer_next(m);

			if (next > end)
				next = end;
			fake_clock_advance(m, next - clock_ns(m));
			if (fake_irq_level(m, 8)) {
				assert_int_equal(cmos(m, 0x0c) & 0xc0, 0xc0);
				flags++;
			}
		}
		assert_in_range(flags, rates[i].hz - 1, rates[i].hz + 1);
	}
	cmos_set(m, 0x0a, 0x20); /* rate 0: none */
	cmos(m, 0x0c);
	fake_clock_advance(m, SEC);
	assert_int_equal(cmos(m, 0x0c) & 0x40, 0);
	cmos_set(m, 0x0a, 0x66); /* divider in reset: none, and the time stands */
	cmos(m, 0x0c);
	fake_clock_advance(m, 2 * SEC);
	assert_int_equal(cmos(m, 0x0c), 0);
	/* SET does not stop the periodic interrupt. */
	cmos_set(m, 0x0a, 0x26);
	cmos_set(m, 0x0b, 0xc2);
	fake_clock_advance(m, 2 * MS);
	assert_true(fake_irq_level(m, 8));
}

static void cmos_memory(void **state)
{
	struct machine *m = *state;
	unsigned sum = 0;

	assert_int_equal(cmos(m, 0x15) | cmos(m, 0x16) << 8, 640);
	assert_int_equal(cmos(m, 0x17) | cmos(m, 0x18) << 8, 63 * 1024);
	assert_int_equal(cmos(m, 0x30) | cmos(m, 0x31) << 8, 63 * 1024);
	assert_int_equal(cmos(m, 0x34) | cmos(m, 0x35) << 8, 48 * 16);
	for (unsigned i = 0x10; i <= 0x2d; i++)
		sum += cmos(m, (uint8_t)i);
	assert_int_equal(cmos(m, 0x2e) << 8 | cmos(m, 0x2f), sum);
	cmos_set(m, 0x0c, 0xff); /* C and D are read-only */
	cmos_set(m, 0x0d, 0x00);
	assert_int_equal(cmos(m, 0x0d), 0x80);
	cmos_set(m, 0x80 | 0x7f, 0x12); /* bit 7 of the index masks NMIs */
	assert_int_equal(cmos(m, 0x7f), 0x12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(rtc_host_time), TEST(rtc_calendar), TEST(rtc_formats), TEST(rtc_update),
		TEST(rtc_alarm),     TEST(rtc_periodic), TEST(cmos_memory),
	};

	return cmocka_run_group_tests_name("mc146818", tests, NULL, NULL);
}
