/* test_windows_stress.c - windows under a guest that does anything, every access checked against a model.
 *
 * The guest: a pool of pages that serve as page directories and page tables of several address spaces, linked
 * and unlinked at random (shared tables, self-maps, directories used as tables, large pages over the tables
 * themselves), edited with stores of all sizes, flushed with INVLPG, CR3 loads and mode changes, freed and
 * overwritten as data; large pages split and restored; code noted and traced all over; the host refusing
 * mappings now and then.
 *
 * The model: a page walk written independently of mem/walk.c over a copy of the pool. It knows every store
 * since the last flush. A stale translation is right if the tables gave it at some time since then (any
 * directory entry with any table entry, as paging-structure caches allow), and wrong otherwise. Faults are
 * never stale, because the VMM walks the tables as they are. With no store since the last flush, A and D bits
 * must be exactly those that the accesses so far have set, but that directory entries may be marked accessed
 * early.
 *
 * MEM_STRESS_STEPS and MEM_STRESS_SEED in the environment make it longer or different.
 */
#include "windows_harness.h"

#include <inttypes.h>
#include <sys/mman.h>

#define RAM	   (16u << 20)
#define POOL_START 0x300u /* frames that serve as tables */
#define POOL_PAGES 24u
#define N_SPACES   6u
#define DATA_START 0x400u
#define DATA_PAGES 96u
#define HISTORY	   24u

static struct {
	struct guest *g;
	struct vcpu *c;
	struct mem *m;
	uint64_t seed, rng;
	uint32_t unique, last_lin;
	uint64_t step;

	uint8_t pool[POOL_PAGES][PAGE_SIZE]; /* the model's copy */
	uint32_t dirs[N_SPACES][4];	     /* frames; [0] only without PAE */
	unsigned space;

	/* stores to the pool since the last flush: aligned 32-bit words */
	struct {
		uint32_t gpa, old;
	} history[HISTORY];
	unsigned n_history;

	/* code noted: [window id][linear page] -> gfn + 1 */
	uint32_t *noted;
	uint8_t code_traced[RAM >> PAGE_SHIFT];
	uint64_t code_written_gpa;
	unsigned code_written_len;

	uint64_t outcomes[6], stale, checked, mmio_calls;
} t;

/* ------------------------------------------------------------------ small things */

static uint64_t rnd(void)
{
	t.rng ^= t.rng << 13;
	t.rng ^= t.rng >> 7;
	t.rng ^= t.rng << 17;
	return t.rng * 0x2545f4914f6cdd1dull >> 11;
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)(rnd() % n);
}

static bool one_in(uint32_t n)
{
	return below(n) == 0;
}

#define CHECK(cond, ...)                                                                                     \
	do {                                                                                                 \
		if (!(cond)) {                                                                               \
			fprintf(stderr, "seed %" PRIu64 " step %" PRIu64 ": ", t.seed, t.step);              \
			fprintf(stderr, __VA_ARGS__);                                                        \
			fputc('\n', stderr);                                                                 \
			fail();                                                                              \
		}                                                                                            \
	} while (0)

static bool pae(void)
{
	return t.c->cr4 & CR4_PAE;
}

static bool in_pool(uint64_t gpa)
{
	return gpa >> PAGE_SHIFT >= POOL_START && gpa >> PAGE_SHIFT < POOL_START + POOL_PAGES;
}

static bool is_ram(uint64_t gpa)
{
	return gpa < RAM && !(gpa >= 0xa0000 && gpa < 0xc0000);
}

static uint8_t *model(uint64_t gpa)
{
	return &t.pool[(gpa >> PAGE_SHIFT) - POOL_START][gpa & 0xfff];
}

/* ------------------------------------------------------------------ the model's memory and its history */

static uint32_t word_now(uint64_t gpa)
{
	uint32_t v = 0xffffffff;

	if (in_pool(gpa))
		memcpy(&v, model(gpa), 4);
	else if (is_ram(gpa))
		memcpy(&v, mem_ptr(t.m, gpa, 4), 4);
	return v;
}

/* As it was before store number `version` since the flush; n_history: now. */
static uint32_t word_then(uint64_t gpa, unsigned version)
{
	for (unsigned i = version; i < t.n_history; i++)
		if (t.history[i].gpa == gpa)
			return t.history[i].old;
	return word_now(gpa);
}

static uint64_t entry_then(uint64_t gpa, unsigned version)
{
	return word_then(gpa, version) | (pae() ? (uint64_t)word_then(gpa + 4, version) << 32 : 0);
}

static void flushed(void)
{
	t.n_history = 0;
}

/* [gpa, gpa + len) is about to be stored to, by whatever way. */
static void note_store(uint64_t gpa, const void *buf, unsigned len)
{
	uint32_t last = 0;

	for (unsigned i = 0; i < len; i++) {
		uint32_t word = (uint32_t)(gpa + i) & ~3u;

		if (!in_pool(gpa + i))
			continue;
		if (!last || last != word) {
			assert_true(t.n_history < HISTORY);
			t.history[t.n_history].gpa = last = word;
			t.history[t.n_history++].old = word_now(word);
		}
		*model(gpa + i) = ((const uint8_t *)buf)[i];
	}
}

