"""The columns of the comparison: what runs the guest, found at run time, and how it is started.

A column is the host itself (native), bt86 with one of its accelerators, a peer, or whatever --column adds. found()
tries each and says of those that do not work why.
"""
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import types

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "boot"))
import bochs  # noqa: E402
import harness  # noqa: E402

NATIVE, BT, INTERP, KVM, QEMU, BOCHS = "native", "bt", "interp", "kvm", "qemu", "bochs"
ORDER = [NATIVE, BT, INTERP, KVM, QEMU, BOCHS]
LABELS = {NATIVE: "native", BT: "bt", INTERP: "interp", KVM: "kvm", QEMU: "QEMU TCG", BOCHS: "Bochs"}
NANO_MEMORY = "64"
BOOT_LIMIT = 120  # seconds


class Column:
    """line: the command that a guest's options are appended to; None on the host itself."""

    def __init__(self, name, line=None, nano=None, note=""):
        self.name, self.line, self.note = name, line, note
        self.nano = nano
        self.is_bt86 = bool(line) and "-accel" in line and "qemu" not in line[0]
        self.slow = 100 if name in (INTERP, BOCHS) else 1
        self.linux = bool(line) # as far as is known
        self.software = False

    @property
    def label(self):
        return "software KVM" if self.software else LABELS.get(self.name, self.name)


class Programs:
    """Where the build put what is timed."""

    def __init__(self, build):
        self.nano = os.path.join(build, "bench", "programs", "nano", "nano.elf")
        self.bochs_disk = os.path.join(build, "bench", "programs", "nano", "disk.bin")
        self.user = os.path.join(build, "bench", "programs", "user", "bench")
        self.script = os.path.join(ROOT, "bench", "programs", "user", "script.sh")


def find_bt86():
    for path in (os.environ.get("BT86"), os.path.join(ROOT, "build", "release", "bt86"), shutil.which("bt86")):
        if path and os.access(path, os.X_OK):
            return path
    return None


def nano_line(column, programs, words, directory):
    """The command that runs the nanobenchmarks."""
    if column.nano:
        return column.nano(programs, words, directory)
    line = column.line + ["-m", NANO_MEMORY, "-kernel", programs.nano, "-append", words, "-no-reboot"]
    if column.is_bt86:
        return line + ["-nographic", "-debug-exit"]
    return line + ["-display", "none", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]


def run_nano(column, programs, words, limit=300, extra=()):
    """(what the guest prints, what the machine says); raises RuntimeError unless the guest says PASS."""
    limit *= 3 if column.slow > 1 else 1
    with tempfile.TemporaryDirectory() as directory:
        line = nano_line(column, programs, words, directory) + list(extra)
        errors = os.path.join(directory, "errors")
        try:
            with open(errors, "wb") as err:
                process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err)
        except OSError as error:
            raise RuntimeError(str(error)) from error
        text = until_verdict(process, limit)
        with open(errors, errors="replace") as file:
            said = file.read().strip()
    if "PASS nano" not in text:
        last = said.splitlines()[:1] or text.strip().splitlines()[-1:] or [f"ended with status {process.returncode}"]
        raise RuntimeError(last[0])
    return text, said


def until_verdict(process, limit):
    """Output up to the line PASS or FAIL; a machine that does not end by itself then is ended."""
    timer = threading.Timer(limit, process.kill)
    timer.start()
    lines = []
    for raw in process.stdout:
        lines.append(raw.decode(errors="replace").replace("\r", ""))
        if lines[-1].startswith(("PASS ", "FAIL ")):
            break
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    timer.cancel()
    process.stdout.close()
    return "".join(lines)


def found(arguments, programs):
    """({name: Column}, {name: why not})"""
    columns, missing = {}, {}
    wanted = arguments.columns.split(",") if arguments.columns else None

    def want(name):
        return wanted is None or name in wanted

    if want(NATIVE):
        try:
            subprocess.run([programs.user, "list"], check=True, capture_output=True)
            columns[NATIVE] = Column(NATIVE)
        except (OSError, subprocess.CalledProcessError) as error:
            missing[NATIVE] = f"the host does not run the 32-bit program: {error}"
    for name in (BT, INTERP):
        if want(name):
            columns[name] = Column(name, [arguments.bt86, "-accel", name])
    if want(KVM):
        add_kvm(arguments, programs, columns, missing)
    for text in arguments.column:
        name, equals, line = text.partition("=")
        if not equals or not name or not line:
            sys.exit(f"--column '{text}' is not NAME=COMMAND")
        columns[name] = Column(name, shlex.split(line))
    if want(QEMU):
        if shutil.which("qemu-system-i386"):
            # What bt86 does not have either: no display, no network card.
            columns[QEMU] = Column(QEMU, ["qemu-system-i386", "-accel", "tcg", "-cpu", "max", "-vga", "none", "-nic", "none"],
                                   note=first_line(["qemu-system-i386", "--version"]))
        else:
            missing[QEMU] = "qemu-system-i386 is not installed"
    if want(BOCHS):
        add_bochs(programs, columns, missing)
    for name in wanted or []:
        if name not in columns and name not in missing:
            sys.exit(f"--columns: there is no column '{name}'")
    return columns, missing


