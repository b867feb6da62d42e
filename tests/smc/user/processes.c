/* Code that the kernel, another mapping, another thread, another process or a debugger changes. */
#include "smc.h"

#define CLONE_VM	0x00000100
#define CLONE_FILES	0x00000400
#define SIGCHLD		17
#define SIGKILL		9
#define PTRACE_TRACEME	0
#define PTRACE_POKETEXT 4
#define PTRACE_CONT	7
#define PTRACE_GETREGS	12
#define PTRACE_SETREGS	13
#define SIGSTOP		19
#define SIGTRAP		5

static int code_file(uint32_t bytes)
{
	int file = (int)call5(SYS_MEMFD_CREATE, (long)"code", 0, 0, 0, 0);

	if (file < 0 || call5(SYS_FTRUNCATE, file, bytes, 0, 0, 0) < 0)
		fail("memfd_create");
	return file;
}

/* One file mapped twice: stored through one mapping, run through the other. */
static uint32_t two_mappings(uint32_t rounds)
{
	int file = code_file(4096);
	uint32_t run_at = map_memory(0, 4096, PROT_RX, MAP_SHARED, file);
	uint32_t write_at = map_memory(0, 4096, PROT_RW, MAP_SHARED, file), wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		emit_return(write_at + 100, i);
		serialize();
		wrong += call(run_at + 100) != i;
	}
	call5(SYS_MUNMAP, run_at, 4096, 0, 0, 0);
	call5(SYS_MUNMAP, write_at, 4096, 0, 0, 0);
	call5(SYS_CLOSE, file, 0, 0, 0, 0);
	return wrong;
}

/* The kernel stores: a file's page, a buffer that is read into, this process through /proc. */
static uint32_t written_by_the_kernel(uint32_t rounds)
{
	int file = code_file(4096), ends[2], self = (int)call5(SYS_OPEN, (long)"/proc/self/mem", 2, 0, 0, 0);
	uint32_t run_at = map_memory(0, 4096, PROT_RX, MAP_SHARED, file), wrong = 0;
	uint8_t code[6];

	if (call5(SYS_PIPE, (long)ends, 0, 0, 0, 0) < 0 || self < 0)
		fail("pipe or /proc/self/mem");
	for (uint32_t i = 0; i < rounds; i++) {
		emit_return((uint32_t)code, i);
		wrong += call5(SYS_PWRITE, file, (long)code, 6, 200, 0) != 6 || call(run_at + 200) != i;
		emit_return((uint32_t)code, i + 1);
		call5(SYS_WRITE, ends[1], (long)code, 6, 0, 0);
		wrong += call5(SYS_READ, ends[0], CODE_PAGE + 64, 6, 0, 0) != 6 ||
			 call(CODE_PAGE + 64) != i + 1;
		emit_return((uint32_t)code, i + 2);
		wrong += call5(SYS_PWRITE, self, (long)code, 6, CODE_PAGE + 128, 0) != 6;
		wrong += call(CODE_PAGE + 128) != i + 2;
	}
	call5(SYS_MUNMAP, run_at, 4096, 0, 0, 0);
	for (unsigned i = 0; i < 2; i++)
		call5(SYS_CLOSE, ends[i], 0, 0, 0, 0);
	call5(SYS_CLOSE, file, 0, 0, 0, 0);
	call5(SYS_CLOSE, self, 0, 0, 0, 0);
	return wrong;
}

/* Writable or executable, never both; then unmapped and mapped anew at the same address. */
static uint32_t flipped(uint32_t rounds)
{
	uint32_t at = map_memory(0, 4096, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1), wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		call5(SYS_MPROTECT, at, 4096, PROT_RW, 0, 0);
		emit_return(at, i);
		call5(SYS_MPROTECT, at, 4096, PROT_RX, 0, 0);
		wrong += call(at) != i;
	}
	for (uint32_t i = 0; i < rounds; i++) {
		call5(SYS_MUNMAP, at, 4096, 0, 0, 0);
		map_memory(at, 4096, PROT_RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1);
		emit_return(at, i);
		wrong += call(at) != i;
	}
	call5(SYS_MUNMAP, at, 4096, 0, 0, 0);
	return wrong;
}

/* What the two sides of the next two cases say to each other, in shared memory. */
struct board {
	volatile uint32_t turn, value;
};

static void wait_for(struct board *b, uint32_t turn)
{
	while (b->turn != turn)
		call5(SYS_SCHED_YIELD, 0, 0, 0, 0, 0);
}

/* Stores what the other side asks for, until it asks for nothing. */
static void writer(struct board *b, uint32_t at)
{
	for (;;) {
		wait_for(b, 1);
		if (b->value == ~0u)
			break;
		emit_return(at, b->value);
		b->turn = 0;
	}
	for (;;)
		call5(SYS_EXIT, 0, 0, 0, 0, 0);
}

static uint32_t ask(struct board *b, uint32_t at, uint32_t rounds)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		b->value = i;
		b->turn = 1;
		wait_for(b, 0);
		serialize();
		wrong += call(at) != i;
	}
	b->value = ~0u;
	b->turn = 1;
	return wrong;
}

static uint32_t other_process(uint32_t rounds)
{
	int file = code_file(8192);
	uint32_t at = map_memory(0, 8192, PROT_RWX, MAP_SHARED, file), wrong;
	struct board *b = (struct board *)(at + 4096);
	long child = call5(SYS_FORK, 0, 0, 0, 0, 0);

	if (!child)
		writer(b, at);
	wrong = ask(b, at, rounds);
	call5(SYS_WAITPID, child, 0, 0, 0, 0);
	call5(SYS_MUNMAP, at, 8192, 0, 0, 0);
	call5(SYS_CLOSE, file, 0, 0, 0, 0);
	return wrong;
}

