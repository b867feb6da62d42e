"""Boot logs: what in them is news, and what is different from one boot to the next anyway."""
import os
import re
import shutil
import types

from harness import Machine, image

# Lines of the kernel's own log (dmesg -r, levels 0 to 4: warnings and worse) that are fine on this machine
# although QEMU's has none, each with the reason.
FINE = (
    # No machine-check banks are announced, or fewer than QEMU has.
    r"mce: ",
    # The machine has a keyboard and no mouse.
    r"i8042: PNP: PS/2 appears to have AUX port disabled",
    # A firmware that is not there cannot be asked for a memory map of its own.
    r"DMI not present or invalid",
    # The board's ACPI timer has the port through which ISA Plug and Play cards would be searched.
    r"isapnp: Write Data Register 0xa79 already used",
    # The scheduler clock starts from a TSC that has run since the host booted.
    r"sched_clock: Marking unstable",
)

# These say that the guest had the processor taken away for a long time, 10 ms to half a second: fine when several
# machines run at once, not when this one has the host for itself.
FINE_WHEN_BUSY = (r"MP-BIOS bug: 8254 timer not connected", r"clocksource: Long readout interval", r"hrtimer: interrupt took")

# What is never fine, whatever its level. "sched_clock: Marking unstable" is about a start value, not a fault.
ALARMING = re.compile(
    r"\bBUG\b|WARNING:|Oops|Call Trace|Kernel panic|clocksource.*unstable|TSC unstable|[Ss]purious|[Ll]ost (tick|interrupt)"
    r"|soft lockup|hard LOCKUP|hung_task|blocked for more than|rcu.*stall|segfault|general protection|invalid opcode"
    r"|bad page|corrupt|nobody cared|unexpected (IRQ|NMI)|NMI received|irq \d+: |trap .* ip:|double fault", re.M)

# Lines that come or don't, depending on how busy the host was.
PASSING = re.compile(r"tsc: (Fast TSC calibration|Refined TSC|Unable to calibrate|using .* reference)|PM-Timer running at invalid rate"
                     r"|clocksource: (acpi_pm:|Long readout)|APIC calibration not consistent|APIC delta adjusted"
                     r"|hrtimer: interrupt took|MP-BIOS bug: 8254|^\.\.\.trying to set up timer|^\.\.\.\.+ (\(found apic|works)")

VARYING = (
    (r"^(<\d+>)?\[ *\d+\.\d+\] ", ""),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d( UTC)?( \(\d+\))?", "DATE"),
    (r"audit\(\d+\.\d+:\d+\)", "audit(TIME)"),
    (r"\b\d+\.\d+ (MHz|BogoMIPS)", r"N \1"),
    (r"lpj=\d+", "lpj=N"),
    (r"(max_cycles|max_idle_ns|mult|shift|wraps every|resolution)[:=]? ?(0x)?[0-9a-f]+", r"\1 N"),
    (r"Memory: \d+K/(\d+)K available \(.*", r"Memory: N/\1 available"),
    (r"(alg|delta|offset|error|skew|took|after|in) -?\d+(\.\d+)? ?(ns|us|usecs|msecs|ms|seconds)", r"\1 N"),
    (r"\d+ usecs", "N usecs"),
    (r"Marking (un)?stable.*", "Marking stable"),
    (r"random: crng init done.*", "random: crng init done"),
    (r"initial memory mapped: .*", "initial memory mapped: RANGE"),  # ends where the kernel was put at random
    (r"\bPID: \d+\b", "PID: N"),
    (r"\b(0x)?[0-9a-f]{8,16}\b(?=.*\((ptrval|null)\))", "ADDRESS"),
)


def normalize(text):
    """The log's lines without what differs between two boots of one machine."""
    lines = []
    for line in text.replace("\r", "").splitlines():
        for pattern, replacement in VARYING:
            line = re.sub(pattern, replacement, line)
        if line.strip() and not PASSING.search(line):
            lines.append(line.rstrip())
    return lines


def alarming(text):
    """Lines that no kernel should print."""
    return [line for line in text.splitlines() if ALARMING.search(line) and not re.search(r"report a bug|debug", line)]


def shape(line):
    """A line without its numbers, to find the same complaint again in another log."""
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", "N", line)


def complaints(raw):
    """The lines of level warning or worse in the output of dmesg -r."""
    found = []
    for line in raw.splitlines():
        match = re.match(r"<(\d+)>(.*)", line)
        if match and int(match.group(1)) % 8 <= 4:
            found.append(re.sub(r"^\[ *\d+\.\d+\] ", "", match.group(2)))
    return found


def baseline(kernel, build):
    """What the same kernel says under QEMU (dmesg -r), or None without QEMU. Kept next to the build."""
    version = os.path.join(os.path.dirname(image("vmlinuz-" + kernel)), "version")
    directory = os.path.join(build, "tests", "boot")
    path = os.path.join(directory, f"qemu-{kernel}.dmesg")
    if os.path.exists(path) and os.path.getmtime(path) > os.path.getmtime(version):
        with open(path) as file:
            return file.read()
    if not shutil.which("qemu-system-i386"):
        return None
    arguments = types.SimpleNamespace(vmm="qemu", accel="tcg", kernel=kernel, slow=4, verbose=False)
    with Machine(arguments) as vm:
        vm.prompt()
        text = vm.shell("dmesg -r").text
        vm.finish()
    os.makedirs(directory, exist_ok=True)
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)
    return text


def news(raw, kernel, build, busy):
    """Complaints in a dmesg -r that QEMU's guest does not have and that are not known to be fine; busy tells whether
    other tests may run at the same time."""
    fine = FINE + FINE_WHEN_BUSY if busy else FINE
    reference = baseline(kernel, build) or ""
    known = {shape(line) for line in complaints(reference)}
    known_alarms = {shape(line) for line in alarming("\n".join(normalize(reference)))}
    new = [line for line in complaints(raw) if shape(line) not in known and not any(re.search(one, line) for one in fine)]
    for line in alarming("\n".join(normalize(raw))):
        if shape(line) not in known_alarms and line not in new and not re.search(r"sched_clock: ", line):
            new.append(line)
    return new
