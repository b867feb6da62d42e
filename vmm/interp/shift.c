/* shift.c - shifts and rotates, single and double. The count is masked to five bits by the host as by the
 * guest. */
#include "vmm/interp/alu.h"
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

#define SHIFT_BY(name, bits, count)                                                                          \
	do {                                                                                                 \
		uint##bits##_t d_;                                                                           \
		uint32_t lin_, fl_ = c->flags;                                                               \
		if (rmw##bits(c, i, &d_, &lin_))                                                             \
			return -1;                                                                           \
		d_ = alu_##name##bits(&fl_, d_, (uint8_t)(count));                                           \
		if (set_rmw##bits(c, i, d_, lin_))                                                           \
			return -1;                                                                           \
		c->flags = fl_;                                                                              \
		return INSN_NEXT;                                                                            \
	} while (0)

#define SHIFT(name)                                                                                          \
	int op_##name##_eb_ib(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		SHIFT_BY(name, 8, i->imm);                                                                   \
	}                                                                                                    \
	int op_##name##_ev_ib(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			SHIFT_BY(name, 32, i->imm);                                                          \
		SHIFT_BY(name, 16, i->imm);                                                                  \
	}                                                                                                    \
	int op_##name##_eb_1(struct vcpu *c, const struct insn *i)                                           \
	{                                                                                                    \
		SHIFT_BY(name, 8, 1);                                                                        \
	}                                                                                                    \
	int op_##name##_ev_1(struct vcpu *c, const struct insn *i)                                           \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			SHIFT_BY(name, 32, 1);                                                               \
		SHIFT_BY(name, 16, 1);                                                                       \
	}                                                                                                    \
	int op_##name##_eb_cl(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		SHIFT_BY(name, 8, c->gpr[ECX]);                                                              \
	}                                                                                                    \
	int op_##name##_ev_cl(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			SHIFT_BY(name, 32, c->gpr[ECX]);                                                     \
		SHIFT_BY(name, 16, c->gpr[ECX]);                                                             \
	}

SHIFT(rol)
SHIFT(ror)
SHIFT(rcl)
SHIFT(rcr)
SHIFT(shl)
SHIFT(shr)
SHIFT(sar)

#define DOUBLE_BY(name, bits, count)                                                                         \
	do {                                                                                                 \
		uint##bits##_t d_;                                                                           \
		uint32_t lin_, fl_ = c->flags;                                                               \
		if (rmw##bits(c, i, &d_, &lin_))                                                             \
			return -1;                                                                           \
		d_ = alu_##name##bits(&fl_, d_, reg##bits(c, i->reg), (uint8_t)(count));                     \
		if (set_rmw##bits(c, i, d_, lin_))                                                           \
			return -1;                                                                           \
		c->flags = fl_;                                                                              \
		return INSN_NEXT;                                                                            \
	} while (0)

#define DOUBLE_SHIFT(name)                                                                                   \
	int op_##name##_ib(struct vcpu *c, const struct insn *i)                                             \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			DOUBLE_BY(name, 32, i->imm);                                                         \
		DOUBLE_BY(name, 16, i->imm);                                                                 \
	}                                                                                                    \
	int op_##name##_cl(struct vcpu *c, const struct insn *i)                                             \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			DOUBLE_BY(name, 32, c->gpr[ECX]);                                                    \
		DOUBLE_BY(name, 16, c->gpr[ECX]);                                                            \
	}

DOUBLE_SHIFT(shld)
DOUBLE_SHIFT(shrd)
