"""A campaign of experiments that runs by itself: proposes, tries, keeps or drops, until its budget is
spent or nobody has anything more to propose.

What is kept becomes the base of what follows: a commit goes on the branch lab/NAME (never on another),
a knob into this machine's profile. Every commit that got a row stays findable as refs/lab/NUMBER.

    propose -> (journal: proposed) -> take a number -> (journal: began) -> lab/try's experiment, which
    writes the row -> keep or drop -> (journal: ended)

Every step can be done again without harm, and the journal says which was the last: killed at any
point, the campaign goes on where it was, with no row twice and none lost.
"""

import hashlib
import os
import shutil
import time

import experiment
import findings
import journal
import knobs
import ledger
import proposer

LOOK_S = 10  # between two looks at the machine's load
FAILURES_MAX = 3  # in a row, of proposals; then something is wrong with who makes them


class Stopped(Exception):
    """Something that a person has to look at."""


def digest_of(lab):
    """Of everything in lab/ but the runs: what judges, and the rows."""
    sums = {}
    for folder, folders, files in os.walk(lab):
        folders[:] = sorted(name for name in folders if name not in ("runs", "__pycache__"))
        for name in sorted(files):
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                sums[os.path.relpath(path, lab)] = hashlib.sha256(file.read()).hexdigest()
    return sums


