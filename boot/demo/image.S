/* The linked demo kernel as data in bt86. BT86_DEMO_ELF is its path, from CMakeLists.txt. */
	.section .rodata.bt86_demo_image, "a"
	.balign	4096
	.globl	bt86_demo_image_start
	.type	bt86_demo_image_start, @object
bt86_demo_image_start:
	.incbin	BT86_DEMO_ELF
	.globl	bt86_demo_image_end
	.type	bt86_demo_image_end, @object
bt86_demo_image_end:

	.section .note.GNU-stack, "", @progbits
