/*
 * Interrupts of the local APIC (SDM vol. 3A 11.5.4): the way from the moment that its timer runs out to the
 * first instruction of the handler. What the timer counts is compared with the TSC first.
 */
#include "nano.h"

#define APIC_SPURIOUS 0x0f0u
#define APIC_ICR_LOW  0x300u
#define APIC_TIMER    0x320u
#define APIC_INITIAL  0x380u
#define APIC_CURRENT  0x390u
#define APIC_DIVIDE   0x3e0u
#define LVT_MASKED    0x10000u
#define ICR_SELF      0x40000u
#define DELAY	      400000u /* TSC cycles until the timer runs out */

static uint32_t counts, cycles; /* the timer counts `counts` in `cycles` of the TSC */

static bool has_apic(void)
{
	return cpu_has(CPUID_APIC);
}

static void write(uint32_t reg, uint32_t value)
{
	MEM32(APIC + reg) = value;
}

/* The timer's count, and the TSC at that moment as nearly as can be told. */
static uint32_t count_at(uint64_t *when)
{
	uint64_t before = rdtsc();
	uint32_t count = MEM32(APIC + APIC_CURRENT);

	*when = before + (rdtsc() - before) / 2;
	return count;
}

static void set_up(void)
{
	uint64_t first, second;
	uint32_t from;

	set_gate(TIMER_VECTOR, handle_timer, GATE_INT32);
	if (counts)
		return;
	write(APIC_SPURIOUS, 0x1ff);
	write(0x80, 0);
	write(APIC_DIVIDE, 0x0b);
	write(APIC_TIMER, TIMER_VECTOR | LVT_MASKED);
	write(APIC_INITIAL, 0xffffffff);
	count_at(&first);
	from = count_at(&first);
	do
		counts = from - count_at(&second);
	while (second - first < 50000000);
	cycles = (uint32_t)(second - first);
	write(APIC_INITIAL, 0);
	write(APIC_TIMER, TIMER_VECTOR);
}

static uint32_t latency(bool halted)
{
	uint32_t count, deadline, before = events;

	set_up();
	count = muldiv(DELAY, counts, cycles);
	deadline = rdtsc_low() + muldiv(count, cycles, counts);
	write(APIC_INITIAL, count);
	if (halted)
		while (events == before)
			__asm__ volatile("sti; hlt; cli" : : : "memory");
	else {
		__asm__ volatile("sti" : : : "memory");
		while (events == before)
			;
		__asm__ volatile("cli" : : : "memory");
	}
	return (int32_t)(timer_low - deadline) > 0 ? timer_low - deadline : 0;
}

static uint32_t timer_latency_busy(void)
{
	return latency(false);
}

static uint32_t timer_latency_halted(void)
{
	return latency(true);
}

/* An interrupt that the processor sends to itself, and its end. */
static void self_interrupt(uint32_t n)
{
	set_up();
	for (; n; n--) {
		write(APIC_ICR_LOW, ICR_SELF | TIMER_VECTOR);
		__asm__ volatile("sti; nop; nop; cli" : : : "memory");
	}
}

const struct nano nano_timer[] = {
	{"self_interrupt", self_interrupt, 1, true, has_apic, NULL, false},
	{"timer_latency_busy", NULL, 1, true, has_apic, timer_latency_busy, false},
	{"timer_latency_halted", NULL, 1, true, has_apic, timer_latency_halted, false},
	{0},
};
