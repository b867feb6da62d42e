/* interp_rig.c - see interp_rig.h. Everything the interpreter asks of the machine is answered here. */
#include "interp_rig.h"

#include <stdarg.h>
#include <stdlib.h>

struct vcpu rig;
uint32_t rig_port, rig_port_value, rig_port_size;
uint32_t rig_features = 0xffffffffu;
uint32_t log_mask;

void log_printf(enum log_cat cat, const char *fmt, ...)
{
	(void)cat;
	(void)fmt;
}

uint32_t pio_read(struct machine *m, uint16_t port, unsigned size)
{
	(void)m;
	rig_port = port;
	rig_port_size = size;
	return 0x12345678u;
}

void pio_write(struct machine *m, uint16_t port, uint32_t value, unsigned size)
{
	(void)m;
	rig_port = port;
	rig_port_value = value;
	rig_port_size = size;
}

void cpuid_query(const struct vcpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	(void)c;
	for (unsigned k = 0; k < 4; k++)
		out[k] = leaf == 1 || leaf == 7 ? rig_features : leaf * 0x100 + subleaf * 0x10 + k;
}

uint32_t cpuid_cr4_allowed(const struct vcpu *c)
{
	(void)c;
	return 0x6ff; /* all but PCE */
}

bool cpuid_has_nx(const struct vcpu *c)
{
	(void)c;
	return true;
}

static uint64_t msr;

int msr_read(struct vcpu *c, uint32_t index, uint64_t *value)
{
	if (index != 0x123)
		return cpu_raise_error(c, VEC_GP, 0);
	*value = msr;
	return 0;
}

int msr_write(struct vcpu *c, uint32_t index, uint64_t value)
{
	if (index != 0x123)
		return cpu_raise_error(c, VEC_GP, 0);
	msr = value;
	return 0;
}

/* ------------------------------------------------------------------ memory */

void rig_bytes(uint32_t at, const void *bytes, unsigned len)
{
	mem_phys_write(rig.mem, at, bytes, len);
}

void rig_put32(uint32_t at, uint32_t v)
{
	rig_bytes(at, &v, 4);
}

void rig_put16(uint32_t at, uint16_t v)
{
	rig_bytes(at, &v, 2);
}

uint32_t rig_get32(uint32_t at)
{
	uint32_t v;

	mem_phys_read(rig.mem, at, &v, 4);
	return v;
}

uint16_t rig_get16(uint32_t at)
{
	return (uint16_t)rig_get32(at);
}

void rig_descriptor(uint16_t sel, uint32_t base, uint32_t limit, uint16_t attr)
{
	uint32_t at = (sel & 4 ? RIG_LDT : RIG_GDT) + (sel & 0xfff8u);

	if (attr & SEG_G)
		limit >>= 12;
	rig_put32(at, (limit & 0xffffu) | base << 16);
	rig_put32(at + 4, (base >> 16 & 0xffu) | (uint32_t)(attr & 0xf0ffu) << 8 | (limit & 0xf0000u) |
				  (base & 0xff000000u));
}

void rig_gate(uint32_t table, unsigned index, unsigned type, unsigned dpl, uint16_t sel, uint32_t off,
	      unsigned count)
{
	rig_put32(table + 8 * index, (off & 0xffffu) | (uint32_t)sel << 16);
	rig_put32(table + 8 * index + 4, (off & 0xffff0000u) | 0x8000u | dpl << 13 | type << 8 | count);
}

/* ------------------------------------------------------------------ states */

void rig_reset(void)
{
	char err[200];

	if (rig.mem)
		mem_destroy(rig.mem);
	memset(&rig, 0, sizeof rig);
	rig.mem = mem_create(RIG_RAM, err, sizeof err);
	if (!rig.mem || interp_init(err, sizeof err)) {
		fprintf(stderr, "%s\n", err);
		exit(1);
	}
	cpu_reset(&rig);
	mem_mode_changed(&rig);
	for (unsigned n = 0; n < 256; n++)
		rig_bytes(RIG_STUBS + n, "\xf4", 1);
}

static void load(unsigned sreg, uint16_t sel)
{
	uint32_t at = RIG_GDT + (sel & 0xfff8u), lo = rig_get32(at), hi = rig_get32(at + 4);
	uint32_t limit = (lo & 0xffffu) | (hi & 0xf0000u);

	rig.seg[sreg] = (struct seg){.sel = sel,
				     .attr = (uint16_t)(hi >> 8 & 0xf0ffu),
				     .base = lo >> 16 | (hi & 0xffu) << 16 | (hi & 0xff000000u),
				     .limit = hi & 0x800000u ? limit << 12 | 0xfffu : limit};
}

