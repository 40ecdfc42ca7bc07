#!/usr/bin/env python3
"""What holding answers to schemas gives and costs: the evaluation's tool and JSON prompts, free and constrained.

    PENSTOCK_BINARY=build/test/penstock PENSTOCK_DEMO_MODEL=build/demo-model \\
        bench/constrained_eval.py 2-bit=MODEL 4-bit=MODEL [--items N] [--seeds N]
        [--temperatures 0,1.5] [--eval FOLDER]

Each model is served, and asked each prompt greedily and at temperature 1.5 with several seeds. Free answers
to tool prompts come over /v1/completions, which holds them to nothing, from the very prompt that the chat
has. Rows are Markdown:

    calls that hold   of the answers that begin a call: all their calls are well-formed, of a tool that was
                      offered, with arguments that its schema allows; what the limit cuts counts against it (a
                      constrained call is then closed to valid JSON, but may lack what is required)
    JSON that holds   of the answers: JSON that the prompt's schema allows, or an object or list where it names none
    exact             of the answers: what the evaluation expects

Needs python3-jsonschema.
"""

import argparse
import concurrent.futures
import json
import os
import re
import sys

import jsonschema

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "server"))
from eval_items import FOLDER, Asker, openai_messages, parse_calls, read_items  # noqa: E402
from support import Server  # noqa: E402

LIMIT = 200  # tokens


def fits(value, schema):
    try:
        jsonschema.validate(value, schema)
        return True
    except jsonschema.ValidationError:
        return False


def schema_of(item):
    """The schema that the prompt of a JSON item names; where it names none, an object or a list."""
    for message in item["messages"]:
        found = re.search(r"Schema: (\{.*\})\s*$", message["content"], re.DOTALL)
        if found:
            return json.loads(found[1])
    return {"type": ["object", "array"]}


def holds_call(calls, tools):
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    return bool(calls) and all(
        call["name"] in schemas and isinstance(call["arguments"], dict) and fits(call["arguments"], schemas[call["name"]])
        and set(call["arguments"]) <= set(schemas[call["name"]].get("properties", {})) for call in calls)


def typed(pairs, tools):
    """Calls of a tagged text, their values as the schemas type them, as far as they can be."""
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    calls = []
    for name, raw in pairs:
        properties = schemas.get(name, {}).get("properties", {})
        arguments = dict(raw)
        for key, value in raw.items():
            if properties.get(key, {}).get("type") not in ("string", None):
                try:
                    arguments[key] = json.loads(value)
                except ValueError:
                    pass
        calls.append({"name": name, "arguments": arguments})
    return calls


class Trials(Asker):
    def tool(self, item, sampling, constrained):
        """-> (began a call, it holds, exact)"""
        base = {"messages": openai_messages(item["messages"]), "tools": item["tools"],
                "chat_template_kwargs": {"enable_thinking": item.get("enable_thinking", False)}}
        if not constrained:
            prompt = self.post("/apply-template", base)["prompt"]
            choice = self.post("/v1/completions", {"prompt": prompt, "max_tokens": LIMIT, "stop": ["<|im_end|>"], **sampling})["choices"][0]
            text = choice["text"]
            if "<tool_call>" not in text and "<function=" not in text:
                return False, False, text.strip() == item["expected"].strip()
            calls = typed(parse_calls(text) or [], item["tools"])
            whole = choice["finish_reason"] != "length"
            expected = item.get("expected_calls")
            exact = whole and calls == expected if expected else text.strip() == item["expected"].strip()
            return True, whole and holds_call(calls, item["tools"]), exact
        choice = self.post("/v1/chat/completions", {**base, "max_tokens": LIMIT, **sampling})["choices"][0]
        calls = [{"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
                 for call in choice["message"].get("tool_calls") or []]
        whole = choice["finish_reason"] == "tool_calls"
        expected = item.get("expected_calls")
        exact = whole and calls == expected if expected else (choice["message"]["content"] or "").strip() == item["expected"].strip()
        return bool(calls), whole and holds_call(calls, item["tools"]), exact

    def json(self, item, sampling, constrained):
        schema = schema_of(item)
        body = {"messages": openai_messages(item["messages"]), "max_tokens": LIMIT, **sampling,
                "chat_template_kwargs": {"enable_thinking": item.get("enable_thinking", False)}}
        if constrained:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        choice = self.post("/v1/chat/completions", body)["choices"][0]
        text = choice["message"]["content"] or ""
        try:
            value = json.loads(text)
        except ValueError:
            return True, False, False
        return True, fits(value, schema), text.strip() == item["expected"].strip()


def share(part, whole):
    return f"{100 * part / whole:.1f} % of {whole}" if whole else "none"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="LABEL=MODEL")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--temperatures", default="0,1.5")
    parser.add_argument("--eval", default=FOLDER)
    options = parser.parse_args()
    sets = [("tool calls", "tool", read_items("tools", options.items, options.eval)),
            ("JSON", "json", read_items("json", options.items, options.eval))]
    print("| experts | prompts | temperature | | holds | exact |\n|---|---|---:|---|---:|---:|")
    for labelled in options.models:
        label, path = labelled.split("=", 1)
        server = Server("--parallel", 8, "--max-queue", 64, model=path, context=1024)
        try:
            asker = Trials(server)
            for title, kind, items in sets:
                for temperature in map(float, options.temperatures.split(",")):
                    samplings = [{"temperature": 0}] if temperature == 0 else [
                        {"temperature": temperature, "top_k": 0, "top_p": 1, "min_p": 0, "seed": seed} for seed in range(options.seeds)]
                    for constrained in (False, True):
                        ask = getattr(asker, kind)
                        with concurrent.futures.ThreadPoolExecutor(8) as pool:
                            rows = list(pool.map(lambda pair: ask(*pair, constrained), [(i, s) for i in items for s in samplings]))
                        began = [row for row in rows if row[0]]
                        print(f"| {label} | {title} | {temperature:g} | {'constrained' if constrained else 'free'} "
                              f"| {share(sum(row[1] for row in began), len(began))} | {share(sum(row[2] for row in rows), len(rows))} |", flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
