/* translator.h - turning a run of guest instructions into a block of host code.
 *
 * Table of contents: decode.h (the decoded form), the mode a translation is for, sites (what was learnt about
 * single instructions), translate_block, and the assembly border (entry.S). Threads: the vCPU thread only.
 */
#ifndef BT86_TRANSLATOR_H
#define BT86_TRANSLATOR_H

#include "cache/cache.h"
#include "cpu/cpu.h"
#include "translator/decode.h"
#include "translator/exit_reason.h"

/* ------------------------------------------------------------------ mode: all that a translation depends on
 * besides its code bytes. CS is flat, code and stack are 32-bit, CPL is 0 or 3: anything else is interpreted.
 */
#define MODE_USER  0x01u /* CPL 3 */
#define MODE_NF_DS 0x02u /* DS is not flat */
#define MODE_NF_ES 0x04u
#define MODE_NF_SS 0x08u
#define MODE_NOFPU 0x10u /* CR0.EM or CR0.TS: x87, MMX and SSE trap */
#define MODE_NOSSE 0x20u /* CR4.OSFXSR clear */
#define MODE_TSD   0x40u /* CR4.TSD */

/* Whether the translator takes the current CPU state at all. */
static inline bool translate_possible(const struct vcpu *c)
{
	return (c->cr0 & CR0_PE) && !(c->sysflags & (FL_VM | FL_TF | FL_RF)) &&
	       (c->cpl == 0 || c->cpl == 3) && (c->seg[CS].attr & SEG_DB) && (c->seg[SS].attr & SEG_DB) &&
	       !(c->dr[7] & 0xff) && cpu_seg_flat(&c->seg[CS]) &&
	       !(c->cr0 & CR0_AM && c->sysflags & FL_AC && c->cpl == 3);
}

/* not_flat: MODE_NF_* of the segment registers. */
static inline uint32_t translate_mode_with(const struct vcpu *c, uint32_t not_flat)
{
	return (c->cpl == 3 ? MODE_USER : 0) | not_flat | (c->cr0 & (CR0_EM | CR0_TS) ? MODE_NOFPU : 0) |
	       (c->cr4 & CR4_OSFXSR ? 0 : MODE_NOSSE) | (c->cr4 & CR4_TSD ? MODE_TSD : 0);
}

static inline uint32_t translate_mode(const struct vcpu *c)
{
	return translate_mode_with(c, (cpu_seg_flat_data(&c->seg[DS]) ? 0 : MODE_NF_DS) |
					      (cpu_seg_flat_data(&c->seg[ES]) ? 0 : MODE_NF_ES) |
					      (cpu_seg_flat_data(&c->seg[SS]) ? 0 : MODE_NF_SS));
}

/* ------------------------------------------------------------------ sites: what traps taught about
 * instructions, keyed by guest-physical address and privilege. Kept until the code bytes change, or longer if
 * it had to be learnt again (sites.c). */
#define SITE_USER    0x01u /* its memory operand is a user page: address through the user window */
#define SITE_MIXED   0x02u /* both: choose by slot */
#define SITE_CALLOUT 0x04u /* its access traps (trace, MMIO): do it in a callout */
#define SITE_KEEP                                                                                            \
	0x08u /* with SITE_CALLOUT: no trace and no device was the reason, so nothing tells when it ends */
#define SITE_PROBE   0x10u /* often meets user pages that the window lacks: ask mem_view.present first */
#define SITE_PROBE_W 0x20u /* ... for writing */
#define SITE_TRAPPED 0x80u /* has trapped once; says nothing to the translator */

unsigned site_get(uint64_t gpa, bool user);
void site_add(uint64_t gpa, bool user, unsigned flags);
/* The access trapped. True: it has before, make it a callout. */
bool site_trapped(uint64_t gpa, bool user);
/* A user page was not there. True: it has happened often, probe from now on. */
bool site_missed(uint64_t gpa, bool user);
void site_probe_hit(uint32_t index); /* a probe found that again */
/* An interrupt found the CPU near the site. True: its probe was hardly of use since the last time, and it has
 * been turned back; its blocks are to be translated anew. */
