/*
 * Mappings that change: what software may rely on after the invalidation that the manual asks for (SDM vol.
 * 3A 4.10.4), page tables that map themselves or are shared, and page tables that stop being any.
 */
#include "paging.h"

#define LINEAR	  0x02000000u /* beyond the identity map: its table is the test's */
#define TABLE	  (PLAYGROUND + 0x10000)
#define TABLE_2	  (PLAYGROUND + 0x11000)
#define DIRECTORY (PLAYGROUND + 0x12000)
#define FRAME(n)  (PLAYGROUND + 0x20000 + (n)*0x1000)
#define ROUNDS	  2000u

static void set_pde(uint32_t linear, uint32_t entry)
{
	*(volatile uint32_t *)&page_directory[linear >> 22] = entry;
	set_cr3(get_cr3());
}

/* mov eax, value; ret at a physical frame */
static void plant_function(uint32_t at, uint32_t value)
{
	MEM8(at) = 0xb8;
	MEM32(at + 1) = value;
	MEM8(at + 5) = 0xc3;
}

static uint32_t call(uint32_t at)
{
	uint32_t result;

	__asm__ volatile("call *%1" : "=a"(result) : "r"(at) : "ecx", "edx", "memory", "cc");
	return result;
}

CODE(read, "", "movl (%ebx), %eax");
CODE(write, "", "movl %eax, (%ebx)");
CODE(fetch, "", "jmp *%ebx");

static void remap_data(void)
{
	uint32_t wrong = 0;

	set_pde(LINEAR, TABLE | PTE_ALL);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(TABLE) = FRAME(i % 7) | PTE_ALL;
		invlpg(LINEAR);
		MEM32(LINEAR) = i;
		wrong += MEM32(FRAME(i % 7)) != i;
	}
	check("data remapped, invlpg", wrong, 0);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(TABLE) = FRAME(i % 7) | PTE_ALL;
		set_cr3(get_cr3());
		MEM32(LINEAR) = i;
		wrong += MEM32(FRAME(i % 7)) != i;
	}
	check("data remapped, cr3", wrong, 0);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(TABLE) = 0;
		invlpg(LINEAR);
		in.ebx = LINEAR;
		run(&read);
		wrong += out.vector != X_PF || out.error != 0 || out.cr2 != LINEAR;
		MEM32(TABLE) = FRAME(i % 7) | PTE_ALL;
		in.ebx = LINEAR;
		in.eax = i;
		run(&write);
		wrong += out.vector != DONE_VECTOR || MEM32(FRAME(i % 7)) != i;
	}
	check("data taken away and given back", wrong, 0);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(TABLE) = FRAME(0) | PTE_P | PTE_U;
		invlpg(LINEAR);
		user_mode();
		in.ebx = LINEAR;
		run(&write);
		wrong += out.vector != X_PF || out.error != (PF_P | PF_W | PF_U);
		/* what a copy-on-write fault does */
		MEM32(TABLE) = FRAME(i % 6 + 1) | PTE_ALL;
		invlpg(LINEAR);
		user_mode();
		in.ebx = LINEAR;
		in.eax = i;
		run(&write);
		wrong += out.vector != DONE_VECTOR || MEM32(FRAME(i % 6 + 1)) != i;
	}
	check("copy on write", wrong, 0);
}

