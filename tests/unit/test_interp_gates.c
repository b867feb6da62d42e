/* test_interp_gates.c - the interpreter: privilege changes, call gates, returns, tasks, v8086. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "interp_rig.h"

static uint16_t pushed16(unsigned word)
{
	return rig_get16(rig.gpr[ESP] + 2 * word);
}

/* ------------------------------------------------------------------ interrupts and IRET */

static void test_int_inner(void **state)
{
	(void)state;
	rig_protected(3);
	cpu_set_eflags(&rig, FL_IF | FL_NT | FL_CF);
	rig_run(1, 0xcd, 0x80);
	assert_int_equal(rig_vector(), 0x80);
	assert_int_equal(rig.cpl, 0);
	assert_int_equal(rig.seg[SS].sel, SEL_DATA0);
	assert_int_equal(rig.gpr[ESP], RIG_STACK0 - 20);
	assert_int_equal(rig_pushed(0), RIG_CODE + 2);
	assert_int_equal(rig_pushed(1), SEL_CODE3);
	assert_int_equal(rig_pushed(2), FL_IF | FL_NT | FL_CF | FL_1);
	assert_int_equal(rig_pushed(3), RIG_STACK);
	assert_int_equal(rig_pushed(4), SEL_DATA3);
	assert_int_equal(cpu_eflags(&rig), FL_CF | FL_1);
	/* back; data segments that CPL 3 may not use become null */
	rig.seg[ES] = rig.seg[SS];
	rig_run(1, 0xcf);
	assert_int_equal(rig.cpl, 3);
	assert_int_equal(rig.eip, RIG_CODE + 2);
	assert_int_equal(rig.gpr[ESP], RIG_STACK);
	assert_int_equal(cpu_eflags(&rig), FL_IF | FL_NT | FL_CF | FL_1);
	assert_int_equal(rig.seg[ES].sel, 0);
	assert_int_equal(rig.seg[DS].sel, SEL_DATA3);
	/* a gate that CPL 3 may not use, a stack that is not good, no stack */
	rig_protected(3);
	rig_run(1, 0xcd, 0x81);
	assert_fault(VEC_GP, 0x81 * 8 + 2, RIG_CODE);
	rig_protected(3);
	rig_put32(RIG_TSS + 8, SEL_DATA3);
	assert_int_equal(rig_run(1, 0xcd, 0x80), -1); /* #TS, and no way to deliver it */
	rig_protected(3);
	rig_put16(RIG_IDT + 8 * VEC_GP + 2, SEL_CODE3); /* a handler at CPL 3 for what CPL 3 does */
	rig_run(1, 0xf4);
	assert_int_equal(rig_vector(), VEC_GP);
	assert_int_equal(rig.cpl, 3);
	assert_int_equal(rig.gpr[ESP], RIG_STACK - 16);
}

static void test_gate16(void **state)
{
	(void)state;
	rig_protected(0);
	rig_gate(RIG_IDT, 0x60, SYS_TRAP16, 0, SEL_CODE0, RIG_STUBS + 0x60, 0);
	cpu_set_eflags(&rig, FL_IF);
	rig_run(1, 0xcd, 0x60);
	assert_int_equal(rig_vector(), 0x60);
	assert_int_equal(rig.gpr[ESP], RIG_STACK - 6);
	assert_int_equal(pushed16(0), (RIG_CODE + 2) & 0xffff);
	assert_int_equal(pushed16(2), FL_IF | FL_1);
	assert_int_equal(rig.iflag, FL_IF); /* a trap gate leaves it */
	rig_run(1, 0x66, 0xcf);
	assert_int_equal(rig.eip, (RIG_CODE + 2) & 0xffff);
}

