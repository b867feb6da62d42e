/*
 * Non-maskable interrupts (SDM vol. 3A 6.7): taken whatever IF says, at any privilege, out of hlt; then
 * blocked until the next iret. They come from the local APIC (an IPI to itself) and from the I/O APIC.
 */
#include "guest.h"

#define APIC	      0xfee00000u
#define APIC_SPURIOUS 0x0f0
#define APIC_ICR_LOW  0x300
#define APIC_ICR_HIGH 0x310
#define IOAPIC_INDEX  0xfec00000u
#define IOAPIC_DATA   0xfec00010u
#define IOAPIC_PIN2   0x14
#define IOAPIC_MASKED 0x10000u
#define DELIVER_NMI   0x400u

#define RAISE	      "movl $0x4400, 0xfee00300\n"

CODE_THEN(raise, "", "movl $0x4400, 0xfee00300", "1: jmp 1b");
CODE(count_and_halt, "movb $0xff, %al; outb %al, $0x40; outb %al, $0x40", "hlt");
CODE_THEN(raise_once, "", RAISE, "nop; jmp 1f; 1: nop");

/* Counts itself; the first one raises another, and spends some time in which that must not come. What it does
 * before its own iret, besides, is chosen by nmi_then. */
__asm__(".text\n"
	"nmi_handler: pushl %eax\n"
	"incl nmi_count; incl nmi_depth\n"
	"movl nmi_depth, %eax; cmpl nmi_deepest, %eax; jbe 1f; movl %eax, nmi_deepest\n"
	"1: cmpl $1, nmi_count; jne nmi_leave\n" RAISE "movl $1000, %eax\n"
	"2: decl %eax; jnz 2b\n"
	"movl nmi_count, %eax; movl %eax, nmi_blocked\n"
	"cmpl $1, nmi_then; je nmi_inner; cmpl $2, nmi_then; je nmi_bad_iret; jmp nmi_leave\n"
	"nmi_inner: int $0x31; jmp nmi_then_done\n"
	"nmi_bad_iret: pushl $2; pushl $0xff8; pushl $0; iretl\n"
	"nmi_then_done: movl nmi_count, %eax; movl %eax, nmi_after\n"
	"nmi_leave: decl nmi_depth; popl %eax; iretl\n"
	"nmi_int31: iretl\n"
	"nmi_gp: addl $28, %esp; jmp nmi_then_done\n" /* error code, frame, and the frame that was refused */
	".bss\n.balign 4\n"
	"nmi_count: .skip 4\nnmi_depth: .skip 4\nnmi_deepest: .skip 4\nnmi_blocked: .skip 4\nnmi_after: "
	".skip 4\n"
	"nmi_then: .skip 4\n.text\n");
LABEL(nmi_handler);
LABEL(nmi_int31);
LABEL(nmi_gp);
extern volatile uint32_t nmi_count, nmi_deepest, nmi_blocked, nmi_after, nmi_then;

static void taken(void)
{
	expect_trap("at cpl 0, IF off", &raise, X_NMI, NO_ERROR);
	check("  IF pushed", out.eflags & EFLAGS_IF, 0);
	user_mode();
	expect_trap("at cpl 3", &raise, X_NMI, NO_ERROR);
	check("  cs", out.cs, USER_CODE);
}

static void blocking(const char *label, unsigned then, const char *section)
{
	nmi_count = nmi_deepest = nmi_blocked = nmi_after = 0;
	nmi_then = then;
	set_gate(X_NMI, nmi_handler, GATE_INT32);
	set_gate(0x31, nmi_int31, GATE_INT32);
	if (then == 2)
		set_gate(X_GP, nmi_gp, GATE_INT32);
	expect_done(label, &raise_once);
	check("  the second waits", nmi_blocked, 1);
	if (section)
		sdm(section);
	check("  and comes after the iret", nmi_after, then ? 2 : 0);
	check("  both were taken", nmi_count, 2);
	if (section)
		sdm(section);
	check("  depth", nmi_deepest, then ? 2 : 1);
	set_default_gate(X_NMI, 0);
	set_default_gate(X_GP, 0);
	set_default_gate(0x31, 0);
}

static void ioapic(uint32_t reg, uint32_t value)
{
	MEM32(IOAPIC_INDEX) = reg;
	MEM32(IOAPIC_DATA) = value;
}

/* Channel 0's line through pin 2 of the I/O APIC, as an NMI. A slow host may let it come before the hlt. */
static void wakes_hlt(void)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	ioapic(IOAPIC_PIN2 + 1, 0);
	for (unsigned i = 0; i < 20 && out.eip != (uint32_t)count_and_halt.after; i++) {
		outb(0x43, 0x30);
		ioapic(IOAPIC_PIN2, DELIVER_NMI);
		run(&count_and_halt);
		ioapic(IOAPIC_PIN2, IOAPIC_MASKED);
	}
	check("hlt with IF off is woken by vector", out.vector, X_NMI);
	check("  behind it", out.eip - (uint32_t)count_and_halt.after, 0);
}

void test(void)
{
	if (!cpu_has(CPUID_APIC)) {
		cpu_line();
		check("no APIC", 0, 0);
		return;
	}
	MEM32(APIC + APIC_SPURIOUS) = 0x1ff;
	MEM32(APIC + APIC_ICR_HIGH) = 0;
	taken();
	blocking("another during the handler", 0, NULL);
	blocking("another, and an iret within the handler", 1, NULL);
	blocking("another, and an iret that faults", 2, "3C 28.2.3");
	wakes_hlt();
}
