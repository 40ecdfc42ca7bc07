#!/usr/bin/env python3
"""Quality of a checkpoint with the Hugging Face class on a GPU.

    evaluate.py --model DIR --eval DIR --out FILE.json [--limit N] [--no-routing]
                [--configs all|base|K:BITS,K:BITS,...]

Perplexity, exact tool calls, exact JSON and exact answers, for fewer experts per token (K) and for
experts rounded to BITS (groups of 64 along the input, affine between minimum and maximum, codes
applied at once; 16 means untouched). Other weights stay in bfloat16. The rules of scoring are those
of `penstock eval`, which measures packed models.
"""

import argparse
import json
import math
import os
import sys
import time

import torch

from routing_stats import routing_stats

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from eval import MAX_TOKENS, is_json, is_valid_call

torch.set_num_threads(4)

GROUP = 64
WINDOW = 1024
ALL_CONFIGS = "8:16,6:16,4:16,3:16,2:16,8:8,8:4,8:3,8:2,4:4,4:2"
TRACED_PROMPTS = 24


def read_items(eval_dir, kind):
    with open(f"{eval_dir}/eval_{kind}.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def fake_quantised(weights, bits):
    groups = weights.float().reshape(*weights.shape[:-1], -1, GROUP)
    lowest, highest = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((highest - lowest) / (2**bits - 1)).clamp_min(1e-12)
    rounded = ((groups - lowest) / scale).round() * scale + lowest
    return rounded.reshape(weights.shape).to(weights.dtype)


def load_tokenizer(path):
    from transformers import PreTrainedTokenizerFast

    with open(path + "/tokenizer_config.json", encoding="utf-8") as f:
        chat_template = json.load(f)["chat_template"]
    return PreTrainedTokenizerFast(
        tokenizer_file=path + "/tokenizer.json",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


class Runner:
    """A loaded model whose experts can be rounded and whose top-k can be changed."""

    def __init__(self, path, dtype=torch.bfloat16, device="cuda"):
        from transformers import Qwen3_5MoeForCausalLM

        self.tokenizer = load_tokenizer(path)
        self.tokenizer.padding_side = "left"
        self.device = device
        self.model = Qwen3_5MoeForCausalLM.from_pretrained(
            path, experts_implementation="grouped_mm", dtype=dtype
        )
        self.model.to(device).eval()
        layers = self.model.model.layers
        self.gates = [layer.mlp.gate for layer in layers]
        experts = [layer.mlp.experts for layer in layers]
        self.expert_weights = [w for e in experts for w in (e.gate_up_proj, e.down_proj)]
        self.originals = [weights.data.clone() for weights in self.expert_weights]
        self.end = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.pad = self.tokenizer.convert_tokens_to_ids("<|endoftext|>")

    def set_up(self, experts_per_token=8, bits=16):
        for gate in self.gates:
            gate.top_k = experts_per_token
        for weights, original in zip(self.expert_weights, self.originals):
            weights.data.copy_(original if bits == 16 else fake_quantised(original, bits))

    def prompt(self, item):
        return self.tokenizer.apply_chat_template(
            item["messages"],
            tools=item.get("tools") or None,
            add_generation_prompt=True,
            enable_thinking=item.get("enable_thinking", False),
            tokenize=False,
        )

    def encode(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def generate(self, prompts, max_tokens, batch=512):
        """-> greedy answers, in the order of the prompts; prompts of like length share a batch"""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers = [None] * len(prompts)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs = self.tokenizer(
                [prompts[i] for i in chosen],
                return_tensors="pt",
                padding=True,
                add_special_tokens=False,
            ).to(self.device)
            outputs = self.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=max_tokens,
                do_sample=False,
                eos_token_id=self.end,
                pad_token_id=self.pad,
            )
            for i, ids in zip(chosen, outputs[:, inputs["input_ids"].shape[1] :].tolist()):
                ids = ids[: ids.index(self.end)] if self.end in ids else ids
                text = self.tokenizer.decode(ids, skip_special_tokens=False)
                answers[i] = text.replace("<|endoftext|>", "")
        return answers

    @torch.no_grad()
    def perplexity(self, texts, batch=48):
        """Windows of WINDOW predicted tokens, each from an empty state."""
        rows = []
        for text in texts:
            ids = self.encode(text)
            rows += [ids[i : i + WINDOW + 1] for i in range(0, len(ids) - 1, WINDOW)]
        rows.sort(key=len)
        nll = tokens = 0.0
        for start in range(0, len(rows), batch):
            part_nll, part_tokens = self.batch_nll(rows[start : start + batch])
            nll += part_nll
            tokens += part_tokens
        return dict(
            tokens=int(tokens),
            nats_per_token=round(nll / tokens, 4),
            perplexity=round(math.exp(nll / tokens), 3),
            bits_per_byte=round(nll / math.log(2) / sum(len(t.encode()) for t in texts), 4),
        )

    def batch_nll(self, rows):
        """-> summed negative log-likelihood and number of predicted tokens; rows are padded behind"""
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.pad)
        counted = torch.zeros(len(rows), longest - 1)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            counted[i, : len(row) - 1] = 1
        ids, counted = ids.to(self.device), counted.to(self.device)
        logits = self.model(ids[:, :-1], use_cache=False).logits.float()
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        return (losses * counted.flatten()).sum().item(), counted.sum().item()

    def evaluate(self, sets, limit=None):
        result = dict(text=self.perplexity([item["text"] for item in sets["text"]][:limit]))
        for kind, max_tokens in MAX_TOKENS.items():
            items = sets[kind][:limit]
            answers = self.generate([self.prompt(item) for item in items], max_tokens)
            result[kind] = summarise(kind, items, answers)
        return result

    @torch.no_grad()
    def routing(self, texts):
        """-> lengths of the sequences, per layer their expert ids, and figures of reuse"""
        layers = [[] for _ in self.gates]

        def keep(layer):
            return lambda _module, _inputs, output: layers[layer].append(output[2].cpu())

        hooks = [gate.register_forward_hook(keep(i)) for i, gate in enumerate(self.gates)]
        lengths = []
        for text in texts:
            ids = torch.tensor([self.encode(text)[:WINDOW]], device=self.device)
            self.model(ids, use_cache=False)
            lengths.append(ids.shape[1])
        for hook in hooks:
            hook.remove()
        num_experts = self.model.config.num_experts
        figures = [routing_stats(i, layer, num_experts) for i, layer in enumerate(layers)]
        return lengths, layers, figures


def summarise(kind, items, answers):
    stripped = [answer.strip() for answer in answers]
    exact = [text == item["expected"] for text, item in zip(stripped, items)]
    result = dict(n=len(items), exact=round(sum(exact) / len(items), 4))
    if kind == "tools":
        valid = sum(is_valid_call(text, item["tools"]) for text, item in zip(stripped, items))
        result["valid_call"] = round(valid / len(items), 4)
    if kind == "json":
        result["valid_json"] = round(sum(map(is_json, answers)) / len(items), 4)
    by_kind = {}
    for good, item in zip(exact, items):
        by_kind.setdefault(item["kind"], []).append(good)
    result["by_kind"] = {k: [sum(v), len(v)] for k, v in sorted(by_kind.items())}
    wrong = [
        dict(id=item["id"], got=answer[:300], want=item["expected"][:300])
        for answer, item, good in zip(answers, items, exact)
        if not good
    ]
    result["wrong"] = wrong[:12]
    return result


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--limit", type=int, help="items of each set")
    parser.add_argument("--configs", default="all")
    parser.add_argument("--no-routing", action="store_true")
    parser.add_argument("--wait", action="store_true", help="until MODEL/ready exists")
    return parser.parse_args()


def configurations(text):
    """-> (experts per token, bits) for every row of the table"""
    text = {"all": ALL_CONFIGS, "base": "8:16"}.get(text, text)
    return [tuple(map(int, part.split(":"))) for part in text.split(",")]


def main():
    options = parse_options()
    while options.wait and not os.path.exists(options.model + "/ready"):
        time.sleep(0.2)
    start = time.time()
    runner = Runner(options.model)
    sets = {kind: read_items(options.eval, kind) for kind in ("text", *MAX_TOKENS)}
    result = {}
    for experts, bits in configurations(options.configs):
        runner.set_up(experts, bits)
        row = runner.evaluate(sets, options.limit)
        result[f"k{experts}_b{bits}"] = row
        print(
            f"K={experts} bits={bits}: perplexity {row['text']['perplexity']}"
            f" bits/byte {row['text']['bits_per_byte']}"
            f" tools {row['tools']['exact']} (valid {row['tools']['valid_call']})"
            f" json {row['json']['exact']} (valid {row['json']['valid_json']})"
            f" qa {row['qa']['exact']}  after {time.time() - start:.0f} s",
            flush=True,
        )
        write_json(options.out, result)
    if not options.no_routing:
        runner.set_up()
        result["routing"] = trace(runner, sets, options)
        write_json(options.out, result)


def trace(runner, sets, options):
    """Writes routing_{text,tools}.safetensors beside the result. -> figures by layer"""
    texts = [item["text"] for item in sets["text"][:TRACED_PROMPTS]]
    tools = [runner.prompt(item) + item["expected"] for item in sets["tools"][:TRACED_PROMPTS]]
    figures = {}
    for name, prompts in (("text", texts), ("tools", tools)):
        lengths, layers, figures[name] = runner.routing(prompts)
        if options.limit is None:
            from safetensors.torch import save_file

            tensors = {f"layer.{i}": torch.cat(x).to(torch.uint8) for i, x in enumerate(layers)}
            tensors["lengths"] = torch.tensor(lengths, dtype=torch.int32)
            folder = os.path.dirname(os.path.abspath(options.out))
            save_file(tensors, f"{folder}/routing_{name}.safetensors")
    return figures


if __name__ == "__main__":
    main()