static void test_iret_checks(void **state)
{
	static const struct {
		uint32_t cs, ss, error;
	} t[] = {
		{0, SEL_DATA3, 0},
		{SEL_DATA3, SEL_DATA3, SEL_DATA3 & 0xfffc},
		{SEL_CODE3, 0, 0},
		{SEL_CODE3, SEL_DATA0, SEL_DATA0},
		{SEL_CODE3, SEL_CODE3, SEL_CODE3 & 0xfffc},
		{SEL_CODE0 | 3, SEL_DATA3, SEL_CODE0},
		{0x7f8 | 3, SEL_DATA3, 0x7f8},
	};

	(void)state;
	for (unsigned k = 0; k < sizeof t / sizeof *t; k++) {
		rig_protected(0);
		rig_put32(RIG_STACK, RIG_CODE);
		rig_put32(RIG_STACK + 4, t[k].cs);
		rig_put32(RIG_STACK + 8, 2);
		rig_put32(RIG_STACK + 12, 0x8000);
		rig_put32(RIG_STACK + 16, t[k].ss);
		rig_run(1, 0xcf);
		assert_fault(VEC_GP, t[k].error, RIG_CODE);
		assert_int_equal(rig.cpl, 0);
		assert_int_equal(rig.gpr[ESP], RIG_STACK - 16);
	}
	/* IOPL and IF of the frame count for little at CPL 3 */
	rig_protected(3);
	rig_put32(RIG_STACK, RIG_CODE);
	rig_put32(RIG_STACK + 4, SEL_CODE3);
	rig_put32(RIG_STACK + 8, FL_IOPL | FL_IF | FL_VM | FL_AC | FL_CF);
	rig_run(1, 0xcf);
	assert_int_equal(cpu_eflags(&rig), FL_AC | FL_CF | FL_1);
}

/* ------------------------------------------------------------------ call gates */

static void test_call_gate(void **state)
{
	(void)state;
	rig_protected(3);
	rig_gate(RIG_GDT, SEL_GATE / 8, SYS_CALL32, 3, SEL_CODE0, RIG_CODE + 0x100, 2);
	rig_put32(RIG_STACK, 0x1111);
	rig_put32(RIG_STACK + 4, 0x2222);
	rig_run(1, 0x9a, 0, 0, 0, 0, SEL_GATE, 0);
	assert_int_equal(rig.cpl, 0);
	assert_int_equal(rig.eip, RIG_CODE + 0x100);
	assert_int_equal(rig.gpr[ESP], RIG_STACK0 - 24);
	assert_int_equal(rig_pushed(0), RIG_CODE + 7);
	assert_int_equal(rig_pushed(1), SEL_CODE3);
	assert_int_equal(rig_pushed(2), 0x1111);
	assert_int_equal(rig_pushed(3), 0x2222);
	assert_int_equal(rig_pushed(4), RIG_STACK);
	assert_int_equal(rig_pushed(5), SEL_DATA3);
	rig_run(1, 0xca, 8, 0); /* retf 8 releases the parameters of both stacks */
	assert_int_equal(rig.cpl, 3);
	assert_int_equal(rig.eip, RIG_CODE + 7);
	assert_int_equal(rig.gpr[ESP], RIG_STACK + 8);
	assert_int_equal(rig.seg[SS].sel, SEL_DATA3);
	/* a JMP must not change the level; a gate of DPL 0 is not for CPL 3 */
	rig_protected(3);
	rig_gate(RIG_GDT, SEL_GATE / 8, SYS_CALL32, 3, SEL_CODE0, RIG_CODE + 0x100, 0);
	rig_run(1, 0xea, 0, 0, 0, 0, SEL_GATE, 0);
	assert_fault(VEC_GP, SEL_CODE0, RIG_CODE);
	rig_protected(3);
	rig_gate(RIG_GDT, SEL_GATE / 8, SYS_CALL32, 0, SEL_CODE0, RIG_CODE + 0x100, 0);
	rig_run(1, 0x9a, 0, 0, 0, 0, SEL_GATE, 0);
	assert_fault(VEC_GP, SEL_GATE, RIG_CODE);
	/* same level, 16 bits */
	rig_protected(0);
	rig_gate(RIG_GDT, SEL_GATE / 8, SYS_CALL16, 0, SEL_CODE0, RIG_STUBS, 3);
	rig_run(1, 0x9a, 0, 0, 0, 0, SEL_GATE, 0);
	assert_int_equal(rig.eip, RIG_STUBS);
	assert_int_equal(rig.gpr[ESP], RIG_STACK - 4);
	assert_int_equal(pushed16(1), SEL_CODE0);
}

