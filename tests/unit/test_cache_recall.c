/* test_cache_recall.c - slots that are remembered for the next address space. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cache_rig.h"

#define WINDOW	    7
#define NEXT_WINDOW 8

static struct space *user_space(uint32_t window_id)
{
	return cache_space(&rig, window_id, 0, true, NULL);
}

/* As a miss does it. */
static void miss(struct space *s, struct block *b)
{
	if (!cache_table_recall(&rig, s, b->gpa, b->eip))
		cache_table_set(&rig, s, b);
}

/* The space of an address space that comes after another has run these. */
static struct space *after(struct block *a, struct block *b)
{
	struct space *s = user_space(WINDOW);

	miss(s, a);
	miss(s, b);
	cache_window_gone(&rig, WINDOW);
	return user_space(NEXT_WINDOW);
}

static struct block *nop_ret(uint64_t gpa, uint32_t eip)
{
	return rig_block(gpa, eip, "\x90\xc3", 2, false);
}

static uint32_t host_of(const struct block *b)
{
	return (uint32_t)(uintptr_t)rig.rx + b->host;
}

static void remembered(void **state)
{
	struct block *a = nop_ret(0x1000, 0x5000), *b = nop_ret(0x1ff0, 0x5ff0), *c = nop_ret(0x3000, 0x6000);
	struct space *s = after(a, b);

	(void)state;
	assert_int_equal(rig_slot(s, 0x5000), CACHE_MISS_STUB);
	assert_int_equal(cache_table_recall(&rig, s, 0x1ff0, 0x5ff0), host_of(b));
	assert_int_equal(rig_slot(s, 0x5ff0), b->host);
	assert_int_equal(rig_slot(s, 0x5000), a->host);
	assert_int_equal(rig_slot(s, 0x6000), CACHE_MISS_STUB);
	cache_space_forget(&rig, NEXT_WINDOW, 0x5000, 1);
	assert_int_equal(cache_table_recall(&rig, s, 0x1000, 0x5000), host_of(a));
	assert_int_equal(rig_slot(s, 0x5ff0), b->host);
	/* what it had to find itself others get too */
	miss(s, c);
	cache_window_gone(&rig, NEXT_WINDOW);
	assert_int_equal(rig_slot(s, 0x5000), CACHE_MISS_STUB);
	assert_int_equal(rig_slot(s, 0x5ff0), CACHE_MISS_STUB);
	s = user_space(WINDOW);
	assert_int_equal(cache_table_recall(&rig, s, 0x3000, 0x6000), host_of(c));
	assert_int_equal(cache_table_recall(&rig, s, 0x1000, 0x5000), host_of(a));
	/* only once: a second miss there is for something else */
	assert_int_equal(cache_table_recall(&rig, s, 0x1000, 0x5000), 0);
	cache_window_gone(&rig, WINDOW);
}

/* The same linear page with another frame, the frame at another linear address, another mode, the kernel. */
static void remembered_for_its_page_alone(void **state)
{
	struct space *s = after(nop_ret(0x1000, 0x5000), nop_ret(0x1010, 0x5010));
	struct space *other_mode = cache_space(&rig, NEXT_WINDOW, 1, true, s);
	struct space *kernel = cache_space(&rig, 9, 0, false, s);

	(void)state;
	assert_int_equal(cache_table_recall(&rig, s, 0x2000, 0x5000), 0);
	assert_int_equal(rig_slot(s, 0x5010), CACHE_MISS_STUB);
	assert_int_equal(cache_table_recall(&rig, s, 0x1000, 0x6000), 0);
	assert_int_equal(rig_slot(s, 0x6010), CACHE_MISS_STUB);
	assert_int_equal(cache_table_recall(&rig, other_mode, 0x1000, 0x5000), 0);
	assert_int_equal(rig_slot(other_mode, 0x5010), CACHE_MISS_STUB);
	assert_int_equal(cache_table_recall(&rig, kernel, 0x1000, 0x5000), 0);
	assert_int_equal(rig_slot(kernel, 0x5010), CACHE_MISS_STUB);
	cache_window_gone(&rig, 9);
	cache_window_gone(&rig, NEXT_WINDOW);
}

