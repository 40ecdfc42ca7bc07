"""The scripts of bench/ that write tables, from end to end on tiny models: results, pictures, Ctrl-C."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as ElementTree

from scripts import ROOT, load

BINARY = os.environ["PENSTOCK_BINARY"]
DEMO_MODEL = os.environ["PENSTOCK_DEMO_MODEL"]
PROFILE = {
    "profile_version": 2, "date": "2026-11-22T00:00:00Z", "version": "0",
    "machine": {"cpu_model": "test", "processors": 2, "memory_bytes": 1 << 34, "kernel": "Linux"},
    "disk": {"device": "0:0", "source": "disk", "filesystem": "ext4"},
    "reader": "threads", "compute": "test",
    "flash": [{"read_bytes": 65536, "depth": depth, "direct": True, "gbps": gbps, "p50_us": 90.0, "p99_us": 99.0}
              for depth, gbps in ((1, 0.5), (16, 1.0))],
    "bursts": [{"read_bytes": 65536, "reads": reads, "us": 50.0 + 65.5 * reads} for reads in (2, 16)],
    "sustained_gbps": 0.0, "sustained_s": 0.0,
    "memory": [{"threads": 1, "read_gbps": 10.0, "copy_gbps": 5.0}, {"threads": 2, "read_gbps": 16.0, "copy_gbps": 6.0}],
    "kernels": [{"dtype": "q4", "token_gbps": 12.0, "prompt_gflops": 100.0, "pause_us": 5.0}],
    "op_us": 1.0,
}  # fmt: skip


class Studies(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        with open(self.path("profile.json"), "w", encoding="utf-8") as f:
            json.dump(PROFILE, f)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def command(self, script, *words):
        return [*self.script(script), "--profile", self.path("profile.json"), *map(str, words)]

    def script(self, name):
        return [sys.executable, "-B", os.path.join(ROOT, "bench", name), "--penstock", BINARY, "--machine", "test",
                "--no-docs", "--out", self.path("out")]  # fmt: skip

    def scaling(self, *words):
        return self.command("scaling", "--quick", "--models", self.path("models"), *words)

    def run_to_end(self, command):
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def check_picture(self, name):
        ElementTree.parse(self.path("out", name))

    def test_scaling_measures_every_axis_beside_its_law(self):
        text = self.run_to_end(self.scaling())
        with open(self.path("out/scaling-test.json"), encoding="utf-8") as f:
            axes = json.load(f)["axes"]
        self.assertEqual(list(axes), ["layers", "experts", "num-experts", "context", "threads"])
        for axis, entry in axes.items():
            self.assertIn(f"(../plots/scaling-{axis}.svg)", text)
            self.check_picture(f"scaling-{axis}.svg")
            for series in entry["series"]:
                self.assertEqual(len(series["points"]), 2)
                for point in series["points"]:
                    self.assertTrue(0 < point["low_ms"] <= point["ms"] <= point["high_ms"])
                    self.assertGreater(point["law_ms"], 0)
                    self.assertEqual(len(point["samples_ms"]), entry["samples"])
        self.assertEqual([s["name"] for s in axes["layers"]["series"]], ["all experts in memory", "a quarter in memory"])
        for axis in ("experts", "num-experts", "context", "layers"):
            points = axes[axis]["series"][0]["points"]
            self.assertGreater(points[1]["law_ms"], points[0]["law_ms"], axis)
            self.assertEqual(points[0]["hit_rate"], 1)
        self.assertLess(axes["layers"]["series"][1]["points"][0]["hit_rate"], 1)
        self.assertEqual(len({p["logits_hash"] for p in axes["threads"]["series"][0]["points"]}), 1)
        with open(self.path("out/scaling-test.csv"), encoding="utf-8") as f:
            self.assertEqual(len(list(csv.DictReader(f))), 2 * 6)
        self.assertEqual(os.listdir(self.path("models")), [])

    def test_one_axis_keeps_what_the_others_gave(self):
        self.run_to_end(self.scaling("--axes", "context", "--keep"))
        self.assertEqual(os.listdir(self.path("models")), ["demo-4-layers"])
        self.run_to_end(self.scaling("--axes", "threads", "--model", self.path("models/demo-4-layers")))
        with open(self.path("out/scaling-test.json"), encoding="utf-8") as f:
            self.assertEqual(list(json.load(f)["axes"]), ["context", "threads"])
        self.assertEqual(os.listdir(self.path("models")), ["demo-4-layers"], "it was there before")
        self.frontiers_of(self.path("models/demo-4-layers"))

    def frontiers_of(self, model):
        words = ["--model", model, "--prompts", "8,16", "--depths", "16", "--answer", 4, "--repetitions", 1,
                 "--disk-seconds", 0.1, "--budgets", "100%,25%", "--context", 64]  # fmt: skip
        text = self.run_to_end(self.command("frontiers", *words))
        with open(self.path("out/frontiers-test.csv"), encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
        self.assertEqual(len(rows), 3 * 2 * 2)
        self.assertEqual({row["model_filename"] for row in rows}, {"demo-4-layers"})
        self.assertNotIn(self.folder, text)
        for row in rows:
            self.assertAlmostEqual(float(row["share_of_limit"]), float(row["median_ts"]) / float(row["limit_ts"]),
                                   delta=1e-3 * float(row["share_of_limit"]) + 1e-5)  # fmt: skip
        for kind in ("prefill", "decode"):
            self.check_picture(f"frontiers-{kind}.svg")
        self.assertEqual(text.count("\n| prompt"), 8)

    def test_the_table_has_a_row_for_each_budget_cache_and_length(self):
        words = ["--quick", "--demo", DEMO_MODEL, "--shape", ""]
        text = self.run_to_end([*self.script("performance_table"), *words])
        with open(self.path("out/test.csv"), encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
        self.assertEqual(len(rows), 4 * 2 * 2)
        self.assertEqual(len({row["logits_hash"] for row in rows if row["n_gen"] == "16"}), 1)
        for row in rows:
            self.assertEqual(len(row["samples_ts"].split()), 2)
            self.assertGreater(float(row["wait_ms_mixer"]), 0)
            self.assertIn("bytes", json.loads(row["drives"])[0])
            self.assertEqual(json.loads(row["drives"])[0]["path"], "experts.bin", "no folder of this machine")
        self.assertEqual(text.count("| prompt 64 |"), 8 + 8, "in both tables")

    def test_ctrl_c_leaves_no_result_and_no_model(self):
        running = subprocess.Popen(self.scaling("--rounds", 1), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        end = time.monotonic() + 60
        while not os.path.exists(self.path("models")) and time.monotonic() < end and running.poll() is None:
            time.sleep(0.005)
        time.sleep(0.1)  # in the middle of a model or of a measurement
        running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=60)
        self.assertEqual(running.returncode, 130, errors.decode())
        self.assertNotIn(b"Traceback", errors)
        self.assertEqual(out, b"")
        self.assertEqual(os.listdir(self.path("models")), [])
        self.assertFalse(os.path.exists(self.path("out")))

    def test_frontiers_count_the_positions_they_evaluate(self):
        frontiers = load("frontiers")
        self.assertEqual(frontiers.positions_of(("25%", "cold", 0, 32, 2048), 2), 2 * 2080)
        self.assertEqual(frontiers.positions_of(("25%", "warm", 512, 0, 0), 2), 3 * 512)

    def test_threads_go_by_twos_to_all(self):
        scaling = load("scaling")
        self.assertEqual([scaling.thread_counts(n) for n in (1, 2, 6, 8)], [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]])


if __name__ == "__main__":
    unittest.main()
