/* decode.c - bytes to struct insn, by way of Zydis.
 *
 * Zydis knows every x86 there is; the guest CPU is one of them: 32-bit, legacy encodings, up to SSE4.2 with
 * AES, PCLMULQDQ, POPCNT, MOVBE, RDRAND and RDSEED. Three filters take the rest away: decoder modes (so that
 * F3 0F BC is BSF, and the hint-NOP space NOP, as on a CPU without BMI, MPX and CET), the table of ISA sets
 * that are offered, and a few single instructions (guest_lacks).
 *
 * ModRM and SIB are taken apart here and not through Zydis' operands: those cost as much as the rest of the
 * decoding.
 */
#include "translator/decode.h"
#include "cpu/cpu.h"

#include <assert.h>
#include <string.h>

#include "cpu/x86.h"

static ZydisDecoder decoder16, decoder32;

__attribute__((constructor)) static void decoders_init(void)
{
	static const ZydisDecoderMode off[] = {
		ZYDIS_DECODER_MODE_MPX,	  ZYDIS_DECODER_MODE_CET,      ZYDIS_DECODER_MODE_LZCNT,
		ZYDIS_DECODER_MODE_TZCNT, ZYDIS_DECODER_MODE_CLDEMOTE, ZYDIS_DECODER_MODE_KNC,
	};

	ZydisDecoderInit(&decoder16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	ZydisDecoderInit(&decoder32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	for (unsigned k = 0; k < sizeof off / sizeof *off; k++) {
		ZydisDecoderEnableMode(&decoder16, off[k], ZYAN_FALSE);
		ZydisDecoderEnableMode(&decoder32, off[k], ZYAN_FALSE);
	}
}

static const bool offered[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
	[ZYDIS_ISA_SET_I86] = true,	   [ZYDIS_ISA_SET_I186] = true,
	[ZYDIS_ISA_SET_I286REAL] = true,   [ZYDIS_ISA_SET_I286PROTECTED] = true,
	[ZYDIS_ISA_SET_I386] = true,	   [ZYDIS_ISA_SET_I486] = true,
	[ZYDIS_ISA_SET_I486REAL] = true,   [ZYDIS_ISA_SET_PENTIUMREAL] = true,
	[ZYDIS_ISA_SET_PENTIUMMMX] = true, [ZYDIS_ISA_SET_PPRO] = true,
	[ZYDIS_ISA_SET_CMOV] = true,	   [ZYDIS_ISA_SET_FCMOV] = true,
	[ZYDIS_ISA_SET_FAT_NOP] = true,	   [ZYDIS_ISA_SET_LAHF] = true,
	[ZYDIS_ISA_SET_RDPMC] = true,	   [ZYDIS_ISA_SET_X87] = true,
	[ZYDIS_ISA_SET_FXSAVE] = true,	   [ZYDIS_ISA_SET_CLFSH] = true,
	[ZYDIS_ISA_SET_PAUSE] = true,	   [ZYDIS_ISA_SET_SSE] = true,
	[ZYDIS_ISA_SET_SSEMXCSR] = true,   [ZYDIS_ISA_SET_SSE_PREFETCH] = true,
	[ZYDIS_ISA_SET_SSE2] = true,	   [ZYDIS_ISA_SET_SSE2MMX] = true,
	[ZYDIS_ISA_SET_SSE3] = true,	   [ZYDIS_ISA_SET_SSE3X87] = true,
	[ZYDIS_ISA_SET_SSSE3] = true,	   [ZYDIS_ISA_SET_SSSE3MMX] = true,
	[ZYDIS_ISA_SET_SSE4] = true,	   [ZYDIS_ISA_SET_SSE42] = true,
	[ZYDIS_ISA_SET_AES] = true,	   [ZYDIS_ISA_SET_PCLMULQDQ] = true,
	[ZYDIS_ISA_SET_POPCNT] = true,	   [ZYDIS_ISA_SET_MOVBE] = true,
	[ZYDIS_ISA_SET_RDRAND] = true,	   [ZYDIS_ISA_SET_RDSEED] = true,
};

/* Instructions of an offered set (by Zydis' book-keeping) that the guest CPU does not have, or has only to
 * fault. */
static bool guest_lacks(const ZydisDecodedInstruction *z)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_RSM: /* #UD outside system management mode (SDM vol. 3C 31.3), which does not
				    exist here */
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSRET:
		return true;
	case ZYDIS_MNEMONIC_NOP:
		return z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0x0d;
	case ZYDIS_MNEMONIC_MOV: /* LOCK MOV CR0 is AMD's CR8 */
		return z->opcode_map == ZYDIS_OPCODE_MAP_0F && (z->attributes & ZYDIS_ATTRIB_HAS_LOCK);
	default:
		return false;
	}
}

