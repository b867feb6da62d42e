/*
 * Descriptors, gates and tables that change between two uses of the same instruction: what counts is what
 * memory holds at the time (SDM vol. 3A 3.4.3, 3.4.5, 5.3 to 5.6, 6.12). Each instruction is used a few times
 * first, so that whoever remembers something does so.
 */
#include "paging.h"

/* All at DPL 3 but where the test says otherwise. */
#define SEL(n)	   (FREE_SELECTOR + 8 * (n) + 3)
#define SEL_DATA   SEL(0)
#define SEL_SAME   (SEL_DATA + 0x100) /* 32 descriptors on */
#define SEL_CODE0  (SEL(2) - 3)
#define SEL_STACK0 (SEL(3) - 3)
#define SEL_CODE3  SEL(4)
#define SEL_STACK3 SEL(5)
#define SEL_LDT	   (SEL(6) - 3)

#define AREA	   0x00500000u
#define OTHER	   (AREA + 0x1000)
#define TABLE	   0x00600000u /* a copy of the GDT or IDT */
#define STACK_0	   0x00580000u
#define VECTOR	   0x60

#define FLAT	   0xfffff, SEG_G
#define IN_MEMORY  0x11111111u
#define IN_OTHER   0x22222222u

CODE_THEN(to_ds, "", "movl %eax, %ds", "movl %ds:(%ebx), %ecx");
CODE_THEN(to_es, "", "movl %eax, %es", "movl %es:(%ebx), %ecx");
CODE_THEN(to_fs, "", "movl %eax, %fs", "movl %fs:(%ebx), %ecx");
CODE_THEN(to_gs, "", "movl %eax, %gs", "movl %gs:(%ebx), %ecx");
CODE_THEN(pop_ds, "pushl %eax", "popl %ds", "movl %ds:(%ebx), %ecx");
CODE_THEN(pop_es, "pushl %eax", "popl %es", "movl %es:(%ebx), %ecx");
CODE_THEN(pop_fs, "pushl %eax", "popl %fs", "movl %fs:(%ebx), %ecx");
CODE_THEN(pop_gs, "pushl %eax", "popl %gs", "movl %gs:(%ebx), %ecx");
CODE_THEN(from_memory, "movl %eax, in", "movw in, %fs", "movl %fs:(%ebx), %ecx");
static const struct snippet *const loads[] = {&to_ds,  &to_es,	&to_fs,	 &to_gs,      &pop_ds,
					      &pop_es, &pop_fs, &pop_gs, &from_memory};
static const char *const load_names[] = {"mov ds", "mov es", "mov fs", "mov gs",	"pop ds",
					 "pop es", "pop fs", "pop gs", "mov fs, memory"};
#define LOADS (sizeof(loads) / sizeof(loads[0]))

CODE_THEN(to_ss, "", "movl %eax, %ss", "movl %ss:(%ebx), %ecx");
CODE_THEN(to_ss_push, "movl %edx, %esp", "movl %eax, %ss", "pushl %esi");
CODE_THEN(write_fs, "movl %eax, %fs", "movl %ecx, %fs:(%ebx)", "");
CODE_THEN(read_fs, "movl %eax, %fs", "movl %fs:(%ebx), %ecx", "");
CODE_THEN(fs_selector, "movl %eax, %fs", "movl %fs, %ecx", "");
CODE(interrupt, "", "int $0x60");
CODE(iretd, "", "iretl");
CODE(stop, "", "nop");
CODE(stop_too, "", "nop");

/* The context that in describes, several times. */
static void use(const struct snippet *code)
{
	const struct state again = in;

	for (unsigned i = 0; i < 4; i++) {
		in = again;
		run(code);
	}
	in = again;
}

static void selector(uint32_t sel, bool user)
{
	if (user)
		user_mode();
	in.eax = sel;
	in.ebx = AREA;
}

static void data(uint32_t base, uint32_t attributes)
{
	set_segment(SEL_DATA, base, FLAT | attributes);
}

/* ------------------------------------------------------------------ one register */

