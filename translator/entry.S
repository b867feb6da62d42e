/* entry.S - the border between the VMM's C code and translated code.
 *
 * Registers while translated code runs (docs/design.md, "Registers"):
 *   rax rcx rdx rbx rbp rsi rdi   guest registers, zero-extended
 *   r12 guest esp    r13 user window    r14 indirect-branch table    r15 vcpu    rsp return stack
 *   r8-r11 scratch   RFLAGS: the guest's arithmetic flags and DF
 *
 * Nothing here is interruptible in a way that loses a kick: the parts that go back into translated code are
 * bracketed by bt_tail_start and bt_tail_end, first look at hot.kick, and only load. A kick signal that finds its PC
 * inside the bracket moves it back to the bracket's start (vmm/bt_signal.c).
 */
#include "asm_offsets.h"
#include "translator/border.h"
#include "translator/exit_reason.h"

	.text

/* The VMM's own floating-point environment: nothing masked out may strike libc. */
.macro VMM_FPU
	fninit
	ldmxcsr	vmm_mxcsr(%rip)
.endm

/* int bt_enter(struct vcpu *c): runs translated code from hot.resume on; returns an exit reason. */
	.globl	bt_enter
	.type	bt_enter, @function
bt_enter:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	subq	$8, %rsp
	movq	%rdi, %r15
	movq	%rsp, V_C_SP(%r15)
	fxrstor	V_FPU(%r15)

	.globl	bt_tail_start
bt_tail_start:
	cld
	cmpl	$0, V_KICK(%r15)
	jne	bt_tail_kicked
	movq	V_USER_BASE(%r15), %r13
	movq	V_TABLE(%r15), %r14
	movq	V_RET_SP(%r15), %rsp
	LOAD_GUEST
	movl	V_RESUME_ESP(%r15), %r8d
	leal	(%r12,%r8), %r12d
	jmpq	*V_RESUME(%r15)
	.globl	bt_tail_end
bt_tail_end:

bt_tail_kicked:				/* EIP is already right */
	movq	V_C_SP(%r15), %rsp
	movl	$BT_EXIT_KICK, %eax
	jmp	bt_out

/* Out of translated code for good: saved state is complete; eax is the reason. rsp is c_sp. */
	.globl	bt_out
bt_out:	fxsave	V_FPU(%r15)
	VMM_FPU
bt_out_done:
	addq	$8, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

/* The quick way out and back in: hot.on_exit(c, how) finds the next block without leaving this side of the border,
 * the guest's FPU state untouched, and sets hot.resume; or returns a reason for the run loop. esi: see
 * bt_on_exit (vmm/bt.c). */
bt_quick:
	movq	%rsp, V_RET_SP(%r15)
	movq	V_C_SP(%r15), %rsp
	movq	%r15, %rdi
	call	*V_ON_EXIT(%r15)
	testl	%eax, %eax
	jz	bt_tail_start
	jmp	bt_out

/* A direct exit's stub: the address behind it is on the stack. bt_on_exit knows EIP. */
	.globl	bt_go_exit
bt_go_exit:
	popq	%r9
	movl	%r9d, V_EXIT_ARG(%r15)
	SAVE_GUEST
	movl	$BT_EXIT_DIRECT, %esi
	jmp	bt_quick

/* A table slot's miss, or a block that was dropped: r8d target. */
	.globl	bt_go_miss
bt_go_miss:
	movl	%r8d, V_EIP(%r15)
	SAVE_GUEST
	movl	$BT_EXIT_MISS, %esi
	jmp	bt_quick

/* The signal handler has stored the guest's state and points rip here, r15 at the vcpu, rsp at c_sp. */
	.globl	bt_go_fault
bt_go_fault:
	movl	$BT_EXIT_FAULT, %eax
	jmp	bt_out

/* A callout, called from translated code: r8d EIP of the instruction, r9d argument, r10d which.
 * The C function returns BT_GO_ON (to the code after the call), BT_GO_JUMP (to c->eip in the current space) or
 * BT_GO_OUT (to the run loop). */
