/* lapic.c - the local APIC of the one processor, in xAPIC mode (SDM vol. 3A chapter 10), at LAPIC_GPA.
 *
 * How an interrupt passes: a message on the APIC bus, an IPI to ourselves or a local source sets the vector's
 * bit in IRR. The highest bit is requested from the CPU (INTR_LAPIC) while its class, vector >> 4, is above
 * that of PPR, which is the higher of TPR and what is in service. The CPU's acknowledge moves it to ISR; EOI
 * takes the highest bit out of ISR and, if TMR has it as level-triggered, tells the I/O APIC.
 *
 * The timer counts LAPIC_BUS_HZ divided by the divide configuration. Only the bus tick at which it expires
 * next is kept; the current count is computed from it and clock_ns. TSC-deadline mode is not offered.
 *
 * Lost ticks. A periodic tick that falls due while the one before still waits in IRR, or several that a late
 * host timer finds past at once, would merge into one, and a guest that counts them would fall behind. They
 * are owed instead, at most one second's worth, and given one at each EOI of the timer's vector. Periods
 * below MIN_PERIOD_NS are not caught up with, and expire no oftener than that: a guest must not occupy the
 * host.
 *
 * The 8259's output is LINT0. Whether it reaches the CPU is LINT0's entry (ExtINT and not masked), or always
 * while the APIC is disabled in IA32_APIC_BASE; intr_pic_enable hears of that. LINT1 is the NMI pin, which
 * nothing drives.
 *
 * Power-on is the state that PC firmware leaves (MP specification 3.6.2.2, virtual wire mode): enabled, LINT0
 * ExtINT, LINT1 NMI. Enabling through IA32_APIC_BASE after it was disabled gives the state of SDM 10.4.7.1
 * instead.
 */
#include "devices/apicbus.h"
#include "devices/device.h"
#include "devices/devices.h"

#define MIN_PERIOD_NS 50000u

/* Register numbers: offset / 16. */
enum reg {
	ID = 0x02,
	VERSION = 0x03,
	TPR = 0x08,
	APR = 0x09,
	PPR = 0x0a,
	EOI = 0x0b,
	RRD = 0x0c,
	LDR = 0x0d,
	DFR = 0x0e,
	SVR = 0x0f,
	ISR = 0x10, /* to 0x17 */
	TMR = 0x18, /* to 0x1f */
	IRR = 0x20, /* to 0x27 */
	ESR = 0x28,
	ICR_LOW = 0x30,
	ICR_HIGH = 0x31,
	LVT_TIMER = 0x32, /* the local vector table, to 0x37 */
	LVT_ERROR = 0x37,
	INITIAL_COUNT = 0x38,
	CURRENT_COUNT = 0x39,
	DIVIDE_CONFIG = 0x3e,
};

/* Local vector table, in the order of the registers. */
enum lvt { TIMER, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR, LVT_ENTRIES };
#define LVT_VECTOR   0x000000ffu
#define LVT_MODE(v)  ((v) >> 8 & 7)
#define LVT_MASK     0x00010000u
#define LVT_PERIODIC 0x00020000u
#define LVT_RESET    LVT_MASK
#define LINT0_WIRED  0x00008700u /* virtual wire: ExtINT */
#define LINT1_WIRED  0x00008400u /* NMI */

static const uint32_t lvt_writable[LVT_ENTRIES] = {
	[TIMER] = LVT_VECTOR | LVT_MASK | LVT_PERIODIC,
	[THERMAL] = LVT_VECTOR | LVT_MASK | 0x700,
	[PERFORMANCE] = LVT_VECTOR | LVT_MASK | 0x700,
	[LINT0] = LVT_VECTOR | LVT_MASK | 0xa700, /* delivery mode, polarity, trigger mode */
	[LINT1] = LVT_VECTOR | LVT_MASK | 0xa700,
	[ERROR] = LVT_VECTOR | LVT_MASK,
};

#define VERSION_VALUE		   ((LVT_ENTRIES - 1) << 16 | 0x14)

#define SVR_ENABLE		   0x100u
#define SVR_WRITABLE		   0x3ffu
#define SVR_RESET		   0xffu

#define ESR_SEND_ILLEGAL_VECTOR	   0x20u
#define ESR_RECEIVE_ILLEGAL_VECTOR 0x40u
#define ESR_ILLEGAL_REGISTER	   0x80u

