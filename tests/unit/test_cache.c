/* test_cache.c - the block map, chaining and unchaining, invalidation, address look-up, spaces. Blocks are
 * made by the real translator from small pieces of guest code. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
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

static uint64_t second_gpa = 0x9000; /* 0: there is no such page */

static struct loops loops;

static struct block *make(uint64_t gpa, uint32_t eip, const char *bytes, size_t len, bool cross)
{
	static uint8_t page[4096];
	static const uint8_t second[16] = {0x78, 0x56, 0x34, 0x12};
	struct translate_request rq = {.gpa = gpa,
				       .eip = eip,
				       .code = page + (eip & 0xfff),
				       .avail = 4096 - (eip & 0xfff),
				       .second = second_gpa ? second : NULL,
				       .second_gpa = second_gpa,
				       .chain_cross = cross,
				       .loops = &loops};

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

/* The arena offset that a slot leads to. */
static uint32_t slot(const struct space *s, uint32_t eip)
{
	return s->table[eip] ? s->table[eip] - (uint32_t)(uintptr_t)k.rx : CACHE_MISS_STUB;
}

static int setup(void **state)
{
	char err[100];

	(void)state;
	translate_init();
	return cache_init(&k, 1 << 20, err, sizeof err);
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
	second_gpa = 0x9000;
	memset(&loops, 0, sizeof loops);
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
	assert_int_equal(leads_to(e), cache_stub(&k, e));
	cache_chain(&k, e, b);
	assert_int_equal(leads_to(e), b->host);
	cache_unchain(&k, e);
	assert_int_equal(leads_to(e), cache_stub(&k, e));
	assert_null(b->incoming);
	cache_chain(&k, e, b);
	cache_drop(&k, b);
	assert_int_equal(leads_to(e), cache_stub(&k, e));
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

/* Made while the second page was there, and while it was not: whatever a look-up finds, it is always the
 * same, since exits and table slots must agree. */
static void straddler_and_shorter_block(void **state)
{
	static const char bytes[] = "\x90\x05\x01";
	struct block *a = make(0x1ffd, 0x1ffd, bytes, 3, false), *b, *c;

	(void)state;
	assert_int_equal(a->len2, 3);
	second_gpa = 0;
	b = make(0x1ffd, 0x1ffd, bytes, 3, false);
	assert_int_equal(b->len2, 0);
	assert_ptr_equal(cache_lookup(&k, 0x1ffd, 0x1ffd, 0, always, NULL), b);
	second_gpa = 0xb000;
	c = make(0x1ffd, 0x1ffd, bytes, 3, false);
	assert_int_equal(c->len2, 3);
	assert_ptr_equal(cache_lookup(&k, 0x1ffd, 0x1ffd, 0, always, NULL), b);
	assert_ptr_equal(cache_lookup(&k, 0x1ffd, 0x1ffd, 0, never, NULL), b);
	cache_drop(&k, b);
	assert_true(cache_lookup(&k, 0x1ffd, 0x1ffd, 0, always, NULL)->len2);
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
	assert_int_equal(leads_to(&s->exits[0]), cache_stub(&k, &s->exits[0]));
}

static void address_lookup(void **state)
{
	struct block *b[50];

	(void)state;
	cache_flush(&k);
	for (unsigned i = 0; i < 50; i++)
		b[i] = make(0x1000 + i * 16, 0x1000 + i * 16, "\x74\x02\x9d\xc3", 4, false);
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
	struct space *s = cache_space(&k, 7, 0, false, NULL);

	(void)state;
	assert_int_equal(slot(s, 0x80001234), CACHE_MISS_STUB);
	cache_table_set(&k, s, b);
	assert_int_equal(slot(s, 0x80001234), b->host);
	assert_ptr_equal(cache_space(&k, 7, 0, false, NULL), s);
	assert_ptr_not_equal(cache_space(&k, 7, 1, false, NULL), s);
	cache_space_forget(&k, 8, 0x80001000, 1);
	assert_int_equal(slot(s, 0x80001234), b->host);
	cache_space_forget(&k, 7, 0x80002000, 1);
	assert_int_equal(slot(s, 0x80001234), b->host);
	cache_space_forget(&k, 7, 0x80001000, 1);
	assert_int_equal(slot(s, 0x80001234), CACHE_MISS_STUB);
	cache_table_set(&k, s, b);
	cache_window_gone(&k, 7);
	s = cache_space(&k, 7, 0, false, NULL);
	assert_int_equal(slot(s, 0x80001234), CACHE_MISS_STUB);
	assert_true(cache_stack_guard(&k, (uint64_t)(uintptr_t)k.stack - 8));
	assert_false(cache_stack_guard(&k, cache_stack_middle(&k)));
}

static void set(struct space *s, uint32_t eip)
{
	const struct block b = {.host = 64, .eip = eip};

	cache_table_set(&k, s, &b);
}

/* A table in which more slots were set than its log holds is emptied all the same. */
static void tables_overflow(void **state)
{
	struct space *s = cache_space(&k, 7, 0, false, NULL);

	(void)state;
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++)
		set(s, i * 0x123);
	cache_space_forget(&k, 7, 0, 1u << 20);
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++)
		assert_int_equal(s->table[i * 0x123], cache_miss(&k));
	set(s, 0xfffffffe);
	assert_int_equal(slot(s, 0xfffffffe), 64);
	cache_space_forget(&k, 7, 0xfffff000, 1);
	assert_int_equal(slot(s, 0xfffffffe), CACHE_MISS_STUB);
}

