"""Plots as SVG text: a dot plot on a logarithmic axis, a strip of single runs, stacked bars. Colours come from the
page's style sheet (class c-NAME), so that they follow light and dark."""
import html
import math

import figures

WIDTH, LEFT, RIGHT, ROW, TOP = 1000, 230, 30, 24, 34


def text(x, y, content, classes="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">{html.escape(content)}</text>'


def line(x1, y1, x2, y2, classes):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{classes}"/>'


def rectangle(x, y, width, height, classes, title=""):
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" class="{classes}">'
            f"<title>{html.escape(title)}</title></rect>")


def dot(x, y, classes, title):
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" class="{classes}"><title>{html.escape(title)}</title></circle>'


def drawing(height, parts, label):
    return (f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(label)}">'
            + "".join(parts) + "</svg>")


class Log:
    """A logarithmic axis over all values, with round ends."""

    def __init__(self, values, include=()):
        values = [v for v in [*values, *include] if v and v > 0]
        self.low, self.high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.08
        if self.high - self.low < 0.5:
            middle = (self.high + self.low) / 2
            self.low, self.high = middle - 0.25, middle + 0.25

    def __call__(self, value):
        value = max(math.log10(max(value, 1e-12)), self.low)
        return LEFT + (value - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)

    def ticks(self):
        steps = (1,) if self.high - self.low > 4 else (1, 3) if self.high - self.low > 2 else (1, 1.5, 2, 3, 5, 7)
        for decade in range(math.floor(self.low), math.ceil(self.high) + 1):
            for step in steps:
                value = step * 10.0 ** decade
                if self.low <= math.log10(value) <= self.high:
                    yield value


def dots(rows, columns, unit, guides=(), band=None):
    """rows: [(name, group, {column: (value, least, most)})]; guides: [(value, label)]; band: (low, high) shaded."""
    everything = [v for _, _, found in rows for triple in found.values() for v in triple]
    if not everything:
        return ""
    axis = Log(everything, [g for g, _ in guides])
    groups = len([1 for i, row in enumerate(rows) if row[1] and (i == 0 or rows[i - 1][1] != row[1])])
    height = TOP + ROW * (len(rows) + groups) + 12
    parts = []
    if band:
        left, right = (min(max(axis(v), LEFT), WIDTH - RIGHT) for v in band)
        parts.append(rectangle(left, TOP - 8, right - left, height - TOP, "band"))
    for value in axis.ticks():
        parts += [line(axis(value), TOP - 8, axis(value), height - 8, "grid"),
                  text(axis(value), TOP - 14, figures.significant(value, 2), "tick", "middle")]
    parts.append(text(LEFT - 12, TOP - 14, unit, "tick", "end"))
    for value, name in guides:
        parts.append(line(axis(value), TOP - 8, axis(value), height - 8, "guide"))
        parts.append(text(axis(value) + 3, height - 1, name, "tick"))
    y, group = TOP + 6, ""
    for name, belongs, found in rows:
        if belongs and belongs != group:
            group = belongs
            parts.append(text(8, y + 9, group, "group"))
            y += ROW
        parts += dot_row(name, found, columns, axis, y, unit)
        y += ROW
    return drawing(height, parts, "dot plot, " + unit)


def dot_row(name, found, columns, axis, y, unit):
    parts = [text(LEFT - 12, y + 4, name, "name", "end")]
    places = [axis(v) for v, _, _ in found.values()]
    if places:
        parts.append(line(min(places), y, max(places), y, "span"))
    for column in reversed(columns):
        if column not in found:
            continue
        value, least, most = found[column]
        tip = f"{name}, {column}: {figures.significant(value)} {unit}"
        if least != most:
            tip += f" ({figures.significant(least)} to {figures.significant(most)})"
            parts.append(line(axis(least), y, axis(most), y, f"whisker c-{column}"))
        parts.append(dot(axis(value), y, f"c-{column}", tip))
    return parts


def strips(rows, unit):
    """rows: [(label, column, [values])]: a dot for each run, a bar for the median; a linear axis from zero."""
    most = max(max(values) for _, _, values in rows)
    scale = (WIDTH - LEFT - RIGHT - 70) / most
    parts = []
    for i, (label, column, values) in enumerate(rows):
        y = 20 + i * 38
        middle = sorted(values)[len(values) // 2]
        parts += [text(LEFT - 12, y + 5, label, "name", "end"),
                  rectangle(LEFT, y - 11, middle * scale, 22, f"bar c-{column}", f"{label}: {figures.significant(middle)} {unit}"),
                  text(LEFT + max(middle, max(values)) * scale + 10, y + 5, f"{figures.significant(middle)} {unit}", "value")]
        parts += [dot(LEFT + v * scale, y, f"run c-{column}", f"{figures.significant(v)} {unit}") for v in values]
    return drawing(20 + len(rows) * 38, parts, "bars, " + unit)


def bars(rows, unit):
    """rows: [(label, [(column, value)], limit or None)]: bars next to each other, a mark at the limit."""
    values = [v for _, found, limit in rows for v in [*(x for _, x in found), limit] if v]
    scale = (WIDTH - LEFT - RIGHT - 90) / max(values)
    parts, y = [], 10
    for label, found, limit in rows:
        height = 18 * len(found)
        parts.append(text(LEFT - 12, y + height / 2 + 4, label, "name", "end"))
        for i, (column, value) in enumerate(found):
            parts += [rectangle(LEFT, y + 18 * i, value * scale, 15, f"solid c-{column}", f"{label}, {column}: {value:.1f} {unit}"),
                      text(LEFT + value * scale + 8, y + 18 * i + 12, f"{figures.significant(value)} {unit}", "value")]
        if limit:
            parts += [line(LEFT + limit * scale, y - 5, LEFT + limit * scale, y + height + 3, "guide"),
                      text(LEFT + limit * scale + 4, y + height + 12, f"limit {limit:.0f}", "tick")]
        y += height + 28
    return drawing(y, parts, "bars, " + unit)


def bullet(value, limit):
    """Where a figure lies against its limit, from a tenth of it to ten times."""
    width, middle = 200, 100
    place = middle + 100 * max(-1, min(1, math.log10(value / limit)))
    good = value <= limit
    return (f'<svg viewBox="0 0 {width} 18" class="bullet">'
            f'<rect x="0" y="6" width="{middle}" height="6" class="under"/>'
            f'<rect x="{middle}" y="6" width="{middle}" height="6" class="over"/>'
            f'<line x1="{middle}" y1="2" x2="{middle}" y2="16" class="guide"/>'
            f'<circle cx="{min(max(place, 7), width - 7):.1f}" cy="9" r="6.5" class="{"good" if good else "bad"}"/></svg>')
