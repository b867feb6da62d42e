/* linux.c - the Linux/x86 boot protocol, 32-bit entry (Linux Documentation/arch/x86/boot.rst, zero-page.rst).
 *
 * A bzImage is a real-mode part, which only its setup header is wanted of, and a protected-mode part, which
 * goes to 1 MiB and is entered there with ESI = boot_params ("zero page"), flat segments and interrupts off.
 * A vmlinux is entered at its physical entry point in the same way; it has no setup header, so boot_params
 * gets one of ours.
 */
#include "boot/plan.h"

#include <inttypes.h>
#include <string.h>

/* struct boot_params; the setup header stands at the same offset in the file. */
#define BP_SIZE		     4096u
#define BP_ACPI_RSDP_ADDR    0x070u
#define BP_ALT_MEM_K	     0x1e0u
#define BP_E820_ENTRIES	     0x1e8u
#define BP_E820_TABLE	     0x2d0u
#define E820_ENTRY_SIZE	     20u
#define HDR_FIRST	     0x1f1u
#define HDR_SETUP_SECTS	     0x1f1u
#define HDR_SYSSIZE	     0x1f4u
#define HDR_VID_MODE	     0x1fau
#define HDR_BOOT_FLAG	     0x1feu /* 0xaa55 */
#define HDR_JUMP_LEN	     0x201u /* the header ends at 0x202 plus this byte */
#define HDR_MAGIC	     0x202u /* "HdrS" */
#define HDR_VERSION	     0x206u
#define HDR_TYPE_OF_LOADER   0x210u
#define HDR_LOADFLAGS	     0x211u
#define HDR_CODE32_START     0x214u
#define HDR_RAMDISK_IMAGE    0x218u
#define HDR_RAMDISK_SIZE     0x21cu
#define HDR_CMD_LINE_PTR     0x228u /* 2.02 */
#define HDR_INITRD_ADDR_MAX  0x22cu /* 2.03 */
#define HDR_KERNEL_ALIGNMENT 0x230u /* 2.05 */
#define HDR_RELOCATABLE	     0x234u /* 2.05 */
#define HDR_XLOADFLAGS	     0x236u /* 2.12 */
#define HDR_CMDLINE_SIZE     0x238u /* 2.06 */
#define HDR_PREF_ADDRESS     0x258u /* 2.10 */
#define HDR_INIT_SIZE	     0x260u /* 2.10 */
#define HDR_END		     0x268u /* of the fields that are read here */
#define HDR_LAST	     0x290u /* boot_params has edd_mbr_sig_buffer from here on */

#define LOADED_HIGH	     0x01u
#define KEEP_SEGMENTS	     0x40u
#define CAN_USE_HEAP	     0x80u
#define XLF_KERNEL_64	     0x0001u

#define LOADER_UNDEFINED     0xffu
#define KERNEL_LOAD	     0x100000u

/* Where a 32-bit kernel's permanent mapping of memory ends, with the usual split at 3 GiB and room for
 * vmalloc. An initrd above it works too, but the kernel copies it down first. */
#define LOWMEM_LAST 0x36ffffffu

bool linux_probe(const struct image *f)
{
	return f->size >= HDR_END && get16(f->data + HDR_BOOT_FLAG) == 0xaa55 &&
	       memcmp(f->data + HDR_MAGIC, "HdrS", 4) == 0;
}

/* ------------------------------------------------------------------ is the file whole? */

static int truncated(struct boot *b, const char *what, uint64_t end)
{
	return boot_fail(b, "'%s' is truncated: its %s ends at byte %" PRIu64 " of a file of %" PRIu64,
			 b->kernel.name, what, end, b->kernel.size);
}

/* An EFI-stub kernel is a PE file as well, and one signed for secure boot carries its signature behind the
 * kernel: data directory 4 (PE/COFF specification, "Optional Header Data Directories") tells up to where. */
static int check_signature(struct boot *b)
{
	const struct image *f = &b->kernel;
	uint32_t pe = get32(f->data + 0x3c), dir;
	uint64_t end;

	if (get16(f->data) != 0x5a4d || pe > f->size || f->size - pe < 24 + 2 ||
	    memcmp(f->data + pe, "PE\0\0", 4))
		return 0;
	dir = pe + 24 + (get16(f->data + pe + 24) == 0x20b ? 112 : 96) + 4 * 8;
	if (dir + 8 > f->size)
		return 0;
	end = (uint64_t)get32(f->data + dir) + get32(f->data + dir + 4);
	return end > f->size ? truncated(b, "signature", end) : 0;
}

