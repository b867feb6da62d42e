/* sse_exceptions.c - MXCSR and SIMD floating-point exceptions.
 *
 * SIMD exceptions are precise: an unmasked one discards the result and raises #XM at the instruction. The
 * host must not take it, so the stub is run with all exceptions masked and the flags clear; the flags then
 * tell what was detected, and if the guest has one of those unmasked, the result is thrown away.
 *
 * Masked and unmasked detection differ in two places (SDM vol. 1 4.9.1.4 to 4.9.1.6):
 *   - Masked, UE asks for a result that is tiny and inexact; unmasked, tiny is enough. With FTZ set and
 * underflow masked, UE is set for every tiny result: so a guest that has underflow unmasked is run with FTZ,
 * which changes nothing when no result is tiny, and when one is, the result is not wanted.
 *   - Masked, overflow and a denormalized result are inexact. Unmasked, PE tells whether the result would
 * have been inexact if the exponent had no bounds. That is computed on the x87, whose exponent has none as
 * far as these formats are concerned (inexact).
 */
#include "vmm/interp/hostunit.h"
#include "vmm/interp/interp.h"

#define MXCSR_OE_UE 0x00000018u
#define MXCSR_PE    0x00000020u
#define MXCSR_DAZ   0x00000040u

/* ------------------------------------------------------------------ running */

static uint32_t run_masked(const void *code, struct hostunit_frame *f, uint32_t mxcsr)
{
	fx_put32(f->image, FX_MXCSR, (mxcsr & ~MXCSR_EXC) | MXCSR_MASKS);
	hostunit_run(f, code);
	return fx_get32(f->image, FX_MXCSR) & MXCSR_EXC;
}

/* The flags that code raises under mxcsr, of which unmasked are unmasked. If none of those is among them, f
 * has the results. */
static uint32_t run_unmasked(const void *code, struct hostunit_frame *f, uint32_t mxcsr, uint32_t unmasked)
{
	struct hostunit_frame again;
	uint32_t raised;

	if (!(unmasked & MXCSR_UE))
		return run_masked(code, f, mxcsr);
	again = *f;
	raised = run_masked(code, f, mxcsr | MXCSR_FTZ);
	if (raised & MXCSR_UE) /* FTZ has set PE too: see without it */
		raised = run_masked(code, &again, mxcsr & ~MXCSR_FTZ) | MXCSR_UE;
	return raised;
}

/* ------------------------------------------------------------------ inexact with an unbounded exponent */

/* What the instructions that can overflow or underflow compute. */
enum arith { ARITH_ADD, ARITH_SUB, ARITH_MUL, ARITH_DIV, ARITH_NARROW, ARITH_ADDSUB };

struct arith_row {
	uint16_t mnemonic;
	uint8_t what;  /* enum arith */
	uint8_t size;  /* bytes of an element */
	uint8_t count; /* results */
	bool horizontal;
};

