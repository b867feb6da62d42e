/* fake_machine.c - see fake_machine.h.
 *
 * Handlers run with the lock held in the real machine, so the lock is checked here: a device that took it
 * from within a handler, where the machine would deadlock, fails the assertion in machine_lock.
 */
#include "tests/unit/fake_machine.h"

#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <setjmp.h>
#include <stddef.h>
#include <cmocka.h>

#define MAX_REGIONS  64
#define MAX_HANDLERS 32
#define MAX_FDS	     16

struct region {
	uint64_t first, count;
	const struct io_ops *ops;
	void *opaque;
};

struct bus {
	struct region region[MAX_REGIONS];
	unsigned n;
};

struct irq_sink {
	void (*fn)(void *opaque, unsigned line, bool level);
	void *opaque;
};

struct reset_handler {
	void (*fn)(void *opaque);
	void *opaque;
};

struct fd_handler {
	int fd;
	uint32_t events;
	void (*fn)(void *opaque, uint32_t events);
	void *opaque;
};

struct machine {
	struct machine_config cfg;
	struct vcpu *vcpu;
	bool locked;
	uint64_t now;
	struct vtimer *timers;
	unsigned timers_run;

	struct bus pio, mmio;
	struct irq_sink sink[MAX_HANDLERS];
	unsigned n_sinks;
	struct reset_handler reset[MAX_HANDLERS];
	unsigned n_resets;
	struct fd_handler fd[MAX_FDS];
	unsigned n_fds;

	bool line[IRQ_LINES];
	unsigned rises[IRQ_LINES];
	struct {
		int (*ack)(void *opaque);
		void *opaque;
		bool level;
	} intr[INTR_SOURCES];
	bool pic_enabled;
	void (*apic_hook)(void *opaque, uint64_t base);
	void *apic_hook_opaque;

	unsigned nmis, reset_requests, mode_changes;
	int poweroff_status;
	bool stopped;
};

uint32_t log_mask;

/* ------------------------------------------------------------------ lifecycle */

static void fake_cpu_reset(struct vcpu *c)
{
	c->apic_base = 0xfee00900u; /* enabled, boot processor */
	c->a20_mask = ~0u;
}

struct machine *fake_machine_create(void)
{
	struct machine *m = calloc(1, sizeof *m);

	assert_non_null(m);
	m->vcpu = aligned_alloc(64, (sizeof *m->vcpu + 63) & ~(size_t)63);
	assert_non_null(m->vcpu);
	memset(m->vcpu, 0, sizeof *m->vcpu);
	m->vcpu->machine = m;
	fake_cpu_reset(m->vcpu);
	m->cfg.ram_bytes = 64u << 20;
	m->cfg.accel = ACCEL_INTERP;
	m->cfg.cpu_model = "max";
	m->pic_enabled = true;
	m->poweroff_status = -1;
	return m;
}

void fake_machine_destroy(struct machine *m)
{
	assert_false(m->locked);
	free(m->vcpu);
	free(m);
}

struct machine_config *fake_machine_config(struct machine *m)
{
	return &m->cfg;
}

void machine_on_reset(struct machine *m, void (*fn)(void *opaque), void *opaque)
{
	assert_true(m->n_resets < MAX_HANDLERS);
	m->reset[m->n_resets++] = (struct reset_handler){fn, opaque};
}

void fake_machine_reset(struct machine *m)
{
	fake_cpu_reset(m->vcpu);
	machine_lock(m);
	for (unsigned i = 0; i < m->n_resets; i++)
		m->reset[i].fn(m->reset[i].opaque);
	machine_unlock(m);
}

const struct machine_config *machine_cfg(const struct machine *m)
{
	return &m->cfg;
}

struct mem *machine_mem(struct machine *m)
{
	return m->vcpu->mem;
}

struct vcpu *machine_vcpu(struct machine *m)
{
	return m->vcpu;
}

void machine_lock(struct machine *m)
{
	assert_false(m->locked);
	m->locked = true;
}

void machine_unlock(struct machine *m)
{
	assert_true(m->locked);
	m->locked = false;
}

/* ------------------------------------------------------------------ I/O buses */

static void bus_add(struct bus *b, uint64_t first, uint64_t count, const struct io_ops *ops, void *opaque)
{
	for (unsigned i = 0; i < b->n; i++)
		assert_true(first + count <= b->region[i].first ||
			    b->region[i].first + b->region[i].count <= first);
	assert_true(b->n < MAX_REGIONS);
	b->region[b->n++] = (struct region){first, count, ops, opaque};
}

static const struct region *bus_find(const struct bus *b, uint64_t at, unsigned size)
{
	for (unsigned i = 0; i < b->n; i++) {
		const struct region *r = &b->region[i];

		if (at >= r->first && at - r->first < r->count && at - r->first + size <= r->count)
			return r;
	}
	return NULL;
}

