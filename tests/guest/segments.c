/*
 * Segmentation that means something: bases, limits, types, sizes (SDM vol. 3A 5.3 to 5.5). QEMU checks
 * neither limits nor the type of the segment an access goes through, hence the many sdm lines.
 */
#include "guest.h"

/* All at DPL 3, so that a stack fault at CPL 3 is delivered on a good stack. */
#define SEL(n)	     (FREE_SELECTOR + 8 * (n) + 3)
#define SEL_BYTES    SEL(0) /* 4 KiB at AREA */
#define SEL_PAGES    SEL(1) /* the same, limit in pages */
#define SEL_DOWN     SEL(2) /* expand-down, 1000..ffffffff */
#define SEL_DOWN16   SEL(3) /* expand-down, 1000..ffff */
#define SEL_READONLY SEL(4)
#define SEL_EXECONLY SEL(5)
#define SEL_READCODE SEL(6)
#define SEL_HIGH     SEL(7)  /* base ffffff00 */
#define SEL_NEGATIVE SEL(8)  /* base AREA + 100, limit 4 GiB */
#define SEL_CODE     SEL(9)  /* code at AREA + 2000, 4 KiB */
#define SEL_STACK16  SEL(10) /* 16-bit stack, 64 KiB at STACK16 */
#define SEL_CHANGING SEL(11)
#define SEL_LDT	     (FREE_SELECTOR + 8 * 12)
#define SEL_SMALLSS  SEL(13) /* stack of 4 KiB at AREA */
#define SEL_CODE4G   SEL(14) /* code with the base of SEL_CODE and no limit */
#define IN_LDT(n)    (8 * (n) + 7)

#define AREA	     0x00400000u
#define STACK16	     0x00410000u

CODE(read, "", "movl (%ebx), %eax");
CODE(read_byte, "", "movb (%ebx), %al");
CODE(read_word, "", "movw (%ebx), %ax");
CODE(write, "", "movl %eax, (%ebx)");
CODE(write_byte, "", "movb %al, (%ebx)");
CODE(add, "", "addl %eax, (%ebx)");
CODE(read_es, "", "movl %es:(%ebx), %eax");
CODE(read_fs, "", "movl %fs:(%ebx), %eax");
CODE(read_gs, "", "movl %gs:(%ebx), %eax");
CODE(write_gs, "", "movl %eax, %gs:(%ebx)");
CODE(read_cs, "", "movl %cs:(%ebx), %eax");
CODE(write_cs, "", "movl %eax, %cs:(%ebx)");
CODE(read_ss, "", "movl %ss:(%ebx), %eax");
CODE(read_ebp, "", "movl (%ebp), %eax");
CODE(read_ebp_index, "", "movl (%ebp,%ebx), %eax");
CODE(read_ebp_ds, "", "movl %ds:(%ebp), %eax");
CODE(read_esp, "", "movl (%esp), %eax");
CODE(lea, "", "leal %gs:0x10(%ebx), %eax");
CODE(push, "movl %edi, %esp", "pushl %eax");
CODE(push_word, "movl %edi, %esp", "pushw %ax");
CODE(pop, "movl %edi, %esp", "popl %eax");
CODE(pusha, "movl %edi, %esp", "pushal");
CODE(popa, "movl %edi, %esp", "popal");
CODE(enter, "movl %edi, %esp", "enter $16, $0");
CODE(leave, "movl %edi, %esp", "leave");
CODE(movs, "cld", "rep movsl");
CODE(movs_fs, "cld", "rep movsl %fs:(%esi), %es:(%edi)");
CODE(stos, "cld", "rep stosl");
CODE(lods, "cld", "lodsl");
CODE(scas, "cld", "repne scasb");
CODE(cmps, "cld", "repe cmpsl");
CODE(xlat, "", "xlat");
CODE(xlat_gs, "", "xlat %gs:(%ebx)");
CODE(moffs_gs, "", "movl %gs:0xfffffff0, %eax");
CODE(fld_ds, "", "fldl (%ebx)");
CODE(bound_, "movl $1, %eax", "bound %eax, (%ebx)");
CODE(addr16, "movl $0x1111fff0, %ebx; movl $0x22220020, %esi", "movl %gs:0x10(%bx,%si), %eax");
CODE(addr16_bp, "movl $0x33330040, %ebp", "movl 0x10(%bp), %eax");
CODE(jmp_far_memory, "", "ljmp *far_target");
CODE(call_far_memory, "", "lcall *far_target");
CODE(les_, "", "les (%ebx), %eax");
CODE(load_fs, "", "movl %eax, %fs");
CODE(lldt, "", "lldt %ax");
CODE(reload, "movl %eax, %fs; movl $0x00000000, %ecx; movl %ecx, gdt_changing + 2", "movl %fs:0x20, %eax");

