"""From single figures to medians and ratios.

The data that bench/run collects and writes as JSON:

    {"conditions": {...}, "columns": {name: {"label", "note"}}, "missing": {name: why},
     "suites": {suite: {benchmark: {"unit", "group", "columns": {name: [{"round", "median", "minimum", ...}, ...]}}}}}

A ratio is the median of the ratios of figures taken in the same round, or in the same turn where a round has several
(they are numbered through, as "round"): what slows the host down for a while slows both. The figure of a turn is the
median of the runs in it or, with STATISTIC "minimum", the least: on a host that is busy with other work, that is the
run that nobody disturbed.
"""
import math
import statistics

STATISTIC = "median"
SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def entry(data, suite, benchmark):
    return data["suites"].get(suite, {}).get(benchmark)


def samples(data, suite, benchmark, column, key=None):
    """{round: value}"""
    key = key or STATISTIC
    rows = (entry(data, suite, benchmark) or {"columns": {}})["columns"].get(column, [])
    return {row["round"]: row.get(key, row["median"]) for row in rows}


def median(data, suite, benchmark, column):
    """Over the rounds."""
    values = samples(data, suite, benchmark, column)
    return statistics.median(values.values()) if values else None


def minimum(data, suite, benchmark, column):
    values = samples(data, suite, benchmark, column, "minimum")
    return min(values.values()) if values else None


def spread(data, suite, benchmark, column):
    """(least, most) of the rounds' medians, or None."""
    values = samples(data, suite, benchmark, column)
    return (min(values.values()), max(values.values())) if values else None


def ratio(data, suite, benchmark, column, reference):
    mine, theirs = (samples(data, suite, benchmark, name) for name in (column, reference))
    ratios = [mine[r] / theirs[r] for r in mine if theirs.get(r)]
    return statistics.median(ratios) if ratios else None


def geometric_mean(values):
    values = [v for v in values if v]
    return math.exp(sum(math.log(v) for v in values) / len(values)) if values else None


def significant(value, digits=3):
    """Not more digits than mean something, no exponent."""
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    if value >= 0.01:
        places = min(places, 2)
    return f"{value:,.{places}f}" if places > 0 else f"{round(value, places):,.0f}"


def time_text(seconds):
    for size, unit in SECONDS:
        if seconds >= size or unit == "ns":
            return f"{significant(seconds / size)} {unit}"
    return ""


def value_text(value, unit):
    if value is None:
        return "-"
    if unit == "s":
        return time_text(value)
    if unit == "ns":
        return time_text(value * 1e-9)
    if unit == "cycles":
        return significant(value)
    return f"{significant(value)} {unit}".strip()


def ratio_text(value):
    return "-" if value is None else f"{significant(value)}"
