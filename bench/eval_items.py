"""The evaluation's prompts, as the scripts that ask a server want them."""

import json
import os
import re

FOLDER = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data", "eval"))

CALL = re.compile(
    r"<tool_call>\n<function=([^>\n]+)>\n((?:<parameter=[^>\n]+>\n.*?\n</parameter>\n)*)</function>\n</tool_call>", re.S)
PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n(.*?)\n</parameter>\n", re.S)


def parse_calls(text):
    """-> [(function, {parameter: raw value})], or None when there is anything but well-formed calls."""
    if CALL.sub("", text).strip():
        return None
    return [(name, dict(PARAMETER.findall(body))) for name, body in CALL.findall(text)]


def read_items(name, count=1000, folder=FOLDER):
    with open(os.path.join(folder, f"eval_{name}.jsonl"), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines][:count]


def openai_messages(messages):
    """Past calls as the API has them; the evaluation's stand as the template takes them."""
    sent = []
    for message in messages:
        calls = [call.get("function", call) for call in message.get("tool_calls") or []]
        if calls:
            message = {**message, "tool_calls": [
                {"id": f"call_{i}", "type": "function", "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])}}
                for i, call in enumerate(calls)]}
        sent.append(message)
    return sent


class Asker:
    """Asks a running server, which has to answer with 200."""

    TIMEOUT_S = 600

    def __init__(self, server):
        self.server = server

    def post(self, path, body):
        status, _, answer = self.server.post(path, body, timeout=self.TIMEOUT_S)
        assert status == 200, answer
        return answer