/* ... and loses the slots of pages that go, and no others. */
static void tables_overflow_and_forget(void **state)
{
	struct space *s = cache_space(&k, 7, 0, false, NULL);

	(void)state;
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++)
		set(s, i * 0x123);
	set(s, 0xfffffffe);
	cache_space_forget(&k, 7, 0x21000, 3);
	cache_space_forget(&k, 7, 0xffffd000, 3);
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++) {
		const uint32_t eip = i * 0x123;

		assert_int_equal(slot(s, eip), eip - 0x21000 < 0x3000 ? CACHE_MISS_STUB : 64);
	}
	assert_int_equal(s->table[0x21000], cache_miss(&k));
	cache_window_gone(&k, 7);
	for (uint32_t i = 0; i < 2 * CACHE_SLOT_LOG; i++)
		assert_int_equal(slot(s, i * 0x123), CACHE_MISS_STUB);
}

/* Beside a slot that was set, jumps lead to the miss handler without a signal: the host's mapping has nothing
 * else in it, before anything was stored to a page and after the table was emptied. */
static void fresh_pages(void **state)
{
	struct space *s = cache_space(&k, 7, 0, false, NULL);
	const uint32_t slots = CACHE_STRETCH_BYTES / 4, first = 0xc1000000 / slots * slots;

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		set(s, 0xc1000123);
		for (uint32_t i = 0; i < slots; i += 0x101)
			if (first + i != 0xc1000123)
				assert_int_equal(s->table[first + i], cache_miss(&k));
		assert_int_equal(s->table[first + slots - 1], cache_miss(&k));
		set(s, first + slots - 1);
		if (round == 1)
			for (uint32_t i = 0; i < CACHE_SLOT_LOG; i++)
				set(s, first + i);
		cache_window_gone(&k, 7);
		for (uint32_t i = 0; i < slots; i += i < CACHE_SLOT_LOG ? 1 : 0x101)
			assert_int_equal(s->table[first + i], cache_miss(&k));
		assert_int_equal(s->table[first + slots - 1], cache_miss(&k));
		assert_ptr_equal(cache_space(&k, 7, 0, false, NULL), s);
	}
	cache_window_gone(&k, 7);
}

/* All tables look into the same pages. */
static void nobody_writes_to_the_pattern(void **state)
{
	(void)state;
	assert_int_equal(pwrite(k.pattern, "x", 1, 0), -1);
	assert_int_equal(ftruncate(k.pattern, 0), -1);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, k.pattern, 0), MAP_FAILED);
	/* This seal is refused now and then, which must not keep a machine from being made. */
	assert_false(fcntl(k.pattern, F_GET_SEALS) & F_SEAL_WRITE);
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
		struct space *s = cache_space(&k, id, 0, false, NULL);

		for (uint32_t i = 0; i < 1u << 13; i++)
			set(s, i * step + 0x1234);
		for (uint32_t i = 0; i < 1u << 13; i++) {
			assert_int_equal(slot(s, i * step + 0x1234), 64);
			assert_int_equal(slot(s, i * step + 0x1235), CACHE_MISS_STUB);
		}
	}
	assert_in_range(host_mappings(), before, before + 4096);
	for (uint32_t id = 7; id < 9; id++) {
		struct space *s = cache_space(&k, id, 0, false, NULL);

		cache_window_gone(&k, id);
		for (uint32_t i = 0; i < 1u << 13; i++)
			assert_int_equal(slot(s, i * step + 0x1234), CACHE_MISS_STUB);
	}
	assert_in_range(host_mappings(), 0, before + 2048);
}

static void returns(void **state)
{
	/* call 0x1100; mov eax, 1; ret */
	struct block *a = make(0x1000, 0x1000, "\xe8\xfb\x00\x00\x00\xb8\x01\x00\x00\x00\xc3", 11, false);
	struct space *s = cache_space(&k, 7, 0, false, NULL);

	(void)state;
	assert_int_equal(a->nrets, 1);
	assert_ptr_equal(cache_ret_point(&k, 0x1005, 0x1005, 0), &a->rets[0]);
	assert_null(cache_ret_point(&k, 0x1005, 0x1005, MODE_USER));
	assert_null(cache_ret_point(&k, 0x3005, 0x1005, 0));
	assert_null(cache_lookup(&k, 0x1005, 0x1005, 0, never, NULL));
	struct block *e = cache_enter(&k, 0x1005, 0x1005, 0, false);
	assert_non_null(e);
	assert_ptr_equal(cache_lookup(&k, 0x1005, 0x1005, 0, never, NULL), e);
	cache_table_set(&k, s, e);
	assert_int_equal(slot(s, 0x1005), a->rets[0].at);
	/* dropped, what the slot leads to is a jump to the miss stub */
	const uint32_t at = slot(s, 0x1005);
	cache_drop(&k, a);
	assert_null(cache_ret_point(&k, 0x1005, 0x1005, 0));
	assert_null(cache_lookup(&k, 0x1005, 0x1005, 0, never, NULL));
	assert_int_equal(k.rx[at], 0xe9);
	const struct exit_link jump = {.patch = at + 1};
	assert_int_equal(leads_to(&jump), CACHE_MISS_STUB);
}

