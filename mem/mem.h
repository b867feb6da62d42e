/* mem.h - guest-physical memory, page walks, windows (shadow address spaces) and traces.
 *
 * Guest RAM is one memfd. The VMM reaches it through one full mapping of its own (mem_ptr) and a
 * software page walk (mem_walk, mem_read, mem_write); it never dereferences a window. Translated
 * code reaches it through windows: 4 GiB-aligned 4 GiB spans of host address space in which the host
 * MMU performs the guest's translation. See docs/design.md, "Memory".
 *
 * Every store that the VMM makes on the guest's behalf goes through mem_write or mem_phys_write,
 * which honour traces; a store by translated code into a traced page faults, because the page is
 * write-protected in every window that maps it.
 *
 * Ownership: struct mem owns RAM, windows and traces. Threads: the vCPU thread only, except
 * mem_phys_read and mem_phys_write, which devices call with the machine lock held and the vCPU stopped
 * or in the same thread (there is no DMA from other threads).
 * Errors: functions that can raise a guest exception return 0, or -1 with c->exc recorded.
 */
#ifndef BT86_MEM_H
#define BT86_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "cpu/cpu.h"

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096u
#define PAGE_MASK  0xfffff000u

/* Physical address bits of the guest CPU, which CPUID must report: they decide the reserved bits of entries. */
#define MEM_MAXPHYADDR 36

struct mem;
struct window;

/* ------------------------------------------------------------------ RAM and MMIO */

/* What the memory system asks of its user. All run on the vCPU thread; opaque is mem_set_ops'. */
struct mem_ops {
	/* Accesses to guest-physical addresses that are not RAM. size is 1, 2, 4 or 8. */
	uint64_t (*mmio_read)(void *opaque, uint64_t gpa, unsigned size);
	void (*mmio_write)(void *opaque, uint64_t gpa, uint64_t value, unsigned size);
	/* Bytes of a page under TRACE_CODE were changed (already stored). Does not straddle a page. A store of what is
	 * there already is not a change. */
	void (*code_written)(void *opaque, uint64_t gpa, unsigned len);
	/* Linear pages [lin, lin + pages * 4096) of w no longer translate as they did when
	 * mem_window_note_code was called for one of them: cut chains and table slots through w. */
	void (*code_unmapped)(void *opaque, struct window *w, uint32_t lin, uint32_t pages);
	/* w is about to be destroyed or recycled: forget everything keyed by it. Never a current window, except in
	 * mem_mode_changed. May come from any call that maps something, and from a store (to the directory of a
	 * dead address space). Both callbacks about windows may add and remove traces and nothing else. */
	void (*window_gone)(void *opaque, struct window *w);
};

/* ram_bytes: a multiple of 4096, at most 3 GiB; RAM is [0, ram_bytes) less the hole at 0xa0000-0xbffff.
 * On failure returns NULL and writes one line into err. */
struct mem *mem_create(uint64_t ram_bytes, char *err, size_t errlen);
void mem_destroy(struct mem *m);
void mem_set_ops(struct mem *m, const struct mem_ops *ops, void *opaque);
uint64_t mem_ram_bytes(const struct mem *m);

/* Host address of [gpa, gpa + len) if all of it is RAM, else NULL. Writers must use mem_phys_write unless
 * the guest is not running yet (loaders). */
uint8_t *mem_ptr(struct mem *m, uint64_t gpa, uint64_t len);

/* Reads or writes guest-physical memory; MMIO accesses are made in naturally aligned pieces of at most 4 bytes.
 * Unbacked reads give all ones. Writes honour traces. */
void mem_phys_read(struct mem *m, uint64_t gpa, void *buf, uint64_t len);
void mem_phys_write(struct mem *m, uint64_t gpa, const void *buf, uint64_t len);
/* The same for large pieces before anything runs, and before the sandbox. */
void mem_load(struct mem *m, uint64_t gpa, const void *buf, uint64_t len);

/* fn is called before every store that the VMM makes into RAM (not those of translated code), until fn is NULL again;
 * ad says that it is the page walk that sets an A or D bit. The store is made if fn returns true. For running blocks on
 * trial (vmm/bt_verify.c). */
