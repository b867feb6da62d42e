/* test_interp.c - the interpreter: restartable instructions, fetching, real mode, exceptions, debug
 * conditions.
 *
 * Gates, tasks and v8086 are in test_interp_gates.c; what integer instructions compute is compared with the
 * host's CPU by test_interp_silicon.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "interp_rig.h"

/* ------------------------------------------------------------------ faults leave everything as it was */

static void test_push_fault(void **state)
{
	(void)state;
	rig_paged(3);
	rig.gpr[ESP] = RIG_NOT_MAPPED + 4; /* the push goes to the unmapped page */
	rig.gpr[EAX] = 0x1234;
	rig_run(1, 0x50); /* push eax */
	assert_fault(VEC_PF, PF_W | PF_U, RIG_CODE);
	assert_int_equal(rig.cr2, RIG_NOT_MAPPED);
	assert_int_equal(rig_pushed(4), RIG_NOT_MAPPED + 4); /* esp */
}

static void test_pop_memory(void **state)
{
	(void)state;
	rig_paged(0);
	rig_put32(RIG_STACK, 0xcafe);
	rig_run(1, 0x8f, 0x04, 0x24); /* pop dword [esp]: the address is that after the pop */
	assert_int_equal(rig_get32(RIG_STACK + 4), 0xcafe);
	assert_int_equal(rig.gpr[ESP], RIG_STACK + 4);
	rig_paged(3);
	rig.gpr[EBX] = RIG_READ_ONLY;
	rig_run(1, 0x8f, 0x03);
	assert_fault(VEC_PF, PF_P | PF_W | PF_U, RIG_CODE);
	assert_int_equal(rig_pushed(4), RIG_STACK);
}

/* A read-modify-write faults as a write even where the read would fault first. */
static void test_rmw_fault(void **state)
{
	(void)state;
	rig_paged(3);
	rig.gpr[EBX] = RIG_READ_ONLY;
	rig.flags = FL_CF;
	rig_run(1, 0x01, 0x03); /* add [ebx], eax */
	assert_fault(VEC_PF, PF_P | PF_W | PF_U, RIG_CODE);
	assert_int_equal(rig_pushed(3) & FL_ARITH, FL_CF);
	rig_paged(3);
	rig.gpr[EBX] = RIG_NOT_MAPPED;
	rig_run(1, 0x0f, 0xb1, 0x03); /* cmpxchg */
	assert_fault(VEC_PF, PF_W | PF_U, RIG_CODE);
}

static void test_page_crossing_store(void **state)
{
	(void)state;
	rig_paged(3);
	rig.gpr[EBX] = RIG_NOT_MAPPED - 2;
	rig.gpr[EAX] = 0x11223344;
	rig_run(1, 0x89, 0x03);
	assert_fault(VEC_PF, PF_W | PF_U, RIG_CODE);
	assert_int_equal(rig.cr2, RIG_NOT_MAPPED);
	assert_int_equal(rig_get16(RIG_NOT_MAPPED - 2), 0);
}

static void test_rep_progress(void **state)
{
	(void)state;
	rig_paged(3);
	rig.gpr[ESI] = RIG_DATA;
	rig.gpr[EDI] = RIG_NOT_MAPPED - 12;
	rig.gpr[ECX] = 10;
	rig_bytes(RIG_DATA, "abcdefghijklmnop", 16);
	rig_run(1, 0xf3, 0xa5);
	assert_fault(VEC_PF, PF_W | PF_U, RIG_CODE);
	assert_int_equal(rig.gpr[ECX], 7);
	assert_int_equal(rig.gpr[ESI], RIG_DATA + 12);
	assert_int_equal(rig.gpr[EDI], RIG_NOT_MAPPED);
	assert_int_equal(rig_get32(RIG_NOT_MAPPED - 4), 0x6c6b6a69);
}

