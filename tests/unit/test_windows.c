/* test_windows.c - windows, one behaviour at a time. test_windows_stress.c tests them together. */
#include "windows_harness.h"

#define KERNEL (PTE_P | PTE_RW)
#define USER   (PTE_P | PTE_RW | PTE_US)

static void test_physical(void **state)
{
	struct guest *g = guest_new(8u << 20);
	uint32_t v = 1;

	(void)state;
	assert_ptr_equal(mem_window_user(g->m), mem_window_super(g->m));
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x1234, true, &v), DONE);
	assert_int_equal(get32(g, 0x1234), 1);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0xa0000, true, &v), MMIO);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0xbfffc, false, &v), MMIO);
	assert_int_equal(access_window(g, mem_window_user(g->m), 8u << 20, false, &v), MMIO);
	mem_trace_add(g->m, 0x5000, TRACE_CODE);
	v = 2;
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x5008, true, &v), EMULATED_TRACED);
	assert_int_equal(get32(g, 0x5008), 2);
	mem_trace_remove(g->m, 0x5000, TRACE_CODE);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x5008, true, &v), DONE);
	assert_int_equal(last_faults, 0);
	mem_trace_add(g->m, 0x5000, TRACE_DIRTY);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x5008, true, &v), DONE);
	assert_int_equal(mem_traced(g->m, 0x5000), 0);
	/* A20 off: 1 MiB wraps to 0 */
	put32(g, 0x2000, 0x11111111);
	put32(g, 0x102000, 0x22222222);
	g->c.a20_mask = ~(1u << 20);
	mem_mode_changed(&g->c);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x102000, false, &v), DONE);
	assert_int_equal(v, 0x11111111);
	mem_trace_add(g->m, 0x2000, TRACE_CODE);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x102000, true, &v), EMULATED_TRACED);
	assert_coherent(g);
	guest_free(g);
}

static void test_edges(void **state)
{
	struct guest *g = guest_new(8u << 20);
	struct window *w = mem_window_user(g->m), *found;
	uint32_t v;
	uint64_t lin;

	(void)state;
	assert_int_equal(mem_window_base(w) & 0xffffffff, 0);
	for (uint64_t at = WINDOW_SPAN - 4; at <= WINDOW_SPAN + 16; at += 4) {
		assert_false(touch(mem_window_base(w) + at, true, &(uint32_t){0}));
		found = mem_window_find(g->m, fault_address, &lin);
		assert_ptr_equal(found, w);
		assert_int_equal(lin, at);
		assert_int_equal(mem_window_fault(&g->c, w, lin, true),
				 at < WINDOW_SPAN ? MEM_FAULT_MMIO : MEM_FAULT_EMULATE);
	}
	assert_false(touch(mem_window_base(w) - 4, false, &v));
	assert_ptr_equal(mem_window_find(g->m, mem_window_base(w) - 4, &lin), w);
	assert_int_equal(mem_window_fault(&g->c, w, lin, false), MEM_FAULT_EMULATE);
	assert_null(mem_window_find(g->m, (uintptr_t)&v, &lin));
	guest_free(g);
}

/* A run of pages that the guest maps in a straight line comes with one fault. */
static void test_coalescing(void **state)
{
	struct guest *g = guest_new(8u << 20);
	uint32_t v;

	(void)state;
	put32(g, 0x10000, 0x11000 | USER);
	for (uint32_t i = 0; i < 16; i++)
		put32(g, 0x11000 + i * 4, (0x200000 + i * 0x1000) | USER | PTE_A | PTE_D);
	paging_on(g, 0x10000, 0);
	g->c.cpl = 3;
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x5000, true, &v), DONE);
	assert_int_equal(last_faults, 1);
	for (uint32_t i = 0; i < 16; i++) {
		assert_int_equal(access_window(g, mem_window_user(g->m), i << 12, true, &v), DONE);
		assert_int_equal(last_faults, 0);
	}
	assert_int_equal(mem_get_stats(g->m)->map_calls, 3); /* 2 for the physical window */
	assert_coherent(g);
	guest_free(g);
}

/* Not present to present: mapped without a hidden fault, the user page that faulted once mem_map_pending is
 * called. */
static void eager(uint32_t loose_looks)
{
	struct guest *g = guest_new(8u << 20);
	uint32_t v;

	g->m->loose_looks = loose_looks;
	put32(g, 0x10000, 0x11000 | USER);
	put32(g, 0x11000, 0x200000 | USER);
	put32(g, 0x11004, 0x201000 | KERNEL);
	paging_on(g, 0x10000, 0);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, false, &v), DONE);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x0000, false, &v), OTHER_WINDOW);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x0000, false, &v), DONE);
	assert_int_equal(mem_view(g->m)->slot_bases[0], mem_window_base(mem_window_user(g->m)));
	assert_int_equal(mem_view(g->m)->slot_bases[1], mem_window_base(mem_window_super(g->m)));

	put32(g, 0x11008, 0x202000 | KERNEL | PTE_A | PTE_D);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x2000, true, &v), DONE);
	assert_int_equal(last_faults, 0);
	/* a page that the guest has faulted on; what it maps beside it may never be used */
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x3000, true, &v), GUEST_FAULT);
	put32(g, 0x1100c, 0x203000 | USER | PTE_A | PTE_D);
	put32(g, 0x11014, 0x20f000 | USER | PTE_A | PTE_D);
	assert_int_equal(mem_view(g->m)->pending, loose_looks ? 1 : 2);
	mem_map_pending(g->m);
	assert_int_equal(mem_view(g->m)->pending, 0);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x3000, true, &v), DONE);
	assert_int_equal(last_faults, 0);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x5000, true, &v), DONE);
	assert_int_equal(last_faults, 1);
	/* copy on write: another frame, writable, then INVLPG */
	put32(g, 0x1100c, 0x204000 | USER | PTE_A | PTE_D);
	mem_flush_page(&g->c, 0x3000);
	mem_map_pending(g->m);
	v = 77;
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x3000, true, &v), DONE);
	assert_int_equal(last_faults, 0);
	assert_int_equal(get32(g, 0x204000), 77);
	assert_coherent(g);
	guest_free(g);
}

