/*
 * Indirect branches, calls and returns: what reaches the target must be what left the source, flags above
 * all. The cases are chosen to hurt a translator that looks targets up in tables: targets whose addresses
 * agree in their low bits, returns to where no call came from, stacks that are switched, calls deeper than
 * any return predictor, and code that carries flags through all of that.
 */
#include "paging.h"

#define FIRST  (PLAYGROUND + 0x10000) /* the two agree in their low 16 bits */
#define SECOND (PLAYGROUND + 0x20000)

static void emit(uint32_t at, const uint8_t *code, size_t size)
{
	for (size_t i = 0; i < size; i++)
		MEM8(at + i) = code[i];
}

/* Jumps to at with CF, ZF and SF as given, and returns what the code there makes of them. */
static uint32_t jump(uint32_t at, uint32_t flags)
{
	uint32_t result;

	__asm__ volatile("pushl %2; popfl; call *%1"
			 : "=a"(result)
			 : "r"(at), "r"(flags)
			 : "ecx", "edx", "memory", "cc");
	return result;
}

/* xor eax, eax; ret: overwrites the flags before anything reads them. */
static const uint8_t kills[] = {0x31, 0xc0, 0xc3};
/* mov eax, 0; setc al; setz ah; ret */
static const uint8_t reads[] = {0xb8, 0, 0, 0, 0, 0x0f, 0x92, 0xc0, 0x0f, 0x94, 0xc4, 0xc3};

static void flags_to_colliding_targets(void)
{
	uint32_t wrong = 0;

	emit(FIRST, kills, sizeof kills);
	emit(SECOND, reads, sizeof reads);
	for (int round = 0; round < 100; round++) {
		wrong += jump(FIRST, 2) != 0;
		wrong += jump(SECOND, 0x03) != 0x001; /* CF */
		wrong += jump(FIRST, 2) != 0;
		wrong += jump(SECOND, 0x42) != 0x100; /* ZF */
		wrong += jump(FIRST, 2) != 0;
		wrong += jump(SECOND, 0x02) != 0;
	}
	check("flags through a table slot that held another target", wrong, 0);
}

/* A callee that returns to another place than the one it was called from, with flags set. */
static void return_elsewhere(void)
{
	uint32_t result, wrong = 0;

	for (int round = 0; round < 100; round++) {
		__asm__ volatile("call 1f\n"
				 "xorl %%eax, %%eax\n" /* where the call would return to */
				 "movl $0xbad, %%eax\n"
				 "jmp 3f\n"
				 "1: movl $2f, (%%esp)\n"
				 "stc\n"
				 "ret\n"
				 "2: movl $0, %%eax\n"
				 "adcl $0, %%eax\n"
				 "3:\n"
				 : "=a"(result)
				 :
				 : "memory", "cc");
		wrong += result != 1;
	}
	check("carry through a return to where no call came from", wrong, 0);
}

/* Two stacks that call and switch to each other in the middle of it, as threads do. */
static uint32_t stack_a[64], stack_b[64];

static void switched_stacks(void)
{
	uint32_t count = 0;

	__asm__ volatile("pushl %%ebp; movl %%esp, %%ebp\n"
			 "movl %1, %%esp; call 10f; jmp 30f\n"
			 /* each side: call a function that switches to the other's stack and back */
			 "10: movl $200, %%ecx\n"
			 "movl %2, %%edx\n"
			 "movl $20f, -4(%%edx); leal -4(%%edx), %%edx\n"
			 "11: call 40f\n"
			 "incl %%eax\n"
			 "loop 11b\n"
			 "ret\n"
			 "20: call 40f\n"
			 "incl %%eax\n"
			 "jmp 20b\n"
			 "40: xchgl %%esp, %%edx\n"
			 "ret\n"
			 "30: movl %%ebp, %%esp; popl %%ebp\n"
			 : "+a"(count)
			 : "S"(stack_a + 64), "D"(stack_b + 64)
			 : "ecx", "edx", "memory", "cc");
	check("two stacks taking turns", count, 399);
}

