#!/usr/bin/env python3
"""pull --pack --shard-by-shard from a hub that misbehaves, or that is to be asked no more than is needed."""

import os
import threading
import unittest

from hub_server import Repo
from pull_case import PIECE
from shards_case import SHARDS, ShardCase, is_weights


class Hubs(ShardCase):
    def test_another_content_than_is_listed_is_never_packed(self):
        files = self.plain_files()
        hub = self.watched(files)
        digest = self.expected(hub, "--experts", "keep")
        name = f"model-00002-of-{SHARDS:05}.safetensors"
        bad = bytearray(files[name])
        bad[-1] ^= 1

        def send_bad(handler, kind, asked):
            if kind == "file" and asked == name:
                hub.send_file(handler, bytes(bad))
                return True
            return False

        hub.hook = send_bad
        line = self.refused(3, *self.command("--experts", "keep"), hub=hub)
        self.assertIn(name, line)
        self.assertIn("SHA-256", line)
        self.assertFalse(os.path.exists(os.path.join(self.staged, name)))
        self.assertFalse(os.path.exists(self.target))
        hub.hook = None
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)

    def test_headers_that_were_told_otherwise_are_found_by_the_hash(self):
        """Samples of a tensor, which come without a hash."""
        files = self.plain_files()
        hub = self.watched(files)
        digest = self.expected(hub, "--experts", "keep")
        name = f"model-00002-of-{SHARDS:05}.safetensors"
        bad = bytearray(files[name])
        begin = 8 + int.from_bytes(bad[:8], "little")
        bad[begin] ^= 1

        def send_bad(handler, kind, asked):
            if kind == "file" and asked == name and not self.is_downloading():
                hub.send_file(handler, bytes(bad), etag='"one"')
                return True
            return False

        hub.hook = send_bad
        line = self.refused(3, *self.command("--experts", "keep"), hub=hub)
        self.assertIn("first told other bytes", line)
        hub.hook = None
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)

    def test_connections_that_break_and_servers_that_fail_cost_time_alone(self):
        hub = self.watched(self.plain_files())
        digest = self.expected(hub, "--experts", "keep")
        count = {}

        def misbehave(handler, kind, name):
            if kind != "file":
                return False
            self.watch(handler, kind, name)
            data = hub.repos["org/m"].files[name]
            count[name] = count.get(name, 0) + 1
            if count[name] % 5 == 1:
                hub.send(handler, 503)
            elif count[name] % 5 == 2:
                begin, end = hub.range_of(handler, data)
                hub.send_file(handler, data, short=(end - begin + 1) // 2)
            else:
                return False
            return True

        hub.hook = misbehave
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)
        self.assertLessEqual(self.most, 2)

    def test_redirects_to_another_origin_get_no_token(self):
        files = self.plain_files()
        hub, store = self.watched(files), self.hub(org__m=Repo(files))
        digest = self.expected(hub, "--experts", "keep")

        def redirect(handler, kind, name):
            if kind != "file":
                return False
            hub.send(handler, 302, fields={"Location": store.url + handler.path + "?signed=1"})
            return True

        hub.hook = redirect
        self.good(*self.command("--experts", "keep"), hub=hub, HF_TOKEN="hf_secret")
        self.expect_done(digest)
        self.assertIn("hf_secret", str(hub.requests))
        self.assertNotIn("hf_secret", str(store.requests))

    def test_headers_and_samples_that_came_are_not_asked_for_again(self):
        files = self.plain_files()
        hub = self.watched(files)
        digest = self.expected(hub, "--experts", "keep")
        command = self.command("--experts", "keep")
        last = f"model-{SHARDS:05}-of-{SHARDS:05}.safetensors"
        weights = 8 + int.from_bytes(files[last][:8], "little")  # where they begin
        asked = self.refuse(hub, lambda name, _: name == last)
        self.refused(5, *command, hub=hub)
        self.assertEqual(len(asked), SHARDS - 1)
        asked = self.refuse(hub, lambda name, begin: name == last and begin >= weights)
        self.refused(5, *command, hub=hub)
        self.assertEqual(set(asked.pop(last)), {begin for begin in range(0, weights, int(PIECE) // 16)})
        self.assertNotIn(0, sum(asked.values(), []))
        # What is damaged is asked for once more, and what came before it is not.
        path = os.path.join(self.staged, "samples.bin")
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) - 100)
            file.write(b"damaged")
        asked = self.refuse(hub, lambda name, _: self.is_downloading())
        self.refused(5, *command, hub=hub)
        self.assertNotIn(0, sum(asked.values(), []))
        self.assertGreater(len(asked.pop(last)), 0)
        asked = self.refuse(hub, lambda *_: False)
        self.good(*command, hub=hub)
        self.assertEqual(asked, {})
        self.expect_done(digest)

    def test_where_a_file_is_the_hub_is_asked_once_until_that_is_out_of_date(self):
        files = self.plain_files()
        hub, store = self.watched(files), self.hub(org__m=Repo(files))
        digest = self.expected(hub, "--experts", "keep")
        asked, uses, lock = [], {}, threading.Lock()
        uses_most = 1 << 30

        def redirect(handler, kind, name):
            if kind != "file":
                return False
            with lock:
                asked.append("later" if self.is_downloading() else name)
                where = f"{store.url}{handler.path}?signed={len(asked)}"
            hub.send(handler, 302, fields={"Location": where})
            return True

        def answer(handler, _kind, _name):
            if self.is_downloading():
                return False
            with lock:
                uses[handler.path] = uses.get(handler.path, 0) + 1
                is_old = uses[handler.path] > uses_most
            if is_old:
                store.send(handler, 403)
            return is_old

        hub.hook, store.hook = redirect, answer
        weights = list(filter(is_weights, files))
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)
        self.assertEqual([asked.count(name) for name in weights], [1] * SHARDS)
        self.assertGreater(max(uses.values()), 2)
        self.fresh()
        asked.clear()
        uses.clear()
        uses_most = 2
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)
        self.assertGreater(max(asked.count(name) for name in weights), 1)

    def test_a_token_that_is_not_sent_is_told(self):
        hub = self.watched(self.plain_files())
        done = self.run_it(*self.command("--experts", "keep"), HF_TOKEN="hf_secret",
                           HF_ENDPOINT=hub.url.replace("127.0.0.1", "0.0.0.0"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count(b"the token is not sent"), 1)
        self.assertNotIn("hf_secret", str(hub.requests))

    def test_a_server_without_ranges_is_told_what_else_to_do(self):
        hub = self.watched(self.plain_files())
        hub.ranges = False
        line = self.refused(3, *self.command(), hub=hub)
        self.assertIn("knows no ranges", line)
        self.assertIn("without --shard-by-shard", line)
        self.assertEqual(os.listdir(self.folder), ["made"])


if __name__ == "__main__":
    unittest.main()
