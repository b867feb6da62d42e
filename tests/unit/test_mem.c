/* test_mem.c - RAM, MMIO, the page walk, linear accesses, traces: what works without windows.
 *
 * The walk is tried with every combination of the bits that decide, against a model that is written from the
 * SDM's tables (vol. 3A 4.3, 4.4, 4.6.1, 4.7, 4.8) and not from mem/walk.c: it computes from the decoded
 * bits, one rule after the other, what must come out, what must be in the error code, and which A and D bits
 * must be set.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mem/mem.h"

#define NXE 0x800u /* EFER */

#define RAM (8u << 20)
#define PD  0x10000u
#define PT  0x11000u

struct guest {
	struct mem *m;
	struct vcpu c;
	/* what the callbacks saw */
	uint64_t mmio_gpa[16], mmio_value[16];
	unsigned mmio_size[16], n_mmio;
	uint64_t code_gpa[16];
	unsigned code_len[16], n_code;
};

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	struct guest *g = opaque;

	g->mmio_gpa[g->n_mmio] = gpa;
	g->mmio_size[g->n_mmio++] = size;
	return 0x44332211;
}

static void mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
	struct guest *g = opaque;

	g->mmio_gpa[g->n_mmio] = gpa;
	g->mmio_value[g->n_mmio] = value;
	g->mmio_size[g->n_mmio++] = size;
}

static void code_written(void *opaque, uint64_t gpa, unsigned len)
{
	struct guest *g = opaque;

	g->code_gpa[g->n_code] = gpa;
	g->code_len[g->n_code++] = len;
}

static struct guest *guest_new(uint64_t ram)
{
	const struct mem_ops ops = {
		.mmio_read = mmio_read, .mmio_write = mmio_write, .code_written = code_written};
	struct guest *g = calloc(1, sizeof *g);
	char err[200];

	assert_non_null(g);
	g->m = mem_create(ram, err, sizeof err);
	assert_non_null(g->m);
	mem_set_ops(g->m, &ops, g);
	g->c.mem = g->m;
	g->c.a20_mask = ~0u;
	g->c.cr0 = CR0_PE;
	return g;
}

static void guest_free(struct guest *g)
{
	mem_destroy(g->m);
	free(g);
}

static void put(struct guest *g, uint64_t gpa, uint64_t v, unsigned size)
{
	memcpy(mem_ptr(g->m, gpa, size), &v, size);
}

static uint64_t get(struct guest *g, uint64_t gpa, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, mem_ptr(g->m, gpa, size), size);
	return v;
}

/* ------------------------------------------------------------------ the walk, all combinations */

struct expect {
	bool fault;
	uint32_t error;
	bool user, writable, nx, dirty;
	bool pde_a, pte_a, d; /* bits that the access sets (if they weren't) */
	bool large;
};

/* ps_on: PS in a directory entry means a large page. nxe: bit 63 means execute-disable. */
static struct expect model(uint64_t pde, uint64_t pte, bool pae, bool ps_on, bool nxe, bool wp, unsigned acc,
			   uint64_t pde_rsvd, uint64_t pte_rsvd)
{
	struct expect x = {0};
	const bool w = acc & ACC_WRITE, u = acc & ACC_USER, f = acc & ACC_EXEC;
	const uint32_t codes = (w ? PF_W : 0) | (u ? PF_U : 0) | (f && pae && nxe ? PF_I : 0);
	const uint64_t xd = 1ull << 63;

	x.large = (pde & PTE_PS) && ps_on;
	if (pae && !nxe) {
		pde_rsvd |= xd;
		pte_rsvd |= xd;
	}
	if (!(pde & PTE_P)) {
		x.fault = true;
		x.error = codes;
		return x;
	}
	if (pde & pde_rsvd) {
		x.fault = true;
		x.error = codes | PF_P | PF_RSVD;
		return x;
	}
	if (!x.large) {
		x.pde_a = true; /* the entry was used, whatever comes of it */
		if (!(pte & PTE_P)) {
			x.fault = true;
			x.error = codes;
			return x;
		}
		if (pte & pte_rsvd) {
			x.fault = true;
			x.error = codes | PF_P | PF_RSVD;
			return x;
		}
	}
	x.user = (pde & PTE_US) && (x.large || (pte & PTE_US));
	x.writable = (pde & PTE_RW) && (x.large || (pte & PTE_RW));
	x.nx = pae && ((pde & xd) || (!x.large && (pte & xd)));
	/* 4.6.1: user-mode accesses; supervisor-mode accesses */
	if (u && !x.user)
		x.fault = true;
	if (w && u && !x.writable)
		x.fault = true;
	if (w && !u && wp && !x.writable)
		x.fault = true;
	if (f && x.nx)
		x.fault = true;
	if (x.fault) {
		x.error = codes | PF_P;
		return x;
	}
	if (x.large)
		x.pde_a = true;
	else
		x.pte_a = true;
	x.d = w;
	x.dirty = w || ((x.large ? pde : pte) & PTE_D);
	return x;
}

