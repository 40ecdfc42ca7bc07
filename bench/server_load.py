#!/usr/bin/env python3
"""What the server holds under load on the demo model: loads L1 to L14, one after the other, as a Markdown table.

    scripts/build release penstock tokenizer_bench && scripts/build test penstock_faulty
    PENSTOCK_BINARY=build/release/penstock PENSTOCK_DEMO_MODEL=build/demo-model bench/server_load.py [--only L1,L7] [--scale 1]
        [--soak-minutes 30] [--kv-gib 10] [--faulty build/test/tests/support/penstock_faulty]

Each row says what was asked for, what was seen and whether it holds. --scale shortens all of it, for a first look: 0.05
takes minutes; at 1 it is above an hour, half of which is the soak. Figures are of this machine as it is now, and the clients run on it
too, in Python: say what else it is doing. What was seen is told in docs/performance/server.md. What requests share is measured
by bench/server_sharing.py.

It ends with 1 where something was wrong (an answer, a lost token, a crash), whatever the times.
"""

import argparse
import concurrent.futures
import glob
import json
import os
import random
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(ROOT, "tests", "server"))
from support import BINARY, MODEL, Server, chat, environment, receive_all, status_of, user  # noqa: E402
from server_requests import STORY, Generating, find_member, latencies, ms, mutated, post_bytes, quantile, read_bytes  # noqa: E402