.macro CALLOUT_BEGIN
	popq	V_CALLOUT_RET(%r15)
	movl	%r8d, V_EIP(%r15)
	movq	%rsp, V_RET_SP(%r15)
	SAVE_GUEST
	movq	V_C_SP(%r15), %rsp
.endm

.macro CALLOUT_CALL
	movq	%r15, %rdi
	movl	%r9d, %esi
	call	*V_CALLOUTS(%r15,%r10,8)
.endm

/* The way on, where the guest's FPU state is in the unit. */
.macro CALLOUT_END
	testl	%eax, %eax
	jz	bt_tail_on_start
	cmpl	$BT_GO_JUMP, %eax
	je	bt_tail_jump_start
	movl	$BT_EXIT_CALLOUT, %eax
	jmp	bt_out
.endm

	.globl	bt_go_callout
bt_go_callout:
	CALLOUT_BEGIN
	fxsave	V_FPU(%r15)
	VMM_FPU
	CALLOUT_CALL
	cmpl	$BT_GO_OUT, %eax
	je	bt_callout_out
	fxrstor	V_FPU(%r15)
	testl	%eax, %eax
	jz	bt_tail_on_start
	jmp	bt_tail_jump_start
bt_callout_out:				/* the state in c->fpu is the truth now: nothing to save */
	movl	$BT_EXIT_CALLOUT, %eax
	jmp	bt_out_done

/* The same for callouts that neither touch the FPU nor reach libc. */
	.globl	bt_go_callout_light
bt_go_callout_light:
	CALLOUT_BEGIN
	CALLOUT_CALL
	CALLOUT_END

/* The same for an instruction that ends its block: jumped to, so that host calls and returns stay in pairs. */
	.globl	bt_go_callout_end
bt_go_callout_end:
	movl	%r8d, V_EIP(%r15)
	movq	%rsp, V_RET_SP(%r15)
	SAVE_GUEST
	movq	V_C_SP(%r15), %rsp
	CALLOUT_CALL
	cmpl	$BT_GO_OUT, %eax
	jne	bt_tail_jump_start
	movl	$BT_EXIT_CALLOUT, %eax
	jmp	bt_out

/* The same for callouts that reach devices and with them libc, which may use the SSE registers but does no
 * floating-point arithmetic: those are kept aside, the rest of the state stays in the unit. */
	.globl	bt_go_callout_device
bt_go_callout_device:
	CALLOUT_BEGIN
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7
	movaps	%xmm\n, V_XMM+16*\n(%r15)
	.endr
	CALLOUT_CALL
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7
	movaps	V_XMM+16*\n(%r15), %xmm\n
	.endr
	CALLOUT_END

/* Go on after the callout. The return address still stands below RET_SP: push nothing, ret. */
	.globl	bt_tail_on_start
bt_tail_on_start:
	cld
	cmpl	$0, V_KICK(%r15)
	jne	bt_tail_kicked
	movq	V_RET_SP(%r15), %rsp
	movq	V_TABLE(%r15), %r14
	movq	V_USER_BASE(%r15), %r13
	subq	$8, %rsp
	movq	V_CALLOUT_RET(%r15), %rax
	movq	%rax, (%rsp)
	LOAD_GUEST
	ret
	.globl	bt_tail_on_end
bt_tail_on_end:

	.globl	bt_tail_jump_start
bt_tail_jump_start:
	cld
	cmpl	$0, V_KICK(%r15)
	jne	bt_tail_kicked
	movq	V_USER_BASE(%r15), %r13
	movq	V_TABLE(%r15), %r14
	movq	V_RET_SP(%r15), %rsp
	movl	V_EIP(%r15), %r8d
	movl	(%r14,%r8,4), %r9d
	LOAD_GUEST
	jmpq	*%r9
	.globl	bt_tail_jump_end
bt_tail_jump_end:

	.section .rodata
	.balign 4
vmm_mxcsr:
	.long	0x1f80
	.section .note.GNU-stack,"",@progbits
