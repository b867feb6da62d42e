/*
 * The 8254's channel 0 through the 8259 pair, 1000 interrupts a second, and their rate by another clock:
 * the ACPI PM timer, which counts 3579545 Hz in 24 or 32 bits and asks for no interrupt.
 */
#include "demo.h"

#define PIT_HZ	      1193182u
#define PIT_CHANNEL0  0x40
#define PIT_COMMAND   0x43
#define PIT_MODE2     0x34 /* channel 0, low byte then high byte, rate generator */

#define PIC_MASTER    0x20
#define PIC_SLAVE     0xa0
#define VECTOR_IRQ0   32

#define PM_TIMER_HZ   3579545u
#define PM_TIMER_MASK 0xffffffu

static volatile uint32_t ticks;
static uint32_t pm_last, pm_elapsed;

uint32_t timer_ticks(void)
{
	return ticks;
}

static void pm_update(void)
{
	uint32_t now;

	if (!acpi_pm_timer_port())
		return;
	now = inl(acpi_pm_timer_port());
	pm_elapsed += (now - pm_last) & PM_TIMER_MASK;
	pm_last = now;
}

/* The PM timer is read on the first tick and on every 64th, so that its 4.7 s wrap is never missed. */
void timer_tick(void)
{
	if (ticks % 64 == 0)
		pm_update();
	if (ticks == 0)
		pm_elapsed = 0;
	ticks++;
}

static void pic_init(uint16_t port, uint8_t vector, uint8_t cascade)
{
	outb(port, 0x11); /* ICW1: edge triggered, ICW4 follows */
	outb(port + 1, vector);
	outb(port + 1, cascade);
	outb(port + 1, 0x01); /* ICW4: 8086 mode */
	outb(port + 1, 0xff);
}

void timer_init(void)
{
	uint32_t divisor = (PIT_HZ + TIMER_HZ / 2) / TIMER_HZ;

	pic_init(PIC_MASTER, VECTOR_IRQ0, 0x04);
	pic_init(PIC_SLAVE, VECTOR_IRQ0 + 8, 0x02);
	outb(PIT_COMMAND, PIT_MODE2);
	outb(PIT_CHANNEL0, divisor & 0xff);
	outb(PIT_CHANNEL0, divisor >> 8);
	outb(PIC_MASTER + 1, 0xfe); /* IRQ 0 alone */
	__asm__ volatile("sti");
}

/* a * b / c; the quotient must fit in 32 bits. */
static uint32_t multiply_divide(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t quotient, high;

	__asm__("mull %3; divl %4" : "=&a"(quotient), "=&d"(high) : "0"(a), "rm"(b), "rm"(c) : "cc");
	return quotient;
}

/* Idle to the next tick on which pm_update has just run, so that ticks and PM time end together. */
bool timer_rate(uint32_t *count, uint32_t *millihertz)
{
	uint32_t elapsed;

	do
		__asm__ volatile("sti; hlt");
	while (ticks % 64 != 1);
	__asm__ volatile("cli");
	*count = ticks;
	elapsed = pm_elapsed;
	__asm__ volatile("sti");
	if (!acpi_pm_timer_port() || !elapsed)
		return false;
	*millihertz = multiply_divide((*count - 1) * 1000, PM_TIMER_HZ, elapsed);
	return true;
}