static void test_far_direct(void **state)
{
	(void)state;
	rig_protected(0);
	rig_descriptor(SEL_GATE, 0x1000, 0xffff, SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_DB);
	rig_put32(RIG_DATA, 0x20);
	rig_put16(RIG_DATA + 4, SEL_GATE);
	rig.gpr[EBX] = RIG_DATA;
	rig_run(1, 0xff, 0x1b); /* call far [ebx] */
	assert_int_equal(rig.seg[CS].base, 0x1000);
	assert_int_equal(rig.eip, 0x20);
	assert_int_equal(rig_pushed(0), RIG_CODE + 2);
	assert_true(rig_get32(RIG_GDT + SEL_GATE + 4) & 0x100);
	rig_run(1, 0xcb);
	assert_int_equal(rig.eip, RIG_CODE + 2);
	assert_int_equal(rig.gpr[ESP], RIG_STACK);
	/* conforming code keeps the CPL */
	rig_protected(3);
	rig_descriptor(SEL_GATE, 0, 0xffffffff, SEG_P | SEG_S | SEG_CODE | SEG_DC | SEG_G | SEG_DB);
	rig_run(1, 0xea, 0, 0, 1, 0, SEL_GATE, 0);
	assert_int_equal(rig.cpl, 3);
	assert_int_equal(rig.seg[CS].sel, SEL_GATE | 3);
	/* beyond the limit, not present, not code */
	rig_protected(0);
	rig_descriptor(SEL_GATE, 0, 0xfff, SEG_P | SEG_S | SEG_CODE | SEG_DB);
	rig_run(1, 0xea, 0, 0x10, 0, 0, SEL_GATE, 0);
	assert_fault(VEC_GP, 0, RIG_CODE);
	rig_protected(0);
	rig_descriptor(SEL_GATE, 0, 0xffff, SEG_S | SEG_CODE | SEG_DB);
	rig_run(1, 0x9a, 0, 0x10, 0, 0, SEL_GATE, 0);
	assert_fault(VEC_NP, SEL_GATE, RIG_CODE);
	rig_protected(0);
	rig_run(1, 0x9a, 0, 0x10, 0, 0, SEL_DATA0, 0);
	assert_fault(VEC_GP, SEL_DATA0, RIG_CODE);
}

/* A return to a 16-bit stack leaves the upper half of ESP. */
static void test_return_to_stack16(void **state)
{
	(void)state;
	rig_protected(0);
	rig_descriptor(SEL_GATE, 0, 0xffff, SEG_P | SEG_S | SEG_RW | SEG_DPL);
	rig.gpr[ESP] = RIG_STACK;
	rig_put32(RIG_STACK, RIG_CODE);
	rig_put32(RIG_STACK + 4, SEL_CODE3);
	rig_put32(RIG_STACK + 8, 2);
	rig_put32(RIG_STACK + 12, 0x12348000);
	rig_put32(RIG_STACK + 16, SEL_GATE | 3);
	rig_run(1, 0xcf);
	assert_int_equal(rig.cpl, 3);
	assert_int_equal(rig.gpr[ESP], 0x8000);
}

/* ------------------------------------------------------------------ tasks */

static void second_task(uint32_t eflags)
{
	rig_put32(RIG_TSS2 + 0x20, RIG_CODE + 0x100);
	rig_put32(RIG_TSS2 + 0x24, eflags);
	for (unsigned r = 0; r < 8; r++)
		rig_put32(RIG_TSS2 + 0x28 + 4 * r, r == ESP ? 0x8000 : 0x100 + r);
	for (unsigned s = 0; s < 6; s++)
		rig_put32(RIG_TSS2 + 0x48 + 4 * s, s == CS ? SEL_CODE0 : SEL_DATA0);
	rig_put16(RIG_TSS2 + 0x60, SEL_LDT);
}

