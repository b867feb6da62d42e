/*
 * The same instructions meet pages that are absent, read-only, the supervisor's or just another frame, over
 * and over, as in programs that touch fresh memory and kernels that copy on write: each access must fault
 * exactly if the entry says so (SDM vol. 3A 4.7), reach the frame that the entry names, and leave the A and D
 * bits that it asks for (4.8).
 */
#include "paging.h"

#define LINEAR	 0x02000000u /* beyond the identity map: its table is the test's */
#define TABLE	 (PLAYGROUND + 0x10000)
#define FRAME(n) (PLAYGROUND + 0x20000 + (n)*0x1000)
#define PAGES	 6u
#define FRAMES	 16u
#define ROUNDS	 400u
#define VALUE	 0x5a17c0deu

CODE(load, "", "movl (%ebx), %eax");
CODE(load_fs, "", "movl %fs:(%ebx), %eax");
CODE(load_moffs, "", "movl 0x02000020, %eax");
CODE(store, "", "movl %eax, (%ebx)");
CODE(store_disp, "", "movl %eax, 0x1000(%ebx)");
CODE(add, "", "addl %eax, (%ebx)");
CODE(exchange, "", "xchgl %eax, (%ebx)");
CODE(mmx, "movd %eax, %mm0", "movq %mm0, (%ebx)");
CODE(fpu, "fninit; movl %eax, fpu_word; fldl fpu_word", "fstpl (%ebx)");
CODE(push, "", "pushl %eax");
CODE(push_2, "", "pushl %eax; pushl %eax");
CODE(push_memory, "", "pushl (%ebx)");
CODE(pop, "", "popl %eax");
CODE(pop_memory, "", "popl absent_word");
CODE(call_near, "", "call call_near_after");
CODE(call_memory, "", "call *(%ebx)");
CODE(jump_memory, "", "jmp *(%ebx)");
CODE(ret, "", "ret");
CODE(leave, "", "leave");
CODE(stos, "movl $8, %ecx; cld", "rep stosl");
CODE(movs_to, "movl $8, %ecx; movl $absent_words, %esi; cld", "rep movsl");
CODE(movs_from, "movl $1, %ecx; movl $absent_word, %edi; cld", "rep movsl");
CODE(movs_nothing, "xorl %ecx, %ecx; movl %esi, %edi; cld", "rep movsl");
CODE(lods, "cld", "lodsl");

uint32_t absent_word, absent_words[8] = {VALUE, VALUE, VALUE, VALUE, VALUE, VALUE, VALUE, VALUE};
double fpu_word;

enum access { READ, WRITE, MODIFY, EXCHANGE, NONE };

static const struct kind {
	const char *label;
	const struct snippet *code;
	uint32_t *reg; /* gets the address, plus bias */
	int bias;
	enum access access;
	uint32_t *result; /* READ: where the value is afterwards; NULL: it is the address of what is behind */
	bool stack;	  /* only at CPL 3, where exceptions have a stack of their own */
} kinds[] = {
	{"load", &load, &in.ebx, 0, READ, &out.eax, false},
	{"load through fs", &load_fs, &in.ebx, 0, READ, &out.eax, false},
	{"load from a constant address", &load_moffs, NULL, 0, READ, &out.eax, false},
	{"store", &store, &in.ebx, 0, WRITE, NULL, false},
	{"store with a displacement", &store_disp, &in.ebx, -0x1000, WRITE, NULL, false},
	{"add to memory", &add, &in.ebx, 0, MODIFY, NULL, false},
	{"exchange", &exchange, &in.ebx, 0, EXCHANGE, NULL, false},
	{"MMX store", &mmx, &in.ebx, 0, WRITE, NULL, false},
	{"x87 store", &fpu, &in.ebx, 0, WRITE, NULL, false},
	{"rep stos", &stos, &in.edi, 0, WRITE, NULL, false},
	{"rep movs to it", &movs_to, &in.edi, 0, WRITE, NULL, false},
	{"rep movs from it", &movs_from, &in.esi, 0, READ, &absent_word, false},
	{"rep movs of nothing", &movs_nothing, &in.esi, 0, NONE, NULL, false},
	{"lods", &lods, &in.esi, 0, READ, &out.eax, false},
	{"jump through memory", &jump_memory, &in.ebx, 0, READ, NULL, false},
	{"push", &push, &in.esp, 4, WRITE, NULL, true},
	{"two pushes", &push_2, &in.esp, 4, WRITE, NULL, true},
	{"push from memory", &push_memory, &in.ebx, 0, READ, NULL, true},
	{"pop", &pop, &in.esp, 0, READ, &out.eax, true},
	{"pop to memory", &pop_memory, &in.esp, 0, READ, &absent_word, true},
	{"call", &call_near, &in.esp, 4, WRITE, NULL, true},
	{"call through memory", &call_memory, &in.ebx, 0, READ, NULL, true},
	{"ret", &ret, &in.esp, 0, READ, NULL, true},
	{"leave", &leave, &in.ebp, 0, READ, &out.ebp, true},
};

static void start(const struct kind *k, uint32_t linear, bool user)
{
	if (user)
		user_mode();
	in.eax = VALUE;
	if (k->reg)
		*k->reg = linear + (uint32_t)k->bias;
	absent_word = 0;
	run(k->code);
}

