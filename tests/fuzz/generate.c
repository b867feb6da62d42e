/* generate.c - whole cases: descriptor tables, task states, page tables, contexts, and where the CPU begins.
 */
#include "generate.h"
#include "layout.h"

#include <string.h>

extern const uint8_t fuzz_kernel[], fuzz_kernel_end[];

static void put(struct fuzz_case *k, uint32_t at, uint64_t v, unsigned size)
{
	memcpy(k->ram + at, &v, size);
}

static void put32(struct fuzz_case *k, uint32_t at, uint32_t v)
{
	put(k, at, v, 4);
}

static uint32_t get32(const struct fuzz_case *k, uint32_t at)
{
	uint32_t v;

	memcpy(&v, k->ram + at, 4);
	return v;
}

/* ------------------------------------------------------------------ segments */

static void descriptor(struct fuzz_case *k, uint32_t at, uint32_t base, uint32_t limit, unsigned attr)
{
	if (attr & SEG_G)
		limit >>= 12;
	put32(k, at, (limit & 0xffffu) | base << 16);
	put32(k, at + 4,
	      (base >> 16 & 0xffu) | (attr & 0xf0ffu) << 8 | (limit & 0xf0000u) | (base & 0xff000000u));
}

static void gate(struct fuzz_case *k, uint32_t at, unsigned type, unsigned dpl, unsigned sel, uint32_t off)
{
	put32(k, at, (off & 0xffffu) | sel << 16);
	put32(k, at + 4, (off & 0xffff0000u) | 0x8000u | dpl << 13 | type << 8);
}

static uint32_t some_base(struct rng *r)
{
	return rng_percent(r, 60) ? rng_below(r, 0x100) * 0x100 : generate_address(r);
}

static uint32_t some_limit(struct rng *r)
{
	static const uint32_t limits[] = {0xffff, 0x2ffff, 0xfffff, 0xffffffff, 0x20fff, 0x207ff, 0, 0x7fff};

	return rng_percent(r, 80) ? RNG_PICK(r, limits) : (uint32_t)rng_next(r);
}

static void make_gdt(struct fuzz_case *k, struct rng *r)
{
	const unsigned data = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED, flat = data | SEG_G | SEG_DB;
	const unsigned user = SEG_DPL, code = SEG_CODE;
	const struct {
		uint32_t base, limit;
		unsigned attr;
	} rows[] = {
		{0, 0, 0},
		{0, 0xffffffff, flat | code},			 /* 08 */
		{0, 0xffffffff, flat},				 /* 10 */
		{0, 0xffffffff, flat | code | user},		 /* 18 */
		{0, 0xffffffff, flat | user},			 /* 20 */
		{AT_TSS, 0x67 + 0x80, SEG_P | SYS_TSS32_BUSY},	 /* 28 */
		{AT_TSS_DF, 0x67, SEG_P | SYS_TSS32},		 /* 30 */
		{AT_CODE16, 0xffff, data | code},		 /* 38: 16-bit */
		{some_base(r), 0xffff, data},			 /* 40 */
		{0x1000, 0xfffff, data | code | SEG_DB | SEG_G}, /* 48: not flat */
		{some_base(r), some_limit(r), data | SEG_DB | (rng_below(r, 2) ? SEG_G : 0)}, /* 50 */
		{0, some_limit(r), data | SEG_DC | SEG_DB},	      /* 58: expand-down */
		{AT_LDT, 0xff, SEG_P | SYS_LDT},		      /* 60 */
		{AT_CODE16, 0xffff, data | code | user},	      /* 68 */
		{some_base(r), some_limit(r) & 0xfffff, data | user}, /* 70 */
		{0, 0, 0},					      /* 78: gates, below */
		{0, 0, 0},
		{0, 0, 0},
		{0, 0xffffffff, flat | code | SEG_DC},	    /* 90: conforming */
		{0, 0xffffffff, flat | code | 0x20},	    /* 98: ring 1 */
		{0, 0xffffffff, flat | 0x20},		    /* a0 */
		{AT_TSS_3, 0x67, SEG_P | SYS_TSS32 | user}, /* a8 */
		{some_base(r), some_limit(r), flat | user}, /* b0 */
	};
	const unsigned n = sizeof rows / sizeof rows[0];

	for (unsigned i = 0; i < n; i++)
		descriptor(k, AT_GDT + 8 * i, rows[i].base, rows[i].limit, rows[i].attr);
	gate(k, AT_GDT + 0x78, SYS_CALL32, 3, SEL_CODE0, AT_CODE + rng_below(r, 0x1000));
	gate(k, AT_GDT + 0x80, SYS_CALL16, 3, 0x38, rng_below(r, 0x1000));
	gate(k, AT_GDT + 0x88, SYS_TASK_GATE, 3, 0xa8, 0);
	for (unsigned i = n; i < n + 8; i++)
		put(k, AT_GDT + 8 * i, rng_next(r), 8);
	/* The local one: random, but for a few that can be loaded. */
	for (unsigned i = 0; i < 16; i++)
		descriptor(k, AT_LDT + 8 * i, some_base(r), some_limit(r),
			   (unsigned)rng_next(r) &
				   (rng_below(r, 2) ? 0xffff
						    : SEG_P | SEG_S | SEG_RW | SEG_DPL | SEG_DB | SEG_G));
	if (rng_percent(r, 10))
		k->ram[AT_GDT + rng_below(r, 8 * n)] ^= (uint8_t)(1u << rng_below(r, 8));
}