static void register_changes(unsigned which, bool user)
{
	const struct snippet *code = loads[which];

	print("%s at cpl %u\n", load_names[which], user ? 3 : 0);
	data(0, SEG_DATA32 | SEG_DPL(3));
	selector(SEL_DATA, user);
	use(code);
	expect_done("  flat", code);
	check("    read", out.ecx, IN_MEMORY);

	data(OTHER - AREA, SEG_DATA32 | SEG_DPL(3));
	selector(SEL_DATA, user);
	expect_done("  base changed", code);
	check("    read", out.ecx, IN_OTHER);
	selector(SEL_DATA, user);
	use(code);
	expect_done("  once more", code);
	check("    read", out.ecx, IN_OTHER);

	data(0, SEG_DATA32 | SEG_DPL(3));
	selector(SEL_DATA, user);
	use(code);
	gdt[SEL_DATA / 8] &= ~((uint64_t)SEG_ACCESSED << 32);
	selector(SEL_DATA, user);
	expect_done("  accessed bit cleared", code);
	check("    set again", gdt[SEL_DATA / 8] >> 40 & 1, 1);

	gdt[SEL_DATA / 8] &= ~((uint64_t)SEG_PRESENT << 32);
	selector(SEL_DATA, user);
	expect_fault("  not present", code, X_NP, SEL_DATA & ~3);
	data(0, SEG_CODE32 | SEG_DPL(3));
	selector(SEL_DATA, user);
	expect_done("  readable code", code);
	data(0, (SEG_CODE32 & ~SEG_WRITABLE) | SEG_DPL(3));
	selector(SEL_DATA, user);
	expect_fault("  execute only", code, X_GP, SEL_DATA & ~3);
	data(0, SEG_LDT);
	selector(SEL_DATA, user);
	expect_fault("  a system segment", code, X_GP, SEL_DATA & ~3);
	data(0, SEG_DATA32 | SEG_DPL(3));
	selector(SEL_DATA, user);
	use(code);
	expect_done("  data again", code);

	/* RPL 3 and CPL 0 are too much and enough for DPL 0; code that conforms does not ask. */
	data(0, SEG_DATA32);
	selector(SEL_DATA, user);
	expect_fault("  DPL 0", code, X_GP, SEL_DATA & ~3);
	selector(SEL_DATA & ~3u, false);
	use(code);
	expect_done("  DPL 0 and RPL 0, cpl 0", code);
	selector(SEL_DATA & ~3u, true);
	expect_fault("  the same at cpl 3", code, X_GP, SEL_DATA & ~3);
	data(0, SEG_CODE32 | SEG_CONFORMING);
	selector(SEL_DATA, user);
	expect_done("  conforming code of DPL 0", code);
	selector(0, user);
	sdm("3A 3.4.2");
	expect_vector("  null", code, X_GP, 0, code->after);
}

static void limits(void)
{
	set_segment(SEL_DATA, AREA, 0xfff, SEG_DATA32 | SEG_DPL(3));
	selector(SEL_DATA, false);
	in.ebx = 0xffc;
	use(&read_fs);
	expect_done("limit fff, fff read", &read_fs);
	set_segment(SEL_DATA, AREA, 0xffe, SEG_DATA32 | SEG_DPL(3));
	selector(SEL_DATA, false);
	in.ebx = 0xffc;
	sdm("3A 5.3");
	expect_fault("limit ffe", &read_fs, X_GP, 0);
	set_segment(SEL_DATA, 0, 0xffe, SEG_DATA32 | SEG_EXPAND_DOWN | SEG_DPL(3));
	selector(SEL_DATA, false);
	use(&read_fs);
	expect_done("expand-down", &read_fs);
	set_segment(SEL_DATA, 0, AREA / 4096, SEG_DATA32 | SEG_G | SEG_EXPAND_DOWN | SEG_DPL(3));
	selector(SEL_DATA, false);
	sdm("3A 5.3");
	expect_fault("expand-down, above", &read_fs, X_GP, 0);
	data(0, SEG_DATA32 | SEG_DPL(3));
	selector(SEL_DATA, false);
	use(&write_fs);
	expect_done("writable", &write_fs);
	data(0, (SEG_DATA32 & ~SEG_WRITABLE) | SEG_DPL(3));
	selector(SEL_DATA, false);
	sdm("3A 5.5");
	expect_fault("read only", &write_fs, X_GP, 0);
	for (uint32_t sel = 0; sel < 4; sel++) {
		selector(sel, sel & 1);
		use(&fs_selector);
		expect_done("null selector", &fs_selector);
		check("  as loaded", out.ecx & 0xffff, sel);
	}
	MEM32(AREA) = IN_MEMORY;
}

