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

    def interrupt_run(self, *arguments):
        # A prompt of one byte and no end token: the answer goes on until the context is full.
        process = start("run", self.model.path, "-p", "a", "--greedy", "--slots", 2, *arguments)
        first = process.stdout.read(1) if not arguments else b""
        if arguments:
            time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, first + output, errors.decode()

    def test_stops_the_answer_and_still_tells_the_figures(self):
        code, output, errors = self.interrupt_run()
        if code == 0:
            self.skipTest("the answer was over before it could be interrupted")
        self.assertEqual(code, INTERRUPTED, errors)
        self.assertGreater(len(output), 0)
        self.assertIn("tok/s", errors)

    def test_sigterm_stops_it_too(self):
        process = start("run", self.model.path, "-p", "a", "--greedy", "--slots", 2)
        process.stdout.read(1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)
        self.assertIn(process.returncode, (0, INTERRUPTED))


if __name__ == "__main__":
    unittest.main()
