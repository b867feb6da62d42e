/* task.c - hardware task switches (SDM vol. 3A chapter 7).
 *
 * Up to the commit point (the old state saved, TR loaded) an exception leaves the old task as it was. Past
 * it, the new task's registers are all loaded first and its segments then checked one by one, so that an
 * exception is taken by the new task.
 */
#include "vmm/interp/interp.h"

/* The dynamic fields of a TSS, whichever size. Order of gpr and sel is that of the register numbers. */
struct task {
	uint32_t cr3, eip, eflags, gpr[8];
	uint16_t sel[6], ldt;
	bool trap;
};

/* SDM vol. 3A figures 7-2 and 7-10. */
#define TSS32_CR3   0x1c
#define TSS32_EIP   0x20
#define TSS32_FLAGS 0x24
#define TSS32_GPR   0x28
#define TSS32_SEG   0x48
#define TSS32_LDT   0x60
#define TSS32_TRAP  0x64
#define TSS32_LIMIT 0x67
#define TSS16_IP    0x0e
#define TSS16_FLAGS 0x10
#define TSS16_GPR   0x12
#define TSS16_SEG   0x22
#define TSS16_LDT   0x2a
#define TSS16_LIMIT 0x2b

/* All TSS accesses are implicit supervisor accesses. */
static uint16_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return v;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

static int read_task(struct vcpu *c, const struct seg *tss, struct task *t)
{
	uint8_t b[TSS32_LIMIT + 1];

	memset(t, 0, sizeof *t);
	if (tss->attr & 8) {
		if (mem_read(c, tss->base, b, sizeof b, ACC_READ))
			return -1;
		t->cr3 = get32(b + TSS32_CR3);
		t->eip = get32(b + TSS32_EIP);
		t->eflags = get32(b + TSS32_FLAGS);
		for (unsigned r = 0; r < 8; r++)
			t->gpr[r] = get32(b + TSS32_GPR + 4 * r);
		for (unsigned r = 0; r < 6; r++)
			t->sel[r] = get16(b + TSS32_SEG + 4 * r);
		t->ldt = get16(b + TSS32_LDT);
		t->trap = b[TSS32_TRAP] & 1;
		return 0;
	}
	if (mem_read(c, tss->base, b, TSS16_LIMIT + 1, ACC_READ))
		return -1;
	t->eip = get16(b + TSS16_IP);
	t->eflags = get16(b + TSS16_FLAGS);
	for (unsigned r = 0; r < 8; r++)
		t->gpr[r] = 0xffff0000u | get16(b + TSS16_GPR + 2 * r);
	for (unsigned r = 0; r < 4; r++)
		t->sel[r] = get16(b + TSS16_SEG + 2 * r);
	t->ldt = get16(b + TSS16_LDT);
	return 0;
}

static int save_task(struct vcpu *c, uint32_t eip, uint32_t eflags)
{
	uint8_t b[TSS32_LIMIT + 1];

	if (c->tr.attr & 8) {
		unsigned len = TSS32_SEG + 4 * 6 - TSS32_EIP;

		/* Only EIP to GS are written; the upper halves of the selector fields stay. */
		if (mem_read(c, c->tr.base + TSS32_EIP, b, len, ACC_READ))
			return -1;
		memcpy(b, &eip, 4);
		memcpy(b + 4, &eflags, 4);
		memcpy(b + 8, c->gpr, sizeof c->gpr);
		for (unsigned r = 0; r < 6; r++)
			memcpy(b + TSS32_SEG - TSS32_EIP + 4 * r, &c->seg[r].sel, 2);
		return mem_write(c, c->tr.base + TSS32_EIP, b, len, ACC_WRITE);
	}
	memcpy(b, &eip, 2);
	memcpy(b + 2, &eflags, 2);
	for (unsigned r = 0; r < 8; r++)
		memcpy(b + 4 + 2 * r, &c->gpr[r], 2);
	for (unsigned r = 0; r < 4; r++)
		memcpy(b + TSS16_SEG - TSS16_IP + 2 * r, &c->seg[r].sel, 2);
	return mem_write(c, c->tr.base + TSS16_IP, b, TSS16_LDT - TSS16_IP, ACC_WRITE);
}

