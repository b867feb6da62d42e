/* data.c - moves, exchanges, conversions, conditional data movement, and single-flag instructions. */
#include "vmm/interp/alu.h"
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

/* ------------------------------------------------------------------ MOV */

int op_mov_eb_gb(struct vcpu *c, const struct insn *i)
{
	return set_rm8(c, i, reg8(c, i->reg));
}

int op_mov_ev_gv(struct vcpu *c, const struct insn *i)
{
	return set_rm_value(c, i, i->opsize, c->gpr[i->reg]);
}

int op_mov_gb_eb(struct vcpu *c, const struct insn *i)
{
	uint8_t v;

	if (rm8(c, i, &v))
		return -1;
	set_reg8(c, i->reg, v);
	return INSN_NEXT;
}

int op_mov_gv_ev(struct vcpu *c, const struct insn *i)
{
	uint32_t v;

	if (rm_value(c, i, i->opsize, &v))
		return -1;
	set_reg(c, i->reg, v, i->opsize);
	return INSN_NEXT;
}

int op_mov_eb_ib(struct vcpu *c, const struct insn *i)
{
	return set_rm8(c, i, (uint8_t)i->imm);
}

int op_mov_ev_iv(struct vcpu *c, const struct insn *i)
{
	return set_rm_value(c, i, i->opsize, i->imm);
}

int op_mov_r8_ib(struct vcpu *c, const struct insn *i)
{
	set_reg8(c, i->opcode & 7u, (uint8_t)i->imm);
	return INSN_NEXT;
}

int op_mov_r_iv(struct vcpu *c, const struct insn *i)
{
	set_reg(c, i->opcode & 7u, i->imm, i->opsize);
	return INSN_NEXT;
}

int op_mov_al_moffs(struct vcpu *c, const struct insn *i)
{
	uint8_t v;

	if (interp_read8(c, i->seg, interp_ea(c, i), &v))
		return -1;
	set_reg8(c, EAX, v);
	return INSN_NEXT;
}

int op_mov_eax_moffs(struct vcpu *c, const struct insn *i)
{
	uint16_t w;

	if (i->opsize == 4)
		return interp_read32(c, i->seg, interp_ea(c, i), &c->gpr[EAX]);
	if (interp_read16(c, i->seg, interp_ea(c, i), &w))
		return -1;
	set_reg16(c, EAX, w);
	return INSN_NEXT;
}

int op_mov_moffs_al(struct vcpu *c, const struct insn *i)
{
	return interp_write8(c, i->seg, interp_ea(c, i), reg8(c, EAX));
}

int op_mov_moffs_eax(struct vcpu *c, const struct insn *i)
{
	if (i->opsize == 4)
		return interp_write32(c, i->seg, interp_ea(c, i), c->gpr[EAX]);
	return interp_write16(c, i->seg, interp_ea(c, i), reg16(c, EAX));
}

/* MOVNTI is never 16 bits: 66 makes it #UD on some CPUs and nothing on others. */
int op_movnti(struct vcpu *c, const struct insn *i)
{
	return interp_write32(c, i->seg, interp_ea(c, i), c->gpr[i->reg]);
}

int op_movzx_gv_eb(struct vcpu *c, const struct insn *i)
{
	uint8_t v;

	if (rm8(c, i, &v))
		return -1;
	set_reg(c, i->reg, v, i->opsize);
	return INSN_NEXT;
}

int op_movzx_gv_ew(struct vcpu *c, const struct insn *i)
{
	uint16_t v;

	if (rm16(c, i, &v))
		return -1;
	set_reg(c, i->reg, v, i->opsize);
	return INSN_NEXT;
}

int op_movsx_gv_eb(struct vcpu *c, const struct insn *i)
{
	uint8_t v;

	if (rm8(c, i, &v))
		return -1;
	set_reg(c, i->reg, (uint32_t)(int8_t)v, i->opsize);
	return INSN_NEXT;
}

int op_movsx_gv_ew(struct vcpu *c, const struct insn *i)
{
	uint16_t v;

	if (rm16(c, i, &v))
		return -1;
	set_reg(c, i->reg, (uint32_t)(int16_t)v, i->opsize);
	return INSN_NEXT;
}

