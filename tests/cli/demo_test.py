#!/usr/bin/env python3
"""The program with the demo model, which was really trained: its answers make sense and are recorded."""

import json
import math
import os
import tempfile
import unittest

from support import DATA, good, good_json, penstock
from terminal_driver import Terminal

MODEL = os.environ.get("PENSTOCK_DEMO_MODEL", "")
BUDGET = ("--memory", "56M", "-c", "1024")


def lines_of(name, count):
    with open(os.path.join(DATA, "eval", name), encoding="utf-8") as f:
        return [json.loads(line) for line in f][:count]


@unittest.skipUnless(os.path.exists(os.path.join(MODEL, "penstock.json")), "scripts/demo-model makes it")
class Demo(unittest.TestCase):
    def file(self, name, text):
        folder = tempfile.TemporaryDirectory(prefix="penstock-demo-")
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def test_answers_while_streaming_are_the_recorded_ones(self):
        items = self.file(
            "items.jsonl", "".join(json.dumps(i) + "\n" for i in lines_of("eval_qa.jsonl", 8))
        )
        output = good("answer", MODEL, "--items", items, "-n", 48, "--json", *BUDGET)
        answers = {a["id"]: a["text"].strip() for a in map(json.loads, output.splitlines())}
        for recorded in lines_of("demo_greedy_qa.jsonl", 8):
            self.assertEqual(answers[recorded["id"]], recorded["output"])

    def test_every_instruction_set_computes_the_same_bits(self):
        """Of the whole model, plain code included: the second edition of the arithmetic is exact."""
        targets = good_json("version")["simd_targets"]
        self.assertTrue({"SCALAR", "EMU128"} & set(targets), targets)  # by the compiler's name for plain code
        ask = ("run", MODEL, "--chat", "-p", "Why is the sky blue?", "-n", 24, "--greedy", "-c", 1024)
        best = good_json(*ask, *BUDGET)
        for target in targets:
            for budget in (BUDGET, ("--memory", "128M")):
                with self.subTest((target, budget)):
                    told = good_json(*ask, "--simd", target, *budget)
                    self.assertTrue(told["penstock"]["target"].startswith(target + ","))
                    self.assertEqual(told["token_ids"], best["token_ids"])
                    self.assertEqual(told["penstock"]["logits_hash"], best["penstock"]["logits_hash"])

    def test_scores_are_the_recorded_ones(self):
        recorded = lines_of("demo_score_text.jsonl", 2)
        texts = [t for t in lines_of("eval_text.jsonl", 12) if t["id"] in {r["id"] for r in recorded}]
        path = self.file("texts.jsonl", "".join(json.dumps(t) + "\n" for t in texts))
        output = good("score", MODEL, "--texts", path, "--json")
        for got, expected in zip(map(json.loads, output.splitlines()), recorded):
            self.assertEqual(got["tokens"], expected["tokens"])
            self.assertTrue(math.isclose(got["nll"], expected["nll"], rel_tol=1e-4))

    def test_reasoning_comes_apart_from_the_answer(self):
        arguments = ("run", MODEL, "--chat", "-p", "What is the capital of France?", *BUDGET)
        thought = good_json(*arguments, "--think", "on")
        self.assertTrue(thought["reasoning"])
        self.assertIn("Paris", thought["content"])
        self.assertNotIn("think>", thought["content"])
        direct = good_json(*arguments, "--think", "off")
        self.assertEqual(direct["reasoning"], "")
        self.assertIn("Paris", direct["content"])
        self.assertEqual(direct["finish_reason"], "stop")

    def test_stop_strings_end_the_answers_of_run_and_chat(self):
        question = "What is the capital of Portugal?"
        for stop, expected in (("Lisbon", "The capital of Portugal is "), ('["xyz", "is L"]', "The capital of Portugal "),
                               ("of Port", "The capital "), ("Lisbons", "The capital of Portugal is Lisbon.")):
            told = good_json("run", MODEL, "--chat", "-p", question, "--think", "off", "--greedy", "--stop", stop, *BUDGET)
            self.assertEqual((told["content"], told["finish_reason"]), (expected, "stop"))
            said = good("chat", MODEL, "--think", "off", "--greedy", "--no-history", "--stop", stop, *BUDGET, stdin=question + "\n")
            self.assertIn(expected, said)
            self.assertNotIn(json.loads(stop)[1] if stop.startswith("[") else stop, said)

    def test_tools_are_offered_and_called(self):
        item = lines_of("eval_tools.jsonl", 1)[0]
        tools = self.file("tools.json", json.dumps(item["tools"]))
        got = good_json(
            *("run", MODEL, "--chat", "--tools", tools, "--think", "off"),
            *("-p", item["messages"][0]["content"], "-n", 100, "-c", "2048"),
        )
        self.assertEqual(got["content"].strip(), item["expected"])

    def test_a_second_turn_reads_again_only_what_the_template_changed(self):
        done = penstock(
            *("chat", MODEL, "--json", "--think", "off", *BUDGET),
            stdin="What is 3 times 4?\nAnd what is 5 times 6?\n",
        )
        first, second = map(json.loads, done.stdout.splitlines())
        self.assertGreater(second["timings"]["cache_n"], first["timings"]["prompt_n"] / 2)
        self.assertIn("30", second["content"])

    def chat_with_reasoning(self, **variables):
        chat = Terminal("chat", MODEL, "--think", "on", "--no-history", *BUDGET, **variables)
        chat.wait_for(">>> ")
        chat.type("What is the capital of France?\r")
        answer = chat.wait_for(">>> ")
        chat.type("\x04")
        self.assertEqual(chat.end(), 0)
        return answer

    def test_reasoning_is_dimmed_on_a_terminal_with_colours(self):
        answer = self.chat_with_reasoning()
        dimmed, _, rest = answer.partition("\x1b[2m")[2].partition("\x1b[0m")
        self.assertIn("</think>", dimmed)
        self.assertIn("Paris", rest)
        self.assertNotIn("\x1b[2m", self.chat_with_reasoning(NO_COLOR="1"))


if __name__ == "__main__":
    unittest.main()
