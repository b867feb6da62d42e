/* bt_verify.c - lockstep (--verify): what translated code does is compared with what the interpreter does.
 *
 * Every block, and every part of one behind a branch, begins with a callout to verify_block. That compares
 *the state in which the block before it has arrived, including where it has arrived, with what the
 *interpreter has said it would be; then it lets the interpreter run the coming block on trial, notes the
 *outcome, and takes everything back. Chains, tables and return prediction are in use as always.
 *
 * A trial changes nothing but registers and RAM, and the store log gives every byte back. It ends before an
 * instruction that would reach further (a device, a control register, the TSC; a store into code or page
 *tables) and at an exception. Translated code cannot pass these without coming out: in a callout, or with a
 *fault. Both are compared at the instruction where they happen; so what the interpreter has not foreseen, a
 *fault in the middle, is too. The instruction of a callout is tried and compared by itself, and behind it
 *begins a trial of the rest of the block.
 *
 *	v = verify_create(bt);		replaces the callouts
 *	verify_fault(v, b, i, guest);	a fault at instruction i of b, the state being precise
 *	verify_left(v);			translated code was left behind a block
 *	verify_note(v, ...);		for the history that a difference is reported with
 *
 * Not compared: x87 instruction and operand pointers; A bits of page-table entries, and D bits that are set
 *too early; page faults and D bits while the guest has lowered a mapping and not flushed it, which a TLB may
 *show or not; what a repeated string instruction that stops half-way has stored by then, unless the
 *interpreter faults there too.
 */
#include "vmm/bt.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_MAX	   65536u
#define DATA_MAX   (1u << 20)
#define BLOCKS_MAX 32u	  /* executed blocks that a report names */
#define EVENTS_MAX 65536u /* a power of 2 */

struct store {
	uint64_t gpa;
	uint32_t data; /* offset into old[], new[] and have[] */
	uint16_t len;
	bool ad;
};

/* What a state before an instruction may leave open. */
enum lax {
	LAX_NONE,
	LAX_TORN,  /* the instruction has stored something before its exception, as pusha does */
	LAX_REP,   /* a repeated string instruction may have come some way */
	LAX_FLAGS, /* the instruction loads all arithmetic flags, whatever they are */
	LAX_IF,	   /* sti has set IF before it found out that it needs a callout */
	LAX_RF,	   /* iret need not load it where it makes no difference (bt_fast.c) */
};

enum stop { STOP_LIMIT, STOP_EXCEPTION, STOP_REFUSED, STOP_ELSEWHERE };

struct event {
	uint64_t when; /* blocks executed until then */
	uint64_t gpa;
	uint32_t eip, arg;
	enum verify_event what;
};

struct verify {
	struct bt *bt;
	struct verify_stats st;
	int (*real[CPU_CALLOUTS])(struct vcpu *c, uint32_t arg);

	/* the trial of instructions [at, at + n) of b */
	bool armed;  /* its outcome has not been compared yet */
	bool picked; /* the current block is one that is checked */
	bool failed;
	const struct block *b;
	unsigned at, n;
	enum stop stop; /* why it went no further */
	struct exception exc;
	bool mid;    /* ... and want is what a repeated string instruction has done up to there */
	bool spoilt; /* a part of another instruction was executed */
	bool torn;   /* ... which has stored something */
	bool touched_ad, in_trial;
	unsigned has; /* HAS_*: parts of before and want that mean something; the others do not change */
	struct vcpu before, want, have;
	struct store log[LOG_MAX];
	uint8_t old[DATA_MAX], new[DATA_MAX], have_data[DATA_MAX];
	uint32_t nlog, ndata;

	uint32_t *runs; /* by block number: how often it has been picked under first=K */
	uint32_t blocks[BLOCKS_MAX];
	struct event events[EVENTS_MAX];
	uint64_t nevents;
};

/* ------------------------------------------------------------------ states */

/* The parts of the vcpu that instructions change, but for what other threads write. */
#define PART1	   offsetof(struct vcpu, request)
#define PART2	   offsetof(struct vcpu, ldtr)
#define END2	   offsetof(struct vcpu, halted)

#define HAS_FPU	   1u
#define HAS_SYSTEM 2u /* the second part: system registers */

