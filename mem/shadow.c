/* shadow.c - the contents of windows: slots and shadow entries.
 *
 * See internal.h for the invariant. A slot is opened from a directory entry; shadow_fill maps pages of it as
 * the guest's entries allow. What a flush must look at again is kept by recheck.c.
 *
 * The callbacks to the code cache come last in each operation, when everything here is consistent again; they
 * may remove traces.
 */
#include "mem/internal.h"

/* ------------------------------------------------------------------ shadow tables */

static uint32_t *table_alloc(struct mem *m)
{
	uint32_t *t;

	while (m->sh_used >= m->sh_max)
		if (!window_evict_one(m))
			return NULL;
	m->sh_used++;
	if (m->sh_free) {
		t = m->sh_pool + (uint64_t)(m->sh_free - 1) * SLOT_PAGES_MAX;
		m->sh_free = t[0];
		t[0] = 0;
	} else {
		t = m->sh_pool + (uint64_t)m->sh_fresh++ * SLOT_PAGES_MAX;
	}
	return t;
}

static void table_free(struct mem *m, uint32_t *t)
{
	fill_zero(t, SLOT_PAGES_MAX * sizeof *t);
	t[0] = m->sh_free;
	m->sh_free = (uint32_t)((t - m->sh_pool) / SLOT_PAGES_MAX) + 1;
	m->sh_used--;
}

/* ------------------------------------------------------------------ mem_view.present */

/* The shadow entry of the page has become e. */
void shadow_show(struct window *w, uint32_t page, uint32_t e)
{
	if (w->kind != WIN_USER)
		return;
	w->shown = true;
	if (w->present[MEM_PRESENT_WRITE + page] && !(e & SH_WRITE) &&
	    w->missed[page] < MISS_LOST_MAX * MISS_LOST)
		w->missed[page] = (uint16_t)((w->missed[page] & ~MISS_COUNT) + MISS_LOST);
	w->present[page] = e & SH_MAPPED;
	w->present[MEM_PRESENT_WRITE + page] = (e & (SH_MAPPED | SH_WRITE)) == (SH_MAPPED | SH_WRITE);
}

static void hide_slot(struct window *w, uint32_t slot)
{
	const struct mem *m = w->m;

	if (!w->shown)
		return;
	fill_zero(w->missed + (slot << m->slot_shift), m->slot_pages * 2ull);
	if (!w->slots[slot].mapped)
		return;
	fill_zero(w->present + (slot << m->slot_shift), m->slot_pages);
	fill_zero(w->present + MEM_PRESENT_WRITE + (slot << m->slot_shift), m->slot_pages);
}

/* ------------------------------------------------------------------ callbacks */

static void code_unmapped(struct window *w, uint32_t page, uint32_t n)
{
	struct mem *m = w->m;

	m->stats.code_unmaps++;
	if (m->ops.code_unmapped)
		m->ops.code_unmapped(m->opaque, w, page << PAGE_SHIFT, n);
}

void tell_code(struct window *w, uint32_t page, uint32_t *t, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t start = i;

		while (i < n && (t[i] & SH_CODE))
			t[i++] &= ~SH_CODE;
		if (i > start)
			code_unmapped(w, page + start, i - start);
	}
}

/* ------------------------------------------------------------------ slots */

static void mark_filled(struct window *w, uint32_t slot, bool filled)
{
	const uint64_t bit = 1ull << (slot & 63);

	w->slots[slot].filled = filled;
	if (filled) {
		w->filled[slot >> 6] |= bit;
		w->n_filled++;
	} else {
		w->filled[slot >> 6] &= ~bit;
		w->n_filled--;
	}
}

/* Address spaces that share w have to compare this slot again. */
static void log_fill(struct window *w, uint32_t slot)
{
	w->log[w->version % FILL_LOG] = (uint16_t)slot;
	w->version++;
}

/* Makes slot of w ready for pages, as the directory entry pde says, which is present and valid. NULL: no
 * memory for shadow tables, which cannot be if only the current windows exist. */
struct slot *slot_open(struct window *w, uint32_t slot, uint64_t pde)
{
	struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	const uint64_t key = pde_key(m, pde), pt = pde_table(m, key);

	if (sl->filled && (sl->doomed || pde_differs(sl->pde, key)))
		slot_follow(w, slot, key);
	if (sl->filled) {
		/* A or D may have come. D makes pages writable, which other spaces' entries may not allow. */
		if (sl->pde != key)
			log_fill(w, slot);
		sl->pde = key;
		return sl;
	}
	sl->large = key & PTE_PS;
	if (!sl->large && !gpa_is_ram(m, pt))
		return NULL;
	sl->sh = table_alloc(m);
	if (!sl->sh)
		return NULL;
	sl->pde = key;
	sl->pt_gfn = sl->large ? NO_GFN : (uint32_t)(pt >> PAGE_SHIFT);
	sl->mapped = 0;
	sl->doomed = sl->held = sl->watched = false;
	sl->looks = 0;
	mark_filled(w, slot, true);
	log_fill(w, slot);
	if (!sl->large && (w->kind != WIN_USER || !m->loose_looks))
		slot_watch(w, slot);
	return sl;
}

