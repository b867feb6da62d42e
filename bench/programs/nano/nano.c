/* Timing and printing; nano.h says how. */
#include "nano.h"

#include "cmdline.h"

#define MAX_RUNS 201u

static uint32_t samples[MAX_RUNS];
static uint32_t runs = 51, target = 400000;
static const char *only = "";
static const char *current;

void nano_fail(const char *what, uint32_t got, uint32_t want)
{
	print("%s: ", current ? current : "nano");
	check(what, got, want);
	finish();
}

static bool chosen(const char *name)
{
	return !*only || option_chooses(only, name);
}

static void read_command_line(void)
{
	if (option("only="))
		only = option("only=");
	runs = option_number("runs=", runs);
	target = option_number("target=", target);
	if (runs < 1 || runs > MAX_RUNS)
		runs = MAX_RUNS;
}

static uint32_t time(const struct nano *b, uint32_t n)
{
	uint32_t before = events, cycles;
	uint64_t start = rdtsc();

	b->operation(n);
	cycles = (uint32_t)(rdtsc() - start);
	if (b->counted && events - before != n * b->each)
		nano_fail("events", events - before, n * b->each);
	return cycles;
}

/* Insertion: there are few. */
static void sort(uint32_t *values, uint32_t count)
{
	for (uint32_t i = 1; i < count; i++) {
		uint32_t value = values[i], j = i;

		for (; j && values[j - 1] > value; j--)
			values[j] = values[j - 1];
		values[j] = value;
	}
}

static void print_cycles(uint32_t cycles, uint32_t operations)
{
	uint32_t hundredths = muldiv(cycles, 100, operations);

	print(" %u.%02u", hundredths / 100, hundredths % 100);
}

/* The least of three: the first may have been slow for what comes only once. */
static uint32_t time_warm(const struct nano *b, uint32_t n)
{
	uint32_t least = time(b, n);

	for (uint32_t i = 0; i < 2; i++) {
		uint32_t cycles = time(b, n);

		least = cycles < least ? cycles : least;
	}
	return least;
}

static void measure(const struct nano *b)
{
	uint32_t n = 1, operations;

	current = b->name;
	if (b->single) {
		for (uint32_t i = 0; i < runs; i++)
			samples[i] = b->single();
		operations = b->each;
	} else {
		while (time_warm(b, n) < target && n < 1u << 18)
			n *= 2;
		for (uint32_t i = 0; i < runs; i++)
			samples[i] = time(b, n);
		operations = n * b->each;
	}
	sort(samples, runs);
	print("nano %s", b->name);
	print_cycles(samples[0], operations);
	print_cycles(samples[runs / 2], operations);
	print(" %u %u\n", operations, runs);
}

static uint32_t measure_all(const char *group, const struct nano *b)
{
	uint32_t done = 0;

	print("group %s\n", group);
	for (; b->name; b++) {
		if (!chosen(b->name) || (b->on_request && !*only))
			continue;
		if (b->usable && !b->usable()) {
			print("nano %s absent\n", b->name);
			continue;
		}
		measure(b);
		done++;
	}
	current = NULL;
	return done;
}

void test(void)
{
	uint32_t done;

	read_command_line();
	if (!cpu_has(CPUID_TSC))
		nano_fail("CPUs with a time-stamp counter", 0, 1);
	spaces_init();
	done = measure_all("instructions", nano_instructions);
	done += measure_all("control", nano_control);
	done += measure_all("memory", nano_memory);
	done += measure_all("interrupts", nano_timer);
	done += measure_all("translation", nano_translation);
	check("something was timed, or nothing of that name is there", done || *only, true);
}
