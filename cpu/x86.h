/* x86.h - the constants of the 32-bit architecture, under the SDM's names.
 *
 * Nothing here is ours: bit positions and vector numbers from the Intel SDM
 * vol. 3A (2.3 EFLAGS, 2.5 control registers, 3.4.5 descriptors, 4.3-4.4 paging,
 * 6.3 vectors, 7.2 TSS) and vol. 4 (MSRs).
 */
#ifndef BT86_CPU_X86_H
#define BT86_CPU_X86_H

#include <stdint.h>

/* General registers in their encoding order. */
enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI };
/* Segment registers in their encoding order. */
enum { ES, CS, SS, DS, FS, GS };

/* EFLAGS */
#define FL_CF	 0x00000001u
#define FL_1	 0x00000002u /* always set */
#define FL_PF	 0x00000004u
#define FL_AF	 0x00000010u
#define FL_ZF	 0x00000040u
#define FL_SF	 0x00000080u
#define FL_TF	 0x00000100u
#define FL_IF	 0x00000200u
#define FL_DF	 0x00000400u
#define FL_OF	 0x00000800u
#define FL_IOPL	 0x00003000u
#define FL_NT	 0x00004000u
#define FL_RF	 0x00010000u
#define FL_VM	 0x00020000u
#define FL_AC	 0x00040000u
#define FL_VIF	 0x00080000u
#define FL_VIP	 0x00100000u
#define FL_ID	 0x00200000u
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

/* Control registers */
#define CR0_PE	       0x00000001u
#define CR0_MP	       0x00000002u
#define CR0_EM	       0x00000004u
#define CR0_TS	       0x00000008u
#define CR0_ET	       0x00000010u
#define CR0_NE	       0x00000020u
#define CR0_WP	       0x00010000u
#define CR0_AM	       0x00040000u
#define CR0_NW	       0x20000000u
#define CR0_CD	       0x40000000u
#define CR0_PG	       0x80000000u

#define CR4_VME	       0x00000001u
#define CR4_PVI	       0x00000002u
#define CR4_TSD	       0x00000004u
#define CR4_DE	       0x00000008u
#define CR4_PSE	       0x00000010u
#define CR4_PAE	       0x00000020u
#define CR4_MCE	       0x00000040u
#define CR4_PGE	       0x00000080u
#define CR4_PCE	       0x00000100u
#define CR4_OSFXSR     0x00000200u
#define CR4_OSXMMEXCPT 0x00000400u

/* Page-table entries (32-bit and PAE share the low bits) */
#define PTE_P	0x001u
#define PTE_RW	0x002u
#define PTE_US	0x004u
#define PTE_PWT 0x008u
#define PTE_PCD 0x010u
#define PTE_A	0x020u
#define PTE_D	0x040u
#define PTE_PS	0x080u
#define PTE_G	0x100u
#define PTE_NX	0x8000000000000000ull

/* #PF error code */
#define PF_P	0x01u
#define PF_W	0x02u
#define PF_U	0x04u
#define PF_RSVD 0x08u
#define PF_I	0x10u

/* Vectors (SDM vol. 3A table 6-1) */
enum {
	VEC_DE = 0,
	VEC_DB = 1,
	VEC_NMI = 2,
	VEC_BP = 3,
	VEC_OF = 4,
	VEC_BR = 5,
	VEC_UD = 6,
	VEC_NM = 7,
	VEC_DF = 8,
	VEC_TS = 10,
	VEC_NP = 11,
	VEC_SS = 12,
	VEC_GP = 13,
	VEC_PF = 14,
	VEC_MF = 16,
	VEC_AC = 17,
	VEC_MC = 18,
	VEC_XM = 19,
};

/* Segment attributes: descriptor bytes 5 and 6, i.e. (high dword >> 8) & 0xf0ff. */
#define SEG_TYPE	 0x000fu
#define SEG_ACCESSED	 0x0001u
#define SEG_RW		 0x0002u /* data: writable; code: readable */
#define SEG_DC		 0x0004u /* data: expand-down; code: conforming */
#define SEG_CODE	 0x0008u
#define SEG_S		 0x0010u /* code or data (not system) */
#define SEG_DPL		 0x0060u
#define SEG_P		 0x0080u
#define SEG_AVL		 0x1000u
#define SEG_L		 0x2000u
#define SEG_DB		 0x4000u
#define SEG_G		 0x8000u
#define SEG_DPL_OF(attr) (((attr) >> 5) & 3u)

/* System descriptor types */
enum {
	SYS_TSS16 = 1,
	SYS_LDT = 2,
	SYS_TSS16_BUSY = 3,
	SYS_CALL16 = 4,
	SYS_TASK_GATE = 5,
	SYS_INT16 = 6,
	SYS_TRAP16 = 7,
	SYS_TSS32 = 9,
	SYS_TSS32_BUSY = 11,
	SYS_CALL32 = 12,
	SYS_INT32 = 14,
	SYS_TRAP32 = 15,
};

/* MSRs */
#define MSR_TSC		   0x010u
#define MSR_PLATFORM_ID	   0x017u
#define MSR_APIC_BASE	   0x01bu
#define MSR_BIOS_SIGN_ID   0x08bu
#define MSR_MTRRCAP	   0x0feu
#define MSR_SYSENTER_CS	   0x174u
#define MSR_SYSENTER_ESP   0x175u
#define MSR_SYSENTER_EIP   0x176u
#define MSR_MCG_CAP	   0x179u
#define MSR_MCG_STATUS	   0x17au
#define MSR_MISC_ENABLE	   0x1a0u
#define MSR_MTRR_PHYSBASE0 0x200u
#define MSR_MTRR_FIX64K	   0x250u
#define MSR_PAT		   0x277u
#define MSR_MTRR_DEF_TYPE  0x2ffu
#define MSR_EFER	   0xc0000080u

#endif
