"""What the tests of the server share: the real program on the demo model, at a free loopback port."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

BINARY = os.environ["PENSTOCK_BINARY"]
MODEL = os.environ["PENSTOCK_DEMO_MODEL"]
HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.normpath(os.path.join(HERE, "..", "data"))
START_TIMEOUT_S = 120
# The thread sanitizer takes fifteen times as long: its tests ask less of the same.
IS_SLOW = os.environ.get("PENSTOCK_SANITIZED") == "thread"
LONG = 600 if IS_SLOW else 3500  # tokens of an answer that is still at work when somebody looks
STATE = tempfile.TemporaryDirectory(prefix="penstock-serve-")


def environment():
    """Without what this machine's user has set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "XDG_"))}
    return {**kept, "HOME": "/nonexistent", "XDG_STATE_HOME": STATE.name}


class Server:
    """penstock serve, running until stop()."""

    def __init__(self, *flags, model=MODEL, memory="400M", context=1024):
        self.log = tempfile.TemporaryFile()
        arguments = [BINARY, "serve", model, "--memory", memory, "--context", context]
        if "--host" not in flags:
            arguments += ["--port", 0]
        self.process = subprocess.Popen(
            [str(a) for a in (*arguments, *flags)],
            stderr=self.log,
            env=environment(),
        )
        self.address = self._wait_for(r"listening at (\S+)")
        if self.address.startswith("http"):
            self.port = int(self.address.rsplit(":", 1)[1])
        self._wait_for(r"serving (\S+)")

    def text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def _wait_for(self, pattern):
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            found = re.search(pattern, self.text())
            if found:
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.text()}")

    def send(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        """Ends it and returns its exit code."""
        if self.process.poll() is None:
            self.send(number)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def ask(self, method, path, body=None, headers=None, timeout=120):
        """-> (status, headers, body), the body parsed where it is JSON."""
        data = body
        given = dict(headers or {})
        if isinstance(body, (dict, list)):
            data = json.dumps(body).encode()
            given.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.address + path, data, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return _read(answer, answer.status)
        except urllib.error.HTTPError as error:
            return _read(error, error.code)

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, path, body, **options):
        return self.ask("POST", path, body, **options)

    def stream(self, path, body, headers=None, timeout=120):
        """The data of each server-sent event as it comes; "[DONE]" as it is."""
        request = urllib.request.Request(
            self.address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", **(headers or {})},
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            for line in answer:
                line = line.decode().rstrip("\n")
                if line.startswith("data: "):
                    data = line[len("data: ") :]
                    yield data if data == "[DONE]" else json.loads(data)

    def connect(self, timeout=20):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def raw(self, data, timeout=20):
        """Sends bytes, returns everything until the server closes or nothing comes for a while."""
        with self.connect(timeout) as connection:
            try:
                connection.sendall(data)
            except OSError:
                pass
            return receive_all(connection)

    def metric(self, name, **labels):
        """The value of a metric: of the line with these labels, or of all its lines together."""
        lines = re.findall(rf"^penstock_{name}(?:{{(.*)}})? (\S+)$", self.get("/metrics")[2], re.MULTILINE)
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        values = [float(value) for given, value in lines if wanted <= set(given.split(","))]
        assert values, f"there is no metric {name} {labels}"
        return sum(values)

    def memory_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])

    def wait_until_idle(self, seconds=10):
        end = time.monotonic() + seconds
        while self.metric("requests_running") + self.metric("requests_waiting") > 0:
            if time.monotonic() > end:
                raise AssertionError("requests are still at work")
            time.sleep(0.01)


def _read(answer, status):
    body = answer.read()
    if "json" in answer.headers.get("Content-Type", ""):
        body = json.loads(body)
    else:
        body = body.decode(errors="replace")
    return status, answer.headers, body


def receive_all(connection):
    data = b""
    while True:
        try:
            piece = connection.recv(65536)
        except OSError:
            return data
        if not piece:
            return data
        data += piece


def status_of(data):
    """Of the first answer in what came; 0 when there is none."""
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", data)
    return int(found[1]) if found else 0


def user(text):
    return [{"role": "user", "content": text}]


def chat(text, **more):
    """A greedy request without reasoning."""
    return {"messages": user(text), "temperature": 0, "reasoning_effort": "none", **more}
