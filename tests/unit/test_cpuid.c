/* test_cpuid.c - what CPUID tells, by model, and the MSRs. */
#include "machine_rig.h"

/* ------------------------------------------------------------------ CPUID */

static uint32_t cpuid_reg(struct machine *m, uint32_t leaf, int reg)
{
	uint32_t out[4];

	cpuid_query(&m->vcpu, leaf, 0, out);
	return out[reg];
}

static unsigned count_things(void *opaque, uint64_t *out, unsigned max)
{
	(void)opaque;
	assert_true(max >= 2);
	out[0] = 0x1122334455667788;
	out[1] = 42;
	return 2;
}

static void test_cpuid(void **state)
{
	struct machine *m = *state;
	uint32_t out[4];

	cpuid_query(&m->vcpu, 0, 0, out);
	assert_int_equal(out[0], 0x16);
	assert_memory_equal(&out[1], "Genu", 4);
	assert_memory_equal(&out[3], "ineI", 4);
	assert_memory_equal(&out[2], "ntel", 4);
	assert_int_equal(cpuid_reg(m, 1, 0), 0x106ca);
	assert_true(cpuid_reg(m, 1, 2) >> 31);						/* hypervisor */
	assert_false(cpuid_reg(m, 1, 2) & (1u << 3 | 1u << 5));				/* MONITOR, VMX */
	assert_false(cpuid_reg(m, 1, 2) & (1u << 21 | 1u << 24 | 1u << 26 | 1u << 28)); /* x2APIC.. AVX */
	assert_true(cpuid_reg(m, 1, 3) & 1u << 9);
	m->vcpu.apic_base &= ~0x800ull;
	assert_false(cpuid_reg(m, 1, 3) & 1u << 9);
	assert_int_equal(cpuid_reg(m, 6, 0), 1u << 2); /* the APIC timer never stops */
	assert_int_equal(cpuid_reg(m, 0xa, 0), 0);
	assert_int_equal(cpuid_reg(m, 0xb, 0), 0);
	assert_int_equal(cpuid_reg(m, 0x17, 0), cpuid_reg(m, 0x16, 0)); /* beyond the end: the last leaf's */
	assert_int_equal(cpuid_reg(m, 0x80000001, 3), 1u << 20);	/* NX, no long mode */
	cpuid_query(&m->vcpu, 0x80000002, 0, out);
	assert_memory_equal(out, "bt86 virtual CPU", 16);
	cpuid_query(&m->vcpu, 4, 2, out);
	assert_int_equal((out[1] >> 22) + 1, 8);
	assert_int_equal(out[2] + 1, 1024);
	cpuid_query(&m->vcpu, 4, 3, out);
	assert_int_equal(out[0], 0);
}

/* Leaf 15 as Linux computes with it: 32 bits, in kHz. Right to 10 ppm whatever the TSC's rate is. */
static void test_cpuid_rates(void **state)
{
	struct machine *m = *state;
	static const uint64_t rates[] = {100000000,  1000000001, 1999999999, 2000000001, 2000130000,
					 2595124000, 2600000000, 2999999000, 3141592653, 4999990000};
	uint64_t measured = clock_tsc_hz(m);
	uint32_t out[4];

	cpuid_query(&m->vcpu, 0x15, 0, out);
	if (!out[0]) /* the host's TSC stops or changes its rate */
		skip();
	for (unsigned i = 0; i <= sizeof rates / sizeof rates[0]; i++) {
		uint64_t hz = i ? rates[i - 1] : measured;
		atomic_store(&m->tsc_hz, hz);
		cpuid_query(&m->vcpu, 0x15, 0, out);
		assert_int_equal(out[2], CPUID_APIC_BUS_KHZ * 1000);
		uint64_t product = (uint64_t)(out[2] / 1000) * out[1];
		assert_true(product <= UINT32_MAX);
		assert_in_range(product / out[0], hz / 1000 - hz / 100000000 - 1,
				hz / 1000 + hz / 100000000 + 1);
		assert_int_equal(cpuid_reg(m, 0x16, 0), (hz + 500000) / 1000000);
		assert_int_equal(cpuid_reg(m, 0x16, 2), CPUID_APIC_BUS_KHZ / 1000);
	}
	atomic_store(&m->tsc_hz, measured);
}

