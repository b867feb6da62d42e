/* cache_rig.h - a translation cache with nothing around it, for the tests of cache/. The real translator
 * makes its blocks from small pieces of guest code. */
#ifndef BT86_TESTS_CACHE_RIG_H
#define BT86_TESTS_CACHE_RIG_H

#include "translator/translator.h"

extern struct cache rig;

/* What new blocks find behind their page: the page's guest-physical address; 0: there is no such page. */
extern uint64_t rig_second_gpa;
/* What the translator knows of loops. */
extern struct loops rig_loops;

/* For a group of tests: an arena of 1 MiB. */
int rig_setup(void **state);
int rig_teardown(void **state);
/* For each of them: no blocks, a second page at 0x9000, no loops. */
int rig_empty(void **state);

/* Translates these bytes, which HLTs follow up to the end of their page. cross: exits may be chained to other
 * pages. */
struct block *rig_block(uint64_t gpa, uint32_t eip, const char *bytes, size_t len, bool cross);
/* For cache_lookup: a straddler's second page is always the one that is asked for. */
bool rig_always(void *opaque, const struct block *b);
/* The arena offset that the branch that an exit patches leads to, and the one that a slot leads to. */
uint32_t rig_leads_to(const struct exit_link *e);
uint32_t rig_slot(const struct space *s, uint32_t eip);

#endif