static void sync_model(void)
{
	memcpy(t.pool, mem_ptr(t.m, POOL_START << PAGE_SHIFT, sizeof t.pool), sizeof t.pool);
}

/* ------------------------------------------------------------------ the model's walk */

struct xlat {
	bool fault;
	uint32_t error;
	uint64_t gpa;
	bool user, write, nx;
	bool table; /* the walk went on to a page table */
	uint64_t pde_gpa, pte_gpa;
};

static struct xlat ref_walk(uint32_t lin, bool write, bool exec, bool user, unsigned pde_version,
			    unsigned pte_version)
{
	struct xlat x = {0};
	const uint32_t codes =
		(write ? 2 : 0) | (user ? 4 : 0) | (exec && pae() && (t.c->efer & EFER_NXE) ? 16 : 0);
	uint64_t pde, pte, reserved = 0;
	bool rw;

	if (pae()) {
		uint64_t pdpte = t.c->pdpte[lin >> 30];

		reserved = 0x7ffffff000000000ull | (t.c->efer & EFER_NXE ? 0 : 1ull << 63);
		if (!(pdpte & 1)) {
			x.fault = true;
			x.error = codes;
			return x;
		}
		x.pde_gpa = (pdpte & 0xffffff000ull) + (lin >> 21 & 511) * 8;
	} else {
		x.pde_gpa = (t.c->cr3 & 0xfffff000) + (lin >> 22) * 4;
	}
	pde = entry_then(x.pde_gpa, pde_version);
	if (!(pde & 1)) {
		x.fault = true;
		x.error = codes;
		return x;
	}
	if (pde & reserved) {
		x.fault = true;
		x.error = codes | 9;
		return x;
	}
	if ((pde & 0x80) && (pae() || (t.c->cr4 & CR4_PSE))) {
		/* bits 20-13 in a 2 MiB entry; 21-17 in a 4 MiB one with 36 address bits */
		if (pde & (pae() ? 0x1fe000 : 0x3e0000)) {
			x.fault = true;
			x.error = codes | 9;
			return x;
		}
		x.gpa = pae() ? (pde & 0xfffe00000ull) | (lin & 0x1fffff)
			      : (pde & 0xffc00000) | (pde >> 13 & 15) << 32 | (lin & 0x3fffff);
		pte = pde;
	} else {
		x.table = true;
		x.pte_gpa = pae() ? (pde & 0xffffff000ull) + (lin >> 12 & 511) * 8
				  : (pde & 0xfffff000) + (lin >> 12 & 1023) * 4;
		pte = entry_then(x.pte_gpa, pte_version);
		if (!(pte & 1)) {
			x.fault = true;
			x.error = codes;
			return x;
		}
		if (pte & reserved) {
			x.fault = true;
			x.error = codes | 9;
			return x;
		}
		x.gpa = (pte & (pae() ? 0xffffff000ull : 0xfffff000)) | (lin & 0xfff);
	}
	x.user = pde & pte & 4;
	rw = pde & pte & 2;
	x.nx = pae() && ((pde | pte) >> 63);
	x.write = rw || (!user && !(t.c->cr0 & CR0_WP));
	if ((user && !x.user) || (write && !x.write) || (exec && x.nx)) {
		x.fault = true;
		x.error = codes | 1;
	}
	return x;
}

static struct xlat ref_now(uint32_t lin, bool write, bool exec, bool user)
{
	return ref_walk(lin, write, exec, user, t.n_history, t.n_history);
}

/* Marks in the model what an allowed access marks in the tables, or what a faulting one does. */
static void ref_accessed(const struct xlat *x, bool write)
{
	uint64_t last = x->table ? x->pte_gpa : x->pde_gpa;

	if (x->table && in_pool(x->pde_gpa))
		*model(x->pde_gpa) |= 0x20;
	if (!x->fault && in_pool(last))
		*model(last) |= write ? 0x60 : 0x20;
}

/* After an access: the tables must be what the model says they are. With stores outstanding, A and D may
 * or may not have been set; directory entries may be marked accessed early. */
static void check_tables(bool exact)
{
	const uint32_t *now = (const void *)mem_ptr(t.m, POOL_START << PAGE_SHIFT, sizeof t.pool);
	uint32_t *want = (uint32_t *)(void *)t.pool;

	if (memcmp(now, want, sizeof t.pool) == 0)
		return;
	for (unsigned i = 0; i < sizeof t.pool / 4; i++) {
		uint32_t diff = now[i] ^ want[i];
		bool dir = false;

		if (!diff)
			continue;
		for (unsigned s = 0; s < N_SPACES; s++)
			for (unsigned q = 0; q < 4; q++)
				dir |= t.dirs[s][q] == POOL_START + i / 1024;
		CHECK((diff & ~0x60u) == 0 && (!exact || (dir && diff == 0x20 && (now[i] & 0x20))),
		      "table word %08x is %08x, expected %08x", (POOL_START << PAGE_SHIFT) + i * 4, now[i],
		      want[i]);
		want[i] = now[i];
	}
}

