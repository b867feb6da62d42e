/* interp.h - what the files of the interpreter share. Private to vmm/interp/.
 *
 * An instruction is one handler, found in the tables of table.c:
 *
 *	int op_xxx(struct vcpu *c, const struct insn *i);
 *
 * called with c->eip on the instruction. It returns
 *	INSN_NEXT (0)	done; the caller advances EIP by i->len
 *	INSN_JUMPED	done; the handler has set EIP, or leaves it on itself (a repeated string instruction)
 *	-1		an exception is recorded in c->exc, and no register has changed
 *
 * Handlers check everything before they change anything; "checks first, then commit" is the whole of what
 *makes instructions restartable. A read-modify-write operand is opened with interp_rmw, which raises the
 *faults of the write before the read.
 *
 * Memory operand in three steps:
 *	uint32_t off = interp_ea(c, i), lin;
 *	if (interp_linear(c, i->seg, off, 4, false, &lin)) return -1;	segment, #AC and data breakpoint
 *checks if (mem_read32(c, lin, &v, interp_acc(c))) return -1;		paging or in one: interp_read(c,
 *i->seg, off, buf, len), interp_read32(c, i->seg, off, &v).
 */
#ifndef BT86_INTERP_H
#define BT86_INTERP_H

#include <string.h>

#include "cpu/cpu.h"
#include "mem/mem.h"
#include "translator/decode.h"
#include "vmm/vmm.h"

#define INSN_NEXT   0
#define INSN_JUMPED 1

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

typedef int (*interp_fn)(struct vcpu *c, const struct insn *i);

/* ------------------------------------------------------------------ memory operands */

/* Access flags for mem_* of an access that the instruction makes with the current privilege. */
static inline unsigned interp_acc(const struct vcpu *c)
{
	return c->cpl == 3 ? ACC_USER : 0;
}

/* The TLB entry for lin at the current privilege. struct mem begins with its TLB (mem.h), which saves a call
 * here. */
static inline const struct tlb_entry *interp_tlb(const struct vcpu *c, uint32_t lin)
{
	return &((const struct soft_tlb *)(const void *)c->mem)
			->e[c->cpl == 3][(lin >> PAGE_SHIFT) % TLB_SIZE];
}

/* Offset of the memory operand, wrapped to the address size. */
static inline uint32_t interp_ea(const struct vcpu *c, const struct insn *i)
{
	uint32_t a = (uint32_t)i->disp;

	if (i->base >= 0)
		a += c->gpr[i->base];
	if (i->index >= 0)
		a += c->gpr[i->index] * i->scale;
	return i->adsize == 2 ? a & 0xffffu : a;
}

/* All of [off, off + size) lies within the segment's limit. */
bool seg_holds(const struct seg *s, uint32_t off, unsigned size);

/* Segment checks of an access of size bytes at seg:off (presence, type, limit: #GP(0), or #SS(0) through SS),
 * alignment check for sizes 2, 4 and 8, and data breakpoints. Gives the linear address. */
int interp_linear_checked(struct vcpu *c, unsigned seg, uint32_t off, unsigned size, bool write,
			  uint32_t *lin);

static inline int interp_linear(struct vcpu *c, unsigned seg, uint32_t off, unsigned size, bool write,
				uint32_t *lin)
{
	const struct seg *s = &c->seg[seg];

	*lin = s->base + off;
	if (likely(s->limit == 0xffffffffu && off <= 0u - size &&
		   (s->attr & (SEG_P | SEG_CODE | SEG_RW | SEG_DC)) == (SEG_P | SEG_RW) &&
		   !((c->sysflags & FL_AC) | (c->dr[7] & 0xffu))))
		return 0;
	return interp_linear_checked(c, seg, off, size, write, lin);
}

/* Reads or writes len (1 to 4096) bytes at seg:off with the current privilege. */
int interp_read(struct vcpu *c, unsigned seg, uint32_t off, void *buf, unsigned len);
int interp_write(struct vcpu *c, unsigned seg, uint32_t off, const void *buf, unsigned len);