uint32_t far_target[2];
extern char runner_stack[] __asm__("stack_top");

static void in_ds(uint32_t selector, uint32_t offset)
{
	user_mode();
	in.ds = selector;
	in.ebx = offset;
	in.eax = 0x5eed0000 + offset;
}

/* QEMU lets accesses through that should have faulted, so the area is filled anew before every group. */
static void fill(void)
{
	for (uint32_t i = 0; i < 0x20000; i += 4)
		MEM32(AREA + i) = 0xa0000000 + i;
}

/* One access of each size around an offset; the limit is a byte's. */
static void limit_checks(const char *name, uint32_t selector, uint32_t last)
{
	fill();
	print("%s\n", name);
	in_ds(selector, last - 3);
	expect_done("  last dword", &read);
	check("    eax", out.eax, MEM32(AREA + last - 3));
	in_ds(selector, last - 3);
	expect_done("  last dword, write", &write);
	check("    memory", MEM32(AREA + last - 3), 0x5eed0000 + last - 3);
	in_ds(selector, last);
	expect_done("  last byte", &read_byte);
	for (uint32_t over = 1; over < 4; over++) {
		in_ds(selector, last - 3 + over);
		sdm("3A 5.3");
		expect_fault("  dword across the limit", &read, X_GP, 0);
		in_ds(selector, last - 3 + over);
		sdm("3A 5.3");
		expect_fault("    write", &write, X_GP, 0);
		in_ds(selector, last - 3 + over);
		sdm("3A 5.3");
		expect_fault("    add", &add, X_GP, 0);
	}
	in_ds(selector, last);
	sdm("3A 5.3");
	expect_fault("  word across the limit", &read_word, X_GP, 0);
	in_ds(selector, last + 1);
	sdm("3A 5.3");
	expect_fault("  byte after the limit", &read_byte, X_GP, 0);
	in_ds(selector, last + 1);
	sdm("3A 5.3");
	expect_fault("    write", &write_byte, X_GP, 0);
	in_ds(selector, last - 6);
	sdm("3A 5.3");
	expect_fault("  fld of 8 across the limit", &fld_ds, X_GP, 0);
	in_ds(selector, last - 6);
	sdm("3A 5.3");
	expect_fault("  bound across the limit", &bound_, X_GP, 0);
}

static void expand_down(void)
{
	fill();
	in_ds(SEL_DOWN, 0x1000);
	expect_done("expand-down: first dword", &read);
	check("  eax", out.eax, MEM32(AREA + 0x1000));
	in_ds(SEL_DOWN, 0x300000);
	expect_done("expand-down: far above", &read);
	for (uint32_t below = 1; below <= 4; below++) {
		in_ds(SEL_DOWN, 0x1000 - below);
		sdm("3A 5.3");
		expect_fault("expand-down: below", &read, X_GP, 0);
	}
	in_ds(SEL_DOWN, 0);
	sdm("3A 5.3");
	expect_fault("expand-down: 0", &write_byte, X_GP, 0);
	in_ds(SEL_DOWN16, 0xfffc);
	expect_done("expand-down, 16-bit: last dword", &read);
	in_ds(SEL_DOWN16, 0xfffd);
	sdm("3A 5.3");
	expect_fault("expand-down, 16-bit: across ffff", &read, X_GP, 0);
	in_ds(SEL_DOWN16, 0x10000);
	sdm("3A 5.3");
	expect_fault("expand-down, 16-bit: 10000", &read_byte, X_GP, 0);
	in_ds(SEL_DOWN16, 0xfff);
	sdm("3A 5.3");
	expect_fault("expand-down, 16-bit: below", &read_byte, X_GP, 0);
}

