#!/usr/bin/env python3
"""A server under everything at once, for as long as one likes: good, bad and cancelled requests, constrained
and free, while bits of the experts' file and of kept prefixes flip and flip back.

    bench/server_soak.py BINARY MODEL [--minutes 5] [--memory 88M] [--seed 1] [--errors 0.01] [--flips 0.001]

MODEL is copied first, as its copy is damaged. It ends with 1, and says why, where an answer was wrong, the
server died or hung, memory went beyond the budget and 64 MiB, or the server was not well again in the end.

With --errors or --flips BINARY is build/test/tests/support/penstock_faulty, the program on a disk that fails: so
large a share of the reads of experts and of kept prefixes ends with EIO, or brings a wrong bit, all the time.
What release wants to see is half an hour of it:

    scripts/build test penstock_faulty
    bench/server_soak.py build/test/tests/support/penstock_faulty build/demo-model --minutes 30 --errors 0.01 --flips 0.001
"""

import argparse
import collections
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

QUESTIONS = ["What is the capital of Portugal?", "What is 2 + 3?", "Tell me a story.", "Name three animals.",
             "What is the capital of France?", "Why is the sky blue?", "Say hello.", "What is 7 - 4?"]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {
    "type": "object", "properties": {"place": {"type": "string"}, "depth": {"type": "integer"}},
    "required": ["place"]}}}
BAD = [b"", b"{", b'{"messages": []}', b'{"messages": 5}', b'{"messages": [{"role": "user", "content": "x"}], "stream": 1}',
       b"\xff\xfe", b'{"a": 1, "a": 2}', b"[" * 5000, b'{"messages": [{"role": "user", "content": "\\ud800"}]}']


