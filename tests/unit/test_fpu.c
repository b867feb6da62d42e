/* test_fpu.c - interp_fpu against the silicon.
 *
 * The oracle executes the instruction under test natively in compatibility mode: it loads an FXSAVE image,
 * the general registers and EFLAGS, jumps to 32-bit code in low memory that holds the instruction, comes
 * back, and stores everything. Signals give it the exceptions. interp_fpu gets the same state; afterwards
 * registers, flags, image, memory, vector, error code and CR2 must be the same.
 *
 * The interpreter's side has a fake memory of one page at the address of the oracle's, so that operands
 * across either of its ends fault in both.
 *
 *     unit_fpu                        every instruction, a fixed seed
 *     FPU_TEST_CASES=1000 unit_fpu    that many cases for each instruction form, then more seeds
 *     FPU_TEST_SEED=7 unit_fpu
 */
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/interp/hostunit.h"
#include "vmm/interp/interp.h"

/* ------------------------------------------------------------------ the oracle */

#define CODE_AT	  0x10000000u /* the instruction; from BACK_OFF on the way back */
#define BACK_OFF  0x800u
#define LOW_AT	  0x10010000u
#define DATA_AT	  0x10021000u /* one page, nothing around it */
#define USER32_CS 0x23
#define USER_DS	  0x2b

struct low { /* what the oracle's assembly reaches by absolute addresses */
	_Alignas(64) uint8_t fx[512];
	_Alignas(64) uint8_t host_fx[512];
	uint32_t gpr[8];
	uint64_t flags;
	uint64_t host_rsp;
	struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) target;
};
#define LOW  ((struct low *)(uintptr_t)LOW_AT)
#define DATA ((uint8_t *)(uintptr_t)DATA_AT)

_Static_assert(offsetof(struct low, gpr) == 0x400, "oracle assembly");
_Static_assert(offsetof(struct low, flags) == 0x420, "oracle assembly");
_Static_assert(offsetof(struct low, host_rsp) == 0x428, "oracle assembly");
_Static_assert(offsetof(struct low, target) == 0x430, "oracle assembly");

void oracle_enter(void);
extern const uint8_t oracle_back[], oracle_back_end[];
__asm__(".text\n"
	"oracle_enter:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"	mov $0x10010000, %r15d\n"
	"	mov %rsp, 0x428(%r15)\n"
	"	fxsave64 0x200(%r15)\n"
	"	mov $0x2b, %eax; mov %eax, %ds; mov %eax, %es\n"
	"	pushq 0x420(%r15)\n"
	"	popfq\n"
	"	fxrstor (%r15)\n"
	"	mov 0x400(%r15), %eax; mov 0x404(%r15), %ecx; mov 0x408(%r15), %edx; mov 0x40c(%r15), %ebx\n"
	"	mov 0x410(%r15), %esp; mov 0x414(%r15), %ebp; mov 0x418(%r15), %esi; mov 0x41c(%r15), %edi\n"
	"	ljmpl *0x430(%r15)\n"
	"oracle_back:\n" /* copied to CODE_AT + BACK_OFF; 64-bit again */
	"	mov %eax, 0x10010400; mov %ecx, 0x10010404; mov %edx, 0x10010408; mov %ebx, 0x1001040c\n"
	"	mov %esp, 0x10010410; mov %ebp, 0x10010414; mov %esi, 0x10010418; mov %edi, 0x1001041c\n"
	"	fxsave 0x10010000\n"
	"	mov 0x10010428, %rsp\n"
	"	pushfq\n"
	"	popq 0x10010420\n"
	"	pushq $0x202\n"
	"	popfq\n"
	"	fxrstor64 0x10010200\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	ret\n"
	"oracle_back_end:\n");

struct outcome {
	int vector; /* -1: none */
	uint32_t error, cr2;
};
static volatile struct outcome native;

/* A fault in the 32-bit code goes on at oracle_back, with the state as it is. */
static void on_signal(int sig, siginfo_t *si, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

	if ((r[REG_CSGSFS] & 0xffff) != USER32_CS) {
		signal(sig, SIG_DFL);
		return;
	}
	(void)si;
	native.vector = (int)r[REG_TRAPNO];
	native.error = (uint32_t)r[REG_ERR];
	native.cr2 = native.vector == VEC_PF ? (uint32_t)r[REG_CR2] : 0;
	r[REG_CSGSFS] = (greg_t)(((uint64_t)r[REG_CSGSFS] & ~0xffffull) | 0x33);
	r[REG_RIP] = CODE_AT + BACK_OFF;
}