#define INTERP_DEFINE_ACCESS(bits)                                                                           \
	static inline int interp_read##bits(struct vcpu *c, unsigned seg, uint32_t off, uint##bits##_t *v)   \
	{                                                                                                    \
		uint32_t lin;                                                                                \
		if (interp_linear(c, seg, off, bits / 8, false, &lin))                                       \
			return -1;                                                                           \
		return mem_read##bits(c, lin, v, interp_acc(c));                                             \
	}                                                                                                    \
	static inline int interp_write##bits(struct vcpu *c, unsigned seg, uint32_t off, uint##bits##_t v)   \
	{                                                                                                    \
		uint32_t lin;                                                                                \
		if (interp_linear(c, seg, off, bits / 8, true, &lin))                                        \
			return -1;                                                                           \
		return mem_write##bits(c, lin, v, interp_acc(c));                                            \
	}
INTERP_DEFINE_ACCESS(8)
INTERP_DEFINE_ACCESS(16)
INTERP_DEFINE_ACCESS(32)
INTERP_DEFINE_ACCESS(64)

/* Opens the memory operand at seg:off for read-modify-write: checks that it may be read and written (a fault
 * is that of a write) and gives the linear address for mem_read and mem_write, which then succeed. */
static inline int interp_rmw(struct vcpu *c, unsigned seg, uint32_t off, unsigned size, uint32_t *lin)
{
	const struct tlb_entry *t;

	if (interp_linear(c, seg, off, size, true, lin))
		return -1;
	t = interp_tlb(c, *lin);
	if (likely(t->wtag == ((*lin & PAGE_MASK) | 1u) && (*lin & 0xfffu) <= PAGE_SIZE - size))
		return 0;
	return mem_probe(c, *lin, size, ACC_WRITE | interp_acc(c));
}

/* ------------------------------------------------------------------ registers */

static inline uint8_t reg8(const struct vcpu *c, unsigned r)
{
	return (uint8_t)(r < 4 ? c->gpr[r] : c->gpr[r - 4] >> 8);
}

static inline void set_reg8(struct vcpu *c, unsigned r, uint8_t v)
{
	if (r < 4)
		c->gpr[r] = (c->gpr[r] & 0xffffff00u) | v;
	else
		c->gpr[r - 4] = (c->gpr[r - 4] & 0xffff00ffu) | (uint32_t)v << 8;
}

static inline uint16_t reg16(const struct vcpu *c, unsigned r)
{
	return (uint16_t)c->gpr[r];
}

static inline void set_reg16(struct vcpu *c, unsigned r, uint16_t v)
{
	c->gpr[r] = (c->gpr[r] & 0xffff0000u) | v;
}

static inline uint32_t reg32(const struct vcpu *c, unsigned r)
{
	return c->gpr[r];
}

static inline void set_reg32(struct vcpu *c, unsigned r, uint32_t v)
{
	c->gpr[r] = v;
}

/* Writes the low size (2 or 4) bytes of a register. */
static inline void set_reg(struct vcpu *c, unsigned r, uint32_t v, unsigned size)
{
	if (size == 2)
		set_reg16(c, r, (uint16_t)v);
	else
		c->gpr[r] = v;
}

