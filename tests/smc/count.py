#!/usr/bin/env python3
"""Counts what the cases of the self-modifying code guest trap, through --stats.

Every case runs with N and with 10 N rounds. What the longer run traps more than the shorter is the steady state, and
must not grow with the number of stores: the sites that trap have become callouts by then. Prints a line for each case;
--table prints a table instead. Its columns:

    stores         stores into code in one round (where there are none, the figures below are for each round)
    learning       traps altogether until nothing traps any more
    steady         traps for each store from then on
    callouts       callouts in one round, all reasons together
    blocks         blocks translated in one round

--compare NAME=PATH adds a column: the steady state of another bt86. Only counters are looked at, never time.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# Faults in translated code that the guest does not see. ("true" are the guest's own.)
TRAPS = ("hidden", "trace_hits", "mmio", "user_supervisor_sites", "window_edge")
SLACK = 4  # traps that may come at any time
# What is not zero, for each round. The page behind a directory pointer that changes is another one at each load of CR3:
# what was mapped through it is given up, and the two pages that the round touches there are mapped anew.
EXPECTED = {"pae-directory-pointer": 2}
ROUNDS = {"jit": 100000, "many-writers": 30, "counter-beside": 30, "counter-beside-user": 30, "stack-beside": 30,
          "stack-beside-user": 30, "data-around": 30, "copied-by-rep": 100, "freed-and-moved": 100}


def run(vmm, elf, words, directory):
    """One run of the guest: its output and the counters."""
    stats = os.path.join(directory, "stats.json")
    line = [vmm, "-accel", "bt", "--stats=" + stats, "-m", "64", "-kernel", elf, "-append", words, "-nographic", "-no-reboot", "-debug-exit"]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 1 or "PASS smc" not in done.stdout:
        print(f"not ok {words}: status {done.returncode}\n{done.stdout}{done.stderr}")
        sys.exit(1)
    with open(stats, encoding="ascii") as file:
        return done.stdout, json.load(file)


def traps(counters):
    return sum(counters["faults"][name] for name in TRAPS)


class Measured:
    """A case with n and with ten times n rounds."""

    def __init__(self, vmm, elf, name, writes, rounds, directory):
        few = run(vmm, elf, f"case={name} rounds={rounds}", directory)[1]
        many = run(vmm, elf, f"case={name} rounds={rounds * 10}", directory)[1]
        self.grown = traps(many) - traps(few)
        self.allowed = SLACK + EXPECTED.get(name, 0) * rounds * 9
        self.units = rounds * 9 * (writes or 1)
        self.steady = self.grown / self.units
        self.kinds = {kind: many["faults"][kind] - few["faults"][kind] for kind in TRAPS if many["faults"][kind] != few["faults"][kind]}
        self.learning = max(0, round(traps(few) - rounds * (writes or 1) * self.steady))
        self.callouts = (many["run"]["callouts"] - few["run"]["callouts"]) / (rounds * 9)
        self.blocks = (many["cache"]["blocks_translated"] - few["cache"]["blocks_translated"]) / (rounds * 9)

    def good(self):
        return self.grown <= self.allowed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vmm", help="bt86's path (default: $BT86, else bt86 in the build directory)")
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"), help="build directory")
    parser.add_argument("--only", action="append", help="run this case only")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of the short run (%(default)s)")
    parser.add_argument("--table", action="store_true", help="print a table")
    parser.add_argument("--compare", action="append", default=[], metavar="NAME=PATH", help="another bt86 for the table")
    arguments = parser.parse_args()
    vmm = arguments.vmm or os.environ.get("BT86") or os.path.join(arguments.build, "bt86")
    elf = os.path.join(arguments.build, "tests", "smc", "smc.elf")
    bad = 0
    with tempfile.TemporaryDirectory() as directory:
        listing = re.findall(r"^case (\S+) \d+ (\d+)$", run(vmm, elf, "case=list", directory)[0], re.M)
        others = [one.split("=", 1) for one in arguments.compare]
        if arguments.table:
            titles = ["case", "stores", "learning", "steady", *(name for name, _ in others), "callouts", "blocks"]
            print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
        for name, writes in listing:
            if arguments.only and name not in arguments.only:
                continue
            rounds = ROUNDS.get(name, arguments.rounds)
            if others:  # which may trap a lot
                rounds = min(rounds, 1000)
            found = Measured(vmm, elf, name, int(writes), rounds, directory)
            bad += not found.good()
            if arguments.table:
                other = [f"{Measured(path, elf, name, int(writes), rounds, directory).steady:.2g}" for _, path in others]
                cells = [name, writes, str(found.learning), f"{found.steady:.2g}", *other, f"{found.callouts:.0f}",
                         f"{found.blocks:.1f}"]
                print("| " + " | ".join(cells) + " |", flush=True)
            else:
                print(f"{'ok' if found.good() else 'not ok'} {name}: {found.grown} traps more in {found.units} "
                      f"{'stores' if int(writes) else 'rounds'} more {found.kinds or ''}", flush=True)
    print(f"{len(listing)} cases, {bad} that go on trapping")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    sys.exit(main())