/* A return address that had a block before the call did: its slots follow the call. */
/* Slots of return points that are set with their block. */
static void returns_foreseen(void **state)
{
	struct space *s = cache_space(&k, 7, 0, false, NULL),
		     *user = cache_space(&k, 8, MODE_USER, true, NULL);
	/* call 0x1100; call 0x1100; ret; call 0x1100, at the end of a page */
	struct block *there = make(0x100a, 0x100a, "\xc3", 1, false);
	struct block *a = make(0x1000, 0x1000, "\xe8\xfb\x00\x00\x00\xe8\xf6\x00\x00\x00\xc3", 11, false);

	(void)state;
	assert_int_equal(a->nrets, 2);
	cache_table_set(&k, s, there);
	const uint32_t at = slot(s, 0x100a);
	assert_int_equal(at, a->rets[1].at);
	cache_table_set_rets(&k, s, a);
	assert_int_equal(slot(s, 0x1005), a->rets[0].at);
	assert_int_equal(slot(s, 0x100a), at);
	assert_int_equal(slot(s, 0x1000), CACHE_MISS_STUB);
	cache_table_set_rets(&k, user, a);
	assert_int_equal(slot(user, 0x1005), CACHE_MISS_STUB);
	cache_space_forget(&k, 7, 0x1000, 1);
	assert_int_equal(slot(s, 0x1005), CACHE_MISS_STUB);
	cache_table_set_rets(&k, s, a);
	assert_int_equal(slot(s, 0x100a), a->rets[1].at);
	cache_drop(&k, a);
	assert_memory_equal(k.rx + slot(s, 0x1005), "\xe9", 1); /* to the miss handler */
	cache_window_gone(&k, 7);
	cache_window_gone(&k, 8);
}

static void returns_to_what_was_there(void **state)
{
	struct block *there = make(0x1005, 0x1005, "\xb8\x01\x00\x00\x00\xc3", 6, false);
	struct space *s = cache_space(&k, 7, 0, false, NULL),
		     *other = cache_space(&k, 7, MODE_USER, false, s);

	(void)state;
	cache_table_set(&k, s, there);
	other->table[0x1005] = (uint32_t)(uintptr_t)k.rx + there->host;
	struct block *a = make(0x1000, 0x1000, "\xe8\xfb\x00\x00\x00\xb8\x01\x00\x00\x00\xc3", 11, false);
	assert_int_equal(a->len, 5);
	assert_int_equal(slot(s, 0x1005), a->rets[0].at);
	assert_int_equal(slot(other, 0x1005), there->host);
	other->table[0x1005] = cache_miss(&k);
}

/* A call whose return point is a jump to a straddler, which goes through the table: the slot must not lead
 * back to it, neither in a space where the second page is missing nor where something else stood there
 * before. */
static void returns_to_straddlers(void **state)
{
	struct space *s = cache_space(&k, 7, 0, false, NULL), *other = cache_space(&k, 8, 0, false, NULL);

	(void)state;
	second_gpa = 0;
	struct block *a = make(0x1ff8, 0x5ff8, "\xe8\x03\xf0\xff\xff\x05\x01\x01", 8, false);
	struct block *before = make(0x1ffd, 0x5ffd, "\xc3", 1, false);
	assert_int_equal(a->nrets, 1);
	assert_int_equal(a->len, 5);
	struct exit_link *way = NULL;
	for (unsigned i = 0; i < a->nexits; i++)
		if (a->exits[i].target == 0x5ffd)
			way = &a->exits[i];
	assert_non_null(way);
	cache_table_set(&k, s, before);
	cache_table_set(&k, other, before);
	assert_int_equal(slot(s, 0x5ffd), a->rets[0].at);
	cache_drop(&k, before);

	second_gpa = 0x9000;
	struct block *straddling = make(0x1ffd, 0x5ffd, "\x05\x01", 2, false);
	assert_true(straddling->len2);
	cache_exit_by_table(&k, way);
	assert_int_equal(slot(other, 0x5ffd), CACHE_MISS_STUB);
	cache_table_set(&k, s, straddling);
	assert_int_equal(slot(s, 0x5ffd), straddling->host);

	second_gpa = 0;
	struct block *missing = make(0x1ffd, 0x5ffd, "\x05\x01\x01", 3, false);
	assert_false(missing->len2);
	cache_table_set(&k, other, missing);
	assert_int_equal(slot(other, 0x5ffd), missing->host);
}

static void entries(void **state)
{
	/* inc eax; mov ecx, 1; mov edx, 2; push ecx; push edx; ret */
	static const char code[] = "\x40\xb9\x01\x00\x00\x00\xba\x02\x00\x00\x00\x51\x52\xc3";
	struct block *a = make(0x1000, 0x1000, code, 14, false);
	struct block *j = make(0x1800, 0x1800, "\xe9\x01\xf8\xff\xff", 5, false); /* jmp 0x1006 */

	(void)state;
	assert_null(cache_enter(&k, 0x1001, 0x1001, 0, false)); /* no room for a jump before it */
	assert_null(cache_enter(&k, 0x1002, 0x1002, 0, false)); /* no instruction begins there */
	assert_null(cache_enter(&k, 0x100c, 0x100c, 0, false)); /* in a run of pushes */
	assert_null(cache_enter(&k, 0x2006, 0x1006, 0, false));
	assert_null(cache_enter(&k, 0x1006, 0x1006, MODE_USER, false));
	struct block *e = cache_enter(&k, 0x1006, 0x1006, 0, false);
	assert_non_null(e);
	assert_int_equal(e->host, a->host + a->side[2].host);
	cache_chain(&k, &j->exits[0], e);
	assert_int_equal(leads_to(&j->exits[0]), e->host);
	/* a store to a byte before it drops it with the rest */
	assert_int_equal(cache_invalidate(&k, 0x1000, 1, NULL), 1);
	assert_false(e->valid);
	assert_int_equal(leads_to(&j->exits[0]), cache_stub(&k, &j->exits[0]));
	assert_null(cache_lookup(&k, 0x1006, 0x1006, 0, never, NULL));
}