/* The r/m operand: rm8(c, i, &v), set_rm16(c, i, v), ... */
#define INTERP_DEFINE_RM(bits)                                                                               \
	static inline int rm##bits(struct vcpu *c, const struct insn *i, uint##bits##_t *v)                  \
	{                                                                                                    \
		if (i->mod == 3) {                                                                           \
			*v = reg##bits(c, i->rm);                                                            \
			return 0;                                                                            \
		}                                                                                            \
		return interp_read##bits(c, i->seg, interp_ea(c, i), v);                                     \
	}                                                                                                    \
	static inline int set_rm##bits(struct vcpu *c, const struct insn *i, uint##bits##_t v)               \
	{                                                                                                    \
		if (i->mod == 3) {                                                                           \
			set_reg##bits(c, i->rm, v);                                                          \
			return 0;                                                                            \
		}                                                                                            \
		return interp_write##bits(c, i->seg, interp_ea(c, i), v);                                    \
	}                                                                                                    \
	/* Reads the operand for a read-modify-write; *lin is where set_rmw puts the result. */              \
	static inline int rmw##bits(struct vcpu *c, const struct insn *i, uint##bits##_t *v, uint32_t *lin)  \
	{                                                                                                    \
		if (i->mod == 3) {                                                                           \
			*v = reg##bits(c, i->rm);                                                            \
			*lin = 0;                                                                            \
			return 0;                                                                            \
		}                                                                                            \
		if (interp_rmw(c, i->seg, interp_ea(c, i), bits / 8, lin))                                   \
			return -1;                                                                           \
		return mem_read##bits(c, *lin, v, interp_acc(c));                                            \
	}                                                                                                    \
	static inline int set_rmw##bits(struct vcpu *c, const struct insn *i, uint##bits##_t v,              \
					uint32_t lin)                                                        \
	{                                                                                                    \
		if (i->mod == 3) {                                                                           \
			set_reg##bits(c, i->rm, v);                                                          \
			return 0;                                                                            \
		}                                                                                            \
		return mem_write##bits(c, lin, v, interp_acc(c));                                            \
	}
INTERP_DEFINE_RM(8)
INTERP_DEFINE_RM(16)
INTERP_DEFINE_RM(32)

/* The r/m operand of 2 or 4 bytes. */
static inline int rm_value(struct vcpu *c, const struct insn *i, unsigned size, uint32_t *v)
{
	uint16_t w;

	if (size == 4)
		return rm32(c, i, v);
	if (rm16(c, i, &w))
		return -1;
	*v = w;
	return 0;
}

static inline int set_rm_value(struct vcpu *c, const struct insn *i, unsigned size, uint32_t v)
{
	return size == 4 ? set_rm32(c, i, v) : set_rm16(c, i, (uint16_t)v);
}

/* ------------------------------------------------------------------ stack
 *
 * Instructions that push or pop move a private stack pointer and give it to stack_set when nothing can fail
 * any more.
 */
static inline uint32_t stack_mask(const struct vcpu *c)
{
	return cpu_stack32(c) ? 0xffffffffu : 0xffffu;
}

static inline void stack_set(struct vcpu *c, uint32_t sp)
{
	if (cpu_stack32(c))
		c->gpr[ESP] = sp;
	else
		set_reg16(c, ESP, (uint16_t)sp);
}

static inline int stack_push(struct vcpu *c, uint32_t *sp, unsigned size, uint32_t v)
{
	uint32_t to = (*sp - size) & stack_mask(c);

	if (size == 4 ? interp_write32(c, SS, to, v) : interp_write16(c, SS, to, (uint16_t)v))
		return -1;
	*sp = to;
	return 0;
}

static inline int stack_pop(struct vcpu *c, uint32_t *sp, unsigned size, uint32_t *v)
{
	uint32_t from = *sp & stack_mask(c);
	uint16_t w;

	if (size == 4) {
		if (interp_read32(c, SS, from, v))
			return -1;
	} else {
		if (interp_read16(c, SS, from, &w))
			return -1;
		*v = w;
	}
	*sp = from + size;
	return 0;
}

/* ------------------------------------------------------------------ conditions */

/* Jcc, SETcc, CMOVcc: the condition in the low four opcode bits (SDM vol. 1 app. B). */
static inline bool interp_cond(const struct vcpu *c, unsigned cc)
{
	uint32_t f = c->flags;
	bool r;

	switch (cc >> 1 & 7u) {
	case 0:
		r = f & FL_OF;
		break;
	case 1:
		r = f & FL_CF;
		break;
	case 2:
		r = f & FL_ZF;
		break;
	case 3:
		r = f & (FL_CF | FL_ZF);
		break;
	case 4:
		r = f & FL_SF;
		break;
	case 5:
		r = f & FL_PF;
		break;
	case 6:
		r = !(f & FL_SF) != !(f & FL_OF);
		break;
	default:
		r = (f & FL_ZF) || !(f & FL_SF) != !(f & FL_OF);
		break;
	}
	return r != (cc & 1u);
}

