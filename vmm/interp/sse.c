/* sse.c - SSE instructions that are emulated rather than run. */
#include "vmm/interp/hostunit.h"
#include "vmm/interp/interp.h"

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
