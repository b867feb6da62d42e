/* Faults as signals: their kind, code and address, and that the program goes on exactly where it should. */
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include "common.h"

static sigjmp_buf jump;
static volatile int last_signal, last_code;
static void *volatile last_address;
static volatile uint32_t last_eip_byte, last_trap;
static volatile unsigned handled;

static void jump_out(int number, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	last_signal = number;
	last_code = info->si_code;
	last_address = info->si_addr;
	last_trap = (uint32_t)uc->uc_mcontext.gregs[REG_TRAPNO];
	handled++;
	siglongjmp(jump, 1);
}

/* Skips over the faulting instruction, whose length is in ebx (which the tests set up). */
static void skip(int number, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	last_signal = number;
	last_code = info->si_code;
	last_address = info->si_addr;
	last_eip_byte = *(uint8_t *)(uintptr_t)uc->uc_mcontext.gregs[REG_EIP];
	uc->uc_mcontext.gregs[REG_EIP] += uc->uc_mcontext.gregs[REG_EBX];
	handled++;
}

/* Makes the page accessible: the instruction is to run again, from its start. */
static uint8_t *region;
#define REGION 0x40000000u
#define PAGES 256u

static void open_page(int number, siginfo_t *info, void *context)
{
	uintptr_t page = (uintptr_t)info->si_addr & ~0xfffu;

	(void)context;
	last_signal = number;
	last_code = info->si_code;
	last_address = info->si_addr;
	handled++;
	if (page < REGION || page >= REGION + PAGES * 4096)
		_exit(9);
	mprotect((void *)page, 4096, PROT_READ | PROT_WRITE);
}

static void install(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};

	sigemptyset(&action.sa_mask);
	sigaction(number, &action, NULL);
}

static void report(const char *name)
{
	if (last_code <= 0) /* sent, not a fault: trap and address mean nothing */
		printf("%s: signal %d code %d\n", name, last_signal, last_code);
	else if (last_signal == SIGFPE || last_signal == SIGILL) /* the address is in our code */
		printf("%s: signal %d code %d trap %u\n", name, last_signal, last_code, last_trap);
	else
		printf("%s: signal %d code %d trap %u address %lx\n", name, last_signal, last_code, last_trap,
			   (unsigned long)last_address);
}

#define FAULT(name, ...)                        \
	do {                                        \
		last_signal = 0;                        \
		if (!sigsetjmp(jump, 1)) {              \
			__VA_ARGS__;                        \
			printf("%s: no signal\n", name);    \
		} else {                                \
			report(name);                       \
		}                                       \
	} while (0)

static int *volatile null;
static volatile int zero;