/* PREFETCHW is 3DNow!'s, but CPUs without that run it as a no-operation. Its register form is undefined. */
static bool is_prefetchw(const ZydisDecodedInstruction *z)
{
	return z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0x0d && z->raw.modrm.mod != 3;
}

static void scan_prefixes(struct insn *o, bool code32)
{
	bool op = false, ad = false;
	unsigned n = 0;

	o->segover = -1;
	for (; n < o->len; n++) {
		switch (o->raw[n]) {
		case 0x26:
			o->segover = ES;
			continue;
		case 0x2e:
			o->segover = CS;
			continue;
		case 0x36:
			o->segover = SS;
			continue;
		case 0x3e:
			o->segover = DS;
			continue;
		case 0x64:
			o->segover = FS;
			continue;
		case 0x65:
			o->segover = GS;
			continue;
		case 0x66:
			op = true;
			o->prefix |= INSN_66;
			continue;
		case 0x67:
			ad = true;
			o->prefix |= INSN_67;
			continue;
		case 0xf0:
			o->prefix |= INSN_LOCK;
			continue;
		case 0xf2:
			o->prefix = (uint8_t)((o->prefix & ~INSN_REP) | INSN_REPNE);
			continue;
		case 0xf3:
			o->prefix = (uint8_t)((o->prefix & ~INSN_REPNE) | INSN_REP);
			continue;
		}
		break;
	}
	o->nprefix = (uint8_t)n;
	o->opsize = code32 != op ? 4 : 2;
	o->adsize = code32 != ad ? 4 : 2;
}

/* 16-bit ModRM addressing (SDM vol. 2A table 2-1). */
static void mem_operand16(struct insn *o)
{
	static const struct {
		int8_t base, index;
	} forms[8] = {{EBX, ESI}, {EBX, EDI}, {EBP, ESI}, {EBP, EDI},
		      {ESI, -1},  {EDI, -1},  {EBP, -1},  {EBX, -1}};

	if (o->mod == 0 && o->rm == 6)
		return;
	o->base = forms[o->rm].base;
	o->index = forms[o->rm].index;
	if (o->base == EBP)
		o->seg = SS;
}

/* 32-bit ModRM and SIB addressing (tables 2-2 and 2-3). */
static void mem_operand32(struct insn *o)
{
	if (o->rm == 4) {
		uint8_t sib = o->raw[o->modrm_off + 1];

		o->base = (int8_t)(sib & 7);
		o->index = (int8_t)(sib >> 3 & 7);
		o->scale = (uint8_t)(1u << (sib >> 6));
		if (o->index == 4) {
			o->index = -1;
			o->scale = 1;
		}
	} else {
		o->base = (int8_t)o->rm;
	}
	if (o->mod == 0 && o->base == EBP)
		o->base = -1;
	if (o->base == ESP || o->base == EBP)
		o->seg = SS;
}

static void take_modrm(struct insn *o, const ZydisDecodedInstruction *z)
{
	o->has_modrm = true;
	o->mod = z->raw.modrm.mod;
	o->reg = z->raw.modrm.reg;
	o->rm = z->raw.modrm.rm;
	o->modrm_off = z->raw.modrm.offset;
	if (o->opmap == 1 && o->opcode >= 0x20 && o->opcode <= 0x23)
		o->mod = 3;
	if (o->mod == 3)
		return;
	o->has_mem = true;
	if (o->adsize == 2)
		mem_operand16(o);
	else
		mem_operand32(o);
}

