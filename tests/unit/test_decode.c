/* test_decode.c - bytes against the fields of struct insn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "cpu/x86.h"
#include "translator/decode.h"

/* Bytes as text, "66 0f b6 c0". A leading dot: 16-bit code. */
static enum decode_result decode(const char *text, struct insn *i)
{
	uint8_t bytes[32];
	unsigned n = 0, b;
	int used;
	bool code32 = *text != '.';

	for (text += !code32; sscanf(text, "%x%n", &b, &used) == 1; text += used)
		bytes[n++] = (uint8_t)b;
	return decode_insn(bytes, n > 15 ? 15 : n, code32, i);
}

static void good(const char *text, struct insn *i)
{
	enum decode_result r = decode(text, i);

	if (r != DECODE_OK)
		fail_msg("%s: result %d", text, r);
}

/* ------------------------------------------------------------------ what decodes, and what does not */

static void test_lengths(void **state)
{
	static const struct {
		const char *text;
		unsigned len, map, opcode;
		ZydisMnemonic mnemonic;
	} t[] = {
		{"90", 1, 0, 0x90, ZYDIS_MNEMONIC_NOP},
		{"f3 90", 2, 0, 0x90, ZYDIS_MNEMONIC_PAUSE},
		{"8b 44 24 08", 4, 0, 0x8b, ZYDIS_MNEMONIC_MOV},
		{"0f b6 c0", 3, 1, 0xb6, ZYDIS_MNEMONIC_MOVZX},
		{"0f 38 f0 00", 4, 2, 0xf0, ZYDIS_MNEMONIC_MOVBE},
		{"f2 0f 38 f0 c0", 5, 2, 0xf0, ZYDIS_MNEMONIC_CRC32},
		{"66 0f 3a 0f c0 02", 6, 3, 0x0f, ZYDIS_MNEMONIC_PALIGNR},
		{"d9 c0", 2, 0, 0xd9, ZYDIS_MNEMONIC_FLD},
		{"9b", 1, 0, 0x9b, ZYDIS_MNEMONIC_FWAIT},
		{"d6", 1, 0, 0xd6, ZYDIS_MNEMONIC_SALC},
		{"f1", 1, 0, 0xf1, ZYDIS_MNEMONIC_INT1},
		{"82 c0 ff", 3, 0, 0x82, ZYDIS_MNEMONIC_ADD},
		{"c0 f0 03", 3, 0, 0xc0, ZYDIS_MNEMONIC_SHL},  /* /6 is an alias of /4 */
		{"f6 c8 01", 3, 0, 0xf6, ZYDIS_MNEMONIC_TEST}, /* and /1 of /0 */
		{"0f 34", 2, 1, 0x34, ZYDIS_MNEMONIC_SYSENTER},
		{"0f 01 38", 3, 1, 0x01, ZYDIS_MNEMONIC_INVLPG},
		{"0f 01 e0", 3, 1, 0x01, ZYDIS_MNEMONIC_SMSW},
		{"0f ae f0", 3, 1, 0xae, ZYDIS_MNEMONIC_MFENCE},
		{"0f ae e9", 3, 1, 0xae, ZYDIS_MNEMONIC_LFENCE},
		{"0f ae 38", 3, 1, 0xae, ZYDIS_MNEMONIC_CLFLUSH},
		{"0f 0d 08", 3, 1, 0x0d, ZYDIS_MNEMONIC_PREFETCHW},
		{"0f c7 f0", 3, 1, 0xc7, ZYDIS_MNEMONIC_RDRAND},
		{"0f c7 08", 3, 1, 0xc7, ZYDIS_MNEMONIC_CMPXCHG8B},
		/* without BMI and CET these are what they were before */
		{"f3 0f bc c1", 4, 1, 0xbc, ZYDIS_MNEMONIC_BSF},
		{"f3 0f bd c1", 4, 1, 0xbd, ZYDIS_MNEMONIC_BSR},
		{"f3 0f b8 c1", 4, 1, 0xb8, ZYDIS_MNEMONIC_POPCNT},
		{"f3 0f 1e fb", 4, 1, 0x1e, ZYDIS_MNEMONIC_NOP},
		{"0f 1a 00", 3, 1, 0x1a, ZYDIS_MNEMONIC_NOP},
		{"f3 0f 09", 3, 1, 0x09, ZYDIS_MNEMONIC_WBINVD},
		/* LES, LDS and BOUND share their opcodes with VEX and EVEX, which have mod 3 */
		{"c4 06", 2, 0, 0xc4, ZYDIS_MNEMONIC_LES},
		{"c5 46 08", 3, 0, 0xc5, ZYDIS_MNEMONIC_LDS},
		{"62 06", 2, 0, 0x62, ZYDIS_MNEMONIC_BOUND},
		{"66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", 15, 0, 0x90, ZYDIS_MNEMONIC_NOP},
	};

	(void)state;
	for (unsigned k = 0; k < sizeof t / sizeof *t; k++) {
		struct insn i;

		good(t[k].text, &i);
		if (i.len != t[k].len || i.opmap != t[k].map || i.opcode != t[k].opcode ||
		    i.mnemonic != t[k].mnemonic)
			fail_msg("%s: %s len %u map %u opcode %02x", t[k].text,
				 ZydisMnemonicGetString((ZydisMnemonic)i.mnemonic), i.len, i.opmap, i.opcode);
	}
}

