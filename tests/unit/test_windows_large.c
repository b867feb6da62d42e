/* test_windows_large.c - large pages in windows: mapped whole, and what stays of one that the kernel splits
 * or whose rights it changes. */
#include "windows_harness.h"

#define KERNEL (PTE_P | PTE_RW)

/* D is set by the first write, and cleared by the guest; both are bits of the directory entry. */
static void test_large_dirty(void **state)
{
	struct guest *g = guest_new(16u << 20);
	uint32_t v = 0;

	(void)state;
	put32(g, 0x10000, 0x400000 | KERNEL | PTE_PS);
	paging_on(g, 0x10000, CR4_PSE);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, true, &v), DONE);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x2000, true, &v), DONE);
	assert_int_equal(last_faults, 0);
	put32(g, 0x10000, 0x400000 | KERNEL | PTE_PS | PTE_A);
	mem_flush_page(&g->c, 0x1000);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, false, &v), DONE);
	assert_int_equal(get32(g, 0x10000) & 0x60, PTE_A);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x2000, true, &v), DONE);
	assert_int_equal(get32(g, 0x10000) & 0x60, PTE_A | PTE_D);
	put32(g, 0x10000, 0x400000 | KERNEL | PTE_PS | PTE_D);
	mem_flush_page(&g->c, 0x1000);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, false, &v), DONE);
	assert_int_equal(get32(g, 0x10000) & 0x60, PTE_A | PTE_D);
	assert_coherent(g);
	guest_free(g);
}

/* Two spaces share a supervisor window and a large page, each with a directory entry of its own: a write
 * through one must not save the other from having its D bit set. */
static void test_shared_large_dirty(void **state)
{
	struct guest *g = guest_new(16u << 20);
	uint32_t v = 0;

	(void)state;
	for (uint32_t pd = 0x10000; pd <= 0x11000; pd += 0x1000)
		put32(g, pd + 768 * 4, 0x400000 | KERNEL | PTE_PS | PTE_A);
	paging_on(g, 0x10000, CR4_PSE);
	for (unsigned i = 0; i < 4; i++) {
		g->c.cr3 = 0x10000 + (i & 1) * 0x1000;
		mem_load_cr3(&g->c);
		assert_int_equal(access_window(g, mem_window_super(g->m), 0xc0000000, false, &v), DONE);
	}
	assert_int_equal(mem_get_stats(g->m)->super_windows_now, 1);
	for (uint32_t pd = 0x10000; pd <= 0x11000; pd += 0x1000) {
		g->c.cr3 = pd;
		mem_load_cr3(&g->c);
		assert_int_equal(access_window(g, mem_window_super(g->m), 0xc0000000, true, &v), DONE);
		assert_int_equal(get32(g, pd + 768 * 4) & PTE_D, PTE_D);
	}
	assert_coherent(g);
	guest_free(g);
}

/* A kernel's direct map: 4 MiB at a time, traced pages and the hole left out. */
static void test_large_pages(void **state)
{
	struct guest *g = guest_new(16u << 20);
	uint32_t v = 0, faults = 0;

	(void)state;
	for (uint32_t i = 0; i < 4; i++)
		put32(g, 0x10000 + (768 + i) * 4, i << 22 | KERNEL | PTE_PS | PTE_D);
	paging_on(g, 0x10000, CR4_PSE);
	mem_trace_add(g->m, 0x700000, TRACE_CODE);
	for (uint32_t gpa = 0; gpa < 16u << 20; gpa += 0x1000) {
		enum outcome want = gpa >= 0xa0000 && gpa < 0xc0000	? MMIO
				    : gpa == 0x10000 || gpa == 0x700000 ? EMULATED_TRACED
									: DONE;

		assert_int_equal(access_window(g, mem_window_super(g->m), 0xc0000000 + gpa + 0x800, true, &v),
				 want);
		faults += last_faults;
	}
	assert_int_equal(faults, 4 + 32 + 2);
	assert_coherent(g);
	mem_trace_remove(g->m, 0x700000, TRACE_CODE);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0xc0700000, true, &v), DONE);
	assert_int_equal(last_faults, 0);
	guest_free(g);
}

