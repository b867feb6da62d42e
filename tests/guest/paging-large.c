/*
 * Large pages, PAE, no-execute and global pages (SDM vol. 3A 4.3, 4.4, 4.10.2.4). Physical memory above
 * PLAYGROUND holds the tables and the targets.
 */
#include "paging.h"

#define MSR_EFER 0xc0000080u
#define EFER_NXE 0x800u

#define LARGE	 0x00800000u /* a 4 MiB linear slot, two 2 MiB ones under PAE */
#define PHYSICAL 0x00c00000u /* what it is mapped to */

CODE(read, "", "movl 16(%ebx), %eax");
CODE(write, "", "movl %eax, 16(%ebx)");
CODE(fetch, "", "jmp *%ebx");
CODE(load_cr3, "", "movl %eax, %cr3");

static uint32_t attempt(const struct snippet *code, uint32_t linear, bool user)
{
	if (user)
		user_mode();
	in.ebx = linear;
	in.eax = 0x5a5a5a5a;
	run(code);
	if (out.vector == DONE_VECTOR)
		return 0;
	if (out.vector != X_PF || (out.cr2 & ~0xfffu) != (linear & ~0xfffu))
		return 0xff;
	return 0x80 | out.error;
}

static uint32_t expected(uint32_t flags, bool user, bool is_write, bool wp)
{
	uint32_t error = 0x80 | PF_P | (user ? PF_U : 0) | (is_write ? PF_W : 0);

	if (user && !(flags & PTE_U))
		return error;
	return is_write && !(flags & PTE_W) && (user || wp) ? error : 0;
}

static void plant_code(uint32_t physical)
{
	MEM8(physical) = 0xcd;
	MEM8(physical + 1) = DONE_VECTOR;
}

/* Every permission of one entry that maps the page at linear by itself. */
static void large_permissions(volatile uint32_t *entry, uint32_t linear, uint32_t physical)
{
	for (uint32_t flags = 1; flags < 8; flags += 2) {
		for (unsigned wp = 0; wp < 2; wp++) {
			uint32_t got = 0, want = 0;

			set_cr0(wp ? get_cr0() | CR0_WP : get_cr0() & ~CR0_WP);
			for (unsigned user = 0; user < 2; user++) {
				for (unsigned i = 0; i < 3; i++) {
					static const struct snippet *const access[] = {&read, &write, &fetch};
					uint32_t good = expected(flags, user, i == 1, wp);

					*entry = physical | PTE_PS | flags;
					set_cr3(get_cr3());
					got = got << 5 | (attempt(access[i], linear, user) & 0x1f);
					want = want << 5 | (good & 0x1f);
					if (!good) {
						got ^= *entry & (PTE_A | PTE_D);
						want ^= PTE_A | (i == 1 ? PTE_D : 0);
					}
				}
			}
			print("large page %x, wp %u, ", flags, wp);
			check("r/w/x at cpl 0 and 3", got, want);
		}
	}
	set_cr0(get_cr0() & ~CR0_WP);
}

/* ---- the large page at 0, which the test itself runs from */

#define OWN_CODE  0x1f0000u /* moves a number to eax and returns */
#define OWN_OTHER 0x1f1000u /* the same with another */
#define OWN_DATA  0x1f2000u
#define SUPER	  (PTE_P | PTE_W)

static struct {
	volatile void *directory, *table;
	unsigned size; /* of an entry */
} own;

static void own_put(volatile void *at, uint32_t index, uint32_t entry)
{
	((volatile uint32_t *)at)[index * own.size / 4] = entry;
}

static uint32_t own_get(volatile void *at, uint32_t index)
{
	return ((volatile uint32_t *)at)[index * own.size / 4];
}

static void own_pte(uint32_t linear, uint32_t entry)
{
	own_put(own.table, linear >> 12, entry);
	flush(linear);
}

static void own_large(uint32_t flags)
{
	own_put(own.directory, 0, PTE_PS | flags);
	flush(0);
}

