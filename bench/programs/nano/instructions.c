/* Single instructions: calls, flags, control registers, segments, ports. */
#include "nano.h"

/*
 * An operation of a few instructions, unrolled so that the loop costs next to nothing. eax, ecx and edx are
 * theirs; ebx and esi hold what setup puts there.
 */
#define UNROLLED(name, unroll, setup, instructions)                                                          \
	static void name(uint32_t n)                                                                         \
	{                                                                                                    \
		uint32_t ebx, esi;                                                                           \
		__asm__ volatile(setup "\n\t.balign 16\n1:\n\t.rept " #unroll "\n\t" instructions            \
				       "\n\t.endr\n\tdecl %0\n\tjnz 1b"                                      \
				 : "+D"(n), "=&b"(ebx), "=&S"(esi)                                           \
				 :                                                                           \
				 : "eax", "ecx", "edx", "cc", "memory");                                     \
	}
#define ROW(name, unroll)                                                                                    \
	{                                                                                                    \
#name, name, unroll, false, NULL, NULL                                                       \
	}

/* Places that the assembly below names. */
extern uint32_t nano_scratch[16];
extern const void *nano_targets[8];
uint32_t nano_scratch[16];
__asm__(".pushsection .text\n"
	"nano_return: ret\n"
	".balign 16\nnano_far_return: lret\n"
	".balign 16\nnano_return_0: ret\n.balign 16\nnano_return_1: ret\n.balign 16\nnano_return_2: ret\n"
	".balign 16\nnano_return_3: ret\n.balign 16\nnano_return_4: ret\n.balign 16\nnano_return_5: ret\n"
	".balign 16\nnano_return_6: ret\n.balign 16\nnano_return_7: ret\n"
	".balign 16\nnano_deep: decl %ecx\njz 1f\ncall nano_deep\n1: ret\n"
	".popsection\n"
	".pushsection .data\n"
	".balign 8\nnano_far: .long nano_far_return, 8\n"
	".globl nano_targets\n"
	"nano_targets: .long nano_return_0, nano_return_5, nano_return_2, nano_return_7\n"
	".long nano_return_4, nano_return_1, nano_return_6, nano_return_3\n"
	".popsection");

UNROLLED(nop, 32, "", "nop")
UNROLLED(call_ret, 32, "", "call nano_return")
UNROLLED(call_deep, 1, "", "movl $32, %%ecx; call nano_deep")
UNROLLED(call_indirect, 32, "movl $nano_return, %%ebx", "call *%%ebx")
UNROLLED(call_indirect_8, 4, "",
	 "call *nano_targets; call *nano_targets+4; call *nano_targets+8; call *nano_targets+12;"
	 "call *nano_targets+16; call *nano_targets+20; call *nano_targets+24; call *nano_targets+28")
/* One site, eight targets in turn. */
UNROLLED(
	call_indirect_mixed, 1, "xorl %%ebx, %%ebx",
	"call *nano_targets(,%%ebx,4); incl %%ebx; andl $7, %%ebx; call *nano_targets(,%%ebx,4); incl %%ebx; "
	"andl $7, %%ebx")
UNROLLED(jump_indirect, 16, "", "movl $2f, %%ebx; jmp *%%ebx; 2:")
UNROLLED(far_call_ret, 16, "", "lcall *nano_far")
UNROLLED(iret, 16, "", "pushfl; pushl %%cs; pushl $2f; iretl; 2:")
UNROLLED(sti_cli, 32, "", "sti; cli")
UNROLLED(pushf_popf, 32, "", "pushfl; popfl")
UNROLLED(pushf, 32, "", "pushfl; popl %%eax")
UNROLLED(irq_save_restore, 16, "", "pushfl; popl %%eax; cli; pushl %%eax; popfl")
UNROLLED(read_cr0, 32, "", "movl %%cr0, %%eax")
UNROLLED(read_cr2, 32, "", "movl %%cr2, %%eax")
UNROLLED(read_cr3, 32, "", "movl %%cr3, %%eax")
UNROLLED(read_cr4, 32, "", "movl %%cr4, %%eax")
UNROLLED(write_cr0_same, 16, "movl %%cr0, %%ebx", "movl %%ebx, %%cr0")
UNROLLED(write_cr0_ts, 8, "movl %%cr0, %%ebx; movl %%ebx, %%esi; orl $8, %%esi",
	 "movl %%esi, %%cr0; movl %%ebx, %%cr0")
