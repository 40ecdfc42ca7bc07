"""The verbs synth and bench as a person meets them: exit codes, what is printed where, Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import unittest

BINARY = os.environ["PENSTOCK_BINARY"]
TIMEOUT_S = 240
KEPT = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "XDG_"))}
ENVIRONMENT = {**KEPT, "HOME": "/nonexistent"}


def penstock(*arguments):
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        timeout=TIMEOUT_S,
        text=True,
    )


class SynthAndBench(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="penstock-bench-")
        cls.model = os.path.join(cls.folder, "model")
        cls.made = penstock("synth", "demo", cls.model, "--layers", 4, "--json")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def bench(self, *arguments):
        return penstock("bench", self.model, "-r", 2, "--disk-seconds", 0.1, *arguments)

    def test_synth_says_what_it_made_and_every_byte_verifies(self):
        self.assertEqual(self.made.returncode, 0, self.made.stderr)
        report = json.loads(self.made.stdout)
        self.assertEqual(report["shape"], "sluice-74m-a17m")
        self.assertEqual(report["layers"], 4)
        self.assertEqual(penstock("pack", "--verify", self.model).returncode, 0)

    def test_synth_varies_the_number_of_experts(self):
        target = self.path("few")
        self.assertEqual(penstock("synth", "demo", target, "--layers", 4, "--num-experts", 16).returncode, 0)
        plan = penstock("plan", target, "--memory", "1G", "--json")
        self.assertEqual(json.loads(plan.stdout)["experts"], 4 * 16)
        refused = penstock("synth", "demo", self.path("too-few"), "--layers", 4, "--num-experts", 7)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("every token takes 8", refused.stderr)

    def test_unknown_shape_is_a_usage_error_that_lists_the_known_ones(self):
        refused = penstock("synth", "70b", self.path("x"))
        self.assertEqual(refused.returncode, 2)
        self.assertIn("397b", refused.stderr)

    def test_disk_that_is_too_small_is_refused_with_numbers(self):
        if shutil.disk_usage(self.folder).free > 1 << 40:
            self.skipTest("a TiB is free here")
        refused = penstock("synth", "2.4t", self.path("huge"))
        self.assertEqual(refused.returncode, 4)
        self.assertIn("TiB", refused.stderr)
        self.assertFalse(os.path.exists(self.path("huge")))

    def test_interrupted_synth_is_no_model_and_the_same_command_continues(self):
        target = self.path("stopped")
        command = [BINARY, "synth", "demo", target, "--layers", "200", "--seed", "7"]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT)
        while not os.path.exists(target + ".partial") and running.poll() is None:
            pass
        running.send_signal(signal.SIGINT)
        errors = running.communicate(timeout=TIMEOUT_S)[1].decode()
        self.assertEqual(running.returncode, 130, errors)
        self.assertIn("run the same command again", errors)
        self.assertFalse(os.path.exists(target))
        self.assertEqual(penstock("plan", target + ".partial").returncode, 3)
        again = penstock(*command[1:])
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(penstock("pack", "--verify", target).returncode, 0)

    def test_bench_prints_one_json_object_per_row(self):
        done = self.bench("-p", 16, "-n", 8, "--budgets", "100%,floor", "--cold", "--warm", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(len(rows), 8)
        for tokens in ("n_prompt", "n_gen"):
            hashes = {row["logits_hash"] for row in rows if row[tokens]}
            self.assertEqual(len(hashes), 1)
        warm = [r for r in rows if r["cache"] == "warm" and r["slots"] == r["experts"]]
        self.assertEqual([row["hit_rate"] for row in warm], [1, 1])

    def test_drafts_change_speed_alone(self):
        target = self.path("drafting")
        self.assertEqual(penstock("synth", "demo", target, "--layers", 4, "--mtp").returncode, 0)
        self.assertEqual(penstock("pack", "--verify", target).returncode, 0)
        rows = {}
        for name, words in {
            "off": ["--speculate", "off"],
            "on": ["--speculate", "on", "--drafts-right", "1"],
        }.items():
            done = penstock(
                "bench", target, "-p", 0, "-n", 32, "-r", 2, "--memory", "1G", "--disk-seconds", 0,
                "--json", *words,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            rows[name] = json.loads(done.stdout)
        self.assertEqual(len({row["logits_hash"] for row in rows.values()}), 1)
        self.assertEqual(rows["off"]["draft_n"], 0)
        self.assertEqual(rows["off"]["experts"], 4 * 64)
        self.assertEqual(rows["on"]["experts"], 5 * 64)
        self.assertEqual(rows["on"]["draft_n"], rows["on"]["draft_n_accepted"])
        self.assertEqual(rows["on"]["draft_n"], 2 * 16)
        tried = penstock("bench", target, "-p", 0, "-n", 160, "-r", 2, "--disk-seconds", 0, "--json")
        self.assertGreater(json.loads(tried.stdout)["draft_n"], 0)
        refused = penstock("bench", target, "--speculate", "on", "--routing", "uniform")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("--routing model", refused.stderr)

    def test_bench_prints_a_markdown_table(self):
        done = self.bench("-p", 0, "-n", 8, "--routing", "session", "--memory", "64M")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
        self.assertEqual(len(rows), 3)
        self.assertIn("| tg8 |", rows[2])

    def test_bench_refuses_what_cannot_be_measured(self):
        for arguments, code in (
            (["-p", 0, "-n", 0], 2),
            (["-p", "many"], 2),
            (["--routing", "zipf"], 2),
            (["--budgets", "0%"], 2),
            (["--budgets", "1M"], 4),
            (["--routing", "trace:" + self.path("missing.safetensors")], 3),
        ):
            refused = self.bench(*arguments)
            self.assertEqual(refused.returncode, code, refused.stderr)
            self.assertEqual(refused.stdout, "")


if __name__ == "__main__":
    unittest.main()
