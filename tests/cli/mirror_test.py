#!/usr/bin/env python3
"""--mirror: copies of the experts on other drives, whole, damaged, missing or none at all."""

import json
import os
import shutil
import tempfile
import unittest

from support import Model, environment, good_json, penstock


def setUpModule():
    global MODEL
    MODEL = Model()


def tearDownModule():
    MODEL.remove()


class Mirror(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="penstock-mirror-")
        self.env = environment(XDG_STATE_HOME=self.folder)

    def tearDown(self):
        shutil.rmtree(self.folder)

    def copy(self, name):
        folder = os.path.join(self.folder, name)
        os.mkdir(folder)
        shutil.copy(os.path.join(MODEL.path, "experts.bin"), folder)
        return folder

    def spoil(self, folder):
        path = os.path.join(folder, "experts.bin")
        with open(path, "r+b") as file:
            file.write(os.urandom(os.path.getsize(path)))

    def arguments(self, *more):
        return ["run", MODEL.path, "-p", "hello", "-n", 12, "--greedy", "--warm-start", "off", *more]

    def run_json(self, *more):
        return good_json(*self.arguments(*more), env=self.env)

    def refused(self, code, *more):
        done = penstock(*self.arguments(*more), env=self.env)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stderr.decode()

    def expect_same_answer(self, mirrored):
        alone = self.run_json()
        self.assertEqual(mirrored["token_ids"], alone["token_ids"])
        self.assertEqual(mirrored["penstock"]["logits_hash"], alone["penstock"]["logits_hash"])
        self.assertEqual(len(alone["penstock"]["drives"]), 1)

    def test_reads_go_to_every_drive_and_the_answer_is_the_same(self):
        mirrored = self.run_json("--mirror", self.copy("a") + "," + self.copy("b"))
        self.expect_same_answer(mirrored)
        drives = mirrored["penstock"]["drives"]
        self.assertEqual(len(drives), 3)
        for drive in drives:
            self.assertGreater(drive["bytes"], 0)
            self.assertEqual(drive["failures"], 0)

    def test_a_copy_that_rotted_costs_a_warning(self):
        spoiled = self.copy("a")
        self.spoil(spoiled)
        mirrored = self.run_json("--mirror", spoiled)
        self.expect_same_answer(mirrored)
        self.assertGreater(mirrored["penstock"]["drives"][1]["failures"], 0)
        told = penstock(*self.arguments("--mirror", spoiled), env=self.env).stderr.decode()
        self.assertIn(f"warning: {spoiled}/experts.bin: ", told)
        self.assertIn("reads failed; the others have the same bytes", told)

    def test_every_verb_that_reads_tells_of_it(self):
        spoiled = self.copy("a")
        self.spoil(spoiled)
        ids = MODEL.file("ids.json", "[1, 5, 9, 2]")
        texts = MODEL.file("texts.jsonl", json.dumps({"id": 1, "text": "hello there"}))
        for arguments in (
            ["logits", MODEL.path, "--ids", ids, "--out", os.path.join(self.folder, "logits")],
            ["score", MODEL.path, "--texts", texts],
            ["bench", MODEL.path, "-p", 0, "-n", 4, "-r", 2, "--cold", "--json"],
        ):
            with self.subTest(arguments[0]):
                done = penstock(*arguments, "--mirror", spoiled, env=self.env)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("reads failed; the others have the same bytes", done.stderr.decode())
        row = json.loads(done.stdout)
        self.assertEqual([drive["failures"] > 0 for drive in row["drives"]], [False, True])
        self.assertEqual((row["disk_gbps"], row["disk_share"]), (0, 0))

    def test_the_models_own_file_may_be_the_one_that_rotted(self):
        whole = self.copy("a")
        damaged = os.path.join(self.folder, "model")
        shutil.copytree(MODEL.path, damaged)
        self.spoil(damaged)
        arguments = ["run", damaged, "-p", "hello", "-n", 12, "--greedy", "--warm-start", "off"]
        self.assertEqual(penstock(*arguments, env=self.env).returncode, 3)
        self.expect_same_answer(good_json(*arguments, "--mirror", whole, env=self.env))

    def test_what_is_no_copy_is_refused_with_what_to_do(self):
        told = self.refused(3, "--mirror", os.path.join(self.folder, "nothing"))
        self.assertIn("--mirror", told)
        self.assertIn("copies of the model's expert files", told)
        self.assertIn("own file", self.refused(2, "--mirror", MODEL.path))
        twice = self.copy("twice")
        self.assertIn("the very file", self.refused(2, "--mirror", twice + "," + twice + "/"))
        short = self.copy("short")
        os.truncate(os.path.join(short, "experts.bin"), 8192)
        self.assertIn("it is no copy of it", self.refused(3, "--mirror", short))
        self.assertIn("--verify", self.refused(2, "--mirror", self.copy("c"), "--verify", "off"))
        many = ",".join(self.copy(f"many{i}") for i in range(8))
        self.assertIn("at most 7", self.refused(2, "--mirror", many))


if __name__ == "__main__":
    unittest.main()
