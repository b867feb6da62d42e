/* border.h - guest registers between the host's and the vcpu: macros that entry.S and entry_fast.S share. */

/* Guest general registers and flags to the vcpu. Clobbers rax, rcx. Leaves DF clear. */
.macro SAVE_GUEST
	movl	%eax, V_EAX(%r15)
	movl	%ecx, V_ECX(%r15)
	movl	%edx, V_EDX(%r15)
	movl	%ebx, V_EBX(%r15)
	movl	%r12d, V_ESP(%r15)
	movl	%ebp, V_EBP(%r15)
	movl	%esi, V_ESI(%r15)
	movl	%edi, V_EDI(%r15)
	lahf
	seto	%al
	movzbl	%ah, %ecx
	movzbl	%al, %eax
	shll	$11, %eax
	orl	%ecx, %eax
	andl	$0x8d5, %eax
	movl	%eax, V_FLAGS(%r15)
	cld
.endm

/* The reverse, ending with DF. Every register is loaded; nothing is stored. */
.macro LOAD_GUEST
	movl	V_FLAGS(%r15), %eax
	movl	%eax, %ecx
	shrl	$11, %ecx
	andl	$1, %ecx
	addb	$0x7f, %cl		/* OF */
	movb	%al, %ah
	sahf				/* SF ZF AF PF CF */
	movl	V_DF(%r15), %ecx
	jrcxz	1f
	std
1:	movl	V_EAX(%r15), %eax
	movl	V_ECX(%r15), %ecx
	movl	V_EDX(%r15), %edx
	movl	V_EBX(%r15), %ebx
	movl	V_ESP(%r15), %r12d
	movl	V_EBP(%r15), %ebp
	movl	V_ESI(%r15), %esi
	movl	V_EDI(%r15), %edi
.endm

/* The arithmetic flags to the low half of eax, and back from r11d; the latter clobbers eax. */
.macro TAKE_FLAGS
	lahf
	seto	%al
.endm

.macro GIVE_FLAGS
	movl	%r11d, %eax
	addb	$0x7f, %al		/* OF */
	sahf				/* SF ZF AF PF CF */
.endm
