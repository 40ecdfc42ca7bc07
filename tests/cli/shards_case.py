"""What the tests of pull --shard-by-shard share: sources in shards, a hub that is watched, what is to be left at the end."""

import json
import os
import shutil
import tempfile

from hub_server import Repo, commit_of
from pull_case import PIECE, PullCase, content
from support import DATA, digest_of_folder, shard_safetensors

SHARDS = 4


def is_weights(name):
    return name.endswith((".safetensors", ".gguf"))


class ShardCase(PullCase):
    def setUp(self):
        super().setUp()
        # In memory where that is possible: many killed programs and each of them syncs.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        folder = tempfile.TemporaryDirectory(prefix="penstock-shards-", dir=memory)
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.cache = os.path.join(self.folder, "cache")
        self.target = os.path.join(self.folder, "model.penstock")
        self.staged = self.target + ".source"
        self.most = 0  # files of weights that were there, whole or begun, when something was asked for

    def folder_files(self, *path, key=None):
        """A checkpoint of the tests, its weights in SHARDS files: {name: bytes}."""
        folder = os.path.join(self.folder, "made")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(os.path.join(*path), folder)
        for name in os.listdir(folder):
            os.chmod(os.path.join(folder, name), 0o644)
            if name.startswith(("expected", "case")):
                os.remove(os.path.join(folder, name))
        shard_safetensors(folder, SHARDS, key)
        return {name: content(folder, name) for name in sorted(os.listdir(folder))}

    def plain_files(self):
        return self.folder_files(DATA, "random", "r0-gva2")

    def cut_files(self):
        """The halves of every expert in two files."""
        return self.folder_files(DATA, "random", "r0-gva2", key=lambda name: (
            not name.endswith("experts.gate_up_proj"), name.endswith("experts.down_proj"), name))

    def watched(self, files):
        hub = self.hub(org__m=Repo(files))
        hub.hook = self.watch
        return hub

    def watch(self, _handler, kind, _name):
        if kind == "file" and os.path.isdir(self.staged):
            # A journal that a kill left behind takes no room to speak of.
            here = {entry.removesuffix(".ranges") for entry in os.listdir(self.staged) if not entry.endswith(".journal")}
            self.most = max(self.most, sum(map(is_weights, here)))
        return False

    def is_downloading(self):
        """Headers and samples are read before."""
        return os.path.isdir(self.target + ".partial")

    def command(self, *flags, name="org/m"):
        return ("pull", name, "--pack", self.target, "--shard-by-shard", "--piece-bytes", PIECE, "--threads", "1",
                *flags)

    def expected(self, hub, *flags, name="org/m"):
        """The digest of the folder that pull and then pack make."""
        plain = os.path.join(self.folder, "plain.penstock")
        shutil.rmtree(plain, ignore_errors=True)
        hook, hub.hook = hub.hook, None
        model = self.pull(hub, name)["model"]
        self.good("pack", model, plain, "--threads", "1", *flags)
        hub.hook = hook
        hub.requests.clear()
        hub.bytes_sent = 0
        return digest_of_folder(plain)

    def expect_done(self, digest):
        self.assertEqual(digest_of_folder(self.target), digest)
        left = [name for name in os.listdir(self.folder) if name.startswith("model.penstock")]
        self.assertEqual(left, ["model.penstock"])

    def fresh(self):
        for path in (self.target, self.target + ".partial", self.staged):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.target + ".journal", self.target + ".in-place"):
            if os.path.exists(path):
                os.remove(path)

    def expect_same(self, files, *flags, name="org/m"):
        hub = self.watched(files)
        digest = self.expected(hub, *flags, name=name)
        told = [json.loads(line) for line in
                self.good(*self.command("--json", "--verify", *flags, name=name), hub=hub).splitlines()]
        self.expect_done(digest)
        self.assertEqual(told[1]["num_faults"], 0)
        self.assertEqual(told[2]["commit"], commit_of("main"))
        self.assertEqual(told[2]["downloaded_bytes"], hub.bytes_sent - len(self.listing_of(hub)))
        return hub

    def listing_of(self, hub):
        repo = next(iter(hub.repos.values()))
        return json.dumps({"id": "org/m", "sha": commit_of("main"), "siblings": repo.siblings()})

    def stopped_by_refusals(self, hub):
        """An unfinished pull, with nothing of its weights."""
        hook = hub.hook
        hub.hook = lambda handler, kind, name: (
            kind == "file" and is_weights(name) and (hub.send(handler, 403) or True))
        self.assertIn("answered 403", self.refused(5, *self.command("--experts", "keep"), hub=hub))
        hub.hook = hook

    def refuse(self, hub, is_refused):
        """Answers 403 where `is_refused(name, begin of the range)`; every other request is counted: {name: [begin]}."""
        asked = {}

        def answer(handler, kind, name):
            if kind != "file" or not is_weights(name):
                return False
            begin = hub.range_of(handler, b"")[0]
            if is_refused(name, begin):
                hub.send(handler, 403)
                return True
            if not self.is_downloading():
                asked.setdefault(name, []).append(begin)
            return False

        hub.hook = answer
        return asked
