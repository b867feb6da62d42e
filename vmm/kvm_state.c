/* kvm_state.c - the CPU's registers between struct vcpu and KVM. */
#include "vmm/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define XSAVE_XMM_AREA	160u
#define XSAVE_XMM_BYTES 256u
#define XSAVE_HEADER_BV 512u
#define XSTATE_X87	1u
#define XSTATE_SSE	2u

void kvm_failed(struct kvm_accel *k, const char *what)
{
	fprintf(stderr, "bt86: kvm: %s: %s\n", what, strerror(errno));
	machine_poweroff(k->m, EXIT_INTERNAL);
}

static bool call(struct kvm_accel *k, unsigned long request, void *arg, const char *name)
{
	if (ioctl(k->cpu_fd, request, arg) >= 0)
		return true;
	kvm_failed(k, name);
	return false;
}

/* ------------------------------------------------------------------ segments */

static struct seg seg_from_kvm(const struct kvm_segment *s)
{
	struct seg r = {.sel = s->selector, .base = (uint32_t)s->base, .limit = s->limit};

	r.attr = (uint16_t)((s->type & 0xfu) | (s->s ? SEG_S : 0) | (s->dpl & 3u) << 5 |
			    (s->avl ? SEG_AVL : 0) | (s->db ? SEG_DB : 0) | (s->g ? SEG_G : 0));
	if (s->present && !s->unusable)
		r.attr |= SEG_P;
	return r;
}

/* VT-x wants G to agree with the limit (SDM vol. 3C 26.3.1.2). */
static struct kvm_segment seg_to_kvm(const struct seg *s)
{
	bool present = s->attr & SEG_P;
	struct kvm_segment r = {.base = s->base,
				.limit = s->limit,
				.selector = s->sel,
				.type = s->attr & SEG_TYPE,
				.present = present,
				.dpl = SEG_DPL_OF(s->attr),
				.db = !!(s->attr & SEG_DB),
				.s = !!(s->attr & SEG_S),
				.g = !!(s->attr & SEG_G),
				.avl = !!(s->attr & SEG_AVL),
				.unusable = !present};

	if (s->limit >> 20)
		r.g = 1;
	else if ((s->limit & 0xfffu) != 0xfffu)
		r.g = 0;
	return r;
}

/* ------------------------------------------------------------------ from KVM */

static void take_sregs(struct vcpu *c, const struct kvm_sregs2 *s)
{
	const struct kvm_segment *const segs[6] = {
		[ES] = &s->es, [CS] = &s->cs, [SS] = &s->ss, [DS] = &s->ds, [FS] = &s->fs, [GS] = &s->gs};

	for (unsigned i = 0; i < 6; i++)
		c->seg[i] = seg_from_kvm(segs[i]);
	c->ldtr = seg_from_kvm(&s->ldt);
	c->tr = seg_from_kvm(&s->tr);
	c->gdtr = (struct table_reg){(uint32_t)s->gdt.base, s->gdt.limit};
	c->cr0 = (uint32_t)s->cr0;
	c->cr2 = (uint32_t)s->cr2;
	c->cr3 = (uint32_t)s->cr3;
	c->cr4 = (uint32_t)s->cr4;
	c->cpl = !cpu_protected(c) ? 0 : cpu_v86(c) ? 3 : s->ss.dpl;
}

