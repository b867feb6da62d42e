/* kvm.c - the accelerator over /dev/kvm: opening, the vCPU thread's loop, exits. See kvm.h for the division
 * of labour and Documentation/virt/kvm/api.rst of the Linux kernel for the interface.
 *
 * Attention: vcpu_request sends a kick signal while vcpu_in_guest is set; the handler sets
 * run->immediate_exit, so that a signal which arrives just before KVM_RUN is not lost.
 *
 * Interrupts: the controllers are ours. If KVM would take one now (may_inject) it is acknowledged and handed
 * over with KVM_INTERRUPT; if not, KVM is asked for an exit as soon as it would (request_interrupt_window).
 */
#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEVICE		  "/dev/kvm"
#define MAX_CPUID	  64u
#define MAX_SUPPORTED	  256u
#define IDENTITY_MAP_ADDR 0xfffbc000ull /* pages that VT-x needs for real mode; above any RAM of ours */
#define TSS_ADDR	  0xfffbd000ul
#define VIDEO_HOLE	  0xa0000ull
#define VIDEO_HOLE_END	  0xc0000ull
#define INTERP_BURST	  10000u

static struct kvm_accel *the_kvm; /* the one vCPU of this process */

/* ------------------------------------------------------------------ the loop: state */

static void handle_exit(struct kvm_accel *k);

static int run(struct kvm_accel *k)
{
	int rc = ioctl(k->cpu_fd, KVM_RUN, 0);

	k->synced = k->completing = false;
	k->may_inject = k->run->ready_for_interrupt_injection && k->run->if_flag;
	if (rc < 0 && errno != EINTR && errno != EAGAIN)
		kvm_failed(k, "KVM_RUN");
	return rc;
}

/* Has KVM finish the access of the last exit, which may lead to further ones, without running any code. */
static void complete(struct kvm_accel *k)
{
	while (k->completing) {
		k->run->immediate_exit = 1;
		if (run(k) == 0)
			handle_exit(k);
	}
}

static void deliver(struct kvm_accel *k, int vector)
{
	k->c->halted = false;
	if (interp_deliver_interrupt(k->c, (uint8_t)vector) < 0)
		run_triple_fault(k->m);
}

/* struct vcpu is what counts from here on, until kvm_push. */
static void take_over(struct kvm_accel *k)
{
	int vector;

	complete(k);
	kvm_fetch(k);
	if (k->dirty)
		return;
	k->dirty = true;
	kvm_adopt_events(k, &vector);
	if (vector >= 0)
		deliver(k, vector);
}

static void interpret_one(struct kvm_accel *k)
{
	take_over(k);
	if (interp_step(k->c) < 0)
		run_triple_fault(k->m);
}

/* ------------------------------------------------------------------ exits */

static void exit_io(struct kvm_accel *k)
{
	const struct kvm_run *r = k->run;
	uint8_t *p = (uint8_t *)k->run + r->io.data_offset;
	unsigned size = r->io.size;

	for (uint32_t i = 0; i < r->io.count; i++, p += size) {
		uint32_t v = 0;
		if (r->io.direction == KVM_EXIT_IO_IN) {
			v = pio_read(k->m, r->io.port, size);
			memcpy(p, &v, size);
		} else {
			memcpy(&v, p, size);
			pio_write(k->m, r->io.port, v, size);
		}
	}
	k->st.pio += r->io.count;
	k->completing = true;
}

static void exit_mmio(struct kvm_accel *k)
{
	struct kvm_run *r = k->run;

	if (r->mmio.is_write)
		mem_phys_write(k->m->mem, r->mmio.phys_addr, r->mmio.data, r->mmio.len);
	else
		mem_phys_read(k->m->mem, r->mmio.phys_addr, r->mmio.data, r->mmio.len);
	k->st.mmio++;
	k->completing = true;
}

static void exit_msr(struct kvm_accel *k, bool write)
{
	struct kvm_run *r = k->run;
	uint64_t v = r->msr.data;
	int rc = write ? msr_write(k->c, r->msr.index, v) : msr_read(k->c, r->msr.index, &v);

	r->msr.error = rc < 0;
	r->msr.data = v;
	k->c->exc.pending = false; /* KVM raises the #GP */
	kvm_push_msrs(k);
	k->st.msr++;
	k->completing = true;
}

