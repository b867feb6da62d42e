/* bt.c - the translator's run loop: finding, making and chaining blocks, and the spaces they run in. */
#include "vmm/bt.h"

#include <asm/prctl.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1u << 1)
#endif

static bool have_fsgsbase;

/* ------------------------------------------------------------------ spaces */

static inline void set_gs_base(struct bt *bt, uint64_t base)
{
	if (bt->c->hot.gs_base == base)
		return;
	bt->c->hot.gs_base = base;
	if (have_fsgsbase)
		__asm__ volatile("wrgsbase %0" : : "r"(base));
	else
		syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}

static __attribute__((noinline)) void take_segment(struct bt *bt, unsigned s)
{
	static const uint32_t mode_bit[6] = {[DS] = MODE_NF_DS, [ES] = MODE_NF_ES, [SS] = MODE_NF_SS};
	struct vcpu *c = bt->c;
	const struct seg *g = &c->seg[s];

	bt->seen[s] = *g;
	c->hot.seg_base[s] = g->base;
	c->hot.seg_poison[s] = bt_seg_poison(g);
	bt->not_flat = (bt->not_flat & ~mode_bit[s]) | (cpu_seg_flat_data(g) ? 0 : mode_bit[s]);
}

/* CS is flat in all translated code; of the others selector and DPL don't matter. Translated code loads FS
 * and GS without us, and others if they are as flat as before. */
static inline void sync_segments(struct bt *bt)
{
	struct vcpu *c = bt->c;
	static const uint8_t mode[] = {ES, SS, DS};

	for (unsigned i = 0; i < sizeof mode; i++) {
		const unsigned s = mode[i];
		const struct seg *g = &c->seg[s], *old = &bt->seen[s];

		if (g->base != old->base || g->limit != old->limit ||
		    ((g->attr ^ old->attr) & (SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_DC)))
			take_segment(bt, s);
	}
	for (unsigned s = FS; s <= GS; s++) {
		c->hot.seg_base[s] = c->seg[s].base;
		c->hot.seg_poison[s] = bt_seg_poison(&c->seg[s]);
	}
}

static inline bool space_is(const struct space *s, uint32_t window, uint32_t mode)
{
	return s && s->used && s->window_id == window && s->mode == mode;
}

static __attribute__((noinline)) void change_space(struct bt *bt, uint32_t id, uint32_t mode, bool user)
{
	struct vcpu *c = bt->c;

	struct space *s = c->hot.recent[user];
	if (!space_is(s, id, mode))
		s = cache_space(&bt->k, id, mode, user, c->hot.cur);
	c->hot.recent[user] = c->hot.cur = s;
	c->hot.table = (uint64_t)(uintptr_t)s->table;
}

void bt_sync_space(struct bt *bt)
{
	struct vcpu *c = bt->c;
	const struct mem_view *v = c->hot.view;
	bool user = c->cpl == 3;

	/* The page that the guest has just made for its user: now is when mapping it saves a fault. */
	if (user && v->pending)
		mem_map_pending(c->mem);
	sync_segments(bt);
	uint32_t id = user ? v->user_id : v->super_id, mode = translate_mode_with(c, bt->not_flat);

	c->hot.user_base = v->user_base;
	c->hot.super_base = v->super_base;
	c->hot.slot_bases = (uint64_t)(uintptr_t)v->slot_bases;
	c->hot.present = (uint64_t)(uintptr_t)v->present;
	c->hot.slot_presents = (uint64_t)(uintptr_t)v->slot_presents;
	set_gs_base(bt, user ? v->user_base : v->super_base);
	if (!space_is(c->hot.cur, id, mode))
		change_space(bt, id, mode, user);
}