static void test_eager(void **state)
{
	(void)state;
	eager(0);
	eager(LOOSE_LOOKS);
}

/* D is set by the first write, not before; clearing A or D takes effect at the flush. */
static void test_accessed_dirty(void **state)
{
	struct guest *g = guest_new(8u << 20);
	uint32_t v = 0;

	(void)state;
	put32(g, 0x10000, 0x11000 | KERNEL);
	put32(g, 0x11004, 0x200000 | KERNEL);
	paging_on(g, 0x10000, 0);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, false, &v), DONE);
	assert_int_equal(get32(g, 0x10000) & 0x60, PTE_A);
	assert_int_equal(get32(g, 0x11004) & 0x60, PTE_A);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, true, &v), DONE);
	assert_int_equal(last_faults, 1);
	assert_int_equal(get32(g, 0x11004) & 0x60, PTE_A | PTE_D);
	put32(g, 0x11004, 0x200000 | KERNEL);
	mem_flush_page(&g->c, 0x1000);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, false, &v), DONE);
	assert_int_equal(get32(g, 0x11004) & 0x60, PTE_A);
	put32(g, 0x10000, 0x11000 | KERNEL); /* A of the directory entry */
	mem_load_cr3(&g->c);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, false, &v), DONE);
	assert_int_equal(get32(g, 0x10000) & 0x60, PTE_A);
	assert_coherent(g);
	guest_free(g);
}

static struct {
	struct window *w;
	uint32_t lin, pages;
	unsigned calls;
} unmapped;

static void on_code_unmapped(void *opaque, struct window *w, uint32_t lin, uint32_t pages)
{
	(void)opaque;
	unmapped.w = w;
	unmapped.lin = lin;
	unmapped.pages = pages;
	unmapped.calls++;
}

/* Code that runs in a window is reported when its mapping changes, at the flush; whether or not it is mapped
 * as data, in runs, and only once. */
static void test_code_unmapped(void **state)
{
	const struct mem_ops ops = {.code_unmapped = on_code_unmapped};
	struct guest *g = guest_new(16u << 20);
	struct window *w;
	uint32_t v;

	(void)state;
	mem_set_ops(g->m, &ops, NULL);
	unmapped.calls = 0;
	put32(g, 0x10000, 0x11000 | KERNEL | PTE_A);
	for (uint32_t i = 0; i < 8; i++)
		put32(g, 0x11000 + i * 4, (0x200000 + i * 0x1000) | KERNEL | PTE_A);
	put32(g, 0x12000, 0x300000 | KERNEL | PTE_A);
	paging_on(g, 0x10000, 0);
	w = mem_window_super(g->m);
	for (uint32_t i = 2; i < 6; i++)
		mem_window_note_code(&g->c, w, i << 12);
	assert_int_equal(access_window(g, w, 0x3000, false, &v), DONE);
	for (uint32_t i = 3; i < 6; i++)
		put32(g, 0x11000 + i * 4, (0x210000 + i * 0x1000) | KERNEL | PTE_A);
	assert_int_equal(unmapped.calls, 0);
	mem_flush_page(&g->c, 0x3000);
	assert_int_equal(unmapped.calls, 1);
	assert_ptr_equal(unmapped.w, w);
	assert_int_equal(unmapped.lin, 0x3000);
	assert_int_equal(unmapped.pages, 3);
	mem_load_cr3(&g->c);
	assert_int_equal(unmapped.calls, 1);
	/* A note made after the directory entry was changed, and before the flush, is of the new page: if the
	 * entry is changed back, that is a change. */
	mem_window_note_code(&g->c, w, 0);
	put32(g, 0x10000, 0x12000 | KERNEL | PTE_A);
	mem_window_note_code(&g->c, w, 0);
	put32(g, 0x10000, 0x11000 | KERNEL | PTE_A);
	unmapped.calls = 0;
	mem_flush_page(&g->c, 0);
	assert_int_equal(unmapped.calls, 1);
	assert_int_equal(unmapped.lin, 0);
	assert_coherent(g);
	guest_free(g);
}

/* Many address spaces that share their kernel half need one supervisor window; cached ones switch without a
 * host call. */
