/* interp.c - fetching, decoding, and the loop.
 *
 * Decoded instructions are kept in a direct-mapped cache indexed by linear address. A hit counts only when
 * the bytes at that address, read anew each time through the software TLB, are still those that were decoded:
 * one masked comparison of 16 bytes. So the cache never has to be told about anything. Self-modifying code,
 * another process at the same address, a remapped page, DMA: the comparison sees them all, no page needs a
 * trace for the interpreter's sake, and the interpreter can serve as the reference for code whose pages the
 * translator watches.
 *
 * Interrupt shadow: STI (where IF was clear), MOV SS and POP SS set c->shadow to 2; it is counted down at the
 * end of each instruction, theirs included. Nonzero at an instruction boundary therefore means: take no
 * interrupt here.
 *
 * Debug traps: single-step (TF at the start of the instruction) and data or I/O breakpoints are raised after
 * the instruction, instruction breakpoints before it unless RF is set. step_slow does all of that; the fast
 * path only asks whether anything of the kind is on.
 */
#include "vmm/interp/interp.h"

#include "translator/translator.h"
#include "vmm/interp/hostunit.h"
#include "vmm/interp/table.h"

int interp_init(char *err, size_t errlen)
{
	return hostunit_init(err, errlen);
}

/* ------------------------------------------------------------------ decoded instructions */

struct cached {
	uint64_t word[2]; /* the instruction's bytes, the rest 0 */
	uint64_t mask[2];
	interp_fn fn;
	uint32_t lin;
	uint8_t code32;
	struct insn i;
};

#define CACHE_SIZE 16384u
static struct cached cache[CACHE_SIZE];
/* An instruction that is not cached: it lies on two pages, or not in RAM. */
static struct cached uncached;

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static uint64_t low_bytes(unsigned n)
{
	return n >= 8 ? ~0ull : (1ull << 8 * n) - 1;
}

/* No libc here or below: it may use vector registers, which can hold the guest's (cpu_fpu_live). */
static void fill(const struct vcpu *c, struct cached *e, uint32_t lin, bool code32)
{
	e->mask[0] = low_bytes(e->i.len);
	e->mask[1] = low_bytes(e->i.len > 8 ? e->i.len - 8u : 0);
	e->word[0] = load64(e->i.raw) & e->mask[0];
	e->word[1] = load64(e->i.raw + 7) >> 8 & e->mask[1];
	e->lin = lin;
	e->code32 = code32;
	e->fn = cpu_offers(c, &e->i) ? interp_handler(&e->i) : op_ud;
}

/* Copies up to n instruction bytes from lin, not beyond its page. Returns how many, or -1 with #PF. */
static int fetch_bytes(struct vcpu *c, uint32_t lin, uint8_t *buf, unsigned n)
{
	unsigned left = PAGE_SIZE - (lin & ~PAGE_MASK);

	if (n > left)
		n = left;
	return mem_read(c, lin, buf, n, ACC_EXEC | interp_acc(c)) ? -1 : (int)n;
}

/* Decodes at CS:EIP into e, reading as few pages as the instruction lies on. */
static int decode_at(struct vcpu *c, uint32_t lin, bool code32, struct cached *e)
{
	uint32_t room = c->seg[CS].limit - c->eip; /* bytes after the first within the limit */
	unsigned want = room < INSN_MAX_LEN ? room + 1 : INSN_MAX_LEN;
	uint8_t buf[INSN_MAX_LEN];
	enum decode_result r;
	int have;

	if (c->eip > c->seg[CS].limit)
		return cpu_raise_error(c, VEC_GP, 0);
	have = fetch_bytes(c, lin, buf, want);
	if (have < 0)
		return -1;
	r = decode_insn(buf, (unsigned)have, code32, &e->i);
	if (r == DECODE_MORE && (unsigned)have < want) {
		int more = fetch_bytes(c, lin + (unsigned)have, buf + have, want - (unsigned)have);
		if (more < 0)
			return -1;
		r = decode_insn(buf, want, code32, &e->i);
	}
	switch (r) {
	case DECODE_OK:
		fill(c, e, lin, code32);
		return 0;
	case DECODE_INVALID:
		return cpu_raise(c, VEC_UD);
	default: /* too long, or cut off by the limit */
		return cpu_raise_error(c, VEC_GP, 0);
	}
}

