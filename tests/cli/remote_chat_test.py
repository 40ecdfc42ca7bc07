#!/usr/bin/env python3
"""chat --server: with a server of our own, and with one that says whatever a test wants; and the chat's tools."""

import importlib.util
import json
import os
import shutil
import socket
import tempfile
import time
import unittest

from fake_server import FakeServer, calls, event, says
from support import environment, penstock
from terminal_driver import Terminal

# The server's tests have a support.py, too.
_place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "server", "support.py")
_spec = importlib.util.spec_from_file_location("server_support", _place)
server_support = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(server_support)
Server = server_support.Server


def ask(server, lines, *arguments, code=0, env=None, cwd=None):
    """-> (standard output, standard error) of a chat over a pipe."""
    address = server if isinstance(server, str) else server.address
    done = penstock("chat", "--server", address, *arguments, stdin="".join(line + "\n" for line in lines), env=env, cwd=cwd)
    out, errors = done.stdout.decode(), done.stderr.decode()
    if done.returncode != code:
        raise AssertionError(f"ended with {done.returncode}: {out}\n{errors}")
    return out, errors


class FakeTest(unittest.TestCase):
    def serve(self, *answers, **options):
        server = FakeServer(*answers, **options)
        self.addCleanup(server.stop)
        return server


class OwnServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="penstock-chat-")
        cls.key_file = os.path.join(cls.folder, "key")
        with open(cls.key_file, "w", encoding="utf-8") as file:
            file.write("sesame\n")
        cls.server = Server("--api-key-file", cls.key_file)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, cls.server.text()
        shutil.rmtree(cls.folder)

    def test_a_conversation(self):
        out, errors = ask(self.server, ["What is the capital of Portugal?", "/stats", "And of France?"],
                          "--api-key-file", self.key_file, "--think", "off", "--greedy")
        self.assertIn("The capital of Portugal is Lisbon.\n", out)
        self.assertIn("demo-model at 127.0.0.1", errors)
        self.assertIn("answer ", errors)

    def test_json_tells_what_the_server_told(self):
        out, _ = ask(self.server, ["What is the capital of Portugal?"], "--json", "--think", "off", "--greedy",
                     env=environment(PENSTOCK_API_KEY="sesame"))
        turn = json.loads(out)
        self.assertEqual(turn["content"], "The capital of Portugal is Lisbon.")
        self.assertEqual(turn["finish_reason"], "stop")
        self.assertGreater(turn["usage"]["completion_tokens"], 3)

    def test_without_the_key_it_says_what_is_missing(self):
        _, errors = ask(self.server, ["x"], code=2)
        self.assertIn("wants an API key", errors)
        _, errors = ask(self.server, ["x"], "--api-key", "wrong", code=2)
        self.assertIn("does not take the API key", errors)

    def test_a_refusal_is_told_in_the_servers_words(self):
        _, errors = ask(self.server, ["word " * 3000], "--api-key-file", self.key_file, code=2)
        self.assertIn("context", errors)

    def test_a_unix_socket(self):
        path = os.path.join(self.folder, "penstock.sock")
        server = Server("--host", path)
        try:
            out, _ = ask(path, ["What is the capital of Portugal?"], "--think", "off", "--greedy")
            self.assertEqual(out, "The capital of Portugal is Lisbon.\n")
        finally:
            self.assertEqual(server.stop(), 0)