static void copy_words(void *to, const void *from, size_t n)
{
	const char *p = from;
	char *q = to;

	for (size_t i = 0; i + 8 <= n; i += 8)
		__builtin_memcpy(q + i, p + i, 8);
	if (n % 8)
		__builtin_memcpy(q + n - 4, p + n - 4, 4);
}

static void copy_system(struct vcpu *to, const struct vcpu *from)
{
	memcpy((char *)to + PART2, (const char *)from + PART2, END2 - PART2);
	to->halted = from->halted;
}

static void copy_state(struct vcpu *to, const struct vcpu *from, unsigned has)
{
	_Static_assert(PART1 % 4 == 0, "whole words");
	copy_words(to, from, PART1);
	to->shadow = from->shadow;
	to->nmi_blocked = from->nmi_blocked;
	to->rep_mid = from->rep_mid;
	to->n_interp = from->n_interp;
	if (has & HAS_SYSTEM)
		copy_system(to, from);
	if (has & HAS_FPU)
		to->fpu = from->fpu;
}

static bool same(const void *a, const void *b, size_t n)
{
	const uint8_t *p = a, *q = b;

	for (; n >= 8; n -= 8, p += 8, q += 8) {
		uint64_t x, y;
		__builtin_memcpy(&x, p, 8);
		__builtin_memcpy(&y, q, 8);
		if (x != y)
			return false;
	}
	for (; n; n--)
		if (*p++ != *q++)
			return false;
	return true;
}

/* FXSAVE image but for the pointers of the last x87 instruction and the bytes that 32-bit code cannot see. */
static bool fpu_same(const uint8_t *a, const uint8_t *b)
{
	if (!same(a, b, 5) || !same(a + 24, b + 24, 4) || !same(a + 160, b + 160, 128))
		return false;
	for (unsigned r = 0; r < 8; r++)
		if (!same(a + 32 + 16 * r, b + 32 + 16 * r, 10))
			return false;
	return true;
}

/* ------------------------------------------------------------------ the store log */

static bool on_store(void *opaque, uint64_t gpa, unsigned len, bool ad)
{
	struct verify *v = opaque;
	struct mem *m = v->bt->c->mem;

	if (!v->in_trial)
		return true;
	/* Stores into code and page tables have consequences that cannot be taken back; A and D bits have
	 * none in page tables. */
	unsigned traces = mem_traced(m, gpa) & ~(ad ? TRACE_PT : 0);
	if (traces || v->nlog == LOG_MAX || v->ndata + len > DATA_MAX) {
		interp_spoil();
		return false;
	}
	v->log[v->nlog++] = (struct store){.gpa = gpa, .len = (uint16_t)len, .data = v->ndata, .ad = ad};
	memcpy(v->old + v->ndata, mem_ptr(m, gpa, len), len);
	v->ndata += len;
	v->touched_ad |= ad;
	return true;
}

static void put_back(struct verify *v, const uint8_t *data, const struct store *s)
{
	memcpy(mem_ptr(v->bt->c->mem, s->gpa, s->len), data + s->data, s->len);
}

static void read_log(struct verify *v, uint8_t *data)
{
	for (uint32_t i = 0; i < v->nlog; i++)
		memcpy(data + v->log[i].data, mem_ptr(v->bt->c->mem, v->log[i].gpa, v->log[i].len),
		       v->log[i].len);
}

static void undo(struct verify *v)
{
	for (uint32_t i = v->nlog; i-- > 0;)
		put_back(v, v->old, &v->log[i]);
	if (v->touched_ad)
		mem_forget_tlb(v->bt->c->mem);
	copy_state(v->bt->c, &v->before, v->has);
}

/* ------------------------------------------------------------------ trials */

static struct verify *the_verify;

/* A trial is about to change system registers for the first time. */
static void need_system(struct verify *v)
{
	if (v->has & HAS_SYSTEM)
		return;
	v->has |= HAS_SYSTEM;
	copy_system(&v->before, v->bt->c);
}

