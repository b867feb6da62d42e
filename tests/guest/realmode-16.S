/*
 * The part of the realmode test that runs in real mode, copied to REAL_CODE and run as segment
 * REAL_CODE >> 4. Every case leaves two 32-bit words in the results (FS): what was caught and where, or
 * whatever realmode.c says under the case's number.
 */
#include "realmode.h"

#define AT(label) ((label) - real_start)

/* The instruction may raise an exception: result n is vector | ip << 16, or -1; then where the instruction is. */
	.macro	attempt n, instruction:vararg
	movw	$AT(2f), %fs:REAL_RECOVER
	movl	$-1, %fs:REAL_CAUGHT
	movw	%sp, %fs:REAL_SP
1:	\instruction
2:	movl	%fs:REAL_CAUGHT, %eax
	movl	%eax, %fs:(8 * \n)
	movl	$AT(1b), %fs:(8 * \n + 4)
	.endm

	.macro	result n, low, high
	movl	\low, %fs:(8 * \n)
	movl	\high, %fs:(8 * \n + 4)
	.endm

	.text
	.code16
	.globl	real_start, real_end
real_start:
/* void (void), called through a 16-bit code segment with its base here; ECX is ESP for the way back */
	movl	%cr0, %eax
	andl	$~1, %eax
	movl	%eax, %cr0
	ljmp	$(REAL_CODE >> 4), $AT(1f)
1:	xorw	%ax, %ax
	movw	%ax, %gs
	movw	$(REAL_RESULTS >> 4), %ax
	movw	%ax, %fs
	movw	$(REAL_DATA >> 4), %ax
	movw	%ax, %ds
	movw	%ax, %es
	movl	%ecx, %fs:REAL_OLD_ESP
	movw	$(REAL_STACK >> 4), %ax
	movw	%ax, %ss
	movl	$0x1000, %esp

	/* the interrupt table: stubs for 0 to 15, our own for the others */
	xorw	%bx, %bx
	movw	$AT(real_stubs), %ax
	movw	$16, %cx
2:	movw	%ax, %gs:(%bx)
	movw	$(REAL_CODE >> 4), %gs:2(%bx)
	addw	$4, %bx
	addw	$8, %ax
	loop	2b
	movw	$AT(int_40), %gs:(0x40 * 4)
	movw	$(REAL_CODE >> 4), %gs:(0x40 * 4 + 2)
	movw	$AT(irq0), %gs:(0x20 * 4)
	movw	$(REAL_CODE >> 4), %gs:(0x20 * 4 + 2)
	lidtl	%cs:AT(real_idtr)

	/* exceptions */
	xorw	%cx, %cx
	xorw	%dx, %dx
	attempt	0, divw	%cx
	attempt	1, int3
	movb	$0x7f, %al
	incb	%al
	attempt	2, into
	movl	$0x00020001, 0x10
	movw	$3, %ax
	attempt	3, boundw %ax, 0x10
	attempt	4, ud2
	attempt	5, sldt	%ax
	attempt	6, ltr	%ax
	attempt	7, verr	%ax
	attempt	8, .byte 0x63, 0xc0
	attempt	9, lar	%ax, %ax
	movw	$0xffff, %bx
	attempt	10, movw (%bx), %ax
	movl	$0x10000, %ebx
	attempt	11, movb (%ebx), %al
	pushfw
	orw	$0x100, (%esp)
	movw	$AT(7f), %fs:REAL_RECOVER
	movl	$-1, %fs:REAL_CAUGHT
	movw	%sp, %fs:REAL_SP
	addw	$2, %fs:REAL_SP
	popfw
6:	nop
7:	movl	%fs:REAL_CAUGHT, %eax
	result	12, %eax, $AT(6b)

	/* int n and iret: 6 bytes of frame, IF and TF off inside */
	movl	$0, %eax
	pushw	$0x0602
	popfw
	movw	%sp, %dx
	int	$0x40
	subw	%sp, %dx
	pushfw
	popw	%bx
	movzwl	%bx, %ebx
	shll	$16, %edx
	orl	%edx, %ebx
	cli
	cld
	result	13, %eax, %ebx

	/* system instructions that real mode has */
	smsww	%ax
	movzwl	%ax, %eax
	movl	%cr0, %ebx
	result	14, %eax, %ebx
	pushw	$0x7202
	popfw
	pushfw
	popw	%ax
	pushw	$2
	popfw
	pushfw
	popw	%bx
	movzwl	%ax, %eax
	movzwl	%bx, %ebx
	result	15, %eax, %ebx

	/* 32-bit operands and addresses */
	movl	$0x12345678, %eax
	movl	%eax, 0x20
	movl	$0x1000, %ecx
	movl	$0x40, %edx
	leal	-0xfe0(%ecx,%edx,4), %esi
	movl	$0x20, %edi
	imull	$3, (%edi), %ebx
	result	16, %ebx, %esi
	pushl	$0x89abcdef
	popw	%ax
	popw	%bx
	movzwl	%ax, %eax
	movzwl	%bx, %ebx
	result	17, %eax, %ebx

	/* far call and return, far jmp, through memory and with parameters */
	movw	%sp, %dx
	pushw	$0x1111
	pushw	$0x2222
	lcall	$((REAL_CODE >> 4) + 1), $(AT(far_procedure) - 16)
	subw	%sp, %dx
	movzwl	%dx, %edx
	movzwl	%ax, %eax
	shll	$16, %eax
	orl	%edx, %eax
	movw	$AT(3f), 0x30
	movw	$(REAL_CODE >> 4), 0x32
	xorl	%ebx, %ebx
	ljmpw	*0x30
	incw	%bx
