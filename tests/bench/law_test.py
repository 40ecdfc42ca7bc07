"""bench/law.py on numbers made by hand: lines, bandwidth of threads, the disk of the hour, words for the plan."""

import unittest

import scripts  # noqa: F401  (finds the next)
import law

PROFILE = {
    "memory": [{"threads": 1, "read_gbps": 10.0}, {"threads": 4, "read_gbps": 22.0}],
    "flash": [
        {"read_bytes": 4096, "direct": True, "gbps": 0.5, "p50_us": 100, "p99_us": 200},
        {"read_bytes": 8192, "direct": True, "gbps": 2.0, "p50_us": 100, "p99_us": 200},
        {"read_bytes": 8192, "direct": False, "gbps": 4.0, "p50_us": 100, "p99_us": 200},
    ],
    "bursts": [{"read_bytes": 8192, "reads": 2, "us": 50}],
}


def laws():
    result = law.Law("penstock", "/nonexistent")
    result.profile = PROFILE
    return result


class Laws(unittest.TestCase):
    def test_a_line_of_least_squares_finds_head_and_layers(self):
        intercept, slope = law.straight_line([(2, 9), (4, 13), (8, 21)])
        self.assertAlmostEqual(intercept, 5)
        self.assertAlmostEqual(slope, 2)
        self.assertEqual(law.straight_line([(3, 4), (3, 6)]), (5, None))

    def test_bandwidth_of_threads_lies_between_what_was_measured(self):
        self.assertEqual([law.memory_gbps(PROFILE, n) for n in (1, 2, 4, 16)], [10, 14, 22, 22])

    def test_threads_share_the_work_until_memory_is_full(self):
        # 0.44 GB of a token: 44 ms at 10 GB/s, 31.4 ms at 14, 20 ms at 22.
        plan = {"forecast": {"limit_tps": 50}, "rates": {"memory_gbps": 22.0}}
        times = [laws().threads_ms(60, plan, n) for n in (1, 2, 4, 16)]
        for time, expected in zip(times, (60, 440 / 14, 20, 20)):
            self.assertAlmostEqual(time, expected)

    def test_the_disk_of_the_hour_scales_rates_and_latencies(self):
        now = law.at_this_hour(PROFILE, 1.0)
        self.assertEqual([p["gbps"] for p in now["flash"]], [0.25, 1.0, 2.0])
        self.assertEqual(now["flash"][1]["p50_us"], 200)
        self.assertEqual(now["bursts"], [{"read_bytes": 8192, "reads": 2, "us": 100}])
        self.assertIs(law.at_this_hour(PROFILE, 0), PROFILE)

    def test_nothing_is_foreseen_of_drawn_experts(self):
        self.assertEqual(law.conditions_of({"hit_rate": 0.5, "routing": "model"}), ["--hits", "0.500000"])
        self.assertIn("off", law.conditions_of({"hit_rate": 0.5, "routing": "uniform"}))

    def test_a_token_is_planned_in_the_middle_of_its_answer(self):
        asked = laws()
        asked.plan = lambda model, *words, **rates: (words, rates)
        row = {"n_depth": 100, "n_gen": 32, "hit_rate": 1.0, "routing": "model", "disk_gbps": 2.0}
        words, rates = asked.of_token("m", row, "--experts-per-token", 4)
        self.assertEqual(words[words.index("--context") + 1], 2 * (100 + 1 + 16))
        self.assertEqual(words[-2:], ("--experts-per-token", 4))
        self.assertEqual(rates, {"disk_gbps": 2.0})

    def test_a_prompt_is_limited_by_what_takes_longer(self):
        asked = laws()
        asked.plan = lambda *_: {"forecast": {"prompt_tps": 100}}
        row = {"n_depth": 0, "n_prompt": 64, "bytes_per_token": 50e6, "disk_gbps": 2.0}
        self.assertAlmostEqual(asked.of_prompt("m", row), 40)
        self.assertAlmostEqual(asked.of_prompt("m", {**row, "bytes_per_token": 0}), 100)


if __name__ == "__main__":
    unittest.main()
