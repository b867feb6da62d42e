/* chain.c - patching exits: the rel32 of a jmp, jcc or call leads to the exit's stub or to a block's body. */
#include "cache/cache_private.h"

#include <string.h>

static void patch(struct cache *k, const struct exit_link *e, uint32_t dest)
{
	int32_t rel = (int32_t)(dest - (e->patch + 4));

	/* One aligned-enough store: the vCPU thread is the only one that runs this code, and it is not in it
	 * now. */
	memcpy(k->rw + e->patch, &rel, 4);
}

void cache_chain(struct cache *k, struct exit_link *e, struct block *to)
{
	assert(!e->to && to->valid);
	e->to = to;
	e->next = to->incoming;
	to->incoming = e;
	patch(k, e, to->body);
	k->stats.chains++;
}

void cache_unchain(struct cache *k, struct exit_link *e)
{
	if (!e->to)
		return;
	struct exit_link **p = &e->to->incoming;
	while (*p != e)
		p = &(*p)->next;
	*p = e->next;
	e->to = NULL;
	patch(k, e, e->stub);
	k->stats.unchains++;
}

void cache_exit_by_table(struct cache *k, struct exit_link *e)
{
	/* mov r9d, N; jmp [r15 + go_exit]   ->   jmp [r14 + slot]   (the mov r8d, target before it stays) */
	uint8_t j[7] = {0x41, 0xff, 0xa6};
	uint32_t slot = cache_slot(e->target) * 8;

	memcpy(j + 3, &slot, 4);
	memcpy(k->rw + e->stub + 6, j, sizeof j);
	e->by_table = true;
}

void cache_unlink_exits(struct cache *k, struct block *b)
{
	for (unsigned i = 0; i < b->nexits; i++)
		cache_unchain(k, &b->exits[i]);
}

void cache_cut_cross(struct cache *k, uint32_t lin, uint32_t pages)
{
	for (uint32_t i = 0; i < k->nblocks; i++) {
		struct block *b = &k->blocks[i];
		bool starts = (b->eip - lin) >> PAGE_SHIFT < pages;
		bool ends = b->len2 && (b->eip + PAGE_SIZE - lin) >> PAGE_SHIFT < pages;
		if (!b->valid || (!starts && !ends))
			continue;
		for (struct exit_link *e = b->incoming, *next; e; e = next) {
			next = e->next;
			if (e->cross || ends)
				cache_unchain(k, e);
		}
	}
}