bool site_probe_sampled(uint64_t gpa, bool user);
/* A number for a site that has flags; it may name another one later, which does no harm. */
#define SITE_INDEX_MAX 0x7fffu
uint32_t site_index(uint64_t gpa, bool user);
/* The callout of a SITE_CALLOUT has run; needed: it met a trace or a device. True: the site was turned back,
 * its blocks are to be translated anew, *gpa is where it is. */
bool site_callout_done(uint32_t index, bool needed, uint64_t *gpa);
/* The bytes were overwritten. */
void site_forget(uint64_t gpa, unsigned len);
void site_forget_all(void);
uint64_t site_count(void);

/* ------------------------------------------------------------------ callouts; indices into cpu_hot.callouts
 */
enum callout {
	CO_INTERP,    /* interpret the instruction at eip; arg: its length | class << 8 (enum insn_class), and
			 for a SITE_CALLOUT site index << 16 | CO_ARG_SITE */
	CO_DEVICE,    /* the same for an instruction that has nothing to do with the FPU */
	CO_LIGHT,     /* the same for one that has nothing to do with devices either */
	CO_ACCESS,    /* the same for one that changes nothing but memory and general registers */
	CO_PROBE,     /* where a probe found no page; arg: length, class, site index << 16, CO_ARG_WRITE if that
			 was asked for, CO_ARG_ACCESS if the instruction changes only memory and registers */
	CO_PROBE_FPU, /* the same for an instruction that has to do with the FPU */
	CO_SEG_LOAD,  /* the same for a load of a segment register; arg as CO_ARG_SEG_SHIFT and so on say */
	CO_STI,	      /* IF was just set and a request is pending; arg: length */
	CO_INT,	      /* as CO_LIGHT, for int n */
	CO_IRET,      /* ... and iret */
	CO_MOV_TO_CR, /* as CO_LIGHT; arg with CO_ARG_CR_SHIFT and CO_ARG_GPR_SHIFT too */
	CO_FXSAVE,    /* as CO_LIGHT, for instructions that store or load all of the FPU state */
	CO_FXRSTOR,
	CO_SYSENTER,
	CO_SYSEXIT,
	CO_VERIFY, /* the beginning of a block, or of what follows a branch in it; arg: its number |
		      instruction << CO_VERIFY_INSN */
	CO_COUNT
};

#define CO_ARG_EXCEPTION    0x4000u /* with CO_ARG_SITE: an exception is a reason for the callout, too */
#define CO_ARG_SITE	    0x80000000u
#define CO_ARG_WRITE	    0x4000u
#define CO_ARG_ACCESS	    0x8000u
#define CO_ARG_VECTOR_SHIFT 16 /* CO_INT: which */
#define CO_ARG_CR_SHIFT	    16 /* CO_MOV_TO_CR: which, and from which general register */
#define CO_ARG_GPR_SHIFT    20
/* Of a load of a segment register: what besides the selector its effect depends on. */
#define CO_ARG_KEY	 0x000f0000u
#define CO_ARG_IS_LOAD	 0x00010000u /* always set */
#define CO_ARG_USER	 0x00020000u /* at CPL 3 */
#define CO_ARG_SS	 0x00040000u
#define CO_ARG_FLAT	 0x00080000u /* the register is flat and has to stay so: the mode says it is */
#define CO_ARG_SEG_SHIFT 20	     /* three bits: which register */
#define CO_ARG_POP_SHIFT 24	     /* four bits: what to add to ESP */
#define CO_VERIFY_INSN	 24

/* ------------------------------------------------------------------ translation */

/* Where loops begin, by guest-physical address: what is known of it, which may be forgotten. */
#define LOOPS	   16384u
#define LOOP_PAGES 2048u
struct loops {
	uint32_t at[LOOPS];	    /* hashed */
	uint64_t lines[LOOP_PAGES]; /* of the pages, hashed: in which 64 bytes a loop ever began */
};

