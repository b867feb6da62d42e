/* window.c - the pool of windows, the physical window, and what a fault in a window means.
 *
 * Windows lie in one reserved stretch of address space, each 4 GiB followed by 4 GiB that nothing is ever
 * mapped to; so which window an address belongs to is arithmetic, and an access that starts in a window and
 * runs over an edge of it faults.
 */
#include "mem/internal.h"

#include <errno.h>
#include <sys/mman.h>

#define ARENA_BYTES   (MAX_WINDOWS * WINDOW_STRIDE + WINDOW_SPAN)
#define BASES_BYTES   (MAX_WINDOWS * 1024ull * sizeof(uint64_t))
#define ALWAYS_BYTES  (MEM_PRESENT_WRITE + 1024ul)
#define PRESENT_BYTES (MAX_WINDOWS * 2ull * MEM_PRESENT_WRITE)
#define SLOTS_BYTES   (MAX_WINDOWS * (uint64_t)MAX_SLOTS * sizeof(struct slot))
#define POOL_BYTES    (SHADOW_TABLES * (uint64_t)SLOT_PAGES_MAX * sizeof(uint32_t))

/* vm.max_map_count is 65530 by default; the rest of the process, of which branch tables may have 4096, and
 * what one operation may add come on top. */
#define VMA_BUDGET 56000u
#define VMA_OTHERS 9500u

static_assert(MAX_USER + MAX_SUPER + 1 <= MAX_WINDOWS, "every kind of window finds a place");
static_assert(MAX_WINDOWS <= 1u << 12, "a reverse map node has 12 bits for the window");

/* ------------------------------------------------------------------ life */

/* Below the first window lies guard space, too. */
static uintptr_t arena_first(const struct mem *m)
{
	return m->arena + WINDOW_SPAN;
}

static uint32_t read_max_map_count(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
	unsigned n = 65530;

	if (!f)
		return n;
	if (fscanf(f, "%u", &n) != 1)
		n = 65530;
	fclose(f);
	return n;
}

int mem_enable_windows(struct mem *m, char *err, size_t errlen)
{
	const uint32_t max_maps = read_max_map_count();

	if (m->enabled)
		return 0;
	m->arena = host_find_arena(ARENA_BYTES);
	if (!m->arena) {
		snprintf(err, errlen, "no %llu GiB of address space are free for windows",
			 (unsigned long long)(ARENA_BYTES >> 30));
		return -1;
	}
	m->windows = map_anonymous(MAX_WINDOWS * sizeof *m->windows);
	m->slots = map_anonymous(SLOTS_BYTES);
	m->bases = map_anonymous(BASES_BYTES);
	m->missed = map_anonymous(PRESENT_BYTES);
	m->presents = map_anonymous(BASES_BYTES);
	m->always = map_anonymous(ALWAYS_BYTES);
	m->present = map_anonymous(PRESENT_BYTES);
	m->sh_pool = map_anonymous(POOL_BYTES);
	m->pt_head = map_anonymous((uint64_t)m->ram_pages * 4);
	m->pt = map_anonymous(PT_USES * sizeof *m->pt);
	if (rmap_init(m) < 0 || !m->windows || !m->slots || !m->bases || !m->present || !m->missed ||
	    !m->presents || !m->always || !m->sh_pool || !m->pt_head || !m->pt) {
		snprintf(err, errlen, "memory for windows: %s", strerror(errno));
		windows_destroy(m);
		return -1;
	}
	memset(m->always, 1, 1024);
	memset(m->always + MEM_PRESENT_WRITE, 1, 1024);
	pt_init(m);
	for (unsigned i = 0; i < MAX_WINDOWS; i++) {
		struct window *w = &m->windows[i];

		w->m = m;
		w->id = i;
		w->base = arena_first(m) + i * WINDOW_STRIDE;
		w->slots = m->slots + (size_t)i * MAX_SLOTS;
		w->bases = m->bases + (size_t)i * 1024;
		w->missed = m->missed + (size_t)i * MEM_PRESENT_WRITE;
		w->presents = m->presents + (size_t)i * 1024;
		w->present = m->present + (size_t)i * 2 * MEM_PRESENT_WRITE;
	}
	m->vma_budget = VMA_BUDGET;
	if (max_maps < VMA_BUDGET + VMA_OTHERS)
		m->vma_budget = max_maps > 2 * VMA_OTHERS ? max_maps - VMA_OTHERS : max_maps / 2;
	m->sh_max = SHADOW_TABLES;
	m->queue_max = QUEUE_MAX;
	m->loose_looks = LOOSE_LOOKS;
	m->mode = (struct paging_mode){.a20 = 0xffffffffu};
	m->n_slots = 1024;
	m->slot_pages = 1024;
	m->slot_shift = 10;
	m->enabled = true;
	phys_select(m);
	return 0;
}

