/* layout.h - what the generator, the silicon oracle and the guest kernel agree on: where things are mapped,
 * and what is handed over. Included by C of both word sizes and by assembly.
 *
 * A batch is up to SLOTS cases. Each has a slot of its own in the linear address space, the same on silicon
 *and in the guest (offsets within the slot):
 *
 *	0x1000-0x2fff	code, readable and executable	int3 wherever no code is
 *	0x4000-0x5fff	data, readable and writable
 *	0x6000-0x6fff	data, readable
 *
 * and nothing between them. All that the oracle and the guest kernel need for themselves lies in PRIVATE_AT
 *to PRIVATE_END; the rest of the 4 GiB is unmapped. In the guest, guest-physical addresses are the same as
 *linear ones.
 */
#ifndef SILICON_LAYOUT_H
#define SILICON_LAYOUT_H

#define SLOTS	    64
#define SLOT_AT	    0x20000000
#define SLOT_STRIDE 0x40000 /* no 16-bit offset leads from one into the next */
#define SLOT_CODE   0x1000
#define CODE_BYTES  0x2000
#define SLOT_DATA   0x4000
#define DATA_BYTES  0x3000 /* the last page is read-only */
#define RW_BYTES    0x2000

#define PRIVATE_AT  0x60000000
#define BATCH_AT    0x60000000
#define ALIAS_AT    0x60200000 /* guest: the slots' code pages again, writable by the kernel */
#define IMAGE_AT    0x61000000 /* the oracle's, and the guest kernel's, own code and data */
#define PRIVATE_END 0x62000000

/* Selectors as 64-bit Linux has them for compatibility mode; the guest's GDT follows. */
#define USER_CODE   0x23
#define USER_DATA   0x2b
#define USER_CODE64 0x33 /* must not get into CS on silicon */
#define CPU_NODE    0x7b /* its limit differs from CPU to CPU */
#define TLS_FIRST   12	 /* GDT entries 12-14 are the thread's */
#define TLS_SEL(n)  ((TLS_FIRST + (n)) << 3 | 3)

/* Attributes of a thread segment; it is always 32-bit data for CPL 3. */
#define TLS_PRESENT  1
#define TLS_WRITABLE 2
#define TLS_DOWN     4
#define TLS_PAGES    8

/* struct silicon_case */
#define CASE_GPR    512
#define CASE_EIP    544
#define CASE_EFLAGS 548
#define CASE_SEL    552
#define CASE_SIZE   1024
#define CODE_MAX    384

#define GUEST_PORT  0x510 /* reading it hands the results over and waits for the next batch */
#define GUEST_PANIC 0x514 /* written with a vector: the guest kernel has faulted */

#ifndef __ASSEMBLER__
#include <stdint.h>

struct silicon_tls {
	uint32_t base, limit, attr; /* limit as in a descriptor: bytes, or pages with TLS_PAGES */
};

struct silicon_case {
	uint8_t fx[512]; /* FXSAVE image */
	uint32_t gpr[8];
	uint32_t eip, eflags;
	uint32_t sel[6]; /* ES CS SS DS FS GS */
	struct silicon_tls tls[3];
	uint32_t reps;		    /* how often the code runs, each time from these registers */
	uint32_t code_at, code_len; /* where code[] goes, from the start of the slot's code pages */
	uint32_t slot;
	uint32_t unused[3];
	uint8_t code[CODE_MAX];
} __attribute__((aligned(64)));

/* The state as the exception that ended the case found it. */
struct silicon_result {
	uint8_t fx[512];
	uint32_t gpr[8];
	uint32_t eip, eflags;
	uint32_t sel[6];
	uint32_t vector, error, cr2;
	uint32_t unused[13];
} __attribute__((aligned(64)));

struct silicon_batch {
	uint32_t count;	   /* cases */
	uint32_t progress; /* the case that is running */
	uint32_t unused[14];
	struct silicon_case c[SLOTS];
	struct silicon_result r[SLOTS];
};

_Static_assert(sizeof(struct silicon_case) == CASE_SIZE, "layout");
_Static_assert(sizeof(struct silicon_result) == 640, "layout");
_Static_assert(__builtin_offsetof(struct silicon_case, gpr) == CASE_GPR, "layout");
_Static_assert(__builtin_offsetof(struct silicon_case, eip) == CASE_EIP, "layout");
_Static_assert(__builtin_offsetof(struct silicon_case, sel) == CASE_SEL, "layout");

/* The oracle's shared memory: a batch, then each slot's code and data pages. */
#define ORACLE_SLOTS	  ((sizeof(struct silicon_batch) + 4095u) & ~4095u)
#define ORACLE_SLOT_BYTES (CODE_BYTES + DATA_BYTES)
#define ORACLE_BYTES	  (ORACLE_SLOTS + SLOTS * ORACLE_SLOT_BYTES)
#endif

#endif
