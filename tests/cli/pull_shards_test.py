#!/usr/bin/env python3
"""pull --pack --shard-by-shard: the bytes of pull and pack, with two files of the source at a time."""

import fcntl
import json
import math
import os
import signal
import struct
import subprocess
import time
import unittest

from hub_server import Repo, commit_of
from pull_case import SOURCES, content, gguf_files
from shards_case import SHARDS, ShardCase, is_weights
from support import BINARY, IS_SANITIZED, TIMEOUT_S, digest_of_folder

FAULTY = os.environ["PENSTOCK_FAULTY_BINARY"]


class ShardByShard(ShardCase):
    def test_floats_become_the_model_of_pull_and_pack(self):
        for flags in (("--experts", "keep"), ("--experts", "keep", "--resident", "8")):
            with self.subTest(flags):
                self.fresh()
                self.expect_same(self.cut_files(), *flags)
                self.assertEqual(self.most, 2)

    def test_fp8_and_mlx_do(self):
        for source in ("fp8", "mlx-4", "mlx-mxfp4"):
            with self.subTest(source):
                self.fresh()
                self.expect_same(self.folder_files(SOURCES, source))
                self.assertLessEqual(self.most, 2)

    def test_gguf_in_splits_and_in_one_file_does(self):
        for name in ("org/m:Q4_0", "org/m:Q5_K"):
            with self.subTest(name):
                self.fresh()
                self.expect_same(gguf_files(), name=name)
                self.assertLessEqual(self.most, 2)

    def test_killed_at_many_steps_it_goes_on(self):
        hub = self.watched(self.cut_files())
        digest = self.expected(hub, "--experts", "keep")
        command = [*map(str, self.command("--experts", "keep"))]
        stride = 41 if IS_SANITIZED else 7
        step, left = 1, set()
        while True:
            self.fresh()
            killed = subprocess.run([FAULTY, *command], capture_output=True, timeout=TIMEOUT_S, check=False,
                                    env=self.env(hub, PENSTOCK_TEST_KILLED_AT=str(step)))
            if killed.returncode == 0:
                break
            self.assertEqual(killed.returncode, -signal.SIGKILL, killed.stderr)
            here = os.listdir(self.staged) if os.path.isdir(self.staged) else []
            left.add(sum(is_weights(name) for name in here))
            if os.path.exists(self.staged) or not os.path.exists(self.target):
                self.good(*command, hub=hub)
            self.expect_done(digest)
            step += stride
        self.assertGreater(step, 60)
        self.assertIn(1, left)
        self.assertLessEqual(max(left), 2)
        self.assertEqual(self.most, 2)

    def test_what_was_packed_is_not_downloaded_again(self):
        hub = self.watched(self.plain_files())
        digest = self.expected(hub, "--experts", "keep")
        done = set()

        def break_the_last(handler, kind, name):
            if kind == "file" and is_weights(name) and self.is_downloading():
                done.add(name)
                if len(done) == SHARDS:
                    hub.send(handler, 403)
                    return True
            return False

        hub.hook = break_the_last
        line = self.refused(5, *self.command("--experts", "keep"), hub=hub)
        self.assertIn("answered 403", line)
        self.assertIn("same command", line)
        self.assertTrue(os.path.isdir(self.target + ".partial"))
        hub.hook, hub.bytes_sent = None, 0
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)
        weights = sum(len(data) for name, data in hub.repos["org/m"].files.items() if is_weights(name))
        self.assertLess(hub.bytes_sent, weights * 3 // 4)

    def test_it_keeps_to_the_commit_that_it_began_with(self):
        files = self.plain_files()
        hub = self.watched(files)
        digest = self.expected(hub, "--experts", "keep")
        self.stopped_by_refusals(hub)
        repo = hub.repos["org/m"]
        repo.commits = {"main": commit_of("next"), "old": commit_of("main")}
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)

    def test_another_model_is_not_put_over_it(self):
        hub = self.watched(self.plain_files())
        hub.repos["org/other"] = Repo(gguf_files())
        self.stopped_by_refusals(hub)
        line = self.refused(2, *self.command(name="org/other:Q4_0"), hub=hub)
        self.assertIn("unfinished pull of org/m", line)
        self.fresh()
        os.mkdir(self.staged)
        with open(os.path.join(self.staged, "mine.txt"), "w", encoding="utf-8") as file:
            file.write("mine")
        self.assertIn("mine.txt", self.refused(2, *self.command(), hub=hub))
        self.assertEqual(os.listdir(self.staged), ["mine.txt"])

    def told_free(self, hub, free, *flags):
        """What a run says that is told so many bytes of free disk."""
        done = subprocess.run([FAULTY, *map(str, self.command("--experts", "keep", *flags))], check=False,
                              capture_output=True, timeout=TIMEOUT_S, env=self.env(hub, PENSTOCK_TEST_FREE=str(free)))
        return done.stderr.decode()

    def least_free(self, hub, before):
        """Bytes, to 4 KiB, with which a run after `before` is not told that the disk is too small."""
        low, high = 1, 1 << 26
        while high - low > 4096:
            free = (low + high) // 2
            before()
            text = self.told_free(hub, free)
            if "too small" in text:
                low = free
            else:
                self.assertIn("answered 403", text)
                high = free
        return high

    def test_room_that_a_half_file_has_is_not_asked_for_again(self):
        hub = self.watched(self.plain_files())
        digest = self.expected(hub, "--experts", "keep")
        self.refuse(hub, lambda *_: self.is_downloading())
        fresh = self.least_free(hub, self.fresh)
        self.fresh()
        self.assertIn("answered 403", self.told_free(hub, fresh))
        begun = [name for name in os.listdir(self.staged) if name.endswith(".ranges")]
        self.assertEqual(len(begun), 1, "refused before anything of it came")
        held = os.stat(os.path.join(self.staged, begun[0])).st_blocks * 512
        self.assertGreater(held, 1 << 16)
        self.assertLess(abs(fresh - held - self.least_free(hub, lambda: None)), 2 * 4096 + 1)
        hub.hook = self.watch
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)

    def test_room_that_a_killed_pack_holds_is_not_asked_for_again(self):
        hub = self.watched(self.cut_files())
        digest = self.expected(hub, "--experts", "keep")
        made = [os.path.join(self.target + ".partial", name) for name in ("experts.bin", "resident.bin")]
        held, step = 0, 0
        while held < 1 << 16:  # killed when so much was packed and nothing of it is in the journal yet
            step += 3
            self.fresh()
            killed = subprocess.run([FAULTY, *map(str, self.command("--experts", "keep"))], capture_output=True,
                                    timeout=TIMEOUT_S, check=False, env=self.env(hub, PENSTOCK_TEST_KILLED_AT=str(step)))
            self.assertEqual(killed.returncode, -signal.SIGKILL, killed.stderr)
            if all(map(os.path.exists, made)):
                held = sum(os.stat(path).st_blocks * 512 for path in made)
        self.assertEqual(os.path.getsize(self.target + ".journal"), 64)
        kept = os.path.join(self.folder, "kept")
        os.mkdir(kept)
        self.copy_state(self.folder, kept)
        self.refuse(hub, lambda *_: self.is_downloading())

        def as_it_was():
            self.fresh()
            self.copy_state(kept, self.folder)

        def with_nothing_packed():
            as_it_was()
            for path in made:
                os.truncate(path, 0)

        with_it, without = (self.least_free(hub, before) for before in (as_it_was, with_nothing_packed))
        self.assertLess(abs(without - held - with_it), 2 * 4096 + 1)
        as_it_was()
        hub.hook = self.watch
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)

    def copy_state(self, here, there):
        """What an ended pull has left, holes and all."""
        names = [os.path.join(here, name) for name in os.listdir(here) if name.startswith("model.penstock")]
        subprocess.run(["cp", "-a", "--sparse=always", *names, there], check=True)

    def test_of_two_that_begin_together_one_begins(self):
        hub = self.watched(self.plain_files())
        second = []

        def answer(handler, kind, name):
            if kind == "file" and is_weights(name):
                hub.send(handler, 403)
                return True
            if kind == "list" and not second:
                second.append(None)
                second[0] = self.run_it(*self.command(), hub=hub)
                hub.repos["org/m"].commits = {"main": commit_of("next"), "old": commit_of("main")}
            return False

        hub.hook = answer
        self.refused(5, *self.command(), hub=hub)
        self.assertEqual(second[0].returncode, 5)
        self.assertIn(b"lock", second[0].stderr)
        with open(os.path.join(self.staged, "from.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["commit"], commit_of("next"))

    def test_a_model_of_something_else_is_not_taken_for_the_one_that_was_begun(self):
        hub = self.watched(self.plain_files())
        self.stopped_by_refusals(hub)
        self.good("pack", os.path.join(SOURCES, "mlx-4"), self.target, "--threads", "1")
        digest = digest_of_folder(self.target)
        self.assertIn("exists", self.refused(2, *self.command("--experts", "keep"), hub=hub))
        self.assertEqual(digest_of_folder(self.target), digest)
        self.assertTrue(os.path.exists(os.path.join(self.staged, "from.json")))

    def test_what_is_left_beside_the_model_is_removed_by_the_same_command_alone(self):
        hub = self.watched(self.plain_files())
        digest = self.expected(hub, "--experts", "keep")
        note = []

        def read_note(handler, kind, name):
            if kind == "file" and is_weights(name) and self.is_downloading():
                note.append(content(self.staged, "from.json"))
            return False

        hub.hook = read_note
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)
        os.mkdir(self.staged)
        with open(os.path.join(self.staged, "from.json"), "wb") as file:
            file.write(note[-1])
        for flags in (("--experts", "4"), (), ("--experts", "keep", "--resident", "8"),
                      ("--experts", "keep", "--revision", "v2")):
            self.assertIn("exists", self.refused(2, *self.command(*flags), hub=hub))
        with open(os.path.join(self.staged, "lock"), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.assertIn("lock", self.refused(5, *self.command("--experts", "keep"), hub=hub))
        self.assertEqual(sorted(os.listdir(self.staged)), ["from.json", "lock"])
        hub.requests.clear()
        told = [json.loads(line) for line in
                self.good(*self.command("--experts", "keep", "--verify", "--json"), hub=hub).splitlines()]
        self.assertEqual(told[0]["target"], self.target)
        self.assertEqual(told[1]["num_faults"], 0)
        self.assertEqual(hub.requests, [])
        self.expect_done(digest)

    def test_weights_are_weights_in_capitals(self):
        files = {"M-Q5_K.GGUF": gguf_files()["Tiny-UD-Q5_K.gguf"]}
        hub = self.watched(files)
        digest = self.expected(hub)
        early = []

        def count(handler, kind, name):
            if kind == "file" and not self.is_downloading():
                begin, end = hub.range_of(handler, files[name])
                early.append(end - begin)
            return False

        hub.hook = count
        self.good(*self.command(), hub=hub)
        self.expect_done(digest)
        self.assertLess(sum(early), len(files["M-Q5_K.GGUF"]))

    def test_ctrl_c_leaves_what_goes_on(self):
        hub = self.watched(self.plain_files())
        digest = self.expected(hub, "--experts", "keep")
        started = []

        def slow(handler, kind, name):
            if kind == "file" and is_weights(name) and self.is_downloading():
                started.append(name)
                while not ended:
                    time.sleep(0.01)
            return False

        ended = []
        hub.hook = slow
        process = subprocess.Popen([BINARY, *map(str, self.command("--experts", "keep"))], env=self.env(hub),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not started and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=TIMEOUT_S)
        ended.append(True)
        self.assertEqual(process.returncode, 130, text)
        self.assertIn(b"same command", text)
        hub.hook = self.watch
        self.good(*self.command("--experts", "keep"), hub=hub)
        self.expect_done(digest)

    def test_a_disk_that_is_too_small_is_told_before_a_file_comes(self):
        class Zeros:
            """A header and zeros without end, as far as anybody asks for them."""

            def __init__(self, header, size):
                self.header, self.size = header, size

            def __len__(self):
                return self.size

            def __getitem__(self, part):
                return self.header[part].ljust(part.stop - part.start, b"\0")

        files = self.plain_files()
        config = json.loads(files["config.json"])
        config["num_experts"] = 1 << 16
        config["moe_intermediate_size"] = 1 << 15
        files["config.json"] = json.dumps(config).encode()
        zeros = {}
        for name in filter(is_weights, files):
            size = 8 + int.from_bytes(files[name][:8], "little")
            header, end = json.loads(files[name][8:size]), 0
            for tensor, info in header.items():
                info["shape"] = self.larger(tensor, info["shape"], config)
                length = 2 * math.prod(info["shape"])
                info.update(dtype="BF16", data_offsets=[end, end + length])
                end += length
            text = json.dumps(header).encode()
            text += b" " * (-len(text) % 8)
            zeros[name] = Zeros(struct.pack("<Q", len(text)) + text, 8 + len(text) + end)
        hub = self.watched(files)
        hub.change_listing = lambda listing: [
            entry.update(size=len(zeros[entry["rfilename"]])) or entry["lfs"].update(size=entry["size"])
            for entry in listing["siblings"] if entry["rfilename"] in zeros]

        def answer(handler, kind, name):
            if kind == "file" and name in zeros:
                self.assertIn("Range", handler.headers)
                hub.send_file(handler, zeros[name], etag='"zeros"')
                return True
            return False

        hub.hook = answer
        line = self.refused(4, *self.command("--experts", "keep"), hub=hub)
        self.assertIn("too small", line)
        self.assertFalse(os.path.exists(self.target + ".partial"))
        self.assertLess(hub.bytes_sent, 4 << 20)

    def larger(self, tensor, shape, config):
        experts, ffn, hidden = config["num_experts"], config["moe_intermediate_size"], config["hidden_size"]
        end = tensor.split(".", 3)[-1]
        return {"mlp.experts.gate_up_proj": [experts, 2 * ffn, hidden],
                "mlp.experts.down_proj": [experts, hidden, ffn],
                "mlp.gate.weight": [experts, hidden]}.get(end, shape)

    def test_other_quantisations_are_refused_by_name_before_any_weights(self):
        files = self.plain_files()
        config = json.loads(files["config.json"])
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
        files["config.json"] = json.dumps(config).encode()
        hub = self.watched(files)
        self.assertIn("gptq", self.refused(3, *self.command(), hub=hub).lower())
        self.assertEqual(os.listdir(self.folder), ["made"])
        self.assertIn("check the name", self.refused(3, *self.command(name="org/none"), hub=hub))
        self.assertEqual(os.listdir(self.folder), ["made"])

    def test_flags_that_do_not_go_with_it(self):
        hub = self.watched(self.plain_files())
        for flag in ("--force", "--offline"):
            self.assertIn(flag, self.refused(2, *self.command(flag), hub=hub))
        self.assertIn("--include", self.refused(2, *self.command("--include", "*"), hub=hub))
        self.assertIn("--pack TARGET", self.refused(2, "pull", "org/m", "--shard-by-shard", hub=hub))
        for flag in ("--calibrate", "--target-bytes"):
            self.assertIn(flag, self.refused(2, *self.command(flag, "1"), hub=hub))
        os.mkdir(self.target)
        self.assertIn("exists", self.refused(2, *self.command(), hub=hub))
        self.assertEqual(hub.requests, [])


if __name__ == "__main__":
    unittest.main()
