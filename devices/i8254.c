/* i8254.c - the 8254 programmable interval timer (Intel 231164-005) and port 0x61.
 *
 * Three counters on a 1193182 Hz clock. Nothing counts here: a counter is the tick at which its count was
 * loaded, and every value that the guest sees is computed from clock_ns when it looks, with integer
 * arithmetic that is exact over any time. Ticks are numbered from machine start.
 *
 * Counter 0's OUT is interrupt line 0, its GATE is high. Counter 1 was the DRAM refresh; what remains of it
 * is the toggling bit 4 of port 0x61. Counter 2 has its GATE at bit 0 of port 0x61 and its OUT at bit 5.
 *
 * Timing. A count is loaded at the first clock after it was written, so elapsed time runs from the following
 * tick. (A read in between gives the new count already: on a PC no two accesses are that close.) In modes 2
 * and 3 a new count waits for the end of the current cycle or half-cycle, in modes 1 and 5 for the next
 * trigger.
 *
 * Line 0 in the periodic modes: OUT's pulse is given as a whole - low, then high - when OUT rises. Its
 * falling edge alone means nothing to an edge-triggered input, and a timer for it would only cost the host
 * wake-ups.
 *
 * Lost ticks. A host that is busy runs a timer late. Periodic ticks that fell due meanwhile are not
 * lost, as a guest that counts them would fall behind: they are delivered one by one, a quarter of a period
 * apart (so that the guest can acknowledge each; the controller would merge two at once), until the count is
 * right again. At most one second's worth is owed; what lies beyond is dropped. Two ticks are never less than
 * MIN_SPACING_NS apart: a guest that asks for more gets that rate.
 *
 * Power-on is the state that PC firmware leaves: counter 0 in mode 3 with the longest period (18.2 Hz).
 */
#include "devices/device.h"
#include "devices/devices.h"

#define PIT_HZ	       1193182u
#define PIT_PORT       0x40
#define PORT_B	       0x61
#define MIN_SPACING_NS 50000u
#define REFRESH_TICKS  18u /* 15 us between DRAM refreshes */
#define TIMER_LINE     0

/* Control word */
#define CW_BCD	     0x01
#define CW_MODE(v)   ((v) >> 1 & 7)
#define CW_RW(v)     ((v) >> 4 & 3)
#define CW_SELECT(v) ((v) >> 6)
#define RW_LATCH     0
#define RW_LSB	     1
#define RW_MSB	     2
#define RW_BOTH	     3
#define READ_BACK    3 /* CW_SELECT */

/* Read-back command */
#define RB_COUNT_N  0x20 /* clear: latch count */
#define RB_STATUS_N 0x10 /* clear: latch status */

/* Status byte: the low six bits are those of the control word. */
#define STATUS_OUT  0x80
#define STATUS_NULL 0x40

/* Port 0x61 */
#define PB_GATE2    0x01
#define PB_SPEAKER  0x02
#define PB_WRITABLE 0x0f
#define PB_REFRESH  0x10
#define PB_OUT2	    0x20

struct counter {
	uint8_t control; /* the control word's low six bits */
	uint8_t mode;	 /* 0 to 5 */
	bool gate;

	/* The running count. */
	bool running;	/* loaded, and triggered if the mode asks for that */
	uint32_t count; /* 1 to 65536 (10000 in BCD) */
	int64_t start;	/* tick at which the counting element holds count */
	bool frozen;	/* GATE stopped it (modes 0, 2, 3, 4) after held ticks */
	int64_t held;
	bool out_idle;	/* OUT while not running, and before start */
	uint16_t stale; /* what the counting element reads while not running */

	/* A count that has been written but not loaded; used from pending_at on. */
	bool pending;
	uint32_t pending_count;
	int64_t pending_at; /* INT64_MAX: waits for a trigger */

	/* The bus side. */
	bool write_msb_next, read_msb_next;
	uint8_t write_lsb;
	bool status_latched;
	uint8_t status;
	uint8_t latched; /* bytes of the latch still to be read */
	uint16_t latch;
};

