/* arith.c - ADD OR ADC SBB AND SUB XOR CMP TEST INC DEC NEG NOT in all their forms. */
#include "vmm/interp/alu.h"
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

/* r/m op= value for one operand size. */
#define RMW(name, bits, value)                                                                               \
	do {                                                                                                 \
		uint##bits##_t d_;                                                                           \
		uint32_t lin_, fl_ = c->flags;                                                               \
		if (rmw##bits(c, i, &d_, &lin_))                                                             \
			return -1;                                                                           \
		d_ = alu_##name##bits(&fl_, d_, (uint##bits##_t)(value));                                    \
		if (set_rmw##bits(c, i, d_, lin_))                                                           \
			return -1;                                                                           \
		c->flags = fl_;                                                                              \
		return INSN_NEXT;                                                                            \
	} while (0)

/* Flags of r/m op value. */
#define COMPARE(name, bits, value)                                                                           \
	do {                                                                                                 \
		uint##bits##_t d_;                                                                           \
		if (rm##bits(c, i, &d_))                                                                     \
			return -1;                                                                           \
		alu_##name##bits(&c->flags, d_, (uint##bits##_t)(value));                                    \
		return INSN_NEXT;                                                                            \
	} while (0)

/* reg op= r/m. keep: CMP, which leaves the register. */
#define TO_REG(name, bits, keep)                                                                             \
	do {                                                                                                 \
		uint##bits##_t s_, d_;                                                                       \
		if (rm##bits(c, i, &s_))                                                                     \
			return -1;                                                                           \
		d_ = alu_##name##bits(&c->flags, reg##bits(c, i->reg), s_);                                  \
		if (!(keep))                                                                                 \
			set_reg##bits(c, i->reg, d_);                                                        \
		return INSN_NEXT;                                                                            \
	} while (0)

#define TO_ACC(name, bits, keep)                                                                             \
	do {                                                                                                 \
		uint##bits##_t d_ = alu_##name##bits(&c->flags, reg##bits(c, EAX), (uint##bits##_t)i->imm);  \
		if (!(keep))                                                                                 \
			set_reg##bits(c, EAX, d_);                                                           \
		return INSN_NEXT;                                                                            \
	} while (0)

/* The forms that write no r/m: Gb,Eb  Gv,Ev  AL,Ib  eAX,Iv. */
#define REG_FORMS(name, keep)                                                                                \
	int op_##name##_gb_eb(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		TO_REG(name, 8, keep);                                                                       \
	}                                                                                                    \
	int op_##name##_gv_ev(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			TO_REG(name, 32, keep);                                                              \
		TO_REG(name, 16, keep);                                                                      \
	}                                                                                                    \
	int op_##name##_al_ib(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		TO_ACC(name, 8, keep);                                                                       \
	}                                                                                                    \
	int op_##name##_eax_iv(struct vcpu *c, const struct insn *i)                                         \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			TO_ACC(name, 32, keep);                                                              \
		TO_ACC(name, 16, keep);                                                                      \
	}

/* The forms on r/m: Eb,Gb  Ev,Gv  Eb,Ib  Ev,Iv (and Ib sign-extended). */
#define RM_FORMS(name, how)                                                                                  \
	int op_##name##_eb_gb(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		how(name, 8, reg8(c, i->reg));                                                               \
	}                                                                                                    \
	int op_##name##_ev_gv(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			how(name, 32, c->gpr[i->reg]);                                                       \
		how(name, 16, c->gpr[i->reg]);                                                               \
	}                                                                                                    \
	int op_##name##_eb_ib(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		how(name, 8, i->imm);                                                                        \
	}                                                                                                    \
	int op_##name##_ev_iv(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			how(name, 32, i->imm);                                                               \
		how(name, 16, i->imm);                                                                       \
	}

#define ARITH(name)                                                                                          \
	RM_FORMS(name, RMW)                                                                                  \
	REG_FORMS(name, 0)

ARITH(add)
ARITH(or)
ARITH(adc)
ARITH(sbb)
ARITH(and)
ARITH(sub)
ARITH(xor)
RM_FORMS(cmp, COMPARE)
REG_FORMS(cmp, 1)

RM_FORMS(test, COMPARE)

int op_test_al_ib(struct vcpu *c, const struct insn *i)
{
	TO_ACC(test, 8, 1);
}

int op_test_eax_iv(struct vcpu *c, const struct insn *i)
{
	if (i->opsize == 4)
		TO_ACC(test, 32, 1);
	TO_ACC(test, 16, 1);
}

#define RMW_UNARY(name, bits)                                                                                \
	do {                                                                                                 \
		uint##bits##_t d_;                                                                           \
		uint32_t lin_, fl_ = c->flags;                                                               \
		if (rmw##bits(c, i, &d_, &lin_))                                                             \
			return -1;                                                                           \
		d_ = alu_##name##bits(&fl_, d_);                                                             \
		if (set_rmw##bits(c, i, d_, lin_))                                                           \
			return -1;                                                                           \
		c->flags = fl_;                                                                              \
		return INSN_NEXT;                                                                            \
	} while (0)

#define UNARY(name)                                                                                          \
	int op_##name##_eb(struct vcpu *c, const struct insn *i)                                             \
	{                                                                                                    \
		RMW_UNARY(name, 8);                                                                          \
	}                                                                                                    \
	int op_##name##_ev(struct vcpu *c, const struct insn *i)                                             \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			RMW_UNARY(name, 32);                                                                 \
		RMW_UNARY(name, 16);                                                                         \
	}

UNARY(inc)
UNARY(dec)
UNARY(neg)
UNARY(not )

int op_inc_r(struct vcpu *c, const struct insn *i)
{
	unsigned r = i->opcode & 7u;

	if (i->opsize == 4)
		c->gpr[r] = alu_inc32(&c->flags, c->gpr[r]);
	else
		set_reg16(c, r, alu_inc16(&c->flags, reg16(c, r)));
	return INSN_NEXT;
}

int op_dec_r(struct vcpu *c, const struct insn *i)
{
	unsigned r = i->opcode & 7u;

	if (i->opsize == 4)
		c->gpr[r] = alu_dec32(&c->flags, c->gpr[r]);
	else
		set_reg16(c, r, alu_dec16(&c->flags, reg16(c, r)));
	return INSN_NEXT;
}
