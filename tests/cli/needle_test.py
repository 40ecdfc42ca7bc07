#!/usr/bin/env python3
"""A sentence far back in the context is found: bench/needle on the demo model."""

import json
import os
import subprocess
import sys
import unittest

from support import BINARY, IS_SANITIZED, TIMEOUT_S

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEMO = os.environ.get("PENSTOCK_DEMO_MODEL", "")


def needle(*words):
    return subprocess.run([sys.executable, "-B", os.path.join(ROOT, "bench/needle"), "--penstock", BINARY, "--model", DEMO,
                           "--json", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S)


@unittest.skipUnless(os.path.exists(os.path.join(DEMO, "penstock.json")), "scripts/demo-model makes it")
class Needle(unittest.TestCase):
    def found(self, *words):
        done = needle(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_each_secret_is_cheaper_where_it_was_told(self):
        far, least = ("200", 100) if IS_SANITIZED else ("900", 400)
        rows = self.found("--tokens", far if IS_SANITIZED else f"50,{far}", "--gain", "4", "--", "--memory", "500M")
        self.assertGreater(rows[-1]["tokens"], least)
        for row in rows:
            for told, without in zip(row["with"], row["without"], strict=True):
                self.assertGreater(without, told + 4)
            self.assertGreater(min(row["without"]), 30)  # nobody guesses three words

    @unittest.skipIf(IS_SANITIZED, "the same again")
    def test_keys_and_values_of_eight_bits_find_it_as_well(self):
        rows = self.found("--tokens", "400", "--gain", "4", "--", "--memory", "500M")
        lossy = self.found("--tokens", "400", "--gain", "4", "--", "--memory", "500M", "--lossy-kv", "8")
        for exact, other in zip(rows[0]["with"], lossy[0]["with"], strict=True):
            self.assertNotEqual(exact, other)
            self.assertLess(abs(exact - other), 1)

    @unittest.skipIf(IS_SANITIZED, "about the script")
    def test_a_gain_that_is_not_there_is_an_error(self):
        done = needle("--tokens", "50", "--gain", "1000", "--", "--memory", "500M")
        self.assertEqual(done.returncode, 1)
        self.assertIn("1000 were asked for", done.stderr)


if __name__ == "__main__":
    unittest.main()
