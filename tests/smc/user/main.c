/* The program's side of the suite: start, signals, and the list of cases.
 *
 *	smc [NAME [ROUNDS]]
 */
#include "smc.h"

#define SIGILL	    4
#define SIGTRAP	    5
#define SIGBUS	    7
#define SIGFPE	    8
#define SIGSEGV	    11
#define SA_SIGINFO  0x00000004u
#define SA_ONSTACK  0x08000000u
#define SA_NODEFER  0x40000000u
#define SA_RESTORER 0x04000000u

/* struct sigcontext of i386, behind flags, link and stack in struct ucontext. */
enum {
	GR_EDI = 4,
	GR_ESI,
	GR_EBP,
	GR_ESP,
	GR_EBX,
	GR_EDX,
	GR_ECX,
	GR_EAX,
	GR_TRAPNO,
	GR_ERR,
	GR_EIP,
	GR_EFL = 16,
	GR_CR2 = 21
};
#define CONTEXT_REGISTERS 5

struct kernel_sigaction {
	void (*handler)(int number, void *info, uint32_t *context);
	unsigned long flags;
	void (*restorer)(void);
	uint32_t mask[2];
};

struct state in, out;
static uint32_t runner_esp;
static uint8_t signal_stack[65536] __attribute__((aligned(16)));

void *memset(void *destination, int value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((volatile uint8_t *)destination)[i] = value;
	return destination;
}

void *memcpy(void *destination, const void *source, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((volatile uint8_t *)destination)[i] = ((const uint8_t *)source)[i];
	return destination;
}

static void print(const char *text)
{
	size_t n = 0;

	while (text[n])
		n++;
	call5(SYS_WRITE, 1, (long)text, n, 0, 0);
}

static void print_number(uint32_t n)
{
	char digits[12];
	unsigned at = sizeof(digits) - 1;

	digits[at] = 0;
	do
		digits[--at] = '0' + n % 10;
	while (n /= 10);
	print(digits + at);
}

static void finish(int status) __attribute__((noreturn));
static void finish(int status)
{
	for (;;)
		call5(SYS_EXIT, status, 0, 0, 0, 0);
}

void fail(const char *what)
{
	print("FAIL ");
	print(what);
	print("\n");
	finish(1);
}

uint32_t map_memory(uint32_t at, uint32_t bytes, int protection, int flags, int file)
{
	uint32_t result;

	__asm__ volatile("pushl %%ebp; xorl %%ebp, %%ebp; int $0x80; popl %%ebp"
			 : "=a"(result)
			 : "0"(SYS_MMAP), "b"(at), "c"(bytes), "d"(protection), "S"(flags), "D"(file)
			 : "memory");
	if (result > -4096u)
		fail("mmap");
	return result;
}

bool cpu_has(uint32_t edx_bit)
{
	uint32_t eax = 1, edx;

	__asm__("cpuid" : "+a"(eax), "=d"(edx) : : "ebx", "ecx");
	return edx & edx_bit;
}

/* run_snippet saves what C wants kept, loads `in` and jumps; back_here is where the handler sends us. */
__asm__(".text\n"
	"run_snippet:\n\tpushal\n\tmovl %esp, runner_esp\n"
	"\tmovl in, %edi; movl in + 4, %esi; movl in + 8, %ebp; movl in + 12, %ebx; movl in + 16, %edx\n"
	"\tmovl in + 20, %ecx; movl in + 24, %eax; jmp *in + 28\n"
	"back_here:\n\tcld; popal\n\tret\n"
	"restorer:\n\tmovl $173, %eax; int $0x80\n"
	".globl _start\n_start:\n\tmovl %esp, %eax; andl $-16, %esp; subl $12, %esp; pushl %eax; call "
	"start\n");
void run_snippet(void);
void restorer(void);
extern const char back_here[];

static void on_signal(int number, void *info, uint32_t *context)
{
	uint32_t *r = context + CONTEXT_REGISTERS;

	(void)number;
	(void)info;
	if (!runner_esp)
		fail("a signal outside any snippet");
	out = (struct state){.edi = r[GR_EDI],
			     .esi = r[GR_ESI],
			     .ebp = r[GR_EBP],
			     .ebx = r[GR_EBX],
			     .edx = r[GR_EDX],
			     .ecx = r[GR_ECX],
			     .eax = r[GR_EAX],
			     .eip = r[GR_EIP],
			     .esp = r[GR_ESP],
			     .vector = r[GR_TRAPNO],
			     .error = r[GR_ERR],
			     .cr2 = r[GR_CR2]};
	if (out.vector == 13 && out.error == DONE_VECTOR * 8 + 2)
		out.vector = DONE_VECTOR;
	r[GR_ESP] = runner_esp;
	r[GR_EIP] = (uint32_t)back_here;
	runner_esp = 0;
}

void run(const struct snippet *code)
{
	in.eip = (uint32_t)code->start;
	run_snippet();
	in = (struct state){0};
}

static void set_up(void)
{
	static const int signals[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV};
	const struct kernel_sigaction action = {.handler = on_signal,
						.flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTORER,
						.restorer = restorer};
	const uint32_t stack[3] = {(uint32_t)signal_stack, 0, sizeof(signal_stack)};

	call5(SYS_SIGALTSTACK, (long)stack, 0, 0, 0, 0);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		call5(SYS_RT_SIGACTION, signals[i], (long)&action, 0, 8, 0);
	map_memory(PLAYGROUND, 4 << 20, PROT_RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1);
}

static uint32_t run_case(const struct smc_case *c, uint32_t rounds)
{
	uint32_t wrong = 0;

	if (c->run)
		return c->run(rounds);
	for (uint32_t i = 0; i < rounds; i++) {
		run(c->code);
		wrong += out.vector != DONE_VECTOR || out.eax != c->want;
	}
	return wrong;
}

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static uint32_t number(const char *text)
{
	uint32_t n = 0;

	while (*text >= '0' && *text <= '9')
		n = n * 10 + (uint32_t)(*text++ - '0');
	return n;
}

void start(char **stack);

/* The stack as the kernel leaves it: the number of arguments, then they. */
void start(char **stack)
{
	static const struct smc_group *const groups[] = {&smc_stores, &smc_generated, &smc_mixed,
							 &smc_processes};
	const unsigned arguments = (unsigned)(uintptr_t)stack[0];
	const char *name = arguments > 1 ? stack[2] : NULL;
	uint32_t bad = 0, ran = 0;

	set_up();
	for (unsigned g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
		for (unsigned i = 0; i < groups[g]->n; i++) {
			const struct smc_case *c = &groups[g]->cases[i];
			uint32_t wrong;

			if ((name && !same(name, c->name)) || (c->cpuid && !cpu_has(c->cpuid)))
				continue;
			wrong = run_case(c, arguments > 2 ? number(stack[3]) : c->rounds);
			print(c->name);
			print(": ");
			print_number(wrong);
			print(wrong ? " FAIL\n" : "\n");
			bad += !!wrong;
			ran++;
		}
	}
	print(bad || !ran ? "FAIL smc\n" : "PASS smc\n");
	finish(bad || !ran);
}
