/* random.h - the generator's source of numbers (splitmix64): the same everywhere for the same seed. */
#ifndef BT86_TESTS_FUZZ_RANDOM_H
#define BT86_TESTS_FUZZ_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* 0 to n - 1 */
static inline uint32_t rng_below(struct rng *r, uint32_t n)
{
	return (uint32_t)((rng_next(r) >> 32) * n >> 32);
}

/* true in so many of a hundred */
static inline bool rng_percent(struct rng *r, uint32_t percent)
{
	return rng_below(r, 100) < percent;
}

#define RNG_PICK(r, array) ((array)[rng_below(r, sizeof(array) / sizeof(array)[0])])

#endif
