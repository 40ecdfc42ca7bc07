"""Plots as SVG text: points with error bars, lines, dashed laws, bands, and grouped or stacked bars.

    plot("Speed", Axis("experts per token"), Axis("time of a token (ms)"),
         [Series("measured", [(1, 9.8, 9.6, 10.1), (8, 12.2)], "points"),
          Series("law", [(1, 9.5), (8, 12.0)], "dashed", colour=0)],
         description="Time of a token against experts per token.")

The same data give the same bytes. Text stays text, colours follow the reader's light or dark page, and
no meaning hangs on colour alone: series differ in the shape of their marks as well. Values that are
None are left out. Python's own library only.
"""

import math
import textwrap
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

WIDTH, PLOT_HEIGHT = 760, 330
LEFT, RIGHT = 74, 24
TITLE_HEIGHT, LEGEND_ROW, NOTE_ROW = 34, 20, 16
BELOW = 50  # ticks and the label of the x axis
NOTE_WIDTH = 112  # characters
TICKS = 6
INK, GROUND = ("#24292f", "#dfe5ec"), ("#ffffff", "#0d1117")  # on a light page, on a dark one
COLOURS = [  # of series, likewise
    ("#0b62a4", "#58a6e8"), ("#c25a00", "#f0883e"), ("#1a7f4b", "#4ac38a"), ("#8250b0", "#b58ae6"),
    ("#b3263a", "#f47083"), ("#8a6d00", "#d4b13f"), ("#007f8c", "#3ec6d3"), ("#5f6b76", "#9aa7b4"),
]  # fmt: skip


@dataclass
class Axis:
    label: str  # with its unit
    log: bool = False
    ticks: list = field(default_factory=list)  # values; none: round numbers
    low: float | None = None  # none: 0, on a log axis what the values need
    high: float | None = None


@dataclass
class Series:
    name: str  # empty: not in the legend
    points: list  # (x, y) or (x, y, low, high)
    style: str = "line"  # points, line, marked (both), dashed, steps
    colour: int | None = None  # none: its place among the series


@dataclass
class Band:
    """The ground between two lines; wide ones come before those that lie within them."""

    name: str
    points: list  # (x, low, high)


@dataclass
class Group:
    """One bar in each category."""

    name: str
    values: list
    ranges: list = field(default_factory=list)  # (low, high) or None for each value


@dataclass
class Limit:
    """A line across all bars of each category."""

    name: str
    values: list


