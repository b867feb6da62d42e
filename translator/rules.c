/* rules.c - the translation rules that are not IDENT, one function each, with the code they emit shown above
 * them.
 *
 * The order inside each sequence keeps faults precise: nothing of the guest's state changes before the last
 * instruction that can fault.
 */
#include "translator/tr.h"

/* Guest esp + disp: gs:[r12 + disp], at a user site [r12 + r13 + disp]. Where the guest's would wrap they
 * trap. A site that probes has the address already. */
static struct host_mem stack_at(const struct tr *t, unsigned i, int32_t disp)
{
	const bool user_site = !(t->rq->mode & MODE_USER) && tr_site(t, i) & SITE_USER;

	if (t->probed)
		return (struct host_mem){.base = R10, .index = R8, .scale = 1};
	return (struct host_mem){.base = R12,
				 .index = user_site ? R13 : -1,
				 .scale = 1,
				 .disp = t->esp_off + disp,
				 .gs = !user_site};
}

/* esp changes by this much; r12 follows when it is needed (tr_settle_esp). */
static void move_esp(struct tr *t, int32_t by)
{
	t->esp_off += by;
}

/* The stack may be used with r12: not where accesses to it trap. */
static bool stack_ok(const struct tr *t, unsigned i)
{
	return !(t->rq->mode & MODE_NF_SS) && !(tr_site(t, i) & (SITE_CALLOUT | SITE_MIXED));
}

static bool flags_dead(const struct tr *t, unsigned i)
{
	return !(t->live[i] & FL_ARITH);
}

/* div, idiv */
static bool divides(const struct insn *in)
{
	return in->opmap == 0 && (in->opcode & 0xfe) == 0xf6 && in->reg >= 6;
}

/* The callout to the interpreter for instruction i. */
static void interp_at(struct tr *t, struct emitter *e, unsigned i)
{
	const struct insn *in = &t->insn[i];
	const enum callout co = insn_callout(in, (enum insn_class)t->class[i]);
	uint32_t arg = in->len | (uint32_t)t->class[i] << 8;

	if (co == CO_MOV_TO_CR)
		arg |= (uint32_t)in->reg << CO_ARG_CR_SHIFT | (uint32_t)in->rm << CO_ARG_GPR_SHIFT;
	else if (tr_site(t, i) & SITE_CALLOUT)
		arg |= site_index(tr_gpa(t, i), t->rq->mode & MODE_USER) << 16 | CO_ARG_SITE |
		       (divides(in) ? CO_ARG_EXCEPTION : 0);
	tr_callout(t, e, co, tr_eip(t, i), arg);
}

void rule_interp(struct tr *t, unsigned i)
{
	interp_at(t, &t->e, i);
}

/* ------------------------------------------------------------------ stack */

/* push eax; push 5; mov eax, [esp+8]   ->   mov gs:[r12-4], eax; mov dword gs:[r12-8], 5; mov eax, gs:[r12];
 * and before something that needs it, lea r12d, [r12-8] */
static bool push(struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct host_mem m = stack_at(t, i, -4);

	if (t->class[i] == CL_PUSH_REG)
		em_store32(&t->e, &m, host_reg(in->opcode & 7));
	else
		em_store_i32(&t->e, &m, in->imm);
	move_esp(t, -4);
	return true;
}

static bool pop(struct tr *t, unsigned i)
{
	const unsigned r = t->insn[i].opcode & 7;
	struct host_mem m = stack_at(t, i, 0);

	em_load32(&t->e, host_reg(r), &m);
	if (r != ESP)
		move_esp(t, 4);
	return true;
}

static void push_scratch(struct tr *t, unsigned i, unsigned reg)
{
	struct host_mem m = stack_at(t, i, -4);

	em_store32(&t->e, &m, reg);
	move_esp(t, -4);
}

/* push [ea]   ->   mov r8d, [ea]; mov gs:[r12-4], r8d; lea r12d, [r12-4] */
static bool push_rm(struct tr *t, unsigned i)
{
	struct host_mem m;

	if (t->insn[i].mod == 3) {
		push_scratch(t, i, host_reg(t->insn[i].rm));
		return true;
	}
	if (!ident_operand(t, i, &m))
		return false;
	em_load32(&t->e, R8, &m);
	push_scratch(t, i, R8);
	return true;
}