static void types(void)
{
	in_ds(SEL_READONLY, 0x10);
	expect_done("read-only: read", &read);
	in_ds(SEL_READONLY, 0x10);
	sdm("3A 5.5");
	expect_fault("read-only: write", &write, X_GP, 0);
	in_ds(SEL_READONLY, 0x10);
	sdm("3A 5.5");
	expect_fault("read-only: add", &add, X_GP, 0);
	in_ds(SEL_READCODE, 0x10);
	expect_done("readable code in ds: read", &read);
	in_ds(SEL_READCODE, 0x10);
	sdm("3A 5.5");
	expect_fault("readable code in ds: write", &write, X_GP, 0);
	user_mode();
	in.ebx = AREA;
	expect_done("through cs: read", &read_cs);
	user_mode();
	in.ebx = AREA;
	sdm("3A 5.5");
	expect_fault("through cs: write", &write_cs, X_GP, 0);
	user_mode();
	in.cs = SEL_EXECONLY;
	in.ebx = AREA;
	sdm("3A 5.5");
	expect_fault("through execute-only cs: read", &read_cs, X_GP, 0);

	static const struct {
		const char *name;
		const struct snippet *code;
	} null[] = {{"null ds", &read},
		    {"null es", &read_es},
		    {"null fs", &read_fs},
		    {"null gs", &read_gs},
		    {"null gs, write", &write_gs}};

	for (unsigned i = 0; i < sizeof(null) / sizeof(null[0]); i++) {
		user_mode();
		in.ds = in.es = in.fs = in.gs = i & 1 ? 3 : 0;
		in.ebx = AREA;
		sdm("3A 3.4.2");
		expect_fault(null[i].name, null[i].code, X_GP, 0);
	}
}

