/* log.c - both sides of a block as text (-d in_asm, out_asm). */
#include "translator/decode.h"
#include "translator/translator.h"

#include <stdio.h>

void (*translate_log_line)(const char *line);

static void side(unsigned bits, const uint8_t *code, size_t len, uint64_t addr, char mark)
{
	char line[256];

	while (len) {
		const int head = snprintf(line, sizeof line, "%c %08lx  ", mark, (unsigned long)addr);
		const unsigned n =
			decode_text(bits, addr, code, len, line + head, sizeof line - (size_t)head);
		if (!n)
			return;
		translate_log_line(line);
		addr += n;
		code += n;
		len -= n;
	}
}

void translate_log(const struct cache *k, const struct block *b, const uint8_t *code, unsigned len,
		   unsigned sides)
{
	if (!translate_log_line)
		return;
	if (sides & TRANSLATE_LOG_GUEST)
		side(32, code, len, b->eip, '<');
	if (sides & TRANSLATE_LOG_HOST)
		side(64, k->rx + b->host, b->host_end - b->host, b->host, '>');
}
