/* Two processes that talk: through pipes byte by byte and in bulk, a socket pair, and poll. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

static void ping_pong(const char *name, int here[2], int there[2], unsigned rounds)
{
	uint32_t value = 1;
	int status;
	pid_t pid = fork();

	if (!pid) {
		while (read(here[0], &value, sizeof(value)) == (ssize_t)sizeof(value) && value) {
			value = value * 1664525 + 1013904223;
			expect(write(there[1], &value, sizeof(value)) == (ssize_t)sizeof(value));
		}
		_exit(7);
	}
	for (unsigned i = 0; i < rounds; i++) {
		value |= 1;
		expect(write(here[1], &value, sizeof(value)) == (ssize_t)sizeof(value));
		expect(read(there[0], &value, sizeof(value)) == (ssize_t)sizeof(value));
	}
	printf("%s %08x\n", name, value);
	value = 0;
	expect(write(here[1], &value, sizeof(value)) == (ssize_t)sizeof(value));
	expect(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
}

static void bulk(void)
{
	static uint8_t buffer[70000];
	int ends[2], status;
	struct hash h;
	pid_t pid;
	uint64_t seed = 41;
	size_t total = 0;
	ssize_t n;

	expect(!pipe(ends));
	pid = fork();
	if (!pid) {
		close(ends[0]);
		for (unsigned i = 0; i < 200; i++) {
			size_t size = random_next(&seed) % sizeof(buffer), done = 0;

			for (size_t k = 0; k < size; k++)
				buffer[k] = (uint8_t)(k * 31 + i);
			while (done < size) {
				n = write(ends[1], buffer + done, size - done);
				expect(n > 0);
				done += (size_t)n;
			}
		}
		_exit(0);
	}
	close(ends[1]);
	hash_start(&h);
	/* pieces arrive in sizes that depend on the scheduler: hash byte by byte */
	while ((n = read(ends[0], buffer, sizeof(buffer))) > 0) {
		for (ssize_t k = 0; k < n; k++)
			h.value = (h.value ^ buffer[k]) * 0x100000001b3u;
		total += (size_t)n;
	}
	close(ends[0]);
	expect(waitpid(pid, &status, 0) == pid && status == 0);
	printf("bulk %zu %016llx\n", total, (unsigned long long)h.value);
}

static void polled(void)
{
	enum { CHILDREN = 8 };
	struct pollfd polls[CHILDREN];
	uint32_t sums[CHILDREN] = {0};
	unsigned open_ends = CHILDREN;

	for (unsigned i = 0; i < CHILDREN; i++) {
		int ends[2];

		expect(!pipe(ends));
		if (!fork()) {
			for (uint32_t k = 1; k <= 500; k++) {
				uint32_t value = k * (i + 1);

				expect(write(ends[1], &value, sizeof(value)) == (ssize_t)sizeof(value));
				if (k % 100 == 0)
					usleep(1000);
			}
			_exit(0);
		}
		close(ends[1]);
		polls[i] = (struct pollfd){.fd = ends[0], .events = POLLIN};
	}
	while (open_ends) {
		expect(poll(polls, CHILDREN, -1) > 0);
		for (unsigned i = 0; i < CHILDREN; i++) {
			uint32_t value;

			if (!polls[i].revents)
				continue;
			if (read(polls[i].fd, &value, sizeof(value)) == (ssize_t)sizeof(value)) {
				sums[i] += value;
			} else {
				close(polls[i].fd);
				polls[i].fd = -1;
				open_ends--;
			}
		}
	}
	while (wait(NULL) > 0)
		;
	for (unsigned i = 0; i < CHILDREN; i++)
		printf("polled %u %u\n", i, sums[i]);
}

int main(void)
{
	int a[2], b[2];

	setvbuf(stdout, NULL, _IONBF, 0);
	expect(!pipe(a) && !pipe(b));
	ping_pong("pipe", a, b, 20000);
	expect(!socketpair(AF_UNIX, SOCK_STREAM, 0, a) && !socketpair(AF_UNIX, SOCK_STREAM, 0, b));
	ping_pong("socket", a, b, 10000);
	bulk();
	polled();
	return 0;
}