/* Instructions whose effects stay within registers and RAM and are the same each time. */
static bool may_try(const struct insn *i)
{
	if (i->opmap == 0)
		switch (i->opcode) {
		case 0x6c ... 0x6f: /* ins, outs, in, out, hlt */
		case 0xe4 ... 0xe7:
		case 0xec ... 0xef:
		case 0xf4:
			return false;
		default:
			return true;
		}
	if (i->opmap == 1 && (i->opcode < 2 || i->opcode == 0x21)) /* a debug register's #DB is in DR6 */
		need_system(the_verify);
	if (i->opmap == 1)
		switch (i->opcode) {
		case 0x01: /* lmsw, invlpg and what follows them */
			return i->mod != 3 ? i->reg < 6 : i->reg == 4;
		case 0x22: /* control and debug registers */
		case 0x23:
		case 0x30 ... 0x33: /* wrmsr, rdtsc, rdmsr, rdpmc */
		case 0xa2:	    /* cpuid: has the counters */
			return false;
		case 0xc7:
			return i->mod != 3; /* rdrand, rdseed */
		default:
			return true;
		}
	return true;
}

static void take_exception(struct verify *v)
{
	v->exc = v->bt->c->exc;
	v->stop = STOP_EXCEPTION;
}

/* Runs at most limit instructions, from number v->at on. Returns how many; v->spoilt: and a part of another.
 */
static unsigned trial(struct verify *v, unsigned limit)
{
	struct vcpu *c = v->bt->c;
	unsigned n;

	v->nlog = v->ndata = 0;
	v->spoilt = v->torn = v->touched_ad = v->mid = false;
	v->stop = STOP_LIMIT;
	v->in_trial = true;
	for (n = 0; n < limit && v->stop == STOP_LIMIT; n++) {
		const uint32_t mark = v->nlog;
		enum interp_trial r;
		if (c->eip != v->b->eip + v->b->side[v->at + n].guest) {
			v->stop = STOP_ELSEWHERE;
			break;
		}
		do
			r = interp_try(c, may_try);
		while (r == TRIAL_AGAIN);
		if (r == TRIAL_DONE)
			continue;
		v->stop = STOP_REFUSED;
		if (r == TRIAL_EXCEPTION || r == TRIAL_EXCEPTION_MID)
			take_exception(v);
		v->mid = r == TRIAL_EXCEPTION_MID;
		/* A #DB has changed DR6 already, a maskmovq that faults the x87 tags; MXCSR keeps its flags
		 * at #XM, or #UD instead of it. */
		v->torn = r == TRIAL_EXCEPTION && v->nlog != mark;
		v->spoilt = r == TRIAL_SPOILT ||
			    (r == TRIAL_EXCEPTION &&
			     (v->nlog != mark || v->exc.vector == VEC_DB ||
			      (v->has & HAS_FPU && v->exc.vector != VEC_XM && v->exc.vector != VEC_UD)));
		break;
	}
	c->exc.pending = false;
	v->in_trial = false;
	return n;
}

/* The outcome of count instructions of v->b from v->at on: v->want, v->new; everything taken back. */
static void foresee(struct verify *v, unsigned count)
{
	v->n = trial(v, count);
	/* Once as a rule; without what the first trial found in the TLB another may be refused earlier. */
	while (v->spoilt) {
		const enum stop stop = v->stop;
		const bool torn = v->torn;
		const unsigned reached = v->n;
		undo(v);
		v->n = trial(v, reached);
		if (v->n == reached) {
			v->stop = stop;
			v->torn = torn;
		}
	}
	copy_state(&v->want, v->bt->c, v->has);
	read_log(v, v->new);
	undo(v);
}

static void report(struct verify *v, const char *what);

/* The instruction behind the next branch, or the end of the block. */
static unsigned part_end(const struct block *b, unsigned at)
{
	while (at + 1u < b->ninsn && !(b->side[at].flags & SIDE_PART))
		at++;
	return at + 1;
}

static void arm(struct verify *v, const struct block *b, unsigned at)
{
	v->b = b;
	v->at = at;
	v->has = b->fpu ? HAS_FPU : 0;
	copy_state(&v->before, v->bt->c, v->has);
	foresee(v, part_end(b, at) - at);
	v->armed = true;
	if (v->stop == STOP_ELSEWHERE)
		report(v, "the code in memory is not what the block was made of: where an instruction ends");
}

/* ------------------------------------------------------------------ comparing */

