/*
 * Two-level paging with 4 KiB pages: who may do what (SDM vol. 3A 4.6), error codes (4.7), accessed and
 * dirty flags (4.8), accesses across a page edge, and the CPU's own accesses.
 */
#include "paging.h"

#define TARGET	   PLAYGROUND
#define TARGET_END (PLAYGROUND + 0x1000)
#define SLOT	   (TARGET >> 22)

CODE(read, "", "movl 16(%ebx), %eax");
CODE(write, "", "movl %eax, 16(%ebx)");
CODE(add, "", "addl %eax, 16(%ebx)");
CODE(fetch, "", "jmp *%ebx");
CODE(read_edge, "", "movl -2(%ebx), %eax");
CODE(write_edge, "", "movl %eax, -2(%ebx)");
CODE(add_edge, "", "addl %eax, -2(%ebx)");
CODE(write_word_edge, "", "movw %ax, -1(%ebx)");
CODE(fst_edge, "fld1", "fstpl -4(%ebx)");
CODE(push_edge, "leal 2(%ebx), %esp", "pushl %eax");
CODE(pusha_edge, "leal 28(%ebx), %esp", "pushal");
CODE(movs_edge, "leal -4(%ebx), %edi; movl $in, %esi; movl $2, %ecx; cld", "rep movsl");
CODE(stosb_edge, "leal -4(%ebx), %edi; movl $8, %ecx; cld", "rep stosb");
CODE(xchg_edge, "", "xchgl %eax, -2(%ebx)");
CODE(load_ds, "", "movw %ax, %ds");
CODE(int_40, "", "int $0x40");

/* 0 if the access went through, 0x80 | error code for a page fault, 0xff for what should not be. */
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

static uint32_t expected(uint32_t pde, uint32_t entry, bool user, bool is_write, bool wp)
{
	uint32_t both = pde & entry, error = (user ? PF_U : 0) | (is_write ? PF_W : 0);

	if (!(both & PTE_P))
		return 0x80 | error;
	if (user && !(both & PTE_U))
		return 0x80 | error | PF_P;
	if (is_write && !(both & PTE_W) && (user || wp))
		return 0x80 | error | PF_P;
	return 0;
}

static void print_bits(const char *name, uint32_t entry)
{
	print("%s %c%c%c ", name, entry & PTE_P ? 'p' : '-', entry & PTE_W ? 'w' : '-',
	      entry & PTE_U ? 'u' : '-');
}

/* Read, write and fetch in one number, a byte each; then the same as what the flags should be. */
static void combination(uint32_t pde, uint32_t entry, bool user, bool wp)
{
	static const struct snippet *const access[3] = {&read, &write, &fetch};
	uint32_t got = 0, want = 0, flags_got = 0, flags_want = 0;

	for (unsigned i = 0; i < 3; i++) {
		uint32_t result, good;

		page_directory[SLOT] = (uint32_t)page_tables[SLOT] | pde;
		*pte(TARGET) = TARGET | entry;
		set_cr3(get_cr3());
		result = attempt(access[i], TARGET, user);
		good = expected(pde, entry, user, i == 1, wp);
		got = got << 8 | result;
		want = want << 8 | good;
		/* A is unpredictable where the access was refused; D must be clear there */
		flags_got = flags_got << 4 | (*pte(TARGET) & PTE_D ? 1 : 0);
		flags_want = flags_want << 4 | (i == 1 && !good);
		if (good)
			continue;
		flags_got |= (page_directory[SLOT] & PTE_A ? 4 : 0) | (*pte(TARGET) & PTE_A ? 2 : 0);
		flags_want |= 6;
	}
	print_bits("pde", pde);
	print_bits("pte", entry);
	print("cpl %u wp %u ", user ? 3 : 0, wp);
	check("r/w/x", got, want);
	check("  a, a, d", flags_got, flags_want);
}

static void permissions(void)
{
	MEM8(TARGET) = 0xcd;
	MEM8(TARGET + 1) = DONE_VECTOR;
	for (unsigned wp = 0; wp < 2; wp++) {
		set_cr0(wp ? get_cr0() | CR0_WP : get_cr0() & ~CR0_WP);
		for (unsigned user = 0; user < 2; user++)
			for (uint32_t pde = 1; pde < 8; pde += 2)
				for (uint32_t entry = 1; entry < 8; entry += 2)
					combination(pde, entry, user, wp);
	}
	for (unsigned user = 0; user < 2; user++) {
		combination(PTE_ALL, PTE_W | PTE_U, user, true);
		combination(PTE_W | PTE_U, PTE_ALL, user, true);
	}
	set_cr0(get_cr0() & ~CR0_WP);
	paging_reset();
}

