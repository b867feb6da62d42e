/* sides.c - the processes that run cases.
 *
 * Silicon is a 32-bit process (oracle.c); its memory is a memfd mapped in both. The others are machines of
 * bt86, each in a process of its own that has nothing but a CPU, memory and a port (GUEST_PORT): the machine
 * is made here, then the process forks, and the child runs it. Guest RAM is shared memory, so that cases and
 * results need no transport; only code goes through the guest kernel's hands, because writing it is what the
 * VMM has to see. Requests and answers are bytes on pipes.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "boot/boot.h"
#include "silicon.h"
#include "vmm/vmm.h"

/* A batch takes a few milliseconds, but others may want the CPU as well. */
#define ANSWER_MS 3000

const char *const side_names[SIDES] = {"silicon", "interp", "bt"};

static struct side {
	pid_t pid;
	int to, from;
	struct silicon_batch *batch;
	uint8_t *memory;	 /* silicon: the shared file */
	struct machine *machine; /* bt86 */
	struct boot *boot;
	bool first;
} sides[SIDES];

static uint8_t *slot_memory(enum side_id s, unsigned slot, uint32_t off)
{
	if (s == SILICON)
		return sides[s].memory + ORACLE_SLOTS + slot * ORACLE_SLOT_BYTES +
		       (off >= SLOT_DATA ? off - SLOT_DATA + CODE_BYTES : off - SLOT_CODE);
	return mem_ptr(machine_mem(sides[s].machine), SLOT_AT + slot * SLOT_STRIDE + off, DATA_BYTES);
}

/* ------------------------------------------------------------------ silicon */

static void exec_oracle(const char *dir, int memory, int to, int from)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/silicon-oracle", dir);
	/* The numbers below are taken only after all of these have moved out of their way. */
	memory = dup2(memory, 20);
	to = dup2(to, 21);
	from = dup2(from, 22);
	dup2(memory, 3);
	dup2(to, 4);
	dup2(from, 5);
	for (int fd = 6; fd < 64; fd++)
		close(fd);
	execl(path, path, (char *)NULL);
	if (errno == ENOEXEC) {
		fprintf(stderr, "skipped: this kernel does not run 32-bit programs\n");
		_exit(SIDE_SKIP);
	}
	perror(path);
	_exit(1);
}

static int make_oracle(struct side *s, const char *dir, int *request, int *answer)
{
	int fd = memfd_create("silicon", 0);

	if (fd < 0 || ftruncate(fd, ORACLE_BYTES))
		return -1;
	s->memory = mmap(NULL, ORACLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s->memory == MAP_FAILED)
		return -1;
	s->batch = (struct silicon_batch *)(void *)s->memory;
	for (unsigned k = 0; k < SLOTS; k++)
		memset(slot_memory(SILICON, k, SLOT_CODE), 0xcc, CODE_BYTES);
	s->pid = fork();
	if (s->pid == 0)
		exec_oracle(dir, fd, request[0], answer[1]);
	close(fd);
	return s->pid < 0 ? -1 : 0;
}

/* ------------------------------------------------------------------ bt86 */

static int port_request, port_answer;

static uint32_t port_read(void *opaque, uint32_t offset, unsigned size)
{
	char byte = 0;

	(void)offset;
	(void)size;
	if (write(port_answer, &byte, 1) != 1 || read(port_request, &byte, 1) != 1)
		machine_poweroff(opaque, 0);
	return 0;
}

static void port_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	fprintf(stderr, "silicon: the guest kernel got vector %u at ...%06x\n", value >> 24,
		value & 0xffffff);
	_exit(1);
}

bool side_stats;

static void print_stats(struct machine *m, enum side_id id)
{
	static struct stat_row rows[256];
	unsigned n = machine_stats(m, rows, 256);
	const char *group = "";

	for (unsigned k = 0; k < n; k++) {
		if (strcmp(group, rows[k].group)) {
			group = rows[k].group;
			fprintf(stderr, "%s: %s\n", side_names[id], group);
		}
		fprintf(stderr, "%14llu  %s\n", (unsigned long long)rows[k].value, rows[k].name);
	}
}

