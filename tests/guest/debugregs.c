/*
 * Debug registers (SDM vol. 3B 18.2, 18.3): breakpoints on instructions (faults), on data and on ports
 * (traps), the general-detect fault, and what DR6 says of each.
 */
#include "guest.h"

#define DR6_B(n)   (1u << (n))
#define DR6_BD	   0x2000u
#define DR6_BS	   0x4000u
#define DR6_SEEN   0xe00fu
#define DR7_L(n)   (1u << (2 * (n)))
#define DR7_G(n)   (2u << (2 * (n)))
#define DR7_GD	   0x2000u
#define DR7_EXEC   0u
#define DR7_WRITE  1u
#define DR7_IO	   2u
#define DR7_ACCESS 3u
/* Breakpoint n: enabled, kind and length (0: 1, 1: 2, 3: 4 bytes) */
#define DR7_SET(n, kind, length) (DR7_G(n) | (kind) << (16 + 4 * (n)) | (uint32_t)(length) << (18 + 4 * (n)))

uint8_t watched[32] __attribute__((aligned(16)));

CODE_THEN(plain, "nop", "movl $7, %eax", "movl $8, %ecx");
CODE_THEN(write4, "", "movl %eax, watched + 8", "nop");
CODE_THEN(write1, "", "movb %al, watched + 9", "nop");
CODE_THEN(write_unaligned, "", "movl %eax, watched + 6", "nop");
CODE_THEN(read4, "", "movl watched + 8, %eax", "nop");
CODE_THEN(add4, "", "addl %eax, watched + 8", "nop");
CODE_THEN(write_below, "", "movl %eax, watched + 4", "nop");
CODE_THEN(fst8, "fninit; fld1", "fstpl watched + 4", "nop");
CODE_THEN(movs, "movl $watched + 16, %esi; movl $watched, %edi; movl $16, %ecx; cld", "rep movsb", "nop");
CODE_THEN(stos, "movl $watched, %edi; movl $4, %ecx; cld", "rep stosl", "nop");
CODE_THEN(push, "movl $watched + 12, %esp", "pushl %eax", "movl $user_stack + 4096, %esp");
CODE_THEN(call, "movl $watched + 12, %esp", "call call_after", "movl $user_stack + 4096, %esp");
CODE_THEN(xchg, "", "xchgl %eax, watched + 8", "nop");
CODE_THEN(lock_inc, "", "lock; incl watched + 8", "nop");
CODE_THEN(port_out, "", "outb %al, $0x80", "nop");
CODE_THEN(port_in, "", "inb $0x81, %al", "nop");
CODE_THEN(write_fault, "", "movl %eax, watched + 8", "ud2");
CODE(to_dr7, "", "movl %eax, %dr7");
CODE(from_dr0, "", "movl %dr0, %eax");
CODE(from_dr4, "", "movl %dr4, %eax");
CODE(to_dr5, "", "movl %eax, %dr5");
CODE_THEN(loop, "movl $3, %ecx", "nop", "decl %ecx; jnz loop_at");
CODE_THEN(stepped, "nop", "movl $1, watched + 8", "nop");

static void arm(unsigned n, const void *address, uint32_t kind, uint32_t length)
{
	switch (n) {
	case 0:
		set_db0((uint32_t)address);
		break;
	case 1:
		set_db1((uint32_t)address);
		break;
	case 2:
		set_db2((uint32_t)address);
		break;
	default:
		set_db3((uint32_t)address);
	}
	set_db6(0);
	set_db7(get_db7() | DR7_SET(n, kind, length));
}

static void disarm(void)
{
	set_db7(0);
	set_db6(0);
	/* a B bit may be set by a register that is not enabled (SDM vol. 3B 18.2.3): none may match */
	set_db0(0);
	set_db1(0);
	set_db2(0);
	set_db3(0);
}

static void hit(uint32_t bits)
{
	check("  dr6", get_db6() & DR6_SEEN, bits);
	disarm();
}