static const struct arith_row arith_rows[] = {
	{ZYDIS_MNEMONIC_ADDPS, ARITH_ADD, 4, 4, false},
	{ZYDIS_MNEMONIC_ADDPD, ARITH_ADD, 8, 2, false},
	{ZYDIS_MNEMONIC_ADDSS, ARITH_ADD, 4, 1, false},
	{ZYDIS_MNEMONIC_ADDSD, ARITH_ADD, 8, 1, false},
	{ZYDIS_MNEMONIC_SUBPS, ARITH_SUB, 4, 4, false},
	{ZYDIS_MNEMONIC_SUBPD, ARITH_SUB, 8, 2, false},
	{ZYDIS_MNEMONIC_SUBSS, ARITH_SUB, 4, 1, false},
	{ZYDIS_MNEMONIC_SUBSD, ARITH_SUB, 8, 1, false},
	{ZYDIS_MNEMONIC_MULPS, ARITH_MUL, 4, 4, false},
	{ZYDIS_MNEMONIC_MULPD, ARITH_MUL, 8, 2, false},
	{ZYDIS_MNEMONIC_MULSS, ARITH_MUL, 4, 1, false},
	{ZYDIS_MNEMONIC_MULSD, ARITH_MUL, 8, 1, false},
	{ZYDIS_MNEMONIC_DIVPS, ARITH_DIV, 4, 4, false},
	{ZYDIS_MNEMONIC_DIVPD, ARITH_DIV, 8, 2, false},
	{ZYDIS_MNEMONIC_DIVSS, ARITH_DIV, 4, 1, false},
	{ZYDIS_MNEMONIC_DIVSD, ARITH_DIV, 8, 1, false},
	{ZYDIS_MNEMONIC_CVTPD2PS, ARITH_NARROW, 8, 2, false},
	{ZYDIS_MNEMONIC_CVTSD2SS, ARITH_NARROW, 8, 1, false},
	{ZYDIS_MNEMONIC_ADDSUBPS, ARITH_ADDSUB, 4, 4, false},
	{ZYDIS_MNEMONIC_ADDSUBPD, ARITH_ADDSUB, 8, 2, false},
	{ZYDIS_MNEMONIC_HADDPS, ARITH_ADD, 4, 4, true},
	{ZYDIS_MNEMONIC_HADDPD, ARITH_ADD, 8, 2, true},
	{ZYDIS_MNEMONIC_HSUBPS, ARITH_SUB, 4, 4, true},
	{ZYDIS_MNEMONIC_HSUBPD, ARITH_SUB, 8, 2, true},
};

static const struct arith_row *arith_of(unsigned mnemonic)
{
	for (size_t k = 0; k < sizeof arith_rows / sizeof *arith_rows; k++)
		if (arith_rows[k].mnemonic == mnemonic)
			return &arith_rows[k];
	return NULL;
}

/* MXCSR.DAZ turns denormal operands into zeros. */
static void load_element(uint8_t *to, const uint8_t *from, unsigned size, bool daz)
{
	const uint32_t exponent_mask = size == 4 ? 0x7f800000u : 0x7ff00000u;

	memcpy(to, from, size);
	if (daz && !(fx_get32(to, size - 4) & exponent_mask))
		memset(to, 0, size);
}

