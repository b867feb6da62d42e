/* options.h - the command line: one table of options, from which parsing and --help both come. */
#ifndef BT86_CLI_OPTIONS_H
#define BT86_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "vmm/vmm.h"

#define OPTIONS_SERIAL_MAX 2u
#define OPTIONS_MEM_MIN	   (4ull << 20)
#define OPTIONS_MEM_MAX	   (3ull << 30)

/* What was asked for. Strings point into argv. */
struct options {
	struct machine_config machine;
	const char *kernel, *initrd, *append;
	bool demo;
	const char *serial[OPTIONS_SERIAL_MAX];
	unsigned nserial;
	const char *debugcon;
	const char *log_file;
	bool stats;
	const char *stats_file; /* NULL: stderr */
	const char *symbols;
	bool nographic;
	bool help, version, log_help, accel_help; /* print it and leave */
};

/* Fills o from argv. -d takes effect at once (log_mask). 0, or -1 with one line in err. Parsing stops at the
 * first of --help, --version and -d help. */
int options_parse(struct options *o, int argc, char **argv, char *err, size_t errlen);
void options_print_help(FILE *out);
void options_print_version(FILE *out);
void options_print_log_categories(FILE *out);
/* The keys after Ctrl-a, one line each, lines ended by eol. */
void options_print_keys(FILE *out, const char *eol);

#endif
