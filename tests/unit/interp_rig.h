/* interp_rig.h - a vcpu with memory of its own and nothing around it, for the tests of the interpreter. */
#ifndef BT86_TESTS_INTERP_RIG_H
#define BT86_TESTS_INTERP_RIG_H

#include "vmm/vmm.h"

#define RIG_RAM 0x1000000u

/* Guest-physical layout; linear addresses are the same. */
#define RIG_IDT	   0x0000u /* real mode: the vectors */
#define RIG_GDT	   0x1000u
#define RIG_LDT	   0x1800u
#define RIG_TSS	   0x2000u
#define RIG_TSS2   0x2800u
#define RIG_PD	   0x3000u
#define RIG_PT	   0x4000u /* maps the first 4 MiB */
#define RIG_STUBS  0x6000u /* handler of vector n: a hlt at RIG_STUBS + n */
#define RIG_STACK  0x9000u /* grows down from here */
#define RIG_STACK0 0xa000u
#define RIG_CODE   0x10000u
#define RIG_DATA   0x20000u

/* Selectors that rig_protected sets up. */
#define SEL_CODE0  0x08u
#define SEL_DATA0  0x10u
#define SEL_CODE3  0x1bu
#define SEL_DATA3  0x23u
#define SEL_TSS	   0x28u
#define SEL_CODE16 0x30u
#define SEL_DATA16 0x38u
#define SEL_TSS2   0x40u
#define SEL_LDT	   0x48u
#define SEL_GATE   0x50u /* free for the test, from here on */

extern struct vcpu rig;

/* What the last pio_write and msr_write were told, and what the next reads give. */
extern uint32_t rig_port, rig_port_value, rig_port_size;

/* Every register of CPUID leaves 1 and 7. */
extern uint32_t rig_features;

/* Fresh state after RESET, memory zero. */
void rig_reset(void);
/* Flat 32-bit protected mode at CPL 0 (or 3) with a GDT, an IDT of interrupt gates to the stubs, a TSS; EIP
 * at RIG_CODE, ESP at RIG_STACK. */
void rig_protected(unsigned cpl);
/* Paging on, the first 4 MiB mapped one to one, user and writable. */
void rig_paging(void);
/* rig_protected and rig_paging, with two pages that are not as they should be. */
#define RIG_NOT_MAPPED 0x300000u
#define RIG_READ_ONLY  0x301000u
void rig_paged(unsigned cpl);
/* 16-bit real mode at 1000:0000, stack 0000:9000, vectors to the stubs. */
void rig_real(void);

void rig_bytes(uint32_t at, const void *bytes, unsigned len);
void rig_put32(uint32_t at, uint32_t v);
void rig_put16(uint32_t at, uint16_t v);
uint32_t rig_get32(uint32_t at);
uint16_t rig_get16(uint32_t at);
void rig_descriptor(uint16_t sel, uint32_t base, uint32_t limit, uint16_t attr);
void rig_gate(uint32_t table, unsigned index, unsigned type, unsigned dpl, uint16_t sel, uint32_t off,
	      unsigned count);

/* Puts code at CS:EIP and runs n instructions: rig_run(1, 0x90). */
#define rig_run(n, ...)                                                                                      \
	rig_run_bytes((n), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
int rig_run_bytes(unsigned n, const uint8_t *code, unsigned len);
/* The vector whose stub CS:EIP is at, or -1. */
int rig_vector(void);
/* A word of the frame on the current stack, 32 bits each: word 0 is the error code where there is one. */
uint32_t rig_pushed(unsigned word);

/* The handler of vector has been entered, with this error code and return address on a 32-bit stack. */
#define assert_fault(vector, error, eip_)                                                                    \
	do {                                                                                                 \
		assert_int_equal(rig_vector(), vector);                                                      \
		assert_int_equal(rig_pushed(0), error);                                                      \
		assert_int_equal(rig_pushed(1), eip_);                                                       \
	} while (0)

#define assert_trap(vector, eip_)                                                                            \
	do {                                                                                                 \
		assert_int_equal(rig_vector(), vector);                                                      \
		assert_int_equal(rig_pushed(0), eip_);                                                       \
	} while (0)

#endif
