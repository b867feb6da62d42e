/*
 * The way to user mode and back, handlers that do as little as a handler can, and the code that runs at CPL 3.
 * Handlers count `events`, which tells the benchmark that each of its operations really took place. Data segments are
 * flat at both levels and never reloaded, as in kernels that care.
 */
#include "layout.h"

#define LEAVE_VECTOR  0x31
#define SWITCH_VECTOR 0x32
#define SYSCALL_VECTOR 0x33
#define USER_STACK_TOP 0x10002000
#define USER_DATA_PAGES 0x10002000
#define USER_SPARE_PAGES 0x10100000
#define TOUCHED 8
#define SPARE 64
#define APIC_EOI 0xfee000b0

	.text
/* void run_user(uint32_t eip, uint32_t n): eip at CPL 3 with n in edi, until it does int LEAVE_VECTOR */
	.globl	run_user
run_user:
	pushal
	movl	%esp, kernel_esp
	movl	36(%esp), %eax
	movl	40(%esp), %edi
	pushl	$USER_DATA
	pushl	$USER_STACK_TOP
	pushl	$2
	pushl	$USER_CODE
	pushl	%eax
	movl	$USER_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	iretl

	.globl	leave_user
leave_user:
	movl	kernel_esp, %esp
	movl	$KERNEL_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	popal
	ret

	.globl	handle_count
handle_count:
	incl	events
	iretl

	.globl	handle_divide                   /* over a two-byte div */
handle_divide:
	addl	$2, (%esp)
	incl	events
	iretl

	.globl	handle_page_skip                /* over a two-byte load */
handle_page_skip:
	addl	$4, %esp
	addl	$2, (%esp)
	incl	events
	iretl

/* Demand paging: the entry that belongs there goes from fault_entries to the table at fault_table. */
	.globl	handle_page_map
handle_page_map:
	pushl	%eax
	pushl	%ecx
	pushl	%edx
	movl	%cr2, %eax
	shrl	$12, %eax
	andl	$1023, %eax
	movl	fault_entries(,%eax,4), %ecx
	movl	fault_table, %edx
	movl	%ecx, (%edx,%eax,4)
	incl	events
	popl	%edx
	popl	%ecx
	popl	%eax
	addl	$4, %esp
	iretl

/* To the next of the address spaces, and out when switch_left is used up. */
	.globl	handle_switch
handle_switch:
	pushl	%eax
	movl	switch_index, %eax
	incl	%eax
	andl	switch_mask, %eax
	movl	%eax, switch_index
	movl	space_cr3(,%eax,4), %eax
	movl	%eax, %cr3
	incl	events
	decl	switch_left
	jz	leave_user
	popl	%eax
	iretl

	.globl	handle_sysenter
handle_sysenter:
	incl	events
	sysexit

	.globl	handle_timer
handle_timer:
	pushl	%eax
	pushl	%edx
	rdtsc
	movl	%eax, timer_low
	movl	$0, APIC_EOI
	incl	events
	popl	%edx
	popl	%eax
	iretl

/* Copied to a page of its own at USER_BASE. */
	.balign	16
	.globl	user_code, user_code_end, user_int, user_sysenter, user_divide, user_page_skip, user_touch, user_switch
user_code:

user_int:
	int	$SYSCALL_VECTOR
	decl	%edi
	jnz	user_int
	int	$LEAVE_VECTOR

user_sysenter:
	call	1f
1:	popl	%ebx
	addl	$3f - 1b, %ebx
	movl	%esp, %ebp
2:	movl	%ebx, %edx
	movl	%ebp, %ecx
	sysenter
3:	decl	%edi
	jnz	2b
	int	$LEAVE_VECTOR

user_divide:
	xorl	%ecx, %ecx
1:	divl	%ecx
	decl	%edi
	jnz	1b
	int	$LEAVE_VECTOR

user_page_skip:
	movl	$USER_SPARE_PAGES, %esi
1:	movl	(%esi), %eax
	decl	%edi
	jnz	1b
	int	$LEAVE_VECTOR

/* A store to each of SPARE pages, once. */
user_touch:
	movl	$USER_SPARE_PAGES, %esi
1:	incl	(%esi)
	addl	$4096, %esi
	cmpl	$USER_SPARE_PAGES + SPARE * 4096, %esi
	jne	1b
	int	$LEAVE_VECTOR

/* A store to each of TOUCHED pages between two switches. */
user_switch:
	movl	$USER_DATA_PAGES, %esi
	.set	i, 0
	.rept	TOUCHED
	incl	i(%esi)
	.set	i, i + 4096
	.endr
	int	$SWITCH_VECTOR
	jmp	user_switch
user_code_end:

	.bss
	.balign	64
	.globl	events, switch_mask, switch_left, switch_index, fault_table, fault_entries, timer_low
events:		.skip	4
timer_low:	.skip	4
switch_mask:	.skip	4
switch_left:	.skip	4
switch_index:	.skip	4
fault_table:	.skip	4
kernel_esp:	.skip	4
	.balign	64
fault_entries:	.skip	4096

	.section .note.GNU-stack, "", @progbits