#define ICR_WRITABLE		   0x000ccfffu
#define ICR_LOGICAL		   0x00000800u
#define ICR_ASSERT		   0x00004000u
#define ICR_SHORTHAND(v)	   ((v) >> 18 & 3)
enum shorthand { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

#define DFR_FLAT       0xffffffffu
#define DFR_RESERVED   0x0fffffffu
#define DFR_MODEL_FLAT 0xfu
#define BROADCAST      0xffu
#define FIRST_VECTOR   16u /* those below are illegal */
#define BASE_ENABLE    0x800u

struct lapic {
	struct machine *machine;
	struct apicbus *bus;
	bool enabled; /* IA32_APIC_BASE */
	uint32_t id, tpr, ldr, dfr, svr;
	uint32_t esr, errors; /* as last latched by a write, and since */
	uint32_t icr_low, icr_high;
	uint32_t lvt[LVT_ENTRIES];
	uint32_t isr[8], tmr[8], irr[8];

	uint32_t initial, divide;
	bool running;
	int64_t due; /* bus tick at which the count comes to 0 */
	uint32_t owed;
	struct vtimer timer;
};

/* ------------------------------------------------------------------ 256-bit sets */

static bool set_has(const uint32_t set[8], unsigned v)
{
	return set[v / 32] >> v % 32 & 1;
}

static void set_put(uint32_t set[8], unsigned v, bool on)
{
	if (on)
		set[v / 32] |= 1u << v % 32;
	else
		set[v / 32] &= ~(1u << v % 32);
}

/* -1: empty */
static int set_highest(const uint32_t set[8])
{
	for (int i = 7; i >= 0; i--)
		if (set[i])
			return i * 32 + 31 - __builtin_clz(set[i]);
	return -1;
}

/* ------------------------------------------------------------------ priorities */

/* SDM vol. 3A 10.8.3.1 */
static uint32_t processor_priority(const struct lapic *a)
{
	int served = set_highest(a->isr);
	uint32_t class = served < 0 ? 0 : (uint32_t)served & 0xf0;

	return (a->tpr & 0xf0) >= class ? a->tpr : class;
}

/* The vector that the CPU should take now, or -1. */
static int deliverable(const struct lapic *a)
{
	int vector = set_highest(a->irr);

	if (vector < 0 || ((uint32_t)vector & 0xf0) <= (processor_priority(a) & 0xf0))
		return -1;
	return vector;
}

static void lapic_update(struct lapic *a)
{
	intr_set(a->machine, INTR_LAPIC, a->enabled && deliverable(a) >= 0);
}

static void pic_update(struct lapic *a)
{
	uint32_t lint0 = a->lvt[LINT0];

	intr_pic_enable(a->machine, !a->enabled || (LVT_MODE(lint0) == APIC_EXTINT && !(lint0 & LVT_MASK)));
}

/* ------------------------------------------------------------------ taking interrupts */

static void accept(struct lapic *a, uint8_t vector, bool level);

static void report_error(struct lapic *a, uint32_t error)
{
	uint32_t lvt = a->lvt[ERROR];

	a->errors |= error;
	/* An illegal vector in this very entry has been recorded; it is not reported by means of itself. */
	if (!(lvt & LVT_MASK) && (lvt & LVT_VECTOR) >= FIRST_VECTOR)
		accept(a, lvt & LVT_VECTOR, false);
}

static void accept(struct lapic *a, uint8_t vector, bool level)
{
	if (vector < FIRST_VECTOR) {
		report_error(a, ESR_RECEIVE_ILLEGAL_VECTOR);
		return;
	}
	set_put(a->irr, vector, true);
	set_put(a->tmr, vector, level);
	lapic_update(a);
}

/* SDM vol. 3A 10.6.2 */
static bool addressed(const struct lapic *a, uint8_t dest, bool logical)
{
	uint32_t own = a->ldr >> 24;

	if (dest == BROADCAST)
		return true;
	if (!logical)
		return dest == a->id >> 24;
	if (a->dfr >> 28 == DFR_MODEL_FLAT)
		return dest & own;
	/* Cluster: the high half names the cluster (15: all of them), the low half members. */
	return (dest >> 4 == own >> 4 || dest >> 4 == 15) && (dest & own & 15);
}

static bool lapic_receive(void *opaque, const struct apicbus_message *msg)
{
	struct lapic *a = opaque;

	if (!a->enabled || !addressed(a, msg->dest, msg->logical))
		return false;
	switch (msg->delivery) {
	case APIC_FIXED:
	case APIC_LOWEST:
		if (!(a->svr & SVR_ENABLE))
			return false;
		accept(a, msg->vector, msg->level);
		return msg->vector >= FIRST_VECTOR;
	case APIC_NMI:
		nmi_raise(a->machine);
		return true;
	default: /* SMI: there is no SMM. INIT, STARTUP: not for the only processor. ExtINT comes by LINT0. */
		if (log_on(LOG_UNIMP))
			log_printf(LOG_UNIMP, "APIC message with delivery mode %u\n", msg->delivery);
		return false;
	}
}

/* A write to the ICR's low half sends. There is nobody but us to receive. */
static void send_ipi(struct lapic *a)
{
	uint32_t icr = a->icr_low;
	struct apicbus_message msg = {
		.dest = (uint8_t)(a->icr_high >> 24),
		.logical = icr & ICR_LOGICAL,
		.vector = icr & LVT_VECTOR,
		.delivery = LVT_MODE(icr),
	};

	if (msg.delivery <= APIC_LOWEST && msg.vector < FIRST_VECTOR) {
		report_error(a, ESR_SEND_ILLEGAL_VECTOR);
		return;
	}
	switch ((enum shorthand)ICR_SHORTHAND(icr)) {
	case TO_OTHERS:
		return;
	case TO_SELF: /* only fixed interrupts (SDM table 10-3) */
		if (msg.delivery != APIC_FIXED)
			return;
		/* fall through */
	case TO_ALL:
		msg.dest = BROADCAST;
		break;
	case TO_DEST:
		break;
	}
	if (msg.delivery == APIC_INIT && !(icr & ICR_ASSERT))
		return; /* INIT level de-assert: synchronizes arbitration IDs of older processors */
	lapic_receive(a, &msg);
}

static int lapic_acknowledge(void *opaque)
{
	struct lapic *a = opaque;
	int vector = deliverable(a);

	if (vector >= 0) {
		set_put(a->irr, (unsigned)vector, false);
		set_put(a->isr, (unsigned)vector, true);
	}
	lapic_update(a);
	return vector;
}

/* ------------------------------------------------------------------ timer */

static int64_t now_bus(const struct lapic *a)
{
	return (int64_t)device_ns_to_ticks(clock_ns(a->machine), LAPIC_BUS_HZ);
}

/* SDM figure 10-10: bits 3, 1 and 0; 111 is division by 1. */
static unsigned divide_shift(const struct lapic *a)
{
	return ((a->divide >> 1 & 4) + (a->divide & 3) + 1) & 7;
}

static int64_t timer_period(const struct lapic *a)
{
	return (int64_t)a->initial << divide_shift(a);
}

static uint32_t timer_current(const struct lapic *a, int64_t now)
{
	int64_t left = a->due - now;

	if (!a->running)
		return 0;
	if (left <= 0) {
		if (!(a->lvt[TIMER] & LVT_PERIODIC))
			return 0;
		left = timer_period(a) - -left % timer_period(a);
	}
	return (uint32_t)((left + (1 << divide_shift(a)) - 1) >> divide_shift(a));
}

static void timer_arm(struct lapic *a)
{
	uint64_t at, soonest;

	if (!a->running || (a->lvt[TIMER] & LVT_MASK)) {
		vtimer_disarm(&a->timer);
		return;
	}
	at = device_ticks_to_ns((uint64_t)a->due, LAPIC_BUS_HZ);
	soonest = clock_ns(a->machine) + MIN_PERIOD_NS;
	if (at < soonest && (a->lvt[TIMER] & LVT_PERIODIC) &&
	    device_ticks_to_ns((uint64_t)timer_period(a), LAPIC_BUS_HZ) < MIN_PERIOD_NS)
		at = soonest;
	vtimer_arm(&a->timer, at);
}

/* Gives one of the ticks owed, if the one before has left IRR. */
static void timer_give(struct lapic *a)
{
	uint8_t vector = a->lvt[TIMER] & LVT_VECTOR;

	if (!a->owed || set_has(a->irr, vector))
		return;
	a->owed--;
	accept(a, vector, false);
}

/* Notes the expirations up to now. */
static void timer_account(struct lapic *a, int64_t now)
{
	uint32_t lvt = a->lvt[TIMER];
	int64_t period = timer_period(a), owed, limit;

	if (!a->running || a->due > now)
		return;
	if (!(lvt & LVT_PERIODIC)) {
		a->running = false;
		if (!(lvt & LVT_MASK))
			accept(a, lvt & LVT_VECTOR, false);
		return;
	}
	owed = a->owed + (now - a->due) / period + 1;
	a->due += ((now - a->due) / period + 1) * period;
	if (lvt & LVT_MASK)
		return;
	limit = device_ticks_to_ns((uint64_t)period, LAPIC_BUS_HZ) < MIN_PERIOD_NS
			? 1
			: LAPIC_BUS_HZ / period + 1;
	a->owed = (uint32_t)(owed < limit ? owed : limit);
	timer_give(a);
}

static void timer_fire(void *opaque)
{
	struct lapic *a = opaque;

	timer_account(a, now_bus(a));
	timer_arm(a);
}

static void timer_set_initial(struct lapic *a, uint32_t value)
{
	int64_t now = now_bus(a);

	timer_account(a, now);
	a->initial = value;
	a->running = value != 0;
	a->owed = 0;
	a->due = now + timer_period(a);
	timer_arm(a);
}

/* The count stays as it is and goes on at the new rate. */
static void timer_set_divide(struct lapic *a, uint32_t value)
{
	int64_t now = now_bus(a);
	uint32_t current;

	timer_account(a, now);
	current = timer_current(a, now);
	a->divide = value & 0xb;
	a->due = now + ((int64_t)current << divide_shift(a));
	timer_arm(a);
}

/* ------------------------------------------------------------------ registers */

static void lvt_write(struct lapic *a, enum lvt n, uint32_t value)
{
	if (n == TIMER)
		timer_account(a, now_bus(a));
	value &= lvt_writable[n];
	if (!(a->svr & SVR_ENABLE))
		value |= LVT_MASK;
	if (n == TIMER && ((value ^ a->lvt[n]) & LVT_PERIODIC || value & LVT_MASK))
		a->owed = 0;
	a->lvt[n] = value;
	if (n == TIMER)
		timer_arm(a);
	if (n == LINT0)
		pic_update(a);
}

static void svr_write(struct lapic *a, uint32_t value)
{
	bool was = a->svr & SVR_ENABLE;

	a->svr = value & SVR_WRITABLE;
	if (was && !(a->svr & SVR_ENABLE))
		for (unsigned n = 0; n < LVT_ENTRIES; n++) /* SDM vol. 3A 10.4.7.2 */
			lvt_write(a, n, a->lvt[n] | LVT_MASK);
	if (!was && (a->svr & SVR_ENABLE))
		apicbus_ready(a->bus);
}

static void eoi_write(struct lapic *a)
{
	int vector = set_highest(a->isr);

	if (vector < 0)
		return;
	set_put(a->isr, (unsigned)vector, false);
	if (set_has(a->tmr, (unsigned)vector))
		apicbus_eoi(a->bus, (uint8_t)vector);
	if ((uint32_t)vector == (a->lvt[TIMER] & LVT_VECTOR))
		timer_give(a);
	lapic_update(a);
}

static uint32_t register_read(struct lapic *a, unsigned reg)
{
	if (reg >= ISR && reg < ISR + 8)
		return a->isr[reg - ISR];
	if (reg >= TMR && reg < TMR + 8)
		return a->tmr[reg - TMR];
	if (reg >= IRR && reg < IRR + 8)
		return a->irr[reg - IRR];
	if (reg >= LVT_TIMER && reg <= LVT_ERROR)
		return a->lvt[reg - LVT_TIMER];
	switch (reg) {
	case ID:
		return a->id;
	case VERSION:
		return VERSION_VALUE;
	case TPR:
		return a->tpr;
	case APR: /* there is nobody to arbitrate with: SDM vol. 3A 10.6.2.4 with nothing else in it than this
		   */
	case PPR:
		return processor_priority(a);
	case LDR:
		return a->ldr;
	case DFR:
		return a->dfr;
	case SVR:
		return a->svr;
	case ESR:
		return a->esr;
	case ICR_LOW:
		return a->icr_low;
	case ICR_HIGH:
		return a->icr_high;
	case INITIAL_COUNT:
		return a->initial;
	case CURRENT_COUNT:
		return timer_current(a, now_bus(a));
	case DIVIDE_CONFIG:
		return a->divide;
	case EOI: /* write-only */
	case RRD: /* remote read: not since the Pentium 4 */
		return 0;
	default:
		report_error(a, ESR_ILLEGAL_REGISTER);
		return 0;
	}
}

static void register_write(struct lapic *a, unsigned reg, uint32_t value)
{
	if (reg >= LVT_TIMER && reg <= LVT_ERROR) {
		lvt_write(a, reg - LVT_TIMER, value);
		return;
	}
	if (reg >= ISR && reg < ESR)
		return; /* read-only, as are those below without a line of their own */
	switch (reg) {
	case ID:
		a->id = value & 0xff000000;
		break;
	case TPR:
		a->tpr = value & 0xff;
		lapic_update(a);
		break;
	case EOI:
		eoi_write(a);
		break;
	case LDR:
		a->ldr = value & 0xff000000;
		break;
	case DFR:
		a->dfr = value | DFR_RESERVED;
		break;
	case SVR:
		svr_write(a, value);
		break;
	case ESR: /* whatever is written: what has gathered becomes readable */
		a->esr = a->errors;
		a->errors = 0;
		break;
	case ICR_LOW:
		a->icr_low = value & ICR_WRITABLE;
		send_ipi(a);
		break;
	case ICR_HIGH:
		a->icr_high = value & 0xff000000;
		break;
	case INITIAL_COUNT:
		timer_set_initial(a, value);
		break;
	case DIVIDE_CONFIG:
		timer_set_divide(a, value);
		break;
	case VERSION:
	case APR:
	case PPR:
	case RRD:
	case CURRENT_COUNT:
		break;
	default:
		report_error(a, ESR_ILLEGAL_REGISTER);
		break;
	}
}

/* A register is the first four bytes of sixteen. Reads may be narrower; writes must be whole (SDM vol.
 * 3A 10.4.1), others are dropped. A disabled APIC is not there at all. */
static uint32_t lapic_read(void *opaque, uint32_t offset, unsigned size)
{
	struct lapic *a = opaque;

	(void)size;
	if (!a->enabled)
		return ~0u;
	if (offset & 0xc)
		return 0;
	return register_read(a, offset >> 4) >> 8 * (offset & 3);
}

static void lapic_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct lapic *a = opaque;

