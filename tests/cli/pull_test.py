#!/usr/bin/env python3
"""pull, with --pack too, ls, rm, and names of pulled models as MODEL, against a hub on this machine."""

import json
import os
import resource
import subprocess
import unittest

from hub_server import Repo, commit_of, git_hash, sha256
from pull_case import PIECE, SOURCES, PullCase, content, gguf_files, noise
from support import BINARY, Model
from terminal_driver import Terminal


class Pulling(PullCase):
    def test_a_quantisation_in_splits_is_pulled_and_answers_by_its_name(self):
        hub = self.hub(org__tiny=Repo(gguf_files()))
        text = self.good("pull", "org/tiny:q4_0", hub=hub)
        self.assertIn("next: penstock chat org/tiny:Q4_0\n", text)
        by_path = os.path.join(SOURCES, "gguf-old", "m-00001-of-00003.gguf")
        flags = ("-p", "ab ba", "--max-tokens", "3", "--temp", "0", "--threads", "1", "--json")
        told, same = (json.loads(self.good("run", model, *flags)) for model in ("org/tiny:Q4_0", by_path))
        self.assertEqual(told["token_ids"], same["token_ids"])
        self.assertNotIn("Authorization", str(hub.requests))

    def test_the_cache_is_laid_out_as_others_have_it(self):
        files = gguf_files()
        hub = self.hub(org__tiny=Repo(files))
        report = self.pull(hub, "org/tiny:Q4_0")
        repo = self.repo_folder("org/tiny")
        commit = commit_of("main")
        self.assertEqual(content(repo, "refs", "main").decode(), commit)
        name = "Q4_0/Tiny-Q4_0-00002-of-00003.gguf"
        link = os.path.join(repo, "snapshots", commit, name)
        self.assertEqual(os.readlink(link), f"../../../blobs/{sha256(files[name])}")
        self.assertEqual(content(link), files[name])
        self.assertEqual(report["files"], 3)
        self.assertEqual(report["downloaded_bytes"], report["bytes"])
        self.assertEqual(len(self.blobs("org/tiny")), 3)
        again = self.pull(hub, "org/tiny:Q4_0")
        self.assertEqual(again["downloaded_bytes"], 0)

    def test_safetensors_come_with_their_texts_and_answer(self):
        model = Model()
        self.addCleanup(model.remove)
        files = {name: content(model.source, name) for name in os.listdir(model.source)}
        files["pytorch_model.bin"] = b"\x80"
        files["original/consolidated.safetensors"] = b"none"
        hub = self.hub(org__plain=Repo(files))
        self.pull(hub, "org/plain")
        names = os.listdir(os.path.join(self.repo_folder("org/plain"), "snapshots", commit_of("main")))
        self.assertIn("tokenizer.json", names)
        self.assertNotIn("pytorch_model.bin", names)
        self.assertNotIn("original", names)
        self.assertIn(git_hash(files["config.json"]), self.blobs("org/plain"))
        told = json.loads(
            self.good("run", "org/plain", "--chat", "-p", "a", "--max-tokens", "2", "--threads", "1", "--json")
        )
        self.assertLessEqual(len(told["token_ids"]), 2)

    def test_what_does_not_name_one_model_is_told_with_what_there_is(self):
        hub = self.hub(org__tiny=Repo(gguf_files()), org__none=Repo({"a.bin": b"a"}))
        line = self.refused(2, "pull", "org/tiny", hub=hub)
        self.assertIn("Q4_0", line)
        self.assertIn("UD-Q5_K", line)
        self.assertIn("it has Q4_0", self.refused(3, "pull", "org/tiny:Q9_9", hub=hub))
        self.assertIn("a.bin", self.refused(3, "pull", "org/none", hub=hub))
        self.assertEqual(self.pull(hub, "org/tiny:Q5_K")["quant"], "UD-Q5_K")

    def test_include_takes_files_by_pattern(self):
        hub = self.hub(org__tiny=Repo(gguf_files()))
        self.assertEqual(self.pull(hub, "org/tiny", "--include", "*.md,mmproj*")["files"], 2)
        self.assertIn("README.md", self.refused(3, "pull", "org/tiny", "--include", "*.zip", hub=hub))

    def test_a_revision_stands_beside_main(self):
        repo = Repo({"m-Q8_0.gguf": noise(1000)})
        repo.commits["refs/pr/7"] = commit_of("seven")
        hub = self.hub(org__two=repo)
        report = self.pull(hub, "org/two", "--revision", "refs/pr/7")
        self.assertEqual(report["commit"], commit_of("seven"))
        self.assertEqual(content(self.repo_folder("org/two"), "refs/refs/pr/7").decode(), commit_of("seven"))
        self.assertIn("has no revision nine", self.refused(3, "pull", "org/two", "--revision", "nine", hub=hub))
        self.assertIn("is not a revision", self.refused(2, "pull", "org/two", "--revision", "../a", hub=hub))

    def test_offline_asks_nobody(self):
        hub = self.hub(org__one=Repo({"m-Q8_0.gguf": noise(1000)}))
        self.assertIn("offline", self.refused(3, "pull", "org/one", "--offline", hub=hub))
        self.assertEqual(hub.requests, [])
        self.pull(hub, "org/one")
        count = len(hub.requests)
        self.assertEqual(self.pull(hub, "org/one", HF_HUB_OFFLINE="1")["quant"], "Q8_0")
        self.assertEqual(len(hub.requests), count)

    def test_bad_names_are_refused_before_anything(self):
        for name in ("a", "a/b/c", "../b", "a/..", "a/b:", "a/b--c", "a/b c", "-a/b", "a/" + "b" * 300, "a/b:../c"):
            with self.subTest(name):
                self.refused(2, "pull", "--", name)
        self.assertFalse(os.path.exists(self.cache))

    def test_a_name_that_was_not_pulled_says_how(self):
        for verb in ("run", "show", "plan", "bench"):
            self.assertIn("`penstock pull org/none:Q4_0`", self.refused(3, verb, "org/none:Q4_0"))


