"""The built-in source of experiments: turns one declared knob at a time, in steps of two, up the hill.

Those knobs come first whose term takes most of the workload's time. From a knob's value on this
machine the next step up is tried, then the one down; a step that is kept is gone on from. Every value
is tried once. The choice follows from what it is given alone.
"""

import findings
import ledger
import paired


def steps(knob):
    """The values next to the one it has, upwards first."""
    value, low, high = knob["value"], knob["low"], knob["high"]
    up = min(high, max(2 * value, value + 1))
    down = max(low, value // 2)
    return [step for step in (up, down) if step != value]


def by_weight(knobs, waits):
    """Those of the heaviest term first; among equals as declared."""
    ms = {name: value for name, value, _ in waits}

    def weight(knob):
        return sum(ms.get(name, 0) for name in findings.WAITS.get(knob["term"], ms))

    return sorted(knobs, key=lambda knob: -weight(knob))


def next_step(knobs, tried, waits, kind):
    """-> (knob, value), or None when every step was tried. tried: {(name, value)}"""
    for knob in by_weight(knobs, waits):
        if knob["term"] == "prompt" and kind != "prompt":
            continue
        for value in steps(knob):
            if (knob["name"], value) not in tried:
                return knob, value
    return None


def proposal_of(knob, value, workload, rows):
    """It predicts no more than the least gain that would be kept: a search, told as a measurement."""
    name = knob["name"]
    ratio = 1 + max(paired.GAIN_MIN, 2 * (ledger.known_noise(rows, workload) or 0))
    waits = findings.terms_left(rows).get(workload, [])
    total_ms = sum(ms for _, ms, _ in waits)
    return {
        "workload": workload,
        "hypothesis": f"{name} {knob['value']} -> {value}: {knob['help']}",
        "term": knob["term"],
        "predicted_dt_ms": -total_ms * (1 - 1 / ratio),
        "predicted_ratio": ratio,
        "counter": f"knobs.{name}=={value}",
        "refuted_if": "no gain above 1 % and twice the noise",
        "measurement": True,
        "knobs": {name: value},
        "knobs_before": {name: knob["value"]},
    }


class Tuner:
    def __init__(self, settings, workloads):
        self.settings, self.workloads = settings, workloads

    def propose(self, knobs, history, rows):
        """history: [(proposal, status)] of this campaign. -> a proposal, or None at the end."""
        turns = {name: 0 for name in self.workloads}
        tried = {name: set() for name in self.workloads}
        for proposal, status in history:
            for name, value in (proposal.get("knobs") or {}).items():
                workload = proposal["workload"]
                tried[workload].add((name, value))
                turns[workload] += 1
                if status == "KEEP":  # where it came from is known to be worse
                    tried[workload].add((name, proposal["knobs_before"][name]))
        left = findings.terms_left(rows)
        for workload in sorted(self.workloads, key=lambda name: turns[name]):
            kind = self.settings["workloads"][workload].get("kind", "answer")
            step = next_step(knobs, tried[workload], left.get(workload, []), kind)
            if step is not None:
                return proposal_of(*step, workload, rows)
        return None