static void test_refused(void **state)
{
	static const char *const invalid[] = {
		"0f 0b",
		"0f b9 c0",
		"0f ff c0", /* UD2, UD1, UD0 */
		"c5 f8 77",
		"c4 e2 79 18 00",
		"62 f1 7c 48 28 c0", /* VEX, EVEX */
		"8f e8 78 c0 00 00",
		"0f 0f c0 9e", /* XOP, 3DNow! */
		"0f 05",
		"0f 07",
		"0f aa",
		"0f 37",
		"0f a6 c0", /* SYSCALL, SYSRET, RSM, GETSEC, PadLock */
		"0f 01 c1",
		"0f 01 d8",
		"0f 01 c8",
		"0f 01 c9", /* VMCALL, VMRUN, MONITOR, MWAIT */
		"0f 01 d0",
		"0f 01 f9",
		"0f ae 20",
		"0f c7 20", /* XGETBV, RDTSCP, XSAVE, XSAVES */
		"f3 0f c7 f8",
		"66 0f ae 38",
		"66 0f ae 30", /* RDPID, CLFLUSHOPT, CLWB */
		"f3 0f ae c0",
		"0f 38 80 00",
		"0f 38 c8 c0", /* RDFSBASE, INVEPT, SHA */
		"66 0f 38 f6 c0",
		"0f 0d c8",
		"0f 24 c0", /* ADCX, PREFETCHW reg, MOV TR */
		"0f 22 c8",
		"0f 20 e8",
		"8e c8",
		"8e f0", /* CR1, CR5, MOV CS, segment 6 */
		"8d c0",
		"fe d0",
		"ff f8",
		"0f ba c0 01",
		"c6 c8 00",
		"0f 00 f0",
		"0f c7 c8",
		"0f 38 f0 c0",
		/* LOCK where there is none */
		"f0 01 c0",
		"f0 89 00",
		"f0 90",
		"f0 39 00",
		"f0 0f a3 00",
		"f0 0f 20 c0",
		"f0 d0 00",
		"f0 ff 30",
		"f0 83 38 01",
	};
	struct insn i;

	(void)state;
	for (unsigned k = 0; k < sizeof invalid / sizeof *invalid; k++)
		if (decode(invalid[k], &i) != DECODE_INVALID)
			fail_msg("%s: not refused", invalid[k]);
	/* no need to see more of them */
	assert_int_equal(decode("8f c8", &i), DECODE_INVALID);
	assert_int_equal(decode("66 c4 e2", &i), DECODE_INVALID);
	assert_int_equal(decode("62 f1", &i), DECODE_INVALID);
	assert_int_equal(decode("66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", &i), DECODE_TOO_LONG);
	assert_int_equal(decode("2e 2e 2e 2e 2e 2e 2e 2e 2e c7 80 00 00 00 00 00 00 00 00", &i),
			 DECODE_TOO_LONG);
	for (const char *const *p = (const char *const[]){"66", "0f", "8b", "8b 84", "8b 84 24 00 00",
							  "b8 00 00", "0f 38", "ea 00 00 00 00 00", NULL};
	     *p; p++)
		if (decode(*p, &i) != DECODE_MORE)
			fail_msg("%s: not too short", *p);
}

