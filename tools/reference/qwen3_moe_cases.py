#!/usr/bin/env python3
"""Random checkpoints of qwen3_moe, and what transformers' own class computes with them in float32.

    qwen3_moe_cases.py RANDOM_DIR

Writes RANDOM_DIR/CASE with config.json, model.safetensors, expected.safetensors and case.json, as
tests/data/README.md describes them. Experts are stored one tensor each, as the published checkpoints
do. router.N counts the layers that have experts.
"""

import os
import sys

import numpy as np
import oracle
import tensor_file
import torch
from yarn_case import is_bulky, write_json

GREEDY_STEPS = 16

COMMON = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rms_norm_eps": 1e-06,
    "max_position_embeddings": 512,
    "initializer_range": 0.02,
    "use_cache": True,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 4,
    "vocab_size": 257,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "rope_theta": 1000000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "eos_token_id": 256,
    "pad_token_id": None,
    "bos_token_id": None,
    "torch_dtype": "bfloat16",
}

# What each has of its own: name -> (config, dtype, tokens of the prompt).
CASES = {
    "m0-plain": ({}, "BF16", 70),
    "m1-raw": (
        {"norm_topk_prob": False, "attention_bias": True, "num_experts_per_tok": 2, "head_dim": 32},
        "BF16",
        60,
    ),
    # Layers 1, 3 and 5 by the step, of which 1 is named as dense.
    "m2-dense": (
        {"num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [1]},
        "BF16",
        60,
    ),
    "m3-tied": (
        {"tie_word_embeddings": True, "norm_topk_prob": False, "num_key_value_heads": 6,
         "torch_dtype": "float32"},
        "F32",
        50,
    ),
}


def has_experts(config, layer):
    return layer not in config["mlp_only_layers"] and (layer + 1) % config["decoder_sparse_step"] == 0


def shapes_of(config):
    """{name: shape} as in a published checkpoint."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        base = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{base}{name}.weight"] = (hidden,)
        projections = {"q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, queries)}
        for name, shape in projections.items():
            shapes[f"{base}self_attn.{name}_proj.weight"] = shape
            if config["attention_bias"]:
                shapes[f"{base}self_attn.{name}_proj.bias"] = shape[:1]
        for name in ("q_norm", "k_norm"):
            shapes[f"{base}self_attn.{name}.weight"] = (head,)
        if not has_experts(config, layer):
            shapes |= ffn_shapes(f"{base}mlp.", hidden, config["intermediate_size"])
            continue
        shapes[f"{base}mlp.gate.weight"] = (config["num_experts"], hidden)
        for expert in range(config["num_experts"]):
            shapes |= ffn_shapes(f"{base}mlp.experts.{expert}.", hidden, config["moe_intermediate_size"])
    return shapes


def ffn_shapes(base, hidden, width):
    return {
        f"{base}gate_proj.weight": (width, hidden),
        f"{base}up_proj.weight": (width, hidden),
        f"{base}down_proj.weight": (hidden, width),
    }


def random_weights(config, dtype, rng):
    """{name: StoredTensor}. Norms lie around one, biases around zero."""
    weights = {}
    for name, shape in shapes_of(config).items():
        values = rng.standard_normal(shape)
        if name.endswith("norm.weight"):
            values = 1 + 0.2 * values
        elif name.endswith(".bias"):
            values = 0.3 * values
        elif "embed_tokens" not in name:
            # A router of some opinion, else all weights are alike.
            values = values * shape[1] ** -0.5 * (2 if name.endswith("mlp.gate.weight") else 1)
        elif config["tie_word_embeddings"]:
            values = 0.5 * values
        weights[name] = tensor_file.from_float32(values.astype(np.float32), dtype)
    return weights


def as_the_class_has_them(config, stored):
    """Float32, with the experts of a layer in two tensors."""
    weights = {k: v.to_float32() for k, v in stored.items() if ".experts." not in k}
    for layer in range(config["num_hidden_layers"]):
        if not has_experts(config, layer):
            continue
        base = f"model.layers.{layer}.mlp.experts."
        part = lambda expert, name: stored[f"{base}{expert}.{name}_proj.weight"].to_float32()  # noqa: E731
        experts = range(config["num_experts"])
        weights[base + "gate_up_proj"] = np.stack(
            [np.concatenate([part(e, "gate"), part(e, "up")]) for e in experts]
        )
        weights[base + "down_proj"] = np.stack([part(e, "down") for e in experts])
    return weights


def write_case(target, name, seed):
    own, dtype, length = CASES[name]
    config = {**COMMON, **own}
    rng = np.random.default_rng(seed)
    stored = random_weights(config, dtype, rng)
    ids = rng.integers(0, config["vocab_size"] - 1, size=length).tolist()
    model = oracle.build_model(config, as_the_class_has_them(config, stored))
    values, greedy_ids, margins = oracle.record(model, ids, GREEDY_STEPS)
    os.makedirs(target, exist_ok=True)
    tensor_file.save(f"{target}/model.safetensors", stored)
    tensor_file.save(
        f"{target}/expected.safetensors", {k: v for k, v in values.items() if not is_bulky(k)}
    )
    write_json(f"{target}/config.json", config)
    case = {
        "name": name,
        "seq": length,
        "compute_dtype": "float32",
        "stored_dtype": dtype.lower(),
        "seed": seed,
        "greedy_ids": greedy_ids,
        "greedy_margin": margins,
    }
    write_json(f"{target}/case.json", case)
    print(name, "largest logit", np.abs(values["logits"]).max(), "smallest margin", min(margins))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for seed, name in enumerate(CASES, start=20):
        write_case(f"{sys.argv[1]}/{name}", name, seed)


if __name__ == "__main__":
    main()
