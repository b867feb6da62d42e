/* i8259.c - the pair of 8259A interrupt controllers of a PC (Intel 231468-003) with its edge/level registers.
 *
 * The master stands at 0x20 and takes lines 0-7, the slave at 0xa0 takes 8-15 and drives the master's
 * input 2. The master's INT output is the source INTR_PIC of the machine. ELCR at 0x4d0 and 0x4d1 chooses
 * level triggering for single inputs (as the PCI-to-ISA bridges have it; ICW1's LTIM has no effect there, nor
 * here).
 *
 * How an input becomes an interrupt: a request stands in IRR; if it is not masked and nothing of its priority
 * or above is in service, INT rises; the CPU's acknowledge moves the request to ISR and gives the vector; EOI
 * clears ISR. For an edge-triggered input IRR is set by a low-to-high transition and stays until
 * acknowledged, even if the input falls before (so a pulse is an interrupt; the real chip wants the input
 * held). For a level-triggered one IRR follows the input. A request that goes away lowers INT; if the CPU
 * acknowledges all the same, because it had made up its mind before, the chip answers with its vector 7 and
 * sets no ISR bit: the spurious IRQ 7, or 15 if the request was the slave's (the master's ISR bit 2 is then
 * set).
 *
 * Power-on is the state that PC firmware leaves: vectors 0x08 and 0x70, cascaded, edge-triggered, everything
 * masked.
 */
#include "devices/device.h"
#include "devices/devices.h"

#define PIC_MASTER     0x20
#define PIC_SLAVE      0xa0
#define PIC_ELCR       0x4d0

#define CASCADE_INPUT  2
#define SPURIOUS_INPUT 7

/* A0 = 0 */
#define ICW1_IC4  0x01 /* ICW4 will follow */
#define ICW1_SNGL 0x02 /* no cascade: no ICW3 */
#define ICW1_INIT 0x10
#define OCW3	  0x08
/* OCW2: rotate, specific, EOI, level */
#define OCW2_COMMAND  0xe0
#define OCW2_LEVEL    0x07
#define OCW2_EOI      0x20 /* non-specific EOI */
#define OCW2_SEOI     0x60 /* specific EOI */
#define OCW2_ROT_EOI  0xa0 /* rotate on non-specific EOI */
#define OCW2_ROT_SET  0x80 /* rotate in automatic EOI mode: set */
#define OCW2_ROT_CLR  0x00 /* rotate in automatic EOI mode: clear */
#define OCW2_ROT_SEOI 0xe0 /* rotate on specific EOI */
#define OCW2_SET_PRIO 0xc0 /* set priority */
/* OCW3 */
#define OCW3_RIS  0x01
#define OCW3_RR	  0x02
#define OCW3_POLL 0x04
#define OCW3_SMM  0x20
#define OCW3_ESMM 0x40
/* A0 = 1 */
#define ICW2_BASE 0xf8
#define ICW4_AEOI 0x02
#define ICW4_SFNM 0x10 /* special fully nested mode */

enum icw { READY, EXPECT_ICW2, EXPECT_ICW3, EXPECT_ICW4 };

struct chip {
	uint8_t irr, isr, imr;
	uint8_t input; /* the levels at the pins */
	uint8_t elcr, elcr_mask;
	uint8_t icw1, icw2, icw4;
	enum icw expect;
	uint8_t lowest; /* input of lowest priority; the next one in the ring has the highest */
	bool smm;	/* special mask mode */
	bool rotate_aeoi;
	bool read_isr;
	bool poll;
	uint8_t cascade; /* mask of inputs that a slave drives */
};

struct i8259 {
	struct machine *machine;
	struct chip master, slave;
	int requested; /* the master's input that INT was last raised for */
};

/* ------------------------------------------------------------------ one chip */

/* Distance of an input from the highest priority, 0 to 7. */
static unsigned priority(const struct chip *c, unsigned input)
{
	return (input - c->lowest - 1u) & 7u;
}

/* The input of highest priority among a nonempty set. */
static unsigned highest(const struct chip *c, uint8_t set)
{
	unsigned input = (c->lowest + 1u) & 7u;

	while (!(set >> input & 1u))
		input = (input + 1u) & 7u;
	return input;
}

/* The request that the chip would have served now, or -1. */
static int chip_request(const struct chip *c)
{
	uint8_t requests = c->irr & (uint8_t)~c->imr;
	/* In special mask mode, what is in service but masked does not inhibit others. */
	uint8_t in_service = c->smm ? c->isr & (uint8_t)~c->imr : c->isr;
	unsigned input, served;

	if (c->expect != READY || !requests)
		return -1;
	input = highest(c, requests);
	if (!in_service)
		return (int)input;
	served = highest(c, in_service);
	if (priority(c, served) < priority(c, input))
		return -1;
	/* In special fully nested mode a slave in service does not lock out its own further requests. */
	if (served == input && !((c->icw4 & ICW4_SFNM) && (c->cascade >> input & 1u)))
		return -1;
	return (int)input;
}

