/* oracle-entry.S - the oracle's way into a case and out of it. See oracle.c. */
#include "layout.h"

	.text
	.globl	_start
_start:
	movl	%esp, %eax
	movl	$stack_top, %esp
	pushl	%eax
	call	oracle_main

/* The signal handler: (number, info, context). The case's AC, NT and ID may still be set. */
	.globl	on_signal
on_signal:
	pushl	$2
	popfl
	movl	12(%esp), %eax
	pushl	%eax
	call	oracle_signal

	.globl	restorer
restorer:
	ud2

/*
 * void enter(const struct silicon_case *c): all through CS, since DS and SS are the case's before long. What C knows
 * of c by address is the copy `now`.
 */
	.globl	enter
enter:
	fxrstor	now
	pushl	now + CASE_EFLAGS
	popfl
	movw	now + CASE_SEL + 20, %gs
	movw	now + CASE_SEL + 16, %fs
	movw	now + CASE_SEL + 0, %es
	lss	entry_stack, %esp
	movw	now + CASE_SEL + 12, %ds
	movl	%cs:now + CASE_GPR + 0, %eax
	movl	%cs:now + CASE_GPR + 4, %ecx
	movl	%cs:now + CASE_GPR + 8, %edx
	movl	%cs:now + CASE_GPR + 12, %ebx
	movl	%cs:now + CASE_GPR + 20, %ebp
	movl	%cs:now + CASE_GPR + 24, %esi
	movl	%cs:now + CASE_GPR + 28, %edi
	jmp	*%cs:now + CASE_EIP

	.bss
	.balign	64
	.globl	now, entry_stack
now:	.skip	CASE_SIZE
entry_stack:
	.skip	8
	.balign	16
	.skip	16384
stack_top:

	.section .note.GNU-stack, "", @progbits