/* Finds the protected-mode part. */
static int find_payload(struct boot *b, unsigned version, uint64_t *offset, uint64_t *size)
{
	const struct image *f = &b->kernel;
	unsigned sects = f->data[HDR_SETUP_SECTS] ? f->data[HDR_SETUP_SECTS] : 4;
	uint64_t syssize = get32(f->data + HDR_SYSSIZE), have;

	*offset = (sects + 1) * 512u;
	if (f->size <= *offset)
		return truncated(b, "real-mode part", *offset);
	have = f->size - *offset;
	if (version < 0x204) { /* only 16 bits of the size are there */
		if (((have + 15) / 16 & 0xffff) != (syssize & 0xffff))
			return boot_fail(
				b,
				"'%s' is truncated: its kernel part has not the length that its header says",
				b->kernel.name);
		*size = have;
		return 0;
	}
	if (syssize == 0)
		return boot_fail(b, "'%s' is damaged: its header says that the kernel is empty",
				 b->kernel.name);
	*size = syssize * 16;
	if (*size > have) {
		/* Up to 2.6.30 the build did not pad the last paragraph. */
		if (version >= 0x20a || *size - have > 15)
			return truncated(b, "kernel part", *offset + *size);
		*size = have;
	}
	return check_signature(b);
}

/* ------------------------------------------------------------------ boot_params and what it points at */

struct linux_limits {
	uint64_t run_start, run_end; /* where the unpacked kernel will be; 0, 0 if it does not say */
	uint64_t initrd_max;	     /* last address that the initrd may use */
	uint64_t cmdline_max;
};

static int place_cmdline(struct boot *b, uint8_t *bp, uint64_t max)
{
	const char *cmdline = b->append ? b->append : "";
	uint64_t len = strlen(cmdline);
	uint32_t gpa;

	if (len > max)
		return boot_fail(b, "the -append line has %" PRIu64 " characters; this kernel takes %" PRIu64,
				 len, max);
	gpa = plan_place(b, len + 1, 16, 0x20000, 0x8ffff, PLAN_BOTTOM);
	if (!gpa)
		return boot_fail(b, "'%s' leaves no room below 640 KiB for the -append line", b->kernel.name);
	put32(bp + HDR_CMD_LINE_PTR, gpa);
	return plan_blob(b, gpa, cmdline, len + 1);
}

/* As high as the kernel can reach directly; failing that as high as it allows; failing that below the place
 * where the kernel unpacks itself (small memories). */
static int place_initrd(struct boot *b, uint8_t *bp, const struct linux_limits *l)
{
	const struct image *f = &b->modules[0];
	uint64_t last = b->ram - 1 < l->initrd_max ? b->ram - 1 : l->initrd_max;
	uint32_t gpa;

	if (b->nmodules == 0)
		return 0;
	gpa = plan_place(b, f->size, 4096, l->run_end > HIGH_MEM ? l->run_end : HIGH_MEM,
			 last < LOWMEM_LAST ? last : LOWMEM_LAST, PLAN_TOP);
	if (!gpa)
		gpa = plan_place(b, f->size, 4096, HIGH_MEM, last, PLAN_TOP);
	if (!gpa)
		return boot_fail(b,
				 "initrd '%s' (%" PRIu64
				 " KiB) does not fit into the guest's memory (%" PRIu64
				 " MiB) beside the kernel; use a bigger -m",
				 f->name, (f->size + 1023) >> 10, b->ram >> 20);
	put32(bp + HDR_RAMDISK_IMAGE, gpa);
	put32(bp + HDR_RAMDISK_SIZE, (uint32_t)f->size);
	return plan_borrow(b, gpa, f->data, f->size);
}

static int plan_boot_params(struct boot *b, uint8_t *bp, const struct linux_limits *l)
{
	struct e820 map[E820_MAX];
	unsigned n = boot_e820(b->ram, map);
	uint32_t gpa;

	bp[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	put16(bp + HDR_VID_MODE, 0xffff); /* "normal" */
	put32(bp + BP_ALT_MEM_K, (uint32_t)((b->ram - HIGH_MEM) >> 10));
	put64(bp + BP_ACPI_RSDP_ADDR, b->rsdp);
	bp[BP_E820_ENTRIES] = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *e = bp + BP_E820_TABLE + i * E820_ENTRY_SIZE;

		put64(e, map[i].base);
		put64(e + 8, map[i].size);
		put32(e + 16, map[i].type);
	}
	if (place_cmdline(b, bp, l->cmdline_max) || place_initrd(b, bp, l))
		return -1;
	gpa = plan_place(b, BP_SIZE, 4096, 0x10000, 0x9ffff, PLAN_BOTTOM);
	if (!gpa)
		return boot_fail(b, "'%s' leaves no room below 640 KiB for the boot parameters",
				 b->kernel.name);
	b->esi = gpa;
	return plan_blob(b, gpa, bp, BP_SIZE);
}

