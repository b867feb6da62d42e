/* test_cache_tables.c - branch tables: spaces, slots, stretches, logs; slots of return points. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "cache_rig.h"

static void tables(void **state)
{
	struct block *b = rig_block(0x1000, 0x80001234, "\xc3", 1, false);
	struct space *s = cache_space(&rig, 7, 0, false, NULL);

	(void)state;
	assert_int_equal(rig_slot(s, 0x80001234), CACHE_MISS_STUB);
	cache_table_set(&rig, s, b);
	assert_int_equal(rig_slot(s, 0x80001234), b->host);
	assert_ptr_equal(cache_space(&rig, 7, 0, false, NULL), s);
	assert_ptr_not_equal(cache_space(&rig, 7, 1, false, NULL), s);
	cache_space_forget(&rig, 8, 0x80001000, 1);
	assert_int_equal(rig_slot(s, 0x80001234), b->host);
	cache_space_forget(&rig, 7, 0x80002000, 1);
	assert_int_equal(rig_slot(s, 0x80001234), b->host);
	cache_space_forget(&rig, 7, 0x80001000, 1);
	assert_int_equal(rig_slot(s, 0x80001234), CACHE_MISS_STUB);
	cache_table_set(&rig, s, b);
	cache_window_gone(&rig, 7);
	s = cache_space(&rig, 7, 0, false, NULL);
	assert_int_equal(rig_slot(s, 0x80001234), CACHE_MISS_STUB);
	assert_true(cache_stack_guard(&rig, (uint64_t)(uintptr_t)rig.stack - 8));
	assert_false(cache_stack_guard(&rig, cache_stack_middle(&rig)));
}

static void set(struct space *s, uint32_t eip)
{
	const struct block b = {.host = 64, .eip = eip};

	cache_table_set(&rig, s, &b);
}

/* A table in which more slots were set than its log holds is emptied all the same. */
static void tables_overflow(void **state)
{
	struct space *s = cache_space(&rig, 7, 0, false, NULL);

	(void)state;
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++)
		set(s, i * 0x123);
	cache_space_forget(&rig, 7, 0, 1u << 20);
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++)
		assert_int_equal(s->table[i * 0x123], cache_miss(&rig));
	set(s, 0xfffffffe);
	assert_int_equal(rig_slot(s, 0xfffffffe), 64);
	cache_space_forget(&rig, 7, 0xfffff000, 1);
	assert_int_equal(rig_slot(s, 0xfffffffe), CACHE_MISS_STUB);
}

/* ... and loses the slots of pages that go, and no others. */
static void tables_overflow_and_forget(void **state)
{
	struct space *s = cache_space(&rig, 7, 0, false, NULL);

	(void)state;
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++)
		set(s, i * 0x123);
	set(s, 0xfffffffe);
	cache_space_forget(&rig, 7, 0x21000, 3);
	cache_space_forget(&rig, 7, 0xffffd000, 3);
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++) {
		const uint32_t eip = i * 0x123;

		assert_int_equal(rig_slot(s, eip), eip - 0x21000 < 0x3000 ? CACHE_MISS_STUB : 64);
	}
	assert_int_equal(s->table[0x21000], cache_miss(&rig));
	cache_window_gone(&rig, 7);
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++)
		assert_int_equal(rig_slot(s, i * 0x123), CACHE_MISS_STUB);
}

/* Beside a slot that was set, jumps lead to the miss handler without a signal: the host's mapping has nothing
 * else in it, before anything was stored to a page and after the table was emptied. */
static void fresh_pages(void **state)
{
	struct space *s = cache_space(&rig, 7, 0, false, NULL);
	const uint32_t slots = CACHE_STRETCH_BYTES / 4, first = 0xc1000000 / slots * slots;

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		set(s, 0xc1000123);
		for (uint32_t i = 0; i < slots; i += 0x101)
			if (first + i != 0xc1000123)
				assert_int_equal(s->table[first + i], cache_miss(&rig));
		assert_int_equal(s->table[first + slots - 1], cache_miss(&rig));
		set(s, first + slots - 1);
		if (round == 1)
			for (uint32_t i = 0; i < CACHE_SLOT_LOG; i++)
				set(s, first + i);
		cache_window_gone(&rig, 7);
		for (uint32_t i = 0; i < slots; i += i < CACHE_SLOT_LOG ? 1 : 0x101)
			assert_int_equal(s->table[first + i], cache_miss(&rig));
		assert_int_equal(s->table[first + slots - 1], cache_miss(&rig));
		assert_ptr_equal(cache_space(&rig, 7, 0, false, NULL), s);
	}
	cache_window_gone(&rig, 7);
}

