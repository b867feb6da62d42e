/* main.c - from the command line to the exit status. The terminal is devices/terminal.c's business. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "boot/boot.h"
#include "cli/monitor.h"
#include "cli/options.h"
#include "cli/stats.h"
#include "devices/devices.h"
#include "vmm/vmm.h"

#define ERR_LEN 1024u

/* Names of files may hold anything; a message stays one line and leaves the terminal alone. */
static void print_escaped(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (*p >= ' ' && *p != 0x7f)
			fputc(*p, stderr);
		else if (*p == '\n')
			fputs("\\n", stderr);
		else
			fprintf(stderr, "\\x%02x", *p);
	}
	fputc('\n', stderr);
}

/* One line on stderr, with the terminal in order again; returns status. */
__attribute__((format(printf, 2, 3))) static int fail(int status, const char *fmt, ...)
{
	char text[ERR_LEN + 64];
	va_list ap;

	chardev_restore_terminal();
	fputs("bt86: ", stderr);
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	print_escaped(text);
	return status;
}

/* ------------------------------------------------------------------ files that must be open before the guest
 * runs */

static FILE *open_stats(const struct options *o)
{
	if (!o->stats)
		return NULL;
	return o->stats_file ? fopen(o->stats_file, "we") : stderr;
}

static void write_stats(struct machine *m, const struct options *o, FILE *out)
{
	struct stat_row rows[STATS_ROWS];
	unsigned n;
	int rc;

	if (!out)
		return;
	n = stats_gather(m, rows, STATS_ROWS);
	if (o->stats_file && stats_is_json(o->stats_file))
		stats_print_json(out, rows, n);
	else
		stats_print_text(out, rows, n, "\n");
	rc = fflush(out);
	if (out != stderr)
		rc |= fclose(out);
	if (rc)
		fail(0, "cannot write statistics: %s", strerror(errno));
}

/* ------------------------------------------------------------------ */

static struct board *make_board(struct machine *m, const struct options *o, char *err)
{
	struct board_config cfg = {.debug_exit = o->machine.debug_exit, .debugcon = o->debugcon};

	cfg.serial[0] = o->nserial > 0 ? o->serial[0] : "mon:stdio";
	cfg.serial[1] = o->nserial > 1 ? o->serial[1] : NULL;
	return board_create(m, &cfg, err, ERR_LEN);
}

static int run_guest(const struct options *o, struct machine *m, FILE *stats)
{
	const struct boot_config cfg = {
		.kernel = o->kernel, .initrd = o->initrd, .append = o->append, .demo = o->demo};
	char err[ERR_LEN] = "";
	struct board *board = make_board(m, o, err);
	struct boot *boot;
	int status;

	if (!board)
		return fail(EXIT_USAGE, "%s", err);
	boot = boot_load(m, &cfg, err, sizeof err);
	if (boot) {
		monitor_attach(m, board_console(board));
		status = machine_run(m);
		chardev_restore_terminal();
		write_stats(m, o, stats);
	} else {
		status = fail(EXIT_IMAGE, "%s", err);
	}
	boot_free(boot);
	board_destroy(board);
	return status;
}

static int run(const struct options *o)
{
	char err[ERR_LEN] = "";
	struct machine *m;
	FILE *stats;
	int status, rc;

	rc = o->log_file ? log_set_file(o->log_file) : 0;
	if (rc)
		return fail(EXIT_USAGE, "cannot write the log to '%s': %s", o->log_file, strerror(-rc));
	stats = open_stats(o);
	if (o->stats && !stats)
		return fail(EXIT_USAGE, "cannot write statistics to '%s': %s", o->stats_file,
			    strerror(errno));
	if (o->symbols && symbols_load(o->symbols, err, sizeof err))
		return fail(EXIT_IMAGE, "%s", err);
	m = machine_create(&o->machine, err, sizeof err);
	if (!m)
		return fail(EXIT_INTERNAL, "%s", err);
	status = run_guest(o, m, stats);
	machine_destroy(m);
	symbols_free();
	return status;
}

/* -accel help: one line each, what it is or why it cannot be had. */
static void print_accelerators(FILE *out)
{
	char text[ERR_LEN];

	fputs("bt      binary translation\n"
	      "interp  interpreter\n",
	      out);
	if (kvm_describe(text, sizeof text))
		fprintf(out, "kvm     %s\n", text);
	else
		fprintf(out, "kvm     not available: %s\n", text);
}

int main(int argc, char **argv)
{
	struct options o;
	char err[ERR_LEN];

	if (options_parse(&o, argc, argv, err, sizeof err)) {
		fprintf(stderr, "bt86: %s; try --help\n", err);
		return EXIT_USAGE;
	}
	if (o.help)
		options_print_help(stdout);
	else if (o.version)
		options_print_version(stdout);
	else if (o.log_help)
		options_print_log_categories(stdout);
	else if (o.accel_help)
		print_accelerators(stdout);
	if (o.help || o.version || o.log_help || o.accel_help)
		return fflush(stdout) ? EXIT_USAGE : EXIT_POWEROFF;
	return run(&o);
}
