/* Sleeps and timers against the monotonic clock, and the clocks against each other. Prints pass or fail, and
 * with -v the figures. Short sleeps are allowed what a wake-up costs. What waits is tried again a few times
 * if it took too long: the processor may have been at something else, but a clock that is wrong is wrong each
 * time. */
#include <signal.h>
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

#define TRIES 20

static int fits(const char *name, double expected, double measured, double slack)
{
	double error = measured - expected;

	if (verbose)
		fprintf(stderr, "%s: expected %.6f measured %.6f\n", name, expected, measured);
	return error > -expected * 0.01 && error < expected * 0.01 + slack;
}

static void judge(const char *name, int good)
{
	printf("%s: %s\n", name, good ? "pass" : "fail");
	failures += !good;
}

/* wait(amount) returns how many seconds it should have taken. */
static void judge_wait(const char *name, double slack, double (*wait)(unsigned amount), unsigned amount)
{
	int good = 0;

	for (int i = 0; i < TRIES && !good; i++) {
		double start = now(CLOCK_MONOTONIC), expected = wait(amount);

		good = fits(name, expected, now(CLOCK_MONOTONIC) - start, slack);
	}
	judge(name, good);
}

static double sleep_ms(unsigned milliseconds)
{
	struct timespec t = {milliseconds / 1000, milliseconds % 1000 * 1000000};

	nanosleep(&t, NULL);
	return milliseconds / 1e3;
}

/* Expirations of the 10 ms timer, those too that came while the signal for another was still pending. */
static volatile sig_atomic_t ticks;
static timer_t timer;

static void tick(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	ticks += 1 + info->si_overrun;
}

static void start_ticks(void)
{
	struct itimerspec interval = {{0, 10000000}, {0, 10000000}};

	ticks = 0;
	timer_settime(timer, 0, &interval, NULL);
}

static double stop_ticks(void)
{
	struct itimerspec none = {{0, 0}, {0, 0}};
	int seen = ticks;

	timer_settime(timer, 0, &none, NULL);
	return seen * 0.01;
}

static double pause_for(unsigned count)
{
	start_ticks();
	while ((unsigned)ticks < count)
		pause();
	return stop_ticks();
}

/* The same while computing: the timer has to interrupt translated code. */
static double compute_for(unsigned count)
{
	volatile uint32_t x = 0;

	start_ticks();
	while ((unsigned)ticks < count)
		x = x * 3 + 1;
	return stop_ticks();
}

int main(int argc, char **argv)
{
	static const unsigned milliseconds[] = {20, 100, 500, 1000};
	struct sigaction action = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO};
	double start, wall, cpu;
	unsigned long backwards = 0;

	(void)argv;
	verbose = argc > 1;
	for (unsigned i = 0; i < sizeof(milliseconds) / sizeof(milliseconds[0]); i++) {
		char name[40];

		snprintf(name, sizeof(name), "sleep %u ms", milliseconds[i]);
		judge_wait(name, 0.005, sleep_ms, milliseconds[i]);
	}
	sigaction(SIGALRM, &action, NULL);
	timer_create(CLOCK_MONOTONIC, NULL, &timer); /* SIGALRM */
	judge_wait("200 ticks of 10 ms", 0.005, pause_for, 200);
	judge_wait("100 ticks in a busy loop", 0.010, compute_for, 100);

	start = now(CLOCK_MONOTONIC);
	wall = now(CLOCK_REALTIME);
	sleep(2);
	judge("clocks agree",
	      fits("clocks agree", now(CLOCK_MONOTONIC) - start, now(CLOCK_REALTIME) - wall, 0.001));

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
