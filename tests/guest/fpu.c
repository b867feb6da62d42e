/*
 * The floating-point unit as a kernel sees it: CR0.TS, EM, MP and NE, CR4's SSE bits (SDM vol.
 * 3A 2.5, 10.2.1, 14.1), unmasked exceptions, and the images of fnstenv, fnsave and fxsave. Instruction and
 * data pointers and the opcode are left out: what they hold differs from CPU to CPU.
 */
#include "guest.h"

uint8_t image[512 + 64] __attribute__((aligned(64)));
uint32_t memory[4] __attribute__((aligned(16)));
uint16_t control;
uint32_t mxcsr;

CODE(fwait_, "", "fwait");
CODE(fld1, "", "fld1");
CODE(fninit, "", "fninit");
CODE(fnstsw, "", "fnstsw %ax");
CODE(fnclex, "", "fnclex");
CODE(fnsave, "", "fnsave image");
CODE(emms, "", "emms");
CODE(movd, "", "movd %eax, %mm0");
CODE(fxsave, "", "fxsave image");
CODE(fxrstor, "", "fxrstor image");
CODE(fxsave_unaligned, "", "fxsave image + 8");
CODE(movups, "", "movups memory, %xmm0");
CODE(movaps_unaligned, "", "movaps memory + 4, %xmm0");
CODE(ldmxcsr, "movl %eax, mxcsr", "ldmxcsr mxcsr");
CODE(pause_, "", "pause");
CODE(prefetch, "", "prefetchnta memory");
CODE(sfence, "", "sfence");

enum answer { OK, NM, UD };

/* CR0 bits set in i: 1 TS, 2 EM, 4 MP. SDM vol. 3A tables 2-2, 14-1. */
static void control_bits(void)
{
	static const struct {
		const char *name;
		const struct snippet *code;
		uint8_t wants[8];
		bool sse;
		const char *sdm; /* QEMU looks at TS before it looks at EM */
	} cases[] = {
		{"fwait", &fwait_, {OK, OK, OK, OK, OK, NM, OK, NM}},
		{"fld1", &fld1, {OK, NM, NM, NM, OK, NM, NM, NM}},
		{"fninit", &fninit, {OK, NM, NM, NM, OK, NM, NM, NM}},
		{"fnstsw ax", &fnstsw, {OK, NM, NM, NM, OK, NM, NM, NM}},
		{"fnclex", &fnclex, {OK, NM, NM, NM, OK, NM, NM, NM}},
		{"fnsave", &fnsave, {OK, NM, NM, NM, OK, NM, NM, NM}},
		{"emms", &emms, {OK, NM, UD, UD, OK, NM, UD, UD}, false, "3A 2.5"},
		{"movd", &movd, {OK, NM, UD, UD, OK, NM, UD, UD}, false, "3A 2.5"},
		{"fxsave", &fxsave, {OK, NM, NM, NM, OK, NM, NM, NM}},
		{"movups", &movups, {OK, NM, UD, UD, OK, NM, UD, UD}, true, "3A 2.5"},
		{"pause", &pause_, {OK, OK, OK, OK, OK, OK, OK, OK}},
		{"prefetch", &prefetch, {OK, OK, OK, OK, OK, OK, OK, OK}, true},
		{"sfence", &sfence, {OK, OK, OK, OK, OK, OK, OK, OK}, true},
	};

	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		uint32_t got = 0, want = 0;

		if ((cases[n].code == &fxsave && !cpu_has(CPUID_FXSR)) ||
		    (cases[n].sse && !cpu_has(CPUID_SSE)))
			continue;
		for (uint32_t i = 0; i < 16; i++) {
			uint32_t bits = (i & 1 ? CR0_TS : 0) | (i & 2 ? CR0_EM : 0) | (i & 4 ? CR0_MP : 0);

			set_cr0((get_cr0() & ~(CR0_TS | CR0_EM | CR0_MP)) | bits);
			if (i & 8)
				user_mode();
			run(cases[n].code);
			got = got << 2 | (out.vector == DONE_VECTOR ? OK
					  : out.vector == X_NM	    ? NM
					  : out.vector == X_UD	    ? UD
								    : 3);
			want = want << 2 | cases[n].wants[i & 7];
		}
		sdm(cases[n].sdm);
		check(cases[n].name, got, want);
	}
	set_cr0(get_cr0() & ~(CR0_TS | CR0_EM | CR0_MP));
}

