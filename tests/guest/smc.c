/*
 * Self-modifying code. The rule is the same everywhere: what a store changes is what runs next, from the
 * very next instruction on. The manual promises that for stores through the address that the code is fetched
 * from (SDM vol. 3A 9.1.3, 12.6: the prefetch queue is checked), and after a serializing instruction for
 * stores through another; cases of the second kind execute one.
 */
#include "paging.h"

#define CODE_PAGE   (PLAYGROUND + 0x10000) /* code of the test, at its own address */
#define ALIAS	    (PLAYGROUND + 0x30000) /* the same frames at another address */
#define OTHER_FRAME (PLAYGROUND + 0x50000)
#define DIRECTORY   (PLAYGROUND + 0x60000)
#define DATA	    (PLAYGROUND + 0x70000)

static inline void serialize(void)
{
	__asm__ volatile("xorl %%eax, %%eax; cpuid" : : : "eax", "ebx", "ecx", "edx", "memory");
}

static inline uint32_t call(uint32_t at)
{
	uint32_t result;

	__asm__ volatile("call *%1" : "=a"(result) : "r"(at) : "ecx", "edx", "memory", "cc");
	return result;
}

static void emit(uint32_t at, const void *code, size_t size)
{
	memcpy((void *)at, code, size);
}

/* mov eax, value; ret */
static void emit_return(uint32_t at, uint32_t value)
{
	MEM8(at) = 0xb8;
	MEM32(at + 1) = value;
	MEM8(at + 5) = 0xc3;
}

/*
 * Stores of every kind into the instruction that comes right after them: mov eax, 0x11111111, whose
 * immediate is replaced whole or in part. Each snippet restores the bytes on its next run.
 */
#define PATCHED "mov $0x11111111, %eax"
#define VICTIM(name, setup, store)                                                                           \
	CODE_THEN(name, "movl $0x11111111, 1f + 1; jmp 2f; .balign 16; 2:" setup, store, "1: " PATCHED)

VICTIM(by_mov, "movl $0x22222222, %ecx", "movl %ecx, 1f + 1");
VICTIM(by_mov_byte, "", "movb $0x33, 1f + 2");
VICTIM(by_mov_word, "", "movw $0x4444, 1f + 3");
VICTIM(by_add, "", "addl $0x01010101, 1f + 1");
VICTIM(by_xchg, "movl $0x55555555, %ecx", "xchgl %ecx, 1f + 1");
VICTIM(by_lock_xadd, "movl $0x01000000, %ecx", "lock; xaddl %ecx, 1f + 1");
VICTIM(by_cmpxchg, "movl $0x11111111, %eax; movl $0x66666666, %ecx", "lock; cmpxchgl %ecx, 1f + 1");
VICTIM(by_cmpxchg8b, "movl 1f + 1, %eax; movl 1f + 5, %edx; movl $0x77777777, %ebx; movl %edx, %ecx",
       "lock; cmpxchg8b 1f + 1");
VICTIM(by_inc, "", "incl 1f + 1");
VICTIM(by_bts, "", "btsl $1, 1f + 1");
VICTIM(by_shl, "", "shll $1, 1f + 1");
VICTIM(by_setcc, "stc", "setc 1f + 1");
VICTIM(by_movs, "movl $patch_source, %esi; movl $1f + 1, %edi; movl $4, %ecx; cld", "rep movsb");
VICTIM(by_movsd, "movl $patch_source, %esi; movl $1f + 1, %edi; cld", "movsl");
VICTIM(by_stos, "movl $0x99, %eax; movl $1f + 1, %edi; movl $3, %ecx; cld", "rep stosb");
VICTIM(by_stos_back, "movl $0xaa, %eax; movl $1f + 4, %edi; movl $4, %ecx; std", "rep stosb; cld");
CODE_THEN(by_push, "movl %esp, %edx; movl $0x11111111, 1f + 1; movl $1f + 5, %esp", "pushl $0x12344321",
	  "1: " PATCHED "; movl %edx, %esp");