/* ------------------------------------------------------------------ the new task's segments */

static int bad(struct vcpu *c, unsigned vector, uint16_t sel, uint32_t ext)
{
	return cpu_raise_error(c, vector, sel_error(sel, ext));
}

static int load_task_ldt(struct vcpu *c, uint16_t sel, uint32_t ext)
{
	c->ldtr = (struct seg){.sel = sel};
	if (ldtr_load(c, sel, VEC_TS)) {
		c->exc.error |= c->exc.vector == VEC_TS ? ext : 0;
		return -1;
	}
	return 0;
}

static int load_task_cs(struct vcpu *c, uint16_t sel, uint32_t ext)
{
	struct desc d;
	unsigned rpl = sel & 3u;

	if (desc_read(c, sel, VEC_TS, ext, &d))
		return -1;
	if (!desc_is_code(&d) || (desc_is_conforming(&d) ? desc_dpl(&d) > rpl : desc_dpl(&d) != rpl))
		return bad(c, VEC_TS, sel, ext);
	if (!desc_present(&d))
		return bad(c, VEC_NP, sel, ext);
	if (desc_mark_accessed(c, &d))
		return -1;
	seg_commit_cs(c, &d, sel, rpl);
	return 0;
}

static int load_task_ss(struct vcpu *c, uint16_t sel, uint32_t ext)
{
	struct desc d;

	if (desc_read(c, sel, VEC_TS, ext, &d))
		return -1;
	if (!desc_is_writable_data(&d) || desc_dpl(&d) != c->cpl || (sel & 3u) != c->cpl)
		return bad(c, VEC_TS, sel, ext);
	if (!desc_present(&d))
		return bad(c, VEC_SS, sel, ext);
	if (desc_mark_accessed(c, &d))
		return -1;
	c->seg[SS] = desc_to_seg(&d, sel);
	return 0;
}

static int load_task_data(struct vcpu *c, unsigned sreg, uint16_t sel, uint32_t ext)
{
	struct desc d;
	uint16_t attr;

	if (!(sel & 0xfffcu))
		return 0;
	if (desc_read(c, sel, VEC_TS, ext, &d))
		return -1;
	attr = desc_attr(&d);
	if (!(attr & SEG_S) || ((attr & SEG_CODE) && !(attr & SEG_RW)))
		return bad(c, VEC_TS, sel, ext);
	if ((attr & (SEG_CODE | SEG_DC)) != (SEG_CODE | SEG_DC) &&
	    ((sel & 3u) > desc_dpl(&d) || c->cpl > desc_dpl(&d)))
		return bad(c, VEC_TS, sel, ext);
	if (!desc_present(&d))
		return bad(c, VEC_NP, sel, ext);
	if (desc_mark_accessed(c, &d))
		return -1;
	c->seg[sreg] = desc_to_seg(&d, sel);
	return 0;
}

static int load_segments(struct vcpu *c, const struct task *t, uint32_t ext)
{
	static const uint8_t data[] = {ES, DS, FS, GS};

	for (unsigned r = 0; r < 6; r++)
		c->seg[r] = (struct seg){.sel = t->sel[r]};
	if (load_task_ldt(c, t->ldt, ext))
		return -1;
	if (cpu_v86(c)) {
		for (unsigned r = 0; r < 6; r++)
			c->seg[r] = seg_v86(t->sel[r]);
		c->cpl = 3;
		return 0;
	}
	c->cpl = t->sel[CS] & 3u;
	if (load_task_cs(c, t->sel[CS], ext) || load_task_ss(c, t->sel[SS], ext))
		return -1;
	for (unsigned k = 0; k < sizeof data; k++)
		if (load_task_data(c, data[k], t->sel[data[k]], ext))
			return -1;
	return 0;
}

/* ------------------------------------------------------------------ the switch */

