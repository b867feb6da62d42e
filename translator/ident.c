/* ident.c - IDENT instructions: the guest's own bytes with prefixes added and registers mapped.
 *
 *   add eax, [ebx+4]            ->   65 add eax, gs:[rbx+4]
 *   add eax, [ebx] (CPL 3)      ->   add eax, [rbx+r13]                (REX.X)
 *   add eax, [ebx+ecx]          ->   65 67 add eax, gs:[ebx+ecx]       (wraps at 4 GiB)
 *   mov [esp+8], ecx            ->   65 mov gs:[r12+8], ecx            (REX.B)
 *   mov eax, fs:[ecx]           ->   lea r8d, [rcx]; mov r9, [r15+seg_base]; lea r8d, [r8+r9];
 *                                    mov r9, [r15+seg_poison]; mov eax, gs:[r8+r9]   (see below)
 *   mov eax, [ecx] (user site)  ->   lea r8d, [rcx]; mov eax, [r13+r8]
 *   mov eax, [ecx] (mixed site) ->   lea r8d, [rcx]; mov r9, slot_bases[r8 >> 22]; mov eax, [r9+r8]
 *
 *   mov eax, [ecx] (a site that probes)  ->   what probe.c says; mov eax, [r10+r8]
 *
 * hot.seg_poison is 0 when the segment may be used freely (present, writable, 4 GiB limit), else 4 GiB, so
 * that the access lands in the guard space behind the window and traps to where every check is made. The
 * 32-bit wrap of base + offset is made by lea r8d.
 */
#include "translator/tr.h"

/* Which operands are esp, so that REX must say r12; and whether ah, ch, dh or bh takes part. */
struct reg_use {
	bool reg_esp, rm_esp, opcode_esp, high8;
};

static ZydisDecoder decoder;

void translate_init(void)
{
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	__builtin_cpu_init();
	translate_host.bmi2 = __builtin_cpu_supports("bmi2");
}