/* The jump that takes the place of an entry is not patched any more: here it stands where an exit was. */
static void entry_at_an_exit_is_dropped(void **state)
{
	/* mov ecx, 1; mov edx, 2; jne 0x1010; mov ecx, 1; ret */
	static const char code[] = "\xb9\x01\x00\x00\x00\xba\x02\x00\x00\x00\x75\x04\xb9\x01\x00\x00\x00\xc3";
	struct block *a = make(0x1000, 0x1000, code, 18, false);
	struct block *to = make(0x1010, 0x1010, "\xc3", 1, false);
	struct block *e = cache_enter(&k, 0x100a, 0x100a, 0, false);

	(void)state;
	assert_non_null(e);
	assert_int_equal(a->exits[0].target, 0x1010);
	assert_in_range(a->exits[0].patch, e->host + 1, e->host + 2);
	cache_chain(&k, &a->exits[0], to);
	cache_drop(&k, a);
	assert_int_equal(k.rx[e->host], 0xe9);
	const struct exit_link jump = {.patch = e->host + 1};
	assert_int_equal(leads_to(&jump), CACHE_MISS_STUB);
}

static void no_entries_into_straddlers(void **state)
{
	make(0x1ff8, 0x1ff8, "\xb8\x01\x00\x00\x00\x05\x01", 7, false);
	(void)state;
	assert_null(cache_enter(&k, 0x1ffd, 0x1ffd, 0, false));
}

/* Of a call there is one translation, which code that comes from elsewhere goes to. */
static void calls_are_shared(void **state)
{
	/* mov ecx, 1; mov edx, 2; call 0x1100; ret */
	static const char code[] = "\xb9\x01\x00\x00\x00\xba\x02\x00\x00\x00\xe8\xf1\x00\x00\x00\xc3";
	struct block *a = make(0x1000, 0x1000, code, 16, false);
	struct block *b = make(0x1005, 0x1005, code + 5, 11, false);

	(void)state;
	assert_int_equal(a->nrets, 1);
	assert_int_equal(b->nrets, 0);
	assert_int_equal(b->len, 5);
	assert_int_equal(b->exits[0].target, 0x100a);
	assert_non_null(cache_enter(&k, 0x100a, 0x100a, 0, true));
	assert_null(cache_enter(&k, 0x1005, 0x1005, 0, true));
}

/* More (window, mode) pairs than spaces: the least recently used one is recycled, empty. */
static void spaces_recycled(void **state)
{
	struct block *b = make(0x1000, 0x1000, "\xc3", 1, false);

	(void)state;
	for (uint32_t i = 0; i < 1000; i++) {
		struct space *s = cache_space(&k, 1000 + i, 0, false, NULL);
		assert_int_equal(slot(s, 0x1000), CACHE_MISS_STUB);
		cache_table_set(&k, s, b);
	}
}

/* ------------------------------------------------------------------ slots that are remembered */

#define WINDOW	    7
#define NEXT_WINDOW 8

static struct space *user_space(uint32_t window_id)
{
	return cache_space(&k, window_id, 0, true, NULL);
}

/* As a miss does it. */
static void miss(struct space *s, struct block *b)
{
	if (!cache_table_recall(&k, s, b->gpa, b->eip))
		cache_table_set(&k, s, b);
}

/* The space of an address space that comes after another has run these. */
static struct space *after(struct block *a, struct block *b)
{
	struct space *s = user_space(WINDOW);

	miss(s, a);
	if (b)
		miss(s, b);
	cache_window_gone(&k, WINDOW);
	return user_space(NEXT_WINDOW);
}

static struct block *nop_ret(uint64_t gpa, uint32_t eip)
{
	return make(gpa, eip, "\x90\xc3", 2, false);
}

static uint32_t host_of(const struct block *b)
{
	return (uint32_t)(uintptr_t)k.rx + b->host;
}

static void remembered(void **state)
{
	struct block *a = nop_ret(0x1000, 0x5000), *b = nop_ret(0x1ff0, 0x5ff0), *c = nop_ret(0x3000, 0x6000);
	struct space *s = after(a, b);

	(void)state;
	assert_int_equal(slot(s, 0x5000), CACHE_MISS_STUB);
	assert_int_equal(cache_table_recall(&k, s, 0x1ff0, 0x5ff0), host_of(b));
	assert_int_equal(slot(s, 0x5ff0), b->host);
	assert_int_equal(slot(s, 0x5000), a->host);
	assert_int_equal(slot(s, 0x6000), CACHE_MISS_STUB);
	cache_space_forget(&k, NEXT_WINDOW, 0x5000, 1);
	assert_int_equal(cache_table_recall(&k, s, 0x1000, 0x5000), host_of(a));
	assert_int_equal(slot(s, 0x5ff0), b->host);
	/* what it had to find itself others get too */
	miss(s, c);
	cache_window_gone(&k, NEXT_WINDOW);
	assert_int_equal(slot(s, 0x5000), CACHE_MISS_STUB);
	assert_int_equal(slot(s, 0x5ff0), CACHE_MISS_STUB);
	s = user_space(WINDOW);
	assert_int_equal(cache_table_recall(&k, s, 0x3000, 0x6000), host_of(c));
	assert_int_equal(cache_table_recall(&k, s, 0x1000, 0x5000), host_of(a));
	/* only once: a second miss there is for something else */
	assert_int_equal(cache_table_recall(&k, s, 0x1000, 0x5000), 0);
	cache_window_gone(&k, WINDOW);
}