class Campaign:
    def __init__(self, root, lab, settings, options, sources, say):
        """sources: {"tuner": Tuner, "command": Proposer}, one or both. say(event, **facts): progress."""
        self.root, self.lab, self.settings, self.options = root, lab, settings, options
        self.sources, self.say = sources, say
        self.state = os.path.join(root, "build", "lab", "auto", options["name"])
        self.journal = journal.Journal(os.path.join(self.state, "journal.jsonl"))
        self.branch = f"refs/heads/lab/{options['name']}"
        self.workloads = {name: settings["workloads"][name] for name in options["workloads"]}
        self.began = time.monotonic()
        self.earlier = len(self.journal.events)  # those of calls before this one

    # --- what there is

    def rows(self):
        return ledger.read(os.path.join(self.lab, "ledger.tsv"))

    def base(self):
        return experiment.git(self.root, "rev-parse", "--verify", self.branch + "^{commit}")

    def seconds(self):
        spent = sum(event.get("seconds", 0) for event in self.journal.events[: self.earlier])
        return spent + time.monotonic() - self.began

    def budget_is_spent(self):
        rows, hours = self.options.get("rows"), self.options.get("hours")
        done = len(self.journal.of("ended"))
        if rows is not None and done >= rows:
            return f"{done} rows are written"
        if hours is not None and self.seconds() >= hours * 3600:
            return f"{hours:g} hours are over"
        return None

    def wait_for_quiet(self):
        """What is measured beside other work says nothing. -> why it gave up, or None"""
        most, is_told = self.options.get("load_max"), False
        while most is not None and os.getloadavg()[0] > most:
            if self.budget_is_spent():
                return self.budget_is_spent()
            if not is_told:
                self.say("waits", load=round(os.getloadavg()[0], 1), load_max=most)
                is_told = True
            hours = self.options.get("hours")
            left = LOOK_S if hours is None else hours * 3600 - self.seconds()
            time.sleep(min(LOOK_S, max(0, left)))
        return None

    def failures_in_a_row(self):
        count = 0
        for event in self.journal.events[self.earlier :]:
            count = {"ended": 0, "failed": count + 1}.get(event["event"], count)
        return count

    def history(self):
        """[(proposal, status)] of what ended, also of what was refused before it had a row."""
        proposals = {event["number"]: event["proposal"] for event in self.journal.of("proposed")}
        return [
            (proposals[event["number"]], event.get("status", "FAILED"))
            for event in self.journal.of("ended", "failed")
            if event["number"] in proposals
        ]

    # --- the loop

    def run(self):
        """-> why it ended"""
        self.begin()
        try:
            pending, number = self.journal.pending()
            if pending is not None:
                self.say("resumed", number=pending["number"], id=number)
                self.finish(pending, number)
            while True:
                why = self.wait_for_quiet() or self.budget_is_spent()
                if why is None and self.failures_in_a_row() >= FAILURES_MAX:
                    raise Stopped(
                        f"{FAILURES_MAX} proposals in a row came to nothing: "
                        + self.journal.of("failed")[-1]["why"]
                    )
                if why is None and not self.step():
                    why = "there is nothing more to try"
                if why is not None:
                    self.journal.add("stopped", why=why)
                    return why
        finally:
            self.clean()

    def begin(self):
        if not self.journal.of("campaign"):
            base = experiment.git(
                self.root, "rev-parse", "--verify", self.options["base"] + "^{commit}"
            )
            found = experiment.git(self.root, "for-each-ref", "--format=%(objectname)", self.branch)
            if found not in ("", base):
                raise experiment.Refused(
                    f"{self.branch} is there, of a campaign without a journal: remove it once it is "
                    "merged, or give another --name"
                )
            experiment.git(self.root, "update-ref", self.branch, base)
            self.journal.add("campaign", base=base, workloads=list(self.workloads))
            return
        rows = len(self.journal.of("ended"))
        self.say("goes on", rows=rows, branch=self.branch, commit=self.base()[:12])

    def step(self):
        """One proposal and what became of it. False when no source has any left."""
        number = len(self.journal.of("proposed", "failed")) + 1
        began = time.monotonic()
        for source in self.sources_in_turn():
            try:
                proposed = self.propose(source, number)
            except (proposer.Failed, knobs.Unknown) as failure:
                self.fail(number, failure, began)
                return True
            if proposed is None:
                continue
            proposal, commit = proposed
            event = self.journal.add(
                "proposed", number=number, source=source, proposal=proposal, commit=commit,
                base=self.base(),
            )  # fmt: skip
            self.say("proposed", number=number, source=source, hypothesis=proposal["hypothesis"])
            self.finish(event, None, began)
            return True
        return False

    def sources_in_turn(self):
        """Whose turn it is comes first."""
        names = list(self.sources)
        first = len(self.journal.of("proposed")) % len(names)
        return names[first:] + names[:first]

    def propose(self, source, number):
        """-> (proposal, commit), or None"""
        base = self.base()
        if source == "tuner":
            known = knobs.declared(self.knob_command(base))
            proposal = self.sources[source].propose(known, self.history(), self.rows())
            return None if proposal is None else (proposal, base)
        before = digest_of(self.lab), base
        try:
            return self.sources[source].propose(base, self.workloads, number)
        finally:
            after = digest_of(self.lab), self.base()
            if before != after:
                names = [n for n in {*before[0], *after[0]} if before[0].get(n) != after[0].get(n)]
                what = ", ".join(sorted(names)) or self.branch
                raise Stopped(f"who proposes has changed what judges: {what}; see `git status`")

    def knob_command(self, commit):
        """Of the base, which has to be built to be asked."""
        trial = experiment.Experiment(self.root, self.lab, self.settings, {}, self.tell)
        trial.folder = self.state
        try:
            build = trial.build(commit)
        except experiment.Ended as end:
            raise Stopped(f"the base does not build: {end.note}")
        return experiment.fill(self.settings["knobs"], trial.places(build))

    def tell(self, text):
        self.say("step", text=text)

    def finish(self, proposed, number, began=None):
        """From a proposal in the journal to its end there; also from any point in between."""
        began = time.monotonic() if began is None else began
        row = self.row_of(proposed, number)
        if row is None:
            if number is not None:  # what a killed run has left
                shutil.rmtree(os.path.join(self.lab, "runs", number), ignore_errors=True)
            try:
                row = self.try_out(proposed)
            except experiment.Refused as refusal:
                return self.fail(proposed["number"], refusal, began)
        kept = row["status"] == "KEEP"
        experiment.git(self.root, "update-ref", f"refs/lab/{row['id']}", proposed["commit"])
        if kept:
            self.keep(proposed)
        else:
            self.drop_build(proposed)
        seconds = round(time.monotonic() - began, 1)
        self.journal.add(
            "ended", number=proposed["number"], id=row["id"], status=row["status"], seconds=seconds
        )
        self.say("ended", id=row["id"], status=row["status"], row=row)

    def fail(self, number, failure, began):
        seconds = round(time.monotonic() - began, 1)
        self.journal.add("failed", number=number, why=str(failure), seconds=seconds)
        self.say("failed", number=number, why=str(failure))

    def row_of(self, proposed, number):
        """The row that was written before the program was killed, if it was."""
        if number is None:
            return None
        for row in self.rows():
            mine = {
                "id": number,
                "commit": proposed["commit"][:12],
                "counter": ledger.as_cell(proposed["proposal"]["counter"]),
                "hypothesis": ledger.as_cell(proposed["proposal"]["hypothesis"]),
            }
            if all(row[key] == value for key, value in mine.items()):
                return row
        return None

    def try_out(self, proposed):
        proposal = {
            **proposed["proposal"],
            "base": proposed["base"],
            "candidate": proposed["commit"],
            "mode": "exact",
            "by_program": proposed["source"] == "command",
            "blocks": self.options.get("blocks"),
            "holdout_seed": self.options.get("holdout_seed"),
        }
        trial = experiment.Experiment(self.root, self.lab, self.settings, proposal, self.tell)
        began = False

        def note_begin(number):
            nonlocal began
            self.journal.add("began", number=proposed["number"], id=number)
            began = True

        try:
            return trial.run(note_begin)
        except BaseException:
            if began and not isinstance(self.row_of(proposed, trial.id), dict):
                shutil.rmtree(trial.folder, ignore_errors=True)
            raise

    # --- keeping and dropping

    def keep(self, proposed):
        values = proposed["proposal"].get("knobs")
        if values:
            path = experiment.profile_path(self.settings)
            try:
                knobs.keep(path, values)
            except knobs.Unknown as failure:
                raise Stopped(f"the knob that won cannot be kept: {failure}")
            self.say("kept", knobs=values, profile=path)
        elif self.base() != proposed["commit"]:
            experiment.git(
                self.root, "update-ref", self.branch, proposed["commit"], proposed["base"]
            )
            self.say("kept", commit=proposed["commit"], branch=self.branch)

    def drop_build(self, proposed):
        if proposed["commit"] == proposed["base"]:
            return
        name = proposed["commit"][:12]
        shutil.rmtree(os.path.join(self.root, "build/lab/builds", name), ignore_errors=True)
        experiment.remove_tree(self.root, os.path.join(self.root, "build/lab/trees", name))

    def clean(self):
        """No checkout stays."""
        trees = os.path.join(self.root, "build", "lab", "trees")
        for name in os.listdir(trees) if os.path.isdir(trees) else []:
            shutil.rmtree(os.path.join(trees, name), ignore_errors=True)
        command = self.sources.get("command")
        if command is not None:
            command.clean()
        experiment.git(self.root, "worktree", "prune")

    def summary(self):
        ids = {event["id"] for event in self.journal.of("ended")}
        rows = [row for row in self.rows() if row["id"] in ids]
        return {
            "rows": len(rows),
            "kept": [row["id"] for row in rows if row["status"] == "KEEP"],
            "failed": len(self.journal.of("failed")),
            "gains": findings.total_gains(rows),
            "told": [findings.told(row) for row in rows],
        }
