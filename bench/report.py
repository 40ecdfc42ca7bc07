"""What the scripts of bench/ share: running penstock, names, results on disk, marks in the documents.

Python's own library only.
"""

import contextlib
import csv
import datetime
import functools
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
PENSTOCK = os.path.join(ROOT, "build/release/penstock")
MODELS = os.path.join(ROOT, "build/bench-models")
RESULTS = os.path.join(ROOT, "bench/results")
STORY = os.path.join(ROOT, "docs/performance.md")
PAGES = os.path.join(ROOT, "docs/performance")  # its tables, a page each
PLOTS = os.path.join(ROOT, "docs/plots")
MIB, GIB = 1 << 20, 1 << 30


def page(name):
    return os.path.join(PAGES, name + ".md")


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def run_main(action):
    """Stopped by Ctrl-C or a signal, a script tidies up and ends with the code of it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        action()
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{shown_command(error.cmd[:2])} ended with {error.returncode}")


# ---- files ------------------------------------------------------------------------------------

def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def write(path, text):
    """All of it or nothing: what is there under this name is always whole."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    partial = path + ".partial"
    try:
        with open(partial, "w", encoding="utf-8", newline="") as f:
            f.write(text)
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


def write_json(path, value):
    write(path, json.dumps(value, indent=1) + "\n")


def read_csv(path):
    """Rows of texts; an empty cell is a value that is missing."""
    with open(path, encoding="utf-8", newline="") as f:
        return [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(f)]


def in_figures(row):
    """Six figures are enough for a measurement."""
    return {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()}


def write_csv(path, rows, last=()):
    """All columns of all rows, in the order of their appearance; those in `last` at the end."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns.sort(key=lambda key: key in last)
    text = CsvText()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(path, text.whole())


class CsvText:
    def __init__(self):
        self.lines = []

    def write(self, line):
        self.lines.append(line)

    def whole(self):
        return "".join(self.lines)


def put_between_marks(path, name, text):
    """Replaces what stands between the two marks of that name, where the page has them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if not os.path.exists(path):
        return
    page = read(path)
    if begin not in page or end not in page.split(begin, 1)[1]:
        return
    head, rest = page.split(begin, 1)
    write(path, f"{head}{begin}\n\n{text.rstrip()}\n\n{end}{rest.split(end, 1)[1]}")


def table(head, rows):
    """Markdown; a heading that starts with ">" is that of a column of numbers."""
    lines = [" | ".join(["", *(name.lstrip(">") for name in head), ""]).strip(),
             "|" + "".join("---:|" if name.startswith(">") else "---|" for name in head)]
    lines += [" | ".join(["", *map(str, row), ""]).strip() for row in rows]
    return "\n".join(lines)


# ---- programs ---------------------------------------------------------------------------------

def shown(word):
    """A path inside the repository without the place of the repository."""
    word = str(word)
    return os.path.relpath(word, ROOT) if word.startswith(ROOT + os.sep) else word


def shown_command(command):
    return shlex.join(shown(word) for word in command)


def run(command, **options):
    """As subprocess.run(), but a signal that comes while the program is being started ends it as well: it
    would go on alone, and leave behind what nobody tidies up."""
    say("+", shown_command(command))
    words = [str(c) for c in command]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    unblock = functools.partial(signal.pthread_sigmask, signal.SIG_SETMASK, before)
    try:
        process = subprocess.Popen(words, text=True, preexec_fn=unblock, **options)
    except BaseException:
        unblock()
        raise
    with process:
        try:
            unblock()  # one that came meanwhile is raised here
            out, errors = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, words, out, errors)
    return subprocess.CompletedProcess(words, 0, out, errors)


def output_of(command):
    return run(command, stdout=subprocess.PIPE).stdout


