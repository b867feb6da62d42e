/* bt_fault.c - a fault in translated code: what it means, and what to learn from it.
 *
 * The signal handler has stored the registers as they were. They are the guest's at the start of the faulting
 * instruction, but for esp (the side table's esp_delta, in runs of pushes and pops) and the progress of a rep
 * string instruction, which is architectural progress.
 */
#include "vmm/bt.h"

#define TRAP_DE 0
#define TRAP_PF 14

/* The largest memory operand of an instruction that is translated. */
#define INSN_MAX_OPERAND 16u

struct spot {
	struct block *b;
	unsigned i;
	uint32_t eip;
	uint64_t gpa; /* of the instruction */
	const struct side_entry *side;
};

/* Learns flags about the instruction and drops every block that contains it, so that they are translated
 * anew. */
static void adapt(struct bt *bt, const struct spot *s, unsigned flags)
{
	if (log_on(LOG_TRACE))
		log_printf(LOG_TRACE, "the instruction at %08x is translated anew as%s%s%s\n", s->eip,
			   flags & SITE_USER ? " user" : "", flags & SITE_MIXED ? " mixed" : "",
			   flags & SITE_CALLOUT			 ? " callout"
			   : flags & (SITE_PROBE | SITE_PROBE_W) ? " probing"
								 : "");
	site_add(s->gpa, s->b->mode & MODE_USER, flags);
	cache_invalidate(&bt->k, s->gpa, 1, NULL);
	bt->gen++;
	bt->st.adaptations++;
	if (bt->verify)
		verify_note(bt->verify, VERIFY_ADAPTED, s->eip, s->gpa, flags);
}

static void emulate(struct bt *bt)
{
	uint64_t t0 = __builtin_ia32_rdtsc();

	bt_interp_one(bt);
	bt->st.tsc_interp += __builtin_ia32_rdtsc() - t0;
}

/* Makes registers and EIP those before the instruction. */
static void precise(struct bt *bt, const struct spot *s, bool guest)
{
	bt->c->gpr[ESP] += (uint32_t)(int32_t)s->side->esp_delta;
	bt->c->eip = s->eip;
	if (bt->verify)
		verify_fault(bt->verify, s->b, s->i, guest);
}

static bool is_rep(const struct spot *s)
{
	return s->side->flags & SIDE_REP;
}

/* The address lies in the space that belongs to one of the current windows and maps nothing: up to 8 GiB
 * above its base (segments that must trap: hot.seg_poison) and a little below (bit strings, string
 * instructions going down). */
static bool beside_window(const struct vcpu *c)
{
	const uint64_t below = 1ull << 30, span = 9ull << 30, at = c->hot.fault_addr + below;

	return at - c->hot.super_base < span || at - c->hot.user_base < span;
}

/* A true page fault that the interpreter must tell: of some instructions' accesses another comes first. */
static bool retold(const struct spot *s)
{
	return s->side->flags & SIDE_RETELL;
}

/* The user window had no page for the instruction. */
static void missed(struct bt *bt, const struct spot *s, bool write)
{
	const bool user = s->b->mode & MODE_USER;
	const unsigned flag = write ? SITE_PROBE_W : SITE_PROBE, known = site_get(s->gpa, user);

	if (!(known & (flag | SITE_CALLOUT)) && site_missed(s->gpa, user))
		adapt(bt, s, flag);
}

/* Something that maps a page and faults on it again is ours to sort out, not the guest's. But the guest may
 * have taken the page away meanwhile, or be another process where the same happens: then it has flushed or
 * entered a handler; or its page is one that code comes and goes in. */
#define STUCK 8u

static bool stuck(struct bt *bt, uint32_t eip, uint32_t lin)
{
	struct mapped_fault *f = &bt->mapped;
	const uint64_t events =
		bt->mem_stats->flushes + bt->k.stats.blocks_made + bt->c->n_intr + bt->c->n_interp;

	if (f->eip != eip || f->lin != lin || f->events != events) {
		*f = (struct mapped_fault){.eip = eip, .lin = lin, .events = events};
		return false;
	}
	return ++f->again > STUCK;
}

