/* cpu.h - the state of the virtual CPU, and what everything above agrees on about it.
 *
 * This is the lowest folder: it depends on nothing, and the memory system, the
 * translator, the interpreter and the devices all see the CPU through it.
 *
 * While translated code runs, the general registers, the six arithmetic flags, DF and the
 * x87/MMX/SSE state live in the host's registers; everywhere else they live here. The code
 * that crosses that line (translator/entry.S) is the only code that moves them.
 *
 * Units: addresses and sizes are in bytes. "Linear" is the address after segmentation,
 * "gpa" the guest-physical address (64-bit, below 4 GiB in practice).
 * Threads: every field is the vCPU thread's own, except those marked atomic.
 */
#ifndef BT86_CPU_CPU_H
#define BT86_CPU_CPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/x86.h"

/* A segment register with its hidden part. limit is in bytes, granularity applied. */
struct seg {
	uint16_t sel;
	uint16_t attr; /* SEG_*; attr & SEG_P clear: a null selector was loaded */
	uint32_t base;
	uint32_t limit;
};

struct table_reg { /* GDTR, IDTR */
	uint32_t base;
	uint16_t limit;
};

/* The FXSAVE image (SDM vol. 1 10.5.1). xmm8-15 are saved there by a 64-bit FXSAVE too and mean nothing. */
struct fpu_state {
	_Alignas(16) uint8_t fxsave[512];
};

/* Why the event-loop thread or a device wants the vCPU's attention (atomic bit set, vcpu->request). */
#define REQ_IRQ	     0x1u /* the interrupt line to the CPU is high */
#define REQ_NMI	     0x2u
#define REQ_STOP     0x4u /* monitor: stop executing until told to go on */
#define REQ_SHUTDOWN 0x8u /* leave the run loop for good */
#define REQ_RESET    0x10u
#define REQ_TIMER    0x20u /* a timer of the machine is due, which the vCPU thread runs */

/* An exception on its way. error is valid when has_error. */
struct exception {
	bool pending;
	bool has_error;
	bool soft; /* int n, int3, into: pushed EIP is that of the next instruction, DPL is checked */
	uint8_t vector;
	uint32_t error;
	uint32_t cr2; /* for #PF: loaded into CR2 at delivery */
};

struct mem;
struct mem_view;
struct space;
struct machine;
struct bt;

#define CPU_CALLOUTS 32

/* What loading a selector in some way gives (translator/entry_fast.S), as long as its descriptor reads raw.
 */
struct seg_known {
	uint64_t raw;
	uint32_t key; /* the selector and CO_ARG_KEY of the load; 0: nothing is known */
	struct seg seg;
	uint64_t poison; /* as cpu_hot.seg_poison */
};
#define CPU_SEGS_KNOWN 32u /* a power of 2; indexed by the selector's number */

/* Pages of RAM that the user window may lack, for code that asks before it uses one (translator/probe.c): a TLB
 * of user accesses. By the low bits of the linear page number: minus one minus the number of the page that may be
 * read, and written; 0: none. add + linear address is the host's. mem/access.c fills and empties it. */
#define CPU_PROBE_TLB 256u
struct probe_tlb {
	uint32_t read[CPU_PROBE_TLB], write[CPU_PROBE_TLB];
	uint64_t add[CPU_PROBE_TLB];
	uint32_t windows; /* nonzero: some entries lead to the user window, by add = its base */
};

/* What translated code and translator/entry.S reach through r15 besides the architectural state. All of it
 * belongs to the binary translator (vmm/bt.h says who writes what); nothing of it is visible to the guest. */
struct cpu_hot {
	uint64_t user_base;   /* r13: base of the current user window */
	uint64_t super_base;  /* base of the current supervisor window */
	uint64_t table;	      /* r14: indirect-branch table of the current space */
	uint64_t ret_sp;      /* rsp: return stack pointer while outside translated code */
	uint64_t c_sp;	      /* the VMM's own stack while inside */
	uint64_t resume;      /* host address at which bt_enter goes on */
	uint32_t resume_esp;  /* what r12 is to be there, minus guest esp */
	uint64_t callout_ret; /* where the running callout was called from */
	uint64_t slot_bases;  /* mem_view.slot_bases */
	uint64_t present;     /* mem_view.present */
	uint64_t slot_presents;	 /* mem_view.slot_presents */
	struct space *cur;	 /* the space that table belongs to */
	struct space *recent[2]; /* last supervisor and user space */
	uint64_t gs_base;	 /* what the host's gs base is set to */
	const struct mem_view *view;
	uint64_t insns; /* instructions begun in translated code; counted only if the translator is told to */
	uint32_t kick;	/* nonzero: return to the run loop at the next chance */
	uint32_t exit_arg;  /* the low half of the address behind an exit's stub */
	uint32_t selector;  /* that a callout for a segment load is to load */
	uint32_t probe_lin; /* the linear address that a probe did not find present */
	/* entry points of translator/entry.S, and what bt_go_exit and bt_go_miss call: see vmm/bt.c */
	uint64_t go_callout, go_callout_light, go_callout_device, go_callout_end, go_exit, go_miss, on_exit;
	uint64_t go_seg_load, go_sysenter, go_sysexit;
	uint64_t seg_base[6];	/* seg[].base */
	uint64_t seg_poison[6]; /* 0, or 4 GiB when the segment is not usable freely: such accesses must trap
				 */
	uint64_t callouts[CPU_CALLOUTS];
	/* as of a fault in translated code */
	uint64_t fault_pc, fault_addr, fault_err, fault_trap;
	_Alignas(16) uint8_t xmm[8][16]; /* the guest's, during a callout of the device kind */
	struct seg_known segs_known[CPU_SEGS_KNOWN];
	struct probe_tlb probe_tlb;
};

