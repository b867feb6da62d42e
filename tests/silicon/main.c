/* main.c - the silicon comparison: options, the loop, the report. tests/silicon/run --help tells how it is
 * used. */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "silicon.h"

static struct {
	double seconds;	      /* 0: until the cases are through */
	unsigned each;	      /* cases of every form; 0: no such end */
	unsigned long blocks; /* with each: that many blocks */
	unsigned percent;     /* of blocks, without each */
	unsigned long seed;
	bool side[SIDES];
	bool coverage, shrink;
	unsigned max_failures;
	const char *replay, *file;
	char dir[4096];
} opt = {.seconds = 60, .percent = 30, .seed = 1, .shrink = true, .max_failures = 20};

static struct {
	unsigned long cases, blocks, insns, compared[SIDES], failures, private, undefined, endless, unsteady;
} count;
static unsigned *form_cases; /* in single cases, and in blocks */
static volatile sig_atomic_t interrupted;
/* A case of this batch did, and was excused, what may have written to others' slots or to the oracle itself.
 */
static bool spoilt;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* ------------------------------------------------------------------ failures */

static unsigned compare_sides(const struct testcase *t, unsigned k, enum side_id s)
{
	return compare(t, s, side_result(SILICON, k), side_result(s, k), side_data(SILICON, t),
		       side_data(s, t));
}

/* Runs one case by itself on silicon and s. */
static unsigned run_one(const struct testcase *t, enum side_id s)
{
	unsigned at;

	for (unsigned n = 0; n < 2; n++) {
		enum side_id id = n ? s : SILICON;
		if (side_start(id, opt.dir))
			exit(2);
		if (side_run(id, t, 1, &at)) {
			side_stop(id, true);
			return DIFF_DIED;
		}
	}
	return compare_sides(t, 0, s);
}

unsigned shrink_test(const struct testcase *t, enum side_id s)
{
	return run_one(t, s);
}

/* The oracle has no memory of earlier cases, except where one wrote into its private pages. */
static bool steady(const struct testcase *t)
{
	static struct silicon_result first;
	static uint8_t data[DATA_BYTES];
	unsigned at;

	first = *side_result(SILICON, 0);
	memcpy(data, side_data(SILICON, t), DATA_BYTES);
	side_stop(SILICON, true);
	if (side_start(SILICON, opt.dir) || side_run(SILICON, t, 1, &at))
		return false;
	return !compare(t, SILICON, &first, side_result(SILICON, 0), data, side_data(SILICON, t));
}

static void say_difference(const struct testcase *t, enum side_id s, unsigned diff)
{
	if (diff & DIFF_DIED) {
		printf("%s does not survive this case, or does not end it\n"
		       "tests/silicon/run --engine %s --replay '",
		       side_names[s], side_names[s]);
		case_print(stdout, t);
		puts("'");
		return;
	}
	print_difference(stdout, t, s, side_result(SILICON, 0), side_result(s, 0), side_data(SILICON, t),
			 side_data(s, t));
}

static bool seen_before(const struct testcase *t, enum side_id s, unsigned diff)
{
	static struct {
		unsigned form, diff, side, times;
	} seen[256];
	static unsigned n;
	unsigned form = t->ninsn == 1 ? t->insn[0].form : FORM_NONE;

	for (unsigned k = 0; k < n; k++)
		if (seen[k].form == form && seen[k].diff == diff && seen[k].side == s)
			return ++seen[k].times > (form == FORM_NONE ? 8 : 2);
	if (n < 256) {
		seen[n].form = form;
		seen[n].diff = diff;
		seen[n].side = s;
		seen[n++].times = 1;
	}
	return false;
}

/* The batch's first difference as it was. Running any case again overwrites results. */
static struct finding {
	const struct testcase *t;
	enum side_id side;
	struct silicon_result want, got;
	uint8_t want_data[DATA_BYTES], got_data[DATA_BYTES];
} found_as;

