/* coverage.h - which branches of the VMM the cases reach, when it was built to tell
 * (-fsanitize-coverage=trace-pc, the preset fuzz). */
#ifndef BT86_TESTS_FUZZ_COVERAGE_H
#define BT86_TESTS_FUZZ_COVERAGE_H

#include <stdint.h>

#define COVERAGE_SLOTS 65536u

/* How often, up to 255, each place was passed since it was last cleared. All zero in a build that does not
 * count. */
extern uint8_t coverage[COVERAGE_SLOTS];

#endif