void bt_sync_cpl(struct bt *bt)
{
	struct cpu_hot *h = &bt->c->hot;
	const bool user = bt->c->cpl == 3;
	struct space *s = h->recent[user];

	if ((user && h->view->pending) ||
	    !space_is(s, user ? h->view->user_id : h->view->super_id, h->cur->mode ^ MODE_USER)) {
		bt_sync_space(bt);
		return;
	}
	h->cur = s;
	h->table = (uint64_t)(uintptr_t)s->table;
	set_gs_base(bt, user ? h->user_base : h->super_base);
}

/* A page without blocks loses its trace with the next store, unless it got it back several times: where code
 * is generated over and over, the trace stays on meanwhile, so that the host's mappings do. That the page is
 * used for something else now shows by many stores that no code follows, by some that trap (a code
 * generator's have become callouts), or by one that clears it. */
#define TRACED_OFTEN 4
#define IDLE_STORES  128
#define IDLE_TRAP    32 /* stores that a trap counts for */

static bool expects_code(const struct bt *bt, struct code_page *p, unsigned len)
{
	if (p->traced >= TRACED_OFTEN && p->idle < IDLE_STORES && len < PAGE_SIZE / 2) {
		p->idle += bt->trapping ? IDLE_TRAP : 1;
		return true;
	}
	if (p->traced >= TRACED_OFTEN)
		p->traced = 0;
	p->idle = 0;
	return false;
}

void bt_code_written(struct bt *bt, uint64_t gpa, unsigned len)
{
	bool left;
	unsigned n = cache_invalidate(&bt->k, gpa, len, &left);

	bt->st.code_writes++;
	bt->st.blocks_hit += n;
	if (log_on(LOG_TRACE))
		log_printf(LOG_TRACE, "code write at physical %#lx, %u bytes: %u blocks dropped\n",
			   (unsigned long)gpa, len, n);
	if (bt->verify && n)
		verify_note(bt->verify, VERIFY_WRITTEN, 0, gpa, len);
	if (n) {
		bt->gen++;
		site_forget(gpa, len < 64 ? len : 64);
	}
	if (!left && !expects_code(bt, &bt->code_pages[gpa >> PAGE_SHIFT], len)) {
		interp_code_written(bt->c, gpa & ~(uint64_t)(PAGE_SIZE - 1), PAGE_SIZE);
		mem_trace_remove(bt->c->mem, gpa, TRACE_CODE);
	}
}

static void trace_code(struct bt *bt, uint64_t gpa)
{
	struct code_page *p = &bt->code_pages[gpa >> PAGE_SHIFT];

	p->idle = 0;
	if (mem_traced(bt->c->mem, gpa) & TRACE_CODE)
		return;
	if (p->traced < TRACED_OFTEN)
		p->traced++;
	mem_trace_add(bt->c->mem, gpa, TRACE_CODE);
}

void bt_code_unmapped(struct bt *bt, struct window *w, uint32_t lin, uint32_t pages)
{
	/* One page more below: straddlers there end in the first of these. */
	if (lin >= PAGE_SIZE) {
		lin -= PAGE_SIZE;
		pages++;
	}
	if (bt->verify)
		verify_note(bt->verify, VERIFY_UNMAPPED, lin, 0, pages);
	cache_space_forget(&bt->k, mem_window_id(w), lin, pages);
	if (w == mem_window_super(bt->c->mem) || bt->sole_super)
		cache_cut_cross(&bt->k, lin, pages);
	bt->gen++;
}

void bt_window_gone(struct bt *bt, struct window *w)
{
	cache_window_gone(&bt->k, mem_window_id(w));
	/* Cross-page chains are the supervisor's: they were made for what the gone window mapped. */
	if (bt->sole_super && mem_window_is_super(w))
		cache_cut_cross(&bt->k, 0, 1u << 20);
	bt->gen++;
}

static void flush(struct bt *bt)
{
	uint64_t t0 = __builtin_ia32_rdtsc();

	cache_flush(&bt->k);
	if (bt->verify)
		verify_note(bt->verify, VERIFY_FLUSH, 0, 0, 0);
	bt->gen++;
	bt->st.tsc_flush += __builtin_ia32_rdtsc() - t0;
}

