#!/usr/bin/env python3
"""From 32 MiB to 3 GiB of memory, all of it usable; and an initrd as big as a third of it."""
import os
import re
import subprocess
import sys
import tempfile

from harness import Machine, Score, Timeout, command, initrd, options


def fill(vm, mebibytes):
    """Has the guest write and read back that much memory through a tmpfs."""
    text = vm.shell("mkdir -p /big; mount -t tmpfs -o size=100% tmpfs /big; "
                    f"dd if=/dev/zero bs=1M count={mebibytes} 2>/dev/null | tr '\\0' x >/big/x; "
                    f"wc -c </big/x; tr -d x </big/x | wc -c; rm /big/x", 240).text
    return text.split() == [str(mebibytes << 20), "0"]


def smallest(arguments, score):
    """Debian's kernels decompress to 16 MiB and need a little more than 16 MiB there: -m 32 is too small by a hair.
    Either they boot anyway or one line says that they can't."""
    if arguments.vmm == "qemu":  # hangs without a word
        return
    line = command(arguments, memory=32)
    result = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)
    score.check("-m 32: one line says that it is too small, or it boots",
                "bt86: shell ready" in result.stdout or (result.returncode == 2 and result.stderr.count("\n") == 1),
                f"status {result.returncode}: {result.stderr}")


def main():
    arguments = options(__doc__, lambda parser: parser.add_argument("--sizes", default="48,64,128,1024,2048,3072"))
    score = Score()
    for size in [int(one) for one in arguments.sizes.split(",") if one]:
        with Machine(arguments, memory=size, append="console=ttyS0 quiet") as vm:
            try:
                vm.prompt()
                text = vm.shell("grep MemTotal /proc/meminfo").text
                total = int(re.search(r"(\d+) kB", text).group(1)) // 1024
                score.check(f"-m {size}: MemTotal", size - 80 - size // 20 <= total <= size and total > size // 4, f"{total} MiB")
                score.check(f"-m {size}: usable", fill(vm, max(2, (total - 30) * 2 // 3 // 4)))
                score.equal(f"-m {size}: poweroff", vm.finish(), 0)
            except Timeout as timeout:
                score.check(f"-m {size}", False, f"{timeout}; the console's last lines:\n{vm.tail()}")
    smallest(arguments, score)
    for text, mebibytes in (("256M", 256), ("1G", 1024), ("262144K", 256)):
        with Machine(arguments, memory=text, append="console=ttyS0 quiet") as vm:
            vm.prompt()
            total = int(re.search(r"(\d+) kB", vm.shell("grep MemTotal /proc/meminfo").text).group(1)) // 1024
            score.check(f"-m {text}", mebibytes * 3 // 4 < total <= mebibytes, f"{total} MiB")
            vm.finish()
    with tempfile.TemporaryDirectory() as scratch:
        ramdisk = initrd(os.path.join(scratch, "initrd"), "--raw", "--pad", "168M")
        # A tmpfs would be limited to half of the memory that is left beside the initrd.
        with Machine(arguments, memory=512, ramdisk=ramdisk, append="console=ttyS0 rootfstype=ramfs") as vm:
            score.note(f"prompt after {vm.prompt(120):.2f} s with an initrd of a third of memory")
            result = vm.shell("sha256sum -c /pad.sha256", 120)
            score.equal("initrd of a third of memory arrives whole", (result.status, result.text), (0, "/pad: OK"))
            score.equal("initrd of a third of memory: poweroff", vm.finish(), 0)
    score.end()


if __name__ == "__main__":
    sys.exit(main())
