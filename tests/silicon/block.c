/* block.c - cases of many instructions: straight lines, loops, branches, calls.
 *
 * Some registers are set aside: pointers into the data pages (ESP among them), a small index, a loop counter.
 * Instructions that would change them are not taken, so that most memory operands hit; a few are left to
 *chance and fault in the middle of the block, where the state must be precise. Code goes like this:
 *
 *	functions, each ending in ret
 *	main: instructions; jcc over some; mov counter, n ... dec counter, jnz; call function; jmp, push and
 *ret int3
 */
#include <string.h>

#include "silicon.h"

#define M(name)	   ZYDIS_MNEMONIC_##name
#define ROOM	   (CODE_MAX - 48)
#define FUNCTIONS  3
#define MAX_TARGET 5

static ZydisDecoder decoder;

struct builder {
	struct testcase *t;
	unsigned used;	     /* bytes of code */
	struct addressing a; /* pointers and index */
	unsigned set_aside;  /* mask of registers */
	unsigned counter;
	unsigned function[FUNCTIONS], nfunctions;
	bool in_loop;
};

/* ------------------------------------------------------------------ emitting */

static void emit(struct builder *b, const uint8_t *p, unsigned len, unsigned form)
{
	struct testcase *t = b->t;

	memcpy(t->c.code + b->used, p, len);
	if (t->ninsn < CASE_INSNS) {
		t->insn[t->ninsn].at = (uint16_t)b->used;
		t->insn[t->ninsn].len = (uint8_t)len;
		t->insn[t->ninsn++].form = (uint16_t)form;
	}
	b->used += len;
}
#define EMIT(b, ...)                                                                                         \
	emit((b), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), FORM_NONE)

static void emit_imm32(struct builder *b, uint8_t op, uint32_t v)
{
	EMIT(b, op, (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24));
}

static bool room(const struct builder *b)
{
	return b->used < ROOM && b->t->ninsn < CASE_INSNS - 8;
}

/* ------------------------------------------------------------------ which instructions */

static bool is_string(const struct insn *i)
{
	return i->opmap == 0 &&
	       ((i->opcode >= 0xa4 && i->opcode <= 0xa7) || (i->opcode >= 0xaa && i->opcode <= 0xaf));
}

/* Percent of how often a mnemonic that comes up is taken; those not named here always are. */
static unsigned share(const struct insn *i)
{
	unsigned op = i->opcode;

	if (i->opmap == 0) {
		if ((op & 0xf0) == 0x70 || (op >= 0xe0 && op <= 0xe3) || op == 0xe8 || op == 0xe9 ||
		    op == 0xeb)
			return 0; /* branches: made on purpose only */
		if (op == 0x9a || op == 0xea || op == 0xc2 || op == 0xc3 || (op >= 0xc8 && op <= 0xcb) ||
		    op == 0xcf)
			return 0;
		if (op == 0xff && i->reg >= 2 && i->reg <= 5)
			return 0;
		if (op == 0xcc || op == 0xcd || op == 0xce || op == 0xf1 || op == 0xf4 || op == 0x62)
			return 3;
		if ((op >= 0x6c && op <= 0x6f) || (op >= 0xe4 && op <= 0xe7) || (op >= 0xec && op <= 0xef) ||
		    op == 0xfa || op == 0xfb)
			return 2; /* privileged */
		if (op == 0x8e || op == 0x07 || op == 0x17 || op == 0x1f || op == 0xc4 || op == 0xc5)
			return 2; /* segment loads */
		if (op == 0x9d)
			return 10;
		if (op == 0x61)
			return 0;
		if ((op & 0xfe) == 0xf6 && i->reg >= 6)
			return 15;
		if (op == 0xd4)
			return 50;
	}
	switch (i->mnemonic) {
	case M(LSS):
	case M(LFS):
	case M(LGS):
	case M(LAR):
	case M(LSL):
	case M(VERR):
	case M(VERW):
		return 0;
	case M(LDMXCSR):
	case M(FLDCW):
	case M(FLDENV):
	case M(FRSTOR):
	case M(FXRSTOR):
		return 10;
	}
	if (i->opmap == 1 && ((op & 0xf0) == 0x80 || op == 0xa1 || op == 0xa9))
		return (op & 0xf0) == 0x80 ? 0 : 2;
	if (i->opmap == 1 &&
	    (op <= 0x01 || op == 0x06 || op == 0x08 || op == 0x09 || op == 0x0b ||
	     (op >= 0x20 && op <= 0x23) || (op >= 0x30 && op <= 0x37) || op == 0xff || op == 0xb9))
		return 2;
	return 100;
}