/* All tables look into the same pages. */
static void nobody_writes_to_the_pattern(void **state)
{
	(void)state;
	assert_int_equal(pwrite(rig.pattern, "x", 1, 0), -1);
	assert_int_equal(ftruncate(rig.pattern, 0), -1);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, rig.pattern, 0), MAP_FAILED);
	/* This seal is refused now and then, which must not keep a machine from being made. */
	assert_false(fcntl(rig.pattern, F_GET_SEALS) & F_SEAL_WRITE);
}

static unsigned host_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned n = 0;

	assert_non_null(f);
	for (int c = fgetc(f); c != EOF; c = fgetc(f))
		n += c == '\n';
	fclose(f);
	return n;
}

/* Code all over the address space takes no more than its share of the host's mappings, and has its slots. */
static void slots_everywhere(void **state)
{
	const uint32_t step = 1 << 19;
	const unsigned before = host_mappings();

	(void)state;
	for (uint32_t id = 7; id < 9; id++) {
		struct space *s = cache_space(&rig, id, 0, false, NULL);

		for (uint32_t i = 0; i < 1u << 13; i++)
			set(s, i * step + 0x1234);
		for (uint32_t i = 0; i < 1u << 13; i++) {
			assert_int_equal(rig_slot(s, i * step + 0x1234), 64);
			assert_int_equal(rig_slot(s, i * step + 0x1235), CACHE_MISS_STUB);
		}
	}
	assert_in_range(host_mappings(), before, before + 4096);
	for (uint32_t id = 7; id < 9; id++) {
		struct space *s = cache_space(&rig, id, 0, false, NULL);

		cache_window_gone(&rig, id);
		for (uint32_t i = 0; i < 1u << 13; i++)
			assert_int_equal(rig_slot(s, i * step + 0x1234), CACHE_MISS_STUB);
	}
	assert_in_range(host_mappings(), 0, before + 2048);
}

/* More (window, mode) pairs than spaces: the least recently used one is recycled, empty. */
static void spaces_recycled(void **state)
{
	struct block *b = rig_block(0x1000, 0x1000, "\xc3", 1, false);

	(void)state;
	for (uint32_t i = 0; i < 1000; i++) {
		struct space *s = cache_space(&rig, 1000 + i, 0, false, NULL);
		assert_int_equal(rig_slot(s, 0x1000), CACHE_MISS_STUB);
		cache_table_set(&rig, s, b);
	}
}

/* ------------------------------------------------------------------ return points */

static void returns(void **state)
{
	/* call 0x1100; mov eax, 1; ret */
	struct block *a =
		rig_block(0x1000, 0x1000, "\xe8\xfb\x00\x00\x00\xb8\x01\x00\x00\x00\xc3", 11, false);
	struct space *s = cache_space(&rig, 7, 0, false, NULL);

	(void)state;
	assert_int_equal(a->nrets, 1);
	assert_ptr_equal(cache_ret_point(&rig, 0x1005, 0x1005, 0), &a->rets[0]);
	assert_null(cache_ret_point(&rig, 0x1005, 0x1005, MODE_USER));
	assert_null(cache_ret_point(&rig, 0x3005, 0x1005, 0));
	assert_null(cache_lookup(&rig, 0x1005, 0x1005, 0, NULL, NULL));
	struct block *e = cache_enter(&rig, 0x1005, 0x1005, 0, false);
	assert_non_null(e);
	assert_ptr_equal(cache_lookup(&rig, 0x1005, 0x1005, 0, NULL, NULL), e);
	cache_table_set(&rig, s, e);
	assert_int_equal(rig_slot(s, 0x1005), a->rets[0].at);
	/* dropped, what the slot leads to is a jump to the miss stub */
	const uint32_t at = rig_slot(s, 0x1005);
	cache_drop(&rig, a);
	assert_null(cache_ret_point(&rig, 0x1005, 0x1005, 0));
	assert_null(cache_lookup(&rig, 0x1005, 0x1005, 0, NULL, NULL));
	assert_int_equal(rig.rx[at], 0xe9);
	const struct exit_link jump = {.patch = at + 1};
	assert_int_equal(rig_leads_to(&jump), CACHE_MISS_STUB);
}

