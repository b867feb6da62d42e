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

/* ------------------------------------------------------------------ encodings */

const char *excluded_encoding(const uint8_t *p, unsigned len)
{
	bool lock = false;
	unsigned n = 0;

	for (; n < len && memchr("\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3", p[n], 11); n++)
		lock |= p[n] == 0xf0;
	if (lock && n + 1 < len && p[n] == 0x0f && (p[n + 1] & 0xfd) == 0x20)
		return "with LOCK, AMD's MOV to and from CR8 (APM vol. 3, MOV CRn)";
	if (n + 1 < len && p[n] == 0x8f && (p[n + 1] & 0x38))
		return "AMD's XOP escape, of which some encodings raise #GP and not #UD";
	if (n + 2 < len && p[n] == 0x0f && p[n + 1] == 0x01 && (p[n + 2] == 0xc1 || p[n + 2] == 0xd9))
		return "VMCALL and VMMCALL: a hypervisor under the host answers";
	return NULL;
}

/* ------------------------------------------------------------------ exceptions and results */

/* The instruction that a result's EIP is at, or the only one of the case. */
static bool instruction(const struct testcase *t, const struct silicon_result *r, struct insn *i)
{
	uint32_t at = r->eip - (slot_at(t) + SLOT_CODE + t->c.code_at);

	if (at >= t->c.code_len) {
		if (t->ninsn != 1)
			return false;
		at = 0;
	}
	return decode_insn(t->c.code + at, t->c.code_len - at < 15 ? t->c.code_len - at : 15, true, i) ==
	       DECODE_OK;
}

/* The offset of its memory operand in the segment: with the registers at the fault, or those that the case
 * began with. */
static uint32_t offset_of(const struct testcase *t, const struct silicon_result *want, const struct insn *i)
{
	static struct testcase then;

	then = *t;
	if (want->eip - (slot_at(t) + SLOT_CODE + t->c.code_at) < t->c.code_len)
		memcpy(then.c.gpr, want->gpr, sizeof then.c.gpr);
	return case_address(&then, i) - case_base(t, i->seg);
}

/* Faults push RF set (SDM vol. 3B 17.3.1.1). For INT3, INTO and traps the manual has it "as it was at the
 * time", which after a POPF or IRET that set it is 1 by the letter and 0 on AMD's CPUs. */
static unsigned pushed_rf(const struct testcase *t, const struct silicon_result *want,
			  const struct silicon_result *got)
{
	(void)t;
	return want->vector == got->vector && (want->eflags ^ got->eflags) == FL_RF &&
			       (want->vector == VEC_DB || want->vector == VEC_BP || want->vector == VEC_OF)
		       ? DIFF_FLAGS
		       : 0;
}

/* INT1 is a trap (SDM vol. 3A 6.3.1), but hypervisors on AMD's CPUs that intercept #DB hand it on with the
 * address of INT1 itself. */
static unsigned int1_eip(const struct testcase *t, const struct silicon_result *want,
			 const struct silicon_result *got)
{
	struct insn i;

	return want->vector == VEC_DB && got->vector == VEC_DB && instruction(t, want, &i) &&
			       i.mnemonic == M(INT1) && got->eip == want->eip + i.len
		       ? DIFF_EIP
		       : 0;
}

static bool far_return(const struct insn *i)
{
	return i->opmap == 0 && (i->opcode == 0xca || i->opcode == 0xcb || i->opcode == 0xcf);
}

/* In which order a far return or IRET reads its frame is not told by the pseudocode in SDM vol. 2 as far as
 * faults go: AMD's CPUs read CS (IRET: EFLAGS) first, and with RET n look at the place of SS even before they
 * know that it will be needed. */
