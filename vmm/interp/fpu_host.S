/* fpu_host.S - the crossing between the VMM's x87/SSE state and the guest's. See hostunit.h. */
#include "vmm/interp/hostunit.h"

	.text

/* void hostunit_run(struct hostunit_frame *f, const void *code)
 *
 * Saves the host's state on the stack, loads the guest's from f, calls the stub with
 *	rsi rdi	f->mem (rdi for maskmovq and maskmovdqu, whose operand is implicit)
 *	eax ecx edx, EFLAGS	from f
 * and stores back what it may have changed. The FXRSTORs and FXSAVEs are all non-waiting, so that a pending x87
 * exception of the guest travels through the image and never reaches the host. The upper halves of the
 * YMM registers are not touched by legacy SSE instructions nor by FXRSTOR.
 */
	.globl	hostunit_run
	.type	hostunit_run, @function
	.p2align 4
hostunit_run:
	pushq	%rbp
	movq	%rsp, %rbp
	andq	$-64, %rsp
	subq	$512, %rsp
	fxsave64 (%rsp)
	fxrstor64 HOSTUNIT_IMAGE(%rdi)
	movq	%rdi, %r9
	movq	%rsi, %r8
	leaq	HOSTUNIT_MEM(%rdi), %rsi
	movq	%rsi, %rdi
	movl	HOSTUNIT_EAX(%r9), %eax
	movl	HOSTUNIT_ECX(%r9), %ecx
	movl	HOSTUNIT_EDX(%r9), %edx
	pushq	HOSTUNIT_FLAGS(%r9)
	popfq
	call	*%r8
	pushfq
	popq	HOSTUNIT_FLAGS(%r9)
	cld
	movl	%ecx, HOSTUNIT_ECX(%r9)
	fxsave64 HOSTUNIT_IMAGE(%r9)
	fxrstor64 (%rsp)
	leave
	ret
	.size	hostunit_run, . - hostunit_run

/* Stubs of fixed instructions. */
	.globl	hostunit_mulps, hostunit_mulpd, hostunit_haddps, hostunit_haddpd
hostunit_mulps:
	mulps	%xmm1, %xmm0
	ret
hostunit_mulpd:
	mulpd	%xmm1, %xmm0
	ret
hostunit_haddps:
	haddps	%xmm0, %xmm0
	ret
hostunit_haddpd:
	haddpd	%xmm0, %xmm0
	ret

/* bool hostunit_inexact(const void *a, const void *b, unsigned what, unsigned size, unsigned fcw) */
	.globl	hostunit_inexact
	.type	hostunit_inexact, @function
hostunit_inexact:
	pushq	%rbp
	movq	%rsp, %rbp
	andq	$-64, %rsp
	subq	$576, %rsp
	fxsave64 (%rsp)
	movw	%r8w, 512(%rsp)
	fninit
	fldcw	512(%rsp)
	cmpl	$4, %ecx
	jne	1f
	flds	(%rdi)
	flds	(%rsi)
	jmp	2f
1:	fldl	(%rdi)
	fldl	(%rsi)
2:	cmpl	$2, %edx
	ja	6f
	je	5f
	testl	%edx, %edx
	jnz	4f
	faddp
	jmp	7f
4:	fsubp
	jmp	7f
5:	fmulp
	jmp	7f
6:	.byte	0xde, 0xf9	/* st(1) = st(1) / st: a / b (assemblers disagree on its name) */
7:	fnstsw	%ax
	fxrstor64 (%rsp)
	shrl	$5, %eax
	andl	$1, %eax
	leave
	ret
	.size	hostunit_inexact, . - hostunit_inexact

/* void hostunit_serialize(void): executed after code has been written through the arena's other mapping, as
 * SDM vol. 3A 9.1.3 asks of cross-modifying code. */
	.globl	hostunit_serialize
	.type	hostunit_serialize, @function
hostunit_serialize:
	pushq	%rbx
	xorl	%eax, %eax
	xorl	%ecx, %ecx
	cpuid
	popq	%rbx
	ret
	.size	hostunit_serialize, . - hostunit_serialize

/* void hostunit_probe(const void *image, void *fxsaved, void *env): loads image, which has patterns in the
 * instruction and operand pointers and nothing pending; stores it back at once to fxsaved (512 bytes); executes fld1
 * and stores the environment that results to env (28 bytes). */
	.globl	hostunit_probe
	.type	hostunit_probe, @function
hostunit_probe:
	pushq	%rbp
	movq	%rsp, %rbp
	andq	$-64, %rsp
	subq	$512, %rsp
	fxsave64 (%rsp)
	fxrstor	(%rdi)
	fxsave	(%rsi)
	fld1
	fnstenv	(%rdx)
	fxrstor64 (%rsp)
	leave
	ret
	.size	hostunit_probe, . - hostunit_probe

	.section .note.GNU-stack, "", @progbits
