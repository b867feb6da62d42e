/* board.c - puts the board together: which devices, at which ports and lines. */
#include "devices/devices.h"

#include <stdlib.h>
#include <string.h>

#include "devices/device.h"

#define COM1_PORT 0x3f8u
#define COM1_IRQ  4u
#define COM2_PORT 0x2f8u
#define COM2_IRQ  3u
#define SERIALS	  2u

_Static_assert(LAPIC_BUS_HZ == CPUID_APIC_BUS_KHZ * 1000u, "CPUID tells the guest the APIC timer's clock");

struct board {
	struct machine *machine;
	struct chardev *serial[SERIALS];
	struct chardev *debugcon; /* may be one of serial[] */
};

static const char *serial_spec(const struct board_config *cfg, unsigned i)
{
	return cfg->serial[i] ? cfg->serial[i] : "null";
}

/* The debug console shares the back end of a serial port of the same name ("stdio" for both). */
static int open_debugcon(struct board *b, const struct board_config *cfg, char *err, size_t errlen)
{
	if (!cfg->debugcon)
		return 0;
	for (unsigned i = 0; i < SERIALS; i++) {
		if (!strcmp(serial_spec(cfg, i), cfg->debugcon)) {
			b->debugcon = b->serial[i];
			return 0;
		}
	}
	b->debugcon = chardev_open(b->machine, cfg->debugcon, err, errlen);
	return b->debugcon ? 0 : -1;
}

static int open_backends(struct board *b, const struct board_config *cfg, char *err, size_t errlen)
{
	for (unsigned i = 0; i < SERIALS; i++) {
		b->serial[i] = chardev_open(b->machine, serial_spec(cfg, i), err, errlen);
		if (!b->serial[i])
			return -1;
	}
	return open_debugcon(b, cfg, err, errlen);
}

static void close_backends(struct board *b)
{
	if (b->debugcon != b->serial[0] && b->debugcon != b->serial[1])
		chardev_close(b->debugcon);
	for (unsigned i = 0; i < SERIALS; i++)
		chardev_close(b->serial[i]);
}

struct board *board_create(struct machine *m, const struct board_config *cfg, char *err, size_t errlen)
{
	struct board *b = calloc(1, sizeof *b);

	if (!b) {
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	b->machine = m;
	if (open_backends(b, cfg, err, errlen) < 0) {
		close_backends(b);
		free(b);
		return NULL;
	}
	/* Interrupt controllers first: their reset handlers run before those of the devices that drive them.
	 */
	i8259_create(m);
	lapic_create(m);
	ioapic_create(m);
	i8254_create(m);
	mc146818_create(m);
	i8042_create(m);
	port92_create(m);
	pci_host_create(m);
	acpi_pm_create(m);
	uart16550_create(m, COM1_PORT, COM1_IRQ, b->serial[0]);
	uart16550_create(m, COM2_PORT, COM2_IRQ, b->serial[1]);
	debugport_create(m, cfg->debug_exit, b->debugcon);
	return b;
}

void board_destroy(struct board *b)
{
	if (!b)
		return;
	close_backends(b);
	device_free_all(b->machine);
	free(b);
}

struct chardev *board_console(struct board *b)
{
	return b->serial[0];
}
