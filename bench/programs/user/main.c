/* The command line, the clock, and the lines printed. */
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "bench.h"

#define MIN_RUNS 3u
#define MAX_RUNS 500u
#define RUN_NS	 1500000u /* what a run takes whose operations are not fixed */

const char *bench_path;

static const struct group groups[] = {
	{"compute", compute_code}, {"compute", compute_data}, {"compute", compute_memory},
	{"os", os_calls},	   {"os", os_processes},      {"os", os_memory},
};

static unsigned budget_ms = 250;
static bool once; /* the first run is all */

void bench_fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("bench: ", stdout);
	vprintf(format, arguments);
	fputc('\n', stdout);
	va_end(arguments);
	exit(1);
}

void text_make(char *text, size_t size, uint64_t seed)
{
	static const char *const words[] = {
		"the",	  "of",	    "memory", "and",  "page",	 "a",	  "to",	   "fault",
		"in",	  "kernel", "window", "is",   "address", "that",  "code",  "it",
		"was",	  "table",  "cache",  "with", "block",	 "entry", "trace", "return",
		"branch", "value",  "when",   "host", "guest",	 "x",	  "never", "42",
	};
	size_t at = 0;

	while (at < size) {
		const char *word = words[random_next(&seed) & random_next(&seed) & 31];
		size_t length = strlen(word);

		if (length >= size - at)
			length = size - at - 1;
		memcpy(text + at, word, length);
		at += length;
		text[at++] = random_next(&seed) % 12 ? ' ' : '\n';
	}
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

struct sample {
	uint64_t ns, cycles, sum;
};

static struct sample sample(const struct bench *b, unsigned n)
{
	struct sample s;
	uint64_t start = now(), tsc = __rdtsc();

	s.sum = b->run(n);
	s.cycles = __rdtsc() - tsc;
	s.ns = now() - start;
	return s;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static unsigned calibrate(const struct bench *b)
{
	unsigned n = 1;

	while (sample(b, n).ns < RUN_NS && sample(b, n).ns < RUN_NS && n < 1u << 24)
		n *= 2;
	return n;
}

static void measure(const struct bench *b)
{
	static uint64_t ns[MAX_RUNS];
	unsigned n = b->operations, runs = 0;
	uint64_t cycles = UINT64_MAX, end;
	struct sample first;

	if (b->prepare)
		b->prepare();
	first = sample(b, n ? n : 1);
	if (once) {
		n = n ? n : 1;
		ns[runs++] = first.ns;
		cycles = first.cycles;
	} else if (!n)
		n = calibrate(b);
	end = now() + budget_ms * 1000000ull;
	while (!once && runs < MAX_RUNS && (runs < MIN_RUNS || now() < end)) {
		struct sample s = sample(b, n);

		if (b->operations && s.sum != first.sum)
			bench_fail("%s: checksum %016llx, then %016llx", b->name,
				   (unsigned long long)first.sum, (unsigned long long)s.sum);
		ns[runs++] = s.ns;
		cycles = s.cycles < cycles ? s.cycles : cycles;
	}
	if (b->finish)
		b->finish();
	qsort(ns, runs, sizeof(ns[0]), compare);
	printf("bench %s runs=%u operations=%u first=%.3f minimum=%.3f median=%.3f cycles=%.3f", b->name,
	       runs, n, (double)first.ns / (b->operations ? n : 1), (double)ns[0] / n,
	       (double)ns[runs / 2] / n, (double)cycles / n);
	if (b->operations)
		printf(" checksum=%016llx", (unsigned long long)first.sum);
	putchar('\n');
	fflush(stdout);
}

/* One CPU is what the guests have: what is passed between processes stays on it. */
static void pin(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static unsigned run_named(const char *name)
{
	unsigned done = 0;

	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		for (const struct bench *b = groups[i].benches; b->name; b++)
			if (!strcmp(name, b->name) || !strcmp(name, groups[i].name)) {
				if (!strcmp(groups[i].name, "os"))
					pin();
				measure(b);
				done++;
			}
	return done;
}

static int run(int count, char **names)
{
	for (int i = 0; i < count; i++) {
		if (!strcmp(names[i], "-t") && i + 1 < count)
			budget_ms = (unsigned)atoi(names[++i]);
		else if (!strcmp(names[i], "-1"))
			once = true;
		else if (!run_named(names[i]))
			bench_fail("there is no benchmark '%s'", names[i]);
	}
	return 0;
}

static int list(void)
{
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		for (const struct bench *b = groups[i].benches; b->name; b++)
			printf("%s %s\n", groups[i].name, b->name);
	return 0;
}

/* What the command prints is dropped; its status counts. */
static int time_command(char **command)
{
	uint64_t start = now(), tsc = __rdtsc();
	int status;
	pid_t child = fork();

	if (!child) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, 1);
		execv(command[0], command);
		_exit(127);
	}
	expect(child > 0);
	expect(waitpid(child, &status, 0) == child);
	tsc = __rdtsc() - tsc;
	printf("time %llu cycles=%llu status=%d\n", (unsigned long long)(now() - start),
	       (unsigned long long)tsc, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}

static int data(size_t size)
{
	static char buffer[65536];

	for (uint64_t seed = 1; size; seed++) {
		size_t part = size < sizeof(buffer) ? size : sizeof(buffer);

		text_make(buffer, part, seed);
		expect(fwrite(buffer, part, 1, stdout) == 1);
		size -= part;
	}
	return fflush(stdout);
}

int main(int count, char **words)
{
	bench_path = words[0];
	if (count > 1 && !strcmp(words[1], "nothing"))
		return 0;
	if (count > 1 && !strcmp(words[1], "list"))
		return list();
	if (count > 2 && !strcmp(words[1], "run"))
		return run(count - 2, words + 2);
	if (count > 2 && !strcmp(words[1], "time"))
		return time_command(words + 2);
	if (count > 2 && !strcmp(words[1], "data"))
		return data(strtoul(words[2], NULL, 0));
	fputs("usage: bench list | run [-1] [-t MILLISECONDS] NAME... | time COMMAND... | data BYTES\n",
	      stderr);
	return 2;
}
