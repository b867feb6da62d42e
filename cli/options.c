/* options.c - the command line.
 *
 * A row of option_table is all that there is to know about an option: its name, what it takes, how it is
 * stored and its line in --help. One dash or two, and "--name value" or "--name=value", mean the same.
 * Spelled as in QEMU where QEMU has the option. docs/bt86.1 says it all at more length:
 * tests/unit/test_options.c holds the two together.
 */
#include "cli/options.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum takes { TAKES_NOTHING, TAKES_VALUE, MAY_TAKE_VALUE };

struct option_row {
	const char *name;
	enum takes takes;
	const char *value; /* as help calls it */
	int (*parse)(struct options *o, const struct option_row *row, const char *value, char *err,
		     size_t errlen);
	size_t offset; /* of the field, for the parsers that store one */
	const char *help;
};

#define FAIL(...) (snprintf(err, errlen, __VA_ARGS__), -1)

/* ------------------------------------------------------------------ how values are read */

static void *field(struct options *o, const struct option_row *row)
{
	return (char *)o + row->offset;
}

static int set_flag(struct options *o, const struct option_row *row, const char *value, char *err,
		    size_t errlen)
{
	(void)value, (void)err, (void)errlen;
	*(bool *)field(o, row) = true;
	return 0;
}

static int set_string(struct options *o, const struct option_row *row, const char *value, char *err,
		      size_t errlen)
{
	(void)err, (void)errlen;
	*(const char **)field(o, row) = value;
	return 0;
}

static int set_file(struct options *o, const struct option_row *row, const char *value, char *err,
		    size_t errlen)
{
	if (!*value)
		return FAIL("-%s needs a file name", row->name);
	return set_string(o, row, value, err, errlen);
}

static int set_memory(struct options *o, const struct option_row *row, const char *value, char *err,
		      size_t errlen)
{
	unsigned shift = 20;
	uint64_t n;
	char *end;

	(void)row;
	errno = 0;
	n = strtoull(value, &end, 10);
	if (*value < '0' || *value > '9' || (*end && end[1]))
		return FAIL("-m '%s' is not a size: a number of MiB, or one with the suffix K, M or G",
			    value);
	switch (*end) {
	case 'k':
	case 'K':
		shift = 10;
		break;
	case 0:
	case 'm':
	case 'M':
		break;
	case 'g':
	case 'G':
		shift = 30;
		break;
	default:
		return FAIL("-m '%s' is not a size: a number of MiB, or one with the suffix K, M or G",
			    value);
	}
	if (errno || n > OPTIONS_MEM_MAX >> shift || n << shift < OPTIONS_MEM_MIN)
		return FAIL("-m '%s' is out of range: a guest has from 4 MiB to 3 GiB of memory", value);
	if (n << shift & (PAGE_SIZE - 1))
		return FAIL("-m '%s' is not a whole number of 4 KiB pages", value);
	o->machine.ram_bytes = n << shift;
	return 0;
}

static int set_cpu(struct options *o, const struct option_row *row, const char *value, char *err,
		   size_t errlen)
{
	(void)row;
	if (!cpuid_model_known(value))
		return FAIL("-cpu '%s' is not a known model: 486, pentium, pentium3 or max", value);
	o->machine.cpu_model = value;
	return 0;
}

static int set_accel(struct options *o, const struct option_row *row, const char *value, char *err,
		     size_t errlen)
{
	(void)row;
	if (!strcmp(value, "bt"))
		o->machine.accel = ACCEL_BT;
	else if (!strcmp(value, "interp"))
		o->machine.accel = ACCEL_INTERP;
	else if (!strcmp(value, "kvm"))
		o->machine.accel = ACCEL_KVM;
	else if (!strcmp(value, "help"))
		o->accel_help = true;
	else
		return FAIL("-accel '%s' is not known: bt, interp or kvm", value);
	return 0;
}

static bool chardev_spec_known(const char *s)
{
	static const char *const prefix[] = {"file:", "unix:"};
	static const char *const whole[] = {"stdio", "mon:stdio", "pty", "null"};

	for (unsigned i = 0; i < sizeof whole / sizeof whole[0]; i++)
		if (!strcmp(s, whole[i]))
			return true;
	for (unsigned i = 0; i < sizeof prefix / sizeof prefix[0]; i++)
		if (!strncmp(s, prefix[i], 5) && s[5])
			return true;
	return false;
}

#define CHARDEV_SPECS "stdio, file:PATH, pty, unix:PATH or null"