/* The same linear page with another frame, the frame at another linear address, another mode, the kernel. */
static void remembered_for_its_page_alone(void **state)
{
	struct space *s = after(nop_ret(0x1000, 0x5000), nop_ret(0x1010, 0x5010));
	struct space *other_mode = cache_space(&k, NEXT_WINDOW, 1, true, s);
	struct space *kernel = cache_space(&k, 9, 0, false, s);

	(void)state;
	assert_int_equal(cache_table_recall(&k, s, 0x2000, 0x5000), 0);
	assert_int_equal(slot(s, 0x5010), CACHE_MISS_STUB);
	assert_int_equal(cache_table_recall(&k, s, 0x1000, 0x6000), 0);
	assert_int_equal(slot(s, 0x6010), CACHE_MISS_STUB);
	assert_int_equal(cache_table_recall(&k, other_mode, 0x1000, 0x5000), 0);
	assert_int_equal(slot(other_mode, 0x5010), CACHE_MISS_STUB);
	assert_int_equal(cache_table_recall(&k, kernel, 0x1000, 0x5000), 0);
	assert_int_equal(slot(kernel, 0x5010), CACHE_MISS_STUB);
	cache_window_gone(&k, 9);
	cache_window_gone(&k, NEXT_WINDOW);
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
		assert_int_equal(slot(s, 0x5010), b->host);
		cache_space_forget(&k, NEXT_WINDOW, 0x5000, 1);
		assert_int_equal(slot(s, 0x5000), CACHE_MISS_STUB);
		assert_int_equal(slot(s, 0x5010), CACHE_MISS_STUB);
		miss(s, c);
		assert_int_equal(slot(s, 0x5000), c->host);
		assert_int_equal(slot(s, 0x5010), CACHE_MISS_STUB);
		assert_int_equal(slot(s, 0x5020), i ? d->host : CACHE_MISS_STUB);
		miss(s, d);
		cache_space_forget(&k, NEXT_WINDOW, 0x5000, 1);
	}
	cache_window_gone(&k, NEXT_WINDOW);
}

static void flush_forgets(void **state)
{
	struct space *s = after(nop_ret(0x1000, 0x5000), nop_ret(0x1010, 0x5010));

	(void)state;
	cache_flush(&k);
	assert_int_equal(cache_table_recall(&k, s, 0x1000, 0x5000), 0);
	miss(s, nop_ret(0x1000, 0x5000));
	assert_int_equal(slot(s, 0x5010), CACHE_MISS_STUB);
	cache_window_gone(&k, NEXT_WINDOW);
}

/* Block, entry and return point go together. */
static void dropped_blocks_are_forgotten(void **state)
{
	/* mov eax, 1; mov eax, 1; call 0x5800; mov eax, 1; ret */
	static const char code[] = "\xb8\x01\0\0\0\xb8\x01\0\0\0\xe8\xf1\x07\0\0\xb8\x01\0\0\0\xc3";
	struct block *a = make(0x1000, 0x5000, code, 21, false), *other = nop_ret(0x1100, 0x5100);
	struct block *entry = cache_enter(&k, 0x1005, 0x5005, 0, false);
	struct block *behind = cache_enter(&k, 0x100f, 0x500f, 0, false);
	struct space *s = after(a, other);

	(void)state;
	assert_non_null(entry);
	assert_non_null(behind);
	miss(s, entry);
	miss(s, behind);
	assert_int_equal(slot(s, 0x500f), a->rets[0].at);
	cache_window_gone(&k, NEXT_WINDOW);
	s = user_space(WINDOW);
	miss(s, other);
	assert_int_equal(slot(s, 0x5000), a->host);
	assert_int_equal(slot(s, 0x5005), entry->host);
	assert_int_equal(slot(s, 0x500f), a->rets[0].at);
	cache_drop(&k, a);
	cache_window_gone(&k, WINDOW);
	s = user_space(NEXT_WINDOW);
	miss(s, other);
	assert_int_equal(slot(s, 0x5100), other->host);
	assert_int_equal(slot(s, 0x5000), CACHE_MISS_STUB);
	assert_int_equal(slot(s, 0x5005), CACHE_MISS_STUB);
	assert_int_equal(slot(s, 0x500f), CACHE_MISS_STUB);
	cache_window_gone(&k, NEXT_WINDOW);
}

/* Where a block was dropped the slot leads nowhere, and what is remembered since sets it right. */
static void slots_of_dropped_blocks_are_set_anew(void **state)
{
	struct block *a = nop_ret(0x1000, 0x5000), *b = nop_ret(0x1010, 0x5010);
	struct space *s = user_space(WINDOW), *other = user_space(NEXT_WINDOW);

	(void)state;
	miss(s, a);
	cache_drop(&k, a);
	a = nop_ret(0x1000, 0x5000);
	miss(other, a);
	miss(other, b);
	miss(s, a);
	assert_int_equal(slot(s, 0x5000), a->host);
	cache_window_gone(&k, WINDOW);
	cache_window_gone(&k, NEXT_WINDOW);
}