def add_kvm(arguments, programs, columns, missing):
    """Tried with the smallest guest; what bt86 says of the thing behind /dev/kvm goes with the column."""
    column = Column(KVM, [arguments.bt86, "-accel", "kvm"])
    if not os.path.exists("/dev/kvm"):
        missing[KVM] = "there is no /dev/kvm"
        return
    try:
        _, said = run_nano(column, programs, "only=nop runs=1 target=2000", 60)
    except RuntimeError as error:
        missing[KVM] = str(error)
        return
    column.note = "; ".join(line.removeprefix("bt86: ") for line in said.splitlines())
    column.software = "software KVM" in column.note
    if column.software: # an interpreter, and for what runs without paging a far slower one
        column.slow, column.linux = 100, False
        column.note += "; Linux is not tried on it"
    columns[KVM] = column


def add_bochs(programs, columns, missing):
    if not shutil.which("bochs"):
        missing[BOCHS] = "bochs is not installed"
    elif not os.path.exists(programs.bochs_disk):
        missing[BOCHS] = "the boot sector for it is not built"
    else:
        columns[BOCHS] = Column(BOCHS, nano=bochs.line, note="its TSC counts instructions, not time")


class Guest:
    """A Linux guest at its prompt, with the programs in /bench."""
    bin, bench, script, data = "/bin", "/bench/bench", "/bench/script.sh", "/dev/shm/bench.data"

    def __init__(self, column, arguments, ramdisk):
        self.column = column
        self.vm = boot(column, arguments, ramdisk)
        self.vm.__enter__()
        try:
            self.vm.prompt(BOOT_LIMIT * (8 if column.slow > 1 else 1))
            self.vm.settle()
        except harness.Timeout as error:
            tail = self.vm.tail(3).strip()
            self.end()
            raise RuntimeError(f"{error}; its last words: {tail}") from error

    def run(self, command, limit):
        try:
            result = self.vm.shell(command, limit * self.column.slow)
        except harness.Timeout as error:
            raise RuntimeError(f"{self.column.name}: '{command}': {error}") from error
        if result.status:
            raise RuntimeError(f"{self.column.name}: '{command}' ended with status {result.status}: {result.text}")
        return result.text

    def end(self):
        self.vm.__exit__(None, None, None)


class Host:
    """The host, with a directory of links to BusyBox."""

    def __init__(self, programs):
        self.directory = tempfile.mkdtemp(prefix="bt86-bench.")
        self.bin, self.bench, self.script = os.path.join(self.directory, "bin"), programs.user, programs.script
        self.data = f"/dev/shm/bench.{os.getpid()}.data"
        os.mkdir(self.bin)
        self.busybox = os.path.join(harness.guest_dir(), "busybox")
        if os.path.exists(self.busybox):
            listed = subprocess.run([self.busybox, "--list"], check=True, capture_output=True, text=True)
            for name in listed.stdout.split():
                os.symlink(self.busybox, os.path.join(self.bin, name))

    def run(self, command, limit):
        shell = [os.path.join(self.bin, "sh"), "-c", command] if os.listdir(self.bin) else command.split()
        try:
            done = subprocess.run(shell, capture_output=True, text=True, timeout=limit, check=False,
                                  env={"PATH": self.bin})
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"native: {error}") from error
        if done.returncode:
            raise RuntimeError(f"native: '{command}' ended with status {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def end(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        if os.path.exists(self.data):
            os.unlink(self.data)


def boot(column, arguments, ramdisk=None, extra=(), memory=None, words=""):
    """Starts a Linux guest; its clock runs from just before the process does."""
    append = " ".join(f"console=ttyS0 {arguments.append} {words}".split())
    line = column.line + ["-m", memory or arguments.memory, "-kernel", harness.image("vmlinuz-" + arguments.kernel),
                          "-initrd", ramdisk or harness.image("initrd.gz"), "-append", append, "-nographic",
                          "-no-reboot", *extra]
    return harness.Machine(types.SimpleNamespace(slow=1, verbose=False), line)


def first_line(line):
    try:
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout.splitlines()[0]
    except (OSError, IndexError):
        return "unknown"
