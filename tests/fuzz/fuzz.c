/* fuzz.c - the fuzzer's driver.
 *
 * Neither libFuzzer nor AFL++ fits: both want to run inputs in a process whose signal handlers and address
 * space are theirs, and a case here owns SIGSEGV, an alternate stack, the gs base and a terabyte of fixed
 * mappings. What is taken over from them is the method. A child process runs a batch of cases, each on
 * machines of its own; the recipe of the case at hand is in shared memory, so that whatever happens to the
 * child the parent can tell which case did it. In a build that counts branches (preset fuzz) cases that reach
 * something new are kept and changed further.
 *
 * A finding is confirmed alone, in a fresh process, then made smaller as long as it stays the same kind of
 * finding, and written to a file that --replay takes.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "coverage.h"
#include "execute.h"
#include "generate.h"
#include "vmm/vmm.h"

#define BATCH	      128u
#define POOL_MAX      4096u
#define NEW_MAX	      BATCH
#define STALL_S	      30  /* CPU time without progress: a hang */
#define SLEEP_S	      300 /* the same by the clock: it sleeps, or the machine is very busy */
#define SHRINK_MAX    24  /* findings that are made smaller; what comes later is kept as it is */
#define SHRINK_S      20
#define LOCKSTEP_EACH 8u
#define SAID_MAX      4000

struct shared {
	struct recipe now;
	uint64_t progress, counts[VERDICTS], steps;
	enum verdict verdict; /* of the case that ended the batch, if it is a finding */
	char what[300];
	unsigned n_new;
	struct recipe new[NEW_MAX];
	uint8_t seen[COVERAGE_SLOTS]; /* bit n: passed about 2^n times */
};

static struct shared *shared;
static struct recipe pool[POOL_MAX];
static unsigned pool_n;
static uint64_t seed = 1;
static const char *out_dir = ".";
static const char *program;
static int said_fd; /* where children's standard error goes */
static unsigned findings;
static struct fuzz_case scratch;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ------------------------------------------------------------------ children */

static bool lockstep_too(const struct recipe *r)
{
	return r->seed % LOCKSTEP_EACH == 0;
}

static void hush(void)
{
	if (ftruncate(said_fd, 0) < 0 || lseek(said_fd, 0, SEEK_SET) < 0)
		_exit(9);
}

/* What a child is for, run in it. Reports through shared; a finding ends it. */
static void child_try(const struct fuzz_case *k, bool lockstep)
{
	hush();
	memset(coverage, 0, sizeof coverage);
	const enum verdict v = execute_case(k, lockstep, shared->what, sizeof shared->what);
	shared->progress++;
	shared->steps += execute_steps;
	shared->counts[v]++;
	shared->verdict = v;
	if (verdict_is_finding(v))
		_exit(0);
}

static pid_t spawn(void)
{
	const pid_t parent = getpid();
	fflush(NULL);
	const pid_t pid = fork();

	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent || dup2(said_fd, STDERR_FILENO) < 0)
			_exit(9);
	} else {
		shared->verdict = VERDICT_SAME;
	}
	return pid;
}

static double cpu_time(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t) < 0)
		return 0;
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Waits for the child; the verdict that ended it, VERDICT_SAME if none did. */
static enum verdict reap(pid_t pid)
{
	uint64_t seen = shared->progress;
	double since = now(), cpu = 0;
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		const struct timespec nap = {.tv_nsec = 2000000};
		nanosleep(&nap, NULL);
		if (shared->progress != seen) {
			seen = shared->progress;
			since = now();
			cpu = cpu_time(pid);
		} else if (cpu_time(pid) - cpu > STALL_S || now() - since > SLEEP_S) {
			snprintf(shared->what, sizeof shared->what,
				 "no progress in %.0f s, %.0f s of CPU time", now() - since,
				 cpu_time(pid) - cpu);
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			return VERDICT_HANG;
		}
	}
	if (WIFSIGNALED(status))
		snprintf(shared->what, sizeof shared->what, "killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status))
		snprintf(shared->what, sizeof shared->what, "left with status %d", WEXITSTATUS(status));
	else
		return shared->verdict;
	return VERDICT_CRASH;
}

