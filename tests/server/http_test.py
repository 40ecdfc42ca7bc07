"""HTTP as strangers speak it: malformed, slow, too large, from other sites, without a key."""

import collections
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from support import BINARY, IS_SLOW, LONG, MODEL, Server, chat, environment, receive_all, status_of

HOST = b"Host: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


class HttpTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, cls.server.text()

    def lives(self):
        self.assertEqual(self.server.get("/health")[0], 200)

    def test_malformed_requests_are_refused_at_once_and_cost_no_memory(self):
        before = self.server.memory_kib()
        chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        rows = {
            "no newline in 64 KiB": (b"A" * 65536, 431),
            "a header of 64 KiB": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 65536, 431),
            "50,000 headers": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 50000 + b"\r\n", 431),
            "length and chunked": (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
            "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", 400),
            "length -1": (POST + b"Content-Length: -1\r\n\r\n", 400),
            "length 2^64": (POST + b"Content-Length: 18446744073709551616\r\n\r\n", 400),
            "10 GB announced": (POST + b"Content-Length: 10000000000\r\n\r\n", 413),
            "chunk of size -2": (chunked + b"-2\r\n", 400),
            "chunk size overflows": (chunked + b"f" * 20 + b"\r\n", 400),
            "endless chunk size": (chunked + b"1" + b";x" * 9000, 400),
            "bare line feeds": (b"GET /health HTTP/1.1\nHost: localhost\n\n", 400),
            "NUL in a header": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", 400),
            "space before colon": (b"GET /health HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n", 400),
            "continued line": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", 400),
            "no length": (POST + b"\r\n", 411),
            "9 KiB of target": (b"GET /" + b"a" * 9216 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
            "gzip": (POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415),
            "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        }
        for name, (data, expected) in rows.items():
            with self.subTest(name):
                start = time.monotonic()
                self.assertEqual(status_of(self.server.raw(data)), expected)
                self.assertLess(time.monotonic() - start, 3)
        self.assertLess(self.server.memory_kib() - before, 4096)
        before = self.server.memory_kib()  # with what the first of each kind made the process take
        for name, (data, expected) in rows.items():
            self.assertEqual(status_of(self.server.raw(data)), expected, name)
        self.assertLess(self.server.memory_kib() - before, 1024)
        self.lives()

    def test_a_coded_line_end_stays_coded(self):
        data = self.server.raw(b"GET /health?a=%0d%0aX:%20y HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        self.assertEqual(status_of(data), 200)
        self.assertNotIn(b"X: y", data)

    def test_hosts_and_origins_of_others_are_refused(self):
        def get(headers):
            return status_of(self.server.raw(b"GET /v1/models HTTP/1.1\r\n" + headers + b"Connection: close\r\n\r\n"))

        self.assertEqual(get(b"Host: evil.example\r\n"), 403)
        self.assertEqual(get(b""), 400)
        self.assertEqual(get(HOST + HOST), 400)
        for good in (b"localhost:99", b"127.0.0.1", b"[::1]:1", socket.gethostname().encode()):
            self.assertEqual(get(b"Host: " + good + b"\r\n"), 200, good)
        self.assertEqual(get(HOST + b"Origin: https://evil.example\r\n"), 403)
        self.assertEqual(get(HOST + b"Origin: null\r\n"), 403)
        self.assertEqual(get(HOST + b"Origin: http://localhost\r\n"), 200)
        status, headers, _ = self.server.get("/health")
        self.assertIsNone(headers["Access-Control-Allow-Origin"])
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            status, _, _ = self.server.post("/v1/chat/completions", b"{}", headers={"Content-Type": kind})
            self.assertEqual(status, 415)

    def test_methods_and_paths(self):
        def ask(line, extra=b""):
            return status_of(self.server.raw(line + b" HTTP/1.1\r\n" + HOST + extra + b"Connection: close\r\n\r\n"))

        self.assertEqual(ask(b"HEAD /health"), 200)
        self.assertEqual(ask(b"OPTIONS /health"), 204)
        for line in (b"TRACE /health", b"CONNECT localhost:80", b"DELETE /v1/models", b"GET /v1/chat/completions"):
            self.assertIn(ask(line), (404, 405), line)
        self.assertEqual(ask(b"GET http://localhost/health"), 200)
        self.assertEqual(ask(b"GET http://evil.example/health"), 403)
        for path in (b"//etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/../etc/passwd", b"/health%00"):
            self.assertEqual(ask(b"GET " + path), 404, path)
        data = self.server.raw(b"GET /health HTTP/1.0\r\n" + HOST + b"\r\n")
        self.assertEqual(status_of(data), 200)

    def test_pipelined_requests_are_answered_in_order(self):
        one = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
        two = b"GET /version HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        data = self.server.raw(one * 3 + two)
        self.assertEqual(data.count(b"HTTP/1.1 200"), 4)
        self.assertLess(data.index(b'"status"'), data.index(b'"version"'))

    def test_a_body_is_asked_for_before_it_is_sent(self):
        body = json.dumps(chat("hello", max_tokens=1)).encode()
        with self.server.connect() as connection:
            connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
            self.assertTrue(connection.recv(1000).startswith(b"HTTP/1.1 100"))
            connection.sendall(body)
            self.assertEqual(status_of(connection.recv(65536)), 200)

    def test_bodies_that_are_not_acceptable_json(self):
        deep = b'{"messages":' + b"[" * 1_000_000
        rows = {
            "empty": b"", "not JSON": b"hello", "byte order mark": b"\xef\xbb\xbf{}",
            "trailing text": b"{} {}", "bad UTF-8": b'{"a":"\xff"}', "lone surrogate": b'{"a":"\\ud800"}',
            "deep": deep, "1e400": b'{"a":1e400}', "duplicate keys": b'{"a":1,"a":2}',
            "NUL": b'{"a":"\\u0000"}', "a list": b"[]", "many values": b'{"a":[' + b"1," * 400_000 + b"1]}",
        }
        for name, body in rows.items():
            with self.subTest(name):
                status, _, answer = self.server.post(
                    "/v1/chat/completions", body, headers={"Content-Type": "application/json"}
                )
                self.assertEqual(status, 400)
                self.assertEqual(answer["error"]["type"], "invalid_request_error")
        large = POST + b"Content-Length: %d\r\n\r\n" % ((32 << 20) + 1)
        self.assertEqual(status_of(self.server.raw(large)), 413)
        self.lives()

    def test_slow_headers_end_and_hold_nobody_up(self):
        slow = [self.server.connect() for _ in range(400)]
        for connection in slow:
            try:
                connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
            except OSError:
                pass
        time.sleep(0.3)
        for _ in range(5):
            start = time.monotonic()
            self.assertEqual(self.server.get("/health")[0], 200)
            self.assertLess(time.monotonic() - start, 2)
        # Those beyond the limit were told so.
        last = slow[-1]
        self.assertEqual(status_of(receive_all(last)), 503)
        # The first ones are told when their time is over.
        self.assertEqual(status_of(receive_all(slow[0])), 408)
        for connection in slow:
            connection.close()
        self.lives()


    def test_thousands_of_connections_end_soon_and_health_is_answered(self):
        before = len(os.listdir(f"/proc/{self.server.process.pid}/fd"))
        held = collections.deque()
        try:
            for i in range(2_000 if IS_SLOW else 10_000):
                held.append(self.server.connect(60))
                if len(held) > 500:
                    held.popleft().close()
                if i % 1000 == 999:
                    self.lives()
        finally:
            for connection in held:
                connection.close()
        end = time.monotonic() + 60
        while len(os.listdir(f"/proc/{self.server.process.pid}/fd")) > before + 2 and time.monotonic() < end:
            time.sleep(0.05)
        self.assertLessEqual(len(os.listdir(f"/proc/{self.server.process.pid}/fd")), before + 2)
        self.lives()


class KeyTest(unittest.TestCase):
    def test_every_route_but_health_needs_the_key(self):
        with tempfile.NamedTemporaryFile("w") as keys:
            keys.write("# two keys\nsecret-one\nsecret-two\n")
            keys.flush()
            server = Server("--api-key-file", keys.name)
            try:
                self.check(server)
            finally:
                self.assertEqual(server.stop(), 0)

    def check(self, server):
        for path in ("/health", "/v1/health"):
            self.assertEqual(server.get(path)[0], 200)
        self.assertEqual(server.get("/nowhere")[0], 401)
        described = server.get("/openapi.json", headers={"X-Api-Key": "secret-one"})[2]["paths"]
        self.assertGreater(len(described), 20)
        public = set()
        for path, methods in described.items():
            for method in methods:
                status = server.ask(method.upper(), path.replace("{name}", "x"), {} if method == "post" else None)[0]
                if status != 401:
                    public.add(path)
        self.assertEqual(public, {"/", "/page/{name}", "/health", "/v1/health"})
        self.assertEqual(status_of(server.raw(b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X-Api-Key: " + b"k" * (1 << 20) + b"\r\n\r\n")), 431)
        for headers in (
            {"Authorization": "Bearer secret-one"}, {"X-Api-Key": "secret-two"},
            {"authorization": "bearer secret-one"}, {"Authorization": "Bearer no", "X-Api-Key": "secret-one"},
        ):
            self.assertEqual(server.get("/v1/models", headers=headers)[0], 200, headers)
        for headers in (
            {"Authorization": "Bearer secret"}, {"X-Api-Key": "secret-onee"}, {"X-Api-Key": ""},
            {"Authorization": "secret-one"}, {"X-Api-Key": "x" * 10000},
        ):
            self.assertEqual(server.get("/v1/models", headers=headers)[0], 401, headers)

    def test_a_key_of_the_command_line_is_not_shown_to_who_lists_processes(self):
        for flags in (("--api-key", "secret-one,secret-two"), ("--api-key=secret-two",)):
            server = Server(*flags)
            try:
                with open(f"/proc/{server.process.pid}/cmdline", "rb") as command:
                    words = command.read()
                self.assertIn(b"--api-key", words)
                self.assertNotIn(b"secret", words)
                self.assertNotIn("secret", server.text())
                self.assertEqual(server.get("/v1/models", headers={"X-Api-Key": "secret-two"})[0], 200)
                self.assertEqual(server.get("/v1/models", headers={"X-Api-Key": "**********"})[0], 401)
            finally:
                self.assertEqual(server.stop(), 0)

    def test_a_hangup_reads_the_keys_again(self):
        with tempfile.NamedTemporaryFile("w") as keys:
            def write(text):
                keys.seek(0)
                keys.truncate()
                keys.write(text)
                keys.flush()

            def told_after_hangup(line):
                server.send(signal.SIGHUP)
                end = time.monotonic() + 10
                while line not in server.text() and time.monotonic() < end:
                    time.sleep(0.02)
                self.assertIn(line, server.text())

            def status(key):
                return server.get("/v1/models", headers={"X-Api-Key": key})[0]

            write("old\n")
            server = Server("--api-key-file", keys.name)
            try:
                self.assertEqual((status("old"), status("new")), (200, 401))
                write("new\n")
                self.assertEqual(status("new"), 401)
                told_after_hangup("the keys were read again")
                self.assertEqual((status("old"), status("new")), (401, 200))
                write("# nobody\n")
                told_after_hangup("the keys stay as they were")
                self.assertEqual((status("old"), status("new")), (401, 200))
            finally:
                self.assertEqual(server.stop(), 0)

    def test_others_are_not_served_without_a_key(self):
        with self.assertRaisesRegex(AssertionError, "--api-key"):
            Server("--host", "0.0.0.0", "--port", "0")

    def test_a_busy_port_is_a_sentence_and_exit_code_2(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with self.assertRaisesRegex(AssertionError, "cannot listen at 127.0.0.1"):
                Server("--host", "127.0.0.1", "--port", port)

    def test_an_address_that_is_none_is_a_sentence_and_exit_code_2(self):
        for host in ("999.1.1.1", "192.0.2.1", "no such name"):
            run = subprocess.run([BINARY, "serve", MODEL, "--memory", "400M", "--host", host, "--port", "0", "--i-know"],
                                 stderr=subprocess.PIPE, env=environment(), timeout=120)
            self.assertEqual(run.returncode, 2, run.stderr)
            self.assertIn(b"cannot listen at " + host.encode(), run.stderr)

    def test_a_unix_socket_replaces_only_a_stale_one(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "penstock.sock")
            server = Server("--host", path)
            with self.assertRaisesRegex(AssertionError, "cannot listen"):
                Server("--host", path)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
                self.assertEqual(status_of(receive_all(connection)), 200)
            server.process.kill()
            server.process.wait()
            self.assertTrue(os.path.exists(path))
            again = Server("--host", path)
            self.assertEqual(again.stop(), 0)
            self.assertFalse(os.path.exists(path))


class DrainTest(unittest.TestCase):
    def test_running_answers_end_and_new_requests_are_refused(self):
        # Long enough to be at work still when it is asked.
        server = Server("--drain-timeout", 600, context=4096)
        events = server.stream("/v1/chat/completions", chat("Tell me a story.", stream=True, ignore_eos=True, max_tokens=LONG))
        # The first events come before the request has left the queue, where it would be refused.
        next(e for e in events if any(choice["delta"].get("content") for choice in e["choices"]))
        server.send()
        end = time.monotonic() + 60
        while (status := server.get("/v1/models")[0]) == 200 and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(status, 503)
        rest = list(events)
        self.assertEqual(rest[-1], "[DONE]")
        finished = [e for e in rest[:-1] if e["choices"] and e["choices"][0]["finish_reason"]]
        self.assertEqual(finished[-1]["choices"][0]["finish_reason"], "length")
        self.assertEqual(server.stop(), 0)

    def test_a_signal_right_after_the_start_is_obeyed(self):
        for _ in range(3):
            process = subprocess.Popen(
                [BINARY, "serve", MODEL, "--memory", "400M", "--context", "1024", "--port", "0"],
                stderr=subprocess.PIPE, env=environment())
            for line in process.stderr:
                if line.startswith(b"serving "):
                    break
            process.send_signal(signal.SIGTERM)
            told = process.stderr.read()
            process.stderr.close()
            self.assertEqual(process.wait(60), 0, told)

    def test_a_second_signal_ends_answers_with_an_error_event(self):
        server = Server(context=4096)
        events = server.stream("/v1/chat/completions", chat("Tell me a story.", stream=True, ignore_eos=True, max_tokens=LONG))
        next(e for e in events if any(choice["delta"].get("content") for choice in e["choices"]))
        server.send()
        end = time.monotonic() + 60
        while "shutting down" not in server.text() and time.monotonic() < end:
            time.sleep(0.01)
        server.send()
        rest = list(events)
        self.assertIn("shutting down", rest[-1]["error"]["message"])
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
