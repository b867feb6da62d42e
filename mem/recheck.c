/* recheck.c - which pages and slots of a window are to be compared with the guest's entries again, and doing
 * so.
 *
 * Of a page table under trace, stores (ptpage.c) queue what they lowered; queue_apply compares each queued
 * page with the guest's entry as it stands then. The queue says "look again", not "unmap": an entry that was
 * changed and changed back costs nothing. The pages of a table that is not under trace are all compared at
 * each flush, until that has cost as much as a trace does.
 */
#include "mem/internal.h"

/* ------------------------------------------------------------------ page tables that are not watched */

void loose_add(struct window *w, uint32_t page)
{
	struct slot *sl = &w->slots[page >> w->m->slot_shift];
	uint32_t *e = &sl->sh[page & (w->m->slot_pages - 1)];

	if (!slot_is_loose(sl) || (*e & SH_LOOSE))
		return;
	assert(w->n_loose < LOOSE_MAX);
	*e |= SH_LOOSE;
	w->loose[w->n_loose++] = (struct loose){.page = page};
}

void loose_end(struct window *w, uint32_t slot, bool queue)
{
	const struct mem *m = w->m;
	unsigned kept = 0;

	for (unsigned i = 0; i < w->n_loose; i++) {
		const uint32_t page = w->loose[i].page;
		uint32_t *e;

		if (page >> m->slot_shift != slot) {
			w->loose[kept++] = w->loose[i];
			continue;
		}
		if (!queue)
			continue;
		e = &w->slots[slot].sh[page & (m->slot_pages - 1)];
		*e &= ~SH_LOOSE;
		if ((*e & (SH_MAPPED | SH_CODE)) && !(*e & SH_QUEUED))
			queue_page(w, page);
	}
	w->n_loose = kept;
}

void slot_watch(struct window *w, uint32_t slot)
{
	struct slot *sl = &w->slots[slot];

	sl->watched = true;
	loose_end(w, slot, true);
	pt_use_add(w->m, sl->pt_gfn, w, slot, PT_TABLE);
}

void slot_unwatch(struct window *w, uint32_t slot)
{
	const struct slot *sl = &w->slots[slot];

	if (sl->watched && !sl->doomed)
		pt_use_remove(w->m, sl->pt_gfn, w, slot, PT_TABLE);
}

void slot_make_room(struct window *w, uint32_t slot, uint32_t pages)
{
	if (slot_is_loose(&w->slots[slot]) && w->n_loose + pages > LOOSE_MAX)
		slot_watch(w, slot);
}

/* ------------------------------------------------------------------ the queue */

static void push(struct window *w, uint32_t what)
{
	if (w->queued == w->m->queue_max)
		w->queue_overflow = true;
	else
		w->queue[w->queued++] = what;
	w->m->stats.pt_unmaps_queued++;
}

void queue_page(struct window *w, uint32_t page)
{
	w->slots[page >> w->m->slot_shift].sh[page & (w->m->slot_pages - 1)] |= SH_QUEUED;
	push(w, page);
}

void queue_slot(struct window *w, uint32_t slot)
{
	struct slot *sl = &w->slots[slot];

	if (sl->queued)
		return;
	sl->queued = true;
	push(w, QUEUE_SLOT | slot);
}

/* Pages of one slot that get the same treatment in one call. */
struct run {
	struct window *w;
	enum sh_verdict what;
	uint32_t page, n;
};

static void run_lower(struct window *w, uint32_t page, uint32_t *t, uint32_t n)
{
	bool written = false;

	for (uint32_t i = 0; i < n; i++) {
		written |= !!(t[i] & SH_WRITE);
		t[i] &= ~(SH_WRITE | SH_WPROT);
		shadow_show(w, page + i, t[i]);
	}
	if (written)
		host_protect_ro(w, page, n);
}

/* Between pages that are mapped there may be some of which only code is known, with nothing for the host to
 * hold. */
static void run_drop(struct window *w, struct slot *sl, uint32_t page, uint32_t *t, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t start = i;

		for (; i < n && (t[i] & SH_MAPPED); i++) {
			t[i] = (t[i] & ~(SH_MAPPED | SH_WRITE | SH_WPROT)) | SH_HELD;
			shadow_show(w, page + i, t[i]);
			sl->mapped--;
			sl->held = true;
		}
		if (i > start)
			host_hold(w, page + start, i - start);
	}
	tell_code(w, page, t, n);
}

static void run_finish(struct run *r)
{
	struct mem *m = r->w->m;
	struct slot *sl = &r->w->slots[r->page >> m->slot_shift];
	uint32_t *t;
	const uint32_t n = r->n;

	if (!n)
		return;
	r->n = 0;
	t = &sl->sh[r->page & (m->slot_pages - 1)];
	if (r->what == SH_LOWER)
		run_lower(r->w, r->page, t, n);
	else
		run_drop(r->w, sl, r->page, t, n);
}

static void run_add(struct run *r, enum sh_verdict what, uint32_t page)
{
	const unsigned shift = r->w->m->slot_shift;

	if (r->n && (what != r->what || page != r->page + r->n || page >> shift != r->page >> shift))
		run_finish(r);
	if (!r->n) {
		r->what = what;
		r->page = page;
	}
	r->n++;
}

