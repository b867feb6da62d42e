/* System calls, signals and files. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

static uint64_t getppid_run(unsigned n)
{
	long parent = getppid();

	for (; n; n--)
		expect(syscall(SYS_getppid) == parent);
	return 0;
}

static int null_fd, zero_fd;

static void devices_open(void)
{
	null_fd = open("/dev/null", O_WRONLY);
	zero_fd = open("/dev/zero", O_RDONLY);
	expect(null_fd >= 0 && zero_fd >= 0);
}

static void devices_close(void)
{
	close(null_fd);
	close(zero_fd);
}

static uint64_t write_run(unsigned n)
{
	for (; n; n--)
		expect(write(null_fd, "x", 1) == 1);
	return 0;
}

static uint64_t read_run(unsigned n)
{
	char c;

	for (; n; n--) {
		c = 1;
		expect(read(zero_fd, &c, 1) == 1 && !c);
	}
	return 0;
}

static uint64_t read_64k_run(unsigned n)
{
	static char buffer[65536];

	for (; n; n--)
		expect(read(zero_fd, buffer, sizeof(buffer)) == sizeof(buffer));
	return 0;
}

static uint64_t stat_run(unsigned n)
{
	struct stat s;

	for (; n; n--)
		expect(!stat(bench_path, &s));
	return 0;
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
	(void)number;
	signals++;
}

static void signal_prepare(void)
{
	expect(signal(SIGUSR1, on_signal) != SIG_ERR);
}

static uint64_t signal_run(unsigned n)
{
	sig_atomic_t before = signals;
	pid_t self = getpid();

	for (unsigned i = 0; i < n; i++)
		expect(!kill(self, SIGUSR1));
	expect((unsigned)(signals - before) == n);
	return 0;
}

#define SELECT_FDS 64
static int select_pipes[SELECT_FDS][2];

static void select_prepare(void)
{
	for (int i = 0; i < SELECT_FDS; i++)
		expect(!pipe(select_pipes[i]));
	expect(write(select_pipes[SELECT_FDS - 1][1], "x", 1) == 1);
}

static void select_finish(void)
{
	for (int i = 0; i < SELECT_FDS; i++) {
		close(select_pipes[i][0]);
		close(select_pipes[i][1]);
	}
}

static uint64_t select_run(unsigned n)
{
	int top = 0;

	for (; n; n--) {
		struct timeval zero = {0, 0};
		fd_set set;

		FD_ZERO(&set);
		for (int i = 0; i < SELECT_FDS; i++) {
			FD_SET(select_pipes[i][0], &set);
			top = select_pipes[i][0] > top ? select_pipes[i][0] : top;
		}
		expect(select(top + 1, &set, NULL, NULL, &zero) == 1);
	}
	return 0;
}

static uint64_t file_run(unsigned n)
{
	char name[64];

	snprintf(name, sizeof(name), SCRATCH "/bench.%d", (int)getpid());
	for (; n; n--) {
		int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);

		expect(fd >= 0);
		expect(write(fd, name, sizeof(name)) == sizeof(name));
		close(fd);
		expect(!unlink(name));
	}
	return 0;
}

const struct bench os_calls[] = {
	{"getppid", NULL, getppid_run, NULL, 0},
	{"write_null", devices_open, write_run, devices_close, 0},
	{"read_zero", devices_open, read_run, devices_close, 0},
	{"read_zero_64k", devices_open, read_64k_run, devices_close, 0},
	{"stat", NULL, stat_run, NULL, 0},
	{"signal", signal_prepare, signal_run, NULL, 0},
	{"select_64", select_prepare, select_run, select_finish, 0},
	{"file_create_delete", NULL, file_run, NULL, 0},
	{0},
};
