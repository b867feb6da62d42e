/* Code seen through page tables: stored through another address, frames swapped under it, pages that are not
 * there. */
#include "smc.h"

#define DIRECTORY      (PLAYGROUND + 0x60000) /* and the page behind it */
#define PAE_TABLES     (PLAYGROUND + 0x80000)
#define DIRECT_MAP     0xc0000000u /* all of the mapped memory again, for the kernel alone */
#define PAE_POINTERS   PAE_TABLES
#define PAE_DIRECTORY  (PAE_TABLES + 0x1000)
#define PAE_TABLE      (PAE_TABLES + 0x2000)
#define PAE_DIRECTORY2 (PAE_TABLES + 0x3000)
#define PAE_LINEAR     0x02000000u
#define PAE_LARGE_1    0x00a00000u
#define PAE_LARGE_2    0x00c00000u

static uint32_t direct_tables[MAPPED_TABLES][1024] __attribute__((aligned(4096)));

static uint32_t alias(uint32_t rounds)
{
	uint32_t wrong = 0;

	paging_on();
	map(ALIAS, CODE_PAGE | PTE_ALL);
	for (uint32_t i = 0; i < rounds; i++) {
		emit_return(ALIAS, i);
		serialize();
		wrong += call(CODE_PAGE) != i;
		emit_return(CODE_PAGE, ~i);
		serialize();
		wrong += call(ALIAS) != ~i;
	}
	paging_off();
	return wrong;
}

static uint32_t alias_read_only(uint32_t rounds)
{
	uint32_t wrong = 0;

	paging_on();
	map(ALIAS, CODE_PAGE | PTE_ALL);
	map(CODE_PAGE, CODE_PAGE | PTE_P | PTE_U);
	set_cr0(get_cr0() | CR0_WP);
	for (uint32_t i = 0; i < rounds; i++) {
		emit_return(ALIAS, i);
		serialize();
		wrong += call(CODE_PAGE) != i;
	}
	paging_off();
	return wrong;
}

/* User code, stored by the kernel through its own map of all memory. */
static uint32_t direct_map(uint32_t rounds)
{
	uint32_t wrong = 0;

	paging_on();
	for (uint32_t i = 0; i < MAPPED_TABLES; i++) {
		for (uint32_t j = 0; j < 1024; j++)
			direct_tables[i][j] = i << 22 | j << 12 | PTE_P | PTE_W;
		*(volatile uint32_t *)&page_directory[(DIRECT_MAP >> 22) + i] =
			(uint32_t)direct_tables[i] | PTE_P | PTE_W;
	}
	for (uint32_t i = 0; i < rounds; i++) {
		emit_snippet(DIRECT_MAP + CODE_PAGE, i);
		wrong += call_user(CODE_PAGE) != i;
	}
	paging_off();
	return wrong;
}

static uint32_t by_the_kernel(uint32_t rounds)
{
	uint32_t wrong = 0;

	paging_on();
	for (uint32_t i = 0; i < rounds; i++) {
		emit_snippet(CODE_PAGE, i);
		wrong += call_user(CODE_PAGE) != i;
	}
	paging_off();
	return wrong;
}

/* A second address space: there CODE_PAGE is OTHER_FRAME, and ALIAS is the frame of CODE_PAGE. */
static void make_space(void)
{
	memcpy((void *)DIRECTORY, page_directory, 4096);
	memcpy((void *)(DIRECTORY + 0x1000), page_tables[PLAYGROUND >> 22], 4096);
	MEM32(DIRECTORY + (PLAYGROUND >> 22) * 4) = (DIRECTORY + 0x1000) | PTE_ALL;
	MEM32(DIRECTORY + 0x1000 + (ALIAS >> 12 & 1023) * 4) = CODE_PAGE | PTE_ALL;
	MEM32(DIRECTORY + 0x1000 + (CODE_PAGE >> 12 & 1023) * 4) = OTHER_FRAME | PTE_ALL;
}

