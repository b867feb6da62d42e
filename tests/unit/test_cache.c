/* test_cache.c - the block map, address look-up, invalidation, chaining and unchaining, entries, what begins
 * a block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cache_rig.h"

/* ------------------------------------------------------------------ blocks */

static void lookup_by_key(void **state)
{
	struct block *a = rig_block(0x1000, 0x80001000, "\x90\xc3", 2, false);

	(void)state;
	assert_ptr_equal(cache_lookup(&rig, 0x1000, 0x80001000, 0, NULL, NULL), a);
	assert_null(cache_lookup(&rig, 0x1000, 0x80001001, 0, NULL, NULL));
	assert_null(cache_lookup(&rig, 0x2000, 0x80001000, 0, NULL, NULL));
	assert_null(cache_lookup(&rig, 0x1000, 0x80001000, MODE_USER, NULL, NULL));
	cache_flush(&rig);
	assert_null(cache_lookup(&rig, 0x1000, 0x80001000, 0, NULL, NULL));
}

static void invalidation_hits_exactly_the_bytes(void **state)
{
	struct block *a = rig_block(0x1000, 0x1000, "\x90\x90\x90\xc3", 4, false); /* 1000-1003 */
	struct block *b = rig_block(0x1010, 0x1010, "\x90\xc3", 2, false);	   /* 1010-1011 */
	bool left;

	(void)state;
	assert_int_equal(cache_invalidate(&rig, 0x1004, 12, &left), 0);
	assert_true(left);
	assert_true(a->valid && b->valid);
	assert_int_equal(cache_invalidate(&rig, 0x1003, 1, &left), 1);
	assert_true(left);
	assert_false(a->valid);
	assert_true(b->valid);
	assert_int_equal(cache_invalidate(&rig, 0x100c, 5, &left), 1);
	assert_false(left);
}

/* add eax, imm32 with its immediate on the next page. */
static void straddler(void **state)
{
	struct block *a = rig_block(0x1ffe, 0x1ffe, "\x05\x01", 2, false);
	bool left;

	(void)state;
	assert_int_equal(a->len2, 3);
	assert_int_equal(a->gpa2, 0x9000);
	assert_ptr_equal(cache_lookup(&rig, 0x1ffe, 0x1ffe, 0, rig_always, NULL), a);
	assert_null(cache_lookup(&rig, 0x1ffe, 0x1ffe, 0, NULL, NULL));
	assert_int_equal(cache_invalidate(&rig, 0x9003, 4, &left), 0);
	assert_int_equal(cache_invalidate(&rig, 0x9002, 1, &left), 1);
	assert_false(a->valid);
	assert_int_equal(cache_invalidate(&rig, 0x1000, 4096, &left), 0);
}

/* Made while the second page was there, and while it was not: whatever a look-up finds, it is always the
 * same, since exits and table slots must agree. */
static void straddler_and_shorter_block(void **state)
{
	static const char bytes[] = "\x90\x05\x01";
	struct block *a = rig_block(0x1ffd, 0x1ffd, bytes, 3, false), *b, *c;

	(void)state;
	assert_int_equal(a->len2, 3);
	rig_second_gpa = 0;
	b = rig_block(0x1ffd, 0x1ffd, bytes, 3, false);
	assert_int_equal(b->len2, 0);
	assert_ptr_equal(cache_lookup(&rig, 0x1ffd, 0x1ffd, 0, rig_always, NULL), b);
	rig_second_gpa = 0xb000;
	c = rig_block(0x1ffd, 0x1ffd, bytes, 3, false);
	assert_int_equal(c->len2, 3);
	assert_ptr_equal(cache_lookup(&rig, 0x1ffd, 0x1ffd, 0, rig_always, NULL), b);
	assert_ptr_equal(cache_lookup(&rig, 0x1ffd, 0x1ffd, 0, NULL, NULL), b);
	cache_drop(&rig, b);
	assert_true(cache_lookup(&rig, 0x1ffd, 0x1ffd, 0, rig_always, NULL)->len2);
}