void shadow_drop_page(struct window *w, uint32_t page)
{
	struct run r = {.w = w};

	run_add(&r, SH_DROP, page);
	run_finish(&r);
}

static enum sh_verdict check_page(struct run *r, uint32_t page)
{
	struct window *w = r->w;
	struct mem *m = w->m;
	struct slot *sl = &w->slots[page >> m->slot_shift];
	const uint32_t i = page & (m->slot_pages - 1);
	enum sh_verdict verdict;
	struct leaf l;

	if (!sl->filled)
		return SH_KEEP;
	sl->sh[i] &= ~SH_QUEUED;
	if (sl->doomed || !(sl->sh[i] & (SH_MAPPED | SH_CODE)))
		return SH_KEEP;
	l = leaf_read(m, sl, i);
	verdict = sh_judge(w, sl->sh[i], &l);
	if (verdict == SH_KEEP) {
		note_wp0(w, sl->sh[i], &l);
		return verdict;
	}
	run_add(r, verdict, page);
	if (verdict == SH_DROP && w == m->user && l.ok && l.user)
		pend(w, page);
	return verdict;
}

void slot_recheck(struct window *w, uint32_t slot)
{
	struct run r = {.w = w};
	const struct mem *m = w->m;

	for (uint32_t i = 0; w->slots[slot].filled && i < m->slot_pages; i++)
		check_page(&r, (slot << m->slot_shift) + i);
	run_finish(&r);
}

static void check_slot(struct window *w, uint32_t slot)
{
	const struct window *space = w->kind == WIN_USER ? w : w->m->user;
	struct slot *sl = &w->slots[slot];
	const uint64_t key = pde_key(w->m, space_pde(w->m, space, slot));

	sl->queued = false;
	if (sl->filled && (sl->doomed || pde_differs(sl->pde, key)))
		slot_follow(w, slot, key);
}

/* The queue did not hold everything: look at the whole window. */
static void check_all(struct window *w)
{
	const struct mem *m = w->m;

	for (uint32_t s = 0; s < m->n_slots; s++) {
		w->slots[s].queued = false;
		if (!w->slots[s].filled)
			continue;
		check_slot(w, s);
		slot_recheck(w, s);
	}
}

/* For a supervisor window the directory that counts is that of the current address space. */
void queue_apply(struct window *w)
{
	struct run r = {.w = w};
	const unsigned n = w->queued;

	if (!n)
		return;
	w->queued = 0;
	w->m->stats.pt_flushes++;
	if (w->queue_overflow) {
		w->queue_overflow = false;
		check_all(w);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		if (w->queue[i] & QUEUE_SLOT) {
			run_finish(&r);
			check_slot(w, w->queue[i] & ~QUEUE_SLOT);
		} else {
			check_page(&r, w->queue[i]);
		}
	}
	run_finish(&r);
}

/* ------------------------------------------------------------------ a flush */

/* Looks at every page of the list. Those that are neither mapped nor code any more leave it. */
static void loose_check(struct window *w)
{
	struct run r = {.w = w};
	const struct mem *m = w->m;
	unsigned kept = 0;

	for (unsigned i = 0; i < w->n_loose; i++) {
		struct loose *l = &w->loose[i];
		struct slot *sl = &w->slots[l->page >> m->slot_shift];
		const uint32_t index = l->page & (m->slot_pages - 1);
		const uint64_t pte = entry_get(m, sl->pt_gfn, index);
		uint32_t *e = &sl->sh[index];

		sl->looks++;
		if (!(*e & (SH_MAPPED | SH_CODE))) {
			*e &= ~SH_LOOSE;
			continue;
		}
		if (pte != l->pte || *e != l->e) {
			l->pte = pte;
			l->e = check_page(&r, l->page) == SH_KEEP ? *e : 0;
		}
		w->loose[kept++] = *l;
	}
	w->n_loose = kept;
	run_finish(&r);
}

/* Page tables that have been looked at so often that a trace would have cost less. */
static void watch_busy(struct window *w)
{
	for (unsigned i = w->n_loose; i-- > 0;) {
		const uint32_t slot = w->loose[i].page >> w->m->slot_shift;

		if (w->slots[slot].looks < w->m->loose_looks || w->slots[slot].doomed)
			continue;
		slot_watch(w, slot);
		if (i > w->n_loose)
			i = w->n_loose;
	}
}

void loose_apply(struct window *w)
{
	watch_busy(w);
	loose_check(w);
}

bool window_stale(const struct window *w)
{
	const struct mem *m = w->m;
	bool stale = w->queued || w->queue_overflow;

	for (unsigned i = 0; i < w->n_loose && !stale; i++) {
		const struct slot *sl = &w->slots[w->loose[i].page >> m->slot_shift];
		const uint32_t k = w->loose[i].page & (m->slot_pages - 1);
		const struct leaf l = leaf_read(m, sl, k);

		stale = sl->sh[k] & (SH_MAPPED | SH_CODE) && sh_judge(w, sl->sh[k], &l) != SH_KEEP;
	}
	return stale;
}