/* One window, in which the page changes. */
static void remembered_when_the_page_changes(void **state)
{
	struct block *a = nop_ret(0x1000, 0x5000), *b = nop_ret(0x1010, 0x5010), *c = nop_ret(0x2000, 0x5000),
		     *d = nop_ret(0x2020, 0x5020);
	struct space *s = after(a, b);

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		miss(s, a);
		assert_int_equal(rig_slot(s, 0x5010), b->host);
		cache_space_forget(&rig, NEXT_WINDOW, 0x5000, 1);
		assert_int_equal(rig_slot(s, 0x5000), CACHE_MISS_STUB);
		assert_int_equal(rig_slot(s, 0x5010), CACHE_MISS_STUB);
		miss(s, c);
		assert_int_equal(rig_slot(s, 0x5000), c->host);
		assert_int_equal(rig_slot(s, 0x5010), CACHE_MISS_STUB);
		assert_int_equal(rig_slot(s, 0x5020), i ? d->host : CACHE_MISS_STUB);
		miss(s, d);
		cache_space_forget(&rig, NEXT_WINDOW, 0x5000, 1);
	}
	cache_window_gone(&rig, NEXT_WINDOW);
}

static void flush_forgets(void **state)
{
	struct space *s = after(nop_ret(0x1000, 0x5000), nop_ret(0x1010, 0x5010));

	(void)state;
	cache_flush(&rig);
	assert_int_equal(cache_table_recall(&rig, s, 0x1000, 0x5000), 0);
	miss(s, nop_ret(0x1000, 0x5000));
	assert_int_equal(rig_slot(s, 0x5010), CACHE_MISS_STUB);
	cache_window_gone(&rig, NEXT_WINDOW);
}

/* Block, entry and return point go together. */
static void dropped_blocks_are_forgotten(void **state)
{
	/* mov eax, 1; mov eax, 1; call 0x5800; mov eax, 1; ret */
	static const char code[] = "\xb8\x01\0\0\0\xb8\x01\0\0\0\xe8\xf1\x07\0\0\xb8\x01\0\0\0\xc3";
	struct block *a = rig_block(0x1000, 0x5000, code, 21, false), *other = nop_ret(0x1100, 0x5100);
	struct block *entry = cache_enter(&rig, 0x1005, 0x5005, 0, false);
	struct block *behind = cache_enter(&rig, 0x100f, 0x500f, 0, false);
	struct space *s = after(a, other);

	(void)state;
	assert_non_null(entry);
	assert_non_null(behind);
	miss(s, entry);
	miss(s, behind);
	assert_int_equal(rig_slot(s, 0x500f), a->rets[0].at);
	cache_window_gone(&rig, NEXT_WINDOW);
	s = user_space(WINDOW);
	miss(s, other);
	assert_int_equal(rig_slot(s, 0x5000), a->host);
	assert_int_equal(rig_slot(s, 0x5005), entry->host);
	assert_int_equal(rig_slot(s, 0x500f), a->rets[0].at);
	cache_drop(&rig, a);
	cache_window_gone(&rig, WINDOW);
	s = user_space(NEXT_WINDOW);
	miss(s, other);
	assert_int_equal(rig_slot(s, 0x5100), other->host);
	assert_int_equal(rig_slot(s, 0x5000), CACHE_MISS_STUB);
	assert_int_equal(rig_slot(s, 0x5005), CACHE_MISS_STUB);
	assert_int_equal(rig_slot(s, 0x500f), CACHE_MISS_STUB);
	cache_window_gone(&rig, NEXT_WINDOW);
}

/* Where a block was dropped the slot leads nowhere, and what is remembered since sets it right. */
static void slots_of_dropped_blocks_are_set_anew(void **state)
{
	struct block *a = nop_ret(0x1000, 0x5000), *b = nop_ret(0x1010, 0x5010);
	struct space *s = user_space(WINDOW), *other = user_space(NEXT_WINDOW);

	(void)state;
	miss(s, a);
	cache_drop(&rig, a);
	a = nop_ret(0x1000, 0x5000);
	miss(other, a);
	miss(other, b);
	miss(s, a);
	assert_int_equal(rig_slot(s, 0x5000), a->host);
	cache_window_gone(&rig, WINDOW);
	cache_window_gone(&rig, NEXT_WINDOW);
}

/* A call is translated after what stands behind it. */
static void new_return_points_are_remembered(void **state)
{
	struct block *there = rig_block(0x1005, 0x5005, "\xb8\x01\0\0\0\xc3", 6, false);
	struct block *other = nop_ret(0x1100, 0x5100);
	struct space *s = after(there, other);
	struct block *a = rig_block(0x1000, 0x5000, "\xe8\xfb\x01\0\0\xb8\x01\0\0\0\xc3", 11, false);

	(void)state;
	assert_int_equal(a->nrets, 1);
	miss(s, other);
	assert_int_equal(rig_slot(s, 0x5005), a->rets[0].at);
	cache_window_gone(&rig, NEXT_WINDOW);
	cache_drop(&rig, a);
	s = user_space(WINDOW);
	miss(s, other);
	assert_int_equal(rig_slot(s, 0x5005), CACHE_MISS_STUB);
	miss(s, there);
	assert_int_equal(rig_slot(s, 0x5005), there->host);
	cache_window_gone(&rig, WINDOW);
}