void windows_destroy(struct mem *m)
{
	if (!m->arena)
		return;
	for (unsigned i = 0; m->enabled && i < MAX_WINDOWS; i++)
		host_wipe(&m->windows[i]);
	m->enabled = false;
	unmap_anonymous(m->windows, MAX_WINDOWS * sizeof *m->windows);
	unmap_anonymous(m->slots, SLOTS_BYTES);
	unmap_anonymous(m->bases, BASES_BYTES);
	unmap_anonymous(m->present, PRESENT_BYTES);
	unmap_anonymous(m->missed, PRESENT_BYTES);
	unmap_anonymous(m->presents, BASES_BYTES);
	unmap_anonymous(m->always, ALWAYS_BYTES);
	unmap_anonymous(m->sh_pool, POOL_BYTES);
	unmap_anonymous(m->pt_head, (uint64_t)m->ram_pages * 4);
	unmap_anonymous(m->pt, PT_USES * sizeof *m->pt);
	rmap_destroy(m);
	m->arena = 0;
}

/* ------------------------------------------------------------------ the pool */

static bool evictable(const struct window *w, enum window_kind kind)
{
	return w->kind == kind && !window_current(w);
}

static struct window *least_recent(struct mem *m, enum window_kind kind)
{
	struct window *best = NULL;

	for (unsigned i = 0; i < MAX_WINDOWS; i++) {
		struct window *w = &m->windows[i];

		if (evictable(w, kind) && (!best || w->stamp < best->stamp))
			best = w;
	}
	return best;
}

bool window_evict_one(struct mem *m)
{
	struct window *w = least_recent(m, WIN_USER);

	if (!w)
		w = least_recent(m, WIN_SUPER);
	if (!w)
		return false;
	m->stats.windows_evicted++;
	window_free(w);
	return true;
}

static void count(struct mem *m, enum window_kind kind, int by)
{
	m->stats.windows_now += (uint32_t)by;
	if (kind == WIN_USER)
		m->n_user += (unsigned)by;
	if (kind != WIN_SUPER)
		return;
	m->n_super += (unsigned)by;
	m->stats.super_windows_now = m->n_super;
}

/* Given up: its mappings stay until it is used again, when one call removes them all. Nothing reaches them.
 */
void window_free(struct window *w)
{
	struct mem *m = w->m;

	assert(w->kind != WIN_FREE && !window_current(w));
	if (m->ops.window_gone)
		m->ops.window_gone(m->opaque, w);
	count(m, w->kind, -1);
	if (w->kind == WIN_USER) {
		space_unhash(w);
		for (unsigned q = 0; q < 4; q++)
			if (w->pd[q] != NO_GFN)
				pt_use_remove(m, w->pd[q], w, q, PT_DIRECTORY);
	}
	if (w->kind == WIN_SUPER)
		for (unsigned i = 0; i < MAX_WINDOWS; i++)
			if (m->windows[i].super == w)
				m->windows[i].super = NULL;
	if (w == m->phys)
		m->phys = NULL;
	w->kind = WIN_FREE;
	shadow_release(w);
}

