/* classify.c - which translation rule an instruction falls under, from its opcode. SDM vol. 2D appendix A. */
#include "translator/tr.h"

static const char *const class_names[] = {
	[CL_INTERP] = "interp",
	[CL_INTERP_END] = "interp end",
	[CL_IDENT] = "ident",
	[CL_IDENT_FPU] = "ident fpu",
	[CL_LEA] = "lea",
	[CL_NOP] = "nop",
	[CL_INCDEC] = "incdec",
	[CL_MOFFS] = "moffs",
	[CL_STRING] = "string",
	[CL_PUSH_REG] = "push reg",
	[CL_PUSH_IMM] = "push imm",
	[CL_PUSH_RM] = "push rm",
	[CL_PUSH_SEG] = "push seg",
	[CL_POP_REG] = "pop reg",
	[CL_POP_RM] = "pop rm",
	[CL_PUSHA] = "pusha",
	[CL_POPA] = "popa",
	[CL_PUSHF] = "pushf",
	[CL_POPF] = "popf",
	[CL_LEAVE] = "leave",
	[CL_MOV_FROM_SEG] = "mov from seg",
	[CL_JCC] = "jcc",
	[CL_LOOP] = "loop",
	[CL_JMP] = "jmp",
	[CL_JMP_RM] = "jmp rm",
	[CL_CALL] = "call",
	[CL_CALL_RM] = "call rm",
	[CL_RET] = "ret",
	[CL_CLI] = "cli",
	[CL_STI] = "sti",
	[CL_CLD] = "cld",
	[CL_STD] = "std",
	[CL_RDTSC] = "rdtsc",
	[CL_MOV_FROM_CR] = "mov from cr",
	[CL_SEG_LOAD] = "seg load",
	[CL_INT] = "int",
	[CL_IRET] = "iret",
	[CL_SYSENTER] = "sysenter",
	[CL_SYSEXIT] = "sysexit",
};

const char *insn_class_name(unsigned cl)
{
	return cl < sizeof class_names / sizeof class_names[0] ? class_names[cl] : "?";
}

static enum insn_class fpu(const struct insn *i, uint32_t mode, bool sse)
{
	(void)i;
	return mode & (MODE_NOFPU | (sse ? MODE_NOSSE : 0)) ? CL_INTERP : CL_IDENT_FPU;
}

static bool x87_environment(const struct insn *i)
{
	if (i->mod == 3)
		return i->opcode == 0xdb && (i->raw[i->modrm_off] == 0xe4 || i->raw[i->modrm_off] == 0xe0 ||
					     i->raw[i->modrm_off] == 0xe1);
	/* fldenv, fnstenv; frstor, fnsave */
	return (i->opcode == 0xd9 && (i->reg == 4 || i->reg == 6)) ||
	       (i->opcode == 0xdd && (i->reg == 4 || i->reg == 6));
}

static enum insn_class one_byte(const struct insn *i, uint32_t mode)
{
	unsigned op = i->opcode;
	bool kernel = !(mode & MODE_USER);
	bool op16 = i->opsize == 2;