static void test_many_spaces(void **state)
{
	struct guest *g = guest_new(32u << 20);
	const struct mem_stats *st = mem_get_stats(g->m);
	uint64_t calls;
	uint32_t v;

	(void)state;
	put32(g, 0x11000, 0x200000 | KERNEL);
	for (uint32_t i = 0; i < 300; i++) {
		uint32_t pd = 0x400000 + i * 0x3000;

		put32(g, pd + 768 * 4, 0x11000 | KERNEL);
		put32(g, pd, (pd + 0x1000) | USER);
		put32(g, pd + 0x1000, (pd + 0x2000) | USER);
		put32(g, pd + 0x2000, i);
	}
	paging_on(g, 0x400000, 0);
	for (unsigned round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < 300; i++) {
			g->c.cr3 = 0x400000 + i * 0x3000;
			mem_load_cr3(&g->c);
			assert_int_equal(access_window(g, mem_window_user(g->m), 0, false, &v), DONE);
			assert_int_equal(v, i);
			assert_int_equal(access_window(g, mem_window_super(g->m), 0xc0000000, false, &v),
					 DONE);
			assert_int_equal(last_faults, round == 0 && i == 0);
		}
		assert_coherent(g);
	}
	assert_int_equal(st->super_windows_now, 1);
	assert_false(mem_view(g->m)->many_super);
	calls = st->map_calls + st->unmap_calls + st->protect_calls;
	for (uint32_t i = 290; i < 300; i++) {
		g->c.cr3 = 0x400000 + i * 0x3000;
		mem_load_cr3(&g->c);
		assert_int_equal(access_window(g, mem_window_user(g->m), 0, false, &v), DONE);
		assert_int_equal(last_faults, 0);
	}
	assert_int_equal(calls, st->map_calls + st->unmap_calls + st->protect_calls);
	guest_free(g);
}

/* n address spaces whose directories have no table in common. */
static void private_kernels(struct guest *g, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t pd = 0x400000 + i * 0x40000;

		for (uint32_t s = 0; s < 40; s++) {
			put32(g, pd + (512 + s) * 4, (pd + 0x1000 + s * 0x1000) | KERNEL);
			put32(g, pd + 0x1000 + s * 0x1000, 0x200000 | KERNEL);
		}
	}
	paging_on(g, 0x400000, 0);
}

/* Goes to the ith and reads a page of each of its tables. warm: all are mapped already. */
static void use_private_kernel(struct guest *g, uint32_t i, bool warm)
{
	uint32_t v;

	g->c.cr3 = 0x400000 + i * 0x40000;
	mem_load_cr3(&g->c);
	for (uint32_t s = 0; s < 40; s++) {
		uint32_t lin = 0x80000000 + s * 0x400000;

		assert_int_equal(access_window(g, mem_window_super(g->m), lin, false, &v), DONE);
		if (warm)
			assert_int_equal(last_faults, 0);
	}
}

/* A kernel with separate page tables for each process gets a supervisor window for each. */
static void test_private_kernels(void **state)
{
	struct guest *g = guest_new(32u << 20);

	(void)state;
	private_kernels(g, 8);
	for (unsigned round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < 8; i++) {
			use_private_kernel(g, i, round > 15);
		}
	}
	assert_int_equal(mem_get_stats(g->m)->super_windows_now, 8);
	assert_true(mem_view(g->m)->many_super);
	assert_coherent(g);
	guest_free(g);
}

/* A second directory that differs by one page, as for code patching, shares the window however often it is
 * used. */
static void test_patching_directory(void **state)
{
	struct guest *g = guest_new(16u << 20);
	uint32_t v;

	(void)state;
	for (uint32_t pd = 0x10000; pd <= 0x11000; pd += 0x1000)
		put32(g, pd + 768 * 4, 0x12000 | KERNEL);
	put32(g, 0x12000, 0x200000 | KERNEL);
	put32(g, 0x11000 + 4, 0x13000 | KERNEL); /* the patching page, in the lower half */
	put32(g, 0x13000, 0x201000 | KERNEL);
	paging_on(g, 0x10000, 0);
	for (unsigned i = 0; i < 3000; i++) {
		g->c.cr3 = 0x10000 + (i & 1) * 0x1000;
		mem_load_cr3(&g->c);
		assert_int_equal(access_window(g, mem_window_super(g->m), 0xc0000000, false, &v), DONE);
		if (i & 1)
			assert_int_equal(access_window(g, mem_window_super(g->m), 0x400000, true, &v), DONE);
	}
	assert_int_equal(mem_get_stats(g->m)->super_windows_now, 1);
	assert_coherent(g);
	guest_free(g);
}

/* A supervisor window that nobody needs any more goes after a while, so that there is a sole one again. */
static void test_stale_super(void **state)
{
	struct guest *g = guest_new(32u << 20);

	(void)state;
	private_kernels(g, 2);
	for (unsigned round = 0; round < 40; round++) {
		use_private_kernel(g, round & 1, false);
	}
	assert_true(mem_view(g->m)->many_super);
	for (unsigned i = 0; i < 5000; i++)
		mem_load_cr3(&g->c);
	assert_false(mem_view(g->m)->many_super);
	assert_coherent(g);
	guest_free(g);
}

