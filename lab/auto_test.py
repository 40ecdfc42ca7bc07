#!/usr/bin/env python3
"""lab/auto from end to end, in a repository of its own whose program is a shell script."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import campaign
import commands
import journal
import proposer
import tuner
from test_support import RepositoryTest

# Its knobs, from --knob before the profile: "ahead" is best at 8, "bits" changes what is computed,
# "slow" costs a third on the hold-out. Each call is counted, and the one of $KILL_AT kills its caller.
PROGRAM = """#!/bin/sh
{count_calls}
ahead=4 bits=1 slow=1 rate=10
while read -r name value; do
  case $name in '"ahead":') ahead=${{value%,}};; '"bits":') bits=${{value%,}};; '"slow":') slow=${{value%,}};; esac
done <{profile}
case "$*" in *--knob*) eval "${{*##*--knob }}";; esac
knob() {{ echo '{{"name": "'$1'", "value": '$2', "built_in": 1, "low": 1, "high": '$3', "term": "'$4'", "help": "h"}}'$5; }}
case $1 in knobs)
  echo '{{"knobs": ['$(knob ahead $ahead 16 flash ,; knob bits $bits 2 hits ,; knob slow $slow 2 fixed)']}}'
  exit;; esac
case $ahead in 8) rate=20;; esac
case $slow.$1 in 2.hidden) rate=6;; 2.*) rate=$((rate + 10));; esac
echo '{{"speed": '$(({rate} + rate))', "hash": "{hash}'$bits'", "count": {count}, "knobs": {{"ahead": '$ahead', "bits": '$bits', "slow": '$slow'}},' \\
  '"waits": {{"experts": 3, "expert_wait": 7}}, "drawn": "'$2'"}}'
"""
COUNT_CALLS = """if [ -n "$KILL_AT" ]; then
  read -r n <{calls}; n=$((n + 1)); echo $n >{calls}
  [ $n -ne "$KILL_AT" ] || {{ kill -9 $PPID; exit 9; }}
fi"""
WORKLOAD = {"rate": "speed", "same": "hash", "terms": "waits"}
SETTINGS = {
    "machine_profile": "$XDG_STATE_HOME/profile.json",
    "limit_s": 20,
    "build": [["sh", "-c", "sh -n {source}/program && mkdir -p {build} && cp {source}/program {source}/gates {build}"]],
    "gates": [["sh", "{build}/gates"]],
    "knobs": ["sh", "{build}/program", "knobs"],
    "workloads": {"w": {**WORKLOAD, "command": ["sh", "{build}/program", "plain", "-"], "why": "the one"}},
    "holdouts": {"h": {**WORKLOAD, "command": ["sh", "{build}/program", "hidden", "{seed}"], "draw": {"seed": [1, 9]}}},
}
PROPOSAL = {
    "hypothesis": "counting less is faster",
    "term": "flash",
    "predicted_dt_ms": -1,
    "predicted_ratio": 1.5,
    "counter": "count>0",
    "refuted_if": "no faster",
    "workload": "w",
}
# A proposer: edits the program's rate and says so; $COUNT times.
GOOD = """
import json, os, re
place = os.environ
n = int(open(os.environ["TURNS"]).read() or 0) if os.path.exists(os.environ["TURNS"]) else 0
if n < {count}:
    open(os.environ["TURNS"], "w").write(str(n + 1))
    text = open("program").read()
    rate = int(re.search(r"\\(\\((\\d+) \\+ rate", text).group(1))
    text = text.replace(f"(({{rate}} + rate", f"(({{rate + {step}}} + rate").replace('"count": ' + str(n), '"count": ' + str(n + 1))
    open("program", "w").write(text)
    proposal = {proposal!r}
    proposal["counter"] = f"count>{{n}}"
    proposal["hypothesis"] += f" ({{n}})"
    json.dump(proposal, open(os.environ["PENSTOCK_LAB_PROPOSAL"], "w"))
