/* Stores of every kind into the instruction that runs next, into the instruction that makes them, into loops.
 */
#include "smc.h"

/*
 * The victim is mov eax, 0x11111111, whose immediate is replaced whole or in part by the instruction before
 * it. Each snippet restores the bytes on its next run.
 */
#define PATCHED "mov $0x11111111, %eax"
#define VICTIM(name, setup, store)                                                                           \
	CODE_THEN(name, "movl $0x11111111, 1f + 1; jmp 2f; .balign 16; 2:" setup, store, "1: " PATCHED)
/* The same by something that is stored to the stack: its top is the immediate's end. */
#define VICTIM_STACK(name, setup, push)                                                                      \
	CODE_THEN(name, "movl %esp, %edx; movl $0x11111111, 1f + 1; " setup "; movl $1f + 5, %esp", push,    \
		  "1: " PATCHED "; movl %edx, %esp")

VICTIM(by_mov, "movl $0x22222222, %ecx", "movl %ecx, 1f + 1");
VICTIM(by_mov_byte, "", "movb $0x33, 1f + 2");
VICTIM(by_mov_word, "", "movw $0x4444, 1f + 3");
VICTIM(by_moffs, "movl $0x10203040, %eax", "movl %eax, 1f + 1");
VICTIM(by_add, "", "addl $0x01010101, 1f + 1");
VICTIM(by_xchg, "movl $0x55555555, %ecx", "xchgl %ecx, 1f + 1");
VICTIM(by_lock_xadd, "movl $0x01000000, %ecx", "lock; xaddl %ecx, 1f + 1");
VICTIM(by_cmpxchg, "movl $0x11111111, %eax; movl $0x66666666, %ecx", "lock; cmpxchgl %ecx, 1f + 1");
VICTIM(by_cmpxchg_failing, "movl $0, %eax; movl $0x66666666, %ecx", "lock; cmpxchgl %ecx, 1f + 1");
VICTIM(by_cmpxchg8b, "movl 1f + 1, %eax; movl 1f + 5, %edx; movl $0x77777777, %ebx; movl %edx, %ecx",
       "lock; cmpxchg8b 1f + 1");
VICTIM(by_inc, "", "incl 1f + 1");
VICTIM(by_bts, "", "btsl $1, 1f + 1");
VICTIM(by_shl, "", "shll $1, 1f + 1");
VICTIM(by_setcc, "stc", "setc 1f + 1");
VICTIM(by_movsd, "movl $patch_source, %esi; movl $1f + 1, %edi; cld", "movsl");
VICTIM(by_rep_movs, "movl $patch_source, %esi; movl $1f + 1, %edi; movl $4, %ecx; cld", "rep movsb");
VICTIM(by_stosb, "movl $0x77, %eax; movl $1f + 1, %edi; cld", "stosb");
VICTIM(by_rep_stos, "movl $0x99, %eax; movl $1f + 1, %edi; movl $3, %ecx; cld", "rep stosb");
VICTIM(by_rep_stos_down, "movl $0xaa, %eax; movl $1f + 4, %edi; movl $4, %ecx; std", "rep stosb; cld");
VICTIM_STACK(by_push, "movl $0x12344321, %ecx", "pushl %ecx");
VICTIM_STACK(by_push_imm, "", "pushl $0x0badcafe");
VICTIM_STACK(by_push_mem, "", "pushl patch_source");
/* less IF, which is set under Linux */
CODE_THEN(by_pushf, "movl %esp, %edx; movl $0x11111111, 1f + 1; xorl %ecx, %ecx; movl $1f + 5, %esp",
	  "pushfl", "1: " PATCHED "; movl %edx, %esp; andl $~0x200, %eax");
VICTIM_STACK(by_push16, "movl $0x4321, %ecx", "pushw %cx");
VICTIM_STACK(by_enter, "movl $0x00c0ffee, %ebp", "enter $0, $0");
VICTIM(by_pop, "pushl $0x0ddba11", "popl 1f + 1");
VICTIM(by_fst, "fninit; flds float_source", "fstps 1f + 1");
VICTIM(by_fist, "fninit; fildl patch_source", "fistpl 1f + 1");
VICTIM(by_movups, "movups 1f + 1, %xmm0; movss patch_source, %xmm1; movss %xmm1, %xmm0",
       "movups %xmm0, 1f + 1");
