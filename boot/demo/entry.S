/*
 * Ways into the kernel: interrupts and exceptions (one stub a vector, struct trap_frame on the stack),
 * sysenter; and the ways between the kernel and the user task.
 */
#define KERNEL_DATA 0x10
#define USER_CODE   0x1b
#define USER_DATA   0x23
#define EFLAGS_IF   0x200

	.text

/* Vectors 8, 10-14 and 17 push an error code (SDM vol. 3A 6.13); the others get a zero in its place. */
	.macro	trap_stub vector
trap_stub_\vector:
	.if	(\vector != 8) && (\vector < 10 || \vector > 14) && (\vector != 17)
	pushl	$0
	.endif
	pushl	$\vector
	jmp	trap_common
	.endm

	.altmacro
	.macro	trap_stub_number n
	trap_stub %n
	.endm
	.set	i, 0
	.rept	48
	trap_stub_number %i
	.set	i, i + 1
	.endr
	trap_stub 128

	.globl	trap_stubs
	.section .rodata
	.macro	trap_stub_address n
	.long	trap_stub_\n
	.endm
trap_stubs:
	.set	i, 0
	.rept	48
	trap_stub_address %i
	.set	i, i + 1
	.endr
	.globl	trap_stub_syscall
trap_stub_syscall:
	.long	trap_stub_128
	.noaltmacro

	.text
trap_common:
	pushl	%ds
	pushl	%es
	pushal
	movl	$KERNEL_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	cld
	pushl	%esp
	call	trap_handle
	addl	$4, %esp
	popal
	popl	%es
	popl	%ds
	addl	$8, %esp
	iret

/*
 * sysenter: the user side leaves its return address in esi and its stack in ebp; eax is the call,
 * ebx and ecx its arguments, eax the result. sysexit wants the return address in edx, the stack in ecx.
 */
	.globl	sysenter_entry
sysenter_entry:
	pushl	%esi
	pushl	%ebp
	cld
	pushl	%ecx
	pushl	%ebx
	pushl	%eax
	call	syscall_handle
	addl	$12, %esp
	popl	%ebp
	popl	%esi
	movl	%esi, %edx
	movl	%ebp, %ecx
	sti                             /* takes effect after the next instruction: no interrupt comes in between */
	sysexit

/* int user_run(void *eip, void *esp): run the user task until it calls user_leave. */
	.globl	user_run
user_run:
	pushl	%ebx
	pushl	%esi
	pushl	%edi
	pushl	%ebp
	movl	20(%esp), %eax
	movl	24(%esp), %ecx
	movl	%esp, kernel_esp
	movl	$USER_DATA, %edx
	movl	%edx, %ds
	movl	%edx, %es
	pushl	%edx
	pushl	%ecx
	pushl	$(EFLAGS_IF | 2)
	pushl	$USER_CODE
	pushl	%eax
	iret

/* void user_leave(int status): give up the user task's kernel stack; user_run returns status. */
	.globl	user_leave
user_leave:
	movl	4(%esp), %eax
	movl	kernel_esp, %esp
	movl	$KERNEL_DATA, %edx
	movl	%edx, %ds
	movl	%edx, %es
	popl	%ebp
	popl	%edi
	popl	%esi
	popl	%ebx
	sti
	ret

/* void segments_load(const void *gdt_register, unsigned tss_selector) */
	.globl	segments_load
segments_load:
	movl	4(%esp), %eax
	lgdt	(%eax)
	movl	$KERNEL_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	ljmp	$0x08, $1f
1:	movl	8(%esp), %eax
	ltr	%ax
	ret

	.bss
	.balign	4
kernel_esp:
	.skip	4

	.section .note.GNU-stack, "", @progbits
