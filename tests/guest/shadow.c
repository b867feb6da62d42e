/*
 * When a pending interrupt is taken: after sti's shadow, at once after popf and iret, out of hlt (SDM vol. 2B
 * STI, vol. 3A 6.8.1). The timer's request is made to wait in the 8259 before each snippet starts, so that
 * the place of its delivery is the same on every run.
 */
#include "guest.h"

#define IRQ0_VECTOR 0x20

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
}
