/*
 * A boot sector for machines that load no Multiboot kernel themselves (Bochs): sector 1 of the floppy holds the command
 * line, the sectors behind it the guest's image, which goes to 1 MiB. bench/lib/bochs.py puts the disk together and
 * fills in the two words at the end.
 */
#define LOAD   0x10000 /* where the sectors go first */
#define KERNEL 0x100000
#define BSS    0x300000 /* bytes to clear behind the image, and more */
#define INFO   0x5000	/* Multiboot information */

	.code16
	.text
	.globl	_start
_start:
	ljmp	$0, $1f
1:	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$0x7c00, %sp
	movb	%dl, drive
	inb	$0x92, %al
	orb	$2, %al                         /* A20 */
	outb	%al, $0x92
	movw	$1, %si                         /* sector, counted from 0 */
2:	movw	%si, %ax                        /* 2 heads of 18 sectors, numbered from 1 */
	xorw	%dx, %dx
	movw	$18, %bx
	divw	%bx
	movb	%dl, %cl
	incb	%cl
	movb	%al, %dh
	andb	$1, %dh
	shrw	%ax
	movb	%al, %ch
	movb	drive, %dl
	movw	%si, %ax
	decw	%ax
	shlw	$5, %ax
	addw	$LOAD >> 4, %ax
	movw	%ax, %es
	xorw	%bx, %bx
	movw	$0x0201, %ax                    /* read one */
	int	$0x13
	jc	2b
	incw	%si
	cmpw	sectors, %si
	jbe	2b

	cli
	lgdt	gdtr
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmp	$8, $3f
	.code32
3:	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	cld
	movl	$LOAD + 512, %esi
	movl	$KERNEL, %edi
	movzwl	sectors, %ecx
	shll	$7, %ecx
	rep movsl
	xorl	%eax, %eax
	movl	$BSS / 4, %ecx
	rep stosl
	movl	$INFO, %ebx
	movl	$5, (%ebx)                      /* memory sizes and command line are there */
	movl	$640, 4(%ebx)
	movl	$60 * 1024, 8(%ebx)
	movl	$LOAD, 16(%ebx)
	movl	$0x2badb002, %eax
	jmp	*entry

	.balign	8
gdt:	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:	.word	23
	.long	gdt
drive:	.byte	0

	.org	504
entry:	.long	0
sectors:.word	0
	.word	0xaa55