void rig_protected(unsigned cpl)
{
	const uint16_t data = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED, flat = data | SEG_G | SEG_DB;

	rig_reset();
	rig_descriptor(SEL_CODE0, 0, 0xffffffff, flat | SEG_CODE);
	rig_descriptor(SEL_DATA0, 0, 0xffffffff, flat);
	rig_descriptor(SEL_CODE3, 0, 0xffffffff, flat | SEG_CODE | SEG_DPL);
	rig_descriptor(SEL_DATA3, 0, 0xffffffff, flat | SEG_DPL);
	rig_descriptor(SEL_TSS, RIG_TSS, 0x67 + 0x2000, SEG_P | SYS_TSS32_BUSY);
	rig_descriptor(SEL_TSS2, RIG_TSS2, 0x67, SEG_P | SYS_TSS32);
	rig_descriptor(SEL_CODE16, 0, 0xffff, data | SEG_CODE);
	rig_descriptor(SEL_DATA16, 0, 0xffff, data);
	rig_descriptor(SEL_LDT, RIG_LDT, 0x7ff, SEG_P | SYS_LDT);
	rig.gdtr = (struct table_reg){.base = RIG_GDT, .limit = 0x7ff};
	rig.idtr = (struct table_reg){.base = RIG_IDT, .limit = 0x7ff};
	for (unsigned n = 0; n < 256; n++)
		rig_gate(RIG_IDT, n, SYS_INT32, n == 0x80 ? 3 : 0, SEL_CODE0, RIG_STUBS + n, 0);
	rig_put32(RIG_TSS + 4, RIG_STACK0);
	rig_put32(RIG_TSS + 8, SEL_DATA0);
	rig_put16(RIG_TSS + 0x66, 0x68);
	rig.tr = (struct seg){
		.sel = SEL_TSS, .base = RIG_TSS, .limit = 0x67 + 0x2000, .attr = SEG_P | SYS_TSS32_BUSY};
	rig.ldtr = (struct seg){.sel = SEL_LDT, .base = RIG_LDT, .limit = 0x7ff, .attr = SEG_P | SYS_LDT};
	rig.cr0 = CR0_PE | CR0_ET;
	rig.cpl = cpl;
	for (unsigned s = 0; s < 6; s++)
		load(s, s == CS ? (cpl ? SEL_CODE3 : SEL_CODE0) : cpl ? SEL_DATA3 : SEL_DATA0);
	rig.gpr[ESP] = RIG_STACK;
	rig.eip = RIG_CODE;
	mem_mode_changed(&rig);
}

void rig_paging(void)
{
	rig_put32(RIG_PD, RIG_PT | PTE_P | PTE_RW | PTE_US);
	for (uint32_t page = 0; page < 1024; page++)
		rig_put32(RIG_PT + 4 * page, page << 12 | PTE_P | PTE_RW | PTE_US);
	rig.cr3 = RIG_PD;
	rig.cr0 |= CR0_PG | CR0_WP;
	mem_mode_changed(&rig);
	mem_load_cr3(&rig);
}

void rig_paged(unsigned cpl)
{
	rig_protected(cpl);
	rig_paging();
	rig_put32(RIG_PT + 4 * (RIG_NOT_MAPPED >> 12), 0);
	rig_put32(RIG_PT + 4 * (RIG_READ_ONLY >> 12), RIG_READ_ONLY | PTE_P | PTE_US);
	mem_load_cr3(&rig);
}

void rig_real(void)
{
	rig_reset();
	rig.idtr = (struct table_reg){.base = 0, .limit = 0x3ff};
	for (unsigned n = 0; n < 256; n++) {
		rig_put16(RIG_IDT + 4 * n, (uint16_t)n);
		rig_put16(RIG_IDT + 4 * n + 2, RIG_STUBS >> 4);
	}
	rig.seg[CS].sel = RIG_CODE >> 4;
	rig.seg[CS].base = RIG_CODE;
	rig.eip = 0;
	rig.gpr[ESP] = RIG_STACK;
}

int rig_run_bytes(unsigned n, const uint8_t *code, unsigned len)
{
	int r = 0;

	mem_phys_write(rig.mem, rig.seg[CS].base + rig.eip, code, len);
	while (n-- && !r)
		r = interp_step(&rig);
	return r;
}

int rig_vector(void)
{
	uint32_t at = rig.seg[CS].base + rig.eip - RIG_STUBS;

	return at < 256 ? (int)at : -1;
}

uint32_t rig_pushed(unsigned word)
{
	return rig_get32(rig.gpr[ESP] + 4 * word);
}