static void compare(struct guest *g, uint32_t lin, unsigned acc, uint64_t pde, uint64_t pte, unsigned size,
		    const struct expect *x)
{
	const uint64_t pde_gpa = PD + (size == 8 ? (lin >> 21 & 511) : lin >> 22) * size;
	const uint64_t pte_gpa = PT + (size == 8 ? (lin >> 12 & 511) : (lin >> 12 & 1023)) * size;
	const uint64_t last = x->large ? pde_gpa : pte_gpa;
	struct walk w;
	int r;

	put(g, pde_gpa, pde, size);
	put(g, pte_gpa, pte, size);
	g->c.exc.pending = false;

	/* a debugger's look changes nothing */
	assert_int_equal(mem_walk(&g->c, lin, acc | ACC_PEEK, &w), x->fault ? -1 : 0);
	assert_false(g->c.exc.pending);
	assert_int_equal(get(g, pde_gpa, size), pde);
	assert_int_equal(get(g, pte_gpa, size), pte);

	r = mem_walk(&g->c, lin, acc, &w);
	assert_int_equal(r, x->fault ? -1 : 0);
	if (x->fault) {
		assert_true(g->c.exc.pending);
		assert_int_equal(g->c.exc.vector, VEC_PF);
		assert_true(g->c.exc.has_error);
		assert_int_equal(g->c.exc.error, x->error);
		assert_int_equal(g->c.exc.cr2, lin);
	} else {
		assert_int_equal(w.user, x->user);
		assert_int_equal(w.writable, x->writable);
		assert_int_equal(w.nx, x->nx);
		assert_int_equal(w.dirty, x->dirty);
		assert_int_equal(w.pde_gpa, pde_gpa);
		assert_int_equal(w.pte_gpa, x->large ? 0 : pte_gpa);
		assert_int_equal(w.page_size, !x->large ? 4096 : size == 8 ? 2u << 20 : 4u << 20);
		assert_int_equal(w.gpa, x->large ? (size == 8 ? 0x600000 | (lin & 0x1fffff)
							      : 0x400000 | (lin & 0x3fffff))
						 : 0x7ab000 | (lin & 0xfff));
		assert_int_equal(w.global, (g->c.cr4 & CR4_PGE) && ((x->large ? pde : pte) & PTE_G));
	}
	if (x->pde_a)
		pde |= PTE_A;
	if (x->pte_a)
		pte |= PTE_A;
	if (x->d && last == pde_gpa)
		pde |= PTE_D;
	if (x->d && last == pte_gpa)
		pte |= PTE_D;
	assert_int_equal(get(g, pde_gpa, size), pde);
	assert_int_equal(get(g, pte_gpa, size), pte);
}

static const unsigned accesses[] = {
	ACC_READ, ACC_WRITE, ACC_EXEC, ACC_READ | ACC_USER, ACC_WRITE | ACC_USER, ACC_EXEC | ACC_USER};

