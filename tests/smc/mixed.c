/* Code and data on one page, instructions that lie across others, and across two pages. */
#include "smc.h"

/* Counters and a stack next to the code that uses them. */
CODE_THEN(counter_beside,
	  "movl $200, %ecx; movl $0, counter_in_code; jmp 1f; .balign 16; counter_in_code: .long 0; .balign "
	  "16; 1:",
	  "2: incl counter_in_code; decl %ecx; jnz 2b", "movl counter_in_code, %eax");
CODE_THEN(
	stack_beside,
	"movl %esp, %ebp; movl $50, %ecx; jmp 1f; .fill 64, 1, 0; stack_in_code: .balign 16; 1: movl "
	"$stack_in_code, %esp; xorl %eax, %eax",
	"2: pushl %ecx; call 4f; popl %edx; pushfl; pushal; popal; popfl; decl %ecx; jnz 2b; jmp 3f; 4: incl "
	"%eax; ret",
	"3: movl %ebp, %esp");

static uint32_t run_at(const struct snippet *code, bool user, uint32_t rounds, uint32_t want)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		if (user)
			user_mode();
		run(code);
		wrong += out.vector != DONE_VECTOR || out.eax != want;
	}
	return wrong;
}

static uint32_t counter_kernel(uint32_t rounds)
{
	return run_at(&counter_beside, false, rounds, 200);
}

static uint32_t counter_user(uint32_t rounds)
{
	return run_at(&counter_beside, true, rounds, 200);
}

static uint32_t stack_kernel(uint32_t rounds)
{
	return run_at(&stack_beside, false, rounds, 50);
}

static uint32_t stack_user(uint32_t rounds)
{
	return run_at(&stack_beside, true, rounds, 50);
}

/* The whole page but the function is rewritten, again and again, and the function changes at times. */
static uint32_t data_around(uint32_t rounds)
{
	uint32_t wrong = 0;

	emit_return(CODE_PAGE + 0x800, 5);
	for (uint32_t i = 0; i < rounds; i++) {
		for (uint32_t at = 0; at < 0x7f0; at += 16)
			MEM32(CODE_PAGE + at) = MEM32(CODE_PAGE + 0x810 + at) = i;
		if (i % 8 == 0)
			MEM32(CODE_PAGE + 0x801) = i;
		wrong += call(CODE_PAGE + 0x800) != (i & ~7u);
	}
	return wrong;
}

/* A hundred instructions of the page store into it, each at its own place: hot data written from everywhere.
 */
static uint32_t many_writers(uint32_t rounds)
{
	uint32_t wrong = 0, at = CODE_PAGE;

	for (uint32_t i = 0; i < 100; i++, at += 6) {
		MEM16(at) = 0x05ff; /* inc dword [data] */
		MEM32(at + 2) = CODE_PAGE + 0xc00 + i % 50 * 4;
	}
	MEM8(at) = 0xc3;
	for (uint32_t i = 0; i < 50; i++)
		MEM32(CODE_PAGE + 0xc00 + i * 4) = 0;
	for (uint32_t i = 1; i <= rounds; i++) {
		call(CODE_PAGE);
		wrong += MEM32(CODE_PAGE + 0xc00 + i % 50 * 4) != i * 2;
	}
	return wrong;
}

/* b8 b8 01 00 00 c3 c3: from 0 mov eax, 1b8; ret. b8 01 00 00 00 c3: from 1 mov eax, 1; ret */
static uint32_t overlapping(uint32_t rounds)
{
	static const uint8_t code[] = {0xb8, 0xb8, 0x01, 0x00, 0x00, 0x00, 0xc3, 0xc3};
	uint32_t wrong = 0;

	emit(CODE_PAGE, code, sizeof(code));
	for (uint32_t i = 0; i < rounds; i++) {
		MEM8(CODE_PAGE + 2) = i;
		wrong += call(CODE_PAGE + 1) != (i & 0xff);
		MEM8(CODE_PAGE + 5) = 0xc3;
		wrong += call(CODE_PAGE) != (0xb8 | (i & 0xff) << 8);
		MEM8(CODE_PAGE + 5) = 0;
	}
	return wrong;
}

/* add eax, imm32, in whose immediate stands add eax, imm8; ret: run from the front and from the middle. */
static uint32_t into_the_middle(uint32_t rounds)
{
	static const uint8_t code[] = {0x05, 0x83, 0xc0, 0x00, 0xc3, 0xc3};
	uint32_t wrong = 0;

	emit(CODE_PAGE, code, sizeof(code));
	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t front = 0, middle = 0, k = i & 0x7f;

		MEM8(CODE_PAGE + 3) = k;
		__asm__ volatile("call *%1" : "+a"(front) : "r"(CODE_PAGE) : "memory", "cc");
		__asm__ volatile("call *%1" : "+a"(middle) : "r"(CODE_PAGE + 1) : "memory", "cc");
		wrong += front != (0xc300c083 | k << 16) || middle != k;
	}
	return wrong;
}

/* mov eax, imm32 at every distance from a page's end; each byte stored separately, and all in one store. */
static uint32_t across_pages(uint32_t rounds)
{
	uint32_t wrong = 0;

	for (uint32_t before = 1; before < 6; before++)
		emit_return(CODE_PAGE + 0x1000 * before - before, 0);
	for (uint32_t i = 0; i < rounds; i++) {
		for (uint32_t before = 1; before < 6; before++) {
			uint32_t at = CODE_PAGE + 0x1000 * before - before;

			MEM8(at + 1 + i % 4) = i;
			wrong += call(at) != MEM32(at + 1);
			MEM32(at + 1) = i * 0x01030507;
			wrong += call(at) != i * 0x01030507;
		}
	}
	return wrong;
}

/* One store that changes code at the end of one page and at the start of the next. */
static uint32_t store_across_pages(uint32_t rounds)
{
	uint32_t wrong = 0, edge = CODE_PAGE + 0x1000;

	emit_return(edge - 10, 1);
	MEM8(edge - 5) = 0x40;
	MEM8(edge - 4) = 0x40;
	MEM8(edge - 3) = 0x40;
	for (uint32_t i = 0; i < rounds; i++) {
		MEM16(edge - 2) = 0x9090;
		MEM32(edge) = 0xc3909090;
		wrong += call(edge - 10) != 4;
		MEM32(edge - 2) = 0x40404040;
		wrong += call(edge - 10) != 8;
	}
	return wrong;
}

static const struct smc_case cases[] = {
	{"counter-beside", counter_kernel, 100, 201},
	{"counter-beside-user", counter_user, 100, 201},
	{"stack-beside", stack_kernel, 100, 150},
	{"stack-beside-user", stack_user, 100, 150},
	{"data-around", data_around, 100, 254},
	{"many-writers", many_writers, 100, 100},
	{"overlapping-streams", overlapping, 500, 3},
	{"into-the-middle", into_the_middle, 500, 1},
	{"instruction-across-pages", across_pages, 200, 10},
	{"store-across-pages", store_across_pages, 500, 3},
};
const struct smc_group smc_mixed = {cases, sizeof(cases) / sizeof(cases[0])};