def records_in(text):
    """Whole JSON objects among lines; the last line of a killed process may be cut."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def bench_rows(penstock, model, *words):
    """Rows of `penstock bench`, with names of the model and of its files in place of where they lay."""
    rows = list(records_in(output_of([penstock, "bench", model, *words, "--json", "--quiet"])))
    for row in rows:
        row["model_filename"] = os.path.basename(os.path.normpath(row["model_filename"]))
        for drive in row["drives"]:
            drive["path"] = os.path.basename(drive["path"])
    return rows


def check_hashes(name, rows):
    """Streaming may change when work is done, never what is computed."""
    def test_of(row):
        return row["n_prompt"], row["n_gen"], row["n_depth"]

    for test in sorted({test_of(row) for row in rows}):
        if len({row["logits_hash"] for row in rows if test_of(row) == test}) != 1:
            sys.exit(f"{name}: test {test} gave different logits where it should not; no result")


def directory_bytes(path):
    return sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path))


def synthetic_path(shape, folder, *, layers, num_experts=0):
    experts = f"-{num_experts}-experts" if num_experts else ""
    return os.path.join(folder, f"{shape}-{layers}-layers{experts}")


def synthesise(penstock, shape, folder, *, layers, num_experts=0):
    """The folder of a synthetic model, which is made unless it is there."""
    path = synthetic_path(shape, folder, layers=layers, num_experts=num_experts)
    if not os.path.exists(os.path.join(path, "penstock.json")):
        os.makedirs(folder, exist_ok=True)
        words = ["--num-experts", num_experts] if num_experts else []
        run([penstock, "synth", shape, path, "--layers", layers, *words], stdout=sys.stderr)
    return path


class Measurements:
    """What was measured, by name; with a file it outlives the script, so that an interrupted one
    goes on where it was and a changed law is soon compared."""

    def __init__(self, path=""):
        self.path, self.kept = path, {}
        if path and os.path.exists(path):
            self.kept = json.loads(read(path))

    def get(self, key, measure):
        key = " ".join(map(str, key))
        if key not in self.kept:
            self.kept[key] = measure()
            if self.path:
                write_json(self.path, self.kept)
        return self.kept[key]


class Progress:
    """How much is done, and how long the rest will take at the speed so far."""

    def __init__(self, total, clock=time.monotonic):
        self.total, self.done, self.clock, self.start = total, 0, clock, clock()

    def step(self, weight, words):
        self.done += weight
        left = (self.clock() - self.start) * (self.total - self.done) / max(self.done, 1e-9)
        rest = f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left"
        say(f"[{100 * self.done / self.total:3.0f} %, {rest}] {words}")


# ---- machines ---------------------------------------------------------------------------------

def meminfo(key):
    return int(re.search(rf"^{key}:\s+(\d+) kB", read("/proc/meminfo"), re.M).group(1)) * 1024


def processors():
    return len(os.sched_getaffinity(0))


def cpu_name():
    name = re.search(r"^model name\s*:\s*(.*)$", read("/proc/cpuinfo"), re.M)
    return name.group(1) if name else os.uname().machine


def machine_slug():
    """The name of a machine in names of files."""
    return re.sub(r"[^a-z0-9]+", "-", f"{cpu_name()} {processors()} processors".lower()).strip("-")


def commit():
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.strip() or "unknown"


def machine_line(load_before):
    return (f"{datetime.date.today().isoformat()}, commit {commit()}; {cpu_name()}, {processors()} "
            f"processors, {meminfo('MemTotal') / GIB:.0f} GiB of memory "
            f"({meminfo('MemAvailable') / GIB:.0f} free), Linux {os.uname().release}; load before "
            f"the run {load_before:.1f}")


# ---- rows -------------------------------------------------------------------------------------

def test_name(row):
    name = f"prompt {row['n_prompt']}" if row["n_prompt"] else f"answer {row['n_gen']}"
    return name + (f" after {row['n_depth']}" if row["n_depth"] else "")


def spread(values):
    """-> median, lowest, highest"""
    return statistics.median(values), min(values), max(values)


# ---- command lines ----------------------------------------------------------------------------

def counts(words):
    """argparse: "2,4,8" -> [2, 4, 8]; "" -> []"""
    return [int(word) for word in words.split(",") if word]


def add_options(parser, *, docs=True):
    """What every measuring script can be told."""
    parser.add_argument("--penstock", default=PENSTOCK)
    parser.add_argument("--machine", default="", help="its name in names of files (default: of "
                                                      "processor and number)")
    parser.add_argument("--out", default=RESULTS, help="folder of results (default bench/results)")
    if docs:
        parser.add_argument("--no-docs", action="store_true",
                            help="leave docs/ alone; plots go beside the results")