static void test_locked(void **state)
{
	static const char *const legal[] = {
		"f0 01 00",    "f0 08 00",    "f0 80 10 01", "f0 0f ab 00", "f0 0f ba 28 01", "f0 0f b0 00",
		"f0 0f c1 00", "f0 0f c7 08", "f0 87 00",    "f0 f7 10",    "f0 ff 00",
	};
	struct insn i;

	(void)state;
	for (unsigned k = 0; k < sizeof legal / sizeof *legal; k++) {
		good(legal[k], &i);
		assert_int_equal(i.prefix, INSN_LOCK);
		assert_int_equal(i.nprefix, 1);
	}
}

/* ------------------------------------------------------------------ prefixes */

static void test_prefixes(void **state)
{
	static const struct {
		const char *text;
		unsigned prefix, nprefix, opsize, adsize;
		int segover;
	} t[] = {
		{"a5", 0, 0, 4, 4, -1},
		{".a5", 0, 0, 2, 2, -1},
		{"66 a5", INSN_66, 1, 2, 4, -1},
		{".66 a5", INSN_66, 1, 4, 2, -1},
		{"67 a5", INSN_67, 1, 4, 2, -1},
		{".67 a5", INSN_67, 1, 2, 4, -1},
		{".67 66 a5", INSN_66 | INSN_67, 2, 4, 4, -1},
		{"66 66 a5", INSN_66, 2, 2, 4, -1}, /* repeated: once */
		{"f3 a5", INSN_REP, 1, 4, 4, -1},
		{"f2 f3 a5", INSN_REP, 2, 4, 4, -1}, /* the last one counts */
		{"f3 f2 a5", INSN_REPNE, 2, 4, 4, -1},
		{"26 a5", 0, 1, 4, 4, ES},
		{"2e 36 a5", 0, 2, 4, 4, SS},
		{"65 64 f3 66 a5", INSN_REP | INSN_66, 4, 2, 4, FS},
		{"3e a5", 0, 1, 4, 4, DS},
		{"65 a5", 0, 1, 4, 4, GS},
		{"66 f2 0f 38 f1 c0", INSN_66 | INSN_REPNE, 2, 2, 4, -1},
	};

	(void)state;
	for (unsigned k = 0; k < sizeof t / sizeof *t; k++) {
		struct insn i;

		good(t[k].text, &i);
		if (i.prefix != t[k].prefix || i.nprefix != t[k].nprefix || i.opsize != t[k].opsize ||
		    i.adsize != t[k].adsize || i.segover != t[k].segover ||
		    i.seg != (t[k].segover < 0 ? DS : t[k].segover))
			fail_msg("%s: prefix %x (%u) opsize %u adsize %u seg %d", t[k].text, i.prefix,
				 i.nprefix, i.opsize, i.adsize, i.segover);
	}
}

