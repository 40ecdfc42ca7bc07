#!/usr/bin/env python3
"""Measures the quality of packed models: the program behind docs/quality.md. Python's own library only.

    tools/eval.py --penstock build/release/penstock --model 4-bit=PATH [--model LABEL=PATH ...]
                  [--experts-per-token 8,6,4] [--eval tests/data/eval] [--out FILE.json] [--table FILE.md]

Each pair of a model and a number of experts per token becomes a row; without --experts-per-token each
model runs with its own number. Two verbs of penstock are used, each printing one JSON object a line:

    penstock score  MODEL --texts FILE.jsonl [--experts-per-token N] --json
        {"id", "tokens", "nll", "bytes"}: predicted tokens, their summed negative log-likelihood in
        nats, UTF-8 bytes of the text. Windows: the document's ids[i : i + 1025] for i = 0, 1024, ..,
        i < len(ids) - 1, each from an empty state; so at most 1,024 tokens are predicted in a window,
        and all but the document's first token are predicted once.
    penstock answer MODEL --items FILE.jsonl --max-tokens N [--experts-per-token N] --json
        {"id", "text"}: messages and tools rendered with the chat template, generation prompt added,
        enable_thinking as in the item, greedy, up to but without <|im_end|>.

What is counted, over all texts or items of a set:
    perplexity      exp(sum nll / sum tokens)
    bits per byte   sum nll / ln 2 / sum bytes
    exact           the answer, stripped of white space, equals "expected"
    valid call      the answer consists of well-formed calls only, at least one, each of a tool that
                    was offered, without unknown and with all required parameters
    valid JSON      the answer parses

Sampling errors (one standard error): documents are the units for texts, items for shares; a share of
k of n has the error of (k + 1/2) / (n + 1), so that 0 and 100 % have one too. "change" compares with
the first row on the same documents, which is far more exact than the difference of two perplexities.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT_EVAL = os.path.normpath(os.path.join(HERE, "..", "tests", "data", "eval"))
MAX_TOKENS = {"tools": 200, "json": 120, "qa": 48}
CALL = re.compile(
    r"<tool_call>\n<function=([^>\n]+)>\n((?:<parameter=[^>\n]+>\n.*?\n</parameter>\n)*)</function>\n</tool_call>",
    re.S,
)
PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n(.*?)\n</parameter>\n", re.S)


def parse_calls(text):
    """-> [(function, {parameter: raw value})], or None when there is anything but well-formed calls."""
    if CALL.sub("", text).strip():
        return None
    return [(name, dict(PARAMETER.findall(body))) for name, body in CALL.findall(text)]


def is_valid_call(text, tools):
    offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    calls = parse_calls(text)
    return bool(calls) and all(
        fits_schema(arguments, offered.get(name)) for name, arguments in calls
    )


def fits_schema(arguments, parameters):
    if parameters is None:
        return False
    known = all(key in parameters["properties"] for key in arguments)
    return known and all(key in arguments for key in parameters["required"])


def is_json(text):
    try:
        json.loads(text)
        return True
    except ValueError:
        return False


def share(outcomes):
    """A list of true and false -> counts, the share and its standard error."""
    good, total = sum(outcomes), len(outcomes)
    smoothed = (good + 0.5) / (total + 1)
    return {
        "good": good,
        "of": total,
        "share": good / total,
        "error": math.sqrt(smoothed * (1 - smoothed) / total),
    }


def ratio_error(numerators, denominators):
    """Standard error of sum(numerators) / sum(denominators) when documents are drawn at random."""
    count = len(numerators)
    if count < 2:
        return math.inf
    ratio = sum(numerators) / sum(denominators)
    squares = sum((n - ratio * d) ** 2 for n, d in zip(numerators, denominators))
    return math.sqrt(count / (count - 1) * squares) / sum(denominators)


def summarise_texts(rows, first_rows):
    """rows and first_rows: {"id", "tokens", "nll", "bytes"} of the same documents in the same order."""
    nll = [row["nll"] for row in rows]
    tokens = [row["tokens"] for row in rows]
    sizes = [row["bytes"] for row in rows]
    if tokens != [row["tokens"] for row in first_rows]:
        sys.exit(
            "two models cut the same texts into different tokens: their nll cannot be compared"
        )
    nats = sum(nll) / sum(tokens)
    differences = [row["nll"] - first["nll"] for row, first in zip(rows, first_rows)]
    return {
        "documents": len(rows),
        "tokens": sum(tokens),
        "bytes": sum(sizes),
        "nats_per_token": nats,
        "nats_per_token_error": ratio_error(nll, tokens),
        "perplexity": math.exp(nats),
        "perplexity_error": math.exp(nats) * ratio_error(nll, tokens),
        "bits_per_byte": sum(nll) / math.log(2) / sum(sizes),
        "bits_per_byte_error": ratio_error(nll, sizes) / math.log(2),
        "change_nats": sum(differences) / sum(tokens),
        "change_nats_error": ratio_error(differences, tokens),
    }


def summarise_answers(kind, items, answers):
    stripped = [answers[item["id"]].strip() for item in items]
    exact = [text == item["expected"] for text, item in zip(stripped, items)]
    result = {"exact": share(exact)}
    if kind == "tools":
        valid = [is_valid_call(text, item["tools"]) for text, item in zip(stripped, items)]
        result["valid"] = share(valid)
    if kind == "json":
        result["valid"] = share([is_json(text) for text in stripped])
    result["wrong"] = [item["id"] for item, good in zip(items, exact) if not good]
    return result


def read_items(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def run_penstock(arguments, ids):
    """Runs a verb and returns its lines by id; every id must have been answered."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(
            f"{' '.join(arguments)}\nexited with {done.returncode}: {done.stderr.strip()[-2000:]}"
        )
    lines = {}
    for number, line in enumerate(done.stdout.splitlines(), 1):
        try:
            row = json.loads(line)
            lines[row["id"]] = row
        except (ValueError, KeyError, TypeError):
            sys.exit(
                f"{' '.join(arguments)}\nline {number} is not an object with an id: {line[:200]}"
            )
    missing = [i for i in ids if i not in lines]
    if missing:
        sys.exit(f"{' '.join(arguments)}\nanswered {len(lines)} items; missing: {missing[:5]}")
    return lines