/* ------------------------------------------------------------------ callbacks */

static void on_code_written(void *opaque, uint64_t gpa, unsigned len)
{
	(void)opaque;
	CHECK(t.code_traced[gpa >> PAGE_SHIFT], "code_written for %" PRIx64 ", which has no trace", gpa);
	t.code_written_gpa = gpa;
	t.code_written_len = len;
}

static void on_code_unmapped(void *opaque, struct window *w, uint32_t lin, uint32_t pages)
{
	(void)opaque;
	for (uint32_t i = 0; i < pages; i++)
		t.noted[(size_t)w->id << 20 | ((lin >> PAGE_SHIFT) + i)] = 0;
}

static unsigned noted_list_n;
static uint32_t noted_list[4096]; /* where notes were made, to look at them again */

static void on_window_gone(void *opaque, struct window *w)
{
	(void)opaque;
	for (unsigned i = 0; i < noted_list_n; i++)
		if (noted_list[i] >> 20 == w->id)
			t.noted[noted_list[i]] = 0;
}

static uint64_t on_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	(void)opaque;
	t.mmio_calls++;
	CHECK(!is_ram(gpa) && size <= 4 && gpa % size == 0, "MMIO read at %" PRIx64, gpa);
	return 0xffffffff;
}

static void on_mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
	(void)opaque;
	(void)value;
	t.mmio_calls++;
	CHECK(!is_ram(gpa) && size <= 4 && gpa % size == 0, "MMIO write at %" PRIx64, gpa);
}

static const struct mem_ops ops = {.mmio_read = on_mmio_read,
				   .mmio_write = on_mmio_write,
				   .code_written = on_code_written,
				   .code_unmapped = on_code_unmapped,
				   .window_gone = on_window_gone};

/* ------------------------------------------------------------------ choices */

static const uint32_t slots[] = {0, 1, 2, 0x80, 0x200, 0x201, 0x300, 0x3ff};
#define N_SLOTS (sizeof slots / sizeof slots[0])

/* Few enough places that things meet; those that a self-map of the directory shows are among them. */
static uint32_t pick_page(void)
{
	uint32_t slot = slots[below(N_SLOTS)];
	uint32_t index = one_in(2) ? below(12) : one_in(2) ? 1020 + below(4) : 0x300 + below(2);

	return slot << 10 | index;
}

static uint32_t pick_entry_offset(void)
{
	uint32_t page = pick_page();

	if (pae())
		return (one_in(2) ? page & 511 : page >> 9 & 511) * 8;
	return (one_in(2) ? page & 1023 : page >> 10) * 4;
}

static uint32_t pick_table(void)
{
	return POOL_START + below(POOL_PAGES);
}

static uint64_t pick_flags(void)
{
	uint64_t f = PTE_P | PTE_RW | PTE_A;

	f |= one_in(2) ? PTE_US : 0;
	f |= one_in(2) ? PTE_D : 0;
	if (one_in(5))
		f &= ~(uint64_t)PTE_RW;
	if (one_in(6))
		f &= ~(uint64_t)PTE_A;
	if (one_in(8))
		f &= ~(uint64_t)PTE_P;
	if (one_in(6))
		f |= PTE_G;
	if (pae() && one_in(8))
		f |= PTE_NX;
	if (pae() && one_in(40))
		f |= 1ull << 40;
	return f;
}

/* An entry that makes sense at the offset in some table: link to a table, a page of data, a large page. */
static uint64_t pick_entry(uint32_t offset)
{
	uint64_t f = pick_flags();

	if (one_in(6))
		return 0;
	if (one_in(3))
		return f | (uint64_t)pick_table() << PAGE_SHIFT;
	if (one_in(6))
		return f | PTE_PS | (uint64_t)below(5) << (pae() ? 21 : 22);
	if (one_in(20))
		return f | 0xa0000 | below(0x20) << PAGE_SHIFT;
	if (one_in(30))
		return f | 0xfee00000;
	/* in a straight line, so that neighbours may be mapped together */
	if (one_in(2))
		return f | (uint64_t)(DATA_START + (offset / 8 % 64)) << PAGE_SHIFT;
	return f | (uint64_t)(DATA_START + below(DATA_PAGES)) << PAGE_SHIFT;
}

/* ------------------------------------------------------------------ what the guest does */

static void load_space(unsigned s)
{
	t.space = s;
	if (pae()) {
		for (unsigned q = 0; q < 4; q++)
			t.c->pdpte[q] = t.dirs[s][q] ? (uint64_t)t.dirs[s][q] << PAGE_SHIFT | 1 : 0;
		t.c->cr3 = 0x2000 + s * 32;
	} else {
		t.c->cr3 = t.dirs[s][0] << PAGE_SHIFT;
	}
	mem_load_cr3(t.c);
	flushed();
	check_tables(true);
}

