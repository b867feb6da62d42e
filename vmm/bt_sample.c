/* bt_sample.c - what can be told from where the guest's timer interrupts translated code.
 *
 * A kick remembers the block that it found the PC in (bt_signal.c). What runs for long enough to be found
 * there is looked at once more: whether its probes are worth their time, and whether it lies well. A branch
 * that is taken to another page costs the host one or two cycles more than one within a page, and a loop that
 * calls functions takes four of them. Blocks lie in the order in which they were made: a loop that was made
 * anew does not lie where the functions are that it calls. So all blocks of the few pages of code that run
 * are dropped, their loop is translated at once, in one piece, and what it calls comes to lie behind it.
 */
#include "vmm/bt.h"

/* Of a block: whether any was not worth its time. */
static bool turn_probes_back(struct bt *bt, const struct block *b)
{
	const bool user = b->mode & MODE_USER;
	bool any = false;

	for (unsigned i = 0; b->probes && i < b->ninsn; i++) {
		if (!site_probe_sampled(b->gpa + b->side[i].guest, user))
			continue;
		bt->st.probes_turned_back++;
		any = true;
	}
	return any;
}

/* The exit that leads back to the beginning of the shortest loop that b is the end of; NULL if it is of none.
 */
static const struct exit_link *loop_end(const struct block *b)
{
	const struct exit_link *end = NULL;

	for (unsigned i = 0; i < b->nexits; i++) {
		const struct exit_link *e = &b->exits[i];

		if (bt_leads_back(e) && !e->cross && (!end || e->target > end->target))
			end = e;
	}
	return end;
}

/* The end of a loop that begins in another block. (The kick has unchained it.) */
static bool is_split(struct bt *bt, const struct block *b, const struct exit_link *end)
{
	const struct block *to =
		end ? cache_lookup(&bt->k, b->gpa + (end->target - b->eip), end->target, b->mode, NULL, NULL)
		    : NULL;

	return to && to->host - b->host >= b->host_end - b->host;
}

static void note_loop(struct bt *bt, const struct block *b, const struct exit_link *end)
{
	if (!end && !loop_known(&bt->loops, b->gpa))
		return;
	bt->hot.loop = end ? end->target : b->eip;
	bt->hot.loop_gpa = b->gpa + (bt->hot.loop - b->eip);
	bt->hot.loop_mode = b->mode;
}

/* Notes where b was found. It says at once whether code runs that lies apart, as far as the last samples
 * tell: in several pages of the host. */
static bool note_place(struct bt *bt, const struct block *b)
{
	struct hot_code *h = &bt->hot;
	const struct hot_place here = {
		.gfn = b->gpa >> PAGE_SHIFT, .host = bt->sampled_host, .mode = b->mode, .used = true};
	bool known = false, apart = false;

	for (unsigned i = 0; i < HOT_PLACES; i++) {
		const struct hot_place *p = &h->place[i];

		if (!p->used || p->mode != here.mode)
			continue;
		known |= p->gfn == here.gfn;
		apart |= p->host != here.host;
	}
	h->place[bt->samples++ % HOT_PLACES] = here;
	h->n = known ? h->n + 1 : 0;
	if (!known)
		h->loop = 0;
	return apart;
}

/* When what the samples find is known to them for so long, it is laid anew if it lies apart. Where that has
 * happened a few times within a short time it may not fit into a page: then it takes twice as long each time.
 */
#define SAMPLES_APART  4u
#define LAID_FREELY    3u
#define LAID_MAX       10u
#define LAID_FORGOTTEN 64u /* samples */

static bool for_long(struct bt *bt, const struct block *b)
{
	struct code_page *p = &bt->code_pages[b->gpa >> PAGE_SHIFT];
	const uint8_t now = (uint8_t)(bt->samples / LAID_FORGOTTEN), since = (uint8_t)(now - p->laid_at);
	const unsigned laid = p->laid > since ? p->laid - since : 0;

	if (bt->hot.n < SAMPLES_APART << (laid > LAID_FREELY ? laid - LAID_FREELY : 0))
		return false;
	p->laid = (uint8_t)(laid < LAID_MAX ? laid + 1 : laid);
	p->laid_at = now;
	return true;
}

#define LAID_TOGETHER (PAGE_SIZE / 2) /* what the blocks are thought to take */

/* The code in the page of b, or in all that the samples tell of. */
static void lay_anew(struct bt *bt, const struct block *b, bool all)
{
	struct hot_code *h = &bt->hot;
	const uint64_t gfn = b->gpa >> PAGE_SHIFT;
	const uint32_t mode = b->mode;

	for (unsigned i = 0; i < HOT_PLACES; i++) {
		struct hot_place *p = &h->place[i];

		if (!p->used || p->mode != mode || (p->gfn != gfn && !all))
			continue;
		cache_invalidate(&bt->k, p->gfn << PAGE_SHIFT, PAGE_SIZE, NULL);
		p->used = false;
	}
	cache_begin_page(&bt->k, LAID_TOGETHER);
	bt->gen++;
	bt->st.laid_anew++;
	if (h->loop && h->loop_mode == mode && mode == bt->c->hot.cur->mode)
		bt_make_loop(bt, h->loop_gpa, h->loop);
	h->loop = h->n = 0;
}

void bt_look_at_sample(struct bt *bt)
{
	const struct block *b = bt->sampled;

	bt->sampled = NULL;
	if (!b->valid)
		return;
	const struct exit_link *end = loop_end(b);
	const bool apart = note_place(bt, b) || is_split(bt, b, end);

	note_loop(bt, b, end);
	if (turn_probes_back(bt, b))
		lay_anew(bt, b, false);
	else if (apart && for_long(bt, b))
		lay_anew(bt, b, true);
}
