/* machine_rig.c - see machine_rig.h. */
#include "machine_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

unsigned rig_mode_changes;

/* ------------------------------------------------------------------ memory, as far as the machine asks */

struct mem *mem_create(uint64_t ram_bytes, char *err, size_t errlen)
{
	if (!ram_bytes) {
		snprintf(err, errlen, "no memory");
		return NULL;
	}
	return malloc(1);
}

void mem_destroy(struct mem *m)
{
	free(m);
}

void mem_mode_changed(struct vcpu *c)
{
	(void)c;
	rig_mode_changes++;
}

/* ------------------------------------------------------------------ machines */

struct machine *rig_create(const char *model)
{
	const struct machine_config cfg = {.ram_bytes = 1 << 20, .accel = ACCEL_INTERP, .cpu_model = model};
	char err[128] = "";
	struct machine *m = machine_create(&cfg, err, sizeof err);

	assert_non_null(m);
	return m;
}

int rig_setup(void **state)
{
	*state = rig_create("max");
	return 0;
}

int rig_teardown(void **state)
{
	evloop_join(*state);
	machine_destroy(*state);
	return 0;
}

int rig_give_vector(void *opaque)
{
	return *(int *)opaque;
}

void rig_sleep_us(long us)
{
	const struct timespec ts = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	nanosleep(&ts, NULL);
}