static uint32_t bus_read(const struct bus *b, uint64_t at, unsigned size)
{
	const struct region *r = bus_find(b, at, size);
	uint32_t value = 0;

	if (size == 1 || (r && r->ops->wide)) {
		value = r ? r->ops->read(r->opaque, (uint32_t)(at - r->first), size) : ~0u;
		return size == 4 ? value : value & ((1u << 8 * size) - 1);
	}
	for (unsigned i = 0; i < size; i++)
		value |= bus_read(b, at + i, 1) << 8 * i;
	return value;
}

static void bus_write(const struct bus *b, uint64_t at, uint32_t value, unsigned size)
{
	const struct region *r = bus_find(b, at, size);

	if (size == 1 || (r && r->ops->wide)) {
		if (r)
			r->ops->write(r->opaque, (uint32_t)(at - r->first), value, size);
		return;
	}
	for (unsigned i = 0; i < size; i++)
		bus_write(b, at + i, value >> 8 * i & 0xff, 1);
}

void pio_register(struct machine *m, uint16_t first, uint16_t count, const struct io_ops *ops, void *opaque)
{
	bus_add(&m->pio, first, count, ops, opaque);
}

void mmio_register(struct machine *m, uint64_t gpa, uint64_t len, const struct io_ops *ops, void *opaque)
{
	bus_add(&m->mmio, gpa, len, ops, opaque);
}

uint32_t pio_read(struct machine *m, uint16_t port, unsigned size)
{
	uint32_t value;

	machine_lock(m);
	value = bus_read(&m->pio, port, size);
	machine_unlock(m);
	return value;
}

void pio_write(struct machine *m, uint16_t port, uint32_t value, unsigned size)
{
	machine_lock(m);
	bus_write(&m->pio, port, value, size);
	machine_unlock(m);
}

uint32_t fake_mmio_read(struct machine *m, uint64_t gpa, unsigned size)
{
	uint32_t value;

	machine_lock(m);
	value = bus_read(&m->mmio, gpa, size);
	machine_unlock(m);
	return value;
}

void fake_mmio_write(struct machine *m, uint64_t gpa, uint32_t value, unsigned size)
{
	machine_lock(m);
	bus_write(&m->mmio, gpa, value, size);
	machine_unlock(m);
}

/* ------------------------------------------------------------------ interrupts */

void irq_set(struct machine *m, unsigned line, bool level)
{
	assert_true(line < IRQ_LINES);
	if (level == m->line[line])
		return;
	m->rises[line] += level;
	m->line[line] = level;
	for (unsigned i = 0; i < m->n_sinks; i++)
		m->sink[i].fn(m->sink[i].opaque, line, level);
}

void irq_sink_add(struct machine *m, void (*fn)(void *opaque, unsigned line, bool level), void *opaque)
{
	assert_true(m->n_sinks < MAX_HANDLERS);
	m->sink[m->n_sinks++] = (struct irq_sink){fn, opaque};
}

bool fake_irq_level(struct machine *m, unsigned line)
{
	return m->line[line];
}

unsigned fake_irq_rises(struct machine *m, unsigned line)
{
	return m->rises[line];
}

void intr_register(struct machine *m, enum intr_source src, int (*ack)(void *opaque), void *opaque)
{
	assert_null(m->intr[src].ack);
	m->intr[src].ack = ack;
	m->intr[src].opaque = opaque;
}

void intr_set(struct machine *m, enum intr_source src, bool level)
{
	m->intr[src].level = level;
}

void intr_pic_enable(struct machine *m, bool on)
{
	m->pic_enabled = on;
}

bool fake_intr_level(struct machine *m, enum intr_source src)
{
	return m->intr[src].level;
}

bool fake_pic_enabled(struct machine *m)
{
	return m->pic_enabled;
}

bool fake_intr_pending(struct machine *m)
{
	return m->intr[INTR_LAPIC].level || (m->intr[INTR_PIC].level && m->pic_enabled);
}

int fake_intr_ack(struct machine *m)
{
	int vector = -1;

	machine_lock(m);
	if (m->intr[INTR_LAPIC].level)
		vector = m->intr[INTR_LAPIC].ack(m->intr[INTR_LAPIC].opaque);
	if (vector < 0 && m->intr[INTR_PIC].level && m->pic_enabled)
		vector = m->intr[INTR_PIC].ack(m->intr[INTR_PIC].opaque);
	machine_unlock(m);
	return vector;
}

int fake_intr_inta(struct machine *m, enum intr_source src)
{
	int vector;

	machine_lock(m);
	vector = m->intr[src].ack(m->intr[src].opaque);
	machine_unlock(m);
	return vector;
}

void nmi_raise(struct machine *m)
{
	m->nmis++;
}

unsigned fake_nmis(struct machine *m)
{
	return m->nmis;
}

void machine_set_apic_hook(struct machine *m, void (*fn)(void *opaque, uint64_t base), void *opaque)
{
	m->apic_hook = fn;
	m->apic_hook_opaque = opaque;
}

void fake_apic_base_write(struct machine *m, uint64_t value)
{
	machine_lock(m);
	m->vcpu->apic_base = value;
	if (m->apic_hook)
		m->apic_hook(m->apic_hook_opaque, value);
	machine_unlock(m);
}