static uint32_t expected_word(const struct kind *k, uint32_t before)
{
	if (k->code == &call_near)
		return (uint32_t)k->code->after;
	if (k->access == MODIFY)
		return before + VALUE;
	return k->access == READ ? before : VALUE;
}

/* One access to linear, which entry maps: is everything as it must be? */
static bool good(const struct kind *k, uint32_t linear, bool user, volatile uint32_t *entry)
{
	const bool write = k->access != READ && k->access != NONE;
	const uint32_t was = *entry, error = (was & PTE_P) | (write ? PF_W : 0) | (user ? PF_U : 0);
	const bool faults = !(was & PTE_P) || (user && !(was & PTE_U)) || (write && !(was & PTE_W));
	volatile uint32_t *word = (volatile uint32_t *)((was & ~0xfffu) + (linear & 0xfff));
	const uint32_t before = k->access == READ && !k->result ? (uint32_t)k->code->after : linear ^ was;
	uint32_t bits = k->access == NONE ? 0 : PTE_A | (write ? PTE_D : 0);

	if (was & PTE_P)
		*word = before;
	start(k, linear, user);
	if (faults && k->access != NONE)
		return out.vector == X_PF && out.error == error && out.cr2 == linear &&
		       out.eip == (uint32_t)k->code->at && *entry == was &&
		       (!(was & PTE_P) || *word == before);
	if (out.vector != DONE_VECTOR || (*entry & ~bits) != (was & ~bits) || (*entry & bits) != bits)
		return false;
	if (k->access == NONE || (k->access == READ && !k->result))
		return true;
	if (k->access == READ)
		return *k->result == before;
	/* fstpl has stored eight bytes of which the first four are the value */
	return *word == expected_word(k, before);
}

static uint32_t any_entry(void)
{
	static const uint32_t rights[] = {
		0,
		PTE_P | PTE_U,
		PTE_P | PTE_U | PTE_A,
		PTE_ALL,
		PTE_ALL | PTE_A,
		PTE_ALL | PTE_A | PTE_D,
		PTE_P | PTE_W | PTE_A | PTE_D,
	};

	return FRAME(any(FRAMES)) | rights[any(sizeof(rights) / sizeof(*rights))];
}

static void go_through(const struct kind *k, bool user)
{
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		const uint32_t page = k->reg ? any(PAGES) : 0;
		const uint32_t linear = LINEAR + page * 4096 + (k->reg ? 8 + any(63) * 8 : 0x20);
		volatile uint32_t *entry = (volatile uint32_t *)TABLE + page;
		uint32_t times = any(8) ? 2 : 60;

		if (any(4)) {
			*entry = any_entry();
			flush(linear);
		}
		if (!good(k, linear, user, entry))
			wrong++;
		/* what a fault handler does; an entry that gains rights needs no flush */
		if (!(*entry & PTE_W) || !(*entry & PTE_U)) {
			*entry = FRAME(any(FRAMES)) | PTE_ALL;
			if (out.error & PF_P)
				flush(linear);
		}
		flush(linear);
		while (times--)
			wrong += !good(k, linear, user, entry);
	}
	print("%s, cpl %u\n", k->label, user ? 3 : 0);
	if (k->access == MODIFY || k->access == EXCHANGE)
		sdm("3A 4.7"); /* in QEMU it is the load that faults */
	check("  wrong", wrong, 0);
}

/* The first page is there, the second comes and goes. */
static void across(const struct snippet *code, bool write, bool user)
{
	volatile uint32_t *entries = (volatile uint32_t *)TABLE;
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		const uint32_t frame = any(FRAMES), linear = LINEAR + 0xffe;

		entries[0] = FRAME(frame) | PTE_ALL;
		entries[1] = any(2) ? FRAME(any(FRAMES)) | PTE_ALL : 0;
		set_cr3(get_cr3());
		for (uint32_t n = any(8) ? 2 : 30; n; n--) {
			if (user)
				user_mode();
			in.ebx = linear;
			in.eax = VALUE;
			MEM16(FRAME(frame) + 0xffe) = i;
			run(code);
			if (!entries[1])
				wrong += out.vector != X_PF || out.cr2 != LINEAR + 0x1000 ||
					 out.error != ((write ? PF_W : 0) | (user ? PF_U : 0)) ||
					 MEM16(FRAME(frame) + 0xffe) != (uint16_t)i;
			else
				wrong += out.vector != DONE_VECTOR ||
					 (write && MEM16(FRAME(frame) + 0xffe) != (uint16_t)VALUE) ||
					 (write && MEM16(entries[1] & ~0xfffu) != VALUE >> 16) ||
					 (!write && (uint16_t)out.eax != (uint16_t)i);
		}
	}
	print("%s across two pages, cpl %u\n", write ? "store" : "load", user ? 3 : 0);
	check("  wrong", wrong, 0);
}

void test(void)
{
	paging_on();
	set_cr0(get_cr0() | CR0_WP);
	memset((void *)TABLE, 0, 4096);
	page_directory[LINEAR >> 22] = TABLE | PTE_ALL;
	set_cr3(get_cr3());
	for (uint32_t user = 2; user--;) {
		for (uint32_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
			if (user || !kinds[i].stack)
				go_through(&kinds[i], user);
		across(&load, false, user);
		across(&store, true, user);
	}
	paging_off();
}