/* Inputs whose request follows the pin. The slave's INT is one: it stays high exactly as long as there is a
 * request, so that an edge for each needs no separate bookkeeping. */
static uint8_t level_inputs(const struct chip *c)
{
	return c->elcr | c->cascade;
}

static void chip_set_input(struct chip *c, unsigned input, bool level)
{
	uint8_t bit = (uint8_t)(1u << input);

	if (level_inputs(c) & bit)
		c->irr = level ? c->irr | bit : c->irr & (uint8_t)~bit;
	else if (level && !(c->input & bit))
		c->irr |= bit;
	c->input = level ? c->input | bit : c->input & (uint8_t)~bit;
}

static void chip_end_of_interrupt(struct chip *c, unsigned input, bool rotate)
{
	c->isr &= (uint8_t) ~(1u << input);
	if (rotate)
		c->lowest = (uint8_t)input;
}

/* The INTA sequence for this chip (or the read that follows a poll command): the input served, -1 if there
 * was no request any more. */
static int chip_acknowledge(struct chip *c)
{
	int input = chip_request(c);

	if (input < 0)
		return -1;
	c->isr |= (uint8_t)(1u << input);
	if (!(level_inputs(c) >> input & 1u))
		c->irr &= (uint8_t) ~(1u << input);
	if (c->icw4 & ICW4_AEOI)
		chip_end_of_interrupt(c, (unsigned)input, c->rotate_aeoi);
	return input;
}

static void chip_icw1(struct chip *c, uint8_t value)
{
	c->icw1 = value;
	c->icw4 = 0;
	c->expect = EXPECT_ICW2;
	/* The edge sense circuit is reset: an input must go low and high again to request. */
	c->irr = c->input & level_inputs(c);
	c->isr = 0;
	c->imr = 0;
	c->lowest = 7;
	c->smm = false;
	c->rotate_aeoi = false;
	c->read_isr = false;
	c->poll = false;
}

static void chip_ocw2(struct chip *c, uint8_t value)
{
	unsigned level = value & OCW2_LEVEL;
	uint8_t served;

	switch (value & OCW2_COMMAND) {
	case OCW2_EOI:
	case OCW2_ROT_EOI:
		/* In special mask mode, an ISR bit that is masked is not cleared by a non-specific EOI. */
		served = c->smm ? c->isr & (uint8_t)~c->imr : c->isr;
		if (served)
			chip_end_of_interrupt(c, highest(c, served), (value & OCW2_COMMAND) == OCW2_ROT_EOI);
		break;
	case OCW2_SEOI:
		chip_end_of_interrupt(c, level, false);
		break;
	case OCW2_ROT_SEOI:
		chip_end_of_interrupt(c, level, true);
		break;
	case OCW2_SET_PRIO:
		c->lowest = (uint8_t)level;
		break;
	case OCW2_ROT_SET:
		c->rotate_aeoi = true;
		break;
	case OCW2_ROT_CLR:
		c->rotate_aeoi = false;
		break;
	default: /* 0x40: no operation */
		break;
	}
}

static void chip_ocw3(struct chip *c, uint8_t value)
{
	if (value & OCW3_POLL)
		c->poll = true;
	if (value & OCW3_RR)
		c->read_isr = value & OCW3_RIS;
	if (value & OCW3_ESMM)
		c->smm = value & OCW3_SMM;
}

static void chip_write_a0_clear(struct chip *c, uint8_t value)
{
	if (value & ICW1_INIT)
		chip_icw1(c, value);
	else if (value & OCW3)
		chip_ocw3(c, value);
	else
		chip_ocw2(c, value);
}

static void chip_write_a0_set(struct chip *c, uint8_t value)
{
	switch (c->expect) {
	case READY:
		c->imr = value;
		return;
	case EXPECT_ICW2:
		c->icw2 = value & ICW2_BASE;
		if (!(c->icw1 & ICW1_SNGL))
			c->expect = EXPECT_ICW3;
		else
			c->expect = c->icw1 & ICW1_IC4 ? EXPECT_ICW4 : READY;
		return;
	case EXPECT_ICW3: /* the wiring is fixed: what it says changes nothing */
		c->expect = c->icw1 & ICW1_IC4 ? EXPECT_ICW4 : READY;
		return;
	case EXPECT_ICW4:
		c->icw4 = value;
		c->expect = READY;
		return;
	}
}

