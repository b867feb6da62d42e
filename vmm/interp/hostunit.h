/* hostunit.h - guest x87, MMX and SSE instructions executed on the host's own unit.
 *
 * What it is for: the results of floating-point and vector instructions, rounding, denormals, NaNs and
 * undefined corners included, are then the silicon's. Nothing of that is modelled in C, and the VMM itself is
 * compiled without floating point.
 *
 * How: for each distinct instruction a stub is generated once, which is the guest's instruction with its
 * operands put where the host can reach them, and a ret:
 *
 *     fld dword [esp+8]       D9 44 24 08     ->   fld dword [rsi]        D9 06        rsi: frame->mem
 *     cvttsd2si ebp, xmm1     F2 0F 2C E9     ->   cvttsd2si ecx, xmm1    F2 0F 2C C9  ecx: frame->ecx
 *     pextrd [edi*4], xmm2, 1 66 0F 3A 16 ..  ->   pextrd [rsi], xmm2, 1  66 0F 3A 16 16 01
 *
 * Registers of the unit keep their numbers. Segment overrides, 67 and prefixes that mean nothing are dropped,
 * and so all memory forms of an instruction share one stub. hostunit_run (fpu_host.S) loads the guest's unit
 * from the frame, calls the stub, stores the unit back into the frame, and leaves the host's own x87/SSE
 * state as it found it.
 *
 *     const struct hostunit_op *op = hostunit_lookup(c, i);
 *     struct hostunit_frame f;                  fill f.image, and f.mem if op->mem_read
 *     hostunit_run(&f, op->code);               f.image, f.mem, f.ecx, f.flags are the results
 *
 * The host never takes an exception for it: x87 exceptions are deferred by design (the stub of a waiting
 * instruction is only run when none is pending), SIMD exceptions are masked by the caller, who looks at the
 * flags (sse.c), and an instruction that the host or the guest's CPUID lacks gets no stub
 * (HOSTUNIT_UNDEFINED).
 *
 * The arena is one memfd mapped twice, written through one mapping and executed through the other.
 * Threads: the vCPU thread only.
 */
#ifndef BT86_VMM_INTERP_HOSTUNIT_H
#define BT86_VMM_INTERP_HOSTUNIT_H

/* Offsets in struct hostunit_frame for fpu_host.S; hostunit.c asserts them. */
#define HOSTUNIT_IMAGE 0
#define HOSTUNIT_MEM   512
#define HOSTUNIT_EAX   576
#define HOSTUNIT_ECX   580
#define HOSTUNIT_EDX   584
#define HOSTUNIT_FLAGS 592

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/cpu.h"
#include "translator/decode.h"

struct hostunit_frame {
	_Alignas(64) uint8_t image[512]; /* 64-bit FXSAVE image, in and out */
	uint8_t mem[64];		 /* the memory operand */
	uint32_t eax, ecx, edx;		 /* in; ecx also out */
	uint64_t flags;			 /* EFLAGS in and out. TF and AC must be clear */
};

/* What decides which of CR0, CR4 and a pending x87 exception an instruction looks at (SDM vol. 3A 2.5, 13.1).
 */
enum hostunit_class {
	HOSTUNIT_UNDEFINED, /* #UD */
	HOSTUNIT_X87,	    /* waiting x87 instructions */
	HOSTUNIT_X87_NOWAIT,
	HOSTUNIT_FWAIT,
	HOSTUNIT_MMX,
	HOSTUNIT_SSE,
	HOSTUNIT_SSE_MMX, /* SSE instructions with an MMX register operand */
	HOSTUNIT_FXSR,	  /* fxsave, fxrstor */
	HOSTUNIT_PLAIN,	  /* movnti: touches no state of the unit */
};

enum hostunit_align {
	HOSTUNIT_ANY,
	HOSTUNIT_ALIGN16,	    /* #GP(0) unless the linear address is a multiple of 16 */
	HOSTUNIT_ALIGN16_UNLESS_MM, /* the same while MXCSR.MM is clear (AMD misaligned SSE mode) */
};

