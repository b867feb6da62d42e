/* sysenter and sysexit (SDM vol. 2B): segments by arithmetic on one MSR, not from the GDT. */
#include "guest.h"

#define MSR_CS	0x174u
#define MSR_ESP 0x175u
#define MSR_EIP 0x176u

/* Four descriptors that nobody could load: sysenter and sysexit don't look at them. */
#define SEL_EMPTY FREE_SELECTOR

CODE(stop, "", "nop");
CODE(sysenter, "", "sysenter");
CODE(sysexit, "movl $stop_start, %edx; movl $user_stack + 4096, %ecx", "sysexit");
CODE_THEN(round_trip, "movl %esp, %ebp; movl $round_trip_after, %edi", "sysenter", "incl %ebx");
__asm__(".text\nreturn_to_user: movl %edi, %edx; movl %ebp, %ecx; addl $0x100, %ebx; sti; sysexit");
LABEL(return_to_user);
/* A user-mode access right after each change of level, beyond any limit but 4 GiB - 1. */
CODE(data_after, "", "movl %ss:0x3ffffc, %eax; movl %cs:0x100000, %eax; pushl %eax");

static void msrs(uint32_t cs, const void *eip)
{
	write_msr(MSR_CS, cs);
	write_msr(MSR_ESP, RING0_STACK - 64);
	write_msr(MSR_EIP, (uint32_t)eip);
}

static void entering(void)
{
	msrs(0, stop.start);
	user_mode();
	expect_fault("sysenter, CS 0", &sysenter, X_GP, 0);
	msrs(3, stop.start);
	user_mode();
	sdm("2B SYSENTER"); /* bits 15 to 2 count */
	expect_fault("sysenter, CS 3", &sysenter, X_GP, 0);

	for (unsigned user = 0; user < 2; user++) {
		msrs(KERNEL_CODE, stop.start);
		if (user)
			user_mode();
		in.eflags |= EFLAGS_IF | EFLAGS_CF | EFLAGS_DF | EFLAGS_AC | EFLAGS_IOPL;
		expect_done(user ? "sysenter from cpl 3" : "sysenter from cpl 0", &sysenter);
		check("  cs", out.cs, KERNEL_CODE);
		check("  ss", out.ss, KERNEL_DATA);
		check("  esp", out.esp, RING0_STACK - 64);
		check("  eip", out.eip - (uint32_t)stop.after, 2);
		check("  eflags", out.eflags & 0x3fffff & ~2u,
		      EFLAGS_CF | EFLAGS_DF | EFLAGS_AC | EFLAGS_IOPL);
		check("  ds", out.ds, user ? USER_DATA : KERNEL_DATA);
	}
	msrs(KERNEL_CODE | 3, stop.start);
	user_mode();
	expect_done("sysenter, RPL bits in the MSR", &sysenter);
	check("  cs", out.cs, KERNEL_CODE);

	msrs(SEL_EMPTY, data_after.start);
	user_mode();
	expect_done("sysenter, descriptors empty", &sysenter);
	check("  cs", out.cs, SEL_EMPTY);
	check("  ss", out.ss, SEL_EMPTY + 8);
}

static void leaving(void)
{
	msrs(KERNEL_CODE, stop.start);
	user_mode();
	expect_fault("sysexit from cpl 3", &sysexit, X_GP, 0);
	msrs(0, stop.start);
	expect_fault("sysexit, CS 0", &sysexit, X_GP, 0);
	msrs(KERNEL_CODE, stop.start);
	in.eflags |= EFLAGS_IF | EFLAGS_CF;
	expect_done("sysexit", &sysexit);
	check("  cs", out.cs, USER_CODE);
	check("  ss", out.ss, USER_DATA);
	check("  esp", out.esp, (uint32_t)user_stack + 4096);
	check("  eip", out.eip - (uint32_t)stop.after, 2);
	check("  eflags", out.eflags & 0x3fffff & ~2u, EFLAGS_IF | EFLAGS_CF);
	check("  ds is not touched", out.ds, KERNEL_DATA);
	msrs(SEL_EMPTY, stop.start);
	expect_done("sysexit, descriptors empty", &sysexit);
	check("  cs", out.cs, (SEL_EMPTY + 16) | 3);
	check("  ss", out.ss, (SEL_EMPTY + 24) | 3);
}

void test(void)
{
	if (!cpu_has(CPUID_SEP)) {
		cpu_line();
		expect_fault("no SEP: sysenter", &sysenter, X_UD, NO_ERROR);
		return;
	}
	write_msr(MSR_CS, 0xabcd);
	write_msr(MSR_ESP, 0x12345678);
	write_msr(MSR_EIP, 0x9abcdef0);
	check("IA32_SYSENTER_CS", read_msr(MSR_CS), 0xabcd);
	check("IA32_SYSENTER_ESP", read_msr(MSR_ESP), 0x12345678);
	check("IA32_SYSENTER_EIP", read_msr(MSR_EIP), 0x9abcdef0);
	entering();
	leaving();

	msrs(KERNEL_CODE, return_to_user);
	user_mode();
	in.ebx = 5;
	expect_done("there and back", &round_trip);
	check("  ebx", out.ebx, 0x106);
	check("  cs", out.cs, USER_CODE);
	check("  esp", out.esp, USER_STACK);
	check("  IF", out.eflags & EFLAGS_IF, EFLAGS_IF);
}
