/* irq.c - interrupt lines from devices to interrupt controllers, and from those to the CPU.
 *
 * A device drives a line (0-23); every sink hears of changes. A controller drives its CPU-side source;
 * REQ_IRQ is set in the vCPU's request word exactly while some enabled source is high. Which vector it is, is
 * asked only when the CPU acknowledges: priorities may have changed since.
 */
#include "vmm/machine_private.h"

#include <assert.h>

void irq_sink_add(struct machine *m, void (*fn)(void *opaque, unsigned line, bool level), void *opaque)
{
	assert(m->irq_sink_count < IRQ_SINKS);
	m->irq_sinks[m->irq_sink_count++] = (struct irq_sink){fn, opaque};
}

void irq_set(struct machine *m, unsigned line, bool level)
{
	assert(line < IRQ_LINES);
	if (m->irq_level[line] == level)
		return;
	m->irq_level[line] = level;
	for (unsigned i = 0; i < m->irq_sink_count; i++)
		m->irq_sinks[i].fn(m->irq_sinks[i].opaque, line, level);
}

static bool intr_high(const struct machine *m, enum intr_source src)
{
	return m->intr[src].level && (src != INTR_PIC || m->intr_pic_on);
}

static void intr_update(struct machine *m)
{
	if (intr_high(m, INTR_LAPIC) || intr_high(m, INTR_PIC))
		vcpu_request(m, REQ_IRQ);
	else
		vcpu_request_clear(m, REQ_IRQ);
}

void intr_register(struct machine *m, enum intr_source src, int (*ack)(void *opaque), void *opaque)
{
	m->intr[src].ack = ack;
	m->intr[src].opaque = opaque;
}

void intr_set(struct machine *m, enum intr_source src, bool level)
{
	m->intr[src].level = level;
	intr_update(m);
}

void intr_pic_enable(struct machine *m, bool on)
{
	m->intr_pic_on = on;
	intr_update(m);
}

int intr_ack(struct machine *m)
{
	int vector = -1;

	machine_lock(m);
	for (unsigned src = 0; src < INTR_SOURCES && vector < 0; src++) {
		const struct intr_input *in = &m->intr[src];
		if (in->ack && intr_high(m, src))
			vector = in->ack(in->opaque);
	}
	intr_update(m);
	machine_unlock(m);
	return vector;
}

void nmi_raise(struct machine *m)
{
	vcpu_request(m, REQ_NMI);
}

void machine_set_apic_hook(struct machine *m, void (*fn)(void *opaque, uint64_t base), void *opaque)
{
	m->apic_hook = fn;
	m->apic_hook_opaque = opaque;
}
