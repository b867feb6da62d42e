/* test_interp_silicon.c - integer instructions of user mode, interpreted and run on the host, compared.
 *
 * Besides the flat segments there are some in the host's LDT: 16-bit code, a 16-bit stack, data with a base
 * and a limit, expand-down, read-only, execute-only. A case picks from them, so that limit checks, wrapping
 * stacks and 16-bit defaults compare as well.
 *
 * The host runs one instruction of a case in compatibility mode (CS 23h), single-stepped: a signal handler
 * replaces its context with the case's registers and TF set, and the next signal brings the registers, the
 * flags and the fault, if there was one. The code and data pages lie at the same addresses in the guest,
 * which is at CPL 3 with paging on, so that page faults compare too.
 *
 * Which flags an instruction leaves undefined comes from decode_flags: those are not compared unless
 * BT86_SILICON_ALL is set. BT86_SILICON_CASES is the number of cases, BT86_SILICON_SEED where the random
 * numbers start.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include <asm/ldt.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "interp_rig.h"
#include "vmm/interp/table.h"

#define CODE		0x100000u
#define DATA		0x200000u
#define DATA_PAGES	16u /* writable */
#define DATA_BYTES	(DATA_PAGES * PAGE_SIZE)
#define READONLY	(DATA + DATA_BYTES) /* one page; what follows is not mapped */

#define SEL_NATIVE_CODE 0x23
#define SEL_NATIVE_DATA 0x2b

/* The LDT. base and limit in bytes; attr as in a descriptor. */
static const struct {
	uint32_t base, limit;
	uint16_t attr;
} ldt[] = {
#define LDT_CODE16 0
	{0, 0xffffffff, SEG_CODE | SEG_RW},
#define LDT_STACK16 1
	{DATA, 0xffff, SEG_RW},
#define LDT_LIMITED 2
	{DATA + 0x123, 0x2fff, SEG_RW | SEG_DB},
#define LDT_DOWN 3
	{DATA, 0x1fff, SEG_RW | SEG_DC | SEG_DB},
#define LDT_READ_ONLY 4
	{0, 0xffffffff, SEG_DB},
#define LDT_EXECUTE_ONLY 5
	{0, 0xffffffff, SEG_CODE | SEG_DB},
#define LDT_DOWN16 6
	{DATA, 0x7fff, SEG_RW | SEG_DC},
#define LDT_USED 7
};
#define LDT_SEL(n) (uint16_t)((n) << 3 | 7)

static bool have_ldt;

/* Those that signal return sets. */
#define CASE_FLAGS (FL_ARITH | FL_DF | FL_AC)

struct regs {
	uint32_t gpr[8], eip, eflags;
	int trap; /* vector, or -1: none */
	uint32_t error, cr2;
	uint16_t cs, ss, ds, gs; /* ES is as DS, FS null */
};

/* ------------------------------------------------------------------ the host's side */

static const int greg_of[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI};
static struct regs native;
static gregset_t home;
static volatile bool away;

static void on_signal(int sig, siginfo_t *si, void *context)
{
	ucontext_t *u = context;
	greg_t *g = u->uc_mcontext.gregs;

	/* The kernel leaves the case's AC set, and takes NT and ID from here when the handler returns. */
	__asm__ volatile("pushfq\n\tandl %0, (%%rsp)\n\tpopfq"
			 :
			 : "i"(~(FL_AC | FL_NT | FL_ID))
			 : "cc", "memory");
	if (sig == SIGUSR1) {
		memcpy(home, g, sizeof home);
		for (unsigned r = 0; r < 8; r++)
			g[greg_of[r]] = native.gpr[r];
		g[REG_RIP] = native.eip;
		g[REG_EFL] = native.eflags | FL_TF | FL_IF | FL_1;
		g[REG_CSGSFS] = native.cs | (greg_t)native.ss << 48;
		away = true;
		return;
	}
	if (!away) {
		fprintf(stderr, "signal %d at %#llx, address %p\n", sig, (long long)g[REG_RIP], si->si_addr);
		_exit(99);
	}
	away = false;
	for (unsigned r = 0; r < 8; r++)
		native.gpr[r] = (uint32_t)g[greg_of[r]];
	native.eip = (uint32_t)g[REG_RIP];
	native.eflags = (uint32_t)g[REG_EFL];
	native.trap = sig == SIGTRAP && g[REG_TRAPNO] == 1 ? -1 : (int)g[REG_TRAPNO];
	native.error = (uint32_t)g[REG_ERR];
	native.cr2 = (uint32_t)g[REG_CR2];
	memcpy(g, home, sizeof home);
}

