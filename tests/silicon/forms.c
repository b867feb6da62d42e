/* forms.c - the list of opcode forms: (map, opcode, prefix, register or memory, ModRM.reg where it tells).
 *
 * All encodings of the four opcode maps are put to Zydis, and to the decoder under test for what the guest's
 * CPU offers. Forms that differ only in a prefix without effect count as one.
 */
#include <stdlib.h>
#include <string.h>

#include "silicon.h"

struct form *forms;
unsigned form_count;

static ZydisDecoder full;

/* The opcode of a form, with its prefix; returns where ModRM goes. */
static unsigned put_opcode(uint8_t *p, const struct form *f)
{
	unsigned n = 0;

	if (f->prefix)
		p[n++] = f->prefix;
	if (f->map)
		p[n++] = 0x0f;
	if (f->map == 2)
		p[n++] = 0x38;
	if (f->map == 3)
		p[n++] = 0x3a;
	p[n++] = f->op;
	return n;
}

enum form_verdict form_check(const uint8_t *p, unsigned avail, struct insn *i, const char **reason)
{
	ZydisDecodedInstruction z;
	ZydisDecoderContext ctx;
	bool known = ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&full, &ctx, p, avail < 15 ? avail : 15, &z));
	enum decode_result r = decode_insn(p, avail < 15 ? avail : 15, true, i);

	*reason = excluded_encoding(p, avail);
	if (*reason)
		return FORM_EXCLUDED;
	if (r != DECODE_OK && known) {
		if (z.mnemonic == ZYDIS_MNEMONIC_UD0 || z.mnemonic == ZYDIS_MNEMONIC_UD1 ||
		    z.mnemonic == ZYDIS_MNEMONIC_UD2)
			return FORM_UNDEFINED;
		*reason = "not offered by the guest's CPU";
		return FORM_EXCLUDED;
	}
	if (r != DECODE_OK)
		return FORM_UNDEFINED;
	*reason = excluded_mnemonic(i->mnemonic);
	if (!*reason && known && z.mnemonic != i->mnemonic)
		*reason = "another instruction on the host's CPU";
	if (!*reason && i->opmap == 0 && i->opcode == 0xcd && i->imm == 0x80)
		*reason = "a system call of the host's";
	return *reason ? FORM_EXCLUDED : FORM_OK;
}

static void add(const struct form *f)
{
	static unsigned room;

	if (form_count == room) {
		room = room ? room * 2 : 1024;
		forms = realloc(forms, room * sizeof *forms);
		if (!forms)
			abort();
	}
	forms[form_count++] = *f;
}

static void add_undefined(uint8_t map, uint8_t op)
{
	struct form f = {.map = map, .op = op, .reg = -1, .rm = -1};

	if (map >= 2)
		f.op &= 0xf0;
	for (unsigned k = 0; k < form_count; k++)
		if (forms[k].mnemonic == ZYDIS_MNEMONIC_INVALID && forms[k].map == map && forms[k].op == f.op)
			return;
	add(&f);
}

/* What the encoding with this ModRM is: the mnemonic, or -1 if it is excluded. */
static int probe(const struct form *f, int modrm, struct insn *i)
{
	uint8_t p[32] = {0};
	const char *reason;
	unsigned n = put_opcode(p, f);

	if (modrm >= 0)
		p[n] = (uint8_t)modrm;
	switch (form_check(p, 15, i, &reason)) {
	case FORM_OK:
		return i->mnemonic;
	case FORM_UNDEFINED:
		return ZYDIS_MNEMONIC_INVALID;
	default:
		return -1;
	}
}

static bool accepts(const struct form *f, int modrm, ZydisInstructionAttributes what)
{
	uint8_t p[32] = {0};
	ZydisDecodedInstruction z;
	ZydisDecoderContext ctx;
	unsigned n = put_opcode(p, f);

	if (modrm >= 0)
		p[n] = (uint8_t)modrm;
	return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&full, &ctx, p, 15, &z)) && (z.attributes & what);
}