static void address_lookup(void **state)
{
	struct block *b[50];

	(void)state;
	cache_flush(&rig);
	for (unsigned i = 0; i < 50; i++)
		b[i] = rig_block(0x1000 + i * 16, 0x1000 + i * 16, "\x74\x02\x9d\xc3", 4, false);
	for (unsigned i = 0; i < 50; i++) {
		uint64_t rx = (uint64_t)(uintptr_t)rig.rx;
		assert_ptr_equal(cache_find_pc(&rig, rx + b[i]->host), b[i]);
		assert_ptr_equal(cache_find_pc(&rig, rx + b[i]->host_end - 1), b[i]);
		assert_ptr_equal(cache_find_pc(&rig, rx + b[i]->cold), b[i]);
		assert_ptr_equal(cache_find_pc(&rig, rx + b[i]->cold_end - 1), b[i]);
		for (unsigned n = 0; n < b[i]->ninsn; n++)
			assert_int_equal(cache_find_insn(&rig, b[i], rx + b[i]->host + b[i]->side[n].host),
					 n);
	}
	assert_null(cache_find_pc(&rig, (uint64_t)(uintptr_t)rig.rx + CACHE_MISS_STUB));
	assert_null(cache_find_pc(&rig, 0x1234));
}

static void code_begins_a_page(void **state)
{
	(void)state;
	rig_block(0x1000, 0x80001000, "\x90\xc3", 2, false);
	const uint32_t hot = rig.hot;
	cache_begin_page(&rig, 64); /* there is room on this one */
	assert_int_equal(rig.hot, hot);
	cache_begin_page(&rig, PAGE_SIZE - (hot & (PAGE_SIZE - 1)) + 1);
	assert_int_equal(rig.hot & (PAGE_SIZE - 1), 0);
	assert_true(rig.hot > hot && rig.hot - hot < PAGE_SIZE);
	cache_begin_page(&rig, PAGE_SIZE);
	const struct block *b = rig_block(0x1002, 0x80001002, "\x90\xc3", 2, false);
	assert_int_equal(b->host, (hot + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1));
	assert_ptr_equal(cache_find_pc(&rig, (uint64_t)(uintptr_t)(rig.rx + b->host)), b);
	assert_null(cache_find_pc(&rig, (uint64_t)(uintptr_t)(rig.rx + b->host - 1)));
	rig.cold = rig.hot + 100; /* no room for what is asked */
	cache_begin_page(&rig, PAGE_SIZE);
	assert_true(rig.hot < rig.cold);
}

/* ------------------------------------------------------------------ exits */

static void chain_and_unchain(void **state)
{
	struct block *a = rig_block(0x1000, 0x1000, "\xeb\x0e", 2, false); /* jmp 0x1010 */
	struct block *b = rig_block(0x1010, 0x1010, "\xc3", 1, false);
	struct exit_link *e = &a->exits[0];

	(void)state;
	assert_int_equal(a->nexits, 1);
	assert_int_equal(e->target, 0x1010);
	assert_int_equal(rig_leads_to(e), cache_stub(&rig, e));
	cache_chain(&rig, e, b);
	assert_int_equal(rig_leads_to(e), b->host);
	cache_unchain(&rig, e);
	assert_int_equal(rig_leads_to(e), cache_stub(&rig, e));
	assert_null(b->incoming);
	cache_chain(&rig, e, b);
	cache_drop(&rig, b);
	assert_int_equal(rig_leads_to(e), cache_stub(&rig, e));
	assert_null(e->to);
}

static void dropping_the_source_leaves_no_link(void **state)
{
	struct block *a = rig_block(0x1000, 0x1000, "\xeb\x0e", 2, false);
	struct block *b = rig_block(0x1010, 0x1010, "\xc3", 1, false);

	(void)state;
	cache_chain(&rig, &a->exits[0], b);
	cache_drop(&rig, a);
	assert_null(b->incoming);
	cache_drop(&rig, b);
}

