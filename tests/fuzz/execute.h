/* execute.h - running one case under the interpreter and under the translator, and comparing. */
#ifndef BT86_TESTS_FUZZ_EXECUTE_H
#define BT86_TESTS_FUZZ_EXECUTE_H

#include "case.h"

enum verdict {
	VERDICT_SAME,	 /* ended, the same under both */
	VERDICT_UNEQUAL, /* did not end, or met something that may differ: run under both, not compared */
	VERDICT_TLB,	 /* differs, and depends on what the guest's TLB holds: not an error */
	VERDICT_DIFFERS,
	VERDICT_HANG,	  /* ends under the interpreter, not under the translator */
	VERDICT_INTERNAL, /* the VMM gave up on itself */
	VERDICT_CANARY,	  /* memory that is not the guest's was written */
	VERDICT_CRASH,	  /* the process died: the driver's finding */
	VERDICTS
};
extern const char *const verdict_names[VERDICTS];

static inline bool verdict_is_finding(enum verdict v)
{
	return v >= VERDICT_DIFFERS;
}

/* lockstep: the translator's run is made under --verify as well. what: one line about a finding. Writes to
 * standard error what the VMM has to say. */
enum verdict execute_case(const struct fuzz_case *k, bool lockstep, char *what, size_t len);

/* Instructions that the last execute_case ran in the interpreter. */
extern uint64_t execute_steps;

#endif
