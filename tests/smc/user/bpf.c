/* The kernel's own compiler: BPF programs loaded, run and freed, with results that are computed here as well.
 *
 *	bpf [ROUNDS]
 *
 * With net.core.bpf_jit_enable the kernel turns them into machine code; the last line says how many of the
 *programs were. Prints what it got wrong.
 */
#include "platform.h"

#define SYS_SOCKETCALL	      102
#define SYS_BPF		      357
#define SOCKETCALL_SOCKETPAIR 8
#define SOCKETCALL_SETSOCKOPT 14
#define AF_UNIX		      1
#define SOCK_DGRAM	      2
#define SOL_SOCKET	      1
#define SO_ATTACH_FILTER      26
#define BPF_PROG_LOAD	      5
#define BPF_PROG_TEST_RUN     10
#define BPF_OBJ_GET_INFO      15
#define BPF_SOCKET_FILTER     1

struct bpf_insn {
	uint8_t code, registers; /* destination in the low half */
	int16_t off;
	int32_t imm;
};
#define MOV64_IMM 0xb7
#define MOV64_REG 0xbf
#define EXIT	  0x95
/* 32-bit ALU operations with an immediate (BPF_ALU | BPF_K | operation) */
#define ADD32 0x04
#define SUB32 0x14
#define MUL32 0x24
#define OR32  0x44
#define AND32 0x54
#define LSH32 0x64
#define RSH32 0x74
#define XOR32 0xa4
#define JGT32 0x26 /* jump if greater, unsigned, 32 bits */

struct sock_filter {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};

static void print(const char *text)
{
	size_t n = 0;

	while (text[n])
		n++;
	call5(SYS_WRITE, 1, (long)text, n, 0, 0);
}

static void print_number(const char *what, uint32_t n)
{
	char digits[12];
	unsigned at = sizeof(digits) - 1;

	digits[at] = 0;
	do
		digits[--at] = '0' + n % 10;
	while (n /= 10);
	print(what);
	print(": ");
	print(digits + at);
	print("\n");
}

void *memset(void *destination, int value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((volatile uint8_t *)destination)[i] = value;
	return destination;
}

static long socketcall(int which, const long *arguments)
{
	return call5(SYS_SOCKETCALL, which, (long)arguments, 0, 0, 0);
}

static uint32_t random_next(uint32_t *state)
{
	return *state = *state * 1103515245 + 12345;
}

/* One random operation on r0, and what it does to x. */
static uint32_t operation(struct bpf_insn *p, uint32_t r, uint32_t k, uint32_t x)
{
	static const uint8_t codes[] = {ADD32, SUB32, MUL32, OR32, AND32, LSH32, RSH32, XOR32};
	const uint8_t code = codes[r % sizeof(codes)];

	if (code == LSH32 || code == RSH32)
		k &= 31;
	*p = (struct bpf_insn){.code = code, .imm = (int32_t)k};
	switch (code) {
	case ADD32:
		return x + k;
	case SUB32:
		return x - k;
	case MUL32:
		return x * k;
	case OR32:
		return x | k;
	case AND32:
		return x & k;
	case LSH32:
		return x << k;
	case RSH32:
		return x >> k;
	default:
		return x ^ k;
	}
}

/* A random function with branches over single operations. Returns the number of instructions; *result is its
 * value. */
static unsigned make_program(struct bpf_insn *p, uint32_t *state, uint32_t *result)
{
	uint32_t x = random_next(state);
	unsigned n = 0;

	p[n++] = (struct bpf_insn){.code = MOV64_IMM, .imm = (int32_t)x};
	for (unsigned i = 0; i < 12; i++) {
		uint32_t r = random_next(state) >> 16, k = random_next(state), y;

		if (r & 0x100) {
			p[n++] = (struct bpf_insn){.code = JGT32, .off = 1, .imm = (int32_t)(k >> 1)};
			y = operation(&p[n++], r, k, x);
			x = x > k >> 1 ? x : y;
		} else {
			x = operation(&p[n++], r, k, x);
		}
	}
	p[n++] = (struct bpf_insn){.code = EXIT};
	*result = x;
	return n;
}

static long bpf(int command, uint32_t *attributes, unsigned bytes)
{
	return call5(SYS_BPF, command, (long)attributes, bytes, 0, 0);
}

/* Whether the program is machine code: bpf_prog_info.jited_prog_len. */
static bool compiled(long program)
{
	uint32_t info[64] = {0}, attributes[4] = {(uint32_t)program, sizeof(info), (uint32_t)info};

	return bpf(BPF_OBJ_GET_INFO, attributes, sizeof(attributes)) == 0 && info[4] != 0;
}

