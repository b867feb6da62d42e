/* asm_offsets.c - compiled to assembly only; the build turns the marked lines into asm_offsets.h, so that
 * entry.S and the C code share one definition of struct vcpu. */
#include "cpu/cpu.h"

#define OFFSET(name, member) __asm__ volatile("\n@@" #name " %0" : : "i"(offsetof(struct vcpu, member)))

void asm_offsets(void);
void asm_offsets(void)
{
	OFFSET(V_EAX, gpr[EAX]);
	OFFSET(V_ECX, gpr[ECX]);
	OFFSET(V_EDX, gpr[EDX]);
	OFFSET(V_EBX, gpr[EBX]);
	OFFSET(V_ESP, gpr[ESP]);
	OFFSET(V_EBP, gpr[EBP]);
	OFFSET(V_ESI, gpr[ESI]);
	OFFSET(V_EDI, gpr[EDI]);
	OFFSET(V_EIP, eip);
	OFFSET(V_FLAGS, flags);
	OFFSET(V_DF, df);
	OFFSET(V_FPU, fpu);
	OFFSET(V_USER_BASE, hot.user_base);
	OFFSET(V_TABLE, hot.table);
	OFFSET(V_RET_SP, hot.ret_sp);
	OFFSET(V_C_SP, hot.c_sp);
	OFFSET(V_RESUME, hot.resume);
	OFFSET(V_CALLOUT_RET, hot.callout_ret);
	OFFSET(V_KICK, hot.kick);
	OFFSET(V_EXIT_ARG, hot.exit_arg);
	OFFSET(V_ON_EXIT, hot.on_exit);
	OFFSET(V_CALLOUTS, hot.callouts);
	OFFSET(V_XMM, hot.xmm);
	OFFSET(V_ARENA, hot.arena);
}