static void log_emulation_failure(struct kvm_accel *k)
{
	const struct vcpu *c = k->c;
	uint32_t lin = c->seg[CS].base + c->eip;
	uint8_t b[8] = {0};
	struct walk w;

	if (mem_walk(k->c, lin, ACC_READ | ACC_PEEK, &w) == 0)
		mem_phys_read(c->mem, w.gpa, b, sizeof b);
	log_printf(LOG_UNIMP, "kvm: emulation failed at %04x:%08x: %02x %02x %02x %02x %02x %02x %02x %02x\n",
		   c->seg[CS].sel, c->eip, b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]);
}

static void end_run(struct kvm_accel *k, const char *what, uint64_t detail)
{
	kvm_fetch(k);
	fprintf(stderr, "bt86: kvm: %s (%#llx) at %04x:%08x\n", what, (unsigned long long)detail,
		k->c->seg[CS].sel, k->c->eip);
	machine_poweroff(k->m, EXIT_INTERNAL);
}

static void exit_internal_error(struct kvm_accel *k)
{
	if (k->run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
		end_run(k, "internal error of KVM, suberror", k->run->internal.suberror);
		return;
	}
	take_over(k);
	if (log_on(LOG_UNIMP))
		log_emulation_failure(k);
	k->st.emulation_steps++;
	interpret_one(k);
}

/* With the IDT hidden from KVM every exception ends here, the registers still those before the instruction:
 * the interpreter raises it again and delivers it, or finds that the guest is done for. */
static void exit_shutdown(struct kvm_accel *k)
{
	if (k->backing.paging32) {
		kvm_fetch(k);
		run_triple_fault(k->m);
		return;
	}
	k->st.exception_steps++;
	interpret_one(k);
}