static int add_serial(struct options *o, const struct option_row *row, const char *value, char *err,
		      size_t errlen)
{
	(void)row;
	if (!chardev_spec_known(value))
		return FAIL("-serial '%s' is not known: " CHARDEV_SPECS, value);
	if (o->nserial == OPTIONS_SERIAL_MAX)
		return FAIL("-serial was given more than %u times: there are two serial ports",
			    OPTIONS_SERIAL_MAX);
	o->serial[o->nserial++] = value;
	return 0;
}

static int set_debugcon(struct options *o, const struct option_row *row, const char *value, char *err,
			size_t errlen)
{
	if (!chardev_spec_known(value))
		return FAIL("-debugcon '%s' is not known: " CHARDEV_SPECS, value);
	return set_string(o, row, value, err, errlen);
}

static int set_log(struct options *o, const struct option_row *row, const char *value, char *err,
		   size_t errlen)
{
	(void)row;
	if (!strcmp(value, "help")) {
		o->log_help = true;
		return 0;
	}
	if (log_set_categories(value))
		return FAIL("-d '%s' has an unknown log category (-d help lists them)", value);
	return 0;
}

static int set_stats(struct options *o, const struct option_row *row, const char *value, char *err,
		     size_t errlen)
{
	o->stats = true;
	o->machine.count_insns = true;
	return value ? set_file(o, row, value, err, errlen) : 0;
}

/* every=N and first=K, one or both, separated by a comma; a bare number is N. */
static int set_verify(struct options *o, const struct option_row *row, const char *value, char *err,
		      size_t errlen)
{
	const char *p = value;

	(void)row;
	o->machine.verify_every = value ? 0 : 1;
	o->machine.verify_first = 0;
	while (p) {
		bool first = !strncmp(p, "first=", 6);
		const char *digits = first || !strncmp(p, "every=", 6) ? p + 6 : p;
		char *end;
		unsigned long n = strtoul(digits, &end, 10);
		if ((*end && *end != ',') || *digits < '0' || *digits > '9' || n == 0 || n > 1000000000)
			return FAIL(
				"--verify '%s' is not every=N or first=K with numbers from 1 to 1000000000",
				value);
		*(first ? &o->machine.verify_first : &o->machine.verify_every) = (unsigned)n;
		p = *end ? end + 1 : NULL;
	}
	return 0;
}

static bool hex32(const char *s, char **end, uint32_t *v)
{
	unsigned long long n;

	if (!strchr("0123456789abcdefABCDEF", *s) || !*s)
		return false;
	errno = 0;
	n = strtoull(s, end, 16);
	*v = (uint32_t)n;
	return !errno && n <= UINT32_MAX;
}

static int set_bt_range(struct options *o, const struct option_row *row, const char *value, char *err,
			size_t errlen)
{
	uint32_t lo, hi;
	char *end;

	(void)row;
	if (!hex32(value, &end, &lo) || *end != '-' || !hex32(end + 1, &end, &hi) || *end || lo > hi)
		return FAIL("--bt-range '%s' is not a range LO-HI of hexadecimal addresses", value);
	o->machine.bt_first = lo;
	o->machine.bt_last = hi;
	return 0;
}

/* ------------------------------------------------------------------ the table */

#define AT(member) offsetof(struct options, member)

