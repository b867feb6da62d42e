/* What C and assembly both need to know: selectors, flags, where struct state keeps what. */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#define KERNEL_CODE 0x08
#define KERNEL_DATA 0x10
#define USER_CODE   0x1b
#define USER_DATA   0x23
#define MAIN_TSS    0x28
/* From here on the tests fill the GDT as they like. */
#define FREE_SELECTOR 0x30
#define GDT_ENTRIES   64

#define EFLAGS_CF     0x00000001
#define EFLAGS_PF     0x00000004
#define EFLAGS_AF     0x00000010
#define EFLAGS_ZF     0x00000040
#define EFLAGS_SF     0x00000080
#define EFLAGS_TF     0x00000100
#define EFLAGS_IF     0x00000200
#define EFLAGS_DF     0x00000400
#define EFLAGS_OF     0x00000800
#define EFLAGS_IOPL   0x00003000
#define EFLAGS_NT     0x00004000
#define EFLAGS_RF     0x00010000
#define EFLAGS_VM     0x00020000
#define EFLAGS_AC     0x00040000
#define EFLAGS_VIF    0x00080000
#define EFLAGS_VIP    0x00100000
#define EFLAGS_ID     0x00200000

#define DONE_VECTOR   0x30 /* a snippet ends with int 0x30 */
#define NO_ERROR      0x7fffffff

#define STATE_EDI     0
#define STATE_ESI     4
#define STATE_EBP     8
#define STATE_EBX     12
#define STATE_EDX     16
#define STATE_ECX     20
#define STATE_EAX     24
#define STATE_GS      28
#define STATE_FS      32
#define STATE_ES      36
#define STATE_DS      40
#define STATE_EIP     44
#define STATE_CS      48
#define STATE_EFLAGS  52
#define STATE_ESP     56
#define STATE_SS      60
#define STATE_V86_ES  64
#define STATE_V86_DS  68
#define STATE_V86_FS  72
#define STATE_V86_GS  76
#define STATE_VECTOR  80
#define STATE_ERROR   84
#define STATE_CR2     88
#define STATE_SIZE    92

#endif