/* A page table that the guest frees loses its trace: as soon as its directory entry is cleared, or else when
 * the directory of a dead process, or the table itself, is overwritten as data. */
static void test_freed_tables(void **state)
{
	struct guest *g = guest_new(32u << 20);
	uint8_t junk[64];
	uint32_t v;

	(void)state;
	g->m->loose_looks = 0;
	memset(junk, 0x5a, sizeof junk);
	for (uint32_t i = 0; i < 2; i++) {
		put32(g, 0x10000 + i * 0x10000, (0x11000 + i * 0x10000) | USER);
		put32(g, 0x11000 + i * 0x10000, 0x300000 | USER);
		put32(g, 0x10004 + i * 0x10000, (0x12000 + i * 0x10000) | USER);
		put32(g, 0x12000 + i * 0x10000, 0x300000 | USER);
	}
	paging_on(g, 0x10000, 0);
	for (uint32_t i = 2; i-- > 0;) {
		g->c.cr3 = 0x10000 + i * 0x10000;
		mem_load_cr3(&g->c);
		assert_int_equal(access_window(g, mem_window_user(g->m), 0, false, &v), DONE);
		assert_int_equal(access_window(g, mem_window_user(g->m), 0x400000, false, &v), DONE);
	}
	assert_int_equal(mem_get_stats(g->m)->traced_pt_now, 6);
	put32(g, 0x10000, 0);
	assert_int_equal(mem_traced(g->m, 0x11000), 0);
	mem_phys_write(g->m, 0x21100, junk, sizeof junk);
	assert_int_equal(mem_traced(g->m, 0x21000), 0);
	assert_int_equal(mem_traced(g->m, 0x22000), TRACE_PT);
	mem_phys_write(g->m, 0x20100, junk, sizeof junk);
	assert_int_equal(mem_traced(g->m, 0x20000), 0);
	assert_int_equal(mem_traced(g->m, 0x22000), 0);
	assert_coherent(g);
	mem_load_cr3(&g->c);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0, false, &v), GUEST_FAULT);
	assert_coherent(g);
	guest_free(g);
}

/* A guest at CPL 3. Its directory, at 0x10000, has one page table, at 0x11000, with nothing in it yet. */
static struct guest *guest_with_table(void)
{
	struct guest *g = guest_new(8u << 20);

	put32(g, 0x10000, 0x11000 | USER);
	paging_on(g, 0x10000, 0);
	g->c.cpl = 3;
	return g;
}

/* A page table that is new to a user window is not traced. What the guest lowers there serves until it
 * flushes, as in a TLB, and no longer. */
static void test_unwatched(void **state)
{
	const uint32_t rw = USER | PTE_A | PTE_D, ro = rw & ~PTE_RW;
	struct guest *g = guest_with_table();
	struct window *w = mem_window_user(g->m);
	uint32_t v = 1;

	(void)state;
	for (uint32_t i = 0; i < 4; i++)
		put32(g, 0x11000 + i * 4, (0x200000 + (i << 12)) | USER);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(access_window(g, w, i << 12, true, &v), DONE);
	assert_int_equal(mem_traced(g->m, 0x11000), 0);
	assert_coherent(g);

	put32(g, 0x11000, 0);
	put32(g, 0x11004, 0x201000 | ro);
	put32(g, 0x11008, 0x207000 | rw);
	assert_true(mem_stale(g->m));
	v = 2;
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(access_window(g, w, i << 12, true, &v), DONE);
	assert_int_equal(get32(g, 0x202000), 2);
	mem_flush_page(&g->c, 0x5000);
	assert_false(mem_stale(g->m));
	v = 3;
	assert_int_equal(access_window(g, w, 0x0000, false, &v), GUEST_FAULT);
	v = 3;
	assert_int_equal(access_window(g, w, 0x1000, true, &v), GUEST_FAULT);
	assert_int_equal(access_window(g, w, 0x2000, true, &v), DONE);
	assert_int_equal(get32(g, 0x202000), 2);
	assert_int_equal(get32(g, 0x207000), 3);
	assert_coherent(g);

	/* The right to write given, taken, given and taken: what an earlier flush found says nothing. */
	for (unsigned round = 0; round < 4; round++) {
		put32(g, 0x11004, 0x201000 | rw);
		assert_int_equal(access_window(g, w, 0x1000, true, &v), DONE);
		put32(g, 0x11004, 0x201000 | ro);
		mem_flush_page(&g->c, 0x1000);
		assert_int_equal(access_window(g, w, 0x1000, true, &v), GUEST_FAULT);
		assert_coherent(g);
	}
	guest_free(g);
}

/* Looked at often, it comes under trace; what had been lowered before that and not flushed goes at the flush.
 */
static void test_unwatched_long(void **state)
{
	struct guest *g = guest_with_table();
	uint32_t v = 1;

	(void)state;
	put32(g, 0x11008, 0x200000 | USER);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x2000, true, &v), DONE);
	for (unsigned i = 0; i < LOOSE_LOOKS; i++) {
		assert_int_equal(mem_traced(g->m, 0x11000), 0);
		mem_load_cr3(&g->c);
	}
	put32(g, 0x11008, 0);
	mem_load_cr3(&g->c);
	assert_int_equal(mem_traced(g->m, 0x11000), TRACE_PT);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x2000, false, &v), GUEST_FAULT);
	assert_coherent(g);
	guest_free(g);
}

