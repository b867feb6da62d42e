/* far.c - far jumps, calls and returns: other segments, other privilege levels, call gates (SDM vol. 3A 5.8).
 *
 * Order is what matters here: every check and every store to a stack is made first, and the registers change
 * in one go at the end.
 */
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

static int bad_selector(struct vcpu *c, unsigned vector, uint16_t sel)
{
	return cpu_raise_error(c, vector, sel_error(sel, 0));
}

/* A code segment as the target of a direct JMP or CALL. */
static int check_direct(struct vcpu *c, uint16_t sel, const struct desc *d)
{
	if (desc_is_conforming(d)) {
		if (desc_dpl(d) > c->cpl)
			return bad_selector(c, VEC_GP, sel);
	} else if ((sel & 3u) > c->cpl || desc_dpl(d) != c->cpl) {
		return bad_selector(c, VEC_GP, sel);
	}
	if (!desc_present(d))
		return bad_selector(c, VEC_NP, sel);
	return 0;
}

/* A gate or TSS named by a JMP or CALL. */
static int check_gate(struct vcpu *c, uint16_t sel, const struct desc *d)
{
	if (desc_dpl(d) < c->cpl || desc_dpl(d) < (sel & 3u))
		return bad_selector(c, VEC_GP, sel);
	if (!desc_present(d))
		return bad_selector(c, VEC_NP, sel);
	return 0;
}

static int task_via(struct vcpu *c, uint16_t sel, struct desc *d, enum task_reason why, uint32_t next_eip)
{
	const struct task_event ev = {.why = why, .eip = next_eip, .eflags = cpu_eflags(c)};

	if (desc_sys_type(d) == SYS_TASK_GATE)
		return task_gate(c, d, &ev);
	return task_switch(c, sel, d, &ev);
}

/* The code segment that a call gate names, checked for CALL (inner levels allowed) or JMP. */
static int gate_target(struct vcpu *c, const struct desc *gate, bool call, struct desc *cs, uint16_t *cs_sel,
		       uint32_t *eip)
{
	uint16_t sel = (uint16_t)(gate->lo >> 16);

	*cs_sel = sel;
	*eip = gate->lo & 0xffffu;
	if (desc_sys_type(gate) == SYS_CALL32)
		*eip |= gate->hi & 0xffff0000u;
	if (desc_read(c, sel, VEC_GP, 0, cs))
		return -1;
	if (!desc_is_code(cs) || desc_dpl(cs) > c->cpl)
		return bad_selector(c, VEC_GP, sel);
	if (!call && !desc_is_conforming(cs) && desc_dpl(cs) != c->cpl)
		return bad_selector(c, VEC_GP, sel);
	if (!desc_present(cs))
		return bad_selector(c, VEC_NP, sel);
	return 0;
}

static int check_offset(struct vcpu *c, const struct desc *cs, uint32_t eip)
{
	return eip > desc_to_seg(cs, 0).limit ? cpu_raise_error(c, VEC_GP, 0) : 0;
}

static int jump_protected(struct vcpu *c, uint16_t sel, uint32_t off, uint32_t next_eip)
{
	struct desc d, cs;

	if (desc_read(c, sel, VEC_GP, 0, &d))
		return -1;
	if (desc_is_code(&d)) {
		if (check_direct(c, sel, &d))
			return -1;
		cs = d;
	} else {
		switch (desc_sys_type(&d)) {
		case SYS_CALL16:
		case SYS_CALL32:
			if (check_gate(c, sel, &d) || gate_target(c, &d, false, &cs, &sel, &off))
				return -1;
			break;
		case SYS_TASK_GATE:
		case SYS_TSS16:
		case SYS_TSS32:
			return check_gate(c, sel, &d) ? -1 : task_via(c, sel, &d, TASK_JUMP, next_eip);
		default:
			return bad_selector(c, VEC_GP, sel);
		}
	}
	if (check_offset(c, &cs, off) || desc_mark_accessed(c, &cs))
		return -1;
	seg_commit_cs(c, &cs, sel, c->cpl);
	c->eip = off;
	return INSN_JUMPED;
}

