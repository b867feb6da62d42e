/* blocks.c - the block map: lookup by key, by guest-physical page, and by host address. */
#include "cache/cache_private.h"

#include <string.h>

/* ------------------------------------------------------------------ what is where: the lines
 *
 * A line of the CPU's cache for each 64 bytes of code, with an item for whatever has to do with these: blocks
 * and entries that begin there, return points that lie there, and blocks that may be entered there. The lines
 * of a page of code are consecutive. So whoever translates or runs a block finds all that he asks for about
 * its surroundings in one or two lines. An item is a tag of 13 bits and the number of what it stands for;
 * only where the tag matches is that looked at. Where a line is full its items go on in the next: its last
 * word counts them. When there are many items there are to be more lines.
 */

enum item_kind { ITEM_BLOCK = 1, ITEM_RET, ITEM_INSIDE };

#define REF_BITS 19u

struct line {
	uint32_t item[LINE_ITEMS];
	uint32_t further;
};

static_assert(sizeof(struct line) == CACHE_LINE_BYTES, "a line is one");

/* Where something is looked for, and with which tag. */
struct place {
	uint32_t line, tag;
};

static struct line *line_at(const struct cache *k, uint32_t n)
{
	return &k->lines[n & (k->nlines - 1)];
}

static struct place place_of(enum item_kind kind, uint64_t gpa, uint32_t eip, uint32_t mode)
{
	const uint32_t delta = (eip - (uint32_t)gpa) + mode * 0x85ebca6bu;
	const uint32_t page = ((uint32_t)(gpa >> PAGE_SHIFT) ^ delta * 0xc2b2ae35u) * 0x9e3779b1u;
	const uint32_t low = kind == ITEM_INSIDE ? 0 : (uint32_t)gpa & 63;

	return (struct place){.line = (page >> 12) + ((uint32_t)gpa >> 6 & 63),
			      .tag = (uint32_t)kind << 11 | (page >> 21 ^ low << 5)};
}

typedef void item_fn(struct cache *k, struct place at, uint32_t ref);

static void item_add(struct cache *k, struct place at, uint32_t ref)
{
	struct line *l;
	unsigned i = 0;

	assert(ref < 1u << REF_BITS && k->nitems < ITEMS_MAX);
	k->nitems++;
	for (l = line_at(k, at.line); l->item[LINE_ITEMS - 1]; l = line_at(k, ++at.line))
		l->further++;
	while (l->item[i])
		i++;
	l->item[i] = at.tag << REF_BITS | ref;
}

static void item_remove(struct cache *k, struct place at, uint32_t ref)
{
	const uint32_t item = at.tag << REF_BITS | ref;

	k->nitems--;
	for (;; at.line++) {
		struct line *l = line_at(k, at.line);
		unsigned i = 0, last;

		while (i < LINE_ITEMS && l->item[i] != item)
			i++;
		if (i == LINE_ITEMS) {
			assert(l->further);
			l->further--;
			continue;
		}
		for (last = i; last + 1 < LINE_ITEMS && l->item[last + 1];)
			last++;
		l->item[i] = l->item[last];
		l->item[last] = 0;
		return;
	}
}

/* Goes through the items with a place's tag: *i is 0 at first. False: no more. */
static inline bool item_next(const struct cache *k, struct place *at, unsigned *i, uint32_t *ref)
{
	for (;;) {
		const struct line *l = line_at(k, at->line);

		while (*i < LINE_ITEMS && l->item[*i]) {
			const uint32_t item = l->item[(*i)++];

			if (item >> REF_BITS == at->tag) {
				*ref = item & ((1u << REF_BITS) - 1);
				return true;
			}
		}
		if (!l->further)
			return false;
		at->line++;
		*i = 0;
	}
}

/* Blocks and entries are numbered through. */
static struct block *block_at(const struct cache *k, uint32_t ref)
{
	return ref < k->max_blocks ? &k->blocks[ref] : &k->entries[ref - k->max_blocks];
}

static uint32_t ref_of(const struct cache *k, const struct block *b)
{
	return b >= k->blocks && b < k->blocks + k->max_blocks ? (uint32_t)(b - k->blocks)
							       : k->max_blocks + (uint32_t)(b - k->entries);
}

/* Two pages may share a list; walkers compare addresses anyway. */
static struct block **page_slot(const struct cache *k, uint64_t gpa)
{
	return &k->pages[(gpa >> PAGE_SHIFT) & (PAGES_SIZE - 1)];
}

