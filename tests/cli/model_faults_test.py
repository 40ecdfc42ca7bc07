#!/usr/bin/env python3
"""What is in a model's files: ends that nobody names, logits that are no numbers, texts and targets that pack
judges before it writes, texts that no budget holds. The kinds and their tests are listed in tests/README.md."""

import json
import os
import shutil
import stat
import subprocess
import unittest

from faults_case import MODEL, folder, ids_file, path, setUpModule, tearDownModule  # noqa: F401
from support import BINARY, IS_SANITIZED, TIMEOUT_S, environment, good, good_json, penstock, remove_ends, spoil


class Ends(unittest.TestCase):
    """Answers end where any file of the checkpoint says so."""

    def test_a_checkpoint_that_names_no_end_is_told_at_the_start(self):
        def change(source):
            remove_ends(source)
            with open(os.path.join(source, "chat_template.jinja"), "w", encoding="utf-8") as f:
                f.write("{% for m in messages %}{{ m.content }}{% endfor %}")

        model = MODEL.variant("endless", change)
        done = penstock("run", model, "-p", "a", "-n", "2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"no token that ends an answer", done.stderr)
        self.assertIn(b"no token that ends an answer", penstock("chat", model, stdin="").stderr)

    def test_logits_that_are_no_numbers_end_every_verb_with_an_error(self):
        def change(source):
            spoil(os.path.join(source, "model.safetensors"), "post_attention_layernorm.weight")

        model = MODEL.variant("nan", change)
        texts = MODEL.file("texts.jsonl", '{"id": 1, "text": "some words"}\n')
        items = MODEL.file("items.jsonl", '{"id": 1, "messages": [{"role": "user", "content": "a"}]}\n')
        for arguments in (
            ("run", model, "-p", "a", "-n", "5"),
            ("run", model, "--chat", "-p", "a", "-n", "5"),
            ("score", model, "--texts", texts),
            ("answer", model, "--items", items, "-n", "5"),
            ("logits", model, "--ids", ids_file(), "-o", path("nan.safetensors")),
        ):
            with self.subTest(arguments[0]):
                done = penstock(*arguments)
                self.assertEqual(done.returncode, 3, done.stderr)
                self.assertIn(b"not all numbers", done.stderr)
        chat = penstock("chat", model, stdin="hello\n")
        self.assertEqual(chat.returncode, 3, chat.stderr)


class Judged(unittest.TestCase):
    """Nothing is found out after hours: texts and targets are judged before a byte is written."""

    LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"

    def source(self, name, **files):
        """A copy of the checkpoint; files: NAME=text, or None to leave it out."""
        copy = path("judged-" + name)
        shutil.copytree(MODEL.source, copy)
        for file, content in files.items():
            file = os.path.join(copy, file.replace("_json", ".json").replace("_jinja", ".jinja"))
            if content is None:
                os.remove(file)
            else:
                with open(file, "w", encoding="utf-8") as f:
                    f.write(content)
        return copy

    def pack(self, source, *arguments):
        return penstock("pack", source, source + ".packed", "--experts", "keep", *arguments)

    def test_what_run_could_not_use_is_refused_and_nothing_is_left_behind(self):
        for name, files, reason in (
            ("lfs", {"tokenizer_json": self.LFS}, "Git LFS pointer"),
            ("html", {"tokenizer_json": "<!DOCTYPE html><html></html>"}, "HTML page"),
            ("half", {"tokenizer_json": '{"model": {"type": "BPE"'}, "tokenizer.json"),
            ("empty", {"tokenizer_json": ""}, "empty"),
            ("generation-lfs", {"generation_config_json": self.LFS}, "Git LFS pointer"),
            ("generation-half", {"generation_config_json": "{"}, "generation_config.json"),
            ("template-lfs", {"chat_template_jinja": self.LFS}, "Git LFS pointer"),
        ):
            with self.subTest(name):
                source = self.source(name, **files)
                before = sorted(os.listdir(folder()))
                done = self.pack(source)
                self.assertEqual(done.returncode, 3, done.stderr)
                self.assertIn(reason, done.stderr.decode())
                self.assertEqual(sorted(os.listdir(folder())), before)
                self.assertIn(reason, good("show", source))

    def test_what_only_takes_something_away_is_told(self):
        for name, files, reason in (
            ("no-tokenizer", {"tokenizer_json": None}, "no tokenizer.json"),
            ("template", {"chat_template_jinja": "{% for %}"}, "no chat with this model"),
            ("call", {"chat_template_jinja": "{{ messages[0].content }}{{ nowhere(1) }}"}, "does not take a plain question"),
            ("method", {"chat_template_jinja": "{{ messages[0].content.nowhere() }}"}, "does not take a plain question"),
            ("tools", {"chat_template_jinja": "{% if tools %}{{ tools.nowhere() }}{% endif %}a"}, "does not take tools"),
            ("system", {"chat_template_jinja": "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}a"},
             "does not take a system message"),
            ("range", {"generation_config_json": '{"do_sample": true, "top_p": 7, "temperature": "hot"}'}, "top_p"),
            ("end", {"generation_config_json": '{"eos_token_id": 99999999}'}, "eos_token_id"),
        ):
            with self.subTest(name):
                source = self.source(name, **files)
                done = self.pack(source)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn(reason, done.stderr.decode())
                for shown in (source, source + ".packed"):
                    self.assertIn(reason, good("show", shown))
                    self.assertTrue(any(reason in n for n in good_json("show", shown)["notes"]))

    def test_settings_that_others_write_do_not_block_a_model(self):
        for number, settings in enumerate((
            '{"do_sample": true, "top_k": -1}', '{"do_sample": true, "top_k": 0}', '{"do_sample": null}',
            '{"temperature": null, "top_p": null}', '{"do_sample": true, "temperature": 900}',
            '{"repetition_penalty": 0}', '{"top_k": 1.5e9}', '{"do_sample": "yes"}', "{}",
        )):
            with self.subTest(settings):
                source = self.source(f"settings-{number}", generation_config_json=settings)
                self.assertEqual(self.pack(source).returncode, 0)
                good("run", source + ".packed", "-p", "a", "-n", "1")
                good("run", source + ".packed", "-p", "a", "-n", "1", "--top-k", "20", "--temp", "1")

    def test_a_packed_model_is_no_source(self):
        done = penstock("pack", MODEL.path, path("twice"))
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(b"is a penstock model already", done.stderr)
        self.assertFalse(os.path.exists(path("twice")))

    def test_targets_that_cannot_be_are_refused_at_once(self):
        source = self.source("targets")
        with open(path("a-file"), "w", encoding="utf-8") as f:
            f.write("mine")
        before = sorted(os.listdir(folder()))
        for target in ("", "/", ".", "..", path(".."), path("a-file"), path("a-file") + "/x", "/dev/null",
                       path("n" * 300)):
            for more in ((), ("--force",)):
                with self.subTest((target, more)):
                    done = penstock("pack", source, target, *more)
                    self.assertIn(done.returncode, (2, 3, 5), done.stderr)
                    self.assertEqual(sorted(os.listdir(folder())), before)
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))

    def test_a_target_that_is_a_link_is_what_it_leads_to(self):
        source = self.source("linked")
        os.makedirs(path("elsewhere"))
        os.symlink(path("elsewhere/model"), path("link to a model"))
        for more in ((), ("--force",)):
            done = penstock("pack", source, path("link to a model"), "--experts", "keep", *more)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(os.path.islink(path("link to a model")))
            self.assertEqual(os.listdir(path("elsewhere")), ["model"])
        good("run", path("link to a model"), "-p", "a", "-n", "1")
        good("pack", source, path("elsewhere/with slash///"), "--experts", "keep")
        self.assertTrue(os.path.isfile(path("elsewhere/with slash/penstock.json")))