/* P RW US A D G of an entry from the bits of n */
static uint64_t flags(unsigned n)
{
	static const uint64_t bit[] = {PTE_P, PTE_RW, PTE_US, PTE_A, PTE_D, PTE_G};
	uint64_t f = 0;

	for (unsigned i = 0; i < 6; i++)
		f |= n >> i & 1 ? bit[i] : 0;
	return f;
}

static void test_walk_32bit(void **state)
{
	struct guest *g = guest_new(RAM);
	const uint32_t lin = 0x8c0ab123; /* slot 0x230, index 0xab */

	(void)state;
	g->c.cr3 = PD | 0x18; /* PWT and PCD mean nothing */
	for (unsigned n = 0; n < 1u << 15; n++) {
		const bool ps = n >> 12 & 1, pse = n >> 13 & 1, wp = n >> 14 & 1;
		uint64_t pde = flags(n & 63) | (ps ? PTE_PS : 0), pte = flags(n >> 6 & 63) | 0x7ab000;

		pde |= ps && pse ? 0x400000 : PT;
		g->c.cr0 = CR0_PE | CR0_PG | (wp ? CR0_WP : 0);
		g->c.cr4 = (pse ? CR4_PSE : 0) | (n & 1 ? CR4_PGE : 0);
		g->c.efer = n & 2 ? NXE : 0; /* no NX without PAE */
		for (unsigned a = 0; a < 6; a++) {
			struct expect x = model(pde, pte, false, pse, false, wp, accesses[a], 0, 0);

			compare(g, lin, accesses[a], pde, pte, 4, &x);
		}
	}
	guest_free(g);
}

static void test_walk_pae(void **state)
{
	struct guest *g = guest_new(RAM);
	const uint32_t lin = 0x8c0ab123;
	const uint64_t rsvd = 1ull << 45;

	(void)state;
	g->c.pdpte[2] = PD | 1;
	for (unsigned n = 0; n < 1u << 19; n++) {
		const bool ps = n >> 12 & 1, nxe = n >> 13 & 1, wp = n >> 14 & 1;
		uint64_t pde = flags(n & 63) | (ps ? PTE_PS | 0x600000 : PT);
		uint64_t pte = flags(n >> 6 & 63) | 0x7ab000;

		if ((n & 0x1040) == 0x1000 &&
		    (n >> 7 & 31)) /* the table entry doesn't matter: once is enough */
			continue;
		pde |= (n >> 15 & 1 ? PTE_NX : 0) | (n >> 16 & 1 ? rsvd : 0);
		pte |= (n >> 17 & 1 ? PTE_NX : 0) | (n >> 18 & 1 ? rsvd : 0);
		g->c.cr0 = CR0_PE | CR0_PG | (wp ? CR0_WP : 0);
		g->c.cr4 = CR4_PAE | (n & 1 ? CR4_PGE : 0) | (n & 2 ? CR4_PSE : 0); /* PSE doesn't matter */
		g->c.efer = nxe ? NXE : 0;
		for (unsigned a = 0; a < 6; a++) {
			struct expect x = model(pde, pte, true, true, nxe, wp, accesses[a], rsvd, rsvd);

			compare(g, lin, accesses[a], pde, pte, 8, &x);
		}
	}
	guest_free(g);
}