/* So many pages that the list of those to be looked at would overflow. */
static void test_unwatched_many(void **state)
{
	struct guest *g = guest_with_table();
	uint32_t v = 1;

	(void)state;
	for (uint32_t i = 0; i < 1024; i++) /* no two neighbours lie side by side in memory */
		put32(g, 0x11000 + i * 4, (0x200000 + ((i * 5 & 0x3ff) << 12)) | USER);
	for (uint32_t i = 0; i < 700; i++) {
		assert_int_equal(access_window(g, mem_window_user(g->m), i << 12, true, &v), DONE);
		if (i % 50 == 0)
			assert_coherent(g);
		if (i == 100)
			put32(g, 0x11000 + 7 * 4, 0);
	}
	assert_int_equal(mem_traced(g->m, 0x11000), TRACE_PT);
	mem_load_cr3(&g->c);
	assert_int_equal(access_window(g, mem_window_user(g->m), 7 << 12, false, &v), GUEST_FAULT);
	assert_int_equal(access_window(g, mem_window_user(g->m), 8 << 12, false, &v), DONE);
	assert_coherent(g);
	guest_free(g);
}

/* Code that ran from another frame before the guest flushed, and then from the first again. */
static void test_unwatched_code(void **state)
{
	const struct mem_ops ops = {.code_unmapped = on_code_unmapped};
	struct guest *g = guest_with_table();

	(void)state;
	mem_set_ops(g->m, &ops, NULL);
	put32(g, 0x11004, 0x201000 | USER);
	mem_window_note_code(&g->c, mem_window_user(g->m), 0x1000);
	mem_load_cr3(&g->c);
	unmapped.calls = 0;
	put32(g, 0x11004, 0x202000 | USER | PTE_A);
	mem_window_note_code(&g->c, mem_window_user(g->m), 0x1000);
	assert_int_equal(unmapped.calls, 1);
	put32(g, 0x11004, 0x201000 | USER | PTE_A);
	mem_load_cr3(&g->c);
	assert_int_equal(unmapped.calls, 2);
	assert_coherent(g);
	guest_free(g);
}

static void assert_store(struct guest *g, uint32_t lin, enum outcome want, unsigned faults)
{
	uint32_t v = lin;

	assert_int_equal(access_window(g, mem_window_super(g->m), lin, true, &v), want);
	if (want == DONE && last_faults != faults)
		fail_msg("%#x: %u hidden faults, not %u", lin, last_faults, faults);
}

/* Where the supervisor has much code the pages beside it are protected with it; who stores to one that has
 * none pays for that once. */
static void test_code_groups(void **state)
{
	struct guest *g = guest_new(16u << 20);
	const struct mem_stats *st = mem_get_stats(g->m);
	uint64_t calls;

	(void)state;
	put32(g, 0x10000 + 769 * 4, 1u << 22 | KERNEL | PTE_PS | PTE_D);
	put32(g, 0x10000 + 770 * 4, 0x11000 | KERNEL);
	for (uint32_t i = 0; i < 16; i++) /* the same frames, two of them exchanged */
		put32(g, 0x11000 + i * 4,
		      (0x500000 + (i == 4 || i == 5 ? 9 - i : i) * 0x1000) | KERNEL | PTE_A | PTE_D);
	paging_on(g, 0x10000, CR4_PSE);
	for (uint32_t i = 0; i < 32; i++)
		assert_store(g, 0xc0500000 + i * 0x1000, DONE, !i);
	for (uint32_t i = 0; i < 16; i++)
		assert_store(g, 0xc0800000 + i * 0x1000, DONE, i == 0 || i == 4 || i == 5 || i == 6);
	mem_trace_add(g->m, 0x500000, TRACE_CODE);
	mem_trace_add(g->m, 0x502000, TRACE_CODE);
	mem_trace_add(g->m, 0x508000, TRACE_PT);
	for (uint32_t i = 0; i < 32; i++)
		assert_store(g, 0xc0500000 + i * 0x1000, i == 0 || i == 2 || i == 8 ? EMULATED_TRACED : DONE,
			     0);
	mem_trace_add(g->m, 0x503000, TRACE_CODE);
	assert_coherent(g);
	assert_store(g, 0xc0503000, EMULATED_TRACED, 0);
	assert_store(g, 0xc0501000, DONE, 1);
	assert_store(g, 0xc0501ffc, DONE, 0);
	assert_store(g, 0xc050f000, DONE, 1);
	assert_store(g, 0xc0510000, DONE, 0);
	/* here pages 0 to 3 are in a row */
	assert_store(g, 0xc0803000, EMULATED_TRACED, 0);
	assert_store(g, 0xc0801000, DONE, 1);
	assert_store(g, 0xc0804000, DONE, 0);
	assert_store(g, 0xc0806000, DONE, 0);
	/* what is protected already takes no call at this address */
	calls = st->protect_calls;
	mem_trace_add(g->m, 0x50a000, TRACE_CODE);
	assert_int_equal(st->protect_calls, calls + 1);
	assert_store(g, 0xc050a000, EMULATED_TRACED, 0);
	assert_store(g, 0xc080a000, EMULATED_TRACED, 0);
	mem_trace_remove(g->m, 0x50a000, TRACE_CODE);
	assert_store(g, 0xc050a000, DONE, 0);
	assert_coherent(g);
	guest_free(g);
}