def number_text(value, figures=4):
    """So many figures, without powers of ten."""
    if value == 0:
        return "0"
    digits = max(0, figures - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def round_ticks(low, high, count=TICKS):
    """Multiples of 1, 2 or 5 powers of ten that cover low to high."""
    raw = (high - low) / (count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if raw <= m * power * (1 + 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low, high):
    """1, 2, 5 and their tenfolds between low and high; over many decades only the tenfolds."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if len(decades) <= 4 else (1,)
    values = [digit * 10.0**decade for decade in decades for digit in digits]
    return [v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]


class Scale:
    """From values to places between start and end."""

    def __init__(self, axis, values, start, end):
        values = [v for v in values if v is not None and (v > 0 or not axis.log)]
        values = values or [1, 10]
        self.log, self.start, self.end = axis.log, start, end
        if axis.log:
            self.low = axis.low or min(values) / 1.12
            self.high = axis.high or max(values) * 1.12
            self.ticks = axis.ticks or log_ticks(self.low, self.high)
        else:
            self.low = min(0, *values) if axis.low is None else axis.low
            self.high = max(values) if axis.high is None else axis.high
            if self.high <= self.low:
                self.high = self.low + 1
            self.ticks = axis.ticks or round_ticks(self.low, self.high)
            if axis.high is None:
                self.high = max(self.high, self.ticks[-1])
            self.low = min(self.low, self.ticks[0])

    def __call__(self, value):
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def style_sheet():
    def rules(theme):
        ink, ground = INK[theme], GROUND[theme]
        lines = [f"text{{fill:{ink}}}.axis{{stroke:{ink}}}.halo{{stroke:{ground};fill:{ground}}}"
                 f".limit{{stroke:{ink}}}.band{{fill:{ink}}}"]
        for i, pair in enumerate(COLOURS):
            lines.append(f".f{i}{{fill:{pair[theme]}}}.s{i}{{stroke:{pair[theme]}}}")
        return "".join(lines)

    return (
        "<style>text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif}"
        "text.title{font-size:16px;font-weight:600}text.note{font-size:11px}"
        "text.value{font-size:10px}.grid{stroke:#8888;stroke-width:.5}.axis,.limit,.line{fill:none}"
        ".line{stroke-width:2}.dashed{stroke-dasharray:7 4}.limit{stroke-width:2}.band{opacity:.09}"
        f"{rules(0)}@media(prefers-color-scheme:dark){{{rules(1)}}}</style>"
    )


class Canvas:
    """Shapes as lines of SVG."""

    def __init__(self):
        self.lines = []

    def text(self, x, y, words, anchor="start", kind="", turn=""):
        kind = f' class="{kind}"' if kind else ""
        self.lines.append(f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>'
                          f"{escape(str(words))}</text>")

    def path(self, kind, points, closed=False):
        if points:
            d = "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
            self.lines.append(f'<path class="{kind}" d="{d}{"Z" if closed else ""}"/>')

    def rect(self, kind, x, y, width, height):
        self.lines.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                          f'height="{height:.1f}"/>')

    def mark(self, colour, x, y):
        """A shape of its own for each colour."""
        shape, kind = colour % 4, f"f{colour}"
        if shape == 0:
            self.lines.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        elif shape == 1:
            self.rect(kind, x - 3.6, y - 3.6, 7.2, 7.2)
        elif shape == 2:
            self.path(kind, [(x, y - 4.8), (x + 4.6, y + 3.6), (x - 4.6, y + 3.6)], closed=True)
        else:
            self.path(kind, [(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y)], closed=True)

    def error_bar(self, kind, x, low, high, half=3.5):
        for points in ([(x, low), (x, high)], [(x - half, low), (x + half, low)],
                       [(x - half, high), (x + half, high)]):  # fmt: skip
            self.path(kind, points)


class Legend:
    """Entries in rows, as many to a row as fit."""

    def __init__(self, entries):
        self.rows, x = [], WIDTH
        for draw, name in entries:
            width = 34 + 6.6 * len(name) + 16
            if x + width > WIDTH - RIGHT:
                self.rows.append([])
                x = LEFT
            self.rows[-1].append((x, draw, name))
            x += width
        self.height = LEGEND_ROW * len(self.rows)

    def draw(self, canvas, top):
        for i, row in enumerate(self.rows):
            y = top + LEGEND_ROW * i + 10
            for x, draw, name in row:
                draw(canvas, x, y)
                canvas.text(x + 34, y + 4, name)


class Frame:
    """Title, legend, axes and notes around a plot; top and bottom are those of the plot."""

    def __init__(self, title, description, legend, notes, source):
        self.title, self.description, self.source, self.legend = title, description, source, legend
        self.notes = [line for note in notes for line in textwrap.wrap(note, NOTE_WIDTH)]
        self.top = TITLE_HEIGHT + legend.height + 12
        self.bottom = self.top + PLOT_HEIGHT
        self.height = self.bottom + BELOW + NOTE_ROW * len(self.notes) + 8
        self.canvas = Canvas()

    def y_axis(self, axis, scale):
        for tick in scale.ticks:
            y = scale(tick)
            self.canvas.path("grid", [(LEFT, y), (WIDTH - RIGHT, y)])
            self.canvas.text(LEFT - 8, y + 4, number_text(tick), "end")
        middle = (self.top + self.bottom) / 2
        self.canvas.text(18, middle, axis.label, "middle", turn=f' transform="rotate(-90 18 {middle:.1f})"')

    def x_line(self, label):
        self.canvas.path("axis", [(LEFT, self.bottom), (WIDTH - RIGHT, self.bottom)])
        self.canvas.text((LEFT + WIDTH - RIGHT) / 2, self.bottom + 42, label, "middle")

    def x_axis(self, axis, scale):
        self.x_line(axis.label)
        for tick in scale.ticks:
            x = scale(tick)
            self.canvas.path("axis", [(x, self.bottom), (x, self.bottom + 5)])
            self.canvas.text(x, self.bottom + 20, number_text(tick), "middle")

    def svg(self):
        canvas = self.canvas
        canvas.text(LEFT, 24, self.title, kind="title")
        self.legend.draw(canvas, TITLE_HEIGHT)
        for i, line in enumerate(self.notes):
            canvas.text(LEFT, self.bottom + BELOW + NOTE_ROW * (i + 1) - 4, line, kind="note")
        described = " ".join([self.description, *self.notes]).strip()
        head = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" role="img" '
            'aria-labelledby="title desc">',
            f'<title id="title">{escape(self.title)}</title>',
            f'<desc id="desc">{escape(described)}</desc>',
        ]
        if self.source:
            head.append(f"<metadata>{escape(self.source)}</metadata>")
        return "\n".join([*head, style_sheet(), *canvas.lines, "</svg>"]) + "\n"


def key_of(colour, style):
    """Draws the key of a series in the legend."""
    def draw(canvas, x, y):
        if style != "points":
            dashed = " dashed" if style == "dashed" else ""
            canvas.path(f"line s{colour}{dashed}", [(x, y), (x + 28, y)])
        if style in ("points", "marked"):
            canvas.mark(colour, x + 14, y)

    return draw


def bar_key(colour):
    return lambda canvas, x, y: canvas.rect(f"f{colour}", x + 6, y - 6, 16, 12)


def band_key(place):
    """Bands lie on one another, and so do their keys."""
    def draw(canvas, x, y):
        for _ in range(place + 1):
            canvas.rect("band", x + 2, y - 6, 24, 12)

    return draw


def limit_key(canvas, x, y):
    canvas.path("limit", [(x + 2, y), (x + 26, y)])


def is_drawable(point, x, y):
    return all(v is not None and math.isfinite(v) for v in point) and not (
        (x.log and point[0] <= 0) or (y.log and min(point[1:]) <= 0))  # fmt: skip


def draw_series(canvas, series, colour, x_of, y_of):
    places = [(x_of(p[0]), y_of(p[1])) for p in series.points]
    if series.style == "steps":
        corners = [(after[0], before[1]) for before, after in zip(places, places[1:])]
        line = [p for pair in zip(places, corners) for p in pair] + places[-1:]
    else:
        line = places
    if series.style != "points":
        canvas.path(f"line s{colour}" + (" dashed" if series.style == "dashed" else ""), line)
    if series.style in ("points", "marked"):
        for point, (x, y) in zip(series.points, places):
            if len(point) == 4:
                canvas.error_bar(f"s{colour}", x, y_of(point[2]), y_of(point[3]))
            canvas.mark(colour, x, y)


def plot(title, x, y, series, bands=(), notes=(), description="", source=""):
    """-> SVG. Notes are lines below the plot; they are read out as well."""
    series = [Series(s.name, [p for p in s.points if is_drawable(p, x, y)], s.style,
                     i % len(COLOURS) if s.colour is None else s.colour)
              for i, s in enumerate(series)]  # fmt: skip
    entries = [(key_of(s.colour, s.style), s.name) for s in series if s.name]
    entries += [(band_key(i), band.name) for i, band in enumerate(bands)]
    frame = Frame(title, description, Legend(entries), notes, source)
    points = [p for s in series for p in s.points]
    x_of = Scale(x, [p[0] for p in points] + x.ticks, LEFT, WIDTH - RIGHT)
    y_of = Scale(y, [v for p in points for v in p[1:]], frame.bottom, frame.top)
    canvas = frame.canvas
    for band in bands:
        edge = [(x_of(p[0]), y_of(p[1])) for p in band.points]
        edge += [(x_of(p[0]), y_of(p[2])) for p in reversed(band.points)]
        canvas.path("band", edge, closed=True)
    frame.y_axis(y, y_of)
    frame.x_axis(x, x_of)
    for s in reversed(series):  # the first lies on top
        draw_series(canvas, s, s.colour, x_of, y_of)
    return frame.svg()


def tops_of(groups, stacked):
    """Per group and category: where the bar begins and ends; None without a value."""
    floors = [0.0] * max((len(group.values) for group in groups), default=0)
    result = []
    for group in groups:
        row = []
        for i, value in enumerate(group.values):
            row.append(None if value is None else (floors[i], floors[i] + value))
            if stacked and value is not None:
                floors[i] += value
        result.append(row)
    return result


def bars(title, x_label, y, categories, groups, limits=(), stacked=False, notes=(), description="",
         source=""):  # fmt: skip
    """-> SVG. Bars side by side, with their values, or on top of one another."""
    entries = [(bar_key(i % len(COLOURS)), group.name) for i, group in enumerate(groups)]
    entries += [(limit_key, limit.name) for limit in limits]
    frame = Frame(title, description, Legend(entries), notes, source)
    spans = tops_of(groups, stacked)
    heights = [span[1] for row in spans for span in row if span]
    heights += [high for group in groups for pair in group.ranges if pair for high in pair]
    heights += [value for limit in limits for value in limit.values if value is not None]
    y_of = Scale(y, heights, frame.bottom, frame.top)
    frame.y_axis(y, y_of)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(categories))
    for i, category in enumerate(categories):
        left = LEFT + slot * (i + 0.1)
        draw_category(frame.canvas, y_of, i, left, 0.8 * slot, groups, spans, stacked)
        for limit in limits:
            if limit.values[i] is not None:
                level = y_of(limit.values[i])
                frame.canvas.path("limit", [(left, level), (left + 0.8 * slot, level)])
        frame.canvas.text(left + 0.4 * slot, frame.bottom + 20, category, "middle")
    frame.x_line(x_label)
    return frame.svg()


def draw_category(canvas, y_of, category, left, width, groups, spans, stacked):
    present = [g for g in range(len(groups)) if spans[g][category]]
    step = width if stacked else width / max(1, len(present))
    for place, g in enumerate(present):
        low, high = (y_of(v) for v in spans[g][category])
        x = left if stacked else left + step * place
        canvas.rect(f"f{g % len(COLOURS)}", x + 0.04 * step, high, 0.92 * step, low - high)
        if stacked:
            continue
        extent = groups[g].ranges[category] if groups[g].ranges else None
        if extent and extent[0] != extent[1]:
            canvas.error_bar("axis", x + step / 2, y_of(extent[0]), y_of(extent[1]))
            high = min(high, y_of(extent[1]))
        canvas.text(x + step / 2, high - 4, number_text(groups[g].values[category], 3), "middle", "value")
    if stacked and present:
        top = spans[present[-1]][category][1]
        canvas.text(left + width / 2, y_of(top) - 4, number_text(top, 3), "middle", "value")
