"""Any command that thinks of experiments: a coding agent, a script.

It runs in a checkout of its own and finds, as files named by its environment,

    PENSTOCK_LAB_PROGRAM   the rules (PROGRAM.md)
    PENSTOCK_LAB_LEDGER    what was tried, and what came of it
    PENSTOCK_LAB_TERMS     where time is left, how well each term was predicted, the noise (JSON)
    PENSTOCK_LAB_WORKLOADS the names of the workloads, each with what it is for (JSON)
    PENSTOCK_LAB_PROPOSAL  to be written: a JSON object with hypothesis, term, predicted_dt_ms,
                           predicted_ratio, counter, refuted_if, workload; may have note, measurement
    PENSTOCK_LAB_PATCH     may be written: a patch; else what was changed in the checkout is it

No proposal and exit code 0: it has nothing more to propose. Its patch becomes a commit; whatever does
not get that far is a failure, which costs no row.
"""

import json
import os
import shutil

import commands
import experiment
import findings
import ledger

FIELDS = {
    "hypothesis": str,
    "term": str,
    "predicted_dt_ms": (int, float),
    "predicted_ratio": (int, float),
    "counter": str,
    "refuted_if": str,
    "workload": str,
    "note": str,
    "measurement": bool,
}
OPTIONAL = ("note", "measurement")
BYTES_MAX = 1 << 20
IDENTITY = ["-c", "user.name=lab/auto", "-c", "user.email=lab-auto@localhost"]
NO_HOOKS = ["-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false"]


class Failed(Exception):
    """No experiment came of it."""


def read_proposal(path, workloads):
    """-> the proposal, checked; None when there is none."""
    if not os.path.exists(path):
        return None
    if os.path.getsize(path) > BYTES_MAX:
        raise Failed("its proposal is larger than 1 MiB")
    try:
        with open(path, encoding="utf-8") as file:
            proposal = json.load(file)
    except (OSError, ValueError, RecursionError) as failure:
        raise Failed(f"its proposal cannot be read: {failure}")
    if not isinstance(proposal, dict):
        raise Failed("its proposal is not a JSON object")
    for name, kind in FIELDS.items():
        value = proposal.get(name)
        if value is None and name in OPTIONAL:
            continue
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        is_good = is_number if kind == (int, float) else isinstance(value, kind)
        if not is_good or (is_number and not abs(value) < 1e9):
            raise Failed(f"its proposal has no {name}, or not of its kind")
    unknown = sorted(set(proposal) - set(FIELDS))
    if unknown:
        raise Failed(f"its proposal has what it may not choose: {', '.join(unknown)}")
    if proposal["workload"] not in workloads:
        raise Failed(f"its workload \"{proposal['workload']}\" is not of this campaign")
    return proposal


class Proposer:
    def __init__(self, root, lab, state, command, timeout_s):
        self.root, self.lab, self.state = root, lab, state
        self.command, self.timeout_s = command, timeout_s
        self.tree = os.path.join(state, "proposal-tree")
        self.desk = os.path.join(state, "desk")  # what it reads and writes

    def place(self, name):
        return os.path.join(self.desk, name)

    def propose(self, base, workloads, number):
        """-> (proposal, commit), or None when there is nothing more. Raises Failed."""
        self.lay_out(workloads)
        experiment.add_tree(self.root, self.tree, base)
        try:
            self.call(os.path.join(self.state, f"propose-{number}.log"))
            proposal = read_proposal(self.place("proposal.json"), workloads)
            if proposal is None:
                return None
            return proposal, self.commit(base, proposal["hypothesis"])
        finally:
            self.clean()

    def clean(self):
        experiment.remove_tree(self.root, self.tree)
        shutil.rmtree(self.desk, ignore_errors=True)

    def lay_out(self, workloads):
        self.clean()
        os.makedirs(self.desk)
        shutil.copy(os.path.join(self.lab, "PROGRAM.md"), self.desk)
        rows = ledger.read(os.path.join(self.lab, "ledger.tsv"))
        ledger.write(self.place("ledger.tsv"), rows)
        for name, value in [
            ("terms.json", findings.ranking(rows)),
            ("workloads.json", {name: w.get("why", "") for name, w in workloads.items()}),
        ]:
            with open(self.place(name), "w", encoding="utf-8") as file:
                json.dump(value, file, indent=2)

    def call(self, log):
        places = {
            "PENSTOCK_LAB_PROGRAM": "PROGRAM.md",
            "PENSTOCK_LAB_LEDGER": "ledger.tsv",
            "PENSTOCK_LAB_TERMS": "terms.json",
            "PENSTOCK_LAB_WORKLOADS": "workloads.json",
            "PENSTOCK_LAB_PROPOSAL": "proposal.json",
            "PENSTOCK_LAB_PATCH": "change.patch",
        }
        env = {**os.environ, **{name: self.place(file) for name, file in places.items()}}
        try:
            code = commands.run_logged(self.command, log, self.tree, env, self.timeout_s)
        except commands.TimedOut as late:
            raise Failed(str(late))
        except OSError as failure:
            raise Failed(f"{self.command[0]} cannot be run: {failure.strerror}")
        if code != 0:
            raise Failed(f"{self.command[0]} ended with {code}: {os.path.basename(log)}")

    def commit(self, base, hypothesis):
        try:
            if os.path.exists(self.place("change.patch")):
                experiment.git(self.tree, "checkout", "--quiet", "--force", base)
                experiment.git(self.tree, "clean", "-dfq")
                if os.path.getsize(self.place("change.patch")) == 0:
                    raise Failed("its patch is empty")
                experiment.git(self.tree, "apply", "--index", self.place("change.patch"))
            experiment.git(self.tree, "add", "--all")
            if not experiment.git(self.tree, "diff", "--cached", "--name-only", base):
                raise Failed("its patch is empty")
            tree = experiment.git(self.tree, "write-tree")
            subject = " ".join(hypothesis.split())[:72]
            return experiment.git(
                self.tree, *IDENTITY, *NO_HOOKS, "commit-tree", tree, "-p", base,
                "-m", f"lab: {subject}", "-m", hypothesis,
            )  # fmt: skip
        except experiment.Refused as failure:
            raise Failed(f"its patch makes no commit: {failure}")