static void registers(void)
{
	set_db0(0x12345678);
	set_db1(0x9abcdef0);
	set_db2(0xfedcba98);
	set_db3(0x76543210);
	check("dr0", get_db0(), 0x12345678);
	check("dr1", get_db1(), 0x9abcdef0);
	check("dr2", get_db2(), 0xfedcba98);
	check("dr3", get_db3(), 0x76543210);
	set_db6(0);
	check("dr6 after 0", get_db6(), 0xffff0ff0);
	set_db7(0);
	check("dr7 after 0", get_db7(), 0x400);
	set_db7(0x00f00300);
	check("dr7, LE GE and fields", get_db7(), 0x00f00700);
	set_db7(0);
	expect_done("dr4 is dr6", &from_dr4);
	check("  eax", out.eax, 0xffff0ff0);
	in.eax = 0x00f00000;
	expect_done("dr5 is dr7", &to_dr5);
	check("  dr7", get_db7(), 0x00f00400);
	set_db7(0);
	set_cr4(get_cr4() | CR4_DE);
	expect_fault("dr4 with CR4.DE", &from_dr4, X_UD, NO_ERROR);
	expect_fault("dr5 with CR4.DE", &to_dr5, X_UD, NO_ERROR);
	set_cr4(get_cr4() & ~CR4_DE);

	set_db6(0);
	set_db7(DR7_GD);
	sdm("3B 18.2.4");
	expect_fault("general detect, read of dr0", &from_dr0, X_DB, NO_ERROR);
	sdm("3B 18.2.4");
	check("  GD is off again", get_db7() & DR7_GD, 0);
	sdm("3B 18.2.4");
	check("  dr6", get_db6() & DR6_SEEN, DR6_BD);
	set_db6(0);
	set_db7(DR7_GD);
	sdm("3B 18.2.4");
	expect_fault("general detect, write of dr7", &to_dr7, X_DB, NO_ERROR);
	set_db7(DR7_GD);
	user_mode();
	expect_fault("general detect, cpl 3: #GP", &from_dr0, X_GP, 0);
	run(&from_dr0); /* GD is still on, and only a #DB turns it off */
	disarm();
}

static void instructions(void)
{
	for (unsigned n = 0; n < 4; n++) {
		arm(n, plain.at, DR7_EXEC, 0);
		if (n & 1)
			user_mode();
		expect_fault("on an instruction", &plain, X_DB, NO_ERROR);
		check("  RF pushed", out.eflags & EFLAGS_RF, 0);
		check("  eax not yet", out.eax, 0);
		hit(DR6_B(n));
	}
	arm(0, plain.at, DR7_EXEC, 0);
	in.eflags |= EFLAGS_RF;
	CODE_THEN(plain2, "", "movl $7, %eax", "movl $8, %ecx");
	set_db0((uint32_t)plain2.at);
	expect_done("RF: passed over once", &plain2);
	check("  dr6", get_db6() & DR6_SEEN, 0);
	disarm();
	arm(0, plain.at, DR7_EXEC, 0);
	in.eflags |= EFLAGS_RF;
	expect_fault("RF lasts one instruction only", &plain, X_DB, NO_ERROR);
	hit(DR6_B(0));
	/* resumed with RF from the handler, round by round */
	unsigned hits = 0;

	arm(2, loop.at, DR7_EXEC, 0);
	run(&loop);
	while (out.vector == X_DB && hits < 10) {
		struct snippet here = {(char *)out.eip, (char *)out.eip, (char *)out.eip};

		hits++;
		in = out;
		in.eflags |= EFLAGS_RF;
		run(&here);
	}
	check("in a loop of 3, resumed with RF", hits, 3);
	check("  then", out.vector, DONE_VECTOR);
	disarm();
}

