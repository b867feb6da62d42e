/* Programs whose cost is in the memory: chasing pointers, copying, filling. */
#include "bench.h"

#define SEED 0x9e6c63d0676a9a99u

struct link {
	struct link *next;
	uint32_t value;
	uint32_t unused[14];
};

static struct link *links;
static unsigned link_count;

/* One cycle through all of them, in random order (Sattolo). */
static void chase_prepare(size_t bytes)
{
	uint64_t seed = SEED;
	unsigned *order;

	link_count = bytes / sizeof(struct link);
	links = calloc(link_count, sizeof(struct link));
	order = calloc(link_count, sizeof(unsigned));
	expect(links && order);
	for (unsigned i = 0; i < link_count; i++)
		order[i] = i;
	for (unsigned i = link_count - 1; i; i--) {
		unsigned j = random_next(&seed) % i, t = order[i];

		order[i] = order[j];
		order[j] = t;
	}
	for (unsigned i = 0; i < link_count; i++) {
		links[i].next = &links[order[i]];
		links[i].value = i;
	}
	free(order);
}

static void chase_finish(void)
{
	free(links);
}

static void chase_32k_prepare(void)
{
	chase_prepare(32u << 10);
}

static void chase_8m_prepare(void)
{
	chase_prepare(8u << 20);
}

static uint64_t chase(unsigned n)
{
	const struct link *at = links;
	uint64_t sum = 0;

	for (; n; n--) {
		sum += at->value;
		at = at->next;
	}
	return mix(sum, at->value);
}

static char *source, *target;
#define BUFFER (4u << 20)

static void copy_prepare(void)
{
	source = malloc(BUFFER);
	target = malloc(BUFFER);
	expect(source && target);
	text_make(source, BUFFER, SEED);
	memset(target, 0, BUFFER);
}

static void copy_finish(void)
{
	free(source);
	free(target);
}

/* volatile: the size is not known to the compiler, and the call is made. */
static uint64_t copy(unsigned n, volatile size_t size)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++) {
		size_t from = i * 64 & 4095;

		memcpy(target, source + from % (BUFFER - size + 1), size);
		sum = mix(sum, (unsigned char)target[size - 1]);
	}
	return sum;
}

static uint64_t fill(unsigned n, volatile size_t size)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++) {
		memset(target, (int)i & 127, size);
		sum = mix(sum, (unsigned char)target[size - 1]);
	}
	return sum;
}

static uint64_t copy_64(unsigned n)
{
	return copy(n, 64);
}
static uint64_t copy_4k(unsigned n)
{
	return copy(n, 4096);
}
static uint64_t copy_4m(unsigned n)
{
	return copy(n, BUFFER);
}
static uint64_t fill_64(unsigned n)
{
	return fill(n, 64);
}
static uint64_t fill_4k(unsigned n)
{
	return fill(n, 4096);
}
static uint64_t fill_4m(unsigned n)
{
	return fill(n, BUFFER);
}

const struct bench compute_memory[] = {
	{"chase_32k", chase_32k_prepare, chase, chase_finish, 400000},
	{"chase_8m", chase_8m_prepare, chase, chase_finish, 131072},
	{"memcpy_64", copy_prepare, copy_64, copy_finish, 80000},
	{"memcpy_4k", copy_prepare, copy_4k, copy_finish, 30000},
	{"memcpy_4m", copy_prepare, copy_4m, copy_finish, 8},
	{"memset_64", copy_prepare, fill_64, copy_finish, 60000},
	{"memset_4k", copy_prepare, fill_4k, copy_finish, 30000},
	{"memset_4m", copy_prepare, fill_4m, copy_finish, 20},
	{0},
};