static uint32_t other_space(uint32_t rounds)
{
	uint32_t wrong = 0;

	paging_on();
	make_space();
	for (uint32_t i = 0; i < rounds; i++) {
		set_cr3(DIRECTORY);
		emit_return(ALIAS, i);
		emit_return(CODE_PAGE, i + 1);
		wrong += call(CODE_PAGE) != i + 1;
		set_cr3((uint32_t)page_directory);
		wrong += call(CODE_PAGE) != i;
		wrong += call(OTHER_FRAME) != i + 1;
	}
	paging_off();
	return wrong;
}

/* No stores into code at all: the same address is other code in the other space, for CPL 3 as well. */
static uint32_t cr3_switch(uint32_t rounds)
{
	uint32_t wrong = 0;

	paging_on();
	make_space();
	emit_snippet(CODE_PAGE, 1);
	emit_snippet(OTHER_FRAME, 2);
	for (uint32_t i = 0; i < rounds; i++) {
		set_cr3(i & 1 ? DIRECTORY : (uint32_t)page_directory);
		wrong += call_user(CODE_PAGE) != (i & 1) + 1;
	}
	set_cr3((uint32_t)page_directory);
	paging_off();
	return wrong;
}

/* Code copied on write: the page under the code is replaced by a changed copy. */
static uint32_t copied_on_write(uint32_t rounds)
{
	uint32_t wrong = 0;

	paging_on();
	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t from = i & 1 ? OTHER_FRAME : CODE_PAGE, to = i & 1 ? CODE_PAGE : OTHER_FRAME;

		map(ALIAS, from | PTE_ALL);
		emit_return(ALIAS, i);
		wrong += call(ALIAS) != i;
		emit_return(to, i + 100);
		map(ALIAS, to | PTE_ALL);
		wrong += call(ALIAS) != i + 100;
		map(ALIAS, from | PTE_ALL);
		wrong += call(ALIAS) != i;
	}
	paging_off();
	return wrong;
}

/* The entry is changed and invalidated. */
static uint32_t pte_invlpg(uint32_t rounds)
{
	uint32_t wrong = 0;

	paging_on();
	emit_return(CODE_PAGE, 1);
	emit_return(OTHER_FRAME, 2);
	for (uint32_t i = 0; i < rounds; i++) {
		map(ALIAS, (i & 1 ? OTHER_FRAME : CODE_PAGE) | PTE_ALL);
		wrong += call(ALIAS) != (i & 1) + 1;
	}
	paging_off();
	return wrong;
}

/* The entry is changed; until the next flush either frame may be seen, afterwards the new one. */
static uint32_t pte_without_invlpg(uint32_t rounds)
{
	uint32_t wrong = 0;

	paging_on();
	emit_return(CODE_PAGE, 1);
	emit_return(OTHER_FRAME, 2);
	map(ALIAS, CODE_PAGE | PTE_ALL);
	for (uint32_t i = 1; i <= rounds; i++) {
		*(volatile uint32_t *)pte(ALIAS) = (i & 1 ? OTHER_FRAME : CODE_PAGE) | PTE_ALL;
		for (unsigned k = 0; k < 3; k++) {
			uint32_t seen = call(ALIAS);

			wrong += seen != 1 && seen != 2;
		}
		if (i & 2)
			invlpg(ALIAS);
		else
			set_cr3((uint32_t)page_directory);
		wrong += call(ALIAS) != (i & 1) + 1;
	}
	paging_off();
	return wrong;
}

/* mov eax, imm32 with two bytes on the first page; the second page is one of two frames. */
static uint32_t second_page_remapped(uint32_t rounds)
{
	const uint32_t at = ALIAS + 0x1000 - 2;
	uint32_t wrong = 0;

	paging_on();
	map(ALIAS, CODE_PAGE | PTE_ALL);
	MEM16(CODE_PAGE + 0xffe) = 0x11b8;
	MEM32(CODE_PAGE + 0x1000) = 0xc3000022;
	MEM32(OTHER_FRAME) = 0xc3000033;
	for (uint32_t i = 0; i < rounds; i++) {
		map(ALIAS + 0x1000, (i & 1 ? OTHER_FRAME : CODE_PAGE + 0x1000) | PTE_ALL);
		wrong += call(at) != (i & 1 ? 0x3311u : 0x2211u);
	}
	paging_off();
	return wrong;
}

