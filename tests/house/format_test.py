#!/usr/bin/env python3
"""Every source is laid out as .clang-format says; comments are left alone."""
import pathlib
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("src", "tests", "bench", "lab")


class Format(unittest.TestCase):
    def test_sources_are_laid_out_as_clang_format_says(self):
        tool = shutil.which("clang-format-14") or shutil.which("clang-format")
        self.assertIsNotNone(tool, "clang-format is missing: scripts/install test")
        version = subprocess.run([tool, "--version"], capture_output=True, text=True).stdout
        if " 14." not in version:
            self.skipTest(f"the layout is version 14's, here is {version.strip()}")
        files = sorted(str(path) for folder in FOLDERS for path in (ROOT / folder).rglob("*")
                       if path.suffix in (".h", ".cc"))
        self.assertGreater(len(files), 300)
        wrong = []
        for begin in range(0, len(files), 50):
            done = subprocess.run([tool, "--dry-run", "--Werror", *files[begin:begin + 50]],
                                  capture_output=True, text=True, cwd=ROOT)
            wrong += [line for line in done.stderr.splitlines() if "error:" in line]
        self.assertEqual(wrong[:10], [], f"{len(wrong)} places; scripts/format mends them")


if __name__ == "__main__":
    sys.exit(unittest.main())
