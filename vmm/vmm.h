/* vmm.h - the machine: buses, interrupt lines, time, events, the run loop and the accelerators.
 *
 * This is what a device sees of the VMM, and what the command line drives. Reading order: lifecycle,
 * port and memory-mapped I/O, interrupt lines, time, events, power.
 *
 * Locking: one lock, machine->lock, guards all device state. Every handler registered here (I/O, interrupt
 * sinks, timers, fd callbacks) runs with it held; so a device never locks anything. Handlers run on the vCPU
 * thread (guest I/O, and timers in a run) or on the event-loop thread (fds) and must not block.
 */
#ifndef BT86_VMM_H
#define BT86_VMM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cpu/cpu.h"
#include "mem/mem.h"

struct machine;

/* ------------------------------------------------------------------ lifecycle */

enum accel { ACCEL_BT, ACCEL_INTERP, ACCEL_KVM };

/* Process exit statuses (also in --help and the manual page). isa-debug-exit gives (value << 1) | 1 instead. */
enum {
	EXIT_POWEROFF = 0,
	EXIT_USAGE = 1,
	EXIT_IMAGE = 2,
	EXIT_TRIPLE_FAULT = 3,
	EXIT_INTERNAL = 4,
	EXIT_INTERRUPTED = 130,
};

struct machine_config {
	uint64_t ram_bytes;
	enum accel accel;
	const char *cpu_model; /* "486", "pentium", "pentium3", "max" */
	bool no_reboot;
	bool debug_exit;
	/* Bisecting and debugging of the translator. */
	uint32_t bt_first, bt_last; /* only code at linear addresses in [bt_first, bt_last] is translated */
	unsigned verify_every;	    /* 0: off; N: every Nth executed block is checked against the interpreter */
	unsigned verify_first;	    /* K: so are the first K executions of each block */
	bool count_insns;	    /* translated code counts the instructions it runs, for --stats */
	bool perf_map;		    /* write /tmp/perf-PID.map */
};

/* Creates RAM, the vCPU in reset state, buses and the event loop. No devices yet. NULL with one line in err. */
struct machine *machine_create(const struct machine_config *cfg, char *err, size_t errlen);
void machine_destroy(struct machine *m);

/* Runs the guest until power-off or another end; the calling thread becomes the vCPU thread and the event-loop
 * thread is started and joined. Returns the process exit status. */
int machine_run(struct machine *m);

/* What executes the guest's instructions, in one line; under kvm, what stands behind /dev/kvm. Once the guest runs. */
void machine_describe_accel(struct machine *m, char *text, size_t len);
/* What stands behind /dev/kvm on this host, in one line; false, with the reason, if -accel kvm cannot run. */
bool kvm_describe(char *text, size_t len);

/* Called at machine reset (0xcf9, keyboard controller, triple fault, monitor): devices return to power-on state;
 * boot reloads the guest and sets the vCPU's entry state. Callbacks run in the order of registration. */
void machine_on_reset(struct machine *m, void (*fn)(void *opaque), void *opaque);

const struct machine_config *machine_cfg(const struct machine *m);
struct mem *machine_mem(struct machine *m);
struct vcpu *machine_vcpu(struct machine *m);
void machine_lock(struct machine *m);
void machine_unlock(struct machine *m);

/* ------------------------------------------------------------------ I/O buses */

struct io_ops {
	/* offset is relative to the region's first port or address. size is 1, 2 or 4. */
	uint32_t (*read)(void *opaque, uint32_t offset, unsigned size);
	void (*write)(void *opaque, uint32_t offset, uint32_t value, unsigned size);
	/* Set when the device takes 2- and 4-byte accesses itself; otherwise they are split into bytes
	 * (little-endian, ascending), as the ISA bus does. */
	bool wide;
};

