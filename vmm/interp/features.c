/* features.c - integer instructions that a CPU model may lack, by the CPUID bit that announces them.
 *
 * x87, MMX and SSE instructions are looked up where their stubs are made (hostunit.c).
 */
#include "vmm/interp/interp.h"

enum { OUT_EAX, OUT_EBX, OUT_ECX, OUT_EDX };

/* First to last opcode of a map; reg is ModRM.reg, or -1 for any. SDM vol. 2A, CPUID. */
static const struct feature {
	uint8_t map, first, last;
	int8_t reg;
	uint8_t leaf, out, bit;
} features[] = {
	{1, 0x30, 0x30, -1, 1, OUT_EDX, 5},  /* WRMSR: MSR */
	{1, 0x31, 0x31, -1, 1, OUT_EDX, 4},  /* RDTSC: TSC */
	{1, 0x32, 0x32, -1, 1, OUT_EDX, 5},  /* RDMSR */
	{1, 0x34, 0x35, -1, 1, OUT_EDX, 11}, /* SYSENTER, SYSEXIT: SEP */
	{1, 0x40, 0x4f, -1, 1, OUT_EDX, 15}, /* CMOVcc */
	{1, 0xae, 0xae, 5, 1, OUT_EDX, 26},  /* LFENCE: SSE2 */
	{1, 0xae, 0xae, 6, 1, OUT_EDX, 26},  /* MFENCE */
	{1, 0xae, 0xae, 7, 1, OUT_EDX, 25},  /* SFENCE: SSE; CLFLUSH came with the next generation */
	{1, 0xb8, 0xb8, -1, 1, OUT_ECX, 23}, /* POPCNT */
	{1, 0xc3, 0xc3, -1, 1, OUT_EDX, 26}, /* MOVNTI: SSE2 */
	{1, 0xc7, 0xc7, 1, 1, OUT_EDX, 8},   /* CMPXCHG8B: CX8 */
	{1, 0xc7, 0xc7, 6, 1, OUT_ECX, 30},  /* RDRAND */
	{1, 0xc7, 0xc7, 7, 7, OUT_EBX, 18},  /* RDSEED */
};

static bool has(const struct vcpu *c, unsigned leaf, unsigned out, unsigned bit)
{
	uint32_t r[4];

	cpuid_query(c, leaf, 0, r);
	return r[out] >> bit & 1;
}

bool cpu_offers(const struct vcpu *c, const struct insn *i)
{
	if (i->opmap == 2 && (i->opcode == 0xf0 || i->opcode == 0xf1)) /* CRC32: SSE4.2; else MOVBE */
		return has(c, 1, OUT_ECX, i->prefix & INSN_REPNE ? 20 : 22);
	for (unsigned k = 0; k < sizeof features / sizeof *features; k++) {
		const struct feature *f = &features[k];

		if (i->opmap == f->map && i->opcode >= f->first && i->opcode <= f->last &&
		    (f->reg < 0 || i->reg == f->reg))
			return has(c, f->leaf, f->out, f->bit);
	}
	return true;
}
