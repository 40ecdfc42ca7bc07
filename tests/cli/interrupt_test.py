#!/usr/bin/env python3
"""Ctrl-C: what is left behind, what is still told, and how it ends."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from support import (
    BINARY,
    TIMEOUT_S,
    Model,
    digest_of_folder,
    environment,
    good,
    good_json,
    write_zero_checkpoint,
)

INTERRUPTED = 130


def start(*arguments):
    return subprocess.Popen(
        [BINARY, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def wait_until(condition, process):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError("it ended before it could be interrupted")
        time.sleep(0.002)


class PackInterrupted(unittest.TestCase):
    def setUp(self):
        folder = tempfile.mkdtemp(prefix="penstock-interrupt-")
        self.addCleanup(shutil.rmtree, folder)
        self.source = os.path.join(folder, "source")
        write_zero_checkpoint(self.source, experts=128, intermediate=512)
        self.target = os.path.join(folder, "model")
        self.other = os.path.join(folder, "other")

    def interrupt_packing(self):
        process = start("pack", self.source, self.target, "--experts", 8)
        experts = os.path.join(self.target + ".partial", "experts.bin")
        wait_until(lambda: os.path.exists(experts) and os.path.getsize(experts) > 0, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, errors.decode()

    def test_leaves_a_state_that_the_same_command_continues(self):
        code, errors = self.interrupt_packing()
        self.assertEqual(code, INTERRUPTED, errors)
        self.assertIn("again", errors)
        self.assertFalse(os.path.exists(self.target))
        good_json("pack", self.source, self.target, "--experts", 8)
        good("pack", self.source, self.other, "--experts", 8)
        self.assertEqual(digest_of_folder(self.target), digest_of_folder(self.other))
        self.assertFalse(os.path.exists(self.target + ".partial"))


class RunInterrupted(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = Model()

    @classmethod
    def tearDownClass(cls):
        cls.model.remove()

    def start_long_answer(self, *arguments):
        """Goes on until the context of 4,096 is full, since the greedy answer meets no end token."""
        process = start("run", self.model.path, "-p", "a", "--greedy", "--slots", 2, *arguments)
        process.stdout.read(1)
        return process

    def test_stops_the_answer_and_still_tells_the_figures(self):
        process = self.start_long_answer()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, INTERRUPTED, errors)
        self.assertIn(b"tok/s", errors)

    def test_a_reader_that_goes_away_ends_the_answer_quietly(self):
        process = self.start_long_answer("--quiet")
        process.stdout.close()
        self.assertEqual(process.wait(timeout=TIMEOUT_S), 0)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()

    def test_sigterm_stops_it_too(self):
        process = self.start_long_answer()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, INTERRUPTED)


if __name__ == "__main__":
    unittest.main()