	if (op < 0x40) {
		if ((op & 7) < 6)
			return CL_IDENT;
		switch (op) {
		case 0x06:
		case 0x0e:
		case 0x16:
		case 0x1e:
			return op16 ? CL_INTERP : CL_PUSH_SEG;
		case 0x07:
		case 0x17:
		case 0x1f:
			return op16 ? CL_INTERP : CL_SEG_LOAD;
		default:
			return CL_INTERP;
		}
	}
	switch (op) {
	case 0x40 ... 0x4f:
		return CL_INCDEC;
	case 0x50 ... 0x57:
		return op16 ? CL_INTERP : CL_PUSH_REG;
	case 0x58 ... 0x5f:
		return op16 ? CL_INTERP : CL_POP_REG;
	case 0x60:
		return op16 ? CL_INTERP : CL_PUSHA;
	case 0x61:
		return op16 ? CL_INTERP : CL_POPA;
	case 0x68:
	case 0x6a:
		return op16 ? CL_INTERP : CL_PUSH_IMM;
	case 0x69:
	case 0x6b:
		return CL_IDENT;
	case 0x70 ... 0x7f:
		return op16 ? CL_INTERP_END : CL_JCC;
	case 0x80 ... 0x8b:
		return CL_IDENT;
	case 0x8c:
		return CL_MOV_FROM_SEG;
	case 0x8d:
		return i->adsize == 2 || i->mod == 3 ? CL_INTERP : CL_LEA;
	case 0x8e:
		return CL_SEG_LOAD;
	case 0x8f:
		return op16 ? CL_INTERP : CL_POP_RM;
	case 0x90 ... 0x99:
		return CL_IDENT;
	case 0x9b:
		return fpu(i, mode, false);
	case 0x9c:
		return op16 ? CL_INTERP : CL_PUSHF;
	case 0x9d:
		return op16 ? CL_INTERP : CL_POPF;
	case 0x9e:
	case 0x9f:
		return CL_IDENT;
	case 0xa0 ... 0xa3:
		return CL_MOFFS;
	case 0xa4 ... 0xa7:
	case 0xaa ... 0xaf:
		return CL_STRING;
	case 0xa8:
	case 0xa9:
	case 0xb0 ... 0xbf:
	case 0xc0:
	case 0xc1:
	case 0xc6:
	case 0xc7:
	case 0xd0 ... 0xd3:
		return CL_IDENT;
	case 0xc2:
	case 0xc3:
		return op16 ? CL_INTERP_END : CL_RET;
	case 0xc9:
		return op16 ? CL_INTERP : CL_LEAVE;
	case 0x9a:
	case 0xca ... 0xce:
	case 0xea:
	case 0xf1:
	case 0xf4:
		return op == 0xcd ? CL_INT : CL_INTERP_END;
	case 0xcf:
		return op16 ? CL_INTERP_END : CL_IRET;
	case 0xd7:
		return CL_IDENT;
	case 0xd8 ... 0xdf:
		return x87_environment(i) ? CL_INTERP : fpu(i, mode, false);
	case 0xe0 ... 0xe3:
		return op16 || i->adsize == 2 ? CL_INTERP_END : CL_LOOP;
	case 0xe8:
		return op16 ? CL_INTERP_END : CL_CALL;
	case 0xe9:
	case 0xeb:
		return op16 ? CL_INTERP_END : CL_JMP;
	case 0xf5 ... 0xf9:
		return CL_IDENT;
	case 0xfa:
		return kernel ? CL_CLI : CL_INTERP;
	case 0xfb:
		return kernel ? CL_STI : CL_INTERP_END;
	case 0xfc:
		return CL_CLD;
	case 0xfd:
		return CL_STD;
	case 0xfe:
		return CL_IDENT;
	case 0xff:
		switch (i->reg) {
		case 0:
		case 1:
			return CL_IDENT;
		case 2:
			return op16 ? CL_INTERP_END : CL_CALL_RM;
		case 4:
			return op16 ? CL_INTERP_END : CL_JMP_RM;
		case 6:
			return op16 ? CL_INTERP : CL_PUSH_RM;
		default:
			return CL_INTERP_END;
		}
	default:
		return CL_INTERP;
	}
}

static enum insn_class two_byte(const struct insn *i, uint32_t mode)
{
	unsigned op = i->opcode;
	bool kernel = !(mode & MODE_USER);

