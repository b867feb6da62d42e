/* Segments, interrupt vectors, exceptions, interrupts, system calls. */
#include "demo.h"
#include "syscall.h"

#define VECTOR_PF	  14
#define VECTOR_IRQ0	  32
#define VECTOR_SYSCALL	  128
#define VECTORS		  48 /* that entry.S has stubs for, besides the system call's */

#define MSR_SYSENTER_CS	  0x174
#define MSR_SYSENTER_ESP  0x175
#define MSR_SYSENTER_EIP  0x176

#define GATE_INTERRUPT_32 0x8e00
#define GATE_DPL3	  0x6000

struct descriptor_register {
	uint16_t limit;
	uint32_t base;
} __attribute__((packed));

/* SDM vol. 3A 7.2.1; only what a 32-bit kernel without hardware task switching needs has a name. */
struct tss {
	uint32_t link, esp0, ss0;
	uint32_t unused[22];
	uint16_t trap, io_map;
};

extern const uint32_t trap_stubs[VECTORS], trap_stub_syscall;

static uint64_t gdt[6];
static uint64_t idt[256];
static struct tss tss;
static uint8_t user_kernel_stack[8192] __attribute__((aligned(16)));
unsigned syscall_count;

static uint64_t segment(uint32_t base, uint32_t limit, uint32_t attributes)
{
	uint32_t low = base << 16 | (limit & 0xffff);
	uint32_t high = (base & 0xff000000) | (limit & 0xf0000) | attributes | (base >> 16 & 0xff);

	return (uint64_t)high << 32 | low;
}

static uint64_t gate(uint32_t offset, uint32_t attributes)
{
	uint32_t low = GDT_KERNEL_CODE << 16 | (offset & 0xffff);
	uint32_t high = (offset & 0xffff0000) | attributes;

	return (uint64_t)high << 32 | low;
}

static void write_msr(uint32_t msr, uint32_t value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"(value), "d"(0));
}

void trap_init(void)
{
	uint32_t stack_top = (uint32_t)(user_kernel_stack + sizeof(user_kernel_stack));
	struct descriptor_register gdtr = {sizeof(gdt) - 1, (uint32_t)gdt};
	struct descriptor_register idtr = {sizeof(idt) - 1, (uint32_t)idt};

	gdt[GDT_KERNEL_CODE / 8] = segment(0, 0xfffff, 0xc09a00);
	gdt[GDT_KERNEL_DATA / 8] = segment(0, 0xfffff, 0xc09200);
	gdt[GDT_USER_CODE / 8] = segment(0, 0xfffff, 0xc0fa00);
	gdt[GDT_USER_DATA / 8] = segment(0, 0xfffff, 0xc0f200);
	gdt[GDT_TSS / 8] = segment((uint32_t)&tss, sizeof(tss) - 1, 0x008900);
	tss.ss0 = GDT_KERNEL_DATA;
	tss.esp0 = stack_top;
	tss.io_map = sizeof(tss);
	segments_load(&gdtr, GDT_TSS);

	for (unsigned i = 0; i < VECTORS; i++)
		idt[i] = gate(trap_stubs[i], GATE_INTERRUPT_32);
	idt[VECTOR_SYSCALL] = gate(trap_stub_syscall, GATE_INTERRUPT_32 | GATE_DPL3);
	__asm__ volatile("lidt %0" : : "m"(idtr));
}

bool trap_sysenter_init(void)
{
	if (!cpu_has_cpuid() || !(cpu_id(1).edx & CPUID_EDX_SEP))
		return false;
	write_msr(MSR_SYSENTER_CS, GDT_KERNEL_CODE);
	write_msr(MSR_SYSENTER_ESP, tss.esp0);
	write_msr(MSR_SYSENTER_EIP, (uint32_t)sysenter_entry);
	return true;
}

uint32_t syscall_handle(uint32_t call, uint32_t a, uint32_t b)
{
	syscall_count++;
	switch (call) {
	case SYSCALL_NOTHING:
		return syscall_count;
	case SYSCALL_PRINT:
		print_text((const char *)a, b);
		return b;
	case SYSCALL_TICKS:
		return timer_ticks();
	case SYSCALL_HAS:
		if (a == HAS_SYSENTER)
			return trap_sysenter_init();
		return cpu_has_cpuid() && cpu_id(1).edx & CPUID_EDX_TSC;
	case SYSCALL_PAGES:
		return demand_page_count;
	case SYSCALL_EXIT:
		user_leave(a);
	default:
		return -1;
	}
}

static void interrupt_handle(unsigned irq)
{
	if (irq == 0)
		timer_tick();
	if (irq >= 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

void trap_handle(struct trap_frame *f)
{
	uint32_t cr2;

	if (f->vector == VECTOR_SYSCALL) {
		f->eax = syscall_handle(f->eax, f->ebx, f->ecx);
		return;
	}
	if (f->vector >= VECTOR_IRQ0 && f->vector < VECTOR_IRQ0 + 16) {
		interrupt_handle(f->vector - VECTOR_IRQ0);
		return;
	}
	__asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
	if (f->vector == VECTOR_PF && memory_user_fault(cr2, f->error))
		return;
	panic("exception %u, error 0x%x at %x:%08x, eflags %08x, cr2 %08x\n"
	      "eax %08x ebx %08x ecx %08x edx %08x esi %08x edi %08x ebp %08x",
	      f->vector, f->error, f->cs, f->eip, f->eflags, cr2, f->eax, f->ebx, f->ecx, f->edx, f->esi,
	      f->edi, f->ebp);
}
