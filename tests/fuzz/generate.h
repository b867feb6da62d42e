/* generate.h - cases from numbers. The same recipe always makes the same case. */
#ifndef BT86_TESTS_FUZZ_GENERATE_H
#define BT86_TESTS_FUZZ_GENERATE_H

#include "case.h"
#include "random.h"

#define RECIPE_CHANGES 6

/* A case that is generated from seed and then changed n times. */
struct recipe {
	uint64_t seed;
	uint32_t n;
	uint64_t change[RECIPE_CHANGES];
};

void generate_case(struct fuzz_case *k, const struct recipe *r);

/* ---- inside: code.c */
/* Fills [p, p + n), which the guest will see at linear address at, with instructions. */
void generate_code(struct rng *r, uint8_t *p, unsigned n, uint32_t at, bool code32);
/* An address that is worth accessing. */
uint32_t generate_address(struct rng *r);
uint32_t generate_value(struct rng *r);

#endif
