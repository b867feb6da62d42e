/* table.h - one row an opcode: which handler executes it.
 *
 * Everything else about the instruction tables derives from these rows: the prototypes below, and the dispatch tables in
 * table.c. op_fpu stands for what fpu*.c and sse*.c execute; an opcode without a row is #UD (the decoder has
 * refused it before). SDM vol. 2D appendix A.
 */
#ifndef BT86_INTERP_TABLE_H
#define BT86_INTERP_TABLE_H

#include "vmm/interp/interp.h"

/* R(opcode, handler): one-byte map. */
#define INTERP_MAP_1(R)                                                                                        \
	R(0x00, add_eb_gb) R(0x01, add_ev_gv) R(0x02, add_gb_eb) R(0x03, add_gv_ev)                            \
	R(0x04, add_al_ib) R(0x05, add_eax_iv) R(0x06, push_sreg) R(0x07, pop_sreg)                            \
	R(0x08, or_eb_gb) R(0x09, or_ev_gv) R(0x0a, or_gb_eb) R(0x0b, or_gv_ev)                                \
	R(0x0c, or_al_ib) R(0x0d, or_eax_iv) R(0x0e, push_sreg)                                                \
	R(0x10, adc_eb_gb) R(0x11, adc_ev_gv) R(0x12, adc_gb_eb) R(0x13, adc_gv_ev)                            \
	R(0x14, adc_al_ib) R(0x15, adc_eax_iv) R(0x16, push_sreg) R(0x17, pop_sreg)                            \
	R(0x18, sbb_eb_gb) R(0x19, sbb_ev_gv) R(0x1a, sbb_gb_eb) R(0x1b, sbb_gv_ev)                            \
	R(0x1c, sbb_al_ib) R(0x1d, sbb_eax_iv) R(0x1e, push_sreg) R(0x1f, pop_sreg)                            \
	R(0x20, and_eb_gb) R(0x21, and_ev_gv) R(0x22, and_gb_eb) R(0x23, and_gv_ev)                            \
	R(0x24, and_al_ib) R(0x25, and_eax_iv) R(0x27, daa)                                                    \
	R(0x28, sub_eb_gb) R(0x29, sub_ev_gv) R(0x2a, sub_gb_eb) R(0x2b, sub_gv_ev)                            \
	R(0x2c, sub_al_ib) R(0x2d, sub_eax_iv) R(0x2f, das)                                                    \
	R(0x30, xor_eb_gb) R(0x31, xor_ev_gv) R(0x32, xor_gb_eb) R(0x33, xor_gv_ev)                            \
	R(0x34, xor_al_ib) R(0x35, xor_eax_iv) R(0x37, aaa)                                                    \
	R(0x38, cmp_eb_gb) R(0x39, cmp_ev_gv) R(0x3a, cmp_gb_eb) R(0x3b, cmp_gv_ev)                            \
	R(0x3c, cmp_al_ib) R(0x3d, cmp_eax_iv) R(0x3f, aas)                                                    \
	R(0x40 ... 0x47, inc_r) R(0x48 ... 0x4f, dec_r) R(0x50 ... 0x57, push_r) R(0x58 ... 0x5f, pop_r)       \
	R(0x60, pusha) R(0x61, popa) R(0x62, bound) R(0x63, arpl)                                              \
	R(0x68, push_iv) R(0x69, imul_gv_ev_iv) R(0x6a, push_iv) R(0x6b, imul_gv_ev_iv)                        \
	R(0x6c ... 0x6d, ins) R(0x6e ... 0x6f, outs) R(0x70 ... 0x7f, jcc)                                     \
	R(0x84, test_eb_gb) R(0x85, test_ev_gv) R(0x86, xchg_eb_gb) R(0x87, xchg_ev_gv)                        \
	R(0x88, mov_eb_gb) R(0x89, mov_ev_gv) R(0x8a, mov_gb_eb) R(0x8b, mov_gv_ev)                            \
	R(0x8c, mov_ew_sreg) R(0x8d, lea) R(0x8e, mov_sreg_ew) R(0x8f, pop_ev)                                 \
	R(0x90, nop) R(0x91 ... 0x97, xchg_eax_r) R(0x98, cbw) R(0x99, cwd)                                    \
	R(0x9a, call_far) R(0x9b, fpu) R(0x9c, pushf) R(0x9d, popf) R(0x9e, sahf) R(0x9f, lahf)                \
	R(0xa0, mov_al_moffs) R(0xa1, mov_eax_moffs) R(0xa2, mov_moffs_al) R(0xa3, mov_moffs_eax)              \
	R(0xa4 ... 0xa5, movs) R(0xa6 ... 0xa7, cmps) R(0xa8, test_al_ib) R(0xa9, test_eax_iv)                 \
	R(0xaa ... 0xab, stos) R(0xac ... 0xad, lods) R(0xae ... 0xaf, scas)                                   \
	R(0xb0 ... 0xb7, mov_r8_ib) R(0xb8 ... 0xbf, mov_r_iv)                                                 \
	R(0xc2 ... 0xc3, ret) R(0xc4 ... 0xc5, load_far_pointer) R(0xc8, enter) R(0xc9, leave)                 \
	R(0xca ... 0xcb, retf) R(0xcc, int3) R(0xcd, int) R(0xce, into) R(0xcf, iret)                          \
	R(0xd4, aam) R(0xd5, aad) R(0xd6, salc) R(0xd7, xlat) R(0xd8 ... 0xdf, fpu)                            \
	R(0xe0 ... 0xe1, loop_zf) R(0xe2, loop) R(0xe3, jcxz) R(0xe4 ... 0xe7, in_out)                         \
	R(0xe8, call_rel) R(0xe9, jmp_rel) R(0xea, jmp_far) R(0xeb, jmp_rel) R(0xec ... 0xef, in_out)          \
	R(0xf1, int1) R(0xf4, hlt) R(0xf5, cmc) R(0xf8, clc) R(0xf9, stc)                                      \
	R(0xfa, cli) R(0xfb, sti) R(0xfc, cld) R(0xfd, std)

