#!/usr/bin/env python3
"""The kernel's log is the same whether its code is translated or interpreted, apart from what differs between any
two boots. Lines of concurrent initializations may come in another order."""
import sys

import bootlog
from harness import Machine, Score, options, skip
from repeat import count


def boot(arguments, accel):
    arguments.accel = accel
    arguments.slow = 20 if accel == "interp" else 1
    with Machine(arguments) as vm:
        seconds = vm.prompt()
        vm.settle()
        text = vm.shell("dmesg").text
        cpu = vm.shell("grep -vE 'MHz|bogomips' /proc/cpuinfo").text
        vm.finish()
    return seconds, text, cpu


def main():
    arguments = options(__doc__)
    if arguments.vmm == "qemu":
        skip("QEMU has no interpreter to compare with")
    score = Score()
    seconds, text, cpu = {}, {}, {}
    for accel in ("bt", "interp"):
        seconds[accel], text[accel], cpu[accel] = boot(arguments, accel)
        score.note(f"{accel}: prompt after {seconds[accel]:.2f} s")
    bt, interp = (count(bootlog.normalize(text[accel])) for accel in ("bt", "interp"))
    only = [f"bt:     {line}" for line in bt if bt[line] > interp.get(line, 0)]
    only += [f"interp: {line}" for line in interp if interp[line] > bt.get(line, 0)]
    score.check("the logs are the same", not only, "\n    " + "\n    ".join(only))
    score.check("the logs are long enough to mean something", sum(bt.values()) > 150, f"{sum(bt.values())} lines")
    score.equal("the CPUs are the same", cpu["bt"], cpu["interp"])
    score.end()


if __name__ == "__main__":
    sys.exit(main())
