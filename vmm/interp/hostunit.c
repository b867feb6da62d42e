/* hostunit.c - the stubs and their cache, and what the host's unit is like. The overview is in hostunit.h. */
#include "vmm/interp/hostunit.h"

#include <assert.h>
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/vmm.h"

_Static_assert(offsetof(struct hostunit_frame, image) == HOSTUNIT_IMAGE, "fpu_host.S");
_Static_assert(offsetof(struct hostunit_frame, mem) == HOSTUNIT_MEM, "fpu_host.S");
_Static_assert(offsetof(struct hostunit_frame, eax) == HOSTUNIT_EAX, "fpu_host.S");
_Static_assert(offsetof(struct hostunit_frame, ecx) == HOSTUNIT_ECX, "fpu_host.S");
_Static_assert(offsetof(struct hostunit_frame, edx) == HOSTUNIT_EDX, "fpu_host.S");
_Static_assert(offsetof(struct hostunit_frame, flags) == HOSTUNIT_FLAGS, "fpu_host.S");

void hostunit_serialize(void);
void hostunit_probe(const void *image, void *fxsaved, void *env);

struct hostunit_traits hostunit_traits;

/* ------------------------------------------------------------------ the cache
 *
 * Open addressing; stub n lies in the arena's n-th slot. When three quarters are used everything is
 * forgotten.
 */
#define SLOTS	  16384u
#define SLOT_SIZE 16u

static struct hostunit_op table[SLOTS];
static unsigned used;
static uint8_t *arena_w; /* written here */
static uint8_t *arena_x; /* executed here */

/* A key names an instruction with its memory operand, if any, made [esi]:
 * bit 31 set, 29-28 mandatory prefix, 25-24 opcode map, 23-16 opcode, 15-8 ModRM, 7-0 immediate. */
#define KEY_VALID     0x80000000u
#define KEY_PREFIX(k) ((k) >> 28 & 3u)
#define KEY_MAP(k)    ((k) >> 24 & 3u)
#define KEY_OPCODE(k) ((uint8_t)((k) >> 16))
#define KEY_MODRM(k)  ((uint8_t)((k) >> 8))
#define KEY_IMM(k)    ((uint8_t)(k))

static const uint8_t prefix_byte[4] = {0, 0x66, 0xf3, 0xf2};

/* The prefix that selects the instruction (SDM vol. 2A 2.1.1, 2.1.2); x87 instructions have none. */
static unsigned mandatory_prefix(const struct insn *i)
{
	if (i->opmap == 0)
		return 0;
	if (i->prefix & INSN_REPNE)
		return 3;
	if (i->prefix & INSN_REP)
		return 2;
	return i->prefix & INSN_66 ? 1 : 0;
}

static uint32_t key_of(const struct insn *i)
{
	unsigned modrm = 0;

	if (i->has_modrm)
		modrm = i->mod == 3 ? 0xc0u | i->reg << 3 | i->rm : i->reg << 3 | 6u;
	return KEY_VALID | mandatory_prefix(i) << 28 | (i->opmap & 3u) << 24 | (uint32_t)i->opcode << 16 |
	       modrm << 8 | (i->imm_size ? i->imm & 0xffu : 0);
}

static unsigned slot_of(uint32_t key)
{
	return key * 0x9e3779b1u >> 18 & (SLOTS - 1);
}

/* ------------------------------------------------------------------ what an instruction is
 *
 * Zydis knows operands, sizes and the flags written; these tables add what it does not.
 */

/* Instruction sets executed here and the CPUID leaf 1 bits they need (SDM vol. 2A, CPUID, tables 3-10 and
 * 3-11). Anything else is #UD. */
