/* plan.c - boot plans: placing things in guest memory, and the state in which a firmware would hand over. */
#include "boot/plan.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int boot_fail(struct boot *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(b->err, sizeof b->err, fmt, ap);
	va_end(ap);
	return -1;
}

bool boot_has_apic(struct machine *m)
{
	uint32_t leaf[4];

	cpuid_query(machine_vcpu(m), 1, 0, leaf);
	return leaf[3] >> 9 & 1;
}

uint8_t boot_checksum(const uint8_t *p, uint32_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}

/* ------------------------------------------------------------------ the memory map */

unsigned boot_e820(uint64_t ram, struct e820 map[E820_MAX])
{
	map[0] = (struct e820){0, EBDA_GPA, 1};
	map[1] = (struct e820){EBDA_GPA, 0xa0000 - EBDA_GPA, 2};
	map[2] = (struct e820){BIOS_ROM_GPA, HIGH_MEM - BIOS_ROM_GPA, 2};
	if (ram <= HIGH_MEM)
		return 3;
	map[3] = (struct e820){HIGH_MEM, ram - HIGH_MEM, 1};
	return 4;
}

static bool usable(const struct boot *b, uint64_t gpa, uint64_t size)
{
	if (gpa >= HIGH_MEM)
		return size <= b->ram && gpa <= b->ram - size;
	return gpa >= LOW_FIRST && size <= EBDA_GPA && gpa <= EBDA_GPA - size;
}

/* ------------------------------------------------------------------ building a plan */

static struct chunk *new_chunk(struct boot *b)
{
	if (b->nchunks == PLAN_CHUNKS) {
		boot_fail(b, "'%s' has more than %u segments", b->kernel.name, PLAN_CHUNKS);
		return NULL;
	}
	memset(&b->chunks[b->nchunks], 0, sizeof b->chunks[0]);
	return &b->chunks[b->nchunks++];
}

int plan_segment(struct boot *b, uint64_t gpa, const uint8_t *data, uint64_t len, uint64_t size)
{
	struct chunk *c;

	assert(len <= size);
	if (size == 0)
		return 0;
	if (!usable(b, gpa, size)) {
		if (gpa >= HIGH_MEM && gpa < 1ull << 32 && size < 1ull << 32)
			return boot_fail(b,
					 "'%s' wants memory at 0x%llx-0x%llx, but the guest has %llu MiB; "
					 "use a bigger -m",
					 b->kernel.name, (unsigned long long)gpa,
					 (unsigned long long)(gpa + size - 1),
					 (unsigned long long)(b->ram >> 20));
		return boot_fail(b,
				 "'%s' wants %llu bytes of memory at 0x%llx, where a PC has no free memory",
				 b->kernel.name, (unsigned long long)size, (unsigned long long)gpa);
	}
	c = new_chunk(b);
	if (!c)
		return -1;
	c->gpa = (uint32_t)gpa;
	c->size = size;
	c->data = data;
	c->len = len;
	return 0;
}

int plan_reserve(struct boot *b, uint64_t gpa, uint64_t size)
{
	struct chunk *c;

	if (size == 0 || gpa >= b->ram)
		return 0;
	c = new_chunk(b);
	if (!c)
		return -1;
	c->gpa = (uint32_t)gpa;
	c->size = size < b->ram - gpa ? size : b->ram - gpa;
	c->reserved = true;
	return 0;
}

/* The lowest or highest chunk that [gpa, gpa + size) runs into, or NULL. */
static const struct chunk *collision(const struct boot *b, uint64_t gpa, uint64_t size)
{
	for (unsigned i = 0; i < b->nchunks; i++) {
		const struct chunk *c = &b->chunks[i];

		if (gpa < c->gpa + c->size && c->gpa < gpa + size)
			return c;
	}
	return NULL;
}

/* Looks in [lo, hi] of one stretch of usable memory. Every step moves past a chunk, so it ends. */
static uint32_t place_in(struct boot *b, uint64_t size, uint32_t align, uint64_t lo, uint64_t hi,
			 enum plan_end end)
{
	uint64_t mask = (uint64_t)align - 1, gpa;

	lo = (lo + mask) & ~mask;
	if (hi < lo || size > hi - lo + 1)
		return 0;
	gpa = end == PLAN_BOTTOM ? lo : (hi + 1 - size) & ~mask;
	while (gpa >= lo && gpa + size - 1 <= hi) {
		const struct chunk *c = collision(b, gpa, size);

		if (!c)
			return (uint32_t)gpa;
		if (end == PLAN_BOTTOM) {
			gpa = (c->gpa + c->size + mask) & ~mask;
		} else {
			if (c->gpa < size)
				return 0;
			gpa = (c->gpa - size) & ~mask;
		}
	}
	return 0;
}

uint32_t plan_place(struct boot *b, uint64_t size, uint32_t align, uint64_t lo, uint64_t hi,
		    enum plan_end end)
{
	const uint64_t area[2][2] = {{LOW_FIRST, EBDA_GPA - 1}, {HIGH_MEM, b->ram - 1}};

	if (size == 0)
		size = 1;
	for (unsigned i = 0; i < 2; i++) {
		const uint64_t *a = area[end == PLAN_BOTTOM ? i : 1 - i];
		uint32_t gpa = place_in(b, size, align, lo > a[0] ? lo : a[0], hi < a[1] ? hi : a[1], end);

		if (gpa)
			return gpa;
	}
	return 0;
}