static void check_code_written(uint64_t gpa, unsigned len)
{
	if (!is_ram(gpa) || !t.code_traced[gpa >> PAGE_SHIFT])
		return;
	CHECK(t.code_written_gpa == gpa && t.code_written_len == len,
	      "code_written was not called for %" PRIx64, gpa);
}

/* Stores that change nothing need not be told of. */
static bool would_change(uint64_t gpa, const void *buf, unsigned len)
{
	const uint8_t *p = mem_ptr(t.m, gpa, len);

	return p && memcmp(p, buf, len);
}

/* A store by the model guest or a device, to the tables. */
static void do_store(uint64_t gpa, const void *buf, unsigned len)
{
	if (t.n_history + len / 4 + 2 > HISTORY) {
		if (len / 4 + 2 > HISTORY || one_in(2))
			load_space(t.space);
		else
			mem_sync(t.c), tlb_flush(t.m); /* mem_sync is about windows only */
		flushed();
	}
	t.code_written_gpa = ~0ull;
	const bool changes = would_change(gpa, buf, len);
	note_store(gpa, buf, len);
	mem_phys_write(t.m, gpa, buf, len);
	if (changes)
		check_code_written(gpa, len);
}

static void do_edit(void)
{
	uint32_t offset = pick_entry_offset();
	uint64_t gpa = ((uint64_t)pick_table() << PAGE_SHIFT) + offset, v = pick_entry(offset);
	unsigned run = one_in(4) ? 2 + below(5) : 1;

	if (one_in(2)) /* more of them into the current tables */
		gpa = ((uint64_t)t.dirs[t.space][pae() ? below(4) : 0] << PAGE_SHIFT) + offset;
	if (!in_pool(gpa))
		return;
	for (unsigned i = 0; i < run && in_pool(gpa); i++) {
		if (!pae()) {
			uint32_t v32 = (uint32_t)v;

			do_store(gpa, &v32, 4);
			gpa += 4;
		} else if (one_in(2)) {
			do_store(gpa, &v, 8);
			gpa += 8;
		} else { /* high half, then low */
			do_store(gpa + 4, (const uint8_t *)&v + 4, 4);
			do_store(gpa, &v, 4);
			gpa += 8;
		}
		v += (v & PTE_PS) ? 0 : PAGE_SIZE;
	}
}

/* Changes bits of an entry that is there: rights, A, D, presence; often by a store of one byte. */
static void do_twiddle(void)
{
	static const uint8_t bits[] = {PTE_P, PTE_RW, PTE_US, PTE_A, PTE_D};
	uint64_t gpa = ((uint64_t)pick_table() << PAGE_SHIFT) + pick_entry_offset();
	uint32_t v = word_now(gpa) ^ bits[below(sizeof bits)];

	if (pae() && one_in(5)) {
		v = word_now(gpa + 4) ^ 1u << 31; /* NX */
		do_store(gpa + 4, &v, 4);
		return;
	}
	do_store(gpa, &v, one_in(2) ? 1 : one_in(2) ? 2 : 4);
}

static void overwrite_page(uint64_t page, const uint8_t *whole)
{
	/* more than the history holds: exact only if flushed at once */
	t.code_written_gpa = ~0ull;
	const bool changes = would_change(page, whole, PAGE_SIZE);
	memcpy(model(page), whole, PAGE_SIZE);
	mem_phys_write(t.m, page, whole, PAGE_SIZE);
	if (changes)
		check_code_written(page, PAGE_SIZE);
	load_space(t.space);
}

/* A table is freed and used as data, or for other entries, wholesale or in odd pieces. */
static void do_reuse(void)
{
	uint64_t page = (uint64_t)pick_table() << PAGE_SHIFT;
	uint8_t buf[64];

	for (unsigned i = 0; i < sizeof buf; i++)
		buf[i] = (uint8_t)(one_in(3) ? rnd() : 0);
	if (one_in(4)) {
		static uint8_t whole[PAGE_SIZE];

		memcpy(whole, t.pool[below(POOL_PAGES)], PAGE_SIZE);
		if (one_in(2))
			memset(whole, 0, PAGE_SIZE);
		overwrite_page(page, whole);
		return;
	}
	do_store(page + (pick_entry_offset() & 0xfc0) + below(8), buf, 1 + below(56));
}

static uint32_t pick_lin(void);

/* A table that maps what the large page does, but for some pages and rights. */
static void fill_split(uint64_t table, uint64_t large)
{
	const unsigned size = pae() ? 8 : 4, n = PAGE_SIZE / size;
	const unsigned odd = one_in(3) ? 1 + below(200) : 200;
	static uint8_t whole[PAGE_SIZE];

	for (unsigned i = 0; i < n; i++) {
		uint64_t pte = (large & (pae() ? ~0x1fffffull : 0xffc00000)) + i * PAGE_SIZE;

		pte |= one_in(odd) ? pick_flags() : large & (PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D);
		if (one_in(odd))
			pte ^= (uint64_t)(1 + below(3)) << PAGE_SHIFT;
		memcpy(whole + i * size, &pte, size);
	}
	overwrite_page(table, whole);
}