void slot_drop(struct window *w, uint32_t slot)
{
	struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	uint32_t *t = sl->sh;

	mark_filled(w, slot, false);
	slot_unwatch(w, slot);
	loose_end(w, slot, false);
	sl->sh = NULL;
	hide_slot(w, slot);
	if (sl->mapped || sl->held)
		host_unmap(w, slot << m->slot_shift, m->slot_pages);
	sl->mapped = 0;
	sl->doomed = sl->held = false;
	tell_code(w, slot << m->slot_shift, t, m->slot_pages);
	table_free(m, t);
}

/* A large page of the supervisor's that has got other rights, or was split: the slot goes on with the new
 * entry. A kernel that does this runs from there, and would have to be mapped, found and chained anew. */
static bool go_on(struct window *w, uint32_t slot, uint64_t key)
{
	struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	const uint64_t flags = RIGHTS | PTE_A | PTE_D, pt = pde_table(m, key);
	const bool split = !(key & PTE_PS);

	if (w->kind != WIN_SUPER || sl->doomed || !sl->large || !(key & PTE_A))
		return false;
	if (split ? !gpa_is_ram(m, pt) : (sl->pde ^ key) & ~flags)
		return false;
	sl->pde = key;
	log_fill(w, slot);
	if (split) {
		sl->large = false;
		sl->pt_gfn = (uint32_t)(pt >> PAGE_SHIFT);
		slot_watch(w, slot);
	}
	slot_recheck(w, slot);
	return true;
}

void slot_follow(struct window *w, uint32_t slot, uint64_t key)
{
	if (!go_on(w, slot, key))
		slot_drop(w, slot);
}

void slot_doom(struct window *w, uint32_t slot)
{
	struct slot *sl = &w->slots[slot];

	if (sl->doomed)
		return;
	slot_unwatch(w, slot);
	sl->doomed = true;
	queue_slot(w, slot);
}

void shadow_release(struct window *w)
{
	struct mem *m = w->m;

	for (uint32_t word = 0; word < MAX_SLOTS / 64; word++) {
		while (w->filled[word]) {
			uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(w->filled[word]);
			struct slot *sl = &w->slots[slot];

			mark_filled(w, slot, false);
			slot_unwatch(w, slot);
			hide_slot(w, slot);
			table_free(m, sl->sh);
			*sl = (struct slot){0};
		}
	}
	w->queued = 0;
	w->queue_overflow = false;
	w->n_loose = 0;
}

void shadow_clear_data(struct window *w)
{
	struct mem *m = w->m;

	for (uint32_t slot = 0; slot < m->n_slots; slot++) {
		struct slot *sl = &w->slots[slot];

		if (!sl->filled || (!sl->mapped && !sl->held))
			continue;
		for (uint32_t i = 0; i < m->slot_pages; i++)
			sl->sh[i] &= ~(SH_MAPPED | SH_WRITE | SH_WPROT | SH_HELD);
		hide_slot(w, slot);
		sl->mapped = 0;
		sl->held = false;
	}
	w->wp0 = false;
	host_wipe(w);
}

/* ------------------------------------------------------------------ mapping */

/* Records that the host maps page i of the slot like this. */
static void record(struct window *w, uint32_t slot, uint32_t i, uint32_t gfn, uint32_t flags)
{
	struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	uint32_t *e = &sl->sh[i];
	const uint32_t page = (slot << m->slot_shift) + i;
	uint32_t keep = *e & (SH_QUEUED | SH_RMAP | SH_CODE | SH_LOOSE);

	sl->mapped = (uint16_t)(sl->mapped + !(*e & SH_MAPPED));
	if (*e >> PAGE_SHIFT != gfn)
		keep &= ~(SH_RMAP | SH_CODE);
	if ((flags & (SH_WRITE | SH_WPROT)) && !(keep & SH_RMAP)) {
		rmap_add(m, gfn, w, page);
		keep |= SH_RMAP;
	}
	*e = gfn << PAGE_SHIFT | keep | flags | SH_MAPPED;
	loose_add(w, page);
	shadow_show(w, page, *e);
}

/* Is any of the n frames free of traces? Then a run that the guest may write is made writable first. */
static bool any_untraced(const struct slot *sl, uint32_t i, uint32_t n, const struct mem *m, uint32_t gfn)
{
	for (uint32_t k = 0; k < n; k++)
		if (!m->trace[gfn == NO_GFN ? sl->sh[i + k] >> PAGE_SHIFT : gfn + k])
			return true;
	return false;
}