static void test_rep_overlap(void **state)
{
	(void)state;
	rig_protected(0);
	rig_bytes(RIG_DATA, "ab", 2);
	rig.gpr[ESI] = RIG_DATA;
	rig.gpr[EDI] = RIG_DATA + 2;
	rig.gpr[ECX] = 4000;
	for (unsigned k = 0; rig.gpr[ECX] && k < 200; k++) {
		rig.eip = RIG_CODE;
		rig_run(1, 0xf3, 0xa4);
	}
	assert_int_equal(rig_get16(RIG_DATA + 4000), 0x6261);
	assert_int_equal(rig_get32(RIG_DATA + 4002), 0);
	/* downwards */
	rig.df = FL_DF;
	rig.gpr[EDI] = RIG_DATA + 16;
	rig.gpr[EAX] = 0x7a;
	rig.gpr[ECX] = 3;
	rig.eip = RIG_CODE;
	rig_run(1, 0xf3, 0xaa);
	assert_int_equal(rig_get32(RIG_DATA + 13), 0x7a7a7a61u + 1);
	assert_int_equal(rig.gpr[EDI], RIG_DATA + 13);
}

/* What a repeat overwrites of itself counts from the next instruction on: rep stosb over its own bytes, in
 * 600 steps up and, by single elements, down. */
static void test_rep_over_itself(void **state)
{
	(void)state;
	for (unsigned down = 0; down < 2; down++) {
		rig_protected(0);
		rig.df = down ? FL_DF : 0;
		rig.gpr[EDI] = down ? RIG_CODE + 20 : RIG_CODE;
		rig.gpr[ECX] = 600;
		rig.gpr[EAX] = 0x90;
		rig_run(1, 0xf3, 0xaa);
		assert_int_equal(rig.gpr[ECX], 0);
		assert_int_equal(rig.eip, RIG_CODE + 2);
		assert_int_equal(rig_get32(RIG_CODE), 0x90909090);
	}
}

/* Into pages that somebody watches a repeat stores by the page, with the same result. */
static void test_rep_into_watched_pages(void **state)
{
	uint64_t before;

	(void)state;
	rig_paged(3);
	mem_trace_add(rig.mem, RIG_DATA + 0x2000, TRACE_CODE);
	before = mem_get_stats(rig.mem)->traced_stores;
	for (unsigned k = 0; k < 64; k++)
		rig_put32(RIG_DATA + 0x8000 + k * 4, k * 0x01010101);
	rig.gpr[ESI] = RIG_DATA + 0x8000;
	rig.gpr[EDI] = RIG_DATA + 0x2000 - 32;
	rig.gpr[ECX] = 64;
	rig_run(1, 0xf3, 0xa5); /* rep movsd, its first eight to the page before */
	assert_int_equal(rig.gpr[ECX], 0);
	for (unsigned k = 0; k < 64; k++)
		assert_int_equal(rig_get32(RIG_DATA + 0x2000 - 32 + k * 4), k * 0x01010101);
	assert_int_equal(mem_get_stats(rig.mem)->traced_stores - before, 1);
	/* overlapping: the pattern repeats itself */
	rig.eip = RIG_CODE;
	rig.gpr[ESI] = RIG_DATA + 0x2000;
	rig.gpr[EDI] = RIG_DATA + 0x2001;
	rig.gpr[ECX] = 100;
	rig_put16(RIG_DATA + 0x2000, 0x1177);
	rig_run(1, 0xf3, 0xa4);
	for (unsigned k = 0; k < 100; k += 4)
		assert_int_equal(rig_get32(RIG_DATA + 0x2000 + k), 0x77777777);
	/* stos with a fault at its end */
	mem_trace_add(rig.mem, RIG_NOT_MAPPED - 0x1000, TRACE_CODE);
	rig.eip = RIG_CODE;
	rig.gpr[EAX] = 0x12345678;
	rig.gpr[EDI] = RIG_NOT_MAPPED - 16;
	rig.gpr[ECX] = 10;
	rig_run(1, 0xf3, 0xab);
	assert_fault(VEC_PF, PF_W | PF_U, RIG_CODE);
	assert_int_equal(rig.gpr[ECX], 6);
	assert_int_equal(rig.gpr[EDI], RIG_NOT_MAPPED);
	assert_int_equal(rig_get32(RIG_NOT_MAPPED - 4), 0x12345678);
}

static void test_compare_repeats(void **state)
{
	(void)state;
	rig_protected(0);
	rig_bytes(RIG_DATA, "needle in hay", 13);
	rig.gpr[EDI] = RIG_DATA;
	rig.gpr[ECX] = 100;
	rig.gpr[EAX] = ' ';
	rig_run(1, 0xf2, 0xae); /* repne scasb */
	assert_int_equal(rig.gpr[EDI], RIG_DATA + 7);
	assert_int_equal(rig.gpr[ECX], 93);
	assert_true(rig.flags & FL_ZF);
	/* nothing to do: flags stay */
	rig.eip = RIG_CODE;
	rig.gpr[ECX] = 0;
	rig.flags = FL_CF | FL_OF;
	rig_run(1, 0xf3, 0xa6);
	assert_int_equal(rig.flags, FL_CF | FL_OF);
	assert_int_equal(rig.eip, RIG_CODE + 2);
}