struct i8254 {
	struct machine *machine;
	struct counter counter[3];
	uint8_t port_b;

	/* Line 0. */
	struct vtimer timer;
	int64_t due;   /* tick of the next rising edge that is not accounted for; INT64_MAX: none to come */
	uint32_t owed; /* rising edges that are past and have not been delivered */
	uint64_t last_ns; /* when the last one was */
};

static int64_t now_tick(const struct i8254 *p)
{
	return (int64_t)device_ns_to_ticks(clock_ns(p->machine), PIT_HZ);
}

/* ------------------------------------------------------------------ a counter as a function of time */

static uint32_t modulus(const struct counter *c)
{
	return c->control & CW_BCD ? 10000 : 0x10000;
}

/* Clocks of the half-cycle with OUT high in mode 3. */
static uint32_t high_half(uint32_t count)
{
	return (count + 1) / 2;
}

/* Clocks since the count was loaded; negative before. */
static int64_t elapsed(const struct counter *c, int64_t t)
{
	return c->frozen ? c->held : t - c->start;
}

static bool counter_out(const struct counter *c, int64_t t)
{
	int64_t e = elapsed(c, t);

	if (!c->running)
		return c->out_idle;
	switch (c->mode) {
	case 0:
		return e >= c->count;
	case 1:
		return e < 0 ? c->out_idle : e >= c->count;
	case 2:
		return c->frozen || e < 0 || e % c->count != c->count - 1;
	case 3:
		return c->frozen || e < 0 || e % c->count < high_half(c->count);
	default: /* 4, 5: low for the one clock at which the count is 0 */
		return e != c->count;
	}
}

/* The counting element as a number, before BCD. */
static uint32_t counter_value(const struct counter *c, int64_t t)
{
	int64_t e = elapsed(c, t);
	uint32_t m = modulus(c), phase;

	if (!c->running)
		return c->stale;
	if (e < 0)
		e = 0;
	switch (c->mode) {
	case 2:
		return (uint32_t)(c->count - e % c->count) % m;
	case 3: /* by twos, an odd count beginning with count - 1: 5 gives 4 2 0, 4 2 */
		phase = (uint32_t)(e % c->count);
		if (phase >= high_half(c->count))
			phase -= high_half(c->count);
		return ((c->count & ~1u) - 2 * phase) % m;
	default:
		return (uint32_t)((c->count + m - e % m) % m);
	}
}

/* The end of the cycle (mode 2) or half-cycle (mode 3) that t lies in. */
static int64_t cycle_end(const struct counter *c, int64_t t)
{
	int64_t e = t - c->start;
	int64_t begin;

	if (e < 0)
		return c->start; /* not even loaded */
	begin = t - e % c->count;
	if (c->mode == 3 && t - begin < high_half(c->count))
		return begin + high_half(c->count);
	return begin + c->count;
}

/* Takes a waiting count whose time has come. */
static void counter_settle(struct counter *c, int64_t t)
{
	bool low_half;

	if (!c->pending || t < c->pending_at)
		return;
	/* In mode 3 it may become the low half of a cycle, whose high half then never was. */
	low_half = c->mode == 3 && c->pending_at > c->start &&
		   (c->pending_at - c->start) % c->count == high_half(c->count);
	c->count = c->pending_count;
	c->start = c->pending_at - (low_half ? high_half(c->count) : 0);
	c->pending = false;
}

static void counter_start(struct counter *c, uint32_t count, int64_t at)
{
	c->running = true;
	c->frozen = false;
	c->count = count;
	c->start = at;
	c->pending = false;
}

static void counter_freeze(struct counter *c, int64_t t)
{
	c->held = t - c->start;
	if (c->held < 0)
		c->held = 0; /* it is loaded even so, and stands */
	c->frozen = true;
}

/* ------------------------------------------------------------------ what the guest does to a counter */