static void make_idt(struct fuzz_case *k, struct rng *r)
{
	for (unsigned v = 0; v < 256; v++) {
		const unsigned stub = v < STUBS ? v : STUBS - 1;
		const bool soft = v == 3 || v == 4 || v >= 0x20;
		gate(k, AT_IDT + 8 * v, rng_percent(r, 70) ? SYS_INT32 : SYS_TRAP32, soft ? 3 : 0, SEL_CODE0,
		     AT_STUBS + STUB_BYTES * stub);
	}
	if (rng_percent(r, 80))
		gate(k, AT_IDT + 8 * VEC_DF, SYS_TASK_GATE, 0, 0x30, 0);
	if (rng_percent(r, 10))
		put(k, AT_IDT + 8 * rng_below(r, 64), rng_next(r), 8);
}

static void make_tss(struct fuzz_case *k, struct rng *r, uint32_t at, uint32_t eip, uint32_t cr3)
{
	put32(k, at + 4, AT_STACK_0);
	put32(k, at + 8, SEL_DATA0);
	put32(k, at + 12, AT_STACK_1);
	put32(k, at + 16, 0xa1);
	put32(k, at + 28, cr3);
	put32(k, at + 32, eip);
	put32(k, at + 36, 2);
	for (unsigned i = 0; i < 8; i++)
		put32(k, at + 40 + 4 * i, generate_value(r));
	put32(k, at + 56, AT_STACK_DF);
	put32(k, at + 72, SEL_DATA0);
	put32(k, at + 76, SEL_CODE0);
	for (unsigned i = 2; i < 6; i++)
		put32(k, at + 72 + 4 * i, SEL_DATA0);
	put32(k, at + 100, 0x680000); /* I/O bitmap right behind */
	for (unsigned i = 0; i < 0x80 && at == AT_TSS; i++)
		k->ram[at + 0x68 + i] = rng_percent(r, 50) ? 0 : (uint8_t)rng_next(r);
}

/* ------------------------------------------------------------------ paging */

