#!/usr/bin/env python3
"""plan with speeds, for shapes and for models, and doctor."""

import json
import os
import unittest

from support import Model, environment, good, good_json, penstock

RATES = ["--flash-gbps", "7", "--dram-gbps", "64", "--gflops", "1200"]


def setUpModule():
    global MODEL
    MODEL = Model()


def tearDownModule():
    MODEL.remove()


class Refusals(unittest.TestCase):
    def refused(self, code, *arguments, **options):
        done = penstock(*arguments, **options)
        self.assertEqual(done.returncode, code, done.stderr.decode(errors="replace"))
        return done.stderr.decode(errors="replace")


class PlanOfAShape(Refusals):
    def test_would_it_run_and_how_fast(self):
        plan = good_json("plan", "397b", "--memory", "48G", "--resident", "4", *RATES)
        self.assertEqual(plan["forecast"]["experts"], 60 * 512)
        self.assertLess(plan["forecast"]["slots"], plan["forecast"]["experts"])
        self.assertTrue(2 < plan["forecast"]["overlapped_tps"] < plan["forecast"]["limit_tps"] < 8)
        self.assertEqual(plan["rates"]["flash_gbps"], 7)
        speeds = [row["overlapped_tps"] for row in plan["rows"]]
        for less, more in zip(speeds, speeds[1:]):
            self.assertGreater(more, less - 1e-9)

    def test_tables_go_over_bits_and_experts(self):
        bits = good_json("plan", "397b", "--memory", "48G", "--over", "bits", *RATES)
        self.assertIn(2.5, [row["x"] for row in bits["rows"]])
        experts = good_json("plan", "397b", "--memory", "48G", "--over", "experts", *RATES)
        self.assertEqual([row["x"] for row in experts["rows"]], list(range(10, 0, -1)))

    def test_a_given_hit_rate_decides_the_traffic(self):
        plan = good_json("plan", "397b", "--memory", "48G", "--hits", "0.5", *RATES)
        forecast = plan["forecast"]
        self.assertAlmostEqual(forecast["missed_bytes_per_token"], 0.5 * 4246732800, delta=1)
        in_vain = forecast["bytes_per_token"] / forecast["missed_bytes_per_token"] - 1
        self.assertTrue(0 < in_vain < 0.2, in_vain)
        self.refused(2, "plan", "397b", "--memory", "48G", "--hits", "lucky", *RATES)

    def test_drives_with_copies_read_side_by_side(self):
        one = ["plan", "397b", "--memory", "48G", "--dram-gbps", "64", "--gflops", "1200"]
        both = good_json(*one, "--flash-gbps", "7", "--mirror-gbps", "3.5,3.5")
        fast = good_json(*one, "--flash-gbps", "14")
        self.assertEqual(both["forecast"], fast["forecast"])
        self.assertEqual(both["rates"]["flash_gbps"], 14)
        told = penstock(*one, "--flash-gbps", "7", "--mirror-gbps", "3.5,3.5").stderr
        self.assertIn(b"7 GB/s of 2 further drives", told)
        for wrong in ("x", "0", "3.5,x", "-1", "nan", "7 7"):
            told = self.refused(2, *one, "--flash-gbps", "7", "--mirror-gbps", wrong)
            self.assertIn("--mirror-gbps", told)

    def test_asks_for_memory_and_for_rates(self):
        self.assertIn("--memory", self.refused(2, "plan", "397b", *RATES))
        self.assertIn("--flash-gbps", self.refused(2, "plan", "397b", "--memory", "48G"))
        self.assertIn(
            "--flash-gbps", self.refused(2, "plan", "397b", "--memory", "48G", "--gflops", "9")
        )

    def test_too_little_memory_and_unknown_names_are_refused(self):
        self.refused(4, "plan", "397b", "--memory", "6G", *RATES)
        self.refused(3, "plan", "398b", "--memory", "48G", *RATES)

    def test_writes_a_chart_and_a_page(self):
        svg, page = MODEL.file("speed.svg"), MODEL.file("speed.html")
        good("plan", "35b", "--memory", "8G", "--svg", svg, "--html", page, *RATES)
        with open(svg, encoding="utf-8") as file:
            self.assertTrue(file.read().startswith("<svg"))
        with open(page, encoding="utf-8") as file:
            text = file.read()
        self.assertEqual(text.count("<svg"), 2)
        self.assertIn("tokens per second", text)