static void map(uint32_t at, size_t len)
{
	void *want = (void *)(uintptr_t)at;

	if (mmap(want, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		 0) != want) {
		perror("mmap");
		exit(1);
	}
}

/* Called by the test itself: cmocka has just put its own handlers in place. */
static void setup(void)
{
	static const int signals[] = {SIGUSR1, SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
	static uint8_t stack[65536];
	const stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	sigaltstack(&alt, NULL);
	for (unsigned k = 0; k < sizeof signals / sizeof *signals; k++)
		sigaction(signals[k], &sa, NULL);
	for (unsigned n = 0; n < LDT_USED; n++) {
		uint16_t attr = ldt[n].attr;
		bool pages = ldt[n].limit > 0xfffff;
		struct user_desc d = {.entry_number = n,
				      .base_addr = ldt[n].base,
				      .limit = pages ? ldt[n].limit >> 12 : ldt[n].limit,
				      .seg_32bit = !!(attr & SEG_DB),
				      .contents = (unsigned)(attr & SEG_CODE ? 2 : 0) | !!(attr & SEG_DC),
				      .read_exec_only = !(attr & SEG_RW),
				      .limit_in_pages = pages};

		have_ldt = syscall(SYS_modify_ldt, 0x11, &d, sizeof d) == 0;
	}
	map(CODE, PAGE_SIZE);
	map(DATA, DATA_BYTES + PAGE_SIZE);
}

static void run_native(void)
{
	native.error = native.cr2 = 0;
	/* 64-bit code does not care what is in these. */
	__asm__ volatile("mov %0, %%ds\n\tmov %0, %%es\n\tmov %1, %%gs" : : "r"(native.ds), "r"(native.gs));
	raise(SIGUSR1);
	/* The kernel gives error codes that are the instruction's only for these. */
	if (native.trap != VEC_PF)
		native.cr2 = 0;
	if (native.trap < 0)
		native.error = 0;
}

/* ------------------------------------------------------------------ the interpreter's side */

static struct regs guest;

static void guest_setup(void)
{
	rig_protected(3);
	rig_paging();
	for (uint32_t page = 0; page < 1024; page++) {
		uint32_t at = page << 12, pte = 0;

		if (at == CODE || at == READONLY)
			pte = at | PTE_P | PTE_US;
		else if (at >= DATA && at < DATA + DATA_BYTES)
			pte = at | PTE_P | PTE_US | PTE_RW;
		rig_put32(RIG_PT + 4 * page, pte);
	}
	mem_load_cr3(&rig);
	rig.tr.limit = 0; /* no I/O permission bitmap */
	rig.cr0 |= CR0_NE | CR0_MP | CR0_AM;
}

static struct seg guest_segment(uint16_t sel)
{
	struct seg s = {.sel = sel,
			.limit = 0xffffffff,
			.attr = SEG_P | SEG_S | SEG_DPL | SEG_ACCESSED | SEG_RW | SEG_DB};

	if (!sel)
		return (struct seg){0};
	if (sel & 4) {
		s.base = ldt[sel >> 3].base;
		s.limit = ldt[sel >> 3].limit;
		s.attr = SEG_P | SEG_S | SEG_DPL | SEG_ACCESSED | ldt[sel >> 3].attr;
	} else if (sel == SEL_NATIVE_CODE) {
		s.attr |= SEG_CODE;
	}
	return s;
}

/* TF keeps a repeated instruction to one round, as it does on the host. */
static void run_guest(const struct insn *i)
{
	interp_fn fn = interp_handler(i);
	int r;

	memcpy(rig.gpr, guest.gpr, sizeof rig.gpr);
	rig.eip = guest.eip;
	rig.seg[CS] = guest_segment(guest.cs);
	rig.seg[SS] = guest_segment(guest.ss);
	rig.seg[DS] = rig.seg[ES] = guest_segment(guest.ds);
	rig.seg[GS] = guest_segment(guest.gs);
	rig.seg[FS] = guest_segment(0);
	cpu_set_eflags(&rig, guest.eflags | FL_TF | FL_IF);
	rig.exc = (struct exception){0};
	rig.shadow = 0;
	r = fn(&rig, i);
	if (r == INSN_NEXT)
		rig.eip += i->len;
	guest.trap = r < 0 ? rig.exc.vector : -1;
	guest.error = r < 0 ? rig.exc.error : 0;
	guest.cr2 = r < 0 ? rig.exc.cr2 : 0;
	memcpy(guest.gpr, rig.gpr, sizeof rig.gpr);
	guest.eip = rig.eip;
	guest.eflags = cpu_eflags(&rig);
}

/* ------------------------------------------------------------------ cases */

static uint64_t seed = 88172645463325252ull;

static uint32_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16);
}