/* Regions may not overlap; registering over another is an assertion failure. ops must outlive the machine. */
void pio_register(struct machine *m, uint16_t first, uint16_t count, const struct io_ops *ops, void *opaque);
void mmio_register(struct machine *m, uint64_t gpa, uint64_t len, const struct io_ops *ops, void *opaque);

/* What IN/OUT do; the privilege check has been made. Unclaimed ports read as all ones. Take the lock. */
uint32_t pio_read(struct machine *m, uint16_t port, unsigned size);
void pio_write(struct machine *m, uint16_t port, uint32_t value, unsigned size);

/* ------------------------------------------------------------------ interrupt lines
 *
 * ISA/PCI lines 0-23 ("GSI") go to every registered sink (the 8259 pair takes 0-15, the I/O APIC 0-23; the I/O APIC's
 * sink maps line 0 to its pin 2 as the MADT override says). Interrupt controllers drive the CPU's INTR.
 */
#define IRQ_LINES 24
void irq_set(struct machine *m, unsigned line, bool level);	   /* lock held */
static inline void irq_pulse(struct machine *m, unsigned line)
{
	irq_set(m, line, true);
	irq_set(m, line, false);
}
void irq_sink_add(struct machine *m, void (*fn)(void *opaque, unsigned line, bool level), void *opaque);

/* CPU-side sources in descending priority: the local APIC answers before the 8259 (ExtINT). */
enum intr_source { INTR_LAPIC, INTR_PIC, INTR_SOURCES };
/* Registers how a source is acknowledged: returns the vector 0-255, or -1 if it has none after all. Lock held. */
void intr_register(struct machine *m, enum intr_source src, int (*ack)(void *opaque), void *opaque);
/* Raises or lowers the source's request to the CPU. Any thread, lock held. Kicks the vCPU when raised. */
void intr_set(struct machine *m, enum intr_source src, bool level);
/* Whether the 8259's output reaches the CPU (the local APIC's LINT0 decides; true while it is disabled). */
void intr_pic_enable(struct machine *m, bool on);
void nmi_raise(struct machine *m);
/* fn hears of every write to IA32_APIC_BASE (set by the local APIC; called by msr_write with the lock held). */
void machine_set_apic_hook(struct machine *m, void (*fn)(void *opaque, uint64_t base), void *opaque);

/* ------------------------------------------------------------------ time
 *
 * One clock: nanoseconds of CLOCK_MONOTONIC since machine start, standing still while the monitor has stopped the
 * guest. The guest's TSC runs at the host's rate; clock_tsc_hz tells which. Devices compute their counters from
 * clock_ns when read, never by counting ticks.
 */
uint64_t clock_ns(const struct machine *m);
uint64_t clock_tsc_hz(const struct machine *m);

struct vtimer {
	uint64_t deadline; /* clock_ns value; UINT64_MAX: not armed */
	void (*fn)(void *opaque);
	void *opaque;
	struct vtimer *next; /* the machine's list */
	struct machine *machine;
};
void vtimer_init(struct machine *m, struct vtimer *t, void (*fn)(void *opaque), void *opaque);
void vtimer_arm(struct vtimer *t, uint64_t deadline_ns); /* lock held; re-arming moves it */
void vtimer_disarm(struct vtimer *t);

/* ------------------------------------------------------------------ events: file descriptors on the event-loop thread */

/* events: EPOLLIN etc. The callback runs on the event-loop thread with the lock held. One callback a descriptor. */
int evloop_add_fd(struct machine *m, int fd, uint32_t events, void (*fn)(void *opaque, uint32_t events), void *opaque);
void evloop_mod_fd(struct machine *m, int fd, uint32_t events);
void evloop_del_fd(struct machine *m, int fd);

