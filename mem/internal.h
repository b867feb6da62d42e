/* internal.h - what the files of mem/ share and nobody else sees.
 *
 * ram.c     RAM, MMIO, guest-physical reads and writes
 * walk.c    the page walk
 * access.c  the software TLB and linear reads and writes
 * trace.c   kinds of trace on guest-physical pages
 * host.c    the host mappings behind windows, and their budget
 * rmap.c    from a guest-physical page to the window pages that can write it
 * ptpage.c  which pages serve as page tables, and what a store to one means
 * entry.c   what the guest's entries allow
 * shadow.c  the contents of windows: slots and shadow entries
 * recheck.c what of a window is to be compared with the guest's entries again, and doing so
 * window.c  the pool of windows, the physical window, faults
 * space.c   address spaces: CR3 to windows, choice of the supervisor window, flushes
 * dump.c    counters, dumps, and the checker that the tests use
 *
 * All of this may run while the guest's x87/SSE state is live: nothing here calls libc's string functions
 * (they use vector registers) outside mem_create, mem_enable_windows, mem_destroy and the dumps; copy_bytes
 * and fill_zero below take their place, and tables are mapped once instead of grown.
 */
#ifndef BT86_MEM_INTERNAL_H
#define BT86_MEM_INTERNAL_H

#include <assert.h>

#include "mem/mem.h"

/* The PC's hole for video memory: never RAM. */
#define HOLE_START 0xa0000u
#define HOLE_END   0xc0000u

#ifndef EFER_NXE
#define EFER_NXE 0x800u
#endif

/* Reserved bits of entries. 32-bit 4 MiB PDE (SDM vol. 3A table 4-4): 21 down to MAXPHYADDR - 19; below them,
 * down to 13, stand physical address bits 32 and up. PAE (tables 4-9 to 4-11): 62 down to MAXPHYADDR, 63
 * without NXE, and 20-13 in a 2 MiB PDE. */
#define PSE_HIGH_BITS	(MEM_MAXPHYADDR - 32u)
#define PSE_HIGH_MASK	((1u << PSE_HIGH_BITS) - 1u)
#define PSE_RSVD	(0x003fe000u & ~(PSE_HIGH_MASK << 13))
#define PAE_RSVD	(0x7fffffffffffffffull & ~((1ull << MEM_MAXPHYADDR) - 1ull))
#define PAE_LARGE_RSVD	0x001fe000ull
#define PAE_ADDR	(((1ull << MEM_MAXPHYADDR) - 1ull) & ~0xfffull)

/* Of entries of both levels. */
#define RIGHTS (PTE_P | PTE_RW | PTE_US)

#define TLB_USED_MAX	512u
#define PROBES_USED_MAX 32u

/* ------------------------------------------------------------------ windows
 *
 * A window is divided into slots: what one page-directory entry covers (4 MiB, or 2 MiB under PAE). A slot is
 * filled from a directory entry, which it remembers, and has one shadow entry for each page:
 * frame number << 12 | SH_*. Slots and shadow entries are the truth about what the host maps.
 *
 * The invariant that shadow.c and recheck.c keep: the host maps a window page only if the guest's tables, as
 * they stand, allow what the mapping allows (present, accessed, same frame, same privilege; writable only if
 * also dirty, writable and not traced), or else the page, or its slot, is in the window's queue. The queue is
 * worked off before the guest can expect to see the difference.
 *
 * Of a slot whose page table is not watched (not under trace) the second part does not hold. Each of its
 * pages that is mapped or has code is in its window's list `loose`, and looked at whenever the queue is
 * worked off. Page tables of user windows begin so; most belong to processes that are gone before a trace has
 * paid.
 */
#define MAX_USER    96u
#define MAX_SUPER   16u
#define MAX_WINDOWS 128u /* at least MAX_USER + MAX_SUPER + the physical window */
#define MAX_SLOTS   2048u
#define NO_GFN	    0xffffffffu

/* A window's span and what separates it from the next: 4 GiB of addresses that nothing is ever mapped to. */
#define WINDOW_SPAN   (1ull << 32)
#define WINDOW_STRIDE (2 * WINDOW_SPAN)
#define REGION_PAGES  512u
#define REGIONS	      2048u

