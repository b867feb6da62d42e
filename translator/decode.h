/* decode.h - one decoded form of a guest instruction, shared by interpreter and translator.
 *
 * A thin, compact layer over Zydis: decode_insn turns bytes into struct insn, which holds what both users
 * need in a form that is cheap to look at. For one thread, the vCPU's: what was decoded is remembered.
 */
#ifndef BT86_TRANSLATOR_DECODE_H
#define BT86_TRANSLATOR_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <Zydis/Zydis.h>

#define INSN_MAX_LEN 15

struct insn {
	/* ---- what instructions of one form have in common; INSN_FORM bytes */
	uint16_t mnemonic; /* ZydisMnemonic */
	uint8_t len;
	uint8_t opmap;	/* 0 one-byte, 1 0F, 2 0F38, 3 0F3A */
	uint8_t opcode; /* the opcode byte itself */
	uint8_t opsize; /* 2 or 4: effective operand size (for byte forms too) */
	uint8_t adsize; /* 2 or 4: effective address size */
	uint8_t prefix; /* INSN_* prefix bits */
	int8_t segover; /* ES..GS if a segment override is present, else -1 */
	bool has_modrm;
	uint8_t mod, reg, rm; /* ModRM fields; mod 3: register form */
	/* Memory operand (has_modrm && mod != 3, or a moffs form): segment and address parts. */
	bool has_mem;
	uint8_t seg;		     /* effective segment: override, or SS for ebp/esp bases, or DS */
	int8_t base;		     /* register number or -1 */
	int8_t index;		     /* register number or -1 */
	uint8_t scale;		     /* 1, 2, 4, 8 */
	uint8_t disp_off, disp_size; /* position and size in bytes of the displacement in raw[] */
	uint8_t imm_off, imm_size, imm2_size;
	bool imm_signed;   /* or relative; without meaning if imm_size is 0 */
	uint8_t nprefix;   /* number of prefix bytes before the opcode (or its 0F) */
	uint8_t modrm_off; /* position of ModRM in raw[] */
	/* What decode_flags reports; FL_* fit 16 bits. */
	uint16_t fl_reads, fl_writes, fl_undefined;
	/* ---- and what not */
	int32_t disp;
	uint32_t imm;  /* sign-extended as the instruction does (relative branches: the displacement) */
	uint32_t imm2; /* enter's level, far pointer's selector */
	uint8_t raw[INSN_MAX_LEN];
};

#define INSN_FORM    offsetof(struct insn, disp)

#define INSN_UNKNOWN 0xff /* as opmap: not decoded, because bytes are missing or not valid */

#define INSN_LOCK    0x01
#define INSN_REP     0x02 /* F3 */
#define INSN_REPNE   0x04 /* F2 */
#define INSN_66	     0x08
#define INSN_67	     0x10

enum decode_result {
	DECODE_OK,
	DECODE_INVALID,	 /* #UD on a 32-bit CPU (or on this guest CPU) */
	DECODE_TOO_LONG, /* more than 15 bytes: #GP(0) */
	DECODE_MORE,	 /* the avail bytes end within the instruction */
};

/* A ud0/ud1/ud2 is DECODE_INVALID too. String instructions and XLAT have no has_mem, but seg tells the
 * segment of their source operand (DS or the override). Moves to and from control and debug registers are
 * register forms (mod reads 3) whatever their mod bits. Of several F2/F3 prefixes, or segment overrides, the
 * last one counts. CPU models are not looked at: everything that the richest model offers decodes.
 *
 * code32: default operand and address size. avail: bytes readable at p (1 to 15). */
enum decode_result decode_insn(const uint8_t *p, unsigned avail, bool code32, struct insn *out);
/* The same without what is remembered, for comparison. */
enum decode_result decode_insn_anew(const uint8_t *p, unsigned avail, bool code32, struct insn *out);

/* Flags (FL_ARITH | FL_DF) that the instruction reads, and that it always overwrites or leaves undefined.
 * A flag that is written only on some paths (shift by a count that may be 0, repeated string compare) is not
 * in writes. undefined: flags whose value afterwards the SDM leaves open; not a subset of writes when the
 * write is conditional. Instructions that store EFLAGS (pushf, int n, a far transfer that may switch tasks)
 * read them all. */
void decode_flags(const struct insn *i, uint32_t *reads, uint32_t *writes, uint32_t *undefined);

/* The instruction at code as text of at most size bytes, NUL included; addr: where the CPU has it. bits: 16,
 * 32 or 64. Returns its length; 0 if there is none within len bytes, or the text does not fit. */
unsigned decode_text(unsigned bits, uint64_t addr, const uint8_t *code, size_t len, char *text, size_t size);

#endif