VICTIM(by_pop, "pushl $0x0ddba11", "popl 1f + 1");
VICTIM(by_fst, "fninit; flds float_source", "fstps 1f + 1");
VICTIM(by_fist, "fninit; fildl patch_source", "fistpl 1f + 1");
VICTIM(by_sse, "movups 1f + 1, %xmm0; movss patch_source, %xmm1; movss %xmm1, %xmm0", "movups %xmm0, 1f + 1");
VICTIM(by_movd, "movd patch_source, %mm0", "movd %mm0, 1f + 1; emms");
uint32_t patch_source = 0x88877665;
uint32_t float_source = 0x40490fdb;

struct store_case {
	const char *name;
	const struct snippet *code;
	uint32_t want, cpuid;
};

static const struct store_case stores[] = {
	{"mov", &by_mov, 0x22222222},
	{"mov byte", &by_mov_byte, 0x11113311},
	{"mov word", &by_mov_word, 0x44441111},
	{"add", &by_add, 0x12121212},
	{"xchg", &by_xchg, 0x55555555},
	{"lock xadd", &by_lock_xadd, 0x12111111},
	{"lock cmpxchg", &by_cmpxchg, 0x66666666},
	{"lock cmpxchg8b", &by_cmpxchg8b, 0x77777777},
	{"inc", &by_inc, 0x11111112},
	{"bts", &by_bts, 0x11111113},
	{"shl", &by_shl, 0x22222222},
	{"setc", &by_setcc, 0x11111101},
	{"rep movsb", &by_movs, 0x88877665},
	{"movsd", &by_movsd, 0x88877665},
	{"rep stosb", &by_stos, 0x11999999},
	{"rep stosb, downwards", &by_stos_back, 0xaaaaaaaa},
	{"push", &by_push, 0x12344321},
	{"pop", &by_pop, 0x00ddba11},
	{"fstp", &by_fst, 0x40490fdb},
	{"fistp", &by_fist, 0x88877665},
	{"movd mmx", &by_movd, 0x88877665, CPUID_FXSR},
	{"movups", &by_sse, 0x88877665, CPUID_SSE},
};

static void next_instruction(void)
{
	for (unsigned i = 0; i < sizeof(stores) / sizeof(stores[0]); i++) {
		uint32_t wrong = 0;

		if (stores[i].cpuid && !cpu_has(stores[i].cpuid))
			continue;
		print("next instruction by ");
		expect_done(stores[i].name, stores[i].code);
		check("  eax", out.eax, stores[i].want);
		for (unsigned round = 0; round < 100; round++) {
			if (round & 1)
				user_mode();
			run(stores[i].code);
			wrong += out.vector != DONE_VECTOR || out.eax != stores[i].want;
		}
		check("  wrong of 100 more", wrong, 0);
	}
}

/* Frames and images that an instruction writes into the code ahead of it. */
CODE_THEN(by_call, "movl %esp, %ebp; movl $1f + 5, %esp; movl $0x11111111, 1f + 1", "call 1f",
	  "1: movl $0x11111111, %eax; movl %ebp, %esp");
/* ebx, edx and ecx become twelve times inc eax, eax a jump over its own place and two nops */
CODE_THEN(by_pusha,
	  "movl %esp, %ebp; movl $1f + 32, %esp; movl $0x40404040, %ebx; movl %ebx, %edx; movl %ebx, %ecx;"
	  "movl $0x909002eb, %eax; movl $1f + 16, %edi; movl $0x90909090, 1f + 16; movl $0x90909090, 1f + 24",
	  "pushal", "jmp *%edi; .balign 16; 1: .fill 32, 1, 0x90; movl %ebp, %esp");
/* ST(0) as code: seven times inc eax, a jump to the end of the image */
uint8_t code_of_10[10] = {0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0xeb, 108 - 28 - 9, 0x90};
CODE_THEN(by_fnsave, "fninit; fldt code_of_10; movl $0x90909090, 1f + 28; xorl %eax, %eax", "fnsave 1f",
	  "jmp 1f + 28; .balign 16; 1: .fill 108, 1, 0x90; nop");
/* XMM0 as code, in the same way */
uint8_t code_of_16[16] = {0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40,
			  0x40, 0x40, 0x40, 0xe9, 0x50, 0x01, 0x00, 0x00};
