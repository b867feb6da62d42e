#!/usr/bin/env python3
"""Lets a Debian kernel change its own code, from the shell: function tracer, kprobes, static keys and tracepoints, modules,
the BPF compiler; and runs the suite's Linux program there and on the host.

Everything is done several times over. The counters of the monitor say what the later rounds trapped: by then the
patching code has adapted, so that there are next to no traps for thousands of stores into code.
"""
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "boot"))
from harness import Machine, Score, guest_dir, initrd, options, skip  # noqa: E402

TRACING = "/sys/kernel/tracing"
MODULES = ("dummy", "loop", "minix", "crc-itu-t")
SOME = 20  # traps on traces that may come in between, whatever the number of stores


def module(kernel, name):
    top = os.path.join(guest_dir(), "modules-" + kernel)
    for directory, _, files in os.walk(top):
        if name + ".ko" in files:
            return os.path.join(directory, name + ".ko")
    skip(f"{name}.ko is not in {top} (run tools/fetch-guest)")
    return None


class Counters:
    """The monitor's counters, and what was added to them since."""

    def __init__(self, vm, score):
        self.vm, self.score, self.rows = vm, score, []
        self.last = self.read() if vm.arguments.accel == "bt" else None

    def read(self):
        vm = self.vm
        vm.send("\x01c")
        vm.expect(rb"\(bt86\) ", 10)
        vm.send("info cache\r")
        text = vm.expect(rb"info cache[^\n]*\n(.*?)\(bt86\) ", 10).group(1).decode(errors="replace")
        vm.send("\x01c")
        vm.expect(rb"\n", 10)
        vm.send("\r")
        vm.expect(rb"/ # ", 10)
        return {name.strip(): int(value) for name, value in re.findall(r"^  (.*?) +(\d+)\r*$", text, re.M)}

    def mark(self):
        if self.last is not None:
            self.last = self.read()

    def check(self, what):
        """Since the last mark: stores into code, and next to no traps for them."""
        if self.last is None:
            return
        now = self.read()
        grown = {name: now[name] - self.last.get(name, 0) for name in now}
        self.last = now
        stores, traces, hidden = (grown[name] for name in ("writes to code pages", "trace hits", "hidden"))
        self.rows.append((what, stores, traces, hidden))
        self.score.check(f"{what}: steady-state traps", traces <= SOME, f"{traces} trace hits for {stores} stores into code")
        self.score.note(f"{what}: {stores} stores into code, {traces} trace hits, {hidden} hidden faults")


def number(vm, text):
    found = re.search(r"-?\d+", vm.shell(text, 120).text)
    return int(found.group()) if found else -1


def function_tracer(vm, score, counters):
    """All of the kernel's functions are patched, to call the tracer and back."""
    def once():
        vm.shell(f"echo >{TRACING}/trace; echo function >{TRACING}/current_tracer; cat /proc/uptime >/dev/null; "
                 f"echo nop >{TRACING}/current_tracer", 120)

    sites = number(vm, f"wc -l <{TRACING}/available_filter_functions")
    score.check("function tracer: functions", sites > 20000, sites)
    once()
    counters.mark()
    for _ in range(2):
        once()
    counters.check("function tracer on and off, twice")
    vm.shell(f"echo >{TRACING}/trace; echo function >{TRACING}/current_tracer; cat /proc/uptime >/dev/null; echo 0 >{TRACING}/tracing_on")
    seen = number(vm, f"grep -c ': uptime_proc_show <-' {TRACING}/trace")
    vm.shell(f"echo nop >{TRACING}/current_tracer; echo 1 >{TRACING}/tracing_on")
    score.check("function tracer: saw what ran", seen == 1, seen)
    # A few functions, many times: results are counted.
    vm.shell(f"echo vfs_write >{TRACING}/set_ftrace_filter")
    script = (f"n=0; while [ $n -lt 100 ]; do echo function >{TRACING}/current_tracer; : >/dev/null; echo x >/dev/null; "
              f"echo nop >{TRACING}/current_tracer; n=$((n+1)); done")
    vm.shell(script, 120)
    counters.mark()
    vm.shell(script, 120)
    counters.check("one function traced on and off, 100 times")
    vm.shell(f"echo function >{TRACING}/current_tracer; for i in 1 2 3 4 5 6 7; do echo x >/dev/null; done; echo 0 >{TRACING}/tracing_on")
    seen = number(vm, f"grep -c ': vfs_write <-' {TRACING}/trace")
    # and the echo into tracing_on itself, before it takes effect, and the shell's prompt
    score.check("one function: every call seen", 8 <= seen <= 16, seen)
    vm.shell(f"echo nop >{TRACING}/current_tracer; echo >{TRACING}/set_ftrace_filter; echo 1 >{TRACING}/tracing_on")


