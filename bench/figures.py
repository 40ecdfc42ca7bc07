"""The pictures of docs/plots, each drawn from files of bench/results and from nothing else.

A picture names the machine whose results it shows in its <metadata>, so that it can be drawn again.
"""

import json
import os
import re
import statistics

import law
import report
from svg_plot import Axis, Band, Group, Limit, Series, bars, plot

MACHINE = "{machine}"
ENGINES = ["penstock", "llama.cpp", "llama.cpp, no mmap"]


def gib(cap_bytes):
    return f"cap {int(cap_bytes) / report.GIB:g} GiB" if int(cap_bytes) else "everything in memory"


def percent(share):
    return f"{100 * share:.0f} %"


# ---- measured by performance_table, peers and forecast_check ----------------------------------

def peers(results, limits, source):
    rows = [row for row in results if row["test"] == "decode" and "tok_s" in row]
    caps = sorted({row["cap_bytes"] for row in rows}, key=lambda cap: (cap != "0", -int(cap)))
    groups = []
    for engine in [name for name in ENGINES if any(row["engine"] == name for row in rows)]:
        speeds = [[float(r["tok_s"]) for r in rows if (r["cap_bytes"], r["engine"]) == (cap, engine)]
                  for cap in caps]
        groups.append(Group(engine, [statistics.median(s) if s else None for s in speeds],
                            [(min(s), max(s)) if s else None for s in speeds]))
    highest = {row["cap_bytes"]: float(row["high_tok_s"]) for row in limits if row["test"] == "decode"}
    values = [highest.get(cap) for cap in caps]
    return bars(
        "Decoding beside llama.cpp, at caps of memory", "memory cap, page cache included",
        Axis("tokens per second"), [gib(cap) for cap in caps], groups,
        [Limit("what the hardware allows", values)],
        notes=["Shape of 35B-A3B at 4 bits, random weights. Limit: bytes of a token that were not in memory over "
               "the disk's rate, or all of its weights over memory's, whichever takes longer."],
        description="Tokens per second of " + "; ".join(
            f"{group.name}: " + ", ".join(f"{v:.2f} at {gib(cap)}" for cap, v in zip(caps, group.values)
                                          if v is not None) for group in groups) + ".",
        source=source)  # fmt: skip


def waits(results, source):
    model = results[-1]["model"]  # the largest is the last
    rows = [r for r in results if r["model"] == model and r["cache"] == "warm" and int(r["n_gen"]) > 0]
    names = [key for key in rows[0] if key.startswith("wait_ms_")]
    shares = [percent(int(row["slots"]) / int(row["experts"])) for row in rows]
    groups = [Group(name.removeprefix("wait_ms_").replace("_", " "), [float(row[name]) for row in rows])
              for name in names]
    return bars(
        f"Where the time of a token goes: {model}", "experts in memory", Axis("time of a token (ms)"), shares,
        groups, stacked=True, notes=[f"Decoding, warm cache, routing: {rows[0]['routing']}; means over all runs."],
        description="Milliseconds of a token: " + "; ".join(
            f"{share} of the experts in memory, " + ", ".join(
                f"{group.name} {group.values[i]:.1f}" for group in groups) for i, share in enumerate(shares))
        + ".", source=source)  # fmt: skip


def forecast(results, source):
    pairs = [(row, float(row["measured_ts"]), float(row["forecast_ts"])) for row in results]
    ends = min(m for _, m, _ in pairs) / 1.3, max(m for _, m, _ in pairs) * 1.3
    kinds = {
        "answer, the model's routing": lambda row: "prompt" not in row["test"] and row["routing"] == "model",
        "answer, drawn routing": lambda row: "prompt" not in row["test"] and row["routing"] != "model",
        "cold prompt": lambda row: "prompt" in row["test"],
    }
    series = [Series(name, [(m, f) for row, m, f in pairs if holds(row)], "points")
              for name, holds in kinds.items()]
    series.append(Series("equal", [(x, x) for x in ends], "dashed", 7))
    bands = [Band(f"within {share} %", [(x, x * (1 - share / 100), x * (1 + share / 100)) for x in ends])
             for share in (20, 10)]
    errors = [abs(f / m - 1) for _, m, f in pairs]
    return plot(
        "Forecast against measurement", Axis("measured (tokens per second)", log=True, low=ends[0], high=ends[1]),
        Axis("forecast (tokens per second)", log=True, low=ends[0] * 0.8, high=ends[1] * 1.2), series, bands,
        notes=["Forecast: penstock plan with the rates of penstock doctor, the disk's rate and the hit rate of the "
               "same minute."],
        description=f"{len(pairs)} settings; median error {100 * statistics.median(errors):.1f} %, largest "
        f"{100 * max(errors):.1f} %.", source=source)  # fmt: skip