CODE_THEN(unmasked, "fninit; fldcw control; fldz; fld1", "fdivp %st, %st(1); fld1; fdiv %st(1), %st", "");
CODE_THEN(zero_divide, "fninit; fldcw control; fldz; fld1; fdiv %st(1), %st", "fwait", "");
CODE_THEN(zero_divide_next, "fninit; fldcw control; fldz; fld1; fdiv %st(1), %st; nop; movl $1, %ebx", "fld1",
	  "");
CODE_THEN(not_waiting,
	  "fninit; fldcw control; fldz; fld1; fdiv %st(1), %st; fnstsw %ax; fnstcw control; fnclex", "fwait",
	  "");
CODE_THEN(stack_overflow, "fninit; fldcw control; fld1;fld1;fld1;fld1;fld1;fld1;fld1;fld1; fld1", "fwait",
	  "");
CODE_THEN(store_pending, "fninit; fldcw control; fldz; fld1; fdiv %st(1), %st; fnstenv image", "fwait", "");
float zero_word;
CODE(opcode_kept, "fninit; fldcw control; fld1; .byte 0xd8, 0x35; .long zero_word; fnstenv image", "nop");

static void unmasked_exceptions(void)
{
	set_cr0(get_cr0() | CR0_NE | CR0_MP);
	control = 0x037b; /* zero-divide unmasked */
	expect_fault("zero-divide, fwait", &zero_divide, X_MF, NO_ERROR);
	control = 0x037b;
	sdm("1 8.7"); /* QEMU looks for pending exceptions in fwait alone */
	expect_fault("zero-divide, next fld1", &zero_divide_next, X_MF, NO_ERROR);
	check("  instructions in between ran", out.ebx, 1);
	user_mode();
	expect_fault("zero-divide at cpl 3", &zero_divide, X_MF, NO_ERROR);
	expect_done("instructions that do not wait", &not_waiting);
	check("  status", out.eax & 0xffff & ~0x4700u, 0xb084);
	control = 0x037e; /* invalid operation unmasked */
	sdm("1 8.5.1.1"); /* QEMU knows no stack faults */
	expect_fault("stack overflow", &stack_overflow, X_MF, NO_ERROR);
	control = 0x037b;
	sdm("2A FSTENV");
	expect_done("fnstenv masks", &store_pending);
	check("  control word now", (MEM16(image) & 0x3f) | 0x300, 0x33b);
	control = 0x037b;
	expect_done("fdivs, zero-divide unmasked, fnstenv", &opcode_kept);
	sdm("1 8.1.9");
	check("  opcode", MEM16((uint32_t)image + 18) & 0x7ff, 0x035);

	/* without NE the error goes to the outside, as IRQ 13 of a PC; IGNNE is off, so the FPU waits for
	 * that */
	if (!on_tcg) { /* QEMU 7.2 stops on an assertion */
		set_cr0(get_cr0() & ~CR0_NE);
		outb(0xa0, 0x20);
		outb(0x20, 0x20);
		outb(0x21, 0xfb);
		outb(0xa1, 0xdf);
		in.eflags |= EFLAGS_IF;
		run(&zero_divide);
		sdm("3A 9.2.1");
		check("NE off: IRQ 13", out.vector, 0x2d);
		outb(0xf0, 0);
		outb(0xa0, 0x20);
		outb(0x20, 0x20);
		outb(0x21, 0xff);
		outb(0xa1, 0xff);
	}
	__asm__ volatile("fnclex");
	set_cr0((get_cr0() & ~CR0_MP) | CR0_NE);
	control = 0x037f;
	expect_done("all masked", &unmasked);
}

CODE(load_some, "fninit", "fldpi; fld1; fldz; flds memory");
CODE(save32, "", "fnsave image");
CODE(save16, "", ".byte 0x66; fnsave image");
CODE(env32, "", "fnstenv image");
CODE(env16, "", ".byte 0x66; fnstenv image");
CODE_THEN(restore32, "fninit", "frstor image", "fnstcw control; fnstsw %ax");
CODE_THEN(restore16, "fninit", ".byte 0x66; frstor image", "fnstcw control; fnstsw %ax");
CODE_THEN(restore_env, "fninit", "fldenv image", "fnstcw control; fnstsw %ax");

