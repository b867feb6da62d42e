/* cache.h - the translation cache: code arena, block map, chaining, indirect-branch tables, return
 * prediction.
 *
 * The arena is shared memory mapped twice, writable for the emitter and executable for the CPU, never both.
 * Hot code grows up from its start, cold code down from below the exits' stubs, which are at its end; when
 * they meet, everything is flushed.
 *
 * A *block* is a translation of a run of guest instructions, keyed by (guest-physical address, linear EIP,
 * mode). An *exit* is a patchable branch out of a block: it leads to its cold stub, or, chained, straight to
 * the body of the target block. An *entry* is a block that has no code of its own: it begins in the middle of
 * another and goes when that goes. A *space* is what translated code needs to run in one (window, mode): an
 * indirect-branch table (r14). A *return point* is where a call's return arrives.
 *
 * Ownership: one struct cache, used by the vCPU thread only; cache_unlink_at and cache_find_pc may also be
 * called in a signal handler of that thread that interrupted translated code (never one that interrupted this
 * module).
 */
#ifndef BT86_CACHE_H
#define BT86_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/cpu.h"
#include "mem/mem.h"

#define CACHE_MISS_STUB	 0u	/* arena offset of a jump to the miss handler */
#define CACHE_PAGE_LISTS 16384u /* pages whose numbers are equal modulo this share a list */
#define CACHE_MIN_BYTES                                                                                      \
	5u /* of a block's hot code and behind return points: dropped, a jump to the miss stub */
#define CACHE_SLOT_LOG	4096u
#define CACHE_MAX_EXITS 8
#define CACHE_MAX_CALLS 4
#define CACHE_MAX_INSNS 64

enum exit_kind {
	EXIT_JMP, /* jmp rel32, or the rel32 of a jcc */
	EXIT_CALL /* call rel32 */
};

struct block;

struct exit_link {
	struct block *from;
	struct block *to;	/* NULL: leads to its stub, cache_stub() */
	struct exit_link *next, **link; /* in to->incoming, and what leads here */
	uint32_t patch;		/* arena offset of the rel32 */
	uint32_t target;	/* linear EIP */
	uint8_t kind;
	bool cross;    /* target stands on another page: may be chained only in the sole supervisor window */
	bool by_table; /* the stub goes through the table */
};

/* One row a guest instruction: where its host code begins. */
struct side_entry {
	uint16_t host;	  /* offset from the block's host start */
	uint8_t guest;	  /* offset from the block's EIP */
	int8_t esp_delta; /* guest esp = r12 + esp_delta at a fault in this instruction */
	uint8_t flags;	  /* SIDE_* */
	uint8_t rep;	  /* SIDE_REP: offset of the string instruction itself from host */
};
#define SIDE_RETELL 0x2 /* of a page fault only the interpreter knows which address it reports */
#define SIDE_PART   0x4 /* a part ends here: before a call, or behind a branch */
#define SIDE_SHADOW 0x8 /* behind STI or a load of SS: no interrupt is taken before it */
#define SIDE_REP    0x1 /* a rep string instruction: rsi, rdi, rcx hold partial progress */

/* Behind a call: where the host's return predictor expects the callee to come back to, and so where table
 * slots of the return address lead. */
struct ret_point {
	struct block *b;
	uint32_t eip;
	uint32_t at; /* arena offset */
};

struct block {
	/* what look-ups compare stands in one line of the CPU's cache */
	uint64_t gpa;
	uint32_t eip;
	uint32_t mode;
	struct block *page_next[2]; /* lists of the one or two guest-physical pages */
	uint16_t len;		    /* guest bytes translated */
	uint16_t dep_len; /* bytes of the first page, from gpa on, that the translation depends on */
	uint16_t len2;	  /* bytes on a second page: the last instruction straddles (a "straddler") */
	uint8_t ninsn;
	uint8_t nexits;
	uint64_t gpa2;	   /* guest-physical address of the second page */
	uint32_t host;	   /* arena offset of the hot code: what table slots and chained exits lead to */
	uint32_t host_end; /* end of hot code */

	uint32_t cold, cold_end; /* cold code */
	bool valid;
	bool probes;	  /* some instruction has a SITE_PROBE */
	bool fpu;	  /* some instruction may use x87, MMX or SSE state */
	bool cross;	  /* cache_cut_cross may find something in incoming */
	uint8_t prologue; /* bytes of hot code at the beginning of each part, before its first instruction */
	uint8_t nrets;
	struct ret_point *rets;	 /* nrets of them, consecutive in cache.ret_points */
	struct exit_link *exits; /* nexits of them, consecutive in cache.exits */
	struct exit_link *incoming;
	struct side_entry *side;  /* ninsn rows */
	struct block *cross_next; /* in cache.cross, if cross */
	struct block *entries;	  /* the entries made in it */
	struct block *entry_next;
};

/* What is remembered of a page: which slots were set, and to what. Twelve lines of the CPU's cache, of which
 * few are touched where few slots were set. */
