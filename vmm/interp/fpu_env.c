/* fpu_env.c - x87 control instructions and the memory images of the x87 state, emulated on c->fpu.
 *
 * They are not run on the host because it would show its own addresses in FIP and FDP, and because the
 * layouts depend on the guest's mode: FNSTENV and FNSAVE have four (SDM vol. 1 figures 8-9 to 8-12), and a
 * 64-bit FXSAVE would also store XMM8-15.
 */
#include "vmm/interp/hostunit.h"
#include "vmm/interp/interp.h"

/* ------------------------------------------------------------------ control and status words */

/* ES follows from the flags and the masks, and B from ES (SDM vol. 1 8.1.3.3). */
void fpu_set_control(uint8_t *fx, uint32_t fcw, uint32_t fsw)
{
	fcw = (fcw & FCW_LOADED) | FCW_ONE;
	fsw &= FSW_LOADED;
	if (fsw & ~fcw & FSW_EXC)
		fsw |= FSW_ES | FSW_B;
	fx_put16(fx, FX_FCW, fcw);
	fx_put16(fx, FX_FSW, fsw);
}

void fpu_set_pointers(uint8_t *fx, uint32_t fip, uint32_t fcs, uint32_t fop, uint32_t fdp, uint32_t fds)
{
	if (hostunit_traits.no_fcs_fds)
		fcs = fds = 0;
	fx_put16(fx, FX_FOP, fop & FOP_MASK);
	fx_put32(fx, FX_FIP, fip);
	fx_put32(fx, FX_FCS, fcs & 0xffffu);
	fx_put32(fx, FX_FDP, fdp);
	fx_put32(fx, FX_FDS, fds & 0xffffu);
}

/* The image names registers by their distance from TOP: changes TOP and leaves the physical registers alone.
 */
static void set_top(uint8_t *fx, unsigned top)
{
	const unsigned by = (top - (fx_get16(fx, FX_FSW) >> 11)) & 7u;
	uint8_t st[8 * 16];

	if (by == 0)
		return;
	memcpy(st, fx + FX_ST, sizeof st);
	memcpy(fx + FX_ST, st + 16 * by, 16 * (8 - by));
	memcpy(fx + FX_ST + 16 * (8 - by), st, 16 * by);
	fx_put16(fx, FX_FSW, (fx_get16(fx, FX_FSW) & ~FSW_TOP) | top << 11);
}

/* What every MMX instruction but EMMS does to the x87 state (SDM vol. 1 9.5.1). */
void fpu_enter_mmx(uint8_t *fx)
{
	set_top(fx, 0);
	fx[FX_FTW] = 0xff;
}

static void reset_x87(uint8_t *fx)
{
	set_top(fx, 0);
	fx_put16(fx, FX_FCW, FCW_RESET);
	fx_put16(fx, FX_FSW, 0);
	fx_put16(fx, FX_FTW, 0);
	fpu_set_pointers(fx, 0, 0, 0, 0, 0);
}

int fpu_nothing(struct vcpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
	return INSN_NEXT;
}

int fpu_fninit(struct vcpu *c, const struct insn *i)
{
	(void)i;
	reset_x87(c->fpu.fxsave);
	return INSN_NEXT;
}

int fpu_fnclex(struct vcpu *c, const struct insn *i)
{
	uint8_t *fx = c->fpu.fxsave;

	(void)i;
	fx_put16(fx, FX_FSW, fx_get16(fx, FX_FSW) & ~(FSW_EXC | FSW_SF | FSW_ES | FSW_B));
	return INSN_NEXT;
}

int fpu_fldcw(struct vcpu *c, const struct insn *i)
{
	struct fpu_mem m;
	uint16_t v;

	if (fpu_operand(c, i, 2, false, 2, &m) || mem_read16(c, m.lin, &v, interp_acc(c)))
		return -1;
	fpu_set_control(c->fpu.fxsave, v, fx_get16(c->fpu.fxsave, FX_FSW));
	return INSN_NEXT;
}

