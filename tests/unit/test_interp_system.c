/* test_interp_system.c - the interpreter: control, debug and table registers, I/O permission, SYSENTER, MSRs,
 * POPF, and the instructions that do not fit elsewhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "interp_rig.h"

/* ------------------------------------------------------------------ system instructions */

static void test_control_registers(void **state)
{
	(void)state;
	rig_protected(0);
	rig.gpr[EAX] = CR0_PG;
	rig_run(1, 0x0f, 0x22, 0xc0);
	assert_fault(VEC_GP, 0, RIG_CODE);
	rig_protected(0);
	rig.gpr[EAX] = 0x80000000 | CR0_NW | CR0_PE;
	rig_run(1, 0x0f, 0x22, 0xc0);
	assert_fault(VEC_GP, 0, RIG_CODE);
	rig_protected(0);
	rig.gpr[EAX] = 0x800;
	rig_run(1, 0x0f, 0x22, 0xe0); /* CR4, a reserved bit */
	assert_fault(VEC_GP, 0, RIG_CODE);
	rig_protected(0);
	rig.gpr[EAX] = 0x0000002f;
	rig_run(1, 0x0f, 0x22, 0xc0);
	assert_int_equal(rig.cr0, 0x3f); /* ET stays */
	rig_run(1, 0x0f, 0x06);
	assert_int_equal(rig.cr0, 0x37);
	rig.gpr[EAX] = 0;
	rig_run(2, 0x0f, 0x01, 0xf0, 0x0f, 0x01, 0xe3); /* lmsw ax; smsw ebx */
	assert_int_equal(rig.gpr[EBX], 0x31);
	/* PAE with a bad PDPTE */
	rig_protected(0);
	rig.cr4 = CR4_PAE;
	rig.cr3 = RIG_PD;
	rig_put32(RIG_PD, RIG_PT | PTE_P | PTE_RW);
	rig.gpr[EAX] = rig.cr0 | CR0_PG;
	rig_run(1, 0x0f, 0x22, 0xc0);
	assert_fault(VEC_GP, 0, RIG_CODE);
	assert_int_equal(rig.cr0 & CR0_PG, 0);
}

/* At CPL 3 each of these is #GP(0). */
static void test_privileged(void **state)
{
	static const uint8_t code[][4] = {
		{0xf4},
		{0xfa},
		{0xfb},
		{0x0f, 0x06},
		{0x0f, 0x08},
		{0x0f, 0x09},
		{0x0f, 0x22, 0xc0},
		{0x0f, 0x20, 0xc0},
		{0x0f, 0x01, 0x10},
		{0x0f, 0x01, 0x18},
		{0x0f, 0x01, 0x38},
		{0x0f, 0x00, 0xd0},
		{0x0f, 0x00, 0xd8},
		{0x0f, 0x01, 0xf0},
		{0x0f, 0x30},
		{0x0f, 0x32},
		{0x0f, 0x33},
		{0x0f, 0x35},
		{0xe4, 0x20},
		{0xee},
		{0x6c},
	};

	(void)state;
	for (unsigned k = 0; k < sizeof code / sizeof *code; k++) {
		rig_protected(3);
		rig.tr.limit = 0x67;
		rig.gpr[EAX] = RIG_DATA;
		rig_run_bytes(1, code[k], 4);
		if (rig_vector() != VEC_GP)
			fail_msg("%02x %02x: vector %d", code[k][0], code[k][1], rig_vector());
		assert_fault(VEC_GP, 0, RIG_CODE);
	}
}

static void test_table_registers(void **state)
{
	(void)state;
	rig_protected(3);
	rig.gpr[EBX] = RIG_DATA;
	rig_run(1, 0x0f, 0x01, 0x03); /* sgdt [ebx], at CPL 3 */
	assert_int_equal(rig_get16(RIG_DATA), 0x7ff);
	assert_int_equal(rig_get32(RIG_DATA + 2), RIG_GDT);
	rig_run(2, 0x0f, 0x00, 0xc8, 0x0f, 0x00, 0xc1); /* str eax; sldt ecx */
	assert_int_equal(rig.gpr[EAX], SEL_TSS);
	assert_int_equal(rig.gpr[ECX], SEL_LDT);
	rig_protected(0);
	rig_put16(RIG_DATA, 0x123);
	rig_put32(RIG_DATA + 2, 0x12345678);
	rig.gpr[EBX] = RIG_DATA;
	rig_run(1, 0x66, 0x0f, 0x01, 0x1b); /* lidt with 16 bits: the base has 24 */
	assert_int_equal(rig.idtr.base, 0x345678);
	assert_int_equal(rig.idtr.limit, 0x123);
	/* ltr marks the TSS busy, and wants one that is not */
	rig_protected(0);
	rig.gpr[EAX] = SEL_TSS2;
	rig_run(1, 0x0f, 0x00, 0xd8);
	assert_int_equal(rig.tr.base, RIG_TSS2);
	assert_int_equal(rig_get32(RIG_GDT + SEL_TSS2 + 4) >> 8 & 0xf, SYS_TSS32_BUSY);
	rig_run(1, 0x0f, 0x00, 0xd8);
	assert_fault(VEC_GP, SEL_TSS2, RIG_CODE + 3);
	/* in real mode there is none of this */
	rig_real();
	rig_run(1, 0x0f, 0x00, 0xd8);
	assert_int_equal(rig_vector(), VEC_UD);
}

