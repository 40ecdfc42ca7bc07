#!/usr/bin/env python3
"""--warm-start: what is kept, what is read, and what cannot be used; --memory-pressure."""

import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

from support import BINARY, TIMEOUT_S, Model, environment, good, good_json, penstock
from terminal_driver import Terminal


def setUpModule():
    global MODEL
    MODEL = Model()


def tearDownModule():
    MODEL.remove()


class WarmStart(unittest.TestCase):
    def setUp(self):
        self.state = tempfile.mkdtemp(prefix="penstock-state-")
        self.env = environment(XDG_STATE_HOME=self.state)
        self.folder = os.path.join(self.state, "penstock", "usage")

    def tearDown(self):
        shutil.rmtree(self.state)

    def run_json(self, *arguments, model=None):
        return good_json(
            "run", model or MODEL.path, "-p", "hello", "-n", 12, "--greedy", *arguments, env=self.env
        )

    def files(self):
        return os.listdir(self.folder) if os.path.isdir(self.folder) else []

    def file(self):
        (name,) = self.files()
        return os.path.join(self.folder, name)

    def content(self):
        with open(self.file(), "rb") as f:
            return f.read()

    def errors(self, *arguments):
        done = penstock("run", MODEL.path, "-p", "hello", "-n", 2, *arguments, env=self.env)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stderr.decode()

    def test_a_run_keeps_what_it_used_in_a_file_named_by_the_model(self):
        first = self.run_json()
        self.assertEqual(self.files(), [first["penstock"]["model_id"]])
        self.assertEqual(first["penstock"]["warm_start_experts"], 0)

    def test_eager_reads_the_experts_of_earlier_runs_and_gives_the_same_answer(self):
        cold = self.run_json("--warm-start", "off")
        self.assertEqual(self.files(), [])
        self.run_json()
        warm = self.run_json("--warm-start", "eager")
        self.assertEqual(warm["token_ids"], cold["token_ids"])
        self.assertEqual(warm["penstock"]["logits_hash"], cold["penstock"]["logits_hash"])
        self.assertGreater(warm["penstock"]["warm_start_experts"], 0)
        self.assertEqual(warm["penstock"]["expert_misses"], 0)
        self.assertGreater(cold["penstock"]["expert_misses"], 0)
        self.assertIn("warm start: ", self.errors("--warm-start", "eager"))

    def counts(self):
        data = self.content()[32:-16]
        return struct.unpack(f"<{len(data) // 4}f", data)

    def test_runs_side_by_side_keep_each_others_counts(self):
        chat = subprocess.Popen([BINARY, "chat", MODEL.path, "-n", "6", "--greedy", "--json"], env=self.env,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        chat.stdin.write(b"something else\n")
        chat.stdin.flush()
        chat.stdout.readline()  # it has begun, with no file yet
        self.run_json()
        of_the_run = self.counts()
        chat.stdin.close()
        self.assertEqual(chat.wait(timeout=TIMEOUT_S), 0)
        chat.stdout.close()
        both = self.counts()
        self.assertTrue(all(b >= a for a, b in zip(of_the_run, both)))
        self.assertGreater(sum(both), 1.2 * sum(of_the_run))

    def test_auto_reads_nothing_before_a_run(self):
        self.run_json()
        again = self.run_json("--warm-start", "auto")
        self.assertEqual(again["penstock"]["warm_start_experts"], 0)
        self.assertIn("earlier runs used", self.errors("-v"))

    def test_off_neither_reads_nor_writes(self):
        self.run_json()
        before = self.content()
        self.assertNotIn("warm start", self.errors("-v", "--warm-start", "off"))
        self.assertEqual(self.content(), before)

    def test_a_damaged_file_is_a_warning_and_replaced(self):
        self.run_json()
        with open(self.file(), "r+b") as f:
            f.seek(60)
            f.write(b"\xff")
        self.assertIn("its checksum does not agree", self.errors("--warm-start", "eager"))
        self.assertNotIn("no warm start", self.errors("--warm-start", "eager"))
        with open(self.file(), "wb") as f:
            f.write(b"")
        self.assertIn("no warm start", self.errors())

    def test_the_file_of_another_model_is_a_warning(self):
        self.run_json()
        other = os.path.join(self.state, "other")
        good("pack", MODEL.source, other, "--experts", "keep", "--resident", "8")
        theirs = self.run_json(model=other)["penstock"]["model_id"]
        names = set(self.files())
        self.assertEqual(len(names), 2)
        (mine,) = names - {theirs}
        shutil.copy(os.path.join(self.folder, theirs), os.path.join(self.folder, mine))
        self.assertIn("the usage of another model", self.errors("--warm-start", "eager"))

    def test_a_place_that_cannot_be_written_is_told_and_no_failure(self):
        with open(os.path.join(self.state, "penstock"), "w", encoding="ascii"):
            pass  # a file where the folder should be
        self.assertIn("nothing was kept", self.errors())
        self.assertEqual(penstock("run", MODEL.path, "-p", "x", "-n", 1, "-q", env=self.env).stderr, b"")

    def test_an_expert_that_cannot_be_read_is_left_out(self):
        copy = os.path.join(self.state, "model")
        shutil.copytree(MODEL.path, copy)
        self.run_json(model=copy)
        size = os.path.getsize(os.path.join(copy, "experts.bin"))
        with open(os.path.join(copy, "experts.bin"), "r+b") as f:
            for offset in range(100, size, 1000):
                f.seek(offset)
                f.write(b"\xa5")
        done = penstock("run", copy, "-p", "hello", "--warm-start", "eager", env=self.env)
        self.assertEqual(done.returncode, 3)  # the prompt's own read fails
        self.assertIn("could not be read", done.stderr.decode())

    def test_a_chat_keeps_and_reads_too(self):
        lines = "hello\nmore\n"
        arguments = ("chat", MODEL.path, "-n", 4, "--greedy", "--json")
        cold = penstock(*arguments, stdin=lines, env=self.env)
        self.assertEqual(cold.returncode, 0)
        self.assertEqual(len(self.files()), 1)
        warm = penstock(*arguments, "--warm-start", "eager", stdin=lines, env=self.env)
        cold, warm = ([json.loads(line) for line in out.stdout.splitlines()] for out in (cold, warm))
        self.assertEqual(len(cold), 2)
        for before, after in zip(cold, warm):
            self.assertEqual(after["token_ids"], before["token_ids"])
            self.assertEqual(after["penstock"]["logits_hash"], before["penstock"]["logits_hash"])
            self.assertGreater(after["penstock"]["warm_start_experts"], 0)

    def test_a_chat_reads_while_nobody_types(self):
        self.run_json()
        chat = Terminal("chat", MODEL.path, "--greedy", "-n", "3", XDG_STATE_HOME=self.state)
        chat.wait_for(">>> ")
        time.sleep(0.5)
        chat.type("hi\r")
        chat.wait_for(">>> ")
        chat.type("/stats\r")
        told = chat.wait_for("experts read")
        read, wanted = told.rsplit("warm start: ", 1)[1].split(" of ")
        self.assertEqual(int(read), int(wanted))
        self.assertGreater(int(read), 0)
        chat.wait_for(">>> ")
        chat.type("/bye\r")
        self.assertEqual(chat.end(), 0)

    def test_ctrl_c_while_reading_ends_the_run_cleanly(self):
        self.run_json()
        before = self.content()
        process = subprocess.Popen(
            [BINARY, "run", MODEL.path, "-p", "a", "--warm-start", "eager", "--slots", "20"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
        )
        process.stderr.readline()  # the plan: loaded
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(len(self.content()), len(before))
        self.assertEqual(len(self.files()), 1)


class MemoryPressure(unittest.TestCase):
    def test_figures_tell_the_slots(self):
        for choice in ("shrink", "ignore"):
            figures = good_json("run", MODEL.path, "-p", "hello", "-n", 2, "--memory-pressure", choice)
            figures = figures["penstock"]
            self.assertEqual(figures["slots_now"], figures["slots"] - figures["slots_given_back"])
            self.assertGreaterEqual(figures["slots_given_back"], figures["cache_shrinks"])
        self.assertEqual(figures["cache_shrinks"], 0)


if __name__ == "__main__":
    unittest.main()
