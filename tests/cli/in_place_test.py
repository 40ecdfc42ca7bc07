#!/usr/bin/env python3
"""The verbs on checkpoints as people have them: GGUF files, MLX and FP8 folders, run in place."""

import json
import os
import shutil
import struct
import tempfile
import unittest

from support import DATA, good, good_json, penstock, read_safetensors

SOURCES = {"gguf-mixed": "m.gguf", "gguf-old": "m-00001-of-00003.gguf", "gguf-mtp": "m.gguf", "gguf-next": "m.gguf",
           "mlx-4": "", "mlx-mxfp4": "", "fp8": ""}


def path_of(name):
    return os.path.join(DATA, "sources", name, SOURCES[name]).rstrip("/")


class InPlace(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-in-place-")
        self.addCleanup(self.folder.cleanup)
        self.prompt = os.path.join(self.folder.name, "ids.json")
        with open(self.prompt, "w") as file:
            json.dump([1, 5, 9, 2, 14, 3, 7, 7], file)

    def logits(self, model, *flags):
        out = os.path.join(self.folder.name, "logits.safetensors")
        good("logits", model, "--ids", self.prompt, "--out", out, "--threads", "2", *flags)
        return read_safetensors(out)["logits"]

    def test_every_coding_gives_logits_and_the_same_streamed(self):
        for name in SOURCES:
            with self.subTest(name):
                everything = self.logits(path_of(name))
                self.assertEqual(self.logits(path_of(name), "--slots", "2"), everything)
                exact = self.logits(path_of(name), "--arithmetic", "float32")
                self.assertEqual(self.logits(path_of(name), "--arithmetic", "float32", "--slots", "2"), exact)
                self.assertEqual(exact == everything, name == "fp8")

    def test_plan_and_bench_know_such_a_model(self):
        plan = good_json("plan", path_of("mlx-4"), "--memory", "1G")
        self.assertEqual(plan["slots"], plan["experts"])
        self.assertGreater(plan["expert_bytes"], 0)
        self.assertIn("total", good("plan", path_of("gguf-mixed"), "--memory", "1G"))
        rows = good("bench", path_of("gguf-next"), "-p", "8", "-n", "4", "-r", "1", "--threads", "1", "--json")
        self.assertIn("experts BF16, Q8_0", json.loads(rows.splitlines()[0])["model_type"])

    def test_packed_it_gives_the_same_logits_and_is_whole(self):
        for name in SOURCES:
            with self.subTest(name):
                target = os.path.join(self.folder.name, name + ".penstock")
                packed = good_json("pack", path_of(name), target)
                self.assertEqual(self.logits(target), self.logits(path_of(name)))
                self.assertEqual(self.logits(target, "--slots", "2"), self.logits(path_of(name)))
                self.assertEqual(good_json("pack", "--verify", target)["num_faults"], 0)
                shown = good_json("show", target)
                self.assertEqual((shown["id"], shown["format_version"]), (packed["id"], 2))
                self.assertEqual(shown["options"], {"experts": "keep", "resident": "keep"})
                plan = good_json("plan", target, "--memory", "1G")
                self.assertEqual(plan["slots"], plan["experts"])

    def test_what_is_packed_anew_is_asked_for(self):
        target = os.path.join(self.folder.name, "anew.penstock")
        done = penstock("pack", path_of("fp8"), target, "--experts", "4")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--experts 4", done.stderr.decode())
        for bits, name in [("8", "q8"), ("6", "affine 6 bits in 64"), ("5", "affine 5 bits in 64")]:
            good("pack", path_of("gguf-mixed"), target, "--resident", bits, "--force")
            shown = good_json("show", target)
            self.assertEqual(shown["options"], {"experts": "keep", "resident": name})
            self.assertEqual(good_json("pack", "--verify", target)["num_faults"], 0)
            self.assertNotEqual(self.logits(target), self.logits(path_of("gguf-mixed")))
            self.assertEqual(self.logits(target), self.logits(target, "--slots", "2", "--threads", "1"))

    def test_verifying_reads_all_of_it_and_remembers(self):
        model = os.path.join(self.folder.name, "m.gguf")
        shutil.copyfile(path_of("gguf-next"), model)
        first = good_json("pack", "--verify", model)
        self.assertGreater(first["learned"], 0)
        self.assertEqual((first["compared"], first["num_faults"]), (0, 0))
        again = good_json("pack", "--verify", model)
        self.assertEqual((again["compared"], again["learned"]), (first["learned"], 0))
        # One bit of the last expert, before output_norm and output, without a new time.
        stat = os.stat(model)
        with open(model, "r+b") as file:
            file.seek(-2532, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-2532, os.SEEK_END)
            file.write(bytes([byte ^ 1]))
        os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        done = penstock("pack", "--verify", model)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("first read", done.stderr.decode())

    def test_a_file_with_a_tokenizer_answers_texts(self):
        result = good_json("run", path_of("gguf-old"), "-p", "ab ba", "--max-tokens", "5", "--threads", "1")
        self.assertLessEqual(len(result["token_ids"]), 5)
        self.assertGreater(result["penstock"]["expert_misses"], 0)
        texts = os.path.join(self.folder.name, "texts.jsonl")
        with open(texts, "w") as file:
            file.write(json.dumps({"id": 1, "text": "abba ab"}) + "\n")
        self.assertIn("perplexity", good("score", path_of("gguf-old"), "--texts", texts, "--threads", "1"))

    def test_a_file_cut_short_is_one_line_and_exit_3(self):
        cut = os.path.join(self.folder.name, "cut.gguf")
        shutil.copy(path_of("gguf-mixed"), cut)
        os.truncate(cut, os.path.getsize(cut) - 4096)
        done = penstock("run", cut, "-p", "a")
        self.assertEqual(done.returncode, 3)
        self.assertEqual(done.stderr.decode().count("\n"), 1, done.stderr)
        self.assertIn("cut.gguf", done.stderr.decode())

    def test_a_file_that_is_none_of_these_is_refused(self):
        other = os.path.join(self.folder.name, "other")
        with open(other, "wb") as file:
            file.write(struct.pack("<4sI", b"GGUX", 3))
        self.assertEqual(penstock("run", other, "-p", "a").returncode, 3)


if __name__ == "__main__":
    unittest.main()
