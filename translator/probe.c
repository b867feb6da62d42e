/* probe.c - asking whether the user window has a page before using it.
 *
 * A fault costs the host's signal; so an instruction that often meets pages that are not there (what touches
 * fresh memory, the first accesses of each new process) looks them up:
 *
 *   lea r8d, [ea]; mov r11, rcx; mov ecx, 12; shrx r10d, r8d, ecx
 *   lea r9d, [r8+bytes-1]; shrx r9d, r9d, ecx; movzx r10d, r10b
 *   mov ecx, [tags+r10*4]; mov r10, [add+r10*8]; lea ecx, [rcx+r9+1]; jrcxz there; jmp slow
 *   there: mov rcx, r11; the instruction, with [r10+r8] for its operand
 *
 * That is a TLB, vcpu.hot.probe_tlb, which leads to the page in RAM, or to the window's. The entry is the one
 * for the first byte's page and must be for the last byte's, so that no access that goes on beyond its page
 * finds one. After a miss the window may have the page, which the TLB remembers. If not, a callout makes the
 * access and fills the TLB:
 *
 *   slow (cold):
 *   mov r10, [present]; mov ecx, 12; shrx ecx, r8d, ecx; movzx ecx, byte [r10+rcx]; lea ecx, [rcx-1]
 *   mov r10, r13; jrcxz 1f
 *   mov rcx, r11; mov [probe_lin], r8d; callout; jmp behind the instruction
 *   1: the TLB's entry: tags = minus the page's number minus one, add = r13; jmp there
 *
 * With FS and GS the segment's poison is added to r10, or to rcx so that the TLB has no hit. A mixed site
 * asks first whether there is a page, with tables by slot for [present] and r13, and then the TLB. What the
 * TLB is not asked for has its own operand in its place: accesses in more than one piece, such as string
 * instructions' (a repeated one with ecx 0 is not asked), or through ah, ch, dh and bh, beside which there
 * can be no r8.
 *
 * The answer of [present], and an entry that was made of it, is a hint. What it gets wrong, and an access
 * that goes on beyond the page, faults as ever. The TLB's other entries are as right as the guest's own would
 * be.
 */
#include "translator/tr.h"

static bool is_string(const struct tr *t, unsigned i)
{
	return t->class[i] == CL_STRING;
}

static bool is_ident(const struct tr *t, unsigned i)
{
	return t->class[i] == CL_IDENT || t->class[i] == CL_IDENT_FPU;
}

/* What the instruction reads, or what it writes: the operand, the stack, or what esi or edi points to. False:
 * it does not do that. */
static bool address(const struct tr *t, unsigned i, bool write, struct host_mem *m, bool *segment)
{
	const struct insn *in = &t->insn[i];
	const bool operand = in->has_mem && in->adsize == 4;

	*m = ident_ea(t, in);
	*segment = operand && (in->seg == FS || in->seg == GS);
	switch (t->class[i]) {
	case CL_IDENT:
	case CL_IDENT_FPU:
	case CL_MOFFS:
	case CL_MOV_FROM_SEG:
		return operand;
	case CL_JMP_RM:
		return operand && !write;
	case CL_POP_RM:
		m->disp += in->base == ESP ? 4 : 0;
		if (operand && write)
			return true;
		break;
	case CL_PUSH_RM:
	case CL_CALL_RM:
		if (operand && !write)
			return true;
		break;
	case CL_STRING:
		*segment = false;
		*m = (struct host_mem){
			.base = write || (in->opcode & 0xfe) == 0xae ? RDI : RSI, .index = -1, .scale = 1};
		return true;
	default:
		break;
	}
	*segment = false;
	*m = (struct host_mem){.base = GUEST_ESP, .index = -1, .scale = 1};
	switch (t->class[i]) {
	case CL_PUSH_REG:
	case CL_PUSH_IMM:
	case CL_PUSH_SEG:
	case CL_PUSH_RM:
	case CL_PUSHF:
	case CL_CALL:
	case CL_CALL_RM:
		m->disp = -4;
		return write;
	case CL_PUSHA:
		m->disp = -32;
		return write;
	case CL_LEAVE:
		m->base = RBP;
		return !write;
	case CL_POP_REG:
	case CL_POP_RM:
	case CL_POPA:
	case CL_POPF:
	case CL_RET:
		return !write;
	default:
		return false;
	}
}

