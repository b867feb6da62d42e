/* test_sites.c - what is learnt about single instructions, how it is forgotten and turned back. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "translator/translator.h"

#define GPA 0x1234567ull

static int reset(void **state)
{
	(void)state;
	site_forget_all();
	return 0;
}

static void learns_with_the_second_trap(void **state)
{
	(void)state;
	assert_false(site_trapped(GPA, false));
	assert_false(site_trapped(GPA, true));
	assert_true(site_trapped(GPA, false));
	site_add(GPA, false, SITE_CALLOUT);
	assert_int_equal(site_get(GPA, false) & SITE_CALLOUT, SITE_CALLOUT);
	assert_int_equal(site_get(GPA, true) & SITE_CALLOUT, 0);
}

static void new_code_is_learnt_anew_once(void **state)
{
	(void)state;
	site_add(GPA, false, SITE_CALLOUT);
	site_forget(GPA - 3, 4);
	assert_int_equal(site_get(GPA, false) & SITE_CALLOUT, 0);
	/* at the first trap now, and from then on for good */
	assert_true(site_trapped(GPA, false));
	site_add(GPA, false, SITE_CALLOUT);
	for (unsigned i = 0; i < 3; i++) {
		site_forget(GPA, 1);
		assert_int_equal(site_get(GPA, false), SITE_CALLOUT);
	}
}

static void traps_count_whatever_the_code(void **state)
{
	(void)state;
	assert_false(site_trapped(GPA, false));
	site_forget(GPA, 1);
	assert_true(site_trapped(GPA, false));
}

/* How many callouts in vain until the site is turned back. */
static unsigned patience(uint32_t index)
{
	uint64_t gpa = 0;
	unsigned n = 1;

	while (!site_callout_done(index, false, &gpa))
		n++;
	assert_true(gpa == GPA);
	return n;
}

static void turned_back_with_growing_patience(void **state)
{
	uint32_t index;
	unsigned before;
	uint64_t gpa;

	(void)state;
	site_add(GPA, true, SITE_CALLOUT | SITE_USER);
	index = site_index(GPA, true);
	assert_true(index <= SITE_INDEX_MAX);
	before = patience(index);
	assert_int_equal(site_get(GPA, true), SITE_USER);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(site_trapped(GPA, true));
		site_add(GPA, true, SITE_CALLOUT);
		/* a single use is enough to begin anew */
		assert_false(site_callout_done(index, false, &gpa));
		assert_false(site_callout_done(index, true, &gpa));
		unsigned now = patience(index);
		assert_int_equal(now, before * 2);
		before = now;
	}
}

static void kept_for_other_reasons(void **state)
{
	uint64_t gpa;

	(void)state;
	site_add(GPA, false, SITE_CALLOUT | SITE_KEEP);
	for (uint32_t i = 0; i < 1000; i++)
		assert_false(site_callout_done(site_index(GPA, false), false, &gpa));
}

static void outdated_index_does_no_harm(void **state)
{
	uint64_t gpa;

	(void)state;
	for (uint32_t i = 0; i < 1000; i++)
		assert_false(site_callout_done(77, false, &gpa));
}

static void a_full_table_forgets(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 100000; i++)
		site_add(GPA + i, false, SITE_CALLOUT);
	assert_int_equal(site_get(GPA + 99999, false), SITE_CALLOUT);
	assert_true(site_count() <= SITE_INDEX_MAX);
}

/* Misses until the site probes. */
static unsigned lessons(void)
{
	unsigned n = 1;

	while (!site_missed(GPA, true))
		assert_true(++n < 256);
	site_add(GPA, true, SITE_PROBE);
	return n;
}

static void probes_are_learnt_and_turned_back(void **state)
{
	unsigned before, now;

	(void)state;
	before = lessons();
	assert_true(before > 1);
	assert_int_equal(site_get(GPA, true), SITE_PROBE);
	assert_int_equal(site_get(GPA, false), 0);
	/* of use */
	for (unsigned i = 0; i < 100000; i++)
		site_probe_hit(site_index(GPA, true));
	assert_false(site_probe_sampled(GPA, true));
	assert_int_equal(site_get(GPA, true), SITE_PROBE);
	/* and not since: learnt again, it takes longer */
	for (unsigned i = 0; i < 20; i++) {
		assert_true(site_probe_sampled(GPA, true));
		assert_int_equal(site_get(GPA, true), 0);
		assert_false(site_probe_sampled(GPA, true));
		now = lessons();
		assert_true(now >= before);
		before = now;
	}
	/* what is not known is not turned back */
	assert_false(site_probe_sampled(GPA + 1, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(learns_with_the_second_trap, reset),
		cmocka_unit_test_setup(new_code_is_learnt_anew_once, reset),
		cmocka_unit_test_setup(traps_count_whatever_the_code, reset),
		cmocka_unit_test_setup(turned_back_with_growing_patience, reset),
		cmocka_unit_test_setup(kept_for_other_reasons, reset),
		cmocka_unit_test_setup(outdated_index_does_no_harm, reset),
		cmocka_unit_test_setup(probes_are_learnt_and_turned_back, reset),
		cmocka_unit_test_setup(a_full_table_forgets, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
