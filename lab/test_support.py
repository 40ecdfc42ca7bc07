"""A repository of its own for tests of the laboratory; its program is a shell script."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import ledger

HERE = os.path.dirname(os.path.abspath(__file__))


class RepositoryTest(unittest.TestCase):
    settings = {}

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="penstock-lab-")
        self.git("init", "-q", "-b", "main")
        os.makedirs(self.path("lab"))
        for name in os.listdir(HERE):
            if name in ("try", "auto", "report", "PROGRAM.md") or name.endswith(".py"):
                shutil.copy(os.path.join(HERE, name), self.path("lab"))
        os.makedirs(self.path("bench"))
        shutil.copy(os.path.join(HERE, "../bench/svg_plot.py"), self.path("bench"))
        self.write("lab/workloads.json", json.dumps(self.settings))
        self.write(".gitignore", "/build/\n__pycache__/\n/lab/runs/\n/lab/ledger.tsv\n/calls*\n/profile.json\n")
        self.write("gates", "exit 0\n")

    def tearDown(self):
        shutil.rmtree(self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def git(self, *arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", self.folder, *identity, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def commit(self, **files):
        for name, text in files.items():
            self.write(name, text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "program", "--allow-empty")

    def rows(self):
        return ledger.read(self.path("lab/ledger.tsv"))