static void *low_map(uint32_t at, size_t len, int prot)
{
	void *p = mmap((void *)(uintptr_t)at, len, prot, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	assert_ptr_equal(p, (void *)(uintptr_t)at);
	return p;
}

static void oracle_init(void)
{
	uint8_t *code = low_map(CODE_AT, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
	stack_t ss = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};

	low_map(LOW_AT, 4096, PROT_READ | PROT_WRITE);
	low_map(DATA_AT, 4096, PROT_READ | PROT_WRITE);
	memcpy(code + BACK_OFF, oracle_back, (size_t)(oracle_back_end - oracle_back));
	sigaltstack(&ss, NULL);
	LOW->target.offset = CODE_AT;
	LOW->target.selector = USER32_CS;
}

/* cmocka has handlers of its own, which it installs before each test. */
static void oracle_take_signals(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	for (unsigned k = 0; k < sizeof signals / sizeof *signals; k++)
		sigaction(signals[k], &sa, NULL);
}

/* Executes code with the state in LOW and DATA; leaves the state after there. */
static void oracle_run(const uint8_t *code, unsigned len)
{
	const uint32_t back = CODE_AT + BACK_OFF;
	uint8_t *p = (uint8_t *)(uintptr_t)CODE_AT;

	memcpy(p, code, len);
	p[len] = 0xea; /* ljmp 0x33:back */
	memcpy(p + len + 1, &back, 4);
	p[len + 5] = 0x33;
	p[len + 6] = 0;
	native.vector = -1;
	native.error = native.cr2 = 0;
	oracle_enter();
}

/* ------------------------------------------------------------------ what interp_fpu needs around it */

static uint8_t page[4096]; /* the interpreter's view of DATA */
static struct vcpu cpu;

void cpuid_query(const struct vcpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	(void)c;
	__get_cpuid_count(leaf, subleaf, &out[0], &out[1], &out[2], &out[3]);
}

int mem_probe(struct vcpu *c, uint32_t lin, unsigned len, unsigned acc)
{
	uint32_t bad = lin < DATA_AT || lin >= DATA_AT + 4096 ? lin : DATA_AT + 4096;

	if (bad == lin || lin + len > bad)
		return cpu_raise_pf(c, bad, (acc & ACC_WRITE ? PF_W : 0) | (acc & ACC_USER ? PF_U : 0));
	return 0;
}

int mem_read(struct vcpu *c, uint32_t lin, void *buf, unsigned len, unsigned acc)
{
	if (mem_probe(c, lin, len, acc))
		return -1;
	memcpy(buf, page + (lin - DATA_AT), len);
	return 0;
}

int mem_write(struct vcpu *c, uint32_t lin, const void *buf, unsigned len, unsigned acc)
{
	if (mem_probe(c, lin, len, acc | ACC_WRITE))
		return -1;
	memcpy(page + (lin - DATA_AT), buf, len);
	return 0;
}

int interp_linear_checked(struct vcpu *c, unsigned seg, uint32_t off, unsigned size, bool write,
			  uint32_t *lin)
{
	const struct seg *s = &c->seg[seg];

	*lin = s->base + off;
	if (!(s->attr & SEG_P) || (write && !(s->attr & SEG_RW)) || off > s->limit ||
	    size - 1 > s->limit - off)
		return cpu_raise_error(c, seg == SS ? VEC_SS : VEC_GP, 0);
	if ((size == 2 || size == 4 || size == 8) && (*lin & (size - 1)) && c->cpl == 3 &&
	    (c->cr0 & CR0_AM) && (c->sysflags & FL_AC))
		return cpu_raise_error(c, VEC_AC, 0);
	return 0;
}

static void cpu_init(void)
{
	static struct soft_tlb tlb; /* always misses */
	const struct seg flat = {
		.sel = USER_DS, .attr = SEG_P | SEG_S | SEG_RW | SEG_DB, .limit = 0xffffffff};

	memset(&cpu, 0, sizeof cpu);
	cpu_reset(&cpu);
	for (unsigned k = 0; k < 6; k++)
		cpu.seg[k] = flat;
	cpu.seg[CS].sel = USER32_CS;
	cpu.seg[CS].attr |= SEG_CODE;
	cpu.cr0 = CR0_PE | CR0_MP | CR0_NE | CR0_AM | CR0_PG;
	cpu.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
	cpu.cpl = 3;
	cpu.eip = CODE_AT;
	cpu.mem = (struct mem *)(void *)&tlb;
}

/* ------------------------------------------------------------------ random states */

static uint64_t rng;

static uint32_t rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 16);
}

static unsigned below(unsigned n)
{
	return rnd() % n;
}

/* A number with exponent and fraction widths e and f (without sign) of a kind that matters. */
static uint64_t rnd_float(unsigned e, unsigned f)
{
	const uint64_t emax = (1ull << e) - 1, fmask = (1ull << f) - 1, bias = emax >> 1;
	const uint64_t bits = ((uint64_t)rnd() << 32 | rnd()) & fmask;
	uint64_t exponent, fraction = bits;

	switch (below(10)) {
	case 0:
		exponent = fraction = 0;
		break;
	case 1:
		exponent = 0; /* denormal */
		break;
	case 2:
		exponent = emax;
		fraction = 0;
		break;
	case 3:
		exponent = emax; /* NaN */
		break;
	case 4:
		exponent = 1 + below(4);
		fraction = below(2) ? bits : bits & ~(fmask >> below(f));
		break;
	case 5:
		exponent = emax - 1 - below(3);
		break;
	case 6:
		exponent = bias + below(70);
		fraction = bits & ~(fmask >> below(f));
		break;
	case 7:
		exponent = bias / 2 + below(8);
		break;
	default:
		exponent = bias - 4 + below(8);
	}
	return ((uint64_t)below(2) << e | exponent) << f | fraction;
}