/* ------------------------------------------------------------------ the two kinds of kernel */

/* Since 2.10 the header tells how much memory the kernel needs, and where, until it has found the memory map.
 */
static int limits_of(struct boot *b, unsigned version, struct linux_limits *l)
{
	const uint8_t *h = b->kernel.data;

	*l = (struct linux_limits){.initrd_max = 0x37ffffff, .cmdline_max = 255};
	if (version >= 0x203)
		l->initrd_max = get32(h + HDR_INITRD_ADDR_MAX);
	if (version >= 0x206)
		l->cmdline_max = get32(h + HDR_CMDLINE_SIZE);
	if (l->cmdline_max > 0xffff)
		l->cmdline_max = 0xffff;
	if (version < 0x20a)
		return 0;
	l->run_start = get64(h + HDR_PREF_ADDRESS);
	if (h[HDR_RELOCATABLE]) {
		uint64_t align = get32(h + HDR_KERNEL_ALIGNMENT);
		uint64_t at = align & (align - 1) ? KERNEL_LOAD : (KERNEL_LOAD + align - 1) & ~(align - 1);

		if (align && at > l->run_start)
			l->run_start = at;
	}
	if (l->run_start > UINT32_MAX)
		return boot_fail(b, "'%s' wants to run above 4 GiB, which a 32-bit kernel cannot",
				 b->kernel.name);
	l->run_end = l->run_start + get32(h + HDR_INIT_SIZE);
	if (l->run_end > b->ram)
		return boot_fail(b,
				 "'%s' needs at least %" PRIu64 " MiB of memory; the guest has %" PRIu64
				 " MiB (-m)",
				 b->kernel.name, (l->run_end + 0xfffff) >> 20, b->ram >> 20);
	return plan_reserve(b, l->run_start, l->run_end - l->run_start);
}

int linux_plan_bzimage(struct boot *b)
{
	const uint8_t *h = b->kernel.data;
	unsigned version = get16(h + HDR_VERSION), end = 0x202u + h[HDR_JUMP_LEN];
	uint8_t bp[BP_SIZE] = {0};
	uint64_t offset = 0, size = 0;
	struct linux_limits l;

	if (version < 0x202)
		return boot_fail(b, "'%s' speaks Linux boot protocol %u.%02u; bt86 needs 2.02 or later",
				 b->kernel.name, version >> 8, version & 0xff);
	if (!(h[HDR_LOADFLAGS] & LOADED_HIGH))
		return boot_fail(b, "'%s' is a zImage, which loads below 640 KiB; bt86 boots bzImage kernels",
				 b->kernel.name);
	if (version >= 0x20c && get16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64)
		return boot_fail(b, "'%s' is a 64-bit kernel; bt86 runs 32-bit kernels", b->kernel.name);
	if (find_payload(b, version, &offset, &size) ||
	    plan_segment(b, KERNEL_LOAD, h + offset, size, size) || limits_of(b, version, &l))
		return -1;

	if (end > HDR_LAST)
		end = HDR_LAST;
	if (end > b->kernel.size)
		end = (unsigned)b->kernel.size;
	if (end > HDR_FIRST)
		memcpy(bp + HDR_FIRST, h + HDR_FIRST, end - HDR_FIRST);
	bp[HDR_LOADFLAGS] = (uint8_t)(bp[HDR_LOADFLAGS] & ~(KEEP_SEGMENTS | CAN_USE_HEAP));
	put32(bp + HDR_CODE32_START, KERNEL_LOAD);
	b->entry = KERNEL_LOAD;
	snprintf(b->describe, sizeof b->describe, "Linux bzImage, boot protocol %u.%u", version >> 8,
		 version & 0xff);
	return plan_boot_params(b, bp, &l);
}

int linux_plan_elf(struct boot *b)
{
	uint8_t bp[BP_SIZE] = {0};
	struct linux_limits l = {.initrd_max = 0x7fffffff, .cmdline_max = 2047};

	if (elf_load(b, &b->kernel, &b->entry, &l.run_end))
		return -1;
	put16(bp + HDR_BOOT_FLAG, 0xaa55);
	memcpy(bp + HDR_MAGIC, "HdrS", 4);
	put16(bp + HDR_VERSION, 0x20f);
	bp[HDR_LOADFLAGS] = LOADED_HIGH;
	put32(bp + HDR_KERNEL_ALIGNMENT, 0x1000000);
	snprintf(b->describe, sizeof b->describe, "ELF kernel, entered as Linux");
	return plan_boot_params(b, bp, &l);
}
