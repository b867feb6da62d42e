/*
 * Virtual-8086 mode (SDM vol. 3B 21.2, 21.3): addresses, what is sensitive to IOPL, what faults, interrupts
 * out of it, a small monitor that reflects INT n into it, and the mode extensions (VME, PVI) where CPUID
 * offers them. Programs lie at SEGMENT:0 and end with hlt, which is a #GP(0) there.
 */
#include "guest.h"

#define SEGMENT	   0x2000u
#define DATA	   0x3000u
#define STACK	   0x4000u
#define IOPL3	   EFLAGS_IOPL
#define OPCODE_HLT 0xf4u

/* A 16-bit program: code16 "text" assembled, copied to SEGMENT:0. */
#define PROGRAM(name, text)                                                                                  \
	__asm__(".pushsection .snippets, \"awx\"\n.balign 16\n" #name ":\n.code16\n" text                    \
		"\nhlt\n.code32\n" #name "_end:\n.popsection");                                              \
	extern const char name[], name##_end[]

static void load(const char *start, const char *end)
{
	memset((void *)(SEGMENT << 4), OPCODE_HLT, 256);
	memcpy((void *)(SEGMENT << 4), start, end - start);
	in.eflags = EFLAGS_VM | 2;
	in.cs = SEGMENT;
	in.ss = STACK;
	in.esp = 0x1000;
	in.v86_ds = in.v86_es = DATA;
	in.v86_fs = 0x3100;
	in.v86_gs = 0x3200;
}

static void go(uint32_t ip)
{
	struct snippet here = {(char *)ip, (char *)ip, (char *)ip};

	in.ds = in.es = in.fs = in.gs = KERNEL_DATA;
	run(&here);
}

static void expect_at(const char *label, uint32_t ip, unsigned vector, uint32_t error, uint32_t at)
{
	struct snippet here = {(char *)ip, (char *)at, (char *)at};

	in.ds = in.es = in.fs = in.gs = KERNEL_DATA;
	expect_vector(label, &here, vector, error, (void *)at);
}

static uint32_t opcode_at_ip(void)
{
	return MEM8((out.cs << 4) + (out.eip & 0xffff));
}

#define ENDS_WELL(label, name)                                                                               \
	do {                                                                                                 \
		go(0);                                                                                       \
		check(label, out.vector << 8 | opcode_at_ip(), X_GP << 8 | OPCODE_HLT);                      \
	} while (0)

PROGRAM(addressing,
	"movw $0x10, %bx; movl $0x12345678, (%bx); movw 2(%bx), %ax; movw $0x20, %bp; movw $0x55aa, (%bp);"
	"movw %es:0x10, %cx; movw %fs:0x10, %dx; movw %gs:0x10, %si; movw %cs:0, %di");
PROGRAM(far, "ljmp $0x2010, $0x20");
PROGRAM(far_target, "movw %cs, %ax; lcall $0x2000, $0x240");
PROGRAM(far_procedure, "movw %cs, %bx; popw %cx; popw %dx; pushw %dx; pushw %cx; lret");
PROGRAM(segment_loads,
	"movw $0x3456, %ax; movw %ax, %es; pushw $0x3100; popw %ds; movw 0x10, %bx; lesw 0x20, %cx; "
	"movw $0x4100, %ax; movw %ax, %ss; movw $0x800, %sp; pushw %ax");
PROGRAM(addr32, "movl $0x10, %ebx; movl (%ebx), %eax; movl $0x0000fffe, %ecx; movw (%ecx), %dx");
PROGRAM(limit, "movl $0x10000, %ebx; movb (%ebx), %al");
PROGRAM(limit_word, "movw $0xffff, %bx; movw (%bx), %ax");
PROGRAM(limit_stack, "movw $1, %sp; pushw %ax");
PROGRAM(flags_iopl3,
	"cli; pushfw; popw %ax; sti; pushfw; popw %bx; pushw $0x0002; popfw; pushfw; popw %cx; sti");
PROGRAM(iret_iopl3, "pushw $0x0202; pushw %cs; pushw $8; iretw; 1: nop; nop; nop");
PROGRAM(do_cli, "cli");
PROGRAM(do_sti, "sti");
PROGRAM(do_pushf, "pushfw");
PROGRAM(do_popf, "popfw");
PROGRAM(do_pushfd, "pushfl");
PROGRAM(do_popfd, "popfl");
PROGRAM(do_int, "int $0x60");
PROGRAM(do_iret, "iretw");
PROGRAM(do_int3, "int3");
PROGRAM(do_into, "movb $0x7f, %al; incb %al; into");
PROGRAM(do_mov_cr, "movl %cr0, %eax");
PROGRAM(do_lgdt, "lgdtl 0");
PROGRAM(do_clts, "clts");
PROGRAM(do_sldt, "sldt %ax");
PROGRAM(do_str, "str %ax");
PROGRAM(do_lar, "lar %ax, %ax");
PROGRAM(do_lsl, "lsl %ax, %ax");
PROGRAM(do_verr, "verr %ax");
PROGRAM(do_arpl, "arpl %ax, %ax");
PROGRAM(do_smsw, "smsw %ax");
PROGRAM(do_sgdt, "sgdtl 0x100");
PROGRAM(do_in, "inb $0xe0, %al");
PROGRAM(do_out, "outb %al, $0xe0");
PROGRAM(do_ud2, "ud2");
PROGRAM(do_div, "xorw %cx, %cx; divw %cx");
PROGRAM(do_div32, "xorl %ecx, %ecx; xorl %edx, %edx; divl %ecx");
PROGRAM(reflected, "movw $0x1111, %ax; int $0x21; movw %bx, %cx; int $0x60; movw %bx, %dx");
PROGRAM(handler21, "pushw %bp; movw %sp, %bp; movw 2(%bp), %si; movw 6(%bp), %di; popw %bp; movw %ax, %bx; "
		   "incw %bx; iretw");
PROGRAM(handler60, "movw $0x6060, %bx; iretw");
PROGRAM(string, "movw $0x100, %si; movw $0x200, %di; movw $8, %cx; cld; rep movsw");
PROGRAM(string_wrap, "movw $0xfffc, %di; movw $4, %cx; movw $0xabcd, %ax; cld; rep stosw");
PROGRAM(vif, "sti; pushfw; popw %ax; cli; pushfw; popw %bx; pushw $0x3202; popfw; pushfw; popw %cx");
PROGRAM(vip, "cli; nop; sti; nop");

PROGRAM(do_nops, "nop; nop");
PROGRAM(sti_nops, "sti; nop; nop; nop");
PROGRAM(popf_if, "pushw $0x0202; popfw; nop; nop");
PROGRAM(iret_if, "pushw $0x0202; pushw $0x2000; pushw $10; iretw; nop; nop; nop");
PROGRAM(loop, "1: jmp 1b");
PROGRAM(popf_tf, "pushw $0x0102; popfw");
PROGRAM(popf_vip, "pushw $0x0202; popfw");
PROGRAM(iret_vip, "pushw $0x0202; pushw $0x2000; pushw $10; iretw; nop; nop; nop");
PROGRAM(cli_only, "cli; pushfw; popw %ax");

#define OFFSET_OF_LAST(name, length) ((uint32_t)((name##_end) - (name)) - 1 - (length))

static void addresses(void)
{
	uint32_t data = DATA << 4, stack = STACK << 4;

	MEM16(data + 0x1010) = 0x1111;
	MEM16(data + 0x2010) = 0x2222;
	load(addressing, addressing_end);
	ENDS_WELL("addressing", addressing);
	check("  ax", out.eax & 0xffff, 0x1234);
	check("  ss:bp", MEM16(stack + 0x20), 0x55aa);
	check("  es fs", (out.ecx & 0xffff) << 16 | (out.edx & 0xffff), 0x56781111);
	check("  gs", out.esi & 0xffff, 0x2222);
	check("  cs:0", out.edi & 0xffff, MEM16(SEGMENT << 4));
	check("  ds es", out.v86_ds << 16 | out.v86_es, DATA << 16 | DATA);

	load(far, far_end);
	memcpy((void *)((SEGMENT << 4) + 0x120), far_target, far_target_end - far_target);
	memcpy((void *)((SEGMENT << 4) + 0x240), far_procedure, far_procedure_end - far_procedure);
	go(0);
	check("far jmp, call, ret", out.vector << 8 | opcode_at_ip(), X_GP << 8 | OPCODE_HLT);
	check("  cs", out.cs, 0x2010);
	check("  ax bx", (out.eax & 0xffff) << 16 | (out.ebx & 0xffff), 0x20102000);
	check("  pushed cs", out.edx & 0xffff, 0x2010);
	check("  pushed ip", out.ecx & 0xffff, out.eip & 0xffff);
	check("  sp", out.esp, 0x1000);

	MEM16(data + 0x1020) = 0x7777;
	MEM16(data + 0x1022) = 0x8888;
	load(segment_loads, segment_loads_end);
	ENDS_WELL("segment loads", segment_loads);
	check("  ds es", out.v86_ds << 16 | out.v86_es, 0x31008888);
	check("  bx cx", (out.ebx & 0xffff) << 16 | (out.ecx & 0xffff), 0x11117777);
	check("  ss sp", out.ss << 16 | (out.esp & 0xffff), 0x410007fe);
	check("  pushed", MEM16(0x417fe), 0x4100);

	MEM16(data + 0xfffe) = 0x9999;
	load(addr32, addr32_end);
	ENDS_WELL("32-bit addresses below 64 KiB", addr32);
	check("  eax", out.eax, 0x12345678);
	check("  dx", out.edx & 0xffff, 0x9999);
	load(limit, limit_end);
	sdm("3B 21.2.1");
	expect_at("above 64 KiB", 0, X_GP, 0, OFFSET_OF_LAST(limit, 3));
	load(limit_word, limit_word_end);
	sdm("3B 21.2.1");
	expect_at("word at ffff", 0, X_GP, 0, OFFSET_OF_LAST(limit_word, 2));
	load(limit_stack, limit_stack_end);
	sdm("3B 21.2.1");
	expect_at("push with sp 1", 0, X_SS, 0, OFFSET_OF_LAST(limit_stack, 1));

	for (uint32_t i = 0; i < 16; i++)
		MEM8(data + 0x100 + i) = i * 7;
	load(string, string_end);
	ENDS_WELL("rep movsw", string);
	check("  memory", memcmp((void *)(data + 0x100), (void *)(data + 0x200), 16), 0);
	check("  si di cx", (out.esi & 0xffff) << 16 | (out.edi & 0xffff) | (out.ecx & 0xffff), 0x01100210);
	load(string_wrap, string_wrap_end);
	ENDS_WELL("rep stosw around the segment", string_wrap);
	check("  di", out.edi & 0xffff, 4);
	check("  memory", MEM32(data + 0xfffc) ^ MEM32(data), 0);
}

static void iopl_sensitive(void)
{
	static const struct {
		const char *name;
		const char *start, *end;
	} sensitive[] = {
		{"cli", do_cli, do_cli_end},	      {"sti", do_sti, do_sti_end},
		{"pushf", do_pushf, do_pushf_end},    {"popf", do_popf, do_popf_end},
		{"pushfd", do_pushfd, do_pushfd_end}, {"popfd", do_popfd, do_popfd_end},
		{"int", do_int, do_int_end},	      {"iret", do_iret, do_iret_end},
	};

	set_default_gate(0x60, 3);
	for (unsigned i = 0; i < sizeof(sensitive) / sizeof(sensitive[0]); i++) {
		load(sensitive[i].start, sensitive[i].end);
		in.eflags |= 2 << 12;
		expect_at(sensitive[i].name, 0, X_GP, 0, 0);
		check("  esp", out.esp, 0x1000);
	}
	load(flags_iopl3, flags_iopl3_end);
	in.eflags |= IOPL3;
	ENDS_WELL("flags with IOPL 3", flags_iopl3);
	check("  after cli", out.eax & 0xffff, 0x3002);
	check("  after sti", out.ebx & 0xffff, 0x3202);
	check("  after popf of 2: IOPL stays", out.ecx & 0xffff, 0x3002);
	check("  eflags", out.eflags & (EFLAGS_VM | EFLAGS_IOPL | EFLAGS_IF),
	      EFLAGS_VM | EFLAGS_IOPL | EFLAGS_IF);
	load(iret_iopl3, iret_iopl3_end);
	in.eflags |= IOPL3;
	go(0);
	check("iret with IOPL 3", out.vector << 8 | opcode_at_ip(), X_GP << 8 | OPCODE_HLT);
	check("  eflags", out.eflags & (EFLAGS_VM | EFLAGS_IOPL | EFLAGS_IF),
	      EFLAGS_VM | EFLAGS_IOPL | EFLAGS_IF);
	check("  sp", out.esp, 0x1000);
	load(do_int, do_int_end);
	in.eflags |= IOPL3 | EFLAGS_CF;
	expect_at("int with IOPL 3", 0, 0x60, NO_ERROR, 2);
	check("  pushed segments", out.v86_es << 16 | out.v86_ds, DATA << 16 | DATA);
	check("  pushed fs gs", out.v86_fs << 16 | out.v86_gs, 0x31003200);
	check("  pushed ss sp", out.ss << 16 | out.esp, STACK << 16 | 0x1000);
	check("  ds in the handler", out.ds << 16 | out.gs, 0);
	set_default_gate(0x60, 0);
	load(do_int, do_int_end);
	in.eflags |= IOPL3;
	expect_at("int with IOPL 3, gate DPL 0", 0, X_GP, 0x60 * 8 + 2, 0);
	load(do_int3, do_int3_end);
	expect_at("int3 with IOPL 0", 0, X_BP, NO_ERROR, 1);
	load(do_into, do_into_end);
	expect_at("into with IOPL 0", 0, X_OF, NO_ERROR, OFFSET_OF_LAST(do_into, 0));
	/* interrupts out of v86 mode go to ring 0 or nowhere */
	idt[0x60] = gate(FREE_SELECTOR, 0, GATE_INT32 | SEG_DPL(3));
	set_segment(FREE_SELECTOR, 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_DPL(1));
	load(do_int, do_int_end);
	in.eflags |= IOPL3;
	sdm("2A INT n");
	expect_at("int to ring 1", 0, X_GP, FREE_SELECTOR, 0);
	set_segment(FREE_SELECTOR, 0, 0xfffff, SEG_CODE32 | SEG_G | SEG_CONFORMING);
	load(do_int, do_int_end);
	in.eflags |= IOPL3;
	expect_at("int to conforming ring 0 code", 0, X_GP, FREE_SELECTOR, 0);
	set_default_gate(0x60, 0);
}

__asm__(".text\nv86_sysenter_target: nop; int $0x30\n");
LABEL(v86_sysenter_target);

static void faults(void)
{
	static const struct {
		const char *name;
		const char *start, *end;
		unsigned vector;
	} cases[] = {
		{"mov cr0", do_mov_cr, do_mov_cr_end, X_GP},
		{"lgdt", do_lgdt, do_lgdt_end, X_GP},
		{"clts", do_clts, do_clts_end, X_GP},
		{"sldt", do_sldt, do_sldt_end, X_UD},
		{"str", do_str, do_str_end, X_UD},
		{"lar", do_lar, do_lar_end, X_UD},
		{"lsl", do_lsl, do_lsl_end, X_UD},
		{"verr", do_verr, do_verr_end, X_UD},
		{"arpl", do_arpl, do_arpl_end, X_UD},
		{"ud2", do_ud2, do_ud2_end, X_UD},
		{"in", do_in, do_in_end, X_GP},
		{"out", do_out, do_out_end, X_GP},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		load(cases[i].start, cases[i].end);
		in.eflags |= IOPL3; /* also for ports: the bitmap decides alone (21.3.2) */
		expect_at(cases[i].name, 0, cases[i].vector, cases[i].vector == X_GP ? 0 : NO_ERROR, 0);
	}
	load(do_div, do_div_end);
	expect_at("div", 0, X_DE, NO_ERROR, 2);
	load(do_div32, do_div32_end);
	expect_at("div, 32 bits", 0, X_DE, NO_ERROR, 6);
	load(do_smsw, do_smsw_end);
	ENDS_WELL("smsw", do_smsw);
	check("  ax", out.eax & 0xffff & ~CR0_ET, get_cr0() & 0xffff & ~CR0_ET);
	load(do_sgdt, do_sgdt_end);
	ENDS_WELL("sgdt", do_sgdt);
	check("  limit", MEM16((DATA << 4) + 0x100), gdtr.limit);
	tss.io_map = offsetof(struct tss, io_bitmap);
	memset(tss.io_bitmap, 0, 64);
	set_segment(MAIN_TSS, (uint32_t)&tss, offsetof(struct tss, io_bitmap) + 63, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));
	load(do_in, do_in_end);
	ENDS_WELL("in, allowed by the bitmap, IOPL 0", do_in);
	set_segment(MAIN_TSS, (uint32_t)&tss, offsetof(struct tss, io_bitmap) - 1, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));
	if (cpu_has(CPUID_SEP)) {
		PROGRAM(do_sysenter, "sysenter");
		write_msr(0x174, KERNEL_CODE);
		write_msr(0x175, RING0_STACK);
		write_msr(0x176, (uint32_t)v86_sysenter_target);
		load(do_sysenter, do_sysenter_end);
		go(0);
		check("sysenter out of v86 mode", out.vector, DONE_VECTOR);
		check("  cs, VM", out.cs | (out.eflags & EFLAGS_VM), KERNEL_CODE);
	}
}

