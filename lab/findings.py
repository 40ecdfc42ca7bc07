"""What the rows of the ledger say together: where time is left, what was predicted well, what was
learnt. Read by lab/report, lab/auto and whoever proposes experiments.
"""

import json

import ledger

# Which waits of a token belong to a term of the cost model.
WAITS = {
    "flash": ["expert_wait", "prefetch"],
    "misses": ["expert_wait"],
    "hits": ["experts"],
    "dense": ["mixer", "head", "router", "shared_expert"],
    "fixed": ["unaccounted", "sampling"],
}


def terms_left(rows):
    """-> {workload: [(wait, ms, share of all)]}, largest first, from the latest rows that have them."""
    latest = {}
    for row in rows:
        if row["terms_after"] and row["status"] in ("KEEP", "NULL", "DISCARD"):
            column = "terms_after" if row["status"] == "KEEP" else "terms_before"
            latest[row["workload"]] = json.loads(row[column] or "{}")
    left = {}
    for workload, terms in latest.items():
        values = {k: v for k, v in terms.items() if isinstance(v, (int, float)) and k != "wall"}
        total = sum(values.values()) or 1
        ranked = sorted(values.items(), key=lambda item: -item[1])
        left[workload] = [(name, value, value / total) for name, value in ranked]
    return left


def prediction_record(rows):
    """-> {term: (results, missed)}: how far the model is to be believed."""
    record = {}
    for row in rows:
        result = ledger.missed(row)
        if result is not None:
            results, missed = record.get(row["term"], (0, 0))
            record[row["term"]] = (results + 1, missed + result)
    return record


def total_gains(rows):
    """-> {workload: (kept rows, product of their ratios)}"""
    gains = {}
    for row in rows:
        if row["status"] == "KEEP" and row["ratio"]:
            count, product = gains.get(row["workload"], (0, 1.0))
            gains[row["workload"]] = (count + 1, product * float(row["ratio"]))
    return gains


def told(row):
    """One row in a line: what was tried, and what came of it."""
    figures = ""
    if row["ratio"]:
        figures = f" {float(row['ratio']):.3f}"
        figures += f" [{float(row['ratio_low'] or 0):.3f}, {float(row['ratio_high'] or 0):.3f}]"
        figures += f", noise {float(row['aa_noise'] or 0):.3f}"
    return f"{row['id']} {row['status']:<8} {row['workload']}: {row['hypothesis']}{figures}"


def ranking(rows):
    """For those who propose: everything above as one object."""
    return {
        "terms_left": {
            workload: [{"wait": name, "ms": ms, "share": share} for name, ms, share in terms]
            for workload, terms in terms_left(rows).items()
        },
        "predictions": {
            term: {"results": results, "missed": missed}
            for term, (results, missed) in prediction_record(rows).items()
        },
        "kept": {
            workload: {"rows": count, "ratio": ratio}
            for workload, (count, ratio) in total_gains(rows).items()
        },
        "noise": {w: ledger.known_noise(rows, w) for w in sorted({row["workload"] for row in rows})},
    }
