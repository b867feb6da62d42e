/* branch.c - near control transfer. Targets are checked against the CS limit before anything changes. */
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

static int jump_to(struct vcpu *c, const struct insn *i, uint32_t target)
{
	if (i->opsize == 2)
		target &= 0xffffu;
	if (target > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	c->eip = target;
	return INSN_JUMPED;
}

static int jump_rel(struct vcpu *c, const struct insn *i)
{
	return jump_to(c, i, c->eip + i->len + i->imm);
}

int op_jcc(struct vcpu *c, const struct insn *i)
{
	return interp_cond(c, i->opcode) ? jump_rel(c, i) : INSN_NEXT;
}

int op_jmp_rel(struct vcpu *c, const struct insn *i)
{
	return jump_rel(c, i);
}

int op_jmp_ev(struct vcpu *c, const struct insn *i)
{
	uint32_t target;

	if (rm_value(c, i, i->opsize, &target))
		return -1;
	return jump_to(c, i, target);
}

static int call_to(struct vcpu *c, const struct insn *i, uint32_t target)
{
	uint32_t sp = c->gpr[ESP];

	if (i->opsize == 2)
		target &= 0xffffu;
	if (target > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	if (stack_push(c, &sp, i->opsize, c->eip + i->len))
		return -1;
	stack_set(c, sp);
	c->eip = target;
	return INSN_JUMPED;
}

int op_call_rel(struct vcpu *c, const struct insn *i)
{
	return call_to(c, i, c->eip + i->len + i->imm);
}

int op_call_ev(struct vcpu *c, const struct insn *i)
{
	uint32_t target;

	if (rm_value(c, i, i->opsize, &target))
		return -1;
	return call_to(c, i, target);
}

/* RET and RET imm16 (imm is 0 for the former). */
int op_ret(struct vcpu *c, const struct insn *i)
{
	uint32_t sp = c->gpr[ESP], target;

	if (stack_pop(c, &sp, i->opsize, &target))
		return -1;
	if (target > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	stack_set(c, sp + i->imm);
	c->eip = target;
	return INSN_JUMPED;
}

static uint32_t count_get(const struct vcpu *c, const struct insn *i)
{
	return i->adsize == 4 ? c->gpr[ECX] : c->gpr[ECX] & 0xffffu;
}

static int loop_if(struct vcpu *c, const struct insn *i, bool cond)
{
	uint32_t n = count_get(c, i) - 1, target = c->eip + i->len + i->imm;

	if (i->adsize == 2)
		n &= 0xffffu;
	if (i->opsize == 2)
		target &= 0xffffu;
	cond = cond && n != 0;
	if (cond && target > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	set_reg(c, ECX, n, i->adsize);
	if (!cond)
		return INSN_NEXT;
	c->eip = target;
	return INSN_JUMPED;
}

/* LOOPNE and LOOPE (E0, E1). A repeat prefix takes the place of the opcode's condition: the SDM is silent,
 * silicon does. */
int op_loop_zf(struct vcpu *c, const struct insn *i)
{
	bool equal = i->opcode & 1;

	if (i->prefix & (INSN_REP | INSN_REPNE))
		equal = i->prefix & INSN_REP;
	return loop_if(c, i, !(c->flags & FL_ZF) != equal);
}

int op_loop(struct vcpu *c, const struct insn *i)
{
	return loop_if(c, i, true);
}

int op_jcxz(struct vcpu *c, const struct insn *i)
{
	return count_get(c, i) == 0 ? jump_rel(c, i) : INSN_NEXT;
}