VICTIM(by_movlps, "movups 1f + 1, %xmm0; movss patch_source, %xmm1; movss %xmm1, %xmm0",
       "movlps %xmm0, 1f + 1");
VICTIM(by_stmxcsr, "pushl $0x1f80; ldmxcsr (%esp); popl %ecx", "stmxcsr 1f + 1");
VICTIM(by_movd, "movd patch_source, %mm0", "movd %mm0, 1f + 1; emms");
uint32_t patch_source = 0x88877665;
uint32_t float_source = 0x40490fdb;

/* Frames and images that an instruction writes into the code ahead of it. The pushed return address is the
 * immediate of what runs next: */
CODE_THEN(by_call, "movl %esp, %ebp; movl $1f + 5, %esp; movl $0x11111111, 1f + 1", "call 1f",
	  "1: movl $0x11111111, %eax; movl %ebp, %esp; subl $by_call_after, %eax");
CODE_THEN(by_call_indirect, "movl %esp, %ebp; movl $1f + 5, %esp; movl $0x11111111, 1f + 1; movl $1f, %ecx",
	  "call *%ecx", "1: movl $0x11111111, %eax; movl %ebp, %esp; subl $by_call_indirect_after, %eax");
/* ebx, edx and ecx become twelve times inc eax, eax a jump over its own place and two nops */
CODE_THEN(by_pusha,
	  "movl %esp, %ebp; movl $1f + 32, %esp; movl $0x40404040, %ebx; movl %ebx, %edx; movl %ebx, %ecx;"
	  "movl $0x909002eb, %eax; movl $1f + 16, %edi; movl $0x90909090, 1f + 16; movl $0x90909090, 1f + 24",
	  "pushal", "jmp *%edi; .balign 16; 1: .fill 32, 1, 0x90; movl %ebp, %esp");
/* The 16-bit image's control and status word are the immediate (the stack's top is 1), its tag word the ret
 * and something that is not reached: registers 1 and 2 are in use, the others empty. */
CODE_THEN(by_fnstenv,
	  "fninit; .rept 7; fld1; .endr; .irp n, 2, 3, 4, 5, 6; ffree %st(\\n); .endr;"
	  "movl $0x11111111, 1f + 1; call 2f; fninit; jmp 3f; .balign 32; 2:",
	  ".byte 0x66; fnstenv 1f + 1", "1: movl $0x11111111, %eax; ret; .fill 16, 1, 0x90; 3:");
/* ST(0) as code: seven times inc eax, a jump to the end of the image */
uint8_t code_of_10[10] = {0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0xeb, 108 - 28 - 9, 0x90};
CODE_THEN(by_fnsave, "fninit; fldt code_of_10; movl $0x90909090, 1f + 28; xorl %eax, %eax", "fnsave 1f",
	  "jmp 1f + 28; .balign 16; 1: .fill 108, 1, 0x90; nop");
/* XMM0 as code, in the same way */
uint8_t code_of_16[16] = {0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40,
			  0x40, 0x40, 0x40, 0xe9, 0x50, 0x01, 0x00, 0x00};
CODE_THEN(by_fxsave, "movups code_of_16, %xmm0; movl $0x90909090, 1f + 160; xorl %eax, %eax", "fxsave 1f",
	  "jmp 1f + 160; .balign 16; 1: .fill 512, 1, 0x90; nop");

/* The instruction's own bytes. What it overwrites counts from its next execution on. */
CODE_THEN(self_immediate, "movl $3, %ecx; xorl %eax, %eax; movb $0x10, 1f + 6", "1: movb $0x20, 1b + 6",
	  "addb 1b + 6, %al; movb $0x30, 1b + 6; decl %ecx; jnz 1b");
