/* code.c - guest instructions: mostly well-formed ones whose operands lie where there is something, then
 * sequences that the translator treats specially, and some plain noise.
 *
 * Left out are instructions whose results are allowed to differ between two runs: RDTSC, RDRAND, RDSEED, and
 * FNSTENV, FNSAVE, FXSAVE, which show the pointers of the last x87 instruction (docs/limits.md). Where noise
 * makes one nevertheless, run.c sees it.
 */
#include "generate.h"
#include "layout.h"

#include <string.h>

struct code {
	struct rng *r;
	uint8_t *p;
	unsigned n, room;
	uint32_t at; /* linear address of p[0] */
	bool wide;   /* 32-bit code */
};

static void b1(struct code *c, unsigned v)
{
	if (c->n < c->room)
		c->p[c->n++] = (uint8_t)v;
}

static void bn(struct code *c, uint32_t v, unsigned size)
{
	while (size--) {
		b1(c, v);
		v >>= 8;
	}
}

static void bytes(struct code *c, const char *s, unsigned n)
{
	while (n--)
		b1(c, (uint8_t)*s++);
}
#define BYTES(c, s) bytes(c, s, sizeof(s) - 1)

uint32_t generate_value(struct rng *r)
{
	static const uint32_t odd[] = {0,	   1,	       2,	   0x7f,   0x80,
				       0xff,	   0x7fff,     0x8000,	   0xffff, 0x7fffffff,
				       0x80000000, 0xffffffff, 0xfffffff0, 0x1f,   0x20,
				       0x00010000, 0x3ff,      4,	   8,	   16};

	switch (rng_below(r, 4)) {
	case 0:
		return RNG_PICK(r, odd);
	case 1:
		return rng_below(r, 64);
	case 2:
		return generate_address(r);
	default:
		return (uint32_t)rng_next(r);
	}
}

uint32_t generate_address(struct rng *r)
{
	static const uint32_t edge[] = {0x00020ffc, 0x00021ffe, 0x0009fffc, 0x000bfffe, 0x000cfffd,
					0xfffffffe, 0x00000000, 0x003ffffe, 0x00400000, 0xfee00000,
					0xfee00010, 0x000a0010, 0x00014000, 0x7ffffffe, 0x00027ffe};
	static const uint32_t alias[] = {0xc0000000, 0x00400000, 0x00800000, 0x40000000,
					 0x80000000, 0xffc00000, 0x00200000};
	uint32_t base = rng_percent(r, 25) ? RNG_PICK(r, alias) : 0;

	switch (rng_below(r, 40)) {
	case 0 ... 2:
		return RNG_PICK(r, edge) + rng_below(r, 4);
	case 3 ... 5:
		return base + AT_CODE + rng_below(r, CODE_PAGES * 0x1000);
	case 6:
		return base + AT_TABLES + 4 * rng_below(r, 0x1400);
	case 7:
		return base + AT_GDT + rng_below(r, 0x1000);
	case 8:
		return (uint32_t)rng_next(r);
	default:
		return base + AT_DATA + rng_below(r, rng_percent(r, 70) ? 0x100 : DATA_BYTES);
	}
}

/* ------------------------------------------------------------------ operands */

static void memory16(struct code *c, unsigned reg)
{
	unsigned mod = rng_below(c->r, 3), rm = rng_below(c->r, 8);

	if (rng_percent(c->r, 40)) {
		mod = 0;
		rm = 6;
	}
	b1(c, mod << 6 | reg << 3 | rm);
	if (mod == 1)
		b1(c, generate_value(c->r));
	else if (mod == 2 || rm == 6)
		bn(c, generate_address(c->r), 2);
}

static void memory32(struct code *c, unsigned reg)
{
	unsigned mod = rng_below(c->r, 3), rm = rng_below(c->r, 8), sib = (unsigned)rng_next(c->r) & 0xff;

	if (rng_percent(c->r, 35)) {
		mod = 0;
		rm = 5;
	}
	b1(c, mod << 6 | reg << 3 | rm);
	if (rm == 4)
		b1(c, sib);
	if (mod == 1)
		b1(c, rng_below(c->r, 2) ? rng_below(c->r, 16) : generate_value(c->r));
	else if (mod == 2)
		bn(c, rng_percent(c->r, 60) ? rng_below(c->r, 64) : generate_address(c->r), 4);
	else if (rm == 5 || (rm == 4 && (sib & 7) == 5))
		bn(c, generate_address(c->r), 4);
}