/* ------------------------------------------------------------------ blocks */

struct second_page {
	struct vcpu *c;
	uint32_t lin;
	int state; /* 0 not walked yet, 1 walked, -1 not fetchable */
	uint64_t gpa;
};

static bool walk_second(struct second_page *s)
{
	struct walk w;
	unsigned user = s->c->cpl == 3 ? ACC_USER : 0;

	if (s->lin == 0) /* an instruction that runs over the end of the segment is the interpreter's */
		s->state = -1;
	if (s->state == 0) {
		struct exception saved = s->c->exc;
		s->state = mem_walk(s->c, s->lin, ACC_EXEC | ACC_PEEK | user, &w) < 0 ? -1 : 1;
		s->c->exc = saved;
		s->gpa = w.gpa;
	}
	return s->state > 0;
}

static bool second_matches(void *opaque, const struct block *b)
{
	struct second_page *s = opaque;

	return walk_second(s) && s->gpa == b->gpa2;
}

/* One line a block: host address, size, guest address with its symbol and mode. */
static void perf_map_add(struct bt *bt, const struct block *b)
{
	uint32_t off;
	const char *sym = symbols_find(b->eip, &off);

	fprintf(bt->perf_map, "%lx %x guest:%08x%s", (unsigned long)(uintptr_t)(bt->k.rx + b->host),
		b->host_end - b->host, b->eip, b->mode & MODE_USER ? ":user" : "");
	if (sym)
		fprintf(bt->perf_map, ":%s+%#x", sym, off);
	fputc('\n', bt->perf_map);
}

/* -d in_asm, op, out_asm: the guest's code, the rule chosen for each instruction, the emitted code. */
static void log_block(struct bt *bt, const struct block *b, const uint8_t *code)
{
	unsigned sides = (log_on(LOG_IN_ASM) ? TRANSLATE_LOG_GUEST : 0) |
			 (log_on(LOG_OUT_ASM) ? TRANSLATE_LOG_HOST : 0);

	log_printf(log_on(LOG_IN_ASM)	 ? LOG_IN_ASM
		   : log_on(LOG_OUT_ASM) ? LOG_OUT_ASM
					 : LOG_OP,
		   "block %08x, physical %#lx, mode %02x, %u instructions\n", b->eip, (unsigned long)b->gpa,
		   b->mode, b->ninsn);
	for (unsigned i = 0; log_on(LOG_OP) && i < b->ninsn; i++) {
		struct insn in;
		unsigned at = b->side[i].guest, left = b->len - b->len2 - at;
		if (decode_insn(code + at, left < 15 ? left : 15, true, &in) == DECODE_OK)
			log_printf(LOG_OP, "= %08x  %s%s\n", b->eip + at,
				   insn_class_name(classify_insn(&in, b->mode)),
				   site_get(b->gpa + at, b->mode & MODE_USER) & ~SITE_TRAPPED ? " (adapted)"
											      : "");
	}
	if (sides)
		translate_log(&bt->k, b, code, b->len - b->len2, sides);
}

static struct block *make_block(struct bt *bt, uint64_t gpa, uint32_t eip, struct second_page *second,
				bool loop)
{
	struct vcpu *c = bt->c;
	unsigned avail = PAGE_SIZE - (unsigned)(gpa & (PAGE_SIZE - 1));
	struct translate_request rq = {
		.gpa = gpa,
		.eip = eip,
		.mode = c->hot.cur->mode,
		.code = mem_ptr(c->mem, gpa, avail),
		.avail = avail,
		.loop = loop,
		.loops = &bt->loops,
		.chain_cross = c->cpl != 3 && bt->sole_super,
	};

	if (!rq.code)
		return NULL;
	uint64_t t0 = __builtin_ia32_rdtsc();
	if (!cache_has_room(&bt->k, TRANSLATE_ROOM))
		flush(bt);
	if (walk_second(second)) {
		rq.second = mem_ptr(c->mem, second->gpa, 15);
		rq.second_gpa = second->gpa;
	}
	struct block *b = translate_block(&bt->k, &rq);
	trace_code(bt, gpa);
	if (b->len2)
		trace_code(bt, b->gpa2);
	if (bt->perf_map)
		perf_map_add(bt, b);
	if (bt->verify)
		verify_note(bt->verify, VERIFY_TRANSLATED, eip, gpa, b->mode);
	if (log_on(LOG_IN_ASM) || log_on(LOG_OP) || log_on(LOG_OUT_ASM))
		log_block(bt, b, rq.code);
	bt->st.tsc_translate += __builtin_ia32_rdtsc() - t0;
	return b;
}

