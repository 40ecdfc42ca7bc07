#!/usr/bin/env python3
"""Rewrites a checkpoint in other layouts of the same model, so that the same logits are expected of it.

    make_layouts.py next SOURCE TARGET           Qwen3-Next: fused in_proj_qkvz / in_proj_ba, one tensor
                                                 per expert and projection, flat config
    make_layouts.py unfused SOURCE TARGET        one tensor per expert and projection, nothing else
    make_layouts.py F16|F32|BF16 SOURCE TARGET   the same tensors in another dtype
    make_layouts.py sharded SOURCE TARGET [BYTES]    several files of at most BYTES, and an index

SOURCE is a folder with config.json and one model.safetensors in the fused layout with the prefix
`model.`; TARGET gets its own config.json and model files. A dtype that cannot hold the values is
refused: then the logits would differ. The one loss allowed is that of F16 below its normal range, at
most 2^-25, which moves no logit by more than float32 noise.
"""

import json
import os
import sys

import numpy as np
import tensor_file
from tensor_file import StoredTensor

DEFAULT_SHARD_BYTES = 200_000
LARGEST_LOSS = 2.0**-25
# What qwen3_next has and qwen3_5_moe has not; these values mean the same model.
NEXT_DEFAULTS = {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
FULL_ATTENTION_INTERVAL = 4


def read_checkpoint(folder):
    with open(f"{folder}/config.json", encoding="utf-8") as f:
        return json.load(f), tensor_file.load(f"{folder}/model.safetensors")


def write_checkpoint(folder, config, tensors):
    os.makedirs(folder, exist_ok=True)
    write_json(f"{folder}/config.json", config)
    tensor_file.save(f"{folder}/model.safetensors", tensors, {"format": "pt"})


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def unfuse_experts(tensors):
    """experts.gate_up_proj [E, 2I, H] and experts.down_proj [E, H, I] -> one matrix per expert and
    projection. Gate rows come before up rows."""
    result = {}
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".")
        if last == "gate_up_proj":
            half = tensor.array.shape[1] // 2
            for expert, matrix in enumerate(tensor.array):
                result[f"{stem}.{expert}.gate_proj.weight"] = StoredTensor(
                    tensor.dtype, matrix[:half]
                )
                result[f"{stem}.{expert}.up_proj.weight"] = StoredTensor(
                    tensor.dtype, matrix[half:]
                )
        elif last == "down_proj" and stem.endswith(".experts"):
            for expert, matrix in enumerate(tensor.array):
                result[f"{stem}.{expert}.down_proj.weight"] = StoredTensor(tensor.dtype, matrix)
        else:
            result[name] = tensor
    return result


def fuse_delta_projections(tensors, config):
    """in_proj_qkv + in_proj_z -> in_proj_qkvz, in_proj_b + in_proj_a -> in_proj_ba.

    The rows of the fused matrices are blocks, one for each key head j with its r value heads:
    [q_j | k_j | v_jr .. | z_jr ..] and [b_jr .. | a_jr ..].
    """
    key_heads = config["linear_num_key_heads"]
    key_rows = key_heads * config["linear_key_head_dim"]

    def blocks(matrix):
        return matrix.reshape(key_heads, -1, matrix.shape[-1])

    result = dict(tensors)
    for name in tensors:
        if not name.endswith("linear_attn.in_proj_qkv.weight"):
            continue
        stem = name.removesuffix("in_proj_qkv.weight")
        qkv, z, b, a = (
            result.pop(f"{stem}in_proj_{part}.weight") for part in ("qkv", "z", "b", "a")
        )
        q, k, v = np.split(qkv.array, [key_rows, 2 * key_rows])
        width = qkv.array.shape[-1]
        for fused, parts in (("qkvz", (q, k, v, z.array)), ("ba", (b.array, a.array))):
            rows = np.concatenate([blocks(part) for part in parts], axis=1).reshape(-1, width)
            result[f"{stem}in_proj_{fused}.weight"] = StoredTensor(qkv.dtype, rows)
    return result


def next_config(config):
    """The flat form: rope fields beside the others, an interval in place of layer_types."""
    expected = [
        "full_attention" if (i + 1) % FULL_ATTENTION_INTERVAL == 0 else "linear_attention"
        for i in range(config["num_hidden_layers"])
    ]
    if config["layer_types"] != expected:
        sys.exit("layer_types do not follow the interval of 4; this model has no qwen3_next form")
    flat = {k: v for k, v in config.items() if k not in ("layer_types", "rope_parameters")}
    rope = config["rope_parameters"]
    flat.update(NEXT_DEFAULTS)
    flat.update(
        architectures=["Qwen3NextForCausalLM"],
        model_type="qwen3_next",
        full_attention_interval=FULL_ATTENTION_INTERVAL,
        rope_theta=rope["rope_theta"],
        partial_rotary_factor=rope["partial_rotary_factor"],
        rope_scaling=None,
        intermediate_size=4 * config["hidden_size"],  # unused: every layer has experts
    )
    return flat


def to_dtype(tensors, dtype):
    result = {}
    for name, tensor in tensors.items():
        values = tensor.to_float32()
        result[name] = tensor_file.from_float32(values, dtype)
        if not np.all(np.abs(result[name].to_float32() - values) <= LARGEST_LOSS):
            sys.exit(f"{name}: {dtype} cannot hold every value of this {tensor.dtype} tensor")
    return result


def write_sharded(folder, config, tensors, shard_bytes):
    os.makedirs(folder, exist_ok=True)
    write_json(f"{folder}/config.json", config)
    shards = [{}]
    filled = 0
    for name in sorted(tensors):
        size = tensors[name].array.nbytes
        if filled and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensors[name]
        filled += size
    files = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for file, shard in zip(files, shards):
        tensor_file.save(f"{folder}/{file}", shard, {"format": "pt"})
    index = {
        "metadata": {"total_size": sum(tensor.array.nbytes for tensor in tensors.values())},
        "weight_map": {name: file for file, shard in zip(files, shards) for name in shard},
    }
    write_json(f"{folder}/model.safetensors.index.json", index)


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    layout, source, target = sys.argv[1:4]
    config, tensors = read_checkpoint(source)
    if layout == "next":
        tensors = fuse_delta_projections(unfuse_experts(tensors), config)
        write_checkpoint(target, next_config(config), tensors)
    elif layout == "unfused":
        write_checkpoint(target, config, unfuse_experts(tensors))
    elif layout in ("F16", "F32", "BF16"):
        names = {"F16": "float16", "F32": "float32", "BF16": "bfloat16"}
        write_checkpoint(target, {**config, "dtype": names[layout]}, to_dtype(tensors, layout))
    elif layout == "sharded":
        shard_bytes = int(sys.argv[4]) if len(sys.argv) == 5 else DEFAULT_SHARD_BYTES
        write_sharded(target, config, tensors, shard_bytes)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