static unsigned tss_type(uint16_t sel)
{
	return rig_get32(RIG_GDT + sel + 4) >> 8 & 15;
}

static void test_task_call(void **state)
{
	(void)state;
	rig_protected(0);
	second_task(FL_CF | FL_1);
	rig.gpr[EBX] = 0xb0b;
	rig_run(1, 0x9a, 0, 0, 0, 0, SEL_TSS2, 0);
	assert_int_equal(rig.eip, RIG_CODE + 0x100);
	assert_int_equal(rig.gpr[EDI], 0x107);
	assert_int_equal(rig.gpr[ESP], 0x8000);
	assert_int_equal(cpu_eflags(&rig), FL_CF | FL_NT | FL_1);
	assert_int_equal(rig.tr.sel, SEL_TSS2);
	assert_int_equal(tss_type(SEL_TSS), SYS_TSS32_BUSY);
	assert_int_equal(tss_type(SEL_TSS2), SYS_TSS32_BUSY);
	assert_int_equal(rig_get16(RIG_TSS2), SEL_TSS);
	assert_int_equal(rig_get32(RIG_TSS + 0x20), RIG_CODE + 7);
	assert_int_equal(rig_get32(RIG_TSS + 0x34), 0xb0b);
	assert_true(rig.cr0 & CR0_TS);
	rig_run(1, 0xcf); /* NT: back to the caller */
	assert_int_equal(rig.eip, RIG_CODE + 7);
	assert_int_equal(rig.gpr[EBX], 0xb0b);
	assert_int_equal(rig.tr.sel, SEL_TSS);
	assert_int_equal(tss_type(SEL_TSS2), SYS_TSS32);
	assert_int_equal(tss_type(SEL_TSS), SYS_TSS32_BUSY);
	assert_int_equal(rig_get32(RIG_TSS2 + 0x20), RIG_CODE + 0x101);
	assert_false(rig_get32(RIG_TSS2 + 0x24) & FL_NT);
	/* a busy one */
	rig.eip = RIG_CODE;
	rig_run(1, 0xea, 0, 0, 0, 0, SEL_TSS, 0);
	assert_fault(VEC_GP, SEL_TSS, RIG_CODE);
}

static void test_task_jump(void **state)
{
	(void)state;
	rig_protected(0);
	second_task(FL_1);
	rig_run(1, 0xea, 0, 0, 0, 0, SEL_TSS2, 0);
	assert_int_equal(rig.eip, RIG_CODE + 0x100);
	assert_int_equal(tss_type(SEL_TSS), SYS_TSS32);
	assert_int_equal(tss_type(SEL_TSS2), SYS_TSS32_BUSY);
	assert_false(rig.sysflags & FL_NT);
	/* too short a TSS */
	rig_protected(0);
	rig_descriptor(SEL_TSS2, RIG_TSS2, 0x66, SEG_P | SYS_TSS32);
	rig_run(1, 0xea, 0, 0, 0, 0, SEL_TSS2, 0);
	assert_fault(VEC_TS, SEL_TSS2, RIG_CODE);
	/* a bad segment is the new task's #TS */
	rig_protected(0);
	second_task(FL_1);
	rig_put32(RIG_TSS2 + 0x48 + 4 * DS, SEL_CODE3);
	rig_put32(RIG_TSS2 + 0x48 + 4 * SS, SEL_DATA3);
	assert_int_equal(rig_run(1, 0xea, 0, 0, 0, 0, SEL_TSS2, 0),
			 -1); /* without a stack segment, that is the end */
	rig_protected(0);
	second_task(FL_1);
	rig_put32(RIG_TSS2 + 0x48 + 4 * DS, SEL_TSS);
	rig_run(1, 0xea, 0, 0, 0, 0, SEL_TSS2, 0);
	assert_fault(VEC_TS, SEL_TSS, RIG_CODE + 0x100);
	assert_int_equal(rig.tr.sel, SEL_TSS2);
	/* the T bit */
	rig_protected(0);
	second_task(FL_1);
	rig_put16(RIG_TSS2 + 0x64, 1);
	rig_run(1, 0xea, 0, 0, 0, 0, SEL_TSS2, 0);
	assert_int_equal(rig_vector(), VEC_DB);
	assert_int_equal(rig_pushed(0), RIG_CODE + 0x100);
	assert_true(rig.dr[6] & 0x8000);
}