/* Which bits are reserved, one by one: 36 physical address bits. */
static void test_walk_reserved(void **state)
{
	struct guest *g = guest_new(RAM);
	struct walk w;

	(void)state;
	assert_int_equal(MEM_MAXPHYADDR, 36);
	g->c.cr0 = CR0_PE | CR0_PG | CR0_WP;
	g->c.cr3 = PD;
	g->c.cr4 = CR4_PSE;
	for (unsigned bit = 13; bit < 22;
	     bit++) { /* 4 MiB page: 16-13 are address bits 35-32, 21-17 reserved */
		put(g, PD, 0x400000 | PTE_PS | PTE_P | 1u << bit, 4);
		g->c.exc.pending = false;
		if (bit >= 17) {
			assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), -1);
			assert_int_equal(g->c.exc.error, PF_P | PF_RSVD);
		} else {
			assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), 0);
			assert_int_equal(w.gpa, 0x401234 | 1ull << (bit + 19));
		}
	}
	put(g, PD, 0x400000 | PTE_PS | PTE_P | 1u << 12, 4); /* PAT */
	assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), 0);
	assert_int_equal(w.gpa, 0x401234);
	/* without PSE, PS is ignored */
	g->c.cr4 = 0;
	put(g, PD, PT | PTE_PS | PTE_P, 4);
	put(g, PT + 4, 0x7ab000 | PTE_P | PTE_PS, 4); /* bit 7 of a table entry is PAT */
	assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), 0);
	assert_int_equal(w.gpa, 0x7ab234);

	g->c.cr4 = CR4_PAE;
	g->c.pdpte[0] = PD | 1;
	for (unsigned bit = 12; bit < 64; bit++) {
		const bool reserved = bit >= MEM_MAXPHYADDR;

		g->c.efer = bit == 63 ? 0 : NXE;
		put(g, PT + 8, 0x7ab000 | PTE_P, 8);
		if (reserved) { /* directory entry that refers to a table */
			put(g, PD, PT | PTE_P | 1ull << bit, 8);
			assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), -1);
			assert_int_equal(g->c.exc.error, PF_P | PF_RSVD);
			put(g, PD, PT | PTE_P, 8);
			put(g, PT + 8, PTE_P | 1ull << bit, 8);
			assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), -1);
			assert_int_equal(g->c.exc.error, PF_P | PF_RSVD);
		} else {
			put(g, PD, PT | PTE_P, 8);
			put(g, PT + 8, PTE_P | 1ull << bit, 8);
			assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), 0);
			assert_int_equal(w.gpa, 0x234 | 1ull << bit);
		}
		put(g, PD, PTE_PS | PTE_P | 1ull << bit, 8);
		if (reserved || (bit >= 13 && bit <= 20)) {
			assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), -1);
			assert_int_equal(g->c.exc.error, PF_P | PF_RSVD);
		} else {
			assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), 0);
			assert_int_equal(w.gpa, 0x1234 | (bit == 12 ? 0 : 1ull << bit));
		}
	}
	/* a PDPTE that isn't present, and the three others are separate */
	assert_int_equal(mem_walk(&g->c, 0x40000000, ACC_WRITE | ACC_USER, &w), -1);
	assert_int_equal(g->c.exc.error, PF_W | PF_U);
	g->c.pdpte[3] = 0x20001;
	put(g, 0x20000 + 511 * 8, 0x600000 | PTE_PS | PTE_P, 8);
	assert_int_equal(mem_walk(&g->c, 0xffffffff, ACC_READ, &w), 0);
	assert_int_equal(w.gpa, 0x7fffff);
	guest_free(g);
}

static void test_walk_odd(void **state)
{
	struct guest *g = guest_new(RAM);
	struct walk w;

	(void)state;
	/* paging off */
	assert_int_equal(mem_walk(&g->c, 0x12345678, ACC_WRITE | ACC_USER, &w), 0);
	assert_int_equal(w.gpa, 0x12345678);
	assert_int_equal(w.page_size, 0);
	g->c.a20_mask = ~(1u << 20);
	assert_int_equal(mem_walk(&g->c, 0x12345678, ACC_READ, &w), 0);
	assert_int_equal(w.gpa, 0x12245678);
	/* A20 off applies to tables and pages alike */
	g->c.cr0 |= CR0_PG;
	g->c.cr3 = PD | 1u << 20;
	put(g, PD, (PT | 1u << 20) | PTE_P, 4);
	put(g, PT + 4, 0x301000 | PTE_P, 4);
	assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), 0);
	assert_int_equal(w.gpa, 0x201234);
	g->c.a20_mask = ~0u;
	/* tables outside RAM read as ones and are not written */
	g->c.cr3 = 0xf0000000;
	assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), 0);
	assert_int_equal(w.gpa, 0xfffff234);
	g->c.cr4 = CR4_PSE;
	assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), -1);
	assert_int_equal(g->c.exc.error, PF_P | PF_RSVD);
	g->c.cr3 = 0xa0000; /* nor is the video hole RAM */
	assert_int_equal(mem_walk(&g->c, 0x1234, ACC_READ, &w), -1);
	assert_int_equal(g->n_mmio, 0);
	guest_free(g);
}