/* Host address of the instruction, when its page is in the TLB as executable. */
static inline const uint8_t *fetch_ptr(struct vcpu *c, uint32_t lin)
{
	const struct tlb_entry *t = interp_tlb(c, lin);

	return t->xtag == ((lin & PAGE_MASK) | 1u) ? (const uint8_t *)(t->add + lin) : NULL;
}

static __attribute__((noinline)) struct cached *fetch_slow(struct vcpu *c, uint32_t lin)
{
	bool code32 = cpu_code32(c);
	struct cached *e = &uncached;

	if (decode_at(c, lin, code32, e))
		return NULL;
	if ((lin & ~PAGE_MASK) + e->i.len <= PAGE_SIZE && fetch_ptr(c, lin)) {
		cache[lin % CACHE_SIZE] = *e;
		e = &cache[lin % CACHE_SIZE];
	}
	return e;
}

/* Whether e is the instruction at CS:EIP, whose bytes stand at p. The comparison may look up to 15 bytes
 * beyond the page: not at the end of RAM. */
static inline __attribute__((always_inline)) bool cached_matches(const struct vcpu *c, const struct cached *e,
								 uint32_t lin, const uint8_t *p)
{
	return e->lin == lin && (lin & ~PAGE_MASK) <= PAGE_SIZE - 16 &&
	       !(((load64(p) ^ e->word[0]) & e->mask[0]) | ((load64(p + 8) ^ e->word[1]) & e->mask[1])) &&
	       e->code32 == cpu_code32(c) && e->mask[0] && c->eip <= c->seg[CS].limit &&
	       c->seg[CS].limit - c->eip >= (uint32_t)e->i.len - 1;
}

/* The same after a TLB miss, which is all that happens to code that was here before a load of CR3. */
static __attribute__((noinline)) struct cached *fetch_again(struct vcpu *c, uint32_t lin)
{
	struct cached *e = &cache[lin % CACHE_SIZE];
	const uint8_t *p;
	uint8_t byte;

	if (e->lin != lin || c->eip > c->seg[CS].limit)
		return fetch_slow(c, lin);
	if (mem_read8(c, lin, &byte, ACC_EXEC | interp_acc(c)))
		return NULL;
	p = fetch_ptr(c, lin);
	return p && cached_matches(c, e, lin, p) ? e : fetch_slow(c, lin);
}

/* The instruction at CS:EIP, or NULL with an exception recorded. */
static inline __attribute__((always_inline)) struct cached *fetch(struct vcpu *c)
{
	uint32_t lin = c->seg[CS].base + c->eip;
	struct cached *e = &cache[lin % CACHE_SIZE];
	const uint8_t *p = fetch_ptr(c, lin);

	if (unlikely(!p))
		return fetch_again(c, lin);
	return likely(cached_matches(c, e, lin, p)) ? e : fetch_slow(c, lin);
}

/* Nothing to forget: see the head of the file. */
void interp_code_written(struct vcpu *c, uint64_t gpa, unsigned len)
{
	(void)c;
	(void)gpa;
	(void)len;
}

void interp_flush(struct vcpu *c)
{
	(void)c;
	for (unsigned k = 0; k < CACHE_SIZE; k++)
		cache[k].mask[0] = 0;
}

/* ------------------------------------------------------------------ one instruction */

/* What the current instruction did that matters to debug traps. */
static struct {
	bool entered; /* a handler or task was entered */
	bool loaded_rf;
	bool hold_traps; /* MOV SS, POP SS: debug exceptions wait until after the next instruction */
} note;

void interp_entered(void)
{
	note.entered = note.loaded_rf = true;
}

void interp_loaded_rf(void)
{
	note.loaded_rf = true;
}

void interp_shadow(struct vcpu *c, bool stack_segment)
{
	c->shadow = 2;
	note.hold_traps = stack_segment;
}

static bool repeats(const struct insn *i)
{
	return i->opmap == 0 && i->prefix & (INSN_REP | INSN_REPNE) &&
	       ((i->opcode >= 0xa4 && i->opcode <= 0xa7) || (i->opcode >= 0xaa && i->opcode <= 0xaf));
}

static inline int finish(struct vcpu *c, const struct cached *e, int r)
{
	c->rep_mid = false;
	if (r == INSN_NEXT)
		c->eip += e->i.len;
	else if (unlikely(repeats(&e->i)))
		c->rep_mid = true;
	if (unlikely(c->shadow))
		c->shadow--;
	return 0;
}