@unittest.skipIf(IS_SANITIZED, "sanitizers need memory of their own")
class LargeText(unittest.TestCase):
    """Text is part of the budget: what fits into no context is refused before it is held."""

    def peak_and_errors(self, *arguments, stdin=b""):
        done = subprocess.run(["/usr/bin/env", "python3", "-c", PEAK, BINARY, *map(str, arguments)], input=stdin,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
                              timeout=TIMEOUT_S, check=True)
        code, peak = map(int, done.stdout.split()[-2:])
        return code, peak << 10, done.stderr

    def test_prompts_by_every_way(self):
        file = MODEL.file("large.txt", "word " * (20 << 20))
        with open(file, "rb") as f:
            text = f.read()
        for arguments, stdin in ((("-f", file), b""), (("--chat", "-f", file), b""), ((), text)):
            with self.subTest(arguments):
                code, peak, errors = self.peak_and_errors("run", MODEL.path, "-n", "1", *arguments, stdin=stdin)
                self.assertEqual(code, 2, errors)
                self.assertIn(b"longer than", errors)
                self.assertLess(peak, 64 << 20)

    def test_the_advice_works(self):
        text = path("long.txt")
        with open(text, "w", encoding="utf-8") as f:
            f.write("x" * (1 << 20))
        for context, larger in ((512, True), (4096, False)):  # the model has no more
            done = penstock("run", MODEL.path, "-f", text, "-c", context)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(b"shorten it", done.stderr)
            self.assertEqual(b"--context" in done.stderr, larger, done.stderr)

    def test_a_text_that_fits_is_not_refused(self):
        good("run", MODEL.path, "-n", "1", "-f", MODEL.file("fits.txt", "a" * 4000))


PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


if __name__ == "__main__":
    unittest.main()
