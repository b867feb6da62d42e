/* shrink.c - makes a failing case small: fewer instructions, plainer registers and memory, as long as it
 * fails. */
#include <string.h>

#include "silicon.h"

static bool died; /* in the way that it fails in */

static bool try_case(struct testcase *t, const struct testcase *next, enum side_id s)
{
	unsigned diff;

	if (!memcmp(t, next, sizeof *t))
		return false;
	diff = shrink_test(next, s) & DIFF_FAILURE;
	if (!diff || !!(diff & DIFF_DIED) != died)
		return false;
	*t = *next;
	return true;
}

/* The case without instruction k: taken out, or where branches lead over it, made into no-operations. */
static void without(struct testcase *t, unsigned k)
{
	unsigned at = t->insn[k].at, len = t->insn[k].len;

	if (t->branches) {
		memset(t->c.code + at, 0x90, len);
		return;
	}
	memmove(t->c.code + at, t->c.code + at + len, t->c.code_len - at - len);
	t->c.code_len -= len;
	t->ninsn--;
	memmove(&t->insn[k], &t->insn[k + 1], (t->ninsn - k) * sizeof t->insn[0]);
	for (; k < t->ninsn; k++)
		t->insn[k].at = (uint16_t)(t->insn[k].at - len);
}

static void fewer_instructions(struct testcase *t, enum side_id s)
{
	for (unsigned k = t->ninsn; k-- > 0 && t->ninsn > 1;) {
		struct testcase next = *t;

		without(&next, k);
		try_case(t, &next, s);
	}
}

/* Cuts off the end, and begins later. */
static void shorter(struct testcase *t, enum side_id s)
{
	struct testcase next;

	for (unsigned k = 1; k < t->ninsn; k++) {
		next = *t;
		next.c.code_len = t->insn[k].at;
		next.ninsn = k;
		if (try_case(t, &next, s))
			break;
	}
	for (unsigned k = t->ninsn - 1; k > 0; k--) {
		next = *t;
		next.c.eip = slot_at(t) + SLOT_CODE + t->c.code_at + t->insn[k].at;
		if (try_case(t, &next, s))
			break;
	}
}

static void plainer_state(struct testcase *t, enum side_id s)
{
	struct testcase usual, next;

	case_init(&usual, t->slot);
	next = *t;
	next.c.reps = 1;
	try_case(t, &next, s);
	next = *t;
	memcpy(next.c.fx, usual.c.fx, sizeof next.c.fx);
	try_case(t, &next, s);
	next = *t;
	memcpy(next.c.sel, usual.c.sel, sizeof next.c.sel);
	try_case(t, &next, s);
	next = *t;
	memcpy(next.c.tls, usual.c.tls, sizeof next.c.tls);
	try_case(t, &next, s);
	next = *t;
	next.c.eflags = usual.c.eflags;
	try_case(t, &next, s);
	next = *t;
	next.image = 0;
	try_case(t, &next, s);
	for (unsigned r = 0; r < 8; r++) {
		next = *t;
		next.c.gpr[r] = usual.c.gpr[r];
		try_case(t, &next, s);
	}
	for (unsigned k = t->npatch; k-- > 0;) {
		next = *t;
		next.npatch--;
		memmove(&next.patch[k], &next.patch[k + 1], (next.npatch - k) * sizeof next.patch[0]);
		try_case(t, &next, s);
	}
}

void shrink(struct testcase *t, enum side_id s)
{
	died = shrink_test(t, s) & DIFF_DIED;
	shorter(t, s);
	fewer_instructions(t, s);
	plainer_state(t, s);
	fewer_instructions(t, s);
}