/* The code of b is about to run. */
static void note_code(struct vcpu *c, const struct block *b)
{
	struct window *win = c->cpl == 3 ? mem_window_user(c->mem) : mem_window_super(c->mem);

	mem_window_note_code(c, win, b->eip);
	if (b->len2)
		mem_window_note_code(c, win, (b->eip & PAGE_MASK) + PAGE_SIZE);
}

/* Once it is seen to that we hear of it when the code of a new block is unmapped. --bt-range wants to know of
 * each entry. */
static void set_rets(struct bt *bt, const struct block *b)
{
	if (bt->m->cfg.bt_last == 0xffffffffu)
		cache_table_set_rets(&bt->k, bt->c->hot.cur, b);
}

/* Whether a loop begins at gpa is remembered: when its block is made anew, control may come there on another
 * way, from a signal say. */
static bool begins_loop(struct bt *bt, uint64_t gpa, bool leads_back)
{
	if (leads_back)
		loop_remember(&bt->loops, gpa);
	return leads_back || loop_known(&bt->loops, gpa);
}

void bt_make_loop(struct bt *bt, uint64_t gpa, uint32_t eip)
{
	struct second_page second = {.c = bt->c, .lin = (eip & PAGE_MASK) + PAGE_SIZE};

	if (!cache_has_room(&bt->k, TRANSLATE_ROOM) ||
	    cache_lookup(&bt->k, gpa, eip, bt->c->hot.cur->mode, second_matches, &second))
		return;
	loop_remember(&bt->loops, gpa);
	make_block(bt, gpa, eip, &second, true);
}

/* The block for eip in the current space, translated if need be. NULL with c->exc pending when the fetch
 * faults, or without when the code does not lie in RAM. */
struct block *bt_find_block(struct bt *bt, uint32_t eip, bool loop)
{
	struct vcpu *c = bt->c;
	struct walk w;
	struct second_page second = {.c = c, .lin = (eip & PAGE_MASK) + PAGE_SIZE};

	if (mem_walk(c, eip, ACC_EXEC | (c->cpl == 3 ? ACC_USER : 0), &w) < 0)
		return NULL;
	struct block *b = cache_lookup(&bt->k, w.gpa, eip, c->hot.cur->mode, second_matches, &second);
	const bool found = b;
	if (!b) {
		loop = begins_loop(bt, w.gpa, loop);
		b = cache_enter(&bt->k, w.gpa, eip, c->hot.cur->mode, loop);
	}
	if (!b)
		b = make_block(bt, w.gpa, eip, &second, loop);
	if (!b)
		return NULL;
	note_code(c, b);
	if (!found)
		set_rets(bt, b);
	return b;
}

/* ------------------------------------------------------------------ the loop */

void bt_interp_one(struct bt *bt)
{
	uint64_t before = bt->c->n_interp;

	if (interp_step(bt->c) < 0)
		run_triple_fault(bt->m);
	bt->st.interp_insns += bt->c->n_interp - before;
}

static bool in_range(const struct bt *bt)
{
	const struct machine_config *cfg = &bt->m->cfg;

	return bt->c->eip >= cfg->bt_first && bt->c->eip <= cfg->bt_last;
}

