/* Memory as the kernel gives it: mappings and page faults. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

#define PAGE  4096u
#define PAGES 256u

/* n pages, PAGES a mapping. */
static uint64_t fault_anon_run(unsigned n)
{
	for (unsigned i = 0; i < n; i += PAGES) {
		char *p =
			mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		expect(p != MAP_FAILED);
		/* no huge pages: the operation is one page */
		madvise(p, PAGES * PAGE, MADV_NOHUGEPAGE);
		for (unsigned j = 0; j < PAGES && i + j < n; j++)
			p[j * PAGE] = 1;
		munmap(p, PAGES * PAGE);
	}
	return 0;
}

static int file = -1;

static void file_prepare(void)
{
	static char page[PAGE];
	char name[64];

	snprintf(name, sizeof(name), SCRATCH "/bench.map.%d", (int)getpid());
	file = open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
	expect(file >= 0);
	unlink(name);
	for (unsigned i = 0; i < PAGES; i++) {
		page[0] = (char)i;
		expect(write(file, page, PAGE) == PAGE);
	}
}

static void file_finish(void)
{
	close(file);
}

static void fault_file(unsigned n, int protection, int flags, bool store)
{
	for (unsigned i = 0; i < n; i += PAGES) {
		volatile char *p = mmap(NULL, PAGES * PAGE, protection, flags, file, 0);

		expect(p != MAP_FAILED);
		for (unsigned j = 0; j < PAGES && i + j < n; j++) {
			expect(p[j * PAGE] == (char)j);
			if (store)
				p[j * PAGE + 1] = 1;
		}
		munmap((void *)p, PAGES * PAGE);
	}
}

static uint64_t fault_file_run(unsigned n)
{
	fault_file(n, PROT_READ, MAP_SHARED, false);
	return 0;
}

static uint64_t fault_copy_run(unsigned n)
{
	fault_file(n, PROT_READ | PROT_WRITE, MAP_PRIVATE, true);
	return 0;
}

static uint64_t mmap_run(unsigned n)
{
	for (; n; n--) {
		char *p = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		expect(p != MAP_FAILED);
		p[0] = 1;
		expect(!munmap(p, 16 * PAGE));
	}
	return 0;
}

static char *protected;

static void protect_prepare(void)
{
	protected = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	expect(protected != MAP_FAILED);
	memset(protected, 1, 16 * PAGE);
}

static void protect_finish(void)
{
	munmap(protected, 16 * PAGE);
}

static uint64_t protect_run(unsigned n)
{
	for (; n; n--) {
		expect(!mprotect(protected, 16 * PAGE, PROT_READ));
		expect(!mprotect(protected, 16 * PAGE, PROT_READ | PROT_WRITE));
		protected[0]++;
	}
	return 0;
}

const struct bench os_memory[] = {
	{"fault_anon", NULL, fault_anon_run, NULL, 0},
	{"fault_file", file_prepare, fault_file_run, file_finish, 0},
	{"fault_copy", file_prepare, fault_copy_run, file_finish, 0},
	{"mmap_munmap", NULL, mmap_run, NULL, 0},
	{"mprotect", protect_prepare, protect_run, protect_finish, 0},
	{0},
};