static void test_io_bitmap(void **state)
{
	(void)state;
	rig_protected(3);
	rig_bytes(RIG_TSS + 0x68 + 0x3f8 / 8, "\xfe", 1); /* only 3f8 */
	rig.gpr[EDX] = 0x3f8;
	rig.gpr[EAX] = 0x11223344;
	rig_run(1, 0xee);
	assert_int_equal(rig_vector(), -1);
	assert_int_equal(rig_port, 0x3f8);
	assert_int_equal(rig_port_value, 0x44);
	rig_run(1, 0x66, 0xef); /* two ports */
	assert_fault(VEC_GP, 0, RIG_CODE + 1);
	rig_protected(3);
	rig.sysflags |= FL_IOPL;
	rig.gpr[EDX] = 0x1f0;
	rig_run(1, 0xed);
	assert_int_equal(rig.gpr[EAX], 0x12345678);
	assert_int_equal(rig_port_size, 4);
	/* the bitmap ends within the word that is looked at */
	rig_protected(3);
	rig.tr.limit = 0x68 + 0x3f8 / 8;
	rig.gpr[EDX] = 0x3f8;
	rig_run(1, 0xec);
	assert_fault(VEC_GP, 0, RIG_CODE);
	/* ins: a fault of the destination does not read the port */
	rig_paged(0);
	rig_port = 0;
	rig.gpr[EDX] = 0x60;
	rig.gpr[EDI] = RIG_NOT_MAPPED;
	rig_run(1, 0x6c);
	assert_fault(VEC_PF, PF_W, RIG_CODE);
	assert_int_equal(rig_port, 0);
}

static void test_sysenter(void **state)
{
	(void)state;
	rig_protected(3);
	rig_run(1, 0x0f, 0x34);
	assert_fault(VEC_GP, 0, RIG_CODE);
	rig_protected(3);
	rig.sysenter_cs = SEL_CODE0;
	rig.sysenter_esp = 0x8000;
	rig.sysenter_eip = RIG_CODE + 0x100;
	cpu_set_eflags(&rig, FL_IF | FL_NT);
	rig_run(1, 0x0f, 0x34);
	assert_int_equal(rig.cpl, 0);
	assert_int_equal(rig.seg[CS].sel, SEL_CODE0);
	assert_int_equal(rig.seg[SS].sel, SEL_CODE0 + 8);
	assert_int_equal(rig.gpr[ESP], 0x8000);
	assert_int_equal(rig.iflag, 0);
	assert_true(rig.sysflags & FL_NT);
	rig.gpr[ECX] = 0x7000;
	rig.gpr[EDX] = RIG_CODE;
	rig_run(1, 0x0f, 0x35);
	assert_int_equal(rig.cpl, 3);
	assert_int_equal(rig.seg[CS].sel, SEL_CODE0 + 16 + 3);
	assert_int_equal(rig.seg[SS].sel, SEL_CODE0 + 24 + 3);
	assert_int_equal(rig.eip, RIG_CODE);
	assert_int_equal(rig.gpr[ESP], 0x7000);
}

static void test_msr_time_cpuid(void **state)
{
	uint64_t before, after;

	(void)state;
	rig_protected(0);
	rig.gpr[ECX] = 0x123;
	rig.gpr[EAX] = 0x55;
	rig.gpr[EDX] = 0x66;
	rig_run(2, 0x0f, 0x30, 0x0f, 0x32);
	assert_int_equal(rig.gpr[EAX], 0x55);
	assert_int_equal(rig.gpr[EDX], 0x66);
	rig.gpr[ECX] = 0x124;
	rig_run(1, 0x0f, 0x32);
	assert_fault(VEC_GP, 0, RIG_CODE + 4);
	rig_protected(3);
	rig.tsc_offset = 1ull << 60;
	before = __builtin_ia32_rdtsc();
	rig_run(1, 0x0f, 0x31);
	after = __builtin_ia32_rdtsc();
	assert_in_range(((uint64_t)rig.gpr[EDX] << 32 | rig.gpr[EAX]) - (1ull << 60), before, after);
	rig.cr4 = CR4_TSD;
	rig_run(1, 0x0f, 0x31);
	assert_fault(VEC_GP, 0, RIG_CODE + 2);
	rig_protected(3);
	rig.gpr[EAX] = 4;
	rig.gpr[ECX] = 2;
	rig_run(1, 0x0f, 0xa2);
	assert_int_equal(rig.gpr[EAX], 0x420);
	assert_int_equal(rig.gpr[EDX], 0x423);
}