static const struct isa_row {
	ZydisISASet isa;
	uint32_t edx, ecx;
} isa_rows[] = {
	{ZYDIS_ISA_SET_X87, 1u << 0, 0},
	{ZYDIS_ISA_SET_FCMOV, 1u << 0 | 1u << 15, 0},
	{ZYDIS_ISA_SET_PPRO, 1u << 0 | 1u << 15, 0}, /* fcomi and its like */
	{ZYDIS_ISA_SET_PENTIUMMMX, 1u << 23, 0},
	{ZYDIS_ISA_SET_FXSAVE, 1u << 24, 0},
	{ZYDIS_ISA_SET_SSE, 1u << 25, 0},
	{ZYDIS_ISA_SET_SSEMXCSR, 1u << 25, 0},
	{ZYDIS_ISA_SET_SSE_PREFETCH, 1u << 25, 0},
	{ZYDIS_ISA_SET_SSE2, 1u << 26, 0},
	{ZYDIS_ISA_SET_SSE2MMX, 1u << 26, 0},
	{ZYDIS_ISA_SET_SSE3, 0, 1u << 0},
	{ZYDIS_ISA_SET_SSE3X87, 0, 1u << 0},
	{ZYDIS_ISA_SET_PCLMULQDQ, 0, 1u << 1},
	{ZYDIS_ISA_SET_SSSE3, 0, 1u << 9},
	{ZYDIS_ISA_SET_SSSE3MMX, 0, 1u << 9},
	{ZYDIS_ISA_SET_SSE4, 0, 1u << 19},
	{ZYDIS_ISA_SET_SSE42, 0, 1u << 20},
	{ZYDIS_ISA_SET_AES, 0, 1u << 25},
};

/* MMX-register instructions that came with SSE (SDM vol. 1 10.4.4), which Zydis counts as MMX. */
static const uint16_t sse_integer[] = {
	ZYDIS_MNEMONIC_PAVGB,	 ZYDIS_MNEMONIC_PAVGW,	ZYDIS_MNEMONIC_PEXTRW,	ZYDIS_MNEMONIC_PINSRW,
	ZYDIS_MNEMONIC_PMAXSW,	 ZYDIS_MNEMONIC_PMAXUB, ZYDIS_MNEMONIC_PMINSW,	ZYDIS_MNEMONIC_PMINUB,
	ZYDIS_MNEMONIC_PMOVMSKB, ZYDIS_MNEMONIC_PSADBW, ZYDIS_MNEMONIC_PMULHUW, ZYDIS_MNEMONIC_PSHUFW,
	ZYDIS_MNEMONIC_MASKMOVQ, ZYDIS_MNEMONIC_MOVNTQ,
};

/* 16-byte operands that need no alignment (SDM vol. 2A table 2-21 and the instructions' own pages). */
static const uint16_t unaligned[] = {
	ZYDIS_MNEMONIC_MOVUPS,	  ZYDIS_MNEMONIC_MOVUPD,    ZYDIS_MNEMONIC_MOVDQU,
	ZYDIS_MNEMONIC_LDDQU,	  ZYDIS_MNEMONIC_PCMPESTRI, ZYDIS_MNEMONIC_PCMPESTRM,
	ZYDIS_MNEMONIC_PCMPISTRI, ZYDIS_MNEMONIC_PCMPISTRM, ZYDIS_MNEMONIC_MASKMOVDQU,
};

