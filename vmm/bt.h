/* bt.h - the binary translator as an accelerator: dispatcher, callouts, faults, signals. Private to vmm/.
 *
 * bt_run is the vCPU thread's loop under -accel bt. One turn: honour requests, deliver what is pending, then
 * either interpret (what the translator does not take) or find the block for EIP and run translated code
 * until it comes out again for one of the reasons of translator/exit_reason.h.
 *
 *   bt.c           the loop, block lookup, chaining, spaces
 *   bt_fault.c     a fault in translated code: what it means and what to learn from it
 *   bt_signal.c    signal handlers, kicks
 *   bt_callout.c   C functions that translated code calls
 *   bt_sample.c    what the timer's interrupts tell about code that runs for long
 *   bt_fast.c      what of them is common enough to go another way than through the interpreter
 */
#ifndef BT86_VMM_BT_H
#define BT86_VMM_BT_H

#include "cache/cache.h"
#include "translator/translator.h"
#include "vmm/machine_private.h"

#define ARENA_BYTES (48u << 20)

#define FAULT_KICK  256u /* hot.fault_trap: not a fault, a kick that found the PC on a rep instruction */

struct bt_stats {
	uint64_t enters, exits_direct, exits_miss, exits_kick, exits_fault, exits_callout;
	uint64_t callouts[CO_COUNT], callout_class[64]; /* the latter by enum insn_class */
	uint64_t faults_hidden, faults_true, faults_traced, faults_mmio, faults_user, faults_edge,
		faults_arith;
	uint64_t adaptations, turned_back, probes_turned_back, laid_anew;
	uint64_t interp_insns, interp_bursts;
	uint64_t tsc_translate, tsc_flush, tsc_fault, tsc_interp, tsc_sleep, tsc_start;
	uint64_t code_writes, blocks_hit;
};

/* Which instructions call out most: counted only for --stats. An entry's eip 0 is free; a full table counts
 * no more. */
#define HOT_EIPS 8192u
struct hot_eip {
	uint32_t eip;
	uint64_t n;
};

/* A page of RAM that holds or held code. */
struct code_page {
	uint8_t traced;	 /* how often its trace was set */
	uint8_t idle;	 /* stores since it had a block */
	uint8_t laid;	 /* how often its blocks were laid anew because they lay apart, less with time */
	uint8_t laid_at; /* when that was the last time: bt.samples / LAID_FORGOTTEN */
};

/* Where the last samples found the PC. */
#define HOT_PLACES 8u
struct hot_place {
	uint64_t gfn;  /* the guest's page of code */
	uint32_t host; /* the arena's page, by number */
	uint32_t mode;
	bool used;
};

/* What samples tell about the code that runs, since they found other code or it was laid anew. */
struct hot_code {
	struct hot_place place[HOT_PLACES];
	uint32_t n;		  /* how many in a row found a page that others had found */
	uint32_t loop, loop_mode; /* a loop in it; 0: none is known */
	uint64_t loop_gpa;
};

struct bt {
	struct machine *m;
	struct vcpu *c;
	struct cache k;
	struct seg seen[6]; /* DS, ES, SS: what hot.seg_base, hot.seg_poison and not_flat stand for */
	uint32_t not_flat;  /* MODE_NF_* */
	bool sole_super;    /* chains across pages are allowed in supervisor code */
	uint64_t gen;	    /* counts up whenever blocks or mappings of code went away */
	struct mapped_fault {
		uint32_t eip, lin;
		uint64_t events; /* what happened before it, counted */
		unsigned again;	 /* how often it came in a row */
	} mapped;	       /* the last fault that a mapping was the answer to */
	struct verify *verify; /* NULL unless asked for */
	bool trapping;	       /* a store that trapped is being emulated */
	struct block *sampled; /* the block that a kick found the PC in, to be looked at */
	uint32_t sampled_host; /* in which page of the arena */
	uint32_t samples;      /* how many blocks were looked at */
	struct hot_code hot;
	struct code_page *code_pages; /* by number of the page */
	struct loops loops;
	FILE *perf_map; /* /tmp/perf-PID.map, or NULL */
	const struct mem_stats *mem_stats;
	struct bt_stats st;
	struct hot_eip *hot_eips; /* [HOT_EIPS], NULL without --stats */
};

struct bt *bt_create(struct machine *m, char *err, size_t errlen);
void bt_destroy(struct bt *bt);
/* Runs until REQ_SHUTDOWN. */
void bt_run(struct machine *m);

/* ---- inside */
/* After anything that may have changed windows, CPL, mode or segments. */
void bt_sync_space(struct bt *bt);
/* The same where CPL has changed, between 0 and 3, and SS is flat before and after. */
void bt_sync_cpl(struct bt *bt);
/* NULL: an exception is pending, or not translatable. loop: a branch leads back to there */
struct block *bt_find_block(struct bt *bt, uint32_t eip, bool loop);
/* Makes the block of a loop that begins at eip, which gpa is mapped to, in the current space; if there is
 * none yet, and room for it: nothing is flushed. */