CODE_THEN(self_doubling, "movl $7, %ecx; movb $1, 1f + 6", "1: addb $1, 1b + 6",
	  "decl %ecx; jnz 1b; movzbl 1b + 6, %eax");
CODE_THEN(self_opcode, "movl $5, %ecx; xorl %eax, %eax; movb $0x80, 1f", "1: xorb $2, 1b",
	  "addb 1b, %al; movb $0x80, 1b; decl %ecx; jnz 1b");
/* rep movs that copies itself and other code behind: as the two copies differ only there, it does not matter
 * whether the CPU looks at it again in between. */
CODE_THEN(self_rep_movs,
	  "movb $1, self_rep_movs_after + 2; jmp 2f; .balign 8; self_rep_movs_copy: rep movsb; addl $9, "
	  "%eax; .balign 8; 2:"
	  "movl $self_rep_movs_copy, %esi; movl $self_rep_movs_at, %edi; movl $5, %ecx; cld; movl $5, %eax",
	  "rep movsb", "addl $1, %eax");
/* rep stosd of its own bytes, over itself and a few instructions more, which become rep stosd with nothing
 * left */
CODE_THEN(self_rep_stos,
	  "movl $0x90909090, %eax; movl $self_rep_stos_after, %edi; movl $8, %ecx; cld; 1: movl %eax, "
	  "(%edi); addl "
	  "$4, %edi; decl %ecx; jnz 1b; movl $0xabf3abf3, %eax; movl $self_rep_stos_at, %edi; movl $8, %ecx; "
	  "jmp self_rep_stos_at; .balign 16",
	  "rep stosl",
	  ".fill 32, 1, 0x90; subl $self_rep_stos_at, %edi; movl %edi, %eax; shll $8, %eax; addl %ecx, %eax");
CODE_THEN(same_bytes, "movl $100, %ecx; xorl %eax, %eax", "1: incl %eax; movb $0x40, 1b; decl %ecx; jnz 1b",
	  "");

/* Loops whose own body is changed: an immediate, the branch's direction, the operation, a jump's distance. */
CODE_THEN(loop_immediate, "xorl %eax, %eax; movl $10, %ecx; movl $1, 1f + 1", "1: addl $0x11111111, %eax",
	  "addl $1, 1b + 1; decl %ecx; jnz 1b");
CODE_THEN(loop_branch, "xorl %eax, %eax; movl $10, %ecx; movb $0x74, 1f",
	  "2: xorl %edx, %edx; 1: jz 3f; addl $0x100, %eax", "3: incl %eax; xorb $1, 1b; decl %ecx; jnz 2b");
CODE_THEN(loop_opcode, "movl $100, %eax; movl $6, %ecx; movb $0x05, 1f", "1: .byte 0x05; .long 7",
	  "xorb $0x28, 1b; decl %ecx; jnz 1b");
CODE_THEN(loop_target, "xorl %eax, %eax; movl $8, %ecx; movb $0, 1f + 1",
	  "1: jmp 2f; 2: incl %eax; incl %eax; incl %eax; incl %eax", "xorb $2, 1b + 1; decl %ecx; jnz 1b");