/* A mandatory prefix chooses the instruction: F2 and F3 win over 66, the last of them over the others. */
static void test_mandatory(void **state)
{
	static const struct {
		const char *text;
		ZydisMnemonic mnemonic;
	} t[] = {
		{"0f 58 c0", ZYDIS_MNEMONIC_ADDPS},	  {"66 0f 58 c0", ZYDIS_MNEMONIC_ADDPD},
		{"f3 0f 58 c0", ZYDIS_MNEMONIC_ADDSS},	  {"f2 0f 58 c0", ZYDIS_MNEMONIC_ADDSD},
		{"66 f2 0f 58 c0", ZYDIS_MNEMONIC_ADDSD}, {"f2 66 0f 58 c0", ZYDIS_MNEMONIC_ADDSD},
		{"f3 f2 0f 58 c0", ZYDIS_MNEMONIC_ADDSD}, {"f2 f3 0f 58 c0", ZYDIS_MNEMONIC_ADDSS},
		{"0f 6f 00", ZYDIS_MNEMONIC_MOVQ},	  {"66 0f 6f 00", ZYDIS_MNEMONIC_MOVDQA},
		{"f3 0f 6f 00", ZYDIS_MNEMONIC_MOVDQU},	  {"66 0f 38 f0 00", ZYDIS_MNEMONIC_MOVBE},
	};
	struct insn i;

	(void)state;
	for (unsigned k = 0; k < sizeof t / sizeof *t; k++) {
		good(t[k].text, &i);
		if (i.mnemonic != t[k].mnemonic)
			fail_msg("%s: %s", t[k].text, ZydisMnemonicGetString((ZydisMnemonic)i.mnemonic));
	}
	assert_int_equal(decode("f2 0f 54 c0", &i), DECODE_INVALID);
}

/* ------------------------------------------------------------------ operands */

static void test_memory(void **state)
{
	static const struct {
		const char *text;
		int seg, base, index;
		unsigned scale;
		int32_t disp;
		unsigned disp_off, disp_size;
	} t[] = {
		{"8b 00", DS, EAX, -1, 1, 0, 0, 0},
		{"8b 45 00", SS, EBP, -1, 1, 0, 2, 1},
		{"8b 45 80", SS, EBP, -1, 1, -128, 2, 1},
		{"8b 05 78 56 34 12", DS, -1, -1, 1, 0x12345678, 2, 4},
		{"8b 80 fc ff ff ff", DS, EAX, -1, 1, -4, 2, 4},
		{"8b 04 24", SS, ESP, -1, 1, 0, 0, 0},
		{"8b 44 24 10", SS, ESP, -1, 1, 16, 3, 1},
		{"8b 04 88", DS, EAX, ECX, 4, 0, 0, 0},
		{"8b 04 60", DS, EAX, -1, 1, 0, 0, 0}, /* index 4: none */
		{"8b 04 8d 00 10 00 00", DS, -1, ECX, 4, 0x1000, 3, 4},
		{"8b 44 8d 10", SS, EBP, ECX, 4, 16, 3, 1},
		{"8b 04 2c", SS, ESP, EBP, 1, 0, 0, 0}, /* the base decides */
		{"8b 04 28", DS, EAX, EBP, 1, 0, 0, 0},
		{"3e 8b 45 00", DS, EBP, -1, 1, 0, 3, 1},
		{"65 8b 04 24", GS, ESP, -1, 1, 0, 0, 0},
		{"67 8b 00", DS, EBX, ESI, 1, 0, 0, 0},
		{"67 8b 01", DS, EBX, EDI, 1, 0, 0, 0},
		{"67 8b 02", SS, EBP, ESI, 1, 0, 0, 0},
		{"67 8b 43 ff", SS, EBP, EDI, 1, -1, 3, 1},
		{"67 8b 04", DS, ESI, -1, 1, 0, 0, 0},
		{"67 8b 05", DS, EDI, -1, 1, 0, 0, 0},
		{"67 8b 06 34 12", DS, -1, -1, 1, 0x1234, 3, 2},
		{"67 8b 86 34 12", SS, EBP, -1, 1, 0x1234, 3, 2},
		{".8b 87 fe ff", DS, EBX, -1, 1, -2, 2, 2},
		{".67 8b 04 24", SS, ESP, -1, 1, 0, 0, 0},
		{"a1 78 56 34 12", DS, -1, -1, 1, 0x12345678, 1, 4},
		{"64 a2 00 00 00 80", FS, -1, -1, 1, INT32_MIN, 2, 4},
		{"67 a1 34 12", DS, -1, -1, 1, 0x1234, 2, 2},
	};

	(void)state;
	for (unsigned k = 0; k < sizeof t / sizeof *t; k++) {
		struct insn i;

		good(t[k].text, &i);
		if (!i.has_mem || i.seg != t[k].seg || i.base != t[k].base || i.index != t[k].index ||
		    i.scale != t[k].scale || i.disp != t[k].disp || i.disp_off != t[k].disp_off ||
		    i.disp_size != t[k].disp_size)
			fail_msg("%s: seg %d base %d index %d*%d disp %x at %u, %u bytes", t[k].text, i.seg,
				 i.base, i.index, i.scale, (unsigned)i.disp, i.disp_off, i.disp_size);
	}
}