/* Consecutive frames in consecutive entries: the first is mapped at once, the others together. */
static void test_entries_in_a_row(void **state)
{
	struct guest *g = guest_new(8u << 20);
	const struct mem_stats *st = mem_get_stats(g->m);
	uint64_t calls;
	uint32_t v = 1;

	(void)state;
	put32(g, 0x10000 + 768 * 4, 0x11000 | KERNEL);
	put32(g, 0x11000, 0x200000 | KERNEL | PTE_A | PTE_D);
	paging_on(g, 0x10000, 0);
	assert_store(g, 0xc0000000, DONE, 1);
	calls = st->map_calls;
	for (uint32_t i = 16; i < 26; i++)
		put32(g, 0x11000 + i * 4, (0x300000 + i * 0x1000) | KERNEL | PTE_A | PTE_D);
	assert_int_equal(st->map_calls, calls + 1);
	assert_store(g, 0xc0010000, DONE, 0);
	for (uint32_t i = 16; i < 26; i++) {
		assert_store(g, 0xc0000000 + i * 0x1000, DONE, i == 17);
		assert_int_equal(access_window(g, mem_window_super(g->m), 0xc0000000 + i * 0x1000, false, &v),
				 DONE);
		assert_int_equal(v, 0xc0000000 + i * 0x1000);
		assert_int_equal(get32(g, 0x300000 + i * 0x1000), v);
	}
	assert_int_equal(st->map_calls, calls + 2);
	/* frames that are not in a row wait for nobody */
	for (uint32_t i = 40; i < 44; i++)
		put32(g, 0x11000 + i * 4, (0x300000 - i * 0x1000) | KERNEL | PTE_A | PTE_D);
	for (uint32_t i = 40; i < 44; i++)
		assert_store(g, 0xc0000000 + i * 0x1000, DONE, 0);
	assert_coherent(g);
	guest_free(g);
}

struct written {
	unsigned n;
	uint64_t gpa[8];
	unsigned len[8];
};

static void note_written(void *opaque, uint64_t gpa, unsigned len)
{
	struct written *w = opaque;

	assert_true(w->n < 8);
	w->gpa[w->n] = gpa;
	w->len[w->n++] = len;
}

/* What a device with DMA would do: one transfer over pages with and without code, which the guest's CPU has
 * mapped at two addresses. */
static void test_device_writes_code(void **state)
{
	struct guest *g = guest_new(8u << 20);
	struct written w = {0};
	const struct mem_ops ops = {.code_written = note_written};
	static uint8_t data[3 * PAGE_SIZE];
	uint32_t v;

	(void)state;
	mem_set_ops(g->m, &ops, &w);
	put32(g, 0x10000 + 768 * 4, 0x11000 | KERNEL);
	for (uint32_t i = 0; i < 4; i++) {
		put32(g, 0x11000 + i * 4, (0x200000 + i * 0x1000) | KERNEL | PTE_D);
		put32(g, 0x11000 + (i + 16) * 4, (0x200000 + i * 0x1000) | KERNEL | PTE_D);
	}
	paging_on(g, 0x10000, 0);
	v = 1;
	for (uint32_t i = 0; i < 32; i++)
		if (i % 16 < 4)
			assert_int_equal(
				access_window(g, mem_window_super(g->m), 0xc0000000 + i * 0x1000, true, &v),
				DONE);
	mem_trace_add(g->m, 0x201000, TRACE_CODE);
	mem_trace_add(g->m, 0x203000, TRACE_CODE);
	memset(data, 0x5a, sizeof data);
	mem_phys_write(g->m, 0x200801, data, sizeof data);
	assert_int_equal(w.n, 2);
	assert_int_equal(w.gpa[0], 0x201000);
	assert_int_equal(w.len[0], PAGE_SIZE);
	assert_int_equal(w.gpa[1], 0x203000);
	assert_int_equal(w.len[1], 0x801);
	/* the CPU sees it at both addresses, and still may not write there unnoticed */
	for (uint32_t lin = 0xc0001000; lin <= 0xc0011000; lin += 0x10000) {
		assert_int_equal(access_window(g, mem_window_super(g->m), lin, false, &v), DONE);
		assert_int_equal(v, 0x5a5a5a5a);
		v = lin;
		assert_int_equal(access_window(g, mem_window_super(g->m), lin + 8, true, &v),
				 EMULATED_TRACED);
	}
	assert_int_equal(w.n, 4);
	assert_coherent(g);
	/* the same data again is no change */
	mem_phys_read(g->m, 0x203000, data, 0x100);
	mem_phys_write(g->m, 0x203000, data, 0x100);
	assert_int_equal(w.n, 4);
	guest_free(g);
}

