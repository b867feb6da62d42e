/* bits.c - bit tests and scans, POPCNT, CRC32, MOVBE, RDRAND, RDSEED. */
#include "vmm/interp/alu.h"
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

/* With a memory operand and the bit offset in a register, the offset is signed and reaches beyond the
 * operand: the word at EA + offset / width * (width / 8) is the one that is looked at (SDM vol. 2A, BT). */
static uint32_t bit_string_ea(const struct vcpu *c, const struct insn *i)
{
	uint32_t ea = interp_ea(c, i);

	if (i->opsize == 4)
		ea += (uint32_t)((int32_t)c->gpr[i->reg] >> 5) * 4;
	else
		ea += (uint32_t)((int16_t)c->gpr[i->reg] >> 4) * 2;
	return i->adsize == 2 ? ea & 0xffffu : ea;
}

#define BIT_TEST(name, bits, ea, offset, store)                                                              \
	do {                                                                                                 \
		uint##bits##_t d_, off_ = (uint##bits##_t)((offset) & (bits - 1));                           \
		uint32_t lin_ = 0, fl_ = c->flags;                                                           \
		if (i->mod == 3)                                                                             \
			d_ = reg##bits(c, i->rm);                                                            \
		else if (store ? interp_rmw(c, i->seg, ea, bits / 8, &lin_)                                  \
			       : interp_linear(c, i->seg, ea, bits / 8, false, &lin_))                       \
			return -1;                                                                           \
		else if (mem_read##bits(c, lin_, &d_, interp_acc(c)))                                        \
			return -1;                                                                           \
		d_ = alu_##name##bits(&fl_, d_, off_);                                                       \
		if (store && set_rmw##bits(c, i, d_, lin_))                                                  \
			return -1;                                                                           \
		c->flags = fl_;                                                                              \
		return INSN_NEXT;                                                                            \
	} while (0)

#define BIT(name, store)                                                                                     \
	int op_##name##_ev_gv(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			BIT_TEST(name, 32, bit_string_ea(c, i), c->gpr[i->reg], store);                      \
		BIT_TEST(name, 16, bit_string_ea(c, i), c->gpr[i->reg], store);                              \
	}                                                                                                    \
	int op_##name##_ev_ib(struct vcpu *c, const struct insn *i)                                          \
	{                                                                                                    \
		if (i->opsize == 4)                                                                          \
			BIT_TEST(name, 32, interp_ea(c, i), i->imm, store);                                  \
		BIT_TEST(name, 16, interp_ea(c, i), i->imm, store);                                          \
	}

BIT(bt, false)
BIT(bts, true)
BIT(btr, true)
BIT(btc, true)

/* A source of 0 leaves the destination, as on the host. */
#define SCAN(name)                                                                                           \
	int op_##name(struct vcpu *c, const struct insn *i)                                                  \
	{                                                                                                    \
		uint32_t v;                                                                                  \
		if (rm_value(c, i, i->opsize, &v))                                                           \
			return -1;                                                                           \
		if (i->opsize == 4)                                                                          \
			c->gpr[i->reg] = alu_##name##32(&c->flags, c->gpr[i->reg], v);                       \
		else                                                                                         \
			set_reg16(c, i->reg, alu_##name##16(&c->flags, reg16(c, i->reg), (uint16_t)v));      \
		return INSN_NEXT;                                                                            \
	}

SCAN(bsf)
SCAN(bsr)

int op_popcnt(struct vcpu *c, const struct insn *i)
{
	uint32_t v;

	if (rm_value(c, i, i->opsize, &v))
		return -1;
	set_reg(c, i->reg, (uint32_t)__builtin_popcount(v), i->opsize);
	c->flags = v ? 0 : FL_ZF;
	return INSN_NEXT;
}

/* CRC32 Gd,Eb and Gd,Ev (F2 0F38 F0 and F1): polynomial 11EDC6F41, bits reflected. */
static int crc32(struct vcpu *c, const struct insn *i)
{
	uint32_t crc = c->gpr[i->reg], v;
	uint8_t b;
	unsigned bytes = i->opcode & 1 ? i->opsize : 1;

	if (bytes == 1) {
		if (rm8(c, i, &b))
			return -1;
		v = b;
	} else if (rm_value(c, i, bytes, &v)) {
		return -1;
	}
	crc ^= v;
	for (unsigned k = 0; k < 8 * bytes; k++)
		crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	c->gpr[i->reg] = crc;
	return INSN_NEXT;
}

/* MOVBE Gv,Mv and Mv,Gv (0F38 F0 and F1). */
static int movbe(struct vcpu *c, const struct insn *i)
{
	bool store = i->opcode & 1;
	uint32_t v = c->gpr[i->reg];

	if (!store && rm_value(c, i, i->opsize, &v))
		return -1;
	v = i->opsize == 4 ? __builtin_bswap32(v) : __builtin_bswap16((uint16_t)v);
	if (store)
		return set_rm_value(c, i, i->opsize, v);
	set_reg(c, i->reg, v, i->opsize);
	return INSN_NEXT;
}

/* 0F38 F0 and F1: CRC32 with F2, else MOVBE. */
int op_movbe_crc32(struct vcpu *c, const struct insn *i)
{
	return i->prefix & INSN_REPNE ? crc32(c, i) : movbe(c, i);
}

/* A bit of EBX (reg 1) or ECX (reg 2). */
static bool host_has(unsigned leaf, unsigned reg, unsigned bit)
{
	uint32_t eax = leaf, ebx, ecx = 0, edx;

	__asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return (reg == 1 ? ebx : ecx) >> bit & 1;
}

/* RDRAND and RDSEED run on the host; where it has none they fail (CF clear), which the guest must expect
 * anyway. */
#define HOST_RANDOM(name, mnemonic, leaf, reg_, bit)                                                         \
	int op_##name(struct vcpu *c, const struct insn *i)                                                  \
	{                                                                                                    \
		static int have = -1;                                                                        \
		uint32_t v = 0;                                                                              \
		uint8_t ok = 0;                                                                              \
		if (have < 0)                                                                                \
			have = host_has(leaf, reg_, bit);                                                    \
		if (have)                                                                                    \
			__asm__ volatile(mnemonic " %0\n\tsetc %1" : "=r"(v), "=q"(ok) : : "cc");            \
		set_reg(c, i->rm, ok ? v : 0, i->opsize);                                                    \
		c->flags = ok ? FL_CF : 0;                                                                   \
		return INSN_NEXT;                                                                            \
	}

HOST_RANDOM(rdrand, "rdrand", 1, 2, 30)
HOST_RANDOM(rdseed, "rdseed", 7, 1, 18)