/* SREGS2 has the PDPTEs that the CPU holds; without it, those that CR3 points to. */
static void take_pdptes(struct kvm_accel *k, const struct kvm_sregs2 *s)
{
	struct vcpu *c = k->c;

	if (!cpu_paging(c) || !(c->cr4 & CR4_PAE))
		return;
	if (k->have_sregs2 && s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
		memcpy(c->pdpte, s->pdptrs, sizeof c->pdpte);
	else
		mem_phys_read(c->mem, c->cr3 & ~0x1fu, c->pdpte, sizeof c->pdpte);
}

static bool fetch_sregs(struct kvm_accel *k)
{
	struct kvm_sregs2 s = {0};

	/* struct kvm_sregs begins like its successor and has the interrupt bitmap behind apic_base. */
	if (k->have_sregs2) {
		if (!call(k, KVM_GET_SREGS2, &s, "KVM_GET_SREGS2"))
			return false;
	} else {
		struct kvm_sregs old;
		if (!call(k, KVM_GET_SREGS, &old, "KVM_GET_SREGS"))
			return false;
		memcpy(&s, &old, offsetof(struct kvm_sregs, interrupt_bitmap));
	}
	take_sregs(k->c, &s);
	if (k->backing.paging32)
		k->c->idtr = (struct table_reg){(uint32_t)s.idt.base, s.idt.limit};
	take_pdptes(k, &s);
	return true;
}

static void take_regs(struct vcpu *c, const struct kvm_regs *r)
{
	const uint64_t gpr[8] = {[EAX] = r->rax, [ECX] = r->rcx, [EDX] = r->rdx, [EBX] = r->rbx,
				 [ESP] = r->rsp, [EBP] = r->rbp, [ESI] = r->rsi, [EDI] = r->rdi};

	for (unsigned i = 0; i < 8; i++)
		c->gpr[i] = (uint32_t)gpr[i];
	c->eip = (uint32_t)r->rip;
	cpu_set_eflags(c, (uint32_t)r->rflags);
}

/* A component that is in its initial state may be left out of the image. */
static void take_xsave(struct vcpu *c, const struct kvm_xsave *x)
{
	const uint8_t *image = (const uint8_t *)x->region;
	uint64_t present;

	memcpy(&present, image + XSAVE_HEADER_BV, sizeof present);
	memcpy(c->fpu.fxsave, image, sizeof c->fpu.fxsave);
	if (!(present & XSTATE_X87)) {
		memset(c->fpu.fxsave, 0, 24);
		memset(c->fpu.fxsave + 32, 0, XSAVE_XMM_AREA - 32);
		c->fpu.fxsave[0] = 0x7f; /* FCW 037f */
		c->fpu.fxsave[1] = 0x03;
	}
	if (!(present & XSTATE_SSE))
		memset(c->fpu.fxsave + XSAVE_XMM_AREA, 0, XSAVE_XMM_BYTES);
}

static void take_fpu(struct vcpu *c, const struct kvm_fpu *f)
{
	uint8_t *fx = c->fpu.fxsave;

	memcpy(fx, &f->fcw, 2);
	memcpy(fx + 2, &f->fsw, 2);
	fx[4] = f->ftwx;
	memcpy(fx + 6, &f->last_opcode, 2);
	memcpy(fx + 8, &f->last_ip, 8);
	memcpy(fx + 16, &f->last_dp, 8);
	memcpy(fx + 24, &f->mxcsr, 4);
	memcpy(fx + 32, f->fpr, sizeof f->fpr);
	memcpy(fx + XSAVE_XMM_AREA, f->xmm, sizeof f->xmm);
}

static bool fetch_fpu(struct kvm_accel *k)
{
	if (k->have_xsave) {
		struct kvm_xsave x;
		if (!call(k, KVM_GET_XSAVE, &x, "KVM_GET_XSAVE"))
			return false;
		take_xsave(k->c, &x);
	} else {
		struct kvm_fpu f;
		if (!call(k, KVM_GET_FPU, &f, "KVM_GET_FPU"))
			return false;
		take_fpu(k->c, &f);
	}
	return true;
}

static bool fetch_debugregs(struct kvm_accel *k)
{
	struct kvm_debugregs d;

	if (!call(k, KVM_GET_DEBUGREGS, &d, "KVM_GET_DEBUGREGS"))
		return false;
	for (unsigned i = 0; i < 4; i++)
		k->c->dr[i] = (uint32_t)d.db[i];
	k->c->dr[6] = (uint32_t)d.dr6;
	k->c->dr[7] = (uint32_t)d.dr7;
	return true;
}

void kvm_fetch(struct kvm_accel *k)
{
	struct kvm_regs r;

	if (k->synced)
		return;
	k->st.fetches++;
	k->synced = true;
	if (!call(k, KVM_GET_REGS, &r, "KVM_GET_REGS"))
		return;
	take_regs(k->c, &r);
	if (fetch_sregs(k) && fetch_fpu(k))
		fetch_debugregs(k);
	mem_mode_changed(k->c); /* whatever the software TLB knew is old */
}

void kvm_adopt_events(struct kvm_accel *k, int *vector)
{
	struct vcpu *c = k->c;
	struct kvm_vcpu_events e;

	*vector = -1;
	if (!call(k, KVM_GET_VCPU_EVENTS, &e, "KVM_GET_VCPU_EVENTS"))
		return;
	c->shadow = e.interrupt.shadow ? 1 : 0;
	/* INT3, INTO and INT n have not been left behind by EIP: executing them again delivers them. */
	bool soft = e.exception.nr == VEC_BP || e.exception.nr == VEC_OF;
	if ((e.exception.injected || e.exception.pending) && !soft) {
		c->exc = (struct exception){.pending = true,
					    .has_error = e.exception.has_error_code,
					    .vector = e.exception.nr,
					    .error = e.exception.error_code,
					    .cr2 = c->cr2};
	} else if (e.interrupt.injected && !e.interrupt.soft) {
		*vector = e.interrupt.nr;
	} else if (e.nmi.injected || e.nmi.pending) {
		*vector = VEC_NMI;
	}
}

/* ------------------------------------------------------------------ to KVM */

static bool push_regs(struct kvm_accel *k)
{
	const struct vcpu *c = k->c;
	struct kvm_regs r = {.rax = c->gpr[EAX],
			     .rbx = c->gpr[EBX],
			     .rcx = c->gpr[ECX],
			     .rdx = c->gpr[EDX],
			     .rsi = c->gpr[ESI],
			     .rdi = c->gpr[EDI],
			     .rsp = c->gpr[ESP],
			     .rbp = c->gpr[EBP],
			     .rip = c->eip,
			     .rflags = cpu_eflags(c)};

	return call(k, KVM_SET_REGS, &r, "KVM_SET_REGS");
}

static bool push_sregs(struct kvm_accel *k)
{
	const struct vcpu *c = k->c;
	struct kvm_sregs2 s = {.es = seg_to_kvm(&c->seg[ES]),
			       .cs = seg_to_kvm(&c->seg[CS]),
			       .ss = seg_to_kvm(&c->seg[SS]),
			       .ds = seg_to_kvm(&c->seg[DS]),
			       .fs = seg_to_kvm(&c->seg[FS]),
			       .gs = seg_to_kvm(&c->seg[GS]),
			       .ldt = seg_to_kvm(&c->ldtr),
			       .tr = seg_to_kvm(&c->tr),
			       .gdt = {.base = c->gdtr.base, .limit = c->gdtr.limit},
			       .idt = {.base = c->idtr.base, .limit = c->idtr.limit},
			       .cr0 = c->cr0,
			       .cr2 = c->cr2,
			       .cr3 = c->cr3,
			       .cr4 = c->cr4,
			       .efer = c->efer,
			       .apic_base = c->apic_base};

	if (!k->backing.paging32)
		s.idt.limit = 0;
	s.ss.dpl = (uint8_t)c->cpl; /* where KVM looks for the CPL */
	k->apic_base = c->apic_base;
	k->efer = c->efer;
	if (k->have_sregs2) {
		if (cpu_paging(c) && c->cr4 & CR4_PAE) {
			s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
			memcpy(s.pdptrs, c->pdpte, sizeof s.pdptrs);
		}
		return call(k, KVM_SET_SREGS2, &s, "KVM_SET_SREGS2");
	}
	struct kvm_sregs old = {0};
	memcpy(&old, &s, offsetof(struct kvm_sregs, interrupt_bitmap));
	return call(k, KVM_SET_SREGS, &old, "KVM_SET_SREGS");
}

static bool push_fpu(struct kvm_accel *k)
{
	const uint8_t *fx = k->c->fpu.fxsave;

	if (k->have_xsave) {
		const uint64_t present = XSTATE_X87 | XSTATE_SSE;
		struct kvm_xsave x = {0};
		memcpy(x.region, fx, 464); /* what is behind belongs to the system (SDM vol. 1 13.4.1) */
		memset((uint8_t *)x.region + 28, 0, 4);
		memcpy((uint8_t *)x.region + XSAVE_HEADER_BV, &present, sizeof present);
		return call(k, KVM_SET_XSAVE, &x, "KVM_SET_XSAVE");
	}
	struct kvm_fpu f = {.ftwx = fx[4]};
	memcpy(&f.fcw, fx, 2);
	memcpy(&f.fsw, fx + 2, 2);
	memcpy(&f.last_opcode, fx + 6, 2);
	memcpy(&f.last_ip, fx + 8, 8);
	memcpy(&f.last_dp, fx + 16, 8);
	memcpy(&f.mxcsr, fx + 24, 4);
	memcpy(f.fpr, fx + 32, sizeof f.fpr);
	memcpy(f.xmm, fx + XSAVE_XMM_AREA, sizeof f.xmm);
	return call(k, KVM_SET_FPU, &f, "KVM_SET_FPU");
}

static bool push_debugregs(struct kvm_accel *k)
{
	const uint32_t *dr = k->c->dr;
	struct kvm_debugregs d = {.db = {dr[0], dr[1], dr[2], dr[3]}, .dr6 = dr[6], .dr7 = dr[7]};

	return call(k, KVM_SET_DEBUGREGS, &d, "KVM_SET_DEBUGREGS");
}

/* Nothing on its way but the interrupt shadow: the run loop delivers before it pushes. */
static bool push_events(struct kvm_accel *k)
{
	struct kvm_vcpu_events e = {.flags = KVM_VCPUEVENT_VALID_SHADOW};

	e.interrupt.shadow = k->c->shadow ? KVM_X86_SHADOW_INT_STI : 0;
	return call(k, KVM_SET_VCPU_EVENTS, &e, "KVM_SET_VCPU_EVENTS");
}

static bool set_msr(struct kvm_accel *k, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[1];
	} msrs = {.head.nmsrs = 1, .entry = {{.index = index, .data = value}}};

	return ioctl(k->cpu_fd, KVM_SET_MSRS, &msrs) == 1;
}

