/* translate.c - building a block: decode, classify, find dead flags, emit the rules' code, exits.
 *
 * Layout of a block:
 *   one rule after the other                    <- table slots and chained exits lead here
 *   exits        jmp/jcc/call rel32, to the target when chained, else to a stub (cache.h)
 * and slow paths in cold code, at the other end of the arena.
 */
#include "translator/tr.h"

struct translate_host translate_host;

#define MAX_INSNS 64u
#define MAX_BYTES                                                                                            \
	236u /* where a block ends whatever comes; a side table row has eight bits for the offset            \
	      */
#define MAX_EXTENDED 120u /* beyond this a block does not go on behind branches */

struct emitter tr_cold(struct tr *t, unsigned bytes)
{
	t->cold -= bytes;
	return (struct emitter){
		.p = t->k->rw + t->cold, .base = t->k->rw, .limit = t->k->rw + t->cold + bytes};
}

void tr_settle_esp(struct tr *t)
{
	if (t->esp_off)
		em_lea_disp(&t->e, GUEST_ESP, GUEST_ESP, t->esp_off);
	t->esp_off = 0;
}

/* Where the code of instruction i begins. */
static void tr_side(struct tr *t, unsigned i, unsigned flags)
{
	struct side_entry *s = &t->b->side[i];

	s->host = (uint16_t)(em_off(&t->e) - t->b->host);
	s->esp_delta = (int8_t)t->esp_off;
	s->flags = (uint8_t)flags;
}

void tr_callout(struct tr *t, struct emitter *e, enum callout co, uint32_t eip, uint32_t arg)
{
	struct host_mem go =
		tr_vcpu(co == CO_INTERP || co == CO_PROBE_FPU ? offsetof(struct vcpu, hot.go_callout)
			: co == CO_DEVICE		      ? offsetof(struct vcpu, hot.go_callout_device)
							      : offsetof(struct vcpu, hot.go_callout_light));

	(void)t;
	em_mov_ri32(e, R8, eip);
	em_mov_ri32(e, R9, arg);
	em_mov_ri32(e, R10, co);
	em_call_m(e, &go);
}

void tr_jump_indirect(struct emitter *e, bool call)
{
	assert(e->p + CACHE_TABLE_JUMP <= e->limit);
	e->p += cache_table_jump(e->p, call);
}

void tr_jump_table(struct emitter *e, uint32_t target, bool call)
{
	em_mov_ri32(e, R8, target);
	tr_jump_indirect(e, call);
}

/* patch leads to target: through a patchable exit, or, for targets on other pages that must be looked up each
 * time, through the table. */
void tr_exit(struct tr *t, uint32_t patch, enum exit_kind kind, uint32_t target)
{
	bool cross = (target ^ t->b->eip) >> PAGE_SHIFT;

	if (cross && !t->rq->chain_cross) {
		struct emitter c = tr_cold(t, 6 + CACHE_TABLE_JUMP);
		em_fix32(&t->e, patch, em_off(&c));
		tr_jump_table(&c, target, false);
		return;
	}
	assert(t->b->nexits < CACHE_MAX_EXITS);
	struct exit_link *x = &t->b->exits[t->b->nexits];
	*x = (struct exit_link){.patch = patch, .target = target, .kind = (uint8_t)kind, .cross = cross};
	em_fix32(&t->e, patch, cache_stub(t->k, x));
	cache_put_stub(t->k, x);
	t->b->nexits++;
}

static bool is_call(enum insn_class cl)
{
	return cl == CL_CALL || cl == CL_CALL_RM;
}

void tr_behind_call(struct tr *t, unsigned i)
{
	const uint32_t next = tr_next(t, i);
	const bool more = i + 1 < t->n, same_page = (next ^ t->b->eip) >> PAGE_SHIFT == 0;

	/* Another translation of the same call may have been first; there is only one prediction. A
	 * straddler's key does not tell all. */
	if (same_page && !t->b->len2 &&
	    !cache_ret_point(t->k, t->b->gpa + (next - t->b->eip), next, t->b->mode))
		t->b->rets[t->b->nrets++] = (struct ret_point){.eip = next, .at = em_off(&t->e)};
	if (more)
		return;
	t->ended = true;
	if (same_page)
		tr_exit(t, em_jmp32(&t->e), EXIT_JMP, next);
}

/* Whether the block goes on behind a branch, at offset `at`, which ends it otherwise: behind what may not be
 * taken and behind calls, on the same page, unless there is a block to go on with. */
static bool goes_on(struct tr *t, enum insn_class cl, unsigned at)
{
	const struct translate_request *rq = t->rq;

	if (cl == CL_JCC)
		t->jccs++;
	else if (cl == CL_CALL || cl == CL_CALL_RM)
		t->calls++;
	else
		return false;
	if (rq->single || at >= rq->avail || at > MAX_EXTENDED)
		return false;
	/* Each takes an exit, and the end takes two; each call has a return point. */
	if (t->jccs + t->calls + 2 > CACHE_MAX_EXITS || t->calls + 1 > CACHE_MAX_CALLS)
		return false;
	return !cache_lookup(t->k, rq->gpa + at, rq->eip + at, rq->mode, NULL, NULL);
}

