/* space.c - indirect-branch tables, one for each (window, mode), and the return stack.
 *
 * A table has a slot for each value of EIP: the host address of its block. So a jump through it needs no
 * check of what it found. That is 16 GiB of address space, of which memory is behind only those pages in
 * which slots were set. A stretch of it in which there is one is mapped from a file that holds nothing but
 * the address of the jump to the miss handler; all such stretches share the file's pages until slots are set
 * in them. A stretch in which nothing was set yet reads as 0; a jump there traps, and the signal handler
 * makes a miss of it. Which slots were set is logged: emptying a table undoes just those and keeps its pages,
 * since getting them anew is what a table costs. Tables in which very many were set give their pages back.
 *
 * A stretch is one mapping of the host and may split another, and mappings are limited: when many are in
 * use, tables that are emptied give theirs back, and when there are none left a page of slots is filled by
 * hand.
 *
 * A guest's return looks its target up here as well, puts it on the return stack in the place of what the
 * call pushed, and makes a host ret. So the stack's contents mean nothing, only that the host's calls and
 * returns pair up, for its return predictor; there is one stack, and when it runs into a guard page it begins
 * anew.
 */
#include "cache/cache_private.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

/* at: what to map over, or NULL */
static void *map_table(void *at, int prot)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0);
	void *t = mmap(at, TABLE_BYTES, prot, flags, -1, 0);

	if (t == MAP_FAILED)
		return NULL;
	madvise(t, TABLE_BYTES, MADV_NOHUGEPAGE);
	return t;
}

/* ------------------------------------------------------------------ stretches */

