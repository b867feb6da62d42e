/* trace.c - traces: which guest-physical pages somebody wants to see writes to.
 *
 * One byte of TRACE_* per page of RAM. While it is not zero the page has no write tag in the software TLB and
 * is read-only in every window; stores to it come through ram_store.
 */
#include "mem/internal.h"

/* Keeps the counts of --stats; TRACE_DIRTY is not counted. */
static void count(struct mem *m, unsigned kinds, int by)
{
	if (kinds & TRACE_PT)
		m->stats.traced_pt_now += (uint32_t)by;
	if (kinds & TRACE_CODE)
		m->stats.traced_code_now += (uint32_t)by;
}

void mem_trace_add(struct mem *m, uint64_t gpa, unsigned kind)
{
	const uint64_t gfn = gpa >> PAGE_SHIFT;
	bool first;

	if (!gfn_is_ram(m, gfn))
		return;
	count(m, kind & ~m->trace[gfn], 1);
	first = !m->trace[gfn];
	m->trace[gfn] |= (uint8_t)kind;
	if (!first || !kind)
		return;
	tlb_drop_writes(m, gfn);
	if (m->enabled)
		rmap_protect(m, (uint32_t)gfn);
}

void mem_trace_remove(struct mem *m, uint64_t gpa, unsigned kind)
{
	const uint64_t gfn = gpa >> PAGE_SHIFT;

	if (!gfn_is_ram(m, gfn) || !(m->trace[gfn] & kind))
		return;
	count(m, kind & m->trace[gfn], -1);
	m->trace[gfn] &= (uint8_t)~kind;
	if (!m->trace[gfn] && m->enabled)
		rmap_unprotect(m, (uint32_t)gfn);
}

unsigned mem_traced(const struct mem *m, uint64_t gpa)
{
	return gpa_is_ram(m, gpa) ? m->trace[gpa >> PAGE_SHIFT] : 0;
}