struct block *cache_lookup(struct cache *k, uint64_t gpa, uint32_t eip, uint32_t mode,
			   bool (*second)(void *opaque, const struct block *b), void *opaque)
{
	struct place at = place_of(ITEM_BLOCK, gpa, eip, mode);
	struct block *straddler = NULL;
	uint32_t ref;

	for (unsigned i = 0; item_next(k, &at, &i, &ref);) {
		struct block *b = block_at(k, ref);

		if (b->gpa != gpa || b->eip != eip || b->mode != mode)
			continue;
		if (!b->len2)
			return b;
		if (!straddler && second && second(opaque, b))
			straddler = b;
	}
	return straddler;
}

struct ret_point *cache_ret_point(const struct cache *k, uint64_t gpa, uint32_t eip, uint32_t mode)
{
	struct place at = place_of(ITEM_RET, gpa, eip, mode);
	uint32_t ref;

	for (unsigned i = 0; item_next(k, &at, &i, &ref);) {
		struct ret_point *r = &k->ret_points[ref];

		if (r->eip == eip && r->b->mode == mode && r->b->gpa + (eip - r->b->eip) == gpa)
			return r;
	}
	return NULL;
}

/* Adds or removes the item that tells of a return point. */
static void tell_ret(struct cache *k, const struct ret_point *r, item_fn *tell)
{
	tell(k, place_of(ITEM_RET, r->b->gpa + (r->eip - r->b->eip), r->eip, r->b->mode),
	     (uint32_t)(r - k->ret_points));
}

void rets_add(struct cache *k, struct block *b)
{
	for (unsigned i = 0; i < b->nrets; i++) {
		struct ret_point *r = &b->rets[i];
		assert(r->at + CACHE_MIN_BYTES <= b->host_end);
		r->b = b;
		tell_ret(k, r, item_add);
		const struct block *there =
			cache_lookup(k, b->gpa + (r->eip - b->eip), r->eip, b->mode, NULL, NULL);
		if (there) {
			space_redirect(k, b->mode, r->eip, there->host, r->at);
			recall_redirect(k, b, r->eip, (uint32_t)(uintptr_t)k->rx + r->at);
		}
	}
}

void rets_remove(struct cache *k, struct block *b)
{
	for (unsigned i = 0; i < b->nrets; i++)
		tell_ret(k, &b->rets[i], item_remove);
}

static void hash_add(struct cache *k, const struct block *b)
{
	item_add(k, place_of(ITEM_BLOCK, b->gpa, b->eip, b->mode), ref_of(k, b));
}

static void hash_remove(struct cache *k, const struct block *b)
{
	item_remove(k, place_of(ITEM_BLOCK, b->gpa, b->eip, b->mode), ref_of(k, b));
}

/* ---- where a block can be entered */

static bool begins_part(const struct block *b, unsigned i)
{
	return b->side[i - 1].flags & SIDE_PART;
}

static bool can_enter(const struct block *b, unsigned i)
{
	return !b->side[i].esp_delta && !(b->prologue && !begins_part(b, i));
}

/* Adds or removes the items that tell of these places. */
static void tell_inside(struct cache *k, const struct block *b, item_fn *tell)
{
	uint64_t told = ~0ull;

	for (unsigned i = 1; i < b->ninsn && !b->len2; i++) {
		const uint8_t guest = b->side[i].guest;

		if ((b->gpa + guest) >> 6 == told || !can_enter(b, i))
			continue;
		told = (b->gpa + guest) >> 6;
		tell(k, place_of(ITEM_INSIDE, b->gpa + guest, b->eip + guest, b->mode), ref_of(k, b));
	}
}

/* Before an addition: twice as many lines when they are rather full. */
static void lines_grow(struct cache *k)
{
	if (k->nitems + ITEMS_OF_BLOCK < k->nlines * LINE_FULL || k->nlines == LINES_MAX)
		return;
	memset(k->lines, 0, k->nlines * CACHE_LINE_BYTES);
	k->nlines *= 2;
	k->nitems = 0;
	for (uint32_t n = 0; n < k->nblocks; n++) {
		const struct block *b = &k->blocks[n];

		if (!b->valid)
			continue;
		hash_add(k, b);
		for (unsigned i = 0; i < b->nrets; i++)
			tell_ret(k, &b->rets[i], item_add);
		tell_inside(k, b, item_add);
	}
	for (uint32_t n = 0; n < k->nentries; n++)
		if (k->entries[n].valid)
			hash_add(k, &k->entries[n]);
}

