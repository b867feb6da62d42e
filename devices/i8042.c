/* i8042.c - PS/2 keyboard controller with a keyboard on its first port and nothing on its second.
 *
 * The keyboard answers commands as a real one does; nobody types on it (the console is the serial line). A
 * controller reply and keyboard bytes wait in separate queues, the reply first; one byte at a time is in the
 * output buffer, where it holds IRQ 1 high until it is read.
 */
#include "devices/devices.h"

#include "devices/a20.h"
#include "devices/device.h"

#define PORT_DATA    0x60u
#define PORT_COMMAND 0x64u
#define KBD_IRQ	     1u

/* Status register */
#define ST_OBF	    0x01u
#define ST_SYS	    0x04u
#define ST_COMMAND  0x08u
#define ST_UNLOCKED 0x10u
#define ST_AUX	    0x20u
#define ST_TIMEOUT  0x40u

/* Configuration byte */
#define CFG_KBD_INT   0x01u
#define CFG_SYS	      0x04u
#define CFG_KBD_OFF   0x10u
#define CFG_AUX_OFF   0x20u
#define CFG_TRANSLATE 0x40u
#define CFG_POWER_ON  (CFG_KBD_INT | CFG_SYS | CFG_AUX_OFF | CFG_TRANSLATE)

/* Output port P2 */
#define P2_NOT_RESET 0x01u
#define P2_A20	     0x02u
#define P2_KBD_OBF   0x10u
#define P2_IDLE	     0xc0u

/* Controller commands that are looked at more than once */
#define CMD_WRITE_CONFIG  0x60u
#define CMD_WRITE_P2	  0xd1u
#define CMD_WRITE_KBD_OUT 0xd2u
#define CMD_WRITE_AUX_OUT 0xd3u
#define CMD_WRITE_AUX	  0xd4u
#define AUX_CLOCK_STUCK	  0x02u

#define KBD_ACK		  0xfau
#define KBD_RESEND	  0xfeu
#define KBD_BAT_OK	  0xaau

#define KBD_QUEUE	  16u

struct i8042 {
	struct machine *machine;
	uint8_t config;
	uint8_t command; /* waiting for its data byte at port 0x60, 0: none */
	bool last_was_command;

	bool obf;
	uint8_t out, out_flags; /* in the output buffer; flags: ST_AUX, ST_TIMEOUT */

	bool reply_waits;
	uint8_t reply, reply_flags;
	uint8_t kbd[KBD_QUEUE];
	unsigned kbd_head, kbd_count;

	uint8_t kbd_command; /* waiting for its argument, 0: none */
	uint8_t scancode_set, leds;
};

/* ------------------------------------------------------------------ output buffer */

static void i8042_update_irq(struct i8042 *k)
{
	irq_set(k->machine, KBD_IRQ, k->obf && k->config & CFG_KBD_INT && !(k->out_flags & ST_AUX));
}

static void i8042_fill(struct i8042 *k)
{
	if (k->obf)
		return;
	if (k->reply_waits) {
		k->reply_waits = false;
		k->out = k->reply;
		k->out_flags = k->reply_flags;
		k->obf = true;
	} else if (k->kbd_count && !(k->config & CFG_KBD_OFF)) {
		k->out = k->kbd[k->kbd_head];
		k->out_flags = 0;
		k->kbd_head = (k->kbd_head + 1) % KBD_QUEUE;
		k->kbd_count--;
		k->obf = true;
	}
	i8042_update_irq(k);
}

static void i8042_reply(struct i8042 *k, uint8_t value, uint8_t flags)
{
	k->reply = value;
	k->reply_flags = flags;
	k->reply_waits = true;
	i8042_fill(k);
}

static void i8042_kbd_send(struct i8042 *k, uint8_t value)
{
	if (k->kbd_count == KBD_QUEUE)
		return;
	k->kbd[(k->kbd_head + k->kbd_count++) % KBD_QUEUE] = value;
	i8042_fill(k);
}

/* ------------------------------------------------------------------ the keyboard */

static void kbd_argument(struct i8042 *k, uint8_t command, uint8_t value)
{
	i8042_kbd_send(k, KBD_ACK);
	if (command == 0xed)
		k->leds = value & 7;
	else if (command == 0xf0 && value == 0)
		i8042_kbd_send(k, k->scancode_set);
	else if (command == 0xf0 && value <= 3)
		k->scancode_set = value;
}

static void kbd_command(struct i8042 *k, uint8_t value)
{
	if (k->kbd_command &&
	    value < 0xed) { /* anything from 0xed on is a new command instead of the argument */
		uint8_t command = k->kbd_command;
		k->kbd_command = 0;
		kbd_argument(k, command, value);
		return;
	}
	k->kbd_command = 0;
	switch (value) {
	case 0xed:	    /* LEDs */
	case 0xf0:	    /* scan code set */
	case 0xf3:	    /* typematic rate */
	case 0xfb ... 0xfd: /* key types */
		k->kbd_command = value;
		i8042_kbd_send(k, KBD_ACK);
		break;
	case 0xee: /* echo */
		i8042_kbd_send(k, 0xee);
		break;
	case 0xf2: /* identify: an MF2 keyboard; translation changes its second byte */
		i8042_kbd_send(k, KBD_ACK);
		i8042_kbd_send(k, 0xab);
		i8042_kbd_send(k, k->config & CFG_TRANSLATE ? 0x41 : 0x83);
		break;
	case 0xf4:	    /* enable */
	case 0xf5:	    /* defaults, disable */
	case 0xf7 ... 0xfa: /* all keys */
		i8042_kbd_send(k, KBD_ACK);
		break;
	case 0xf6: /* defaults */
		k->scancode_set = 2;
		i8042_kbd_send(k, KBD_ACK);
		break;
	case 0xff: /* reset and self-test */
		k->scancode_set = 2;
		k->leds = 0;
		i8042_kbd_send(k, KBD_ACK);
		i8042_kbd_send(k, KBD_BAT_OK);
		break;
	default:
		i8042_kbd_send(k, KBD_RESEND);
		break;
	}
}