def graph_tracer(vm, score, counters):
    """Return addresses are replaced as well."""
    vm.shell(f"echo uptime_proc_show >{TRACING}/set_graph_function")
    script = (f"n=0; while [ $n -lt 3 ]; do echo function_graph >{TRACING}/current_tracer; cat /proc/uptime >/dev/null; "
              f"echo 0 >{TRACING}/tracing_on; grep -c 'uptime_proc_show()' {TRACING}/trace; echo nop >{TRACING}/current_tracer; "
              f"echo 1 >{TRACING}/tracing_on; n=$((n+1)); done")
    vm.shell(script, 200)
    counters.mark()
    text = vm.shell(script, 200).text.split()
    counters.check("graph tracer on and off, 3 times")
    score.equal("graph tracer: sees one call", text, ["1", "1", "1"])
    vm.shell(f"echo >{TRACING}/set_graph_function")


def kprobes(vm, score, counters):
    """Breakpoints, which the kernel turns into jumps after a while, on a function's entry and return."""
    vm.shell(f"echo 'p:entry do_sys_openat2' >{TRACING}/kprobe_events; echo 'r:back do_sys_openat2 $retval' >>{TRACING}/kprobe_events; "
             f"echo 'p:inside do_sys_openat2+7' >>{TRACING}/kprobe_events")
    inside = vm.shell(f"grep -c inside {TRACING}/kprobe_events").text.strip() == "1"
    enable = f"{TRACING}/events/kprobes/enable"
    script = (f"n=0; while [ $n -lt 50 ]; do echo 1 >{enable}; for i in 1 2 3 4 5 6 7 8 9 10; do : </dev/null; done; "
              f"echo 0 >{enable}; n=$((n+1)); done")
    vm.shell(script, 120)
    profile = f"cat {TRACING}/kprobe_profile"
    before = {line.split()[0]: int(line.split()[1]) for line in vm.shell(profile).text.splitlines()}
    counters.mark()
    vm.shell(script, 120)
    counters.check("kprobes on and off, 50 times")
    after = {line.split()[0]: int(line.split()[1]) for line in vm.shell(profile).text.splitlines()}
    # ten of each round, and the opening of the file that ends the round
    for name in ("entry", "back") + (("inside",) if inside else ()):
        score.equal(f"kprobes: hits of {name}", after[name] - before[name], 50 * 11)
    # left on for long enough to be turned into jumps
    vm.shell(f"echo 1 >{enable}; sleep 1; for i in 1 2 3 4 5 6 7 8 9 10; do : </dev/null; done; echo 0 >{enable}")
    last = {line.split()[0]: int(line.split()[1]) for line in vm.shell(profile).text.splitlines()}
    score.equal("kprobes: hits of entry, optimized", last["entry"] - after["entry"], 11)
    vm.shell(f"echo >{TRACING}/kprobe_events")


def static_keys(vm, score, counters):
    """Nops to jumps and back, by sysctl and by tracepoints, which are static calls as well."""
    event = f"{TRACING}/events/raw_syscalls/sys_enter/enable"
    script = (f"n=0; while [ $n -lt 100 ]; do echo 1 >/proc/sys/kernel/sched_schedstats; echo 1 >{event}; : </dev/null; "
              f"echo 0 >{event}; echo 0 >/proc/sys/kernel/sched_schedstats; n=$((n+1)); done")
    vm.shell(script, 120)
    vm.shell(f"echo >{TRACING}/trace")
    counters.mark()
    vm.shell(script, 120)
    counters.check("static keys and a tracepoint on and off, 100 times")
    # at least the open and the close of each round
    seen = number(vm, f"grep -c 'sys_enter: NR 5 \\|sys_enter: NR 6 \\|sys_enter: NR 295 ' {TRACING}/trace")
    score.check("tracepoint: every call seen", seen >= 200, seen)
    vm.shell(f"echo >{TRACING}/trace")
    vm.shell(": </dev/null")
    score.equal("tracepoint: off is off", vm.shell(f"grep -c sys_enter: {TRACING}/trace").text.strip(), "0")


