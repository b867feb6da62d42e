/* Mappings that come, go, change protection and are copied on write, with every byte accounted for:
 * the program keeps its own idea of what each page holds and compares. */
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

#define BASE 0x60000000u
#define PAGES 512u

static uint8_t *const region = (uint8_t *)BASE;
static uint8_t mapped[PAGES], writable[PAGES], readable[PAGES];
static uint32_t content[PAGES]; /* the word that the page is filled with */
static sigjmp_buf jump;
static volatile uintptr_t fault_address;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	fault_address = (uintptr_t)info->si_addr;
	siglongjmp(jump, 1);
}

static void fill(unsigned page, uint32_t word)
{
	uint32_t *p = (uint32_t *)(region + page * 4096);

	for (unsigned i = 0; i < 1024; i++)
		p[i] = word;
	content[page] = word;
}

static void check(unsigned page)
{
	const uint32_t *p = (const uint32_t *)(region + page * 4096);

	for (unsigned i = 0; i < 1024; i += 31)
		expect(p[i] == content[page]);
}

static void probe(unsigned page, unsigned long *faults)
{
	volatile uint32_t *p = (volatile uint32_t *)(region + page * 4096 + 64);
	uint32_t value;

	if (!sigsetjmp(jump, 1)) {
		value = *p;
		expect(mapped[page] && readable[page] && value == content[page]);
	} else {
		expect(!(mapped[page] && readable[page]) && fault_address == (uintptr_t)p);
		++*faults;
	}
	if (!sigsetjmp(jump, 1)) {
		*p = content[page];
		expect(mapped[page] && writable[page]);
	} else {
		expect(!(mapped[page] && writable[page]) && fault_address == (uintptr_t)p);
		++*faults;
	}
}

