/* case.h - one input of the fuzzer: a CPU state and the contents of guest memory.
 *
 * A case is complete: running it needs neither the generator nor anything else. Its file is text, one fact a
 * line, so that a reproducer can be read and edited:
 *
 *     # what it shows
 *     gpr 4 00028000
 *     cr0 80010011
 *     seg 1 0008 c09b 00000000 ffffffff
 *     mem 00010000 0fa9cd30f4
 *
 * What is not named is as after reset, but EIP, which is 0, and memory, which is zero. RAM ends at
 * CASE_RAM; the PC's video hole is in the middle.
 */
#ifndef BT86_TESTS_FUZZ_CASE_H
#define BT86_TESTS_FUZZ_CASE_H

#include "cpu/cpu.h"

#define CASE_RAM 0xd0000u

struct fuzz_case {
	struct vcpu cpu; /* the architectural fields */
	uint8_t ram[CASE_RAM];
};

/* All as after reset. */
void case_init(struct fuzz_case *k);
/* 0, or -1 with one line on stderr. comment: lines to put in front, without "# "; may be NULL. */
int case_read(struct fuzz_case *k, const char *path);
int case_write(const struct fuzz_case *k, const char *path, const char *comment);
/* Copies the architectural fields of a case's CPU, and nothing else. */
void case_copy_cpu(struct vcpu *to, const struct vcpu *from);
/* One line of what is different, "" if nothing is. FPU pointers of the last instruction are not compared. */
void case_compare_cpu(const struct vcpu *a, const struct vcpu *b, char *out, size_t len);

#endif
