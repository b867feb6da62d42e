/* test_boot.c - the loaders and the symbol reader against images made here: what they place where, what they
 * refuse.
 *
 * The machine is a piece of anonymous memory with a vCPU; a write outside RAM is an assertion failure. Images
 * are files in a temporary directory, since reading files is half of what is tested.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "boot/plan.h"
#include "devices/devices.h"

#include <elf.h> /* last: its PF_W gives way to the page fault bit of that name */

#define MIB (1024u * 1024u)

/* ------------------------------------------------------------------ the machine */

struct mem {
	uint8_t *ram;
	uint64_t bytes;
};

struct machine {
	struct machine_config cfg;
	struct mem mem;
	struct vcpu vcpu;
	bool has_apic;
	void (*reset)(void *opaque);
	void *reset_opaque;
};

static struct machine fake;
static char dir[] = "/tmp/bt86-test-boot.XXXXXX";
static char err[512];

struct mem *machine_mem(struct machine *m)
{
	return &m->mem;
}

struct vcpu *machine_vcpu(struct machine *m)
{
	return &m->vcpu;
}

const struct machine_config *machine_cfg(const struct machine *m)
{
	return &m->cfg;
}

void machine_on_reset(struct machine *m, void (*fn)(void *opaque), void *opaque)
{
	m->reset = fn;
	m->reset_opaque = opaque;
}

uint64_t mem_ram_bytes(const struct mem *m)
{
	return m->bytes;
}

void mem_phys_write(struct mem *m, uint64_t gpa, const void *buf, uint64_t len)
{
	assert_true(len <= m->bytes && gpa <= m->bytes - len);
	assert_false(gpa < 0xc0000 && gpa + len > 0xa0000 && len);
	if (len)
		memcpy(m->ram + gpa, buf, len);
}

void mem_load(struct mem *m, uint64_t gpa, const void *buf, uint64_t len)
{
	mem_phys_write(m, gpa, buf, len);
}

void cpuid_query(const struct vcpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	(void)c, (void)subleaf;
	memset(out, 0, 16);
	if (leaf == 1)
		out[3] = fake.has_apic ? 1u << 9 : 0;
	if (leaf == 0x80000000u)
		out[0] = 0x80000008u;
	if (leaf == 0x80000008u)
		out[0] = 36;
}

static void set_ram(uint64_t bytes)
{
	if (fake.mem.ram)
		munmap(fake.mem.ram, fake.mem.bytes);
	fake.mem.ram =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(fake.mem.ram, MAP_FAILED);
	fake.mem.bytes = bytes;
	fake.cfg.no_reboot = false;
	fake.has_apic = true;
	fake.reset = NULL;
}

static uint32_t ram32(uint64_t gpa)
{
	return get32(fake.mem.ram + gpa);
}

/* ------------------------------------------------------------------ files */

/* The path of a file in the temporary directory; good until the call after the next four. */
static const char *path_of(const char *name)
{
	static char paths[4][128];
	static unsigned next;
	char *p = paths[next++ % 4];

	snprintf(p, sizeof paths[0], "%s/%s", dir, name);
	return p;
}

static const char *write_file(const char *name, const void *data, size_t len)
{
	const char *path = path_of(name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), (ssize_t)len);
	close(fd);
	return path;
}

/* A file of that length made of its own offsets. */
static const char *write_pattern(const char *name, size_t len)
{
	uint32_t *p = malloc(len + 4);
	const char *path;

	assert_non_null(p);
	for (size_t i = 0; i * 4 < len; i++)
		p[i] = (uint32_t)i * 2654435761u;
	path = write_file(name, p, len);
	free(p);
	return path;
}

static void check_pattern(uint64_t gpa, size_t len)
{
	for (size_t i = 0; i < len / 4; i++)
		if (ram32(gpa + i * 4) != (uint32_t)i * 2654435761u)
			fail_msg("byte %zu is wrong", i * 4);
}

static struct boot *load(const char *kernel, const char *initrd, const char *append)
{
	const struct boot_config cfg = {.kernel = kernel, .initrd = initrd, .append = append};
	struct boot *b;

	err[0] = 0;
	b = boot_load(&fake, &cfg, err, sizeof err);
	if (!b) {
		assert_true(err[0]);
		assert_null(strchr(err, '\n'));
	}
	return b;
}

static void refused(const char *kernel, const char *initrd, const char *why)
{
	struct boot *b = load(kernel, initrd, NULL);

	boot_free(b);
	assert_null(b);
	if (!strstr(err, why))
		fail_msg("'%s' does not say '%s'", err, why);
}

static struct boot *accepted(const char *kernel, const char *initrd, const char *append)
{
	struct boot *b = load(kernel, initrd, append);

	if (!b)
		fail_msg("refused: %s", err);
	return b;
}

/* ------------------------------------------------------------------ images */

#define BZ_SETUP (4u * 512)
#define BZ_PM	 (60u * 1024)
#define BZ_SIZE	 (BZ_SETUP + BZ_PM)
#define BZ_INIT	 (8u * MIB)
#define BZ_PREF	 (16u * MIB)