static void handle_exit(struct kvm_accel *k)
{
	uint32_t reason = k->run->exit_reason;

	k->st.exits[reason < KVM_EXIT_REASONS ? reason : 0]++;
	switch (reason) {
	case KVM_EXIT_IO:
		exit_io(k);
		break;
	case KVM_EXIT_MMIO:
		exit_mmio(k);
		break;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		exit_msr(k, reason == KVM_EXIT_X86_WRMSR);
		break;
	case KVM_EXIT_HLT:
		k->c->halted = true;
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		exit_internal_error(k);
		break;
	case KVM_EXIT_SHUTDOWN:
		exit_shutdown(k);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		end_run(k, "the CPU refuses the guest's state, reason",
			k->run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_DEBUG: /* a single step */
		k->st.single_steps++;
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR:
		break;
	default:
		end_run(k, "unexpected exit, reason", reason);
		break;
	}
}

/* ------------------------------------------------------------------ a KVM without 32-bit paging */

/* The linear address of the next instruction, and whether it runs outside CPL 0. */
static uint32_t next_address(struct kvm_accel *k, bool *outside)
{
	const struct kvm_sregs *s = &k->run->s.regs.sregs;

	if (!k->synced && k->have_sync_regs) {
		*outside = s->cr0 & CR0_PE && (s->ss.dpl || k->run->s.regs.regs.rflags & FL_VM);
		return (uint32_t)(s->cs.base + k->run->s.regs.regs.rip);
	}
	complete(k);
	kvm_fetch(k);
	*outside = k->c->cpl != 0;
	return k->c->seg[CS].base + k->c->eip;
}

static bool is_prefix(uint8_t b)
{
	return b == 0x66 || b == 0x67 || b == 0xf0 || b == 0xf2 || b == 0xf3 || b == 0x26 || b == 0x2e ||
	       b == 0x36 || b == 0x3e || b == 0x64 || b == 0x65;
}

/* The second byte of an instruction that begins with 0F, and its ModRM byte. */
static bool keep_two_byte(uint8_t op, uint8_t modrm)
{
	unsigned reg = modrm >> 3 & 7;

	switch (op) {
	case 0x01: /* SIDT, LIDT, LMSW */
		return reg == 1 || reg == 3 || reg == 6;
	case 0x22: /* MOV to CR0 */
		return reg == 0;
	case 0x21: /* MOV from a debug register: DR7.GD */
	case 0x23: /* MOV to one */
	case 0x31: /* RDTSC: kvm-pvm's is the host's, whatever offset it is told */
		return true;
	default:
		return false;
	}
}

/* The next instruction is one that would go wrong without notice (kvm.h). */
static bool keep_from_kvm(struct kvm_accel *k)
{
	bool outside;
	uint32_t at = next_address(k, &outside);
	uint8_t b[4];

	if (outside)
		return true;
	mem_phys_read(k->m->mem, at, b, 1);
	for (unsigned n = 0; is_prefix(b[0]) && n < 14; n++)
		mem_phys_read(k->m->mem, ++at, b, 1);
	if (b[0] != 0x0f)
		return b[0] == 0x9d || b[0] == 0xcd; /* POPF, INT n */
	mem_phys_read(k->m->mem, at + 1, b, 2);
	return keep_two_byte(b[0], b[1]);
}

/* Where the interpreter's instructions are counted while it has to run, or NULL. */
static uint64_t *interpreted(struct kvm_accel *k)
{
	const struct vcpu *c = k->c;

	if (c->a20_mask != ~0u)
		return &k->st.interp_a20;
	if (k->backing.paging32 || !k->synced)
		return NULL;
	if (cpu_paging(c))
		return &k->st.interp_paging;
	if (c->cpl != 0)
		return &k->st.interp_cpl;
	return c->sysflags & FL_TF || c->dr[7] & 0xff ? &k->st.interp_debug : NULL;
}

static void interpret(struct kvm_accel *k, uint64_t *count)
{
	struct vcpu *c = k->c;
	uint64_t t0 = __builtin_ia32_rdtsc(), before = c->n_interp;

	take_over(k);
	run_events(k->m);
	if (!c->halted && !c->exc.pending && interp_run(c, INTERP_BURST, false) < 0)
		run_triple_fault(k->m);
	*count += c->n_interp - before;
	k->st.tsc_interp += __builtin_ia32_rdtsc() - t0;
}

/* ------------------------------------------------------------------ the loop */

/* Has the CPU take an interrupt, if one is there and it would. True if it was the interpreter that delivered
 * it. */
static bool inject(struct kvm_accel *k)
{
	const struct vcpu *c = k->c;
	bool ready = k->dirty ? c->iflag && !c->shadow : k->may_inject;
	struct kvm_interrupt irq;

	if (!(atomic_load(&c->request) & REQ_IRQ) || !ready)
		return false;
	if (!k->backing.paging32) {
		take_over(k);
		run_events(k->m);
		return true;
	}
	kvm_push(k);
	int vector = intr_ack(k->m);
	if (vector < 0)
		return false;
	irq.irq = (uint32_t)vector;
	k->may_inject = k->c->halted = false;
	k->st.injected++;
	if (ioctl(k->cpu_fd, KVM_INTERRUPT, &irq) < 0)
		kvm_failed(k, "KVM_INTERRUPT");
	return false;
}

static void enter(struct kvm_accel *k)
{
	struct machine *m = k->m;
	struct vcpu *c = k->c;

	if (k->dirty && c->exc.pending) {
		run_events(m);
		return;
	}
	if (inject(k))
		return;
	if (!k->backing.paging32 && keep_from_kvm(k)) {
		k->st.kept_steps++;
		interpret_one(k);
		return;
	}
	kvm_push(k);
	kvm_push_msrs(k);
	k->run->request_interrupt_window = !!(atomic_load(&c->request) & REQ_IRQ);
	k->run->immediate_exit = 0;
	atomic_store(&m->vcpu_in_guest, true);
	uint32_t rq = atomic_load(&c->request);
	if (rq & ~REQ_IRQ || (rq & REQ_IRQ && !k->run->request_interrupt_window)) {
		atomic_store(&m->vcpu_in_guest, false);
		return;
	}
	uint64_t t0 = __builtin_ia32_rdtsc();
	int rc = run(k);
	atomic_store(&m->vcpu_in_guest, false);
	k->st.tsc_kvm += __builtin_ia32_rdtsc() - t0;
	k->st.entries++;
	if (rc == 0)
		handle_exit(k);
	else
		k->st.interrupted++;
}

static void wait_halted(struct kvm_accel *k)
{
	struct vcpu *c = k->c;
	uint64_t t0 = __builtin_ia32_rdtsc();

	if (!k->synced)
		c->iflag = k->run->if_flag ? FL_IF : 0;
	vcpu_wait(k->m);
	k->st.tsc_halted += __builtin_ia32_rdtsc() - t0;
	if (!(atomic_load(&c->request) & REQ_IRQ) || !c->iflag)
		return;
	if (!interpreted(k))
		inject(k);
	if (c->halted) {
		take_over(k);
		run_events(k->m);
	}
}

static bool requests(struct kvm_accel *k)
{
	if (atomic_load(&k->c->request) & ~REQ_IRQ)
		take_over(k);
	return run_requests(k->m);
}

static void on_kick(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	clock_kicked(the_kvm->m, si);
	the_kvm->run->immediate_exit = 1;
}

void kvm_loop(struct machine *m)
{
	struct kvm_accel *k = m->kvm;
	struct sigaction sa = {.sa_sigaction = on_kick, .sa_flags = SA_SIGINFO};

	the_kvm = k;
	sigaction(VCPU_KICK_SIG, &sa, NULL);
	k->st.tsc_start = __builtin_ia32_rdtsc();
	k->synced = k->dirty = true;
	while (requests(k)) {
		uint64_t *count = interpreted(k);
		if (k->c->halted)
			wait_halted(k);
		else if (count)
			interpret(k, count);
		else
			enter(k);
	}
}

/* ------------------------------------------------------------------ opening */

static int has(const struct kvm_accel *k, long capability)
{
	int n = ioctl(k->kvm_fd, KVM_CHECK_EXTENSION, capability);

	return n > 0 ? n : 0;
}

static int open_vcpu(struct kvm_accel *k, char *err, size_t errlen)
{
	k->kvm_fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (k->kvm_fd < 0) {
		snprintf(err, errlen, "%s: %s", DEVICE, strerror(errno));
		return -1;
	}
	int version = ioctl(k->kvm_fd, KVM_GET_API_VERSION, 0);
	if (version < 0) {
		snprintf(err, errlen, "%s is not KVM: %s", DEVICE, strerror(errno));
		return -1;
	}
	if (version != KVM_API_VERSION) {
		snprintf(err, errlen, "%s has API version %d, not %d", DEVICE, version, KVM_API_VERSION);
		return -1;
	}
	if (!has(k, KVM_CAP_X86_USER_SPACE_MSR) || !has(k, KVM_CAP_X86_MSR_FILTER) ||
	    !has(k, KVM_CAP_IMMEDIATE_EXIT)) {
		snprintf(err, errlen, "this KVM cannot leave MSRs to user space (Linux 5.10 can)");
		return -1;
	}
	k->vm_fd = ioctl(k->kvm_fd, KVM_CREATE_VM, 0);
	if (k->vm_fd < 0) {
		snprintf(err, errlen, "KVM_CREATE_VM: %s", strerror(errno));
		return -1;
	}
	/* Only VT-x wants these, and before the vCPU. */
	const uint64_t identity = IDENTITY_MAP_ADDR;
	if (ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
	    ioctl(k->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDR) < 0) {
		snprintf(err, errlen, "KVM_SET_TSS_ADDR: %s", strerror(errno));
		return -1;
	}
	k->cpu_fd = ioctl(k->vm_fd, KVM_CREATE_VCPU, 0);
	if (k->cpu_fd < 0) {
		snprintf(err, errlen, "KVM_CREATE_VCPU: %s", strerror(errno));
		return -1;
	}
	return 0;
}

/* Whether CR0.PG without long mode is kept. What cannot do it says so here, by leaving the bit clear or
 * refusing. */
static bool try_paging32(struct kvm_accel *k)
{
	struct kvm_sregs s, before;

	if (ioctl(k->cpu_fd, KVM_GET_SREGS, &before) < 0)
		return false;
	s = before;
	s.cr0 |= CR0_PE | CR0_PG;
	bool kept = ioctl(k->cpu_fd, KVM_SET_SREGS, &s) >= 0 && ioctl(k->cpu_fd, KVM_GET_SREGS, &s) >= 0 &&
		    s.cr0 & CR0_PG;
	ioctl(k->cpu_fd, KVM_SET_SREGS, &before);
	return kept;
}

static void close_all(struct kvm_accel *k)
{
	const int fds[] = {k->cpu_fd, k->vm_fd, k->kvm_fd};

	for (unsigned i = 0; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* Finds out what is there. The trial takes a VM of its own: kvm-pvm's is spoilt by it. */
static int probe(struct kvm_backing *b, char *err, size_t errlen)
{
	struct kvm_accel trial = {.kvm_fd = -1, .vm_fd = -1, .cpu_fd = -1};
	int rc = open_vcpu(&trial, err, errlen);

	if (rc == 0) {
		kvm_backing_detect(b, "");
		b->paging32 = try_paging32(&trial);
	}
	close_all(&trial);
	return rc;
}

bool kvm_describe(char *text, size_t len)
{
	struct kvm_backing b;

	if (probe(&b, text, len) < 0)
		return false;
	kvm_backing_describe(&b, text, len);
	return true;
}

/* ------------------------------------------------------------------ a VM with the machine's memory and
 * identity */

static int add_ram(struct kvm_accel *k, uint32_t slot, uint64_t first, uint64_t end)
{
	struct kvm_userspace_memory_region r = {.slot = slot, .guest_phys_addr = first};
	uint64_t ram = mem_ram_bytes(k->m->mem);

	if (end > ram)
		end = ram;
	if (first >= end)
		return 0;
	r.memory_size = end - first;
	r.userspace_addr = (uint64_t)(uintptr_t)mem_ptr(k->m->mem, first, r.memory_size);
	return ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &r);
}

/* Every MSR is denied, that is: ours. The filter wants a range, which may hold one denied MSR. */
static int take_msrs(struct kvm_accel *k)
{
	static uint8_t none[1];
	struct kvm_msr_filter f = {.flags = KVM_MSR_FILTER_DEFAULT_DENY,
				   .ranges[0] = {.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
						 .nmsrs = 8,
						 .base = 0,
						 .bitmap = none}};
	struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
				     .args[0] = KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
						KVM_MSR_EXIT_REASON_FILTER};

	if (ioctl(k->vm_fd, KVM_ENABLE_CAP, &cap) < 0)
		return -1;
	return ioctl(k->vm_fd, KVM_X86_SET_MSR_FILTER, &f);
}

/* The model offers no more than KVM does. */
static int restrict_cpuid(struct kvm_accel *k)
{
	struct kvm_cpuid2 *s = calloc(1, sizeof *s + MAX_SUPPORTED * sizeof s->entries[0]);
	uint32_t ecx1 = 0, edx1 = 0, ebx7 = 0, edx81 = 0;

	if (!s)
		return -1;
	s->nent = MAX_SUPPORTED;
	int rc = ioctl(k->kvm_fd, KVM_GET_SUPPORTED_CPUID, s);
	for (uint32_t i = 0; rc == 0 && i < s->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &s->entries[i];
		if (e->function == 1) {
			ecx1 = e->ecx;
			edx1 = e->edx;
		} else if (e->function == 7 && e->index == 0) {
			ebx7 = e->ebx;
		} else if (e->function == 0x80000001) {
			edx81 = e->edx;
		}
	}
	free(s);
	if (rc == 0)
		cpuid_restrict(ecx1, edx1, ebx7, edx81);
	return rc;
}

static void add_leaf(struct kvm_accel *k, struct kvm_cpuid2 *list, uint32_t leaf, uint32_t subleaf,
		     bool indexed)
{
	struct kvm_cpuid_entry2 *e = &list->entries[list->nent++];
	uint32_t out[4];

	cpuid_query(k->c, leaf, subleaf, out);
	if (leaf == 0x80000008) /* KVM takes no 32-bit linear addresses */
		out[0] = (out[0] & ~0xff00u) | 48u << 8;
	*e = (struct kvm_cpuid_entry2){.function = leaf,
				       .index = subleaf,
				       .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
				       .eax = out[0],
				       .ebx = out[1],
				       .ecx = out[2],
				       .edx = out[3]};
}

static int set_cpuid(struct kvm_accel *k)
{
	struct kvm_cpuid2 *list = calloc(1, sizeof *list + MAX_CPUID * sizeof list->entries[0]);
	static const uint32_t hypervisor[] = {0x40000000, 0x40000010, 0x40000100};
	uint32_t out[4];

	if (!list)
		return -1;
	cpuid_query(k->c, 0, 0, out);
	for (uint32_t leaf = 0; leaf <= out[0]; leaf++) {
		unsigned subleaves = leaf == 4 ? 4 : 1;
		for (uint32_t i = 0; i < subleaves; i++)
			add_leaf(k, list, leaf, i, leaf == 4 || leaf == 7);
	}
	for (unsigned i = 0; i < 3; i++)
		add_leaf(k, list, hypervisor[i], 0, false);
	cpuid_query(k->c, 0x80000000, 0, out);
	for (uint32_t leaf = 0x80000000; leaf <= out[0]; leaf++)
		add_leaf(k, list, leaf, 0, false);
	int rc = ioctl(k->cpu_fd, KVM_SET_CPUID2, list);
	free(list);
	return rc;
}

static int map_run(struct kvm_accel *k)
{
	int n = ioctl(k->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (n < (int)sizeof *k->run)
		return -1;
	k->run_bytes = (size_t)n;
	k->run = mmap(NULL, k->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, k->cpu_fd, 0);
	if (k->run == MAP_FAILED)
		k->run = NULL;
	return k->run ? 0 : -1;
}

/* After an instruction that it cannot emulate, KVM says so instead of raising #UD (Linux 5.14; before, only
 * at CPL 0). */
static void want_emulation_failures(struct kvm_accel *k)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args[0] = 1};

	if (has(k, KVM_CAP_EXIT_ON_EMULATION_FAILURE))
		ioctl(k->vm_fd, KVM_ENABLE_CAP, &cap);
}

