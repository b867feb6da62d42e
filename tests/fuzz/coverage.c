/* coverage.c - see coverage.h. Called from everywhere in the VMM, also while the guest's FPU state is live
 * and in signal handlers: general registers only, no stack protector, nothing called. */
#include "coverage.h"

uint8_t coverage[COVERAGE_SLOTS];

void __sanitizer_cov_trace_pc(void);

void __sanitizer_cov_trace_pc(void)
{
	const uint64_t pc = (uint64_t)(uintptr_t)__builtin_return_address(0);
	uint8_t *n = &coverage[(uint32_t)(pc * 0x9e3779b97f4a7c15ull >> 48)];

	*n = (uint8_t)(*n + (*n != 255));
}