/* A call is translated after what stands behind it. */
static void new_return_points_are_remembered(void **state)
{
	struct block *there = make(0x1005, 0x5005, "\xb8\x01\0\0\0\xc3", 6, false);
	struct block *other = nop_ret(0x1100, 0x5100);
	struct space *s = after(there, other);
	struct block *a = make(0x1000, 0x5000, "\xe8\xfb\x01\0\0\xb8\x01\0\0\0\xc3", 11, false);

	(void)state;
	assert_int_equal(a->nrets, 1);
	miss(s, other);
	assert_int_equal(slot(s, 0x5005), a->rets[0].at);
	cache_window_gone(&k, NEXT_WINDOW);
	cache_drop(&k, a);
	s = user_space(WINDOW);
	miss(s, other);
	assert_int_equal(slot(s, 0x5005), CACHE_MISS_STUB);
	miss(s, there);
	assert_int_equal(slot(s, 0x5005), there->host);
	cache_window_gone(&k, WINDOW);
}

/* They depend on the frame of the next page. */
static void straddlers_are_remembered_apart(void **state)
{
	struct block *a = make(0x1ff8, 0x5ff8, "\xb8\x01\0\0\0\x05\x01", 7, false);
	struct block *b = make(0x1ffd, 0x5ffd, "\x05\x01", 2, false), *plain = nop_ret(0x1000, 0x5000);
	struct space *s = after(a, b);

	(void)state;
	second_gpa = 0xb000;
	struct block *a2 = make(0x1ff8, 0x5ff8, "\xb8\x01\0\0\0\x05\x01", 7, false);
	assert_true(a->len2 && b->len2 && a2->len2);
	assert_int_equal(cache_table_recall(&k, s, 0x1ff8, 0x5ff8), 0);
	miss(s, plain);
	assert_int_equal(slot(s, 0x5ff8), CACHE_MISS_STUB);
	assert_int_equal(slot(s, 0x5ffd), CACHE_MISS_STUB);
	miss(s, a2);
	assert_int_equal(slot(s, 0x5ff8), a2->host);
	assert_int_equal(slot(s, 0x5ffd), CACHE_MISS_STUB);
	cache_space_forget(&k, NEXT_WINDOW, 0x5000, 2);
	miss(s, a);
	assert_int_equal(slot(s, 0x5ff8), a->host);
	assert_int_equal(slot(s, 0x5ffd), b->host);
	cache_drop(&k, b);
	cache_window_gone(&k, NEXT_WINDOW);
	s = user_space(WINDOW);
	miss(s, a);
	assert_int_equal(slot(s, 0x5ffd), CACHE_MISS_STUB);
	cache_window_gone(&k, WINDOW);
}

/* The same key has a block that ends before the instruction that goes on on the next page, made where that is
 * missing: the return point leads to one, then to the other. */
static void returns_to_straddlers_are_forgotten(void **state)
{
	static const char code[] = "\xe8\x03\xf0\xff\xff\x90\x05\x01";
	struct block *straddling = make(0x1ffd, 0x5ffd, code + 5, 3, false), *plain = nop_ret(0x1100, 0x5100);

	(void)state;
	second_gpa = 0;
	struct block *missing = make(0x1ffd, 0x5ffd, code + 5, 3, false);
	struct block *a = make(0x1ff8, 0x5ff8, code, 8, false);
	assert_true(straddling->len2 && missing->len == 1);
	assert_int_equal(a->len, 5);
	struct space *s = after(missing, plain);
	miss(s, plain);
	assert_int_equal(slot(s, 0x5ffd), a->rets[0].at);
	for (unsigned i = 0; i < a->nexits; i++)
		if (a->exits[i].target == 0x5ffd)
			cache_exit_by_table(&k, &a->exits[i]);
	assert_int_equal(slot(s, 0x5ffd), CACHE_MISS_STUB);
	cache_window_gone(&k, NEXT_WINDOW);
	s = user_space(WINDOW);
	miss(s, plain);
	assert_int_equal(slot(s, 0x5100), plain->host);
	assert_int_equal(slot(s, 0x5ffd), CACHE_MISS_STUB);
	cache_window_gone(&k, WINDOW);
}

/* An instruction is left to the interpreter where its second page is missing, not where it is there. */
static void halves_are_not_remembered(void **state)
{
	struct block *plain = nop_ret(0x1100, 0x5100);

	(void)state;
	second_gpa = 0;
	struct block *half = make(0x1ffd, 0x5ffd, "\x05\x01\x01", 3, false);
	assert_int_equal(half->len, 3);
	assert_int_equal(half->len2, 0);
	struct space *s = after(plain, half);
	miss(s, plain);
	assert_int_equal(slot(s, 0x5ffd), CACHE_MISS_STUB);
	cache_window_gone(&k, NEXT_WINDOW);
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
		if (slot(s, 0x5010) == CACHE_MISS_STUB)
			break;
		cache_window_gone(&k, NEXT_WINDOW);
		s = user_space(NEXT_WINDOW);
	}
	assert_in_range(n, 8, 999);
	cache_window_gone(&k, NEXT_WINDOW);
	s = user_space(NEXT_WINDOW);
	assert_int_equal(cache_table_recall(&k, s, 0x1000, 0x5000), host_of(a));
	assert_int_equal(slot(s, 0x5010), CACHE_MISS_STUB);
	cache_window_gone(&k, NEXT_WINDOW);
}

/* Where a miss at eip leads, the block being none that the map knows. */
static uint32_t leads(struct space *s, uint64_t gpa, uint32_t eip, uint32_t host)
{
	struct block b = {.gpa = gpa, .eip = eip, .host = host};

	miss(s, &b);
	return slot(s, eip);
}