/* The host has just given n pages from index i on the rights `writable`: records it, and takes the right to
 * write from traced pages, runs of them in one call. Frames are gfn..., or with NO_GFN those that the entries
 * name. */
static void settle(struct window *w, uint32_t slot, uint32_t i, uint32_t n, uint32_t gfn, bool may_write,
		   bool writable)
{
	struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	const uint32_t page = (slot << m->slot_shift) + i;

	for (uint32_t k = 0; k < n; k++) {
		const uint32_t frame = gfn == NO_GFN ? sl->sh[i + k] >> PAGE_SHIFT : gfn + k;

		/* Not by the trace alone: the call may have given windows up, and traces with them. */
		record(w, slot, i + k, frame,
		       !may_write		      ? 0
		       : !writable || m->trace[frame] ? SH_WPROT
						      : SH_WRITE);
	}
	for (uint32_t k = 0; writable && k < n; k++) {
		uint32_t start = k;

		while (k < n && (sl->sh[i + k] & SH_WPROT))
			k++;
		if (k > start)
			host_protect_ro(w, page + start, k - start);
	}
}

/* Page i is held with a frame that does not come back. Then those around it won't either (a program has
 * unmapped memory and been given other): they are all let go, because mapping where nothing is takes half the
 * time. */
#define LET_GO_MIN 8u

static bool held_only(const struct slot *sl, uint32_t i)
{
	return (sl->sh[i] & (SH_HELD | SH_MAPPED)) == SH_HELD;
}

static void let_go(struct window *w, uint32_t slot, uint32_t i)
{
	const struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	uint32_t lo = i, hi = i;

	while (lo > 0 && held_only(sl, lo - 1))
		lo--;
	while (hi < m->slot_pages && held_only(sl, hi))
		hi++;
	if (hi - lo < LET_GO_MIN)
		return;
	for (uint32_t k = lo; k < hi; k++)
		sl->sh[k] &= ~SH_HELD;
	host_unmap(w, (slot << m->slot_shift) + lo, hi - lo);
}

/* Maps n pages from index i on to frames gfn..., all RAM, in one call. */
static int map_run(struct window *w, uint32_t slot, uint32_t i, uint32_t n, uint32_t gfn, bool may_write)
{
	struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	const uint32_t page = (slot << m->slot_shift) + i;
	const bool writable = may_write && any_untraced(sl, i, n, m, gfn);
	uint32_t stale[SLOT_PAGES_MAX / 32] = {0};
	bool any_stale = false;

	if (held_only(sl, i) && sl->sh[i] >> PAGE_SHIFT != gfn)
		let_go(w, slot, i);
	if (host_map(w, page, n, gfn, writable) < 0)
		return -1;
	for (uint32_t k = 0; k < n; k++) {
		const uint32_t e = sl->sh[i + k];

		/* Code noted here belonged to another frame: its table entry was changed and not flushed yet.
		 */
		if ((e & SH_CODE) && e >> PAGE_SHIFT != gfn + k) {
			stale[k / 32] |= 1u << k % 32;
			any_stale = true;
		}
	}
	settle(w, slot, i, n, gfn, may_write, writable);
	for (uint32_t k = 0; any_stale && k < n; k++)
		if (stale[k / 32] >> k % 32 & 1)
			code_unmapped(w, page + k, 1);
	return 0;
}

/* The same for pages that the host has already, with fewer rights. */
static int raise_run(struct window *w, uint32_t slot, uint32_t i, uint32_t n, bool may_write)
{
	struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	const bool writable = may_write && any_untraced(sl, i, n, m, NO_GFN);

	/* A refusal a moment ago may have emptied the window. */
	if (!(sl->sh[i] & (SH_MAPPED | SH_HELD)) ||
	    host_protect(w, (slot << m->slot_shift) + i, n, writable) < 0)
		return -1;
	settle(w, slot, i, n, NO_GFN, may_write, writable);
	return 0;
}

/* A large page is mapped whole, around what of it is not RAM; it becomes writable whole. */
static int fill_large(struct window *w, uint32_t slot, uint32_t index)
{
	struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	const struct leaf first = leaf_read(m, sl, 0), here = leaf_read(m, sl, index);
	const bool may_write = leaf_may_write(w, &here), contiguous = m->mode.a20 == 0xffffffffu;
	const uint32_t e = sl->sh[index];

	if (!here.ok)
		return 0;
	if (!contiguous)
		return map_run(w, slot, index, 1, here.gfn, may_write);
	if ((e & SH_MAPPED) && (e & (SH_WRITE | SH_WPROT)))
		return m->trace[here.gfn] ? 0 : raise_run(w, slot, index, 1, may_write);
	for (uint32_t i = 0; i < m->slot_pages;) {
		uint32_t n = 0;
		int r;

		while (i + n < m->slot_pages && gfn_is_ram(m, first.gfn + i + n))
			n++;
		if (!n) {
			i++;
			continue;
		}
		r = (e & SH_MAPPED) && may_write ? raise_run(w, slot, i, n, may_write)
						 : map_run(w, slot, i, n, first.gfn + i, may_write);
		if (r < 0)
			return -1;
		i += n;
	}
	return 0;
}

