/* machine_rig.h - the real machine with a memory system of nothing behind it, for the tests of its core.
 *
 * The test's own thread is the vCPU thread.
 */
#ifndef BT86_TESTS_MACHINE_RIG_H
#define BT86_TESTS_MACHINE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "vmm/machine_private.h"

/* Calls of mem_mode_changed. */
extern unsigned rig_mode_changes;

/* A machine of this CPU model. The caller destroys it. */
struct machine *rig_create(const char *model);

/* A test whose *state is a machine of the model max. If it starts the event loop, it may leave it running. */
#define rig_test(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)
int rig_setup(void **state);
int rig_teardown(void **state);

/* An interrupt source for intr_register: its vector is the int that opaque points to. */
int rig_give_vector(void *opaque);

void rig_sleep_us(long us);

#endif