/* A large page of the current space is split, gets other rights, or comes back. */
static void do_split(void)
{
	const uint32_t lin = pick_lin();
	const struct xlat x = ref_now(lin, false, false, false);
	const uint64_t table = (uint64_t)pick_table() << PAGE_SHIFT;
	uint64_t pde;

	if (x.fault || !in_pool(x.pde_gpa))
		return;
	pde = entry_then(x.pde_gpa, t.n_history);
	if (x.table) {
		pde = (x.gpa & (pae() ? ~0x1fffffull : ~0x3fffffull)) | pick_flags() | PTE_PS;
	} else if (one_in(2)) {
		pde ^= one_in(2) ? PTE_RW : one_in(2) ? PTE_D : one_in(2) ? PTE_US : PTE_A;
	} else {
		fill_split(table, pde);
		if (pde != entry_then(x.pde_gpa, t.n_history))
			return; /* that was the directory */
		pde = table | (one_in(3) ? pick_flags() : PTE_P | PTE_RW | PTE_US | PTE_A);
	}
	do_store(x.pde_gpa, &pde, pae() ? 8 : 4);
}

static void do_link(void)
{
	/* the current space's directory gets a table that has something in it, or itself */
	uint32_t page = pick_page();
	uint64_t v = (PTE_P | PTE_RW | (one_in(2) ? PTE_US : 0) | PTE_A), gpa;
	uint32_t dir = pae() ? t.dirs[t.space][page >> 18] : t.dirs[t.space][0];

	if (!dir)
		return;
	v |= (uint64_t)(one_in(5) ? dir : pick_table()) << PAGE_SHIFT;
	gpa = ((uint64_t)dir << PAGE_SHIFT) + (pae() ? (page >> 9 & 511) * 8 : (page >> 10) * 4);
	do_store(gpa, &v, pae() ? 8 : 4);
}

static void do_mode(void)
{
	t.c->cr0 |= CR0_PG;
	switch (below(6)) {
	case 0:
		t.c->cr4 ^= CR4_PAE;
		break;
	case 1:
		t.c->cr4 ^= CR4_PSE;
		break;
	case 2:
		t.c->efer ^= EFER_NXE;
		break;
	case 3:
		t.c->cr4 ^= CR4_PGE;
		break;
	default:
		t.c->cr0 ^= CR0_WP;
		break;
	}
	if (pae())
		for (unsigned q = 0; q < 4; q++)
			t.c->pdpte[q] =
				t.dirs[t.space][q] ? (uint64_t)t.dirs[t.space][q] << PAGE_SHIFT | 1 : 0;
	t.c->cr3 = pae() ? 0x2000 + t.space * 32 : t.dirs[t.space][0] << PAGE_SHIFT;
	mem_mode_changed(t.c);
	flushed();
	check_tables(true);
}

static void do_trace(void);
static uint32_t ram_word(uint64_t gpa);
static uint32_t unique_value(void);

static void do_paging_off(void)
{
	t.c->cr0 &= ~CR0_PG;
	t.c->a20_mask = one_in(3) ? ~(1u << 20) : ~0u;
	mem_mode_changed(t.c);
	flushed();
	for (unsigned i = 0; i < 20; i++) {
		const uint32_t gfn = DATA_START + below(DATA_PAGES);
		const uint32_t lin =
			one_in(3) ? below(RAM) & ~3u : (gfn << PAGE_SHIFT) + (below(PAGE_SIZE) & ~3u);
		const uint64_t gpa = lin & t.c->a20_mask;
		const bool write = one_in(2) && !in_pool(gpa);
		uint32_t v = write ? unique_value() : 0;
		enum outcome r = access_window(t.g, mem_window_user(t.m), lin, write, &v);

		if (r == MMIO || r == EMULATE) {
			CHECK(r == EMULATE || !is_ram(gpa), "physical window: %08x taken for MMIO", lin);
		} else {
			CHECK(is_ram(gpa) && v == ram_word(gpa),
			      "physical window shows the wrong page at %08x", lin);
			CHECK(!write || (r == DONE) == !mem_traced(t.m, gpa),
			      "physical window: trace ignored");
		}
		if (one_in(2))
			do_trace();
	}
	CHECK(mem_check(t.m, stderr, true) == 0, "incoherent");
	t.c->a20_mask = ~0u;
	t.c->cr0 |= CR0_PG;
	mem_mode_changed(t.c);
	flushed();
	check_tables(true);
}

/* Linear pages that translate are few; find one. */
static uint32_t pick_lin(void)
{
	uint32_t lin = 0;
	struct xlat x;

	for (unsigned i = 0; i < 16; i++) {
		lin = pick_page() << PAGE_SHIFT | (below(PAGE_SIZE) & ~3u);
		x = ref_now(lin, false, false, false);
		if ((!x.fault && (is_ram(x.gpa) || one_in(8))) || one_in(40))
			break;
	}
	return lin;
}

static void check_fault(uint32_t lin, const struct xlat *x)
{
	const struct exception *e = &t.c->exc;

	CHECK(x->fault, "%08x: fault %x where the model sees none (gpa %" PRIx64 ")", lin, e->error, x->gpa);
	CHECK(e->pending && e->vector == VEC_PF && e->cr2 == lin && e->error == x->error,
	      "%08x: error code %x, CR2 %08x, expected %x", lin, e->error, e->cr2, x->error);
	t.c->exc.pending = false;
}

