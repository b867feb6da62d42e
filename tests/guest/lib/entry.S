/*
 * Multiboot entry, one stub for each of the 256 vectors, and run_snippet, which goes into the state `in` and
 * comes back with the state `out` as soon as anything interrupts it.
 */
#include "layout.h"

	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.globl	_start
_start:
	cli
	cld
	movl	$stack_top, %esp
	pushl	$0
	popfl
	pushl	%ebx
	pushl	%eax
	call	guest_start
1:	hlt
	jmp	1b

	.globl	load_tables
load_tables:                            /* void load_tables(gdtr, idtr, tss selector) */
	movl	4(%esp), %eax
	lgdt	(%eax)
	movl	8(%esp), %eax
	lidt	(%eax)
	movl	$KERNEL_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%eax, %fs
	movl	%eax, %gs
	ljmp	$KERNEL_CODE, $1f
1:	movl	12(%esp), %eax
	ltr	%ax
	ret

/*
 * void run_snippet(void). A context at CPL 0 gets its iret frame on its own stack, the others on ours.
 * Everything is addressed through the flat DS until the last load but one.
 */
	.globl	run_snippet
run_snippet:
	pushal
	movl	%esp, runner_esp
	movl	$1, running
	testl	$EFLAGS_VM, in + STATE_EFLAGS
	jnz	1f
	testb	$3, in + STATE_CS
	jnz	2f
	movl	in + STATE_ESP, %ecx
	movw	in + STATE_SS, %ss
	movl	%ecx, %esp
	jmp	3f
1:	pushl	in + STATE_V86_GS
	pushl	in + STATE_V86_FS
	pushl	in + STATE_V86_DS
	pushl	in + STATE_V86_ES
2:	pushl	in + STATE_SS
	pushl	in + STATE_ESP
3:	pushl	in + STATE_EFLAGS
	pushl	in + STATE_CS
	pushl	in + STATE_EIP
	movl	in + STATE_EDI, %edi
	movl	in + STATE_ESI, %esi
	movl	in + STATE_EBP, %ebp
	movl	in + STATE_EBX, %ebx
	movl	in + STATE_EDX, %edx
	movl	in + STATE_ECX, %ecx
	movl	in + STATE_EAX, %eax
	movw	in + STATE_GS, %gs
	movw	in + STATE_FS, %fs
	movw	in + STATE_ES, %es
	movw	in + STATE_DS, %ds
	iretl

	.balign	16
	.globl	vector_stubs
vector_stubs:
	.set	i, 0
	.rept	256
	.balign	16
	.if	i != 8 && (i < 10 || i > 14) && i != 17
	pushl	$NO_ERROR
	.endif
	pushl	$i
	jmp	stub_common
	.set	i, i + 1
	.endr

/* Everything comes off the stack with pops: they suit whatever SS and stack size were interrupted. */
stub_common:
	pushl	%ds
	pushl	%es
	pushl	%fs
	pushl	%gs
	pushal
	movl	$KERNEL_DATA, %eax
	movl	%eax, %ds
	popl	out + STATE_EDI
	popl	out + STATE_ESI
	popl	out + STATE_EBP
	popl	out + STATE_ESP
	popl	out + STATE_EBX
	popl	out + STATE_EDX
	popl	out + STATE_ECX
	popl	out + STATE_EAX
	popl	out + STATE_GS
	popl	out + STATE_FS
	popl	out + STATE_ES
	popl	out + STATE_DS
	popl	out + STATE_VECTOR
	popl	out + STATE_ERROR
	popl	out + STATE_EIP
	popl	out + STATE_CS
	popl	out + STATE_EFLAGS
	testl	$EFLAGS_VM, out + STATE_EFLAGS
	jnz	1f
	testb	$3, out + STATE_CS
	jnz	1f
	movl	%esp, out + STATE_ESP
	movl	%ss, %eax
	movl	%eax, out + STATE_SS
	jmp	2f
1:	popl	out + STATE_ESP
	popl	out + STATE_SS
	testl	$EFLAGS_VM, out + STATE_EFLAGS
	jz	2f
	popl	out + STATE_V86_ES
	popl	out + STATE_V86_DS
	popl	out + STATE_V86_FS
	popl	out + STATE_V86_GS
2:	movl	$KERNEL_DATA, %eax
	movl	%eax, %es
	movl	%eax, %fs
	movl	%eax, %gs
	movl	%cr2, %ecx
	movl	%ecx, out + STATE_CR2
	movl	runner_esp, %ecx
	cmpl	$0, running
	movl	%eax, %ss
	movl	%ecx, %esp
	je	unexpected_exception
	movl	$0, running
	pushl	$2
	popfl
	popal
	ret

	.bss
	.balign	16
	.globl	running, in, out, stack_top
running:
	.skip	4
runner_esp:
	.skip	4
in:	.skip	STATE_SIZE
out:	.skip	STATE_SIZE
	.balign	16
	.skip	32768
stack_top:

	.section .note.GNU-stack, "", @progbits