typedef bool mem_store_log_fn(void *opaque, uint64_t gpa, unsigned len, bool ad);
void mem_set_store_log(struct mem *m, mem_store_log_fn *fn, void *opaque);
/* Empties the software TLB: it may know of A and D bits that fn's owner has taken back. */
void mem_forget_tlb(struct mem *m);

/* ------------------------------------------------------------------ page walk (SDM vol. 3A 4.1-4.8) */

/* Access rights asked for. */
#define ACC_READ  0u
#define ACC_WRITE 1u
#define ACC_EXEC  2u
#define ACC_USER  4u /* the access is a user-mode one: CPL 3 and not an implicit supervisor access */
#define ACC_PEEK  8u /* debugger's look: set no A/D bits, raise nothing */

struct walk {
	uint64_t gpa;	   /* of the byte asked for */
	uint32_t page_size; /* 4096, 2 MiB or 4 MiB; 4 GiB - that is 0 - with paging off */
	bool user;	   /* user-accessible through all levels */
	bool writable;	   /* R/W set through all levels (CR0.WP not applied) */
	bool nx;	   /* not executable */
	bool accessed;	   /* A bits of all entries. Set by a walk without ACC_PEEK, whatever is said here */
	bool dirty;	   /* D bit of the final entry */
	bool global;
	uint64_t pde_gpa, pte_gpa; /* where the entries stand; pte_gpa 0 for a large page (and for a table at 0) */
};

/* Translates a linear address. Sets A on every level, and D on a write, unless ACC_PEEK.
 * Returns 0, or -1 with #PF recorded in c->exc (nothing recorded with ACC_PEEK). */
int mem_walk(struct vcpu *c, uint32_t lin, unsigned acc, struct walk *out);

/* ------------------------------------------------------------------ linear access for the interpreter and callouts
 *
 * ACC_USER is or-ed in by the caller when CPL is 3 and the access is not implicit. len is 1 to 4096 and may cross
 * one page boundary: both pages are checked before the first byte is stored. A software TLB serves the common case;
 * it is kept coherent with traces and flushed by mem_flush_*.
 */
int mem_read(struct vcpu *c, uint32_t lin, void *buf, unsigned len, unsigned acc);
int mem_write(struct vcpu *c, uint32_t lin, const void *buf, unsigned len, unsigned acc);

/* Checks that len bytes at lin may be accessed as acc says, without doing it: ACC_WRITE for the priorities of
 * read-modify-write. */
int mem_probe(struct vcpu *c, uint32_t lin, unsigned len, unsigned acc);

/* One entry per (user, index): tag is lin & PAGE_MASK | 1 for a valid entry. add + lin is the host address.
 * Entries exist only for RAM; write entries only for pages that no trace watches and whose D bit is set;
 * fetch entries only for pages that are not NX. */
struct tlb_entry {
	uint32_t rtag, wtag, xtag;
	uint32_t ltag; /* takes the place of wtag on traced pages and while stores are logged */
	uintptr_t add;
};
#define TLB_SIZE 1024u
struct soft_tlb {
	struct tlb_entry e[2][TLB_SIZE]; /* [user] */
};
struct soft_tlb *mem_tlb(struct mem *m);
/* Of an entry with an ltag: whether there is a trace. */
bool mem_tlb_traced(const struct mem *m, const struct tlb_entry *t);

/* A second one, for user accesses of translated code: mem_window_missed fills it, and what empties the other
 * empties it too. NULL: none. t is all zero. */
void mem_set_probe_tlb(struct mem *m, struct probe_tlb *t);

