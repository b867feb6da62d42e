/* device.h - what the devices' own files share: memory that lives as long as the board, and ticks.
 *
 * Private to this folder. Memory: device_alloc is called while the board is built (one thread, before the
 * guest runs); board_destroy calls device_free_all once nothing calls into the devices any more.
 */
#ifndef BT86_DEVICES_DEVICE_H
#define BT86_DEVICES_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "vmm/vmm.h"

#define NS_PER_SEC 1000000000u

/* Zeroed memory that belongs to m's board. Never NULL: there is no machine without its devices, so running
 * out of memory here ends the process with one line. */
void *device_alloc(struct machine *m, size_t size);
/* The one object of this name that m has, zeroed when it is first asked for: where devices meet that do not
 * know each other (apicbus.h). name is kept; it must be a literal. */
void *device_shared(struct machine *m, const char *name, size_t size);
void device_free_all(struct machine *m);

/* Ticks of a clock of hz that have begun at time ns, counted from time 0: floor(ns * hz / 10^9), exactly.
 * Seconds and the rest apart, so that no product exceeds 64 bits for any 32-bit hz and nothing drifts. */
static inline uint64_t device_ns_to_ticks(uint64_t ns, uint32_t hz)
{
	return ns / NS_PER_SEC * hz + ns % NS_PER_SEC * hz / NS_PER_SEC;
}

/* The first nanosecond at which device_ns_to_ticks is ticks. */
static inline uint64_t device_ticks_to_ns(uint64_t ticks, uint32_t hz)
{
	return ticks / hz * NS_PER_SEC + (ticks % hz * NS_PER_SEC + hz - 1) / hz;
}

#endif
