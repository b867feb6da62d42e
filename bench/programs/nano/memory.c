/* Memory: page tables, the TLB, devices in memory, copies, code that is written. */
#include "nano.h"

#define SPARE_ENTRY (USER_SPARE >> 12 & 1023)

static volatile uint32_t *entry(uint32_t page)
{
	return (volatile uint32_t *)spaces[0].user_table + SPARE_ENTRY + page;
}

/* An entry that is not present before and after, in a table that is in use. */
static void pte_write_absent(uint32_t n)
{
	volatile uint32_t *at = entry(100);

	for (uint32_t i = 0; i < n; i++)
		*at = i << 12;
	*at = 0;
}

/* The same with the instructions that a kernel with atomic page tables uses. */
static void pte_exchange_absent(uint32_t n)
{
	volatile uint32_t *at = entry(101);
	uint32_t was = 0;

	for (uint32_t i = 1; i <= n; i++) {
		uint32_t new = i << 12;

		__asm__ volatile("xchgl %0, %1" : "+r"(new), "+m"(*at));
		if (new != was)
			nano_fail("entry", new, was);
		was = i << 12;
	}
	*at = 0;
}

/* Map a page, store to it, take it away. */
static void pte_map_unmap(uint32_t n)
{
	volatile uint32_t *at = entry(0);

	for (uint32_t i = 0; i < n; i++) {
		*at = WORKING_SET | PTE_ALL;
		MEM32(USER_SPARE) = i;
		*at = 0;
		invlpg(USER_SPARE);
	}
}

/* Two frames in turn at one address. */
static void pte_remap(uint32_t n)
{
	volatile uint32_t *at = entry(0);

	MEM32(WORKING_SET) = 1;
	MEM32(WORKING_SET + 4096) = 2;
	for (uint32_t i = 0; i < n; i++) {
		*at = (WORKING_SET + ((i & 1) << 12)) | PTE_ALL;
		invlpg(USER_SPARE);
		if (MEM32(USER_SPARE) != (i & 1) + 1)
			nano_fail("page", MEM32(USER_SPARE), (i & 1) + 1);
	}
	*at = 0;
	invlpg(USER_SPARE);
}

/* What fork does: 64 pages made read-only and flushed; and given back, one by one. */
static void pte_protect_64(uint32_t n)
{
	for (uint32_t i = 0; i < 64; i++) {
		*entry(i) = (WORKING_SET + (i << 12)) | PTE_ALL;
		MEM32(USER_SPARE + (i << 12)) = i;
	}
	for (; n; n--) {
		for (uint32_t i = 0; i < 64; i++)
			*entry(i) &= ~PTE_W;
		set_cr3(space_cr3[0]);
		for (uint32_t i = 0; i < 64; i++) {
			*entry(i) |= PTE_W;
			invlpg(USER_SPARE + (i << 12));
			MEM32(USER_SPARE + (i << 12))++;
		}
	}
	for (uint32_t i = 0; i < 64; i++)
		*entry(i) = 0;
	set_cr3(space_cr3[0]);
}

static void invlpg_mapped(uint32_t n)
{
	MEM32(USER_DATA_) = 0;
	for (; n; n--)
		invlpg(USER_DATA_);
}

static void invlpg_absent(uint32_t n)
{
	for (; n; n--)
		invlpg(USER_SPARE);
}

static void invlpg_touch(uint32_t n)
{
	for (; n; n--) {
		invlpg(USER_DATA_);
		MEM32(USER_DATA_)++;
	}
}

/* All translations of user pages go, and 32 pages are wanted again. */
static void tlb_refill(uint32_t n)
{
	for (; n; n--) {
		set_cr3(space_cr3[0]);
		for (uint32_t i = 0; i < USER_PAGES; i++)
			(void)MEM32(USER_DATA_ + (i << 12));
	}
}

/*
 * A chain through all pages of a working set, each visited once in an order without a pattern: each link
 * misses the TLB once the set is larger than it covers.
 */
static uint32_t chain_pages;

static uint32_t link_at(uint32_t page)
{
	return WORKING_SET + (page << 12) + (page * 192 & 4032);
}

static void chain_make(uint32_t pages)
{
	/* A full period for every power of two: Knuth, TAOCP 2, theorem 3.2.1.2A. */
	for (uint32_t i = 0; i < pages; i++)
		MEM32(link_at(i)) = link_at((i * 1664525 + 1013904223) & (pages - 1));
	chain_pages = pages;
}

static void walk(uint32_t n, uint32_t pages)
{
	uint32_t at, steps = n * 64;

	if (chain_pages != pages)
		chain_make(pages);
	at = link_at(0);
	for (uint32_t i = 0; i < steps; i++)
		at = MEM32(at);
	if (!(steps & (pages - 1)) && at != link_at(0))
		nano_fail("end of the chain", at, link_at(0));
}

static void tlb_walk_1m(uint32_t n)
{
	walk(n, 256);
}

static void tlb_walk_4m(uint32_t n)
{
	walk(n, 1024);
}