struct hostunit_op {
	uint32_t key; /* 0: free */
	uint8_t class;
	uint8_t mem_size; /* bytes, 0: no memory operand */
	bool mem_read, mem_write;
	bool masked;	 /* maskmovq, maskmovdqu: the operand is at DS:EDI, bytes of it are stored */
	uint8_t align;	 /* enum hostunit_align */
	uint8_t dot;	 /* bytes of an element of DPPS or DPPD, else 0 */
	bool sets_flags; /* EFLAGS */
	int8_t gpr_in;	 /* guest register that frame->ecx is loaded from, or -1 */
	int8_t gpr_out;	 /* guest register that frame->ecx is stored to, or -1 */
	/* Instructions that are emulated on the image rather than run: 0, or -1 with c->exc. NULL: run code.
	 */
	int (*emulate)(struct vcpu *c, const struct insn *i);
	const void *code;
};

/* What the host's unit does in places where implementations differ, measured at start. */
struct hostunit_traits {
	uint32_t mxcsr_mask;	/* bits of MXCSR that may be set */
	bool fxsave_hides_ptrs; /* FXSAVE stores FIP, FDP and FOP as 0 unless FSW.ES */
	bool fop_only_unmasked; /* FOP is updated by unmasked exceptions only */
	bool fdp_only_unmasked; /* FDP likewise: CPUID.7.0:EBX[6] */
	bool no_fcs_fds;	/* FCS and FDS read as 0: CPUID.7.0:EBX[13] */
};
extern struct hostunit_traits hostunit_traits;

/* Maps the arena. Idempotent. Must run before the seccomp filter is in place. 0, or -1 with one line in err.
 */
int hostunit_init(char *err, size_t errlen);

/* The row for i, made on first use. Never NULL; valid until the next lookup. */
const struct hostunit_op *hostunit_lookup(const struct vcpu *c, const struct insn *i);

void hostunit_run(struct hostunit_frame *f, const void *code);

/* Stubs of fixed instructions: xmm0 with xmm1 to xmm0, or within xmm0. */
void hostunit_mulps(void);
void hostunit_mulpd(void);
void hostunit_haddps(void);
void hostunit_haddpd(void);

/* Whether a + b, a - b, a * b or a / b (what 0 to 3) of two floats (size 4) or doubles (8) is inexact on the
 * x87 under fcw, whose precision control gives the width of the result's significand and whose exponent
 * doesn't overflow. */
bool hostunit_inexact(const void *a, const void *b, unsigned what, unsigned size, unsigned fcw);

/* ------------------------------------------------------------------ the guest's unit in c->fpu (FXSAVE
 * image)
 *
 * FIP, FCS, FOP, FDP and FDS are kept in the places of the 32-bit FXSAVE layout (SDM vol. 1 table 10-2),
 * whether or not an exception is pending.
 */
enum {
	FX_FCW = 0,
	FX_FSW = 2,
	FX_FTW = 4, /* abridged: bit n clear if physical register n is empty */
	FX_FOP = 6,
	FX_FIP = 8,
	FX_FCS = 12,
	FX_FDP = 16,
	FX_FDS = 20,
	FX_MXCSR = 24,
	FX_MXCSR_MASK = 28,
	FX_ST = 32,
	FX_XMM = 160,
	FX_END = 288, /* XMM7's end: what there is in 32-bit mode */
};

#define FSW_EXC	    0x003fu /* IE DE ZE OE UE PE */
#define FSW_SF	    0x0040u
#define FSW_ES	    0x0080u
#define FSW_TOP	    0x3800u
#define FSW_B	    0x8000u
#define FSW_LOADED  0x7f7fu /* all but ES and B, which follow from the rest */
#define FCW_RESET   0x037fu
#define FCW_LOADED  0x1f3fu /* bit 6 reads as 1, the others as 0 */
#define FCW_ONE	    0x0040u
#define FOP_MASK    0x07ffu

#define MXCSR_EXC   0x0000003fu
#define MXCSR_PRE   0x00000007u /* IE DE ZE: found before computing */
#define MXCSR_UE    0x00000010u
#define MXCSR_MASKS 0x00001f80u
#define MXCSR_FTZ   0x00008000u
#define MXCSR_MM    0x00020000u
#define MXCSR_RESET 0x00001f80u

static inline uint16_t fx_get16(const uint8_t *fx, unsigned at)
{
	return (uint16_t)(fx[at] | fx[at + 1] << 8);
}

