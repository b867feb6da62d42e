/* silicon.h - comparing the interpreter and the translator with the host's CPU: what the parts of the program
 *are.
 *
 *	forms.c		every opcode form that user code can execute, from Zydis' tables
 *	values.c	random numbers that matter, register and memory contents
 *	single.c	cases of one instruction
 *	block.c		cases of many
 *	case.c		a case as text (--replay), and its memory
 *	sides.c		the processes that run cases: the silicon oracle, and bt86 with each accelerator
 *	compare.c	what must be the same
 *	rules.c		what may differ, each with the reason
 *	shrink.c	making a failing case small
 *	main.c		options, the loop, the report
 */
#ifndef SILICON_H
#define SILICON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cpu/x86.h"
#include "layout.h"
#include "translator/decode.h"

/* ------------------------------------------------------------------ values.c */

void rnd_seed(uint64_t seed);
uint32_t rnd(void);
static inline uint32_t below(uint32_t n) /* 0 to n - 1 */
{
	return rnd() % n;
}
static inline bool chance(unsigned percent)
{
	return below(100) < percent;
}

uint32_t random_word(void);	     /* a value that matters */
uint32_t random_flags(void);	     /* initial EFLAGS */
void random_fx(uint8_t fx[512]);     /* a loadable FXSAVE image */
uint16_t random_selector(void);	     /* for data segment registers and descriptor queries */
uint16_t random_code_selector(void); /* for far transfers */

/* ------------------------------------------------------------------ forms.c */

enum form_mod { MOD_NONE, MOD_MEM, MOD_REG };

struct form {
	uint8_t map, op;   /* as in struct insn */
	uint8_t prefix;	   /* 0, 66, F2 or F3 */
	uint8_t mod;	   /* enum form_mod */
	int8_t reg, rm;	   /* -1: any */
	uint16_t mnemonic; /* ZYDIS_MNEMONIC_INVALID: encodings that must raise #UD */
	bool lockable;
};

extern struct form *forms;
extern unsigned form_count;
void forms_init(void);
void form_name(const struct form *f, char *out, size_t len);

/* Whether the encoding may be compared: decodes as the same instruction on the guest's CPU and on silicon,
 * and no rule excludes it. *reason is set for EXCLUDED. */
enum form_verdict { FORM_OK, FORM_UNDEFINED, FORM_EXCLUDED };
enum form_verdict form_check(const uint8_t *p, unsigned avail, struct insn *i, const char **reason);

/* ------------------------------------------------------------------ case.c */

#define CASE_INSNS   64
#define CASE_PATCHES 12
#define CASE_POOL    1024
#define IMAGES	     48
#define FORM_NONE    0xffff

struct testcase {
	struct silicon_case c;
	unsigned slot;
	unsigned image; /* what the data pages hold, less the patches; image 0 is zeros */
	struct {
		uint16_t off, len, at; /* in the data pages; in pool */
	} patch[CASE_PATCHES];
	unsigned npatch, pooled;
	uint8_t pool[CASE_POOL];
	/* The instructions, for counting and shrinking: place in code[], form. */
	struct {
		uint16_t at, form;
		uint8_t len;
	} insn[CASE_INSNS];
	unsigned ninsn;
	bool branches; /* displacements in the code: instructions cannot simply be taken out */
};

static inline uint32_t slot_at(const struct testcase *t)
{
	return SLOT_AT + t->slot * SLOT_STRIDE;
}

void images_init(void);
void case_data(const struct testcase *t, uint8_t out[DATA_BYTES]);
/* Presets memory at a linear address, if that lies in the data pages. */
void case_poke(struct testcase *t, uint32_t linear, const void *bytes, unsigned len);
uint32_t case_base(const struct testcase *t, unsigned seg);
uint32_t case_address(const struct testcase *t, const struct insn *i); /* linear, of the memory operand */
/* The state that everything starts from: flat segments, useful thread segments, nothing in memory. */
void case_init(struct testcase *t, unsigned slot);
void case_print(FILE *out, const struct testcase *t);
int case_parse(struct testcase *t, const char *text);