/* ------------------------------------------------------------------ split, and other rights */

/* A large page of the supervisor's, 4 MiB or 2 MiB, that maps BASE. The table that it will be split into lies
 * in it, as in a kernel's direct map. Some pages have code; one of them is traced for it. */
#define BASE	   0x800000u
#define OTHER_BASE 0xc00000u
#define TABLE_PAGE 64u
#define TABLE	   (BASE + TABLE_PAGE * PAGE_SIZE)
#define CODE	   8u /* the first of CODE_PAGES */
#define CODE_PAGES 4u
#define TRACED	   9u
#define SMALL	   (KERNEL | PTE_A | PTE_D)
#define LARGE	   (SMALL | PTE_PS)

struct rig {
	struct guest *g;
	bool pae;
	uint32_t lin, pages;
};

static unsigned told[1024]; /* how often code_unmapped named the page */
static uint32_t told_from;

static void on_code_unmapped(void *opaque, struct window *w, uint32_t lin, uint32_t pages)
{
	(void)opaque;
	(void)w;
	for (uint32_t i = 0; i < pages; i++)
		told[(lin - told_from) / PAGE_SIZE + i]++;
}

static unsigned told_sum(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 1024; i++)
		n += told[i];
	return n;
}

static void put_entry(struct rig *r, uint64_t gpa, uint64_t v)
{
	mem_phys_write(r->g->m, gpa, &v, r->pae ? 8 : 4);
}

static uint64_t pde_gpa(const struct rig *r, unsigned space)
{
	return 0x10000 + space * 0x1000 + (r->pae ? 8 : 769 * 4);
}

static void put_pde(struct rig *r, unsigned space, uint64_t v)
{
	put_entry(r, pde_gpa(r, space), v);
}

static uint64_t pte_gpa(const struct rig *r, uint32_t page)
{
	return TABLE + (uint64_t)page * (r->pae ? 8 : 4);
}

static void put_pte(struct rig *r, uint32_t page, uint64_t v)
{
	put_entry(r, pte_gpa(r, page), v);
}

static uint32_t frame(uint32_t page)
{
	return BASE + page * PAGE_SIZE;
}

static void load_space(struct rig *r, unsigned space)
{
	r->g->c.cr3 = r->pae ? 0x2000 + space * 32 : 0x10000 + space * 0x1000;
	r->g->c.pdpte[3] = (0x10000 + space * 0x1000) | PTE_P;
	mem_load_cr3(&r->g->c);
}

static struct window *window(struct rig *r)
{
	return mem_window_super(r->g->m);
}

/* An access to the page comes to this, with so many hidden faults. Returns what was read. */
static uint32_t expect(struct rig *r, uint32_t page, bool write, enum outcome want, unsigned faults)
{
	const uint32_t lin = r->lin + page * PAGE_SIZE + 0x800;
	uint32_t v = lin;

	assert_int_equal(access_window(r->g, window(r), lin, write, &v), want);
	if (want == DONE && last_faults != faults)
		fail_msg("page %u, write %d: %u hidden faults, not %u", page, write, last_faults, faults);
	return v;
}

/* All pages but those of [first, first + n) are as they were, mapped and writable. */
static void assert_rest(struct rig *r, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < r->pages; i++) {
		if (i - first < n)
			continue;
		assert_int_equal(told[i], 0);
		assert_int_equal(expect(r, i, false, DONE, 0), get32(r->g, frame(i) + 0x800));
		if (i != TABLE_PAGE && i != TRACED)
			expect(r, i, true, DONE, 0);
	}
}

static void flush(struct rig *r)
{
	mem_flush_page(&r->g->c, r->lin);
	assert_coherent(r->g);
}

/* The table with the same frames and all rights; nothing refers to it yet. */
static void fill_table(struct rig *r)
{
	for (uint32_t i = 0; i < r->pages; i++)
		put_pte(r, i, frame(i) | SMALL);
}

static void split(struct rig *r)
{
	put_pde(r, 0, TABLE | SMALL);
	flush(r);
}

