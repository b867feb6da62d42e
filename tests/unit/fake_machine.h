/* fake_machine.h - the machine interface of vmm/vmm.h without a machine, for tests of single devices.
 *
 * Link tests/unit/fake_machine.c and the sources of the devices under test. Time stands still until the test
 * moves it; everything runs on the test's own thread.
 *
 *     struct machine *m = fake_machine_create();
 *     i8254_create(m);
 *     pio_write(m, 0x43, 0x34, 1);
 *     fake_clock_advance(m, 1000000);           // runs the timers that fall due, each at its own deadline
 *     assert_int_equal(fake_irq_rises(m, 0), 1);
 *     fake_machine_destroy(m);
 */
#ifndef BT86_TESTS_FAKE_MACHINE_H
#define BT86_TESTS_FAKE_MACHINE_H

#include "vmm/vmm.h"

struct machine *fake_machine_create(void);
void fake_machine_destroy(struct machine *m);

/* The configuration, to be changed before devices are created. 64 MiB of RAM unless the test says otherwise.
 */
struct machine_config *fake_machine_config(struct machine *m);

/* Time. advance runs timers as it passes their deadlines; jump moves the clock first and runs them
 * afterwards, as happens when the host was busy. */
void fake_clock_advance(struct machine *m, uint64_t ns);
void fake_clock_jump(struct machine *m, uint64_t ns);
/* Moves it and leaves the timers to whatever moves it next. */
void fake_clock_skip(struct machine *m, uint64_t ns);
/* Deadline of the earliest armed timer, UINT64_MAX if none. */
uint64_t fake_timer_next(struct machine *m);
/* How many times timers have run. */
unsigned fake_timers_run(struct machine *m);

/* Runs the reset handlers, with the vCPU's own state reset first. */
void fake_machine_reset(struct machine *m);

/* Memory-mapped accesses. An address that nobody claims is all ones. */
uint32_t fake_mmio_read(struct machine *m, uint64_t gpa, unsigned size);
void fake_mmio_write(struct machine *m, uint64_t gpa, uint32_t value, unsigned size);

/* Interrupt lines as the devices drive them. rises counts low-to-high transitions since creation. */
bool fake_irq_level(struct machine *m, unsigned line);
unsigned fake_irq_rises(struct machine *m, unsigned line);

/* The CPU's side. pending tells whether some source requests and may; ack is the INTA cycle: the vector or
 * -1. */
bool fake_intr_pending(struct machine *m);
int fake_intr_ack(struct machine *m);
/* An INTA cycle that the CPU had committed itself to while the request was still there. */
int fake_intr_inta(struct machine *m, enum intr_source src);
bool fake_intr_level(struct machine *m, enum intr_source src);
bool fake_pic_enabled(struct machine *m);
unsigned fake_nmis(struct machine *m);
/* WRMSR to IA32_APIC_BASE: changes vcpu->apic_base and calls the hook. */
void fake_apic_base_write(struct machine *m, uint64_t value);

/* Power. status is that of the last machine_poweroff, -1 if there was none. */
int fake_poweroff_status(struct machine *m);
unsigned fake_reset_requests(struct machine *m);
/* Calls of mem_mode_changed (A20 gate). */
unsigned fake_mode_changes(struct machine *m);

/* Waits at most timeout_ms for descriptors and runs their callbacks; returns how many ran. */
int fake_evloop_poll(struct machine *m, int timeout_ms);

#endif