/* The first store that left something else behind, or -1. */
static int64_t stored_differently(struct verify *v)
{
	const bool stale = v->touched_ad && mem_stale(v->bt->c->mem);

	for (uint32_t i = 0; i < v->nlog; i++) {
		const struct store *s = &v->log[i];
		const uint8_t *p = mem_ptr(v->bt->c->mem, s->gpa, s->len);
		if (s->ad ? !stale && v->new[s->data] & ~*p &PTE_D : !same(p, v->new + s->data, s->len))
			return i;
	}
	return -1;
}

/* What differs between the vcpu and v->want, or NULL. */
static const char *difference(struct verify *v, enum lax lax)
{
	const struct vcpu *c = v->bt->c, *w = &v->want;

	for (unsigned r = 0; r < 8; r++)
		if (c->gpr[r] != w->gpr[r] &&
		    !(lax == LAX_REP && (r == EAX || r == ECX || r == ESI || r == EDI)))
			return "a register";
	if (c->eip != w->eip)
		return "EIP";
	if ((c->flags != w->flags && lax != LAX_REP && lax != LAX_FLAGS) || c->df != w->df ||
	    (c->iflag != w->iflag && lax != LAX_IF) ||
	    ((c->sysflags ^ w->sysflags) & ~(lax == LAX_RF ? FL_RF : 0)))
		return "the flags register";
	if (c->cpl != w->cpl || !same(c->seg, w->seg, sizeof c->seg))
		return "a segment register";
	if (!same(&c->cr0, &w->cr0, 4 * sizeof c->cr0) ||
	    (v->has & HAS_SYSTEM && !same((const char *)c + PART2, (const char *)w + PART2, END2 - PART2)))
		return "a system register";
	if (v->has & HAS_FPU && !fpu_same(c->fpu.fxsave, w->fpu.fxsave))
		return "the FPU state";
	if (lax != LAX_REP && lax != LAX_TORN && stored_differently(v) >= 0)
		return "memory";
	return NULL;
}

static void compare(struct verify *v, enum lax lax)
{
	const char *what = difference(v, lax);

	v->st.insns += v->n;
	if (what)
		report(v, what);
}

/* One side raises an exception and the other does not, or another one. Both may serve from what a TLB may still hold. */
static void different_way(struct verify *v, unsigned vector, const char *what)
{
	if (vector == VEC_PF && mem_stale(v->bt->c->mem))
		v->st.stale++;
	else
		report(v, what);
}

/* The state is that behind the block. */
static void compare_end(struct verify *v)
{
	v->armed = false;
	switch (v->stop) {
	case STOP_LIMIT:
		v->st.blocks++;
		compare(v, LAX_NONE);
		break;
	case STOP_EXCEPTION:
		different_way(v, v->exc.vector,
			      "the interpreter's exception is not translated code's: the way");
		break;
	default:
		v->st.passed++;
	}
}

/* The same for a trial of fewer instructions. The vcpu and what the longer trial stored to are as
 * translated code left them, and are so again afterwards; v->want and v->new are those of the shorter one. */
static void shorten(struct verify *v, unsigned count)
{
	struct vcpu *c = v->bt->c;
	const struct exception exc = c->exc;
	const uint32_t nlog = v->nlog;

	c->exc.pending = false;
	const unsigned has = v->has;
	copy_state(&v->have, c, has);
	read_log(v, v->have_data);
	undo(v);
	foresee(v, count);
	/* The log is the beginning of what it was. */
	for (uint32_t i = 0; i < nlog; i++)
		put_back(v, v->have_data, &v->log[i]);
	copy_state(c, &v->have, has);
	c->exc = exc;
}

/* The state is that before instruction i, in a callout or a fault; mid: of which a part may have been
 * executed. */
static void compare_at(struct verify *v, unsigned i, enum lax lax, bool mid)
{
	unsigned n = i - v->at;

	v->armed = false;
	if (n > v->n) {
		if (v->stop == STOP_EXCEPTION)
			different_way(v, v->exc.vector,
				      "the interpreter's exception is not translated code's: the way");
		v->st.passed++;
		return;
	}
	if (n < v->n || (v->mid && !mid))
		shorten(v, n);
	compare(v, lax);
}

/* ------------------------------------------------------------------ the FPU in callouts that leave its state
 * in the unit */

static void fpu_take(struct bt *bt)
{
	static const uint32_t mxcsr = 0x1f80;

	__asm__ volatile("fxsave %0\n\tfninit\n\tldmxcsr %1" : "=m"(bt->c->fpu) : "m"(mxcsr));
	bt_fpu_pointers(bt);
}

