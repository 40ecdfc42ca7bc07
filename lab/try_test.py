#!/usr/bin/env python3
"""lab/try from end to end, in a repository of its own whose program is a shell script."""

import json
import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from test_support import RepositoryTest

PROGRAM = """#!/bin/sh
# rate, hash, prefetches
echo 'reading the model'
echo '{{"n_gen": 0, "speed": 1}}'
echo '{{"n_gen": 64, "speed": {rate}, "hash": "{hash}", "store": {{"prefetches": {count}}}, "hit_rate": 0.5, "waits": {{"experts": 3, "expert_wait": 7}}}}'
"""
SETTINGS = {
    "build": [["sh", "-c", "sh -n {source}/program && mkdir -p {build} && cp {source}/program {source}/gates {build}"]],
    "gates": [["sh", "{build}/gates"]],
    "workloads": {
        "w": {
            "command": ["sh", "{build}/program"],
            "select": {"n_gen": 64},
            "rate": "speed",
            "same": "hash",
            "terms": "waits",
            "columns": {"hit_rate": "hit_rate"},
            "limit": {"command": ["echo", '{{"forecast": {{"limit_tps": 40, "at": {hit_rate}}}}}'], "key": "forecast.limit_tps"},
        }
    },
}
PROPOSAL = {
    "--workload": "w",
    "--hypothesis": "prefetching hides reads",
    "--term": "flash",
    "--predict-ms": "-5",
    "--predict-ratio": "2.0",
    "--counter": "store.prefetches>0",
    "--refuted-if": "no faster",
    "--blocks": "3",
}


class Try(RepositoryTest):
    settings = SETTINGS

    def setUp(self):
        super().setUp()
        self.commit_program()

    def commit_program(self, rate=10, hash="aa", count=0, text=None):
        self.commit(program=text or PROGRAM.format(rate=rate, hash=hash, count=count))

    def candidate(self, **program):
        self.git("checkout", "-q", "-B", "candidate", "main")
        self.commit_program(**program)

    def attempt(self, *more, without=(), **changes):
        proposal = {k: v for k, v in {**PROPOSAL, **changes}.items() if k not in without}
        words = [word for pair in proposal.items() for word in pair]
        done = subprocess.run(
            [sys.executable, "-B", self.path("lab/try"), "--base", "main", "--candidate", "candidate", *words, *more],
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    def test_a_faster_program_that_computes_the_same_is_kept(self):
        self.candidate(rate=20, count=3)
        code, text = self.attempt()
        self.assertEqual(code, 0, text)
        row = self.rows()[0]
        self.assertEqual((row["status"], row["gates"], row["id"]), ("KEEP", "passed", "0001"))
        self.assertEqual(float(row["ratio"]), 2)
        self.assertEqual(float(row["share_of_limit"]), 0.5)
        self.assertEqual(json.loads(row["terms_after"]), {"experts": 3, "expert_wait": 7})
        self.assertEqual(row["lines_changed"], "2")
        samples = self.read("lab/runs/0001/samples.csv")
        self.assertEqual([line.split(",")[1] for line in samples.splitlines()[1:]], list("ABBA") * 3)
        command = [sys.executable, "-B", self.path("lab/report"), "--out", self.path("report.svg")]
        report = subprocess.run(command, capture_output=True, text=True)
        self.assertIn(">best, w</text>", self.read("report.svg"))
        self.assertIn("expert_wait", report.stdout)
        self.assertIn("predictions on flash: 1 of 1 held", report.stdout)

    def test_nothing_runs_without_hypothesis_term_prediction_and_counter(self):
        self.candidate(rate=20, count=3)
        for name in ("--hypothesis", "--term", "--predict-ms", "--predict-ratio", "--counter", "--refuted-if"):
            code, text = self.attempt(without=(name,))
            self.assertEqual(code, 2, f"{name}: {text}")
            self.assertIn("refused", text)
        self.assertEqual(self.attempt(**{"--term": "luck"})[0], 2)
        self.assertEqual(self.attempt(**{"--workload": "none"})[0], 2)
        self.assertEqual(self.attempt(**{"--blocks": "2"})[0], 2)
        self.assertEqual(self.rows(), [])

    def test_a_change_that_did_not_run_is_invalid_however_fast(self):
        self.candidate(rate=20, count=0)
        self.assertEqual(self.attempt()[0], 1)
        self.assertEqual(self.rows()[0]["status"], "INVALID")
        self.assertIn("did not run", self.rows()[0]["note"])

    def test_a_counter_that_the_base_moves_as_much_proves_nothing(self):
        self.git("checkout", "-q", "main")
        self.commit_program(count=3)
        self.candidate(rate=20, count=3)
        self.attempt()
        self.assertEqual(self.rows()[0]["status"], "INVALID")

    def test_other_output_is_discarded_however_fast(self):
        self.candidate(rate=20, count=3, hash="bb")
        self.attempt()
        self.assertEqual(self.rows()[0]["status"], "DISCARD")
        self.assertIn("hash", self.rows()[0]["note"])

    def test_a_failed_gate_is_discarded_before_anything_is_measured(self):
        self.git("checkout", "-q", "-B", "candidate", "main")
        self.write("gates", "exit 1\n")
        self.commit_program(rate=20, count=3)
        self.attempt()
        row = self.rows()[0]
        self.assertEqual((row["status"], row["gates"], row["ratio"]), ("DISCARD", "failed", ""))

    def test_touching_the_judges_is_invalid(self):
        self.git("checkout", "-q", "-B", "candidate", "main")
        self.write("tests/golden/values.json", "{}")
        self.commit_program(rate=20, count=3)
        self.attempt()
        self.assertEqual(self.rows()[0]["status"], "INVALID")
        self.assertIn("tests/golden/values.json", self.rows()[0]["note"])

    def test_moving_a_judge_away_is_touching_it(self):
        self.write("tests/golden/values.json", "values\n" * 9)
        self.commit_program()
        self.git("checkout", "-q", "-B", "candidate", "main")
        os.makedirs(self.path("src"))
        self.git("mv", "tests/golden/values.json", "src/values.json")
        self.commit_program(rate=20, count=3)
        self.attempt()
        self.assertEqual(self.rows()[0]["status"], "INVALID")

    def test_a_number_that_a_killed_run_has_taken_is_left_alone(self):
        os.makedirs(self.path("lab/runs/0001"))
        self.candidate(rate=20, count=3)
        self.attempt()
        self.assertEqual([row["id"] for row in self.rows()], ["0002"])

    def test_what_does_not_build_or_run_is_a_crash(self):
        self.candidate(text="if (\n")
        self.attempt()
        self.candidate(text="exit 3\n")
        self.attempt()
        self.assertEqual([row["status"] for row in self.rows()], ["CRASH", "CRASH"])

    def test_equal_speed_is_null_and_a_slower_program_is_discarded_and_may_be_reopened(self):
        self.candidate(rate=10, count=3)
        self.attempt()
        self.candidate(rate=5, count=3)
        self.attempt()
        self.assertEqual([row["status"] for row in self.rows()], ["NULL", "DISCARD"])
        # Both predictions missed: the term has to be measured first.
        code, text = self.attempt("--reopens", "0002")
        self.assertEqual(code, 2)
        self.assertIn("measure it first", text)
        self.attempt("--reopens", "0002", "--measurement")
        self.assertEqual([row["status"] for row in self.rows()], ["NULL", "REOPENED", "DISCARD"])


if __name__ == "__main__":
    unittest.main()
