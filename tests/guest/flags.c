/*
 * popf, pushf, cli, sti and the I/O instructions at every CPL and IOPL (SDM vol. 2B POPF table 4-21, vol. 1
 * 18.5): what changes silently, what stays silently, what faults.
 */
#include "guest.h"

#define RING_CODE(n) ((n) == 0 ? KERNEL_CODE : (n) == 3 ? USER_CODE : FREE_SELECTOR + ((n)-1) * 16u + (n))
#define RING_DATA(n) ((n) == 0 ? KERNEL_DATA : (n) == 3 ? USER_DATA : FREE_SELECTOR + 8 + ((n)-1) * 16u + (n))

#define ALL                                                                                                  \
	(EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_IF | EFLAGS_DF | EFLAGS_OF |     \
	 EFLAGS_IOPL | EFLAGS_NT | EFLAGS_AC | EFLAGS_ID)

CODE_THEN(popfl, "pushl %eax", "popfl", "pushfl; popl %ecx");
CODE_THEN(popfw, "pushw %ax", "popfw", "pushfl; popl %ecx");
CODE(pushfw, "movl $-1, (%esp); pushl %eax; popfl", "pushfw");
CODE_THEN(cli, "", "cli", "pushfl; popl %ecx");
CODE_THEN(sti, "", "sti", "pushfl; popl %ecx");
CODE(in_byte, "", "inb $0xe0, %al");
CODE(out_byte, "", "outb %al, $0xe0");
CODE(in_word, "", "inw $0xe0, %ax");
CODE(in_dword, "", "inl $0xe0, %eax");
CODE(outsb, "movl $in, %esi; movl $0xe0, %edx; movl $2, %ecx", "rep outsb");
CODE(lahf, "movb $0xff, %ah; sahf; movb $0, %ah", "lahf");
CODE(sahf, "movb $0, %ah", "sahf");

static void at_ring(unsigned ring)
{
	in.cs = RING_CODE(ring);
	in.ds = in.es = in.fs = in.gs = in.ss = RING_DATA(ring);
	in.esp = ring ? USER_STACK : SNIPPET_STACK;
}

/* The flags that popf may change at this level. */
static uint32_t changeable(unsigned cpl, unsigned iopl)
{
	uint32_t mask = ALL;

	if (cpl > 0)
		mask &= ~EFLAGS_IOPL;
	if (cpl > iopl)
		mask &= ~EFLAGS_IF;
	return mask;
}

static void popf_at(unsigned cpl, unsigned iopl)
{
	uint32_t mask = changeable(cpl, iopl), before;

	print("cpl %u iopl %u ", cpl, iopl);
	at_ring(cpl);
	before = in.eflags = 2 | iopl << 12;
	in.eax = 0xffffffff & ~EFLAGS_TF;
	expect_done("popfl, all on", &popfl);
	check("  eflags", out.ecx, (before & ~mask) | mask);
	check("  the same inside", out.eflags & ~EFLAGS_RF, out.ecx);
	at_ring(cpl);
	before = in.eflags = (ALL & ~EFLAGS_IOPL) | 2 | iopl << 12;
	in.eax = 0;
	expect_done("  popfl, all off", &popfl);
	check("  eflags", out.ecx, before & ~mask);
	at_ring(cpl);
	before = in.eflags = 2 | iopl << 12 | EFLAGS_AC;
	in.eax = 0xffff & ~EFLAGS_TF;
	expect_done("  popfw, all on", &popfw);
	check("  eflags", out.ecx, (before & ~(mask & 0xffff)) | (mask & 0xffff));
}