static void bases(void)
{
	fill();
	user_mode();
	in.gs = SEL_HIGH;
	in.ebx = AREA + 0x100 + 0x40;
	expect_done("base ffffff00, wrapping", &read_gs);
	check("  eax", out.eax, 0xa0000040);
	user_mode();
	in.gs = SEL_NEGATIVE;
	in.ebx = 0xffffff80;
	expect_done("negative offset", &read_gs);
	check("  eax", out.eax, 0xa0000080);
	user_mode();
	in.gs = SEL_NEGATIVE;
	expect_done("negative offset, moffs", &moffs_gs);
	check("  eax", out.eax, 0xa00000f0);
	user_mode();
	in.gs = SEL_NEGATIVE;
	in.ebx = 0xfffffff4;
	in.eax = 0x11;
	expect_done("negative offset, write", &write_gs);
	check("  memory", MEM32(AREA + 0xf4), 0x11);
	MEM32(AREA + 0xf4) = 0xa00000f4;
	user_mode();
	in.gs = SEL_NEGATIVE;
	in.ebx = 0x20;
	expect_done("lea takes no base", &lea);
	check("  eax", out.eax, 0x30);
	user_mode();
	in.gs = SEL_NEGATIVE;
	expect_done("16-bit addressing wraps", &addr16);
	check("  eax", out.eax, 0xa0000120);
	user_mode();
	in.ss = SEL_SMALLSS;
	in.esp = 0x800;
	expect_done("16-bit addressing, bp: ss", &addr16_bp);
	check("  eax", out.eax, 0xa0000050);
	user_mode();
	in.gs = SEL_NEGATIVE;
	in.ebx = 0x100;
	in.eax = 4;
	expect_done("xlat with gs", &xlat_gs);
	check("  al", out.eax & 0xff, 0x04);
	user_mode();
	in.ds = SEL_BYTES;
	in.ebx = 0x200;
	in.eax = 8;
	expect_done("xlat", &xlat);
	check("  al", out.eax & 0xff, 0x08);

	/* which segment an address takes by default */
	user_mode();
	in.ss = SEL_SMALLSS;
	in.ds = SEL_NEGATIVE;
	in.esp = 0x800;
	in.ebp = 0x40;
	expect_done("(ebp): ss", &read_ebp);
	check("  eax", out.eax, 0xa0000040);
	user_mode();
	in.ss = SEL_SMALLSS;
	in.ds = SEL_NEGATIVE;
	in.esp = 0x800;
	in.ebp = 0x40;
	in.ebx = 0x10;
	expect_done("(ebp,ebx): ss", &read_ebp_index);
	check("  eax", out.eax, 0xa0000050);
	user_mode();
	in.ss = SEL_SMALLSS;
	in.ds = SEL_NEGATIVE;
	in.esp = 0x800;
	in.ebp = 0x40;
	expect_done("ds:(ebp)", &read_ebp_ds);
	check("  eax", out.eax, 0xa0000140);
	user_mode();
	in.ss = SEL_SMALLSS;
	in.ds = SEL_NEGATIVE;
	in.esp = 0x800;
	expect_done("(esp): ss", &read_esp);
	check("  eax", out.eax, 0xa0000800);
	user_mode();
	in.ss = SEL_SMALLSS;
	in.ds = SEL_NEGATIVE;
	in.esp = 0x800;
	in.ebx = 0x44;
	expect_done("ss:(ebx)", &read_ss);
	check("  eax", out.eax, 0xa0000044);
}

static void strings(void)
{
	/* source and destination segments of their own; the destination can't be overridden */
	user_mode();
	in.ds = SEL_BYTES;
	in.es = SEL_NEGATIVE;
	in.esi = 0x10;
	in.edi = 0x2f00;
	in.ecx = 4;
	expect_done("rep movsl, ds to es", &movs);
	check("  memory", MEM32(AREA + 0x3000 + 12), 0xa000001c);
	check("  esi", out.esi, 0x20);
	check("  edi", out.edi, 0x2f10);
	user_mode();
	in.fs = SEL_NEGATIVE;
	in.esi = 0xffffff20;
	in.edi = AREA + 0x3000;
	in.ecx = 4;
	expect_done("rep movsl, fs to es", &movs_fs);
	check("  memory", MEM32(AREA + 0x3000), 0xa0000020);
	user_mode();
	in.ds = SEL_BYTES;
	in.esi = 0x44;
	expect_done("lodsl", &lods);
	check("  eax", out.eax, 0xa0000044);

	/* limits in mid-repeat: everything before the offending round has happened */
	user_mode();
	in.ds = SEL_BYTES;
	in.esi = 0xff8;
	in.edi = AREA + 0x3000;
	in.ecx = 8;
	sdm("3A 5.3");
	expect_fault("rep movsl into the limit", &movs, X_GP, 0);
	sdm("3A 5.3");
	check("  ecx", out.ecx, 6);
	sdm("3A 5.3");
	check("  esi", out.esi, 0x1000);
	user_mode();
	in.es = SEL_BYTES;
	in.edi = 0xff0;
	in.eax = 0x77777777;
	in.ecx = 8;
	sdm("3A 5.3");
	expect_fault("rep stosl into the limit", &stos, X_GP, 0);
	sdm("3A 5.3");
	check("  ecx", out.ecx, 4);
	check("  last", MEM32(AREA + 0xffc), 0x77777777);
	user_mode();
	in.es = SEL_BYTES;
	in.edi = 0xff0;
	in.eax = 0x55;
	in.ecx = 0x20;
	sdm("3A 5.3");
	expect_fault("repne scasb into the limit", &scas, X_GP, 0);
	sdm("3A 5.3");
	check("  ecx", out.ecx, 0x10);
	user_mode();
	in.ds = SEL_BYTES;
	in.es = SEL_BYTES;
	in.esi = in.edi = 0xff0;
	in.ecx = 8;
	sdm("3A 5.3");
	expect_fault("repe cmpsl into the limit", &cmps, X_GP, 0);
	fill();
}

