/* kernel.c - the guest kernel that runs batches of cases at CPL 3 (layout.h).
 *
 * It sets up what 64-bit Linux gives a 32-bit process, as far as user code can tell: the user's entries of
 * the GDT, CR0, paging with NX (PAE), no I/O permissions, vectors 3 and 4 open to user code. Then it reads
 * GUEST_PORT, which gives the number of cases in the batch, puts each case's code into its slot, enters it,
 * and notes the state at the exception that ends it.
 */
#include "../layout.h"

#include <stddef.h>

struct frame {
	uint32_t gs, fs, es, ds;
	uint32_t edi, esi, ebp, unused, ebx, edx, ecx, eax;
	uint32_t vector, error, eip, cs, eflags, esp, ss;
};

struct table_register {
	uint16_t limit;
	uint32_t base;
} __attribute__((packed));

static struct silicon_batch *const batch = (struct silicon_batch *)BATCH_AT;
extern const uint8_t vector_stubs[], stack_top[];
void enter(const struct silicon_case *c) __attribute__((noreturn));
void load_tables(const struct table_register *gdtr, const struct table_register *idtr, unsigned tss);
void kernel_main(void) __attribute__((noreturn));
void kernel_trap(const struct frame *f) __attribute__((noreturn));

static inline uint32_t in(uint16_t port)
{
	uint32_t v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline void out(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

/* ------------------------------------------------------------------ tables */

#define TSS_SEL	     0x40
#define CODE0	     0x00cf9b000000ffffull
#define DATA0	     0x00cf93000000ffffull
#define CODE3	     0x00cffb000000ffffull
#define DATA3	     0x00cff3000000ffffull
#define CODE3_64     0x00affb000000ffffull
#define CPU_NUMBER   0x0040f50000000000ull /* read-only, expand-down; the limit is the number */

static uint64_t gdt[16] = {0, CODE0, 0, DATA0, CODE3, DATA3, CODE3_64, [CPU_NODE >> 3] = CPU_NUMBER};
static uint64_t idt[256];
static uint32_t tss[26];

static uint64_t system_segment(uint32_t base, uint32_t limit, uint64_t type)
{
	return limit | (uint64_t)(base & 0xffffff) << 16 | type << 40 | (uint64_t)(base >> 24) << 56;
}

static void set_segment(unsigned n, const struct silicon_tls *t)
{
	uint64_t type = 0xf1 | (t->attr & TLS_WRITABLE ? 2 : 0) | (t->attr & TLS_DOWN ? 4 : 0);
	uint64_t high = 0x4 | (t->attr & TLS_PAGES ? 8 : 0);

	gdt[TLS_FIRST + n] = t->attr & TLS_PRESENT
				     ? (t->limit & 0xffff) | (uint64_t)(t->base & 0xffffff) << 16 |
					       type << 40 | (uint64_t)(t->limit >> 16 & 15) << 48 |
					       high << 52 | (uint64_t)(t->base >> 24) << 56
				     : 0;
}

static void set_tables(void)
{
	const struct table_register gdtr = {sizeof gdt - 1, (uint32_t)gdt},
				    idtr = {sizeof idt - 1, (uint32_t)idt};

	tss[1] = (uint32_t)stack_top;
	tss[2] = 0x18;
	tss[25] = sizeof tss << 16; /* no I/O permission bitmap */
	gdt[TSS_SEL / 8] = system_segment((uint32_t)tss, sizeof tss - 1, 0x89);
	for (unsigned v = 0; v < 256; v++) {
		uint32_t at = (uint32_t)vector_stubs + 16 * v;
		uint32_t attr = v == 3 || v == 4 ? 0xee00 : 0x8e00;

		idt[v] = (at & 0xffff) | 8u << 16 | (uint64_t)(attr | (at & 0xffff0000)) << 32;
	}
	load_tables(&gdtr, &idtr, TSS_SEL);
}

/* ------------------------------------------------------------------ paging */

#define PTE_P  1ull
#define PTE_W  2ull
#define PTE_U  4ull
#define PTE_NX (1ull << 63)

static uint64_t pdpt[4] __attribute__((aligned(32)));
static uint64_t directories[2][512] __attribute__((aligned(4096)));
static uint64_t tables[12][512] __attribute__((aligned(4096)));

static uint64_t *entry(uint32_t linear)
{
	static unsigned used;
	uint64_t *pde = &directories[linear >> 30][linear >> 21 & 511];

	if (!*pde)
		*pde = (uint32_t)tables[used++] | PTE_P | PTE_W | PTE_U;
	return &((uint64_t *)(uint32_t)(*pde & ~0xfffull))[linear >> 12 & 511];
}

static void map(uint32_t linear, uint32_t physical, uint32_t len, uint64_t bits)
{
	for (uint32_t off = 0; off < len; off += 4096)
		*entry(linear + off) = (physical + off) | PTE_P | bits;
}

static void set_paging(void)
{
	for (uint32_t k = 0; k < SLOTS; k++) {
		uint32_t at = SLOT_AT + k * SLOT_STRIDE;

		map(at + SLOT_CODE, at + SLOT_CODE, CODE_BYTES, PTE_U);
		map(at + SLOT_DATA, at + SLOT_DATA, RW_BYTES, PTE_U | PTE_W | PTE_NX);
		map(at + SLOT_DATA + RW_BYTES, at + SLOT_DATA + RW_BYTES, DATA_BYTES - RW_BYTES,
		    PTE_U | PTE_NX);
		map(ALIAS_AT + k * CODE_BYTES, at + SLOT_CODE, CODE_BYTES, PTE_W);
	}
	map(BATCH_AT, BATCH_AT, (sizeof(struct silicon_batch) + 4095) & ~4095u, PTE_W);
	map(IMAGE_AT, IMAGE_AT, 0x100000, PTE_W);
	pdpt[0] = (uint32_t)directories[0] | PTE_P;
	pdpt[1] = (uint32_t)directories[1] | PTE_P;
	__asm__ volatile("movl %%cr4, %%eax\n\torl $0x620, %%eax\n\tmovl %%eax, %%cr4\n\t" /* PAE OSFXSR
											      OSXMMEXCPT */
			 "movl %0, %%cr3\n\t"
			 "movl $0xc0000080, %%ecx\n\trdmsr\n\torl $0x800, %%eax\n\twrmsr\n\t" /* EFER.NXE */
			 "movl $0x80050033, %%eax\n\tmovl %%eax, %%cr0" /* PG AM WP NE ET MP PE */
			 :
			 : "r"(pdpt)
			 : "eax", "ecx", "edx", "memory");
}

/* ------------------------------------------------------------------ cases */

static uint32_t round_;

static void fill(uint8_t *to, uint8_t v, uint32_t n)
{
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(v) : "memory");
}

static void copy(uint8_t *to, const uint8_t *from, uint32_t n)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void put_code(const struct silicon_case *c)
{
	static struct {
		uint32_t at, len;
	} last[SLOTS];
	const uint32_t k = c->slot;
	uint8_t *code = (uint8_t *)(ALIAS_AT + k * CODE_BYTES);

	if (last[k].at != c->code_at || last[k].len > c->code_len)
		fill(code + last[k].at, 0xcc, last[k].len);
	copy(code + c->code_at, c->code, c->code_len);
	last[k].at = c->code_at;
	last[k].len = c->code_len;
}

static void __attribute__((noreturn)) next_case(uint32_t k)
{
	while (k == batch->count) {
		batch->progress = k;
		in(GUEST_PORT);
		k = 0;
	}
	batch->progress = k;
	put_code(&batch->c[k]);
	for (unsigned n = 0; n < 3; n++)
		set_segment(n, &batch->c[k].tls[n]);
	round_ = 0;
	enter(&batch->c[k]);
}

void kernel_trap(const struct frame *f)
{
	uint32_t k = batch->progress;
	struct silicon_result *r = &batch->r[k];

	if ((f->cs & 3) != 3)
		out(GUEST_PANIC, f->vector << 24 | (f->eip & 0xffffff));
	if (++round_ < batch->c[k].reps)
		enter(&batch->c[k]);
	__asm__ volatile("fxsave %0" : "=m"(r->fx));
	r->gpr[0] = f->eax, r->gpr[1] = f->ecx, r->gpr[2] = f->edx, r->gpr[3] = f->ebx;
	r->gpr[4] = f->esp, r->gpr[5] = f->ebp, r->gpr[6] = f->esi, r->gpr[7] = f->edi;
	r->sel[0] = f->es & 0xffff, r->sel[1] = f->cs & 0xffff, r->sel[2] = f->ss & 0xffff;
	r->sel[3] = f->ds & 0xffff, r->sel[4] = f->fs & 0xffff, r->sel[5] = f->gs & 0xffff;
	r->eip = f->eip;
	r->eflags = f->eflags;
	r->vector = f->vector;
	r->error = f->error;
	__asm__ volatile("movl %%cr2, %0" : "=r"(r->cr2));
	next_case(k + 1);
}

void kernel_main(void)
{
	set_paging();
	set_tables();
	for (uint32_t k = 0; k < SLOTS; k++)
		fill((uint8_t *)(ALIAS_AT + k * CODE_BYTES), 0xcc, CODE_BYTES);
	batch->count = 0;
	next_case(0);
}
