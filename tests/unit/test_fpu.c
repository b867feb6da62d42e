/* test_fpu.c - interp_fpu: every instruction against the silicon (fpu_rig.h), and what only a kernel can set
 * up.
 *
 *     unit_fpu                        every instruction, a fixed seed
 *     FPU_TEST_CASES=1000 unit_fpu    that many cases for each instruction form
 *     FPU_TEST_SEED=7 unit_fpu        other cases
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/fpu_rig.h"

/* ------------------------------------------------------------------ every instruction form */

/* Instructions that have no state of the unit as operand, or that can't be compared one by one. */
static bool left_out(const struct insn *i)
{
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
	case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHT0:
	case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2:
		return true;
	default:
		return false;
	}
}

static unsigned n_cases, n_forms, n_different, n_faults;

static void run_form(const uint8_t *code, unsigned len, unsigned cases)
{
	struct insn insn;
	unsigned bad = 0;

	if (decode_insn(code, len, true, &insn) != DECODE_OK || insn.len != len || left_out(&insn))
		return;
	rig_cpu_init();
	if (hostunit_lookup(&cpu, &insn)->class == HOSTUNIT_UNDEFINED)
		return;
	n_forms++;
	for (unsigned k = 0; k < cases && bad < 2; k++) {
		rig_random_state(rig_below(12) ? 0 : FL_AC);
		LOW->gpr[EDI] = rig_random_address();
		n_cases++;
		if (!rig_agree(code, len))
			bad++;
		n_faults += rig_native.vector >= 0;
	}
	n_different += bad != 0;
}

/* The one-byte map is x87 and knows no mandatory prefixes; the rest of these is for the order and the
 * repetition of prefixes. */
static const struct {
	uint8_t byte[2], len;
} prefixes[] = {
	{{0}, 0},	   {{0x66}, 1},	      {{0xf3}, 1},	 {{0xf2}, 1},	    {{0x66, 0xf3}, 2},
	{{0xf3, 0x66}, 2}, {{0x66, 0xf2}, 2}, {{0xf3, 0xf2}, 2}, {{0xf2, 0xf3}, 2}, {{0x36, 0x66}, 2},
};

/* One opcode of map under prefix, all ModRM bytes; memory forms as [edi]. */
static void run_opcode(unsigned map, unsigned prefix, unsigned opcode, unsigned cases)
{
	uint8_t code[16];
	unsigned len = prefixes[prefix].len;

	memcpy(code, prefixes[prefix].byte, len);
	if (map)
		code[len++] = 0x0f;
	if (map > 1)
		code[len++] = map == 2 ? 0x38 : 0x3a;
	code[len++] = (uint8_t)opcode;
	run_form(code, len, cases);
	for (unsigned modrm = 0; modrm < 256; modrm++) {
		if ((modrm < 0xc0 && (modrm & 0xc7) != 7) || (map && modrm >= 0xc0 && rig_below(4)))
			continue;
		code[len] = (uint8_t)modrm;
		run_form(code, len + 1, cases);
		for (unsigned k = 0; k < 3; k++) { /* forms with an immediate */
			code[len + 1] = (uint8_t)rig_below(256);
			run_form(code, len + 2, (cases + 2) / 3);
		}
	}
}

static void every_instruction(void **state)
{
	const unsigned n_prefixes = sizeof prefixes / sizeof *prefixes;
	const char *cases = getenv("FPU_TEST_CASES");

	(void)state;
	rig_take_signals();
	for (unsigned prefix = 0; prefix < n_prefixes; prefix++) {
		const unsigned n = (cases ? (unsigned)atoi(cases) : 12) / (prefix < 4 ? 1 : 4);

		for (unsigned opcode = 0xd8; opcode <= 0xdf; opcode++)
			run_opcode(0, prefix, opcode, n);
		run_opcode(0, prefix, 0x9b, n);
		for (unsigned map = 1; map < 4; map++)
			for (unsigned opcode = 0; opcode < 256; opcode++)
				run_opcode(map, prefix, opcode, n);
	}
	print_message("%u instruction forms, %u cases, %u faults\n", n_forms, n_cases, n_faults);
	assert_true(n_forms > 4000);
	assert_int_equal(n_different, 0);
}