static uint64_t some_entry(struct rng *r, uint32_t page, bool kernel, bool nx)
{
	static const uint32_t strange[] = {0xa0, 0xbf, 0xd0, 0x100, 0x3ff, 0xfee00, 0xfffff};
	uint64_t e = PTE_P | PTE_RW | (uint64_t)page << 12;

	if (kernel)
		return e | PTE_A | PTE_D;
	if (rng_percent(r, 8))
		e &= ~0xffffff000ull & ~(uint64_t)PTE_P;
	if (rng_percent(r, 15))
		e = (e & 0xfff) | (uint64_t)rng_below(r, CASE_RAM >> 12) << 12;
	if (rng_percent(r, 2))
		e = (e & 0xfff) | (uint64_t)RNG_PICK(r, strange) << 12;
	if (rng_percent(r, 20))
		e &= ~(uint64_t)PTE_RW;
	if (rng_percent(r, 65))
		e |= PTE_US;
	if (rng_percent(r, 50))
		e |= PTE_A;
	if (rng_percent(r, 40))
		e |= PTE_D;
	if (rng_percent(r, 15))
		e |= PTE_G;
	if (rng_percent(r, 10))
		e |= 0xe18;
	if (nx && rng_percent(r, 10))
		e |= PTE_NX;
	if (rng_percent(r, 1))
		e = rng_next(r);
	return e;
}

/* A page table of n entries; identity unless scattered. Kernel pages are below 64 KiB. */
static void make_table(struct fuzz_case *k, struct rng *r, uint32_t at, uint32_t first, bool pae,
		       bool scattered)
{
	const bool open = rng_percent(r, 10); /* the kernel's pages are the user's too */
	const unsigned n = pae ? 512 : 1024;

	for (unsigned i = 0; i < n; i++) {
		const uint32_t page = first + i;
		const bool kernel = page < 0x10 && !scattered;
		uint64_t e = 0;
		if (page < CASE_RAM >> 12 || scattered)
			e = some_entry(r, scattered ? rng_below(r, CASE_RAM >> 12) : page, kernel, pae);
		else if (rng_percent(r, 10))
			e = rng_next(r);
		if (kernel && open)
			e |= PTE_US;
		put(k, at + i * (pae ? 8 : 4), e, pae ? 8 : 4);
	}
}

static uint64_t some_directory_entry(struct rng *r, const uint32_t table[2], uint32_t self, bool large)
{
	uint64_t bits = PTE_P | PTE_RW | PTE_US | (rng_percent(r, 50) ? PTE_A : 0);

	if (rng_percent(r, 10))
		bits &= ~(uint64_t)(1u << rng_below(r, 3));
	switch (rng_below(r, 20)) {
	case 0 ... 8:
		return 0;
	case 9 ... 12:
		return table[0] | bits;
	case 13 ... 15:
		return table[1] | bits;
	case 16 ... 17:
		return large ? bits | PTE_PS | (rng_percent(r, 50) ? PTE_D : 0) |
				       (rng_percent(r, 20) ? PTE_G : 0)
			     : table[0] | bits;
	case 18:
		return self | bits;
	default:
		return rng_percent(r, 50) ? rng_next(r) : generate_address(r) | PTE_P;
	}
}

static void make_directory(struct fuzz_case *k, struct rng *r, uint32_t at, const uint32_t table[2], bool pae,
			   bool large)
{
	const unsigned n = pae ? 512 : 1024, size = pae ? 8 : 4;

	for (unsigned i = 0; i < n; i++)
		put(k, at + i * size, some_directory_entry(r, table, at, large), size);
	put(k, at, table[0] | PTE_P | PTE_RW | PTE_US | PTE_A, size);
}

