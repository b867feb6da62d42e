/*
 * Just enough ACPI to find the PM timer and to power off (ACPI 6.4 sections 5.2.5 RSDP, 5.2.7 RSDT, 5.2.9
 * FADT, 7.4.2 _Sx): the FADT names the ports, and the package \_S5 in the DSDT the sleep type. The
 * package is found by its name, as an AML interpreter would be most of this kernel.
 */
#include "demo.h"

#define BIOS_START	  0xe0000u
#define BIOS_END	  0x100000u
#define EBDA_SEGMENT	  0x40eu
#define TABLE_HEADER_SIZE 36u

#define FADT_DSDT	  40
#define FADT_SMI_CMD	  48
#define FADT_ACPI_ENABLE  52
#define FADT_PM1A_CNT	  64
#define FADT_PM1B_CNT	  68
#define FADT_PM_TMR	  76

#define PM1_SCI_EN	  0x0001
#define PM1_SLP_TYP_SHIFT 10
#define PM1_SLP_EN	  0x2000
#define AML_PACKAGE	  0x12
#define AML_BYTE_PREFIX	  0x0a

static const uint8_t *fadt, *dsdt;

static uint32_t get32(const uint8_t *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool same(const uint8_t *p, const char *text, unsigned length)
{
	for (unsigned i = 0; i < length; i++)
		if (p[i] != (uint8_t)text[i])
			return false;
	return true;
}

static uint8_t sum(const uint8_t *p, uint32_t length)
{
	uint8_t total = 0;

	while (length--)
		total += *p++;
	return total;
}

static const uint8_t *find_rsdp(uint32_t start, uint32_t end)
{
	for (uint32_t address = start; address < end; address += 16) {
		const uint8_t *p = (const uint8_t *)(KERNEL_BASE + address);

		if (same(p, "RSD PTR ", 8) && sum(p, 20) == 0)
			return p;
	}
	return NULL;
}

static const uint8_t *table_at(uint32_t physical)
{
	const uint8_t *header = memory_view(physical, TABLE_HEADER_SIZE), *table;
	uint32_t length = get32(header + 4);

	if (length < TABLE_HEADER_SIZE || length > 0x100000)
		return NULL;
	table = memory_view(physical, length);
	return sum(table, length) == 0 ? table : NULL;
}

bool acpi_init(void)
{
	/* volatile: the compiler takes an address this low for a mistake */
	uint32_t ebda = *(volatile uint16_t *)(KERNEL_BASE + EBDA_SEGMENT) << 4;
	const uint8_t *rsdp = NULL, *rsdt;

	if (ebda >= 0x80000 && ebda < 0xa0000)
		rsdp = find_rsdp(ebda, ebda + 1024);
	if (!rsdp)
		rsdp = find_rsdp(BIOS_START, BIOS_END);
	if (!rsdp)
		return false;
	rsdt = table_at(get32(rsdp + 16));
	if (!rsdt)
		return false;
	for (uint32_t i = TABLE_HEADER_SIZE; i + 4 <= get32(rsdt + 4) && !fadt; i += 4) {
		const uint8_t *table = table_at(get32(rsdt + i));

		if (table && same(table, "FACP", 4))
			fadt = table;
	}
	if (fadt)
		dsdt = table_at(get32(fadt + FADT_DSDT));
	return fadt && dsdt;
}

uint16_t acpi_pm_timer_port(void)
{
	return fadt ? get32(fadt + FADT_PM_TMR) : 0;
}

/* The n-th element of a package of small integers, at its first element. */
static uint8_t element(const uint8_t *p, unsigned n)
{
	for (;; n--) {
		uint8_t value = *p++; /* ZeroOp 0 and OneOp 1 stand for themselves */

		if (value == AML_BYTE_PREFIX)
			value = *p++;
		if (n == 0)
			return value;
	}
}

/* SLP_TYPa and SLP_TYPb from Name (_S5, Package (){a, b, ...}). */
static bool sleep_types(uint8_t types[2])
{
	uint32_t length = get32(dsdt + 4);

	for (uint32_t i = TABLE_HEADER_SIZE; i + 16 < length; i++) {
		const uint8_t *p = dsdt + i;

		if (!same(p, "_S5_", 4) || p[4] != AML_PACKAGE)
			continue;
		p += 5;
		p += (*p >> 6) + 1; /* PkgLength: the top two bits count the bytes that follow the first */
		p += 1;		    /* NumElements */
		types[0] = element(p, 0);
		types[1] = element(p, 1);
		return true;
	}
	return false;
}

/* Returns if the machine did not go off. */
void acpi_power_off(void)
{
	uint16_t control_a, control_b;
	uint8_t types[2];

	if (!fadt || !dsdt || !sleep_types(types))
		return;
	control_a = get32(fadt + FADT_PM1A_CNT);
	control_b = get32(fadt + FADT_PM1B_CNT);
	if (get32(fadt + FADT_SMI_CMD) && fadt[FADT_ACPI_ENABLE] && !(inw(control_a) & PM1_SCI_EN)) {
		outb(get32(fadt + FADT_SMI_CMD), fadt[FADT_ACPI_ENABLE]);
		for (unsigned i = 0; i < 1000 && !(inw(control_a) & PM1_SCI_EN); i++)
			;
	}
	outw(control_a, types[0] << PM1_SLP_TYP_SHIFT | PM1_SLP_EN);
	if (control_b)
		outw(control_b, types[1] << PM1_SLP_TYP_SHIFT | PM1_SLP_EN);
	for (unsigned i = 0; i < 1000; i++)
		inw(control_a);
}
