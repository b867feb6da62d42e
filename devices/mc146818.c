/* mc146818.c - real-time clock and CMOS memory (Motorola MC146818A, as in a PC), ports 0x70 and 0x71.
 *
 * The calendar starts as the host's UTC and then goes by clock_ns, like every other clock of the machine. It
 * is kept as a number of seconds and the time at which that second began, so nothing ticks: registers, the
 * update-in-progress bit and the flags of register C are computed when the guest looks, and a timer runs only
 * while an interrupt that is enabled can come.
 *
 * A second, as the guest sees it: the registers change at its start, at which the update-ended flag is raised
 * (and the alarm flag, if the new time matches). UIP is high for the 2228 us before: 244 us of warning and
 * 1984 us of update cycle with a 32768 Hz time base (data sheet, table 6). The registers hold the old time
 * until the end of the cycle.
 *
 * Setting. While SET in register B is 1, or the divider in register A is not running, the time stands still.
 * When SET is cleared it goes on with the next second; when the divider is released from reset, the first
 * update comes 500 ms later. A time register written while the clock runs takes effect at once. The guest's
 * clock is its own: the host's never changes.
 *
 * The periodic interrupt is derived from the same divider. Flags are latched as they come and all cleared by
 * reading register C, so a guest that reads late loses ticks, as on hardware. Line 8 follows IRQF.
 *
 * At a machine reset, as after RESET on a board with a battery, time and memory stay and the interrupt
 * enables are cleared.
 */
#include "devices/device.h"
#include "devices/devices.h"

#include <time.h>

#define RTC_PORT 0x70
#define RTC_LINE 8

/* The index register holds 7 bits; bit 7 of port 0x70 masks NMIs from the board, of which there are none. */
#define INDEX_MASK	  0x7f

#define RTC_SECONDS	  0x00
#define RTC_SECONDS_ALARM 0x01
#define RTC_MINUTES	  0x02
#define RTC_MINUTES_ALARM 0x03
#define RTC_HOURS	  0x04
#define RTC_HOURS_ALARM	  0x05
#define RTC_DAY_OF_WEEK	  0x06 /* 1: Sunday */
#define RTC_DATE	  0x07
#define RTC_MONTH	  0x08
#define RTC_YEAR	  0x09
#define RTC_A		  0x0a
#define RTC_B		  0x0b
#define RTC_C		  0x0c
#define RTC_D		  0x0d
#define CMOS_EQUIPMENT	  0x14
#define CMOS_BASE_LOW	  0x15 /* KiB below 640 KiB, 16 bits */
#define CMOS_EXT_LOW	  0x17 /* KiB above 1 MiB, 16 bits */
#define CMOS_SUM_FIRST	  0x10 /* what the checksum covers */
#define CMOS_SUM_LAST	  0x2d
#define CMOS_SUM_HIGH	  0x2e
#define CMOS_EXT2_LOW	  0x30 /* as CMOS_EXT_LOW, found by the power-on test */
#define RTC_CENTURY	  0x32
#define CMOS_EXT16_LOW	  0x34 /* 64 KiB above 16 MiB, 16 bits */

#define A_UIP		  0x80
#define A_DV(v)		  ((v) >> 4 & 7)
#define A_RS(v)		  ((v)&15)
#define DV_RUNNING	  2 /* 32768 Hz time base; other values stop or reset the divider */

#define B_SET		  0x80
#define B_PIE		  0x40
#define B_AIE		  0x20
#define B_UIE		  0x10
#define B_SQWE		  0x08
#define B_DM		  0x04 /* binary */
#define B_24H		  0x02
#define B_DSE		  0x01
#define C_IRQF		  0x80
#define C_PF		  0x40
#define C_AF		  0x20
#define C_UF		  0x10
#define D_VRT		  0x80
#define HOUR_PM		  0x80 /* 12-hour mode */

#define ALARM_ANY	  0xc0 /* an alarm register with both bits set matches anything */

#define BASE_HZ		  32768u
#define UIP_NS		  2228000u
#define HALF_SECOND	  500000000u
#define DAY		  86400
#define EQUIPMENT	  0x02 /* a floating-point unit; no diskettes, no display */

