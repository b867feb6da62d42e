/*
 * What CPUID promises, and model-specific registers (SDM vol. 2A CPUID, vol. 4). Features differ between
 * CPUs, so most of what is compared here is whether the CPU keeps its own promises.
 */
#include "guest.h"

#define MSR_TSC	      0x010u
#define MSR_APIC_BASE 0x01bu
#define MSR_MTRRCAP   0x0feu
#define MSR_PAT	      0x277u
#define MSR_MTRR_DEF  0x2ffu
#define MSR_EFER      0xc0000080u

#define CPUID_MSR     (1u << 5)
#define CPUID_CX8     (1u << 8)
#define CPUID_MTRR    (1u << 12)
#define CPUID_CMOV    (1u << 15)
#define CPUID_MMX     (1u << 23)
#define CPUID_SSE2    (1u << 26)

CODE(cpuid, "", "cpuid");
CODE(rdtsc, "", "rdtsc");
CODE(rdmsr, "", "rdmsr");
CODE(wrmsr, "", "wrmsr");
CODE(cmov, "cmpl %eax, %eax", "cmovel %eax, %ecx");
CODE(cmpxchg8b, "", "cmpxchg8b in");
CODE(mmx, "", "emms");
CODE(sse, "", "xorps %xmm0, %xmm0");
CODE(sse2, "", "xorpd %xmm0, %xmm0");
CODE(rdpmc, "xorl %ecx, %ecx", "rdpmc");
CODE(to_cr4, "", "movl %eax, %cr4");
CODE(to_cr0, "", "movl %eax, %cr0");
CODE(toggle_id, "pushfl; popl %eax; movl %eax, %ecx; xorl $0x200000, %ecx; pushl %ecx; popfl", "nop");

static void identification(void)
{
	struct cpuid r = cpu_id(0, 0);

	check("largest leaf is at least 1", r.eax >= 1, true);
	check("  vendor is text", (r.ebx & r.ecx & r.edx & 0x80808080) == 0 && r.ebx && r.ecx && r.edx, true);
	r = cpu_id(1, 0);
	cpu_line();
	check("family", r.eax >> 8 & 15, 6);
	check("FPU, TSC, MSR", r.edx & (CPUID_FPU | CPUID_TSC | CPUID_MSR),
	      CPUID_FPU | CPUID_TSC | CPUID_MSR);
	r = cpu_id(0x80000000, 0);
	if (r.eax >= 0x80000001) {
		cpu_line();
		check("no long mode", cpu_id(0x80000001, 0).edx >> 29 & 1, 0);
	}
	user_mode();
	in.eax = 1;
	expect_done("cpuid at cpl 3", &cpuid);
	cpu_line();
	check("  the same", out.edx, cpu_id(1, 0).edx);
	run(&toggle_id);
	check("EFLAGS.ID toggles", (out.eflags ^ out.eax) & EFLAGS_ID, EFLAGS_ID);
}

/* An instruction is there if its bit says so, and #UD if not. */
static void promises(void)
{
	static const struct {
		const char *name;
		const struct snippet *code;
		uint32_t bit;
	} cases[] = {
		{"cmov", &cmov, CPUID_CMOV}, {"cmpxchg8b", &cmpxchg8b, CPUID_CX8},
		{"mmx", &mmx, CPUID_MMX},    {"sse", &sse, CPUID_SSE},
		{"sse2", &sse2, CPUID_SSE2}, {"rdtsc", &rdtsc, CPUID_TSC},
	};

	if (cpu_has(CPUID_SSE))
		set_cr4(get_cr4() | CR4_OSFXSR);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cpu_line();
		if (cpu_has(cases[i].bit))
			expect_done(cases[i].name, cases[i].code);
		else
			expect_fault(cases[i].name, cases[i].code, X_UD, NO_ERROR);
	}

	static const struct {
		const char *name;
		uint32_t cr4, bit;
	} bits[] = {
		{"CR4.VME", CR4_VME, CPUID_VME}, {"CR4.PVI", CR4_PVI, CPUID_VME},
		{"CR4.TSD", CR4_TSD, CPUID_TSC}, {"CR4.DE", CR4_DE, CPUID_DE},
		{"CR4.PSE", CR4_PSE, CPUID_PSE}, {"CR4.PAE", CR4_PAE, CPUID_PAE},
		{"CR4.PGE", CR4_PGE, CPUID_PGE}, {"CR4.OSFXSR", CR4_OSFXSR, CPUID_FXSR},
	};

	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		uint32_t before = get_cr4();

		if (!cpu_has(bits[i].bit) && on_tcg)
			continue; /* it hangs on bits it does not offer */
		in.eax = before ^ bits[i].cr4;
		cpu_line();
		if (cpu_has(bits[i].bit)) {
			expect_done(bits[i].name, &to_cr4);
			cpu_line();
			check("  reads back", get_cr4() ^ before, bits[i].cr4);
		} else {
			expect_fault(bits[i].name, &to_cr4, X_GP, 0);
		}
		set_cr4(before);
	}
	in.eax = get_cr0() & ~CR0_ET;
	expect_done("CR0.ET off", &to_cr0);
	check("  stays on", get_cr0() & CR0_ET, CR0_ET);
	check("CR0 keeps what it is given",
	      (set_cr0(get_cr0() | CR0_AM | CR0_WP | CR0_NE), get_cr0() & (CR0_AM | CR0_WP | CR0_NE)),
	      CR0_AM | CR0_WP | CR0_NE);
	set_cr0(get_cr0() & ~(CR0_AM | CR0_WP));
}

