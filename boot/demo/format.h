/*
 * A small printf for the kernel and, compiled once more, for the user task, which can't call the
 * kernel's copy: %s %c %d %u %x, %q (a uint64_t, decimal), %%; width, - and 0.
 * Decimal numbers of five digits and more are grouped in threes.
 */
#ifndef DEMO_FORMAT_H
#define DEMO_FORMAT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* *value /= 10 without the compiler's 64-bit division routine; returns the remainder. */
static inline uint32_t format_divide_by_10(uint64_t *value)
{
	uint32_t high = *value >> 32, low = *value, remainder = high % 10;

	high /= 10;
	__asm__("divl %2" : "+a"(low), "+d"(remainder) : "r"(10u) : "cc");
	*value = (uint64_t)high << 32 | low;
	return remainder;
}

/* Both return the start of the text that ends before end. */
static char *format_decimal(char *end, uint64_t value)
{
	bool grouped = value > 9999;
	int digits = 0;

	do {
		if (grouped && digits && digits % 3 == 0)
			*--end = ',';
		*--end = '0' + format_divide_by_10(&value);
		digits++;
	} while (value);
	return end;
}

static char *format_hex(char *end, uint32_t value)
{
	do {
		*--end = "0123456789abcdef"[value & 15];
		value >>= 4;
	} while (value);
	return end;
}

/* Writes at most size bytes, no terminating zero; returns the number written. */
static size_t format_text(char *out, size_t size, const char *format, va_list arguments)
{
	size_t n = 0;

	for (; *format; format++) {
		char buffer[32], *end = buffer + sizeof(buffer), pad = ' ';
		const char *text = format;
		size_t length = 1, width = 0;
		bool left = false;

		if (*format == '%') {
			format++;
			for (; *format == '-' || *format == '0'; format++) {
				left |= *format == '-';
				pad = *format == '0' ? '0' : pad;
			}
			for (; *format >= '0' && *format <= '9'; format++)
				width = width * 10 + (*format - '0');
			text = end;
			switch (*format) {
			case 's':
				text = va_arg(arguments, const char *);
				for (length = 0; text[length];)
					length++;
				break;
			case 'c':
				end[-1] = va_arg(arguments, int);
				text = end - 1;
				break;
			case 'd': {
				int value = va_arg(arguments, int);
				char *start =
					format_decimal(end, value < 0 ? -(uint32_t)value : (uint32_t)value);

				if (value < 0)
					*--start = '-';
				text = start;
				length = end - start;
				break;
			}
			case 'u':
				text = format_decimal(end, va_arg(arguments, uint32_t));
				length = end - text;
				break;
			case 'q':
				text = format_decimal(end, va_arg(arguments, uint64_t));
				length = end - text;
				break;
			case 'x':
				text = format_hex(end, va_arg(arguments, uint32_t));
				length = end - text;
				break;
			case '\0':
				return n;
			default:
				text = format;
			}
		}
		for (size_t i = length; !left && i < width && n < size; i++)
			out[n++] = pad;
		for (size_t i = 0; i < length && n < size; i++)
			out[n++] = text[i];
		for (size_t i = length; left && i < width && n < size; i++)
			out[n++] = pad;
	}
	return n;
}

#endif