/* They depend on the frame of the next page. */
static void straddlers_are_remembered_apart(void **state)
{
	struct block *a = rig_block(0x1ff8, 0x5ff8, "\xb8\x01\0\0\0\x05\x01", 7, false);
	struct block *b = rig_block(0x1ffd, 0x5ffd, "\x05\x01", 2, false), *plain = nop_ret(0x1000, 0x5000);
	struct space *s = after(a, b);

	(void)state;
	rig_second_gpa = 0xb000;
	struct block *a2 = rig_block(0x1ff8, 0x5ff8, "\xb8\x01\0\0\0\x05\x01", 7, false);
	assert_true(a->len2 && b->len2 && a2->len2);
	assert_int_equal(cache_table_recall(&rig, s, 0x1ff8, 0x5ff8), 0);
	miss(s, plain);
	assert_int_equal(rig_slot(s, 0x5ff8), CACHE_MISS_STUB);
	assert_int_equal(rig_slot(s, 0x5ffd), CACHE_MISS_STUB);
	miss(s, a2);
	assert_int_equal(rig_slot(s, 0x5ff8), a2->host);
	assert_int_equal(rig_slot(s, 0x5ffd), CACHE_MISS_STUB);
	cache_space_forget(&rig, NEXT_WINDOW, 0x5000, 2);
	miss(s, a);
	assert_int_equal(rig_slot(s, 0x5ff8), a->host);
	assert_int_equal(rig_slot(s, 0x5ffd), b->host);
	cache_drop(&rig, b);
	cache_window_gone(&rig, NEXT_WINDOW);
	s = user_space(WINDOW);
	miss(s, a);
	assert_int_equal(rig_slot(s, 0x5ffd), CACHE_MISS_STUB);
	cache_window_gone(&rig, WINDOW);
}

/* The same key has a block that ends before the instruction that goes on on the next page, made where that is
 * missing: the return point leads to one, then to the other. */
static void returns_to_straddlers_are_forgotten(void **state)
{
	static const char code[] = "\xe8\x03\xf0\xff\xff\x90\x05\x01";
	struct block *straddling = rig_block(0x1ffd, 0x5ffd, code + 5, 3, false),
		     *plain = nop_ret(0x1100, 0x5100);

	(void)state;
	rig_second_gpa = 0;
	struct block *missing = rig_block(0x1ffd, 0x5ffd, code + 5, 3, false);
	struct block *a = rig_block(0x1ff8, 0x5ff8, code, 8, false);
	assert_true(straddling->len2 && missing->len == 1);
	assert_int_equal(a->len, 5);
	struct space *s = after(missing, plain);
	miss(s, plain);
	assert_int_equal(rig_slot(s, 0x5ffd), a->rets[0].at);
	for (unsigned i = 0; i < a->nexits; i++)
		if (a->exits[i].target == 0x5ffd)
			cache_exit_by_table(&rig, &a->exits[i]);
	assert_int_equal(rig_slot(s, 0x5ffd), CACHE_MISS_STUB);
	cache_window_gone(&rig, NEXT_WINDOW);
	s = user_space(WINDOW);
	miss(s, plain);
	assert_int_equal(rig_slot(s, 0x5100), plain->host);
	assert_int_equal(rig_slot(s, 0x5ffd), CACHE_MISS_STUB);
	cache_window_gone(&rig, WINDOW);
}

/* An instruction is left to the interpreter where its second page is missing, not where it is there. */
static void halves_are_not_remembered(void **state)
{
	struct block *plain = nop_ret(0x1100, 0x5100);

	(void)state;
	rig_second_gpa = 0;
	struct block *half = rig_block(0x1ffd, 0x5ffd, "\x05\x01\x01", 3, false);
	assert_int_equal(half->len, 3);
	assert_int_equal(half->len2, 0);
	struct space *s = after(plain, half);
	miss(s, plain);
	assert_int_equal(rig_slot(s, 0x5ffd), CACHE_MISS_STUB);
	cache_window_gone(&rig, NEXT_WINDOW);
}

/* What nobody uses any more is not remembered for ever. */
static void unused_slots_are_forgotten(void **state)
{
	struct block *a = nop_ret(0x1000, 0x5000), *unused = nop_ret(0x1010, 0x5010);
	struct space *s = after(a, unused);
	unsigned n = 0;

	(void)state;
	for (; n < 1000; n++) {
		miss(s, a);
		if (rig_slot(s, 0x5010) == CACHE_MISS_STUB)
			break;
		cache_window_gone(&rig, NEXT_WINDOW);
		s = user_space(NEXT_WINDOW);
	}
	assert_in_range(n, 8, 999);
	cache_window_gone(&rig, NEXT_WINDOW);
	s = user_space(NEXT_WINDOW);
	assert_int_equal(cache_table_recall(&rig, s, 0x1000, 0x5000), host_of(a));
	assert_int_equal(rig_slot(s, 0x5010), CACHE_MISS_STUB);
	cache_window_gone(&rig, NEXT_WINDOW);
}

