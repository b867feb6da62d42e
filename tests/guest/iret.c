/* iret in every direction but a nested task's (tasks.c), and from it the flags (SDM vol. 2A IRET). */
#include "guest.h"

#define SEL_CODE1      (FREE_SELECTOR + 0x00)
#define SEL_DATA1      (FREE_SELECTOR + 0x08)
#define SEL_NPCODE     (FREE_SELECTOR + 0x10)
#define SEL_NPDATA3    (FREE_SELECTOR + 0x18)
#define SEL_CONFORMING (FREE_SELECTOR + 0x20)
#define SEL_CODE16     (FREE_SELECTOR + 0x28)

#define V86_SEGMENT    0x2000u /* code and stack of the virtual-8086 target */
#define FLAGS_SEEN                                                                                           \
	(EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_IF | EFLAGS_DF | EFLAGS_OF |     \
	 EFLAGS_IOPL | EFLAGS_NT | EFLAGS_VM | EFLAGS_AC | EFLAGS_ID)

CODE(stop, "", "nop");
CODE(iretd, "", "iretl");
CODE(iretw, "", "iretw");
CODE(iretd_ds,
     "movl $0x10, %ecx; movl %ecx, %ds; movl %ecx, %fs; movl $0x23, %ecx; movl %ecx, %es; xorl %ecx, %ecx; "
     "movl %ecx, %gs",
     "iretl");

static uint32_t esp;

static void push32(uint32_t value)
{
	esp -= 4;
	MEM32(esp) = value;
}

static void push16(uint16_t value)
{
	esp -= 2;
	MEM16(esp) = value;
}

/* The frame for a 32-bit iret; ss and esp are there whether it uses them or not. */
static void frame(uint32_t cs, uint32_t eflags, uint32_t ss)
{
	esp = in.esp;
	push32(ss);
	push32(USER_STACK);
	push32(eflags);
	push32(cs);
	push32((uint32_t)stop.start);
	in.esp = esp;
}

static void refusals(void)
{
	static const struct {
		const char *name;
		uint32_t cs, ss, vector, error;
	} bad[] = {
		{"null cs", 0, USER_DATA, X_GP, 0},
		{"data segment", KERNEL_DATA, USER_DATA, X_GP, KERNEL_DATA},
		{"beyond the GDT", 0xff8, USER_DATA, X_GP, 0xff8},
		{"cs not present", SEL_NPCODE, USER_DATA, X_NP, SEL_NPCODE},
		{"RPL 3 to a DPL 0 segment", KERNEL_CODE | 3, USER_DATA, X_GP, KERNEL_CODE},
		{"RPL 0 to a DPL 3 segment", USER_CODE & ~3, USER_DATA, X_GP, USER_CODE & ~3},
		{"to ring 3, null ss", USER_CODE, 0, X_GP, 0},
		{"to ring 3, null ss with RPL", USER_CODE, 3, X_GP, 0},
		{"to ring 3, ss DPL 0", USER_CODE, KERNEL_DATA | 3, X_GP, KERNEL_DATA},
		{"to ring 3, ss RPL 0", USER_CODE, USER_DATA & ~3, X_GP, USER_DATA & ~3},
		{"to ring 3, ss is code", USER_CODE, USER_CODE, X_GP, USER_CODE & ~3},
		{"to ring 3, ss not present", USER_CODE, SEL_NPDATA3 | 3, X_SS, SEL_NPDATA3},
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		frame(bad[i].cs, 2, bad[i].ss);
		if (bad[i].vector == X_SS)
			sdm("2A IRET");
		expect_fault(bad[i].name, &iretd, bad[i].vector, bad[i].error);
		check("  esp", out.esp, SNIPPET_STACK - 20);
	}
	user_mode();
	frame(KERNEL_CODE, 2, 0);
	expect_fault("cpl 3 inwards", &iretd, X_GP, KERNEL_CODE);
}

static void directions(void)
{
	frame(KERNEL_CODE, 2, 0);
	expect_done("ring 0 to 0", &iretd);
	check("  esp", out.esp, SNIPPET_STACK - 8);
	frame(USER_CODE, 2, USER_DATA);
	expect_done("ring 0 to 3", &iretd);
	check("  cs", out.cs, USER_CODE);
	check("  ss", out.ss, USER_DATA);
	check("  esp", out.esp, USER_STACK);
	frame(SEL_CODE1 | 1, 2, SEL_DATA1 | 1);
	expect_done("ring 0 to 1", &iretd);
	check("  cs", out.cs, SEL_CODE1 | 1);
	frame(SEL_CONFORMING | 3, 2, USER_DATA);
	expect_done("ring 0 to conforming code at 3", &iretd);
	check("  cs", out.cs, SEL_CONFORMING | 3);
	user_mode();
	frame(USER_CODE, 2, 0);
	expect_done("ring 3 to 3", &iretd);
	check("  esp", out.esp, USER_STACK - 8);
	in.cs = SEL_CODE1 | 1;
	in.ss = in.ds = in.es = in.fs = in.gs = SEL_DATA1 | 1;
	frame(USER_CODE, 2, USER_DATA);
	expect_done("ring 1 to 3", &iretd);
	check("  cs", out.cs, USER_CODE);
	check("  ds, of ring 1", out.ds, 0);
	frame(USER_CODE, 2, USER_DATA);
	expect_done("data segments on the way out", &iretd_ds);
	check("  ds, of ring 0", out.ds, 0);
	check("  fs, of ring 0", out.fs, 0);
	check("  es, of ring 3", out.es, USER_DATA);
	check("  gs, null", out.gs, 0);
}