/* ------------------------------------------------------------------ fetching */

static void test_next_instruction_modified(void **state)
{
	(void)state;
	rig_protected(0);
	rig.gpr[EAX] = 5;
	/* twice over the same place, so that the second time it has been decoded before */
	for (unsigned k = 0; k < 2; k++) {
		uint8_t inc_or_dec = k ? 0x40 : 0x48;

		rig.eip = RIG_CODE;
		rig_run(2, 0xc6, 0x05, RIG_CODE & 0xff, RIG_CODE >> 8 & 0xff, 0x01, 0x00, inc_or_dec, 0x90);
		/* mov byte [RIG_CODE], x changes what has run already; now the real thing */
		rig.eip = RIG_CODE;
		rig_run(2, 0xc6, 0x05, (RIG_CODE + 7) & 0xff, RIG_CODE >> 8 & 0xff, 0x01, 0x00, inc_or_dec,
			0x90);
		assert_int_equal(rig.gpr[EAX], k ? 5 : 4);
	}
}

static void test_straddling_fetch(void **state)
{
	(void)state;
	rig_paged(3);
	/* mov eax, imm32 with its last two bytes on the next page */
	rig.eip = 0x50000 - 3;
	rig_run(1, 0xb8, 0x78, 0x56, 0x34, 0x12);
	assert_int_equal(rig.gpr[EAX], 0x12345678);
	rig_bytes(0x50000, "\x99\x88", 2);
	rig.eip = 0x50000 - 3;
	interp_step(&rig);
	assert_int_equal(rig.gpr[EAX], 0x88995678);
	/* the second page goes away */
	rig_put32(RIG_PT + 4 * 0x50, 0);
	mem_flush_page(&rig, 0x50000);
	rig.eip = 0x50000 - 3;
	interp_step(&rig);
	assert_fault(VEC_PF, PF_U, 0x50000 - 3);
	assert_int_equal(rig.cr2, 0x50000);
}

static void test_fetch_limits(void **state)
{
	(void)state;
	rig_protected(0);
	rig.seg[CS].limit = RIG_CODE + 3;
	rig_run(1, 0xb8, 1, 0, 0, 0); /* five bytes, four of them within the limit */
	assert_fault(VEC_GP, 0, RIG_CODE);
	rig_protected(0);
	rig.seg[CS].limit = RIG_CODE + 4;
	rig_run(1, 0xb8, 1, 0, 0, 0);
	assert_int_equal(rig.gpr[EAX], 1);
	interp_step(&rig);
	assert_fault(VEC_GP, 0, RIG_CODE + 5);
	/* a branch to beyond the limit is the branch's fault */
	rig_protected(0);
	rig.seg[CS].limit = RIG_CODE + 0xff;
	rig_run(1, 0xe9, 0xfb, 0x00, 0x00, 0x00);
	assert_fault(VEC_GP, 0, RIG_CODE);
	/* more than 15 bytes */
	rig_protected(0);
	rig_run(1, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
		0x90);
	assert_fault(VEC_GP, 0, RIG_CODE);
}

static void test_no_execute(void **state)
{
	(void)state;
	rig_protected(3);
	/* PAE: one PDPTE, one page directory with 2 MiB pages; the second is not executable */
	rig_put32(RIG_PD, RIG_PT | PTE_P);
	rig_put32(RIG_PT, PTE_P | PTE_RW | PTE_US | PTE_PS);
	rig_put32(RIG_PT + 8, 0x200000 | PTE_P | PTE_RW | PTE_US | PTE_PS);
	rig_put32(RIG_PT + 12, 0x80000000);
	rig.efer = 0x800;
	rig.cr4 = CR4_PAE;
	rig.cr3 = RIG_PD;
	assert_int_equal(cr_write(&rig, 0, rig.cr0 | CR0_PG), 0);
	rig.cpl = 3;
	rig.gpr[EBX] = 0x200000;
	rig_run(2, 0x8b, 0x03, 0xff, 0xe3); /* reads it, jumps there */
	assert_int_equal(rig.eip, 0x200000);
	interp_step(&rig);
	assert_fault(VEC_PF, PF_P | PF_U | PF_I, 0x200000);
}

