/* uart16550.c - National Semiconductor PC16550D UART.
 *
 * Register and bit names are the datasheet's. Transmission takes no time: what is written to THR is with the
 * back end at once, and the transmitter is empty again, unless the back end is full, in which case THRE and
 * TEMT stay clear until it drains. Reception never overruns except in loopback: the back end keeps what does
 * not fit. Line settings have no effect but on the receive time-out.
 */
#include "devices/devices.h"

#include "devices/device.h"

/* Registers, by offset; RBR, THR and IER are behind DLAB = 0, DLL and DLM behind DLAB = 1. */
enum { RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

#define IER_ERBFI 0x01u
#define IER_ETBEI 0x02u
#define IER_ELSI  0x04u
#define IER_EDSSI 0x08u

/* Interrupt identification, highest priority first. */
#define IIR_LINE_STATUS 0x06u
#define IIR_DATA	0x04u
#define IIR_TIMEOUT	0x0cu
#define IIR_THR_EMPTY	0x02u
#define IIR_MODEM	0x00u
#define IIR_NONE	0x01u
#define IIR_FIFOS	0xc0u

#define FCR_ENABLE	0x01u
#define FCR_CLEAR_RX	0x02u
#define FCR_TRIGGER(v)	((v) >> 6)

#define LCR_DLAB	0x80u

#define MCR_DTR		0x01u
#define MCR_RTS		0x02u
#define MCR_OUT1	0x04u
#define MCR_OUT2	0x08u
#define MCR_LOOP	0x10u

#define LSR_DR		0x01u
#define LSR_OE		0x02u
#define LSR_BI		0x10u
#define LSR_THRE	0x20u
#define LSR_TEMT	0x40u
#define LSR_FIFO_ERROR	0x80u

#define MSR_DCTS	0x01u
#define MSR_DDSR	0x02u
#define MSR_TERI	0x04u
#define MSR_DDCD	0x08u
#define MSR_CTS		0x10u
#define MSR_DSR		0x20u
#define MSR_RI		0x40u
#define MSR_DCD		0x80u

#define FIFO_SIZE	16u
#define BASE_BAUD	115200u
#define FRAME_BITS	10u

/* After so many transmitter interrupts, the next one comes a little later: a driver that fills the FIFO from
 * its handler until no interrupt is left would otherwise never leave it ("too much work for irq4"). */
#define THR_BURST    128u
#define THR_PAUSE_NS 100000u

struct uart {
	struct machine *machine;
	struct chardev *cd;
	unsigned irq;

	uint8_t ier, fcr, lcr, mcr, scr;
	uint8_t msr_delta;
	uint8_t msr_lines; /* as last seen, for the deltas */
	uint16_t divisor;
	uint8_t rx_last; /* what RBR gives when nothing is there */

