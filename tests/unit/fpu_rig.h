/* fpu_rig.h - what the tests of interp_fpu stand on: the silicon as oracle, and a fake memory.
 *
 * The oracle executes code natively in compatibility mode: it loads an FXSAVE image, the general registers
 * and EFLAGS, jumps to 32-bit code in low memory, comes back, and stores everything. Signals give it the
 * exceptions. interp_fpu gets the same state; afterwards registers, flags, image, memory, vector, error code
 * and CR2 must be the same.
 *
 * The interpreter's side has a fake memory of one page at the address of the oracle's, so that operands
 * across either of its ends fault in both.
 *
 *     rig_init(seed);			once
 *     rig_take_signals();		in each test that uses the oracle
 *     rig_random_state(0);
 *     LOW->gpr[EDI] = DATA_AT + 512;
 *     assert_true(rig_agree(code, len));
 */
#ifndef BT86_TESTS_FPU_RIG_H
#define BT86_TESTS_FPU_RIG_H

#include "vmm/interp/hostunit.h"
#include "vmm/interp/interp.h"

#define CODE_AT	  0x10000000u /* the instruction; from BACK_OFF on the way back */
#define BACK_OFF  0x800u
#define LOW_AT	  0x10010000u
#define DATA_AT	  0x10021000u /* one page, nothing around it */
#define USER32_CS 0x23
#define USER_DS	  0x2b

struct low { /* what the oracle's assembly reaches by absolute addresses */
	_Alignas(64) uint8_t fx[512];
	_Alignas(64) uint8_t host_fx[512];
	uint32_t gpr[8];
	uint64_t flags;
	uint64_t host_rsp;
	struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) target;
};
#define LOW  ((struct low *)(uintptr_t)LOW_AT)
#define DATA ((uint8_t *)(uintptr_t)DATA_AT)

struct outcome {
	int vector; /* -1: none */
	uint32_t error, cr2;
};
extern volatile struct outcome rig_native; /* of the last run of the oracle */

extern uint8_t rig_page[4096]; /* the interpreter's view of DATA */
extern struct vcpu cpu;

/* Maps the low memory and the stubs' arena. 0 or -1. */
int rig_init(uint64_t seed);
/* cmocka has handlers of its own, which it installs before each test. */
void rig_take_signals(void);

/* cpu in flat 32-bit protected mode at CPL 3, everything available, EIP at CODE_AT. */
void rig_cpu_init(void);

unsigned rig_below(unsigned n);
/* A state that matters, in LOW and DATA. flags: EFLAGS bits to be set besides random arithmetic ones. */
void rig_random_state(uint32_t flags);
/* Where a memory operand is: mostly aligned, sometimes anywhere, or across an end of the page. */
uint32_t rig_random_address(void);

/* Runs code on both sides from the state in LOW and DATA. Says how they differ, and returns whether they
 * agree. */
bool rig_agree(const uint8_t *code, unsigned len);

#endif