/* Interprets until EIP is in the range that is translated, or something wants attention. */
static int interp_outside(struct bt *bt)
{
	struct vcpu *c = bt->c;
	int r = 0;

	for (unsigned n = 0; n < 10000 && !r; n++) {
		r = interp_step(c);
		uint32_t rq = atomic_load_explicit(&c->request, memory_order_relaxed);
		if (c->halted || (rq & ~REQ_IRQ) || (rq && c->iflag && !c->shadow) || in_range(bt))
			break;
	}
	return r;
}

static void interp_burst(struct bt *bt)
{
	struct vcpu *c = bt->c;
	uint64_t t0 = __builtin_ia32_rdtsc(), before = c->n_interp;
	const struct machine_config *cfg = &bt->m->cfg;
	bool ranged = cfg->bt_last != 0xffffffffu || cfg->bt_first;
	int r = c->shadow ? interp_step(c) : ranged ? interp_outside(bt) : interp_run(c, 10000, true);

	if (r < 0)
		run_triple_fault(bt->m);
	bt->st.interp_insns += c->n_interp - before;
	bt->st.interp_bursts++;
	bt->st.tsc_interp += __builtin_ia32_rdtsc() - t0;
}

static void chain_to(struct bt *bt, struct exit_link *e, struct block *b)
{
	if (!e->from->valid || e->to || e->target != b->eip)
		return;
	if (b->len2)
		cache_exit_by_table(&bt->k, e);
	else
		cache_chain(&bt->k, e, b);
	if (bt->verify)
		verify_note(bt->verify, VERIFY_CHAINED, e->from->eip, e->from->gpa, b->eip);
}

/* To an instruction before it, or in the middle of its block: where a loop begins. */
bool bt_leads_back(const struct exit_link *e)
{
	return e->kind == EXIT_JMP && e->target < e->from->eip + e->from->len;
}

static void go_to_host(struct bt *bt, uint64_t host)
{
	bt->c->hot.resume = host;
	bt->c->hot.resume_esp = 0;
}

static void go_to(struct bt *bt, const struct block *b)
{
	go_to_host(bt, (uint64_t)(uintptr_t)(bt->k.rx + b->host));
}

/* A miss at EIP, which gpa is mapped to, in user code: perhaps other address spaces tell where it leads. */
static bool recall(struct bt *bt, uint64_t gpa)
{
	struct vcpu *c = bt->c;

	mem_window_note_code(c, mem_window_user(c->mem), c->eip);
	const uint32_t host = cache_table_recall(&bt->k, c->hot.cur, gpa, c->eip);
	if (host)
		go_to_host(bt, host);
	return host;
}

/* make_block while the guest's FPU state is live, which Zydis would spoil. NULL where the run loop has to see
 * to it: a flush, lockstep, or mappings that changed meanwhile. */
static struct block *make_block_live(struct bt *bt, uint64_t gpa, uint32_t eip, struct second_page *second,
				     bool loop)
{
	_Alignas(16) uint8_t fpu[512];
	const uint64_t gen = bt->gen;

	__builtin_prefetch(mem_ptr(bt->c->mem, gpa, 1)); /* nobody has read it yet */
	loop = begins_loop(bt, gpa, loop);
	struct block *b = cache_enter(&bt->k, gpa, eip, bt->c->hot.cur->mode, loop);

	if (b || bt->verify || !cache_has_room(&bt->k, TRANSLATE_ROOM))
		return b;
	__asm__ volatile("fxsave64 %0" : "=m"(fpu));
	b = make_block(bt, gpa, eip, second, loop);
	__asm__ volatile("fxrstor64 %0" : : "m"(fpu));
	return gen == bt->gen ? b : NULL;
}

/* An unchained exit (how is BT_EXIT_DIRECT) or a table miss (BT_EXIT_MISS), on the quick path of entry.S: the
 * guest's FPU state is live. Sets hot.resume and returns 0 when there is a block; else how, and the run loop
 * sees to it. */
