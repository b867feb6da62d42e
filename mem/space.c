/* space.c - what the guest does to its address space: INVLPG, loads of CR3, changes of paging mode.
 *
 * An address space is a user window. It is found by CR3 (its page directories being part of the check under
 * PAE) and goes with a supervisor window, which others may share. A supervisor window fits an address space
 * if the page directory agrees with every slot that the window has filled. That is compared once; afterwards
 * it can only change by a store into the directory, which is under trace and clears super_ok, or by filling
 * another slot of the window, which is counted in super->version and logged. So a load of a known CR3 costs a
 * hash look-up and a few compares.
 */
#include "mem/internal.h"

/* A window whose slots are dropped this often, within so many loads of CR3, is fought over. Drops of so few
 * pages that mapping them again is nothing are not counted: a kernel that patches its code through a page in
 * a directory of its own (Linux's text_poke) drops one slot with every patch, and a second window would end
 * chaining across pages. */
#define FIGHT_DROPS  512u
#define FIGHT_PERIOD 4096u
#define FIGHT_PAGES  3u
/* A supervisor window that was no use for so many loads of CR3 is given up, the first time; then for twice as
 * many. */
#define STALE_LOADS 2048u
/* Slots that may be dropped before windows are created for directories that mostly disagree: early in a boot
 * nothing much is mapped and agreement says little. */
#define FREE_DROPS 32u

/* ------------------------------------------------------------------ finding the address space */

static uint32_t cr3_key(const struct mem *m, uint32_t cr3)
{
	return cr3 & (m->mode.pae ? ~0x1fu : PAGE_MASK);
}

static struct window **bucket(struct mem *m, uint32_t key)
{
	return &m->hash[(key >> 12 ^ key >> 5) % SPACE_HASH];
}

void space_unhash(struct window *w)
{
	struct window **link = bucket(w->m, w->cr3);

	while (*link != w)
		link = &(*link)->hash_next;
	*link = w->hash_next;
}

/* The frame of page directory q of the space that c is in, NO_GFN if there is none that can be watched. */
static uint32_t directory_gfn(const struct vcpu *c, unsigned q)
{
	const struct mem *m = c->mem;
	uint64_t gpa;

	if (m->mode.pae) {
		if (!(c->pdpte[q] & PTE_P))
			return NO_GFN;
		gpa = c->pdpte[q] & PAE_ADDR;
	} else {
		if (q)
			return NO_GFN;
		gpa = c->cr3 & PAGE_MASK;
	}
	gpa &= 0xffffffff00000000ull | m->mode.a20;
	return gpa_is_ram(m, gpa) ? (uint32_t)(gpa >> PAGE_SHIFT) : NO_GFN;
}

static void set_directory(struct window *w, unsigned q, uint32_t gfn)
{
	struct mem *m = w->m;

	if (w->pd[q] != NO_GFN) {
		pt_use_remove(m, w->pd[q], w, q, PT_DIRECTORY);
		for (uint32_t s = q * 512; s < (q + 1) * 512; s++)
			if (w->slots[s].filled)
				slot_drop(w, s);
	}
	w->pd[q] = gfn;
	if (gfn != NO_GFN)
		pt_use_add(m, gfn, w, q, PT_DIRECTORY);
	w->super_ok = false;
}

static struct window *space_find(struct vcpu *c)
{
	struct mem *m = c->mem;
	const uint32_t key = cr3_key(m, c->cr3);
	struct window **head = bucket(m, key), *w = *head;

	while (w && w->cr3 != key)
		w = w->hash_next;
	if (!w) {
		w = window_alloc(m, WIN_USER);
		w->cr3 = key;
		w->hash_next = *head;
		*head = w;
		/* Where the last address space has its user pages. The supervisor window is not known yet. */
		for (unsigned i = 0; i < 1024; i++)
			slot_base_set(w, i,
				      m->user && m->user->kind == WIN_USER &&
					      m->user->bases[i] == m->user->base);
		for (unsigned q = 0; q < 4; q++)
			set_directory(w, q, directory_gfn(c, q));
	} else if (m->mode.pae) {
		for (unsigned q = 0; q < 4; q++) {
			uint32_t gfn = directory_gfn(c, q);

			if (gfn != w->pd[q])
				set_directory(w, q, gfn);
		}
	}
	return w;
}

/* ------------------------------------------------------------------ choosing the supervisor window */

/* A directory entry without A agrees with a slot: A is set when the window is taken into use, as if the CPU
 * had used the entry speculatively (4.8). */
