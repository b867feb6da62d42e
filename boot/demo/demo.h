/*
 * The demo guest: what its files share.
 *
 *   boot.S     Multiboot entry, paging on, up to 3 GiB
 *   kernel.c   the tour: what is shown, in order
 *   console.c  COM1
 *   trap.c     GDT, IDT, TSS, exceptions, interrupts, system calls
 *   timer.c    8259 pair, 8254, ACPI PM timer
 *   memory.c   page allocator, mapping, demand paging
 *   selfmod.c  code that changes itself
 *   acpi.c     finding the tables, power-off
 *   stats.c    the translator's counters
 *   user.c     the user task, linked apart from the rest
 */
#ifndef DEMO_H
#define DEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERNEL_BASE	0xc0000000u
#define PAGE_SIZE	4096u

#define GDT_KERNEL_CODE 0x08
#define GDT_KERNEL_DATA 0x10
#define GDT_USER_CODE	0x18
#define GDT_USER_DATA	0x20
#define GDT_TSS		0x28

#define PORT_DEBUG_EXIT 0xf4

/* What entry.S leaves on the stack; esp and ss only when the interrupted code ran at CPL 3. */
struct trap_frame {
	uint32_t edi, esi, ebp, esp_unused, ebx, edx, ecx, eax;
	uint32_t es, ds;
	uint32_t vector, error;
	uint32_t eip, cs, eflags, esp, ss;
};

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};

/* CPUID.1:EDX and ECX, as far as anything here asks. */
#define CPUID_EDX_TSC	     (1u << 4)
#define CPUID_EDX_SEP	     (1u << 11)
#define CPUID_ECX_HYPERVISOR (1u << 31)

/* console.c */
void console_init(void);
void print(const char *format, ...);
void print_text(const char *text, size_t length);
/* Begin a line of the tour: the name of what it shows, padded. */
void topic(const char *name);
/* Print why, then leave through the debug-exit port with a failure status. */
void panic(const char *format, ...) __attribute__((noreturn));

/* trap.c */
void trap_init(void);
bool trap_sysenter_init(void);
extern unsigned syscall_count;

/* timer.c */
#define TIMER_HZ 1000u
void timer_init(void);
void timer_tick(void);
uint32_t timer_ticks(void);
/* Interrupts counted and their rate in mHz by the PM timer, since timer_init; false without a PM timer. */
bool timer_rate(uint32_t *ticks, uint32_t *millihertz);

/* memory.c */
void memory_init(void);
uint32_t memory_allocate(void);
void memory_map(uint32_t linear, uint32_t physical, uint32_t flags);
/* A view of length bytes of physical memory, read-only, for good. */
const void *memory_view(uint32_t physical, uint32_t length);
bool memory_user_fault(uint32_t linear, uint32_t error);
void memory_map_user(void);
extern unsigned demand_page_count;

/* selfmod.c */
void selfmod_show(void);

/* acpi.c */
bool acpi_init(void);
uint16_t acpi_pm_timer_port(void);
void acpi_power_off(void);

/* stats.c */
bool cpu_has_cpuid(void);
struct cpuid cpu_id(uint32_t leaf);
void stats_show(void);

/* entry.S */
int user_run(uint32_t eip, uint32_t esp);
void user_leave(int status) __attribute__((noreturn));
void segments_load(const void *gdt_register, unsigned tss_selector);
void sysenter_entry(void);

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

#endif
