/* Processes and threads: made and ended, and taking turns. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static void reap(pid_t child)
{
	int status;

	expect(waitpid(child, &status, 0) == child);
	expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static uint64_t fork_exit_run(unsigned n)
{
	for (; n; n--) {
		pid_t child = fork();

		if (!child)
			_exit(0);
		expect(child > 0);
		reap(child);
	}
	return 0;
}

static uint64_t fork_exec_run(unsigned n)
{
	char path[256], word[] = "nothing", *const words[] = {path, word, NULL};

	snprintf(path, sizeof(path), "%s", bench_path);
	for (; n; n--) {
		pid_t child = fork();

		if (!child) {
			execv(path, words);
			_exit(127);
		}
		expect(child > 0);
		reap(child);
	}
	return 0;
}

static int marker;

static void *thread(void *argument)
{
	return argument;
}

static uint64_t thread_run(unsigned n)
{
	for (; n; n--) {
		pthread_t id;
		void *result;

		expect(!pthread_create(&id, NULL, thread, &marker));
		expect(!pthread_join(id, &result) && result == &marker);
	}
	return 0;
}

/*
 * A ring of processes that hand a byte on; each looks through its working set first. This process is the
 * first. One operation is one handing on, that is one switch (two in the ping-pong, whose operation is there
 * and back).
 */
#define RING_MAX 16
static struct {
	unsigned count;
	size_t set; /* bytes */
	int pipes[RING_MAX][2];
	pid_t children[RING_MAX];
	volatile char *memory;
} ring;

static void ring_step(int from, int to)
{
	char c;

	expect(read(from, &c, 1) == 1);
	for (size_t i = 0; i < ring.set; i += 64)
		ring.memory[i]++;
	expect(write(to, &c, 1) == 1);
}

static void ring_child(unsigned at)
{
	char c;

	for (unsigned i = 0; i < ring.count; i++) {
		if (i != at)
			close(ring.pipes[i][0]);
		if (i != (at + 1) % ring.count)
			close(ring.pipes[i][1]);
	}
	while (read(ring.pipes[at][0], &c, 1) == 1) {
		for (size_t i = 0; i < ring.set; i += 64)
			ring.memory[i]++;
		if (write(ring.pipes[(at + 1) % ring.count][1], &c, 1) != 1)
			break;
	}
	_exit(0);
}

static void ring_prepare(unsigned count, size_t set)
{
	ring.count = count;
	ring.set = set;
	ring.memory = calloc(1, set + 1);
	expect(ring.memory);
	signal(SIGPIPE, SIG_IGN);
	for (unsigned i = 0; i < count; i++)
		expect(!pipe(ring.pipes[i]));
	for (unsigned i = 1; i < count; i++) {
		ring.children[i] = fork();
		expect(ring.children[i] >= 0);
		if (!ring.children[i])
			ring_child(i);
	}
}

static void ring_finish(void)
{
	for (unsigned i = 0; i < ring.count; i++) {
		close(ring.pipes[i][0]);
		close(ring.pipes[i][1]);
	}
	for (unsigned i = 1; i < ring.count; i++)
		reap(ring.children[i]);
	free((void *)ring.memory);
}

/* n rounds: ring.count switches each. */
static void ring_rounds(unsigned n)
{
	expect(write(ring.pipes[1 % ring.count][1], "x", 1) == 1);
	for (unsigned i = 1; i < n; i++)
		ring_step(ring.pipes[0][0], ring.pipes[1 % ring.count][1]);
	char c;

	expect(read(ring.pipes[0][0], &c, 1) == 1 && c == 'x');
}

static uint64_t pingpong_run(unsigned n)
{
	ring_rounds(n);
	return 0;
}

static uint64_t switch_run(unsigned n)
{
	ring_rounds((n + ring.count - 1) / ring.count);
	return 0;
}

static void ring_2_0(void)
{
	ring_prepare(2, 0);
}

static void ring_2_64k(void)
{
	ring_prepare(2, 65536);
}

static void ring_16_16k(void)
{
	ring_prepare(16, 16384);
}

const struct bench os_processes[] = {
	{"fork_exit", NULL, fork_exit_run, NULL, 0},
	{"fork_exec", NULL, fork_exec_run, NULL, 0},
	{"thread", NULL, thread_run, NULL, 0},
	{"pipe_pingpong", ring_2_0, pingpong_run, ring_finish, 0},
	{"switch_2p_0k", ring_2_0, switch_run, ring_finish, 0},
	{"switch_2p_64k", ring_2_64k, switch_run, ring_finish, 0},
	{"switch_16p_16k", ring_16_16k, switch_run, ring_finish, 0},
	{0},
};
