/*
 * From the Multiboot loader to C: map the first 8 MiB at 0 (until we have jumped away from there) and at
 * 3 GiB, turn on paging, go up. 4 KiB pages, so that a 486 can run this too.
 */
#define KERNEL_BASE   0xc0000000
#define PHYS(symbol)  ((symbol) - KERNEL_BASE)
#define PTE_P_W       0x003
#define CR0_WP_PG     0x80010000
#define LOW_TABLES    2

	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002                /* Multiboot 1 header: magic, flags (want a memory map), checksum */
	.long 0x00000002
	.long -(0x1badb002 + 0x00000002)

	.section .boot, "ax"
	.globl _start
_start:
	cli
	cld
	movl	%eax, %ebp              /* loader's magic and information block, kept for kernel_main */
	movl	%ebx, %esi

	movl	$PHYS(low_tables), %edi
	movl	$PTE_P_W, %eax
	movl	$(LOW_TABLES * 1024), %ecx
1:	movl	%eax, (%edi)
	addl	$4, %edi
	addl	$0x1000, %eax
	decl	%ecx
	jnz	1b

	movl	$PHYS(page_directory), %edi
	movl	$(PHYS(low_tables) + PTE_P_W), %eax
	movl	%eax, (%edi)
	movl	%eax, (KERNEL_BASE >> 20)(%edi)
	addl	$0x1000, %eax
	movl	%eax, 4(%edi)
	movl	%eax, (KERNEL_BASE >> 20) + 4(%edi)

	movl	%edi, %cr3
	movl	%cr0, %eax
	orl	$CR0_WP_PG, %eax
	movl	%eax, %cr0
	movl	$high, %eax
	jmp	*%eax

	.text
high:	movl	$0, page_directory      /* nothing of ours is left at the bottom */
	movl	$0, page_directory + 4
	movl	%cr3, %eax
	movl	%eax, %cr3

	movl	$boot_stack_top, %esp
	pushl	%esi
	pushl	%ebp
	xorl	%ebp, %ebp
	call	kernel_main
1:	cli
	hlt
	jmp	1b

	.bss
	.balign 4096
	.globl page_directory
page_directory:
	.skip	4096
low_tables:
	.skip	4096 * LOW_TABLES
	.skip	16384
boot_stack_top:

	.section .note.GNU-stack, "", @progbits