	struct {
		uint8_t byte, error; /* error: LSR_BI */
	} rx[FIFO_SIZE];
	unsigned rx_head, rx_count;
	bool overrun;
	bool error_seen;  /* the front character's error has been read from LSR */
	bool rx_timeout;  /* characters have waited below the trigger level */
	bool thr_pending; /* transmitter interrupt not yet acknowledged */
	unsigned thr_burst;
	struct vtimer rx_timer, thr_timer;
};

/* ------------------------------------------------------------------ status */

static unsigned uart_rx_capacity(const struct uart *u)
{
	return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned uart_rx_trigger(const struct uart *u)
{
	static const uint8_t levels[] = {1, 4, 8, 14};

	return u->fcr & FCR_ENABLE ? levels[FCR_TRIGGER(u->fcr)] : 1;
}

static bool uart_tx_empty(const struct uart *u)
{
	return u->mcr & MCR_LOOP || chardev_room(u->cd) > 0;
}

static uint8_t uart_line_errors(const struct uart *u)
{
	uint8_t errors = u->overrun ? LSR_OE : 0;

	if (u->rx_count && !u->error_seen)
		errors |= u->rx[u->rx_head].error;
	return errors;
}

static uint8_t uart_lsr(const struct uart *u)
{
	uint8_t lsr = uart_line_errors(u);

	if (u->rx_count)
		lsr |= LSR_DR;
	if (uart_tx_empty(u))
		lsr |= LSR_THRE | LSR_TEMT;
	for (unsigned i = 0; i < u->rx_count && u->fcr & FCR_ENABLE; i++)
		if (u->rx[(u->rx_head + i) % FIFO_SIZE].error)
			lsr |= LSR_FIFO_ERROR;
	return lsr;
}

/* Modem lines: those of a terminal that is there, or in loopback the UART's own outputs. */
static uint8_t uart_modem_lines(const struct uart *u)
{
	uint8_t lines = 0;

	if (!(u->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	if (u->mcr & MCR_RTS)
		lines |= MSR_CTS;
	if (u->mcr & MCR_DTR)
		lines |= MSR_DSR;
	if (u->mcr & MCR_OUT1)
		lines |= MSR_RI;
	if (u->mcr & MCR_OUT2)
		lines |= MSR_DCD;
	return lines;
}

static void uart_update_modem(struct uart *u)
{
	uint8_t now = uart_modem_lines(u);
	uint8_t changed = now ^ u->msr_lines;

	if (changed & MSR_CTS)
		u->msr_delta |= MSR_DCTS;
	if (changed & MSR_DSR)
		u->msr_delta |= MSR_DDSR;
	if (changed & MSR_RI && !(now & MSR_RI)) /* trailing edge only */
		u->msr_delta |= MSR_TERI;
	if (changed & MSR_DCD)
		u->msr_delta |= MSR_DDCD;
	u->msr_lines = now;
}

/* ------------------------------------------------------------------ interrupts */

static uint8_t uart_iir(const struct uart *u)
{
	if (u->ier & IER_ELSI && uart_line_errors(u))
		return IIR_LINE_STATUS;
	if (u->ier & IER_ERBFI && u->rx_count >= uart_rx_trigger(u))
		return IIR_DATA;
	if (u->ier & IER_ERBFI && u->rx_timeout)
		return IIR_TIMEOUT;
	if (u->ier & IER_ETBEI && u->thr_pending)
		return IIR_THR_EMPTY;
	if (u->ier & IER_EDSSI && u->msr_delta)
		return IIR_MODEM;
	return IIR_NONE;
}

/* On a PC, OUT2 opens the gate from INTR to the interrupt controller; loopback holds OUT2 inactive at the
 * pin. */
static void uart_update_irq(struct uart *u)
{
	bool gate = (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

	irq_set(u->machine, u->irq, gate && uart_iir(u) != IIR_NONE);
}

static void uart_thr_became_empty(struct uart *u)
{
	if (u->thr_burst >= THR_BURST) {
		if (u->thr_timer.deadline == UINT64_MAX)
			vtimer_arm(&u->thr_timer, clock_ns(u->machine) + THR_PAUSE_NS);
		return;
	}
	u->thr_pending = true;
}

static void uart_thr_pause_over(void *opaque)
{
	struct uart *u = opaque;

	u->thr_burst = 0;
	if (uart_tx_empty(u))
		u->thr_pending = true;
	uart_update_irq(u);
}

static void uart_drained(void *opaque)
{
	struct uart *u = opaque;

	uart_thr_became_empty(u);
	uart_update_irq(u);
}

/* ------------------------------------------------------------------ receiver */

/* Four character times with characters waiting and none read or received. */
static void uart_restart_timeout(struct uart *u)
{
	u->rx_timeout = false;
	if (!(u->fcr & FCR_ENABLE) || !u->rx_count) {
		vtimer_disarm(&u->rx_timer);
		return;
	}
	uint64_t divisor = u->divisor ? u->divisor : 0x10000;
	uint64_t wait = 4u * FRAME_BITS * (uint64_t)NS_PER_SEC * divisor / BASE_BAUD;
	vtimer_arm(&u->rx_timer, clock_ns(u->machine) + wait);
}

static void uart_rx_timed_out(void *opaque)
{
	struct uart *u = opaque;

	u->rx_timeout = u->rx_count > 0;
	uart_update_irq(u);
}

static void uart_rx_clear(struct uart *u)
{
	u->rx_count = 0;
	u->error_seen = false;
	uart_restart_timeout(u);
}

static void uart_rx_push(struct uart *u, uint8_t byte, uint8_t error)
{
	if (u->rx_count >= uart_rx_capacity(u)) {
		/* FIFO: the new character is lost. Without: it takes the old one's place. */
		u->overrun = true;
		if (u->fcr & FCR_ENABLE)
			return;
		u->rx_count = 0;
	}
	unsigned at = (u->rx_head + u->rx_count++) % FIFO_SIZE;
	u->rx[at].byte = byte;
	u->rx[at].error = error;
	if (u->rx_count == 1)
		u->error_seen = false;
}

static size_t uart_input(void *opaque, const uint8_t *buf, size_t n)
{
	struct uart *u = opaque;
	size_t taken = 0;

	if (u->mcr & MCR_LOOP) /* SIN is disconnected; the back end keeps the bytes */
		return 0;
	while (taken < n && u->rx_count < uart_rx_capacity(u))
		uart_rx_push(u, buf[taken++], 0);
	if (taken) {
		uart_restart_timeout(u);
		uart_update_irq(u);
	}
	return taken;
}

static void uart_break(void *opaque)
{
	struct uart *u = opaque;

	if (u->mcr & MCR_LOOP)
		return;
	uart_rx_push(u, 0, LSR_BI);
	uart_restart_timeout(u);
	uart_update_irq(u);
}

static uint8_t uart_read_rbr(struct uart *u)
{
	if (u->rx_count) {
		u->rx_last = u->rx[u->rx_head].byte;
		u->rx_head = (u->rx_head + 1) % FIFO_SIZE;
		u->rx_count--;
		u->error_seen = false;
	}
	uart_restart_timeout(u);
	if (!u->rx_count)
		chardev_resume(u->cd);
	return u->rx_last;
}

/* ------------------------------------------------------------------ registers */

static uint8_t uart_read_iir(struct uart *u)
{
	uint8_t iir = uart_iir(u);

	if (iir == IIR_THR_EMPTY) { /* reading it is the acknowledgement */
		u->thr_pending = false;
		u->thr_burst++;
	}
	return iir | (u->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t uart_read_lsr(struct uart *u)
{
	uint8_t lsr = uart_lsr(u);

	u->overrun = false;
	u->error_seen = true;
	return lsr;
}

static uint8_t uart_read_msr(struct uart *u)
{
	uint8_t msr = u->msr_lines | u->msr_delta;

	u->msr_delta = 0;
	return msr;
}

static uint8_t uart_read_reg(struct uart *u, uint32_t reg)
{
	switch (reg) {
	case RBR_THR_DLL:
		return u->lcr & LCR_DLAB ? (uint8_t)u->divisor : uart_read_rbr(u);
	case IER_DLM:
		return u->lcr & LCR_DLAB ? (uint8_t)(u->divisor >> 8) : u->ier;
	case IIR_FCR:
		return uart_read_iir(u);
	case LCR:
		return u->lcr;
	case MCR:
		return u->mcr;
	case LSR:
		return uart_read_lsr(u);
	case MSR:
		return uart_read_msr(u);
	default:
		return u->scr;
	}
}

static uint32_t uart_read(void *opaque, uint32_t offset, unsigned size)
{
	struct uart *u = opaque;

	(void)size;
	uint8_t value = uart_read_reg(u, offset);
	uart_update_irq(u);
	return value;
}

static void uart_write_thr(struct uart *u, uint8_t byte)
{
	u->thr_pending = false;
	if (u->mcr & MCR_LOOP) {
		uart_rx_push(u, byte, 0);
		uart_restart_timeout(u);
	} else {
		chardev_write(u->cd, &byte, 1);
	}
	if (uart_tx_empty(u))
		uart_thr_became_empty(u);
}

static void uart_write_ier(struct uart *u, uint8_t value)
{
	bool tx_newly_on = value & ~u->ier & IER_ETBEI;

	u->ier = value & 0x0f;
	/* Enabling the transmitter interrupt with the transmitter empty raises it. */
	if (tx_newly_on && uart_tx_empty(u))
		uart_thr_became_empty(u);
}

static void uart_write_fcr(struct uart *u, uint8_t value)
{
	bool switched = (value ^ u->fcr) & FCR_ENABLE;

	/* The other bits count only when bit 0 is written as one. The transmit FIFO is always empty. */
	u->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
	if (switched || (value & FCR_ENABLE && value & FCR_CLEAR_RX))
		uart_rx_clear(u);
	chardev_resume(u->cd);
}

static void uart_write_mcr(struct uart *u, uint8_t value)
{
	u->mcr = value & 0x1f;
	uart_update_modem(u);
	chardev_resume(u->cd);
}

static void uart_set_divisor(struct uart *u, unsigned shift, uint8_t value)
{
	u->divisor = (uint16_t)((u->divisor & ~(0xffu << shift)) | (unsigned)value << shift);
}

static void uart_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	struct uart *u = opaque;
	uint8_t v = (uint8_t)value;

	(void)size;
	switch (offset) {
	case RBR_THR_DLL:
		if (u->lcr & LCR_DLAB)
			uart_set_divisor(u, 0, v);
		else
			uart_write_thr(u, v);
		break;
	case IER_DLM:
		if (u->lcr & LCR_DLAB)
			uart_set_divisor(u, 8, v);
		else
			uart_write_ier(u, v);
		break;
	case IIR_FCR:
		uart_write_fcr(u, v);
		break;
	case LCR:
		u->lcr = v;
		break;
	case MCR:
		uart_write_mcr(u, v);
		break;
	case SCR:
		u->scr = v;
		break;
	default: /* LSR and MSR are read-only (their test modes are not for software) */
		break;
	}
	uart_update_irq(u);
}

/* ------------------------------------------------------------------ creation */

/* Master reset, and the divisor of 115200 baud that firmware would leave. */
static void uart_reset(void *opaque)
{
	struct uart *u = opaque;

	u->ier = u->fcr = u->lcr = u->mcr = u->scr = 0;
	u->divisor = 1;
	u->overrun = false;
	u->thr_pending = false;
	u->thr_burst = 0;
	u->msr_lines = uart_modem_lines(u);
	u->msr_delta = 0;
	vtimer_disarm(&u->thr_timer);
	uart_rx_clear(u);
	uart_update_irq(u);
}

static const struct io_ops uart_ops = {.read = uart_read, .write = uart_write};

void uart16550_create(struct machine *m, uint16_t port, unsigned irq, struct chardev *cd)
{
	struct uart *u = device_alloc(m, sizeof *u);

	u->machine = m;
	u->cd = cd;
	u->irq = irq;
	vtimer_init(m, &u->rx_timer, uart_rx_timed_out, u);
	vtimer_init(m, &u->thr_timer, uart_thr_pause_over, u);
	pio_register(m, port, 8, &uart_ops, u);
	machine_on_reset(m, uart_reset, u);
	chardev_on_input(cd, uart_input, u);
	chardev_on_drain(cd, uart_drained, u);
	chardev_on_break(cd, uart_break, u);
	uart_reset(u);
}
