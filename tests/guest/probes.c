/*
 * Accesses of every size to pages that come, go, and are shared, in numbers in which a translator learns to
 * look before it accesses memory: at the borders of pages, with frames exchanged and rights taken away
 * between two flushes (SDM vol. 3A 4.10.4), in two address spaces, through segments that end, and into code
 * that has run.
 */
#include "paging.h"

#define LINEAR	  0x02000000u /* beyond the identity map: its table is the test's */
#define TABLE	  (PLAYGROUND + 0x10000)
#define TABLE_2	  (PLAYGROUND + 0x11000)
#define DIRECTORY (PLAYGROUND + 0x12000)
#define FRAME(n)  (PLAYGROUND + 0x20000 + (n)*0x1000)
#define FRAMES	  8u
#define ROUNDS	  300u
#define AROUND	  32u /* bytes looked at on each side of a border */
#define SEL_SHORT (FREE_SELECTOR + 3)

uint8_t probe_value[16];

CODE(load_1, "", "movb (%ebx), %ah; movb %ah, probe_value");
CODE(load_1_low, "", "movb (%ebx), %al; movb %al, probe_value");
CODE(load_2, "", "movw (%ebx), %ax; movw %ax, probe_value");
CODE(load_4, "", "movl (%ebx), %eax; movl %eax, probe_value");
CODE(load_8, "", "movq (%ebx), %mm0; movq %mm0, probe_value; emms");
CODE(load_10, "fninit", "fldt (%ebx); fstpt probe_value");
CODE(load_16, "", "movups (%ebx), %xmm0; movups %xmm0, probe_value");
CODE(store_1, "movb probe_value, %ah", "movb %ah, (%ebx)");
CODE(store_1_low, "movb probe_value, %al", "movb %al, (%ebx)");
CODE(store_2, "movw probe_value, %ax", "movw %ax, (%ebx)");
CODE(store_4, "movl probe_value, %eax", "movl %eax, (%ebx)");
CODE(store_8, "movq probe_value, %mm0", "movq %mm0, (%ebx); emms");
CODE(store_10, "fninit; fldt probe_value", "fstpt (%ebx)");
CODE(store_16, "movups probe_value, %xmm0", "movups %xmm0, (%ebx)");
CODE(exchange_4, "movl probe_value, %eax", "xchgl %eax, (%ebx)");
CODE(load_fs, "", "movl %fs:(%ebx), %eax");
CODE(store_fs, "", "movl %eax, %fs:(%ebx)");
CODE(immediate_4, "", "movl $0x5a17c0de, (%ebx)");

static const struct kind {
	const char *label;
	const struct snippet *code;
	uint32_t bytes;
	bool write;
} kinds[] = {
	{"load of a byte to ah", &load_1, 1, false},
	{"load of a byte", &load_1_low, 1, false},
	{"load of a word", &load_2, 2, false},
	{"load of four bytes", &load_4, 4, false},
	{"load of eight bytes", &load_8, 8, false},
	{"load of ten bytes", &load_10, 10, false},
	{"load of sixteen bytes", &load_16, 16, false},
	{"store of a byte from ah", &store_1, 1, true},
	{"store of a byte", &store_1_low, 1, true},
	{"store of a word", &store_2, 2, true},
	{"store of four bytes", &store_4, 4, true},
	{"store of eight bytes", &store_8, 8, true},
	{"store of ten bytes", &store_10, 10, true},
	{"store of sixteen bytes", &store_16, 16, true},
	{"exchange", &exchange_4, 4, true},
};

static volatile uint32_t *const entries = (volatile uint32_t *)TABLE;

static void any_value(uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes; i++)
		probe_value[i] = any(256);
}

static void go(const struct snippet *code, uint32_t linear, bool user)
{
	if (user)
		user_mode();
	in.ebx = linear;
	run(code);
}

/* The byte at offset i from LINEAR, in the two frames there. */
static volatile uint8_t *at(uint32_t i)
{
	return &MEM8((entries[i >> 12] & ~0xfffu) + (i & 0xfff));
}

