/* stack.c - PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE. */
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

static int push(struct vcpu *c, unsigned size, uint32_t v)
{
	uint32_t sp = c->gpr[ESP];

	if (stack_push(c, &sp, size, v))
		return -1;
	stack_set(c, sp);
	return INSN_NEXT;
}

int op_push_r(struct vcpu *c, const struct insn *i)
{
	return push(c, i->opsize, c->gpr[i->opcode & 7u]);
}

int op_push_iv(struct vcpu *c, const struct insn *i)
{
	return push(c, i->opsize, i->imm);
}

int op_push_ev(struct vcpu *c, const struct insn *i)
{
	uint32_t v;

	if (rm_value(c, i, i->opsize, &v))
		return -1;
	return push(c, i->opsize, v);
}

/* A 32-bit push of a segment register may write 32 bits or 16 (SDM vol. 2B, PUSH): AMD's CPUs do the former,
 * Intel's the latter. */
int op_push_sreg(struct vcpu *c, const struct insn *i)
{
	unsigned r = i->opmap ? (i->opcode == 0xa0 ? FS : GS) : i->opcode >> 3 & 7u;

	return push(c, i->opsize, c->seg[r].sel);
}

int op_pop_r(struct vcpu *c, const struct insn *i)
{
	uint32_t sp = c->gpr[ESP], v;

	if (stack_pop(c, &sp, i->opsize, &v))
		return -1;
	stack_set(c, sp);
	set_reg(c, i->opcode & 7u, v, i->opsize);
	return INSN_NEXT;
}

/* An address that uses ESP is computed after the increment (SDM vol. 2B, POP). */
int op_pop_ev(struct vcpu *c, const struct insn *i)
{
	uint32_t old = c->gpr[ESP], sp = old, v;

	if (stack_pop(c, &sp, i->opsize, &v))
		return -1;
	stack_set(c, sp);
	if (set_rm_value(c, i, i->opsize, v)) {
		c->gpr[ESP] = old;
		return -1;
	}
	return INSN_NEXT;
}

int op_pop_sreg(struct vcpu *c, const struct insn *i)
{
	unsigned r = i->opmap ? (i->opcode == 0xa1 ? FS : GS) : i->opcode >> 3 & 7u;
	uint32_t sp = c->gpr[ESP], top = sp, mask = stack_mask(c), sel;

	if (stack_pop(c, &top, i->opsize, &sel) || seg_load(c, r, (uint16_t)sel))
		return -1;
	/* The width of the stack pointer is that of the stack popped from. */
	c->gpr[ESP] = (sp & ~mask) | ((sp + i->opsize) & mask);
	if (r == SS)
		interp_shadow(c, true);
	return INSN_NEXT;
}

int op_pusha(struct vcpu *c, const struct insn *i)
{
	uint32_t sp = c->gpr[ESP];

	for (unsigned r = EAX; r <= EDI; r++)
		if (stack_push(c, &sp, i->opsize, c->gpr[r]))
			return -1;
	stack_set(c, sp);
	return INSN_NEXT;
}

int op_popa(struct vcpu *c, const struct insn *i)
{
	uint32_t sp = c->gpr[ESP], v[8];

	for (int r = EDI; r >= EAX; r--)
		if (stack_pop(c, &sp, i->opsize, &v[r]))
			return -1;
	for (unsigned r = EAX; r <= EDI; r++)
		if (r != ESP)
			set_reg(c, r, v[r], i->opsize);
	stack_set(c, sp);
	return INSN_NEXT;
}

int op_enter(struct vcpu *c, const struct insn *i)
{
	unsigned level = i->imm2 & 31u, size = i->opsize;
	uint32_t mask = stack_mask(c), sp = c->gpr[ESP], bp = c->gpr[EBP], frame, v, lin;

	if (stack_push(c, &sp, size, bp))
		return -1;
	frame = (c->gpr[ESP] & ~mask) | sp; /* all of ESP, on a 16-bit stack too */
	for (unsigned k = 1; k < level; k++) {
		uint32_t from;

		bp -= size;
		from = bp & mask;
		if (stack_pop(c, &from, size, &v) || stack_push(c, &sp, size, v))
			return -1;
	}
	if (level > 0 && stack_push(c, &sp, size, frame))
		return -1;
	sp = (sp - (i->imm & 0xffffu)) & mask;
	/* A write to the new top of the stack is checked for, though nothing is written (SDM vol. 2A, ENTER).
	 */
	if (interp_linear(c, SS, sp, size, true, &lin) || mem_probe(c, lin, size, ACC_WRITE | interp_acc(c)))
		return -1;
	stack_set(c, sp);
	set_reg(c, EBP, frame, size);
	return INSN_NEXT;
}

int op_leave(struct vcpu *c, const struct insn *i)
{
	uint32_t sp = c->gpr[EBP], v;

	if (stack_pop(c, &sp, i->opsize, &v))
		return -1;
	stack_set(c, sp);
	set_reg(c, EBP, v, i->opsize);
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ PUSHF, POPF */

/* v8086 with IOPL below 3: with CR4.VME the 16-bit forms work on VIF instead of IF (SDM vol.
 * 3B 20.3.3.4, 20.3.3.6). */
static bool v86_restricted(const struct vcpu *c)
{
	return cpu_v86(c) && cpu_iopl(c) < 3;
}

int op_pushf(struct vcpu *c, const struct insn *i)
{
	uint32_t fl = cpu_eflags(c) & ~(FL_VM | FL_RF);

	if (v86_restricted(c)) {
		if (!(c->cr4 & CR4_VME) || i->opsize != 2)
			return cpu_raise_error(c, VEC_GP, 0);
		fl = (fl & ~FL_IF) | FL_IOPL | (fl & FL_VIF ? FL_IF : 0);
	}
	return push(c, i->opsize, fl);
}

int op_popf(struct vcpu *c, const struct insn *i)
{
	uint32_t sp = c->gpr[ESP], v, may = FL_ARITH | FL_TF | FL_DF | FL_NT | FL_AC | FL_ID;

	if (v86_restricted(c) && (!(c->cr4 & CR4_VME) || i->opsize != 2))
		return cpu_raise_error(c, VEC_GP, 0);
	if (stack_pop(c, &sp, i->opsize, &v))
		return -1;
	if (v86_restricted(c)) {
		if ((v & FL_TF) || ((v & FL_IF) && (c->sysflags & FL_VIP)))
			return cpu_raise_error(c, VEC_GP, 0);
		may |= FL_VIF;
		v = (v & ~FL_VIF) | (v & FL_IF ? FL_VIF : 0);
	} else {
		if (i->opsize == 2)
			may &= 0xffffu;
		if (c->cpl == 0)
			may |= FL_IOPL;
		if (c->cpl <= cpu_iopl(c))
			may |= FL_IF;
	}
	if (i->opsize == 2)
		may &= 0xffffu | FL_VIF;
	cpu_set_eflags(c, (cpu_eflags(c) & ~may) | (v & may));
	stack_set(c, sp);
	return INSN_NEXT;
}