/* m_tlb is mem_tlb(c->mem); the sized forms inline the TLB hit. */
#define MEM_DEFINE_ACCESS(bits, type)                                                                         \
	static inline int mem_read##bits(struct vcpu *c, uint32_t lin, type *v, unsigned acc)                  \
	{                                                                                                      \
		const struct tlb_entry *t =                                                                    \
			&((struct soft_tlb *)(void *)c->mem)->e[!!(acc & ACC_USER)][(lin >> 12) % TLB_SIZE];   \
		if (((acc & ACC_EXEC) ? t->xtag : t->rtag) == ((lin & PAGE_MASK) | 1u) &&                      \
		    (lin & 0xfffu) <= PAGE_SIZE - sizeof(type)) {                                              \
			memcpy(v, (const void *)(t->add + lin), sizeof *v);                                    \
			return 0;                                                                              \
		}                                                                                              \
		return mem_read(c, lin, v, sizeof *v, acc);                                                    \
	}                                                                                                      \
	static inline int mem_write##bits(struct vcpu *c, uint32_t lin, type v, unsigned acc)                  \
	{                                                                                                      \
		const struct tlb_entry *t =                                                                    \
			&((struct soft_tlb *)(void *)c->mem)->e[!!(acc & ACC_USER)][(lin >> 12) % TLB_SIZE];   \
		if (t->wtag == ((lin & PAGE_MASK) | 1u) && (lin & 0xfffu) <= PAGE_SIZE - sizeof(type)) {       \
			memcpy((void *)(t->add + lin), &v, sizeof v);                                          \
			return 0;                                                                              \
		}                                                                                              \
		return mem_write(c, lin, &v, sizeof v, acc);                                                   \
	}
/* struct mem begins with its struct soft_tlb (asserted in mem/ram.c), which is what lets these inline. */
MEM_DEFINE_ACCESS(8, uint8_t)
MEM_DEFINE_ACCESS(16, uint16_t)
MEM_DEFINE_ACCESS(32, uint32_t)
MEM_DEFINE_ACCESS(64, uint64_t)

/* ------------------------------------------------------------------ what the guest does to its address space
 *
 * Called by whoever executes the instruction (interpreter or callout) after the register has changed.
 * They apply queued page-table changes, choose windows and flush the software TLB.
 */
void mem_flush_page(struct vcpu *c, uint32_t lin); /* INVLPG */
void mem_load_cr3(struct vcpu *c);		   /* MOV to CR3, task switch. PAE: pdpte[] already loaded */
void mem_mode_changed(struct vcpu *c);		   /* CR0.PG/WP, CR4.PSE/PAE/PGE, EFER.NXE or A20 changed */

/* Applies the queued page-table changes of the current windows, without a flush by the guest. All three above do. */
void mem_sync(struct vcpu *c);

/* Some lowered mapping still serves in a current window, as in a TLB, until the guest flushes. */
bool mem_stale(const struct mem *m);

/* Maps the user page of the last true fault, if the guest has made it present since (others that it mapped on the
 * occasion wait until they are used). To be called on the way out of the kernel (IRET and SYSEXIT to CPL 3): it saves
 * that page's hidden fault. Costs nothing when there is none, which is most of the time; leaving it out costs
 * hidden faults only. */
void mem_map_pending(struct mem *m);

/* ------------------------------------------------------------------ traces */

#define TRACE_PT    0x1u /* page directory or page table reachable from a cached window */
#define TRACE_CODE  0x2u /* translated code came from here */
#define TRACE_DIRTY 0x4u /* dirty tracking: the first write takes this trace off again */

/* Adds or removes a kind of trace on the page of gpa. With any trace set the page is write-protected in every
 * window and absent from the TLB's write side. Idempotent. */
void mem_trace_add(struct mem *m, uint64_t gpa, unsigned kind);
void mem_trace_remove(struct mem *m, uint64_t gpa, unsigned kind);
unsigned mem_traced(const struct mem *m, uint64_t gpa);

/* ------------------------------------------------------------------ windows
 *
 * Exist only after mem_enable_windows (accel bt). Never call these under -accel interp.
 */
/* Chooses about 1 TiB of unused address space (no memory). The CPU is taken to be as after reset: paging off, A20
 * on; call mem_mode_changed if it isn't. Host system calls made afterwards, for the seccomp filter: mmap, munmap,
 * mprotect. */
int mem_enable_windows(struct mem *m, char *err, size_t errlen);

/* Windows of the current CR3. With paging off both are the physical window. Valid until the next
 * mem_load_cr3 or mem_mode_changed. A window's base is 4 GiB-aligned; window_id is small, stable during
 * its life and reused after window_gone. */
struct window *mem_window_user(struct mem *m);
struct window *mem_window_super(struct mem *m);
uintptr_t mem_window_base(const struct window *w);
unsigned mem_window_id(const struct window *w);
bool mem_window_is_super(const struct window *w); /* maps supervisor pages; the physical window counts as one */

