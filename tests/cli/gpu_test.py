#!/usr/bin/env python3
"""--gpu and --vram through the program, on the demo model and Mesa's software device (llvmpipe)."""

import json
import os
import tempfile
import unittest

from support import environment, good_json, penstock

DEMO = os.environ["PENSTOCK_DEMO_MODEL"]
ASK = ("-p", "Tell me a story.", "-n", 8, "--greedy", "--memory", "130M", "--context", 512, "--warm-start", "off")


class Gpu(unittest.TestCase):
    def refused(self, code, *flags, env=None):
        out = penstock("run", DEMO, *ASK, *flags, env=env)
        self.assertEqual((out.returncode, out.stdout), (code, b""), out.stderr)
        return out.stderr.decode()

    def test_the_answer_is_the_same_wherever_experts_are_computed(self):
        alone = good_json("run", DEMO, *ASK)
        beside = good_json("run", DEMO, *ASK, "--gpu", "llvmpipe", "--vram", "12M")
        self.assertEqual(beside["token_ids"], alone["token_ids"])
        self.assertEqual(beside["penstock"]["logits_hash"], alone["penstock"]["logits_hash"])
        self.assertGreater(beside["penstock"]["gpu_experts"], 0)
        self.assertEqual(alone["penstock"].get("gpu_experts", 0), 0)

    def test_small_matrices_stay_here_also_when_they_are_asked_for_there(self):
        flags = ("--gpu", "llvmpipe", "--vram", "12M", "--gpu-trunk")
        beside = good_json("run", DEMO, *ASK, *flags, "on")
        self.assertEqual(beside["token_ids"], good_json("run", DEMO, *ASK)["token_ids"])
        gpu = beside["penstock"]["gpu"]
        self.assertEqual((gpu["trunk_matrices"], gpu["trunk_matrices_max"], gpu["trunk_bytes"]), (0, 0, 0))
        self.assertIn("--gpu-trunk", self.refused(2, *flags, "some"))

    def test_a_benchmark_says_what_the_gpu_had_and_did(self):
        flags = ("bench", DEMO, "-p", 0, "-n", 8, "-r", 1, "--memory", "130M")
        alone = good_json(*flags)
        beside = good_json(*flags, "--gpu", "llvmpipe", "--vram", "12M")
        self.assertNotIn("gpu", alone)
        self.assertEqual(beside["logits_hash"], alone["logits_hash"])
        gpu = beside["gpu"]
        self.assertIn("llvmpipe", gpu["name"])
        self.assertFalse(gpu["is_lost"])
        self.assertGreater(gpu["slots"], 0)
        self.assertLessEqual(gpu["used_bytes"], gpu["vram_bytes"])
        self.assertGreater(gpu["promotions"], 0)
        table = penstock(*flags, "--gpu", "llvmpipe", "--vram", "12M")
        self.assertRegex(table.stderr.decode(), "llvmpipe.* slots for [0-9]+ experts")

    def test_budgets_of_a_benchmark_have_room_for_the_gpus_share(self):
        flags = ("bench", DEMO, "-p", 0, "-n", 2, "-r", 1, "--disk-seconds", 0, "--gpu", "llvmpipe", "--vram", "12M")
        for words in ("floor", "25%"):
            row = good_json(*flags, "--budgets", words)
            self.assertGreaterEqual(row["slots"], row["experts"] // 4 if words == "25%" else 64)
            self.assertGreater(row["gpu"]["slots"], 0)

    def test_auto_takes_no_software_device_and_says_so(self):
        out = penstock("run", DEMO, *ASK, "--gpu", "auto", "-q")
        self.assertEqual(out.returncode, 0, out.stderr)
        self.assertRegex(out.stderr.decode(), "^warning: no GPU is used: .*\n$")
        self.assertEqual(out.stdout, penstock("run", DEMO, *ASK, "-q").stdout)

    def test_auto_goes_by_what_was_measured_here(self):
        with tempfile.TemporaryDirectory() as state:
            env = environment(XDG_STATE_HOME=state)
            good_json("doctor", DEMO, env=env)
            path = os.path.join(state, "penstock", "profile.json")
            with open(path, encoding="utf-8") as file:
                profile = json.load(file)

            profile["flash"] = [{**point, "gbps": 2.0} for point in profile["flash"]]

            def line_of(gpu, *flags, memory_gbps=20.0):
                profile["memory"] = [{"threads": 1, "read_gbps": memory_gbps, "copy_gbps": memory_gbps / 2}]
                profile["kernels"] = [{**kernel, "token_gbps": memory_gbps} for kernel in profile["kernels"]]
                profile["gpus"] = [{"name": "Example 9000", "memory_bytes": 16 << 30, "unified": False, "read_gbps": 900,
                                    "to_device_gbps": 20, "round_trip_us": 20, "dispatch_us": 5, "experts_gbps": 0, **gpu}]
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(profile, file)
                out = penstock("run", DEMO, *ASK, *flags, env=env)
                self.assertEqual(out.returncode, 0, out.stderr)
                return "\n".join(line for line in out.stderr.decode().splitlines() if "used" in line)

            # This model is so small that to ask a card takes longer than to compute all of it.
            slow = "^Example 9000 is not used: forecast [0-9.]+ tok/s with it, [0-9.]+ without .*$"
            self.assertRegex(line_of({}), slow)
            self.assertRegex(line_of({}, "--gpu", "auto"), slow)
            # Beside slow memory it would be used; and is not here.
            self.assertRegex(line_of({}, memory_gbps=0.1),
                             "Example 9000 is used: forecast [0-9.]+ tok/s with it, [0-9.]+ without\n.*no GPU is used: ")
            self.assertRegex(line_of({"unified": True}), "Example 9000 is not used: .* --vram")
            self.assertEqual(line_of({}, "--gpu", "off"), "")
            self.assertRegex(line_of({"memory_bytes": 1 << 29}), "Example 9000 is not used: .*--vram")
            # Experts of a type that it does not compute: no error where nobody asked for it.
            model = os.path.join(state, "model")
            good_json("synth", "demo", model, "--layers", 4, "--experts", "keep", env=env)
            done = penstock("bench", model, "-p", 0, "-n", 2, "-r", 1, "--disk-seconds", 0, env=env)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(b"Example 9000 is not used: ", done.stderr)
            self.assertEqual(line_of({}, "--arithmetic", "float32"), "")
            self.assertIn("--vram", self.refused(2, "--vram", "99G", env=env))
            profile["gpus"][0]["read_gbps"] = -1
            with open(path, "w", encoding="utf-8") as file:
                json.dump(profile, file)
            self.assertIn("gpus[0]", self.refused(3, "--gpu", "auto", env=env))
            done = penstock("run", DEMO, *ASK, env=env)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(b"gpus[0]", done.stderr)
            # Of another machine: as if nobody had measured.
            profile["gpus"][0]["read_gbps"] = 900
            profile["machine"]["cpu_model"] = "another"
            with open(path, "w", encoding="utf-8") as file:
                json.dump(profile, file)
            done = penstock("run", DEMO, *ASK, "--gpu", "auto", env=env)
            self.assertIn(b"none was measured here", done.stderr)

    def test_what_cannot_be_is_refused_with_names_and_numbers(self):
        self.assertIn('no GPU is called "nonesuch"', self.refused(2, "--gpu", "nonesuch"))
        self.assertRegex(self.refused(2, "--gpu", "llvmpipe", "--vram", "1M"), "give --vram [0-9]+ or more")
        self.assertRegex(self.refused(2, "--gpu", "llvmpipe", "--vram", "900G"), "900.00 GiB: llvmpipe .* can be had now")
        self.assertIn("--vram", self.refused(2, "--gpu", "llvmpipe"))  # it uses this machine's own memory
        self.assertIn("--gpu off leaves out", self.refused(2, "--gpu", "off", "--vram", "12M"))
        self.assertIn("--gpu off leaves out", self.refused(2, "--gpu", "off", "--gpu-trunk", "on"))
        self.assertIn("fixed16", self.refused(2, "--gpu", "llvmpipe", "--vram", "12M", "--arithmetic", "float32"))


if __name__ == "__main__":
    unittest.main()