/* ------------------------------------------------------------------ power and control; any thread */
void machine_poweroff(struct machine *m, int status); /* leave the run loop with this exit status */
void machine_reset_request(struct machine *m);	       /* honours no_reboot */
void machine_stop(struct machine *m);		       /* monitor: vCPU stops at an instruction boundary */
void machine_cont(struct machine *m);
bool machine_stopped(struct machine *m);	       /* the vCPU stands still now (or has not been started) */
/* Waits until it does. Lock held by the caller (it is let go meanwhile); not from the vCPU thread. The vCPU's state may
 * be read until the next machine_cont. False if the guest is ending instead. */
bool machine_wait_stopped(struct machine *m);

/* What has to be put right (the terminal) before the process dies of a signal. fn is async-signal-safe; one per
 * process. machine_run_fatal_hook may be called from a signal handler, more than once. */
void machine_set_fatal_hook(void (*fn)(void));
void machine_run_fatal_hook(void);

/* ------------------------------------------------------------------ CPUID and MSRs (vmm/cpuid.c, vmm/msr.c) */
void cpuid_init(struct machine *m, const char *model); /* exits via err in machine_create for unknown models */
bool cpuid_model_known(const char *model);
void cpuid_query(const struct vcpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4]); /* eax ebx ecx edx */
/* Reserved bits of CR4 for the model: a write of one raises #GP. */
uint32_t cpuid_cr4_allowed(const struct vcpu *c);
bool cpuid_has_nx(const struct vcpu *c);
/* The APIC timer's input clock as leaves 0x15 and 0x40000010 tell it (devices.h, LAPIC_BUS_HZ). The lower, the more
 * exactly leaf 0x15 can say how much faster the TSC is. */
#define CPUID_APIC_BUS_KHZ 25000u
/* Counters that the guest reads with leaves 0x40000100 (how many) and 0x40000101 + i (value:
 * low half in EAX, high half in EBX). fn fills out[0..max) and returns how many it has; vCPU thread. */
void cpuid_set_counters(struct machine *m, unsigned (*fn)(void *opaque, uint64_t *out, unsigned max), void *opaque);
/* 0, or -1 with #GP(0) recorded. */
int msr_read(struct vcpu *c, uint32_t index, uint64_t *value);
int msr_write(struct vcpu *c, uint32_t index, uint64_t value);

/* ------------------------------------------------------------------ interpreter (vmm/interp/) */

/* Prepares what instructions are executed with (stubs for the host's x87 and SSE unit). To be called before the process
 * gives up mapping executable memory. 0, or -1 with one line in err. */
int interp_init(char *err, size_t errlen);
/* Executes one guest instruction at CS:EIP including delivery of an exception it raises (and of a pending c->exc first).
 * Does not look at interrupts; counts down c->shadow. A REP string instruction runs at most a bounded number of
 * iterations and then leaves EIP on itself. On HLT sets c->halted. Returns 0, or -1 on triple fault (shutdown). */
int interp_step(struct vcpu *c);
/* Executes up to n instructions, stopping early when c->request is set (and would be honoured), on HLT, or when
 * stop_at_translatable and the CPU state has become one that the translator takes. Returns as interp_step. */
int interp_run(struct vcpu *c, uint64_t n, bool stop_at_translatable);
/* That state: flat 32-bit protected mode at CPL 0 or 3, not v8086, nothing to trap between instructions (TF, RF,
 * breakpoints, interrupt shadow, alignment checks). */
bool cpu_translatable(const struct vcpu *c);
/* Whether the model has this integer instruction (CPUID announces it); #UD otherwise. x87, MMX and SSE: always true. */
struct insn;
bool cpu_offers(const struct vcpu *c, const struct insn *i);
/* Delivers c->exc, or an external interrupt vector, through the IDT. -1 on triple fault. */
int interp_deliver_exception(struct vcpu *c);
int interp_deliver_interrupt(struct vcpu *c, uint8_t vector);

/* One instruction on trial (vmm/bt_verify.c): all that it changes is *c and RAM, and the stores go through the store log
 * (mem_set_store_log), so that it can be taken back. No exception is delivered. Whatever finds that the instruction
 * reaches further calls interp_spoil, which returns true if a trial is on; its effect is then left out. */
