/* sse.c - MXCSR and SIMD exceptions, and the SSE instructions that are emulated rather than run.
 *
 * SIMD exceptions are precise: an unmasked one discards the result and raises #XM at the instruction. The
 * host must not take it, so the stub is run with all exceptions masked and the flags clear; the flags then
 * tell what was detected, and if the guest has one of those unmasked, the result is thrown away. Masked and
 * unmasked detection are the same but for underflow: masked, UE asks for a tiny and inexact result; unmasked,
 * tininess is enough (SDM vol. 1 4.9.1.5). With FTZ set and underflow masked, UE is set for every tiny
 * result; so a guest that has underflow unmasked is run with FTZ, which changes nothing when there is no tiny
 * result, and when there is one, the result is not wanted.
 */
#include "vmm/interp/hostunit.h"
#include "vmm/interp/interp.h"

static uint32_t run_masked(const struct hostunit_op *op, struct hostunit_frame *f, uint32_t mxcsr)
{
	fx_put32(f->image, FX_MXCSR, (mxcsr & ~MXCSR_EXC) | MXCSR_MASKS);
	hostunit_run(f, op->code);
	return fx_get32(f->image, FX_MXCSR) & MXCSR_EXC;
}

/* The flags that an instruction raising an unmasked exception sets: exceptions found before computing, on any
 * element, keep those of the computation from arising on every element (SDM vol. 1 11.5.2.4). */
static uint32_t flags_at_fault(uint32_t raised, uint32_t unmasked)
{
	return raised & unmasked & MXCSR_PRE ? raised & MXCSR_PRE : raised;
}

int sse_run(struct vcpu *c, const struct hostunit_op *op, struct hostunit_frame *f)
{
	const uint32_t mxcsr = fx_get32(c->fpu.fxsave, FX_MXCSR);
	const uint32_t unmasked = ~(mxcsr >> 7) & MXCSR_EXC;
	uint32_t raised;

	if (likely(!unmasked)) {
		raised = run_masked(op, f, mxcsr);
		fx_put32(f->image, FX_MXCSR, mxcsr | raised);
		return 0;
	}
	raised = run_masked(op, f, unmasked & MXCSR_UE ? mxcsr | MXCSR_FTZ : mxcsr);
	if (!(raised & unmasked)) {
		fx_put32(f->image, FX_MXCSR, mxcsr | raised);
		return 0;
	}
	if (raised & unmasked & MXCSR_UE) { /* FTZ has set PE, whether or not the result is inexact */
		fpu_load_frame(c, op, f);
		raised = run_masked(op, f, mxcsr & ~MXCSR_FTZ) | MXCSR_UE;
	}
	fx_put32(c->fpu.fxsave, FX_MXCSR, mxcsr | flags_at_fault(raised, unmasked));
	if (op->class == HOSTUNIT_SSE_MMX)
		fpu_enter_mmx(c->fpu.fxsave);
	return cpu_raise(c, c->cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
}

/* ------------------------------------------------------------------ emulated */

int sse_ldmxcsr(struct vcpu *c, const struct insn *i)
{
	struct fpu_mem m;
	uint32_t v;

	if (fpu_operand(c, i, 4, false, 4, &m) || mem_read32(c, m.lin, &v, interp_acc(c)))
		return -1;
	if (v & ~hostunit_traits.mxcsr_mask)
		return cpu_raise_error(c, VEC_GP, 0);
	fx_put32(c->fpu.fxsave, FX_MXCSR, v);
	return INSN_NEXT;
}

int sse_stmxcsr(struct vcpu *c, const struct insn *i)
{
	struct fpu_mem m;

	if (fpu_operand(c, i, 4, true, 4, &m))
		return -1;
	return mem_write32(c, m.lin, fx_get32(c->fpu.fxsave, FX_MXCSR), interp_acc(c));
}

int sse_movnti(struct vcpu *c, const struct insn *i)
{
	struct fpu_mem m;

	if (fpu_operand(c, i, 4, true, 4, &m))
		return -1;
	return mem_write32(c, m.lin, c->gpr[i->reg], interp_acc(c));
}