/* short67: the instruction carries a 67 prefix. */
static void memory(struct code *c, unsigned reg, bool short67)
{
	if (c->wide != short67)
		memory32(c, reg);
	else
		memory16(c, reg);
}

struct prefixes {
	bool p66, p67;
};

/* Few, in any order; lock only where asked for. */
static struct prefixes prefix(struct code *c, bool lockable)
{
	static const uint8_t segment[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
	struct prefixes p = {0};

	if (lockable && rng_percent(c->r, 8))
		b1(c, 0xf0);
	if (rng_percent(c->r, 8))
		b1(c, RNG_PICK(c->r, segment));
	if (rng_percent(c->r, 10)) {
		b1(c, 0x66);
		p.p66 = true;
	}
	if (rng_percent(c->r, 3)) {
		b1(c, 0x67);
		p.p67 = true;
	}
	if (rng_percent(c->r, 1))
		b1(c, 0xf2 + rng_below(c->r, 2));
	return p;
}

static void modrm(struct code *c, unsigned reg, struct prefixes p)
{
	if (rng_percent(c->r, 45))
		b1(c, 0xc0 | reg << 3 | rng_below(c->r, 8));
	else
		memory(c, reg, p.p67);
}

static void immediate(struct code *c, bool byte, struct prefixes p)
{
	bn(c, generate_value(c->r), byte ? 1 : c->wide != p.p66 ? 4 : 2);
}

static unsigned reg8(struct code *c)
{
	return rng_below(c->r, 8);
}

/* ------------------------------------------------------------------ kinds of instruction */

static void integer(struct code *c)
{
	struct prefixes p = prefix(c, false);
	unsigned w = rng_below(c->r, 2), n = rng_below(c->r, 16);

	switch (n) {
	case 0 ... 2: /* alu */
		n = rng_below(c->r, 6);
		b1(c, rng_below(c->r, 8) << 3 | n);
		if (n < 4)
			modrm(c, reg8(c), p);
		else
			immediate(c, n == 4, p);
		break;
	case 3:
		b1(c, 0x40 + rng_below(c->r, 16));
		break;
	case 4:
		n = rng_below(c->r, 4);
		b1(c, 0x80 + n);
		modrm(c, reg8(c), p);
		immediate(c, n != 1, p);
		break;
	case 5:
		b1(c, 0x84 + rng_below(c->r, 8));
		modrm(c, reg8(c), p);
		break;
	case 6:
		b1(c, 0x8d);
		memory(c, reg8(c), p.p67);
		break;
	case 7:
		b1(c, 0x90 + rng_below(c->r, 10));
		break;
	case 8:
		b1(c, 0xa0 + rng_below(c->r, 4));
		bn(c, generate_address(c->r), c->wide != p.p67 ? 4 : 2);
		break;
	case 9:
		n = rng_below(c->r, 16);
		b1(c, 0xb0 + n);
		immediate(c, n < 8, p);
		break;
	case 10: /* shifts */
		n = rng_below(c->r, 3);
		b1(c, (n == 0 ? 0xc0 : n == 1 ? 0xd0 : 0xd2) + w);
		modrm(c, reg8(c), p);
		if (n == 0)
			b1(c, generate_value(c->r));
		break;
	case 11:
		b1(c, 0xc6 + w);
		modrm(c, 0, p);
		immediate(c, !w, p);
		break;
	case 12: /* test, not, neg, mul, imul, div, idiv */
		n = reg8(c);
		b1(c, 0xf6 + w);
		modrm(c, n, p);
		if (n < 2)
			immediate(c, !w, p);
		break;
	case 13:
		b1(c, 0xfe + w);
		modrm(c, rng_below(c->r, 2), p);
		break;
	case 14:
		n = rng_below(c->r, 2);
		b1(c, n ? 0x69 : 0x6b);
		modrm(c, reg8(c), p);
		immediate(c, !n, p);
		break;
	default: { /* bcd, flags, xlat, bound, arpl */
		static const uint8_t op[] = {0x27, 0x2f, 0x37, 0x3f, 0xd6, 0xd7, 0xf5, 0xf8, 0xf9, 0xfc,
					     0xfd, 0x98, 0x99, 0x9e, 0x9f, 0xd4, 0xd5, 0x62, 0x63};
		uint8_t o = RNG_PICK(c->r, op);
		b1(c, o);
		if (o == 0xd4 || o == 0xd5)
			b1(c, rng_below(c->r, 12));
		else if (o == 0x62)
			memory(c, reg8(c), p.p67);
		else if (o == 0x63)
			modrm(c, reg8(c), p);
	}
	}
}

static void integer_0f(struct code *c)
{
	static const uint8_t op[] = {0xa3, 0xab, 0xb3, 0xbb, 0xa5, 0xad, 0xaf, 0xb0, 0xb1, 0xc0,
				     0xc1, 0xb6, 0xb7, 0xbe, 0xbf, 0xbc, 0xbd, 0x1f, 0x0d};
	struct prefixes p = prefix(c, true);

	b1(c, 0x0f);
	switch (rng_below(c->r, 7)) {
	case 0:
		b1(c, 0x40 + rng_below(c->r, 16));
		modrm(c, reg8(c), p);
		break;
	case 1:
		b1(c, 0x90 + rng_below(c->r, 16));
		modrm(c, 0, p);
		break;
	case 2:
		b1(c, 0xba);
		modrm(c, 4 + rng_below(c->r, 4), p);
		b1(c, generate_value(c->r));
		break;
	case 3:
		b1(c, rng_below(c->r, 2) ? 0xa4 : 0xac);
		modrm(c, reg8(c), p);
		b1(c, rng_below(c->r, 40));
		break;
	case 4:
		if (rng_below(c->r, 2)) {
			b1(c, 0xc8 + reg8(c));
		} else {
			b1(c, 0xc7);
			memory(c, 1, p.p67);
		}
		break;
	default:
		b1(c, RNG_PICK(c->r, op));
		modrm(c, reg8(c), p);
	}
}

static void locked(struct code *c)
{
	static const uint8_t op[] = {0x00, 0x01, 0x09, 0x11, 0x21, 0x29, 0x31, 0x86, 0x87};

	b1(c, 0xf0);
	b1(c, RNG_PICK(c->r, op));
	memory(c, reg8(c), false);
}

static void stack(struct code *c)
{
	struct prefixes p = prefix(c, false);
	unsigned n;

	switch (rng_below(c->r, 12)) {
	case 0 ... 2: /* runs */
		for (n = 1 + rng_below(c->r, 9); n; n--)
			b1(c, (rng_below(c->r, 8) ? 0x50 : 0x58) + reg8(c));
		break;
	case 3 ... 4:
		for (n = 1 + rng_below(c->r, 5); n; n--)
			b1(c, 0x58 + reg8(c));
		break;
	case 5:
		b1(c, 0x68);
		immediate(c, false, p);
		break;
	case 6:
		b1(c, 0x6a);
		b1(c, generate_value(c->r));
		break;
	case 7:
		b1(c, 0xff);
		modrm(c, 6, p);
		break;
	case 8:
		b1(c, 0x8f);
		modrm(c, 0, p);
		break;
	case 9:
		b1(c, 0x60 + rng_below(c->r, 2));
		break;
	case 10:
		b1(c, 0x9c + rng_below(c->r, 2));
		break;
	default:
		if (rng_below(c->r, 2)) {
			b1(c, 0xc9);
		} else {
			b1(c, 0xc8);
			bn(c, rng_below(c->r, 64), 2);
			b1(c, rng_below(c->r, 4));
		}
	}
}

static void string(struct code *c)
{
	static const uint8_t op[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0x6c, 0x6e};

	if (rng_percent(c->r, 75)) { /* mov edi, mov esi, mov ecx */
		for (unsigned reg = 6; reg <= 7; reg++) {
			b1(c, 0xb8 + reg);
			bn(c, generate_address(c->r), c->wide ? 4 : 2);
		}
		b1(c, 0xb9);
		bn(c, rng_below(c->r, rng_percent(c->r, 80) ? 20 : 5000), c->wide ? 4 : 2);
	}
	prefix(c, false);
	if (rng_percent(c->r, 75))
		b1(c, 0xf2 + rng_below(c->r, 2));
	b1(c, RNG_PICK(c->r, op));
}

static void fpu(struct code *c)
{
	struct prefixes p = prefix(c, false);
	static const uint8_t mandatory[] = {0, 0, 0x66, 0xf2, 0xf3};
	static const struct {
		uint8_t first, last;
	} sse[] = {{0x10, 0x17}, {0x28, 0x2f}, {0x50, 0x7f}, {0xc2, 0xc2}, {0xc4, 0xc6}, {0xd0, 0xff}};
	unsigned op, reg = reg8(c);

	if (rng_below(c->r, 2)) {
		op = rng_below(c->r, 8);
		b1(c, 0xd8 + op);
		if ((op == 1 || op == 5) && reg == 6)
			reg = 0;
		modrm(c, reg, p);
		return;
	}
	uint8_t m = RNG_PICK(c->r, mandatory);
	if (m)
		b1(c, m);
	unsigned s = rng_below(c->r, sizeof sse / sizeof sse[0]);
	op = sse[s].first + rng_below(c->r, sse[s].last - sse[s].first + 1u);
	b1(c, 0x0f);
	b1(c, op);
	modrm(c, reg, p);
	if ((op >= 0x70 && op <= 0x73) || op == 0xc2 || (op >= 0xc4 && op <= 0xc6))
		b1(c, generate_value(c->r));
}

/* A place in the code, the better part of them instruction starts nearby. */
static uint32_t target(struct code *c)
{
	if (rng_percent(c->r, 70))
		return c->at + c->n + rng_below(c->r, 48);
	if (rng_percent(c->r, 40))
		return c->at + rng_below(c->r, c->n + 1u);
	return AT_CODE + rng_below(c->r, CODE_PAGES * 0x1000) + (rng_percent(c->r, 15) ? 0xc0000000 : 0);
}

static void relative(struct code *c, unsigned size)
{
	uint32_t from = c->at + c->n + size;

	bn(c, target(c) - from, size);
}

static void branch(struct code *c)
{
	unsigned full = c->wide ? 4 : 2;

	switch (rng_below(c->r, 12)) {
	case 0 ... 2:
		b1(c, 0x70 + rng_below(c->r, 16));
		b1(c, rng_percent(c->r, 85) ? rng_below(c->r, 24) : (uint8_t)rng_next(c->r));
		break;
	case 3:
		b1(c, 0x0f);
		b1(c, 0x80 + rng_below(c->r, 16));
		relative(c, full);
		break;
	case 4:
		b1(c, 0xe9);
		relative(c, full);
		break;
	case 5 ... 6:
		b1(c, 0xe8);
		relative(c, full);
		break;
	case 7:
		b1(c, 0xe0 + rng_below(c->r, 4));
		b1(c, rng_percent(c->r, 70) ? rng_below(c->r, 16) : 0xf0 + rng_below(c->r, 16));
		break;
	case 8: /* mov reg, target; jmp or call reg */
	{
		unsigned reg = reg8(c);
		if (reg == ESP)
			reg = EAX;
		b1(c, 0xb8 + reg);
		bn(c, target(c), full);
		b1(c, 0xff);
		b1(c, (rng_below(c->r, 2) ? 0xd0 : 0xe0) | reg);
		break;
	}
	case 9:
		b1(c, 0xc3);
		break;
	case 10:
		if (rng_below(c->r, 2)) {
			b1(c, 0xc2);
			bn(c, 4 * rng_below(c->r, 4), 2);
		} else { /* push target; ret */
			b1(c, 0x68);
			bn(c, target(c), full);
			b1(c, 0xc3);
		}
		break;
	default:
		b1(c, 0xff);
		memory(c, rng_below(c->r, 2) ? 2 : 4, false);
	}
}

/* mov ecx, n; body; loop, or dec/jnz on ebp: blocks that run often enough to be chained. */
static void integer(struct code *c);
static void loop(struct code *c)
{
	unsigned start, n = 1 + rng_below(c->r, 4);
	bool by_ebp = rng_below(c->r, 2);

	b1(c, by_ebp ? 0xbd : 0xb9);
	bn(c, 2 + rng_below(c->r, 20), c->wide ? 4 : 2);
	start = c->n;
	while (n--) {
		switch (rng_below(c->r, 4)) {
		case 0:
			stack(c);
			break;
		case 1:
			integer_0f(c);
			break;
		default:
			integer(c);
		}
	}
	if (c->n - start > 110)
		return;
	if (by_ebp)
		b1(c, 0x4d);
	b1(c, by_ebp ? 0x75 : 0xe2);
	b1(c, start - (c->n + 1));
}

/* call f; ... f: body; ret, with the stack now and then tampered with. */
static void routine(struct code *c)
{
	unsigned at = c->n, end;

	b1(c, 0xe8);
	bn(c, 0, c->wide ? 4 : 2);
	at = c->n;
	for (unsigned n = 1 + rng_below(c->r, 2); n; n--)
		integer(c);
	b1(c, 0xeb);
	b1(c, 0);
	end = c->n;
	if (end >= c->room)
		return;
	for (unsigned i = 0; i < (c->wide ? 4u : 2u); i++)
		c->p[at - (c->wide ? 4 : 2) + i] = (uint8_t)((end - at) >> 8 * i);
	if (rng_percent(c->r, 30))
		stack(c);
	else
		integer(c);
	b1(c, 0xc3);
	c->p[end - 1] = (uint8_t)(c->n - end);
}

/* A store into code: near ahead, this page, another. */
static void modify(struct code *c)
{
	uint32_t to = rng_percent(c->r, 60) ? c->at + c->n + rng_below(c->r, 40)
					    : AT_CODE + rng_below(c->r, CODE_PAGES * 0x1000);

	if (rng_percent(c->r, 20))
		to += 0xc0000000;
	switch (rng_below(c->r, 4)) {
	case 0: /* mov byte [to], imm */
		BYTES(c, "\xc6\x05");
		bn(c, to, 4);
		b1(c, rng_percent(c->r, 50) ? 0x40 + rng_below(c->r, 16) : 0x90);
		break;
	case 1: /* mov dword [to], imm */
		BYTES(c, "\xc7\x05");
		bn(c, to, 4);
		bn(c, rng_percent(c->r, 50) ? 0x90909090 : 0x41424340 + rng_below(c->r, 8), 4);
		break;
	case 2: /* inc byte [to] */
		BYTES(c, "\xfe\x05");
		bn(c, to, 4);
		break;
	default: /* mov edi, to; mov ecx, n; mov al, nop; rep stosb */
		b1(c, 0xbf);
		bn(c, to, 4);
		b1(c, 0xb9);
		bn(c, 1 + rng_below(c->r, 12), 4);
		BYTES(c, "\xb0\x90\xf3\xaa");
	}
}

/* An entry of a page table changed, with what makes the change count. */
static void retable(struct code *c)
{
	uint32_t entry = AT_TABLES + 4 * rng_below(c->r, 0x1400), page = rng_below(c->r, CASE_RAM >> 12);

	if (rng_percent(c->r, 60)) /* of a page in use */
		entry = AT_TABLES + 0x1000 * rng_below(c->r, 5) +
			4 * (rng_percent(c->r, 50) ? 0x20 + rng_below(c->r, 8) : 0x10 + rng_below(c->r, 5));
	switch (rng_below(c->r, 3)) {
	case 0: /* mov dword [entry], pte */
		BYTES(c, "\xc7\x05");
		bn(c, entry, 4);
		bn(c, page << 12 | (rng_below(c->r, 0x200) & ~0x80u) | rng_percent(c->r, 80), 4);
		break;
	case 1: /* xor byte [entry], bits */
		BYTES(c, "\x80\x35");
		bn(c, entry, 4);
		b1(c, 1u << rng_below(c->r, 8));
		break;
	default: /* and byte [entry], ~bits */
		BYTES(c, "\x80\x25");
		bn(c, entry, 4);
		b1(c, (uint8_t)rng_next(c->r));
	}
	if (rng_percent(c->r, 50)) {
		BYTES(c, "\x0f\x20\xd8\x0f\x22\xd8"); /* mov eax, cr3; mov cr3, eax */
	} else {
		BYTES(c, "\x0f\x01\x3d"); /* invlpg */
		bn(c, (entry & 0xfff) << 10, 4);
	}
}

static void control_register(struct code *c)
{
	static const uint32_t cr0[] = {CR0_TS, CR0_EM, CR0_MP, CR0_NE, CR0_WP, CR0_AM, CR0_PG, CR0_CD};
	static const uint32_t cr4[] = {CR4_VME, CR4_PVI, CR4_TSD,    CR4_DE,	    CR4_PSE,
				       CR4_PAE, CR4_PGE, CR4_OSFXSR, CR4_OSXMMEXCPT};
	bool four = rng_below(c->r, 2);

	BYTES(c, "\x0f\x20");
	b1(c, four ? 0xe0 : 0xc0); /* mov eax, cr */
	b1(c, 0x35);		   /* xor eax, bit */
	bn(c, four ? RNG_PICK(c->r, cr4) : RNG_PICK(c->r, cr0), 4);
	BYTES(c, "\x0f\x22");
	b1(c, four ? 0xe0 : 0xc0);
}

static void system_insn(struct code *c)
{
	static const uint8_t selectors[] = {0,	  0x08, 0x10, 0x1b, 0x23, 0x28, 0x30, 0x38, 0x40,
					    0x48, 0x50, 0x58, 0x60, 0x6b, 0x73, 0x78, 0x80, 0x88,
					    0x90, 0x99, 0xa1, 0x0c, 0x0f, 0x14, 0x17, 0xb0};
	static const uint8_t seg_ops[] = {0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f};
	struct prefixes none = {0};
	unsigned n = rng_below(c->r, 26), reg;

	switch (n) {
	case 0:
		b1(c, 0xfa + rng_below(c->r, 2)); /* cli, sti */
		break;
	case 1:
		BYTES(c, "\x0f\x00");
		modrm(c, rng_below(c->r, 6), none);
		break;
	case 2:
		BYTES(c, "\x0f\x01");
		reg = rng_below(c->r, 8);
		if (reg == 2 || reg == 3) /* lgdt, lidt: rarely a good idea */
			reg = rng_percent(c->r, 80) ? 4 : reg;
		modrm(c, reg, none);
		break;
	case 3 ... 4:
		control_register(c);
		break;
	case 5:
		b1(c, 0x0f);
		b1(c, 0x20 + rng_below(c->r, 4));
		b1(c, 0xc0 | (uint8_t)rng_next(c->r));
		break;
	case 6:
		BYTES(c, "\x0f\x06");
		break;
	case 7: /* in, out */
		b1(c, 0xe4 + rng_below(c->r, 4));
		b1(c, 0x60 + rng_below(c->r, 0x20));
		break;
	case 8:
		b1(c, 0xec + rng_below(c->r, 4));
		break;
	case 9: { /* mov ecx, msr; rdmsr or wrmsr */
		static const uint32_t msrs[] = {0x174, 0x175, 0x176, 0x277, 0xc0000080,
						0x2ff, 0x1b,  0x200, 0x1a0};
		b1(c, 0xb9);
		bn(c, RNG_PICK(c->r, msrs), 4);
		b1(c, 0x0f);
		b1(c, rng_below(c->r, 2) ? 0x30 : 0x32);
		break;
	}
	case 10 ... 12: /* mov ax, selector; mov sreg, ax; now and then what stands after it is shadowed */
		b1(c, 0xb8);
		bn(c, RNG_PICK(c->r, selectors), c->wide ? 4 : 2);
		b1(c, 0x8e);
		b1(c, 0xc0 | rng_below(c->r, 6) << 3);
		break;
	case 13:
		b1(c, RNG_PICK(c->r, seg_ops));
		break;
	case 14:
		b1(c, 0x0f);
		b1(c, (rng_below(c->r, 2) ? 0xa0 : 0xa8) + rng_below(c->r, 2));
		break;
	case 15: { /* les lds lss lfs lgs */
		static const uint8_t op[] = {0xb2, 0xb4, 0xb5, 0xc4, 0xc5};
		uint8_t o = RNG_PICK(c->r, op);
		if (o < 0xc0)
			b1(c, 0x0f);
		b1(c, o);
		memory(c, reg8(c), false);
		break;
	}
	case 16: /* far call, far jmp */
		b1(c, rng_below(c->r, 2) ? 0x9a : 0xea);
		bn(c, rng_percent(c->r, 70) ? c->at + c->n + 6 : target(c), c->wide ? 4 : 2);
		bn(c, RNG_PICK(c->r, selectors), 2);
		break;
	case 17:
		b1(c, 0xff);
		memory(c, rng_below(c->r, 2) ? 3 : 5, false);
		break;
	case 18:
		b1(c, 0xca + rng_below(c->r, 2));
		bn(c, 0, 2);
		break;
	case 19:
		b1(c, 0xcf);
		break;
	case 20:
		b1(c, 0xcd);
		b1(c, rng_percent(c->r, 60) ? 0x20 + rng_below(c->r, 0x20) : (uint8_t)rng_next(c->r));
		break;
	case 21: {
		static const uint8_t op[] = {0xcc, 0xce, 0xf1};
		b1(c, RNG_PICK(c->r, op));
		break;
	}
	case 22:
		b1(c, 0x0f);
		b1(c, 0x34 + rng_below(c->r, 2));
		break;
	case 23: /* lar, lsl */
		b1(c, 0x0f);
		b1(c, 2 + rng_below(c->r, 2));
		modrm(c, reg8(c), none);
		break;
	case 24: /* pushf; xor dword [esp], bits; popf */
		if (c->wide) {
			static const uint32_t bits[] = {FL_TF, FL_IF, FL_DF,   FL_NT,
							FL_AC, FL_ID, FL_IOPL, FL_OF};
			BYTES(c, "\x9c\x81\x34\x24");
			bn(c, RNG_PICK(c->r, bits), 4);
			b1(c, 0x9d);
		}
		break;
	default: {
		static const uint8_t op[] = {0x08, 0x09, 0xa2, 0x0b, 0x77};
		b1(c, 0x0f);
		b1(c, RNG_PICK(c->r, op));
	}
	}
}

static void noise(struct code *c)
{
	for (unsigned n = 1 + rng_below(c->r, 12); n; n--)
		b1(c, (unsigned)rng_next(c->r));
}

/* Registers brought back to where they are useful. */
static void aim(struct code *c)
{
	unsigned reg = reg8(c);

	if (reg == ESP)
		reg = ESI;
	b1(c, 0xb8 + reg);
	bn(c, generate_address(c->r), c->wide ? 4 : 2);
}

static void one(struct code *c)
{
	unsigned n = rng_below(c->r, 100);

	if (n < 34)
		integer(c);
	else if (n < 42)
		integer_0f(c);
	else if (n < 45)
		locked(c);
	else if (n < 55)
		stack(c);
	else if (n < 60)
		string(c);
	else if (n < 67)
		fpu(c);
	else if (n < 74)
		branch(c);
	else if (n < 78)
		loop(c);
	else if (n < 81)
		routine(c);
	else if (n < 83)
		modify(c);
	else if (n < 85)
		retable(c);
	else if (n < 91)
		system_insn(c);
	else if (n < 92)
		noise(c);
	else
		aim(c);
}

void generate_code(struct rng *r, uint8_t *p, unsigned n, uint32_t at, bool code32)
{
	struct code c = {.r = r, .p = p, .room = n, .at = at, .wide = code32};

	while (c.n < c.room)
		one(&c);
}