	if (a->enabled && size == 4 && !(offset & 0xf))
		register_write(a, offset >> 4, value);
}

/* ------------------------------------------------------------------ reset and enabling */

/* SDM vol. 3A 10.4.7.1 */
static void clear_registers(struct lapic *a)
{
	for (unsigned i = 0; i < 8; i++)
		a->isr[i] = a->tmr[i] = a->irr[i] = 0;
	for (unsigned n = 0; n < LVT_ENTRIES; n++)
		a->lvt[n] = LVT_RESET;
	a->id = 0;
	a->tpr = 0;
	a->ldr = 0;
	a->dfr = DFR_FLAT;
	a->svr = SVR_RESET;
	a->esr = a->errors = 0;
	a->icr_low = a->icr_high = 0;
	a->initial = 0;
	a->divide = 0;
	a->running = false;
	a->owed = 0;
	vtimer_disarm(&a->timer);
}

static void set_enabled(struct lapic *a, bool on)
{
	a->enabled = on;
	pic_update(a);
	lapic_update(a);
}

static void base_written(void *opaque, uint64_t base)
{
	struct lapic *a = opaque;
	bool on = base & BASE_ENABLE;

	if (on && (base & 0xfffff000u) != LAPIC_GPA) {
		if (log_on(LOG_UNIMP))
			log_printf(LOG_UNIMP, "local APIC cannot be moved to %#llx\n",
				   (unsigned long long)base);
	}
	if (on == a->enabled)
		return;
	clear_registers(a);
	set_enabled(a, on);
}

static void lapic_reset(void *opaque)
{
	struct lapic *a = opaque;

	clear_registers(a);
	a->svr |= SVR_ENABLE;
	a->lvt[LINT0] = LINT0_WIRED;
	a->lvt[LINT1] = LINT1_WIRED;
	set_enabled(a, true);
}

void lapic_create(struct machine *m)
{
	static const struct io_ops ops = {.read = lapic_read, .write = lapic_write, .wide = true};
	struct lapic *a = device_alloc(m, sizeof *a);

	a->machine = m;
	a->bus = apicbus_get(m);
	a->bus->local = (struct apicbus_local){lapic_receive, a};
	vtimer_init(m, &a->timer, timer_fire, a);
	mmio_register(m, LAPIC_GPA, 0x1000, &ops, a);
	intr_register(m, INTR_LAPIC, lapic_acknowledge, a);
	machine_set_apic_hook(m, base_written, a);
	machine_on_reset(m, lapic_reset, a);
	lapic_reset(a);
}