static void stack_segment(void)
{
	set_segment(SEL_STACK0, 0, FLAT | SEG_DATA32);
	selector(SEL_STACK0, false);
	use(&to_ss);
	expect_done("ss", &to_ss);
	check("  read", out.ecx, IN_MEMORY);
	check("  selector", out.ss, SEL_STACK0);
	set_segment(SEL_STACK0, OTHER - AREA, FLAT | SEG_DATA32);
	selector(SEL_STACK0, false);
	in.edx = AREA + 0x800;
	in.esi = 0x3333;
	MEM32(OTHER + 0x7fc) = 0;
	expect_done("ss, base changed", &to_ss_push);
	check("  pushed", MEM32(OTHER + 0x7fc), 0x3333);
	set_segment(SEL_STACK0, 0, FLAT | SEG_DATA32);
	selector(SEL_STACK0, false);
	use(&to_ss);
	gdt[SEL_STACK0 / 8] &= ~((uint64_t)SEG_PRESENT << 32);
	selector(SEL_STACK0, false);
	expect_fault("ss, not present", &to_ss, X_SS, SEL_STACK0);
	set_segment(SEL_STACK0, 0, FLAT | (SEG_DATA32 & ~SEG_WRITABLE));
	selector(SEL_STACK0, false);
	expect_fault("ss, read only", &to_ss, X_GP, SEL_STACK0);
	set_segment(SEL_STACK0, 0, FLAT | SEG_DATA32 | SEG_DPL(3));
	selector(SEL_STACK0, false);
	expect_fault("ss, DPL 3 at cpl 0", &to_ss, X_GP, SEL_STACK0);
	selector(SEL_STACK0 | 3, true);
	use(&to_ss);
	expect_done("ss, DPL 3 at cpl 3", &to_ss);
	selector(SEL_STACK0 | 3, false);
	expect_fault("ss, RPL 3 at cpl 0", &to_ss, X_GP, SEL_STACK0);
	data(0, SEG_DATA32 | SEG_DPL(3));
	selector(SEL_DATA, false);
	use(&to_fs);
	expect_done("what fs may hold", &to_fs);
	selector(SEL_DATA, false);
	expect_fault("  ss may not", &to_ss, X_GP, SEL_DATA & ~3);
	selector(0, false);
	expect_fault("ss, null", &to_ss, X_GP, 0);
}

/* ------------------------------------------------------------------ other tables */

static void load_gdt(uint32_t base, uint32_t limit)
{
	const struct table_register r = {.limit = limit, .base = base};

	__asm__ volatile("lgdt %0" : : "m"(r));
}

static void load_idt(uint32_t base, uint32_t limit)
{
	const struct table_register r = {.limit = limit, .base = base};

	__asm__ volatile("lidt %0" : : "m"(r));
}

static void read_through(const char *label, uint32_t sel, bool user, uint32_t want)
{
	selector(sel, user);
	expect_done(label, &to_fs);
	check("  read", out.ecx, want);
}

