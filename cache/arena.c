/* arena.c - the code arena and the cache's life: shared memory with a writable and an executable view (W^X).
 *
 * It is anonymous memory and not a memfd because perf looks for the symbols of /tmp/perf-PID.map (--perf-map)
 * only in mappings that it takes for anonymous. */
#include "cache/cache_private.h"

#include <stdio.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *map_or_null(size_t len, int prot, int flags, int fd)
{
	void *p = mmap(NULL, len, prot, flags, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Room for the executable view below 4 GiB, so that a table slot holds a host address. */
static void *low_room(size_t size)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *p = mmap(NULL, size, PROT_NONE, flags | MAP_32BIT, -1, 0);

	for (uint64_t at = 1u << 28; p == MAP_FAILED && at + size < 1ull << 32; at += 1u << 24) {
		p = mmap((void *)(uintptr_t)at, size, PROT_NONE, flags | MAP_FIXED_NOREPLACE, -1, 0);
		if (p != MAP_FAILED && p != (void *)(uintptr_t)at) { /* kernels before 4.17 */
			munmap(p, size);
			p = MAP_FAILED;
		}
	}
	return p;
}

static void *second_view(void *rw, size_t size)
{
	void *low = low_room(size);

	/* mremap of length 0 from shared memory makes a second view of it. */
	return low == MAP_FAILED ? low : mremap(rw, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, low);
}

/* jmp [r15+field] */
static void put_jump(struct cache *k, uint32_t at, uint32_t field)
{
	memcpy(k->rw + at, (const uint8_t[]){0x41, 0xff, 0xa7}, 3);
	memcpy(k->rw + at + 3, &field, 4);
}

int cache_init(struct cache *k, uint32_t size, char *err, size_t errlen)
{
	memset(k, 0, sizeof *k);
	k->size = size;
	k->rw = map_or_null(size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	if (!k->rw)
		goto fail;
	void *rx = second_view(k->rw, size);
	if (rx == MAP_FAILED || mprotect(rx, size, PROT_READ | PROT_EXEC) < 0)
		goto fail;
	k->rx = rx;
	k->max_blocks = size / 192;
	k->max_sides = size / 24;
	k->max_entries = k->max_blocks / 2;
	k->max_exits = size / 128;
	k->max_ret_points = size / 192;
	k->nlines = LINES_MIN;
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	k->blocks = map_or_null(k->max_blocks * sizeof *k->blocks, PROT_READ | PROT_WRITE, anon, -1);
	k->entries = map_or_null(k->max_entries * sizeof *k->entries, PROT_READ | PROT_WRITE, anon, -1);
	k->sides = map_or_null(k->max_sides * sizeof *k->sides, PROT_READ | PROT_WRITE, anon, -1);
	k->exits = map_or_null(k->max_exits * sizeof *k->exits, PROT_READ | PROT_WRITE, anon, -1);
	k->ret_points =
		map_or_null(k->max_ret_points * sizeof *k->ret_points, PROT_READ | PROT_WRITE, anon, -1);
	k->lines = map_or_null(LINES_MAX * CACHE_LINE_BYTES, PROT_READ | PROT_WRITE, anon, -1);
	k->pages = map_or_null(PAGES_SIZE * sizeof *k->pages, PROT_READ | PROT_WRITE, anon, -1);
	k->cross = map_or_null(CROSS_SIZE * sizeof *k->cross, PROT_READ | PROT_WRITE, anon, -1);
	k->spaces = map_or_null(MAX_SPACES * sizeof *k->spaces, PROT_READ | PROT_WRITE, anon, -1);
	k->slot_logs = map_or_null(LOGS_BYTES, PROT_READ | PROT_WRITE, anon, -1);
	k->stretches = map_or_null(STRETCHES_BYTES, PROT_READ | PROT_WRITE, anon, -1);
	k->recalled = map_or_null(RECALL_PAGES * sizeof *k->recalled, PROT_READ | PROT_WRITE, anon, -1);
	k->recall_heads = map_or_null(RECALL_HEADS_BYTES, PROT_READ | PROT_WRITE, anon, -1);
	if (!k->rw || !k->rx || !k->blocks || !k->entries || !k->sides || !k->exits || !k->lines ||
	    !k->pages || !k->cross || !k->ret_points || !k->spaces || !k->slot_logs || !k->recalled ||
	    !k->recall_heads || !k->stretches)
		goto fail;
	if (space_make_pattern(k) < 0)
		goto fail;
	if (space_init_tables(k) < 0) {
		snprintf(err, errlen,
			 "cannot map %llu GiB of address space for branch tables: %s (ulimit -v, "
			 "vm.overcommit_memory=2?)",
			 (unsigned long long)(SPACES_MIN * TABLE_BYTES >> 30), strerror(errno));
		return -1;
	}
	put_jump(k, CACHE_MISS_STUB, offsetof(struct vcpu, hot.go_miss));
	put_jump(k, CACHE_EXIT_STUB, offsetof(struct vcpu, hot.go_exit));
	k->hot = ARENA_FIRST;
	k->stubs = k->cold = size - k->max_exits * CACHE_STUB_BYTES;
	return 0;
fail:
	snprintf(err, errlen, "cannot set up the translation cache, %u MiB of it below 4 GiB: %s", size >> 20,
		 strerror(errno));
	return -1;
}

void cache_destroy(struct cache *k)
{
	space_destroy_all(k);
	munmap(k->rw, k->size);
	munmap(k->rx, k->size);
	munmap(k->blocks, k->max_blocks * sizeof *k->blocks);
	munmap(k->entries, k->max_entries * sizeof *k->entries);
	munmap(k->sides, k->max_sides * sizeof *k->sides);
	munmap(k->exits, k->max_exits * sizeof *k->exits);
	munmap(k->ret_points, k->max_ret_points * sizeof *k->ret_points);
	munmap(k->lines, LINES_MAX * CACHE_LINE_BYTES);
	munmap(k->pages, PAGES_SIZE * sizeof *k->pages);
	munmap(k->cross, CROSS_SIZE * sizeof *k->cross);
	munmap(k->spaces, MAX_SPACES * sizeof *k->spaces);
	munmap(k->slot_logs, LOGS_BYTES);
	munmap(k->stretches, STRETCHES_BYTES);
	munmap(k->recalled, RECALL_PAGES * sizeof *k->recalled);
	munmap(k->recall_heads, RECALL_HEADS_BYTES);
}

void cache_flush(struct cache *k)
{
	k->stats.flushes++;
	k->stats.blocks_now = 0;
	k->nblocks = 0;
	k->nsides = 0;
	k->nentries = 0;
	k->nexits = 0;
	k->nret_points = 0;
	k->hot = ARENA_FIRST;
	k->cold = k->stubs;
	memset(k->lines, 0, k->nlines * CACHE_LINE_BYTES);
	k->nitems = 0;
	memset(k->pages, 0, PAGES_SIZE * sizeof *k->pages);
	memset(k->cross, 0, CROSS_SIZE * sizeof *k->cross);
	for (uint32_t i = 0; i < k->nspaces; i++)
		if (k->spaces[i].used)
			space_reset(k, &k->spaces[i]);
	recall_forget_all(k);
}

bool cache_has_room(const struct cache *k, uint32_t bytes)
{
	return k->cold - k->hot > bytes && k->nblocks < k->max_blocks &&
	       k->nsides + CACHE_MAX_INSNS < k->max_sides && k->nexits + CACHE_MAX_EXITS < k->max_exits &&
	       k->nret_points + CACHE_MAX_CALLS < k->max_ret_points && k->nitems + ITEMS_OF_BLOCK < ITEMS_MAX;
}