UNROLLED(clts, 32, "", "clts")
UNROLLED(write_cr2, 16, "", "movl %%ebx, %%cr2")
UNROLLED(write_cr4_same, 16, "movl %%cr4, %%ebx", "movl %%ebx, %%cr4")
UNROLLED(write_cr4_pge, 8, "movl %%cr4, %%ebx; movl %%ebx, %%esi; xorl $0x80, %%esi",
	 "movl %%esi, %%cr4; movl %%ebx, %%cr4")
UNROLLED(in_, 16, "", "inb $0x80, %%al")
UNROLLED(out_, 16, "movl $0, %%eax", "outb %%al, $0x80")
UNROLLED(in_pic, 16, "", "inb $0x21, %%al")
UNROLLED(rdtsc_, 32, "", "rdtsc")
UNROLLED(cpuid, 8, "", "movl $0, %%eax; movl %%ebx, %%esi; cpuid; movl %%esi, %%ebx")
UNROLLED(rdmsr, 16, "", "movl $0x174, %%ecx; rdmsr")
UNROLLED(wrmsr, 16, "", "movl $0x175, %%ecx; movl $0, %%edx; movl $0x1000, %%eax; wrmsr")
UNROLLED(load_es, 32, "movl %%es, %%ebx", "movl %%ebx, %%es")
UNROLLED(load_gs, 32, "movl %%gs, %%ebx", "movl %%ebx, %%gs")
UNROLLED(load_gs_null, 32, "xorl %%ebx, %%ebx", "movl %%ebx, %%gs")
UNROLLED(load_ss, 32, "movl %%ss, %%ebx", "movl %%ebx, %%ss; nop")
UNROLLED(push_pop_es, 32, "", "pushl %%es; popl %%es")
UNROLLED(sgdt, 16, "movl $nano_scratch, %%esi", "sgdt (%%esi)")
UNROLLED(lldt_null, 16, "xorl %%ebx, %%ebx", "lldt %%bx")
UNROLLED(lock_inc, 32, "movl $nano_scratch, %%esi", "lock incl (%%esi)")
UNROLLED(fs_load, 32, "movl $nano_scratch, %%esi", "movl %%fs:(%%esi), %%eax")
UNROLLED(push_pop, 16, "", "pushl %%ebx; pushl %%esi; popl %%esi; popl %%ebx")

static bool has_pge(void)
{
	return cpu_has(CPUID_PGE);
}

static bool has_sep(void)
{
	return cpu_has(CPUID_SEP);
}

const struct nano nano_instructions[] = {
	ROW(nop, 32),
	ROW(push_pop, 16),
	ROW(call_ret, 32),
	{"call_ret_deep", call_deep, 32, false, NULL, NULL, false},
	ROW(call_indirect, 32),
	ROW(call_indirect_8, 32),
	ROW(call_indirect_mixed, 2),
	ROW(jump_indirect, 16),
	ROW(far_call_ret, 16),
	ROW(iret, 16),
	ROW(sti_cli, 32),
	ROW(pushf_popf, 32),
	ROW(pushf, 32),
	ROW(irq_save_restore, 16),
	ROW(read_cr0, 32),
	ROW(read_cr2, 32),
	ROW(read_cr3, 32),
	ROW(read_cr4, 32),
	ROW(write_cr0_same, 16),
	ROW(write_cr0_ts, 16),
	ROW(clts, 32),
	ROW(write_cr2, 16),
	ROW(write_cr4_same, 16),
	{"write_cr4_pge", write_cr4_pge, 16, false, has_pge, NULL, false},
	{"in", in_, 16, false, NULL, NULL, false},
	{"out", out_, 16, false, NULL, NULL, false},
	ROW(in_pic, 16),
	{"rdtsc", rdtsc_, 32, false, NULL, NULL, false},
	ROW(cpuid, 8),
	{"rdmsr", rdmsr, 16, false, has_sep, NULL, false},
	{"wrmsr", wrmsr, 16, false, has_sep, NULL, false},
	ROW(load_es, 32),
	ROW(load_gs, 32),
	ROW(load_gs_null, 32),
	ROW(load_ss, 32),
	ROW(push_pop_es, 32),
	ROW(sgdt, 16),
	ROW(lldt_null, 16),
	ROW(fs_load, 32),
	ROW(lock_inc, 32),
	{0},
};