/* CR0.WP: the kernel may write its own read-only pages while it is clear, and user pages by emulation. */
static void test_write_protect(void **state)
{
	struct guest *g = guest_new(8u << 20);
	uint32_t v = 5;

	(void)state;
	put32(g, 0x10000, 0x11000 | USER);
	put32(g, 0x11004, 0x200000 | PTE_P);
	put32(g, 0x11008, 0x201000 | PTE_P | PTE_US);
	paging_on(g, 0x10000, 0);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, true, &v), GUEST_FAULT);
	g->c.cr0 &= ~CR0_WP;
	mem_mode_changed(&g->c);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, true, &v), DONE);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x2000, true, &v), EMULATE);
	assert_int_equal(mem_write32(&g->c, 0x2000, 9, 0), 0);
	g->c.cr0 |= CR0_WP;
	mem_mode_changed(&g->c);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, true, &v), GUEST_FAULT);
	assert_int_equal(access_window(g, mem_window_super(g->m), 0x1000, false, &v), DONE);
	assert_coherent(g);
	guest_free(g);
}

static bool present(struct guest *g, uint32_t lin, bool write)
{
	return mem_view(g->m)->present[(lin >> PAGE_SHIFT) + (write ? MEM_PRESENT_WRITE : 0)];
}

/* Accesses that other means have made, until the page is mapped. Returns how many. */
static unsigned misses(struct guest *g, uint32_t lin, bool write)
{
	uint32_t v = 1;
	unsigned n = 0;
	enum mem_fault r;

	do {
		assert_int_equal(write ? mem_write32(&g->c, lin, v, ACC_USER)
				       : mem_read32(&g->c, lin, &v, ACC_USER),
				 0);
		r = mem_window_missed(&g->c, lin, write);
		assert_true(++n < 1000);
	} while (r == MEM_FAULT_EMULATE);
	assert_int_equal(r, MEM_FAULT_MAPPED);
	assert_true(present(g, lin, write));
	assert_int_equal(access_window(g, mem_window_user(g->m), lin, write, &v), DONE);
	assert_int_equal(last_faults, 0);
	return n;
}

/* What the guest changes shows in mem_view.present; a page that it often protects is mapped later each time.
 */
static void test_missed(void **state)
{
	struct guest *g = guest_new(8u << 20);
	unsigned first, again;
	uint32_t v = 0;

	(void)state;
	put32(g, 0x10000, 0x11000 | USER);
	put32(g, 0x11004, 0x200000 | USER);
	put32(g, 0x11008, 0x300000 | KERNEL);
	paging_on(g, 0x10000, 0);
	g->c.cpl = 3;
	assert_int_equal(mem_window_missed(&g->c, 0x5000, false), MEM_FAULT_GUEST);
	assert_int_equal(mem_window_missed(&g->c, 0x2000, false), MEM_FAULT_SUPER);
	assert_false(present(g, 0x1000, false));
	assert_true(misses(g, 0x1000, false) > 1);
	assert_false(present(g, 0x1000, true)); /* D is not set */
	assert_int_equal(get32(g, 0x11004) & 0x60, PTE_A);
	first = misses(g, 0x1000, true);
	assert_int_equal(get32(g, 0x11004) & 0x60, PTE_A | PTE_D);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x1000, true, &v), DONE);
	assert_int_equal(last_faults, 0);
	/* read-only, and back again, as fork and mprotect do */
	put32(g, 0x11004, 0x200000 | (USER & ~PTE_RW) | PTE_A | PTE_D);
	mem_flush_page(&g->c, 0x1000);
	assert_true(present(g, 0x1000, false) && !present(g, 0x1000, true));
	assert_int_equal(mem_window_missed(&g->c, 0x1000, true), MEM_FAULT_GUEST);
	put32(g, 0x11004, 0x200000 | USER | PTE_A | PTE_D);
	again = misses(g, 0x1000, true);
	assert_true(again > first);
	/* another frame */
	put32(g, 0x11004, 0x201000 | USER);
	mem_flush_page(&g->c, 0x1000);
	assert_false(present(g, 0x1000, false) || present(g, 0x1000, true));
	v = 77;
	assert_int_equal(mem_write32(&g->c, 0x1000, v, ACC_USER), 0);
	misses(g, 0x1000, false);
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x1000, false, &v), DONE);
	assert_int_equal(v, 77);
	/* a trace: no more writing, as far as anybody is told */
	misses(g, 0x1000, true);
	mem_trace_add(g->m, 0x201000, TRACE_CODE);
	assert_false(present(g, 0x1000, true));
	assert_int_equal(mem_window_missed(&g->c, 0x1000, true), MEM_FAULT_TRACED);
	mem_trace_remove(g->m, 0x201000, TRACE_CODE);
	/* the directory entry, and with it everything */
	put32(g, 0x10000, 0);
	mem_load_cr3(&g->c);
	assert_false(present(g, 0x1000, false) || present(g, 0x1000, true));
	assert_int_equal(mem_window_missed(&g->c, 0x1000, false), MEM_FAULT_GUEST);
	assert_coherent(g);
	guest_free(g);
}