/* ------------------------------------------------------------------ segmentation (segment.c) */

struct desc {
	uint32_t lo, hi;
	uint32_t addr; /* linear address of the descriptor */
};

static inline uint16_t desc_attr(const struct desc *d)
{
	return (uint16_t)(d->hi >> 8 & 0xf0ffu);
}

static inline unsigned desc_dpl(const struct desc *d)
{
	return d->hi >> 13 & 3u;
}

static inline bool desc_present(const struct desc *d)
{
	return d->hi & 0x8000u;
}

static inline bool desc_is_code(const struct desc *d)
{
	return (desc_attr(d) & (SEG_S | SEG_CODE)) == (SEG_S | SEG_CODE);
}

static inline bool desc_is_conforming(const struct desc *d)
{
	return desc_attr(d) & SEG_DC;
}

static inline bool desc_is_writable_data(const struct desc *d)
{
	return (desc_attr(d) & (SEG_S | SEG_CODE | SEG_RW)) == (SEG_S | SEG_RW);
}

/* Type of a system descriptor (SYS_*), or 0, which is no type, for code and data. */
static inline unsigned desc_sys_type(const struct desc *d)
{
	return desc_attr(d) & SEG_S ? 0 : desc_attr(d) & SEG_TYPE;
}

/* Error code that names a selector. ext: 1 while an external event or exception is being delivered. */
static inline uint32_t sel_error(uint16_t sel, uint32_t ext)
{
	return (sel & 0xfffcu) | ext;
}

/* The hidden part that loading d through sel gives. */
struct seg desc_to_seg(const struct desc *d, uint16_t sel);
/* Reads the descriptor of sel. 1: outside its table (or sel null); -1: page fault recorded. */
int desc_find(struct vcpu *c, uint16_t sel, struct desc *d);
/* The same, with a selector outside the table raised as vector(sel). A null selector raises vector(0). */
int desc_read(struct vcpu *c, uint16_t sel, unsigned vector, uint32_t ext, struct desc *d);
/* Sets the accessed bit in memory and in d, if it is clear. */
int desc_mark_accessed(struct vcpu *c, struct desc *d);
/* Changes the type byte (access rights) in memory: busy bits. */
int desc_write_rights(struct vcpu *c, struct desc *d, uint8_t set, uint8_t clear);

/* What a segment register of real mode and v8086 holds. */
struct seg seg_v86(uint16_t sel);
struct seg seg_real(const struct seg *old, uint16_t sel);
/* Segment registers that an outward return makes null: those that the new CPL may not use. */
void seg_drop_privileged(struct vcpu *c);
/* Loads CS and CPL; d has been checked and marked accessed. */
void seg_commit_cs(struct vcpu *c, const struct desc *d, uint16_t sel, unsigned cpl);
void seg_commit_cs_real(struct vcpu *c, uint16_t sel);
/* LLDT and LTR without the privilege check; in a task switch, vector is #TS. */
int ldtr_load(struct vcpu *c, uint16_t sel, unsigned vector);
int tr_load(struct vcpu *c, uint16_t sel);

/* A stack about to be switched to, or the current one: frames are pushed here before anything is committed.
 */
struct frame {
	struct seg ss;
	uint32_t sp;
	unsigned acc;	/* ACC_USER or 0 */
	uint32_t error; /* error code of the #SS that a push beyond the limit raises */
};
struct frame frame_current(const struct vcpu *c, uint32_t ext);
int frame_push(struct vcpu *c, struct frame *f, unsigned size, uint32_t v);
/* Stack pointer of f into ESP, respecting the stack's width. */
void frame_commit(struct vcpu *c, const struct frame *f);
/* SS:ESP for privilege level dpl from the TSS, checked (SDM vol. 3A 6.12.1, 5.8.5). */
int frame_inner(struct vcpu *c, unsigned dpl, uint32_t ext, struct frame *f);

/* ------------------------------------------------------------------ far transfers (far.c), tasks (task.c) */