class Words(FakeTest):
    def test_what_is_asked_is_what_was_set(self):
        server = self.serve(says("one"), says("two"))
        ask(server, ["first", "/set temp 0.7", "/set top-k 5", "/think", "second"], "--system", "be kind", "-n", "9", "--seed", "3")
        first, second = server.asked
        self.assertEqual(first["messages"], [{"role": "system", "content": "be kind"}, {"role": "user", "content": "first"}])
        self.assertEqual((first["model"], first["stream"], first["max_tokens"], first["seed"]), ("one", True, 9, 3))
        for unsaid in ("temperature", "top_p", "top_k", "tools", "chat_template_kwargs"):
            self.assertNotIn(unsaid, first)
        self.assertEqual((second["temperature"], second["top_k"]), (0.7, 5))
        self.assertEqual(second["chat_template_kwargs"], {"enable_thinking": True})
        self.assertEqual(second["messages"][2:], [{"role": "assistant", "content": "one"}, {"role": "user", "content": "second"}])

    def test_reasoning_comes_before_the_answer_and_goes_back(self):
        reasoned = [event({"reasoning_content": "hm"}), event({"reasoning": ", so"}), *says("yes")]
        server = self.serve(reasoned, says("x"))
        out, _ = ask(server, ["first", "second"], "--model", "mine")
        self.assertEqual(out, "hm, so\n</think>\n\nyes\nx\n")
        self.assertEqual(server.asked[1]["messages"][1]["reasoning_content"], "hm, so")
        self.assertEqual(server.asked[0]["model"], "mine")

    def test_one_whole_answer_will_do(self):
        def whole(handler):
            handler.whole(200, {"choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}]})
        self.assertEqual(ask(self.serve(whole), ["x"])[0], "hello\n")

    def test_errors_are_told_in_plain_words(self):
        def breaks_off(handler):
            handler.begin_events()
            handler.event(event({"content": "half"}))

        def status(number, body=b"{}", **headers):
            return lambda handler: handler.whole(number, body, headers=headers.items())
        rows = [
            (status(400, {"error": {"message": "no such field"}}), 2, "no such field"),
            (status(404), 2, "is the path of --server right?"),
            (status(429, {"error": {"message": "full"}}, **{"Retry-After": 7}), 5, "again in 7 s"),
            (status(503), 5, "busy"),
            (status(307, b"", Location="http://elsewhere/"), 2, "not followed"),
            (status(500, b"<html>oops"), 5, "oops"),
            (status(200, b"<html>hello"), 5, "not"),
            (status(200, {"hello": 1}), 5, "no choices"),
            (lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n\r\n"), 5, "not HTTP"),
            (breaks_off, 5, "broke off"),
            ([event({"content": "half"}), {"error": {"message": "no memory left"}}], 5, "no memory left"),
        ]
        for answer, code, words in rows:
            with self.subTest(words):
                _, errors = ask(self.serve(answer), ["x"], code=code)
                self.assertIn(words, errors)

    def test_nobody_there(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        _, errors = ask(f"http://127.0.0.1:{port}", ["x"], code=5)
        self.assertIn("nothing listens", errors)
        _, errors = ask("http://no-such-machine.invalid", ["x"], code=5)
        self.assertIn("no machine", errors)
        _, errors = ask("https://127.0.0.1", ["x"], code=2)
        self.assertIn("https is not spoken", errors)
        for arguments in ([], ["model", "--server", "http://x"], ["--server", "http://x", "--memory", "1G"], ["model", "--model", "y"]):
            self.assertEqual(penstock("chat", *arguments).returncode, 2)

    def test_an_answer_cannot_move_the_cursor(self):
        server = self.serve(says("a\x1b]0;title\x07b\x1b[2Jc"), models=("ev\x1b[2Jil",))
        terminal = Terminal("chat", "--server", server.address, "--no-history", NO_COLOR="1")
        terminal.wait_for(">>> ")
        terminal.type("x\r")
        seen = terminal.wait_for(">>> ")
        for evil in ("\x1b]0;", "\x1b[2J"):
            self.assertNotIn(evil, seen)
        terminal.type("\x04")
        self.assertEqual(terminal.end(), 0)

    def test_ctrl_c_ends_the_answer_and_the_connection_but_not_the_chat(self):
        def endless(handler):
            handler.begin_events()
            try:
                while True:
                    handler.event(event({"content": "word "}))
                    time.sleep(0.02)
            except OSError:
                server.gone.set()
        server = self.serve(endless, says("fine"))
        terminal = Terminal("chat", "--server", server.address, "--no-history")
        terminal.wait_for(">>> ")
        terminal.type("go on\r")
        terminal.wait_for("word word")
        terminal.type("\x03")
        self.assertIn("(stopped)", terminal.wait_for(">>> "))
        self.assertTrue(server.gone.wait(10))
        terminal.type("again\r")
        terminal.wait_for("fine")
        self.assertIn("word", server.asked[1]["messages"][1]["content"])  # what was said is kept
        terminal.wait_for(">>> ")
        terminal.type("/bye\r")
        self.assertEqual(terminal.end(), 0)

    def test_stop_strings_are_sent(self):
        server = self.serve(says("x"))
        ask(server, ["first"], "--stop", '["a", "b"]')
        self.assertEqual(server.asked[0]["stop"], ["a", "b"])

    def test_who_waits_is_told_why(self):
        slow = [{**event({}), "queue_position": 2}, {"choices": [], "prompt_progress": {"processed": 5, "total": 10}}, *says("x")]
        _, errors = ask(self.serve(slow), ["x"])
        self.assertIn("number 2 in its queue", errors)


class Tools(FakeTest):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="penstock-tools-")
        self.addCleanup(shutil.rmtree, self.folder)
        with open(os.path.join(self.folder, "note.txt"), "w", encoding="utf-8") as file:
            file.write("the word is \x1b[31mseagull\n")

    def test_a_file_is_read_and_the_answer_uses_it(self):
        server = self.serve(calls(("list_folder", {"path": "."}), ("read_file", {"path": "note.txt"}), text="I look."), says("seagull"))
        out, errors = ask(server, ["what is the word?"], "--allow", "read,list", "--workspace", self.folder)
        self.assertEqual(out, "I look.\nseagull\n")
        self.assertIn("tool: list_folder .", errors)
        self.assertIn("tool: read_file note.txt", errors)
        self.assertNotIn("\x1b", errors)
        self.assertEqual([tool["function"]["name"] for tool in server.asked[0]["tools"]], ["read_file", "list_folder"])
        called, listed, read = server.asked[1]["messages"][1:]
        self.assertEqual(json.loads(called["tool_calls"][1]["function"]["arguments"]), {"path": "note.txt"})
        self.assertEqual((listed["tool_call_id"], listed["content"]), ("call_0", "note.txt (25 bytes)\n"))
        self.assertEqual((read["role"], read["content"]), ("tool", "the word is \ufffd[31mseagull\n"))

    def test_what_is_not_allowed_is_not_done(self):
        server = self.serve(calls(("read_file", {"path": "/etc/passwd"}), ("run_command", {"command": "touch x"}),
                                  ("read_file", "{\"path\": ")), says("well"))
        ask(server, ["x"], "--allow", "read", "--workspace", self.folder)
        outside, unknown, broken = (message["content"] for message in server.asked[1]["messages"][2:])
        self.assertIn("outside", outside)
        self.assertIn("not allowed", unknown)
        self.assertIn("no JSON object", broken)
        self.assertEqual(os.listdir(self.folder), ["note.txt"])

    def test_a_model_that_is_loaded_here_uses_tools_too(self):
        os.mkdir(os.path.join(self.folder, "docs"))
        done = penstock("chat", os.environ["PENSTOCK_DEMO_MODEL"], "--memory", "400M", "--context", "1024", "--greedy", "--think", "off",
                        "--json", "--allow", "read,list", "--workspace", self.folder, stdin="Show me the files in docs\n")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        first, *_, last = map(json.loads, done.stdout.splitlines())
        call = first["tool_calls"][0]["function"]
        self.assertEqual((call["name"], call["arguments"]), ("list_folder", {"path": "docs"}))
        self.assertIn("tool: list_folder docs\n  (the folder is empty)", done.stderr.decode())
        self.assertNotIn("tool_calls", last)

    def test_tools_of_others_are_shown_and_left(self):
        tools = os.path.join(self.folder, "tools.json")
        with open(tools, "w", encoding="utf-8") as file:
            json.dump([{"type": "function", "function": {"name": "fly", "parameters": {}}}], file)
        server = self.serve(calls(("fly", {})))
        _, errors = ask(server, ["x"], "--tools", tools)
        self.assertIn("tool: fly - not carried out", errors)
        self.assertEqual(len(server.asked), 1)

    def test_commands_need_somebody_who_agrees(self):
        server = self.serve()
        _, errors = ask(server, ["x"], "--allow", "run", code=2)
        self.assertIn("standard input is no terminal", errors)
        _, errors = ask(server, ["/allow run"], code=2)
        self.assertIn("standard input is no terminal", errors)
        _, errors = ask(server, ["x"], "--allow", "fly", code=2)
        self.assertIn("they are read, list and run", errors)

    def chat(self, server):
        terminal = Terminal("chat", "--server", server.address, "--no-history", "--allow", "run", "--workspace", self.folder,
                            NO_COLOR="1", PENSTOCK_API_KEY="sesame")
        terminal.wait_for(">>> ")
        return terminal

    def test_a_command_runs_when_the_user_agrees_and_only_then(self):
        shown = "printf 'a\\033[2Jb' && touch done && echo \"key $PENSTOCK_API_KEY.\""
        server = self.serve(calls(("run_command", {"command": "touch no"})), calls(("run_command", {"command": shown})), says("fine"))
        terminal = self.chat(server)
        terminal.type("do it\r")
        self.assertIn("run_command: touch no", terminal.wait_for("run it? [y/N] "))
        terminal.type("\r")
        self.assertIn(shown, terminal.wait_for("run it? [y/N] "))
        terminal.type("y\r")
        self.assertNotIn("\x1b[2J", terminal.wait_for(">>> "))
        terminal.type("\x04")
        self.assertEqual(terminal.end(), 0)
        self.assertEqual(sorted(os.listdir(self.folder)), ["done", "note.txt"])
        self.assertIn("did not agree", server.asked[1]["messages"][-1]["content"])
        self.assertEqual(server.asked[2]["messages"][-1]["content"], "a\ufffd[2Jbkey .\n[exit code 0]")

    def test_what_cannot_be_shown_is_not_asked_about(self):
        server = self.serve(calls(("run_command", {"command": "touch x\x1b[2K\rls"}), ("run_command", {"command": "touch \u202ex"})), says("fine"))
        terminal = self.chat(server)
        terminal.type("do it\r")
        self.assertNotIn("run it?", terminal.wait_for(">>> "))
        terminal.type("\x04")
        self.assertEqual(terminal.end(), 0)
        self.assertEqual(os.listdir(self.folder), ["note.txt"])

    def test_ctrl_c_stops_a_command_and_the_chat_goes_on(self):
        server = self.serve(calls(("run_command", {"command": "sleep 60; touch late"})), says("fine"))
        terminal = self.chat(server)
        terminal.type("do it\r")
        terminal.wait_for("run it? [y/N] ")
        terminal.type("y\r")
        time.sleep(0.5)
        start = time.monotonic()
        terminal.type("\x03")
        terminal.wait_for(">>> ")
        self.assertLess(time.monotonic() - start, 20)
        terminal.type("and now?\r")
        terminal.wait_for("fine")
        self.assertIn("stopped by the user", server.asked[1]["messages"][2]["content"])
        terminal.type("\x04")
        self.assertEqual(terminal.end(), 0)

    def test_a_model_that_never_stops_asking_is_stopped(self):
        server = self.serve(*[calls(("list_folder", {"path": "."}))] * 40)
        _, errors = ask(server, ["x"], "--allow", "list", "--workspace", self.folder)
        self.assertIn("25 answers in a row", errors)
        self.assertEqual(len(server.asked), 25)


if __name__ == "__main__":
    unittest.main()
