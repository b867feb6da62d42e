/* Address spaces: page directories that share the kernel's tables and have a table of user pages of their
 * own. */
#include "nano.h"

#define KERNEL_TABLES 16u /* 64 MiB */

struct space spaces[SPACES];
uint32_t space_cr3[SPACES];

static uint32_t kernel_directory[1024] __attribute__((aligned(4096)));
static uint32_t kernel_tables[KERNEL_TABLES][1024] __attribute__((aligned(4096)));
static uint32_t apic_table[1024] __attribute__((aligned(4096)));
static uint32_t next_page = PLAYGROUND;

/* One instruction, for machines where each costs. */
static void clear_page(uint32_t page)
{
	uint32_t count = 1024;

	__asm__ volatile("rep stosl" : "+c"(count), "+D"(page) : "a"(0) : "memory");
}

uint32_t page_new(void)
{
	uint32_t page = next_page;

	if (page >= WORKING_SET)
		nano_fail("pages", page, WORKING_SET);
	next_page += 4096;
	clear_page(page);
	return page;
}

bool memory_reaches(uint32_t end)
{
	const uint32_t *info = (const uint32_t *)multiboot_info;

	/* Multiboot 3.3: flag 0, mem_upper in KiB from 1 MiB on */
	return (info[0] & 1) && info[2] >= (end - 0x100000) / 1024;
}

static void fill_kernel_tables(void)
{
	uint32_t global = cpu_has(CPUID_PGE) ? PTE_G : 0;

	for (uint32_t i = 0; i < KERNEL_TABLES; i++) {
		for (uint32_t j = 0; j < 1024; j++)
			kernel_tables[i][j] = i << 22 | j << 12 | PTE_P | PTE_W | global;
		kernel_directory[i] = (uint32_t)kernel_tables[i] | PTE_P | PTE_W;
	}
	apic_table[APIC >> 12 & 1023] = APIC | PTE_P | PTE_W | PTE_PCD | global;
	kernel_directory[APIC >> 22] = (uint32_t)apic_table | PTE_P | PTE_W;
}

/* with_pages: memory is found for tables and pages; else those that the space has are used again. */
void space_make(struct space *space, bool with_pages)
{
	static uint32_t code;

	if (!code) {
		code = page_new();
		memcpy((void *)code, user_code, (size_t)(user_code_end - user_code));
	}
	if (with_pages) {
		space->directory = (uint32_t *)page_new();
		space->user_table = (uint32_t *)page_new();
		for (uint32_t i = 0; i < USER_PAGES; i++)
			space->data[i] = page_new();
		space->user_table[1] = page_new() | PTE_ALL;
	}
	for (uint32_t i = 0; i < 1024; i++)
		space->directory[i] = kernel_directory[i];
	space->directory[USER_BASE >> 22] = (uint32_t)space->user_table | PTE_ALL;
	space->user_table[0] = code | PTE_P | PTE_U;
	for (uint32_t i = 0; i < USER_PAGES; i++)
		space->user_table[2 + i] = space->data[i] | PTE_ALL;
}

void spaces_init(void)
{
	fill_kernel_tables();
	for (uint32_t i = 0; i < SPACES; i++) {
		space_make(&spaces[i], true);
		space_cr3[i] = (uint32_t)spaces[i].directory;
	}
	set_cr3(space_cr3[0]);
	set_cr0(get_cr0() | CR0_PG | CR0_WP);
	if (cpu_has(CPUID_PGE))
		set_cr4(get_cr4() | CR4_PGE);
}