static void own_split(uint32_t flags)
{
	for (uint32_t i = 0; i < 4096 / own.size; i++)
		own_put(own.table, i, i << 12 | flags);
	own_put(own.directory, 0, (uint32_t)own.table | SUPER);
	flush(0);
}

static void own_plant(uint32_t at, uint32_t number)
{
	MEM8(at) = 0xb8;
	MEM32(at + 1) = number;
	MEM8(at + 5) = 0xc3;
}

static uint32_t own_calls(unsigned n)
{
	uint32_t sum = 0;

	while (n--)
		sum += ((uint32_t(*)(void))OWN_CODE)();
	return sum;
}

static void own_rights(void)
{
	own_split(SUPER);
	set_cr0(get_cr0() | CR0_WP);
	own_pte(OWN_CODE, OWN_CODE | PTE_P);
	own_pte(OWN_DATA, OWN_DATA | PTE_P);
	check("read-only: calls", own_calls(100), 700);
	check("  read", MEM32(OWN_DATA), 0x600d);
	check("  write", attempt(&write, OWN_DATA, false), 0x80 | PF_P | PF_W);
	check("  write to the code", attempt(&write, OWN_CODE, false), 0x80 | PF_P | PF_W);
	check("  write beside it", attempt(&write, OWN_OTHER + 0x800, false), 0);
	check("  d", own_get(own.table, OWN_DATA >> 12) & PTE_D, 0);
	set_cr0(get_cr0() & ~CR0_WP);
	check("  write, wp 0", attempt(&write, OWN_DATA, false), 0);
	check("  d", own_get(own.table, OWN_DATA >> 12) & PTE_D, PTE_D);
	set_cr0(get_cr0() | CR0_WP);
	check("  write, wp 1", attempt(&write, OWN_DATA, false), 0x80 | PF_P | PF_W);
	own_pte(OWN_CODE, OWN_CODE | SUPER);
	own_plant(OWN_CODE, 9);
	check("writable again, other code", own_calls(100), 900);
	own_pte(OWN_CODE, OWN_OTHER | SUPER);
	check("another frame", own_calls(100), 1100);
	own_pte(OWN_CODE, 0);
	check("none", attempt(&fetch, OWN_CODE, false), 0x80);
	own_large(SUPER);
	check("large again", own_calls(100), 900);
	check("  write", attempt(&write, OWN_DATA, false), 0);
	set_cr0(get_cr0() & ~CR0_WP);
	own_split(SUPER);
}

/* A kernel splits the page that it runs from, narrows parts of it, and puts it back. */
static void own_page(void *directory, uint32_t table, unsigned size)
{
	uint32_t sum = 0;

	own.directory = directory;
	own.table = (volatile void *)table;
	own.size = size;
	own_plant(OWN_CODE, 7);
	own_plant(OWN_OTHER, 11);
	own_large(SUPER);
	check("run from a large page", own_calls(100), 700);
	for (unsigned i = 0; i < 40; i++) {
		if (i & 1)
			own_split(SUPER);
		else
			own_large(i & 2 ? SUPER : PTE_P);
		MEM32(OWN_DATA) = i;
		sum += own_calls(20) + MEM32(OWN_DATA);
	}
	check("  split and restored", sum, 40 * 20 * 7 + 39 * 40 / 2);
	own_large(PTE_P);
	check("  read-only, d", own_get(own.directory, 0) & PTE_D, PTE_D); /* the stack's */
	own_large(SUPER);
	MEM32(OWN_DATA) = 0x600d;
	own_rights();
}