static enum verdict try_alone(const struct fuzz_case *k, bool lockstep)
{
	const pid_t pid = spawn();

	if (pid == 0) {
		shared->verdict = VERDICT_SAME;
		child_try(k, lockstep);
		_exit(0);
	}
	return reap(pid);
}

/* What the last child had to say on standard error. */
static const char *said(void)
{
	static char text[SAID_MAX];
	const ssize_t n = pread(said_fd, text, sizeof text - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return text;
}

/* ------------------------------------------------------------------ making a finding smaller */

struct shrink {
	struct fuzz_case *best, *attempt;
	enum verdict kind;
	bool lockstep;
	double until;
	unsigned tries;
};

static bool still(struct shrink *s)
{
	s->tries++;
	if (try_alone(s->attempt, s->lockstep) != s->kind) {
		*s->attempt = *s->best;
		return false;
	}
	*s->best = *s->attempt;
	return true;
}

static bool all(const uint8_t *p, uint8_t v, uint32_t n)
{
	while (n--)
		if (*p++ != v)
			return false;
	return true;
}

static void shrink_range(struct shrink *s, uint32_t at, uint32_t n)
{
	static const uint8_t fill[] = {0, 0x90};

	if (now() > s->until || all(s->best->ram + at, 0, n) || all(s->best->ram + at, 0x90, n))
		return;
	for (unsigned f = 0; f < 2; f++) {
		memset(s->attempt->ram + at, fill[f], n);
		if (still(s))
			return;
	}
	if (n > 1) {
		shrink_range(s, at, n / 2);
		shrink_range(s, at + n / 2, n / 2);
	}
}

static void shrink(struct fuzz_case *k, enum verdict kind, bool lockstep)
{
	struct shrink s = {.best = k, .kind = kind, .lockstep = lockstep, .until = now() + SHRINK_S};

	s.attempt = malloc(sizeof *s.attempt);
	if (!s.attempt)
		return;
	*s.attempt = *k;
	for (unsigned r = 0; r < 8; r++) {
		s.attempt->cpu.gpr[r] = 0;
		still(&s);
	}
	s.attempt->cpu.flags = 0;
	still(&s);
	for (uint32_t at = 0; at < CASE_RAM; at += 0x10000)
		shrink_range(&s, at, 0x10000);
	try_alone(k, lockstep); /* for what it says */
	free(s.attempt);
}

/* ------------------------------------------------------------------ findings */

static uint64_t hash_case(const struct fuzz_case *k)
{
	uint64_t h = 14695981039346656037ull;

	for (uint32_t i = 0; i < CASE_RAM; i++)
		h = (h ^ k->ram[i]) * 1099511628211ull;
	return h;
}

static void save(struct fuzz_case *k, enum verdict v, bool lockstep)
{
	char path[PATH_MAX], comment[SAID_MAX + 700];

	if (findings <= SHRINK_MAX)
		shrink(k, v, lockstep);
	snprintf(comment, sizeof comment, "%s%s: %s\n%s", verdict_names[v], lockstep ? " (lockstep)" : "",
		 shared->what, said());
	snprintf(path, sizeof path, "%s/%s-%012lx.case", out_dir, verdict_names[v],
		 hash_case(k) & 0xffffffffffff);
	for (char *p = path + strlen(out_dir); *p; p++)
		if (*p == ' ')
			*p = '-';
	if (case_write(k, path, comment) == 0)
		printf("%s: %s\n  again: %s --replay%s %s\n", verdict_names[v], shared->what, program,
		       lockstep ? " --lockstep" : "", path);
	fflush(stdout);
}

static void finding(const struct recipe *r, enum verdict v)
{
	const bool lockstep = lockstep_too(r);
	char first[sizeof shared->what], complaint[SAID_MAX];

	findings++;
	snprintf(first, sizeof first, "%s", shared->what);
	snprintf(complaint, sizeof complaint, "%s", said());
	generate_case(&scratch, r);
	/* What fails without lockstep is better looked at without it. */
	const enum verdict plain = try_alone(&scratch, false);
	if (verdict_is_finding(plain)) {
		save(&scratch, plain, false);
		return;
	}
	const enum verdict again = try_alone(&scratch, lockstep);
	if (verdict_is_finding(again)) {
		save(&scratch, again, lockstep);
		return;
	}
	printf("%s%s in the course of a batch, not when run alone: %s (seed %lu, %u changes)\n", complaint,
	       verdict_names[v], first, r->seed, r->n);
}

/* ------------------------------------------------------------------ fuzzing */

static uint8_t bucket(uint8_t n)
{
	static const uint8_t from[] = {1, 2, 3, 4, 8, 16, 32, 128};
	uint8_t b = 0;

	for (unsigned i = 0; i < sizeof from; i++)
		if (n >= from[i])
			b = (uint8_t)(1u << i);
	return b;
}

static bool reached_something_new(void)
{
	bool is_new = false;

	for (unsigned i = 0; i < COVERAGE_SLOTS; i++) {
		if (!coverage[i])
			continue;
		const uint8_t b = bucket(coverage[i]);
		is_new |= !(shared->seen[i] & b);
		shared->seen[i] |= b;
	}
	return is_new;
}

static struct recipe next_recipe(struct rng *r)
{
	struct recipe k = {.seed = rng_next(r)};

	if (pool_n && rng_percent(r, 60)) {
		const struct recipe *p = &pool[rng_below(r, pool_n)];
		if (p->n < RECIPE_CHANGES)
			k = *p;
		k.change[k.n++] = rng_next(r);
	}
	return k;
}

static void run_batch(uint64_t number, unsigned n)
{
	struct rng r = {seed * 0x2545f4914f6cdd1dull + number};

	while (n--) {
		shared->now = next_recipe(&r);
		generate_case(&scratch, &shared->now);
		child_try(&scratch, lockstep_too(&shared->now));
		if (reached_something_new() && shared->verdict == VERDICT_SAME && shared->n_new < NEW_MAX)
			shared->new[shared->n_new++] = shared->now;
	}
	_exit(0);
}

static void adopt(void)
{
	for (unsigned i = 0; i < shared->n_new; i++)
		pool[pool_n < POOL_MAX ? pool_n++ : (unsigned)rand() % POOL_MAX] = shared->new[i];
	shared->n_new = 0;
}

static uint64_t executed(void)
{
	uint64_t n = findings;

	for (unsigned v = 0; v < VERDICTS; v++)
		n += verdict_is_finding((enum verdict)v) ? 0 : shared->counts[v];
	return n;
}

static void status_line(double start, const char *end)
{
	unsigned places = 0;
	const double t = now() - start;

	for (unsigned i = 0; i < COVERAGE_SLOTS; i++)
		places += shared->seen[i] != 0;
	printf("%s%5.0f s  %lu cases (%.0f/s)  same %lu  not compared %lu  TLB-dependent %lu  "
	       "instructions %.1fM  branches %u  pool %u  findings %u%s",
	       isatty(STDOUT_FILENO) ? "\r" : "", t, executed(), (double)executed() / (t > 0 ? t : 1),
	       shared->counts[VERDICT_SAME], shared->counts[VERDICT_UNEQUAL], shared->counts[VERDICT_TLB],
	       (double)shared->steps * 1e-6, places, pool_n, findings, end);
	fflush(stdout);
}

/* Until the time is up or so many cases have run. */
static void fuzz(double minutes, uint64_t cases)
{
	const double start = now(), end = start + minutes * 60;
	double shown = start;

	for (uint64_t number = 0; now() < end && executed() < cases; number++) {
		const uint64_t left = cases - executed();
		const pid_t pid = spawn();
		if (pid == 0)
			run_batch(number, left < BATCH ? (unsigned)left : BATCH);
		const enum verdict v = reap(pid);
		adopt();
		if (verdict_is_finding(v)) {
			const struct recipe r = shared->now;
			const uint64_t steps = shared->steps;
			uint64_t counts[VERDICTS];
			memcpy(counts, shared->counts, sizeof counts);
			finding(&r, v);
			memcpy(shared->counts, counts, sizeof counts); /* without the attempts to shrink it */
			shared->steps = steps;
		}
		if (now() - shown > (isatty(STDOUT_FILENO) ? 1 : 60)) {
			shown = now();
			status_line(start, isatty(STDOUT_FILENO) ? "" : "\n");
		}
	}
	status_line(start, "\n");
}

/* ------------------------------------------------------------------ command line */

static void replay(const char *path, bool lockstep)
{
	if (case_read(&scratch, path) < 0)
		exit(2);
	const enum verdict v = try_alone(&scratch, lockstep);
	const bool bad = verdict_is_finding(v);

	findings += bad;
	printf("%s: %s%s%s\n%s", path, verdict_names[v], bad ? ": " : "", bad ? shared->what : "",
	       bad ? said() : "");
}

/* In this process, with the VMM's log. */
static void trace(const char *path, bool lockstep)
{
	char what[300];

	if (case_read(&scratch, path) < 0)
		exit(2);
	const enum verdict v = execute_case(&scratch, lockstep, what, sizeof what);
	printf("%s: %s %s\n", path, verdict_names[v], what);
}

static void shrink_file(const char *path, bool lockstep)
{
	if (case_read(&scratch, path) < 0)
		exit(2);
	const enum verdict v = try_alone(&scratch, lockstep);
	if (verdict_is_finding(v))
		save(&scratch, v, lockstep);
	else
		printf("%s: %s\n", path, verdict_names[v]);
}

static void usage(FILE *f)
{
	fputs("usage: fuzz [--minutes N] [--cases N] [--seed S] [--out DIR]   generate and run\n"
	      "       fuzz [--lockstep] --replay FILE...                      run these cases\n"
	      "       fuzz [--lockstep] --trace FILE...                       the same in this process, "
	      "under a debugger say\n"
	      "       fuzz [--lockstep] [--out DIR] --shrink FILE...          make these smaller\n"
	      "       fuzz --make SEED FILE                                   write the case that a seed "
	      "makes\n"
	      "Status: 0 nothing found, 1 findings, 2 something is wrong.\n",
	      f);
}

static void init(void)
{
	said_fd = memfd_create("said", 0);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (said_fd < 0 || shared == MAP_FAILED) {
		perror("fuzz");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"minutes", 1, 0, 'm'}, {"cases", 1, 0, 'n'},	 {"seed", 1, 0, 's'},	{"out", 1, 0, 'o'},
		{"replay", 0, 0, 'r'},	{"trace", 0, 0, 't'},	 {"shrink", 0, 0, 'k'}, {"make", 1, 0, 'M'},
		{"log", 1, 0, 'd'},	{"lockstep", 0, 0, 'l'}, {"help", 0, 0, 'h'},	{0}};
	double minutes = 1e9;
	uint64_t cases = UINT64_MAX, make = 0;
	bool lockstep = false;
	int mode = 0, o;

	program = argv[0];
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'm':
			minutes = atof(optarg);
			break;
		case 'n':
			cases = strtoull(optarg, NULL, 0);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'o':
			out_dir = optarg;
			break;
		case 'd':
			log_mask = (uint32_t)strtoul(optarg, NULL, 0);
			break;
		case 'l':
			lockstep = true;
			break;
		case 'M':
			make = strtoull(optarg, NULL, 0);
			mode = o;
			break;
		case 'r':
		case 't':
		case 'k':
			mode = o;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	init();
	for (int i = optind; i < argc; i++) {
		if (mode == 'r')
			replay(argv[i], lockstep);
		else if (mode == 't')
			trace(argv[i], lockstep);
		else if (mode == 'k')
			shrink_file(argv[i], lockstep);
		else if (mode == 'M') {
			generate_case(&scratch, &(struct recipe){.seed = make});
			return case_write(&scratch, argv[i], NULL) ? 2 : 0;
		}
	}
	if (!mode)
		fuzz(minutes, cases);
	return findings ? 1 : 0;
}
