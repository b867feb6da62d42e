"""The suites: what is run, in which columns, and how its figures are read.

Each suite is a function of a Session; it runs rounds, in each of them every benchmark in every column, beginning with
another column each time.
"""
import json
import os
import re
import subprocess
import tempfile
import time

import harness
import machines
from machines import BOCHS, BT, INTERP, NATIVE

PAGE_MIB = 1 / 1024

# What the shell runs, timed by the bench program: name -> (command, rounds at most)
COMMANDS = {
    "script_2000": ("{bench} time {bin}/sh {script} {bin}", 9),
    "sort_awk": ("{bench} time {bin}/sh -c 'seq 100000 -1 1 | sort -n | "
                 "awk \"{{ s += \\$1 * (NR % 7) }} END {{ print s }}\"'", 9),
    "gzip_64m": ("{bench} time {bin}/gzip -c {data}", 2),
}
DATA_BYTES = 64 << 20
TURNS = 3  # of a user program in a round, with the columns one after the other in each: a host's speed changes in between
MEMORY_SIZES = ("128", "512", "1024")


class Session:
    """What a run of bench/run is about: the options, the columns, the data that comes together."""

    def __init__(self, arguments, programs, columns, data):
        self.arguments, self.programs, self.columns, self.data = arguments, programs, columns, data
        self.deadline = None
        self.report = lambda text: None

    def chosen(self, suite, name):
        only = self.arguments.only
        return not only or suite in only or name in only or any(o.endswith("*") and name.startswith(o[:-1]) for o in only)

    def put(self, suite, name, unit, column, row, group=""):
        item = self.data["suites"].setdefault(suite, {}).setdefault(name, {"unit": unit, "group": group, "columns": {}})
        item["columns"].setdefault(column, []).append(row)

    def drop(self, name, why, linux=False):
        """A column that does not work after all; linux: for no suite with Linux in it. Of hardware assist and of columns
        that were added nobody promises more; any other has failed."""
        column = self.columns.pop(name)
        column.linux = column.linux and not linux
        self.data["missing"][name] = why
        if name in (NATIVE, BT, INTERP, machines.QEMU):
            self.data.setdefault("failures", []).append(f"{name}: {why}")
        self.report(f"no more {name}: {why}")

    def late(self, number):
        """Behind the deadline, and not in the first round, or turn of it, which is always completed."""
        return number > 0 and self.deadline is not None and time.monotonic() > self.deadline

    def rounds(self):
        """Round numbers; no new one begins behind the deadline."""
        for number in range(self.arguments.runs):
            if self.late(number):
                self.report("time is up")
                return
            yield number


def in_turn(names, number):
    at = number % len(names) if names else 0
    return names[at:] + names[:at]


# ------------------------------------------------------------------ nano

def nano_words(session, column):
    words = f"runs={session.arguments.nano_runs}"
    if column == BOCHS: # whose counts are always the same
        words = "runs=1 target=2000"
    names = [o.rstrip("*") for o in session.arguments.only if o not in SUITES]
    return words + (" only=" + ",".join(names) if names and "nano" not in session.arguments.only else "")


def nano(session):
    names = [n for n, c in session.columns.items() if n != NATIVE]
    for number in session.rounds():
        for name in in_turn(names, number):
            if name == BOCHS and number:
                continue
            try:
                text, _ = machines.run_nano(session.columns[name], session.programs, nano_words(session, name))
            except RuntimeError as error:
                session.drop(name, str(error))
                names.remove(name)
                continue
            count = read_nano(session, name, number, text)
            session.report(f"nano, round {number + 1}: {name}, {count} benchmarks")


def read_nano(session, column, number, text):
    count, group = 0, ""
    for line in text.splitlines():
        if line.startswith("group "):
            group = line.split()[1]
        match = re.match(r"nano (\w+) ([\d.]+) ([\d.]+) (\d+) (\d+)$", line)
        if not match:
            continue
        name = match.group(1)
        row = {"round": number, "minimum": float(match.group(2)), "median": float(match.group(3)),
               "operations": int(match.group(4)), "runs": int(match.group(5))}
        if session.chosen("nano", name):
            session.put("nano", name, "cycles", column, row, group)
            count += 1
    return count