enum interp_trial {
	TRIAL_DONE,
	TRIAL_AGAIN,	     /* a repeated string instruction has done a part and stands on itself */
	TRIAL_EXCEPTION,     /* recorded in c->exc; no register has changed */
	TRIAL_EXCEPTION_MID, /* the same in a repeated string instruction, whose registers show how far it came */
	TRIAL_REFUSED,	     /* not begun: may said no, or something traps between instructions */
	TRIAL_SPOILT,	     /* begun; *c is good for nothing but being taken back */
};
enum interp_trial interp_try(struct vcpu *c, bool (*may)(const struct insn *i));
/* The same for the delivery of c->exc. False: spoilt. */
bool interp_try_deliver(struct vcpu *c);
bool interp_spoil(void);
/* Guest memory that holds code was changed; forget all decoded instructions. The interpreter checks what it has decoded
 * against memory each time it executes it, so the former has nothing to do, and the latter is for a new CPU model. */
void interp_code_written(struct vcpu *c, uint64_t gpa, unsigned len);
void interp_flush(struct vcpu *c);

/* Segment and control-register semantics shared with the translator's callouts. All return 0 or -1 with c->exc. */
int seg_load(struct vcpu *c, unsigned sreg, uint16_t sel); /* MOV/POP to ES SS DS FS GS, any mode */
/* What a load of a GDT selector in protected mode would give, at the present CPL, if it raised and wrote nothing: its
 * descriptor's eight bytes and the register. False otherwise. */
bool seg_load_foresee(struct vcpu *c, unsigned sreg, uint16_t sel, uint64_t *raw, struct seg *s);
int cr_write(struct vcpu *c, unsigned n, uint32_t value);
uint32_t cr_read(struct vcpu *c, unsigned n);
int cpu_int(struct vcpu *c, uint8_t vector, uint32_t next_eip); /* INT n / INT3 / INTO software interrupt */
int cpu_iret(struct vcpu *c, unsigned opsize);			 /* opsize 2 or 4 */
int cpu_sysenter(struct vcpu *c);
int cpu_sysexit(struct vcpu *c);

/* ------------------------------------------------------------------ logging (-d) and statistics */
enum log_cat { LOG_IN_ASM, LOG_OP, LOG_OUT_ASM, LOG_INT, LOG_MMU, LOG_TRACE, LOG_CPU, LOG_UNIMP, LOG_EXEC, LOG_DEV, LOG_CATS };
extern uint32_t log_mask;
static inline bool log_on(enum log_cat c)
{
	return log_mask >> c & 1u;
}
int log_set_categories(const char *list); /* "in_asm,int": 0, or -1 for an unknown name (nothing set) */
int log_set_file(const char *path);	  /* 0 or -errno; default stderr */
void log_printf(enum log_cat c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *log_category_help(enum log_cat c, const char **name); /* for --help and `-d help` */

/* Everything worth counting, one row each, for --stats and the monitor's `info cache`. Rows of a group stand
 * together. A name is words, unique in its group ("exits: table miss"); in JSON it becomes exits_table_miss.
 * Writes at most max rows and returns how many there are. vCPU stopped or the run loop left. */
struct stat_row {
	const char *group, *name;
	uint64_t value;
};
unsigned machine_stats(struct machine *m, struct stat_row *rows, unsigned max);

/* ------------------------------------------------------------------ guest symbols (vmm/symbols.c), for -d and --perf-map */
/* Reads a System.map or an i386 ELF file's symbol table. 0, or -1 with one line in err. Once, before the guest runs. */
int symbols_load(const char *path, char *err, size_t errlen);
void symbols_free(void);
/* The symbol that covers a linear address, and the distance from its start; NULL if none does. Any thread. */
const char *symbols_find(uint32_t addr, uint32_t *offset);

#endif
