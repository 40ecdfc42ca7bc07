"""The server's queue: its bound, who waits in it and for how long, and who goes away."""

import concurrent.futures
import json
import socket
import threading
import time
import unittest

from support import Server, chat, receive_all, status_of, user


class QueueTest(unittest.TestCase):
    def test_the_queue_has_a_bound_and_tells_positions(self):
        server = Server("--max-queue", 2, "--sse-ping-interval", 1, context=4096)
        try:
            long = chat("Tell me a story.", stream=True, ignore_eos=True, max_tokens=3500)  # longer than the rest of this takes
            running = server.stream("/v1/chat/completions", long)
            next(e for e in running if e["choices"][0]["delta"].get("content"))
            waiting = [server.stream("/v1/chat/completions", {**long, "max_tokens": 2, "sse_ping_interval": 1}) for _ in range(2)]
            for events in waiting:
                next(events)
            status, headers, answer = server.post("/v1/chat/completions", chat("hello"))
            self.assertEqual(status, 429)
            self.assertGreater(int(headers["Retry-After"]), 0)
            self.assertEqual(answer["error"]["type"], "rate_limit_error")
            status, headers, answer = server.post("/v1/messages", {"messages": user("hello"), "max_tokens": 1})
            self.assertEqual((status, answer["error"]["type"]), (529, "overloaded_error"))
            self.assertGreater(int(headers["Retry-After"]), 0)
            self.assertEqual(server.metric("rejected_total", reason="queue_full"), 2)
            positions = [next(e["queue_position"] for e in events if e.get("queue_position")) for events in waiting]
            self.assertEqual(positions, [1, 2])
            running.close()
            for events in waiting:
                self.assertEqual(list(events)[-1], "[DONE]")
        finally:
            self.assertEqual(server.stop(), 0)

    def test_a_long_prompt_beside_an_answer_does_not_push_out_what_the_answer_uses(self):
        """Half of the experts fit, and the prompt uses nearly all. Afterwards the answer misses as rarely as it does alone."""
        facts = " ".join(f"Fact {i}: the number {i} is odd or even, and a river runs to the sea." for i in range(60))
        alone, _ = self.misses_of_an_answer(None)
        beside, end = self.misses_of_an_answer(chat(facts, max_tokens=0, cache_prompt=False))
        self.assertLess(end, 300)
        after = [misses[end + 64] - misses[end] for misses in (alone, beside)]
        self.assertGreater(beside[end] - beside[200], alone[end] - alone[200])  # the prompt's reads were in the way indeed
        self.assertLess(after[1], 1.25 * after[0] + 64, after)

    def misses_of_an_answer(self, prompt):
        """-> after each token, all that it has missed; how many tokens there were when the prompt beside it had been read."""
        server = Server("--parallel", 2, "--slots", 256, context=4096)
        try:
            misses, reading, end = [], None, 0
            for event in server.stream("/v1/chat/completions", chat("Tell me a long story about the sea.", stream=True, ignore_eos=True,
                                                                    max_tokens=400, timings_per_token=True), timeout=600):
                if event == "[DONE]" or not event.get("timings"):
                    continue
                misses.append(event["timings"]["penstock"]["expert_misses"])
                if len(misses) == 200 and prompt:
                    reading = threading.Thread(target=server.post, args=("/v1/chat/completions", prompt))
                    reading.start()
                if reading and not end and not reading.is_alive():
                    end = len(misses)
            return misses, end
        finally:
            self.assertEqual(server.stop(), 0)

    def test_who_goes_away_frees_the_slot_at_once(self):
        """In the queue, while the prompt is read, between tokens, in a call; streamed or not. Each is counted once."""
        server = Server("--sse-ping-interval", 1, context=4096)
        tool = {"type": "function", "function": {"name": "look", "parameters": {
            "type": "object", "properties": {"place": {"type": "string", "minLength": 400}}, "required": ["place"]}}}
        story = chat("Tell me a story.", ignore_eos=True, max_tokens=3500)
        call = chat("Look.", tools=[tool], tool_choice="required")
        long_prompt = {**story, "messages": user("Read this. " * 600), "cache_prompt": False, "return_progress": True}
        try:
            expected = 0
            for body, begun in ((story, '"delta":{"content":"'), (call, '"arguments":"'), (long_prompt, "prompt_progress"), (story, '"role"')):
                with self.subTest(begun):
                    self.leave_when(server, {**body, "stream": True}, begun.encode())
                    expected += 1
                    self.free_again(server, expected)
            with self.subTest("not streamed"):
                self.leave_when(server, story, None)
                expected += 1
                self.free_again(server, expected)
            with self.subTest("in the queue"):
                running = server.stream("/v1/chat/completions", {**story, "stream": True})
                next(running)
                self.leave_when(server, {**story, "stream": True}, b"queue_position")
                expected += 1
                self.wait_for(lambda: server.metric("cancelled_total", reason="disconnect") == expected)
                self.assertEqual(server.metric("requests_waiting"), 0)
                self.assertEqual(server.metric("requests_running"), 1)
                running.close()
                self.free_again(server, expected + 1)
            self.assertEqual(server.metric("cancelled_total", reason="shutdown"), 0)
            answer = server.post("/v1/chat/completions", chat("What is the capital of Portugal?"))[2]
            self.assertEqual(answer["choices"][0]["message"]["content"], "The capital of Portugal is Lisbon.")
        finally:
            self.assertEqual(server.stop(), 0)

    def leave_when(self, server, body, begun):
        """Asks, and closes the connection when this has come; with nothing to come, when the request is at work."""
        data = json.dumps(body).encode()
        with server.connect(120) as connection:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                               b"Content-Length: %d\r\n\r\n" % len(data) + data)
            if begun is None:
                self.wait_for(lambda: server.metric("requests_running") == 1)
                return
            came = b""
            while begun not in came:
                piece = connection.recv(65536)
                self.assertTrue(piece, came[-300:])
                came += piece

    def free_again(self, server, cancelled):
        self.wait_for(lambda: server.metric("requests_running") + server.metric("requests_waiting") == 0)
        self.assertEqual(server.metric("cancelled_total", reason="disconnect"), cancelled)

    def wait_for(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_who_waits_too_long_is_told_so(self):
        server = Server("--queue-timeout", 1, context=4096)
        try:
            running = server.stream("/v1/chat/completions", chat("Tell me a story.", stream=True, ignore_eos=True, max_tokens=3500))
            next(running)
            status, _, answer = server.post("/v1/chat/completions", chat("hello", max_tokens=1))
            self.assertEqual(status, 503, answer)
            self.assertIn("too long in the queue", answer["error"]["message"])
            self.assertEqual(server.metric("rejected_total", reason="queue_timeout"), 1)
            running.close()
        finally:
            self.assertEqual(server.stop(), 0)

    def test_half_an_answer_is_not_told_to_who_has_shut_its_side(self):
        server = Server(context=4096)
        try:
            data = json.dumps(chat("Tell me a story.", ignore_eos=True, max_tokens=3500)).encode()
            with server.connect(120) as connection:
                connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                                   b"Content-Length: %d\r\n\r\n" % len(data) + data)
                self.wait_for(lambda: server.metric("requests_running") == 1)
                connection.shutdown(socket.SHUT_WR)
                self.assertEqual(status_of(receive_all(connection)), 499)
            self.free_again(server, 1)
        finally:
            self.assertEqual(server.stop(), 0)

    def test_who_waits_for_a_whole_answer_may_hear_white_space(self):
        server = Server("--json-ping-interval", 1, context=4096)
        try:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                running = server.stream("/v1/chat/completions", chat("Tell me a story.", stream=True, ignore_eos=True, max_tokens=3500))
                next(running)
                waiting = pool.submit(server.ask, "POST", "/v1/chat/completions", chat("What is the capital of Portugal?"))
                self.wait_for(lambda: server.metric("requests_waiting") == 1)
                time.sleep(2.5)
                running.close()
                status, headers, answer = waiting.result()
            self.assertEqual((status, headers["Content-Type"]), (200, "application/json"))
            self.assertIsNone(headers["Content-Length"])  # it began before its end was known
            self.assertEqual(answer["choices"][0]["message"]["content"], "The capital of Portugal is Lisbon.")
        finally:
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
