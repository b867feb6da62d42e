/* dump.c - `info windows`, `info traces`, and the checker that the tests run after every step.
 *
 * Not part of the run-time path: uses stdio.
 */
#include "mem/internal.h"

#include <inttypes.h>

static const char *const kind_names[] = {"free", "physical", "user", "supervisor"};

static uint64_t mapped_pages(const struct window *w)
{
	uint64_t n = 0;

	for (uint32_t s = 0; s < w->m->n_slots; s++)
		if (w->slots[s].filled)
			n += w->slots[s].mapped;
	return n;
}

void mem_dump_windows(const struct mem *m, FILE *out)
{
	if (!m->enabled) {
		fprintf(out, "windows are not in use\n");
		return;
	}
	fprintf(out, "%u windows, %u of them supervisor windows, about %u host mappings of at most %u\n",
		m->stats.windows_now, m->stats.super_windows_now, m->vmas, m->vma_budget);
	for (unsigned i = 0; i < MAX_WINDOWS; i++) {
		const struct window *w = &m->windows[i];

		if (w->kind == WIN_FREE)
			continue;
		fprintf(out, "%c%3u %-10s base %#" PRIxPTR, window_current(w) ? '*' : ' ', w->id,
			kind_names[w->kind], w->base);
		if (w->kind == WIN_USER)
			fprintf(out, " cr3 %08x super %d", w->cr3, w->super ? (int)w->super->id : -1);
		if (w->kind != WIN_PHYS)
			fprintf(out, " slots %u pages %" PRIu64 " queued %u", w->n_filled, mapped_pages(w),
				w->queued);
		fprintf(out, " mappings <= %u\n", w->vmas);
	}
}

void mem_dump_traces(const struct mem *m, FILE *out)
{
	uint32_t n = 0;

	fprintf(out, "%u page-table pages, %u code pages\n", m->stats.traced_pt_now,
		m->stats.traced_code_now);
	for (uint32_t gfn = 0; gfn < m->ram_pages; gfn += n) {
		const uint8_t t = m->trace[gfn];

		for (n = 1; gfn + n < m->ram_pages && m->trace[gfn + n] == t; n++)
			;
		if (t)
			fprintf(out, "%08x-%08x%s%s%s\n", gfn << PAGE_SHIFT, ((gfn + n) << PAGE_SHIFT) - 1,
				t & TRACE_PT ? " page-table" : "", t & TRACE_CODE ? " code" : "",
				t & TRACE_DIRTY ? " dirty" : "");
	}
}

/* ------------------------------------------------------------------ the checker */

struct check {
	struct mem *m;
	FILE *out;
	unsigned errors;
};

#define FAIL(ck, ...)                                                                                        \
	do {                                                                                                 \
		if ((ck)->errors++ < 20) {                                                                   \
			fprintf((ck)->out, __VA_ARGS__);                                                     \
			fputc('\n', (ck)->out);                                                              \
		}                                                                                            \
	} while (0)

static bool has_use(const struct mem *m, uint32_t gfn, const struct window *w, uint32_t slot,
		    enum pt_kind kind)
{
	for (uint32_t i = m->pt_head[gfn]; i; i = m->pt[i].next)
		if (m->pt[i].window == w->id && m->pt[i].slot == slot && m->pt[i].kind == kind)
			return true;
	return false;
}

static bool has_rmap(const struct mem *m, uint32_t gfn, uint32_t where)
{
	for (uint32_t i = m->rmap_head[gfn]; i; i = m->rmap[i].next)
		if (m->rmap[i].where == where)
			return true;
	return false;
}

static const struct loose *find_loose(const struct window *w, uint32_t page)
{
	for (unsigned i = 0; i < w->n_loose; i++)
		if (w->loose[i].page == page)
			return &w->loose[i];
	return NULL;
}

/* A page that is in the list, or has to be: what was found to agree must. */
static void check_loose(struct check *ck, const struct window *w, const struct slot *sl, uint32_t page,
			uint32_t e)
{
	const struct mem *m = ck->m;
	const struct loose *l = find_loose(w, page);

	if (!l != !(e & SH_LOOSE) || (!l && e & (SH_MAPPED | SH_CODE)))
		FAIL(ck, "window %u page %05x: %08x, in the list of loose pages: %d", w->id, page, e, !!l);
	if (l && l->e == e) {
		const struct leaf leaf = leaf_decode(m, sl, page & (m->slot_pages - 1), l->pte);

		if (sh_judge(w, e, &leaf) != SH_KEEP)
			FAIL(ck, "window %u page %05x: %08x never agreed with %08" PRIx64, w->id, page, e,
			     l->pte);
	}
}

