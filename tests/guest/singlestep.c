/*
 * TF (SDM vol. 3B 18.3.1.4): a trap after every instruction, and the instructions around which it does not
 * come, or comes late. Every step is taken by running on from where the last one ended, with everything
 * that the trap saved, so what is printed is the sequence of places.
 */
#include "guest.h"

#define STEPS 24u

CODE_THEN(plain, "nop; movl $5, %eax; addl %eax, %eax", "nop", "nop");
CODE_THEN(branches, "movl $3, %ecx; 1: loop 1b; jmp 2f; nop; 2: call 3f; jmp branches_at; 3: ret", "nop", "");
CODE_THEN(strings, "movl $in, %esi; movl $in, %edi; movl $3, %ecx; cld", "rep movsb", "nop");
CODE_THEN(strings_none, "xorl %ecx, %ecx", "rep movsb", "nop");
CODE_THEN(mov_ss, "movl %ss, %eax", "movl %eax, %ss", "nop; nop");
CODE_THEN(pop_ss, "pushl %ss", "popl %ss", "nop; nop");
CODE_THEN(pushf_popf, "pushfl; popl %eax; pushl %eax", "popfl", "nop");
CODE_THEN(popf_off, "pushl $2", "popfl", "nop; nop");
CODE_THEN(popf_on, "pushl $0x102", "popfl", "nop; nop");
CODE_THEN(iret_off, "pushl $2; pushl $0x08; pushl $iret_off_after", "iretl", "nop; nop");
CODE_THEN(iret_on, "pushl $0x102; pushl $0x08; pushl $iret_on_after", "iretl", "nop; nop");
CODE_THEN(cli_sti, "cli", "cli", "nop");
CODE_THEN(int_soft, "", "int $0x60", "nop");
CODE_THEN(fault, "nop", "ud2", "");
CODE_THEN(cpuid, "xorl %eax, %eax", "cpuid", "nop");
CODE_THEN(mov_cr, "", "movl %cr0, %eax", "movl %eax, %cr0");
CODE_THEN(wrmsr_, "movl $0x174, %ecx; xorl %eax, %eax; xorl %edx, %edx", "wrmsr", "nop");
CODE_THEN(lock_add, "", "lock; addl $0, in", "nop");
CODE_THEN(port, "", "outb %al, $0x80", "inb $0x80, %al");
CODE_THEN(self_modify, "movb $0x40, 1f", "1: nop", "nop");
CODE_THEN(far_jump, "", "ljmp $0x08, $far_jump_after", "nop");
CODE_THEN(user_page, "pushal; popal", "enter $8, $2", "leave; nop");
CODE_THEN(fpu, "fninit", "fld1", "fstp %st(0)");

static uint32_t steps[STEPS];

/* Step through code; returns how many traps there were before something else came. */
static unsigned step(const struct snippet *code, bool user, bool first)
{
	unsigned n = 0;
	uint32_t eip = (uint32_t)code->start;
	struct snippet here = *code;

	if (user)
		user_mode();
	in.eflags = 2 | (first ? EFLAGS_TF : 0);
	in.edi = 0;
	do {
		struct state next;

		here.start = (const char *)eip;
		run(&here);
		next = out;
		if (out.vector != X_DB)
			break;
		if (n < STEPS)
			steps[n] = out.eip;
		n++;
		eip = out.eip;
		in = next;
		in.eflags = out.eflags | EFLAGS_TF; /* goes on even where the code has turned TF off itself */
		if (!(out.eflags & EFLAGS_TF))
			in.eflags = out.eflags;
	} while (n < 100);
	return n;
}

