/* 16-bit code in protected mode, and 16-bit operands and addresses in 32-bit code (SDM vol. 3A 22). */
#include "guest.h"

#define SEL_CODE   (FREE_SELECTOR + 0x00 + 3)
#define SEL_DATA   (FREE_SELECTOR + 0x08 + 3)
#define SEL_STACK  (FREE_SELECTOR + 0x10 + 3)
#define SEL_DATA_2 (FREE_SELECTOR + 0x18 + 3)

#define CODE_AT	   0x20000u
#define DATA_AT	   0x30000u
#define STACK_AT   0x40000u
#define DATA_2_AT  0x50000u

/* 16-bit code that lies at an offset of its segment; ends with int 0x30. */
#define CODE16(name, text)                                                                                   \
	__asm__(".pushsection .snippets, \"awx\"\n.balign 16\n" #name ":\n.code16\n" text                    \
		"\nint $0x30\n.code32\n" #name "_end:\n.popsection");                                        \
	extern const char name[], name##_end[]

static void run16(const char *label, const char *start, const char *end, uint32_t at, bool user)
{
	struct snippet here = {(char *)at, (char *)at, (char *)at};

	memcpy((void *)(CODE_AT + at), start, end - start);
	if (user)
		user_mode();
	in.cs = user ? SEL_CODE : (SEL_CODE & ~3) + 0x20;
	in.ds = SEL_DATA;
	in.es = SEL_DATA_2;
	in.ss = user ? SEL_STACK : (SEL_STACK & ~3) + 0x18;
	in.esp = 0x1000;
	in.ebp = 0x56780000;
	expect_done(label, &here);
}

#define RUN16(label, name, at, user) run16(label, name, name##_end, at, user)

CODE16(forms, "movw $0x100, %bx; movw $0x200, %bp; movw $0x10, %si; movw $0x20, %di; xorl %eax, %eax;"
	      "addw (%bx,%si), %ax; addw (%bx,%di), %ax; addw (%bp,%si), %ax; addw (%bp,%di), %ax;"
	      "addw (%si), %ax; addw (%di), %ax; addw 0x300, %ax; addw (%bx), %ax;"
	      "addw 4(%bx,%si), %ax; addw 0x1000(%bx,%di), %ax; addw -2(%bp,%si), %ax; addw 0x40(%bp), %ax;"
	      "addw -16(%si), %ax; addw 0x800(%di), %ax; addw 0x7f(%bx), %ax");
CODE16(wrap, "movw $0xfff0, %bx; movw $0x20, %si; movw (%bx,%si), %ax; movw 0x20(%bx), %cx; leaw "
	     "0x30(%bx,%si), %dx");
CODE16(lea32, "movl $0x12345678, %ebx; leaw (%bx), %ax; leal (%bx), %ecx; leaw 1(%ebx), %dx; leal "
	      "1(%ebx,%ebx), %esi");
CODE16(stack,
       "pushw $0x1122; pushl $0x33445566; pushw %sp; popw %ax; popl %ebx; popw %cx; pushw $-1; popw %dx; "
       "movl $0xaaaa5555, %esi; pushw %si; pushl %esi; popw %di; popl %esi");
CODE16(pushes, "pushaw; movw %sp, %ax; pushal; movw %sp, %bx; pushw %ds; pushl %es; movw %sp, %cx; popl %es; "
	       "popw %ds; "
	       "popal; movw %sp, %dx");
CODE16(frames, "enterw $8, $0; movw %bp, %ax; movw %sp, %bx; leavew; movw %sp, %cx; movl %ebp, %edx; movw "
	       "$0xff0, %bp;"
	       "enterw $2, $3; movw %sp, %si; leavew");
CODE16(calls, "xorl %eax, %eax; callw 1f; movw $2f - calls + 0x100, %bx; callw *%bx; jmp 3f; 1: movw %sp, "
	      "%cx; incw %ax; retw;"
	      "2: addw $0x10, %ax; pushw $7; addw $2, %sp; retw; 3: pushw %cs; callw 4f; jmp 5f; 4: lretw; "
	      "5: movw %sp, %dx");
CODE16(loops, "movl $0xffff0003, %ecx; xorl %eax, %eax; 1: incw %ax; loop 1b; jcxz 2f; ud2; 2: jecxz 3f; "
	      "movl $2, %ecx;"
	      "4: incw %ax; addr32 loop 4b; 3: nop");
CODE16(sources,
       "movw $0x10, %si; movw $0x40, %di; movw $4, %cx; cld; rep movsw; movl $0x10, %esi; movl $0x60, %edi;"
       "movl $2, %ecx; addr32 rep movsl");
CODE16(string_wrap, "movw $0xfffc, %si; movw $0x80, %di; movw $4, %cx; cld; rep movsw");
CODE16(operand32,
       "movl $0x80000001, %eax; addl %eax, %eax; adcl $0, %eax; movw $0xffff, %bx; addw $1, %bx; setc %dl;"
       "cwde; movw $0x8000, %ax; cwtl; movl %eax, %ecx; movw $0x8000, %ax; cwtd; movzbl %dl, %esi");
CODE16(div16,
       "movw $1, %dx; movw $0x2345, %ax; movw $0x1000, %bx; divw %bx; movl $-1, %ecx; movw $0x1234, %cx");
CODE16(flags16, "pushw $0x0cd7; popfw; pushfw; popw %ax; pushfl; popl %ebx; pushw $2; popfw");
CODE16(far16, "lcallw *0x70; movw %sp, %dx; jmp 1f; .org far16 + 0x40; movw %sp, %cx; lretw; 1: nop");
CODE16(bound16, "movw $5, %ax; boundw %ax, 0x90; movl $5, %eax; boundl %eax, 0x98");
CODE16(jumps32, "movl $0x2f0, %eax; jmpl *%eax; ud2");
CODE16(to_top, "xorl %ebx, %ebx; movw $0xfff0, %ax; jmp *%ax");
CODE16(land, "movw $0xbeef, %bx");

/* 16-bit operand size on control transfers in 32-bit code: eip is cut to 16 bits */
CODE(jmp16, "xorl %eax, %eax", ".byte 0x66, 0xe9; .word 0x10");
CODE(ret16, "pushw $0x8000", "retw");
CODE(call16, "", ".byte 0x66, 0xff, 0xd0");
CODE_THEN(addr16, "movl $0x12348000, %ebx; movl $0x10010, %esi; movl $0xdead0000, %ecx",
	  "movl (%bx,%si), %eax", "leal (%bx,%si), %edx; movw $2, %cx; 1: addr16 loop 1b");
CODE_THEN(string16, "movl $0x12348000, %esi; movl $0x12348100, %edi; movl $0x55550004, %ecx; cld",
	  "addr16 rep movsb", "addr16 lodsb");
CODE_THEN(jcxz, "movl $0x10000, %ecx; xorl %eax, %eax",
	  "jcxz 1f; incl %eax; 1:", "jecxz 2f; addl $0x10, %eax; 2:");
CODE_THEN(push16, "movl $0x11223344, %eax", "pushw %ax; pushw $0x55; pushw %ds; popw %cx; popw %dx; popw %bx",
	  "");

void test(void)
{
	for (uint32_t i = 0; i < 0x10000; i += 2) {
		MEM16(DATA_AT + i) = i * 3 + 1;
		MEM16(STACK_AT + i) = i * 5 + 2;
		MEM16(DATA_2_AT + i) = i * 7 + 3;
	}
	set_segment(SEL_CODE, CODE_AT, 0xffff, SEG_CODE16 | SEG_DPL(3));
	set_segment(SEL_DATA, DATA_AT, 0xffff, SEG_DATA16 | SEG_DPL(3));
	set_segment(SEL_STACK, STACK_AT, 0xffff, SEG_DATA16 | SEG_DPL(3));
	set_segment(SEL_DATA_2, DATA_2_AT, 0xffff, SEG_DATA16 | SEG_DPL(3));
	set_segment((SEL_CODE & ~3) + 0x20, CODE_AT, 0xffff, SEG_CODE16);
	set_segment((SEL_STACK & ~3) + 0x18, STACK_AT, 0xffff, SEG_DATA16);

	for (unsigned user = 0; user < 2; user++) {
		uint32_t ax = 0;

		print("cpl %u\n", user ? 3 : 0);
		static const uint16_t data[] = {0x110, 0x120,  0x10, 0x20,  0x300, 0x100,
						0x114, 0x1120, 0,    0x820, 0x17f};
		static const uint16_t frame[] = {0x210, 0x220, 0x20e, 0x240};

		for (unsigned i = 0; i < sizeof(data) / sizeof(data[0]); i++)
			ax += MEM16(DATA_AT + data[i]);
		for (unsigned i = 0; i < sizeof(frame) / sizeof(frame[0]); i++)
			ax += MEM16(STACK_AT + frame[i]);
		RUN16("address forms", forms, 0x100, user);
		check("  sum", out.eax, ax & 0xffff);
		RUN16("addresses wrap", wrap, 0x100, user);
		check("  ax cx", (out.eax & 0xffff) << 16 | (out.ecx & 0xffff), 0x00310031);
		check("  dx", out.edx & 0xffff, 0x40);
		RUN16("lea", lea32, 0x100, user);
		check("  ax", out.eax & 0xffff, 0x5678);
		check("  ecx", out.ecx, 0x5678);
		check("  dx", out.edx & 0xffff, 0x5679);
		check("  esi", out.esi, 0x2468acf1);
		RUN16("pushes and pops of both sizes", stack, 0x100, user);
		check("  ax", out.eax & 0xffff, 0xffa);
		check("  ebx", out.ebx, 0x33445566);
		check("  cx dx", (out.ecx & 0xffff) << 16 | (out.edx & 0xffff), 0x1122ffff);
		check("  esi", out.esi, 0x5555aaaa);
		check("  esp", out.esp & 0xffff, 0x1000);
		RUN16("pusha of both sizes, segments", pushes, 0x100, user);
		check("  dx", out.edx & 0xffff, 0xff0);
		check("  ds es", out.ds << 16 | out.es, SEL_DATA << 16 | SEL_DATA_2);
		RUN16("enter and leave", frames, 0x100, user);
		check("  ax bx", (out.eax & 0xffff) << 16 | (out.ebx & 0xffff), 0xffe0ff6);
		check("  cx", out.ecx & 0xffff, 0x1000);
		check("  edx", out.edx, 0x56780000);
		check("  si", out.esi & 0xffff, 0xff6);
		check("  ebp", out.ebp & 0xffff, 0xff0);
		RUN16("calls", calls, 0x100, user);
		check("  ax", out.eax & 0xffff, 0x11);
		check("  cx dx", (out.ecx & 0xffff) << 16 | (out.edx & 0xffff), 0xffe1000);
		RUN16("loop, jcxz, jecxz", loops, 0x100, user);
		check("  eax", out.eax, 5);
		RUN16("rep movsw, rep movsd with 32-bit addresses", sources, 0x100, user);
		check("  copied", MEM32(DATA_2_AT + 0x44), MEM32(DATA_AT + 0x14));
		check("  copied", MEM32(DATA_2_AT + 0x64), MEM32(DATA_AT + 0x14));
		RUN16("rep movsw around the segment", string_wrap, 0x100, user);
		check("  copied", MEM32(DATA_2_AT + 0x84), MEM32(DATA_AT));
		check("  si di", (out.esi & 0xffff) << 16 | (out.edi & 0xffff), 0x40088);
		RUN16("operands of both sizes", operand32, 0x100, user);
		check("  ecx", out.ecx, 0xffff8000);
		check("  dx", out.edx & 0xffff, 0xffff);
		RUN16("div of 16 bits", div16, 0x100, user);
		check("  ax dx", (out.eax & 0xffff) << 16 | (out.edx & 0xffff), 0x120345);
		check("  ecx", out.ecx, 0xffff1234);
		RUN16("flags", flags16, 0x100, user);
		check("  ax", out.eax & 0xffff, 0xcd7);
		check("  ebx", out.ebx & 0x3cffff, 0xcd7);
		MEM16(DATA_AT + 0x70) = 0x140;
		MEM16(DATA_AT + 0x72) = user ? SEL_CODE : (SEL_CODE & ~3) + 0x20;
		RUN16("far call and return", far16, 0x100, user);
		check("  cx dx", (out.ecx & 0xffff) << 16 | (out.edx & 0xffff), 0xffc1000);
		MEM32(DATA_AT + 0x90) = 0x00060004;
		MEM32(DATA_AT + 0x98) = 4;
		MEM32(DATA_AT + 0x9c) = 6;
		RUN16("bound of both sizes", bound16, 0x100, user);
		memcpy((void *)(CODE_AT + 0x2f0), land, land_end - land);
		RUN16("jmp with a 32-bit operand", jumps32, 0x100, user);
		check("  bx", out.ebx & 0xffff, 0xbeef);
		/* a jump over the end of the segment: ip wraps */
		MEM8(CODE_AT + 0xfff0) = 0xeb;
		MEM8(CODE_AT + 0xfff1) = 0x40; /* to 0x32 */
		RUN16("prepare", land, 0x32, user);
		RUN16("short jmp around the segment", to_top, 0x100, user);
		check("  bx", out.ebx & 0xffff, 0xbeef);
		check("  eip", out.eip, 0x32 + (land_end - land));
	}

	memcpy((void *)0x8000, push16.start, 32);
	expect_vector("ret with 16 bits", &ret16, DONE_VECTOR, NO_ERROR,
		      (void *)(0x8000 + push16.after - push16.start + 2));
	in.eax = 0x12348000;
	expect_vector("call with 16 bits", &call16, DONE_VECTOR, NO_ERROR,
		      (void *)(0x8000 + push16.after - push16.start + 2));
	check("  pushed", MEM16(SNIPPET_STACK - 2), (uint32_t)call16.after & 0xffff);
	uint32_t target = ((uint32_t)jmp16.after + 0x10) & 0xffff;

	memcpy((void *)target, push16.start, 32);
	expect_vector("jmp with 16 bits", &jmp16, DONE_VECTOR, NO_ERROR,
		      (void *)(target + (uint32_t)(push16.after - push16.start) + 2));
	MEM32(0x8010) = 0xfeedface;
	expect_done("16-bit addresses in 32-bit code", &addr16);
	check("  eax", out.eax, 0xfeedface);
	check("  edx", out.edx, 0x8010);
	check("  ecx: cx alone counts", out.ecx, 0xdead0000);
	for (uint32_t i = 0; i < 16; i++)
		MEM8(0x8000 + i) = i + 1;
	expect_done("16-bit string", &string16);
	check("  copied", MEM32(0x8100), 0x04030201);
	check("  esi", out.esi, 0x12348005);
	check("  edi", out.edi, 0x12348104);
	check("  ecx", out.ecx, 0x55550000);
	check("  al", out.eax & 0xff, 5);
	expect_done("jcxz and jecxz", &jcxz);
	check("  eax", out.eax, 0x10);
	expect_done("16-bit pushes on a 32-bit stack", &push16);
	check("  bx cx dx", (out.ebx & 0xffff) << 16 | (out.ecx & 0xff) << 8 | (out.edx & 0xff), 0x33441055);
	check("  esp", out.esp, SNIPPET_STACK);
}