static void rnd_st(uint8_t *st)
{
	const uint64_t v = rnd_float(15, 48); /* sign and exponent, 48 bits of fraction */
	uint64_t fraction = v << 16 >> 1;
	uint16_t top = (uint16_t)(v >> 48);

	if ((top & 0x7fff) || below(16) == 0)
		fraction |= 1ull << 63;
	if (below(40) == 0)
		fraction ^= 1ull << 63; /* unnormal, pseudo-denormal */
	if (below(3))
		fraction |= rnd() & 0xffff;
	memcpy(st, &fraction, 8);
	memcpy(st + 8, &top, 2);
	memset(st + 10, 0, 6);
}

static void rnd_vector(uint8_t *v, unsigned len)
{
	unsigned kind = below(4);

	for (unsigned k = 0; k < len; k += 8) {
		uint64_t q = (uint64_t)rnd() << 32 | rnd();

		if (kind == 0)
			q = rnd_float(11, 52);
		else if (kind == 1)
			q = rnd_float(8, 23) << 32 | rnd_float(8, 23);
		else if (kind == 2 && below(2))
			q &= 0x80ff00ff01807fffull;
		memcpy(v + k, &q, 8);
	}
}

static void rnd_state(uint32_t flags)
{
	uint8_t *fx = LOW->fx;
	uint32_t fcw = (below(4) ? 0x3f : rnd() & 0x3f) | (rnd() & 0xc00), mxcsr = rnd() & 0xe07f;

	memset(fx, 0, 512);
	fcw |= (uint32_t[]){0x000, 0x200, 0x300, 0x300}[below(4)];
	mxcsr |= below(3) ? MXCSR_MASKS : rnd() & MXCSR_MASKS;
	if (below(3))
		mxcsr &= ~0x8040u;
	for (unsigned k = 0; k < 8; k++) {
		rnd_st(fx + FX_ST + 16 * k);
		rnd_vector(fx + FX_XMM + 16 * k, 16);
		LOW->gpr[k] = below(3) ? below(20) : rnd();
	}
	fpu_set_control(fx, fcw, below(16) ? rnd() & 0x4700 : rnd() & 0x473f);
	fx_put16(fx, FX_FSW, fx_get16(fx, FX_FSW) | below(8) << 11);
	fx[FX_FTW] = (uint8_t)(below(4) ? rnd() | rnd() | rnd() : below(2) ? 0xff : 0);
	fx_put16(fx, FX_FOP, rnd() & FOP_MASK);
	fx_put32(fx, FX_FIP, rnd());
	fx_put16(fx, FX_FCS, rnd());
	fx_put32(fx, FX_FDP, rnd());
	fx_put16(fx, FX_FDS, rnd());
	fx_put32(fx, FX_MXCSR, mxcsr & hostunit_traits.mxcsr_mask);
	LOW->flags = (rnd() & (FL_ARITH)) | 0x202 | flags;
	for (unsigned k = 0; k < 4096; k += 32)
		rnd_vector(DATA + k, 8);
}

/* Where the memory operand is: mostly aligned, sometimes anywhere, or across an end of the page. */
static uint32_t rnd_address(void)
{
	switch (below(16)) {
	case 0:
	case 1:
	case 2:
		return DATA_AT + 1024 + below(64);
	case 3:
		return DATA_AT + 4096 - below(600);
	case 4:
		return DATA_AT + 4096 - below(18);
	case 5:
		return DATA_AT - below(18);
	default:
		return DATA_AT + 512 + 64 * below(16);
	}
}

/* ------------------------------------------------------------------ one case */

struct snapshot {
	uint8_t fx[512];
	uint32_t gpr[8];
	uint32_t flags;
	uint8_t data[4096];
};

static void put_image(const char *name, const uint8_t *fx)
{
	print_error("  %-7s fcw %04x fsw %04x ftw %02x fop %03x fip %08x fdp %08x mxcsr %05x\n", name,
		    fx_get16(fx, FX_FCW), fx_get16(fx, FX_FSW), fx[FX_FTW], fx_get16(fx, FX_FOP),
		    fx_get32(fx, FX_FIP), fx_get32(fx, FX_FDP), fx_get32(fx, FX_MXCSR));
}

static void put_difference(const char *what, const uint8_t *a, const uint8_t *b, unsigned len)
{
	for (unsigned k = 0; k < len; k++)
		if (a[k] != b[k])
			print_error("  %s+%u: native %02x ours %02x\n", what, k, a[k], b[k]);
}

/* The pointers as FXSAVE shows them: c->fpu always has them. */
static void as_fxsave_shows(uint8_t *fx)
{
	if (hostunit_traits.fxsave_hides_ptrs && !(fx[FX_FSW] & FSW_ES))
		memset(fx + FX_FOP, 0, FX_MXCSR - FX_FOP);
}

/* Our side: executes code from the state in before up to its end or a fault. */
static struct outcome interpret(const uint8_t *code, unsigned len, const struct snapshot *before)
{
	struct outcome got = {-1, 0, 0};
	struct insn insn;

