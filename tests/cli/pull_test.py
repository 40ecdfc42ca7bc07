#!/usr/bin/env python3
"""pull, ls, rm, and names of pulled models as MODEL, against a hub on this machine that misbehaves."""

import json
import os
import random
import resource
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from hub_server import Hub, Repo, commit_of, git_hash, sha256
from support import BINARY, DATA, TIMEOUT_S, Model, environment, penstock

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


class BadServers(PullCase):
    DATA = noise(10 * PIECE + 77)

    def one(self, data=None, name="m-Q8_0.gguf"):
        return self.hub(org__one=Repo({name: data or self.DATA}))

    def test_ranges_are_asked_for_several_at_a_time(self):
        hub = self.one()
        self.pull(hub, "org/one")
        self.expect_whole("org/one", self.DATA)
        ranges = {headers.get("Range") for _, _, headers in hub.requests_of("file")}
        self.assertEqual(len(ranges), 11)

    def test_a_server_without_ranges_is_read_from_the_front(self):
        hub = self.one()
        hub.ranges = False
        self.pull(hub, "org/one")
        self.expect_whole("org/one", self.DATA)

    def test_a_server_without_ranges_that_breaks_off_is_asked_again(self):
        hub = self.one()
        hub.ranges = False
        left = [3]

        def hook(handler, kind, name):
            if kind != "file" or left[0] == 0:
                return False
            left[0] -= 1
            hub.send_file(handler, self.DATA, short=3 * PIECE)
            return True

        hub.hook = hook
        self.pull(hub, "org/one")
        self.expect_whole("org/one", self.DATA)

    def test_short_bodies_are_gone_on_with_where_they_ended(self):
        hub = self.one()
        count = [0]

        def hook(handler, kind, name):
            count[0] += kind == "file"
            if kind != "file" or count[0] % 3 != 0 or count[0] > 12:
                return False
            hub.send_file(handler, self.DATA, short=100)
            return True

        hub.hook = hook
        self.pull(hub, "org/one")
        self.expect_whole("org/one", self.DATA)
        starts = [headers.get("Range", "bytes=0-").split("=")[1] for _, _, headers in hub.requests_of("file")]
        self.assertTrue(any(int(start.split("-")[0]) % PIECE != 0 for start in starts), starts)

    def test_another_length_than_the_list_tells_is_an_error(self):
        hub = self.one()

        def longer(listing):
            listing["siblings"][0]["size"] += 1

        hub.change_listing = longer
        self.assertIn("where the list of files has", self.refused(3, "pull", "org/one", "--piece-bytes", PIECE, hub=hub))
        self.assertIn("where the list of files has", self.refused(3, "pull", "org/one", hub=hub))
        self.assertNotIn(sha256(self.DATA), self.blobs("org/one"))

    def test_a_wrong_hash_keeps_nothing(self):
        for name in ("m-Q8_0.gguf", "config.json"):
            with self.subTest(name):
                hub = self.hub(org__one=Repo({name: self.DATA}))
                bad = bytearray(self.DATA)
                bad[5 * PIECE] ^= 1

                def hook(handler, kind, _):
                    if kind != "file":
                        return False
                    hub.send_file(handler, bytes(bad))
                    return True

                hub.hook = hook
                line = self.refused(3, "pull", "org/one", "--include", "*", "--piece-bytes", PIECE, hub=hub)
                self.assertIn("nothing of it was kept", line)
                self.assertEqual(self.blobs("org/one"), [])
                self.assertFalse(os.path.exists(os.path.join(self.repo_folder("org/one"), "refs", "main")))

    def test_an_etag_that_changes_in_the_middle_starts_the_file_anew(self):
        hub = self.one()
        count = [0]

        def hook(handler, kind, name):
            if kind != "file":
                return False
            count[0] += 1
            old = noise(len(self.DATA), 2)
            if count[0] <= 4:
                hub.send_file(handler, old)
                return True
            return False

        hub.hook = hook
        self.pull(hub, "org/one")
        self.expect_whole("org/one", self.DATA)

    def test_a_file_without_end_of_changes_is_given_up(self):
        hub = self.one()
        count = [0]

        def hook(handler, kind, name):
            if kind != "file":
                return False
            count[0] += 1
            del handler.headers["If-Range"]
            hub.send_file(handler, self.DATA, etag=f'"{count[0]}"')
            return True

        hub.hook = hook
        self.assertIn("ETag changes", self.refused(5, "pull", "org/one", "--piece-bytes", PIECE, hub=hub))
        self.assertNotIn(sha256(self.DATA), self.blobs("org/one"))

    def test_the_token_never_goes_to_another_host(self):
        other = self.hub()
        other.hook = lambda handler, kind, name: other.send_file(handler, self.DATA) or True
        hub = self.one()

        def hook(handler, kind, name):
            if kind != "file":
                return False
            hub.send(handler, 302, b"moved", {"Location": f"{other.url}/signed?key=1"})
            return True

        hub.hook = hook
        self.pull(hub, "org/one", HF_TOKEN="hf_secret")
        self.expect_whole("org/one", self.DATA)
        self.assertGreaterEqual(len(other.requests), 11)
        self.assertNotIn("hf_secret", str(other.requests))
        for _, _, headers in hub.requests:
            self.assertEqual(headers.get("Authorization"), "Bearer hf_secret")
        self.assertEqual(len(hub.requests_of("file")), 1, "the address is asked for once")

    def test_the_token_of_the_file_is_used_and_a_bad_one_refused(self):
        hub = self.one()
        os.makedirs(os.path.join(self.folder, "home"))
        path = os.path.join(self.folder, "home", "token")
        with open(path, "w") as file:
            file.write("hf_file\n")
        self.pull(hub, "org/one", HF_HOME=os.path.dirname(path))
        self.assertEqual(hub.requests[0][2]["Authorization"], "Bearer hf_file")
        line = self.refused(2, "pull", "org/one", hub=hub, HF_TOKEN="a\r\nX-Evil: 1")
        self.assertIn("HF_TOKEN", line)
        self.assertNotIn("Evil", line)

    def test_redirects_come_to_an_end(self):
        hub = self.one()
        hub.hook = lambda handler, kind, name: kind == "file" and (
            hub.send(handler, 302, b"", {"Location": handler.path}) or True)
        self.assertIn("redirects more than", self.refused(3, "pull", "org/one", hub=hub))
        for target in ("ftp://127.0.0.1/x", "file:///etc/passwd", "http://user:word@127.0.0.1/"):
            hub.hook = lambda handler, kind, name: kind == "file" and (
                hub.send(handler, 302, b"", {"Location": target}) or True)
            self.assertIn("not followed", self.refused(3, "pull", "org/one", hub=hub))

    def test_a_wait_that_is_asked_for_is_kept(self):
        hub = self.one()
        times = []

        def hook(handler, kind, name):
            times.append(time.monotonic())
            if len(times) > 1:
                return False
            hub.send(handler, 429, b"slow down", {"Retry-After": "2"})
            return True

        hub.hook = hook
        done = self.run_it("pull", "org/one", hub=hub)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"asks to wait 2 s", done.stderr)
        self.assertGreaterEqual(times[1] - times[0], 1.9)

    def test_a_wait_of_hours_is_told_instead(self):
        hub = self.one()
        hub.hook = lambda handler, kind, name: hub.send(handler, 429, b"", {"Retry-After": "7200"}) or True
        self.assertIn("7200 s", self.refused(5, "pull", "org/one", hub=hub))

    def test_faults_of_the_server_are_tried_again_and_given_up_in_the_end(self):
        hub = self.one()
        count = [0]

        def hook(handler, kind, name):
            count[0] += 1
            if count[0] not in (1, 2, 4):
                return False
            hub.send(handler, 502, b"<html>")
            return True

        hub.hook = hook
        self.pull(hub, "org/one")
        self.expect_whole("org/one", self.DATA)
        hub.hook = lambda handler, kind, name: hub.send(handler, 500, b"oh") or True
        self.assertIn("given up after 7 attempts: answer 500", self.refused(5, "pull", "org/one", hub=hub))

    def test_what_is_no_list_of_files_is_told(self):
        hub = self.one()
        for text, told in (
            (b"<html>sign in</html>", "not JSON"),
            (b"[]", "no JSON object"),
            (b"{}", '"sha" is missing'),
            (b'{"sha":"../x","siblings":[]}', "no commit"),
            (b'{"sha":"%s"}' % commit_of("a").encode(), "siblings"),
            (b'{"sha":1', "not JSON"),
            (b"[" * 100000, "nested deeper"),
        ):
            hub.hook = lambda handler, kind, name: hub.send(handler, 200, text) or True
            with self.subTest(told):
                self.assertIn(told, self.refused(3, "pull", "org/one", hub=hub))
        self.assertFalse(os.path.exists(self.cache))

    def test_hostile_file_names_write_nothing(self):
        hub = self.one()
        for name in ("../../evil-Q8_0.gguf", "/tmp/evil-Q8_0.gguf", "a/../b-Q8_0.gguf", "a//b-Q8_0.gguf", "a\\b-Q8_0.gguf",
                     "a\nb-Q8_0.gguf", ".", "", "a\u202eb-Q8_0.gguf", "x" * 2000 + ".gguf", "\x1b[2J.gguf"):
            def rename(listing):
                listing["siblings"][0]["rfilename"] = name

            hub.change_listing = rename
            with self.subTest(name):
                line = self.refused(3, "pull", "org/one", hub=hub)
                self.assertNotIn("\x1b", line)
        self.assertEqual(os.listdir(self.folder), [])

    def test_hostile_hashes_and_sizes_are_refused(self):
        hub = self.one()
        for change in ({"size": -1}, {"size": 2**70}, {"size": "9"}, {"size": None}, {"lfs": {"sha256": "../../x"}},
                       {"lfs": {}}, {"lfs": None, "blobId": "A" * 40}):
            hub.change_listing = lambda listing: listing["siblings"][0].update(change)
            with self.subTest(change):
                self.refused(3, "pull", "org/one", hub=hub)
        self.assertEqual(os.listdir(self.folder), [])

    def test_who_may_not_read_is_told_what_to_do(self):
        hub = self.one()
        for status, fields, code, told in (
            (401, {}, 5, "set HF_TOKEN"),
            (403, {"X-Error-Code": "GatedRepo"}, 5, "consent"),
            (404, {"X-Error-Code": "RepoNotFound"}, 3, "check the name"),
        ):
            hub.hook = lambda handler, kind, name: hub.send(handler, status, b"no", fields) or True
            with self.subTest(status):
                self.assertIn(told, self.refused(code, "pull", "org/one", hub=hub))
        hub.hook = lambda handler, kind, name: hub.send(handler, 401, b"no") or True
        self.assertIn("is not accepted", self.refused(5, "pull", "org/one", hub=hub, HF_TOKEN="hf_old"))

    def test_nobody_answers(self):
        hub = self.one()
        hub.close()
        self.assertIn("given up", self.refused(5, "pull", "org/one", hub=hub))


