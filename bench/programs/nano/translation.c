/*
 * Code that was never run before, as a translator sees it: small functions, written into fresh memory and
 * called once each, then once more.
 */
#include "nano.h"

#define FUNCTION 36u /* bytes */
#define BATCH	 64u
#define END	 MEMORY_NEEDS

static uint32_t next = WORKING_SET, sum;

/* Eleven instructions; adds value to eax, changes ecx and edx. */
static void write_function(uint32_t at, uint32_t value)
{
	static const uint8_t rest[] = {
		0x89, 0xc2,		/* movl %eax, %edx */
		0xc1, 0xe2, 5,		/* shll $5, %edx */
		0x31, 0xd1,		/* xorl %edx, %ecx */
		0x8b, 0x14, 0x24,	/* movl (%esp), %edx */
		0x42,			/* incl %edx */
		0x8d, 0x4c, 0x11, 0x07, /* leal 7(%ecx,%edx), %ecx */
		0xf7, 0xd1,		/* notl %ecx */
		0x03, 0x0c, 0x24,	/* addl (%esp), %ecx */
		0x4a,			/* decl %edx */
		0xc3,			/* ret */
	};

	_Static_assert(5 + sizeof(rest) <= FUNCTION, "a function fits its place");
	MEM8(at) = 0x05; /* addl $value, %eax */
	*(volatile uint32_t *)(at + 1) = value;
	memcpy((void *)(at + 5), rest, sizeof(rest));
}

/* Writes count functions; their place, or 0 when memory is used up. */
static uint32_t write_functions(uint32_t count)
{
	uint32_t at = next;

	if (next + count * FUNCTION > END)
		return 0;
	sum = 0;
	for (uint32_t i = 0; i < count; i++, next += FUNCTION) {
		write_function(next, i * 3 + 1);
		sum += i * 3 + 1;
	}
	next = (next + 4095) & ~4095u; /* the next ones do not share a page with these */
	return at;
}

static uint64_t call_functions(uint32_t at, uint32_t count)
{
	uint64_t start = rdtsc(), cycles;
	uint32_t got = 0, ecx;

	__asm__ volatile("1: call *%1; addl %4, %1; decl %2; jnz 1b"
			 : "+a"(got), "+S"(at), "+D"(count), "=c"(ecx)
			 : "i"(FUNCTION), "3"(0)
			 : "edx", "cc", "memory");
	cycles = rdtsc() - start;
	if (got != sum)
		nano_fail("sum", got, sum);
	return cycles;
}

static uint32_t fresh_functions(void)
{
	uint32_t at = write_functions(BATCH);

	if (!at) { /* only after more runs than anybody asks for */
		next = WORKING_SET;
		at = write_functions(BATCH);
	}
	return at;
}

static uint32_t code_first(void)
{
	return (uint32_t)call_functions(fresh_functions(), BATCH);
}

static uint32_t code_second(void)
{
	uint32_t at = fresh_functions();

	call_functions(at, BATCH);
	return (uint32_t)call_functions(at, BATCH);
}

static uint32_t code_third(void)
{
	uint32_t at = fresh_functions();

	call_functions(at, BATCH);
	call_functions(at, BATCH);
	return (uint32_t)call_functions(at, BATCH);
}

/* More code than a translator's cache has room for; all of it once. Told in parts, as 32 bits may not hold
 * the sum. */
#define OVERFLOW  ((END - WORKING_SET) / FUNCTION)
#define PART_BITS 4
static uint32_t code_overflow(void)
{
	next = WORKING_SET;
	return (uint32_t)(call_functions(write_functions(OVERFLOW), OVERFLOW) >> PART_BITS);
}

static bool usable(void)
{
	return memory_reaches(END);
}

const struct nano nano_translation[] = {
	{"code_first", NULL, BATCH, false, usable, code_first, false},
	{"code_second", NULL, BATCH, false, usable, code_second, false},
	{"code_third", NULL, BATCH, false, usable, code_third, false},
	{"code_overflow", NULL, OVERFLOW >> PART_BITS, false, usable, code_overflow, true},
	{0},
};
