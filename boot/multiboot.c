/* multiboot.c - Multiboot 1 (the GNU Multiboot Specification 0.6.96): ELF and "a.out kludge" images, modules.
 *
 * Entry state (3.2): EAX = 0x2badb002, EBX = the information structure, flat 4 GiB segments, paging and
 * interrupts off, A20 on. The kernel's command line is "PATH ARGS", a module's what stood between the commas
 * of -initrd.
 */
#include "boot/plan.h"

#include <string.h>
#include <stdlib.h>

#define MB_SEARCH     8192u
#define MB_MAGIC      0x1badb002u
#define MB_BOOT_MAGIC 0x2badb002u

/* The header (3.1.1). */
#define MBH_FLAGS	  4u
#define MBH_CHECKSUM	  8u
#define MBH_SIZE	  12u
#define MBH_HEADER_ADDR	  12u
#define MBH_LOAD_ADDR	  16u
#define MBH_LOAD_END_ADDR 20u
#define MBH_BSS_END_ADDR  24u
#define MBH_ENTRY_ADDR	  28u
#define MBH_KLUDGE_SIZE	  32u

#define MBH_FLAG_KNOWN	  0x00000007u /* page-aligned modules, memory information, video mode */
#define MBH_FLAG_NEEDED	  0x0000ffffu /* a loader that does not know one of these must refuse */
#define MBH_FLAG_KLUDGE	  0x00010000u /* the address fields are valid */

/* The information structure (3.3). */
#define MBI_FLAGS	     0u
#define MBI_MEM_LOWER	     4u
#define MBI_MEM_UPPER	     8u
#define MBI_CMDLINE	     16u
#define MBI_MODS_COUNT	     20u
#define MBI_MODS_ADDR	     24u
#define MBI_MMAP_LENGTH	     44u
#define MBI_MMAP_ADDR	     48u
#define MBI_BOOT_LOADER_NAME 64u
#define MBI_SIZE	     116u
#define MMAP_ENTRY_SIZE	     24u
#define MOD_ENTRY_SIZE	     16u

#define MBI_HAS_MEM	     0x001u
#define MBI_HAS_CMDLINE	     0x004u
#define MBI_HAS_MODS	     0x008u
#define MBI_HAS_MMAP	     0x040u
#define MBI_HAS_LOADER_NAME  0x200u

static const char loader_name[] = "bt86";

long multiboot_probe(const struct image *f)
{
	uint64_t limit = f->size < MB_SEARCH ? f->size : MB_SEARCH;

	for (uint64_t i = 0; i + MBH_SIZE <= limit; i += 4) {
		const uint8_t *h = f->data + i;

		if (get32(h) == MB_MAGIC && get32(h) + get32(h + MBH_FLAGS) + get32(h + MBH_CHECKSUM) == 0)
			return (long)i;
	}
	return -1;
}

/* "a.out kludge": the header itself says where the file belongs. */
static int load_kludge(struct boot *b, uint64_t offset, uint64_t *end)
{
	const struct image *f = &b->kernel;
	const uint8_t *h = f->data + offset;
	uint32_t header_addr, load_addr, load_end, bss_end;
	uint64_t start, len, size;

	if (f->size - offset < MBH_KLUDGE_SIZE)
		return boot_fail(b, "'%s' is truncated inside its Multiboot header", f->name);
	header_addr = get32(h + MBH_HEADER_ADDR);
	load_addr = get32(h + MBH_LOAD_ADDR);
	load_end = get32(h + MBH_LOAD_END_ADDR);
	bss_end = get32(h + MBH_BSS_END_ADDR);
	if (load_addr > header_addr || header_addr - load_addr > offset)
		return boot_fail(b,
				 "'%s' is damaged: its Multiboot load address 0x%x does not fit its header "
				 "address 0x%x",
				 f->name, load_addr, header_addr);
	start = offset - (header_addr - load_addr);
	len = load_end ? (uint64_t)load_end - load_addr : f->size - start;
	if (load_end && load_end <= header_addr)
		return boot_fail(
			b, "'%s' is damaged: its Multiboot load range 0x%x-0x%x leaves its own header out",
			f->name, load_addr, load_end);
	if (len > f->size - start)
		return boot_fail(b, "'%s' is truncated: its contents end at byte %llu of a file of %llu",
				 f->name, (unsigned long long)(start + len), (unsigned long long)f->size);
	size = len;
	if (bss_end) {
		if (bss_end < load_addr + len)
			return boot_fail(
				b, "'%s' is damaged: its Multiboot bss ends at 0x%x, inside the loaded part",
				f->name, bss_end);
		size = bss_end - load_addr;
	}
	b->entry = get32(h + MBH_ENTRY_ADDR);
	*end = load_addr + size;
	return plan_segment(b, load_addr, f->data + start, len, size);
}