/* After a fork each side changes its own copy. */
static uint32_t copied_by_fork(uint32_t rounds)
{
	uint32_t wrong = 0, status;

	for (uint32_t i = 0; i < rounds; i++) {
		emit_return(CODE_PAGE, i);
		long child = call5(SYS_FORK, 0, 0, 0, 0, 0);
		if (!child) {
			uint32_t good = call(CODE_PAGE) == i;

			MEM32(CODE_PAGE + 1) = i + 1000;
			good &= call(CODE_PAGE) == i + 1000;
			for (;;)
				call5(SYS_EXIT, good ? 7 : 1, 0, 0, 0, 0);
		}
		MEM32(CODE_PAGE + 1) = i + 2000;
		wrong += call(CODE_PAGE) != i + 2000;
		call5(SYS_WAITPID, child, (long)&status, 0, 0, 0);
		wrong += status != 7 << 8;
		wrong += call(CODE_PAGE) != i + 2000;
	}
	return wrong;
}

static struct board thread_board;
static uint8_t thread_stack[16384] __attribute__((aligned(16)));

/* Runs on thread_stack, where the child of the clone in other_thread finds its address. */
static void thread(void)
{
	writer(&thread_board, CODE_PAGE + 256);
}

static uint32_t other_thread(uint32_t rounds)
{
	uint32_t *top = (uint32_t *)(thread_stack + sizeof(thread_stack)) - 4, wrong;
	long child;

	thread_board.turn = 0;
	*top = (uint32_t)thread;
	__asm__ volatile("int $0x80; testl %%eax, %%eax; jnz 1f; popl %%eax; call *%%eax; 1:"
			 : "=a"(child)
			 : "0"(SYS_CLONE), "b"(CLONE_VM | CLONE_FILES | SIGCHLD), "c"(top), "d"(0), "S"(0),
			   "D"(0)
			 : "memory");
	wrong = ask(&thread_board, CODE_PAGE + 256, rounds);
	call5(SYS_WAITPID, child, 0, 0, 0, 0);
	return wrong;
}

/* struct user_regs_struct of i386 */
enum { PT_EAX = 6, PT_EIP = 12, PT_REGISTERS = 17 };

/* The one that is debugged: a loop that counts in memory; the breakpoint is for the increment. */
static void debuggee(volatile uint32_t *count)
{
	call5(SYS_PTRACE, PTRACE_TRACEME, 0, 0, 0, 0);
	call5(SYS_KILL, call5(SYS_GETPID, 0, 0, 0, 0, 0), SIGSTOP, 0, 0, 0);
	for (;;) {
		call(CODE_PAGE + 512);
		++*count;
	}
}

/* A debugger's breakpoint in another process, through ptrace: put in, met, taken out, stepped back over, put
 * in again at the next function. */
static uint32_t debugger(uint32_t rounds)
{
	int file = code_file(4096);
	volatile uint32_t *count = (volatile uint32_t *)map_memory(0, 4096, PROT_RW, MAP_SHARED, file);
	const uint32_t at = CODE_PAGE + 512;
	uint32_t wrong = 0, status, registers[PT_REGISTERS];

	/* nop; mov eax, 5; ret */
	MEM8(at) = 0x90;
	emit_return(at + 1, 5);
	long child = call5(SYS_FORK, 0, 0, 0, 0, 0);
	if (!child)
		debuggee(count);
	call5(SYS_WAITPID, child, (long)&status, 0, 0, 0);
	for (uint32_t i = 0; i < rounds; i++) {
		/* by turns at the first byte and at the ret; the words around stay as they are */
		uint32_t offset = i & 1 ? 6 : 0, word = at + offset, old = MEM32(word);

		call5(SYS_PTRACE, PTRACE_POKETEXT, child, word, (long)((old & ~0xffu) | 0xcc), 0);
		call5(SYS_PTRACE, PTRACE_CONT, child, 0, 0, 0);
		call5(SYS_WAITPID, child, (long)&status, 0, 0, 0);
		wrong += status != (SIGTRAP << 8 | 0x7f);
		call5(SYS_PTRACE, PTRACE_GETREGS, child, 0, (long)registers, 0);
		wrong += registers[PT_EIP] != word + 1 || (offset && registers[PT_EAX] != 5);
		registers[PT_EIP] = word;
		call5(SYS_PTRACE, PTRACE_SETREGS, child, 0, (long)registers, 0);
		call5(SYS_PTRACE, PTRACE_POKETEXT, child, word, (long)old, 0);
	}
	/* it has gone round once for each two breakpoints */
	wrong += *count + 1 < rounds / 2 || *count > rounds / 2 + 1;
	call5(SYS_KILL, child, SIGKILL, 0, 0, 0);
	call5(SYS_WAITPID, child, (long)&status, 0, 0, 0);
	call5(SYS_MUNMAP, (long)count, 4096, 0, 0, 0);
	call5(SYS_CLOSE, file, 0, 0, 0, 0);
	return wrong;
}

static const struct smc_case cases[] = {
	{"two-mappings", two_mappings, 1000, 3}, {"written-by-the-kernel", written_by_the_kernel, 300, 18},
	{"flipped-protection", flipped, 300, 6}, {"other-process", other_process, 200, 3},
	{"other-thread", other_thread, 200, 3},	 {"copied-by-fork", copied_by_fork, 30, 3},
	{"debugger", debugger, 200, 2},
};
const struct smc_group smc_processes = {cases, sizeof(cases) / sizeof(cases[0])};