static void remap_code(void)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < 7; i++) {
		memset((void *)FRAME(i), 0, 4096);
		plant_function(FRAME(i), i * 3);
	}
	set_pde(LINEAR, TABLE | PTE_ALL);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(TABLE) = FRAME(i % 7) | PTE_ALL;
		invlpg(LINEAR);
		wrong += call(LINEAR) != i % 7 * 3;
	}
	check("code remapped, invlpg", wrong, 0);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(TABLE) = FRAME(i % 7) | PTE_ALL;
		set_cr3(get_cr3());
		wrong += call(LINEAR) != i % 7 * 3;
	}
	check("code remapped, cr3", wrong, 0);

	/* the page directory's entry instead */
	memset((void *)TABLE_2, 0, 4096);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(TABLE) = FRAME(1) | PTE_ALL;
		MEM32(TABLE_2) = FRAME(2) | PTE_ALL;
		set_pde(LINEAR, (i & 1 ? TABLE_2 : TABLE) | PTE_ALL);
		wrong += call(LINEAR) != (i & 1 ? 6 : 3);
	}
	check("code remapped by its directory entry", wrong, 0);

	/* two address spaces */
	memcpy((void *)DIRECTORY, page_directory, 4096);
	MEM32(DIRECTORY + (LINEAR >> 22) * 4) = TABLE | PTE_ALL;
	set_pde(LINEAR, TABLE_2 | PTE_ALL);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		set_cr3(i & 1 ? DIRECTORY : (uint32_t)page_directory);
		wrong += call(LINEAR) != (i & 1 ? 3 : 6);
	}
	check("code in two address spaces", wrong, 0);
	/* the other space's page changes while it is not loaded */
	for (uint32_t i = 0; i < ROUNDS; i++) {
		set_cr3((uint32_t)page_directory);
		wrong += call(LINEAR) != 6;
		MEM32(TABLE) = FRAME(i % 7) | PTE_ALL;
		plant_function(FRAME(i % 7) + 16, i);
		plant_function(FRAME(2), 6);
		set_cr3(DIRECTORY);
		wrong += call(LINEAR + 16) != i;
	}
	check("code of a space that is not loaded changes", wrong, 0);
	set_cr3((uint32_t)page_directory);

	/* from under the code: a page that is absent, then there, again and again */
	set_pde(LINEAR, TABLE | PTE_ALL);
	plant_function(FRAME(3), 9);
	MEM8(FRAME(3) + 32) = 0xcd;
	MEM8(FRAME(3) + 33) = DONE_VECTOR;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(TABLE) = FRAME(3) | PTE_ALL;
		invlpg(LINEAR);
		wrong += call(LINEAR) != 9;
		MEM32(TABLE) = 0;
		invlpg(LINEAR);
		in.ebx = LINEAR + 32;
		run(&fetch);
		wrong += out.vector != X_PF || out.eip != LINEAR + 32 || out.cr2 != LINEAR + 32;
		MEM32(TABLE) = FRAME(3) | PTE_P;
		user_mode();
		in.ebx = LINEAR + 32;
		run(&fetch);
		wrong += out.vector != X_PF || out.error != (PF_P | PF_U);
		in.ebx = LINEAR + 32;
		run(&fetch);
		wrong += out.vector != DONE_VECTOR;
	}
	check("code taken away and given back", wrong, 0);

	/* an instruction across two pages, the second remapped: mov eax, imm32 at the edge */
	for (uint32_t i = 0; i < 7; i++) {
		MEM8(FRAME(i)) = i;
		MEM16(FRAME(i) + 1) = 0x5a00 + i;
		MEM8(FRAME(i) + 3) = 0xc3;
	}
	MEM8(FRAME(4) + 0xffe) = 0xb8;
	MEM8(FRAME(4) + 0xfff) = 0x77;
	MEM32(TABLE) = FRAME(4) | PTE_ALL;
	invlpg(LINEAR);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(TABLE + 4) = FRAME(i % 3) | PTE_ALL;
		invlpg(LINEAR + 0x1000);
		wrong += call(LINEAR + 0xffe) != (0x5a000077 | (i % 3) << 16 | (i % 3) << 8);
	}
	check("instruction across a remapped page", wrong, 0);
	MEM32(TABLE + 4) = 0;
	invlpg(LINEAR + 0x1000);
	in.ebx = LINEAR + 0xffe;
	expect_vector("instruction across a missing page", &fetch, X_PF, 0, (void *)(LINEAR + 0xffe));
	check("  cr2", out.cr2, LINEAR + 0x1000);
}