/* pop [ea]   ->   mov r11d, gs:[r12]; mov [ea], r11d; lea r12d, [r12+4]       (esp in ea: already
 * incremented) */
static bool pop_rm(struct tr *t, unsigned i)
{
	struct insn *in = &t->insn[i];
	struct host_mem m, s = stack_at(t, i, 0);

	if (in->mod == 3) {
		em_load32(&t->e, R11, &s);
		em_lea_disp(&t->e, GUEST_ESP, GUEST_ESP, 4);
		em_mov_rr32(&t->e, host_reg(in->rm), R11);
		return true;
	}
	em_load32(&t->e, R11, &s);
	int32_t disp = in->disp;
	if (in->base == ESP)
		in->disp += 4;
	bool ok = ident_operand(t, i, &m);
	in->disp = disp;
	if (!ok)
		return false;
	em_store32(&t->e, &m, R11);
	em_lea_disp(&t->e, GUEST_ESP, GUEST_ESP, 4);
	return true;
}

/* push ds   ->   movzx r9d, word [r15+sel]; mov gs:[r12-4], r9d; lea r12d, [r12-4]
 * The upper half of the stack slot: zero, as 32-bit CPUs since the P6 may leave it untouched or zero it.
 * Silicon writes 16 bits only; so do we. */
static bool push_seg(struct tr *t, unsigned i)
{
	unsigned op = t->insn[i].opcode;
	unsigned s = t->insn[i].opmap ? (op == 0xa0 ? FS : GS) : op >> 3 & 3;
	struct host_mem sel =
		tr_vcpu(offsetof(struct vcpu, seg) + s * sizeof(struct seg) + offsetof(struct seg, sel));

	em_movzx16_m(&t->e, R9, &sel);
	push_scratch(t, i, R9);
	return true;
}

static bool pusha(struct tr *t, unsigned i)
{
	for (unsigned r = EAX; r <= EDI; r++) {
		struct host_mem m = stack_at(t, i, -4 - 4 * (int32_t)r);
		em_store32(&t->e, &m, host_reg(r));
	}
	em_lea_disp(&t->e, GUEST_ESP, GUEST_ESP, -32);
	return true;
}

/* The highest and the lowest word are read first, so that no register changes before the last fault. */
static bool popa(struct tr *t, unsigned i)
{
	struct host_mem lo = stack_at(t, i, 0), hi = stack_at(t, i, 28);

	t->b->side[i].flags |= SIDE_RETELL;
	em_load32(&t->e, R8, &hi);
	em_load32(&t->e, R9, &lo);
	for (unsigned r = EAX; r <= EDI; r++) {
		struct host_mem m = stack_at(t, i, 28 - 4 * (int32_t)r);
		if (r != ESP)
			em_load32(&t->e, r, &m);
	}
	em_lea_disp(&t->e, GUEST_ESP, GUEST_ESP, 32);
	return true;
}

/* leave   ->   mov r8d, gs:[rbp]; lea r12d, [rbp+4]; mov ebp, r8d */
static bool leave(struct tr *t, unsigned i)
{
	struct host_mem m = stack_at(t, i, 0);

	if (!t->probed) {
		m.base = RBP;
		m.disp = 0;
	}
	if (t->insn[i].opsize == 2)
		return false;
	em_load32(&t->e, R8, &m);
	em_lea_disp(&t->e, GUEST_ESP, RBP, 4);
	t->esp_off = 0;
	em_mov_rr32(&t->e, RBP, R8);
	return true;
}

/* ------------------------------------------------------------------ flags register */

static const struct host_mem *vcpu_field(struct host_mem *m, size_t off)
{
	*m = tr_vcpu(off);
	return m;
}

/* pushf   ->   mov r9d, eax; lahf; seto al; rorx r10d, eax, 8; movzx r10d, r10b; movzx r11d, al; rorx r11d,
 * r11d, 21; mov eax, r9d; (r10d += r11d + iflag + df + sysflags by lea); mov gs:[r12-4], r10d; lea r12d,
 * [r12-4] */
