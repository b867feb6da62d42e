/* entry_fast.S - segment loads, SYSENTER and SYSEXIT without a C call, for what kernels do all the time.
 *
 * Each begins like a callout. It looks whether the case is a common one, keeping the guest's flags in r11d and
 * eax, ecx and edx in the vcpu; if it is not, everything is put back and a callout follows (vmm/bt_fast.c).
 * Then it changes the guest's state, and then nothing can go wrong any more. The last part looks at hot.kick and
 * only loads, as the tails of entry.S do and for the same reason: a kick signal that finds its PC there moves it
 * to the start of that part.
 *
 * Descriptors: what loading a selector gives is remembered in hot.segs_known (vmm/bt_fast.c fills it), together with
 * the eight bytes that it came from. They are compared with the guest's memory, as the interpreter would read
 * it (through the software TLB), at every load. So it makes no difference how a descriptor or its table came to
 * change.
 */
#include "asm_offsets.h"
#include "translator/border.h"
#include "translator/exit_reason.h"

	.text

.macro BEGIN
	movl	%eax, V_EAX(%r15)
	TAKE_FLAGS
	movl	%ecx, V_ECX(%r15)
	movl	%edx, V_EDX(%r15)
.endm

/* Guest registers and flags as they were at BEGIN, or as changed in the vcpu since. */
.macro PUT_BACK
	GIVE_FLAGS
	movl	V_EAX(%r15), %eax
	movl	V_ECX(%r15), %ecx
	movl	V_EDX(%r15), %edx
.endm

/* A load of a segment register, called from translated code: r8d EIP, r9d CO_ARG_*, r10d the selector. */
	.globl	bt_go_seg_load
bt_go_seg_load:
	movl	%r10d, V_SELECTOR(%r15)
	BEGIN
	movl	%eax, %r11d
	testl	$0xfffc, %r10d
	jz	seg_null

	movl	%r10d, %ecx
	andl	$0xf8, %ecx
	leaq	V_SEGS_KNOWN(%r15,%rcx,4), %rcx
	movl	%r9d, %eax
	andl	$ARG_KEY, %eax
	orl	%r10d, %eax
	cmpl	%eax, SK_KEY(%rcx)
	jne	seg_slow

	/* Only selectors of the GDT are known, so that TI is clear. */
	movzwl	V_GDT_LIMIT(%r15), %edx
	orl	$7, %r10d
	cmpl	%edx, %r10d
	ja	seg_slow
	movl	V_GDT_BASE(%r15), %eax
	leal	-7(%rax,%r10), %eax
	movl	%eax, %edx
	shrl	$12, %edx
	andl	$TLB_INDEX_MASK, %edx
	leal	(%rdx,%rdx,2), %edx
	shll	$3, %edx
	addq	V_MEM(%r15), %rdx	/* struct mem begins with the entries of supervisor accesses */
	movl	%eax, %r10d
	andl	$0xfffff000, %r10d
	orl	$1, %r10d
	cmpl	%r10d, TLB_RTAG(%rdx)
	jne	seg_slow
	movl	%eax, %r10d
	andl	$0xfff, %r10d
	cmpl	$0xff8, %r10d
	ja	seg_slow
	addq	TLB_ADD(%rdx), %rax
	movq	(%rax), %rax
	cmpq	%rax, SK_RAW(%rcx)
	jne	seg_slow

	movl	%r9d, %edx
	shrl	$ARG_SEG_SHIFT, %edx
	andl	$7, %edx
	leal	(%rdx,%rdx,2), %eax
	movl	SK_SEG(%rcx), %r10d
	movl	%r10d, V_SEG(%r15,%rax,4)
	movq	SK_SEG+4(%rcx), %r10
	movq	%r10, V_SEG+4(%r15,%rax,4)
	testl	$ARG_FLAT, %r9d
	jnz	seg_loaded		/* base and poison are 0 as before */
	movl	%r10d, %eax
	movq	%rax, V_SEG_BASE(%r15,%rdx,8)
	movq	SK_POISON(%rcx), %rax
	movq	%rax, V_SEG_POISON(%r15,%rdx,8)
seg_loaded:
	movl	%r9d, %eax
	shrl	$ARG_POP_SHIFT, %eax
	andl	$15, %eax
	addl	%eax, %r12d

	.globl	bt_tail_seg_start
bt_tail_seg_start:
	cmpl	$0, V_KICK(%r15)
	jne	seg_kicked
	PUT_BACK
	ret
	.globl	bt_tail_seg_end
bt_tail_seg_end:

/* A null selector, in a register that need not be flat. */
seg_null:
	testl	$ARG_FLAT, %r9d
	jnz	seg_slow
	movl	%r9d, %edx
	shrl	$ARG_SEG_SHIFT, %edx
	andl	$7, %edx
	leal	(%rdx,%rdx,2), %eax
	movl	%r10d, V_SEG(%r15,%rax,4)
	movq	$0, V_SEG+4(%r15,%rax,4)
	movq	$0, V_SEG_BASE(%r15,%rdx,8)
	movl	$1, %eax
	shlq	$32, %rax
	movq	%rax, V_SEG_POISON(%r15,%rdx,8)
	jmp	seg_loaded

seg_slow:
	PUT_BACK
	movl	$CALLOUT_SEG_LOAD, %r10d
	jmp	bt_go_callout_light

/* Out of the middle of the block. Behind a load of SS no interrupt is taken: the run loop interprets the next instruction. */
seg_kicked:
	movl	%r9d, %eax
	andl	$7 << ARG_SEG_SHIFT, %eax
	cmpl	$SEG_NUMBER_SS << ARG_SEG_SHIFT, %eax
	jne	1f
	movl	$1, V_SHADOW(%r15)