/* An access at offset from LINEAR; both pages are there. */
static bool right(const struct kind *k, uint32_t offset, bool user)
{
	const uint32_t first = 0x1000 - AROUND;
	uint8_t was[2 * AROUND];

	for (uint32_t i = 0; i < sizeof(was); i++)
		*at(first + i) = was[i] = any(256);
	any_value(k->bytes);
	if (k->bytes == 10) /* a normal number, whatever the rest */
		probe_value[7] |= 0x80, probe_value[9] = 0x3f,
					was[offset - first + 7] = *at(offset + 7) = 0x80,
					was[offset - first + 9] = *at(offset + 9) = 0x3f;
	go(k->code, LINEAR + offset, user);
	if (out.vector != DONE_VECTOR)
		return false;
	if (k->write)
		memcpy(was + offset - first, probe_value, k->bytes);
	else if (memcmp(was + offset - first, probe_value, k->bytes))
		return false;
	for (uint32_t i = 0; i < sizeof(was); i++)
		if (*at(first + i) != was[i])
			return false;
	return true;
}

/* In both pages and across their border, with other frames all the time. */
static void borders(const struct kind *k, bool user)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		const uint32_t frame = any(FRAMES);

		if (!i || any(3)) {
			entries[0] = FRAME(frame) | PTE_ALL;
			entries[1] = FRAME((frame + 1 + any(FRAMES - 1)) % FRAMES) | PTE_ALL;
			set_cr3(get_cr3());
		}
		for (uint32_t n = any(10) ? 3 : 40; n; n--)
			wrong += !right(k, 0x1000 - 16 + any(32 - k->bytes), user);
	}
	print("%s, cpl %u\n", k->label, user ? 3 : 0);
	check("  wrong at the border of two pages", wrong, 0);

	/* what may not be done any more */
	wrong = 0;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		const uint32_t frame = any(FRAMES), error = (k->write ? PF_W : 0) | (user ? PF_U : 0);
		uint32_t less = 0;

		entries[0] = entries[1] = FRAME(frame) | PTE_ALL;
		set_cr3(get_cr3());
		for (uint32_t n = 1 + any(3); n; n--)
			go(k->code, LINEAR + 0x1000, user);
		if (user && any(2))
			less = FRAME(frame) | PTE_P | PTE_W;
		else if (k->write && any(2))
			less = FRAME(frame) | PTE_P | PTE_U;
		entries[1] = less;
		flush(LINEAR + 0x1000);
		go(k->code, LINEAR + 0x1000, user);
		wrong += out.vector != X_PF || out.error != (error | (less & PTE_P)) ||
			 out.cr2 != LINEAR + 0x1000;
	}
	if (k->code == &exchange_4)
		sdm("3A 4.7"); /* in QEMU it is the load that faults */
	check("  wrong after rights were taken away", wrong, 0);
}

/* The kernel uses a page that its user must not, with the same instructions on pages of both kinds. */
static void supervisor(void)
{
	uint32_t wrong = 0;

	entries[0] = FRAME(0) | PTE_P | PTE_W;
	entries[1] = FRAME(1) | PTE_ALL;
	set_cr3(get_cr3());
	for (uint32_t i = 0; i < ROUNDS; i++) {
		MEM32(FRAME(0)) = i;
		MEM32(FRAME(1)) = ~i;
		go(&load_4, LINEAR, false);
		wrong += out.vector != DONE_VECTOR || out.eax != i;
		go(&load_4, LINEAR + 0x1000, any(2));
		wrong += out.vector != DONE_VECTOR || out.eax != ~i;
		go(&load_4, LINEAR, true);
		wrong += out.vector != X_PF || out.error != (PF_P | PF_U);
		go(&immediate_4, LINEAR, true);
		wrong += out.vector != X_PF || MEM32(FRAME(0)) != i;
		if (!any(8))
			set_cr3(get_cr3());
	}
	check("wrong with pages of the supervisor's", wrong, 0);
}

/* Page 0 is another frame in each space, page 256 later, and 512, share what is remembered of it. */
static void spaces(void)
{
	uint32_t wrong = 0;

	memcpy((void *)DIRECTORY, page_directory, 4096);
	MEM32(DIRECTORY + (LINEAR >> 22) * 4) = TABLE_2 | PTE_ALL;
	for (uint32_t i = 0; i < 3; i++) {
		entries[i * 256] = FRAME(i) | PTE_ALL;
		MEM32(TABLE_2 + i * 1024) = FRAME(i + 3) | PTE_ALL;
	}
	set_cr3(get_cr3());
	for (uint32_t i = 0; i < 4 * ROUNDS; i++) {
		const uint32_t page = any(3), second = get_cr3() == DIRECTORY ? 3 : 0;
		const bool user = any(2);

		MEM32(FRAME(page + second)) = i;
		go(&load_4, LINEAR + page * 0x100000, user);
		wrong += out.vector != DONE_VECTOR || out.eax != i;
		any_value(4);
		go(&store_4, LINEAR + page * 0x100000, user);
		wrong += out.vector != DONE_VECTOR || MEM32(FRAME(page + second)) != *(uint32_t *)probe_value;
		if (!any(5))
			set_cr3(second ? (uint32_t)page_directory : DIRECTORY);
	}
	set_cr3((uint32_t)page_directory);
	check("wrong in two address spaces", wrong, 0);
}