static void test_registers(void **state)
{
	struct insn i;

	(void)state;
	good("8b d9", &i);
	assert_true(i.has_modrm && !i.has_mem);
	assert_int_equal(i.mod, 3);
	assert_int_equal(i.reg, EBX);
	assert_int_equal(i.rm, ECX);
	assert_int_equal(i.modrm_off, 1);
	/* control and debug registers: mod does not count, and there is no displacement */
	good("0f 20 45", &i);
	assert_int_equal(i.len, 3);
	assert_int_equal(i.mod, 3);
	assert_int_equal(i.rm, EBP);
	assert_false(i.has_mem);
	good("0f 23 3d", &i);
	assert_int_equal(i.mod, 3);
	assert_int_equal(i.reg, 7);
	/* strings and XLAT: no operand of ModRM, but a segment */
	good("64 d7", &i);
	assert_false(i.has_mem);
	assert_int_equal(i.seg, FS);
}

static void test_immediates(void **state)
{
	static const struct {
		const char *text;
		uint32_t imm;
		unsigned off, size;
		uint32_t imm2;
		unsigned size2;
	} t[] = {
		{"05 78 56 34 12", 0x12345678, 1, 4, 0, 0},
		{"66 05 34 12", 0x1234, 2, 2, 0, 0},
		{"83 c0 ff", 0xffffffff, 2, 1, 0, 0},
		{"6a 80", 0xffffff80, 1, 1, 0, 0},
		{"6b c0 fe", 0xfffffffe, 2, 1, 0, 0},
		{"cd 80", 0x80, 1, 1, 0, 0},
		{"e4 ff", 0xff, 1, 1, 0, 0},
		{"d4 f0", 0xf0, 1, 1, 0, 0},
		{"c1 e0 ff", 0xff, 2, 1, 0, 0},
		{"c2 fc ff", 0xfffc, 1, 2, 0, 0},
		{"c8 34 12 85", 0x1234, 1, 2, 0x85, 1},
		{"9a 11 22 33 44 55 66", 0x44332211, 1, 4, 0x6655, 2},
		{"66 ea 11 22 33 44", 0x2211, 2, 2, 0x4433, 2},
		{"eb fe", 0xfffffffe, 1, 1, 0, 0},
		{"e8 00 00 00 80", 0x80000000, 1, 4, 0, 0},
		{"66 e9 00 80", 0xffff8000, 2, 2, 0, 0},
		{".0f 84 00 80", 0xffff8000, 2, 2, 0, 0},
		{"c7 44 24 04 01 02 03 04", 0x04030201, 4, 4, 0, 0},
		{"0f ba e0 1f", 0x1f, 3, 1, 0, 0},
	};

	(void)state;
	for (unsigned k = 0; k < sizeof t / sizeof *t; k++) {
		struct insn i;

		good(t[k].text, &i);
		if (i.imm != t[k].imm || i.imm_off != t[k].off || i.imm_size != t[k].size ||
		    i.imm2 != t[k].imm2 || i.imm2_size != t[k].size2)
			fail_msg("%s: imm %x at %u, %u bytes; %x, %u bytes", t[k].text, i.imm, i.imm_off,
				 i.imm_size, i.imm2, i.imm2_size);
	}
}

/* ------------------------------------------------------------------ flags */

