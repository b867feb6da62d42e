/* terminal.c - see terminal.h.
 *
 * Three ways out have to be covered: exit() (atexit), a signal whose disposition is still the default one
 * (handlers below, which restore and then let it kill us), and a fault or a signal that the VMM handles
 * itself (it calls machine_run_fatal_hook). Everything done here on the way out is async-signal-safe.
 */
#include "devices/terminal.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "devices/devices.h"

static struct termios saved, raw;
static volatile sig_atomic_t raw_fd = -1;
static pid_t own_group;

void chardev_restore_terminal(void)
{
	if (raw_fd >= 0)
		tcsetattr(raw_fd, TCSANOW, &saved);
	raw_fd = -1;
}

/* Changing our controlling terminal from the background would stop us; another terminal has no say in that. */
static bool in_foreground(int fd)
{
	pid_t group = tcgetpgrp(fd);

	return group < 0 || group == own_group;
}

static void on_fatal_signal(int sig)
{
	chardev_restore_terminal();
	raise(sig); /* SA_RESETHAND: this time it kills us */
}

/* Stopped and continued by a shell, which has put its own modes on the terminal meanwhile. */
static void on_continue(int sig)
{
	(void)sig;
	if (raw_fd >= 0 && in_foreground(raw_fd))
		tcsetattr(raw_fd, TCSANOW, &raw);
}

static void catch_if_default(int sig, void (*handler)(int), int flags)
{
	struct sigaction old;
	struct sigaction sa = {.sa_handler = handler, .sa_flags = flags};

	sigemptyset(&sa.sa_mask);
	if (sigaction(sig, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
		sigaction(sig, &sa, NULL);
}

void terminal_raw(int fd)
{
	static const int fatal[] = {SIGINT, SIGTERM, SIGHUP,  SIGQUIT, SIGSEGV, SIGBUS,
				    SIGILL, SIGFPE,  SIGABRT, SIGTRAP, SIGSYS};
	static bool registered;

	own_group = getpgrp();
	if (!isatty(fd) || !in_foreground(fd) || tcgetattr(fd, &saved) < 0)
		return;
	raw = saved;
	raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (!registered) {
		registered = true;
		atexit(chardev_restore_terminal);
		machine_set_fatal_hook(chardev_restore_terminal);
		for (unsigned i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
			catch_if_default(fatal[i], on_fatal_signal, (int)SA_RESETHAND);
		catch_if_default(SIGCONT, on_continue, SA_RESTART);
	}
	raw_fd = fd;
	tcsetattr(fd, TCSANOW, &raw);
}
