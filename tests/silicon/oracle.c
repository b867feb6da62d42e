/* oracle.c - the silicon oracle: a 32-bit Linux process that executes cases natively, in compatibility mode.
 *
 * It has no C library and is linked at IMAGE_AT. File descriptor 3 is the shared memory (layout.h), 4 is
 * where requests come from and 5 where answers go, one byte each for a batch. A case ends in a signal, at the
 * latest with the int3 behind its code; the handler notes the state in the signal frame as the result and
 * enters the next case without returning. Since the stack pointer of a case never lies on the alternate
 * stack, every signal finds that stack empty.
 *
 * At the start everything that is not the cases' or in the private range is unmapped (the initial stack, the
 * vDSO), so that stray pointers find holes, as they do in the guest; and system calls other than those needed
 * are forbidden, in case a case makes one.
 */
#include "layout.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#define SYS_exit	    1
#define SYS_read	    3
#define SYS_write	    4
#define SYS_open	    5
#define SYS_munmap	    91
#define SYS_prctl	    172
#define SYS_rt_sigaction    174
#define SYS_sigaltstack	    186
#define SYS_mmap2	    192
#define SYS_set_thread_area 243

#define PROT_READ	    1
#define PROT_WRITE	    2
#define PROT_EXEC	    4
#define MAP_SHARED	    1
#define MAP_FIXED	    0x10
#define MAP_POPULATE	    0x8000 /* page-fault error codes tell whether a page was present */

#define PR_SET_PDEATHSIG    1
#define PR_SET_SECCOMP	    22
#define PR_SET_NO_NEW_PRIVS 38

#define FD_MEMORY	    3
#define FD_REQUESTS	    4
#define FD_ANSWERS	    5

static struct silicon_batch *const batch = (struct silicon_batch *)BATCH_AT;

extern struct silicon_case now; /* the one that runs */
extern struct {
	uint32_t esp, ss;
} entry_stack;
void enter(void) __attribute__((noreturn));
void on_signal(void);
void restorer(void);
void oracle_main(uint32_t *stack) __attribute__((noreturn));
void oracle_signal(uint8_t *context) __attribute__((noreturn));

static int call(int nr, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f)
{
	int r;

	__asm__ volatile("pushl %[f]\n\tpushl %%ebp\n\tmovl 4(%%esp), %%ebp\n\tint $0x80\n\t"
			 "popl %%ebp\n\taddl $4, %%esp"
			 : "=a"(r)
			 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), [f] "g"(f)
			 : "memory");
	return r;
}
#define CALL3(nr, a, b, c) call((nr), (uint32_t)(a), (uint32_t)(b), (uint32_t)(c), 0, 0, 0)

static void __attribute__((noreturn)) die(unsigned char status)
{
	for (;;)
		CALL3(SYS_exit, status, 0, 0);
}

static void copy(void *to, const void *from, uint32_t n)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

/* ------------------------------------------------------------------ memory */

static void map_file(uint32_t at, uint32_t len, int prot, uint32_t offset)
{
	if (call(SYS_mmap2, at, len, (uint32_t)prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE, FD_MEMORY,
		 offset >> 12) != (int)at)
		die(10);
}

static void map_slots(void)
{
	for (uint32_t k = 0; k < SLOTS; k++) {
		uint32_t at = SLOT_AT + k * SLOT_STRIDE, from = ORACLE_SLOTS + k * ORACLE_SLOT_BYTES;

		map_file(at + SLOT_CODE, CODE_BYTES, PROT_READ | PROT_EXEC, from);
		map_file(at + SLOT_DATA, RW_BYTES, PROT_READ | PROT_WRITE, from + CODE_BYTES);
		map_file(at + SLOT_DATA + RW_BYTES, DATA_BYTES - RW_BYTES, PROT_READ,
			 from + CODE_BYTES + RW_BYTES);
	}
}

static uint32_t parse_hex(const char **p)
{
	uint32_t v = 0;

	for (;; ++*p) {
		char c = **p;
		if (c >= '0' && c <= '9')
			v = v << 4 | (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint32_t)(c - 'a' + 10);
		else
			return v;
	}
}

/* The initial stack, the vDSO, and whatever else the kernel has mapped into every process. */
static void unmap_the_rest(void)
{
	static char text[16384];
	int fd = CALL3(SYS_open, "/proc/self/maps", 0, 0), n, len = 0;

	while (fd >= 0 && (n = CALL3(SYS_read, fd, text + len, sizeof text - 1 - (uint32_t)len)) > 0)
		len += n;
	if (!len)
		die(11);
	for (const char *p = text; *p;) {
		uint32_t from = parse_hex(&p), to;

		p++;
		to = parse_hex(&p);
		while (*p && *p++ != '\n')
			;
		if (to > SLOT_AT && from < SLOT_AT + SLOTS * SLOT_STRIDE)
			die(12);
		if (from < PRIVATE_AT || from >= PRIVATE_END)
			CALL3(SYS_munmap, from, to - from, 0);
	}
}

/* ------------------------------------------------------------------ set-up */

