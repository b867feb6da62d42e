/* Code that is written, run, patched and written again in user space, in all the ways programs do it:
 * a small compiler into RWX memory, patched immediates and branch targets, code that changes the instruction
 * right after itself, two mappings of the same page, mprotect flips, and code copied over other code. */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

typedef uint32_t (*function)(uint32_t);

static uint8_t *code;
#define SIZE (64 * 4096)

static uint8_t *put8(uint8_t *p, uint8_t x)
{
	*p = x;
	return p + 1;
}

static uint8_t *put32(uint8_t *p, uint32_t x)
{
	memcpy(p, &x, 4);
	return p + 4;
}

/* Emits f(x) as a chain of operations on eax; computes in *expected what it does to *expected. */
static uint8_t *compile(uint8_t *p, uint64_t *seed, unsigned operations, uint32_t *expected)
{
	uint32_t x = *expected;

	p = put32(p, 0x0424448b); /* mov eax, [esp+4] */
	while (operations--) {
		uint64_t r = random_next(seed);
		uint32_t k = (uint32_t)(r >> 32);

		switch (r % 7) {
		case 0: p = put32(put8(p, 0x05), k); x += k; break;
		case 1: p = put32(put8(p, 0x35), k); x ^= k; break;
		case 2: p = put32(put8(put8(p, 0x69), 0xc0), k); x *= k; break;
		case 3: p = put8(put8(put8(p, 0xc1), 0xc0), k & 31); x = (x << (k & 31)) | (x >> ((32 - (k & 31)) & 31)); break;
		case 4: p = put8(put8(p, 0xf7), 0xd0); x = ~x; break;
		case 5: p = put8(put8(p, 0x0f), 0xc8); x = __builtin_bswap32(x); break;
		case 6: /* test al, 1; jz +5; add eax, imm */
			p = put8(put8(p, 0xa8), 1);
			p = put8(put8(p, 0x74), 5);
			p = put32(put8(p, 0x05), k);
			if (x & 1)
				x += k;
			break;
		}
	}
	*expected = x;
	return put8(p, 0xc3);
}

static void rewritten(void)
{
	uint64_t seed = 53;
	uint32_t x = 1, expected;
	struct hash h;

	hash_start(&h);
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t *at = code + random_next(&seed) % 16 * 4000;

		expected = x;
		compile(at, &seed, 1 + i % 40, &expected);
		x = ((function)(uintptr_t)at)(x);
		expect(x == expected);
		hash_add(&h, x);
	}
	hash_print(&h, "rewritten");
}

static void patched(void)
{
	uint32_t sum = 0;
	uint8_t *p = code;

	p = put32(put8(p, 0xb8), 0); /* mov eax, imm32 */
	put8(p, 0xc3);
	for (uint32_t i = 0; i < 100000; i++) {
		put32(code + 1, i * 3);
		sum += ((function)(uintptr_t)code)(0);
	}
	printf("patched immediate %u\n", sum);

	/* jmp rel32 to one of many returns */
	for (uint32_t k = 0; k < 64; k++)
		put8(put32(put8(code + 4096 + k * 64, 0xb8), k * k), 0xc3);
	put8(code, 0xe9);
	for (uint32_t i = 0; i < 100000; i++) {
		uint32_t k = i * 40503 % 64;

		put32(code + 1, 4096 + k * 64 - 5);
		sum = sum * 3 + ((function)(uintptr_t)code)(0);
	}
	printf("patched target %u\n", sum);

	/* the low byte of an immediate, an opcode, and across a page boundary */
	p = code + 8192 - 3;
	put8(put32(put8(p, 0x05), 0), 0xc3); /* add eax, imm32; with no load: eax is garbage, so xor first */
	p -= 2;
	put8(put8(p, 0x31), 0xc0);
	for (uint32_t i = 0; i < 20000; i++) {
		p[3 + i % 4] = (uint8_t)(i * 7);
		p[2] = i & 64 ? 0x05 : 0x35; /* add or xor */
		sum = sum * 5 + ((function)(uintptr_t)p)(0);
	}
	printf("patched bytes %u\n", sum);
}

