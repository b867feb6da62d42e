/* device.c - see device.h. */
#include "devices/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct allocation {
	struct allocation *next;
	struct machine *machine;
	const char *name; /* NULL: not shared */
	_Alignas(16) char data[];
};

static struct allocation *allocations;

static struct allocation *allocate(struct machine *m, const char *name, size_t size)
{
	struct allocation *a = calloc(1, sizeof *a + size);

	if (!a) {
		fputs("bt86: out of memory for the devices\n", stderr);
		exit(EXIT_INTERNAL);
	}
	a->machine = m;
	a->name = name;
	a->next = allocations;
	allocations = a;
	return a;
}

void *device_alloc(struct machine *m, size_t size)
{
	return allocate(m, NULL, size)->data;
}

void *device_shared(struct machine *m, const char *name, size_t size)
{
	for (struct allocation *a = allocations; a; a = a->next)
		if (a->machine == m && a->name && !strcmp(a->name, name))
			return a->data;
	return allocate(m, name, size)->data;
}

void device_free_all(struct machine *m)
{
	struct allocation **link = &allocations;

	while (*link) {
		struct allocation *a = *link;

		if (a->machine != m) {
			link = &a->next;
			continue;
		}
		*link = a->next;
		free(a);
	}
}