def cache(results, source, trace):
    rows = [row for row in results if row["trace"] == trace]
    series = []
    for i, policy in enumerate(dict.fromkeys(row["policy"] for row in rows)):
        points = [(100 * float(r["share"]), 100 * float(r["hit_rate"])) for r in rows if r["policy"] == policy]
        series.append(Series(policy, points, "dashed" if policy == "Belady's bound" else "marked", i))
    return plot(
        f"Which expert has to go: {trace}", Axis("share of all experts that has a slot (%)", low=0, high=80),
        Axis("hit rate (%)", low=0, high=100), series,
        notes=[f"Recorded routing of the demo model, {int(rows[0]['tokens']):,} tokens, replayed by "
               "bench/cache_replay. Belady's bound knows the future: no policy can do better."],
        description="Hit rates at a quarter of the experts: " + ", ".join(
            f"{s.name} {y:.1f} %" for s in series for x, y in s.points if x == 25) + ".",
        source=source)  # fmt: skip


# ---- measured by scaling ----------------------------------------------------------------------

LAWS = {  # axis: (title, label, the law, unit of the slope)
    "layers": ("Time of a token by layers", "layers",
               "a head, and for each layer its own weights and experts: linear", "layer"),
    "experts": ("Time of a token by experts per token", "experts per token",
                "the weights of every expert are read from memory once: linear", "expert per token"),
    "num-experts": ("Time of a token by experts per layer", "experts per layer",
                    "only the router's matrix grows: nearly flat", "expert per layer"),
    "context": ("Time of a token by context", "positions in the context",
                "attention reads keys and values of all positions from memory: linear", "1,000 positions"),
    "threads": ("Time of a token by threads", "threads",
                "the longer of one thread's time over their number, and the bytes of a token over what so many "
                "threads read from memory", ""),
}  # fmt: skip
PER = {"context": 1000}  # positions


def fits(axis, series):
    """-> (measured, law) as (intercept, slope) in ms."""
    return tuple(law.straight_line([(p["x"] / PER.get(axis, 1), p[key]) for p in series["points"]])
                 for key in ("ms", "law_ms"))


def line_text(line, unit):
    intercept, slope = line
    if slope is None:
        return f"{intercept:.2f} ms"
    return f"{intercept:.2f} ms {'-' if slope < 0 else '+'} {abs(slope):.3g} ms per {unit}"


def scaling_notes(axis, entry):
    _, _, law_text, unit = LAWS[axis]
    origin = ("one thread's time as measured here, the bytes from penstock plan, memory's rates from penstock doctor"
              if axis == "threads" else "penstock plan with the rates that penstock doctor measured")
    notes = [f"Law: {law_text}. Its coefficients: {origin}."]
    if unit:
        for series in entry["series"]:
            measured, expected = fits(axis, series)
            notes.append(f"{series['name'].capitalize()}: measured {line_text(measured, unit)}, law "
                         f"{line_text(expected, unit)}, as straight lines of least squares.")
    return [*notes, f"{entry['model']}; medians of {entry['samples']} runs, bars from the fastest to the slowest."]


def scaling(record, source, axis):
    entry = record["axes"][axis]
    title, label, _, _ = LAWS[axis]
    series = []
    for i, one in enumerate(entry["series"]):
        points = one["points"]
        series.append(Series(f"measured, {one['name']}", [(p["x"], p["ms"], p["low_ms"], p["high_ms"])
                                                          for p in points], "points", i))
        series.append(Series(f"law, {one['name']}", [(p["x"], p["law_ms"]) for p in points], "dashed", i))
    ticks = [p["x"] for p in entry["series"][0]["points"]]
    wide = max(ticks) / 12
    ticks = [x for i, x in enumerate(ticks) if i == 0 or x - ticks[i - 1] >= wide]
    return plot(title, Axis(label, low=0, high=1.04 * max(ticks), ticks=ticks), Axis("time of a token (ms)"), series,
                notes=scaling_notes(axis, entry), source=source,
                description=title + ": " + "; ".join(
                    f"{one['name']} " + ", ".join(f"{p['ms']:.2f} ms at {p['x']:,}" for p in one["points"])
                    for one in entry["series"]) + ".")  # fmt: skip


# ---- measured by frontiers --------------------------------------------------------------------