	cpu_init();
	memcpy(cpu.fpu.fxsave, before->fx, 512);
	memcpy(cpu.gpr, before->gpr, 32);
	cpu_set_eflags(&cpu, before->flags);
	memcpy(page, before->data, 4096);
	while (cpu.eip < CODE_AT + len) {
		const unsigned at = cpu.eip - CODE_AT;

		assert_int_equal(decode_insn(code + at, len - at, true, &insn), DECODE_OK);
		if (interp_fpu(&cpu, &insn)) {
			got.vector = cpu.exc.vector;
			got.error = cpu.exc.error;
			got.cr2 = cpu.exc.cr2;
			break;
		}
		cpu.eip += insn.len;
	}
	return got;
}

static bool compare(const uint8_t *code, unsigned len, const struct snapshot *before, bool say)
{
	const struct outcome got = interpret(code, len, before);
	uint8_t ours[FX_END], theirs[FX_END];
	bool flags_same;

	oracle_run(code, len);
	memcpy(ours, cpu.fpu.fxsave, FX_END);
	memcpy(theirs, LOW->fx, FX_END);
	as_fxsave_shows(ours);
	memset(ours + FX_MXCSR_MASK, 0, 4);
	memset(theirs + FX_MXCSR_MASK, 0, 4);
	if (native.vector >= 0) { /* the kernel's own FXSAVE64 has lost the selectors */
		memset(ours + FX_FCS, 0, 4);
		memset(theirs + FX_FCS, 0, 4);
		memset(ours + FX_FDS, 0, 4);
		memset(theirs + FX_FDS, 0, 4);
	}
	flags_same = ((cpu_eflags(&cpu) ^ LOW->flags) & FL_ARITH) == 0;
	if (got.vector == native.vector && got.error == native.error && got.cr2 == native.cr2 && flags_same &&
	    !memcmp(ours, theirs, FX_END) && !memcmp(cpu.gpr, LOW->gpr, 32) && !memcmp(page, DATA, 4096))
		return true;
	if (!say)
		return false;

	for (unsigned k = 0; k < len; k++)
		print_error("%02x ", code[k]);
	print_error(" edi %08x: native %d/%x/%08x ours %d/%x/%08x\n", before->gpr[EDI], native.vector,
		    native.error, native.cr2, got.vector, got.error, got.cr2);
	put_image("before", before->fx);
	put_image("native", theirs);
	put_image("ours", ours);
	put_difference("image", theirs, ours, FX_END);
	put_difference("gpr", (const uint8_t *)LOW->gpr, (const uint8_t *)cpu.gpr, 32);
	put_difference("memory", DATA, page, 4096);
	if (!flags_same)
		print_error("  eflags: native %x ours %x\n", (uint32_t)LOW->flags, cpu_eflags(&cpu));
	return false;
}

/* Runs code on both sides from the state in LOW and DATA. Returns whether they agree. A context switch in the
 * native half loses FIP and FDP, where FXSAVE hides them: so a difference must show three times. */
static bool agree(const uint8_t *code, unsigned len)
{
	struct snapshot before;

	memcpy(before.fx, LOW->fx, 512);
	memcpy(before.gpr, LOW->gpr, 32);
	memcpy(before.data, DATA, 4096);
	before.flags = (uint32_t)LOW->flags;
	for (unsigned n = 0; n < 3; n++) {
		if (compare(code, len, &before, n == 2))
			return true;
		memcpy(LOW->fx, before.fx, 512);
		memcpy(LOW->gpr, before.gpr, 32);
		memcpy(DATA, before.data, 4096);
		LOW->flags = before.flags;
	}
	return false;
}

/* ------------------------------------------------------------------ every instruction form */

/* Instructions that have no state of the unit as operand, or that can't be compared one by one. */
static bool left_out(const struct insn *i)
{
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
	case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHT0:
	case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2:
		return true;
	default:
		return false;
	}
}

static unsigned n_cases, n_forms, n_different, n_faults;

static void run_form(const uint8_t *code, unsigned len, unsigned cases)
{
	struct insn insn;
	unsigned bad = 0;

	if (decode_insn(code, len, true, &insn) != DECODE_OK || insn.len != len || left_out(&insn))
		return;
	cpu_init();
	if (hostunit_lookup(&cpu, &insn)->class == HOSTUNIT_UNDEFINED)
		return;
	n_forms++;
	for (unsigned k = 0; k < cases && bad < 2; k++) {
		rnd_state(below(12) ? 0 : FL_AC);
		LOW->gpr[EDI] = rnd_address();
		n_cases++;
		if (!agree(code, len))
			bad++;
		n_faults += native.vector >= 0;
	}
	n_different += bad != 0;
}

/* All opcodes of map under prefix; memory forms as [edi]. */
static void run_map(unsigned map, unsigned prefix, unsigned opcode, unsigned cases)
{
	static const uint8_t prefixes[4] = {0, 0x66, 0xf3, 0xf2};
	uint8_t code[16];
	unsigned len = 0;

	if (prefix)
		code[len++] = prefixes[prefix];
	if (map)
		code[len++] = 0x0f;
	if (map > 1)
		code[len++] = map == 2 ? 0x38 : 0x3a;
	code[len++] = (uint8_t)opcode;
	run_form(code, len, cases);
	for (unsigned modrm = 0; modrm < 256; modrm++) {
		if ((modrm < 0xc0 && (modrm & 0xc7) != 7) || (map && modrm >= 0xc0 && below(4)))
			continue;
		code[len] = (uint8_t)modrm;
		run_form(code, len + 1, cases);
		for (unsigned k = 0; k < 3; k++) {
			code[len + 1] = (uint8_t)rnd();
			run_form(code, len + 2, (cases + 2) / 3);
		}
	}
}