static bool pushf(struct tr *t, unsigned i)
{
	static const size_t parts[] = {offsetof(struct vcpu, iflag), offsetof(struct vcpu, df),
				       offsetof(struct vcpu, sysflags)};
	struct emitter *e = &t->e;
	struct host_mem m;

	if (!translate_host.bmi2)
		return false;
	em_mov_rr32(e, R9, RAX);
	em8(e, 0x9f);								   /* lahf */
	em_modrm_reg(e, NULL, 0, false, (const uint8_t[]){0x0f, 0x90}, 2, 0, RAX); /* seto al */
	em_rorx32(e, R10, RAX, 8);
	em_movzx8_r(e, R10, R10);
	em_movzx8_r(e, R11, RAX);
	em_rorx32(e, R11, R11, 21);
	em_mov_rr32(e, RAX, R9);
	em_lea_add(e, R10, R10, R11);
	for (unsigned n = 0; n < 3; n++) {
		em_load32(e, R11, vcpu_field(&m, parts[n]));
		em_lea_add(e, R10, R10, R11);
	}
	push_scratch(t, i, R10);
	return true;
}

/* popf, when only the arithmetic flags (and, at CPL 0, IF) change; anything else takes the callout. At CPL 3
 * that is asked of IF as well: with IOPL 3 it changes there too.
 *
 *   mov r8d, gs:[r12]
 *   mov r9d, r8d; and r9d, SYS; mov r10d, [sysflags]; or r10d, [df]; cmp r9d, r10d; jne slow
 *   CPL 0: mov r9d, r8d; and r9d, IF; jz 1f; cmp [request], 0; jne slow; 1: mov [iflag], r9d
 *   CPL 3: mov r9d, r8d; and r9d, IF; cmp r9d, [iflag]; jne slow
 *   lea r12d, [r12+4]
 *   mov r10d, eax; mov eax, r8d; mov r9d, r8d; shr r9d, 11; and r9d, 1; add r9b, 0x7f; mov ah, al; sahf; mov
 * eax, r10d
 */
static bool popf(struct tr *t, unsigned i)
{
	const uint32_t sys = FL_TF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_AC | FL_VIF | FL_VIP | FL_ID;
	struct emitter *e = &t->e;
	struct host_mem m, s = stack_at(t, i, 0);
	uint32_t slow[2];
	unsigned nslow = 0;

	em_load32(e, R8, &s);
	em_mov_rr32(e, R9, R8);
	em_alu_ri32(e, ALU_AND, R9, sys);
	em_load32(e, R10, vcpu_field(&m, offsetof(struct vcpu, sysflags)));
	em_alu_rm32(e, ALU_OR, R10, vcpu_field(&m, offsetof(struct vcpu, df)));
	em_alu_rr32(e, ALU_CMP, R9, R10);
	slow[nslow++] = em_jcc32(e, 5);
	em_mov_rr32(e, R9, R8);
	em_alu_ri32(e, ALU_AND, R9, FL_IF);
	if (t->rq->mode & MODE_USER) {
		em_alu_rm32(e, ALU_CMP, R9, vcpu_field(&m, offsetof(struct vcpu, iflag)));
		slow[nslow++] = em_jcc32(e, 5);
	} else {
		uint32_t off = em_jcc8(e, 4);
		em_cmp_mi8(e, vcpu_field(&m, offsetof(struct vcpu, request)), 0);
		slow[nslow++] = em_jcc32(e, 5);
		em_fix8(e, off);
		em_store32(e, vcpu_field(&m, offsetof(struct vcpu, iflag)), R9);
	}
	em_lea_disp(e, GUEST_ESP, GUEST_ESP, 4);
	em_mov_rr32(e, R10, RAX);
	em_mov_rr32(e, RAX, R8);
	em_mov_rr32(e, R9, R8);
	em_shr_ri32(e, R9, 11);
	em_alu_ri32(e, ALU_AND, R9, 1);
	em_modrm_reg(e, NULL, 0, false, (const uint8_t[]){0x80}, 1, 0, R9); /* add r9b, 0x7f */
	em8(e, 0x7f);
	em8(e, 0x88); /* mov ah, al */
	em8(e, 0xc4);
	em8(e, 0x9e); /* sahf */
	em_mov_rr32(e, RAX, R10);
	uint32_t back = em_off(e);
	struct emitter c = tr_cold(t, 64);
	for (unsigned n = 0; n < nslow; n++)
		em_fix32(e, slow[n], em_off(&c));
	interp_at(t, &c, i);
	em_fix32(&c, em_jmp32(&c), back);
	return true;
}