/* A monitor in a few lines: int n and iret at IOPL 0 arrive as #GP and are done for the program. */
static void monitor(void)
{
	unsigned ints = 0, irets = 0;
	bool done = false;

	MEM16(0x21 * 4) = 0x80;
	MEM16(0x21 * 4 + 2) = SEGMENT;
	MEM16(0x60 * 4) = 0xc0;
	MEM16(0x60 * 4 + 2) = SEGMENT;
	load(reflected, reflected_end);
	memcpy((void *)((SEGMENT << 4) + 0x80), handler21, handler21_end - handler21);
	memcpy((void *)((SEGMENT << 4) + 0xc0), handler60, handler60_end - handler60);
	go(0);
	for (unsigned i = 0; i < 20 && !done && out.vector == X_GP; i++) {
		uint32_t code = (out.cs << 4) + out.eip, stack = out.ss << 4;

		in = out;
		switch (MEM8(code)) {
		case 0xcd:
			ints++;
			in.esp -= 6;
			MEM16(stack + in.esp + 4) = out.eflags;
			MEM16(stack + in.esp + 2) = out.cs;
			MEM16(stack + in.esp) = out.eip + 2;
			in.eip = MEM16(MEM8(code + 1) * 4);
			in.cs = MEM16(MEM8(code + 1) * 4 + 2);
			break;
		case 0xcf:
			irets++;
			in.eip = MEM16(stack + in.esp);
			in.cs = MEM16(stack + in.esp + 2);
			in.eflags = (in.eflags & 0xffff0000) | MEM16(stack + in.esp + 4);
			in.esp += 6;
			break;
		default:
			done = MEM8(code) == OPCODE_HLT;
			continue;
		}
		go(in.eip);
	}
	reset();
	check("monitor: program ended", done, true);
	check("  ints, irets", ints << 8 | irets, 0x202);
	check("  cx dx", (out.ecx & 0xffff) << 16 | (out.edx & 0xffff), 0x11126060);
	check("  what the handler saw", (out.esi & 0xffff) << 16 | (out.edi & 0xfcff & ~(EFLAGS_IOPL)),
	      5 << 16 | 2);
	check("  sp", out.esp, 0x1000);
}