1:	movzbl	%r9b, %eax		/* the instruction's length */
	addl	%eax, %r8d
	movl	%r8d, V_EIP(%r15)
	PUT_BACK
	leaq	8(%rsp), %rsp
	movl	$BT_EXIT_MIDWAY, %r9d
	jmp	go_out

/* The guest's state is in the registers, r9d says why translated code is left. */
go_out:	movq	%rsp, V_RET_SP(%r15)
	SAVE_GUEST
	movq	V_C_SP(%r15), %rsp
	movl	%r9d, %eax
	jmp	bt_out

/* Space recent, if it is the one for the window that view names and the mode in r10d: becomes the current one. Else to slow.
 * Clobbers rax, rcx, rdx. */
.macro SPACE_FIND recent, window, slow
	movq	\recent(%r15), %rdx
	testq	%rdx, %rdx
	jz	\slow
	movq	V_VIEW(%r15), %rax
	movl	\window(%rax), %eax
	cmpl	%eax, SP_WINDOW(%rdx)
	jne	\slow
	cmpl	%r10d, SP_MODE(%rdx)
	jne	\slow
	cmpb	$0, SP_USED(%rdx)
	je	\slow
	cmpl	$0, V_REQUEST(%r15)
	jne	\slow
.endm

.macro SPACE_ENTER base
	movq	%rdx, V_CUR(%r15)
	movq	SP_TABLE(%rdx), %rax
	movq	%rax, V_TABLE(%r15)
	movq	%rsp, V_RET_SP(%r15)
	movq	\base(%r15), %rax
	movq	%rax, V_GS_BASE(%r15)
	wrgsbase %rax
.endm

/* CS and SS flat, with selectors relative to ecx = SYSENTER_CS (no carry into the upper half), at a privilege level. */
.macro FLAT_SEGMENTS cs, ss, rights
	leal	\cs+((ATTR_CODE+\rights)<<16)(%rcx), %eax
	movl	%eax, V_SEG_CS(%r15)
	leal	\ss+((ATTR_DATA+\rights)<<16)(%rcx), %eax
	movl	%eax, V_SEG_SS(%r15)
	movabsq	$0xffffffff00000000, %rax	/* base, limit */
	movq	%rax, V_SEG_CS+4(%r15)
	movq	%rax, V_SEG_SS+4(%r15)
.endm

/* SYSENTER_CS to ecx, if its selectors can be made of it. */
.macro SYSENTER_SELECTOR slow
	movl	V_SYSENTER_CS(%r15), %ecx
	andl	$0xfffc, %ecx
	jz	\slow
	cmpl	$0xffe0, %ecx
	ja	\slow
.endm

/* SYSENTER, jumped to: r8d EIP, r9d the callout's argument, r10d the mode of the code that it leads to. SS is flat. */
	.globl	bt_go_sysenter
bt_go_sysenter:
	BEGIN
	movl	%eax, %r11d
	SYSENTER_SELECTOR sysenter_slow
	SPACE_FIND V_RECENT_SUPER, MV_SUPER_ID, sysenter_slow
	SPACE_ENTER V_SUPER_BASE
	FLAT_SEGMENTS 0, 8, 0
	movl	$0, V_CPL(%r15)
	movl	$0, V_IFLAG(%r15)
	movl	V_SYSENTER_ESP(%r15), %r12d
	movl	V_SYSENTER_EIP(%r15), %eax
	movl	%eax, V_EIP(%r15)

	.globl	bt_tail_switch_start
bt_tail_switch_start:
	cmpl	$0, V_KICK(%r15)
	jne	switch_kicked
	movq	V_TABLE(%r15), %r14
	movq	V_RET_SP(%r15), %rsp
	movl	V_EIP(%r15), %r8d
	movl	(%r14,%r8,4), %r9d
	PUT_BACK
	jmp	*%r9
	.globl	bt_tail_switch_end
bt_tail_switch_end:

switch_kicked:
	movq	V_RET_SP(%r15), %rsp
	PUT_BACK
	movl	$BT_EXIT_KICK, %r9d
	jmp	go_out

/* SYSEXIT, likewise, at CPL 0. */
	.globl	bt_go_sysexit
bt_go_sysexit:
	BEGIN
	movl	%eax, %r11d
	SYSENTER_SELECTOR sysexit_slow
	movq	V_VIEW(%r15), %rax
	cmpl	$0, MV_PENDING(%rax)
	jne	sysexit_slow
	testl	$SYSFLAGS_AC, V_SYSFLAGS(%r15)
	jnz	sysexit_slow
	SPACE_FIND V_RECENT_USER, MV_USER_ID, sysexit_slow
	SPACE_ENTER V_USER_BASE
	FLAT_SEGMENTS 16+3, 24+3, ATTR_USER
	movl	$3, V_CPL(%r15)
	movl	V_ECX(%r15), %r12d
	movl	V_EDX(%r15), %eax
	movl	%eax, V_EIP(%r15)
	jmp	bt_tail_switch_start

sysenter_slow:
	PUT_BACK
	.globl	bt_go_sysenter_slow
bt_go_sysenter_slow:
	movl	$CALLOUT_SYSENTER, %r10d
	jmp	bt_go_callout_end

sysexit_slow:
	PUT_BACK
	.globl	bt_go_sysexit_slow
bt_go_sysexit_slow:
	movl	$CALLOUT_SYSEXIT, %r10d
	jmp	bt_go_callout_end

	.section .note.GNU-stack,"",@progbits