struct window *window_alloc(struct mem *m, enum window_kind kind)
{
	struct window *w = NULL;

	if ((kind == WIN_USER && m->n_user == MAX_USER) || (kind == WIN_SUPER && m->n_super == MAX_SUPER)) {
		m->stats.windows_evicted++;
		window_free(least_recent(m, kind));
	}
	for (unsigned i = 0; i < MAX_WINDOWS; i++) {
		if (m->windows[i].kind != WIN_FREE)
			continue;
		if (!w || (!w->host_dirty && m->windows[i].host_dirty)) /* it has the host's page tables */
			w = &m->windows[i];
	}
	if (kind == WIN_USER)
		host_recycle(w);
	else
		host_wipe(w);
	w->kind = kind;
	w->stamp = ++m->clock;
	w->cr3 = 0;
	w->super = NULL;
	w->super_base = 0;
	w->super_ok = false;
	w->foreign_writes = 0;
	w->mismatches = 0;
	w->wp0 = false;
	w->shown = false;
	for (unsigned q = 0; q < 4; q++)
		w->pd[q] = NO_GFN;
	count(m, kind, 1);
	m->stats.windows_created++;
	return w;
}

/* ------------------------------------------------------------------ the physical window */

/* Maps n pages at linear page `page` to frames gfn..., all RAM, and write-protects traced ones. false: the
 * host refused, and the window is empty. */
static bool phys_map_run(struct window *w, uint32_t page, uint32_t n, uint32_t gfn)
{
	const struct mem *m = w->m;

	if (host_map(w, page, n, gfn, true) < 0)
		return false;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t start = k;

		while (k < n && m->trace[gfn + k])
			k++;
		if (k > start)
			host_protect_ro(w, page + start, k - start);
		if (!w->host_dirty) /* refused, and emptied */
			return false;
	}
	return true;
}

/* While A20 is off, odd mebibytes show the even ones before them. */
static void phys_map(struct window *w)
{
	struct mem *m = w->m;
	const uint32_t piece = m->mode.a20 == 0xffffffffu ? 1u << 20 : 1u << 8;

	for (uint32_t page = 0; page < 1u << 20; page += piece) {
		const uint32_t gfn = page & m->mode.a20 >> PAGE_SHIFT;

		for (uint32_t i = 0; i < piece;) {
			uint32_t n = 0;

			while (i + n < piece && gfn_is_ram(m, gfn + i + n))
				n++;
			if (n && !phys_map_run(w, page + i, n, gfn + i))
				return;
			if (!n && gfn + i >= m->ram_pages)
				break;
			i += n ? n : 1;
		}
	}
	m->phys_whole = true;
}

void phys_select(struct mem *m)
{
	if (!m->phys) {
		m->phys = window_alloc(m, WIN_PHYS);
		m->phys->super_base = m->phys->base;
		for (unsigned i = 0; i < 1024; i++)
			slot_base_set(m->phys, i, false);
		phys_map(m->phys);
	}
	m->user = m->super = m->phys;
	view_update(m);
}

void phys_protect(struct mem *m, uint32_t gfn, bool writable)
{
	struct window *w = m->phys;
	const uint32_t a20 = ~m->mode.a20 >> PAGE_SHIFT;

	if (!w || (gfn & a20))
		return;
	for (uint32_t alias = 0; alias <= a20 && m->phys_whole; alias += a20 ? a20 : 1) {
		if (writable)
			host_try_protect_rw(w, gfn | alias, 1);
		else
			host_protect_ro(w, gfn | alias, 1);
	}
}

static enum mem_fault phys_fault(struct window *w, uint32_t lin, bool write)
{
	struct mem *m = w->m;
	const uint64_t gpa = lin & m->mode.a20;

