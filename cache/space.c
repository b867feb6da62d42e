/* space.c - indirect-branch tables and return-prediction stacks, one pair for each (window, mode).
 *
 * A table has a slot for each value of EIP: the arena offset of its block. So a jump through it needs no
 * check of what it found. That is 16 GiB of address space, of which memory is behind only those pages that
 * were touched; what was not reads as 0, and at offset 0 of the arena stands a jump to the miss handler.
 * Which slots were set is logged: emptying a table undoes just those and keeps its pages, since getting them
 * anew is what a table costs. Tables in which very many were set give their pages back.
 *
 * The return stack is ordinary memory that host call and ret use. Its highest entry is the ret-miss handler,
 * below its lowest page is a guard page: running over or under it resets it (vmm/bt_fault.c), which costs
 * predictions only.
 */
#include "cache/cache_private.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *map_table(int prot)
{
	void *t = mmap(NULL, TABLE_BYTES, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (t == MAP_FAILED)
		return NULL;
	madvise(t, TABLE_BYTES, MADV_NOHUGEPAGE);
	return t;
}

void cache_space_reset_stack(struct cache *k, struct space *s)
{
	*(uint64_t *)(uintptr_t)s->top = k->ret_miss;
	s->ret_sp = s->top;
}

static void table_empty(struct space *s)
{
	if (s->logged > SLOTS_KEPT)
		madvise(s->table, TABLE_BYTES, MADV_DONTNEED);
	else
		for (uint32_t i = 0; i < s->logged; i++)
			s->table[s->log[i]] = CACHE_MISS_STUB;
	s->logged = 0;
}

void space_reset(struct cache *k, struct space *s)
{
	table_empty(s);
	cache_space_reset_stack(k, s);
	k->stats.spaces_reset++;
}

/* Table and stack of a new space. Returns false when the host has no more room. */
static bool space_map(struct cache *k, struct space *s)
{
	void *t = map_table(PROT_READ | PROT_WRITE);
	if (!t)
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

/* The first few spaces are made here, so that there is always one to recycle, and so that a host that refuses
 * so much address space does it at the start. */
int space_init_tables(struct cache *k)
{
	k->empty_table = map_table(PROT_READ);
	if (!k->empty_table)
		return -1;
	for (; k->nspaces < SPACES_MIN; k->nspaces++) {
		if (!space_map(k, &k->spaces[k->nspaces]))
			return -1;
		cache_space_reset_stack(k, &k->spaces[k->nspaces]);
	}
	return 0;
}

void space_destroy_all(struct cache *k)
{
	for (uint32_t i = 0; i < k->nspaces; i++) {
		munmap(k->spaces[i].table, TABLE_BYTES);
		munmap(k->spaces[i].stack - PAGE_SIZE, STACK_BYTES + 2 * PAGE_SIZE);
	}
	munmap(k->empty_table, TABLE_BYTES);
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

void cache_table_set(struct cache *k, struct space *s, const struct block *b)
{
	uint32_t *slot = &s->table[b->eip];

	if (!*slot) {
		if (s->logged < CACHE_SLOT_LOG)
			s->log[s->logged] = b->eip;
		if (s->logged <= CACHE_SLOT_LOG)
			s->logged++;
	}
	*slot = b->host;
	k->stats.table_fills++;
}

/* Empties the slots of [lin, lin + bytes). */
static void forget_slots(struct space *s, uint32_t lin, uint64_t bytes)
{
	uint32_t kept = 0;

	if (s->logged > CACHE_SLOT_LOG) {
		table_empty(s);
		return;
	}
	for (uint32_t i = 0; i < s->logged; i++) {
		const uint32_t eip = s->log[i];

		if (eip - lin < bytes)
			s->table[eip] = CACHE_MISS_STUB;
		else
			s->log[kept++] = eip;
	}
	s->logged = kept;
}

void cache_space_forget(struct cache *k, uint32_t window_id, uint32_t lin, uint32_t pages)
{
	for (uint32_t i = 0; i < k->nspaces; i++) {
		struct space *s = &k->spaces[i];

		if (!s->used || s->window_id != window_id)
			continue;
		forget_slots(s, lin, (uint64_t)pages << PAGE_SHIFT);
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
