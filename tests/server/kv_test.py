"""What prompts left behind, on disk: found again after a restart, never wrong, and /slots."""

import os
import random
import stat
import subprocess
import tempfile
import time
import unittest

from support import BINARY, MODEL, Server

KILLS = int(os.environ.get("PENSTOCK_TEST_KILLS", "3"))  # a hundred take some minutes
SYSTEM = "You answer in one short sentence. " + " ".join(f"Rule {i}: be kind to number {i}." for i in range(60))


def question(text):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    return {"messages": messages, "max_tokens": 12, "temperature": 0, "enable_thinking": False}


class KvDirectory(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-kv-")
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "kv")
        self.server = None

    def start(self, *flags):
        self.server = Server("--kv-dir", self.path, *flags, context=2048)
        self.addCleanup(self.server.stop)
        return self.server

    def ask(self, text):
        """-> the answer, and how much of the prompt was not evaluated again"""
        status, _, body = self.server.post("/v1/chat/completions", question(text))
        self.assertEqual(status, 200, body)
        cached = body["usage"]["prompt_tokens_details"]["cached_tokens"]
        return body["choices"][0]["message"]["content"], cached

    def files(self):
        return [os.path.join(folder, name) for folder, _, names in os.walk(self.path) for name in names]

    def test_a_prefix_survives_a_restart_and_changes_no_answer(self):
        self.start()
        first, cached = self.ask("What is a river?")
        self.assertEqual(cached, 0)
        self.server.stop()
        self.assertTrue(self.files())
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o700)
        self.start()
        again, cached = self.ask("What is a river?")
        self.assertEqual(again, first)
        self.assertGreater(cached, 300)
        other, cached = self.ask("Why is the sky blue?")
        self.assertGreater(cached, 300)  # the system message is shared
        self.assertGreater(self.server.metric("kv_disk_loaded_total"), 0)
        self.server.stop()
        self.server = Server(context=2048)
        self.addCleanup(self.server.stop)
        self.assertEqual(self.ask("What is a river?")[0], first)
        self.assertEqual(self.ask("Why is the sky blue?")[0], other)

    def test_damaged_files_are_told_and_not_used(self):
        self.start()
        first, _ = self.ask("What is a river?")
        self.server.stop()
        dice = random.Random(7)
        for path in self.files():
            with open(path, "r+b") as file:
                at = dice.randrange(os.path.getsize(path))
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ (1 << dice.randrange(8))]))
        self.start()
        again, cached = self.ask("What is a river?")
        self.assertEqual(again, first)
        self.assertEqual(cached, 0)
        self.assertIn("it is removed", self.server.text())
        self.assertGreater(self.server.metric("kv_disk_damaged_total"), 0)
        self.assertEqual(self.server.get("/health")[0], 200)

    def test_kill_at_any_moment_leaves_a_folder_that_works(self):
        answers = set()
        dice = random.Random(17)
        for turn in range(KILLS):
            self.start()
            if turn > 0:
                answers.add(self.ask("What is a river?")[0])
            stream = self.server.stream("/v1/chat/completions", {**question(f"Tell me {turn}"), "stream": True})
            next(stream)
            time.sleep(0.3 * dice.random())  # while the prompt is read, a place is kept, or the answer comes
            self.server.process.kill()
            self.server.process.wait()
        self.start()
        answers.add(self.ask("What is a river?")[0])
        self.assertEqual(len(answers), 1)

    def test_a_small_limit_is_kept(self):
        self.start("--kv-disk-max", "6M")
        for i in range(6):
            self.ask(f"Question number {i}: what is {i} and {i}?")
        self.assertLessEqual(sum(os.path.getsize(p) for p in self.files()), 6 << 20)
        self.assertLessEqual(self.server.metric("kv_disk_bytes"), 6 << 20)

    def test_slots_are_saved_restored_and_emptied(self):
        server = self.start()
        self.ask("What is a river?")
        status, _, body = server.post("/slots/0?action=save", {"filename": "river.bin"})
        self.assertEqual(status, 200, body)
        held = body["n_saved"]
        self.assertGreater(held, 500)
        self.assertGreater(body["n_written"], 0)
        status, _, body = server.post("/slots/0?action=erase", {})
        self.assertEqual((status, body["n_erased"]), (200, held))
        self.assertEqual(server.get("/slots")[2][0]["n_held"], 0)
        self.server.stop()
        for path in self.files():
            if not path.endswith("river.bin"):
                os.remove(path)
        server = self.start()
        status, _, body = server.post("/slots/0?action=restore", {"filename": "river.bin"})
        self.assertEqual((status, body["n_restored"]), (200, held), body)
        self.assertEqual(server.get("/slots")[2][0]["n_held"], held)

        for name in ("../x", "a/b", "", ".x", "x" * 200):
            status, _, body = server.post("/slots/0?action=save", {"filename": name})
            self.assertEqual(status, 400, body)
        self.assertEqual(server.post("/slots/0?action=restore", {"filename": "nobody"})[0], 404)
        self.assertEqual(server.post("/slots/7?action=save", {"filename": "x"})[0], 404)
        self.assertEqual(server.post("/slots/x?action=save", {"filename": "x"})[0], 404)
        self.assertEqual(server.post("/slots/0?action=eat", {"filename": "x"})[0], 400)
        self.assertEqual(server.post("/slots/0", {"filename": "x"})[0], 400)

    def test_chat_uses_the_same_folder(self):
        flags = ("--memory", "400M", "--context", "2048", "--kv-dir", self.path, "--temp", "0")
        flags += ("--max-tokens", "12", "--no-history", "-v", "--system", SYSTEM)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "XDG_"))}
        told = []
        for _ in range(2):
            run = subprocess.run(
                [BINARY, "chat", MODEL, *flags],
                input=b"What is a river?\n",
                capture_output=True,
                env={**environment, "HOME": "/nonexistent", "XDG_STATE_HOME": self.folder.name},
            )
            self.assertEqual(run.returncode, 0, run.stderr)
            told.append((run.stdout, b"more cached" in run.stderr))
        self.assertEqual(told[0][0], told[1][0])
        self.assertEqual([cached for _, cached in told], [False, True])

    def test_without_a_folder_slots_are_not_saved(self):
        self.server = Server()
        self.addCleanup(self.server.stop)
        self.ask("What is a river?")
        self.assertEqual(self.server.post("/slots/0?action=save", {"filename": "x"})[0], 501)


if __name__ == "__main__":
    unittest.main()