static void every_instruction(void **state)
{
	const char *cases = getenv("FPU_TEST_CASES");
	unsigned n = cases ? (unsigned)atoi(cases) : 12;

	(void)state;
	oracle_take_signals();
	for (unsigned opcode = 0xd8; opcode <= 0xdf; opcode++)
		for (unsigned prefix = 0; prefix < 2; prefix++)
			run_map(0, prefix, opcode, n);
	run_map(0, 0, 0x9b, n);
	for (unsigned map = 1; map < 4; map++)
		for (unsigned prefix = 0; prefix < 4; prefix++)
			for (unsigned opcode = 0; opcode < 256; opcode++)
				run_map(map, prefix, opcode, n);
	print_message("%u instruction forms, %u cases, %u faults\n", n_forms, n_cases, n_faults);
	assert_true(n_forms > 4000);
	assert_int_equal(n_different, 0);
}

/* FIP, FCS, FOP, FDP, FDS and the tags, as FNSTENV shows them after each x87 instruction. */
static void pointers(void **state)
{
	unsigned different = 0, n = 0;

	(void)state;
	oracle_take_signals();
	for (unsigned opcode = 0xd8; opcode <= 0xdf; opcode++) {
		for (unsigned modrm = 0; modrm < 256; modrm++) {
			/* insn; fnstenv [esi] or [ss:esi], 32-bit and 16-bit */
			uint8_t code[8] = {0x36, (uint8_t)opcode, (uint8_t)modrm, 0x66, 0xd9, 0x36, 0xd9,
					   0x36};
			struct insn insn;

			if ((modrm < 0xc0 && (modrm & 0xc7) != 7) ||
			    decode_insn(code, 3, true, &insn) != DECODE_OK || insn.len != 3)
				continue;
			for (unsigned k = 0; k < 16; k++) {
				rnd_state(0);
				LOW->gpr[EDI] = DATA_AT + 128;
				LOW->gpr[ESI] = DATA_AT + 1024;
				code[3] = k & 1 ? 0x66 : 0x3e;
				n++;
				if (!agree(code, 6) && ++different > 10)
					fail();
			}
		}
	}
	print_message("%u cases\n", n);
	assert_int_equal(different, 0);
}

/* ------------------------------------------------------------------ what user mode can't ask the silicon */

#define CODE(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

/* Executes one instruction on cpu as it stands. */
static int step(const uint8_t *code, size_t len)
{
	struct insn insn;

	assert_int_equal(decode_insn(code, (unsigned)len, cpu_code32(&cpu), &insn), DECODE_OK);
	assert_int_equal(insn.len, len);
	cpu.exc.pending = false;
	return interp_fpu(&cpu, &insn);
}

static int vector_of(const uint8_t *code, size_t len)
{
	return step(code, len) == -1 ? cpu.exc.vector : -1;
}

/* CR0.EM, TS, MP and CR4.OSFXSR (SDM vol. 3A tables 2-2 and 13-1). */
static void availability(void **state)
{
	static const struct {
		const char *name;
		uint8_t code[6], len;
		int em, ts, em_ts, no_fxsr;
	} rows[] = {
		{"fld1", {0xd9, 0xe8}, 2, VEC_NM, VEC_NM, VEC_NM, -1},
		{"fninit", {0xdb, 0xe3}, 2, VEC_NM, VEC_NM, VEC_NM, -1},
		{"fnstsw ax", {0xdf, 0xe0}, 2, VEC_NM, VEC_NM, VEC_NM, -1},
		{"paddb mm", {0x0f, 0xfc, 0xc1}, 3, VEC_UD, VEC_NM, VEC_UD, -1},
		{"emms", {0x0f, 0x77}, 2, VEC_UD, VEC_NM, VEC_UD, -1},
		{"pshufw mm", {0x0f, 0x70, 0xc1, 0}, 4, VEC_UD, VEC_NM, VEC_UD, -1},
		{"pabsb mm", {0x0f, 0x38, 0x1c, 0xc1}, 4, VEC_UD, VEC_NM, VEC_UD, -1},
		{"addps", {0x0f, 0x58, 0xc1}, 3, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"paddb xmm", {0x66, 0x0f, 0xfc, 0xc1}, 4, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"cvtpi2ps", {0x0f, 0x2a, 0xc1}, 3, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"cvttps2pi [edi]", {0x0f, 0x2c, 0x07}, 3, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"movq2dq", {0xf3, 0x0f, 0xd6, 0xc1}, 4, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"stmxcsr", {0x0f, 0xae, 0x1f}, 3, VEC_UD, VEC_NM, VEC_UD, VEC_UD},
		{"fxsave", {0x0f, 0xae, 0x07}, 3, VEC_NM, VEC_NM, VEC_NM, -1},
		{"movnti", {0x0f, 0xc3, 0x07}, 3, -1, -1, -1, -1},
	};

	(void)state;
	for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
		cpu_init();
		cpu.gpr[EDI] = DATA_AT;
		assert_int_equal(vector_of(rows[k].code, rows[k].len), -1);
		cpu.cr0 |= CR0_EM;
		assert_int_equal(vector_of(rows[k].code, rows[k].len), rows[k].em);
		cpu.cr0 |= CR0_TS;
		assert_int_equal(vector_of(rows[k].code, rows[k].len), rows[k].em_ts);
		cpu.cr0 &= ~CR0_EM;
		assert_int_equal(vector_of(rows[k].code, rows[k].len), rows[k].ts);
		cpu.cr0 &= ~CR0_TS;
		cpu.cr4 &= ~CR4_OSFXSR;
		assert_int_equal(vector_of(rows[k].code, rows[k].len), rows[k].no_fxsr);
	}
}