# ------------------------------------------------------------------ compute and os

def start_guests(session, names, directory):
    """{column: Guest or Host}, booted one after the other."""
    ramdisk = os.path.join(directory, "initrd")
    places = {}
    if any(name != NATIVE for name in names):
        harness.initrd(ramdisk, "--raw", "--add", session.programs.user + ":/bench/bench", "--add",
                       session.programs.script + ":/bench/script.sh")
    for name in names:
        try:
            if name == NATIVE:
                places[name] = machines.Host(session.programs)
            else:
                session.report(f"booting {name}")
                places[name] = machines.Guest(session.columns[name], session.arguments, ramdisk)
        except RuntimeError as error:
            session.drop(name, f"Linux does not boot: {error}", linux=True)
    return places


def listed(session, group):
    text = subprocess.run([session.programs.user, "list"], check=True, capture_output=True, text=True).stdout
    return [line.split()[1] for line in text.splitlines() if line.split()[0] == group]


def user_columns(session):
    """Where Linux and the host take part. The interpreter only where it is asked for: it takes too long."""
    asked = (session.arguments.columns or "").split(",")
    return [n for n, c in session.columns.items() if n == NATIVE or c.linux and (n != INTERP or INTERP in asked)]


def user_suite(session, suite):
    names = [n for n in listed(session, suite) if session.chosen(suite, n)]
    commands = [n for n in COMMANDS if suite == "os" and session.chosen(suite, n) and not session.arguments.check]
    turns = 1 if session.arguments.check else TURNS
    if not names and not commands:
        return
    with tempfile.TemporaryDirectory() as directory:
        places = start_guests(session, user_columns(session), directory)
        try:
            if "gzip_64m" in commands:
                for place in places.values():
                    place.run(f"{place.bench} data {DATA_BYTES} >{place.data}", 300)
            for number in session.rounds():
                for name in names:
                    for turn in range(turns):
                        each_place(session, places, number * turns + turn, run_user, suite, name)
                for name in commands:
                    if number < COMMANDS[name][1]:
                        each_place(session, places, number, run_command, suite, name)
        finally:
            for place in places.values():
                place.end()
    compare_checksums(session, suite)


def each_place(session, places, number, run, suite, name):
    if session.late(number): # a round may miss its last benchmarks, but none of them some of the columns
        return
    for column in in_turn(list(places), number):
        if column == INTERP and (number or run is run_command):
            continue
        try:
            run(session, suite, name, column, places[column], number)
        except RuntimeError as error:
            places.pop(column).end()
            session.drop(column, str(error))


def run_user(session, suite, name, column, place, number):
    how = "-1" if column == INTERP else f"-t {session.arguments.budget // TURNS}"
    text = place.run(f"{place.bench} run {how} {name}", 120)
    match = re.search(rf"^bench {name} (.*)$", text, re.M)
    if not match:
        raise RuntimeError(f"{column}: {name} said '{text}'")
    found = dict(word.split("=") for word in match.group(1).split())
    row = {"round": number} | {key: float(found[key]) for key in ("first", "minimum", "median", "cycles")}
    row |= {key: int(found[key]) for key in ("runs", "operations")} | {"checksum": found.get("checksum")}
    session.put(suite, name, "ns", column, row)
    session.report(f"{suite}, turn {number + 1}: {name}, {column} {row['median']:,.1f} ns")


def run_command(session, suite, name, column, place, number):
    command = COMMANDS[name][0].format(bench=place.bench, bin=place.bin, script=place.script, data=place.data)
    said = place.run(command, 600)
    match = re.search(r"time (\d+) cycles=(\d+) status=(\d+)", said)
    if not match or match.group(3) != "0":
        raise RuntimeError(f"{column}: {name} said '{said}'")
    seconds = int(match.group(1)) * 1e-9
    session.put(suite, name, "s", column, {"round": number, "median": seconds, "minimum": seconds,
                                           "cycles": float(match.group(2))}, "commands")
    session.report(f"{suite}, round {number + 1}: {name}, {column} {seconds:.2f} s")