struct vcpu {
	/* ---- hot: read and written by translated code, offsets known to the emitter ---- */
	uint32_t gpr[8];
	uint32_t eip;
	/* EFLAGS in four parts, each in its architectural bit position. cpu_eflags() puts them together. */
	uint32_t flags;	   /* the six arithmetic flags */
	uint32_t df;	   /* 0 or FL_DF; kept right even while DF is live in the host */
	uint32_t iflag;	   /* 0 or FL_IF */
	uint32_t sysflags; /* TF IOPL NT RF VM AC VIF VIP ID */
	uint32_t cpl;
	struct seg seg[6];
	uint32_t cr0, cr2, cr3, cr4;
	_Atomic uint32_t request; /* REQ_*; set from any thread */
	uint32_t shadow;	  /* nonzero: interrupts held off for one instruction (sti, mov ss, pop ss) */
	uint64_t tsc_offset;	  /* guest TSC = host TSC + tsc_offset */
	struct cpu_hot hot;

	/* ---- system state ---- */
	struct seg ldtr, tr;
	struct table_reg gdtr, idtr;
	uint32_t dr[8];
	uint64_t pdpte[4]; /* PAE: loaded with CR3 (SDM vol. 3A 4.4.1) */
	uint32_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t apic_base;
	uint64_t pat;
	uint64_t efer;
	uint64_t misc_enable;
	uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_var[16];
	uint32_t a20_mask; /* ~0u, or ~(1u << 20) while A20 is off */
	bool halted;
	bool nmi_blocked; /* an NMI is being handled: until the next IRET (SDM vol. 3A 6.7.1) */
	bool nmi_latched; /* another has come meanwhile */
	bool rep_mid; /* EIP is on a repeated string instruction that has done a part: RF of the next frame */
	struct exception exc;

	struct fpu_state fpu;

	/* ---- who we belong to ---- */
	struct mem *mem;
	struct machine *machine;
	struct bt *bt; /* the binary translator's private state, NULL under -accel interp */

	/* ---- counters ---- */
	uint64_t n_interp; /* instructions executed by the interpreter */
	uint64_t n_intr;   /* interrupts and exceptions that it began to deliver */
};

static inline uint32_t cpu_eflags(const struct vcpu *c)
{
	return c->flags | c->df | c->iflag | c->sysflags | FL_1;
}

/* Takes all bits of v that exist; the caller has already decided which may change. */
static inline void cpu_set_eflags(struct vcpu *c, uint32_t v)
{
	c->flags = v & FL_ARITH;
	c->df = v & FL_DF;
	c->iflag = v & FL_IF;
	c->sysflags = v & (FL_TF | FL_IOPL | FL_NT | FL_RF | FL_VM | FL_AC | FL_VIF | FL_VIP | FL_ID);
}

static inline unsigned cpu_iopl(const struct vcpu *c)
{
	return (c->sysflags >> 12) & 3u;
}

static inline bool cpu_protected(const struct vcpu *c)
{
	return c->cr0 & CR0_PE;
}

static inline bool cpu_v86(const struct vcpu *c)
{
	return c->sysflags & FL_VM;
}

static inline bool cpu_paging(const struct vcpu *c)
{
	return c->cr0 & CR0_PG;
}

/* Default operand/address size of code is 32 bits. */
static inline bool cpu_code32(const struct vcpu *c)
{
	return c->seg[CS].attr & SEG_DB;
}

static inline bool cpu_stack32(const struct vcpu *c)
{
	return c->seg[SS].attr & SEG_DB;
}

/* Base 0, limit 4 GiB - 1, present; data also writable and expand-up. Such a segment checks nothing. */
static inline bool cpu_seg_flat(const struct seg *s)
{
	if (s->base != 0 || s->limit != 0xffffffffu || !(s->attr & SEG_P))
		return false;
	return (s->attr & SEG_CODE) ? true : (s->attr & (SEG_RW | SEG_DC)) == SEG_RW;
}

/* Such a segment that may be written: a code segment in a data segment register may not (SDM vol. 3A 5.5). */
static inline bool cpu_seg_flat_data(const struct seg *s)
{
	return cpu_seg_flat(s) && !(s->attr & SEG_CODE);
}

/* The guest's x87/SSE state is live in the host's registers: code that calls into a library compiled with SSE
 * saves it first (cpu_fpu_guard). Set around callouts of the light kind. */
extern bool cpu_fpu_live;

/* Records an exception for delivery and returns -1, so that a caller may `return cpu_raise(...)`. */
int cpu_raise(struct vcpu *c, unsigned vector);			      /* no error code */
int cpu_raise_error(struct vcpu *c, unsigned vector, uint32_t error); /* with error code */
int cpu_raise_pf(struct vcpu *c, uint32_t linear, uint32_t error);    /* CR2 is loaded when delivered */

/* State after RESET (SDM vol. 3A table 9-1): real mode, CS:IP f000:fff0. Keeps mem, machine, bt. */
void cpu_reset(struct vcpu *c);

#endif