static uint32_t ram_word(uint64_t gpa)
{
	uint32_t v;

	memcpy(&v, mem_ptr(t.m, gpa, 4), 4);
	return v;
}

/* Some legal translation must lead to a place that reads v. */
static void check_read(uint32_t lin, bool user, uint32_t v)
{
	const struct xlat now = ref_now(lin, false, false, user);

	if (!now.fault && is_ram(now.gpa) && v == ram_word(now.gpa))
		return;
	for (unsigned i = 0; i <= t.n_history; i++) {
		for (unsigned j = 0; j <= t.n_history; j++) {
			struct xlat x = ref_walk(lin, false, false, user, i, j);

			if (!x.fault && is_ram(x.gpa) && v == ram_word(x.gpa)) {
				t.stale++;
				return;
			}
		}
	}
	CHECK(false, "%08x: read %08x, which is not what any legal translation shows", lin, v);
}

/* A value that nothing else has. */
static uint32_t unique_value(void)
{
	return t.unique += 0x10b;
}

/* Some legal translation must lead to where v, which nothing else has, was stored. Returns the place. */
static uint64_t check_written(uint32_t lin, bool user, uint32_t v)
{
	for (unsigned i = t.n_history + 1; i-- > 0;) {
		for (unsigned j = t.n_history + 1; j-- > 0;) {
			struct xlat x = ref_walk(lin, true, false, user, i, j);

			if (x.fault || !is_ram(x.gpa) || ram_word(x.gpa) != v)
				continue;
			t.stale += i != t.n_history || j != t.n_history;
			note_store(x.gpa, &v, 4);
			return x.gpa;
		}
	}
	CHECK(false, "%08x: %08x was stored where no legal translation leads", lin, v);
	return 0;
}

static void do_access(void)
{
	const uint32_t lin = pick_lin();
	const bool write = one_in(3), user = one_in(2), exact = t.n_history == 0;
	struct window *w = user ? mem_window_user(t.m) : mem_window_super(t.m);
	struct xlat x = ref_now(lin, write, false, user);
	uint32_t v = write ? unique_value() : 0;
	enum outcome r;
	uint64_t gpa;
	unsigned fail_n;

	if (write && t.n_history + 2 > HISTORY) {
		load_space(t.space);
		x = ref_now(lin, write, false, user);
	}
	fail_n = t.m->fail_n;
	t.c->cpl = user ? 3 : 0;
	w = user ? mem_window_user(t.m) : mem_window_super(t.m);
	t.code_written_gpa = ~0ull;
	r = access_window(t.g, w, lin, write, &v);
	if (r == OTHER_WINDOW) {
		CHECK(!user && x.user, "%08x: sent to the other window", lin);
		w = mem_window_user(t.m);
		r = access_window(t.g, w, lin, write, &v);
		CHECK(r != OTHER_WINDOW, "%08x: sent back and forth", lin);
	}
	t.outcomes[r]++;
	t.checked++;
	if (exact)
		ref_accessed(&x, write); /* before the store itself, which may be to these very entries */
	switch (r) {
	case GUEST_FAULT:
		check_fault(lin, &x);
		break;
	case MMIO:
		CHECK(!x.fault && !is_ram(x.gpa), "%08x: taken for MMIO", lin);
		break;
	case DONE:
		if (write) {
			gpa = check_written(lin, user, v);
			CHECK(mem_traced(t.m, gpa) == 0, "%08x: store into a traced page %" PRIx64, lin, gpa);
		} else {
			check_read(lin, user, v);
		}
		break;
	case EMULATED_TRACED:
		CHECK(!x.fault, "%08x: emulated where the model sees a fault", lin);
		check_code_written(check_written(lin, user, v),
				   4); /* the software TLB's answer may be stale */
		break;
	case EMULATE: {
		/* reasons: CR0.WP clear and a read-only user page; tables outside RAM; the host refusing */
		bool wp = write && x.user && !user && !(t.c->cr0 & CR0_WP);
		bool tables = !is_ram(x.pde_gpa) || (x.table && !is_ram(x.pte_gpa));

		CHECK(wp || tables || t.m->fail_n < fail_n, "%08x: needless emulation", lin);
		break;
	}
	case OTHER_WINDOW:
		break;
	}
	check_tables(exact && r != EMULATE);
	t.c->cpl = 0;
}

/* A probe has sent accesses the other way, now and then so often that the page gets its mapping. */
static void do_miss(uint32_t lin, bool write)
{
	const uint8_t *present = mem_view(t.m)->present + (write ? MEM_PRESENT_WRITE : 0);
	enum mem_fault r = MEM_FAULT_EMULATE;
	uint32_t v;

	for (unsigned n = one_in(3) ? 100 : 1; n-- && r == MEM_FAULT_EMULATE;)
		r = mem_window_missed(t.c, lin, write);
	if (r != MEM_FAULT_MAPPED)
		return;
	CHECK(present[lin >> PAGE_SHIFT], "%08x: mapped, and not said to be present", lin);
	CHECK(touch(mem_window_base(mem_window_user(t.m)) + lin, false, &v), "%08x: not mapped", lin);
	check_read(lin, true, v);
}

