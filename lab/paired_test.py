#!/usr/bin/env python3
"""Statistics and ledger of the laboratory."""

import os
import random
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import ledger
import paired


def blocks(true_ratio, noise, count, drift=0.0, seed=3):
    """A B B A runs of programs at 10 and 10 * true_ratio, on a machine that slows down."""
    draw = random.Random(seed)
    rate, made = 10.0, []
    for _ in range(count):
        block = []
        for letter in paired.BLOCK:
            block.append(rate * (true_ratio if letter == "B" else 1) * draw.gauss(1, noise))
            rate *= 1 - drift
        made.append(block)
    return made


def judge(made):
    ratios, same = paired.ratios_of(made)
    ratio, low, high = paired.median_interval(ratios)
    return ratio, paired.verdict(ratio, low, high, paired.noise_of(same))


class Paired(unittest.TestCase):
    def test_the_interval_holds_the_median_and_is_repeatable(self):
        values = [1.02, 0.99, 1.05, 1.01, 1.03, 0.98, 1.04, 1.02]
        middle, low, high = paired.median_interval(values)
        self.assertAlmostEqual(middle, 1.02)
        self.assertLess(low, middle)
        self.assertGreater(high, middle)
        self.assertEqual(paired.median_interval(values), (middle, low, high))
        self.assertEqual(paired.median_interval([2.0]), (2.0, 2.0, 2.0))
        self.assertRaises(ValueError, paired.median_interval, [])

    def test_the_interval_covers_the_truth_as_often_as_it_says(self):
        draw, covered = random.Random(5), 0
        for case in range(200):
            values = [draw.gauss(1.0, 0.05) for _ in range(16)]
            _, low, high = paired.median_interval(values, seed=case)
            covered += low <= 1.0 <= high
        self.assertGreater(covered, 175)

    def test_pairs_are_taken_within_a_block(self):
        ratios, same = paired.ratios_of([[10, 12, 11, 10.5]])
        self.assertEqual(ratios, [12 / 10, 11 / 10.5])
        self.assertEqual(same, [10.5 / 10])

    def test_a_real_gain_is_kept_and_a_real_loss_discarded(self):
        self.assertEqual(judge(blocks(1.10, 0.005, 6))[1], "KEEP")
        self.assertEqual(judge(blocks(0.90, 0.005, 6))[1], "DISCARD")

    def test_equal_programs_are_null_also_on_a_machine_that_slows_down(self):
        kept = sum(judge(blocks(1.0, 0.02, 6, seed=s))[1] != "NULL" for s in range(60))
        self.assertLessEqual(kept, 3)
        ratio, result = judge(blocks(1.0, 0.002, 6, drift=0.02))
        self.assertEqual(result, "NULL")
        self.assertAlmostEqual(ratio, 1.0, delta=0.03)

    def test_a_gain_below_one_percent_or_twice_the_noise_is_null(self):
        self.assertEqual(paired.verdict(1.008, 1.005, 1.011, 0.0), "NULL")
        self.assertEqual(paired.verdict(1.03, 1.02, 1.04, 0.02), "NULL")
        self.assertEqual(paired.verdict(1.03, 1.02, 1.04, 0.01), "KEEP")
        self.assertEqual(paired.verdict(1.05, 0.99, 1.09, 0.001), "NULL")


def row(**changes):
    return {"id": "0001", "status": "NULL", "term": "flash", "workload": "w", **changes}


class Ledger(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "ledger.tsv")

    def tearDown(self):
        self.folder.cleanup()

    def test_rows_survive_tabs_newlines_and_objects(self):
        ledger.append(self.path, row(hypothesis="a\tb\nc", terms_after={"flash": 1.5}, ratio=1.25))
        ledger.append(self.path, row(id="0002", status="KEEP"))
        rows = ledger.read(self.path)
        self.assertEqual([r["id"] for r in rows], ["0001", "0002"])
        self.assertEqual(rows[0]["hypothesis"], "a b c")
        self.assertEqual(rows[0]["terms_after"], '{"flash": 1.5}')
        self.assertEqual(ledger.next_id(rows), "0003")
        self.assertEqual(ledger.next_id([]), "0001")

    def test_unknown_statuses_columns_and_damaged_files_are_refused(self):
        self.assertRaises(ValueError, ledger.append, self.path, row(status="GOOD"))
        self.assertRaises(ValueError, ledger.append, self.path, row(speed=3))
        with open(self.path, "w", encoding="utf-8") as file:
            file.write("id\tstatus\n1\tKEEP\n")
        self.assertRaises(ValueError, ledger.read, self.path)

    def test_a_reopened_row_says_what_it_was(self):
        ledger.append(self.path, row(status="DISCARD", note="slow disk"))
        ledger.reopen(self.path, "0001")
        rows = ledger.read(self.path)
        self.assertEqual(rows[0]["status"], "REOPENED")
        self.assertEqual(rows[0]["note"], "was DISCARD; slow disk")
        self.assertRaises(ValueError, ledger.reopen, self.path, "0009")

    def test_two_missed_predictions_in_a_row_ask_for_a_measurement(self):
        good = row(ratio="1.09", predicted_ratio="1.10")
        bad = row(ratio="1.00", predicted_ratio="1.10")
        none = row(ratio="", predicted_ratio="1.10")
        self.assertFalse(ledger.needs_measurement([bad], "flash"))
        self.assertTrue(ledger.needs_measurement([good, bad, none, bad], "flash"))
        self.assertFalse(ledger.needs_measurement([bad, good, bad], "flash"))
        self.assertFalse(ledger.needs_measurement([bad, bad], "dense"))

    def test_the_noise_of_a_workload_is_that_of_its_latest_session(self):
        rows = [row(aa_noise="0.02"), row(aa_noise="0.03"), row(workload="v", aa_noise="0.5")]
        self.assertEqual(ledger.known_noise(rows, "w"), 0.03)
        self.assertIsNone(ledger.known_noise(rows, "x"))


if __name__ == "__main__":
    unittest.main()
