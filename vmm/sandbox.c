/* sandbox.c - the seccomp filter that the process drops into after start-up.
 *
 * What the run loop, the event loop and libc's own housekeeping need, and no more: memory may be mapped and
 * protected but never made executable (the code cache has its executable view already), files that are open
 * may be read and written but none opened, no program started, no other process touched. Anything else raises
 * SIGSYS, which ends the process with one line and EXIT_INTERNAL.
 */
#include "vmm/bt.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <termios.h>
#include <unistd.h>

/* Allowed with any arguments. */
static const int allowed[] = {
	/* descriptors that are open already */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	SCMP_SYS(close),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(fcntl),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate),
	SCMP_SYS(accept4),
	SCMP_SYS(accept),
	SCMP_SYS(recvfrom),
	SCMP_SYS(sendto),
	SCMP_SYS(shutdown),
	/* waiting and time */
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(futex),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(timerfd_gettime),
	SCMP_SYS(timer_settime),
	SCMP_SYS(timer_delete),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(sched_yield),
	SCMP_SYS(restart_syscall),
	/* signals and threads of this process (tgkill: see below) */
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(gettid),
	SCMP_SYS(getpid),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(getrusage),
	/* memory (mmap and mprotect: see below) */
	SCMP_SYS(munmap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(mremap),
	SCMP_SYS(getrandom),
	SCMP_SYS(sysinfo), /* qsort asks how much there is; the disassembler sorts */
	/* the gs base on CPUs without FSGSBASE */
	SCMP_SYS(arch_prctl),
};

/* Terminal control and nothing else. */
static const unsigned long ioctls[] = {TCGETS,	 TCSETS,    TCSETSW,  TCSETSF, TIOCGWINSZ,
				       TIOCGPTN, TIOCGPGRP, FIONREAD, FIONBIO};

static void on_violation(int sig, siginfo_t *si, void *ctx)
{
	char line[] = "bt86: internal error: system call     is outside the sandbox\n";
	char *digit = strstr(line, "    is") + 2;
	int n = si->si_syscall;

	(void)sig;
	(void)ctx;
	machine_run_fatal_hook();
	for (int i = 0; i < 3 && (n || i == 0); i++, n /= 10)
		*digit-- = (char)('0' + n % 10);
	if (write(2, line, sizeof line - 1) < 0)
		_exit(EXIT_INTERNAL);
	_exit(EXIT_INTERNAL);
}

/* AddressSanitizer's run time makes system calls of its own choosing, most of all when it has something to
 * report: a build with it has no sandbox. */
#ifdef __SANITIZE_ADDRESS__
#define SANDBOX 0
#else
#define SANDBOX 1
#endif

int sandbox_enter(const struct sandbox_extra *extra, char *err, size_t errlen)
{
	if (!SANDBOX)
		return 0;
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_TRAP);
	struct sigaction sa = {.sa_sigaction = on_violation, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	int rc = f ? 0 : -ENOMEM;

	sigaction(SIGSYS, &sa, NULL);
	for (size_t i = 0; !rc && i < sizeof allowed / sizeof allowed[0]; i++)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	for (size_t i = 0; !rc && i < sizeof ioctls / sizeof ioctls[0]; i++)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, ioctls[i]));
	for (size_t i = 0; !rc && extra && i < extra->n; i++)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 2,
				      SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)extra->fd),
				      SCMP_A1(SCMP_CMP_EQ, extra->requests[i]));
	if (!rc)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				      SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!rc)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				      SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!rc)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				      SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	if (!rc)
		rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!rc)
		rc = seccomp_load(f);
	if (f)
		seccomp_release(f);
	if (rc)
		snprintf(err, errlen, "cannot install the seccomp filter: %s", strerror(-rc));
	return rc ? -1 : 0;
}
