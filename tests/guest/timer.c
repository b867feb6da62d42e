/*
 * Interrupt hardware: the 8259 pair's request, service, mask and priority (8259A data sheet), the 8254's
 * modes and latches, and the local APIC's timer, self-IPI and priorities (SDM vol. 3A 11). Rates are only
 * compared with each other, and loosely: guest time may be another's time slice.
 */
#include "guest.h"

#define PIC1	      0x20
#define PIC2	      0xa0
#define OCW3_IRR      0x0a
#define OCW3_ISR      0x0b
#define EOI	      0x20

#define PIT_HZ	      1193182u

#define APIC	      0xfee00000u
#define APIC_ID	      0x020
#define APIC_VERSION  0x030
#define APIC_TPR      0x080
#define APIC_PPR      0x0a0
#define APIC_EOI      0x0b0
#define APIC_SPURIOUS 0x0f0
#define APIC_ISR      0x100
#define APIC_IRR      0x200
#define APIC_ICR_LOW  0x300
#define APIC_ICR_HIGH 0x310
#define APIC_TIMER    0x320
#define APIC_LINT0    0x350
#define APIC_INITIAL  0x380
#define APIC_CURRENT  0x390
#define APIC_DIVIDE   0x3e0

#define LVT_MASKED    0x10000u
#define LVT_PERIODIC  0x20000u
#define LVT_EXTINT    0x00700u
#define ICR_SELF      0x40000u

CODE(halt, "", "hlt");
CODE_THEN(wait_some, "movl $200000000, %ecx", "1: decl %ecx; jnz 1b", "");
CODE(sti_window, "", "sti; nop; nop; cli");

static uint8_t pic_read(uint16_t pic, uint8_t which)
{
	outb(pic, which);
	return inb(pic);
}

static void pit_one_shot(uint32_t count)
{
	outb(0x43, 0x30);
	outb(0x40, count);
	outb(0x40, count >> 8);
}

static void pit_rate(uint32_t count)
{
	outb(0x43, 0x34);
	outb(0x40, count);
	outb(0x40, count >> 8);
}

static void wait_irr(uint8_t bit)
{
	for (uint32_t i = 0; i < 10000000 && !(pic_read(PIC1, OCW3_IRR) & bit); i++)
		;
}

static void masks(uint8_t first, uint8_t second)
{
	outb(PIC1 + 1, first);
	outb(PIC2 + 1, second);
}

/* One window with interrupts on: the vector that came, or the end of the snippet. */
static uint32_t window(void)
{
	run(&sti_window);
	return out.vector;
}

static void pics(void)
{
	outb(PIC1, EOI);
	masks(0xff, 0xff);
	check("mask reads back", inb(PIC1 + 1), 0xff);
	masks(0xa5, 0x5a);
	check("  another", inb(PIC1 + 1) << 8 | inb(PIC2 + 1), 0xa55a);
	masks(0xff, 0xff);

	pit_one_shot(50);
	wait_irr(1);
	check("masked request: IRR", pic_read(PIC1, OCW3_IRR) & 1, 1);
	check("  ISR", pic_read(PIC1, OCW3_ISR), 0);
	check("  not delivered", window(), DONE_VECTOR);
	masks(0xfe, 0xff);
	check("  unmasked: delivered", window(), 0x20);
	check("  IRR", pic_read(PIC1, OCW3_IRR) & 1, 0);
	check("  ISR", pic_read(PIC1, OCW3_ISR), 1);
	pit_one_shot(50);
	wait_irr(1);
	check("the next, before EOI: IRR", pic_read(PIC1, OCW3_IRR) & 1, 1);
	check("  not delivered", window(), DONE_VECTOR);
	outb(PIC1, EOI);
	check("  after EOI: delivered", window(), 0x20);
	outb(PIC1, 0x60); /* specific EOI for 0 */
	check("  specific EOI: ISR", pic_read(PIC1, OCW3_ISR), 0);

	/* special mask mode and other vectors */
	outb(PIC1, 0x11);
	outb(PIC1 + 1, 0x48);
	outb(PIC1 + 1, 4);
	outb(PIC1 + 1, 3); /* automatic EOI */
	outb(PIC1 + 1, 0xfe);
	pit_one_shot(50);
	wait_irr(1);
	check("vectors from 48", window(), 0x48);
	check("  automatic EOI: ISR", pic_read(PIC1, OCW3_ISR), 0);
	outb(PIC1, 0x11);
	outb(PIC1 + 1, 0x20);
	outb(PIC1 + 1, 4);
	outb(PIC1 + 1, 1);
	masks(0xff, 0xff);

	/* poll: acknowledges without the CPU */
	masks(0xfe, 0xff);
	pit_one_shot(50);
	wait_irr(1);
	outb(PIC1, 0x0c);
	check("poll", inb(PIC1), 0x80);
	check("  ISR", pic_read(PIC1, OCW3_ISR), 1);
	outb(PIC1, EOI);
	masks(0xff, 0xff);
}