static void counter_set_count(struct counter *c, uint32_t count, int64_t t)
{
	if (count == 0)
		count = modulus(c);
	counter_settle(c, t);
	switch (c->mode) {
	case 0:
	case 4:
		counter_start(c, count, t + 1);
		if (!c->gate)
			counter_freeze(c, t);
		break;
	case 2:
	case 3:
		if (!c->running) {
			counter_start(c, count, t + 1);
			if (!c->gate)
				counter_freeze(c, t);
			break;
		}
		c->pending = true;
		c->pending_count = count;
		c->pending_at = c->frozen ? INT64_MAX : cycle_end(c, t);
		break;
	default: /* 1, 5 */
		c->pending = true;
		c->pending_count = count;
		c->pending_at = INT64_MAX;
		break;
	}
}

static void counter_write(struct counter *c, uint8_t value, int64_t t)
{
	unsigned rw = CW_RW(c->control);
	uint32_t count;

	if (rw == RW_BOTH && !c->write_msb_next) {
		c->write_lsb = value;
		c->write_msb_next = true;
		if (c->mode == 0) { /* the first byte stops the counting and lowers OUT */
			c->stale = (uint16_t)counter_value(c, t);
			c->running = false;
		}
		return;
	}
	c->write_msb_next = false;
	if (rw == RW_LSB)
		count = value;
	else
		count = (uint32_t)value << 8 | (rw == RW_BOTH ? c->write_lsb : 0);
	if (c->control & CW_BCD) /* digits above 9 weigh as much as they would in the chip's decades */
		count = ((count >> 12) * 1000 + (count >> 8 & 15) * 100 + (count >> 4 & 15) * 10 +
			 (count & 15)) %
			10000;
	counter_set_count(c, count, t);
}

static void counter_set_gate(struct counter *c, bool gate, int64_t t)
{
	bool rising = gate && !c->gate;

	if (gate == c->gate)
		return;
	counter_settle(c, t);
	c->gate = gate;
	switch (c->mode) {
	case 0:
	case 4:
		if (!c->running)
			break;
		if (gate) {
			c->start = t - c->held;
			c->frozen = false;
		} else {
			counter_freeze(c, t);
		}
		break;
	case 2:
	case 3:
		if (!c->running)
			break;
		if (gate)
			counter_start(c, c->pending ? c->pending_count : c->count, t + 1);
		else
			counter_freeze(c, t);
		if (!gate && c->pending)
			c->pending_at = INT64_MAX;
		break;
	default: /* 1, 5: a trigger, if there is a count */
		if (rising && (c->running || c->pending)) {
			c->out_idle = counter_out(c, t);
			counter_start(c, c->pending ? c->pending_count : c->count, t + 1);
		}
		break;
	}
}

/* A control word: the counter waits for its count, OUT goes to the mode's initial state. */
static void counter_program(struct counter *c, uint8_t value, int64_t t)
{
	counter_settle(c, t);
	c->stale = (uint16_t)counter_value(c, t);
	c->control = value & 0x3f;
	c->mode = CW_MODE(value) > 5 ? CW_MODE(value) & 3 : CW_MODE(value);
	c->running = false;
	c->frozen = false;
	c->pending = false;
	c->out_idle = c->mode != 0;
	c->write_msb_next = false;
	c->read_msb_next = false;
	c->latched = 0;
	c->status_latched = false;
}

static uint16_t counter_image(const struct counter *c, int64_t t)
{
	uint32_t v = counter_value(c, t);

	if (c->control & CW_BCD)
		v = v / 1000 % 10 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
	return (uint16_t)v;
}

static void counter_latch_count(struct counter *c, int64_t t)
{
	if (c->latched) /* the first latch holds until it is read */
		return;
	c->latch = counter_image(c, t);
	c->latched = CW_RW(c->control) == RW_BOTH ? 2 : 1;
	c->read_msb_next = false;
}

