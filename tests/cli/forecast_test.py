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


class PlanOfAGpu(Refusals):
    PC = ["plan", "397b", "--memory", "56G", "--resident", "4", *RATES]

    def test_a_card_that_is_not_here(self):
        without = good_json(*self.PC)
        plan = good_json(*self.PC, "--gpu", "4090", "--gpu-trunk", "off")
        self.assertNotIn("gpu", without)
        self.assertEqual(plan["gpu"]["name"], "RTX 4090")
        self.assertEqual(plan["gpu"]["origin"], "data sheet")
        self.assertEqual(plan["gpu"]["vram_bytes"], 23 << 30)
        forecast = plan["forecast"]
        self.assertEqual(forecast["without_gpu_tps"], without["forecast"]["overlapped_tps"])
        self.assertGreater(forecast["overlapped_tps"], forecast["without_gpu_tps"])
        self.assertTrue(3400 < forecast["gpu_slots"] < 3500)
        beside = good_json(*self.PC, "--gpu", "4090")["forecast"]
        self.assertGreater(beside["gpu_matrices"], 100)
        self.assertLess(beside["gpu_slots"], forecast["gpu_slots"])
        self.assertGreater(beside["overlapped_tps"], forecast["overlapped_tps"])
        self.assertLess(beside["terms_ms"]["dense weights"], forecast["terms_ms"]["dense weights"])
        told = good(*self.PC, "--gpu", "4090")
        self.assertIn("calls of the GPU", told)
        self.assertIn("matrices that every token needs", told)
        self.assertIn("prompts are forecast as without it", told)
        # Affine codes of six bits stay with the processors.
        six = good_json("plan", "397b", "--memory", "56G", "--resident", "6", *RATES, "--gpu", "4090")["forecast"]
        self.assertEqual(six["gpu_matrices"], 0)

    def test_the_table_goes_over_its_memory(self):
        rows = good_json(*self.PC, "--gpu", "memory=24G,gbps=900", "--vram", "20G", "--over", "vram")["rows"]
        self.assertEqual(rows[0]["x"], 0)
        self.assertEqual(rows[-1]["x"], 20)
        self.assertNotIn("gpu_slots", rows[0])
        speeds = [row["overlapped_tps"] for row in rows[1:]]
        self.assertEqual(speeds, sorted(speeds))

    def test_what_cannot_be_is_refused_with_what_can(self):
        self.assertIn("RTX 3060, ", self.refused(2, *self.PC, "--gpu", "voodoo"))
        self.assertIn("gbps=fast", self.refused(2, *self.PC, "--gpu", "memory=24G,gbps=fast"))
        self.assertIn("--vram", self.refused(2, *self.PC, "--gpu", "4090", "--vram", "25G"))
        self.assertIn("--vram", self.refused(2, *self.PC, "--gpu", "4090", "--vram", "1M"))
        self.assertIn("--gpu", self.refused(2, *self.PC, "--gpu", "off", "--vram", "8G"))
        self.assertIn("--vram", self.refused(2, *self.PC, "--gpu", "gb10"))
        self.refused(3, *self.PC, "--gpu", "4090", "--experts", "16")

    def test_of_a_model_rates_are_needed_and_types_that_it_computes(self):
        env = environment(XDG_STATE_HOME=MODEL.file("no-state"))
        self.assertIn("--flash-gbps", self.refused(2, "plan", MODEL.path, "--gpu", "4090", env=env))
        # Its experts are of 16 bits.
        told = self.refused(3, "plan", MODEL.path, "--gpu", "4090", *RATES, env=env)
        self.assertIn("16 bits stay on the processors", told)

    def test_auto_where_none_was_measured_is_a_line(self):
        done = penstock(*self.PC, "--gpu", "auto", env=environment(XDG_STATE_HOME=MODEL.file("no-state")))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count(b"no GPU is forecast"), 1)


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
        self.a_gpu_of_the_profile(report["kept_in"], env)
        self.another_machine_and_a_damaged_profile(report["kept_in"])

    def a_gpu_of_the_profile(self, path, env):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        profile = json.loads(text)
        self.assertIn("gpus", profile)  # a software device has no rates
        profile["gpus"] = [{"name": "Example 9000", "memory_bytes": 16 << 30, "unified": False, "read_gbps": 500,
                            "to_device_gbps": 20, "round_trip_us": 30, "dispatch_us": 4, "experts_gbps": 300}]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(profile, file)
        for name in ("auto", "example-9000"):
            gpu = good_json(*PlanOfAGpu.PC, "--gpu", name, env=env)["gpu"]
            self.assertEqual((gpu["origin"], gpu["name"]), ("measured here", "Example 9000"))
        profile["gpus"][0]["read_gbps"] = -1
        with open(path, "w", encoding="utf-8") as file:
            json.dump(profile, file)
        self.assertIn("gpus[0]", self.refused(3, *PlanOfAGpu.PC, "--gpu", "auto", env=env))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

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
            ({"knobs": {"luck": 3}}, "luck"),  # as a newer version may know it
            ({"knobs": {"experts_ahead": 999}}, "expected 1 to"),
            ({"knobs": {"experts_ahead": 5}, "machine": {**profile["machine"], "cpu_model": "Example 9000"}}, "another machine"),
        ]:
            write(**changes)
            value, hash, said = bench()
            self.assertEqual((value, hash), (built_in, expected))
            self.assertIn("not used", said)
            self.assertIn(why, said)
            # Nor do the rates of the profile go with it.
            self.assertGreater(good_json("plan", MODEL.path, "--memory", "1G", env=env)["slots"], 0)
        write(knobs={"luck": 3, "experts_ahead": 5})
        self.assertEqual(bench()[:2], (5, expected))
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
