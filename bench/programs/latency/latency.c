/*
 * How long an interrupt takes to arrive: from the moment that the local APIC's timer runs out to the first
 * instruction of its handler, while the processor is at something else that never ends by itself. One line
 *for each such thing:
 *
 *	latency NAME MINIMUM MEDIAN P99 MAXIMUM SAMPLES
 *
 * in microseconds. The timer is armed with the TSC read before and after; where that took long (the host may
 * have taken the processor away) the sample is thrown away, and another one taken. The machine's command line
 * may say
 *
 *	only=NAME,...	states whose names begin so
 *	runs=N		samples of each (2000)
 */
#include "cmdline.h"
#include "paging.h"

#define TIMER_VECTOR   0x50

#define APIC	       0xfee00000u
#define APIC_TPR       0x080
#define APIC_EOI       0x0b0
#define APIC_SPURIOUS  0x0f0
#define APIC_TIMER     0x320
#define APIC_INITIAL   0x380
#define APIC_CURRENT   0x390
#define APIC_DIVIDE    0x3e0
#define APIC_BY_1      0x0b
#define LVT_MASKED     0x10000u
#define APIC_DIRECTORY (APIC >> 22)

#define PIT_HZ	       1193182u
#define PIT_COUNTS     50000u /* over which rates are measured: 42 ms */
#define TRIES	       100

#define MAX_RUNS       10000u
#define ARMING_US      5  /* arming the timer took longer: no sample */
#define DELAY_LEAST_US 50 /* the timer is set for a random time between these */
#define DELAY_MOST_US  2000

struct state_of_cpu {
	const char *name;
	const struct snippet *code;
	bool user;
};

/* Short blocks, chained to one another. */
CODE(loop, "1: incl %eax; testl $1, %eax; jz 2f; addl %eax, %ebx; 2: xorl %ebx, %ecx; jmp 1b", "nop");
/* Calls, returns and indirect jumps. */
CODE(calls,
     "jmp 5f; 1: incl %ebx; ret; 2: call 1b; decl %ecx; ret; 3: call 2b; call 1b; ret; "
     "5: movl $3b, %esi; 6: call 3b; call *%esi; jmp 6b",
     "nop");
/* Loads and stores all over the playground, on ever other pages. */
CODE(memory,
     "1: movl $"
     "0x400000"
     ", %esi; 2: movl (%esi), %eax; addl %eax, %ebx; movl %ebx, 64(%esi); addl $4224, %esi; "
     "cmpl $0xf00000, %esi; jb 2b; jmp 1b",
     "nop");
/* One string instruction for a long time, again and again. */
CODE(string, "1: movl $0x400000, %esi; movl $0x800000, %edi; movl $0x100000, %ecx; rep; movsl; jmp 1b",
     "nop");
/* Out of translated code at every turn. */
CODE(port, "1: inb $0x80, %al; jmp 1b", "nop");
CODE(halted, "1: hlt; jmp 1b", "nop");

static const struct state_of_cpu states[] = {
	{"kernel_loop", &loop, false},	   {"user_loop", &loop, true},	      {"kernel_calls", &calls, false},
	{"user_calls", &calls, true},	   {"kernel_memory", &memory, false}, {"user_memory", &memory, true},
	{"kernel_string", &string, false}, {"port_input", &port, false},      {"halted", &halted, false},
};

static uint32_t samples[MAX_RUNS];
static uint32_t runs = 2000;
static const char *only = "";
static uint32_t apic_hz, tsc_khz;
static uint32_t seed = 1;

/* The handler: the time first, then out of the snippet as from any other interrupt. */
extern uint32_t arrived;
LABEL(handle_timer);
__asm__(".pushsection .snippets, \"awx\"\nhandle_timer: pushl %eax; pushl %edx; rdtsc; movl %eax, arrived\n"
	"popl %edx; popl %eax; jmp vector_stubs + 16 * 0x50\n.balign 64\narrived: .skip 64\n.popsection");

static uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* a * b / c; the quotient must fit. */
static uint32_t muldiv(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t high;

	__asm__("mull %2\n\tdivl %3" : "+a"(a), "=&d"(high) : "r"(b), "r"(c) : "cc");
	return a;
}

static uint32_t apic_read(uint32_t reg)
{
	return MEM32(APIC + reg);
}

static void apic_write(uint32_t reg, uint32_t value)
{
	MEM32(APIC + reg) = value;
}

/* ------------------------------------------------------------------ rates */

struct moment {
	uint64_t tsc;
	uint32_t apic, pit;
};

/* The tightest of many looks. */
static struct moment look(void)
{
	struct moment best = {0, 0, 0};
	uint64_t narrowest = ~0ull;

	for (unsigned i = 0; i < TRIES; i++) {
		uint64_t before = rdtsc();
		uint32_t apic = apic_read(APIC_CURRENT);
		outb(0x43, 0x80); /* latch counter 2 */
		uint64_t after = rdtsc();
		uint32_t pit = inb(0x42);
		pit |= inb(0x42) << 8;
		if (after - before < narrowest) {
			narrowest = after - before;
			best = (struct moment){before + narrowest / 2, apic, pit};
		}
	}
	return best;
}

