/* bt_callout.c - C functions that translated code calls.
 *
 * The thunk (translator/entry.S) has stored the guest's registers, flags and EIP (of the instruction) in the
 * vcpu. The callout leaves c->eip where the guest goes on and returns BT_GO_ON only when that is the next
 * instruction and nothing that translated code relies on has changed.
 */
#include "vmm/bt.h"

/* Translated code may go on in the current CPU state, at c->eip: nothing wants the run loop. */
static bool may_go(const struct vcpu *c)
{
	const uint32_t rq = atomic_load_explicit(&c->request, memory_order_relaxed);

	return !(rq & ~REQ_IRQ) && !(rq & REQ_IRQ && c->iflag);
}

/* Having executed something: how does translated code go on? next: the instruction after it. */
static int go(struct bt *bt, uint32_t next, uint64_t gen)
{
	struct vcpu *c = bt->c;

	if (c->halted || c->shadow || c->exc.pending || gen != bt->gen || !may_go(c) ||
	    !translate_possible(c) || c->hot.view->many_super == bt->sole_super)
		return BT_GO_OUT;
	const struct space *was = c->hot.cur;
	uint64_t super = c->hot.super_base, user = c->hot.user_base;
	bt_sync_space(bt);
	if (c->eip == next && was == c->hot.cur && super == c->hot.super_base && user == c->hot.user_base)
		return BT_GO_ON;
	return BT_GO_JUMP;
}

/* Accesses so far that translated code cannot make. */
static uint64_t watched_accesses(const struct bt *bt)
{
	return bt->mem_stats->traced_stores + bt->mem_stats->mmio_accesses;
}

/* A site that need not be a callout any more is turned back. */
static void site_done(struct bt *bt, uint32_t index, bool needed)
{
	uint64_t gpa;

	if (!site_callout_done(index, needed, &gpa))
		return;
	cache_invalidate(&bt->k, gpa, 1, NULL);
	bt->gen++;
	bt->st.turned_back++;
}

/* The same where mode and privilege cannot have changed if no handler was entered since intrs counted so
 * many, and where windows that change do so by going away. */
static int go_access(struct bt *bt, uint32_t next, uint64_t gen, uint64_t intrs)
{
	const struct vcpu *c = bt->c;

	return c->eip == next && gen == bt->gen && c->n_intr == intrs && !c->exc.pending && !c->halted &&
			       !atomic_load_explicit(&c->request, memory_order_relaxed)
		       ? BT_GO_ON
		       : go(bt, next, gen);
}

static inline __attribute__((always_inline)) int interp_one(struct vcpu *c, uint32_t arg, bool access)
{
	struct bt *bt = c->bt;
	uint32_t next = c->eip + (arg & 0xff);
	const uint64_t gen = bt->gen, intrs = c->n_intr, before = c->n_interp;
	const uint64_t watched = arg & CO_ARG_SITE ? watched_accesses(bt) : 0;

	bt->st.callout_class[arg >> 8 & 63]++;
	if (bt->hot_eips)
		bt_stat_callout(bt, c->eip);
	int r = interp_step(c);
	bt->st.interp_insns += c->n_interp - before;
	if (r < 0) {
		run_triple_fault(bt->m);
		return BT_GO_OUT;
	}
	if (arg & CO_ARG_SITE)
		site_done(bt, arg >> 16 & SITE_INDEX_MAX,
			  watched_accesses(bt) != watched || (arg & CO_ARG_EXCEPTION && c->eip != next));
	return access ? go_access(bt, next, gen, intrs) : go(bt, next, gen);
}

static int co_interp(struct vcpu *c, uint32_t arg)
{
	c->bt->st.callouts[CO_INTERP]++;
	bt_fpu_pointers(c->bt);
	return interp_one(c, arg, false);
}

/* What of the guest's FPU state libc may touch has been put aside. */
static int co_device(struct vcpu *c, uint32_t arg)
{
	c->bt->st.callouts[CO_DEVICE]++;
	return interp_one(c, arg, true);
}

/* The guest's FPU state stays live meanwhile. */
static int co_light(struct vcpu *c, uint32_t arg)
{
	c->bt->st.callouts[CO_LIGHT]++;
	cpu_fpu_live = true;
	int r = interp_one(c, arg, false);
	cpu_fpu_live = false;
	return r;
}

/* FXSAVE and FXRSTOR: the state is in the unit, so that each takes only one of the two transfers of
 * co_interp. */
static int co_fxsave(struct vcpu *c, uint32_t arg)
{
	c->bt->st.callouts[CO_FXSAVE]++;
	__asm__ volatile("fxsave %0" : "=m"(c->fpu));
	bt_fpu_pointers(c->bt);
	cpu_fpu_live = true;
	const int r = interp_one(c, arg, false);
	cpu_fpu_live = false;
	return r;
}

/* Of a state that is loaded byte 5 is 0: that tells whether one was loaded or an exception came instead. */
static int co_fxrstor(struct vcpu *c, uint32_t arg)
{
	uint8_t *unused = &c->fpu.fxsave[5];

	c->bt->st.callouts[CO_FXRSTOR]++;
	if (!(c->cr4 & CR4_OSFXSR)) /* a part of the state stays */
		__asm__ volatile("fxsave %0" : "=m"(c->fpu));
	*unused = 1;
	cpu_fpu_live = true;
	const int r = interp_one(c, arg, false);
	cpu_fpu_live = false;
	if (!*unused)
		__asm__ volatile("fxrstor %0" : : "m"(c->fpu));
	return r;
}

