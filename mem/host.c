/* host.c - the host mappings behind windows.
 *
 * Every call adds at most two mappings to the process (the piece itself and what it splits off), which is
 * what is counted: window.vmas is an upper bound, made exact again by a recount when the sum reaches the
 * budget. The budget leaves room below vm.max_map_count for the rest of the process and for the calls between
 * two moments at which host_relieve may give windows up.
 *
 * Nothing here may fail in a way that leaves a page mapped which must not be: the last resort is to map
 * PROT_NONE over a whole window, which takes mappings away and therefore works at the limit.
 */
#include "mem/internal.h"

#include <errno.h>
#include <sys/mman.h>

#define POPULATE_MAX 16u /* up to here one populated call beats touching the pages one by one */

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

void host_wipe(struct window *w)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

	if (w->host_dirty) {
		w->m->stats.unmap_calls++;
		if (mmap((void *)w->base, WINDOW_SPAN, PROT_NONE, flags, -1, 0) == MAP_FAILED) {
			/* Over the limit even so: give the span back first. Nobody maps anything in between;
			 * if the span stayed a hole, translated code would still fault there. */
			munmap((void *)w->base, WINDOW_SPAN);
			mmap((void *)w->base, WINDOW_SPAN, PROT_NONE, flags, -1, 0);
		}
	}
	w->host_dirty = false;
	if (w == w->m->phys)
		w->m->phys_whole = false;
	set_count(w, 0);
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
		shadow_clear_data(w);
		return -1;
	}
	w->m->stats.pages_mapped += n;
	w->host_dirty = true;
	count(w, 2);
	return 0;
}

static bool try_unmap(struct window *w, uint32_t page, uint32_t n)
{
	return !refused(w->m) &&
	       mmap(address(w, page), (uint64_t)n << PAGE_SHIFT, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

void host_unmap(struct window *w, uint32_t page, uint32_t n)
{
	w->m->stats.unmap_calls++;
	if (!try_unmap(w, page, n)) {
		shadow_clear_data(w);
		return;
	}
	count(w, 2);
}

bool host_try_protect_rw(struct window *w, uint32_t page, uint32_t n)
{
	w->m->stats.protect_calls++;
	if (refused(w->m) ||
	    mprotect(address(w, page), (uint64_t)n << PAGE_SHIFT, PROT_READ | PROT_WRITE) < 0)
		return false;
	count(w, 2);
	return true;
}

int host_protect_rw(struct window *w, uint32_t page, uint32_t n)
{
	if (host_try_protect_rw(w, page, n))
		return 0;
	evict_all(w->m);
	if (host_try_protect_rw(w, page, n))
		return 0;
	shadow_clear_data(w);
	return -1;
}

void host_protect_ro(struct window *w, uint32_t page, uint32_t n)
{
	w->m->stats.protect_calls++;
	if (refused(w->m) || mprotect(address(w, page), (uint64_t)n << PAGE_SHIFT, PROT_READ) < 0) {
		if (w->kind == WIN_PHYS)
			host_wipe(w);
		else
			shadow_clear_data(w);
		return;
	}
	count(w, 2);
}

/* How many mappings the host needs for w: runs of pages that it can merge, and the gaps between them. */
static uint32_t recount(const struct window *w)
{
	const struct mem *m = w->m;
	uint32_t runs = 0, prev = 0;

	for (uint32_t s = 0; s < m->n_slots; s++) {
		const struct slot *sl = &w->slots[s];

		if (!sl->filled || !sl->mapped) {
			prev = 0;
			continue;
		}
		for (uint32_t i = 0; i < m->slot_pages; i++) {
			uint32_t e = sl->sh[i];

			if (!(e & SH_MAPPED)) {
				prev = 0;
				continue;
			}
			if (!prev || e >> PAGE_SHIFT != (prev >> PAGE_SHIFT) + 1 || (e ^ prev) & SH_WRITE)
				runs++;
			prev = e;
		}
	}
	return 2 * runs + 1;
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
			set_count(w, recount(w));
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