/* FIP, FCS, FOP, FDP, FDS and the tags, as FNSTENV shows them after each x87 instruction. */
static void pointers(void **state)
{
	unsigned different = 0, n = 0;

	(void)state;
	rig_take_signals();
	for (unsigned opcode = 0xd8; opcode <= 0xdf; opcode++) {
		for (unsigned modrm = 0; modrm < 256; modrm++) {
			/* insn; fnstenv [esi] or [ss:esi], 32-bit and 16-bit */
			uint8_t code[8] = {0x36, (uint8_t)opcode, (uint8_t)modrm, 0x66, 0xd9, 0x36, 0xd9,
					   0x36};
			struct insn insn;

			if ((modrm < 0xc0 && (modrm & 0xc7) != 7) ||
			    decode_insn(code, 3, true, &insn) != DECODE_OK || insn.len != 3)
				continue;
			for (unsigned k = 0; k < 16; k++) {
				rig_random_state(0);
				LOW->gpr[EDI] = DATA_AT + 128;
				LOW->gpr[ESI] = DATA_AT + 1024;
				code[3] = k & 1 ? 0x66 : 0x3e;
				n++;
				if (!rig_agree(code, 6) && ++different > 10)
					fail();
			}
		}
	}
	print_message("%u cases\n", n);
	assert_int_equal(different, 0);
}

/* ------------------------------------------------------------------ what user mode can't ask the silicon */

#define CODE(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

/* Executes one instruction on cpu as it stands. */
static int step(const uint8_t *code, size_t len)
{
	struct insn insn;

	assert_int_equal(decode_insn(code, (unsigned)len, cpu_code32(&cpu), &insn), DECODE_OK);
	assert_int_equal(insn.len, len);
	cpu.exc.pending = false;
	return interp_fpu(&cpu, &insn);
}

static int vector_of(const uint8_t *code, size_t len)
{
	return step(code, len) == -1 ? cpu.exc.vector : -1;
}

/* CR0.EM, TS, MP and CR4.OSFXSR (SDM vol. 3A tables 2-2 and 13-1). */
static void availability(void **state)
{
	static const struct {
		const char *name;
		uint8_t code[6], len;
		int em, ts, em_ts, no_fxsr;
	} rows[] = {
		{"fld1", {0xd9, 0xe8}, 2, VEC_NM, VEC_NM, VEC_NM, -1},
		{"fninit", {0xdb, 0xe3}, 2, VEC_NM, VEC_NM, VEC_NM, -1},
		{"fnstsw ax", {0xdf, 0xe0}, 2, VEC_NM, VEC_NM, VEC_NM, -1},
		{"paddb mm", {0x0f, 0xfc, 0xc1}, 3, VEC_UD, VEC_NM, VEC_UD, -1},
		{"emms", {0x0f, 0x77}, 2, VEC_UD, VEC_NM, VEC_UD, -1},
		{"pshufw mm", {0x0f, 0x70, 0xc1, 0}, 4, VEC_UD, VEC_NM, VEC_UD, -1},
		{"pabsb mm", {0x0f, 0x38, 0x1c, 0xc1}, 4, VEC_UD, VEC_NM, VEC_UD, -1},
		{"addps", {0x0f, 0x58, 0xc1}, 3, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"paddb xmm", {0x66, 0x0f, 0xfc, 0xc1}, 4, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"cvtpi2ps", {0x0f, 0x2a, 0xc1}, 3, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"cvttps2pi [edi]", {0x0f, 0x2c, 0x07}, 3, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"movq2dq", {0xf3, 0x0f, 0xd6, 0xc1}, 4, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"stmxcsr", {0x0f, 0xae, 0x1f}, 3, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"fxsave", {0x0f, 0xae, 0x07}, 3, VEC_NM, VEC_NM, VEC_NM, -1},
		{"movnti", {0x0f, 0xc3, 0x07}, 3, -1, -1, -1, -1},
	};

	(void)state;
	for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
		rig_cpu_init();
		cpu.gpr[EDI] = DATA_AT;
		assert_int_equal(vector_of(rows[k].code, rows[k].len), -1);
		cpu.cr0 |= CR0_EM;
		assert_int_equal(vector_of(rows[k].code, rows[k].len), rows[k].em);
		cpu.cr0 |= CR0_TS;
		assert_int_equal(vector_of(rows[k].code, rows[k].len), rows[k].em_ts);
		cpu.cr0 &= ~CR0_EM;
		assert_int_equal(vector_of(rows[k].code, rows[k].len), rows[k].ts);
		cpu.cr0 &= ~CR0_TS;
		cpu.cr4 &= ~CR4_OSFXSR;
		assert_int_equal(vector_of(rows[k].code, rows[k].len), rows[k].no_fxsr);
	}
}

