/* port92.c - PS/2 system control port A: fast A20 gate and fast reset. */
#include "devices/devices.h"

#include "devices/a20.h"
#include "devices/device.h"

#define PORT92	      0x92u
#define P92_FAST_INIT 0x01u
#define P92_A20	      0x02u

struct port92 {
	struct machine *machine;
	uint8_t value; /* the bits that are only stored */
};

static uint32_t port92_read(void *opaque, uint32_t offset, unsigned size)
{
	struct port92 *p = opaque;

	(void)offset;
	(void)size;
	return p->value | (a20_get(p->machine) ? P92_A20 : 0);
}

static void port92_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct port92 *p = opaque;
	bool init = value & ~p->value & P92_FAST_INIT;

	(void)offset;
	(void)size;
	p->value = value & (uint8_t)~P92_A20;
	a20_set(p->machine, value & P92_A20);
	if (init)
		machine_reset_request(p->machine);
}

static void port92_reset(void *opaque)
{
	struct port92 *p = opaque;

	p->value = 0;
}

static const struct io_ops port92_ops = {.read = port92_read, .write = port92_write};

void port92_create(struct machine *m)
{
	struct port92 *p = device_alloc(m, sizeof *p);

	p->machine = m;
	pio_register(m, PORT92, 1, &port92_ops, p);
	machine_on_reset(m, port92_reset, p);
}
