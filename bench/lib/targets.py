"""The speed to reach, and whether a run reached it."""
import figures
from machines import BT, NATIVE, QEMU

OF_NATIVE, OF_QEMU = "× native", "of QEMU TCG"
INLINE = ("sti_cli", "pushf_popf", "pushf", "read_cr0", "read_cr2", "read_cr3", "read_cr4")
SWITCHES = ("switch_2p_0k", "switch_2p_64k", "switch_16p_16k")


class Row:
    """value None: not measured. parts: what a worst-of row was chosen from."""

    def __init__(self, what, limit, unit, value, parts=""):
        self.what, self.limit, self.unit, self.value, self.parts = what, limit, unit, value, parts

    @property
    def reached(self):
        return None if self.value is None else self.value <= self.limit

    @property
    def verdict(self):
        return {None: "not measured", True: "reached", False: "not reached"}[self.reached]

    @property
    def text(self):
        return "-" if self.value is None else f"{figures.significant(self.value)} {self.unit}"

    @property
    def limit_text(self):
        return f"{figures.significant(self.limit)} {self.unit}"


def ratio_row(data, what, limit, suite, benchmark, reference):
    return Row(what, limit, OF_NATIVE if reference == NATIVE else OF_QEMU,
               figures.ratio(data, suite, benchmark, BT, reference))


def worst_row(what, limit, unit, values):
    """values: {name: value}"""
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return Row(what, limit, unit, None)
    worst = max(known, key=known.get)
    parts = ", ".join(f"{name} {figures.significant(value)}" for name, value in known.items())
    return Row(what, limit, unit, known[worst], parts if len(known) > 1 else "")


def compute_rows(data):
    ratios = {name: figures.ratio(data, "compute", name, BT, NATIVE) for name in data["suites"].get("compute", {})}
    ratios = {name: value for name, value in ratios.items() if value}
    worst = worst_row("compute, the slowest one", 1.30, OF_NATIVE, ratios)
    if ratios:
        worst.parts = max(ratios, key=ratios.get)
    yield Row("compute, geometric mean", 1.08, OF_NATIVE, figures.geometric_mean(ratios.values()))
    yield worst
    yield worst_row("call/ret and indirect branches", 1.25, OF_NATIVE,
                    {name: ratios.get(name) for name in ("call_ret", "indirect", "virtual_calls")})


def os_rows(data):
    yield ratio_row(data, "getppid", 2, "os", "getppid", NATIVE)
    yield ratio_row(data, "getppid", 0.2, "os", "getppid", QEMU)
    yield ratio_row(data, "boot to shell, Debian " + data["conditions"].get("kernel", ""), 0.25, "boot", "shell", QEMU)
    yield ratio_row(data, "fork + exit", 0.3, "os", "fork_exit", QEMU)
    yield ratio_row(data, "fork + exec", 0.25, "os", "fork_exec", QEMU)
    yield ratio_row(data, "pipe ping-pong", 0.12, "os", "pipe_pingpong", QEMU)
    yield worst_row("context switch", 0.12, OF_QEMU,
                    {name: figures.ratio(data, "os", name, BT, QEMU) for name in SWITCHES})
    yield ratio_row(data, "anonymous page fault", 0.4, "os", "fault_anon", QEMU)
    yield ratio_row(data, "shell script of 2000 commands", 0.25, "os", "script_2000", QEMU)


def nano_rows(data):
    def cycles(*names):
        return {name: figures.median(data, "nano", name, BT) for name in names}

    yield worst_row("in-cache sensitive instructions", 10, "cycles", cycles(*INLINE))
    yield worst_row("in, out, CR3 load, int and iret", 200, "cycles",
                    cycles("in", "out", "write_cr3_alternate", "int_kernel", "iret"))
    yield worst_row("traced PTE write, adapted", 300, "cycles", cycles("pte_write_absent", "pte_exchange_absent"))


def translate_rows(data):
    def value(name):
        return figures.median(data, "translate", name, BT)

    yield Row("translation, each guest instruction", 500, "ns", value("ns for each instruction"))
    hot = value("expansion, hot code")
    yield Row("expansion, hot and cold code", 2.5, "×", value("expansion"),
              f"hot code alone {figures.value_text(hot, '×')}" if hot else "")
    for name, item in data["suites"].get("translate", {}).items():
        if name.startswith("memory, guest of "):
            ram = int(name.split()[-2])
            yield Row("VMM memory, guest of " + " ".join(name.split()[-2:]), 64 + 0.03 * ram, item["unit"], value(name))


def rows(data):
    return [*compute_rows(data), *os_rows(data), *nano_rows(data), *translate_rows(data)]