static inline uint32_t loop_index(uint64_t gpa)
{
	return (uint32_t)(gpa * 0x9e3779b97f4a7c15ull >> 32) % LOOPS;
}

static inline bool loop_known(const struct loops *l, uint64_t gpa)
{
	return l->at[loop_index(gpa)] == (uint32_t)gpa;
}

static inline void loop_remember(struct loops *l, uint64_t gpa)
{
	l->at[loop_index(gpa)] = (uint32_t)gpa;
	l->lines[(gpa >> PAGE_SHIFT) % LOOP_PAGES] |= 1ull << (gpa >> 6 & 63);
}

/* False: none begins from first to last, which are on one page. */
static inline bool loop_near(const struct loops *l, uint64_t first, uint64_t last)
{
	const uint64_t on = l->lines[(first >> PAGE_SHIFT) % LOOP_PAGES] >> (first >> 6 & 63);

	return on << (63 - ((last >> 6) - (first >> 6)));
}

struct translate_request {
	uint64_t gpa;
	uint32_t eip;
	uint32_t mode;
	const uint8_t *code;   /* the page's bytes from gpa on */
	unsigned avail;	       /* how many: to the end of the page */
	const uint8_t *second; /* the following linear page's bytes (up to 15), NULL if not fetchable */
	uint64_t second_gpa;
	bool chain_cross; /* sole supervisor window: direct branches may leave the page */
	bool single;	  /* one instruction only */
	bool loop;	  /* a branch leads back to here */
	const struct loops *loops; /* NULL: none are known */
};

/* What the host CPU offers to emitted code. */
struct translate_host {
	bool bmi2;
	bool verify; /* each block, and each part behind a branch, begins with a callout (CO_VERIFY), and what
			gives another result each time is a callout too */
	/* Whether the guest's CPU model has the instruction; NULL: it has all that decode.c lets through. */
	bool (*offers)(const struct insn *i);
	bool count; /* not the CPU's but the user's wish: emitted code counts the instructions it runs
		       (hot.insns) */
};
extern struct translate_host translate_host;

void translate_init(void);
/* Never fails: what cannot be translated becomes a callout to the interpreter. The caller has made sure of
 * room (TRANSLATE_ROOM bytes, cache_has_room). Returns the committed block. */
#define TRANSLATE_ROOM 24576u
struct block *translate_block(struct cache *k, const struct translate_request *rq);

/* The name of a class that a callout's argument carries, for statistics. */
const char *insn_class_name(unsigned cl);
unsigned classify_insn(const struct insn *i, uint32_t mode);

/* -d in_asm, op, out_asm: prints both sides of a block. */
#define TRANSLATE_LOG_GUEST 1u
#define TRANSLATE_LOG_HOST  2u
void translate_log(const struct cache *k, const struct block *b, const uint8_t *code, unsigned len,
		   unsigned sides);
extern void (*translate_log_line)(const char *line);

/* ------------------------------------------------------------------ entry.S */
int bt_enter(struct vcpu *c);
extern const char bt_go_exit[], bt_go_miss[], bt_go_fault[];
extern const char bt_go_callout[], bt_go_callout_light[], bt_go_callout_device[];
extern const char bt_tail_start[], bt_tail_end[], bt_tail_on_start[], bt_tail_on_end[];
extern const char bt_tail_jump_start[], bt_tail_jump_end[];
/* entry_fast.S */
extern const char bt_go_callout_end[], bt_go_seg_load[], bt_go_sysenter[], bt_go_sysexit[];
extern const char bt_go_sysenter_slow[], bt_go_sysexit_slow[]; /* what these do in all but the common cases */
extern const char bt_tail_seg_start[], bt_tail_seg_end[], bt_tail_switch_start[], bt_tail_switch_end[];

#endif