static void pse(void)
{
	volatile uint32_t *pde = &page_directory[LARGE >> 22];

	if (!cpu_has(CPUID_PSE)) {
		cpu_line();
		check("no PSE", 0, 0);
		return;
	}
	plant_code(PHYSICAL);
	MEM32(PHYSICAL + 0x3ff010) = 0xfeed;
	paging_on();
	set_cr4(get_cr4() | CR4_PSE);
	*pde = PHYSICAL | PTE_PS | PTE_ALL;
	set_cr3(get_cr3());
	check("4 MiB page, first word", MEM16(LARGE), 0x30cd);
	check("4 MiB page, last page", MEM32(LARGE + 0x3ff010), 0xfeed);
	large_permissions(pde, LARGE, PHYSICAL);

	/* bit 21 is reserved; bits 13 to 20 are address bits 32 to 39 with PSE-36, reserved without */
	*pde = PHYSICAL | 0x200000 | PTE_PS | PTE_ALL;
	set_cr3(get_cr3());
	sdm("3A 4.7 RSVD");
	check("reserved bit in a 4 MiB entry: read", attempt(&read, LARGE, false), 0x80 | PF_R | PF_P);
	sdm("3A 4.7 RSVD");
	check("  write at cpl 3", attempt(&write, LARGE, true), 0x80 | PF_R | PF_P | PF_W | PF_U);

	/* large to small and back, at the same linear address */
	for (uint32_t i = 0; i < 1024; i++)
		page_tables[LARGE >> 22][i] = PHYSICAL | ((1023 - i) << 12) | PTE_ALL;
	*pde = (uint32_t)page_tables[LARGE >> 22] | PTE_ALL;
	set_cr3(get_cr3());
	check("small pages instead, reversed", MEM16(LARGE + 0x3ff000), 0x30cd);
	check("  d in the table", page_tables[LARGE >> 22][1023] & (PTE_A | PTE_D), PTE_A);
	MEM32(LARGE + 0x3ff020) = 1;
	check("  after a write", page_tables[LARGE >> 22][1023] & (PTE_A | PTE_D), PTE_A | PTE_D);
	*pde = PHYSICAL | PTE_PS | PTE_ALL;
	set_cr3(get_cr3());
	check("large again", MEM16(LARGE), 0x30cd);
	invlpg(LARGE + 0x123456);
	*pde = (PHYSICAL - 0x800000) | PTE_PS | PTE_ALL;
	MEM32(PHYSICAL - 0x800000) = 0x1234abcd;
	invlpg(LARGE + 0x234567);
	check("invlpg inside a large page", MEM32(LARGE), 0x1234abcd);

	/* without CR4.PSE the PS bit is ignored: the entry refers to a table */
	set_cr4(get_cr4() & ~CR4_PSE);
	*pde = (uint32_t)page_tables[LARGE >> 22] | PTE_PS | PTE_ALL;
	set_cr3(get_cr3());
	check("PS without CR4.PSE", MEM16(LARGE + 0x3ff000), 0x30cd);

	set_cr4(get_cr4() | CR4_PSE);
	own_page(page_directory, (uint32_t)page_tables[0], 4);
	set_cr4(get_cr4() & ~CR4_PSE);
	paging_off();
}

/* PAE: 4 page directories at PAE_DIRECTORIES, first gigabyte mapped by 2 MiB pages, all of it open. */
#define PAE_POINTERS	0x00500020u /* 32-byte aligned is enough */
#define PAE_DIRECTORIES 0x00501000u
#define PAE_TABLE	0x00505000u

static volatile uint64_t *const pdpt = (uint64_t *)PAE_POINTERS;
static volatile uint64_t *const pae_pd = (uint64_t *)PAE_DIRECTORIES;
static volatile uint64_t *const pae_pt = (uint64_t *)PAE_TABLE;
#define NX (1ull << 63)

static void pae_reset(void)
{
	for (uint32_t i = 0; i < 4; i++)
		pdpt[i] = (PAE_DIRECTORIES + i * 0x1000) | PTE_P;
	for (uint32_t i = 0; i < 2048; i++)
		pae_pd[i] = i < 16 ? i << 21 | PTE_PS | PTE_ALL : 0;
	for (uint32_t i = 0; i < 512; i++)
		pae_pt[i] = PHYSICAL | i << 12 | PTE_ALL;
	if (get_cr0() & CR0_PG)
		set_cr3(PAE_POINTERS);
}