static void gdt_moves(void)
{
	data(0, SEG_DATA32 | SEG_DPL(3));
	memcpy((void *)TABLE, gdt, sizeof(gdt));
	((uint64_t *)TABLE)[SEL_DATA / 8] = segment(OTHER - AREA, FLAT | SEG_DATA32 | SEG_DPL(3));
	selector(SEL_DATA, false);
	use(&to_fs);
	read_through("this GDT", SEL_DATA, false, IN_MEMORY);
	load_gdt(TABLE, sizeof(gdt) - 1);
	read_through("another GDT", SEL_DATA, false, IN_OTHER);
	read_through("another GDT, cpl 3", SEL_DATA, true, IN_OTHER);
	load_gdt((uint32_t)gdt, sizeof(gdt) - 1);
	selector(SEL_DATA, false);
	use(&to_fs);
	load_gdt((uint32_t)gdt, (SEL_DATA | 7u) - 1);
	selector(SEL_DATA, false);
	expect_fault("a byte too short", &to_fs, X_GP, SEL_DATA & ~3);
	load_gdt((uint32_t)gdt, SEL_DATA | 7u);
	read_through("long enough", SEL_DATA, false, IN_MEMORY);
	load_gdt((uint32_t)gdt, sizeof(gdt) - 1);
	set_segment(SEL_SAME, OTHER - AREA, FLAT | SEG_DATA32 | SEG_DPL(3));
	for (unsigned i = 0; i < 3; i++) {
		read_through("two selectors by turns", SEL_DATA, false, IN_MEMORY);
		read_through("  the other", SEL_SAME, false, IN_OTHER);
	}
	/* The same number in the LDT. */
	((uint64_t *)TABLE)[SEL_DATA / 8] = segment(OTHER - AREA, FLAT | SEG_DATA32 | SEG_DPL(3));
	set_segment(SEL_LDT, TABLE, sizeof(gdt) - 1, SEG_LDT | SEG_PRESENT);
	__asm__ volatile("lldt %w0" : : "r"(SEL_LDT));
	read_through("in the LDT", SEL_DATA | 4, false, IN_OTHER);
	read_through("in the GDT", SEL_DATA, false, IN_MEMORY);
	read_through("in the LDT again", SEL_DATA | 4, false, IN_OTHER);
	__asm__ volatile("lldt %w0" : : "r"(0));
	selector(SEL_DATA | 4, false);
	expect_fault("no LDT", &to_fs, X_GP, (SEL_DATA & ~3) | 4);
}

/* The GDT on two pages, so that the half with the test's selector can go while exceptions are delivered. */
static void gdt_remapped(void)
{
	const uint32_t page = TABLE + 0x2000, at = TABLE + 0x1000 - 0x100, frame = TABLE + 0x4000;
	const uint32_t entry = page - 0x1000 + (SEL_SAME & ~7u) - 0x100;

	set_segment(SEL_SAME, 0, FLAT | SEG_DATA32 | SEG_DPL(3) | SEG_ACCESSED);
	memcpy((void *)at, gdt, sizeof(gdt));
	memcpy((void *)frame, (void *)(TABLE + 0x1000), 0x1000);
	*(uint64_t *)(frame + (SEL_SAME & ~7u) - 0x100) =
		segment(OTHER - AREA, FLAT | SEG_DATA32 | SEG_DPL(3) | SEG_ACCESSED);
	paging_on();
	load_gdt(at, sizeof(gdt) - 1);
	for (unsigned user = 0; user < 2; user++) {
		print("GDT in pages, cpl %u\n", user ? 3 : 0);
		selector(SEL_SAME, user);
		use(&to_fs);
		read_through("  first frame", SEL_SAME, user, IN_MEMORY);
		map(TABLE + 0x1000, frame | PTE_ALL);
		read_through("  second frame", SEL_SAME, user, IN_OTHER);
		map(TABLE + 0x1000, (TABLE + 0x1000) | PTE_ALL);
		read_through("  first frame again", SEL_SAME, user, IN_MEMORY);
		map(TABLE + 0x1000, 0);
		selector(SEL_SAME, user);
		expect_fault("  not present", &to_fs, X_PF, 0);
		check("    cr2", out.cr2, entry);
		map(TABLE + 0x1000, (TABLE + 0x1000) | PTE_P);
		read_through("  a supervisor's, read only", SEL_SAME, user, IN_MEMORY);
		map(TABLE + 0x1000, (TABLE + 0x1000) | PTE_ALL);
		*(volatile uint32_t *)pte(TABLE + 0x1000) = frame | PTE_ALL;
		set_cr3(get_cr3());
		read_through("  second frame, by cr3", SEL_SAME, user, IN_OTHER);
		map(TABLE + 0x1000, (TABLE + 0x1000) | PTE_ALL);
	}
	/* A descriptor on two pages. */
	memcpy((void *)(at - 0x34), gdt, sizeof(gdt));
	load_gdt(at - 0x34, sizeof(gdt) - 1);
	read_through("across pages", SEL_SAME, false, IN_MEMORY);
	selector(SEL_SAME, false);
	use(&to_fs);
	*(volatile uint8_t *)(at - 0x34 + (SEL_SAME & ~7u) + 3) = (OTHER - AREA) >> 8;
	read_through("across pages, changed", SEL_SAME, false, IN_OTHER);
	load_gdt((uint32_t)gdt, sizeof(gdt) - 1);
	paging_off();
}

