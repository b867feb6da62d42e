#!/usr/bin/env python3
"""Runs the 32-bit programs of tests/userland in the guest and on the host and compares what they print."""
import os
import subprocess
import sys
import tempfile
import time

from harness import Machine, Score, initrd, options, skip

# smc is the self-modifying code suite's (tests/smc).
PROGRAMS = ("integer", "sse", "x87", "threads", "signals", "forkexec", "memory", "pipes", "recursion", "jit", "timers", "smc")


def differences(host, guest):
    """Lines that differ. A CPU that leaves an instruction set out prints "NAME absent", which is no error."""
    host, guest = host.splitlines(), guest.splitlines()
    found = [f"host: {a}\n    guest: {b}" for a, b in zip(host, guest) if a != b and not b.endswith(" absent")]
    if len(host) != len(guest):
        found.append(f"host: {len(host)} lines, guest: {len(guest)}: {' | '.join(guest[-2:])}")
    return found


def main():
    arguments = options(__doc__, lambda parser: parser.add_argument("--only", action="append", help="run this program only"))
    programs = arguments.only or PROGRAMS
    path = {name: os.path.join(arguments.build, "tests", "smc" if name == "smc" else "userland", name) for name in programs}
    if not os.path.exists(path[programs[0]]):
        skip("the userland programs are not built (libc6-dev-i386)")
    if arguments.vmm == "qemu":  # which leaves out SSE exceptions and rounds some x87 results its own way
        programs = [name for name in programs if name not in ("sse", "x87", "signals")]
    score = Score()
    with tempfile.TemporaryDirectory() as scratch:
        adds = []
        for name in programs:
            adds += ["--add", f"{path[name]}:/tests/{name}"]
        with Machine(arguments, ramdisk=initrd(os.path.join(scratch, "initrd"), "--raw", *adds)) as vm:
            vm.prompt()
            for name in programs:
                rounds = ["100"] if name == "forkexec" and arguments.accel == "interp" else []
                host = subprocess.run([path[name], *rounds], capture_output=True, text=True, check=False)
                start = time.monotonic()
                guest = vm.shell(f"/tests/{name} {' '.join(rounds)} >/tmp/out; s=$?; cat /tmp/out; (exit $s)", 180)
                score.note(f"{name}: {time.monotonic() - start:.2f} s")
                score.equal(f"{name}: status", guest.status, host.returncode)
                found = differences(host.stdout, guest.text)
                score.check(f"{name}: same output", not found, "\n    " + "\n    ".join(found[:40]))
            # Several at once: threads, faults and code generation against each other.
            together = [name for name in ("signals", "jit", "memory", "threads", "x87", "smc") if name in programs]
            if len(together) > 1:
                vm.shell("for p in " + " ".join(together) + "; do /tests/$p >/tmp/$p.out & done; wait", 300)
                for name in together:
                    host = subprocess.run([path[name]], capture_output=True, text=True, check=False)
                    guest = vm.shell(f"cat /tmp/{name}.out")
                    found = differences(host.stdout, guest.text)
                    score.check(f"{name}: same output next to others", not found, "\n    " + "\n    ".join(found[:10]))
            score.equal("poweroff", vm.finish(), 0)
    score.end()


if __name__ == "__main__":
    sys.exit(main())
