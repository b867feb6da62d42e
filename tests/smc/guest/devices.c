/* What a device gives, stored into code: string input. Nothing on this board writes memory by itself. */
#include "smc.h"

#define UART	     0x3f8
#define UART_FCR     (UART + 2)
#define UART_MCR     (UART + 4)
#define UART_LSR     (UART + 5)
#define MCR_LOOPBACK 0x10
#define LSR_DATA     0x01
#define LSR_IDLE     0x40
#define CMOS_INDEX   0x70
#define CMOS_DATA    0x71
#define CMOS_SPARE   0x38 /* RAM of the clock chip that nobody else uses here */
#define PCI_ADDRESS  0xcf8
#define PCI_DATA     0xcfc

/* mov eax, value; ret, sent to ourselves through the serial port's loopback and received by rep insb. */
static uint32_t uart_insb(uint32_t rounds)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < rounds; i++) {
		uint8_t code[6] = {0xb8, i, i >> 8, i >> 16, i >> 24, 0xc3};
		uint32_t to = CODE_PAGE, n = 6;

		while (!(inb(UART_LSR) & LSR_IDLE))
			;
		outb(UART_FCR, 0x07);
		outb(UART_MCR, MCR_LOOPBACK | 0x03);
		for (unsigned k = 0; k < 6; k++)
			outb(UART, code[k]);
		while (!(inb(UART_LSR) & LSR_IDLE))
			;
		if (inb(UART_LSR) & LSR_DATA)
			__asm__ volatile("rep insb" : "+D"(to), "+c"(n) : "d"(UART) : "memory");
		outb(UART_MCR, 0x03);
		wrong += n || call(CODE_PAGE) != i;
	}
	return wrong;
}

static uint32_t cmos_insb(uint32_t rounds)
{
	uint32_t wrong = 0;

	emit_return(CODE_PAGE, 0);
	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t to = CODE_PAGE + 1;

		outb(CMOS_INDEX, CMOS_SPARE);
		outb(CMOS_DATA, i);
		outb(CMOS_INDEX, CMOS_SPARE);
		__asm__ volatile("insb" : "+D"(to) : "d"(CMOS_DATA) : "memory");
		wrong += call(CODE_PAGE) != (i & 0xff);
	}
	return wrong;
}

/* The same four bytes each time: the host bridge's identification, as the immediate of mov eax. */
static uint32_t pci_insl(uint32_t rounds)
{
	uint32_t wrong = 0, id;

	__asm__ volatile("outl %0, %1" : : "a"(0x80000000), "Nd"((uint16_t)PCI_ADDRESS));
	__asm__ volatile("inl %1, %0" : "=a"(id) : "Nd"((uint16_t)PCI_DATA));
	emit_return(CODE_PAGE, 0);
	for (uint32_t i = 0; i < rounds; i++) {
		uint32_t to = CODE_PAGE + 1, n = 1;

		MEM32(CODE_PAGE + 1) = ~id;
		wrong += call(CODE_PAGE) != ~id;
		__asm__ volatile("rep insl" : "+D"(to), "+c"(n) : "d"(PCI_DATA) : "memory");
		wrong += call(CODE_PAGE) != id;
	}
	return wrong;
}

static const struct smc_case cases[] = {
	{"uart-rep-insb", uart_insb, 200, 6},
	{"cmos-insb", cmos_insb, 200, 1},
	{"pci-rep-insl", pci_insl, 200, 2},
};
const struct smc_group smc_devices = {cases, sizeof(cases) / sizeof(cases[0])};
