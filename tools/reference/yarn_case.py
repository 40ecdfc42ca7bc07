#!/usr/bin/env python3
"""A case for rotary embeddings stretched by YaRN: another config for the weights of a random checkpoint.

    yarn_case.py RANDOM_DIR/r0-gva2 RANDOM_DIR/r4-yarn

Writes config.json, expected.safetensors and case.json, whose "weights" points to the source's file.
The prompt is the source's. Rotary covers the whole head (8 frequencies) so that YaRN keeps some
frequencies, divides others by the factor and blends one in between; the prompt is longer than the
original context. Computed by transformers in float32.
"""

import json
import os
import sys

import numpy as np
import oracle
import tensor_file
import torch

ROPE = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "mrope_section": [4, 2, 2],
    "mrope_interleaved": True,
}
GREEDY_STEPS = 16


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = sys.argv[1:]
    torch.set_num_threads(1)
    os.makedirs(target, exist_ok=True)
    original = oracle.read_config(f"{source}/config.json")
    config = {**original, "rope_parameters": ROPE, "max_position_embeddings": 128}
    weights = {
        k: v.to_float32() for k, v in tensor_file.load(f"{source}/model.safetensors").items()
    }
    before = tensor_file.load(f"{source}/expected.safetensors")
    ids = before["input_ids"].array.tolist()

    model = oracle.build_model(config, weights)
    values, greedy_ids, margins = oracle.record(model, ids, GREEDY_STEPS)
    rotary = model.model.rotary_emb
    values["rope.inv_freq"] = rotary.inv_freq.numpy()
    moved = np.abs(values["logits"] - before["logits"].array).max()
    if moved < 0.1:
        sys.exit(
            f"the stretched model differs from the plain one by only {moved}: the case tests nothing"
        )
    kept = {k: v for k, v in values.items() if not is_bulky(k)}
    tensor_file.save(f"{target}/expected.safetensors", kept)
    write_json(f"{target}/config.json", config)
    case = {
        "name": os.path.basename(target),
        "weights": os.path.relpath(f"{source}/model.safetensors", target),
        "seq": len(ids),
        "compute_dtype": "float32",
        "stored_dtype": "bf16",
        "attention_scaling": float(rotary.attention_scaling),
        "greedy_ids": greedy_ids,
        "greedy_margin": margins,
    }
    write_json(f"{target}/case.json", case)
    print("logits moved by at most", moved, "; frequencies", rotary.inv_freq.tolist(), case)


def is_bulky(name):
    return name.startswith("hidden.") or (name.startswith("router.") and name.endswith(".logits"))


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
