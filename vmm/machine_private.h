/* machine_private.h - the inside of struct machine, for the folder vmm/ only.
 *
 * Who may touch what:
 *   - everything under "lock" belongs to whoever holds machine->lock;
 *   - struct vcpu belongs to the vCPU thread, except vcpu.request;
 *   - the _Atomic fields may be read and written by any thread.
 *
 * How the vCPU is made to notice something. A bit is set in vcpu.request, then vcpu_kick() looks where the
 * vCPU is: asleep in vcpu_wait (a futex on the request word itself, so no wake-up can be lost), or inside
 * translated code (vcpu_in_guest: a SIGUSR1 makes it leave), or in the VMM, where it will look at the request
 * before it enters the guest again. The run loop keeps its half of the bargain by writing
 *
 *	atomic_store(&m->vcpu_in_guest, true);
 *	if (!atomic_load(&c->request))
 *		... run translated code ...
 *	atomic_store(&m->vcpu_in_guest, false);
 *
 * with sequentially consistent operations: either the kicker sees vcpu_in_guest, or the vCPU sees the
 *request.
 */
#ifndef BT86_VMM_MACHINE_PRIVATE_H
#define BT86_VMM_MACHINE_PRIVATE_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "vmm/vmm.h"

#define PIO_REGIONS	  128u
#define MMIO_REGIONS	  16u
#define IRQ_SINKS	  4u
#define RESET_HOOKS	  32u
#define EVLOOP_FDS	  64u
#define VCPU_KICK_SIG	  SIGUSR1
#define EXIT_STATUS_GIVEN 0x10000 /* in exit_status: someone has asked for power-off */

struct io_region {
	uint64_t first; /* port or guest-physical address */
	uint64_t count;
	const struct io_ops *ops;
	void *opaque;
};

struct irq_sink {
	void (*fn)(void *opaque, unsigned line, bool level);
	void *opaque;
};

struct intr_input {
	int (*ack)(void *opaque);
	void *opaque;
	bool level;
};

struct reset_hook {
	void (*fn)(void *opaque);
	void *opaque;
};

struct evloop_fd {
	int fd; /* -1: free */
	uint32_t generation;
	void (*fn)(void *opaque, uint32_t events);
	void *opaque;
};

struct machine {
	_Alignas(64) struct vcpu vcpu;

	/* ---- where the vCPU is; any thread ---- */
	_Atomic bool vcpu_in_guest;    /* in translated code: a signal is needed to get its attention */
	_Atomic bool vcpu_asleep;      /* in vcpu_wait's futex */
	_Atomic bool vcpu_thread_live; /* vcpu_thread is valid */
	pthread_t vcpu_thread;

	/* ---- how it ends; any thread ---- */
	_Atomic bool exiting;
	_Atomic int exit_status; /* 0, or the status | EXIT_STATUS_GIVEN */

	pthread_mutex_t lock;
	struct machine_config cfg;
	struct mem *mem;

	/* ---- lock: buses ---- */
	uint8_t pio_index[65536]; /* region number + 1, 0: unclaimed */
	struct io_region pio[PIO_REGIONS];
	unsigned pio_count;
	struct io_region mmio[MMIO_REGIONS]; /* sorted by address */
	unsigned mmio_count;

	/* ---- lock: interrupts ---- */
	bool irq_level[IRQ_LINES];
	struct irq_sink irq_sinks[IRQ_SINKS];
	unsigned irq_sink_count;
	struct intr_input intr[INTR_SOURCES];
	bool intr_pic_on;
	void (*apic_hook)(void *opaque, uint64_t base);
	void *apic_hook_opaque;

	/* ---- lock: reset and stop ---- */
	struct reset_hook reset_hooks[RESET_HOOKS];
	unsigned reset_hook_count;
	_Atomic bool stop_wanted;
	_Atomic uint32_t park_futex; /* counted up by whatever may end vcpu_park */
	_Atomic bool parked;	     /* the vCPU thread stands in vcpu_park; changes under the lock */
	pthread_cond_t parked_cond;

	/* ---- time ---- */
	_Atomic uint64_t clock_base;   /* CLOCK_MONOTONIC at clock_ns() == 0 */
	_Atomic uint64_t clock_frozen; /* clock_ns() + 1 while the clock stands still, else 0 */
	uint64_t clock_frozen_tsc;
	uint64_t cal_ns, cal_tsc; /* first calibration sample */
	_Atomic uint64_t tsc_hz;  /* 0: not measured yet */

	/* ---- lock: timers ---- */
	struct vtimer *timers;	   /* sorted by deadline */
	uint64_t timer_programmed; /* what the host's timer is set to; UINT64_MAX: nothing */
	uint64_t timer_awaited; /* when the sleeping vCPU looks; UINT64_MAX: it runs, or sleeps until woken */
	bool timers_running; /* somebody is inside clock_run_timers, which programs the host's at its end */
	bool timer_kicks;    /* the host's timer is kick_timer and not timer_fd */
	timer_t kick_timer;
	int timer_fd;