/* Two address spaces that have their low tables, and thus the kernel, in common. */
static void make_paging(struct fuzz_case *k, struct rng *r, uint32_t cr3[2])
{
	struct vcpu *c = &k->cpu;
	const bool pae = c->cr4 & CR4_PAE, large = pae || c->cr4 & CR4_PSE;

	if (pae) {
		const uint32_t table[2] = {0x7000, 0x8000};
		make_directory(k, r, 0x5000, table, true, large);
		make_directory(k, r, 0x6000, table, true, large);
		make_table(k, r, 0x7000, 0, true, false);
		make_table(k, r, 0x8000, 0, true, true);
		for (unsigned i = 0; i < 8; i++) {
			uint64_t e = (rng_below(r, 2) ? 0x6000 : 0x5000) | PTE_P;
			if (i % 4 == 0)
				e = (i ? 0x6000 : 0x5000) | PTE_P;
			else if (rng_percent(r, 20))
				e = 0;
			put(k, 0x4000 + 0x20 * (i / 4) + 8 * (i % 4), e, 8);
		}
		cr3[0] = 0x4000;
		cr3[1] = 0x4020;
	} else {
		const uint32_t table[2] = {0x5000, 0x6000};
		make_directory(k, r, 0x4000, table, false, large);
		make_directory(k, r, 0x7000, table, false, large);
		if (rng_percent(r, 50)) /* the same upper half in both */
			memcpy(k->ram + 0x7c00, k->ram + 0x4c00, 0x400);
		make_table(k, r, 0x5000, 0, false, false);
		make_table(k, r, 0x6000, 0, false, true);
		for (unsigned d = 0x4000; d <= 0x7000; d += 0x3000)
			if (rng_percent(r, 80))
				put32(k, d + 4 * 0x300, 0x5000 | PTE_P | PTE_RW | PTE_US | PTE_A);
		cr3[0] = 0x4000;
		cr3[1] = 0x7000;
	}
	if (rng_percent(r, 3)) /* garbage */
		for (unsigned i = rng_below(r, 64); i; i--)
			put32(k, 0x4000 + 4 * rng_below(r, 0x1400), (uint32_t)rng_next(r));
	c->cr3 = cr3[0];
	for (unsigned i = 0; pae && i < 4; i++)
		memcpy(&c->pdpte[i], k->ram + c->cr3 + 8 * i, 8);
}

/* ------------------------------------------------------------------ contexts */

enum kind { KIND_KERNEL, KIND_USER, KIND_V86, KIND_16, KIND_ODD };

static enum kind some_kind(struct rng *r, bool paging)
{
	const unsigned n = rng_below(r, 100);

	if (n < 45)
		return KIND_KERNEL;
	if (n < 80)
		return KIND_USER;
	if (n < 86)
		return paging ? KIND_V86 : KIND_KERNEL;
	return n < 93 ? KIND_16 : KIND_ODD;
}

static uint32_t some_eip(struct rng *r, bool paging)
{
	uint32_t at = AT_CODE + rng_below(r, CODE_PAGES * 0x1000);

	if (rng_percent(r, 5))
		at = (at | 0xfff) - rng_below(r, 12);
	return paging && rng_percent(r, 15) ? at + 0xc0000000 : at;
}

static uint32_t some_flags(struct rng *r, bool user)
{
	uint32_t f = FL_1 | ((uint32_t)rng_next(r) & FL_ARITH);

	if (rng_percent(r, 15))
		f |= FL_DF;
	if (rng_percent(r, 60))
		f |= FL_IF;
	if (rng_percent(r, 3))
		f |= FL_TF;
	if (rng_percent(r, 5))
		f |= FL_AC;
	if (rng_percent(r, 3))
		f |= FL_NT;
	if (user && rng_percent(r, 30))
		f |= FL_IOPL;
	if (rng_percent(r, 2))
		f |= (uint32_t)rng_next(r) & (FL_IOPL | FL_RF | FL_VIF | FL_VIP | FL_ID);
	return f;
}

static uint16_t some_selector(struct rng *r, bool user)
{
	static const uint8_t any[] = {0,    0x08, 0x10, 0x1b, 0x23, 0x40, 0x50, 0x58,
				      0x73, 0x90, 0xb3, 0x0f, 0x14, 0x17, 0x70};

	if (rng_percent(r, 80))
		return user ? SEL_DATA3 : SEL_DATA0;
	return RNG_PICK(r, any);
}