/* ------------------------------------------------------------------ real mode */

static void test_real_int(void **state)
{
	(void)state;
	rig_real();
	cpu_set_eflags(&rig, FL_IF | FL_CF);
	rig_run(1, 0xcd, 0x21);
	assert_int_equal(rig_vector(), 0x21);
	assert_int_equal(rig.gpr[ESP], RIG_STACK - 6);
	assert_int_equal(rig_get16(RIG_STACK - 6), 2);
	assert_int_equal(rig_get16(RIG_STACK - 4), RIG_CODE >> 4);
	assert_int_equal(rig_get16(RIG_STACK - 2), FL_IF | FL_CF | FL_1);
	assert_int_equal(rig.iflag, 0);
	rig_run(1, 0xcf);
	assert_int_equal(rig.eip, 2);
	assert_int_equal(cpu_eflags(&rig), FL_IF | FL_CF | FL_1);
	/* beyond the limit of the table */
	rig.idtr.limit = 0x83;
	rig_run(1, 0xcd, 0x21);
	assert_int_equal(rig_vector(), VEC_GP);
	assert_int_equal(rig.gpr[ESP], RIG_STACK - 6); /* no error code */
}

static void test_real_limits(void **state)
{
	(void)state;
	rig_real();
	rig.gpr[EBX] = 0xffff;
	rig_run(1, 0x8b, 0x07); /* mov ax, [bx] */
	assert_int_equal(rig_vector(), VEC_GP);
	rig_real();
	rig.gpr[ESP] = 1;
	rig_run(1, 0x50);			 /* push ax at ffff */
	assert_int_equal(interp_step(&rig), -1); /* no stack for the #SS either */
	rig_real();
	rig.gpr[ESP] = 0;
	rig.gpr[EAX] = 0xbeef;
	rig_run(1, 0x50);
	assert_int_equal(rig.gpr[ESP], 0xfffe);
	assert_int_equal(rig_get16(0xfffe), 0xbeef);
}

static void test_unreal(void **state)
{
	(void)state;
	rig_real();
	rig.seg[DS].limit = 0xffffffff;
	rig_put32(0x200000, 0x5555aaaa);
	rig.gpr[EBX] = 0x200000;
	rig_run(1, 0x66, 0x67, 0x8b, 0x03);
	assert_int_equal(rig.gpr[EAX], 0x5555aaaa);
	rig.gpr[ECX] = 0;
	rig_run(2, 0x8e, 0xd9, 0x66, 0x67, 0x8b, 0x13); /* mov ds, cx does not bring the limit back */
	assert_int_equal(rig.gpr[EDX], 0x5555aaaa);
}

static void test_jump_wraps(void **state)
{
	(void)state;
	rig_real();
	rig.eip = 0xfff0;
	rig_run(1, 0xeb, 0x20);
	assert_int_equal(rig.eip, 0x12);
	/* an operand size of 32 does not wrap, and faults */
	rig_real();
	rig.eip = 0xfff0;
	rig_run(1, 0x66, 0xe9, 0x20, 0x00, 0x00, 0x00);
	assert_int_equal(rig_vector(), VEC_GP);
}

/* ------------------------------------------------------------------ segments */

static void test_expand_down(void **state)
{
	(void)state;
	rig_protected(0);
	rig_descriptor(SEL_GATE, 0, RIG_DATA - 1, SEG_P | SEG_S | SEG_RW | SEG_DC | SEG_DB);
	rig.gpr[EAX] = SEL_GATE;
	rig.gpr[EBX] = RIG_DATA;
	rig_run(2, 0x8e, 0xd8, 0x89, 0x03);
	assert_int_equal(rig_get32(RIG_DATA), SEL_GATE);
	rig.gpr[EBX] = RIG_DATA - 1;
	rig_run(1, 0x89, 0x03);
	assert_fault(VEC_GP, 0, RIG_CODE + 4);
	/* accessed bit */
	assert_true(rig_get32(RIG_GDT + SEL_GATE + 4) & 0x100);
}