static void test_flags(void **state)
{
	const uint32_t all = FL_ARITH, most = FL_ARITH & ~FL_CF;
	static const uint32_t eflags = FL_ARITH | FL_DF;
	const struct {
		const char *text;
		uint32_t reads, writes, undefined;
	} t[] = {
		{"01 c0", 0, all, 0},
		{"11 c0", FL_CF, all, 0},
		{"40", 0, most, 0},
		{"21 c0", 0, all, FL_AF},
		{"f7 d0", 0, 0, 0}, /* NOT */
		{"89 c0", 0, 0, 0},
		{"72 00", FL_CF, 0, 0},
		{"7f 00", FL_ZF | FL_SF | FL_OF, 0, 0},
		{"0f 9a c0", FL_PF, 0, 0},
		{"0f a3 c0", 0, all & ~FL_ZF, all & ~(FL_ZF | FL_CF)},
		{"0f bc c0", 0, all, all & ~FL_ZF},
		{"0f c7 08", 0, FL_ZF, 0},
		{"c1 e0 04", 0, all, FL_OF | FL_AF},
		{"c1 e0 01", 0, all, FL_AF},
		{"d1 e0", 0, all, FL_AF},
		{"c1 e0 20", 0, 0, 0}, /* a count of 32 is 0 */
		{"d3 e0", 0, 0, FL_OF | FL_AF},
		{"c1 c0 04", 0, FL_CF | FL_OF, FL_OF},
		{"d1 d0", FL_CF, FL_CF | FL_OF, 0},
		{"c0 d0 09", FL_CF, 0, 0}, /* 9 rounds of 9 bits */
		{"66 c1 d0 11", FL_CF, 0, 0},
		{"c1 d0 11", FL_CF, FL_CF | FL_OF, FL_OF},
		{"0f a4 c0 05", 0, all, FL_OF | FL_AF},
		{"0f a5 c0", 0, 0, FL_OF | FL_AF},
		{"a6", FL_DF, all, 0},
		{"9c", eflags, 0, 0},
		{"9d", 0, eflags, 0},
		{"cd 80", eflags, 0, 0},
		{"cc", eflags, 0, 0},
		{"fc", 0, FL_DF, 0},
		{"f5", FL_CF, FL_CF, 0},
		{"9e", 0, all & ~FL_OF, 0},
		{"d6", FL_CF, 0, 0},
		{"f7 f0", 0, all, all},
		{"f7 e0", 0, all, all & ~(FL_CF | FL_OF)},
		{"0f 45 c0", FL_ZF, 0, 0},
		{"e2 00", 0, 0, 0},
		{"e1 00", FL_ZF, 0, 0},
		{"66 0f 2f c0", 0, all, 0}, /* COMISD */
		{"f3 0f b8 c0", 0, all, 0},
	};

	(void)state;
	for (unsigned k = 0; k < sizeof t / sizeof *t; k++) {
		uint32_t r, w, u;
		struct insn i;

		good(t[k].text, &i);
		decode_flags(&i, &r, &w, &u);
		if (r != t[k].reads || w != t[k].writes || u != t[k].undefined)
			fail_msg("%s: reads %x writes %x undefined %x, want %x %x %x", t[k].text, r, w, u,
				 t[k].reads, t[k].writes, t[k].undefined);
	}
	/* a repeated comparison may not happen at all */
	for (const char *const *p = (const char *const[]){"f3 a6", "f2 af", NULL}; *p; p++) {
		uint32_t r, w, u;
		struct insn i;

		good(*p, &i);
		decode_flags(&i, &r, &w, &u);
		assert_int_equal(w, 0);
		assert_true(r & FL_DF);
	}
}

static void compare_with_anew(const uint8_t *p, unsigned avail)
{
	struct insn a, b;

	memset(&a, 0, sizeof a);
	memset(&b, 0, sizeof b);
	enum decode_result ra = decode_insn(p, avail, true, &a);
	enum decode_result rb = decode_insn_anew(p, avail, true, &b);
	if (ra != rb || (ra == DECODE_OK && memcmp(&a, &b, sizeof a)))
		fail_msg("%02x %02x %02x %02x %02x ..., %u bytes of it, decodes otherwise", p[0], p[1], p[2],
			 p[3], p[4], avail);
}

