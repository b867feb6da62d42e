/* internal.h - what the files of mem/ share and nobody else sees.
 *
 * ram.c     RAM, MMIO, guest-physical reads and writes
 * walk.c    the page walk
 * access.c  the software TLB and linear reads and writes
 * trace.c   kinds of trace on guest-physical pages
 *
 * All of this may run while the guest's x87/SSE state is live: nothing here calls libc's string
 * functions (they use vector registers) outside mem_create, mem_enable_windows, mem_destroy and the dumps;
 * copy_bytes and fill_zero below take their place.
 */
#ifndef BT86_MEM_INTERNAL_H
#define BT86_MEM_INTERNAL_H

#include <assert.h>

#include "mem/mem.h"

/* The PC's hole for video memory: never RAM. */
#define HOLE_START 0xa0000u
#define HOLE_END   0xc0000u

#ifndef EFER_NXE
#define EFER_NXE 0x800u
#endif

#define TLB_USED_MAX 512u

struct mem {
	struct soft_tlb tlb; /* first: the inline accessors of mem.h rely on it */

	/* TLB entries filled since the last flush, so that a flush costs what was filled. Past TLB_USED_MAX
	 * entries everything is cleared. Encoded as user * TLB_SIZE + index. */
	unsigned tlb_used_n;
	uint16_t tlb_used[TLB_USED_MAX];
	bool tlb_large; /* an entry comes from a large page: INVLPG of any of its pages drops them all */

	uint8_t *ram; /* the VMM's own mapping */
	uint64_t ram_bytes;
	uint32_t ram_pages;
	int fd;

	uint8_t *trace; /* one byte of TRACE_* per page of RAM */

	struct mem_ops ops;
	void *opaque;
	struct mem_stats stats;
};

static inline bool gfn_is_ram(const struct mem *m, uint64_t gfn)
{
	return gfn < m->ram_pages && !(gfn >= HOLE_START >> PAGE_SHIFT && gfn < HOLE_END >> PAGE_SHIFT);
}

static inline bool gpa_is_ram(const struct mem *m, uint64_t gpa)
{
	return gfn_is_ram(m, gpa >> PAGE_SHIFT);
}

/* memcpy without vector registers; aligned powers of two are single accesses. */
static inline void copy_bytes(void *dst, const void *src, uint64_t n)
{
	switch (n) {
	case 1:
		__builtin_memcpy(dst, src, 1);
		return;
	case 2:
		__builtin_memcpy(dst, src, 2);
		return;
	case 4:
		__builtin_memcpy(dst, src, 4);
		return;
	case 8:
		__builtin_memcpy(dst, src, 8);
		return;
	default:
		__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
	}
}

/* n is a multiple of 8. */
static inline void fill_zero(void *dst, uint64_t n)
{
	n /= 8;
	__asm__ volatile("rep stosq" : "+D"(dst), "+c"(n) : "a"(0ul) : "memory");
}

/* ---- ram.c */
/* Stores into one page of RAM and does what its traces ask for. */
void ram_store(struct mem *m, uint64_t gpa, const void *buf, unsigned len);
void mmio_load(struct mem *m, uint64_t gpa, uint8_t *buf, uint64_t len);
void mmio_store(struct mem *m, uint64_t gpa, const uint8_t *buf, uint64_t len);

/* ---- access.c */
void tlb_flush(struct mem *m);
void tlb_flush_page(struct mem *m, uint32_t lin);
void tlb_drop_writes(struct mem *m, uint64_t gfn);

#endif
