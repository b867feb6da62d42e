/* System calls: number in eax, arguments in ebx and ecx, result in eax; int 0x80 or sysenter (entry.S). */
#ifndef DEMO_SYSCALL_H
#define DEMO_SYSCALL_H

enum syscall {
	SYSCALL_NOTHING, /* returns how many calls there have been */
	SYSCALL_PRINT,	 /* (text, length) */
	SYSCALL_TICKS,	 /* timer interrupts since the start */
	SYSCALL_HAS,	 /* (enum has) */
	SYSCALL_PAGES,	 /* pages given on demand so far */
	SYSCALL_EXIT,	 /* (status) */
};

enum has { HAS_SYSENTER, HAS_TSC };

#endif