static void fwait_availability(void **state)
{
	(void)state;
	rig_cpu_init();
	for (unsigned k = 0; k < 8; k++) {
		cpu.cr0 =
			CR0_PE | CR0_NE | (k & 1 ? CR0_MP : 0) | (k & 2 ? CR0_TS : 0) | (k & 4 ? CR0_EM : 0);
		assert_int_equal(vector_of(CODE(0x9b)), (k & 3) == 3 ? VEC_NM : -1);
	}
}

/* 0/0 with IE unmasked: nothing until the next waiting instruction. */
static void set_pending(void)
{
	rig_cpu_init();
	cpu.gpr[EDI] = DATA_AT;
	memset(rig_page, 0, sizeof rig_page);
	fx_put16(cpu.fpu.fxsave, FX_FCW, 0x37e);
	assert_int_equal(step(CODE(0xd9, 0xee)), 0);
	assert_int_equal(step(CODE(0xd8, 0x37)), 0);
	assert_int_equal(fx_get16(cpu.fpu.fxsave, FX_FSW) & 0x80ff, 0x8081);
}

static void pending_exception_is_deferred(void **state)
{
	(void)state;
	set_pending();
	assert_int_equal(vector_of(CODE(0xd9, 0xe8)), VEC_MF);
	assert_int_equal(vector_of(CODE(0x9b)), VEC_MF);
	assert_int_equal(vector_of(CODE(0x0f, 0x77)), VEC_MF);
	assert_int_equal(vector_of(CODE(0x0f, 0x58, 0xc1)), -1);
	assert_int_equal(vector_of(CODE(0xd9, 0x3f)), -1); /* fnstcw */
	assert_int_equal(vector_of(CODE(0xdf, 0xe0)), -1); /* fnstsw ax */
	assert_int_equal(cpu.gpr[EAX] & 0x80ff, 0x8081);
	assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_FIP), CODE_AT);
	assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_FDP), DATA_AT);
	assert_int_equal(vector_of(CODE(0xdb, 0xe2)), -1); /* fnclex */
	assert_int_equal(vector_of(CODE(0x9b)), -1);
}

static unsigned ferr_calls;
static enum fpu_ferr ferr_answer;

static enum fpu_ferr on_ferr(struct vcpu *c)
{
	assert_ptr_equal(c, &cpu);
	ferr_calls++;
	return ferr_answer;
}