static bool cli(struct tr *t)
{
	struct host_mem m;

	em_store_i32(&t->e, vcpu_field(&m, offsetof(struct vcpu, iflag)), 0);
	return true;
}

/* sti   ->   mov dword [iflag], IF; if [request] != 0, callout: it arranges for one more instruction, then
 * the interrupt. A request that comes later finds IF set and leaves at the end of the block; so sti must not
 * end one. */
static bool sti(struct tr *t, unsigned i)
{
	struct emitter *e = &t->e;
	struct host_mem m;

	if (i + 1 == t->n)
		return false;
	em_store_i32(e, vcpu_field(&m, offsetof(struct vcpu, iflag)), FL_IF);
	if (flags_dead(t, i)) {
		em_cmp_mi8(e, vcpu_field(&m, offsetof(struct vcpu, request)), 0);
		uint32_t slow = em_jcc32(e, 5);
		uint32_t back = em_off(e);
		struct emitter c = tr_cold(t, 64);
		em_fix32(e, slow, em_off(&c));
		tr_callout(t, &c, CO_STI, tr_eip(t, i), t->insn[i].len);
		em_fix32(&c, em_jmp32(&c), back);
		return true;
	}
	em_mov_rr64(e, R10, RCX);
	em_load32(e, RCX, vcpu_field(&m, offsetof(struct vcpu, request)));
	uint32_t quiet = em_jrcxz8(e);
	em_mov_rr64(e, RCX, R10);
	tr_callout(t, e, CO_STI, tr_eip(t, i), t->insn[i].len);
	em_mov_rr64(e, R10, RCX);
	em_fix8(e, quiet);
	em_mov_rr64(e, RCX, R10);
	return true;
}

static bool cld_std(struct tr *t, unsigned i)
{
	struct host_mem m;
	bool std = t->class[i] == CL_STD;

	em8(&t->e, std ? 0xfd : 0xfc);
	em_store_i32(&t->e, vcpu_field(&m, offsetof(struct vcpu, df)), std ? FL_DF : 0);
	return true;
}

/* ------------------------------------------------------------------ segment registers, CPL */

/* mov ds, [ea]   ->   movzx r10d, word [ea]; mov r8d, eip; mov r9d, arg; call [go_seg_load]
 * pop fs         ->   mov r10d, gs:[r12]; movzx r10d, r10w; likewise
 *
 * Not where the mode says that the register is not flat: what is loaded may change that. Nor a load of SS
 * that ends the block: the instruction behind it runs before any interrupt. */
static bool seg_load(struct tr *t, unsigned i)
{
	static const uint32_t not_flat[6] = {[ES] = MODE_NF_ES, [SS] = MODE_NF_SS, [DS] = MODE_NF_DS};
	const struct insn *in = &t->insn[i];
	const bool pop = in->opmap || in->opcode != 0x8e;
	const unsigned s = in->opmap ? (in->opcode == 0xa1 ? FS : GS) : pop ? in->opcode >> 3 : in->reg;
	const struct host_mem go = tr_vcpu(offsetof(struct vcpu, hot.go_seg_load));
	uint32_t arg = in->len | (uint32_t)t->class[i] << 8 | CO_ARG_IS_LOAD;
	struct host_mem m;

	if (s == CS || s > GS || t->rq->mode & not_flat[s] || (s == SS && i + 1 == t->n) ||
	    tr_site(t, i) & SITE_CALLOUT || (pop && !stack_ok(t, i)))
		return false;
	arg |= (t->rq->mode & MODE_USER ? CO_ARG_USER : 0) | (s == SS ? CO_ARG_SS : 0) |
	       (not_flat[s] ? CO_ARG_FLAT : 0) | s << CO_ARG_SEG_SHIFT;
	if (pop) {
		arg |= 4u << CO_ARG_POP_SHIFT;
		m = stack_at(t, i, 0);
		em_load32(&t->e, R10, &m);
		em_movzx16_r(&t->e, R10, R10);
	} else if (in->mod == 3) {
		em_movzx16_r(&t->e, R10, host_reg(in->rm));
	} else if (ident_operand(t, i, &m)) {
		em_movzx16_m(&t->e, R10, &m);
	} else {
		return false;
	}
	em_mov_ri32(&t->e, R8, tr_eip(t, i));
	em_mov_ri32(&t->e, R9, arg);
	em_call_m(&t->e, &go);
	return true;
}