/* A space with a page at the beginning of a 2 MiB region, one behind it, and one far away. */
static void make_space(struct guest *g, uint32_t directory, uint32_t frame)
{
	put32(g, directory, (directory + 0x1000) | USER);
	put32(g, directory + 0x2fe * 4, (directory + 0x2000) | USER);
	put32(g, directory + 0x1000 + 0x200 * 4, frame | USER);
	put32(g, directory + 0x1000 + 0x201 * 4, (frame + 0x1000) | USER);
	put32(g, directory + 0x2000 + 0x3ff * 4, (frame + 0x2000) | USER);
	for (uint32_t i = 0; i < 3; i++)
		put32(g, frame + i * 0x1000, frame + i);
}

static void assert_space(struct guest *g, uint32_t frame, bool first_page)
{
	static const uint32_t at[] = {0x200000, 0x201000, 0xbfbff000};
	struct window *w = mem_window_user(g->m);
	uint32_t v;

	for (uint32_t i = first_page ? 0 : 1; i < 3; i++) {
		assert_false(touch(mem_window_base(w) + at[i], false, &v));
		v = 0;
		assert_int_equal(access_window(g, w, at[i], false, &v), DONE);
		assert_int_equal(v, frame + i);
	}
}

/* What a space had does not show in the next one that gets its window, whatever of the host's is kept. */
static void test_recycled(void **state)
{
	struct guest *g = guest_new(16u << 20);
	uint8_t junk[64];
	uintptr_t base = 0;
	uint32_t v;

	(void)state;
	memset(junk, 0x5a, sizeof junk);
	make_space(g, 0x100000, 0x200000);
	paging_on(g, 0x100000, 0);
	g->c.cpl = 3;
	for (uint32_t i = 1; i < 12; i++) {
		const uint32_t directory = 0x100000 + i * 0x4000, frame = 0x200000 + i * 0x4000;
		const bool first_page = i % 3;

		make_space(g, directory, frame);
		if (!first_page)
			put32(g, directory + 0x1000 + 0x200 * 4, 0);
		g->c.cr3 = directory;
		mem_load_cr3(&g->c);
		if (i > 1)
			assert_int_equal(mem_window_base(mem_window_user(g->m)), base);
		base = mem_window_base(mem_window_user(g->m));
		assert_space(g, frame, first_page);
		assert_int_equal(access_window(g, mem_window_user(g->m), 0x202000, false, &v), GUEST_FAULT);
		if (!first_page)
			assert_int_equal(access_window(g, mem_window_user(g->m), 0x200000, false, &v),
					 GUEST_FAULT);
		if (i % 4 == 0) { /* an unmapping that goes beyond */
			put32(g, directory, 0);
			mem_load_cr3(&g->c);
			assert_false(touch(base + 0x201000, false, &v));
		}
		assert_coherent(g);
		g->c.cr3 = 0x100000;
		mem_load_cr3(&g->c);
		mem_phys_write(g->m, directory + 0x100, junk, sizeof junk); /* no directory any more */
	}
	guest_free(g);
}

/* Another space begins with the last one's idea of where user pages are, and with none of its own. */
static void test_missed_elsewhere(void **state)
{
	struct guest *g = guest_new(8u << 20);
	const struct mem_view *view = mem_view(g->m);
	uint32_t v = 0;

	(void)state;
	for (uint32_t s = 0; s < 2; s++) {
		put32(g, 0x10000 + s * 0x1000, (0x12000 + s * 0x1000) | USER);
		put32(g, 0x12004 + s * 0x1000, (0x200000 + s * 0x1000) | USER);
	}
	paging_on(g, 0x10000, 0);
	g->c.cpl = 3;
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x1000, true, &v), DONE);
	assert_ptr_equal(view->slot_presents[0], view->present);
	assert_true(view->slot_presents[1][0x400] && view->slot_presents[1][0x7ff]);
	g->c.cr3 = 0x11000;
	mem_load_cr3(&g->c);
	assert_ptr_equal(view->slot_presents[0], view->present);
	assert_int_equal(view->slot_bases[0], view->user_base);
	assert_int_equal(view->slot_bases[1], view->super_base);
	assert_false(present(g, 0x1000, false));
	misses(g, 0x1000, true);
	v = 5;
	assert_int_equal(access_window(g, mem_window_user(g->m), 0x1000, true, &v), DONE);
	assert_int_equal(get32(g, 0x201000), 5);
	assert_coherent(g);
	guest_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_device_writes_code),
		cmocka_unit_test(test_physical),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_coalescing),
		cmocka_unit_test(test_eager),
		cmocka_unit_test(test_accessed_dirty),
		cmocka_unit_test(test_code_unmapped),
		cmocka_unit_test(test_many_spaces),
		cmocka_unit_test(test_private_kernels),
		cmocka_unit_test(test_patching_directory),
		cmocka_unit_test(test_stale_super),
		cmocka_unit_test(test_freed_tables),
		cmocka_unit_test(test_unwatched),
		cmocka_unit_test(test_unwatched_long),
		cmocka_unit_test(test_unwatched_many),
		cmocka_unit_test(test_unwatched_code),
		cmocka_unit_test(test_code_groups),
		cmocka_unit_test(test_entries_in_a_row),
		cmocka_unit_test(test_write_protect),
		cmocka_unit_test(test_missed),
		cmocka_unit_test(test_recycled),
		cmocka_unit_test(test_missed_elsewhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