/* A bzImage as Debian's: relocatable, wants to run at 16 MiB, protocol 2.15. */
static void make_bzimage(uint8_t *p)
{
	memset(p, 0xcc, BZ_SIZE);
	memset(p, 0, 0x268);
	p[0x1f1] = BZ_SETUP / 512 - 1;
	put32(p + 0x1f4, BZ_PM / 16);
	put16(p + 0x1fe, 0xaa55);
	p[0x200] = 0xeb;
	p[0x201] = 0x6a;
	memcpy(p + 0x202, "HdrS", 4);
	put16(p + 0x206, 0x20f);
	p[0x211] = 0x01;
	put32(p + 0x214, 0x100000);
	put32(p + 0x22c, 0x7fffffff);
	put32(p + 0x230, 0x1000000);
	p[0x234] = 1;
	put16(p + 0x236, 0x4);
	put32(p + 0x238, 2047);
	put32(p + 0x258, BZ_PREF);
	put32(p + 0x260, BZ_INIT);
	for (unsigned i = 0; i < BZ_PM; i += 4)
		put32(p + BZ_SETUP + i, 0xb0000000u + i);
}

static void check_flat(const struct seg *s)
{
	assert_true(cpu_seg_flat(s));
	assert_true(s->attr & SEG_DB);
}

static void check_cpu(uint32_t eip)
{
	const struct vcpu *c = &fake.vcpu;

	assert_int_equal(c->eip, eip);
	assert_int_equal(c->cr0, CR0_PE | CR0_ET);
	assert_int_equal(cpu_eflags(c), FL_1);
	assert_int_equal(c->cpl, 0);
	for (unsigned i = 0; i < 6; i++)
		check_flat(&c->seg[i]);
	assert_int_equal(c->seg[CS].sel, 0x10);
	assert_int_equal(c->seg[DS].sel, 0x18);
	assert_true(c->seg[CS].attr & SEG_CODE);
	assert_int_equal(ram32(c->gdtr.base + 0x10), 0x0000ffff);
	assert_int_equal(ram32(c->gdtr.base + 0x14), 0x00cf9b00);
	assert_int_equal(ram32(c->gdtr.base + 0x18), 0x0000ffff);
	assert_int_equal(ram32(c->gdtr.base + 0x1c), 0x00cf9300);
	assert_int_equal(c->a20_mask, 0xffffffffu);
}

static void check_e820(const uint8_t *table, unsigned n, unsigned stride)
{
	static const uint64_t want[4][2] = {
		{0, 0x9fc00}, {0x9fc00, 0x400}, {0xe0000, 0x20000}, {0x100000, 0}};

	assert_int_equal(n, 4);
	for (unsigned i = 0; i < 4; i++) {
		const uint8_t *e = table + i * stride;

		assert_int_equal(get64(e), want[i][0]);
		assert_int_equal(get64(e + 8), i < 3 ? want[i][1] : fake.mem.bytes - 0x100000);
		assert_int_equal(get32(e + 16), i == 1 || i == 2 ? 2 : 1);
	}
}

static void bzimage_is_placed(void **state)
{
	uint8_t img[BZ_SIZE];
	const char *kernel, *initrd;
	struct boot *b;
	const uint8_t *bp;

	(void)state;
	make_bzimage(img);
	set_ram(64 * MIB);
	kernel = write_file("bzimage", img, sizeof img);
	initrd = write_pattern("initrd", 1000001);
	b = accepted(kernel, initrd, "console=ttyS0 quiet");
	check_cpu(0x100000);
	assert_int_equal(fake.vcpu.gpr[EBX] | fake.vcpu.gpr[EBP] | fake.vcpu.gpr[EDI], 0);
	assert_memory_equal(fake.mem.ram + 0x100000, img + BZ_SETUP, BZ_PM);
	assert_true(strstr(boot_describe(b), "2.15"));

	bp = fake.mem.ram + fake.vcpu.gpr[ESI];
	check_e820(bp + 0x2d0, bp[0x1e8], 20);
	assert_int_equal(bp[0x1ef], 0); /* sentinel */
	assert_int_equal(bp[0x210], 0xff);
	assert_int_equal(get32(bp + 0x214), 0x100000);
	assert_int_equal(get64(bp + 0x70), 0xe0000);
	assert_memory_equal(fake.mem.ram + 0xe0000, "RSD PTR ", 8);
	assert_memory_equal(bp + 0x202, "HdrS", 4);
	assert_string_equal((const char *)fake.mem.ram + get32(bp + 0x228), "console=ttyS0 quiet");
	assert_int_equal(get32(bp + 0x21c), 1000001);
	assert_int_equal(get32(bp + 0x218), (64 * MIB - 1000001) & ~4095u);
	check_pattern(get32(bp + 0x218), 1000001);
	/* BIOS data area: conventional memory and where the EBDA is. */
	assert_int_equal(get16(fake.mem.ram + 0x413), 639);
	assert_int_equal(get16(fake.mem.ram + 0x40e), 0x9fc0);
	boot_free(b);
}

static void reset_loads_again(void **state)
{
	uint8_t img[BZ_SIZE];
	const char *kernel = path_of("gone"), *initrd;
	struct boot *b;
	uint32_t esi, at;

	(void)state;
	make_bzimage(img);
	set_ram(64 * MIB);
	write_file("gone", img, sizeof img);
	initrd = write_pattern("initrd", 50000);
	b = accepted(kernel, initrd, "a b c");
	unlink(kernel); /* the files are not needed any more */
	unlink(initrd);
	esi = fake.vcpu.gpr[ESI];
	at = get32(fake.mem.ram + esi + 0x218);
	memset(fake.mem.ram, 0xaa, 0xa0000);
	memset(fake.mem.ram + 0xc0000, 0xaa, fake.mem.bytes - 0xc0000);
	memset(&fake.vcpu, 0xaa, sizeof fake.vcpu);
	assert_non_null(fake.reset);
	fake.reset(fake.reset_opaque);
	check_cpu(0x100000);
	assert_int_equal(fake.vcpu.gpr[ESI], esi);
	assert_memory_equal(fake.mem.ram + 0x100000, img + BZ_SETUP, BZ_PM);
	check_pattern(at, 50000);
	assert_memory_equal(fake.mem.ram + 0xe0000, "RSD PTR ", 8);
	boot_free(b);

	write_file("gone", img, sizeof img);
	fake.reset = NULL;
	fake.cfg.no_reboot = true;
	b = accepted(kernel, NULL, NULL);
	assert_null(fake.reset);
	boot_free(b);
}

