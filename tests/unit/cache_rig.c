/* cache_rig.c - see cache_rig.h. */
#include "cache_rig.h"

#include <string.h>

struct cache rig;
uint64_t rig_second_gpa;
struct loops rig_loops;

int rig_setup(void **state)
{
	char err[100];

	(void)state;
	translate_init();
	return cache_init(&rig, 1 << 20, err, sizeof err);
}

int rig_teardown(void **state)
{
	(void)state;
	cache_destroy(&rig);
	return 0;
}

int rig_empty(void **state)
{
	(void)state;
	cache_flush(&rig);
	rig_second_gpa = 0x9000;
	memset(&rig_loops, 0, sizeof rig_loops);
	return 0;
}

struct block *rig_block(uint64_t gpa, uint32_t eip, const char *bytes, size_t len, bool cross)
{
	static uint8_t page[4096];
	static const uint8_t second[16] = {0x78, 0x56, 0x34, 0x12};
	struct translate_request rq = {.gpa = gpa,
				       .eip = eip,
				       .code = page + (eip & 0xfff),
				       .avail = 4096 - (eip & 0xfff),
				       .second = rig_second_gpa ? second : NULL,
				       .second_gpa = rig_second_gpa,
				       .chain_cross = cross,
				       .loops = &rig_loops};

	memset(page, 0xf4, sizeof page);
	memcpy(page + (eip & 0xfff), bytes, len);
	return translate_block(&rig, &rq);
}

bool rig_always(void *opaque, const struct block *b)
{
	(void)opaque;
	(void)b;
	return true;
}

uint32_t rig_leads_to(const struct exit_link *e)
{
	int32_t rel;

	memcpy(&rel, rig.rx + e->patch, 4);
	return e->patch + 4 + (uint32_t)rel;
}

uint32_t rig_slot(const struct space *s, uint32_t eip)
{
	return s->table[eip] ? s->table[eip] - (uint32_t)(uintptr_t)rig.rx : CACHE_MISS_STUB;
}