/* An exception through a task gate: the error code goes to the new task's stack. */
static void test_task_gate(void **state)
{
	(void)state;
	rig_protected(3);
	second_task(FL_1);
	rig_gate(RIG_IDT, VEC_GP, SYS_TASK_GATE, 0, SEL_TSS2, 0, 0);
	rig_run(1, 0x0f, 0x00, 0xd0, 0xf4); /* lldt at CPL 3 */
	assert_int_equal(rig.eip, RIG_CODE + 0x100);
	assert_int_equal(rig.cpl, 0);
	assert_int_equal(rig.gpr[ESP], 0x8000 - 4);
	assert_int_equal(rig_pushed(0), 0);
	assert_int_equal(rig_get32(RIG_TSS + 0x20), RIG_CODE);
	rig.gpr[ESP] += 4;
	rig_run(1, 0xcf);
	assert_int_equal(rig.cpl, 3);
	assert_int_equal(rig.eip, RIG_CODE);
}

static void test_task16(void **state)
{
	(void)state;
	rig_protected(0);
	rig_descriptor(SEL_TSS2, RIG_TSS2, 0x2b, SEG_P | SYS_TSS16);
	rig_put16(RIG_TSS2 + 0x0e, 0x4000);
	rig_put16(RIG_TSS2 + 0x10, FL_ZF);
	for (unsigned r = 0; r < 8; r++)
		rig_put16(RIG_TSS2 + 0x12 + 2 * r, (uint16_t)(r == ESP ? 0x8000 : 0x200 + r));
	for (unsigned s = 0; s < 4; s++)
		rig_put16(RIG_TSS2 + 0x22 + 2 * s, s == CS ? SEL_CODE16 : SEL_DATA16);
	rig_put16(RIG_TSS2 + 0x2a, 0);
	rig_run(1, 0xea, 0, 0, 0, 0, SEL_TSS2, 0);
	assert_int_equal(rig.eip, 0x4000);
	assert_int_equal(rig.gpr[EAX] & 0xffff, 0x200);
	assert_int_equal(rig.seg[CS].limit, 0xffff);
	assert_false(cpu_code32(&rig));
	assert_int_equal(rig.seg[FS].attr & SEG_P, 0);
	assert_int_equal(rig.ldtr.attr & SEG_P, 0);
	assert_int_equal(rig.flags, FL_ZF);
}

/* ------------------------------------------------------------------ v8086 */

static void v86(unsigned iopl, uint32_t cr4)
{
	static const uint8_t order[] = {SS, ES, DS, FS, GS};

	rig_protected(0);
	rig_put32(RIG_STACK, 0x10);
	rig_put32(RIG_STACK + 4, RIG_CODE >> 4);
	rig_put32(RIG_STACK + 8, FL_VM | FL_IF | iopl << 12);
	rig_put32(RIG_STACK + 12, 0x8000);
	for (unsigned k = 0; k < 5; k++)
		rig_put32(RIG_STACK + 16 + 4 * k, order[k] == SS ? 0 : 0x1000u + order[k]);
	rig.cr4 = cr4;
	rig_run(1, 0xcf);
	assert_int_equal(rig.eip, 0x10);
	assert_int_equal(rig.cpl, 3);
	assert_true(cpu_v86(&rig));
	assert_int_equal(rig.seg[DS].base, 0x10030);
	/* the redirection bitmap in front of the I/O bitmap: vectors 21 and 22 (hex) to the 8086 program */
	rig_put16(RIG_TSS + 0x66, 0x88);
	for (unsigned k = 0; k < 32; k++)
		rig_bytes(RIG_TSS + 0x68 + k, k == 4 ? "\xf9" : "\xff", 1);
}

