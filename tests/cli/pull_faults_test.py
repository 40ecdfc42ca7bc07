#!/usr/bin/env python3
"""pull from a hub that misbehaves, and ended in the middle."""

import os
import resource
import signal
import subprocess
import threading
import time
import unittest

from hub_server import Repo, commit_of, sha256
from pull_case import PIECE, PullCase, content, noise
from support import BINARY, TIMEOUT_S


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


if __name__ == "__main__":
    unittest.main()