/* int n, iret, sysenter, sysexit, ljmp   ->   mov r8d, eip; mov r9d, arg; mov r10d, which or mode; jmp [go]
 *
 * SYSENTER and SYSEXIT load a flat SS, so that where it is flat already the mode changes by the privilege
 * only. */
static bool transfer(struct tr *t, unsigned i)
{
	struct host_mem go = tr_vcpu(offsetof(struct vcpu, hot.go_callout_end));
	uint32_t arg = t->insn[i].len | (uint32_t)t->class[i] << 8, r10 = CO_LIGHT;
	const uint32_t mode = t->rq->mode;

	switch (t->class[i]) {
	case CL_INT:
		arg |= (t->insn[i].imm & 0xff) << CO_ARG_VECTOR_SHIFT;
		r10 = CO_INT;
		break;
	case CL_IRET:
		r10 = CO_IRET;
		break;
	case CL_SYSENTER:
		if (mode & MODE_NF_SS)
			break;
		go = tr_vcpu(offsetof(struct vcpu, hot.go_sysenter));
		r10 = mode & ~MODE_USER;
		break;
	case CL_SYSEXIT:
		if (mode & (MODE_NF_SS | MODE_USER))
			break;
		go = tr_vcpu(offsetof(struct vcpu, hot.go_sysexit));
		r10 = mode | MODE_USER;
		break;
	default:
		if (insn_callout(&t->insn[i], CL_INTERP_END) != CO_LIGHT)
			return false;
	}
	em_mov_ri32(&t->e, R8, tr_eip(t, i));
	em_mov_ri32(&t->e, R9, arg);
	em_mov_ri32(&t->e, R10, r10);
	em_jmp_m(&t->e, &go);
	t->ended = true;
	return true;
}

/* ------------------------------------------------------------------ small ones */

/* inc ecx (41)   ->   inc ecx (ff c1): the short forms are REX prefixes on the host */
static bool incdec(struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	const uint8_t p66 = 0x66;

	em_modrm_reg(&t->e, &p66, in->opsize == 2, false, (const uint8_t[]){0xff}, 1, in->opcode >= 0x48,
		     host_reg(in->opcode & 7));
	return true;
}

static bool lea(struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	const uint8_t p66 = 0x66;
	struct host_mem m = ident_ea(t, in);

	em_modrm_mem(&t->e, &p66, in->opsize == 2, false, (const uint8_t[]){0x8d}, 1, host_reg(in->reg), &m);
	return true;
}

/* mov al, [moffs32] (a0)   ->   mov al, gs:[disp32] (8a): the host's a0 takes a 64-bit offset */
static bool moffs(struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	const uint8_t p66 = 0x66;
	struct host_mem m;
	uint8_t op = (in->opcode & 1 ? 0x8b : 0x8a) - (in->opcode & 2);

	if (!ident_operand(t, i, &m))
		return false;
	em_modrm_mem(&t->e, &p66, in->opsize == 2 && in->opcode & 1, false, &op, 1, RAX, &m);
	return true;
}

/* mov r32, ds / mov [m16], ds */
static bool mov_from_seg(struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct host_mem m, sel;

	if (in->reg > GS)
		return false;
	sel = tr_vcpu(offsetof(struct vcpu, seg) + in->reg * sizeof(struct seg) + offsetof(struct seg, sel));
	if (in->mod == 3) {
		if (in->opsize == 2) {
			em_modrm_mem(&t->e, (const uint8_t[]){0x66}, 1, false, (const uint8_t[]){0x8b}, 1,
				     host_reg(in->rm), &sel);
			return true;
		}
		em_movzx16_m(&t->e, host_reg(in->rm), &sel);
		return true;
	}
	if (!ident_operand(t, i, &m))
		return false;
	em_movzx16_m(&t->e, R11, &sel);
	em_modrm_mem(&t->e, (const uint8_t[]){0x66}, 1, false, (const uint8_t[]){0x89}, 1, R11, &m);
	return true;
}

static bool mov_from_cr(struct tr *t, unsigned i)
{
	static const uint16_t field[] = {offsetof(struct vcpu, cr0), 0, offsetof(struct vcpu, cr2),
					 offsetof(struct vcpu, cr3), offsetof(struct vcpu, cr4)};
	struct host_mem m;

	em_load32(&t->e, host_reg(t->insn[i].rm), vcpu_field(&m, field[t->insn[i].reg]));
	return true;
}