static void remember(const struct testcase *t, unsigned k, enum side_id s)
{
	found_as.t = t;
	found_as.side = s;
	found_as.want = *side_result(SILICON, k);
	found_as.got = *side_result(s, k);
	memcpy(found_as.want_data, side_data(SILICON, t), DATA_BYTES);
	memcpy(found_as.got_data, side_data(s, t), DATA_BYTES);
}

static void report(const struct testcase *found, enum side_id s, unsigned diff)
{
	struct testcase t = *found;
	char name[64] = "block";
	unsigned alone;

	count.failures++;
	if (seen_before(found, s, diff) || count.failures > 20 * opt.max_failures)
		return;
	alone = run_one(&t, s);
	if ((!alone && spoilt) || (!(diff & DIFF_DIED) && !(alone & DIFF_DIED) && !steady(&t))) {
		count.failures--;
		count.unsteady++;
		return;
	}
	if (t.ninsn == 1 && t.insn[0].form != FORM_NONE)
		form_name(&forms[t.insn[0].form], name, sizeof name);
	printf("\nDIFFERENCE (%s, %s, %#x): %s\n", side_names[s], alone ? "by itself" : "only in its batch",
	       diff, name);
	if (alone && opt.shrink)
		shrink(&t, s);
	if (alone)
		say_difference(&t, s, run_one(&t, s));
	else if (found == found_as.t && s == found_as.side)
		print_difference(stdout, &t, s, &found_as.want, &found_as.got, found_as.want_data,
				 found_as.got_data);
	else
		case_print(stdout, &t);
	fflush(stdout);
}

/* ------------------------------------------------------------------ the loop */

static void take(const struct testcase *t, enum side_id s, unsigned diff)
{
	count.compared[s]++;
	if (diff == 0 || diff == DIFF_EXCUSED)
		return;
	diff &= ~DIFF_EXCUSED;
	if (diff == DIFF_PRIVATE)
		count.private ++;
	else if (diff == DIFF_UNDEFINED)
		count.undefined++;
	else
		report(t, s, diff);
}

/* Runs a batch on all sides. The comparisons come last: what they re-run overwrites results. */
static void run_batch(const struct testcase *t, unsigned n)
{
	static unsigned diff[SIDES][SLOTS];
	unsigned at = 0;

	memset(diff, 0, sizeof diff);
	for (enum side_id s = SILICON; s < SIDES; s++) {
		if (!opt.side[s])
			continue;
		if (side_start(s, opt.dir))
			exit(2);
		if (side_run(s, t, n, &at) == 0)
			continue;
		side_stop(s, true);
		if (s == SILICON)
			count.endless += n;
		else
			report(&t[at < n ? at : 0], s, DIFF_DIED);
		return;
	}
	spoilt = false;
	found_as.t = NULL;
	for (enum side_id s = INTERP; s < SIDES; s++)
		for (unsigned k = 0; k < n && opt.side[s]; k++) {
			diff[s][k] = compare_sides(&t[k], k, s);
			spoilt |= diff[s][k] & (DIFF_PRIVATE | DIFF_EXCUSED);
			if ((diff[s][k] & DIFF_FAILURE) && !found_as.t)
				remember(&t[k], k, s);
		}
	for (unsigned k = 0; k < n; k++) {
		bool touched = diff[INTERP][k] == DIFF_PRIVATE || diff[BT][k] == DIFF_PRIVATE;
		/* such a case may have spoilt the oracle and those after it */
		for (enum side_id s = INTERP; s < SIDES; s++)
			if (opt.side[s])
				take(&t[k], s, diff[s][k]);
		if (touched)
			side_stop(SILICON, true);
	}
}

static void add_coverage(const struct testcase *t)
{
	count.cases++;
	count.blocks += t->ninsn > 1;
	count.insns += t->ninsn;
	for (unsigned k = 0; k < t->ninsn; k++)
		if (t->insn[k].form < form_count)
			form_cases[t->insn[k].form + (t->ninsn > 1 ? form_count : 0)]++;
}