CODE_THEN(by_fxsave, "movups code_of_16, %xmm0; movl $0x90909090, 1f + 160; xorl %eax, %eax", "fxsave 1f",
	  "jmp 1f + 160; .balign 16; 1: .fill 512, 1, 0x90; nop");

static void by_the_cpu(void)
{
	for (unsigned round = 0; round < 3; round++) {
		/* the pushed return address is the immediate of what runs next */
		expect_done("call", &by_call);
		check("  eax", out.eax - (uint32_t)by_call.after, 0);
		expect_done("pusha", &by_pusha);
		check("  eax", out.eax - 0x909002eb, 12);
		expect_done("fnsave", &by_fnsave);
		check("  eax", out.eax, 7);
		if (!cpu_has(CPUID_SSE))
			continue;
		expect_done("fxsave", &by_fxsave);
		check("  eax", out.eax, 11);
	}
}

/* Loops whose own body is changed: the counter's immediate, the branch's direction, the operation. */
CODE_THEN(loop_patched, "xorl %eax, %eax; movl $10, %ecx; movl $1, 1f + 1", "1: addl $0x11111111, %eax",
	  "addl $1, 1b + 1; decl %ecx; jnz 1b");
CODE_THEN(branch_flipped, "xorl %eax, %eax; movl $10, %ecx; movb $0x74, 1f",
	  "2: xorl %edx, %edx; 1: jz 3f; addl $0x100, %eax", "3: incl %eax; xorb $1, 1b; decl %ecx; jnz 2b");
CODE_THEN(opcode_changed, "movl $100, %eax; movl $6, %ecx; movb $0x05, 1f", "1: .byte 0x05; .long 7",
	  "xorb $0x28, 1b; decl %ecx; jnz 1b");
CODE_THEN(target_moved, "xorl %eax, %eax; movl $8, %ecx; movb $0, 1f + 1",
	  "1: jmp 2f; 2: incl %eax; incl %eax; incl %eax; incl %eax", "xorb $2, 1b + 1; decl %ecx; jnz 1b");
CODE_THEN(self_store, "movl $3, %ecx; xorl %eax, %eax; movb $0x10, 1f + 6", "1: movb $0x20, 1b + 6",
	  "addb 1b + 6, %al; movb $0x30, 1b + 6; decl %ecx; jnz 1b");
CODE_THEN(rep_over_itself,
	  "movl $rep_over_itself_at, %esi; movl %esi, %edi; movl $64, %ecx; cld; movl $5, %eax", "rep movsb",
	  "addl $1, %eax");
CODE_THEN(same_bytes, "movl $1000, %ecx; xorl %eax, %eax", "1: incl %eax; movb $0x40, 1b; decl %ecx; jnz 1b",
	  "");

static void loops(void)
{
	expect_done("loop: immediate", &loop_patched);
	check("  eax", out.eax, 55);
	expect_done("loop: condition", &branch_flipped);
	check("  eax", out.eax, 10 + 5 * 0x100);
	expect_done("loop: opcode", &opcode_changed);
	check("  eax", out.eax, 100);
	expect_done("loop: jump's distance", &target_moved);
	check("  eax", out.eax, 4 * 4 + 4 * 2);
	expect_done("instruction that changes its own immediate", &self_store);
	check("  al", out.eax & 0xff, 0x70);
	expect_done("rep movsb over itself, the same bytes", &rep_over_itself);
	check("  eax", out.eax, 6);
	expect_done("stores that change nothing", &same_bytes);
	check("  eax", out.eax, 1000);
	for (unsigned round = 0; round < 20; round++) {
		run(&loop_patched);
		if (out.eax != 55)
			check("loop: immediate, again", out.eax, 55);
		user_mode();
		run(&opcode_changed);
		if (out.eax != 100)
			check("loop: opcode, again", out.eax, 100);
	}
}