/* Opcodes of the one-byte map, then of 0F (with 0x100 added), 0F38 (0x200). Not those whose effect is the
 * kernel's business or differs by design: far transfers through descriptors that exist on the host only, INT,
 * time and identification, segment loads. */
static bool wanted(unsigned op)
{
	static const uint16_t not [] = {0x07,  0x17,  0x1f,  0x8e,  0x9a,  0xc4,  0xc5,	 0xca,	0xcb,  0xcc,
					0xcd,  0xce,  0xcf,  0xea,  0xf1,  0x9b,  0x100, 0x101, 0x102, 0x103,
					0x105, 0x107, 0x131, 0x133, 0x134, 0x135, 0x1a1, 0x1a9, 0x1a2, 0x1b2,
					0x1b4, 0x1b5, 0x1c7, 0x0f,  0x177, 0x63,  0x132, 0x130};

	for (unsigned k = 0; k < sizeof not / sizeof *not ; k++)
		if (op == not [k])
			return false;
	if (op >= 0xd8 && op <= 0xdf)
		return false;
	if (op >= 0x200)
		return op == 0x2f0 || op == 0x2f1;
	if (op >= 0x110 && op <= 0x117)
		return false;
	if ((op >= 0x128 && op <= 0x12f) || (op >= 0x150 && op <= 0x17f) || op == 0x1c2 ||
	    (op >= 0x1c4 && op <= 0x1c6) || op >= 0x1d0)
		return op >= 0x200;
	return true;
}

static unsigned put_opcode(uint8_t *p, unsigned op)
{
	unsigned n = 0;

	if (op >= 0x100)
		p[n++] = 0x0f;
	if (op >= 0x200)
		p[n++] = 0x38;
	p[n++] = (uint8_t)op;
	return n;
}

static void random_bytes(uint8_t code[16])
{
	static const uint8_t prefixes[] = {0x66, 0x66, 0x66, 0x67, 0xf2, 0xf3, 0xf0,
					   0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x65};
	unsigned n = 0, op;

	do {
		op = rnd() % 0x220;
		if (op >= 0x200)
			op = 0x2f0 + (op & 1);
	} while (!wanted(op));
	for (unsigned k = rnd() % 4; k > 1; k--)
		code[n++] = prefixes[rnd() % sizeof prefixes];
	if ((op == 0x2f0 || op == 0x2f1) && (rnd() & 1))
		code[n++] = 0xf2;
	n += put_opcode(code + n, op);
	for (; n < 16; n++)
		code[n] = (uint8_t)rnd();
}

