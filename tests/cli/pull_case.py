"""What the tests of pull share: files to pull, and a pull of them from a hub on this machine."""

import json
import os
import random
import tempfile
import unittest

from hub_server import Hub, sha256
from support import DATA, environment, penstock

SOURCES = os.path.join(DATA, "sources")
PIECE = 16384


def content(*parts):
    with open(os.path.join(*parts), "rb") as file:
        return file.read()


def gguf_files():
    """Three splits of a model with a tokenizer, another quantisation, and what is no model."""
    files = {
        f"Q4_0/Tiny-Q4_0-0000{i}-of-00003.gguf": content(SOURCES, "gguf-old", f"m-0000{i}-of-00003.gguf")
        for i in (1, 2, 3)
    }
    files["Tiny-UD-Q5_K.gguf"] = content(SOURCES, "gguf-mixed", "m.gguf")
    files["mmproj-F16.gguf"] = b"GGUF no model"
    files["README.md"] = b"a card\n"
    return files


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


class PullCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="penstock-pull-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.cache = os.path.join(self.folder, "cache")

    def hub(self, **repos):
        hub = Hub(**repos)
        self.addCleanup(hub.close)
        return hub

    def env(self, hub=None, **extra):
        kept = {k: v for k, v in environment().items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        variables = {**kept, "PENSTOCK_CACHE": self.cache, **extra}
        if hub:
            variables["HF_ENDPOINT"] = hub.url
        return variables

    def run_it(self, *arguments, hub=None, **extra):
        return penstock(*arguments, env=self.env(hub, **extra))

    def good(self, *arguments, hub=None, **extra):
        done = self.run_it(*arguments, hub=hub, **extra)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode()

    def refused(self, code, *arguments, hub=None, **extra):
        """Expects the exit code and one line of error, which it returns."""
        done = self.run_it(*arguments, hub=hub, **extra)
        text = done.stderr.decode()
        self.assertEqual(done.returncode, code, text)
        lines = [line for line in text.splitlines() if line.startswith("penstock: ")]
        self.assertEqual(len(lines), 1, text)
        return lines[0]

    def pull(self, hub, name, *flags, **extra):
        return json.loads(
            self.good("pull", name, "--json", "--piece-bytes", PIECE, *flags, hub=hub, **extra)
        )

    def repo_folder(self, name):
        return os.path.join(self.cache, "models--" + name.replace("/", "--"))

    def blobs(self, name):
        folder = os.path.join(self.repo_folder(name), "blobs")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def expect_whole(self, name, data):
        """The one blob has these bytes and nothing is left beside it."""
        self.assertEqual(self.blobs(name), [sha256(data)])
        self.assertEqual(content(self.repo_folder(name), "blobs", sha256(data)), data)