static void take_immediates(struct insn *o, const ZydisDecodedInstruction *z)
{
	const struct ZydisDecodedInstructionRawImm_ *imm = z->raw.imm;

	if (imm[0].size) {
		o->imm_off = imm[0].offset;
		o->imm_size = (uint8_t)(imm[0].size / 8);
		o->imm_signed = imm[0].is_signed || imm[0].is_relative;
		o->imm = (uint32_t)imm[0].value.u;
	}
	if (imm[1].size) {
		o->imm2_size = (uint8_t)(imm[1].size / 8);
		o->imm2 = (uint32_t)imm[1].value.u;
	}
}

/* Whether opcode (one-byte map) is one of the shift group 2 instructions, and where their count comes from.
 */
static bool is_shift_group(const struct insn *o)
{
	return o->opmap == 0 &&
	       (o->opcode == 0xc0 || o->opcode == 0xc1 || (o->opcode >= 0xd0 && o->opcode <= 0xd3));
}

static bool is_double_shift(const struct insn *o)
{
	return o->opmap == 1 &&
	       (o->opcode == 0xa4 || o->opcode == 0xa5 || o->opcode == 0xac || o->opcode == 0xad);
}

/* Shifts write no flag when the masked count is 0; RCL and RCR of 8 and 16 bits also when it is a multiple of
 * the width plus carry. Zydis' table speaks of a count that is neither 0 nor 1. */
static void shift_flags(struct insn *o)
{
	bool by_cl = is_shift_group(o) ? o->opcode == 0xd2 || o->opcode == 0xd3 : (o->opcode & 1);
	bool by_1 = is_shift_group(o) && (o->opcode == 0xd0 || o->opcode == 0xd1);
	unsigned count = by_1 ? 1 : o->imm & 31u;

	if (by_cl) {
		o->fl_writes = 0;
		return;
	}
	if (is_shift_group(o) && (o->reg == 2 || o->reg == 3)) {
		if (!(o->opcode & 1))
			count %= 9;
		else if (o->opsize == 2)
			count %= 17;
	}
	if (count == 0) {
		o->fl_writes = o->fl_undefined = 0;
		if (o->reg != 2 && o->reg != 3)
			o->fl_reads = 0;
	} else if (count == 1) {
		o->fl_undefined &= (uint16_t)~FL_OF;
	}
}

static bool stores_eflags(const struct insn *o)
{
	if (o->opmap == 0) {
		switch (o->opcode) {
		case 0x9a: /* far call and jump: perhaps to another task */
		case 0xea:
		case 0x9c: /* pushf */
		case 0xcc: /* int3, int, into, icebp, iret */
		case 0xcd:
		case 0xce:
		case 0xcf:
		case 0xf1:
			return true;
		case 0xff:
			return o->reg == 3 || o->reg == 5;
		}
	}
	return false;
}

/* What the tables do not say. Looks at o alone. */
static void adjust_flags(struct insn *o)
{
	if (is_shift_group(o) || is_double_shift(o))
		shift_flags(o);
	if (stores_eflags(o)) {
		o->fl_reads = FL_ARITH | FL_DF;
		if (o->opcode != 0xcf)
			o->fl_writes = 0;
	}
	/* cmps and scas under a prefix run zero times when (e)cx is 0. */
	if (o->opmap == 0 && (o->prefix & (INSN_REP | INSN_REPNE)) &&
	    (o->opcode == 0xa6 || o->opcode == 0xa7 || o->opcode == 0xae || o->opcode == 0xaf))
		o->fl_writes = 0;
}

