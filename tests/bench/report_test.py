"""bench/report.py: files that are whole or not there, marks in documents, tables, kept measurements, progress."""

import os
import tempfile
import unittest

from scripts import ROOT

import report


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def test_a_file_is_whole_or_what_it_was(self):
        report.write(self.path("a/b.txt"), "old\n")
        with self.assertRaises(TypeError):
            report.write(self.path("a/b.txt"), 17)
        self.assertEqual(report.read(self.path("a/b.txt")), "old\n")
        self.assertEqual(os.listdir(self.path("a")), ["b.txt"])

    def test_only_what_is_between_the_marks_is_replaced(self):
        page = "head\n<!-- x: begin -->\nold\n<!-- x: end -->\ntail\n<!-- y: begin -->\ny\n<!-- y: end -->\n"
        report.write(self.path("page.md"), page)
        report.put_between_marks(self.path("page.md"), "x", "new\n")
        self.assertEqual(report.read(self.path("page.md")), page.replace("\nold\n", "\n\nnew\n\n"))
        again = report.read(self.path("page.md"))
        report.put_between_marks(self.path("page.md"), "x", "new\n")
        self.assertEqual(report.read(self.path("page.md")), again)

    def test_a_page_without_both_marks_in_order_stays(self):
        for page in ("no marks\n", "<!-- x: begin -->\n", "<!-- x: end --> <!-- x: begin -->\n"):
            report.write(self.path("page.md"), page)
            report.put_between_marks(self.path("page.md"), "x", "new")
            self.assertEqual(report.read(self.path("page.md")), page)
        report.put_between_marks(self.path("missing.md"), "x", "new")
        self.assertFalse(os.path.exists(self.path("missing.md")))

    def test_csv_has_all_columns_and_reads_back(self):
        rows = [{"a": "1", "note": "x, y"}, {"b": "2"}]
        report.write_csv(self.path("t.csv"), rows, last=["note"])
        self.assertEqual(report.read(self.path("t.csv")), 'a,b,note\n1,,"x, y"\n,2,\n')
        self.assertEqual(report.read_csv(self.path("t.csv")), rows)

    def test_measurements_are_taken_once_and_outlive_the_script(self):
        calls = []
        for _ in range(2):
            kept = report.Measurements(self.path("kept.json"))
            for _ in range(2):
                self.assertEqual(kept.get(["x", 1], lambda: calls.append(1) or {"ms": 2}), {"ms": 2})
        self.assertEqual(len(calls), 1)


class Words(unittest.TestCase):
    def test_a_table_knows_columns_of_numbers(self):
        self.assertEqual(report.table(["test", ">ms"], [["a", 1], ["b", ""]]),
                         "| test | ms |\n|---|---:|\n| a | 1 |\n| b |  |")

    def test_places_inside_of_the_repository_are_shown_without_it(self):
        self.assertEqual(report.shown_command([os.path.join(ROOT, "bench/peers"), "a b"]), "bench/peers 'a b'")

    def test_records_are_the_whole_objects_among_lines(self):
        self.assertEqual(list(report.records_in('words\n{"a": 1}\n[2]\n{"b"')), [{"a": 1}])

    def test_equal_tests_must_have_equal_logits(self):
        row = {"n_prompt": 0, "n_gen": 8, "n_depth": 0, "logits_hash": "1"}
        report.check_hashes("m", [row, row, {**row, "n_depth": 4, "logits_hash": "2"}])
        with self.assertRaisesRegex(SystemExit, "different logits"):
            report.check_hashes("m", [row, {**row, "logits_hash": "2"}])

    def test_numbers_of_a_list(self):
        self.assertEqual((report.counts("2,4"), report.counts("")), ([2, 4], []))


if __name__ == "__main__":
    unittest.main()
