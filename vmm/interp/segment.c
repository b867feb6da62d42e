/* segment.c - descriptors, segment registers, and stacks of other privilege levels (SDM vol. 3A chapters 3
 * and 5). */
#include "vmm/interp/interp.h"

/* ------------------------------------------------------------------ checks of an access */

bool seg_holds(const struct seg *s, uint32_t off, unsigned size)
{
	uint32_t last = off + size - 1;

	if (!(s->attr & SEG_CODE) && (s->attr & SEG_DC)) { /* expand-down: valid above the limit */
		uint32_t top = s->attr & SEG_DB ? 0xffffffffu : 0xffffu;

		return off > s->limit && last <= top && last >= off;
	}
	return last >= off && last <= s->limit; /* an access that wraps around at 4 GiB faults too */
}

static bool type_allows(const struct vcpu *c, const struct seg *s, bool write)
{
	if (!cpu_protected(c))
		return true;
	if (!(s->attr & SEG_P))
		return false;
	if (s->attr & SEG_CODE)
		return !write && (s->attr & SEG_RW);
	return !write || (s->attr & SEG_RW);
}

int interp_linear_checked(struct vcpu *c, unsigned seg, uint32_t off, unsigned size, bool write,
			  uint32_t *lin)
{
	const struct seg *s = &c->seg[seg];

	if (!type_allows(c, s, write) || !seg_holds(s, off, size))
		return cpu_raise_error(c, seg == SS ? VEC_SS : VEC_GP, 0);
	*lin = s->base + off;
	if ((c->sysflags & FL_AC) && (c->cr0 & CR0_AM) && c->cpl == 3 &&
	    (size == 2 || size == 4 || size == 8) && (*lin & (size - 1)))
		return cpu_raise_error(c, VEC_AC, 0);
	if (c->dr[7] & 0xffu)
		debug_note_data(c, *lin, size, write);
	return 0;
}

int interp_read(struct vcpu *c, unsigned seg, uint32_t off, void *buf, unsigned len)
{
	uint32_t lin;

	if (interp_linear(c, seg, off, len, false, &lin))
		return -1;
	return mem_read(c, lin, buf, len, interp_acc(c));
}

int interp_write(struct vcpu *c, unsigned seg, uint32_t off, const void *buf, unsigned len)
{
	uint32_t lin;

	if (interp_linear(c, seg, off, len, true, &lin))
		return -1;
	return mem_write(c, lin, buf, len, ACC_WRITE | interp_acc(c));
}

/* ------------------------------------------------------------------ descriptors */

struct seg desc_to_seg(const struct desc *d, uint16_t sel)
{
	uint32_t limit = (d->lo & 0xffffu) | (d->hi & 0xf0000u);
	uint16_t attr = desc_attr(d);

	return (struct seg){
		.sel = sel,
		.attr = attr,
		.base = d->lo >> 16 | (d->hi & 0xffu) << 16 | (d->hi & 0xff000000u),
		.limit = attr & SEG_G ? limit << 12 | 0xfffu : limit,
	};
}

int desc_find(struct vcpu *c, uint16_t sel, struct desc *d)
{
	uint32_t base = c->gdtr.base, limit = c->gdtr.limit;
	uint64_t raw;

	if (!(sel & 0xfffcu))
		return 1;
	if (sel & 4) {
		if (!(c->ldtr.attr & SEG_P))
			return 1;
		base = c->ldtr.base;
		limit = c->ldtr.limit;
	}
	if ((sel | 7u) > limit)
		return 1;
	d->addr = base + (sel & 0xfff8u);
	if (mem_read64(c, d->addr, &raw, ACC_READ))
		return -1;
	d->lo = (uint32_t)raw;
	d->hi = (uint32_t)(raw >> 32);
	return 0;
}

int desc_read(struct vcpu *c, uint16_t sel, unsigned vector, uint32_t ext, struct desc *d)
{
	const int r = desc_find(c, sel, d);

	if (r > 0)
		cpu_raise_error(c, vector, sel_error(sel, ext));
	return r ? -1 : 0;
}

int desc_write_rights(struct vcpu *c, struct desc *d, uint8_t set, uint8_t clear)
{
	uint8_t rights = (uint8_t)((d->hi >> 8 | set) & (uint8_t)~clear);

	if (mem_write8(c, d->addr + 5, rights, ACC_WRITE))
		return -1;
	d->hi = (d->hi & 0xffff00ffu) | (uint32_t)rights << 8;
	return 0;
}

int desc_mark_accessed(struct vcpu *c, struct desc *d)
{
	return d->hi & 0x100u ? 0 : desc_write_rights(c, d, SEG_ACCESSED, 0);
}