#define R 100 /* rounds */
static const struct smc_case cases[] = {
	{"next-by-mov", NULL, R, 2, 0, &by_mov, 0x22222222},
	{"next-by-mov-byte", NULL, R, 2, 0, &by_mov_byte, 0x11113311},
	{"next-by-mov-word", NULL, R, 2, 0, &by_mov_word, 0x44441111},
	{"next-by-mov-moffs", NULL, R, 2, 0, &by_moffs, 0x10203040},
	{"next-by-add", NULL, R, 2, 0, &by_add, 0x12121212},
	{"next-by-xchg", NULL, R, 2, 0, &by_xchg, 0x55555555},
	{"next-by-lock-xadd", NULL, R, 2, 0, &by_lock_xadd, 0x12111111},
	{"next-by-lock-cmpxchg", NULL, R, 2, 0, &by_cmpxchg, 0x66666666},
	{"next-by-failing-cmpxchg", NULL, R, 2, 0, &by_cmpxchg_failing, 0x11111111},
	{"next-by-lock-cmpxchg8b", NULL, R, 2, 0, &by_cmpxchg8b, 0x77777777},
	{"next-by-inc", NULL, R, 2, 0, &by_inc, 0x11111112},
	{"next-by-bts", NULL, R, 2, 0, &by_bts, 0x11111113},
	{"next-by-shl", NULL, R, 2, 0, &by_shl, 0x22222222},
	{"next-by-setc", NULL, R, 2, 0, &by_setcc, 0x11111101},
	{"next-by-movsd", NULL, R, 2, 0, &by_movsd, 0x88877665},
	{"next-by-rep-movsb", NULL, R, 5, 0, &by_rep_movs, 0x88877665},
	{"next-by-stosb", NULL, R, 2, 0, &by_stosb, 0x11111177},
	{"next-by-rep-stosb", NULL, R, 4, 0, &by_rep_stos, 0x11999999},
	{"next-by-rep-stosb-down", NULL, R, 5, 0, &by_rep_stos_down, 0xaaaaaaaa},
	{"next-by-push", NULL, R, 2, 0, &by_push, 0x12344321},
	{"next-by-push-imm", NULL, R, 2, 0, &by_push_imm, 0x0badcafe},
	{"next-by-push-mem", NULL, R, 2, 0, &by_push_mem, 0x88877665},
	{"next-by-pushf", NULL, R, 2, 0, &by_pushf, 0x46},
	{"next-by-push-word", NULL, R, 2, 0, &by_push16, 0x43211111},
	{"next-by-enter", NULL, R, 2, 0, &by_enter, 0x00c0ffee},
	{"next-by-pop", NULL, R, 2, 0, &by_pop, 0x00ddba11},
	{"next-by-call", NULL, R, 2, 0, &by_call, 0},
	{"next-by-call-indirect", NULL, R, 2, 0, &by_call_indirect, 0},
	{"next-by-pusha", NULL, R, 3, 0, &by_pusha, 0x909002eb + 12},
	{"next-by-fstp", NULL, R, 2, 0, &by_fst, 0x40490fdb},
	{"next-by-fistp", NULL, R, 2, 0, &by_fist, 0x88877665},
	{"next-by-fnstenv", NULL, R, 2, 0, &by_fnstenv, 0x0800037f},
	{"next-by-fnsave", NULL, R, 2, 0, &by_fnsave, 7},
	{"next-by-fxsave", NULL, R, 2, CPUID_SSE, &by_fxsave, 11},
	{"next-by-movd-mmx", NULL, R, 2, CPUID_FXSR, &by_movd, 0x88877665},
	{"next-by-movups", NULL, R, 2, CPUID_SSE, &by_movups, 0x88877665},
	{"next-by-movlps", NULL, R, 2, CPUID_SSE, &by_movlps, 0x88877665},
	{"next-by-stmxcsr", NULL, R, 2, CPUID_SSE, &by_stmxcsr, 0x1f80},
	{"same-instruction-immediate", NULL, R, 7, 0, &self_immediate, 0x70},
	{"same-instruction-doubling", NULL, R, 8, 0, &self_doubling, 128},
	{"same-instruction-opcode", NULL, R, 11, 0, &self_opcode, 0x8a},
	{"same-instruction-rep-movs", NULL, R, 7, 0, &self_rep_movs, 14},
	{"same-instruction-rep-stos", NULL, R, 16, 0, &self_rep_stos, 32 << 8},
	{"same-bytes", NULL, R, 100, 0, &same_bytes, 100},
	{"loop-immediate", NULL, R, 11, 0, &loop_immediate, 55},
	{"loop-branch", NULL, R, 11, 0, &loop_branch, 0x50a},
	{"loop-opcode", NULL, R, 7, 0, &loop_opcode, 100},
	{"loop-target", NULL, R, 9, 0, &loop_target, 24},
};
const struct smc_group smc_stores = {cases, sizeof(cases) / sizeof(cases[0])};
