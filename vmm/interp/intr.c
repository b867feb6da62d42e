/* intr.c - delivery of exceptions and interrupts (SDM vol. 3A chapter 6), and software interrupts.
 *
 * intr_enter does one delivery in whatever mode the CPU is in; interp_deliver_exception strings deliveries
 * together when they fault themselves: double fault, shutdown.
 */
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

/* ------------------------------------------------------------------ EFLAGS of the frame */

/* Faults push RF set, so that an instruction breakpoint does not hit again on return (SDM vol. 3B 17.3.1.1).
 * An instruction breakpoint's own #DB does not, nor do traps and interrupts. */
static uint32_t frame_eflags(const struct vcpu *c, enum intr_kind kind, uint8_t vector)
{
	uint32_t fl = cpu_eflags(c);

	if (kind == INTR_FAULT && vector != VEC_DB && vector != VEC_BP && vector != VEC_OF)
		fl |= FL_RF;
	/* Interrupts and debug traps after any round of a repeated string instruction but the last. */
	if (c->rep_mid && (kind == INTR_EXTERNAL || vector == VEC_DB))
		fl |= FL_RF;
	return fl;
}

static void clear_flags(struct vcpu *c, bool mask_interrupts)
{
	c->sysflags &= ~(FL_TF | FL_NT | FL_RF | FL_VM);
	if (mask_interrupts)
		c->iflag = 0;
}

/* ------------------------------------------------------------------ real mode and redirected v8086 */