/* MOV to CR. After a load of CR3 the interpreter would have to find the instruction first. */
static int co_mov_to_cr(struct vcpu *c, uint32_t arg)
{
	struct bt *bt = c->bt;
	const uint32_t next = c->eip + (arg & 0xff);
	const uint64_t gen = bt->gen;
	const unsigned cr = arg >> CO_ARG_CR_SHIFT & 15;

	if (c->cpl || cr == 1 || cr > 4)
		return co_light(c, arg);
	cpu_fpu_live = true;
	const int r = cr_write(c, cr, c->gpr[arg >> CO_ARG_GPR_SHIFT & 7]);
	cpu_fpu_live = false;
	bt->st.callouts[CO_MOV_TO_CR]++;
	if (r < 0) /* not a second time: a PDPTE may be a device's */
		return BT_GO_OUT;
	c->eip = next;
	cpu_fpu_live = true;
	const int way = go(bt, next, gen);
	cpu_fpu_live = false;
	return way;
}

/* Those that are done here unless the case is an uncommon one. arg: as for co_light. */
static int co_seg_load(struct vcpu *c, uint32_t arg)
{
	cpu_fpu_live = true;
	const bool done = bt_fast_seg_load(c, arg);
	cpu_fpu_live = false;
	if (!done)
		return co_light(c, arg);
	c->bt->st.callouts[CO_SEG_LOAD]++;
	return !c->shadow && may_go(c) ? BT_GO_ON : BT_GO_OUT;
}

static inline int co_transfer(struct vcpu *c, uint32_t arg, enum callout co,
			      bool (*fast)(struct vcpu *, uint32_t))
{
	cpu_fpu_live = true;
	const bool done = fast(c, arg);
	cpu_fpu_live = false;
	if (!done)
		return co_light(c, arg);
	c->bt->st.callouts[co]++;
	return may_go(c) ? BT_GO_JUMP : BT_GO_OUT;
}

static int co_int(struct vcpu *c, uint32_t arg)
{
	return co_transfer(c, arg, CO_INT, bt_fast_int);
}

static int co_iret(struct vcpu *c, uint32_t arg)
{
	return co_transfer(c, arg, CO_IRET, bt_fast_iret);
}

static int co_sysenter(struct vcpu *c, uint32_t arg)
{
	return co_transfer(c, arg, CO_SYSENTER, bt_fast_sysenter);
}

static int co_sysexit(struct vcpu *c, uint32_t arg)
{
	return co_transfer(c, arg, CO_SYSEXIT, bt_fast_sysexit);
}

static int co_access(struct vcpu *c, uint32_t arg)
{
	c->bt->st.callouts[CO_ACCESS]++;
	cpu_fpu_live = true;
	int r = interp_one(c, arg, true);
	cpu_fpu_live = false;
	return r;
}

/* A probe found that the user window lacks a page: the access is made here. */
static int probe(struct vcpu *c, uint32_t arg)
{
	struct bt *bt = c->bt;
	const uint32_t next = c->eip + (arg & 0xff), lin = c->hot.probe_lin;
	const uint64_t gen = bt->gen, intrs = c->n_intr;

	bt->st.callout_class[arg >> 8 & 63]++;
	if (bt->hot_eips)
		bt_stat_callout(bt, c->eip);
	if (mem_window_untouched(c->mem, lin))
		site_probe_hit(arg >> 16 & SITE_INDEX_MAX);
	bt->st.interp_insns++;
	if (interp_step(c) < 0) {
		run_triple_fault(bt->m);
		return BT_GO_OUT;
	}
	mem_window_missed(c, lin, arg & CO_ARG_WRITE);
	return arg & CO_ARG_ACCESS ? go_access(bt, next, gen, intrs) : go(bt, next, gen);
}

static int co_probe(struct vcpu *c, uint32_t arg)
{
	c->bt->st.callouts[CO_PROBE]++;
	cpu_fpu_live = true;
	int r = probe(c, arg);
	cpu_fpu_live = false;
	return r;
}

static int co_probe_fpu(struct vcpu *c, uint32_t arg)
{
	c->bt->st.callouts[CO_PROBE_FPU]++;
	bt_fpu_pointers(c->bt);
	return probe(c, arg);
}

/* sti with a request pending: one more instruction, then the run loop looks. */
static int co_sti(struct vcpu *c, uint32_t len)
{
	struct bt *bt = c->bt;

	bt->st.callouts[CO_STI]++;
	c->eip += len;
	c->shadow = 1;
	return BT_GO_OUT;
}

void bt_callouts_init(struct bt *bt)
{
	uint64_t *t = bt->c->hot.callouts;

	for (unsigned i = 0; i < CPU_CALLOUTS; i++)
		t[i] = (uint64_t)(uintptr_t)co_interp;
	t[CO_DEVICE] = (uint64_t)(uintptr_t)co_device;
	t[CO_ACCESS] = (uint64_t)(uintptr_t)co_access;
	t[CO_LIGHT] = (uint64_t)(uintptr_t)co_light;
	t[CO_PROBE] = (uint64_t)(uintptr_t)co_probe;
	t[CO_PROBE_FPU] = (uint64_t)(uintptr_t)co_probe_fpu;
	t[CO_SEG_LOAD] = (uint64_t)(uintptr_t)co_seg_load;
	t[CO_INT] = (uint64_t)(uintptr_t)co_int;
	t[CO_IRET] = (uint64_t)(uintptr_t)co_iret;
	t[CO_MOV_TO_CR] = (uint64_t)(uintptr_t)co_mov_to_cr;
	t[CO_FXSAVE] = (uint64_t)(uintptr_t)co_fxsave;
	t[CO_FXRSTOR] = (uint64_t)(uintptr_t)co_fxrstor;
	t[CO_SYSENTER] = (uint64_t)(uintptr_t)co_sysenter;
	t[CO_SYSEXIT] = (uint64_t)(uintptr_t)co_sysexit;
	t[CO_STI] = (uint64_t)(uintptr_t)co_sti;
}