/* Two-byte map, 0F. */
#define INTERP_MAP_0F(R)                                                                                       \
	R(0x02, lar) R(0x03, lsl) R(0x06, clts) R(0x08, invd) R(0x09, invd) R(0x0d, nop)                       \
	R(0x10 ... 0x17, fpu) R(0x18 ... 0x1f, nop)                                                            \
	R(0x20, mov_from_cr) R(0x21, mov_from_dr) R(0x22, mov_to_cr) R(0x23, mov_to_dr)                        \
	R(0x28 ... 0x2f, fpu) R(0x30, wrmsr) R(0x31, rdtsc) R(0x32, rdmsr) R(0x33, rdpmc)                      \
	R(0x34, sysenter) R(0x35, sysexit) R(0x40 ... 0x4f, cmov) R(0x50 ... 0x7f, fpu)                        \
	R(0x80 ... 0x8f, jcc) R(0x90 ... 0x9f, setcc) R(0xa0, push_sreg) R(0xa1, pop_sreg) R(0xa2, cpuid)      \
	R(0xa3, bt_ev_gv) R(0xa4, shld_ib) R(0xa5, shld_cl) R(0xa8, push_sreg) R(0xa9, pop_sreg)               \
	R(0xab, bts_ev_gv) R(0xac, shrd_ib) R(0xad, shrd_cl) R(0xaf, imul_gv_ev)                               \
	R(0xb0, cmpxchg_eb_gb) R(0xb1, cmpxchg_ev_gv) R(0xb2, load_far_pointer) R(0xb3, btr_ev_gv)             \
	R(0xb4 ... 0xb5, load_far_pointer) R(0xb6, movzx_gv_eb) R(0xb7, movzx_gv_ew) R(0xb8, popcnt)           \
	R(0xbb, btc_ev_gv) R(0xbc, bsf) R(0xbd, bsr) R(0xbe, movsx_gv_eb) R(0xbf, movsx_gv_ew)                 \
	R(0xc0, xadd_eb_gb) R(0xc1, xadd_ev_gv) R(0xc2, fpu) R(0xc3, movnti) R(0xc4 ... 0xc6, fpu)             \
	R(0xc8 ... 0xcf, bswap) R(0xd0 ... 0xfe, fpu)