void bt_make_loop(struct bt *bt, uint64_t gpa, uint32_t eip);
bool bt_leads_back(const struct exit_link *e); /* to the beginning of a loop */
void bt_look_at_sample(struct bt *bt);	       /* at bt->sampled */
/* For hot.seg_poison: 0 for what checks nothing but its type. */
static inline uint64_t bt_seg_poison(const struct seg *s)
{
	const unsigned attr = SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_DC;

	return s->limit == 0xffffffffu && (s->attr & attr) == (SEG_P | SEG_S | SEG_RW) ? 0 : 1ull << 32;
}
bool bt_fault(struct bt *bt);
void bt_fpu_pointers(struct bt *bt); /* after the guest's FPU state has been stored */
/* bt_fast.c. arg: the callout's. EIP is that of the instruction, and afterwards where the guest goes on.
 * False: not a common case, nothing has changed. */
bool bt_fast_seg_load(struct vcpu *c, uint32_t arg); /* of hot.selector */
bool bt_fast_int(struct vcpu *c, uint32_t arg);
bool bt_fast_iret(struct vcpu *c, uint32_t arg);
bool bt_fast_sysenter(struct vcpu *c, uint32_t arg);
bool bt_fast_sysexit(struct vcpu *c, uint32_t arg);
void bt_callouts_init(struct bt *bt);
void bt_signals_install(struct bt *bt);
void bt_code_written(struct bt *bt, uint64_t gpa, unsigned len);
void bt_code_unmapped(struct bt *bt, struct window *w, uint32_t lin, uint32_t pages);
void bt_window_gone(struct bt *bt, struct window *w);
void bt_stat_callout(struct bt *bt, uint32_t eip);
unsigned bt_stat_rows(struct bt *bt, struct stat_row *rows, unsigned max);
/* One interpreted instruction with its bookkeeping; resets the machine on a triple fault. */
void bt_interp_one(struct bt *bt);

/* ---- bt_verify.c: lockstep of the translator with the interpreter. A difference is reported and ends the
 * run. */
struct verify;
struct verify_stats {
	uint64_t entries;	/* blocks executed */
	uint64_t blocks, insns; /* compared: blocks to their ends, instructions altogether */
	uint64_t callouts;	/* instructions of callouts compared */
	uint64_t callouts_only; /* ... that only the interpreter can do: devices, control registers, traced
				   stores */
	uint64_t faults;	/* states compared at faults */
	uint64_t passed;	/* blocks whose end was not compared */
	uint64_t stale;		/* ... because a mapping that awaits a flush served one side only */
};
/* What happens to blocks; eip, gpa and arg as far as given. */
enum verify_event {
	VERIFY_TRANSLATED, /* arg: mode */
	VERIFY_ADAPTED,	   /* the instruction at eip; arg: SITE_* */
	VERIFY_WRITTEN,	   /* arg: bytes */
	VERIFY_UNMAPPED,   /* arg: pages */
	VERIFY_CHAINED,	   /* arg: to */
	VERIFY_FLUSH,
};
struct verify *verify_create(struct bt *bt); /* after bt_callouts_init */
void verify_destroy(struct verify *v);
/* At a fault in instruction i of b, the state being precise; guest: an exception is in c->exc. */
void verify_fault(struct verify *v, const struct block *b, unsigned i, bool guest);
/* Translated code will not go on after a fault that was none of the guest's; EIP is that of the instruction.
 */
void verify_stopped(struct verify *v);
/* Translated code was left between blocks. */
void verify_left(struct verify *v);
void verify_note(struct verify *v, enum verify_event what, uint32_t eip, uint64_t gpa, uint32_t arg);
const struct verify_stats *verify_get_stats(const struct verify *v);

/* ---- run.c */
void run_triple_fault(struct machine *m);
/* Requests other than interrupts: reset, stop, NMI. False: leave the run loop. */
bool run_requests(struct machine *m);
/* Delivers a pending exception or an acceptable interrupt. */
void run_events(struct machine *m);
/* Nothing more may execute before run_requests has been asked: the delivery ended in a shutdown, say. */
static inline bool run_is_over(const struct vcpu *c)
{
	return atomic_load_explicit(&c->request, memory_order_relaxed) & (REQ_SHUTDOWN | REQ_RESET);
}
/* Installs the seccomp filter. extra: ioctls that are allowed on one descriptor more, or NULL. 0, or -1 with
 * err. */
struct sandbox_extra {
	int fd;
	const unsigned long *requests;
	unsigned n;
};
int sandbox_enter(const struct sandbox_extra *extra, char *err, size_t errlen);

#endif