static void bzimage_cut_short_is_refused(void **state)
{
	uint8_t img[BZ_SIZE];

	(void)state;
	make_bzimage(img);
	set_ram(64 * MIB);
	for (unsigned len = 0; len < BZ_SIZE; len += len < 1024 ? 16 : 4096) {
		struct boot *b = load(write_file("cut", img, len), NULL, NULL);

		boot_free(b);
		if (b)
			fail_msg("accepted with %u bytes of %u", len, BZ_SIZE);
		if (len == 0)
			assert_true(strstr(err, "is empty"));
		else if (len >= 0x268)
			assert_true(strstr(err, "truncated"));
	}
	refused(write_file("cut", img, BZ_SIZE - 1), NULL, "truncated");
}

/* A secure-boot signature stands behind the kernel; the PE header tells where it ends. */
static void bzimage_signature_is_checked(void **state)
{
	uint8_t img[BZ_SIZE + 8192] = {0};

	(void)state;
	make_bzimage(img);
	set_ram(64 * MIB);
	memcpy(img, "MZ", 2);
	put32(img + 0x3c, 0x40);
	memcpy(img + 0x40, "PE\0\0", 4);
	put16(img + 0x58, 0x10b);
	put32(img + 0x58 + 96 + 32, BZ_SIZE);
	put32(img + 0x58 + 96 + 36, 8192);
	boot_free(accepted(write_file("signed", img, sizeof img), NULL, NULL));
	refused(write_file("signed", img, sizeof img - 4096), NULL, "truncated");
	refused(write_file("signed", img, sizeof img - 8192), NULL, "truncated");
	put32(img + 0x3c, 0xfffffff0); /* nonsense is no PE header */
	boot_free(accepted(write_file("signed", img, sizeof img), NULL, NULL));
}

static void bzimage_of_the_wrong_kind_is_refused(void **state)
{
	uint8_t img[BZ_SIZE];
	char line[2100];

	(void)state;
	set_ram(64 * MIB);
	make_bzimage(img);
	put16(img + 0x236, 0x3f);
	refused(write_file("k", img, sizeof img), NULL, "is a 64-bit kernel; bt86 runs 32-bit kernels");
	make_bzimage(img);
	img[0x211] = 0;
	refused(write_file("k", img, sizeof img), NULL, "zImage");
	make_bzimage(img);
	put16(img + 0x206, 0x200);
	refused(write_file("k", img, sizeof img), NULL, "protocol 2.00");
	make_bzimage(img);
	memset(line, 'x', 2048);
	line[2048] = 0;
	write_file("k", img, sizeof img);
	assert_null(load(path_of("k"), NULL, line));
	assert_true(strstr(err, "2048 characters"));
	line[2047] = 0;
	boot_free(accepted(path_of("k"), NULL, line));
	set_ram(23 * MIB);
	refused(path_of("k"), NULL, "needs at least 24 MiB");
	set_ram(24 * MIB);
	boot_free(accepted(path_of("k"), NULL, NULL));
}

static uint32_t initrd_gpa(uint64_t ram, size_t size)
{
	uint8_t img[BZ_SIZE];
	struct boot *b;
	uint32_t gpa;

	make_bzimage(img);
	set_ram(ram);
	b = accepted(write_file("k", img, sizeof img), write_pattern("initrd", size), NULL);
	gpa = ram32(fake.vcpu.gpr[ESI] + 0x218);
	assert_int_equal(ram32(fake.vcpu.gpr[ESI] + 0x21c), size);
	assert_int_equal(gpa & 4095, 0);
	assert_true(gpa >= BZ_PREF + BZ_INIT || gpa + size <= BZ_PREF);
	assert_true(gpa + size <= ram && gpa >= 0x100000 + BZ_PM);
	check_pattern(gpa, size);
	boot_free(b);
	return gpa;
}

static void initrd_finds_its_place(void **state)
{
	uint8_t img[BZ_SIZE];

	(void)state;
	/* As high as it goes; as far up as the kernel maps directly; below the kernel in a small memory. */
	assert_int_equal(initrd_gpa(64 * MIB, 2 * MIB), 62 * MIB);
	assert_int_equal(initrd_gpa(64 * MIB, 64 * MIB / 3), (64 * MIB - 64 * MIB / 3) & ~4095u);
	assert_int_equal(initrd_gpa(3072ull * MIB, 4 * MIB), 0x37000000 - 4 * MIB);
	assert_int_equal(initrd_gpa(24 * MIB, 8 * MIB), 8 * MIB);
	/* initrd_addr_max is the last byte, not the one behind it. */
	make_bzimage(img);
	put32(img + 0x22c, 40 * MIB - 1);
	set_ram(64 * MIB);
	boot_free(accepted(write_file("k", img, sizeof img), write_pattern("initrd", MIB), NULL));
	assert_int_equal(ram32(fake.vcpu.gpr[ESI] + 0x218), 39 * MIB);

	refused(path_of("k"), write_pattern("initrd", 30 * MIB), "does not fit");
	refused(path_of("k"), write_pattern("initrd", 65 * MIB), "more than the guest's memory");
	refused(path_of("k"), write_file("initrd", "", 0), "is empty");
	refused(path_of("k"), path_of("no-such-initrd"), "cannot open");
}

