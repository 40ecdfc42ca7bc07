#!/usr/bin/env python3
"""pack --in-place as a process: killed at every step, and the refusals that a real file system asks for."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import unittest

from support import (DATA, IS_SANITIZED, TIMEOUT_S, digest_of_folder, environment, good, good_json, penstock,
                     shard_safetensors)
from terminal_driver import Terminal

FAULTY = os.environ["PENSTOCK_FAULTY_BINARY"]
SHARDS = 3


def write_shards(folder):
    """r0-gva2 as SHARDS files with an index; returns their names."""
    shutil.copytree(os.path.join(DATA, "random", "r0-gva2"), folder)
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o644)
    for name in ("expected.safetensors", "case.json"):
        os.remove(os.path.join(folder, name))
    return shard_safetensors(folder, SHARDS)


class PackInPlace(unittest.TestCase):
    def setUp(self):
        # In memory where that is possible: a hundred killed programs and each of them syncs.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        folder = tempfile.TemporaryDirectory(prefix="penstock-consumed-", dir=memory)
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.kept = os.path.join(self.folder, "kept")
        self.shards = write_shards(self.kept)
        self.source = os.path.join(self.folder, "source")
        self.target = os.path.join(self.folder, "model.penstock")

    def fresh(self):
        for path in (self.source, self.target, self.target + ".partial"):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.target + ".journal", self.target + ".in-place", self.target + ".in-place.partial"):
            if os.path.exists(path):
                os.remove(path)
        shutil.copytree(self.kept, self.source)

    def left(self):
        return [name for name in self.shards if os.path.exists(os.path.join(self.source, name))]

    def command(self, *flags):
        return ("pack", "--in-place", self.source, self.target, "--experts", "keep", "--threads", "1", *flags)

    def refused(self, code, text, *flags):
        before = digest_of_folder(self.source)
        done = penstock(*self.command(*flags))
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(text, done.stderr.decode())
        self.assertEqual(digest_of_folder(self.source), before)
        self.assertFalse(os.path.exists(self.target))
        self.assertFalse(os.path.exists(self.target + ".partial"))

    def test_it_becomes_the_model_of_a_plain_pack(self):
        self.fresh()
        plain = os.path.join(self.folder, "plain.penstock")
        good("pack", self.source, plain, "--experts", "keep")
        told, verified = map(json.loads, good(*self.command("--yes", "--verify", "--json")).splitlines())
        self.assertEqual(verified["num_faults"], 0)
        self.assertEqual(digest_of_folder(self.target), digest_of_folder(plain))
        self.assertEqual(self.left(), [])
        self.assertTrue(os.path.exists(os.path.join(self.source, "config.json")))
        again = penstock(*self.command("--yes"))
        self.assertEqual(again.returncode, 2, again.stderr)
        self.assertIn(b"exists", again.stderr)
        self.assertEqual(penstock("pack", self.kept, self.target + "2", "--yes").returncode, 2)
        self.assertEqual(sorted(map(os.path.basename, told["removed"])), self.shards)
        self.assertEqual(told["removed_bytes"],
                         sum(os.path.getsize(os.path.join(self.kept, name)) for name in self.shards))
        self.assertEqual(sorted(os.listdir(self.folder)), ["kept", "model.penstock", "plain.penstock", "source"])

    def test_killed_at_every_step_it_goes_on(self):
        self.fresh()
        plain = os.path.join(self.folder, "plain.penstock")
        good("pack", self.source, plain, "--experts", "keep")
        expected = digest_of_folder(plain)
        left = set()
        stride = 7 if IS_SANITIZED else 1
        step = 1 - stride
        while True:
            step += stride
            self.fresh()
            killed = subprocess.run(
                [FAULTY, *self.command("--yes")], capture_output=True, timeout=TIMEOUT_S, check=False,
                env=environment(PENSTOCK_TEST_KILLED_AT=str(step)))
            if killed.returncode == 0:
                break
            self.assertEqual(killed.returncode, -signal.SIGKILL, killed.stderr)
            left.add(len(self.left()))
            # Before the last removal: that of the record.
            if os.path.exists(self.target + ".in-place") or not os.path.exists(self.target):
                good(*self.command("--yes"))
            self.assertEqual(digest_of_folder(self.target), expected, step)
            self.assertEqual(self.left(), [], step)
            self.assertEqual(sorted(os.listdir(self.folder)),
                             ["kept", "model.penstock", "plain.penstock", "source"], step)
        self.assertGreater(step, 60)
        if stride == 1:
            self.assertEqual(left, set(range(SHARDS + 1)), "it was killed between all of them")

    def test_from_another_folder_and_by_another_way_it_goes_on(self):
        self.fresh()
        step = 0
        while len(self.left()) in (0, SHARDS):
            step += 10
            self.fresh()
            subprocess.run([FAULTY, *self.command("--yes")], capture_output=True, timeout=TIMEOUT_S, check=False,
                           env=environment(PENSTOCK_TEST_KILLED_AT=str(step)))
        good("pack", "--in-place", "source/", "../" + os.path.basename(self.folder) + "/model.penstock",
             "--experts", "keep", "--yes", cwd=self.folder)
        self.assertEqual(self.left(), [])
        self.assertEqual(good_json("pack", "--verify", self.target)["num_faults"], 0)

    def test_nobody_agreed(self):
        self.fresh()
        self.refused(2, "agree with --yes")

    def test_the_name_is_typed_at_a_terminal(self):
        self.fresh()
        terminal = Terminal(*self.command())
        terminal.wait_for("type source to do so: ")
        terminal.type("yes\n")
        terminal.wait_for('"yes" is not "source"; nothing was removed')
        self.assertEqual(terminal.end(), 2)
        for typed, code in (("\n", 2), ("\x04", 2), ("source \n", 2), ("\x03", 130)):
            with self.subTest(typed=typed):
                self.assertEqual(self.left(), self.shards)
                self.assertFalse(os.path.exists(self.target + ".partial"))
                terminal = Terminal(*self.command())
                terminal.wait_for(f"removes {SHARDS} files")
                terminal.wait_for("type source to do so: ")
                terminal.type(typed)
                self.assertEqual(terminal.end(), code)
        self.assertEqual(self.left(), self.shards)
        terminal = Terminal(*self.command())
        terminal.wait_for("type source to do so: ")
        terminal.type("source\n")
        self.assertEqual(terminal.end(), 0)
        self.assertEqual(self.left(), [])

    def test_precision_is_given_up_when_asked_for_alone(self):
        self.fresh()
        before = digest_of_folder(self.source)
        done = penstock("pack", "--in-place", self.source, self.target, "--yes")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--experts", done.stderr.decode())
        self.assertEqual(digest_of_folder(self.source), before)
        done = penstock("pack", "--in-place", self.source, self.target, "--resident", "8", "--experts", "keep")
        self.assertEqual(done.returncode, 2)
        self.assertIn("the precision of the other matrices, which become q8", done.stderr.decode())
        self.assertEqual(digest_of_folder(self.source), before)

    def test_files_that_are_not_the_folders_own(self):
        self.fresh()
        shard = os.path.join(self.source, self.shards[1])
        blob = os.path.join(self.folder, "blob")
        shutil.move(shard, blob)
        os.symlink(blob, shard)
        self.refused(2, "is a link", "--yes")
        os.remove(shard)
        os.link(blob, shard)
        self.refused(2, "hard links", "--yes")
        os.remove(shard)
        shutil.move(blob, shard)
        os.chmod(shard, 0o444)
        self.refused(2, "read-only", "--yes")
        os.chmod(shard, 0o644)
        good(*self.command("--yes"))
        self.assertEqual(self.left(), [])

    def test_flags_that_do_not_go_with_it(self):
        self.fresh()
        self.refused(2, "--force", "--yes", "--force")
        self.refused(2, "--target-bytes", "--yes", "--experts", "4", "--target-bytes", "1M")
        text = os.path.join(self.folder, "text")
        with open(text, "w", encoding="utf-8") as file:
            file.write("text")
        self.refused(2, "--calibrate", "--yes", "--calibrate", text)
        for arguments in ((self.source,), ("--texts", self.source, self.target), ("--verify", self.source)):
            done = penstock("pack", "--in-place", "--yes", *arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn("--in-place", done.stderr.decode())
        self.assertEqual(self.left(), self.shards)


if __name__ == "__main__":
    unittest.main()
