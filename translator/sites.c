/* sites.c - what traps taught about single instructions: a hash from guest-physical address to SITE_* flags.
 *
 * A store that traps on a trace becomes a callout when it traps for the second time. Two things keep that
 * from being wrong for ever and from being learnt for ever:
 *
 * - A callout that finds nothing to do that translated code could not have done is counted. After 64 of them
 *   in a row the site is turned back. If it traps again it becomes a callout at once, and patience doubles,
 *   so that the number of traps grows with the logarithm of the executions at most.
 * - Overwritten code loses what was learnt about it, for other code may stand there now. Where the same has
 * to be learnt anew (an unpacker, a code generator that reuses its buffer) the second lesson outlives the
 * code.
 */
#include "translator/translator.h"

#include <string.h>

#define SITES                                                                                                \
	32768u	  /* a power of two; when three quarters full everything is forgotten (and learnt again)     \
		   */
#define MISSES	   4u /* before a site probes; eight times as many when it was turned back, and then the most */
#define MISSES_MAX 0xffu
/* A probe costs a few cycles each time, which is much in a loop that hardly ever misses. Code that runs much
 * is found in it by the timer's interrupts, at a rate that goes with the time spent there; so what counts is
 * how often the probe was of use between two of them. 200 signals take as long as a tenth of 4 ms, a timer's
 * period, for the probes. */
#define WORTH_HITS   200u
#define PATIENCE     64u
#define PATIENCE_MAX 12u /* doublings */

struct site {
	uint64_t key;  /* gpa << 1 | user, plus 1 << 63 for "used" */
	uint32_t calm; /* callouts in a row that were not needed */
	uint8_t flags;
	uint8_t turned_back; /* how often */
	bool forgotten;	     /* its code was overwritten while it had flags */
	bool lasting;	     /* and it got flags again */
	uint8_t missed;	     /* how often a user page was not there */
	uint16_t hits;	     /* how often the probe found that, since somebody looked */
};

static_assert(SITES <= SITE_INDEX_MAX + 1, "an index fits a callout's argument");

static struct site table[SITES];
static uint32_t used;

/* Which 64 bytes of code have a site, hashed: the translator asks for each instruction, and hardly any has
 * one. Entries come one by one and go all at once. */
#define LINES 32768u
static uint64_t lines[LINES / 64];

static uint32_t line_of(uint64_t gpa)
{
	return (uint32_t)((gpa >> 6) * 0x9e3779b97f4a7c15ull >> 49);
}

static bool line_has_site(uint64_t gpa)
{
	const uint32_t n = line_of(gpa);

	return lines[n / 64] >> n % 64 & 1;
}

static uint64_t key_of(uint64_t gpa, bool user)
{
	return gpa << 1 | user | 1ull << 63;
}

static struct site *find(uint64_t key)
{
	uint32_t h = (uint32_t)(key * 0x9e3779b97f4a7c15ull >> 40) & (SITES - 1);

	while (table[h].key && table[h].key != key)
		h = (h + 1) & (SITES - 1);
	return &table[h];
}

unsigned site_get(uint64_t gpa, bool user)
{
	return line_has_site(gpa) ? find(key_of(gpa, user))->flags : 0;
}

static struct site *find_or_add(uint64_t gpa, bool user)
{
	struct site *s = find(key_of(gpa, user));

	if (s->key)
		return s;
	if (used > SITES / 4 * 3) {
		site_forget_all();
		s = find(key_of(gpa, user));
	}
	s->key = key_of(gpa, user);
	lines[line_of(gpa) / 64] |= 1ull << line_of(gpa) % 64;
	used++;
	return s;
}

void site_add(uint64_t gpa, bool user, unsigned flags)
{
	struct site *s = find_or_add(gpa, user);

	s->flags |= (uint8_t)flags;
	s->calm = 0;
	s->lasting = s->forgotten;
}

bool site_trapped(uint64_t gpa, bool user)
{
	struct site *s = find_or_add(gpa, user);

	if (s->flags & SITE_TRAPPED || s->forgotten || s->turned_back)
		return true;
	s->flags |= SITE_TRAPPED;
	return false;
}

bool site_missed(uint64_t gpa, bool user)
{
	struct site *s = find_or_add(gpa, user);

	if (++s->missed < (s->turned_back < 2 ? MISSES << 3 * s->turned_back : MISSES_MAX))
		return false;
	s->missed = 0;
	s->hits = 0;
	return true;
}

void site_probe_hit(uint32_t index)
{
	table[index].hits += table[index].hits < 0xffff;
}

bool site_probe_sampled(uint64_t gpa, bool user)
{
	struct site *s = find(key_of(gpa, user));
	const bool worth = s->hits >= WORTH_HITS;

	s->hits = 0;
	if (worth || !(s->flags & (SITE_PROBE | SITE_PROBE_W)))
		return false;
	s->flags &= (uint8_t) ~(SITE_PROBE | SITE_PROBE_W);
	if (s->turned_back < PATIENCE_MAX)
		s->turned_back++;
	return true;
}

uint32_t site_index(uint64_t gpa, bool user)
{
	return (uint32_t)(find(key_of(gpa, user)) - table);
}

bool site_callout_done(uint32_t index, bool needed, uint64_t *gpa)
{
	struct site *s = &table[index];

	if (needed || (s->flags & (SITE_CALLOUT | SITE_KEEP)) != SITE_CALLOUT) {
		s->calm = 0;
		return false;
	}
	if (++s->calm < PATIENCE << s->turned_back)
		return false;
	s->calm = 0;
	s->flags &= (uint8_t) ~(SITE_CALLOUT | SITE_TRAPPED);
	if (s->turned_back < PATIENCE_MAX)
		s->turned_back++;
	*gpa = s->key << 1 >> 2;
	return true;
}

void site_forget(uint64_t gpa, unsigned len)
{
	if (!used)
		return;
	/* Entries stay in place (open addressing) with no flags. */
	for (unsigned i = 0; i < len; i++) {
		for (unsigned user = 0; user < 2; user++) {
			struct site *s = find(key_of(gpa + i, user));

			if (!s->flags || s->lasting)
				continue;
			/* One that overwrites itself would never get to its second trap. */
			s->forgotten |= s->flags != SITE_TRAPPED;
			s->flags &= SITE_TRAPPED;
		}
	}
}

void site_forget_all(void)
{
	if (!used)
		return;
	memset(table, 0, sizeof table);
	memset(lines, 0, sizeof lines);
	used = 0;
}

uint64_t site_count(void)
{
	return used;
}