static uint32_t counts_of_20_ticks(void)
{
	uint32_t count;

	outb(PIC1, EOI);
	masks(0xfe, 0xff);
	pit_rate(PIT_HZ / 1000);
	in.eflags |= EFLAGS_IF;
	run(&halt);
	outb(PIC1, EOI);
	outb(0x43, 0xb0);
	outb(0x42, 0xff);
	outb(0x42, 0xff);
	for (uint32_t i = 0; i < 20; i++) {
		in.eflags |= EFLAGS_IF;
		run(&halt);
		outb(PIC1, EOI);
		if (out.vector != 0x20)
			check("tick", out.vector, 0x20);
	}
	outb(0x43, 0x80);
	count = inb(0x42);
	count |= inb(0x42) << 8;
	masks(0xff, 0xff);
	return 0xffff - count;
}

/* Reads of channel 2, whose gate and output are in port 61. */
static void pit(void)
{
	uint32_t first, second;

	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb4);
	outb(0x42, 0xff);
	outb(0x42, 0xff);
	outb(0x43, 0x80); /* latch */
	first = inb(0x42);
	first |= inb(0x42) << 8;
	for (int i = 0; i < 100; i++)
		inb(0x80);
	outb(0x43, 0x80);
	second = inb(0x42);
	second |= inb(0x42) << 8;
	check("channel 2 counts down", first != second, true);
	outb(0x43, 0xe8); /* read-back: status of channel 2 */
	check("  status: mode, access", inb(0x42) & 0x3f, 0x34);
	/* mode 0: the output goes high at the end, and stays */
	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb0);
	outb(0x42, 0x00);
	outb(0x42, 0x10);
	check("mode 0: output low", inb(0x61) & 0x20, 0);
	for (uint32_t i = 0; i < 10000000 && !(inb(0x61) & 0x20); i++)
		;
	check("  high in the end", inb(0x61) & 0x20, 0x20);

	/* channel 0 against channel 2: 20 ticks of about a millisecond; a busy host gets more than one try */
	uint32_t counted = 0;

	for (unsigned i = 0; i < 10 && (counted < 20 * 800 || counted > 20 * 1600); i++)
		counted = counts_of_20_ticks();
	check_range("20 ticks of channel 0 in counts of channel 2", counted, 20 * 800, 20 * 1600);
	/* woken from hlt, and out of a loop, at cpl 3 too */
	masks(0xfe, 0xff);
	for (unsigned user = 0; user < 2; user++) {
		outb(PIC1, EOI);
		pit_one_shot(2000);
		if (user)
			user_mode();
		in.eflags |= EFLAGS_IF;
		run(&wait_some);
		check("out of a loop", out.vector, 0x20);
		check("  cs", out.cs, user ? USER_CODE : KERNEL_CODE);
	}
	outb(PIC1, EOI);
	masks(0xff, 0xff);
}

static uint32_t apic_read(uint32_t reg)
{
	return MEM32(APIC + reg);
}

static void apic_write(uint32_t reg, uint32_t value)
{
	MEM32(APIC + reg) = value;
}

