/* fpu_rig.c - see fpu_rig.h. */
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

#include "tests/unit/fpu_rig.h"

/* ------------------------------------------------------------------ the oracle */

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

volatile struct outcome rig_native;

/* A fault in the 32-bit code goes on at oracle_back, with the state as it is. */
static void on_signal(int sig, siginfo_t *si, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

	if ((r[REG_CSGSFS] & 0xffff) != USER32_CS) {
		signal(sig, SIG_DFL);
		return;
	}
	(void)si;
	rig_native.vector = (int)r[REG_TRAPNO];
	rig_native.error = (uint32_t)r[REG_ERR];
	rig_native.cr2 = rig_native.vector == VEC_PF ? (uint32_t)r[REG_CR2] : 0;
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
	static uint8_t stack[1 << 16];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};

	low_map(LOW_AT, 4096, PROT_READ | PROT_WRITE);
	low_map(DATA_AT, 4096, PROT_READ | PROT_WRITE);
	memcpy(code + BACK_OFF, oracle_back, (size_t)(oracle_back_end - oracle_back));
	sigaltstack(&ss, NULL);
	LOW->target.offset = CODE_AT;
	LOW->target.selector = USER32_CS;
}

void rig_take_signals(void)
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
	rig_native.vector = -1;
	rig_native.error = rig_native.cr2 = 0;
	oracle_enter();
}

/* ------------------------------------------------------------------ what interp_fpu needs around it */

uint8_t rig_page[4096];
struct vcpu cpu;

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
	memcpy(buf, rig_page + (lin - DATA_AT), len);
	return 0;
}