/* The same from memory, with another's displacement and immediate, as anew; and where the bytes end. */
static void compare_remembered(const uint8_t *begin, unsigned n, uint32_t *seed)
{
	uint8_t p[INSN_MAX_LEN];

	for (unsigned i = 0; i < sizeof p; i++)
		p[i] = i < n ? begin[i] : (uint8_t)((*seed = *seed * 1664525 + 1013904223) >> 24);
	compare_with_anew(p, sizeof p);
	compare_with_anew(p, 1 + (*seed >> 16) % (INSN_MAX_LEN - 1));
}

/* op: the map in bit 16, opcode, ModRM. */
static void compare_opcode(uint8_t prefix, unsigned op, uint32_t *seed)
{
	static const uint8_t sibs[] = {0x25, 0x65, 0xe4, 0x8d};
	uint8_t p[5];
	unsigned n = 0;

	if (prefix)
		p[n++] = prefix;
	if (op >> 16)
		p[n++] = 0x0f;
	p[n++] = (uint8_t)(op >> 8);
	p[n++] = (uint8_t)op;
	p[n] = sibs[*seed >> 30];
	compare_remembered(p, n + 1, seed);
	compare_remembered(p, n + 1, seed);
}

/* Every opcode of the first two maps with every ModRM and some SIBs, twice; with each prefix too. Once in
 * order and once in none, so that what is remembered comes from another register, or another opcode with a
 * like ModRM. */
static void test_remembered(void **state)
{
	static const uint8_t prefixes[] = {0,	 0x26, 0x2e, 0x36, 0x3e, 0x64,
					   0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3};
	uint32_t seed = 1;

	(void)state;
	for (unsigned i = 0; i < sizeof prefixes; i++) {
		for (unsigned op = 0; op < 2 * 65536; op += i && (op & 7) == 5 ? 3 : 1)
			compare_opcode(prefixes[i], op, &seed);
		for (unsigned k = 0; k < 2 * 65536; k++)
			compare_opcode(prefixes[i], k * 40503u & 0x1ffff, &seed);
	}
}

/* What -d in_asm, out_asm and the monitor's x/i print. */
static void test_text(void **state)
{
	static const struct {
		unsigned bits, len;
		uint8_t code[8];
		const char *text;
	} t[] = {
		{32, 2, {0x8b, 0x30}, "mov esi, dword ptr [eax]"},
		{32, 3, {0x65, 0x8b, 0x30}, "mov esi, dword ptr gs:[eax]"},
		{32, 5, {0x0f, 0xb7, 0x5c, 0x4f, 0x08}, "movzx ebx, word ptr [edi+ecx*2+0x8]"},
		{32, 5, {0xe9, 0x00, 0x01, 0x00, 0x00}, "jmp 0xc0001105"},
		{32, 2, {0xd9, 0x06}, "fld dword ptr [esi]"},
		{32, 1, {0x90, 0xcc}, "nop"},
		{16, 3, {0xe9, 0x00, 0x01}, "jmp 0x1103"},
		{16, 2, {0x8b, 0x07}, "mov ax, word ptr [bx]"},
		{64, 5, {0x65, 0x41, 0x8b, 0x1c, 0x24}, "mov ebx, dword ptr gs:[r12]"},
		{32, 0, {0x0f, 0x04}, ""},
	};
	char text[64];

	(void)state;
	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		unsigned len = decode_text(t[i].bits, 0xc0001000, t[i].code, 8, text, sizeof text);
		assert_int_equal(len, t[i].len);
		if (len)
			assert_string_equal(text, t[i].text);
	}
	assert_int_equal(decode_text(32, 0, t[0].code, 1, text, sizeof text), 0); /* cut off */
	assert_int_equal(decode_text(32, 0, t[2].code, 8, text, 10), 0);	  /* does not fit */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),	  cmocka_unit_test(test_refused),
		cmocka_unit_test(test_locked),	  cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_mandatory), cmocka_unit_test(test_memory),
		cmocka_unit_test(test_registers), cmocka_unit_test(test_immediates),
		cmocka_unit_test(test_flags),	  cmocka_unit_test(test_remembered),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