static uint64_t tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static void expect_msr(const char *label, const struct snippet *code, uint32_t msr, uint64_t value, bool good)
{
	in.ecx = msr;
	in.eax = value;
	in.edx = value >> 32;
	if (good)
		expect_done(label, code);
	else
		expect_fault(label, code, X_GP, 0);
}

static void msrs(void)
{
	uint64_t value, before = tsc(), after;

	for (int i = 0; i < 1000; i++) {
		after = tsc();
		if (after < before)
			break;
		before = after;
	}
	check("TSC never goes back", after >= before, true);
	value = read_msr(MSR_TSC);
	sdm("3B 18.17.3"); /* QEMU has no such MSR */
	check("TSC by rdmsr", value >= before && value - before < 0x100000000ull, true);
	write_msr(MSR_TSC, 0x500000000ull);
	sdm("3B 18.17.3");
	check("TSC written", tsc() >> 32, 5);
	write_msr(MSR_TSC, value);

	if (cpu_has(CPUID_APIC)) {
		value = read_msr(MSR_APIC_BASE);
		check("APIC base", value & 0xfffff000, 0xfee00000);
		check("  BSP, enabled", value & 0x900, 0x900);
	}
	if (cpu_has(CPUID_PAT)) {
		check("PAT after reset, low", read_msr(MSR_PAT), 0x00070406);
		check("  high", read_msr(MSR_PAT) >> 32, 0x00070406);
		expect_msr("PAT, write", &wrmsr, MSR_PAT, 0x0007010600070406ull, true);
		check("  reads back", read_msr(MSR_PAT) >> 32, 0x00070106);
		sdm("3A 12.12.2"); /* QEMU takes reserved types */
		expect_msr("PAT, type 2", &wrmsr, MSR_PAT, 0x0007040600070402ull, false);
		write_msr(MSR_PAT, 0x0007040600070406ull);
	}
	if (cpu_has(CPUID_MTRR)) {
		cpu_line();
		check("variable MTRRs, at most 16", (read_msr(MSR_MTRRCAP) & 0xff) <= 16, true);
		value = read_msr(MSR_MTRR_DEF);
		expect_msr("MTRR default type, write", &wrmsr, MSR_MTRR_DEF, 0xc06, true);
		check("  reads back", read_msr(MSR_MTRR_DEF), 0xc06);
		write_msr(MSR_MTRR_DEF, value);
	}
	if (cpu_has_nx()) {
		cpu_line();
		expect_msr("EFER.NXE", &wrmsr, MSR_EFER, 0x800, true);
		cpu_line();
		check("  reads back", read_msr(MSR_EFER) & 0xfff, 0x800);
		write_msr(MSR_EFER, 0);
	}
	sdm("2B RDMSR"); /* QEMU reads 0 and ignores writes */
	expect_msr("rdmsr of nothing", &rdmsr, 0x12345678, 0, false);
	sdm("2B WRMSR");
	expect_msr("wrmsr of nothing", &wrmsr, 0x12345678, 0, false);
	user_mode();
	expect_msr("rdmsr at cpl 3", &rdmsr, MSR_TSC, 0, false);
	user_mode();
	expect_msr("wrmsr at cpl 3", &wrmsr, MSR_TSC, 0, false);
	user_mode();
	expect_fault("rdpmc at cpl 3, no PCE", &rdpmc, X_GP, 0);
}

void test(void)
{
	identification();
	promises();
	msrs();
}