int space_make_pattern(struct cache *k)
{
	static uint32_t page[PAGE_SIZE / sizeof(uint32_t)];
	static struct iovec all[CACHE_STRETCH_BYTES / PAGE_SIZE];

	for (unsigned i = 0; i < PAGE_SIZE / sizeof *page; i++)
		page[i] = cache_miss(k);
	for (unsigned i = 0; i < CACHE_STRETCH_BYTES / PAGE_SIZE; i++)
		all[i] = (struct iovec){page, PAGE_SIZE};
	k->pattern = memfd_create("bt86-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (k->pattern < 0)
		return -1;
	if (writev(k->pattern, all, CACHE_STRETCH_BYTES / PAGE_SIZE) != CACHE_STRETCH_BYTES)
		return -1;
	/* Not F_SEAL_WRITE: while the host's kernel holds one of the pages for a moment, reclaiming memory
	 * say, it waits, and then fails. Hosts before Linux 5.1 do without. */
	fcntl(k->pattern, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
	return 0;
}

static bool has_stretch(const struct space *s, uint32_t n)
{
	return s->stretches[n / 64] >> n % 64 & 1;
}

/* Slots are to be set in the page of eip's. When the host has no more mappings nothing happens. */
static void need_stretch(struct cache *k, struct space *s, uint32_t eip)
{
	const uint32_t n = eip / STRETCH_SLOTS;

	if (has_stretch(s, n) || k->nstretches == STRETCHES_MAX ||
	    mmap(s->table + n * STRETCH_SLOTS, CACHE_STRETCH_BYTES, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, k->pattern, 0) == MAP_FAILED)
		return;
	s->stretches[n / 64] |= 1ull << n % 64;
	s->nstretches++;
	k->nstretches++;
	k->stats.stretches_mapped++;
}

/* Gives all of them back. */
static void unmap_stretches(struct cache *k, struct space *s)
{
	if (!s->nstretches || !map_table(s->table, PROT_READ | PROT_WRITE))
		return;
	k->nstretches -= s->nstretches;
	s->nstretches = 0;
	memset(s->stretches, 0, STRETCHES / 8);
}

/* ------------------------------------------------------------------ tables */

static void table_empty(const struct cache *k, struct space *s)
{
	if (s->logged > CACHE_SLOT_LOG)
		madvise(s->table, TABLE_BYTES, MADV_DONTNEED);
	else
		for (uint32_t i = 0; i < s->logged; i++)
			s->table[s->log[i]] = cache_miss(k);
	s->logged = 0;
	if (s->fleeting)
		recall_unseen(s, 0, CACHE_SEEN);
}

void space_reset(struct cache *k, struct space *s)
{
	table_empty(k, s);
	if (k->nstretches > STRETCHES_MAX / 2)
		unmap_stretches(k, s);
	k->stats.spaces_reset++;
}

/* The table of a new space. Returns false when the host has no more room. */
static bool space_map(struct cache *k, struct space *s)
{
	void *t = map_table(NULL, PROT_READ | PROT_WRITE);
	if (!t)
		return false;
	s->table = t;
	s->log = k->slot_logs + (s - k->spaces) * CACHE_SLOT_LOG;
	s->logged = 0;
	s->stretches = k->stretches + (s - k->spaces) * (STRETCHES / 64);
	return true;
}

/* The first few spaces are made here, so that there is always one to recycle, and so that a host that refuses
 * so much address space does it at the start. */
int space_init_tables(struct cache *k)
{
	uint8_t *stack = mmap(NULL, STACK_BYTES + 2 * PAGE_SIZE, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (stack == MAP_FAILED || mprotect(stack + PAGE_SIZE, STACK_BYTES, PROT_READ | PROT_WRITE) < 0)
		return -1;
	k->stack = stack + PAGE_SIZE;
	k->empty_table = map_table(NULL, PROT_READ);
	if (!k->empty_table)
		return -1;
	for (; k->nspaces < SPACES_MIN; k->nspaces++)
		if (!space_map(k, &k->spaces[k->nspaces]))
			return -1;
	return 0;
}

void space_destroy_all(struct cache *k)
{
	for (uint32_t i = 0; i < k->nspaces; i++)
		munmap(k->spaces[i].table, TABLE_BYTES);
	munmap(k->empty_table, TABLE_BYTES);
	close(k->pattern);
	munmap(k->stack - PAGE_SIZE, STACK_BYTES + 2 * PAGE_SIZE);
}

struct space *cache_space(struct cache *k, uint32_t window_id, uint32_t mode, bool fleeting,
			  const struct space *keep)
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
	} else if (!free_one) {
		assert(oldest);
		free_one = oldest;
		space_reset(k, free_one);
	}
	free_one->used = true;
	free_one->window_id = window_id;
	free_one->mode = mode;
	free_one->fleeting = fleeting;
	free_one->last_used = ++k->clock;
	return free_one;
}

static uint32_t slot_of(const struct cache *k, uint32_t host)
{
	return (uint32_t)(uintptr_t)k->rx + host;
}

/* A page of slots that was never touched, in no stretch. */
static void table_fill(const struct cache *k, struct space *s, uint32_t eip)
{
	const uint32_t slots = PAGE_SIZE / sizeof *s->table;
	uint32_t *page = &s->table[eip & ~(slots - 1)];

	for (uint32_t i = 0; i < slots; i++)
		page[i] = cache_miss(k);
}

/* The slot of eip, in whose page there are to be slots that are set; need_stretch has been called. */
static uint32_t *slot_to_set(const struct cache *k, struct space *s, uint32_t eip)
{
	uint32_t *slot = &s->table[eip];

	/* Reading first would make the host map the pattern's page, and fault again for the store. */
	__asm__ volatile("orl $0, %0" : "+m"(*slot));
	if (!*slot)
		table_fill(k, s, eip);
	return slot;
}

/* slot is what slot_to_set returned for eip. */
static void put_slot(const struct cache *k, struct space *s, uint32_t *slot, uint32_t eip, uint32_t host)
{
	if (*slot == cache_miss(k)) {
		if (s->logged < CACHE_SLOT_LOG)
			s->log[s->logged] = eip;
		if (s->logged <= CACHE_SLOT_LOG)
			s->logged++;
	}
	*slot = host;
}

static void set_slot(const struct cache *k, struct space *s, uint32_t eip, uint32_t host)
{
	put_slot(k, s, slot_to_set(k, s, eip), eip, host);
}

void cache_table_set(struct cache *k, struct space *s, const struct block *b)
{
	/* Return points go on to a straddler through this slot. */
	const struct ret_point *ret = b->len2 ? NULL : cache_ret_point(k, b->gpa, b->eip, b->mode);
	const uint32_t host = slot_of(k, ret && !ret_by_table(ret) ? ret->at : b->host);

	need_stretch(k, s, b->eip);
	set_slot(k, s, b->eip, host);
	k->stats.table_fills++;
	if (s->fleeting)
		recall_put(k, s, b, host);
}

void cache_table_set_rets(struct cache *k, struct space *s, const struct block *b)
{
	for (unsigned i = 0; i < b->nrets && !s->fleeting; i++) {
		const struct ret_point *r = &b->rets[i];

		need_stretch(k, s, r->eip);
		uint32_t *slot = slot_to_set(k, s, r->eip);
		if (*slot != cache_miss(k))
			continue;
		put_slot(k, s, slot, r->eip, slot_of(k, r->at));
		k->stats.table_fills++;
	}
}

uint32_t space_replay(struct cache *k, struct space *s, const struct recalled *r, uint32_t eip)
{
	uint32_t there = 0;

	/* Emptying a table that has more than its log holds costs more than this gains. */
	if (s->logged + r->n > CACHE_SLOT_LOG)
		return 0;
	need_stretch(k, s, eip);
	for (unsigned i = 0; i < r->n; i++) {
		const uint32_t at = (eip & PAGE_MASK) + r->at[i];

		if (at == eip)
			there = r->host[i];
		set_slot(k, s, at, r->host[i]);
	}
	k->stats.slots_recalled += r->n;
	return there;
}

void space_redirect(struct cache *k, uint32_t mode, uint32_t eip, uint32_t from, uint32_t to)
{
	for (uint32_t i = 0; i < k->nspaces; i++) {
		struct space *s = &k->spaces[i];
		if (s->used && s->mode == mode && s->table[eip] == slot_of(k, from))
			s->table[eip] = slot_of(k, to);
	}
}

/* Empties the slots of [lin, lin + bytes), whole pages. */
static void forget_slots(const struct cache *k, struct space *s, uint32_t lin, uint64_t bytes)
{
	uint32_t kept = 0;

	recall_unseen(s, lin >> PAGE_SHIFT, bytes >> PAGE_SHIFT);
	if (s->logged > CACHE_SLOT_LOG) {
		if (bytes <= FORGET_EXACTLY && lin + bytes <= 1ull << 32)
			madvise(&s->table[lin], bytes * sizeof *s->table, MADV_DONTNEED);
		else
			table_empty(k, s);
		return;
	}
	for (uint32_t i = 0; i < s->logged; i++) {
		const uint32_t eip = s->log[i];

		if (eip - lin < bytes)
			s->table[eip] = cache_miss(k);
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
		forget_slots(k, s, lin, (uint64_t)pages << PAGE_SHIFT);
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

uint64_t cache_stack_middle(const struct cache *k)
{
	return (uint64_t)(uintptr_t)(k->stack + STACK_BYTES / 2);
}

bool cache_stack_contains(const struct cache *k, uint64_t rsp)
{
	return rsp - (uint64_t)(uintptr_t)k->stack <= STACK_BYTES;
}

bool cache_stack_guard(const struct cache *k, uint64_t addr)
{
	const uint64_t base = (uint64_t)(uintptr_t)k->stack;

	return addr - (base - PAGE_SIZE) < PAGE_SIZE || addr - (base + STACK_BYTES) < PAGE_SIZE;
}
