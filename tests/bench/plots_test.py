"""bench/plots: the committed pictures are what the committed results give, and a stale one is found out."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

from scripts import ROOT

import figures
import report


def plots(*words):
    return subprocess.run([sys.executable, "-B", os.path.join(ROOT, "bench/plots"), *words], text=True,
                          capture_output=True, check=False)


class Committed(unittest.TestCase):
    def test_pictures_are_what_the_results_give(self):
        done = plots("--check")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_pages_show_every_picture_with_words_for_it(self):
        text = report.read(report.STORY)
        for name in sorted(os.listdir(report.PAGES)):
            text += report.read(os.path.join(report.PAGES, name))
        text = text.replace("](../plots/", "](plots/")
        for name in sorted(os.listdir(report.PLOTS)):
            self.assertRegex(text, rf"!\[[^\]]{{20,}}\]\(plots/{name}\)")
            ElementTree.parse(os.path.join(report.PLOTS, name))


class Drawn(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.results, self.plots = (os.path.join(folder.name, name) for name in ("results", "plots"))
        shutil.copytree(report.RESULTS, self.results)
        self.words = ["--results", self.results, "--plots", self.plots]
        self.assertEqual(plots(*self.words).returncode, 0)

    def path(self, name):
        return os.path.join(self.plots, name)

    def wrong(self):
        done = plots(*self.words, "--check")
        return done.stdout if done.returncode else ""

    def test_changed_results_a_lost_and_a_foreign_picture_are_found_out(self):
        self.assertEqual(self.wrong(), "")
        path = os.path.join(self.results, "cache-policies.csv")
        report.write(path, report.read(path).replace("0.358", "0.458"))
        self.assertIn("cache-text.svg is not what the results give", self.wrong())
        plots(*self.words)
        self.assertEqual(self.wrong(), "")
        os.remove(self.path("peers.svg"))
        report.write(self.path("other.svg"), "<svg/>")
        self.assertIn("peers.svg is missing", self.wrong())
        self.assertIn("other.svg has no results", self.wrong())

    def test_a_picture_stays_with_the_machine_it_shows(self):
        machine = "amd-epyc-2-processors"
        for name in (f"forecast-{machine}.csv", f"{machine}.csv"):
            shutil.copy(os.path.join(self.results, name), os.path.join(self.results, name.replace(machine, "aa")))
        self.assertEqual(self.wrong(), "")
        plots(*self.words, "--machine", "aa", "forecast")
        self.assertIn("<metadata>aa</metadata>", report.read(self.path("forecast.svg")))
        self.assertIn(f"<metadata>{machine}</metadata>", report.read(self.path("waits.svg")))
        self.assertEqual(self.wrong(), "")

    def test_a_machine_is_what_stands_in_the_names_of_its_files(self):
        waits = next(figure for figure in figures.FIGURES if figure.name == "waits")
        self.assertEqual(waits.machines(self.results), ["amd-epyc-2-processors"])


if __name__ == "__main__":
    unittest.main()