/* One of the results is inexact, were the exponent unbounded. */
static bool inexact(const struct arith_row *r, const uint8_t *dst, const uint8_t *src, bool daz)
{
	static const uint8_t one[8] = {0, 0, 0, 0, 0, 0, 0xf0, 0x3f};
	const bool single = r->size == 4 || r->what == ARITH_NARROW;

	for (unsigned k = 0; k < r->count; k++) {
		const uint8_t *at = r->what == ARITH_NARROW ? src + r->size * k : dst + r->size * k;
		const uint8_t *bt = r->what == ARITH_NARROW ? one : src + r->size * k;
		unsigned what = r->what;
		uint8_t a[8], b[8];

		if (r->horizontal) {
			at = (2 * k < r->count ? dst : src) + r->size * (2 * k % r->count);
			bt = at + r->size;
		}
		if (what == ARITH_NARROW)
			what = ARITH_MUL;
		else if (what == ARITH_ADDSUB)
			what = k & 1 ? ARITH_ADD : ARITH_SUB;
		load_element(a, at, r->size, daz);
		load_element(b, bt, r->size, daz);
		if (hostunit_inexact(a, b, what, r->size, single ? 0x007f : 0x027f))
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------ flags at #XM */

/* Exceptions found before computing, on any element, keep those of the computation from arising on every
 * element (SDM vol. 1 11.5.2). */
static uint32_t flags_at_fault(uint32_t raised, uint32_t unmasked, const struct arith_row *r,
			       const uint8_t *dst, const uint8_t *src, uint32_t mxcsr)
{
	if (raised & unmasked & MXCSR_PRE)
		return raised & MXCSR_PRE;
	if (r && (raised & unmasked & MXCSR_OE_UE) && !(raised & ~unmasked & MXCSR_OE_UE) &&
	    !inexact(r, dst, src, mxcsr & MXCSR_DAZ))
		raised &= ~MXCSR_PE;
	return raised;
}

/* DPPS and DPPD compute in steps, and an unmasked exception ends them at its step. The flags are those of the
 * steps before, and of that one as above. */
static uint32_t dot_product_flags(const struct vcpu *c, const struct insn *i, const struct hostunit_op *op,
				  const uint8_t *src, uint32_t mxcsr, uint32_t unmasked)
{
	const bool wide = op->dot == 8;
	const struct {
		const void *code;
		unsigned mnemonic;
	} steps[3] = {
		{wide ? hostunit_mulpd : hostunit_mulps, wide ? ZYDIS_MNEMONIC_MULPD : ZYDIS_MNEMONIC_MULPS},
		{wide ? hostunit_haddpd : hostunit_haddps,
		 wide ? ZYDIS_MNEMONIC_HADDPD : ZYDIS_MNEMONIC_HADDPS},
		{wide ? NULL : hostunit_haddps, ZYDIS_MNEMONIC_HADDPS},
	};
	struct hostunit_frame f;
	uint32_t raised = 0, step;
	uint8_t a[16], b[16];

	fpu_load_frame(c, op, &f);
	memcpy(a, c->fpu.fxsave + FX_XMM + 16 * i->reg, 16);
	memcpy(b, src, 16);
	for (unsigned k = 0; k < 16u / op->dot; k++) { /* immediate bits 4 and up select the products */
		if (!(i->imm >> (4 + k) & 1)) {
			memset(a + op->dot * k, 0, op->dot);
			memset(b + op->dot * k, 0, op->dot);
		}
	}
	for (unsigned k = 0; k < 3 && steps[k].code; k++) {
		memcpy(f.image + FX_XMM, a, 16);
		memcpy(f.image + FX_XMM + 16, b, 16);
		step = run_unmasked(steps[k].code, &f, mxcsr, unmasked);
		if (step & unmasked)
			return raised |
			       flags_at_fault(step, unmasked, arith_of(steps[k].mnemonic), a, b, mxcsr);
		raised |= step;
		memcpy(a, f.image + FX_XMM, 16);
		memcpy(b, a, 16);
	}
	return raised;
}

static uint32_t fault_flags(const struct vcpu *c, const struct insn *i, const struct hostunit_op *op,
			    const struct hostunit_frame *f, uint32_t raised, uint32_t mxcsr,
			    uint32_t unmasked)
{
	const uint8_t *fx = c->fpu.fxsave;
	const uint8_t *dst = fx + FX_XMM + 16 * i->reg;
	const uint8_t *src = op->mem_size ? f->mem : fx + FX_XMM + 16 * i->rm;

	if (op->dot)
		return dot_product_flags(c, i, op, src, mxcsr, unmasked);
	return flags_at_fault(raised, unmasked, arith_of(i->mnemonic), dst, src, mxcsr);
}

int sse_run(struct vcpu *c, const struct insn *i, const struct hostunit_op *op, struct hostunit_frame *f)
{
	const uint32_t mxcsr = fx_get32(c->fpu.fxsave, FX_MXCSR);
	const uint32_t unmasked = ~(mxcsr >> 7) & MXCSR_EXC;
	uint32_t raised;

	if (likely(!unmasked))
		raised = run_masked(op->code, f, mxcsr);
	else
		raised = run_unmasked(op->code, f, mxcsr, unmasked);
	if (likely(!(raised & unmasked))) {
		fx_put32(f->image, FX_MXCSR, mxcsr | raised);
		return 0;
	}
	fx_put32(c->fpu.fxsave, FX_MXCSR, mxcsr | fault_flags(c, i, op, f, raised, mxcsr, unmasked));
	if (op->class == HOSTUNIT_SSE_MMX)
		fpu_enter_mmx(c->fpu.fxsave);
	return cpu_raise(c, c->cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
}