/* ------------------------------------------------------------------ RAM and MMIO */

static void test_create(void **state)
{
	static const uint64_t bad[] = {0, 1, 4095, 5000, (3ull << 30) + 4096, 1ull << 40};
	char err[200];

	(void)state;
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		err[0] = 0;
		assert_null(mem_create(bad[i], err, sizeof err));
		assert_true(strlen(err) > 0 && !strchr(err, '\n'));
	}
	for (uint64_t size = 4096; size <= 3ull << 30; size *= 3) {
		struct mem *m = mem_create(size & ~4095ull, err, sizeof err);

		assert_non_null(m);
		assert_int_equal(mem_ram_bytes(m), size & ~4095ull);
		mem_destroy(m);
	}
}

static void test_ptr(void **state)
{
	struct guest *g = guest_new(RAM);

	(void)state;
	assert_non_null(mem_ptr(g->m, 0, 0xa0000));
	assert_null(mem_ptr(g->m, 0, 0xa0001));
	assert_null(mem_ptr(g->m, 0xa0000, 1));
	assert_null(mem_ptr(g->m, 0xbffff, 1));
	assert_null(mem_ptr(g->m, 0x90000, 0x100000));
	assert_non_null(mem_ptr(g->m, 0xc0000, RAM - 0xc0000));
	assert_null(mem_ptr(g->m, 0xc0000, RAM - 0xc0000 + 1));
	assert_null(mem_ptr(g->m, RAM, 1));
	assert_null(mem_ptr(g->m, RAM - 1, ~0ull));
	assert_null(mem_ptr(g->m, ~0ull, 2));
	guest_free(g);
}

static void test_mmio_pieces(void **state)
{
	struct guest *g = guest_new(RAM);
	uint8_t buf[16];

	(void)state;
	mem_phys_read(g->m, 0xfee00001, buf, 10); /* 1 2 4 ... */
	assert_int_equal(g->n_mmio, 5);
	for (unsigned i = 0, at = 1; i < 5; at += g->mmio_size[i++]) {
		static const unsigned sizes[] = {1, 2, 4, 2, 1};

		assert_int_equal(g->mmio_gpa[i], 0xfee00000 + at);
		assert_int_equal(g->mmio_size[i], sizes[i]);
	}
	assert_int_equal(buf[0], 0x11);
	g->n_mmio = 0;
	/* across the start of the hole */
	memset(buf, 0xcc, sizeof buf);
	mem_phys_write(g->m, 0x9fffe, buf, 6);
	assert_int_equal(g->n_mmio, 1);
	assert_int_equal(g->mmio_gpa[0], 0xa0000);
	assert_int_equal(g->mmio_value[0], 0xcccccccc);
	assert_int_equal(get(g, 0x9fffe, 2), 0xcccc);
	guest_free(g);
}