/* The same with TF, RF or a breakpoint on. */
static __attribute__((noinline)) int step_slow(struct vcpu *c)
{
	bool stepping = c->sysflags & FL_TF, held = note.hold_traps && c->shadow;
	struct cached *e;
	uint32_t dr6;
	int r;

	note.entered = note.loaded_rf = note.hold_traps = false;
	if (!(c->sysflags & FL_RF) && !held) {
		dr6 = debug_exec_hit(c, c->seg[CS].base + c->eip);
		if (dr6) {
			debug_raise(c, dr6);
			return interp_deliver_exception(c);
		}
	}
	e = fetch(c);
	r = e ? e->fn(c, &e->i) : -1;
	if (r < 0) {
		debug_pending = 0;
		return interp_deliver_exception(c);
	}
	/* RF lasts for one instruction; a repeated one is not over before its last element. */
	if (!note.loaded_rf && (r == INSN_NEXT || c->eip != e->lin - c->seg[CS].base))
		c->sysflags &= ~FL_RF;
	finish(c, e, r);
	if (note.hold_traps)
		return 0;
	dr6 = debug_pending;
	debug_pending = 0;
	if (stepping && !note.entered)
		dr6 |= 0x4000u; /* BS */
	if (!dr6)
		return 0;
	debug_raise(c, dr6);
	return interp_deliver_exception(c);
}

static inline int step(struct vcpu *c)
{
	struct cached *e;
	int r;

	c->n_interp++;
	if (unlikely((c->sysflags & (FL_TF | FL_RF)) | (c->dr[7] & 0xffu) | debug_pending))
		return step_slow(c);
	e = fetch(c);
	if (unlikely(!e))
		return interp_deliver_exception(c);
	r = e->fn(c, &e->i);
	if (unlikely(r < 0))
		return interp_deliver_exception(c);
	return finish(c, e, r);
}

int interp_step(struct vcpu *c)
{
	if (unlikely(c->exc.pending) && interp_deliver_exception(c))
		return -1;
	return step(c);
}

/* ------------------------------------------------------------------ on trial */

static bool trying, spoilt;

bool interp_spoil(void)
{
	spoilt = true;
	return trying;
}

enum interp_trial interp_try(struct vcpu *c, bool (*may)(const struct insn *i))
{
	enum interp_trial r = TRIAL_REFUSED;
	const uint32_t at = c->eip;
	struct cached *e;
	int done;

	if ((c->sysflags & (FL_TF | FL_RF)) | (c->dr[7] & 0xffu) | debug_pending)
		return TRIAL_REFUSED;
	trying = true;
	spoilt = false;
	e = fetch(c);
	if (!e) {
		r = spoilt ? TRIAL_REFUSED : TRIAL_EXCEPTION;
	} else if (may(&e->i)) {
		done = e->fn(c, &e->i);
		if (spoilt) {
			r = TRIAL_SPOILT;
		} else if (done < 0) {
			r = repeats(&e->i) ? TRIAL_EXCEPTION_MID : TRIAL_EXCEPTION;
		} else {
			finish(c, e, done);
			r = c->eip == at && repeats(&e->i) ? TRIAL_AGAIN : TRIAL_DONE;
		}
	}
	trying = false;
	return r;
}

bool interp_try_deliver(struct vcpu *c)
{
	int r;

	trying = true;
	spoilt = false;
	r = interp_deliver_exception(c);
	trying = false;
	return r == 0 && !spoilt;
}

/* ------------------------------------------------------------------ many */

bool cpu_translatable(const struct vcpu *c)
{
	return translate_possible(c) && !c->shadow;
}

static inline bool wanted_elsewhere(const struct vcpu *c)
{
	uint32_t rq = atomic_load_explicit(&c->request, memory_order_relaxed);

	return unlikely(rq) && ((rq & ~REQ_IRQ) || (c->iflag && !c->shadow));
}

int interp_run(struct vcpu *c, uint64_t n, bool stop_at_translatable)
{
	if (unlikely(c->exc.pending) && interp_deliver_exception(c))
		return -1;
	while (n--) {
		if (unlikely(step(c)))
			return -1;
		if (unlikely(c->halted) || wanted_elsewhere(c))
			break;
		if (stop_at_translatable && cpu_translatable(c))
			break;
	}
	return 0;
}
