/* host.c - the host mappings behind windows.
 *
 * Pages of a window that show nothing are holes in the address space, not PROT_NONE mappings: mapping into a
 * hole costs two thirds of mapping over a reservation (3.3 against 5.0 us, measured with the page populated)
 * and half the mappings. What keeps everybody else out of the holes is where they are: host_find_arena takes
 * a stretch that the kernel's own choice of addresses (downwards from the stack, or upwards from a third of
 * the address space) does not come near.
 *
 * A page that the guest unmaps is usually held, not unmapped: mprotect to PROT_NONE costs 0.85 us,
 * munmap 2.6; mapping another frame there later costs as much as after an munmap, and the same frame a
 * quarter.
 *
 * The first page in an empty stretch of a window costs 6 us, the next ones 3: the host has to make page
 * tables, and frees them when the last page goes. So a user window that is recycled keeps an anchor in each 2
 * MiB where it had something, a mapping of the first page there without any rights, and is unmapped around
 * these.
 *
 * Every call adds at most two mappings to the process (the piece itself and what it splits off), which is
 * what is counted: window.vmas is an upper bound, made exact again by a recount when the sum reaches the
 * budget. The budget leaves room below vm.max_map_count for the rest of the process and for the calls between
 * two moments at which host_relieve may give windows up.
 *
 * Nothing here may fail in a way that leaves a page mapped which must not be: the last resort is to unmap
 * a whole window, which takes mappings away and therefore works at the limit.
 */
#include "mem/internal.h"

#include <errno.h>
#include <sys/mman.h>

#define POPULATE_MAX 16u /* up to here one populated call beats touching the pages one by one */

uintptr_t host_find_arena(uint64_t bytes)
{
	/* From 24 TiB up: above a sanitizer's shadow memory, below where the kernel begins to look. */
	for (uintptr_t at = 24ull << 40; at < 42ull << 40; at += 2ull << 40) {
		void *p = mmap((void *)at, bytes, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

		if (p == MAP_FAILED)
			continue;
		munmap(p, bytes);
		if (p == (void *)at)
			return at;
	}
	return 0;
}

static void *address(const struct window *w, uint32_t page)
{
	return (void *)(w->base + ((uintptr_t)page << PAGE_SHIFT));
}

/* The tests' way to make the host refuse. */
static bool refused(struct mem *m)
{
	if (m->fail_in) {
		m->fail_in--;
		return false;
	}
	if (!m->fail_n)
		return false;
	m->fail_n--;
	errno = ENOMEM;
	return true;
}

static void count(struct window *w, uint32_t n)
{
	w->vmas += n;
	w->m->vmas += n;
	w->m->stats.mappings_now = w->m->vmas;
}

static void set_count(struct window *w, uint32_t n)
{
	w->m->vmas -= w->vmas;
	w->vmas = 0;
	count(w, n);
}

/* ------------------------------------------------------------------ anchors */

static bool bit(const uint64_t *map, uint32_t i)
{
	return map[i / 64] >> i % 64 & 1;
}

static uint32_t bits(const uint64_t *map)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < REGIONS / 64; i++)
		n += (uint32_t)__builtin_popcountll(map[i]);
	return n;
}

/* The pages get another mapping, or none: an anchor among them is gone. */
static void lose_anchors(struct window *w, uint32_t page, uint32_t n)
{
	for (uint32_t r = (page + REGION_PAGES - 1) / REGION_PAGES; r * REGION_PAGES < page + n; r++)
		w->anchored[r / 64] &= ~(1ull << r % 64);
}

static void touch(struct window *w, uint32_t page, uint32_t n)
{
	for (uint32_t r = page / REGION_PAGES; r * REGION_PAGES < page + n; r++)
		w->touched[r / 64] |= 1ull << r % 64;
	lose_anchors(w, page, n);
}

static bool anchor(struct window *w, uint32_t region)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

	if (!bit(w->anchored, region) && (refused(w->m) || mmap(address(w, region * REGION_PAGES), PAGE_SIZE,
								PROT_NONE, flags, -1, 0) == MAP_FAILED))
		return false;
	w->anchored[region / 64] |= 1ull << region % 64;
	return true;
}

