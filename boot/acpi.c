/* acpi.c - the ACPI tables of the board: RSDP, RSDT, FADT, FACS, MADT and a DSDT (ACPI specification 2.0c).
 *
 * What they say must agree with devices/: addresses and numbers come from devices.h. SMI_CMD is 0, which
 * means that the hardware is always in ACPI mode (5.2.8.1): there is no SMM to ask. Everything lives in the
 * BIOS area that the memory map calls reserved:
 *
 *     0xe0000  RSDP, then FACS (64-byte aligned), DSDT, FADT, MADT, RSDT, each at a multiple of 64
 *
 * The DSDT is written here byte by byte, with one small function for each AML construct (chapter 17). As ASL
 * it is
 *
 *     Name (\_S5, Package () { ACPI_S5_TYP, ACPI_S5_TYP, 0, 0 })
 *     Scope (\_SB) {
 *         Device (PCI0) { _HID PNP0A03, _UID 0, _PRT {},
 *                         _CRS bus 0-255, I/O 0-0xcf7 and 0xd00-0xffff, memory 0xc0000000-0xfebfffff }
 *         Device (RTC_) { _HID PNP0B00, _CRS IO 0x70, IRQ 8 }
 *         Device (COM1) { _HID PNP0501, _UID 1, _CRS IO 0x3f8, IRQ 4 }
 *         Device (COM2) { _HID PNP0501, _UID 2, _CRS IO 0x2f8, IRQ 3 }
 *     }
 */
#include "boot/plan.h"

#include <assert.h>
#include <string.h>

#include "devices/devices.h"

#define HEADER_SIZE   36u
#define TABLES_MAX    4096u

#define PCI_MEM_FIRST 0xc0000000u
#define PCI_MEM_LAST  0xfebfffffu
#define RESET_PORT    0xcf9u
#define RESET_VALUE   0x06u
#define CMOS_CENTURY  0x32u

struct buf {
	uint8_t bytes[TABLES_MAX];
	uint32_t len;
};

static uint8_t *emit(struct buf *b, uint32_t n)
{
	uint8_t *p = b->bytes + b->len;

	assert(b->len + n <= sizeof b->bytes);
	memset(p, 0, n);
	b->len += n;
	return p;
}

static void emit8(struct buf *b, uint8_t v)
{
	*emit(b, 1) = v;
}

static void emit16(struct buf *b, uint16_t v)
{
	put16(emit(b, 2), v);
}

static void emit32(struct buf *b, uint32_t v)
{
	put32(emit(b, 4), v);
}

static void emit_text(struct buf *b, const char *text)
{
	size_t n = strlen(text);

	memcpy(emit(b, (uint32_t)n), text, n);
}

/* ------------------------------------------------------------------ AML */

#define AML_NAME    0x08
#define AML_BYTE    0x0a
#define AML_WORD    0x0b
#define AML_DWORD   0x0c
#define AML_SCOPE   0x10
#define AML_BUFFER  0x11
#define AML_PACKAGE 0x12
#define AML_EXT	    0x5b
#define AML_DEVICE  0x82

/* A PkgLength of two bytes, which reaches to 4095: filled in by aml_end. */
static uint32_t aml_begin(struct buf *b)
{
	emit(b, 2);
	return b->len - 2;
}

static void aml_end(struct buf *b, uint32_t start)
{
	uint32_t n = b->len - start;

	assert(n < 4096);
	b->bytes[start] = (uint8_t)(0x40 | (n & 15));
	b->bytes[start + 1] = (uint8_t)(n >> 4);
}

static void aml_int(struct buf *b, uint32_t v)
{
	if (v <= 1) {
		emit8(b, (uint8_t)v); /* ZeroOp, OneOp */
	} else if (v <= 0xff) {
		emit8(b, AML_BYTE);
		emit8(b, (uint8_t)v);
	} else if (v <= 0xffff) {
		emit8(b, AML_WORD);
		emit16(b, (uint16_t)v);
	} else {
		emit8(b, AML_DWORD);
		emit32(b, v);
	}
}