#define SH_MAPPED     0x01u /* the host maps it */
#define SH_WRITE      0x02u /* ... writable */
#define SH_WPROT      0x04u /* mapped read-only although the guest may write: traced, or was */
#define SH_CODE	      0x08u /* mem_window_note_code */
#define SH_QUEUED     0x10u
#define SH_RMAP	      0x20u /* the reverse map of this entry's frame leads here */
#define SH_HELD                                                                                              \
	0x40u /* not mapped for the guest, but the host still has this frame there, without any right */
#define SH_LOOSE 0x80u /* in the window's list of that name */
#define SH_FLAGS 0xfffu

/* How often a page was used without being mapped (mem_window_missed), and in the high byte how often rights
 * were taken away that it had. */
#define MISS_COUNT     0x00ffu
#define MISS_LOST      0x0100u
#define MISS_LOST_MAX  3u

#define SLOT_PAGES_MAX 1024u
#define SHADOW_TABLES  16384u /* for all windows together */

struct slot {
	uint32_t *sh; /* shadow entries, NULL unless filled */
	uint64_t pde; /* pde_key of the directory entry it was filled from */
	uint32_t pt_gfn;
	uint16_t mapped; /* shadow entries with SH_MAPPED */
	bool filled, large;
	bool doomed; /* the directory entry changed: to be dropped whole; its page table is no longer watched
		      */
	bool queued;
	bool held;	/* some entry has, or had, SH_HELD */
	bool watched;	/* the page table is under trace (a large page has none) */
	uint32_t looks; /* how often one of its pages was looked at because it isn't */
};

/* Its page table is not watched. */
static inline bool slot_is_loose(const struct slot *sl)
{
	return !sl->watched && !sl->large;
}

/* A page of a loose slot. While neither the shadow entry nor the guest's changes, the one allows the other. */
struct loose {
	uint32_t page;
	uint32_t e; /* 0: not compared yet */
	uint64_t pte;
};
#define LOOSE_MAX   320u
#define LOOSE_LOOKS 1024u /* then a page table is watched */

enum window_kind { WIN_FREE, WIN_PHYS, WIN_USER, WIN_SUPER };

#define QUEUE_MAX  1024u
#define QUEUE_SLOT 0x80000000u
#define FILL_LOG   64u

struct window {
	struct mem *m;
	enum window_kind kind;
	unsigned id;
	uintptr_t base;
	bool host_dirty; /* something may be mapped */
	/* by 2 MiB of the window: something may be mapped there; an anchor is (host.c) */
	uint64_t touched[REGIONS / 64], anchored[REGIONS / 64];
	uint32_t vmas;	/* upper bound of host mappings in it */
	uint64_t stamp; /* of the last use */
	struct slot *slots;
	uint64_t filled[MAX_SLOTS / 64];
	uint32_t n_filled;

	/* linear page numbers, or QUEUE_SLOT | slot number */
	uint32_t queue[QUEUE_MAX];
	unsigned queued;
	bool queue_overflow; /* check everything */

	struct loose loose[LOOSE_MAX];
	unsigned n_loose;

	/* ---- a user window is also the address space that it belongs to */
	uint32_t cr3;
	uint32_t pd[4]; /* frames of the page directories ([0] only without PAE), NO_GFN if none */
	struct window *super;
	uint64_t super_base;	/* what bases[] has for slots that are not the user's */
	uint32_t super_version; /* of super when it was last known to agree with this directory */
	bool super_ok;
	uint32_t foreign_writes;  /* stores to its tables since it was last current */
	uint64_t *bases;	  /* mem_view.slot_bases */
	uint16_t *missed;	  /* MISS_*, for each page */
	uint8_t *present;	  /* mem_view.present */
	const uint8_t **presents; /* mem_view.slot_presents */
	bool shown;		  /* something in there is not zero, or was */
	struct window *hash_next;

	/* ---- supervisor windows */
	uint32_t version; /* counts fills of slots; the last FILL_LOG of them are in the log */
	uint16_t log[FILL_LOG];
	uint32_t mismatches; /* slots dropped because a directory disagreed, since mismatch_stamp */
	uint64_t mismatch_stamp;
	bool wp0; /* has pages writable only because CR0.WP is clear */
};

/* What translation depends on besides CR3. */
struct paging_mode {
	bool paging, pae, pse, nxe, wp;
	uint32_t a20;
};

/* Reverse map: list node. where = window id << 20 | linear page. */
struct rmap_node {
	uint32_t next, where;
};

