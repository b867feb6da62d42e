/* bt_verify.c - lockstep (--verify): each block that is about to run is first run by the interpreter, on the
 *same state, with its stores logged and then taken back; afterwards registers, defined flags, FPU state and
 *the bytes stored to are compared. The first difference stops the machine with both states, the guest's code
 *and the emitted code.
 *
 * While it is on, blocks are not chained and tables stay empty, so that every block comes back here; and the
 * translator ends blocks at instructions that do more than registers and memory, which are not compared (both
 *sides would be the interpreter anyway).
 *
 *	verify_before(v, b);  ... run b ...  verify_after(v, b, why);
 */
#include "vmm/bt.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_MAX	 4096u
#define DATA_MAX 65536u
#define HISTORY	 32u

struct store {
	uint64_t gpa;
	uint32_t len, data; /* offset into old[] and new[] */
};

struct verify {
	struct bt *bt;
	uint64_t seen, checked, skipped;
	bool armed;  /* verify_before has interpreted the coming block */
	bool impure; /* the interpreter's run cannot be taken back or compared */
	struct vcpu before, want;
	struct store log[LOG_MAX];
	uint8_t old[DATA_MAX], new[DATA_MAX];
	uint32_t nlog, ndata;
	uint32_t history[HISTORY];
	uint32_t at;
};

struct verify *verify_create(struct bt *bt)
{
	struct verify *v = aligned_alloc(64, (sizeof *v + 63) & ~63ul);

	if (v) {
		memset(v, 0, sizeof *v);
		v->bt = bt;
	}
	return v;
}

void verify_destroy(struct verify *v)
{
	free(v);
}

void verify_impure(struct verify *v)
{
	v->impure = true;
}

static void on_store(void *opaque, uint64_t gpa, unsigned len)
{
	struct verify *v = opaque;
	const uint8_t *p = mem_ptr(v->bt->c->mem, gpa, len);

	/* Code and page tables have their own machinery, which does not run backwards. */
	if (mem_traced(v->bt->c->mem, gpa) || v->nlog == LOG_MAX || v->ndata + len > DATA_MAX || !p) {
		v->impure = true;
		if (v->nlog == LOG_MAX || v->ndata + len > DATA_MAX)
			return;
	}
	v->log[v->nlog++] = (struct store){.gpa = gpa, .len = len, .data = v->ndata};
	memcpy(v->old + v->ndata, p, len);
	v->ndata += len;
}

/* All of the vcpu but what other threads write. */
static void copy_state(struct vcpu *to, const struct vcpu *from)
{
	const size_t rq = offsetof(struct vcpu, request), after = rq + sizeof from->request;

	memcpy(to, from, rq);
	memcpy((char *)to + after, (const char *)from + after, sizeof *from - after);
}

/* EIP is the handler of an exception: the last instruction faulted. */
static bool at_handler(struct vcpu *c)
{
	for (unsigned n = 0; n < 32; n++) {
		uint16_t lo, hi;
		if (mem_read16(c, c->idtr.base + n * 8, &lo, ACC_PEEK) < 0 ||
		    mem_read16(c, c->idtr.base + n * 8 + 6, &hi, ACC_PEEK) < 0)
			return false;
		if (c->eip == (lo | (uint32_t)hi << 16))
			return true;
	}
	return false;
}

static void interpret(struct verify *v, const struct block *b)
{
	struct vcpu *c = v->bt->c;

	for (unsigned i = 0; i < b->ninsn && !v->impure; i++) {
		uint32_t at = b->eip + b->side[i].guest, n = 0;
		if (c->eip != at) {
			v->impure = true;
			break;
		}
		do {
			if (interp_step(c) < 0 || c->halted || c->shadow || ++n > 1000)
				v->impure = true;
		} while (c->eip == at && b->side[i].flags & SIDE_REP && !v->impure);
		if (c->cpl != v->before.cpl || c->exc.pending || at_handler(c))
			v->impure = true;
	}
}