static void test_segment_checks(void **state)
{
	static const struct {
		unsigned sreg, cpl;
		uint16_t sel, attr;
		int vector;
	} t[] = {
		{SS, 0, 0, 0, VEC_GP},
		{DS, 0, 0, 0, -1},
		{DS, 0, SEL_GATE, SEG_P | SEG_S | SEG_RW, -1},
		{DS, 0, SEL_GATE, SEG_S | SEG_RW, VEC_NP},
		{SS, 0, SEL_GATE, SEG_S | SEG_RW, VEC_SS},
		{SS, 0, SEL_GATE, SEG_P | SEG_S, VEC_GP},		     /* not writable */
		{SS, 0, SEL_GATE | 3, SEG_P | SEG_S | SEG_RW, VEC_GP},	     /* RPL */
		{SS, 0, SEL_GATE, SEG_P | SEG_S | SEG_RW | SEG_DPL, VEC_GP}, /* DPL */
		{SS, 3, SEL_GATE | 3, SEG_P | SEG_S | SEG_RW | SEG_DPL, -1},
		{DS, 3, SEL_GATE | 3, SEG_P | SEG_S | SEG_RW, VEC_GP},
		{DS, 3, SEL_GATE | 3, SEG_P | SEG_S | SEG_CODE, VEC_GP},	       /* not readable */
		{DS, 3, SEL_GATE | 3, SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_DC, -1}, /* conforming */
		{ES, 0, SEL_GATE, SEG_P | SYS_TSS32, VEC_GP},
		{FS, 0, 0x7f8, 0, VEC_GP}, /* an empty descriptor */
		{GS, 0, 0x800, 0, VEC_GP}, /* beyond the table */
		{GS, 0, 0x804, 0, VEC_GP},
	};

	(void)state;
	for (unsigned k = 0; k < sizeof t / sizeof *t; k++) {
		rig_protected(t[k].cpl);
		rig_descriptor(t[k].sel & 0xff8, RIG_DATA, 0xfff, t[k].attr);
		rig.gpr[EAX] = t[k].sel;
		rig_run(1, 0x8e, (uint8_t)(0xc0 | t[k].sreg << 3));
		if (rig_vector() != t[k].vector)
			fail_msg("case %u: vector %d", k, rig_vector());
		if (t[k].vector >= 0)
			assert_int_equal(rig_pushed(0), t[k].sel & 0xfffc);
		else
			assert_int_equal(rig.seg[t[k].sreg].sel, t[k].sel);
	}
	/* using a null segment */
	rig_protected(0);
	rig.gpr[EAX] = 0;
	rig_run(2, 0x8e, 0xd8, 0x8b, 0x03);
	assert_fault(VEC_GP, 0, RIG_CODE + 2);
	/* writing code, reading execute-only code */
	rig_protected(0);
	rig_run(1, 0x2e, 0x89, 0x03);
	assert_fault(VEC_GP, 0, RIG_CODE);
	rig_protected(0);
	rig.seg[CS].attr &= (uint16_t)~SEG_RW;
	rig_run(1, 0x2e, 0x8b, 0x03);
	assert_fault(VEC_GP, 0, RIG_CODE);
}

static void test_queries(void **state)
{
	(void)state;
	rig_protected(3);
	rig.gpr[EAX] = SEL_DATA0;
	rig_run(1, 0x0f, 0x02, 0xc8); /* lar ecx, ax: DPL 0 is not for CPL 3 */
	assert_false(rig.flags & FL_ZF);
	rig.gpr[EAX] = SEL_DATA3;
	rig_run(1, 0x0f, 0x02, 0xc8);
	assert_true(rig.flags & FL_ZF);
	assert_int_equal(rig.gpr[ECX], 0xcff300);
	rig_run(1, 0x0f, 0x03, 0xd0); /* lsl edx, ax */
	assert_int_equal(rig.gpr[EDX], 0xffffffff);
	rig_run(1, 0x0f, 0x00, 0xe8); /* verw ax */
	assert_true(rig.flags & FL_ZF);
	rig.gpr[EAX] = SEL_CODE3;
	rig_run(1, 0x0f, 0x00, 0xe8);
	assert_false(rig.flags & FL_ZF);
	rig_run(1, 0x0f, 0x00, 0xe0); /* verr ax */
	assert_true(rig.flags & FL_ZF);
	rig.gpr[EAX] = 0x20;
	rig.gpr[EBX] = 3;
	rig_run(1, 0x63, 0xd8); /* arpl ax, bx */
	assert_int_equal(rig.gpr[EAX], 0x23);
	assert_true(rig.flags & FL_ZF);
	rig_run(1, 0x63, 0xd8);
	assert_false(rig.flags & FL_ZF);
}