class Packing(PullCase):
    """pull --pack."""

    NAME = "org/tiny:Q4_0"
    BY_PATH = os.path.join(SOURCES, "gguf-old", "m-00001-of-00003.gguf")

    def setUp(self):
        super().setUp()
        self.the_hub = self.hub(org__tiny=Repo(gguf_files()))
        self.target = os.path.join(self.folder, "tiny.penstock")

    def pull_and_pack(self, *flags, hub=None):
        output = self.good("pull", self.NAME, "--pack", self.target, "--json", "--piece-bytes", PIECE, *flags,
                           hub=hub or self.the_hub)
        return [json.loads(line) for line in output.splitlines()]

    def expect_as_packed_by_hand(self, *flags):
        by_hand = os.path.join(self.folder, "by-hand.penstock")
        self.good("pack", self.BY_PATH, by_hand, *flags)
        self.assertEqual(sorted(os.listdir(self.target)), sorted(os.listdir(by_hand)))
        # Sums are of bytes and of the model's id, to which the very files belong that it was made of.
        for name in ("experts.bin", "resident.bin", "tokenizer.json"):
            self.assertEqual(content(self.target, name), content(by_hand, name), name)
        self.assertFalse(os.path.exists(self.target + ".partial"))

    def test_a_model_is_pulled_and_packed_and_stays_when_it_is_removed(self):
        pulled, packed = self.pull_and_pack("--verify")[:2]
        self.assertEqual(pulled["downloaded_bytes"], pulled["bytes"])
        self.assertEqual(packed["target"], self.target)
        self.expect_as_packed_by_hand()
        self.good("rm", "org/tiny", "--yes")
        self.assertEqual(self.good("run", self.target, "-p", "ab", "--max-tokens", "2", "--greedy", "--threads", "1"),
                         self.good("run", self.BY_PATH, "-p", "ab", "--max-tokens", "2", "--greedy", "--threads", "1"))

    def test_the_folder_of_the_target_need_not_be_there(self):
        self.target = os.path.join(self.folder, "new", "folder", "tiny.penstock")
        self.pull_and_pack()
        self.expect_as_packed_by_hand()

    def test_the_flags_of_pack_are_obeyed(self):
        self.pull_and_pack("--resident", "8")
        self.expect_as_packed_by_hand("--resident", "8")

    def test_what_cannot_be_packed_is_told_before_anything_is_asked_for(self):
        os.mkdir(self.target)
        self.assertIn("exists", self.refused(2, "pull", self.NAME, "--pack", self.target, hub=self.the_hub))
        self.assertIn("--include", self.refused(2, "pull", self.NAME, "--include", "*", "--pack", self.target + "2",
                                                hub=self.the_hub))
        self.assertIn("--experts-down", self.refused(2, "pull", self.NAME, "--pack", self.target + "2", "--experts",
                                                     "keep", "--experts-down", "2", hub=self.the_hub))
        self.assertIn("--pack TARGET", self.refused(2, "pull", self.NAME, "--experts", "3", hub=self.the_hub))
        self.assertEqual(self.the_hub.requests, [])

    def test_room_is_looked_for_for_both(self):
        stat = os.statvfs(self.folder)
        most_of_it = int(0.7 * stat.f_bavail * stat.f_frsize)
        hub = self.hub(org__one=Repo({"m-Q8_0.gguf": noise(1000)}))
        hub.change_listing = lambda listing: listing["siblings"][0].update(size=most_of_it)
        line = self.refused(4, "pull", "org/one:Q8_0", "--pack", self.target, hub=hub)
        self.assertIn("to be packed", line)
        self.assertEqual(hub.requests_of("file"), [])

    def test_interrupted_in_either_half_it_goes_on(self):
        largest = max(len(data) for name, data in gguf_files().items() if "Q4_0" in name)
        command = [BINARY, "pull", self.NAME, "--pack", self.target, "--piece-bytes", str(PIECE)]
        for limit, last in ((largest - PIECE, "downloaded"), (largest + PIECE, "packed")):
            done = subprocess.run(command, env=self.env(self.the_hub), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
            self.assertEqual(done.returncode, 5, done.stderr)
            self.assertIn(b"File too large", done.stderr)
            self.assertEqual(os.path.exists(self.target + ".partial"), last == "packed")
        sent = self.the_hub.bytes_sent
        pulled, packed = self.pull_and_pack()
        self.assertEqual((pulled["downloaded_bytes"], packed["target"]), (0, self.target))
        self.assertLess(self.the_hub.bytes_sent - sent, 20000)  # the list of files
        self.expect_as_packed_by_hand()


class Keeping(PullCase):
    def setUp(self):
        super().setUp()
        self.repo = Repo(gguf_files())
        self.the_hub = self.hub(org__tiny=self.repo)
        self.pull(self.the_hub, "org/tiny:Q4_0")
        self.pull(self.the_hub, "org/tiny:UD-Q5_K")

    def rows(self):
        return [json.loads(line) for line in self.good("ls", "--json").splitlines()]

    def test_ls_lists_what_can_be_opened(self):
        rows = self.rows()
        self.assertEqual([row["name"] for row in rows], ["org/tiny:Q4_0", "org/tiny:UD-Q5_K"])
        self.assertEqual(rows[0]["bytes"], sum(len(d) for n, d in self.repo.files.items() if n.startswith("Q4_0")))
        self.assertEqual(rows[0]["revisions"], ["main"])
        self.assertTrue(rows[0]["whole"])
        self.assertIn("org/tiny:UD-Q5_K", self.good("ls"))
        os.remove(os.path.join(self.repo_folder("org/tiny"), "blobs", sha256(self.repo.files["Tiny-UD-Q5_K.gguf"])))
        self.assertEqual(len(self.rows()), 1)

    def test_rm_asks_and_takes_one_quantisation(self):
        self.assertIn("--yes", self.refused(2, "rm", "org/tiny:Q4_0"))
        self.assertEqual(len(self.blobs("org/tiny")), 4)
        self.assertIn("is not in", self.refused(3, "rm", "org/tiny:Q8_0", "--yes"))
        self.good("rm", "org/tiny:Q4_0", "--yes")
        self.assertEqual(self.blobs("org/tiny"), [sha256(self.repo.files["Tiny-UD-Q5_K.gguf"])])
        self.assertEqual([row["name"] for row in self.rows()], ["org/tiny:UD-Q5_K"])
        self.good("rm", "org/tiny", "--yes")
        self.assertFalse(os.path.exists(self.repo_folder("org/tiny")))

    def test_rm_takes_the_typed_name_and_no_other(self):
        for typed, code in (("org/tiny\n", 2), ("\n", 2), ("\x04", 2), ("\x03", 130)):
            with self.subTest(typed=typed):
                terminal = Terminal("rm", "org/tiny:Q4_0", PENSTOCK_CACHE=self.cache)
                terminal.wait_for("type org/tiny:Q4_0 to do so: ")
                terminal.type(typed)
                self.assertEqual(terminal.end(), code)
                self.assertEqual(len(self.blobs("org/tiny")), 4)
        terminal = Terminal("rm", "org/tiny:Q4_0", PENSTOCK_CACHE=self.cache)
        terminal.wait_for("type org/tiny:Q4_0 to do so: ")
        terminal.type("org/tiny:Q4_0\n")
        self.assertEqual(terminal.end(), 0)
        self.assertEqual(len(self.blobs("org/tiny")), 1)

    def test_rm_of_a_revision_keeps_what_another_needs(self):
        self.repo.commits["next"] = commit_of("next")
        self.repo.files["Tiny-UD-Q5_K.gguf"] = content(SOURCES, "gguf-mtp", "m.gguf")
        self.pull(self.the_hub, "org/tiny:Q4_0", "--revision", "next")
        self.pull(self.the_hub, "org/tiny:UD-Q5_K", "--revision", "next")
        self.assertEqual(len(self.blobs("org/tiny")), 5)
        self.good("rm", "org/tiny", "--revision", "next", "--yes")
        self.assertEqual(len(self.blobs("org/tiny")), 4)
        self.assertEqual(os.listdir(os.path.join(self.repo_folder("org/tiny"), "refs")), ["main"])
        self.good("run", "org/tiny:Q4_0", "-p", "ab", "--max-tokens", "1", "--threads", "1")


if __name__ == "__main__":
    unittest.main()