static void test_v86_exception(void **state)
{
	(void)state;
	v86(0, 0);
	rig_run(1, 0xf4);
	assert_int_equal(rig_vector(), VEC_GP);
	assert_int_equal(rig.cpl, 0);
	assert_false(cpu_v86(&rig));
	assert_int_equal(rig.gpr[ESP], RIG_STACK0 - 40);
	assert_int_equal(rig_pushed(0), 0);
	assert_int_equal(rig_pushed(1), 0x10);
	assert_int_equal(rig_pushed(2), RIG_CODE >> 4);
	assert_int_equal(rig_pushed(3), FL_VM | FL_IF | FL_RF | FL_1);
	assert_int_equal(rig_pushed(4), 0x8000);
	assert_int_equal(rig_pushed(5), 0);
	assert_int_equal(rig_pushed(6), 0x1000 + ES);
	assert_int_equal(rig_pushed(7), 0x1000 + DS);
	assert_int_equal(rig_pushed(8), 0x1000 + FS);
	assert_int_equal(rig_pushed(9), 0x1000 + GS);
	assert_int_equal(rig.seg[DS].attr & SEG_P, 0);
	/* and back by iret */
	rig.gpr[ESP] += 4;
	rig_run(1, 0xcf);
	assert_true(cpu_v86(&rig));
	assert_int_equal(rig.seg[GS].sel, 0x1000 + GS);
	assert_int_equal(rig.gpr[ESP], 0x8000);
}

/* Without VME and with IOPL below 3, everything that touches IF traps. */
static void test_v86_sensitive(void **state)
{
	static const uint8_t code[][2] = {{0xfa}, {0xfb}, {0x9c}, {0x9d}, {0xcd, 0x21}, {0xcf}};

	(void)state;
	for (unsigned k = 0; k < sizeof code / sizeof *code; k++) {
		v86(0, 0);
		rig_run_bytes(1, code[k], 2);
		assert_fault(VEC_GP, 0, 0x10);
		v86(3, 0);
		rig_put16(0x8000, 0x20);
		rig_put16(0x8002, 0x1100);
		rig_run_bytes(1, code[k], 2);
		if (code[k][0] == 0xcd) /* IOPL 3: by the gate, whose DPL is 0 */
			assert_fault(VEC_GP, 0x21 * 8 + 2, 0x10);
		else
			assert_true(cpu_v86(&rig));
	}
	v86(0, 0);
	rig_run(1, 0xcc); /* INT3 is not IOPL-sensitive, but its gate has DPL 0 */
	assert_fault(VEC_GP, VEC_BP * 8 + 2, 0x10);
	v86(3, 0);
	rig_run(1, 0x0f, 0x00, 0xc0); /* sldt */
	assert_int_equal(rig_vector(), VEC_UD);
}