static int bt_on_exit(struct vcpu *c, int how)
{
	struct bt *bt = c->bt;
	struct walk w;
	bool user = c->cpl == 3;
	struct exit_link *e = how == BT_EXIT_DIRECT ? cache_exit_behind(&bt->k, c->hot.exit_arg) : NULL;
	if (e)
		c->eip = e->target;
	struct second_page second = {.c = c, .lin = (c->eip & PAGE_MASK) + PAGE_SIZE};

	if (mem_walk(c, c->eip, ACC_EXEC | (user ? ACC_USER : 0), &w) < 0)
		return how;
	if (!in_range(bt))
		return how;
	if (!e && user && recall(bt, w.gpa)) {
		bt->st.exits_miss++;
		return 0;
	}
	struct block *b = cache_lookup(&bt->k, w.gpa, c->eip, c->hot.cur->mode, second_matches, &second);
	const bool found = b;
	if (!b)
		b = make_block_live(bt, w.gpa, c->eip, &second, e && bt_leads_back(e));
	if (!b)
		return how;
	note_code(c, b);
	if (!found)
		set_rets(bt, b);
	if (!e) {
		bt->st.exits_miss++;
		cache_table_set(&bt->k, c->hot.cur, b);
	} else {
		bt->st.exits_direct++;
		chain_to(bt, e, b);
		if (e->by_table)
			cache_table_set(&bt->k, c->hot.cur, b);
	}
	go_to(bt, b);
	return 0;
}

/* FOP of the x87 instruction at code: the low bits of its opcode and the ModRM byte (SDM vol. 1 8.1.9). False
 * if there is none, or not within left bytes. */
static bool fop_at(const uint8_t *code, unsigned left, uint16_t *fop)
{
	static const char prefixes[] = "\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3";
	unsigned i = 0;

	while (i + 1 < left && strchr(prefixes, code[i]) && code[i])
		i++;
	if (i + 1 >= left || (code[i] & 0xf8) != 0xd8)
		return false;
	*fop = (uint16_t)((code[i] & 7) << 8 | code[i + 1]);
	return true;
}

/* FXSAVE has stored the host address of the last x87 instruction where its unit keeps one, and the opcode
 * that was emitted for it: the guest's instead. The low half is all that there is of it; the arena lies
 * within 4 GiB, so that it tells. */
void bt_fpu_pointers(struct bt *bt)
{
	uint8_t *fx = bt->c->fpu.fxsave;
	const uint64_t base = (uint64_t)(uintptr_t)bt->k.rx;
	uint32_t fip;

	memcpy(&fip, fx + 8, 4);
	if (!fip)
		return;
	uint64_t pc = base + (uint32_t)(fip - (uint32_t)base);
	if (!cache_contains(&bt->k, pc))
		return;
	const struct block *b = cache_find_pc(&bt->k, pc);
	unsigned at = b ? b->side[cache_find_insn(&bt->k, b, pc)].guest : 0;
	uint16_t fop;
	unsigned left = b && at < b->dep_len ? b->dep_len - at : 0;
	if (left && fop_at(mem_ptr(bt->c->mem, b->gpa + at, left), left, &fop))
		memcpy(fx + 6, &fop, 2);
	fip = b ? b->eip + at : 0;
	memcpy(fx + 8, &fip, 4);
	memcpy(fx + 12, &bt->c->seg[CS].sel, 2);
}

/* -d exec and -d cpu: what the dispatcher enters. Chained blocks follow one another unseen. */
static void log_enter(const struct vcpu *c, const struct block *b)
{
	uint32_t off;
	const char *sym;

	if (log_on(LOG_EXEC)) {
		sym = symbols_find(b->eip, &off);
		log_printf(LOG_EXEC, "exec %08x mode %02x%s%s\n", b->eip, b->mode, sym ? " " : "",
			   sym ? sym : "");
	}
	if (log_on(LOG_CPU))
		log_printf(LOG_CPU,
			   "EAX=%08x EBX=%08x ECX=%08x EDX=%08x ESI=%08x EDI=%08x EBP=%08x ESP=%08x EIP=%08x "
			   "EFL=%08x "
			   "CPL=%u CR3=%08x\n",
			   c->gpr[EAX], c->gpr[EBX], c->gpr[ECX], c->gpr[EDX], c->gpr[ESI], c->gpr[EDI],
			   c->gpr[EBP], c->gpr[ESP], c->eip, cpu_eflags(c), c->cpl, c->cr3);
}