/* The directory as its own last table: directory at fffff000, tables from ffc00000. */
static void self_map(void)
{
	volatile uint32_t *directory = (uint32_t *)0xfffff000;
	volatile uint32_t *tables = (uint32_t *)0xffc00000;
	uint32_t wrong = 0;

	paging_reset();
	set_pde(0xffc00000, (uint32_t)page_directory | PTE_P | PTE_W);
	check("self map: its own entry", directory[1023] & ~(PTE_A | PTE_D),
	      (uint32_t)page_directory | PTE_P | PTE_W);
	check("  a d", directory[1023] & (PTE_A | PTE_D), PTE_A);
	check("self map: a table's entry", tables[PLAYGROUND >> 12] & 0xfffff000, PLAYGROUND);
	memset((void *)TABLE, 0, 4096);
	directory[LINEAR >> 22] = TABLE | PTE_ALL;
	check("  d on the directory", directory[1023] & (PTE_A | PTE_D), PTE_A | PTE_D);
	check("a new table, through the map", tables[LINEAR >> 12], 0);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		uint32_t page = LINEAR + i % 512 * 0x1000;

		tables[page >> 12] = FRAME(i % 5) | PTE_ALL;
		invlpg(page);
		MEM32(page) = i;
		wrong += MEM32(FRAME(i % 5)) != i;
		wrong += (MEM32(TABLE + i % 512 * 4) & (PTE_A | PTE_D)) != (PTE_A | PTE_D);
	}
	check("pages mapped through the map", wrong, 0);
	user_mode();
	in.ebx = 0xfffff000;
	expect_fault("the map at cpl 3", &read, X_PF, PF_P | PF_U);
	directory[LINEAR >> 22] = 0;
	set_cr3(get_cr3());
	in.ebx = LINEAR;
	expect_fault("table taken away through the map", &read, X_PF, 0);
	in.ebx = (uint32_t)&tables[LINEAR >> 12];
	expect_fault("  and the map's view of it", &read, X_PF, 0);

	/* a page that is a table at one address and a directory at the root: the same entry at both levels */
	directory[LINEAR >> 22] = (uint32_t)page_directory | PTE_ALL;
	set_cr3(get_cr3());
	check("directory as a table maps the tables", MEM32(LINEAR + 0x1000) & 0xfffff000, PLAYGROUND);
	paging_reset();
}

static void shared_table(void)
{
	uint32_t wrong = 0;

	memset((void *)TABLE, 0, 4096);
	set_pde(LINEAR, TABLE | PTE_ALL);
	set_pde(LINEAR + 0x400000, TABLE | PTE_P | PTE_U);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(TABLE + 12) = FRAME(i % 7) | PTE_ALL;
		invlpg(LINEAR + 0x3000);
		invlpg(LINEAR + 0x403000);
		MEM32(LINEAR + 0x3000) = i;
		wrong += MEM32(LINEAR + 0x403000) != i;
	}
	check("one table under two entries", wrong, 0);
	user_mode();
	in.ebx = LINEAR + 0x403000;
	expect_fault("  the second is read-only", &write, X_PF, PF_P | PF_W | PF_U);
	user_mode();
	in.ebx = LINEAR + 0x3000;
	expect_done("  the first is not", &write);
	paging_reset();
}