/* Generated code: emitted, run, patched, moved, freed and emitted anew. */
static void generated(void)
{
	uint32_t wrong = 0, state = 1;

	for (uint32_t i = 0; i < 20000; i++) {
		state = state * 1103515245 + 12345;
		emit_return(CODE_PAGE, state);
		wrong += call(CODE_PAGE) != state;
	}
	check("emitted in place", wrong, 0);
	for (uint32_t i = 0; i < 20000; i++) {
		uint32_t at = CODE_PAGE + i * 24 % 4096;

		emit_return(at, i);
		wrong += call(at) != i;
	}
	check("emitted all over a page, straddling", wrong, 0);
	for (uint32_t i = 0; i < 5000; i++) {
		memset((void *)(CODE_PAGE + 0x100), 0xcc, 64);
		emit_return(CODE_PAGE + 0x100 + i % 16, i);
		wrong += call(CODE_PAGE + 0x100 + i % 16) != i;
	}
	check("freed and emitted at other offsets", wrong, 0);

	/* a chain of blocks: each jumps to the next; one in the middle is redirected each round */
	for (uint32_t i = 0; i < 16; i++) {
		MEM8(CODE_PAGE + i * 64) = 0x83; /* add eax, i */
		MEM8(CODE_PAGE + i * 64 + 1) = 0xc0;
		MEM8(CODE_PAGE + i * 64 + 2) = i;
		MEM8(CODE_PAGE + i * 64 + 3) = 0xe9; /* jmp next */
		MEM32(CODE_PAGE + i * 64 + 4) = 64 - 8;
	}
	MEM8(CODE_PAGE + 16 * 64) = 0xc3;
	for (uint32_t i = 0; i < 5000; i++) {
		uint32_t result = 0, skip = i % 14 + 1, sum = 120 - (skip + 1);

		MEM32(CODE_PAGE + skip * 64 + 4) = 128 - 8;
		__asm__ volatile("call *%1" : "+a"(result) : "r"(CODE_PAGE) : "memory", "cc");
		MEM32(CODE_PAGE + skip * 64 + 4) = 64 - 8;
		wrong += result != sum;
	}
	check("chained blocks redirected", wrong, 0);

	/* a call site patched between five functions, as static calls and tracers are */
	for (uint32_t i = 0; i < 5; i++)
		emit_return(CODE_PAGE + 0x800 + i * 32, i * i);
	MEM8(CODE_PAGE) = 0xe8;
	MEM8(CODE_PAGE + 5) = 0xc3;
	for (uint32_t i = 0; i < 5000; i++) {
		MEM32(CODE_PAGE + 1) = 0x800 + i % 5 * 32 - 5;
		wrong += call(CODE_PAGE) != i % 5 * (i % 5);
	}
	check("call site patched", wrong, 0);
	/* five-byte nop to jump and back, as static keys are */
	static const uint8_t nop5[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00}, jmp5[5] = {0xe9, 6, 0, 0, 0};

	emit_return(CODE_PAGE + 5, 1);
	emit_return(CODE_PAGE + 11, 2);
	for (uint32_t i = 0; i < 5000; i++) {
		emit(CODE_PAGE, i & 1 ? jmp5 : nop5, 5);
		wrong += call(CODE_PAGE) != (i & 1) + 1;
	}
	check("nop to jump and back", wrong, 0);

	/* a breakpoint put in and taken out */
	emit_return(CODE_PAGE, 0x77);
	for (uint32_t i = 0; i < 1000; i++) {
		struct snippet here = {(char *)CODE_PAGE, (char *)CODE_PAGE, (char *)CODE_PAGE};

		MEM8(CODE_PAGE + 5) = 0xcc;
		run(&here);
		wrong += out.vector != X_BP || out.eax != 0x77 || out.eip != CODE_PAGE + 6;
		MEM8(CODE_PAGE + 5) = 0xc3;
		wrong += call(CODE_PAGE) != 0x77;
	}
	check("int3 in and out", wrong, 0);
}

/* Code and data on one page: counters, stack, tables next to what runs. */
CODE_THEN(counter_beside,
	  "movl $30000, %ecx; movl $0, counter_in_code; jmp 1f; .balign 16; counter_in_code: .long 0; "
	  ".balign 16; 1:",
	  "2: incl counter_in_code; decl %ecx; jnz 2b", "movl counter_in_code, %eax");