/* ------------------------------------------------------------------ gates */

static void arrives(const char *label, const struct snippet *where, uint32_t cs, uint32_t flag)
{
	in.eflags |= EFLAGS_IF;
	expect_vector(label, &interrupt, DONE_VECTOR, NO_ERROR, where->after + 2);
	check("  cs", out.cs, cs);
	check("  IF", out.eflags & EFLAGS_IF, flag);
}

static void from(bool user)
{
	if (user)
		user_mode();
}

static void gate_changes(bool user)
{
	print("int at cpl %u\n", user ? 3 : 0);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	idt[VECTOR] = gate(KERNEL_CODE, (uint32_t)stop.start, GATE_INT32 | SEG_DPL(3));
	from(user);
	use(&interrupt);
	arrives("  interrupt gate", &stop, KERNEL_CODE, 0);
	idt[VECTOR] = gate(KERNEL_CODE, (uint32_t)stop_too.start, GATE_INT32 | SEG_DPL(3));
	from(user);
	arrives("  another offset", &stop_too, KERNEL_CODE, 0);
	idt[VECTOR] = gate(KERNEL_CODE, (uint32_t)stop.start, GATE_TRAP32 | SEG_DPL(3));
	from(user);
	arrives("  trap gate", &stop, KERNEL_CODE, EFLAGS_IF);
	idt[VECTOR] = gate(KERNEL_CODE, (uint32_t)stop.start, GATE_INT32);
	from(user);
	if (user)
		expect_fault("  DPL 0", &interrupt, X_GP, VECTOR * 8 + 2);
	else
		arrives("  DPL 0", &stop, KERNEL_CODE, 0);
	idt[VECTOR] = gate(KERNEL_CODE, (uint32_t)stop.start, (GATE_INT32 & ~SEG_PRESENT) | SEG_DPL(3));
	from(user);
	expect_fault("  not present", &interrupt, X_NP, VECTOR * 8 + 2);
	idt[VECTOR] = gate(KERNEL_CODE, (uint32_t)stop.start, GATE_CALL32 | SEG_DPL(3));
	from(user);
	expect_fault("  a call gate", &interrupt, X_GP, VECTOR * 8 + 2);

	set_segment(SEL_CODE0, 0, FLAT | SEG_CODE32);
	idt[VECTOR] = gate(SEL_CODE0, (uint32_t)stop.start, GATE_INT32 | SEG_DPL(3));
	from(user);
	use(&interrupt);
	arrives("  another segment", &stop, SEL_CODE0, 0);
	gdt[SEL_CODE0 / 8] &= ~((uint64_t)SEG_ACCESSED << 32);
	from(user);
	arrives("  accessed bit cleared", &stop, SEL_CODE0, 0);
	sdm("3A 3.4.5.1");
	check("    set again", gdt[SEL_CODE0 / 8] >> 40 & 1, 1);
	idt[VECTOR] = gate(SEL_CODE0 | 3, (uint32_t)stop.start, GATE_INT32 | SEG_DPL(3));
	from(user);
	arrives("  with an RPL", &stop, SEL_CODE0, 0);
	set_segment(SEL_CODE0, (uint32_t)stop.start, 0xfff, SEG_CODE32);
	idt[VECTOR] = gate(SEL_CODE0, 0, GATE_INT32 | SEG_DPL(3));
	from(user);
	expect_vector("  with a base", &interrupt, DONE_VECTOR, NO_ERROR,
		      (void *)(stop.after + 2 - stop.start));
	set_segment(SEL_CODE0, 0, FLAT | SEG_CODE32 | SEG_CONFORMING);
	idt[VECTOR] = gate(SEL_CODE0, (uint32_t)stop.start, GATE_INT32 | SEG_DPL(3));
	from(user);
	arrives("  conforming", &stop, SEL_CODE0 | (user ? 3 : 0), 0);
	set_segment(SEL_CODE0, 0, FLAT | SEG_CODE32 | SEG_DPL(3));
	from(user);
	if (!user)
		expect_fault("  DPL 3", &interrupt, X_GP, SEL_CODE0);
	set_segment(SEL_CODE0, 0, FLAT | SEG_DATA32);
	from(user);
	expect_fault("  data", &interrupt, X_GP, SEL_CODE0);
	set_segment(SEL_CODE0, 0, FLAT | (SEG_CODE32 & ~SEG_PRESENT));
	from(user);
	expect_fault("  not present", &interrupt, X_NP, SEL_CODE0);
	idt[VECTOR] = gate(0, (uint32_t)stop.start, GATE_INT32 | SEG_DPL(3));
	gdt[0] = gdt[KERNEL_CODE / 8];
	from(user);
	expect_fault("  null", &interrupt, X_GP, 0);
	gdt[0] = 0;
}

