"""One experiment, from a written prediction to a row of the ledger. Used by lab/try.

Order, cheap to costly: proposal, rules, builds, gates, proof that the change ran, measurement, and
where that is a win: workloads drawn anew, which nobody could have aimed at.

What is compared are two commits, or one commit with knobs turned (--knob) and without.
"""

import csv
import datetime
import hashlib
import json
import os
import random
import re
import shutil
import statistics
import string
import subprocess

import commands
import ledger
import paired

# What an experiment may not change: what it is judged by.
JUDGES = ["lab/", "bench/", "tests/gates/", "tests/golden/", "tests/data/", "tests/support/"]
# What a program that proposes patches may not change either: nobody looks at them before they run.
JUDGES_OF_PROGRAMS = [*JUDGES, "tests/", "scripts/", "demo/"]
HOLDOUT_BLOCKS = 3
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


def changed_judges(root, base, candidate, judges):
    """A file that was moved away counts as changed."""
    names = git(root, "diff", "--name-only", "--no-renames", "-z", base, candidate).split("\0")
    return [name for name in names if name.startswith(tuple(judges))]


def lines_changed(root, base, candidate):
    total = 0
    for line in git(root, "diff", "--numstat", base, candidate).splitlines():
        added, removed, _ = line.split("\t", 2)
        total += sum(int(n) for n in (added, removed) if n.isdigit())
    return total


def fill(command, places):
    return [part.format_map(places) for part in command]


def profile_path(settings):
    """Where penstock keeps what it knows of this machine; empty when the settings do not say."""
    home = os.path.expanduser("~")
    places = {"HOME": home, "XDG_STATE_HOME": os.path.join(home, ".local/state"), **os.environ}
    return string.Template(settings.get("machine_profile") or "").safe_substitute(places)


def state_of_machine():
    """For the note of a row: what else ran, and the memory there was."""
    text = f"load {os.getloadavg()[0]:.1f}"
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            kib = dict(line.split()[:2] for line in file)["MemAvailable:"]
        return f"{text}, {int(kib) / 2**20:.1f} GiB free"
    except (OSError, KeyError, ValueError):
        return text


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


def add_tree(root, tree, commit):
    """A checkout of the commit at `tree`, whatever an earlier run left there."""
    if os.path.isdir(tree):
        try:
            top = git(tree, "rev-parse", "--show-toplevel")  # of a half-made one: the root
            is_whole = os.path.samefile(top, tree) and git(tree, "rev-parse", "HEAD") == commit
            if is_whole and not git(tree, "status", "--porcelain", "--untracked-files=no"):
                return
        except Refused:
            pass
    remove_tree(root, tree)
    git(root, "worktree", "add", "--force", "--detach", tree, commit)


def remove_tree(root, tree):
    shutil.rmtree(tree, ignore_errors=True)
    git(root, "worktree", "prune")