int op_lea(struct vcpu *c, const struct insn *i)
{
	set_reg(c, i->reg, interp_ea(c, i), i->opsize);
	return INSN_NEXT;
}

int op_xlat(struct vcpu *c, const struct insn *i)
{
	uint32_t off = c->gpr[EBX] + reg8(c, EAX);
	uint8_t v;

	if (i->adsize == 2)
		off &= 0xffffu;
	if (interp_read8(c, i->seg, off, &v))
		return -1;
	set_reg8(c, EAX, v);
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ exchanges */

int op_xchg_eb_gb(struct vcpu *c, const struct insn *i)
{
	uint8_t v, r = reg8(c, i->reg);
	uint32_t lin;

	if (rmw8(c, i, &v, &lin) || set_rmw8(c, i, r, lin))
		return -1;
	set_reg8(c, i->reg, v);
	return INSN_NEXT;
}

int op_xchg_ev_gv(struct vcpu *c, const struct insn *i)
{
	uint32_t r = c->gpr[i->reg], v, lin;
	uint16_t w;

	if (i->opsize == 4) {
		if (rmw32(c, i, &v, &lin) || set_rmw32(c, i, r, lin))
			return -1;
		c->gpr[i->reg] = v;
	} else {
		if (rmw16(c, i, &w, &lin) || set_rmw16(c, i, (uint16_t)r, lin))
			return -1;
		set_reg16(c, i->reg, w);
	}
	return INSN_NEXT;
}

int op_xchg_eax_r(struct vcpu *c, const struct insn *i)
{
	unsigned r = i->opcode & 7u;
	uint32_t v = c->gpr[r];

	set_reg(c, r, c->gpr[EAX], i->opsize);
	set_reg(c, EAX, v, i->opsize);
	return INSN_NEXT;
}

#define XADD(bits)                                                                                           \
	do {                                                                                                 \
		uint##bits##_t d_, s_ = reg##bits(c, i->reg), sum_;                                          \
		uint32_t lin_, fl_;                                                                          \
		if (rmw##bits(c, i, &d_, &lin_))                                                             \
			return -1;                                                                           \
		sum_ = alu_add##bits(&fl_, d_, s_);                                                          \
		if (i->mod == 3)                                                                             \
			set_reg##bits(c, i->reg, d_);                                                        \
		if (set_rmw##bits(c, i, sum_, lin_))                                                         \
			return -1;                                                                           \
		if (i->mod != 3)                                                                             \
			set_reg##bits(c, i->reg, d_);                                                        \
		c->flags = fl_;                                                                              \
		return INSN_NEXT;                                                                            \
	} while (0)

int op_xadd_eb_gb(struct vcpu *c, const struct insn *i)
{
	XADD(8);
}

int op_xadd_ev_gv(struct vcpu *c, const struct insn *i)
{
	if (i->opsize == 4)
		XADD(32);
	XADD(16);
}

/* The destination is written back even where the comparison fails (SDM vol. 2A, CMPXCHG). */
#define CMPXCHG(bits)                                                                                        \
	do {                                                                                                 \
		uint##bits##_t d_;                                                                           \
		uint32_t lin_, fl_;                                                                          \
		if (rmw##bits(c, i, &d_, &lin_))                                                             \
			return -1;                                                                           \
		alu_cmp##bits(&fl_, reg##bits(c, EAX), d_);                                                  \
		if (fl_ & FL_ZF) {                                                                           \
			if (set_rmw##bits(c, i, reg##bits(c, i->reg), lin_))                                 \
				return -1;                                                                   \
		} else {                                                                                     \
			if (i->mod != 3 && set_rmw##bits(c, i, d_, lin_))                                    \
				return -1;                                                                   \
			set_reg##bits(c, EAX, d_);                                                           \
		}                                                                                            \
		c->flags = fl_;                                                                              \
		return INSN_NEXT;                                                                            \
	} while (0)

int op_cmpxchg_eb_gb(struct vcpu *c, const struct insn *i)
{
	CMPXCHG(8);
}

int op_cmpxchg_ev_gv(struct vcpu *c, const struct insn *i)
{
	if (i->opsize == 4)
		CMPXCHG(32);
	CMPXCHG(16);
}

int op_cmpxchg8b(struct vcpu *c, const struct insn *i)
{
	uint64_t old, want = (uint64_t)c->gpr[EDX] << 32 | c->gpr[EAX];
	uint32_t lin;

	if (interp_rmw(c, i->seg, interp_ea(c, i), 8, &lin) || mem_read64(c, lin, &old, interp_acc(c)))
		return -1;
	if (old == want) {
		if (mem_write64(c, lin, (uint64_t)c->gpr[ECX] << 32 | c->gpr[EBX], interp_acc(c)))
			return -1;
		c->flags |= FL_ZF;
	} else {
		if (mem_write64(c, lin, old, interp_acc(c)))
			return -1;
		c->gpr[EAX] = (uint32_t)old;
		c->gpr[EDX] = (uint32_t)(old >> 32);
		c->flags &= ~FL_ZF;
	}
	return INSN_NEXT;
}

/* BSWAP of a 16-bit register is undefined; silicon gives 0. */
int op_bswap(struct vcpu *c, const struct insn *i)
{
	unsigned r = i->opcode & 7u;

	if (i->opsize == 4)
		c->gpr[r] = __builtin_bswap32(c->gpr[r]);
	else
		set_reg16(c, r, 0);
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ conversions */

int op_cbw(struct vcpu *c, const struct insn *i)
{
	if (i->opsize == 4)
		c->gpr[EAX] = (uint32_t)(int16_t)c->gpr[EAX];
	else
		set_reg16(c, EAX, (uint16_t)(int8_t)c->gpr[EAX]);
	return INSN_NEXT;
}

int op_cwd(struct vcpu *c, const struct insn *i)
{
	if (i->opsize == 4)
		c->gpr[EDX] = c->gpr[EAX] >> 31 ? 0xffffffffu : 0;
	else
		set_reg16(c, EDX, c->gpr[EAX] & 0x8000u ? 0xffffu : 0);
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ conditions */

int op_cmov(struct vcpu *c, const struct insn *i)
{
	uint32_t v;

	/* The operand is read whatever the condition (SDM vol. 2A, CMOVcc). */
	if (rm_value(c, i, i->opsize, &v))
		return -1;
	if (interp_cond(c, i->opcode))
		set_reg(c, i->reg, v, i->opsize);
	return INSN_NEXT;
}

int op_setcc(struct vcpu *c, const struct insn *i)
{
	return set_rm8(c, i, interp_cond(c, i->opcode));
}

int op_salc(struct vcpu *c, const struct insn *i)
{
	(void)i;
	set_reg8(c, EAX, c->flags & FL_CF ? 0xff : 0);
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ flags */

int op_lahf(struct vcpu *c, const struct insn *i)
{
	(void)i;
	set_reg8(c, 4 + EAX, (uint8_t)((c->flags & 0xd5u) | FL_1));
	return INSN_NEXT;
}

int op_sahf(struct vcpu *c, const struct insn *i)
{
	(void)i;
	c->flags = (c->flags & FL_OF) | (reg8(c, 4 + EAX) & 0xd5u);
	return INSN_NEXT;
}

int op_clc(struct vcpu *c, const struct insn *i)
{
	(void)i;
	c->flags &= ~FL_CF;
	return INSN_NEXT;
}

int op_stc(struct vcpu *c, const struct insn *i)
{
	(void)i;
	c->flags |= FL_CF;
	return INSN_NEXT;
}

int op_cmc(struct vcpu *c, const struct insn *i)
{
	(void)i;
	c->flags ^= FL_CF;
	return INSN_NEXT;
}

int op_cld(struct vcpu *c, const struct insn *i)
{
	(void)i;
	c->df = 0;
	return INSN_NEXT;
}

int op_std(struct vcpu *c, const struct insn *i)
{
	(void)i;
	c->df = FL_DF;
	return INSN_NEXT;
}

/* NOP, hint NOPs, prefetches, fences, PAUSE: nothing that a guest could see. */
int op_nop(struct vcpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
	return INSN_NEXT;
}