static int place_modules(struct boot *b, uint64_t end, uint32_t *at)
{
	for (unsigned i = 0; i < b->nmodules; i++) {
		const struct image *f = &b->modules[i];

		at[i] = plan_place(b, f->size, 4096, end > HIGH_MEM ? end : HIGH_MEM, b->ram - 1,
				   PLAN_BOTTOM);
		if (!at[i])
			return boot_fail(
				b,
				"module '%s' (%llu KiB) does not fit into the guest's memory (%llu MiB); "
				"use a bigger -m",
				f->name, (unsigned long long)(f->size + 1023) >> 10,
				(unsigned long long)b->ram >> 20);
		if (plan_borrow(b, at[i], f->data, f->size))
			return -1;
	}
	return 0;
}

/* Lays the strings out one after the other; p is NULL on the pass that only measures. */
static uint32_t put_string(uint8_t *p, uint32_t at, const char *a, const char *sep, const char *c)
{
	size_t la = strlen(a), ls = strlen(sep), lc = strlen(c);

	if (p) {
		memcpy(p + at, a, la);
		memcpy(p + at + la, sep, ls);
		memcpy(p + at + la + ls, c, lc + 1);
	}
	return at + (uint32_t)(la + ls + lc + 1);
}

/* Writes the information structure as it looks at guest address base, or only measures it with p NULL. */
static uint32_t build_info(const struct boot *b, uint8_t *p, uint32_t base, const uint32_t *modules)
{
	struct e820 map[E820_MAX];
	unsigned n = boot_e820(b->ram, map);
	uint32_t mmap = MBI_SIZE, mods = mmap + n * MMAP_ENTRY_SIZE, at = mods + b->nmodules * MOD_ENTRY_SIZE;
	const char *append = b->append ? b->append : "";

	if (p) {
		put32(p + MBI_FLAGS,
		      MBI_HAS_MEM | MBI_HAS_CMDLINE | MBI_HAS_MODS | MBI_HAS_MMAP | MBI_HAS_LOADER_NAME);
		put32(p + MBI_MEM_LOWER, EBDA_GPA >> 10);
		put32(p + MBI_MEM_UPPER, (uint32_t)((b->ram - HIGH_MEM) >> 10));
		put32(p + MBI_MMAP_LENGTH, n * MMAP_ENTRY_SIZE);
		put32(p + MBI_MMAP_ADDR, base + mmap);
		put32(p + MBI_MODS_COUNT, b->nmodules);
		put32(p + MBI_MODS_ADDR, base + mods);
		put32(p + MBI_CMDLINE, base + at);
		for (unsigned i = 0; i < n; i++) {
			uint8_t *e = p + mmap + i * MMAP_ENTRY_SIZE;

			put32(e, MMAP_ENTRY_SIZE - 4);
			put64(e + 4, map[i].base);
			put64(e + 12, map[i].size);
			put32(e + 20, map[i].type);
		}
	}
	at = put_string(p, at, b->kernel.name, *append ? " " : "", append);
	if (p)
		put32(p + MBI_BOOT_LOADER_NAME, base + at);
	at = put_string(p, at, loader_name, "", "");
	for (unsigned i = 0; i < b->nmodules; i++) {
		if (p) {
			uint8_t *e = p + mods + i * MOD_ENTRY_SIZE;

			put32(e, modules[i]);
			put32(e + 4, (uint32_t)(modules[i] + b->modules[i].size));
			put32(e + 8, base + at);
		}
		at = put_string(p, at, b->modules[i].cmdline, "", "");
	}
	return at;
}

static int plan_info(struct boot *b, const uint32_t *modules)
{
	uint32_t size = build_info(b, NULL, 0, modules), gpa;
	uint8_t *info;
	int rc;

	gpa = plan_place(b, size, 16, 0x10000, b->ram - 1, PLAN_BOTTOM);
	if (!gpa)
		return boot_fail(b, "'%s' leaves no room for the Multiboot information", b->kernel.name);
	info = calloc(1, size);
	if (!info)
		return boot_fail(b, "out of memory");
	build_info(b, info, gpa, modules);
	rc = plan_blob(b, gpa, info, size);
	free(info);
	b->eax = MB_BOOT_MAGIC;
	b->ebx = gpa;
	return rc;
}

int multiboot_plan(struct boot *b)
{
	uint64_t offset = (uint64_t)multiboot_probe(&b->kernel), end = 0;
	uint32_t flags = get32(b->kernel.data + offset + MBH_FLAGS), modules[PLAN_MODULES];
	bool kludge = flags & MBH_FLAG_KLUDGE;

	if (flags & MBH_FLAG_NEEDED & ~MBH_FLAG_KNOWN)
		return boot_fail(b, "'%s' asks for Multiboot features (flags 0x%x) that bt86 does not have",
				 b->kernel.name, flags & MBH_FLAG_NEEDED & ~MBH_FLAG_KNOWN);
	if (!kludge && !elf_probe(&b->kernel))
		return boot_fail(b,
				 "'%s' has a Multiboot header without load addresses and is not an ELF file",
				 b->kernel.name);
	if (kludge ? load_kludge(b, offset, &end) : elf_load(b, &b->kernel, &b->entry, &end))
		return -1;
	snprintf(b->describe, sizeof b->describe, "Multiboot %s",
		 kludge ? "image with load addresses" : "ELF");
	return place_modules(b, end, modules) ? -1 : plan_info(b, modules);
}