static void stack_at(uint32_t selector, uint32_t esp)
{
	user_mode();
	in.ss = selector;
	in.esp = in.edi = esp; /* iret loads sp only where the stack is a 16-bit one */
	in.eax = 0xfeedbeef;
}

static void stacks(void)
{
	fill();
	stack_at(SEL_SMALLSS, 0x1000);
	expect_done("push at the limit", &push);
	check("  memory", MEM32(AREA + 0xffc), 0xfeedbeef);
	stack_at(SEL_SMALLSS, 0x1001);
	sdm("3A 5.3");
	expect_fault("push across the limit", &push, X_SS, 0);
	sdm("3A 5.3");
	check("  esp", out.esp, 0x1001);
	stack_at(SEL_SMALLSS, 0xffd);
	sdm("3A 5.3");
	expect_fault("pop across the limit", &pop, X_SS, 0);
	sdm("3A 5.3");
	check("  esp", out.esp, 0xffd);
	stack_at(SEL_SMALLSS, 0xff0);
	sdm("3A 5.3");
	expect_fault("popa across the limit", &popa, X_SS, 0);
	stack_at(SEL_SMALLSS, 0x1010);
	sdm("3A 5.3");
	expect_fault("pusha across the limit", &pusha, X_SS, 0);
	stack_at(SEL_SMALLSS, 0x1008);
	sdm("3A 5.3");
	expect_fault("enter across the limit", &enter, X_SS, 0);
	stack_at(SEL_SMALLSS, 0x100);
	in.ebp = 0xffe;
	sdm("3A 5.3");
	expect_fault("leave across the limit", &leave, X_SS, 0);
	sdm("3A 5.3");
	check("  ebp", out.ebp, 0xffe);
	stack_at(SEL_SMALLSS, 0x100);
	in.ebp = 0x1000;
	sdm("3A 5.3");
	expect_fault("(ebp) after the limit: #SS", &read_ebp, X_SS, 0);
	stack_at(SEL_SMALLSS, 0x100);
	in.ebx = 0x1000;
	sdm("3A 5.3");
	expect_fault("ss:(ebx) after the limit: #SS", &read_ss, X_SS, 0);

	/* known as the reason for Linux's espfix; the manual's pseudo code has it the other way */
	user_mode();
	in.ss = SEL_STACK16;
	in.esp = 0x12340010;
	in.ebx = 0;
	expect_done("16-bit stack: iret to it", &read_ss);
	check("  esp, upper half of ring 0's", out.esp, ((uint32_t)runner_stack & 0xffff0000) | 0x10);

	/* a 16-bit stack: sp moves, the upper half of esp stays, and 0 wraps to the top */
	stack_at(SEL_STACK16, 0x12340010);
	expect_done("16-bit stack: push", &push);
	check("  esp", out.esp, 0x1234000c);
	check("  memory", MEM32(STACK16 + 0xc), 0xfeedbeef);
	stack_at(SEL_STACK16, 0x12340000);
	expect_done("16-bit stack: push at 0", &push);
	check("  esp", out.esp, 0x1234fffc);
	check("  memory", MEM32(STACK16 + 0xfffc), 0xfeedbeef);
	stack_at(SEL_STACK16, 0x12340000);
	expect_done("16-bit stack: push word at 0", &push_word);
	check("  esp", out.esp, 0x1234fffe);
	check("  memory", MEM16(STACK16 + 0xfffe), 0xbeef);
	MEM32(STACK16 + 0xfffc) = 0x87654321;
	stack_at(SEL_STACK16, 0x1234fffc);
	expect_done("16-bit stack: pop at the top", &pop);
	check("  esp", out.esp, 0x12340000);
	check("  eax", out.eax, 0x87654321);
	stack_at(SEL_STACK16, 0x12340100);
	in.ebp = 0x56780200;
	expect_done("16-bit stack: enter", &enter);
	check("  esp", out.esp & 0xffff, 0xec);
	check("  memory", MEM32(STACK16 + 0xfc), 0x56780200);
	MEM32(STACK16 + 0x200) = 0x99;
	stack_at(SEL_STACK16, 0x12340100);
	in.ebp = 0x56780200;
	expect_done("16-bit stack: leave", &leave);
	check("  esp", out.esp, 0x12340204);
	check("  ebp", out.ebp, 0x99);
	stack_at(SEL_STACK16, 0x12340100);
	expect_done("16-bit stack: pusha", &pusha);
	check("  esp", out.esp, 0x123400e0);
	stack_at(SEL_DOWN, 0x1004);
	expect_done("expand-down stack: last push", &push);
	stack_at(SEL_DOWN, 0x1003);
	sdm("3A 5.3");
	expect_fault("expand-down stack: one too many", &push, X_SS, 0);
}