class Interruptions(PullCase):
    DATA = noise(40 * PIECE)

    def slow_hub(self, seconds):
        hub = self.hub(org__one=Repo({"m-Q8_0.gguf": self.DATA}))

        def hook(handler, kind, name):
            if kind == "file":
                time.sleep(seconds)
            return False

        hub.hook = hook
        return hub

    def start(self, hub, **extra):
        return subprocess.Popen(
            [BINARY, "pull", "org/one", "--piece-bytes", str(PIECE), "--connections", "2"],
            env=self.env(hub, **extra), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait_for_journal(self, lines):
        folder = os.path.join(self.repo_folder("org/one"), "blobs")
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            for name in self.blobs("org/one"):
                if name.endswith(".journal") and len(content(folder, name).splitlines()) > lines:
                    return
            time.sleep(0.01)
        self.fail("no journal came")

    def test_a_killed_pull_goes_on_with_what_is_there(self):
        hub = self.slow_hub(0.15)
        child = self.start(hub)
        self.wait_for_journal(6)
        child.kill()
        child.communicate()
        self.assertFalse(os.path.exists(os.path.join(self.repo_folder("org/one"), "refs", "main")))
        self.assertIn("pull org/one", self.refused(3, "run", "org/one", "-p", "a"))
        hub.hook = None
        before = hub.bytes_sent
        report = self.pull(hub, "org/one")
        self.expect_whole("org/one", self.DATA)
        self.assertLessEqual(report["downloaded_bytes"], len(self.DATA) - 6 * PIECE)
        self.assertLess(hub.bytes_sent - before, len(self.DATA) - 5 * PIECE)

    def test_bytes_that_changed_while_nobody_looked_are_found(self):
        hub = self.slow_hub(0.15)
        child = self.start(hub)
        self.wait_for_journal(6)
        child.kill()
        child.communicate()
        hub.hook = None
        path = os.path.join(self.repo_folder("org/one"), "blobs", sha256(self.DATA) + ".ranges")
        with open(path, "r+b") as file:
            file.write(b"\0\0\0\0")
        self.assertIn("SHA-256", self.refused(3, "pull", "org/one", "--piece-bytes", PIECE, hub=hub))
        self.assertEqual(self.blobs("org/one"), [])
        self.pull(hub, "org/one")
        self.expect_whole("org/one", self.DATA)

    def test_ctrl_c_ends_at_once_and_is_resumed(self):
        hub = self.slow_hub(0.15)
        child = self.start(hub)
        self.wait_for_journal(2)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=TIMEOUT_S)
        self.assertEqual(child.returncode, 130)
        self.assertIn(b"goes on where it was", errors)
        hub.hook = None
        self.assertLess(self.pull(hub, "org/one")["downloaded_bytes"], len(self.DATA))
        self.expect_whole("org/one", self.DATA)

    def test_two_pulls_at_once_download_once(self):
        hub = self.slow_hub(0.1)
        wait, both_have_asked = hub.hook, threading.Event()

        def hook(handler, kind, name):
            if kind == "file":
                both_have_asked.wait(TIMEOUT_S)
            elif len(hub.requests_of("list")) >= 2:
                both_have_asked.set()
            return wait(handler, kind, name)

        hub.hook = hook
        children = [self.start(hub), self.start(hub)]
        outputs = [child.communicate(timeout=TIMEOUT_S) for child in children]
        for child, (_, errors) in zip(children, outputs):
            self.assertEqual(child.returncode, 0, errors)
        self.assertIn(b"another program downloads", outputs[0][1] + outputs[1][1])
        self.expect_whole("org/one", self.DATA)
        self.assertLess(hub.bytes_sent, len(self.DATA) + 20000)

    def test_a_disk_that_is_too_small_is_told_before_anything(self):
        hub = self.hub(org__one=Repo({"m-Q8_0.gguf": self.DATA}))
        hub.change_listing = lambda listing: listing["siblings"][0].update(size=2**45)
        line = self.refused(4, "pull", "org/one", hub=hub)
        self.assertIn("too small", line)
        self.assertEqual(hub.requests_of("file"), [])

    def test_room_that_a_half_file_has_is_not_asked_for_again(self):
        hub = self.hub(org__one=Repo({"m-Q8_0.gguf": self.DATA}))

        def told_free(free):
            return subprocess.run([os.environ["PENSTOCK_FAULTY_BINARY"], "pull", "org/one", "--piece-bytes", str(PIECE)],
                                  env=self.env(hub, PENSTOCK_TEST_FREE=str(free)), capture_output=True, check=False)

        self.assertIn(b"too small", told_free(len(self.DATA) - 1).stderr)
        hub.hook = lambda handler, kind, name: kind == "file" and (hub.send(handler, 403) or True)
        self.assertIn(b"answered 403", told_free(len(self.DATA)).stderr)
        hub.hook = None
        done = told_free(1)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.expect_whole("org/one", self.DATA)

    def test_a_file_that_may_not_grow_ends_it_and_it_is_resumed(self):
        hub = self.hub(org__one=Repo({"m-Q8_0.gguf": self.DATA}))
        done = subprocess.run(
            [BINARY, "pull", "org/one", "--piece-bytes", str(PIECE)], env=self.env(hub),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10 * PIECE, 10 * PIECE)))
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn(b"File too large", done.stderr)
        self.pull(hub, "org/one")
        self.expect_whole("org/one", self.DATA)


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