	if (!gpa_is_ram(m, gpa)) {
		m->stats.mmio_faults++;
		return MEM_FAULT_MMIO;
	}
	if (!m->phys_whole) {
		phys_map(w);
		if (!m->phys_whole)
			return MEM_FAULT_EMULATE;
	}
	if (write && m->trace[gpa >> PAGE_SHIFT] == TRACE_DIRTY)
		mem_trace_remove(m, gpa, TRACE_DIRTY);
	if (write && m->trace[gpa >> PAGE_SHIFT]) {
		m->stats.traced_writes++;
		return MEM_FAULT_TRACED;
	}
	m->stats.hidden_faults++;
	return phys_map_run(w, lin >> PAGE_SHIFT, 1, (uint32_t)(gpa >> PAGE_SHIFT)) ? MEM_FAULT_MAPPED
										    : MEM_FAULT_EMULATE;
}

/* ------------------------------------------------------------------ faults */

/* The window can't show the page because its tables aren't ones that can be watched. */
static bool tables_watched(const struct mem *m, uint32_t page, const struct walk *walk)
{
	return walk->pde_gpa == space_pde_gpa(m, m->user, page >> m->slot_shift) &&
	       gpa_is_ram(m, walk->pde_gpa) && (walk->page_size != PAGE_SIZE || gpa_is_ram(m, walk->pte_gpa));
}

static enum mem_fault map_page(struct window *w, uint32_t page, const struct walk *walk, bool write)
{
	struct mem *m = w->m;
	const uint32_t slot = page >> m->slot_shift;
	struct slot *sl;
	uint32_t e, need = SH_MAPPED | (write ? SH_WRITE : 0);
	bool force;

	if (!tables_watched(m, page, walk))
		return MEM_FAULT_EMULATE;
	sl = slot_open(w, slot, space_pde(m, m->user, slot));
	if (!sl)
		return MEM_FAULT_EMULATE;
	e = sl->sh[page & (m->slot_pages - 1)];
	force = (e & need) == need && e >> PAGE_SHIFT == walk->gpa >> PAGE_SHIFT;
	if (shadow_fill(w, page, force) < 0)
		return MEM_FAULT_EMULATE;
	if (w->kind == WIN_USER)
		slot_base_set(w, page >> 10, true);
	if (write && m->trace[walk->gpa >> PAGE_SHIFT]) {
		/* The page is the very table that maps it, which has just come under trace. */
		m->stats.traced_writes++;
		return MEM_FAULT_TRACED;
	}
	m->stats.hidden_faults++;
	e = sl->sh[page & (m->slot_pages - 1)];
	return (e & need) == need && e >> PAGE_SHIFT == walk->gpa >> PAGE_SHIFT ? MEM_FAULT_MAPPED
										: MEM_FAULT_EMULATE;
}

/* The store that makes the page present will be seen only if its table is watched; else the page is looked at
 * on the way out of the kernel all the same. */
static void true_fault(struct mem *m, uint32_t page)
{
	const struct slot *sl = &m->user->slots[page >> m->slot_shift];

	m->last_true = page;
	if (sl->filled && slot_is_loose(sl))
		pend(m->user, page);
}

enum mem_fault mem_window_fault(struct vcpu *c, struct window *w, uint64_t lin64, bool write)
{
	struct mem *m = w->m;
	const uint32_t lin = (uint32_t)lin64, page = lin >> PAGE_SHIFT;
	const bool user = c->cpl == 3;
	struct walk walk;

