#!/usr/bin/env python3
"""A case for the prediction block (MTP): random weights for one beside a random checkpoint, and what it drafts.

    mtp_case.py RANDOM_DIR/r0-gva2 RANDOM_DIR/r5-mtp

Writes mtp.safetensors (the block alone, experts one tensor each, as Qwen3.5 stores them), config.json,
case.json, whose "weights" points to the source's file, and expected.safetensors with draft_logits
[n - 1, vocabulary]: row p is the block's prediction of token p + 2 from the model's final hidden
state of position p and token p + 1 of the source's prompt. The block's layer is run by transformers
as a model of one full-attention layer whose embeddings are given; fc and its norms are done here.
"""

import os
import sys

import numpy as np
import oracle
import tensor_file
import torch
from yarn_case import write_json

SEED = 11


def random_block(config, rng):
    """{name: float32 array of bf16 values}, names without "mtp."."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    experts, width = config["num_experts"], config["moe_intermediate_size"]
    shared = config["shared_expert_intermediate_size"]
    shapes = {
        "fc.weight": (hidden, 2 * hidden),
        "layers.0.self_attn.q_proj.weight": (2 * queries, hidden),
        "layers.0.self_attn.k_proj.weight": (keys, hidden),
        "layers.0.self_attn.v_proj.weight": (keys, hidden),
        "layers.0.self_attn.o_proj.weight": (hidden, queries),
        "layers.0.mlp.gate.weight": (experts, hidden),
        "layers.0.mlp.shared_expert_gate.weight": (1, hidden),
        "layers.0.mlp.shared_expert.gate_proj.weight": (shared, hidden),
        "layers.0.mlp.shared_expert.up_proj.weight": (shared, hidden),
        "layers.0.mlp.shared_expert.down_proj.weight": (hidden, shared),
    }
    for expert in range(experts):
        base = f"layers.0.mlp.experts.{expert}."
        shapes[base + "gate_proj.weight"] = (width, hidden)
        shapes[base + "up_proj.weight"] = (width, hidden)
        shapes[base + "down_proj.weight"] = (hidden, width)
    norms = {
        "pre_fc_norm_embedding.weight": hidden,
        "pre_fc_norm_hidden.weight": hidden,
        "norm.weight": hidden,
        "layers.0.input_layernorm.weight": hidden,
        "layers.0.post_attention_layernorm.weight": hidden,
        "layers.0.self_attn.q_norm.weight": head,
        "layers.0.self_attn.k_norm.weight": head,
    }
    block = {name: rng.standard_normal(shape) * shape[1] ** -0.5 for name, shape in shapes.items()}
    block |= {name: rng.standard_normal(width) * 0.2 for name, width in norms.items()}
    as_bf16 = tensor_file.float32_to_bf16_bits
    return {
        name: tensor_file.bf16_bits_to_float32(as_bf16(values.astype(np.float32)))
        for name, values in block.items()
    }


def rms1(x, weight, eps):
    """The zero-centred norm: times 1 + weight."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * (1 + torch.from_numpy(weight))


def one_layer_model(config, weights, block):
    """The block's layer, its norm and the model's head, as a model of one layer."""
    layer = {}
    experts = range(config["num_experts"])
    for name, values in block.items():
        if name.startswith("layers.0.") and ".experts." not in name:
            layer["model." + name] = values
    base = "layers.0.mlp.experts."
    layer["model." + base + "gate_up_proj"] = np.stack(
        [
            np.concatenate([block[f"{base}{e}.gate_proj.weight"], block[f"{base}{e}.up_proj.weight"]])
            for e in experts
        ]
    )
    layer["model." + base + "down_proj"] = np.stack(
        [block[f"{base}{e}.down_proj.weight"] for e in experts]
    )
    layer["model.norm.weight"] = block["norm.weight"]
    layer["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"]
    layer["lm_head.weight"] = weights["lm_head.weight"]
    small = {**config, "num_hidden_layers": 1, "layer_types": ["full_attention"]}
    return oracle.build_model(small, layer)


@torch.no_grad()
def draft_logits(config, weights, block, hidden, ids):
    embedding = torch.from_numpy(np.array(weights["model.embed_tokens.weight"]))[ids[1:]]
    eps = config["rms_norm_eps"]
    pairs = torch.cat(
        [
            rms1(embedding, block["pre_fc_norm_embedding.weight"], eps),
            rms1(torch.from_numpy(hidden[:-1]), block["pre_fc_norm_hidden.weight"], eps),
        ],
        dim=-1,
    )
    x = pairs @ torch.from_numpy(block["fc.weight"]).T
    model = one_layer_model(config, weights, block)
    return model(inputs_embeds=x[None], use_cache=False).logits[0].numpy()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = sys.argv[1:]
    torch.set_num_threads(1)
    os.makedirs(target, exist_ok=True)
    config = oracle.read_config(f"{source}/config.json")
    weights = {
        k: v.to_float32() for k, v in tensor_file.load(f"{source}/model.safetensors").items()
    }
    before = tensor_file.load(f"{source}/expected.safetensors")
    ids = before["input_ids"].array.tolist()
    values, _, _ = oracle.record(oracle.build_model(config, weights), ids, 1)

    block = random_block(config, np.random.default_rng(SEED))
    logits = draft_logits(config, weights, block, values["hidden.final_norm"], ids)
    tensor_file.save(
        f"{target}/mtp.safetensors",
        {
            f"mtp.{name}": tensor_file.StoredTensor("BF16", tensor_file.float32_to_bf16_bits(array))
            for name, array in block.items()
        },
    )
    expected = {"input_ids": values["input_ids"], "draft_logits": logits}
    tensor_file.save(f"{target}/expected.safetensors", expected)
    write_json(f"{target}/config.json", {**config, "mtp_num_hidden_layers": 1})
    case = {
        "name": os.path.basename(target),
        "weights": os.path.relpath(f"{source}/model.safetensors", target),
        "seq": len(ids),
        "compute_dtype": "float32",
        "stored_dtype": "bf16",
        "seed": SEED,
    }
    write_json(f"{target}/case.json", case)
    print("draft logits", logits.shape, "largest", np.abs(logits).max())


if __name__ == "__main__":
    main()