static int load_cr3(struct vcpu *c, uint32_t cr3)
{
	if (!cpu_paging(c))
		return 0;
	if ((c->cr4 & CR4_PAE) && pdptes_load(c, cr3))
		return -1;
	c->cr3 = cr3;
	mem_load_cr3(c);
	return 0;
}

/* Makes sure that all commit writes can be written. */
static int probe(struct vcpu *c, const struct seg *tss, const struct desc *old, const struct desc *new)
{
	unsigned len = c->tr.attr & 8 ? TSS32_LDT : TSS16_LDT;

	if (interp_spoil())
		return -1;
	if (mem_probe(c, c->tr.base, len, ACC_WRITE) || mem_probe(c, tss->base, 2, ACC_WRITE) ||
	    mem_probe(c, old->addr, 8, ACC_WRITE) || mem_probe(c, new->addr, 8, ACC_WRITE))
		return -1;
	return 0;
}

/* Old state saved, busy bits, back link, and TR: from here on there is no way back. */
static int commit(struct vcpu *c, const struct seg *tss, struct desc *d, const struct task_event *ev)
{
	struct desc old = {.addr = c->gdtr.base + (c->tr.sel & 0xfff8u)};
	bool nests = ev->why == TASK_CALL || ev->why == TASK_INT;
	uint64_t raw;

	if (probe(c, tss, &old, d) || mem_read64(c, old.addr, &raw, ACC_READ) ||
	    save_task(c, ev->eip, ev->eflags))
		return -1;
	old.hi = (uint32_t)(raw >> 32);
	if (!nests && desc_write_rights(c, &old, 0, 2))
		return -1;
	if (nests && mem_write16(c, tss->base, c->tr.sel, ACC_WRITE))
		return -1;
	if (ev->why != TASK_IRET && desc_write_rights(c, d, 2, 0))
		return -1;
	c->tr = *tss;
	c->tr.attr |= 2;
	return 0;
}

static int push_error(struct vcpu *c, unsigned size, uint32_t error)
{
	struct frame f = frame_current(c, 1);

	if (frame_push(c, &f, size, error))
		return -1;
	frame_commit(c, &f);
	return 0;
}

int task_switch(struct vcpu *c, uint16_t sel, struct desc *d, const struct task_event *ev)
{
	struct seg tss = desc_to_seg(d, sel);
	struct task t;
	bool tss32 = tss.attr & 8;

	if (tss.limit < (tss32 ? TSS32_LIMIT : TSS16_LIMIT))
		return bad(c, VEC_TS, sel, ev->ext);
	if (read_task(c, &tss, &t) || commit(c, &tss, d, ev))
		return -1;

	if (ev->why == TASK_CALL || ev->why == TASK_INT)
		t.eflags |= FL_NT;
	c->cr0 |= CR0_TS;
	c->dr[7] &= ~0x155u; /* L0-L3, LE */
	cpu_set_eflags(c, t.eflags);
	memcpy(c->gpr, t.gpr, sizeof c->gpr);
	c->eip = t.eip;
	interp_entered();
	if ((tss32 && load_cr3(c, t.cr3)) || load_segments(c, &t, ev->ext))
		return -1;
	if (ev->has_error && push_error(c, tss32 ? 4 : 2, ev->error))
		return -1;
	if (c->eip > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, ev->ext);
	if (t.trap)
		return debug_raise(c, 0x8000u); /* BT */
	return INSN_JUMPED;
}

int task_gate(struct vcpu *c, const struct desc *gate, const struct task_event *ev)
{
	uint16_t sel = (uint16_t)(gate->lo >> 16);
	struct desc d;

	if ((sel & 4) || !(sel & 0xfffcu))
		return bad(c, VEC_GP, sel, ev->ext);
	if (desc_read(c, sel, VEC_GP, ev->ext, &d))
		return -1;
	if (desc_sys_type(&d) != SYS_TSS16 && desc_sys_type(&d) != SYS_TSS32)
		return bad(c, VEC_GP, sel, ev->ext);
	if (!desc_present(&d))
		return bad(c, VEC_NP, sel, ev->ext);
	return task_switch(c, sel, &d, ev);
}
