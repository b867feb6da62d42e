/* The operands of the arithmetic programs: the corner cases of each format, each against each, then random ones. */
#ifndef BT86_USERLAND_VALUES_H
#define BT86_USERLAND_VALUES_H

#include "common.h"

static const uint64_t double_corners[] = {
	0x0000000000000000, 0x8000000000000000, /* zeros */
	0x0000000000000001, 0x800fffffffffffff, 0x0008000000000000, /* denormals */
	0x0010000000000000, 0x8010000000000001, /* smallest normals */
	0x3ff0000000000000, 0xbff0000000000000, 0x3fefffffffffffff, 0x3ff0000000000001, /* around one */
	0x3fe0000000000000, 0xc000000000000000, 0x4024000000000000, 0x3fb999999999999a,
	0x41dfffffffc00000, 0xc1e0000000000000, 0x41e0000000000000, 0xc1e0000000200000, /* around int32 */
	0x43dfffffffffffff, 0xc3e0000000000000, 0x43e0000000000000, /* around int64 */
	0x40dfffc000000000, 0xc0e0000000000000, 0x40e0000000000000, /* around int16 */
	0x433fffffffffffff, 0x4330000000000001, /* where the fraction ends */
	0x380fffffe0000000, 0x36a0000000000000, 0x3690000000000000, 0x47efffffe0000000, 0x47efffffffffffff, /* float's ends */
	0x7fefffffffffffff, 0xffefffffffffffff, /* largest */
	0x7ff0000000000000, 0xfff0000000000000, /* infinities */
	0x7ff8000000000000, 0xfff8000000000000, 0x7ff8000000001234, /* quiet NaNs */
	0x7ff0000000000001, 0xfff4000000000000, 0x7ff0000020000000, /* signalling NaNs */
};

static const uint32_t float_corners[] = {
	0x00000000, 0x80000000, 0x00000001, 0x807fffff, 0x00400000, 0x00800000, 0x80800001, 0x3f800000, 0xbf800000,
	0x3f7fffff, 0x3f800001, 0x3f000000, 0xc0000000, 0x41200000, 0x3dcccccd, 0x4effffff, 0xcf000000, 0x4f000000,
	0x5effffff, 0xdf000000, 0x5f000000, 0x46fffe00, 0xc7000000, 0x4b7fffff, 0x4b000001, 0x7f7fffff, 0xff7fffff,
	0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7fc01234, 0x7f800001, 0xffa00000,
};

/* The 80-bit format, including the encodings that the 80387 and later call unsupported
 * (pseudo-infinity, pseudo-NaN, unnormal) and pseudo-denormals; SDM vol. 1, table 8-3. */
struct extended {
	uint64_t significand;
	uint16_t exponent;
} __attribute__((packed));

static const struct extended extended_corners[] = {
	{0, 0}, {0, 0x8000}, {1, 0}, {0x7fffffffffffffff, 0x8000}, {0x4000000000000000, 0},
	{0x8000000000000000, 0}, /* pseudo-denormal */
	{0x8000000000000000, 1}, {0x8000000000000001, 0x8001},
	{0x8000000000000000, 0x3fff}, {0x8000000000000000, 0xbfff}, {0xffffffffffffffff, 0x3ffe},
	{0x8000000000000001, 0x3fff}, {0x8000000000000000, 0x3ffe}, {0xa000000000000000, 0x4002},
	{0xcccccccccccccccd, 0x3ffb}, {0xc90fdaa22168c235, 0x4000}, {0xc90fdaa22168c235, 0x3fff},
	{0xfffffffe00000000, 0x401d}, {0x8000000000000000, 0xc01e}, {0x8000000000000000, 0x401e},
	{0xfffffffffffffffe, 0x403d}, {0x8000000000000000, 0xc03e}, {0x8000000000000000, 0x403e},
	{0xfffe000000000000, 0x400d}, {0x8000000000000000, 0xc00e}, {0x8000000000000000, 0x400e},
	{0xfffffffffffffc00, 0x43fe}, {0x8000000000000000, 0x43ff}, {0x8000000000000000, 0x3c00}, {0x8000000000000000, 0x3bcd},
	{0xffffff0000000000, 0x407e}, {0x8000000000000000, 0x3f81}, {0x8000000000000000, 0x3f6a},
	{0xffffffffffffffff, 0x7ffe}, {0xffffffffffffffff, 0xfffe},
	{0x8000000000000000, 0x7fff}, {0x8000000000000000, 0xffff}, /* infinities */
	{0xc000000000000000, 0x7fff}, {0xc000000000000000, 0xffff}, {0xc000000000001234, 0x7fff},
	{0x8000000000000001, 0x7fff}, {0xa000000000000000, 0xffff}, /* signalling */
	{0x0000000000000000, 0x7fff}, {0x4000000000000000, 0x7fff}, {0x4000000000000000, 0x3fff}, /* unsupported */
};