static uint32_t random_value(void)
{
	static const uint32_t edges[] = {0,	 1,	 0xffffffff, 0x80000000, 0x7fffffff, 0xffff,
					 0x8000, 0x7fff, 0xff,	     0x80,	 0x7f};

	switch (rnd() % 8) {
	case 0:
		return edges[rnd() % (sizeof edges / sizeof *edges)];
	case 1:
		return rnd() & 0x3f;
	case 2:
		return rnd() & 0xff;
	case 3:
	case 4:
		return rnd();
	case 5: /* around the ends of pages and of the mapping */
		return DATA + (rnd() % (DATA_PAGES + 2)) * PAGE_SIZE + (rnd() & 15) - 8;
	default:
		return DATA + rnd() % DATA_BYTES;
	}
}

static uint16_t random_segment(bool stack)
{
	unsigned n = rnd() % (LDT_USED + 4);

	/* Loading a segment that may not be read is refused, and SS takes nothing but writable data. */
	if (!have_ldt || n >= LDT_USED || n == LDT_EXECUTE_ONLY ||
	    (stack && (ldt[n].attr & (SEG_CODE | SEG_RW)) != SEG_RW))
		return SEL_NATIVE_DATA;
	return LDT_SEL(n);
}

static uint16_t random_code_segment(void)
{
	if (!have_ldt)
		return SEL_NATIVE_CODE;
	switch (rnd() % 8) {
	case 0:
		return LDT_SEL(LDT_EXECUTE_ONLY);
	case 1:
	case 2:
		return LDT_SEL(LDT_CODE16);
	default:
		return SEL_NATIVE_CODE;
	}
}

/* The displacement of a memory operand is set so that the address falls near the data, mostly. */
static void aim(uint8_t *code, const struct insn *i, const struct regs *r)
{
	const uint16_t sel[6] = {r->ds, r->cs, r->ss, r->ds, 0, r->gs};
	uint32_t base = guest_segment(sel[i->seg]).base, sum;
	uint32_t target = base ? rnd() % 0x4000 : DATA + rnd() % (DATA_BYTES + PAGE_SIZE);

	if (!i->has_mem || i->disp_size != 4 || rnd() % 8 == 0)
		return;
	sum = target - (interp_ea(&rig, i) - (uint32_t)i->disp);
	memcpy(code + i->disp_off, &sum, 4);
}

static bool same(uint32_t undefined)
{
	uint32_t flags = CASE_FLAGS & ~undefined;

	/* An instruction that faults leaves all flags. */
	if (native.trap >= 0)
		flags = CASE_FLAGS;
	return memcmp(native.gpr, guest.gpr, sizeof native.gpr) == 0 && native.eip == guest.eip &&
	       native.trap == guest.trap && native.error == guest.error && native.cr2 == guest.cr2 &&
	       !((native.eflags ^ guest.eflags) & flags);
}

static void show(const char *who, const struct regs *r)
{
	printf("  %-7s eip %08x eflags %08x trap %d error %x cr2 %08x\n         ", who, r->eip, r->eflags,
	       r->trap, r->error, r->cr2);
	for (unsigned k = 0; k < 8; k++)
		printf(" %08x", r->gpr[k]);
	printf(" cs %x ss %x ds %x gs %x\n", r->cs, r->ss, r->ds, r->gs);
}

static unsigned failures;

static void report(const uint8_t *code, const struct insn *i, const struct regs *before)
{
	static unsigned per_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];

	failures++;
	if (per_mnemonic[i->mnemonic]++ > 1 || failures > 60)
		return;
	printf("%s:", ZydisMnemonicGetString((ZydisMnemonic)i->mnemonic));
	for (unsigned k = 0; k < i->len; k++)
		printf(" %02x", code[k]);
	printf("\n");
	show("before", before);
	show("silicon", &native);
	show("interp", &guest);
}