	/* ---- event loop ---- */
	int epoll_fd;
	int wake_fd; /* eventfd: evloop_join wants the thread to end */
	pthread_t evloop_thread;
	_Atomic bool evloop_quit;
	bool evloop_running;
	unsigned signals_handled; /* that asked us to end */
	struct evloop_fd fds[EVLOOP_FDS];
	uint32_t fd_generation;

	void (*accel_free)(struct machine *m); /* the accelerator's state, NULL if it has none */
	struct kvm_accel *kvm;		       /* under -accel kvm, else NULL */

	/* ---- CPUID and MSRs ---- */
	const struct cpu_model *model;
	unsigned (*counters_fn)(void *opaque, uint64_t *out, unsigned max);
	void *counters_opaque;
	uint64_t msr_debugctl;
};

/* ---- the vCPU's side (machine.c). Called on the vCPU thread, lock not held unless said otherwise ---- */

/* Sets bits of REQ_* and gets the vCPU's attention. Any thread, lock held or not. */
void vcpu_request(struct machine *m, uint32_t bits);
void vcpu_request_clear(struct machine *m, uint32_t bits);
/* Gets the attention of a vCPU whose request word was just changed. Any thread. */
void vcpu_kick(struct machine *m);
/* HLT: sleeps until a request is there that ends it. An interrupt with IF clear does not. */
void vcpu_wait(struct machine *m);
/* REQ_STOP: stands still, clock included, until machine_cont or power-off. Clears REQ_STOP. */
void vcpu_park(struct machine *m);
/* REQ_RESET: clears it, resets the CPU and runs the reset callbacks, devices first. */
void machine_reset_now(struct machine *m);
/* The status that machine_poweroff was given. */
int machine_exit_status(struct machine *m);

/* ---- interrupts (irq.c) ---- */

/* INTA cycle: the vector, or -1 when no source has one after all. Takes the lock; updates REQ_IRQ. */
int intr_ack(struct machine *m);

/* ---- MMIO (bus.c), behind mem_ops. Take the lock ---- */
uint64_t mmio_read(struct machine *m, uint64_t gpa, unsigned size);
void mmio_write(struct machine *m, uint64_t gpa, uint64_t value, unsigned size);

/* ---- time (clock.c) ---- */
int clock_init(struct machine *m);  /* 0 or -errno */
int clock_watch(struct machine *m); /* has the event loop watch the timerfd; 0 or -errno */
void clock_fini(struct machine *m);
void clock_freeze(struct machine *m); /* lock held, vCPU thread */
void clock_thaw(struct machine *m);   /* moves tsc_offset too */
/* Runs what is due and programs the host's timer for what comes next. Lock held. */
void clock_run_timers(struct machine *m);
/* From now on, until clock_kick_no_more, timers are run by the vCPU thread, which is the caller: when one is
 * due it gets a kick signal, whose handler must call clock_kicked, and then in its run loop clock_due,
 * because REQ_TIMER is set. False, and the event loop runs them as before, if the host has no timer left. */
bool clock_kick_vcpu(struct machine *m);
void clock_kick_no_more(struct machine *m);
void clock_kicked(struct machine *m, const siginfo_t *si); /* in the handler */
void clock_due(struct machine *m);			   /* takes the lock */
/* The vCPU thread is about to sleep: runs what is due, and from now on leaves to it what is due at *until
 * (CLOCK_MONOTONIC), when it must call this again. False if no timer is armed. Takes the lock. */
bool clock_await(struct machine *m, struct timespec *until);
void clock_await_end(struct machine *m); /* it sleeps no more. Takes the lock */

/* ---- identity (cpuid.c) ---- */
/* All of these bits of leaf 1 EDX are the model's (whether or not the APIC bit shows at the moment). */
bool cpuid_has_features(const struct vcpu *c, uint32_t edx);

/* Models offer no more than these bits of leaf 1 ECX and EDX, leaf 7 EBX and leaf 80000001 EDX. Before the
 * guest runs. */
void cpuid_restrict(uint32_t leaf1_ecx, uint32_t leaf1_edx, uint32_t leaf7_ebx, uint32_t ext1_edx);

/* ---- event loop (evloop.c) ---- */
int evloop_init(struct machine *m); /* 0 or -errno */
void evloop_fini(struct machine *m);
/* Starts the thread. The caller is, or becomes, the vCPU thread; SIGINT, SIGTERM and SIGHUP are blocked in it
 * from now on and reach the event loop instead. 0 or -errno. */
int evloop_start(struct machine *m);
void evloop_join(struct machine *m);

#endif
