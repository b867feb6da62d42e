/* log.c - both sides of a block, disassembled by Capstone (-d in_asm, out_asm). */
#include "translator/translator.h"

#include <capstone/capstone.h>
#include <stdio.h>

void (*translate_log_line)(const char *line);

static void side(csh h, const uint8_t *code, size_t len, uint64_t addr, const char *mark)
{
	cs_insn *insn = cs_malloc(h);
	char line[256];

	while (len && cs_disasm_iter(h, &code, &len, &addr, insn)) {
		snprintf(line, sizeof line, "%s %08lx  %s %s", mark, (unsigned long)insn->address,
			 insn->mnemonic, insn->op_str);
		translate_log_line(line);
	}
	cs_free(insn, 1);
}

void translate_log(const struct cache *k, const struct block *b, const uint8_t *code, unsigned len,
		   unsigned sides)
{
	csh g, h;

	if (!translate_log_line)
		return;
	if (sides & TRANSLATE_LOG_GUEST && cs_open(CS_ARCH_X86, CS_MODE_32, &g) == CS_ERR_OK) {
		side(g, code, len, b->eip, "<");
		cs_close(&g);
	}
	if (sides & TRANSLATE_LOG_HOST && cs_open(CS_ARCH_X86, CS_MODE_64, &h) == CS_ERR_OK) {
		side(h, k->rx + b->host, b->host_end - b->host, b->host, ">");
		cs_close(&h);
	}
}
