/* msr.c - model-specific registers, one row each (SDM vol. 4; MTRRs and PAT: vol. 3A chapter 11).
 *
 * A row covers count registers. It exists only on a model with its CPUID features. A register that is plain
 * storage gives its place in struct vcpu; any other has functions. What is in no row, and a value with
 * reserved bits set, raises #GP(0).
 */
#include "vmm/machine_private.h"

#define PHYS_MASK     0xfffffffffull /* 36 address bits */
#define APIC_BASE_BSP 0x100ull
#define APIC_BASE_EN  0x800ull
#define EFER_NXE      0x800ull
#define MTRR_VALID    0x800ull /* in PHYSMASKn */
#define MTRR_VARIABLE 8u
#define MTRRCAP_VALUE (MTRR_VARIABLE | 0x100u | 0x400u) /* fixed ranges, write-combining */
/* IA32_MISC_ENABLE: fast strings may be switched; branch trace and PEBS are not available. */
#define MISC_WRITABLE 0x00000001ull
#define MISC_CONSTANT 0x00001800ull

struct msr_row {
	uint32_t first, count;
	uint32_t features; /* CPUID leaf 1 EDX */
	uint16_t offset;   /* plain storage of 32 bits: where in struct vcpu; 0: not plain */
	uint64_t (*read)(struct vcpu *c, unsigned i);
	bool (*write)(struct vcpu *c, unsigned i, uint64_t v); /* false: #GP */
};

/* ------------------------------------------------------------------ registers that do something */

static uint64_t zero_read(struct vcpu *c, unsigned i)
{
	(void)c;
	(void)i;
	return 0;
}

static bool ignored_write(struct vcpu *c, unsigned i, uint64_t v)
{
	(void)c;
	(void)i;
	(void)v;
	return true;
}

static bool zero_write(struct vcpu *c, unsigned i, uint64_t v)
{
	(void)c;
	(void)i;
	return v == 0;
}

static uint64_t tsc_read(struct vcpu *c, unsigned i)
{
	(void)i;
	return __builtin_ia32_rdtsc() + c->tsc_offset;
}

static bool tsc_write(struct vcpu *c, unsigned i, uint64_t v)
{
	(void)i;
	c->tsc_offset = v - __builtin_ia32_rdtsc();
	return true;
}

static uint64_t apic_base_read(struct vcpu *c, unsigned i)
{
	(void)i;
	return c->apic_base;
}

static bool apic_base_write(struct vcpu *c, unsigned i, uint64_t v)
{
	struct machine *m = c->machine;

	(void)i;
	if (v & ~((PHYS_MASK & ~0xfffull) | APIC_BASE_EN | APIC_BASE_BSP))
		return false;
	machine_lock(m);
	c->apic_base = v | APIC_BASE_BSP;
	if (m->apic_hook)
		m->apic_hook(m->apic_hook_opaque, c->apic_base);
	machine_unlock(m);
	return true;
}

static uint64_t efer_read(struct vcpu *c, unsigned i)
{
	(void)i;
	return c->efer;
}

/* No long mode and no SYSCALL: only NXE exists. */
static bool efer_write(struct vcpu *c, unsigned i, uint64_t v)
{
	(void)i;
	if (v & ~EFER_NXE)
		return false;
	if (v != c->efer) {
		c->efer = v;
		mem_mode_changed(c);
	}
	return true;
}

static uint64_t misc_enable_read(struct vcpu *c, unsigned i)
{
	(void)i;
	return c->misc_enable | MISC_CONSTANT;
}

static bool misc_enable_write(struct vcpu *c, unsigned i, uint64_t v)
{
	(void)i;
	if (v & ~(MISC_WRITABLE | MISC_CONSTANT))
		return false;
	c->misc_enable = v & MISC_WRITABLE;
	return true;
}

static uint64_t debugctl_read(struct vcpu *c, unsigned i)
{
	(void)i;
	return c->machine->msr_debugctl;
}

/* LBR and BTF can be set; there are no branch records and single-stepping is by instruction. */
static bool debugctl_write(struct vcpu *c, unsigned i, uint64_t v)
{
	(void)i;
	if (v & ~3ull)
		return false;
	c->machine->msr_debugctl = v;
	return true;
}