static void faults(void)
{
	volatile uint8_t *readonly = mmap((void *)0x50000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	uint8_t *plain = mmap((void *)0x50010000, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	munmap(plain + 4096, 4096);
	for (int number = 1; number < 32; number++)
		if (number == SIGSEGV || number == SIGFPE || number == SIGILL || number == SIGBUS || number == SIGTRAP)
			install(number, jump_out, 0);
	FAULT("null read", (void)*(volatile int *)null);
	FAULT("null write", ((volatile int *)null)[2] = 1);
	FAULT("kernel read", (void)*(volatile int *)0xfffff000);
	FAULT("read-only write", readonly[77] = 1);
	FAULT("unmapped", (void)*(volatile uint8_t *)(plain + 5000));
	FAULT("crossing read", (void)*(volatile uint32_t *)(plain + 4094));
	FAULT("crossing write", *(volatile uint32_t *)(plain + 4095) = 0x11223344);
	printf("crossing write left %02x\n", plain[4095]);
	FAULT("rep movs", __asm__ volatile("rep movsl" : : "S"(plain), "D"(plain + 2048), "c"(1024) : "memory"));
	FAULT("call to nowhere", ((void (*)(void))0x1000)());
	FAULT("divide by zero", __asm__ volatile("cltd\n\tidivl %0" : : "r"(zero), "a"(1) : "edx"));
	FAULT("divide overflow", __asm__ volatile("divl %0" : : "r"(2), "a"(0), "d"(7)));
	FAULT("ud2", __asm__ volatile("ud2"));
	FAULT("int3", __asm__ volatile("int3"));
	FAULT("int 3, long form", __asm__ volatile(".byte 0xcd, 3"));
	FAULT("into", __asm__ volatile("movb $127, %%al\n\taddb $1, %%al\n\tinto" : : : "eax"));
	FAULT("bound", {
		static int limits[2] = {0, 9};
		__asm__ volatile("boundl %0, %1" : : "r"(10), "m"(limits));
	});
	FAULT("hlt", __asm__ volatile("hlt"));
	FAULT("cli", __asm__ volatile("cli"));
	FAULT("in", __asm__ volatile("inb $0x60, %%al" : : : "eax"));
	FAULT("out", __asm__ volatile("outb %%al, $0x80" : : : "eax"));
	FAULT("mov cr3", __asm__ volatile("movl %%cr3, %%eax" : : : "eax"));
	FAULT("lgdt", __asm__ volatile("lgdt 0(%%esp)" : : : "memory"));
	FAULT("int 0x40", __asm__ volatile("int $0x40"));
	FAULT("bad segment", __asm__ volatile("movw %0, %%fs" : : "r"((short)0x1f3)));
	FAULT("misaligned sse", __asm__ volatile("movaps (%0), %%xmm0" : : "r"(plain + 1) : "xmm0"));
	FAULT("locked register", __asm__ volatile(".byte 0xf0, 0x90"));
	FAULT("too long", __asm__ volatile(".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90"));
	FAULT("raise", raise(SIGBUS));
	FAULT("x87 exception", {
		uint16_t control = 0x037b;
		__asm__ volatile("fninit\n\tfldcw %0\n\tfldz\n\tfld1\n\tfdivp\n\tfwait" : : "m"(control));
	});
	__asm__ volatile("fninit");
	FAULT("sse exception", {
		uint32_t control = 0x1d80;
		__asm__ volatile("ldmxcsr %0\n\txorps %%xmm1, %%xmm1\n\tpcmpeqd %%xmm0, %%xmm0\n\tpsrlw $7, %%xmm0\n\tdivsd %%xmm1, %%xmm0" : : "m"(control) : "xmm0", "xmm1");
	});
	{
		uint32_t control = 0x1f80;
		__asm__ volatile("ldmxcsr %0" : : "m"(control));
	}
	FAULT("single step", {
		__asm__ volatile("pushfl\n\torl $0x100, (%%esp)\n\tpopfl\n\tnop\n\tnop" : : : "cc", "memory");
	});
}

/* Registers and flags must be precise at a fault: the handler skips it and the program compares. */
static void precise(void)
{
	uint32_t a, c, d, s, flags;

	install(SIGSEGV, skip, 0);
	install(SIGILL, skip, 0);
	handled = 0;
	for (unsigned i = 0; i < 2000; i++) {
		__asm__ volatile("movl %5, %%eax\n\tmovl $7, %%ecx\n\tmovl %5, %%edx\n\txorl %%esi, %%esi\n\tmovl $2, %%ebx\n\t"
						 "addl $0x7ffffff0, %%eax\n\tmovl (%%esi), %%ecx\n\t" /* 8b 0e */
						 "pushfl\n\tpopl %4\n\tleal 1(%%edx,%%eax), %%edx\n\tud2\n\tadcl $3, %%esi"
						 : "=&a"(a), "=&c"(c), "=&d"(d), "=&S"(s), "=&D"(flags) : "m"(i) : "ebx", "cc", "memory");
		expect(a == i + 0x7ffffff0u && c == 7 && d == 2 * i + 0x7ffffff1u);
		expect(s == 3 + (flags & 1));
		expect(!!(flags & 0x800) == (i >= 16));
	}
	printf("precise: %u faults, last byte %02x\n", handled, last_eip_byte);
}

static void demand(void)
{
	struct hash h;
	uint64_t seed = 3;

	region = mmap((void *)REGION, PAGES * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	expect(region == (void *)REGION);
	install(SIGSEGV, open_page, 0);
	hash_start(&h);
	handled = 0;
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t r = random_next(&seed);

		*(uint32_t *)(region + r % (PAGES * 4096 - 4)) += (uint32_t)(r >> 32);
	}
	printf("demand: %u pages opened\n", handled);
	mprotect(region, PAGES * 4096, PROT_NONE);
	handled = 0;
	memset(region + 100, 0x5a, 50 * 4096);
	__asm__ volatile("cld\n\trep movsb" : : "S"(region + 200), "D"(region + 60 * 4096 + 5), "c"(40 * 4096) : "memory");
	printf("demand: %u pages opened by string instructions\n", handled);
	hash_bytes(&h, region, PAGES * 4096);
	hash_print(&h, "demand");
	munmap(region, PAGES * 4096);
}

static volatile int depth, deepest;
static void nested(int number, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	depth++;
	if (depth > deepest)
		deepest = depth;
	if (depth < 50)
		raise(number == SIGUSR1 ? SIGUSR2 : SIGUSR1);
	depth--;
}

static uint8_t stack[65536] __attribute__((aligned(16)));
static volatile int on_alternate;
static void overflowed(int number, siginfo_t *info, void *context)
{
	uint8_t here;

	(void)info;
	(void)context;
	on_alternate = &here >= stack && &here < stack + sizeof(stack);
	last_signal = number;
	siglongjmp(jump, 1);
}

static uint32_t overflow(uint32_t n)
{
	volatile uint8_t big[4096];

	big[n % 4096] = (uint8_t)n;
	return n ? overflow(n + 1) + big[0] : 0;
}

static volatile sig_atomic_t ticks;
static void tick(int number)
{
	(void)number;
	ticks++;
}

int main(void)
{
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
	sigset_t set, old;
	uint32_t x = 1;

	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	faults();
	precise();
	demand();

	install(SIGUSR1, nested, SA_NODEFER);
	install(SIGUSR2, nested, SA_NODEFER);
	for (unsigned i = 0; i < 100; i++)
		raise(SIGUSR1);
	printf("nested: deepest %d, now %d\n", deepest, depth);

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old);
	deepest = 0;
	raise(SIGUSR1);
	printf("blocked: %d\n", deepest);
	depth = 49;
	sigprocmask(SIG_SETMASK, &old, NULL);
	printf("unblocked: %d\n", deepest);
	depth = 0;

	sigaltstack(&alternate, NULL);
	install(SIGSEGV, overflowed, SA_ONSTACK);
	for (unsigned i = 0; i < 5; i++) {
		if (!sigsetjmp(jump, 1))
			printf("no overflow %u\n", overflow(1));
		expect(last_signal == SIGSEGV && on_alternate);
	}
	printf("stack overflow caught on the alternate stack\n");

	/* Timer signals in the middle of computation must not disturb it: registers, flags, x87 and SSE. */
	signal(SIGALRM, tick);
	ualarm(1000, 1000);
	double sse = 0;
	long double x87 = 0;
	for (unsigned i = 0; ticks < 50 || i < 3000000; i++) {
		if (i < 3000000) {
			x = x * 1664525 + 1013904223;
			x = (x << 7) | (x >> 25);
			sse += (double)(int32_t)x * 1e-9;
			x87 += (long double)(int32_t)x / 3;
		}
	}
	ualarm(0, 0);
	printf("undisturbed: %08x %.17g %.20Lg\n", x, sse, x87);
	return 0;
}