static void fpu_give(struct bt *bt)
{
	__asm__ volatile("fxrstor %0" : : "m"(bt->c->fpu));
}

/* ------------------------------------------------------------------ where translated code comes out */

static bool pick(struct verify *v, uint32_t number)
{
	const struct machine_config *cfg = &v->bt->m->cfg;
	const uint64_t n = v->st.entries++;

	if (v->runs[number] < cfg->verify_first) {
		v->runs[number]++;
		return true;
	}
	return cfg->verify_every && n % cfg->verify_every == 0;
}

static int verify_block(struct vcpu *c, uint32_t arg)
{
	const uint32_t number = arg & ((1u << CO_VERIFY_INSN) - 1), at = arg >> CO_VERIFY_INSN;
	struct bt *bt = c->bt;
	struct verify *v = bt->verify;
	const struct block *b = &bt->k.blocks[number];
	const uint64_t gen = bt->gen;
	const bool picked = pick(v, number), fpu = (v->armed && v->b->fpu) || (picked && b->fpu);

	v->blocks[v->st.entries % BLOCKS_MAX] = b->eip + b->side[at].guest;
	v->picked = picked;
	cpu_fpu_live = !fpu;
	if (fpu)
		fpu_take(bt);
	if (v->armed)
		compare_end(v);
	if (picked && !v->failed)
		arm(v, b, at);
	if (fpu)
		fpu_give(bt);
	cpu_fpu_live = false;
	if (!v->failed && gen == bt->gen)
		return BT_GO_ON;
	v->armed = false;
	return BT_GO_OUT;
}

/* Lets the interpreter try the instruction of a callout, with the exception it may raise. */
static bool foresee_callout(struct verify *v, unsigned i)
{
	struct vcpu *c = v->bt->c;
	bool good;

	v->at = i;
	v->n = 1;
	v->stop = STOP_LIMIT;
	v->nlog = v->ndata = 0;
	v->touched_ad = false;
	v->has = HAS_SYSTEM | (v->b->fpu ? HAS_FPU : 0);
	copy_state(&v->before, c, v->has);
	v->in_trial = true;
	const enum interp_trial r = interp_try(c, may_try);
	good = r != TRIAL_REFUSED && r != TRIAL_SPOILT;
	if (r == TRIAL_EXCEPTION || r == TRIAL_EXCEPTION_MID)
		good = interp_try_deliver(c);
	v->in_trial = false;
	c->exc.pending = false;
	copy_state(&v->want, c, v->has);
	read_log(v, v->new);
	undo(v);
	return good;
}

static unsigned insn_at(const struct block *b, uint32_t eip)
{
	unsigned i = 0;

	while (i + 1u < b->ninsn && b->eip + b->side[i].guest != eip)
		i++;
	return i;
}

static enum lax callout_lax(const struct verify *v, unsigned i, unsigned which)
{
	const uint64_t gpa = v->b->gpa + v->b->side[i].guest;
	const unsigned left = PAGE_SIZE - (unsigned)(gpa & (PAGE_SIZE - 1));
	struct insn in;

	if (which == CO_STI)
		return LAX_IF;
	if (decode_insn(mem_ptr(v->bt->c->mem, gpa, 1), left < INSN_MAX_LEN ? left : INSN_MAX_LEN, true,
			&in) != DECODE_OK ||
	    in.opmap != 0)
		return LAX_NONE;
	return in.opcode == 0x9d || in.opcode == 0xcf ? LAX_FLAGS : LAX_NONE; /* popf, iret */
}

