/* fpu.c - interp_fpu: x87, MMX and SSE instructions, from the availability checks to the commit.
 *
 * The order is the silicon's:
 *	1. CR0.EM, TS, MP and CR4.OSFXSR: #UD or #NM
 *	2. an unmasked x87 exception pending from before: #MF (waiting x87 and MMX-register instructions)
 *	3. the memory operand: segment, limit, #AC, SSE alignment, paging
 *	4. execution on a copy of the state (hostunit.h)
 *	5. SIMD exceptions: #XM
 *	6. the store
 *	7. commit of the state, the general register and EFLAGS
 * Nothing of the guest's changes before 6 has succeeded, MXCSR's flags at an #XM excepted.
 */
#include <assert.h>

#include "vmm/interp/hostunit.h"
#include "vmm/interp/interp.h"

enum fpu_ferr (*fpu_ferr_hook)(struct vcpu *c);

/* ------------------------------------------------------------------ may it execute? */

/* Availability by class (SDM vol. 3A tables 2-2 and 12-1, 13.1; vol. 2A 2.4.) ud, nm: bits of CR0 that raise
 * it; fxsr: needs CR4.OSFXSR; pending: looks for a pending x87 exception. */
static const struct class_row {
	uint32_t ud, nm;
	bool fxsr, pending;
} classes[] = {
	[HOSTUNIT_X87] = {0, CR0_EM | CR0_TS, false, true},
	[HOSTUNIT_X87_NOWAIT] = {0, CR0_EM | CR0_TS, false, false},
	[HOSTUNIT_FWAIT] = {0, 0, false, true}, /* #NM when MP and TS */
	[HOSTUNIT_MMX] = {CR0_EM, CR0_TS, false, true},
	[HOSTUNIT_SSE] = {CR0_EM, CR0_TS, true, false},
	[HOSTUNIT_SSE_MMX] = {CR0_EM, CR0_TS, true, true},
	[HOSTUNIT_FXSR] = {0, CR0_EM | CR0_TS, false, false},
	[HOSTUNIT_PLAIN] = {0, 0, false, false},
};

/* INSN_NEXT: execute it. INSN_JUMPED: not yet, it waits for the interrupt. -1: exception. */
static int pending_exception(struct vcpu *c)
{
	if (!(c->cr0 & CR0_NE) && fpu_ferr_hook)
		return fpu_ferr_hook(c) == FPU_FERR_WAIT ? INSN_JUMPED : INSN_NEXT;
	return cpu_raise(c, VEC_MF);
}