int plan_borrow(struct boot *b, uint32_t gpa, const uint8_t *data, uint64_t size)
{
	struct chunk *c = new_chunk(b);

	if (!c)
		return -1;
	assert(usable(b, gpa, size));
	c->gpa = gpa;
	c->data = data;
	c->size = c->len = size;
	return 0;
}

int plan_blob(struct boot *b, uint32_t gpa, const void *data, uint64_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		return boot_fail(b, "out of memory");
	memcpy(copy, data, size);
	if (plan_borrow(b, gpa, copy, size)) {
		free(copy);
		return -1;
	}
	b->chunks[b->nchunks - 1].owned = copy;
	return 0;
}

void plan_free(struct boot *b)
{
	for (unsigned i = 0; i < b->nchunks; i++)
		free(b->chunks[i].owned);
	b->nchunks = 0;
}

/* ------------------------------------------------------------------ putting it into effect */

static void zero_fill(struct mem *m, uint64_t gpa, uint64_t len)
{
	static const uint8_t zero[65536];

	while (len) {
		uint64_t n = len < sizeof zero ? len : sizeof zero;

		mem_phys_write(m, gpa, zero, n);
		gpa += n;
		len -= n;
	}
}

/* The BIOS data area, as far as kernels look at it: serial ports, conventional memory, where the EBDA is. */
static void write_bda(struct mem *m)
{
	uint8_t bda[256] = {0};

	put16(bda + 0x00, 0x3f8);
	put16(bda + 0x02, 0x2f8);
	put16(bda + 0x0e, EBDA_GPA >> 4);
	put16(bda + 0x10, 0x0402); /* equipment: a coprocessor, two serial ports */
	put16(bda + 0x13, EBDA_GPA >> 10);
	mem_phys_write(m, BDA_GPA, bda, sizeof bda);
	zero_fill(m, EBDA_GPA, 0xa0000 - EBDA_GPA);
	mem_phys_write(m, EBDA_GPA, &(uint8_t){1}, 1); /* its size in KiB */
}

/* Flat segments, with the selectors that the Linux boot protocol fixes: __BOOT_CS 0x10, __BOOT_DS 0x18. */
#define BOOT_CS	 0x10u
#define BOOT_DS	 0x18u
#define GDT_SIZE 32u

static void write_gdt(struct mem *m, uint32_t gpa)
{
	uint8_t gdt[GDT_SIZE] = {0};

	put64(gdt + BOOT_CS, 0x00cf9b000000ffffull);
	put64(gdt + BOOT_DS, 0x00cf93000000ffffull);
	mem_phys_write(m, gpa, gdt, sizeof gdt);
}

/* Memory types as a PC BIOS leaves them (SDM vol. 3A 11.11): write-back but for the VGA hole, the ROM area,
 * and the space above RAM where devices are. Without this Linux finds MTRRs disabled and gives up PAT as
 * well. */
static void set_mtrrs(struct vcpu *c)
{
	uint32_t leaf[4], bits = 36;

	cpuid_query(c, 0x80000000u, 0, leaf);
	if (leaf[0] >= 0x80000008u && leaf[0] < 0x80010000u) {
		cpuid_query(c, 0x80000008u, 0, leaf);
		if ((leaf[0] & 0xff) >= 32 && (leaf[0] & 0xff) <= 52)
			bits = leaf[0] & 0xff;
	}
	for (unsigned i = 0; i < 11; i++)
		c->mtrr_fixed[i] = i < 2 ? 0x0606060606060606ull : i == 2 ? 0 : 0x0505050505050505ull;
	c->mtrr_var[0] = 0xc0000000u; /* base, type UC */
	c->mtrr_var[1] = (((1ull << bits) - 1) & ~0x3fffffffull) | 0x800;
	c->mtrr_def_type = 0xc06; /* enabled, fixed ranges enabled, WB */
}

static void set_entry_state(struct boot *b)
{
	struct vcpu *c = machine_vcpu(b->m);
	const struct seg data = {.sel = BOOT_DS,
				 .attr = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED | SEG_DB | SEG_G,
				 .limit = 0xffffffffu};

	cpu_reset(c);
	for (unsigned i = 0; i < 6; i++)
		c->seg[i] = data;
	c->seg[CS] = data;
	c->seg[CS].sel = BOOT_CS;
	c->seg[CS].attr |= SEG_CODE;
	c->gdtr = (struct table_reg){.base = b->gdt, .limit = GDT_SIZE - 1};
	c->idtr = (struct table_reg){.base = 0, .limit = 0};
	c->cr0 = CR0_PE | CR0_ET;
	memset(c->gpr, 0, sizeof c->gpr);
	c->gpr[EAX] = b->eax;
	c->gpr[EBX] = b->ebx;
	c->gpr[ESI] = b->esi;
	c->gpr[ESP] =
		b->gdt; /* undefined by both protocols; a stack below the GDT does for who expects one */
	c->eip = b->entry;
	set_mtrrs(c);
}

void plan_apply(struct boot *b)
{
	struct mem *m = machine_mem(b->m);

	write_bda(m);
	for (unsigned i = 0; i < b->nchunks; i++) {
		const struct chunk *c = &b->chunks[i];

		if (c->reserved)
			continue;
		if (b->applied)
			mem_phys_write(m, c->gpa, c->data, c->len);
		else
			mem_load(m, c->gpa, c->data, c->len);
		zero_fill(m, c->gpa + c->len, c->size - c->len);
	}
	write_gdt(m, b->gdt);
	b->rsdp = (uint32_t)acpi_install(b->m);
	set_entry_state(b);
	b->applied = true;
}