/* The software TLB's path. */
static void do_soft_access(void)
{
	const uint32_t lin = one_in(3) ? t.last_lin : pick_lin();
	const bool write = one_in(3), user = one_in(2), exact = t.n_history == 0;
	struct xlat x;
	const uint64_t mmio = t.mmio_calls;
	uint32_t v = write ? unique_value() : 0;
	int r;

	t.last_lin = lin;
	if (write && t.n_history + 2 > HISTORY)
		load_space(t.space);
	x = ref_now(lin, write, false, user);
	t.code_written_gpa = ~0ull;
	if (write)
		r = mem_write32(t.c, lin, v, user ? ACC_USER : 0);
	else
		r = mem_read32(t.c, lin, &v, user ? ACC_USER : 0);
	if (exact)
		ref_accessed(&x, write);
	if (r < 0) {
		check_fault(lin, &x);
	} else if (t.mmio_calls != mmio) {
		CHECK(!x.fault && !is_ram(x.gpa), "%08x: taken for MMIO", lin);
	} else if (write) {
		check_code_written(check_written(lin, user, v), 4);
	} else {
		check_read(lin, user, v);
	}
	if (one_in(2))
		do_miss(lin, write);
	check_tables(exact);
}

static void do_trace(void)
{
	uint32_t gfn = one_in(4) ? pick_table() : DATA_START + below(DATA_PAGES);
	const struct xlat x = ref_now(t.last_lin, false, false, false);

	if (one_in(3) && !x.fault && is_ram(x.gpa))
		gfn = (uint32_t)(x.gpa >> PAGE_SHIFT);
	if (t.code_traced[gfn] && one_in(2)) {
		mem_trace_remove(t.m, (uint64_t)gfn << PAGE_SHIFT, TRACE_CODE);
		t.code_traced[gfn] = 0;
	} else {
		mem_trace_add(t.m, (uint64_t)gfn << PAGE_SHIFT, TRACE_CODE);
		t.code_traced[gfn] = 1;
	}
	if (one_in(4))
		mem_trace_add(t.m, (uint64_t)(DATA_START + below(DATA_PAGES)) << PAGE_SHIFT, TRACE_DIRTY);
}

static void do_note_code(void)
{
	const bool user = one_in(2), exact = t.n_history == 0;
	struct window *w = user ? mem_window_user(t.m) : mem_window_super(t.m);
	const uint32_t lin =
		one_in(3) && noted_list_n ? noted_list[below(noted_list_n)] << PAGE_SHIFT : pick_lin();
	const size_t at = (size_t)w->id << 20 | lin >> PAGE_SHIFT;
	struct xlat x = ref_now(lin, false, true, user);
	struct walk walk;

	if (mem_walk(t.c, lin, ACC_EXEC | (user ? ACC_USER : 0), &walk) < 0) {
		check_fault(lin, &x);
		if (exact)
			ref_accessed(&x, false);
		check_tables(exact);
		return;
	}
	CHECK(!x.fault && walk.gpa == x.gpa, "%08x: walk for a fetch gives %" PRIx64 ", expected %" PRIx64,
	      lin, walk.gpa, x.gpa);
	if (exact)
		ref_accessed(&x, false);
	check_tables(exact);
	if (!is_ram(x.gpa) || !is_ram(x.pde_gpa) || (x.table && !is_ram(x.pte_gpa)))
		return;
	mem_window_note_code(t.c, w, lin);
	if (t.noted[at] == 0 && noted_list_n < sizeof noted_list / sizeof noted_list[0])
		noted_list[noted_list_n++] = (uint32_t)at;
	if (noted_list_n < sizeof noted_list / sizeof noted_list[0])
		t.noted[at] = (uint32_t)(x.gpa >> PAGE_SHIFT) + 1;
	check_tables(exact);
}

/* Nothing is outstanding: all code that is believed to run through the current windows must still be there.
 */
static void check_noted(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < noted_list_n; i++) {
		const uint32_t at = noted_list[i], lin = at << PAGE_SHIFT;
		const struct window *w = &t.m->windows[at >> 20];
		struct xlat x;

		if (!t.noted[at])
			continue;
		noted_list[n++] = at;
		if (w != mem_window_user(t.m) && w != mem_window_super(t.m))
			continue;
		x = ref_now(lin, false, true, w == mem_window_user(t.m));
		CHECK(!x.fault && x.gpa >> PAGE_SHIFT == t.noted[at] - 1,
		      "%08x in window %u: noted code at frame %05x is now at %" PRIx64
		      " (fault %d) and nobody was told",
		      lin, w->id, t.noted[at] - 1, x.gpa >> PAGE_SHIFT, x.fault);
	}
	noted_list_n = n;
}

