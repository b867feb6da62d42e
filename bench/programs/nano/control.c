/* Transfers of control: system calls, exceptions and address-space switches. */
#include "nano.h"

#define MSR_CS	0x174u
#define MSR_ESP 0x175u
#define MSR_EIP 0x176u

#define SPARE	64u /* pages that user_touch touches */

static void gates(void)
{
	set_gate(LEAVE_VECTOR, leave_user, GATE_INT32 | SEG_DPL(3));
	set_gate(SWITCH_VECTOR, handle_switch, GATE_INT32 | SEG_DPL(3));
	set_gate(SYSCALL_VECTOR, handle_count, GATE_INT32 | SEG_DPL(3));
	set_gate(KERNEL_VECTOR, handle_count, GATE_INT32);
	set_gate(X_DE, handle_divide, GATE_INT32);
	set_gate(X_PF, handle_page_skip, GATE_INT32);
}

static void syscall_int(uint32_t n)
{
	gates();
	run_user(user_linear(user_int), n);
}

static bool has_sep(void)
{
	return cpu_has(CPUID_SEP);
}

static void syscall_sysenter(uint32_t n)
{
	gates();
	write_msr(MSR_CS, KERNEL_CODE);
	write_msr(MSR_ESP, RING0_STACK);
	write_msr(MSR_EIP, (uint32_t)handle_sysenter);
	run_user(user_linear(user_sysenter), n);
}

static void int_kernel(uint32_t n)
{
	gates();
	for (; n; n--)
		__asm__ volatile("int $0x34" : : : "memory");
}

static void divide_kernel(uint32_t n)
{
	gates();
	for (; n; n--)
		__asm__ volatile("divl %0" : : "c"(0) : "eax", "edx", "cc", "memory");
}

static void divide_user(uint32_t n)
{
	gates();
	run_user(user_linear(user_divide), n);
}

static void page_fault_kernel(uint32_t n)
{
	gates();
	for (; n; n--)
		__asm__ volatile("movl (%0), %%eax" : : "S"(USER_SPARE) : "eax", "memory");
}

static void page_fault_user(uint32_t n)
{
	gates();
	run_user(user_linear(user_page_skip), n);
}

/* The handler maps each page that the program touches; then the kernel takes them all away again. */
static void page_fault_map(uint32_t n)
{
	uint32_t first = USER_SPARE >> 12 & 1023;
	uint32_t *table = spaces[0].user_table;

	gates();
	set_gate(X_PF, handle_page_map, GATE_INT32);
	fault_table = (uint32_t)table;
	for (uint32_t i = 0; i < SPARE; i++)
		fault_entries[first + i] = (WORKING_SET + (i << 12)) | PTE_ALL;
	for (; n; n--) {
		run_user(user_linear(user_touch), 1);
		for (uint32_t i = 0; i < SPARE; i++)
			((volatile uint32_t *)table)[first + i] = 0;
		set_cr3(space_cr3[0]);
	}
	gates();
}

/* Each switch is CR3, iret, stores to eight pages, and an int. The stores are counted in the pages. */
static uint32_t stores(void)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < SPACES; i++)
		sum += MEM32(spaces[i].data[7]);
	return sum;
}

static void switches(uint32_t n, uint32_t count)
{
	uint32_t before = stores();

	gates();
	switch_mask = count - 1;
	switch_left = n;
	switch_index = 0;
	set_cr3(space_cr3[0]);
	run_user(user_linear(user_switch), 0);
	set_cr3(space_cr3[0]);
	if (stores() - before != n)
		nano_fail("stores", stores() - before, n);
}

static void context_switch_2(uint32_t n)
{
	switches(n, 2);
}

static void context_switch_16(uint32_t n)
{
	switches(n, 16);
}

static void write_cr3_same(uint32_t n)
{
	for (; n; n--)
		set_cr3(space_cr3[0]);
}

static void write_cr3_alternate(uint32_t n)
{
	for (; n; n--) {
		set_cr3(space_cr3[1]);
		set_cr3(space_cr3[0]);
	}
}

/* As fork, exec and exit make and drop address spaces: 16 pages of data are touched. */
static void address_space_life(uint32_t n)
{
	static struct space space;

	if (!space.directory)
		space_make(&space, true);
	for (; n; n--) {
		space_make(&space, false);
		set_cr3((uint32_t)space.directory);
		for (uint32_t i = 0; i < 16; i++)
			MEM32(USER_DATA_ + (i << 12))++;
		set_cr3(space_cr3[0]);
		memset(space.user_table, 0, 4 * (2 + USER_PAGES));
		memset(space.directory, 0, 4096);
	}
}

const struct nano nano_control[] = {
	{"syscall_int", syscall_int, 1, true, NULL, NULL, false},
	{"syscall_sysenter", syscall_sysenter, 1, true, has_sep, NULL, false},
	{"int_kernel", int_kernel, 1, true, NULL, NULL, false},
	{"divide_kernel", divide_kernel, 1, true, NULL, NULL, false},
	{"divide_user", divide_user, 1, true, NULL, NULL, false},
	{"page_fault_kernel", page_fault_kernel, 1, true, NULL, NULL, false},
	{"page_fault_user", page_fault_user, 1, true, NULL, NULL, false},
	{"page_fault_map", page_fault_map, SPARE, true, NULL, NULL, false},
	{"write_cr3_same", write_cr3_same, 1, false, NULL, NULL, false},
	{"write_cr3_alternate", write_cr3_alternate, 2, false, NULL, NULL, false},
	{"context_switch_2", context_switch_2, 1, true, NULL, NULL, false},
	{"context_switch_16", context_switch_16, 1, true, NULL, NULL, false},
	{"address_space_life", address_space_life, 1, false, NULL, NULL, false},
	{0},
};