/* Slots of return points that are set with their block. */
static void returns_foreseen(void **state)
{
	struct space *s = cache_space(&rig, 7, 0, false, NULL),
		     *user = cache_space(&rig, 8, MODE_USER, true, NULL);
	struct block *there = rig_block(0x100a, 0x100a, "\xc3", 1, false);
	/* call 0x1100; call 0x1100; ret */
	struct block *a =
		rig_block(0x1000, 0x1000, "\xe8\xfb\x00\x00\x00\xe8\xf6\x00\x00\x00\xc3", 11, false);

	(void)state;
	assert_int_equal(a->nrets, 2);
	cache_table_set(&rig, s, there);
	const uint32_t at = rig_slot(s, 0x100a);
	assert_int_equal(at, a->rets[1].at);
	cache_table_set_rets(&rig, s, a);
	assert_int_equal(rig_slot(s, 0x1005), a->rets[0].at);
	assert_int_equal(rig_slot(s, 0x100a), at);
	assert_int_equal(rig_slot(s, 0x1000), CACHE_MISS_STUB);
	cache_table_set_rets(&rig, user, a);
	assert_int_equal(rig_slot(user, 0x1005), CACHE_MISS_STUB);
	cache_space_forget(&rig, 7, 0x1000, 1);
	assert_int_equal(rig_slot(s, 0x1005), CACHE_MISS_STUB);
	cache_table_set_rets(&rig, s, a);
	assert_int_equal(rig_slot(s, 0x100a), a->rets[1].at);
	cache_drop(&rig, a);
	assert_memory_equal(rig.rx + rig_slot(s, 0x1005), "\xe9", 1); /* to the miss handler */
	cache_window_gone(&rig, 7);
	cache_window_gone(&rig, 8);
}

/* A return address that had a block before the call did: its slots follow the call. */
static void returns_to_what_was_there(void **state)
{
	struct block *there = rig_block(0x1005, 0x1005, "\xb8\x01\x00\x00\x00\xc3", 6, false);
	struct space *s = cache_space(&rig, 7, 0, false, NULL),
		     *other = cache_space(&rig, 7, MODE_USER, false, s);

	(void)state;
	cache_table_set(&rig, s, there);
	other->table[0x1005] = (uint32_t)(uintptr_t)rig.rx + there->host;
	struct block *a =
		rig_block(0x1000, 0x1000, "\xe8\xfb\x00\x00\x00\xb8\x01\x00\x00\x00\xc3", 11, false);
	assert_int_equal(a->len, 5);
	assert_int_equal(rig_slot(s, 0x1005), a->rets[0].at);
	assert_int_equal(rig_slot(other, 0x1005), there->host);
	other->table[0x1005] = cache_miss(&rig);
}

/* A call whose return point is a jump to a straddler, which goes through the table: the slot must not lead
 * back to it, neither in a space where the second page is missing nor where something else stood there
 * before. */
static void returns_to_straddlers(void **state)
{
	struct space *s = cache_space(&rig, 7, 0, false, NULL), *other = cache_space(&rig, 8, 0, false, NULL);

	(void)state;
	rig_second_gpa = 0;
	struct block *a = rig_block(0x1ff8, 0x5ff8, "\xe8\x03\xf0\xff\xff\x05\x01\x01", 8, false);
	struct block *before = rig_block(0x1ffd, 0x5ffd, "\xc3", 1, false);
	assert_int_equal(a->nrets, 1);
	assert_int_equal(a->len, 5);
	struct exit_link *way = NULL;
	for (unsigned i = 0; i < a->nexits; i++)
		if (a->exits[i].target == 0x5ffd)
			way = &a->exits[i];
	assert_non_null(way);
	cache_table_set(&rig, s, before);
	cache_table_set(&rig, other, before);
	assert_int_equal(rig_slot(s, 0x5ffd), a->rets[0].at);
	cache_drop(&rig, before);

	rig_second_gpa = 0x9000;
	struct block *straddling = rig_block(0x1ffd, 0x5ffd, "\x05\x01", 2, false);
	assert_true(straddling->len2);
	cache_exit_by_table(&rig, way);
	assert_int_equal(rig_slot(other, 0x5ffd), CACHE_MISS_STUB);
	cache_table_set(&rig, s, straddling);
	assert_int_equal(rig_slot(s, 0x5ffd), straddling->host);

	rig_second_gpa = 0;
	struct block *missing = rig_block(0x1ffd, 0x5ffd, "\x05\x01\x01", 3, false);
	assert_false(missing->len2);
	cache_table_set(&rig, other, missing);
	assert_int_equal(rig_slot(other, 0x5ffd), missing->host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(tables, rig_empty),
		cmocka_unit_test_setup(tables_overflow, rig_empty),
		cmocka_unit_test_setup(tables_overflow_and_forget, rig_empty),
		cmocka_unit_test_setup(fresh_pages, rig_empty),
		cmocka_unit_test_setup(nobody_writes_to_the_pattern, rig_empty),
		cmocka_unit_test_setup(slots_everywhere, rig_empty),
		cmocka_unit_test_setup(spaces_recycled, rig_empty),
		cmocka_unit_test_setup(returns, rig_empty),
		cmocka_unit_test_setup(returns_foreseen, rig_empty),
		cmocka_unit_test_setup(returns_to_what_was_there, rig_empty),
		cmocka_unit_test_setup(returns_to_straddlers, rig_empty),
	};
	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
