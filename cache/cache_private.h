/* cache_private.h - shared by the files of this folder only. */
#ifndef BT86_CACHE_PRIVATE_H
#define BT86_CACHE_PRIVATE_H

#include <assert.h>

#include "cache/cache.h"

#define LINES_MIN	 16384u
#define LINES_MAX	 131072u
#define LINE_ITEMS	 15u
#define LINE_FULL	 9u /* items of a line, on the average, with which there are to be more lines */
#define CACHE_LINE_BYTES 64u
/* A block is one item, and has one for each call and each 64 bytes. */
#define ITEMS_OF_BLOCK (1 + CACHE_MAX_CALLS + 6)
#define ITEMS_MAX      (LINES_MAX * (LINE_ITEMS - 2))
#define PAGES_SIZE     CACHE_PAGE_LISTS
#define CROSS_SIZE     4096u
#define MAX_SPACES     192u
#define SPACES_MIN     4u

#define ARENA_FIRST    64u /* where block code begins; below: the stubs for misses and exits */

#define TABLE_BYTES    (1ull << 34) /* four bytes for each EIP; of address space, that is */
#define STRETCH_SLOTS  (CACHE_STRETCH_BYTES / (uint32_t)sizeof(uint32_t))
#define STRETCHES      (uint32_t)(TABLE_BYTES / CACHE_STRETCH_BYTES) /* of a table */
#define STRETCHES_MAX                                                                                        \
	2048u /* mapped at any time, of all tables: at most twice as many mappings of the host */
#define STRETCHES_BYTES (MAX_SPACES * STRETCHES / 8)
#define FORGET_EXACTLY	(1u << 20) /* of code: fewer bytes lose their slots alone though the log is full */
#define STACK_BYTES	32768u
#define LOGS_BYTES	(MAX_SPACES * CACHE_SLOT_LOG * sizeof(uint32_t))

/* Writes a jump to the miss handler, CACHE_MIN_BYTES long, at an arena offset; not at that of the miss stub.
 */
void cache_put_miss_jump(struct cache *k, uint32_t at);
void rets_add(struct cache *k, struct block *b);
void rets_remove(struct cache *k, struct block *b);
/* It goes on through the table, so that no slot may lead to it. */
bool ret_by_table(const struct ret_point *r);
/* Forgets that other pages may lead to b. */
void cross_remove(struct cache *k, struct block *b);
/* The file that stretches of tables are mapped from; nobody can write to it any more. */
int space_make_pattern(struct cache *k);
int space_init_tables(struct cache *k);
/* In all spaces of this mode: the slot of eip, if it leads to from, leads to to. */
void space_redirect(struct cache *k, uint32_t mode, uint32_t eip, uint32_t from, uint32_t to);
void space_destroy_all(struct cache *k);
void space_reset(struct cache *k, struct space *s);
/* Sets the slots of r. Returns where that of eip leads, 0 if it is not one of them. */
uint32_t space_replay(struct cache *k, struct space *s, const struct recalled *r, uint32_t eip);

/* ---- recall.c */
#define RECALL_PAGES	   4096u
#define RECALL_USES	   128u
#define RECALL_HEADS_LOG   12
#define RECALL_HEADS_BYTES ((1u << RECALL_HEADS_LOG) * sizeof(struct recalled *))
#define NO_FRAME	   0xffffffffu

/* A miss has set the slot of b's EIP to host. */
void recall_put(struct cache *k, struct space *s, const struct block *b, uint32_t host);
/* If the slot of eip, in b's page, is remembered: it leads to host now. */
void recall_redirect(struct cache *k, const struct block *b, uint32_t eip, uint32_t host);
/* ... it is not any more. */
void recall_forget(struct cache *k, const struct block *b, uint32_t eip);
/* Forgets what leads into b. */
void recall_drop(struct cache *k, const struct block *b);
void recall_forget_all(struct cache *k);
/* s has nothing of these pages any more. */
void recall_unseen(struct space *s, uint32_t page, uint64_t pages);

#endif
