/* test_cache.c - the block map, chaining and unchaining, invalidation, address look-up, spaces. Blocks are
 * made by the real translator from small pieces of guest code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "translator/translator.h"

static struct cache k;

static bool never(void *opaque, const struct block *b)
{
	(void)opaque;
	(void)b;
	return false;
}

static bool always(void *opaque, const struct block *b)
{
	(void)opaque;
	(void)b;
	return true;
}

static struct block *make(uint64_t gpa, uint32_t eip, const char *bytes, size_t len, bool cross)
{
	static uint8_t page[4096];
	static const uint8_t second[16] = {0x78, 0x56, 0x34, 0x12};
	struct translate_request rq = {.gpa = gpa,
				       .eip = eip,
				       .code = page + (eip & 0xfff),
				       .avail = 4096 - (eip & 0xfff),
				       .second = second,
				       .second_gpa = 0x9000,
				       .chain_cross = cross};

	memset(page, 0xf4, sizeof page);
	memcpy(page + (eip & 0xfff), bytes, len);
	return translate_block(&k, &rq);
}

/* Where the branch that an exit patches leads. */
static uint32_t leads_to(const struct exit_link *e)
{
	int32_t rel;

	memcpy(&rel, k.rx + e->patch, 4);
	return e->patch + 4 + (uint32_t)rel;
}

static int setup(void **state)
{
	char err[100];

	(void)state;
	translate_init();
	return cache_init(&k, 1 << 20, 0x2222, 0x4444, err, sizeof err);
}

static int teardown(void **state)
{
	(void)state;
	cache_destroy(&k);
	return 0;
}

static int empty(void **state)
{
	(void)state;
	cache_flush(&k);
	return 0;
}

static void lookup_by_key(void **state)
{
	struct block *a = make(0x1000, 0x80001000, "\x90\xc3", 2, false);

	(void)state;
	assert_ptr_equal(cache_lookup(&k, 0x1000, 0x80001000, 0, never, NULL), a);
	assert_null(cache_lookup(&k, 0x1000, 0x80001001, 0, never, NULL));
	assert_null(cache_lookup(&k, 0x2000, 0x80001000, 0, never, NULL));
	assert_null(cache_lookup(&k, 0x1000, 0x80001000, MODE_USER, never, NULL));
	cache_flush(&k);
	assert_null(cache_lookup(&k, 0x1000, 0x80001000, 0, never, NULL));
}

static void chain_and_unchain(void **state)
{
	struct block *a = make(0x1000, 0x1000, "\xeb\x0e", 2, false); /* jmp 0x1010 */
	struct block *b = make(0x1010, 0x1010, "\xc3", 1, false);
	struct exit_link *e = &a->exits[0];

	(void)state;
	assert_int_equal(a->nexits, 1);
	assert_int_equal(e->target, 0x1010);
	assert_int_equal(leads_to(e), e->stub);
	cache_chain(&k, e, b);
	assert_int_equal(leads_to(e), b->host);
	cache_unchain(&k, e);
	assert_int_equal(leads_to(e), e->stub);
	assert_null(b->incoming);
	cache_chain(&k, e, b);
	cache_drop(&k, b);
	assert_int_equal(leads_to(e), e->stub);
	assert_null(e->to);
}

static void dropping_the_source_leaves_no_link(void **state)
{
	struct block *a = make(0x1000, 0x1000, "\xeb\x0e", 2, false);
	struct block *b = make(0x1010, 0x1010, "\xc3", 1, false);

	(void)state;
	cache_chain(&k, &a->exits[0], b);
	cache_drop(&k, a);
	assert_null(b->incoming);
	cache_drop(&k, b);
}

static void invalidation_hits_exactly_the_bytes(void **state)
{
	struct block *a = make(0x1000, 0x1000, "\x90\x90\x90\xc3", 4, false); /* 1000-1003 */
	struct block *b = make(0x1010, 0x1010, "\x90\xc3", 2, false);	      /* 1010-1011 */
	bool left;

	(void)state;
	assert_int_equal(cache_invalidate(&k, 0x1004, 12, &left), 0);
	assert_true(left);
	assert_true(a->valid && b->valid);
	assert_int_equal(cache_invalidate(&k, 0x1003, 1, &left), 1);
	assert_true(left);
	assert_false(a->valid);
	assert_true(b->valid);
	assert_int_equal(cache_invalidate(&k, 0x100c, 5, &left), 1);
	assert_false(left);
}

/* add eax, imm32 with its immediate on the next page. */
static void straddler(void **state)
{
	struct block *a = make(0x1ffe, 0x1ffe, "\x05\x01", 2, false);
	bool left;

	(void)state;
	assert_int_equal(a->len2, 3);
	assert_int_equal(a->gpa2, 0x9000);
	assert_ptr_equal(cache_lookup(&k, 0x1ffe, 0x1ffe, 0, always, NULL), a);
	assert_null(cache_lookup(&k, 0x1ffe, 0x1ffe, 0, never, NULL));
	assert_int_equal(cache_invalidate(&k, 0x9003, 4, &left), 0);
	assert_int_equal(cache_invalidate(&k, 0x9002, 1, &left), 1);
	assert_false(a->valid);
	assert_int_equal(cache_invalidate(&k, 0x1000, 4096, &left), 0);
}