CODE_THEN(stack_beside,
	  "movl %esp, %ebp; movl $30000, %ecx; jmp 1f; .fill 64, 1, 0; stack_in_code: .balign 16; 1: movl "
	  "$stack_in_code, %esp; xorl %eax, %eax",
	  "2: pushl %ecx; call 4f; popl %edx; decl %ecx; jnz 2b; jmp 3f; 4: incl %eax; ret",
	  "3: movl %ebp, %esp");

static void mixed_pages(void)
{
	uint32_t wrong = 0;

	for (unsigned user = 0; user < 2; user++) {
		if (user)
			user_mode();
		expect_done("counter beside the code", &counter_beside);
		check("  eax", out.eax, 30000);
		if (user)
			user_mode();
		expect_done("stack beside the code", &stack_beside);
		check("  eax", out.eax, 30000);
	}
	/* the whole page but the function is rewritten, again and again */
	emit_return(CODE_PAGE + 0x800, 5);
	for (uint32_t i = 0; i < 500; i++) {
		memset((void *)CODE_PAGE, i, 0x7f0);
		memset((void *)(CODE_PAGE + 0x810), i, 0x7f0);
		wrong += call(CODE_PAGE + 0x800) != 5;
		emit_return(CODE_PAGE + 0x800, 6);
		wrong += call(CODE_PAGE + 0x800) != 6;
		emit_return(CODE_PAGE + 0x800, 5);
	}
	check("data around the code rewritten", wrong, 0);
}

/* Instructions that lie across others and across pages. */
static void boundaries(void)
{
	/* b8 b8 01 00 00 00 c3: from 0 mov eax, 1b8 ... ; from 1 mov eax, 1 */
	static const uint8_t overlap[] = {0xb8, 0xb8, 0x01, 0x00, 0x00, 0x00, 0xc3};
	uint32_t wrong = 0, edge = CODE_PAGE + 0x1000;

	MEM8(CODE_PAGE + 7) = 0xc3;
	emit(CODE_PAGE, overlap, sizeof(overlap));
	/* from 0: mov eax, 000001b8; add bl, al needs nothing; c3 */
	MEM8(CODE_PAGE + 5) = 0xc3;
	check("overlapping streams, first", call(CODE_PAGE), 0x1b8);
	MEM8(CODE_PAGE + 5) = 0;
	check("overlapping streams, second", call(CODE_PAGE + 1), 1);
	for (uint32_t i = 0; i < 1000; i++) {
		MEM8(CODE_PAGE + 2) = i;
		wrong += call(CODE_PAGE + 1) != (i & 0xff);
		MEM8(CODE_PAGE + 5) = 0xc3;
		wrong += call(CODE_PAGE) != (0xb8 | (i & 0xff) << 8);
		MEM8(CODE_PAGE + 5) = 0;
	}
	check("overlapping streams, patched", wrong, 0);

	/* mov eax, imm32 at every distance from a page's end; each byte stored separately */
	for (uint32_t before = 1; before < 6; before++) {
		for (uint32_t i = 0; i < 500; i++) {
			uint32_t at = edge - before, byte = i % 4;

			if (i == 0)
				emit_return(at, 0);
			MEM8(at + 1 + byte) = i;
			wrong += call(at) != MEM32(at + 1);
			/* a store across the two pages */
			MEM32(at + 1) = i * 0x01030507;
			wrong += call(at) != i * 0x01030507;
		}
	}
	check("instruction across two pages, patched", wrong, 0);
	/* one store that changes code at the end of one page and at the start of the next */
	emit_return(edge - 10, 1);
	MEM8(edge - 5) = 0x40;
	MEM8(edge - 4) = 0x40;
	MEM8(edge - 3) = 0x40;
	for (uint32_t i = 0; i < 500; i++) {
		MEM16(edge - 2) = 0x9090;
		MEM32(edge) = 0xc3909090;
		wrong += call(edge - 10) != 4;
		MEM32(edge - 2) = 0x40404040;
		wrong += call(edge - 10) != 8;
	}
	check("store across two code pages", wrong, 0);
}