static void note_all_code(struct rig *r)
{
	memset(told, 0, sizeof told);
	for (uint32_t i = CODE; i < CODE + CODE_PAGES; i++)
		mem_window_note_code(&r->g->c, window(r), r->lin + i * PAGE_SIZE);
}

static void assert_all_code_told(void)
{
	for (uint32_t i = 0; i < 1024; i++)
		assert_int_equal(told[i], i - CODE < CODE_PAGES);
}

/* test, in both formats. */
static void with_rig(void (*test)(struct rig *))
{
	static const struct mem_ops ops = {.code_unmapped = on_code_unmapped};

	for (unsigned pae = 0; pae < 2; pae++) {
		struct rig r = {.g = guest_new(16u << 20),
				.pae = pae,
				.lin = pae ? 0xc0200000 : 0xc0400000,
				.pages = pae ? 512 : 1024};

		told_from = r.lin;
		mem_set_ops(r.g->m, &ops, NULL);
		put_pde(&r, 0, BASE | LARGE);
		put_pde(&r, 1, BASE | LARGE);
		r.g->c.efer = EFER_NXE;
		r.g->c.pdpte[3] = 0x10000 | PTE_P;
		paging_on(r.g, pae ? 0x2000 : 0x10000, pae ? CR4_PAE : CR4_PSE);
		expect(&r, 0, true, DONE, 1);
		note_all_code(&r);
		mem_trace_add(r.g->m, frame(TRACED), TRACE_CODE);
		fill_table(&r);
		assert_coherent(r.g);
		test(&r);
		assert_coherent(r.g);
		guest_free(r.g);
	}
}

/* A test that is one for the rig: the function, by its address. */
typedef void rig_test(struct rig *);

static void run_with_rig(void **state)
{
	with_rig(**(rig_test ***)state);
}

/* clang-format off */
#define RIG_TEST(name) {#name, run_with_rig, NULL, NULL, &(rig_test *){name}}
/* clang-format on */

static void test_split(struct rig *r)
{
	const struct mem_stats *st = mem_get_stats(r->g->m);
	uint64_t calls;

	calls = st->map_calls + st->unmap_calls;
	split(r);
	assert_int_equal(st->map_calls + st->unmap_calls, calls);
	assert_rest(r, 0, 0);
	expect(r, TRACED, true, EMULATED_TRACED, 0);
}

static void test_split_read_only(struct rig *r)
{
	for (uint32_t i = CODE; i < 24; i++)
		put_pte(r, i, frame(i) | (SMALL & ~PTE_RW));
	split(r);
	assert_rest(r, CODE, 24 - CODE);
	assert_int_equal(told_sum(), 0);
	for (uint32_t i = CODE; i < 24; i++) {
		expect(r, i, false, DONE, 0);
		expect(r, i, true, GUEST_FAULT, 0);
		assert_int_equal(r->g->c.exc.error, PF_P | PF_W);
	}
	/* and the right comes back to one of them, with nothing else changed */
	put_pte(r, 20, frame(20) | SMALL);
	expect(r, 20, true, DONE, 0);
	expect(r, 21, true, GUEST_FAULT, 0);
}

/* While CR0.WP is clear the kernel writes to these, too. */
static void test_split_without_wp(struct rig *r)
{
	r->g->c.cr0 &= ~CR0_WP;
	mem_mode_changed(&r->g->c);
	for (uint32_t i = CODE; i < 24; i++)
		put_pte(r, i, frame(i) | (SMALL & ~PTE_RW));
	split(r);
	assert_rest(r, 0, 0);
	r->g->c.cr0 |= CR0_WP;
	mem_mode_changed(&r->g->c);
	assert_coherent(r->g);
	expect(r, 20, true, GUEST_FAULT, 0);
	expect(r, 20, false, DONE, 1);
	assert_int_equal(told_sum(), 0);
}

