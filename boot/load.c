/* load.c - boot_load: files, formats, and what happens at a reset.
 *
 * Files are read once, completely, before the guest runs, and never looked at again: a reset loads the same
 * bytes even where the file has changed or the process can no longer open files. Under -no-reboot there will
 * be no reset, and the copies are dropped as soon as they are in guest memory.
 */
#include "boot/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Far above any kernel, debug information included; keeps a wrong path from filling the host's memory. */
#define KERNEL_FILE_MAX (1ull << 30)

/* Linked in where the build has it (boot/demo). */
extern const unsigned char bt86_demo_image_start[] __attribute__((weak));
extern const unsigned char bt86_demo_image_end[] __attribute__((weak));

/* ------------------------------------------------------------------ reading files */

/* Reads fd to its end: exactly size bytes, or it was cut short while we looked. */
static int read_all(struct boot *b, int fd, const char *name, uint8_t *buf, uint64_t size)
{
	for (uint64_t done = 0; done < size;) {
		ssize_t n = read(fd, buf + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return boot_fail(b, "cannot read '%s': %s", name, strerror(errno));
		if (n == 0)
			return boot_fail(b, "'%s' became shorter while it was read", name);
		done += (uint64_t)n;
	}
	return 0;
}

#define HUGE_PAGE (2ull << 20)

/* A kernel takes thousands of pages that nothing was in before: huge ones, where the host has them. */
static uint8_t *room(uint64_t size)
{
	const uint64_t whole = (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);

	if (size < HUGE_PAGE)
		return malloc(size);
	void *p = aligned_alloc(HUGE_PAGE, whole);
	if (p)
		madvise(p, whole, MADV_HUGEPAGE);
	return p;
}

static int read_open_file(struct boot *b, int fd, struct image *f, uint64_t max)
{
	struct stat st;

	if (fstat(fd, &st))
		return boot_fail(b, "cannot read '%s': %s", f->name, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return boot_fail(b, "'%s' is a directory; a file is needed", f->name);
	if (!S_ISREG(st.st_mode))
		return boot_fail(b, "'%s' is not a regular file (a pipe or a device); a file is needed",
				 f->name);
	if (st.st_size == 0)
		return boot_fail(b, "'%s' is empty", f->name);
	f->size = (uint64_t)st.st_size;
	if (f->size > max)
		return boot_fail(b, "'%s' has %llu MiB, more than %s (%llu MiB)", f->name,
				 (unsigned long long)f->size >> 20,
				 max == KERNEL_FILE_MAX ? "a kernel may have" : "the guest's memory",
				 (unsigned long long)max >> 20);
	f->owned = room(f->size);
	if (!f->owned)
		return boot_fail(b, "no memory to read '%s' (%llu MiB)", f->name,
				 (unsigned long long)f->size >> 20);
	f->data = f->owned;
	return read_all(b, fd, f->name, f->owned, f->size);
}

/* O_NONBLOCK: opening a FIFO must not wait for a writer. */
static int read_file(struct boot *b, struct image *f, const char *path, uint64_t max)
{
	int fd, rc;

	f->name = strdup(path);
	if (!f->name)
		return boot_fail(b, "out of memory");
	if (!*path)
		return boot_fail(b, "an empty file name was given");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return boot_fail(b, "cannot open '%s': %s", path, strerror(errno));
	rc = read_open_file(b, fd, f, max);
	close(fd);
	return rc;
}

static void drop_data(struct image *f)
{
	free(f->owned);
	f->owned = NULL;
	f->data = NULL;
}

static void free_image(struct image *f)
{
	drop_data(f);
	free(f->name);
	free(f->cmdline);
}

/* ------------------------------------------------------------------ -initrd */

/* One Multiboot module: "path args". */
static int read_module(struct boot *b, char *spec)
{
	struct image *f = &b->modules[b->nmodules];
	size_t len = strcspn(spec, " ");
	char *path = strndup(spec, len);
	int rc;

	b->nmodules++;
	f->cmdline = strdup(spec);
	if (!path || !f->cmdline)
		rc = boot_fail(b, "out of memory");
	else
		rc = read_file(b, f, path, b->ram);
	free(path);
	return rc;
}

/* "mod1 args,mod2": commas separate, two commas are one comma in a module's text (as in QEMU). */
static int read_modules(struct boot *b, const char *list)
{
	size_t len = strlen(list), n = 0;
	char *spec = malloc(len + 1);
	int rc = 0;

	if (!spec)
		return boot_fail(b, "out of memory");
	for (size_t i = 0; i <= len && !rc; i++) {
		if (list[i] == ',' && list[i + 1] == ',') {
			spec[n++] = ',';
			i++;
		} else if (list[i] != ',' && list[i]) {
			spec[n++] = list[i];
		} else {
			spec[n] = 0;
			n = 0;
			if (b->nmodules == PLAN_MODULES)
				rc = boot_fail(b, "-initrd names more than %u modules", PLAN_MODULES);
			else
				rc = read_module(b, spec);
		}
	}
	free(spec);
	return rc;
}

/* ------------------------------------------------------------------ formats */

static int plan_multiboot(struct boot *b, const char *initrd)
{
	if (initrd && *initrd && read_modules(b, initrd))
		return -1;
	return multiboot_plan(b);
}

static int plan_linux(struct boot *b, const char *initrd, int (*plan)(struct boot *))
{
	if (initrd) {
		b->nmodules = 1;
		if (read_file(b, &b->modules[0], initrd, b->ram))
			return -1;
	}
	return plan(b);
}

static int make_plan(struct boot *b, const char *initrd)
{
	const struct image *k = &b->kernel;

	if (multiboot_probe(k) >= 0)
		return plan_multiboot(b, initrd);
	if (linux_probe(k))
		return plan_linux(b, initrd, linux_plan_bzimage);
	if (elf_probe(k))
		return plan_linux(b, initrd, linux_plan_elf);
	if (k->size >= 2 && k->data[0] == 0x1f && k->data[1] == 0x8b)
		return boot_fail(b, "'%s' is gzip-compressed data, not a kernel", k->name);
	return boot_fail(b,
			 "'%s' is not a kernel that bt86 knows: Linux bzImage, Multiboot image or 32-bit ELF",
			 k->name);
}

/* The GDT gets a page of its own with room for a stack below it. */
static int place_gdt(struct boot *b)
{
	b->gdt = plan_place(b, 8192, 4096, LOW_FIRST, b->ram - 1, PLAN_BOTTOM);
	if (!b->gdt)
		return boot_fail(b, "'%s' leaves no room for a descriptor table", b->kernel.name);
	b->gdt += 4096;
	return 0;
}

static int load_kernel(struct boot *b, const struct boot_config *cfg)
{
	if (!cfg->demo)
		return read_file(b, &b->kernel, cfg->kernel, KERNEL_FILE_MAX);
	if (!bt86_demo_image_start)
		return boot_fail(b, "this build has no demo guest");
	b->kernel.name = strdup("demo");
	b->kernel.data = bt86_demo_image_start;
	b->kernel.size = (uintptr_t)bt86_demo_image_end - (uintptr_t)bt86_demo_image_start;
	return b->kernel.name ? 0 : boot_fail(b, "out of memory");
}

/* ------------------------------------------------------------------ */

static void on_reset(void *opaque)
{
	plan_apply(opaque);
}

static void drop_copies(struct boot *b)
{
	plan_free(b);
	drop_data(&b->kernel);
	for (unsigned i = 0; i < b->nmodules; i++)
		drop_data(&b->modules[i]);
}

struct boot *boot_load(struct machine *m, const struct boot_config *cfg, char *err, size_t errlen)
{
	struct boot *b = calloc(1, sizeof *b);

	if (!b) {
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	b->m = m;
	b->ram = mem_ram_bytes(machine_mem(m));
	b->append = cfg->append;
	b->rsdp = (uint32_t)acpi_install(m);
	mptable_install(m);
	if (load_kernel(b, cfg) || make_plan(b, cfg->initrd) || place_gdt(b)) {
		snprintf(err, errlen, "%s", b->err);
		boot_free(b);
		return NULL;
	}
	plan_apply(b);
	if (machine_cfg(m)->no_reboot)
		drop_copies(b);
	else
		machine_on_reset(m, on_reset, b);
	return b;
}

void boot_free(struct boot *b)
{
	if (!b)
		return;
	plan_free(b);
	free_image(&b->kernel);
	for (unsigned i = 0; i < b->nmodules; i++)
		free_image(&b->modules[i]);
	free(b);
}

const char *boot_describe(const struct boot *b)
{
	return b->describe;
}