/* ------------------------------------------------------------------ ELF */

#define ELF_SIZE 20480u

/* One segment of 8 KiB in the file and 16 in memory at paddr; section headers, which nobody reads, at the
 * end. */
static void make_elf(uint8_t *p, uint32_t vaddr, uint32_t paddr, uint32_t entry)
{
	Elf32_Ehdr eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
			 .e_type = ET_EXEC,
			 .e_machine = EM_386,
			 .e_version = 1,
			 .e_entry = entry,
			 .e_phoff = 52,
			 .e_shoff = ELF_SIZE - 80,
			 .e_ehsize = 52,
			 .e_phentsize = 32,
			 .e_phnum = 2,
			 .e_shentsize = 40,
			 .e_shnum = 2};
	Elf32_Phdr ph[2] = {{.p_type = PT_NOTE},
			    {.p_type = PT_LOAD,
			     .p_offset = 4096,
			     .p_vaddr = vaddr,
			     .p_paddr = paddr,
			     .p_filesz = 8192,
			     .p_memsz = 16384}};

	memset(p, 0, ELF_SIZE);
	memcpy(p, &eh, sizeof eh);
	memcpy(p + 52, ph, sizeof ph);
	for (unsigned i = 0; i < 8192; i += 4)
		put32(p + 4096 + i, 0xe1f00000u + i);
}

static void vmlinux_is_placed(void **state)
{
	uint8_t img[ELF_SIZE];
	struct boot *b;
	const uint8_t *bp;

	(void)state;
	make_elf(img, 0xc1000000, 0x1000000, 0x1000040);
	set_ram(64 * MIB);
	memset(fake.mem.ram + 0x1000000, 0xff, 16384);
	b = accepted(write_file("vmlinux", img, sizeof img), write_pattern("initrd", 5000), "x=y");
	check_cpu(0x1000040);
	assert_memory_equal(fake.mem.ram + 0x1000000, img + 4096, 8192);
	for (unsigned i = 8192; i < 16384; i++)
		assert_int_equal(fake.mem.ram[0x1000000 + i], 0);
	bp = fake.mem.ram + fake.vcpu.gpr[ESI];
	check_e820(bp + 0x2d0, bp[0x1e8], 20);
	assert_string_equal((const char *)fake.mem.ram + get32(bp + 0x228), "x=y");
	assert_int_equal(get32(bp + 0x218), 64 * MIB - 8192);
	check_pattern(64 * MIB - 8192, 5000);
	boot_free(b);

	/* A virtual entry point is translated. */
	make_elf(img, 0xc1000000, 0x1000000, 0xc1000040);
	boot_free(accepted(write_file("vmlinux", img, sizeof img), NULL, NULL));
	assert_int_equal(fake.vcpu.eip, 0x1000040);
}

static void bad_elf_is_refused(void **state)
{
	uint8_t img[ELF_SIZE];

	(void)state;
	set_ram(64 * MIB);
	make_elf(img, 0xc1000000, 0x1000000, 0x1000040);
	for (unsigned len = 4; len < ELF_SIZE; len += len < 256 ? 4 : 4096 - len % 4096) {
		struct boot *b = load(write_file("cut", img, len), NULL, NULL);

		boot_free(b);
		if (b)
			fail_msg("accepted with %u bytes of %u", len, ELF_SIZE);
		if (len >= 16)
			assert_true(strstr(err, "truncated"));
	}
	img[EI_CLASS] = ELFCLASS64;
	put16(img + 18, EM_X86_64);
	refused(write_file("k", img, sizeof img), NULL, "is a 64-bit kernel; bt86 runs 32-bit kernels");
	make_elf(img, 0, 0x1000000, 0);
	put16(img + 18, EM_ARM);
	refused(write_file("k", img, sizeof img), NULL, "another kind of processor");
	make_elf(img, 0, 0x1000000, 0);
	put16(img + 16, ET_REL);
	refused(write_file("k", img, sizeof img), NULL, "not an executable");
	make_elf(img, 0, 0x1000000, 0);
	put32(img + 52, PT_INTERP);
	refused(write_file("k", img, sizeof img), NULL, "not a kernel");
	make_elf(img, 0, 63 * MIB + MIB - 8192, 0);
	refused(write_file("k", img, sizeof img), NULL, "bigger -m");
	make_elf(img, 0, 0x9f000, 0);
	refused(write_file("k", img, sizeof img), NULL, "no free memory");
	make_elf(img, 0, 0xfffff000, 0);
	refused(write_file("k", img, sizeof img), NULL, "-m");
	make_elf(img, 0, 0, 0);
	refused(write_file("k", img, sizeof img), NULL, "no free memory");
}

/* ------------------------------------------------------------------ Multiboot */

static void put_multiboot_header(uint8_t *p, uint32_t flags)
{
	put32(p, 0x1badb002);
	put32(p + 4, flags);
	put32(p + 8, -(0x1badb002u + flags));
}

static const char *guest_string(uint32_t gpa)
{
	return (const char *)fake.mem.ram + gpa;
}

