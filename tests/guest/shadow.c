/*
 * When a pending interrupt is taken: after sti's shadow, at once after popf and iret, out of hlt (SDM vol. 2B
 * STI, vol. 3A 6.8.1). The timer's request is made to wait in the 8259 before each snippet starts, so that
 * the place of its delivery is the same on every run.
 */
#include "paging.h"

#define IRQ0_VECTOR 0x20
#define PAGE	    PLAYGROUND

CODE_THEN(sti_nop, "sti; nop", "", "nop; nop");
CODE_THEN(sti_cli, "sti; cli", "", "nop; nop");
CODE_THEN(sti_pushf, "sti; pushfl", "", "nop; nop");
CODE_THEN(sti_hlt, "sti; hlt", "", "nop");
CODE_THEN(sti_jmp, "sti; jmp sti_jmp_at; nop; nop", "", "nop");
CODE_THEN(sti_ret, "pushl $sti_ret_at; sti; ret; nop", "", "nop");
CODE_THEN(sti_load, "sti; movl in, %eax", "", "nop");
CODE_THEN(sti_ud, "sti", "ud2", "nop");
CODE_THEN(sti_int, "sti", "int $0x30", "nop");
CODE_THEN(popf_if, "pushl $0x202; popfl", "", "nop; nop");
CODE_THEN(popf_clear, "pushl $2; popfl", "nop", "nop");
CODE_THEN(iret_if, "pushl $0x202; pushl $0x08; pushl $iret_if_at; iretl", "", "nop; nop");
CODE_THEN(hlt, "", "hlt", "nop");
CODE_THEN(sti_mov_cr, "sti; movl %cr0, %eax", "", "nop");
CODE_THEN(sti_cpuid, "xorl %eax, %eax; sti; cpuid", "", "nop");
CODE_THEN(sti_in, "sti; inb $0x80, %al", "", "nop");
CODE_THEN(sti_out, "sti; outb %al, $0x80", "", "nop");
CODE_THEN(sti_rep, "movl $in, %esi; movl $out, %edi; movl $4, %ecx; sti; nop", "", "rep movsb");
CODE_THEN(mov_ss, "movl %ss, %eax; pushl $0x202; popfl", "", "nop");
CODE_THEN(sti_twice_off, "sti; nop", "", "cli");
CODE_THEN(loop_forever, "", "1: jmp 1b", "");
CODE_THEN(loop_memory, "", "1: incl %eax; movl %eax, in; jmp 1b", "");
CODE_THEN(loop_call, "jmp 1f; 2: ret", "1: call 2b; jmp 1b", "");
CODE_THEN(loop_indirect, "movl $loop_indirect_at, %eax", "jmp *%eax", "");
CODE_THEN(loop_rep, "movl $-1, %ecx; movl $in, %esi; movl $in, %edi",
	  "1: movl $1000, %ecx; rep lodsb; movl $in, %esi; jmp 1b", "");

/* Between CPL 3 and 0 and back, with interrupts on; what calls the kernel does so with ESP in ebp, EIP in
 * edi. */
CODE_THEN(sti_sysexit, "movl $sti_sysexit_at, %edx; movl $user_stack + 4096, %ecx; sti; sysexit", "",
	  "nop; nop");
CODE_THEN(popf_sysexit, "movl $popf_sysexit_at, %edx; movl $user_stack + 4096, %ecx; pushl $0x202; popfl",
	  "sysexit", "nop; nop");
CODE_THEN(iret_out,
	  "pushl $0x23; pushl $user_stack + 4096; pushl $0x202; pushl $0x1b; pushl $iret_out_at; iretl", "",
	  "nop; nop");
CODE_THEN(iret_in, "pushl $2; pushl $0x08; pushl $1f; iretl; 1: sti; nop", "", "nop");
CODE_THEN(loop_fs, "movl %ds, %eax", "1: movl %eax, %fs; movl %eax, %gs; pushl %ds; popl %es; jmp 1b", "");
CODE_THEN(loop_int, "", "1: int $0x61; jmp 1b", "");
CODE_THEN(loop_sysenter, "movl %esp, %ebp; movl $loop_sysenter_at, %edi", "sysenter", "");
/* Where an interrupt must not be taken: behind each load of SS. */
CODE_THEN(loop_ss, "movl %ss, %eax; movl %esp, %ebx",
	  "1: movl %eax, %ss; loop_ss_1: movl %ebx, %esp; nop; pushl %eax; popl %ss; loop_ss_2: nop; movl "
	  "%eax, %ss; "
	  "loop_ss_3: movl 4(%esp), %ecx; jmp 1b",
	  "");