	switch (op) {
	case 0x0b:
	case 0xff:
	case 0xb9:
		return CL_INTERP_END;
	case 0x10 ... 0x17:
	case 0x28 ... 0x2f:
	case 0x50 ... 0x5f:
	case 0xc2:
	case 0xc6:
		return fpu(i, mode, true);
	case 0x18 ... 0x1f:
	case 0x0d:
		return CL_NOP;
	case 0x20:
		return kernel && (i->reg == 0 || (i->reg >= 2 && i->reg <= 4)) ? CL_MOV_FROM_CR : CL_INTERP;
	case 0x22:
	case 0x23:
	case 0x01:
	case 0x00:
	case 0x30:
		return CL_INTERP;
	case 0x31:
		return !kernel && mode & MODE_TSD ? CL_INTERP_END : CL_RDTSC;
	case 0x34:
		return CL_SYSENTER;
	case 0x35:
		return CL_SYSEXIT;
	case 0x40 ... 0x4f:
		return CL_IDENT;
	case 0x60 ... 0x7f:
	case 0xc4:
	case 0xc5:
	case 0xd0 ... 0xf6:
	case 0xf8 ... 0xfe:
		/* pure MMX needs no OSFXSR: keep it simple, MODE_NOSSE sends both to the interpreter */
		return fpu(i, mode, true);
	case 0x80 ... 0x8f:
		return i->opsize == 2 ? CL_INTERP_END : CL_JCC;
	case 0x90 ... 0x9f:
		return CL_IDENT;
	case 0xa0:
	case 0xa8:
		return i->opsize == 2 ? CL_INTERP : CL_PUSH_SEG;
	case 0xa1:
	case 0xa9:
		return i->opsize == 2 ? CL_INTERP : CL_SEG_LOAD;
	case 0xa3:
	case 0xa4:
	case 0xa5:
	case 0xab:
	case 0xac:
	case 0xad:
	case 0xaf:
	case 0xb0:
	case 0xb1:
	case 0xb3:
	case 0xb6 ... 0xb8:
	case 0xba ... 0xc1:
	case 0xc8 ... 0xcf:
		return CL_IDENT;
	case 0xc3: /* movnti */
		return CL_IDENT;
	case 0xc7:
		return CL_IDENT;
	case 0xae:
		if (i->mod == 3 || i->reg == 7) /* fences, clflush */
			return CL_IDENT;
		if (i->reg == 2 || i->reg == 3) /* ldmxcsr, stmxcsr */
			return fpu(i, mode, true);
		return CL_INTERP;
	default:
		return CL_INTERP;
	}
}

enum insn_class classify(const struct insn *i, uint32_t mode)
{
	if (i->adsize == 2 && i->has_mem) {
		if (i->opmap == 1 && i->opcode >= 0x18 && i->opcode <= 0x1f)
			return CL_NOP;
		/* call, jmp, near and far */
		return i->opmap == 0 && i->opcode == 0xff && i->reg >= 2 && i->reg <= 5 ? CL_INTERP_END
											: CL_INTERP;
	}
	switch (i->opmap) {
	case 0:
		return one_byte(i, mode);
	case 1:
		return two_byte(i, mode);
	case 2:
		if (i->opcode == 0xf0 || i->opcode == 0xf1) /* movbe, crc32 */
			return CL_IDENT;
		return fpu(i, mode, true);
	default:
		return fpu(i, mode, true);
	}
}

unsigned classify_insn(const struct insn *i, uint32_t mode)
{
	return classify(i, mode);
}

bool class_ends_block(enum insn_class cl)
{
	switch (cl) {
	case CL_INTERP_END:
	case CL_JCC:
	case CL_LOOP:
	case CL_JMP:
	case CL_JMP_RM:
	case CL_CALL:
	case CL_CALL_RM:
	case CL_RET:
	case CL_INT:
	case CL_IRET:
	case CL_SYSENTER:
	case CL_SYSEXIT:
		return true;
	default:
		return false;
	}
}

bool insn_repeatable(const struct insn *i)
{
	if (i->opmap != 1)
		return true;
	return i->opcode != 0x31 && !(i->opcode == 0xc7 && i->mod == 3); /* rdtsc; rdrand, rdseed */
}