static void local_apic(void)
{
	uint32_t start, end;

	if (!cpu_has(CPUID_APIC)) {
		cpu_line();
		check("no APIC", 0, 0);
		return;
	}
	check("APIC version", apic_read(APIC_VERSION) & 0xf0, 0x10);
	check("APIC id", apic_read(APIC_ID) >> 24, 0);
	apic_write(APIC_SPURIOUS, 0x1ff);
	apic_write(APIC_TPR, 0);
	check("spurious vector and enable", apic_read(APIC_SPURIOUS) & 0x1ff, 0x1ff);

	/* one shot */
	apic_write(APIC_DIVIDE, 0x0b);
	apic_write(APIC_TIMER, 0x50);
	apic_write(APIC_INITIAL, 100000);
	in.eflags |= EFLAGS_IF;
	run(&halt);
	check("timer, one shot", out.vector, 0x50);
	check("  count", apic_read(APIC_CURRENT), 0);
	check("  in service", apic_read(APIC_ISR + 0x20) >> 16 & 1, 1);
	apic_write(APIC_EOI, 0);
	check("  after EOI", apic_read(APIC_ISR + 0x20), 0);

	/* periodic */
	apic_write(APIC_TIMER, 0x51 | LVT_PERIODIC);
	apic_write(APIC_INITIAL, 200000);
	for (unsigned i = 0; i < 5; i++) {
		in.eflags |= EFLAGS_IF;
		run(&halt);
		if (out.vector != 0x51)
			check("timer, periodic", out.vector, 0x51);
		apic_write(APIC_EOI, 0);
	}
	check("timer, periodic, 5 times", out.vector, 0x51);
	apic_write(APIC_INITIAL, 0);
	start = apic_read(APIC_CURRENT);
	check("  stopped", start, 0);
	if (window() != DONE_VECTOR) /* a last one may have been on its way */
		apic_write(APIC_EOI, 0);

	/* masked: counts, but interrupts nobody */
	apic_write(APIC_TIMER, 0x52 | LVT_MASKED);
	apic_write(APIC_INITIAL, 1000);
	for (uint32_t i = 0; i < 10000000 && apic_read(APIC_CURRENT); i++)
		;
	check("timer, masked", window(), DONE_VECTOR);
	/* counting down, against itself */
	apic_write(APIC_INITIAL, 0xffffffff);
	start = apic_read(APIC_CURRENT);
	for (int i = 0; i < 100; i++)
		inb(0x80);
	end = apic_read(APIC_CURRENT);
	check("timer counts down", end < start, true);
	apic_write(APIC_INITIAL, 0);

	/* self-IPIs: higher vectors first, TPR holds back its class and below */
	apic_write(APIC_ICR_HIGH, 0);
	apic_write(APIC_ICR_LOW, ICR_SELF | 0x61);
	apic_write(APIC_ICR_LOW, ICR_SELF | 0x83);
	check("self-IPIs requested", apic_read(APIC_IRR + 0x30) == 2 && apic_read(APIC_IRR + 0x40) == 8,
	      true);
	check("  the higher first", window(), 0x83);
	check("  the lower is held back", window(), DONE_VECTOR);
	check("  PPR", apic_read(APIC_PPR) & 0xf0, 0x80);
	apic_write(APIC_EOI, 0);
	check("  after EOI", window(), 0x61);
	apic_write(APIC_EOI, 0);
	apic_write(APIC_TPR, 0x60);
	apic_write(APIC_ICR_LOW, ICR_SELF | 0x65);
	check("TPR holds back", window(), DONE_VECTOR);
	apic_write(APIC_TPR, 0x50);
	check("  and lets go", window(), 0x65);
	apic_write(APIC_EOI, 0);
	apic_write(APIC_TPR, 0);

	/* the 8259's interrupts through LINT0 as ExtINT, its mask, and nesting of the two controllers */
	apic_write(APIC_LINT0, LVT_EXTINT | LVT_MASKED);
	masks(0xfe, 0xff);
	pit_one_shot(50);
	wait_irr(1);
	check("ExtINT masked", window(), DONE_VECTOR);
	apic_write(APIC_LINT0, LVT_EXTINT);
	check("  unmasked", window(), 0x20);
	outb(PIC1, EOI);
	masks(0xff, 0xff);
	user_mode();
	in.eflags |= EFLAGS_IF;
	apic_write(APIC_TIMER, 0x53);
	apic_write(APIC_INITIAL, 50000);
	run(&wait_some);
	check("timer at cpl 3", out.vector << 8 | out.cs, 0x53 << 8 | USER_CODE);
	apic_write(APIC_EOI, 0);
}

void test(void)
{
	pics();
	pit();
	local_apic();
}