/* G(map, opcode, handlers of ModRM.reg 0 to 7): 1 for the one-byte map, 0F for the other. */
#define INTERP_GROUPS(G)                                                                                       \
	G(1, 0x80, add_eb_ib, or_eb_ib, adc_eb_ib, sbb_eb_ib, and_eb_ib, sub_eb_ib, xor_eb_ib, cmp_eb_ib)      \
	G(1, 0x81, add_ev_iv, or_ev_iv, adc_ev_iv, sbb_ev_iv, and_ev_iv, sub_ev_iv, xor_ev_iv, cmp_ev_iv)      \
	G(1, 0x82, add_eb_ib, or_eb_ib, adc_eb_ib, sbb_eb_ib, and_eb_ib, sub_eb_ib, xor_eb_ib, cmp_eb_ib)      \
	G(1, 0x83, add_ev_iv, or_ev_iv, adc_ev_iv, sbb_ev_iv, and_ev_iv, sub_ev_iv, xor_ev_iv, cmp_ev_iv)      \
	G(1, 0xc0, rol_eb_ib, ror_eb_ib, rcl_eb_ib, rcr_eb_ib, shl_eb_ib, shr_eb_ib, shl_eb_ib, sar_eb_ib)     \
	G(1, 0xc1, rol_ev_ib, ror_ev_ib, rcl_ev_ib, rcr_ev_ib, shl_ev_ib, shr_ev_ib, shl_ev_ib, sar_ev_ib)     \
	G(1, 0xc6, mov_eb_ib, ud, ud, ud, ud, ud, ud, ud)                                                      \
	G(1, 0xc7, mov_ev_iv, ud, ud, ud, ud, ud, ud, ud)                                                      \
	G(1, 0xd0, rol_eb_1, ror_eb_1, rcl_eb_1, rcr_eb_1, shl_eb_1, shr_eb_1, shl_eb_1, sar_eb_1)             \
	G(1, 0xd1, rol_ev_1, ror_ev_1, rcl_ev_1, rcr_ev_1, shl_ev_1, shr_ev_1, shl_ev_1, sar_ev_1)             \
	G(1, 0xd2, rol_eb_cl, ror_eb_cl, rcl_eb_cl, rcr_eb_cl, shl_eb_cl, shr_eb_cl, shl_eb_cl, sar_eb_cl)     \
	G(1, 0xd3, rol_ev_cl, ror_ev_cl, rcl_ev_cl, rcr_ev_cl, shl_ev_cl, shr_ev_cl, shl_ev_cl, sar_ev_cl)     \
	G(1, 0xf6, test_eb_ib, test_eb_ib, not_eb, neg_eb, mul_eb, imul_eb, div_eb, idiv_eb)                   \
	G(1, 0xf7, test_ev_iv, test_ev_iv, not_ev, neg_ev, mul_ev, imul_ev, div_ev, idiv_ev)                   \
	G(1, 0xfe, inc_eb, dec_eb, ud, ud, ud, ud, ud, ud)                                                     \
	G(1, 0xff, inc_ev, dec_ev, call_ev, call_far_m, jmp_ev, jmp_far_m, push_ev, ud)                        \
	G(0F, 0x00, sldt, str, lldt, ltr, verr, verw, ud, ud)                                                  \
	G(0F, 0x01, sgdt, sidt, lgdt, lidt, smsw, ud, lmsw, invlpg)                                            \
	G(0F, 0xae, fpu, fpu, fpu, fpu, ud, nop, nop, clflush_sfence)                                          \
	G(0F, 0xba, ud, ud, ud, ud, bt_ev_ib, bts_ev_ib, btr_ev_ib, btc_ev_ib)                                 \
	G(0F, 0xc7, ud, cmpxchg8b, ud, ud, ud, ud, rdrand, rdseed)

#define INTERP_DECLARE(opcode, name) int op_##name(struct vcpu *c, const struct insn *i);
INTERP_MAP_1(INTERP_DECLARE)
INTERP_MAP_0F(INTERP_DECLARE)
#define INTERP_DECLARE_GROUP(map, opcode, a, b, d, e, f, g, h, k)                                              \
	INTERP_DECLARE(0, a) INTERP_DECLARE(0, b) INTERP_DECLARE(0, d) INTERP_DECLARE(0, e)                    \
	INTERP_DECLARE(0, f) INTERP_DECLARE(0, g) INTERP_DECLARE(0, h) INTERP_DECLARE(0, k)
INTERP_GROUPS(INTERP_DECLARE_GROUP)
#undef INTERP_DECLARE
#undef INTERP_DECLARE_GROUP
int op_movbe_crc32(struct vcpu *c, const struct insn *i);

/* The handler for a decoded instruction. Never NULL. */
interp_fn interp_handler(const struct insn *i);

#endif