#define CACHE_RECALLED 123u
struct recalled {
	struct recalled *next; /* in cache.recall_heads */
	uint32_t page, frame;  /* linear and guest-physical, by number */
	uint32_t frame2;       /* that of the next page, for slots of straddlers; else NO_FRAME */
	uint32_t mode;
	uint16_t n;
	uint16_t uses;		       /* how many spaces got it since it was empty */
	uint16_t at[CACHE_RECALLED];   /* offsets in the page */
	uint32_t host[CACHE_RECALLED]; /* host addresses */
};

#define CACHE_STRETCH_BYTES (1u << 20) /* of a table: the slots of a quarter as many bytes of code */
#define CACHE_SEEN	    64u
struct space {
	uint32_t window_id;
	uint32_t mode;
	bool used;
	bool fleeting;
	uint32_t *table; /* for each EIP the host address of its block, or cache_miss(), or 0, which traps */
	uint32_t *log;	 /* the EIPs whose slots were set, for emptying the table; CACHE_SLOT_LOG of them */
	uint32_t logged; /* more than CACHE_SLOT_LOG: it did not hold all */
	uint32_t nstretches;
	uint64_t *stretches; /* a bit for each stretch of the table: mapped from the pattern */
	uint64_t last_used;
	/* By its number: of which page it has what is remembered, straddlers apart. One may push out another.
	 */
	uint16_t seen[2][CACHE_SEEN]; /* index in cache.recalled, plus 1 */
};

struct cache_stats {
	uint64_t blocks_made, blocks_dropped, chains, unchains, flushes, table_fills, spaces_made,
		spaces_reset, slots_recalled, stretches_mapped;
	uint64_t guest_insns, guest_bytes, ident_insns;
	uint64_t host_bytes, cold_bytes; /* without the prologues of parts */
	uint32_t blocks_now;
};

struct cache {
	uint8_t *rw, *rx; /* two views of the arena */
	uint32_t size, hot, cold;
	uint32_t stubs; /* arena offset of the exits' stubs, CACHE_STUB_BYTES each, by number */
	struct block *blocks;
	uint32_t nblocks, max_blocks;
	struct side_entry *sides;
	uint32_t nsides, max_sides;
	struct exit_link *exits;
	uint32_t nexits, max_exits;
	struct block *entries;
	uint32_t nentries, max_entries;
	struct line *lines; /* what is known about each 64 bytes of code, hashed by page (blocks.c) */
	uint32_t nlines, nitems;
	struct block **pages; /* hash of guest-physical page -> list; see page_slot() */
	struct block *
		*cross; /* hash of linear page -> blocks that may be reached from other pages by a chain */
	struct ret_point *ret_points;
	uint32_t nret_points, max_ret_points;
	struct space *spaces;
	uint32_t *slot_logs; /* CACHE_SLOT_LOG for each space */
	uint64_t *stretches; /* what the spaces' point into */
	uint32_t nstretches; /* of all spaces */
	int pattern;	     /* a file of CACHE_STRETCH_BYTES, each of whose words is cache_miss() */
	struct recalled *recalled;
	uint32_t nrecalled;
	struct recalled **recall_heads; /* hash of page and frames */
	uint32_t nspaces;
	uint64_t clock;
	uint32_t *empty_table; /* r14 after a kick: all slots lead to the miss handler */
	uint8_t *stack;	       /* the return stack, above a guard page and below one */
	struct cache_stats stats;
};

/* size in bytes. 0, or -1 with err. */
int cache_init(struct cache *k, uint32_t size, char *err, size_t errlen);
void cache_destroy(struct cache *k);
/* Drops every block, empties all tables. */
void cache_flush(struct cache *k);

/* ---- blocks */
/* Several straddlers may share a key and differ in their second page; one for which second(opaque, b) holds
 * is returned, unless there is a block with that key that is none: made while the second page was not there,
 * it is as good, and who comes twice shall find the same. second is called for straddlers only; NULL: it holds
 * for none. */
struct block *cache_lookup(struct cache *k, uint64_t gpa, uint32_t eip, uint32_t mode,
			   bool (*second)(void *opaque, const struct block *b), void *opaque);
/* The point behind a call that has been translated already, or NULL. */
struct ret_point *cache_ret_point(const struct cache *k, uint64_t gpa, uint32_t eip, uint32_t mode);
/* Room for a block of at most this many bytes of hot and cold code? If not the caller flushes. */
bool cache_has_room(const struct cache *k, uint32_t bytes);
/* For a key that cache_lookup does not find: an entry into a block that has the instruction in its middle;
 * NULL if there is none. */
struct block *cache_enter(struct cache *k, uint64_t gpa, uint32_t eip, uint32_t mode, bool calls_only);
/* A fresh block, not yet visible, its code aligned to a power of 2; the translator fills it and calls
 * cache_commit. */
struct block *cache_new(struct cache *k, unsigned align);
void cache_commit(struct cache *k, struct block *b);
/* The next blocks shall lie in one page of the host as long as they take no more than this many bytes of hot
 * code, at most a page. */
