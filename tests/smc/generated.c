/* Generated code: emitted, run, patched, moved, freed and emitted anew. */
#include "smc.h"

static uint32_t random_next(uint32_t *state)
{
	return *state = *state * 1103515245 + 12345;
}

static uint32_t emitted_in_place(uint32_t rounds)
{
	uint32_t wrong = 0, state = 1;

	for (uint32_t i = 0; i < rounds; i++) {
		emit_return(CODE_PAGE, random_next(&state));
		wrong += call(CODE_PAGE) != state;
	}
	return wrong;
}

/* All over a page and across its end. */
static uint32_t emitted_everywhere(uint32_t rounds)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t at = CODE_PAGE + i * 24 % 4096;

		emit_return(at, i);
		wrong += call(at) != i;
	}
	return wrong;
}

static uint32_t immediate_patched(uint32_t rounds)
{
	uint32_t wrong = 0;

	emit_return(CODE_PAGE, 0);
	for (uint32_t i = 0; i < rounds; i++) {
		MEM32(CODE_PAGE + 1) = i;
		wrong += call(CODE_PAGE) != i;
	}
	return wrong;
}

/* The same from CPL 3's own store: mov [imm], ecx; mov eax, imm; int 0x30. */
static uint32_t immediate_patched_user(uint32_t rounds)
{
	uint32_t wrong = 0;

	MEM16(CODE_PAGE) = 0x0d89;
	MEM32(CODE_PAGE + 2) = CODE_PAGE + 7;
	emit_snippet(CODE_PAGE + 6, 0);
	for (uint32_t i = 0; i < rounds; i++) {
		in.ecx = i;
		wrong += call_user(CODE_PAGE) != i;
	}
	return wrong;
}

static uint32_t freed_and_moved(uint32_t rounds)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		memset((void *)(CODE_PAGE + 0x100), 0xcc, 64);
		emit_return(CODE_PAGE + 0x100 + i % 16, i);
		wrong += call(CODE_PAGE + 0x100 + i % 16) != i;
	}
	return wrong;
}

/* Freed with rep stosd, filled with rep movsb, as C libraries do it. */
static uint32_t copied_by_rep(uint32_t rounds)
{
	static const uint8_t code[] = {0xb8, 0, 0, 0, 0, 0x83, 0xc0, 0x01, 0xc3};
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t to = CODE_PAGE + 0x200, n = 256;
		const uint8_t *from = code;

		__asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(0xcccccccc) : "memory");
		to = CODE_PAGE + 0x200 + i % 32 * 16;
		n = sizeof(code);
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
		MEM32(CODE_PAGE + 0x200 + i % 32 * 16 + 1) = i;
		wrong += call(CODE_PAGE + 0x200 + i % 32 * 16) != i + 1;
	}
	return wrong;
}

/* A chain of blocks, each jumping to the next; one in the middle is redirected each round. */
static uint32_t chain_redirected(uint32_t rounds)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < 16; i++) {
		MEM8(CODE_PAGE + i * 64) = 0x83; /* add eax, i */
		MEM8(CODE_PAGE + i * 64 + 1) = 0xc0;
		MEM8(CODE_PAGE + i * 64 + 2) = i;
		MEM8(CODE_PAGE + i * 64 + 3) = 0xe9; /* jmp next */
		MEM32(CODE_PAGE + i * 64 + 4) = 64 - 8;
	}
	MEM8(CODE_PAGE + 16 * 64) = 0xc3;
	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t result = 0, skip = i % 14 + 1, sum = 120 - (skip + 1);

		MEM32(CODE_PAGE + skip * 64 + 4) = 128 - 8;
		__asm__ volatile("call *%1" : "+a"(result) : "r"(CODE_PAGE) : "memory", "cc");
		MEM32(CODE_PAGE + skip * 64 + 4) = 64 - 8;
		wrong += result != sum;
	}
	return wrong;
}

/* A call site patched between five functions, as static calls and tracers are. */
static uint32_t call_site(uint32_t rounds)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < 5; i++)
		emit_return(CODE_PAGE + 0x800 + i * 32, i * i);
	MEM8(CODE_PAGE) = 0xe8;
	MEM8(CODE_PAGE + 5) = 0xc3;
	for (uint32_t i = 0; i < rounds; i++) {
		MEM32(CODE_PAGE + 1) = 0x800 + i % 5 * 32 - 5;
		wrong += call(CODE_PAGE) != i % 5 * (i % 5);
	}
	return wrong;
}

/* Five-byte nop to jump and back, as static keys are. */
static uint32_t nop_to_jump(uint32_t rounds)
{
	static const uint8_t nop5[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00}, jmp5[5] = {0xe9, 6, 0, 0, 0};
	uint32_t wrong = 0;

	emit_return(CODE_PAGE + 5, 1);
	emit_return(CODE_PAGE + 11, 2);
	for (uint32_t i = 0; i < rounds; i++) {
		emit(CODE_PAGE, i & 1 ? jmp5 : nop5, 5);
		wrong += call(CODE_PAGE) != (i & 1) + 1;
	}
	return wrong;
}

