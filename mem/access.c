/* access.c - linear reads and writes for the interpreter and the callouts, and their software TLB.
 *
 * The TLB holds only pages of RAM. An entry's three tags say for which kinds of access it may be used without
 * looking further: rtag for reads, wtag for writes (D already set, no trace on the page), xtag for
 * instruction fetches (not NX). ltag takes the place of wtag where somebody watches stores. A page-table
 * change leaves stale entries exactly as a hardware TLB would, until the guest flushes; a trace takes write
 * tags away at once.
 */
#include "mem/internal.h"

struct soft_tlb *mem_tlb(struct mem *m)
{
	return &m->tlb;
}

static struct tlb_entry *tlb_at(struct mem *m, unsigned used)
{
	return &m->tlb.e[used / TLB_SIZE][used % TLB_SIZE];
}

static void tlb_drop(struct tlb_entry *t)
{
	t->rtag = t->wtag = t->xtag = t->ltag = 0;
}

/* ------------------------------------------------------------------ the TLB of probes */

void mem_set_probe_tlb(struct mem *m, struct probe_tlb *t)
{
	m->probes = t;
	m->probes_used_n = 0;
	m->probes_large = false;
}

static void probes_flush(struct mem *m)
{
	struct probe_tlb *t = m->probes;

	if (!t)
		return;
	if (m->probes_used_n > PROBES_USED_MAX || t->windows) {
		fill_zero(t, offsetof(struct probe_tlb, add));
	} else {
		for (unsigned i = 0; i < m->probes_used_n; i++)
			t->read[m->probes_used[i]] = t->write[m->probes_used[i]] = 0;
	}
	t->windows = 0;
	m->probes_used_n = 0;
	m->probes_large = false;
}

static void probes_flush_page(struct mem *m, uint32_t page)
{
	struct probe_tlb *t = m->probes;

	if (!t)
		return;
	if (m->probes_large)
		probes_flush(m);
	else if (t->read[page % CPU_PROBE_TLB] == ~page)
		t->read[page % CPU_PROBE_TLB] = t->write[page % CPU_PROBE_TLB] = 0;
}

static void probes_drop_write(struct mem *m, unsigned i, uint64_t gfn)
{
	struct probe_tlb *t = m->probes;
	const uint64_t page = (uint32_t)~t->write[i];

	if (t->write[i] && (t->add[i] + (page << PAGE_SHIFT) - (uintptr_t)m->ram) >> PAGE_SHIFT == gfn)
		t->write[i] = 0;
}

static void probes_drop_writes(struct mem *m, uint64_t gfn)
{
	if (m->probes_used_n > PROBES_USED_MAX)
		for (unsigned i = 0; i < CPU_PROBE_TLB; i++)
			probes_drop_write(m, i, gfn);
	else
		for (unsigned i = 0; i < m->probes_used_n; i++)
			probes_drop_write(m, m->probes_used[i], gfn);
}

void probe_tlb_fill(struct mem *m, uint32_t lin, const struct walk *w)
{
	const uint32_t page = lin >> PAGE_SHIFT;
	struct probe_tlb *t = m->probes;
	const unsigned i = page % CPU_PROBE_TLB;

	if (!t || !w->accessed)
		return;
	if (m->probes_used_n < PROBES_USED_MAX)
		m->probes_used[m->probes_used_n++] = (uint8_t)i;
	else
		m->probes_used_n = PROBES_USED_MAX + 1;
	m->probes_large |= w->page_size != PAGE_SIZE;
	t->add[i] = (uintptr_t)m->ram + (w->gpa & ~0xfffull) - (lin & PAGE_MASK);
	t->read[i] = ~page;
	t->write[i] = w->writable && w->dirty && !m->trace[w->gpa >> PAGE_SHIFT] ? ~page : 0;
}

/* ------------------------------------------------------------------ both */

void tlb_flush(struct mem *m)
{
	if (m->tlb_used_n > TLB_USED_MAX) {
		fill_zero(&m->tlb, sizeof m->tlb);
	} else {
		for (unsigned i = 0; i < m->tlb_used_n; i++)
			tlb_drop(tlb_at(m, m->tlb_used[i]));
	}
	m->tlb_used_n = 0;
	m->tlb_large = false;
	probes_flush(m);
}

void tlb_flush_page(struct mem *m, uint32_t lin)
{
	probes_flush_page(m, lin >> PAGE_SHIFT);
	if (m->tlb_large) {
		tlb_flush(m);
		return;
	}
	for (unsigned user = 0; user < 2; user++) {
		struct tlb_entry *t = &m->tlb.e[user][lin >> 12 & (TLB_SIZE - 1)];

		if (t->rtag == ((lin & PAGE_MASK) | 1u))
			tlb_drop(t);
	}
}

/* A valid entry has a read tag: whatever may be written or executed may be read. */
static void tlb_drop_write(const struct mem *m, struct tlb_entry *t, uint64_t gfn)
{
	const uint32_t tag = t->wtag | t->ltag;

	if (tag && (t->add + (tag & PAGE_MASK) - (uintptr_t)m->ram) >> PAGE_SHIFT == gfn)
		t->wtag = t->ltag = 0;
}

void tlb_drop_writes(struct mem *m, uint64_t gfn)
{
	probes_drop_writes(m, gfn);
	if (m->tlb_used_n > TLB_USED_MAX) {
		for (unsigned i = 0; i < 2 * TLB_SIZE; i++)
			tlb_drop_write(m, tlb_at(m, i), gfn);
		return;
	}
	for (unsigned i = 0; i < m->tlb_used_n; i++)
		tlb_drop_write(m, tlb_at(m, m->tlb_used[i]), gfn);
}