static void counter_latch_status(struct counter *c, int64_t t)
{
	bool null = c->pending || !c->running || elapsed(c, t) < 0;

	if (c->status_latched)
		return;
	c->status = (counter_out(c, t) ? STATUS_OUT : 0) | (null ? STATUS_NULL : 0) | c->control;
	c->status_latched = true;
}

static uint8_t counter_read(struct counter *c, int64_t t)
{
	unsigned rw = CW_RW(c->control);
	uint16_t value;
	bool msb;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	if (c->latched) {
		value = c->latch;
		c->latched--;
	} else {
		value = counter_image(c, t);
	}
	msb = rw == RW_MSB || (rw == RW_BOTH && c->read_msb_next);
	if (rw == RW_BOTH)
		c->read_msb_next = !c->read_msb_next;
	return (uint8_t)(msb ? value >> 8 : value);
}

/* ------------------------------------------------------------------ line 0 */

static bool periodic(const struct counter *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* The first tick after t at which OUT rises; INT64_MAX if it does not. */
static int64_t next_rise(const struct counter *c, int64_t t)
{
	int64_t rise = c->start + c->count + (c->mode == 4);

	if (!c->running)
		return INT64_MAX;
	if (!periodic(c))
		return rise > t ? rise : INT64_MAX;
	if (c->pending) { /* only the cycle that ends at or before pending_at keeps the old count */
		struct counter later = *c;

		rise = c->start + ((t - c->start) / c->count + 1) * (int64_t)c->count;
		if (t >= c->start && rise <= c->pending_at)
			return rise;
		counter_settle(&later, c->pending_at);
		return next_rise(&later, t);
	}
	if (t < c->start)
		t = c->start;
	return c->start + ((t - c->start) / c->count + 1) * (int64_t)c->count;
}

static uint64_t later_of(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void line_arm(struct i8254 *p)
{
	const struct counter *c = &p->counter[0];
	uint64_t at;

	if (p->owed) {
		at = p->last_ns + later_of(device_ticks_to_ns(c->count, PIT_HZ) / 4, MIN_SPACING_NS);
	} else if (p->due != INT64_MAX) {
		at = device_ticks_to_ns((uint64_t)p->due, PIT_HZ);
		if (periodic(c))
			at = later_of(at, p->last_ns + MIN_SPACING_NS);
	} else {
		vtimer_disarm(&p->timer);
		return;
	}
	vtimer_arm(&p->timer, at);
}

/* Adds the rising edges up to t to what is owed, which is at most one second's worth. */
static void line_account(struct i8254 *p, int64_t t)
{
	struct counter *c = &p->counter[0];
	int64_t owed = p->owed, limit;

	while (p->due <= t) { /* twice at most: up to the loading of a waiting count, and after it */
		int64_t more = 0;

		counter_settle(c, p->due);
		if (periodic(c) && !c->pending)
			more = (t - p->due) / c->count;
		owed += 1 + more;
		p->due = next_rise(c, p->due + more * c->count);
	}
	if (!owed)
		return;
	limit = PIT_HZ / c->count + 1;
	p->owed = (uint32_t)(owed < limit ? owed : limit);
}

static void line_deliver(struct i8254 *p)
{
	if (!p->owed)
		return;
	p->owed--;
	p->last_ns = clock_ns(p->machine);
	irq_set(p->machine, TIMER_LINE, false);
	irq_set(p->machine, TIMER_LINE, true);
}

static void line_timer(void *opaque)
{
	struct i8254 *p = opaque;

	line_account(p, now_tick(p));
	line_deliver(p);
	line_arm(p);
}

/* Around a write to counter 0: an edge that is past but whose timer has not run yet must not be lost by it.
 * The one clock that mode 4 spends low is taken for past. */
static void line_before_write(struct i8254 *p, int64_t t)
{
	bool strobe = p->counter[0].mode == 4;

	line_account(p, strobe ? t + 1 : t);
	line_deliver(p);
}

static void line_after_write(struct i8254 *p, int64_t t)
{
	const struct counter *c = &p->counter[0];

	if (!c->running || !periodic(c))
		p->owed = 0;
	p->due = next_rise(c, t);
	irq_set(p->machine, TIMER_LINE, periodic(c) || counter_out(c, t));
	line_arm(p);
}

/* ------------------------------------------------------------------ ports */

static void read_back(struct i8254 *p, uint8_t value, int64_t t)
{
	for (unsigned i = 0; i < 3; i++) {
		struct counter *c = &p->counter[i];

		if (!(value >> (i + 1) & 1))
			continue;
		counter_settle(c, t);
		if (!(value & RB_COUNT_N))
			counter_latch_count(c, t);
		if (!(value & RB_STATUS_N))
			counter_latch_status(c, t);
	}
}

static void control_write(struct i8254 *p, uint8_t value, int64_t t)
{
	unsigned select = CW_SELECT(value);
	struct counter *c = &p->counter[select % 3];

	if (select == READ_BACK) {
		read_back(p, value, t);
		return;
	}
	if (CW_RW(value) == RW_LATCH) {
		counter_settle(c, t);
		counter_latch_count(c, t);
		return;
	}
	if (select == 0)
		line_before_write(p, t);
	counter_program(c, value, t);
	if (select == 0)
		line_after_write(p, t);
}

static uint32_t pit_read(void *opaque, uint32_t offset, unsigned size)
{
	struct i8254 *p = opaque;
	int64_t t = now_tick(p);

	(void)size;
	if (offset == 3)
		return 0; /* no operation */
	counter_settle(&p->counter[offset], t);
	return counter_read(&p->counter[offset], t);
}

static void pit_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct i8254 *p = opaque;
	int64_t t = now_tick(p);

	(void)size;
	if (offset == 3) {
		control_write(p, (uint8_t)value, t);
		return;
	}
	if (offset == 0)
		line_before_write(p, t);
	counter_write(&p->counter[offset], (uint8_t)value, t);
	if (offset == 0)
		line_after_write(p, t);
}

static uint32_t port_b_read(void *opaque, uint32_t offset, unsigned size)
{
	struct i8254 *p = opaque;
	int64_t t = now_tick(p);
	uint32_t value = p->port_b;

	(void)offset;
	(void)size;
	counter_settle(&p->counter[2], t);
	if (t / REFRESH_TICKS % 2)
		value |= PB_REFRESH;
	if (counter_out(&p->counter[2], t))
		value |= PB_OUT2;
	return value;
}

static void port_b_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct i8254 *p = opaque;

	(void)offset;
	(void)size;
	p->port_b = value & PB_WRITABLE;
	counter_set_gate(&p->counter[2], value & PB_GATE2, now_tick(p));
}

static void pit_reset(void *opaque)
{
	struct i8254 *p = opaque;
	int64_t t = now_tick(p);

	for (unsigned i = 0; i < 3; i++) {
		p->counter[i] = (struct counter){.gate = i != 2};
		counter_program(&p->counter[i], RW_BOTH << 4 | 3 << 1, t);
	}
	counter_set_count(&p->counter[0], 0, t);
	counter_set_count(&p->counter[1], REFRESH_TICKS, t);
	p->port_b = 0;
	p->owed = 0;
	line_after_write(p, t);
}

void i8254_create(struct machine *m)
{
	static const struct io_ops pit_ops = {.read = pit_read, .write = pit_write};
	static const struct io_ops port_b_ops = {.read = port_b_read, .write = port_b_write};
	struct i8254 *p = device_alloc(m, sizeof *p);

	p->machine = m;
	vtimer_init(m, &p->timer, line_timer, p);
	pio_register(m, PIT_PORT, 4, &pit_ops, p);
	pio_register(m, PORT_B, 1, &port_b_ops, p);
	machine_on_reset(m, pit_reset, p);
	pit_reset(p);
}
