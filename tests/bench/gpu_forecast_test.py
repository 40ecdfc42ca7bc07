"""bench/gpu_forecast: docs/gpu.md says what plan says, and a stale page is found out."""

import os
import subprocess
import sys
import unittest

from scripts import ROOT

import report

PAGE, PICTURE = (os.path.join(ROOT, "docs", name) for name in ("gpu.md", "gpu-forecast.svg"))


def gpu_forecast(*words):
    return subprocess.run([sys.executable, "-B", os.path.join(ROOT, "bench/gpu_forecast"), "--penstock",
                           os.environ["PENSTOCK_BINARY"], *words], text=True, capture_output=True, check=False)


class Committed(unittest.TestCase):
    def test_the_page_and_the_picture_are_what_plan_says(self):
        done = gpu_forecast("--check")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_more_memory_of_a_card_shows_where_the_model_does_not_fit(self):
        rows = [line for line in report.read(PAGE).splitlines() if line.startswith("| 397B | 64 GB")]
        self.assertEqual(len(rows), 2)
        for row in rows:
            without, *cards = [float(cell) for cell in row.strip("| ").split(" | ")[2:]]
            self.assertEqual(len(cards), 5)
            self.assertEqual(cards, sorted(cards))
            self.assertGreater(cards[-1], without)


if __name__ == "__main__":
    unittest.main()
