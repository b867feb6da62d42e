/* tr.h - the state of one block's translation. Private to this folder. */
#ifndef BT86_TRANSLATOR_TR_H
#define BT86_TRANSLATOR_TR_H

#include "translator/emit.h"
#include "translator/translator.h"

/* What a translation rule is chosen by (classify.c). */
enum insn_class {
	CL_INTERP,     /* callout to the interpreter, then on with the next instruction */
	CL_INTERP_END, /* the same, ending the block: it goes elsewhere or changes the mode */
	CL_IDENT,      /* bytes copied, prefixes added */
	CL_IDENT_FPU,  /* the same for x87, MMX and SSE: needs the FPU's permission */
	CL_LEA,
	CL_NOP,
	CL_INCDEC,
	CL_MOFFS,
	CL_STRING,
	CL_PUSH_REG,
	CL_PUSH_IMM,
	CL_PUSH_RM,
	CL_PUSH_SEG,
	CL_POP_REG,
	CL_POP_RM,
	CL_PUSHA,
	CL_POPA,
	CL_PUSHF,
	CL_POPF,
	CL_LEAVE,
	CL_MOV_FROM_SEG,
	CL_JCC,
	CL_LOOP,
	CL_JMP,
	CL_JMP_RM,
	CL_CALL,
	CL_CALL_RM,
	CL_RET,
	CL_CLI,
	CL_STI,
	CL_CLD,
	CL_STD,
	CL_RDTSC,
	CL_MOV_FROM_CR,
	CL_SEG_LOAD,
	CL_INT,
	CL_IRET,
	CL_SYSENTER,
	CL_SYSEXIT,
};

struct tr {
	struct emitter e; /* hot code */
	struct cache *k;
	struct block *b;
	const struct translate_request *rq;
	uint32_t cold; /* arena offset: cold code grows down from here */
	struct insn insn[CACHE_MAX_INSNS];
	uint8_t class[CACHE_MAX_INSNS];
	uint8_t site[CACHE_MAX_INSNS];	    /* SITE_*, without SITE_TRAPPED */
	uint32_t live[CACHE_MAX_INSNS + 1]; /* arithmetic flags that matter before instruction i */
	unsigned n;
	unsigned jccs, calls; /* so far */
	int32_t esp_off;      /* guest esp is r12 + this */
	bool ended;	      /* the last rule emitted its own exits */
	bool probed; /* the one access to memory of the instruction being translated is to [r10+r8] */
};

enum insn_class classify(const struct insn *i, uint32_t mode);
bool class_ends_block(enum insn_class cl);
/* Executed twice in the same state, it has the same results. */
bool insn_repeatable(const struct insn *i);
/* How the interpreter is called for it: what it has to do with the FPU, devices and the CPU's mode decides.
 */
enum callout insn_callout(const struct insn *i, enum insn_class cl);
bool callout_uses_fpu(enum callout co);
/* May raise an exception or leave the block: flags must be right before it. */
bool insn_may_fault(const struct insn *i, enum insn_class cl);

/* ---- shared by the rules (translate.c) */
struct emitter tr_cold(struct tr *t, unsigned bytes); /* a piece of cold code */
void tr_exit(struct tr *t, uint32_t patch, enum exit_kind kind, uint32_t target);
void tr_callout(struct tr *t, struct emitter *e, enum callout co, uint32_t eip, uint32_t arg);
static inline uint32_t tr_eip(const struct tr *t, unsigned i)
{
	return t->b->eip + t->b->side[i].guest;
}
static inline uint32_t tr_next(const struct tr *t, unsigned i)
{
	return tr_eip(t, i) + t->insn[i].len;
}
static inline uint64_t tr_gpa(const struct tr *t, unsigned i)
{
	return t->b->gpa + t->b->side[i].guest;
}
static inline unsigned tr_site(const struct tr *t, unsigned i)
{
	return t->site[i];
}
static inline struct host_mem tr_vcpu(size_t offset)
{
	return (struct host_mem){.base = R15, .index = -1, .scale = 1, .disp = (int32_t)offset};
}
/* Makes r12 esp again. */
void tr_settle_esp(struct tr *t);
/* To r8d through the table; to a constant target. */
void tr_jump_indirect(struct emitter *e, bool call);
void tr_jump_table(struct emitter *e, uint32_t target, bool call);
/* Behind the host call of instruction i, where its return arrives. */
void tr_behind_call(struct tr *t, unsigned i);

/* ---- ident.c */
static inline unsigned host_reg(unsigned guest)
{
	return guest == ESP ? GUEST_ESP : guest;
}
/* The guest's memory operand as host registers, without a window: for lea. */
struct host_mem ident_ea(const struct tr *t, const struct insn *i);
/* Where the operand is: through gs (plain), or in r8 plus a base register chosen by the site. Emits the
 * address computation. Returns false when the interpreter must do it. */
bool ident_operand(struct tr *t, unsigned i, struct host_mem *m);
/* Copies the instruction with its operands mapped. False: cannot be expressed. */
bool ident_emit(struct tr *t, unsigned i);

/* The bytes at its operand that it reads or writes, all of its accesses to memory; 0 if that can't be said of
 * it, or if its operand can't be [r10+r8]. */
unsigned ident_operand_bytes(const struct insn *i, bool *write);

/* ---- probe.c */
struct probe {
	unsigned n;	   /* probes emitted */
	uint32_t slow[2];  /* of the jumps to be led to what is to be done where there is no page */
	uint32_t there[2]; /* where it goes on if there is one */
	unsigned bytes[2]; /* of the access, if its address goes to r8 and r10; else 0 */
	bool write[2];
	bool segment[2]; /* it has a base and a poison */
};
bool probe_wanted(const struct tr *t, unsigned i);	     /* then r12 must be esp before and after */
void probe_begin(struct tr *t, unsigned i, struct probe *p); /* before the rule's code */
void probe_end(struct tr *t, unsigned i, const struct probe *p);

/* ---- rules.c. False: the interpreter must do it, and what was emitted is to be taken back. */
bool rule_emit(struct tr *t, unsigned i);
void rule_interp(struct tr *t, unsigned i);
/* Its rule can do with an r12 that is not esp (esp_off). */
bool rule_esp_may_wait(const struct tr *t, unsigned i);

#endif
