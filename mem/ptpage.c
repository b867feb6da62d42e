/* ptpage.c - the pages that serve as page tables, and what a store to one means for the windows.
 *
 * Each such page of RAM has a list of its uses: the slots filled from it as a page table, the address spaces
 * of which it is a page directory. One page may be both (a self-map), and serve several windows. It is under
 * TRACE_PT while the list is not empty.
 *
 * A store is made first; then each entry that it changed is shown to each use. Mappings that the guest has
 * lowered or removed go into the queue of their window, mappings that it has made possible are mapped right
 * away, before the guest can fault on them (supervisor pages) or when it leaves for user code (user pages).
 * Nothing is unmapped from here.
 *
 * A page that no longer serves must lose its trace soon, or every store that reuses it costs a callout. The
 * guest usually says so: a cleared directory entry ends the use of the page table at once (slot_doom).
 * Where it doesn't (a kernel that frees a dead process's tables as they are), the stores give it away: into
 * tables of an address space that is not current, a store that covers more than an entry or part of one, or a
 * long run of stores. Being wrong costs a few hidden faults, nothing else.
 */
#include "mem/internal.h"

#define FOREIGN_TABLE_MAX     256u
#define FOREIGN_DIRECTORY_MAX 32u

void pt_init(struct mem *m)
{
	m->pt_fresh = 1; /* 0 ends a list */
	m->pt_busy = NO_GFN;
}

static uint32_t use_alloc(struct mem *m)
{
	uint32_t i = m->pt_free;

	if (i) {
		m->pt_free = m->pt[i].next;
		return i;
	}
	assert(m->pt_fresh < PT_USES);
	return m->pt_fresh++;
}

void pt_use_add(struct mem *m, uint32_t gfn, struct window *w, uint32_t slot, enum pt_kind kind)
{
	uint32_t i = use_alloc(m);

	assert(m->pt_busy != gfn);
	m->pt[i] = (struct pt_use){
		.next = m->pt_head[gfn], .window = (uint16_t)w->id, .slot = (uint16_t)slot, .kind = kind};
	if (!m->pt_head[gfn])
		mem_trace_add(m, (uint64_t)gfn << PAGE_SHIFT, TRACE_PT);
	m->pt_head[gfn] = i;
}

/* Takes dead uses off the list; ends the trace with the last. */
static void sweep(struct mem *m, uint32_t gfn)
{
	uint32_t *link = &m->pt_head[gfn];

	while (*link) {
		uint32_t i = *link;

		if (m->pt[i].kind != PT_DEAD) {
			link = &m->pt[i].next;
			continue;
		}
		*link = m->pt[i].next;
		m->pt[i] = (struct pt_use){.next = m->pt_free, .kind = PT_FREE};
		m->pt_free = i;
	}
	if (!m->pt_head[gfn])
		mem_trace_remove(m, (uint64_t)gfn << PAGE_SHIFT, TRACE_PT);
}

void pt_use_remove(struct mem *m, uint32_t gfn, const struct window *w, uint32_t slot, enum pt_kind kind)
{
	for (uint32_t i = m->pt_head[gfn]; i; i = m->pt[i].next) {
		struct pt_use *u = &m->pt[i];

		if (u->window == w->id && u->slot == slot && u->kind == kind) {
			u->kind = PT_DEAD;
			break;
		}
	}
	if (m->pt_busy != gfn)
		sweep(m, gfn);
}

/* A kernel that fills entries one after the other with frames one after the other: all but the first are
 * mapped in one call when one of them is touched, instead of in a call each. */
static bool goes_on(struct mem *m, uint32_t page, uint32_t gfn)
{
	const bool on = page == m->filled_page + 1 && gfn == m->filled_gfn + 1;

	m->filled_page = page;
	m->filled_gfn = gfn;
	return on;
}

/* Entry `index` of the table that slot of w was filled from now reads pte. */
static void table_entry_changed(struct window *w, uint32_t slot, uint32_t index, uint64_t pte)
{
	struct mem *m = w->m;
	struct slot *sl = &w->slots[slot];
	const struct leaf l = leaf_decode(m, sl, index, pte);
	const uint32_t e = sl->sh[index], page = (slot << m->slot_shift) + index;

	if ((e & (SH_MAPPED | SH_CODE)) && sh_judge(w, e, &l) != SH_KEEP) {
		if (!(e & SH_QUEUED))
			queue_page(w, page);
		return;
	}
	note_wp0(w, e, &l);
	if (!window_current(w) || !l.ok || l.user != (w->kind == WIN_USER))
		return;
	if (w->kind == WIN_SUPER && goes_on(w->m, page, l.gfn))
		return;
	if (!(e & SH_MAPPED) || (!(e & (SH_WRITE | SH_WPROT)) && leaf_may_write(w, &l)))
		pend(w, page);
}