struct calendar {
	int second, minute, hour, weekday, date, month; /* weekday: 0 is Sunday */
	int64_t year;
};

struct mc146818 {
	struct machine *machine;
	uint8_t index;
	uint8_t ram[128]; /* the time registers, C and D in here are not used */
	uint8_t flags;	  /* register C without IRQF */

	/* Running: a second began at clock_ns == phase, the one that is base seconds after 1970. Stopped: the
	 * registers stand as they are in still; the divider and with it phase may go on. */
	int64_t phase;
	int64_t base;
	int weekday_shift; /* what the guest's day of the week is ahead of the calendar's */
	bool stopped;
	struct calendar still;

	int64_t seen; /* clock_ns up to which flags are known */
	struct vtimer timer;
};

/* ------------------------------------------------------------------ calendar */

static int64_t divide_down(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/* Days since 1970-01-01 of a date in the Gregorian calendar; March is the year's first month here, so that
 * the leap day is its last. Any month and date: what is too large runs over into the next. */
static int64_t days_from_date(int64_t year, int month, int date)
{
	int64_t era_year, era;

	year += divide_down(month - 3, 12);
	month = (int)(month - 3 - divide_down(month - 3, 12) * 12);
	era = divide_down(year, 400);
	era_year = year - era * 400;
	return era * 146097 + era_year * 365 + era_year / 4 - era_year / 100 + (153 * month + 2) / 5 + date -
	       1 - 719468;
}

static void calendar_from_seconds(int64_t seconds, struct calendar *t)
{
	int64_t days = divide_down(seconds, DAY);
	int in_day = (int)(seconds - days * DAY);
	int64_t d = days + 719468;
	int64_t era = divide_down(d, 146097);
	int64_t era_day = d - era * 146097;
	int64_t era_year = (era_day - era_day / 1460 + era_day / 36524 - era_day / 146096) / 365;
	int year_day = (int)(era_day - (365 * era_year + era_year / 4 - era_year / 100));
	int month = (5 * year_day + 2) / 153;

	t->second = in_day % 60;
	t->minute = in_day / 60 % 60;
	t->hour = in_day / 3600;
	t->weekday = (int)(days + 4 - divide_down(days + 4, 7) * 7);
	t->date = year_day - (153 * month + 2) / 5 + 1;
	t->month = month < 10 ? month + 3 : month - 9;
	t->year = era * 400 + era_year + (t->month <= 2);
}

static int64_t calendar_to_seconds(const struct calendar *t)
{
	return days_from_date(t->year, t->month, t->date) * DAY + t->hour * 3600 + t->minute * 60 + t->second;
}

/* ------------------------------------------------------------------ the clock */

static int64_t now_ns(const struct mc146818 *r)
{
	return (int64_t)clock_ns(r->machine);
}

/* While running: the second of 1970 on at time ns. */
static int64_t second_at(const struct mc146818 *r, int64_t ns)
{
	return r->base + (ns - r->phase) / NS_PER_SEC;
}

static bool divider_running(const struct mc146818 *r)
{
	return A_DV(r->ram[RTC_A]) == DV_RUNNING;
}

static bool update_in_progress(const struct mc146818 *r, int64_t now)
{
	return !r->stopped && (now - r->phase) % NS_PER_SEC >= NS_PER_SEC - UIP_NS;
}

static void clock_stop(struct mc146818 *r, int64_t now)
{
	calendar_from_seconds(second_at(r, now), &r->still);
	r->still.weekday = (r->still.weekday + r->weekday_shift) % 7;
	r->stopped = true;
}

static void clock_go_on(struct mc146818 *r, int64_t now)
{
	struct calendar t;

	r->phase += (now - r->phase) / NS_PER_SEC * NS_PER_SEC;
	r->base = calendar_to_seconds(&r->still);
	calendar_from_seconds(r->base, &t);
	r->weekday_shift = (r->still.weekday % 7 - t.weekday + 7) % 7;
	r->stopped = false;
}

/* ------------------------------------------------------------------ encodings */

static uint8_t encode(const struct mc146818 *r, int v)
{
	return (uint8_t)(r->ram[RTC_B] & B_DM ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct mc146818 *r, uint8_t v)
{
	return r->ram[RTC_B] & B_DM ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct mc146818 *r, int hour)
{
	if (r->ram[RTC_B] & B_24H)
		return encode(r, hour);
	return encode(r, (hour + 11) % 12 + 1) | (hour >= 12 ? HOUR_PM : 0);
}

static int decode_hour(const struct mc146818 *r, uint8_t v)
{
	if (r->ram[RTC_B] & B_24H)
		return decode(r, v);
	return decode(r, v & (uint8_t)~HOUR_PM) % 12 + (v & HOUR_PM ? 12 : 0);
}

static uint8_t time_read(const struct mc146818 *r, uint8_t index, int64_t now)
{
	struct calendar t = r->still;

	if (!r->stopped) {
		calendar_from_seconds(second_at(r, now), &t);
		t.weekday = (t.weekday + r->weekday_shift) % 7;
	}
	switch (index) {
	case RTC_SECONDS:
		return encode(r, t.second);
	case RTC_MINUTES:
		return encode(r, t.minute);
	case RTC_HOURS:
		return encode_hour(r, t.hour);
	case RTC_DAY_OF_WEEK:
		return encode(r, t.weekday + 1);
	case RTC_DATE:
		return encode(r, t.date);
	case RTC_MONTH:
		return encode(r, t.month);
	case RTC_YEAR:
		return encode(r, (int)(t.year % 100));
	default: /* the century is BCD whatever register B says: firmware keeps it, not the clock */
		return (uint8_t)(t.year / 1000 % 10 << 4 | t.year / 100 % 10);
	}
}

/* Changes the time that stands still. Values out of range are kept, and run over into the next unit when the
 * clock goes on. */
static void still_write(struct mc146818 *r, uint8_t index, uint8_t value)
{
	struct calendar *t = &r->still;

	switch (index) {
	case RTC_SECONDS:
		t->second = decode(r, value);
		break;
	case RTC_MINUTES:
		t->minute = decode(r, value);
		break;
	case RTC_HOURS:
		t->hour = decode_hour(r, value);
		break;
	case RTC_DAY_OF_WEEK:
		t->weekday = (decode(r, value) + 6) % 7;
		break;
	case RTC_DATE:
		t->date = decode(r, value);
		break;
	case RTC_MONTH:
		t->month = decode(r, value);
		break;
	case RTC_YEAR:
		t->year = t->year / 100 * 100 + decode(r, value);
		break;
	default:
		t->year = ((value >> 4) * 10 + (value & 15)) * 100 + t->year % 100;
		break;
	}
}

static void time_write(struct mc146818 *r, uint8_t index, uint8_t value, int64_t now)
{
	bool running = !r->stopped;

	if (running)
		clock_stop(r, now);
	still_write(r, index, value);
	if (running)
		clock_go_on(r, now);
}

/* ------------------------------------------------------------------ interrupts */

/* Base clocks between periodic interrupts, 0 for none (data sheet, table 5). */
static uint32_t periodic_clocks(const struct mc146818 *r)
{
	unsigned rs = A_RS(r->ram[RTC_A]);

	if (!divider_running(r) || rs == 0)
		return 0;
	return rs <= 2 ? 64u << rs : 1u << (rs - 1);
}

static uint64_t periodic_count(const struct mc146818 *r, int64_t ns)
{
	return device_ns_to_ticks((uint64_t)(ns - r->phase), BASE_HZ) / periodic_clocks(r);
}

static bool alarm_has(uint8_t alarm, int wanted, int value)
{
	return alarm >= ALARM_ANY || wanted == value;
}

/* The first second after the given one at which the alarm matches; INT64_MAX if it never does. Goes on by
 * hours, then minutes, then seconds, so that a day takes few steps. */
static int64_t alarm_after(const struct mc146818 *r, int64_t second)
{
	uint8_t hours = r->ram[RTC_HOURS_ALARM], minutes = r->ram[RTC_MINUTES_ALARM];
	uint8_t seconds = r->ram[RTC_SECONDS_ALARM];
	int hour = decode_hour(r, hours), minute = decode(r, minutes), sec = decode(r, seconds);
	int64_t t = second + 1;

	while (t <= second + DAY) {
		int in_day = (int)(t - divide_down(t, DAY) * DAY);

		if (!alarm_has(hours, hour, in_day / 3600))
			t += 3600 - in_day % 3600;
		else if (!alarm_has(minutes, minute, in_day / 60 % 60))
			t += 60 - in_day % 60;
		else if (!alarm_has(seconds, sec, in_day % 60))
			t++;
		else
			return t;
	}
	return INT64_MAX;
}

/* Raises the flags for what has happened up to now. */
static void flags_update(struct mc146818 *r, int64_t now)
{
	if (periodic_clocks(r) && periodic_count(r, r->seen) != periodic_count(r, now))
		r->flags |= C_PF;
	if (!r->stopped && second_at(r, r->seen) != second_at(r, now)) {
		r->flags |= C_UF;
		if (!(r->flags & C_AF) && alarm_after(r, second_at(r, r->seen)) <= second_at(r, now))
			r->flags |= C_AF;
	}
	r->seen = now;
}

static bool interrupt_request(const struct mc146818 *r)
{
	return r->flags & r->ram[RTC_B] & (C_PF | C_AF | C_UF);
}

/* The earliest time at which a flag whose interrupt is enabled will be raised. */
static uint64_t next_interrupt(const struct mc146818 *r, int64_t now)
{
	uint8_t wanted = r->ram[RTC_B] & (uint8_t)~r->flags;
	int64_t next = INT64_MAX;

	if ((wanted & B_PIE) && periodic_clocks(r))
		next = r->phase + (int64_t)device_ticks_to_ns(
					  (periodic_count(r, now) + 1) * periodic_clocks(r), BASE_HZ);
	if (!r->stopped && (wanted & (B_UIE | B_AIE))) {
		int64_t second = second_at(r, now);
		int64_t at = wanted & B_UIE ? second + 1 : alarm_after(r, second);

		if (at != INT64_MAX && r->phase + (at - r->base) * NS_PER_SEC < next)
			next = r->phase + (at - r->base) * NS_PER_SEC;
	}
	return next == INT64_MAX ? UINT64_MAX : (uint64_t)next;
}

/* After anything that may have changed when, or whether, an interrupt comes. */
static void line_update(struct mc146818 *r, int64_t now)
{
	bool high = interrupt_request(r);

	irq_set(r->machine, RTC_LINE, high);
	if (high)
		vtimer_disarm(&r->timer); /* nothing can be added before register C has been read */
	else
		vtimer_arm(&r->timer, next_interrupt(r, now));
}

static void rtc_timer(void *opaque)
{
	struct mc146818 *r = opaque;
	int64_t now = now_ns(r);

	flags_update(r, now);
	line_update(r, now);
}

/* ------------------------------------------------------------------ registers */

static void control_write(struct mc146818 *r, uint8_t a, uint8_t b, int64_t now)
{
	bool ran = divider_running(r), stopped;

	if ((b & B_SET) && !(r->ram[RTC_B] & B_SET))
		b &= (uint8_t)~B_UIE; /* "the SET bit going high clears the UIE bit" */
	stopped = (b & B_SET) || A_DV(a) != DV_RUNNING;
	if (stopped && !r->stopped)
		clock_stop(r, now);
	r->ram[RTC_A] = a & (uint8_t)~A_UIP;
	r->ram[RTC_B] = b;
	if (!ran && divider_running(r))
		r->phase = now - HALF_SECOND;
	if (!stopped && r->stopped)
		clock_go_on(r, now);
}

static bool is_time(uint8_t index)
{
	return index == RTC_CENTURY || (index <= RTC_YEAR && index != RTC_SECONDS_ALARM &&
					index != RTC_MINUTES_ALARM && index != RTC_HOURS_ALARM);
}

static uint8_t status_c_read(struct mc146818 *r, int64_t now)
{
	uint8_t value = r->flags | (interrupt_request(r) ? C_IRQF : 0);

	r->flags = 0;
	line_update(r, now);
	return value;
}

static uint32_t rtc_read(void *opaque, uint32_t offset, unsigned size)
{
	struct mc146818 *r = opaque;
	int64_t now = now_ns(r);

	(void)size;
	if (offset == 0)
		return 0xff; /* the index is write-only */
	flags_update(r, now);
	if (is_time(r->index))
		return time_read(r, r->index, now);
	switch (r->index) {
	case RTC_A:
		return r->ram[RTC_A] | (update_in_progress(r, now) ? A_UIP : 0);
	case RTC_C:
		return status_c_read(r, now);
	case RTC_D:
		return D_VRT;
	default:
		return r->ram[r->index];
	}
}

static void rtc_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct mc146818 *r = opaque;
	int64_t now = now_ns(r);

	(void)size;
	if (offset == 0) {
		r->index = value & INDEX_MASK;
		return;
	}
	flags_update(r, now);
	if (is_time(r->index))
		time_write(r, r->index, (uint8_t)value, now);
	else if (r->index == RTC_A)
		control_write(r, (uint8_t)value, r->ram[RTC_B], now);
	else if (r->index == RTC_B)
		control_write(r, r->ram[RTC_A], (uint8_t)value, now);
	else if (r->index != RTC_C && r->index != RTC_D)
		r->ram[r->index] = (uint8_t)value;
	line_update(r, now);
}

/* ------------------------------------------------------------------ power-on */

static void put16(struct mc146818 *r, unsigned at, uint64_t value)
{
	if (value > 0xffff)
		value = 0xffff;
	r->ram[at] = (uint8_t)value;
	r->ram[at + 1] = (uint8_t)(value >> 8);
}

static uint64_t ram_above(const struct mc146818 *r, uint64_t start)
{
	uint64_t ram = machine_cfg(r->machine)->ram_bytes;

	return ram > start ? ram - start : 0;
}

/* What the firmware's power-on test would have left. */
static void memory_init(struct mc146818 *r)
{
	unsigned sum = 0;

	r->ram[CMOS_EQUIPMENT] = EQUIPMENT;
	put16(r, CMOS_BASE_LOW, 640);
	put16(r, CMOS_EXT_LOW, ram_above(r, 1 << 20) >> 10);
	put16(r, CMOS_EXT2_LOW, ram_above(r, 1 << 20) >> 10);
	put16(r, CMOS_EXT16_LOW, ram_above(r, 16 << 20) >> 16);
	for (unsigned i = CMOS_SUM_FIRST; i <= CMOS_SUM_LAST; i++)
		sum += r->ram[i];
	r->ram[CMOS_SUM_HIGH] = (uint8_t)(sum >> 8);
	r->ram[CMOS_SUM_HIGH + 1] = (uint8_t)sum;
}

static void time_init(struct mc146818 *r)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	r->base = ts.tv_sec;
	r->phase = now_ns(r) - ts.tv_nsec;
	r->seen = now_ns(r);
}

static void rtc_reset(void *opaque)
{
	struct mc146818 *r = opaque;
	int64_t now = now_ns(r);

	flags_update(r, now);
	r->index = 0;
	r->flags = 0;
	r->ram[RTC_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
	line_update(r, now);
}

void mc146818_create(struct machine *m)
{
	static const struct io_ops ops = {.read = rtc_read, .write = rtc_write};
	struct mc146818 *r = device_alloc(m, sizeof *r);

	r->machine = m;
	r->ram[RTC_A] = DV_RUNNING << 4 | 6; /* 1024 Hz */
	r->ram[RTC_B] = B_24H;
	vtimer_init(m, &r->timer, rtc_timer, r);
	memory_init(r);
	time_init(r);
	pio_register(m, RTC_PORT, 2, &ops, r);
	machine_on_reset(m, rtc_reset, r);
	rtc_reset(r);
}
