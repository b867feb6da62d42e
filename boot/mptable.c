/* mptable.c - the tables of the MultiProcessor Specification (Intel 242016-006, version 1.4, chapter 4).
 *
 * They describe what the MADT describes to those who do not read ACPI: small kernels (xv6), Linux with
 * acpi=off. Linux with ACPI looks for them too, and where there are none it searches all of the BIOS area in
 * steps of 16 bytes, mapping and unmapping what is left of it each time: 35000 page-table entries made and
 * taken away again.
 *
 *     0xf0000  floating pointer structure, then the configuration table
 */
#include "boot/plan.h"

#include <assert.h>
#include <string.h>

#include "devices/devices.h"

#define POINTER_SIZE 16u
#define HEADER_SIZE  44u
#define SPEC_1_4     4u

/* Entries (table 4-3), and the sizes that they have. */
enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_IO_INT, MP_LOCAL_INT };

#define LAPIC_VERSION  0x14u
#define IOAPIC_VERSION 0x11u

#define CPU_ENABLED    1u
#define CPU_BOOTS      2u

/* Kinds of interrupt, and flags: polarity and trigger mode, 0 as the bus has them (tables 4-10 and 4-11). */
enum { INT_VECTORED, INT_NMI, INT_SMI, INT_EXTERNAL };
#define ACTIVE_HIGH 1u
#define LEVEL	    (3u << 2)

#define BUS_PCI	    0u
#define BUS_ISA	    1u
#define ISA_IRQS    16u
#define TIMER_PIN   2u /* of the I/O APIC; the cascade, which has this number at the 8259, is no interrupt */
#define EVERY_LAPIC 0xffu

struct table {
	uint8_t bytes[512];
	uint32_t len;
	uint16_t entries;
};

static uint8_t *entry(struct table *t, uint8_t type, uint32_t size)
{
	uint8_t *p = t->bytes + t->len;

	assert(t->len + size <= sizeof t->bytes);
	p[0] = type;
	t->len += size;
	t->entries++;
	return p;
}

static void processor(struct table *t, struct machine *m)
{
	uint8_t *p = entry(t, MP_PROCESSOR, 20);
	uint32_t leaf[4];

	cpuid_query(machine_vcpu(m), 1, 0, leaf);
	p[2] = LAPIC_VERSION;
	p[3] = CPU_ENABLED | CPU_BOOTS;
	put32(p + 4, leaf[0] & 0xfff); /* family, model, stepping */
	put32(p + 8, leaf[3]);
}

static void bus(struct table *t, uint8_t id, const char *name)
{
	uint8_t *p = entry(t, MP_BUS, 8);

	p[1] = id;
	memcpy(p + 2, name, 6);
}

static void ioapic(struct table *t)
{
	uint8_t *p = entry(t, MP_IOAPIC, 8);

	p[2] = IOAPIC_VERSION;
	p[3] = 1; /* enabled */
	put32(p + 4, IOAPIC_GPA);
}

/* An ISA interrupt that goes to input `to` of the APIC with that ID. */
static void interrupt(struct table *t, uint8_t type, uint8_t kind, uint16_t flags, uint8_t irq, uint8_t apic,
		      uint8_t to)
{
	uint8_t *p = entry(t, type, 8);

	p[1] = kind;
	put16(p + 2, flags);
	p[4] = BUS_ISA;
	p[5] = irq;
	p[6] = apic;
	p[7] = to;
}

static void interrupts(struct table *t)
{
	for (uint8_t irq = 0; irq < ISA_IRQS; irq++)
		if (irq != TIMER_PIN)
			interrupt(t, MP_IO_INT, INT_VECTORED, irq == ACPI_SCI_IRQ ? ACTIVE_HIGH | LEVEL : 0,
				  irq, 0, irq ? irq : TIMER_PIN);
	interrupt(t, MP_LOCAL_INT, INT_EXTERNAL, 0, 0, EVERY_LAPIC, 0);
	interrupt(t, MP_LOCAL_INT, INT_NMI, 0, 0, EVERY_LAPIC, 1);
}

static void header(struct table *t)
{
	uint8_t *h = t->bytes;

	memcpy(h, "PCMP", 4);
	put16(h + 4, (uint16_t)t->len);
	h[6] = SPEC_1_4;
	memcpy(h + 8, "BT86    BT86PC      ", 20); /* manufacturer, product */
	put16(h + 34, t->entries);
	put32(h + 36, LAPIC_GPA);
	h[7] = boot_checksum(h, t->len);
}

void mptable_install(struct machine *m)
{
	struct table t = {.len = HEADER_SIZE};
	uint8_t pointer[POINTER_SIZE] = "_MP_";

	if (!boot_has_apic(m))
		return;
	processor(&t, m);
	bus(&t, BUS_PCI, "PCI   ");
	bus(&t, BUS_ISA, "ISA   ");
	ioapic(&t);
	interrupts(&t);
	header(&t);
	put32(pointer + 4, MP_GPA + POINTER_SIZE);
	pointer[8] = POINTER_SIZE / 16;
	pointer[9] = SPEC_1_4;
	pointer[10] = boot_checksum(pointer, sizeof pointer);
	mem_phys_write(machine_mem(m), MP_GPA, pointer, sizeof pointer);
	mem_phys_write(machine_mem(m), MP_GPA + POINTER_SIZE, t.bytes, t.len);
}