/* Instructions emulated on the image. */
static const struct emulated_row {
	uint16_t mnemonic;
	uint8_t class;
	int (*fn)(struct vcpu *c, const struct insn *i);
} emulated[] = {
	{ZYDIS_MNEMONIC_FWAIT, HOSTUNIT_FWAIT, fpu_nothing},
	{ZYDIS_MNEMONIC_FNINIT, HOSTUNIT_X87_NOWAIT, fpu_fninit},
	{ZYDIS_MNEMONIC_FNCLEX, HOSTUNIT_X87_NOWAIT, fpu_fnclex},
	{ZYDIS_MNEMONIC_FENI8087_NOP, HOSTUNIT_X87_NOWAIT, fpu_nothing},
	{ZYDIS_MNEMONIC_FDISI8087_NOP, HOSTUNIT_X87_NOWAIT, fpu_nothing},
	{ZYDIS_MNEMONIC_FSETPM287_NOP, HOSTUNIT_X87_NOWAIT, fpu_nothing},
	{ZYDIS_MNEMONIC_FNSTCW, HOSTUNIT_X87_NOWAIT, fpu_fnstcw},
	{ZYDIS_MNEMONIC_FNSTSW, HOSTUNIT_X87_NOWAIT, fpu_fnstsw},
	{ZYDIS_MNEMONIC_FNSTENV, HOSTUNIT_X87_NOWAIT, fpu_fnstenv},
	{ZYDIS_MNEMONIC_FNSAVE, HOSTUNIT_X87_NOWAIT, fpu_fnsave},
	{ZYDIS_MNEMONIC_FLDCW, HOSTUNIT_X87, fpu_fldcw},
	{ZYDIS_MNEMONIC_FLDENV, HOSTUNIT_X87, fpu_fldenv},
	{ZYDIS_MNEMONIC_FRSTOR, HOSTUNIT_X87, fpu_frstor},
	{ZYDIS_MNEMONIC_FXSAVE, HOSTUNIT_FXSR, fpu_fxsave},
	{ZYDIS_MNEMONIC_FXRSTOR, HOSTUNIT_FXSR, fpu_fxrstor},
	{ZYDIS_MNEMONIC_LDMXCSR, HOSTUNIT_SSE, sse_ldmxcsr},
	{ZYDIS_MNEMONIC_STMXCSR, HOSTUNIT_SSE, sse_stmxcsr},
	{ZYDIS_MNEMONIC_MOVNTI, HOSTUNIT_PLAIN, sse_movnti},
	{ZYDIS_MNEMONIC_LFENCE, HOSTUNIT_PLAIN, fpu_nothing},
	{ZYDIS_MNEMONIC_MFENCE, HOSTUNIT_PLAIN, fpu_nothing},
	{ZYDIS_MNEMONIC_SFENCE, HOSTUNIT_PLAIN, fpu_nothing},
	{ZYDIS_MNEMONIC_PREFETCHNTA, HOSTUNIT_PLAIN, fpu_nothing},
	{ZYDIS_MNEMONIC_PREFETCHT0, HOSTUNIT_PLAIN, fpu_nothing},
	{ZYDIS_MNEMONIC_PREFETCHT1, HOSTUNIT_PLAIN, fpu_nothing},
	{ZYDIS_MNEMONIC_PREFETCHT2, HOSTUNIT_PLAIN, fpu_nothing},
};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static bool listed(const uint16_t *list, size_t n, unsigned mnemonic)
{
	for (size_t k = 0; k < n; k++)
		if (list[k] == mnemonic)
			return true;
	return false;
}

/* Both the host and the guest's CPU have the instruction. */
static bool supported(const struct vcpu *c, const ZydisDecodedInstruction *zi)
{
	uint32_t edx = 0, ecx = 0, guest[4], host[4];
	size_t k;

	for (k = 0; k < COUNT(isa_rows) && isa_rows[k].isa != zi->meta.isa_set; k++)
		;
	if (k == COUNT(isa_rows))
		return false;
	edx = isa_rows[k].edx;
	ecx = isa_rows[k].ecx;
	if (zi->meta.isa_set == ZYDIS_ISA_SET_PENTIUMMMX &&
	    listed(sse_integer, COUNT(sse_integer), zi->mnemonic))
		edx |= 1u << 25;
	if (!__get_cpuid(1, &host[0], &host[1], &host[2], &host[3]))
		return false;
	cpuid_query(c, 1, 0, guest);
	return !(edx & ~(host[3] & guest[3])) && !(ecx & ~(host[2] & guest[2]));
}

/* ------------------------------------------------------------------ making a stub */

