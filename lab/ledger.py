"""The ledger of experiments: one row each, in a file that git keeps. Nothing is ever removed."""

import json
import os

COLUMNS = [
    "id", "date", "parent_commit", "commit", "machine_profile", "model_hash", "mode", "workload",
    "memory_budget", "hypothesis", "term", "predicted_dt_ms", "predicted_ratio", "predicted_tps",
    "measured_tps", "ratio", "ratio_low", "ratio_high", "limit_tps", "share_of_limit",
    "terms_before", "terms_after", "hit_rate", "bytes_per_token", "aa_noise", "gates", "counter",
    "quality", "lines_changed", "status", "refuted_if", "note",
]  # fmt: skip
STATUSES = ["KEEP", "DISCARD", "NULL", "CRASH", "INVALID", "REOPENED"]
TERMS = ["flash", "dense", "hits", "misses", "state", "fixed", "prompt", "memory"]
# A prediction that missed by more than this share of the predicted change was no prediction.
MISS = 0.5


def as_cell(value):
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return " ".join(str(value).split())


def read(path):
    """-> rows as dictionaries of text. A damaged ledger is an error, not an empty one."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    if not lines or lines[0].split("\t") != COLUMNS:
        raise ValueError(f"{path}: its first line does not name the columns of this ledger")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(COLUMNS):
            raise ValueError(f"{path}:{number}: {len(cells)} cells, expected {len(COLUMNS)}")
        rows.append(dict(zip(COLUMNS, cells)))
    return rows


def write(path, rows):
    partial = path + ".partial"
    with open(partial, "w", encoding="utf-8") as file:
        file.write("\t".join(COLUMNS) + "\n")
        for row in rows:
            unknown = set(row) - set(COLUMNS)
            if unknown or row["status"] not in STATUSES:
                raise ValueError(f"not a row of the ledger: {sorted(unknown) or row['status']}")
            file.write("\t".join(as_cell(row.get(column)) for column in COLUMNS) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def append(path, row):
    write(path, read(path) + [row])


def next_id(rows):
    return f"{max((int(row['id']) for row in rows), default=0) + 1:04d}"


def reopen(path, experiment):
    """Its row becomes REOPENED: the conditions under which it was decided no longer hold."""
    rows = read(path)
    for row in rows:
        if row["id"] == experiment:
            row["note"] = f"was {row['status']}; {row['note']}"
            row["status"] = "REOPENED"
            return write(path, rows)
    raise ValueError(f"{path} has no experiment {experiment}")


def is_search(row):
    """A knob was turned to see what it does: that predicts nothing."""
    return row.get("counter", "").startswith("knobs.")


def missed(row):
    """The prediction was wrong by more than half of what it predicted; None without a result."""
    if not row["ratio"] or not row["predicted_ratio"] or is_search(row):
        return None
    predicted = float(row["predicted_ratio"]) - 1
    return abs(float(row["ratio"]) - 1 - predicted) > MISS * abs(predicted)


def needs_measurement(rows, term):
    """The last two results on a term both missed: it is not understood. Measure it, then go on."""
    results = [missed(row) for row in rows if row["term"] == term]
    results = [result for result in results if result is not None]
    return results[-2:] == [True, True]


def known_noise(rows, workload):
    """A/A noise of the latest session with this workload, or None."""
    for row in reversed(rows):
        if row["workload"] == workload and row["aa_noise"]:
            return float(row["aa_noise"])
    return None
