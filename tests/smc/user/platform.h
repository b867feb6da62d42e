/*
 * The runtime of the guest tests, as far as the cases use it, for a Linux program without a C library: run()
 * goes into the state `in` and comes back with `out` by way of a signal. int 0x30 is a general protection
 * fault here, with an error code that names it.
 */
#ifndef SMC_PLATFORM_H
#define SMC_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAYGROUND  0x30000000u /* 4 MiB that may be read, written and executed */
#define DONE_VECTOR 0x30
#define X_BP	    3
#define X_PF	    14
#define CPUID_FXSR  (1u << 24)
#define CPUID_SSE   (1u << 25)

struct state {
	uint32_t edi, esi, ebp, ebx, edx, ecx, eax, eip, esp;
	uint32_t vector, error, cr2;
};
extern struct state in, out;

struct snippet {
	const char *start, *at, *after;
};

#define CODE(name, setup, instruction) CODE_THEN(name, setup, instruction, "")
#define CODE_THEN(name, setup, instruction, then)                                                            \
	__asm__(".pushsection .snippets, \"awx\"\n.balign 16\n" #name "_start:\n" setup "\n" #name           \
		"_at:\n" instruction "\n" #name "_after:\n" then "\n\tint $0x30\n.popsection");              \
	extern const char name##_start[], name##_at[], name##_after[];                                       \
	static const struct snippet name = {name##_start, name##_at, name##_after}

void run(const struct snippet *code);
static inline void user_mode(void)
{
}
bool cpu_has(uint32_t edx_bit);
void *memset(void *destination, int value, size_t size);
void *memcpy(void *destination, const void *source, size_t size);

#define MEM8(address)  (*(volatile uint8_t *)(uintptr_t)(address))
#define MEM16(address) (*(volatile uint16_t *)(uintptr_t)(address))
#define MEM32(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Linux's system calls, through int 0x80; the number of the call is i386's. */
static inline long call5(long number, long a, long b, long c, long d, long e)
{
	long result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
			 : "memory");
	return result;
}
#define SYS_EXIT	 1
#define SYS_FORK	 2
#define SYS_READ	 3
#define SYS_WRITE	 4
#define SYS_OPEN	 5
#define SYS_CLOSE	 6
#define SYS_WAITPID	 7
#define SYS_GETPID	 20
#define SYS_PTRACE	 26
#define SYS_KILL	 37
#define SYS_PIPE	 42
#define SYS_MUNMAP	 91
#define SYS_FTRUNCATE	 93
#define SYS_CLONE	 120
#define SYS_MPROTECT	 125
#define SYS_SCHED_YIELD	 158
#define SYS_RT_SIGACTION 174
#define SYS_PREAD	 180
#define SYS_PWRITE	 181
#define SYS_SIGALTSTACK	 186
#define SYS_MMAP	 192 /* offset in pages */
#define SYS_MEMFD_CREATE 356

#define PROT_RWX	 7
#define PROT_RW		 3
#define PROT_RX		 5
#define MAP_SHARED	 0x01
#define MAP_PRIVATE	 0x02
#define MAP_FIXED	 0x10
#define MAP_ANONYMOUS	 0x20

/* mmap with a sixth argument, the offset, of 0. */
uint32_t map_memory(uint32_t at, uint32_t bytes, int protection, int flags, int file);
/* Ends the program with a message: something that is no case failed. */
void fail(const char *what);

#endif