/* A code segment with a base and a limit; its snippet is copied to where it lies. */
static void code_segments(void)
{
	static const uint8_t code[] = {
		0xe8, 0x02, 0x00, 0x00, 0x00,	    /* call +2 */
		0xcd, 0x30,			    /* int 30 */
		0x8b, 0x04, 0x24,		    /* mov eax, [esp] */
		0x2e, 0x8b, 0x1d, 0,	0,    0, 0, /* mov ebx, cs:[0] */
		0xc3,
	};
	uint32_t base = AREA + 0x2000, offset = 0x100;

	memcpy((void *)(base + offset), code, sizeof(code));
	MEM32(base) = 0xc0de;
	far_target[0] = offset;
	far_target[1] = SEL_CODE;
	user_mode();
	expect_vector("jmp to code with a base", &jmp_far_memory, DONE_VECTOR, NO_ERROR,
		      (void *)(offset + 7));
	check("  cs", out.cs, SEL_CODE);
	check("  return address", out.eax, offset + 5);
	check("  cs:0", out.ebx, 0xc0de);
	user_mode();
	expect_vector("far call to code with a base", &call_far_memory, DONE_VECTOR, NO_ERROR,
		      (void *)(offset + 7));
	check("  cs pushed", MEM32(USER_STACK - 4) & 0xffff, USER_CODE);

	/* jumps beyond the limit fault before they leave; falling off the end faults in the fetch */
	far_target[0] = 0x1000;
	user_mode();
	sdm("2A JMP");
	expect_fault("far jmp beyond the limit", &jmp_far_memory, X_GP, 0);
	user_mode();
	sdm("2A CALL");
	expect_fault("far call beyond the limit", &call_far_memory, X_GP, 0);
	sdm("2A CALL");
	check("  esp", out.esp, USER_STACK);

	static const struct {
		const char *name;
		uint8_t code[6];
		uint32_t at, fault;
	} near[] = {
		{"jmp beyond the limit", {0xe9, 0xfb, 0x0e, 0, 0}, 0x100, 0x100},
		{"jmp short beyond the limit", {0xeb, 0x10}, 0xff8, 0xff8},
		{"call beyond the limit", {0xe8, 0xfb, 0x0e, 0, 0}, 0x100, 0x100},
		{"jcc beyond the limit", {0x0f, 0x84, 0xfa, 0x0e, 0, 0}, 0x100, 0x100},
		{"jmp indirect beyond the limit", {0xff, 0xe1}, 0x100, 0x100},
		{"ret beyond the limit", {0x51, 0xc3}, 0x100, 0x101},
		{"off the end", {0x90, 0x90}, 0xffe, 0x1000},
		{"instruction across the end", {0x90, 0xb8}, 0xffe, 0xfff},
		{"loop beyond the limit", {0xe2, 0x10}, 0xff8, 0xff8},
	};

	for (unsigned i = 0; i < sizeof(near) / sizeof(near[0]); i++) {
		/* what QEMU runs into instead */
		memset((void *)(base + 0x1000), 0xcc, 0x40);
		memcpy((void *)(base + near[i].at), near[i].code, i == 6 || i == 7 ? 2 : 6);
		user_mode();
		in.cs = SEL_CODE;
		in.eflags |= EFLAGS_ZF;
		in.ecx = 0x1000;

		const struct snippet there = {(char *)near[i].at, (char *)near[i].at, (char *)near[i].at};

		sdm("3A 5.3");
		expect_vector(near[i].name, &there, X_GP, 0, (void *)near[i].fault);
		sdm("3A 5.3");
		check("  esp", out.esp, near[i].fault == 0x101 ? USER_STACK - 4 : USER_STACK);
	}
	/* the same without a limit */
	memcpy((void *)(base + 0x1000), code, sizeof(code));
	MEM8(base + 0xffe) = 0x90;
	MEM8(base + 0xfff) = 0x90;
	user_mode();
	in.cs = SEL_CODE4G;

	const struct snippet end = {(char *)0xffe, (char *)0x1000, (char *)0x1007};

	expect_trap("without a limit", &end, DONE_VECTOR, NO_ERROR);
	check("  return address", out.eax, 0x1005);
}

