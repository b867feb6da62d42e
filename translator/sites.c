/* sites.c - what traps taught about single instructions: a hash from guest-physical address to SITE_* flags.
 */
#include "translator/translator.h"

#include <string.h>

#define SITES 32768u /* a power of two; when three quarters full everything is forgotten (and learnt again)  \
		      */

struct site {
	uint64_t key; /* gpa << 1 | user, plus 1 << 63 for "used" */
	uint8_t flags;
};

static struct site table[SITES];
static uint32_t used;

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
	return find(key_of(gpa, user))->flags;
}

void site_add(uint64_t gpa, bool user, unsigned flags)
{
	struct site *s = find(key_of(gpa, user));

	if (!s->key) {
		if (used > SITES / 4 * 3) {
			site_forget_all();
			s = find(key_of(gpa, user));
		}
		s->key = key_of(gpa, user);
		used++;
	}
	s->flags |= (uint8_t)flags;
}

void site_forget(uint64_t gpa, unsigned len)
{
	if (!used)
		return;
	/* Entries stay in place (open addressing) with no flags. */
	for (unsigned i = 0; i < len; i++)
		for (unsigned user = 0; user < 2; user++)
			find(key_of(gpa + i, user))->flags = 0;
}

void site_forget_all(void)
{
	memset(table, 0, sizeof table);
	used = 0;
}

uint64_t site_count(void)
{
	return used;
}
