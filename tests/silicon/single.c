/* single.c - cases of one instruction: an encoding of the form, registers and memory in which it does
 * something.
 *
 * Most memory operands are aimed at the data pages, in all alignments and across the borders of pages with
 * different rights; a register, the displacement or the base of a segment is set so that they get there.
 */
#include <string.h>

#include "silicon.h"

#define M(name) ZYDIS_MNEMONIC_##name

/* ------------------------------------------------------------------ encoding */

static unsigned put_address(uint8_t *p, unsigned mod, unsigned rm, bool wide)
{
	unsigned n = 0, disp = mod == 1 ? 1 : mod == 2 ? (wide ? 4 : 2) : 0;
	uint32_t v;

	if (wide && rm == 4) {
		p[n] = (uint8_t)rnd();
		if (mod == 0 && (p[n] & 7) == 5)
			disp = 4;
		n++;
	}
	if (mod == 0 && rm == (wide ? 5u : 6u))
		disp = wide ? 4 : 2;
	v = random_word();
	memcpy(p + n, &v, 4);
	return n + disp;
}

/* ModRM's mod and rm, SIB and displacement for an operand at a pointer. */
static unsigned put_pointed(uint8_t *modrm, const struct addressing *a)
{
	uint8_t *p = modrm + 1,
		reg = a->pointer[a->no_stack ? 1 + below(a->npointers - 1u) : below(a->npointers)];
	bool indexed = a->index != ESP && chance(25), sib = indexed || reg == ESP;
	unsigned mod = chance(50) ? 1 : chance(50) ? 2 : 0, n = 0;
	uint32_t disp = below(0x180) - 0xc0;

	if (chance(10)) { /* absolute */
		*modrm |= 5;
		disp = a->slot + SLOT_DATA + 0x80 + below(RW_BYTES - 0xe00);
		memcpy(p, &disp, 4);
		return 4;
	}
	if (reg == EBP && mod == 0)
		mod = 1;
	if (mod == 1)
		disp = (uint32_t)((int32_t)below(0x100) - 0x80);
	if (chance(60))
		disp &= ~15u;
	*modrm |= (uint8_t)(mod << 6 | (sib ? 4 : reg));
	if (sib)
		p[n++] = (uint8_t)(below(4) << 6 | (indexed ? a->index : 4) << 3 | reg);
	memcpy(p + n, &disp, 4);
	return n + (mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

static void put_immediate(uint8_t *p)
{
	uint32_t v = random_word(), w = rnd();

	if (chance(50)) { /* bytes matter more often than words */
		v = (v & 0xff) | (v & 0xff) << 8 | (w & 0xffff0000u);
	}
	memcpy(p, &v, 4);
	memcpy(p + 4, &w, 4);
}

static unsigned put_prefixes(const struct form *f, uint8_t *p, bool *wide, bool lock, bool aimed)
{
	static const uint8_t overrides[] = {0x64, 0x65, 0x64, 0x65, 0x26, 0x2e, 0x36, 0x3e};
	unsigned n = 0;

	*wide = true;
	if (lock)
		p[n++] = 0xf0;
	if (chance(12))
		p[n++] = overrides[below(sizeof overrides)];
	if (!aimed && chance(f->mod == MOD_MEM ? 12 : 4)) {
		p[n++] = 0x67;
		*wide = false;
	}
	if (!f->prefix && f->mnemonic && chance(2))
		p[n++] = chance(50) ? 0xf2 : 0xf3;
	if (f->prefix)
		p[n++] = f->prefix;
	if (n > 1 && chance(30)) { /* the order is free */
		unsigned a = below(n), b = below(n);
		uint8_t t = p[a];

		p[a] = p[b];
		p[b] = t;
	}
	return n;
}

unsigned encode_form(const struct form *f, uint8_t p[32], struct insn *i, const struct addressing *a)
{
	const bool undefined = f->mnemonic == ZYDIS_MNEMONIC_INVALID;
	bool wide, lock = chance(f->lockable && f->mod == MOD_MEM ? 25 : undefined ? 5 : 1);
	struct form g = *f;
	unsigned n, mod, rm;
	const char *reason;
	enum form_verdict v;

	if (undefined) {
		static const uint8_t prefixes[] = {0, 0, 0, 0x66, 0xf2, 0xf3};

		g.prefix = prefixes[below(sizeof prefixes)];
		g.op = (uint8_t)(f->map >= 2 ? f->op + below(16) : f->op);
		g.mod = chance(50) ? MOD_MEM : MOD_REG;
	}
	n = put_prefixes(&g, p, &wide, lock, a != NULL);
	if (g.map)
		p[n++] = 0x0f;
	if (g.map >= 2)
		p[n++] = g.map == 2 ? 0x38 : 0x3a;
	p[n++] = g.op;
	if (g.mod != MOD_NONE) {
		bool pointed = a && g.mod == MOD_MEM;

		mod = g.mod == MOD_REG ? 3 : pointed ? 0 : below(3);
		rm = pointed ? 0 : g.rm >= 0 ? (unsigned)g.rm : below(8);
		p[n++] = (uint8_t)(mod << 6 | (g.reg >= 0 ? (unsigned)g.reg : below(8)) << 3 | rm);
		if (pointed)
			n += put_pointed(p + n - 1, a);
		else if (mod != 3)
			n += put_address(p + n, mod, rm, wide);
	}
	if (n > 15)
		return 0;
	put_immediate(p + n);
	v = form_check(p, 15, i, &reason);
	if (v == FORM_EXCLUDED || (v == FORM_OK && (undefined || i->mnemonic != f->mnemonic)))
		return 0;
	if (v == FORM_UNDEFINED) {
		if (!undefined && !lock)
			return 0;
		i->len = 0;
		return n;
	}
	return i->len;
}

/* ------------------------------------------------------------------ aiming */

uint32_t random_data_target(const struct testcase *t)
{
	uint32_t off = 0x80 + below(RW_BYTES - 0x300);

	if (chance(60))
		off &= ~15u;
	return slot_at(t) + SLOT_DATA + off;
}

uint32_t random_target(const struct testcase *t)
{
	const uint32_t at = slot_at(t), k = 1 + below(chance(80) ? 16 : 80);

	switch (below(32)) {
	case 0:
	case 1: /* between two writable pages */
		return at + SLOT_DATA + 0x1000 - k;
	case 2:
	case 3: /* from writable into read-only */
		return at + SLOT_DATA + RW_BYTES - k;
	case 4:
		return at + SLOT_DATA + RW_BYTES + below(0xf00);
	case 5: /* from nothing into writable */
		return at + SLOT_DATA - k;
	case 6: /* from read-only into nothing */
		return at + SLOT_DATA + DATA_BYTES - k;
	case 7:
		return at + (chance(50) ? 0x3000 : 0x7000) + below(0x1000);
	case 8:
		return chance(50) ? at + SLOT_CODE + below(CODE_BYTES) : 0u - below(20);
	default:
		return random_data_target(t);
	}
}

static void patch_code(struct testcase *t, unsigned off, uint32_t v, unsigned len)
{
	memcpy(t->c.code + off, &v, len);
}

/* Makes the operand's address the target, as far as its form allows. */
static void aim(struct testcase *t, struct insn *i, uint32_t target)
{
	uint32_t *gpr = t->c.gpr, delta = target - case_address(t, i);

	if (i->adsize == 2 || (case_base(t, i->seg) && chance(50))) {
		unsigned n = (t->c.sel[i->seg] >> 3) - TLS_FIRST;

		if (i->seg != CS && n >= 3 && chance(80)) {
			n = 2;
			t->c.sel[i->seg] = TLS_SEL(2);
			delta = target - case_address(t, i);
		}
		if (n < 3)
			t->c.tls[n].base += delta;
		return;
	}
	if (i->disp_size == 4 && (i->base < 0 || chance(60))) {
		i->disp += (int32_t)delta;
		patch_code(t, i->disp_off, (uint32_t)i->disp, 4);
	} else if (i->base >= 0 && i->index != i->base) {
		gpr[i->base] += delta;
	} else if (i->base >= 0) { /* twice the same: exactly only where it divides */
		gpr[i->base] += delta / (1u + i->scale);
	} else if (i->index >= 0) {
		gpr[i->index] += (uint32_t)((int32_t)delta / i->scale);
	}
}

/* ESP, and for instructions that use it EBP, as offsets in SS. */
static uint32_t stack_target(struct testcase *t)
{
	return (chance(85) ? random_data_target(t) : random_target(t)) - case_base(t, SS);
}

/* Where control may go: to one of the int3s around the code, or somewhere that cannot be executed. */
static uint32_t code_target(const struct testcase *t)
{
	uint32_t start = t->c.eip & ~15u, v;

	if (chance(8))
		return random_target(t);
	do
		v = slot_at(t) + SLOT_CODE + below(CODE_BYTES);
	while (v >= start - 16 && v < start + 48);
	return v;
}

/* ------------------------------------------------------------------ particular instructions */

static void aim_string(struct testcase *t, const struct insn *i)
{
	uint32_t *gpr = t->c.gpr;

	if (i->adsize == 2) {
		t->c.sel[ES] = TLS_SEL(1);
		if (i->seg != CS)
			t->c.sel[i->seg] = chance(50) ? TLS_SEL(1) : TLS_SEL(0);
		t->c.tls[1].base = random_target(t) - (gpr[EDI] & 0xffff);
		t->c.tls[0].base = random_target(t) - (gpr[ESI] & 0xffff);
	} else {
		gpr[EDI] = random_target(t) - case_base(t, ES);
		gpr[ESI] = (chance(30) ? gpr[EDI] + below(9) - 4 : random_target(t)) - case_base(t, i->seg);
	}
	gpr[ECX] = chance(90) ? below(40) : chance(50) ? random_word() : below(3000);
	if (i->adsize == 2 && chance(50))
		gpr[ECX] |= rnd() << 16;
	if ((i->prefix & (INSN_REP | INSN_REPNE)) && chance(60) && (i->opcode & 0xf6) == 0xa6) {
		/* runs of equal elements, so that it goes on for a while */
		uint8_t same[64];

		memset(same, chance(50) ? (int)(gpr[EAX] & 0xff) : 0, sizeof same);
		case_poke(t, gpr[EDI] + case_base(t, ES), same, 16 + below(48));
		case_poke(t, gpr[ESI] + case_base(t, i->seg), same, 16 + below(48));
	}
}

static uint32_t random_popped_flags(void)
{
	uint32_t f = rnd() & ~(FL_TF | FL_NT | FL_AC);

	return f | (chance(12) ? FL_TF : 0) | (chance(8) ? FL_NT : 0) | (chance(8) ? FL_AC : 0);
}

/* A far pointer or frame of n words of the operand size. */
static void poke_frame(struct testcase *t, const struct insn *i, uint32_t at, const uint32_t *words,
		       unsigned n)
{
	uint8_t b[16];

	for (unsigned k = 0; k < n; k++)
		memcpy(b + k * i->opsize, &words[k], i->opsize);
	case_poke(t, at, b, n * i->opsize);
}

static void aim_branch(struct testcase *t, const struct insn *i)
{
	unsigned size = i->imm_size;
	uint32_t next = t->c.eip + i->len, v;

	if (size == 1) {
		do
			v = rnd() & 0xff;
		while (v > 0xc0); /* not back into itself */
	} else {
		v = code_target(t) - next;
	}
	patch_code(t, i->imm_off, v, size);
}

static void aim_far(struct testcase *t, const struct insn *i, uint32_t operand, bool code)
{
	uint32_t off = code ? code_target(t) : rnd();
	uint16_t sel = code ? random_code_selector() : random_selector();

	if (i->has_mem) {
		case_poke(t, operand, &off, 4);
		case_poke(t, operand + i->opsize, &sel, 2);
	} else {
		patch_code(t, i->imm_off, off, i->imm_size);
		patch_code(t, i->imm_off + i->imm_size, sel, 2);
	}
}

static void aim_indirect(struct testcase *t, const struct insn *i, uint32_t operand)
{
	uint32_t v = code_target(t);

	if (i->has_mem)
		case_poke(t, operand, &v, 4);
	else
		t->c.gpr[i->rm] = v;
}

static void aim_selector(struct testcase *t, const struct insn *i, uint32_t operand)
{
	uint16_t sel = random_selector();

	if (i->has_mem)
		case_poke(t, operand, &sel, 2);
	else
		t->c.gpr[i->rm] = (rnd() & 0xffff0000u) | sel;
}

static void aim_divide(struct testcase *t, const struct insn *i)
{
	uint32_t *gpr = t->c.gpr;

	if (!(i->opcode & 1)) {
		if (chance(70))
			gpr[EAX] = (gpr[EAX] & 0xffff00ffu) | below(4) << 8;
	} else if (chance(70)) {
		uint32_t top = i->opsize == 2 ? 0x8000u : 0x80000000u;

		gpr[EDX] = i->mnemonic == M(IDIV) && (gpr[EAX] & top) && chance(80) ? 0xffffffffu : below(3);
	}
}

static void poke_environment(struct testcase *t, const struct insn *i, uint32_t at)
{
	uint32_t words[4] = {0x40 | (chance(70) ? 0x37f : rnd() & 0xf3f), rnd() & 0x7f3f, rnd(), 0};

	if (words[1] & ~words[0] & 0x3f)
		words[1] |= 0x8080;
	poke_frame(t, i, at, words, 4);
}

static void aim_x87(struct testcase *t, const struct insn *i, uint32_t operand)
{
	uint8_t fx[512];
	uint32_t v = rnd();

	switch (i->mnemonic) {
	case M(LDMXCSR):
		v &= chance(85) ? 0xffff : 0xfffff;
		case_poke(t, operand, &v, 4);
		break;
	case M(FLDCW):
		v &= 0xf3f;
		case_poke(t, operand, &v, 2);
		break;
	case M(FLDENV):
	case M(FRSTOR):
		poke_environment(t, i, operand);
		break;
	case M(FXRSTOR):
		random_fx(fx);
		if (chance(10))
			fx[26] = 1; /* a reserved bit of MXCSR */
		case_poke(t, operand, fx, 288);
		break;
	}
}

/* operand: linear address of the memory operand, if there is one. */
static void particulars(struct testcase *t, struct insn *i, uint32_t operand)
{
	uint32_t *gpr = t->c.gpr, stack = gpr[ESP] + case_base(t, SS), words[5];

	switch (i->mnemonic) {
	case M(DIV):
	case M(IDIV):
		aim_divide(t, i);
		break;
	case M(LDMXCSR):
	case M(FLDCW):
	case M(FLDENV):
	case M(FRSTOR):
	case M(FXRSTOR):
		aim_x87(t, i, operand);
		break;
	case M(RET):
		words[0] = code_target(t);
		words[1] = random_code_selector();
		poke_frame(t, i, stack, words, 2);
		break;
	case M(IRET):
	case M(IRETD):
		words[0] = code_target(t);
		words[1] = random_code_selector();
		words[2] = random_popped_flags();
		poke_frame(t, i, stack, words, 3);
		break;
	case M(POPF):
	case M(POPFD):
		words[0] = random_popped_flags();
		poke_frame(t, i, stack, words, 1);
		break;
	case M(POP): /* perhaps into a segment register */
		words[0] = random_selector();
		if (!i->has_modrm && (i->opmap == 1 || i->opcode < 0x20))
			poke_frame(t, i, stack, words, 1);
		break;
	case M(LES):
	case M(LDS):
	case M(LSS):
	case M(LFS):
	case M(LGS):
		aim_far(t, i, operand, false);
		break;
	case M(MOV):
		if (i->opmap == 0 && i->opcode == 0x8e)
			aim_selector(t, i, operand);
		break;
	case M(LAR):
	case M(LSL):
	case M(VERR):
	case M(VERW):
		aim_selector(t, i, operand);
		break;
	case M(ENTER):
		patch_code(t, i->imm_off + 2, below(chance(80) ? 4 : 64), 1);
		gpr[EBP] = stack_target(t);
		break;
	case M(LEAVE):
		gpr[EBP] = stack_target(t);
		break;
	case M(XLAT):
		if (i->adsize == 2) {
			i->base = EBX;
			i->disp = (int32_t)(gpr[EAX] & 0xff);
			aim(t, i, random_target(t));
			i->base = -1;
		} else {
			gpr[EBX] = random_target(t) - (gpr[EAX] & 0xff) - case_base(t, i->seg);
		}
		break;
	case M(MASKMOVQ):
	case M(MASKMOVDQU):
		gpr[EDI] = random_target(t) - case_base(t, i->seg);
		break;
	case M(BT):
	case M(BTS):
	case M(BTR):
	case M(BTC):
		if (i->has_mem && !i->imm_size && i->reg != i->base && i->reg != i->index && chance(85))
			gpr[i->reg] = (uint32_t)((int32_t)below(0x4000) - 0x2000);
		break;
	case M(CMPXCHG):
		if (i->has_mem && chance(50))
			case_poke(t, operand, &gpr[EAX], 4);
		break;
	case M(CMPXCHG8B):
		words[0] = gpr[EAX];
		words[1] = gpr[EDX];
		if (chance(50))
			case_poke(t, operand, words, 8);
		break;
	case M(BOUND):
		words[0] = gpr[i->reg] - below(3);
		words[1] = gpr[i->reg] + below(3) - 1;
		if (chance(60))
			poke_frame(t, i, operand, words, 2);
		break;
	case M(PCMPESTRI):
	case M(PCMPESTRM):
		if (chance(70)) {
			gpr[EAX] = below(40) - 20;
			gpr[EDX] = below(40) - 20;
		}
		break;
	case M(LOOP):
	case M(LOOPE):
	case M(LOOPNE):
	case M(JECXZ):
	case M(JCXZ):
		if (chance(70))
			gpr[ECX] = chance(50) ? below(3) : rnd() << 16 | below(3);
		break;
	}
	if (i->opmap == 0 &&
	    ((i->opcode >= 0xa4 && i->opcode <= 0xa7) || (i->opcode >= 0xaa && i->opcode <= 0xaf) ||
	     (i->opcode >= 0x6c && i->opcode <= 0x6f)))
		aim_string(t, i);
	if (i->opmap == 0 && i->opcode == 0xff && (i->reg == 2 || i->reg == 4))
		aim_indirect(t, i, operand);
	if (i->opmap == 0 &&
	    ((i->opcode == 0xff && (i->reg == 3 || i->reg == 5)) || i->opcode == 0x9a || i->opcode == 0xea))
		aim_far(t, i, operand, true);
	if ((i->opmap == 0 && ((i->opcode & 0xf0) == 0x70 || (i->opcode >= 0xe0 && i->opcode <= 0xe3) ||
			       i->opcode == 0xe8 || i->opcode == 0xe9 || i->opcode == 0xeb)) ||
	    (i->opmap == 1 && (i->opcode & 0xf0) == 0x80))
		aim_branch(t, i);
}

/* ------------------------------------------------------------------ the case */

static void place_code(struct testcase *t, unsigned len, bool whole)
{
	uint32_t off = below(CODE_BYTES - 64);

	if (!whole && chance(8)) /* across the pages, or off the end */
		off = (chance(70) ? 0x1000u : (uint32_t)CODE_BYTES) - 1 - below(len > 1 ? len - 1 : 1);
	t->c.code_at = off;
	t->c.code_len = off + len > CODE_BYTES ? CODE_BYTES - off : len;
	t->c.eip = slot_at(t) + SLOT_CODE + off;
}

static void random_segments(struct testcase *t)
{
	for (unsigned n = 0; n < 3; n++) {
		struct silicon_tls *s = &t->c.tls[n];

		s->base = chance(50) ? rnd() : slot_at(t) + SLOT_DATA + below(RW_BYTES);
		if (chance(12)) { /* a limit in the way */
			s->limit = below(RW_BYTES);
			s->attr = TLS_PRESENT | TLS_WRITABLE | (chance(20) ? TLS_PAGES : 0);
			if (chance(40))
				s->attr |= TLS_DOWN;
		}
		if (chance(6))
			s->attr &= ~(uint32_t)TLS_WRITABLE;
		if (chance(3))
			s->attr = 0;
	}
	for (unsigned s = 0; s < 6; s++) {
		if (s == CS || s == SS)
			continue;
		if (chance(s == FS || s == GS ? 15 : 4))
			t->c.sel[s] = chance(20) ? 0 : chance(40) ? USER_DATA : TLS_SEL(below(3));
	}
	if (chance(3))
		t->c.sel[SS] = TLS_SEL(2);
}

/* What is loaded at the beginning has to be there. */
static void sanitize_segments(struct testcase *t)
{
	for (unsigned s = 0; s < 6; s++) {
		unsigned n = (t->c.sel[s] >> 3) - TLS_FIRST;

		if (n >= 3)
			continue;
		t->c.tls[n].attr |= TLS_PRESENT;
		if (s == SS)
			t->c.tls[n].attr |= TLS_WRITABLE;
	}
}

void make_single(struct testcase *t, unsigned form)
{
	const struct form *f = &forms[form];
	uint8_t bytes[32];
	struct insn i;
	unsigned len = 0;
	uint32_t operand = 0;

	for (unsigned tries = 0; !len && tries < 1000; tries++)
		len = encode_form(f, bytes, &i, NULL);
	t->image = below(IMAGES);
	for (unsigned r = 0; r < 8; r++)
		t->c.gpr[r] = chance(10) ? random_target(t) : random_word();
	t->c.eflags = random_flags();
	random_fx(t->c.fx);
	if (chance(30))
		random_segments(t);
	t->c.gpr[ESP] = stack_target(t);
	memcpy(t->c.code, bytes, len);
	place_code(t, len, !len || !i.len);
	if (chance(15))
		t->c.reps = 2 + below(3);
	t->insn[0].form = (uint16_t)form;
	t->insn[0].len = (uint8_t)len;
	t->ninsn = 1;
	sanitize_segments(t);
	if (!len || !i.len)
		return;
	if (i.has_mem) {
		operand = random_target(t);
		if (i.mnemonic == M(FXRSTOR) && chance(80))
			operand &= ~15u;
		aim(t, &i, operand);
		operand = case_address(t, &i);
	}
	particulars(t, &i, operand);
	sanitize_segments(t);
}