/* One role of a page that serves as a page table. */
enum pt_kind { PT_FREE, PT_TABLE, PT_DIRECTORY, PT_DEAD };
struct pt_use {
	uint32_t next;
	uint16_t window;
	uint16_t slot; /* PT_TABLE: slot filled from it; PT_DIRECTORY: which quarter of the address space (0
			  without PAE) */
	enum pt_kind kind;
};
#define PT_USES	      (SHADOW_TABLES + 4 * MAX_WINDOWS + 1)

#define PENDING_MAX   64u
#define PENDING_SUPER 0x80000000u
#define SPACE_HASH    256u

struct mem {
	struct soft_tlb tlb; /* first: the inline accessors of mem.h rely on it */

	/* TLB entries filled since the last flush, so that a flush costs what was filled. Past TLB_USED_MAX
	 * entries everything is cleared. Encoded as user * TLB_SIZE + index. */
	unsigned tlb_used_n;
	uint16_t tlb_used[TLB_USED_MAX];
	bool tlb_large; /* an entry comes from a large page: INVLPG of any of its pages drops them all */

	struct probe_tlb *probes; /* or NULL */
	unsigned probes_used_n;	  /* the same for these entries */
	uint8_t probes_used[PROBES_USED_MAX];
	bool probes_large;

	uint8_t *ram; /* the VMM's own mapping */
	uint64_t ram_bytes;
	uint32_t ram_pages;
	int fd;

	uint8_t *trace; /* one byte of TRACE_* per page of RAM */

	struct mem_ops ops;
	void *opaque;
	mem_store_log_fn *store_log;
	void *store_log_opaque;
	struct mem_stats stats;

	/* ---- windows; all of it unused until mem_enable_windows */
	bool enabled;
	struct paging_mode mode;
	uint32_t slot_pages, n_slots; /* of the current mode */
	unsigned slot_shift;	      /* linear page number >> slot_shift is the slot */
	uintptr_t arena;
	struct window *windows;	     /* [MAX_WINDOWS] */
	struct window *user, *super; /* current */
	struct mem_view view;
	struct window *phys;
	bool phys_whole;	  /* all of RAM is mapped in it; false after the host has refused something */
	uint64_t *bases;	  /* MAX_WINDOWS * 1024 */
	uint16_t *missed;	  /* MAX_WINDOWS * 2^20 */
	uint8_t *present;	  /* MAX_WINDOWS * 2 * 2^20 */
	const uint8_t **presents; /* MAX_WINDOWS * 1024 */
	uint8_t *always; /* what slot_presents leads to for slots of the supervisor's, less the slot's offset
			  */
	struct slot *slots;
	struct window *hash[SPACE_HASH];
	uint64_t clock;
	unsigned n_user, n_super;
	uint64_t stale_after; /* loads of CR3 after which a supervisor window that nobody used goes */
	uint32_t super_drops; /* slots dropped in favour of not creating another supervisor window */

	uint32_t queue_max;   /* QUEUE_MAX, or what a test allows */
	uint32_t loose_looks; /* LOOSE_LOOKS, or what a test allows: 0 has all page tables watched */

	/* host mappings */
	uint32_t vmas, vma_budget;
	unsigned fail_in, fail_n; /* tests: after fail_in calls, the next fail_n fail with ENOMEM */

	/* shadow tables */
	uint32_t *sh_pool;
	uint32_t sh_max; /* SHADOW_TABLES, or what a test allows */
	uint32_t sh_free, sh_fresh,
		sh_used; /* list of free tables (index + 1), never used ones from sh_fresh */

	/* reverse map */
	uint32_t *rmap_head; /* [ram_pages] */
	struct rmap_node *rmap;
	uint32_t rmap_n, rmap_max;

	/* page-table pages */
	uint32_t *pt_head; /* [ram_pages] */
	struct pt_use *pt;
	uint32_t pt_free, pt_fresh;
	uint32_t pt_busy; /* frame whose list is being walked */

	/* pages of the current windows that the guest has just made present: PENDING_SUPER | linear page */
	uint32_t pending[PENDING_MAX];
	uint32_t last_true; /* linear page of the last true fault: the one whose new mapping is sure to be
			       used */
	uint32_t filled_page, filled_gfn; /* of the last supervisor's entry that was made present */
	bool pending_super;		  /* supervisor pages are among them, which aren't kept waiting */
};

