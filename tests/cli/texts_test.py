#!/usr/bin/env python3
"""What a model can be given after packing: texts replaced for good, a template for one call, ids; and
what a plan says of the verbs that will run it."""

import os
import shutil
import signal
import subprocess
import unittest

from support import BINARY, TIMEOUT_S, Model, digest_of_folder, environment, good, good_json, penstock

LOUD = "{% for m in messages %}{{ m.content | upper }}{% endfor %}<|end|>"
TEXTS = ("tokenizer.json", "generation_config.json", "chat_template.jinja")


def setUpModule():
    global MODEL
    MODEL = Model()


def tearDownModule():
    MODEL.remove()


def edit(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


class Fixture(unittest.TestCase):
    def setUp(self):
        self.model = os.path.join(MODEL.folder, self.id().rsplit(".", 1)[1])
        shutil.copytree(MODEL.path, self.model)
        self.folder = self.model + ".texts"
        os.makedirs(self.folder)

    def refused(self, code, *arguments):
        done = penstock(*arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stderr.decode()


class Replaced(Fixture):
    def test_a_template_alone_is_taken_over_and_all_else_stays(self):
        before = digest_of_folder(self.model)
        edit(os.path.join(self.folder, "chat_template.jinja"), LOUD)
        told = good_json("pack", "--texts", self.folder, self.model)
        self.assertEqual(told["replaced"], ["chat_template.jinja"])
        after = digest_of_folder(self.model)
        changed = {name for name in after if after[name] != before.get(name)}
        self.assertEqual(changed, {"chat_template.jinja", "penstock.json"})
        self.assertEqual(set(after), set(before))
        good("pack", "--verify", self.model)
        good("run", self.model, "--chat", "-p", "abc", "-n", "1")
        self.assertEqual(good_json("pack", "--texts", self.folder, self.model)["replaced"], [])
        self.assertEqual(digest_of_folder(self.model), after)

    def test_texts_that_were_edited_in_the_model_become_its_own(self):
        for text in (LOUD, LOUD.replace("upper", "lower")):  # another size, then another content
            edit(os.path.join(self.model, "chat_template.jinja"), text)
            self.assertIn("pack --texts", self.refused(3, "run", self.model, "--chat", "-p", "a", "-n", "1"))
            good("pack", "--texts", self.model, self.model)
            good("run", self.model, "--chat", "-p", "a", "-n", "1")
            good("pack", "--verify", self.model)

    def test_a_text_that_the_model_never_had(self):
        name = "tokenizer_config.json"
        self.assertFalse(os.path.exists(os.path.join(self.model, name)))
        edit(os.path.join(self.folder, name), '{"eos_token": "<|end|>"}')
        self.assertEqual(good_json("pack", "--texts", self.folder, self.model)["replaced"], [name])
        good("pack", "--verify", self.model)

    def test_what_run_could_not_use_is_refused_and_changes_nothing(self):
        before = digest_of_folder(self.model)
        for name, text, reason in (
            ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "LFS"),
            ("tokenizer.json", "{", "tokenizer.json"),
            ("generation_config.json", "{", "generation_config.json"),
        ):
            with self.subTest((name, text)):
                edit(os.path.join(self.folder, name), text)
                self.assertIn(reason, self.refused(3, "pack", "--texts", self.folder, self.model))
                self.assertEqual(digest_of_folder(self.model), before)
                os.remove(os.path.join(self.folder, name))
        self.refused(3, "pack", "--texts", self.folder, self.model)  # nothing in it
        self.refused(3, "pack", "--texts", self.model, self.folder)  # no model
        self.refused(2, "pack", "--texts", self.model)
        self.assertEqual(digest_of_folder(self.model), before)

    def test_the_configuration_stays(self):
        for name in TEXTS:
            shutil.copy(os.path.join(MODEL.source, name), self.folder)
        edit(os.path.join(self.folder, "config.json"), "{}")
        before = digest_of_folder(self.model)
        self.assertEqual(good_json("pack", "--texts", self.folder, self.model)["replaced"], [])
        self.assertEqual(digest_of_folder(self.model), before)


class ForOneCall(Fixture):
    def test_every_verb_that_renders_takes_a_template(self):
        template = os.path.join(self.folder, "loud.jinja")
        edit(template, "{{ raise_exception('it was rendered') }}")
        items = os.path.join(self.folder, "items.jsonl")
        edit(items, '{"id": 1, "messages": [{"role": "user", "content": "a"}]}\n')
        given = ("--chat-template-file", template)
        for arguments in (("run", self.model, "--chat", "-p", "a", *given),
                          ("answer", self.model, "--items", items, *given)):
            self.assertIn("it was rendered", self.refused(2, *arguments))
        chat = penstock("chat", self.model, *given, stdin="a\n")
        self.assertIn(b"it was rendered", chat.stderr)

    def test_it_is_the_same_as_a_model_that_has_it(self):
        template = os.path.join(self.folder, "chat_template.jinja")
        edit(template, LOUD)
        asked = ("--chat", "-p", "abc", "-n", "4", "--greedy")
        given = good("run", self.model, *asked, "--chat-template-file", template)
        self.assertNotEqual(good("run", self.model, *asked), given)
        good("pack", "--texts", self.folder, self.model)
        self.assertEqual(good("run", self.model, *asked), given)

    def test_a_template_that_is_none_is_refused_at_the_start(self):
        template = os.path.join(self.folder, "broken.jinja")
        edit(template, "{% for %}")
        error = self.refused(3, "chat", self.model, "--chat-template-file", template)
        self.assertIn("broken.jinja", error)
        self.refused(3, "chat", self.model, "--chat-template-file", template + ".not")


class PlanOfAVerb(Fixture):
    def test_the_floors_are_those_of_the_verbs(self):
        told = good_json("plan", self.model, "--memory", "64M")
        floors = told["memory_min_bytes_of"]
        self.assertEqual(told["memory_min_bytes"], floors["run"])
        self.assertLess(floors["run"], floors["chat"])
        self.assertLess(floors["chat"], floors["serve"])
        more = good_json("plan", self.model, "--memory", "64M", "--for", "serve", "--parallel", "4")
        self.assertLess(floors["serve"], more["memory_min_bytes"])
        self.assertIn("smallest budgets: run ", good("plan", self.model, "--memory", "64M"))

    def test_a_template_for_one_call_counts(self):
        template = os.path.join(self.folder, "long.jinja")
        edit(template, "{{ 'a' }}" * 8_000)
        floor, more = (good_json("plan", self.model, *given)["memory_min_bytes_of"]["run"]
                       for given in ((), ("--chat-template-file", template)))
        self.assertGreater(more, floor + 8_000 * 300)

    def test_the_verbs_start_at_their_floors_and_not_below(self):
        kept = ("--kv-dir", self.model + ".kv")
        for verb, arguments, stdin, options in (
            ("run", ("-p", "a", "-n", "1"), "", ()),
            ("run", ("-p", "a", "-n", "1"), "", ("--context", "256", "--threads", "3")),
            ("chat", ("-n", "1"), "a\n", ()),
            ("chat", ("-n", "1"), "a\n", ("--context", "300", *kept)),
        ):
            with self.subTest((verb, options)):
                floor = self.floor(verb, *options)
                at = penstock(verb, self.model, "--memory", floor, *arguments, *options, stdin=stdin)
                self.assertEqual(at.returncode, 0, at.stderr)
                below = penstock(verb, self.model, "--memory", floor - 1, *arguments, *options, stdin=stdin)
                self.assertEqual(below.returncode, 4, below.stderr)
                self.assertIn(f"give --memory {floor} or more", below.stderr.decode())

    def test_a_server_starts_at_its_floor_and_not_below(self):
        kept = ("--kv-dir", self.model + ".kv")
        for options in ((), kept, ("--parallel", "3"), ("--parallel", "2", "--context", "256", *kept)):
            with self.subTest(options):
                floor = self.floor("serve", *options)
                self.assertIn(b"serving ", self.served("--memory", floor, *options))
                below = penstock("serve", self.model, "--port", 0, "--memory", floor - 1, *options)
                self.assertEqual(below.returncode, 4, below.stderr)

    def test_what_is_kept_on_disk_costs_memory_that_the_plan_knows(self):
        kept = ("--kv-dir", self.model + ".kv")
        for verb in ("chat", "serve"):
            self.assertEqual(self.floor(verb, *kept) - self.floor(verb), 24 << 20)
        self.assertEqual(self.floor("run", *kept), self.floor("run"))
        self.assertFalse(os.path.exists(self.model + ".kv"))
        variable = environment(PENSTOCK_KV_DIR=self.model + ".kv")
        told = good_json("plan", self.model, "--memory", "1G", env=variable)["memory_min_bytes_of"]
        self.assertEqual(told["serve"], self.floor("serve", *kept))

    def floor(self, verb, *options):
        return good_json("plan", self.model, "--memory", "1G", "--for", verb, *options)["memory_min_bytes"]

    def served(self, *options):
        """What a server says until it serves, or ends."""
        server = subprocess.Popen(
            [BINARY, "serve", self.model, "--port", "0", *map(str, options)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        told = b""
        for line in server.stderr:
            told += line
            if b"serving " in line:
                break
        server.send_signal(signal.SIGTERM)
        told += server.communicate(timeout=TIMEOUT_S)[1]
        return told


class Ids(Fixture):
    def test_more_ids_than_fit_are_refused_before_they_are_held(self):
        ids = os.path.join(self.folder, "ids.json")
        for text in ("[" + "1," * 3000 + "1]", "[" + " " * (4 << 20) + "1]"):
            edit(ids, text)
            for arguments in (("run", "-n", "1"), ("logits", "-o", ids + ".out")):
                error = self.refused(2, arguments[0], self.model, *arguments[1:], "--ids", ids, "--context", "512")
                self.assertIn("more than 512 token ids", error)
        edit(ids, "[" + ",\n        ".join(["1"] * 500) + "]")
        good("run", self.model, "-n", "1", "--ids", ids, "--context", "512")
        self.refused(2, "run", self.model, "-n", "1", "--ids", ids + ".not")


if __name__ == "__main__":
    unittest.main()
