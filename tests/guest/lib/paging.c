#include "paging.h"

uint32_t page_directory[1024] __attribute__((aligned(4096)));
uint32_t page_tables[MAPPED_TABLES][1024] __attribute__((aligned(4096)));

/* Paging may be on, so no entry that is in use may be anything but itself for a moment. */
void paging_reset(void)
{
	for (uint32_t i = 0; i < 1024; i++)
		((volatile uint32_t *)page_directory)[i] =
			i < MAPPED_TABLES ? (uint32_t)page_tables[i] | PTE_ALL : 0;
	for (uint32_t i = 0; i < MAPPED_TABLES; i++)
		for (uint32_t j = 0; j < 1024; j++)
			((volatile uint32_t *)page_tables[i])[j] = i << 22 | j << 12 | PTE_ALL;
	if (get_cr0() & CR0_PG)
		set_cr3(get_cr3());
}

void paging_on(void)
{
	paging_reset();
	set_cr3((uint32_t)page_directory);
	set_cr0(get_cr0() | CR0_PG);
}

void paging_off(void)
{
	set_cr0(get_cr0() & ~(CR0_PG | CR0_WP));
	set_cr3(0);
}

uint32_t any(uint32_t n)
{
	static uint32_t seed;

	seed = seed * 1103515245u + 12345u;
	return (seed >> 16) % n;
}

void flush(uint32_t linear)
{
	if (any(2))
		invlpg(linear);
	else
		set_cr3(get_cr3());
}