static void take_signals(void)
{
	static uint8_t stack[65536] __attribute__((aligned(64)));
	static const uint8_t signals[] = {4, 5, 7, 8, 11}; /* ILL TRAP BUS FPE SEGV */
	const uint32_t alt[3] = {(uint32_t)stack, 0, sizeof stack};
	/* SA_SIGINFO, SA_RESTORER, SA_ONSTACK, SA_NODEFER */
	const uint32_t action[5] = {(uint32_t)on_signal, 0x4 | 0x04000000 | 0x08000000 | 0x40000000,
				    (uint32_t)restorer, 0, 0};

	if (CALL3(SYS_sigaltstack, alt, 0, 0))
		die(13);
	for (unsigned k = 0; k < sizeof signals; k++)
		if (call(SYS_rt_sigaction, signals[k], (uint32_t)action, 0, 8, 0, 0))
			die(14);
}

static void forbid_system_calls(void)
{
#define ALLOW(nr)                                                                                            \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	static struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		ALLOW(SYS_read),
		ALLOW(SYS_write),
		ALLOW(SYS_exit),
		ALLOW(SYS_set_thread_area),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog prog = {sizeof code / sizeof *code, code};

	if (CALL3(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0) ||
	    CALL3(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		die(15);
}

/* ------------------------------------------------------------------ cases */

/* struct user_desc's last word: 32-bit data */
static void set_segment(unsigned n, const struct silicon_tls *t)
{
	static struct silicon_tls current[3];
	struct {
		uint32_t entry, base, limit, flags;
	} d = {TLS_FIRST + n, t->base, t->limit, 0};

	if (current[n].base == t->base && current[n].limit == t->limit && current[n].attr == t->attr)
		return;
	current[n] = *t;
	d.flags = 1u | (t->attr & TLS_DOWN ? 1u << 1 : 0) | (t->attr & TLS_WRITABLE ? 0 : 1u << 3) |
		  (t->attr & TLS_PAGES ? 1u << 4 : 0);
	if (!(t->attr & TLS_PRESENT)) /* an empty entry */
		d.base = d.limit = 0, d.flags = 1u << 3 | 1u << 5;
	if (CALL3(SYS_set_thread_area, &d, 0, 0))
		die(16);
}

static uint32_t round_;

static void __attribute__((noreturn)) enter_case(void)
{
	entry_stack.esp = now.gpr[4];
	entry_stack.ss = now.sel[2];
	enter();
}

static void __attribute__((noreturn)) next_case(uint32_t k)
{
	for (; k == batch->count; k = 0) {
		uint8_t byte = 0;

		batch->progress = k;
		CALL3(SYS_write, FD_ANSWERS, &byte, 1);
		if (CALL3(SYS_read, FD_REQUESTS, &byte, 1) != 1)
			die(0);
	}
	batch->progress = k;
	copy(&now, &batch->c[k], CASE_SIZE - CODE_MAX);
	for (unsigned n = 0; n < 3; n++)
		set_segment(n, &now.tls[n]);
	round_ = 0;
	enter_case();
}

/* ucontext: flags, link, stack (3 words), then struct sigcontext. Its words: */
enum {
	SC_GS,
	SC_FS,
	SC_ES,
	SC_DS,
	SC_EDI,
	SC_ESI,
	SC_EBP,
	SC_ESP,
	SC_EBX,
	SC_EDX,
	SC_ECX,
	SC_EAX,
	SC_TRAPNO,
	SC_ERR,
	SC_EIP,
	SC_CS,
	SC_EFLAGS,
	SC_ESP_AT_SIGNAL,
	SC_SS,
	SC_FPSTATE,
	SC_OLDMASK,
	SC_CR2
};
#define FPSTATE_FXSAVE 112 /* behind the FSAVE image */

static void note(struct silicon_result *r, const uint32_t *sc)
{
	static const uint8_t gpr[8] = {SC_EAX, SC_ECX, SC_EDX, SC_EBX, SC_ESP, SC_EBP, SC_ESI, SC_EDI};
	static const uint8_t sel[6] = {SC_ES, SC_CS, SC_SS, SC_DS, SC_FS, SC_GS};

	copy(r->fx, (const uint8_t *)sc[SC_FPSTATE] + FPSTATE_FXSAVE, 288);
	for (unsigned n = 0; n < 8; n++)
		r->gpr[n] = sc[gpr[n]];
	for (unsigned n = 0; n < 6; n++)
		r->sel[n] = sc[sel[n]] & 0xffff;
	r->eip = sc[SC_EIP];
	r->eflags = sc[SC_EFLAGS];
	r->vector = sc[SC_TRAPNO];
	r->error = sc[SC_ERR];
	r->cr2 = sc[SC_CR2];
}

void oracle_signal(uint8_t *context)
{
	uint32_t k = batch->progress;

	if (++round_ < now.reps)
		enter_case();
	note(&batch->r[k], (const uint32_t *)(context + 20));
	next_case(k + 1);
}

void oracle_main(uint32_t *stack)
{
	(void)stack;
	CALL3(SYS_prctl, PR_SET_PDEATHSIG, 9, 0);
	unmap_the_rest();
	map_file(BATCH_AT, ORACLE_SLOTS, PROT_READ | PROT_WRITE, 0);
	map_slots();
	take_signals();
	forbid_system_calls();
	batch->count = 0;
	next_case(0);
}