/* ------------------------------------------------------------------ memory types: stored and checked; all of
 * the guest's memory is write-back whatever they say */

static bool mtrr_type_ok(unsigned type)
{
	return type == 0 || type == 1 || (type >= 4 && type <= 6);
}

static bool pat_type_ok(unsigned type)
{
	return mtrr_type_ok(type) || type == 7;
}

static bool all_types(uint64_t v, bool (*ok)(unsigned type))
{
	for (int i = 0; i < 8; i++)
		if (!ok((unsigned)(v >> (8 * i)) & 0xffu))
			return false;
	return true;
}

static uint64_t pat_read(struct vcpu *c, unsigned i)
{
	(void)i;
	return c->pat;
}

static bool pat_write(struct vcpu *c, unsigned i, uint64_t v)
{
	(void)i;
	if (!all_types(v, pat_type_ok))
		return false;
	c->pat = v;
	return true;
}

static uint64_t mtrrcap_read(struct vcpu *c, unsigned i)
{
	(void)c;
	(void)i;
	return MTRRCAP_VALUE;
}

static uint64_t mtrr_def_read(struct vcpu *c, unsigned i)
{
	(void)i;
	return c->mtrr_def_type;
}

static bool mtrr_def_write(struct vcpu *c, unsigned i, uint64_t v)
{
	(void)i;
	if ((v & ~0xcffull) || !mtrr_type_ok(v & 0xff))
		return false;
	c->mtrr_def_type = v;
	return true;
}

static uint64_t mtrr_var_read(struct vcpu *c, unsigned i)
{
	return c->mtrr_var[i];
}

/* Even: PHYSBASEn, odd: PHYSMASKn. */
static bool mtrr_var_write(struct vcpu *c, unsigned i, uint64_t v)
{
	uint64_t low = i & 1 ? MTRR_VALID : 0xffull;

	if (v & ~((PHYS_MASK & ~0xfffull) | low))
		return false;
	if (!(i & 1) && !mtrr_type_ok(v & 0xff))
		return false;
	c->mtrr_var[i] = v;
	return true;
}

/* The fixed ranges are three groups of numbers; mtrr_fixed holds them one after another. */
static uint64_t mtrr_fix64k_read(struct vcpu *c, unsigned i)
{
	return c->mtrr_fixed[i];
}

static uint64_t mtrr_fix16k_read(struct vcpu *c, unsigned i)
{
	return c->mtrr_fixed[1 + i];
}

static uint64_t mtrr_fix4k_read(struct vcpu *c, unsigned i)
{
	return c->mtrr_fixed[3 + i];
}

static bool mtrr_fixed_set(struct vcpu *c, unsigned i, uint64_t v)
{
	if (!all_types(v, mtrr_type_ok))
		return false;
	c->mtrr_fixed[i] = v;
	return true;
}

static bool mtrr_fix64k_write(struct vcpu *c, unsigned i, uint64_t v)
{
	return mtrr_fixed_set(c, i, v);
}

static bool mtrr_fix16k_write(struct vcpu *c, unsigned i, uint64_t v)
{
	return mtrr_fixed_set(c, 1 + i, v);
}

static bool mtrr_fix4k_write(struct vcpu *c, unsigned i, uint64_t v)
{
	return mtrr_fixed_set(c, 3 + i, v);
}

/* ------------------------------------------------------------------ the table */

/* CPUID leaf 1 EDX bits that rows depend on. */
#define HAS_MSR	       (1u << 5)
#define HAS_TSC	       (1u << 4)
#define HAS_APIC       (1u << 9)
#define HAS_SEP	       (1u << 11)
#define HAS_MTRR       (1u << 12)
#define HAS_MCA	       (1u << 14)
#define HAS_CMOV       (1u << 15) /* stands for "P6 or later" */
#define HAS_PAT	       (1u << 16)

#define PLAIN32(field) .offset = offsetof(struct vcpu, field)
#define FUNCS(r, w)    .read = (r), .write = (w)