/* Runs translated code from c->eip until something has to be done outside. */
static void execute(struct bt *bt)
{
	struct vcpu *c = bt->c;
	struct machine *m = bt->m;
	struct exit_link *from = NULL;
	uint64_t gen = 0;

	bt_sync_space(bt);
	bool sole = !c->hot.view->many_super;
	if (sole != bt->sole_super) {
		flush(bt);
		bt->sole_super = sole;
	}
	bool fill = true, resume = false;
	struct block *b = NULL;
	for (;;) {
		if (!resume) {
			b = bt_find_block(bt, c->eip, from && bt_leads_back(from));
			if (!b) {
				if (!c->exc.pending)
					bt_interp_one(bt);
				return;
			}
			if (from && gen == bt->gen)
				chain_to(bt, from, b);
			if (fill || (from && from->by_table))
				cache_table_set(&bt->k, c->hot.cur, b);
			go_to(bt, b);
		}
		if (log_on(LOG_EXEC) || log_on(LOG_CPU))
			log_enter(c, b);
		from = NULL;
		resume = fill = false;
		c->hot.kick = 0;
		atomic_store(&m->vcpu_in_guest, true);
		uint32_t rq = atomic_load(&c->request);
		if ((rq & ~REQ_IRQ) || (rq & REQ_IRQ && c->iflag)) {
			atomic_store(&m->vcpu_in_guest, false);
			if (bt->verify)
				verify_stopped(bt->verify);
			return;
		}
		bt->st.enters++;
		c->rep_mid = false;
		int why = bt_enter(c);
		atomic_store(&m->vcpu_in_guest, false);
		bt_fpu_pointers(bt);
		if (bt->verify && (why == BT_EXIT_DIRECT || why == BT_EXIT_MISS || why == BT_EXIT_KICK))
			verify_left(bt->verify);
		if (bt->sampled)
			bt_look_at_sample(bt);
		switch (why) {
		case BT_EXIT_DIRECT:
			bt->st.exits_direct++;
			from = cache_exit_behind(&bt->k, c->hot.exit_arg);
			gen = bt->gen;
			continue;
		case BT_EXIT_MISS:
			bt->st.exits_miss++;
			fill = true;
			continue;
		case BT_EXIT_KICK:
			bt->st.exits_kick++;
			return;
		case BT_EXIT_MIDWAY:
			bt->st.exits_kick++;
			if (bt->verify)
				verify_stopped(bt->verify);
			return;
		case BT_EXIT_FAULT:
			bt->st.exits_fault++;
			if (!bt_fault(bt))
				return;
			resume = true;
			bt_sync_space(bt);
			continue;
		default:
			bt->st.exits_callout++;
			return;
		}
	}
}

void bt_run(struct machine *m)
{
	struct vcpu *c = &m->vcpu;
	struct bt *bt = c->bt;

	bt_signals_install(bt);
	bt->st.tsc_start = __builtin_ia32_rdtsc();
	while (run_requests(m)) {
		run_events(m);
		if (c->halted) {
			uint64_t t0 = __builtin_ia32_rdtsc();
			vcpu_wait(m);
			bt->st.tsc_sleep += __builtin_ia32_rdtsc() - t0;
			continue;
		}
		if (c->exc.pending || run_is_over(c))
			continue;
		if (c->shadow || !translate_possible(c) || !in_range(bt))
			interp_burst(bt);
		else
			execute(bt);
	}
}