static inline bool gfn_is_ram(const struct mem *m, uint64_t gfn)
{
	return gfn < m->ram_pages && !(gfn >= HOLE_START >> PAGE_SHIFT && gfn < HOLE_END >> PAGE_SHIFT);
}

static inline bool gpa_is_ram(const struct mem *m, uint64_t gpa)
{
	return gfn_is_ram(m, gpa >> PAGE_SHIFT);
}

/* memcpy without vector registers; small powers of two are single accesses. */
static inline void copy_bytes(void *dst, const void *src, uint64_t n)
{
	switch (n) {
	case 1:
		__builtin_memcpy(dst, src, 1);
		return;
	case 2:
		__builtin_memcpy(dst, src, 2);
		return;
	case 4:
		__builtin_memcpy(dst, src, 4);
		return;
	case 8:
		__builtin_memcpy(dst, src, 8);
		return;
	default:
		__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
	}
}

/* n is a multiple of 8. */
static inline void fill_zero(void *dst, uint64_t n)
{
	n /= 8;
	__asm__ volatile("rep stosq" : "+D"(dst), "+c"(n) : "a"(0ul) : "memory");
}

/* ---- ram.c */
void *map_anonymous(uint64_t bytes);	       /* zeroed, NULL on failure; memory is taken when touched */
void unmap_anonymous(void *p, uint64_t bytes); /* p may be NULL */
/* Stores into one page of RAM and does what its traces ask for. */
void ram_store(struct mem *m, uint64_t gpa, const void *buf, unsigned len);
void mmio_load(struct mem *m, uint64_t gpa, uint8_t *buf, uint64_t len);
void mmio_store(struct mem *m, uint64_t gpa, const uint8_t *buf, uint64_t len);

/* ---- walk.c */
void entry_set(struct mem *m, uint64_t gpa, uint8_t bits);

/* ---- access.c */
void tlb_flush(struct mem *m);
void tlb_flush_page(struct mem *m, uint32_t lin);
void tlb_drop_writes(struct mem *m, uint64_t gfn);
/* w: of lin, which is RAM and the user's. */
void probe_tlb_fill(struct mem *m, uint32_t lin, const struct walk *w);

/* ---- host.c
 *
 * Pages are linear page numbers in w. Where the host refuses (too many mappings), other windows are given up,
 * then the contents of w; host_unmap, host_hold and host_protect_ro thus always succeed. host_map and
 * host_protect may fail, having emptied w; callers record the mapping only after success, and what takes
 * rights away before the call.
 */
uintptr_t host_find_arena(uint64_t bytes); /* 0: none */
int host_map(struct window *w, uint32_t page, uint32_t n, uint32_t gfn, bool writable);
void host_unmap(struct window *w, uint32_t page, uint32_t n);
void host_hold(struct window *w, uint32_t page, uint32_t n); /* takes all rights, keeps the frames */
int host_protect(struct window *w, uint32_t page, uint32_t n, bool writable); /* mapped or held pages */
void host_protect_ro(struct window *w, uint32_t page, uint32_t n);
bool host_try_protect_rw(struct window *w, uint32_t page, uint32_t n); /* gives up nothing */
void host_wipe(struct window *w);
void host_recycle(struct window *w); /* the same for one that will soon be filled alike */
void host_relieve(struct mem *m);    /* at a point where windows may be given up: get under the budget */

/* ---- rmap.c */
int rmap_init(struct mem *m);
void rmap_destroy(struct mem *m);
void rmap_add(struct mem *m, uint32_t gfn, const struct window *w, uint32_t page);
void rmap_protect(struct mem *m, uint32_t gfn);	  /* a trace came: nobody may write */
void rmap_unprotect(struct mem *m, uint32_t gfn); /* the last trace went */

/* ---- ptpage.c */
void pt_init(struct mem *m);
void pt_use_add(struct mem *m, uint32_t gfn, struct window *w, uint32_t slot, enum pt_kind kind);
void pt_use_remove(struct mem *m, uint32_t gfn, const struct window *w, uint32_t slot, enum pt_kind kind);
/* A store into a page under TRACE_PT, including the store itself. */
void pt_store(struct mem *m, uint64_t gpa, const void *buf, unsigned len);

/* ---- entry.c */
/* What a guest entry allows for one page. */
struct leaf {
	uint32_t gfn;
	bool ok; /* present, accessed, no reserved bit, RAM */
	bool user, write, dirty, nx;
};
enum sh_verdict { SH_KEEP, SH_LOWER, SH_DROP };

