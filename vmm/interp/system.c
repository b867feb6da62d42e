/* system.c - control registers, descriptor-table registers, protection queries, MSRs, and what else only a
 * kernel does. */
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

static int need_cpl0(struct vcpu *c)
{
	return c->cpl == 0 ? 0 : cpu_raise_error(c, VEC_GP, 0);
}

/* Instructions that real mode and v8086 do not know. */
static int need_protected(struct vcpu *c)
{
	return cpu_protected(c) && !cpu_v86(c) ? 0 : cpu_raise(c, VEC_UD);
}

/* ------------------------------------------------------------------ control registers */

#define CR0_WRITABLE (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

/* Reserved bits of a PDPTE: 1-2, 5-8, and beyond the 36-bit physical address (SDM vol. 3A table 4-8). */
#define PDPTE_RESERVED 0xfffffff0000001e6ull

int pdptes_load(struct vcpu *c, uint32_t cr3)
{
	uint64_t e[4];

	mem_phys_read(c->mem, cr3 & 0xffffffe0u & c->a20_mask, e, sizeof e);
	for (unsigned k = 0; k < 4; k++)
		if ((e[k] & PTE_P) && (e[k] & PDPTE_RESERVED))
			return cpu_raise_error(c, VEC_GP, 0);
	memcpy(c->pdpte, e, sizeof e);
	return 0;
}

static int write_cr0(struct vcpu *c, uint32_t v)
{
	uint32_t old = c->cr0, changed;

	if (((v & CR0_PG) && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD)))
		return cpu_raise_error(c, VEC_GP, 0);
	v = (v & CR0_WRITABLE) | CR0_ET;
	changed = v ^ old;
	if ((changed & v & CR0_PG) && (c->cr4 & CR4_PAE) && pdptes_load(c, c->cr3))
		return -1;
	c->cr0 = v;
	if (changed & CR0_PE)
		c->cpl = 0;
	if (changed & (CR0_PE | CR0_PG | CR0_WP)) {
		mem_mode_changed(c);
	}
	return 0;
}

static int write_cr3(struct vcpu *c, uint32_t v)
{
	if (cpu_paging(c) && (c->cr4 & CR4_PAE) && pdptes_load(c, v))
		return -1;
	c->cr3 = v;
	mem_load_cr3(c);
	return 0;
}

static int write_cr4(struct vcpu *c, uint32_t v)
{
	uint32_t changed = v ^ c->cr4;

	if (v & ~cpuid_cr4_allowed(c))
		return cpu_raise_error(c, VEC_GP, 0);
	if (cpu_paging(c) && (v & CR4_PAE) && (changed & (CR4_PAE | CR4_PSE | CR4_PGE)) &&
	    pdptes_load(c, c->cr3))
		return -1;
	c->cr4 = v;
	if (changed & (CR4_PSE | CR4_PAE | CR4_PGE)) {
		mem_mode_changed(c);
	}
	return 0;
}

int cr_write(struct vcpu *c, unsigned n, uint32_t value)
{
	switch (n) {
	case 0:
		return write_cr0(c, value);
	case 2:
		c->cr2 = value;
		return 0;
	case 3:
		return write_cr3(c, value);
	case 4:
		return write_cr4(c, value);
	default:
		return cpu_raise(c, VEC_UD);
	}
}

uint32_t cr_read(struct vcpu *c, unsigned n)
{
	switch (n) {
	case 0:
		return c->cr0;
	case 2:
		return c->cr2;
	case 3:
		return c->cr3;
	default:
		return c->cr4;
	}
}

int op_mov_from_cr(struct vcpu *c, const struct insn *i)
{
	if (need_cpl0(c))
		return -1;
	c->gpr[i->rm] = cr_read(c, i->reg);
	return INSN_NEXT;
}

int op_mov_to_cr(struct vcpu *c, const struct insn *i)
{
	return need_cpl0(c) || cr_write(c, i->reg, c->gpr[i->rm]) ? -1 : INSN_NEXT;
}

/* To memory 16 bits whatever the operand size; a 32-bit register takes all of CR0. */
int op_smsw(struct vcpu *c, const struct insn *i)
{
	if (i->mod != 3)
		return set_rm16(c, i, (uint16_t)c->cr0);
	set_reg(c, i->rm, c->cr0, i->opsize);
	return INSN_NEXT;
}