static const struct option_row option_table[] = {
	{"kernel", TAKES_VALUE, "FILE", set_file, AT(kernel),
	 "guest kernel: a Linux bzImage or 32-bit ELF vmlinux, or a Multiboot image"},
	{"initrd", TAKES_VALUE, "FILE", set_string, AT(initrd),
	 "initial RAM disk; for Multiboot the modules, 'FILE ARGS,FILE ARGS' (',,' is a comma)"},
	{"append", TAKES_VALUE, "LINE", set_string, AT(append), "command line of the guest kernel"},
	{"demo", TAKES_NOTHING, NULL, set_flag, AT(demo),
	 "boot the small guest kernel that is built into bt86"},
	{"m", TAKES_VALUE, "SIZE", set_memory, 0,
	 "guest memory in MiB, or with suffix K, M or G; 4 MiB to 3 GiB, default 128"},
	{"cpu", TAKES_VALUE, "MODEL", set_cpu, 0, "486, pentium, pentium3 or max (default: max)"},
	{"accel", TAKES_VALUE, "NAME", set_accel, 0,
	 "bt: binary translation (default); interp: interpreter only, slow and simple; kvm: /dev/kvm, for "
	 "comparison; help: say what this host has"},
	{"nographic", TAKES_NOTHING, NULL, set_flag, AT(nographic),
	 "no display: accepted for QEMU's sake, bt86 never has one"},
	{"serial", TAKES_VALUE, "WHERE", add_serial, 0,
	 CHARDEV_SPECS "; given twice, the second is COM2 (default: stdio, null)"},
	{"debugcon", TAKES_VALUE, "WHERE", set_debugcon, AT(debugcon),
	 "where what the guest writes to port 0xe9 goes, as with -serial (default: null)"},
	{"no-reboot", TAKES_NOTHING, NULL, set_flag, AT(machine.no_reboot),
	 "end where the guest would reboot"},
	{"debug-exit", TAKES_NOTHING, NULL, set_flag, AT(machine.debug_exit),
	 "a write of V to port 0xf4 ends bt86 with exit status (V << 1) | 1"},
	{"d", TAKES_VALUE, "CATEGORY,...", set_log, 0, "log these categories, see below"},
	{"D", TAKES_VALUE, "FILE", set_file, AT(log_file), "write the log to FILE (default: stderr)"},
	{"stats", MAY_TAKE_VALUE, "FILE", set_stats, AT(stats_file),
	 "print statistics at the end, to stderr or to FILE; as JSON if its name ends in .json"},
	{"perf-map", TAKES_NOTHING, NULL, set_flag, AT(machine.perf_map),
	 "write /tmp/perf-PID.map, so that perf names translated code"},
	{"symbols", TAKES_VALUE, "FILE", set_file, AT(symbols),
	 "System.map or ELF file with the guest's symbols, for --perf-map, -d and the monitor"},
	{"bt-range", TAKES_VALUE, "LO-HI", set_bt_range, 0,
	 "translate only code at linear addresses LO to HI (hexadecimal), interpret the rest"},
	{"verify", MAY_TAKE_VALUE, "WHICH", set_verify, 0,
	 "compare translated code with the interpreter, stop at the first difference; WHICH is every=N "
	 "(every Nth "
	 "block run), first=K (each block's first K runs) or both with a comma; all if not given"},
	{"help", TAKES_NOTHING, NULL, set_flag, AT(help), "print this and exit"},
	{"version", TAKES_NOTHING, NULL, set_flag, AT(version), "print the version and exit"},
};

#define NOPTIONS (sizeof option_table / sizeof option_table[0])

static const struct option_row *find_option(const char *name, size_t len)
{
	for (unsigned i = 0; i < NOPTIONS; i++)
		if (strlen(option_table[i].name) == len && !memcmp(option_table[i].name, name, len))
			return &option_table[i];
	if (len == 1 && *name == 'h')
		return find_option("help", 4);
	return NULL;
}

/* ------------------------------------------------------------------ parsing */

/* Takes argv[*i], and the value behind it if it is there. */
static int parse_one(struct options *o, int argc, char **argv, int *i, char *err, size_t errlen)
{
	const char *arg = argv[*i], *name = arg + (arg[0] == '-') + (arg[0] == '-' && arg[1] == '-'),
		   *value = NULL;
	size_t len = strcspn(name, "=");
	const struct option_row *row;

	if (arg[0] != '-' || !*name)
		return FAIL("'%s' is not an option (is it the kernel? -kernel FILE)", arg);
	row = find_option(name, len);
	if (!row)
		return FAIL("unknown option '%s'", arg);
	if (name[len] == '=')
		value = name + len + 1;
	if (row->takes == TAKES_NOTHING && value)
		return FAIL("-%s takes no value", row->name);
	if (row->takes == TAKES_VALUE && !value) {
		if (*i + 1 >= argc)
			return FAIL("-%s needs a value: %s", row->name, row->value);
		value = argv[++*i];
	}
	return row->parse(o, row, value, err, errlen);
}

static int check_together(const struct options *o, char *err, size_t errlen)
{
	if (!o->kernel && !o->demo)
		return FAIL("nothing to boot: give -kernel FILE, or --demo");
	if (o->kernel && o->demo)
		return FAIL("-kernel and --demo exclude each other");
	return 0;
}

int options_parse(struct options *o, int argc, char **argv, char *err, size_t errlen)
{
	memset(o, 0, sizeof *o);
	o->machine.ram_bytes = 128ull << 20;
	o->machine.accel = ACCEL_BT;
	o->machine.cpu_model = "max";
	o->machine.bt_last = UINT32_MAX;
	for (int i = 1; i < argc; i++) {
		if (parse_one(o, argc, argv, &i, err, errlen))
			return -1;
		if (o->help || o->version || o->log_help || o->accel_help)
			return 0;
	}
	return check_together(o, err, errlen);
}