/* Tells that code at linear page lin is being executed through w, so that code_unmapped is called when its
 * mapping changes. */
void mem_window_note_code(struct vcpu *c, struct window *w, uint32_t lin);

enum mem_fault {
	MEM_FAULT_MAPPED, /* hidden fault: the window now has the page, run the instruction again */
	MEM_FAULT_GUEST,  /* true fault: #PF is recorded in c->exc */
	MEM_FAULT_TRACED, /* a write into a traced page: emulate the store with mem_write */
	MEM_FAULT_MMIO,	  /* not RAM: emulate */
	MEM_FAULT_USER,	  /* the supervisor window was used for a user-accessible page: use the user window */
	MEM_FAULT_SUPER,  /* the user window was used, by CPL 0-2 code, for a supervisor page */
	MEM_FAULT_EMULATE /* a window can't show it (edge of 4 GiB, CR0.WP clear on a user page, tables outside RAM), or
			   * the host is out of mappings for the moment: emulate, whatever the access is */
};

/* Translated code faulted at linear address lin of window w, which is current (lin may be 4 GiB or more: the edge).
 * c->cpl says whose access it is. */
enum mem_fault mem_window_fault(struct vcpu *c, struct window *w, uint64_t lin, bool write);

/* An access to lin that found no page in mem_view.present has been made by other means. Maps the page once that has
 * happened often enough to be worth it. write: what was asked for. MEM_FAULT_GUEST: there is no such page, or it may not be
 * used so; MEM_FAULT_EMULATE: go on like this. */
#define MEM_PRESENT_WRITE (1u << 20)
enum mem_fault mem_window_missed(struct vcpu *c, uint32_t lin, bool write);
/* Nothing has told mem_window_missed of this page yet, since it was mapped or its address space began. */
bool mem_window_untouched(const struct mem *m, uint32_t lin);

/* Finds the window that a host address lies in (with its guard space). NULL if none. An address below the window's
 * first byte gives a *lin of 4 GiB or more, like one behind its last. */
struct window *mem_window_find(struct mem *m, uintptr_t host, uint64_t *lin);

/* What runs in the current windows has to know all the time, in one place that does not move. But for `pending`, it
 * changes in mem_load_cr3 and mem_mode_changed only. */
struct mem_view {
	uint64_t user_base, super_base; /* of the current windows */
	uint32_t user_id, super_id;
	/* For each 4 MiB slot of the linear address space, the base (of the user or the supervisor window) at which
	 * kernel code most probably finds that slot's pages. 1024 entries; belongs to the current user window. */
	const uint64_t *slot_bases;
	/* For each linear page, nonzero if the current user window has it (the first 2^20 bytes), and has it writable
	 * (the next 2^20). A hint: a page that is there may be missing here, and a fault decides. */
	const uint8_t *present;
	/* For each 4 MiB slot what to look pages up in, by their linear number as in `present`, where slot_bases says
	 * where they are: `present`, or for slots of the supervisor's something that always says yes. */
	const uint8_t *const *slot_presents;
	uint32_t pending; /* nonzero while mem_map_pending has something to do */
	bool many_super;  /* more than one supervisor window exists */
};
const struct mem_view *mem_view(const struct mem *m);

/* ------------------------------------------------------------------ counters, for --stats and the monitor */
struct mem_stats {
	uint64_t hidden_faults, missed_maps, true_faults, traced_writes, mmio_faults, user_faults;
	uint64_t pt_writes, pt_eager_maps, pt_unmaps_queued, pt_flushes;
	uint64_t flushes; /* that the guest asked for */
	uint64_t pages_mapped, map_calls, unmap_calls, protect_calls;
	uint64_t windows_created, windows_evicted, window_switches;
	uint64_t code_unmaps;
	uint64_t traced_stores, mmio_accesses; /* made by the VMM for the guest */
	uint32_t windows_now, super_windows_now, mappings_now, traced_pt_now, traced_code_now;
};
const struct mem_stats *mem_get_stats(const struct mem *m);
/* Human-readable dumps for `info windows` and `info traces`. out is a FILE. */

void mem_dump_windows(const struct mem *m, FILE *out);
void mem_dump_traces(const struct mem *m, FILE *out);

#endif