static uint32_t second_page_patched(uint32_t rounds)
{
	const uint32_t at = ALIAS + 0x1000 - 2;
	uint32_t wrong = 0;

	paging_on();
	map(ALIAS, CODE_PAGE | PTE_ALL);
	map(ALIAS + 0x1000, OTHER_FRAME | PTE_ALL);
	MEM16(CODE_PAGE + 0xffe) = 0x11b8;
	MEM32(OTHER_FRAME) = 0xc3000033;
	for (uint32_t i = 0; i < rounds; i++) {
		MEM8(OTHER_FRAME) = i;
		serialize();
		wrong += call(at) != (0x11 | (i & 0xff) << 8);
	}
	paging_off();
	return wrong;
}

/* The second page is not there: #PF for it, at the instruction; then it is, and the instruction runs. */
static uint32_t second_page_not_present(uint32_t rounds)
{
	const uint32_t at = ALIAS + 0x1000 - 2;
	uint32_t wrong = 0;

	paging_on();
	map(ALIAS, CODE_PAGE | PTE_ALL);
	emit_snippet(CODE_PAGE + 0xffe, 0x55aa55);
	for (uint32_t i = 0; i < rounds; i++) {
		map(ALIAS + 0x1000, 0);
		call_user(at);
		wrong += out.vector != X_PF || out.eip != at || out.cr2 != ALIAS + 0x1000;
		map(ALIAS + 0x1000, (CODE_PAGE + 0x1000) | PTE_ALL);
		wrong += call_user(at) != 0x55aa55;
	}
	paging_off();
	return wrong;
}

/* The code is on a page that goes and comes back changed. */
static uint32_t page_out_and_in(uint32_t rounds)
{
	uint32_t wrong = 0;

	paging_on();
	for (uint32_t i = 0; i < rounds; i++) {
		emit_snippet(CODE_PAGE, i);
		map(ALIAS, CODE_PAGE | PTE_ALL);
		wrong += call_user(ALIAS) != i;
		map(ALIAS, 0);
		call_user(ALIAS);
		wrong += out.vector != X_PF || out.cr2 != ALIAS || out.eip != ALIAS;
	}
	paging_off();
	return wrong;
}

/* The first 32 MiB in 2 MiB pages, but for PAE_LINEAR, which the case maps. */
static volatile uint64_t *pae_on(void)
{
	volatile uint64_t *directory = (uint64_t *)PAE_DIRECTORY;

	for (uint32_t at = PAE_POINTERS; at < PAE_POINTERS + 0x4000; at += 4)
		MEM32(at) = 0;
	MEM32(PAE_POINTERS) = PAE_DIRECTORY | PTE_P;
	for (uint32_t i = 0; i < 16; i++)
		directory[i] = i << 21 | PTE_PS | PTE_ALL;
	emit_return(CODE_PAGE, 1);
	emit_return(OTHER_FRAME, 2);
	emit_return(PAE_LARGE_1, 3);
	emit_return(PAE_LARGE_2, 4);
	set_cr4(get_cr4() | CR4_PAE);
	set_cr3(PAE_POINTERS);
	set_cr0(get_cr0() | CR0_PG);
	return directory;
}

static void pae_off(void)
{
	set_cr0(get_cr0() & ~CR0_PG);
	set_cr4(get_cr4() & ~CR4_PAE);
}

static void pae_flush(uint32_t i)
{
	if (i & 2)
		invlpg(PAE_LINEAR);
	else
		set_cr3(PAE_POINTERS);
}