static int check_available(struct vcpu *c, unsigned class)
{
	const struct class_row *row = &classes[class];

	if (class == HOSTUNIT_UNDEFINED || (c->cr0 & row->ud) || (row->fxsr && !(c->cr4 & CR4_OSFXSR)))
		return cpu_raise(c, VEC_UD);
	if (c->cr0 & row->nm)
		return cpu_raise(c, VEC_NM);
	if (class == HOSTUNIT_FWAIT && (c->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		return cpu_raise(c, VEC_NM);
	if (row->pending && (c->fpu.fxsave[FX_FSW] & FSW_ES))
		return pending_exception(c);
	return INSN_NEXT;
}

/* ------------------------------------------------------------------ memory operand */

/* #AC is raised at CPL 3 only, when CR0.AM and EFLAGS.AC are set (SDM vol. 3A 6.15, interrupt 17). */
bool fpu_alignment_checked(const struct vcpu *c)
{
	return c->cpl == 3 && (c->cr0 & CR0_AM) && (c->sysflags & FL_AC);
}

int fpu_operand(struct vcpu *c, const struct insn *i, unsigned len, bool write, unsigned ac_align,
		struct fpu_mem *m)
{
	m->off = interp_ea(c, i);
	if (interp_linear(c, i->seg, m->off, len, write, &m->lin))
		return -1;
	if (unlikely((m->lin & (ac_align - 1)) && fpu_alignment_checked(c)))
		return cpu_raise_error(c, VEC_AC, 0);
	return 0;
}

/* The operand of an instruction that is run. #AC: 10-byte operands and masked moves ask for multiples of 8,
 * the others for their size; where 16-byte alignment is required, #GP comes first, before the limit check,
 * which may give #SS. */
static int open_operand(struct vcpu *c, const struct insn *i, const struct hostunit_op *op, struct fpu_mem *m)
{
	struct insn at_edi;
	bool must_align = op->align == HOSTUNIT_ALIGN16 || (op->align == HOSTUNIT_ALIGN16_UNLESS_MM &&
							    !(fx_get32(c->fpu.fxsave, FX_MXCSR) & MXCSR_MM));
	unsigned ac_align = must_align ? 1 : op->masked || op->mem_size == 10 ? 8 : op->mem_size;

	if (unlikely(op->masked)) {
		at_edi = *i;
		at_edi.seg = (uint8_t)(i->segover >= 0 ? i->segover : DS);
		at_edi.base = EDI;
		at_edi.index = -1;
		at_edi.disp = 0;
		i = &at_edi;
	}
	if (must_align && ((c->seg[i->seg].base + interp_ea(c, i)) & 15))
		return cpu_raise_error(c, VEC_GP, 0);
	return fpu_operand(c, i, op->mem_size, op->mem_write, ac_align, m);
}

/* ------------------------------------------------------------------ x87 */

/* FIP, FOP and FDP as the host's unit would have them, but with the guest's addresses. */
static void record_pointers(const struct vcpu *c, const struct insn *i, uint8_t *fx, bool unmasked,
			    bool has_mem, uint32_t off)
{
	const struct hostunit_traits *t = &hostunit_traits;

	fx_put32(fx, FX_FIP, c->eip);
	fx_put16(fx, FX_FCS, t->no_fcs_fds ? 0 : c->seg[CS].sel);
	if (unmasked || !t->fop_only_unmasked)
		fx_put16(fx, FX_FOP, ((uint32_t)i->opcode & 7u) << 8 | i->raw[i->modrm_off]);
	if (has_mem && (unmasked || !t->fdp_only_unmasked)) {
		fx_put32(fx, FX_FDP, off);
		fx_put16(fx, FX_FDS, t->no_fcs_fds ? 0 : c->seg[i->seg].sel);
	}
}

void fpu_load_frame(const struct vcpu *c, const struct hostunit_op *op, struct hostunit_frame *f)
{
	memcpy(f->image, c->fpu.fxsave, FX_END);
	memset(f->image + FX_FOP, 0, FX_MXCSR - FX_FOP);
	if (unlikely(f->image[FX_FSW] & FSW_ES)) /* ignored by the guest; the host would trap */
		fx_put16(f->image, FX_FSW, fx_get16(f->image, FX_FSW) & ~(FSW_EXC | FSW_ES | FSW_B));
	memset(f->image + FX_END, 0, 128); /* XMM8-15 */
	f->eax = c->gpr[EAX];
	f->edx = c->gpr[EDX];
	f->ecx = op->gpr_in >= 0 ? c->gpr[op->gpr_in] : 0;
	f->flags = c->flags | FL_IF | FL_1;
}

/* ------------------------------------------------------------------ stores */

/* Which bytes of its operand the instruction really stores: those that come out the same from two different
 * fillings. */
static unsigned stored_bytes(const struct vcpu *c, const struct hostunit_op *op)
{
	struct hostunit_frame f[2];
	unsigned mask = 0;

	for (unsigned n = 0; n < 2; n++) {
		memset(f[n].mem, n ? 0xff : 0, sizeof f[n].mem);
		fpu_load_frame(c, op, &f[n]);
		hostunit_run(&f[n], op->code);
	}
	for (unsigned k = 0; k < op->mem_size; k++)
		if (f[0].mem[k] == f[1].mem[k])
			mask |= 1u << k;
	return mask;
}

/* All of the operand must be writable, whatever is stored. */
static int store_some(struct vcpu *c, const struct hostunit_op *op, const struct hostunit_frame *f,
		      const struct fpu_mem *m)
{
	unsigned mask = stored_bytes(c, op), end;

	if (mem_probe(c, m->lin, op->mem_size, ACC_WRITE | interp_acc(c)))
		return -1;
	for (unsigned k = 0; k < op->mem_size; k = end + 1) {
		for (end = k; mask >> end & 1; end++)
			;
		if (end > k && mem_write(c, m->lin + k, f->mem + k, end - k, interp_acc(c)))
			return -1;
	}
	return 0;
}

/* Most instructions store all of their operand. The masked moves don't, and an x87 store that raises an
 * unmasked exception may store nothing. */
static int store_operand(struct vcpu *c, const struct hostunit_op *op, const struct hostunit_frame *f,
			 const struct fpu_mem *m)
{
	if (unlikely(op->masked || (op->class == HOSTUNIT_X87 && (f->image[FX_FSW] & FSW_ES))))
		return store_some(c, op, f, m);
	return mem_write(c, m->lin, f->mem, op->mem_size, interp_acc(c));
}

/* ------------------------------------------------------------------ the instruction */

static void commit(struct vcpu *c, const struct insn *i, const struct hostunit_op *op,
		   struct hostunit_frame *f, const struct fpu_mem *m)
{
	uint8_t *fx = c->fpu.fxsave;
	const uint32_t fsw = fx_get16(fx, FX_FSW);

	memcpy(fx, f->image, FX_FOP);
	memcpy(fx + FX_MXCSR, f->image + FX_MXCSR, FX_END - FX_MXCSR);
	if (unlikely(fsw & FSW_ES))
		fpu_set_control(fx, fx_get16(fx, FX_FCW), fx_get16(fx, FX_FSW) | (fsw & FSW_EXC));
	if (op->class == HOSTUNIT_X87)
		record_pointers(c, i, fx, f->image[FX_FSW] & FSW_ES, op->mem_size != 0, m->off);
	if (op->gpr_out >= 0)
		c->gpr[op->gpr_out] = f->ecx;
	if (op->sets_flags)
		c->flags = (uint32_t)f->flags & FL_ARITH;
}

static int execute(struct vcpu *c, const struct insn *i, const struct hostunit_op *op)
{
	struct hostunit_frame f;
	struct fpu_mem m = {0, 0};

	if (unlikely(op->masked && op->class == HOSTUNIT_MMX))
		fpu_enter_mmx(c->fpu.fxsave); /* the silicon does so even if the operand faults */
	if (op->mem_size) {
		if (open_operand(c, i, op, &m))
			return -1;
		if (op->mem_read && mem_read(c, m.lin, f.mem, op->mem_size, interp_acc(c)))
			return -1;
	}
	fpu_load_frame(c, op, &f);
	if (op->class == HOSTUNIT_SSE || op->class == HOSTUNIT_SSE_MMX) {
		if (sse_run(c, i, op, &f))
			return -1;
	} else {
		hostunit_run(&f, op->code);
	}
	if (op->mem_write && store_operand(c, op, &f, &m))
		return -1;
	commit(c, i, op, &f, &m);
	return INSN_NEXT;
}

int interp_fpu(struct vcpu *c, const struct insn *i)
{
	const struct hostunit_op *op = hostunit_lookup(c, i);
	int r = check_available(c, op->class);

	if (unlikely(r != INSN_NEXT))
		return r;
	if (op->emulate)
		return op->emulate(c, i);
	return execute(c, i, op);
}
