#!/usr/bin/env python3
"""Random walks over masks against the validator jsonschema: what is allowed is valid, at any temperature.

  walks_test.py DRIVER [--walks N] [--seed N]

DRIVER is the program built from walk_driver.cc. Each text is drawn evenly among the allowed tokens, which
is a model without any sense. It must parse, and satisfy the schema; calls must have the name of a tool and
arguments that satisfy its parameters, with no parameter that the schema does not list. Texts with the
same unlisted member twice are no error: no grammar can count names that it does not know.
"""
import argparse
import json
import subprocess
import sys

from jsonschema import Draft202012Validator, FormatChecker

SCHEMAS = [
    {"type": "integer", "minimum": -13, "maximum": 1207},
    {"type": "integer", "exclusiveMinimum": 99, "exclusiveMaximum": 1001},
    {"type": "number", "minimum": -0.25, "exclusiveMaximum": 12.5},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "pattern": "^[a-z]{2,4}(-[0-9]+)?$"},
    {"type": "string", "pattern": "a.c", "maxLength": 9},
    {"type": "string", "pattern": "^(?:x|yz)*$", "minLength": 2, "maxLength": 6},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "ipv6"},
    {"type": "string", "format": "uuid"},
    {"enum": ["a", "ä/b", 1, None, [1, {"x": "y"}], {"p": 1, "q": [True]}]},
    {"type": ["string", "null", "boolean"]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": {"type": "boolean"},
     "minItems": 1, "maxItems": 5},
    {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False},
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 4}, "names": {"type": "integer"},
                                      "n": {"type": "boolean"}}, "required": ["names"],
     "additionalProperties": False},
    {"type": "object", "properties": {"name": {"type": "integer"}}},
    {"type": "object", "properties": {"é": {"type": "integer"}}, "additionalProperties": {"type": "null"}},
    {"anyOf": [{"type": "integer", "maximum": 3}, {"type": "array", "items": {"enum": ["a"]}, "maxItems": 2}]},
    {"oneOf": [{"type": "object", "properties": {"t": {"const": "a"}, "v": {"type": "integer"}},
                "required": ["t", "v"], "additionalProperties": False},
               {"type": "object", "properties": {"t": {"const": "b"}, "w": {"type": "string"}},
                "required": ["t"], "additionalProperties": False}]},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"],
                "additionalProperties": False},
               {"properties": {"a": {"minimum": 5}, "b": {"type": "null"}}, "required": ["b"]}]},
    {"$defs": {"node": {"type": "object", "properties": {
        "value": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}},
        "required": ["value"], "additionalProperties": False}}, "$ref": "#/$defs/node"},
    {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {
        "b": {"type": "string"}}, "required": ["b"], "additionalProperties": False}, "maxItems": 3}},
     "required": ["a"], "additionalProperties": False},
]

TOOLS = [
    {"type": "function", "function": {"name": "search", "parameters": {
        "type": "object", "properties": {
            "query": {"type": "string", "minLength": 1, "maxLength": 20},
            "limit": {"type": "integer", "minimum": 1, "maximum": 50},
            "exact": {"type": "boolean"},
            "since": {"type": "string", "format": "date"},
            "sort": {"enum": ["new", "old", 3]}},
        "required": ["query"]}}},
    {"type": "function", "function": {"name": "note", "parameters": {
        "type": "object", "properties": {
            "text": {"type": "string"},
            "maybe": {"type": ["string", "null"]},
            "mixed": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]},
            "list": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 3},
            "object": {"type": "object", "properties": {"k": {"type": "number"}}, "required": ["k"],
                       "additionalProperties": False},
            "either": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"q": {"type": "null"}},
                                                      "required": ["q"]}]}},
        "required": ["text"]}}},
    {"type": "function", "function": {"name": "now", "parameters": {}}},
]


class Driver:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        while True:
            line = json.loads(self.process.stdout.readline())
            if "end" in line:
                return
            yield line


def has_duplicates(text):
    found = []

    def check(pairs):
        if len({key for key, _ in pairs}) < len(pairs):
            found.append(pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=check)
    return bool(found)


def check_value(text, schema, where):
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        sys.exit(f"{where}: not JSON: {error}\n{text!r}")
    if has_duplicates(text) and schema.get("additionalProperties") is not False:
        return
    errors = list(Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(value))
    if errors:
        sys.exit(f"{where}: {errors[0].message}\n{text!r}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("--walks", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    driver = Driver(arguments.driver)
    values = calls = 0
    for schema in SCHEMAS:
        seen = 0
        for line in driver.ask({"schema": schema, "walks": arguments.walks, "seed": arguments.seed}):
            if "error" in line:
                sys.exit(f"{schema}: {line['error']}")
            check_value(line["text"], schema, json.dumps(schema))
            seen += 1
        if seen == 0:
            sys.exit(f"{schema}: no walk ended")
        values += seen
    functions = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    for form in ("tagged", "json"):
        request = {"tools": TOOLS, "form": form, "walks": 5 * arguments.walks, "seed": arguments.seed}
        for line in driver.ask(request):
            if "error" in line or line["left_out"]:
                sys.exit(f"tools: {line}")
            if not line["calls"]:
                sys.exit(f"{form}: no call in {line['text']!r}")
            for call in line["calls"]:
                if "name" not in call or call["name"] not in functions:
                    sys.exit(f"{form}: {call} in {line['text']!r}")
                schema = dict(functions[call["name"]], additionalProperties=False)
                check_value(call["arguments"], schema, f"{form} {call['name']} in {line['text']!r}")
                calls += 1
    print(f"{values} values of {len(SCHEMAS)} schemas and {calls} calls are valid")


if __name__ == "__main__":
    main()