/* The same frame at another address, read-only where it runs, or in another address space. */
static void aliases(void)
{
	uint32_t wrong = 0;

	paging_on();
	map(ALIAS, CODE_PAGE | PTE_ALL);
	for (uint32_t i = 0; i < 3000; i++) {
		emit_return(ALIAS, i);
		serialize();
		wrong += call(CODE_PAGE) != i;
		emit_return(CODE_PAGE, ~i);
		serialize();
		wrong += call(ALIAS) != ~i;
	}
	check("written through an alias", wrong, 0);
	map(CODE_PAGE, CODE_PAGE | PTE_P | PTE_U);
	set_cr0(get_cr0() | CR0_WP);
	for (uint32_t i = 0; i < 3000; i++) {
		emit_return(ALIAS, i);
		serialize();
		wrong += call(CODE_PAGE) != i;
	}
	check("runs read-only, written through an alias", wrong, 0);
	set_cr0(get_cr0() & ~CR0_WP);
	paging_reset();

	/* another address space: the frame is elsewhere there, and written there */
	memcpy((void *)DIRECTORY, page_directory, 4096);
	memcpy((void *)(DIRECTORY + 0x1000), page_tables[PLAYGROUND >> 22], 4096);
	MEM32(DIRECTORY + (PLAYGROUND >> 22) * 4) = (DIRECTORY + 0x1000) | PTE_ALL;
	MEM32(DIRECTORY + 0x1000 + (ALIAS >> 12 & 1023) * 4) = CODE_PAGE | PTE_ALL;
	MEM32(DIRECTORY + 0x1000 + (CODE_PAGE >> 12 & 1023) * 4) = OTHER_FRAME | PTE_ALL;
	for (uint32_t i = 0; i < 1000; i++) {
		set_cr3(DIRECTORY);
		emit_return(ALIAS, i);
		emit_return(CODE_PAGE, i + 1);
		wrong += call(CODE_PAGE) != i + 1;
		set_cr3((uint32_t)page_directory);
		wrong += call(CODE_PAGE) != i;
		wrong += call(OTHER_FRAME) != i + 1;
	}
	check("written in another address space", wrong, 0);

	/* code copied on write: the page under the code is replaced by a changed copy */
	for (uint32_t i = 0; i < 1000; i++) {
		uint32_t from = i & 1 ? OTHER_FRAME : CODE_PAGE, to = i & 1 ? CODE_PAGE : OTHER_FRAME;

		map(ALIAS, from | PTE_ALL);
		emit_return(ALIAS, i);
		wrong += call(ALIAS) != i;
		memcpy((void *)to, (void *)from, 64);
		emit_return(to, i + 100);
		map(ALIAS, to | PTE_ALL);
		wrong += call(ALIAS) != i + 100;
		map(ALIAS, from | PTE_ALL);
		wrong += call(ALIAS) != i;
	}
	check("frame swapped under the code", wrong, 0);
	paging_reset();

	/* code at CPL 3, changed by the kernel and by itself */
	for (uint32_t i = 0; i < 1000; i++) {
		struct snippet here = {(char *)CODE_PAGE, (char *)CODE_PAGE, (char *)CODE_PAGE};

		MEM8(CODE_PAGE) = 0xb8;
		MEM32(CODE_PAGE + 1) = i;
		MEM8(CODE_PAGE + 5) = 0xcd;
		MEM8(CODE_PAGE + 6) = DONE_VECTOR;
		user_mode();
		run(&here);
		wrong += out.vector != DONE_VECTOR || out.eax != i;
	}
	check("user code patched by the kernel", wrong, 0);
	paging_off();
}

/* Code pages swapped under PAE, by 4 KiB entries and by 2 MiB ones, invalidated by invlpg or by cr3. */
#define PAE_POINTERS  (PLAYGROUND + 0x80000)
#define PAE_DIRECTORY (PLAYGROUND + 0x81000)
#define PAE_TABLE     (PLAYGROUND + 0x82000)
#define PAE_LINEAR    0x02000000u
#define PAE_LARGE_1   0x00a00000u
#define PAE_LARGE_2   0x00c00000u

