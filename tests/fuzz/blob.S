	.section .rodata
	.globl	fuzz_kernel, fuzz_kernel_end
fuzz_kernel:
	.incbin	KERNEL_BIN
fuzz_kernel_end:
	.section .note.GNU-stack, "", @progbits