static void multiboot_elf_is_placed(void **state)
{
	uint8_t img[ELF_SIZE];
	char kernel[128], list[512], want[300];
	const uint8_t *info, *mod;
	struct boot *b;
	uint8_t mmap[4 * 20];

	(void)state;
	make_elf(img, 0xc0100000, 0x100000, 0xc0100010);
	put_multiboot_header(img + 8188 - 8, 7);
	set_ram(16 * MIB);
	strcpy(kernel, write_file("mb,elf", img, sizeof img));
	write_pattern("mod1", 5000);
	write_pattern("mod,2", 4096);
	snprintf(list, sizeof list, "%s/mod1 one two,%s/mod,,2", dir, dir);
	b = accepted(kernel, list, "a=b c");
	check_cpu(0x100010);
	assert_int_equal(fake.vcpu.gpr[EAX], 0x2badb002);
	assert_memory_equal(fake.mem.ram + 0x100000, img + 4096, 8192);

	info = fake.mem.ram + fake.vcpu.gpr[EBX];
	assert_int_equal(get32(info), 0x24d);
	assert_int_equal(get32(info + 4), 639);
	assert_int_equal(get32(info + 8), 15 * 1024);
	snprintf(want, sizeof want, "%s a=b c", kernel);
	assert_string_equal(guest_string(get32(info + 16)), want);
	assert_string_equal(guest_string(get32(info + 64)), "bt86");
	assert_int_equal(get32(info + 44), 4 * 24);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(ram32(get32(info + 48) + i * 24), 20);
		memcpy(mmap + i * 20, fake.mem.ram + get32(info + 48) + i * 24 + 4, 20);
	}
	check_e820(mmap, 4, 20);

	assert_int_equal(get32(info + 20), 2);
	mod = fake.mem.ram + get32(info + 24);
	assert_int_equal(get32(mod), 0x104000); /* the first page behind the kernel's bss */
	assert_int_equal(get32(mod + 4), 0x104000 + 5000);
	snprintf(want, sizeof want, "%s/mod1 one two", dir);
	assert_string_equal(guest_string(get32(mod + 8)), want);
	check_pattern(0x104000, 5000);
	assert_int_equal(get32(mod + 16), 0x106000);
	assert_int_equal(get32(mod + 20), 0x107000);
	snprintf(want, sizeof want, "%s/mod,2", dir);
	assert_string_equal(guest_string(get32(mod + 24)), want);
	check_pattern(0x106000, 4096);
	boot_free(b);

	refused(kernel, "no-such-module x", "cannot open 'no-such-module'");
	write_pattern("big", 15 * MIB);
	snprintf(list, sizeof list, "%s/big", dir);
	refused(kernel, list, "does not fit");
	snprintf(list, sizeof list, "%s/mod1,,", dir);
	refused(kernel, list, "mod1,'");
	snprintf(list, sizeof list, "%s/mod1,", dir);
	refused(kernel, list, "empty file name");
	put_multiboot_header(img + 8188 - 8, 0x8);
	refused(write_file("mb", img, sizeof img), NULL, "flags 0x8");
}

#define KLUDGE_SIZE (12u * 1024)

static void make_kludge(uint8_t *p, uint32_t load_end, uint32_t bss_end)
{
	for (unsigned i = 0; i < KLUDGE_SIZE; i += 4)
		put32(p + i, 0xa0000000u + i);
	put_multiboot_header(p + 4096, 0x10003);
	put32(p + 4096 + 12, 0x101000); /* header_addr */
	put32(p + 4096 + 16, 0x100800); /* load_addr: 0x800 bytes of the file stay out */
	put32(p + 4096 + 20, load_end);
	put32(p + 4096 + 24, bss_end);
	put32(p + 4096 + 28, 0x100820);
}

static void multiboot_kludge_is_placed(void **state)
{
	uint8_t img[KLUDGE_SIZE];
	const char *path;

	(void)state;
	set_ram(8 * MIB);
	make_kludge(img, 0x102000, 0x104000);
	memset(fake.mem.ram + 0x100000, 0xff, 0x8000);
	path = write_file("kludge", img, sizeof img);
	boot_free(accepted(path, NULL, NULL));
	check_cpu(0x100820);
	assert_int_equal(fake.vcpu.gpr[EAX], 0x2badb002);
	assert_memory_equal(fake.mem.ram + 0x100800, img + 0x800, 0x1800);
	assert_int_equal(fake.mem.ram[0x1007ff], 0xff);
	assert_int_equal(fake.mem.ram[0x102000], 0);
	assert_int_equal(fake.mem.ram[0x103fff], 0);
	assert_int_equal(fake.mem.ram[0x104000], 0xff);

	make_kludge(img, 0, 0); /* the whole file, no bss */
	boot_free(accepted(write_file("kludge", img, sizeof img), NULL, NULL));
	assert_memory_equal(fake.mem.ram + 0x100800, img + 0x800, KLUDGE_SIZE - 0x800);

	make_kludge(img, 0x103800, 0);
	refused(write_file("kludge", img, sizeof img), NULL, "truncated");
	make_kludge(img, 0x102000, 0x101000);
	refused(write_file("kludge", img, sizeof img), NULL, "bss");
	make_kludge(img, 0x102000, 0x40000000);
	refused(write_file("kludge", img, sizeof img), NULL, "bigger -m");
	make_kludge(img, 0x101000, 0);
	refused(write_file("kludge", img, sizeof img), NULL, "header");
	make_kludge(img, 0, 0);
	put32(img + 4096 + 16, 0x102000);
	refused(write_file("kludge", img, sizeof img), NULL, "load address");
	put_multiboot_header(img + 4096, 3);
	refused(write_file("kludge", img, sizeof img), NULL, "not an ELF file");
	/* A header behind the first 8 KiB is not one. */
	memset(img, 0, sizeof img);
	put_multiboot_header(img + 8192, 3);
	refused(write_file("kludge", img, sizeof img), NULL, "not a kernel");
	put_multiboot_header(img + 8192 - 12, 0x10003);
	refused(write_file("kludge", img, 8192), NULL, "truncated inside");
}