/* The directory entry of slot in address space w now reads pde. */
static void directory_entry_changed(struct window *w, uint32_t slot, uint64_t pde)
{
	struct mem *m = w->m;
	const uint64_t key = pde_key(m, pde);
	struct slot *sl = &w->slots[slot];

	if (sl->filled && !sl->doomed && pde_differs(sl->pde, key))
		slot_doom(w, slot);
	if (!w->super)
		return;
	sl = &w->super->slots[slot];
	if (sl->filled && !sl->doomed && pde_differs(sl->pde, key)) {
		w->super_ok = false;
		if (w == m->user)
			queue_slot(w->super, slot);
	}
}

/* A store of len bytes at gpa into a table of w, which is not current: is this still a table? Single bytes
 * pass: a locked and/or on one byte is how some kernels change a bit of an entry. */
static bool foreign_store_suspect(struct window *w, uint64_t gpa, unsigned len, unsigned max)
{
	if (len != 1 && (len < 4 || len > 8 || gpa % 4 != 0))
		return true;
	return ++w->foreign_writes > max;
}

struct changes {
	uint32_t first, last;
	unsigned size;
	const uint8_t *old, *now; /* of entry `first` on */
	uint64_t gpa;
	unsigned len;
};

static uint64_t entry_of(const uint8_t *p, unsigned size, uint32_t i)
{
	uint64_t v = 0;

	copy_bytes(&v, p + i * size, size);
	return v;
}

static void show_to_table(struct window *w, uint32_t slot, const struct changes *ch)
{
	if (!window_current(w) && foreign_store_suspect(w, ch->gpa, ch->len, FOREIGN_TABLE_MAX)) {
		slot_doom(w, slot);
		return;
	}
	for (uint32_t i = 0; i <= ch->last - ch->first; i++) {
		uint64_t now = entry_of(ch->now, ch->size, i);

		if (now != entry_of(ch->old, ch->size, i))
			table_entry_changed(w, slot, ch->first + i, now);
	}
}

/* Returns true if the address space is better given up. */
static bool show_to_directory(struct window *w, uint32_t quarter, const struct changes *ch, bool foreign)
{
	if (foreign &&
	    (w->n_filled == 0 || foreign_store_suspect(w, ch->gpa, ch->len, FOREIGN_DIRECTORY_MAX)))
		return true;
	for (uint32_t i = 0; i <= ch->last - ch->first; i++) {
		uint64_t now = entry_of(ch->now, ch->size, i);

		if (now != entry_of(ch->old, ch->size, i))
			directory_entry_changed(w, quarter * 512 + ch->first + i, now);
	}
	return false;
}

static bool list_has_current(const struct mem *m, uint32_t gfn)
{
	for (uint32_t i = m->pt_head[gfn]; i; i = m->pt[i].next)
		if (m->pt[i].kind == PT_DIRECTORY && &m->windows[m->pt[i].window] == m->user)
			return true;
	return false;
}

void pt_store(struct mem *m, uint64_t gpa, const void *buf, unsigned len)
{
	const uint32_t gfn = (uint32_t)(gpa >> PAGE_SHIFT), off = (uint32_t)gpa & (PAGE_SIZE - 1);
	const unsigned size = m->mode.pae ? 8 : 4;
	struct changes ch = {
		.first = off / size, .last = (off + len - 1) / size, .size = size, .gpa = gpa, .len = len};
	uint8_t *now = m->ram + ((uint64_t)gfn << PAGE_SHIFT) + ch.first * size;
	uint64_t old[PAGE_SIZE / 8]; /* deliberately not cleared */
	bool foreign, give_up = false;

	copy_bytes(old, now, (ch.last - ch.first + 1) * size);
	copy_bytes(m->ram + gpa, buf, len);
	m->stats.pt_writes++;
	ch.old = (const uint8_t *)old;
	ch.now = now;

	foreign = !list_has_current(m, gfn);
	m->pt_busy = gfn;
	for (uint32_t i = m->pt_head[gfn]; i; i = m->pt[i].next) {
		struct pt_use *u = &m->pt[i];
		struct window *w = &m->windows[u->window];

		if (u->kind == PT_TABLE)
			show_to_table(w, u->slot, &ch);
		else if (u->kind == PT_DIRECTORY)
			give_up |= show_to_directory(w, u->slot, &ch, foreign);
	}
	m->pt_busy = NO_GFN;

	/* A directory that nobody current uses and that no longer looks like one. All its spaces go. */
	for (uint32_t i = give_up ? m->pt_head[gfn] : 0; i;) {
		struct pt_use *u = &m->pt[i];

		i = u->next;
		if (u->kind == PT_DIRECTORY) {
			window_free(&m->windows[u->window]);
			i = m->pt_head[gfn]; /* the list has changed */
		}
	}
	sweep(m, gfn);
	if (m->pending_super)
		mem_map_pending(m);
}