static uint8_t chip_read(struct chip *c, bool a0)
{
	if (c->poll) {
		int input;

		c->poll = false;
		input = chip_acknowledge(c);
		return input < 0 ? 0 : (uint8_t)(0x80 | input);
	}
	if (a0)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static void chip_power_on(struct chip *c, uint8_t vectors)
{
	c->elcr = 0;
	chip_icw1(c, ICW1_INIT | ICW1_IC4);
	c->icw2 = vectors;
	c->expect = READY;
	c->imr = 0xff;
}

/* ------------------------------------------------------------------ the pair */

static void pair_update(struct i8259 *p)
{
	int request;

	chip_set_input(&p->master, CASCADE_INPUT, chip_request(&p->slave) >= 0);
	request = chip_request(&p->master);
	if (request >= 0)
		p->requested = request;
	intr_set(p->machine, INTR_PIC, request >= 0);
}

static int pair_acknowledge(void *opaque)
{
	struct i8259 *p = opaque;
	int input = chip_acknowledge(&p->master);
	int vector;

	if (input < 0 && p->requested == CASCADE_INPUT) {
		p->master.isr |=
			1u << CASCADE_INPUT; /* the master passes the cycle on, and the slave has nothing */
		input = CASCADE_INPUT;
	}
	if (input == CASCADE_INPUT) {
		input = chip_acknowledge(&p->slave);
		vector = p->slave.icw2 | (input < 0 ? SPURIOUS_INPUT : input);
	} else {
		vector = p->master.icw2 | (input < 0 ? SPURIOUS_INPUT : input);
	}
	p->requested = -1;
	pair_update(p);
	return vector;
}

static void pair_line(void *opaque, unsigned line, bool level)
{
	struct i8259 *p = opaque;

	if (line == CASCADE_INPUT || line > 15)
		return;
	chip_set_input(line < 8 ? &p->master : &p->slave, line & 7u, level);
	pair_update(p);
}

static struct chip *chip_at(struct i8259 *p, bool slave)
{
	return slave ? &p->slave : &p->master;
}

static uint32_t pair_read(struct i8259 *p, bool slave, uint32_t a0)
{
	bool was_poll = chip_at(p, slave)->poll;
	uint32_t value = chip_read(chip_at(p, slave), a0);

	if (was_poll)
		pair_update(p);
	return value;
}

static void pair_write(struct i8259 *p, bool slave, uint32_t a0, uint32_t value)
{
	if (a0)
		chip_write_a0_set(chip_at(p, slave), (uint8_t)value);
	else
		chip_write_a0_clear(chip_at(p, slave), (uint8_t)value);
	pair_update(p);
}

static uint32_t master_read(void *opaque, uint32_t offset, unsigned size)
{
	(void)size;
	return pair_read(opaque, false, offset);
}

static void master_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	(void)size;
	pair_write(opaque, false, offset, value);
}

static uint32_t slave_read(void *opaque, uint32_t offset, unsigned size)
{
	(void)size;
	return pair_read(opaque, true, offset);
}

static void slave_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	(void)size;
	pair_write(opaque, true, offset, value);
}

static uint32_t elcr_read(void *opaque, uint32_t offset, unsigned size)
{
	(void)size;
	return chip_at(opaque, offset)->elcr;
}

static void elcr_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct i8259 *p = opaque;
	struct chip *c = chip_at(p, offset);

	(void)size;
	c->elcr = (uint8_t)value & c->elcr_mask;
	c->irr = (c->irr & (uint8_t)~c->elcr) | (c->input & c->elcr);
	pair_update(p);
}

static void pair_reset(void *opaque)
{
	struct i8259 *p = opaque;

	chip_power_on(&p->master, 0x08);
	chip_power_on(&p->slave, 0x70);
	p->requested = -1;
	pair_update(p);
}

void i8259_create(struct machine *m)
{
	static const struct io_ops master_ops = {.read = master_read, .write = master_write};
	static const struct io_ops slave_ops = {.read = slave_read, .write = slave_write};
	static const struct io_ops elcr_ops = {.read = elcr_read, .write = elcr_write};
	struct i8259 *p = device_alloc(m, sizeof *p);

	p->machine = m;
	/* The timer, keyboard and cascade inputs, the RTC and the FPU are edge-triggered for good. */
	p->master.elcr_mask = 0xf8;
	p->slave.elcr_mask = 0xde;
	p->master.cascade = 1u << CASCADE_INPUT;
	pio_register(m, PIC_MASTER, 2, &master_ops, p);
	pio_register(m, PIC_SLAVE, 2, &slave_ops, p);
	pio_register(m, PIC_ELCR, 2, &elcr_ops, p);
	irq_sink_add(m, pair_line, p);
	intr_register(m, INTR_PIC, pair_acknowledge, p);
	machine_on_reset(m, pair_reset, p);
	pair_reset(p);
}
