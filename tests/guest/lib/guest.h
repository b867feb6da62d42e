/*
 * Runtime of the guest tests. A test is one ELF that goes through its cases and prints a line for each. A
 * case runs a snippet of machine code in a chosen state (`in`: registers, segments, privilege, flags) until
 * something interrupts it, an exception or the int 0x30 that ends every snippet, and compares the state
 * then (`out`) with what the manual says:
 *
 *	CODE(ud, "movl $1, %eax", "ud2");
 *
 *	in.cs = USER_CODE, in.ss = USER_DATA;
 *	expect_fault("ud2 at cpl 3", &ud, X_UD, NO_ERROR);
 *	check("eax", out.eax, 1);
 *
 * `in` is back at its defaults (flat, CPL 0, interrupts off) after every run. Lines are the same on every
 * run and every correct machine, except:
 *	sdm: lines, for cases where QEMU is known to differ from the manual; the test still insists on the
 *	     manual's answer, unless it finds itself under QEMU's TCG
 *	cpu: lines, which depend on what CPUID offers
 *	measured: lines, with figures that no verdict is about
 * and those are left out of comparisons. "SDM" is the Intel 64 and IA-32 Architectures Software Developer's
 * Manual.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

struct state {
	uint32_t edi, esi, ebp, ebx, edx, ecx, eax;
	uint32_t gs, fs, es, ds;
	uint32_t eip, cs, eflags, esp, ss;
	uint32_t v86_es, v86_ds, v86_fs, v86_gs;
	uint32_t vector, error, cr2;
};

/* at is where the instruction of interest is, after where the next one is. */
struct snippet {
	const char *start, *at, *after;
};

enum exception {
	X_DE,
	X_DB,
	X_NMI,
	X_BP,
	X_OF,
	X_BR,
	X_UD,
	X_NM,
	X_DF,
	X_TS = 10,
	X_NP,
	X_SS,
	X_GP,
	X_PF,
	X_MF = 16,
	X_AC,
	X_MC,
	X_XM,
};

