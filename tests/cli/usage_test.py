#!/usr/bin/env python3
"""Flags, settings, exit codes and shapes of output that need no model."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import support
from support import environment, good, good_json, penstock

VERBS = "run chat serve pack pull ls rm show plan doctor bench synth logits score answer eval config completions version help".split()


class Usage(unittest.TestCase):
    def refused(self, code, *arguments, **options):
        """Expects the exit code and one line of error; returns the line."""
        done = penstock(*arguments, **options)
        text = done.stderr.decode()
        self.assertEqual(done.returncode, code, text)
        lines = [line for line in text.splitlines() if line.startswith("penstock: ")]
        self.assertEqual(len(lines), 1, text)
        return lines[0]

    def test_help_lists_every_verb_and_says_that_nothing_is_sent(self):
        text = good("--help")
        for verb in VERBS:
            self.assertIn(f"  {verb}", text)
        self.assertIn("no telemetry", text)

    def test_every_verb_explains_itself(self):
        for verb in VERBS:
            with self.subTest(verb):
                text = good("help", verb)
                self.assertTrue(text.startswith(f"penstock {verb}: "))
                self.assertEqual(text, good(verb, "--help"))
                self.assertIn("--json", text)
                self.assertLessEqual(max(map(len, text.splitlines())), 100)

    def test_no_verb_and_unknown_verb_are_usage_errors(self):
        self.assertIn("a verb is missing", self.refused(2))
        self.assertIn('no verb "walk"', self.refused(2, "walk"))
        self.assertIn("before the verb", self.refused(2, "--json", "run"))

    def test_unknown_flag_is_named(self):
        self.assertIn("--fast", self.refused(2, "run", "model", "--fast"))

    def test_flag_of_another_verb_is_refused(self):
        self.assertIn("--temp", self.refused(2, "plan", "model", "--temp", "1"))

    def test_missing_and_surplus_arguments_are_told(self):
        self.assertIn("needs MODEL", self.refused(2, "plan"))
        self.assertIn('unexpected "b"', self.refused(2, "plan", "a", "b"))

    def test_bad_values_name_flag_and_expectation(self):
        cases = [
            (("run", "m", "--temp", "hot"), "--temp", "a number from 0 to 5"),
            (("run", "m", "--temp", "7"), "--temp", "a number from 0 to 5"),
            (("run", "m", "--top-k", "1.5"), "--top-k", "a whole number"),
            (("run", "m", "--memory", "much"), "--memory", "number of bytes"),
            (("run", "m", "--memory", "0"), "--memory", "number of bytes"),
            (("run", "m", "--reader", "tape"), "--reader", "auto|uring|threads"),
            (("run", "m", "--verify", "maybe"), "--verify", "on or off"),
            (("run", "m", "--prefetch", "on"), "--prefetch", "auto|off"),
            (("run", "m", "--seed", "nan"), "--seed", "a whole number"),
        ]
        for arguments, flag, expectation in cases:
            with self.subTest(arguments):
                line = self.refused(2, *arguments)
                self.assertIn(flag, line)
                self.assertIn(expectation, line)

    def test_the_last_of_a_repeated_flag_wins(self):
        shown = good_json("config", "show", "--temp", "1", "--temp", "2")
        self.assertEqual(shown["verbs"]["run"]["temp"]["value"], "2")

    def test_missing_model_is_a_bad_model_and_named(self):
        for verb in ("run", "chat", "plan", "show"):
            with self.subTest(verb):
                self.assertIn("/no/such/model", self.refused(3, verb, "/no/such/model"))

    def test_errors_are_json_where_json_was_asked_for(self):
        for arguments, code in (
            (("plan", "/no/such/model", "--json"), "not_found"),
            (("plan", "--json"), "invalid_argument"),
            (("run", "m", "--fast", "--json"), "invalid_argument"),
        ):
            with self.subTest(arguments):
                done = penstock(*arguments)
                error = json.loads(done.stdout)["error"]
                self.assertEqual(error["code"], code)
                self.assertIn(error["message"], done.stderr.decode())

    def test_version_is_told(self):
        self.assertRegex(good("version"), r"^penstock \d+\.\d+\.\d+\n$")
        self.assertEqual(good("--version"), good("version"))
        self.assertIn("version", good_json("version"))

    def test_a_full_standard_output_is_an_error(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [support.BINARY, "help"], stdout=full, stderr=subprocess.PIPE, env=environment()
            )
        self.assertEqual(done.returncode, 4)
        self.assertIn(b"standard output", done.stderr)

    def test_a_closed_standard_output_ends_quietly(self):
        read_end, write_end = os.pipe()
        os.close(read_end)
        done = subprocess.run(
            [support.BINARY, "help"], stdout=write_end, stderr=subprocess.PIPE, env=environment()
        )
        os.close(write_end)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_colour_follows_the_environment(self):
        plain = penstock("plan")
        forced = penstock("plan", env=environment(CLICOLOR_FORCE="1"))
        refused = penstock("plan", env=environment(CLICOLOR_FORCE="1", NO_COLOR="1"))
        self.assertNotIn(b"\x1b", plain.stderr)
        self.assertIn(b"\x1b[31m", forced.stderr)
        self.assertNotIn(b"\x1b", refused.stderr)

    def test_there_is_a_manual_page_for_every_verb_without_a_bad_line(self):
        page = good("help", "--man")
        for verb in VERBS:
            self.assertIn(f"penstock\\-{verb}\\fR(1)", page)
        pages = [page, *(good("help", "--man", verb) for verb in VERBS)]
        for verb, page in zip(VERBS, pages[1:]):
            self.assertIn(f".SH NAME\npenstock\\-{verb} \\- ", page)
            self.assertIn("\\-\\-verbose", page)
        for page in pages if shutil.which("man") else []:
            checked = subprocess.run(
                ["man", "--warnings", "-l", "-"],
                input=page.encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**environment(), "MANPAGER": "cat"},
            )
            self.assertEqual(checked.stderr, b"")

    def test_completion_scripts_know_verbs_and_flags(self):
        for shell in ("bash", "zsh", "fish"):
            script = good("completions", shell)
            self.assertIn("max-tokens", script)
            self.assertNotIn("chunk-tokens", script)
        self.refused(2, "completions", "tcsh")
        checked = subprocess.run(["bash", "-n"], input=good("completions", "bash").encode())
        self.assertEqual(checked.returncode, 0)


class Configuration(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="penstock-config-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, text):
        os.makedirs(os.path.join(self.folder, "penstock"), exist_ok=True)
        path = os.path.join(self.folder, "penstock", "config.toml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def show(self, verb, *arguments, **variables):
        env = environment(XDG_CONFIG_HOME=self.folder, **variables)
        return good_json("config", "show", *arguments, env=env)["verbs"][verb]

    def refused(self, text, *arguments, **variables):
        self.write(text)
        env = environment(XDG_CONFIG_HOME=self.folder, **variables)
        done = penstock("chat", "/no/model", *arguments, env=env)
        self.assertEqual(done.returncode, 2, done.stderr)
        return done.stderr.decode()

    def test_flag_wins_over_environment_over_file_over_built_in(self):
        self.assertEqual(self.show("run")["memory"], {"value": "", "origin": "built-in"})
        path = self.write('# mine\nmemory = "1G"\n')
        self.assertEqual(
            self.show("run")["memory"], {"value": "1G", "origin": f"{path}:2"}
        )
        self.assertEqual(
            self.show("run", PENSTOCK_MEMORY="2G")["memory"],
            {"value": "2G", "origin": "PENSTOCK_MEMORY"},
        )
        self.assertEqual(
            self.show("run", "--memory", "3G", PENSTOCK_MEMORY="2G")["memory"],
            {"value": "3G", "origin": "--memory"},
        )

    def test_a_verbs_section_wins_over_the_general_part(self):
        self.write("temp = 0.1\n\n[chat]\ntemp = 0.2  # warmer\nverbose = true\n")
        self.assertEqual(self.show("run")["temp"]["value"], "0.1")
        self.assertEqual(self.show("chat")["temp"]["value"], "0.2")
        self.assertEqual(self.show("chat")["verbose"]["value"], "true")
        self.assertEqual(self.show("run")["verbose"]["value"], "")

    def test_config_flag_and_variable_name_another_file(self):
        path = os.path.join(self.folder, "other.toml")
        with open(path, "w", encoding="utf-8") as f:
            f.write("threads = 3\n")
        self.assertEqual(self.show("run", "--config", path)["threads"]["value"], "3")
        self.assertEqual(self.show("run", PENSTOCK_CONFIG=path)["threads"]["value"], "3")

    def test_a_named_file_that_is_missing_is_an_error(self):
        self.assertIn("/no/file", self.refused("", "--config", "/no/file"))

    def test_unknown_keys_and_sections_are_named_with_their_line(self):
        cases = [
            ("memry = 1\n", "config.toml:1", '"memry"'),
            ("\n[run]\nforce = true\n", "config.toml:3", '"force"'),
            ("[plan]\ntemp = 1\n", "config.toml:2", '"temp"'),
            ("[walk]\n", "config.toml:1", '"walk"'),
            ("temp = 1\ntemp = 2\n", "config.toml:2", "line 1"),
        ]
        for text, place, name in cases:
            with self.subTest(text):
                error = self.refused(text)
                self.assertIn(place, error)
                self.assertIn(name, error)

    def test_malformed_lines_are_refused(self):
        for line in ("temp", "temp = ", "temp = warm", 'system = "open', "[run", "a.b = 1",
                     'system = "x" y', "tools = [1]"):
            with self.subTest(line):
                self.assertIn("config.toml:1", self.refused(line + "\n"))

    def test_bad_values_name_their_place(self):
        self.assertIn("config.toml:1: temp", self.refused("temp = 9\n"))
        self.assertIn("PENSTOCK_TOP_P", self.refused("", PENSTOCK_TOP_P="2"))

    def test_strings_keep_their_escapes(self):
        self.write('system = "say \\"hi\\"\\n#1"\n')
        self.assertEqual(self.show("chat")["system"]["value"], 'say "hi"\n#1')

    def test_the_name_of_highway_for_the_target_is_understood(self):
        self.assertEqual(
            self.show("run", PENSTOCK_FORCE_TARGET="SSE4")["simd"],
            {"value": "SSE4", "origin": "PENSTOCK_FORCE_TARGET"},
        )


if __name__ == "__main__":
    unittest.main()