static void own_successor(void)
{
	uint32_t sum = 0;

	/* mov [next+1], cl ; next: mov al, 0 ; the store changes the instruction that runs right after it */
	for (unsigned offset = 0; offset < 3; offset++) {
		uint8_t *p = code + 4096 * (offset + 1) - (offset == 1 ? 7 : offset == 2 ? 9 : 100), *start = p;

		p = put32(p, 0x04244c8b);             /* mov ecx, [esp+4] */
		p = put8(put8(p, 0x31), 0xc0);        /* xor eax, eax */
		p = put8(put8(p, 0x88), 0x0d);        /* mov [disp32], cl */
		p = put32(p, (uint32_t)(uintptr_t)p + 5);
		p = put8(put8(p, 0xb0), 0x00);        /* mov al, imm8 */
		p = put8(p, 0xc3);
		for (uint32_t i = 0; i < 3000; i++) {
			uint32_t r = ((function)(uintptr_t)start)(i);

			expect(r == (i & 0xff));
			sum += r;
		}
	}
	printf("own successor %u\n", sum);

	/* a loop whose body rewrites its own immediate each time round */
	uint8_t *p = code + 20000;
	uint8_t *start = p, *loop;

	p = put32(p, 0x04244c8b);               /* mov ecx, [esp+4] */
	p = put8(put8(p, 0x31), 0xc0);          /* xor eax, eax */
	loop = p;
	p = put32(put8(p, 0x05), 0);            /* add eax, imm32 */
	p = put8(put8(p, 0xff), 0x05);          /* inc dword [loop+1] */
	p = put32(p, (uint32_t)(uintptr_t)loop + 1);
	p = put8(p, 0x49);                      /* dec ecx */
	p = put8(put8(p, 0x75), (uint8_t)(loop - (p + 2)));
	put8(p, 0xc3);
	printf("own loop %u\n", ((function)(uintptr_t)start)(10000));

	/* rep stosd over the code that comes next: nops where traps were */
	p = start = code + 24576;
	p = put8(p, 0x57);                                    /* push edi */
	p = put32(put8(p, 0xbf), (uint32_t)(uintptr_t)start + 64); /* mov edi, start+64 */
	p = put32(put8(p, 0xb8), 0x90909090);                 /* mov eax, nops */
	p = put32(put8(p, 0xb9), 100);                        /* mov ecx, 100 */
	p = put8(put8(p, 0xf3), 0xab);                        /* rep stosd */
	put8(put8(start + 64 + 400, 0x5f), 0xc3);             /* pop edi; ret */
	for (unsigned i = 0; i < 200; i++) {
		memset(p, 0x90, (size_t)(start + 64 - p));
		for (unsigned k = 0; k < 400; k += 2)
			put8(put8(start + 64 + k, 0x0f), 0x0b);       /* ud2 */
		expect(((function)(uintptr_t)start)(0) == 0x90909090);
	}
	printf("own future rewritten\n");
}

static void double_mapped(void)
{
	int file = memfd_create("code", 0);
	uint8_t *write_view, *run_view;
	uint64_t seed = 59;
	uint32_t x = 1, expected;

	expect(file >= 0 && !ftruncate(file, 8192));
	write_view = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	run_view = mmap(NULL, 8192, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
	for (unsigned i = 0; i < 5000; i++) {
		unsigned at = random_next(&seed) % 3000;

		expected = x;
		compile(write_view + at, &seed, 20, &expected);
		x = ((function)(uintptr_t)(run_view + at))(x);
		expect(x == expected);
	}
	printf("double-mapped %u\n", x);

	/* and written through the file */
	for (unsigned i = 0; i < 2000; i++) {
		uint8_t text[6] = {0xb8, (uint8_t)i, (uint8_t)(i >> 8), 0, 0, 0xc3};

		expect(pwrite(file, text, 6, 100) == 6);
		expect(((function)(uintptr_t)(run_view + 100))(0) == i);
	}
	printf("written by the kernel\n");
	munmap(write_view, 8192);
	munmap(run_view, 8192);
	close(file);
}

static void flipped(void)
{
	uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t seed = 61;
	uint32_t x = 1, expected;

	for (unsigned i = 0; i < 3000; i++) {
		mprotect(p, 4096, PROT_READ | PROT_WRITE);
		expected = x;
		compile(p, &seed, 30, &expected);
		mprotect(p, 4096, PROT_READ | PROT_EXEC);
		x = ((function)(uintptr_t)p)(x);
		expect(x == expected);
	}
	printf("flipped %u\n", x);
	/* unmapped and mapped anew at the same address */
	for (unsigned i = 0; i < 1000; i++) {
		munmap(p, 4096);
		expect(mmap(p, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
		expected = x;
		compile(p, &seed, 10, &expected);
		x = ((function)(uintptr_t)p)(x);
		expect(x == expected);
	}
	printf("remapped %u\n", x);
	/* different code at one address in parent and child */
	for (unsigned i = 0; i < 50; i++) {
		int status;
		pid_t pid = fork();

		if (!pid) {
			for (unsigned k = 0; k < 20; k++) {
				put8(put32(put8(p, 0xb8), k + i), 0xc3);
				expect(((function)(uintptr_t)p)(0) == k + i);
			}
			_exit(3);
		}
		for (unsigned k = 0; k < 20; k++) {
			put8(put32(put8(p, 0xb8), k * i), 0xc3);
			expect(((function)(uintptr_t)p)(0) == k * i);
		}
		expect(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 3);
	}
	printf("forked\n");
}

/* Data and code in one page: many stores next to code that keeps running. */
static void neighbours(void)
{
	uint8_t *p = code + 32768;
	volatile uint32_t *data = (volatile uint32_t *)(p + 2048);

	p = put32(p, 0x0424448b);
	p = put8(put8(p, 0x01), 0x05); /* add [data], eax */
	p = put32(p, (uint32_t)(uintptr_t)data);
	p = put8(put8(p, 0xff), 0x05); /* inc dword [data+4] */
	p = put32(p, (uint32_t)(uintptr_t)data + 4);
	put8(p, 0xc3);
	data[0] = data[1] = 0;
	for (uint32_t i = 0; i < 300000; i++)
		((function)(uintptr_t)(code + 32768))(i);
	printf("neighbours %u %u\n", data[0], data[1]);
}

int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	code = mmap((void *)0x30000000, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	expect(code == (void *)0x30000000);
	rewritten();
	patched();
	own_successor();
	double_mapped();
	flipped();
	neighbours();
	return 0;
}