static void cross_page_exits(void **state)
{
	struct block *a = rig_block(0x1000, 0x1000, "\xe9\xfb\x0f\x00\x00", 5, false); /* jmp 0x2000 */
	struct block *s = rig_block(0x1000, 0x1000, "\xe9\xfb\x0f\x00\x00", 5, true);
	struct block *b = rig_block(0x2000, 0x2000, "\xc3", 1, true);

	(void)state;
	assert_int_equal(a->nexits, 0); /* through the table */
	assert_int_equal(s->nexits, 1);
	cache_chain(&rig, &s->exits[0], b);
	cache_cut_cross(&rig, 0x3000, 1);
	assert_int_equal(rig_leads_to(&s->exits[0]), b->host);
	cache_cut_cross(&rig, 0x2000, 1);
	assert_int_equal(rig_leads_to(&s->exits[0]), cache_stub(&rig, &s->exits[0]));
}

/* ------------------------------------------------------------------ entries */

static void entries(void **state)
{
	/* inc eax; mov ecx, 1; mov edx, 2; push ecx; push edx; ret */
	static const char code[] = "\x40\xb9\x01\x00\x00\x00\xba\x02\x00\x00\x00\x51\x52\xc3";
	struct block *a = rig_block(0x1000, 0x1000, code, 14, false);
	struct block *j = rig_block(0x1800, 0x1800, "\xe9\x01\xf8\xff\xff", 5, false); /* jmp 0x1006 */

	(void)state;
	assert_null(cache_enter(&rig, 0x1001, 0x1001, 0, false)); /* no room for a jump before it */
	assert_null(cache_enter(&rig, 0x1002, 0x1002, 0, false)); /* no instruction begins there */
	assert_null(cache_enter(&rig, 0x100c, 0x100c, 0, false)); /* in a run of pushes */
	assert_null(cache_enter(&rig, 0x2006, 0x1006, 0, false));
	assert_null(cache_enter(&rig, 0x1006, 0x1006, MODE_USER, false));
	struct block *e = cache_enter(&rig, 0x1006, 0x1006, 0, false);
	assert_non_null(e);
	assert_int_equal(e->host, a->host + a->side[2].host);
	cache_chain(&rig, &j->exits[0], e);
	assert_int_equal(rig_leads_to(&j->exits[0]), e->host);
	/* a store to a byte before it drops it with the rest */
	assert_int_equal(cache_invalidate(&rig, 0x1000, 1, NULL), 1);
	assert_false(e->valid);
	assert_int_equal(rig_leads_to(&j->exits[0]), cache_stub(&rig, &j->exits[0]));
	assert_null(cache_lookup(&rig, 0x1006, 0x1006, 0, NULL, NULL));
}

/* The jump that takes the place of an entry is not patched any more: here it stands where an exit was. */
static void entry_at_an_exit_is_dropped(void **state)
{
	/* mov ecx, 1; mov edx, 2; jne 0x1010; mov ecx, 1; ret */
	static const char code[] = "\xb9\x01\x00\x00\x00\xba\x02\x00\x00\x00\x75\x04\xb9\x01\x00\x00\x00\xc3";
	struct block *a = rig_block(0x1000, 0x1000, code, 18, false);
	struct block *to = rig_block(0x1010, 0x1010, "\xc3", 1, false);
	struct block *e = cache_enter(&rig, 0x100a, 0x100a, 0, false);

	(void)state;
	assert_non_null(e);
	assert_int_equal(a->exits[0].target, 0x1010);
	assert_in_range(a->exits[0].patch, e->host + 1, e->host + 2);
	cache_chain(&rig, &a->exits[0], to);
	cache_drop(&rig, a);
	assert_int_equal(rig.rx[e->host], 0xe9);
	const struct exit_link jump = {.patch = e->host + 1};
	assert_int_equal(rig_leads_to(&jump), CACHE_MISS_STUB);
}

static void no_entries_into_straddlers(void **state)
{
	rig_block(0x1ff8, 0x1ff8, "\xb8\x01\x00\x00\x00\x05\x01", 7, false);
	(void)state;
	assert_null(cache_enter(&rig, 0x1ffd, 0x1ffd, 0, false));
}

