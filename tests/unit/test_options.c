/* test_options.c - the command line: every option in every spelling, every refusal, and that the manual page
 * names what --help does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/options.h"
#include "cli/stats.h"

bool cpuid_model_known(const char *model)
{
	return !strcmp(model, "486") || !strcmp(model, "pentium") || !strcmp(model, "pentium3") ||
	       !strcmp(model, "max");
}

/* stats.c wants these for stats_gather, which is not tested here. */
const struct mem_stats *mem_get_stats(const struct mem *m)
{
	(void)m;
	return NULL;
}

struct mem *machine_mem(struct machine *m)
{
	(void)m;
	return NULL;
}

struct vcpu *machine_vcpu(struct machine *m)
{
	(void)m;
	return NULL;
}

unsigned machine_stats(struct machine *m, struct stat_row *rows, unsigned max)
{
	(void)m, (void)rows, (void)max;
	return 0;
}

static struct options o;
static char err[512];

/* Parses a line split at blanks; "_" stands for an empty argument. */
static int parse(const char *line)
{
	static char copy[512];
	static char empty[1];
	char *argv[32] = {(char *)"bt86"}, *save, *p;
	int argc = 1;

	strcpy(copy, line);
	for (p = strtok_r(copy, " ", &save); p; p = strtok_r(NULL, " ", &save))
		argv[argc++] = strcmp(p, "_") ? p : empty;
	err[0] = 0;
	return options_parse(&o, argc, argv, err, sizeof err);
}

static void accept(const char *line)
{
	if (parse(line))
		fail_msg("'%s' is refused: %s", line, err);
}

static void refuse(const char *line, const char *why)
{
	if (!parse(line))
		fail_msg("'%s' is accepted", line);
	if (!strstr(err, why))
		fail_msg("'%s': '%s' does not say '%s'", line, err, why);
	assert_null(strchr(err, '\n'));
}

static void defaults(void **state)
{
	(void)state;
	accept("-kernel k");
	assert_string_equal(o.kernel, "k");
	assert_int_equal(o.machine.ram_bytes, 128 << 20);
	assert_int_equal(o.machine.accel, ACCEL_BT);
	assert_string_equal(o.machine.cpu_model, "max");
	assert_int_equal(o.machine.bt_first, 0);
	assert_int_equal(o.machine.bt_last, 0xffffffffu);
	assert_int_equal(o.nserial, 0);
	assert_false(o.demo || o.stats || o.machine.no_reboot || o.machine.debug_exit || o.machine.perf_map);
}

static void both_dashes_and_equals(void **state)
{
	static const char *const lines[] = {"-kernel k -append a -m 64", "--kernel k --append a --m 64",
					    "-kernel=k -append=a -m=64", "--kernel=k --append=a --m=64"};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		accept(lines[i]);
		assert_string_equal(o.kernel, "k");
		assert_string_equal(o.append, "a");
		assert_int_equal(o.machine.ram_bytes, 64 << 20);
	}
	accept("--kernel=a=b --append=");
	assert_string_equal(o.kernel, "a=b");
	assert_string_equal(o.append, "");
}

static void every_option(void **state)
{
	(void)state;
	accept("-kernel k -initrd i,j -append x=1 -cpu 486 -accel interp -nographic -serial null -serial "
	       "file:f "
	       "-debugcon file:g -no-reboot -D log --stats=s.json -debug-exit --perf-map -symbols System.map "
	       "--bt-range=c0000000-0xC00fffff");
	assert_string_equal(o.initrd, "i,j");
	assert_string_equal(o.append, "x=1");
	assert_string_equal(o.machine.cpu_model, "486");
	assert_int_equal(o.machine.accel, ACCEL_INTERP);
	assert_int_equal(o.nserial, 2);
	assert_string_equal(o.serial[0], "null");
	assert_string_equal(o.serial[1], "file:f");
	assert_string_equal(o.debugcon, "file:g");
	assert_string_equal(o.log_file, "log");
	assert_true(o.stats);
	assert_string_equal(o.stats_file, "s.json");
	assert_true(o.machine.no_reboot && o.machine.debug_exit && o.machine.perf_map && o.nographic);
	assert_string_equal(o.symbols, "System.map");
	assert_int_equal(o.machine.bt_first, 0xc0000000u);
	assert_int_equal(o.machine.bt_last, 0xc00fffffu);
	accept("--demo --stats");
	assert_true(o.demo && o.stats);
	assert_null(o.stats_file);
	accept("-help");
	assert_true(o.help);
	accept("-h");
	assert_true(o.help);
	accept("--version -kernel");
	assert_true(o.version);
}