class Soak:
    def __init__(self, options):
        self.options = options
        self.counts = collections.Counter()
        self.wrong = []
        self.expected = {}
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-soak-")
        self.model = os.path.join(self.folder.name, "model.penstock")
        self.kv = os.path.join(self.folder.name, "kv")
        shutil.copytree(options.model, self.model)
        self.over = threading.Event()
        self.faults_over = threading.Event()
        self.rss_max = 0
        self.rss = []  # KiB, twice a second

    def start(self):
        self.log = open(os.path.join(self.folder.name, "log"), "w+b")
        self.process = subprocess.Popen(
            [self.options.binary, "serve", self.model, "--memory", self.options.memory, "--context", "1024",
             "--parallel", "4", "--port", "0", "--kv-dir", self.kv, "--kv-disk-max", "40M", "--max-queue", "8",
             "--reader", "threads" if self.has_bad_disk() else "auto"],
            stderr=self.log, env={**os.environ, "XDG_STATE_HOME": self.folder.name,
                                  "PENSTOCK_TEST_ERRORS": str(self.options.errors), "PENSTOCK_TEST_FLIPS": str(self.options.flips)})
        while not (found := re.search(rb"serving \S+ at http://127.0.0.1:(\d+)", self.text())):
            if self.process.poll() is not None:
                sys.exit(f"the server did not start:\n{self.text().decode()}")
            time.sleep(0.1)
        self.port = int(found[1])

    def has_bad_disk(self):
        return self.options.errors + self.options.flips > 0

    def content_in_the_end(self, question):
        """As content(), but a disk that fails all the time may need several tries."""
        for _ in range(200):
            status, content = self.content(question)
            if status == 200 or not self.has_bad_disk():
                break
        return status, content

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def body(self, question, **more):
        return json.dumps({"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 60,
                           "reasoning_effort": "none", **more}).encode()

    def content(self, question):
        status, data = self.ask("POST", "/v1/chat/completions", self.body(question))
        return status, json.loads(data)["choices"][0]["message"]["content"] if status == 200 else data

    # What a client may do, one at a time.
    def good(self, dice):
        question = dice.choice(QUESTIONS)
        status, content = self.content(question)
        if status == 200 and content != self.expected[question]:
            self.wrong.append(f"{question}: {content!r}, expected {self.expected[question]!r}")
        elif status not in (200, 429, 500, 503):
            self.wrong.append(f"{question}: status {status}")
        return f"good {status}"

    def bad(self, dice):
        status, _ = self.ask("POST", dice.choice(["/v1/chat/completions", "/v1/messages", "/api/chat"]), dice.choice(BAD))
        if status not in (400, 413, 415):
            self.wrong.append(f"a bad request: status {status}")
        return f"bad {status}"

    def cancelled(self, dice):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", self.body(dice.choice(QUESTIONS), stream=True, ignore_eos=True, max_tokens=500),
                           {"Content-Type": "application/json"})
        time.sleep(dice.random() * 0.5)
        connection.close()
        return "cancelled"

    def constrained(self, dice):
        status, data = self.ask("POST", "/v1/chat/completions", self.body(
            "Look at the river.", tools=[TOOL], tool_choice="required", temperature=1.4, seed=dice.randrange(1000)))
        if status == 200:
            for call in json.loads(data)["choices"][0]["message"].get("tool_calls") or []:
                arguments = json.loads(call["function"]["arguments"])
                if json.loads(data)["choices"][0]["finish_reason"] == "tool_calls" and "place" not in arguments:
                    self.wrong.append(f"a call without its place: {arguments}")
        return f"constrained {status}"

    def client(self, seed):
        dice = random.Random(seed)
        while not self.over.is_set():
            action = dice.choices([self.good, self.bad, self.cancelled, self.constrained], [5, 2, 2, 1])[0]
            try:
                self.counts[action(dice)] += 1
            except (OSError, http.client.HTTPException) as error:
                if self.process.poll() is not None:
                    return
                self.counts[f"broken: {type(error).__name__}"] += 1

    def flip(self, path, dice, count, seconds):
        """Bits here and there, right again after so long."""
        with open(path, "r+b") as file:
            places = sorted({dice.randrange(os.path.getsize(path)) for _ in range(count)})
            right = []
            for at in places:
                file.seek(at)
                right.append(file.read(1)[0])
            for flips, pause in ((True, seconds), (False, 0)):
                for at, byte in zip(places, right):
                    file.seek(at)
                    file.write(bytes([byte ^ (1 << at % 8) if flips else byte]))
                file.flush()
                os.fsync(file.fileno())
                time.sleep(pause)

    def damage(self):
        dice = random.Random(self.options.seed)
        while not self.faults_over.is_set():
            try:
                if dice.random() < 0.8:
                    self.flip(os.path.join(self.model, "experts.bin"), dice, 6, 0.1)
                else:
                    files = [os.path.join(f, n) for f, _, names in os.walk(self.kv) for n in names]
                    self.flip(dice.choice(files), dice, 1, 0.5)
                self.counts["damage"] += 1
            except (OSError, IndexError, ValueError):
                pass  # the file went while it was to be damaged
            time.sleep(dice.random() * 0.2)

    def watch(self):
        while not self.over.is_set():
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
                found = re.search(r"VmHWM:\s+(\d+)", status.read())
            self.rss_max = int(found[1]) if found else self.rss_max
            self.rss.append(self.memory_kib())
            try:
                begin = time.monotonic()
                self.ask("GET", "/health")
                self.counts["health over 1 s"] += time.monotonic() - begin > 1
            except OSError:
                pass
            time.sleep(0.5)

    def memory_kib(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def run(self):
        self.start()
        for question in QUESTIONS:
            self.expected[question] = self.content_in_the_end(question)[1]
        before = self.descriptors()
        threads = [threading.Thread(target=self.client, args=(self.options.seed * 100 + i,)) for i in range(6)]
        threads += [threading.Thread(target=self.damage), threading.Thread(target=self.watch)]
        for thread in threads:
            thread.start()
        time.sleep(self.options.minutes * 60)
        self.faults_over.set()
        time.sleep(2)
        self.over.set()
        for thread in threads:
            thread.join(150)
            if thread.is_alive():
                self.wrong.append("a client hangs")
        self.check_end(before)
        return self.wrong

    def check_end(self, descriptors):
        if self.process.poll() is not None:
            self.wrong.append(f"the server ended with {self.process.returncode}:\n{self.text()[-3000:].decode()}")
            return
        for question in QUESTIONS:
            status, content = self.content_in_the_end(question)
            if (status, content) != (200, self.expected[question]):
                self.wrong.append(f"afterwards: {question}: {status} {content!r}")
        # On a disk that goes on failing, the last request may have met a fault that its retry did not mend.
        if not self.has_bad_disk() and self.ask("GET", "/health")[0] != 200:
            self.wrong.append("afterwards it is not well")
        time.sleep(1)
        if self.descriptors() > descriptors + 2:
            self.wrong.append(f"{self.descriptors()} descriptors, {descriptors} before")
        metrics = self.ask("GET", "/metrics")[1].decode()
        for name in ("checksum_failures_total", "io_retries_total", "expert_reads_total", "cancelled_total", "failed_total", "kv_disk_damaged_total", "kv_disk_loaded_total"):
            found = re.findall(rf"^penstock_{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE)
            self.counts[name] = int(sum(map(float, found)))
        if self.counts["checksum_failures_total"] == 0:
            self.wrong.append("no damage was met: give more minutes or less memory")
        if self.options.errors > 0 and self.counts["io_retries_total"] == 0:
            self.wrong.append("no read failed: is this penstock_faulty?")
        budget = int(re.search(r"^penstock_memory_budget_bytes (\S+)$", metrics, re.MULTILINE)[1])
        if self.rss_max * 1024 > budget + (64 << 20):
            self.wrong.append(f"peak of {self.rss_max} KiB with a budget of {budget} bytes")
        # Flat: the last quarter lies not above the second by more than 16 MiB.
        quarter = len(self.rss) // 4
        if quarter > 20:
            second, last = (max(self.rss[i * quarter:(i + 1) * quarter]) for i in (1, 3))
            self.counts["growth in KiB"] = last - second
            if last - second > 16 << 10:
                self.wrong.append(f"memory grew from {second} to {last} KiB")
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            self.wrong.append(f"exit code {self.process.returncode}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--memory", default="88M")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--errors", type=float, default=0)
    parser.add_argument("--flips", type=float, default=0)
    soak = Soak(parser.parse_args())
    try:
        wrong = soak.run()
    finally:
        if soak.process.poll() is None:
            soak.process.kill()
    for name, count in sorted(soak.counts.items()):
        print(f"{name:28} {count}")
    print(f"{'peak memory':28} {soak.rss_max / 1024:.0f} MiB")
    for line in wrong[:20]:
        print("WRONG:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
