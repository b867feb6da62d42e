/* debugport.c - ports for people: the 0xe9 console, the POST code at 0x80, the exit port 0xf4. */
#include "devices/devices.h"

#include "devices/device.h"

#define PORT_POST    0x80u
#define PORT_CONSOLE 0xe9u
#define PORT_EXIT    0xf4u
#define EXIT_PORTS   4u

struct debugport {
	struct machine *machine;
	struct chardev *out;
	uint8_t post;
};

static uint32_t post_read(void *opaque, uint32_t offset, unsigned size)
{
	struct debugport *d = opaque;

	(void)offset;
	(void)size;
	return d->post;
}

/* Linux writes here after every slow port access, as a delay. */
static void post_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct debugport *d = opaque;

	(void)offset;
	(void)size;
	d->post = (uint8_t)value;
	if (log_on(LOG_DEV))
		log_printf(LOG_DEV, "POST code %02x\n", value & 0xff);
}

/* Reading back the port's own number is how software finds out that the console is there (Bochs). */
static uint32_t console_read(void *opaque, uint32_t offset, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return PORT_CONSOLE;
}

static void console_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct debugport *d = opaque;
	uint8_t byte = (uint8_t)value;

	(void)offset;
	(void)size;
	if (d->out)
		chardev_write(d->out, &byte, 1);
}

static uint32_t exit_read(void *opaque, uint32_t offset, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0;
}

static void exit_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct debugport *d = opaque;

	(void)size;
	if (offset == 0)
		machine_poweroff(d->machine,
				 (int)((value << 1 | 1) & 0xff)); /* all that an exit status holds */
}

static const struct io_ops post_ops = {.read = post_read, .write = post_write};
static const struct io_ops console_ops = {.read = console_read, .write = console_write};
static const struct io_ops exit_ops = {.read = exit_read, .write = exit_write, .wide = true};

void debugport_create(struct machine *m, bool debug_exit, struct chardev *out)
{
	struct debugport *d = device_alloc(m, sizeof *d);

	d->machine = m;
	d->out = out;
	pio_register(m, PORT_POST, 1, &post_ops, d);
	pio_register(m, PORT_CONSOLE, 1, &console_ops, d);
	if (debug_exit)
		pio_register(m, PORT_EXIT, EXIT_PORTS, &exit_ops, d);
}
