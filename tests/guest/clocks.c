/*
 * Do the machine's clocks agree? Over ten seconds, mostly halted, each of them is asked how fast the TSC
 * runs: 8254 counters 0 and 2 (read-back), the ACPI PM timer (found through the tables), the local APIC
 * timer's current count, and the seconds of the real-time clock. The answers must be the same to 0.1 %, and
 * the rates that CPUID announces, where it does, must be the true ones.
 *
 * A reading is bracketed by two of the TSC, and of many the one with the tightest bracket counts. So a busy
 * host, which may take the processor away between any two instructions, does not matter.
 */
#include "guest.h"

#define PIC1	     0x20
#define EOI	     0x20
#define PIT	     0x40
#define PIT_CONTROL  0x43
#define READ_BACK(n) (0xd0 | 2 << (n)) /* latches the count and not the status */

#define RTC_INDEX    0x70
#define RTC_DATA     0x71
#define RTC_SECONDS  0
#define RTC_A	     0x0a
#define RTC_A_UIP    0x80

#define APIC	     0xfee00000u
#define APIC_SVR     0x0f0
#define APIC_TIMER   0x320
#define APIC_INITIAL 0x380
#define APIC_CURRENT 0x390
#define APIC_DIVIDE  0x3e0
#define APIC_BY_128  0x0a
#define LVT_MASKED   0x10000u

#define FADT_PM_TMR  76		 /* PM_TMR_BLK (ACPI 6.4 table 5.9) */
#define HV_TIMING    0x40000010u /* EAX: TSC, EBX: APIC timer, both in kHz */

#define TRIES	     400
#define EDGES	     40	   /* tries at a change of the seconds; ten seconds and these are less than 60 */
#define PERMILLE     1000u /* of a million: what clocks may differ by */
#define EDGE_TIGHT   200u  /* 1 / n s: an edge may be known no worse than that */
#define WAIT_TENTHS  99u

enum clock {
	PIT0,
	PIT2,
	PM,
	LAPIC,
	RTC,
	CLOCKS,
};

/* count grows since the clock was first read, and was that much at TSC tsc. */
struct reading {
	uint64_t tsc, count;
};

static const char *const name[CLOCKS] = {"PIT counter 0", "PIT counter 2", "ACPI PM timer",
					 "local APIC timer", "RTC"};
static uint64_t hz[CLOCKS] = {1193182, 1193182, 3579545, 0, 1};
static uint32_t last[CLOCKS];
static uint64_t total[CLOCKS];
static uint16_t pm_port;

CODE(halt, "", "hlt");

static uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* There is no libgcc here to divide 64 bits. */
static uint64_t divide(uint64_t a, uint64_t b)
{
	uint64_t q = 0, r = 0;

	for (int bit = 63; bit >= 0; bit--) {
		r = r << 1 | (a >> bit & 1);
		if (r >= b) {
			r -= b;
			q |= 1ull << bit;
		}
	}
	return q;
}

/* ------------------------------------------------------------------ the PM timer's port */

static bool text_is(uint32_t at, const char *text, unsigned length)
{
	return !memcmp((const void *)at, text, length);
}

static uint16_t find_pm_port(void)
{
	for (uint32_t rsdp = 0xe0000; rsdp < 0x100000; rsdp += 16) {
		if (!text_is(rsdp, "RSD PTR ", 8))
			continue;
		uint32_t rsdt = MEM32(rsdp + 16);
		for (uint32_t entry = rsdt + 36; entry < rsdt + MEM32(rsdt + 4); entry += 4)
			if (text_is(MEM32(entry), "FACP", 4))
				return MEM32(MEM32(entry) + FADT_PM_TMR);
	}
	return 0;
}

/* ------------------------------------------------------------------ reading a clock */

static uint32_t pit_count(unsigned counter)
{
	uint32_t low = inb(PIT + counter);

	return low | inb(PIT + counter) << 8;
}