/* ------------------------------------------------------------------ calls and loops */

/* Of a call there is one translation, which code that comes from elsewhere goes to. */
static void calls_are_shared(void **state)
{
	/* mov ecx, 1; mov edx, 2; call 0x1100; ret */
	static const char code[] = "\xb9\x01\x00\x00\x00\xba\x02\x00\x00\x00\xe8\xf1\x00\x00\x00\xc3";
	struct block *a = rig_block(0x1000, 0x1000, code, 16, false);
	struct block *b = rig_block(0x1005, 0x1005, code + 5, 11, false);

	(void)state;
	assert_int_equal(a->nrets, 1);
	assert_int_equal(b->nrets, 0);
	assert_int_equal(b->len, 5);
	assert_int_equal(b->exits[0].target, 0x100a);
	assert_non_null(cache_enter(&rig, 0x100a, 0x100a, 0, true));
	assert_null(cache_enter(&rig, 0x1005, 0x1005, 0, true));
}

/* nop; inc eax; call; jnz back to inc eax: where the loop is known before its call is translated, it gets a
 * block. */
static void a_loop_that_calls_begins_a_block(void **state)
{
	static const char code[] = "\x90\x40\xe8\x00\x01\x00\x00\x75\xf8";
	const size_t len = sizeof code - 1;

	(void)state;
	const struct block *whole = rig_block(0x1000, 0x80001000, code, len, false);
	assert_int_equal(whole->nrets, 1);
	cache_flush(&rig);
	loop_remember(&rig_loops, 0x1001);
	const struct block *before = rig_block(0x1000, 0x80001000, code, len, false);
	assert_int_equal(before->len, 1);
	assert_int_equal(before->nrets, 0);
	assert_int_equal(before->exits[0].target, 0x80001001);
	struct block *loop = rig_block(0x1001, 0x80001001, code + 1, len - 1, false);
	assert_int_equal(loop->nrets, 1);
	assert_true(loop->len >= len - 1);
}

/* The same wherever lines of the CPU's cache end between the loop's beginning and the call. */
static void a_loop_may_begin_lines_before_its_call(void **state)
{
	static const char nop[] = "\x0f\x1f\x84\x00\x00\x00\x00\x00";
	static const char call[] = "\xe8\x00\x01\x00\x00";

	(void)state;
	for (uint32_t start = 0x1000; start < 0x1040; start++) {
		for (unsigned nops = 1; nops < 13; nops++) {
			char code[128] = "\x90";
			unsigned len = 1;

			for (unsigned i = 0; i < nops; i++, len += 8)
				memcpy(code + len, nop, 8);
			memcpy(code + len, call, 5);
			len += 5;
			cache_flush(&rig);
			memset(&rig_loops, 0, sizeof rig_loops);
			assert_int_equal(rig_block(start, 0x80000000 + start, code, len, false)->nrets, 1);
			cache_flush(&rig);
			loop_remember(&rig_loops, start + 1);
			assert_int_equal(rig_block(start, 0x80000000 + start, code, len, false)->len, 1);
		}
	}
}

/* A loop without calls ends no block. */
static void a_loop_that_does_not_call_begins_none(void **state)
{
	static const char code[] = "\x90\x40\x4b\x75\xfc";

	(void)state;
	loop_remember(&rig_loops, 0x1001);
	const struct block *b = rig_block(0x1000, 0x80001000, code, sizeof code - 1, false);
	assert_true(b->len >= sizeof code - 1);
}

/* ------------------------------------------------------------------ more blocks than one set of lines holds
 *
 * Crowded on few pages that have several linear addresses. */

#define CROWD 60000u

static struct block *crowd[CROWD];

/* Never the same twice: an odd factor permutes. */
static struct block *make_in_crowd(unsigned n)
{
	const uint32_t at = n * 40503u & 0x3ffff, gpa = 0x10000 + (at & 0xffff);
	const unsigned room = 0x1000 - (gpa & 0xfff);

