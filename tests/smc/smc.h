/*
 * The self-modifying code suite. The rule is the same everywhere: what a store changes is what runs next,
 *from the very next instruction on. The manual promises that for stores through the address that the code is
 *fetched from (SDM vol. 3A 9.1.3, 12.6: the prefetch queue is checked), and after a serializing instruction
 *for stores through another; cases of the second kind execute one.
 *
 * Each case is one row of a table: a number of equal rounds. The cases that user mode allows (stores.c,
 *generated.c, mixed.c) are built twice: into a Multiboot guest (guest/) and into a Linux program (user/) that
 *runs on the host's CPU as well. platform.h is what differs: run() executes a snippet until something
 *interrupts it, which the guest learns through its IDT and the program through signals.
 *
 * On the guest's command line
 *	case=NAME [rounds=N]
 * runs just one case; the program takes NAME and N as arguments. That is for counting: what 10 N rounds trap
 *more than N is the steady state (count.py).
 */
#ifndef SMC_H
#define SMC_H

#include "platform.h"

#define CODE_PAGE   (PLAYGROUND + 0x10000) /* code of the cases, at its own address */
#define ALIAS	    (PLAYGROUND + 0x30000) /* the same frames at another address */
#define OTHER_FRAME (PLAYGROUND + 0x50000)
#define JIT_ARENA   (PLAYGROUND + 0x100000) /* 256 KiB */

struct smc_case {
	const char *name;
	/* Returns how many checks failed in so many rounds. NULL: run `code`, which must leave `want` in eax,
	 * by turns at CPL 0 and 3. */
	uint32_t (*run)(uint32_t rounds);
	uint32_t rounds; /* when all cases run */
	uint32_t writes; /* stores into code in one round */
	uint32_t cpuid;	 /* CPUID_* that it needs, or 0 */
	const struct snippet *code;
	uint32_t want;
};

struct smc_group {
	const struct smc_case *cases;
	unsigned n;
};

extern const struct smc_group smc_stores, smc_generated, smc_mixed;
extern const struct smc_group smc_pages, smc_devices; /* guest/ */
extern const struct smc_group smc_processes;	      /* user/ */

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

static inline void emit(uint32_t at, const void *code, size_t size)
{
	memcpy((void *)at, code, size);
}

/* mov eax, value; ret */
static inline void emit_return(uint32_t at, uint32_t value)
{
	MEM8(at) = 0xb8;
	MEM32(at + 1) = value;
	MEM8(at + 5) = 0xc3;
}

/* mov eax, value; int 0x30: a snippet of its own */
static inline void emit_snippet(uint32_t at, uint32_t value)
{
	MEM8(at) = 0xb8;
	MEM32(at + 1) = value;
	MEM8(at + 5) = 0xcd;
	MEM8(at + 6) = DONE_VECTOR;
}

/* Runs what emit_snippet made, at CPL 3; its eax. */
static inline uint32_t call_user(uint32_t at)
{
	struct snippet here = {(char *)at, (char *)at, (char *)at};

	user_mode();
	run(&here);
	return out.vector == DONE_VECTOR ? out.eax : ~0u;
}

#endif