static int want_single_steps(struct kvm_accel *k)
{
	struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};

	if (k->backing.paging32)
		return 0;
	if (k->have_sync_regs)
		k->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	return ioctl(k->cpu_fd, KVM_SET_GUEST_DEBUG, &d);
}

static void note_capabilities(struct kvm_accel *k)
{
	const int sync = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	struct kvm_device_attr tsc = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET};

	k->have_sregs2 = has(k, KVM_CAP_SREGS2);
	k->have_xsave = has(k, KVM_CAP_XSAVE);
	k->have_sync_regs = (has(k, KVM_CAP_SYNC_REGS) & sync) == sync;
	k->have_tsc_offset = ioctl(k->cpu_fd, KVM_HAS_DEVICE_ATTR, &tsc) == 0;
}

struct kvm_accel *kvm_create(struct machine *m, char *err, size_t errlen)
{
	struct kvm_accel *k = calloc(1, sizeof *k);
	const char *what = NULL;

	if (!k) {
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	k->m = m;
	k->c = &m->vcpu;
	k->kvm_fd = k->vm_fd = k->cpu_fd = -1;
	if (probe(&k->backing, err, errlen) < 0 || open_vcpu(k, err, errlen) < 0)
		goto fail;
	note_capabilities(k);
	want_emulation_failures(k);
	k->tsc_offset = ~m->vcpu.tsc_offset; /* not set yet */
	if (map_run(k) < 0)
		what = "mapping the vCPU";
	else if (add_ram(k, 0, 0, VIDEO_HOLE) < 0 || add_ram(k, 1, VIDEO_HOLE_END, UINT64_MAX) < 0)
		what = "giving KVM the guest's memory";
	else if (take_msrs(k) < 0)
		what = "filtering MSRs";
	else if (restrict_cpuid(k) < 0 || set_cpuid(k) < 0)
		what = "setting CPUID";
	else if (want_single_steps(k) < 0)
		what = "single-stepping";
	if (!what)
		return k;
	snprintf(err, errlen, "%s: %s", what, strerror(errno));
fail:
	kvm_destroy(k);
	return NULL;
}

void kvm_destroy(struct kvm_accel *k)
{
	if (!k)
		return;
	if (k->run)
		munmap(k->run, k->run_bytes);
	close_all(k);
	free(k);
}

struct sandbox_extra kvm_sandbox(const struct kvm_accel *k)
{
	static const unsigned long requests_made[] = {
		KVM_RUN,	   KVM_INTERRUPT,      KVM_GET_REGS,	    KVM_SET_REGS,
		KVM_GET_SREGS,	   KVM_SET_SREGS,      KVM_GET_SREGS2,	    KVM_SET_SREGS2,
		KVM_GET_FPU,	   KVM_SET_FPU,	       KVM_GET_XSAVE,	    KVM_SET_XSAVE,
		KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS,  KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
		KVM_SET_MSRS,	   KVM_SET_DEVICE_ATTR};

	return (struct sandbox_extra){.fd = k->cpu_fd,
				      .requests = requests_made,
				      .n = sizeof requests_made / sizeof requests_made[0]};
}
