/*
 * Pages. Physical memory below 8 MiB is in the direct map at 3 GiB (boot.S); pages are handed out from the
 * kernel's end upwards and never come back. Linear addresses:
 *
 *   0x00400000  the user task's code and constants, present from the start, read-only
 *   0x10000000  its heap, 0xbff00000 its stack: given page by page as they are touched
 *   0xc0000000  direct map
 *   0xf0000000  views of physical memory elsewhere (ACPI tables)
 */
#include "demo.h"

#define DIRECT_MAP_END 0x800000u

#define PTE_P	       0x001u
#define PTE_W	       0x002u
#define PTE_U	       0x004u

#define PF_ERROR_P     0x1u
#define PF_ERROR_U     0x4u

#define USER_HEAP      0x10000000u
#define USER_HEAP_END  0x10200000u
#define USER_STACK     0xbff00000u
#define USER_STACK_END 0xc0000000u
#define VIEWS	       0xf0000000u
#define USER_IMAGE     0x00400000u

extern uint32_t page_directory[1024];
extern uint8_t kernel_end[], user_image[], user_image_pages[];

static uint32_t next_page, next_view = VIEWS;
unsigned demand_page_count;

static void *direct(uint32_t physical)
{
	return (void *)(physical + KERNEL_BASE);
}

void memory_init(void)
{
	next_page = (uint32_t)kernel_end - KERNEL_BASE;
}

/* A zeroed page, by physical address. */
uint32_t memory_allocate(void)
{
	uint32_t page = next_page, *words = direct(page);

	if (page >= DIRECT_MAP_END)
		panic("out of memory");
	next_page += PAGE_SIZE;
	for (unsigned i = 0; i < PAGE_SIZE / 4; i++)
		words[i] = 0;
	return page;
}

void memory_map(uint32_t linear, uint32_t physical, uint32_t flags)
{
	uint32_t *pde = &page_directory[linear >> 22], *table;

	if (!(*pde & PTE_P))
		*pde = memory_allocate() | PTE_P | PTE_W | PTE_U;
	table = direct(*pde & ~0xfffu);
	table[linear >> 12 & 1023] = (physical & ~0xfffu) | flags | PTE_P;
	__asm__ volatile("invlpg (%0)" : : "r"(linear) : "memory");
}

const void *memory_view(uint32_t physical, uint32_t length)
{
	uint32_t first = physical & ~0xfffu, view = next_view;

	for (uint32_t page = first; page - first < physical - first + length; page += PAGE_SIZE) {
		memory_map(next_view, page, 0);
		next_view += PAGE_SIZE;
	}
	return (const void *)(view + (physical - first));
}

void memory_map_user(void)
{
	for (uint32_t i = 0; i < (uint32_t)user_image_pages; i++)
		memory_map(USER_IMAGE + i * PAGE_SIZE, (uint32_t)user_image - KERNEL_BASE + i * PAGE_SIZE,
			   PTE_U);
}

/* A not-present fault by user code in its heap or stack gets a page; the instruction then runs again. */
bool memory_user_fault(uint32_t linear, uint32_t error)
{
	bool heap = linear >= USER_HEAP && linear < USER_HEAP_END;
	bool stack = linear >= USER_STACK && linear < USER_STACK_END;

	if ((error & PF_ERROR_P) || !(error & PF_ERROR_U) || !(heap || stack))
		return false;
	memory_map(linear, memory_allocate(), PTE_W | PTE_U);
	demand_page_count++;
	return true;
}