/* What a debugger does: put a breakpoint in, meet it, take it out, run on. */
static uint32_t breakpoint(uint32_t rounds)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		emit_snippet(CODE_PAGE, i);
		MEM8(CODE_PAGE + 5) = 0xcc;
		call_user(CODE_PAGE);
		wrong += out.vector != X_BP || out.eax != i || out.eip != CODE_PAGE + 6;
		MEM8(CODE_PAGE + 5) = 0xcd;
		wrong += call_user(CODE_PAGE) != i;
	}
	return wrong;
}

/* The way of a kernel that patches live code: breakpoint over the first byte, then the tail, then the head.
 */
static uint32_t patched_behind_breakpoint(uint32_t rounds)
{
	uint32_t wrong = 0;

	emit_snippet(CODE_PAGE, 0);
	for (uint32_t i = 1; i <= rounds; i++) {
		MEM8(CODE_PAGE) = 0xcc;
		serialize();
		call_user(CODE_PAGE);
		wrong += out.vector != X_BP;
		MEM32(CODE_PAGE + 1) = i;
		serialize();
		call_user(CODE_PAGE);
		wrong += out.vector != X_BP;
		MEM8(CODE_PAGE) = 0xb8;
		serialize();
		wrong += call_user(CODE_PAGE) != i;
	}
	return wrong;
}

/* The unpacking loop is written anew each round, decodes what stands behind it and jumps there. */
static uint32_t unpacker(uint32_t rounds)
{
	static const uint8_t loop[] = {
		0xb9, 0x06, 0x00, 0x00, 0x00, /* mov ecx, 6 */
		0x80, 0x74, 0x08, 0x1f, 0x00, /* 1: xor byte [eax + ecx + 0x1f], key */
		0xe2, 0xf9,		      /* loop 1b */
		0x83, 0xc0, 0x20,	      /* add eax, 0x20 */
		0xff, 0xe0,		      /* jmp eax */
	};
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t result = CODE_PAGE;

		emit(CODE_PAGE, loop, sizeof(loop));
		emit_return(CODE_PAGE + 0x20, i);
		MEM8(CODE_PAGE + 9) = i;
		for (unsigned k = 0; k < 6; k++)
			MEM8(CODE_PAGE + 0x20 + k) ^= i;
		__asm__ volatile("call *%0" : "+a"(result) : : "ecx", "edx", "memory", "cc");
		wrong += result != i;
	}
	return wrong;
}

/* A small compiler: a chain of operations on eax, whose result it computes as well. */
static uint32_t compile(uint32_t at, uint32_t *state, uint32_t *patch)
{
	uint32_t x = random_next(state), n = (x >> 8) % 6;

	emit_return(at, x);
	*patch = at + 1;
	for (at += 5; n--; at += 5) {
		uint32_t k = random_next(state);

		MEM32(at + 1) = k;
		MEM8(at) = k & 0x10000 ? 0x05 : 0x35; /* add or xor eax, k */
		x = k & 0x10000 ? x + k : x ^ k;
	}
	MEM8(at) = 0xc3;
	return x;
}

/* Emits a function somewhere in 256 KiB, runs it, patches its constant, runs it, frees it. */
static uint32_t jit(uint32_t rounds)
{
	uint32_t wrong = 0, state = 1, patch, constant;

	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t at = JIT_ARENA + (i * 40503 & 0x7ff) * 128, want = compile(at, &state, &patch);

		wrong += call(at) != want;
		constant = MEM32(patch);
		MEM32(patch) = constant + 1;
		MEM8(at + 5) = 0xc3; /* the rest is cut off */
		wrong += call(at) != constant + 1;
		for (uint32_t k = 0; k < 40; k += 4)
			MEM32(at + k) = 0xcccccccc;
	}
	return wrong;
}

static const struct smc_case cases[] = {
	{"emitted-in-place", emitted_in_place, 2000, 3},
	{"emitted-everywhere", emitted_everywhere, 2000, 3},
	{"immediate-patched", immediate_patched, 2000, 1},
	{"immediate-patched-user", immediate_patched_user, 1000, 1},
	{"freed-and-moved", freed_and_moved, 500, 67},
	{"copied-by-rep", copied_by_rep, 500, 266},
	{"chain-redirected", chain_redirected, 1000, 2},
	{"call-site", call_site, 1000, 1},
	{"nop-to-jump", nop_to_jump, 1000, 5},
	{"breakpoint", breakpoint, 500, 6},
	{"patched-behind-breakpoint", patched_behind_breakpoint, 300, 3},
	{"unpacker", unpacker, 300, 33},
	{"jit", jit, 5000, 22},
};
const struct smc_group smc_generated = {cases, sizeof(cases) / sizeof(cases[0])};
