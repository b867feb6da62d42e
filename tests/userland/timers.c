/* Sleeps and timers against the monotonic clock, and the clocks against each other. Prints pass or fail, and with
 * -v the figures. Short sleeps are allowed what a wake-up costs. */
#include <signal.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "common.h"

static int verbose, failures;

static double now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void judge(const char *name, double expected, double measured, double slack)
{
	double error = measured - expected;
	int good = error > -expected * 0.01 && error < expected * 0.01 + slack;

	if (verbose)
		fprintf(stderr, "%s: expected %.6f measured %.6f\n", name, expected, measured);
	printf("%s: %s\n", name, good ? "pass" : "fail");
	failures += !good;
}

static volatile sig_atomic_t ticks;
static void tick(int number)
{
	(void)number;
	ticks++;
}

int main(int argc, char **argv)
{
	static const unsigned milliseconds[] = {20, 100, 500, 1000};
	struct itimerval interval = {{0, 10000}, {0, 10000}};
	double start, wall, cpu;
	unsigned long backwards = 0;

	(void)argv;
	verbose = argc > 1;
	for (unsigned i = 0; i < sizeof(milliseconds) / sizeof(milliseconds[0]); i++) {
		struct timespec t = {milliseconds[i] / 1000, milliseconds[i] % 1000 * 1000000};
		char name[40];

		snprintf(name, sizeof(name), "sleep %u ms", milliseconds[i]);
		start = now(CLOCK_MONOTONIC);
		nanosleep(&t, NULL);
		judge(name, milliseconds[i] / 1e3, now(CLOCK_MONOTONIC) - start, 0.005);
	}

	signal(SIGALRM, tick);
	start = now(CLOCK_MONOTONIC);
	setitimer(ITIMER_REAL, &interval, NULL);
	while (ticks < 200)
		pause();
	judge("200 ticks of 10 ms", 2.0, now(CLOCK_MONOTONIC) - start, 0.005);

	/* the same while computing: the timer has to interrupt translated code */
	ticks = 0;
	start = now(CLOCK_MONOTONIC);
	volatile uint32_t x = 0;
	while (ticks < 100)
		x = x * 3 + 1;
	judge("100 ticks in a busy loop", 1.0, now(CLOCK_MONOTONIC) - start, 0.010);
	interval.it_value.tv_usec = interval.it_interval.tv_usec = 0;
	setitimer(ITIMER_REAL, &interval, NULL);

	start = now(CLOCK_MONOTONIC);
	wall = now(CLOCK_REALTIME);
	sleep(2);
	judge("clocks agree", now(CLOCK_MONOTONIC) - start, now(CLOCK_REALTIME) - wall, 0.001);

	start = now(CLOCK_MONOTONIC);
	cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	for (double last = start; last - start < 0.5;) {
		double t = now(CLOCK_MONOTONIC);

		backwards += t < last;
		last = t;
	}
	cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	printf("monotonic: %s\n", backwards ? "fail" : "pass");
	if (verbose)
		fprintf(stderr, "processor time for 0.5 s of work: %.6f\n", cpu);
	return failures || backwards;
}