static void test_load(void **state)
{
	struct guest *g = guest_new(RAM);
	static uint8_t data[300000], back[sizeof data];

	(void)state;
	for (unsigned i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7 + i / 4096);
	mem_load(g->m, 0x100123, data, sizeof data);
	memcpy(back, mem_ptr(g->m, 0x100123, sizeof back), sizeof back);
	assert_memory_equal(back, data, sizeof data);
	assert_int_equal(get(g, 0x100122, 1), 0);
	assert_int_equal(get(g, 0x100123 + sizeof data, 1), 0);
	mem_load(g->m, 0x100123, data, 0);
	/* what nobody may miss is not missed */
	mem_trace_add(g->m, 0x300000, TRACE_CODE);
	mem_load(g->m, 0x2ff000, data, 8192);
	assert_int_equal(g->n_code, 1);
	assert_int_equal(g->code_gpa[0], 0x300000);
	assert_int_equal(get(g, 0x300000, 1), data[4096]);
	mem_load(g->m, 0x9fffc, data, 8);
	assert_int_equal(g->n_mmio, 1);
	assert_int_equal(g->mmio_gpa[0], 0xa0000);
	guest_free(g);
}

/* ------------------------------------------------------------------ linear accesses */

static void map(struct guest *g, uint32_t lin, uint32_t gpa, uint32_t f)
{
	put(g, PD + (lin >> 22) * 4, PT | PTE_P | PTE_RW | PTE_US, 4);
	put(g, PT + (lin >> 12 & 1023) * 4, gpa | f, 4);
}

static void test_page_crossing(void **state)
{
	struct guest *g = guest_new(RAM);
	uint32_t v;

	(void)state;
	g->c.cr3 = PD;
	g->c.cr0 |= CR0_PG | CR0_WP;
	map(g, 0x1000, 0x201000, PTE_P | PTE_RW);
	map(g, 0x2000, 0x305000, PTE_P | PTE_RW);
	map(g, 0x3000, 0x304000, PTE_P);
	assert_int_equal(mem_write32(&g->c, 0x1ffd, 0xddccbbaa, 0), 0);
	assert_int_equal(get(g, 0x201ffd, 1), 0xaa);
	assert_int_equal(get(g, 0x305000, 2), 0xdd);
	assert_int_equal(mem_read32(&g->c, 0x1ffd, &v, 0), 0);
	assert_int_equal(v, 0xddccbbaa);
	/* both pages are checked before the first byte is stored; CR2 is where the second page begins */
	assert_int_equal(mem_write32(&g->c, 0x2ffe, 0x11111111, 0), -1);
	assert_int_equal(g->c.exc.cr2, 0x3000);
	assert_int_equal(g->c.exc.error, PF_P | PF_W);
	assert_int_equal(get(g, 0x305ffe, 2), 0);
	/* the lower page faults first */
	assert_int_equal(mem_read32(&g->c, 0xfff, &v, ACC_USER), -1);
	assert_int_equal(g->c.exc.cr2, 0xfff);
	assert_int_equal(mem_probe(&g->c, 0x2ffe, 4, ACC_WRITE), -1);
	assert_int_equal(mem_probe(&g->c, 0x1ffe, 4, ACC_WRITE), 0);
	/* around the top of the address space */
	put(g, PD + 1023 * 4, PT | PTE_P | PTE_RW | PTE_US, 4);
	map(g, 0, 0x306000, PTE_P | PTE_RW);
	put(g, PT + 1023 * 4, 0x307000 | PTE_P | PTE_RW, 4);
	assert_int_equal(mem_write32(&g->c, 0xfffffffe, 0x44332211, 0), 0);
	assert_int_equal(get(g, 0x307ffe, 2), 0x2211);
	assert_int_equal(get(g, 0x306000, 2), 0x4433);
	guest_free(g);
}