/* Of cold code, at most. */
#define SLOW_BYTES   40u
#define FIND_BYTES   96u
#define POISON_BYTES 11u
#define END_BYTES    8u

/* Segments that add nothing, but for FS and GS of an operand. */
static bool flat(const struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];

	if (t->rq->mode & (MODE_NF_DS | MODE_NF_ES | MODE_NF_SS))
		return false;
	return !is_string(t, i) || (in->segover != FS && in->segover != GS && in->adsize == 4);
}

static bool wanted(const struct tr *t, unsigned i, bool write, struct host_mem *m, bool *segment)
{
	const unsigned site = tr_site(t, i), either = SITE_PROBE | SITE_PROBE_W;

	if (!(site & (is_ident(t, i) ? either
		      : write	     ? SITE_PROBE_W
				     : SITE_PROBE)) ||
	    site & SITE_CALLOUT || !translate_host.bmi2)
		return false;
	if (!(t->rq->mode & MODE_USER) && !(site & SITE_USER))
		return false;
	return flat(t, i) && address(t, i, write, m, segment);
}

bool probe_wanted(const struct tr *t, unsigned i)
{
	struct host_mem m;
	bool segment;

	if (!(tr_site(t, i) & (SITE_PROBE | SITE_PROBE_W)))
		return false;
	return wanted(t, i, false, &m, &segment) || wanted(t, i, true, &m, &segment);
}

/* The bytes of the instruction's only access to memory, if its rule can do with [r10+r8] for it. */
static unsigned only_access(const struct tr *t, unsigned i, bool *write)
{
	const struct insn *in = &t->insn[i];

	switch (t->class[i]) {
	case CL_IDENT:
	case CL_IDENT_FPU:
		return ident_operand_bytes(in, write);
	case CL_MOFFS:
		return in->opcode & 1 ? in->opsize : 1;
	case CL_MOV_FROM_SEG:
		return 2;
	case CL_PUSH_RM:
		return in->mod == 3 ? 4 : 0;
	case CL_JMP_RM:
	case CL_PUSH_REG:
	case CL_PUSH_IMM:
	case CL_PUSH_SEG:
	case CL_POP_REG:
	case CL_POPF:
	case CL_LEAVE:
	case CL_CALL:
	case CL_RET:
		return 4;
	default:
		return 0;
	}
}

static bool is_mixed(const struct tr *t, unsigned i)
{
	return !(t->rq->mode & MODE_USER) && tr_site(t, i) & SITE_MIXED;
}

/* The entry with the number in a register, of a part of the TLB. */
static struct host_mem in_tlb(unsigned index, size_t vcpu_field, unsigned entry_bytes)
{
	struct host_mem m = tr_vcpu(vcpu_field);

	m.index = (int8_t)index;
	m.scale = (uint8_t)entry_bytes;
	return m;
}

/* r8d = the linear address */
static void linear(struct tr *t, unsigned i, const struct host_mem *m, bool segment)
{
	struct emitter *e = &t->e;

	em_lea32(e, R8, m);
	if (segment) {
		const struct host_mem base =
			tr_vcpu(offsetof(struct vcpu, hot.seg_base) + 8u * t->insn[i].seg);

		em_load64(e, R9, &base);
		em_lea_add(e, R8, R8, R9);
	}
}

/* reg += the poison of the operand's segment. Clobbers r9. */
static void add_poison(const struct tr *t, struct emitter *e, unsigned i, unsigned reg)
{
	const struct host_mem poison = tr_vcpu(offsetof(struct vcpu, hot.seg_poison) + 8u * t->insn[i].seg);

	em_load64(e, R9, &poison);
	em_lea64(e, reg, &(struct host_mem){.base = (int8_t)reg, .index = R9, .scale = 1});
}

