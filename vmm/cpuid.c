/* cpuid.c - the virtual CPU's identity: models, feature bits and the hypervisor leaves.
 *
 * A model is a row of the table below. "max" is what the host can execute, presented as an Atom of the
 * Bonnell family: an in-order part, which operating systems know to need no mitigations against speculation.
 * That is the truth about a guest whose code is translated: its indirect branches are ours. SDM vol. 2A,
 * CPUID; Intel application note 485 for the cache descriptors of leaf 2.
 */
#include "vmm/machine_private.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

/* Leaf 1 EDX */
#define F_FPU	  (1u << 0)
#define F_VME	  (1u << 1)
#define F_DE	  (1u << 2)
#define F_PSE	  (1u << 3)
#define F_TSC	  (1u << 4)
#define F_MSR	  (1u << 5)
#define F_PAE	  (1u << 6)
#define F_MCE	  (1u << 7)
#define F_CX8	  (1u << 8)
#define F_APIC	  (1u << 9)
#define F_SEP	  (1u << 11)
#define F_MTRR	  (1u << 12)
#define F_PGE	  (1u << 13)
#define F_MCA	  (1u << 14)
#define F_CMOV	  (1u << 15)
#define F_PAT	  (1u << 16)
#define F_PSE36	  (1u << 17)
#define F_CLFLUSH (1u << 19)
#define F_MMX	  (1u << 23)
#define F_FXSR	  (1u << 24)
#define F_SSE	  (1u << 25)
#define F_SSE2	  (1u << 26)
/* Leaf 1 ECX */
#define F_SSE3	     (1u << 0)
#define F_PCLMUL     (1u << 1)
#define F_SSSE3	     (1u << 9)
#define F_SSE41	     (1u << 19)
#define F_SSE42	     (1u << 20)
#define F_MOVBE	     (1u << 22)
#define F_POPCNT     (1u << 23)
#define F_AES	     (1u << 25)
#define F_RDRAND     (1u << 30)
#define F_HYPERVISOR (1u << 31)
/* Leaf 6 EAX */
#define F_ARAT (1u << 2) /* the APIC timer never stops */
/* Leaf 7 EBX */
#define F_RDSEED (1u << 18)
/* Leaf 80000001 EDX, 80000007 EDX */
#define F_NX		 (1u << 20)
#define F_INVARIANT_TSC	 (1u << 8)

#define FEATURES_486	 (F_FPU | F_VME | F_PSE)
#define FEATURES_PENTIUM (FEATURES_486 | F_DE | F_TSC | F_MSR | F_MCE | F_CX8)
#define FEATURES_P3                                                                                          \
	(FEATURES_PENTIUM | F_PAE | F_APIC | F_SEP | F_MTRR | F_PGE | F_MCA | F_CMOV | F_PAT | F_PSE36 |     \
	 F_MMX | F_FXSR | F_SSE)
#define FEATURES_MAX (FEATURES_P3 | F_CLFLUSH | F_SSE2)
/* Taken over from the host where it has them. */
#define HOST_ECX (F_SSE3 | F_PCLMUL | F_SSSE3 | F_SSE41 | F_SSE42 | F_MOVBE | F_POPCNT | F_AES | F_RDRAND)

struct cpu_model {
	const char *name;
	const char *brand; /* NULL: no extended leaves */
	uint32_t signature;
	uint32_t features; /* leaf 1 EDX */
	uint32_t host_ecx; /* leaf 1 ECX: what to take over from the host */
	uint32_t max_leaf, max_ext_leaf;
	uint32_t leaf2[4];
	bool nx;
};

static const struct cpu_model models[] = {
	{.name = "486", .signature = 0x480, .features = FEATURES_486, .max_leaf = 1},
	{.name = "pentium", .signature = 0x543, .features = FEATURES_PENTIUM | F_MMX, .max_leaf = 1},
	{.name = "pentium3",
	 .signature = 0x683,
	 .features = FEATURES_P3,
	 .max_leaf = 2,
	 .leaf2 = {0x03020101, 0, 0, 0x0c040843}},
	{.name = "max",
	 .brand = "bt86 virtual CPU",
	 .signature = 0x106ca, /* family 6, model 1c, stepping 10 */
	 .features = FEATURES_MAX,
	 .host_ecx = HOST_ECX,
	 .max_leaf = 0x16,
	 .max_ext_leaf = 0x80000008,
	 .leaf2 = {0x4fba5901, 0x0e3080c0, 0, 0},
	 .nx = true},
};

#define HV_BASE	    0x40000000u
#define HV_TIMING   0x40000010u /* the convention that VMware began */
#define HV_COUNTERS 0x40000100u
#define HV_MAX_CTRS 64u