static void make_context(struct fuzz_case *k, struct rng *r, uint32_t at, bool paging, const uint32_t cr3[2])
{
	const enum kind kind = some_kind(r, paging);
	const bool user =
		kind == KIND_USER || kind == KIND_V86 || (kind != KIND_KERNEL && rng_percent(r, 50));
	uint32_t eip = some_eip(r, paging), cs = user ? SEL_CODE3 : SEL_CODE0, flags = some_flags(r, user);
	uint32_t esp = AT_STACKS + 0x1000 * rng_below(r, 4) - 4 * rng_below(r, 16),
		 ss = user ? SEL_DATA3 : SEL_DATA0;

	for (unsigned i = 0; i < 8; i++)
		put32(k, at + CTX_REGS + 4 * i, rng_percent(r, 50) ? generate_address(r) : generate_value(r));
	for (unsigned i = 0; i < 4; i++)
		put32(k, at + CTX_GS + 4 * i, some_selector(r, user));
	if (rng_percent(r, 3))
		esp = generate_address(r);
	switch (kind) {
	case KIND_V86:
		flags |= FL_VM;
		cs = rng_percent(r, 70) ? AT_CODE16 >> 4 : rng_below(r, 0x2000);
		eip = rng_below(r, 0x1000);
		ss = rng_percent(r, 70) ? 0x2000 : rng_below(r, 0xffff);
		break;
	case KIND_16:
		cs = user ? 0x6b : 0x38;
		eip = rng_below(r, 0x1000);
		if (rng_below(r, 2))
			ss = user ? 0x73 : 0x40;
		break;
	case KIND_ODD:
		cs = user ? 0x1b : rng_percent(r, 50) ? 0x48 : 0x99;
		eip -= cs == 0x48 ? 0x1000 : 0;
		ss = cs == 0x99 ? 0xa1 : some_selector(r, user);
		break;
	default:
		break;
	}
	put32(k, at + CTX_FRAME, eip);
	put32(k, at + CTX_FRAME + 4, cs);
	put32(k, at + CTX_FRAME + 8, flags);
	put32(k, at + CTX_FRAME + 12, esp);
	put32(k, at + CTX_FRAME + 16, ss);
	for (unsigned i = 0; i < 4; i++)
		put32(k, at + CTX_FRAME + 20 + 4 * i, rng_percent(r, 70) ? 0x2000 : rng_below(r, 0x10000));
	put32(k, at + CTX_CR3, paging && rng_percent(r, 30) ? cr3[rng_below(r, 2)] : 0);
	uint32_t cr0 = k->cpu.cr0, cr4 = k->cpu.cr4;
	if (rng_percent(r, 30))
		cr0 ^= rng_percent(r, 50) ? CR0_WP : rng_percent(r, 50) ? CR0_TS : CR0_AM;
	if (rng_percent(r, 1))
		cr0 ^= CR0_PG;
	if (rng_percent(r, 10))
		cr4 ^= rng_percent(r, 50) ? CR4_PGE : rng_percent(r, 50) ? CR4_TSD : CR4_PSE;
	put32(k, at + CTX_CR0, cr0);
	put32(k, at + CTX_CR4, cr4);
}

/* ------------------------------------------------------------------ where it begins */

static void load_segment(struct fuzz_case *k, unsigned s, uint16_t sel)
{
	const uint32_t lo = get32(k, AT_GDT + (sel & ~7u)), hi = get32(k, AT_GDT + (sel & ~7u) + 4);
	const uint32_t limit = (lo & 0xffffu) | (hi & 0xf0000u);

	k->cpu.seg[s] = (struct seg){.sel = sel,
				     .attr = (uint16_t)(hi >> 8 & 0xf0ffu),
				     .base = lo >> 16 | (hi & 0xffu) << 16 | (hi & 0xff000000u),
				     .limit = hi & 0x800000u ? limit << 12 | 0xfffu : limit};
}

static void start_registers(struct fuzz_case *k, struct rng *r)
{
	for (unsigned i = 0; i < 8; i++)
		k->cpu.gpr[i] = generate_value(r);
	k->cpu.gpr[ESP] = AT_STACKS;
	for (unsigned i = 0; i < 8; i++) {
		uint64_t v[2] = {rng_next(r), rng_next(r)};
		memcpy(k->cpu.fpu.fxsave + 160 + 16 * i, v, 16);
	}
}