static void aml_name(struct buf *b, const char *name)
{
	emit8(b, AML_NAME);
	emit_text(b, name);
}

/* "PNP0A03" in its compressed form (19.3.4 EISAID): three letters of five bits, four hex digits, big-endian.
 */
static uint32_t eisa_id(const char *id)
{
	uint32_t v =
		(uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 | (uint32_t)(id[2] - '@') << 16;

	for (unsigned i = 0; i < 4; i++)
		v |= (uint32_t)(id[3 + i] <= '9' ? id[3 + i] - '0' : id[3 + i] - 'A' + 10) << (12 - 4 * i);
	return __builtin_bswap32(v);
}

static uint32_t aml_device(struct buf *b, const char *name, const char *hid)
{
	uint32_t start;

	emit8(b, AML_EXT);
	emit8(b, AML_DEVICE);
	start = aml_begin(b);
	emit_text(b, name);
	aml_name(b, "_HID");
	aml_int(b, eisa_id(hid));
	return start;
}

/* _CRS: a buffer whose size stands before it. Sizes here are below 256, so it is one ByteConst. */
struct crs {
	uint32_t pkg, size;
};

static struct crs crs_begin(struct buf *b)
{
	struct crs c;

	aml_name(b, "_CRS");
	emit8(b, AML_BUFFER);
	c.pkg = aml_begin(b);
	emit8(b, AML_BYTE);
	c.size = b->len;
	emit8(b, 0);
	return c;
}

static void crs_end(struct buf *b, struct crs c)
{
	emit8(b, 0x79); /* end tag; a checksum of 0 is not checked */
	emit8(b, 0);
	assert(b->len - c.size - 1 < 256);
	b->bytes[c.size] = (uint8_t)(b->len - c.size - 1);
	aml_end(b, c.pkg);
}

/* Small resource items (6.4.2): I/O ports that decode 16 bits, an edge-triggered interrupt. */
static void crs_io(struct buf *b, uint16_t port, uint8_t count)
{
	emit8(b, 0x47);
	emit8(b, 1);
	emit16(b, port);
	emit16(b, port);
	emit8(b, 1);
	emit8(b, count);
}

static void crs_irq(struct buf *b, unsigned irq)
{
	emit8(b, 0x22);
	emit16(b, (uint16_t)(1u << irq));
}

/* Address space descriptors (6.4.3.5): what a bridge passes on, with fixed ends. */
enum { SPACE_MEMORY, SPACE_IO, SPACE_BUS };

static void crs_window16(struct buf *b, uint8_t space, uint16_t first, uint16_t last)
{
	emit8(b, 0x88);
	emit16(b, 13);
	emit8(b, space);
	emit8(b, 0x0c);
	emit8(b, space == SPACE_IO ? 3 : 0);
	emit16(b, 0);
	emit16(b, first);
	emit16(b, last);
	emit16(b, 0);
	emit16(b, (uint16_t)(last - first + 1));
}

static void crs_memory(struct buf *b, uint32_t first, uint32_t last)
{
	emit8(b, 0x87);
	emit16(b, 23);
	emit8(b, SPACE_MEMORY);
	emit8(b, 0x0c);
	emit8(b, 1); /* not cacheable, writable */
	emit32(b, 0);
	emit32(b, first);
	emit32(b, last);
	emit32(b, 0);
	emit32(b, last - first + 1);
}

static void dsdt_pci(struct buf *b)
{
	uint32_t dev = aml_device(b, "PCI0", "PNP0A03"), pkg;
	struct crs c;

	aml_name(b, "_UID");
	aml_int(b, 0);
	aml_name(b, "_PRT"); /* no device on the bus has an interrupt pin */
	emit8(b, AML_PACKAGE);
	pkg = aml_begin(b);
	emit8(b, 0);
	aml_end(b, pkg);
	c = crs_begin(b);
	crs_window16(b, SPACE_BUS, 0, 0xff);
	crs_io(b, 0xcf8, 8);
	crs_window16(b, SPACE_IO, 0, 0xcf7);
	crs_window16(b, SPACE_IO, 0xd00, 0xffff);
	crs_memory(b, PCI_MEM_FIRST, PCI_MEM_LAST);
	crs_end(b, c);
	aml_end(b, dev);
}

struct isa_device {
	const char *name, *hid;
	uint8_t uid; /* 0: none */
	uint8_t irq;
	struct {
		uint16_t port;
		uint8_t count;
	} io[2];
};

static const struct isa_device isa_devices[] = {
	{"RTC_", "PNP0B00", 0, 8, {{0x70, 2}}},
	{"COM1", "PNP0501", 1, 4, {{0x3f8, 8}}},
	{"COM2", "PNP0501", 2, 3, {{0x2f8, 8}}},
};

static void dsdt_isa(struct buf *b, const struct isa_device *d)
{
	uint32_t dev = aml_device(b, d->name, d->hid);
	struct crs c;

	if (d->uid) {
		aml_name(b, "_UID");
		aml_int(b, d->uid);
	}
	c = crs_begin(b);
	for (unsigned i = 0; i < 2 && d->io[i].count; i++)
		crs_io(b, d->io[i].port, d->io[i].count);
	crs_irq(b, d->irq);
	crs_end(b, c);
	aml_end(b, dev);
}

/* \_S5 comes first: small kernels look for its name in the bytes, and not always up to the last one. */
static void dsdt_body(struct buf *b)
{
	uint32_t scope, pkg;

	aml_name(b, "\\_S5_");
	emit8(b, AML_PACKAGE);
	pkg = aml_begin(b);
	emit8(b, 4);
	aml_int(b, ACPI_S5_TYP);
	aml_int(b, ACPI_S5_TYP);
	aml_int(b, 0);
	aml_int(b, 0);
	aml_end(b, pkg);

	emit8(b, AML_SCOPE);
	scope = aml_begin(b);
	emit_text(b, "\\_SB_");
	dsdt_pci(b);
	for (unsigned i = 0; i < sizeof isa_devices / sizeof isa_devices[0]; i++)
		dsdt_isa(b, &isa_devices[i]);
	aml_end(b, scope);
}

/* ------------------------------------------------------------------ tables */

/* Begins a table at the next multiple of 64 and returns its offset. */
static uint32_t table_begin(struct buf *b, const char *signature, uint8_t revision)
{
	uint32_t start;
	uint8_t *h;

	emit(b, -b->len & 63);
	start = b->len;
	h = emit(b, HEADER_SIZE);
	memcpy(h, signature, 4);
	h[8] = revision;
	memcpy(h + 10, "BT86  ", 6);
	memcpy(h + 16, "BT86PC  ", 8);
	put32(h + 24, 1);
	memcpy(h + 28, "BT86", 4);
	put32(h + 32, 1);
	return start;
}

static uint32_t table_end(struct buf *b, uint32_t start)
{
	uint8_t *h = b->bytes + start;

	put32(h + 4, b->len - start);
	h[9] = boot_checksum(h, b->len - start);
	return BIOS_ROM_GPA + start;
}

static uint32_t write_facs(struct buf *b)
{
	uint8_t *t;

	emit(b, -b->len & 63);
	t = emit(b, 64);
	memcpy(t, "FACS", 4);
	put32(t + 4, 64);
	t[32] = 1; /* version */
	return BIOS_ROM_GPA + (uint32_t)(t - b->bytes);
}

static uint32_t write_dsdt(struct buf *b)
{
	uint32_t start = table_begin(b, "DSDT", 2);

	dsdt_body(b);
	return table_end(b, start);
}

/* A fixed register: its port in the 32-bit field, and again as a generic address structure. */
static void fadt_register(uint8_t *t, unsigned port_at, unsigned len_at, unsigned gas_at, uint16_t port,
			  uint8_t bytes)
{
	put32(t + port_at, port);
	t[len_at] = bytes;
	t[gas_at] = 1; /* I/O space */
	t[gas_at + 1] = (uint8_t)(bytes * 8);
	put64(t + gas_at + 4, port);
}

static uint32_t write_fadt(struct buf *b, uint32_t facs, uint32_t dsdt)
{
	uint32_t start = table_begin(b, "FACP", 3);
	uint8_t *t;

	emit(b, 244 - HEADER_SIZE);
	t = b->bytes + start;
	put32(t + 36, facs);
	put32(t + 40, dsdt);
	t[45] = 1; /* desktop */
	put16(t + 46, ACPI_SCI_IRQ);
	fadt_register(t, 56, 88, 148, ACPI_PM1A_EVT, 4);
	fadt_register(t, 64, 89, 172, ACPI_PM1A_CNT, 2);
	fadt_register(t, 76, 91, 208, ACPI_PM_TMR, 4);
	put16(t + 96, 0xfff); /* no C2 */
	put16(t + 98, 0xfff); /* no C3 */
	t[108] = CMOS_CENTURY;
	/* IAPC_BOOT_ARCH: ISA devices, an 8042, no VGA. */
	put16(t + 109, 1 << 0 | 1 << 1 | 1 << 2);
	/* WBINVD works; C1 works; power and sleep buttons, and RTC wake, are not fixed features; reset
	 * register. */
	put32(t + 112, 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10);
	t[116] = 1;
	t[117] = 8;
	t[119] = 1;
	put64(t + 120, RESET_PORT);
	t[128] = RESET_VALUE;
	put64(t + 140, dsdt);
	return table_end(b, start);
}

static void madt_override(struct buf *b, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	emit8(b, 2);
	emit8(b, 10);
	emit8(b, 0); /* ISA */
	emit8(b, irq);
	emit32(b, gsi);
	emit16(b, flags);
}

static uint32_t write_madt(struct buf *b)
{
	uint32_t start = table_begin(b, "APIC", 1);

	emit32(b, LAPIC_GPA);
	emit32(b, 1); /* there are 8259s as well */
	emit8(b, 0);  /* local APIC: processor 0 has APIC ID 0 and is enabled */
	emit8(b, 8);
	emit16(b, 0);
	emit32(b, 1);
	emit8(b, 1); /* I/O APIC: ID 0, interrupts 0-23 */
	emit8(b, 12);
	emit16(b, 0);
	emit32(b, IOAPIC_GPA);
	emit32(b, 0);
	madt_override(b, 0, 2, 0);
	madt_override(b, ACPI_SCI_IRQ, ACPI_SCI_IRQ, 0xd); /* active high, level */
	emit8(b, 4);					   /* NMI on LINT1 of every processor */
	emit8(b, 6);
	emit8(b, 0xff);
	emit16(b, 0);
	emit8(b, 1);
	return table_end(b, start);
}

uint64_t acpi_install(struct machine *m)
{
	struct buf b = {.len = 0};
	uint8_t *rsdp = emit(&b, 20);
	uint32_t facs, fadt, madt = 0, rsdt;

	facs = write_facs(&b);
	fadt = write_fadt(&b, facs, write_dsdt(&b));
	if (boot_has_apic(m)) /* otherwise the 8259s serve */
		madt = write_madt(&b);
	rsdt = table_begin(&b, "RSDT", 1);
	emit32(&b, fadt);
	if (madt)
		emit32(&b, madt);
	rsdt = table_end(&b, rsdt);

	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "BT86  ", 6);
	put32(rsdp + 16, rsdt);
	rsdp[8] = boot_checksum(rsdp, 20);
	mem_phys_write(machine_mem(m), BIOS_ROM_GPA, b.bytes, b.len);
	return BIOS_ROM_GPA;
}