static int verify_callout(struct vcpu *c, uint32_t arg, unsigned which)
{
	struct bt *bt = c->bt;
	struct verify *v = bt->verify;
	const struct block *b = v->b;
	int (*const real)(struct vcpu *, uint32_t) = v->real[which];

	if (!v->picked)
		return real(c, arg);
	const bool light = which != CO_INTERP && which != CO_PROBE_FPU, fpu = light && b->fpu;
	const unsigned i = insn_at(b, c->eip);
	cpu_fpu_live = light && !fpu;
	if (fpu)
		fpu_take(bt);
	else if (!light)
		bt_fpu_pointers(bt);
	if (v->armed)
		compare_at(v, i, callout_lax(v, i, which), false);
	const bool foreseen = !v->failed && foresee_callout(v, i);
	if (fpu)
		fpu_give(bt);
	cpu_fpu_live = false;
	int r = real(c, arg);
	cpu_fpu_live = light && !fpu;
	if (fpu)
		fpu_take(bt);
	if (fpu && which == CO_DEVICE) /* the thunk has these */
		memcpy(c->fpu.fxsave + 160, c->hot.xmm, sizeof c->hot.xmm);
	if (foreseen && !c->exc.pending) {
		v->st.callouts++;
		compare(v, which == CO_IRET ? LAX_RF : LAX_NONE);
	} else {
		v->st.callouts_only++;
	}
	if (r == BT_GO_ON && !v->failed && i + 1u < b->ninsn && !(b->side[i].flags & SIDE_PART))
		arm(v, b, i + 1);
	if (fpu)
		fpu_give(bt);
	cpu_fpu_live = false;
	return v->failed ? BT_GO_OUT : r;
}

/* Whatever stopped it, translated code has stored a part. */
static bool is_pusha(struct verify *v, const struct block *b, unsigned i)
{
	return *(const uint8_t *)mem_ptr(v->bt->c->mem, b->gpa + b->side[i].guest, 1) == 0x60;
}

void verify_fault(struct verify *v, const struct block *b, unsigned i, bool guest)
{
	const struct vcpu *c = v->bt->c;

	if (!v->armed)
		return;
	assert(b == v->b);
	const bool foreseen = v->stop == STOP_EXCEPTION && i - v->at == v->n;
	/* The trial was refused on the way, by an access that translated code could make from what a TLB may
	 * hold. */
	const bool beyond = v->stop != STOP_EXCEPTION && i - v->at >= v->n;
	v->st.faults++;
	compare_at(v, i,
		   b->side[i].flags & SIDE_REP && !(foreseen && guest) ? LAX_REP
		   : (foreseen && v->torn) || is_pusha(v, b, i)	       ? LAX_TORN
								       : LAX_NONE,
		   guest);
	if (!guest || v->failed || beyond)
		return;
	if (!foreseen)
		different_way(v, c->exc.vector,
			      "translated code's exception is not the interpreter's: the way");
	else if (c->exc.vector != v->exc.vector || c->exc.error != v->exc.error || c->exc.cr2 != v->exc.cr2)
		different_way(v, v->exc.vector == VEC_PF ? VEC_PF : c->exc.vector, "the exception");
}

void verify_stopped(struct verify *v)
{
	if (v->armed)
		verify_fault(v, v->b, insn_at(v->b, v->bt->c->eip), false);
}

void verify_left(struct verify *v)
{
	if (!v->armed)
		return;
	/* A kick may have stopped it before its first instruction, on the way back from the callout. */
	if (v->bt->c->eip == v->before.eip && same(v->bt->c->gpr, v->before.gpr, sizeof v->before.gpr) &&
	    v->bt->c->flags == v->before.flags)
		v->armed = false;
	else
		compare_end(v);
}

/* ------------------------------------------------------------------ reporting */

void verify_note(struct verify *v, enum verify_event what, uint32_t eip, uint64_t gpa, uint32_t arg)
{
	v->events[v->nevents++ % EVENTS_MAX] =
		(struct event){.when = v->st.entries, .what = what, .eip = eip, .gpa = gpa, .arg = arg};
	if (what == VERIFY_FLUSH)
		memset(v->runs, 0, v->bt->k.max_blocks * sizeof v->runs[0]);
}

static void print_seg(const char *name, const struct seg *s)
{
	fprintf(stderr, " %s %04x:%08x/%08x,%04x", name, s->sel, s->base, s->limit, s->attr);
}

static void print_state(const char *name, const struct vcpu *c, bool system)
{
	static const char *const reg[8] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
	static const char *const seg[6] = {"es", "cs", "ss", "ds", "fs", "gs"};

	fprintf(stderr, "%-12s eip %08x flags %08x", name, c->eip, cpu_eflags(c));
	for (unsigned r = 0; r < 8; r++)
		fprintf(stderr, " %s %08x", reg[r], c->gpr[r]);
	fprintf(stderr, " cpl %u\n", c->cpl);
	if (!system)
		return;
	fprintf(stderr, "%-12s", "");
	for (unsigned s = 0; s < 6; s++)
		print_seg(seg[s], &c->seg[s]);
	fprintf(stderr, "\n%-12s cr0 %08x cr2 %08x cr3 %08x cr4 %08x gdt %08x/%04x idt %08x/%04x", "", c->cr0,
		c->cr2, c->cr3, c->cr4, c->gdtr.base, c->gdtr.limit, c->idtr.base, c->idtr.limit);
	print_seg("ldt", &c->ldtr);
	print_seg("tr", &c->tr);
	fputc('\n', stderr);
}