struct block *cache_new(struct cache *k, unsigned align)
{
	assert(k->nblocks < k->max_blocks);
	struct block *b = &k->blocks[k->nblocks];

	memset(b, 0, sizeof *b);
	k->hot = (k->hot + align - 1) & ~(align - 1);
	b->side = &k->sides[k->nsides];
	b->exits = &k->exits[k->nexits];
	b->rets = &k->ret_points[k->nret_points];
	b->host = k->hot;
	b->cold_end = k->cold;
	return b;
}

void cache_commit(struct cache *k, struct block *b)
{
	assert(b == &k->blocks[k->nblocks]);
	lines_grow(k);
	k->nblocks++;
	k->nsides += b->ninsn;
	k->nexits += b->nexits;
	k->nret_points += b->nrets;
	k->hot = b->host_end;
	k->cold = b->cold;
	for (unsigned i = 0; i < b->nexits; i++)
		b->exits[i].from = b;
	hash_add(k, b);
	struct block **p = page_slot(k, b->gpa);
	b->page_next[0] = *p;
	*p = b;
	if (b->len2) {
		p = page_slot(k, b->gpa2);
		assert(p != page_slot(k, b->gpa));
		b->page_next[1] = *p;
		*p = b;
	}
	rets_add(k, b);
	tell_inside(k, b, item_add);
	b->valid = true;
	k->stats.blocks_made++;
	k->stats.blocks_now++;
	k->stats.guest_insns += b->ninsn;
	k->stats.guest_bytes += b->len;
	k->stats.host_bytes += b->host_end - b->host;
	k->stats.cold_bytes += b->cold_end - b->cold + b->nexits * CACHE_STUB_BYTES;
}

void cache_begin_page(struct cache *k, uint32_t bytes)
{
	const uint32_t next = (k->hot + PAGE_SIZE - 1) & PAGE_MASK;

	if (next - k->hot < bytes && cache_has_room(k, PAGE_SIZE))
		k->hot = next;
}

/* Which of b's two list links belongs to the list at slot. */
static struct block **page_link(struct cache *k, struct block *b, struct block **slot)
{
	return &b->page_next[page_slot(k, b->gpa) == slot ? 0 : 1];
}

static void page_unlink(struct cache *k, struct block *b, uint64_t gpa)
{
	struct block **slot = page_slot(k, gpa);
	struct block **p = slot;

	while (*p != b)
		p = page_link(k, *p, slot);
	*p = *page_link(k, b, slot);
}

/* Makes what may still be reached in a dropped block harmless: its code stays in the arena until the next
 * flush because tables may lead to it, and because the CPU may be in it right now. What comes through tables,
 * with the target in r8d, finds jumps to the miss handler. */
static void poison_entries(struct cache *k, struct block *b)
{
	assert(b->host_end - b->host >= CACHE_MIN_BYTES);
	cache_put_miss_jump(k, b->host);
	for (unsigned i = 0; i < b->nrets; i++)
		cache_put_miss_jump(k, b->rets[i].at);
}

static void drop_entry(struct cache *k, struct block *e)
{
	hash_remove(k, e);
	cross_remove(k, e);
	while (e->incoming)
		cache_unchain(k, e->incoming);
	cache_put_miss_jump(k, e->host);
	e->valid = false;
}

void cache_drop(struct cache *k, struct block *b)
{
	if (!b->valid)
		return;
	hash_remove(k, b);
	cross_remove(k, b);
	page_unlink(k, b, b->gpa);
	if (b->len2)
		page_unlink(k, b, b->gpa2);
	while (b->incoming)
		cache_unchain(k, b->incoming);
	cache_unlink_exits(k, b); /* before jumps are written over them */
	for (struct block *e = b->entries; e; e = e->entry_next)
		drop_entry(k, e);
	rets_remove(k, b);
	recall_drop(k, b);
	tell_inside(k, b, item_remove);
	poison_entries(k, b);
	b->valid = false;
	k->stats.blocks_dropped++;
	k->stats.blocks_now--;
}

static bool too_close(uint32_t a, uint32_t b)
{
	return a != b && (a < b ? b - a : a - b) < CACHE_MIN_BYTES;
}

/* When the block is dropped, there will be a jump at each of the places where it can be entered. */
static bool room_for_entry(const struct block *b, uint32_t at)
{
	bool ok = !too_close(at, b->host) && at + CACHE_MIN_BYTES <= b->host_end;

	for (const struct block *e = b->entries; e && ok; e = e->entry_next)
		ok = !too_close(at, e->host);
	for (unsigned i = 0; i < b->nrets && ok; i++)
		ok = !too_close(at, b->rets[i].at);
	return ok;
}

