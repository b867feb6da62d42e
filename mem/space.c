/* space.c - what the guest does to its address space: INVLPG, loads of CR3, changes of paging mode. */
#include "mem/internal.h"

void mem_flush_page(struct vcpu *c, uint32_t lin)
{
	tlb_flush_page(c->mem, lin);
}

void mem_load_cr3(struct vcpu *c)
{
	tlb_flush(c->mem);
}

void mem_mode_changed(struct vcpu *c)
{
	tlb_flush(c->mem);
}
