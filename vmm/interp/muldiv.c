/* muldiv.c - MUL IMUL DIV IDIV, and the decimal adjustments.
 *
 * Division runs on the host too, after a check that it will not trap there.
 */
#include "vmm/interp/alu.h"
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

/* One-operand forms that take (and give) the accumulator pair: AX for bytes, else (E)DX:(E)AX. */
#define WIDE_BYTE(mnemonic, v)                                                                               \
	do {                                                                                                 \
		uint32_t fl_ = alu_pack(c->flags);                                                           \
		uint16_t ax_ = (uint16_t)c->gpr[EAX];                                                        \
		__asm__("movl %[fl], %%eax\n\taddb $0x7f, %%al\n\tsahf\n\tmovzwl %[ax], %%eax\n\t" mnemonic  \
			"b %[v]\n\tmovw %%ax, %[ax]\n\tlahf\n\tseto %%al\n\tmovl %%eax, %[fl]"               \
			: [fl] "+&r"(fl_), [ax] "+&r"(ax_)                                                   \
			: [v] "r"((uint8_t)(v))                                                              \
			: "eax", "cc");                                                                      \
		set_reg16(c, EAX, ax_);                                                                      \
		c->flags = alu_unpack(fl_);                                                                  \
	} while (0)

#define WIDE(mnemonic, suffix, bits, v)                                                                      \
	do {                                                                                                 \
		uint32_t fl_ = alu_pack(c->flags), ax_ = c->gpr[EAX], dx_ = c->gpr[EDX];                     \
		__asm__("movl %[fl], %%eax\n\taddb $0x7f, %%al\n\tsahf\n\tmovl %[ax], %%eax\n\t" mnemonic    \
				suffix                                                                       \
			" %[v]\n\tmovl %%eax, %[ax]\n\tlahf\n\tseto %%al\n\tmovl %%eax, %[fl]"               \
			: [fl] "+&r"(fl_), [ax] "+&r"(ax_), "+&d"(dx_)                                       \
			: [v] "r"((uint##bits##_t)(v))                                                       \
			: "eax", "cc");                                                                      \
		set_reg##bits(c, EAX, (uint##bits##_t)ax_);                                                  \
		set_reg##bits(c, EDX, (uint##bits##_t)dx_);                                                  \
		c->flags = alu_unpack(fl_);                                                                  \
	} while (0)

/* (e)dx:(e)ax or ax as one number. */
static uint64_t dividend(const struct vcpu *c, unsigned size)
{
	switch (size) {
	case 1:
		return c->gpr[EAX] & 0xffffu;
	case 2:
		return (c->gpr[EDX] & 0xffffu) << 16 | (c->gpr[EAX] & 0xffffu);
	default:
		return (uint64_t)c->gpr[EDX] << 32 | c->gpr[EAX];
	}
}

static bool div_overflows(uint64_t n, uint32_t d, unsigned size)
{
	return d == 0 || n >> (8 * size) >= d;
}

static int64_t sign_extend(uint64_t v, unsigned bits)
{
	return (int64_t)(v << (64 - bits)) >> (64 - bits);
}

static bool idiv_overflows(uint64_t un, uint32_t ud, unsigned size)
{
	int64_t n = sign_extend(un, 16 * size), d = sign_extend(ud, 8 * size), q;
	int64_t limit = (int64_t)1 << (8 * size - 1);

	if (d == 0 || (n == INT64_MIN && d == -1))
		return true;
	q = n / d;
	return q >= limit || q < -limit;
}

#define MULDIV(name, mnemonic, overflows)                                                                    \
	int op_##name##_eb(struct vcpu *c, const struct insn *i)                                             \
	{                                                                                                    \
		uint8_t v;                                                                                   \
		if (rm8(c, i, &v))                                                                           \
			return -1;                                                                           \
		if (overflows(dividend(c, 1), v, 1))                                                         \
			return cpu_raise(c, VEC_DE);                                                         \
		WIDE_BYTE(mnemonic, v);                                                                      \
		return INSN_NEXT;                                                                            \
	}                                                                                                    \
	int op_##name##_ev(struct vcpu *c, const struct insn *i)                                             \
	{                                                                                                    \
		uint32_t v;                                                                                  \
		if (rm_value(c, i, i->opsize, &v))                                                           \
			return -1;                                                                           \
		if (overflows(dividend(c, i->opsize), v, i->opsize))                                         \
			return cpu_raise(c, VEC_DE);                                                         \
		if (i->opsize == 4)                                                                          \
			WIDE(mnemonic, "l", 32, v);                                                          \
		else                                                                                         \
			WIDE(mnemonic, "w", 16, v);                                                          \
		return INSN_NEXT;                                                                            \
	}

#define NEVER(n, d, size) ((void)(n), false)
MULDIV(mul, "mul", NEVER)
MULDIV(imul, "imul", NEVER)
MULDIV(div, "div", div_overflows)
MULDIV(idiv, "idiv", idiv_overflows)

int op_imul_gv_ev(struct vcpu *c, const struct insn *i)
{
	uint32_t v;

	if (rm_value(c, i, i->opsize, &v))
		return -1;
	if (i->opsize == 4)
		c->gpr[i->reg] = alu_imul32(&c->flags, c->gpr[i->reg], v);
	else
		set_reg16(c, i->reg, alu_imul16(&c->flags, reg16(c, i->reg), (uint16_t)v));
	return INSN_NEXT;
}

int op_imul_gv_ev_iv(struct vcpu *c, const struct insn *i)
{
	uint32_t v;

	if (rm_value(c, i, i->opsize, &v))
		return -1;
	if (i->opsize == 4)
		c->gpr[i->reg] = alu_imul32(&c->flags, v, i->imm);
	else
		set_reg16(c, i->reg, alu_imul16(&c->flags, (uint16_t)v, (uint16_t)i->imm));
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ decimal (SDM vol. 2A; not in 64-bit
 * mode)
 *
 * The host can't execute these. The flags that the SDM leaves open are those of the one addition or
 * subtraction that the adjustment amounts to: silicon was asked.
 */

/* Flags of the adjustment fl, with CF and AF as the instruction defines them. */
static void decimal_flags(struct vcpu *c, uint32_t fl, bool carry, bool adjust)
{
	c->flags = (fl & ~(FL_CF | FL_AF)) | (carry ? FL_CF : 0) | (adjust ? FL_AF : 0);
}

int op_daa(struct vcpu *c, const struct insn *i)
{
	uint8_t al = reg8(c, EAX);
	bool low = (al & 0xf) > 9 || (c->flags & FL_AF), high = al > 0x99 || (c->flags & FL_CF);
	uint32_t fl;

	(void)i;
	set_reg8(c, EAX, alu_add8(&fl, al, (uint8_t)((low ? 6 : 0) + (high ? 0x60 : 0))));
	decimal_flags(c, fl, high, low);
	return INSN_NEXT;
}

int op_das(struct vcpu *c, const struct insn *i)
{
	uint8_t al = reg8(c, EAX);
	bool low = (al & 0xf) > 9 || (c->flags & FL_AF), high = al > 0x99 || (c->flags & FL_CF);
	uint32_t fl;

	(void)i;
	set_reg8(c, EAX, alu_sub8(&fl, al, (uint8_t)((low ? 6 : 0) + (high ? 0x60 : 0))));
	decimal_flags(c, fl, high || (low && al < 6), low);
	return INSN_NEXT;
}

int op_aaa(struct vcpu *c, const struct insn *i)
{
	uint16_t ax = reg16(c, EAX);
	bool adjust = (ax & 0xf) > 9 || (c->flags & FL_AF);
	uint32_t fl;

	(void)i;
	set_reg16(c, EAX, alu_add16(&fl, ax, adjust ? 0x106 : 0) & 0xff0f);
	decimal_flags(c, fl, adjust, adjust);
	return INSN_NEXT;
}

int op_aas(struct vcpu *c, const struct insn *i)
{
	uint16_t ax = reg16(c, EAX);
	bool adjust = (ax & 0xf) > 9 || (c->flags & FL_AF);
	uint32_t fl;

	(void)i;
	set_reg16(c, EAX, alu_sub16(&fl, ax, adjust ? 0x106 : 0) & 0xff0f);
	decimal_flags(c, fl, adjust, adjust);
	return INSN_NEXT;
}

int op_aam(struct vcpu *c, const struct insn *i)
{
	uint8_t base = (uint8_t)i->imm, al = reg8(c, EAX);

	if (base == 0)
		return cpu_raise(c, VEC_DE);
	set_reg16(c, EAX, (uint16_t)(al / base << 8 | al % base));
	alu_test8(&c->flags, (uint8_t)(al % base), 0xff);
	return INSN_NEXT;
}

int op_aad(struct vcpu *c, const struct insn *i)
{
	uint8_t tens = (uint8_t)(reg8(c, 4 + EAX) * i->imm);

	set_reg16(c, EAX, alu_add8(&c->flags, reg8(c, EAX), tens));
	return INSN_NEXT;
}