static const uint32_t integer_corners[] = {
	0x00000000, 0x00000001, 0x00000002, 0x0000000f, 0x00000010, 0x0000007f, 0x00000080, 0x000000ff,
	0x00000100, 0x00007fff, 0x00008000, 0x0000ffff, 0x00010000, 0x7fffffff, 0x80000000, 0x80000001,
	0xffff8000, 0xffffff80, 0xfffffffe, 0xffffffff, 0x55555555, 0xaaaaaaaa, 0x12345678, 0x99999999,
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The i-th pair of operands out of a sequence without end. */
static inline void pair_integer(unsigned i, uint64_t *seed, uint32_t *a, uint32_t *b)
{
	const unsigned n = COUNT(integer_corners);

	if (i < n * n) {
		*a = integer_corners[i / n];
		*b = integer_corners[i % n];
	} else {
		uint64_t r = random_next(seed);

		*a = (uint32_t)r;
		*b = (uint32_t)(r >> 32);
		if (i & 1)
			*b >>= (i >> 1) & 31;
	}
}

static inline void pair_double(unsigned i, uint64_t *seed, uint64_t *a, uint64_t *b)
{
	const unsigned n = COUNT(double_corners);

	if (i < n * n) {
		*a = double_corners[i / n];
		*b = double_corners[i % n];
		return;
	}
	*a = random_next(seed);
	*b = random_next(seed);
	if (i & 1) /* of like size, so that additions matter and conversions fit */
		*b = (*b & ~(0x7f0ull << 52)) | (*a & (0x7f0ull << 52));
	if (i & 2)
		*a = (*a & ~(0x7f0ull << 52)) | (0x400ull << 52);
}

static inline void pair_float(unsigned i, uint64_t *seed, uint32_t *a, uint32_t *b)
{
	const unsigned n = COUNT(float_corners);
	uint64_t r;

	if (i < n * n) {
		*a = float_corners[i / n];
		*b = float_corners[i % n];
		return;
	}
	r = random_next(seed);
	*a = (uint32_t)r;
	*b = (uint32_t)(r >> 32);
	if (i & 1)
		*b = (*b & ~(0x7eu << 23)) | (*a & (0x7eu << 23));
}

static inline void pair_extended(unsigned i, uint64_t *seed, struct extended *a, struct extended *b)
{
	const unsigned n = COUNT(extended_corners);

	if (i < n * n) {
		*a = extended_corners[i / n];
		*b = extended_corners[i % n];
		return;
	}
	a->significand = random_next(seed) | 1ull << 63;
	b->significand = random_next(seed) | 1ull << 63;
	a->exponent = (uint16_t)random_next(seed);
	b->exponent = (uint16_t)random_next(seed);
	if (i & 1)
		b->exponent = (uint16_t)((b->exponent & 0x801f) | (a->exponent & 0x7fe0));
	if (i & 2)
		a->exponent = (uint16_t)((a->exponent & 0x801f) | 0x3fe0);
}

#endif