/* r10 = the entry for r8d's slot in a table that the vcpu leads to. */
static void by_slot(struct emitter *e, size_t vcpu_field)
{
	const struct host_mem table = tr_vcpu(vcpu_field);

	em_load64(e, R10, &table);
	em_load64(e, R10, &(struct host_mem){.base = R10, .index = R9, .scale = 8});
}

/* ecx = 0 if [present] or slot_presents has the page of r8d. Then r10 is the window's base, if somebody asks.
 */
static void ask_window(struct tr *t, struct emitter *e, unsigned i, const struct probe *p, unsigned n)
{
	const struct host_mem present = tr_vcpu(offsetof(struct vcpu, hot.present));
	struct host_mem m = {.base = R10, .index = RCX, .scale = 1, .disp = p->write[n] ? 1 << 20 : 0};

	if (is_mixed(t, i)) {
		em_mov_ri32(e, RCX, 22);
		em_shrx32(e, R9, R8, RCX);
		by_slot(e, offsetof(struct vcpu, hot.slot_presents));
	} else {
		em_load64(e, R10, &present);
	}
	em_mov_ri32(e, RCX, 12);
	em_shrx32(e, RCX, R8, RCX);
	em_modrm_mem(e, NULL, 0, false, (const uint8_t[]){0x0f, 0xb6}, 2, RCX, &m);
	em_lea_disp(e, RCX, RCX, -1);
	if (p->bytes[n] && is_mixed(t, i))
		by_slot(e, offsetof(struct vcpu, hot.slot_bases));
	else if (p->bytes[n])
		em_mov_rr64(e, R10, R13);
	if (p->bytes[n] && p->segment[n])
		add_poison(t, e, i, R10);
}

/* ecx = 0, rcx if there is a poison, if the TLB has the page of r8d. Then r10 is what to add to r8. */
static void ask_tlb(struct tr *t, struct emitter *e, unsigned i, const struct probe *p, unsigned n)
{
	const struct host_mem tag = in_tlb(R10,
					   p->write[n] ? offsetof(struct vcpu, hot.probe_tlb.write)
						       : offsetof(struct vcpu, hot.probe_tlb.read),
					   4);
	const struct host_mem add = in_tlb(R10, offsetof(struct vcpu, hot.probe_tlb.add), 8);

	em_mov_ri32(e, RCX, 12);
	if (p->bytes[n] > 1) {
		em_lea_disp(e, R9, R8, (int32_t)p->bytes[n] - 1);
		em_shrx32(e, R10, R8, RCX);
		em_shrx32(e, R9, R9, RCX);
		em_movzx8_r(e, R10, R10);
	} else {
		em_shrx32(e, R9, R8, RCX);
		em_movzx8_r(e, R10, R9);
	}
	em_load32(e, RCX, &tag);
	em_load64(e, R10, &add);
	em_lea32(e, RCX, &(struct host_mem){.base = RCX, .index = R9, .scale = 1, .disp = 1});
	if (p->segment[n])
		add_poison(t, e, i, RCX);
}

/* Which is asked first. What a mixed site finds may lie in a window that the TLB does not lead to. */
static bool tlb_first(const struct tr *t, unsigned i, unsigned bytes)
{
	return bytes && !is_mixed(t, i);
}

static void probe(struct tr *t, unsigned i, struct probe *p, bool write, unsigned bytes)
{
	const bool repeated = is_string(t, i) && t->insn[i].prefix & (INSN_REP | INSN_REPNE);
	struct emitter *e = &t->e;
	const unsigned n = p->n;
	struct host_mem m;
	uint32_t there, none = 0;

	if (!wanted(t, i, write, &m, &p->segment[n]))
		return;
	p->write[n] = write;
	p->bytes[n] = bytes;
	if (repeated)
		none = em_jrcxz8(e);
	linear(t, i, &m, p->segment[n]);
	em_mov_rr64(e, R11, RCX);
	if (tlb_first(t, i, bytes))
		ask_tlb(t, e, i, p, n);
	else
		ask_window(t, e, i, p, n);
	there = em_jrcxz8(e);
	p->slow[n] = em_jmp32(e);
	em_fix8(e, there);
	p->there[n] = em_off(e);
	em_mov_rr64(e, RCX, R11);
	if (repeated)
		em_fix8(e, none);
	p->n++;
}