#define AROUND 32u /* neighbours looked at on each side */

struct want {
	struct leaf l;
	bool raise;    /* the host has the frame there and needs only more rights */
	bool writable; /* for the host */
};

/* What shadow_fill would do to page i; false: nothing. */
static bool wants(struct window *w, const struct slot *sl, uint32_t i, struct want *out)
{
	struct mem *m = w->m;
	const uint32_t e = sl->sh[i];

	out->l = leaf_read(m, sl, i);
	if (!out->l.ok || out->l.user != (w->kind == WIN_USER))
		return false;
	out->writable = leaf_may_write(w, &out->l) && !m->trace[out->l.gfn];
	out->raise = (e & (SH_MAPPED | SH_HELD)) && e >> PAGE_SHIFT == out->l.gfn;
	return !out->raise || !(e & SH_MAPPED) || (out->writable && !(e & SH_WRITE));
}

/* Can page i, which lies dist pages from one that wants a, be done in the same call? */
static bool joins(struct window *w, const struct slot *sl, uint32_t i, int dist, const struct want *a)
{
	struct want b;

	return wants(w, sl, i, &b) && b.raise == a->raise && b.writable == a->writable &&
	       b.l.write == a->l.write && b.l.dirty == a->l.dirty &&
	       (a->raise || b.l.gfn == a->l.gfn + (uint32_t)dist);
}

static int fill_small(struct window *w, uint32_t slot, uint32_t index, bool force)
{
	const struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	uint32_t lo = index, hi = index + 1;
	struct want a;

	if (!wants(w, sl, index, &a)) {
		if (!force || !a.l.ok || a.l.user != (w->kind == WIN_USER))
			return 0;
		return map_run(w, slot, index, 1, a.l.gfn, leaf_may_write(w, &a.l));
	}
	while (hi < m->slot_pages && hi - index < AROUND && joins(w, sl, hi, (int)(hi - index), &a))
		hi++;
	while (lo > 0 && index - lo < AROUND && joins(w, sl, lo - 1, -(int)(index - lo + 1), &a))
		lo--;
	if (a.raise)
		return raise_run(w, slot, lo, hi - lo, leaf_may_write(w, &a.l));
	return map_run(w, slot, lo, hi - lo, a.l.gfn - (index - lo), leaf_may_write(w, &a.l));
}

/* Brings a page of an open slot to what the guest's entry allows, together with those neighbours that need
 * the same and can share the call. force: although the shadow entry says that nothing is to be done. */
int shadow_fill(struct window *w, uint32_t page, bool force)
{
	const uint32_t slot = page >> w->m->slot_shift, index = page & (w->m->slot_pages - 1);
	struct slot *sl = &w->slots[slot];
	struct leaf l;
	int r;

	slot_make_room(w, slot, 2 * AROUND);
	r = sl->large ? fill_large(w, slot, index) : fill_small(w, slot, index, force);
	l = leaf_read(w->m, sl, index);
	note_wp0(w, sl->sh[index], &l);
	return r;
}

/* ------------------------------------------------------------------ pages that have just become present */

void pend(struct window *w, uint32_t page)
{
	struct mem *m = w->m;

	if (m->view.pending == PENDING_MAX)
		return; /* a hidden fault will do */
	if (w->kind == WIN_SUPER)
		m->pending_super = true;
	m->pending[m->view.pending++] = page | (w->kind == WIN_SUPER ? PENDING_SUPER : 0);
}

void mem_map_pending(struct mem *m)
{
	const unsigned n = m->view.pending;

	m->view.pending = 0;
	m->pending_super = false;
	for (unsigned i = 0; i < n; i++) {
		const uint32_t page = m->pending[i] & ~PENDING_SUPER;
		struct window *w = m->pending[i] & PENDING_SUPER ? m->super : m->user;
		const struct slot *sl;

		if (!w || w->kind == WIN_PHYS)
			continue;
		/* A guest that maps around a fault touches few of the pages beside it (Linux: one in six); a
		 * mapping that is not used costs as much to make and to take away as a hidden fault. Pages
		 * that lie beside the faulting one in physical memory too come along in its run. */
		if (w->kind == WIN_USER && page != m->last_true)
			continue;
		sl = &w->slots[page >> m->slot_shift];
		if (!sl->filled || sl->doomed || sl->large)
			continue;
		m->stats.pt_eager_maps++;
		shadow_fill(w, page, false);
	}
}
