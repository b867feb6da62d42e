/* The tour. One line for each thing that a 32-bit kernel does to its CPU, then off. */
#include "demo.h"

#define MULTIBOOT_LOADED  0x2badb002u
#define MULTIBOOT_HAS_MEM 0x1u
#define USER_ENTRY	  0x00400000u
#define USER_STACK_TOP	  0xbffffff0u
#define DIRECT_MAP_END	  0x800000u

/* Multiboot 0.6.96 section 3.3, as far as it is read here. */
struct multiboot_info {
	uint32_t flags, mem_lower_kib, mem_upper_kib;
};

static void show_cpu(void)
{
	char vendor[13] = {0};
	struct cpuid r;

	topic("cpu");
	if (!cpu_has_cpuid()) {
		print("before CPUID\n");
		return;
	}
	r = cpu_id(0);
	for (int i = 0; i < 4; i++) {
		vendor[i] = r.ebx >> 8 * i;
		vendor[4 + i] = r.edx >> 8 * i;
		vendor[8 + i] = r.ecx >> 8 * i;
	}
	r = cpu_id(1);
	print("%s, family %u model %u stepping %u\n", vendor, r.eax >> 8 & 15,
	      (r.eax >> 4 & 15) | (r.eax >> 12 & 0xf0), r.eax & 15);
}

static void show_memory(uint32_t magic, uint32_t info)
{
	const struct multiboot_info *mbi = (const struct multiboot_info *)(info + KERNEL_BASE);

	topic("memory");
	if (magic == MULTIBOOT_LOADED && info < DIRECT_MAP_END && mbi->flags & MULTIBOOT_HAS_MEM)
		print("%u MiB, by the Multiboot loader\n", (mbi->mem_upper_kib + 1024 + 1023) / 1024);
	else
		print("unknown, not started by a Multiboot loader\n");
}

static void show_paging(void)
{
	uint32_t cr0, cr3, here;

	__asm__("mov %%cr0, %0" : "=r"(cr0));
	__asm__("mov %%cr3, %0" : "=r"(cr3));
	__asm__("call 1f; 1: pop %0" : "=r"(here));
	topic("paging");
	print("on, cr0 %08x cr3 %08x, kernel runs at %08x\n", cr0, cr3, here);
}

static void show_user(void)
{
	int status;

	memory_map_user();
	topic("user mode");
	status = user_run(USER_ENTRY, USER_STACK_TOP);
	if (status)
		panic("the user task failed, status %d", status);
	topic("back");
	print("in the kernel after %u system calls, %u pages on demand\n", syscall_count, demand_page_count);
}

static void show_timer(void)
{
	uint32_t count, millihertz;

	topic("timer");
	/* enough ticks for a rate worth printing; asleep, as an idle kernel should be */
	while (timer_ticks() < TIMER_HZ / 4)
		__asm__ volatile("hlt");
	if (timer_rate(&count, &millihertz))
		print("%u interrupts so far, %u.%03u Hz by the ACPI timer (set to %u)\n", count,
		      millihertz / 1000, millihertz % 1000, TIMER_HZ);
	else
		print("%u interrupts so far, no ACPI timer to measure their rate by\n", count);
}

static void power_off(void)
{
	uint32_t start = timer_ticks();

	topic("power");
	print("off, through ACPI\n");
	acpi_power_off();
	while (timer_ticks() - start < TIMER_HZ / 4) /* a machine may take a moment to go off */
		__asm__ volatile("hlt");
	topic("power");
	print("still here; debug-exit port next\n");
	outb(PORT_DEBUG_EXIT, 0);
	topic("power");
	print("still here; halted for good\n");
	for (;;)
		__asm__ volatile("cli; hlt");
}

void kernel_main(uint32_t magic, uint32_t info)
{
	console_init();
	print("\ndemo: a small 32-bit x86 kernel, start to power-off\n\n");
	memory_init();
	trap_init();
	show_cpu();
	show_memory(magic, info);
	show_paging();

	topic("acpi");
	print(acpi_init() ? "FADT and DSDT found\n" : "no tables\n");
	topic("interrupts");
	timer_init();
	print("8259 pair and 8254 set up, %u ticks a second wanted\n", TIMER_HZ);

	show_user();
	selfmod_show();
	show_timer();
	stats_show();
	power_off();
}
