/* COM1: a 16550A at 0x3f8, 115200 8N1, polled. */
#include "demo.h"
#include "format.h"

#define COM1	 0x3f8
#define UART_THR 0 /* transmitter holding; divisor low while LCR.DLAB is set */
#define UART_IER 1 /* interrupt enable; divisor high while LCR.DLAB is set */
#define UART_FCR 2
#define UART_LCR 3
#define UART_MCR 4
#define UART_LSR 5

#define LCR_8N1	 0x03
#define LCR_DLAB 0x80
#define LSR_THRE 0x20

void console_init(void)
{
	outb(COM1 + UART_IER, 0);
	outb(COM1 + UART_LCR, LCR_8N1 | LCR_DLAB);
	outb(COM1 + UART_THR, 1);
	outb(COM1 + UART_IER, 0);
	outb(COM1 + UART_LCR, LCR_8N1);
	outb(COM1 + UART_FCR, 0x07); /* FIFOs on and empty */
	outb(COM1 + UART_MCR, 0x03); /* DTR, RTS */
}

static void put(char c)
{
	while (!(inb(COM1 + UART_LSR) & LSR_THRE))
		;
	outb(COM1 + UART_THR, c);
}

void print_text(const char *text, size_t length)
{
	for (; length; text++, length--) {
		if (*text == '\n')
			put('\r');
		put(*text);
	}
}

static void print_arguments(const char *format, va_list arguments)
{
	char line[256];

	print_text(line, format_text(line, sizeof(line), format, arguments));
}

void print(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	print_arguments(format, arguments);
	va_end(arguments);
}

void topic(const char *name)
{
	print("  %-14s", name);
}

void panic(const char *format, ...)
{
	va_list arguments;

	print("\ndemo: ");
	va_start(arguments, format);
	print_arguments(format, arguments);
	va_end(arguments);
	print("\n");
	for (;;) {
		outb(PORT_DEBUG_EXIT, 1);
		__asm__ volatile("cli; hlt");
	}
}