/* The rates of the TSC and of the APIC's timer, by the 8254's counter 2. */
static void measure_rates(void)
{
	struct moment from, to;

	apic_write(APIC_SPURIOUS, 0x1ff);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_DIVIDE, APIC_BY_1);
	apic_write(APIC_TIMER, TIMER_VECTOR | LVT_MASKED);
	do {
		outb(0x61, (inb(0x61) & ~2) | 1);
		outb(0x43, 0xb0); /* mode 0: past 0 its output stays high */
		outb(0x42, 0xff);
		outb(0x42, 0xff);
		apic_write(APIC_INITIAL, 0xffffffff);
		from = look();
		do
			to = look();
		while (!(inb(0x61) & 0x20) && from.pit - to.pit < PIT_COUNTS);
	} while (inb(0x61) & 0x20); /* the host was busy elsewhere meanwhile */
	tsc_khz = muldiv((uint32_t)(to.tsc - from.tsc), PIT_HZ, (from.pit - to.pit) * 1000);
	apic_hz = muldiv(from.apic - to.apic, PIT_HZ, from.pit - to.pit);
	apic_write(APIC_INITIAL, 0);
	apic_write(APIC_TIMER, TIMER_VECTOR);
}

/* ------------------------------------------------------------------ samples */

static uint32_t random_between(uint32_t low, uint32_t high)
{
	seed = seed * 1664525 + 1013904223;
	return low + muldiv(seed, high - low, 0xffffffff);
}

/* In cycles of the TSC; negative if the timer could not be armed in one go. */
static int32_t sample(const struct state_of_cpu *state)
{
	const uint32_t us = random_between(DELAY_LEAST_US, DELAY_MOST_US);
	const uint32_t count = muldiv(us, apic_hz, 1000000);
	uint32_t before, after, due;

	if (state->user)
		user_mode();
	in.eflags |= EFLAGS_IF;
	before = (uint32_t)rdtsc();
	apic_write(APIC_INITIAL, count);
	after = (uint32_t)rdtsc();
	due = before + (after - before) / 2 + muldiv(us, tsc_khz, 1000);
	run(state->code);
	if (out.vector != TIMER_VECTOR) {
		check(state->name, out.vector, TIMER_VECTOR);
		finish();
	}
	apic_write(APIC_EOI, 0);
	if (after - before > muldiv(ARMING_US, tsc_khz, 1000))
		return -1;
	/* Nothing comes early, but for what the two rates are known worse than exactly. */
	return (int32_t)(arrived - due) > 0 ? (int32_t)(arrived - due) : 0;
}

static void sort(uint32_t *values, uint32_t count)
{
	for (uint32_t gap = count / 2; gap; gap /= 2)
		for (uint32_t i = gap; i < count; i++) {
			uint32_t value = values[i], j = i;
			for (; j >= gap && values[j - gap] > value; j -= gap)
				values[j] = values[j - gap];
			values[j] = value;
		}
}

static void print_us(uint32_t cycles)
{
	uint32_t tenths = muldiv(cycles, 10000, tsc_khz);

	print(" %u.%u", tenths / 10, tenths % 10);
}

static void measure(const struct state_of_cpu *state)
{
	uint32_t taken = 0;

	for (uint32_t tries = 0; taken < runs && tries < 10 * runs; tries++) {
		int32_t cycles = sample(state);
		if (cycles >= 0)
			samples[taken++] = (uint32_t)cycles;
	}
	if (!taken) {
		print("latency %s none\n", state->name);
		return;
	}
	sort(samples, taken);
	print("latency %s", state->name);
	print_us(samples[0]);
	print_us(samples[taken / 2]);
	print_us(samples[muldiv(taken - 1, 99, 100)]);
	print_us(samples[taken - 1]);
	print(" %u\n", taken);
}

/* ------------------------------------------------------------------ the command line */

static bool chosen(const char *name)
{
	return !*only || option_chooses(only, name);
}

static void read_command_line(void)
{
	if (option("only="))
		only = option("only=");
	runs = option_number("runs=", runs);
	if (runs < 1 || runs > MAX_RUNS)
		runs = MAX_RUNS;
}

void test(void)
{
	read_command_line();
	if (!cpu_has(CPUID_APIC) || !cpu_has(CPUID_PSE) || !cpu_has(CPUID_TSC)) {
		check("CPU with local APIC, TSC and large pages", 0, 1);
		return;
	}
	set_cr4(get_cr4() | CR4_PSE);
	paging_on();
	page_directory[APIC_DIRECTORY] = (APIC & 0xffc00000) | PTE_P | PTE_W | PTE_PCD | PTE_PS;
	set_gate(TIMER_VECTOR, handle_timer, GATE_INT32);
	measure_rates();
	check_range("TSC rate, kHz", tsc_khz, 100000, 10000000);
	for (unsigned i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		if (chosen(states[i].name))
			measure(&states[i]);
}
