/* recall.c - what branch tables of user code held, page by page, for the spaces that come after.
 *
 * A new address space mostly runs code that others ran before it, from the same frames at the same linear
 * addresses. So each slot that a miss sets in a fleeting space is remembered with its page, which is keyed by
 * (linear page, frame, mode). With its first miss in a page a space gets all of them: by then it is known
 * which frame the page has and that code may be fetched there, and it has been seen to that we hear of it
 * when that changes.
 *
 * What is remembered is at any time what a miss would set: a block that is dropped takes what leads to it
 * along, and a return point that comes into being changes the slot here as it does in tables. A flush of the
 * arena forgets everything. Straddlers depend on one page more: theirs are kept apart, the other frame being
 * part of the key, and the first miss that leads to one gets the others with the same two frames.
 *
 * Nobody tells which of these slots a space uses that got them. So that they do not become more and more, a
 * page is forgotten after it has served RECALL_USES times, and learnt anew.
 */
#include "cache/cache_private.h"

#include <string.h>

/* Whose slots these are. */
struct key {
	uint32_t page, frame, frame2, mode;
};

static struct key key_of(uint64_t gpa, uint32_t eip, uint32_t mode)
{
	return (struct key){eip >> PAGE_SHIFT, (uint32_t)(gpa >> PAGE_SHIFT), NO_FRAME, mode};
}

static struct key key_of_block(const struct block *b)
{
	struct key key = key_of(b->gpa, b->eip, b->mode);

	if (b->len2)
		key.frame2 = (uint32_t)(b->gpa2 >> PAGE_SHIFT);
	return key;
}

static struct recalled **head_of(const struct cache *k, const struct key *key)
{
	const uint32_t h = key->page * 0x9e3779b1u ^ key->frame * 0x85ebca6bu ^ key->frame2 * 0xc2b2ae35u;

	return &k->recall_heads[h >> (32 - RECALL_HEADS_LOG)];
}

static bool is_about(const struct recalled *r, const struct key *key)
{
	return r->page == key->page && r->frame == key->frame && r->frame2 == key->frame2 &&
	       r->mode == key->mode;
}

static struct recalled *find(const struct cache *k, const struct key *key)
{
	struct recalled *r = *head_of(k, key);

	while (r && !is_about(r, key))
		r = r->next;
	return r;
}

static struct recalled *find_block(const struct cache *k, const struct block *b)
{
	const struct key key = key_of_block(b);

	return find(k, &key);
}

static uint16_t *seen_slot(struct space *s, uint32_t page, bool straddlers)
{
	return &s->seen[straddlers][page % CACHE_SEEN];
}

/* What s has under this key; NULL if it has not got it. */
static struct recalled *seen(const struct cache *k, struct space *s, const struct key *key)
{
	const uint16_t i = *seen_slot(s, key->page, key->frame2 != NO_FRAME);

	return i && is_about(&k->recalled[i - 1], key) ? &k->recalled[i - 1] : NULL;
}

static void see(const struct cache *k, struct space *s, const struct recalled *r)
{
	*seen_slot(s, r->page, r->frame2 != NO_FRAME) = (uint16_t)(r - k->recalled + 1);
}

void recall_unseen(struct space *s, uint32_t page, uint64_t pages)
{
	if (pages >= CACHE_SEEN) {
		memset(s->seen, 0, sizeof s->seen);
		return;
	}
	for (uint32_t i = 0; i < pages; i++)
		*seen_slot(s, page + i, false) = *seen_slot(s, page + i, true) = 0;
}

void recall_forget_all(struct cache *k)
{
	memset(k->recall_heads, 0, RECALL_HEADS_BYTES);
	k->nrecalled = 0;
	for (uint32_t i = 0; i < k->nspaces; i++)
		recall_unseen(&k->spaces[i], 0, CACHE_SEEN);
}

static struct recalled *make(struct cache *k, const struct key *key)
{
	if (k->nrecalled == RECALL_PAGES)
		recall_forget_all(k);
	struct recalled *r = &k->recalled[k->nrecalled++], **head = head_of(k, key);

	r->page = key->page;
	r->frame = key->frame;
	r->frame2 = key->frame2;
	r->mode = key->mode;
	r->n = r->uses = 0;
	r->next = *head;
	*head = r;
	return r;
}

/* Where the slot of eip is; r->n if it is not there. */
static unsigned index_of(const struct recalled *r, uint32_t eip)
{
	const uint16_t at = eip & (PAGE_SIZE - 1);
	unsigned i = 0;

	while (i < r->n && r->at[i] != at)
		i++;
	return i;
}

static void put(struct recalled *r, uint32_t eip, uint32_t host)
{
	unsigned i = index_of(r, eip);

	if (i == CACHE_RECALLED)
		i = r->n = 0;
	if (i == r->n)
		r->n++;
	r->at[i] = eip & (PAGE_SIZE - 1);
	r->host[i] = host;
}

static void forget(struct recalled *r, uint32_t eip)
{
	unsigned i = index_of(r, eip);

	if (i == r->n)
		return;
	r->n--;
	r->at[i] = r->at[r->n];
	r->host[i] = r->host[r->n];
}

/* Gives s what is remembered under this key, unless it has it. Returns where the slot of eip leads then; 0 if
 * it had it, or eip is not among it. */
static uint32_t give(struct cache *k, struct space *s, const struct key *key, uint32_t eip)
{
	struct recalled *r = seen(k, s, key) ? NULL : find(k, key);

	if (!r)
		return 0;
	see(k, s, r);
	if (++r->uses > RECALL_USES) {
		r->n = r->uses = 0;
		return 0;
	}
	return space_replay(k, s, r, eip);
}

uint32_t cache_table_recall(struct cache *k, struct space *s, uint64_t gpa, uint32_t eip)
{
	const struct key key = key_of(gpa, eip, s->mode);

	return s->fleeting ? give(k, s, &key, eip) : 0;
}

/* Where what s finds out about this page goes. A page that is new has nothing to give. */
static struct recalled *page_of(struct cache *k, struct space *s, const struct key *key)
{
	struct recalled *r = seen(k, s, key);

	if (!r)
		r = find(k, key);
	if (!r) {
		r = make(k, key);
		see(k, s, r);
	}
	return r;
}

/* The first half of an instruction, for want of the next page: others that have it need not fare so. */
static bool is_half(const struct block *b)
{
	return b->ninsn == 1 && !b->len2 && !((b->eip + b->len) & (PAGE_SIZE - 1));
}

void recall_put(struct cache *k, struct space *s, const struct block *b, uint32_t host)
{
	const struct key key = key_of_block(b);

	if (is_half(b))
		return;
	if (b->len2)
		give(k, s, &key, b->eip);
	put(page_of(k, s, &key), b->eip, host);
}

void recall_redirect(struct cache *k, const struct block *b, uint32_t eip, uint32_t host)
{
	struct recalled *r = find_block(k, b);
	const unsigned i = r ? index_of(r, eip) : 0;

	if (r && i < r->n)
		r->host[i] = host;
}

void recall_forget(struct cache *k, const struct block *b, uint32_t eip)
{
	struct recalled *r = find_block(k, b);

	if (r)
		forget(r, eip);
}

void recall_drop(struct cache *k, const struct block *b)
{
	struct recalled *r = find_block(k, b);

	if (!r)
		return;
	forget(r, b->eip);
	for (const struct block *e = b->entries; e; e = e->entry_next)
		forget(r, e->eip);
	for (unsigned i = 0; i < b->nrets; i++)
		forget(r, b->rets[i].eip);
}