LABEL(loop_ss_1);
LABEL(loop_ss_2);
LABEL(loop_ss_3);
/* The same where the next instruction finds a clean page each time: edi page, esi its entry, edx what it is.
 */
CODE_THEN(loop_clean, "movl %ss, %ecx",
	  "1: cli; movl %edx, (%esi); invlpg (%edi); sti; loop_clean_1: movl %eax, (%edi); nop; "
	  "movl %edx, (%esi); invlpg (%edi); movl %ecx, %ss; loop_clean_2: movl %eax, (%edi); nop; jmp 1b",
	  "");
LABEL(loop_clean_1);
LABEL(loop_clean_2);
__asm__(".text\nhandle_int: iretl\nhandle_sysenter: movl %edi, %edx; movl %ebp, %ecx; sti; sysexit");
LABEL(handle_int);
LABEL(handle_sysenter);

/* Channel 0 once, after a moment: mode 0, and wait until the request is in the 8259. */
static void raise_irq0(void)
{
	outb(0x20, 0x20); /* nothing in service */
	outb(0x21, 0xfe);
	outb(0x43, 0x30);
	outb(0x40, 100);
	outb(0x40, 0);
	outb(0x20, 0x0a); /* OCW3: read the request register */
	while (!(inb(0x20) & 1))
		;
}

/* Let it go without being taken: the request of an edge-triggered line stays until acknowledged. */
static void drop_irq0(void)
{
	outb(0x20, 0x0c); /* poll mode: the read that follows acknowledges */
	inb(0x20);
	outb(0x20, 0x20);
	outb(0x21, 0xff);
}

static void taken(const char *label, const struct snippet *code)
{
	raise_irq0();
	expect_fault(label, code, IRQ0_VECTOR, NO_ERROR);
	check("  IF pushed", out.eflags & EFLAGS_IF, EFLAGS_IF);
	outb(0x20, 0x20);
	outb(0x21, 0xff);
}

static void timer_later(uint32_t count)
{
	outb(0x20, 0x20);
	outb(0x21, 0xfe);
	outb(0x43, 0x30);
	outb(0x40, count);
	outb(0x40, count >> 8);
}

/* A loop with interrupts on can't run away from one, whatever it is made of. */
static void interrupted(const char *label, const struct snippet *code)
{
	timer_later(0x2000);
	in.eflags |= EFLAGS_IF;
	run(code);
	check(label, out.vector, IRQ0_VECTOR);
	outb(0x20, 0x20);
	timer_later(0x2000);
	user_mode();
	in.eflags |= EFLAGS_IF;
	run(code);
	check("  at cpl 3", out.vector, IRQ0_VECTOR);
	check("  cs", out.cs, USER_CODE);
	outb(0x20, 0x20);
	outb(0x21, 0xff);
}

/* The same, where it may be taken at CPL 0 also. */
static void interrupted_inside(const char *label, const struct snippet *code)
{
	timer_later(0x2000);
	user_mode();
	in.eflags |= EFLAGS_IF;
	run(code);
	check(label, out.vector, IRQ0_VECTOR);
	check("  IF", out.eflags & EFLAGS_IF, EFLAGS_IF);
	outb(0x20, 0x20);
	outb(0x21, 0xff);
}

/* A timer that comes at ever other times into a loop of loads of SS. */
static void behind_ss(void)
{
	uint32_t wrong = 0, elsewhere = 0;

	for (uint32_t i = 0; i < 100; i++) {
		timer_later(0x80 + i);
		if (i & 1)
			user_mode();
		in.eflags |= EFLAGS_IF;
		run(&loop_ss);
		elsewhere += out.vector != IRQ0_VECTOR;
		wrong += out.eip == (uint32_t)loop_ss_1 || out.eip == (uint32_t)loop_ss_2 ||
			 out.eip == (uint32_t)loop_ss_3;
		outb(0x20, 0x20);
	}
	outb(0x21, 0xff);
	check("loop of loads of ss: not interrupted", elsewhere, 0);
	check("  right behind one", wrong, 0);
}

static void behind_a_clean_page(void)
{
	uint32_t wrong = 0, elsewhere = 0;

	paging_on();
	for (uint32_t i = 0; i < 100; i++) {
		timer_later(0x80 + i);
		in.eflags |= EFLAGS_IF;
		in.edi = PAGE;
		in.esi = (uint32_t)pte(PAGE);
		in.edx = PAGE | PTE_P | PTE_W | PTE_A;
		run(&loop_clean);
		elsewhere += out.vector != IRQ0_VECTOR;
		wrong += out.eip == (uint32_t)loop_clean_1 || out.eip == (uint32_t)loop_clean_2;
		outb(0x20, 0x20);
	}
	outb(0x21, 0xff);
	paging_off();
	check("loop of stores to a clean page: not interrupted", elsewhere, 0);
	check("  right behind sti or a load of ss", wrong, 0);
}

