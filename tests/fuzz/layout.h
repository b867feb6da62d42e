/* layout.h - where things are in the memory of a generated case. For C and for kernel.S. */
#ifndef BT86_TESTS_FUZZ_LAYOUT_H
#define BT86_TESTS_FUZZ_LAYOUT_H

#define AT_GDT	       0x1000
#define AT_IDT	       0x1800
#define AT_TSS	       0x2000
#define AT_TSS_DF      0x2400
#define AT_TSS_3       0x2500
#define AT_LDT	       0x2800
#define AT_STUBS       0x3000 /* STUBS of STUB_BYTES each: entries of the IDT */
#define STUBS	       64
#define STUB_BYTES     16
#define AT_ENTER_DF    0x3400 /* where the double fault's task begins */
#define AT_COMMON      0x3420
#define AT_LEFT	       0x3f00 /* contexts left */
#define AT_NEXT	       0x3f04 /* the next one */
#define AT_LOG_POINTER 0x3f08
#define AT_TABLES      0x4000 /* page tables, to 0x8fff */
#define AT_CONTEXTS    0x9000
#define CONTEXTS       32
#define AT_LOG	       0xa000 /* a page, round and round */
#define AT_STACK_DF    0xb800 /* stacks: their tops */
#define AT_STACK_1     0xbc00
#define AT_STACK_0     0xc000
#define AT_CODE	       0x10000 /* 32-bit code */
#define CODE_PAGES     4
#define AT_CODE16      0x14000 /* a page of 16-bit code */
#define AT_DATA	       0x20000
#define DATA_BYTES     0x8000
#define AT_STACKS      0x2a000 /* tops of the stacks that contexts begin with */

/* A context: what the kernel goes on with after an exception. */
#define CTX_REGS  0 /* edi esi ebp - ebx edx ecx eax */
#define CTX_GS	  32
#define CTX_FS	  36
#define CTX_ES	  40
#define CTX_DS	  44
#define CTX_FRAME 48 /* eip cs eflags esp ss, es ds fs gs for virtual-8086 mode */
#define CTX_CR3	  84 /* 0: leave it */
#define CTX_CR0	  88
#define CTX_CR4	  92 /* 0xffffffff: leave it */
#define CTX_BYTES 96

#define SEL_CODE0 0x08
#define SEL_DATA0 0x10
#define SEL_CODE3 0x1b
#define SEL_DATA3 0x23
#define SEL_TSS	  0x28

#endif