/* ------------------------------------------------------------------ exceptions */

static void test_exceptions(void **state)
{
	static const struct {
		uint8_t code[4];
		int vector;
		bool after; /* a trap: EIP is after the instruction */
		unsigned len;
	} t[] = {
		{{0xf7, 0xf1}, VEC_DE, false, 2}, /* div ecx, with ecx 0 */
		{{0xd4, 0x00}, VEC_DE, false, 2}, /* aam 0 */
		{{0xf1}, VEC_DB, true, 1},
		{{0xcc}, VEC_BP, true, 1},
		{{0xcd, 0x03}, VEC_BP, true, 2},
		{{0xce}, VEC_OF, true, 1},
		{{0x62, 0x03}, VEC_BR, false, 2}, /* bound eax, [ebx] */
		{{0x0f, 0x0b}, VEC_UD, false, 2},
		{{0xf0, 0x90}, VEC_UD, false, 2},
		{{0x0f, 0xb9, 0xc0}, VEC_UD, false, 3},
	};

	(void)state;
	for (unsigned k = 0; k < sizeof t / sizeof *t; k++) {
		rig_protected(0);
		rig.flags = FL_OF;
		rig.gpr[EBX] = RIG_DATA;
		rig.gpr[EAX] = 1;
		rig_run_bytes(1, t[k].code, sizeof t[k].code);
		if (rig_vector() != t[k].vector)
			fail_msg("case %u: vector %d", k, rig_vector());
		assert_int_equal(rig_pushed(0), t[k].after ? RIG_CODE + t[k].len : RIG_CODE);
		/* faults push RF */
		assert_int_equal(rig_pushed(2) & FL_RF, t[k].after ? 0 : FL_RF);
	}
}

static void test_double_fault(void **state)
{
	(void)state;
	/* #GP whose gate is not present: #NP with EXT, contributory: double fault */
	rig_protected(0);
	rig_put32(RIG_IDT + 8 * VEC_GP + 4, rig_get32(RIG_IDT + 8 * VEC_GP + 4) & ~0x8000u);
	rig_run(1, 0x8e, 0xd0); /* mov ss, ax: null */
	assert_fault(VEC_DF, 0, RIG_CODE);
	/* #UD is benign: the #NP is delivered as such */
	rig_protected(0);
	rig_put32(RIG_IDT + 8 * VEC_UD + 4, rig_get32(RIG_IDT + 8 * VEC_UD + 4) & ~0x8000u);
	rig_run(1, 0x0f, 0x0b);
	assert_fault(VEC_NP, VEC_UD * 8 + 3, RIG_CODE);
	/* INT n through such a gate: no EXT */
	rig_protected(0);
	rig_put32(RIG_IDT + 8 * 0x60 + 4, rig_get32(RIG_IDT + 8 * 0x60 + 4) & ~0x8000u);
	rig_run(1, 0xcd, 0x60);
	assert_fault(VEC_NP, 0x60 * 8 + 2, RIG_CODE);
	/* nothing left */
	rig_protected(0);
	rig.idtr.limit = 0;
	assert_int_equal(rig_run(1, 0x0f, 0x0b), -1);
	/* a page fault while delivering a page fault */
	rig_paged(0);
	rig.gpr[EBX] = RIG_NOT_MAPPED;
	rig.gpr[ESP] = RIG_READ_ONLY + 0x100;
	assert_int_equal(rig_run(1, 0x8b, 0x03), -1);
}

static void test_alignment(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 4; k++) {
		bool faults = k == 3;

		rig_protected(k == 2 ? 0 : 3);
		if (k != 0)
			rig.cr0 |= CR0_AM;
		if (k != 1)
			rig.sysflags |= FL_AC;
		rig.gpr[EBX] = RIG_DATA + 2;
		rig_run(1, 0x8b, 0x03);
		assert_int_equal(rig_vector(), faults ? VEC_AC : -1);
		if (faults)
			assert_fault(VEC_AC, 0, RIG_CODE);
	}
}

/* ------------------------------------------------------------------ debug */