static unsigned frame_order(const struct testcase *t, const struct silicon_result *want,
			    const struct silicon_result *got)
{
	struct insn i;
	uint32_t frame;

	if (!instruction(t, want, &i) || !far_return(&i) || want->eip != got->eip)
		return 0;
	if (0u - want->gpr[ESP] < 24) /* across the end of the address space too */
		return ~0u;
	if (want->vector == VEC_AC && i.opcode == 0xca)
		return ~0u;
	if (want->vector != VEC_PF)
		return 0;
	frame = want->gpr[ESP] + case_base(t, SS);
	return want->cr2 - frame < 24u + (i.opcode == 0xca ? i.imm & 0xffff : 0)
		       ? DIFF_VECTOR | DIFF_ERROR | DIFF_CR2
		       : 0;
}

/* A fault restores the state before the instruction (SDM vol. 3A 6.5), but on AMD's CPUs POPA has by then
 * loaded the registers up to the one that faulted. */
static unsigned partial_popa(const struct testcase *t, const struct silicon_result *want,
			     const struct silicon_result *got)
{
	struct insn i;

	return want->vector == got->vector && want->vector != VEC_BP && instruction(t, want, &i) &&
			       i.opmap == 0 && i.opcode == 0x61 && want->gpr[ESP] == got->gpr[ESP]
		       ? DIFF_GPR
		       : 0;
}

/* Whether an operand beyond the highest address faults is the implementation's choice (SDM vol. 3A 5.3), and
 * so is at which of its parts if it is accessed in parts: x87 environments, 80-bit operands, FXSAVE, masked
 * moves. With 16-bit addresses the same holds at 64 KiB (SDM vol. 3B 21.33). */
static unsigned wrapping_parts(const struct testcase *t, const struct silicon_result *want,
			       const struct silicon_result *got)
{
	struct insn i;
	uint32_t ea, top;

	(void)got;
	if (!instruction(t, want, &i))
		return 0;
	if (i.mnemonic == M(MASKMOVQ) || i.mnemonic == M(MASKMOVDQU))
		return 0u - want->gpr[EDI] < 16 ? ~0u : 0;
	if (!i.has_mem ||
	    !((i.opmap == 0 && i.opcode >= 0xd8 && i.opcode <= 0xdf) || (i.opmap == 1 && i.opcode == 0xae)))
		return 0;
	ea = offset_of(t, want, &i);
	top = i.adsize == 2 ? 0xffff : 0xffffffff;
	return top - ea < 512 ? ~0u : 0;
}

/* The same choice for segments with a base and a limit of 4 GiB: silicon and the interpreter find the operand
 * beyond the limit, translated code goes on at the segment's start. */
static unsigned wrapping_offset(const struct testcase *t, const struct silicon_result *want,
				const struct silicon_result *got)
{
	struct insn i;
	uint32_t ea;

	(void)got;
	if (!instruction(t, want, &i) || !i.has_mem || !case_base(t, i.seg))
		return 0;
	ea = offset_of(t, want, &i);
	return want->vector >= VEC_SS && want->vector <= VEC_GP && 0xffffffff - ea < 15 ? ~0u : 0;
}

static struct {
	const char *what;
	unsigned (*excused)(const struct testcase *t, const struct silicon_result *want,
			    const struct silicon_result *got);
	unsigned long times;
} rules[] = {
	{"RF in the flags pushed by a trap", pushed_rf, 0},
	{"EIP of INT1", int1_eip, 0},
	{"the order in which far returns read their frame", frame_order, 0},
	{"POPA that faults half-way", partial_popa, 0},
	{"x87 operands in parts across the end of the address space", wrapping_parts, 0},
	{"offsets beyond 4 GiB in a segment with a base", wrapping_offset, 0},
};
#define RULES (sizeof rules / sizeof *rules)

unsigned excuse(const struct testcase *t, const struct silicon_result *want, const struct silicon_result *got,
		unsigned diff)
{
	for (unsigned k = 0; k < RULES && diff; k++) {
		unsigned mask = rules[k].excused(t, want, got);

		if (diff & mask) {
			diff &= ~mask;
			rules[k].times++;
		}
	}
	return diff ? diff : DIFF_EXCUSED;
}

void print_excuses(FILE *out)
{
	for (unsigned k = 0; k < RULES; k++)
		if (rules[k].times)
			fprintf(out, "%8lu excused: %s\n", rules[k].times, rules[k].what);
}