int far_jump(struct vcpu *c, uint16_t sel, uint32_t off, unsigned opsize, uint32_t next_eip)
{
	if (opsize == 2)
		off &= 0xffffu;
	if (cpu_protected(c) && !cpu_v86(c))
		return jump_protected(c, sel, off, next_eip);
	if (off > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	seg_commit_cs_real(c, sel);
	c->eip = off;
	return INSN_JUMPED;
}

/* CS and the return address. At CPL 3 these are stores of the program's, alignment checks included. */
static int push_return(struct vcpu *c, struct frame *f, unsigned size, uint32_t next_eip)
{
	if ((f->acc & ACC_USER) && (c->sysflags & FL_AC) && (c->cr0 & CR0_AM) &&
	    ((f->ss.base + f->sp) & (size - 1)))
		return cpu_raise_error(c, VEC_AC, 0);
	if (frame_push(c, f, size, c->seg[CS].sel))
		return -1;
	return frame_push(c, f, size, next_eip);
}

/* Pushes CS and the return address on f and goes to cs_sel:eip at privilege cpl. */
static int call_commit(struct vcpu *c, struct frame *f, unsigned size, struct desc *cs, uint16_t cs_sel,
		       uint32_t eip, unsigned cpl, uint32_t next_eip)
{
	if (push_return(c, f, size, next_eip))
		return -1;
	if (check_offset(c, cs, eip) || desc_mark_accessed(c, cs))
		return -1;
	seg_commit_cs(c, cs, cs_sel, cpl);
	frame_commit(c, f);
	c->eip = eip;
	return INSN_JUMPED;
}

/* A call gate to an inner level: new stack from the TSS, old SS:ESP and the parameters copied to it (5.8.5).
 */
static int call_inner(struct vcpu *c, const struct desc *gate, struct desc *cs, uint16_t cs_sel, uint32_t eip,
		      uint32_t next_eip)
{
	unsigned size = desc_sys_type(gate) == SYS_CALL32 ? 4 : 2, count = gate->hi & 31u;
	uint32_t sp = c->gpr[ESP], params[31];
	struct frame f;

	if (frame_inner(c, desc_dpl(cs), 0, &f))
		return -1;
	for (unsigned k = 0; k < count; k++)
		if (stack_pop(c, &sp, size, &params[k]))
			return -1;
	if (frame_push(c, &f, size, c->seg[SS].sel) || frame_push(c, &f, size, c->gpr[ESP]))
		return -1;
	for (unsigned k = count; k-- > 0;)
		if (frame_push(c, &f, size, params[k]))
			return -1;
	return call_commit(c, &f, size, cs, cs_sel, eip, desc_dpl(cs), next_eip);
}

static int call_gate(struct vcpu *c, const struct desc *gate, uint32_t next_eip)
{
	struct desc cs;
	struct frame f;
	uint16_t cs_sel;
	uint32_t eip;

	if (gate_target(c, gate, true, &cs, &cs_sel, &eip))
		return -1;
	if (!desc_is_conforming(&cs) && desc_dpl(&cs) < c->cpl)
		return call_inner(c, gate, &cs, cs_sel, eip, next_eip);
	f = frame_current(c, 0);
	return call_commit(c, &f, desc_sys_type(gate) == SYS_CALL32 ? 4 : 2, &cs, cs_sel, eip, c->cpl,
			   next_eip);
}

static int call_protected(struct vcpu *c, uint16_t sel, uint32_t off, unsigned opsize, uint32_t next_eip)
{
	struct frame f = frame_current(c, 0);
	struct desc d;

	if (desc_read(c, sel, VEC_GP, 0, &d))
		return -1;
	if (desc_is_code(&d)) {
		if (check_direct(c, sel, &d))
			return -1;
		return call_commit(c, &f, opsize, &d, sel, off, c->cpl, next_eip);
	}
	switch (desc_sys_type(&d)) {
	case SYS_CALL16:
	case SYS_CALL32:
		return check_gate(c, sel, &d) ? -1 : call_gate(c, &d, next_eip);
	case SYS_TASK_GATE:
	case SYS_TSS16:
	case SYS_TSS32:
		return check_gate(c, sel, &d) ? -1 : task_via(c, sel, &d, TASK_CALL, next_eip);
	default:
		return bad_selector(c, VEC_GP, sel);
	}
}

int far_call(struct vcpu *c, uint16_t sel, uint32_t off, unsigned opsize, uint32_t next_eip)
{
	struct frame f = frame_current(c, 0);

	if (opsize == 2)
		off &= 0xffffu;
	if (cpu_protected(c) && !cpu_v86(c))
		return call_protected(c, sel, off, opsize, next_eip);
	if (push_return(c, &f, opsize, next_eip))
		return -1;
	if (off > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	seg_commit_cs_real(c, sel);
	frame_commit(c, &f);
	c->eip = off;
	return INSN_JUMPED;
}

/* ------------------------------------------------------------------ returns */

static int check_return_cs(struct vcpu *c, uint16_t sel, struct desc *d)
{
	unsigned rpl = sel & 3u;

	if (desc_read(c, sel, VEC_GP, 0, d))
		return -1;
	if (!desc_is_code(d) || rpl < c->cpl)
		return bad_selector(c, VEC_GP, sel);
	if (desc_is_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl)
		return bad_selector(c, VEC_GP, sel);
	if (!desc_present(d))
		return bad_selector(c, VEC_NP, sel);
	return 0;
}

static int check_return_ss(struct vcpu *c, uint16_t sel, unsigned rpl, struct desc *d)
{
	if (!(sel & 0xfffcu))
		return cpu_raise_error(c, VEC_GP, 0);
	if (desc_read(c, sel, VEC_GP, 0, d))
		return -1;
	if ((sel & 3u) != rpl || !desc_is_writable_data(d) || desc_dpl(d) != rpl)
		return bad_selector(c, VEC_GP, sel);
	if (!desc_present(d))
		return bad_selector(c, VEC_SS, sel);
	return desc_mark_accessed(c, d);
}

int return_protected(struct vcpu *c, uint16_t sel, uint32_t eip, uint32_t sp, unsigned opsize,
		     uint32_t release)
{
	unsigned rpl = sel & 3u;
	uint32_t new_sp, new_ss;
	struct desc cs, ss;

	if (check_return_cs(c, sel, &cs))
		return -1;
	sp += release;
	if (rpl == c->cpl) {
		if (check_offset(c, &cs, eip) || desc_mark_accessed(c, &cs))
			return -1;
		seg_commit_cs(c, &cs, sel, rpl);
		stack_set(c, sp);
		c->eip = eip;
		return INSN_JUMPED;
	}
	if (stack_pop(c, &sp, opsize, &new_sp) || stack_pop(c, &sp, opsize, &new_ss) ||
	    check_return_ss(c, (uint16_t)new_ss, rpl, &ss))
		return -1;
	if (check_offset(c, &cs, eip) || desc_mark_accessed(c, &cs))
		return -1;
	seg_commit_cs(c, &cs, sel, rpl);
	c->seg[SS] = desc_to_seg(&ss, (uint16_t)new_ss);
	stack_set(c, new_sp + release);
	seg_drop_privileged(c);
	c->eip = eip;
	return INSN_JUMPED;
}

int far_return(struct vcpu *c, unsigned opsize, uint32_t release)
{
	uint32_t sp = c->gpr[ESP], eip, sel;

	if (stack_pop(c, &sp, opsize, &eip) || stack_pop(c, &sp, opsize, &sel))
		return -1;
	if (cpu_protected(c) && !cpu_v86(c))
		return return_protected(c, (uint16_t)sel, eip, sp, opsize, release);
	if (eip > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	seg_commit_cs_real(c, (uint16_t)sel);
	stack_set(c, sp + release);
	c->eip = eip;
	return INSN_JUMPED;
}

/* ------------------------------------------------------------------ instructions */

/* JMP and CALL ptr16:16 and ptr16:32. */
int op_jmp_far(struct vcpu *c, const struct insn *i)
{
	return far_jump(c, (uint16_t)i->imm2, i->imm, i->opsize, c->eip + i->len);
}

int op_call_far(struct vcpu *c, const struct insn *i)
{
	return far_call(c, (uint16_t)i->imm2, i->imm, i->opsize, c->eip + i->len);
}

/* A far pointer in memory: the offset, then the selector. */
static int far_pointer(struct vcpu *c, const struct insn *i, uint32_t *off, uint16_t *sel)
{
	uint32_t ea = interp_ea(c, i);

	if (rm_value(c, i, i->opsize, off))
		return -1;
	ea += i->opsize;
	return interp_read16(c, i->seg, i->adsize == 2 ? ea & 0xffffu : ea, sel);
}

int op_jmp_far_m(struct vcpu *c, const struct insn *i)
{
	uint32_t off;
	uint16_t sel;

	if (far_pointer(c, i, &off, &sel))
		return -1;
	return far_jump(c, sel, off, i->opsize, c->eip + i->len);
}

int op_call_far_m(struct vcpu *c, const struct insn *i)
{
	uint32_t off;
	uint16_t sel;

	if (far_pointer(c, i, &off, &sel))
		return -1;
	return far_call(c, sel, off, i->opsize, c->eip + i->len);
}

int op_retf(struct vcpu *c, const struct insn *i)
{
	return far_return(c, i->opsize, i->imm);
}

/* LES LDS LSS LFS LGS. */
int op_load_far_pointer(struct vcpu *c, const struct insn *i)
{
	unsigned sreg;
	uint32_t off;
	uint16_t sel;

	switch (i->opcode) {
	case 0xc4:
		sreg = ES;
		break;
	case 0xc5:
		sreg = DS;
		break;
	case 0xb2:
		sreg = SS;
		break;
	case 0xb4:
		sreg = FS;
		break;
	default:
		sreg = GS;
		break;
	}
	if (far_pointer(c, i, &off, &sel) || seg_load(c, sreg, sel))
		return -1;
	set_reg(c, i->reg, off, i->opsize);
	return INSN_NEXT;
}

int op_mov_sreg_ew(struct vcpu *c, const struct insn *i)
{
	uint16_t sel;

	if (rm16(c, i, &sel) || seg_load(c, i->reg, sel))
		return -1;
	if (i->reg == SS)
		interp_shadow(c, true);
	return INSN_NEXT;
}

/* To memory always 16 bits; to a 32-bit register zero-extended (SDM vol. 2B, MOV). */
int op_mov_ew_sreg(struct vcpu *c, const struct insn *i)
{
	uint16_t sel = c->seg[i->reg].sel;

	if (i->mod != 3)
		return set_rm16(c, i, sel);
	set_reg(c, i->rm, sel, i->opsize);
	return INSN_NEXT;
}
