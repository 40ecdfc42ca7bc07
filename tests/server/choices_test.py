"""Where the protocols leave a choice: what this server has chosen, sentence by sentence."""

import concurrent.futures
import json
import signal
import time
import unittest

from support import LONG, MODEL, Server, chat, user

QUESTION = "What is the capital of Portugal?"
LOOK = {"type": "function", "function": {"name": "look", "parameters": {
    "type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}}}


def off(text, **more):
    return chat(text, **{"reasoning_effort": "none", **more})


class ChoicesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--parallel", 4)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, cls.server.text()

    def answer(self, body, path="/v1/chat/completions", status=200):
        told, headers, answer = self.server.post(path, body)
        self.assertEqual(told, status, answer)
        self.headers = headers
        return answer

    def content(self, body):
        return self.answer(body)["choices"][0]["message"]["content"]

    def test_booleans_are_booleans_and_top_k_is_off_below_1(self):
        self.answer(off(QUESTION, stream=1, max_tokens=1), status=400)
        seeded = {"temperature": 1.0, "seed": 4, "max_tokens": 20}
        texts = {self.content(off("Tell me a story.", top_k=k, **seeded)) for k in (-1, 0, None)}
        self.assertEqual(len(texts), 1)
        self.answer(off(QUESTION, top_k=-2), status=400)

    def test_penalties_look_back_as_far_as_they_are_told(self):
        def said(**more):
            return self.content(off("Tell me a story.", max_tokens=60, **more))

        free = said()
        self.assertEqual(said(repeat_penalty=5, repeat_last_n=0), free)
        everything = said(repeat_penalty=5)
        self.assertEqual(said(repeat_penalty=5, repeat_last_n=-1), everything)
        self.assertEqual(said(repeat_penalty=5, repeat_last_n=1000), everything)
        self.assertNotIn(said(repeat_penalty=5, repeat_last_n=8), (free, everything))

    def test_the_seed_that_was_drawn_is_told_and_repeats_the_answer(self):
        body = off("Tell me a story.", temperature=1.3, max_tokens=30)
        first = self.answer(body)
        self.assertIsInstance(first["seed"], int)
        again = self.answer({**body, "seed": first["seed"]})
        self.assertEqual(again["choices"], first["choices"])
        self.assertNotEqual(self.answer(body)["seed"], first["seed"])

    def test_prompt_tokens_are_the_count_of_the_template(self):
        body = {"messages": [{"role": "system", "content": "Be kind."}, *user(QUESTION)], "tools": [LOOK]}
        count = self.answer(body, "/apply-template")["tokens"]
        self.assertEqual(self.answer({**body, "max_tokens": 1})["usage"]["prompt_tokens"], count)

    def test_a_last_answer_can_be_continued(self):
        messages = [*user(QUESTION), {"role": "assistant", "content": "The capital of"}]
        body = {"messages": messages, "temperature": 0, "continue_final_message": True, "add_generation_prompt": False}
        self.assertEqual(self.content(body), " Portugal is Lisbon.")
        self.answer({**body, "add_generation_prompt": True}, status=400)
        self.answer({**body, "messages": user(QUESTION)}, status=400)

    def test_a_constraint_that_the_free_answer_fits_changes_nothing(self):
        free = self.content(off(QUESTION))
        self.assertEqual(self.content(off(QUESTION, grammar="root ::= .*")), free)
        self.assertEqual(self.content(off(QUESTION, grammar='root ::= "The" [a-zA-Z .]*')), free)
        self.assertNotEqual(self.content(off(QUESTION, grammar='root ::= "In" [a-zA-Z .]{3,20}')), free)

    def test_keywords_are_obeyed_or_named(self):
        def form(schema):
            return off(QUESTION, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})

        refused = self.answer(form({"type": "object", "patternProperties": {}}), status=400)
        self.assertIn("patternProperties", refused["error"]["message"])
        tool = json.loads(json.dumps(LOOK))
        tool["function"]["parameters"].update({"$schema": "x", "patternProperties": {}})
        self.answer({**off(QUESTION, max_tokens=5), "tools": [tool]})
        self.assertIn("patternProperties", self.headers["X-Penstock-Ignored"])
        self.assertNotIn("$schema", self.headers["X-Penstock-Ignored"])

    def test_schemas_may_refer_to_themselves(self):
        schema = {"type": "object", "properties": {"child": {"$ref": "#"}, "name": {"type": "string", "maxLength": 8}},
                  "required": ["name"], "additionalProperties": False}
        body = off("Name a tree.", max_tokens=150, temperature=1.2, seed=5,
                   response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
        choice = self.answer(body)["choices"][0]
        if choice["finish_reason"] == "stop":
            self.assertIn("name", json.loads(choice["message"]["content"]))

    def test_a_call_that_is_cut_is_closed_or_dropped(self):
        for tokens in (5, 12, 17, 22, 30):
            body = {**off("Look at the river.", max_tokens=tokens, temperature=1.2, seed=tokens), "tools": [LOOK],
                    "tool_choice": "required"}
            whole = self.answer(body)["choices"][0]
            for call in whole["message"].get("tool_calls") or []:
                json.loads(call["function"]["arguments"])
            arguments = {}
            for event in self.server.stream("/v1/chat/completions", {**body, "stream": True}):
                if event == "[DONE]" or not event["choices"]:
                    continue
                for call in event["choices"][0]["delta"].get("tool_calls") or []:
                    arguments[call["index"]] = arguments.get(call["index"], "") + call["function"]["arguments"]
            told = [call["function"]["arguments"] for call in whole["message"].get("tool_calls") or []]
            self.assertEqual(list(arguments.values()), told)

    def test_a_late_system_message_is_for_responses_only(self):
        late = [*user(QUESTION), {"role": "system", "content": "Be brief."}]
        self.answer({"messages": late, "max_tokens": 1}, status=400)
        self.answer({"messages": [*user(QUESTION), {"role": "developer", "content": "x"}], "max_tokens": 1}, status=400)
        def read(messages):
            return self.answer({"input": messages, "max_output_tokens": 1}, "/v1/responses")["usage"]["input_tokens"]

        # Moved into the block of the system, as if it had stood there.
        self.assertEqual(read(late), read(late[::-1]))
        self.assertGreater(read(late), read(user(QUESTION)))

    def test_special_tokens_are_parsed_outside_of_contents_only(self):
        self.assertEqual(len(self.answer({"content": "<|im_end|>"}, "/tokenize")["tokens"]), 1)
        self.assertGreater(len(self.answer({"content": "<|im_end|>", "parse_special": False}, "/tokenize")["tokens"]), 1)
        raw = self.answer({"prompt": "<|im_end|>", "max_tokens": 0}, "/v1/completions")
        self.assertEqual(raw["usage"]["prompt_tokens"], 1)

    def test_bytes_read_of_requests_add_up_to_what_was_read(self):
        server = Server("--parallel", 3, memory="90M", context=512)
        try:
            def read(i):
                body = off(f"Tell me a story about number {i}.", max_tokens=20, temperature=1, seed=i)
                return server.post("/v1/chat/completions", body)[2]["timings"]["penstock"]["bytes_read"]

            before = server.metric("expert_bytes_read_total")
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                shares = list(pool.map(read, range(3)))
            server.wait_until_idle(5)
            total = server.metric("expert_bytes_read_total") - before
            self.assertTrue(all(share > 0 for share in shares))
            self.assertLessEqual(abs(sum(shares) - total), 0.02 * total + 3)
        finally:
            server.stop()

    def test_logprobs_are_the_models_own(self):
        def first(**more):
            return self.answer(off(QUESTION, max_tokens=1, logprobs=True, top_logprobs=5, **more)
                               )["choices"][0]["logprobs"]["content"][0]["top_logprobs"]

        plain = first()
        for more in ({"temperature": 2.0, "seed": 1}, {"presence_penalty": 2, "repeat_penalty": 5},
                     {"logit_bias": {"5": 50}}, {"grammar": 'root ::= "In" .*'}):
            self.assertEqual(first(**more), plain, more)

    def test_thinking_is_off_unless_asked_for(self):
        anthropic = self.answer({"messages": user(QUESTION), "max_tokens": 60, "temperature": 0}, "/v1/messages")
        self.assertEqual([block["type"] for block in anthropic["content"]], ["text"])
        ollama = self.answer({"messages": user(QUESTION), "stream": False, "model": "x"}, "/api/chat")
        self.assertFalse(ollama["message"].get("thinking"))

    def test_new_fields_of_clients_are_taken_or_named(self):
        self.answer({"messages": user(QUESTION), "max_tokens": 5, "output_config": {"effort": "low"},
                     "thinking": {"type": "adaptive"}}, "/v1/messages")
        self.assertEqual(self.headers["X-Penstock-Ignored"], "output_config.effort")
        refused = self.answer({"input": "x", "previous_response_id": "resp_1"}, "/v1/responses", status=400)
        self.assertEqual(refused["error"]["param"], "previous_response_id")
        self.answer({"input": [{"type": "item_reference", "id": "x"}, *user(QUESTION)], "max_output_tokens": 5,
                     "tools": [{"type": "web_search_preview"}]}, "/v1/responses")

    def test_prompts_of_another_kind_are_said_to_be_not_here(self):
        for path in ("/v1/embeddings", "/v1/rerank", "/v1/images/generations", "/v1/audio/speech", "/api/pull"):
            self.assertIn("text only", json.dumps(self.answer({}, path, status=501)))


class WaitingTest(unittest.TestCase):
    def test_who_waits_hears_its_place_and_who_runs_ends_before_the_server(self):
        server = Server("--sse-ping-interval", 1, "--drain-timeout", 600, context=4096)
        long = chat("Tell me a story.", stream=True, ignore_eos=True, max_tokens=LONG)
        running = server.stream("/v1/chat/completions", long)
        next(running)
        heard = []
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            def wait(path, more):
                events = server.stream(path, {**long, "max_tokens": 1, "sse_ping_interval": 1, **more})
                try:
                    for event in events:
                        if event != "[DONE]" and event.get("queue_position"):
                            heard.append((path, event["queue_position"]))
                except OSError:
                    pass

            futures = [pool.submit(wait, "/v1/chat/completions", {}), pool.submit(wait, "/v1/messages", {})]
            end = time.monotonic() + 60
            while len({path for path, _ in heard}) < 2 and time.monotonic() < end:
                time.sleep(0.1)
            self.assertFalse(any(future.done() for future in futures))
            server.send(signal.SIGTERM)
            rest = list(running)
        self.assertEqual(rest[-1], "[DONE]")
        self.assertEqual([c["choices"][0]["finish_reason"] for c in rest[:-1]][-1], "length")
        self.assertEqual(server.stop(), 0)
        self.assertEqual(len({path for path, _ in heard}), 2)
        for path, position in heard:
            self.assertIn(position, (1, 2), path)

    def test_the_context_is_each_sequences_own(self):
        server = Server("--parallel", 2, context=512)
        try:
            self.assertEqual(server.get("/props")[2]["default_generation_settings"]["n_ctx"], 512)
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                totals = list(pool.map(lambda i: server.post("/v1/chat/completions", chat(f"Tell me story {i}.", ignore_eos=True))
                                       [2]["usage"]["total_tokens"], range(2)))
            self.assertEqual([total // 8 for total in totals], [64, 64])
        finally:
            self.assertEqual(server.stop(), 0)

    def test_what_decides_the_bits_is_in_the_fingerprint(self):
        told = []
        for flags in ((), ("--arithmetic", "float32"), ("--lossy-expert-weight", "0.6"), ("--lossy-expert-weight", "0.7"), ("--lossy-kv", "8"),
                      ("--lossy-low-bits-copy", MODEL, "--lossy-low-bits-from", "3"), ("--lossy-low-bits-copy", MODEL, "--lossy-low-bits-from", "4")):
            server = Server(*flags)
            try:
                self.assertEqual(server.get("/props")[2]["model"]["lossy"], "lossy" in "".join(flags))
                told.append(server.post("/v1/chat/completions", chat(QUESTION, max_tokens=1))[2]["system_fingerprint"])
            finally:
                self.assertEqual(server.stop(), 0)
        self.assertEqual(len(set(told)), 7)


if __name__ == "__main__":
    unittest.main()