/* PE can be set but not cleared. */
int op_lmsw(struct vcpu *c, const struct insn *i)
{
	uint16_t v;

	if (need_cpl0(c) || rm16(c, i, &v))
		return -1;
	return write_cr0(c, (c->cr0 & ~(CR0_MP | CR0_EM | CR0_TS)) | (v & 0xfu));
}

int op_clts(struct vcpu *c, const struct insn *i)
{
	(void)i;
	if (need_cpl0(c))
		return -1;
	c->cr0 &= ~CR0_TS;
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ descriptor tables */

static int store_table(struct vcpu *c, const struct insn *i, const struct table_reg *t)
{
	uint32_t ea = interp_ea(c, i), next = ea + 2, lin;

	if (i->adsize == 2)
		next &= 0xffffu;
	/* Both parts must be writable before the first is written. */
	if (interp_rmw(c, i->seg, next, 4, &lin) || interp_write16(c, i->seg, ea, t->limit))
		return -1;
	return interp_write32(c, i->seg, next, t->base);
}

static int load_table(struct vcpu *c, const struct insn *i, struct table_reg *t)
{
	uint32_t ea = interp_ea(c, i), next = ea + 2, base;
	uint16_t limit;

	if (need_cpl0(c) || interp_read16(c, i->seg, ea, &limit))
		return -1;
	if (interp_read32(c, i->seg, i->adsize == 2 ? next & 0xffffu : next, &base))
		return -1;
	t->limit = limit;
	t->base = i->opsize == 2 ? base & 0xffffffu : base;
	return INSN_NEXT;
}

int op_sgdt(struct vcpu *c, const struct insn *i)
{
	return store_table(c, i, &c->gdtr);
}

int op_sidt(struct vcpu *c, const struct insn *i)
{
	return store_table(c, i, &c->idtr);
}

int op_lgdt(struct vcpu *c, const struct insn *i)
{
	return load_table(c, i, &c->gdtr);
}

int op_lidt(struct vcpu *c, const struct insn *i)
{
	return load_table(c, i, &c->idtr);
}

static int store_selector(struct vcpu *c, const struct insn *i, uint16_t sel)
{
	if (need_protected(c))
		return -1;
	if (i->mod != 3)
		return set_rm16(c, i, sel);
	set_reg(c, i->rm, sel, i->opsize);
	return INSN_NEXT;
}

int op_sldt(struct vcpu *c, const struct insn *i)
{
	return store_selector(c, i, c->ldtr.sel);
}

int op_str(struct vcpu *c, const struct insn *i)
{
	return store_selector(c, i, c->tr.sel);
}

int op_lldt(struct vcpu *c, const struct insn *i)
{
	uint16_t sel;

	if (need_protected(c) || need_cpl0(c) || rm16(c, i, &sel))
		return -1;
	return ldtr_load(c, sel, VEC_GP);
}

int op_ltr(struct vcpu *c, const struct insn *i)
{
	uint16_t sel;

	if (need_protected(c) || need_cpl0(c) || rm16(c, i, &sel))
		return -1;
	return tr_load(c, sel);
}

/* ------------------------------------------------------------------ protection queries: ZF is the answer */

static int answer(struct vcpu *c, bool yes)
{
	c->flags = yes ? c->flags | FL_ZF : c->flags & ~FL_ZF;
	return INSN_NEXT;
}

/* Visible at this privilege through a selector with this RPL; conforming code always is. */
static bool visible(const struct vcpu *c, uint16_t sel, const struct desc *d)
{
	if (desc_is_code(d) && desc_is_conforming(d))
		return true;
	return desc_dpl(d) >= c->cpl && desc_dpl(d) >= (sel & 3u);
}

/* The selector in r/m and its descriptor: 0, 1 for one that cannot be looked at, -1 for an exception. */
static int query(struct vcpu *c, const struct insn *i, struct desc *d)
{
	uint16_t sel;
	int r;

	if (need_protected(c) || rm16(c, i, &sel))
		return -1;
	r = desc_find(c, sel, d);
	if (r)
		return r;
	return visible(c, sel, d) ? 0 : 1;
}

int op_lar(struct vcpu *c, const struct insn *i)
{
	struct desc d;
	int r = query(c, i, &d);

	if (r < 0)
		return -1;
	if (r == 0 && !(desc_attr(&d) & SEG_S)) {
		switch (desc_sys_type(&d)) {
		case SYS_TSS16:
		case SYS_LDT:
		case SYS_TSS16_BUSY:
		case SYS_CALL16:
		case SYS_TASK_GATE:
		case SYS_TSS32:
		case SYS_TSS32_BUSY:
		case SYS_CALL32:
			break;
		default:
			r = 1;
		}
	}
	if (r == 0)
		set_reg(c, i->reg, d.hi & (i->opsize == 4 ? 0x00ffff00u : 0xff00u), i->opsize);
	return answer(c, r == 0);
}

int op_lsl(struct vcpu *c, const struct insn *i)
{
	struct desc d;
	int r = query(c, i, &d);

	if (r < 0)
		return -1;
	if (r == 0 && !(desc_attr(&d) & SEG_S)) {
		switch (desc_sys_type(&d)) {
		case SYS_TSS16:
		case SYS_LDT:
		case SYS_TSS16_BUSY:
		case SYS_TSS32:
		case SYS_TSS32_BUSY:
			break;
		default:
			r = 1;
		}
	}
	if (r == 0)
		set_reg(c, i->reg, desc_to_seg(&d, 0).limit, i->opsize);
	return answer(c, r == 0);
}

int op_verr(struct vcpu *c, const struct insn *i)
{
	struct desc d;
	int r = query(c, i, &d);

	if (r < 0)
		return -1;
	return answer(c,
		      r == 0 && (desc_attr(&d) & SEG_S) && (!desc_is_code(&d) || (desc_attr(&d) & SEG_RW)));
}

int op_verw(struct vcpu *c, const struct insn *i)
{
	struct desc d;
	int r = query(c, i, &d);

	if (r < 0)
		return -1;
	return answer(c, r == 0 && desc_is_writable_data(&d));
}

int op_arpl(struct vcpu *c, const struct insn *i)
{
	uint16_t d, rpl = c->gpr[i->reg] & 3u;

	/* The destination is written, and need be writable, only if it changes. */
	if (need_protected(c) || rm16(c, i, &d))
		return -1;
	if ((d & 3u) >= rpl)
		return answer(c, false);
	if (set_rm16(c, i, (uint16_t)((d & ~3u) | rpl)))
		return -1;
	return answer(c, true);
}

/* ------------------------------------------------------------------ interrupt flag */

enum { IF_REAL, IF_VIRTUAL, IF_FAULT };

/* What CLI and STI work on: IF, or VIF in v8086 with VME and at CPL 3 with PVI (SDM vol. 3B 20.3.3.2, 20.4).
 */
static int which_if(const struct vcpu *c)
{
	if (!cpu_protected(c) || (!cpu_v86(c) && c->cpl <= cpu_iopl(c)) || cpu_iopl(c) == 3)
		return IF_REAL;
	if (cpu_v86(c))
		return c->cr4 & CR4_VME ? IF_VIRTUAL : IF_FAULT;
	return c->cpl == 3 && (c->cr4 & CR4_PVI) ? IF_VIRTUAL : IF_FAULT;
}

int op_cli(struct vcpu *c, const struct insn *i)
{
	(void)i;
	switch (which_if(c)) {
	case IF_REAL:
		c->iflag = 0;
		return INSN_NEXT;
	case IF_VIRTUAL:
		c->sysflags &= ~FL_VIF;
		return INSN_NEXT;
	default:
		return cpu_raise_error(c, VEC_GP, 0);
	}
}

int op_sti(struct vcpu *c, const struct insn *i)
{
	(void)i;
	switch (which_if(c)) {
	case IF_REAL:
		if (!c->iflag)
			interp_shadow(c, false);
		c->iflag = FL_IF;
		return INSN_NEXT;
	case IF_VIRTUAL:
		if (!(c->sysflags & FL_VIP)) {
			c->sysflags |= FL_VIF;
			return INSN_NEXT;
		}
		return cpu_raise_error(c, VEC_GP, 0);
	default:
		return cpu_raise_error(c, VEC_GP, 0);
	}
}

int op_hlt(struct vcpu *c, const struct insn *i)
{
	(void)i;
	if (need_cpl0(c))
		return -1;
	c->halted = true;
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ caches and TLB */

int op_invlpg(struct vcpu *c, const struct insn *i)
{
	if (need_cpl0(c))
		return -1;
	mem_flush_page(c, c->seg[i->seg].base + interp_ea(c, i));
	return INSN_NEXT;
}

/* INVD, WBINVD: there are no caches to see. */
int op_invd(struct vcpu *c, const struct insn *i)
{
	(void)i;
	return need_cpl0(c) ? -1 : INSN_NEXT;
}

/* 0F AE /7: SFENCE in the register form. CLFLUSH faults as a load of one byte would, but that it may go
 * through an execute-only segment. */
int op_clflush_sfence(struct vcpu *c, const struct insn *i)
{
	const struct seg *s = &c->seg[i->seg];
	uint32_t off = interp_ea(c, i);
	uint8_t b;

	if (i->mod == 3)
		return INSN_NEXT;
	if ((s->attr & (SEG_P | SEG_CODE)) == (SEG_P | SEG_CODE) && seg_holds(s, off, 1))
		return mem_read8(c, s->base + off, &b, interp_acc(c));
	return interp_read8(c, i->seg, off, &b);
}

/* ------------------------------------------------------------------ time, identification, MSRs */

int op_rdtsc(struct vcpu *c, const struct insn *i)
{
	uint64_t t;

	(void)i;
	if ((c->cr4 & CR4_TSD) && c->cpl != 0)
		return cpu_raise_error(c, VEC_GP, 0);
	t = __builtin_ia32_rdtsc() + c->tsc_offset;
	c->gpr[EAX] = (uint32_t)t;
	c->gpr[EDX] = (uint32_t)(t >> 32);
	return INSN_NEXT;
}

/* The guest CPU offers no performance counters. */
int op_rdpmc(struct vcpu *c, const struct insn *i)
{
	(void)i;
	return cpu_raise_error(c, VEC_GP, 0);
}

int op_cpuid(struct vcpu *c, const struct insn *i)
{
	uint32_t r[4];

	(void)i;
	cpuid_query(c, c->gpr[EAX], c->gpr[ECX], r);
	c->gpr[EAX] = r[0];
	c->gpr[EBX] = r[1];
	c->gpr[ECX] = r[2];
	c->gpr[EDX] = r[3];
	return INSN_NEXT;
}

int op_rdmsr(struct vcpu *c, const struct insn *i)
{
	uint64_t v;

	(void)i;
	if (need_cpl0(c) || msr_read(c, c->gpr[ECX], &v))
		return -1;
	c->gpr[EAX] = (uint32_t)v;
	c->gpr[EDX] = (uint32_t)(v >> 32);
	return INSN_NEXT;
}

/* EFER.NXE changes what may be executed. */
int op_wrmsr(struct vcpu *c, const struct insn *i)
{
	(void)i;
	if (need_cpl0(c) || msr_write(c, c->gpr[ECX], (uint64_t)c->gpr[EDX] << 32 | c->gpr[EAX]))
		return -1;
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ SYSENTER, SYSEXIT (SDM vol. 2B) */

static void flat_segments(struct vcpu *c, uint16_t cs, uint16_t ss, unsigned dpl)
{
	const uint16_t common = (uint16_t)(SEG_P | SEG_S | SEG_G | SEG_DB | SEG_RW | SEG_ACCESSED | dpl << 5);

	c->seg[CS] = (struct seg){.sel = cs, .limit = 0xffffffffu, .attr = common | SEG_CODE};
	c->seg[SS] = (struct seg){.sel = ss, .limit = 0xffffffffu, .attr = common};
	c->cpl = dpl;
}

int cpu_sysenter(struct vcpu *c)
{
	uint16_t cs = c->sysenter_cs & 0xfffcu;

	if (!cpu_protected(c) || cs == 0)
		return cpu_raise_error(c, VEC_GP, 0);
	c->sysflags &= ~(FL_VM | FL_RF);
	c->iflag = 0;
	flat_segments(c, cs, (uint16_t)(cs + 8), 0);
	c->gpr[ESP] = c->sysenter_esp;
	c->eip = c->sysenter_eip;
	return 0;
}

int cpu_sysexit(struct vcpu *c)
{
	uint16_t cs = c->sysenter_cs & 0xfffcu;

	if (!cpu_protected(c) || cs == 0 || c->cpl != 0)
		return cpu_raise_error(c, VEC_GP, 0);
	flat_segments(c, (uint16_t)((cs + 16) | 3), (uint16_t)((cs + 24) | 3), 3);
	c->gpr[ESP] = c->gpr[ECX];
	c->eip = c->gpr[EDX];
	return 0;
}

int op_sysenter(struct vcpu *c, const struct insn *i)
{
	(void)i;
	return cpu_sysenter(c) ? -1 : INSN_JUMPED;
}

int op_sysexit(struct vcpu *c, const struct insn *i)
{
	(void)i;
	return cpu_sysexit(c) ? -1 : INSN_JUMPED;
}

int op_ud(struct vcpu *c, const struct insn *i)
{
	(void)i;
	return cpu_raise(c, VEC_UD);
}
