"""The report as one HTML file that needs nothing else."""
import html

import figures
import svg
import targets
import text
from machines import BOCHS, BT, NATIVE, QEMU

STYLE = """
:root { --paper: #fdfdfb; --ink: #1d2430; --soft: #667080; --rule: #dcdfe4; --card: #ffffff; --good: #1a7f4b;
  --bad: #c2410c; --band: #1a7f4b18; --native: #4b5563; --bt: #1d5fd1; --interp: #a3a9b5; --kvm: #0f9488;
  --qemu: #e07b12; --bochs: #b64fa0; --other: #7c3aed; }
@media (prefers-color-scheme: dark) { :root { --paper: #12151b; --ink: #e6e9ef; --soft: #98a2b3; --rule: #2b313c;
  --card: #191d25; --good: #4ade80; --bad: #fb923c; --band: #4ade8018; --native: #cbd5e1; --bt: #6ea8ff;
  --interp: #6b7280; --kvm: #2dd4bf; --qemu: #f6a94a; --bochs: #e58ed2; --other: #b794f6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 21px; margin: 52px 0 4px; }
p { margin: 6px 0 14px; max-width: 76ch; } .soft { color: var(--soft); font-size: 14px; }
.cards { display: flex; flex-wrap: wrap; gap: 14px; margin: 26px 0 8px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 18px; flex: 1 1 170px; }
.card b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: middle; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
td.parts { text-align: left; color: var(--soft); font-size: 12.5px; max-width: 300px; }
.scroll { overflow-x: auto; } details { margin: 10px 0; } summary { cursor: pointer; color: var(--soft); font-size: 14px; }
.badge { border-radius: 99px; padding: 1px 10px; font-size: 12.5px; white-space: nowrap; border: 1px solid currentColor; }
.yes { color: var(--good); } .no { color: var(--bad); } .none { color: var(--soft); }
figure { margin: 12px 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 10px 8px; }
svg { display: block; width: 100%; height: auto; } svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg .tick { fill: var(--soft); font-size: 11.5px; } svg .group { font-weight: 600; } svg .value { font-size: 13px; }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .guide { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 4 3; }
svg .span { stroke: var(--rule); stroke-width: 2.5; } svg .band, svg .under { fill: var(--band); } svg .over { fill: var(--rule); }
svg circle, svg rect.bar, svg rect.solid { fill: var(--here, var(--other)); } svg rect.bar { opacity: 0.25; }
svg circle { stroke: var(--card); stroke-width: 1.2; } svg .run { r: 4; }
svg .whisker { stroke: var(--here, var(--other)); stroke-width: 2; opacity: 0.5; }
svg .good { fill: var(--good); } svg .bad { fill: var(--bad); } svg.bullet { width: 180px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 10px 6px; font-size: 14px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 7px; background: var(--here, var(--other)); }
""" + "".join(f".c-{name} {{ --here: var(--{name}); }} " for name in ("native", "bt", "interp", "kvm", "qemu", "bochs"))

INTRO = {
    "boot": "From the start of the process to the shell's prompt of the same kernel and initial RAM disk. Each dot is "
            "one boot; the bar ends at the median.",
    "compute": "The same static 32-bit binary everywhere, as a multiple of the time that it takes on the host itself. The "
               "shaded band ends at 1.08; the dashed line is at 1.30.",
    "os": "What Linux does for programs, as a multiple of what the host's kernel needs for the same binary. The host runs "
          "a kernel of its own, which pays for its mitigations; below 1 means that the guest is faster.",
    "nano": "Single operations of a small kernel, in cycles of the time-stamp counter: the median, with a line to the "
            "least and the most of the rounds. Further left is faster.",
    "translate": "What translating costs, from the counters of --stats, and the memory of the process that is not the "
                 "guest's: proportional shares of all mappings, and page tables.",
}
ORDER = ("boot", "compute", "os", "nano", "translate")


def escape(value):
    return html.escape(str(value))


def legend(data, names):
    return ('<div class="legend">' + "".join(
        f'<span class="c-{escape(n)}"><i></i>{escape(data["columns"][n]["label"])}</span>' for n in names) + "</div>")


