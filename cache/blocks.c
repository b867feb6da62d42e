/* blocks.c - the block map: lookup by key, by guest-physical page, and by host address. */
#include "cache/cache_private.h"

#include <string.h>

/* Addresses in the same 32 bytes of code have neighbouring heads, which one line of the CPU's cache holds:
 * who translates or runs a block asks for those beside it soon. */
static uint32_t spread(uint32_t h, uint32_t eip)
{
	h ^= h >> 16;
	return h << 3 | (eip >> 2 & 7);
}

static uint32_t hash_of(uint64_t gpa, uint32_t eip, uint32_t mode)
{
	const uint32_t h = (uint32_t)(gpa >> 5) * 0x9e3779b1u;

	return spread(h ^ ((eip >> 5) + mode * 0x85ebca6bu) * 0xc2b2ae35u, eip) & (HASH_SIZE - 1);
}

/* Two pages may share a list; walkers compare addresses anyway. */
static struct block **page_slot(const struct cache *k, uint64_t gpa)
{
	return &k->pages[(gpa >> PAGE_SHIFT) & (PAGES_SIZE - 1)];
}

struct block *cache_lookup(struct cache *k, uint64_t gpa, uint32_t eip, uint32_t mode,
			   bool (*second)(void *opaque, const struct block *b), void *opaque)
{
	struct block *b = k->hash[hash_of(gpa, eip, mode)];

	while (b && (b->gpa != gpa || b->eip != eip || b->mode != mode || (b->len2 && !second(opaque, b))))
		b = b->hash_next;
	return b;
}

static struct ret_point **ret_slot(const struct cache *k, uint32_t eip)
{
	return &k->rets[spread((eip >> 5) * 0x9e3779b1u, eip) & (RETS_SIZE - 1)];
}

struct ret_point *cache_ret_point(const struct cache *k, uint64_t gpa, uint32_t eip, uint32_t mode)
{
	struct ret_point *r = *ret_slot(k, eip);

	while (r && (r->eip != eip || r->b->mode != mode || r->b->gpa + (eip - r->b->eip) != gpa))
		r = r->next;
	return r;
}

static bool no_straddler(void *opaque, const struct block *b)
{
	(void)opaque;
	(void)b;
	return false;
}

void rets_add(struct cache *k, struct block *b)
{
	for (unsigned i = 0; i < b->nrets; i++) {
		struct ret_point *r = &b->rets[i], **slot = ret_slot(k, r->eip);
		assert(r->at + CACHE_MIN_BYTES <= b->host_end);
		r->b = b;
		r->next = *slot;
		*slot = r;
		const struct block *there =
			cache_lookup(k, b->gpa + (r->eip - b->eip), r->eip, b->mode, no_straddler, NULL);
		if (there) {
			space_redirect(k, b->mode, r->eip, there->host, r->at);
			recall_redirect(k, b, r->eip, (uint32_t)(uintptr_t)k->rx + r->at);
		}
	}
}

void rets_remove(struct cache *k, struct block *b)
{
	for (unsigned i = 0; i < b->nrets; i++) {
		struct ret_point **p = ret_slot(k, b->rets[i].eip);
		while (*p != &b->rets[i])
			p = &(*p)->next;
		*p = b->rets[i].next;
	}
}

static void hash_add(struct cache *k, struct block *b)
{
	struct block **slot = &k->hash[hash_of(b->gpa, b->eip, b->mode)];

	b->hash_next = *slot;
	*slot = b;
}

static void hash_remove(struct cache *k, struct block *b)
{
	struct block **p = &k->hash[hash_of(b->gpa, b->eip, b->mode)];

	while (*p != b)
		p = &(*p)->hash_next;
	*p = b->hash_next;
}

/* ---- which code is inside a block */

static uint32_t covered_bit(uint64_t gpa)
{
	return (uint32_t)((gpa >> 5) * 0x9e3779b97f4a7c15ull >> 32) & (COVERED_BITS - 1);
}

static void cover(struct cache *k, const struct block *b)
{
	for (uint64_t at = b->gpa; at >> 5 <= (b->gpa + b->len - 1) >> 5; at += 32)
		k->covered[covered_bit(at) / 64] |= 1ull << covered_bit(at) % 64;
}

static bool perhaps_covered(const struct cache *k, uint64_t gpa)
{
	return k->covered[covered_bit(gpa) / 64] >> covered_bit(gpa) % 64 & 1;
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
	cover(k, b);
	b->valid = true;
	k->stats.blocks_made++;
	k->stats.blocks_now++;
	k->stats.guest_insns += b->ninsn;
	k->stats.guest_bytes += b->len;
	k->stats.host_bytes += b->host_end - b->host;
	k->stats.cold_bytes += b->cold_end - b->cold + b->nexits * CACHE_STUB_BYTES;
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

static bool begins_part(const struct block *b, unsigned i)
{
	return b->side[i - 1].flags & SIDE_PART;
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
			return b->side[i].esp_delta || (b->prologue && !begins_part(b, i)) ? 0 : i;
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
	struct block *e = &k->entries[k->nentries++];

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
	struct block **slot = page_slot(k, gpa);

	if (k->nentries == k->max_entries || !perhaps_covered(k, gpa))
		return NULL;
	for (struct block *b = *slot; b; b = *page_link(k, b, slot)) {
		const uint32_t guest = eip - b->eip;
		if (guest - 1 >= b->len - 1u || b->gpa + guest != gpa || b->mode != mode || b->len2)
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
