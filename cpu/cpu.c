/* cpu.c - reset state and exception recording. */
#include "cpu/cpu.h"

#include <string.h>

bool cpu_fpu_live;

int cpu_raise(struct vcpu *c, unsigned vector)
{
	c->exc = (struct exception){.pending = true, .vector = (uint8_t)vector};
	return -1;
}

int cpu_raise_error(struct vcpu *c, unsigned vector, uint32_t error)
{
	c->exc = (struct exception){
		.pending = true, .has_error = true, .vector = (uint8_t)vector, .error = error};
	return -1;
}

int cpu_raise_pf(struct vcpu *c, uint32_t linear, uint32_t error)
{
	cpu_raise_error(c, VEC_PF, error);
	c->exc.cr2 = linear;
	return -1;
}

void cpu_reset(struct vcpu *c)
{
	const struct seg data = {.attr = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED, .limit = 0xffff};

	memset(c->gpr, 0, sizeof c->gpr);
	c->gpr[EDX] = 0x600;
	c->eip = 0xfff0;
	cpu_set_eflags(c, 0);
	c->cpl = 0;
	for (int i = 0; i < 6; i++)
		c->seg[i] = data;
	c->seg[CS] = (struct seg){.sel = 0xf000,
				  .base = 0xffff0000,
				  .limit = 0xffff,
				  .attr = SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_ACCESSED};
	c->cr0 = CR0_ET | CR0_NW | CR0_CD;
	c->cr2 = c->cr3 = c->cr4 = 0;
	c->shadow = 0;
	c->ldtr = (struct seg){.attr = SEG_P | SYS_LDT, .limit = 0xffff};
	c->tr = (struct seg){.attr = SEG_P | SYS_TSS32_BUSY, .limit = 0xffff};
	c->gdtr = c->idtr = (struct table_reg){.limit = 0xffff};
	memset(c->dr, 0, sizeof c->dr);
	c->dr[6] = 0xffff0ff0;
	c->dr[7] = 0x400;
	memset(c->pdpte, 0, sizeof c->pdpte);
	c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
	c->apic_base = 0xfee00900;
	c->pat = 0x0007040600070406ull;
	c->efer = 0;
	c->misc_enable = 1;
	c->mtrr_def_type = 0;
	memset(c->mtrr_fixed, 0, sizeof c->mtrr_fixed);
	memset(c->mtrr_var, 0, sizeof c->mtrr_var);
	c->a20_mask = 0xffffffffu;
	c->halted = c->nmi_blocked = c->nmi_latched = c->rep_mid = false;
	memset(&c->exc, 0, sizeof c->exc);
	memset(&c->fpu, 0, sizeof c->fpu);
	c->fpu.fxsave[0] = 0x7f; /* FCW 037f */
	c->fpu.fxsave[1] = 0x03;
	c->fpu.fxsave[24] = 0x80; /* MXCSR 1f80 */
	c->fpu.fxsave[25] = 0x1f;
}
