#!/usr/bin/env python3
"""Boots over and over: every boot reaches the shell, says nothing alarming, runs a few programs, powers off with
status 0 and has the same log as the first, apart from what differs between any two boots."""
import statistics
import sys

import bootlog
from harness import Machine, Score, Timeout, options


def count(lines):
    counted = {}
    for line in lines:
        counted[line] = counted.get(line, 0) + 1
    return counted


def main():
    arguments = options(__doc__, lambda parser: parser.add_argument("--count", type=int, default=5))
    score = Score()
    first, times = None, []
    for number in range(1, arguments.count + 1):
        with Machine(arguments) as vm:
            try:
                times.append(vm.prompt())
                answer = vm.shell("i=0; while [ $i -lt 100 ]; do i=$(busybox expr $i + 1); done; echo $i; ls /bin | wc -l").text
                vm.settle()
                raw = vm.shell("dmesg -r").text
                status = vm.finish()
            except Timeout as timeout:
                score.check(f"boot {number}", False, f"{timeout}; the console's last lines:\n{vm.tail()}")
                continue
        lines = count(bootlog.normalize(raw))
        first = first or lines
        problems = bootlog.news(raw, arguments.kernel, arguments.build, busy=True)
        problems += [f"new: {line}" for line in lines if lines[line] > first.get(line, 0)]
        problems += [f"gone: {line}" for line in first if first[line] > lines.get(line, 0)]
        if not answer.startswith("100\n"):
            problems.append(f"the shell counted to {answer!r}")
        if status:
            problems.append(f"exit status {status}")
        score.check(f"boot {number}", not problems, "\n    " + "\n    ".join(problems[:30]))
    if times:
        score.note(f"prompt after {min(times):.2f} to {max(times):.2f} s, median {statistics.median(times):.2f} s")
    score.end()


if __name__ == "__main__":
    sys.exit(main())