static inline uint32_t fx_get32(const uint8_t *fx, unsigned at)
{
	return fx_get16(fx, at) | (uint32_t)fx_get16(fx, at + 2) << 16;
}

static inline void fx_put16(uint8_t *fx, unsigned at, uint32_t v)
{
	fx[at] = (uint8_t)v;
	fx[at + 1] = (uint8_t)(v >> 8);
}

static inline void fx_put32(uint8_t *fx, unsigned at, uint32_t v)
{
	fx_put16(fx, at, v);
	fx_put16(fx, at + 2, v >> 16);
}

/* ------------------------------------------------------------------ parts of the interpreter's FPU code
 *
 * All return 0, or -1 with c->exc.
 */

/* Whether misaligned operands raise #AC now. */
bool fpu_alignment_checked(const struct vcpu *c);

/* fpu.c. Segment, limit, alignment (#AC, for multiples of ac_align) and breakpoint checks of i's memory
 * operand of len bytes. off is what FDP records. */
struct fpu_mem {
	uint32_t off, lin;
};
int fpu_operand(struct vcpu *c, const struct insn *i, unsigned len, bool write, unsigned ac_align,
		struct fpu_mem *m);

/* Fills the frame from the guest's state, all but its memory operand. */
void fpu_load_frame(const struct vcpu *c, const struct hostunit_op *op, struct hostunit_frame *f);

/* What the hook below says about a pending x87 exception under CR0.NE = 0. */
enum fpu_ferr {
	FPU_FERR_WAIT,	/* FERR# has been signalled: the instruction waits for the interrupt, EIP stays on it
			 */
	FPU_FERR_IGNORE /* IGNNE# is asserted: execute as if nothing were pending */
};
/* MS-DOS compatible error reporting (SDM vol. 1 8.7.2): called when a waiting instruction meets an unmasked
 * x87 exception while CR0.NE is 0. The machine raises IRQ 13 here. NULL: #MF is raised whatever CR0.NE says.
 */
extern enum fpu_ferr (*fpu_ferr_hook)(struct vcpu *c);

/* fpu_env.c: control instructions. hostunit.c's table points here. */
int fpu_fninit(struct vcpu *c, const struct insn *i);
int fpu_fnclex(struct vcpu *c, const struct insn *i);
int fpu_nothing(struct vcpu *c, const struct insn *i); /* feni, fdisi, fsetpm, fwait, fences */
int fpu_fldcw(struct vcpu *c, const struct insn *i);
int fpu_fnstcw(struct vcpu *c, const struct insn *i);
int fpu_fnstsw(struct vcpu *c, const struct insn *i);
int fpu_fnstenv(struct vcpu *c, const struct insn *i);
int fpu_fldenv(struct vcpu *c, const struct insn *i);
int fpu_fnsave(struct vcpu *c, const struct insn *i);
int fpu_frstor(struct vcpu *c, const struct insn *i);
int fpu_fxsave(struct vcpu *c, const struct insn *i);
int fpu_fxrstor(struct vcpu *c, const struct insn *i);

/* Gives FCW and FSW; ES and B are made to follow from the flags and masks. */
void fpu_set_control(uint8_t *fx, uint32_t fcw, uint32_t fsw);
/* FIP, FCS, FOP, FDP and FDS. Also for whoever has stored the unit while it was live: a host FXSAVE has host
 * addresses in these fields, or zeros. */
void fpu_set_pointers(uint8_t *fx, uint32_t fip, uint32_t fcs, uint32_t fop, uint32_t fdp, uint32_t fds);
/* TOP = 0, all registers full. */
void fpu_enter_mmx(uint8_t *fx);

/* sse.c, sse_exceptions.c */
int sse_ldmxcsr(struct vcpu *c, const struct insn *i);
int sse_stmxcsr(struct vcpu *c, const struct insn *i);
int sse_movnti(struct vcpu *c, const struct insn *i);
/* Runs op's stub under the guest's MXCSR without a host exception. 0 with the frame's MXCSR as the guest's is
 * to be, or -1 with #XM or #UD recorded and the guest's MXCSR flags updated; then the frame is void. */
int sse_run(struct vcpu *c, const struct insn *i, const struct hostunit_op *op, struct hostunit_frame *f);

#endif /* __ASSEMBLER__ */
#endif