/* More slots in a page than are remembered. */
static void pages_overflow(void **state)
{
	struct space *s = user_space(WINDOW);
	unsigned set = 0;

	(void)state;
	for (uint32_t i = 0; i < 4096; i++)
		leads(s, 0x1000 + i, 0x5000 + i, 64 + i);
	cache_window_gone(&k, WINDOW);
	s = user_space(WINDOW);
	assert_int_equal(leads(s, 0x1fff, 0x5fff, 64 + 4095), 64 + 4095);
	for (uint32_t i = 0; i < 4096; i++) {
		if (slot(s, 0x5000 + i) == CACHE_MISS_STUB)
			continue;
		assert_int_equal(slot(s, 0x5000 + i), 64 + i);
		set++;
	}
	assert_in_range(set, 2, CACHE_RECALLED);
	cache_window_gone(&k, WINDOW);
}

/* More pages than are remembered; the same page with many frames. */
static void memory_overflows(void **state)
{
	struct space *s = NULL;

	(void)state;
	for (uint32_t i = 0; i < 10000; i++) {
		if (i % 1000 == 0) {
			cache_window_gone(&k, WINDOW);
			s = user_space(WINDOW);
		}
		cache_space_forget(&k, WINDOW, 0x5000, 1);
		leads(s, i * 0x1000ull, 0x5000, 64 + i);
	}
	for (uint32_t i = 7000; i < 10000; i++) {
		cache_window_gone(&k, WINDOW);
		s = user_space(WINDOW);
		const uint32_t host = cache_table_recall(&k, s, i * 0x1000ull, 0x5000);
		assert_true(!host || host == (uint32_t)(uintptr_t)k.rx + 64 + i);
	}
	assert_int_equal(slot(s, 0x5000), 64 + 9999);
	cache_window_gone(&k, WINDOW);
}

/* A table that has set nearly as many slots as its log holds gets no more than fit. */
static void logs_overflow(void **state)
{
	struct space *s = user_space(WINDOW);

	(void)state;
	for (uint32_t i = 0; i < 100; i++)
		leads(s, 0x1000 + i, 0x5000 + i, 64);
	cache_window_gone(&k, WINDOW);
	s = user_space(WINDOW);
	for (uint32_t i = 0; i < CACHE_SLOT_LOG - 10; i++)
		leads(s, i * 0x1000ull, 0x1000000 + i * 0x1000, 64);
	leads(s, 0x1000, 0x5000, 64);
	assert_in_range(s->logged, 1, CACHE_SLOT_LOG);
	cache_window_gone(&k, WINDOW);
	s = user_space(WINDOW);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(slot(s, 0x5000 + i), CACHE_MISS_STUB);
	cache_window_gone(&k, WINDOW);
}

/* ---- more blocks than one set of lines holds, crowded on few pages that have several linear addresses */

#define CROWD 60000u

static struct block *crowd[CROWD];

/* Never the same twice: an odd factor permutes. */
static struct block *make_in_crowd(unsigned n)
{
	const uint32_t at = n * 40503u & 0x3ffff, gpa = 0x10000 + (at & 0xffff);

	const unsigned room = 0x1000 - (gpa & 0xfff);

	/* test eax, eax; je; call; ret */
	return make(gpa, gpa + (at >> 16) * 0x1000000, "\x85\xc0\x74\x05\xe8\x10\x00\x00\x00\xc3",
		    room < 10 ? room : 10, false);
}

/* nop; inc eax; call; jnz back to inc eax: where the loop is known before its call is translated, it gets a
 * block. */
static void a_loop_that_calls_begins_a_block(void **state)
{
	static const char code[] = "\x90\x40\xe8\x00\x01\x00\x00\x75\xf8";
	const size_t len = sizeof code - 1;

	(void)state;
	const struct block *whole = make(0x1000, 0x80001000, code, len, false);
	assert_int_equal(whole->nrets, 1);
	cache_flush(&k);
	loop_remember(&loops, 0x1001);
	const struct block *before = make(0x1000, 0x80001000, code, len, false);
	assert_int_equal(before->len, 1);
	assert_int_equal(before->nrets, 0);
	assert_int_equal(before->exits[0].target, 0x80001001);
	struct block *loop = make(0x1001, 0x80001001, code + 1, len - 1, false);
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
			cache_flush(&k);
			memset(&loops, 0, sizeof loops);
			assert_int_equal(make(start, 0x80000000 + start, code, len, false)->nrets, 1);
			cache_flush(&k);
			loop_remember(&loops, start + 1);
			assert_int_equal(make(start, 0x80000000 + start, code, len, false)->len, 1);
		}
	}
}

/* A loop without calls ends no block. */
static void a_loop_that_does_not_call_begins_none(void **state)
{
	static const char code[] = "\x90\x40\x4b\x75\xfc";

	(void)state;
	loop_remember(&loops, 0x1001);
	const struct block *b = make(0x1000, 0x80001000, code, sizeof code - 1, false);
	assert_true(b->len >= sizeof code - 1);
}

static void code_begins_a_page(void **state)
{
	(void)state;
	make(0x1000, 0x80001000, "\x90\xc3", 2, false);
	const uint32_t hot = k.hot;
	cache_begin_page(&k, 64); /* there is room on this one */
	assert_int_equal(k.hot, hot);
	cache_begin_page(&k, PAGE_SIZE - (hot & (PAGE_SIZE - 1)) + 1);
	assert_int_equal(k.hot & (PAGE_SIZE - 1), 0);
	assert_true(k.hot > hot && k.hot - hot < PAGE_SIZE);
	cache_begin_page(&k, PAGE_SIZE);
	const struct block *b = make(0x1002, 0x80001002, "\x90\xc3", 2, false);
	assert_int_equal(b->host, (hot + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1));
	assert_ptr_equal(cache_find_pc(&k, (uint64_t)(uintptr_t)(k.rx + b->host)), b);
	assert_null(cache_find_pc(&k, (uint64_t)(uintptr_t)(k.rx + b->host - 1)));
	k.cold = k.hot + 100; /* no room for what is asked */
	cache_begin_page(&k, PAGE_SIZE);
	assert_true(k.hot < k.cold);
}