/* ------------------------------------------------------------------ files that are no images */

static void files_that_are_no_kernels(void **state)
{
	static uint8_t noise[300000];
	char path[128];

	(void)state;
	set_ram(64 * MIB);
	refused(path_of("missing"), NULL, "cannot open");
	refused("", NULL, "empty file name");
	refused(dir, NULL, "is a directory");
	strcpy(path, path_of("fifo"));
	assert_int_equal(mkfifo(path, 0600), 0);
	refused(path, NULL, "not a regular file");
	refused("/dev/zero", NULL, "not a regular file");
	refused(write_file("empty", "", 0), NULL, "is empty");
	refused(write_file("gz", "\x1f\x8b\x08\0\0\0\0", 7), NULL, "gzip");
	if (geteuid() != 0) {
		strcpy(path, write_pattern("secret", 100));
		chmod(path, 0);
		refused(path, NULL, "cannot open");
	}
	strcpy(path, path_of("huge"));
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(truncate(path, 3ll << 30), 0);
	refused(path, NULL, "more than a kernel may have");
	srandom(1);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < sizeof noise; i++)
			noise[i] = (uint8_t)random();
		refused(write_file("noise", noise, sizeof noise), NULL, "not a kernel");
	}
}

static void demo_needs_its_image(void **state)
{
	const struct boot_config cfg = {.demo = true};

	(void)state;
	set_ram(64 * MIB);
	assert_null(boot_load(&fake, &cfg, err, sizeof err));
	assert_string_equal(err, "this build has no demo guest");
}

/* Headers with a few random fields: accepted or refused, but nothing outside RAM and no crash. */
static void fuzz(uint8_t *good, uint32_t size, uint32_t first, uint32_t last, unsigned seed)
{
	static const uint32_t nice[] = {0,	 1,	   0xff,       0xfff,	   0x1000,
					0x9fc00, 0x100000, 0x7fffffff, 0x80000000, 0xffffffff};
	uint8_t *img = malloc(size);
	const char *initrd = write_pattern("initrd", 20000);
	char kernel[128], rd[128];
	int fd;

	assert_non_null(img);
	strcpy(kernel, write_file("fuzzed", good, size));
	strcpy(rd, initrd);
	fd = open(kernel, O_WRONLY);
	srandom(seed);
	for (unsigned round = 0; round < 3000; round++) {
		memcpy(img, good, size);
		for (long n = random() % 4 + 1; n; n--) {
			uint32_t at = first + (uint32_t)random() % (last - first - 4);
			uint32_t v = random() % 2 ? (uint32_t)random() * 3 : nice[random() % 10];

			if (random() % 2)
				put32(img + (at & ~3u), v);
			else
				img[at] = (uint8_t)v;
		}
		assert_int_equal(pwrite(fd, img, size, 0), size);
		set_ram((uint64_t)(4 + random() % 60) * MIB);
		boot_free(load(kernel, random() % 2 ? rd : NULL, "fuzz"));
	}
	close(fd);
	free(img);
}

static void fuzzed_bzimage(void **state)
{
	uint8_t img[BZ_SIZE];

	(void)state;
	make_bzimage(img);
	fuzz(img, sizeof img, 0x1f1, 0x268, 11);
}

static void fuzzed_elf(void **state)
{
	uint8_t img[ELF_SIZE];

	(void)state;
	make_elf(img, 0xc0100000, 0x100000, 0xc0100000);
	fuzz(img, sizeof img, 4, 52 + 64, 12);
}

static void fuzzed_multiboot(void **state)
{
	uint8_t img[ELF_SIZE];

	(void)state;
	make_kludge(img, 0x102000, 0x104000);
	fuzz(img, KLUDGE_SIZE, 4096 + 12, 4096 + 36, 13);
	make_elf(img, 0xc0100000, 0x100000, 0xc0100000);
	put_multiboot_header(img + 4096, 3);
	fuzz(img, sizeof img, 16, 52 + 64, 14);
}

/* ------------------------------------------------------------------ ACPI */

static uint8_t sum(uint32_t gpa, uint32_t n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + fake.mem.ram[gpa++]);
	return s;
}

static uint32_t table(const char *signature)
{
	uint32_t rsdt = ram32(0xe0000 + 16), found = 0;

	for (uint32_t i = 36; i < ram32(rsdt + 4); i += 4) {
		uint32_t t = ram32(rsdt + i);

		assert_int_equal(sum(t, ram32(t + 4)), 0);
		assert_true(t >= 0xe0000 && t + ram32(t + 4) <= 0x100000);
		if (!memcmp(fake.mem.ram + t, signature, 4))
			found = t;
	}
	return found;
}