/* ------------------------------------------------------------------ the controller */

static void i8042_command(struct i8042 *k, uint8_t value)
{
	k->command = 0;
	switch (value) {
	case 0x20: /* read configuration */
		i8042_reply(k, k->config, 0);
		break;
	case CMD_WRITE_CONFIG:
	case CMD_WRITE_P2 ... CMD_WRITE_AUX:
		k->command = value;
		break;
	case 0xa7:
		k->config |= CFG_AUX_OFF;
		break;
	case 0xa8:
		k->config &= (uint8_t)~CFG_AUX_OFF;
		break;
	case 0xa9: /* test the second port: there is none */
		i8042_reply(k, AUX_CLOCK_STUCK, 0);
		break;
	case 0xaa: /* self-test */
		k->config |= CFG_SYS;
		i8042_reply(k, 0x55, 0);
		break;
	case 0xab: /* test the keyboard port */
		i8042_reply(k, 0x00, 0);
		break;
	case 0xad:
		k->config |= CFG_KBD_OFF;
		break;
	case 0xae:
		k->config &= (uint8_t)~CFG_KBD_OFF;
		i8042_fill(k);
		break;
	case 0xc0: /* input port: keyboard not locked */
		i8042_reply(k, 0x80, 0);
		break;
	case 0xd0: /* output port */
		i8042_reply(k,
			    P2_IDLE | P2_NOT_RESET | (a20_get(k->machine) ? P2_A20 : 0) |
				    (k->obf ? P2_KBD_OBF : 0),
			    0);
		break;
	case 0xdd:
		a20_set(k->machine, false);
		break;
	case 0xdf:
		a20_set(k->machine, true);
		break;
	case 0xf0 ... 0xff: /* pulse output bits that are 0: bit 0 is the CPU's reset line */
		if (!(value & 1))
			machine_reset_request(k->machine);
		break;
	default: /* controller RAM beyond the configuration byte, and what never existed */
		break;
	}
}

static void i8042_data_for_command(struct i8042 *k, uint8_t value)
{
	uint8_t command = k->command;

	k->command = 0;
	switch (command) {
	case CMD_WRITE_CONFIG:
		k->config = value & (uint8_t)~0x80u;
		i8042_fill(k);
		i8042_update_irq(k);
		break;
	case CMD_WRITE_P2:
		a20_set(k->machine, value & P2_A20);
		if (!(value & P2_NOT_RESET))
			machine_reset_request(k->machine);
		break;
	case CMD_WRITE_KBD_OUT:
		i8042_reply(k, value, 0);
		break;
	case CMD_WRITE_AUX_OUT: /* not from the second port, which tells that there is none */
		i8042_reply(k, value, 0);
		break;
	default: /* CMD_WRITE_AUX: nobody answers */
		i8042_reply(k, KBD_RESEND, ST_AUX | ST_TIMEOUT);
		break;
	}
}

/* ------------------------------------------------------------------ ports */

static uint32_t i8042_read_data(void *opaque, uint32_t offset, unsigned size)
{
	struct i8042 *k = opaque;
	uint8_t value = k->out;

	(void)offset;
	(void)size;
	k->obf = false;
	i8042_update_irq(k); /* the line falls between two bytes: each is an edge */
	i8042_fill(k);
	return value;
}

static void i8042_write_data(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct i8042 *k = opaque;

	(void)offset;
	(void)size;
	k->last_was_command = false;
	if (k->command)
		i8042_data_for_command(k, (uint8_t)value);
	else {
		k->config &= (uint8_t)~CFG_KBD_OFF; /* writing to the keyboard starts its clock */
		kbd_command(k, (uint8_t)value);
	}
}

static uint32_t i8042_read_status(void *opaque, uint32_t offset, unsigned size)
{
	struct i8042 *k = opaque;

	(void)offset;
	(void)size;
	return ST_UNLOCKED | (k->config & CFG_SYS ? ST_SYS : 0) | (k->last_was_command ? ST_COMMAND : 0) |
	       (k->obf ? ST_OBF | k->out_flags : 0);
}

static void i8042_write_command(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct i8042 *k = opaque;

	(void)offset;
	(void)size;
	k->last_was_command = true;
	i8042_command(k, (uint8_t)value);
}

static void i8042_reset(void *opaque)
{
	struct i8042 *k = opaque;

	*k = (struct i8042){.machine = k->machine, .config = CFG_POWER_ON, .scancode_set = 2};
	i8042_update_irq(k);
}

static const struct io_ops data_ops = {.read = i8042_read_data, .write = i8042_write_data};
static const struct io_ops command_ops = {.read = i8042_read_status, .write = i8042_write_command};

void i8042_create(struct machine *m)
{
	struct i8042 *k = device_alloc(m, sizeof *k);

	k->machine = m;
	i8042_reset(k);
	pio_register(m, PORT_DATA, 1, &data_ops, k);
	pio_register(m, PORT_COMMAND, 1, &command_ops, k);
	machine_on_reset(m, i8042_reset, k);
}