static void check_crowd(const struct block *b)
{
	assert_ptr_equal(cache_lookup(&k, b->gpa, b->eip, 0, always, NULL), b->valid ? b : NULL);
	for (unsigned i = 0; i < b->nrets; i++) {
		const uint32_t eip = b->rets[i].eip;
		const struct ret_point *r = cache_ret_point(&k, b->gpa + (eip - b->eip), eip, 0);

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

	if (b->ninsn < 2 || cache_lookup(&k, b->gpa + second, b->eip + second, 0, always, NULL))
		return;
	e = cache_enter(&k, b->gpa + second, b->eip + second, 0, false);
	if (!e)
		return; /* no room */
	assert_ptr_equal(cache_lookup(&k, b->gpa + second, b->eip + second, 0, always, NULL), e);
	assert_true(e->host >= k.blocks[0].host && e->valid);
}

static void crowds(void **state)
{
	char err[100];

	(void)state;
	cache_destroy(&k);
	assert_int_equal(cache_init(&k, 48 << 20, err, sizeof err), 0);
	second_gpa = 0;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned n = 0; n < CROWD; n++) {
			assert_true(cache_has_room(&k, TRANSLATE_ROOM));
			crowd[n] = make_in_crowd(n);
		}
		for (unsigned n = 0; n < CROWD; n++)
			check_crowd(crowd[n]);
		for (unsigned n = 0; n < CROWD; n += 7)
			check_entry(crowd[n]);
		for (unsigned n = 0; n < CROWD; n += 1 + n % 3)
			cache_drop(&k, crowd[n]);
		for (unsigned n = 0; n < CROWD; n++)
			check_crowd(crowd[n]);
		for (unsigned n = 0; n < CROWD; n++)
			cache_drop(&k, crowd[n]);
		for (unsigned n = 0; n < CROWD; n++)
			check_crowd(crowd[n]);
		assert_int_equal(k.stats.blocks_now, 0);
		cache_flush(&k);
	}
	cache_destroy(&k);
	assert_int_equal(setup(NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(lookup_by_key, empty),
		cmocka_unit_test_setup(chain_and_unchain, empty),
		cmocka_unit_test_setup(dropping_the_source_leaves_no_link, empty),
		cmocka_unit_test_setup(invalidation_hits_exactly_the_bytes, empty),
		cmocka_unit_test_setup(straddler, empty),
		cmocka_unit_test_setup(straddler_and_shorter_block, empty),
		cmocka_unit_test_setup(cross_page_exits, empty),
		cmocka_unit_test_setup(address_lookup, empty),
		cmocka_unit_test_setup(tables, empty),
		cmocka_unit_test_setup(tables_overflow, empty),
		cmocka_unit_test_setup(tables_overflow_and_forget, empty),
		cmocka_unit_test_setup(fresh_pages, empty),
		cmocka_unit_test_setup(nobody_writes_to_the_pattern, empty),
		cmocka_unit_test_setup(slots_everywhere, empty),
		cmocka_unit_test_setup(returns, empty),
		cmocka_unit_test_setup(returns_foreseen, empty),
		cmocka_unit_test_setup(returns_to_what_was_there, empty),
		cmocka_unit_test_setup(returns_to_straddlers, empty),
		cmocka_unit_test_setup(entries, empty),
		cmocka_unit_test_setup(entry_at_an_exit_is_dropped, empty),
		cmocka_unit_test_setup(no_entries_into_straddlers, empty),
		cmocka_unit_test_setup(calls_are_shared, empty),
		cmocka_unit_test_setup(spaces_recycled, empty),
		cmocka_unit_test_setup(remembered, empty),
		cmocka_unit_test_setup(remembered_for_its_page_alone, empty),
		cmocka_unit_test_setup(remembered_when_the_page_changes, empty),
		cmocka_unit_test_setup(flush_forgets, empty),
		cmocka_unit_test_setup(dropped_blocks_are_forgotten, empty),
		cmocka_unit_test_setup(slots_of_dropped_blocks_are_set_anew, empty),
		cmocka_unit_test_setup(new_return_points_are_remembered, empty),
		cmocka_unit_test_setup(straddlers_are_remembered_apart, empty),
		cmocka_unit_test_setup(returns_to_straddlers_are_forgotten, empty),
		cmocka_unit_test_setup(halves_are_not_remembered, empty),
		cmocka_unit_test_setup(unused_slots_are_forgotten, empty),
		cmocka_unit_test_setup(pages_overflow, empty),
		cmocka_unit_test_setup(memory_overflows, empty),
		cmocka_unit_test_setup(logs_overflow, empty),
		cmocka_unit_test_setup(a_loop_that_calls_begins_a_block, empty),
		cmocka_unit_test_setup(a_loop_may_begin_lines_before_its_call, empty),
		cmocka_unit_test_setup(a_loop_that_does_not_call_begins_none, empty),
		cmocka_unit_test_setup(code_begins_a_page, empty),
		cmocka_unit_test_setup(crowds, empty),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
