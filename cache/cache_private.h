/* cache_private.h - shared by the files of this folder only. */
#ifndef BT86_CACHE_PRIVATE_H
#define BT86_CACHE_PRIVATE_H

#include <assert.h>

#include "cache/cache.h"

#define HASH_SIZE  65536u
#define PAGES_SIZE 16384u
#define MAX_SPACES 192u

#define TABLE_ENTRIES 65536u
#define TABLE_BYTES   (TABLE_ENTRIES * 8u)
#define STACK_BYTES   32768u

int space_init_tables(struct cache *k);
void space_destroy_all(struct cache *k);
void space_reset(struct cache *k, struct space *s);

#endif