static void test_cpuid_hypervisor(void **state)
{
	struct machine *m = *state;
	uint32_t out[4];

	cpuid_query(&m->vcpu, 0x40000000, 0, out);
	assert_memory_equal(&out[1], "bt86bt86bt86", 12);
	assert_int_equal(out[0], 0x40000010);
	assert_int_equal(cpuid_reg(m, 0x40000010, 0), clock_tsc_hz(m) / 1000);
	assert_int_equal(cpuid_reg(m, 0x40000010, 1), CPUID_APIC_BUS_KHZ);
	assert_int_equal(cpuid_reg(m, 0x40000100, 0), 0);
	cpuid_set_counters(m, count_things, NULL);
	assert_int_equal(cpuid_reg(m, 0x40000100, 0), 2);
	assert_int_equal(cpuid_reg(m, 0x40000101, 0), 0x55667788);
	assert_int_equal(cpuid_reg(m, 0x40000101, 1), 0x11223344);
	assert_int_equal(cpuid_reg(m, 0x40000102, 0), 42);
	assert_int_equal(cpuid_reg(m, 0x40000103, 0), 0);
}

static void test_cpuid_models(void **state)
{
	uint64_t v;

	(void)state;
	struct machine *m = rig_create("486");
	assert_int_equal(cpuid_reg(m, 0, 0), 1);
	assert_int_equal(cpuid_reg(m, 1, 0) >> 8, 4);
	assert_int_equal(cpuid_cr4_allowed(&m->vcpu), CR4_VME | CR4_PVI | CR4_PSE);
	assert_false(cpuid_has_nx(&m->vcpu));
	assert_int_equal(msr_read(&m->vcpu, MSR_TSC, &v), -1);
	assert_int_equal(cpuid_reg(m, 0x80000000, 0),
			 cpuid_reg(m, 1, 0)); /* no such range: as the highest basic */
	machine_destroy(m);

	m = rig_create("pentium3");
	assert_true(cpuid_cr4_allowed(&m->vcpu) & CR4_PAE);
	assert_int_equal(msr_read(&m->vcpu, MSR_EFER, &v), -1);
	assert_int_equal(msr_read(&m->vcpu, MSR_PAT, &v), 0);
	machine_destroy(m);

	m = rig_create("max");
	assert_int_equal(cpuid_cr4_allowed(&m->vcpu), 0x7ff);
	assert_true(cpuid_has_nx(&m->vcpu));
	machine_destroy(m);
}

/* ------------------------------------------------------------------ MSRs */

static uint64_t msr_get(struct machine *m, uint32_t index)
{
	uint64_t v = 0;

	assert_int_equal(msr_read(&m->vcpu, index, &v), 0);
	return v;
}

static void assert_msr_gp(struct machine *m, uint32_t index, uint64_t value)
{
	m->vcpu.exc.pending = false;
	assert_int_equal(msr_write(&m->vcpu, index, value), -1);
	assert_true(m->vcpu.exc.pending && m->vcpu.exc.has_error);
	assert_int_equal(m->vcpu.exc.vector, VEC_GP);
	assert_int_equal(m->vcpu.exc.error, 0);
}

static void test_msr_plain(void **state)
{
	struct machine *m = *state;
	uint64_t v;

	assert_int_equal(msr_write(&m->vcpu, MSR_SYSENTER_EIP, 0xc0001234), 0);
	assert_int_equal(m->vcpu.sysenter_eip, 0xc0001234);
	assert_int_equal(msr_get(m, MSR_SYSENTER_EIP), 0xc0001234);
	assert_int_equal(msr_read(&m->vcpu, 0xdead, &v), -1);
	assert_msr_gp(m, 0xdead, 0);
	assert_msr_gp(m, MSR_MTRRCAP, 0);
	assert_int_equal(msr_write(&m->vcpu, MSR_BIOS_SIGN_ID, 0), 0);
	assert_int_equal(msr_get(m, MSR_BIOS_SIGN_ID), 0);
	assert_int_equal(msr_get(m, MSR_MCG_CAP), 0);
}