static void start_protected(struct fuzz_case *k, struct rng *r, bool paging)
{
	struct vcpu *c = &k->cpu;
	const bool user = rng_percent(r, 35);

	load_segment(k, CS, user ? SEL_CODE3 : SEL_CODE0);
	for (unsigned s = 0; s < 6; s++)
		if (s != CS)
			load_segment(k, s, user ? SEL_DATA3 : SEL_DATA0);
	if (rng_percent(r, 20))
		load_segment(k, rng_below(r, 2) ? FS : ES, user ? 0xb3 : 0x50);
	c->cpl = user ? 3 : 0;
	c->eip = some_eip(r, paging);
	cpu_set_eflags(c, some_flags(r, user));
	if (rng_percent(r, 4)) { /* a 16-bit segment or one with a base */
		load_segment(k, CS, user ? 0x6b : rng_below(r, 2) ? 0x38 : 0x48);
		c->eip = rng_below(r, 0x10000);
	}
}

static void start_real(struct fuzz_case *k, struct rng *r)
{
	struct vcpu *c = &k->cpu;

	c->cr0 &= ~(CR0_PE | CR0_PG);
	for (unsigned s = 0; s < 6; s++) {
		c->seg[s].sel =
			s == CS ? AT_CODE16 >> 4 : (uint16_t)(rng_percent(r, 70) ? 0x2000 : rng_next(r));
		c->seg[s].base = (uint32_t)c->seg[s].sel << 4;
	}
	c->eip = rng_below(r, 0x800);
	c->idtr = (struct table_reg){.base = 0, .limit = 0x3ff};
	c->gpr[ESP] = 0xa000;
	cpu_set_eflags(c, some_flags(r, false) & ~FL_NT);
	c->cpl = 0;
}

/* Real-mode vectors lead on in the page of 16-bit code. */
static void make_ivt(struct fuzz_case *k, struct rng *r)
{
	for (unsigned v = 0; v < 256; v++)
		put32(k, 4 * v, (uint32_t)(AT_CODE16 >> 4) << 16 | (v < 32 ? 0xf00 : rng_below(r, 0x1000)));
}

static void make_code(struct fuzz_case *k, struct rng *r)
{
	memset(k->ram + AT_CODE, 0xcc, CODE_PAGES * 0x1000);
	for (uint32_t at = AT_CODE; at < AT_CODE + CODE_PAGES * 0x1000;) {
		uint32_t n = 16 + rng_below(r, 200), gap = rng_percent(r, 60) ? 0 : rng_below(r, 4);
		if (n > AT_CODE + CODE_PAGES * 0x1000 - at)
			n = AT_CODE + CODE_PAGES * 0x1000 - at;
		generate_code(r, k->ram + at, n, at, true);
		at += n + gap;
	}
	generate_code(r, k->ram + AT_CODE16, 0x1000, 0, false);
	k->ram[AT_CODE16 + 0xf00] = 0xf4; /* where real-mode exceptions end */
}