/* A table that is let go, becomes data (with values that look like entries), becomes a table again. */
static void reused_table(void)
{
	uint32_t wrong = 0;

	for (uint32_t round = 0; round < 200; round++) {
		memset((void *)TABLE, 0, 4096);
		MEM32(TABLE) = FRAME(1) | PTE_ALL;
		set_pde(LINEAR, TABLE | PTE_ALL);
		MEM32(LINEAR) = round;
		wrong += MEM32(FRAME(1)) != round;
		set_pde(LINEAR, 0);
		for (uint32_t i = 0; i < 1024; i++)
			MEM32(TABLE + 4 * i) = (i * 0x01000193u + round) | (i & 1 ? PTE_ALL : 0);
		for (uint32_t i = 0; i < 1024; i++)
			wrong += MEM32(TABLE + 4 * i) != ((i * 0x01000193u + round) | (i & 1 ? PTE_ALL : 0));
		in.ebx = LINEAR;
		run(&read);
		wrong += out.vector != X_PF || out.error != 0;
		/* no A or D may appear in what is data now */
		wrong += MEM32(TABLE) != round;
	}
	check("table as data as table", wrong, 0);

	/* a table that is changed while it is in use, by plain stores of all sizes and by string instructions
	 */
	memset((void *)TABLE, 0, 4096);
	set_pde(LINEAR, TABLE | PTE_ALL);
	for (uint32_t i = 0; i < 16; i++)
		MEM32(FRAME(i)) = 0x100 + i;
	wrong = 0;
	for (uint32_t i = 0; i < 500; i++) {
		uint32_t n = i % 16;

		switch (i % 5) {
		case 0:
			MEM32(TABLE) = FRAME(n) | PTE_ALL;
			break;
		case 1:
			MEM32(TABLE) = FRAME(0) | PTE_ALL;
			MEM16(TABLE + 1) = (FRAME(n) >> 8) & 0xffff;
			break;
		case 2:
			MEM32(TABLE) = FRAME(0);
			MEM32(TABLE) |= FRAME(n);
			__asm__ volatile("lock; orl $7, (%0)" : : "r"(TABLE) : "memory", "cc");
			break;
		case 3: {
			uint32_t entry = FRAME(n) | PTE_ALL, count = 1, from = (uint32_t)&entry, to = TABLE;

			__asm__ volatile("rep movsl" : "+c"(count), "+S"(from), "+D"(to) : : "memory");
			break;
		}
		default: {
			uint32_t entry = FRAME(n) | PTE_ALL;

			__asm__ volatile("xchgl %0, (%1)" : "+r"(entry) : "r"(TABLE) : "memory");
			break;
		}
		}
		invlpg(LINEAR);
		wrong += MEM32(LINEAR) != 0x100 + n;
	}
	check("entries written in every way", wrong, 0);

	/* fork-like: a whole table copied, then its pages made read-only, then one by one writable again */
	for (uint32_t i = 0; i < 1024; i++)
		MEM32(TABLE + 4 * i) = FRAME(i % 16) | PTE_ALL;
	memcpy((void *)TABLE_2, (void *)TABLE, 4096);
	for (uint32_t i = 0; i < 1024; i++)
		MEM32(TABLE + 4 * i) &= ~PTE_W;
	set_cr3(get_cr3());
	wrong = 0;
	for (uint32_t i = 0; i < 1024; i += 3) {
		user_mode();
		in.ebx = LINEAR + i * 0x1000;
		run(&write);
		wrong += out.vector != X_PF || out.error != (PF_P | PF_W | PF_U);
		MEM32(TABLE + 4 * i) |= PTE_W;
		invlpg(LINEAR + i * 0x1000);
		user_mode();
		in.ebx = LINEAR + i * 0x1000;
		run(&write);
		wrong += out.vector != DONE_VECTOR;
	}
	check("table copied, pages protected and opened", wrong, 0);
	paging_reset();
}

/* Paging turned off and on, at addresses that mean different frames with and without it. */
static void paging_switched(void)
{
	uint32_t wrong = 0;

	map(FRAME(0), FRAME(1) | PTE_ALL);
	for (uint32_t i = 0; i < 200; i++) {
		MEM32(FRAME(0)) = i;
		set_cr0(get_cr0() & ~CR0_PG);
		wrong += MEM32(FRAME(1)) != i;
		MEM32(FRAME(0)) = ~i;
		plant_function(FRAME(0) + 16, i);
		plant_function(FRAME(1) + 16, i + 1);
		wrong += call(FRAME(0) + 16) != i;
		set_cr0(get_cr0() | CR0_PG);
		wrong += MEM32(FRAME(0)) != i;
		wrong += call(FRAME(0) + 16) != i + 1;
	}
	check("paging off and on", wrong, 0);
	paging_reset();
}

void test(void)
{
	paging_on();
	remap_data();
	remap_code();
	self_map();
	shared_table();
	reused_table();
	paging_switched();
	paging_off();
}
