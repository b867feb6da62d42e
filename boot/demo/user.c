/*
 * The user task: CPL 3, its own pages, nothing shared with the kernel but the system calls. Its heap has no
 * page until it touches one.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format.h"
#include "syscall.h"

#define HEAP	    ((volatile uint8_t *)0x10000000)
#define SIEVE_LIMIT 1000000u
#define SIEVE_COUNT 78498u /* primes below a million */
#define CALLS	    20000u

static inline uint32_t call_int(uint32_t number, uint32_t a, uint32_t b)
{
	__asm__ volatile("int $0x80" : "+a"(number) : "b"(a), "c"(b) : "memory");
	return number;
}

/* The kernel wants the return address in esi and the stack in ebp; it destroys ecx and edx. */
static inline uint32_t call_sysenter(uint32_t number, uint32_t a, uint32_t b)
{
	__asm__ volatile("pushl	%%ebp\n"
			 "	movl	%%esp, %%ebp\n"
			 "	movl	$1f, %%esi\n"
			 "	sysenter\n"
			 "1:	popl	%%ebp"
			 : "+a"(number), "+c"(b)
			 : "b"(a)
			 : "edx", "esi", "memory");
	return number;
}

static void say(const char *format, ...)
{
	char line[160];
	va_list arguments;

	va_start(arguments, format);
	call_int(SYSCALL_PRINT, (uint32_t)line, format_text(line, sizeof(line), format, arguments));
	va_end(arguments);
}

static inline uint32_t tsc_low(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return low;
}

/* Every call must return one more than the one before; returns how often it did not. */
static unsigned many_calls(bool fast, bool has_tsc, uint32_t *cycles)
{
	uint32_t start = has_tsc ? tsc_low() : 0, last = call_int(SYSCALL_NOTHING, 0, 0);
	unsigned wrong = 0;

	for (unsigned i = 0; i < CALLS; i++) {
		uint32_t now = fast ? call_sysenter(SYSCALL_NOTHING, 0, 0) : call_int(SYSCALL_NOTHING, 0, 0);

		wrong += now != last + 1;
		last = now;
	}
	*cycles = has_tsc ? (tsc_low() - start) / CALLS : 0;
	return wrong;
}

static bool show_calls(const char *name, bool fast, bool has_tsc)
{
	uint32_t cycles;
	unsigned wrong = many_calls(fast, has_tsc, &cycles);

	say("    %-12s%u system calls, %u wrong", name, CALLS, wrong);
	if (has_tsc)
		say(", %u cycles each", cycles);
	say("\n");
	return wrong == 0;
}

/* Eratosthenes, a byte a number, on pages that the kernel gives as they are touched. */
static unsigned sieve(void)
{
	unsigned count = 0;

	for (uint32_t i = 2; i < SIEVE_LIMIT; i++) {
		if (HEAP[i])
			continue;
		count++;
		if (i > 1000)
			continue;
		for (uint32_t multiple = i * i; multiple < SIEVE_LIMIT; multiple += i)
			HEAP[multiple] = 1;
	}
	return count;
}

void user_main(void)
{
	bool has_tsc = call_int(SYSCALL_HAS, HAS_TSC, 0), good = true;
	uint32_t code_segment, ticks, pages;
	unsigned primes;

	__asm__("mov %%cs, %0" : "=r"(code_segment));
	say("in a task of its own, privilege level %u\n", code_segment & 3);

	good &= show_calls("int 0x80", false, has_tsc);
	if (call_int(SYSCALL_HAS, HAS_SYSENTER, 0))
		good &= show_calls("sysenter", true, has_tsc);

	ticks = call_int(SYSCALL_TICKS, 0, 0);
	pages = call_int(SYSCALL_PAGES, 0, 0);
	primes = sieve();
	ticks = call_int(SYSCALL_TICKS, 0, 0) - ticks;
	pages = call_int(SYSCALL_PAGES, 0, 0) - pages;
	say("    primes      %u below %u, in %u ms of timer ticks\n", primes, SIEVE_LIMIT, ticks);
	say("    page faults %u heap pages given as they were touched\n", pages);
	good &= primes == SIEVE_COUNT && pages == (SIEVE_LIMIT + 4095) / 4096;

	call_int(SYSCALL_EXIT, good ? 0 : 1, 0);
}

/* Linked first, at the task's entry point; esp comes from the kernel. */
__attribute__((section(".text.user_start"), naked)) void user_start(void)
{
	__asm__("call user_main");
}