/* Accesses that follow one another, with no flush between them that a CPU does not ask for. */
static void sequences(void)
{
	map(TARGET, TARGET | PTE_ALL);
	check("read", attempt(&read, TARGET, false), 0);
	check("  a d", *pte(TARGET) & (PTE_A | PTE_D), PTE_A);
	check("then write", attempt(&write, TARGET, false), 0);
	check("  a d", *pte(TARGET) & (PTE_A | PTE_D), PTE_A | PTE_D);
	map(TARGET, TARGET | PTE_ALL);
	check("read at cpl 3", attempt(&read, TARGET, true), 0);
	check("  a d", *pte(TARGET) & (PTE_A | PTE_D), PTE_A);
	check("then write at cpl 0", attempt(&write, TARGET, false), 0);
	check("  a d", *pte(TARGET) & (PTE_A | PTE_D), PTE_A | PTE_D);
	map(TARGET, TARGET | PTE_ALL);
	check("add", attempt(&add, TARGET, false), 0);
	check("  a d", *pte(TARGET) & (PTE_A | PTE_D), PTE_A | PTE_D);
	map(TARGET, TARGET | PTE_ALL);
	check("fetch at cpl 3", attempt(&fetch, TARGET, true), 0);
	check("  a d", *pte(TARGET) & (PTE_A | PTE_D), PTE_A);

	map(TARGET, TARGET | PTE_P | PTE_U);
	check("read-only page: write at cpl 0, no WP", attempt(&write, TARGET, false), 0);
	check("  a d", *pte(TARGET) & (PTE_A | PTE_D), PTE_A | PTE_D);
	check("then write at cpl 3", attempt(&write, TARGET, true), 0x80 | PF_P | PF_W | PF_U);
	check("then read at cpl 3", attempt(&read, TARGET, true), 0);
	check("then write at cpl 0", attempt(&write, TARGET, false), 0);
	set_cr0(get_cr0() | CR0_WP);
	check("then WP on, write at cpl 0", attempt(&write, TARGET, false), 0x80 | PF_P | PF_W);
	set_cr0(get_cr0() & ~CR0_WP);
	check("then WP off, write at cpl 0", attempt(&write, TARGET, false), 0);

	map(TARGET, TARGET | PTE_P | PTE_W);
	check("supervisor page: write at cpl 0", attempt(&write, TARGET, false), 0);
	check("then read at cpl 3", attempt(&read, TARGET, true), 0x80 | PF_P | PF_U);
	check("then write at cpl 3", attempt(&write, TARGET, true), 0x80 | PF_P | PF_W | PF_U);
	check("then fetch at cpl 3", attempt(&fetch, TARGET, true), 0x80 | PF_P | PF_U);
	check("then read at cpl 0", attempt(&read, TARGET, false), 0);

	/* from not present to present asks for no invalidation (SDM vol. 3A 4.10.2.3 and 4.10.4.3) */
	map(TARGET, 0);
	check("absent page: read", attempt(&read, TARGET, false), 0x80);
	*pte(TARGET) = TARGET | PTE_ALL;
	check("then present", attempt(&read, TARGET, false), 0);
	page_directory[SLOT] = 0;
	set_cr3(get_cr3());
	check("absent table: read", attempt(&read, TARGET, false), 0x80);
	page_directory[SLOT] = (uint32_t)page_tables[SLOT] | PTE_ALL;
	check("then present", attempt(&read, TARGET, false), 0);
	/* more rights without invalidation: one more fault is allowed, a second is not */
	map(TARGET, TARGET | PTE_P);
	attempt(&write, TARGET, true);
	*(volatile uint32_t *)pte(TARGET) = TARGET | PTE_ALL;
	if (attempt(&write, TARGET, true))
		check("rights raised", attempt(&write, TARGET, true), 0);
	else
		check("rights raised", 0, 0);
	paging_reset();
}

static uint32_t around_edge(void)
{
	return MEM32(TARGET_END - 4) ^ MEM32(TARGET_END);
}