static void cli_sti_at(unsigned cpl, unsigned iopl)
{
	print("cpl %u iopl %u ", cpl, iopl);
	at_ring(cpl);
	in.eflags = 2 | iopl << 12 | EFLAGS_IF;
	if (cpl > iopl) {
		expect_fault("cli", &cli, X_GP, 0);
	} else {
		expect_done("cli", &cli);
		check("  IF", out.ecx & EFLAGS_IF, 0);
	}
	at_ring(cpl);
	in.eflags = 2 | iopl << 12;
	if (cpl > iopl) {
		expect_fault("  sti", &sti, X_GP, 0);
	} else {
		expect_done("  sti", &sti);
		check("  IF", out.ecx & EFLAGS_IF, EFLAGS_IF);
	}
	at_ring(cpl);
	in.eflags = 2 | iopl << 12;
	if (cpl > iopl)
		expect_fault("  in", &in_byte, X_GP, 0);
	else
		expect_done("  in", &in_byte);
}

/* With IOPL too low the TSS's bitmap decides, a bit a port, all ports of the access (SDM vol. 1 18.5.2). */
static void io_bitmap(void)
{
	static const struct {
		const char *name;
		const struct snippet *code;
		uint8_t bits; /* of ports e0 to e7 */
		bool refused;
	} cases[] = {
		{"in, allowed", &in_byte, 0xfe, false},
		{"in, refused", &in_byte, 0x01, true},
		{"out, allowed", &out_byte, 0xfe, false},
		{"out, refused", &out_byte, 0x01, true},
		{"in word, allowed", &in_word, 0xfc, false},
		{"in word, second refused", &in_word, 0x02, true},
		{"in dword, allowed", &in_dword, 0xf0, false},
		{"in dword, last refused", &in_dword, 0x08, true},
		{"rep outsb, refused", &outsb, 0x01, true},
		{"rep outsb, allowed", &outsb, 0xfe, false},
	};

	set_segment(MAIN_TSS, (uint32_t)&tss, offsetof(struct tss, io_bitmap) + 0x20, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));
	memset(tss.io_bitmap, 0xff, sizeof(tss.io_bitmap));
	tss.io_map = offsetof(struct tss, io_bitmap);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		tss.io_bitmap[0xe0 / 8] = cases[i].bits;
		user_mode();
		if (cases[i].refused)
			expect_fault(cases[i].name, cases[i].code, X_GP, 0);
		else
			expect_done(cases[i].name, cases[i].code);
	}
	/* two bytes are read, so the last byte of the map must be followed by one more inside the limit */
	tss.io_bitmap[0xe0 / 8] = 0;
	set_segment(MAIN_TSS, (uint32_t)&tss, offsetof(struct tss, io_bitmap) + 0xe0 / 8, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));
	user_mode();
	expect_fault("in, the map ends with this byte", &in_byte, X_GP, 0);
	set_segment(MAIN_TSS, (uint32_t)&tss, offsetof(struct tss, io_bitmap) + 0xe0 / 8 + 1, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));
	user_mode();
	expect_done("in, one byte more", &in_byte);
	tss.io_map = 0xffff;
	user_mode();
	expect_fault("in, map beyond the limit", &in_byte, X_GP, 0);
	expect_done("in, cpl 0", &in_byte);
}

void test(void)
{
	for (unsigned ring = 1; ring <= 2; ring++) {
		set_segment(RING_CODE(ring), 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_DPL(ring));
		set_segment(RING_DATA(ring), 0, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(ring));
	}
	for (unsigned cpl = 0; cpl < 4; cpl++)
		for (unsigned iopl = 0; iopl < 4; iopl++)
			popf_at(cpl, iopl);
	for (unsigned cpl = 0; cpl < 4; cpl++)
		for (unsigned iopl = 0; iopl < 4; iopl++)
			cli_sti_at(cpl, iopl);

	in.eax = EFLAGS_CF | EFLAGS_DF;
	expect_done("pushfw", &pushfw);
	check("  esp", out.esp, SNIPPET_STACK - 2);
	check("  word", MEM16(SNIPPET_STACK - 2), EFLAGS_CF | EFLAGS_DF | 2);
	expect_done("lahf", &lahf);
	check("  ah", out.eax >> 8 & 0xff, 0xd7);
	in.eflags |= EFLAGS_OF | EFLAGS_DF | EFLAGS_CF;
	expect_done("sahf", &sahf);
	check("  eflags", out.eflags & ALL, EFLAGS_OF | EFLAGS_DF);
	io_bitmap();
}