/* Leaf 4 for "max": type and level, line 64 bytes, ways, sets. */
static const struct cache_row {
	uint8_t type, level; /* 1 data, 2 instruction, 3 unified */
	uint16_t ways, sets;
} caches[] = {
	{1, 1, 6, 64},	 /* 24 KiB */
	{2, 1, 8, 64},	 /* 32 KiB */
	{3, 2, 8, 1024}, /* 512 KiB */
};

static uint32_t host_leaf1_ecx, host_leaf7_ebx, host_ext7_edx;
static uint32_t allowed_leaf1_edx, allowed_ext1_edx; /* all, unless an accelerator has less */

static const struct cpu_model *model_find(const char *name)
{
	for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
		if (!strcmp(models[i].name, name))
			return &models[i];
	return NULL;
}

bool cpuid_model_known(const char *model)
{
	return model_find(model) != NULL;
}

void cpuid_init(struct machine *m, const char *model)
{
	unsigned a, b, c, d;

	m->model = model_find(model);
	allowed_leaf1_edx = allowed_ext1_edx = ~0u;
	if (__get_cpuid(1, &a, &b, &c, &d))
		host_leaf1_ecx = c;
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
		host_leaf7_ebx = b;
	if (__get_cpuid(0x80000007, &a, &b, &c, &d))
		host_ext7_edx = d;
}

void cpuid_restrict(uint32_t leaf1_ecx, uint32_t leaf1_edx, uint32_t leaf7_ebx, uint32_t ext1_edx)
{
	host_leaf1_ecx &= leaf1_ecx;
	host_leaf7_ebx &= leaf7_ebx;
	allowed_leaf1_edx &= leaf1_edx;
	allowed_ext1_edx &= ext1_edx;
}

void cpuid_set_counters(struct machine *m, unsigned (*fn)(void *opaque, uint64_t *out, unsigned max),
			void *opaque)
{
	m->counters_fn = fn;
	m->counters_opaque = opaque;
}

/* ------------------------------------------------------------------ leaves */

static void put_string(uint32_t *out, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((char *)out)[i] = s[i];
}

static void leaf_basic(const struct vcpu *c, const struct cpu_model *model, uint32_t out[4])
{
	out[0] = model->signature;
	out[1] = model->features & F_CLFLUSH ? 8u << 8 : 0; /* line of 8 quadwords; APIC ID 0 */
	out[2] = (model->host_ecx & host_leaf1_ecx) | F_HYPERVISOR;
	out[3] = model->features & allowed_leaf1_edx;
	if (!(c->apic_base & 0x800))
		out[3] &= ~F_APIC;
}

static void leaf_cache(uint32_t subleaf, uint32_t out[4])
{
	if (subleaf >= sizeof caches / sizeof caches[0])
		return;
	const struct cache_row *r = &caches[subleaf];
	out[0] = r->type | (uint32_t)r->level << 5 | 1u << 8; /* self-initializing; one thread, one core */
	out[1] = 63u | (uint32_t)(r->ways - 1) << 22;
	out[2] = r->sets - 1u;
}

/* The largest numerator for which crystal, kHz, x numerator stays within 32 bits. */
#define RATIO_MAX (UINT32_MAX / CPUID_APIC_BUS_KHZ)

/* The fraction nearest to a / b from below or above that the convergents of its continued fraction and, at
 * the end, their mediants give, with a numerator up to RATIO_MAX: a few millionths off at worst. */
static void ratio_nearest(uint64_t a, uint64_t b, uint32_t *numerator, uint32_t *denominator)
{
	uint64_t p0 = 0, p1 = 1, q0 = 1, q1 = 0;

	while (b) {
		uint64_t k = a / b, most = (RATIO_MAX - p0) / p1, rest = a % b;
		if (k > most)
			k = most;
		uint64_t p = k * p1 + p0, q = k * q1 + q0;
		if (!k && q1)
			break;
		p0 = p1, q0 = q1, p1 = p, q1 = q;
		if (k == most)
			break;
		a = b;
		b = rest;
	}
	*numerator = (uint32_t)p1;
	*denominator = (uint32_t)q1;
}

/* Leaves 15 and 16: the rates of the TSC and of the crystal that the APIC timer counts. A kernel that is told
 * need not measure them, which it cannot do well while the host takes the processor away. */
static void leaf_rates(struct machine *m, uint32_t leaf, uint32_t out[4])
{
	if (!(host_ext7_edx & F_INVARIANT_TSC))
		return;
	if (leaf == 0x16) {
		out[0] = out[1] = (uint32_t)((clock_tsc_hz(m) + 500000) / 1000000); /* MHz: base, maximum */
		out[2] = CPUID_APIC_BUS_KHZ / 1000;				    /* bus */
		return;
	}
	ratio_nearest(clock_tsc_hz(m), CPUID_APIC_BUS_KHZ * 1000ull, &out[1], &out[0]);
	out[2] = CPUID_APIC_BUS_KHZ * 1000u;
}