static void fwait_availability(void **state)
{
	(void)state;
	cpu_init();
	for (unsigned k = 0; k < 8; k++) {
		cpu.cr0 =
			CR0_PE | CR0_NE | (k & 1 ? CR0_MP : 0) | (k & 2 ? CR0_TS : 0) | (k & 4 ? CR0_EM : 0);
		assert_int_equal(vector_of(CODE(0x9b)), (k & 3) == 3 ? VEC_NM : -1);
	}
}

/* 0/0 with IE unmasked: nothing until the next waiting instruction. */
static void set_pending(void)
{
	cpu_init();
	cpu.gpr[EDI] = DATA_AT;
	memset(page, 0, sizeof page);
	fx_put16(cpu.fpu.fxsave, FX_FCW, 0x37e);
	assert_int_equal(step(CODE(0xd9, 0xee)), 0);
	assert_int_equal(step(CODE(0xd8, 0x37)), 0);
	assert_int_equal(fx_get16(cpu.fpu.fxsave, FX_FSW) & 0x80ff, 0x8081);
}

static void pending_exception_is_deferred(void **state)
{
	(void)state;
	set_pending();
	assert_int_equal(vector_of(CODE(0xd9, 0xe8)), VEC_MF);
	assert_int_equal(vector_of(CODE(0x9b)), VEC_MF);
	assert_int_equal(vector_of(CODE(0x0f, 0x77)), VEC_MF);
	assert_int_equal(vector_of(CODE(0x0f, 0x58, 0xc1)), -1);
	assert_int_equal(vector_of(CODE(0xd9, 0x3f)), -1); /* fnstcw */
	assert_int_equal(vector_of(CODE(0xdf, 0xe0)), -1); /* fnstsw ax */
	assert_int_equal(cpu.gpr[EAX] & 0x80ff, 0x8081);
	assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_FIP), CODE_AT);
	assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_FDP), DATA_AT);
	assert_int_equal(vector_of(CODE(0xdb, 0xe2)), -1); /* fnclex */
	assert_int_equal(vector_of(CODE(0x9b)), -1);
}

static unsigned ferr_calls;
static enum fpu_ferr ferr_answer;

static enum fpu_ferr on_ferr(struct vcpu *c)
{
	assert_ptr_equal(c, &cpu);
	ferr_calls++;
	return ferr_answer;
}

/* CR0.NE = 0: FERR# instead of #MF. */
static void legacy_error_reporting(void **state)
{
	struct fpu_state before;

	(void)state;
	set_pending();
	cpu.cr0 &= ~CR0_NE;
	assert_int_equal(vector_of(CODE(0xd9, 0xe8)), VEC_MF); /* no hook: nobody to report to */
	fpu_ferr_hook = on_ferr;
	ferr_answer = FPU_FERR_WAIT;
	before = cpu.fpu;
	assert_int_equal(step(CODE(0xd9, 0xe8)), INSN_JUMPED);
	assert_false(cpu.exc.pending);
	assert_memory_equal(&before, &cpu.fpu, sizeof before);
	assert_int_equal(ferr_calls, 1);
	ferr_answer = FPU_FERR_IGNORE;
	assert_int_equal(step(CODE(0x9b)), INSN_NEXT);
	assert_int_equal(ferr_calls, 2);
	cpu.cr0 |= CR0_NE;
	assert_int_equal(vector_of(CODE(0xd9, 0xe8)), VEC_MF);
	assert_int_equal(ferr_calls, 2);
	fpu_ferr_hook = NULL;
}

/* With IGNNE# asserted a waiting instruction executes although an exception is pending, and must not trap the
 * host. */
static void ignored_exception_executes(void **state)
{
	(void)state;
	set_pending();
	cpu.cr0 &= ~CR0_NE;
	fpu_ferr_hook = on_ferr;
	ferr_answer = FPU_FERR_IGNORE;
	assert_int_equal(step(CODE(0xd9, 0xe8)), INSN_NEXT); /* fld1 */
	assert_int_equal(fx_get16(cpu.fpu.fxsave, FX_ST + 8), 0x3fff);
	assert_int_equal(fx_get16(cpu.fpu.fxsave, FX_FSW) & 0x8081, 0x8081);
	fpu_ferr_hook = NULL;
}

