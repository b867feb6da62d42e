/* kvm_stats.c - the rows of --stats that the accelerator over /dev/kvm knows. */
#include "vmm/kvm.h"

/* Under KVM's names for the reasons. Those that never happened are left out. */
static const char *const reason_names[KVM_EXIT_REASONS] = {
	[KVM_EXIT_UNKNOWN] = "exits: unknown",
	[KVM_EXIT_EXCEPTION] = "exits: exception",
	[KVM_EXIT_IO] = "exits: I/O",
	[KVM_EXIT_DEBUG] = "exits: debug",
	[KVM_EXIT_HLT] = "exits: HLT",
	[KVM_EXIT_MMIO] = "exits: MMIO",
	[KVM_EXIT_IRQ_WINDOW_OPEN] = "exits: interrupt window",
	[KVM_EXIT_SHUTDOWN] = "exits: shutdown",
	[KVM_EXIT_FAIL_ENTRY] = "exits: entry failed",
	[KVM_EXIT_INTR] = "exits: signal",
	[KVM_EXIT_INTERNAL_ERROR] = "exits: internal error",
	[KVM_EXIT_X86_RDMSR] = "exits: RDMSR",
	[KVM_EXIT_X86_WRMSR] = "exits: WRMSR",
};

unsigned kvm_stat_rows(const struct kvm_accel *k, struct stat_row *rows, unsigned max)
{
	const struct kvm_stats *s = &k->st;
	const struct stat_row all[] = {
		{"kvm", "hardware assist", k->backing.kind != KVM_SOFTWARE},
		{"kvm", "nested paging", k->backing.nested_paging},
		{"kvm", "32-bit paging", k->backing.paging32},
		{"kvm", "entries", s->entries},
		{"kvm", "entries cut short by a signal", s->interrupted},
		{"kvm", "interrupts injected", s->injected},
		{"kvm", "port accesses", s->pio},
		{"kvm", "MMIO accesses", s->mmio},
		{"kvm", "MSR accesses", s->msr},
		{"kvm", "registers fetched", s->fetches},
		{"kvm", "registers pushed", s->pushes},
		{"kvm", "single steps", s->single_steps},
		{"kvm", "interpreted: emulation failures", s->emulation_steps},
		{"kvm", "interpreted: exceptions", s->exception_steps},
		{"kvm", "interpreted: kept from KVM", s->kept_steps},
		{"kvm", "interpreted: paging is on", s->interp_paging},
		{"kvm", "interpreted: not at CPL 0", s->interp_cpl},
		{"kvm", "interpreted: TF or breakpoints", s->interp_debug},
		{"kvm", "interpreted: A20 is off", s->interp_a20},
		{"kvm", "TSC cycles, run", __builtin_ia32_rdtsc() - s->tsc_start},
		{"kvm", "TSC cycles, in KVM", s->tsc_kvm},
		{"kvm", "TSC cycles, interpreter", s->tsc_interp},
		{"kvm", "TSC cycles, halted", s->tsc_halted},
	};
	unsigned n = sizeof all / sizeof all[0];

	for (unsigned i = 0; i < n && i < max; i++)
		rows[i] = all[i];
	for (unsigned i = 0; i < KVM_EXIT_REASONS; i++)
		if (s->exits[i] && n < max)
			rows[n++] = (struct stat_row){
				"kvm", reason_names[i] ? reason_names[i] : "exits: other", s->exits[i]};
	return n < max ? n : max;
}