/* Code pages 8 and 10, and others around; 9 and 11 stay. */
static void test_split_other_frames(struct rig *r)
{
	const uint32_t moved = frame(400) + 0x800;

	put_pte(r, CODE, frame(400) | SMALL);
	put_pte(r, CODE + 2, 0);
	put_pte(r, 30, frame(401) | SMALL);
	put_pte(r, 31, frame(31) | (SMALL & ~PTE_P));
	put_pte(r, 32, frame(32) | (SMALL & ~PTE_A));
	put_pte(r, 33, frame(33) | SMALL | PTE_US);
	put32(r->g, moved, 0x1234);
	put_pde(r, 0, TABLE | SMALL | PTE_US);
	flush(r);
	assert_int_equal(told_sum(), 2);
	assert_int_equal(told[CODE], 1);
	assert_int_equal(told[CODE + 2], 1);
	for (uint32_t i = 0; i < 40; i++)
		if (!(i >= 30 && i < 34) && i != CODE && i != CODE + 2)
			expect(r, i, i != TRACED, DONE, 0);
	assert_int_equal(expect(r, CODE, false, DONE, 1), 0x1234);
	expect(r, CODE + 2, false, GUEST_FAULT, 0);
	expect(r, 30, true, DONE, 1);
	assert_int_equal(get32(r->g, frame(401) + 0x800), r->lin + 30 * PAGE_SIZE + 0x800);
	expect(r, 31, false, GUEST_FAULT, 0);
	expect(r, 32, false, DONE, 1);
	assert_int_equal(get32(r->g, pte_gpa(r, 32)) & PTE_A, PTE_A);
	expect(r, 33, false, OTHER_WINDOW, 0);
}

static void test_split_not_dirty(struct rig *r)
{
	for (uint32_t i = 20; i < 24; i++)
		put_pte(r, i, frame(i) | (SMALL & ~PTE_D));
	split(r);
	assert_rest(r, 20, 4);
	for (uint32_t i = 20; i < 24; i++) {
		expect(r, i, false, DONE, 0);
		assert_int_equal(get32(r->g, pte_gpa(r, i)) & PTE_D, 0);
		expect(r, i, true, DONE, 1);
		assert_int_equal(get32(r->g, pte_gpa(r, i)) & PTE_D, PTE_D);
	}
}

/* The table is watched from then on, as any of the supervisor's. */
static void test_split_watched(struct rig *r)
{
	assert_int_equal(mem_traced(r->g->m, TABLE), 0);
	split(r);
	assert_int_equal(mem_traced(r->g->m, TABLE), TRACE_PT);
	expect(r, TABLE_PAGE, true, EMULATED_TRACED, 0);
	put_pte(r, 30, 0);
	put_pte(r, CODE, frame(CODE) | (SMALL & ~PTE_RW));
	assert_true(mem_stale(r->g->m));
	expect(r, 30, false, DONE, 0); /* as from a TLB */
	flush(r);
	assert_false(mem_stale(r->g->m));
	expect(r, 30, false, GUEST_FAULT, 0);
	expect(r, CODE, false, DONE, 0);
	expect(r, CODE, true, GUEST_FAULT, 0);
	assert_int_equal(told_sum(), 0);
	/* a store of the guest's own, through the large page that was */
	assert_int_equal(access_window(r->g, window(r), (uint32_t)(r->lin + (pte_gpa(r, 31) - BASE)), true,
				       &(uint32_t){0}),
			 EMULATED_TRACED);
	flush(r);
	expect(r, 31, false, GUEST_FAULT, 0);
	/* and back: one entry for all, which the table has no more to do with */
	put_pde(r, 0, BASE | LARGE);
	flush(r);
	assert_int_equal(mem_traced(r->g->m, TABLE), 0);
	assert_all_code_told();
	expect(r, 31, true, DONE, 1);
	expect(r, 30, true, DONE, 0);
}

