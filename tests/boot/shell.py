#!/usr/bin/env python3
"""One boot to the shell, and what a person would do there: scripts, filters, an editor, jobs, signals, time."""
import hashlib
import os
import random
import re
import sys
import tempfile
import time

import bootlog
from harness import Machine, Score, initrd, options

HERE = os.path.dirname(os.path.abspath(__file__))


def make_data(directory):
    """Known data, and the sums the guest is to find."""
    source = random.Random(86)
    os.makedirs(os.path.join(directory, "data"))
    contents = {
        "empty": b"",
        "one": b"1",
        "zeros": bytes(300000),
        "text": " ".join(source.choice(("the", "quick", "brown", "fox", "jumps\n")) for _ in range(60000)).encode(),
        "noise": source.randbytes(777777),
    }
    contents["mixed"] = b"".join(source.choice((contents["text"][k:k + 999], source.randbytes(50))) for k in range(0, 300000, 999))
    with open(os.path.join(directory, "sums"), "w") as sums:
        for name, content in contents.items():
            with open(os.path.join(directory, "data", name), "wb") as file:
                file.write(content)
            for algorithm in ("md5", "sha1", "sha256", "sha512"):
                sums.write(f"{algorithm} {hashlib.new(algorithm, content).hexdigest()} /tests/data/{name}\n")


def editor(vm, score):
    vm.send("vi /tmp/letter\r")
    vm.expect(rb"letter")
    for keys in ("iDear guest,\rthis is the second lime", "\x1b", "hrn", "yyp", "ofourth\x1b", "ggdwimy \x1b", ":wq\r"):
        time.sleep(0.15)
        vm.send(keys)
        if keys == "\x1b":
            time.sleep(0.3)  # so that the editor does not take it for the start of an arrow key
    vm.expect(rb"/ # ")
    score.equal("vi", vm.shell("cat /tmp/letter").text,
                "my guest,\nthis is the second line\nthis is the second line\nfourth")


def jobs(vm, score):
    vm.send("sleep 100\r")
    time.sleep(0.5 * vm.arguments.slow ** 0.5)
    vm.send("\x1a")  # Ctrl-Z
    vm.expect(rb"Stopped.*/ # ")
    score.check("Ctrl-Z stops", "sleep 100" in vm.shell("jobs").text)
    score.check("bg", vm.shell("bg; sleep 0.1; jobs").text.count("Running") == 1)
    vm.send("fg\r")
    vm.expect(rb"sleep 100\r")
    time.sleep(0.3 * vm.arguments.slow ** 0.5)
    vm.send("\x03")
    vm.expect(rb"/ # ")
    score.equal("Ctrl-C ends", vm.shell("jobs").text, "")
    vm.send("cat >/dev/null\r")
    time.sleep(0.3 * vm.arguments.slow ** 0.5)
    vm.send("some text\r\x04")
    vm.expect(rb"some text.*/ # ")
    score.equal("Ctrl-D ends input", vm.shell("echo $?").status, 0)
    vm.send("while :; do :; done\r")
    time.sleep(0.5)
    vm.send("\x03")
    vm.expect(rb"/ # ")
    score.check("Ctrl-C ends a busy loop", True)


def timed(score, name, measure, good):
    """Checks a measured time, with some more tries: the host may have been busy, but a clock that is wrong is wrong each
    time."""
    for _ in range(8):
        value = measure()
        if good(value):
            break
    score.check(name, good(value), f"measured {value}")