/* The second page missing or read-only: cr2 is in the second page, and nothing of the first is written. */
static void straddling(void)
{
	static const struct {
		const char *name;
		const struct snippet *code;
		uint32_t access;
		const char *sdm;
	} cases[] = {
		{"read", &read_edge, 0},
		{"write", &write_edge, PF_W},
		{"write word", &write_word_edge, PF_W},
		{"add", &add_edge, PF_W, "3A 4.7 W/R"},
		{"xchg", &xchg_edge, PF_W, "3A 4.7 W/R"},
		{"fstp m64", &fst_edge, PF_W},
		{"push at cpl 3", &push_edge, PF_W | PF_U}, /* at CPL 0 there would be no stack left */
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		MEM32(TARGET_END - 4) = 0x11111111;
		MEM32(TARGET_END) = 0x22222222;
		map(TARGET_END, 0);
		if (cases[i].access & PF_U)
			user_mode();
		in.ebx = TARGET_END;
		sdm(cases[i].sdm);
		expect_fault(cases[i].name, cases[i].code, X_PF, cases[i].access);
		sdm(cases[i].sdm);
		check("  cr2", out.cr2, TARGET_END);
		map(TARGET_END, TARGET_END | PTE_ALL);
		check("  unchanged", around_edge(), 0x33333333);
		if (!cases[i].access)
			continue;
		map(TARGET_END, TARGET_END | PTE_P | PTE_U);
		user_mode();
		in.ebx = TARGET_END;
		sdm(cases[i].sdm);
		expect_fault("  read-only, cpl 3", cases[i].code, X_PF, PF_P | PF_W | PF_U);
		check("  cr2", out.cr2, TARGET_END);
		check("  unchanged", around_edge(), 0x33333333);
		map(TARGET_END, TARGET_END | PTE_ALL);
		in.ebx = TARGET_END;
		expect_done("  writable", cases[i].code);
		check("  d d", (*pte(TARGET) & PTE_D) << 4 | (*pte(TARGET_END) & PTE_D), PTE_D << 4 | PTE_D);
	}

	/* the first page missing, and both: the lower address is the one reported */
	map(TARGET, 0);
	in.ebx = TARGET_END;
	expect_fault("read, first page missing", &read_edge, X_PF, 0);
	check("  cr2", out.cr2, TARGET_END - 2);
	map(TARGET_END, 0);
	in.ebx = TARGET_END;
	expect_fault("read, both missing", &read_edge, X_PF, 0);
	check("  cr2", out.cr2, TARGET_END - 2);
	paging_reset();

	/* two physical pages that are not neighbours */
	map(TARGET_END, (TARGET + 0x8000) | PTE_ALL);
	MEM32(TARGET + 0x8000) = 0;
	in.ebx = TARGET_END;
	in.eax = 0xaabbccdd;
	expect_done("write across two physical pages", &write_edge);
	check("  low half", MEM16(TARGET_END - 2), 0xccdd);
	check("  high half", MEM16(TARGET + 0x8000), 0xaabb);
	in.ebx = TARGET_END;
	expect_done("read across two physical pages", &read_edge);
	check("  eax", out.eax, 0xaabbccdd);

	map(TARGET_END, 0);
	in.ebx = TARGET_END;
	expect_fault("rep movsd into a missing page", &movs_edge, X_PF, PF_W);
	check("  ecx", out.ecx, 1);
	check("  edi", out.edi, TARGET_END);
	in.ebx = TARGET_END;
	expect_fault("rep stosb into a missing page", &stosb_edge, X_PF, PF_W);
	check("  ecx", out.ecx, 4);
	check("  edi", out.edi, TARGET_END);
	map(TARGET, 0);
	map(TARGET_END, TARGET_END | PTE_ALL);
	user_mode();
	in.ebx = TARGET_END;
	expect_fault("pusha into a missing page", &pusha_edge, X_PF, PF_W | PF_U);
	check("  esp", out.esp, TARGET_END + 28);
	check("  cr2", out.cr2, TARGET_END - 4);
	paging_reset();
}