static void idt_moves(void)
{
	idt[VECTOR] = gate(KERNEL_CODE, (uint32_t)stop.start, GATE_INT32 | SEG_DPL(3));
	memcpy((void *)TABLE, idt, sizeof(idt));
	((uint64_t *)TABLE)[VECTOR] = gate(KERNEL_CODE, (uint32_t)stop_too.start, GATE_INT32 | SEG_DPL(3));
	use(&interrupt);
	arrives("this IDT", &stop, KERNEL_CODE, 0);
	load_idt(TABLE, sizeof(idt) - 1);
	arrives("another IDT", &stop_too, KERNEL_CODE, 0);
	load_idt((uint32_t)idt, VECTOR * 8 + 6);
	expect_fault("a byte too short", &interrupt, X_GP, VECTOR * 8 + 2);
	load_idt((uint32_t)idt, VECTOR * 8 + 7);
	arrives("long enough", &stop, KERNEL_CODE, 0);

	/* On two pages: vectors up to 3f, and those from 40 on. */
	const uint32_t at = TABLE + 0x1000 - 0x200, page = TABLE + 0x1000, frame = TABLE + 0x4000;
	memcpy((void *)at, idt, sizeof(idt));
	memcpy((void *)frame, (void *)page, 0x1000);
	((uint64_t *)frame)[VECTOR - 0x40] =
		gate(KERNEL_CODE, (uint32_t)stop_too.start, GATE_INT32 | SEG_DPL(3));
	paging_on();
	load_idt(at, sizeof(idt) - 1);
	for (unsigned user = 0; user < 2; user++) {
		print("IDT in pages, cpl %u\n", user ? 3 : 0);
		from(user);
		use(&interrupt);
		arrives("  first frame", &stop, KERNEL_CODE, 0);
		map(page, frame | PTE_ALL);
		from(user);
		arrives("  second frame", &stop_too, KERNEL_CODE, 0);
		map(page, 0);
		from(user);
		expect_fault("  not present", &interrupt, X_PF, 0);
		check("    cr2", out.cr2, at + VECTOR * 8);
		map(page, page | PTE_P);
		from(user);
		arrives("  a supervisor's", &stop, KERNEL_CODE, 0);
		map(page, page | PTE_ALL);
	}
	load_idt((uint32_t)idt, sizeof(idt) - 1);
	paging_off();
}

