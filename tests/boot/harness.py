"""Drives a virtual machine the way a person at its terminal would, and keeps score.

    from harness import Machine, Score, options, initrd
    arguments = options(__doc__)
    score = Score()
    with Machine(arguments) as vm:
        vm.prompt()
        score.check("arithmetic", vm.shell("echo $((6 * 7))").text == "42")
        score.equal("poweroff", vm.finish("poweroff"), 0)
    score.end()

The machine under test is bt86 or, to test the tests, QEMU (--vmm qemu).
"""
import argparse
import ctypes
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KERNELS = ("686", "686-pae")
SKIP = 77  # ctest's SKIP_RETURN_CODE
_LIBC = ctypes.CDLL(None)


def _become_foreground():
    """Runs in the child: its standard input becomes the controlling terminal, as under a login shell; and the
    kernel kills it when this test is killed (prctl PR_SET_PDEATHSIG)."""
    _LIBC.prctl(1, signal.SIGKILL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Timeout(Exception):
    """The guest did not say in time what was expected."""


def guest_dir():
    """Where tools/fetch-guest puts the images."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("BT86_GUEST_DIR") or os.path.join(cache, "bt86", "guest")


def skip(reason):
    print(f"skip: {reason}")
    sys.exit(SKIP)


def options(description, extra=None):
    """The command line that all boot tests share; extra(parser) may add to it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vmm", help="bt86's path, or qemu (default: $BT86, else bt86 in the build directory)")
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"), help="build directory")
    parser.add_argument("--accel", choices=("bt", "interp", "kvm"), default="bt")
    parser.add_argument("--kernel", choices=KERNELS, default="686")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the console")
    if extra:
        extra(parser)
    arguments = parser.parse_args()
    arguments.vmm = arguments.vmm or os.environ.get("BT86") or os.path.join(arguments.build, "bt86")
    arguments.slow = 20 if arguments.accel == "interp" else 1
    if arguments.vmm == "qemu":
        if not shutil.which("qemu-system-i386"):
            skip("qemu-system-i386 is not installed")
        arguments.slow = 4
        arguments.accel = "tcg"
    elif not os.access(arguments.vmm, os.X_OK):
        print(f"not ok: there is no {arguments.vmm}")
        sys.exit(1)
    elif arguments.accel == "kvm":
        need_hardware_assist(arguments.vmm)
    return arguments


def need_hardware_assist(vmm):
    """Ends the test with a skip where /dev/kvm cannot run Linux: nothing there, or a software KVM."""
    help_text = subprocess.run([vmm, "-accel", "help"], capture_output=True, text=True, check=True).stdout
    kvm = next(line.split(None, 1)[1] for line in help_text.splitlines() if line.startswith("kvm"))
    if not kvm.startswith("hardware assist"):
        skip(f"no hardware assist behind /dev/kvm: {kvm}")


def image(name):
    """The path of a guest image; ends the test with a skip if it was not fetched."""
    path = os.path.join(guest_dir(), name)
    if not os.path.exists(path):
        skip(f"{name} is not in the guest directory (run tools/fetch-guest)")
    return path


def initrd(output, *arguments):
    """Builds an initrd with tools/make-initrd; arguments as on its command line."""
    image("busybox")
    subprocess.run([os.path.join(ROOT, "tools", "make-initrd"), *arguments, output], check=True)
    return output


def command(arguments, *, memory="512", kernel=None, ramdisk=None, append="console=ttyS0", extra=()):
    """The command line that boots a kernel."""
    line = ["qemu-system-i386"] if arguments.vmm == "qemu" else [arguments.vmm, "-accel", arguments.accel]
    line += ["-m", str(memory), "-kernel", kernel or image("vmlinuz-" + arguments.kernel)]
    line += ["-initrd", ramdisk or image("initrd.gz")]
    return line + ["-append", append, "-nographic", "-no-reboot", *extra]


class Result:
    def __init__(self, text, status):
        self.text, self.status = text, status


class Machine:
    """A virtual machine on a pseudo terminal."""

    def __init__(self, arguments, line=None, **boot):
        self.arguments = arguments
        self.line = line or command(arguments, **boot)
        self.log = b""
        self.seen = 0  # how much of the log expect() has consumed
        self.started = time.monotonic()
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self.terminal = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(self.line, stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        start_new_session=True, preexec_fn=_become_foreground)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if kind is Timeout:
            print(f"not ok: {value}; the console's last lines:\n{self.tail()}")
        os.close(self.master)
        os.close(self.slave)
        if kind is Timeout:
            sys.exit(1)

    def tail(self, lines=25):
        return "\n".join("    " + one.rstrip() for one in self.log.decode(errors="replace").splitlines()[-lines:])

    def pump(self, seconds):
        """Takes in what the machine prints, for at most so long; False if nothing came."""
        ready, _, _ = select.select([self.master], [], [], max(0, seconds))
        if not ready:
            return False
        data = os.read(self.master, 65536)
        self.log += data
        if self.arguments.verbose:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return True

    def expect(self, pattern, seconds=30, scale=True):
        """Waits for the pattern (a regular expression on bytes) after what was last matched."""
        seconds *= self.arguments.slow if scale else 1
        end = time.monotonic() + seconds
        while True:
            match = re.compile(pattern, re.S).search(self.log, self.seen)
            if match:
                self.seen = match.end()
                return match
            left = end - time.monotonic()
            if left <= 0:
                raise Timeout(f"{pattern!r} did not come within {seconds} s")
            if not self.pump(min(left, 0.2)) and self.process.poll() is not None and not self.pump(0.1):
                raise Timeout(f"{pattern!r} did not come: the machine ended with status {self.process.returncode}")

    def send(self, text):
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def prompt(self, seconds=60):
        """Waits for the shell; returns the seconds since the start."""
        self.expect(rb"bt86: shell ready\r", seconds)
        self.expect(rb"/ # ", seconds)
        self.boot_seconds = time.monotonic() - self.started
        self.boot_log = self.log[:self.seen].decode(errors="replace")
        # A constant prompt, and lines that do not wrap.
        self.send("stty cols 200; export PS1='/ # '\r")
        self.expect(rb"export PS1[^\r]*\r+\n.*/ # ", seconds)
        return self.boot_seconds

    def shell(self, text, seconds=30):
        """Runs one command line; its output, without carriage returns, and its status."""
        # The markers are spelled so that the echo of the command does not contain them.
        self.send(f"printf '\\100<\\n'; {text}; printf '\\100>%s\\100\\n' $?\r")
        self.expect(rb"@<\r+\n", seconds)
        match = self.expect(rb"(.*?)@>(\d+)@\r+\n", seconds)
        self.expect(rb"/ # ", seconds)
        return Result(match.group(1).decode(errors="replace").replace("\r", "").strip("\n"), int(match.group(2)))

    def settle(self):
        """Waits until the kernel has chosen its clocksource for good, which it does a second or so into the boot and
        says in its log: a fast boot is at the shell before that."""
        self.shell("n=0; until grep -q '^tsc$' /sys/devices/system/clocksource/clocksource0/current_clocksource || "
                   "[ $n -ge 50 ]; do n=$((n + 1)); sleep 0.1; done")

    def wait(self, seconds=30):
        """Waits for the process to end; its exit status, negative for a signal."""
        end = time.monotonic() + seconds * self.arguments.slow
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise Timeout(f"the machine did not end within {seconds * self.arguments.slow} s")
            self.pump(0.05)
        while self.pump(0):
            pass
        return self.process.returncode

    def finish(self, text="poweroff -f", seconds=30):
        self.send(text + "\r")
        return self.wait(seconds)

    def terminal_restored(self):
        return termios.tcgetattr(self.slave) == self.terminal

    def signal(self, number):
        self.process.send_signal(number)

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wakes(self):
        """How often a thread of the machine has gone to sleep."""
        total = 0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{task}/status") as file:
                total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read(), re.M)[1])
        return total


class Score:
    """Counts checks, says what went wrong, and ends the test."""

    def __init__(self):
        self.good = self.bad = 0

    def check(self, name, condition, detail=""):
        if condition:
            self.good += 1
            print(f"ok {name}", flush=True)
        else:
            self.bad += 1
            print(f"not ok {name}" + (f": {detail}" if detail else ""), flush=True)
        return bool(condition)

    def equal(self, name, found, wanted):
        return self.check(name, found == wanted, f"found {found!r}, wanted {wanted!r}")

    def note(self, text):
        print("# " + text, flush=True)

    def end(self):
        print(f"{self.good} good, {self.bad} bad")
        sys.exit(1 if self.bad or not self.good else 0)