void cache_begin_page(struct cache *k, uint32_t bytes);
/* Drops blocks that depend on any of the guest-physical bytes [gpa, gpa + len) (within one page). Returns how
 * many. *left, if given, tells whether the page still has blocks. */
unsigned cache_invalidate(struct cache *k, uint64_t gpa, unsigned len, bool *left);
void cache_drop(struct cache *k, struct block *b);
/* The block whose hot or cold code contains the host address; NULL if none (or the address is not in the
 * arena). */
struct block *cache_find_pc(const struct cache *k, uint64_t pc);
/* The instruction of b that pc lies in: index into b->side. */
unsigned cache_find_insn(const struct cache *k, const struct block *b, uint64_t pc);
static inline bool cache_contains(const struct cache *k, uint64_t pc)
{
	return pc - (uint64_t)(uintptr_t)k->rx < k->size;
}

/* The host address of the jump to the miss handler. The arena lies below 4 GiB. */
static inline uint32_t cache_miss(const struct cache *k)
{
	return (uint32_t)(uintptr_t)k->rx + CACHE_MISS_STUB;
}

/* ---- chaining */
/* Where an exit leads while it is not chained: a call of the exit stub, which leads to hot.go_exit with the
 * address behind that call on the stack. */
#define CACHE_EXIT_STUB	 16u
#define CACHE_STUB_BYTES 5u
static inline uint32_t cache_stub(const struct cache *k, const struct exit_link *e)
{
	return k->stubs + (uint32_t)(e - k->exits) * CACHE_STUB_BYTES;
}
void cache_put_stub(struct cache *k, const struct exit_link *e);
/* The exit that came by its stub; behind: the low half of that address. */
static inline struct exit_link *cache_exit_behind(const struct cache *k, uint32_t behind)
{
	const uint32_t at = behind - (uint32_t)(uintptr_t)k->rx;

	return &k->exits[(at - k->stubs) / CACHE_STUB_BYTES - 1];
}
void cache_chain(struct cache *k, struct exit_link *e, struct block *to);
void cache_unchain(struct cache *k, struct exit_link *e);
/* Makes the exit go through the current space's table from now on, for targets that must not be chained to;
 * if there is room for the code that it takes.
 */
void cache_exit_by_table(struct cache *k, struct exit_link *e);
/* Writes the code that jumps or calls through the current table to the EIP in r8d, clobbering r9. Returns its
 * length. */
#define CACHE_TABLE_JUMP 7u
unsigned cache_table_jump(uint8_t *p, bool call);
/* The same for a return: what it finds becomes the host return address, on top of the stack. */
#define CACHE_TABLE_RET 9u
unsigned cache_table_ret(uint8_t *p);
/* If pc, in the arena, lies between such code's load and its end: makes it go to the miss handler by changing
 * *r9 or, at a host ret, *top. No other code that is emitted looks like it. */
void cache_table_jump_undo(const struct cache *k, uint64_t pc, uint64_t *r9, uint64_t *top);
/* Sends all exits of b to their stubs. */
void cache_unlink_exits(struct cache *k, struct block *b);
/* Cuts chains into blocks at linear pages [lin, lin + pages * 4096) of supervisor code that come from other
 * pages, and all chains into straddlers that end there. */
void cache_cut_cross(struct cache *k, uint32_t lin, uint32_t pages);

/* ---- spaces */
/* The space of (window, mode), made or recycled as needed. Never fails. fleeting: the window is an address
 * space's that comes and goes; what its tables hold is remembered for the next. */
struct space *cache_space(struct cache *k, uint32_t window_id, uint32_t mode, bool fleeting,
			  const struct space *keep);
/* Lets the slot of b's EIP lead to b: to its return point, if it is one. */
void cache_table_set(struct cache *k, struct space *s, const struct block *b);
/* The same for the return points of a new block, before anything returns there: to most of them something
 * soon will. A fleeting space waits for its misses, since what is set there is soon to be undone. */
void cache_table_set_rets(struct cache *k, struct space *s, const struct block *b);
/* At the first miss in a page of a fleeting space: sets the slots of this page that are remembered. gpa is
 * where eip is mapped to, for fetches at this privilege; when that changes, cache_space_forget will be
 * called. Returns where the slot of eip leads now; 0 if it is not among them, or this is not the first. */
uint32_t cache_table_recall(struct cache *k, struct space *s, uint64_t gpa, uint32_t eip);
/* Forgets what leads through the window to these linear pages. */
void cache_space_forget(struct cache *k, uint32_t window_id, uint32_t lin, uint32_t pages);
void cache_window_gone(struct cache *k, uint32_t window_id);
/* Where rsp begins: the middle of the return stack. Its contents mean nothing, so that it may be put back
 * there whenever it has run into one of the guard pages. */
uint64_t cache_stack_middle(const struct cache *k);
/* rsp is that of translated code. */
bool cache_stack_contains(const struct cache *k, uint64_t rsp);
/* addr lies in a guard page of the return stack. */
bool cache_stack_guard(const struct cache *k, uint64_t addr);

#endif
