#!/usr/bin/env python3
"""What bt86 says to bad input: one clear line on standard error, the documented exit status, never a signal; and
what it does with guests that destroy themselves."""
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import guests
from harness import Machine, Score, image, options, skip

USAGE, IMAGE, TRIPLE_FAULT, INTERNAL = 1, 2, 3, 4  # docs/bt86.1, EXIT STATUS


def run(line, seconds=60, **more):
    """Runs to the end or for so long; returns status (None: still running), standard error."""
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    try:
        _, errors = process.communicate(timeout=seconds)
        return process.returncode, errors.decode(errors="replace")
    except subprocess.TimeoutExpired:
        process.kill()
        return None, process.communicate()[1].decode(errors="replace")


def refused(score, name, line, status, **more):
    found, errors = run(line, **more)
    lines = [one for one in errors.splitlines() if one.strip()]
    problem = ""
    if found != status:
        problem = f"exit status {found}, wanted {status}"
    elif len(lines) != 1 or len(lines[0]) < 10:
        problem = f"{len(lines)} lines on standard error instead of one clear one"
    elif not lines[0].isprintable():
        problem = "unprintable characters on standard error"
    return score.check(name, not problem, f"{problem}: {errors[:500]!r}")


def usage(score, bt86, kernel):
    for name, line in (
            ("no arguments", []), ("unknown option", ["-frobnicate"]), ("unknown option, two dashes", ["--frobnicate"]),
            ("stray argument", ["-kernel", kernel, "stray"]), ("missing value", ["-kernel"]), ("missing value of -m", ["-kernel", kernel, "-m"]),
            ("-initrd without -kernel", ["-initrd", kernel]), ("unknown accelerator", ["-kernel", kernel, "-accel", "magic"]),
            ("unknown CPU", ["-kernel", kernel, "-cpu", "z80"]), ("unknown serial", ["-kernel", kernel, "-serial", "tin-can"]),
            ("serial to a missing directory", ["-kernel", kernel, "-serial", "file:/nonexistent/x"]),
            ("serial to no path", ["-kernel", kernel, "-serial", "file:"]),
            ("serial to a missing socket", ["-kernel", kernel, "-serial", "unix:/nonexistent/s"]),
            ("unknown log category", ["-kernel", kernel, "-d", "gossip"]), ("log to a missing directory", ["-kernel", kernel, "-d", "int", "-D", "/nonexistent/x"]),
            ("empty -append value missing", ["-kernel", kernel, "-append"])):
        refused(score, name, [bt86, *line], USAGE)
    for size in ("0", "5G", "-1", "", "x", "12x", "1e3", "0x10", "99999999999999999999", "4294967296K", "1.5G", " ", "3073", "G", "18446744073709551616", "512MM"):
        refused(score, f"-m '{size}'", [bt86, "-kernel", kernel, "-m", size], USAGE)
    for option in ("--help", "-help", "--version", "-version"):
        status, errors = run([bt86, option])
        score.check(option, status == 0 and not errors, f"status {status}: {errors}")


def without_kvm(score, bt86, kernel):
    """-accel kvm where there is no KVM: /dev/null takes its place in a mount namespace of its own."""
    hide = ["unshare", "-rm", "sh", "-c", 'mount --bind /dev/null /dev/kvm && exec "$@"', "sh"]
    if not os.path.exists("/dev/kvm"):
        hide = []
    elif run([*hide, "true"])[0]:
        score.note("-accel kvm without KVM: not tested, unshare(1) cannot hide /dev/kvm here")
        return
    refused(score, "-accel kvm without KVM", [*hide, bt86, "-kernel", kernel, "-accel", "kvm", "-nographic"], INTERNAL)
    status, errors = run([*hide, bt86, "-accel", "help"])
    score.check("-accel help without KVM", status == 0 and not errors, f"status {status}: {errors}")