/* What a page fault in a window was. True: the window has the page now, run the instruction again. */
static bool page_fault(struct bt *bt, const struct spot *s)
{
	struct vcpu *c = bt->c;
	bool write = c->hot.fault_err & PF_W;
	uint64_t lin;
	struct window *w = mem_window_find(c->mem, c->hot.fault_addr, &lin);
	bool user = s->b->mode & MODE_USER;

	if (!w && !beside_window(c)) {
		fprintf(stderr,
			"bt86: internal error: fault at host address %#lx in the block at guest %#x\n",
			(unsigned long)c->hot.fault_addr, s->eip);
		machine_poweroff(bt->m, EXIT_INTERNAL);
		return false;
	}
	/* What begins near the top may wrap around and fail for that: no page is looked at before that is
	 * known. */
	enum mem_fault f = w && lin <= (1ull << 32) - INSN_MAX_OPERAND ? mem_window_fault(c, w, lin, write)
								       : MEM_FAULT_EMULATE;
	if (log_on(LOG_MMU))
		log_printf(LOG_MMU, "fault eip %08x lin %08lx %s -> %d\n", s->eip, (unsigned long)lin,
			   write ? "w" : "r", f);
	if ((f == MEM_FAULT_MAPPED || f == MEM_FAULT_GUEST) && w == mem_window_user(c->mem))
		missed(bt, s, write);
	if (f == MEM_FAULT_MAPPED) {
		bt->st.faults_hidden++;
		if (!stuck(bt, s->eip, (uint32_t)lin))
			return true;
		f = MEM_FAULT_EMULATE;
	}
	precise(bt, s, f == MEM_FAULT_GUEST && !retold(s));
	switch (f) {
	case MEM_FAULT_GUEST:
		bt->st.faults_true++;
		if (retold(s)) {
			c->exc.pending = false;
			emulate(bt);
		}
		break;
	case MEM_FAULT_TRACED:
		bt->st.faults_traced++;
		if (site_trapped(s->gpa, user))
			adapt(bt, s, SITE_CALLOUT);
		bt->trapping = true;
		emulate(bt);
		bt->trapping = false;
		break;
	case MEM_FAULT_MMIO:
		bt->st.faults_mmio++;
		adapt(bt, s, SITE_CALLOUT);
		emulate(bt);
		break;
	case MEM_FAULT_USER:
	case MEM_FAULT_SUPER: {
		unsigned known = site_get(s->gpa, user);
		bt->st.faults_user++;
		if (!(known & SITE_USER) && f == MEM_FAULT_USER && !is_rep(s))
			adapt(bt, s, SITE_USER);
		else if (!(known & SITE_MIXED))
			adapt(bt, s, SITE_USER | SITE_MIXED);
		/* A mixed site whose slot holds both kinds. */
		emulate(bt);
		break;
	}
	default:
		bt->st.faults_edge++;
		if (site_trapped(s->gpa, user))
			adapt(bt, s, is_rep(s) ? SITE_CALLOUT : SITE_CALLOUT | SITE_KEEP);
		emulate(bt);
	}
	return false;
}

/* True: go on at hot.resume, the window has the page now. False: c->eip is right and the loop decides. */
bool bt_fault(struct bt *bt)
{
	struct vcpu *c = bt->c;
	struct spot s = {.b = cache_find_pc(&bt->k, c->hot.fault_pc)};
	uint64_t t0 = __builtin_ia32_rdtsc();
	bool again = false;

	if (!s.b) {
		fprintf(stderr,
			"bt86: internal error: fault %lu outside any block (host pc %#lx, address %#lx)\n",
			(unsigned long)c->hot.fault_trap, (unsigned long)c->hot.fault_pc,
			(unsigned long)c->hot.fault_addr);
		machine_poweroff(bt->m, EXIT_INTERNAL);
		return false;
	}
	s.i = cache_find_insn(&bt->k, s.b, c->hot.fault_pc);
	s.side = &s.b->side[s.i];
	s.eip = s.b->eip + s.side->guest;
	s.gpa = s.b->gpa + s.side->guest;
	if (c->hot.fault_trap == FAULT_KICK) {
		precise(bt, &s, false);
		c->rep_mid = true;
		c->shadow = !!(s.side->flags & SIDE_SHADOW);
	} else if (c->hot.fault_trap == TRAP_PF) {
		again = page_fault(bt, &s);
		if (again && s.side->flags & SIDE_SHADOW) {
			/* The run loop would look for interrupts first. */
			precise(bt, &s, false);
			c->shadow = 1;
			again = false;
		} else if (again && !s.b->valid) { /* it was dropped to be adapted */
			precise(bt, &s, false);
			again = false;
		} else if (again) {
			c->eip = s.eip;
			c->gpr[ESP] += (uint32_t)(int32_t)s.side->esp_delta;
			c->hot.resume = (uint64_t)(uintptr_t)(bt->k.rx + s.b->host + s.side->host);
			c->hot.resume_esp = (uint32_t)-s.side->esp_delta;
		}
	} else {
		/* #DE, #MF, #XM: the interpreter knows how. Who divides by zero on purpose does so often. */
		bt->st.faults_arith++;
		precise(bt, &s, false);
		if (c->hot.fault_trap == TRAP_DE && site_trapped(s.gpa, s.b->mode & MODE_USER))
			adapt(bt, &s, SITE_CALLOUT);
		emulate(bt);
	}
	bt->st.tsc_fault += __builtin_ia32_rdtsc() - t0;
	return again;
}