static void acpi_tables_are_linked(void **state)
{
	uint32_t rsdp, rsdt, fadt, dsdt, facs, madt;
	const char *dump = getenv("BT86_DUMP_ACPI");

	(void)state;
	set_ram(4 * MIB);
	rsdp = (uint32_t)acpi_install(&fake);
	assert_int_equal(rsdp, 0xe0000);
	assert_int_equal(sum(rsdp, 20), 0);
	rsdt = ram32(rsdp + 16);
	assert_memory_equal(fake.mem.ram + rsdt, "RSDT", 4);
	assert_int_equal(sum(rsdt, ram32(rsdt + 4)), 0);

	fadt = table("FACP");
	assert_int_equal(ram32(fadt + 4), 244);
	assert_int_equal(ram32(fadt + 56), ACPI_PM1A_EVT);
	assert_int_equal(ram32(fadt + 64), ACPI_PM1A_CNT);
	assert_int_equal(ram32(fadt + 76), ACPI_PM_TMR);
	assert_int_equal(get16(fake.mem.ram + fadt + 46), ACPI_SCI_IRQ);
	facs = ram32(fadt + 36);
	assert_int_equal(facs % 64, 0);
	assert_memory_equal(fake.mem.ram + facs, "FACS", 4);
	dsdt = ram32(fadt + 40);
	assert_memory_equal(fake.mem.ram + dsdt, "DSDT", 4);
	assert_int_equal(sum(dsdt, ram32(dsdt + 4)), 0);

	madt = table("APIC");
	assert_int_equal(ram32(madt + 36), LAPIC_GPA);
	assert_int_equal(ram32(madt + 44 + 8 + 4), IOAPIC_GPA);

	if (dump) { /* for iasl -d */
		write_file("fadt.dat", fake.mem.ram + fadt, ram32(fadt + 4));
		(void)!rename(path_of("fadt.dat"), "fadt.dat");
		write_file("dsdt.dat", fake.mem.ram + dsdt, ram32(dsdt + 4));
		(void)!rename(path_of("dsdt.dat"), "dsdt.dat");
		write_file("madt.dat", fake.mem.ram + madt, ram32(madt + 4));
		(void)!rename(path_of("madt.dat"), "madt.dat");
		write_file("facs.dat", fake.mem.ram + facs, 64);
		(void)!rename(path_of("facs.dat"), "facs.dat");
	}

	set_ram(4 * MIB);
	fake.has_apic = false;
	acpi_install(&fake);
	assert_int_equal(table("APIC"), 0);
	assert_true(table("FACP"));
}

/* \_S5 as kernels that have no AML interpreter look for it: the bytes of the name, a package, two small
 * integers. */
static void s5_is_where_it_is_looked_for(void **state)
{
	uint32_t dsdt;
	const uint8_t *p;

	(void)state;
	set_ram(4 * MIB);
	acpi_install(&fake);
	dsdt = ram32(table("FACP") + 40);
	p = memmem(fake.mem.ram + dsdt, ram32(dsdt + 4), "_S5_", 4);
	assert_non_null(p);
	assert_int_equal(p[4], 0x12);
	p += 6 + (p[5] >> 6);
	assert_int_equal(p[0], 4);
	assert_int_equal(p[1], 0x0a);
	assert_int_equal(p[2], ACPI_S5_TYP);
}

/* What a kernel without ACPI follows: from the pointer to the table, and through its entries. */
static void mp_tables_describe_the_board(void **state)
{
	static const uint8_t sizes[] = {20, 8, 8, 8, 8};
	unsigned seen[5] = {0}, irqs = 0;
	const uint8_t *ram;
	uint32_t table_gpa, at;

	(void)state;
	set_ram(4 * MIB);
	mptable_install(&fake);
	ram = fake.mem.ram;
	assert_memory_equal(ram + 0xf0000, "_MP_", 4);
	assert_int_equal(sum(0xf0000, 16), 0);
	table_gpa = ram32(0xf0004);
	assert_memory_equal(ram + table_gpa, "PCMP", 4);
	assert_int_equal(sum(table_gpa, get16(ram + table_gpa + 4)), 0);
	assert_int_equal(ram32(table_gpa + 36), LAPIC_GPA);

	at = table_gpa + 44;
	for (unsigned n = get16(ram + table_gpa + 34); n; n--) {
		const uint8_t *e = ram + at;

		assert_in_range(e[0], 0, 4);
		seen[e[0]]++;
		if (e[0] == 2)
			assert_int_equal(get32(e + 4), IOAPIC_GPA);
		if (e[0] == 3) {
			assert_int_equal(e[7], e[5] ? e[5] : 2); /* the timer is at pin 2 */
			assert_int_equal(get16(e + 2), e[5] == ACPI_SCI_IRQ ? 0xd : 0);
			irqs |= 1u << e[5];
		}
		at += sizes[e[0]];
	}
	assert_int_equal(at, table_gpa + get16(ram + table_gpa + 4));
	assert_int_equal(seen[0], 1);
	assert_int_equal(seen[1], 2);
	assert_int_equal(seen[2], 1);
	assert_int_equal(irqs, 0xfffb); /* all but the cascade */
	assert_int_equal(seen[4], 2);

	set_ram(4 * MIB);
	fake.has_apic = false;
	mptable_install(&fake);
	assert_int_equal(ram32(0xf0000), 0);
}

/* ------------------------------------------------------------------ symbols */

static void expect_symbol(uint32_t addr, const char *name, uint32_t offset)
{
	uint32_t o = 0;
	const char *s = symbols_find(addr, &o);

	if (!name) {
		assert_null(s);
		return;
	}
	assert_non_null(s);
	assert_string_equal(s, name);
	assert_int_equal(o, offset);
}

