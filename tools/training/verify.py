#!/usr/bin/env python3
"""Shows that the training form and the Hugging Face class give the same logits.

    verify.py MODEL_DIR eval_text.jsonl

Compares in float32 with the plain delta rule and, on a GPU, with the fast form in bfloat16. Prints
relative and largest differences and how often the best token is the same.
"""

import json
import os
import sys

os.environ["NO_COMPILE"] = "1"
import torch
from safetensors.torch import load_file
from transformers import Qwen3_5MoeForCausalLM

import modeling
from evaluate import load_tokenizer

CHUNK = 64
MOST_TOKENS = 512


def plain_grouped_mm(x, weights, ends):
    """Rows of x up to ends[e] times weights[e]; torch's own has no float32 form."""
    borders = [0, *ends.tolist()]
    parts = [x[a:b] @ weights[e] for e, (a, b) in enumerate(zip(borders, borders[1:]))]
    return torch.cat(parts)


def compare(name, a, b):
    relative = ((a - b).norm() / a.norm()).item()
    largest = (a - b).abs().max().item()
    same = (a.argmax(-1) == b.argmax(-1)).float().mean().item()
    print(f"{name}: rel {relative:.2e} max {largest:.2e} same argmax {same:.4f}", flush=True)


@torch.no_grad()
def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    model_dir, texts = sys.argv[1:]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    modeling.compile_pieces()
    with open(texts, encoding="utf-8") as f:
        text = json.loads(f.readline())["text"]
    ids = load_tokenizer(model_dir)(text, add_special_tokens=False)["input_ids"][:MOST_TOKENS]
    ids = torch.tensor([ids[: len(ids) // CHUNK * CHUNK]], device=device)
    model = Qwen3_5MoeForCausalLM.from_pretrained(
        model_dir, dtype=torch.float32, attn_implementation="eager"
    )
    model = model.to(device).eval()
    weights = load_file(model_dir + "/model.safetensors")
    weights = {name: tensor.to(device).float() for name, tensor in weights.items()}

    reference = model(ids, use_cache=False).logits
    modeling.grouped_mm = plain_grouped_mm
    compare(
        "HF fp32 vs training fp32 (plain)", reference, training_logits(weights, ids, torch.float32)
    )
    if device == "cuda":
        modeling.grouped_mm = lambda x, w, ends: torch._grouped_mm(x, w, offs=ends)
        fast = training_logits(weights, ids, torch.bfloat16)
        compare("HF fp32 vs training bf16 (fast)", reference, fast)
    rounded = model.to(torch.bfloat16)(ids, use_cache=False).logits.float()
    compare("HF fp32 vs HF bf16", reference, rounded)
    print("params", sum(p.numel() for p in model.parameters()))


def training_logits(weights, ids, dtype):
    form = "torch" if dtype == torch.float32 else "fast"
    hidden, head, _, _ = modeling.hidden(weights, modeling.CONFIG, ids, form, dtype)
    return (hidden @ head.to(hidden.dtype).t()).float()


if __name__ == "__main__":
    main()