static void check_entry(struct check *ck, const struct window *w, uint32_t slot, uint32_t i, bool excused)
{
	const struct mem *m = ck->m;
	const struct slot *sl = &w->slots[slot];
	const uint32_t e = sl->sh[i], gfn = e >> PAGE_SHIFT, page = (slot << m->slot_shift) + i;
	struct leaf l;

	if (!(e & SH_MAPPED) && (e & (SH_WRITE | SH_WPROT)))
		FAIL(ck, "window %u page %05x: rights without a mapping: %08x", w->id, page, e);
	if ((e & SH_WRITE) && (e & SH_WPROT))
		FAIL(ck, "window %u page %05x: writable and protected: %08x", w->id, page, e);
	if ((e & SH_WRITE) && m->trace[gfn])
		FAIL(ck, "window %u page %05x: frame %05x is traced and writable", w->id, page, gfn);
	if ((e & (SH_WRITE | SH_WPROT)) && !has_rmap(m, gfn, w->id << 20 | page))
		FAIL(ck, "window %u page %05x: frame %05x lacks its reverse mapping", w->id, page, gfn);
	if (w->kind == WIN_USER && (w->present[page] != !!(e & SH_MAPPED) ||
				    w->present[MEM_PRESENT_WRITE + page] != !!(e & SH_WRITE)))
		FAIL(ck, "window %u page %05x: %08x is not what the probes are told", w->id, page, e);
	if (slot_is_loose(sl) && !sl->doomed) {
		check_loose(ck, w, sl, page, e);
		return;
	}
	if (excused || (e & SH_QUEUED) || !(e & (SH_MAPPED | SH_CODE)))
		return;
	l = leaf_read(m, sl, i);
	if (sh_judge(w, e, &l) != SH_KEEP)
		FAIL(ck, "window %u page %05x: %08x is more than the guest's entry allows, and not queued",
		     w->id, page, e);
}

static void check_slot(struct check *ck, const struct window *w, uint32_t slot)
{
	const struct mem *m = ck->m;
	const struct slot *sl = &w->slots[slot];
	const bool excused = sl->doomed || sl->queued || w->queue_overflow;
	uint32_t mapped = 0;

	if (!sl->large && !sl->doomed && has_use(m, sl->pt_gfn, w, slot, PT_TABLE) != sl->watched)
		FAIL(ck, "window %u slot %u: its page table %05x is %swatched", w->id, slot, sl->pt_gfn,
		     sl->watched ? "not " : "");
	if (sl->watched && !sl->doomed && !(m->trace[sl->pt_gfn] & TRACE_PT))
		FAIL(ck, "window %u slot %u: its page table %05x is not traced", w->id, slot, sl->pt_gfn);
	if (slot_is_loose(sl) && (w->kind != WIN_USER || !m->loose_looks))
		FAIL(ck, "window %u slot %u: its page table %05x has to be watched", w->id, slot, sl->pt_gfn);
	for (uint32_t i = 0; i < m->slot_pages; i++) {
		check_entry(ck, w, slot, i, excused);
		mapped += !!(sl->sh[i] & SH_MAPPED);
	}
	if (mapped != sl->mapped)
		FAIL(ck, "window %u slot %u: %u pages mapped, %u counted", w->id, slot, mapped, sl->mapped);
	if (excused)
		return;
	for (unsigned i = 0; i < MAX_WINDOWS; i++) {
		const struct window *u = &m->windows[i];
		uint64_t key;

		if (u->kind != WIN_USER)
			continue;
		if (u != w && !(u->super == w && u->super_ok && u->super_version == w->version) &&
		    !(u == m->user && w == m->super))
			continue;
		key = pde_key(m, space_pde(m, u, slot));
		if (pde_differs(sl->pde, u == w || u == m->user || !key ? key : key | PTE_A))
			FAIL(ck,
			     "window %u slot %u: the directory entry of space %u differs, and is not queued",
			     w->id, slot, u->id);
	}
}