/* What the clock shows, turned round if it counts down. The bracket is around the moment that counts. */
static uint32_t look(enum clock c, uint64_t *before, uint64_t *after)
{
	uint32_t value;

	*before = rdtsc();
	switch (c) {
	case PIT0:
	case PIT2:
		outb(PIT_CONTROL, READ_BACK(c == PIT0 ? 0 : 2));
		*after = rdtsc();
		return -pit_count(c == PIT0 ? 0 : 2);
	case PM:
		value = inl(pm_port);
		break;
	default:
		value = -MEM32(APIC + APIC_CURRENT);
	}
	*after = rdtsc();
	return value;
}

static uint32_t peek(enum clock c)
{
	uint64_t unused;

	return look(c, &unused, &unused);
}

static uint32_t mask(enum clock c)
{
	return c == PM ? 0xffffff : c == LAPIC ? 0xffffffff : 0xffff;
}

/* Adds what has passed since the last time. The PM timer goes round every 4.6 s, and tells how often the
 * 8254's counters went round meanwhile, which they do every 55 ms. */
static void account(enum clock c, uint32_t value, uint64_t pm_passed)
{
	uint32_t passed = (value - last[c]) & mask(c);

	if (c == PIT0 || c == PIT2) {
		uint64_t wanted = divide(pm_passed, 3);
		if (wanted > passed)
			passed += (uint32_t)(wanted - passed + 0x8000) & ~0xffffu;
	}
	total[c] += passed;
	last[c] = value;
}

static void account_pm(void)
{
	account(PM, peek(PM), 0);
}

static struct reading read_clock(enum clock c)
{
	static uint64_t pm_seen[CLOCKS];
	struct reading best = {0, 0};
	uint64_t before, after, narrowest = ~0ull;

	for (unsigned i = 0; i < TRIES; i++) {
		uint32_t value = look(c, &before, &after);
		if (c != PM)
			account_pm();
		account(c, value, total[PM] - pm_seen[c]);
		pm_seen[c] = total[PM];
		if (after - before < narrowest) {
			narrowest = after - before;
			best = (struct reading){before + narrowest / 2, total[c]};
		}
	}
	return best;
}

static void read_all(struct reading r[])
{
	for (enum clock c = 0; c < RTC; c++)
		r[c] = read_clock(c);
}

/* ------------------------------------------------------------------ the real-time clock */

static uint8_t rtc_read(uint8_t reg)
{
	outb(RTC_INDEX, reg);
	return inb(RTC_DATA);
}

/* -1 while the clock is being updated. */
static int rtc_seconds(void)
{
	if (rtc_read(RTC_A) & RTC_A_UIP)
		return -1;
	uint8_t value = rtc_read(RTC_SECONDS);
	return (value >> 4) * 10 + (value & 15);
}

/* Waits for a change of the seconds that is seen within widest. r->count: the seconds then, not yet a sum. */
static bool rtc_edge(struct reading *r, uint64_t widest)
{
	uint64_t before = rdtsc();
	int old = -1;

	for (unsigned edge = 0; edge < EDGES;) {
		uint64_t start = rdtsc();
		int seconds = rtc_seconds();
		uint64_t after = rdtsc();
		if (seconds >= 0 && old >= 0 && seconds != old) {
			*r = (struct reading){before + (after - before) / 2, (unsigned)seconds};
			if (after - before < widest)
				return true;
			edge++;
		}
		account_pm(); /* which would go round unseen */
		if (seconds >= 0)
			old = seconds;
		before = start;
	}
	return false;
}

/* ------------------------------------------------------------------ the comparison */

static void start_clocks(void)
{
	outb(PIT_CONTROL, 0x34); /* both in mode 2, with the longest period */
	outb(PIT, 0);
	outb(PIT, 0);
	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(PIT_CONTROL, 0xb4);
	outb(PIT + 2, 0);
	outb(PIT + 2, 0);
	MEM32(APIC + APIC_SVR) = 0x1ff;
	MEM32(APIC + APIC_DIVIDE) = APIC_BY_128;
	MEM32(APIC + APIC_TIMER) = LVT_MASKED | 0x50;
	MEM32(APIC + APIC_INITIAL) = 0xffffffff;
	for (enum clock c = 0; c < RTC; c++)
		last[c] = peek(c);
}

