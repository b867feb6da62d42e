/* asm_offsets.c - compiled to assembly only; the build turns the marked lines into asm_offsets.h, so that
 * entry.S and the C code share one definition of struct vcpu. */
#include "translator/translator.h"

#define CONSTANT(name, value)	  __asm__ volatile("\n@@" #name " %0" : : "i"(value))
#define FIELD(name, type, member) CONSTANT(name, offsetof(struct type, member))
#define OFFSET(name, member)	  FIELD(name, vcpu, member)
#define SEG_FLAT		  (SEG_P | SEG_S | SEG_G | SEG_DB | SEG_RW | SEG_ACCESSED)

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
	OFFSET(V_RESUME_ESP, hot.resume_esp);
	OFFSET(V_EXIT_ARG, hot.exit_arg);
	OFFSET(V_ON_EXIT, hot.on_exit);
	OFFSET(V_CALLOUTS, hot.callouts);
	OFFSET(V_XMM, hot.xmm);
	OFFSET(V_SUPER_BASE, hot.super_base);
	OFFSET(V_CUR, hot.cur);
	OFFSET(V_RECENT_SUPER, hot.recent[0]);
	OFFSET(V_RECENT_USER, hot.recent[1]);
	OFFSET(V_GS_BASE, hot.gs_base);
	OFFSET(V_VIEW, hot.view);
	OFFSET(V_SEG_BASE, hot.seg_base);
	OFFSET(V_SEG_POISON, hot.seg_poison);
	OFFSET(V_SELECTOR, hot.selector);
	OFFSET(V_SEGS_KNOWN, hot.segs_known);
	OFFSET(V_SEG, seg);
	OFFSET(V_SEG_CS, seg[CS]);
	OFFSET(V_SEG_SS, seg[SS]);
	OFFSET(V_CPL, cpl);
	OFFSET(V_IFLAG, iflag);
	OFFSET(V_SYSFLAGS, sysflags);
	OFFSET(V_REQUEST, request);
	OFFSET(V_SHADOW, shadow);
	OFFSET(V_GDT_BASE, gdtr.base);
	OFFSET(V_GDT_LIMIT, gdtr.limit);
	OFFSET(V_SYSENTER_CS, sysenter_cs);
	OFFSET(V_SYSENTER_ESP, sysenter_esp);
	OFFSET(V_SYSENTER_EIP, sysenter_eip);
	OFFSET(V_MEM, mem);

	FIELD(SK_RAW, seg_known, raw);
	FIELD(SK_KEY, seg_known, key);
	FIELD(SK_SEG, seg_known, seg);
	FIELD(SK_POISON, seg_known, poison);
	FIELD(SP_WINDOW, space, window_id);
	FIELD(SP_MODE, space, mode);
	FIELD(SP_USED, space, used);
	FIELD(SP_TABLE, space, table);
	FIELD(MV_USER_ID, mem_view, user_id);
	FIELD(MV_SUPER_ID, mem_view, super_id);
	FIELD(MV_PENDING, mem_view, pending);
	FIELD(TLB_RTAG, tlb_entry, rtag);
	FIELD(TLB_ADD, tlb_entry, add);

	CONSTANT(TLB_INDEX_MASK, TLB_SIZE - 1);
	CONSTANT(SYSFLAGS_AC, FL_AC);
	CONSTANT(ATTR_CODE, SEG_FLAT | SEG_CODE);
	CONSTANT(ATTR_DATA, SEG_FLAT);
	CONSTANT(ATTR_USER, SEG_DPL);
	CONSTANT(SEG_NUMBER_SS, SS);
	CONSTANT(CALLOUT_SEG_LOAD, CO_SEG_LOAD);
	CONSTANT(CALLOUT_SYSENTER, CO_SYSENTER);
	CONSTANT(CALLOUT_SYSEXIT, CO_SYSEXIT);
	CONSTANT(ARG_KEY, CO_ARG_KEY);
	CONSTANT(ARG_FLAT, CO_ARG_FLAT);
	CONSTANT(ARG_SEG_SHIFT, CO_ARG_SEG_SHIFT);
	CONSTANT(ARG_POP_SHIFT, CO_ARG_POP_SHIFT);

	_Static_assert(sizeof(struct seg) == 12 && sizeof(struct seg_known) == 32 &&
			       sizeof(struct tlb_entry) == 24 && CPU_SEGS_KNOWN == 32,
		       "as entry_fast.S computes addresses");
}