static uint32_t pae_small(uint32_t rounds)
{
	volatile uint64_t *directory = pae_on();
	uint32_t wrong = 0;

	directory[PAE_LINEAR >> 21] = PAE_TABLE | PTE_ALL;
	for (uint32_t i = 0; i < rounds; i++) {
		/* the low half alone: the entry is never half of one frame and half of another */
		MEM32(PAE_TABLE) = (i & 1 ? OTHER_FRAME : CODE_PAGE) | PTE_ALL;
		pae_flush(i);
		wrong += call(PAE_LINEAR) != (i & 1) + 1;
	}
	pae_off();
	return wrong;
}

/* Both halves of the entry in one store. */
static uint32_t pae_cmpxchg8b(uint32_t rounds)
{
	volatile uint64_t *directory = pae_on();
	uint32_t wrong = 0;

	directory[PAE_LINEAR >> 21] = PAE_TABLE | PTE_ALL;
	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t low = MEM32(PAE_TABLE), high = MEM32(PAE_TABLE + 4);
		uint32_t entry = (i & 1 ? OTHER_FRAME : CODE_PAGE) | PTE_ALL;

		__asm__ volatile("lock; cmpxchg8b (%4)"
				 : "+a"(low), "+d"(high)
				 : "b"(entry), "c"(0), "S"(PAE_TABLE)
				 : "memory", "cc");
		pae_flush(i);
		wrong += call(PAE_LINEAR) != (i & 1) + 1;
	}
	pae_off();
	return wrong;
}

static uint32_t pae_large(uint32_t rounds)
{
	volatile uint64_t *directory = pae_on();
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		*(volatile uint32_t *)&directory[PAE_LINEAR >> 21] =
			(i & 1 ? PAE_LARGE_2 : PAE_LARGE_1) | PTE_PS | PTE_ALL;
		pae_flush(i);
		wrong += call(PAE_LINEAR) != (i & 1) + 3;
	}
	pae_off();
	return wrong;
}

/* A pointer to another directory, which counts from the next load of CR3 on. */
static uint32_t pae_pointer(uint32_t rounds)
{
	volatile uint64_t *directory = pae_on();
	uint32_t wrong = 0;

	memcpy((void *)PAE_DIRECTORY2, (void *)PAE_DIRECTORY, 4096);
	directory[PAE_LINEAR >> 21] = PAE_LARGE_1 | PTE_PS | PTE_ALL;
	((volatile uint64_t *)PAE_DIRECTORY2)[PAE_LINEAR >> 21] = PAE_LARGE_2 | PTE_PS | PTE_ALL;
	for (uint32_t i = 0; i < rounds; i++) {
		MEM32(PAE_POINTERS) = (i & 1 ? PAE_DIRECTORY2 : PAE_DIRECTORY) | PTE_P;
		set_cr3(PAE_POINTERS);
		wrong += call(PAE_LINEAR) != (i & 1) + 3;
	}
	pae_off();
	return wrong;
}

static const struct smc_case cases[] = {
	{"alias", alias, 300, 6},
	{"alias-of-read-only", alias_read_only, 300, 3},
	{"direct-map", direct_map, 300, 4},
	{"by-the-kernel", by_the_kernel, 300, 4},
	{"other-address-space", other_space, 200, 6},
	{"cr3-switch", cr3_switch, 200, 0},
	{"copied-on-write", copied_on_write, 200, 6},
	{"pte-invlpg", pte_invlpg, 300, 0},
	{"pte-without-invlpg", pte_without_invlpg, 300, 0},
	{"second-page-remapped", second_page_remapped, 300, 0},
	{"second-page-patched", second_page_patched, 300, 1},
	{"second-page-not-present", second_page_not_present, 200, 0},
	{"page-out-and-in", page_out_and_in, 200, 4},
	{"pae-entry", pae_small, 300, 0, CPUID_PAE},
	{"pae-entry-by-cmpxchg8b", pae_cmpxchg8b, 300, 0, CPUID_PAE},
	{"pae-large-page", pae_large, 300, 0, CPUID_PAE},
	{"pae-directory-pointer", pae_pointer, 300, 0, CPUID_PAE},
};
const struct smc_group smc_pages = {cases, sizeof(cases) / sizeof(cases[0])};
