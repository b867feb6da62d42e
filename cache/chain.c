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

/* jmp or call, by its opcode */
static void put_rel32(struct cache *k, uint32_t at, uint8_t opcode, uint32_t to)
{
	const uint32_t rel = to - (at + 5);

	k->rw[at] = opcode;
	memcpy(k->rw + at + 1, &rel, 4);
}

static struct block **cross_list(const struct cache *k, uint32_t page)
{
	return &k->cross[page & (CROSS_SIZE - 1)];
}

static void cross_add(struct cache *k, struct block *b)
{
	struct block **list = cross_list(k, b->eip >> PAGE_SHIFT);

	if (b->cross)
		return;
	b->cross = true;
	b->cross_next = *list;
	*list = b;
}

void cross_remove(struct cache *k, struct block *b)
{
	struct block **p = cross_list(k, b->eip >> PAGE_SHIFT);

	if (!b->cross)
		return;
	while (*p != b)
		p = &(*p)->cross_next;
	*p = b->cross_next;
	b->cross = false;
}

void cache_chain(struct cache *k, struct exit_link *e, struct block *to)
{
	assert(!e->to && to->valid);
	if (e->cross || to->len2)
		cross_add(k, to);
	e->to = to;
	e->next = to->incoming;
	e->link = &to->incoming;
	if (e->next)
		e->next->link = &e->next;
	to->incoming = e;
	patch(k, e, to->host);
	k->stats.chains++;
}

void cache_unchain(struct cache *k, struct exit_link *e)
{
	if (!e->to)
		return;
	*e->link = e->next;
	if (e->next)
		e->next->link = e->link;
	e->to = NULL;
	patch(k, e, cache_stub(k, e));
	k->stats.unchains++;
}

/* A return point that is no more than this exit. */
static bool is_ret(const struct ret_point *r, const struct exit_link *e)
{
	return e->patch == r->at + 1;
}

bool ret_by_table(const struct ret_point *r)
{
	for (unsigned i = 0; i < r->b->nexits; i++)
		if (is_ret(r, &r->b->exits[i]))
			return r->b->exits[i].by_table;
	return false;
}

/* What the exit finds in the table shall not be the exit. */
static void detach_rets(struct cache *k, const struct exit_link *e)
{
	const struct block *b = e->from;

	for (unsigned i = 0; i < b->nrets; i++)
		if (is_ret(&b->rets[i], e)) {
			space_redirect(k, b->mode, e->target, b->rets[i].at, CACHE_MISS_STUB);
			recall_forget(k, b, e->target);
		}
}

void cache_exit_by_table(struct cache *k, struct exit_link *e)
{
	const uint32_t bytes = 6 + CACHE_TABLE_JUMP;

	if (!cache_has_room(k, bytes))
		return;
	/* The stub becomes a jump to mov r8d, target and the way through the table. */
	k->cold -= bytes;
	memcpy(k->rw + k->cold, (const uint8_t[]){0x41, 0xb8}, 2);
	memcpy(k->rw + k->cold + 2, &e->target, 4);
	cache_table_jump(k->rw + k->cold + 6, false);
	put_rel32(k, cache_stub(k, e), 0xe9, k->cold);
	e->by_table = true;
	detach_rets(k, e);
}

void cache_put_stub(struct cache *k, const struct exit_link *e)
{
	put_rel32(k, cache_stub(k, e), 0xe8, CACHE_EXIT_STUB);
}

/* jmp rel32 to the miss stub */
void cache_put_miss_jump(struct cache *k, uint32_t at)
{
	put_rel32(k, at, 0xe9, CACHE_MISS_STUB);
}

unsigned cache_table_jump(uint8_t *p, bool call)
{
	/* mov r9d, [r14+r8*4]; jmp or call r9 */
	memcpy(p, (const uint8_t[]){0x47, 0x8b, 0x0c, 0x86, 0x41, 0xff, call ? 0xd1 : 0xe1},
	       CACHE_TABLE_JUMP);
	return CACHE_TABLE_JUMP;
}

unsigned cache_table_ret(uint8_t *p)
{
	/* mov r9d, [r14+r8*4]; mov [rsp], r9; ret */
	memcpy(p, (const uint8_t[]){0x47, 0x8b, 0x0c, 0x86, 0x4c, 0x89, 0x0c, 0x24, 0xc3}, CACHE_TABLE_RET);
	return CACHE_TABLE_RET;
}

void cache_table_jump_undo(const struct cache *k, uint64_t pc, uint64_t *r9, uint64_t *top)
{
	static const uint8_t jump[] = {0x41, 0xff, 0xe1}, call[] = {0x41, 0xff, 0xd1},
			     put[] = {0x4c, 0x89, 0x0c, 0x24}, ret[] = {0xc3};
	const uint8_t *p = (const uint8_t *)(uintptr_t)pc;

	if (!memcmp(p, jump, 3) || !memcmp(p, call, 3) || !memcmp(p, put, 4))
		*r9 = cache_miss(k);
	else if (!memcmp(p, ret, 1))
		*top = cache_miss(k);
}

void cache_unlink_exits(struct cache *k, struct block *b)
{
	for (unsigned i = 0; i < b->nexits; i++)
		cache_unchain(k, &b->exits[i]);
}

static void cut_cross_of(struct cache *k, struct block *b, uint32_t lin, uint32_t pages)
{
	const bool starts = (b->eip - lin) >> PAGE_SHIFT < pages;
	const bool ends = b->len2 && (b->eip + PAGE_SIZE - lin) >> PAGE_SHIFT < pages;

	for (struct exit_link *e = starts || ends ? b->incoming : NULL, *next; e; e = next) {
		next = e->next;
		if (e->cross || ends)
			cache_unchain(k, e);
	}
}

void cache_cut_cross(struct cache *k, uint32_t lin, uint32_t pages)
{
	/* One more: a straddler is in the list of the page that it begins in. */
	const uint32_t first = (lin >> PAGE_SHIFT) - 1, n = pages < CROSS_SIZE ? pages + 1 : CROSS_SIZE;

	for (uint32_t i = 0; i < n; i++)
		for (struct block *b = *cross_list(k, first + i); b; b = b->cross_next)
			cut_cross_of(k, b, lin, pages);
}
