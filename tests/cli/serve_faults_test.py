#!/usr/bin/env python3
"""What the server does with models that end no answer by themselves, or compute no numbers."""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from support import BINARY, TIMEOUT_S, Model, edit_json, environment, spoil

QUESTION = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 5, "temperature": 0}
END = 256  # <|end|>, with which the template ends a turn


def setUpModule():
    global MODEL
    MODEL = Model()


def tearDownModule():
    MODEL.remove()


class Served(unittest.TestCase):
    def serve(self, model):
        log = tempfile.TemporaryFile()
        self.addCleanup(log.close)
        process = subprocess.Popen([BINARY, "serve", model, "--port", "0", "--memory", "128M"],
                                   stderr=log, env=environment())
        self.addCleanup(self.stop, process)
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end and process.poll() is None:
            log.seek(0)
            found = re.search(rb"serving \S+ at (http\S+)", log.read())
            if found:
                self.address = found[1].decode()
                return log
            time.sleep(0.05)
        log.seek(0)
        raise AssertionError(log.read())

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(TIMEOUT_S), 0)

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


class Numbers(Served):
    def test_logits_that_are_no_numbers_fail_the_request_and_not_the_server(self):
        def change(source):
            spoil(os.path.join(source, "model.safetensors"), "post_attention_layernorm.weight")

        self.serve(MODEL.variant("nan", change))
        for path, body in (("/v1/chat/completions", QUESTION),
                           ("/v1/completions", {"prompt": "abc", "max_tokens": 5}),
                           ("/v1/completions", {"prompt": "abc", "max_tokens": 0, "echo": True, "logprobs": 1})):
            with self.subTest(body):
                status, answer = self.ask(path, body)
                self.assertEqual(status, 500, answer)
                self.assertIn("not all numbers", answer)
        self.assertEqual(self.ask("/v1/models")[0], 200)
        end = time.monotonic() + TIMEOUT_S  # counted after their answers were sent
        while self.failed() < 3 and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(self.failed(), 3)

    def failed(self):
        return int(re.search(r"^\S*failed_total (\d+)$", self.ask("/metrics")[1], re.MULTILINE)[1])


class Ends(Served):
    def forced(self):
        """An answer whose every token would be the template's end of a turn."""
        return {**QUESTION, "logit_bias": {str(END): 100}}

    def test_the_templates_end_of_a_turn_ends_an_answer_where_no_file_names_it(self):
        def change(source):
            os.remove(os.path.join(source, "generation_config.json"))
            edit_json(os.path.join(source, "config.json"), lambda j: j.pop("eos_token_id", None))

        self.serve(MODEL.variant("endless", change))
        status, answer = self.ask("/v1/chat/completions", self.forced())
        self.assertEqual(status, 200, answer)
        choice = json.loads(answer)["choices"][0]
        self.assertEqual((choice["finish_reason"], choice["message"]["content"] or ""), ("stop", ""))

    def test_what_any_file_names_ends_an_answer(self):
        def change(source):
            os.remove(os.path.join(source, "generation_config.json"))
            edit_json(os.path.join(source, "config.json"), lambda j: j.update(eos_token_id=7))

        self.serve(MODEL.variant("config", change))
        for bias in (7, END):
            body = {**QUESTION, "logit_bias": {str(bias): 100}}
            choice = json.loads(self.ask("/v1/chat/completions", body)[1])["choices"][0]
            self.assertEqual(choice["finish_reason"], "stop")
        text = {"prompt": "abc", "max_tokens": 5, "logit_bias": {"7": 100}}
        self.assertEqual(json.loads(self.ask("/v1/completions", text)[1])["choices"][0]["finish_reason"], "stop")

    def test_a_model_without_any_end_is_told_at_the_start(self):
        def change(source):
            os.remove(os.path.join(source, "generation_config.json"))
            edit_json(os.path.join(source, "config.json"), lambda j: j.pop("eos_token_id", None))
            with open(os.path.join(source, "chat_template.jinja"), "w", encoding="utf-8") as f:
                f.write("{% for m in messages %}{{ m.content }}{% endfor %}")

        log = self.serve(MODEL.variant("none", change))
        log.seek(0)
        self.assertIn(b"no token that ends an answer", log.read())


if __name__ == "__main__":
    unittest.main()