/* Every form in turn; without an end by number, a share of blocks in between. */
static bool next_case(struct testcase *t, unsigned slot)
{
	static unsigned form, round_;
	static unsigned long blocks;

	case_init(t, slot);
	if (opt.each ? blocks < opt.blocks && (round_ == opt.each || chance(opt.percent))
		     : chance(opt.percent)) {
		make_block(t);
		blocks++;
		return true;
	}
	if (opt.each && round_ == opt.each)
		return false;
	make_single(t, form);
	if (++form == form_count) {
		form = 0;
		round_++;
	}
	return true;
}

static void status(double start, bool last)
{
	static double then;
	double t = now();
	bool tty = isatty(STDERR_FILENO);

	if (!last && t - then < (tty ? 1 : 30))
		return;
	then = t;
	fprintf(stderr,
		"%s%lu cases, %lu blocks, %lu instructions, %lu differences, %.0f cases/s (%.1f million an "
		"hour)%s",
		tty ? "\r" : "", count.cases, count.blocks, count.insns, count.failures,
		(double)count.cases / (t - start), (double)count.cases / (t - start) * 3600 / 1e6,
		tty && !last ? "" : "\n");
}

static void run_random(void)
{
	static struct testcase t[SLOTS];
	double start = now();
	bool more = true;

	while (more && !interrupted && count.failures < opt.max_failures * 20ul &&
	       (!opt.seconds || now() - start < opt.seconds)) {
		unsigned n = 0;

		while (n < SLOTS && (more = next_case(&t[n], n))) {
			add_coverage(&t[n]);
			n++;
		}
		if (n)
			run_batch(t, n);
		status(start, false);
	}
	status(start, true);
}

/* ------------------------------------------------------------------ given cases */

static void run_line(const char *line)
{
	struct testcase t;

	if (case_parse(&t, line))
		exit(2);
	if (!t.ninsn) {
		t.insn[0].len = (uint8_t)t.c.code_len;
		t.insn[0].form = FORM_NONE;
		t.ninsn = 1;
	}
	count.cases++;
	for (enum side_id s = INTERP; s < SIDES; s++) {
		unsigned diff;
		if (!opt.side[s])
			continue;
		diff = run_one(&t, s);
		count.compared[s]++;
		if (diff & DIFF_FAILURE) {
			count.failures++;
			say_difference(&t, s, diff);
		} else if (opt.replay) {
			print_difference(stdout, &t, s, side_result(SILICON, 0), side_result(s, 0),
					 side_data(SILICON, &t), side_data(s, &t));
			puts("no difference");
		}
	}
}

static void run_file(void)
{
	FILE *f = fopen(opt.file, "r");
	char *line = NULL;
	size_t room = 0;

	if (!f) {
		perror(opt.file);
		exit(2);
	}
	while (getline(&line, &room, f) > 0)
		if (!strncmp(line, "slot=", 5))
			run_line(line);
	free(line);
	fclose(f);
}

/* ------------------------------------------------------------------ reports */

static void print_coverage(void)
{
	char name[80];

	for (unsigned k = 0; k < form_count; k++) {
		form_name(&forms[k], name, sizeof name);
		printf("%8u %8u  %s\n", form_cases[k], form_cases[form_count + k], name);
	}
}

