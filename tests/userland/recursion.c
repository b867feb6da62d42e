/* Deep call chains and ways out of them that no return instruction takes: what a return predictor has to survive. */
#include <setjmp.h>
#include <ucontext.h>
#include "common.h"

static jmp_buf jump;
static uint32_t counter;

__attribute__((noinline)) static uint32_t ackermann(uint32_t m, uint32_t n)
{
	counter++;
	if (!m)
		return n + 1;
	return ackermann(m - 1, n ? ackermann(m, n - 1) : 1);
}

__attribute__((noinline)) static uint32_t fibonacci(uint32_t n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winfinite-recursion" /* longjmp ends it */
__attribute__((noinline)) static uint32_t dive(uint32_t depth, uint32_t stop, uint32_t x)
{
	volatile uint32_t here = x;

	if (depth == stop)
		longjmp(jump, (int)(x & 0xffff) + 1);
	x = dive(depth + 1, stop, x * 3 + depth);
	return x + here;
}
#pragma GCC diagnostic pop

__attribute__((noinline)) static uint32_t descend(uint32_t depth, uint32_t x)
{
	volatile uint32_t here = x;

	if (!depth)
		return x;
	return descend(depth - 1, x * 5 + 1) ^ here;
}

/* A return address changed on the stack: the return goes where it says, not where the call came from. */
__attribute__((naked, noinline)) static uint32_t detour(uint32_t x __attribute__((unused)))
{
	__asm__("movl 4(%esp), %eax\n\t"
			"pushl $1f\n\t"
			"testl $1, %eax\n\t"
			"jz 2f\n\t"
			"movl $3f, (%esp)\n"
			"2:\tret\n"
			"1:\taddl $100, %eax\n\tret\n"
			"3:\tsubl $100, %eax\n\tcall 4f\n4:\taddl $8, %esp\n\tjmp *-4(%esp)");
}

static ucontext_t main_context, contexts[4];
static uint32_t trail;

static void coroutine(int id)
{
	for (uint32_t i = 0;; i++) {
		trail = trail * 31 + (uint32_t)id * 7 + i;
		if (fibonacci((uint32_t)id + 5) == 0)
			return;
		swapcontext(&contexts[id], id == 3 ? &main_context : &contexts[id + 1]);
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int main(void)
{
	static uint8_t stacks[4][32768];
	static uint32_t numbers[100000];
	volatile uint32_t sum = 0, jumps = 0;
	uint64_t seed = 47;
	struct hash h;

	printf("ackermann %u", ackermann(2, 300));
	printf(" calls %u\n", counter);
	printf("fibonacci %u\n", fibonacci(27));
	for (volatile uint32_t i = 0; i < 3000; i++) {
		int value = setjmp(jump);

		if (!value)
			dive(0, i % 97 * 20, i);
		else
			jumps = jumps * 7 + (uint32_t)value;
	}
	printf("longjmp %08x\n", jumps);
	for (uint32_t i = 0; i < 50; i++)
		sum = sum * 3 + descend(20000 + i * 100, i);
	printf("descend %08x\n", sum);
	for (uint32_t i = 0; i < 200000; i++)
		sum = sum * 3 + detour(i);
	printf("detour %08x\n", sum);
	for (int i = 0; i < 4; i++) {
		getcontext(&contexts[i]);
		contexts[i].uc_stack.ss_sp = stacks[i];
		contexts[i].uc_stack.ss_size = sizeof(stacks[i]);
		contexts[i].uc_link = &main_context;
		makecontext(&contexts[i], (void (*)(void))coroutine, 1, i);
	}
	for (unsigned i = 0; i < 5000; i++)
		swapcontext(&main_context, &contexts[0]);
	printf("coroutines %08x\n", trail);
	for (unsigned i = 0; i < 100000; i++)
		numbers[i] = (uint32_t)random_next(&seed);
	qsort(numbers, 100000, sizeof(numbers[0]), compare);
	hash_start(&h);
	hash_bytes(&h, numbers, sizeof(numbers));
	hash_print(&h, "qsort");
	return 0;
}
