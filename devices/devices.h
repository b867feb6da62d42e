/* devices.h - the PC board: what there is to plug in.
 *
 * One file a device; no device knows another. They meet at the port and memory buses and the interrupt lines
 * of vmm/vmm.h. Each *_create allocates the device, registers its ports, sinks, timers and reset handler, and
 * returns it (the board frees it with the machine: see board.c).
 */
#ifndef BT86_DEVICES_H
#define BT86_DEVICES_H

#include "vmm/vmm.h"

/* A character back end: stdio, file, pty, unix socket, null (devices/chardev.c). */
struct chardev;
/* spec as in -serial: "stdio", "mon:stdio", "file:PATH", "pty", "unix:PATH[,server[,nowait]]", "null". NULL with one line
 * in err. A server waits here for its first client unless told not to. */
struct chardev *chardev_open(struct machine *m, const char *spec, char *err, size_t errlen);
/* Bytes from the outside arrive through fn (lock held); the return value is how many were taken; the rest is
 * offered again after chardev_resume. */
void chardev_on_input(struct chardev *cd, size_t (*fn)(void *opaque, const uint8_t *buf, size_t n), void *opaque);
void chardev_resume(struct chardev *cd);
/* Queues output; never blocks. Nothing is lost as long as the writer heeds chardev_room: how many bytes the outside is
 * ready for, 0 while it is too slow; chardev_on_drain's fn hears (lock held) when there is room again. With nobody
 * listening at a pty or socket there is always room, and the last 64 KiB are kept for whoever comes. */
void chardev_write(struct chardev *cd, const uint8_t *buf, size_t n);
size_t chardev_room(struct chardev *cd);
void chardev_on_drain(struct chardev *cd, void (*fn)(void *opaque), void *opaque);
/* fn hears of a break on the line (Ctrl-a b). */
void chardev_on_break(struct chardev *cd, void (*fn)(void *opaque), void *opaque);
/* While fn is set it gets the input in place of the device (the monitor's line editor); NULL gives it back. */
void chardev_divert(struct chardev *cd, size_t (*fn)(void *opaque, const uint8_t *buf, size_t n), void *opaque);
void chardev_close(struct chardev *cd);
/* Puts the terminal back as it was; safe to call from a signal handler and more than once. */
void chardev_restore_terminal(void);
/* The Ctrl-a escape on stdio: x quit, h help, c monitor, b break, Ctrl-a itself. fn is called with the key, except for
 * the last two; without fn, x and h do what they say. "stdio" knows the escape on a terminal, "mon:stdio" always. */
void chardev_on_escape(struct chardev *cd, void (*fn)(void *opaque, int key), void *opaque);
extern const char chardev_escape_help[];

struct board_config {
	const char *serial[2]; /* chardev specs for COM1, COM2; NULL: no device behind it ("null") */
	bool debug_exit;       /* port 0xf4 */
	const char *debugcon;  /* port 0xe9 output spec; NULL: discarded */
};
struct board;
/* Builds all devices of the direct-boot machine. NULL with one line in err. */
struct board *board_create(struct machine *m, const struct board_config *cfg, char *err, size_t errlen);
void board_destroy(struct board *b);
struct chardev *board_console(struct board *b); /* COM1's */

/* The devices. i8259.c i8254.c mc146818.c uart16550.c i8042.c port92.c pci.c (0xcf8-0xcff with the reset
 * control register 0xcf9) lapic.c ioapic.c acpi_pm.c debugport.c (0xe9, 0xf4, 0x80). */
void i8259_create(struct machine *m);
void i8254_create(struct machine *m); /* and port 0x61 */
void mc146818_create(struct machine *m);
void uart16550_create(struct machine *m, uint16_t port, unsigned irq, struct chardev *cd);
void i8042_create(struct machine *m);
void port92_create(struct machine *m);
void pci_host_create(struct machine *m);
void lapic_create(struct machine *m);
void ioapic_create(struct machine *m);
void acpi_pm_create(struct machine *m);
void debugport_create(struct machine *m, bool debug_exit, struct chardev *out);

/* Port numbers that the ACPI tables name too (boot/acpi.c). The PM timer takes the port through which ISA
 * Plug and Play cards are set up (Plug and Play ISA 1.0a, WRITE_DATA, 0xa79): the board has no slot for any,
 * and Linux does not search for them where the port is in use, which would take a third of a second of
 * delays. The timer answers at the PIIX4's port as well, for programs that know QEMU's ports without asking
 * ACPI. */
#define ACPI_PM1A_EVT	  0x600u
#define ACPI_PM1A_CNT	  0x604u
#define ACPI_PM_TMR	  0xa78u
#define ACPI_PM_TMR_PIIX4 0x608u
#define ACPI_SCI_IRQ	  9u
#define ACPI_S5_TYP	  5u /* SLP_TYP value of \_S5 */
#define LAPIC_GPA	  0xfee00000u
#define IOAPIC_GPA	  0xfec00000u
#define LAPIC_BUS_HZ	  25000000u /* APIC timer input clock, before the divider */

#endif