/* rdtsc   ->   rdtsc; rorx rdx, rdx, 32; lea rax, [rax+rdx]; mov r8, [tsc_offset]; lea rax, [rax+r8];
 *              rorx rdx, rax, 32; mov edx, edx; mov eax, eax */
static bool rdtsc(struct tr *t)
{
	struct emitter *e = &t->e;
	struct host_mem m;

	if (!translate_host.bmi2)
		return false;
	em8(e, 0x0f);
	em8(e, 0x31);
	em_rorx64(e, RDX, RDX, 32);
	em_lea64(e, RAX, &(struct host_mem){.base = RAX, .index = RDX, .scale = 1});
	em_load64(e, R8, vcpu_field(&m, offsetof(struct vcpu, tsc_offset)));
	em_lea64(e, RAX, &(struct host_mem){.base = RAX, .index = R8, .scale = 1});
	em_rorx64(e, RDX, RAX, 32);
	em_mov_rr32(e, RDX, RDX);
	em_mov_rr32(e, RAX, RAX);
	return true;
}

/* ------------------------------------------------------------------ string instructions
 *
 *   rep movsd   ->   lea rsi, [rsi+base]; lea rdi, [rdi+base]; rep movsd; mov esi, esi; mov edi, edi
 *
 * The host ignores gs for ES:EDI, so both pointers become host addresses; windows are 4 GiB-aligned, so that
 * the low halves stay the guest's values, faults included. base is r13 in user code; in kernel code the
 * supervisor window's, or by slot (a mixed site) for each pointer.
 */
static bool string_base(struct tr *t, unsigned site, unsigned ptr)
{
	struct emitter *e = &t->e;
	struct host_mem m;
	unsigned base = R13;

	if (!(t->rq->mode & MODE_USER)) {
		base = R9;
		if (site & (SITE_USER | SITE_MIXED)) {
			if (!translate_host.bmi2)
				return false;
			em_mov_ri32(e, R10, 22);
			em_shrx32(e, R9, ptr, R10);
			em_load64(e, R10, vcpu_field(&m, offsetof(struct vcpu, hot.slot_bases)));
			em_load64(e, R9, &(struct host_mem){.base = R10, .index = R9, .scale = 8});
		} else {
			em_load64(e, R9, vcpu_field(&m, offsetof(struct vcpu, hot.super_base)));
		}
	}
	em_lea64(e, ptr, &(struct host_mem){.base = (int8_t)ptr, .index = (int8_t)base, .scale = 1});
	return true;
}

static bool string(struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	unsigned op = in->opcode & 0xfe;
	bool src = op == 0xa4 || op == 0xa6 || op == 0xac;
	bool dst = op != 0xac;
	unsigned site = tr_site(t, i);
	bool ds_flat = in->segover < 0 ? !(t->rq->mode & MODE_NF_DS)
				       : in->segover != FS && in->segover != GS && in->segover != CS &&
						 !(t->rq->mode & (MODE_NF_DS | MODE_NF_ES | MODE_NF_SS));

	if (in->adsize == 2 || site & SITE_CALLOUT || (src && !ds_flat) || (dst && t->rq->mode & MODE_NF_ES))
		return false;
	if ((src && !string_base(t, site, RSI)) || (dst && !string_base(t, site, RDI)))
		return false;
	bool rep = in->prefix & (INSN_REP | INSN_REPNE);
	/* The side table says that rsi and rdi hold host addresses and, for rep, that a kick may stop it
	 * here. */
	t->b->side[i].flags |= rep ? SIDE_REP : 0;
	t->b->side[i].rep = (uint8_t)(em_off(&t->e) - t->b->host - t->b->side[i].host);
	if (in->prefix & INSN_66)
		em8(&t->e, 0x66);
	if (rep)
		em8(&t->e, in->prefix & INSN_REPNE ? 0xf2 : 0xf3);
	em8(&t->e, in->opcode);
	if (src)
		em_mov_rr32(&t->e, RSI, RSI);
	if (dst)
		em_mov_rr32(&t->e, RDI, RDI);
	return true;
}

/* ------------------------------------------------------------------ control transfer */

static unsigned condition(const struct insn *in)
{
	return in->opcode & 15;
}