static void system_map_is_read(void **state)
{
	static const char map[] =
		"c1000000 T _text\n00000000 A absolute\nc1000100 t helper\t[module]\nnonsense\n\n"
		"ffffffffc1000000 T too_wide\nc1000080 D data\r\nc2000000 T last";

	(void)state;
	assert_int_equal(symbols_load(write_file("k", map, sizeof map - 1), err, sizeof err), 0);
	expect_symbol(0xc0ffffff, NULL, 0);
	expect_symbol(0xc1000000, "_text", 0);
	expect_symbol(0xc100007f, "_text", 0x7f);
	expect_symbol(0xc1000084, "data", 4);
	expect_symbol(0xc1000104, "helper", 4);
	expect_symbol(0xc2000000, "last", 0);
	expect_symbol(0xc2000001, NULL, 0); /* nobody knows how long it is */
	symbols_free();
	expect_symbol(0xc1000000, NULL, 0);

	assert_int_equal(symbols_load(path_of("missing"), err, sizeof err), -1);
	assert_int_equal(symbols_load(dir, err, sizeof err), -1);
	assert_int_equal(symbols_load(write_file("k", "", 0), err, sizeof err), -1);
	assert_true(strstr(err, "has no symbols"));
}

/* The ELF image of above with a symbol table and a string table in its two section headers. */
static void make_symbols(uint8_t *p)
{
	static const char names[] = "\0sized\0open_ended\0absolute";
	Elf32_Sym sym[5] = {{0}};
	Elf32_Shdr sh[2] = {{.sh_type = SHT_SYMTAB, .sh_offset = 16384, .sh_size = sizeof sym, .sh_link = 1},
			    {.sh_type = SHT_STRTAB, .sh_offset = 17000, .sh_size = sizeof names}};

	make_elf(p, 0xc0100000, 0x100000, 0xc0100000);
	sym[1] = (Elf32_Sym){
		.st_name = 1, .st_value = 0xc0100010, .st_size = 16, .st_info = STT_FUNC, .st_shndx = 1};
	sym[2] = (Elf32_Sym){.st_name = 7, .st_value = 0xc0100040, .st_shndx = 1};
	sym[3] = (Elf32_Sym){.st_name = 18, .st_value = 0xc0100050, .st_shndx = SHN_ABS};
	sym[4] = (Elf32_Sym){.st_name = 7777, .st_value = 0xc0100060, .st_shndx = 1};
	memcpy(p + 16384, sym, sizeof sym);
	memcpy(p + 17000, names, sizeof names);
	memcpy(p + ELF_SIZE - 80, sh, sizeof sh);
}

static void elf_symbols_are_read(void **state)
{
	uint8_t img[ELF_SIZE], bad[ELF_SIZE];

	(void)state;
	make_symbols(img);
	assert_int_equal(symbols_load(write_file("k", img, sizeof img), err, sizeof err), 0);
	expect_symbol(0xc010000f, NULL, 0);
	expect_symbol(0xc0100013, "sized", 3);
	expect_symbol(0xc0100020, NULL, 0);
	expect_symbol(0xc0100040, "open_ended", 0);
	symbols_free();
	srandom(21);
	for (unsigned round = 0; round < 3000; round++) { /* whatever it says, no crash */
		memcpy(bad, img, sizeof bad);
		for (unsigned n = 0; n < 3; n++)
			put32(bad + (random() % 2 ? 32 + random() % 20 : (long)ELF_SIZE - 80 + random() % 76),
			      random() % 2 ? (uint32_t)random() * 2 : (uint32_t)random() % 30000);
		write_file("k", bad, random() % 8 ? sizeof bad : (size_t)random() % sizeof bad);
		if (symbols_load(path_of("k"), err, sizeof err) == 0)
			symbols_find((uint32_t)random() * 2, &(uint32_t){0});
		symbols_free();
	}
}

static int setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	static const char *const names[] = {
		"bzimage", "initrd", "cut",  "signed", "k",  "vmlinux", "mb,elf", "mod1",  "mod,2", "big",
		"mb",	   "kludge", "fifo", "empty",  "gz", "secret",	"huge",	  "noise", "gone",  "fuzzed"};

	(void)state;
	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		unlink(path_of(names[i]));
	munmap(fake.mem.ram, fake.mem.bytes);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bzimage_is_placed),
		cmocka_unit_test(reset_loads_again),
		cmocka_unit_test(bzimage_cut_short_is_refused),
		cmocka_unit_test(bzimage_signature_is_checked),
		cmocka_unit_test(bzimage_of_the_wrong_kind_is_refused),
		cmocka_unit_test(initrd_finds_its_place),
		cmocka_unit_test(vmlinux_is_placed),
		cmocka_unit_test(bad_elf_is_refused),
		cmocka_unit_test(multiboot_elf_is_placed),
		cmocka_unit_test(multiboot_kludge_is_placed),
		cmocka_unit_test(files_that_are_no_kernels),
		cmocka_unit_test(demo_needs_its_image),
		cmocka_unit_test(fuzzed_bzimage),
		cmocka_unit_test(fuzzed_elf),
		cmocka_unit_test(fuzzed_multiboot),
		cmocka_unit_test(acpi_tables_are_linked),
		cmocka_unit_test(s5_is_where_it_is_looked_for),
		cmocka_unit_test(mp_tables_describe_the_board),
		cmocka_unit_test(system_map_is_read),
		cmocka_unit_test(elf_symbols_are_read),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