/* A page that has come and gone, and is there and known. */
static uint32_t well_known(const struct snippet *code)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		entries[0] = any(2) || i + 1 == ROUNDS ? FRAME(any(FRAMES)) | PTE_ALL : 0;
		set_cr3(get_cr3());
		for (uint32_t n = 0; n < 2; n++) {
			go(code, LINEAR + 0x7fd, true);
			wrong += out.vector != (entries[0] ? DONE_VECTOR : X_PF);
		}
	}
	return wrong;
}

/* Beyond a segment's limit there is no access, whether the page is known or not. */
static void limits(void)
{
	uint32_t wrong = 0;

	set_segment(SEL_SHORT, LINEAR, 0x7ff, SEG_DATA32 | SEG_DPL(3));
	for (uint32_t write = 0; write < 2; write++) {
		wrong += well_known(write ? &store_fs : &load_fs);
		user_mode();
		in.fs = SEL_SHORT;
		in.ebx = 0x7fd;
		run(write ? &store_fs : &load_fs);
		wrong += out.vector != X_GP;
	}
	entries[0] = FRAME(0) | PTE_ALL;
	set_cr3(get_cr3());
	for (uint32_t i = 0; i < 2 * ROUNDS; i++) {
		const bool whole = any(2), within = any(2), write = any(2);
		const uint32_t offset = within ? 0x100 : 0x7fd;

		if (any(2))
			set_cr3(get_cr3());
		MEM32(FRAME(0) + offset) = ~i;
		user_mode();
		if (!whole)
			in.fs = SEL_SHORT;
		in.ebx = offset + (whole ? LINEAR : 0);
		in.eax = i;
		run(write ? &store_fs : &load_fs);
		if (!whole && !within)
			wrong += out.vector != X_GP || MEM32(FRAME(0) + offset) != ~i;
		else
			wrong += out.vector != DONE_VECTOR || MEM32(FRAME(0) + offset) != (write ? i : ~i) ||
				 out.eax != (write ? i : ~i);
	}
	sdm("3A 5.3"); /* QEMU does not check limits */
	check("wrong at the end of a segment", wrong, 0);
}

/* Code that has run is overwritten where it is known under another address. */
static void code(void)
{
	uint32_t wrong = 0;

	memset((void *)FRAME(0), 0, 4096);
	MEM8(FRAME(0)) = 0xb8; /* mov eax, imm32; int 0x30 */
	MEM8(FRAME(0) + 5) = 0xcd;
	MEM8(FRAME(0) + 6) = DONE_VECTOR;
	entries[0] = entries[1] = FRAME(0) | PTE_ALL;
	set_cr3(get_cr3());
	const struct snippet planted = {(const char *)FRAME(0), (const char *)FRAME(0),
					(const char *)FRAME(0) + 5};

	for (uint32_t i = 0; i < ROUNDS; i++) {
		const bool user = any(2);

		any_value(4);
		/* its neighbour's last byte, before there is code and behind it */
		for (uint32_t n = any(4); n; n--)
			go(&store_1_low, LINEAR + 0x1000 * any(2) + 0x800, user);
		go(&store_4, LINEAR + 0x1000 * any(2) + 1, user);
		wrong += out.vector != DONE_VECTOR;
		go(&planted, 0, user);
		wrong += out.vector != DONE_VECTOR || out.eax != *(uint32_t *)probe_value;
		if (!any(6))
			set_cr3(get_cr3());
	}
	check("wrong after code was overwritten", wrong, 0);
}

void test(void)
{
	paging_on();
	set_cr0((get_cr0() | CR0_WP) & ~(CR0_EM | CR0_TS));
	set_cr4(get_cr4() | CR4_OSFXSR);
	__asm__ volatile("fninit");
	memset((void *)TABLE, 0, 4096);
	memset((void *)TABLE_2, 0, 4096);
	page_directory[LINEAR >> 22] = TABLE | PTE_ALL;
	set_cr3(get_cr3());
	for (uint32_t user = 2; user--;)
		for (uint32_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
			borders(&kinds[i], user);
	supervisor();
	spaces();
	limits();
	code();
	paging_off();
}
