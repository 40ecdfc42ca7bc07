#!/usr/bin/env python3
"""Whether the server gives the answers of `penstock answer`: the whole evaluation, greedily, one by one and eight at once.

    PENSTOCK_BINARY=build/test/penstock PENSTOCK_DEMO_MODEL=build/demo-model bench/server_answers.py [--items N] [--memory 400M]

Rows are Markdown. "equal" counts answers whose text is that of the command line to the last character. Questions and
JSON are asked over /v1/chat/completions. Tool prompts are asked twice: over /v1/completions from the very prompt
that the chat has, where all must be equal; and over the chat, where a call is held to its schema: there all must be
equal whose free answer fits, which is told. It ends with 1 where an answer is not what it must be.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "server"))
sys.path.insert(0, os.path.join(HERE, "..", "tools"))
from eval import is_valid_call  # noqa: E402
from eval_items import Asker, openai_messages, read_items  # noqa: E402
from support import BINARY, MODEL, Server, environment  # noqa: E402

LIMIT = 200  # tokens
CONTEXT = 1024


def command_line(items, memory):
    """id -> text, by `penstock answer`."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(item) + "\n")
        file.flush()
        out = subprocess.run(
            [BINARY, "answer", MODEL, "--items", file.name, "--json", "--context", str(CONTEXT), "--memory", memory,
             "--max-tokens", str(LIMIT), "--quiet"], stdout=subprocess.PIPE, env=environment(), check=True)
    return {row["id"]: row["text"] for row in map(json.loads, out.stdout.splitlines())}


class Answers(Asker):
    TIMEOUT_S = 3600

    def base(self, item):
        body = {"messages": openai_messages(item["messages"]), "chat_template_kwargs": {"enable_thinking": item.get("enable_thinking", True)}}
        return {**body, "tools": item["tools"]} if item.get("tools") else body

    def chat(self, item):
        """Every token of the answer as text: calls as the model wrote them."""
        answer = self.post("/v1/chat/completions", {**self.base(item), "temperature": 0, "max_tokens": LIMIT, "return_tokens": True})
        return self.post("/detokenize", {"tokens": answer["choices"][0]["tokens"]})["content"]

    def raw(self, item):
        prompt = self.post("/apply-template", self.base(item))["prompt"]
        return self.post("/v1/completions", {"prompt": prompt, "temperature": 0, "max_tokens": LIMIT})["choices"][0]["text"]


def texts(asker, ask, items, at_once):
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return dict(zip((item["id"] for item in items), pool.map(lambda item: getattr(asker, ask)(item), items)))


def is_free_call_wrong(text, tools):
    """A call that its schema forbids: no answer that is held to it can equal this one."""
    return ("<tool_call>" in text or "<function=" in text) and not is_valid_call(text, tools)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--memory", default="400M")
    options = parser.parse_args()
    wrong = 0
    print("| prompts | over | equal, one by one | equal, eight at once | of the others, free calls that their schemas forbid |\n|---|---|---:|---:|---:|")
    server = Server("--parallel", 8, memory=options.memory, context=CONTEXT)
    try:
        asker = Answers(server)
        for name, ask, path in (("qa", "chat", "/v1/chat/completions"), ("json", "chat", "/v1/chat/completions"),
                                ("tools", "raw", "/v1/completions"), ("tools", "chat", "/v1/chat/completions")):
            items = read_items(name, options.items)
            expected = command_line(items, options.memory)
            cells, forbidden = [], set()
            for at_once in (1, 8):
                got = texts(asker, ask, items, at_once)
                unequal = [item for item in items if got[item["id"]] != expected[item["id"]]]
                cells.append(f"{len(items) - len(unequal)} of {len(items)}")
                for item in unequal:
                    if ask == "chat" and is_free_call_wrong(expected[item["id"]], item.get("tools", [])):
                        forbidden.add(item["id"])
                        continue
                    wrong += 1
                    print(f"{item['id']}: {got[item['id']]!r}, expected {expected[item['id']]!r}", file=sys.stderr)
            print(f"| {name} | {path} | {' | '.join(cells)} | {len(forbidden)} |", flush=True)
    finally:
        server.stop()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
