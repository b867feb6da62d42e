/* stats.h - --stats: every counter of the machine, as text or JSON. */
#ifndef BT86_CLI_STATS_H
#define BT86_CLI_STATS_H

#include <stdbool.h>
#include <stdio.h>

#include "vmm/vmm.h"

#define STATS_ROWS 512u

/* The translator's counters, the interpreter's and memory's, at most max rows. vCPU stopped. Returns how
 * many. */
unsigned stats_gather(struct machine *m, struct stat_row *rows, unsigned max);
/* eol ends the lines of the text form. */
void stats_print_text(FILE *out, const struct stat_row *rows, unsigned n, const char *eol);
void stats_print_json(FILE *out, const struct stat_row *rows, unsigned n);
/* Whether a file of this name gets JSON. */
bool stats_is_json(const char *path);

#endif