/* Recursion deeper than a host's return stack of any size, then all the way back. */
static void deep(void)
{
	uint32_t result;

	__asm__ volatile("xorl %%eax, %%eax; movl $20000, %%ecx\n"
			 "movl %%esp, %%ebx; movl %1, %%esp\n"
			 "call 1f; jmp 2f\n"
			 "1: decl %%ecx; jz 3f; call 1b; incl %%eax\n"
			 "3: ret\n"
			 "2: movl %%ebx, %%esp\n"
			 : "=a"(result)
			 : "D"(PLAYGROUND + 0xf0000)
			 : "ebx", "ecx", "memory", "cc");
	check("20000 calls deep", result, 19999);
}

static uint32_t run_at(uint32_t at, uint32_t arg)
{
	uint32_t result;

	__asm__ volatile("call *%2" : "=a"(result), "+c"(arg) : "r"(at) : "edx", "memory", "cc");
	return result;
}

/* Calls, the last of which has a return address that is that of an instruction that goes on on the next page.
 */
static void return_to_a_straddler(void)
{
	/* four times call f; add eax, 0x01020304; ret; nops; f: lea eax, [ecx+1]; ret */
	static const uint8_t code[] = {0xe8, 23, 0, 0,	  0,	0xe8, 18,   0,	  0, 0,	   0xe8,
				       13,   0,	 0, 0,	  0xe8, 8,    0,    0,	  0, 0x05, 4,
				       3,    2,	 1, 0xc3, 0x90, 0x90, 0x8d, 0x41, 1, 0xc3};
	const uint32_t at = PLAYGROUND + 0x30ffd - 20;
	uint32_t wrong = 0;

	emit(at, code, sizeof code);
	for (uint32_t i = 0; i < 100; i++)
		wrong += run_at(at, i) != i + 1 + 0x01020304;
	check("returns to an instruction across a page boundary", wrong, 0);
}

/* The same call reached from its own function's beginning and from the middle of it, by turns; then the code
 * around it changes. */
static void entered_in_the_middle(void)
{
	/* 0: inc ecx; 1: inc ecx; 2: lea ecx, [ecx+5]; 5: push ecx; 6: call 16; 11: pop ecx; 12: lea eax,
	 * [eax+ecx]; 15: ret; 16: lea eax, [ecx+100]; 19: ret */
	static const uint8_t code[] = {0x41, 0x41, 0x8d, 0x49, 5,    0x51, 0xe8, 5,    0,   0,
				       0,    0x59, 0x8d, 0x04, 0x08, 0xc3, 0x8d, 0x41, 100, 0xc3};
	const uint32_t at = PLAYGROUND + 0x40100;
	uint32_t wrong = 0;

	emit(at, code, sizeof code);
	for (uint32_t i = 0; i < 64; i++) {
		const uint32_t add = i & 32 ? 9 : 5;

		if (i == 32)
			MEM8(at + 4) = 9;
		wrong += run_at(at, i) != 2 * (i + add + 2) + 100;
		wrong += run_at(at + 1, i) != 2 * (i + add + 1) + 100;
		wrong += run_at(at + 2, i) != 2 * (i + add) + 100;
		wrong += run_at(at + 5, i) != 2 * i + 100;
		wrong += run_at(at + 16, i) != i + 100;
	}
	check("a function entered at each of its instructions", wrong, 0);
}

/* fxrstor from a page that must not be written; CR0.WP is set. */
CODE(restore, "movl $0x400000, %eax", "fxrstor (%eax)");

static void fxrstor_reads(void)
{
	if (!cpu_has(CPUID_SSE))
		return;
	set_cr4(get_cr4() | CR4_OSFXSR);
	__asm__ volatile("fninit; fxsave (%0)" : : "r"(PLAYGROUND) : "memory");
	paging_on();
	map(PLAYGROUND, PLAYGROUND | PTE_P);
	set_cr0(get_cr0() | CR0_WP);
	expect_done("fxrstor from a read-only page", &restore);
	set_cr0(get_cr0() & ~CR0_WP);
	paging_off();
}

void test(void)
{
	flags_to_colliding_targets();
	return_elsewhere();
	switched_stacks();
	deep();
	return_to_a_straddler();
	entered_in_the_middle();
	fxrstor_reads();
}