/* Of all processes, those that have been waited for. */
static double cpu_seconds(void)
{
	static const int who[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
	struct rusage u;
	double s = 0;

	for (unsigned k = 0; k < 2; k++)
		if (!getrusage(who[k], &u))
			s += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
			     (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	return s;
}

static int summary(void)
{
	unsigned fewest = ~0u;

	for (unsigned k = 0; k < form_count; k++)
		if (form_cases[k] < fewest)
			fewest = form_cases[k];
	if (opt.coverage)
		print_coverage();
	printf("%lu cases (%lu of them blocks), %lu instructions; %u forms, each at least %u times; compared "
	       "with",
	       count.cases, count.blocks, count.insns, form_count, opt.replay || opt.file ? 0 : fewest);
	for (enum side_id s = INTERP; s < SIDES; s++)
		if (opt.side[s])
			printf(" %s %lu", side_names[s], count.compared[s]);
	printf("\n%lu differences; %lu only in undefined flags, %lu cases touched the oracle's own pages, "
	       "%lu spoilt by that, %lu in batches that did not end on silicon\n",
	       count.failures, count.undefined, count.private, count.unsteady, count.endless);
	print_excuses(stdout);
	printf("%.0f s of CPU time, %.1f million cases in an hour of it\n", cpu_seconds(),
	       (double)count.cases / cpu_seconds() * 3600 / 1e6);
	return count.failures != 0;
}

static const char help[] = "usage: tests/silicon/run [OPTION...]\n"
			   "Runs random user-level code on this CPU and in bt86, and compares.\n"
			   "  --seconds N     for so long (60)\n"
			   "  --each N        until every opcode form has been run N times (no time limit)\n"
			   "  --blocks N      and, with --each, N random blocks (0)\n"
			   "  --percent N     share of blocks otherwise (30)\n"
			   "  --seed S        where the random numbers start (1)\n"
			   "  --engine E      bt, interp or both (both)\n"
			   "  --replay CASE   this case only\n"
			   "  --file FILE     the cases in FILE only, one a line\n"
			   "  --failures N    give up after about N different ones (20)\n"
			   "  --no-shrink     print failing cases as they were found\n"
			   "  --coverage      print how often each form was run, alone and in blocks\n"
			   "Exit status: 0 no differences, 1 differences, 2 it could not run.\n";

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{"seconds", 1, 0, 's'},	 {"each", 1, 0, 'e'},
		{"blocks", 1, 0, 'b'},	 {"percent", 1, 0, 'p'},
		{"seed", 1, 0, 'S'},	 {"engine", 1, 0, 'E'},
		{"replay", 1, 0, 'r'},	 {"file", 1, 0, 'f'},
		{"failures", 1, 0, 'F'}, {"no-shrink", 0, 0, 'n'},
		{"coverage", 0, 0, 'c'}, {"help", 0, 0, 'h'},
		{"stats", 0, 0, 't'},	 {0},
	};
	const char *engine = "both";
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (o) {
		case 's':
			opt.seconds = strtod(optarg, NULL);
			break;
		case 'e':
			opt.each = (unsigned)strtoul(optarg, NULL, 0);
			opt.seconds = 0;
			break;
		case 'b':
			opt.blocks = strtoul(optarg, NULL, 0);
			break;
		case 'p':
			opt.percent = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'S':
			opt.seed = strtoul(optarg, NULL, 0);
			break;
		case 'E':
			engine = optarg;
			break;
		case 'r':
			opt.replay = optarg;
			break;
		case 'f':
			opt.file = optarg;
			break;
		case 'F':
			opt.max_failures = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'n':
			opt.shrink = false;
			break;
		case 't':
			side_stats = true;
			break;
		case 'c':
			opt.coverage = true;
			break;
		case 'h':
			fputs(help, stdout);
			exit(0);
		default:
			fputs(help, stderr);
			exit(2);
		}
	}
	opt.side[SILICON] = true;
	opt.side[BT] = strcmp(engine, "interp") != 0;
	opt.side[INTERP] = strcmp(engine, "bt") != 0;
}

int main(int argc, char **argv)
{
	ssize_t n = readlink("/proc/self/exe", opt.dir, sizeof opt.dir - 1);

	if (n <= 0)
		return 2;
	opt.dir[n] = 0;
	*strrchr(opt.dir, '/') = 0;
	parse_options(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, on_interrupt);
	signal(SIGTERM, on_interrupt);
	forms_init();
	images_init();
	form_cases = calloc(2 * form_count, sizeof *form_cases);
	rnd_seed(opt.seed);
	if (opt.replay)
		run_line(opt.replay);
	else if (opt.file)
		run_file();
	else
		run_random();
	for (enum side_id s = SILICON; s < SIDES; s++)
		side_stop(s, false);
	return summary();
}