def modules(vm, score, counters):
    """Loaded code is relocated, its alternatives and tracer calls are patched; unloaded, its pages get other code."""
    def load(name):
        return vm.shell(f"insmod /modules/{name}.ko").status

    # The loop driver at work: what goes in through it comes out of the file behind it.
    score.equal("modules: loop", load("loop"), 0)
    vm.shell("dd if=/dev/zero of=/tmp/disk bs=1k count=2000 2>/dev/null; losetup /dev/loop0 /tmp/disk")
    score.equal("modules: a loop device at work",
                vm.shell("head -c 1500000 /bin/busybox >/dev/loop0; sync; losetup -d /dev/loop0; head -c 1500000 /tmp/disk | md5sum").text,
                vm.shell("head -c 1500000 /bin/busybox | md5sum").text)
    script = ("bad=0; n=0; while [ $n -lt 10 ]; do insmod /modules/dummy.ko || bad=1; [ -e /sys/class/net/dummy0 ] || bad=2; "
              "ifconfig dummy0 10.9.8.7 up && ping -c 1 -W 1 10.9.8.7 >/dev/null || bad=3; rmmod dummy || bad=4; "
              "[ -e /sys/class/net/dummy0 ] && bad=5; insmod /modules/crc-itu-t.ko || bad=6; insmod /modules/minix.ko || bad=7; "
              "rmmod minix || bad=8; rmmod crc-itu-t || bad=9; n=$((n+1)); done; echo $bad")
    score.equal("modules: loaded and unloaded", vm.shell(script, 120).text.strip(), "0")
    counters.mark()
    score.equal("modules: again", vm.shell(script, 120).text.strip(), "0")
    counters.check("three modules loaded and unloaded, 10 times")


def bpf(vm, score, counters):
    """Programs compiled by the kernel against their results computed in C."""
    want = "programs with a wrong result: 0\npackets cut wrongly: 0\nprograms compiled: "
    score.equal("bpf: interpreted", vm.shell("echo 0 >/proc/sys/net/core/bpf_jit_enable; /tests/bpf 100", 60).text, want + "0")
    score.equal("bpf: compiled", vm.shell("echo 1 >/proc/sys/net/core/bpf_jit_enable; /tests/bpf 500", 60).text, want + "500")
    counters.mark()
    score.equal("bpf: compiled, again", vm.shell("/tests/bpf 500", 60).text, want + "500")
    counters.check("1000 BPF programs compiled and run")


def program(vm, score, counters, path):
    host = subprocess.run([path], capture_output=True, text=True, check=False)
    score.equal("program on the host", host.returncode, 0)
    guest = vm.shell("/tests/smc >/tmp/out; s=$?; cat /tmp/out; (exit $s)", 120)
    score.equal("program: status", guest.status, 0)
    score.check("program: same output as on the host", guest.text.strip() == host.stdout.strip(), guest.text)
    for name, rounds in (("jit", 20000), ("immediate-patched", 20000), ("two-mappings", 20000), ("debugger", 1000)):
        vm.shell(f"/tests/smc {name} 200")
        counters.mark()
        score.equal(f"program, {name}", vm.shell(f"/tests/smc {name} {rounds}", 120).text, f"{name}: 0\nPASS smc")
        counters.check(f"program, {name}, {rounds} rounds")


def main():
    arguments = options(__doc__, lambda parser: parser.add_argument("--table", action="store_true", help="print the counts as a table"))
    directory = os.path.join(arguments.build, "tests", "smc")
    score = Score()
    adds = ["--add", directory + "/smc:/tests/smc", "--add", directory + "/bpf:/tests/bpf"]
    for name in MODULES:
        adds += ["--add", f"{module(arguments.kernel, name)}:/modules/{name}.ko"]
    with tempfile.TemporaryDirectory() as scratch:
        with Machine(arguments, ramdisk=initrd(os.path.join(scratch, "initrd"), "--raw", *adds)) as vm:
            vm.prompt()
            vm.settle()
            score.equal("tracefs", vm.shell(f"mount -t tracefs nodev {TRACING}").status, 0)
            counters = Counters(vm, score)
            program(vm, score, counters, directory + "/smc")
            static_keys(vm, score, counters)
            kprobes(vm, score, counters)
            function_tracer(vm, score, counters)
            graph_tracer(vm, score, counters)
            modules(vm, score, counters)
            bpf(vm, score, counters)
            alarming = vm.shell("dmesg | grep -E 'WARNING|BUG|Oops|Call Trace|general protection|segfault'").text
            score.equal("the kernel's log has nothing alarming", alarming, "")
            score.equal("poweroff", vm.finish(), 0)
    if arguments.table:
        print("| what | stores into code | trace hits | hidden faults |\n|---|---|---|---|")
        for row in counters.rows:
            print("| " + " | ".join(str(field) for field in row) + " |")
    score.end()


if __name__ == "__main__":
    sys.exit(main())