/* The instruction at this offset is a call of which there is a translation, which can be entered there. */
static bool calls_elsewhere(const struct tr *t, unsigned at, unsigned len)
{
	const struct translate_request *rq = t->rq;
	const unsigned next = at + len;

	return is_call((enum insn_class)t->class[t->n]) && next < rq->avail &&
	       cache_ret_point(t->k, rq->gpa + next, rq->eip + next, rq->mode);
}

/* A loop that calls shall be in one piece, and a call is translated once. So a block that comes to a call,
 * the instruction at hand, with the beginning of a loop on its way ends there: the number of its instructions
 * then, 0 if there is no such loop. */
static unsigned loop_before_call(const struct tr *t)
{
	const struct translate_request *rq = t->rq;
	unsigned n = t->n;

	if (!rq->loops || n < 2 || !is_call((enum insn_class)t->class[n]) ||
	    !loop_near(rq->loops, rq->gpa + t->b->side[1].guest, rq->gpa + t->b->side[n - 1].guest))
		return 0;
	while (n > 1 && !loop_known(rq->loops, rq->gpa + t->b->side[n - 1].guest))
		n--;
	return n > 1 ? n - 1 : 0;
}

/* Decodes up to the end of the block. Leaves t->n instructions. */
static void decode_block(struct tr *t)
{
	const struct translate_request *rq = t->rq;
	unsigned max = rq->single ? 1 : MAX_INSNS;
	unsigned at = 0, loop;

	while (t->n < max) {
		struct insn *in = &t->insn[t->n];
		unsigned avail = rq->avail - at;
		uint8_t joint[30];
		const uint8_t *p = rq->code + at;
		bool straddles = false;

		if (avail == 0)
			break;
		enum decode_result r = decode_insn(p, avail < 15 ? avail : 15, true, in);
		if (r == DECODE_MORE) {
			bool collide =
				(((rq->gpa ^ rq->second_gpa) >> PAGE_SHIFT) & (CACHE_PAGE_LISTS - 1)) == 0;
			if (t->n > 0 && (!rq->second || collide))
				break;
			straddles = true;
			if (rq->second &&
			    !collide) { /* else the interpreter finds out and faults if it must */
				memcpy(joint, p, avail);
				memcpy(joint + avail, rq->second, 15);
				r = decode_insn(joint, 15, true, in);
			}
		}
		if (r != DECODE_OK) {
			in->len = straddles ? (uint8_t)avail : 1;
			in->opmap = INSN_UNKNOWN; /* it may be anything, with the FPU say */
			t->class[t->n] = CL_INTERP_END;
		} else if (translate_host.offers && !translate_host.offers(in)) {
			t->class[t->n] = CL_INTERP_END;
		} else {
			t->class[t->n] = (uint8_t)classify(in, rq->mode);
			if (translate_host.verify && !insn_repeatable(in))
				t->class[t->n] = class_ends_block((enum insn_class)t->class[t->n])
							 ? CL_INTERP_END
							 : CL_INTERP;
		}
		if (t->n && calls_elsewhere(t, at, in->len))
			break;
		loop = loop_before_call(t);
		if (loop) {
			t->n = loop;
			at = t->b->side[loop].guest;
			break;
		}
		t->b->side[t->n].guest = (uint8_t)at;
		t->site[t->n] = (uint8_t)(site_get(rq->gpa + at, rq->mode & MODE_USER) & ~SITE_TRAPPED);
		t->n++;
		if (straddles && in->len > avail) {
			t->b->gpa2 = rq->second_gpa;
			t->b->len2 = (uint16_t)(in->len - avail);
		}
		at += in->len;
		if (straddles || at > MAX_BYTES)
			break;
		if (class_ends_block((enum insn_class)t->class[t->n - 1]) &&
		    !goes_on(t, (enum insn_class)t->class[t->n - 1], at))
			break;
	}
	t->b->len = (uint16_t)at;
	t->b->dep_len = (uint16_t)(at - t->b->len2);
	t->b->ninsn = (uint8_t)t->n;
	for (unsigned i = 0; i < t->n && !t->b->fpu; i++)
		t->b->fpu |= callout_uses_fpu(insn_callout(&t->insn[i], (enum insn_class)t->class[i]));
}

/* Backwards: which arithmetic flags matter before each instruction. */
static void find_liveness(struct tr *t)
{
	t->live[t->n] = FL_ARITH;
	for (unsigned i = t->n; i-- > 0;) {
		uint32_t r = 0, w = 0, u = 0;
		enum insn_class cl = (enum insn_class)t->class[i];
		if (cl == CL_INTERP || cl == CL_INTERP_END || class_ends_block(cl) ||
		    insn_may_fault(&t->insn[i], cl)) {
			t->live[i] = FL_ARITH;
			continue;
		}
		decode_flags(&t->insn[i], &r, &w, &u);
		t->live[i] = (t->live[i + 1] & ~w) | (r & FL_ARITH);
	}
}

