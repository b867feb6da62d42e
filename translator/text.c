/* text.c - instructions as text, by Zydis' formatter. */
#include "translator/decode.h"

unsigned decode_text(unsigned bits, uint64_t addr, const uint8_t *code, size_t len, char *text, size_t size)
{
	const ZydisMachineMode mode = bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
				      : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
						   : ZYDIS_MACHINE_MODE_LEGACY_16;
	const ZydisStackWidth stack = bits == 64   ? ZYDIS_STACK_WIDTH_64
				      : bits == 32 ? ZYDIS_STACK_WIDTH_32
						   : ZYDIS_STACK_WIDTH_16;
	ZydisDecoder decoder;
	ZydisFormatter f;
	ZydisDecodedInstruction i;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

	if (!ZYAN_SUCCESS(ZydisDecoderInit(&decoder, mode, stack)) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, len, &i, op)) ||
	    !ZYAN_SUCCESS(ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL)))
		return 0;
	ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_FORCE_SIZE, ZYAN_TRUE);
	ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
	ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE, ZYDIS_PADDING_DISABLED);
	ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_DISP_PADDING, ZYDIS_PADDING_DISABLED);
	ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_IMM_PADDING, ZYDIS_PADDING_DISABLED);
	if (!ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&f, &i, op, i.operand_count_visible, text, size,
							  addr, ZYAN_NULL)))
		return 0;
	return i.length;
}
