/*
 * Two-level 4 KiB paging for the tests: the first 16 MiB mapped at the same address, everything present,
 * writable and open to CPL 3, to be narrowed by the test through pte() and page_directory. Memory from
 * PLAYGROUND on is free for the tests.
 */
#ifndef GUEST_PAGING_H
#define GUEST_PAGING_H

#include "guest.h"

#define PTE_P	0x001u
#define PTE_W	0x002u
#define PTE_U	0x004u
#define PTE_PWT 0x008u
#define PTE_PCD 0x010u
#define PTE_A	0x020u
#define PTE_D	0x040u
#define PTE_PS	0x080u
#define PTE_G	0x100u
#define PTE_ALL (PTE_P | PTE_W | PTE_U)

/* #PF error code (SDM vol. 3A 4.7) */
#define PF_P	       0x01u
#define PF_W	       0x02u
#define PF_U	       0x04u
#define PF_R	       0x08u
#define PF_I	       0x10u

#define MAPPED_TABLES  4u
#define PLAYGROUND     0x400000u
#define PLAYGROUND_END 0x1000000u

extern uint32_t page_directory[1024], page_tables[MAPPED_TABLES][1024];

/* Everything as described above again, in the tables. */
void paging_reset(void);
void paging_on(void);
void paging_off(void);
static inline uint32_t *pte(uint32_t linear)
{
	return &page_tables[linear >> 22][linear >> 12 & 1023];
}
/* Set the entry and make it count. */
static inline void map(uint32_t linear, uint32_t entry)
{
	*(volatile uint32_t *)pte(linear) = entry;
	invlpg(linear);
}

/* A number below n; the same sequence in each run. */
uint32_t any(uint32_t n);
/* Makes what has been changed for a linear address count, in one way or the other. */
void flush(uint32_t linear);

#endif