static void simd_exception_without_osxmmexcpt(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 2; k++) {
		cpu_init();
		fx_put32(cpu.fpu.fxsave, FX_MXCSR, 0x1d80); /* ZE unmasked */
		fx_put32(cpu.fpu.fxsave, FX_XMM, 0x3f800000);
		if (k)
			cpu.cr4 &= ~CR4_OSXMMEXCPT;
		assert_int_equal(vector_of(CODE(0xf3, 0x0f, 0x5e, 0xc1)), k ? VEC_UD : VEC_XM); /* divss */
		assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_MXCSR), 0x1d84);
		assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_XMM), 0x3f800000);
	}
}

/* FIP is 1234:00056789, FDP is 5678:000abcde, FOP is 123. */
static void env_layouts(void **state)
{
	static const uint8_t layouts[4][28] = {
		/* 32-bit protected */
		{0x7f, 0x03, 0xff, 0xff, 0x00, 0x38, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x89, 0x67,
		 0x05, 0x00, 0x34, 0x12, 0x23, 0x01, 0xde, 0xbc, 0x0a, 0x00, 0x78, 0x56, 0xff, 0xff},
		/* 16-bit protected */
		{0x7f, 0x03, 0x00, 0x38, 0xff, 0x3f, 0x89, 0x67, 0x34, 0x12, 0xde, 0xbc, 0x78, 0x56},
		/* 32-bit real: FIP 12340 + 56789 = 68ac9, FDP 56780 + abcde = 10245e */
		{0x7f, 0x03, 0xff, 0xff, 0x00, 0x38, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0xc9, 0x8a,
		 0xff, 0xff, 0x23, 0x61, 0x00, 0x00, 0x5e, 0x24, 0xff, 0xff, 0x00, 0x00, 0x01, 0x00},
		/* 16-bit real */
		{0x7f, 0x03, 0x00, 0x38, 0xff, 0x3f, 0xc9, 0x8a, 0x23, 0x61, 0x5e, 0x24, 0x00, 0x00},
	};

	(void)state;
	if (hostunit_traits.no_fcs_fds)
		skip();
	for (unsigned k = 0; k < 6; k++) { /* 4 and 5: virtual-8086 mode */
		const unsigned layout = k < 4 ? k : k - 2, len = layout & 1 ? 14 : 28;
		const uint8_t prefix = layout & 1 ? 0x66 : 0x3e;
		uint8_t *fx = cpu.fpu.fxsave;

		cpu_init();
		cpu.gpr[EDI] = DATA_AT;
		memset(page, 0xcc, sizeof page);
		if (k == 2 || k == 3)
			cpu.cr0 &= ~CR0_PE;
		if (k >= 4)
			cpu.sysflags |= FL_VM;
		assert_int_equal(step(CODE(0xd9, 0xe8)), 0);
		fx_put32(fx, FX_FIP, 0x56789);
		fx_put16(fx, FX_FCS, 0x1234);
		fx_put32(fx, FX_FDP, 0xabcde);
		fx_put16(fx, FX_FDS, 0x5678);
		fx_put16(fx, FX_FOP, 0x123);
		assert_int_equal(step(CODE(prefix, 0xd9, 0x37)), 0); /* fnstenv */
		assert_memory_equal(page, layouts[layout], len);
		assert_int_equal(page[len], 0xcc);

		assert_int_equal(step(CODE(0xdb, 0xe3)), 0);
		assert_int_equal(step(CODE(prefix, 0xd9, 0x27)), 0); /* fldenv */
		assert_int_equal(fx_get16(fx, FX_FSW), 0x3800);
		assert_int_equal(fx[FX_FTW], 0x80);
		assert_int_equal(fx_get16(fx, FX_FOP), layout == 1 ? 0 : 0x123);
		assert_int_equal(fx_get32(fx, FX_FIP), layout == 0   ? 0x56789
						       : layout == 1 ? 0x6789
								     : 0x68ac9);
		assert_int_equal(fx_get16(fx, FX_FCS), layout < 2 ? 0x1234 : 0);
		assert_int_equal(fx_get32(fx, FX_FDP), layout == 0   ? 0xabcde
						       : layout == 1 ? 0xbcde
						       : layout == 2 ? 0x10245e
								     : 0x0245e);
	}
}

/* Without CR4.OSFXSR FXSAVE and FXRSTOR leave the SSE state alone. */
static void fxsave_without_osfxsr(void **state)
{
	(void)state;
	cpu_init();
	cpu.gpr[EDI] = DATA_AT;
	cpu.cr4 &= ~CR4_OSFXSR;
	memset(page, 0xcc, sizeof page);
	memset(cpu.fpu.fxsave + FX_XMM, 0x11, 128);
	assert_int_equal(step(CODE(0x0f, 0xae, 0x07)), 0);
	assert_int_equal(page[FX_XMM - 1], 0);
	assert_int_equal(page[FX_XMM], 0xcc);
	fx_put32(page, FX_MXCSR, 0xffffffff);
	assert_int_equal(step(CODE(0x0f, 0xae, 0x0f)), 0);
	assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_MXCSR), MXCSR_RESET);
	assert_int_equal(cpu.fpu.fxsave[FX_XMM], 0x11);
	cpu.cr4 |= CR4_OSFXSR;
	assert_int_equal(vector_of(CODE(0x0f, 0xae, 0x0f)), VEC_GP); /* reserved bits of MXCSR */
	cpu.gpr[EDI] = DATA_AT + 8;
	assert_int_equal(vector_of(CODE(0x0f, 0xae, 0x07)), VEC_GP); /* misaligned */
}