static const struct msr_row rows[] = {
	/* P5_MC_ADDR, P5_MC_TYPE */
	{0x000, 2, HAS_MSR, FUNCS(zero_read, ignored_write)},
	{MSR_TSC, 1, HAS_TSC, FUNCS(tsc_read, tsc_write)},
	{MSR_PLATFORM_ID, 1, HAS_CMOV, FUNCS(zero_read, NULL)},
	{MSR_APIC_BASE, 1, HAS_APIC, FUNCS(apic_base_read, apic_base_write)},
	/* Microcode revision 0: software writes 0, executes CPUID and reads. */
	{MSR_BIOS_SIGN_ID, 1, HAS_CMOV, FUNCS(zero_read, ignored_write)},
	{MSR_MTRRCAP, 1, HAS_MTRR, FUNCS(mtrrcap_read, NULL)},
	{MSR_SYSENTER_CS, 1, HAS_SEP, PLAIN32(sysenter_cs)},
	{MSR_SYSENTER_ESP, 1, HAS_SEP, PLAIN32(sysenter_esp)},
	{MSR_SYSENTER_EIP, 1, HAS_SEP, PLAIN32(sysenter_eip)},
	/* Machine check architecture with no banks. */
	{MSR_MCG_CAP, 1, HAS_MCA, FUNCS(zero_read, NULL)},
	{MSR_MCG_STATUS, 1, HAS_MCA, FUNCS(zero_read, zero_write)},
	{MSR_MISC_ENABLE, 1, HAS_CMOV, FUNCS(misc_enable_read, misc_enable_write)},
	/* DEBUGCTL */
	{0x1d9, 1, HAS_CMOV, FUNCS(debugctl_read, debugctl_write)},
	{MSR_MTRR_PHYSBASE0, 2 * MTRR_VARIABLE, HAS_MTRR, FUNCS(mtrr_var_read, mtrr_var_write)},
	{MSR_MTRR_FIX64K, 1, HAS_MTRR, FUNCS(mtrr_fix64k_read, mtrr_fix64k_write)},
	{0x258, 2, HAS_MTRR, FUNCS(mtrr_fix16k_read, mtrr_fix16k_write)},
	{0x268, 8, HAS_MTRR, FUNCS(mtrr_fix4k_read, mtrr_fix4k_write)},
	{MSR_PAT, 1, HAS_PAT, FUNCS(pat_read, pat_write)},
	{MSR_MTRR_DEF_TYPE, 1, HAS_MTRR, FUNCS(mtrr_def_read, mtrr_def_write)},
};

static const struct msr_row efer_row = {MSR_EFER, 1, 0, FUNCS(efer_read, efer_write)};

static const struct msr_row *msr_find(const struct vcpu *c, uint32_t index)
{
	if (index == MSR_EFER)
		return cpuid_has_nx(c) ? &efer_row : NULL;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (index - rows[i].first < rows[i].count)
			return cpuid_has_features(c, rows[i].features) ? &rows[i] : NULL;
	return NULL;
}

static int msr_fault(struct vcpu *c, const char *what, uint32_t index)
{
	if (log_on(LOG_UNIMP))
		log_printf(LOG_UNIMP, "%s of MSR %#x at %08x: #GP\n", what, index, c->eip);
	return cpu_raise_error(c, VEC_GP, 0);
}

int msr_read(struct vcpu *c, uint32_t index, uint64_t *value)
{
	const struct msr_row *row = msr_find(c, index);

	if (!row)
		return msr_fault(c, "read", index);
	if (row->offset)
		*value = *(const uint32_t *)((const char *)c + row->offset);
	else
		*value = row->read(c, index - row->first);
	return 0;
}

int msr_write(struct vcpu *c, uint32_t index, uint64_t value)
{
	const struct msr_row *row = msr_find(c, index);

	if (!row)
		return msr_fault(c, "write", index);
	if (row->offset) {
		*(uint32_t *)((char *)c + row->offset) = (uint32_t)value;
		return 0;
	}
	if (!row->write || !row->write(c, index - row->first, value))
		return msr_fault(c, "write", index);
	return 0;
}
