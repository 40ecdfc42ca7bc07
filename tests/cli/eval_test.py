#!/usr/bin/env python3
"""eval: what it measures, alone and against a kept run, and what it refuses."""

import json
import os
import signal
import shutil
import subprocess
import tempfile
import time
import unittest

from support import BINARY, DATA, TIMEOUT_S, Model, environment, good, good_json, penstock

DEMO = os.environ.get("PENSTOCK_DEMO_MODEL", "")
TEXTS = ["In the beginning was the word.", "a" * 40 + " and then something else", "Zürich, 1917."]


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(json.dumps(line) + "\n" for line in lines))


def setUpModule():
    global MODEL
    MODEL = Model()


def tearDownModule():
    MODEL.remove()


class Eval(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="penstock-eval-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.data = os.path.join(self.folder, "data")
        os.makedirs(self.data)
        self.texts(TEXTS)
        self.base = os.path.join(self.folder, "base")

    def path(self, name):
        return os.path.join(self.folder, name)

    def texts(self, texts):
        lines = [{"id": f"t{i}", "text": text} for i, text in enumerate(texts)]
        write_lines(os.path.join(self.data, "eval_text.jsonl"), lines)

    def items(self, name, items):
        write_lines(os.path.join(self.data, f"eval_{name}.jsonl"), items)

    def eval(self, *arguments):
        return good_json("eval", MODEL.path, "--data", self.data, *arguments)

    def refused(self, code, word, *arguments, data=None):
        done = penstock("eval", MODEL.path, "--data", data or self.data, *arguments)
        errors = done.stderr.decode()
        self.assertEqual(done.returncode, code, errors)
        self.assertIn(word, errors)
        self.assertEqual(done.stdout, b"")

    def test_perplexity_is_that_of_score(self):
        row = self.eval()
        scored = good("score", MODEL.path, "--texts", os.path.join(self.data, "eval_text.jsonl"), "--json")
        lines = [json.loads(line) for line in scored.splitlines()]
        self.assertEqual(row["texts"]["tokens"], sum(line["tokens"] for line in lines))
        self.assertAlmostEqual(row["texts"]["nll"], sum(line["nll"] for line in lines), places=9)
        self.assertNotIn("change", row["texts"])
        self.assertFalse(row["lossy"])
        self.assertGreater(row["bytes_per_token"], 0)

    def test_a_model_is_nothing_from_itself_and_something_from_one_with_fewer_experts(self):
        self.eval("--write-base", self.base)
        same = self.eval("--base", self.base)["texts"]["change"]
        self.assertLess(same["kl_mean"], 1e-7)
        self.assertEqual(same["same_top"]["share"], 1)
        self.assertLess(abs(same["nats"]), 1e-9)
        self.assertFalse(same["significant"])
        fewer = self.eval("--base", self.base, "--experts-per-token", 1)
        self.assertTrue(fewer["lossy"])
        self.assertEqual(fewer["experts_per_token"], 1)
        change = fewer["texts"]["change"]
        self.assertGreater(change["kl_mean"], 1e-4)
        self.assertGreaterEqual(change["kl_999"], change["kl_mean"])
        self.assertLess(change["same_top"]["share"], 1)

    def test_a_lossy_run_that_is_kept_says_so_wherever_it_is_compared_with(self):
        layers = good_json("show", MODEL.path)["num_hidden_layers"]
        for flags, words in ((("--experts-per-token", 1), "1 experts per token"),
                             (("--lossy-expert-weight", 0.7), "0.7"),
                             (("--lossy-experts-by-layer", f"1*{layers}"), "at most"),
                             (("--lossy-kv", 8), "8 bits")):
            with self.subTest(flags[0]):
                self.eval("--write-base", self.base, *flags)
                row = self.eval("--base", self.base)
                self.assertEqual((row["lossy"], row["base_lossy"]), (False, True))
                self.assertIn(words, row["base_lossy_text"])
                done = penstock("eval", MODEL.path, "--data", self.data, "--base", self.base, "--quiet")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("the base is LOSSY", done.stderr.decode())
                self.assertIn("against a LOSSY base", done.stdout.decode())
                self.assertIn(row["base_lossy_text"], done.stdout.decode())
        self.eval("--write-base", self.base)
        row = self.eval("--base", self.base, "--experts-per-token", 1)
        self.assertEqual((row["lossy"], row["base_lossy"]), (True, False))
        self.assertNotIn("base_lossy_text", row)
        self.assertIn("1 experts per token", row["lossy_text"])
        table = penstock("eval", MODEL.path, "--data", self.data, "--experts-per-token", 1).stdout.decode()
        self.assertIn("| LOSSY |", table)
        self.assertIn(row["lossy_text"], table)
        done = penstock("eval", MODEL.path, "--data", self.data, "--base", self.base)
        self.assertNotIn("LOSSY", done.stderr.decode() + done.stdout.decode())

    def test_the_kept_run_is_the_same_file_whatever_the_budget_and_threads(self):
        files = []
        for i, flags in enumerate((("--threads", 1), ("--threads", 3, "--memory", "24M", "-c", 1024))):
            self.eval("--write-base", self.path(f"base{i}"), "--label", "x", *flags)
            with open(self.path(f"base{i}"), "rb") as f:
                files.append(f.read())
        self.assertEqual(files[0], files[1])

    def test_exact_answers_are_counted_and_compared_item_by_item(self):
        questions = [{"id": f"q{i}", "messages": [{"role": "user", "content": f"say {i}"}]} for i in range(4)]
        write_lines(self.path("items.jsonl"), questions)
        told = good("answer", MODEL.path, "--items", self.path("items.jsonl"), "-n", 12, "--json")
        answers = [json.loads(line)["text"].strip() for line in told.splitlines()]
        self.items("qa", [{**q, "expected": a} for q, a in zip(questions, answers)])
        limits = ("--sets", "qa", "-n", 12)
        row = self.eval("--write-base", self.base, *limits)
        self.assertEqual(row["sets"]["qa"]["exact"]["good"], 4)
        self.assertEqual(row["sets"]["qa"]["wrong"], [])
        self.assertNotIn("valid", row["sets"]["qa"])
        self.items("qa", [{**q, "expected": a if i else "no"} for i, (q, a) in enumerate(zip(questions, answers))])
        row = self.eval("--base", self.base, *limits)
        self.assertEqual(row["sets"]["qa"]["exact"]["good"], 3)
        self.assertEqual(row["sets"]["qa"]["wrong"], ["q0"])
        self.assertEqual(row["sets"]["qa"]["change"], {"lost": 1, "gained": 0, "p": 1.0})

    def test_constrained_answers_are_valid_where_noise_is_not(self):
        self.items("json", [{"id": "j", "kind": "json", "expected": "{}", "schema": {"enum": [True]},
                             "messages": [{"role": "user", "content": "json"}]}])
        sets = self.eval("--sets", "json", "-n", 40, "--constrained")["sets"]
        self.assertEqual(sets["json"]["valid"]["good"], 0)
        self.assertEqual(sets["json"]["constrained"]["valid"]["good"], 1)
        self.assertEqual(sets["json"]["constrained"]["exact"]["good"], 0)

    def test_long_generations_and_prompts_are_counted(self):
        self.texts(["the quick brown fox " * 60, "x"])
        row = self.eval("--generations", 3, "--recall", "-c", 2048)
        self.assertEqual(row["endurance"]["early"]["of"], 1, "one text is long enough")
        self.assertGreater(row["endurance"]["tokens"], 0)
        self.assertEqual({length: share["of"] for length, share in row["recall"].items()}, {"512": 10, "1024": 10})
        self.refused(2, "--context", "--generations", 1, "-c", 512)
        self.refused(2, "--context", "--recall", "-c", 512)
        self.texts(["xyz", "abc"])
        self.refused(2, "no text", "--generations", 1)

    def test_experts_left_out_are_lossy_counted_and_refused_where_they_cannot_be(self):
        self.eval("--write-base", self.base)
        chosen = self.eval()["experts_per_token"]
        layers = good_json("show", MODEL.path)["num_hidden_layers"]
        left = self.eval("--base", self.base, "--lossy-experts-by-layer", f"1*{layers}")
        self.assertTrue(left["lossy"])
        self.assertEqual(left["experts_per_token"], 1)
        self.assertGreater(left["texts"]["change"]["kl_mean"], 0)
        weighed = self.eval("--base", self.base, "--lossy-expert-weight", 0.7)
        self.assertTrue(weighed["lossy"])
        self.assertLess(weighed["experts_per_token"], chosen)
        self.assertGreaterEqual(weighed["experts_per_token"], 1)
        done = penstock("eval", MODEL.path, "--data", self.data, "--lossy-expert-weight", 0.7)
        self.assertIn("LOSSY", done.stderr.decode())
        self.refused(2, "layers", "--lossy-experts-by-layer", f"1*{layers + 1}")
        self.refused(2, "--lossy-experts-by-layer", "--lossy-experts-by-layer", "1,x")
        self.refused(2, "lossy-expert-weight", "--lossy-expert-weight", "1.5")

    def test_experts_from_a_copy_are_lossy_and_counted(self):
        self.eval("--write-base", self.base)
        exact = self.eval()
        row = self.eval("--base", self.base, "--lossy-low-bits-copy", MODEL.path, "--lossy-low-bits-from", 2)
        self.assertTrue(row["lossy"])
        self.assertIn("from rank 2", row["low_bits"])
        self.assertEqual(row["bytes_per_token"], exact["bytes_per_token"], "a copy with the model's own bits")
        self.assertLess(row["texts"]["change"]["kl_mean"], 1e-6)
        self.refused(2, "--lossy-low-bits-from", "--lossy-low-bits-copy", MODEL.path)

    def test_rows_are_kept_one_for_each_label_and_drawn(self):
        rows, svg = self.path("rows.jsonl"), self.path("chart.svg")
        self.eval("--write-base", self.base, "--rows", rows, "--label", "all")
        for experts in (1, 2, 1):
            self.eval("--base", self.base, "--rows", rows, "--label", f"{experts} experts",
                      "--experts-per-token", experts)
        table = good("eval", MODEL.path, "--data", self.data, "--base", self.base, "--rows", rows,
                     "--label", "again", "--svg", svg)
        lines = table.splitlines()
        self.assertEqual([line.split(" | ")[0].strip("| ") for line in lines],
                         ["model", "---", "all", "2 experts", "1 experts", "again"])
        with open(svg, encoding="utf-8") as f:
            self.assertEqual(f.read().count("<circle"), 3)

    def test_a_kept_run_of_something_else_is_refused_and_says_what_differs(self):
        self.items("qa", [{"id": "q", "messages": [{"role": "user", "content": "x"}], "expected": "y"}])
        self.eval("--write-base", self.base, "-n", 3)
        self.refused(2, "max-tokens", "--base", self.base, "-n", 4)
        self.refused(2, "windows", "--base", self.base, "-n", 3, "-c", 512)
        self.items("more", [{"id": "q", "messages": [{"role": "user", "content": "x"}], "expected": "y"}])
        self.refused(2, "set more", "--base", self.base, "-n", 3)
        os.remove(os.path.join(self.data, "eval_more.jsonl"))
        self.items("qa", [{"id": "q", "messages": [{"role": "user", "content": "z"}], "expected": "y"}])
        self.refused(2, "item q", "--base", self.base, "-n", 3)
        self.texts([*TEXTS[:2], "Zurich, 1917."])
        self.refused(2, "t2", "--base", self.base, "-n", 3, "--sets", "text")
        self.texts(TEXTS[:2])
        self.refused(2, "3 texts", "--base", self.base, "-n", 3, "--sets", "text")

    def test_a_spoilt_kept_run_is_refused(self):
        self.eval("--write-base", self.base)
        with open(self.base, "rb") as f:
            whole = f.read()
        for spoilt in (whole[:-1], whole[:100], b"", whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]):
            with open(self.base, "wb") as f:
                f.write(spoilt)
            self.refused(3, self.base, "--base", self.base)

    def test_says_what_is_missing_before_the_model_is_loaded(self):
        self.refused(2, "eval_tools.jsonl", "--sets", "tools")
        self.refused(2, "none-there", data=self.path("none-there"))
        os.makedirs(self.path("empty"))
        self.refused(2, "eval_*.jsonl", data=self.path("empty"))
        self.refused(3, "no/such", "--write-base", self.path("no/such"))
        with open(self.path("rows"), "w", encoding="utf-8") as f:
            f.write("[1]\n")
        self.refused(2, "no row", "--rows", self.path("rows"))
        with open(os.path.join(self.data, "eval_text.jsonl"), "a", encoding="utf-8") as f:
            f.write("{\n")
        self.refused(2, "eval_text.jsonl:4")

    def test_interrupted_it_leaves_nothing(self):
        self.texts(["all work and no play " * 200] * 400)
        process = subprocess.Popen(
            [BINARY, "eval", MODEL.path, "--data", self.data, "--write-base", self.base],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        partial, deadline = self.base + ".partial", time.monotonic() + TIMEOUT_S
        while not (os.path.exists(partial) and os.path.getsize(partial) > 0):
            self.assertIsNone(process.poll(), "it ended before it could be interrupted")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 130, errors.decode())
        self.assertEqual(output, b"")
        self.assertEqual(sorted(os.listdir(self.folder)), ["data"])


@unittest.skipUnless(os.path.exists(os.path.join(DEMO, "penstock.json")), "scripts/demo-model makes it")
class OfTheDemo(unittest.TestCase):
    """The reference implementation's counts of the same items (tests/data/README.md)."""

    def test_counts_are_the_references(self):
        row = good_json("eval", DEMO, "--data", os.path.join(DATA, "eval"), "--sets", "text,json", "-c", 1024)
        self.assertAlmostEqual(row["texts"]["perplexity"], 12.22, delta=0.01)
        self.assertEqual(row["sets"]["json"]["exact"], {**row["sets"]["json"]["exact"], "good": 30, "of": 30})
        self.assertEqual(row["sets"]["json"]["valid"]["good"], 30)


if __name__ == "__main__":
    unittest.main()