/* What the operands say: the class, the memory operand, and the general register to be moved to ecx. */
static void describe(struct hostunit_op *op, const ZydisDecodedInstruction *zi,
		     const ZydisDecodedOperand *operands, bool *gpr_is_reg, bool *gpr_is_rm)
{
	/* cvtps2pi mm, m64 and its like name no XMM register; the instructions on MMX registers alone that
	 * came with SSE are in sets of their own. */
	bool xmm = zi->meta.isa_set == ZYDIS_ISA_SET_SSE || zi->meta.isa_set == ZYDIS_ISA_SET_SSE2;
	bool mmx = false;

	for (unsigned n = 0; n < zi->operand_count; n++) {
		const ZydisDecodedOperand *o = &operands[n];
		bool hidden = o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			op->mem_size = (uint8_t)(o->size / 8);
			op->mem_read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
			op->mem_write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
			continue;
		}
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(o->reg.value)) {
		case ZYDIS_REGCLASS_XMM:
			xmm = true;
			break;
		case ZYDIS_REGCLASS_MMX:
			mmx = true;
			break;
		case ZYDIS_REGCLASS_GPR8:
		case ZYDIS_REGCLASS_GPR16:
		case ZYDIS_REGCLASS_GPR32:
			if (hidden) { /* pcmpestr*: eax and edx are always loaded; pcmp*stri: ecx */
				if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
					op->gpr_out = ECX;
				break;
			}
			*gpr_is_reg = o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
			*gpr_is_rm = o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
			if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
				op->gpr_in = (int8_t)(*gpr_is_reg ? KEY_MODRM(op->key) >> 3 & 7
								  : KEY_MODRM(op->key) & 7);
			else
				op->gpr_out = (int8_t)(*gpr_is_reg ? KEY_MODRM(op->key) >> 3 & 7
								   : KEY_MODRM(op->key) & 7);
			break;
		default:
			break;
		}
	}
	if (KEY_MAP(op->key) == 0)
		op->class = HOSTUNIT_X87;
	else if (xmm)
		op->class = mmx ? HOSTUNIT_SSE_MMX : HOSTUNIT_SSE;
	else if (mmx || zi->mnemonic == ZYDIS_MNEMONIC_EMMS)
		op->class = HOSTUNIT_MMX;
	if (op->mem_size == 16 && op->class != HOSTUNIT_MMX &&
	    !listed(unaligned, COUNT(unaligned), zi->mnemonic))
		op->align = zi->meta.exception_class == ZYDIS_EXCEPTION_CLASS_SSE1
				    ? HOSTUNIT_ALIGN16
				    : HOSTUNIT_ALIGN16_UNLESS_MM;
	op->masked = zi->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || zi->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU;
	op->dot = zi->mnemonic == ZYDIS_MNEMONIC_DPPS ? 4 : zi->mnemonic == ZYDIS_MNEMONIC_DPPD ? 8 : 0;
	if (zi->cpu_flags)
		op->sets_flags = zi->cpu_flags->modified | zi->cpu_flags->set_0 | zi->cpu_flags->set_1 |
				 zi->cpu_flags->undefined;
}

static unsigned emit(uint8_t *p, uint32_t key, uint8_t modrm, bool has_modrm, bool has_imm)
{
	uint8_t *start = p;

	if (KEY_PREFIX(key))
		*p++ = prefix_byte[KEY_PREFIX(key)];
	if (KEY_MAP(key))
		*p++ = 0x0f;
	if (KEY_MAP(key) == 2)
		*p++ = 0x38;
	if (KEY_MAP(key) == 3)
		*p++ = 0x3a;
	*p++ = KEY_OPCODE(key);
	if (has_modrm)
		*p++ = modrm;
	if (has_imm)
		*p++ = KEY_IMM(key);
	return (unsigned)(p - start);
}