static void take_flags(struct insn *o, const ZydisDecodedInstruction *z)
{
	const uint32_t mask = FL_ARITH | FL_DF;
	const ZydisAccessedFlags *f = z->cpu_flags;

	if (!f)
		return;
	o->fl_reads = (uint16_t)(f->tested & mask);
	o->fl_writes = (uint16_t)((f->modified | f->set_0 | f->set_1 | f->undefined) & mask);
	o->fl_undefined = (uint16_t)(f->undefined & mask);
}

/* XOP, VEX and EVEX are refused at their second byte, as by a CPU that knows none of them: what follows must
 * not be fetched for their sake. */
static bool is_vector_prefix(const uint8_t *p, unsigned avail)
{
	unsigned n = 0;

	while (n < avail && (p[n] == 0x66 || p[n] == 0x67 || (p[n] & 0xe7) == 0x26 || (p[n] & 0xfe) == 0x64 ||
			     p[n] == 0xf0 || (p[n] & 0xfe) == 0xf2))
		n++;
	if (avail - n < 2)
		return false;
	if (p[n] == 0x8f)
		return p[n + 1] & 0x38;
	return (p[n] == 0xc4 || p[n] == 0xc5 || p[n] == 0x62) && p[n + 1] >= 0xc0;
}

/* ------------------------------------------------------------------ what was decoded before
 *
 * Of an instruction with at most one prefix, this prefix, opcode, and what of ModRM and SIB says which
 * instruction and how long it is, determine everything but the numbers of registers and the values of
 * displacement and immediate. So what Zydis made of one such instruction (the pattern) holds for all that are
 * alike, in 32-bit code.
 */

#define PATTERNS 4096u /* a power of two */

/* key: prefix, opcode, what matters of ModRM; 0 (which would be an ADD to a byte): none. form: the beginning
 * of an insn, with flags as the tables have them; registers are another's. */
struct pattern {
	_Alignas(64) uint64_t key;
	uint8_t form[INSN_FORM];
};

static_assert(sizeof(struct pattern) == 64, "a line of the CPU's cache");

/* What of ModRM chooses the instruction: all of it, mod and reg, or mod alone. */
enum shape { SHAPE_UNKNOWN, SHAPE_NO_MODRM, SHAPE_WHOLE, SHAPE_GROUP, SHAPE_PLAIN };

static struct pattern patterns[PATTERNS];
static uint8_t shapes[2][256]; /* enum shape of each opcode of the first two maps */

static enum shape shape_of(const struct insn *o)
{
	static const uint8_t whole2[] = {0x00, 0x01, 0x0d, 0x20, 0x21, 0x22, 0x23, 0xae, 0xc7};
	const uint8_t op = o->opcode;

	if (!o->has_modrm)
		return SHAPE_NO_MODRM;
	if (o->opmap == 0) {
		if ((op & 0xf8) == 0xd8 || op == 0xc6 || op == 0xc7) /* x87, xabort, xbegin */
			return SHAPE_WHOLE;
		return op < 0x40 || (op >= 0x84 && op <= 0x8b) || op == 0x8d ? SHAPE_PLAIN : SHAPE_GROUP;
	}
	for (unsigned i = 0; i < sizeof whole2; i++)
		if (op == whole2[i])
			return SHAPE_WHOLE;
	return (op & 0xf0) == 0x40 || (op & 0xfe) == 0xb6 || (op & 0xfe) == 0xbe || op == 0xaf ? SHAPE_PLAIN
											       : SHAPE_GROUP;
}

static bool is_prefix(uint8_t b)
{
	return (b & 0xe7) == 0x26 || (b & 0xfc) == 0x64 || b == 0xf0 || (b & 0xfe) == 0xf2;
}

static uint64_t bytes_of(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v;
}

static uint64_t low_bytes(unsigned n)
{
	return n >= 8 ? ~0ull : (1ull << 8 * n) - 1;
}

/* ModRM, with the SIB byte behind it, without the registers: rm 0 stands for all that have neither SIB nor a
 * displacement that mod does not tell, 4 and 5 remain, 6 is a SIB byte with a displacement instead of a base.
 */