/* jcc target   ->   jcc exit(target); at the end of the block jmp exit(next) */
static bool jcc(struct tr *t, unsigned i)
{
	tr_exit(t, em_jcc32(&t->e, condition(&t->insn[i])), EXIT_JMP, tr_next(t, i) + t->insn[i].imm);
	if (i + 1 < t->n)
		return true;
	tr_exit(t, em_jmp32(&t->e), EXIT_JMP, tr_next(t, i));
	t->ended = true;
	return true;
}

/* loop target   ->   67 loop +5; jmp exit(next); jmp exit(target)        (a repeat prefix decides loope or
 * loopne) */
static bool loop(struct tr *t, unsigned i)
{
	em8(&t->e, 0x67);
	if (t->insn[i].prefix & (INSN_REP | INSN_REPNE))
		em8(&t->e, t->insn[i].prefix & INSN_REP ? 0xf3 : 0xf2);
	em8(&t->e, t->insn[i].opcode);
	em8(&t->e, 5);
	tr_exit(t, em_jmp32(&t->e), EXIT_JMP, tr_next(t, i));
	tr_exit(t, em_jmp32(&t->e), EXIT_JMP, tr_next(t, i) + t->insn[i].imm);
	t->ended = true;
	return true;
}

static bool jmp(struct tr *t, unsigned i)
{
	tr_exit(t, em_jmp32(&t->e), EXIT_JMP, tr_next(t, i) + t->insn[i].imm);
	t->ended = true;
	return true;
}

/* Loads the target of an indirect transfer into r8d. */
static bool load_target(struct tr *t, unsigned i)
{
	struct host_mem m;

	if (t->insn[i].mod == 3) {
		em_mov_rr32(&t->e, R8, host_reg(t->insn[i].rm));
		return true;
	}
	if (!ident_operand(t, i, &m))
		return false;
	em_load32(&t->e, R8, &m);
	return true;
}

/* jmp [ea]   ->   mov r8d, [ea]; mov r9d, [r14+r8*4]; jmp r9 */
static bool jmp_rm(struct tr *t, unsigned i)
{

	if (!load_target(t, i))
		return false;
	tr_jump_indirect(&t->e, false);
	t->ended = true;
	return true;
}

/* call target   ->   mov dword gs:[r12-4], next; lea r12d, [r12-4]; call exit(target)
 * A call of the next instruction, to learn EIP, never returns: no host call. */
static bool call(struct tr *t, unsigned i)
{
	uint32_t target = tr_next(t, i) + t->insn[i].imm;
	struct host_mem m = stack_at(t, i, -4);

	em_store_i32(&t->e, &m, tr_next(t, i));
	em_lea_disp(&t->e, GUEST_ESP, GUEST_ESP, -4);
	if (target == tr_next(t, i))
		return true;
	if (target >> PAGE_SHIFT == t->b->eip >> PAGE_SHIFT || t->rq->chain_cross) {
		tr_exit(t, em_call32(&t->e), EXIT_CALL, target);
	} else {
		tr_jump_table(&t->e, target, true);
	}
	tr_behind_call(t, i);
	return true;
}

/* call [ea]   ->   mov r8d, [ea]; mov dword gs:[r12-4], next; lea r12d, [r12-4]; mov r9d,
 * [r14+r8*4]; call r9 */
static bool call_rm(struct tr *t, unsigned i)
{
	struct host_mem m = stack_at(t, i, -4);

	if (!load_target(t, i))
		return false;
	em_store_i32(&t->e, &m, tr_next(t, i));
	em_lea_disp(&t->e, GUEST_ESP, GUEST_ESP, -4);
	tr_jump_indirect(&t->e, true);
	tr_behind_call(t, i);
	return true;
}

/* ret n   ->   mov r8d, gs:[r12]; lea r12d, [r12+4+n]; mov r9d, [r14+r8*4]; mov [rsp],
 * r9; ret */
static bool ret(struct tr *t, unsigned i)
{
	struct host_mem m = stack_at(t, i, 0);

	em_load32(&t->e, R8, &m);
	move_esp(t, 4 + (t->insn[i].opcode == 0xc2 ? (int32_t)(t->insn[i].imm & 0xffff) : 0));
	tr_settle_esp(t);
	assert(t->e.p + CACHE_TABLE_RET <= t->e.limit);
	t->e.p += cache_table_ret(t->e.p);
	t->ended = true;
	return true;
}