/* The offsets of the traps in order, from the start of the snippet, as one line; then what ended them. */
static void trace(const char *label, const struct snippet *code, bool first, unsigned vector,
		  const uint8_t *want)
{
	for (unsigned user = 0; user < 2; user++) {
		unsigned n, wrong = 0;

		/* those that need CPL 0 */
		if (user && (code == &mov_cr || code == &wrmsr_ || code == &cli_sti || code == &port ||
			     code == &mov_ss || code == &iret_off || code == &iret_on || code == &far_jump))
			continue;
		n = step(code, user, first);
		print("%s, cpl %u:", label, user ? 3 : 0);
		for (unsigned i = 0; i < n && i < STEPS; i++) {
			print(" %u", steps[i] - (uint32_t)code->start);
			wrong += !want[i] || steps[i] - (uint32_t)code->start != want[i];
		}
		print("\n");
		wrong += n < STEPS && want[n] != 0;
		check("  steps wrong", wrong, 0);
		check("  ended by", out.vector, vector);
	}
}

#define TRACE(label, code, first, vector, ...)                                                               \
	do {                                                                                                 \
		static const uint8_t want[STEPS + 1] = {__VA_ARGS__};                                        \
		trace(label, &code, first, vector, want);                                                    \
	} while (0)

static void breakpoint_status(void)
{
	set_db6(0);
	in.eflags |= EFLAGS_TF;
	run(&plain);
	check("dr6 after a step: BS", get_db6() & 0xe00f, 0x4000);
	in.eflags |= EFLAGS_TF;
	run(&fault);
	run(&plain);
	check("TF is cleared in the handler", out.vector, DONE_VECTOR);
	set_db6(0);
	/* a software interrupt is not followed by a trap: TF is cleared with it, and pushed set */
	in.eflags |= EFLAGS_TF;
	expect_trap("int n under TF", &int_soft, 0x60, NO_ERROR);
	check("  TF pushed", out.eflags & EFLAGS_TF, EFLAGS_TF);
	check("  BS", get_db6() & 0x4000, 0);
}

void test(void)
{
	set_default_gate(0x60, 3);
	TRACE("plain", plain, true, DONE_VECTOR, 1, 6, 8, 9, 10);
	TRACE("branches", branches, true, DONE_VECTOR, 5, 5, 5, 7, 10, 17, 15, 18, 19);
	TRACE("rep movsb: every round", strings, true, DONE_VECTOR, 5, 10, 15, 16, 16, 16, 18, 19);
	TRACE("rep movsb, none", strings_none, true, DONE_VECTOR, 2, 4, 5);
	TRACE("mov ss: no trap before the next has run", mov_ss, true, DONE_VECTOR, 2, 5, 6);
	TRACE("pop ss", pop_ss, true, DONE_VECTOR, 1, 3, 4);
	TRACE("pushf; popf", pushf_popf, true, DONE_VECTOR, 1, 2, 3, 4, 5);
	TRACE("popf, TF off: still trapped itself", popf_off, true, DONE_VECTOR, 2, 3);
	TRACE("popf, TF on: from the next on", popf_on, false, DONE_VECTOR, 7, 8);
	TRACE("iret, TF off", iret_off, true, DONE_VECTOR, 2, 4, 9, 10);
	TRACE("iret, TF on", iret_on, false, DONE_VECTOR, 14, 15);
	TRACE("cli", cli_sti, true, DONE_VECTOR, 1, 2, 3);
	TRACE("ud2: the fault, no trap", fault, true, X_UD, 1);
	TRACE("int", int_soft, true, 0x60, 0);
	TRACE("cpuid", cpuid, true, DONE_VECTOR, 2, 4, 5);
	TRACE("mov cr0", mov_cr, true, DONE_VECTOR, 3, 6);
	TRACE("wrmsr", wrmsr_, true, DONE_VECTOR, 5, 7, 9, 11, 12);
	TRACE("lock add", lock_add, true, DONE_VECTOR, 8, 9);
	TRACE("in and out", port, true, DONE_VECTOR, 2, 4);
	TRACE("next instruction patched", self_modify, true, DONE_VECTOR, 7, 8, 9);
	TRACE("far jmp", far_jump, true, DONE_VECTOR, 7, 8);
	TRACE("fpu", fpu, true, DONE_VECTOR, 2, 4, 6);
	TRACE("enter, leave", user_page, true, DONE_VECTOR, 1, 2, 6, 7, 8);
	breakpoint_status();
}