class PlanOfAModel(Refusals):
    def test_has_no_speeds_without_rates(self):
        self.assertNotIn("forecast", good_json("plan", MODEL.path))

    def test_uses_the_sizes_of_the_files(self):
        plan = good_json("plan", MODEL.path, "--hits", "0", *RATES)
        chosen = plan["experts_per_token"]
        layers = plan["forecast"]["missed_bytes_per_token"] / plan["expert_bytes"] / chosen
        self.assertAlmostEqual(layers, round(layers))
        self.assertEqual(plan["forecast"]["slots"], plan["slots"])
        self.assertIn("bound by", good("plan", MODEL.path, *RATES))


class Doctor(Refusals):
    def test_keeps_what_plan_reads(self):
        state = MODEL.file("state")
        env = environment(XDG_STATE_HOME=state)
        report = good_json("doctor", MODEL.path, env=env)
        self.assertEqual(report["kept_in"], os.path.join(state, "penstock", "profile.json"))
        self.assertTrue(report["flash"] and report["memory"] and report["kernels"])
        for finding in report["findings"]:
            self.assertIn(finding["level"], ("warning", "note"))
        plan = good_json("plan", MODEL.path, env=env)
        self.assertGreater(plan["forecast"]["limit_tps"], 0)
        self.assertGreater(plan["rates"]["flash_gbps"], 0)
        self.knobs_of_the_profile(report["kept_in"], env)
        self.another_machine_and_a_damaged_profile(report["kept_in"])

    def knobs_of_the_profile(self, path, env):
        with open(path, encoding="utf-8") as file:
            profile = json.load(file)
        self.assertEqual(profile["knobs"], {})

        def write(**changes):
            with open(path, "w", encoding="utf-8") as file:
                json.dump({**profile, **changes}, file)

        def bench(*flags):
            done = penstock("bench", MODEL.path, "-p", "0", "-n", "4", "-r", "1", "--disk-seconds", "0", "--json", *flags, env=env)
            self.assertEqual(done.returncode, 0, done.stderr)
            row = json.loads(done.stdout)
            return row["knobs"]["experts_ahead"], row["logits_hash"], done.stderr.decode()

        built_in, expected, said = bench()
        self.assertNotIn("knobs", said)
        write(knobs={"experts_ahead": 5})
        shown = {knob["name"]: knob for knob in good_json("config", "knobs", env=env)["knobs"]}
        self.assertEqual((shown["experts_ahead"]["value"], shown["experts_ahead"]["origin"]), (5, path))
        self.assertEqual((shown["spins"]["value"], shown["spins"]["origin"]), (shown["spins"]["built_in"], "built-in"))
        self.assertIn("experts_ahead", good("config", "knobs", env=env))
        self.assertEqual(bench()[:2], (5, expected))
        self.assertEqual(bench("--knob", "spins=0,experts_ahead=7")[:2], (7, expected))
        # What cannot be used is told and left aside; the answer is the same.
        for changes, why in [
            ({"knobs": {"luck": 3}}, "luck"),
            ({"knobs": {"experts_ahead": 999}}, "expected 1 to"),
            ({"knobs": {"experts_ahead": 5}, "machine": {**profile["machine"], "cpu_model": "Example 9000"}}, "another machine"),
        ]:
            write(**changes)
            value, hash, said = bench()
            self.assertEqual((value, hash), (built_in, expected))
            self.assertIn("not used", said)
            self.assertIn(why, said)
        write()
        for knob in ("luck=3", "spins", "spins=-1", "spins=1,spins=2"):
            self.assertIn("--knob", self.refused(2, "bench", MODEL.path, "--knob", knob, env=env))

    def another_machine_and_a_damaged_profile(self, path):
        with open(path, encoding="utf-8") as file:
            profile = json.load(file)
        profile["machine"]["cpu_model"] = "Example 9000"
        other = MODEL.file("other.json", json.dumps(profile))
        done = penstock("plan", "397b", "--memory", "48G", "--machine", other)
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"another machine", done.stderr)
        profile["profile_version"] = 99
        other = MODEL.file("other.json", json.dumps(profile))
        self.assertIn("profile_version", self.refused(3, "plan", MODEL.path, "--machine", other))
        missing = MODEL.file("none.json")
        self.refused(3, "plan", MODEL.path, "--machine", missing)


if __name__ == "__main__":
    unittest.main()