def frontiers(results, source, kind):
    count, position, title, label = {
        "prefill": ("n_prompt", "n_prompt", "Prompts by length", "tokens of the prompt"),
        "decode": ("n_gen", "n_depth", "Answers by context", "positions in the context"),
    }[kind]
    rows = [row for row in results if int(row[count]) > 0]
    series = []
    curves = list(dict.fromkeys((row["budget"], row["cache"]) for row in rows))
    for i, curve in enumerate(curves):
        here = sorted((row for row in rows if (row["budget"], row["cache"]) == curve),
                      key=lambda row: int(row[position]))
        budget = curve[0] + (" of the experts" if curve[0].endswith("%") else "")
        name = f"{budget}, {curve[1]}"
        series.append(Series(name, [(int(r[position]), float(r["median_ts"]), float(r["min_ts"]),
                                     float(r["max_ts"])) for r in here], "marked", i))
        limits = [(int(r[position]), float(r["limit_ts"])) for r in here if "limit_ts" in r]
        series.append(Series("", limits, "dashed", i))
    ticks = sorted({int(row[position]) for row in rows})
    return plot(title, Axis(label, log=True, ticks=ticks), Axis("tokens per second", log=True), series,
                notes=["Dashed: the limit, from what the disk gave and what penstock doctor measured, at the hit rate "
                       "of the run.", f"{rows[0]['model_filename']}: {rows[0]['model_type']}."],
                description=title + ": " + "; ".join(
                    f"{s.name} " + ", ".join(f"{p[1]:.2f} tok/s at {p[0]:,}" for p in s.points)
                    for s in series if s.name) + ".", source=source)  # fmt: skip


# ---- which there are --------------------------------------------------------------------------

class Figure:
    """A picture, the files it is drawn from, and how."""

    def __init__(self, name, sources, draw, **words):
        self.name, self.sources, self.draw, self.words = name, sources, draw, words

    def path(self, folder):
        return os.path.join(folder, self.name + ".svg")

    def files(self, results, machine):
        return [os.path.join(results, source.replace(MACHINE, machine)) for source in self.sources]

    def machines(self, results):
        """Those whose results are there."""
        if MACHINE not in self.sources[0]:
            return [""] if os.path.exists(self.files(results, "")[0]) else []
        before, after = self.sources[0].split(MACHINE)
        found = [name[len(before):-len(after)] for name in sorted(os.listdir(results))
                 if name.startswith(before) and name.endswith(after)]
        # MACHINE.csv has no word before it; the others have one of these.
        return [m for m in found if before or not m.startswith(("peers-", "forecast-", "frontiers-", "limits-",
                                                                "scaling-", "cache-policies"))]

    def machine(self, results, plots, wanted=""):
        """The one that is wanted, the one that the drawn picture shows, or the only one; "" for none."""
        known = self.machines(results)
        if MACHINE not in self.sources[0]:
            return ""
        if wanted:
            return wanted if wanted in known else None
        if os.path.exists(self.path(plots)):
            match = re.search(r"<metadata>(.*?)</metadata>", report.read(self.path(plots)))
            if match and match.group(1) in known:
                return match.group(1)
        return known[0] if known else None

    def svg(self, results, machine):
        """None when there is nothing to draw it from."""
        files = self.files(results, machine)
        if not os.path.exists(files[0]):
            return None
        loaded = [load(path) for path in files]
        axis = self.words.get("axis")
        if axis and axis not in loaded[0]["axes"]:
            return None
        kind = self.words.get("kind")
        if kind and not any(int(row["n_prompt" if kind == "prefill" else "n_gen"]) for row in loaded[0]):
            return None
        return self.draw(*loaded, source=machine, **self.words)


def load(path):
    """Without a file, an empty table: a picture without limits is still one."""
    if not os.path.exists(path):
        return []
    return json.loads(report.read(path)) if path.endswith(".json") else report.read_csv(path)


FIGURES = [
    Figure("peers", ["peers-{machine}.csv", "limits-{machine}.csv"], peers),
    Figure("waits", ["{machine}.csv"], waits),
    Figure("forecast", ["forecast-{machine}.csv"], forecast),
    Figure("cache-text", ["cache-policies.csv"], cache, trace="text"),
    Figure("cache-tool-calls", ["cache-policies.csv"], cache, trace="tool calls"),
    *(Figure(f"scaling-{axis}", ["scaling-{machine}.json"], scaling, axis=axis) for axis in LAWS),
    *(Figure(f"frontiers-{kind}", ["frontiers-{machine}.csv"], frontiers, kind=kind)
      for kind in ("prefill", "decode")),
]


def draw(results, plots, machine="", names=()):
    """-> {path: SVG} of every picture that there are results for."""
    drawn = {}
    for figure in FIGURES:
        if names and not figure.name.startswith(tuple(names)):
            continue
        shown = figure.machine(results, plots, machine)
        svg = None if shown is None else figure.svg(results, shown)
        if svg is not None:
            drawn[figure.path(plots)] = svg
    return drawn


def write(results, plots, machine="", names=()):
    drawn = draw(results, plots, machine, names)
    for path, svg in drawn.items():
        report.write(path, svg)
        report.say(f"wrote {report.shown(path)}")
    return drawn
