/* iret.c - IRET in all its forms (SDM vol. 2A, IRET). */
#include "vmm/interp/interp.h"
#include "vmm/interp/table.h"

/* Flags that IRET may change at privilege cpl, from a frame of opsize. VM is dealt with by the caller. */
static uint32_t iret_mask(const struct vcpu *c, unsigned cpl, unsigned opsize)
{
	uint32_t may = FL_ARITH | FL_TF | FL_DF | FL_NT | FL_RF | FL_AC | FL_ID;

	if (cpl <= cpu_iopl(c))
		may |= FL_IF;
	if (cpl == 0)
		may |= FL_IOPL | FL_VIF | FL_VIP;
	return opsize == 2 ? may & 0xffffu : may;
}

static void take_flags(struct vcpu *c, uint32_t fl, uint32_t may)
{
	cpu_set_eflags(c, (cpu_eflags(c) & ~may) | (fl & may));
	interp_loaded_rf();
}

static int pop_frame(struct vcpu *c, uint32_t *sp, unsigned opsize, uint32_t v[3])
{
	for (unsigned k = 0; k < 3; k++)
		if (stack_pop(c, sp, opsize, &v[k]))
			return -1;
	return 0;
}

static int iret_real(struct vcpu *c, unsigned opsize)
{
	uint32_t sp = c->gpr[ESP], v[3];

	if (pop_frame(c, &sp, opsize, v))
		return -1;
	if (v[0] > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	seg_commit_cs_real(c, (uint16_t)v[1]);
	stack_set(c, sp);
	c->eip = v[0];
	take_flags(c, v[2], iret_mask(c, 0, opsize) & ~(FL_VIF | FL_VIP));
	return INSN_JUMPED;
}

/* Within v8086: IOPL 3, or CR4.VME with the 16-bit form, which works on VIF (SDM vol. 3B 20.3.3.5). */
static int iret_v86(struct vcpu *c, unsigned opsize)
{
	bool virtual_if = cpu_iopl(c) < 3;
	uint32_t sp = c->gpr[ESP], v[3], may;

	if (virtual_if && (!(c->cr4 & CR4_VME) || opsize != 2))
		return cpu_raise_error(c, VEC_GP, 0);
	if (pop_frame(c, &sp, opsize, v))
		return -1;
	if (v[0] > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	may = iret_mask(c, 3, opsize);
	if (virtual_if) {
		if ((v[2] & FL_TF) || ((v[2] & FL_IF) && (c->sysflags & FL_VIP)))
			return cpu_raise_error(c, VEC_GP, 0);
		may = (may & ~FL_IF) | FL_VIF;
		v[2] = (v[2] & ~FL_VIF) | (v[2] & FL_IF ? FL_VIF : 0);
	}
	seg_commit_cs_real(c, (uint16_t)v[1]);
	stack_set(c, sp);
	c->eip = v[0];
	take_flags(c, v[2], may);
	return INSN_JUMPED;
}

/* NT set: back to the task that the link of this one names. */
static int iret_task(struct vcpu *c, uint32_t next_eip)
{
	struct task_event ev;
	struct desc d;
	uint16_t link;
	unsigned type;

	if (mem_read16(c, c->tr.base, &link, ACC_READ))
		return -1;
	if ((link & 4) || !(link & 0xfffcu))
		return cpu_raise_error(c, VEC_TS, sel_error(link, 0));
	if (desc_read(c, link, VEC_TS, 0, &d))
		return -1;
	type = desc_sys_type(&d);
	if (type != SYS_TSS16_BUSY && type != SYS_TSS32_BUSY)
		return cpu_raise_error(c, VEC_TS, sel_error(link, 0));
	if (!desc_present(&d))
		return cpu_raise_error(c, VEC_NP, sel_error(link, 0));
	ev = (struct task_event){.why = TASK_IRET, .eip = next_eip, .eflags = cpu_eflags(c) & ~FL_NT};
	return task_switch(c, link, &d, &ev);
}

/* CPL 0 to v8086: six more registers on the stack. */
static int iret_to_v86(struct vcpu *c, uint32_t sp, const uint32_t v[3])
{
	static const uint8_t order[] = {SS, ES, DS, FS, GS};
	uint32_t esp, sel[5];

	if (stack_pop(c, &sp, 4, &esp))
		return -1;
	for (unsigned k = 0; k < 5; k++)
		if (stack_pop(c, &sp, 4, &sel[k]))
			return -1;
	if (v[0] > 0xffffu)
		return cpu_raise_error(c, VEC_GP, 0);
	cpu_set_eflags(c, v[2]);
	c->cpl = 3;
	c->seg[CS] = seg_v86((uint16_t)v[1]);
	for (unsigned k = 0; k < 5; k++)
		c->seg[order[k]] = seg_v86((uint16_t)sel[k]);
	c->gpr[ESP] = esp;
	c->eip = v[0];
	interp_loaded_rf();
	return INSN_JUMPED;
}

static int iret_protected(struct vcpu *c, unsigned opsize)
{
	uint32_t sp = c->gpr[ESP], v[3], may;
	int r;

	if (pop_frame(c, &sp, opsize, v))
		return -1;
	if (opsize == 4 && (v[2] & FL_VM) && c->cpl == 0)
		return iret_to_v86(c, sp, v);
	may = iret_mask(c, c->cpl, opsize);
	r = return_protected(c, (uint16_t)v[1], v[0], sp, opsize, 0);
	if (r >= 0)
		take_flags(c, v[2], may);
	return r;
}

/* IRET ends the blocking of NMIs, even if it faults (SDM vol. 3C 28.2.3 describes a fault after that). One that was
 * held back follows after this instruction. */
static void unblock_nmi(struct vcpu *c)
{
	if (c->nmi_latched && interp_spoil())
		return;
	c->nmi_blocked = false;
	if (c->nmi_latched) {
		c->nmi_latched = false;
		atomic_fetch_or(&c->request, REQ_NMI);
	}
}

static int iret(struct vcpu *c, unsigned opsize, uint32_t next_eip)
{
	if (c->nmi_blocked)
		unblock_nmi(c);
	if (!cpu_protected(c))
		return iret_real(c, opsize);
	if (cpu_v86(c))
		return iret_v86(c, opsize);
	if (c->sysflags & FL_NT)
		return iret_task(c, next_eip);
	return iret_protected(c, opsize);
}

/* A plain CF is one byte long; only the TSS of a task that returns by it ever shows the address after it. */
int cpu_iret(struct vcpu *c, unsigned opsize)
{
	return iret(c, opsize, c->eip + 1) < 0 ? -1 : 0;
}

int op_iret(struct vcpu *c, const struct insn *i)
{
	return iret(c, i->opsize, c->eip + i->len);
}
