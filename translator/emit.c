/* emit.c - the encoder (SDM vol. 2A chapter 2): prefixes, REX, opcode, ModRM, SIB, displacement. */
#include "translator/emit.h"

static void prefixes(struct emitter *e, const uint8_t *legacy, unsigned n, bool gs, bool addr32)
{
	for (unsigned i = 0; i < n; i++)
		em8(e, legacy[i]);
	if (gs)
		em8(e, 0x65);
	if (addr32)
		em8(e, 0x67);
}

static unsigned scale_bits(unsigned scale)
{
	return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

/* ModRM, SIB and displacement; REX bits were emitted by the caller. */
static void modrm_mem(struct emitter *e, unsigned reg, const struct host_mem *m)
{
	unsigned r = (reg & 7) << 3;

	if (m->base < 0) { /* [index * scale + disp32] or [disp32]: SIB with base 5, mod 0 */
		em8(e, r | 4);
		em8(e, scale_bits(m->scale) << 6 | (m->index < 0 ? 4u : (unsigned)m->index & 7u) << 3 | 5);
		em32(e, (uint32_t)m->disp);
		return;
	}
	unsigned base = (unsigned)m->base & 7;
	unsigned mod = m->disp == 0 && base != 5 ? 0 : m->disp >= -128 && m->disp <= 127 ? 1 : 2;
	if (m->index >= 0 || base == 4) {
		em8(e, mod << 6 | r | 4);
		em8(e, scale_bits(m->scale) << 6 | (m->index < 0 ? 4u : (unsigned)m->index & 7u) << 3 | base);
	} else {
		em8(e, mod << 6 | r | base);
	}
	if (mod == 1)
		em8(e, (uint8_t)m->disp);
	else if (mod == 2)
		em32(e, (uint32_t)m->disp);
}

void em_modrm_mem(struct emitter *e, const uint8_t *legacy, unsigned nlegacy, bool rex_w, const uint8_t *op,
		  unsigned nop, unsigned reg, const struct host_mem *m)
{
	unsigned rex = (rex_w ? REX_W : 0) | (reg & 8 ? REX_R : 0) | (m->base >= 8 ? REX_B : 0) |
		       (m->index >= 8 ? REX_X : 0);

	assert(m->index != RSP);
	prefixes(e, legacy, nlegacy, m->gs, m->addr32);
	if (rex)
		em8(e, 0x40 | rex);
	for (unsigned i = 0; i < nop; i++)
		em8(e, op[i]);
	modrm_mem(e, reg, m);
}

void em_modrm_reg(struct emitter *e, const uint8_t *legacy, unsigned nlegacy, bool rex_w, const uint8_t *op,
		  unsigned nop, unsigned reg, unsigned rm)
{
	unsigned rex = (rex_w ? REX_W : 0) | (reg & 8 ? REX_R : 0) | (rm & 8 ? REX_B : 0);

	prefixes(e, legacy, nlegacy, false, false);
	if (rex)
		em8(e, 0x40 | rex);
	for (unsigned i = 0; i < nop; i++)
		em8(e, op[i]);
	em8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static void op_rr(struct emitter *e, bool w, unsigned op, unsigned reg, unsigned rm)
{
	const uint8_t o = (uint8_t)op;
	em_modrm_reg(e, NULL, 0, w, &o, 1, reg, rm);
}

static void op_rm(struct emitter *e, bool w, unsigned op, unsigned reg, const struct host_mem *m)
{
	const uint8_t o = (uint8_t)op;
	em_modrm_mem(e, NULL, 0, w, &o, 1, reg, m);
}

void em_mov_rr32(struct emitter *e, unsigned dst, unsigned src)
{
	op_rr(e, false, 0x8b, dst, src);
}

void em_mov_rr64(struct emitter *e, unsigned dst, unsigned src)
{
	op_rr(e, true, 0x8b, dst, src);
}

void em_mov_ri32(struct emitter *e, unsigned dst, uint32_t imm)
{
	if (dst & 8)
		em8(e, 0x41);
	em8(e, 0xb8 | (dst & 7));
	em32(e, imm);
}

void em_lea32(struct emitter *e, unsigned dst, const struct host_mem *m)
{
	op_rm(e, false, 0x8d, dst, m);
}

void em_lea64(struct emitter *e, unsigned dst, const struct host_mem *m)
{
	op_rm(e, true, 0x8d, dst, m);
}

void em_load32(struct emitter *e, unsigned dst, const struct host_mem *m)
{
	op_rm(e, false, 0x8b, dst, m);
}

void em_load64(struct emitter *e, unsigned dst, const struct host_mem *m)
{
	op_rm(e, true, 0x8b, dst, m);
}

void em_store32(struct emitter *e, const struct host_mem *m, unsigned src)
{
	op_rm(e, false, 0x89, src, m);
}

void em_store64(struct emitter *e, const struct host_mem *m, unsigned src)
{
	op_rm(e, true, 0x89, src, m);
}

void em_store_i32(struct emitter *e, const struct host_mem *m, uint32_t imm)
{
	op_rm(e, false, 0xc7, 0, m);
	em32(e, imm);
}

void em_movzx16_r(struct emitter *e, unsigned dst, unsigned src)
{
	em_modrm_reg(e, NULL, 0, false, (const uint8_t[]){0x0f, 0xb7}, 2, dst, src);
}

void em_movzx8_r(struct emitter *e, unsigned dst, unsigned src)
{
	assert(src < 4 || src >= 8);
	em_modrm_reg(e, NULL, 0, false, (const uint8_t[]){0x0f, 0xb6}, 2, dst, src);
}

void em_movzx16_m(struct emitter *e, unsigned dst, const struct host_mem *m)
{
	em_modrm_mem(e, NULL, 0, false, (const uint8_t[]){0x0f, 0xb7}, 2, dst, m);
}

/* VEX.LZ.F2.0F3A.W F0 /r ib (rorx), VEX.LZ.F2.0F38.W F7 /r (shrx). vvvv: the count register, or 1111. */
static void vex3(struct emitter *e, unsigned map, bool w, unsigned pp, unsigned vvvv, unsigned op,
		 unsigned reg, unsigned rm)
{
	em8(e, 0xc4);
	em8(e, (reg & 8 ? 0u : 0x80u) | 0x40u | (rm & 8 ? 0u : 0x20u) | map);
	em8(e, (w ? 0x80u : 0u) | (~vvvv & 15u) << 3 | pp);
	em8(e, op);
	em8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

void em_rorx32(struct emitter *e, unsigned dst, unsigned src, unsigned n)
{
	vex3(e, 3, false, 3, 0, 0xf0, dst, src);
	em8(e, n);
}

void em_rorx64(struct emitter *e, unsigned dst, unsigned src, unsigned n)
{
	vex3(e, 3, true, 3, 0, 0xf0, dst, src);
	em8(e, n);
}

void em_shrx32(struct emitter *e, unsigned dst, unsigned src, unsigned count_reg)
{
	vex3(e, 2, false, 3, count_reg, 0xf7, dst, src);
}

void em_not32(struct emitter *e, unsigned dst)
{
	op_rr(e, false, 0xf7, 2, dst);
}

void em_lea_add(struct emitter *e, unsigned dst, unsigned a, unsigned b)
{
	em_lea32(e, dst, &(struct host_mem){.base = (int8_t)a, .index = (int8_t)b, .scale = 1});
}

void em_lea_disp(struct emitter *e, unsigned dst, unsigned a, int32_t d)
{
	em_lea32(e, dst, &(struct host_mem){.base = (int8_t)a, .index = -1, .scale = 1, .disp = d});
}

void em_alu_ri32(struct emitter *e, unsigned alu, unsigned dst, uint32_t imm)
{
	bool small = (int32_t)imm >= -128 && (int32_t)imm <= 127;

	op_rr(e, false, small ? 0x83 : 0x81, alu, dst);
	if (small)
		em8(e, (uint8_t)imm);
	else
		em32(e, imm);
}

void em_alu_rr32(struct emitter *e, unsigned alu, unsigned dst, unsigned src)
{
	op_rr(e, false, alu << 3 | 3, dst, src);
}

void em_alu_rm32(struct emitter *e, unsigned alu, unsigned dst, const struct host_mem *m)
{
	op_rm(e, false, alu << 3 | 3, dst, m);
}

void em_cmp_mi8(struct emitter *e, const struct host_mem *m, int8_t imm)
{
	op_rm(e, false, 0x83, ALU_CMP, m);
	em8(e, (uint8_t)imm);
}

void em_shr_ri32(struct emitter *e, unsigned dst, unsigned n)
{
	op_rr(e, false, 0xc1, 5, dst);
	em8(e, n);
}

uint32_t em_jmp32(struct emitter *e)
{
	em8(e, 0xe9);
	em32(e, 0);
	return em_off(e) - 4;
}

uint32_t em_jcc32(struct emitter *e, unsigned cc)
{
	em8(e, 0x0f);
	em8(e, 0x80 | cc);
	em32(e, 0);
	return em_off(e) - 4;
}

uint32_t em_call32(struct emitter *e)
{
	em8(e, 0xe8);
	em32(e, 0);
	return em_off(e) - 4;
}

static uint32_t short_branch(struct emitter *e, unsigned op)
{
	em8(e, op);
	em8(e, 0);
	return em_off(e) - 1;
}

uint32_t em_jcc8(struct emitter *e, unsigned cc)
{
	return short_branch(e, 0x70 | cc);
}

uint32_t em_jrcxz8(struct emitter *e)
{
	return short_branch(e, 0xe3);
}

void em_fix8(struct emitter *e, uint32_t at)
{
	uint32_t d = em_off(e) - (at + 1);

	assert(d < 128);
	e->base[at] = (uint8_t)d;
}

void em_fix32(struct emitter *e, uint32_t at, uint32_t dest)
{
	int32_t rel = (int32_t)(dest - (at + 4));

	memcpy(e->base + at, &rel, 4);
}

void em_jmp_m(struct emitter *e, const struct host_mem *m)
{
	op_rm(e, false, 0xff, 4, m);
}

void em_call_m(struct emitter *e, const struct host_mem *m)
{
	op_rm(e, false, 0xff, 2, m);
}