static bool clear_around_anchors(struct window *w)
{
	for (uint32_t r = 0; r < REGIONS; r++) {
		if (!w->touched[r / 64]) {
			r |= 63;
			continue;
		}
		if (!bit(w->touched, r))
			continue;
		w->m->stats.unmap_calls++;
		if (!anchor(w, r) ||
		    munmap(address(w, r * REGION_PAGES + 1), (uint64_t)(REGION_PAGES - 1) << PAGE_SHIFT) < 0)
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------ whole windows */

static void wiped(struct window *w)
{
	w->host_dirty = false;
	fill_zero(w->touched, sizeof w->touched);
	if (w == w->m->phys)
		w->m->phys_whole = false;
	set_count(w, bits(w->anchored));
}

void host_wipe(struct window *w)
{
	if (w->host_dirty || bits(w->anchored)) {
		w->m->stats.unmap_calls++;
		munmap((void *)w->base, WINDOW_SPAN);
	}
	fill_zero(w->anchored, sizeof w->anchored);
	wiped(w);
}

/* One call for all costs as much as three. */
#define RECYCLE_REGIONS 6u
#define ANCHORS_MAX	64u

void host_recycle(struct window *w)
{
	if (bits(w->touched) <= RECYCLE_REGIONS && bits(w->anchored) <= ANCHORS_MAX &&
	    clear_around_anchors(w))
		wiped(w);
	else
		host_wipe(w);
}

/* The last resort. */
static void empty(struct window *w)
{
	if (w->kind == WIN_PHYS)
		host_wipe(w);
	else
		shadow_clear_data(w);
}

/* Empties windows that were given up earlier and gives up those that can be. */
static void evict_all(struct mem *m)
{
	while (window_evict_one(m))
		;
	for (unsigned i = 0; i < MAX_WINDOWS; i++)
		if (m->windows[i].kind == WIN_FREE)
			host_wipe(&m->windows[i]);
}

static bool try_map(struct window *w, uint32_t page, uint32_t n, uint32_t gfn, bool writable)
{
	const int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
	const int flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE | (n <= POPULATE_MAX ? MAP_POPULATE : 0);

	return !refused(w->m) && mmap(address(w, page), (uint64_t)n << PAGE_SHIFT, prot, flags, w->m->fd,
				      (off_t)gfn << PAGE_SHIFT) != MAP_FAILED;
}

int host_map(struct window *w, uint32_t page, uint32_t n, uint32_t gfn, bool writable)
{
	bool ok = try_map(w, page, n, gfn, writable);

	w->m->stats.map_calls++;
	if (!ok) {
		evict_all(w->m);
		ok = try_map(w, page, n, gfn, writable);
	}
	if (!ok) {
		empty(w);
		return -1;
	}
	w->m->stats.pages_mapped += n;
	w->host_dirty = true;
	touch(w, page, n);
	count(w, 2);
	return 0;
}

void host_unmap(struct window *w, uint32_t page, uint32_t n)
{
	w->m->stats.unmap_calls++;
	if (refused(w->m) || munmap(address(w, page), (uint64_t)n << PAGE_SHIFT) < 0)
		empty(w);
	else
		count(w, 2);
	lose_anchors(w, page, n);
}

static bool try_protect(struct window *w, uint32_t page, uint32_t n, int prot)
{
	w->m->stats.protect_calls++;
	if (refused(w->m) || mprotect(address(w, page), (uint64_t)n << PAGE_SHIFT, prot) < 0)
		return false;
	count(w, 2);
	return true;
}

void host_hold(struct window *w, uint32_t page, uint32_t n)
{
	if (!try_protect(w, page, n, PROT_NONE))
		empty(w);
}

bool host_try_protect_rw(struct window *w, uint32_t page, uint32_t n)
{
	return try_protect(w, page, n, PROT_READ | PROT_WRITE);
}

int host_protect(struct window *w, uint32_t page, uint32_t n, bool writable)
{
	const int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;

	if (try_protect(w, page, n, prot))
		return 0;
	evict_all(w->m);
	if (try_protect(w, page, n, prot))
		return 0;
	empty(w);
	return -1;
}

void host_protect_ro(struct window *w, uint32_t page, uint32_t n)
{
	if (!try_protect(w, page, n, PROT_READ))
		empty(w);
}

/* How many mappings the host needs for w: runs of pages that it can merge. */
static uint32_t recount(const struct window *w)
{
	const struct mem *m = w->m;
	uint32_t runs = 0, prev = 0;

	for (uint32_t s = 0; s < m->n_slots; s++) {
		const struct slot *sl = &w->slots[s];

		if (!sl->filled || (!sl->mapped && !sl->held)) {
			prev = 0;
			continue;
		}
		for (uint32_t i = 0; i < m->slot_pages; i++) {
			uint32_t e = sl->sh[i];

			if (!(e & (SH_MAPPED | SH_HELD))) {
				prev = 0;
				continue;
			}
			if (!prev || e >> PAGE_SHIFT != (prev >> PAGE_SHIFT) + 1 ||
			    (e ^ prev) & (SH_WRITE | SH_HELD))
				runs++;
			prev = e;
		}
	}
	return runs;
}

void host_relieve(struct mem *m)
{
	if (m->vmas <= m->vma_budget)
		return;
	for (unsigned i = 0; i < MAX_WINDOWS; i++) {
		struct window *w = &m->windows[i];

		if (w->kind == WIN_FREE)
			host_wipe(w);
		else if (w->kind != WIN_PHYS)
			set_count(w, recount(w) + bits(w->anchored));
	}
	while (m->vmas > m->vma_budget / 4 * 3 && window_evict_one(m)) {
		for (unsigned i = 0; i < MAX_WINDOWS; i++)
			if (m->windows[i].kind == WIN_FREE)
				host_wipe(&m->windows[i]);
	}
	if (m->vmas > m->vma_budget / 4 * 3) {
		if (m->user && m->user->kind == WIN_USER)
			shadow_clear_data(m->user);
		if (m->super && m->super->kind == WIN_SUPER)
			shadow_clear_data(m->super);
	}
}