/* Channel 0's request, waiting in the 8259 for IF. */
static void raise_irq0(void)
{
	outb(0x20, 0x20);
	outb(0x21, 0xfe);
	outb(0x43, 0x30);
	outb(0x40, 100);
	outb(0x40, 0);
	outb(0x20, 0x0a); /* OCW3: read the request register */
	while (!(inb(0x20) & 1))
		;
}

static void expect_irq0(const char *label, uint32_t at)
{
	raise_irq0();
	expect_at(label, 0, 0x20, NO_ERROR, at);
	outb(0x20, 0x20);
	outb(0x21, 0xff);
}

/* External interrupts leave the mode through the IDT, whoever may change IF (SDM vol. 3B 21.3.1). */
static void external(void)
{
	load(do_nops, do_nops_end);
	in.eflags |= EFLAGS_IF | EFLAGS_CF;
	expect_irq0("interrupt, IF on at entry, IOPL 0", 0);
	check("  eflags pushed", out.eflags & (EFLAGS_VM | EFLAGS_IF | EFLAGS_IOPL | EFLAGS_CF),
	      EFLAGS_VM | EFLAGS_IF | EFLAGS_CF);
	check("  pushed cs ss", out.cs << 16 | out.ss, SEGMENT << 16 | STACK);
	check("  pushed sp", out.esp, 0x1000);
	check("  pushed es ds", out.v86_es << 16 | out.v86_ds, DATA << 16 | DATA);
	check("  pushed fs gs", out.v86_fs << 16 | out.v86_gs, 0x31003200);
	check("  ds gs in the handler", out.ds << 16 | out.gs, 0);
	load(sti_nops, sti_nops_end);
	in.eflags |= IOPL3;
	expect_irq0("interrupt after sti; nop, IOPL 3", 2);
	load(popf_if, popf_if_end);
	in.eflags |= IOPL3;
	expect_irq0("interrupt after popf, IOPL 3", 4);
	load(iret_if, iret_if_end);
	in.eflags |= IOPL3;
	expect_irq0("interrupt after iret, IOPL 3", 10);
	check("  sp", out.esp, 0x1000);
	raise_irq0();
	load(do_nops, do_nops_end);
	ENDS_WELL("not taken with IF off", do_nops);
	outb(0x20, 0x0c); /* poll mode acknowledges */
	inb(0x20);
	outb(0x20, 0x20);
	load(loop, loop_end);
	in.eflags |= EFLAGS_IF;
	outb(0x21, 0xfe);
	outb(0x43, 0x30);
	outb(0x40, 0);
	outb(0x40, 0x20);
	expect_at("interrupt out of a loop", 0, 0x20, NO_ERROR, 0);
	outb(0x20, 0x20);
	outb(0x21, 0xff);
}

