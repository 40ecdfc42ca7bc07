"""The table of bench/peers from its measurements: medians and spread by cap and engine."""

import statistics

from report import GIB, MIB


def cap_name(cap_bytes):
    if not cap_bytes:
        return "none"
    if cap_bytes % GIB == 0:
        return f"{cap_bytes // GIB} GiB"
    return f"{cap_bytes / MIB:,.0f} MiB"


def spread(values):
    if not values:
        return ""
    text = f"{statistics.median(values):.2f}"
    return text if len(values) == 1 else f"{text} ({min(values):.2f}–{max(values):.2f})"


def table(rows):
    """One line for each engine at each cap: no cap first, then from large to small."""
    lines = ["| memory cap | engine | decode tok/s | prefill tok/s | first token | read per token "
             "| peak memory |", "|---:|---|---:|---:|---:|---:|---:|"]
    caps = sorted({row["cap_bytes"] for row in rows}, key=lambda cap: (cap != 0, -cap))
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    for cap in caps:
        for engine in engines:
            here = [r for r in rows if r["cap_bytes"] == cap and r["engine"] == engine]
            if here:
                lines.append(table_line(cap, engine, here))
    return "\n".join(lines)


def table_line(cap, engine, rows):
    def of(test, key):
        return [row[key] for row in rows if row["test"] == test and key in row]

    def cell(test, key, unit=""):
        if any(row["test"] == test for row in rows) and not of(test, key):
            return "none"
        text = spread(of(test, key))
        return text + unit if text else ""

    reads = of("decode", "read_per_token")
    read_text = f"{statistics.median(reads) / 1e6:.0f} MB" if reads else ""
    peak = max(row["peak_bytes"] for row in rows)
    return (f"| {cap_name(cap)} | {engine} | {cell('decode', 'tok_s')} "
            f"| {cell('prefill', 'tok_s')} | {cell('first token', 'first_token_s', ' s')} "
            f"| {read_text} | {f'{peak / MIB:,.0f} MiB' if peak else 'unknown'} |")


def notes_of(rows):
    return "\n".join(dict.fromkeys(
        f"- {row['engine']}, cap {cap_name(row['cap_bytes'])}, {row['test']}: {row['note']}"
        for row in rows if row["note"]))