static void fill(void)
{
	memset(image, 0xa5, sizeof(image));
}

static uint32_t bytes_changed_from(uint32_t start)
{
	uint32_t last = start;

	for (uint32_t i = start; i < sizeof(image); i++)
		if (image[i] != 0xa5)
			last = i + 1;
	return last;
}

static void print_registers(const char *label, const uint8_t *registers, unsigned stride)
{
	print("%s", label);
	for (unsigned i = 0; i < 4; i++) {
		print(" ");
		for (int j = 9; j >= 0; j--)
			print("%02x", registers[i * stride + j]);
	}
	print("\n");
}

static void save_images(void)
{
	memory[0] = 0x40490fdb; /* pi as a float */
	run(&load_some);
	fill();
	expect_done("fnstenv, 32 bits", &env32);
	check("  size", bytes_changed_from(0), 28);
	check("  control", MEM16(image), 0x037f);
	check("  status", MEM16(image + 4), 0x2000);
	check("  tags", MEM16(image + 8), 0x04ff);
	fill();
	expect_done("fnstenv, 16 bits", &env16);
	check("  size", bytes_changed_from(0), 14);
	check("  control, status", MEM16(image) << 16 | MEM16(image + 2), 0x037f2000);
	check("  tags", MEM16(image + 4), 0x04ff);
	fill();
	expect_done("fnsave, 32 bits", &save32);
	check("  size", bytes_changed_from(0), 108);
	print_registers("  registers", image + 28, 10);
	check("  top", image[28 + 9] << 8 | image[28 + 8], 0x4000);
	expect_done("frstor, 32 bits", &restore32);
	check("  control, status", (uint32_t)control << 16 | (out.eax & 0xffff), 0x037f2000);
	fill();
	expect_done("fnsave, 16 bits", &save16);
	check("  size", bytes_changed_from(0), 94);
	print_registers("  registers", image + 14, 10);
	expect_done("frstor, 16 bits", &restore16);
	check("  control, status", (uint32_t)control << 16 | (out.eax & 0xffff), 0x037f2000);
	fill();
	run(&env32);
	MEM16(image) = 0x0c7f;
	MEM16(image + 4) = 0x3800;
	MEM16(image + 8) = 0xffff;
	expect_done("fldenv", &restore_env);
	check("  control, status", (uint32_t)(control & 0xff3f) << 16 | (out.eax & 0xffff), 0x0c3f3800);
	/* after fnsave the unit is as after fninit */
	run(&load_some);
	run(&save32);
	fill();
	run(&env32);
	check("after fnsave: control", MEM16(image), 0x37f);
	check("  status, tags", MEM16(image + 4) << 16 | MEM16(image + 8), 0xffff);
}

CODE_THEN(load_sse, "movups memory, %xmm0; movups memory, %xmm7; ldmxcsr mxcsr", "nop", "");
CODE_THEN(clobber, "fninit; xorps %xmm0, %xmm0; xorps %xmm7, %xmm7", "fxrstor image",
	  "fnstcw control; fnstsw %ax; movups %xmm7, memory; stmxcsr mxcsr");