/* Pushes FLAGS, CS, IP and goes through a four-byte vector at the linear address at. */
static int enter_8086(struct vcpu *c, uint32_t at, uint16_t flags, uint32_t eip)
{
	struct frame f = frame_current(c, 0);
	uint32_t vec;

	if (mem_read32(c, at, &vec, cpu_v86(c) ? ACC_USER : ACC_READ))
		return -1;
	if (frame_push(c, &f, 2, flags) || frame_push(c, &f, 2, c->seg[CS].sel) || frame_push(c, &f, 2, eip))
		return -1;
	if ((vec & 0xffffu) > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	frame_commit(c, &f);
	seg_commit_cs_real(c, (uint16_t)(vec >> 16));
	c->eip = vec & 0xffffu;
	c->rep_mid = false;
	c->sysflags &= ~(FL_TF | FL_RF);
	return 0;
}

static int enter_real(struct vcpu *c, uint8_t vector, uint32_t eip)
{
	if (vector * 4u + 3 > c->idtr.limit)
		return cpu_raise_error(c, VEC_GP, vector * 8u + 2);
	if (enter_8086(c, c->idtr.base + vector * 4u, (uint16_t)cpu_eflags(c), eip))
		return -1;
	c->iflag = 0;
	c->sysflags &= ~FL_AC;
	return 0;
}

/* The interrupt redirection bitmap: the 32 bytes below the I/O permission bitmap. 1: bit clear, that is,
 * redirect to the 8086 program's own handler (SDM vol. 3B 20.3.3). */
static int vme_redirects(struct vcpu *c, uint8_t vector)
{
	uint16_t map;
	uint8_t bits;
	uint32_t at;

	if (!(c->cr4 & CR4_VME) || !(c->tr.attr & 8) || c->tr.limit < 0x67)
		return 0;
	if (mem_read16(c, c->tr.base + 0x66, &map, ACC_READ))
		return -1;
	at = map - 32u + vector / 8u;
	if (map < 32 || at > c->tr.limit)
		return cpu_raise_error(c, VEC_GP, 0);
	if (mem_read8(c, c->tr.base + at, &bits, ACC_READ))
		return -1;
	return !(bits >> (vector & 7u) & 1u);
}

/* An INT n redirected to the 8086 program: with IOPL 3 on IF, below on VIF. */
static int enter_redirected(struct vcpu *c, uint8_t vector, uint32_t eip)
{
	uint32_t fl = cpu_eflags(c);
	bool virtual_if = cpu_iopl(c) < 3;

	if (virtual_if)
		fl = (fl & ~FL_IF) | FL_IOPL | (fl & FL_VIF ? FL_IF : 0);
	if (enter_8086(c, vector * 4u, (uint16_t)fl, eip))
		return -1;
	c->sysflags &= ~FL_NT;
	if (virtual_if)
		c->sysflags &= ~FL_VIF;
	else
		c->iflag = 0;
	return 0;
}

/* ------------------------------------------------------------------ protected mode */

struct gate {
	uint8_t vector;
	enum intr_kind kind;
	uint32_t ext;
	bool has_error;
	uint32_t error;
	uint32_t eip;  /* return address */
	unsigned size; /* 2 or 4 */
	bool masks;    /* interrupt gate */
	uint16_t cs_sel;
	uint32_t target;
};

static uint32_t idt_error(const struct gate *g)
{
	return g->vector * 8u + 2 + g->ext;
}

static bool is_soft(enum intr_kind kind)
{
	return kind == INTR_SOFT || kind == INTR_SOFT3;
}

/* Return address, flags and error code, the common part of all frames. */
static int push_frame(struct vcpu *c, struct frame *f, const struct gate *g)
{
	if (frame_push(c, f, g->size, frame_eflags(c, g->kind, g->vector)) ||
	    frame_push(c, f, g->size, c->seg[CS].sel) || frame_push(c, f, g->size, g->eip))
		return -1;
	return g->has_error ? frame_push(c, f, g->size, g->error) : 0;
}

static int enter_commit(struct vcpu *c, struct frame *f, const struct gate *g, struct desc *cs, unsigned cpl)
{
	if (g->target > desc_to_seg(cs, 0).limit)
		return cpu_raise_error(c, VEC_GP, g->ext);
	if (desc_mark_accessed(c, cs))
		return -1;
	clear_flags(c, g->masks);
	c->rep_mid = false;
	seg_commit_cs(c, cs, g->cs_sel, cpl);
	frame_commit(c, f);
	c->eip = g->target;
	return 0;
}

/* To an inner level: stack from the TSS. From v8086 the data segments go to the new stack too. */
static int enter_inner(struct vcpu *c, const struct gate *g, struct desc *cs)
{
	static const uint8_t saved[] = {GS, FS, DS, ES};
	bool v86 = cpu_v86(c);
	struct frame f;

	if (frame_inner(c, desc_dpl(cs), g->ext, &f))
		return -1;
	if (v86)
		for (unsigned k = 0; k < sizeof saved; k++)
			if (frame_push(c, &f, g->size, c->seg[saved[k]].sel))
				return -1;
	if (frame_push(c, &f, g->size, c->seg[SS].sel) || frame_push(c, &f, g->size, c->gpr[ESP]) ||
	    push_frame(c, &f, g) || enter_commit(c, &f, g, cs, desc_dpl(cs)))
		return -1;
	if (v86)
		for (unsigned k = 0; k < sizeof saved; k++)
			c->seg[saved[k]] = (struct seg){0};
	return 0;
}

static int enter_code(struct vcpu *c, const struct gate *g)
{
	struct desc cs;
	struct frame f;
	bool inner;

	if (desc_read(c, g->cs_sel, VEC_GP, g->ext, &cs))
		return -1;
	if (!desc_is_code(&cs) || desc_dpl(&cs) > c->cpl)
		return cpu_raise_error(c, VEC_GP, sel_error(g->cs_sel, g->ext));
	if (!desc_present(&cs))
		return cpu_raise_error(c, VEC_NP, sel_error(g->cs_sel, g->ext));
	inner = !desc_is_conforming(&cs) && desc_dpl(&cs) < c->cpl;
	if (cpu_v86(c) && (!inner || desc_dpl(&cs) != 0))
		return cpu_raise_error(c, VEC_GP, sel_error(g->cs_sel, g->ext));
	if (inner)
		return enter_inner(c, g, &cs);
	f = frame_current(c, g->ext);
	if (push_frame(c, &f, g))
		return -1;
	return enter_commit(c, &f, g, &cs, c->cpl);
}

static int enter_protected(struct vcpu *c, struct gate *g)
{
	struct desc d = {.addr = c->idtr.base + g->vector * 8u};
	struct task_event ev;
	unsigned type;
	uint64_t raw;

	if (g->vector * 8u + 7 > c->idtr.limit)
		return cpu_raise_error(c, VEC_GP, idt_error(g));
	if (mem_read64(c, d.addr, &raw, ACC_READ))
		return -1;
	d.lo = (uint32_t)raw;
	d.hi = (uint32_t)(raw >> 32);
	type = desc_sys_type(&d);
	if (type != SYS_TASK_GATE && type != SYS_INT16 && type != SYS_TRAP16 && type != SYS_INT32 &&
	    type != SYS_TRAP32)
		return cpu_raise_error(c, VEC_GP, idt_error(g));
	if (is_soft(g->kind) && desc_dpl(&d) < c->cpl)
		return cpu_raise_error(c, VEC_GP, idt_error(g));
	if (!desc_present(&d))
		return cpu_raise_error(c, VEC_NP, idt_error(g));
	if (type == SYS_TASK_GATE) {
		ev = (struct task_event){.why = TASK_INT,
					 .eip = g->eip,
					 .eflags = frame_eflags(c, g->kind, g->vector),
					 .has_error = g->has_error,
					 .error = g->error,
					 .ext = g->ext};
		return task_gate(c, &d, &ev) < 0 ? -1 : 0;
	}
	g->size = type & 8 ? 4 : 2;
	g->masks = !(type & 1);
	g->cs_sel = (uint16_t)(d.lo >> 16);
	g->target = (d.lo & 0xffffu) | (g->size == 4 ? d.hi & 0xffff0000u : 0);
	return enter_code(c, g);
}

int intr_enter(struct vcpu *c, enum intr_kind kind, uint8_t vector, bool has_error, uint32_t error,
	       uint32_t eip)
{
	struct gate g = {.vector = vector,
			 .kind = kind,
			 .ext = !is_soft(kind),
			 .has_error = has_error,
			 .error = error,
			 .eip = eip};

	c->n_intr++;
	if (log_on(LOG_INT))
		log_printf(LOG_INT, "int %02x kind %d error %x at %04x:%08x cpl %u eflags %08x cr2 %08x\n",
			   vector, (int)kind, error, c->seg[CS].sel, eip, c->cpl, cpu_eflags(c), c->cr2);
	if (!cpu_protected(c))
		return enter_real(c, vector, eip);
	if (cpu_v86(c) && kind == INTR_SOFT) {
		int redirect = vme_redirects(c, vector);

		if (redirect < 0)
			return -1;
		if (redirect)
			return enter_redirected(c, vector, eip);
		if (cpu_iopl(c) < 3)
			return cpu_raise_error(c, VEC_GP, 0);
	}
	return enter_protected(c, &g);
}

/* ------------------------------------------------------------------ exceptions during exceptions (SDM vol.
 * 3A 6.15) */

static bool contributory(uint8_t vector)
{
	return vector == VEC_DE || vector == VEC_TS || vector == VEC_NP || vector == VEC_SS ||
	       vector == VEC_GP;
}

/* Whether second, raised while first was being delivered, makes a double fault. */
static bool makes_double_fault(uint8_t first, uint8_t second)
{
	if (first == VEC_PF)
		return second == VEC_PF || contributory(second);
	return contributory(first) && contributory(second);
}

/* Delivers what c->exc holds; first is the vector already on its way, or -1 when that was an interrupt or
 * nothing. */
static int deliver_pending(struct vcpu *c, int first)
{
	while (c->exc.pending) {
		struct exception e = c->exc;
		enum intr_kind kind = e.soft ? INTR_SOFT : INTR_FAULT;

		c->exc.pending = false;
		if (first == VEC_DF && !e.soft) {
			if (log_on(LOG_INT))
				log_printf(LOG_INT, "triple fault: vector %02x at %04x:%08x\n", e.vector,
					   c->seg[CS].sel, c->eip);
			return -1;
		}
		if (e.vector == VEC_PF)
			c->cr2 = e.cr2;
		if (first >= 0 && makes_double_fault((uint8_t)first, e.vector))
			e = (struct exception){.vector = VEC_DF, .has_error = true};
		if (e.vector == VEC_DB)
			c->dr[7] &= ~0x2000u; /* GD */
		first = e.soft ? -1 : e.vector;
		c->shadow = 0;
		c->halted = false;
		interp_entered();
		/* In real mode no error code is pushed. */
		if (intr_enter(c, kind, e.vector, e.has_error && cpu_protected(c), e.error, c->eip) == 0)
			return 0;
	}
	return 0;
}

int interp_deliver_exception(struct vcpu *c)
{
	return deliver_pending(c, -1);
}

int interp_deliver_interrupt(struct vcpu *c, uint8_t vector)
{
	c->halted = false;
	c->shadow = 0;
	if (intr_enter(c, INTR_EXTERNAL, vector, false, 0, c->eip) == 0)
		return 0;
	return deliver_pending(c, -1);
}

/* ------------------------------------------------------------------ INT n, INT3, INTO, INT1 */

int cpu_int(struct vcpu *c, uint8_t vector, uint32_t next_eip)
{
	if (intr_enter(c, INTR_SOFT, vector, false, 0, next_eip))
		return -1;
	interp_entered();
	return 0;
}

static int soft(struct vcpu *c, enum intr_kind kind, uint8_t vector, const struct insn *i)
{
	if (intr_enter(c, kind, vector, false, 0, c->eip + i->len))
		return -1;
	interp_entered();
	return INSN_JUMPED;
}

int op_int(struct vcpu *c, const struct insn *i)
{
	return soft(c, INTR_SOFT, (uint8_t)i->imm, i);
}

int op_int3(struct vcpu *c, const struct insn *i)
{
	return soft(c, INTR_SOFT3, VEC_BP, i);
}

int op_into(struct vcpu *c, const struct insn *i)
{
	return c->flags & FL_OF ? soft(c, INTR_SOFT3, VEC_OF, i) : INSN_NEXT;
}

int op_int1(struct vcpu *c, const struct insn *i)
{
	return soft(c, INTR_ICEBP, VEC_DB, i);
}

/* The bounds are two signed operands in memory, lower first. */
int op_bound(struct vcpu *c, const struct insn *i)
{
	uint32_t ea = interp_ea(c, i), next = ea + i->opsize;
	int32_t v, low, high;
	uint16_t w[2];

	if (i->adsize == 2)
		next &= 0xffffu;
	if (i->opsize == 4) {
		uint32_t d[2];

		if (interp_read32(c, i->seg, ea, &d[0]) || interp_read32(c, i->seg, next, &d[1]))
			return -1;
		v = (int32_t)c->gpr[i->reg];
		low = (int32_t)d[0];
		high = (int32_t)d[1];
	} else {
		if (interp_read16(c, i->seg, ea, &w[0]) || interp_read16(c, i->seg, next, &w[1]))
			return -1;
		v = (int16_t)c->gpr[i->reg];
		low = (int16_t)w[0];
		high = (int16_t)w[1];
	}
	return v < low || v > high ? cpu_raise(c, VEC_BR) : INSN_NEXT;
}
