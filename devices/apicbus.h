/* apicbus.h - the APIC bus: where the I/O APIC and the local APIC meet without knowing each other.
 *
 * The I/O APIC sends messages; local APICs take those that are addressed to them and say back when a
 * level-triggered interrupt has ended (SDM vol. 3A 10.8.5, 82093AA 2.0). One bus a machine. All with the lock
 * held.
 *
 *     struct apicbus *bus = apicbus_get(m);
 *     bus->local = (struct apicbus_local){my_receive, me};     // local APIC, once
 *     bus->io = (struct apicbus_io){my_eoi, my_ready, me};     // I/O APIC, once
 */
#ifndef BT86_DEVICES_APICBUS_H
#define BT86_DEVICES_APICBUS_H

#include "devices/device.h"

/* Delivery modes as both the ICR and the redirection table spell them. */
enum apic_delivery {
	APIC_FIXED = 0,
	APIC_LOWEST = 1,
	APIC_SMI = 2,
	APIC_NMI = 4,
	APIC_INIT = 5,
	APIC_STARTUP = 6,
	APIC_EXTINT = 7,
};

struct apicbus_message {
	uint8_t dest;
	bool logical; /* destination mode: dest is an MDA (SDM vol. 3A 10.6.2.2) rather than an APIC ID */
	uint8_t vector;
	bool level; /* trigger mode */
	enum apic_delivery delivery;
};

struct apicbus_local {
	bool (*receive)(void *opaque,
			const struct apicbus_message *msg); /* true: addressed to us, and accepted */
	void *opaque;
};

struct apicbus_io {
	void (*eoi)(void *opaque, uint8_t vector);
	void (*ready)(void *opaque); /* a local APIC accepts interrupts that it refused before */
	void *opaque;
};

struct apicbus {
	struct apicbus_local local;
	struct apicbus_io io;
};

static inline struct apicbus *apicbus_get(struct machine *m)
{
	return (struct apicbus *)device_shared(m, "apicbus", sizeof(struct apicbus));
}

/* False if nobody accepted it: no local APIC, not addressed, or software-disabled. */
static inline bool apicbus_send(struct apicbus *bus, const struct apicbus_message *msg)
{
	return bus->local.receive && bus->local.receive(bus->local.opaque, msg);
}

static inline void apicbus_eoi(struct apicbus *bus, uint8_t vector)
{
	if (bus->io.eoi)
		bus->io.eoi(bus->io.opaque, vector);
}

static inline void apicbus_ready(struct apicbus *bus)
{
	if (bus->io.ready)
		bus->io.ready(bus->io.opaque);
}

#endif