class Experiment:
    def __init__(self, root, lab, settings, proposal, say=print):
        self.root, self.lab, self.settings, self.proposal, self.say = (
            root, lab, settings, proposal, say,
        )  # fmt: skip
        self.limit_s = settings.get("limit_s", 3600)  # of each build, gate and run
        self.ledger = os.path.join(lab, "ledger.tsv")
        self.rows = ledger.read(self.ledger)
        self.id = ""
        self.workload = settings["workloads"].get(proposal.get("workload"))
        self.folder = ""

    def run(self, on_begin=lambda number: None):
        """-> the row that was written. `on_begin` is told its number before anything runs."""
        if self.workload is None:
            known = ", ".join(sorted(self.settings["workloads"]))
            raise Refused(f"no workload \"{self.proposal.get('workload')}\"; there are: {known}")
        check_proposal(self.proposal, self.rows)
        base = git(self.root, "rev-parse", self.proposal["base"] + "^{commit}")
        candidate = git(self.root, "rev-parse", self.proposal["candidate"] + "^{commit}")
        if base == candidate and not self.proposal.get("knobs"):
            raise Refused("base and candidate are the same commit, and no knob is turned")
        if self.proposal.get("reopens"):
            ledger.reopen(self.ledger, self.proposal["reopens"])
            self.rows = ledger.read(self.ledger)
        self.take_number()
        on_begin(self.id)
        row = self.first_row(base, candidate)
        try:
            is_program = self.proposal.get("by_program")
            forbidden = JUDGES_OF_PROGRAMS if is_program else JUDGES
            judges = changed_judges(self.root, base, candidate, forbidden)
            if judges:
                raise Ended("INVALID", f"changes what it is judged by: {', '.join(judges)}")
            builds = [self.build(commit) for commit in (base, candidate)]
            self.gates(candidate, builds[1], row)
            self.measure(builds, row)
            self.check_holdouts(builds, row)
        except Ended as end:
            row.update(status=end.status, note=self.note(end.note))
        ledger.append(self.ledger, row)
        self.keep("row.json", json.dumps(row, indent=2) + "\n")
        return row

    def take_number(self):
        """The first that neither the ledger nor a run at work has."""
        number = int(ledger.next_id(self.rows))
        while True:
            self.id = f"{number:04d}"
            self.folder = os.path.join(self.lab, "runs", self.id)
            try:
                return os.makedirs(self.folder)
            except FileExistsError:
                number += 1

    def note(self, *more):
        given = self.proposal.get("note") or ""
        return "; ".join(text for text in (given, self.state, *more) if text)

    def first_row(self, base, candidate):
        self.state = state_of_machine()
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
            "note": self.note(),
            "status": "CRASH",
        }

    def profile_hash(self):
        path = profile_path(self.settings)
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

    def call(self, command, log, cwd=None):
        """-> exit code"""
        try:
            return commands.run_logged(command, log, cwd, timeout_s=self.limit_s)
        except commands.TimedOut as late:
            raise Ended("CRASH", f"{late}: {os.path.relpath(log, self.lab)}")

    def build(self, commit):
        """-> the build folder of a commit; made once, kept."""
        name = commit[:12]
        tree = os.path.join(self.root, "build", "lab", "trees", name)
        folder = self.settings.get("build_folder", "{root}/build/lab/builds/{name}")
        build = folder.format(root=self.root, source=tree, name=name)
        stamp = os.path.join(build, "built.stamp")
        if os.path.exists(stamp):
            return build
        add_tree(self.root, tree, commit)
        log = os.path.join(self.folder, f"build-{name}.log")
        for command in self.settings["build"]:
            self.say(f"building {name}")
            if self.call(fill(command, self.places(build, tree)), log, tree) != 0:
                raise Ended("CRASH", f"{name} does not build: {os.path.relpath(log, self.lab)}")
        with open(stamp, "w", encoding="ascii"):
            return build

    def gates(self, candidate, build, row):
        """They judge a commit (with every value of every knob); once is enough."""
        stamp = os.path.join(build, "gates.stamp")
        if os.path.exists(stamp):
            row["gates"] = "passed"
            return
        self.say("gates: is the output still the same?")
        log = os.path.join(self.folder, "gates.log")
        for command in self.settings["gates"]:
            if self.call(fill(command, self.places(build)), log) != 0:
                row["gates"] = "failed"
                raise Ended("DISCARD", f"{candidate[:12]} fails the gates: runs/{self.id}/gates.log")
        row["gates"] = "passed"
        with open(stamp, "w", encoding="ascii"):
            pass

    def sample(self, arm, workload, draws=None):
        """One run of a workload -> its row of figures. An arm is a build, and the knobs turned."""
        build, knobs = arm
        command = fill(workload["command"], {**self.places(build), **(draws or {})})
        if knobs:
            command += ["--knob", ",".join(f"{name}={value}" for name, value in knobs.items())]
        try:
            code, text = commands.run_and_read(command, timeout_s=self.limit_s)
        except commands.TimedOut as late:
            raise Ended("CRASH", f"the workload hangs: {late}")
        with open(os.path.join(self.folder, "output.log"), "a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n{text}")
        if code != 0:
            raise Ended("CRASH", f"the workload ended with {code}: output.log")
        found = select(rows_of(text), workload.get("select", {}))
        rate = None if found is None else value_at(found, workload["rate"])
        if not isinstance(rate, (int, float)):
            raise Ended("INVALID", f"the workload printed no {workload['rate']}")
        if rate <= 0:
            raise Ended("INVALID", f"a run reported {rate} for {workload['rate']}")
        return found

    def measure(self, builds, row):
        arms = ((builds[0], {}), (builds[1], self.proposal.get("knobs") or {}))
        base_row, candidate_row = (self.sample(arm, self.workload) for arm in arms)  # warms up, too
        self.check_same(self.workload, base_row, candidate_row, row)
        if not counter_moved(self.proposal["counter"], base_row, candidate_row):
            raise Ended("INVALID", f"{self.proposal['counter']} did not move: the change did not run")
        blocks, (base_row, candidate_row) = self.measure_blocks(
            arms, self.workload, self.proposal.get("blocks") or 4, row, "samples.csv"
        )
        self.judge(blocks, base_row, candidate_row, row)
        self.compare_with_limit(builds[1], candidate_row, row)

    def check_same(self, workload, base_row, candidate_row, row):
        same = workload.get("same")
        is_exact = row["mode"] == "exact"
        if is_exact and same and value_at(base_row, same) != value_at(candidate_row, same):
            raise Ended("DISCARD", f"another {same}: it does not compute the same")

    def measure_blocks(self, arms, workload, count, row, name, draws=None):
        """-> ([[rate of A, of B, of B, of A]], the latest figures of A and of B)"""
        blocks, samples, latest = [], [], {}
        for number in range(count):
            self.say(f"block {number + 1}: {paired.BLOCK}")
            rates = []
            for letter in paired.BLOCK:
                latest[letter] = self.sample(arms["AB".index(letter)], workload, draws)
                rates.append(float(value_at(latest[letter], workload["rate"])))
                samples.append((number, letter, rates[-1]))
                if len(latest) == 2:
                    self.check_same(workload, latest["A"], latest["B"], row)
            blocks.append(rates)
        with open(os.path.join(self.folder, name), "w", newline="") as file:
            csv.writer(file).writerows([("block", "program", "rate"), *samples])
        return blocks, (latest["A"], latest["B"])

    def check_holdouts(self, builds, row):
        """A win must cost nothing where nobody looked when it was thought of. What is drawn stays in
        the run's folder; who proposes sees no more than that it failed."""
        if row["status"] != "KEEP":
            return
        arms = ((builds[0], {}), (builds[1], self.proposal.get("knobs") or {}))
        draw = random.Random(self.proposal.get("holdout_seed"))  # without one: as the system likes
        drawn, told = {}, []
        for name, workload in self.settings.get("holdouts", {}).items():
            draws = {key: draw.randint(*ends) for key, ends in workload.get("draw", {}).items()}
            drawn[name] = draws
            self.keep("holdouts.json", json.dumps(drawn, indent=2) + "\n")
            self.say(f"hold-out {name}")
            try:
                blocks, _ = self.measure_blocks(
                    arms, workload, HOLDOUT_BLOCKS, row, f"holdout-{name}.csv", draws
                )
            except Ended as end:
                status = "DISCARD" if end.status == "CRASH" else end.status
                raise Ended(status, f"hold-out {name}: {end.note}")
            ratios, same = paired.ratios_of(blocks)
            ratio, low, high = paired.median_interval(ratios)
            if paired.verdict(ratio, low, high, paired.noise_of(same)) == "DISCARD":
                raise Ended("DISCARD", f"hold-out {name}: {ratio:.3f} times the base's speed")
            told.append(f"{name} {ratio:.3f} [{low:.3f}, {high:.3f}]")
        if told:
            row["note"] = self.note("hold-outs: " + ", ".join(told))

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
        _, text = commands.run_and_read(fill(limit["command"], places), timeout_s=self.limit_s)
        found = rows_of(text)
        value = value_at(found[-1], limit["key"]) if found else None
        if isinstance(value, (int, float)) and value > 0:
            row["limit_tps"] = value
            row["share_of_limit"] = row["measured_tps"] / value