static void no_execute(void)
{
	volatile uint64_t *pde = &pae_pd[LARGE >> 21];

	/* without EFER.NXE bit 63 is reserved */
	write_msr(MSR_EFER, read_msr(MSR_EFER) & ~(uint64_t)EFER_NXE);
	*pde = PAE_TABLE | PTE_ALL;
	pae_pt[0] = PHYSICAL | PTE_ALL | NX;
	set_cr3(PAE_POINTERS);
	sdm("3A 4.7 RSVD");
	check("NX without NXE: read", attempt(&read, LARGE, false), 0x80 | PF_R | PF_P);

	write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE);
	for (unsigned where = 0; where < 4; where++) {
		for (unsigned user = 0; user < 2; user++) {
			uint32_t error = 0x80 | PF_P | PF_I | (user ? PF_U : 0);

			*pde = PAE_TABLE | PTE_ALL | (where & 1 ? NX : 0);
			pae_pt[0] = PHYSICAL | PTE_ALL | (where & 2 ? NX : 0);
			set_cr3(PAE_POINTERS);
			cpu_line();
			check("NX: fetch", attempt(&fetch, LARGE, user), where ? error : 0);
			cpu_line();
			check("  read", attempt(&read, LARGE, user), 0);
			cpu_line();
			check("  write", attempt(&write, LARGE, user), 0);
		}
	}
	*pde = PHYSICAL | PTE_PS | PTE_ALL | NX;
	set_cr3(PAE_POINTERS);
	cpu_line();
	check("NX on a large page: fetch", attempt(&fetch, LARGE, false), 0x80 | PF_P | PF_I);
	*pde = PAE_TABLE | PTE_ALL;
	pae_pt[0] = PHYSICAL | PTE_P;
	set_cr3(PAE_POINTERS);
	cpu_line();
	check("NXE: a refused fetch says so", attempt(&fetch, LARGE, true), 0x80 | PF_P | PF_U | PF_I);
	pae_pt[0] = 0;
	set_cr3(PAE_POINTERS);
	cpu_line();
	check("NXE: so does a fetch from nowhere", attempt(&fetch, LARGE, false), 0x80 | PF_I);
	write_msr(MSR_EFER, read_msr(MSR_EFER) & ~(uint64_t)EFER_NXE);
}

