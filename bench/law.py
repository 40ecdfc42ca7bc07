"""What the cost model expects (penstock plan), with the rates of a machine (penstock doctor).

Python's own library only.
"""

import json
import os
import statistics
import subprocess
import sys

import report

MEMORY = 1 << 40  # a budget that holds every expert of any model


def at_this_hour(profile, disk_gbps):
    """The profile with a disk of this rate at the engine's own reads, the largest that it measured."""
    if not disk_gbps:
        return profile
    own = max(point["read_bytes"] for point in profile["flash"])
    best = max(p["gbps"] for p in profile["flash"] if p["direct"] and p["read_bytes"] == own)
    ratio = disk_gbps / best
    points = [{**p, "gbps": p["gbps"] * ratio, "p50_us": p["p50_us"] / ratio, "p99_us": p["p99_us"] / ratio}
              for p in profile["flash"]]
    bursts = [{**b, "us": b["us"] / ratio} for b in profile["bursts"]]
    return {**profile, "flash": points, "bursts": bursts}


def conditions_of(row):
    """Of a measured row, as words for `penstock plan`: what is the workload's matter."""
    # Nobody can foresee experts that a generator draws, and the engine stops trying.
    ahead = [] if row["routing"] == "model" else ["--prefetch", "off"]
    return ["--hits", f"{row['hit_rate']:.6f}", *ahead]


class Law:
    """Asks `penstock plan` about one machine: that of a given profile, or this one."""

    def __init__(self, penstock, folder, profile_path=""):
        self.penstock, self.folder = penstock, folder
        self.profile = json.loads(report.read(profile_path)) if profile_path else None

    def measure_machine(self, model):
        """Once, with the disk where this model lies."""
        if self.profile is None:
            path = os.path.join(self.folder, "profile.json")
            report.run([self.penstock, "doctor", model, "--machine", path], stdout=sys.stderr)
            self.profile = json.loads(report.read(path))

    def plan(self, model, *words, disk_gbps=0):
        """-> {"forecast": {...}, "rates": {...}, ...}"""
        path = os.path.join(self.folder, "profile-now.json")
        report.write_json(path, at_this_hour(self.profile, disk_gbps))
        command = [self.penstock, "plan", model, "--machine", path, "--json", "--quiet", *words]
        done = subprocess.run([str(c) for c in command], check=True, text=True, stdout=subprocess.PIPE)
        return list(report.records_in(done.stdout))[-1]

    def of_token(self, model, row, *words):
        """Of the decoded tokens of a row of `penstock bench`, at the hit rate that it measured."""
        # The plan looks at half of its context; the answer's tokens lie around this position.
        position = row["n_depth"] + 1 + row["n_gen"] // 2
        return self.plan(model, "--memory", MEMORY, "--context", 2 * position, *conditions_of(row),
                         *words, disk_gbps=row["disk_gbps"])

    def of_prompt(self, model, row):
        """-> tokens per second that neither the disk nor the products let a prompt exceed."""
        words = ["--memory", MEMORY, "--hits", 1, "--context", row["n_depth"] + row["n_prompt"] + 64,
                 "--prompt-length", row["n_prompt"], "--flash-gbps", 10000]  # fmt: skip
        computing = self.plan(model, *words)["forecast"]["prompt_tps"]
        reading = row["bytes_per_token"] / (row["disk_gbps"] * 1e9) if row["disk_gbps"] else 0
        return 1 / max(1 / computing, reading)

    def threads_ms(self, one_thread_ms, plan, threads):
        """All threads share the memory: the longer of the work of one over their number, and of the
        bytes that a token touches over what so many threads read."""
        touched = plan["rates"]["memory_gbps"] / plan["forecast"]["limit_tps"]  # GB, all in memory
        return max(one_thread_ms / threads, 1000 * touched / memory_gbps(self.profile, threads))


def memory_gbps(profile, threads):
    """What so many threads read together: measured, or on the straight line between measured ones."""
    points = sorted((p["threads"], p["read_gbps"]) for p in profile["memory"])
    below = [p for p in points if p[0] <= threads] or points[:1]
    above = [p for p in points if p[0] >= threads] or points[-1:]
    (n0, b0), (n1, b1) = below[-1], above[0]
    return b0 if n1 == n0 else b0 + (b1 - b0) * (threads - n0) / (n1 - n0)


def straight_line(points):
    """Least squares -> (intercept, slope); of a single place the mean and None."""
    xs, ys = zip(*points)
    if len(set(xs)) < 2:
        return statistics.mean(ys), None
    slope, intercept = statistics.linear_regression(xs, ys)
    return intercept, slope