static void make(const struct vcpu *c, const struct insn *i, struct hostunit_op *op)
{
	uint8_t bytes[SLOT_SIZE], modrm = KEY_MODRM(op->key);
	ZydisDecoder decoder;
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	bool gpr_is_reg = false, gpr_is_rm = false;
	unsigned len = emit(bytes, op->key, modrm, i->has_modrm, i->imm_size != 0), slot;

	op->gpr_in = op->gpr_out = -1;
	op->class = HOSTUNIT_UNDEFINED;
	if (!ZYAN_SUCCESS(ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32)) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, len, &zi, operands)) || zi.length != len ||
	    zi.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || !supported(c, &zi))
		return;
	for (size_t k = 0; k < COUNT(emulated); k++) {
		if (emulated[k].mnemonic == zi.mnemonic) {
			op->class = emulated[k].class;
			op->emulate = emulated[k].fn;
			return;
		}
	}
	describe(op, &zi, operands, &gpr_is_reg, &gpr_is_rm);
	if (op->class == HOSTUNIT_UNDEFINED)
		return;
	assert(op->mem_size <= 16);
	if (gpr_is_reg)
		modrm = (uint8_t)((modrm & ~0x38u) | ECX << 3);
	if (gpr_is_rm)
		modrm = (uint8_t)((modrm & ~7u) | ECX);
	len = emit(bytes, op->key, modrm, i->has_modrm, i->imm_size != 0);
	bytes[len++] = 0xc3; /* ret */
	slot = (unsigned)(op - table) * SLOT_SIZE;
	memcpy(arena_w + slot, bytes, len);
	op->code = arena_x + slot;
	hostunit_serialize();
}

const struct hostunit_op *hostunit_lookup(const struct vcpu *c, const struct insn *i)
{
	uint32_t key = key_of(i);
	unsigned n = slot_of(key);
	char err[128];

	for (; table[n].key; n = (n + 1) & (SLOTS - 1))
		if (table[n].key == key)
			return &table[n];
	if (!arena_x && hostunit_init(err, sizeof err)) {
		fprintf(stderr, "bt86: %s\n", err);
		abort();
	}
	if (used >= SLOTS / 4 * 3) {
		memset(table, 0, sizeof table);
		used = 0;
		n = slot_of(key);
	}
	used++;
	table[n].key = key;
	make(c, i, &table[n]);
	return &table[n];
}

/* ------------------------------------------------------------------ the host */

static void measure_host(void)
{
	static _Alignas(64) uint8_t image[512], saved[512], env[64];
	uint32_t a, b = 0, x, d;

	fx_put16(image, FX_FCW, FCW_RESET);
	fx_put32(image, FX_MXCSR, MXCSR_RESET);
	fx_put16(image, FX_FOP, 0x555);
	fx_put32(image, FX_FIP, 0x12345678);
	hostunit_probe(image, saved, env);
	hostunit_traits.mxcsr_mask = fx_get32(saved, FX_MXCSR_MASK);
	if (!hostunit_traits.mxcsr_mask) /* SDM vol. 1 11.6.6 */
		hostunit_traits.mxcsr_mask = 0xffbf;
	hostunit_traits.fxsave_hides_ptrs = fx_get32(saved, FX_FIP) == 0;
	hostunit_traits.fop_only_unmasked = (fx_get16(env, 18) & FOP_MASK) != 0x1e8; /* fld1 is D9 E8 */
	if (__get_cpuid_count(7, 0, &a, &b, &x, &d)) {
		hostunit_traits.fdp_only_unmasked = b >> 6 & 1;
		hostunit_traits.no_fcs_fds = b >> 13 & 1;
	}
}

int hostunit_init(char *err, size_t errlen)
{
	const size_t size = (size_t)SLOTS * SLOT_SIZE;
	int fd;

	if (arena_x)
		return 0;
	fd = memfd_create("bt86-hostunit", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)size))
		goto fail;
	arena_w = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (arena_w == MAP_FAILED)
		goto fail;
	arena_x = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	if (arena_x == MAP_FAILED) {
		munmap(arena_w, size);
		goto fail;
	}
	close(fd);
	measure_host();
	return 0;
fail:
	snprintf(err, errlen, "no memory for floating-point stubs: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	arena_w = arena_x = NULL;
	return -1;
}
