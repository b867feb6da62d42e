/* walk.c - the page walk in software (SDM vol. 3A 4.1-4.8): no paging, 32-bit paging with PSE and PSE-36,
 * PAE.
 *
 * What is implementation-specific is done as QEMU and most silicon do it: the accessed bit of an upper level
 * is set as soon as the walk goes through that entry, even if a lower level then faults; A and D of the last
 * level are set only by an access that is allowed. Reserved bits fault at the level where they stand, before
 * lower levels are looked at. Entries that do not lie in RAM read as all ones and are never written.
 *
 * The reserved bits assume MEM_MAXPHYADDR physical address bits.
 */
#include "mem/internal.h"

static uint64_t entry_read(const struct mem *m, uint64_t gpa, bool pae)
{
	if (!gpa_is_ram(m, gpa))
		return pae ? ~0ull : 0xffffffffu;
	if (pae)
		return *(const uint64_t *)(const void *)(m->ram + gpa);
	return *(const uint32_t *)(const void *)(m->ram + gpa);
}

/* Setting A or D only adds rights to shadows, so it needs no page-table trace; a page can hold code or be
 * watched for dirtying all the same. A and D are in the low byte of an entry. */
void entry_set(struct mem *m, uint64_t gpa, uint8_t bits)
{
	uint8_t *trace;

	if (!gpa_is_ram(m, gpa) || (m->ram[gpa] & bits) == bits)
		return;
	if (m->store_log && !m->store_log(m->store_log_opaque, gpa, 1, true))
		return;
	m->ram[gpa] |= bits;
	trace = &m->trace[gpa >> PAGE_SHIFT];
	if (__builtin_expect(*trace & TRACE_DIRTY, 0))
		mem_trace_remove(m, gpa, TRACE_DIRTY);
	if (__builtin_expect(*trace & TRACE_CODE, 0) && m->ops.code_written)
		m->ops.code_written(m->opaque, gpa, 1);
}

static int walk_fault(struct vcpu *c, uint32_t lin, unsigned acc, uint32_t error)
{
	if (acc & ACC_PEEK)
		return -1;
	if (acc & ACC_WRITE)
		error |= PF_W;
	if (acc & ACC_USER)
		error |= PF_U;
	if ((acc & ACC_EXEC) && (c->cr4 & CR4_PAE) && (c->efer & EFER_NXE))
		error |= PF_I;
	return cpu_raise_pf(c, lin, error);
}

int mem_walk(struct vcpu *c, uint32_t lin, unsigned acc, struct walk *out)
{
	struct mem *m = c->mem;
	const bool pae = c->cr4 & CR4_PAE;
	const uint64_t a20 = 0xffffffff00000000ull | c->a20_mask;
	uint64_t pde, pte, rights, rsvd, last_gpa;

	if (!cpu_paging(c)) {
		*out = (struct walk){.gpa = lin & c->a20_mask,
				     .user = true,
				     .writable = true,
				     .accessed = true,
				     .dirty = true};
		return 0;
	}

	/* ---- page directory */
	if (pae) {
		uint64_t pdpte = c->pdpte[lin >> 30];

		if (!(pdpte & PTE_P))
			return walk_fault(c, lin, acc, 0);
		out->pde_gpa = ((pdpte & PAE_ADDR) + (lin >> 21 & 0x1ffu) * 8) & a20;
		rsvd = PAE_RSVD | (c->efer & EFER_NXE ? 0 : PTE_NX);
	} else {
		out->pde_gpa = ((c->cr3 & PAGE_MASK) + (lin >> 22) * 4) & a20;
		rsvd = 0;
	}
	pde = entry_read(m, out->pde_gpa, pae);
	if (!(pde & PTE_P))
		return walk_fault(c, lin, acc, 0);
	if (pde & rsvd)
		return walk_fault(c, lin, acc, PF_P | PF_RSVD);

	if ((pde & PTE_PS) && (pae || (c->cr4 & CR4_PSE))) {
		if (pde & (pae ? PAE_LARGE_RSVD : PSE_RSVD))
			return walk_fault(c, lin, acc, PF_P | PF_RSVD);
		pte = pde;
		rights = pde;
		out->pte_gpa = 0;
		last_gpa = out->pde_gpa;
		if (pae) {
			out->page_size = 2u << 20;
			out->gpa = (pde & PAE_ADDR & ~0x1fffffull) | (lin & 0x1fffffu);
		} else {
			out->page_size = 4u << 20;
			out->gpa =
				(pde & 0xffc00000u) | (pde >> 13 & PSE_HIGH_MASK) << 32 | (lin & 0x3fffffu);
		}
	} else {
		/* ---- page table */
		if (!(acc & ACC_PEEK))
			entry_set(m, out->pde_gpa, PTE_A);
		if (pae)
			out->pte_gpa = ((pde & PAE_ADDR) + (lin >> 12 & 0x1ffu) * 8) & a20;
		else
			out->pte_gpa = ((pde & PAGE_MASK) + (lin >> 12 & 0x3ffu) * 4) & a20;
		pte = entry_read(m, out->pte_gpa, pae);
		if (!(pte & PTE_P))
			return walk_fault(c, lin, acc, 0);
		if (pte & rsvd)
			return walk_fault(c, lin, acc, PF_P | PF_RSVD);
		rights = pde & pte;
		last_gpa = out->pte_gpa;
		out->page_size = PAGE_SIZE;
		out->gpa = (pae ? pte & PAE_ADDR : pte & PAGE_MASK) | (lin & 0xfffu);
	}

	/* ---- rights (4.6.1) */
	out->gpa &= a20;
	out->user = rights & PTE_US;
	out->writable = rights & PTE_RW;
	out->nx = pae && ((pde | pte) & PTE_NX);
	out->accessed = pde & pte & PTE_A;
	out->global = (pte & PTE_G) && (c->cr4 & CR4_PGE);
	if (((acc & ACC_USER) && !out->user) ||
	    ((acc & ACC_WRITE) && !out->writable && ((acc & ACC_USER) || (c->cr0 & CR0_WP))) ||
	    ((acc & ACC_EXEC) && out->nx))
		return walk_fault(c, lin, acc, PF_P);

	/* ---- accessed and dirty (4.8) */
	if (!(acc & ACC_PEEK)) {
		entry_set(m, last_gpa, acc & ACC_WRITE ? PTE_A | PTE_D : PTE_A);
		if (acc & ACC_WRITE)
			pte |= PTE_D;
	}
	out->dirty = pte & PTE_D;
	return 0;
}