/* Where blocks are entered in any case: behind branches, and at calls, since a call is translated once. */
static bool part_begins(const struct tr *t, unsigned i)
{
	return i == 0 || is_call((enum insn_class)t->class[i]) ||
	       class_ends_block((enum insn_class)t->class[i - 1]);
}

/* mov r8, [insns]; lea r8, [r8+n]; mov [insns], r8: the instructions of the part that begins with i. */
static void count_insns(struct tr *t, unsigned i)
{
	const struct host_mem m = tr_vcpu(offsetof(struct vcpu, hot.insns));
	int32_t n = 1;

	while (i + (unsigned)n < t->n && !part_begins(t, i + (unsigned)n))
		n++;
	em_load64(&t->e, R8, &m);
	em_lea64(&t->e, R8, &(struct host_mem){.base = R8, .index = -1, .scale = 1, .disp = n});
	em_modrm_mem(&t->e, NULL, 0, true, (const uint8_t[]){0x89}, 1, R8, &m);
}

static bool is_ident(enum insn_class cl)
{
	return cl == CL_IDENT || cl == CL_IDENT_FPU || cl == CL_LEA || cl == CL_NOP || cl == CL_INCDEC ||
	       cl == CL_MOFFS;
}

/* STI and loads of SS that are done in line. Where they are callouts the vcpu remembers. */
static bool begins_shadow(const struct insn *in, enum insn_class cl)
{
	return cl == CL_STI || (cl == CL_SEG_LOAD && !in->opmap &&
				(in->opcode == 0x17 || (in->opcode == 0x8e && in->reg == SS)));
}

static uint32_t verify_arg(const struct tr *t, unsigned i)
{
	return (uint32_t)(t->b - t->k->blocks) | i << CO_VERIFY_INSN;
}

static void begin_part(struct tr *t, unsigned i)
{
	const uint32_t start = em_off(&t->e);

	if (i)
		t->b->side[i - 1].flags |= SIDE_PART;
	if (translate_host.verify)
		tr_callout(t, &t->e, CO_VERIFY, tr_eip(t, i), verify_arg(t, i));
	if (translate_host.count)
		count_insns(t, i);
	t->b->prologue = (uint8_t)(em_off(&t->e) - start);
	t->k->stats.host_bytes -= t->b->prologue;
}

static void translate_insn(struct tr *t, unsigned i)
{
	const unsigned flags =
		i && begins_shadow(&t->insn[i - 1], (enum insn_class)t->class[i - 1]) ? SIDE_SHADOW : 0;
	struct probe probe;

	if (probe_wanted(t, i))
		tr_settle_esp(t);
	uint8_t *start = t->e.p;
	tr_side(t, i, flags);
	probe_begin(t, i, &probe);
	const bool done = rule_emit(t, i);
	t->probed = false;
	if (done) {
		probe_end(t, i, &probe);
		return;
	}
	t->e.p = start;
	tr_settle_esp(t);
	tr_side(t, i, flags);
	rule_interp(t, i);
}

struct block *translate_block(struct cache *k, const struct translate_request *rq)
{
	struct tr t; /* not cleared: it is 6 KiB */

	t.k = k;
	t.rq = rq;
	t.b = cache_new(k, rq->loop ? 64 : 16);
	t.cold = k->cold;
	t.n = t.jccs = t.calls = 0;
	t.esp_off = 0;
	t.ended = t.probed = false;
	__builtin_prefetch(rq->code + 64); /* nobody has read it yet */
	__builtin_prefetch(rq->code + 128);
	t.b->gpa = rq->gpa;
	t.b->eip = rq->eip;
	t.b->mode = rq->mode;
	t.e = (struct emitter){.p = k->rw + k->hot, .base = k->rw, .limit = k->rw + k->cold};
	decode_block(&t);
	find_liveness(&t);
	for (unsigned i = 0; i < t.n; i++) {
		const bool part = part_begins(&t, i);
		if (part || !rule_esp_may_wait(&t, i))
			tr_settle_esp(&t);
		if (part)
			begin_part(&t, i);
		k->stats.ident_insns += is_ident((enum insn_class)t.class[i]);
		translate_insn(&t, i);
	}
	tr_settle_esp(&t);
	if (!t.ended)
		tr_exit(&t, em_jmp32(&t.e), EXIT_JMP, rq->eip + t.b->len);
	while (em_off(&t.e) < t.b->host + CACHE_MIN_BYTES)
		em8(&t.e, 0x90);
	t.b->host_end = em_off(&t.e);
	t.b->cold = t.cold;
	cache_commit(k, t.b);
	return t.b;
}
