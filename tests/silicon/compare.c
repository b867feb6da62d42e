/* compare.c - two results of a case, and how they differ. */
#include <string.h>

#include "silicon.h"

#define COMPARED_FLAGS (FL_ARITH | FL_TF | FL_IF | FL_DF | FL_NT | FL_RF | FL_AC | FL_ID)

/* Bytes of the FXSAVE image that are not compared: the reserved ones (SDM vol. 1 table 10-2), MXCSR_MASK, and
 * of the x87 pointers the selectors, which the host's kernel loses (it saves in the 64-bit format). */
static bool fx_skipped(unsigned at)
{
	return at == 5 || (at >= 12 && at < 16) || (at >= 20 && at < 24) || (at >= 28 && at < 32) ||
	       (at >= 32 && at < 160 && at % 16 >= 10);
}

/* Nor, of the translator's, FOP, FIP and FDP (docs/limits.md). */
static bool fx_skipped_bt(unsigned at)
{
	return fx_skipped(at) || (at >= 6 && at < 12) || (at >= 16 && at < 20);
}

static bool fx_differs(const uint8_t *a, const uint8_t *b, bool (*skipped)(unsigned))
{
	if (!memcmp(a, b, 288))
		return false;
	for (unsigned k = 0; k < 288; k++)
		if (a[k] != b[k] && !skipped(k))
			return true;
	return false;
}

static bool in_private(const struct silicon_result *r)
{
	return r->vector == VEC_PF && r->cr2 >= PRIVATE_AT && r->cr2 < PRIVATE_END;
}

static bool has_error(uint32_t vector)
{
	return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}

/* Flags that may differ: what the only instruction leaves undefined. */
static uint32_t loose_flags(const struct testcase *t)
{
	struct insn i;

	if (t->ninsn != 1 || t->c.reps > 1 ||
	    decode_insn(t->c.code, t->c.code_len < 15 ? t->c.code_len : 15, true, &i) != DECODE_OK)
		return 0;
	return undefined_flags(&i, t);
}

unsigned compare(const struct testcase *t, enum side_id s, const struct silicon_result *want,
		 const struct silicon_result *got, const uint8_t *want_data, const uint8_t *got_data)
{
	uint32_t flags = (want->eflags ^ got->eflags) & COMPARED_FLAGS;
	unsigned d = 0;

	if (want->vector != got->vector)
		d |= DIFF_VECTOR;
	else if (has_error(want->vector) && want->error != got->error)
		d |= DIFF_ERROR;
	if (want->vector == VEC_PF && got->vector == VEC_PF && want->cr2 != got->cr2)
		d |= DIFF_CR2;
	if (want->eip != got->eip)
		d |= DIFF_EIP;
	if (memcmp(want->gpr, got->gpr, sizeof want->gpr))
		d |= DIFF_GPR;
	if (memcmp(want->sel, got->sel, sizeof want->sel))
		d |= DIFF_SEGMENT;
	if (fx_differs(want->fx, got->fx, s == BT ? fx_skipped_bt : fx_skipped))
		d |= DIFF_FPU;
	if (memcmp(want_data, got_data, DATA_BYTES))
		d |= DIFF_MEMORY;
	if (flags)
		d |= flags & ~loose_flags(t) ? DIFF_FLAGS : DIFF_UNDEFINED;
	if (d && (in_private(want) || in_private(got)))
		d = DIFF_PRIVATE;
	return d & DIFF_FAILURE ? excuse(t, want, got, d) : d;
}

/* ------------------------------------------------------------------ what to say about it */

static void print_state(FILE *out, const char *who, const struct silicon_result *r)
{
	fprintf(out, "  %-8s vector %u error %x cr2 %08x eip %08x eflags %08x\n          ", who, r->vector,
		has_error(r->vector) ? r->error : 0, r->vector == VEC_PF ? r->cr2 : 0, r->eip, r->eflags);
	for (unsigned k = 0; k < 8; k++)
		fprintf(out, " %08x", r->gpr[k]);
	fprintf(out, "\n           sel");
	for (unsigned k = 0; k < 6; k++)
		fprintf(out, " %x", r->sel[k]);
	fputc('\n', out);
}

static void print_bytes(FILE *out, const char *what, const uint8_t *a, const uint8_t *b, unsigned len,
			bool (*skipped)(unsigned))
{
	unsigned said = 0;

	for (unsigned k = 0; k < len && said < 16; k++)
		if (a[k] != b[k] && !(skipped && skipped(k))) {
			fprintf(out, "%s%s+%x: %02x %02x", said ? ", " : "  ", what, k, a[k], b[k]);
			said++;
		}
	if (said)
		fputc('\n', out);
}

static void print_code(FILE *out, const struct testcase *t)
{
	ZydisDisassembledInstruction d;
	uint32_t at = 0;

	while (at < t->c.code_len) {
		if (!ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LEGACY_32,
							slot_at(t) + SLOT_CODE + t->c.code_at + at,
							t->c.code + at, t->c.code_len - at, &d))) {
			fprintf(out, "  %08x (undefined)\n", slot_at(t) + SLOT_CODE + t->c.code_at + at);
			return;
		}
		if (t->c.code[at] != 0x90) /* what shrinking has left */
			fprintf(out, "  %08x %s\n", slot_at(t) + SLOT_CODE + t->c.code_at + at, d.text);
		at += d.info.length;
	}
}

void print_difference(FILE *out, const struct testcase *t, enum side_id s, const struct silicon_result *want,
		      const struct silicon_result *got, const uint8_t *want_data, const uint8_t *got_data)
{
	print_code(out, t);
	print_state(out, "silicon", want);
	print_state(out, side_names[s], got);
	print_bytes(out, "fx", want->fx, got->fx, 288, s == BT ? fx_skipped_bt : fx_skipped);
	print_bytes(out, "data", want_data, got_data, DATA_BYTES, NULL);
	fprintf(out, "tests/silicon/run --engine %s --replay '", side_names[s]);
	case_print(out, t);
	fputs("'\n", out);
}