	if (lin64 >= WINDOW_SPAN || !window_current(w))
		return MEM_FAULT_EMULATE;
	if (w->kind == WIN_PHYS)
		return phys_fault(w, lin, write);
	host_relieve(m);
	if (m->view.pending)
		mem_map_pending(m);
	if (mem_walk(c, lin, (write ? ACC_WRITE : ACC_READ) | (user ? ACC_USER : 0), &walk) < 0) {
		m->stats.true_faults++;
		true_fault(m, page);
		return MEM_FAULT_GUEST;
	}
	if (walk.user && w->kind == WIN_SUPER) {
		m->stats.user_faults++;
		slot_base_set(m->user, page >> 10, true);
		return MEM_FAULT_USER;
	}
	if (!walk.user && w->kind == WIN_USER) {
		slot_base_set(m->user, page >> 10, false);
		return MEM_FAULT_SUPER;
	}
	if (!gpa_is_ram(m, walk.gpa)) {
		m->stats.mmio_faults++;
		return MEM_FAULT_MMIO;
	}
	if (write && walk.user && !walk.writable) /* CR0.WP clear */
		return MEM_FAULT_EMULATE;
	if (write && m->trace[walk.gpa >> PAGE_SHIFT] == TRACE_DIRTY)
		mem_trace_remove(m, walk.gpa, TRACE_DIRTY);
	if (write && m->trace[walk.gpa >> PAGE_SHIFT]) {
		m->stats.traced_writes++;
		return MEM_FAULT_TRACED;
	}
	return map_page(w, page, &walk, write);
}

/* ------------------------------------------------------------------ accesses made without a mapping
 *
 * Code that often meets pages without a mapping asks mem_view.present first and otherwise makes the access
 * through the software TLB. A mapping is made when a page has cost about as much that way as the host's call
 * would. What is used a few times only, as most pages of a short-lived process are, never gets one. A page
 * whose rights the guest takes away again and again (every fork protects its parent's pages) has to be used
 * more often each time. */
#define MAP_AFTER   24u
#define RAISE_AFTER 8u /* where the host has the frame already */

enum mem_fault mem_window_missed(struct vcpu *c, uint32_t lin, bool write)
{
	struct mem *m = c->mem;
	struct window *w = m->user;
	const uint32_t page = lin >> PAGE_SHIFT;
	struct slot *sl;
	struct walk walk;
	uint32_t *e, limit;
	uint16_t *miss;

	host_relieve(m);
	if (w->kind != WIN_USER || mem_walk(c, lin, ACC_PEEK | (write ? ACC_WRITE : 0), &walk) < 0)
		return MEM_FAULT_GUEST;
	if (!walk.user)
		return MEM_FAULT_SUPER;
	if (!gpa_is_ram(m, walk.gpa))
		return MEM_FAULT_MMIO;
	if (write && m->trace[walk.gpa >> PAGE_SHIFT])
		return MEM_FAULT_TRACED;
	if (write && !walk.writable)
		return MEM_FAULT_EMULATE;
	probe_tlb_fill(m, lin, &walk);
	if (!tables_watched(m, page, &walk))
		return MEM_FAULT_EMULATE;
	sl = slot_open(w, page >> m->slot_shift, space_pde(m, w, page >> m->slot_shift));
	if (!sl)
		return MEM_FAULT_EMULATE;
	e = &sl->sh[page & (m->slot_pages - 1)];
	miss = &w->missed[page];
	limit = (*e & (SH_MAPPED | SH_HELD)) && *e >> PAGE_SHIFT == walk.gpa >> PAGE_SHIFT ? RAISE_AFTER
											   : MAP_AFTER;
	if ((*miss & MISS_COUNT) < limit << *miss / MISS_LOST) {
		(*miss)++;
		return MEM_FAULT_EMULATE;
	}
	*miss &= (uint16_t)~MISS_COUNT;
	m->stats.missed_maps++;
	return map_page(w, page, &walk, write);
}

bool mem_window_untouched(const struct mem *m, uint32_t lin)
{
	return !(m->user->missed[lin >> PAGE_SHIFT] & MISS_COUNT);
}

/* ------------------------------------------------------------------ code */