void probe_begin(struct tr *t, unsigned i, struct probe *p)
{
	bool writes = false;
	unsigned bytes;

	p->n = 0;
	if (!probe_wanted(t, i))
		return;
	t->b->probes = true;
	bytes = only_access(t, i, &writes);
	/* What an instruction both reads and writes is asked for once. */
	if (is_ident(t, i)) {
		probe(t, i, p, writes || tr_site(t, i) & SITE_PROBE_W, bytes);
	} else {
		probe(t, i, p, false, bytes);
		probe(t, i, p, true, bytes);
	}
	t->probed = bytes && p->n;
}

/* The window has the page: so that the TLB leads there from now on. */
static void remember(struct emitter *c, bool write)
{
	const struct host_mem r = in_tlb(RCX, offsetof(struct vcpu, hot.probe_tlb.read), 4);
	const struct host_mem w = in_tlb(RCX, offsetof(struct vcpu, hot.probe_tlb.write), 4);
	const struct host_mem add = in_tlb(RCX, offsetof(struct vcpu, hot.probe_tlb.add), 8);
	const struct host_mem any = tr_vcpu(offsetof(struct vcpu, hot.probe_tlb.windows));

	em_mov_ri32(c, RCX, 12);
	em_shrx32(c, R9, R8, RCX);
	em_movzx8_r(c, RCX, R9);
	em_not32(c, R9);
	em_store32(c, &r, R9);
	if (write)
		em_store32(c, &w, R9);
	else
		em_store_i32(c, &w, 0);
	em_store64(c, &add, R13);
	em_store_i32(c, &any, 1);
}

void probe_end(struct tr *t, unsigned i, const struct probe *p)
{
	if (!p->n)
		return;

	const enum insn_class cl = t->class[i];
	const enum callout plain = insn_callout(&t->insn[i], cl);
	const struct host_mem lin = tr_vcpu(offsetof(struct vcpu, hot.probe_lin));
	const uint32_t arg = t->insn[i].len | (uint32_t)cl << 8 | (plain == CO_ACCESS ? CO_ARG_ACCESS : 0);
	uint32_t hit = 0;

	if (!class_ends_block(cl))
		tr_settle_esp(t);
	for (unsigned n = 0; n < p->n; n++) {
		struct emitter c = tr_cold(t, SLOW_BYTES + (p->bytes[n] ? FIND_BYTES : 0) +
						      (p->bytes[n] && p->segment[n] ? POISON_BYTES : 0) +
						      (class_ends_block(cl) ? END_BYTES : 0));

		em_fix32(&t->e, p->slow[n], em_off(&c));
		if (p->bytes[n]) {
			if (tlb_first(t, i, p->bytes[n]))
				ask_window(t, &c, i, p, n);
			else
				ask_tlb(t, &c, i, p, n);
			hit = em_jrcxz8(&c);
		}
		em_mov_rr64(&c, RCX, R11);
		em_store32(&c, &lin, R8);
		tr_callout(t, &c, plain == CO_INTERP ? CO_PROBE_FPU : CO_PROBE, tr_eip(t, i),
			   arg | (p->write[n] ? CO_ARG_WRITE : 0) |
				   site_index(tr_gpa(t, i), t->rq->mode & MODE_USER) << 16);
		if (class_ends_block(cl))
			tr_jump_table(&c, tr_next(t, i), false);
		else
			em_fix32(&c, em_jmp32(&c), em_off(&t->e));
		if (p->bytes[n]) {
			em_fix8(&c, hit);
			if (tlb_first(t, i, p->bytes[n]))
				remember(&c, p->write[n]);
			em_fix32(&c, em_jmp32(&c), p->there[n]);
		}
		assert(c.p <= c.limit);
	}
}
