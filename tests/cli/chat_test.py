#!/usr/bin/env python3
"""chat, line by line from a pipe and on a pseudo-terminal."""

import json
import os
import signal
import stat
import time
import unittest

from support import Model, penstock
from terminal_driver import Terminal


def setUpModule():
    global MODEL
    MODEL = Model()


def tearDownModule():
    MODEL.remove()


class Piped(unittest.TestCase):
    def chat(self, lines, *arguments, code=0):
        done = penstock("chat", MODEL.path, "-n", 6, *arguments, stdin="\n".join(lines) + "\n")
        self.assertEqual(done.returncode, code, done.stderr.decode(errors="replace"))
        self.errors = done.stderr.decode(errors="replace")
        return done.stdout

    def turns(self, lines, *arguments):
        output = self.chat(lines, "--json", "--greedy", *arguments)
        return [json.loads(line) for line in output.splitlines()]

    def test_each_line_is_answered(self):
        turns = self.turns(["hello", "", "again"])
        self.assertEqual(len(turns), 2)
        self.assertIn("penstock", turns[0])
        self.assertEqual(self.chat(["hello"], "--greedy").count(b"\n"), 1)

    def test_a_turn_evaluates_only_what_is_new(self):
        first, second = (turn["timings"] for turn in self.turns(["hello", "more"]))
        self.assertEqual((first["cache_n"], first["prompt_n"]), (0, len("user: hello.assistant: ")))
        self.assertGreaterEqual(second["cache_n"], len("user: hello."))
        self.assertLess(second["prompt_n"], second["cache_n"] + second["prompt_n"])

    def test_a_cached_turn_answers_like_a_fresh_one(self):
        first, second = self.turns(["hello", "more"])
        saved = MODEL.file("saved.json")
        self.turns(["hello", f"/save {saved}"])
        fresh = self.turns([f"/load {saved}", "more"])[0]
        self.assertEqual(fresh["timings"]["cache_n"], 0)
        self.assertEqual(fresh["token_ids"], second["token_ids"])
        self.assertEqual(fresh["penstock"]["logits_hash"], second["penstock"]["logits_hash"])

    def test_undo_and_clear_take_messages_back(self):
        first, second, third = self.turns(["one", "/undo", "one", "/clear", "one"])
        self.assertEqual(first["token_ids"], second["token_ids"])
        self.assertEqual(first["token_ids"], third["token_ids"])

    def test_regen_draws_anew(self):
        output = self.chat(["one", "/regen"], "--json", "--temp", "3", "--seed", "5")
        first, second = (json.loads(line)["token_ids"] for line in output.splitlines())
        self.assertNotEqual(first, second)

    def test_set_changes_the_sampling(self):
        turns = self.turns(["one", "/set max-tokens 2", "/clear", "one"])
        self.assertEqual([len(turn["token_ids"]) for turn in turns], [6, 2])

    def test_system_and_read_reach_the_prompt(self):
        path = MODEL.file("note.txt", "a note")
        plain = self.turns(["hi"])[0]["timings"]["prompt_n"]
        system = self.turns(["/system Be kind", "hi"])[0]["timings"]["prompt_n"]
        self.assertEqual(system - plain, len("system: Be kind."))
        read = self.turns([f"/read {path}", "hi"])[0]["timings"]["prompt_n"]
        self.assertEqual(read - plain, len("a note\n"))

    def test_three_quotes_hold_a_message_of_several_lines(self):
        turns = self.turns(['"""one', "two", 'three"""'])
        self.assertEqual(len(turns), 1)
        self.assertEqual(
            turns[0]["timings"]["prompt_n"], len("user: one.two.three.assistant: ")
        )

    def test_commands_tell_on_standard_error(self):
        self.chat(["/help", "/show", "hi", "/stats", "/verbose", "/think", "/nothink", "/bye", "no"])
        for text in ("/regen", "sampling", "tok/s", "evaluated"):
            self.assertIn(text, self.errors)

    def test_a_wrong_command_ends_a_script_with_its_reason(self):
        for line in ("/jump", "/undo", "/regen", "/stats", "/set temp hot", "/load /no/file"):
            with self.subTest(line):
                done = penstock("chat", MODEL.path, stdin=line + "\n")
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(b"penstock: ", done.stderr)

    def test_the_end_of_the_conversation_is_the_end_of_the_context(self):
        output = self.chat(
            ["x" * 440, "y"], "--json", "--greedy", "-c", "480", "-n", "0", code=2
        )
        answer, error = (json.loads(line) for line in output.splitlines())
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(error["error"]["code"], "invalid_argument")
        self.assertIn("--context", self.errors)


def chat_on_terminal(*arguments, **variables):
    return Terminal("chat", MODEL.path, "--greedy", *arguments, **variables)


class OnATerminal(unittest.TestCase):
    def test_ctrl_d_leaves(self):
        chat = chat_on_terminal()
        chat.wait_for(">>> ")
        chat.type("\x04")
        self.assertEqual(chat.end(), 0)

    def test_a_line_is_edited_and_answered(self):
        chat = chat_on_terminal("-n", "4", "--verbose")
        chat.wait_for(">>> ")
        chat.type("/sett\x7f\x7f\x7f\x7fhelp\r")
        chat.wait_for("/regen")
        chat.wait_for(">>> ")
        chat.type("hé\r")
        chat.wait_for("answer 4 tokens")
        chat.wait_for(">>> ")
        chat.type("/bye\r")
        self.assertEqual(chat.end(), 0)

    def test_ctrl_c_at_the_prompt_warns_once_then_leaves(self):
        chat = chat_on_terminal()
        chat.wait_for(">>> ")
        chat.type("half a line\x03")
        chat.wait_for("Ctrl-C again")
        chat.wait_for(">>> ")
        chat.type("\x03")
        self.assertEqual(chat.end(), 130)

    def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(self):
        chat = chat_on_terminal("--slots", "2", "--verbose")
        chat.wait_for(">>> ")
        chat.type("go\r")
        chat.wait_for("\n")
        time.sleep(0.1)
        chat.type("\x03")
        chat.wait_for(">>> ")
        chat.type("/bye\r")
        self.assertEqual(chat.end(), 0)

    def test_history_is_kept_for_the_owner_alone_unless_refused(self):
        state = MODEL.file("state")
        os.makedirs(state)
        history = os.path.join(state, "penstock", "history")
        for arguments, kept in ((("--no-history",), False), ((), True)):
            chat = chat_on_terminal(*arguments, XDG_STATE_HOME=state)
            chat.wait_for(">>> ")
            chat.type("/show\r")
            chat.wait_for("sampling")
            chat.wait_for(">>> ")
            chat.type("/bye\r")
            self.assertEqual(chat.end(), 0)
            self.assertEqual(os.path.exists(history), kept)
        self.assertEqual(stat.S_IMODE(os.stat(history).st_mode), 0o600)
        chat = chat_on_terminal(XDG_STATE_HOME=state)
        chat.wait_for(">>> ")
        chat.type("\x1b[A\x1b[A\r")  # up, up: /show
        chat.wait_for("context of")
        chat.wait_for(">>> ")
        chat.type("\x04")
        self.assertEqual(chat.end(), 0)

    def test_sigterm_restores_the_terminal_and_ends(self):
        chat = chat_on_terminal()
        chat.wait_for(">>> ")
        chat.process.send_signal(signal.SIGTERM)
        self.assertEqual(chat.end(), 130)


if __name__ == "__main__":
    unittest.main()
