/* a20.h - the A20 gate, which the keyboard controller and port 0x92 both drive. The last to write decides. */
#ifndef BT86_DEVICES_A20_H
#define BT86_DEVICES_A20_H

#include "vmm/vmm.h"

static inline bool a20_get(struct machine *m)
{
	return machine_vcpu(m)->a20_mask == ~0u;
}

/* From a port write, that is on the vCPU thread. */
static inline void a20_set(struct machine *m, bool on)
{
	struct vcpu *c = machine_vcpu(m);

	if (on == a20_get(m))
		return;
	c->a20_mask = on ? ~0u : ~(1u << 20);
	mem_mode_changed(c);
}

#endif