/* ------------------------------------------------------------------ segment registers */

struct seg seg_v86(uint16_t sel)
{
	return (struct seg){
		.sel = sel,
		.base = (uint32_t)sel << 4,
		.limit = 0xffff,
		.attr = SEG_P | SEG_S | SEG_DPL | SEG_RW | SEG_ACCESSED,
	};
}

/* Real mode changes selector and base only: limit and size stay what protected mode left ("unreal mode"). */
struct seg seg_real(const struct seg *old, uint16_t sel)
{
	return (struct seg){
		.sel = sel,
		.base = (uint32_t)sel << 4,
		.limit = old->limit,
		.attr = (uint16_t)((old->attr & (SEG_G | SEG_DB)) | SEG_P | SEG_S | SEG_RW | SEG_ACCESSED),
	};
}

/* The descriptor that a load of SS, or of another segment register, takes from the tables; sel is not null.
 */
static int find_stack(struct vcpu *c, uint16_t sel, struct desc *d)
{
	if (desc_read(c, sel, VEC_GP, 0, d))
		return -1;
	if ((sel & 3u) != c->cpl || !desc_is_writable_data(d) || desc_dpl(d) != c->cpl)
		return cpu_raise_error(c, VEC_GP, sel_error(sel, 0));
	if (!desc_present(d))
		return cpu_raise_error(c, VEC_SS, sel_error(sel, 0));
	return 0;
}

static int find_data(struct vcpu *c, uint16_t sel, struct desc *d)
{
	uint16_t attr;

	if (desc_read(c, sel, VEC_GP, 0, d))
		return -1;
	attr = desc_attr(d);
	if (!(attr & SEG_S) || ((attr & SEG_CODE) && !(attr & SEG_RW)))
		return cpu_raise_error(c, VEC_GP, sel_error(sel, 0));
	if ((attr & (SEG_CODE | SEG_DC)) != (SEG_CODE | SEG_DC) &&
	    ((sel & 3u) > desc_dpl(d) || c->cpl > desc_dpl(d)))
		return cpu_raise_error(c, VEC_GP, sel_error(sel, 0));
	if (!desc_present(d))
		return cpu_raise_error(c, VEC_NP, sel_error(sel, 0));
	return 0;
}

static int load_protected(struct vcpu *c, unsigned sreg, uint16_t sel)
{
	struct desc d;

	if (!(sel & 0xfffcu)) {
		if (sreg == SS)
			return cpu_raise_error(c, VEC_GP, 0);
		c->seg[sreg] = (struct seg){.sel = sel};
		return 0;
	}
	if ((sreg == SS ? find_stack(c, sel, &d) : find_data(c, sel, &d)) || desc_mark_accessed(c, &d))
		return -1;
	c->seg[sreg] = desc_to_seg(&d, sel);
	return 0;
}

bool seg_load_foresee(struct vcpu *c, unsigned sreg, uint16_t sel, uint64_t *raw, struct seg *s)
{
	const struct exception saved = c->exc;
	struct desc d;
	int r;

	if (!(sel & 0xfffcu) || sel & 4)
		return false;
	r = sreg == SS ? find_stack(c, sel, &d) : find_data(c, sel, &d);
	c->exc = saved;
	if (r || !(d.hi & 0x100u))
		return false;
	*raw = (uint64_t)d.hi << 32 | d.lo;
	*s = desc_to_seg(&d, sel);
	return true;
}

int seg_load(struct vcpu *c, unsigned sreg, uint16_t sel)
{
	if (!cpu_protected(c)) {
		c->seg[sreg] = seg_real(&c->seg[sreg], sel);
		return 0;
	}
	if (cpu_v86(c)) {
		c->seg[sreg] = seg_v86(sel);
		return 0;
	}
	return load_protected(c, sreg, sel);
}

void seg_commit_cs(struct vcpu *c, const struct desc *d, uint16_t sel, unsigned cpl)
{
	c->seg[CS] = desc_to_seg(d, (uint16_t)((sel & 0xfffcu) | cpl));
	c->cpl = cpl;
}

void seg_commit_cs_real(struct vcpu *c, uint16_t sel)
{
	c->seg[CS] = cpu_v86(c) ? seg_v86(sel) : seg_real(&c->seg[CS], sel);
}

void seg_drop_privileged(struct vcpu *c)
{
	static const uint8_t data[] = {ES, DS, FS, GS};

	for (unsigned k = 0; k < sizeof data; k++) {
		struct seg *s = &c->seg[data[k]];
		bool conforming = (s->attr & (SEG_CODE | SEG_DC)) == (SEG_CODE | SEG_DC);

		if ((s->attr & SEG_P) && !conforming && SEG_DPL_OF(s->attr) < c->cpl)
			*s = (struct seg){0};
	}
}