static void data(void)
{
	static const struct {
		const char *name;
		const struct snippet *code;
		uint32_t kind, length, offset;
		bool hits;
		const char *sdm;
	} cases[] = {
		{"write: mov", &write4, DR7_WRITE, 3, 8, true},
		{"write: one byte of it", &write4, DR7_WRITE, 0, 10, true},
		{"write: byte in it", &write1, DR7_WRITE, 3, 8, true},
		{"write: unaligned, its end", &write_unaligned, DR7_WRITE, 3, 8, true},
		{"write: unaligned, before", &write_unaligned, DR7_WRITE, 0, 5, false, "3B 18.2.5"},
		{"write: unaligned, after", &write_unaligned, DR7_WRITE, 1, 10, false},
		{"write: the dword before", &write_below, DR7_WRITE, 3, 8, false},
		{"write: a read", &read4, DR7_WRITE, 3, 8, false},
		{"access: a read", &read4, DR7_ACCESS, 3, 8, true},
		{"access: a write", &write4, DR7_ACCESS, 3, 8, true},
		{"write: add", &add4, DR7_WRITE, 3, 8, true},
		{"write: fstp of 8", &fst8, DR7_WRITE, 3, 8, true},
		{"write: push", &push, DR7_WRITE, 3, 8, true},
		{"write: call", &call, DR7_WRITE, 3, 8, true},
		{"write: xchg", &xchg, DR7_WRITE, 3, 8, true},
		{"write: lock inc", &lock_inc, DR7_WRITE, 3, 8, true},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (unsigned user = 0; user < 2; user++) {
			/* a trap at CPL 0 would push its frame over the watched words */
			if (!user && (cases[i].code == &push || cases[i].code == &call))
				continue;
			arm(i % 4, watched + cases[i].offset, cases[i].kind, cases[i].length);
			if (user)
				user_mode();
			sdm(cases[i].sdm);
			if (cases[i].hits)
				expect_trap(cases[i].name, cases[i].code, X_DB, NO_ERROR);
			else
				expect_done(cases[i].name, cases[i].code);
			sdm(cases[i].sdm);
			hit(cases[i].hits ? DR6_B(i % 4) : 0);
		}
	}

	/* string instructions: after the round that hit (SDM vol. 3B 18.3.1.2) */
	arm(1, watched + 5, DR7_WRITE, 0);
	run(&movs);
	check("rep movsb, vector", out.vector, X_DB);
	check("  ecx", out.ecx, 10);
	check("  eip", out.eip - (uint32_t)movs.at, 0);
	sdm("3B 18.3.1.1");
	check("  RF pushed: rounds are left", out.eflags & EFLAGS_RF, EFLAGS_RF);
	hit(DR6_B(1));
	arm(1, watched + 8, DR7_WRITE, 3);
	run(&stos);
	check("rep stosl, vector", out.vector, X_DB);
	check("  ecx", out.ecx, 1);
	hit(DR6_B(1));

	/* two at once; and one whose instruction is followed by a fault */
	arm(0, watched + 8, DR7_WRITE, 3);
	arm(3, watched + 10, DR7_ACCESS, 1);
	expect_trap("two breakpoints on one write", &write4, X_DB, NO_ERROR);
	sdm("3B 18.2.3");
	hit(DR6_B(0) | DR6_B(3));
	arm(0, watched + 8, DR7_WRITE, 3);
	expect_trap("before the next instruction's fault", &write_fault, X_DB, NO_ERROR);
	hit(DR6_B(0));
	arm(0, watched + 8, DR7_WRITE, 3);
	set_db7(get_db7() & ~DR7_G(0));
	expect_done("not enabled", &write4);
	disarm();
	arm(0, watched + 8, DR7_WRITE, 3);
	set_db7((get_db7() & ~DR7_G(0)) | DR7_L(0));
	expect_trap("enabled by L alone", &write4, X_DB, NO_ERROR);
	hit(DR6_B(0));
}

static void ports(void)
{
	set_cr4(get_cr4() | CR4_DE);
	arm(2, (void *)0x80, DR7_IO, 0);
	expect_trap("out", &port_out, X_DB, NO_ERROR);
	hit(DR6_B(2));
	arm(2, (void *)0x80, DR7_IO, 1);
	expect_trap("in, second of two ports", &port_in, X_DB, NO_ERROR);
	hit(DR6_B(2));
	arm(2, (void *)0x80, DR7_IO, 0);
	expect_done("in, another port", &port_in);
	hit(0);
	set_cr4(get_cr4() & ~CR4_DE);
}

static void with_single_step(void)
{
	arm(0, watched + 8, DR7_WRITE, 3);
	in.eflags |= EFLAGS_TF;
	expect_vector("step before", &stepped, X_DB, NO_ERROR, stepped.at);
	check("  dr6", get_db6() & DR6_SEEN, DR6_BS);
	in.eflags |= EFLAGS_TF;
	set_db6(0);
	CODE_THEN(stepped_now, "", "movl $1, watched + 8", "nop");
	sdm("3B 18.2.3");
	expect_trap("step and data breakpoint together", &stepped_now, X_DB, NO_ERROR);
	sdm("3B 18.2.3");
	hit(DR6_BS | DR6_B(0));
	arm(0, stepped.at, DR7_EXEC, 0);
	in.eflags |= EFLAGS_TF;
	expect_fault("step, then a breakpoint on the next instruction", &stepped, X_DB, NO_ERROR);
	check("  BS", get_db6() & DR6_BS, DR6_BS);
	disarm();
}

void test(void)
{
	registers();
	instructions();
	data();
	ports();
	with_single_step();
}