/* SDM vol. 3B 21.3: the interrupt redirection bitmap lies before the I/O map; IF's part is played by VIF. */
static void extensions(void)
{
	uint8_t *redirection = tss.io_bitmap;

	if (!cpu_has(CPUID_VME)) {
		cpu_line();
		check("no VME", 0, 0);
		return;
	}
	set_cr4(get_cr4() | CR4_VME);
	memset(tss.io_bitmap, 0, 64);
	tss.io_map = offsetof(struct tss, io_bitmap) + 32;
	set_segment(MAIN_TSS, (uint32_t)&tss, offsetof(struct tss, io_bitmap) + 63, SEG_TSS32);
	__asm__ volatile("ltr %w0" : : "r"(MAIN_TSS));

	cpu_line();
	load(reflected, reflected_end);
	memcpy((void *)((SEGMENT << 4) + 0x80), handler21, handler21_end - handler21);
	memcpy((void *)((SEGMENT << 4) + 0xc0), handler60, handler60_end - handler60);
	MEM16(0x60 * 4) = 0xc0;
	MEM16(0x60 * 4 + 2) = SEGMENT;
	ENDS_WELL("VME: int redirected, IOPL 0", reflected);
	cpu_line();
	check("  cx dx", (out.ecx & 0xffff) << 16 | (out.edx & 0xffff), 0x11126060);
	cpu_line();
	check("  pushed IOPL reads 3", out.edi & EFLAGS_IOPL, EFLAGS_IOPL);
	redirection[0x60 / 8] = 1 << (0x60 % 8);
	load(do_int, do_int_end);
	cpu_line();
	expect_at("VME: int not redirected, IOPL 0", 0, X_GP, 0, 0);
	load(do_int, do_int_end);
	in.eflags |= IOPL3;
	set_default_gate(0x60, 3);
	cpu_line();
	expect_at("VME: int not redirected, IOPL 3", 0, 0x60, NO_ERROR, 2);
	set_default_gate(0x60, 0);
	redirection[0x60 / 8] = 0;

	cpu_line();
	load(vif, vif_end);
	ENDS_WELL("VME: sti, cli, popf on VIF", vif);
	cpu_line();
	check("  after sti", out.eax & 0xffff, 0x3202);
	cpu_line();
	check("  after cli", out.ebx & 0xffff, 0x3002);
	cpu_line();
	check("  after popf", out.ecx & 0xffff, 0x3202);
	cpu_line();
	check("  VIF and IF", out.eflags & (EFLAGS_VIF | EFLAGS_IF), EFLAGS_VIF);
	load(vip, vip_end);
	in.eflags |= EFLAGS_VIP;
	cpu_line();
	expect_at("VME: sti with VIP", 0, X_GP, 0, 2);
	load(do_pushfd, do_pushfd_end);
	cpu_line();
	expect_at("VME: pushfd", 0, X_GP, 0, 0);

	/* 21.3.3.4 and POPF, IRET in vol. 2: TF, or IF while VIP is set, make a #GP; IF itself stays out of
	 * reach */
	load(popf_tf, popf_tf_end);
	cpu_line();
	expect_at("VME: popf with TF", 0, X_GP, 0, 3);
	load(popf_vip, popf_vip_end);
	in.eflags |= EFLAGS_VIP;
	cpu_line();
	expect_at("VME: popf with IF, VIP set", 0, X_GP, 0, 3);
	cpu_line();
	check("  sp", out.esp, 0x1000 - 2);
	load(iret_vip, iret_vip_end);
	in.eflags |= EFLAGS_VIP;
	cpu_line();
	expect_at("VME: iret with IF, VIP set", 0, X_GP, 0, 8);
	load(iret_vip, iret_vip_end);
	go(0);
	cpu_line();
	check("VME: iret with IF", out.eflags & (EFLAGS_VIF | EFLAGS_IF), EFLAGS_VIF);
	load(cli_only, cli_only_end);
	in.eflags |= EFLAGS_VIF;
	go(0);
	cpu_line();
	check("VME: cli takes VIF away", out.eflags & (EFLAGS_VIF | EFLAGS_IF), 0);
	load(cli_only, cli_only_end);
	in.eflags |= EFLAGS_VIF | IOPL3;
	go(0);
	cpu_line();
	check("VME: with IOPL 3 cli is IF's", out.eflags & (EFLAGS_VIF | EFLAGS_IF), EFLAGS_VIF);
	load(do_nops, do_nops_end);
	in.eflags |= EFLAGS_IF;
	cpu_line();
	expect_irq0("VME: interrupt, VIF off, IF on", 0);
	cpu_line();
	check("  VIF and IF pushed", out.eflags & (EFLAGS_VIF | EFLAGS_IF), EFLAGS_IF);
	/* the bitmap is found 32 bytes below the I/O map; beyond the limit there is none: #GP (21.3.3.1) */
	load(do_int, do_int_end);
	tss.io_map = offsetof(struct tss, io_bitmap) + 64 + 64;
	cpu_line();
	expect_at("VME: int, redirection bitmap beyond the limit", 0, X_GP, 0, 0);
	tss.io_map = offsetof(struct tss, io_bitmap) + 32;
	set_cr4(get_cr4() & ~CR4_VME);

	/* PVI: the same for protected-mode code at CPL 3, cli and sti only */
	CODE_THEN(pvi, "sti; pushfl; popl %eax", "cli", "pushfl; popl %ebx");
	CODE(pvi_sti, "", "sti");
	set_cr4(get_cr4() | CR4_PVI);
	user_mode();
	cpu_line();
	expect_done("PVI: sti, cli at cpl 3", &pvi);
	cpu_line();
	check("  after sti", out.eax & (EFLAGS_IF | EFLAGS_VIF), EFLAGS_VIF);
	cpu_line();
	check("  after cli", out.ebx & (EFLAGS_IF | EFLAGS_VIF), 0);
	user_mode();
	in.eflags |= EFLAGS_VIP;
	cpu_line();
	expect_fault("PVI: sti with VIP", &pvi_sti, X_GP, 0);
	/* popf, pushf and iret know nothing of PVI (SDM vol. 3B 21.4) */
	CODE_THEN(pvi_popf, "pushl $0x202", "popfl", "pushfl; popl %eax");
	user_mode();
	cpu_line();
	expect_done("PVI: popf leaves both", &pvi_popf);
	cpu_line();
	check("  IF and VIF", out.eax & (EFLAGS_IF | EFLAGS_VIF), 0);
	user_mode();
	in.eflags |= EFLAGS_IOPL;
	cpu_line();
	expect_done("PVI, IOPL 3: sti is IF's", &pvi_sti);
	cpu_line();
	check("  IF and VIF", out.eflags & (EFLAGS_IF | EFLAGS_VIF), EFLAGS_IF);
	set_cr4(get_cr4() & ~CR4_PVI);
}

void test(void)
{
	addresses();
	iopl_sensitive();
	faults();
	monitor();
	external();
	extensions();
}