/* Tables and stacks that the CPU reads and writes by itself (SDM vol. 3A 4.6: supervisor accesses). */
static void implicit_accesses(void)
{
	memcpy((void *)TARGET, gdt, sizeof(gdt));
	gdtr.base = TARGET;
	__asm__ volatile("lgdt gdtr");
	MEM8(TARGET + FREE_SELECTOR + 5) = 0xf2; /* data, DPL 3, not accessed */
	MEM32(TARGET + FREE_SELECTOR) = 0xffff;
	MEM8(TARGET + FREE_SELECTOR + 6) = 0xcf;
	map(TARGET, TARGET | PTE_P | PTE_W);
	user_mode();
	in.eax = FREE_SELECTOR | 3;
	expect_done("load ds at cpl 3, GDT on a supervisor page", &load_ds);
	check("  a d", *pte(TARGET) & (PTE_A | PTE_D), PTE_A | PTE_D);
	check("  descriptor accessed", MEM8(TARGET + FREE_SELECTOR + 5), 0xf3);

	MEM8(TARGET + FREE_SELECTOR + 5) = 0xf2;
	set_cr0(get_cr0() | CR0_WP);
	for (unsigned i = 0; i < 5; i++)
		MEM8(TARGET + 8 * i + 5) |=
			1; /* what entering and leaving loads must not be written to now */
	map(TARGET, TARGET | PTE_P);
	user_mode();
	in.eax = FREE_SELECTOR | 3;
	run(&load_ds); /* which of the descriptor's bytes is written is the CPU's affair */
	check("load ds at cpl 3, GDT read-only, WP: vector", out.vector, X_PF);
	check("  error", out.error, PF_P | PF_W);
	check("  cr2", out.cr2 & ~7u, TARGET + FREE_SELECTOR);
	set_cr0(get_cr0() & ~CR0_WP);
	user_mode();
	in.eax = FREE_SELECTOR | 3;
	expect_done("load ds at cpl 3, GDT read-only, no WP", &load_ds);
	check("  descriptor accessed", MEM8(TARGET + FREE_SELECTOR + 5), 0xf3);

	/* a descriptor on a page of its own, missing */
	gdtr.base = TARGET_END - FREE_SELECTOR;
	map(TARGET, TARGET | PTE_ALL);
	memcpy((void *)gdtr.base, gdt, sizeof(gdt));
	MEM32(TARGET_END) = 0xffff;
	MEM32(TARGET_END + 4) = 0x00cff300;
	__asm__ volatile("lgdt gdtr");
	map(TARGET_END, 0);
	user_mode();
	in.eax = FREE_SELECTOR | 3;
	expect_fault("load ds at cpl 3, descriptor missing", &load_ds, X_PF, 0);
	check("  cr2", out.cr2 & ~7u, TARGET_END);
	map(TARGET_END, TARGET_END | PTE_ALL);
	user_mode();
	in.eax = FREE_SELECTOR | 3;
	expect_done("  present again", &load_ds);
	gdtr.base = (uint32_t)gdt;
	__asm__ volatile("lgdt gdtr");

	/* the ring 0 stack on a supervisor page, dirty bit from the push of the frame */
	tss.esp0 = TARGET_END;
	map(TARGET, TARGET | PTE_P | PTE_W);
	user_mode();
	expect_fault("int at cpl 3, ring 0 stack on a supervisor page", &int_40, X_GP, 0x40 * 8 + 2);
	check("  a d", *pte(TARGET) & (PTE_A | PTE_D), PTE_A | PTE_D);
	tss.esp0 = RING0_STACK;

	/* the IDT on a page of its own, only read */
	memcpy((void *)TARGET, idt, sizeof(idt));
	idtr.base = TARGET;
	map(TARGET, TARGET | PTE_P);
	__asm__ volatile("lidt idtr");
	expect_trap("int at cpl 0, IDT on a read-only page", &int_40, 0x40, NO_ERROR);
	check("  a d", *pte(TARGET) & (PTE_A | PTE_D), PTE_A);
	idtr.base = (uint32_t)idt;
	__asm__ volatile("lidt idtr");
	paging_reset();
}

/* Pushes, pops and uses of esp with accesses between them to a page that the TLB does not hold: esp is right
 * whatever the accesses cost. */
static void stack_between_faults(void)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < 40; i++) {
		uint32_t esp, sum, popped;

		map(TARGET, (i & 1 ? TARGET_END : TARGET) | PTE_ALL);
		__asm__ volatile("movl %%esp, %%edi\n"
				 "pushl $1\n"
				 "pushl %%ecx\n"
				 "movl %%ecx, (%%esi)\n"
				 "pushl (%%esi)\n"
				 "movl 4(%%esp), %%eax\n"
				 "invlpg (%%esi)\n"
				 "pushl $7\n"
				 "addl %%eax, 4(%%esi)\n"
				 "addl 12(%%esp), %%eax\n"
				 "leal 16(%%esp), %%edx\n"
				 "subl %%edi, %%edx\n"
				 "popl %%edi\n"
				 "movl %%esp, %%ebx\n"
				 "addl (%%esi), %%edi\n"
				 "popl %%ebx\n"
				 "addl %%ebx, %%edi\n"
				 "popl %%ebx\n"
				 "addl 4(%%esp), %%ebx\n"
				 "subl 4(%%esp), %%ebx\n"
				 "popl %%ebx\n"
				 : "=a"(sum), "=d"(esp), "=D"(popped)
				 : "c"(i), "S"(TARGET)
				 : "ebx", "memory", "cc");
		wrong += sum != i + 1;
		wrong += esp != 0;
		wrong += popped != 7 + 2 * i;
	}
	check("esp amid accesses to pages that are looked up", wrong, 0);
	paging_reset();
}

void test(void)
{
	__asm__ volatile("fninit");
	paging_on();
	permissions();
	sequences();
	straddling();
	implicit_accesses();
	stack_between_faults();
	paging_off();
}