static bool slot_agrees(const struct window *s, uint32_t slot, uint64_t pde)
{
	const uint64_t key = pde_key(s->m, pde);

	return key && !pde_differs(s->slots[slot].pde, key | PTE_A);
}

struct agreement {
	int good, bad;
	uint32_t bad_pages; /* mapped in the bad slots */
};

static struct agreement compare(const struct window *s, const struct window *space)
{
	struct agreement a = {0, 0, 0};

	for (uint32_t word = 0; word < MAX_SLOTS / 64; word++) {
		for (uint64_t bits = s->filled[word]; bits; bits &= bits - 1) {
			uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);

			if (s->slots[slot].doomed)
				continue;
			if (slot_agrees(s, slot, space_pde(s->m, space, slot))) {
				a.good++;
			} else {
				a.bad++;
				a.bad_pages += s->slots[slot].large ? 1u : s->slots[slot].mapped;
			}
		}
	}
	return a;
}

/* Makes slot of s fit the space: changes or drops it, or sets the A bit that is missing. */
static void fit_slot(struct window *s, uint32_t slot, const struct window *space)
{
	struct mem *m = s->m;
	const uint64_t pde = space_pde(m, space, slot);

	if (!s->slots[slot].filled || s->slots[slot].doomed)
		return;
	if (!slot_agrees(s, slot, pde))
		slot_follow(s, slot, pde_key(m, pde));
	else if (!(pde & PTE_A))
		entry_set(m, space_pde_gpa(m, space, slot), PTE_A);
}

static void fit_all(struct window *s, const struct window *space)
{
	for (uint32_t word = 0; word < MAX_SLOTS / 64; word++)
		for (uint64_t bits = s->filled[word]; bits; bits &= bits - 1)
			fit_slot(s, word * 64 + (uint32_t)__builtin_ctzll(bits), space);
}

static bool fought_over(struct window *s, const struct agreement *a)
{
	if (a->bad_pages < FIGHT_PAGES)
		return false;
	if (s->m->clock - s->mismatch_stamp > FIGHT_PERIOD) {
		s->mismatch_stamp = s->m->clock;
		s->mismatches = 0;
	}
	s->mismatches += (uint32_t)a->bad;
	return s->mismatches > FIGHT_DROPS;
}

static bool acceptable(struct window *s, struct agreement a)
{
	if (a.bad == 0)
		return true;
	if (fought_over(s, &a))
		return false;
	if (a.good >= a.bad)
		return true;
	s->m->super_drops += (uint32_t)a.bad;
	return s->m->super_drops <= FREE_DROPS;
}

static struct window *choose(struct window *space)
{
	struct mem *m = space->m;
	struct window *best = NULL;
	struct agreement best_a = {0, 0, 0};

	for (unsigned i = 0; i < MAX_WINDOWS; i++) {
		struct window *s = &m->windows[i];
		struct agreement a;

		if (s->kind != WIN_SUPER)
			continue;
		a = compare(s, space);
		if (!best || a.good - a.bad > best_a.good - best_a.bad ||
		    (s == space->super && a.good - a.bad == best_a.good - best_a.bad)) {
			best = s;
			best_a = a;
		}
	}
	if (best && acceptable(best, best_a))
		return best;
	return window_alloc(m, WIN_SUPER);
}

static void set_super(struct window *space, struct window *s)
{
	const uint64_t old = space->super_base;

	space->super = s;
	if (old == s->base)
		return;
	space->super_base = s->base;
	for (unsigned i = 0; i < 1024; i++)
		if (space->bases[i] == old)
			space->bases[i] = s->base;
}

/* Gives the space a supervisor window that agrees with its directory. */
static void super_select(struct window *space)
{
	struct window *s = space->super;

	if (s && space->super_ok && s->version - space->super_version <= FILL_LOG) {
		bool agrees = true;

		for (uint32_t v = space->super_version; v != s->version; v++) {
			const uint32_t slot = s->log[v % FILL_LOG];

			agrees &= !s->slots[slot].filled || s->slots[slot].doomed ||
				  slot_agrees(s, slot, space_pde(s->m, space, slot));
		}
		if (agrees) {
			for (uint32_t v = space->super_version; v != s->version; v++)
				fit_slot(s, s->log[v % FILL_LOG], space);
			space->super_version = s->version;
			return;
		}
	}
	s = choose(space);
	set_super(space, s);
	fit_all(s, space);
	space->super_ok = true;
	space->super_version = s->version;
}

/* ------------------------------------------------------------------ selection */

