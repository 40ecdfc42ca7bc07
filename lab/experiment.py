"""One experiment, from a written prediction to a row of the ledger. Used by lab/try.

Order, cheap to costly: proposal, rules, builds, gates, proof that the change ran, measurement.
"""

import csv
import datetime
import hashlib
import json
import os
import re
import statistics
import subprocess

import ledger
import paired

# What an experiment may not change: what it is judged by.
JUDGES = ["lab/", "bench/", "tests/gates/", "tests/golden/", "tests/data/", "tests/support/"]
COUNTER = re.compile(r"^([\w.]+)\s*(>=|<=|>|<|==|!=)\s*(-?[\d.]+)$")
COMPARE = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


class Refused(Exception):
    """The experiment may not run: nothing is written to the ledger."""


class Ended(Exception):
    """The experiment is over before a measurement; the row says why."""

    def __init__(self, status, note):
        super().__init__(note)
        self.status, self.note = status, note


def git(root, *arguments):
    done = subprocess.run(
        ["git", "-C", root, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Refused(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def check_proposal(proposal, rows):
    """What has to be written down before anything runs."""
    for name, what in [
        ("hypothesis", "a hypothesis: what will be faster, and why"),
        ("refuted_if", "a result that would refute it"),
        ("counter", "a counter that shows that the change ran, such as store.prefetches>0"),
    ]:
        if not str(proposal.get(name) or "").strip():
            raise Refused(f"an experiment needs {what} (--{name.replace('_', '-')})")
    if proposal.get("term") not in ledger.TERMS:
        raise Refused(f"an experiment attacks one term (--term): {', '.join(ledger.TERMS)}")
    ratio = proposal.get("predicted_ratio")
    if ratio is None or proposal.get("predicted_dt_ms") is None:
        raise Refused(
            "an experiment needs its prediction, from the cost model (penstock plan): "
            "--predict-ms, the change of the term, and --predict-ratio, of the speed"
        )
    if not COUNTER.match(proposal["counter"]):
        raise Refused(f"--counter: \"{proposal['counter']}\" is not like store.prefetches>0")
    if proposal.get("measurement"):
        return
    if ledger.needs_measurement(rows, proposal["term"]):
        raise Refused(
            f"the last two predictions on the term \"{proposal['term']}\" missed: it is not "
            "understood; measure it first (--measurement)"
        )
    noise = ledger.known_noise(rows, proposal["workload"])
    if noise is not None and abs(ratio - 1) < noise:
        raise Refused(
            f"the predicted change of {abs(ratio - 1):.1%} is below the noise of this workload "
            f"({noise:.1%}): it could not be told from nothing"
        )


def changed_judges(root, base, candidate):
    names = git(root, "diff", "--name-only", base, candidate).splitlines()
    return [name for name in names if name.startswith(tuple(JUDGES))]


def lines_changed(root, base, candidate):
    total = 0
    for line in git(root, "diff", "--numstat", base, candidate).splitlines():
        added, removed, _ = line.split("\t", 2)
        total += sum(int(n) for n in (added, removed) if n.isdigit())
    return total


def fill(command, places):
    return [part.format_map(places) for part in command]


def run_logged(command, log, cwd=None):
    """-> exit code; everything it prints goes to the log."""
    with open(log, "ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        return subprocess.run(command, stdout=file, stderr=file, cwd=cwd, check=False).returncode


def value_at(row, path):
    """"store.hits" in nested objects; None when absent."""
    for key in path.split("."):
        if not isinstance(row, dict) or key not in row:
            return None
        row = row[key]
    return row


def rows_of(text):
    """The JSON objects among the lines that a program printed."""
    rows = []
    for line in text.splitlines():
        if line.lstrip().startswith("{"):
            rows.append(json.loads(line))
    return rows


def select(rows, wanted):
    for row in rows:
        if all(value_at(row, key) == value for key, value in wanted.items()):
            return row
    return None


def counter_moved(counter, base_row, candidate_row):
    """True when the condition holds for the candidate and not in the same way for the base."""
    name, sign, number = COUNTER.match(counter).groups()
    after, before = value_at(candidate_row, name), value_at(base_row, name)
    if not isinstance(after, (int, float)):
        return False
    holds = COMPARE[sign](after, float(number))
    return holds and (not isinstance(before, (int, float)) or before != after)


class Experiment:
    def __init__(self, root, lab, settings, proposal, say=print):
        self.root, self.lab, self.settings, self.proposal, self.say = (
            root, lab, settings, proposal, say,
        )  # fmt: skip
        self.ledger = os.path.join(lab, "ledger.tsv")
        self.rows = ledger.read(self.ledger)
        self.id = ledger.next_id(self.rows)
        self.workload = settings["workloads"].get(proposal.get("workload"))
        self.folder = os.path.join(lab, "runs", self.id)

    def run(self):
        """-> the row that was written."""
        if self.workload is None:
            known = ", ".join(sorted(self.settings["workloads"]))
            raise Refused(f"no workload \"{self.proposal.get('workload')}\"; there are: {known}")
        check_proposal(self.proposal, self.rows)
        base = git(self.root, "rev-parse", self.proposal["base"] + "^{commit}")
        candidate = git(self.root, "rev-parse", self.proposal["candidate"] + "^{commit}")
        if base == candidate:
            raise Refused("base and candidate are the same commit")
        if self.proposal.get("reopens"):
            ledger.reopen(self.ledger, self.proposal["reopens"])
            self.rows = ledger.read(self.ledger)
        os.makedirs(self.folder)
        row = self.first_row(base, candidate)
        try:
            judges = changed_judges(self.root, base, candidate)
            if judges:
                raise Ended("INVALID", f"changes what it is judged by: {', '.join(judges)}")
            builds = [self.build(commit) for commit in (base, candidate)]
            self.gates(candidate, builds[1], row)
            self.measure(builds, row)
        except Ended as end:
            row.update(status=end.status, note=end.note)
        ledger.append(self.ledger, row)
        self.keep("row.json", json.dumps(row, indent=2) + "\n")
        return row

    def first_row(self, base, candidate):
        proposal = self.proposal
        self.keep("proposal.json", json.dumps(proposal, indent=2) + "\n")
        return {
            "id": self.id,
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "parent_commit": base[:12],
            "commit": candidate[:12],
            "machine_profile": self.profile_hash(),
            "mode": proposal.get("mode") or "exact",
            "workload": proposal["workload"],
            "hypothesis": proposal["hypothesis"],
            "term": proposal["term"],
            "predicted_dt_ms": proposal["predicted_dt_ms"],
            "predicted_ratio": proposal["predicted_ratio"],
            "counter": proposal["counter"],
            "lines_changed": lines_changed(self.root, base, candidate),
            "refuted_if": proposal["refuted_if"],
            "note": proposal.get("note") or "",
            "status": "CRASH",
        }

    def profile_hash(self):
        path = self.settings.get("machine_profile") or ""
        path = os.path.expanduser(os.path.expandvars(path))
        if not os.path.isfile(path):
            return "none"
        with open(path, "rb") as file:
            data = file.read()
        self.keep("profile.json", data.decode())
        return hashlib.sha256(data).hexdigest()[:12]

    def keep(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    def places(self, build=None, tree=None):
        return {
            "root": self.root,
            "build": build or "",
            "source": tree or "",
            "models": os.path.join(self.root, "build"),
        }

    def build(self, commit):
        """-> the build folder of a commit; made once, kept."""
        name = commit[:12]
        tree = os.path.join(self.root, "build", "lab", "trees", name)
        build = os.path.join(self.root, "build", "lab", "builds", name)
        log = os.path.join(self.folder, f"build-{name}.log")
        if not os.path.isdir(tree):
            git(self.root, "worktree", "add", "--detach", tree, commit)
        for command in self.settings["build"]:
            self.say(f"building {name}")
            if run_logged(fill(command, self.places(build, tree)), log, cwd=tree) != 0:
                raise Ended("CRASH", f"{name} does not build: {os.path.relpath(log, self.lab)}")
        return build

    def gates(self, candidate, build, row):
        self.say("gates: is the output still the same?")
        log = os.path.join(self.folder, "gates.log")
        for command in self.settings["gates"]:
            if run_logged(fill(command, self.places(build)), log) != 0:
                row["gates"] = "failed"
                raise Ended("DISCARD", f"{candidate[:12]} fails the gates: runs/{self.id}/gates.log")
        row["gates"] = "passed"

    def sample(self, build):
        """One run of the workload -> its row of figures."""
        command = fill(self.workload["command"], self.places(build))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with open(os.path.join(self.folder, "output.log"), "a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}")
        if done.returncode != 0:
            raise Ended("CRASH", f"the workload ended with {done.returncode}: output.log")
        found = select(rows_of(done.stdout), self.workload.get("select", {}))
        if found is None or not isinstance(value_at(found, self.workload["rate"]), (int, float)):
            raise Ended("INVALID", f"the workload printed no {self.workload['rate']}")
        return found

    def measure(self, builds, row):
        base_row, candidate_row = (self.sample(build) for build in builds)  # also warms both up
        same = self.workload.get("same")
        is_exact = row["mode"] == "exact"
        if is_exact and same and value_at(base_row, same) != value_at(candidate_row, same):
            raise Ended("DISCARD", f"another {same}: it does not compute the same")
        if not counter_moved(self.proposal["counter"], base_row, candidate_row):
            raise Ended("INVALID", f"{self.proposal['counter']} did not move: the change did not run")
        blocks, samples = [], []
        for number in range(self.proposal.get("blocks") or 4):
            self.say(f"block {number + 1}: {paired.BLOCK}")
            rates = []
            for letter in paired.BLOCK:
                figures = self.sample(builds["AB".index(letter)])
                rate = float(value_at(figures, self.workload["rate"]))
                if rate <= 0:
                    raise Ended("INVALID", f"a run reported {rate} for {self.workload['rate']}")
                rates.append(rate)
                samples.append((number, letter, rate))
                base_row, candidate_row = (
                    (figures, candidate_row) if letter == "A" else (base_row, figures)
                )
            blocks.append(rates)
        with open(os.path.join(self.folder, "samples.csv"), "w", newline="") as file:
            csv.writer(file).writerows([("block", "program", "rate"), *samples])
        self.judge(blocks, base_row, candidate_row, row)
        self.compare_with_limit(builds[1], candidate_row, row)

    def judge(self, blocks, base_row, candidate_row, row):
        ratios, same = paired.ratios_of(blocks)
        ratio, low, high = paired.median_interval(ratios)
        noise = paired.noise_of(same)
        base_rate = statistics.median(rate for block in blocks for rate in (block[0], block[3]))
        row.update(
            status=paired.verdict(ratio, low, high, noise),
            ratio=ratio,
            ratio_low=low,
            ratio_high=high,
            aa_noise=noise,
            measured_tps=statistics.median(rate for block in blocks for rate in block[1:3]),
            predicted_tps=base_rate * self.proposal["predicted_ratio"],
        )
        for column, key in self.workload.get("columns", {}).items():
            row[column] = value_at(candidate_row, key)
        terms = self.workload.get("terms")
        if terms:
            row["terms_before"] = value_at(base_row, terms)
            row["terms_after"] = value_at(candidate_row, terms)

    def compare_with_limit(self, build, figures, row):
        """Share of the cost model's limit at the measured hit rate, where the workload says how."""
        limit = self.workload.get("limit")
        if not limit:
            return
        places = {**self.places(build), **{k: v for k, v in figures.items() if v is not None}}
        done = subprocess.run(fill(limit["command"], places), capture_output=True, text=True)
        found = rows_of(done.stdout)
        value = value_at(found[-1], limit["key"]) if found else None
        if isinstance(value, (int, float)) and value > 0:
            row["limit_tps"] = value
            row["share_of_limit"] = row["measured_tps"] / value
