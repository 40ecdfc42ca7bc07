"""The packages that people use: openai, anthropic, ollama. From scripts/test-venv."""

import json
import threading
import time
import unittest

import anthropic
import ollama
import openai

from support import Server, user

QUESTION = "What is the capital of Portugal?"
ANSWER = "The capital of Portugal is Lisbon."
WEATHER = {
    "name": "get_weather",
    "description": "Get the current weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Name of the city"}},
                   "required": ["city"]},
}
ASK_WEATHER = "Is it raining in Lisbon"


class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--parallel", 2)
        cls.openai = openai.OpenAI(base_url=cls.server.address + "/v1", api_key="none", max_retries=0)
        cls.anthropic = anthropic.Anthropic(base_url=cls.server.address, api_key="none", max_retries=0)
        cls.ollama = ollama.Client(host=cls.server.address)

    @classmethod
    def tearDownClass(cls):
        cls.openai.close()
        cls.anthropic.close()
        assert cls.server.stop() == 0, cls.server.text()


class OpenAiTest(ClientTest):
    def test_models(self):
        models = self.openai.models.list().data
        self.assertEqual([model.id for model in models], ["demo-model"])
        self.assertEqual(self.openai.models.retrieve("demo-model").id, "demo-model")

    def test_chat(self):
        answer = self.openai.chat.completions.create(model="any", messages=user(QUESTION), temperature=0, reasoning_effort="none")
        self.assertEqual(answer.choices[0].message.content, ANSWER)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_chat_streamed(self):
        stream = self.openai.chat.completions.create(
            model="any", messages=user(QUESTION), temperature=0, reasoning_effort="none", stream=True,
            stream_options={"include_usage": True})
        chunks = list(stream)
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), ANSWER)
        self.assertGreater(chunks[-1].usage.completion_tokens, 5)

    def test_reasoning_comes_apart(self):
        answer = self.openai.chat.completions.create(
            model="any", messages=user(QUESTION), temperature=0, max_tokens=100, extra_body={"reasoning_budget": 10})
        self.assertTrue(answer.choices[0].message.reasoning_content)
        self.assertNotIn("<think>", answer.choices[0].message.content)

    def tool_call(self, **more):
        return self.openai.chat.completions.create(
            model="any", messages=user(ASK_WEATHER), temperature=0, reasoning_effort="none", max_tokens=100,
            tools=[{"type": "function", "function": WEATHER}], **more)

    def test_a_tool_is_called_and_its_result_answered(self):
        answer = self.tool_call().choices[0]
        self.assertEqual(answer.finish_reason, "tool_calls")
        call = answer.message.tool_calls[0]
        self.assertEqual(call.function.name, "get_weather")
        self.assertEqual(json.loads(call.function.arguments), {"city": "Lisbon"})
        messages = [*user(ASK_WEATHER), answer.message,
                    {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "sky": "clear"}'}]
        final = self.openai.chat.completions.create(
            model="any", messages=messages, temperature=0, reasoning_effort="none", max_tokens=100,
            tools=[{"type": "function", "function": WEATHER}])
        self.assertEqual(final.choices[0].finish_reason, "stop")
        self.assertIn("21", final.choices[0].message.content)

    def test_a_tool_call_streamed(self):
        calls = {}
        for chunk in self.tool_call(stream=True):
            for call in chunk.choices[0].delta.tool_calls or []:
                known = calls.setdefault(call.index, {"id": call.id, "name": call.function.name, "arguments": ""})
                known["arguments"] += call.function.arguments or ""
        self.assertEqual(len(calls), 1)
        self.assertTrue(calls[0]["id"])
        self.assertEqual(calls[0]["name"], "get_weather")
        self.assertEqual(json.loads(calls[0]["arguments"]), {"city": "Lisbon"})

    def test_completions(self):
        answer = self.openai.completions.create(model="any", prompt="The capital of", max_tokens=4, temperature=0, logprobs=1)
        self.assertEqual(len(answer.choices[0].logprobs.token_logprobs), 4)
        chunks = list(self.openai.completions.create(model="any", prompt="The capital of", max_tokens=4, temperature=0, stream=True))
        self.assertEqual("".join(c.choices[0].text for c in chunks), answer.choices[0].text)

    def test_responses(self):
        answer = self.openai.responses.create(model="any", input=QUESTION, temperature=0, reasoning={"effort": "none"}, store=False)
        self.assertEqual(answer.output_text, ANSWER)
        self.assertEqual(answer.status, "completed")

    def test_responses_streamed_with_a_tool(self):
        tool = {"type": "function", "strict": False, **WEATHER}
        events = list(self.openai.responses.create(
            model="any", input=ASK_WEATHER, temperature=0, reasoning={"effort": "none"}, stream=True, max_output_tokens=100,
            tools=[tool, {"type": "web_search"}]))
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        self.assertEqual(events[0].type, "response.created")
        self.assertEqual(events[-1].type, "response.completed")
        call = events[-1].response.output[0]
        self.assertEqual((call.type, call.name, json.loads(call.arguments)), ("function_call", "get_weather", {"city": "Lisbon"}))
        deltas = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
        self.assertEqual(deltas, call.arguments)
        items = [{"role": "user", "content": ASK_WEATHER}, call.model_dump(),
                 {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees, clear"}]
        final = self.openai.responses.create(model="any", input=items, temperature=0, reasoning={"effort": "none"}, tools=[tool])
        self.assertIn("21", final.output_text)

    def test_errors_are_the_packages_own(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.openai.chat.completions.create(model="any", messages=user("x"), temperature=9)
        self.assertIn("temperature", str(caught.exception))
        with self.assertRaises(openai.NotFoundError):
            self.openai.models.retrieve("none")
        with self.assertRaises(openai.InternalServerError):
            self.openai.embeddings.create(model="any", input="x")
        with self.assertRaises(openai.BadRequestError):
            self.openai.responses.create(model="any", input="x", previous_response_id="resp_1")

    def test_closing_a_stream_cancels(self):
        before = self.server.metric("cancelled_total", reason="disconnect")
        stream = self.openai.chat.completions.create(
            model="any", messages=user("Tell me a story."), stream=True, extra_body={"ignore_eos": True})
        for _ in range(3):
            next(iter(stream))
        stream.close()
        self.server.wait_until_idle(60)
        self.assertEqual(self.server.metric("cancelled_total", reason="disconnect"), before + 1)

    def test_an_agent_goes_on_for_ten_turns(self):
        messages = [{"role": "system", "content": "You are a helpful assistant."}]
        cached = []
        for turn, city in enumerate(["Lisbon", "Rabat", "Oslo", "Rome", "Paris", "Madrid", "Vienna", "Athens", "Cairo", "Berlin"]):
            messages += user(f"What is the weather in {city}?")
            for _ in range(2):  # the call, then the answer to its result
                answer = self.openai.chat.completions.create(
                    model="any", messages=messages[:1] + messages[-6:], temperature=0, reasoning_effort="none", max_tokens=60,
                    tools=[{"type": "function", "function": WEATHER}])
                choice = answer.choices[0]
                cached.append(answer.usage.prompt_tokens_details.cached_tokens)
                messages.append(choice.message.model_dump(exclude_none=True))
                if choice.finish_reason != "tool_calls":
                    break
                for call in choice.message.tool_calls:
                    self.assertIsInstance(json.loads(call.function.arguments), dict)
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": f'{{"temperature": {turn + 10}}}'})
        self.assertGreater(sum(count > 0 for count in cached), len(cached) // 2)

    def test_a_schema_holds_the_answer(self):
        schema = {"type": "object", "properties": {"city": {"type": "string"}, "population": {"type": "integer"}},
                  "required": ["city", "population"], "additionalProperties": False}
        form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
        answer = self.openai.chat.completions.create(
            model="any", messages=user("Tell me about Lisbon."), temperature=1.2, seed=3, reasoning_effort="none", max_tokens=200, response_format=form)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        told = json.loads(answer.choices[0].message.content)
        self.assertEqual(set(told), {"city", "population"})
        self.assertIsInstance(told["population"], int)
        response = self.openai.responses.create(
            model="any", input="Tell me about Lisbon.", temperature=1.2, reasoning={"effort": "none"}, max_output_tokens=200,
            text={"format": {"type": "json_schema", "name": "city", "schema": schema}})
        self.assertEqual(set(json.loads(response.output_text)), {"city", "population"})


# Newer versions of the package name no temperature, older ones and the API do.
GREEDY = {"temperature": 0}


class AnthropicTest(ClientTest):
    def test_messages(self):
        answer = self.anthropic.messages.create(model="any", max_tokens=50, messages=user(QUESTION), extra_body=GREEDY)
        self.assertEqual(answer.content[0].text, ANSWER)
        self.assertEqual(answer.stop_reason, "end_turn")
        self.assertGreater(answer.usage.output_tokens, 5)

    def test_streamed(self):
        with self.anthropic.messages.stream(model="any", max_tokens=50, messages=user(QUESTION), extra_body=GREEDY) as stream:
            self.assertEqual("".join(stream.text_stream), ANSWER)
            self.assertEqual(stream.get_final_message().stop_reason, "end_turn")

    def test_thinking(self):
        answer = self.anthropic.messages.create(
            model="any", max_tokens=1100, messages=user(QUESTION), thinking={"type": "enabled", "budget_tokens": 1024}, extra_body={"temperature": 1, "seed": 1})
        self.assertEqual(answer.content[0].type, "thinking")

    def test_a_tool_is_called_and_its_result_answered(self):
        tool = {"name": WEATHER["name"], "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}
        ask = dict(model="any", max_tokens=100, extra_body=GREEDY, tools=[tool])
        with self.anthropic.messages.stream(messages=user(ASK_WEATHER), **ask) as stream:
            first = stream.get_final_message()
        self.assertEqual(first.stop_reason, "tool_use")
        use = first.content[-1]
        self.assertEqual((use.type, use.name, use.input), ("tool_use", "get_weather", {"city": "Lisbon"}))
        self.assertEqual(self.anthropic.messages.create(messages=user(ASK_WEATHER), **ask).content[-1].input, use.input)
        messages = [*user(ASK_WEATHER), {"role": "assistant", "content": first.content},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "21 degrees"}]}]
        self.assertIn("21", self.anthropic.messages.create(messages=messages, **ask).content[0].text)

    def test_a_format_holds_the_answer(self):
        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
        answer = self.anthropic.messages.create(
            model="any", max_tokens=200, messages=user("Tell me about Lisbon."),
            extra_body={"temperature": 1.2, "output_config": {"format": {"type": "json_schema", "schema": schema}}})
        self.assertEqual(set(json.loads(answer.content[0].text)), {"city"})

    def test_closing_a_stream_cancels(self):
        before = self.server.metric("cancelled_total", reason="disconnect")
        with self.anthropic.messages.stream(model="any", max_tokens=900, messages=user("Tell me a story."), extra_body={"ignore_eos": True}) as stream:
            next(iter(stream.text_stream))
        self.server.wait_until_idle(60)
        self.assertEqual(self.server.metric("cancelled_total", reason="disconnect"), before + 1)

    def test_tokens_are_counted_as_they_are_used(self):
        counted = self.anthropic.messages.count_tokens(model="any", messages=user(QUESTION)).input_tokens
        used = self.anthropic.messages.create(model="any", max_tokens=1, messages=user(QUESTION)).usage
        self.assertEqual(counted, used.input_tokens + used.cache_read_input_tokens)

    def test_the_line_that_changes_with_every_request_does_not_count(self):
        def tokens(line):
            return self.anthropic.messages.count_tokens(
                model="any", messages=user("x"), system=[{"type": "text", "text": line}, {"type": "text", "text": "You are terse."}]).input_tokens
        self.assertEqual(tokens("x-anthropic-billing-header: cch=1"), tokens("x-anthropic-billing-header: cch=1234567890"))

    def test_errors_are_the_packages_own(self):
        with self.assertRaises(anthropic.BadRequestError) as caught:
            self.anthropic.messages.create(model="any", max_tokens=5, messages=[])
        self.assertEqual(caught.exception.body["error"]["type"], "invalid_request_error")
        with self.assertRaises(anthropic.BadRequestError):
            self.anthropic.messages.create(model="any", max_tokens=5, messages=[{"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}]}])


class OllamaTest(ClientTest):
    OPTIONS = {"temperature": 0}

    def test_models(self):
        self.assertEqual([model.model for model in self.ollama.list().models], ["demo-model"])
        self.assertEqual(self.ollama.ps().models[0].model, "demo-model")
        shown = self.ollama.show("demo-model")
        self.assertIn("tools", shown.capabilities)
        self.assertTrue(shown.modelinfo)

    def test_chat(self):
        answer = self.ollama.chat(model="any", messages=user(QUESTION), options=self.OPTIONS)
        self.assertEqual(answer.message.content, ANSWER)
        self.assertGreater(answer.eval_count, 5)
        pieces = list(self.ollama.chat(model="any", messages=user(QUESTION), options=self.OPTIONS, stream=True))
        self.assertEqual("".join(piece.message.content for piece in pieces), ANSWER)
        self.assertTrue(pieces[-1].done)

    def test_generate(self):
        self.assertEqual(self.ollama.generate(model="any", prompt=QUESTION, options=self.OPTIONS).response, ANSWER)
        raw = self.ollama.generate(model="any", prompt="The capital of", raw=True, options={**self.OPTIONS, "num_predict": 3})
        self.assertEqual(raw.eval_count, 3)

    def test_a_tool_is_called(self):
        for stream in (False, True):
            answer = self.ollama.chat(model="any", messages=user(ASK_WEATHER), options=self.OPTIONS, stream=stream,
                                      tools=[{"type": "function", "function": WEATHER}])
            pieces = list(answer) if stream else [answer]
            calls = [call for piece in pieces for call in piece.message.tool_calls or []]
            self.assertEqual([(c.function.name, dict(c.function.arguments)) for c in calls], [("get_weather", {"city": "Lisbon"})])

    def test_a_format_holds_the_answer(self):
        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
        answer = self.ollama.chat(model="any", messages=user("Tell me about Lisbon."), format=schema, options={"temperature": 1.2, "num_predict": 200})
        self.assertEqual(set(json.loads(answer.message.content)), {"city"})
        answer = self.ollama.generate(model="any", prompt="Tell me about Lisbon.", format=schema, options={"temperature": 1.2, "num_predict": 200})
        self.assertEqual(set(json.loads(answer.response)), {"city"})

    def test_closing_a_stream_cancels(self):
        before = self.server.metric("cancelled_total", reason="disconnect")
        pieces = self.ollama.chat(model="any", messages=user("Tell me a story."), stream=True, options={"ignore_eos": True})
        next(pieces)
        pieces.close()
        self.server.wait_until_idle(60)
        self.assertEqual(self.server.metric("cancelled_total", reason="disconnect"), before + 1)

    def test_errors_are_the_packages_own(self):
        with self.assertRaises(ollama.ResponseError) as caught:
            self.ollama.chat(model="any", messages=user("x"), options={"temperature": 9})
        self.assertEqual(caught.exception.status_code, 400)


if __name__ == "__main__":
    del ClientTest
    unittest.main()