"""


class Auto(RepositoryTest):
    settings = SETTINGS

    def setUp(self):
        super().setUp()
        self.write("profile.json", '{"profile_version": 2, "knobs": {}}')
        self.commit(program=self.program())

    def program(self, rate=0, hash="aa", count=0):
        counting = COUNT_CALLS.format(calls=self.path("calls"))
        profile = self.path("profile.json")
        return PROGRAM.format(rate=rate, hash=hash, count=count, profile=profile, count_calls=counting)

    def command(self, *words):
        return [sys.executable, "-B", self.path("lab/auto"), "--workload", "w", "--blocks", "3",
                "--holdout-seed", "1", *words]  # fmt: skip

    def environment(self, **more):
        return {**os.environ, "XDG_STATE_HOME": self.folder, "TURNS": self.path("calls.turns"), **more}

    def auto(self, *words, **environment):
        """-> (exit code, output)"""
        done = subprocess.run(
            self.command(*words), env=self.environment(**environment), capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    def proposing(self, script, *words, rows="1", **environment):
        self.write("build/proposer.py", script)
        command = f"{sys.executable} {self.path('build/proposer.py')}"
        return self.auto("--propose", command, "--rows", rows, *words, **environment)

    def events(self, *names):
        return journal.Journal(self.path("build/lab/auto/auto/journal.jsonl")).of(*names)

    def assert_clean(self):
        self.assertEqual(len(self.git("worktree", "list").splitlines()), 1)
        self.assertEqual(self.git("status", "--porcelain"), "")
        trees = self.path("build/lab/trees")
        self.assertEqual(os.listdir(trees) if os.path.isdir(trees) else [], [])

    def told(self):
        return [(row["id"], row["status"], row["hypothesis"]) for row in self.rows()]

    # --- the tuner

    def test_the_tuner_climbs_keeps_in_the_profile_and_ends_by_itself(self):
        code, text = self.auto("--rows", "20")
        self.assertEqual(code, 0, text)
        self.assertEqual(json.loads(self.read("profile.json")), {"profile_version": 2, "knobs": {"ahead": 8}})
        found = {(row["hypothesis"].split(":")[0], row["status"]) for row in self.rows()}
        expected = {
            ("ahead 4 -> 8", "KEEP"),
            ("ahead 8 -> 16", "DISCARD"),
            ("bits 1 -> 2", "DISCARD"),  # other bits
            ("slow 1 -> 2", "DISCARD"),  # wins where everybody looks, and loses on the hold-out
        }
        self.assertEqual(found, expected)
        notes = {row["hypothesis"].split()[0]: row["note"] for row in self.rows() if row["status"] == "DISCARD"}
        self.assertIn("another hash", notes["bits"])
        self.assertIn("hold-out h: ", notes["slow"])
        self.assertIn("nothing more to try", text)
        self.assertIn("w: 1 kept, together 2.000 times", text)
        self.assert_clean()
        code, text = self.auto("--rows", "30", "--json")
        self.assertEqual(code, 0, text)
        self.assertEqual(len(self.rows()), 4, "values are tried once")
        last = json.loads(text.splitlines()[-1])
        self.assertEqual((last["event"], last["summary"]["kept"]), ("stopped", ["0001"]))

    def test_a_budget_of_rows_counts_over_all_calls_and_one_of_hours_ends_too(self):
        for rows, there in (("1", 1), ("2", 2), ("2", 2)):
            self.assertEqual(self.auto("--rows", rows)[0], 0)
            self.assertEqual(len(self.rows()), there)
        code, text = self.auto("--hours", "1e-9")
        self.assertEqual((code, len(self.rows())), (0, 2), text)
        self.assertIn("hours are over", text)

    def test_it_refuses_what_it_cannot_do(self):
        for words, said in [
            ((), "budget"),
            (("--rows", "0"), "--rows"),
            (("--rows", "1", "--workload", "x"), "no workload"),
            (("--rows", "1", "--name", "../x"), "--name"),
            (("--rows", "1", "--blocks", "2"), "three blocks"),
            (("--rows", "1", "--base", "nowhere"), "nowhere"),
        ]:
            code, text = self.auto(*words)
            self.assertEqual(code, 2, text)
            self.assertIn(said, text)
        os.remove(self.path("profile.json"))
        code, text = self.auto("--rows", "1")
        self.assertEqual(code, 2)
        self.assertIn("penstock doctor", text)
        self.assertEqual(self.rows(), [])

    # --- proposers

    def test_what_a_proposer_wins_is_the_base_of_the_next_and_main_stays(self):
        main = self.git("rev-parse", "main")
        code, text = self.proposing(GOOD.format(count=2, step=10, proposal=PROPOSAL), rows="9")
        self.assertEqual(code, 0, text)
        self.assertEqual([row["status"] for row in self.rows()], ["KEEP", "KEEP"])
        self.assertEqual(float(self.rows()[1]["ratio"]), 1.5)
        self.assertEqual(self.git("rev-parse", "main"), main)
        self.assertEqual(self.git("rev-parse", "lab/auto~2"), main)
        self.assertEqual(self.git("rev-parse", "refs/lab/0002"), self.git("rev-parse", "lab/auto"))
        self.assert_clean()

    def test_a_proposal_that_costs_speed_is_dropped_and_its_commit_can_be_found(self):
        code, text = self.proposing(GOOD.format(count=1, step=-5, proposal=PROPOSAL))
        self.assertEqual([row["status"] for row in self.rows()], ["DISCARD"], text)
        self.assertEqual(self.git("rev-parse", "main"), self.git("rev-parse", "lab/auto"))
        self.assertTrue(self.git("rev-parse", "refs/lab/0001").startswith(self.rows()[0]["commit"]))

    def attempt(self, change, **proposal):
        """A row of its own for what `change`, Python run in the checkout, makes of it."""
        proposal = {**PROPOSAL, **proposal}
        script = f"import json, os\n{change}\nopen(os.environ['PENSTOCK_LAB_PROPOSAL'], 'w').write(json.dumps({proposal!r}))"
        code, text = self.proposing(script, rows=str(len(self.rows()) + 1))
        return code, text, (self.rows() or [None])[-1]

    def test_bad_patches_get_the_row_that_says_so(self):
        faster = "t = open('program').read().replace('$((0', '$((10').replace('\"count\": 0', '\"count\": 1')\n"
        for change, status, said in [
            ("open('program', 'w').write('if (')", "CRASH", "does not build"),
            ("open('gates', 'w').write('exit 1')", "DISCARD", "fails the gates"),
            (faster + "open('program', 'w').write(t.replace('aa', 'bb'))", "DISCARD", "another hash"),
            (faster + "open('program', 'w').write(t.replace('\"count\": 1', '\"count\": 0'))", "INVALID", "did not run"),
            ("open('lab/paired.py', 'a').write('#')", "INVALID", "lab/paired.py"),
            ("os.makedirs('tests/cli'); open('tests/cli/x.py', 'w').write('#')", "INVALID", "tests/cli/x.py"),
            ("os.makedirs('scripts'); open('scripts/demo-model', 'w').write('#')", "INVALID", "scripts/demo-model"),
            (faster + "open('program', 'w').write(t.replace('case $slow', 'case $1 in hidden) rate=-5;; esac; case $slow'))", "DISCARD", "hold-out h"),
        ]:
            code, text, row = self.attempt(change, measurement=True)
            self.assertEqual(code, 0, text)
            self.assertEqual((row["status"], said in row["note"]), (status, True), row["note"] + text)
        self.assertEqual(self.git("rev-parse", "main"), self.git("rev-parse", "lab/auto"))
        self.assert_clean()

    def test_what_never_became_an_experiment_costs_no_row_and_three_in_a_row_stop_it(self):
        said = [
            ("raise SystemExit(3)", "ended with 3"),
            ("", "patch is empty"),
            ("open(os.environ['PENSTOCK_LAB_PATCH'], 'w')", "patch is empty"),
            ("open(os.environ['PENSTOCK_LAB_PATCH'], 'w').write('--- a/program\\n+++ b/program\\n@@ -900 +900 @@\\n-x\\n+y\\n')", "patch makes no commit"),
        ]
        for change, expected in said:
            code, text, row = self.attempt(change)
            self.assertEqual((code, row), (1, None), text)
            self.assertIn(expected, text)
            self.assertIn("3 proposals in a row", text)
        self.assertEqual(len(self.events("failed")), 3 * len(said))
        self.assert_clean()

    def test_a_proposal_says_what_it_must_and_no_more(self):
        path = self.path("build/p.json")
        self.write("build/p.json", json.dumps(PROPOSAL))
        self.assertEqual(proposer.read_proposal(path, {"w": {}}), PROPOSAL)
        self.assertIsNone(proposer.read_proposal(self.path("build/none.json"), {"w": {}}))
        bad = [{k: v for k, v in PROPOSAL.items() if k != name} for name in PROPOSAL]
        bad += [{**PROPOSAL, **more} for more in (
            {"mode": "lossy:bits"}, {"blocks": 99}, {"base": "x"}, {"knobs": {"a": 1}}, {"workload": "h"},
            {"predicted_ratio": "2"}, {"predicted_ratio": True}, {"predicted_ratio": float("nan")},
            {"measurement": "yes"}, {"term": None},
        )] + [[], 3, None]  # fmt: skip
        for proposal in bad:
            self.write("build/p.json", json.dumps(proposal))
            self.assertRaises(proposer.Failed, proposer.read_proposal, path, {"w": {}})
        self.write("build/p.json", "{")
        self.assertRaises(proposer.Failed, proposer.read_proposal, path, {"w": {}})

    def test_a_proposer_that_hangs_is_ended_with_all_that_it_began(self):
        script = f"import subprocess, time\nsubprocess.Popen(['sh', '-c', 'sleep 60'], stdout=-3)\nopen({self.path('calls.began')!r}, 'w')\ntime.sleep(60)"
        began = time.monotonic()
        code, text = self.proposing(script, "--propose-minutes", "0.005")
        self.assertEqual(code, 1, text)
        self.assertIn("did not end within 0.3 s", text)
        self.assertLess(time.monotonic() - began, 30)
        self.assert_clean()

    def test_a_proposer_that_reaches_for_the_judges_outside_its_checkout_stops_everything(self):
        script = f"open({self.path('lab/ledger.tsv')!r}, 'a').write('mine')"
        code, text = self.proposing(script)
        self.assertEqual(code, 1)
        self.assertIn("changed what judges: ledger.tsv", text)

    def test_a_proposer_sees_the_rules_and_what_was_tried_but_no_holdout(self):
        self.auto("--rows", "1")
        seen = self.path("build/seen.json")
        script = f"""