def html_table(head, rows):
    lines = ["<div class='scroll'><table><tr>" + "".join(f"<th>{escape(h)}</th>" for h in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows]
    return "".join(lines) + "</table></div>"


def triple(data, suite, benchmark, column):
    """(median, least, most) over the rounds, or None."""
    middle = figures.median(data, suite, benchmark, column)
    return None if middle is None else (middle, *figures.spread(data, suite, benchmark, column))


def ratio_triples(data, suite, benchmark, columns, reference):
    found = {}
    theirs = figures.samples(data, suite, benchmark, reference)
    for column in columns:
        mine = figures.samples(data, suite, benchmark, column)
        ratios = [mine[r] / theirs[r] for r in mine if theirs.get(r)]
        if column != reference and ratios:
            found[column] = (figures.ratio(data, suite, benchmark, column, reference), min(ratios), max(ratios))
    return found


def ratio_plot(data, suite, guides, band):
    names = text.suite_columns(data, suite)
    reference = NATIVE if NATIVE in names else QEMU if QEMU in names else None
    if not reference:
        return ""
    rows = [(b, "", ratio_triples(data, suite, b, names, reference)) for b in data["suites"][suite]]
    plot = svg.dots(rows, names, f"× {data['columns'][reference]['label']}", guides, band)
    return f"<figure>{legend(data, [n for n in names if n != reference])}{plot}</figure>" if plot else ""


def nano_plot(data):
    names = [n for n in text.suite_columns(data, "nano") if n != BOCHS]
    rows = [(b, item["group"], {n: triple(data, "nano", b, n) for n in names if triple(data, "nano", b, n)})
            for b, item in data["suites"]["nano"].items()]
    return f"<figure>{legend(data, names)}{svg.dots(rows, names, 'cycles')}</figure>"


def boot_plot(data):
    rows = []
    for name in text.suite_columns(data, "boot"):
        values = list(figures.samples(data, "boot", "shell", name).values())
        if values:
            rows.append((data["columns"][name]["label"], name, values))
    fast = [row for row in rows if row[1] != "interp"] or rows # its minutes would leave no room for the others
    return f"<figure>{svg.strips(fast, 's')}</figure>"


def memory_plot(data):
    names = text.suite_columns(data, "translate")
    rows = []
    for benchmark in data["suites"]["translate"]:
        if benchmark.startswith("memory, guest of "):
            ram = int(benchmark.split()[-2])
            found = [(n, figures.median(data, "translate", benchmark, n)) for n in names]
            rows.append((f"guest of {ram} MiB", [(n, v) for n, v in found if v], 64 + 0.03 * ram))
    return f"<figure>{legend(data, names)}{svg.bars(rows, 'MiB')}</figure>" if rows else ""


PLOTS = {
    "boot": boot_plot,
    "compute": lambda data: ratio_plot(data, "compute", [(1.3, "1.30")], (1e-9, 1.08)),
    "os": lambda data: ratio_plot(data, "os", [(1, "native")], None),
    "nano": nano_plot,
    "translate": memory_plot,
}


def target_section(data):
    lines = ["<h2>Speed to reach</h2><p class='soft'>The dashed line is the limit, the scale reaches from a tenth of it to "
             "ten times; left of it is good.</p><div class='scroll'><table><tr><th>what</th><th>to reach</th><th>found</th>"
             "<th></th><th></th><th></th></tr>"]
    for row in targets.rows(data):
        shape = {True: "yes", False: "no", None: "none"}[row.reached]
        plot = svg.bullet(row.value, row.limit) if row.value else ""
        lines.append(f"<tr><td>{escape(row.what)}</td><td>≤ {escape(row.limit_text)}</td><td>{escape(row.text)}</td><td>{plot}</td>"
                     f"<td><span class='badge {shape}'>{row.verdict}</span></td><td class='parts'>{escape(row.parts)}</td></tr>")
    return "".join(lines) + "</table></div>"


def cards(data):
    rows = targets.rows(data)
    measured = [row for row in rows if row.value is not None]
    found = [(f"{sum(row.reached for row in measured)} of {len(measured)}", "rows of the speed table reached")]
    for value, label in ((next((r.value for r in rows if r.what.startswith("compute, geo")), None), "× native, user programs"),
                         (figures.median(data, "boot", "shell", BT), "s from start to shell")):
        if value:
            found.append((figures.significant(value), label))
    boot = figures.ratio(data, "boot", "shell", QEMU, BT)
    if boot:
        found.append((f"{boot:.1f} ×", "as fast as QEMU TCG to the shell"))
    return "<div class='cards'>" + "".join(f"<div class='card'><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in found) + "</div>"


def section(data, suite):
    head, rows = text.suite_table(data, suite)
    return (f"<h2>{escape(text.TITLES[suite].split(':')[0])}</h2><p>{escape(INTRO[suite])}</p>{PLOTS[suite](data)}"
            f"<details{' open' if suite in ('boot', 'translate') else ''}><summary>all figures</summary>{html_table(head, rows)}</details>")


def report(data, out):
    facts = "".join(f"<p class='soft'>{escape(line)}</p>" for line in text.condition_lines(data))
    body = "".join(section(data, suite) for suite in ORDER if suite in data["suites"])
    out.write(f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
              f"<title>bt86: the comparison</title><style>{STYLE}</style></head><body><main><h1>bt86 against the host, hardware "
              f"and its peers</h1><p>Medians over interleaved turns; ratios are medians of the ratios within a turn.</p>"
              f"{cards(data)}{facts}{target_section(data)}{body}</main></body></html>\n")