static void generate(struct fuzz_case *k, struct rng *r)
{
	struct vcpu *c = &k->cpu;
	const bool real = rng_percent(r, 5), paging = !real && rng_percent(r, 85);
	uint32_t cr3[2] = {0, 0};

	case_init(k);
	memcpy(k->ram + AT_STUBS, fuzz_kernel, (size_t)(fuzz_kernel_end - fuzz_kernel));
	c->cr0 = CR0_ET | CR0_PE | (paging ? CR0_PG : 0) | (rng_percent(r, 70) ? CR0_WP : 0) |
		 (rng_percent(r, 80) ? CR0_NE : 0) | (rng_percent(r, 10) ? CR0_AM : 0) |
		 (rng_percent(r, 5) ? CR0_TS : 0) | (rng_percent(r, 80) ? CR0_MP : 0);
	c->cr4 = (rng_percent(r, 60) ? CR4_PSE : 0) | (rng_percent(r, 30) ? CR4_PAE : 0) |
		 (rng_percent(r, 50) ? CR4_PGE : 0) | (rng_percent(r, 90) ? CR4_OSFXSR : 0) |
		 (rng_percent(r, 60) ? CR4_OSXMMEXCPT : 0) | (rng_percent(r, 20) ? CR4_VME : 0) |
		 (rng_percent(r, 10) ? CR4_PVI : 0) | (rng_percent(r, 10) ? CR4_DE : 0);
	c->efer = c->cr4 & CR4_PAE && rng_percent(r, 60) ? 0x800 : 0;
	make_ivt(k, r);
	make_gdt(k, r);
	make_idt(k, r);
	make_paging(k, r, cr3);
	make_tss(k, r, AT_TSS, AT_CODE, cr3[0]);
	make_tss(k, r, AT_TSS_DF, AT_ENTER_DF, cr3[0]);
	make_tss(k, r, AT_TSS_3, some_eip(r, paging), cr3[1]);
	make_code(k, r);
	for (unsigned i = 0; i < DATA_BYTES; i += 4)
		put32(k, AT_DATA + i,
		      i < 0x1000	  ? generate_value(r)
		      : rng_percent(r, 5) ? generate_value(r)
					  : 0);
	for (unsigned i = 0; i < CONTEXTS; i++)
		make_context(k, r, AT_CONTEXTS + CTX_BYTES * i, paging, cr3);
	put32(k, AT_LEFT, 1 + rng_below(r, CONTEXTS - 1));
	put32(k, AT_NEXT, AT_CONTEXTS);
	put32(k, AT_LOG_POINTER, AT_LOG);
	c->gdtr = (struct table_reg){.base = AT_GDT, .limit = 0xff};
	c->idtr = (struct table_reg){.base = AT_IDT, .limit = 0x7ff};
	c->tr = (struct seg){
		.sel = SEL_TSS, .attr = SEG_P | SYS_TSS32_BUSY, .base = AT_TSS, .limit = 0x67 + 0x80};
	c->ldtr = (struct seg){.sel = 0x60, .attr = SEG_P | SYS_LDT, .base = AT_LDT, .limit = 0xff};
	c->sysenter_cs = SEL_CODE0;
	c->sysenter_eip = some_eip(r, paging);
	c->sysenter_esp = AT_STACKS;
	start_registers(k, r);
	if (real)
		start_real(k, r);
	else
		start_protected(k, r, paging);
}

/* ------------------------------------------------------------------ changes */

static void change(struct fuzz_case *k, struct rng *r)
{
	static const struct {
		uint32_t at, n;
	} areas[] = {{AT_CODE, CODE_PAGES * 0x1000},
		     {AT_CODE, CODE_PAGES * 0x1000},
		     {AT_TABLES, 0x5000},
		     {AT_CONTEXTS, CONTEXTS * CTX_BYTES},
		     {AT_GDT, 0x100},
		     {AT_IDT, 0x800},
		     {AT_TSS, 0x100},
		     {AT_DATA, 0x400},
		     {AT_CODE16, 0x1000}};
	const unsigned a = rng_below(r, sizeof areas / sizeof areas[0]);
	uint32_t at = areas[a].at + rng_below(r, areas[a].n), n;

	switch (rng_below(r, 6)) {
	case 0:
		k->ram[at] ^= (uint8_t)(1u << rng_below(r, 8));
		break;
	case 1:
		k->ram[at] = (uint8_t)rng_next(r);
		break;
	case 2:
		put32(k, at & ~3u, generate_value(r));
		break;
	case 3: /* new code in a stretch of old */
		n = 4 + rng_below(r, 60);
		at = AT_CODE + rng_below(r, CODE_PAGES * 0x1000 - 64);
		generate_code(r, k->ram + at, n, at, true);
		break;
	case 4:
		k->cpu.gpr[rng_below(r, 8)] = generate_value(r);
		break;
	default: /* where it begins */
		k->cpu.eip = k->cpu.cr0 & CR0_PE ? some_eip(r, k->cpu.cr0 & CR0_PG) : rng_below(r, 0x1000);
	}
}

void generate_case(struct fuzz_case *k, const struct recipe *recipe)
{
	struct rng r = {recipe->seed};

	generate(k, &r);
	for (unsigned i = 0; i < recipe->n; i++) {
		struct rng ri = {recipe->change[i]};
		for (unsigned n = 1 + rng_below(&ri, 8); n; n--)
			change(k, &ri);
	}
}