int far_jump(struct vcpu *c, uint16_t sel, uint32_t off, unsigned opsize, uint32_t next_eip);
int far_call(struct vcpu *c, uint16_t sel, uint32_t off, unsigned opsize, uint32_t next_eip);
int far_return(struct vcpu *c, unsigned opsize, uint32_t release);

/* A protected-mode return to sel:eip: checks the code segment; then, when sel's RPL is an outer level, the
 * new stack. in->sp is where ESP and SS of an outer level would be popped from; release: bytes of parameters
 * on both stacks. */
int return_protected(struct vcpu *c, uint16_t sel, uint32_t eip, uint32_t sp, unsigned opsize,
		     uint32_t release);

enum task_reason { TASK_JUMP, TASK_CALL, TASK_INT, TASK_IRET };

struct task_event {
	enum task_reason why;
	uint32_t eip, eflags; /* what the old task's TSS is to hold */
	bool has_error;	      /* TASK_INT: error goes to the new task's stack */
	uint32_t error;
	uint32_t ext;
};
/* Switches to the task of TSS descriptor d, whose type and privilege the caller has checked. */
int task_switch(struct vcpu *c, uint16_t sel, struct desc *d, const struct task_event *ev);
/* Through a task gate: checks the TSS selector first. */
int task_gate(struct vcpu *c, const struct desc *gate, const struct task_event *ev);

/* ------------------------------------------------------------------ interrupts (intr.c) */

enum intr_kind {
	INTR_EXTERNAL, /* INTR, NMI */
	INTR_FAULT,    /* exception */
	INTR_SOFT,     /* INT n: subject to IOPL and the redirection bitmap in v8086 */
	INTR_SOFT3,    /* INT3, INTO: gate DPL is checked, IOPL is not */
	INTR_ICEBP,    /* INT1: like INT3, without the DPL check */
};
/* Enters the handler of vector; eip is what the frame shows. -1: a further exception is recorded. */
int intr_enter(struct vcpu *c, enum intr_kind kind, uint8_t vector, bool has_error, uint32_t error,
	       uint32_t eip);

/* ------------------------------------------------------------------ I/O permission (io.c) */
int io_check(struct vcpu *c, uint16_t port, unsigned size);

/* ------------------------------------------------------------------ debug conditions (debug.c, interp.c)
 *
 * A data or I/O breakpoint is noted when the access is made and raised as #DB after the instruction.
 */
extern uint32_t debug_pending;
void debug_note_data(struct vcpu *c, uint32_t lin, unsigned size, bool write);
void debug_note_io(struct vcpu *c, uint16_t port, unsigned size);
/* The instruction at linear address lin hits an enabled instruction breakpoint: the DR6 bits. */
uint32_t debug_exec_hit(const struct vcpu *c, uint32_t lin);
/* #DB with these DR6 bits. Returns -1. */
int debug_raise(struct vcpu *c, uint32_t dr6);

/* Single-step or a breakpoint is on: instructions are taken one at a time, string elements too. */
static inline bool interp_stepping(const struct vcpu *c)
{
	return (c->sysflags & FL_TF) || (c->dr[7] & 0xffu);
}

/* Begins an interrupt shadow: STI, MOV SS and POP SS. After the latter two, debug traps wait one instruction
 * as well. */
void interp_shadow(struct vcpu *c, bool stack_segment);
/* The current instruction has entered a handler or task: no single-step trap after it. */
void interp_entered(void);
/* It has loaded RF: leave that as it is for the next one. (interp_entered says so too.) */
void interp_loaded_rf(void);

/* PDPTEs of the page directory pointer table at cr3 into c->pdpte; #GP(0) for reserved bits (SDM vol.
 * 3A 4.4.1). */
int pdptes_load(struct vcpu *c, uint32_t cr3);

/* ------------------------------------------------------------------ x87, MMX, SSE (fpu*.c, sse*.c) */

/* Executes an instruction of opcodes D8-DF and 9B, or of maps 0F, 0F38, 0F3A outside the integer set. Makes
 * the CR0.EM, TS, MP and CR4.OSFXSR checks itself. Returns as a handler does; never INSN_JUMPED. */
int interp_fpu(struct vcpu *c, const struct insn *i);

#endif