void mem_window_note_code(struct vcpu *c, struct window *w, uint32_t lin)
{
	struct mem *m = w->m;
	const uint32_t page = lin >> PAGE_SHIFT, slot = page >> m->slot_shift,
		       index = page & (m->slot_pages - 1);
	struct slot *sl = &w->slots[slot];
	struct walk walk;
	uint32_t gfn;

	if (w->kind == WIN_PHYS || !window_current(w))
		return;
	if (sl->filled && !sl->doomed && !sl->queued && (sl->sh[index] & (SH_CODE | SH_QUEUED)) == SH_CODE &&
	    (!slot_is_loose(sl) || leaf_read(m, sl, index).gfn == sl->sh[index] >> PAGE_SHIFT))
		return;
	/* A fetch from here has succeeded, so this does and A is set; unless the fetch went through a stale
	 * TLB entry, and then the guest's flush will bring us here again. */
	if (mem_walk(c, lin, ACC_EXEC | ACC_PEEK | (w->kind == WIN_USER ? ACC_USER : 0), &walk) < 0 ||
	    !gpa_is_ram(m, walk.gpa) || !tables_watched(m, page, &walk))
		return;
	entry_set(m, walk.pde_gpa, PTE_A);
	if (walk.page_size == PAGE_SIZE)
		entry_set(m, walk.pte_gpa, PTE_A);
	sl = slot_open(w, slot, space_pde(m, m->user, slot));
	if (!sl)
		return;
	slot_make_room(w, slot, 1);
	gfn = (uint32_t)(walk.gpa >> PAGE_SHIFT);
	if (sl->sh[index] >> PAGE_SHIFT != gfn && (sl->sh[index] & (SH_MAPPED | SH_CODE)))
		shadow_drop_page(w, page); /* what the guest had here before and has not flushed */
	sl->sh[index] = (sl->sh[index] >> PAGE_SHIFT == gfn
				 ? sl->sh[index]
				 : gfn << PAGE_SHIFT | (sl->sh[index] & (SH_QUEUED | SH_LOOSE))) |
			SH_CODE;
	loose_add(w, page);
}

/* ------------------------------------------------------------------ questions */

struct window *mem_window_user(struct mem *m)
{
	return m->user;
}

struct window *mem_window_super(struct mem *m)
{
	return m->super;
}

uintptr_t mem_window_base(const struct window *w)
{
	return w->base;
}

unsigned mem_window_id(const struct window *w)
{
	return w->id;
}

bool mem_window_is_super(const struct window *w)
{
	return w->kind == WIN_SUPER || w->kind == WIN_PHYS;
}

const struct mem_view *mem_view(const struct mem *m)
{
	return &m->view;
}

void slot_base_set(struct window *w, uint32_t slot, bool user)
{
	w->bases[slot] = user ? w->base : w->super_base;
	w->presents[slot] = user ? w->present : w->m->always - slot * 1024ul;
}

void view_update(struct mem *m)
{
	m->view.user_base = m->user->base;
	m->view.super_base = m->super->base;
	m->view.user_id = m->user->id;
	m->view.super_id = m->super->id;
	m->view.slot_bases = m->user->bases;
	m->view.present = m->user->present;
	m->view.slot_presents = m->user->presents;
	m->view.many_super = m->n_super > 1;
}

/* An address up to 2 GiB below a window is taken to be one below its first byte (string instructions that run
 * downwards past linear address 0); *lin is then 4 GiB or more, too. */
struct window *mem_window_find(struct mem *m, uintptr_t host, uint64_t *lin)
{
	const uintptr_t below = WINDOW_SPAN / 2, off = host - (arena_first(m) - below);
	struct window *w;

	if (!m->enabled || off >= MAX_WINDOWS * WINDOW_STRIDE)
		return NULL;
	w = &m->windows[off / WINDOW_STRIDE];
	if (w->kind == WIN_FREE)
		return NULL;
	*lin = host - w->base;
	return w;
}
