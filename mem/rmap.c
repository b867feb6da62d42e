/* rmap.c - the reverse map: from a page of RAM to the window pages through which it may be written.
 *
 * Only writable mappings matter (a trace has to take the right to write away, nothing else), so pages that
 * many address spaces share read-only cost nothing here. Nodes are hints: a mapping that goes away leaves its
 * node behind, and whoever follows one checks the shadow entry. SH_RMAP in the entry keeps a page that comes
 * and goes from being added twice. When the pool is full the map is built anew from the shadow entries.
 */
#include "mem/internal.h"

#define NODES (4u << 20)

int rmap_init(struct mem *m)
{
	m->rmap_head = map_anonymous((uint64_t)m->ram_pages * 4);
	m->rmap = map_anonymous(sizeof(struct rmap_node) * NODES);
	m->rmap_max = NODES;
	m->rmap_n = 1; /* 0 ends a list */
	return m->rmap_head && m->rmap ? 0 : -1;
}

void rmap_destroy(struct mem *m)
{
	unmap_anonymous(m->rmap_head, (uint64_t)m->ram_pages * 4);
	unmap_anonymous(m->rmap, sizeof(struct rmap_node) * NODES);
}

static void insert(struct mem *m, uint32_t gfn, const struct window *w, uint32_t page)
{
	m->rmap[m->rmap_n] = (struct rmap_node){.next = m->rmap_head[gfn], .where = w->id << 20 | page};
	m->rmap_head[gfn] = m->rmap_n++;
}

static void rebuild_slot(struct mem *m, struct window *w, uint32_t slot)
{
	struct slot *sl = &w->slots[slot];

	for (uint32_t i = 0; i < m->slot_pages; i++) {
		if (!(sl->sh[i] & (SH_WRITE | SH_WPROT))) {
			sl->sh[i] &= ~SH_RMAP;
			continue;
		}
		assert(m->rmap_n < m->rmap_max);
		insert(m, sl->sh[i] >> PAGE_SHIFT, w, (slot << m->slot_shift) + i);
		sl->sh[i] |= SH_RMAP;
	}
}

static uint32_t live_nodes(const struct mem *m)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < MAX_WINDOWS; i++)
		for (uint32_t s = 0; m->windows[i].n_filled && s < m->n_slots; s++)
			n += m->windows[i].slots[s].filled ? m->slot_pages : 0;
	return n;
}

static void rebuild(struct mem *m)
{
	/* Leave room to work in, or the next rebuild is near. */
	while (live_nodes(m) > m->rmap_max / 2 && window_evict_one(m))
		;
	fill_zero(m->rmap_head, ((uint64_t)m->ram_pages * 4 + 7) & ~7ull);
	m->rmap_n = 1;
	for (unsigned i = 0; i < MAX_WINDOWS; i++) {
		struct window *w = &m->windows[i];

		for (uint32_t s = 0; w->n_filled && s < m->n_slots; s++)
			if (w->slots[s].filled)
				rebuild_slot(m, w, s);
	}
}

void rmap_add(struct mem *m, uint32_t gfn, const struct window *w, uint32_t page)
{
	if (m->rmap_n == m->rmap_max)
		rebuild(m);
	insert(m, gfn, w, page);
}

/* The shadow entry that a node leads to, NULL if it no longer maps gfn with any right to write. */
static uint32_t *follow(const struct mem *m, const struct rmap_node *node, uint32_t gfn, struct window **w,
			uint32_t *page)
{
	struct slot *sl;
	uint32_t *e;

	*w = &m->windows[node->where >> 20];
	*page = node->where & 0xfffffu;
	if ((*w)->kind != WIN_USER && (*w)->kind != WIN_SUPER)
		return NULL;
	sl = &(*w)->slots[*page >> m->slot_shift];
	if (!sl->filled)
		return NULL;
	e = &sl->sh[*page & (m->slot_pages - 1)];
	return *e >> PAGE_SHIFT == gfn && (*e & (SH_WRITE | SH_WPROT)) ? e : NULL;
}

/* Where a supervisor has code, there is more. When this many of GROUP pages in a row are code, all lose the
 * right to be written in one call. The first store to one that is no code after all gets it back. */
#define GROUP	   16u
#define GROUP_CODE 3u

/* Those around page that show frames in a row: *first, and how many. 1 if few of them are code. */
static uint32_t code_group(const struct window *w, uint32_t page, uint32_t gfn, uint32_t *first)
{
	const struct mem *m = w->m;
	const uint32_t at = page % GROUP;
	const uint32_t *sh = &w->slots[page >> m->slot_shift].sh[(page & (m->slot_pages - 1)) - at];
	uint32_t lo = at, hi = at + 1, code = 0;

	*first = page;
	if (w->kind != WIN_SUPER || !(m->trace[gfn] & TRACE_CODE))
		return 1;
	while (lo > 0 && (sh[lo - 1] & SH_MAPPED) && sh[lo - 1] >> PAGE_SHIFT == gfn - at + lo - 1)
		lo--;
	while (hi < GROUP && (sh[hi] & SH_MAPPED) && sh[hi] >> PAGE_SHIFT == gfn - at + hi)
		hi++;
	for (uint32_t i = lo; i < hi; i++)
		code += !!(m->trace[gfn - at + i] & TRACE_CODE);
	if (code < GROUP_CODE)
		return 1;
	*first = page - at + lo;
	return hi - lo;
}

static void protect_group(struct window *w, uint32_t page, uint32_t n)
{
	uint32_t *e = &w->slots[page >> w->m->slot_shift].sh[page & (w->m->slot_pages - 1)];

	for (uint32_t i = 0; i < n; i++) {
		if (!(e[i] & SH_WRITE))
			continue;
		e[i] = (e[i] & ~SH_WRITE) | SH_WPROT;
		shadow_show(w, page + i, e[i]);
	}
	host_protect_ro(w, page, n);
}

void rmap_protect(struct mem *m, uint32_t gfn)
{
	struct window *w;
	uint32_t page, n;

	for (uint32_t i = m->rmap_head[gfn]; i; i = m->rmap[i].next) {
		uint32_t *e = follow(m, &m->rmap[i], gfn, &w, &page);

		if (!e || !(*e & SH_WRITE))
			continue;
		n = code_group(w, page, gfn, &page);
		protect_group(w, page, n);
	}
	phys_protect(m, gfn, false);
}

/* A page that loses its last trace is most often about to be written (a page table that was freed and is
 * cleared for its next use): one call now saves a fault. Windows that aren't current keep SH_WPROT; so do
 * pages that are about to be dropped. */
void rmap_unprotect(struct mem *m, uint32_t gfn)
{
	struct window *w;
	uint32_t page;

	for (uint32_t i = m->rmap_head[gfn]; i; i = m->rmap[i].next) {
		uint32_t *e = follow(m, &m->rmap[i], gfn, &w, &page);

		if (!e || !(*e & SH_WPROT) || (*e & SH_QUEUED) || !window_current(w) ||
		    w->slots[page >> m->slot_shift].doomed || !host_try_protect_rw(w, page, 1))
			continue;
		*e = (*e & ~SH_WPROT) | SH_WRITE;
		shadow_show(w, page, *e);
	}
	phys_protect(m, gfn, true);
}