def score_texts(options, model, experts):
    path = f"{options.eval}/eval_text.jsonl"
    ids = [item["id"] for item in read_items(path)]
    arguments = [
        options.penstock,
        "score",
        model,
        "--texts",
        path,
        "--json",
        *experts_flag(experts),
    ]
    lines = run_penstock(arguments + options.extra, ids)
    return [lines[i] for i in ids]


def answer_items(options, model, experts, kind):
    path = f"{options.eval}/eval_{kind}.jsonl"
    items = read_items(path)
    arguments = [options.penstock, "answer", model, "--items", path, "--json"]
    arguments += ["--max-tokens", str(MAX_TOKENS[kind]), *experts_flag(experts)]
    lines = run_penstock(arguments + options.extra, [item["id"] for item in items])
    return items, {i: line["text"] for i, line in lines.items()}


def experts_flag(experts):
    return ["--experts-per-token", str(experts)] if experts else []


def evaluate(options):
    results = []
    first_texts = None
    for label, model in options.models:
        for experts in options.experts:
            row = {"model": label, "experts_per_token": experts}
            if "text" in options.sets:
                texts = score_texts(options, model, experts)
                first_texts = first_texts or texts
                row["text"] = summarise_texts(texts, first_texts)
            for kind in MAX_TOKENS:
                if kind in options.sets:
                    row[kind] = summarise_answers(
                        kind, *answer_items(options, model, experts, kind)
                    )
            results.append(row)
            print(f"{label}, experts per token {experts or 'default'}: done", file=sys.stderr)
    return results


def percent(part):
    return f"{100 * part['share']:.1f} ± {100 * part['error']:.1f}"


def table(results):
    """-> the rows as a Markdown table; a set that was not run leaves its cells empty."""
    head = ["model", "experts per token", "perplexity", "change, nats/token", "bits/byte"]
    head += ["tool call exact %", "valid call %", "JSON exact %", "valid JSON %", "answer exact %"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in results:
        cells = [row["model"], str(row["experts_per_token"] or "default")]
        text = row.get("text")
        if text:
            cells.append(f"{text['perplexity']:.3f} ± {text['perplexity_error']:.2f}")
            cells.append(f"{text['change_nats']:+.4f} ± {text['change_nats_error']:.4f}")
            cells.append(f"{text['bits_per_byte']:.4f} ± {text['bits_per_byte_error']:.3f}")
        else:
            cells += ["", "", ""]
        for kind, part in (
            ("tools", "exact"),
            ("tools", "valid"),
            ("json", "exact"),
            ("json", "valid"),
            ("qa", "exact"),
        ):
            cells.append(percent(row[kind][part]) if kind in row else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def sizes_of_sets(results):
    row = results[0]
    parts = []
    if "text" in row:
        text = row["text"]
        parts.append(
            f"{text['documents']} texts ({text['tokens']:,} predicted tokens, {text['bytes']:,} bytes)"
        )
    names = {"tools": "tool prompts", "json": "JSON prompts", "qa": "questions"}
    parts += [f"{row[kind]['exact']['of']} {names[kind]}" for kind in MAX_TOKENS if kind in row]
    return (
        "Sets: "
        + ", ".join(parts)
        + ". ± is one standard error; change is paired with the first row.\n"
    )


def labelled_model(text):
    label, separator, path = text.partition("=")
    if not separator or not label or not path:
        raise argparse.ArgumentTypeError(f"'{text}' is not LABEL=PATH")
    return label, path


def experts_list(text):
    numbers = [int(part) for part in text.split(",")]
    if any(number < 1 for number in numbers):
        raise argparse.ArgumentTypeError("experts per token must be at least 1")
    return numbers


def set_list(text):
    kinds = text.split(",")
    unknown = [kind for kind in kinds if kind != "text" and kind not in MAX_TOKENS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown set {unknown[0]}; there are text, tools, json, qa"
        )
    return kinds


def parse_options():
    parser = argparse.ArgumentParser(
        description="Quality of packed models: perplexity, tool calls, JSON, answers."
    )
    parser.add_argument("--penstock", required=True, help="the program")
    parser.add_argument(
        "--model", dest="models", action="append", type=labelled_model, required=True
    )
    parser.add_argument("--experts-per-token", dest="experts", type=experts_list, default=[None])
    parser.add_argument("--eval", default=DEFAULT_EVAL, help="folder with eval_*.jsonl")
    parser.add_argument(
        "--sets", type=set_list, default=["text", *MAX_TOKENS], help="of text,tools,json,qa"
    )
    parser.add_argument("--out", help="write all numbers as JSON")
    parser.add_argument("--table", help="write the Markdown table there as well")
    parser.add_argument("extra", nargs="*", help="after --: further arguments for both verbs")
    return parser.parse_args()


def main():
    options = parse_options()
    results = evaluate(options)
    text = table(results) + "\n" + sizes_of_sets(results)
    print(text, end="")
    if options.table:
        with open(options.table, "w", encoding="utf-8") as f:
            f.write(text)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as f:
            json.dump(results, f, indent=1, ensure_ascii=False)
            f.write("\n")


if __name__ == "__main__":
    main()