def clocks(vm, score):
    """The guest's time against the host's."""
    def sleep(seconds):
        vm.send(f"printf '\\100a\\n'; sleep {seconds}; printf '\\100b\\n'\r")
        vm.expect(rb"@a\r+\n")
        start = time.monotonic()
        vm.expect(rb"@b\r+\n", seconds + 30)
        took = time.monotonic() - start
        vm.expect(rb"/ # ")
        return took

    def time_sleep():
        text = vm.shell("time sleep 1").text
        match = re.search(r"real\s+(\d+)m\s*([\d.]+)s", text)
        return float(match.group(2)) if match else text

    def paces():
        """How long three seconds are by the guest's uptime and by the host's clock."""
        before = float(vm.shell("cut -d' ' -f1 /proc/uptime").text), time.monotonic()
        time.sleep(3)
        after = float(vm.shell("cut -d' ' -f1 /proc/uptime").text), time.monotonic()
        return after[0] - before[0], after[1] - before[1]

    slack = 0.03 if vm.arguments.slow == 1 else 0.15
    for seconds in (1, 5):
        timed(score, f"sleep {seconds} against the host's clock", lambda: sleep(seconds),  # pylint: disable=cell-var-from-loop
              lambda took: abs(took - seconds) < seconds * 0.01 + slack)  # pylint: disable=cell-var-from-loop
    difference = abs(float(vm.shell("date +%s").text) - time.time())
    score.check("date", difference < 3, f"off by {difference:.1f} s")
    timed(score, "time sleep 1", time_sleep,
          lambda took: isinstance(took, float) and 0.99 <= took <= (1.02 if vm.arguments.slow == 1 else 1.2))
    if vm.arguments.accel != "interp":
        timed(score, "uptime keeps the host's pace", paces, lambda pair: abs(pair[0] - pair[1]) < pair[1] * 0.01 + 0.05)


def kernel_log(arguments, score, raw):
    """raw: what dmesg -r printed. This machine should have the host for itself, unless it is interpreted, when others run,
    too; if the log says that it had not, the next boot's counts, because somebody else may have been busy."""
    interp = arguments.accel == "interp"
    new = bootlog.news(raw, arguments.kernel, arguments.build, busy=interp)
    if new and not bootlog.news(raw, arguments.kernel, arguments.build, busy=True):
        with Machine(arguments) as vm:
            vm.prompt()
            new = bootlog.news(vm.shell("dmesg -r").text, arguments.kernel, arguments.build, busy=interp)
            vm.finish()
    score.check("dmesg has nothing new", not new, "\n    " + "\n    ".join(new))


def without_acpi(arguments, score):
    """The MP tables say what the ACPI tables said: interrupts come through the I/O APIC."""
    with Machine(arguments, append="console=ttyS0 quiet acpi=off") as vm:
        vm.prompt()
        lines = vm.shell("grep ttyS0 /proc/interrupts").text
        score.check("acpi=off: the console's interrupt comes through the I/O APIC", "IO-APIC" in lines, lines)
        score.equal("acpi=off: reboot", vm.finish("reboot -f"), 0)


def main():
    arguments = options(__doc__)
    score = Score()
    percent = 10 if arguments.accel == "interp" else 100
    with tempfile.TemporaryDirectory() as directory:
        make_data(directory)
        ramdisk = initrd(os.path.join(directory, "initrd"), "--raw", "--add", directory + "/data:/tests/data", "--add",
                         directory + "/sums:/tests/sums", "--add", HERE + "/guest/checks.sh:/tests/checks.sh")
        with Machine(arguments, ramdisk=ramdisk) as vm:
            score.note(f"prompt after {vm.prompt():.2f} s")
            score.check("uname", vm.shell("uname -m").text == "i686")
            # Some of the checks switch the echo or leave jobs: run them in a shell of their own.
            text = vm.shell(f"sh /tests/checks.sh {percent} 2>&1", 300).text
            results = re.findall(r"^(ok|not ok) ([^:\n]*)(.*?)(?=^ok |^not ok |^checks done|\Z)", text, re.M | re.S)
            for result, name, detail in results:
                score.check(name, result == "ok", detail.lstrip(": ").strip())
            score.check("all of the checks ran", "checks done" in text and len(results) > 60, text[-300:])
            editor(vm, score)
            jobs(vm, score)
            clocks(vm, score)
            raw = vm.shell("dmesg -r").text
            score.check("no search for ISA Plug and Play cards", "Scanning for PnP cards" not in raw)
            score.check("clocksource", vm.shell("cat /sys/devices/system/clocksource/clocksource0/current_clocksource").text in
                        ("tsc", "acpi_pm", "kvm-clock"))
            score.equal("poweroff", vm.finish("poweroff"), 0)
            score.check("terminal restored", vm.terminal_restored())
    kernel_log(arguments, score, raw)
    without_acpi(arguments, score)
    score.end()


if __name__ == "__main__":
    sys.exit(main())
