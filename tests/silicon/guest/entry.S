/* entry.S - the guest kernel's entry, the 256 vectors, and the way into a case. See kernel.c. */
#include "../layout.h"

#define KERNEL_DATA 0x18

	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.globl	_start
_start:
	cli
	cld
	movl	$stack_top, %esp
	call	kernel_main
1:	hlt
	jmp	1b

	.balign	16
	.globl	vector_stubs
vector_stubs:
	.set	i, 0
	.rept	256
	.balign	16
	.if	i != 8 && (i < 10 || i > 14) && i != 17
	pushl	$0
	.endif
	pushl	$i
	jmp	trap
	.set	i, i + 1
	.endr

/* Frame: gs fs es ds, pushal's registers, vector, error code, eip cs eflags esp ss. */
trap:	pushal
	pushl	%ds
	pushl	%es
	pushl	%fs
	pushl	%gs
	movl	$KERNEL_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	cld
	pushl	%esp
	call	kernel_trap

/* enter(const struct silicon_case *c); the stack is left behind */
	.globl	enter
enter:	movl	4(%esp), %eax
	movl	$stack_top, %esp
	fxrstor	(%eax)
	pushl	CASE_SEL + 8(%eax)
	pushl	CASE_GPR + 16(%eax)
	pushl	CASE_EFLAGS(%eax)
	pushl	CASE_SEL + 4(%eax)
	pushl	CASE_EIP(%eax)
	movw	CASE_SEL + 16(%eax), %fs
	movw	CASE_SEL + 20(%eax), %gs
	movw	CASE_SEL + 0(%eax), %es
	movl	CASE_GPR + 4(%eax), %ecx
	movl	CASE_GPR + 8(%eax), %edx
	movl	CASE_GPR + 12(%eax), %ebx
	movl	CASE_GPR + 20(%eax), %ebp
	movl	CASE_GPR + 24(%eax), %esi
	movl	CASE_GPR + 28(%eax), %edi
	pushl	CASE_SEL + 12(%eax)
	movl	CASE_GPR + 0(%eax), %eax
	popl	%ds
	iretl

	.globl	load_tables
load_tables:                            /* (gdtr, idtr, tss selector, code selector is 8) */
	movl	4(%esp), %eax
	lgdt	(%eax)
	movl	8(%esp), %eax
	lidt	(%eax)
	movl	$KERNEL_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	lldt	%ax
	ljmp	$8, $1f
1:	movl	12(%esp), %eax
	ltr	%ax
	ret

	.bss
	.balign	16
	.globl	stack_top
	.skip	16384
stack_top:

	.section .note.GNU-stack, "", @progbits