static void test_single_step(void **state)
{
	(void)state;
	rig_protected(0);
	cpu_set_eflags(&rig, FL_TF);
	rig_run(1, 0x40, 0x40);
	assert_trap(VEC_DB, RIG_CODE + 1);
	assert_int_equal(rig.gpr[EAX], 1);
	assert_int_equal(rig.dr[6], 0xffff4ff0);
	assert_int_equal(rig.sysflags & FL_TF, 0);
	assert_int_equal(rig_pushed(2) & FL_TF, FL_TF);
	/* popf turns it on: the next instruction is the first to trap */
	rig_protected(0);
	rig_put32(RIG_STACK, FL_TF);
	rig_run(1, 0x9d, 0x40, 0x40);
	assert_int_equal(rig_vector(), -1);
	interp_step(&rig);
	assert_trap(VEC_DB, RIG_CODE + 2);
	/* mov ss: the trap waits for the instruction after it */
	rig_protected(0);
	cpu_set_eflags(&rig, FL_TF);
	rig.gpr[EAX] = SEL_DATA0;
	rig_run(1, 0x8e, 0xd0, 0x40);
	assert_int_equal(rig_vector(), -1);
	interp_step(&rig);
	assert_trap(VEC_DB, RIG_CODE + 3);
}

static void test_breakpoints(void **state)
{
	(void)state;
	rig_protected(0);
	rig.dr[1] = RIG_CODE + 1;
	rig.dr[7] = 0x400 | 0x8; /* G1, execution */
	rig_run(1, 0x40, 0x40, 0x40);
	assert_int_equal(rig.gpr[EAX], 1);
	interp_step(&rig);
	assert_trap(VEC_DB, RIG_CODE + 1);
	assert_int_equal(rig.gpr[EAX], 1);
	assert_int_equal(rig.dr[6], 0xffff0ff2);
	assert_int_equal(rig_pushed(2) & FL_RF, 0);
	/* with RF it is passed over, and RF is used up by that */
	rig.eip = RIG_CODE + 1;
	rig.sysflags |= FL_RF;
	interp_step(&rig);
	assert_int_equal(rig.gpr[EAX], 2);
	assert_int_equal(rig.sysflags & FL_RF, 0);
	/* nor is it seen on the instruction after mov ss */
	rig_protected(0);
	rig.dr[1] = RIG_CODE + 2;
	rig.dr[7] = 0x400 | 0x8;
	rig.gpr[EAX] = SEL_DATA0;
	rig_run(2, 0x8e, 0xd0, 0x43);
	assert_int_equal(rig.gpr[EBX], 1);
	/* data: four bytes, writes */
	rig_protected(0);
	rig.dr[0] = RIG_DATA;
	rig.dr[7] = 0x400 | 0x1 | 0xd0000;
	rig.gpr[EBX] = RIG_DATA + 3;
	rig_run(1, 0x8a, 0x03, 0x88, 0x03, 0x90);
	assert_int_equal(rig_vector(), -1);
	interp_step(&rig);
	assert_trap(VEC_DB, RIG_CODE + 4);
	assert_int_equal(rig.dr[6], 0xffff0ff1);
	/* a port, with CR4.DE */
	rig_protected(0);
	rig.cr4 = CR4_DE;
	rig.dr[2] = 0x80;
	rig.dr[7] = 0x400 | 0x10 | 0x2000000;
	rig_run(1, 0xe6, 0x80);
	assert_trap(VEC_DB, RIG_CODE + 2);
	assert_int_equal(rig.dr[6], 0xffff0ff4);
}

static void test_debug_registers(void **state)
{
	(void)state;
	rig_protected(0);
	rig.gpr[EAX] = 0xffffffff;
	rig_run(1, 0x0f, 0x23, 0xf8); /* mov dr7, eax */
	assert_int_equal(rig.dr[7], 0xffff27ff);
	rig.gpr[EAX] = 0;
	rig_run(1, 0x0f, 0x21, 0xc0); /* mov eax, dr0: general detect */
	assert_trap(VEC_DB, RIG_CODE + 3);
	assert_int_equal(rig.dr[6] & 0x2000, 0x2000);
	assert_int_equal(rig.dr[7] & 0x2000, 0);
	/* DR4 is DR6, unless CR4.DE */
	rig_protected(0);
	rig_run(1, 0x0f, 0x21, 0xe0);
	assert_int_equal(rig.gpr[EAX], 0xffff0ff0);
	rig.cr4 = CR4_DE;
	rig_run(1, 0x0f, 0x21, 0xe0);
	assert_int_equal(rig_vector(), VEC_UD);
	rig_protected(3);
	rig_run(1, 0x0f, 0x21, 0xc0);
	assert_fault(VEC_GP, 0, RIG_CODE);
}