static void cross_page_exits(void **state)
{
	struct block *a = make(0x1000, 0x1000, "\xe9\xfb\x0f\x00\x00", 5, false); /* jmp 0x2000 */
	struct block *s = make(0x1000, 0x1000, "\xe9\xfb\x0f\x00\x00", 5, true);
	struct block *b = make(0x2000, 0x2000, "\xc3", 1, true);

	(void)state;
	assert_int_equal(a->nexits, 0); /* through the table */
	assert_int_equal(s->nexits, 1);
	cache_chain(&k, &s->exits[0], b);
	cache_cut_cross(&k, 0x3000, 1);
	assert_int_equal(leads_to(&s->exits[0]), b->host);
	cache_cut_cross(&k, 0x2000, 1);
	assert_int_equal(leads_to(&s->exits[0]), s->exits[0].stub);
}

static void address_lookup(void **state)
{
	struct block *b[50];

	(void)state;
	cache_flush(&k);
	for (unsigned i = 0; i < 50; i++)
		b[i] = make(0x1000 + i * 16, 0x1000 + i * 16, "\x74\x02\x90\xc3", 4, false);
	for (unsigned i = 0; i < 50; i++) {
		uint64_t rx = (uint64_t)(uintptr_t)k.rx;
		assert_ptr_equal(cache_find_pc(&k, rx + b[i]->host), b[i]);
		assert_ptr_equal(cache_find_pc(&k, rx + b[i]->host_end - 1), b[i]);
		assert_ptr_equal(cache_find_pc(&k, rx + b[i]->cold), b[i]);
		assert_ptr_equal(cache_find_pc(&k, rx + b[i]->cold_end - 1), b[i]);
		for (unsigned n = 0; n < b[i]->ninsn; n++)
			assert_int_equal(cache_find_insn(&k, b[i], rx + b[i]->host + b[i]->side[n].host), n);
	}
	assert_null(cache_find_pc(&k, (uint64_t)(uintptr_t)k.rx + CACHE_MISS_STUB));
	assert_null(cache_find_pc(&k, 0x1234));
}

static void tables(void **state)
{
	struct block *b = make(0x1000, 0x80001234, "\xc3", 1, false);
	struct space *s = cache_space(&k, 7, 0, NULL);

	(void)state;
	assert_int_equal(s->table[0x80001234], CACHE_MISS_STUB);
	assert_int_equal(*(uint64_t *)(uintptr_t)s->top, 0x2222);
	cache_table_set(&k, s, b);
	assert_int_equal(s->table[0x80001234], b->host);
	assert_ptr_equal(cache_space(&k, 7, 0, NULL), s);
	assert_ptr_not_equal(cache_space(&k, 7, 1, NULL), s);
	cache_space_forget(&k, 8, 0x80001000, 1);
	assert_int_equal(s->table[0x80001234], b->host);
	cache_space_forget(&k, 7, 0x80002000, 1);
	assert_int_equal(s->table[0x80001234], b->host);
	cache_space_forget(&k, 7, 0x80001000, 1);
	assert_int_equal(s->table[0x80001234], CACHE_MISS_STUB);
	cache_table_set(&k, s, b);
	cache_window_gone(&k, 7);
	s = cache_space(&k, 7, 0, NULL);
	assert_int_equal(s->table[0x80001234], CACHE_MISS_STUB);
	assert_ptr_equal(cache_guard_hit(&k, (uint64_t)(uintptr_t)s->stack - 8), s);
	assert_null(cache_guard_hit(&k, (uint64_t)(uintptr_t)s->stack + 8));
}

/* A table in which more slots were set than its log holds is emptied all the same. */
static void tables_overflow(void **state)
{
	struct space *s = cache_space(&k, 7, 0, NULL);
	struct block b = {.host = 64};

	(void)state;
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++) {
		b.eip = i * 0x123;
		cache_table_set(&k, s, &b);
	}
	cache_space_forget(&k, 7, 0, 1);
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++)
		assert_int_equal(s->table[i * 0x123], CACHE_MISS_STUB);
	b.eip = 0xfffffffe;
	cache_table_set(&k, s, &b);
	assert_int_equal(s->table[0xfffffffe], 64);
	cache_space_forget(&k, 7, 0xfffff000, 1);
	assert_int_equal(s->table[0xfffffffe], CACHE_MISS_STUB);
}

/* More (window, mode) pairs than spaces: the least recently used one is recycled, empty. */
static void spaces_recycled(void **state)
{
	struct block *b = make(0x1000, 0x1000, "\xc3", 1, false);

	(void)state;
	for (uint32_t i = 0; i < 1000; i++) {
		struct space *s = cache_space(&k, 1000 + i, 0, NULL);
		assert_int_equal(s->table[0x1000], CACHE_MISS_STUB);
		cache_table_set(&k, s, b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(lookup_by_key, empty),
		cmocka_unit_test_setup(chain_and_unchain, empty),
		cmocka_unit_test_setup(dropping_the_source_leaves_no_link, empty),
		cmocka_unit_test_setup(invalidation_hits_exactly_the_bytes, empty),
		cmocka_unit_test_setup(straddler, empty),
		cmocka_unit_test_setup(cross_page_exits, empty),
		cmocka_unit_test_setup(address_lookup, empty),
		cmocka_unit_test_setup(tables, empty),
		cmocka_unit_test_setup(tables_overflow, empty),
		cmocka_unit_test_setup(spaces_recycled, empty),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