static void pae(void)
{
	volatile uint64_t *pde = &pae_pd[LARGE >> 21];

	if (!cpu_has(CPUID_PAE)) {
		cpu_line();
		check("no PAE", 0, 0);
		return;
	}
	plant_code(PHYSICAL);
	pae_reset();
	set_cr4(get_cr4() | CR4_PAE);
	set_cr3(PAE_POINTERS);
	set_cr0(get_cr0() | CR0_PG);
	check("PAE on, cr3", get_cr3(), PAE_POINTERS);

	*pde = PHYSICAL | PTE_PS | PTE_ALL;
	set_cr3(PAE_POINTERS);
	check("2 MiB page", MEM16(LARGE), 0x30cd);
	large_permissions((volatile uint32_t *)pde, LARGE, PHYSICAL);

	for (uint32_t up = 1; up < 8; up += 2) {
		for (uint32_t low = 1; low < 8; low += 2) {
			uint32_t got = 0, want = 0;

			for (unsigned i = 0; i < 4; i++) {
				uint32_t good = expected(up & low, i & 1, i & 2, false);

				*pde = PAE_TABLE | up;
				pae_pt[0] = PHYSICAL | low;
				set_cr3(PAE_POINTERS);
				got = got << 8 | attempt(i & 2 ? &write : &read, LARGE, i & 1);
				want = want << 8 | good;
				if (!good) {
					got ^= (*pde & PTE_A) ^ (pae_pt[0] & PTE_D);
					want ^= PTE_A ^ (i & 2 ? PTE_D : 0);
				}
			}
			print("pae pde %x pte %x ", up, low);
			check("r0/r3/w0/w3", got, want);
		}
	}

	*pde = PAE_TABLE | PTE_ALL;
	pae_pt[0] = PHYSICAL | PTE_ALL | 1ull << 51;
	set_cr3(PAE_POINTERS);
	sdm("3A 4.7 RSVD");
	check("physical address too wide: read", attempt(&read, LARGE, false), 0x80 | PF_P | PF_R);
	*pde = PHYSICAL | 0x2000 | PTE_PS | PTE_ALL;
	set_cr3(PAE_POINTERS);
	sdm("3A 4.7 RSVD");
	check("reserved bit in a 2 MiB entry: read", attempt(&read, LARGE, false), 0x80 | PF_P | PF_R);

	/* the page-directory pointers: not present is a page fault, reserved bits are a #GP on loading cr3 */
	pae_reset();
	check("second gigabyte, empty", attempt(&read, 0x40000000, false), 0x80);
	pae_pd[512] = PHYSICAL | PTE_PS | PTE_ALL;
	set_cr3(PAE_POINTERS);
	check("second gigabyte, mapped", MEM16(0x40000000), 0x30cd);
	pdpt[1] = 0;
	set_cr3(PAE_POINTERS);
	check("second gigabyte, no directory", attempt(&read, 0x40000000, false), 0x80);
	/* the four are registers, loaded with cr3 and not before (SDM vol. 3A 4.4.1) */
	pdpt[1] = (PAE_DIRECTORIES + 0x1000) | PTE_P;
	sdm("3A 4.4.1");
	check("  its pointer back in memory only", attempt(&read, 0x40000000, false), 0x80);
	set_cr3(PAE_POINTERS);
	check("  and loaded", attempt(&read, 0x40000000, false), 0);
	pdpt[1] |= PTE_W;
	in.eax = PAE_POINTERS;
	sdm("3A 4.4.1");
	expect_fault("cr3, reserved bit in a pointer", &load_cr3, X_GP, 0);
	pdpt[1] = (PAE_DIRECTORIES + 0x1000) | PTE_P;
	set_cr3(PAE_POINTERS);
	/* two gigabytes that share one directory */
	pdpt[2] = pdpt[1];
	set_cr3(PAE_POINTERS);
	check("third gigabyte, the second's directory", MEM16(0x80000000), 0x30cd);
	MEM32(0x80000020) = 0x77;
	check("  seen through both", MEM32(0x40000020), 0x77);
	pae_reset();

	if (cpu_has_nx())
		no_execute();
	own_page((void *)PAE_DIRECTORIES, PAE_TABLE, 8);
	paging_off();
	set_cr4(get_cr4() & ~CR4_PAE);
}

/* Global pages: only what must be, not what may be: invlpg and a change of CR4.PGE drop them. */
static void global(void)
{
	uint32_t page = PLAYGROUND, other = PLAYGROUND + 0x1000;

	if (!cpu_has(CPUID_PGE)) {
		cpu_line();
		check("no PGE", 0, 0);
		return;
	}
	MEM32(page) = 1;
	MEM32(other) = 2;
	paging_on();
	set_cr4(get_cr4() | CR4_PGE);
	map(page, page | PTE_ALL | PTE_G);
	check("global page", MEM32(page), 1);
	map(page, other | PTE_ALL | PTE_G);
	check("  remapped, invlpg", MEM32(page), 2);
	*pte(page) = page | PTE_ALL | PTE_G;
	set_cr4(get_cr4() & ~CR4_PGE);
	check("  remapped, PGE off", MEM32(page), 1);
	set_cr4(get_cr4() | CR4_PGE);
	check("  the same", MEM32(page), 1);
	*pte(page) = 0;
	set_cr4(get_cr4() & ~CR4_PGE);
	check("  taken away", attempt(&read, page, false), 0x80);
	paging_off();
}

void test(void)
{
	pse();
	global();
	pae();
}