/* ------------------------------------------------------------------ interrupts */

static void test_shadow(void **state)
{
	(void)state;
	rig_protected(0);
	rig_run(1, 0xfb, 0x90, 0xfb, 0x90); /* sti; nop; sti; nop */
	assert_int_equal(rig.shadow, 1);
	interp_step(&rig);
	assert_int_equal(rig.shadow, 0);
	interp_step(&rig); /* IF is set already */
	assert_int_equal(rig.shadow, 0);
	rig_protected(0);
	rig.gpr[EAX] = SEL_DATA0;
	rig_run(1, 0x8e, 0xd0, 0x90);
	assert_int_equal(rig.shadow, 1);
	interp_step(&rig);
	assert_int_equal(rig.shadow, 0);
}

static void test_run_stops(void **state)
{
	(void)state;
	rig_protected(0);
	rig_bytes(RIG_CODE, "\x40\x40\xf4\x40", 4);
	assert_int_equal(interp_run(&rig, 100, false), 0);
	assert_true(rig.halted);
	assert_int_equal(rig.eip, RIG_CODE + 3);
	assert_int_equal(rig.gpr[EAX], 2);
	/* an interrupt with IF clear does not stop it, and does once sti's shadow is over */
	rig_protected(0);
	rig_bytes(RIG_CODE, "\x40\xfb\x40\x40\x40", 5);
	atomic_store(&rig.request, REQ_IRQ);
	assert_int_equal(interp_run(&rig, 100, false), 0);
	assert_int_equal(rig.eip, RIG_CODE + 3);
	assert_int_equal(interp_deliver_interrupt(&rig, 0x30), 0);
	assert_trap(0x30, RIG_CODE + 3);
	assert_int_equal(rig.iflag, 0);
	/* the state that the translator takes */
	rig_real();
	rig.gdtr = (struct table_reg){.base = RIG_GDT, .limit = 0x7ff};
	rig_descriptor(SEL_CODE0, 0, 0xffffffff, SEG_P | SEG_S | SEG_RW | SEG_CODE | SEG_G | SEG_DB);
	rig_descriptor(SEL_DATA0, 0, 0xffffffff, SEG_P | SEG_S | SEG_RW | SEG_G | SEG_DB);
	/* mov cr0, eax; jmp far 08:10040 */
	rig.gpr[EAX] = CR0_PE;
	rig_bytes(RIG_CODE, "\x0f\x22\xc0\x66\xea\x40\x00\x01\x00\x08\x00", 11);
	/* mov ax, 10; mov ss, ax; nop; nop */
	rig_bytes(RIG_CODE + 0x40, "\x66\xb8\x10\x00\x8e\xd0\x90\x90", 8);
	assert_int_equal(interp_run(&rig, 100, true), 0);
	assert_int_equal(rig.eip, RIG_CODE + 0x47);
	assert_true(cpu_translatable(&rig));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_push_fault),	 cmocka_unit_test(test_pop_memory),
		cmocka_unit_test(test_rmw_fault),	 cmocka_unit_test(test_page_crossing_store),
		cmocka_unit_test(test_rep_progress),	 cmocka_unit_test(test_rep_overlap),
		cmocka_unit_test(test_rep_over_itself),	 cmocka_unit_test(test_rep_into_watched_pages),
		cmocka_unit_test(test_compare_repeats),	 cmocka_unit_test(test_next_instruction_modified),
		cmocka_unit_test(test_straddling_fetch), cmocka_unit_test(test_fetch_limits),
		cmocka_unit_test(test_no_execute),	 cmocka_unit_test(test_real_int),
		cmocka_unit_test(test_real_limits),	 cmocka_unit_test(test_unreal),
		cmocka_unit_test(test_jump_wraps),	 cmocka_unit_test(test_expand_down),
		cmocka_unit_test(test_segment_checks),	 cmocka_unit_test(test_queries),
		cmocka_unit_test(test_exceptions),	 cmocka_unit_test(test_double_fault),
		cmocka_unit_test(test_alignment),	 cmocka_unit_test(test_single_step),
		cmocka_unit_test(test_breakpoints),	 cmocka_unit_test(test_debug_registers),
		cmocka_unit_test(test_shadow),		 cmocka_unit_test(test_run_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