/* Interrupts on both sides of sysenter and sysexit find the state that belongs there. */
static void calling(void)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < 100; i++) {
		timer_later(0x80 + i);
		user_mode();
		in.eflags |= EFLAGS_IF;
		run(&loop_sysenter);
		wrong += out.vector != IRQ0_VECTOR || !(out.eflags & EFLAGS_IF) || out.cs != USER_CODE ||
			 out.ss != USER_DATA || out.esp != USER_STACK ||
			 out.eip < (uint32_t)loop_sysenter.start || out.eip > (uint32_t)loop_sysenter.at;
		outb(0x20, 0x20);
	}
	outb(0x21, 0xff);
	check("loop of sysenter and sysexit: interrupted elsewhere", wrong, 0);
}

void test(void)
{
	taken("sti; nop |", &sti_nop);
	taken("sti; pushf |", &sti_pushf);
	taken("sti; hlt |", &sti_hlt);
	taken("sti; jmp |", &sti_jmp);
	taken("sti; ret |", &sti_ret);
	taken("sti; mov from memory |", &sti_load);
	taken("sti; mov from cr0 |", &sti_mov_cr);
	taken("sti; cpuid |", &sti_cpuid);
	taken("sti; in |", &sti_in);
	taken("sti; out |", &sti_out);
	taken("sti; nop | rep movsb", &sti_rep);
	taken("sti; nop | cli", &sti_twice_off);
	taken("popf |", &popf_if);
	taken("iret |", &iret_if);
	taken("mov from ss; popf |", &mov_ss);

	raise_irq0();
	expect_done("sti; cli: not taken", &sti_cli);
	drop_irq0();
	raise_irq0();
	expect_done("popf, IF off: not taken", &popf_clear);
	drop_irq0();
	raise_irq0();
	expect_fault("sti; ud2: the fault first", &sti_ud, X_UD, NO_ERROR);
	check("  IF pushed", out.eflags & EFLAGS_IF, EFLAGS_IF);
	drop_irq0();
	raise_irq0();
	expect_trap("sti; int: the interrupt of the instruction first", &sti_int, DONE_VECTOR, NO_ERROR);
	drop_irq0();

	write_msr(0x174, KERNEL_CODE);
	write_msr(0x175, RING0_STACK - 64);
	write_msr(0x176, (uint32_t)handle_sysenter);
	taken("sti; sysexit |", &sti_sysexit);
	check("  cs", out.cs, USER_CODE);
	raise_irq0();
	expect_fault("popf | sysexit", &popf_sysexit, IRQ0_VECTOR, NO_ERROR);
	check("  cs", out.cs, KERNEL_CODE);
	outb(0x20, 0x20);
	taken("iret to cpl 3 |", &iret_out);
	check("  cs", out.cs, USER_CODE);
	taken("iret, IF off; sti; nop |", &iret_in);

	/* a context that starts with IF set is interrupted before its first instruction */
	raise_irq0();
	in.eflags |= EFLAGS_IF;
	expect_fault("IF set by iret into the snippet", &hlt, IRQ0_VECTOR, NO_ERROR);
	outb(0x20, 0x20);
	raise_irq0();
	user_mode();
	in.eflags |= EFLAGS_IF;
	expect_fault("IF set by iret into cpl 3", &hlt, IRQ0_VECTOR, NO_ERROR);
	check("  cs", out.cs, USER_CODE);
	check("  ss", out.ss, USER_DATA);
	outb(0x20, 0x20);

	/* hlt until the timer comes, some milliseconds from now */
	timer_later(0x2000);
	in.eflags |= EFLAGS_IF;
	expect_trap("hlt, woken by the timer", &hlt, IRQ0_VECTOR, NO_ERROR);
	outb(0x20, 0x20);
	outb(0x21, 0xff);

	interrupted("jmp to itself", &loop_forever);
	interrupted("loop with a store", &loop_memory);
	interrupted("loop of calls", &loop_call);
	interrupted("indirect jmp to itself", &loop_indirect);
	interrupted("loop of rep lodsb", &loop_rep);
	interrupted("loop of segment loads", &loop_fs);
	set_gate(0x61, handle_int, GATE_INT32 | SEG_DPL(3));
	interrupted("loop of int", &loop_int);
	set_gate(0x61, handle_int, GATE_TRAP32 | SEG_DPL(3));
	interrupted_inside("loop of int through a trap gate", &loop_int);
	behind_ss();
	behind_a_clean_page();
	calling();
}
