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

    def test_commands_take_nothing_that_they_do_not_know(self):
        for typed in ("/think maybe", "/help me", "/clear all", "/undo 2", "/bye bye", "/stats x"):
            self.chat([typed], code=2)
            self.assertIn("takes nothing behind it", self.errors)

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

    def test_commands_answer_also_where_it_is_quiet(self):
        self.chat(["/help", "/show"], "-q")
        self.assertIn("/regen", self.errors)
        self.assertIn("context of", self.errors)
        self.assertNotIn("budget of", self.chat(["/clear"], "-q").decode() + self.errors)

    def test_a_message_may_begin_with_a_slash(self):
        slashed, path, plain = (self.turns([line])[0] for line in ("//x y", "/x/y z", "/x/y z"))
        self.assertEqual(path["token_ids"], plain["token_ids"])
        self.assertEqual(slashed["timings"]["prompt_n"], len("user: /x y.assistant: "))
        self.assertEqual(path["timings"]["prompt_n"], len("user: /x/y z.assistant: "))

    def test_a_slip_of_a_command_is_told_with_what_was_meant(self):
        for typed, meant in (("/hlep", "/help"), ("/sav x", "/save"), ("/regenn", "/regen")):
            self.chat([typed], code=2)
            self.assertIn(f"did you mean {meant}?", self.errors)

    def test_a_slip_of_a_setting_is_told_with_what_was_meant(self):
        for typed, meant in (("tempp", "temp"), ("top_k", "top-k"), ("max-token", "max-tokens")):
            self.chat([f"/set {typed} 1"], code=2)
            self.assertIn(f"did you mean {meant}?", self.errors)

    def test_conversations_of_others_are_loaded(self):
        user = {"role": "user", "content": "hello"}
        call = {"role": "assistant", "content": None,
                "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}
        parts = {"role": "user", "content": [{"type": "text", "text": "look"}]}
        answer = {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
        for content, count in (
            ([user, answer], 2),
            ({"messages": [user, answer]}, 2),
            ({"model": "x", "messages": [{"role": "system", "content": "s"}, user, answer]}, 2),
            ({"messages": [user, call, {"role": "tool", "content": "1"}], "tools": [{"type": "function"}]}, 3),
            ({"messages": [parts, {"role": "assistant"}]}, 2),
            ({"messages": []}, 0),
            ({"system": None, "messages": [user]}, 1),
        ):
            with self.subTest(content):
                file = MODEL.file("load.json", json.dumps(content))
                again = MODEL.file("again.json")
                self.chat([f"/load {file}", f"/save {again}", f"/load {again}"])
                self.assertEqual(self.errors.count(f"{count} messages\n"), 2, self.errors)

    def test_what_is_no_conversation_is_refused(self):
        for content in ('{"messages": 5}', "5", '[{"content": "x"}]', '[5]', '[{"role": "user", "content": 5}]',
                        '[{"role": 5, "content": "x"}]', "{", ""):
            with self.subTest(content):
                file = MODEL.file("load.json", content)
                done = penstock("chat", MODEL.path, stdin=f"/load {file}\n")
                self.assertIn(done.returncode, (2, 3), done.stderr)

    def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(self):
        marked, plain = (self.turns([line])[0] for line in ("\ufeffhello", "hello"))
        self.assertEqual(marked["timings"]["prompt_n"], plain["timings"]["prompt_n"])

    def test_a_line_that_fits_into_no_context_is_refused_before_it_is_held(self):
        done = penstock("chat", MODEL.path, "-c", 64, stdin="x" * (1 << 22) + "\n")
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"longer than", done.stderr)

    def test_advice_about_a_long_prompt_is_advice_that_works(self):
        self.chat(["x" * 5000], code=2)
        self.assertIn("shorten it", self.errors)
        self.assertNotIn("--context", self.errors)
        self.chat(["x" * 600], "-c", "480", code=2)
        self.assertRegex(self.errors, "give --context 6\\d\\d or more")

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

    def test_a_paste_is_one_message_whatever_lines_it_has(self):
        for end in ("\r", "\n", "\r\n"):
            chat = chat_on_terminal("-n", "1", "--verbose")
            chat.wait_for("\x1b[?2004h")
            pasted = end.join(["one", "", "\ttwo", "three\x01\x1b"]) + end
            chat.type(f"\x1b[200~{pasted}\x1b[201~")
            time.sleep(0.3)
            chat.type("!\r")
            chat.wait_for("prompt ")
            self.assertEqual(int(chat.wait_for(" tokens").split()[-1]),
                             len("user: one\n\n\ttwo\nthree\n!.assistant: "), repr(end))
            chat.wait_for(">>> ")
            chat.type("\x04")
            self.assertEqual(chat.end(), 0)

    def test_a_paste_in_pieces_is_still_one(self):
        chat = chat_on_terminal("-n", "1", "--verbose")
        chat.wait_for(">>> ")
        for piece in ("\x1b", "[20", "0~a\r", "b", "\rc\x1b[2", "01~"):
            chat.type(piece)
            time.sleep(0.005)
        chat.type("\r")
        chat.wait_for("prompt ")
        self.assertEqual(int(chat.wait_for(" tokens").split()[-1]), len("user: a\nb\nc.assistant: "))
        chat.wait_for(">>> ")
        chat.type("\x04")
        self.assertEqual(chat.end(), 0)

    def test_a_pasted_command_with_lines_is_a_message(self):
        chat = chat_on_terminal("-n", "1", "--verbose")
        chat.wait_for(">>> ")
        chat.type("\x1b[200~/bye\rx\x1b[201~\r")
        chat.wait_for("answer 1 tokens")
        chat.wait_for(">>> ")
        chat.type("\x04")
        self.assertEqual(chat.end(), 0)

    def test_ctrl_d_typed_during_an_answer_leaves_after_it(self):
        chat = chat_on_terminal("--slots", "2", "-n", "40", "--verbose")
        chat.wait_for(">>> ")
        chat.type("go\r")
        chat.wait_for("\n")
        time.sleep(0.05)
        chat.type("\x04")
        self.assertEqual(chat.end(), 0)

    def test_a_paste_during_an_answer_is_one_message_after_it(self):
        for begin, last in (("\x1b[200~", "\x1b[201~\r"), ("", "\r")):
            for end in ("\r", "\r\n") if begin else ("\r\n",):
                chat = chat_on_terminal("--slots", "2", "-n", "40", "--verbose")
                chat.wait_for(">>> ")
                chat.type("go\r")
                chat.wait_for("\n")
                time.sleep(0.05)
                pasted = end.join(["one", "two"]) if begin else "one"
                chat.type(begin + pasted + last)
                self.assertNotIn("one", chat.wait_for(">>> "))  # it is not written into the answer
                chat.wait_for(">>> ")
                file = MODEL.file("kept.json")
                chat.type(f"/save {file}\r")
                chat.wait_for("saved")
                with open(file, encoding="utf-8") as f:
                    messages = json.load(f)["messages"]
                self.assertEqual([m["role"] for m in messages], ["user", "assistant"] * 2)
                self.assertEqual(messages[2]["content"], "one\ntwo" if begin else "one")
                chat.wait_for(">>> ")
                chat.type("\x04")
                self.assertEqual(chat.end(), 0)

    def test_after_a_stop_the_prompt_is_drawn_again(self):
        chat = chat_on_terminal()
        chat.wait_for(">>> ")
        chat.type("half")
        chat.wait_for("half")
        chat.process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        chat.process.send_signal(signal.SIGCONT)
        chat.wait_for("half")
        chat.type("\x15\x04")
        self.assertEqual(chat.end(), 0)

    def test_keys_in_all_their_spellings(self):
        for home in ("\x1b[H", "\x1b[1~", "\x1b[7~", "\x1bOH"):
            for last in ("\x1b[F", "\x1b[4~", "\x1b[8~", "\x1bOF"):
                self.edits("elp" + home + "/h" + last, "/help")
        for left in ("\x1b[1;5D", "\x1b[5D", "\x1bOd", "\x1b[1;3D"):
            self.edits("help" + left + "/", "/help")
        for right in ("\x1b[1;5C", "\x1b[5C", "\x1bOc", "\x1b[1;3C"):
            self.edits("/hel" + "\x01" + right + "p", "/help")
        self.edits("x/help\x01\x1b[3~", "/help")
        for left in ("\x1b[D", "\x1bOD", "\x1b[1;2D", "\x1b[d"):
            self.edits("/hlp" + 2 * left + "e", "/help")

    def test_keys_that_mean_nothing_leave_no_text(self):
        for key in ("\x1b[15~", "\x1b[24~", "\x1b[25;2~", "\x1b[I", "\x1b[O", "\x1b[97;5u", "\x1b[<0;3;4M", "\x1b[[A",
                    "\x1b[[B", "\x1b[1;2P", "\x1b[201~", "\x1b[?1;2c", "\x1b[?A", "\x1b[2~"):
            self.edits("/hel" + key + "p", "/help")

    def edits(self, typed, expected):
        with self.subTest(typed):
            if not hasattr(self, "chat"):
                self.chat = chat_on_terminal()
                self.chat.wait_for(">>> ")
                self.addCleanup(self.chat.end)
                self.addCleanup(self.chat.type, "\x15\x04")
            self.chat.type(typed + "\r")
            self.chat.wait_for("/regen")
            self.chat.wait_for(">>> ")

    def test_histories_of_chats_side_by_side_are_all_kept(self):
        state = MODEL.file("both")
        os.makedirs(state)
        chats = [chat_on_terminal("-n", "1", XDG_STATE_HOME=state) for _ in range(2)]
        for name, chat in zip(("one", "two"), chats):
            chat.wait_for(">>> ")
            chat.type(f"/system {name}\r")
            chat.wait_for("set")
            chat.wait_for(">>> ")
        for chat in chats:
            chat.type("\x04")
            self.assertEqual(chat.end(), 0)
        with open(os.path.join(state, "penstock", "history"), encoding="utf-8") as f:
            text = f.read()
        self.assertIn("one", text)
        self.assertIn("two", text)

    def test_a_closed_window_keeps_the_history(self):
        state = MODEL.file("window")
        os.makedirs(state)
        chat = chat_on_terminal(XDG_STATE_HOME=state)
        chat.wait_for(">>> ")
        chat.type("/system kept\r")
        chat.wait_for("set")
        chat.wait_for(">>> ")
        os.close(chat.master)
        self.assertEqual(chat.process.wait(timeout=60), 130)
        with open(os.path.join(state, "penstock", "history"), encoding="utf-8") as f:
            self.assertIn("kept", f.read())

    def test_a_window_that_closes_during_an_answer_is_an_interruption(self):
        chat = chat_on_terminal("--slots", "2", "-n", "400")
        chat.wait_for(">>> ")
        chat.type("go\r")
        chat.wait_for("\n")
        time.sleep(0.1)
        os.close(chat.master)
        self.assertEqual(chat.process.wait(timeout=60), 130)

    def test_sigterm_restores_the_terminal_and_ends(self):
        chat = chat_on_terminal()
        chat.wait_for(">>> ")
        chat.process.send_signal(signal.SIGTERM)
        self.assertEqual(chat.end(), 130)


if __name__ == "__main__":
    unittest.main()
