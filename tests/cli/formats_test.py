#!/usr/bin/env python3
"""The demo model as people have theirs: in BF16, FP8, MLX at 4 bits, GGUF (Q8_0, Q4_0, Q4_K_M) and packed.

Each is made of the packed demo model by tools/demo_master.py and tools/demo_formats.py, in the virtual environment of
scripts/test-venv, beside a twin in F32 of the values that its codes stand for, as the public packages decode them. The reference
run is that of the twin in float32, whose arithmetic the golden tests compare with the official implementation.
"""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

from support import DATA, IS_SANITIZED, good, good_json, read_safetensors

MODEL = os.environ.get("PENSTOCK_DEMO_MODEL", "")
ROOT = os.path.normpath(os.path.join(DATA, "..", ".."))
PYTHON = os.path.join(ROOT, "build", "formats", "bin", "python")
FILES = {"q8_0": "q8_0.gguf", "q4_0": "q4_0.gguf", "q4_k_m": "q4_k_m.gguf", "mlx-4": "mlx-4", "fp8": "fp8"}
FLOAT32_MAX, FIXED16_MAX = 1e-4, 1e-3  # of the largest logit
STREAMED = ("--slots", "100")  # of 512 experts: most of what a prompt asks for is read again


def tool(name, *arguments):
    done = subprocess.run([PYTHON, "-B", os.path.join(ROOT, "tools", name), *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{name}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


@unittest.skipIf(IS_SANITIZED, "the release build does it")
class Formats(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="penstock-formats-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.ids = cls.path("ids.json")
        with open(os.path.join(DATA, "eval", "eval_qa.jsonl"), encoding="utf-8") as file:
            items = [json.loads(line) for line in file][:8]
        cls.expected = {item["id"]: item["expected"] for item in items}
        cls.items = cls.path("items.jsonl")
        with open(cls.items, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(item) + "\n" for item in items)
        with open(cls.ids, "w", encoding="utf-8") as file:
            json.dump([(i * i * 37 + 11 * i) % 8180 for i in range(40)], file)
        cls.master = cls.path("bf16")
        tool("demo_master.py", MODEL, cls.master)

    @classmethod
    def path(cls, *names):
        return os.path.join(cls.folder, *names)

    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=self.folder)
        self.addCleanup(shutil.rmtree, self.folder)

    def of_this_test(self, *names):
        return os.path.join(self.folder, *names)

    def logits(self, model, name, *flags):
        out = self.of_this_test(name + ".safetensors")
        good("logits", model, "--ids", self.ids, "--out", out, "--routes", *flags)
        return out

    def answers(self, model):
        output = good("answer", model, "--items", self.items, "-n", 48, "--json", *STREAMED)
        return {a["id"]: a["text"].strip() for a in map(json.loads, output.splitlines())}

    def agrees(self, reference, other, limit):
        figures = json.loads(tool("compare_logits.py", reference, other, "--json"))
        self.assertEqual(figures["positions"], 40)
        self.assertLess(figures["difference_over_largest_logit"], limit)
        self.assertGreater(figures["same_experts"], 0.99)

    def check(self, model, twin, is_packed=False):
        """Logits as those of the twin, of the model packed of it bit for bit, and answers that are right."""
        reference = self.logits(twin, "reference", "--arithmetic", "float32")
        streamed = self.logits(model, "streamed", *STREAMED)
        self.agrees(reference, self.logits(model, "float32", "--arithmetic", "float32", *STREAMED), FLOAT32_MAX)
        self.agrees(reference, streamed, FIXED16_MAX)
        answers = self.answers(model)
        right = sum(answers[name] == text for name, text in self.expected.items())
        self.assertGreaterEqual(right, 6, answers)
        if is_packed:
            return
        packed = self.of_this_test("packed")
        good_json("pack", model, packed, "--experts", "keep")
        self.assertTrue(read_safetensors(self.logits(packed, "packed", *STREAMED)) == read_safetensors(streamed))
        self.assertEqual(self.answers(packed), answers)

    def check_kind(self, kind, on_gpu=False):
        tool("demo_formats.py", self.master, self.of_this_test("made"), kind, "--twins", self.of_this_test("twins"))
        self.check(self.of_this_test("made", FILES[kind]), self.of_this_test("twins", kind))
        if on_gpu:
            self.check_gpu(self.of_this_test("made", FILES[kind]))

    def check_gpu(self, model):
        """The same logits where a software GPU computes experts in their own coding."""
        ask = ("run", model, "-p", "Tell me a story.", "-n", 12, "--greedy", "--memory", "200M", "--context", 512,
               "--warm-start", "off")
        alone = good_json(*ask)["penstock"]
        beside = good_json(*ask, "--gpu", "llvmpipe", "--vram", "24M")["penstock"]
        self.assertEqual(beside["logits_hash"], alone["logits_hash"])
        self.assertGreater(beside["gpu_experts"], 0)
        self.assertEqual(beside["gpu"]["expert_types_left"], [])

    def test_bf16(self):
        self.check(self.master, self.master)

    def test_our_own(self):
        tool("demo_master.py", MODEL, self.of_this_test("f32"), "--dtype", "F32")
        self.check(MODEL, self.of_this_test("f32"), is_packed=True)

    def test_gguf_q8_0(self):
        self.check_kind("q8_0", on_gpu=True)

    def test_gguf_q4_0(self):
        self.check_kind("q4_0", on_gpu=True)

    def test_gguf_q4_k_m(self):
        self.check_kind("q4_k_m")

    def test_mlx_4(self):
        self.check_kind("mlx-4", on_gpu=True)

    def test_fp8(self):
        self.check_kind("fp8")


if __name__ == "__main__":
    unittest.main()
