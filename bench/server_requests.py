"""What bench/server_load.py asks a server, and how long that takes: kept answers, monitors, bytes that are nearly requests."""

import json
import os
import re
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "server"))
from support import chat  # noqa: E402

STORY = "Tell me a long story about the sea."
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def ms(seconds):
    return f"{1e3 * seconds:.1f} ms"


def post_bytes(body):
    data = json.dumps(body).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data


class Generating:
    """Keeps one answer running after the other until it is left."""

    def __init__(self, server):
        self.server, self.ends = server, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.ends.is_set():
            for _ in self.server.stream("/v1/chat/completions", chat(STORY, stream=True, ignore_eos=True, max_tokens=300), timeout=600):
                if self.ends.is_set():
                    break

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()


def latencies(server, path, seconds, rate):
    """A request at a time over one kept connection, as a monitor asks. -> seconds of each, how many failed"""
    times, failed, end = [], 0, time.monotonic() + seconds
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with server.connect(60) as connection:
        while time.monotonic() < end:
            start = time.monotonic()
            connection.sendall(request)
            failed += not whole_answer(connection).startswith(b"HTTP/1.1 200")
            times.append(time.monotonic() - start)
            time.sleep(max(1 / rate - times[-1], 0))
    return times, failed


def whole_answer(connection):
    data = b""
    while True:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
        head, found, body = data.partition(b"\r\n\r\n")
        if found and len(body) >= int(re.search(rb"Content-Length: (\d+)", head)[1]):
            return data


def find_member(json_value, name):
    if isinstance(json_value, dict):
        if name in json_value:
            return json_value[name]
        for value in json_value.values():
            found = find_member(value, name)
            if found is not None:
                return found
    return None


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def mutated(dice, seeds):
    """Something near a request: a seed of the fuzz targets with wrong bytes, alone or as a body."""
    data = bytearray(dice.choice(seeds) * dice.choice([1, 1, 1, 8]) or b"{")
    for _ in range(dice.randrange(8)):
        at = dice.randrange(len(data))
        data[at:at + dice.randrange(4)] = bytes(dice.randrange(256) for _ in range(dice.randrange(6)))
        data = data or bytearray(b"x")
    if dice.random() < 0.6:
        path = dice.choice(["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat", "/tokenize", "/detokenize", "/v1/completions"])
        if dice.random() < 0.3:
            data = bytearray(json.dumps({"messages": [{"role": "user", "content": data.decode("latin-1")}], "max_tokens": 0, "n": dice.choice([1, "x"])}).encode())
        data = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    if dice.random() < 0.02:
        data += bytes(dice.randrange(256) for _ in range(64)) * dice.randrange(1, 20_000)
    return bytes(data)
