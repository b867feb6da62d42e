/* shadow.c - the contents of windows: slots, shadow entries, and the queue of what must be looked at again.
 *
 * See internal.h for the invariant. A slot is opened from a directory entry; shadow_fill maps pages of it as
 * the guest's entries allow. Of a page table under trace, stores (ptpage.c) queue what they lowered;
 * queue_apply compares each queued page with the guest's entry as it stands then. The queue says "look
 * again", not "unmap": an entry that was changed and changed back costs nothing. The pages of a table that is
 * not under trace are all compared at each flush, until that has cost as much as a trace does.
 *
 * The callbacks to the code cache come last in each operation, when everything here is consistent again; they
 * may remove traces.
 */
#include "mem/internal.h"

/* ------------------------------------------------------------------ guest entries */

#define RIGHTS (PTE_P | PTE_RW | PTE_US)

bool pde_large(const struct mem *m, uint64_t pde)
{
	return (pde & PTE_PS) && (m->mode.pae || m->mode.pse);
}

/* What of a directory entry matters to a slot: address and rights, A, and for a large page D. 0: not present.
 */
uint64_t pde_key(const struct mem *m, uint64_t pde)
{
	uint64_t key = pde & (RIGHTS | PTE_A | (m->mode.pae ? ~0xfffull : 0xfffff000u));

	if (!(pde & PTE_P))
		return 0;
	return pde_large(m, pde) ? key | PTE_PS | (pde & PTE_D) : key;
}

/* Differs, except that A or D came. */
bool pde_differs(uint64_t filled_from, uint64_t now)
{
	const uint64_t change = filled_from ^ now;

	return (change & ~(uint64_t)(PTE_A | PTE_D)) || (filled_from & ~now & (PTE_A | PTE_D));
}

/* gfn is RAM. */
uint64_t entry_get(const struct mem *m, uint32_t gfn, uint32_t index)
{
	const uint8_t *table = m->ram + ((uint64_t)gfn << PAGE_SHIFT);

	if (m->mode.pae)
		return ((const uint64_t *)(const void *)table)[index];
	return ((const uint32_t *)(const void *)table)[index];
}

uint64_t space_pde_gpa(const struct mem *m, const struct window *w, uint32_t slot)
{
	if (m->mode.pae)
		return ((uint64_t)w->pd[slot >> 9] << PAGE_SHIFT) + (slot & 511) * 8;
	return ((uint64_t)w->pd[0] << PAGE_SHIFT) + slot * 4;
}

/* The directory entry of a slot in address space w; 0 if there is no directory to shadow. */
uint64_t space_pde(const struct mem *m, const struct window *w, uint32_t slot)
{
	const uint32_t gfn = m->mode.pae ? w->pd[slot >> 9] : w->pd[0];

	return gfn == NO_GFN ? 0 : entry_get(m, gfn, m->mode.pae ? slot & 511 : slot);
}

struct leaf leaf_decode(const struct mem *m, const struct slot *sl, uint32_t index, uint64_t pte)
{
	const bool pae = m->mode.pae;
	const uint64_t pde = sl->pde, rights = sl->large ? pde : pde & pte, last = sl->large ? pde : pte;
	const uint64_t a20 = 0xffffffff00000000ull | m->mode.a20;
	uint64_t gpa;
	struct leaf l;

	if (sl->large && pae)
		gpa = (pde & PAE_ADDR & ~0x1fffffull) + ((uint64_t)index << PAGE_SHIFT);
	else if (sl->large)
		gpa = (pde & 0xffc00000u) + ((uint64_t)index << PAGE_SHIFT) +
		      ((pde >> 13 & PSE_HIGH_MASK) << 32);
	else
		gpa = pte & (pae ? PAE_ADDR : PAGE_MASK);
	gpa &= a20;
	l.gfn = (uint32_t)(gpa >> PAGE_SHIFT);
	l.ok = (rights & PTE_P) && (last & PTE_A) && gpa_is_ram(m, gpa);
	if (pae && !sl->large && (pte & (PAE_RSVD | (m->mode.nxe ? 0 : PTE_NX))))
		l.ok = false;
	l.user = rights & PTE_US;
	l.write = rights & PTE_RW;
	l.dirty = last & PTE_D;
	l.nx = pae && ((pde | pte) & PTE_NX);
	return l;
}