static void stack_of(const char *label, uint32_t ss, uint32_t esp)
{
	user_mode();
	expect_vector(label, &interrupt, DONE_VECTOR, NO_ERROR, stop.after + 2);
	check("  ss", out.ss, ss);
	check("  esp", out.esp, esp);
}

/* Where the TSS leads. */
static void inner_stacks(void)
{
	const uint32_t esp0 = tss.esp0, ss0 = tss.ss0;

	idt[VECTOR] = gate(KERNEL_CODE, (uint32_t)stop.start, GATE_INT32 | SEG_DPL(3));
	user_mode();
	use(&interrupt);
	stack_of("the stack of the TSS", ss0, esp0 - 20);
	tss.esp0 = STACK_0;
	stack_of("another ESP0", ss0, STACK_0 - 20);
	check("  eip pushed", MEM32(STACK_0 - 20), (uint32_t)interrupt.after);
	check("  cs pushed", MEM32(STACK_0 - 16), USER_CODE);
	check("  esp pushed", MEM32(STACK_0 - 8), USER_STACK);
	check("  ss pushed", MEM32(STACK_0 - 4), USER_DATA);
	tss.esp0 = STACK_0 + 8; /* the frame on two pages */
	stack_of("across pages", ss0, STACK_0 + 8 - 20);
	check("  ss pushed", MEM32(STACK_0 + 4), USER_DATA);
	tss.esp0 = STACK_0 - 3;
	stack_of("not aligned", ss0, STACK_0 - 23);
	set_segment(SEL_STACK0, 0, FLAT | SEG_DATA32);
	tss.esp0 = STACK_0;
	tss.ss0 = SEL_STACK0;
	user_mode();
	use(&interrupt);
	stack_of("another SS0", SEL_STACK0, STACK_0 - 20);
	set_segment(SEL_STACK0, 0x1000, FLAT | SEG_DATA32);
	MEM32(STACK_0 + 0x1000 - 4) = 0;
	stack_of("  with a base", SEL_STACK0, STACK_0 - 20);
	check("  ss pushed there", MEM32(STACK_0 + 0x1000 - 4), USER_DATA);
	tss.esp0 = esp0;
	tss.ss0 = ss0;
}

/* ------------------------------------------------------------------ iret */

static void frame(uint32_t cs, uint32_t eflags, uint32_t ss)
{
	uint32_t *top = (uint32_t *)(in.esp -= 20);

	top[0] = (uint32_t)stop.start;
	top[1] = cs;
	top[2] = eflags | 2;
	top[3] = USER_STACK;
	top[4] = ss;
}

static void user_frame(void)
{
	frame(SEL_CODE3, EFLAGS_CF | EFLAGS_DF, SEL_STACK3);
}

static void user_segments(uint32_t code_base, uint32_t code, uint32_t stack_base, uint32_t stack)
{
	set_segment(SEL_CODE3, code_base, FLAT | code | SEG_DPL(3));
	set_segment(SEL_STACK3, stack_base, FLAT | stack | SEG_DPL(3));
}

