/*
 * The user programs: one static 32-bit binary, so that the very same instructions run on the host, under bt86
 *and under its peers.
 *
 *	bench list
 *	bench run [-1] [-t MILLISECONDS] NAME...	a name or a group (compute, os); -1: one run only
 *	bench time COMMAND [ARGUMENT...]	times a command, what it prints is dropped
 *	bench data BYTES			text that compresses about as text does, the same everywhere
 *
 * A benchmark is timed in runs of some operations each, with CLOCK_MONOTONIC and with rdtsc; one line tells
 *
 *	bench NAME runs=R operations=N first=NS minimum=NS median=NS cycles=C checksum=X
 *
 * in nanoseconds for one operation; cycles are the least that a run took, for one operation. first is the
 *first run, which in compute finds everything cold. The checksum is that of each run, and the same on every
 *machine. A program that finds a wrong result says so and ends with status 1.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
	const char *name;
	void (*prepare)(void); /* or NULL */
	/* Does the operation n times; returns a checksum, which does not depend on anything but n. */
	uint64_t (*run)(unsigned n);
	void (*finish)(void); /* or NULL */
	unsigned operations;  /* in each run; 0: as many as fill a millisecond or two, and no checksum */
};

struct group {
	const char *name;
	const struct bench *benches; /* ends with an empty row */
};

extern const struct bench compute_code[], compute_data[], compute_memory[], os_calls[], os_processes[],
	os_memory[];

/* Ends the program. */
void bench_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
#define expect(condition)                                                                                    \
	do {                                                                                                 \
		if (!(condition))                                                                            \
			bench_fail("%s:%d: %s", __FILE__, __LINE__, #condition);                             \
	} while (0)

/* Itself, for those that exec. */
extern const char *bench_path;
/* A directory on a tmpfs. */
#define SCRATCH "/dev/shm"

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators" (2016). */
static inline uint32_t random_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return (uint32_t)(x * 0x2545f4914f6cdd1du >> 32);
}

static inline uint64_t mix(uint64_t sum, uint64_t value)
{
	sum = (sum ^ value) * 0x100000001b3u;
	return sum ^ sum >> 29;
}

/* Words of a small vocabulary, lines of some length. The same seed gives the same text. */
void text_make(char *text, size_t size, uint64_t seed);

#endif