static char verifier_log[65536];

static uint32_t loaded_programs(uint32_t rounds, uint32_t *machine_code)
{
	static uint8_t packet[64];
	uint32_t wrong = 0, state = 7;

	for (uint32_t i = 0; i < rounds; i++) {
		struct bpf_insn program[40];
		uint32_t want, attributes[32] = {BPF_SOCKET_FILTER, 0};
		unsigned n = make_program(program, &state, &want);

		/* type, count, instructions, license, log level, log size, log: 64-bit pointers */
		attributes[1] = n;
		attributes[2] = (uint32_t)program;
		attributes[4] = (uint32_t) "GPL";
		attributes[6] = 1;
		attributes[7] = sizeof(verifier_log);
		attributes[8] = (uint32_t)verifier_log;
		long file = bpf(BPF_PROG_LOAD, attributes, 72);
		if (file < 0) {
			print("bpf: a program was refused\n");
			print(verifier_log);
			return rounds;
		}
		*machine_code += compiled(file);
		/* program, result, size in, size out, data in, data out, repeat, duration */
		uint32_t test[12] = {(uint32_t)file, 0, sizeof(packet), 0, (uint32_t)packet, 0, 0, 0, 3, 0};
		wrong += bpf(BPF_PROG_TEST_RUN, test, sizeof(test)) != 0 || test[1] != want;
		call5(SYS_CLOSE, file, 0, 0, 0, 0);
	}
	return wrong;
}

/* A classic filter on a socket, each round another: packets that begin with a certain word are cut to a
 * length, others dropped. */
static uint32_t socket_filters(uint32_t rounds)
{
	static uint8_t packet[256], received[256];
	int ends[2];
	uint32_t wrong = 0, state = 3;

	if (socketcall(SOCKETCALL_SOCKETPAIR, (long[]){AF_UNIX, SOCK_DGRAM, 0, (long)ends}) < 0)
		fail("socketpair");
	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t word = random_next(&state), keep = (random_next(&state) >> 16) % 200 + 20;
		struct sock_filter filter[] = {
			{0x20, 0, 0, 0},    /* ld [0] */
			{0x15, 0, 1, word}, /* jeq word */
			{0x06, 0, 0, keep}, /* ret keep */
			{0x06, 0, 0, 0},    /* ret 0 */
		};
		struct {
			uint16_t n;
			struct sock_filter *code;
		} program = {4, filter};

		if (socketcall(SOCKETCALL_SETSOCKOPT, (long[]){ends[1], SOL_SOCKET, SO_ATTACH_FILTER,
							       (long)&program, sizeof(program)}) < 0)
			fail("setsockopt");
		/* one that is dropped, then one that is cut: only the second arrives */
		for (unsigned good = 0; good < 2; good++) {
			uint32_t first = good ? word : ~word;

			for (unsigned k = 0; k < 4; k++)
				packet[k] = (uint8_t)(first >> (24 - 8 * k));
			packet[keep - 1] = (uint8_t)i;
			call5(SYS_WRITE, ends[0], (long)packet, sizeof(packet), 0, 0);
		}
		wrong += call5(SYS_READ, ends[1], (long)received, sizeof(received), 0, 0) != (long)keep ||
			 received[keep - 1] != (uint8_t)i;
	}
	return wrong;
}

__asm__(".text\n.globl _start\n_start:\n\tmovl %esp, %eax; andl $-16, %esp; subl $12, %esp; pushl %eax; call "
	"start\n");
void start(char **stack);

void fail(const char *what)
{
	print("FAIL ");
	print(what);
	print("\n");
	for (;;)
		call5(SYS_EXIT, 1, 0, 0, 0, 0);
}

void start(char **stack)
{
	uint32_t rounds = 100, machine_code = 0, wrong;

	if ((uintptr_t)stack[0] > 1) {
		rounds = 0;
		for (const char *p = stack[2]; *p >= '0' && *p <= '9'; p++)
			rounds = rounds * 10 + (uint32_t)(*p - '0');
	}
	wrong = loaded_programs(rounds, &machine_code);
	print_number("programs with a wrong result", wrong);
	uint32_t cut = socket_filters(rounds);
	print_number("packets cut wrongly", cut);
	print_number("programs compiled", machine_code);
	for (;;)
		call5(SYS_EXIT, wrong || cut, 0, 0, 0, 0);
}
