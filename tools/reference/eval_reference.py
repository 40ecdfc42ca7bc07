#!/usr/bin/env python3
"""What the reference makes of the evaluation set: the numbers that `penstock eval` is to find.

    eval_reference.py MODEL_DIR EVAL_DIR EXPERT_BITS RESIDENT_BITS PREFIX

Runs transformers in float32 on the weights of `penstock pack --experts .. --resident ..` (0 0: the
checkpoint's own values) and writes into EVAL_DIR

    PREFIXscore_text.jsonl          {"id", "tokens", "nll", "bytes"} of every text
    PREFIXgreedy_{tools,json,qa}.jsonl   {"id", "exact", "output", "margin"}

"margin" is the smallest distance of the two best logits on the way: where it is tiny, another
engine's output may differ without being wrong. The rules of scoring are those of `penstock eval`.
"""

import json
import sys

import oracle
import packed_weights
import tensor_file
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

WINDOW = 1024
MAX_TOKENS = {"tools": 200, "json": 120, "qa": 48}
END = "<|im_end|>"


def windows(ids):
    """Cuts a document into pieces of at most WINDOW predicted tokens. Each piece starts from nothing;
    the last token of one is the first of the next, so that every token but the document's first is
    predicted exactly once."""
    return [ids[i : i + WINDOW + 1] for i in range(0, len(ids) - 1, WINDOW)]


@torch.no_grad()
def score(model, ids):
    """-> predicted tokens, their summed negative log-likelihood in nats"""
    total = 0.0
    for piece in windows(ids):
        logits = model(torch.tensor([piece[:-1]]), use_cache=False).logits[0]
        targets = torch.tensor(piece[1:])
        total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    return len(ids) - 1, total


@torch.no_grad()
def answer(model, ids, end, max_tokens):
    """-> greedy ids before the end token, smallest margin"""
    new_ids = []
    smallest = float("inf")
    cache = None
    tokens = torch.tensor([ids])
    for _ in range(max_tokens):
        output = model(tokens, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        best = output.logits[0, -1].topk(2)
        smallest = min(smallest, (best.values[0] - best.values[1]).item())
        token = best.indices[0].item()
        if token == end:
            break
        new_ids.append(token)
        tokens = torch.tensor([[token]])
    return new_ids, smallest


def chat_renderer(model_dir):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    with open(f"{model_dir}/chat_template.jinja", encoding="utf-8") as f:
        template = environment.from_string(f.read())
    return lambda item: template.render(
        messages=item["messages"],
        tools=item["tools"],
        add_generation_prompt=True,
        enable_thinking=item["enable_thinking"],
    )


def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def write_lines(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def main():
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    model_dir, eval_dir, expert_bits, resident_bits, prefix = sys.argv[1:]
    torch.set_num_threads(1)
    stored = tensor_file.load(f"{model_dir}/model.safetensors")
    weights = packed_weights.dequantised(stored, int(expert_bits), int(resident_bits))
    model = oracle.build_model(oracle.read_config(f"{model_dir}/config.json"), weights)
    tokenizer = Tokenizer.from_file(f"{model_dir}/tokenizer.json")

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    rows = []
    for item in read_lines(f"{eval_dir}/eval_text.jsonl"):
        tokens, nll = score(model, encode(item["text"]))
        rows.append(
            dict(id=item["id"], tokens=tokens, nll=round(nll, 4), bytes=len(item["text"].encode()))
        )
    write_lines(f"{eval_dir}/{prefix}score_text.jsonl", rows)
    print(
        "text",
        sum(r["tokens"] for r in rows),
        "tokens, nll",
        sum(r["nll"] for r in rows),
        flush=True,
    )

    render = chat_renderer(model_dir)
    end = tokenizer.token_to_id(END)
    for kind, max_tokens in MAX_TOKENS.items():
        rows = []
        for item in read_lines(f"{eval_dir}/eval_{kind}.jsonl"):
            new_ids, margin = answer(model, encode(render(item)), end, max_tokens)
            text = tokenizer.decode(new_ids, skip_special_tokens=False)
            exact = text.strip() == item["expected"]
            rows.append(dict(id=item["id"], exact=exact, output=text, margin=round(margin, 5)))
        write_lines(f"{eval_dir}/{prefix}greedy_{kind}.jsonl", rows)
        print(kind, sum(r["exact"] for r in rows), "of", len(rows), "exact", flush=True)


if __name__ == "__main__":
    main()