/* Where a miss at eip leads, the block being none that the map knows. */
static uint32_t leads(struct space *s, uint64_t gpa, uint32_t eip, uint32_t host)
{
	struct block b = {.gpa = gpa, .eip = eip, .host = host};

	miss(s, &b);
	return rig_slot(s, eip);
}

/* More slots in a page than are remembered. */
static void pages_overflow(void **state)
{
	struct space *s = user_space(WINDOW);
	unsigned set = 0;

	(void)state;
	for (uint32_t i = 0; i < 4096; i++)
		leads(s, 0x1000 + i, 0x5000 + i, 64 + i);
	cache_window_gone(&rig, WINDOW);
	s = user_space(WINDOW);
	assert_int_equal(leads(s, 0x1fff, 0x5fff, 64 + 4095), 64 + 4095);
	for (uint32_t i = 0; i < 4096; i++) {
		if (rig_slot(s, 0x5000 + i) == CACHE_MISS_STUB)
			continue;
		assert_int_equal(rig_slot(s, 0x5000 + i), 64 + i);
		set++;
	}
	assert_in_range(set, 2, CACHE_RECALLED);
	cache_window_gone(&rig, WINDOW);
}

/* More pages than are remembered; the same page with many frames. */
static void memory_overflows(void **state)
{
	struct space *s = NULL;

	(void)state;
	for (uint32_t i = 0; i < 10000; i++) {
		if (i % 1000 == 0) {
			cache_window_gone(&rig, WINDOW);
			s = user_space(WINDOW);
		}
		cache_space_forget(&rig, WINDOW, 0x5000, 1);
		leads(s, i * 0x1000ull, 0x5000, 64 + i);
	}
	for (uint32_t i = 7000; i < 10000; i++) {
		cache_window_gone(&rig, WINDOW);
		s = user_space(WINDOW);
		const uint32_t host = cache_table_recall(&rig, s, i * 0x1000ull, 0x5000);
		assert_true(!host || host == (uint32_t)(uintptr_t)rig.rx + 64 + i);
	}
	assert_int_equal(rig_slot(s, 0x5000), 64 + 9999);
	cache_window_gone(&rig, WINDOW);
}

/* A table that has set nearly as many slots as its log holds gets no more than fit. */
static void logs_overflow(void **state)
{
	struct space *s = user_space(WINDOW);

	(void)state;
	for (uint32_t i = 0; i < 100; i++)
		leads(s, 0x1000 + i, 0x5000 + i, 64);
	cache_window_gone(&rig, WINDOW);
	s = user_space(WINDOW);
	for (uint32_t i = 0; i < CACHE_SLOT_LOG - 10; i++)
		leads(s, i * 0x1000ull, 0x1000000 + i * 0x1000, 64);
	leads(s, 0x1000, 0x5000, 64);
	assert_in_range(s->logged, 1, CACHE_SLOT_LOG);
	cache_window_gone(&rig, WINDOW);
	s = user_space(WINDOW);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(rig_slot(s, 0x5000 + i), CACHE_MISS_STUB);
	cache_window_gone(&rig, WINDOW);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(remembered, rig_empty),
		cmocka_unit_test_setup(remembered_for_its_page_alone, rig_empty),
		cmocka_unit_test_setup(remembered_when_the_page_changes, rig_empty),
		cmocka_unit_test_setup(flush_forgets, rig_empty),
		cmocka_unit_test_setup(dropped_blocks_are_forgotten, rig_empty),
		cmocka_unit_test_setup(slots_of_dropped_blocks_are_set_anew, rig_empty),
		cmocka_unit_test_setup(new_return_points_are_remembered, rig_empty),
		cmocka_unit_test_setup(straddlers_are_remembered_apart, rig_empty),
		cmocka_unit_test_setup(returns_to_straddlers_are_forgotten, rig_empty),
		cmocka_unit_test_setup(halves_are_not_remembered, rig_empty),
		cmocka_unit_test_setup(unused_slots_are_forgotten, rig_empty),
		cmocka_unit_test_setup(pages_overflow, rig_empty),
		cmocka_unit_test_setup(memory_overflows, rig_empty),
		cmocka_unit_test_setup(logs_overflow, rig_empty),
	};
	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