/* ------------------------------------------------------------------ life */

static void log_line(const char *text)
{
	log_printf(log_on(LOG_OUT_ASM) ? LOG_OUT_ASM : LOG_IN_ASM, "%s\n", text);
}

static struct vcpu *model_cpu;

static bool model_offers(const struct insn *i)
{
	return cpu_offers(model_cpu, i);
}

struct bt *bt_create(struct machine *m, char *err, size_t errlen)
{
	struct bt *bt = calloc(1, sizeof *bt);

	if (bt)
		bt->code_pages = calloc(mem_ram_bytes(m->mem) >> PAGE_SHIFT, sizeof *bt->code_pages);
	if (!bt || !bt->code_pages) {
		snprintf(err, errlen, "out of memory");
		free(bt);
		return NULL;
	}
	bt->m = m;
	bt->c = &m->vcpu;
	bt->c->hot.view = mem_view(m->mem);
	bt->mem_stats = mem_get_stats(m->mem);
	for (unsigned s = 0; s < 6; s++)
		take_segment(bt, s);
	bt->sole_super = true;
	translate_init();
	site_forget_all(); /* of a machine before this one in the process */
	translate_log_line = log_line;
	model_cpu = bt->c;
	if (m->cfg.cpu_model && strcmp(m->cfg.cpu_model, "max"))
		translate_host.offers = model_offers;
	translate_host.count = m->cfg.count_insns;
	if (m->cfg.count_insns)
		bt->hot_eips = calloc(HOT_EIPS, sizeof *bt->hot_eips);
	translate_host.verify = m->cfg.verify_every || m->cfg.verify_first;
	have_fsgsbase = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	if (cache_init(&bt->k, ARENA_BYTES, err, errlen) < 0 || mem_enable_windows(m->mem, err, errlen) < 0) {
		free(bt->code_pages);
		free(bt);
		return NULL;
	}
	struct cpu_hot *h = &m->vcpu.hot;
	h->probe_tlb = (struct probe_tlb){0};
	mem_set_probe_tlb(m->mem, &h->probe_tlb);
	h->ret_sp = cache_stack_middle(&bt->k);
	h->go_callout = (uint64_t)(uintptr_t)bt_go_callout;
	h->go_callout_light = (uint64_t)(uintptr_t)bt_go_callout_light;
	h->go_callout_device = (uint64_t)(uintptr_t)bt_go_callout_device;
	h->go_callout_end = (uint64_t)(uintptr_t)bt_go_callout_end;
	h->go_seg_load = (uint64_t)(uintptr_t)bt_go_seg_load;
	h->go_sysenter = (uint64_t)(uintptr_t)(have_fsgsbase ? bt_go_sysenter : bt_go_sysenter_slow);
	h->go_sysexit = (uint64_t)(uintptr_t)(have_fsgsbase ? bt_go_sysexit : bt_go_sysexit_slow);
	h->go_exit = (uint64_t)(uintptr_t)bt_go_exit;
	h->on_exit = (uint64_t)(uintptr_t)bt_on_exit;
	h->go_miss = (uint64_t)(uintptr_t)bt_go_miss;
	bt_callouts_init(bt);
	if (translate_host.verify) {
		bt->verify = verify_create(bt);
		if (!bt->verify) {
			snprintf(err, errlen, "out of memory");
			return NULL;
		}
	}
	if (m->cfg.perf_map) {
		char path[40];
		snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
		bt->perf_map = fopen(path, "we");
		if (!bt->perf_map)
			fprintf(stderr, "bt86: cannot write %s; going on without it\n", path);
	}
	return bt;
}

void bt_destroy(struct bt *bt)
{
	if (!bt)
		return;
	if (bt->perf_map)
		fclose(bt->perf_map);
	verify_destroy(bt->verify);
	cache_destroy(&bt->k);
	free(bt->hot_eips);
	free(bt->code_pages);
	free(bt);
}