int mem_write(struct vcpu *c, uint32_t lin, const void *buf, unsigned len, unsigned acc)
{
	if (mem_probe(c, lin, len, acc | ACC_WRITE))
		return -1;
	memcpy(rig_page + (lin - DATA_AT), buf, len);
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

void rig_cpu_init(void)
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

unsigned rig_below(unsigned n)
{
	return rnd() % n;
}

/* A number with exponent and fraction widths e and f (without sign) of a kind that matters. */
static uint64_t rnd_float(unsigned e, unsigned f)
{
	const uint64_t emax = (1ull << e) - 1, fmask = (1ull << f) - 1, bias = emax >> 1;
	const uint64_t bits = ((uint64_t)rnd() << 32 | rnd()) & fmask;
	uint64_t exponent, fraction = bits;

	switch (rig_below(10)) {
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
		exponent = 1 + rig_below(4);
		fraction = rig_below(2) ? bits : bits & ~(fmask >> rig_below(f));
		break;
	case 5:
		exponent = emax - 1 - rig_below(3);
		break;
	case 6:
		exponent = bias + rig_below(70);
		fraction = bits & ~(fmask >> rig_below(f));
		break;
	case 7:
		exponent = bias / 2 + rig_below(8);
		break;
	default:
		exponent = bias - 4 + rig_below(8);
	}
	return ((uint64_t)rig_below(2) << e | exponent) << f | fraction;
}

static void rnd_st(uint8_t *st)
{
	const uint64_t v = rnd_float(15, 48); /* sign and exponent, 48 bits of fraction */
	uint64_t fraction = v << 16 >> 1;
	uint16_t top = (uint16_t)(v >> 48);

	if ((top & 0x7fff) || rig_below(16) == 0)
		fraction |= 1ull << 63;
	if (rig_below(40) == 0)
		fraction ^= 1ull << 63; /* unnormal, pseudo-denormal */
	if (rig_below(3))
		fraction |= rnd() & 0xffff;
	memcpy(st, &fraction, 8);
	memcpy(st + 8, &top, 2);
	memset(st + 10, 0, 6);
}

static void rnd_vector(uint8_t *v, unsigned len)
{
	unsigned kind = rig_below(4);

	for (unsigned k = 0; k < len; k += 8) {
		uint64_t q = (uint64_t)rnd() << 32 | rnd();

		if (kind == 0)
			q = rnd_float(11, 52);
		else if (kind == 1)
			q = rnd_float(8, 23) << 32 | rnd_float(8, 23);
		else if (kind == 2 && rig_below(2))
			q &= 0x80ff00ff01807fffull;
		memcpy(v + k, &q, 8);
	}
}

void rig_random_state(uint32_t flags)
{
	uint8_t *fx = LOW->fx;
	uint32_t fcw = (rig_below(4) ? 0x3f : rnd() & 0x3f) | (rnd() & 0xc00), mxcsr = rnd() & 0xe07f;

	memset(fx, 0, 512);
	fcw |= (uint32_t[]){0x000, 0x200, 0x300, 0x300}[rig_below(4)];
	mxcsr |= rig_below(3) ? MXCSR_MASKS : rnd() & MXCSR_MASKS;
	if (rig_below(3))
		mxcsr &= ~0x8040u;
	for (unsigned k = 0; k < 8; k++) {
		rnd_st(fx + FX_ST + 16 * k);
		rnd_vector(fx + FX_XMM + 16 * k, 16);
		LOW->gpr[k] = rig_below(3) ? rig_below(20) : rnd();
	}
	fpu_set_control(fx, fcw, rig_below(16) ? rnd() & 0x4700 : rnd() & 0x473f);
	fx_put16(fx, FX_FSW, fx_get16(fx, FX_FSW) | rig_below(8) << 11);
	fx[FX_FTW] = (uint8_t)(rig_below(4) ? rnd() | rnd() | rnd() : rig_below(2) ? 0xff : 0);
	fx_put16(fx, FX_FOP, rnd() & FOP_MASK);
	fx_put32(fx, FX_FIP, rnd());
	fx_put16(fx, FX_FCS, rnd());
	fx_put32(fx, FX_FDP, rnd());
	fx_put16(fx, FX_FDS, rnd());
	fx_put32(fx, FX_MXCSR, mxcsr & hostunit_traits.mxcsr_mask);
	LOW->flags = (rnd() & (FL_ARITH)) | 0x202 | flags;
	for (unsigned k = 0; k < 4096; k += 32)
		rnd_vector(DATA + k, 16);
}

uint32_t rig_random_address(void)
{
	switch (rig_below(16)) {
	case 0:
	case 1:
	case 2:
		return DATA_AT + 1024 + rig_below(64);
	case 3:
		return DATA_AT + 4096 - rig_below(600);
	case 4:
		return DATA_AT + 4096 - rig_below(18);
	case 5:
		return DATA_AT - rig_below(18);
	default:
		return DATA_AT + 512 + 64 * rig_below(16);
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

	rig_cpu_init();
	memcpy(cpu.fpu.fxsave, before->fx, 512);
	memcpy(cpu.gpr, before->gpr, 32);
	cpu_set_eflags(&cpu, before->flags);
	memcpy(rig_page, before->data, 4096);
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
	if (rig_native.vector >= 0) { /* the kernel's own FXSAVE64 has lost the selectors */
		memset(ours + FX_FCS, 0, 4);
		memset(theirs + FX_FCS, 0, 4);
		memset(ours + FX_FDS, 0, 4);
		memset(theirs + FX_FDS, 0, 4);
	}
	flags_same = ((cpu_eflags(&cpu) ^ LOW->flags) & FL_ARITH) == 0;
	if (got.vector == rig_native.vector && got.error == rig_native.error && got.cr2 == rig_native.cr2 &&
	    flags_same && !memcmp(ours, theirs, FX_END) && !memcmp(cpu.gpr, LOW->gpr, 32) &&
	    !memcmp(rig_page, DATA, 4096))
		return true;
	if (!say)
		return false;

	for (unsigned k = 0; k < len; k++)
		print_error("%02x ", code[k]);
	print_error(" edi %08x: native %d/%x/%08x ours %d/%x/%08x\n", before->gpr[EDI], rig_native.vector,
		    rig_native.error, rig_native.cr2, got.vector, got.error, got.cr2);
	put_image("before", before->fx);
	put_image("native", theirs);
	put_image("ours", ours);
	put_difference("image", theirs, ours, FX_END);
	put_difference("gpr", (const uint8_t *)LOW->gpr, (const uint8_t *)cpu.gpr, 32);
	put_difference("memory", DATA, rig_page, 4096);
	if (!flags_same)
		print_error("  eflags: native %x ours %x\n", (uint32_t)LOW->flags, cpu_eflags(&cpu));
	return false;
}

/* A context switch in the
 * native half loses FIP and FDP, where FXSAVE hides them: so a difference must show three times. */
bool rig_agree(const uint8_t *code, unsigned len)
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

int rig_init(uint64_t seed)
{
	char err[128];

	rng = 0x9e3779b97f4a7c15ull ^ seed;
	if (hostunit_init(err, sizeof err)) {
		print_error("%s\n", err);
		return -1;
	}
	oracle_init();
	return 0;
}