import json, os
read = {{k: open(v).read() for k, v in os.environ.items() if k.startswith("PENSTOCK_LAB") and os.path.exists(v)}}
json.dump(read, open({seen!r}, "w"))
"""
        self.proposing(script, rows="2")
        with open(seen, encoding="utf-8") as file:
            read = json.load(file)
        self.assertIn("# The laboratory", read["PENSTOCK_LAB_PROGRAM"])
        self.assertIn("ahead 4 -> 8", read["PENSTOCK_LAB_LEDGER"])
        ranking = json.loads(read["PENSTOCK_LAB_TERMS"])
        self.assertEqual(ranking["terms_left"]["w"][0], {"wait": "expert_wait", "ms": 7, "share": 0.7})
        self.assertEqual(json.loads(read["PENSTOCK_LAB_WORKLOADS"]), {"w": "the one"})
        self.assertNotIn("PENSTOCK_LAB_PROPOSAL", read)

    # --- crashes

    def git_that_kills(self):
        """A git that counts its calls as the program does."""
        os.makedirs(self.path("build/bin"), exist_ok=True)
        real = subprocess.run(["which", "git"], capture_output=True, text=True).stdout.strip()
        counting = COUNT_CALLS.format(calls=self.path("calls")).replace("{{", "{").replace("}}", "}")
        self.write("build/bin/git", f'#!/bin/sh\n{counting}\nexec {real} "$@"\n')
        os.chmod(self.path("build/bin/git"), stat.S_IRWXU)
        return self.path("build/bin") + os.pathsep + os.environ["PATH"]

    def test_killed_at_any_point_it_goes_on_with_no_row_lost_or_twice(self):
        path = self.git_that_kills()
        script = GOOD.format(count=2, step=10, proposal=PROPOSAL)
        kills, at = 0, 2
        while True:
            self.write("calls", "0")
            # What a killed proposer had counted was not proposed.
            self.write("calls.turns", str(len(self.events("proposed"))))
            code, text = self.proposing(script, rows="2", PATH=path, KILL_AT=str(at))
            if code == 0:
                break
            self.assertEqual(code, -signal.SIGKILL, text)
            kills, at = kills + 1, at + 4
        self.assertGreater(kills, 6)
        self.assertEqual(
            self.told(),
            [("0001", "KEEP", "counting less is faster (0)"), ("0002", "KEEP", "counting less is faster (1)")],
        )
        self.assertEqual(sorted(os.listdir(self.path("lab/runs"))), ["0001", "0002"])
        self.assertEqual(self.git("rev-parse", "refs/lab/0002"), self.git("rev-parse", "lab/auto"))
        self.assertEqual(len(self.events("ended")), 2)
        self.assert_clean()

    def test_between_any_two_lines_of_the_journal_it_goes_on(self):
        self.auto("--rows", "1")
        place = "build/lab/auto/auto/journal.jsonl"
        whole, rows = self.read(place).splitlines(keepends=True), self.told()
        ledger_text, profile = self.read("lab/ledger.tsv"), self.read("profile.json")
        self.assertEqual([json.loads(line)["event"] for line in whole], ["campaign", "proposed", "began", "ended", "stopped"])
        for lines, has_row, has_profile, torn in [
            (3, True, True, ""),  # the row is written and the knob kept; the end is not told
            (3, True, False, '{"event": "en'),
            (3, False, False, ""),  # no row yet, but its folder
            (2, False, False, '{"event'),
            (1, False, False, ""),
        ]:
            self.write(place, "".join(whole[:lines]) + torn)
            self.write("profile.json", profile if has_profile else '{"knobs": {}}')
            self.write("lab/ledger.tsv", ledger_text if has_row else ledger_text.splitlines()[0] + "\n")
            if lines < 3:
                subprocess.run(["rm", "-r", self.path("lab/runs")], check=True)
            code, text = self.auto("--rows", "1")
            self.assertEqual(code, 0, text)
            self.assertEqual(self.told(), rows)
            self.assertEqual(json.loads(self.read("profile.json"))["knobs"], {"ahead": 8})
            self.assertEqual(len(self.events("ended")), 1)
            self.assertEqual(os.listdir(self.path("lab/runs")), ["0001"])

    def test_a_damaged_journal_is_told_and_nothing_runs(self):
        self.write("build/lab/auto/auto/journal.jsonl", '{"event": "campaign"}\nnonsense\n')
        code, text = self.auto("--rows", "1")
        self.assertEqual((code, self.rows()), (2, []))
        self.assertIn("journal.jsonl:2", text)

    def test_load_above_the_greatest_keeps_it_waiting_and_no_row_is_written(self):
        words = ["--hours", "1", "--load-max", "-1"]
        work = subprocess.Popen(
            self.command(*words), env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said = b""
        while b"waits: load" not in said:
            line = work.stdout.readline()
            self.assertTrue(line, said)
            said += line
        work.send_signal(signal.SIGINT)
        said += work.communicate()[0]
        self.assertEqual((work.returncode, self.rows()), (130, []), said)

    def test_a_branch_of_another_campaign_is_not_overwritten(self):
        self.commit()
        self.git("branch", "lab/auto", "main~1")
        code, text = self.auto("--rows", "1")
        self.assertEqual((code, self.git("rev-parse", "lab/auto")), (2, self.git("rev-parse", "main~1")))
        self.assertIn("--name", text)

    def test_an_interrupt_leaves_no_checkout_and_the_same_command_goes_on(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            script = f"open({self.path('calls.began')!r}, 'w').close()\nimport time\ntime.sleep(60)"
            self.write("build/proposer.py", script)
            words = ["--propose", f"{sys.executable} {self.path('build/proposer.py')}", "--rows", "1"]
            work = subprocess.Popen(self.command(*words), env=self.environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
            while not os.path.exists(self.path("calls.began")):
                time.sleep(0.01)
            work.send_signal(number)
            said = work.communicate()[1].decode()
            self.assertEqual(work.returncode, 130, said)
            self.assertIn("goes on from here", said)
            self.assert_clean()
            os.remove(self.path("calls.began"))
        code, text = self.proposing(GOOD.format(count=1, step=10, proposal=PROPOSAL))
        self.assertEqual((code, [row["status"] for row in self.rows()]), (0, ["KEEP"]), text)

    def test_two_at_a_time_are_refused(self):
        self.write("build/proposer.py", f"open({self.path('calls.began')!r}, 'w').close()\nimport time\ntime.sleep(60)")
        words = ["--propose", f"{sys.executable} {self.path('build/proposer.py')}", "--rows", "1"]
        work = subprocess.Popen(self.command(*words), env=self.environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not os.path.exists(self.path("calls.began")):
            time.sleep(0.01)
        code, text = self.auto("--rows", "1")
        work.send_signal(signal.SIGINT)
        work.wait()
        self.assertEqual(code, 2)
        self.assertIn("another lab/auto", text)


class Parts(unittest.TestCase):
    KNOB = {"name": "a", "value": 4, "low": 1, "high": 6, "term": "flash", "help": ""}

    def test_steps_stay_within_the_range_and_lead_away_from_zero(self):
        for value, expected in [(4, [6, 2]), (6, [3]), (1, [2]), (2, [4, 1])]:
            self.assertEqual(tuner.steps({**self.KNOB, "value": value}), expected)
        self.assertEqual(tuner.steps({**self.KNOB, "value": 0, "low": 0}), [1])

    def test_knobs_of_the_heaviest_term_come_first_and_those_of_prompts_only_there(self):
        dense, prompt = {**self.KNOB, "name": "d", "term": "dense"}, {**self.KNOB, "name": "p", "term": "prompt"}
        waits = [("mixer", 5, 0.5), ("expert_wait", 3, 0.3), ("head", 2, 0.2)]
        knobs = [self.KNOB, prompt, dense]
        self.assertEqual(tuner.next_step(knobs, set(), waits, "answer"), (dense, 6))
        self.assertEqual(tuner.next_step(knobs, set(), waits, "prompt"), (prompt, 6))
        tried = {("d", 6), ("d", 2), ("a", 6)}
        self.assertEqual(tuner.next_step(knobs, tried, waits, "answer"), (self.KNOB, 2))
        self.assertIsNone(tuner.next_step(knobs, tried | {("a", 2)}, waits, "answer"))

    def test_waiting_for_a_quiet_machine_ends_with_the_budget(self):
        now, said = [0.0], []
        clock = mock.Mock(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
        options = {"name": "auto", "workloads": [], "hours": 0.01, "load_max": -1}
        with mock.patch.object(campaign, "time", clock), tempfile.TemporaryDirectory() as root:
            tried = campaign.Campaign(root, root, {}, options, {}, lambda event, **facts: said.append(event))
            self.assertEqual(tried.wait_for_quiet(), "0.01 hours are over")
        self.assertEqual((said, now), (["waits"], [36.0]))

    def test_a_command_is_ended_at_its_limit_and_what_it_leaves_as_well(self):
        with open(os.devnull, "wb") as nothing:
            self.assertEqual(commands.run(["sh", "-c", "exit 3"], nothing), 3)
            self.assertRaises(commands.TimedOut, commands.run, ["sleep", "60"], nothing, timeout_s=0.05)
        code, text = commands.run_and_read(["sh", "-c", "sleep 60 & echo $!"])
        left = int(text)
        for _ in range(500):
            code, text = commands.run_and_read(["ps", "-o", "stat=", "-p", str(left)])
            if code != 0 or text.startswith("Z"):
                return
            time.sleep(0.01)
        self.fail("what it began is still there")


if __name__ == "__main__":
    unittest.main()
