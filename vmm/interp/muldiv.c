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
 * mode) */

/* SF ZF PF of a byte, the rest of the arithmetic flags as given. */
static void flags_of_byte(struct vcpu *c, uint8_t v, uint32_t rest)
{
	uint32_t fl;

	alu_test8(&fl, v, v);
	c->flags = (fl & (FL_SF | FL_ZF | FL_PF)) | rest;
}

int op_daa(struct vcpu *c, const struct insn *i)
{
	uint8_t old = reg8(c, EAX), al = old;
	uint32_t fl = 0;

	(void)i;
	if ((al & 0xf) > 9 || (c->flags & FL_AF)) {
		al = (uint8_t)(al + 6);
		fl |= FL_AF;
	}
	if (old > 0x99 || (c->flags & FL_CF)) {
		al = (uint8_t)(al + 0x60);
		fl |= FL_CF;
	}
	set_reg8(c, EAX, al);
	flags_of_byte(c, al, fl);
	return INSN_NEXT;
}

int op_das(struct vcpu *c, const struct insn *i)
{
	uint8_t old = reg8(c, EAX), al = old;
	uint32_t fl = 0;

	(void)i;
	if ((al & 0xf) > 9 || (c->flags & FL_AF)) {
		fl |= FL_AF;
		if (old < 6 || (c->flags & FL_CF))
			fl |= FL_CF;
		al = (uint8_t)(al - 6);
	}
	if (old > 0x99 || (c->flags & FL_CF)) {
		al = (uint8_t)(al - 0x60);
		fl |= FL_CF;
	}
	set_reg8(c, EAX, al);
	flags_of_byte(c, al, fl);
	return INSN_NEXT;
}

static int ascii_adjust(struct vcpu *c, uint16_t by)
{
	uint16_t ax = reg16(c, EAX);
	uint32_t fl = 0;

	if ((ax & 0xf) > 9 || (c->flags & FL_AF)) {
		ax = (uint16_t)(ax + by);
		fl = FL_AF | FL_CF;
	}
	ax &= 0xff0f;
	set_reg16(c, EAX, ax);
	flags_of_byte(c, (uint8_t)ax, fl);
	return INSN_NEXT;
}

int op_aaa(struct vcpu *c, const struct insn *i)
{
	(void)i;
	return ascii_adjust(c, 0x106);
}

int op_aas(struct vcpu *c, const struct insn *i)
{
	(void)i;
	return ascii_adjust(c, (uint16_t)-0x106);
}

int op_aam(struct vcpu *c, const struct insn *i)
{
	uint8_t base = (uint8_t)i->imm, al = reg8(c, EAX);

	if (base == 0)
		return cpu_raise(c, VEC_DE);
	set_reg16(c, EAX, (uint16_t)(al / base << 8 | al % base));
	flags_of_byte(c, (uint8_t)(al % base), 0);
	return INSN_NEXT;
}

int op_aad(struct vcpu *c, const struct insn *i)
{
	uint8_t al = (uint8_t)(reg8(c, EAX) + reg8(c, 4 + EAX) * i->imm);

	set_reg16(c, EAX, al);
	flags_of_byte(c, al, 0);
	return INSN_NEXT;
}