static void push_tsc(struct kvm_accel *k)
{
	uint64_t offset = k->c->tsc_offset;
	struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL,
				       .attr = KVM_VCPU_TSC_OFFSET,
				       .addr = (uint64_t)(uintptr_t)&offset};

	if (k->tsc_offset == offset)
		return;
	k->tsc_offset = offset;
	if (k->have_tsc_offset) {
		if (ioctl(k->cpu_fd, KVM_SET_DEVICE_ATTR, &attr) < 0)
			kvm_failed(k, "setting the TSC's offset");
	} else if (!set_msr(k, MSR_TSC, __builtin_ia32_rdtsc() + offset)) {
		kvm_failed(k, "setting the TSC");
	}
}

void kvm_push_msrs(struct kvm_accel *k)
{
	const struct vcpu *c = k->c;
	const struct {
		uint32_t index;
		uint64_t *known, now;
	} rows[] = {
		{MSR_SYSENTER_CS, &k->sysenter[0], c->sysenter_cs},
		{MSR_SYSENTER_ESP, &k->sysenter[1], c->sysenter_esp},
		{MSR_SYSENTER_EIP, &k->sysenter[2], c->sysenter_eip},
		{MSR_EFER, &k->efer, c->efer},
		{MSR_APIC_BASE, &k->apic_base, c->apic_base},
	};

	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		if (*rows[i].known == rows[i].now)
			continue;
		*rows[i].known = rows[i].now;
		if (!set_msr(k, rows[i].index, rows[i].now))
			kvm_failed(k, "setting an MSR");
	}
	push_tsc(k);
}

void kvm_push(struct kvm_accel *k)
{
	const struct vcpu *c = k->c;

	if (!k->dirty)
		return;
	k->st.pushes++;
	k->dirty = false;
	if (push_sregs(k) && push_regs(k) && push_fpu(k) && push_debugregs(k))
		push_events(k);
	k->may_inject = c->iflag && !c->shadow;
}
