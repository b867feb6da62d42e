/* values.c - random numbers that matter. */
#include <string.h>

#include "silicon.h"

static uint64_t state = 88172645463325252ull;

void rnd_seed(uint64_t seed)
{
	state = (seed + 1) * 0x9e3779b97f4a7c15ull;
	state ^= state >> 29;
	if (!state)
		state = 1;
	for (unsigned k = 0; k < 16; k++)
		rnd();
}

uint32_t rnd(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)((state * 0x2545f4914f6cdd1dull) >> 32);
}

uint32_t random_word(void)
{
	static const uint32_t edges[] = {0,	     1,	      0xffffffff, 0x80000000, 0x7fffffff, 0xffff,
					 0x8000,     0x7fff,  0xff,	  0x80,	      0x7f,	  0xfffffffe,
					 0x80000001, 0x10000, 0x99,	  0x9a9a,     0x0f0f0f0f, 0xaaaaaaaa};

	switch (below(8)) {
	case 0:
	case 1:
		return edges[below(sizeof edges / sizeof *edges)];
	case 2:
		return below(0x40);
	case 3:
		return below(0x10000);
	case 4: /* sign-extended */
		return (uint32_t)(int32_t)(int16_t)rnd();
	default:
		return rnd();
	}
}

uint32_t random_flags(void)
{
	uint32_t f = (rnd() & FL_ARITH) | FL_1 | FL_IF;

	if (chance(20))
		f |= FL_DF;
	if (chance(2))
		f |= FL_AC;
	if (chance(5))
		f |= FL_ID;
	return f;
}

/* ------------------------------------------------------------------ segments */

/* Entries 6 and 15 of the GDT are the host's business (layout.h). */
static bool usable(uint16_t sel)
{
	return sel & 4 || ((sel & 0xfff8) != (USER_CODE64 & 0xfff8) && (sel & 0xfff8) != (CPU_NODE & 0xfff8));
}

uint16_t random_selector(void)
{
	static const uint16_t common[] = {USER_DATA,  USER_DATA,  USER_DATA,  0,	 TLS_SEL(0),
					  TLS_SEL(1), TLS_SEL(2), TLS_SEL(0), USER_CODE, USER_DATA};
	uint16_t sel;

	if (chance(75))
		return common[below(sizeof common / sizeof *common)];
	do
		sel = chance(70) ? (uint16_t)below(0xa0) : (uint16_t)rnd();
	while (!usable(sel));
	return sel;
}

uint16_t random_code_selector(void)
{
	return chance(70) ? USER_CODE : random_selector();
}

/* ------------------------------------------------------------------ x87 and SSE */

/* A number with exponent and fraction widths e and f (without sign) of a kind that matters. */
static uint64_t random_float(unsigned e, unsigned f)
{
	const uint64_t emax = (1ull << e) - 1, mask = (1ull << f) - 1, bias = emax >> 1;
	const uint64_t bits = ((uint64_t)rnd() << 32 | rnd()) & mask;
	uint64_t exponent, fraction = bits;

	switch (below(10)) {
	case 0:
		exponent = fraction = 0;
		break;
	case 1: /* denormal */
		exponent = 0;
		break;
	case 2:
		exponent = emax;
		fraction = 0;
		break;
	case 3: /* NaN */
		exponent = emax;
		break;
	case 4:
		exponent = 1 + below(4);
		fraction = chance(50) ? bits : bits & ~(mask >> below(f));
		break;
	case 5:
		exponent = emax - 1 - below(3);
		break;
	case 6:
		exponent = bias + below(e > 8 ? 70 : 40);
		fraction = bits & ~(mask >> below(f));
		break;
	case 7:
		exponent = bias / 2 + below(8);
		break;
	default:
		exponent = bias - 4 + below(8);
	}
	return ((uint64_t)below(2) << e | exponent) << f | fraction;
}

static void random_st(uint8_t *st)
{
	const uint64_t v = random_float(15, 48);
	uint64_t fraction = v << 16 >> 1;
	uint16_t top = (uint16_t)(v >> 48);

	if ((top & 0x7fff) || chance(6))
		fraction |= 1ull << 63;
	if (chance(3)) /* unnormal, pseudo-denormal */
		fraction ^= 1ull << 63;
	if (chance(66))
		fraction |= rnd() & 0xffff;
	memcpy(st, &fraction, 8);
	memcpy(st + 8, &top, 2);
}

static void random_vector(uint8_t *v)
{
	unsigned kind = below(4);

	for (unsigned k = 0; k < 16; k += 8) {
		uint64_t q = (uint64_t)rnd() << 32 | rnd();

		if (kind == 0)
			q = random_float(11, 52);
		else if (kind == 1)
			q = random_float(8, 23) << 32 | random_float(8, 23);
		else if (kind == 2 && chance(50))
			q &= 0x80ff00ff01807fffull;
		memcpy(v + k, &q, 8);
	}
}

static void put16(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, 2);
}

void random_fx(uint8_t fx[512])
{
	static const uint16_t precision[4] = {0x000, 0x200, 0x300, 0x300};
	uint32_t control = (chance(75) ? 0x3f : rnd() & 0x3f) | (rnd() & 0xc00) | precision[below(4)] | 0x40;
	uint32_t status = (chance(90) ? rnd() & 0x4700 : rnd() & 0x473f) | below(8) << 11;
	uint32_t mxcsr = rnd() & 0xe07f;

	memset(fx, 0, 512);
	if (status & ~control & 0x3f)
		status |= 0x8080;
	mxcsr |= chance(66) ? 0x1f80 : rnd() & 0x1f80;
	if (chance(66))
		mxcsr &= ~0x8040u;
	put16(fx, control);
	put16(fx + 2, status);
	fx[4] = (uint8_t)(chance(75) ? rnd() | rnd() | rnd() : chance(50) ? 0xff : 0);
	memcpy(fx + 24, &mxcsr, 4);
	for (unsigned k = 0; k < 8; k++) {
		random_st(fx + 32 + 16 * k);
		random_vector(fx + 160 + 16 * k);
	}
}