/* ------------------------------------------------------------------ the table */

/* Whether a register operand may be esp. For groups reg says which operation, for bytes 4 is ah: taken for
 * esp. */
static bool may_name_esp(const struct insn *in)
{
	if (!in->has_modrm)
		return (in->opcode & 7) == ESP;
	if (in->mod == 3 && in->rm == ESP)
		return true;
	if (in->reg != ESP)
		return false;
	if (in->opmap)
		return true;
	switch (in->opcode) {
	case 0x80 ... 0x83:
	case 0xc0 ... 0xc1:
	case 0xc6 ... 0xc7:
	case 0xd0 ... 0xd3:
	case 0xd8 ... 0xdf:
	case 0xf6 ... 0xf7:
		return false;
	default:
		return true;
	}
}

/* So that a displacement of esp stays in a byte, and so does the side table's. */
#define ESP_OFF_MAX 64

bool rule_esp_may_wait(const struct tr *t, unsigned i)
{
	const struct insn *in = &t->insn[i];

	if (t->esp_off > ESP_OFF_MAX || t->esp_off < -ESP_OFF_MAX)
		return false;
	switch ((enum insn_class)t->class[i]) {
	case CL_PUSH_REG:
	case CL_POP_REG:
	case CL_INCDEC:
		return (in->opcode & 7) != ESP;
	case CL_PUSH_IMM:
	case CL_PUSH_SEG:
	case CL_LEAVE:
	case CL_RET:
	case CL_MOFFS:
	case CL_NOP:
		return true;
	case CL_PUSH_RM:
	case CL_MOV_FROM_SEG:
		return in->mod != 3 || in->rm != ESP;
	case CL_LEA:
		return in->reg != ESP;
	case CL_IDENT:
	case CL_IDENT_FPU:
		return !may_name_esp(in);
	default:
		return false;
	}
}

bool rule_emit(struct tr *t, unsigned i)
{
	enum insn_class cl = t->class[i];
	bool stack = stack_ok(t, i);

	switch (cl) {
	case CL_IDENT:
		if (divides(&t->insn[i]) && tr_site(t, i) & SITE_CALLOUT)
			return false;
		return ident_emit(t, i);
	case CL_IDENT_FPU:
		return ident_emit(t, i);
	case CL_LEA:
		return lea(t, i);
	case CL_NOP:
		return true;
	case CL_INCDEC:
		return incdec(t, i);
	case CL_MOFFS:
		return moffs(t, i);
	case CL_STRING:
		return string(t, i);
	case CL_PUSH_REG:
	case CL_PUSH_IMM:
		return stack && push(t, i);
	case CL_POP_REG:
		return stack && pop(t, i);
	case CL_PUSH_RM:
		return stack && push_rm(t, i);
	case CL_POP_RM:
		return stack && pop_rm(t, i);
	case CL_PUSH_SEG:
		return stack && push_seg(t, i);
	case CL_PUSHA:
		return stack && pusha(t, i);
	case CL_POPA:
		return stack && popa(t, i);
	case CL_PUSHF:
		return stack && pushf(t, i);
	case CL_POPF:
		return stack && popf(t, i);
	case CL_LEAVE:
		return stack && leave(t, i);
	case CL_MOV_FROM_SEG:
		return mov_from_seg(t, i);
	case CL_MOV_FROM_CR:
		return mov_from_cr(t, i);
	case CL_SEG_LOAD:
		return seg_load(t, i);
	case CL_INTERP_END:
	case CL_INT:
	case CL_IRET:
	case CL_SYSENTER:
	case CL_SYSEXIT:
		return transfer(t, i);
	case CL_CLI:
		return cli(t);
	case CL_STI:
		return sti(t, i);
	case CL_CLD:
	case CL_STD:
		return cld_std(t, i);
	case CL_RDTSC:
		return rdtsc(t);
	case CL_JCC:
		return jcc(t, i);
	case CL_LOOP:
		return loop(t, i);
	case CL_JMP:
		return jmp(t, i);
	case CL_JMP_RM:
		return jmp_rm(t, i);
	case CL_CALL:
		return stack && call(t, i);
	case CL_CALL_RM:
		return stack && call_rm(t, i);
	case CL_RET:
		return stack && ret(t, i);
	default:
		return false;
	}
}
