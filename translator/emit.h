/* emit.h - writing x86-64 instructions into the arena. Private to this folder.
 *
 * An emitter is a cursor; em_* functions append one instruction each and are named after it. None of the
 * emitted instructions disturbs flags unless its name says so. Registers are host numbers 0-15.
 */
#ifndef BT86_TRANSLATOR_EMIT_H
#define BT86_TRANSLATOR_EMIT_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

#define GUEST_ESP R12

struct emitter {
	uint8_t *p;	/* where the next byte goes (writable view) */
	uint8_t *base;	/* writable view of the arena's start */
	uint8_t *limit; /* first byte that must not be written */
};

static inline uint32_t em_off(const struct emitter *e)
{
	return (uint32_t)(e->p - e->base);
}

static inline void em8(struct emitter *e, unsigned v)
{
	assert(e->p < e->limit);
	*e->p++ = (uint8_t)v;
}

static inline void em16(struct emitter *e, uint32_t v)
{
	uint16_t w = (uint16_t)v;
	memcpy(e->p, &w, 2);
	e->p += 2;
}

static inline void em32(struct emitter *e, uint32_t v)
{
	memcpy(e->p, &v, 4);
	e->p += 4;
}

static inline void em64(struct emitter *e, uint64_t v)
{
	memcpy(e->p, &v, 8);
	e->p += 8;
}

/* A memory operand in host registers. base, index: host register or -1. index is never rsp. */
struct host_mem {
	int8_t base, index;
	uint8_t scale; /* 1 2 4 8 */
	int32_t disp;
	bool gs;     /* gs segment prefix */
	bool addr32; /* 67: 32-bit effective address */
};

#define REX_W 8u
#define REX_R 4u
#define REX_X 2u
#define REX_B 1u

/* One instruction with ModRM. legacy: mandatory/operand-size/lock prefix bytes in order, nlegacy of them.
 * op: opcode bytes (1 to 3). reg: ModRM.reg with its 4th bit. rex_w: 64-bit operand. */
void em_modrm_mem(struct emitter *e, const uint8_t *legacy, unsigned nlegacy, bool rex_w, const uint8_t *op,
		  unsigned nop, unsigned reg, const struct host_mem *m);
void em_modrm_reg(struct emitter *e, const uint8_t *legacy, unsigned nlegacy, bool rex_w, const uint8_t *op,
		  unsigned nop, unsigned reg, unsigned rm);

/* ---- the handful of instructions that rules are made of */
void em_mov_rr32(struct emitter *e, unsigned dst, unsigned src); /* zero-extends */
void em_mov_rr64(struct emitter *e, unsigned dst, unsigned src);
void em_mov_ri32(struct emitter *e, unsigned dst, uint32_t imm); /* zero-extends */
void em_lea32(struct emitter *e, unsigned dst, const struct host_mem *m);
void em_lea64(struct emitter *e, unsigned dst, const struct host_mem *m);
void em_load32(struct emitter *e, unsigned dst, const struct host_mem *m);
void em_load64(struct emitter *e, unsigned dst, const struct host_mem *m);
void em_store32(struct emitter *e, const struct host_mem *m, unsigned src);
void em_store64(struct emitter *e, const struct host_mem *m, unsigned src);
void em_store_i32(struct emitter *e, const struct host_mem *m, uint32_t imm);
void em_movzx16_r(struct emitter *e, unsigned dst, unsigned src);
void em_movzx8_r(struct emitter *e, unsigned dst, unsigned src); /* src 0-3 or 8-15 */
void em_movzx16_m(struct emitter *e, unsigned dst, const struct host_mem *m);
void em_rorx32(struct emitter *e, unsigned dst, unsigned src, unsigned n);	   /* BMI2 */
void em_rorx64(struct emitter *e, unsigned dst, unsigned src, unsigned n);	   /* BMI2 */
void em_shrx32(struct emitter *e, unsigned dst, unsigned src, unsigned count_reg); /* BMI2 */
void em_not32(struct emitter *e, unsigned dst);
void em_lea_add(struct emitter *e, unsigned dst, unsigned a, unsigned b); /* dst = a + b, 32 bits */
void em_lea_disp(struct emitter *e, unsigned dst, unsigned a, int32_t d); /* dst = a + d, 32 bits */
/* Arithmetic that does set flags: 81 /n and its relatives. */
enum { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
void em_alu_ri32(struct emitter *e, unsigned alu, unsigned dst, uint32_t imm);
void em_alu_rr32(struct emitter *e, unsigned alu, unsigned dst, unsigned src);
void em_alu_rm32(struct emitter *e, unsigned alu, unsigned dst, const struct host_mem *m);
void em_cmp_mi8(struct emitter *e, const struct host_mem *m, int8_t imm); /* cmp dword [m], imm8 */
void em_shr_ri32(struct emitter *e, unsigned dst, unsigned n);

/* Branches. Each returns the arena offset of its rel32 or rel8, for em_fix. */
uint32_t em_jmp32(struct emitter *e);
uint32_t em_jcc32(struct emitter *e, unsigned cc);
uint32_t em_call32(struct emitter *e);
uint32_t em_jcc8(struct emitter *e, unsigned cc);
uint32_t em_jrcxz8(struct emitter *e);
void em_fix8(struct emitter *e, uint32_t at);		      /* to here */
void em_fix32(struct emitter *e, uint32_t at, uint32_t dest); /* dest: arena offset */
void em_jmp_m(struct emitter *e, const struct host_mem *m);
void em_call_m(struct emitter *e, const struct host_mem *m);

#endif