/* With one supervisor window only, code may be chained across pages; so one that is left over goes. What
 * comes back and goes again is asked less and less often. */
static void drop_stale_super(struct mem *m)
{
	for (unsigned i = 0; i < MAX_WINDOWS; i++) {
		struct window *w = &m->windows[i];

		if (w->kind != WIN_SUPER || window_current(w) || m->clock - w->stamp < m->stale_after)
			continue;
		window_free(w);
		m->stats.windows_evicted++;
		if (m->stale_after < 1u << 24)
			m->stale_after *= 2;
	}
}

/* Makes the windows of c's CR3 current, with everything that was queued for them applied. */
void space_select(struct vcpu *c)
{
	struct mem *m = c->mem;
	struct window *w = space_find(c);

	if (w != m->user) {
		m->user = w;
		m->view.pending = 0;
		m->pending_super = false;
		m->stats.window_switches++;
	}
	w->stamp = ++m->clock;
	w->foreign_writes = 0;
	window_flush(w);
	if (!w->super || !w->super_ok || w->super_version != w->super->version)
		super_select(w);
	m->super = w->super;
	m->super->stamp = m->clock;
	m->super->foreign_writes = 0;
	window_flush(m->super);
	if (m->n_super > 1 && m->clock % 256 == 0)
		drop_stale_super(m);
	host_relieve(m);
	view_update(m);
}

static void apply_current(struct mem *m)
{
	if (!m->enabled || !m->mode.paging)
		return;
	window_flush(m->user);
	window_flush(m->super);
}

void mem_sync(struct vcpu *c)
{
	apply_current(c->mem);
}

bool mem_stale(const struct mem *m)
{
	return m->enabled && (window_stale(m->user) || window_stale(m->super));
}

void mem_flush_page(struct vcpu *c, uint32_t lin)
{
	c->mem->stats.flushes++;
	tlb_flush_page(c->mem, lin);
	apply_current(c->mem);
}

void mem_load_cr3(struct vcpu *c)
{
	struct mem *m = c->mem;

	m->stats.flushes++;
	tlb_flush(m);
	if (m->enabled && m->mode.paging)
		space_select(c);
}

/* ------------------------------------------------------------------ modes */

static struct paging_mode mode_of(const struct vcpu *c)
{
	struct paging_mode n = {.paging = cpu_paging(c), .a20 = c->a20_mask};

	if (n.paging) {
		n.pae = c->cr4 & CR4_PAE;
		n.pse = !n.pae && (c->cr4 & CR4_PSE);
		n.nxe = n.pae && (c->efer & EFER_NXE);
		n.wp = c->cr0 & CR0_WP;
	}
	return n;
}

/* Equal but for CR0.WP. */
static bool same_tables(const struct paging_mode *a, const struct paging_mode *b)
{
	return a->paging == b->paging && a->pae == b->pae && a->pse == b->pse && a->nxe == b->nxe &&
	       a->a20 == b->a20;
}

static void drop_all(struct mem *m)
{
	m->user = m->super = m->phys = NULL;
	m->view.pending = 0;
	m->pending_super = false;
	m->super_drops = 0;
	m->stale_after = STALE_LOADS;
	for (unsigned i = 0; i < MAX_WINDOWS; i++)
		if (m->windows[i].kind != WIN_FREE)
			window_free(&m->windows[i]);
}

/* CR4.PGE only decides whether global entries survive a load of CR3; windows keep none across a change that
 * was queued, so toggling it (how kernels flush everything) is just a flush. CR0.WP takes rights away only
 * from supervisor windows in which pages were written through that the guest's entries say are read-only. */
void mem_mode_changed(struct vcpu *c)
{
	struct mem *m = c->mem;
	const struct paging_mode now = mode_of(c), before = m->mode;

	m->stats.flushes++;
	tlb_flush(m);
	if (!m->enabled)
		return;
	if (!same_tables(&now, &before)) {
		drop_all(m);
		m->mode = now;
		m->slot_shift = now.pae ? 9 : 10;
		m->slot_pages = 1u << m->slot_shift;
		m->n_slots = now.pae ? 2048 : 1024;
	} else if (now.wp != before.wp) {
		m->mode.wp = now.wp;
		for (unsigned i = 0; now.wp && i < MAX_WINDOWS; i++)
			if (m->windows[i].kind == WIN_SUPER && m->windows[i].wp0)
				shadow_clear_data(&m->windows[i]);
	}
	if (now.paging)
		space_select(c);
	else
		phys_select(m);
}