static void tlb_walk_32m(uint32_t n)
{
	walk(n, 8192);
}

static bool has_memory(void)
{
	return memory_reaches(MEMORY_NEEDS);
}

static bool has_apic(void)
{
	return cpu_has(CPUID_APIC);
}

static void mmio_read(uint32_t n)
{
	for (; n; n--)
		(void)MEM32(APIC + 0x30); /* the version register */
}

static void mmio_write(uint32_t n)
{
	for (; n; n--)
		MEM32(APIC + 0x80) = 0; /* TPR */
}

/* The kernel reads a word of the user's. */
static void user_word(uint32_t n)
{
	uint32_t sum = 0;

	MEM32(USER_DATA_) = 1;
	for (uint32_t i = 0; i < n; i++)
		sum += MEM32(USER_DATA_);
	if (sum != n)
		nano_fail("sum", sum, n);
}

static void copy(uint32_t n, uint32_t to, uint32_t from)
{
	for (; n; n--) {
		uint32_t count = 1024, source = from, destination = to;

		__asm__ volatile("rep movsl" : "+c"(count), "+S"(source), "+D"(destination) : : "memory");
	}
}

static void copy_kernel_4k(uint32_t n)
{
	copy(n, WORKING_SET, WORKING_SET + 0x10000);
	chain_pages = 0;
}

static void copy_from_user_4k(uint32_t n)
{
	copy(n, WORKING_SET, USER_DATA_ + 0x1000);
	chain_pages = 0;
}

static void copy_to_user_4k(uint32_t n)
{
	copy(n, USER_DATA_ + 0x1000, WORKING_SET);
}

/* mov eax, VALUE; ret */
static uint32_t code_page(void)
{
	static uint32_t page;

	if (!page)
		page = page_new();
	return page;
}

static void write_function(uint32_t at, uint32_t value)
{
	MEM8(at) = 0xb8;
	*(volatile uint32_t *)(at + 1) = value;
	MEM8(at + 5) = 0xc3;
}

static void call_function(uint32_t at, uint32_t want)
{
	uint32_t got = ((uint32_t(*)(void))at)();

	if (got != want)
		nano_fail("value", got, want);
}

/* Only the operand is written. */
static void smc_patch(uint32_t n)
{
	uint32_t at = code_page();

	write_function(at, 0);
	for (uint32_t i = 0; i < n; i++) {
		*(volatile uint32_t *)(at + 1) = i;
		call_function(at, i);
	}
}

/* Data in a page that holds code which runs between the writes. */
static void smc_data_nearby(uint32_t n)
{
	uint32_t at = code_page() + 64;

	write_function(at, 5);
	for (uint32_t i = 0; i < n; i++) {
		MEM32(at + 512) = i;
		call_function(at, 5);
	}
}

/* A new function in place of one that ran, at sixteen places in turn. */
static void smc_generate(uint32_t n)
{
	uint32_t at = code_page() + 2048;

	for (uint32_t i = 0; i < n; i++) {
		write_function(at + (i & 15) * 64, i);
		call_function(at + (i & 15) * 64, i);
	}
}

const struct nano nano_memory[] = {
	{"pte_write_absent", pte_write_absent, 1, false, NULL, NULL, false},
	{"pte_exchange_absent", pte_exchange_absent, 1, false, NULL, NULL, false},
	{"pte_map_unmap", pte_map_unmap, 1, false, NULL, NULL, false},
	{"pte_remap", pte_remap, 1, false, NULL, NULL, false},
	{"pte_protect_64", pte_protect_64, 64, false, NULL, NULL, false},
	{"invlpg_mapped", invlpg_mapped, 1, false, NULL, NULL, false},
	{"invlpg_absent", invlpg_absent, 1, false, NULL, NULL, false},
	{"invlpg_touch", invlpg_touch, 1, false, NULL, NULL, false},
	{"tlb_refill", tlb_refill, USER_PAGES, false, NULL, NULL, false},
	{"tlb_walk_1m", tlb_walk_1m, 64, false, has_memory, NULL, false},
	{"tlb_walk_4m", tlb_walk_4m, 64, false, has_memory, NULL, false},
	{"tlb_walk_32m", tlb_walk_32m, 64, false, has_memory, NULL, false},
	{"mmio_read", mmio_read, 1, false, has_apic, NULL, false},
	{"mmio_write", mmio_write, 1, false, has_apic, NULL, false},
	{"user_word", user_word, 1, false, NULL, NULL, false},
	{"copy_kernel_4k", copy_kernel_4k, 1, false, NULL, NULL, false},
	{"copy_from_user_4k", copy_from_user_4k, 1, false, NULL, NULL, false},
	{"copy_to_user_4k", copy_to_user_4k, 1, false, NULL, NULL, false},
	{"smc_patch", smc_patch, 1, false, NULL, NULL, false},
	{"smc_data_nearby", smc_data_nearby, 1, false, NULL, NULL, false},
	{"smc_generate", smc_generate, 1, false, NULL, NULL, false},
	{0},
};