static void test_vme(void **state)
{
	(void)state;
	/* INT 21h goes through the vectors at 0 */
	v86(0, CR4_VME);
	rig_put16(0x21 * 4, 0x345);
	rig_put16(0x21 * 4 + 2, 0x2000);
	rig.sysflags |= FL_VIF;
	rig_run(1, 0xcd, 0x21);
	assert_true(cpu_v86(&rig));
	assert_int_equal(rig.eip, 0x345);
	assert_int_equal(rig.seg[CS].base, 0x20000);
	assert_int_equal(rig.gpr[ESP], 0x8000 - 6);
	assert_int_equal(rig_get16(0x7ffa), 0x12);
	assert_int_equal(rig_get16(0x7ffe), FL_IF | FL_IOPL | FL_1); /* IF shows VIF, IOPL shows 3 */
	assert_int_equal(rig.sysflags & FL_VIF, 0);
	assert_int_equal(rig.iflag, FL_IF);
	rig_run(1, 0xcf);
	assert_int_equal(rig.eip, 0x12);
	assert_int_equal(rig.sysflags & (FL_VIF | FL_IOPL), FL_VIF);
	/* not redirected: IOPL below 3 */
	v86(0, CR4_VME);
	rig_run(1, 0xcd, 0x23);
	assert_fault(VEC_GP, 0, 0x10);
	/* cli, sti, pushf, popf */
	v86(0, CR4_VME);
	rig_run(2, 0xfb, 0x9c);
	assert_int_equal(rig.sysflags & FL_VIF, FL_VIF);
	assert_true(rig_get16(0x7ffe) & FL_IF);
	rig_run(1, 0xfa);
	assert_int_equal(rig.sysflags & FL_VIF, 0);
	rig_run(1, 0x9d);
	assert_int_equal(rig.sysflags & (FL_VIF | FL_IOPL), FL_VIF);
	/* a pending virtual interrupt stops sti */
	v86(0, CR4_VME);
	rig.sysflags |= FL_VIP;
	rig_run(1, 0xfb);
	assert_fault(VEC_GP, 0, 0x10);
	v86(0, CR4_VME);
	rig.sysflags |= FL_VIP;
	rig_put16(0x8000, FL_IF);
	rig_run(1, 0x9d);
	assert_fault(VEC_GP, 0, 0x10);
	/* 32-bit forms are not virtualized */
	v86(0, CR4_VME);
	rig_run(1, 0x66, 0x9c);
	assert_fault(VEC_GP, 0, 0x10);
}

static void test_pvi(void **state)
{
	(void)state;
	rig_protected(3);
	rig.cr4 = CR4_PVI;
	rig_run(1, 0xfb);
	assert_int_equal(rig.sysflags & FL_VIF, FL_VIF);
	assert_int_equal(rig.iflag, 0);
	rig_run(1, 0xfa);
	assert_int_equal(rig.sysflags & FL_VIF, 0);
	rig.sysflags |= FL_VIP;
	rig_run(1, 0xfb);
	assert_fault(VEC_GP, 0, RIG_CODE + 2);
}

/* ------------------------------------------------------------------ 16-bit protected mode */

static void test_code16(void **state)
{
	(void)state;
	rig_protected(0);
	rig_bytes(0x4000, "\xb8\x34\x12\x50\x66\x50\xe8\x00\x00", 9); /* mov ax; push ax; push eax; call */
	rig.gpr[EAX] = 0xaaaa0000;
	rig_run(1, 0xea, 0x00, 0x40, 0, 0, SEL_CODE16, 0);
	for (unsigned k = 0; k < 4; k++)
		interp_step(&rig);
	assert_int_equal(rig.gpr[EAX], 0xaaaa1234);
	assert_int_equal(rig.gpr[ESP], RIG_STACK - 8);
	assert_int_equal(rig_get16(RIG_STACK - 2), 0x1234);
	assert_int_equal(rig_get32(RIG_STACK - 6), 0xaaaa1234);
	assert_int_equal(rig_get16(RIG_STACK - 8), 0x4009);
	/* a 16-bit stack wraps */
	rig_protected(0);
	rig.gpr[EAX] = SEL_DATA16;
	rig.gpr[ESP] = 0x50000;
	rig_run(2, 0x8e, 0xd0, 0x50);
	assert_int_equal(rig.gpr[ESP], 0x5fffc);
	assert_int_equal(rig_get32(0xfffc), SEL_DATA16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_int_inner),     cmocka_unit_test(test_gate16),
		cmocka_unit_test(test_iret_checks),   cmocka_unit_test(test_call_gate),
		cmocka_unit_test(test_far_direct),    cmocka_unit_test(test_return_to_stack16),
		cmocka_unit_test(test_task_call),     cmocka_unit_test(test_task_jump),
		cmocka_unit_test(test_task_gate),     cmocka_unit_test(test_task16),
		cmocka_unit_test(test_v86_exception), cmocka_unit_test(test_v86_sensitive),
		cmocka_unit_test(test_vme),	      cmocka_unit_test(test_pvi),
		cmocka_unit_test(test_code16),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