void verify_before(struct verify *v, const struct block *b)
{
	struct vcpu *c = v->bt->c;
	unsigned every = v->bt->m->cfg.verify_every;

	v->armed = false;
	v->history[v->at++ % HISTORY] = b->eip;
	if (v->seen++ % every || !b->pure)
		return;
	struct mem *m = c->mem;
	copy_state(&v->before, c);
	v->impure = false;
	v->nlog = v->ndata = 0;
	mem_set_store_log(m, on_store, v);
	v->bt->in_verify = true;
	interpret(v, b);
	v->bt->in_verify = false;
	mem_set_store_log(m, NULL, NULL);
	copy_state(&v->want, c);
	for (uint32_t i = 0; i < v->nlog; i++)
		memcpy(v->new + v->log[i].data, mem_ptr(m, v->log[i].gpa, v->log[i].len), v->log[i].len);
	for (uint32_t i = v->nlog; i-- > 0;)
		mem_phys_write(m, v->log[i].gpa, v->old + v->log[i].data, v->log[i].len);
	copy_state(c, &v->before);
	if (v->impure)
		v->skipped++;
	else
		v->armed = true;
}

static void print_state(const char *name, const struct vcpu *c)
{
	static const char *const reg[8] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};

	fprintf(stderr, "%-12s eip %08x flags %08x", name, c->eip, cpu_eflags(c));
	for (unsigned r = 0; r < 8; r++)
		fprintf(stderr, " %s %08x", reg[r], c->gpr[r]);
	fputc('\n', stderr);
}

static void line(const char *text)
{
	fprintf(stderr, "  %s\n", text);
}

static void report(struct verify *v, const struct block *b, const char *what)
{
	struct vcpu *c = v->bt->c;
	const uint8_t *code = mem_ptr(c->mem, b->gpa, b->len - b->len2);

	fprintf(stderr, "bt86: verify: %s differs after the block at %08x (check %lu)\n", what, b->eip,
		(unsigned long)v->checked);
	print_state("before", &v->before);
	print_state("interpreter", &v->want);
	print_state("translator", c);
	fprintf(stderr, "guest code (<) and emitted code (>):\n");
	translate_log_line = line;
	translate_log(&v->bt->k, b, code, b->len - b->len2, TRANSLATE_LOG_GUEST | TRANSLATE_LOG_HOST);
	fprintf(stderr, "blocks before, the latest last:");
	for (unsigned i = 0; i < HISTORY; i++)
		fprintf(stderr, " %08x", v->history[(v->at + i) % HISTORY]);
	fputc('\n', stderr);
	machine_poweroff(v->bt->m, EXIT_INTERNAL);
}

/* FXSAVE image but for the pointers of the last x87 instruction and the bytes that 32-bit code cannot see. */
static bool fpu_differs(const uint8_t *a, const uint8_t *b)
{
	if (memcmp(a, b, 5) || memcmp(a + 24, b + 24, 4) || memcmp(a + 160, b + 160, 128))
		return true;
	for (unsigned r = 0; r < 8; r++)
		if (memcmp(a + 32 + 16 * r, b + 32 + 16 * r, 10))
			return true;
	return false;
}

void verify_after(struct verify *v, const struct block *b, int why)
{
	struct vcpu *c = v->bt->c;

	if (!v->armed || (why != BT_EXIT_DIRECT && why != BT_EXIT_MISS))
		return;
	v->armed = false;
	v->checked++;
	if (memcmp(c->gpr, v->want.gpr, sizeof c->gpr) || c->eip != v->want.eip) {
		report(v, b, "a register");
		return;
	}
	if (c->flags != v->want.flags || c->df != v->want.df || c->iflag != v->want.iflag) {
		report(v, b, "the flags register");
		return;
	}
	if (fpu_differs(c->fpu.fxsave, v->want.fpu.fxsave)) {
		report(v, b, "the FPU state");
		return;
	}
	for (uint32_t i = 0; i < v->nlog; i++) {
		const struct store *s = &v->log[i];
		if (memcmp(mem_ptr(c->mem, s->gpa, s->len), v->new + s->data, s->len)) {
			char what[80];
			snprintf(what, sizeof what, "memory at physical %#lx (%u bytes)",
				 (unsigned long)s->gpa, s->len);
			report(v, b, what);
			return;
		}
	}
}
