"""What the benchmarks share: which machines there are, how they are started, how figures become a table.

A *column* is one way to run the guest: a name and the command line in front of the options that all of them share.
Nothing here judges a time; a benchmark fails only if a guest does not do what it is told.
"""
import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
import types

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "boot"))
import harness  # noqa: E402

QEMU = "qemu"


def find_bt86():
    for path in (os.environ.get("BT86"), os.path.join(ROOT, "build", "release", "bt86"), shutil.which("bt86")):
        if path and os.access(path, os.X_OK):
            return path
    return None


def parser(description):
    """The options that every benchmark takes."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bt86", metavar="PATH", default=find_bt86(),
                   help="the bt86 to measure (default: $BT86, build/release/bt86, or the one on the PATH)")
    p.add_argument("--kernel", choices=harness.KERNELS, default="686", help="which of Debian's kernels (default: 686)")
    p.add_argument("-m", "--memory", default="512", metavar="MIB", help="guest memory (default: 512)")
    p.add_argument("--append", default="", metavar="TEXT", help="more for the kernel's command line, in every column")
    p.add_argument("--column", action="append", default=[], metavar="NAME=COMMAND",
                   help="one more column: the program and options to put before -m, -kernel and so on; may be repeated")
    p.add_argument("--no-qemu", action="store_true", help="leave out QEMU")
    p.add_argument("--json", metavar="FILE", help="write every single figure to FILE")
    return p


def columns(arguments, accels):
    """name -> start of the command line; QEMU last, if it is there."""
    if not arguments.bt86:
        sys.exit("no bt86: build it, or name it with --bt86")
    found = {accel: [arguments.bt86, "-accel", accel] for accel in accels}
    for text in arguments.column:
        name, equals, line = text.partition("=")
        if not equals or not name or not line:
            sys.exit(f"--column '{text}' is not NAME=COMMAND")
        found[name] = shlex.split(line)
    if arguments.no_qemu:
        pass
    elif shutil.which("qemu-system-i386"):
        # What bt86 does not have either: no display, no network card.
        found[QEMU] = ["qemu-system-i386", "-accel", "tcg", "-vga", "none", "-nic", "none"]
    else:
        print("qemu-system-i386 is not installed: no QEMU column")
    return found


def machine(arguments, line):
    """Starts a machine; its clock runs from just before the process does."""
    append = ("console=ttyS0 " + arguments.append).strip()
    full = line + ["-m", arguments.memory, "-kernel", harness.image("vmlinuz-" + arguments.kernel),
                   "-initrd", harness.image("initrd.gz"), "-append", append, "-nographic", "-no-reboot"]
    return harness.Machine(types.SimpleNamespace(slow=1, verbose=False), full)


def in_turn(names, run):
    """The order of one round: the first column changes from round to round."""
    at = run % len(names)
    return names[at:] + names[:at]


def pairwise(mine, theirs):
    """Median of the ratios of figures taken in the same round; None without a common round."""
    ratios = [a / b for a, b in zip(mine, theirs)]
    return statistics.median(ratios) if ratios else None


def summary(times, reference):
    """One row's figures, in seconds. reference: the times to divide by, or None."""
    row = {"runs": len(times), "median": statistics.median(times), "min": min(times), "max": max(times), "times": times}
    row["ratio"] = pairwise(times, reference) if reference else None
    return row


def ratio_text(ratio):
    return "-" if ratio is None else f"{ratio:.3f}"


def table(head, rows):
    """Left column flush left, the others flush right."""
    widths = [max(len(row[i]) for row in [head] + rows) for i in range(len(head))]
    for row in [head] + rows:
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))))


def progress(text):
    print(text, file=sys.stderr, flush=True)


def first_line(line):
    try:
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout.splitlines()[0]
    except (OSError, IndexError):
        return "unknown"


def cpu_model():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def conditions(arguments, found):
    """What a figure needs with it to mean something."""
    facts = {"cpu": cpu_model(), "cpus": os.cpu_count(), "host": platform.system() + " " + platform.release(),
             "load": round(os.getloadavg()[0], 2), "kernel": arguments.kernel, "memory": arguments.memory,
             "append": arguments.append, "bt86": first_line([arguments.bt86, "--version"]),
             "date": time.strftime("%Y-%m-%d")}
    if QEMU in found:
        facts["qemu"] = first_line(["qemu-system-i386", "--version"])
    return facts


def print_conditions(facts):
    print(f"{facts['cpu']}, {facts['cpus']} CPUs, {facts['host']}, load {facts['load']} at the start")
    print(f"kernel {facts['kernel']}, {facts['memory']} MiB" + (f", {facts['append']}" if facts["append"] else "")
          + (f"; {facts['qemu']}" if "qemu" in facts else ""))


def write_json(path, data):
    if path:
        with open(path, "w") as file:
            json.dump(data, file, indent=2)
            file.write("\n")