/* CR0.NE = 0: FERR# instead of #MF. */
static void legacy_error_reporting(void **state)
{
	struct fpu_state before;

	(void)state;
	set_pending();
	cpu.cr0 &= ~CR0_NE;
	assert_int_equal(vector_of(CODE(0xd9, 0xe8)), VEC_MF); /* no hook: nobody to report to */
	fpu_ferr_hook = on_ferr;
	ferr_answer = FPU_FERR_WAIT;
	before = cpu.fpu;
	assert_int_equal(step(CODE(0xd9, 0xe8)), INSN_JUMPED);
	assert_false(cpu.exc.pending);
	assert_memory_equal(&before, &cpu.fpu, sizeof before);
	assert_int_equal(ferr_calls, 1);
	ferr_answer = FPU_FERR_IGNORE;
	assert_int_equal(step(CODE(0x9b)), INSN_NEXT);
	assert_int_equal(ferr_calls, 2);
	cpu.cr0 |= CR0_NE;
	assert_int_equal(vector_of(CODE(0xd9, 0xe8)), VEC_MF);
	assert_int_equal(ferr_calls, 2);
	fpu_ferr_hook = NULL;
}

/* With IGNNE# asserted a waiting instruction executes although an exception is pending, and must not trap the
 * host. */
static void ignored_exception_executes(void **state)
{
	(void)state;
	set_pending();
	cpu.cr0 &= ~CR0_NE;
	fpu_ferr_hook = on_ferr;
	ferr_answer = FPU_FERR_IGNORE;
	assert_int_equal(step(CODE(0xd9, 0xe8)), INSN_NEXT); /* fld1 */
	assert_int_equal(fx_get16(cpu.fpu.fxsave, FX_ST + 8), 0x3fff);
	assert_int_equal(fx_get16(cpu.fpu.fxsave, FX_FSW) & 0x8081, 0x8081);
	fpu_ferr_hook = NULL;
}

static void simd_exception_without_osxmmexcpt(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		rig_cpu_init();
		fx_put32(cpu.fpu.fxsave, FX_MXCSR, 0x1d80); /* ZE unmasked */
		fx_put32(cpu.fpu.fxsave, FX_XMM, 0x3f800000);
		if (k)
			cpu.cr4 &= ~CR4_OSXMMEXCPT;
		assert_int_equal(vector_of(CODE(0xf3, 0x0f, 0x5e, 0xc1)), k ? VEC_UD : VEC_XM); /* divss */
		assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_MXCSR), 0x1d84);
		assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_XMM), 0x3f800000);
	}
}

/* FIP is 1234:00056789, FDP is 5678:000abcde, FOP is 123. */
static void env_layouts(void **state)
{
	static const uint8_t layouts[4][28] = {
		/* 32-bit protected */
		{0x7f, 0x03, 0xff, 0xff, 0x00, 0x38, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x89, 0x67,
		 0x05, 0x00, 0x34, 0x12, 0x23, 0x01, 0xde, 0xbc, 0x0a, 0x00, 0x78, 0x56, 0xff, 0xff},
		/* 16-bit protected */
		{0x7f, 0x03, 0x00, 0x38, 0xff, 0x3f, 0x89, 0x67, 0x34, 0x12, 0xde, 0xbc, 0x78, 0x56},
		/* 32-bit real: FIP 12340 + 56789 = 68ac9, FDP 56780 + abcde = 10245e */
		{0x7f, 0x03, 0xff, 0xff, 0x00, 0x38, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0xc9, 0x8a,
		 0xff, 0xff, 0x23, 0x61, 0x00, 0x00, 0x5e, 0x24, 0xff, 0xff, 0x00, 0x00, 0x01, 0x00},
		/* 16-bit real */
		{0x7f, 0x03, 0x00, 0x38, 0xff, 0x3f, 0xc9, 0x8a, 0x23, 0x61, 0x5e, 0x24, 0x00, 0x00},
	};

	(void)state;
	if (hostunit_traits.no_fcs_fds)
		skip();
	for (unsigned k = 0; k < 6; k++) { /* 4 and 5: virtual-8086 mode */
		const unsigned layout = k < 4 ? k : k - 2, len = layout & 1 ? 14 : 28;
		const uint8_t prefix = layout & 1 ? 0x66 : 0x3e;
		uint8_t *fx = cpu.fpu.fxsave;

		rig_cpu_init();
		cpu.gpr[EDI] = DATA_AT;
		memset(rig_page, 0xcc, sizeof rig_page);
		if (k == 2 || k == 3)
			cpu.cr0 &= ~CR0_PE;
		if (k >= 4)
			cpu.sysflags |= FL_VM;
		assert_int_equal(step(CODE(0xd9, 0xe8)), 0);
		fx_put32(fx, FX_FIP, 0x56789);
		fx_put16(fx, FX_FCS, 0x1234);
		fx_put32(fx, FX_FDP, 0xabcde);
		fx_put16(fx, FX_FDS, 0x5678);
		fx_put16(fx, FX_FOP, 0x123);
		assert_int_equal(step(CODE(prefix, 0xd9, 0x37)), 0); /* fnstenv */
		assert_memory_equal(rig_page, layouts[layout], len);
		assert_int_equal(rig_page[len], 0xcc);

		assert_int_equal(step(CODE(0xdb, 0xe3)), 0);
		assert_int_equal(step(CODE(prefix, 0xd9, 0x27)), 0); /* fldenv */
		assert_int_equal(fx_get16(fx, FX_FSW), 0x3800);
		assert_int_equal(fx[FX_FTW], 0x80);
		assert_int_equal(fx_get16(fx, FX_FOP), layout == 1 ? 0 : 0x123);
		assert_int_equal(fx_get32(fx, FX_FIP), layout == 0   ? 0x56789
						       : layout == 1 ? 0x6789
								     : 0x68ac9);
		assert_int_equal(fx_get16(fx, FX_FCS), layout < 2 ? 0x1234 : 0);
		assert_int_equal(fx_get32(fx, FX_FDP), layout == 0   ? 0xabcde
						       : layout == 1 ? 0xbcde
						       : layout == 2 ? 0x10245e
								     : 0x0245e);
	}
}