static void tlb_fill(struct vcpu *c, uint32_t lin, unsigned acc, const struct walk *w)
{
	struct mem *m = c->mem;
	const unsigned user = !!(acc & ACC_USER), index = lin >> 12 & (TLB_SIZE - 1);
	struct tlb_entry *t = &m->tlb.e[user][index];
	const uint32_t tag = (lin & PAGE_MASK) | 1u;
	const bool may_write = w->writable || (!user && !(c->cr0 & CR0_WP));

	if (!t->rtag) {
		if (m->tlb_used_n < TLB_USED_MAX)
			m->tlb_used[m->tlb_used_n++] = (uint16_t)(user * TLB_SIZE + index);
		else
			m->tlb_used_n = TLB_USED_MAX + 1;
	}
	if (w->page_size != PAGE_SIZE && cpu_paging(c))
		m->tlb_large = true;
	t->add = (uintptr_t)m->ram + (w->gpa & ~0xfffull) - (lin & PAGE_MASK);
	t->rtag = tag;
	t->xtag = w->nx ? 0 : tag;
	const uint32_t store = may_write && w->dirty ? tag : 0;
	const bool watched = m->store_log || m->trace[w->gpa >> PAGE_SHIFT];
	t->wtag = watched ? 0 : store;
	t->ltag = watched ? store : 0;
}

bool mem_tlb_traced(const struct mem *m, const struct tlb_entry *t)
{
	return m->trace[(t->add + (t->ltag & PAGE_MASK) - (uintptr_t)m->ram) >> PAGE_SHIFT];
}

/* Finds where lin is; fills the TLB when it is RAM. */
static int translate(struct vcpu *c, uint32_t lin, unsigned acc, uint64_t *gpa)
{
	struct walk w;

	if (mem_walk(c, lin, acc, &w) < 0)
		return -1;
	*gpa = w.gpa;
	if (!(acc & ACC_PEEK) && gpa_is_ram(c->mem, w.gpa))
		tlb_fill(c, lin, acc, &w);
	return 0;
}

static void load(struct mem *m, uint64_t gpa, void *buf, unsigned len)
{
	if (gpa_is_ram(m, gpa))
		copy_bytes(buf, m->ram + gpa, len);
	else
		mmio_load(m, gpa, buf, len);
}

static void store(struct mem *m, uint64_t gpa, const void *buf, unsigned len)
{
	if (gpa_is_ram(m, gpa))
		ram_store(m, gpa, buf, len);
	else
		mmio_store(m, gpa, buf, len);
}

/* Bytes of [lin, lin + len) in the first page. */
static unsigned first_piece(uint32_t lin, unsigned len)
{
	unsigned room = PAGE_SIZE - (lin & 0xfffu);

	return len < room ? len : room;
}

int mem_read(struct vcpu *c, uint32_t lin, void *buf, unsigned len, unsigned acc)
{
	const unsigned n = first_piece(lin, len);
	uint64_t gpa, gpa2 = 0;

	assert(len >= 1 && len <= PAGE_SIZE);
	acc &= ~ACC_WRITE;
	if (translate(c, lin, acc, &gpa) < 0)
		return -1;
	if (n < len && translate(c, lin + n, acc, &gpa2) < 0)
		return -1;
	load(c->mem, gpa, buf, n);
	if (n < len)
		load(c->mem, gpa2, (uint8_t *)buf + n, len - n);
	return 0;
}

/* A TLB hit of a store that somebody wants to see. */
static bool watched_hit(const struct mem *m, uint32_t lin, unsigned len, unsigned acc, uint64_t *gpa)
{
	const struct tlb_entry *t = &m->tlb.e[!!(acc & ACC_USER)][lin >> 12 & (TLB_SIZE - 1)];

	if (t->ltag != ((lin & PAGE_MASK) | 1u) || (lin & 0xfffu) > PAGE_SIZE - len)
		return false;
	*gpa = t->add + lin - (uintptr_t)m->ram;
	return true;
}

int mem_write(struct vcpu *c, uint32_t lin, const void *buf, unsigned len, unsigned acc)
{
	const unsigned n = first_piece(lin, len);
	uint64_t gpa, gpa2 = 0;

	assert(len >= 1 && len <= PAGE_SIZE);
	if (watched_hit(c->mem, lin, len, acc, &gpa)) {
		ram_store(c->mem, gpa, buf, len);
		return 0;
	}
	acc |= ACC_WRITE;
	if (translate(c, lin, acc, &gpa) < 0)
		return -1;
	if (n < len && translate(c, lin + n, acc, &gpa2) < 0)
		return -1;
	store(c->mem, gpa, buf, n);
	if (n < len)
		store(c->mem, gpa2, (const uint8_t *)buf + n, len - n);
	return 0;
}

int mem_probe(struct vcpu *c, uint32_t lin, unsigned len, unsigned acc)
{
	const unsigned n = first_piece(lin, len);
	uint64_t gpa;

	if (acc & ACC_WRITE && watched_hit(c->mem, lin, len, acc, &gpa))
		return 0;
	if (translate(c, lin, acc, &gpa) < 0)
		return -1;
	return n < len ? translate(c, lin + n, acc, &gpa) : 0;
}