/* iretw: ip, cs, flags of 16 bits each; the upper half of eflags stays, eip's is cleared. */
static void sixteen_bits(void)
{
	memcpy((void *)0x8000, stop.start, 16);
	esp = SNIPPET_STACK;
	push16(0xffff & ~(EFLAGS_TF | EFLAGS_IF | EFLAGS_NT));
	push16(KERNEL_CODE);
	push16(0x8000);
	in.esp = esp;
	in.eflags |= EFLAGS_AC | EFLAGS_ID;
	expect_vector("iretw in ring 0", &iretw, DONE_VECTOR, NO_ERROR,
		      (void *)(0x8000 + stop.after - stop.start + 2));
	check("  esp", out.esp, SNIPPET_STACK);
	check("  eflags", out.eflags & FLAGS_SEEN,
	      EFLAGS_AC | EFLAGS_ID | (0xffff & FLAGS_SEEN & ~(EFLAGS_IF | EFLAGS_NT)));
	esp = SNIPPET_STACK;
	push16(USER_DATA);
	push16(0x9000);
	push16(EFLAGS_CF | 2);
	push16(USER_CODE);
	push16(0x8000);
	in.esp = esp;
	expect_vector("iretw to ring 3", &iretw, DONE_VECTOR, NO_ERROR,
		      (void *)(0x8000 + stop.after - stop.start + 2));
	check("  sp", out.esp & 0xffff, 0x9000);
	check("  cs", out.cs, USER_CODE);
	check("  eflags", out.eflags & FLAGS_SEEN, EFLAGS_CF);
}

/* Which flags iret changes, by CPL and IOPL. All off before, all on in the frame, and the reverse. */
static void flags(void)
{
	uint32_t all = FLAGS_SEEN & ~(EFLAGS_VM | EFLAGS_NT); /* NT is followed before anything is popped */

	for (uint32_t iopl = 0; iopl < 4; iopl++) {
		for (unsigned user = 0; user < 2; user++) {
			uint32_t fixed = user ? EFLAGS_IOPL | (iopl < 3 ? EFLAGS_IF : 0) : 0;

			if (user)
				user_mode();
			in.eflags = 2 | iopl << 12;
			frame(user ? USER_CODE : KERNEL_CODE, all, 0);
			print("iopl %u, ", iopl);
			expect_done(user ? "cpl 3, all on" : "cpl 0, all on", &iretd);
			check("  eflags", out.eflags & FLAGS_SEEN, (all & ~fixed) | (fixed & iopl << 12));
			if (user)
				user_mode();
			in.eflags = (all & ~EFLAGS_IOPL) | iopl << 12 | 2;
			frame(user ? USER_CODE : KERNEL_CODE, 2, 0);
			expect_done("  all off", &iretd);
			check("  eflags", out.eflags & FLAGS_SEEN, fixed & (EFLAGS_IF | iopl << 12));
		}
	}
	user_mode();
	frame(USER_CODE, EFLAGS_VM | 2, 0);
	sdm("2A IRET");
	expect_done("VM in the frame at cpl 3 is ignored", &iretd);
	sdm("2A IRET");
	check("  eflags", out.eflags & EFLAGS_VM, 0);
	frame(USER_CODE, EFLAGS_IF | EFLAGS_IOPL | 2, USER_DATA);
	expect_done("ring 0 to 3 with IF and IOPL", &iretd);
	check("  eflags", out.eflags & FLAGS_SEEN, EFLAGS_IF | EFLAGS_IOPL);
}

/* To virtual-8086 mode: eip, cs, eflags, esp, ss, es, ds, fs, gs; segments are paragraphs there. */
static void to_v86(void)
{
	memcpy((void *)(V86_SEGMENT << 4), stop.start, 16);
	esp = SNIPPET_STACK;
	push32(0x6000);
	push32(0x5000);
	push32(0x4000);
	push32(0x3000);
	push32(V86_SEGMENT);
	push32(0xfff0);
	push32(EFLAGS_VM | EFLAGS_IOPL | EFLAGS_IF | EFLAGS_CF | 2);
	push32(V86_SEGMENT);
	push32(0);
	in.esp = esp;
	run(&iretd);
	check("ring 0 to v86, vector", out.vector, DONE_VECTOR);
	check("  cs", out.cs, V86_SEGMENT);
	check("  ip", out.eip, stop.after - stop.start + 2);
	check("  ss", out.ss, V86_SEGMENT);
	check("  sp", out.esp, 0xfff0);
	check("  es", out.v86_es & 0xffff, 0x3000);
	check("  ds", out.v86_ds & 0xffff, 0x4000);
	check("  fs", out.v86_fs & 0xffff, 0x5000);
	check("  gs", out.v86_gs & 0xffff, 0x6000);
	check("  eflags", out.eflags & FLAGS_SEEN, EFLAGS_VM | EFLAGS_IOPL | EFLAGS_IF | EFLAGS_CF);
	check("  ds inside the handler", out.ds, 0);
	check("  gs inside the handler", out.gs, 0);
}

void test(void)
{
	set_segment(SEL_CODE1, 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_DPL(1));
	set_segment(SEL_DATA1, 0, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(1));
	set_segment(SEL_NPCODE, 0, 0xfffff, (SEG_CODE32 | SEG_G) & ~SEG_PRESENT);
	set_segment(SEL_NPDATA3, 0, 0xfffff, (SEG_DATA32 | SEG_G | SEG_DPL(3)) & ~SEG_PRESENT);
	set_segment(SEL_CONFORMING, 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_CONFORMING);

	refusals();
	directions();
	sixteen_bits();
	flags();
	to_v86();
}