static uint8_t modrm_form(const uint8_t *p, enum shape shape)
{
	const uint8_t mod = p[0] & 0xc0, rm = p[0] & 7;
	uint8_t form = p[0] & (shape == SHAPE_PLAIN ? 0xc0 : 0xf8);

	if (mod == 0xc0)
		return form;
	if (rm == 4)
		form |= mod == 0 && (p[1] & 7) == 5 ? 6 : 4;
	else if (rm == 5 && mod == 0)
		form |= 5;
	return form;
}

/* What chooses the pattern of the instruction at p, or 0 if it cannot have one. At least 8 bytes can be read.
 */
static uint64_t pattern_key(const uint8_t *p)
{
	unsigned n = is_prefix(p[0]);
	const bool two = p[n] == 0x0f;
	enum shape shape;

	n += two;
	shape = shapes[two][p[n++]];
	if (shape == SHAPE_UNKNOWN || p[0] == 0x67)
		return 0;
	if (shape == SHAPE_WHOLE)
		n += 1 + (p[n] < 0xc0 && (p[n] & 7) == 4);
	if (shape <= SHAPE_WHOLE)
		return bytes_of(p) & low_bytes(n);
	return (bytes_of(p) & low_bytes(n)) | (uint64_t)modrm_form(p + n, shape) << 8 * n;
}

/* Each key has two places. */
static struct pattern *pattern_at(uint64_t key, unsigned place)
{
	return &patterns[((key * 0x9e3779b97f4a7c15ull) >> 40 & (PATTERNS - 1)) ^ place];
}

static const struct pattern *pattern_of(uint64_t key)
{
	const struct pattern *t = pattern_at(key, 0);

	if (t->key != key)
		t = pattern_at(key, 1);
	return t->key == key ? t : NULL;
}

/* The first 15 bytes at p can be read; of them, raw gets len. */
static void copy_raw(struct insn *o, const uint8_t *p)
{
	const uint64_t low = bytes_of(p) & low_bytes(o->len);
	const uint64_t high = o->len > 8 ? bytes_of(p + 7) >> 8 & low_bytes(o->len - 8u) : 0;

	memcpy(o->raw, &low, 8);
	memcpy(o->raw + 8, &high, 7);
}