/* Segment bases and limits, and which offset and selector FDP and FDS get. */
static void segments(void **state)
{
	const uint8_t *fx = cpu.fpu.fxsave;

	(void)state;
	cpu_init();
	cpu.seg[FS].base = DATA_AT;
	cpu.seg[FS].limit = 0xff;
	cpu.seg[FS].sel = 0x3b;
	cpu.gpr[EDI] = 0xfc;
	assert_int_equal(step(CODE(0x64, 0xd9, 0x07)), 0);
	assert_int_equal(fx_get32(fx, FX_FDP), 0xfc);
	if (!hostunit_traits.no_fcs_fds)
		assert_int_equal(fx_get16(fx, FX_FDS), 0x3b);
	cpu.gpr[EDI] = 0xfd;
	assert_int_equal(vector_of(CODE(0x64, 0xd9, 0x07)), VEC_GP);
	cpu.gpr[EDI] = 0xf1; /* DS:EDI is a masked move's operand; an override applies */
	assert_int_equal(vector_of(CODE(0x64, 0x66, 0x0f, 0xf7, 0xc1)), VEC_GP);
	cpu.gpr[EDI] = 0xf0;
	assert_int_equal(vector_of(CODE(0x64, 0x66, 0x0f, 0xf7, 0xc1)), -1);
	cpu.gpr[EBX] = 0xffff0010; /* 16-bit addressing */
	assert_int_equal(vector_of(CODE(0x67, 0x64, 0xd9, 0x07)), -1);
	assert_int_equal(fx_get32(fx, FX_FDP), 0x10);
}

/* A store that faults pops nothing. */
static void faulting_store(void **state)
{
	struct fpu_state before;

	(void)state;
	cpu_init();
	assert_int_equal(step(CODE(0xd9, 0xe8)), 0);
	before = cpu.fpu;
	cpu.gpr[EDI] = DATA_AT + 4096 - 2;
	assert_int_equal(vector_of(CODE(0xd9, 0x1f)), VEC_PF);
	assert_int_equal(cpu.exc.cr2, DATA_AT + 4096);
	assert_memory_equal(&before, &cpu.fpu, sizeof before);
}

/* More distinct instructions than the cache of stubs holds. */
static void cache_overflows(void **state)
{
	(void)state;
	cpu_init();
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned k = 0; k < 1u << 14; k++) {
			const uint8_t modrm = 0xc0 | (k >> 8 & 0x3f), imm = (uint8_t)k;

			assert_int_equal(step(CODE(0x66, 0x0f, 0x70, modrm, imm)), 0); /* pshufd */
		}
	}
	fx_put32(cpu.fpu.fxsave, FX_XMM + 4, 0x12345678);
	assert_int_equal(step(CODE(0x66, 0x0f, 0x70, 0xc8, 0x01)), 0);
	assert_int_equal(fx_get32(cpu.fpu.fxsave, FX_XMM + 16), 0x12345678);
}

/* The host's state is as before, whatever the guest's. */
static void host_state_is_preserved(void **state)
{
	static _Alignas(64) uint8_t before[512], after[512];

	(void)state;
	cpu_init();
	fx_put16(cpu.fpu.fxsave, FX_FCW, 0x0c40);
	fx_put32(cpu.fpu.fxsave, FX_MXCSR, 0xe000);
	memset(cpu.fpu.fxsave + FX_ST, 0xee, 256);
	fx_put32(cpu.fpu.fxsave, FX_XMM, 0x7f800001); /* a signalling NaN */
	__asm__ volatile("fxsave64 %0" : "=m"(before));
	assert_int_equal(vector_of(CODE(0x0f, 0x58, 0xc1)), VEC_XM);
	assert_int_equal(step(CODE(0xd9, 0xe8)), 0);
	assert_int_equal(step(CODE(0xde, 0xf1)), 0);
	__asm__ volatile("fxsave64 %0" : "=m"(after));
	assert_memory_equal(before, after, FX_ST); /* control words; registers are the caller's to lose */
}

static int setup(void **state)
{
	const char *seed = getenv("FPU_TEST_SEED");
	char err[128];

	(void)state;
	rng = 0x9e3779b97f4a7c15ull ^ (seed ? strtoull(seed, NULL, 0) : 0);
	if (hostunit_init(err, sizeof err))
		return -1;
	oracle_init();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_instruction),
		cmocka_unit_test(pointers),
		cmocka_unit_test(availability),
		cmocka_unit_test(fwait_availability),
		cmocka_unit_test(pending_exception_is_deferred),
		cmocka_unit_test(legacy_error_reporting),
		cmocka_unit_test(ignored_exception_executes),
		cmocka_unit_test(simd_exception_without_osxmmexcpt),
		cmocka_unit_test(env_layouts),
		cmocka_unit_test(fxsave_without_osfxsr),
		cmocka_unit_test(segments),
		cmocka_unit_test(faulting_store),
		cmocka_unit_test(cache_overflows),
		cmocka_unit_test(host_state_is_preserved),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