/* Snippet `name`: setup, then the instruction of interest, then int 0x30. */
#define CODE(name, setup, instruction) CODE_THEN(name, setup, instruction, "")
/* The same with more code between the instruction of interest and the int 0x30. */
#define CODE_THEN(name, setup, instruction, then)                                                            \
	__asm__(".pushsection .snippets, \"awx\"\n.balign 16\n" #name "_start:\n" setup "\n" #name           \
		"_at:\n" instruction "\n" #name "_after:\n" then "\n\tint $0x30\n.popsection");              \
	extern const char name##_start[], name##_at[], name##_after[];                                       \
	static const struct snippet name = {name##_start, name##_at, name##_after}
/* A place in assembly that C wants the address of. */
#define LABEL(name) extern char name[]

/* The TSS (SDM vol. 3A 8.2.1). */
struct tss {
	uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2;
	uint32_t cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
	uint32_t es, cs, ss, ds, fs, gs, ldt;
	uint16_t trap, io_map;
	uint8_t io_bitmap[32 + 8192 + 1];
} __attribute__((packed));

struct table_register {
	uint16_t limit;
	uint32_t base;
} __attribute__((packed));

/* entry.S */
extern struct state in, out;
extern uint32_t running;
void run_snippet(void);
void load_tables(const struct table_register *gdtr, const struct table_register *idtr, unsigned tss_selector);

/* guest.c */
extern uint64_t gdt[GDT_ENTRIES], idt[256];
extern struct table_register gdtr, idtr;
extern struct tss tss;
extern uint8_t snippet_stack[16384]; /* default stack of a snippet at CPL 0 */
extern uint8_t user_stack[16384];    /* default stack of one at CPL 3 */
extern uint8_t ring0_stack[16384];   /* what the TSS gives to CPL 0 */
extern bool on_tcg;
extern uint32_t multiboot_info; /* address of what the loader says (Multiboot 3.3) */

#define SNIPPET_STACK ((uint32_t)snippet_stack + sizeof(snippet_stack) - 64)
#define USER_STACK    ((uint32_t)user_stack + sizeof(user_stack) - 64)
#define RING0_STACK   ((uint32_t)ring0_stack + sizeof(ring0_stack))

/* The test: prints its cases. Its name comes from the build. */
void test(void);

void print(const char *format, ...);
/* The next line only: prefix "sdm:" with the section that says so, or "cpu:". */
void sdm(const char *section);
void cpu_line(void);
/* End here, with the verdict line and the exit status. */
void finish(void) __attribute__((noreturn));

/* Back to flat, CPL 0; happens after every run. user_mode: flat, CPL 3. */
void reset(void);
void user_mode(void);

/* Run, with no verdict. */
void run(const struct snippet *code);
/* Run and print a line; the verdicts: an exception with eip at the instruction; one with eip after it; none.
 */
bool expect_fault(const char *label, const struct snippet *code, unsigned vector, uint32_t error);
bool expect_trap(const char *label, const struct snippet *code, unsigned vector, uint32_t error);
bool expect_done(const char *label, const struct snippet *code);
/* As expect_fault, eip anywhere. */
bool expect_vector(const char *label, const struct snippet *code, unsigned vector, uint32_t error,
		   const void *eip);

/* A value that must be what the manual says. */
bool check(const char *label, uint32_t got, uint32_t want);
bool check_range(const char *label, uint32_t got, uint32_t low, uint32_t high);

/* Descriptors (SDM vol. 3A 3.4.5, 6.11). attributes: bits 8-23 of the second word, limit bits left out. */
#define SEG_CODE32	0x00409a00u
#define SEG_CODE16	0x00009a00u
#define SEG_DATA32	0x00409200u
#define SEG_DATA16	0x00009200u
#define SEG_TSS32	0x00008900u
#define SEG_TSS16	0x00008100u
#define SEG_LDT		0x00008200u
#define SEG_G		0x00800000u
#define SEG_PRESENT	0x00008000u
#define SEG_DPL(n)	((n) << 13)
#define SEG_EXPAND_DOWN 0x00000400u
#define SEG_CONFORMING	0x00000400u
#define SEG_WRITABLE	0x00000200u
#define SEG_ACCESSED	0x00000100u
#define GATE_INT32	0x8e00u
#define GATE_TRAP32	0x8f00u
#define GATE_INT16	0x8600u
#define GATE_TRAP16	0x8700u
#define GATE_TASK	0x8500u
#define GATE_CALL32	0x8c00u
#define GATE_CALL16	0x8400u

uint64_t segment(uint32_t base, uint32_t limit, uint32_t attributes);
uint64_t gate(uint16_t selector, uint32_t offset, uint32_t attributes);
/* Into the GDT; limit in units of the attributes' granularity. */
void set_segment(unsigned selector, uint32_t base, uint32_t limit, uint32_t attributes);
void set_gate(unsigned vector, const void *handler, uint32_t attributes);
/* The runtime's own handler again, with this DPL. */
void set_default_gate(unsigned vector, unsigned dpl);

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};
struct cpuid cpu_id(uint32_t leaf, uint32_t subleaf);
#define CPUID_FPU  (1u << 0)
#define CPUID_VME  (1u << 1)
#define CPUID_DE   (1u << 2)
#define CPUID_PSE  (1u << 3)
#define CPUID_TSC  (1u << 4)
#define CPUID_PAE  (1u << 6)
#define CPUID_APIC (1u << 9)
#define CPUID_SEP  (1u << 11)
#define CPUID_PGE  (1u << 13)
#define CPUID_PAT  (1u << 16)
#define CPUID_FXSR (1u << 24)
#define CPUID_SSE  (1u << 25)
bool cpu_has(uint32_t edx_bit);
bool cpu_has_nx(void);

void *memset(void *destination, int value, size_t size);
void *memcpy(void *destination, const void *source, size_t size);
int memcmp(const void *a, const void *b, size_t size);

#define CR0_PE	       0x00000001u
#define CR0_MP	       0x00000002u
#define CR0_EM	       0x00000004u
#define CR0_TS	       0x00000008u
#define CR0_ET	       0x00000010u
#define CR0_NE	       0x00000020u
#define CR0_WP	       0x00010000u
#define CR0_AM	       0x00040000u
#define CR0_PG	       0x80000000u
#define CR4_VME	       0x001u
#define CR4_PVI	       0x002u
#define CR4_TSD	       0x004u
#define CR4_DE	       0x008u
#define CR4_PSE	       0x010u
#define CR4_PAE	       0x020u
#define CR4_PGE	       0x080u
#define CR4_OSFXSR     0x200u
#define CR4_OSXMMEXCPT 0x400u

#define REGISTER_ACCESS(name)                                                                                \
	static inline uint32_t get_##name(void)                                                              \
	{                                                                                                    \
		uint32_t value;                                                                              \
		__asm__ volatile("mov %%" #name ", %0" : "=r"(value) : : "memory");                          \
		return value;                                                                                \
	}                                                                                                    \
	static inline void set_##name(uint32_t value)                                                        \
	{                                                                                                    \
		__asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory");                              \
	}
REGISTER_ACCESS(cr0)
REGISTER_ACCESS(cr2)
REGISTER_ACCESS(cr3)
REGISTER_ACCESS(cr4)
REGISTER_ACCESS(db0)
REGISTER_ACCESS(db1)
REGISTER_ACCESS(db2)
REGISTER_ACCESS(db3)
REGISTER_ACCESS(db6)
REGISTER_ACCESS(db7)

static inline void invlpg(uint32_t linear)
{
	__asm__ volatile("invlpg (%0)" : : "r"(linear) : "memory");
}

static inline uint64_t read_msr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

static inline void write_msr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* Memory as the tests see it: words at numeric addresses. */
#define MEM8(address)  (*(volatile uint8_t *)(uintptr_t)(address))
#define MEM16(address) (*(volatile uint16_t *)(uintptr_t)(address))
#define MEM32(address) (*(volatile uint32_t *)(uintptr_t)(address))

#endif
