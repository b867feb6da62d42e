/* rules.c - what is not compared, and why. Nothing else is left out. */
#include <string.h>

#include "silicon.h"

/* ------------------------------------------------------------------ instructions */

#define M(name) ZYDIS_MNEMONIC_##name

static const struct {
	uint16_t mnemonic;
	const char *reason;
} excluded[] = {
	{M(CPUID), "the guest's CPU is another model than the host's"},
	{M(RDTSC), "time"},
	{M(RDPMC), "CR4.PCE is the host kernel's choice (SDM vol. 2B RDPMC)"},
	{M(RDRAND), "random numbers"},
	{M(RDSEED), "random numbers"},
	{M(SGDT), "the host kernel's tables; with CR4.UMIP it answers in the CPU's place (SDM vol. 3A 2.5)"},
	{M(SIDT), "as SGDT"},
	{M(SLDT), "as SGDT"},
	{M(STR), "as SGDT"},
	{M(SMSW), "as SGDT"},
	{M(SYSENTER), "enters the host's kernel, whose entry point decides what follows"},
	{M(SYSCALL), "as SYSENTER"},
};

const char *excluded_mnemonic(unsigned mnemonic)
{
	for (unsigned k = 0; k < sizeof excluded / sizeof *excluded; k++)
		if (excluded[k].mnemonic == mnemonic)
			return excluded[k].reason;
	return NULL;
}

/* ------------------------------------------------------------------ undefined flags
 *
 * SDM vol. 2, "Flags Affected" of each instruction; summed up in vol. 1 appendix A, "EFLAGS cross-reference"
 * (entries "-"). Shifts and rotates: below.
 */
static const struct {
	uint16_t mnemonic;
	uint16_t flags;
} undefined[] = {
	{M(AAA), FL_OF | FL_SF | FL_ZF | FL_PF},
	{M(AAS), FL_OF | FL_SF | FL_ZF | FL_PF},
	{M(AAD), FL_OF | FL_AF | FL_CF},
	{M(AAM), FL_OF | FL_AF | FL_CF},
	{M(DAA), FL_OF},
	{M(DAS), FL_OF},
	{M(AND), FL_AF},
	{M(OR), FL_AF},
	{M(XOR), FL_AF},
	{M(TEST), FL_AF},
	{M(MUL), FL_SF | FL_ZF | FL_AF | FL_PF},
	{M(IMUL), FL_SF | FL_ZF | FL_AF | FL_PF},
	{M(DIV), FL_ARITH},
	{M(IDIV), FL_ARITH},
	{M(BSF), FL_CF | FL_OF | FL_SF | FL_AF | FL_PF},
	{M(BSR), FL_CF | FL_OF | FL_SF | FL_AF | FL_PF},
	{M(BT), FL_OF | FL_SF | FL_AF | FL_PF},
	{M(BTS), FL_OF | FL_SF | FL_AF | FL_PF},
	{M(BTR), FL_OF | FL_SF | FL_AF | FL_PF},
	{M(BTC), FL_OF | FL_SF | FL_AF | FL_PF},
};

static uint32_t shift_undefined(const struct insn *i, const struct testcase *t)
{
	bool byte = i->opmap == 0 && !(i->opcode & 1);
	unsigned width = byte ? 8 : i->opsize * 8u, count;

	if (i->opmap == 0 && i->opcode >= 0xd2)
		count = t->c.gpr[ECX] & 31;
	else if (i->opmap == 0 && i->opcode >= 0xd0)
		count = 1;
	else if (i->opmap == 1 && (i->opcode & 1))
		count = t->c.gpr[ECX] & 31;
	else
		count = i->imm & 31;
	if (count == 0)
		return 0;
	switch (i->mnemonic) {
	case M(ROL):
	case M(ROR):
	case M(RCL):
	case M(RCR): /* OF for counts other than 1 */
		return count == 1 ? 0 : FL_OF;
	case M(SHLD):
	case M(SHRD): /* everything, the result too, for counts beyond the width */
		return count > width ? FL_ARITH : FL_AF | (count == 1 ? 0 : FL_OF);
	case M(SAR):
		return FL_AF | (count == 1 ? 0 : FL_OF);
	default: /* SHL, SHR: CF too for counts from the width up */
		return FL_AF | (count == 1 ? 0 : FL_OF) | (count >= width ? FL_CF : 0);
	}
}

uint32_t undefined_flags(const struct insn *i, const struct testcase *t)
{
	switch (i->mnemonic) {
	case M(ROL):
	case M(ROR):
	case M(RCL):
	case M(RCR):
	case M(SHL):
	case M(SHR):
	case M(SAR):
	case M(SHLD):
	case M(SHRD):
		return shift_undefined(i, t);
	}
	for (unsigned k = 0; k < sizeof undefined / sizeof *undefined; k++)
		if (undefined[k].mnemonic == i->mnemonic)
			return undefined[k].flags;
	return 0;
}

/* ------------------------------------------------------------------ exceptions */

/* Faults push RF set (SDM vol. 3B 17.3.1.1). For INT3, INTO and traps the manual has it "as it was at the time", which
 * after a POPF or IRET that set it is 1 by the letter and 0 on AMD's CPUs. */
uint32_t loose_rf(uint32_t vector)
{
	return vector == VEC_DB || vector == VEC_BP || vector == VEC_OF ? FL_RF : 0;
}

/* INT1 is a trap (SDM vol. 3A 6.3.1), but hypervisors on AMD's CPUs that intercept #DB hand it on with the address of
 * INT1 itself. */
bool loose_eip(uint32_t vector, const struct testcase *t)
{
	return vector == VEC_DB && t->c.code_len && memchr(t->c.code, 0xf1, t->c.code_len);
}
