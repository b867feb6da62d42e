/* space.c - indirect-branch tables and return-prediction stacks, one pair for each (window, mode).
 *
 * A table has a slot for each value of the low 16 bits of EIP; a slot holds the host address of a block's
 * entry stub, which verifies the whole EIP, or of the miss handler. A fresh table must be all misses: it is a
 * private mapping of a file that holds nothing else, so that making one costs no memory. Which slots were set
 * is logged: emptying a table undoes just those and keeps its pages, since making them private again is what
 * a table costs. When the log runs over, one madvise reverts all pages to the file's.
 *
 * The return stack is ordinary memory that host call and ret use. Its highest entry is the ret-miss handler,
 * below its lowest page is a guard page: running over or under it resets it (vmm/bt_fault.c), which costs
 * predictions only.
 */
#include "cache/cache_private.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

unsigned cache_index_shift;

static int fill_fd(int fd, uint64_t value)
{
	if (fd < 0 || ftruncate(fd, TABLE_BYTES) < 0)
		return -1;
	uint64_t *p = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -1;
	for (uint32_t i = 0; i < TABLE_ENTRIES; i++)
		p[i] = value;
	munmap(p, TABLE_BYTES);
	return 0;
}

int space_init_tables(struct cache *k)
{
	k->miss_fd = memfd_create("bt86-miss", MFD_CLOEXEC);
	if (fill_fd(k->miss_fd, k->miss) < 0)
		return -1;
	void *p = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -1;
	k->leave_table = p;
	for (uint32_t i = 0; i < TABLE_ENTRIES; i++)
		k->leave_table[i] = k->leave;
	return 0;
}

void cache_space_reset_stack(struct cache *k, struct space *s)
{
	*(uint64_t *)(uintptr_t)s->top = k->ret_miss;
	s->ret_sp = s->top;
}

static void table_empty(struct cache *k, struct space *s)
{
	if (s->logged > CACHE_SLOT_LOG)
		madvise(s->table, TABLE_BYTES, MADV_DONTNEED);
	else
		for (uint32_t i = 0; i < s->logged; i++)
			s->table[s->log[i]] = k->miss;
	s->logged = 0;
}

void space_reset(struct cache *k, struct space *s)
{
	table_empty(k, s);
	cache_space_reset_stack(k, s);
	k->stats.spaces_reset++;
}

/* Table and stack of a new space. Returns false when the host has no more room. */
static bool space_map(struct cache *k, struct space *s)
{
	void *t = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, k->miss_fd, 0);
	if (t == MAP_FAILED)
		return false;
	uint8_t *st = mmap(NULL, STACK_BYTES + 2 * PAGE_SIZE, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (st == MAP_FAILED || mprotect(st + PAGE_SIZE, STACK_BYTES, PROT_READ | PROT_WRITE) < 0) {
		munmap(t, TABLE_BYTES);
		return false;
	}
	s->table = t;
	s->log = k->slot_logs + (s - k->spaces) * CACHE_SLOT_LOG;
	s->logged = 0;
	s->stack = st + PAGE_SIZE;
	s->top = (uint64_t)(uintptr_t)(s->stack + STACK_BYTES - 64);
	return true;
}

void space_destroy_all(struct cache *k)
{
	for (uint32_t i = 0; i < k->nspaces; i++) {
		munmap(k->spaces[i].table, TABLE_BYTES);
		munmap(k->spaces[i].stack - PAGE_SIZE, STACK_BYTES + 2 * PAGE_SIZE);
	}
	munmap(k->leave_table, TABLE_BYTES);
	close(k->miss_fd);
}

struct space *cache_space(struct cache *k, uint32_t window_id, uint32_t mode, const struct space *keep)
{
	struct space *free_one = NULL, *oldest = NULL;

	for (uint32_t i = 0; i < k->nspaces; i++) {
		struct space *s = &k->spaces[i];
		if (!s->used) {
			/* the one whose table is most likely still in the CPU's caches */
			if (!free_one || s->last_used > free_one->last_used)
				free_one = s;
			continue;
		}
		if (s->window_id == window_id && s->mode == mode) {
			s->last_used = ++k->clock;
			return s;
		}
		if (s != keep && (!oldest || s->last_used < oldest->last_used))
			oldest = s;
	}
	if (!free_one && k->nspaces < MAX_SPACES && space_map(k, &k->spaces[k->nspaces])) {
		free_one = &k->spaces[k->nspaces++];
		k->stats.spaces_made++;
		cache_space_reset_stack(k, free_one);
	} else if (!free_one) {
		assert(oldest);
		free_one = oldest;
		space_reset(k, free_one);
	}
	free_one->used = true;
	free_one->window_id = window_id;
	free_one->mode = mode;
	free_one->last_used = ++k->clock;
	return free_one;
}

void cache_table_set(struct cache *k, struct space *s, uint32_t eip, const struct block *b)
{
	const uint32_t slot = cache_slot(eip);

	if (s->table[slot] == k->miss) {
		if (s->logged < CACHE_SLOT_LOG)
			s->log[s->logged] = (uint16_t)slot;
		if (s->logged <= CACHE_SLOT_LOG)
			s->logged++;
	}
	s->table[slot] = (uint64_t)(uintptr_t)(k->rx + b->host);
	k->stats.table_fills++;
}

/* Empties the slots [first, first + n), which may wrap. */
static void forget_slots(struct cache *k, struct space *s, uint32_t first, uint32_t n)
{
	uint32_t kept = 0;

	if (s->logged > CACHE_SLOT_LOG || n >= TABLE_ENTRIES) {
		table_empty(k, s);
		return;
	}
	for (uint32_t i = 0; i < s->logged; i++) {
		const uint16_t slot = s->log[i];

		if ((uint16_t)(slot - first) < n)
			s->table[slot] = k->miss;
		else
			s->log[kept++] = slot;
	}
	s->logged = kept;
}

void cache_space_forget(struct cache *k, uint32_t window_id, uint32_t lin, uint32_t pages)
{
	const uint64_t slots = ((uint64_t)pages << PAGE_SHIFT) >> cache_index_shift;

	for (uint32_t i = 0; i < k->nspaces; i++) {
		struct space *s = &k->spaces[i];

		if (!s->used || s->window_id != window_id)
			continue;
		forget_slots(k, s, cache_slot(lin), slots < TABLE_ENTRIES ? (uint32_t)slots : TABLE_ENTRIES);
		cache_space_reset_stack(k, s);
	}
}

void cache_window_gone(struct cache *k, uint32_t window_id)
{
	for (uint32_t i = 0; i < k->nspaces; i++) {
		struct space *s = &k->spaces[i];
		if (s->used && s->window_id == window_id) {
			space_reset(k, s);
			s->used = false;
		}
	}
}

struct space *cache_guard_hit(const struct cache *k, uint64_t addr)
{
	for (uint32_t i = 0; i < k->nspaces; i++) {
		uint64_t base = (uint64_t)(uintptr_t)k->spaces[i].stack;
		if (addr - (base - PAGE_SIZE) < PAGE_SIZE || addr - (base + STACK_BYTES) < PAGE_SIZE)
			return &k->spaces[i];
	}
	return NULL;
}
