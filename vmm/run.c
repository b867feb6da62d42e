/* run.c - the vCPU thread: what every accelerator's loop shares, and the loop of -accel interp. */
#include "vmm/bt.h"
#include "vmm/kvm.h"
#include "vmm/interp/hostunit.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

void run_triple_fault(struct machine *m)
{
	log_printf(LOG_CPU, "triple fault at %04x:%08x\n", m->vcpu.seg[CS].sel, m->vcpu.eip);
	m->vcpu.exc.pending = false;
	if (m->cfg.no_reboot) {
		fprintf(stderr, "bt86: the guest triple-faulted (CS:EIP %04x:%08x)\n", m->vcpu.seg[CS].sel,
			m->vcpu.eip);
		machine_poweroff(m, EXIT_TRIPLE_FAULT);
	} else {
		machine_reset_request(m);
	}
}

bool run_requests(struct machine *m)
{
	struct vcpu *c = &m->vcpu;
	uint32_t rq = atomic_load(&c->request);

	if (!(rq & ~REQ_IRQ))
		return true;
	if (rq & REQ_TIMER)
		clock_due(m);
	if (rq & REQ_SHUTDOWN)
		return false;
	if (rq & REQ_RESET) {
		machine_reset_now(m);
		mem_mode_changed(c);
		interp_flush(c);
	}
	if (rq & REQ_STOP)
		vcpu_park(m);
	if (rq & REQ_NMI && c->nmi_blocked) {
		vcpu_request_clear(m, REQ_NMI);
		c->nmi_latched = true;
	} else if (rq & REQ_NMI && !c->shadow && !c->exc.pending) {
		vcpu_request_clear(m, REQ_NMI);
		c->halted = false;
		c->nmi_blocked = m->cfg.accel != ACCEL_KVM; /* whose IRETs go unseen */
		if (interp_deliver_interrupt(c, VEC_NMI) < 0)
			run_triple_fault(m);
	}
	return !(atomic_load(&c->request) & REQ_SHUTDOWN);
}

void run_events(struct machine *m)
{
	struct vcpu *c = &m->vcpu;

	if (c->exc.pending) {
		if (interp_deliver_exception(c) < 0) {
			run_triple_fault(m);
			return;
		}
	}
	if (atomic_load(&c->request) & REQ_IRQ && c->iflag && !c->shadow) {
		int vector = intr_ack(m);
		if (vector >= 0) {
			c->halted = false;
			if (interp_deliver_interrupt(c, (uint8_t)vector) < 0)
				run_triple_fault(m);
		}
	}
}

static void interp_loop(struct machine *m)
{
	struct vcpu *c = &m->vcpu;

	while (run_requests(m)) {
		run_events(m);
		if (c->halted)
			vcpu_wait(m);
		else if (!c->exc.pending && !run_is_over(c) && interp_run(c, 100000, false) < 0)
			run_triple_fault(m);
	}
}

/* ------------------------------------------------------------------ what the memory system asks of us */

static uint64_t ops_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	struct machine *m = opaque;

	return interp_spoil() ? 0 : mmio_read(m, gpa, size);
}

static void ops_mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
	struct machine *m = opaque;

	if (!interp_spoil())
		mmio_write(m, gpa, value, size);
}

static void ops_code_written(void *opaque, uint64_t gpa, unsigned len)
{
	struct machine *m = opaque;

	interp_code_written(&m->vcpu, gpa, len);
	if (m->vcpu.bt)
		bt_code_written(m->vcpu.bt, gpa, len);
}

static void ops_code_unmapped(void *opaque, struct window *w, uint32_t lin, uint32_t pages)
{
	struct machine *m = opaque;

	if (m->vcpu.bt)
		bt_code_unmapped(m->vcpu.bt, w, lin, pages);
}

static void ops_window_gone(void *opaque, struct window *w)
{
	struct machine *m = opaque;

	if (m->vcpu.bt)
		bt_window_gone(m->vcpu.bt, w);
}

static const struct mem_ops ops = {
	.mmio_read = ops_mmio_read,
	.mmio_write = ops_mmio_write,
	.code_written = ops_code_written,
	.code_unmapped = ops_code_unmapped,
	.window_gone = ops_window_gone,
};

/* ------------------------------------------------------------------ the run */

/* FERR# is wired to IRQ 13 on a PC: how CR0.NE = 0 guests hear of x87 exceptions (SDM vol. 1 8.7.2). */
static enum fpu_ferr raise_irq13(struct vcpu *c)
{
	if (interp_spoil())
		return FPU_FERR_WAIT;
	machine_lock(c->machine);
	irq_pulse(c->machine, 13);
	machine_unlock(c->machine);
	return FPU_FERR_WAIT;
}