static int make_machine(struct side *s, enum side_id id, const char *dir, int *request, int *answer)
{
	static const struct io_ops ops = {.read = port_read, .write = port_write, .wide = true};
	const struct machine_config cfg = {.ram_bytes = PRIVATE_END,
					   .accel = id == BT ? ACCEL_BT : ACCEL_INTERP,
					   .bt_last = 0xffffffffu,
					   .no_reboot = true};
	char err[1024] = "", path[4096];
	struct boot_config boot = {.kernel = path};

	snprintf(path, sizeof path, "%s/silicon-guest.elf", dir);
	s->machine = machine_create(&cfg, err, sizeof err);
	if (s->machine)
		s->boot = boot_load(s->machine, &boot, err, sizeof err);
	if (!s->boot) {
		fprintf(stderr, "silicon: %s\n", err);
		return -1;
	}
	s->batch =
		(struct silicon_batch *)(void *)mem_ptr(machine_mem(s->machine), BATCH_AT, sizeof *s->batch);
	pio_register(s->machine, GUEST_PORT, 8, &ops, s->machine);
	s->pid = fork();
	if (s->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		port_request = request[0];
		port_answer = answer[1];
		close(request[1]);
		close(answer[0]);
		for (enum side_id o = SILICON; o < SIDES; o++)
			if (o != id && sides[o].pid) {
				close(sides[o].to);
				close(sides[o].from);
			}
		machine_run(s->machine);
		if (side_stats)
			print_stats(s->machine, id);
		_exit(0);
	}
	return s->pid < 0 ? -1 : 0;
}

/* ------------------------------------------------------------------ */

static int wait_answer(struct side *s)
{
	struct pollfd p = {.fd = s->from, .events = POLLIN};
	char byte;
	int n;

	do
		n = poll(&p, 1, ANSWER_MS);
	while (n < 0 && errno == EINTR);
	return n == 1 && read(s->from, &byte, 1) == 1 ? 0 : -1;
}

int side_start(enum side_id id, const char *dir)
{
	struct side *s = &sides[id];
	int request[2], answer[2], rc;

	if (s->pid)
		return 0;
	if (pipe2(request, O_CLOEXEC) || pipe2(answer, O_CLOEXEC))
		return -1;
	fflush(NULL);
	rc = id == SILICON ? make_oracle(s, dir, request, answer) : make_machine(s, id, dir, request, answer);
	close(request[0]);
	close(answer[1]);
	s->to = request[1];
	s->from = answer[0];
	if (rc || wait_answer(s)) {
		int status = 0;

		if (s->pid > 0 && waitpid(s->pid, &status, WNOHANG) == s->pid && WIFEXITED(status) &&
		    WEXITSTATUS(status) == SIDE_SKIP)
			exit(SIDE_SKIP);
		fprintf(stderr, "silicon: %s did not start\n", side_names[id]);
		return -1;
	}
	return 0;
}

void side_stop(enum side_id id, bool hung)
{
	struct side *s = &sides[id];

	if (!s->pid)
		return;
	/* A machine that waits for a request ends when there can be none any more. */
	close(s->to);
	if (!side_stats || hung || id == SILICON)
		kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	close(s->from);
	if (s->memory)
		munmap(s->memory, ORACLE_BYTES);
	boot_free(s->boot);
	machine_destroy(s->machine);
	memset(s, 0, sizeof *s);
}

/* The oracle's code pages are written here: to silicon, nothing has to be said about it. */
static void put_code(const struct testcase *t)
{
	static struct {
		uint32_t at, len;
	} last[SLOTS];
	uint8_t *code = slot_memory(SILICON, t->slot, SLOT_CODE);

	memset(code + last[t->slot].at, 0xcc, last[t->slot].len);
	memcpy(code + t->c.code_at, t->c.code, t->c.code_len);
	last[t->slot].at = t->c.code_at;
	last[t->slot].len = t->c.code_len;
}

int side_run(enum side_id id, const struct testcase *t, unsigned n, unsigned *at)
{
	struct side *s = &sides[id];
	char byte = 0;

	for (unsigned k = 0; k < n; k++) {
		s->batch->c[k] = t[k].c;
		case_data(&t[k], slot_memory(id, t[k].slot, SLOT_DATA));
		if (id == SILICON)
			put_code(&t[k]);
	}
	s->batch->count = n;
	if (write(s->to, &byte, 1) == 1 && wait_answer(s) == 0)
		return 0;
	*at = s->batch->progress;
	return -1;
}

const struct silicon_result *side_result(enum side_id s, unsigned k)
{
	return &sides[s].batch->r[k];
}

const uint8_t *side_data(enum side_id s, const struct testcase *t)
{
	return slot_memory(s, t->slot, SLOT_DATA);
}
