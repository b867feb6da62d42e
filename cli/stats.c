/* stats.c - --stats. */
#include "cli/stats.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

static unsigned other_rows(struct machine *m, struct stat_row *rows, unsigned max)
{
	const struct mem_stats *s = mem_get_stats(machine_mem(m));
	const struct stat_row all[] = {
		{"interpreter", "instructions", machine_vcpu(m)->n_interp},
		{"memory", "hidden faults", s->hidden_faults},
		{"memory", "true faults", s->true_faults},
		{"memory", "traced writes", s->traced_writes},
		{"memory", "traced stores emulated", s->traced_stores},
		{"memory", "mmio faults", s->mmio_faults},
		{"memory", "user faults", s->user_faults},
		{"memory", "page table writes", s->pt_writes},
		{"memory", "page table eager maps", s->pt_eager_maps},
		{"memory", "page table unmaps queued", s->pt_unmaps_queued},
		{"memory", "page table flushes", s->pt_flushes},
		{"memory", "pages mapped", s->pages_mapped},
		{"memory", "map calls", s->map_calls},
		{"memory", "unmap calls", s->unmap_calls},
		{"memory", "protect calls", s->protect_calls},
		{"memory", "code unmaps", s->code_unmaps},
		{"windows", "created", s->windows_created},
		{"windows", "evicted", s->windows_evicted},
		{"windows", "switches", s->window_switches},
		{"windows", "now", s->windows_now},
		{"windows", "supervisor now", s->super_windows_now},
		{"windows", "mappings now", s->mappings_now},
		{"traces", "page table pages now", s->traced_pt_now},
		{"traces", "code pages now", s->traced_code_now},
	};
	unsigned n = sizeof all / sizeof all[0];

	if (n > max)
		n = max;
	memcpy(rows, all, n * sizeof rows[0]);
	return n;
}

unsigned stats_gather(struct machine *m, struct stat_row *rows, unsigned max)
{
	unsigned n = machine_stats(m, rows, max);

	if (n > max)
		n = max;
	return n + other_rows(m, rows + n, max - n);
}

static bool begins_group(const struct stat_row *rows, unsigned i)
{
	return i == 0 || strcmp(rows[i].group, rows[i - 1].group) != 0;
}

void stats_print_text(FILE *out, const struct stat_row *rows, unsigned n, const char *eol)
{
	for (unsigned i = 0; i < n; i++) {
		if (begins_group(rows, i))
			fprintf(out, "%s:%s", rows[i].group, eol);
		fprintf(out, "  %-34s %16" PRIu64 "%s", rows[i].name, rows[i].value, eol);
	}
}

/* "exits: table miss" is the key "exits_table_miss". */
static void print_key(FILE *out, const char *name)
{
	bool gap = false;

	for (const char *p = name; *p; p++) {
		if (!isalnum((unsigned char)*p)) {
			gap = true;
			continue;
		}
		if (gap)
			fputc('_', out);
		gap = false;
		fputc(tolower((unsigned char)*p), out);
	}
}

void stats_print_json(FILE *out, const struct stat_row *rows, unsigned n)
{
	fputs("{", out);
	for (unsigned i = 0; i < n; i++) {
		if (begins_group(rows, i))
			fprintf(out, "%s\n  \"%s\": {", i ? "\n  }," : "", rows[i].group);
		fprintf(out, "%s\n    \"", begins_group(rows, i) ? "" : ",");
		print_key(out, rows[i].name);
		fprintf(out, "\": %" PRIu64, rows[i].value);
	}
	fputs(n ? "\n  }\n}\n" : "}\n", out);
}

bool stats_is_json(const char *path)
{
	size_t n = strlen(path);

	return n >= 5 && !strcmp(path + n - 5, ".json");
}