static void print_bytes(const uint8_t *p, unsigned n)
{
	for (unsigned i = 0; i < n && i < 16; i++)
		fprintf(stderr, " %02x", p[i]);
}

static void print_fpu(const char *name, const uint8_t *fx)
{
	fprintf(stderr, "%-12s fcw,fsw", name);
	print_bytes(fx, 4);
	fprintf(stderr, " tags %02x mxcsr", fx[4]);
	print_bytes(fx + 24, 4);
	for (unsigned r = 0; r < 16; r++) {
		fprintf(stderr, "%s%s%u", r % 4 ? " " : "\n             ", r < 8 ? "st" : "xmm", r & 7);
		print_bytes(fx + 32 + 16 * r, r < 8 ? 10 : 16);
	}
	fputc('\n', stderr);
}

static void print_stores(struct verify *v)
{
	const int64_t first = stored_differently(v);

	for (uint32_t i = first < 0 ? v->nlog : (uint32_t)first; i < v->nlog && i < first + 16u; i++) {
		const struct store *s = &v->log[i];
		fprintf(stderr, "memory       physical %#" PRIx64 ", %u bytes%s: before", s->gpa, s->len,
			s->ad ? " (A, D bits)" : "");
		print_bytes(v->old + s->data, s->len);
		fprintf(stderr, "; interpreter");
		print_bytes(v->new + s->data, s->len);
		fprintf(stderr, "; translator");
		print_bytes(mem_ptr(v->bt->c->mem, s->gpa, s->len), s->len);
		fputc('\n', stderr);
	}
}

static void line(const char *text)
{
	fprintf(stderr, "  %s\n", text);
}

static bool concerns(const struct block *b, const struct event *e)
{
	switch (e->what) {
	case VERIFY_FLUSH:
		return true;
	case VERIFY_UNMAPPED:
		return (b->eip - e->eip) >> PAGE_SHIFT < e->arg;
	case VERIFY_WRITTEN:
		return (b->gpa < e->gpa + e->arg && e->gpa < b->gpa + b->len) ||
		       (b->len2 && b->gpa2 < e->gpa + e->arg && e->gpa < b->gpa2 + b->len2);
	case VERIFY_CHAINED:
		return e->eip == b->eip || e->arg == b->eip;
	default:
		return e->gpa >= b->gpa && e->gpa < b->gpa + b->len;
	}
}

static void print_event(const struct event *e)
{
	fprintf(stderr, "  at block %" PRIu64 ": ", e->when);
	switch (e->what) {
	case VERIFY_TRANSLATED:
		fprintf(stderr, "translated from physical %#" PRIx64 ", mode %02x\n", e->gpa, e->arg);
		break;
	case VERIFY_ADAPTED:
		fprintf(stderr, "dropped: the instruction at %08x became%s%s%s\n", e->eip,
			e->arg & SITE_USER ? " a user site" : "", e->arg & SITE_MIXED ? " (mixed)" : "",
			e->arg & SITE_CALLOUT ? " a callout" : "");
		break;
	case VERIFY_WRITTEN:
		fprintf(stderr, "dropped: %u bytes were written at physical %#" PRIx64 "\n", e->arg, e->gpa);
		break;
	case VERIFY_UNMAPPED:
		fprintf(stderr, "unlinked: the mapping of %u pages at %08x changed\n", e->arg, e->eip);
		break;
	case VERIFY_CHAINED:
		fprintf(stderr, "chained: %08x to %08x\n", e->eip, e->arg);
		break;
	case VERIFY_FLUSH:
		fprintf(stderr, "everything was dropped\n");
		break;
	}
}

