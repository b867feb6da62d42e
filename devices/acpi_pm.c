/* acpi_pm.c - the fixed-hardware registers of ACPI (ACPI 6.4, section 4.8.3): PM1a event and control, PM
 * timer.
 *
 *     ACPI_PM1A_EVT + 0  PM1_STS   16 bits, write 1 to clear
 *     ACPI_PM1A_EVT + 2  PM1_EN    16 bits
 *     ACPI_PM1A_CNT      PM1_CNT   16 bits
 *     ACPI_PM_TMR        PM_TMR    32 bits, read-only, 3579545 Hz; also at ACPI_PM_TMR_PIIX4
 *
 * The machine is always in ACPI mode: there is no SMI_CMD, and SCI_EN reads as 1. The SCI, level-triggered on
 * ACPI_SCI_IRQ, is high while some event is both raised and enabled. Writing SLP_EN with the sleep type of
 * \_S5 ends the machine; other sleep types do nothing.
 *
 * The timer has 32 bits; an operating system that was told of 24 (FADT TMR_VAL_EXT clear) masks the rest.
 * TMR_STS is raised by changes of bit 23, the most significant bit of the 24, which a 32-bit reader sees as a
 * timer that reports more often than it must.
 */
#include "devices/acpi_pm.h"
#include "devices/device.h"
#include "devices/devices.h"

#define PM_TIMER_HZ   3579545u
#define TMR_STS_TICKS (1u << 23)

/* PM1_STS and PM1_EN */
#define PM1_TMR	   0x0001
#define PM1_BM	   0x0010 /* status only */
#define PM1_GBL	   0x0020
#define PM1_PWRBTN 0x0100
#define PM1_SLPBTN 0x0200
#define PM1_RTC	   0x0400
#define PM1_WAK	   0x8000 /* status only */
#define PM1_EVENTS (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC)

/* PM1_CNT */
#define CNT_SCI_EN	0x0001
#define CNT_BM_RLD	0x0002
#define CNT_SLP_TYP(v)	((v) >> 10 & 7)
#define CNT_SLP_TYP_ALL 0x1c00
#define CNT_SLP_EN	0x2000 /* write-only */

struct acpi_pm {
	struct machine *machine;
	uint16_t sts, en, cnt;
	uint64_t tmr_seen; /* ticks / TMR_STS_TICKS when TMR_STS was last brought up to date */
	struct vtimer timer;
};

static uint64_t pm_ticks(const struct acpi_pm *p)
{
	return device_ns_to_ticks(clock_ns(p->machine), PM_TIMER_HZ);
}

/* Raises TMR_STS if the bit has changed, and arms the timer for the next change if an SCI is to come of it.
 */
static void pm_update(struct acpi_pm *p)
{
	uint64_t half = pm_ticks(p) / TMR_STS_TICKS;

	if (half != p->tmr_seen) {
		p->tmr_seen = half;
		p->sts |= PM1_TMR;
	}
	if ((p->en & PM1_TMR) && !(p->sts & PM1_TMR))
		vtimer_arm(&p->timer, device_ticks_to_ns((half + 1) * TMR_STS_TICKS, PM_TIMER_HZ));
	else
		vtimer_disarm(&p->timer);
	irq_set(p->machine, ACPI_SCI_IRQ, p->sts & p->en & PM1_EVENTS);
}

static void pm_timer(void *opaque)
{
	pm_update(opaque);
}

static uint8_t byte_of(uint16_t value, uint32_t offset)
{
	return (uint8_t)(value >> 8 * (offset & 1));
}

static uint16_t with_byte(uint16_t old, uint32_t offset, uint32_t value)
{
	unsigned shift = 8 * (offset & 1);

	return (uint16_t)((old & ~(0xffu << shift)) | (value & 0xff) << shift);
}

static uint32_t evt_read(void *opaque, uint32_t offset, unsigned size)
{
	struct acpi_pm *p = opaque;

	(void)size;
	pm_update(p);
	return byte_of(offset < 2 ? p->sts : p->en, offset);
}

static void evt_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct acpi_pm *p = opaque;

	(void)size;
	pm_update(p);
	if (offset < 2)
		p->sts &= (uint16_t)~with_byte(0, offset, value);
	else
		p->en = with_byte(p->en, offset, value) & PM1_EVENTS;
	pm_update(p);
}

static uint32_t cnt_read(void *opaque, uint32_t offset, unsigned size)
{
	struct acpi_pm *p = opaque;

	(void)size;
	return byte_of(p->cnt, offset);
}

static void cnt_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct acpi_pm *p = opaque;
	uint16_t cnt = with_byte(p->cnt, offset, value);

	(void)size;
	p->cnt = (cnt & (CNT_BM_RLD | CNT_SLP_TYP_ALL)) | CNT_SCI_EN;
	if (!(cnt & CNT_SLP_EN))
		return;
	if (CNT_SLP_TYP(cnt) == ACPI_S5_TYP)
		machine_poweroff(p->machine, EXIT_POWEROFF);
	else if (log_on(LOG_UNIMP))
		log_printf(LOG_UNIMP, "ACPI sleep type %u\n", CNT_SLP_TYP(cnt));
}

/* Read in one piece, as its halves would belong to different moments. */
static uint32_t tmr_read(void *opaque, uint32_t offset, unsigned size)
{
	(void)size;
	return (uint32_t)pm_ticks(opaque) >> 8 * offset;
}

static void tmr_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)value;
	(void)size;
}

static void pm_reset(void *opaque)
{
	struct acpi_pm *p = opaque;

	p->sts = 0;
	p->en = 0;
	p->cnt = CNT_SCI_EN;
	p->tmr_seen = pm_ticks(p) / TMR_STS_TICKS;
	pm_update(p);
}

/* The block is where the power button finds it: one a machine. */
static struct acpi_pm *pm_of(struct machine *m)
{
	return (struct acpi_pm *)device_shared(m, "acpi_pm", sizeof(struct acpi_pm));
}

void acpi_pm_power_button(struct machine *m)
{
	struct acpi_pm *p = pm_of(m);

	p->sts |= PM1_PWRBTN;
	pm_update(p);
}

void acpi_pm_create(struct machine *m)
{
	static const struct io_ops evt_ops = {.read = evt_read, .write = evt_write};
	static const struct io_ops cnt_ops = {.read = cnt_read, .write = cnt_write};
	static const struct io_ops tmr_ops = {.read = tmr_read, .write = tmr_write, .wide = true};
	struct acpi_pm *p = pm_of(m);

	p->machine = m;
	vtimer_init(m, &p->timer, pm_timer, p);
	pio_register(m, ACPI_PM1A_EVT, 4, &evt_ops, p);
	pio_register(m, ACPI_PM1A_CNT, 2, &cnt_ops, p);
	pio_register(m, ACPI_PM_TMR, 4, &tmr_ops, p);
	pio_register(m, ACPI_PM_TMR_PIIX4, 4, &tmr_ops, p);
	machine_on_reset(m, pm_reset, p);
	pm_reset(p);
}
