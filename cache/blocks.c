/* blocks.c - the block map: lookup by key, by guest-physical page, and by host address. */
#include "cache/cache_private.h"

#include <string.h>

static uint32_t hash_of(uint64_t gpa, uint32_t eip, uint32_t mode)
{
	uint32_t h = (uint32_t)gpa * 0x9e3779b1u;

	h ^= (eip + mode * 0x85ebca6bu) * 0xc2b2ae35u;
	return (h ^ h >> 16) & (HASH_SIZE - 1);
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

struct block *cache_new(struct cache *k)
{
	assert(k->nblocks < k->max_blocks);
	struct block *b = &k->blocks[k->nblocks];

	memset(b, 0, sizeof *b);
	b->side = &k->sides[k->nsides];
	b->exits = &k->exits[k->nexits];
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
	k->hot = (b->host_end + 15) & ~15u;
	k->cold = b->cold;
	for (unsigned i = 0; i < b->nexits; i++)
		b->exits[i].from = b;
	uint32_t h = hash_of(b->gpa, b->eip, b->mode);
	b->hash_next = k->hash[h];
	k->hash[h] = b;
	struct block **p = page_slot(k, b->gpa);
	b->page_next[0] = *p;
	*p = b;
	if (b->len2) {
		p = page_slot(k, b->gpa2);
		assert(p != page_slot(k, b->gpa));
		b->page_next[1] = *p;
		*p = b;
	}
	b->valid = true;
	k->stats.blocks_made++;
	k->stats.blocks_now++;
	k->stats.guest_insns += b->ninsn;
	k->stats.guest_bytes += b->len;
	k->stats.host_bytes += b->host_end - b->host;
	k->stats.cold_bytes += b->cold_end - b->cold;
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
 * flush because the return stack may hold its landing pad, and because the CPU may be in it right now. What
 * comes through tables, with the target in r8d, finds a jump to the miss handler at its start. */
static void poison_entries(struct cache *k, struct block *b)
{
	assert(b->host_end - b->host >= CACHE_MIN_BYTES);
	cache_put_miss_jump(k, b->host);
	/* jmp rel32 to the mismatch path, which looks the address up */
	for (unsigned i = 0; i < b->npads; i++) {
		uint8_t p[5] = {0xe9};
		int32_t rel = (int32_t)(b->pads[i].miss - (b->pads[i].at + 5));
		memcpy(p + 1, &rel, 4);
		memcpy(k->rw + b->pads[i].at, p, sizeof p);
	}
}

void cache_drop(struct cache *k, struct block *b)
{
	if (!b->valid)
		return;
	struct block **p = &k->hash[hash_of(b->gpa, b->eip, b->mode)];
	while (*p != b)
		p = &(*p)->hash_next;
	*p = b->hash_next;
	page_unlink(k, b, b->gpa);
	if (b->len2)
		page_unlink(k, b, b->gpa2);
	while (b->incoming)
		cache_unchain(k, b->incoming);
	cache_unlink_exits(k, b);
	poison_entries(k, b);
	b->valid = false;
	k->stats.blocks_dropped++;
	k->stats.blocks_now--;
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
