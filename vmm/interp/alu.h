/* alu.h - arithmetic on the host's own ALU.
 *
 * Each operation loads the guest's flags where the result depends on them, executes the very instruction, and
 * takes the six flags back, so that even the flags which the SDM calls undefined are those of the silicon.
 *
 * LAHF and SETO bring the flags into AX: SF ZF AF PF CF in AH, OF in AL. The way back is ADD AL, 7F
 * (overflows exactly when AL is 1) and SAHF, which leaves OF alone. Both are several times cheaper than PUSHF
 * and POPF.
 */
#ifndef BT86_INTERP_ALU_H
#define BT86_INTERP_ALU_H

#include <stdint.h>

#include "cpu/x86.h"

#define ALU_SAVE "\n\tlahf\n\tseto %%al"
#define ALU_LOAD "addb $0x7f, %%al\n\tsahf\n\t"

static inline uint32_t alu_pack(uint32_t flags)
{
	return (flags & 0xd5u) << 8 | (flags >> 11 & 1u);
}

static inline uint32_t alu_unpack(uint32_t ax)
{
	return (ax >> 8 & 0xd5u) | (ax & 1u) << 11;
}

/* d op s, all flags written, none read. */
#define ALU_BINARY(name, mnemonic, bits, suffix)                                                             \
	static inline uint##bits##_t alu_##name##bits(uint32_t *flags, uint##bits##_t d, uint##bits##_t s)   \
	{                                                                                                    \
		uint32_t ax;                                                                                 \
		__asm__(mnemonic suffix " %2, %0" ALU_SAVE : "+q"(d), "=&a"(ax) : "q"(s) : "cc");            \
		*flags = alu_unpack(ax);                                                                     \
		return d;                                                                                    \
	}

/* The same with CF read. */
#define ALU_CARRY(name, mnemonic, bits, suffix)                                                              \
	static inline uint##bits##_t alu_##name##bits(uint32_t *flags, uint##bits##_t d, uint##bits##_t s)   \
	{                                                                                                    \
		uint32_t ax;                                                                                 \
		__asm__("btl $0, %3\n\t" mnemonic suffix " %2, %0" ALU_SAVE                                  \
			: "+q"(d), "=&a"(ax)                                                                 \
			: "q"(s), "r"(*flags)                                                                \
			: "cc");                                                                             \
		*flags = alu_unpack(ax);                                                                     \
		return d;                                                                                    \
	}

/* One operand, flags read and written (INC leaves CF, NOT leaves all). */
#define ALU_UNARY(name, mnemonic, bits, suffix)                                                              \
	static inline uint##bits##_t alu_##name##bits(uint32_t *flags, uint##bits##_t d)                     \
	{                                                                                                    \
		uint32_t ax = alu_pack(*flags);                                                              \
		__asm__(ALU_LOAD mnemonic suffix " %0" ALU_SAVE : "+q"(d), "+&a"(ax) : : "cc");              \
		*flags = alu_unpack(ax);                                                                     \
		return d;                                                                                    \
	}

/* Shift or rotate by a count in CL; a count of 0 leaves the flags. */
#define ALU_SHIFT(name, mnemonic, bits, suffix)                                                              \
	static inline uint##bits##_t alu_##name##bits(uint32_t *flags, uint##bits##_t d,                     \
						      uint##bits##_t count)                                  \
	{                                                                                                    \
		uint32_t ax = alu_pack(*flags);                                                              \
		__asm__(ALU_LOAD mnemonic suffix " %%cl, %0" ALU_SAVE                                        \
			: "+q"(d), "+&a"(ax)                                                                 \
			: "c"((uint8_t)count)                                                                \
			: "cc");                                                                             \
		*flags = alu_unpack(ax);                                                                     \
		return d;                                                                                    \
	}

/* d = op(d, s) with flags read: BSF and BSR (d stays for s = 0), BT family with register operands,
 * two-operand IMUL. */