static uint32_t entry_host(const struct block *b, unsigned i)
{
	return b->host + b->side[i].host - (begins_part(b, i) ? b->prologue : 0);
}

/* The instruction of b at this offset from its beginning, if it can be entered there; 0 if not. */
static unsigned entry_insn(const struct block *b, unsigned guest)
{
	for (unsigned i = 1; i < b->ninsn; i++)
		if (b->side[i].guest == guest)
			return can_enter(b, i) ? i : 0;
	return 0;
}

/* Instruction i is a call with a return point. */
static bool is_the_call(const struct block *b, unsigned i)
{
	const uint32_t next = b->eip + (i + 1u < b->ninsn ? b->side[i + 1].guest : b->len);

	for (unsigned n = 0; n < b->nrets; n++)
		if (b->rets[n].eip == next)
			return true;
	return false;
}

static struct block *make_entry(struct cache *k, struct block *b, unsigned i)
{
	const struct side_entry *s = &b->side[i];
	struct block *e;

	lines_grow(k);
	e = &k->entries[k->nentries++];
	*e = (struct block){.gpa = b->gpa + s->guest,
			    .eip = b->eip + s->guest,
			    .mode = b->mode,
			    .host = entry_host(b, i),
			    .valid = true,
			    .entry_next = b->entries};
	b->entries = e;
	hash_add(k, e);
	return e;
}

struct block *cache_enter(struct cache *k, uint64_t gpa, uint32_t eip, uint32_t mode, bool calls_only)
{
	struct place at = place_of(ITEM_INSIDE, gpa, eip, mode);
	uint32_t ref;

	if (k->nentries == k->max_entries || k->nitems == ITEMS_MAX)
		return NULL;
	for (unsigned n = 0; item_next(k, &at, &n, &ref);) {
		struct block *b = &k->blocks[ref];
		const uint32_t guest = eip - b->eip;

		if (guest - 1 >= b->len - 1u || b->gpa + guest != gpa || b->mode != mode)
			continue;
		unsigned i = entry_insn(b, guest);
		if (i && room_for_entry(b, entry_host(b, i)) && (!calls_only || is_the_call(b, i)))
			return make_entry(k, b, i);
	}
	return NULL;
}

static bool touches(const struct block *b, uint64_t gpa, unsigned len)
{
	if (b->gpa < gpa + len && gpa < b->gpa + b->dep_len)
		return true;
	return b->len2 && b->gpa2 < gpa + len && gpa < b->gpa2 + b->len2;
}

unsigned cache_invalidate(struct cache *k, uint64_t gpa, unsigned len, bool *left)
{
	unsigned n = 0;
	struct block **slot = page_slot(k, gpa);
	uint64_t page = gpa >> PAGE_SHIFT;

	if (left)
		*left = false;
	for (struct block *b = *slot, *next; b; b = next) {
		next = *page_link(k, b, slot);
		if (touches(b, gpa, len)) {
			cache_drop(k, b);
			n++;
		} else if (left &&
			   (b->gpa >> PAGE_SHIFT == page || (b->len2 && b->gpa2 >> PAGE_SHIFT == page))) {
			*left = true;
		}
	}
	return n;
}

struct block *cache_find_pc(const struct cache *k, uint64_t pc)
{
	if (!cache_contains(k, pc) || k->nblocks == 0)
		return NULL;
	uint32_t off = (uint32_t)(pc - (uint64_t)(uintptr_t)k->rx);
	uint32_t lo = 0, hi = k->nblocks;
	bool cold = off >= k->cold;

	/* Hot starts ascend, cold starts descend, in order of creation. */
	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (cold ? k->blocks[mid].cold_end > off : k->blocks[mid].host <= off)
			lo = mid;
		else
			hi = mid;
	}
	struct block *b = &k->blocks[lo];
	if (cold)
		return off >= b->cold && off < b->cold_end ? b : NULL;
	return off >= b->host && off < b->host_end ? b : NULL;
}

unsigned cache_find_insn(const struct cache *k, const struct block *b, uint64_t pc)
{
	uint32_t off = (uint32_t)(pc - (uint64_t)(uintptr_t)(k->rx + b->host));
	unsigned i = 0;

	while (i + 1u < b->ninsn && b->side[i + 1].host <= off)
		i++;
	return i;
}