static void print_history(const struct verify *v)
{
	uint64_t i = v->nevents > EVENTS_MAX ? v->nevents - EVENTS_MAX : 0;

	fprintf(stderr, "history of this code (now: block %" PRIu64 "):\n", v->st.entries);
	for (; i < v->nevents; i++)
		if (concerns(v->b, &v->events[i % EVENTS_MAX]))
			print_event(&v->events[i % EVENTS_MAX]);
	fprintf(stderr, "blocks executed, the latest last:");
	for (unsigned n = 1; n <= BLOCKS_MAX; n++)
		fprintf(stderr, " %08x", v->blocks[(v->st.entries + n) % BLOCKS_MAX]);
	fputc('\n', stderr);
}

static void report(struct verify *v, const char *what)
{
	struct vcpu *c = v->bt->c;
	const struct block *b = v->b;
	const uint8_t *code = mem_ptr(c->mem, b->gpa, b->len - b->len2);
	const bool system =
		!same(c->seg, v->want.seg, sizeof c->seg) || !same(&c->cr0, &v->want.cr0, 16) ||
		(v->has & HAS_SYSTEM && !same((char *)c + PART2, (char *)&v->want + PART2, END2 - PART2));

	if (v->failed)
		return;
	v->failed = true;
	fprintf(stderr, "bt86: verify: %s differs, block %08x, instructions %u to %u\n", what, b->eip, v->at,
		v->at + v->n);
	print_state("before", &v->before, system);
	print_state("interpreter", &v->want, system);
	print_state("translator", c, system);
	if (v->stop == STOP_EXCEPTION)
		fprintf(stderr, "the interpreter raises exception %u, error %x, cr2 %08x\n", v->exc.vector,
			v->exc.error, v->exc.cr2);
	if (c->exc.pending)
		fprintf(stderr, "translated code raises exception %u, error %x, cr2 %08x\n", c->exc.vector,
			c->exc.error, c->exc.cr2);
	if (v->has & HAS_FPU && !fpu_same(c->fpu.fxsave, v->want.fpu.fxsave)) {
		print_fpu("before", v->before.fpu.fxsave);
		print_fpu("interpreter", v->want.fpu.fxsave);
		print_fpu("translator", c->fpu.fxsave);
	}
	print_stores(v);
	fprintf(stderr, "guest code (<) and emitted code (>):\n");
	translate_log_line = line;
	translate_log(&v->bt->k, b, code, b->len - b->len2, TRANSLATE_LOG_GUEST | TRANSLATE_LOG_HOST);
	print_history(v);
	machine_poweroff(v->bt->m, EXIT_INTERNAL);
}

/* ------------------------------------------------------------------ life */

#define EACH_CALLOUT(X)                                                                                      \
	X(0)                                                                                                 \
	X(1)                                                                                                 \
	X(2)                                                                                                 \
	X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) \
		X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)

#define X(n)                                                                                                 \
	static int callout##n(struct vcpu *c, uint32_t arg)                                                  \
	{                                                                                                    \
		return verify_callout(c, arg, n);                                                            \
	}
EACH_CALLOUT(X)
#undef X

static int (*const wrappers[CPU_CALLOUTS])(struct vcpu *, uint32_t) = {
#define X(n) callout##n,
	EACH_CALLOUT(X)
#undef X
};

struct verify *verify_create(struct bt *bt)
{
	struct verify *v = aligned_alloc(64, (sizeof *v + 63) & ~63ul);
	uint64_t *callouts = bt->c->hot.callouts;

	if (!v)
		return NULL;
	memset(v, 0, sizeof *v);
	the_verify = v;
	v->bt = bt;
	v->runs = calloc(bt->k.max_blocks, sizeof v->runs[0]);
	if (!v->runs) {
		free(v);
		return NULL;
	}
	for (unsigned i = 0; i < CPU_CALLOUTS; i++) {
		v->real[i] = (int (*)(struct vcpu *, uint32_t))(uintptr_t)callouts[i];
		callouts[i] = (uint64_t)(uintptr_t)wrappers[i];
	}
	callouts[CO_VERIFY] = (uint64_t)(uintptr_t)verify_block;
	mem_set_store_log(bt->c->mem, on_store, v);
	return v;
}

void verify_destroy(struct verify *v)
{
	if (!v)
		return;
	free(v->runs);
	free(v);
}

const struct verify_stats *verify_get_stats(const struct verify *v)
{
	return &v->st;
}
