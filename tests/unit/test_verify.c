/* Lockstep finds what is wrong with translated code, and says so. Each case runs a few instructions in a
 * machine of its own, in a child process; after translation one byte pattern of the emitted code is replaced
 * by another, as a wrong translation rule would have emitted it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "translator/translator.h"
#include "vmm/vmm.h"

#define CODE	 0x1000u
#define ENDED	 7
#define EXIT_OUT 0xf4

struct bytes {
	unsigned n;
	uint8_t b[24];
};
#define BYTES(...)                                                                                           \
	{                                                                                                    \
		sizeof((uint8_t[]){__VA_ARGS__}),                                                            \
		{                                                                                            \
			__VA_ARGS__                                                                          \
		}                                                                                            \
	}

static const struct bytes *wrong_from, *wrong_to;

struct block *__real_translate_block(struct cache *k, const struct translate_request *rq);
struct block *__wrap_translate_block(struct cache *k, const struct translate_request *rq);

struct block *__wrap_translate_block(struct cache *k, const struct translate_request *rq)
{
	struct block *b = __real_translate_block(k, rq);

	for (uint32_t at = b->host; wrong_from && at + wrong_from->n <= b->host_end; at++)
		if (!memcmp(k->rw + at, wrong_from->b, wrong_from->n))
			memcpy(k->rw + at, wrong_to->b, wrong_to->n);
	return b;
}

/* ------------------------------------------------------------------ the machine */

static struct machine *machine;

static uint32_t port_read(void *opaque, uint32_t offset, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0;
}

static void port_write(void *opaque, uint32_t offset, uint32_t value, unsigned size)
{
	(void)opaque;
	(void)offset;
	(void)value;
	(void)size;
	machine_poweroff(machine, ENDED);
}

static const struct io_ops exit_port = {.read = port_read, .write = port_write};

static void flat_state(struct vcpu *c)
{
	const uint16_t common = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED | SEG_DB | SEG_G;

	c->cr0 |= CR0_PE | CR0_NE;
	c->cr4 |= CR4_OSFXSR;
	for (unsigned s = 0; s < 6; s++)
		c->seg[s] = (struct seg){.sel = s == CS ? 8 : 16,
					 .attr = s == CS ? common | SEG_CODE : common,
					 .limit = 0xffffffff};
	c->gpr[EBX] = 0x3000;
	c->gpr[ESP] = 0x8000;
	c->eip = CODE;
}

/* In the child: runs the code and ends with the machine's status. */
static void run_machine(const struct bytes *code, const struct machine_config *extra)
{
	static const uint8_t end[] = {0xe6, EXIT_OUT, 0xeb, 0xfe}; /* out, jmp to itself */
	struct machine_config cfg = {.ram_bytes = 16u << 20,
				     .accel = ACCEL_BT,
				     .cpu_model = "max",
				     .bt_last = UINT32_MAX,
				     .verify_every = extra->verify_every,
				     .verify_first = extra->verify_first};
	char err[200];

	machine = machine_create(&cfg, err, sizeof err);
	if (!machine)
		_exit(99);
	machine_lock(machine);
	pio_register(machine, EXIT_OUT, 1, &exit_port, NULL);
	machine_unlock(machine);
	uint8_t *p = mem_ptr(machine_mem(machine), CODE, PAGE_SIZE);
	memcpy(p, code->b, code->n);
	memcpy(p + code->n, end, sizeof end);
	flat_state(machine_vcpu(machine));
	_exit(machine_run(machine));
}

/* The status, and what was printed in said. */
static int outcome(const struct bytes *code, const struct machine_config *extra, char *said, size_t size)
{
	int pipes[2], status;
	size_t n = 0;
	ssize_t got;

	assert_int_equal(pipe(pipes), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		dup2(pipes[1], 2);
		run_machine(code, extra);
	}
	close(pipes[1]);
	while (n + 1 < size && (got = read(pipes[0], said + n, size - 1 - n)) > 0)
		n += (size_t)got;
	said[n] = 0;
	close(pipes[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* ------------------------------------------------------------------ the cases */

static const struct fault_case {
	const char *name;
	struct bytes code, from, to;
	const char *says, *also;
} cases[] = {
	{"a register", BYTES(0x05, 0x78, 0x56, 0x34, 0x12), BYTES(0x05, 0x78, 0x56, 0x34, 0x12),
	 BYTES(0x05, 0x79, 0x56, 0x34, 0x12), "a register differs", "< 00001000  add eax, 0x12345678"},
	{"a flag", BYTES(0x3d, 0x00, 0x00, 0x01, 0x00), BYTES(0x3d, 0x00, 0x00, 0x01, 0x00),
	 BYTES(0x3d, 0x00, 0x00, 0x01, 0x80), "the flags register differs", "interpreter  eip 00001005"},
	{"the place of a store", BYTES(0xc7, 0x43, 0x10, 1, 2, 3, 4), BYTES(0x43, 0x10, 1, 2, 3, 4),
	 BYTES(0x43, 0x20, 1, 2, 3, 4), "memory differs",
	 "physical 0x3010, 4 bytes: before 00 00 00 00; interpreter 01 02 03 04; translator 00 00 00 00"},
	{"a branch", BYTES(0x31, 0xc0, 0x74, 0x01, 0x90), BYTES(0x0f, 0x84), BYTES(0x0f, 0x85), "EIP differs",
	 "translated from physical 0x1000"},
	{"an exception lost", BYTES(0x31, 0xc9, 0xf7, 0xf1, 0xb2, 0x01, 0xeb, 0x00), BYTES(0xf7, 0xf1),
	 BYTES(0x90, 0x90), "exception", "the interpreter raises exception 0"},
	{"the FPU", BYTES(0xd9, 0xe8, 0xeb, 0x00), BYTES(0xd9, 0xe8), BYTES(0xd9, 0xee),
	 "the FPU state differs", "00 00 00 00 00 00 00 80 ff 3f"},
	{"what a callout starts with", BYTES(0xb8, 0x30, 0, 0, 0, 0x0f, 0xa2), BYTES(0xb8, 0x30, 0, 0, 0),
	 BYTES(0xb8, 0x31, 0, 0, 0), "a register differs", "instructions 0 to 1"},
	{"the second block of a chain", BYTES(0xb9, 4, 0, 0, 0, 0x01, 0xc8, 0x49, 0x75, 0xfb),
	 BYTES(0x01, 0xc8), BYTES(0x29, 0xc8), "a register differs", "blocks executed, the latest last:"},
};

static void wrong_code_is_found(void **state)
{
	const struct machine_config every = {.verify_every = 1}, first = {.verify_first = 1};
	static char said[65536];

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct fault_case *c = &cases[i];
		print_message("  %s\n", c->name);
		wrong_from = &c->from;
		wrong_to = &c->to;
		for (unsigned mode = 0; mode < 2; mode++) {
			int status = outcome(&c->code, mode ? &first : &every, said, sizeof said);
			if (status != EXIT_INTERNAL || !strstr(said, c->says) || !strstr(said, c->also) ||
			    !strstr(said, "guest code (<) and emitted code (>):"))
				fail_msg("status %d, said:\n%s", status, said);
		}
		wrong_from = NULL;
	}
}

static void right_code_passes(void **state)
{
	const struct machine_config every = {.verify_every = 1};
	char said[4096];

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		if (!strcmp(cases[i].name, "an exception lost"))
			continue;
		assert_int_equal(outcome(&cases[i].code, &every, said, sizeof said), ENDED);
		assert_string_equal(said, "");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(right_code_passes),
		cmocka_unit_test(wrong_code_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