/* ------------------------------------------------------------------ time */

uint64_t clock_ns(const struct machine *m)
{
	return m->now;
}

uint64_t clock_tsc_hz(const struct machine *m)
{
	(void)m;
	return 2000000000u;
}

void vtimer_init(struct machine *m, struct vtimer *t, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct vtimer){
		.deadline = UINT64_MAX, .fn = fn, .opaque = opaque, .machine = m, .next = m->timers};
	m->timers = t;
}

void vtimer_arm(struct vtimer *t, uint64_t deadline_ns)
{
	t->deadline = deadline_ns;
}

void vtimer_disarm(struct vtimer *t)
{
	t->deadline = UINT64_MAX;
}

static struct vtimer *timer_first(struct machine *m)
{
	struct vtimer *first = NULL;

	for (struct vtimer *t = m->timers; t; t = t->next)
		if (t->deadline != UINT64_MAX && (!first || t->deadline < first->deadline))
			first = t;
	return first;
}

uint64_t fake_timer_next(struct machine *m)
{
	struct vtimer *t = timer_first(m);

	return t ? t->deadline : UINT64_MAX;
}

unsigned fake_timers_run(struct machine *m)
{
	return m->timers_run;
}

static void run_timers(struct machine *m, uint64_t until)
{
	struct vtimer *t;

	while ((t = timer_first(m)) && t->deadline <= until) {
		if (t->deadline > m->now)
			m->now = t->deadline;
		t->deadline = UINT64_MAX;
		m->timers_run++;
		machine_lock(m);
		t->fn(t->opaque);
		machine_unlock(m);
	}
}

void fake_clock_advance(struct machine *m, uint64_t ns)
{
	uint64_t until = m->now + ns;

	run_timers(m, until);
	m->now = until;
}

void fake_clock_jump(struct machine *m, uint64_t ns)
{
	m->now += ns;
	run_timers(m, m->now);
}

void fake_clock_skip(struct machine *m, uint64_t ns)
{
	m->now += ns;
}

/* ------------------------------------------------------------------ events */

int evloop_add_fd(struct machine *m, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events),
		  void *opaque)
{
	if (m->n_fds == MAX_FDS)
		return -1;
	m->fd[m->n_fds++] = (struct fd_handler){fd, events, fn, opaque};
	return 0;
}

void evloop_mod_fd(struct machine *m, int fd, uint32_t events)
{
	for (unsigned i = 0; i < m->n_fds; i++)
		if (m->fd[i].fd == fd)
			m->fd[i].events = events;
}

void evloop_del_fd(struct machine *m, int fd)
{
	for (unsigned i = 0; i < m->n_fds; i++)
		if (m->fd[i].fd == fd) {
			m->fd[i] = m->fd[--m->n_fds];
			return;
		}
}

/* EPOLLIN, EPOLLOUT, EPOLLERR and EPOLLHUP have poll's values. A callback may add or remove descriptors, so
 * each is looked up again before it is called. */
int fake_evloop_poll(struct machine *m, int timeout_ms)
{
	struct pollfd p[MAX_FDS];
	unsigned n = m->n_fds;
	int ran = 0;

	for (unsigned i = 0; i < n; i++)
		p[i] = (struct pollfd){.fd = m->fd[i].fd, .events = (short)m->fd[i].events};
	if (poll(p, n, timeout_ms) <= 0)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		for (unsigned j = 0; p[i].revents && j < m->n_fds; j++) {
			if (m->fd[j].fd != p[i].fd)
				continue;
			machine_lock(m);
			m->fd[j].fn(m->fd[j].opaque, (uint32_t)p[i].revents);
			machine_unlock(m);
			ran++;
			break;
		}
	}
	return ran;
}

/* ------------------------------------------------------------------ power, and the rest that devices call */

void machine_poweroff(struct machine *m, int status)
{
	m->poweroff_status = status;
}

int fake_poweroff_status(struct machine *m)
{
	return m->poweroff_status;
}

void machine_reset_request(struct machine *m)
{
	m->reset_requests++;
}

unsigned fake_reset_requests(struct machine *m)
{
	return m->reset_requests;
}

void machine_stop(struct machine *m)
{
	m->stopped = true;
}

void machine_cont(struct machine *m)
{
	m->stopped = false;
}

bool machine_stopped(struct machine *m)
{
	return m->stopped;
}

bool machine_wait_stopped(struct machine *m)
{
	return m->stopped;
}

static void (*fatal_hook)(void);

void machine_set_fatal_hook(void (*fn)(void))
{
	fatal_hook = fn;
}

void machine_run_fatal_hook(void)
{
	if (fatal_hook)
		fatal_hook();
}

/* Weak: a test that needs real memory links the real one. */
__attribute__((weak)) void mem_mode_changed(struct vcpu *c)
{
	c->machine->mode_changes++;
}

unsigned fake_mode_changes(struct machine *m)
{
	return m->mode_changes;
}

void log_printf(enum log_cat c, const char *fmt, ...)
{
	(void)c;
	(void)fmt;
}