/* ------------------------------------------------------------------ single.c, block.c */

void make_single(struct testcase *t, unsigned form);
void make_block(struct testcase *t);

/* Where memory operands are to be: at registers that point into the data pages, plus a small index. */
struct addressing {
	uint8_t pointer[4], npointers, index; /* pointer[0] is ESP */
	bool no_stack;			      /* not at ESP: the return address is there */
	uint32_t slot;			      /* its linear address */
};
/* Bytes of an instruction of the form, with the rest of p random. Returns its length, 0 if it did not work
 * out this time; i->len is 0 if it must raise #UD. a NULL: any address. */
unsigned encode_form(const struct form *f, uint8_t p[32], struct insn *i, const struct addressing *a);
/* A linear address in or around the data pages, of the kinds that matter. */
uint32_t random_target(const struct testcase *t);
uint32_t random_data_target(const struct testcase *t); /* one that does not fault */

/* ------------------------------------------------------------------ sides.c */

enum side_id { SILICON, INTERP, BT, SIDES };
extern const char *const side_names[SIDES];

/* Starts what is not running. 0, or -1 with a message. Exits with SIDE_SKIP if the host cannot run the
 * oracle. */
#define SIDE_SKIP 77
int side_start(enum side_id s, const char *dir);
/* hung: it may not be waiting for a request. */
void side_stop(enum side_id s, bool hung);
extern bool side_stats; /* print bt86's statistics when a machine is stopped */
/* Runs n cases: result k and the data pages of case k's slot are then to be seen. Cases have different slots.
 * 0, or -1 if the process died or did not answer in time; *at is then the number of the case. */
int side_run(enum side_id s, const struct testcase *t, unsigned n, unsigned *at);
const struct silicon_result *side_result(enum side_id s, unsigned k);
const uint8_t *side_data(enum side_id s, const struct testcase *t);

/* ------------------------------------------------------------------ compare.c, rules.c */

#define DIFF_VECTOR    0x001u
#define DIFF_ERROR     0x002u
#define DIFF_CR2       0x004u
#define DIFF_EIP       0x008u
#define DIFF_GPR       0x010u
#define DIFF_FLAGS     0x020u
#define DIFF_SEGMENT   0x040u
#define DIFF_FPU       0x080u
#define DIFF_MEMORY    0x100u
#define DIFF_UNDEFINED 0x200u /* only in flags that the manual leaves undefined: not a failure */
#define DIFF_PRIVATE   0x400u /* the case touched what is the oracle's: says nothing */
#define DIFF_DIED      0x800u
#define DIFF_EXCUSED   0x1000u /* a rule excuses everything */
#define DIFF_FAILURE   (~(DIFF_UNDEFINED | DIFF_PRIVATE | DIFF_EXCUSED))

unsigned compare(const struct testcase *t, enum side_id s, const struct silicon_result *want,
		 const struct silicon_result *got, const uint8_t *want_data, const uint8_t *got_data);
void print_difference(FILE *out, const struct testcase *t, enum side_id s, const struct silicon_result *want,
		      const struct silicon_result *got, const uint8_t *want_data, const uint8_t *got_data);

/* ------------------------------------------------------------------ shrink.c, main.c */

void shrink(struct testcase *t, enum side_id s);
unsigned shrink_test(const struct testcase *t, enum side_id s); /* runs it; how it differs */

/* Flags that the instruction leaves undefined, from our own reading of the manual. */
uint32_t undefined_flags(const struct insn *i, const struct testcase *t);
/* Why a mnemonic is not compared, or NULL. */
const char *excluded_mnemonic(unsigned mnemonic);
/* Takes from diff what a rule excuses, and counts for which. */
unsigned excuse(const struct testcase *t, const struct silicon_result *want, const struct silicon_result *got,
		unsigned diff);
void print_excuses(FILE *out);
/* Encodings that one vendor's CPUs give a meaning of their own. */
const char *excluded_encoding(const uint8_t *p, unsigned len);

#endif
