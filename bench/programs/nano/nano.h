/*
 * Nanobenchmarks: what single operations of a kernel cost, in cycles of rdtsc, after the figures of Adams and
 * Agesen, "A Comparison of Software and Hardware Techniques for x86 Virtualization" (ASPLOS 2006).
 *
 * A benchmark is a function that does its operation a number of times. It is called with growing numbers
 * until one call takes long enough to time, then `runs` times with that number; the line printed is
 *
 *	nano NAME MINIMUM MEDIAN OPERATIONS RUNS
 *
 * with cycles for one operation, and the operations in each run; lines "group NAME" stand between. Whatever
 *an operation must bring about (handlers entered, values read back) is checked. The machine's command line
 *may say
 *
 *	only=NAME,...	benchmarks whose names begin so
 *	runs=N		how often each is timed (51)
 *	target=N	cycles that one run shall take at least (400000)
 */
#ifndef NANO_H
#define NANO_H

#include "guest.h"
#include "paging.h"

#define LEAVE_VECTOR   0x31 /* user code is done */
#define SWITCH_VECTOR  0x32
#define SYSCALL_VECTOR 0x33
#define KERNEL_VECTOR  0x34
#define TIMER_VECTOR   0x50

struct nano {
	const char *name;
	void (*operation)(uint32_t n);
	uint32_t each;		  /* operations in one of n */
	bool counted;		  /* each operation makes a handler count an event */
	bool (*usable)(void);	  /* NULL: on every machine */
	uint32_t (*single)(void); /* instead of operation: does it `each` times, returns the cycles */
	bool on_request;	  /* takes seconds: only where the command line names it */
};

/* Ends the run: a benchmark's result is not what it must be. */
void nano_fail(const char *what, uint32_t got, uint32_t want) __attribute__((noreturn));

/* instructions.c, control.c, memory.c, timer.c, translation.c; each table ends with an empty row. */
extern const struct nano nano_instructions[], nano_control[], nano_memory[], nano_timer[], nano_translation[];

/* spaces.c: the memory layout, which is that of a small Unix.
 * Kernel: all of RAM at its physical address, supervisor, 4 KiB pages, global where the CPU can.
 * User: USER_BASE: code; then the stack; then USER_PAGES pages of data, each address space its own. */
#define USER_BASE   0x10000000u
#define USER_STACK_ (USER_BASE + 0x1000u)
#define USER_DATA_  (USER_BASE + 0x2000u)
#define USER_PAGES  32u
#define USER_SPARE  (USER_BASE + 0x100000u) /* present in no address space to begin with */
#define SPACES	    16u
#define WORKING_SET                                                                                          \
	0x1000000u /* physical: from here on nobody uses the memory but memory.c and translation.c */
#define MEMORY_NEEDS 0x3000000u
#define APIC	     0xfee00000u

struct space {
	uint32_t *directory, *user_table; /* at their physical addresses */
	uint32_t data[USER_PAGES];	  /* physical */
};
extern struct space spaces[SPACES];
extern uint32_t space_cr3[SPACES];

/* Is there memory up to this address? */
bool memory_reaches(uint32_t end);
void spaces_init(void);
void space_make(struct space *space, bool with_pages);
/* A zeroed page of memory that is never given back. */
uint32_t page_new(void);

/* handlers.S */
extern volatile uint32_t events;
extern uint32_t switch_mask, switch_left, switch_index, fault_table, fault_entries[1024];
extern volatile uint32_t timer_low;
void run_user(uint32_t eip, uint32_t n);
LABEL(leave_user);
LABEL(handle_count);
LABEL(handle_divide);
LABEL(handle_page_skip);
LABEL(handle_page_map);
LABEL(handle_switch);
LABEL(handle_sysenter);
LABEL(handle_timer);
LABEL(user_code);
LABEL(user_code_end);
LABEL(user_int);
LABEL(user_sysenter);
LABEL(user_divide);
LABEL(user_page_skip);
LABEL(user_touch);
LABEL(user_switch);

/* Where the user finds a place of handlers.S. */
static inline uint32_t user_linear(const char *code)
{
	return USER_BASE + (uint32_t)(code - user_code);
}

static inline uint32_t rdtsc_low(void)
{
	uint32_t low;

	__asm__ volatile("rdtsc" : "=a"(low) : : "edx", "memory");
	return low;
}

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* a * b / c; the quotient must fit. */
static inline uint32_t muldiv(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t high;

	__asm__("mull %2\n\tdivl %3" : "+a"(a), "=&d"(high) : "r"(b), "r"(c) : "cc");
	return a;
}

#endif