/* A repeat prefix that changes nothing is not a form of its own. */
static bool idle_prefix(const struct form *f, int modrm, int mnemonic)
{
	struct form bare = *f;
	struct insn i;

	if (f->prefix != 0xf2 && f->prefix != 0xf3)
		return false;
	bare.prefix = 0;
	return probe(&bare, modrm, &i) == mnemonic &&
	       !accepts(&bare, modrm,
			ZYDIS_ATTRIB_ACCEPTS_REP | ZYDIS_ATTRIB_ACCEPTS_REPE | ZYDIS_ATTRIB_ACCEPTS_REPNE);
}

static void add_one(struct form f, int modrm, int mnemonic)
{
	if (mnemonic < 0 || idle_prefix(&f, modrm, mnemonic))
		return;
	if (mnemonic == ZYDIS_MNEMONIC_INVALID) {
		add_undefined(f.map, f.op);
		return;
	}
	f.mnemonic = (uint16_t)mnemonic;
	f.lockable = accepts(&f, modrm, ZYDIS_ATTRIB_ACCEPTS_LOCK);
	add(&f);
}

/* The 64 ModRM bytes of register or memory operands, told apart only as far as they mean different things. */
static void add_modrm(struct form f)
{
	int m[8][8];
	bool all = true, row[8];
	struct insn i;
	int top = f.mod == MOD_REG ? 0xc0 : 0;

	for (int reg = 0; reg < 8; reg++) {
		row[reg] = true;
		for (int rm = 0; rm < 8; rm++) {
			m[reg][rm] = probe(&f, top | reg << 3 | rm, &i);
			row[reg] &= m[reg][rm] == m[reg][0];
			all &= m[reg][rm] == m[0][0];
		}
	}
	for (int reg = 0; reg < 8; reg++) {
		f.reg = (int8_t)(all ? -1 : reg);
		for (int rm = 0; rm < 8; rm++) {
			f.rm = (int8_t)(row[reg] ? -1 : rm);
			add_one(f, top | reg << 3 | rm, m[reg][rm]);
			if (row[reg])
				break;
		}
		if (all)
			break;
	}
}

static bool is_prefix(unsigned map, unsigned op)
{
	static const uint8_t prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
					   0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x0f};

	if (map == 1)
		return op == 0x38 || op == 0x3a;
	return map == 0 && memchr(prefixes, (int)op, sizeof prefixes);
}

static void add_opcode(unsigned map, unsigned op, unsigned prefix)
{
	struct form f = {
		.map = (uint8_t)map, .op = (uint8_t)op, .prefix = (uint8_t)prefix, .reg = -1, .rm = -1};
	struct insn mem = {0}, reg = {0};
	int a = probe(&f, 0x00, &mem), b = probe(&f, 0xc0, &reg);

	if (a > 0 && a == b && !mem.has_modrm && !reg.has_modrm) {
		add_one(f, -1, a);
		return;
	}
	f.mod = MOD_MEM;
	add_modrm(f);
	f.mod = MOD_REG;
	add_modrm(f);
}

void forms_init(void)
{
	static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};

	ZydisDecoderInit(&full, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	for (unsigned map = 0; map < 4; map++)
		for (unsigned op = 0; op < 256; op++)
			for (unsigned k = 0; !is_prefix(map, op) && k < sizeof prefixes; k++)
				add_opcode(map, op, prefixes[k]);
}

void form_name(const struct form *f, char *out, size_t len)
{
	static const char *const maps[] = {"", "0f ", "0f 38 ", "0f 3a "};
	static const char *const mods[] = {"", " mem", " reg"};
	char prefix[4] = "", tail[16] = "";

	if (f->prefix)
		snprintf(prefix, sizeof prefix, "%02x ", f->prefix);
	if (f->rm >= 0)
		snprintf(tail, sizeof tail, " /%d.%d", f->reg, f->rm);
	else if (f->reg >= 0)
		snprintf(tail, sizeof tail, " /%d", f->reg);
	snprintf(out, len, "%s%s%02x%s%s%s %s", prefix, maps[f->map], f->op,
		 f->map >= 2 && !f->mnemonic ? "+" : "", mods[f->mod], tail,
		 f->mnemonic ? ZydisMnemonicGetString((ZydisMnemonic)f->mnemonic) : "(undefined)");
}
