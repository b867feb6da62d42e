/*
 * Code that changes itself: the very next instruction, and a small generated function that is patched
 * between calls. A 32-bit x86 sees such a store at once, without any flush (SDM vol. 3A 8.1.3 and 11.6
 * ask for a jump between store and execution across processors and for linear-address aliases; same-address
 * stores have been picked up since the Pentium by the prefetch queue's snooping).
 */
#include "demo.h"

#define JIT_PATCHES 20000u

/* Store value into the immediate of the instruction that follows, run that instruction. */
static uint32_t next_instruction(uint8_t value)
{
	uint32_t result;

	__asm__ volatile("movb	%b1, 1f + 1\n"
			 "1:	movl	$0x11223300, %%eax"
			 : "=&a"(result)
			 : "q"(value)
			 : "memory");
	return result;
}

static uint8_t jit_code[64] __attribute__((aligned(64)));

static void put32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = value >> 8 * i;
}

/* uint32_t f(void): mov eax, A; imul eax, eax, B; op eax, C; ret */
static void jit_emit(uint32_t a, uint32_t b, uint32_t c)
{
	jit_code[0] = 0xb8;
	put32(jit_code + 1, a);
	jit_code[5] = 0x69;
	jit_code[6] = 0xc0;
	put32(jit_code + 7, b);
	jit_code[11] = 0x05;
	put32(jit_code + 12, c);
	jit_code[16] = 0xc3;
}

static uint32_t jit_call(void)
{
	uint32_t (*function)(void) = (uint32_t(*)(void))(uintptr_t)jit_code;

	__asm__ volatile("" : : : "memory");
	return function();
}

/* Each round replaces one operand, and the operation every so often; returns how many results were wrong. */
static unsigned jit_loop(void)
{
	static const uint8_t opcode[4] = {0x05, 0x2d, 0x35, 0x0d}; /* add, sub, xor, or eax, imm32 */
	uint32_t a = 1, b = 3, c = 5, state = 12345, operation = 0;
	unsigned wrong = 0;

	jit_emit(a, b, c);
	for (unsigned i = 0; i < JIT_PATCHES; i++) {
		uint32_t expected;

		state = state * 1664525 + 1013904223;
		switch (i % 4) {
		case 0:
			put32(jit_code + 1, a = state);
			break;
		case 1:
			put32(jit_code + 7, b = state);
			break;
		case 2:
			put32(jit_code + 12, c = state);
			break;
		default:
			operation = state >> 30;
			jit_code[11] = opcode[operation];
		}
		expected = a * b;
		switch (operation) {
		case 0:
			expected += c;
			break;
		case 1:
			expected -= c;
			break;
		case 2:
			expected ^= c;
			break;
		default:
			expected |= c;
		}
		wrong += jit_call() != expected;
	}
	return wrong;
}

void selfmod_show(void)
{
	unsigned wrong = 0;

	topic("self-patch");
	for (unsigned i = 0; i < 256; i++)
		wrong += next_instruction(i) != (0x11223300 | i);
	if (wrong)
		panic("the next instruction was stale %u times of 256", wrong);
	print("256 stores into the very next instruction, every one seen\n");

	topic("jit");
	wrong = jit_loop();
	if (wrong)
		panic("%u of %u patched calls gave a wrong result", wrong, JIT_PATCHES);
	print("a generated function patched and called %u times, all results right\n", JIT_PATCHES);
}
