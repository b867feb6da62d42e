/* probe.c - asking whether the user window has a page before using it.
 *
 * A fault costs the host's signal; so an instruction that often meets pages that are not there (what touches
 * fresh memory, the first accesses of each new process) looks them up, and makes the access in a callout if
 * they are missing:
 *
 *   lea r8d, [ea]; mov r9d, 12; shrx r9d, r8d, r9d; mov r10, [present]
 *   mov r11, rcx; movzx ecx, byte [r10+r9]; lea ecx, [rcx-1]; jrcxz 1f; mov rcx, r11; jmp slow; 1: mov rcx,
 * r11 the instruction
 *
 *   slow (cold):  mov [probe_lin], r8d; callout; jmp behind the instruction
 *
 * A mixed site takes r10 from slot_presents[r8 >> 22]; a repeated string instruction with ecx 0 is not asked.
 *
 * The answer is a hint. What it gets wrong, and an access that goes on beyond the page, faults as ever.
 */
#include "translator/tr.h"

static bool is_string(const struct tr *t, unsigned i)
{
	return t->class[i] == CL_STRING;
}

/* What the instruction reads, or what it writes: the operand, the stack, or what esi or edi points to. False:
 * it does not do that. */
static bool address(const struct tr *t, unsigned i, bool write, struct host_mem *m)
{
	const struct insn *in = &t->insn[i];
	const bool operand = in->has_mem && in->adsize == 4;

	*m = ident_ea(t, in);
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
		*m = (struct host_mem){
			.base = write || (in->opcode & 0xfe) == 0xae ? RDI : RSI, .index = -1, .scale = 1};
		return true;
	default:
		break;
	}
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

/* Segments that add nothing, but for FS and GS of an operand. */
static bool flat(const struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];

	if (t->rq->mode & (MODE_NF_DS | MODE_NF_ES | MODE_NF_SS))
		return false;
	return !is_string(t, i) || (in->segover != FS && in->segover != GS && in->adsize == 4);
}

static bool wanted(const struct tr *t, unsigned i, bool write, struct host_mem *m)
{
	const unsigned site = tr_site(t, i);

	if (!(site & (write ? SITE_PROBE_W : SITE_PROBE)) || site & SITE_CALLOUT || !translate_host.bmi2)
		return false;
	if (!(t->rq->mode & MODE_USER) && !(site & SITE_USER))
		return false;
	return flat(t, i) && address(t, i, write, m);
}

bool probe_wanted(const struct tr *t, unsigned i)
{
	struct host_mem m;

	if (!(tr_site(t, i) & (SITE_PROBE | SITE_PROBE_W)))
		return false;
	return wanted(t, i, false, &m) || wanted(t, i, true, &m);
}

/* r8d = the linear address */
static void linear(struct tr *t, unsigned i, const struct host_mem *m)
{
	const struct insn *in = &t->insn[i];
	struct emitter *e = &t->e;

	em_lea32(e, R8, m);
	if (m->base != GUEST_ESP && in->has_mem && (in->seg == FS || in->seg == GS)) {
		const struct host_mem base = tr_vcpu(offsetof(struct vcpu, hot.seg_base) + 8u * in->seg);

		em_load64(e, R9, &base);
		em_lea_add(e, R8, R8, R9);
	}
}

/* r10 = what to look r8d up in */
static void table(struct tr *t, unsigned i)
{
	const bool mixed = !(t->rq->mode & MODE_USER) && tr_site(t, i) & SITE_MIXED;
	const struct host_mem from = tr_vcpu(mixed ? offsetof(struct vcpu, hot.slot_presents)
						   : offsetof(struct vcpu, hot.present));
	struct emitter *e = &t->e;

	em_load64(e, R10, &from);
	if (!mixed)
		return;
	em_mov_ri32(e, R9, 22);
	em_shrx32(e, R9, R8, R9);
	em_load64(e, R10, &(struct host_mem){.base = R10, .index = R9, .scale = 8});
}

static void probe(struct tr *t, unsigned i, struct probe *p, bool write)
{
	struct emitter *e = &t->e;
	const bool repeated = is_string(t, i) && t->insn[i].prefix & (INSN_REP | INSN_REPNE);
	struct host_mem m;
	uint32_t there, none = 0;

	if (!wanted(t, i, write, &m))
		return;
	if (repeated)
		none = em_jrcxz8(e);
	linear(t, i, &m);
	table(t, i);
	em_mov_ri32(e, R9, 12);
	em_shrx32(e, R9, R8, R9);
	em_mov_rr64(e, R11, RCX);
	m = (struct host_mem){.base = R10, .index = R9, .scale = 1, .disp = write ? 1 << 20 : 0};
	em_modrm_mem(e, NULL, 0, false, (const uint8_t[]){0x0f, 0xb6}, 2, RCX, &m);
	em_lea32(e, RCX, &(struct host_mem){.base = RCX, .index = -1, .scale = 1, .disp = -1});
	there = em_jrcxz8(e);
	em_mov_rr64(e, RCX, R11);
	p->write[p->n] = write;
	p->slow[p->n++] = em_jmp32(e);
	em_fix8(e, there);
	em_mov_rr64(e, RCX, R11);
	if (repeated)
		em_fix8(e, none);
}

void probe_begin(struct tr *t, unsigned i, struct probe *p)
{
	p->n = 0;
	if (!probe_wanted(t, i))
		return;
	t->b->probes = true;
	/* What an instruction both reads and writes is asked for once. */
	if (t->class[i] == CL_IDENT || t->class[i] == CL_IDENT_FPU) {
		probe(t, i, p, tr_site(t, i) & SITE_PROBE_W);
	} else {
		probe(t, i, p, false);
		probe(t, i, p, true);
	}
}

void probe_end(struct tr *t, unsigned i, const struct probe *p)
{
	if (!p->n)
		return;

	const enum insn_class cl = t->class[i];
	const enum callout plain = insn_callout(&t->insn[i], cl);
	const struct host_mem lin = tr_vcpu(offsetof(struct vcpu, hot.probe_lin));
	const uint32_t arg = t->insn[i].len | (uint32_t)cl << 8 | (plain == CO_ACCESS ? CO_ARG_ACCESS : 0);

	if (!class_ends_block(cl))
		tr_settle_esp(t);
	for (unsigned n = 0; n < p->n; n++) {
		struct emitter c = tr_cold(t, 64 + CACHE_TABLE_JUMP);

		em_fix32(&t->e, p->slow[n], em_off(&c));
		em_store32(&c, &lin, R8);
		tr_callout(t, &c, plain == CO_INTERP ? CO_PROBE_FPU : CO_PROBE, tr_eip(t, i),
			   arg | (p->write[n] ? CO_ARG_WRITE : 0) |
				   site_index(tr_gpa(t, i), t->rq->mode & MODE_USER) << 16);
		if (class_ends_block(cl))
			tr_jump_table(&c, tr_next(t, i), false);
		else
			em_fix32(&c, em_jmp32(&c), em_off(&t->e));
	}
}