static void test_msr_tsc(void **state)
{
	struct machine *m = *state;

	assert_int_equal(msr_write(&m->vcpu, MSR_TSC, 1000), 0);
	uint64_t v = msr_get(m, MSR_TSC);
	assert_in_range(v, 1000, 1000 + clock_tsc_hz(m));
}

static void test_msr_checked(void **state)
{
	struct machine *m = *state;

	rig_mode_changes = 0;
	assert_int_equal(msr_write(&m->vcpu, MSR_EFER, 0x800), 0);
	assert_int_equal(rig_mode_changes, 1);
	assert_msr_gp(m, MSR_EFER, 0x801); /* SCE */
	assert_msr_gp(m, MSR_EFER, 0x100); /* LME */
	assert_int_equal(msr_get(m, MSR_EFER), 0x800);

	assert_int_equal(msr_write(&m->vcpu, MSR_PAT, 0x0007040600010406), 0);
	assert_msr_gp(m, MSR_PAT, 0x02);
	assert_msr_gp(m, MSR_PAT, 0x0300000000000000);

	assert_int_equal(msr_write(&m->vcpu, MSR_MTRR_PHYSBASE0 + 15, 0xfc0000800), 0);
	assert_msr_gp(m, MSR_MTRR_PHYSBASE0, 0x2);
	assert_msr_gp(m, MSR_MTRR_PHYSBASE0 + 1, 1ull << 36);
	assert_msr_gp(m, MSR_MTRR_PHYSBASE0 + 16, 0);
	assert_msr_gp(m, MSR_MTRR_DEF_TYPE, 0x1000);
	assert_int_equal(msr_write(&m->vcpu, 0x26f, 0x0606060606060606), 0);
	assert_true(m->vcpu.mtrr_fixed[10] == 0x0606060606060606);
	assert_int_equal(msr_write(&m->vcpu, 0x259, 0x0505050505050505), 0);
	assert_true(m->vcpu.mtrr_fixed[2] == 0x0505050505050505);
	assert_msr_gp(m, MSR_MTRR_FIX64K, 7);

	assert_int_equal(msr_get(m, MSR_MISC_ENABLE), 0x1801);
	assert_int_equal(msr_write(&m->vcpu, MSR_MISC_ENABLE, 0x1800), 0);
	assert_int_equal(msr_get(m, MSR_MISC_ENABLE), 0x1800);
	assert_msr_gp(m, MSR_MISC_ENABLE, 1ull << 34);
}

static uint64_t hooked_base;

static void apic_hook(void *opaque, uint64_t base)
{
	(void)opaque;
	hooked_base = base;
}

static void test_msr_apic_base(void **state)
{
	struct machine *m = *state;

	machine_set_apic_hook(m, apic_hook, NULL);
	assert_int_equal(msr_write(&m->vcpu, MSR_APIC_BASE, 0xfee00000), 0);
	assert_int_equal(hooked_base, 0xfee00100);   /* the bootstrap processor stays one */
	assert_msr_gp(m, MSR_APIC_BASE, 0xfee00c00); /* x2APIC */
	assert_msr_gp(m, MSR_APIC_BASE, 1ull << 36 | 0x900);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		rig_test(test_cpuid),
		rig_test(test_cpuid_rates),
		rig_test(test_cpuid_hypervisor),
		cmocka_unit_test(test_cpuid_models),
		rig_test(test_msr_plain),
		rig_test(test_msr_tsc),
		rig_test(test_msr_checked),
		rig_test(test_msr_apic_base),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
