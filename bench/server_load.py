"""What the server holds under load, on the demo model: latencies, sharing, cancelling, memory.

    PENSTOCK_BINARY=build/release/penstock PENSTOCK_DEMO_MODEL=build/demo-model python3 bench/server_load.py

Rows are Markdown. Each server is started anew; figures are of this machine as it is now, so say what
else it is doing. What is expected is told in docs/performance.md.
"""

import concurrent.futures
import json
import os
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "server"))
from support import Server, chat, receive_all, status_of  # noqa: E402

STORY = "Tell me a long story about the sea."
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def row(name, **values):
    print("| " + name + " | " + ", ".join(f"{key} {value}" for key, value in values.items()) + " |", flush=True)


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def milliseconds(values):
    return {"p50": f"{1e3 * quantile(values, 0.5):.1f} ms", "p99": f"{1e3 * quantile(values, 0.99):.1f} ms", "n": len(values)}


class Generating:
    """Keeps one answer running after the other until it is left."""

    def __init__(self, server):
        self.server, self.ends = server, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.ends.is_set():
            for _ in self.server.stream("/v1/chat/completions", chat(STORY, stream=True, ignore_eos=True, max_tokens=300)):
                if self.ends.is_set():
                    break

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()


def latency(server, path, seconds, rate):
    """A request at a time over one connection each, as a monitor asks."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        assert server.get(path)[0] == 200
        times.append(time.monotonic() - start)
        time.sleep(max(1 / rate - times[-1], 0))
    return times


def floor(server, connections, seconds):
    """Trivial requests over kept connections, as many as go."""
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def work():
        done = 0
        with server.connect() as connection:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                connection.sendall(request * 16)
                missing = 16
                while missing:
                    missing -= connection.recv(65536).count(b'{"status":"ok"}')
                done += 16
        return done

    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        return sum(f.result() for f in [pool.submit(work) for _ in range(connections)]) / seconds


def sharing(requests):
    """Bytes read per token and tokens a second with so many answers side by side, half of the experts in memory."""
    server = Server("--parallel", requests, memory="60M", context=512)
    try:
        body = lambda i: chat(f"Tell me story number {i}.", ignore_eos=True, max_tokens=200)
        server.post("/v1/chat/completions", body(99))  # warm
        before = {name: server.metric(name) for name in ("expert_bytes_read_total", "generated_tokens_total")}
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(requests) as pool:
            list(pool.map(lambda i: server.post("/v1/chat/completions", body(i)), range(requests)))
        seconds = time.monotonic() - start
        after = {name: server.metric(name) for name in before}
        tokens = after["generated_tokens_total"] - before["generated_tokens_total"]
        read = after["expert_bytes_read_total"] - before["expert_bytes_read_total"]
        row(f"{requests} side by side", **{"KiB per token": round(read / tokens / 1024), "tokens/s in all": f"{tokens / seconds:.1f}"})
    finally:
        server.stop()


def cancelling(server, count):
    body = json.dumps(chat(STORY, stream=True, ignore_eos=True)).encode()
    times = []
    for i in range(count):
        with server.connect() as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(0.001 * (i * 37 % 100))
        start = time.monotonic()
        server.wait_until_idle(20)
        times.append(time.monotonic() - start)
    return times


def main():
    print("| load | held |\n|---|---|")
    server = Server("--parallel", 1, "--max-queue", 32)
    try:
        with Generating(server):
            row("L1 /health while generating", **milliseconds(latency(server, "/health", 15, 50)))
            row("L2 /metrics while generating", **milliseconds(latency(server, "/metrics", 10, 20)))
        row("L3 trivial requests, 64 connections", **{"requests/s": round(floor(server, 64, 5))})
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda i: server.post("/v1/chat/completions", chat(STORY, max_tokens=20))[0], range(64)))
        row("L5 64 requests, queue of 32", answered=answers.count(200), refused=answers.count(429))
        row("L7 from leaving to a free slot", **milliseconds(cancelling(server, 200)))
        before = server.memory_kib()
        for i in range(2000):
            server.post("/tokenize", {"content": f"hello {i}"})
        row("L8 2,000 short requests", **{"growth": f"{server.memory_kib() - before} KiB"})
    finally:
        server.stop()
    for requests in (1, 2, 4, 8):
        sharing(requests)


if __name__ == "__main__":
    main()
