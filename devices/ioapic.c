/* ioapic.c - the 82093AA I/O APIC (Intel 290566-001): 24 pins, memory-mapped at IOAPIC_GPA.
 *
 * Two registers are visible, IOREGSEL and IOWIN; the rest are reached through them. A pin's redirection entry
 * says what message it sends over the APIC bus. An edge-triggered pin sends at each rising edge, and one that
 * rises while masked is forgotten. A level-triggered pin sends when it is asserted and its Remote IRR is
 * clear, which the acceptance sets and the EOI for the vector clears; if the pin is still asserted then, it
 * sends again.
 *
 * The pins take the logical level of their lines, asserted or not; polarity is stored and has no effect. Line
 * 0 (the 8254) is wired to pin 2, as the MADT says, and pin 0, which would be the 8259's output, to nothing.
 *
 * Writing an entry as edge-triggered clears its Remote IRR: version 0x11 has no EOI register, and operating
 * systems use this instead.
 */
#include "devices/apicbus.h"
#include "devices/device.h"
#include "devices/devices.h"

#define PINS	      24

#define IOREGSEL      0x00
#define IOWIN	      0x10

#define IOAPICID      0x00
#define IOAPICVER     0x01
#define IOAPICARB     0x02
#define IOREDTBL      0x10

#define ID_MASK	      0x0f000000u
#define VERSION	      0x11u
#define VERSION_VALUE ((PINS - 1) << 16 | VERSION)

/* Redirection entry, low half */
#define RTE_VECTOR     0x000000ffu
#define RTE_DELMOD(v)  ((v) >> 8 & 7)
#define RTE_DESTMOD    0x00000800u
#define RTE_DELIVS     0x00001000u /* read-only; never pending here */
#define RTE_REMOTE_IRR 0x00004000u /* read-only */
#define RTE_TRIGGER    0x00008000u /* set: level */
#define RTE_MASK       0x00010000u
#define RTE_LOW_WRITE  0x0001afffu
/* high half */
#define RTE_DEST(v)    ((v) >> 24)
#define RTE_HIGH_WRITE 0xff000000u

struct ioapic {
	struct apicbus *bus;
	uint32_t ioregsel;
	uint32_t id, arb;
	struct {
		uint32_t low, high;
		bool asserted;
	} pin[PINS];
};

static bool pin_send(struct ioapic *io, unsigned n)
{
	uint32_t low = io->pin[n].low;
	struct apicbus_message msg = {
		.dest = (uint8_t)RTE_DEST(io->pin[n].high),
		.logical = low & RTE_DESTMOD,
		.vector = low & RTE_VECTOR,
		.level = low & RTE_TRIGGER,
		.delivery = RTE_DELMOD(low),
	};

	return apicbus_send(io->bus, &msg);
}

/* What a level-triggered pin has to say now, if anything. */
static void pin_service_level(struct ioapic *io, unsigned n)
{
	uint32_t low = io->pin[n].low;

	if (!io->pin[n].asserted || !(low & RTE_TRIGGER) || (low & (RTE_MASK | RTE_REMOTE_IRR)))
		return;
	if (!pin_send(io, n))
		return;
	/* Only fixed and lowest-priority interrupts have an EOI to wait for. */
	if (RTE_DELMOD(low) == APIC_FIXED || RTE_DELMOD(low) == APIC_LOWEST)
		io->pin[n].low |= RTE_REMOTE_IRR;
}

static void ioapic_line(void *opaque, unsigned line, bool level)
{
	struct ioapic *io = opaque;
	unsigned n = line == 0 ? 2 : line;
	bool rising;

	if (line == 2 || n >= PINS) /* line 2 is the cascade of the 8259s */
		return;
	rising = level && !io->pin[n].asserted;
	io->pin[n].asserted = level;
	if (io->pin[n].low & RTE_TRIGGER)
		pin_service_level(io, n);
	else if (rising && !(io->pin[n].low & RTE_MASK))
		pin_send(io, n);
}

static void ioapic_eoi(void *opaque, uint8_t vector)
{
	struct ioapic *io = opaque;

	for (unsigned n = 0; n < PINS; n++) {
		uint32_t low = io->pin[n].low;

		if (!(low & RTE_REMOTE_IRR) || (low & RTE_VECTOR) != vector)
			continue;
		io->pin[n].low &= ~RTE_REMOTE_IRR;
		pin_service_level(io, n);
	}
}

static void ioapic_ready(void *opaque)
{
	for (unsigned n = 0; n < PINS; n++)
		pin_service_level(opaque, n);
}

static uint32_t register_read(const struct ioapic *io)
{
	uint32_t n = (io->ioregsel - IOREDTBL) / 2;

	switch (io->ioregsel) {
	case IOAPICID:
		return io->id;
	case IOAPICVER:
		return VERSION_VALUE;
	case IOAPICARB:
		return io->arb;
	default:
		if (io->ioregsel < IOREDTBL || n >= PINS)
			return 0;
		return io->ioregsel & 1 ? io->pin[n].high : io->pin[n].low;
	}
}

static void register_write(struct ioapic *io, uint32_t value)
{
	uint32_t n = (io->ioregsel - IOREDTBL) / 2;

	if (io->ioregsel == IOAPICID) {
		io->id = value & ID_MASK;
		io->arb = io->id;
		return;
	}
	if (io->ioregsel < IOREDTBL || n >= PINS)
		return;
	if (io->ioregsel & 1) {
		io->pin[n].high = value & RTE_HIGH_WRITE;
	} else {
		io->pin[n].low = (value & RTE_LOW_WRITE) | (io->pin[n].low & RTE_REMOTE_IRR);
		if (!(value & RTE_TRIGGER))
			io->pin[n].low &= ~RTE_REMOTE_IRR;
	}
	pin_service_level(io, n);
}

static uint32_t ioapic_read(void *opaque, uint32_t offset, unsigned size)
{
	struct ioapic *io = opaque;
	uint32_t value = 0;

	(void)size;
	if ((offset & ~3u) == IOREGSEL)
		value = io->ioregsel;
	else if ((offset & ~3u) == IOWIN)
		value = register_read(io);
	return value >> 8 * (offset & 3);
}

/* The registers take 32-bit writes; IOREGSEL, whose upper bits are reserved, any. */
static void ioapic_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct ioapic *io = opaque;

	if (offset == IOREGSEL)
		io->ioregsel = value & 0xff;
	else if (offset == IOWIN && size == 4)
		register_write(io, value);
}

static void ioapic_reset(void *opaque)
{
	struct ioapic *io = opaque;

	io->ioregsel = 0;
	io->id = 0;
	io->arb = 0;
	for (unsigned n = 0; n < PINS; n++) { /* not the levels of the pins: those are the devices' */
		io->pin[n].low = RTE_MASK;
		io->pin[n].high = 0;
	}
}

void ioapic_create(struct machine *m)
{
	static const struct io_ops ops = {.read = ioapic_read, .write = ioapic_write, .wide = true};
	struct ioapic *io = device_alloc(m, sizeof *io);

	io->bus = apicbus_get(m);
	io->bus->io = (struct apicbus_io){ioapic_eoi, ioapic_ready, io};
	mmio_register(m, IOAPIC_GPA, 0x1000, &ops, io);
	irq_sink_add(m, ioapic_line, io);
	machine_on_reset(m, ioapic_reset, io);
	ioapic_reset(io);
}