	/* test eax, eax; je; call; ret */
	return rig_block(gpa, gpa + (at >> 16) * 0x1000000, "\x85\xc0\x74\x05\xe8\x10\x00\x00\x00\xc3",
			 room < 10 ? room : 10, false);
}

static void check_crowd(const struct block *b)
{
	assert_ptr_equal(cache_lookup(&rig, b->gpa, b->eip, 0, rig_always, NULL), b->valid ? b : NULL);
	for (unsigned i = 0; i < b->nrets; i++) {
		const uint32_t eip = b->rets[i].eip;
		const struct ret_point *r = cache_ret_point(&rig, b->gpa + (eip - b->eip), eip, 0);

		if (b->valid)
			assert_ptr_equal(r, &b->rets[i]);
		else
			assert_true(!r || r->b->valid);
	}
}

static void check_entry(struct block *b)
{
	const unsigned second = b->side[1].guest;
	struct block *e;

	if (b->ninsn < 2 || cache_lookup(&rig, b->gpa + second, b->eip + second, 0, rig_always, NULL))
		return;
	e = cache_enter(&rig, b->gpa + second, b->eip + second, 0, false);
	if (!e)
		return; /* no room */
	assert_ptr_equal(cache_lookup(&rig, b->gpa + second, b->eip + second, 0, rig_always, NULL), e);
	assert_true(e->host >= rig.blocks[0].host && e->valid);
}

static void crowds(void **state)
{
	char err[100];

	(void)state;
	cache_destroy(&rig);
	assert_int_equal(cache_init(&rig, 48 << 20, err, sizeof err), 0);
	rig_second_gpa = 0;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned n = 0; n < CROWD; n++) {
			assert_true(cache_has_room(&rig, TRANSLATE_ROOM));
			crowd[n] = make_in_crowd(n);
		}
		for (unsigned n = 0; n < CROWD; n++)
			check_crowd(crowd[n]);
		for (unsigned n = 0; n < CROWD; n += 7)
			check_entry(crowd[n]);
		for (unsigned n = 0; n < CROWD; n += 1 + n % 3)
			cache_drop(&rig, crowd[n]);
		for (unsigned n = 0; n < CROWD; n++)
			check_crowd(crowd[n]);
		for (unsigned n = 0; n < CROWD; n++)
			cache_drop(&rig, crowd[n]);
		for (unsigned n = 0; n < CROWD; n++)
			check_crowd(crowd[n]);
		assert_int_equal(rig.stats.blocks_now, 0);
		cache_flush(&rig);
	}
	cache_destroy(&rig);
	assert_int_equal(rig_setup(NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(lookup_by_key, rig_empty),
		cmocka_unit_test_setup(invalidation_hits_exactly_the_bytes, rig_empty),
		cmocka_unit_test_setup(straddler, rig_empty),
		cmocka_unit_test_setup(straddler_and_shorter_block, rig_empty),
		cmocka_unit_test_setup(address_lookup, rig_empty),
		cmocka_unit_test_setup(code_begins_a_page, rig_empty),
		cmocka_unit_test_setup(chain_and_unchain, rig_empty),
		cmocka_unit_test_setup(dropping_the_source_leaves_no_link, rig_empty),
		cmocka_unit_test_setup(cross_page_exits, rig_empty),
		cmocka_unit_test_setup(entries, rig_empty),
		cmocka_unit_test_setup(entry_at_an_exit_is_dropped, rig_empty),
		cmocka_unit_test_setup(no_entries_into_straddlers, rig_empty),
		cmocka_unit_test_setup(calls_are_shared, rig_empty),
		cmocka_unit_test_setup(a_loop_that_calls_begins_a_block, rig_empty),
		cmocka_unit_test_setup(a_loop_may_begin_lines_before_its_call, rig_empty),
		cmocka_unit_test_setup(a_loop_that_does_not_call_begins_none, rig_empty),
		cmocka_unit_test_setup(crowds, rig_empty),
	};
	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