static void test_large_read_only(struct rig *r)
{
	put_pde(r, 0, BASE | (LARGE & ~PTE_RW));
	expect(r, 30, true, DONE, 0);
	flush(r);
	for (uint32_t i = 0; i < r->pages; i++) {
		expect(r, i, false, DONE, 0);
		expect(r, i, true, GUEST_FAULT, 0);
	}
	put_pde(r, 0, BASE | LARGE);
	flush(r);
	expect(r, 5, true, DONE, 1);
	assert_rest(r, 0, 0);
	/* without D: the right to write goes until the first store has set it */
	put_pde(r, 0, BASE | (LARGE & ~PTE_D));
	flush(r);
	expect(r, 5, false, DONE, 0);
	assert_int_equal(get32(r->g, pde_gpa(r, 0)) & PTE_D, 0);
	expect(r, 5, true, DONE, 1);
	assert_int_equal(get32(r->g, pde_gpa(r, 0)) & PTE_D, PTE_D);
	assert_rest(r, 0, 0);
	/* the user's for a while */
	put_pde(r, 0, BASE | LARGE | PTE_US);
	flush(r);
	expect(r, 5, false, OTHER_WINDOW, 0);
	assert_all_code_told();
	put_pde(r, 0, BASE | LARGE);
	flush(r);
	expect(r, 5, true, DONE, 1);
	expect(r, 6, true, DONE, 0);
}

/* What is no split and no change of rights takes everything away. */
static void dropped(struct rig *r, uint64_t pde)
{
	put_pde(r, 0, 0);
	flush(r);
	put_pde(r, 0, BASE | LARGE);
	expect(r, 5, false, DONE, 1);
	note_all_code(r);
	put_pde(r, 0, pde);
	assert_int_equal(told_sum(), 0);
	flush(r);
	assert_all_code_told();
	assert_false(touch(mem_window_base(window(r)) + r->lin, false, &(uint32_t){0}));
}

static void test_large_dropped(struct rig *r)
{
	put32(r->g, OTHER_BASE + 5 * PAGE_SIZE + 0x800, 0x4321);
	dropped(r, OTHER_BASE | LARGE);
	assert_int_equal(expect(r, 5, false, DONE, 1), 0x4321);
	dropped(r, 0);
	expect(r, 5, false, GUEST_FAULT, 0);
	dropped(r, TABLE | (SMALL & ~PTE_A));
	expect(r, 5, false, DONE, 1);
	assert_int_equal(get32(r->g, pde_gpa(r, 0)) & PTE_A, PTE_A);
	dropped(r, BASE | (LARGE & ~PTE_A));
	expect(r, 5, false, DONE, 1);
	assert_int_equal(get32(r->g, pde_gpa(r, 0)) & PTE_A, PTE_A);
	dropped(r, 0xfee00000 | SMALL); /* a table that isn't RAM */
	if (!r->pae)
		return;
	dropped(r, BASE | LARGE | PTE_NX);
	expect(r, 5, false, DONE, 1);
}

/* Code has to go where fetches fault; data stays. */
static void test_split_no_execute(struct rig *r)
{
	if (!r->pae)
		return;
	put_pde(r, 0, TABLE | SMALL | PTE_NX);
	flush(r);
	assert_all_code_told();
	for (uint32_t i = 0; i < r->pages; i++)
		if (i - CODE >= CODE_PAGES)
			expect(r, i, false, DONE, 0);
	expect(r, CODE, false, DONE, 1);
}

/* The new entry has a bit that must not be there: nothing translates any more (SDM vol. 3A 4.7). */
static void test_split_reserved(struct rig *r)
{
	if (!r->pae)
		return;
	put_pde(r, 0, TABLE | SMALL | 1ull << 51);
	flush(r);
	expect(r, 5, false, GUEST_FAULT, 0);
	assert_int_equal(r->g->c.exc.error, PF_P | PF_RSVD);
	assert_all_code_told();
	r->g->c.efer = 0;
	mem_mode_changed(&r->g->c);
	put_pde(r, 0, BASE | LARGE);
	flush(r);
	expect(r, 5, false, DONE, 1);
	put_pde(r, 0, TABLE | SMALL | PTE_NX);
	flush(r);
	expect(r, 5, false, GUEST_FAULT, 0);
	assert_int_equal(r->g->c.exc.error, PF_P | PF_RSVD);
}

