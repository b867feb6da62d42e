/* plan.h - what the loaders of this folder share: a boot plan.
 *
 * A loader (linux.c, multiboot.c) never touches guest memory. It reads an image that may be anything at all
 * and writes a plan: which bytes go where, and what the registers hold at the entry. When the plan stands,
 * everything has been checked, so that putting it into effect cannot fail; and a machine reset puts the same
 * plan into effect once more (plan_apply).
 *
 *     plan_segment(b, 0x100000, data, len, len)      where the image says
 *     gpa = plan_place(b, size, align, lo, hi, TOP)  where there is room
 *     plan_blob(b, gpa, data, size)                  our own structures; the plan takes a copy
 *
 * Addresses are guest-physical. Usable memory is what the E820 map calls RAM, less the first page.
 * Errors: -1, and the line for the user is in b->err.
 */
#ifndef BT86_BOOT_PLAN_H
#define BT86_BOOT_PLAN_H

#include "boot/boot.h"

#define BOOT_ERR_LEN 512u

/* The map of low memory that a PC BIOS leaves behind. */
#define BDA_GPA	     0x400u
#define LOW_FIRST    0x1000u  /* the first page is the interrupt vectors' and the BIOS data area's */
#define EBDA_GPA     0x9fc00u /* extended BIOS data area, 1 KiB, empty */
#define BIOS_ROM_GPA 0xe0000u /* ACPI tables */
#define MP_GPA	     0xf0000u /* MP tables: one of the places where kernels look */
#define HIGH_MEM     0x100000u
#define E820_MAX     4u

/* A file in memory, or the built-in image. */
struct image {
	char *name;    /* path, for messages and for the guest's command line */
	char *cmdline; /* Multiboot module: "path args" */
	const uint8_t *data;
	uint64_t size;
	uint8_t *owned; /* data, when it is ours to free */
};

struct chunk {
	uint32_t gpa;
	uint64_t size;	     /* of the range in guest memory */
	const uint8_t *data; /* its first len bytes; the rest is zeroed */
	uint64_t len;
	uint8_t *owned; /* data, when it is the plan's to free */
	bool reserved;	/* keep free: the guest will use it; nothing is written */
};

#define PLAN_CHUNKS  512u
#define PLAN_MODULES 64u

struct boot {
	struct machine *m;
	uint64_t ram;
	struct image kernel;
	struct image modules[PLAN_MODULES];
	unsigned nmodules;
	const char *append;
	struct chunk chunks[PLAN_CHUNKS];
	unsigned nchunks;
	uint32_t entry, eax, ebx, esi, gdt;
	uint32_t rsdp;
	bool applied; /* once: the guest may have run, and what comes now is a reset */
	char describe[80];
	char err[BOOT_ERR_LEN];
};

struct e820 {
	uint64_t base, size;
	uint32_t type; /* 1 RAM, 2 reserved */
};
unsigned boot_e820(uint64_t ram, struct e820 map[E820_MAX]);

/* The CPU has a local APIC: a 486 has none. */
bool boot_has_apic(struct machine *m);
/* What makes the sum of the n bytes and it 0 modulo 256. */
uint8_t boot_checksum(const uint8_t *p, uint32_t n);

int boot_fail(struct boot *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A piece of an image at the address that the image asks for: all of [gpa, gpa + size) must be usable memory.
 * data must outlive the plan. */
int plan_segment(struct boot *b, uint64_t gpa, const uint8_t *data, uint64_t len, uint64_t size);
/* Keeps a range free from plan_place. The part beyond RAM is nobody's and is ignored. */
int plan_reserve(struct boot *b, uint64_t gpa, uint64_t size);
enum plan_end { PLAN_BOTTOM, PLAN_TOP };
/* An address in [lo, hi] with room for size bytes, aligned (a power of two), as near that end as possible; 0
 * if there is none. Says nothing in b->err. */
uint32_t plan_place(struct boot *b, uint64_t size, uint32_t align, uint64_t lo, uint64_t hi,
		    enum plan_end end);
/* Bytes of ours at a place that plan_place gave: plan_blob copies them, plan_borrow points at them. */
int plan_blob(struct boot *b, uint32_t gpa, const void *data, uint64_t size);
int plan_borrow(struct boot *b, uint32_t gpa, const uint8_t *data, uint64_t size);
/* Writes everything to guest memory and sets the vCPU's entry state. */
void plan_apply(struct boot *b);
void plan_free(struct boot *b);

/* elf.c: 32-bit i386 ELF executables. elf_probe: is this an ELF file at all? elf_load: plans every PT_LOAD
 * segment at its physical address; entry becomes physical too; end is the first address behind the highest
 * segment. */
bool elf_probe(const struct image *f);
bool elf_is_64(const struct image *f); /* ELFCLASS64, or a machine other than i386 that is x86-64 */
int elf_load(struct boot *b, const struct image *f, uint32_t *entry, uint64_t *end);

/* linux.c */
bool linux_probe(const struct image *f); /* bzImage */
int linux_plan_bzimage(struct boot *b);
int linux_plan_elf(struct boot *b);

/* multiboot.c. multiboot_probe: byte offset of the header, or -1. */
long multiboot_probe(const struct image *f);
int multiboot_plan(struct boot *b);

/* Little-endian fields of untrusted bytes; the caller has checked the bounds. */
static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static inline uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static inline void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)v);
	put16(p + 2, (uint16_t)(v >> 16));
}

static inline void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

#endif