/* Segment registers keep what they loaded, whatever becomes of the table (SDM vol. 3A 3.4.3). */
LABEL(gdt_changing);
__asm__(".set gdt_changing, gdt + 0x30 + 8 * 11\n.globl gdt_changing");
static void descriptor_cache(void)
{
	static uint64_t ldt[4] __attribute__((aligned(8)));

	set_segment(SEL_CHANGING, AREA, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(3));
	in.eax = SEL_CHANGING;
	expect_done("descriptor rewritten after the load", &reload);
	check("  the old base", out.eax, 0xa0000020);
	MEM32(0x20 + AREA + 0x100) = 0xbbbb;
	set_segment(SEL_CHANGING, AREA + 0x100, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(3));
	in.fs = SEL_CHANGING;
	in.ebx = 0x20;
	expect_done("loaded again", &read_fs);
	check("  the new base", out.eax, 0xbbbb);
	MEM32(0x20 + AREA + 0x100) = 0xa0000120;
	check("accessed bit set by the load", gdt[SEL_CHANGING / 8] >> 40 & 1, 1);
	gdt[SEL_CHANGING / 8] &= ~(1ull << 40);
	in.eax = SEL_CHANGING;
	expect_done("load again", &load_fs);
	check("  accessed", gdt[SEL_CHANGING / 8] >> 40 & 0xff, 0xf3);

	ldt[1] = segment(AREA, 0xfff, SEG_DATA32 | SEG_DPL(3));
	ldt[2] = segment(AREA + 0x100, 0xfff, SEG_DATA32 | SEG_DPL(3));
	set_segment(SEL_LDT, (uint32_t)ldt, 23, SEG_LDT);
	in.eax = SEL_LDT;
	expect_done("lldt", &lldt);
	user_mode();
	in.fs = IN_LDT(1);
	in.gs = IN_LDT(2);
	in.ebx = 0x20;
	expect_done("fs from the LDT", &read_fs);
	check("  eax", out.eax, 0xa0000020);
	check("  accessed", ldt[1] >> 40 & 1, 1);
	user_mode();
	in.fs = IN_LDT(1);
	in.gs = IN_LDT(2);
	in.ebx = 0x20;
	expect_done("gs from the LDT", &read_gs);
	check("  eax", out.eax, 0xa0000120);
	in.eax = IN_LDT(3);
	expect_fault("beyond the LDT's limit", &load_fs, X_GP, IN_LDT(3) & ~3);
	in.eax = IN_LDT(0);
	expect_fault("empty entry 0 of the LDT is no null selector", &load_fs, X_GP, IN_LDT(0) & ~3);
	user_mode();
	in.ebx = AREA + 0x40;
	MEM32(AREA + 0x40) = 0x1234;
	MEM16(AREA + 0x44) = IN_LDT(1);
	expect_done("les", &les_);
	check("  es", out.es, IN_LDT(1));
	check("  eax", out.eax, 0x1234);
	in.eax = SEL_BYTES & ~3;
	expect_fault("lldt, data segment", &lldt, X_GP, SEL_BYTES & ~3);
	in.eax = IN_LDT(1) & ~3;
	expect_fault("lldt, selector in the LDT", &lldt, X_GP, IN_LDT(1) & ~3);
	gdt[SEL_LDT / 8] &= ~((uint64_t)SEG_PRESENT << 32);
	in.eax = SEL_LDT;
	expect_fault("lldt, not present", &lldt, X_NP, SEL_LDT);
	in.fs = 0;
	in.eax = IN_LDT(1);
	expect_done("the LDT stays in use", &load_fs);
	in.eax = 0;
	expect_done("lldt, null", &lldt);
	in.eax = IN_LDT(1);
	expect_fault("no LDT", &load_fs, X_GP, IN_LDT(1) & ~3);
}