static void protections(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
	uint64_t seed = 29;
	unsigned long faults = 0, operations[6] = {0};

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	expect(mmap(region, PAGES * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == region);
	munmap(region, PAGES * 4096);
	for (unsigned i = 0; i < 12000; i++) {
		uint64_t r = random_next(&seed);
		unsigned page = r % PAGES, count = 1 + (r >> 16) % 8, operation = (r >> 32) % 6;

		if (page + count > PAGES)
			count = PAGES - page;
		operations[operation]++;
		for (unsigned k = page; k < page + count; k++) {
			switch (operation) {
			case 0:
			case 1:
				expect(mmap(region + k * 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == region + k * 4096);
				mapped[k] = readable[k] = writable[k] = 1;
				content[k] = 0;
				check(k);
				fill(k, (uint32_t)(r >> 8) + k);
				break;
			case 2:
				munmap(region + k * 4096, 4096);
				mapped[k] = readable[k] = writable[k] = 0;
				break;
			case 3:
				if (mapped[k]) {
					mprotect(region + k * 4096, 4096, PROT_READ);
					readable[k] = 1, writable[k] = 0;
				}
				break;
			case 4:
				if (mapped[k]) {
					mprotect(region + k * 4096, 4096, PROT_READ | PROT_WRITE);
					readable[k] = writable[k] = 1;
					fill(k, (uint32_t)(r >> 4) - k);
				}
				break;
			case 5:
				if (mapped[k] && (r >> 60) % 2) {
					mprotect(region + k * 4096, 4096, PROT_NONE);
					readable[k] = writable[k] = 0;
				}
				break;
			}
		}
		probe((r >> 40) % PAGES, &faults);
		probe(page, &faults);
	}
	for (unsigned k = 0; k < PAGES; k++)
		probe(k, &faults);
	printf("protections: %lu faults, operations %lu %lu %lu %lu %lu %lu\n", faults, operations[0], operations[1], operations[2],
		   operations[3], operations[4], operations[5]);
	munmap(region, PAGES * 4096);
}

static void copies(void)
{
	struct hash h;

	hash_start(&h);
	expect(mmap(region, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == region);
	for (unsigned k = 0; k < PAGES; k++)
		fill(k, k * 0x01010101);
	for (unsigned round = 0; round < 40; round++) {
		int status;
		pid_t pid = fork();

		if (!pid) {
			for (unsigned k = 0; k < PAGES; k++)
				check(k);
			for (unsigned k = round % 3; k < PAGES; k += 3)
				fill(k, k + round);
			for (unsigned k = 0; k < PAGES; k++)
				check(k);
			_exit(42);
		}
		for (unsigned k = round % 5; k < PAGES; k += 5)
			fill(k, k * round + 7);
		expect(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 42);
		for (unsigned k = 0; k < PAGES; k++)
			check(k);
		hash_bytes(&h, region, PAGES * 4096);
	}
	munmap(region, PAGES * 4096);
	hash_print(&h, "copies");
}

static void moves(void)
{
	struct hash h;
	uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t size = 4096;
	uint64_t seed = 31;

	hash_start(&h);
	memset(p, 1, size);
	for (unsigned i = 0; i < 600; i++) {
		size_t next = 4096 * (1 + random_next(&seed) % 200);
		uint8_t *q = mremap(p, size, next, MREMAP_MAYMOVE);

		expect(q != MAP_FAILED);
		for (size_t k = size; k < next; k += 512) {
			expect(q[k] == 0);
			q[k] = (uint8_t)(k >> 9);
		}
		p = q;
		size = next;
		if (i % 8 == 0)
			hash_bytes(&h, p, size);
		if (i % 50 == 0) {
			madvise(p, size, MADV_DONTNEED);
			for (size_t k = 0; k < size; k += 4096)
				expect(p[k] == 0);
			memset(p, (int)i, size);
		}
	}
	munmap(p, size);
	hash_print(&h, "moves");
}

/* One object seen at two addresses, and through a private copy. */
static void aliases(void)
{
	int file = memfd_create("aliases", 0);
	uint32_t *a, *b, *c;
	struct hash h;

	expect(file >= 0 && !ftruncate(file, 64 * 4096));
	a = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	b = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	c = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	hash_start(&h);
	for (uint32_t i = 0; i < 200000; i++) {
		uint32_t k = i * 2654435761u % 65536;

		a[k] = i;
		expect(b[k] == i);
		b[k ^ 1] = ~i;
		expect(a[k ^ 1] == ~i);
		if (i % 1000 == 0)
			c[k] = 1; /* from here on this page is c's own */
	}
	hash_bytes(&h, a, 64 * 4096);
	hash_bytes(&h, c, 64 * 4096);
	expect(pwrite(file, "1234", 4, 4096) == 4 && a[1024] == 0x34333231 && b[1024] == 0x34333231);
	munmap(a, 64 * 4096), munmap(b, 64 * 4096), munmap(c, 64 * 4096);
	close(file);
	hash_print(&h, "aliases");
}

static void heap(void)
{
	static void *blocks[1000];
	static size_t sizes[1000];
	uint64_t seed = 37;
	struct hash h;

	hash_start(&h);
	for (unsigned i = 0; i < 100000; i++) {
		uint64_t r = random_next(&seed);
		unsigned k = r % 1000;

		if (blocks[k]) {
			uint8_t *p = blocks[k];

			expect(p[0] == (uint8_t)k && p[sizes[k] - 1] == (uint8_t)k);
			free(p);
		}
		sizes[k] = 1 + (r >> 20) % ((r >> 50) % 50 ? 500 : 200000);
		blocks[k] = malloc(sizes[k]);
		expect(blocks[k]);
		memset(blocks[k], (int)k, sizes[k]);
		hash_add(&h, sizes[k]);
	}
	for (unsigned k = 0; k < 1000; k++)
		free(blocks[k]);
	hash_print(&h, "heap");
}

int main(void)
{
	protections();
	copies();
	moves();
	aliases();
	heap();
	return 0;
}