/* n bytes of an instruction, 1, 2 or 4. */
static uint32_t field(const uint8_t *p, unsigned n, bool is_signed)
{
	uint32_t v = p[0];

	if (n == 1)
		return is_signed ? (uint32_t)(int8_t)v : v;
	v |= (uint32_t)p[1] << 8;
	if (n == 2)
		return is_signed ? (uint32_t)(int16_t)v : v;
	return v | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The registers of ModRM and SIB, in what was copied from a pattern. */
static void take_registers(struct insn *o)
{
	const uint8_t modrm = o->raw[o->modrm_off];

	o->reg = modrm >> 3 & 7;
	o->rm = modrm & 7;
	if (!o->has_mem)
		return;
	o->seg = DS;
	o->base = o->index = -1;
	o->scale = 1;
	mem_operand32(o);
	if (o->segover >= 0)
		o->seg = (uint8_t)o->segover;
}

/* 15 bytes at p can be read. False: no pattern is known. */
static bool decode_by_pattern(const uint8_t *p, struct insn *out)
{
	const uint64_t key = pattern_key(p);
	const struct pattern *t = pattern_of(key);

	if (!key || !t)
		return false;
	memcpy(out, t->form, INSN_FORM);
	out->disp = 0;
	out->imm = out->imm2 = 0;
	copy_raw(out, p);
	if (out->has_modrm)
		take_registers(out);
	if (out->disp_size)
		out->disp = (int32_t)field(p + out->disp_off, out->disp_size, true);
	if (out->imm_size)
		out->imm = field(p + out->imm_off, out->imm_size, out->imm_signed);
	adjust_flags(out);
	return true;
}

/* The same where no more than avail bytes can be read: whatever is taken to follow, it doesn't belong to the
 * instruction. */
static bool decode_last_bytes(const uint8_t *p, unsigned avail, struct insn *out)
{
	uint8_t bytes[INSN_MAX_LEN + 1] = {0};

	for (unsigned i = 0; i < avail; i++)
		bytes[i] = p[i];
	return decode_by_pattern(bytes, out) && out->len <= avail;
}

/* o is what Zydis made of the bytes at p, with the tables' flags. */
static void pattern_learn(const uint8_t *p, const struct insn *o)
{
	struct pattern *t;
	uint64_t key;

	if (o->nprefix > 1 || o->opmap > 1 || o->imm2_size)
		return;
	shapes[o->opmap][o->opcode] = (uint8_t)shape_of(o);
	key = pattern_key(p);
	if (!key)
		return;
	t = pattern_at(key, 0);
	if (t->key && t->key != key && !pattern_at(key, 1)->key)
		t = pattern_at(key, 1);
	t->key = key;
	memcpy(t->form, o, INSN_FORM);
}

static enum decode_result decode(const uint8_t *p, unsigned avail, bool code32, struct insn *out)
{
	ZydisDecodedInstruction z;
	ZydisDecoderContext ctx;
	ZyanStatus st = ZydisDecoderDecodeInstruction(code32 ? &decoder32 : &decoder16, &ctx, p, avail, &z);

	if (!ZYAN_SUCCESS(st)) {
		if (st == ZYDIS_STATUS_NO_MORE_DATA)
			return is_vector_prefix(p, avail) ? DECODE_INVALID : DECODE_MORE;
		return st == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? DECODE_TOO_LONG : DECODE_INVALID;
	}
	if (z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || guest_lacks(&z) ||
	    !(offered[z.meta.isa_set] || is_prefetchw(&z)))
		return DECODE_INVALID;

	memset(out, 0, sizeof *out);
	out->mnemonic = (uint16_t)z.mnemonic;
	out->len = z.length;
	memcpy(out->raw, p, z.length);
	out->opmap = (uint8_t)z.opcode_map;
	out->opcode = z.opcode;
	scan_prefixes(out, code32);
	out->seg = DS;
	out->base = out->index = -1;
	out->scale = 1;
	if (z.attributes & ZYDIS_ATTRIB_HAS_MODRM)
		take_modrm(out, &z);
	if (out->opmap == 0 && out->opcode >= 0xa0 && out->opcode <= 0xa3)
		out->has_mem = true;
	if (out->segover >= 0)
		out->seg = (uint8_t)out->segover;
	if (z.raw.disp.size) {
		out->disp = (int32_t)z.raw.disp.value;
		out->disp_off = z.raw.disp.offset;
		out->disp_size = (uint8_t)(z.raw.disp.size / 8);
	}
	take_immediates(out, &z);
	take_flags(out, &z);
	if (code32 && avail == INSN_MAX_LEN)
		pattern_learn(p, out);
	adjust_flags(out);
	return DECODE_OK;
}

enum decode_result decode_insn(const uint8_t *p, unsigned avail, bool code32, struct insn *out)
{
	if (code32 && (avail == INSN_MAX_LEN ? decode_by_pattern(p, out) : decode_last_bytes(p, avail, out)))
		return DECODE_OK;
	return decode_insn_anew(p, avail, code32, out);
}

enum decode_result decode_insn_anew(const uint8_t *p, unsigned avail, bool code32, struct insn *out)
{
	_Alignas(16) uint8_t fpu[512];

	if (!cpu_fpu_live)
		return decode(p, avail, code32, out);
	/* Zydis is compiled with SSE, and the guest's registers are live. */
	__asm__ volatile("fxsave64 %0" : "=m"(fpu));
	enum decode_result r = decode(p, avail, code32, out);
	__asm__ volatile("fxrstor64 %0" : : "m"(fpu));
	return r;
}

void decode_flags(const struct insn *i, uint32_t *reads, uint32_t *writes, uint32_t *undefined)
{
	*reads = i->fl_reads;
	*writes = i->fl_writes;
	*undefined = i->fl_undefined;
}
