#include "paging.h"

uint32_t page_directory[1024] __attribute__((aligned(4096)));
uint32_t page_tables[MAPPED_TABLES][1024] __attribute__((aligned(4096)));

void paging_reset(void)
{
	memset(page_directory, 0, sizeof(page_directory));
	for (uint32_t i = 0; i < MAPPED_TABLES; i++) {
		page_directory[i] = (uint32_t)page_tables[i] | PTE_ALL;
		for (uint32_t j = 0; j < 1024; j++)
			page_tables[i][j] = i << 22 | j << 12 | PTE_ALL;
	}
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