static void check_window(struct check *ck, const struct window *w)
{
	const struct mem *m = ck->m;
	uint32_t filled = 0;

	for (unsigned q = 0; w->kind == WIN_USER && q < 4; q++)
		if (w->pd[q] != NO_GFN &&
		    (!has_use(m, w->pd[q], w, q, PT_DIRECTORY) || !(m->trace[w->pd[q]] & TRACE_PT)))
			FAIL(ck, "window %u: directory %05x is not watched", w->id, w->pd[q]);
	for (uint32_t s = 0; s < MAX_SLOTS; s++) {
		if (w->slots[s].filled != (w->filled[s >> 6] >> (s & 63) & 1))
			FAIL(ck, "window %u slot %u: bitmap of filled slots is wrong", w->id, s);
		if (!w->slots[s].filled)
			continue;
		filled++;
		check_slot(ck, w, s);
	}
	if (filled != w->n_filled)
		FAIL(ck, "window %u: %u slots filled, %u counted", w->id, filled, w->n_filled);
}

/* One line of /proc/self/maps inside the arena. Returns the number of pages of RAM that it maps. */
static uint64_t check_host_range(struct check *ck, uint64_t start, uint64_t end, const char *perms,
				 uint64_t off)
{
	struct mem *m = ck->m;
	uint64_t lin = 0, n = 0;
	const struct window *w = mem_window_find(m, start, &lin);

	if (!w)
		return 0;
	for (; start < end; start += PAGE_SIZE, off += PAGE_SIZE, lin += PAGE_SIZE, n++) {
		const uint32_t page = (uint32_t)(lin >> PAGE_SHIFT), gfn = (uint32_t)(off >> PAGE_SHIFT);
		const bool writable = perms[1] == 'w';
		const struct slot *sl = &w->slots[page >> m->slot_shift & (MAX_SLOTS - 1)];
		uint32_t e;

		if (lin >= WINDOW_SPAN) {
			FAIL(ck, "host maps behind window %u", w->id);
			return n;
		}
		if (w->kind == WIN_PHYS) {
			if (gfn != (page & m->mode.a20 >> PAGE_SHIFT) || (writable && m->trace[gfn]))
				FAIL(ck, "physical window page %05x: wrong host mapping", page);
			continue;
		}
		e = sl->filled ? sl->sh[page & (m->slot_pages - 1)] : 0;
		if (!(e & SH_MAPPED) || e >> PAGE_SHIFT != gfn || writable != !!(e & SH_WRITE))
			FAIL(ck, "window %u page %05x: host maps frame %05x %s, shadow entry is %08x", w->id,
			     page, gfn, perms, e);
	}
	return w->kind == WIN_PHYS ? 0 : n;
}

static void check_host(struct check *ck)
{
	FILE *f = fopen("/proc/self/maps", "r");
	uint64_t start, end, off, pages = 0, expected = 0;
	char perms[5], line[512];

	if (!f)
		return;
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64, &start, &end, perms, &off) == 4 &&
		    perms[0] == 'r')
			pages += check_host_range(ck, start, end, perms, off);
	fclose(f);
	for (unsigned i = 0; i < MAX_WINDOWS; i++)
		if (ck->m->windows[i].kind != WIN_FREE)
			expected += mapped_pages(&ck->m->windows[i]);
	if (pages != expected)
		FAIL(ck, "the host maps %" PRIu64 " pages in windows, the shadow entries %" PRIu64, pages,
		     expected);
}

unsigned mem_check(struct mem *m, FILE *out, bool host)
{
	struct check ck = {.m = m, .out = out};
	uint32_t pt = 0, code = 0;

	for (uint32_t gfn = 0; gfn < m->ram_pages; gfn++) {
		pt += !!(m->trace[gfn] & TRACE_PT);
		code += !!(m->trace[gfn] & TRACE_CODE);
	}
	if (pt != m->stats.traced_pt_now || code != m->stats.traced_code_now)
		FAIL(&ck, "traces are miscounted");
	for (unsigned i = 0; i < MAX_WINDOWS; i++) {
		const struct window *w = &m->windows[i];

		if (w->kind == WIN_USER || w->kind == WIN_SUPER)
			check_window(&ck, w);
		else if (w->n_filled)
			FAIL(&ck, "window %u has slots", w->id);
	}
	if (host)
		check_host(&ck);
	return ck.errors;
}
