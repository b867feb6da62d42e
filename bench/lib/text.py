"""The report as text for a terminal, and as Markdown tables for docs/performance.md."""
import figures
import targets
from machines import BOCHS, BT, NATIVE, QEMU

TITLES = {
    "nano": "Nanobenchmarks: cycles for one operation, median (least)",
    "boot": "Boot to shell, from the start of the process",
    "compute": "User programs: time for one operation",
    "os": "Operating system: time for one operation",
    "translate": "The translator",
}


def suite_columns(data, suite):
    present = {column for item in data["suites"][suite].values() for column in item["columns"]}
    return [name for name in data["columns"] if name in present]


def ratio_columns(suite, names):
    """[(column, reference)]: each against the references, but for Bochs, whose cycles are no times."""
    pairs = []
    for name in names:
        if name in (NATIVE, QEMU, BOCHS):
            continue
        pairs += [(name, reference) for reference in (NATIVE, QEMU) if reference in names and suite != "translate"]
    return pairs


def cell(data, suite, benchmark, column):
    item = data["suites"][suite][benchmark]
    middle = figures.median(data, suite, benchmark, column)
    if middle is None:
        return "-"
    value = figures.value_text(middle, item["unit"])
    if suite == "nano":
        return f"{value} ({figures.significant(figures.minimum(data, suite, benchmark, column))})"
    return value


def spread_text(data, suite, benchmark, column):
    """How far the rounds' medians lie apart, in per cent of the middle one."""
    ends = figures.spread(data, suite, benchmark, column)
    middle = figures.median(data, suite, benchmark, column)
    return f" ±{50 * (ends[1] - ends[0]) / middle:.0f}%" if ends and middle and ends[0] != ends[1] else ""


def suite_table(data, suite):
    names = suite_columns(data, suite)
    pairs = ratio_columns(suite, names)
    labels = {name: column["label"] for name, column in data["columns"].items()}
    head = [""] + [labels[n] for n in names] + [f"{labels[a]}/{labels[b]}" for a, b in pairs]
    rows = []
    for benchmark in data["suites"][suite]:
        row = [benchmark] + [cell(data, suite, benchmark, n) + (spread_text(data, suite, benchmark, n) if suite != "nano" else "")
                             for n in names]
        row += [figures.ratio_text(figures.ratio(data, suite, benchmark, a, b)) for a, b in pairs]
        rows.append(row)
    return head, rows


def target_table(data):
    head = ["", "to reach", "found", "", ""]
    return head, [[row.what, row.limit_text, row.text, row.verdict, row.parts] for row in targets.rows(data)]


def table(head, rows, out):
    """Left column flush left, the others flush right, the last too if it is prose."""
    widths = [max(len(row[i]) for row in [head] + rows) for i in range(len(head))]
    for row in [head] + rows:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip(), file=out)


def condition_lines(data):
    c = data["conditions"]
    yield f"{c['cpu']}, {c['cpus']} CPUs, {c['host']}, load {c['load']} at the start; {c['date']}"
    yield (f"{c['bt86']} {c['revision']}, kernel {c['kernel']}, {c['memory']} MiB" + (f", {c['append']}" if c["append"] else "")
           + f", {c['runs']} rounds" + (f", {c['minutes']} minutes" if "minutes" in c else ""))
    yield "of the runs in a turn, the " + ("median" if figures.STATISTIC == "median" else "least") + " counts"
    for name, column in data["columns"].items():
        if column["note"]:
            yield f"{column['label']}: {column['note']}"
    for name, why in data["missing"].items():
        yield f"no column {name}: {why}"


def report(data, out):
    for line in condition_lines(data):
        print(line, file=out)
    for suite in data["suites"]:
        print(f"\n{TITLES[suite]}\n", file=out)
        table(*suite_table(data, suite), out)
        if suite == "compute" and {BT, NATIVE} <= set(suite_columns(data, suite)):
            mean = figures.geometric_mean(figures.ratio(data, suite, b, BT, NATIVE) for b in data["suites"][suite])
            print(f"\ngeometric mean, bt/native: {figures.ratio_text(mean)}", file=out)
    print("\nSpeed to reach\n", file=out)
    head, rows = target_table(data)
    table(head[:4], [row[:4] for row in rows if row[3] != "not measured"] or [["nothing measured", "", "", ""]], out)


def markdown_table(head, rows, out):
    print("| " + " | ".join(head) + " |", file=out)
    print("|" + "---|" * len(head), file=out)
    for row in rows:
        print("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |", file=out)


def markdown(data, out):
    """Made from the JSON, to be pasted, so that no figure is typed."""
    for line in condition_lines(data):
        print(f"- {line}", file=out)
    print("\n## Speed to reach\n", file=out)
    head, rows = target_table(data)
    markdown_table(["what", "to reach", "found", "verdict", "parts"], [
        [r[0], r[1], f"**{r[2]}**" if r[3] == "reached" else r[2], r[3], r[4]] for r in rows], out)
    for suite in data["suites"]:
        print(f"\n## {TITLES[suite]}\n", file=out)
        head, rows = suite_table(data, suite)
        markdown_table([head[0] or suite, *head[1:]], rows, out)