struct leaf leaf_read(const struct mem *m, const struct slot *sl, uint32_t index)
{
	return leaf_decode(m, sl, index, sl->large ? sl->pde : entry_get(m, sl->pt_gfn, index));
}

/* The guest may write without the VMM having to set D first. User pages are only ever written with user
 * rights: what CR0.WP allows the kernel there is emulated. */
bool leaf_may_write(const struct window *w, const struct leaf *l)
{
	return l->dirty && (l->write || (w->kind == WIN_SUPER && !w->m->mode.wp));
}

/* Called when e has been found to agree with the guest's entry: remembers that it does so only while CR0.WP
 * is clear. */
void note_wp0(struct window *w, uint32_t e, const struct leaf *l)
{
	if (!l->write && (e & (SH_WRITE | SH_WPROT)))
		w->wp0 = true;
}

/* What the guest's entry means for shadow entry e. */
enum sh_verdict sh_judge(const struct window *w, uint32_t e, const struct leaf *l)
{
	if (!l->ok || l->gfn != e >> PAGE_SHIFT)
		return SH_DROP;
	if ((e & SH_CODE) && (l->nx || (w->kind == WIN_USER && !l->user)))
		return SH_DROP;
	if (!(e & SH_MAPPED))
		return SH_KEEP;
	if (l->user != (w->kind == WIN_USER))
		return SH_DROP;
	return (e & (SH_WRITE | SH_WPROT)) && !leaf_may_write(w, l) ? SH_LOWER : SH_KEEP;
}

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

/* Tells of each run of pages in [first, first + n) of table t that had SH_CODE. t belongs to nobody any more
 * or keeps its place during the callbacks. */
static void tell_code(struct window *w, uint32_t page, uint32_t *t, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t start = i;

		while (i < n && (t[i] & SH_CODE))
			t[i++] &= ~SH_CODE;
		if (i > start)
			code_unmapped(w, page + start, i - start);
	}
}

/* ------------------------------------------------------------------ page tables that are not watched */

/* Page, of an open slot, has been mapped, or code has been noted there. */
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

/* Takes the pages of slot from the list, and queues them if the slot stays. */
static void loose_end(struct window *w, uint32_t slot, bool queue)
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

/* The page table comes under trace. What it has lowered up to now counts as a store that was seen. */
static void slot_watch(struct window *w, uint32_t slot)
{
	struct slot *sl = &w->slots[slot];

	sl->watched = true;
	loose_end(w, slot, true);
	pt_use_add(w->m, sl->pt_gfn, w, slot, PT_TABLE);
}

static void slot_unwatch(struct window *w, uint32_t slot)
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
	const uint64_t key = pde_key(m, pde);
	uint64_t pt;

	if (sl->filled && (sl->doomed || pde_differs(sl->pde, key)))
		slot_drop(w, slot);
	if (sl->filled) {
		/* A or D may have come. D makes pages writable, which other spaces' entries may not allow. */
		if (sl->pde != key)
			log_fill(w, slot);
		sl->pde = key;
		return sl;
	}
	pt = key & (m->mode.pae ? PAE_ADDR : PAGE_MASK) & (0xffffffff00000000ull | m->mode.a20);
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

/* One page, now. The slot is open. */
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

static void check_slot(struct window *w, uint32_t slot)
{
	const struct window *space = w->kind == WIN_USER ? w : w->m->user;
	struct slot *sl = &w->slots[slot];

	sl->queued = false;
	if (sl->filled && (sl->doomed || pde_differs(sl->pde, pde_key(w->m, space_pde(w->m, space, slot)))))
		slot_drop(w, slot);
}

/* The queue did not hold everything: look at the whole window. */
static void check_all(struct window *w)
{
	struct run r = {.w = w};
	struct mem *m = w->m;

	for (uint32_t s = 0; s < m->n_slots; s++) {
		w->slots[s].queued = false;
		if (!w->slots[s].filled)
			continue;
		check_slot(w, s);
		for (uint32_t i = 0; w->slots[s].filled && i < m->slot_pages; i++)
			check_page(&r, (s << m->slot_shift) + i);
		run_finish(&r);
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