def files(score, bt86, kernel, scratch):
    def write(name, content):
        path = os.path.join(scratch, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    with open(kernel, "rb") as file:
        good = file.read()
    refused(score, "missing kernel", [bt86, "-kernel", "/nonexistent/vmlinuz"], IMAGE)
    refused(score, "kernel that is a directory", [bt86, "-kernel", scratch], IMAGE)
    refused(score, "empty kernel", [bt86, "-kernel", write("empty", b"")], IMAGE)
    refused(score, "empty name", [bt86, "-kernel", ""], IMAGE if run([bt86, "-kernel", ""])[0] == IMAGE else USAGE)
    refused(score, "kernel that is a device without end", [bt86, "-kernel", "/dev/zero"], IMAGE)
    refused(score, "name with a newline", [bt86, "-kernel", "/nonexistent/a\nb"], IMAGE)
    refused(score, "missing initrd", [bt86, "-kernel", kernel, "-initrd", "/nonexistent/initrd"], IMAGE)
    refused(score, "initrd that is a directory", [bt86, "-kernel", kernel, "-initrd", scratch], IMAGE)
    big = os.path.join(scratch, "big")
    with open(big, "wb") as file:
        file.truncate(100 << 20)
    refused(score, "initrd too big for memory", [bt86, "-m", "64", "-kernel", kernel, "-initrd", big], IMAGE)
    with open(big, "wb") as file:
        file.truncate(5 << 30)
    refused(score, "initrd of 5 GiB", [bt86, "-m", "512", "-kernel", kernel, "-initrd", big], IMAGE)
    refused(score, "kernel too big for memory", [bt86, "-m", "8", "-kernel", kernel], IMAGE)
    refused(score, "missing symbols", [bt86, "-kernel", kernel, "-symbols", "/nonexistent/map"], IMAGE)

    patched = bytearray(good)
    patched[0x236] |= 1  # XLF_KERNEL_64
    header = write("kernel64", bytes(patched))
    status, errors = run([bt86, "-m", "512", "-kernel", header, "-append", "console=ttyS0"], 3)
    score.check("64-bit bzImage is refused", status == IMAGE and errors.count("\n") == 1, f"status {status}: {errors!r}")
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00\x01\x00\x00\x00" + bytes(40)
    refused(score, "64-bit ELF kernel", [bt86, "-kernel", write("elf64", elf + bytes(4096))], IMAGE)
    refused(score, "ELF for another machine", [bt86, "-kernel", write("arm", b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\x28\x00\x01" + bytes(4000))], IMAGE)
    refused(score, "the host's own program", [bt86, "-kernel", "/proc/self/exe"], IMAGE)

    # Truncated at every 4 KiB. One line in the report; the first failures in detail.
    bad = []
    for size in range(4096, len(good), 4096):
        needed = (good[0x1F1] + 1) * 512 + int.from_bytes(good[0x1F4:0x1F8], "little") * 16
        if size >= needed:
            break  # only the signature behind the kernel is missing
        status, errors = run([bt86, "-m", "128", "-kernel", write("truncated", good[:size])], 10)
        if status != IMAGE or errors.count("\n") != 1:
            bad.append(f"{size}: status {status}: {errors!r}")
    score.check("kernel truncated at every 4 KiB", not bad, "\n    " + "\n    ".join(bad[:5]))
    bad = []
    for size in (*range(1, 64), *range(64, 4096, 61)):
        status, errors = run([bt86, "-m", "128", "-kernel", write("truncated", good[:size])], 10)
        if status != IMAGE or errors.count("\n") != 1:
            bad.append(f"{size}: status {status}: {errors!r}")
    score.check("kernel truncated within its header", not bad, "\n    " + "\n    ".join(bad[:5]))

    source = random.Random(4)
    bad = []
    for number in range(100):
        content = source.randbytes(source.choice((1, 2, 511, 512, 513, 4096, 70000, 3000000 if number % 20 == 0 else 9000)))
        status, errors = run([bt86, "-kernel", write("random", content)], 10)
        if status != IMAGE or errors.count("\n") != 1:
            bad.append(f"{number}: status {status}: {errors!r}")
    score.check("random bytes as a kernel", not bad, "\n    " + "\n    ".join(bad[:5]))

    # Headers with one field turned to garbage: refused, or a guest that goes wrong by itself; never a crash.
    bad = []
    for number in range(150):
        content = bytearray(good[:65536] if number % 2 else good)
        for _ in range(source.choice((1, 2, 8))):
            at = source.randrange(0x1F1, 0x280)
            content[at] = source.choice((0, 0xFF, 0x80, source.randrange(256)))
        status, errors = run([bt86, "-m", "64", "-no-reboot", "-kernel", write("mutated", bytes(content))], 0.5)
        if status not in (None, 0, IMAGE, TRIPLE_FAULT) or (status == IMAGE and errors.count("\n") != 1):
            bad.append(f"{number}: status {status}: {errors!r}")
    score.check("mutated headers", not bad, "\n    " + "\n    ".join(bad[:5]))

    # A file that may not be read. Root may read everything, so become somebody else.
    secret = write("secret", good)
    os.chmod(secret, 0)
    if os.getuid() != 0:
        refused(score, "unreadable kernel", [bt86, "-kernel", secret], IMAGE)
        refused(score, "unreadable initrd", [bt86, "-kernel", kernel, "-initrd", secret], IMAGE)
    else:
        os.chmod(scratch, 0o755)
        copy, plain = os.path.join(scratch, "bt86"), write("plain", good)
        shutil.copy(bt86, copy)
        refused(score, "unreadable kernel", [copy, "-kernel", secret], IMAGE, user=65534, group=65534, extra_groups=[])
        refused(score, "unreadable initrd", [copy, "-kernel", plain, "-initrd", secret], IMAGE, user=65534, group=65534, extra_groups=[])


def destroyed(score, arguments, scratch):
    path = os.path.join(scratch, "guest")
    kvm = subprocess.run([arguments.vmm, "-accel", "help"], capture_output=True, text=True, check=True).stdout
    said = {"bt": 0, "interp": 0} if "kvm     not available" in kvm else {"bt": 0, "interp": 0, "kvm": 1}  # lines on stderr at the start
    for accel in said:
        for name, (code, triple) in guests.GUESTS.items():
            with open(path, "wb") as file:
                file.write(guests.multiboot(code))
            line = [arguments.vmm, "-accel", accel, "-m", "32", "-kernel", path, "-no-reboot", "-nographic"]
            if triple:
                status, errors = run(line, 20)
                score.check(f"{accel}: {name}", status == TRIPLE_FAULT and errors.count("\n") <= 1 + said[accel], f"status {status}: {errors[:500]!r}")
                continue
            with Machine(arguments, line=line) as vm:
                time.sleep(1)
                alive = vm.process.poll() is None
                if alive:
                    vm.signal(signal.SIGTERM)
                status = vm.wait(10)
                wanted = (143,) if triple is False else (0, TRIPLE_FAULT, 143)  # some of the ports end the machine
                score.check(f"{accel}: {name}", (alive or triple is None) and status in wanted, f"alive {alive}, status {status}")
                score.check(f"{accel}: {name}: terminal restored", vm.terminal_restored())
        with open(path, "wb") as file:
            file.write(guests.DEBUG_EXIT)
        score.equal(f"{accel}: debug exit", run([arguments.vmm, "-accel", accel, "-kernel", path, "-debug-exit", "-nographic"], 20)[0], 0x43)
    # Random code: the machine may do anything a machine may do, but bt86 may not die.
    source = random.Random(8)
    bad = []
    for number in range(40):
        with open(path, "wb") as file:
            file.write(guests.multiboot(source.randbytes(4096)))
        status, errors = run([arguments.vmm, "-m", "32", "-kernel", path, "-no-reboot"], 0.5)
        if status not in (None, 0, TRIPLE_FAULT):
            kept = os.path.join(arguments.build, "tests", "boot", f"random-code-{number}")
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            shutil.copy(path, kept)
            bad.append(f"{kept}: status {status}: {errors!r}")
    score.check("random code", not bad, "\n    " + "\n    ".join(bad[:5]))


def main():
    arguments = options(__doc__, lambda parser: parser.add_argument(
        "--no-guests", action="store_true", help="only what is refused before anything runs"))
    if arguments.vmm == "qemu":
        skip("QEMU answers bad input in its own way")
    score = Score()
    kernel = image("vmlinuz-" + arguments.kernel)
    arguments.vmm = os.path.abspath(arguments.vmm)
    with tempfile.TemporaryDirectory() as scratch:
        usage(score, arguments.vmm, kernel)
        without_kvm(score, arguments.vmm, kernel)
        files(score, arguments.vmm, kernel, scratch)
        if not arguments.no_guests:
            destroyed(score, arguments, scratch)
    score.end()


if __name__ == "__main__":
    sys.exit(main())