bool pde_large(const struct mem *m, uint64_t pde);
uint64_t pde_key(const struct mem *m, uint64_t pde);
uint64_t pde_table(const struct mem *m, uint64_t key);
bool pde_differs(uint64_t filled_from, uint64_t now);
uint64_t entry_get(const struct mem *m, uint32_t gfn, uint32_t index);
uint64_t space_pde(const struct mem *m, const struct window *w, uint32_t slot);
uint64_t space_pde_gpa(const struct mem *m, const struct window *w, uint32_t slot);
struct leaf leaf_decode(const struct mem *m, const struct slot *sl, uint32_t index, uint64_t pte);
struct leaf leaf_read(const struct mem *m, const struct slot *sl, uint32_t index);
bool leaf_may_write(const struct window *w, const struct leaf *l);
void note_wp0(struct window *w, uint32_t e, const struct leaf *l);
enum sh_verdict sh_judge(const struct window *w, uint32_t e, const struct leaf *l);

/* ---- shadow.c */
struct slot *slot_open(struct window *w, uint32_t slot, uint64_t pde);
void slot_drop(struct window *w, uint32_t slot);
/* An open slot's directory entry has become another (0: not present): keeps of the slot what still holds, or
 * drops it. */
void slot_follow(struct window *w, uint32_t slot, uint64_t key);
void slot_doom(struct window *w, uint32_t slot);
int shadow_fill(struct window *w, uint32_t page, bool force);
void shadow_release(struct window *w);	  /* forgets everything; the host mappings stay */
void shadow_clear_data(struct window *w); /* the host no longer maps anything in w */
void shadow_show(struct window *w, uint32_t page, uint32_t e); /* tells mem_view.present */
/* Tells of each run of pages in [page, page + n) of table t that had SH_CODE. t belongs to nobody any more or
 * keeps its place during the callbacks. */
void tell_code(struct window *w, uint32_t page, uint32_t *t, uint32_t n);
void pend(struct window *w, uint32_t page); /* has become present; mem_map_pending maps it */

/* ---- recheck.c */
void queue_page(struct window *w, uint32_t page);
void queue_slot(struct window *w, uint32_t slot);
void queue_apply(struct window *w);
void slot_recheck(struct window *w, uint32_t slot); /* compares all of its pages, now */
void shadow_drop_page(struct window *w, uint32_t page); /* of an open slot, now */
/* The page table of an open slot comes under trace. What it has lowered up to now counts as a store that was
 * seen. */
void slot_watch(struct window *w, uint32_t slot);
void slot_unwatch(struct window *w, uint32_t slot);
/* page, of an open slot, has been mapped, or code has been noted there. */
void loose_add(struct window *w, uint32_t page);
/* Takes the pages of slot from the list, and queues them if the slot stays. */
void loose_end(struct window *w, uint32_t slot, bool queue);
/* For so many pages more in loose, if the slot's go there. */
void slot_make_room(struct window *w, uint32_t slot, uint32_t pages);
void loose_apply(struct window *w);

/* The guest flushes: whatever it has lowered goes. */
static inline void window_flush(struct window *w)
{
	if (w->n_loose)
		loose_apply(w);
	if (w->queued)
		queue_apply(w);
}

bool window_stale(const struct window *w); /* such a flush would take something away */

static inline bool window_current(const struct window *w)
{
	return w == w->m->user || w == w->m->super;
}

/* ---- window.c */
void windows_destroy(struct mem *m);
struct window *window_alloc(struct mem *m, enum window_kind kind);
void window_free(struct window *w);
bool window_evict_one(struct mem *m); /* the least recently used that is not current; false: none */
void phys_select(struct mem *m);
void view_update(struct mem *m); /* the current windows have changed */
void phys_protect(struct mem *m, uint32_t gfn, bool writable);
/* Kernel code will look for the pages of a 4 MiB slot in space w, or in its supervisor window. */
void slot_base_set(struct window *w, uint32_t slot, bool user);

/* ---- space.c */
void space_unhash(struct window *w);
void space_select(struct vcpu *c);

/* ---- dump.c */
/* Compares every shadow entry with the guest's tables, the traces, the reverse map and (if host)
 * /proc/self/maps. Returns the number of errors, each described on out. */
unsigned mem_check(struct mem *m, FILE *out, bool host);

#endif