/* An address space gets another page directory: under PAE with the same CR3. */
static void do_redirect(void)
{
	const unsigned s = below(N_SPACES);

	t.dirs[s][pae() ? below(4) : 0] = pick_table();
	load_space(s);
}

static void do_flush(void)
{
	if (one_in(12))
		do_redirect();
	if (one_in(2)) {
		uint32_t lin = pick_page() << PAGE_SHIFT;

		mem_flush_page(t.c, lin);
		/* the software TLB keeps other pages; windows don't */
		tlb_flush(t.m);
	} else {
		load_space(one_in(2) ? t.space : below(N_SPACES));
	}
	flushed();
	check_noted();
	check_tables(true);
}

static void step(void)
{
	switch (below(25)) {
	case 0:
	case 1:
	case 2:
		do_edit();
		break;
	case 3:
		do_twiddle();
		break;
	case 4:
		do_link();
		break;
	case 5:
		if (one_in(6))
			do_reuse();
		break;
	case 6:
		do_flush();
		break;
	case 7:
		if (one_in(30))
			do_mode();
		else if (one_in(100))
			do_paging_off();
		break;
	case 8:
		do_trace();
		break;
	case 9:
		do_note_code();
		break;
	case 10:
		mem_map_pending(t.m);
		break;
	case 11:
		if (t.seed % 3 && one_in(20)) {
			t.m->fail_in = below(20);
			t.m->fail_n = 1 + below(3);
		}
		break;
	case 12:
	case 13:
	case 14:
		do_soft_access();
		break;
	case 15:
		if (one_in(2))
			do_split();
		break;
	default:
		do_access();
	}
}

static void setup(uint64_t seed)
{
	memset(&t, 0, sizeof t);
	noted_list_n = 0;
	t.seed = seed;
	t.unique = 0x5eed0000;
	t.rng = seed * 0x9e3779b97f4a7c15ull + 88172645463325252ull;
	t.g = guest_new(RAM);
	t.c = &t.g->c;
	t.m = t.g->m;
	t.noted = map_anonymous((uint64_t)MAX_WINDOWS << 20 << 2);
	mem_set_ops(t.m, &ops, NULL);
	for (uint32_t gpa = 0; gpa < RAM; gpa += 4)
		*(uint32_t *)(void *)(t.m->ram + gpa) = in_pool(gpa) ? 0 : gpa * 0x9e3779b1u + 12345;
	sync_model();
	for (unsigned s = 0; s < N_SPACES; s++)
		for (unsigned q = 0; q < 4; q++) /* the last quarter is shared by half of the spaces */
			t.dirs[s][q] = q == 3 && s < N_SPACES / 2
					       ? POOL_START
					       : POOL_START + (s * 3 + q) % (POOL_PAGES - 4);
	t.dirs[4][1] = 0;
	t.c->cr0 |= CR0_PG | CR0_WP;
	t.c->cr4 = seed % 3 == 0 ? 0 : seed % 3 == 1 ? CR4_PSE : CR4_PAE;
	t.c->efer = seed % 2 ? EFER_NXE : 0;
	/* tight limits for some: host mappings, reverse map, shadow tables (what two windows need fits) */
	if (seed % 4 == 3)
		t.m->vma_budget = 40;
	if (seed % 5 == 4)
		t.m->rmap_max = 36000;
	if (seed % 7 == 5)
		t.m->sh_max = 80;
	if (seed % 3 == 1)
		t.m->queue_max = 2;
	t.m->loose_looks = (const uint32_t[]){LOOSE_LOOKS, 0, 40, 3}[seed % 4];
	do_mode();
	load_space(0);
}

static uint64_t env(const char *name, uint64_t fallback)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : fallback;
}

static void test_stress(void **state)
{
	const uint64_t steps = env("MEM_STRESS_STEPS", 400000), seed = env("MEM_STRESS_SEED", 1);
	const uint64_t each = 20000;

	(void)state;
	for (uint64_t done = 0; done < steps; done += each) {
		setup(seed + done / each);
		for (t.step = 1; t.step <= each; t.step++) {
			step();
			if (t.step % 16 == 0)
				CHECK(mem_check(t.m, stderr, t.step % 128 == 0) == 0, "incoherent");
		}
		printf("seed %" PRIu64 ": %" PRIu64 " accesses (done %" PRIu64 " traced %" PRIu64
		       " fault %" PRIu64 " mmio %" PRIu64 " emulate %" PRIu64 "), %" PRIu64 " stale, %" PRIu64
		       " hidden faults, %" PRIu64 " eager, %" PRIu64 " spaces\n",
		       seed + done / each, t.checked, t.outcomes[DONE], t.outcomes[EMULATED_TRACED],
		       t.outcomes[GUEST_FAULT], t.outcomes[MMIO], t.outcomes[EMULATE], t.stale,
		       mem_get_stats(t.m)->hidden_faults, mem_get_stats(t.m)->pt_eager_maps,
		       mem_get_stats(t.m)->windows_created);
		munmap(t.noted, (uint64_t)MAX_WINDOWS << 20 << 2);
		guest_free(t.g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_stress)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
