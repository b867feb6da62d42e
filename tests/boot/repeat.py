#!/usr/bin/env python3
"""Boots over and over: every boot reaches the shell in time, says nothing alarming (an oops, a WARN, anything of level
warning or worse that QEMU's guest does not say), runs a few programs, powers off with status 0 and has the same log as
the reference, apart from what differs between any two boots. The reference is the first boot, or one under the
interpreter.

Fifty boots of each kernel, compared with the interpreter:

    for kernel in 686 686-pae; do tests/boot/repeat.py --kernel $kernel --count 50 --reference interp; done"""
import copy
import statistics
import sys

import bootlog
from harness import Machine, Score, Timeout, options, skip


def count(lines):
    counted = {}
    for line in lines:
        counted[line] = counted.get(line, 0) + 1
    return counted


def boot(arguments):
    """One boot's seconds to the prompt, log (dmesg -r), and what was wrong with it. Raises Timeout where it hangs."""
    problems = []
    with Machine(arguments) as vm:
        try:
            seconds = vm.prompt()
            answer = vm.shell("i=0; while [ $i -lt 100 ]; do i=$(busybox expr $i + 1); done; echo $i; ls /bin | wc -l").text
            vm.settle()
            raw = vm.shell("dmesg -r").text
            status = vm.finish()
        except Timeout as timeout:
            return None, "", [f"{timeout}; the console's last lines:\n{vm.tail()}"]
    if not answer.startswith("100\n"):
        problems.append(f"the shell counted to {answer!r}")
    if status:
        problems.append(f"exit status {status}")
    return seconds, raw, problems + bootlog.news(raw, arguments.kernel, arguments.build, busy=True)


def interpreted(arguments):
    """The log of a boot under the interpreter."""
    slow = copy.copy(arguments)
    slow.accel, slow.slow = "interp", 20
    return boot(slow)


def differences(lines, reference):
    return ([f"new: {line}" for line in lines if lines[line] > reference.get(line, 0)]
            + [f"gone: {line}" for line in reference if reference[line] > lines.get(line, 0)])


def more_options(parser):
    parser.add_argument("--count", type=int, default=5, help="how many boots (default: 5)")
    parser.add_argument("--reference", choices=("first", "interp"), default="first",
                        help="what the logs are compared with: the first boot's, or that of one more boot under the "
                        "interpreter, which takes minutes (default: first)")


def main():
    arguments = options(__doc__, more_options)
    score = Score()
    reference, times = None, []
    if arguments.reference == "interp":
        if arguments.vmm == "qemu":
            skip("QEMU has no interpreter to compare with")
        seconds, raw, problems = interpreted(arguments)
        if not score.check("boot under the interpreter", not problems, "\n    " + "\n    ".join(problems[:30])):
            score.end()
        score.note(f"interp: prompt after {seconds:.2f} s")
        reference = count(bootlog.normalize(raw))
    for number in range(1, arguments.count + 1):
        seconds, raw, problems = boot(arguments)
        if raw:
            times.append(seconds)
            lines = count(bootlog.normalize(raw))
            reference = reference or lines
            problems += differences(lines, reference)
        score.check(f"boot {number}", not problems, "\n    " + "\n    ".join(problems[:30]))
    if times:
        score.note(f"prompt after {min(times):.2f} to {max(times):.2f} s, median {statistics.median(times):.2f} s")
    score.end()


if __name__ == "__main__":
    sys.exit(main())