static struct reg_use reg_use_by_decoding(const struct insn *i)
{
	struct reg_use u = {0};
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, i->raw, i->len, &zi, ops)))
		return u;
	for (unsigned n = 0; n < zi.operand_count; n++) {
		if (ops[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		ZydisRegister r = ops[n].reg.value;
		if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
			u.high8 = true;
		if (r != ZYDIS_REGISTER_ESP && r != ZYDIS_REGISTER_SP)
			continue;
		switch (ops[n].encoding) {
		case ZYDIS_OPERAND_ENCODING_MODRM_REG:
			u.reg_esp = true;
			break;
		case ZYDIS_OPERAND_ENCODING_MODRM_RM:
			u.rm_esp = true;
			break;
		case ZYDIS_OPERAND_ENCODING_OPCODE:
			u.opcode_esp = true;
			break;
		default:
			break;
		}
	}
	return u;
}

/* The ModRM reg of instructions with a memory operand, for the commonest. */
enum reg_kind { REG_ASK, REG_NONE, REG_BYTE, REG_WIDE };

static enum reg_kind reg_kind(const struct insn *i)
{
	const uint8_t op = i->opcode;

	if (i->opmap == 0) {
		if (op < 0x40 || (op >= 0x84 && op <= 0x8b)) /* arithmetic, test, xchg, mov */
			return op & 1 ? REG_WIDE : REG_BYTE;
		if (op >= 0x80 && op <= 0x83) /* arithmetic with an immediate: part of the opcode */
			return REG_NONE;
	}
	if (i->opmap == 1 && ((op & 0xf0) == 0x40 || (op & 0xf6) == 0xb6)) /* cmov, movzx, movsx */
		return REG_WIDE;
	return REG_ASK;
}

static struct reg_use reg_use(const struct insn *i)
{
	const enum reg_kind kind = i->mod == 3 ? REG_ASK : reg_kind(i);

	/* Without esp no REX is needed, so that ah to bh do no harm. */
	if (i->mod == 3 && i->reg != ESP && i->rm != ESP)
		return (struct reg_use){0};
	if (i->mod != 3 && i->reg < 4)
		return (struct reg_use){0};
	if (kind == REG_ASK)
		return reg_use_by_decoding(i);
	return (struct reg_use){.high8 = kind == REG_BYTE, .reg_esp = kind == REG_WIDE && i->reg == ESP};
}

/* bt, bts, btr, btc with a register: the access lies up to 256 MiB below or above the operand, beyond the
 * reach of the segment's poison. */
static bool is_bit_string(const struct insn *i)
{
	return i->opmap == 1 && (i->opcode & 0xe7) == 0xa3;
}

unsigned ident_operand_bytes(const struct insn *i, bool *write)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	unsigned bytes = 0;

	if (is_bit_string(i) || !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, i->raw, i->len, &zi, ops)))
		return 0;
	for (unsigned n = 0; n < zi.operand_count; n++) {
		const ZydisRegister r = ops[n].reg.value;

		if (ops[n].type == ZYDIS_OPERAND_TYPE_REGISTER && r >= ZYDIS_REGISTER_AH &&
		    r <= ZYDIS_REGISTER_BH)
			return 0; /* no REX */
		if (ops[n].type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (bytes || ops[n].size % 8 || ops[n].size > 128 || ops[n].mem.type != ZYDIS_MEMOP_TYPE_MEM)
			return 0;
		bytes = ops[n].size / 8;
		*write = ops[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	}
	return bytes;
}

struct host_mem ident_ea(const struct tr *t, const struct insn *i)
{
	return (struct host_mem){.base = (int8_t)(i->base < 0 ? -1 : (int)host_reg((unsigned)i->base)),
				 .index = i->index,
				 .scale = i->scale ? i->scale : 1,
				 .disp = i->disp + (i->base == ESP ? t->esp_off : 0)};
}

static bool segment_flat(const struct tr *t, unsigned seg)
{
	switch (seg) {
	case CS:
		return true;
	case SS:
		return !(t->rq->mode & MODE_NF_SS);
	case DS:
		return !(t->rq->mode & MODE_NF_DS);
	case ES:
		return !(t->rq->mode & MODE_NF_ES);
	default:
		return false;
	}
}

/* CS is readable and flat, but never writable: a store through it is #GP. */
static bool cs_write_possible(const struct insn *i)
{
	return i->seg == CS;
}

/* A register and a small displacement, which leave the window only at its ends. There is nothing on either
 * side, so that such an access traps and the interpreter makes it wrap: a prefix less. */
static bool near_base(const struct host_mem *m)
{
	return m->base >= 0 && m->index < 0 && m->disp >= -128 && m->disp <= 127;
}

bool ident_operand(struct tr *t, unsigned i, struct host_mem *m)
{
	const struct insn *in = &t->insn[i];
	unsigned site = tr_site(t, i);
	bool user = t->rq->mode & MODE_USER;

	if (cs_write_possible(in) || site & SITE_CALLOUT)
		return false;
	if (t->probed) {
		*m = (struct host_mem){.base = R10, .index = R8, .scale = 1};
		return true;
	}
	*m = ident_ea(t, in);
	if (!segment_flat(t, in->seg)) {
		if (site & (SITE_USER | SITE_MIXED) || is_bit_string(in))
			return false;
		em_lea32(&t->e, R8, m);
		struct host_mem base = tr_vcpu(offsetof(struct vcpu, hot.seg_base) + 8u * in->seg);
		em_load64(&t->e, R9, &base);
		em_lea_add(&t->e, R8, R8, R9);
		struct host_mem poison = tr_vcpu(offsetof(struct vcpu, hot.seg_poison) + 8u * in->seg);
		em_load64(&t->e, R9, &poison);
		*m = (struct host_mem){.base = R8, .index = R9, .scale = 1, .gs = true};
		return true;
	}
	if (!user && site & SITE_MIXED) {
		if (!translate_host.bmi2)
			return false;
		em_lea32(&t->e, R8, m);
		em_mov_ri32(&t->e, R10, 22);
		em_shrx32(&t->e, R9, R8, R10);
		struct host_mem slots = tr_vcpu(offsetof(struct vcpu, hot.slot_bases));
		em_load64(&t->e, R10, &slots);
		em_load64(&t->e, R9, &(struct host_mem){.base = R10, .index = R9, .scale = 8});
		*m = (struct host_mem){.base = R8, .index = R9, .scale = 1};
		return true;
	}
	if (!user && site & SITE_USER) {
		em_lea32(&t->e, R8, m);
		*m = (struct host_mem){.base = R8, .index = R13, .scale = 1};
		return true;
	}
	/* A cycle less than gs, if there is no displacement. */
	if (user && m->base >= 0 && m->base != GUEST_ESP && m->index < 0 && m->disp == 0) {
		m->index = R13;
		return true;
	}
	m->gs = true;
	m->addr32 = !near_base(m);
	return true;
}

/* Legacy prefixes that stay, in a fixed order. F3 before bsf/bsr would make tzcnt/lzcnt of them on the host.
 */
static unsigned keep_prefixes(const struct insn *i, uint8_t *out)
{
	unsigned n = 0;
	bool bitscan = i->opmap == 1 && (i->opcode == 0xbc || i->opcode == 0xbd);

	if (i->prefix & INSN_LOCK)
		out[n++] = 0xf0;
	if (i->prefix & INSN_66)
		out[n++] = 0x66;
	/* The last of F2 and F3 counts; decode.c keeps only that one. */
	if (i->prefix & INSN_REPNE)
		out[n++] = 0xf2;
	if (i->prefix & INSN_REP && !bitscan)
		out[n++] = 0xf3;
	return n;
}

static unsigned opcode_bytes(const struct insn *i, uint8_t *op)
{
	unsigned n = 0;

	if (i->opmap)
		op[n++] = 0x0f;
	if (i->opmap == 2)
		op[n++] = 0x38;
	if (i->opmap == 3)
		op[n++] = 0x3a;
	/* 82 is an alias of 80 that 64-bit mode lacks; C0-D3 /6 is shl's alias and stays */
	op[n++] = i->opmap == 0 && i->opcode == 0x82 ? 0x80 : i->opcode;
	return n;
}

bool ident_emit(struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	uint8_t legacy[4], op[3];
	unsigned nl = keep_prefixes(in, legacy), no = opcode_bytes(in, op);
	struct reg_use u = {0};
	unsigned imm_len = in->imm_size;

	if (in->opmap == 0 && in->opcode == 0xd7) { /* xlat: DS:[ebx+al] */
		if (!segment_flat(t, in->segover >= 0 ? (unsigned)in->segover : DS) || in->adsize == 2 ||
		    tr_site(t, i) & ~(SITE_PROBE | SITE_PROBE_W))
			return false;
		em8(&t->e, 0x65);
		em8(&t->e, 0x67);
		em8(&t->e, 0xd7);
		return true;
	}
	if (in->has_modrm)
		u = reg_use(in);
	else if ((in->opcode & 7) == ESP)
		u = reg_use_by_decoding(in);
	if (!in->has_modrm) {
		for (unsigned n = 0; n < nl; n++)
			em8(&t->e, legacy[n]);
		if (u.opcode_esp)
			em8(&t->e, 0x41);
		for (unsigned n = 0; n < no; n++)
			em8(&t->e, op[n]);
	} else if (in->mod == 3) {
		if (u.high8 && (u.reg_esp || u.rm_esp))
			return false;
		em_modrm_reg(&t->e, legacy, nl, false, op, no, u.reg_esp ? GUEST_ESP : in->reg,
			     u.rm_esp ? GUEST_ESP : in->rm);
	} else {
		struct host_mem m;
		bool indirect =
			t->probed || tr_site(t, i) & (SITE_USER | SITE_MIXED) || !segment_flat(t, in->seg);
		if (u.high8 && (indirect || in->base == ESP))
			return false;
		if (!ident_operand(t, i, &m))
			return false;
		if (u.high8 && m.index == R13) { /* no REX */
			m.index = -1;
			m.gs = true;
		}
		uint8_t *at = t->e.p;
		em_modrm_mem(&t->e, legacy, nl, false, op, no, u.reg_esp ? GUEST_ESP : in->reg, &m);
		if (t->e.p - at + imm_len > 15)
			return false;
	}
	for (unsigned n = 0; n < imm_len; n++)
		em8(&t->e, in->raw[in->imm_off + n]);
	return true;
}