void test(void)
{
	__asm__ volatile("fninit");
	fill();
	set_segment(SEL_BYTES, AREA, 0xfff, SEG_DATA32 | SEG_DPL(3));
	set_segment(SEL_PAGES, AREA, 0, SEG_DATA32 | SEG_G | SEG_DPL(3));
	set_segment(SEL_DOWN, AREA, 0xfff, SEG_DATA32 | SEG_EXPAND_DOWN | SEG_DPL(3));
	set_segment(SEL_DOWN16, AREA, 0xfff, SEG_DATA16 | SEG_EXPAND_DOWN | SEG_DPL(3));
	set_segment(SEL_READONLY, AREA, 0xfff, (SEG_DATA32 | SEG_DPL(3)) & ~SEG_WRITABLE);
	set_segment(SEL_EXECONLY, 0, 0xfffff, (SEG_CODE32 | SEG_G | SEG_DPL(3)) & ~SEG_WRITABLE);
	set_segment(SEL_READCODE, AREA, 0xfff, SEG_CODE32 | SEG_DPL(3));
	set_segment(SEL_HIGH, 0xffffff00, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(3));
	set_segment(SEL_NEGATIVE, AREA + 0x100, 0xfffff, SEG_DATA32 | SEG_G | SEG_DPL(3));
	set_segment(SEL_CODE, AREA + 0x2000, 0xfff, SEG_CODE32 | SEG_DPL(3));
	set_segment(SEL_CODE4G, AREA + 0x2000, 0xfffff, SEG_CODE32 | SEG_G | SEG_DPL(3));
	set_segment(SEL_STACK16, STACK16, 0xffff, SEG_DATA16 | SEG_DPL(3));
	set_segment(SEL_SMALLSS, AREA, 0xfff, SEG_DATA32 | SEG_DPL(3));

	limit_checks("limit in bytes", SEL_BYTES, 0xfff);
	limit_checks("limit in pages", SEL_PAGES, 0xfff);
	set_segment(SEL_BYTES, AREA, 0x12, SEG_DATA32 | SEG_DPL(3));
	limit_checks("limit in mid-page", SEL_BYTES, 0x12);
	set_segment(SEL_BYTES, AREA, 0xfff, SEG_DATA32 | SEG_DPL(3));
	expand_down();
	types();
	bases();
	strings();
	stacks();
	code_segments();
	descriptor_cache();
}
