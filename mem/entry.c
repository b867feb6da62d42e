/* entry.c - what the guest's directory and page-table entries allow, and what of it a shadow entry still has
 * right. */
#include "mem/internal.h"

bool pde_large(const struct mem *m, uint64_t pde)
{
	return (pde & PTE_PS) && (m->mode.pae || m->mode.pse);
}

/* What of a directory entry matters to a slot: address and rights, A, and for a large page D. 0: not present.
 */
uint64_t pde_key(const struct mem *m, uint64_t pde)
{
	uint64_t key = pde & (RIGHTS | PTE_A | (m->mode.pae ? ~0xfffull : 0xfffff000u));

	if (!(pde & PTE_P))
		return 0;
	return pde_large(m, pde) ? key | PTE_PS | (pde & PTE_D) : key;
}

/* Where the page table is that the directory entry names. */
uint64_t pde_table(const struct mem *m, uint64_t key)
{
	return key & (m->mode.pae ? PAE_ADDR : PAGE_MASK) & (0xffffffff00000000ull | m->mode.a20);
}

/* Differs, except that A or D came. */
bool pde_differs(uint64_t filled_from, uint64_t now)
{
	const uint64_t change = filled_from ^ now;

	return (change & ~(uint64_t)(PTE_A | PTE_D)) || (filled_from & ~now & (PTE_A | PTE_D));
}

/* gfn is RAM. */
uint64_t entry_get(const struct mem *m, uint32_t gfn, uint32_t index)
{
	const uint8_t *table = m->ram + ((uint64_t)gfn << PAGE_SHIFT);

	if (m->mode.pae)
		return ((const uint64_t *)(const void *)table)[index];
	return ((const uint32_t *)(const void *)table)[index];
}

uint64_t space_pde_gpa(const struct mem *m, const struct window *w, uint32_t slot)
{
	if (m->mode.pae)
		return ((uint64_t)w->pd[slot >> 9] << PAGE_SHIFT) + (slot & 511) * 8;
	return ((uint64_t)w->pd[0] << PAGE_SHIFT) + slot * 4;
}

/* The directory entry of a slot in address space w; 0 if there is no directory to shadow. */
uint64_t space_pde(const struct mem *m, const struct window *w, uint32_t slot)
{
	const uint32_t gfn = m->mode.pae ? w->pd[slot >> 9] : w->pd[0];

	return gfn == NO_GFN ? 0 : entry_get(m, gfn, m->mode.pae ? slot & 511 : slot);
}

struct leaf leaf_decode(const struct mem *m, const struct slot *sl, uint32_t index, uint64_t pte)
{
	const bool pae = m->mode.pae;
	const uint64_t pde = sl->pde, rights = sl->large ? pde : pde & pte, last = sl->large ? pde : pte;
	const uint64_t a20 = 0xffffffff00000000ull | m->mode.a20;
	uint64_t gpa;
	struct leaf l;

	if (sl->large && pae)
		gpa = (pde & PAE_ADDR & ~0x1fffffull) + ((uint64_t)index << PAGE_SHIFT);
	else if (sl->large)
		gpa = (pde & 0xffc00000u) + ((uint64_t)index << PAGE_SHIFT) +
		      ((pde >> 13 & PSE_HIGH_MASK) << 32);
	else
		gpa = pte & (pae ? PAE_ADDR : PAGE_MASK);
	gpa &= a20;
	l.gfn = (uint32_t)(gpa >> PAGE_SHIFT);
	l.ok = (rights & PTE_P) && (last & PTE_A) && gpa_is_ram(m, gpa);
	if (pae && !sl->large && ((pde | pte) & (PAE_RSVD | (m->mode.nxe ? 0 : PTE_NX))))
		l.ok = false;
	l.user = rights & PTE_US;
	l.write = rights & PTE_RW;
	l.dirty = last & PTE_D;
	l.nx = pae && ((pde | pte) & PTE_NX);
	return l;
}

struct leaf leaf_read(const struct mem *m, const struct slot *sl, uint32_t index)
{
	return leaf_decode(m, sl, index, sl->large ? sl->pde : entry_get(m, sl->pt_gfn, index));
}

/* The guest may write without the VMM having to set D first. User pages are only ever written with user
 * rights: what CR0.WP allows the kernel there is emulated. */
bool leaf_may_write(const struct window *w, const struct leaf *l)
{
	return l->dirty && (l->write || (w->kind == WIN_SUPER && !w->m->mode.wp));
}

/* Called when e has been found to agree with the guest's entry: remembers that it does so only while CR0.WP
 * is clear. */
void note_wp0(struct window *w, uint32_t e, const struct leaf *l)
{
	if (!l->write && (e & (SH_WRITE | SH_WPROT)))
		w->wp0 = true;
}

/* What the guest's entry means for shadow entry e. */
enum sh_verdict sh_judge(const struct window *w, uint32_t e, const struct leaf *l)
{
	if (!l->ok || l->gfn != e >> PAGE_SHIFT)
		return SH_DROP;
	if ((e & SH_CODE) && (l->nx || (w->kind == WIN_USER && !l->user)))
		return SH_DROP;
	if (!(e & SH_MAPPED))
		return SH_KEEP;
	if (l->user != (w->kind == WIN_USER))
		return SH_DROP;
	return (e & (SH_WRITE | SH_WPROT)) && !leaf_may_write(w, l) ? SH_LOWER : SH_KEEP;
}