/* Without CR4.OSFXSR FXSAVE and FXRSTOR leave the SSE state alone. */
static void fxsave_without_osfxsr(void **state)
{
	(void)state;
	rig_cpu_init();
	cpu.gpr[EDI] = DATA_AT;
	cpu.cr4 &= ~CR4_OSFXSR;
	memset(rig_page, 0xcc, sizeof rig_page);
	memset(cpu.fpu.fxsave + FX_XMM, 0x11, 128);
	assert_int_equal(step(CODE(0x0f, 0xae, 0x07)), 0);
	assert_int_equal(rig_page[FX_XMM - 1], 0);
	assert_int_equal(rig_page[FX_XMM], 0xcc);
	fx_put32(rig_page, FX_MXCSR, 0xffffffff);
	assert_int_equal(step(CODE(0x0f, 0xae, 0x0f)), 0);
	assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_MXCSR), MXCSR_RESET);
	assert_int_equal(cpu.fpu.fxsave[FX_XMM], 0x11);
	cpu.cr4 |= CR4_OSFXSR;
	assert_int_equal(vector_of(CODE(0x0f, 0xae, 0x0f)), VEC_GP); /* reserved bits of MXCSR */
	cpu.gpr[EDI] = DATA_AT + 8;
	assert_int_equal(vector_of(CODE(0x0f, 0xae, 0x07)), VEC_GP); /* misaligned */
}

/* Segment bases and limits, and which offset and selector FDP and FDS get. */
static void segments(void **state)
{
	const uint8_t *fx = cpu.fpu.fxsave;

	(void)state;
	rig_cpu_init();
	cpu.seg[FS].base = DATA_AT;
	cpu.seg[FS].limit = 0xff;
	cpu.seg[FS].sel = 0x3b;
	cpu.gpr[EDI] = 0xfc;
	assert_int_equal(step(CODE(0x64, 0xd9, 0x07)), 0);
	assert_int_equal(fx_get32(fx, FX_FDP), 0xfc);
	if (!hostunit_traits.no_fcs_fds)
		assert_int_equal(fx_get16(fx, FX_FDS), 0x3b);
	cpu.gpr[EDI] = 0xfd;
	assert_int_equal(vector_of(CODE(0x64, 0xd9, 0x07)), VEC_GP);
	cpu.gpr[EDI] = 0xf1; /* DS:EDI is a masked move's operand; an override applies */
	assert_int_equal(vector_of(CODE(0x64, 0x66, 0x0f, 0xf7, 0xc1)), VEC_GP);
	cpu.gpr[EDI] = 0xf0;
	assert_int_equal(vector_of(CODE(0x64, 0x66, 0x0f, 0xf7, 0xc1)), -1);
	cpu.gpr[EBX] = 0xffff0010; /* 16-bit addressing */
	assert_int_equal(vector_of(CODE(0x67, 0x64, 0xd9, 0x07)), -1);
	assert_int_equal(fx_get32(fx, FX_FDP), 0x10);
}