/* The TLB: hits are right, privilege and kind of access are kept apart, and it is flushed when it must be. */
static void test_tlb(void **state)
{
	struct guest *g = guest_new(RAM);
	uint32_t v;

	(void)state;
	g->c.cr3 = PD;
	g->c.cr0 |= CR0_PG | CR0_WP;
	map(g, 0x1000, 0x201000, PTE_P | PTE_RW);
	map(g, 0x2000, 0x202000, PTE_P | PTE_US);
	assert_int_equal(mem_read32(&g->c, 0x1000, &v, 0), 0);
	assert_int_equal(mem_read32(&g->c, 0x1000, &v, ACC_USER), -1);
	assert_int_equal(get(g, PT + 4, 4) & PTE_D, 0);
	assert_int_equal(mem_write32(&g->c, 0x1000, 7, 0), 0); /* a read entry must not let a write by: D */
	assert_int_equal(get(g, PT + 4, 4) & PTE_D, PTE_D);
	assert_int_equal(mem_read32(&g->c, 0x2000, &v, ACC_USER), 0);
	assert_int_equal(mem_write32(&g->c, 0x2000, 7, ACC_USER), -1);
	/* stale until flushed */
	put(g, 0x203000, 0x33, 4);
	put(g, PT + 4, 0x203000 | PTE_P, 4);
	mem_flush_page(&g->c, 0x1000);
	assert_int_equal(mem_read32(&g->c, 0x1000, &v, 0), 0);
	assert_int_equal(v, 0x33);
	put(g, PT + 4, 0, 4);
	mem_load_cr3(&g->c);
	assert_int_equal(mem_read32(&g->c, 0x1000, &v, 0), -1);
	/* large page: INVLPG anywhere in it flushes all of it */
	g->c.cr4 = CR4_PSE;
	mem_mode_changed(&g->c);
	put(g, PD + 4, 0x400000 | PTE_P | PTE_RW | PTE_PS, 4);
	assert_int_equal(mem_write32(&g->c, 0x400000, 5, 0), 0);
	put(g, PD + 4, 0, 4);
	mem_flush_page(&g->c, 0x7ff000);
	assert_int_equal(mem_read32(&g->c, 0x400000, &v, 0), -1);
	/* more pages than the list of used entries holds */
	put(g, PD + 4, 0x400000 | PTE_P | PTE_RW | PTE_PS, 4);
	for (uint32_t lin = 0x400000; lin < 0x800000; lin += 0x1000)
		assert_int_equal(mem_write32(&g->c, lin, lin, 0), 0);
	for (uint32_t lin = 0x400000; lin < 0x800000; lin += 0x1000) {
		assert_int_equal(mem_read32(&g->c, lin, &v, 0), 0);
		assert_int_equal(v, lin);
	}
	put(g, PD + 4, 0, 4);
	mem_load_cr3(&g->c);
	for (uint32_t lin = 0x400000; lin < 0x800000; lin += 0x1000)
		assert_int_equal(mem_read32(&g->c, lin, &v, 0), -1);
	guest_free(g);
}

static void test_tlb_nx(void **state)
{
	struct guest *g = guest_new(RAM);
	uint32_t v;

	(void)state;
	g->c.cr0 |= CR0_PG;
	g->c.cr4 = CR4_PAE;
	g->c.efer = NXE;
	g->c.pdpte[0] = PD | 1;
	put(g, PD, PT | PTE_P, 8);
	put(g, PT, 0x300000 | PTE_P | PTE_NX, 8);
	assert_int_equal(mem_read32(&g->c, 0, &v, 0), 0);
	assert_int_equal(mem_read32(&g->c, 0, &v, ACC_EXEC), -1);
	assert_int_equal(g->c.exc.error, PF_P | PF_I);
	guest_free(g);
}

static void test_linear_mmio(void **state)
{
	struct guest *g = guest_new(RAM);
	uint64_t v;

	(void)state;
	g->c.cr3 = PD;
	g->c.cr0 |= CR0_PG;
	map(g, 0x1000, 0xfee00000, PTE_P | PTE_RW);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(mem_read64(&g->c, 0x1000, &v, 0), 0);
		assert_int_equal(v, 0x4433221144332211ull);
	}
	assert_int_equal(g->n_mmio, 4); /* never from the TLB */
	guest_free(g);
}

/* ------------------------------------------------------------------ traces */