static void leaf_extended(const struct cpu_model *model, uint32_t leaf, uint32_t out[4])
{
	char brand[48] = {0};

	switch (leaf) {
	case 0x80000000:
		out[0] = model->max_ext_leaf;
		break;
	case 0x80000001:
		out[3] = model->nx ? F_NX & allowed_ext1_edx : 0;
		break;
	case 0x80000002 ... 0x80000004:
		for (size_t i = 0; model->brand[i]; i++)
			brand[i] = model->brand[i];
		put_string(out, brand + 16 * (leaf - 0x80000002), 16);
		break;
	case 0x80000006:
		out[2] = 512u << 16 | 6u << 12 | 64; /* L2: 512 KiB, 8-way, 64-byte lines */
		break;
	case 0x80000007:
		out[3] = host_ext7_edx & F_INVARIANT_TSC;
		break;
	case 0x80000008:
		out[0] = 32u << 8 | 36; /* linear, physical address bits */
		break;
	default:
		break;
	}
}

static void leaf_hypervisor(const struct vcpu *c, uint32_t leaf, uint32_t out[4])
{
	struct machine *m = c->machine;
	uint64_t counters[HV_MAX_CTRS];

	if (leaf == HV_BASE) {
		out[0] = HV_TIMING;
		put_string(&out[1], "bt86bt86bt86", 12);
	} else if (leaf == HV_TIMING) {
		out[0] = (uint32_t)(clock_tsc_hz(m) / 1000);
		out[1] = CPUID_APIC_BUS_KHZ;
	} else if (leaf >= HV_COUNTERS && leaf <= HV_COUNTERS + HV_MAX_CTRS && m->counters_fn) {
		unsigned n = m->counters_fn(m->counters_opaque, counters, HV_MAX_CTRS);
		if (leaf == HV_COUNTERS) {
			out[0] = n;
		} else if (leaf - HV_COUNTERS <= n) {
			out[0] = (uint32_t)counters[leaf - HV_COUNTERS - 1];
			out[1] = (uint32_t)(counters[leaf - HV_COUNTERS - 1] >> 32);
		}
	}
}

void cpuid_query(const struct vcpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	const struct cpu_model *model = c->machine->model;

	out[0] = out[1] = out[2] = out[3] = 0;
	if (leaf >= HV_BASE && leaf < HV_BASE + 0x10000u) {
		leaf_hypervisor(c, leaf, out);
		return;
	}
	if (leaf >= 0x80000000u && leaf <= 0x80000000u + 0xffffu && model->max_ext_leaf) {
		leaf_extended(model, leaf, out);
		return;
	}
	if (leaf >
	    model->max_leaf) /* SDM: beyond the highest leaf, the highest basic leaf's data is returned */
		leaf = model->max_leaf;
	switch (leaf) {
	case 0:
		out[0] = model->max_leaf;
		put_string(&out[1], "Genu", 4);
		put_string(&out[3], "ineI", 4);
		put_string(&out[2], "ntel", 4);
		break;
	case 1:
		leaf_basic(c, model, out);
		break;
	case 2:
		for (int i = 0; i < 4; i++)
			out[i] = model->leaf2[i];
		break;
	case 4:
		leaf_cache(subleaf, out);
		break;
	case 6:
		out[0] = F_ARAT; /* no sensor, no turbo */
		break;
	case 7:
		if (subleaf == 0)
			out[1] = host_leaf7_ebx & F_RDSEED;
		break;
	case 0x15:
	case 0x16:
		leaf_rates(c->machine, leaf, out);
		break;
	default: /* 3 serial number, 5 monitor, 9 DCA, a performance counters, b topology, d XSAVE:
		    none */
		break;
	}
}

/* ------------------------------------------------------------------ what follows from the features */

bool cpuid_has_nx(const struct vcpu *c)
{
	return c->machine->model->nx && allowed_ext1_edx & F_NX;
}

bool cpuid_has_features(const struct vcpu *c, uint32_t edx)
{
	return (c->machine->model->features & allowed_leaf1_edx & edx) == edx;
}

uint32_t cpuid_cr4_allowed(const struct vcpu *c)
{
	static const struct {
		uint32_t feature, cr4;
	} rows[] = {
		{F_VME, CR4_VME | CR4_PVI}, {F_TSC, CR4_TSD},	     {F_DE, CR4_DE},
		{F_PSE, CR4_PSE},	    {F_PAE, CR4_PAE},	     {F_MCE, CR4_MCE},
		{F_PGE, CR4_PGE},	    {F_CMOV, CR4_PCE}, /* PCE came with P6 */
		{F_FXSR, CR4_OSFXSR},	    {F_SSE, CR4_OSXMMEXCPT},
	};
	uint32_t allowed = 0;

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (cpuid_has_features(c, rows[i].feature))
			allowed |= rows[i].cr4;
	return allowed;
}
