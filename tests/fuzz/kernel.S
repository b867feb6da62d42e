/* kernel.S - the kernel of a generated case: flat, 32-bit, at 0x3000. Its only service is the exception handler,
 * which writes down what happened and goes on with the next context, so that one run makes many excursions
 * and ends: when the contexts are used up it halts with interrupts off. What it writes down is memory, which is
 * compared.
 */
#include "layout.h"

	.code32
	.text
	.org	0
	.set	vector, 0
	.rept	STUBS
	.balign	STUB_BYTES, 0x90
	.if	vector != 8 && vector != 17 && (vector < 10 || vector > 14)
	push	$0x0eee
	.endif
	push	$vector
	jmp	common
	.set	vector, vector + 1
	.endr

	.org	AT_ENTER_DF - AT_STUBS
	pushl	$8			/* task switch: the error code is on the stack */
	pushl	$2			/* leave NT */
	popfl
	jmp	common

	.org	AT_COMMON - AT_STUBS
common:	push	%ds
	push	%eax
	mov	$SEL_DATA0, %eax
	mov	%eax, %ds
	pop	%eax
	decl	AT_LEFT			/* before anything else that may fault again */
	jns	1f
	cli
	hlt
1:	pusha
	push	%es
	push	%fs
	push	%gs
	mov	$SEL_DATA0, %eax
	mov	%eax, %es
	cld
	mov	AT_LOG_POINTER, %edi
	mov	%esp, %esi
	mov	$19, %ecx		/* gs fs es, edi to eax, ds, vector, error, eip cs eflags esp ss */
	rep ss movsl
	mov	%cr2, %eax
	stosl
	and	$(AT_LOG | 0xfff), %edi
	mov	%edi, AT_LOG_POINTER
	mov	AT_NEXT, %ebx
	lea	CTX_BYTES(%ebx), %eax
	mov	%eax, AT_NEXT
	mov	$AT_STACK_0, %esp
	mov	CTX_CR4(%ebx), %eax
	cmp	$-1, %eax
	je	2f
	mov	%eax, %cr4
2:	mov	CTX_CR0(%ebx), %eax
	cmp	$-1, %eax
	je	3f
	mov	%eax, %cr0
3:	mov	CTX_CR3(%ebx), %eax
	test	%eax, %eax
	jz	4f
	mov	%eax, %cr3
4:	testb	$3, CTX_FRAME+4(%ebx)
	jnz	5f
	testb	$2, CTX_FRAME+10(%ebx)	/* VM */
	jnz	5f
	mov	CTX_FRAME+12(%ebx), %esp
	pushl	CTX_FRAME+8(%ebx)
	pushl	CTX_FRAME+4(%ebx)
	pushl	CTX_FRAME(%ebx)
	jmp	6f
5:	lea	CTX_FRAME(%ebx), %esi
	mov	$AT_STACK_0 - 36, %edi
	mov	%edi, %esp
	mov	$9, %ecx
	rep movsl
6:	pushl	CTX_DS(%ebx)
	mov	CTX_GS(%ebx), %gs
	mov	CTX_FS(%ebx), %fs
	mov	CTX_ES(%ebx), %es
	mov	CTX_REGS(%ebx), %edi
	mov	CTX_REGS+4(%ebx), %esi
	mov	CTX_REGS+8(%ebx), %ebp
	mov	CTX_REGS+20(%ebx), %edx
	mov	CTX_REGS+24(%ebx), %ecx
	mov	CTX_REGS+28(%ebx), %eax
	mov	CTX_REGS+16(%ebx), %ebx
	pop	%ds
	iret