static void pae_entries(void)
{
	volatile uint64_t *directory = (uint64_t *)PAE_DIRECTORY, *table = (uint64_t *)PAE_TABLE;
	uint32_t wrong = 0;

	if (!cpu_has(CPUID_PAE))
		return;
	memset((void *)PAE_POINTERS, 0, 0x3000);
	MEM32(PAE_POINTERS) = PAE_DIRECTORY | PTE_P;
	for (uint32_t i = 0; i < 16; i++)
		directory[i] = i << 21 | PTE_PS | PTE_ALL;
	emit_return(CODE_PAGE, 1);
	emit_return(OTHER_FRAME, 2);
	emit_return(PAE_LARGE_1, 3);
	emit_return(PAE_LARGE_2, 4);
	set_cr4(get_cr4() | CR4_PAE);
	set_cr3(PAE_POINTERS);
	set_cr0(get_cr0() | CR0_PG);
	directory[PAE_LINEAR >> 21] = PAE_TABLE | PTE_ALL;
	for (uint32_t i = 0; i < 1000; i++) {
		/* the low half alone: the entry is never half of one frame and half of another */
		*(volatile uint32_t *)table = (i & 1 ? OTHER_FRAME : CODE_PAGE) | PTE_ALL;
		if (i & 2)
			invlpg(PAE_LINEAR);
		else
			set_cr3(PAE_POINTERS);
		wrong += call(PAE_LINEAR) != (i & 1) + 1;
	}
	check("frame swapped under the code, PAE", wrong, 0);
	for (uint32_t i = 0; i < 1000; i++) {
		*(volatile uint32_t *)&directory[PAE_LINEAR >> 21] =
			(i & 1 ? PAE_LARGE_2 : PAE_LARGE_1) | PTE_PS | PTE_ALL;
		if (i & 2)
			invlpg(PAE_LINEAR);
		else
			set_cr3(PAE_POINTERS);
		wrong += call(PAE_LINEAR) != (i & 1) + 3;
	}
	check("large page swapped under the code, PAE", wrong, 0);
	set_cr0(get_cr0() & ~CR0_PG);
	set_cr4(get_cr4() & ~CR4_PAE);
}

/* An unpacker: code that decodes what it then jumps to, twice over. */
static void unpacker(void)
{
	static const uint8_t plain[] = {0xb8, 0xef, 0xbe, 0xad, 0xde, 0xc3};
	static const uint8_t loop[] = {
		0xb9, 0x06, 0x00, 0x00, 0x00, /* mov ecx, 6 */
		0x80, 0x74, 0x08, 0x1f, 0x5a, /* 1: xor byte [eax + ecx + 0x1f], 0x5a */
		0xe2, 0xf9,		      /* loop 1b */
		0x83, 0xc0, 0x20,	      /* add eax, 0x20 */
		0xff, 0xe0,		      /* jmp eax */
	};
	uint32_t wrong = 0;

	for (uint32_t round = 0; round < 500; round++) {
		uint32_t result = CODE_PAGE;

		emit(CODE_PAGE, loop, sizeof(loop));
		for (unsigned i = 0; i < sizeof(plain); i++)
			MEM8(CODE_PAGE + 0x20 + i) = plain[i] ^ 0x5a;
		__asm__ volatile("call *%0" : "+a"(result) : : "ecx", "edx", "memory", "cc");
		wrong += result != 0xdeadbeef;
	}
	check("unpacker", wrong, 0);
}

static void many(void)
{
	uint32_t wrong = 0;

	emit_return(CODE_PAGE, 0);
	for (uint32_t i = 0; i < 30000; i++) {
		MEM32(CODE_PAGE + 1) = i;
		wrong += call(CODE_PAGE) != i;
	}
	check("one immediate, 30000 times", wrong, 0);
}

void test(void)
{
	if (cpu_has(CPUID_SSE))
		set_cr4(get_cr4() | CR4_OSFXSR);
	next_instruction();
	by_the_cpu();
	loops();
	generated();
	mixed_pages();
	boundaries();
	unpacker();
	aliases();
	pae_entries();
	many();
}