/* x87, MMX and SSE, fxsave and its kin. */
static bool uses_fpu(const struct insn *i, enum insn_class cl)
{
	if (cl == CL_IDENT_FPU)
		return true;
	if (cl != CL_INTERP && cl != CL_INTERP_END)
		return false;
	switch (i->opmap) {
	case 0:
		return i->opcode == 0x9b || (i->opcode >= 0xd8 && i->opcode <= 0xdf);
	case 1:
		switch (i->opcode) {
		case 0x10 ... 0x17:
		case 0x28 ... 0x2f:
		case 0x50 ... 0x7f:
		case 0xae:
		case 0xc2:
		case 0xc4 ... 0xc6:
		case 0xd0 ... 0xfe:
			return true;
		default:
			return false;
		}
	default:
		return true;
	}
}

/* May reach a device, or code of libc. */
static bool uses_devices(const struct insn *i, enum insn_class cl)
{
	if (cl != CL_INTERP && cl != CL_INTERP_END)
		return false;
	if (i->opmap == 0)
		switch (i->opcode) {
		case 0x6c ... 0x6f: /* ins, outs */
		case 0xe4 ... 0xe7: /* in, out */
		case 0xec ... 0xef:
		case 0xf4:
			return true;
		default:
			return false;
		}
	switch (i->opcode) {
	case 0x00 ... 0x02: /* descriptor tables, invlpg, clts and the like */
	case 0x06:
	case 0x20 ... 0x23: /* control and debug registers */
	case 0xa1:
	case 0xa9:
	case 0xa2: /* cpuid */
	case 0xb2:
	case 0xb4:
	case 0xb5:
		return false;
	default:
		return true;
	}
}

/* Of the rest those that change neither mode nor windows nor segments, but for what a handler that they enter
 * does: descriptor-table registers, queries, INVLPG, CPUID. */
static bool keeps_mode(const struct insn *i)
{
	if (i->opmap != 1)
		return false;
	switch (i->opcode) {
	case 0x01: /* not lmsw */
		return i->mod != 3 && i->reg != 6;
	case 0x00:
	case 0x02:
	case 0x03:
	case 0xa2:
		return true;
	default:
		return false;
	}
}

/* fxsave, fxrstor */
static bool is_fxsr(const struct insn *i)
{
	return i->opmap == 1 && i->opcode == 0xae && i->mod != 3 && i->reg < 2;
}

enum callout insn_callout(const struct insn *i, enum insn_class cl)
{
	if (cl == CL_INTERP && is_fxsr(i))
		return i->reg ? CO_FXRSTOR : CO_FXSAVE;
	if (uses_fpu(i, cl))
		return CO_INTERP;
	if (uses_devices(i, cl))
		return CO_DEVICE;
	if (cl == CL_INTERP && i->opmap == 1 && i->opcode == 0x22)
		return CO_MOV_TO_CR;
	if (cl == CL_INTERP && keeps_mode(i))
		return CO_ACCESS;
	switch (cl) {
	case CL_IDENT:
	case CL_MOFFS:
	case CL_STRING:
	case CL_PUSH_REG:
	case CL_PUSH_IMM:
	case CL_PUSH_RM:
	case CL_PUSH_SEG:
	case CL_POP_REG:
	case CL_POP_RM:
	case CL_PUSHA:
	case CL_POPA:
	case CL_PUSHF:
	case CL_LEAVE:
	case CL_MOV_FROM_SEG:
		return CO_ACCESS;
	default:
		return CO_LIGHT;
	}
}

bool callout_uses_fpu(enum callout co)
{
	return co == CO_INTERP || co == CO_FXSAVE || co == CO_FXRSTOR;
}

bool insn_may_fault(const struct insn *i, enum insn_class cl)
{
	switch (cl) {
	case CL_LEA:
	case CL_NOP:
	case CL_INCDEC:
	case CL_CLD:
	case CL_STD:
	case CL_JMP:
	case CL_JCC:
		return false;
	case CL_IDENT:
		if (i->has_mem)
			return true;
		/* div, idiv */
		if (i->opmap == 0 && (i->opcode == 0xf6 || i->opcode == 0xf7))
			return i->reg >= 6;
		return i->opmap == 0 && i->opcode == 0xd7;
	default:
		return true;
	}
}