/* Two address spaces, one supervisor window, and for a while two opinions of the slot. */
static void test_split_two_spaces(struct rig *r)
{
	load_space(r, 1);
	expect(r, 5, true, DONE, 0);
	put_pte(r, 30, frame(30) | (SMALL & ~PTE_RW));
	put_pte(r, 31, 0);
	/* the other's directory first: seen when it is loaded */
	put_pde(r, 0, TABLE | SMALL);
	flush(r);
	expect(r, 31, true, DONE, 0);
	load_space(r, 0);
	assert_coherent(r->g);
	assert_rest(r, 30, 2);
	expect(r, 30, true, GUEST_FAULT, 0);
	expect(r, 31, false, GUEST_FAULT, 0);
	/* here it is still large */
	load_space(r, 1);
	assert_coherent(r->g);
	assert_all_code_told();
	expect(r, 31, true, DONE, 1);
	expect(r, 30, true, DONE, 0);
	load_space(r, 0);
	assert_coherent(r->g);
	expect(r, 30, true, GUEST_FAULT, 0);
	expect(r, 30, false, DONE, 0);
	note_all_code(r);
	/* and now both are the same */
	put_pde(r, 1, TABLE | SMALL);
	load_space(r, 1);
	assert_coherent(r->g);
	assert_rest(r, 30, 2);
	expect(r, 30, true, GUEST_FAULT, 0);
	load_space(r, 0);
	assert_rest(r, 30, 2);
	assert_int_equal(mem_get_stats(r->g->m)->super_windows_now, 1);
}

/* A hidden fault comes between the store to the directory and the flush. */
static void test_split_before_flush(struct rig *r)
{
	put_pte(r, 29, frame(29) | (SMALL & ~PTE_RW));
	put_pte(r, 30, 0);
	put_pde(r, 0, BASE | (LARGE & ~(PTE_RW | PTE_D)));
	flush(r);
	put_pde(r, 0, TABLE | SMALL);
	expect(r, 5, true, DONE, 1);
	assert_coherent(r->g);
	expect(r, 29, true, GUEST_FAULT, 0);
	expect(r, 30, false, GUEST_FAULT, 0);
	flush(r);
	assert_int_equal(told_sum(), 0);
	assert_int_equal(expect(r, 5, false, DONE, 0), r->lin + 5 * PAGE_SIZE + 0x800);
}

static unsigned refuse_at;

/* The host refuses one of the calls. */
static void host_refuses(struct rig *r)
{
	for (uint32_t i = 20; i < 40; i += 3)
		put_pte(r, i, i % 2 ? frame(i) | (SMALL & ~PTE_RW) : 0);
	r->g->m->fail_in = refuse_at;
	r->g->m->fail_n = 1;
	split(r);
	r->g->m->fail_n = 0;
	for (uint32_t i = 0; i < r->pages; i++) {
		const bool odd = i >= 20 && i < 40 && (i - 20) % 3 == 0;
		const enum outcome want = odd && !(i % 2) ? GUEST_FAULT : DONE;
		uint32_t v;

		assert_int_equal(access_window(r->g, window(r), r->lin + i * PAGE_SIZE, false, &v), want);
		assert_int_equal(told[i], 0);
		v = 1;
		if (odd)
			assert_int_equal(access_window(r->g, window(r), r->lin + i * PAGE_SIZE, true, &v),
					 GUEST_FAULT);
	}
}

static void test_split_host_refuses(void **state)
{
	(void)state;
	for (refuse_at = 0; refuse_at < 9; refuse_at++)
		with_rig(host_refuses);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_large_dirty), cmocka_unit_test(test_shared_large_dirty),
		cmocka_unit_test(test_large_pages), RIG_TEST(test_split),
		RIG_TEST(test_split_read_only),	    RIG_TEST(test_split_without_wp),
		RIG_TEST(test_split_other_frames),  RIG_TEST(test_split_not_dirty),
		RIG_TEST(test_split_watched),	    RIG_TEST(test_large_read_only),
		RIG_TEST(test_large_dropped),	    RIG_TEST(test_split_no_execute),
		RIG_TEST(test_split_reserved),	    RIG_TEST(test_split_two_spaces),
		RIG_TEST(test_split_before_flush),  cmocka_unit_test(test_split_host_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