static void test_traces(void **state)
{
	struct guest *g = guest_new(RAM);
	const struct mem_stats *st = mem_get_stats(g->m);
	uint32_t v = 0;

	(void)state;
	assert_int_equal(mem_write32(&g->c, 0x5000, 1, 0), 0); /* into the TLB */
	mem_trace_add(g->m, 0x5123, TRACE_CODE);
	mem_trace_add(g->m, 0x5000, TRACE_CODE);
	mem_trace_add(g->m, 0x5fff, TRACE_DIRTY);
	mem_trace_add(g->m, 0xa0000, TRACE_CODE); /* not RAM: no effect */
	assert_int_equal(st->traced_code_now, 1);
	assert_int_equal(mem_traced(g->m, 0x5800), TRACE_CODE | TRACE_DIRTY);
	assert_int_equal(mem_traced(g->m, 0xa0000), 0);
	assert_int_equal(mem_write32(&g->c, 0x5004, 2, 0), 0);
	assert_int_equal(g->n_code, 1);
	assert_int_equal(g->code_gpa[0], 0x5004);
	assert_int_equal(g->code_len[0], 4);
	assert_int_equal(mem_traced(g->m, 0x5000), TRACE_CODE); /* dirty now */
	assert_int_equal(mem_read32(&g->c, 0x5004, &v, 0), 0);
	assert_int_equal(v, 2);
	/* reads do not give a store the right to skip the trace */
	assert_int_equal(mem_write32(&g->c, 0x5008, 2, 0), 0);
	assert_int_equal(g->n_code, 2);
	/* a store across two traced pages is told of in two parts */
	mem_trace_add(g->m, 0x6000, TRACE_CODE);
	assert_int_equal(mem_write32(&g->c, 0x5fff, 0x01020304, 0), 0);
	assert_int_equal(g->n_code, 4);
	assert_int_equal(g->code_gpa[2], 0x5fff);
	assert_int_equal(g->code_len[2], 1);
	assert_int_equal(g->code_gpa[3], 0x6000);
	assert_int_equal(g->code_len[3], 3);
	/* devices too */
	mem_phys_write(g->m, 0x5010, &v, 4);
	assert_int_equal(g->n_code, 5);
	mem_trace_remove(g->m, 0x5000, TRACE_CODE | TRACE_PT);
	mem_trace_remove(g->m, 0x5000, TRACE_CODE);
	assert_int_equal(st->traced_code_now, 1);
	assert_int_equal(mem_write32(&g->c, 0x5004, 2, 0), 0);
	assert_int_equal(g->n_code, 5);
	guest_free(g);
}

/* The VMM's own setting of A and D in a page that also holds code is a change of that code. */
static void test_accessed_bit_in_code(void **state)
{
	struct guest *g = guest_new(RAM);
	uint32_t v;

	(void)state;
	g->c.cr3 = PD;
	g->c.cr0 |= CR0_PG;
	map(g, 0x1000, 0x201000, PTE_P | PTE_RW);
	mem_trace_add(g->m, PT, TRACE_CODE);
	assert_int_equal(mem_read32(&g->c, 0x1000, &v, 0), 0);
	assert_int_equal(g->n_code, 1);
	assert_int_equal(g->code_gpa[0], PT + 4);
	guest_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk_32bit),    cmocka_unit_test(test_walk_pae),
		cmocka_unit_test(test_walk_reserved), cmocka_unit_test(test_walk_odd),
		cmocka_unit_test(test_create),	      cmocka_unit_test(test_ptr),
		cmocka_unit_test(test_mmio_pieces),   cmocka_unit_test(test_page_crossing),
		cmocka_unit_test(test_tlb),	      cmocka_unit_test(test_tlb_nx),
		cmocka_unit_test(test_linear_mmio),   cmocka_unit_test(test_load),
		cmocka_unit_test(test_traces),	      cmocka_unit_test(test_accessed_bit_in_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
