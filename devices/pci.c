/* pci.c - PCI configuration mechanism #1 with a host bridge and an ISA bridge, and the reset control
 * register.
 *
 * Intel 440FX PCIset (82441FX) and 82371SB (PIIX3) datasheets. The bridges are there because every operating
 * system expects a PC to have them; they do nothing. The reset control register 0xcf9 is the PIIX3's and lies
 * inside the address register's doubleword: only a 32-bit access at 0xcf8 is the address register's.
 */
#include "devices/devices.h"

#include "devices/device.h"

#define PORT_FIRST 0xcf8u
#define PORT_COUNT 8u

/* Offsets from PORT_FIRST */
#define CONFIG_ADDRESS	 0u
#define RESET_CONTROL	 1u
#define CONFIG_DATA	 4u

#define ADDRESS_ENABLE	 0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu

#define RST_HARD	 0x02u
#define RST_CPU		 0x04u /* 0 to 1: reset */

#define SPACE		 256u

/* Registers that are not zero, or not read-only, after reset. */
struct pci_reg {
	uint8_t at, size;
	uint32_t value, writable;
};

struct pci_function {
	uint8_t device, function;
	const struct pci_reg *regs;
	uint8_t config[SPACE], mask[SPACE];
};

/* clang-format off */
static const struct pci_reg host_bridge[] = {
	{0x00, 4, 0x12378086, 0},	/* 82441FX */
	{0x04, 2, 0x0006, 0x0140},	/* command: memory, bus master */
	{0x06, 2, 0x0280, 0},
	{0x08, 4, 0x06000002, 0},	/* host bridge, revision 2 */
	{0x59, 4, 0, 0x33333330},	/* PAM0-3 */
	{0x5d, 4, 0, 0x00333333},	/* PAM4-6 */
	{0x72, 1, 0x02, 0x4f},		/* SMRAM */
	{0},
};
static const struct pci_reg isa_bridge[] = {
	{0x00, 4, 0x70008086, 0},	/* 82371SB */
	{0x04, 2, 0x0007, 0x0108},	/* command: I/O, memory, bus master */
	{0x06, 2, 0x0200, 0},
	{0x08, 4, 0x06010000, 0},	/* ISA bridge */
	{0x4c, 1, 0x4d, 0xff},		/* I/O recovery */
	{0x4e, 2, 0x0003, 0xffff},	/* X-bus chip select */
	{0x60, 4, 0x80808080, 0x8f8f8f8f}, /* PIRQ routes: disabled */
	{0},
};
/* clang-format on */

struct pci {
	struct machine *machine;
	uint32_t address;
	uint8_t reset_control;
	struct pci_function functions[2];
};

static void function_reset(struct pci_function *f)
{
	for (unsigned i = 0; i < SPACE; i++)
		f->config[i] = f->mask[i] = 0;
	for (const struct pci_reg *r = f->regs; r->size; r++) {
		for (unsigned i = 0; i < r->size; i++) {
			f->config[r->at + i] = (uint8_t)(r->value >> (8 * i));
			f->mask[r->at + i] = (uint8_t)(r->writable >> (8 * i));
		}
	}
}

/* The function that the address register selects, NULL if there is none. */
static struct pci_function *pci_selected(struct pci *p)
{
	const unsigned bus = p->address >> 16 & 0xff, device = p->address >> 11 & 0x1f;
	const unsigned function = p->address >> 8 & 7;

	if (!(p->address & ADDRESS_ENABLE) || bus != 0)
		return NULL;
	for (unsigned i = 0; i < sizeof p->functions / sizeof p->functions[0]; i++)
		if (p->functions[i].device == device && p->functions[i].function == function)
			return &p->functions[i];
	return NULL;
}

static uint8_t pci_read_byte(struct pci *p, uint32_t offset)
{
	if (offset >= CONFIG_DATA) {
		const struct pci_function *f = pci_selected(p);
		return f ? f->config[(p->address & 0xfc) + offset - CONFIG_DATA] : 0xff;
	}
	return offset == RESET_CONTROL ? p->reset_control : 0xff;
}

static void pci_write_byte(struct pci *p, uint32_t offset, uint8_t value)
{
	if (offset >= CONFIG_DATA) {
		struct pci_function *f = pci_selected(p);
		if (!f)
			return;
		unsigned at = (p->address & 0xfc) + offset - CONFIG_DATA;
		f->config[at] = (uint8_t)((f->config[at] & ~f->mask[at]) | (value & f->mask[at]));
	} else if (offset == RESET_CONTROL) {
		bool reset = value & ~p->reset_control & RST_CPU;
		p->reset_control = value & (RST_HARD | RST_CPU);
		if (reset)
			machine_reset_request(p->machine);
	}
}

static uint32_t pci_read(void *opaque, uint32_t offset, unsigned size)
{
	struct pci *p = opaque;
	uint32_t value = 0;

	if (offset == CONFIG_ADDRESS && size == 4)
		return p->address;
	for (unsigned i = 0; i < size; i++)
		value |= (uint32_t)pci_read_byte(p, offset + i) << (8 * i);
	return value;
}

static void pci_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct pci *p = opaque;

	if (offset == CONFIG_ADDRESS && size == 4) {
		p->address = value & ADDRESS_WRITABLE;
		return;
	}
	for (unsigned i = 0; i < size; i++)
		pci_write_byte(p, offset + i, (uint8_t)(value >> (8 * i)));
}

static void pci_reset(void *opaque)
{
	struct pci *p = opaque;

	p->address = 0;
	p->reset_control = 0;
	for (unsigned i = 0; i < sizeof p->functions / sizeof p->functions[0]; i++)
		function_reset(&p->functions[i]);
}

static const struct io_ops pci_ops = {.read = pci_read, .write = pci_write, .wide = true};

void pci_host_create(struct machine *m)
{
	struct pci *p = device_alloc(m, sizeof *p);

	p->machine = m;
	p->functions[0] = (struct pci_function){.device = 0, .regs = host_bridge};
	p->functions[1] = (struct pci_function){.device = 1, .regs = isa_bridge};
	pci_reset(p);
	pio_register(m, PORT_FIRST, PORT_COUNT, &pci_ops, p);
	machine_on_reset(m, pci_reset, p);
}