int ldtr_load(struct vcpu *c, uint16_t sel, unsigned vector)
{
	struct desc d;

	if (!(sel & 0xfffcu)) {
		c->ldtr = (struct seg){.sel = sel};
		return 0;
	}
	if (sel & 4)
		return cpu_raise_error(c, vector, sel_error(sel, 0));
	if (desc_read(c, sel, vector, 0, &d))
		return -1;
	if (desc_sys_type(&d) != SYS_LDT)
		return cpu_raise_error(c, vector, sel_error(sel, 0));
	if (!desc_present(&d))
		return cpu_raise_error(c, vector == VEC_TS ? VEC_TS : VEC_NP, sel_error(sel, 0));
	c->ldtr = desc_to_seg(&d, sel);
	return 0;
}

int tr_load(struct vcpu *c, uint16_t sel)
{
	struct desc d;

	if (!(sel & 0xfffcu))
		return cpu_raise_error(c, VEC_GP, 0);
	if (sel & 4)
		return cpu_raise_error(c, VEC_GP, sel_error(sel, 0));
	if (desc_read(c, sel, VEC_GP, 0, &d))
		return -1;
	if (desc_sys_type(&d) != SYS_TSS16 && desc_sys_type(&d) != SYS_TSS32)
		return cpu_raise_error(c, VEC_GP, sel_error(sel, 0));
	if (!desc_present(&d))
		return cpu_raise_error(c, VEC_NP, sel_error(sel, 0));
	if (desc_write_rights(c, &d, 2, 0))
		return -1;
	c->tr = desc_to_seg(&d, sel);
	return 0;
}

/* ------------------------------------------------------------------ frames */

struct frame frame_current(const struct vcpu *c, uint32_t ext)
{
	return (struct frame){.ss = c->seg[SS], .sp = c->gpr[ESP], .acc = interp_acc(c), .error = ext};
}

int frame_push(struct vcpu *c, struct frame *f, unsigned size, uint32_t v)
{
	uint32_t mask = f->ss.attr & SEG_DB ? 0xffffffffu : 0xffffu;
	uint32_t sp = (f->sp - size) & mask, lin = f->ss.base + sp;

	if (!seg_holds(&f->ss, sp, size))
		return cpu_raise_error(c, VEC_SS, f->error);
	if (c->dr[7] & 0xffu)
		debug_note_data(c, lin, size, true);
	if (size == 4 ? mem_write32(c, lin, v, ACC_WRITE | f->acc)
		      : mem_write16(c, lin, (uint16_t)v, ACC_WRITE | f->acc))
		return -1;
	f->sp = sp;
	return 0;
}

void frame_commit(struct vcpu *c, const struct frame *f)
{
	c->seg[SS] = f->ss;
	stack_set(c, f->sp);
}

int frame_inner(struct vcpu *c, unsigned dpl, uint32_t ext, struct frame *f)
{
	bool tss32 = c->tr.attr & 8;
	uint32_t at = tss32 ? 4 + 8 * dpl : 2 + 4 * dpl, esp;
	uint16_t ss, sp;
	struct desc d;

	if (!(c->tr.attr & SEG_P) || at + (tss32 ? 5 : 3) > c->tr.limit)
		return cpu_raise_error(c, VEC_TS, sel_error(c->tr.sel, ext));
	if (tss32) {
		if (mem_read32(c, c->tr.base + at, &esp, ACC_READ) ||
		    mem_read16(c, c->tr.base + at + 4, &ss, ACC_READ))
			return -1;
	} else {
		if (mem_read16(c, c->tr.base + at, &sp, ACC_READ) ||
		    mem_read16(c, c->tr.base + at + 2, &ss, ACC_READ))
			return -1;
		esp = sp;
	}
	if (desc_read(c, ss, VEC_TS, ext, &d))
		return -1;
	if ((ss & 3u) != dpl || desc_dpl(&d) != dpl || !desc_is_writable_data(&d))
		return cpu_raise_error(c, VEC_TS, sel_error(ss, ext));
	if (!desc_present(&d))
		return cpu_raise_error(c, VEC_SS, sel_error(ss, ext));
	if (desc_mark_accessed(c, &d))
		return -1;
	*f = (struct frame){.ss = desc_to_seg(&d, ss),
			    .sp = esp,
			    .acc = dpl == 3 ? ACC_USER : 0,
			    .error = sel_error(ss, ext)};
	return 0;
}