3:	result	18, %eax, %ebx

	/* strings: 16-bit indexes wrap in the segment */
	movw	$0xfffc, %di
	movw	$4, %cx
	movw	$0x4321, %ax
	rep stosw
	movzwl	%di, %edi
	movl	0, %eax
	result	19, %eax, %edi
	movw	$0xfff8, %sp
	pushl	$0x55667788
	movzwl	%sp, %eax
	popl	%ebx
	movw	$0, %sp
	pushw	%ax
	movzwl	%sp, %ecx
	shll	$16, %ecx
	orl	%ecx, %eax
	movw	$0x1000, %sp
	result	20, %eax, %ebx

	/* the timer's interrupt out of hlt */
	movl	$0, %fs:REAL_TICKS
	movb	$0xfe, %al
	outb	%al, $0x21
	movb	$0x30, %al
	outb	%al, $0x43
	movb	$0, %al
	outb	%al, $0x40
	movb	$0x10, %al
	outb	%al, $0x40
	sti
	hlt
	cli
	movb	$0xff, %al
	outb	%al, $0x21
	movl	%fs:REAL_TICKS, %eax
	result	21, %eax, $0

	/* an interrupt table elsewhere, and one that is too short for the vector: #GP without an error code */
	movw	$64, %cx
	xorw	%si, %si
	movw	$0x400, %di
4:	movl	%gs:(%si), %eax
	movl	%eax, (%di)
	addw	$4, %si
	addw	$4, %di
	loop	4b
	movw	$AT(int_40_elsewhere), (0x400 + 0x3f * 4)
	movw	$(REAL_CODE >> 4), (0x402 + 0x3f * 4)
	lidtl	%cs:AT(real_idtr_elsewhere)
	xorl	%eax, %eax
	int	$0x3f
	movl	%eax, %ebx
	attempt	22, int $0x40
	lidtl	%cs:AT(real_idtr)
	result	23, %ebx, $0

	/* above 1 MiB through ffff:0010, A20 being on */
	movw	$0xffff, %ax
	movw	%ax, %es
	movl	%es:0x10, %eax
	movw	$(REAL_DATA >> 4), %bx
	movw	%bx, %es
	result	24, %eax, $0

	/* protected mode without a far jump: CS keeps its base and size; then DS with a limit of 4 GiB, kept in
	   real mode afterwards, and over a reload there */
	lgdtl	%fs:REAL_GDTR
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	movw	$0x10, %bx
	movw	%bx, %ds
	movw	%cs, %cx
	andl	$~1, %eax
	movl	%eax, %cr0
	movl	$REAL_ABOVE, %esi
	movl	(%esi), %eax
	movw	$(REAL_DATA >> 4), %bx
	movw	%bx, %ds
	movl	$(REAL_ABOVE - REAL_DATA), %esi
	movl	(%esi), %ebx
	result	25, %eax, %ebx
	movzwl	%cx, %ecx
	result	26, %ecx, $0

	/* lmsw sets PE and can't clear it */
	smsww	%ax
	orw	$1, %ax
	lmsw	%ax
	smsww	%ax
	movzwl	%ax, %ebx
	andw	$~1, %ax
	lmsw	%ax
	smsww	%ax
	movzwl	%ax, %eax
	result	27, %eax, %ebx

	/* and home */
	movl	%fs:REAL_OLD_ESP, %ecx
	ljmpl	$0x08, $real_return

far_procedure:
	movw	%sp, %bp
	movw	6(%bp), %ax
	lretw	$4

int_40:
	movw	%sp, %bp
	pushfw
	popw	%ax
	movzwl	%ax, %eax
	movw	4(%bp), %cx
	shll	$16, %ecx
	orl	%ecx, %eax
	iretw
int_40_elsewhere:
	movl	$0x3f3f, %eax
	iretw
irq0:
	pushw	%ax
	incl	%fs:REAL_TICKS
	movb	$0x20, %al
	outb	%al, $0x20
	popw	%ax
	iretw

	.balign	8
real_stubs:
	.set	vector, 0
	.rept	16
	.balign	8
	pushw	$vector
	jmp	real_caught
	.set	vector, vector + 1
	.endr
real_caught:
	movw	%sp, %bp
	movw	(%bp), %ax
	movw	%ax, %fs:REAL_CAUGHT
	movw	2(%bp), %ax
	movw	%ax, %fs:(REAL_CAUGHT + 2)
	movw	%fs:REAL_SP, %ax
	subw	$8, %ax
	subw	%bp, %ax                /* anything but a frame of 6 bytes shows in the vector */
	addw	%ax, %fs:REAL_CAUGHT
	movw	%fs:REAL_SP, %sp
	jmp	*%fs:REAL_RECOVER

real_idtr:
	.word	0x3ff
	.long	0
real_idtr_elsewhere:
	.word	0x40 * 4 - 1
	.long	REAL_DATA + 0x400
real_end:

	.code32
real_return:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %fs
	movl	%eax, %gs
	movl	%eax, %ss
	movl	%ecx, %esp
	lidt	idtr
	popal
	ret

	.globl	real_enter
real_enter:
	pushal
	movl	%esp, %ecx
	lidt	real_idt_32
	movl	$0x38, %eax             /* 64 KiB limits and a 16-bit stack, as real mode wants to find them */
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %fs
	movl	%eax, %gs
	movl	%eax, %ss
	ljmp	$0x30, $0

real_idt_32:
	.word	0x3ff
	.long	0

	.section .note.GNU-stack, "", @progbits