static struct machine *the_machine;

/* The interpreter looks at the request after each instruction. */
static void on_kick(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	clock_kicked(the_machine, si);
}

static unsigned guest_counters(void *opaque, uint64_t *out, unsigned max)
{
	const struct machine *m = opaque;
	const struct bt *bt = m->vcpu.bt;
	const struct mem_stats *ms = mem_get_stats(m->mem);
	uint64_t calls = 0;

	if (!bt)
		return 0;
	for (unsigned i = 0; i < CO_COUNT; i++)
		calls += bt->st.callouts[i];
	const uint64_t v[] = {bt->k.stats.blocks_made,
			      bt->k.stats.guest_insns,
			      bt->k.stats.chains,
			      calls,
			      bt->st.faults_hidden,
			      bt->st.faults_true,
			      ms->traced_writes + ms->pt_writes,
			      bt->st.adaptations,
			      ms->window_switches};
	const unsigned n = sizeof v / sizeof v[0];
	for (unsigned i = 0; i < n && i < max; i++)
		out[i] = v[i];
	return n;
}

unsigned machine_stats(struct machine *m, struct stat_row *rows, unsigned max)
{
	if (m->kvm)
		return kvm_stat_rows(m->kvm, rows, max);
	return m->vcpu.bt ? bt_stat_rows(m->vcpu.bt, rows, max) : 0;
}

void machine_describe_accel(struct machine *m, char *text, size_t len)
{
	if (m->kvm)
		kvm_backing_describe(&m->kvm->backing, text, len);
	else
		snprintf(text, len, "%s", m->vcpu.bt ? "binary translation" : "interpreter");
}

static void free_bt(struct machine *m)
{
	bt_destroy(m->vcpu.bt);
}

static void free_kvm(struct machine *m)
{
	kvm_destroy(m->kvm);
}

/* What the accelerator needs before the sandbox closes. The interpreter serves all of them. */
static int create_accel(struct machine *m, char *err, size_t errlen)
{
	if (m->cfg.accel == ACCEL_BT) {
		m->vcpu.bt = bt_create(m, err, errlen);
		if (!m->vcpu.bt)
			return -1;
		m->accel_free = free_bt;
	} else if (m->cfg.accel == ACCEL_KVM) {
		m->kvm = kvm_create(m, err, errlen);
		if (!m->kvm)
			return -1;
		m->accel_free = free_kvm;
		machine_describe_accel(m, err, errlen);
		fprintf(stderr, "bt86: kvm: %s\n", err);
	}
	return interp_init(err, errlen);
}

static int enter_sandbox(struct machine *m, char *err, size_t errlen)
{
	struct sandbox_extra extra;

	if (!m->kvm)
		return sandbox_enter(NULL, err, errlen);
	extra = kvm_sandbox(m->kvm);
	return sandbox_enter(&extra, err, errlen);
}

int machine_run(struct machine *m)
{
	struct sigaction kick = {.sa_sigaction = on_kick, .sa_flags = SA_SIGINFO | SA_RESTART};
	struct vcpu *c = &m->vcpu;
	char err[200];

	the_machine = m;
	sigaction(VCPU_KICK_SIG, &kick, NULL);
	prctl(PR_SET_TIMERSLACK, 1ul); /* HLT ends when the guest's timer says so */
	mem_set_ops(m->mem, &ops, m);
	if (create_accel(m, err, sizeof err) < 0) {
		fprintf(stderr, "bt86: %s%s\n", m->cfg.accel == ACCEL_KVM ? "-accel kvm: " : "", err);
		return EXIT_INTERNAL;
	}
	fpu_ferr_hook = raise_irq13;
	cpuid_set_counters(m, guest_counters, m);
	mem_mode_changed(c);
	mem_load_cr3(c);
	m->vcpu_thread = pthread_self();
	atomic_store(&m->vcpu_thread_live, true);
	int rc = evloop_start(m);
	if (rc) {
		fprintf(stderr, "bt86: cannot start the event loop: %s\n", strerror(-rc));
		return EXIT_INTERNAL;
	}
	clock_kick_vcpu(m);
	if (enter_sandbox(m, err, sizeof err) < 0) {
		fprintf(stderr, "bt86: %s\n", err);
		machine_poweroff(m, EXIT_INTERNAL);
	}
	if (m->kvm)
		kvm_loop(m);
	else if (c->bt)
		bt_run(m);
	else
		interp_loop(m);
	clock_kick_no_more(m);
	atomic_store(&m->vcpu_thread_live, false);
	evloop_join(m);
	return machine_exit_status(m);
}