/* Sleeps until the TSC is there, waking at every tick of counter 0 and keeping account. */
static void sleep_until(uint64_t tsc)
{
	outb(PIC1 + 1, 0xfe);
	while (rdtsc() < tsc) {
		in.eflags |= EFLAGS_IF;
		run(&halt);
		outb(PIC1, EOI);
		account_pm();
	}
	outb(PIC1 + 1, 0xff);
}

/* The TSC's rate in units of 1024 Hz, if the clock runs at hz between two readings. */
static uint64_t tsc_rate(uint64_t clock_hz, const struct reading *from, const struct reading *to)
{
	return divide(((to->tsc - from->tsc) >> 10) * clock_hz, to->count - from->count);
}

/* The clock's rate if the TSC's is known. */
static uint64_t clock_rate(uint64_t rate, const struct reading *from, const struct reading *to)
{
	return divide((to->count - from->count) * rate, (to->tsc - from->tsc) >> 10);
}

/* Compares in parts per million. */
static void agree(const char *label, uint64_t got, uint64_t want)
{
	uint32_t ratio = (uint32_t)divide(got * 1000000, want);

	print("measured: %s: off by %d ppm\n", label, (int)ratio - 1000000);
	check_range(label, ratio, 1000000 - PERMILLE, 1000000 + PERMILLE);
}

void test(void)
{
	struct reading start[CLOCKS], early[CLOCKS], end[CLOCKS];

	if (!cpu_has(CPUID_APIC) || !check("there is a PM timer", (pm_port = find_pm_port()) != 0, true))
		return;
	start_clocks();
	read_all(start);
	/* Half a second for a first idea of the rates, as a kernel has it. */
	while (total[PM] < hz[PM] / 2)
		account_pm();
	read_all(early);
	uint64_t first = tsc_rate(hz[PM], &start[PM], &early[PM]), second = first << 10;
	hz[LAPIC] = clock_rate(first, &start[LAPIC], &early[LAPIC]);
	if (!check("the seconds change", rtc_edge(&start[RTC], divide(second, EDGE_TIGHT)), true))
		return;
	sleep_until(start[RTC].tsc + divide(second * WAIT_TENTHS, 10));
	if (!check("and change again", rtc_edge(&end[RTC], divide(second, EDGE_TIGHT)), true))
		return;
	if (end[RTC].count < start[RTC].count)
		end[RTC].count += 60;
	read_all(end);

	uint64_t rate = tsc_rate(hz[PM], &start[PM], &end[PM]);
	agree("the TSC's rate in the first half second and over ten", first, rate);
	for (enum clock c = 0; c < CLOCKS; c++)
		if (c != PM)
			agree(name[c], tsc_rate(hz[c], &start[c], &end[c]), rate);

	struct cpuid leaf = {0, 0, 0, 0};
	if (cpu_id(0, 0).eax >= 0x15)
		leaf = cpu_id(0x15, 0);
	if (leaf.eax && leaf.ebx && leaf.ecx) { /* TSC : crystal, which is what the APIC timer counts */
		uint64_t announced = divide((uint64_t)leaf.ecx * leaf.ebx, leaf.eax);
		cpu_line();
		agree("TSC rate by CPUID leaf 15", announced >> 10, rate);
		cpu_line();
		agree("APIC timer rate by CPUID leaf 15", divide(leaf.ecx, 128), hz[LAPIC]);
	}
	leaf = cpu_id(0x40000000, 0);
	if (!(cpu_id(1, 0).ecx >> 31) || leaf.eax < HV_TIMING)
		return;
	leaf = cpu_id(HV_TIMING, 0);
	cpu_line();
	agree("TSC rate by the hypervisor's leaf", (leaf.eax * 1000ull) >> 10, rate);
	cpu_line();
	agree("APIC timer rate by the hypervisor's leaf", divide(leaf.ebx * 1000ull, 128), hz[LAPIC]);
}