/* ------------------------------------------------------------------ help */

static const struct {
	int code;
	const char *what;
} exit_codes[] = {
	{EXIT_POWEROFF, "the guest powered off (or rebooted, with -no-reboot), or Ctrl-a x"},
	{EXIT_USAGE, "the command line is wrong, or a file that it names to write to cannot be used"},
	{EXIT_IMAGE, "kernel, initrd or symbol file is missing, damaged, of the wrong kind or too big"},
	{EXIT_TRIPLE_FAULT, "the guest crashed (triple fault) and -no-reboot was given"},
	{EXIT_INTERNAL, "bt86 could not get what it needs from the host, or failed"},
	{EXIT_INTERRUPTED, "SIGINT; another signal N gives 128 + N: SIGHUP 129, SIGTERM 143"},
};

static const struct {
	const char *key, *what;
} keys[] = {
	{"Ctrl-a x", "quit"},
	{"Ctrl-a h", "list these keys"},
	{"Ctrl-a c", "monitor: look at the guest and control it; again to go back"},
	{"Ctrl-a b", "send a break over the serial line"},
	{"Ctrl-a Ctrl-a", "send a Ctrl-a"},
};

#define HELP_WIDTH  79u
#define HELP_INDENT 19u

/* A line of two columns, the right one wrapped. */
static void print_row(FILE *out, const char *left, const char *text, const char *eol)
{
	size_t column = HELP_INDENT;

	fprintf(out, "  %-*s", (int)HELP_INDENT - 2, left);
	while (*text) {
		size_t word = strcspn(text, " ");

		if (column + 1 + word > HELP_WIDTH && column > HELP_INDENT) {
			fprintf(out, "%s%*s", eol, (int)HELP_INDENT, "");
			column = HELP_INDENT;
		}
		fprintf(out, " %.*s", (int)word, text);
		column += 1 + word;
		text += word;
		text += strspn(text, " ");
	}
	fputs(eol, out);
}

void options_print_keys(FILE *out, const char *eol)
{
	for (unsigned i = 0; i < sizeof keys / sizeof keys[0]; i++)
		print_row(out, keys[i].key, keys[i].what, eol);
}

void options_print_log_categories(FILE *out)
{
	for (unsigned i = 0; i < LOG_CATS; i++) {
		const char *name, *help = log_category_help((enum log_cat)i, &name);

		print_row(out, name, help, "\n");
	}
}

static void print_option(FILE *out, const struct option_row *row)
{
	char left[64];

	snprintf(left, sizeof left, "%s%s%s%s%s",
		 strlen(row->name) == 1		? "-"
		 : row->takes == MAY_TAKE_VALUE ? "--"
						: "-",
		 row->name,
		 row->takes == MAY_TAKE_VALUE ? "[="
		 : row->value		      ? " "
					      : "",
		 row->value ? row->value : "", row->takes == MAY_TAKE_VALUE ? "]" : "");
	print_row(out, left, row->help, "\n");
}

void options_print_help(FILE *out)
{
	fputs("usage: bt86 -kernel FILE [-initrd FILE] [-append LINE] [OPTION...]\n"
	      "       bt86 --demo\n"
	      "Runs a 32-bit x86 guest kernel by binary translation, as an ordinary process.\n"
	      "\n"
	      "Options, with one dash or two:\n",
	      out);
	for (unsigned i = 0; i < NOPTIONS; i++)
		print_option(out, &option_table[i]);
	fputs("\nLog categories (-d):\n", out);
	options_print_log_categories(out);
	fputs("\nKeys, when the console is a terminal:\n", out);
	options_print_keys(out, "\n");
	fputs("\nMonitor commands: info registers|cache|windows|traces|kvm, x /FMT ADDRESS,\n"
	      "  xp /FMT ADDRESS, stop, cont, quit, help\n",
	      out);
	fputs("\nExit status:\n", out);
	for (unsigned i = 0; i < sizeof exit_codes / sizeof exit_codes[0]; i++) {
		char code[16];

		snprintf(code, sizeof code, "%d", exit_codes[i].code);
		print_row(out, code, exit_codes[i].what, "\n");
	}
	print_row(out, "(V << 1) | 1", "the guest wrote V to port 0xf4 (-debug-exit)", "\n");
	fputs("\nEnvironment: bt86 reads no variable. The programs in tools/ look for guest\n"
	      "  images in BT86_GUEST_DIR (default: bt86/guest in the user's cache directory).\n",
	      out);
}

void options_print_version(FILE *out)
{
	fprintf(out, "bt86 %s\n", BT86_VERSION);
}