static void returns(void)
{
	user_segments(0, SEG_CODE32, 0, SEG_DATA32);
	user_frame();
	use(&iretd);
	user_frame();
	expect_done("iret to cpl 3", &iretd);
	check("  cs", out.cs, SEL_CODE3);
	check("  ss", out.ss, SEL_STACK3);
	check("  esp", out.esp, USER_STACK);
	check("  flags", out.eflags & (EFLAGS_CF | EFLAGS_DF), EFLAGS_CF | EFLAGS_DF);
	gdt[SEL_CODE3 / 8] &= ~((uint64_t)SEG_ACCESSED << 32);
	gdt[SEL_STACK3 / 8] &= ~((uint64_t)SEG_ACCESSED << 32);
	user_frame();
	expect_done("  accessed bits cleared", &iretd);
	sdm("3A 3.4.5.1");
	check("    set again, code", gdt[SEL_CODE3 / 8] >> 40 & 1, 1);
	sdm("3A 3.4.5.1");
	check("    set again, stack", gdt[SEL_STACK3 / 8] >> 40 & 1, 1);
	user_segments(0, SEG_CODE32 & ~SEG_PRESENT, 0, SEG_DATA32);
	user_frame();
	expect_fault("  code not present", &iretd, X_NP, SEL_CODE3 & ~3);
	user_segments(0, SEG_DATA32, 0, SEG_DATA32);
	user_frame();
	expect_fault("  code is data", &iretd, X_GP, SEL_CODE3 & ~3);
	user_segments(0, SEG_CODE32, 0, SEG_DATA32 & ~SEG_WRITABLE);
	user_frame();
	expect_fault("  stack read only", &iretd, X_GP, SEL_STACK3 & ~3);
	user_segments(0, SEG_CODE32, 0, SEG_DATA32);
	set_segment(SEL_STACK3, 0, FLAT | SEG_DATA32);
	user_frame();
	expect_fault("  stack of DPL 0", &iretd, X_GP, SEL_STACK3 & ~3);
	user_segments(0, SEG_CODE32, 0, SEG_DATA32);
	set_segment(SEL_CODE3, 0, FLAT | SEG_CODE32);
	user_frame();
	expect_fault("  code of DPL 0", &iretd, X_GP, SEL_CODE3 & ~3);

	/* Data segments that only CPL 0 may have are gone afterwards, flat ones too. */
	user_segments(0, SEG_CODE32, 0, SEG_DATA32);
	in.ds = in.es = in.fs = in.gs = USER_DATA;
	user_frame();
	expect_done("  data segments of DPL 3", &iretd);
	check("    fs", out.fs, USER_DATA);
	in.ds = in.es = USER_DATA;
	in.fs = KERNEL_DATA;
	user_frame();
	expect_done("  fs of DPL 0", &iretd);
	check("    fs", out.fs, 0);
	check("    ds", out.ds, USER_DATA);
	user_frame();
	expect_done("  all of DPL 0", &iretd);
	check("    ds", out.ds, 0);

	/* To CPL 0, the frame across a page. */
	in.esp = ((uint32_t)snippet_stack + 0x1800) & ~0xfffu;
	in.esp += 16;
	frame(KERNEL_CODE, EFLAGS_CF, 0);
	expect_done("frame across pages", &iretd);
	in.eflags |= EFLAGS_NT; /* back link 0 */
	frame(KERNEL_CODE, 0, 0);
	expect_fault("NT", &iretd, X_TS, 0);
	frame(KERNEL_CODE, EFLAGS_NT | EFLAGS_ID | EFLAGS_IOPL, 0);
	expect_done("NT in the frame", &iretd);
	check("  eflags", out.eflags & (EFLAGS_NT | EFLAGS_ID | EFLAGS_IOPL),
	      EFLAGS_NT | EFLAGS_ID | EFLAGS_IOPL);
	frame(KERNEL_CODE, EFLAGS_TF, 0);
	expect_vector("TF in the frame", &iretd, X_DB, NO_ERROR, stop.after);
	frame(KERNEL_CODE, EFLAGS_RF, 0);
	expect_done("RF in the frame", &iretd);
	sdm("3B 18.3.1.1");
	check("  RF", out.eflags & EFLAGS_RF, 0);
}

void test(void)
{
	MEM32(AREA) = IN_MEMORY;
	MEM32(OTHER) = IN_OTHER;
	for (unsigned user = 0; user < 2; user++)
		for (unsigned i = 0; i < LOADS; i++)
			register_changes(i, user);
	limits();
	stack_segment();
	gdt_moves();
	gdt_remapped();
	gate_changes(false);
	gate_changes(true);
	idt_moves();
	inner_stacks();
	returns();
}
