/* Thousands of forks and execs: new address spaces come and go, copy-on-write splits them, exit statuses and
 * arguments arrive. Executes itself. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"

extern char **environ;

static int child(int argc, char **argv)
{
	struct hash h;

	hash_start(&h);
	for (int i = 0; i < argc; i++)
		hash_bytes(&h, argv[i], strlen(argv[i]));
	for (char **e = environ; *e; e++)
		hash_bytes(&h, *e, strlen(*e));
	return (int)(h.value % 251);
}

static int run(char **argv, char **environment)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		execve("/proc/self/exe", argv, environment);
		_exit(255);
	}
	expect(pid > 0 && waitpid(pid, &status, 0) == pid);
	expect(WIFEXITED(status));
	return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	struct hash h;
	uint64_t seed = 23;
	unsigned rounds = 1000;
	uint32_t *private, *shared;

	if (argc > 1 && !strcmp(argv[1], "child"))
		return child(argc, argv);
	if (argc > 1)
		rounds = (unsigned)atoi(argv[1]);

	/* exec, with arguments and environments of all sizes */
	hash_start(&h);
	for (unsigned i = 0; i < rounds; i++) {
		static char text[4][3000];
		char *arguments[] = {(char *)"x", (char *)"child", text[0], text[1], NULL};
		char *environment[] = {text[2], text[3], NULL};

		for (unsigned k = 0; k < 4; k++) {
			unsigned size = (unsigned)random_next(&seed) % (sizeof(text[k]) - 1);

			memset(text[k], 'a' + (int)(random_next(&seed) % 26), size);
			text[k][size] = 0;
		}
		int status = run(arguments, environment);

		hash_add(&h, status);
	}
	hash_print(&h, "exec");

	/* fork with shared and private memory */
	private = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	shared = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (unsigned i = 0; i < 64 * 1024; i++)
		private[i] = shared[i] = i;
	for (unsigned i = 0; i < rounds; i++) {
		pid_t pid = fork();
		int status;

		if (!pid) {
			for (unsigned k = i % 7; k < 64 * 1024; k += 777) {
				private[k] ^= 0xffffffff;
				shared[k] += private[k];
			}
			_exit((int)(private[i % 65536] & 0x7f));
		}
		private[(i * 1021) % 65536] = i; /* while the child may still share the page */
		expect(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
		if (i % 64 == 0)
			hash_bytes(&h, shared, 64 * 4096);
	}
	hash_bytes(&h, private, 64 * 4096);
	hash_bytes(&h, shared, 64 * 4096);
	hash_print(&h, "fork");

	/* a chain of processes, each the child of the one before; the statuses come back up */
	for (unsigned i = 0; i < 5; i++) {
		unsigned level = 0;
		int status = 0;
		pid_t pid = 0;

		fflush(stdout);
		while (level < 100 && !(pid = fork()))
			level++;
		if (level == 100)
			_exit(1);
		waitpid(pid, &status, 0);
		if (level)
			_exit((WEXITSTATUS(status) + 1) & 0x7f);
		printf("chain %d\n", WEXITSTATUS(status));
	}

	/* many at once */
	pid_t pids[200];

	for (unsigned i = 0; i < 200; i++) {
		pids[i] = fork();
		if (!pids[i]) {
			volatile uint32_t x = i;

			for (unsigned k = 0; k < 20000; k++)
				x = x * 1103515245 + 12345;
			_exit((int)(x >> 8 & 0x7f));
		}
	}
	for (unsigned i = 0; i < 200; i++) {
		int status;

		expect(waitpid(pids[i], &status, 0) == pids[i]);
		hash_add(&h, status);
	}
	hash_print(&h, "herd");

	/* killed ones */
	for (int number = 1; number < 32; number++) {
		pid_t pid;
		int status;

		if (number == SIGCHLD || number == SIGURG || number == SIGWINCH || number == SIGCONT || number == SIGSTOP ||
			number == SIGTSTP || number == SIGTTIN || number == SIGTTOU || number == SIGPIPE)
			continue;
		pid = fork();
		if (!pid) {
			signal(number, SIG_DFL);
			for (;;)
				pause();
		}
		kill(pid, number);
		expect(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == number);
	}
	printf("killed\n");
	return 0;
}