def compare_checksums(session, suite):
    """The same program computed the same everywhere, or there is nothing to compare."""
    for name, item in session.data["suites"].get(suite, {}).items():
        sums = {(column, row.get("checksum")) for column, rows in item["columns"].items() for row in rows}
        if len({found for _, found in sums}) > 1:
            session.data.setdefault("failures", []).append(f"{name}: the columns' results differ: {sorted(sums)}")


def compute(session):
    user_suite(session, "compute")


def os_suite(session):
    user_suite(session, "os")


# ------------------------------------------------------------------ boot

INTERP_BOOT_LIMIT = 240  # seconds; a boot of billions of instructions, at most one of them


# What is timed, and the words that it adds to the kernel's command line. The search for ISA Plug and Play cards is 0.35 s
# of delays on any machine where the port for it is free: bt86's is not, so that only the second row compares equal work.
BOOTS = {"shell": "", "shell_noisapnp": "noisapnp"}


def boot(session):
    names = [n for n, c in session.columns.items() if c.linux]
    for number in session.rounds():
        for name in in_turn(list(names), number):
            if name == INTERP and number:
                continue
            for what in BOOTS:
                if name in names and (what == "shell" or name != INTERP):
                    boot_timed(session, names, name, number, what)


def boot_timed(session, names, name, number, what):
    try:
        seconds = boot_once(session, name, BOOTS[what])
    except RuntimeError as error:
        names.remove(name)
        if name == INTERP:
            session.report(f"no boot of the interpreter: {error}")
        else:
            session.drop(name, f"Linux does not boot: {error}", linux=True)
        return
    session.put("boot", what, "s", name, {"round": number, "median": seconds, "minimum": seconds})
    session.report(f"boot, round {number + 1}: {name} {what} {seconds:.2f} s")


def boot_once(session, name, words):
    limit = INTERP_BOOT_LIMIT if name == INTERP else machines.BOOT_LIMIT
    with machines.boot(session.columns[name], session.arguments, words=words) as vm:
        try:
            vm.expect(rb"bt86: shell ready\r", limit)
        except harness.Timeout as error:
            raise RuntimeError(str(error)) from error
        return time.monotonic() - vm.started


# ------------------------------------------------------------------ translate

def translate(session):
    translators = [n for n, c in session.columns.items() if c.is_bt86 and c.linux and n not in (INTERP, machines.KVM)]
    guests = [n for n, c in session.columns.items() if c.linux and n != INTERP]
    for number in session.rounds():
        if number >= 3:
            break
        for name in in_turn(translators, number):
            boot_counters(session, name, number)
            flush_cost(session, name, number)
        for size in MEMORY_SIZES:
            if session.late(number):
                return
            for name in in_turn(guests, number):
                memory(session, name, size, number)


def counters(path):
    with open(path) as file:
        return json.load(file)


def tsc_hz(session):
    """From any line that has both clocks."""
    for suite in ("compute", "os"):
        for item in session.data["suites"].get(suite, {}).values():
            for rows in item["columns"].values():
                for row in rows:
                    if row.get("cycles") and row["minimum"] > 100 and item["unit"] == "ns":
                        return row["cycles"] / row["minimum"] * 1e9
    text = subprocess.run([session.programs.user, "run", "-t", "50", "integer"], check=True, capture_output=True, text=True)
    found = dict(w.split("=") for w in text.stdout.split()[2:])
    return float(found["cycles"]) / float(found["minimum"]) * 1e9


