/* kvm.h - the accelerator over /dev/kvm, for comparison with the translator. Private to vmm/.
 *
 * The machine is the same as under bt and interp: devices, interrupt controllers, time, CPUID and MSRs are
 * ours (no KVM_CREATE_IRQCHIP; every RDMSR and WRMSR comes to vmm/msr.c). KVM does the CPU and its memory and
 * nothing else.
 *
 *   kvm.c          opening, the vCPU thread's loop, exits
 *   kvm_state.c    registers between struct vcpu and KVM
 *   kvm_backing.c  what stands behind /dev/kvm on this host
 *
 * Who has the registers. KVM has them while the guest runs; struct vcpu has a copy from kvm_fetch on
 * (synced). What changes the copy sets dirty, and kvm_push gives it back before KVM runs again. CPUID, MSRs,
 * A20 and the TSC's offset are always struct vcpu's.
 *
 * What KVM cannot run, the interpreter does, in the same state, and it is counted:
 *
 *   - one instruction that KVM's own emulator gives up on (KVM_EXIT_INTERNAL_ERROR, suberror EMULATION), which
 *     under VT-x and SVM next to never happens;
 *   - everything while A20 is off, which KVM does not know;
 *   - what a KVM without 32-bit paging cannot do (kvm_backing.paging32 false).
 *
 * The last is a software KVM, and it does more wrong than paging, without a word. So the guest is single-stepped
 * and the next instruction looked at. Interpreted are, for what was measured with kvm-pvm:
 *
 *   - everything while paging is on; MOV to CR0 and LMSW, because setting PG raises #GP in the guest;
 *   - what raises an exception, because there are no task gates: KVM is given an empty IDT, and the exception
 *     becomes KVM_EXIT_SHUTDOWN with the registers as they were. Hence SIDT, LIDT and interrupts too;
 *   - everything while TF is set, and POPF: our single-stepping hides the guest's own;
 *   - everything while a breakpoint is set, and MOV to and from debug registers: there are no data breakpoints
 *     and no DR7.GD;
 *   - INT n, which ignores the limit of the real-mode vector table;
 *   - RDTSC: the offset of the TSC is accepted and ignored;
 *   - everything outside CPL 0: there an emulation failure becomes #UD.
 */
#ifndef BT86_VMM_KVM_H
#define BT86_VMM_KVM_H

#include <linux/kvm.h>

#include "vmm/bt.h"
#include "vmm/machine_private.h"

enum kvm_kind { KVM_SOFTWARE, KVM_VTX, KVM_SVM };

struct kvm_backing {
	enum kvm_kind kind;
	bool nested_paging; /* EPT or NPT */
	bool in_vm;	    /* the host is a virtual machine itself */
	bool paging32;	    /* takes CR0.PG without long mode; found out by trying */
	char module[32];    /* of a software KVM: as in /sys/module, empty if unknown */
};

/* What the host has, from CPUID and /sys/module below root ("" outside tests). paging32 is left true. */
void kvm_backing_detect(struct kvm_backing *b, const char *root);
/* The same with the host's CPUID bits given. */
void kvm_backing_classify(struct kvm_backing *b, const char *root, bool vmx, bool svm, bool in_vm);
/* "VT-x with nested paging (EPT)" and the like; one line, no newline. */
void kvm_backing_describe(const struct kvm_backing *b, char *text, size_t len);

#define KVM_EXIT_REASONS 48u

struct kvm_stats {
	uint64_t entries, interrupted, exits[KVM_EXIT_REASONS];
	uint64_t injected;	  /* interrupts through KVM_INTERRUPT */
	uint64_t emulation_steps; /* instructions that KVM gave up on */
	uint64_t exception_steps; /* instructions that raised one in a KVM without 32-bit paging */
	uint64_t kept_steps;	  /* MOVs to CR0 and the like, kept from a KVM without 32-bit paging */
	uint64_t interp_paging, interp_cpl, interp_debug,
		interp_a20; /* instructions interpreted, by reason */
	uint64_t single_steps;
	uint64_t pio, mmio, msr; /* accesses that came to the buses and the MSR table */
	uint64_t fetches, pushes;
	uint64_t tsc_start, tsc_kvm, tsc_interp, tsc_halted;
};

struct kvm_accel {
	struct machine *m;
	struct vcpu *c;
	int kvm_fd, vm_fd, cpu_fd;
	struct kvm_run *run;
	size_t run_bytes;
	struct kvm_backing backing;
	bool have_sregs2, have_xsave, have_tsc_offset, have_sync_regs;
	bool synced;	     /* struct vcpu holds the registers too */
	bool dirty;	     /* it holds newer ones than KVM */
	bool completing;     /* KVM has an access to finish before its registers mean anything */
	bool may_inject;     /* KVM would take an interrupt now */
	uint64_t tsc_offset; /* these four as KVM knows them */
	uint64_t sysenter[3], efer, apic_base;
	struct kvm_stats st;
};

/* Opens /dev/kvm and makes a VM with m's memory. From then on the CPU model offers no more than KVM does.
 * NULL with one line in err. */
struct kvm_accel *kvm_create(struct machine *m, char *err, size_t errlen);
void kvm_destroy(struct kvm_accel *k);
/* The ioctls that kvm_loop makes, for the seccomp filter. */
struct sandbox_extra kvm_sandbox(const struct kvm_accel *k);
/* Runs until REQ_SHUTDOWN. */
void kvm_loop(struct machine *m);
unsigned kvm_stat_rows(const struct kvm_accel *k, struct stat_row *rows, unsigned max);

/* ---- kvm_state.c. An ioctl that fails ends the run: these report it and ask for the end */
void kvm_fetch(struct kvm_accel *k); /* the access in progress must be complete */
void kvm_push(struct kvm_accel *k);
/* What KVM was about to deliver becomes struct vcpu's business: c->exc, c->shadow; *vector is an external
 * interrupt that was acknowledged already, or -1. Before the interpreter or the run loop goes on from a
 * fetched state. */
void kvm_adopt_events(struct kvm_accel *k, int *vector);
/* MSRs that the hardware uses, and the TSC: gives KVM what has changed in struct vcpu. */
void kvm_push_msrs(struct kvm_accel *k);
/* Reports a failed ioctl and ends the run with EXIT_INTERNAL. */
void kvm_failed(struct kvm_accel *k, const char *what);

#endif