static void memory_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* 0: refused */
	} rows[] = {
		{"4", 4 << 20},
		{"512", 512 << 20},
		{"512M", 512 << 20},
		{"512m", 512 << 20},
		{"1G", 1 << 30},
		{"3g", 3ull << 30},
		{"3072", 3ull << 30},
		{"8192K", 8 << 20},
		{"4100k", 4100 << 10},
		{"0", 0},
		{"3", 0},
		{"5G", 0},
		{"3073", 0},
		{"4097K", 0},
		{"-1", 0},
		{"_", 0},
		{"x", 0},
		{"64MB", 0},
		{"1.5G", 0},
		{"0x40", 0},
		{"64T", 0},
		{"18446744073709551615", 0},
		{"99999999999999999999999", 0},
		{"17592186044480", 0},
		{"+64", 0},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char line[64];

		snprintf(line, sizeof line, "-kernel k -m %s", rows[i].text);
		if (rows[i].bytes) {
			accept(line);
			assert_int_equal(o.machine.ram_bytes, rows[i].bytes);
		} else {
			refuse(line, "-m '");
		}
	}
}

static void refusals(void **state)
{
	(void)state;
	refuse("", "nothing to boot");
	refuse("-m 64", "nothing to boot");
	refuse("-kernel k --demo", "exclude each other");
	refuse("-kernel", "needs a value");
	refuse("-kernel _", "file name");
	refuse("-kernel k -bogus", "unknown option '-bogus'");
	refuse("--kernels k", "unknown option '--kernels'");
	refuse("---kernel k", "unknown option");
	refuse("vmlinuz", "is not an option");
	refuse("-kernel k -", "is not an option");
	refuse("-kernel k --", "is not an option");
	refuse("-kernel k -no-reboot=1", "takes no value");
	refuse("-kernel k -cpu pentium9", "pentium9");
	refuse("-kernel k -accel tcg", "'tcg' is not known");
	refuse("-kernel k -serial foo", "'foo'");
	refuse("-kernel k -serial file:", "'file:'");
	refuse("-kernel k -serial null -serial null -serial null", "two serial ports");
	refuse("-kernel k -d nonsense", "-d help");
	refuse("-kernel k -d int,nonsense", "-d help");
	refuse("-kernel k --stats=", "file name");
	refuse("-kernel k --verify=", "every=N");
	refuse("-kernel k --verify=every=0", "every=N");
	refuse("-kernel k --verify=first=2,", "every=N");
	refuse("-kernel k --verify=last=2", "every=N");
	refuse("-kernel k --bt-range=5", "bt-range");
	refuse("-kernel k --bt-range=9-5", "bt-range");
	refuse("-kernel k --bt-range=0-100000000", "bt-range");
	refuse("-kernel k --bt-range=0-5x", "bt-range");
	refuse("-kernel k --bt-range=--5", "bt-range");
}

static void accelerators(void **state)
{
	(void)state;
	accept("-kernel k -accel kvm");
	assert_int_equal(o.machine.accel, ACCEL_KVM);
	assert_false(o.accel_help);
	accept("-accel help");
	assert_true(o.accel_help);
}