def boot_counters(session, name, number):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "stats.json")
        with machines.boot(session.columns[name], session.arguments, extra=["--stats=" + path]) as vm:
            vm.prompt(300)
            vm.finish()
        found = counters(path)
    cache, clock = found["cache"], found["time"]
    hz = session.data["conditions"].setdefault("tsc_hz", tsc_hz(session))
    seconds = clock["tsc_cycles_translator"] / hz
    hot, cold, guest = cache["host_bytes_hot"], cache["host_bytes_cold"], cache["guest_bytes_translated"]
    awake = clock["tsc_cycles_run"] - clock["tsc_cycles_halted"]
    rows = (("guest code translated", "MB/s", guest / seconds / 1e6),
            ("ns for each instruction", "ns each", seconds * 1e9 / cache["guest_instructions_translated"]),
            ("cycles for each block", "cycles", clock["tsc_cycles_translator"] / cache["blocks_translated"]),
            ("expansion", "×", (hot + cold) / guest),
            ("expansion, hot code", "×", hot / guest),
            ("share of a boot spent translating", "%", 100 * clock["tsc_cycles_translator"] / awake),
            ("share of a boot spent in fault handlers", "%", 100 * clock["tsc_cycles_fault_handlers"] / awake),
            ("share of a boot spent flushing", "%", 100 * clock.get("tsc_cycles_flushes", 0) / awake),
            ("blocks translated in a boot", "", cache["blocks_translated"]),
            ("flushes in a boot", "", cache["flushes"]))
    for what, unit, value in rows:
        session.put("translate", what, unit, name, {"round": number, "median": value}, "boot")
    session.report(f"translate, round {number + 1}: {name}, counters of a boot")


def flush_cost(session, name, number):
    """More code than the cache holds, once through."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "stats.json")
        text, _ = machines.run_nano(session.columns[name], session.programs, "only=code_overflow runs=1",
                                    extra=["--stats=" + path])
        found = counters(path)
    flushes = found["cache"]["flushes"]
    match = re.search(r"nano code_overflow ([\d.]+)", text)
    hz = session.data["conditions"]["tsc_hz"]
    session.put("translate", "a cold block, cache overflowing", "cycles", name,
                {"round": number, "median": float(match.group(1))}, "flush")
    if flushes and "tsc_cycles_flushes" in found["time"]:
        session.put("translate", "a flush of the full cache", "ns", name,
                    {"round": number, "median": found["time"]["tsc_cycles_flushes"] / flushes / hz * 1e9}, "flush")
        session.put("translate", "refilling the cache after it", "s", name,
                    {"round": number, "median": found["time"]["tsc_cycles_translator"] / (flushes + 1) / hz}, "flush")
    session.report(f"translate, round {number + 1}: {name}, {flushes} flushes")


def overhead(pid, guest_mib):
    """(MiB of the process beside the guest's memory, MiB of that, mappings). Proportional shares, so that memory
    that is mapped more than once counts once; page tables count too."""
    total = guest = mappings = 0
    ram = False
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                ram = len(words) > 5 and "bt86-ram" in words[5]
                mappings += 1
            elif words[0] == "Size:":
                ram = ram or int(words[1]) == guest_mib * 1024 # a peer's, by its size
            elif words[0] == "Pss:":
                total += int(words[1])
                guest += int(words[1]) if ram else 0
    with open(f"/proc/{pid}/status") as file:
        tables = next(int(line.split()[1]) for line in file if line.startswith("VmPTE:"))
    return (total - guest + tables) * PAGE_MIB, guest * PAGE_MIB, mappings


def memory(session, name, size, number):
    with machines.boot(session.columns[name], session.arguments, memory=size) as vm:
        try:
            vm.prompt(300)
        except harness.Timeout as error:
            raise RuntimeError(f"{name}: no boot with {size} MiB: {error}") from error
        vm.shell("i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i + 1)); done; seq 20000 | sort -n | md5sum", 120)
        beside, guest, mappings = overhead(vm.process.pid, int(size))
    session.put("translate", f"memory, guest of {size} MiB", "MiB", name,
                {"round": number, "median": beside, "guest": guest, "mappings": mappings}, "memory")
    session.report(f"translate, round {number + 1}: {name}, {size} MiB: {beside:.1f} MiB beside the guest's")


# Each with its share of the time.
SUITES = {"nano": (nano, 0.05), "boot": (boot, 0.2), "compute": (compute, 0.3), "os": (os_suite, 0.35),
          "translate": (translate, 0.1)}
