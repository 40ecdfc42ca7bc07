#!/usr/bin/env python3
"""Our template interpreter against Jinja2, the original, on the same inputs.

Three kinds of input: snippets that each show one rule, random expressions from a grammar, and random
conversations through whole templates. Both must give the same text, or both an error.

  template_oracle.py DRIVER [FOLDER_OF_TEMPLATES] [--seed N] [--count N]

DRIVER is the program built from template_driver.cc. Templates (*.jinja) of a folder are run as well.
"""
import argparse
import copy
import datetime
import functools
import json
import os
import random
import re
import subprocess
import sys
import warnings

import template_generators
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "text")


class Generation(Extension):
    """{% generation %}: its body is rendered as it stands, with names of its own."""

    tags = {"generation"}

    def parse(self, parser):
        from jinja2 import nodes

        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("render_body"), [], [], body).set_lineno(line)

    def render_body(self, caller):
        return caller()


def raise_exception(message):
    raise ValueError(message)


def to_json(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def make_environment():
    """As the reference implementation of chat templates sets it up."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: CLOCK[0].strftime(format)
    return env


NOW = [2024, 2, 29, 13, 5, 9, 12345]
CLOCK = [None]  # what strftime_now tells: a datetime that the case brings along


@functools.lru_cache(maxsize=256)
def compiled(env, source):
    return env.from_string(source)


def reference(env, case):
    CLOCK[0] = datetime.datetime(*case.get("now", [1, 1, 1, 1, 1, 1, 1]))
    try:
        template = compiled(env, case["template"])
        if "messages" not in case:
            # A copy: the filter indent changes a list that it is given by mistake.
            return {"text": template.render(**copy.deepcopy(case["variables"]))}
        messages = json.loads(json.dumps(case["messages"]))
        for message in messages:
            for call in message.get("tool_calls") or []:
                holder = call.get("function", call)
                if isinstance(holder.get("arguments"), str):
                    holder["arguments"] = json.loads(holder["arguments"])
        extra = {k: case[k] for k in ("enable_thinking",) if case.get(k) is not None}
        text = template.render(
            messages=messages, tools=case.get("tools"), documents=None, add_generation_prompt=case["add_generation_prompt"], **extra
        )
        return {"text": text}
    except Exception as error:  # any: an error is an answer here
        return {"error": "%s: %s" % (type(error).__name__, error)}


VARIABLES = {
    "s": "Hello, World", "e": "", "u": "Ärger, 世界 👍", "w": "  \t padded \n\n", "n": 7, "z": 0, "f": 2.5, "g": -0.5, "big": 1e16,
    "small": 0.00001, "digits": 1234567890123456.0, "t": True, "no": False, "nothing": None, "l": [3, 1, 2], "ls": ["b", "a", "C"],
    "le": [], "ld": [{"k": "x", "v": 1}, {"k": "y", "v": 2}, {"k": "x", "v": 3}], "d": {"b": 1, "a": [1, "two", None], "items": "key"},
    "de": {}, "nest": {"a": {"b": {"c": "deep"}}, "list": [[1, 2], [3]]}, "q": "it's \"quoted\" \\ and\nnew\x07\x7f\u00a0\u200b",
    "mixed": [1, "1", 1.0, True, None, [1], {"a": 1}],
}

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "template_snippets.txt"), encoding="utf-8", newline="\n") as file:
    SNIPPETS = file.read()  # each line is a template that shows a rule

WHITE_SPACE_PIECES = ["{% if t %}", "{%- if t %}", "{% if t -%}", "{%- if t -%}", "{%+ if t %}", "{% if t +%}", "{% endif %}", "{%- endif -%}",
                      "{{ n }}", "{{- n }}", "{{ n -}}", "{{- n -}}", "{# c #}", "{#- c -#}", "{#- c #}", "{# c -#}", "{#+ c +#}", "\n", "\n\n", " ", "  ", "\t",
                      "x", "\r\n", "\r", "\u00a0", "\u2028", "{% set y = 1 %}", "{%- set y = 1 -%}", "\x0b"]


def white_space_case(rng):
    """Tags between blanks and line ends: balanced ifs in random order."""
    out, depth = [], 0
    for _ in range(rng.randint(3, 16)):
        piece = rng.choice(WHITE_SPACE_PIECES)
        if "endif" in piece:
            if depth == 0:
                continue
            depth -= 1
        elif "if t" in piece:
            depth += 1
        out.append(piece)
    out.extend(["{% endif %}"] * depth)
    if rng.random() < 0.3:
        out.append(rng.choice(["\n", "\n\n", "\r\n"]))
    return {"template": "".join(out), "variables": {"t": True, "n": 1}}


NAMES = ["s", "e", "u", "w", "n", "z", "f", "g", "t", "no", "nothing", "l", "ls", "le", "ld", "d", "de", "nest", "missing", "mixed"]
FILTERS = ["trim", "string", "upper", "lower", "length", "list", "first", "last", "join(', ')", "default('d')", "default('d', true)", "int", "float", "tojson", "reverse | list",
           "abs", "round", "round(1)", "sum", "batch(2) | list", "slice(2) | list", "wordcount", "truncate(4, true, '.', 0)", "escape", "safe", "center(9)", "urlencode", "filesizeformat",
           "capitalize", "title", "replace('a', 'bb')", "unique | list", "sort", "dictsort", "items | list", "map('string') | list", "select | list", "indent(2)", "map('upper') | join('/')"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean", "true", "false", "eq(1)", "in([1, 'a'])", "odd", "lt(2)"]
METHODS = ["strip()", "upper()", "split()", "split(',')", "startswith('H')", "endswith('d')", "items() | list", "keys() | list", "get('b')", "replace('l', '')", "lstrip('H')", "rsplit(' ', 1)", "title()", "splitlines()",
           "rfind('l')", "index('l')", "count('l')", "partition(',')", "rpartition('l')", "zfill(9)", "ljust(9, '.')", "rjust(9)", "center(9, '*')", "isdigit()", "isalpha()", "isspace()", "islower()",
           "isupper()", "istitle()", "isalnum()", "swapcase()", "format(1)", "copy()", "rsplit()", "expandtabs(3)", "removeprefix('H')"]
BINARY = ["%", "+", "-", "*", "/", "//", "~", "==", "!=", "<", ">", "<=", ">=", "and", "or", "in", "not in"]


def expression(rng, depth):
    if depth <= 0 or rng.random() < 0.15:
        return rng.choice([rng.choice(NAMES), rng.choice(NAMES), str(rng.randint(-3, 9)), "'%s'" % rng.choice(["", "a", "Hello", "b,c d", "é"]), "1.5", "true", "none", "[]", "[1, 'a']", "{'b': 2}", "(1, 2)"])
    kind = rng.randrange(10)
    inner = lambda: expression(rng, depth - 1)
    if kind == 0:
        return "(%s) | %s" % (inner(), rng.choice(FILTERS))
    if kind == 1:
        return "((%s) is %s%s)" % (inner(), rng.choice(["", "not "]), rng.choice(TESTS))
    if kind == 2:
        return "(%s).%s" % (inner(), rng.choice(METHODS))
    if kind == 3:
        # Jinja2 folds slices of constants, with other errors than it has for variables.
        index = rng.choice(["0", "-1", "'b'", "2", "1:", ":-1", "::-1", "::2"])
        return "(%s)[%s]" % (rng.choice(NAMES) if ":" in index else inner(), index)
    if kind == 4:
        return "(%s) if (%s) else %s" % (inner(), inner(), inner())
    if kind == 5:
        return "(not %s)" % inner()
    if kind == 6:
        return "[%s, %s]" % (inner(), inner())
    left, right = inner(), inner()
    if rng.random() < 0.6:
        left, right = "(%s)" % left, "(%s)" % right
    return "%s %s %s" % (left, rng.choice(BINARY), right)


WORDS = "the a of to and in is it you that was for on are with as his they at be this from have or by one had not but what all were when we there can an your which their said if do will each about how up out them then she many some so these would other into has more her two like him see time could no make than first been its who now people my made over did down only way find use may water long little very after words called just where most know".split()
ODD_TEXT = ["naïve café", "世界", "👩‍👩‍👧", "<|im_end|>", "<tool_response>x</tool_response>", "</think>", "<think>\nhm\n</think>\n\n", "\n\n", "  ", "\t", "{{ s }}", "{% if %}", "\"quoted\"", "it's", "\\n", "a\r\nb", "\u2028", "&lt;"]


def text(rng, low=0, high=18):
    parts = [rng.choice(WORDS) for _ in range(rng.randint(low, high))]
    for _ in range(rng.choice([0, 0, 1, 2])):
        parts.insert(rng.randint(0, len(parts)), rng.choice(ODD_TEXT))
    return rng.choice(["", "", " ", "\n"]) + " ".join(parts) + rng.choice(["", "", " ", "\n\n"])


def json_value(rng, depth=2):
    kind = rng.randrange(8 if depth > 0 else 6)
    if kind <= 1:
        return text(rng, 0, 4)
    if kind == 2:
        return rng.randint(-1000, 1000000)
    if kind == 3:
        return rng.choice([0.5, -2.25, 1e21, 3.0, 1e-7, 123456.789])
    if kind == 4:
        return rng.choice([True, False])
    if kind == 5:
        return None
    if kind == 6:
        return [json_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(WORDS): json_value(rng, depth - 1) for _ in range(rng.randint(0, 3))}


def tool(rng):
    fields = {}
    for _ in range(rng.randint(0, 4)):
        field = {"type": rng.choice(["string", "integer", "number", "boolean", "array", "object"])}
        if rng.random() < 0.7:
            field["description"] = text(rng, 1, 5)
        if rng.random() < 0.2:
            field["enum"] = [rng.choice(WORDS) for _ in range(rng.randint(1, 3))]
        if field["type"] == "array":
            field["items"] = {"type": "string"}
        if field["type"] == "object":
            field["properties"] = {rng.choice(WORDS): {"type": "string"}}
        if rng.random() < 0.1:
            field["x-" + rng.choice(WORDS)] = json_value(rng)
        fields[rng.choice(WORDS) + rng.choice(["", "_id", "é"])] = field
    function = {"name": rng.choice(WORDS) + "_" + rng.choice(WORDS), "description": text(rng, 1, 8),
                "parameters": {"type": "object", "properties": fields, "required": [k for k in fields if rng.random() < 0.5]}}
    return {"type": "function", "function": function}


def tool_call(rng, index):
    arguments = {rng.choice(WORDS): json_value(rng) for _ in range(rng.randint(0, 3))}
    if rng.random() < 0.5:
        arguments = json.dumps(arguments, ensure_ascii=rng.random() < 0.5)
    return {"id": "call_%d" % index, "type": "function", "function": {"name": rng.choice(WORDS), "arguments": arguments}}


def conversation(rng):
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": text(rng)})
    for _ in range(rng.randint(0 if rng.random() < 0.05 else 1, 4)):
        content = text(rng) if rng.random() < 0.8 else [{"type": "text", "text": text(rng)} for _ in range(rng.randint(1, 3))]
        messages.append({"role": "user", "content": content})
        if rng.random() < 0.5:
            assistant = {"role": "assistant", "content": text(rng), "tool_calls": [tool_call(rng, i) for i in range(rng.randint(1, 3))]}
            if rng.random() < 0.2:
                assistant["content"] = None if rng.random() < 0.5 else ""
            messages.append(assistant)
            messages.extend({"role": "tool", "tool_call_id": call["id"], "content": text(rng)} for call in assistant["tool_calls"])
        if rng.random() < 0.7:
            answer = {"role": "assistant", "content": text(rng)}
            if rng.random() < 0.3:
                answer["reasoning_content"] = text(rng)
            elif rng.random() < 0.3:
                answer["content"] = "<think>\n" + text(rng) + "\n</think>\n\n" + answer["content"]
            messages.append(answer)
    if rng.random() < 0.03 and messages:
        messages[rng.randrange(len(messages))]["role"] = rng.choice(["developer", "system", "critic"])
    return {"messages": messages, "tools": [tool(rng) for _ in range(rng.randint(1, 4))] if rng.random() < 0.5 else None,
            "add_generation_prompt": rng.random() < 0.8, "enable_thinking": rng.choice([None, True, False])}


def cases(arguments):
    rng = random.Random(arguments.seed)
    for line in SNIPPETS.strip("\n").split("\n"):
        yield "snippet", {"template": line, "variables": VARIABLES, "now": NOW}
        # An error in one of several expressions hides the others, so that each is also tried alone.
        pieces = re.findall(r"\{\{.*?\}\}", line)
        if len(pieces) > 1 and "{%" not in line:
            for piece in pieces:
                yield "expression of a snippet", {"template": piece, "variables": VARIABLES, "now": NOW}
    for _ in range(arguments.count):
        yield "white space", white_space_case(rng)
    for make in template_generators.ALL:
        for _ in range(arguments.count):
            yield make.__name__, make(rng)
    for _ in range(arguments.count * 4):
        yield "expression", {"template": "{{ %s }}" % expression(rng, rng.randint(1, 4)), "variables": VARIABLES}
    folders = [DATA] + ([arguments.folder] if arguments.folder else [])
    for folder in folders:
        for name in sorted(os.listdir(folder)):
            if not name.endswith(".jinja"):
                continue
            with open(os.path.join(folder, name), encoding="utf-8", newline="") as file:
                source = file.read()
            for _ in range(arguments.count if folder == DATA else 40):
                yield name, {"template": source, **conversation(rng)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=600)
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")  # of Python code that Jinja2 generates
    env = make_environment()
    all_cases = list(cases(arguments))
    lines = "".join(json.dumps(case) + "\n" for _, case in all_cases)
    started = datetime.datetime.now()
    run = subprocess.run([arguments.driver], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    seconds = (datetime.datetime.now() - started).total_seconds()
    answers = [json.loads(line) for line in run.stdout.decode().rstrip("\n").split("\n")]
    assert len(answers) == len(all_cases), "the driver ended early"

    texts, errors, differences = {}, {}, 0
    for (kind, case), ours in zip(all_cases, answers):
        theirs = reference(env, case)
        same = ours.get("text") == theirs.get("text") and ("text" in ours) == ("text" in theirs)
        counter = texts if "text" in theirs else errors
        counter[kind] = counter.get(kind, 0) + 1
        if not same:
            differences += 1
            if differences <= 20:
                shown = case["template"] if "messages" not in case else json.dumps({k: v for k, v in case.items() if k != "template"})
                print("DIFFERENT %s\n  %s\n  ours   %r\n  theirs %r" % (kind, shown[:3000], ours, theirs))
    for kind in sorted(set(texts) | set(errors)):
        print("%-24s %5d texts %5d errors" % (kind, texts.get(kind, 0), errors.get(kind, 0)))
    print("%d cases, %d differences, driver %.2f s" % (len(all_cases), differences, seconds))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