static bool skipped(const struct insn *i)
{
	if (!wanted(i->opmap * 0x100u + i->opcode))
		return true;
	if (i->opmap == 0 && i->opcode == 0xff && (i->reg == 3 || i->reg == 5))
		return true;
	/* FXSAVE and the like are not integer instructions; with F3, BSF and BSR are TZCNT and LZCNT on the
	 * host. */
	return i->opmap == 1 &&
	       ((i->opcode == 0xae && i->reg < 5) || ((i->opcode & 0xfe) == 0xbc && (i->prefix & INSN_REP)));
}

static void one_case(bool all_flags)
{
	uint8_t *mem = (uint8_t *)(uintptr_t)DATA, *shadow = mem_ptr(rig.mem, DATA, DATA_BYTES);
	uint8_t code[16];
	struct regs before = {.trap = -1};
	struct insn i;

	before.cs = random_code_segment();
	before.ss = random_segment(true);
	before.ds = random_segment(false);
	before.gs = random_segment(false);
	for (unsigned r = 0; r < 8; r++)
		before.gpr[r] = rig.gpr[r] = random_value();
	if (rnd() % 4)
		before.gpr[ESP] = rig.gpr[ESP] =
			(before.ss & 4 ? 0 : DATA) + 64 +
			rnd() % (before.ss & 4 && rnd() % 2 ? 0x2f00 : DATA_BYTES - 128);
	else if (rnd() % 2) /* near the ends of a 64 KiB stack */
		before.gpr[ESP] = rig.gpr[ESP] = (rnd() & 0xffff0000u) | (((rnd() & 31) - 16) & 0xffff);
	before.eflags = rnd() & (FL_ARITH | FL_DF | (rnd() % 4 ? 0 : FL_AC));
	random_bytes(code);
	if (decode_insn(code, 15, before.cs != LDT_SEL(LDT_CODE16), &i) != DECODE_OK || skipped(&i))
		return;
	aim(code, &i, &before);
	decode_insn(code, 15, before.cs != LDT_SEL(LDT_CODE16), &i);
	before.eip = CODE + rnd() % (PAGE_SIZE - 16);
	memcpy((void *)(uintptr_t)before.eip, code, i.len);
	mem_phys_write(rig.mem, before.eip, code, i.len);
	*(uint32_t *)(void *)(mem + (rnd() % (DATA_BYTES / 4)) * 4) = rnd();
	memcpy(shadow, mem, DATA_BYTES);

	native = guest = before;
	run_native();
	run_guest(&i);
	/* On some CPUs a POPA that faults half-way has loaded the registers up to there. */
	if (i.opmap == 0 && i.opcode == 0x61 && native.trap >= 0)
		memcpy(native.gpr, before.gpr, sizeof native.gpr);
	if (!same(all_flags ? 0 : i.fl_undefined) || memcmp(mem, shadow, DATA_BYTES))
		report(code, &i, &before);
}

static void test_silicon(void **state)
{
	const char *cases = getenv("BT86_SILICON_CASES"), *start = getenv("BT86_SILICON_SEED");
	bool all = getenv("BT86_SILICON_ALL");
	uint8_t *mem = (uint8_t *)(uintptr_t)DATA;

	(void)state;
	if (start)
		seed = strtoull(start, NULL, 0) * 0x9e3779b97f4a7c15ull | 1;
	setup();
	guest_setup();
	for (uint32_t k = 0; k < DATA_BYTES + PAGE_SIZE; k++)
		mem[k] = (uint8_t)(rnd() >> 3);
	rig_bytes(READONLY, mem + DATA_BYTES, PAGE_SIZE);
	mprotect((void *)(uintptr_t)READONLY, PAGE_SIZE, PROT_READ);
	mprotect((void *)(uintptr_t)CODE, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
	for (unsigned long n = cases ? strtoul(cases, NULL, 0) : 100000; n--;)
		one_case(all);
	assert_int_equal(failures, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_silicon)};

#ifdef __SANITIZE_ADDRESS__
	puts("skipped: AddressSanitizer's shadow memory lies where the test's 32-bit code may read and "
	     "write");
	return 77;
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