static void verify_which(void **state)
{
	static const struct {
		const char *line;
		unsigned every, first;
	} cases[] = {{"-kernel k", 0, 0},
		     {"-kernel k --verify", 1, 0},
		     {"-kernel k --verify=every=199", 199, 0},
		     {"-kernel k --verify=7", 7, 0},
		     {"-kernel k --verify=first=3", 0, 3},
		     {"-kernel k --verify=every=50,first=2", 50, 2}};

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		accept(cases[i].line);
		assert_int_equal(o.machine.verify_every, cases[i].every);
		assert_int_equal(o.machine.verify_first, cases[i].first);
	}
}

static void log_categories(void **state)
{
	(void)state;
	log_mask = 0;
	accept("-kernel k -d int,mmu -d cpu");
	assert_int_equal(log_mask, 1u << LOG_INT | 1u << LOG_MMU | 1u << LOG_CPU);
	accept("-d help");
	assert_true(o.log_help);
}

static char *read_all(FILE *f)
{
	size_t n, size = 1 << 20;
	char *text = malloc(size);

	assert_non_null(f);
	assert_non_null(text);
	n = fread(text, 1, size - 1, f);
	text[n] = 0;
	fclose(f);
	return text;
}

/* roff writes a dash that must stay one as "\-". */
static void undash(char *text)
{
	char *to = text;

	for (char *p = text; *p; p++)
		if (p[0] != '\\' || p[1] != '-')
			*to++ = *p;
	*to = 0;
}

/* Every option (a line of --help that begins with two blanks and a dash), log category, exit status and key.
 */
static void manual_page_says_what_help_says(void **state)
{
	char *page = read_all(fopen(BT86_SOURCE_DIR "/docs/bt86.1", "r")), *help = NULL, *save;
	size_t size;
	FILE *f = open_memstream(&help, &size);
	unsigned words = 0;

	(void)state;
	undash(page);
	assert_non_null(f);
	options_print_help(f);
	fclose(f);
	for (char *line = strtok_r(help, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char word[64];
		size_t len;

		if (strlen(line) > 80)
			fail_msg("longer than 80: %s", line);
		if (strncmp(line, "  ", 2) || line[2] == ' ')
			continue;
		if (!strncmp(line + 2, "Ctrl-a", 6))
			len = 6 + strcspn(line + 8, " ") + 1 + strcspn(line + 9, " ");
		else
			len = strcspn(line + 2, " [");
		snprintf(word, sizeof word, "%.*s", (int)len, line + 2);
		for (char *p = word; *p == '-';)
			memmove(p, p + 1, strlen(p));
		if (!strstr(page, word))
			fail_msg("docs/bt86.1 does not have '%s'", word);
		words++;
	}
	assert_true(words > 35);
	free(page);
	free(help);
}

static void statistics_formats(void **state)
{
	static const struct stat_row rows[] = {{"guest", "instructions", 12345678901234ull},
					       {"guest", "TSC cycles, run", 7},
					       {"cache", "blocks", 0}};
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	(void)state;
	stats_print_json(f, rows, 3);
	fclose(f);
	assert_string_equal(
		text,
		"{\n  \"guest\": {\n    \"instructions\": 12345678901234,\n    \"tsc_cycles_run\": 7\n  },\n"
		"  \"cache\": {\n    \"blocks\": 0\n  }\n}\n");
	free(text);
	f = open_memstream(&text, &size);
	stats_print_json(f, rows, 0);
	fclose(f);
	assert_string_equal(text, "{}\n");
	free(text);
	f = open_memstream(&text, &size);
	stats_print_text(f, rows, 3, "\n");
	fclose(f);
	assert_non_null(strstr(text, "guest:\n  instructions "));
	assert_non_null(strstr(text, " 12345678901234\n"));
	free(text);
	assert_true(stats_is_json("a.json"));
	assert_false(stats_is_json("a.jso"));
	assert_false(stats_is_json("json"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(both_dashes_and_equals),
		cmocka_unit_test(every_option),
		cmocka_unit_test(memory_sizes),
		cmocka_unit_test(refusals),
		cmocka_unit_test(accelerators),
		cmocka_unit_test(verify_which),
		cmocka_unit_test(log_categories),
		cmocka_unit_test(manual_page_says_what_help_says),
		cmocka_unit_test(statistics_formats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