static unsigned written_registers(const struct insn *i)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	unsigned mask = 0;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, i->raw, i->len, &z, ops)))
		return 0;
	for (unsigned n = 0; n < z.operand_count; n++) {
		ZydisRegister r;

		if (ops[n].type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(ops[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		r = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LEGACY_32, ops[n].reg.value);
		if (r < ZYDIS_REGISTER_EAX || r > ZYDIS_REGISTER_EDI)
			continue;
		/* Stack instructions may move ESP a little. */
		if (r == ZYDIS_REGISTER_ESP && ops[n].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			continue;
		mask |= 1u << (r - ZYDIS_REGISTER_EAX);
	}
	return mask;
}

static bool is_pointer(const struct builder *b, unsigned reg)
{
	for (unsigned k = 0; k < b->a.npointers; k++)
		if (b->a.pointer[k] == reg)
			return true;
	return false;
}

/* Pushes and pops would move the return address away. */
static bool uses_stack(const struct insn *i)
{
	switch (i->mnemonic) {
	case M(PUSH):
	case M(POP):
	case M(PUSHF):
	case M(PUSHFD):
	case M(POPF):
	case M(POPFD):
	case M(PUSHA):
	case M(PUSHAD):
		return true;
	default:
		return false;
	}
}

static bool suits(const struct builder *b, const struct insn *i)
{
	unsigned allowed = 0;

	if (b->a.no_stack && uses_stack(i))
		return false;

	if (!chance(share(i)))
		return false;
	if (is_string(i)) {
		if (i->adsize == 2 || !is_pointer(b, ESI) || !is_pointer(b, EDI))
			return false;
		allowed = 1u << ESI | 1u << EDI;
		if ((i->prefix & (INSN_REP | INSN_REPNE)) && (b->set_aside & 1u << ECX))
			return false;
	}
	if (i->mnemonic == M(XLAT) && !is_pointer(b, EBX))
		return chance(2);
	if ((i->mnemonic == M(MASKMOVQ) || i->mnemonic == M(MASKMOVDQU)) && !is_pointer(b, EDI))
		return chance(2);
	if (i->has_mem && !i->imm_size && i->opmap == 1 &&
	    (i->opcode == 0xa3 || i->opcode == 0xab || i->opcode == 0xb3 || i->opcode == 0xbb) &&
	    i->reg != b->a.index)
		return chance(3);
	return !(written_registers(i) & b->set_aside & ~allowed);
}

static bool stores_pointers(const struct insn *i)
{
	return i->mnemonic == M(FNSTENV) || i->mnemonic == M(FNSAVE) || i->mnemonic == M(FXSAVE);
}

/* Half of them integer instructions, which are a third of the forms. */
static unsigned pick_form(void)
{
	for (;;) {
		unsigned k = below(form_count);
		const struct form *f = &forms[k];
		bool integer = f->map == 0 ? f->op < 0xd8 || f->op > 0xdf
					   : f->map == 1 && (f->op & 0xf0) != 0x10 && f->op >= 0x40 &&
						     !(f->op >= 0x50 && f->op <= 0x7f) && f->op < 0xc0;

		if (!f->mnemonic && !chance(2))
			continue;
		if (integer || chance(35))
			return k;
	}
}

static void one(struct builder *b)
{
	uint8_t p[32];
	struct insn i;

	for (unsigned tries = 0; tries < 60; tries++) {
		unsigned form = pick_form(), len;
		/* Half of those that lock or use 16-bit addresses do not suit anyway. */
		bool aimed = chance(96);

		len = encode_form(&forms[form], p, &i, aimed ? &b->a : NULL);
		if (!len)
			continue;
		if (i.len && !suits(b, &i))
			continue;
		if (!i.len && !chance(5)) /* #UD */
			continue;
		/* The pointers to the last x87 instruction are another matter (docs/limits.md). */
		if (i.len && stores_pointers(&i))
			EMIT(b, 0xdb, 0xe3);
		if (i.len && is_string(&i) && (i.prefix & (INSN_REP | INSN_REPNE)))
			emit_imm32(b, 0xb9, below(24));
		emit(b, p, len, form);
		return;
	}
	EMIT(b, 0x90);
}

/* ------------------------------------------------------------------ control flow */

static void some(struct builder *b, unsigned n)
{
	while (n-- && room(b))
		one(b);
}

/* jcc rel8 or rel32 over the next n instructions */
static void skip(struct builder *b, unsigned n)
{
	uint8_t cc = (uint8_t)below(16);
	bool near = chance(50);
	unsigned at = b->used;
	int32_t dist;

	b->t->branches = true;
	if (near)
		EMIT(b, 0x0f, (uint8_t)(0x80 | cc), 0, 0, 0, 0);
	else if (chance(15))
		EMIT(b, 0xe3, 0);
	else
		EMIT(b, (uint8_t)(0x70 | cc), 0);
	dist = (int32_t)b->used;
	some(b, n);
	dist = (int32_t)b->used - dist;
	if (near)
		memcpy(b->t->c.code + at + 2, &dist, 4);
	else if (dist < 128)
		b->t->c.code[at + 1] = (uint8_t)dist;
}

static void repeat(struct builder *b)
{
	unsigned top, r = b->counter, kind = below(3);
	int32_t dist;

	if (b->in_loop)
		return;
	b->t->branches = b->in_loop = true;
	emit_imm32(b, (uint8_t)(0xb8 + r), chance(90) ? 1 + below(4) : 5 + below(40));
	top = b->used;
	some(b, 1 + below(6));
	if (chance(40))
		skip(b, 1 + below(2));
	if (kind == 0 && r == ECX && b->used - top < 120) {
		dist = (int32_t)top - (int32_t)b->used - 2;
		EMIT(b, 0xe2, (uint8_t)dist);
	} else {
		if (kind == 1)
			EMIT(b, (uint8_t)(0x48 + r));
		else
			EMIT(b, 0x83, (uint8_t)(0xe8 + r), 1);
		dist = (int32_t)top - (int32_t)b->used - 6;
		EMIT(b, 0x0f, 0x85, (uint8_t)dist, (uint8_t)(dist >> 8), (uint8_t)(dist >> 16),
		     (uint8_t)(dist >> 24));
	}
	b->in_loop = false;
}

static uint32_t code_at(const struct builder *b, unsigned off)
{
	return slot_at(b->t) + SLOT_CODE + b->t->c.code_at + off;
}

static unsigned free_register(const struct builder *b)
{
	unsigned r;

	do
		r = below(8);
	while (b->set_aside & 1u << r);
	return r;
}

static void call(struct builder *b)
{
	unsigned f, r = free_register(b);
	uint32_t dist;

	if (!b->nfunctions)
		return;
	b->t->branches = true;
	f = b->function[below(b->nfunctions)];
	switch (below(3)) {
	case 0:
		emit_imm32(b, (uint8_t)(0xb8 + r), code_at(b, f));
		EMIT(b, 0xff, (uint8_t)(0xd0 + r));
		break;
	default:
		dist = f - b->used - 5;
		emit_imm32(b, 0xe8, dist);
	}
}

/* A jump over bytes that are not code, direct, indirect or by ret. */
static void jump(struct builder *b)
{
	static const uint8_t junk[] = {0x0f, 0xff, 0xcc, 0xc7};
	unsigned n = below(sizeof junk), r = free_register(b);

	b->t->branches = true;
	switch (below(3)) {
	case 0:
		EMIT(b, 0xeb, (uint8_t)n);
		break;
	case 1:
		emit_imm32(b, (uint8_t)(0xb8 + r), code_at(b, b->used + 7 + n));
		EMIT(b, 0xff, (uint8_t)(0xe0 + r));
		break;
	default:
		emit_imm32(b, 0x68, code_at(b, b->used + 6 + n));
		EMIT(b, 0xc3);
	}
	if (n)
		emit(b, junk, n, FORM_NONE);
}

static void body(struct builder *b, unsigned n)
{
	while (n-- && room(b)) {
		switch (below(24)) {
		case 0:
			skip(b, 1 + below(3));
			break;
		case 1:
			repeat(b);
			break;
		case 2:
			call(b);
			break;
		case 3:
			jump(b);
			break;
		default:
			one(b);
		}
	}
}

/* ------------------------------------------------------------------ the case */

static void set_aside(struct builder *b)
{
	static const uint8_t order[] = {ESI, EDI, EBX, EBP, EDX, EAX};
	unsigned n = 1 + below(2), first = below(3) * 2;

	b->a.pointer[b->a.npointers++] = ESP;
	for (unsigned k = 0; k <= n && k + first < 6; k++)
		b->a.pointer[b->a.npointers++] = order[first + k];
	for (unsigned k = 0; k < b->a.npointers; k++)
		b->set_aside |= 1u << b->a.pointer[k];
	b->a.index = (uint8_t)free_register(b);
	b->set_aside |= 1u << b->a.index;
	b->counter = chance(40) && !(b->set_aside & 1u << ECX) ? (unsigned)ECX : free_register(b);
	b->set_aside |= 1u << b->counter;
}

static void block_state(struct builder *b)
{
	struct testcase *t = b->t;

	t->image = below(IMAGES);
	for (unsigned r = 0; r < 8; r++)
		t->c.gpr[r] = random_word();
	/* The stack lies above the rest, or blocks would lose their return addresses all the time. */
	for (unsigned k = 0; k < b->a.npointers; k++)
		t->c.gpr[b->a.pointer[k]] =
			slot_at(t) + SLOT_DATA +
			((b->a.pointer[k] == ESP ? 0x1400 + below(0x800) : 0x400 + below(0xc00)) &
			 ~(chance(60) ? 15u : 0u));
	t->c.gpr[b->a.index] = below(chance(80) ? 16 : 64);
	t->c.eflags = random_flags();
	random_fx(t->c.fx);
	for (unsigned n = 0; n < 3; n++)
		t->c.tls[n].base = below(0x200) - 0x100;
	if (chance(10))
		t->c.sel[chance(50) ? FS : GS] = 0;
	if (chance(5))
		t->c.sel[chance(50) ? DS : ES] = TLS_SEL(2);
	if (chance(1))
		t->c.sel[SS] = TLS_SEL(2);
	if (chance(5)) {
		t->c.tls[0].base = slot_at(t) + SLOT_DATA;
		t->c.tls[0].limit = below(RW_BYTES);
		t->c.tls[0].attr &= ~(uint32_t)TLS_PAGES;
	}
}

static void place(struct testcase *t)
{
	uint32_t off = below(CODE_BYTES - CODE_MAX - 64);

	if (chance(25))
		off = 0x1000 - below(200);
	t->c.code_at = off;
}

void make_block(struct testcase *t)
{
	struct builder b = {.t = t};
	unsigned start;

	if (!decoder.stack_width)
		ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	set_aside(&b);
	block_state(&b);
	place(t);
	b.a.slot = slot_at(t);
	b.a.no_stack = true;
	for (unsigned n = below(FUNCTIONS); n--;) {
		b.function[b.nfunctions] = b.used;
		some(&b, 1 + below(4));
		EMIT(&b, 0xc3);
		b.nfunctions++;
	}
	b.a.no_stack = false;
	start = b.used;
	body(&b, 5 + below(36));
	EMIT(&b, 0xcc);
	t->c.code_len = b.used;
	t->c.eip = code_at(&b, start);
	if (chance(15))
		t->c.reps = 2 + below(3);
	if (start)
		t->branches = true;
}