static void test_features(void **state)
{
	(void)state;
	rig_protected(0);
	rig_features = 0;
	rig_run(1, 0x0f, 0x44, 0xc3); /* cmovz */
	assert_int_equal(rig_vector(), VEC_UD);
	rig_features = 0xffffffff;
	interp_flush(&rig);
	rig_protected(0);
	rig_run(1, 0x0f, 0x44, 0xc3);
	assert_int_equal(rig_vector(), -1);
}

/* IF and IOPL change by POPF as privilege allows; nothing is raised. */
static void test_popf(void **state)
{
	(void)state;
	rig_protected(0);
	rig_put32(RIG_STACK, 0xffffffff & ~FL_TF);
	rig_run(1, 0x9d);
	assert_int_equal(cpu_eflags(&rig), FL_ARITH | FL_DF | FL_IF | FL_IOPL | FL_NT | FL_AC | FL_ID | FL_1);
	rig_protected(3);
	rig.iflag = FL_IF;
	rig_put32(RIG_STACK, FL_IOPL);
	rig_run(1, 0x9d);
	assert_int_equal(cpu_eflags(&rig), FL_IF | FL_1);
	rig_protected(3);
	rig.sysflags = FL_IOPL;
	rig.iflag = FL_IF;
	rig_put32(RIG_STACK, 0);
	rig_run(1, 0x9d);
	assert_int_equal(cpu_eflags(&rig), FL_IOPL | FL_1);
	/* 16 bits leave the upper half */
	rig_protected(0);
	rig.sysflags = FL_AC | FL_ID;
	rig_run(1, 0x66, 0x9d);
	assert_int_equal(cpu_eflags(&rig), FL_AC | FL_ID | FL_1);
}

static void test_enter(void **state)
{
	(void)state;
	rig_protected(0);
	rig.gpr[EBP] = RIG_STACK + 0x100;
	rig_put32(RIG_STACK + 0x100 - 4, 0x1111);
	rig_put32(RIG_STACK + 0x100 - 8, 0x2222);
	rig_run(1, 0xc8, 0x10, 0x00, 0x03);
	assert_int_equal(rig.gpr[EBP], RIG_STACK - 4);
	assert_int_equal(rig.gpr[ESP], RIG_STACK - 16 - 0x10);
	assert_int_equal(rig_get32(RIG_STACK - 4), RIG_STACK + 0x100);
	assert_int_equal(rig_get32(RIG_STACK - 8), 0x1111);
	assert_int_equal(rig_get32(RIG_STACK - 12), 0x2222);
	assert_int_equal(rig_get32(RIG_STACK - 16), RIG_STACK - 4);
	rig_run(1, 0xc9);
	assert_int_equal(rig.gpr[ESP], RIG_STACK);
	assert_int_equal(rig.gpr[EBP], RIG_STACK + 0x100);
}

/* A bit offset in a register reaches below and above the operand. */
static void test_bit_strings(void **state)
{
	(void)state;
	rig_protected(0);
	rig.gpr[EBX] = RIG_DATA;
	rig.gpr[EAX] = (uint32_t)-1;
	rig_run(1, 0x0f, 0xab, 0x03); /* bts [ebx], eax */
	assert_int_equal(rig_get32(RIG_DATA - 4), 0x80000000);
	rig.gpr[EAX] = 1000;
	rig_run(1, 0x0f, 0xbb, 0x03);
	assert_int_equal(rig_get32(RIG_DATA + 124), 1u << 8);
	rig.gpr[EAX] = 0xffff7fff; /* 16 bits: 7fff */
	rig_run(1, 0x66, 0x0f, 0xab, 0x03);
	assert_int_equal(rig_get16(RIG_DATA + 0x7fff / 16 * 2), 0x8000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_control_registers),
		cmocka_unit_test(test_privileged),
		cmocka_unit_test(test_table_registers),
		cmocka_unit_test(test_io_bitmap),
		cmocka_unit_test(test_sysenter),
		cmocka_unit_test(test_msr_time_cpuid),
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_popf),
		cmocka_unit_test(test_enter),
		cmocka_unit_test(test_bit_strings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