#define ALU_MIXED(name, mnemonic, bits, suffix)                                                              \
	static inline uint##bits##_t alu_##name##bits(uint32_t *flags, uint##bits##_t d, uint##bits##_t s)   \
	{                                                                                                    \
		uint32_t ax = alu_pack(*flags);                                                              \
		__asm__(ALU_LOAD mnemonic suffix " %2, %0" ALU_SAVE : "+r"(d), "+&a"(ax) : "r"(s) : "cc");   \
		*flags = alu_unpack(ax);                                                                     \
		return d;                                                                                    \
	}

#define ALU_SHIFT_DOUBLE(name, mnemonic, bits, suffix)                                                       \
	static inline uint##bits##_t alu_##name##bits(uint32_t *flags, uint##bits##_t d, uint##bits##_t s,   \
						      uint8_t count)                                         \
	{                                                                                                    \
		uint32_t ax = alu_pack(*flags);                                                              \
		__asm__(ALU_LOAD mnemonic suffix " %%cl, %3, %0" ALU_SAVE                                    \
			: "+r"(d), "+&a"(ax)                                                                 \
			: "c"(count), "r"(s)                                                                 \
			: "cc");                                                                             \
		*flags = alu_unpack(ax);                                                                     \
		return d;                                                                                    \
	}

#define ALU_ALL_SIZES(kind, name, mnemonic)                                                                  \
	kind(name, mnemonic, 8, "b") kind(name, mnemonic, 16, "w") kind(name, mnemonic, 32, "l")
#define ALU_WORD_SIZES(kind, name, mnemonic) kind(name, mnemonic, 16, "w") kind(name, mnemonic, 32, "l")

ALU_ALL_SIZES(ALU_BINARY, add, "add")
ALU_ALL_SIZES(ALU_BINARY, or, "or")
ALU_ALL_SIZES(ALU_CARRY, adc, "adc")
ALU_ALL_SIZES(ALU_CARRY, sbb, "sbb")
ALU_ALL_SIZES(ALU_BINARY, and, "and")
ALU_ALL_SIZES(ALU_BINARY, sub, "sub")
ALU_ALL_SIZES(ALU_BINARY, xor, "xor")
ALU_ALL_SIZES(ALU_BINARY, cmp, "cmp")
ALU_ALL_SIZES(ALU_BINARY, test, "test")

ALU_ALL_SIZES(ALU_UNARY, inc, "inc")
ALU_ALL_SIZES(ALU_UNARY, dec, "dec")
ALU_ALL_SIZES(ALU_UNARY, neg, "neg")
ALU_ALL_SIZES(ALU_UNARY, not, "not")

ALU_ALL_SIZES(ALU_SHIFT, rol, "rol")
ALU_ALL_SIZES(ALU_SHIFT, ror, "ror")
ALU_ALL_SIZES(ALU_SHIFT, rcl, "rcl")
ALU_ALL_SIZES(ALU_SHIFT, rcr, "rcr")
ALU_ALL_SIZES(ALU_SHIFT, shl, "shl")
ALU_ALL_SIZES(ALU_SHIFT, shr, "shr")
ALU_ALL_SIZES(ALU_SHIFT, sar, "sar")
ALU_WORD_SIZES(ALU_SHIFT_DOUBLE, shld, "shld")
ALU_WORD_SIZES(ALU_SHIFT_DOUBLE, shrd, "shrd")

ALU_WORD_SIZES(ALU_MIXED, bsf, "bsf")
ALU_WORD_SIZES(ALU_MIXED, bsr, "bsr")
ALU_WORD_SIZES(ALU_MIXED, bt, "bt")
ALU_WORD_SIZES(ALU_MIXED, bts, "bts")
ALU_WORD_SIZES(ALU_MIXED, btr, "btr")
ALU_WORD_SIZES(ALU_MIXED, btc, "btc")
ALU_WORD_SIZES(ALU_MIXED, imul, "imul")

#endif