static void fxsave_image(void)
{
	if (!cpu_has(CPUID_FXSR) || !cpu_has(CPUID_SSE)) {
		cpu_line();
		check("no FXSR or no SSE", 0, 0);
		return;
	}
	expect_fault("fxsave, not on 16 bytes", &fxsave_unaligned, X_GP, 0);
	memory[0] = 0x40490fdb;
	run(&load_some);
	memory[0] = 0x11111111;
	memory[1] = 0x22222222;
	memory[2] = 0x33333333;
	memory[3] = 0x44444444;
	mxcsr = 0x3f80;
	expect_done("load xmm0, xmm7, mxcsr", &load_sse);
	fill();
	expect_done("fxsave", &fxsave);
	check("  control, status", MEM32(image), 0x2000037f);
	check("  tags, a bit a register", image[4], 0xf0);
	check("  mxcsr", MEM32(image + 24), 0x3f80);
	check("  mxcsr mask, low bits", MEM32(image + 28) & 0xffbf, 0xffbf);
	print_registers("  registers", image + 32, 16);
	check("  xmm0", MEM32(image + 160) ^ MEM32(image + 172), 0x55555555);
	check("  xmm7", MEM32(image + 272) ^ MEM32(image + 284), 0x55555555);
	/* XMM8 to 15 exist in 64-bit mode only: their place is not written */
	uint32_t touched = 0;

	for (unsigned i = 288; i < 512; i++)
		touched += image[i] != 0xa5;
	check("  bytes written behind xmm7", touched, 0);
	expect_done("fxrstor", &clobber);
	check("  control, status", (uint32_t)control << 16 | (out.eax & 0xffff), 0x037f2000);
	check("  xmm7", memory[0] ^ memory[3], 0x55555555);
	check("  mxcsr", mxcsr, 0x3f80);
	MEM32(image + 24) = 0x80001f80;
	sdm("1 10.2.3");
	expect_fault("fxrstor, reserved mxcsr bit", &fxrstor, X_GP, 0);
	in.eax = 0x80001f80;
	sdm("1 10.2.3");
	expect_fault("ldmxcsr, reserved bit", &ldmxcsr, X_GP, 0);
	in.eax = 0x1f80;
	expect_done("ldmxcsr", &ldmxcsr);
	expect_fault("movaps, not on 16 bytes", &movaps_unaligned, X_GP, 0);
}

CODE_THEN(sse_divide, "ldmxcsr mxcsr; xorps %xmm0, %xmm0; movups memory, %xmm1", "divps %xmm0, %xmm1",
	  "stmxcsr mxcsr");

static void sse_exceptions(void)
{
	if (!cpu_has(CPUID_SSE))
		return;
	memory[0] = memory[1] = memory[2] = memory[3] = 0x3f800000;
	mxcsr = 0x1d80; /* zero-divide unmasked */
	sdm("1 11.5");	/* QEMU raises no SIMD exceptions */
	expect_fault("SSE zero-divide", &sse_divide, X_XM, NO_ERROR);
	mxcsr = 0x1d80;
	set_cr4(get_cr4() & ~CR4_OSXMMEXCPT);
	sdm("3A 2.5 OSXMMEXCPT");
	expect_fault("  without OSXMMEXCPT", &sse_divide, X_UD, NO_ERROR);
	mxcsr = 0x1f80;
	expect_done("  masked", &sse_divide);
	check("  mxcsr", mxcsr, 0x1f84);
	set_cr4(get_cr4() & ~CR4_OSFXSR);
	expect_fault("movups without OSFXSR", &movups, X_UD, NO_ERROR);
	expect_done("prefetch without OSFXSR", &prefetch);
	expect_done("sfence without OSFXSR", &sfence);
	set_cr4(get_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	mxcsr = 0x1f80;
}

/* MMX registers are the x87's: a write makes all tags valid, top 0, exponents all ones (SDM vol. 1 9.5). */
CODE_THEN(mmx, "fninit; fld1; movl $0x12345678, %eax", "movd %eax, %mm3", "fnsave image");
CODE_THEN(mmx_off, "movd %eax, %mm0", "emms", "fnstenv image");

static void mmx_state(void)
{
	fill();
	expect_done("MMX write", &mmx);
	check("  status", MEM16(image + 4) & 0x3800, 0);
	check("  tags valid", MEM16(image + 8) & 0xc0, 0x80);
	check("  mm3", MEM32(image + 28 + 30), 0x12345678);
	sdm("1 9.5.1");
	check("  its exponent", MEM16(image + 28 + 38), 0xffff);
	expect_done("emms", &mmx_off);
	check("  tags", MEM16(image + 8), 0xffff);
}

void test(void)
{
	set_cr4(get_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	set_cr0(get_cr0() | CR0_NE);
	__asm__ volatile("fninit");
	control_bits();
	__asm__ volatile("fninit");
	unmasked_exceptions();
	__asm__ volatile("fninit");
	save_images();
	fxsave_image();
	sse_exceptions();
	mmx_state();
}