static int store_word(struct vcpu *c, const struct insn *i, unsigned at)
{
	struct fpu_mem m;

	if (fpu_operand(c, i, 2, true, 2, &m))
		return -1;
	return mem_write16(c, m.lin, fx_get16(c->fpu.fxsave, at), interp_acc(c));
}

int fpu_fnstcw(struct vcpu *c, const struct insn *i)
{
	return store_word(c, i, FX_FCW);
}

int fpu_fnstsw(struct vcpu *c, const struct insn *i)
{
	if (i->mod != 3)
		return store_word(c, i, FX_FSW);
	set_reg16(c, EAX, fx_get16(c->fpu.fxsave, FX_FSW));
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ tags */

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static unsigned tag_of(const uint8_t *st)
{
	unsigned exponent = fx_get16(st, 8) & 0x7fffu;

	if (exponent == 0)
		return fx_get32(st, 0) | fx_get32(st, 4) ? TAG_SPECIAL : TAG_ZERO;
	return exponent == 0x7fffu || !(st[7] & 0x80) ? TAG_SPECIAL : TAG_VALID;
}

/* The two-bit tags of the physical registers from the abridged ones and the contents (SDM vol. 1 table 10-3).
 */
static uint16_t full_tags(const uint8_t *fx)
{
	unsigned top = fx_get16(fx, FX_FSW) >> 11 & 7u, tags = 0;

	for (unsigned r = 0; r < 8; r++) {
		bool full = fx[FX_FTW] >> r & 1;
		tags |= (full ? tag_of(fx + FX_ST + 16 * ((r - top) & 7u)) : TAG_EMPTY) << 2 * r;
	}
	return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t tags)
{
	unsigned a = 0;

	for (unsigned r = 0; r < 8; r++)
		a |= ((tags >> 2 * r & 3u) != TAG_EMPTY) << r;
	return (uint8_t)a;
}

/* ------------------------------------------------------------------ FNSTENV, FLDENV, FNSAVE, FRSTOR
 *
 *	    32-bit protected	  32-bit real	     16-bit protected	 16-bit real
 *	 0  FCW			  FCW		  0  FCW		 FCW
 *	 4  FSW			  FSW		  2  FSW		 FSW
 *	 8  FTW			  FTW		  4  FTW		 FTW
 *	12  FIP			  FIP 15-0	  6  FIP 15-0		 FIP 15-0
 *	16  FOP << 16 | FCS	  FIP 31-16 << 12  8  FCS		 FIP 19-16 << 12 | FOP
 *				  | FOP
 *	20  FDP			  FDP 15-0	 10  FDP 15-0		 FDP 15-0
 *	24  FDS			  FDP 31-16 << 12 12  FDS		 FDP 19-16 << 12
 *
 * Unused halves of dwords are stored as ones. In real-address and virtual-8086 mode FIP and FDP are linear:
 *selector times 16 plus offset.
 */
#define ENV_SIZE(i) ((i)->opsize == 4 ? 28u : 14u)
#define ENV_MAX	    28u
#define ST_SIZE	    80u /* the eight registers, 10 bytes each */

static bool real_layout(const struct vcpu *c)
{
	return !cpu_protected(c) || cpu_v86(c);
}

static void put_env(const struct vcpu *c, bool wide, uint8_t *env)
{
	const uint8_t *fx = c->fpu.fxsave;
	const bool real = real_layout(c);
	uint32_t fip = fx_get32(fx, FX_FIP), fcs = fx_get16(fx, FX_FCS), fop = fx_get16(fx, FX_FOP);
	uint32_t fdp = fx_get32(fx, FX_FDP), fds = fx_get16(fx, FX_FDS);
	uint32_t w[7];

	if (real) {
		fip += fcs << 4;
		fdp += fds << 4;
	}
	w[0] = 0xffff0000u | fx_get16(fx, FX_FCW);
	w[1] = 0xffff0000u | fx_get16(fx, FX_FSW);
	w[2] = 0xffff0000u | full_tags(fx);
	if (wide && !real) {
		w[3] = fip;
		w[4] = fop << 16 | fcs;
		w[5] = fdp;
		w[6] = 0xffff0000u | fds;
	} else if (wide) {
		w[3] = 0xffff0000u | (fip & 0xffffu);
		w[4] = fip >> 16 << 12 | fop;
		w[5] = 0xffff0000u | (fdp & 0xffffu);
		w[6] = fdp >> 16 << 12;
	} else {
		w[3] = fip;
		w[4] = real ? fip >> 16 << 12 | fop : fcs;
		w[5] = fdp;
		w[6] = real ? fdp >> 16 << 12 : fds;
	}
	for (unsigned k = 0; k < 7; k++) {
		if (wide)
			fx_put32(env, 4 * k, w[k]);
		else
			fx_put16(env, 2 * k, w[k]);
	}
}

static void get_env(struct vcpu *c, bool wide, const uint8_t *env)
{
	uint8_t *fx = c->fpu.fxsave;
	uint32_t w[7], fip, fdp;

	for (unsigned k = 0; k < 7; k++)
		w[k] = wide ? fx_get32(env, 4 * k) : fx_get16(env, 2 * k);
	set_top(fx, w[1] >> 11 & 7u);
	fpu_set_control(fx, w[0], w[1]);
	fx_put16(fx, FX_FTW, abridged_tags((uint16_t)w[2]));
	if (!real_layout(c)) {
		fpu_set_pointers(fx, w[3], w[4], wide ? w[4] >> 16 : 0, w[5], w[6]);
		return;
	}
	fip = (w[3] & 0xffffu) | (w[4] & 0x0ffff000u) << 4;
	fdp = (w[5] & 0xffffu) | (w[6] & 0x0ffff000u) << 4;
	fpu_set_pointers(fx, fip, 0, w[4], fdp, 0);
}

/* The operand of these is an array of words: #AC asks for the alignment of one. The first word and the last
 * byte are looked at before anything else, and page faults are reported for them. */
static int open_env(struct vcpu *c, const struct insn *i, unsigned len, bool write, struct fpu_mem *m)
{
	unsigned acc = interp_acc(c) | (write ? ACC_WRITE : ACC_READ);

	if (fpu_operand(c, i, len, write, i->opsize, m) || mem_probe(c, m->lin, i->opsize, acc))
		return -1;
	return mem_probe(c, m->lin + len - 1, 1, acc);
}

int fpu_fnstenv(struct vcpu *c, const struct insn *i)
{
	uint8_t env[ENV_MAX], *fx = c->fpu.fxsave;
	struct fpu_mem m;

	if (open_env(c, i, ENV_SIZE(i), true, &m))
		return -1;
	put_env(c, i->opsize == 4, env);
	if (mem_write(c, m.lin, env, ENV_SIZE(i), interp_acc(c)))
		return -1;
	fpu_set_control(fx, fx_get16(fx, FX_FCW) | FSW_EXC, fx_get16(fx, FX_FSW));
	return INSN_NEXT;
}

int fpu_fldenv(struct vcpu *c, const struct insn *i)
{
	uint8_t env[ENV_MAX];
	struct fpu_mem m;

	if (open_env(c, i, ENV_SIZE(i), false, &m) || mem_read(c, m.lin, env, ENV_SIZE(i), interp_acc(c)))
		return -1;
	get_env(c, i->opsize == 4, env);
	return INSN_NEXT;
}

int fpu_fnsave(struct vcpu *c, const struct insn *i)
{
	const unsigned at = ENV_SIZE(i);
	uint8_t image[ENV_MAX + ST_SIZE], *fx = c->fpu.fxsave;
	struct fpu_mem m;

	if (open_env(c, i, at + ST_SIZE, true, &m))
		return -1;
	put_env(c, i->opsize == 4, image);
	for (unsigned k = 0; k < 8; k++)
		memcpy(image + at + 10 * k, fx + FX_ST + 16 * k, 10);
	if (mem_write(c, m.lin, image, at + ST_SIZE, interp_acc(c)))
		return -1;
	reset_x87(fx);
	return INSN_NEXT;
}

int fpu_frstor(struct vcpu *c, const struct insn *i)
{
	const unsigned at = ENV_SIZE(i);
	uint8_t image[ENV_MAX + ST_SIZE], *fx = c->fpu.fxsave;
	struct fpu_mem m;

	if (open_env(c, i, at + ST_SIZE, false, &m) || mem_read(c, m.lin, image, at + ST_SIZE, interp_acc(c)))
		return -1;
	get_env(c, i->opsize == 4, image);
	for (unsigned k = 0; k < 8; k++)
		memcpy(fx + FX_ST + 16 * k, image + at + 10 * k, 10);
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ FXSAVE, FXRSTOR */

/* Misalignment is #AC where that is enabled and the address is not even a multiple of 4, else #GP(0); it
 * comes before the segment's checks. The last byte's page is looked at first. */
static int open_fx(struct vcpu *c, const struct insn *i, bool write, struct fpu_mem *m)
{
	unsigned acc = interp_acc(c) | (write ? ACC_WRITE : ACC_READ);

	const uint32_t lin = c->seg[i->seg].base + interp_ea(c, i);

	if ((lin & 3) && fpu_alignment_checked(c))
		return cpu_raise_error(c, VEC_AC, 0);
	if (lin & 15)
		return cpu_raise_error(c, VEC_GP, 0);
	if (fpu_operand(c, i, sizeof c->fpu.fxsave, write, 1, m))
		return -1;
	if (mem_probe(c, m->lin + sizeof c->fpu.fxsave - 1, 1, acc))
		return -1;
	return mem_probe(c, m->lin, 1, acc);
}

/* Without CR4.OSFXSR the SSE state is neither stored nor loaded (SDM vol. 1 10.5.1). */
static unsigned fx_size(const struct vcpu *c)
{
	return c->cr4 & CR4_OSFXSR ? FX_END : FX_XMM;
}

/* The unused bytes of the register slots are always 0. */
static void clear_padding(uint8_t *fx)
{
	fx[FX_FTW + 1] = 0;
	for (unsigned k = 0; k < 8; k++)
		memset(fx + FX_ST + 16 * k + 10, 0, 6);
}

/* Bytes 288 to 511 are left alone, as by a CPU outside 64-bit mode. */
int fpu_fxsave(struct vcpu *c, const struct insn *i)
{
	uint8_t image[FX_END];
	struct fpu_mem m;

	if (open_fx(c, i, true, &m))
		return -1;
	memcpy(image, c->fpu.fxsave, FX_END);
	if (hostunit_traits.fxsave_hides_ptrs && !(image[FX_FSW] & FSW_ES))
		fpu_set_pointers(image, 0, 0, 0, 0, 0);
	clear_padding(image);
	fx_put32(image, FX_MXCSR_MASK, hostunit_traits.mxcsr_mask);
	return mem_write(c, m.lin, image, fx_size(c), interp_acc(c));
}

int fpu_fxrstor(struct vcpu *c, const struct insn *i)
{
	uint8_t image[FX_END], *fx = c->fpu.fxsave;
	struct fpu_mem m;

	if (open_fx(c, i, false, &m) || mem_read(c, m.lin, image, FX_END, interp_acc(c)))
		return -1;
	if (!(c->cr4 & CR4_OSFXSR))
		memcpy(image + FX_MXCSR, fx + FX_MXCSR, 4);
	else if (fx_get32(image, FX_MXCSR) & ~hostunit_traits.mxcsr_mask)
		return cpu_raise_error(c, VEC_GP, 0);
	memcpy(fx, image, fx_size(c));
	clear_padding(fx);
	fpu_set_control(fx, fx_get16(fx, FX_FCW), fx_get16(fx, FX_FSW));
	fpu_set_pointers(fx, fx_get32(fx, FX_FIP), fx_get16(fx, FX_FCS), fx_get16(fx, FX_FOP),
			 fx_get32(fx, FX_FDP), fx_get16(fx, FX_FDS));
	return INSN_NEXT;
}