/* A store that faults pops nothing. */
static void faulting_store(void **state)
{
	struct fpu_state before;

	(void)state;
	rig_cpu_init();
	assert_int_equal(step(CODE(0xd9, 0xe8)), 0);
	before = cpu.fpu;
	cpu.gpr[EDI] = DATA_AT + 4096 - 2;
	assert_int_equal(vector_of(CODE(0xd9, 0x1f)), VEC_PF);
	assert_int_equal(cpu.exc.cr2, DATA_AT + 4096);
	assert_memory_equal(&before, &cpu.fpu, sizeof before);
}

/* More distinct instructions than the cache of stubs holds. */
static void cache_overflows(void **state)
{
	(void)state;
	rig_cpu_init();
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned k = 0; k < 1u << 14; k++) {
			const uint8_t modrm = 0xc0 | (k >> 8 & 0x3f), imm = (uint8_t)k;

			assert_int_equal(step(CODE(0x66, 0x0f, 0x70, modrm, imm)), 0); /* pshufd */
		}
	}
	fx_put32(cpu.fpu.fxsave, FX_XMM + 4, 0x12345678);
	assert_int_equal(step(CODE(0x66, 0x0f, 0x70, 0xc8, 0x01)), 0);
	assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_XMM + 16), 0x12345678);
}

/* The host's state is as before, whatever the guest's. */
static void host_state_is_preserved(void **state)
{
	static _Alignas(64) uint8_t before[512], after[512];

	(void)state;
	rig_cpu_init();
	fx_put16(cpu.fpu.fxsave, FX_FCW, 0x0c40);
	fx_put32(cpu.fpu.fxsave, FX_MXCSR, 0xe000);
	memset(cpu.fpu.fxsave + FX_ST, 0xee, 256);
	fx_put32(cpu.fpu.fxsave, FX_XMM, 0x7f800001); /* a signalling NaN */
	__asm__ volatile("fxsave64 %0" : "=m"(before));
	assert_int_equal(vector_of(CODE(0x0f, 0x58, 0xc1)), VEC_XM);
	assert_int_equal(step(CODE(0xd9, 0xe8)), 0);
	assert_int_equal(step(CODE(0xde, 0xf1)), 0);
	__asm__ volatile("fxsave64 %0" : "=m"(after));
	assert_memory_equal(before, after, FX_ST); /* control words; registers are the caller's to lose */
}

static int setup(void **state)
{
	const char *seed = getenv("FPU_TEST_SEED");

	(void)state;
	return rig_init(seed ? strtoull(seed, NULL, 0) : 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_instruction),
		cmocka_unit_test(pointers),
		cmocka_unit_test(availability),
		cmocka_unit_test(fwait_availability),
		cmocka_unit_test(pending_exception_is_deferred),
		cmocka_unit_test(legacy_error_reporting),
		cmocka_unit_test(ignored_exception_executes),
		cmocka_unit_test(simd_exception_without_osxmmexcpt),
		cmocka_unit_test(env_layouts),
		cmocka_unit_test(fxsave_without_osfxsr),
		cmocka_unit_test(segments),
		cmocka_unit_test(faulting_store),
		cmocka_unit_test(cache_overflows),
		cmocka_unit_test(host_state_is_preserved),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