class Loads:
    def __init__(self, options):
        self.options = options
        self.wrong = []

    def scaled(self, count, least=1):
        return max(int(count * self.options.scale), least)

    def row(self, name, wanted, seen, holds):
        print(f"| {name} | {wanted} | {seen} | {'yes' if holds else 'no'} |", flush=True)

    def check(self, what, is_right):
        if not is_right:
            self.wrong.append(what)
            print(f"WRONG: {what}", file=sys.stderr, flush=True)

    def run(self):
        print("| load | wanted | seen | holds |\n|---|---|---|---|", flush=True)
        for number in range(1, 15):
            name = f"L{number}"
            if self.options.only and name not in self.options.only:
                continue
            try:
                getattr(self, name)()
            except Exception as error:  # the others still tell something
                self.check(f"{name}: {type(error).__name__}: {error}", False)
        return self.wrong

    def serve(self, *flags, **options):
        return Server("--sse-ping-interval", 1, *flags, **options)

    def L1(self, name="L1 `/health` while an answer runs, 50/s", server=None):
        started = None if server else self.serve()
        try:
            with Generating(server or started):
                times, failed = latencies(server or started, "/health", self.scaled(60, 3), 50)
        finally:
            if started:
                self.check("L1: exit code", started.stop() == 0)
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        self.check(f"{name}: {failed} failed", failed == 0)
        self.row(name, "p50 < 2 ms, p99 < 20 ms, none failed", f"p50 {ms(p50)}, p99 {ms(p99)}, {failed} of {len(times)} failed",
                 p50 < 0.002 and p99 < 0.020 and not failed)

    def L2(self):
        server = self.serve()
        try:
            with Generating(server):
                times, failed = latencies(server, "/metrics", self.scaled(30, 3), 20)
        finally:
            server.stop()
        self.check("L2: a failure", failed == 0)
        p99 = quantile(times, 0.99)
        self.row("L2 `/metrics` while an answer runs", "p99 < 50 ms", f"p99 {ms(p99)} of {len(times)}", p99 < 0.050)

    def L3(self):
        server = self.serve()
        request, at_once = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 16
        done, end = 0, 0
        try:
            connections = [server.connect(60) for _ in range(64)]
            missing = {connection.fileno(): 0 for connection in connections}
            by_number = {connection.fileno(): connection for connection in connections}
            poll = select.epoll()
            start = time.monotonic()
            end = start + self.scaled(10, 2)
            for number, connection in by_number.items():
                poll.register(number, select.EPOLLIN)
                connection.sendall(request * at_once)
                missing[number] = at_once
            while time.monotonic() < end:
                for number, _ in poll.poll(1):
                    came = by_number[number].recv(1 << 18).count(b'{"status":"ok"}')
                    done += came
                    missing[number] -= came
                    if missing[number] <= 0:
                        by_number[number].sendall(request * at_once)
                        missing[number] += at_once
            rate = done / (time.monotonic() - start)
            for connection in connections:
                connection.close()
        finally:
            server.stop()
        self.row("L3 trivial requests, 64 connections, 16 on their way on each", ">= 10,000 a second",
                 f"{rate:,.0f} a second, the client beside it", rate >= 10_000)

    def L4(self):
        streams, seconds = self.scaled(256, 16), self.scaled(60, 10)
        server = self.serve("--max-queue", streams, "--max-connections", streams + 16, context=4096)
        try:
            # Evaluated once, so that what the engine takes for it is not counted here.
            server.post("/v1/chat/completions", chat(STORY, max_tokens=20))
            before = server.memory_kib()
            request = post_bytes(chat(STORY, stream=True, ignore_eos=True, max_tokens=4000))
            poll, held, last, gaps = select.epoll(), {}, {}, []
            for _ in range(streams):
                connection = server.connect(60)
                connection.sendall(request)
                held[connection.fileno()] = connection
                poll.register(connection.fileno(), select.EPOLLIN)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for number, _ in poll.poll(1):
                    data, now = held[number].recv(65536), time.monotonic()
                    if not data:
                        poll.unregister(number)
                        continue
                    if number in last:
                        gaps.append(now - last[number])
                    last[number] = now
            growth = server.memory_kib() - before
            for connection in held.values():
                connection.close()
            server.wait_until_idle(60)
        finally:
            server.stop()
        self.check("L4: a silent stream", len(last) == streams)
        self.row(f"L4 {streams} streams for {seconds} s, heartbeats each second, one of them answered", "growth < 32 MiB, no silence above 1.5 s",
                 f"{growth / 1024:.1f} MiB, longest silence {max(gaps):.2f} s of {len(gaps)}", growth < 32 << 10 and max(gaps) < 1.5)

    def L5(self):
        server = self.serve("--max-queue", 32)
        ask = lambda i: {"messages": user(f"Tell me story number {i}."), "temperature": 0, "reasoning_effort": "none", "max_tokens": 40, "ignore_eos": True}
        done, lock = [], threading.Lock()

        def one(i):
            start = time.monotonic()
            status, _, answer = server.post("/v1/chat/completions", ask(i), timeout=600)
            with lock:
                done.append((i, status, time.monotonic() - start, answer))

        try:
            expected = {i: server.post("/v1/chat/completions", ask(i))[2]["choices"][0]["message"]["content"] for i in range(33)}
            with concurrent.futures.ThreadPoolExecutor(64) as pool:
                running = pool.submit(server.post, "/v1/chat/completions", {**ask(0), "max_tokens": 600}, timeout=600)
                while server.metric("requests_running") == 0:
                    time.sleep(0.001)
                asked = []
                for i in range(1, 64):  # each when the one before it has its place, so that their order is known
                    asked.append(pool.submit(one, i))
                    while server.metric("requests_waiting") < min(i, 32) and not asked[-1].done():
                        time.sleep(0.001)
                for future in asked:
                    future.result()
                running.result()
        finally:
            server.stop()
        answered = [i for i, status, _, _ in done if status == 200]
        refused = [seconds for _, status, seconds, _ in done if status == 429]
        for i, status, _, answer in done:
            if status == 200:
                self.check(f"L5: answer {i}", answer["usage"]["completion_tokens"] == 40
                           and (i not in expected or answer["choices"][0]["message"]["content"] == expected[i]))
        slowest = max(refused, default=0)
        self.row("L5 64 requests at once, one slot, a queue of 32", "33 answered in order, 31 refused in < 50 ms",
                 f"{1 + len(answered)} answered{', in order' if answered == sorted(answered) else ', out of order'}, {len(refused)} refused, the slowest in {ms(slowest)}",
                 len(answered) == 32 and len(refused) == 31 and answered == sorted(answered) and slowest < 0.050)

    def L6(self):
        tokens = self.scaled(900, 100)
        server = self.serve()
        try:
            gaps, told, last = [], [], None
            for event in server.stream("/v1/chat/completions", chat(STORY, stream=True, ignore_eos=True, max_tokens=tokens, timings_per_token=True), timeout=600):
                now = time.monotonic()
                if event == "[DONE]" or not event["choices"] or not event.get("timings"):
                    continue
                here = (now, event["timings"]["predicted_ms"] / 1e3)
                if last and here[1] > last[1]:
                    gaps.append((here[0] - last[0]) - (here[1] - last[1]))
                    told.append(here[1] - last[1])
                last = here
        finally:
            server.stop()
        out = subprocess.run([BINARY, "run", MODEL, "--memory", "400M", "--context", "1024", "--chat", "--think", "off", "--temp", "0", "-p", STORY,
                              "--max-tokens", str(tokens), "--json", "--quiet"], stdout=subprocess.PIPE, env=environment(), check=True)
        alone = json.loads(out.stdout.splitlines()[-1])
        alone_ms = find_member(alone, "predicted_per_token_ms")
        mean, p99 = sum(gaps) / len(gaps), quantile(gaps, 0.99)
        self.row("L6 what the server adds to a token, beside the engine's own time for it", "mean < 0.5 ms, p99 < 3 ms",
                 f"mean {ms(mean)}, p99 {ms(p99)} of {len(gaps)}; the engine {ms(sum(told) / len(told))} in the server, {alone_ms:.1f} ms in `run`",
                 mean < 0.0005 and p99 < 0.003)

    def L7(self):
        server, dice, times = self.serve("--parallel", 2), random.Random(7), []
        try:
            for _ in range(self.scaled(1000, 20)):
                body = chat(STORY, stream=dice.random() < 0.5, ignore_eos=True, max_tokens=900)
                if dice.random() < 0.3:  # one that is met while its prompt is read
                    body.update(messages=user("Read this. " * 150), cache_prompt=False)
                with server.connect(60) as connection:
                    connection.sendall(post_bytes(body))
                    time.sleep(0.3 * dice.random())
                start = time.monotonic()
                server.wait_until_idle(60)
                times.append(time.monotonic() - start)
        finally:
            self.check("L7: exit code", server.stop() == 0)
        p99 = quantile(times, 0.99)
        self.row("L7 from leaving, at a random moment, to a free slot", "p99 < 500 ms", f"p50 {ms(quantile(times, 0.5))}, p99 {ms(p99)} of {len(times)}", p99 < 0.5)

    def L8(self):
        server, count = self.serve(), self.scaled(10_000, 300)
        try:
            for i in range(100):
                self.short(server, i)
            time.sleep(1)
            before, files = server.memory_kib(), self.descriptors(server)
            for i in range(100, count):
                self.short(server, i)
            time.sleep(3)
            growth, more = server.memory_kib() - before, self.descriptors(server) - files
        finally:
            self.check("L8: exit code", server.stop() == 0)
        self.check("L8: descriptors", more <= 0)
        self.row(f"L8 {count:,} short requests, then rest", "memory within 16 MiB of that after 100, descriptors equal", f"{growth / 1024:+.1f} MiB, {more:+d} descriptors", growth < 16 << 10 and more <= 0)

    def short(self, server, i):
        kind = i % 4
        if kind == 0:
            self.check("L8: tokenize", server.post("/tokenize", {"content": f"hello {i}"})[0] == 200)
        elif kind == 1:
            self.check("L8: chat", server.post("/v1/chat/completions", chat(f"hello {i}", max_tokens=1))[0] == 200)
        elif kind == 2:
            self.check("L8: models", server.get("/v1/models")[0] == 200)
        else:
            self.check("L8: a bad one", server.post("/v1/messages", {"messages": []})[0] == 400)

    @staticmethod
    def descriptors(server):
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    def L9(self):
        minutes = self.options.soak_minutes * self.options.scale
        faulty = os.path.exists(self.options.faulty)
        name = f"L9 soak of {minutes:g} min: good, bad, cancelled requests" + (", 1 % EIO, 0.1 % wrong bits" if faulty else ", flipped bits")
        if minutes == 0:
            return self.row(name, "no crash, hang or wrong answer", "left out", False)
        command = [sys.executable, os.path.join(HERE, "server_soak.py"), self.options.faulty if faulty else BINARY, MODEL, "--minutes", str(minutes)]
        done = subprocess.run(command + (["--errors", "0.01", "--flips", "0.001"] if faulty else []), stdout=subprocess.PIPE, text=True)
        told = dict(re.findall(r"^(.*?)  +(\S.*)$", done.stdout, re.MULTILINE))
        wrong = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
        self.check(f"L9: {wrong[:3]}", done.returncode == 0)
        self.row(name, "no crash, hang or wrong answer", f"{told.get('good 200', 0)} right answers, {told.get('good 500', 0)} told why not, "
                 f"{told.get('io_retries_total', 0)} reads tried again, peak {told.get('peak memory', '?')}, {len(wrong)} wrong", done.returncode == 0)

    def L10(self):
        count = self.scaled(1000, 50)
        server = self.serve("--max-connections", count + 64)
        ends = threading.Event()

        def crawl():
            """Connections that send a byte a second, and come again when they are closed."""
            poll, held = select.epoll(), {}
            while not ends.is_set():
                while len(held) < count:
                    connection = server.connect(60)
                    connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
                    held[connection.fileno()] = connection
                    poll.register(connection.fileno(), select.EPOLLIN)
                for number, _ in poll.poll(0):
                    poll.unregister(number)
                    held.pop(number).close()
                for connection in held.values():
                    try:
                        connection.send(b"x")
                    except OSError:
                        pass
                ends.wait(1)
            for connection in held.values():
                connection.close()

        thread = threading.Thread(target=crawl)
        thread.start()
        try:
            end = time.monotonic() + 60
            while server.metric("connections") < 0.9 * count and time.monotonic() < end:
                time.sleep(0.1)
            self.L1(f"L10 the same beside {count:,} clients that send a byte a second", server)
        finally:
            ends.set()
            thread.join()
            self.check("L10: exit code", server.stop() == 0)

    def L11(self):
        wanted = int(self.options.kv_gib * self.options.scale * (1 << 30))
        folder = tempfile.TemporaryDirectory(prefix="penstock-load-kv-", dir=self.options.kv_folder)
        flags = ("--kv-dir", os.path.join(folder.name, "kv"), "--kv-disk-max", str(4 * wanted + (1 << 30)))
        question = chat(" ".join(f"Fact {i}: the number {i} is a number." for i in range(150)), max_tokens=1)

        def begin_and_ask():
            """-> server, seconds until it was ready, the answer, seconds until that"""
            began = time.monotonic()
            server = self.serve(*flags, "--parallel", 4, context=4096)
            ready = time.monotonic()
            answer = server.post("/v1/chat/completions", question, timeout=600)[2]
            return server, ready - began, answer, time.monotonic() - ready

        try:
            server, ready_empty, cold, cold_s = begin_and_ask()
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                numbers = iter(range(1 << 30))
                while server.metric("kv_disk_bytes") < wanted:
                    list(pool.map(lambda i: server.post("/v1/chat/completions", chat(f"{i}", max_tokens=0)), (next(numbers) for _ in range(64))))
            held, files = server.metric("kv_disk_bytes"), sum(len(names) for _, _, names in os.walk(folder.name))
            server.stop()
            server, ready_full, warm, warm_s = begin_and_ask()
            server.stop()
        finally:
            folder.cleanup()
        self.check("L11: the answer of a kept prefix", warm["choices"] == cold["choices"])
        self.check("L11: nothing was kept", warm["usage"]["prompt_tokens_details"]["cached_tokens"] > 1000)
        self.row(f"L11 restart with {held / 2**30:.1f} GiB of kept prefixes in {files:,} files", "ready at most 2 s later, the first known turn >= 5 times as fast",
                 f"ready after {ready_full:.1f} s ({ready_empty:.1f} s with none), a prompt of {cold['usage']['prompt_tokens']} tokens in {warm_s:.2f} s ({cold_s:.2f} s cold)",
                 ready_full - ready_empty < 2 and cold_s > 5 * warm_s)

    def L12(self):
        wanted, sent, dice = self.scaled(100_000_000, 1_000_000), 0, random.Random(12)
        seeds = [read_bytes(path) for kind in ("http", "json_schema", "gbnf", "client") for path in sorted(glob.glob(os.path.join(ROOT, "tests", "fuzz", "seeds", kind, "*")))]
        server = self.serve()
        try:
            for data in seeds:
                self.throw(server, data)
            before, statuses = server.memory_kib(), {}
            while sent < wanted:
                data = mutated(dice, seeds)
                sent += len(data)
                status = self.throw(server, data)
                statuses[status] = statuses.get(status, 0) + 1
            time.sleep(2)
            server.wait_until_idle(60)
            growth = server.memory_kib() - before
            right = server.post("/v1/chat/completions", chat("What is the capital of Portugal?"))[2]["choices"][0]["message"]["content"]
            self.check("L12: the answer afterwards", right == "The capital of Portugal is Lisbon.")
        finally:
            self.check("L12: exit code", server.stop() == 0)
        self.check(f"L12: statuses {statuses}", not any(status >= 500 and status not in (501, 503, 505) for status in statuses))
        told = ", ".join(f"{count:,} x {status or 'closed'}" for status, count in sorted(statuses.items()))
        self.row(f"L12 {sent / 1e6:.0f} MB of bad requests", "lives, growth < 16 MiB", f"{growth / 1024:+.1f} MiB; {told}", growth < 16 << 10)

    @staticmethod
    def throw(server, data):
        """Bytes as they are, or as the body of a request; -> the status of the answer."""
        with server.connect(60) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            return status_of(receive_all(connection))

    def L13(self):
        bench = os.path.join(os.path.dirname(BINARY), "bench", "tokenizer_bench")
        if os.path.exists(bench):
            out = subprocess.run([bench, os.path.join(MODEL, "tokenizer.json")], stdout=subprocess.PIPE, text=True, check=True).stdout
            print("\n".join(f"# {line}" for line in out.splitlines()), file=sys.stderr)
        server = self.serve(context=4096)
        try:
            times = {}
            for megabytes in (1, 2, 4, 8):
                text = "It was a bright cold day in April, and the clocks were striking thirteen; 1984 copies. " * (megabytes * 11494)
                start = time.monotonic()
                status = server.post("/v1/messages/count_tokens", {"messages": user(text)}, timeout=600)[0]
                times[megabytes] = (time.monotonic() - start) / len(text) * 1e6
                self.check("L13: status", status == 200)
        finally:
            server.stop()
        self.row("L13 tokens of 1, 2, 4 and 8 MB counted over HTTP: JSON, template and tokenizer together", "the tokenizer >= 5 MB/s, linear",
                 ", ".join(f"{1 / per:.1f} MB/s" for per in times.values()), min(1 / per for per in times.values()) >= 5 and times[8] < 1.5 * times[1])

    def L14(self):
        tools = [{"type": "function", "function": {"name": f"tool_{i}", "description": "Does what it is for.", "parameters": {
            "type": "object", "properties": {"place": {"type": "string"}, "depth": {"type": "integer"}}, "required": ["place"]}}} for i in range(100)]
        messages = [{"role": "assistant" if i % 2 else "user", "content": f"This is message number {i} of a long conversation."} for i in range(999)]
        body = {"messages": messages, "tools": tools}
        server, times = self.serve(context=4096), []
        try:
            for _ in range(20):
                start = time.monotonic()
                status, _, answer = server.post("/apply-template", body, timeout=600)
                times.append(time.monotonic() - start)
                self.check("L14: status", status == 200)
        finally:
            server.stop()
        p50 = quantile(times[1:], 0.5)
        self.row(f"L14 a template with 1,000 messages and 100 tools over HTTP: JSON, template and {answer['tokens']:,} tokens together", "the template < 50 ms",
                 f"p50 {ms(p50)}; the first, whose tools become a grammar, {ms(times[0])}", p50 < 0.050)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--soak-minutes", type=float, default=30)
    parser.add_argument("--kv-gib", type=float, default=10)
    parser.add_argument("--kv-folder", help="where these files go; default: the folder of temporary files")
    parser.add_argument("--faulty", default=os.path.join(ROOT, "build", "test", "tests", "support", "penstock_faulty"))
    return 1 if Loads(parser.parse_args()).run() else 0


if __name__ == "__main__":
    sys.exit(main())
