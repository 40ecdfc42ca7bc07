#!/usr/bin/env python3
"""A folder of a published shape in MLX's 4 bits or in FP8 with random codes, to measure running in place.

    bench/coded_folder.py 35b mlx-4|fp8 TARGET [--layers N]
    build/release/penstock bench TARGET --budgets 100%,50%,25% -p 0 -n 64 --warm

Shapes are those of src/model/shapes.cc (bench/gguf_model.py writes GGUF of them). Tensors lie as their writers put them: of FP8
those of two bytes before those of one, each by name, so that an expert's matrices are neighbours and so are their scales; of MLX one
tensor of codes, scales and biases for all experts of a matrix. Weights have a deviation of 1/sqrt(columns). Needs numpy; no tokenizer
is written.
"""
import argparse
import json
import math
import os
import struct

import numpy as np

from gguf_model import CONV_KERNEL, FULL_ATTENTION_INTERVAL, ROTARY_SHARE, find_shape

GROUP, BITS, SQUARE = 64, 4, 128
PIECE = 1 << 24
# Deviation of what random codes stand for: of 0 to 15, and of all e4m3 bytes but NaN.
DEVIATION = {"mlx-4": 4.61, "fp8": 124.0}


def bf16(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype("<u2")


class Tensor:
    def __init__(self, name, dtype, shape, make):
        self.name, self.dtype, self.shape, self.make = name, dtype, shape, make
        self.count = math.prod(shape)
        self.bytes = self.count * {"U32": 4, "BF16": 2, "F8_E4M3": 1}[dtype]


def constant(name, shape, value):
    return Tensor(name, "BF16", shape, lambda random, count: np.full(count, bf16(value)))


def floats(name, shape, deviation):
    return Tensor(name, "BF16", shape,
                  lambda random, count: bf16(random.standard_normal(count, np.float32) * deviation))


def codes(name, dtype, shape):
    def make(random, count):
        if dtype == "U32":
            return random.integers(0, 1 << 32, count, np.uint32)
        values = random.integers(0, 254, count, np.uint8)
        return values + (values >= 0x7F)  # neither 0x7f nor 0xff
    return Tensor(name, dtype, shape, make)


def matrix(kind, module, columns, *rows):
    """rows: the last one of a matrix, before it how many matrices there are."""
    step = 1 / math.sqrt(columns) / DEVIATION[kind]
    if kind == "fp8":
        squares = [-(-rows[-1] // SQUARE), -(-columns // SQUARE)]
        return [codes(module + ".weight", "F8_E4M3", [*rows, columns]),
                constant(module + ".weight_scale_inv", squares, step)]
    groups = [*rows, columns // GROUP]
    return [codes(module + ".weight", "U32", [*rows, columns * BITS // 32]), constant(module + ".scales", groups, step),
            constant(module + ".biases", groups, -7.5 * step)]


def mixer(kind, base, shape, is_full):
    hidden, query, kv = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    if is_full:
        base += "self_attn."
        return (matrix(kind, base + "q_proj", hidden, 2 * query) + matrix(kind, base + "k_proj", hidden, kv) +
                matrix(kind, base + "v_proj", hidden, kv) + matrix(kind, base + "o_proj", query, hidden) +
                [constant(f"{base}{name}_norm.weight", [shape.head_dim], 1) for name in "qk"])
    base += "linear_attn."
    heads, values = shape.linear_v_heads, shape.linear_v_heads * shape.linear_head_dim
    channels = 2 * shape.linear_k_heads * shape.linear_head_dim + values
    kernel = [channels, CONV_KERNEL, 1] if kind == "mlx-4" else [channels, 1, CONV_KERNEL]
    return (matrix(kind, base + "in_proj_qkv", hidden, channels) + matrix(kind, base + "in_proj_z", hidden, values) +
            matrix(kind, base + "out_proj", values, hidden) +
            [floats(f"{base}in_proj_{name}.weight", [heads, hidden], 1 / math.sqrt(hidden)) for name in "ab"] +
            [floats(base + "conv1d.weight", kernel, 0.5), constant(base + "A_log", [heads], 0),
             constant(base + "dt_bias", [heads], 0), constant(base + "norm.weight", [shape.linear_head_dim], 1)])


def experts(kind, base, shape):
    sizes = {"gate_proj": (shape.hidden, shape.ffn), "up_proj": (shape.hidden, shape.ffn),
             "down_proj": (shape.ffn, shape.hidden)}
    tensors = [floats(base + "gate.weight", [shape.experts, shape.hidden], 1 / math.sqrt(shape.hidden)),
               floats(base + "shared_expert_gate.weight", [1, shape.hidden], 1 / math.sqrt(shape.hidden))]
    for name, (columns, rows) in sizes.items():
        tensors += matrix(kind, f"{base}shared_expert.{name}", columns, rows)
        if kind == "mlx-4":
            tensors += matrix(kind, f"{base}switch_mlp.{name}", columns, shape.experts, rows)
        else:
            for expert in range(shape.experts):
                tensors += matrix(kind, f"{base}experts.{expert}.{name}", columns, rows)
    return tensors


def tensors_of(kind, shape):
    prefix = "language_model." if kind == "mlx-4" else ""
    norm = 1 if kind == "mlx-4" else 0  # stored as 1 + w there
    deviation = 1 / math.sqrt(shape.hidden)
    tensors = [floats(prefix + "model.embed_tokens.weight", [shape.vocab, shape.hidden], 1),
               floats(prefix + "lm_head.weight", [shape.vocab, shape.hidden], deviation),
               constant(prefix + "model.norm.weight", [shape.hidden], norm)]
    for layer in range(shape.layers):
        base = f"{prefix}model.layers.{layer}."
        tensors += [constant(f"{base}{name}_layernorm.weight", [shape.hidden], norm)
                    for name in ("input", "post_attention")]
        tensors += mixer(kind, base, shape, (layer + 1) % FULL_ATTENTION_INTERVAL == 0)
        tensors += experts(kind, base + "mlp.", shape)
    return sorted(tensors, key=lambda t: (t.dtype == "F8_E4M3", t.name))


def config_of(kind, shape):
    quantisation = {"group_size": GROUP, "bits": BITS, "mode": "affine"}
    fp8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [SQUARE, SQUARE]}
    layers = ["full_attention" if (i + 1) % FULL_ATTENTION_INTERVAL == 0 else "linear_attention"
              for i in range(shape.layers)]
    return {"model_type": "qwen3_5_moe_text", "vocab_size": shape.vocab, "hidden_size": shape.hidden,
            "num_hidden_layers": shape.layers, "layer_types": layers, "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "attention_bias": False,
            "linear_num_key_heads": shape.linear_k_heads, "linear_num_value_heads": shape.linear_v_heads,
            "linear_key_head_dim": shape.linear_head_dim, "linear_value_head_dim": shape.linear_head_dim,
            "linear_conv_kernel_dim": CONV_KERNEL, "hidden_act": "silu", "num_experts": shape.experts,
            "num_experts_per_tok": shape.experts_used, "moe_intermediate_size": shape.ffn,
            "shared_expert_intermediate_size": shape.ffn, "rms_norm_eps": 1e-6,
            "max_position_embeddings": shape.context, "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": float(shape.rope_theta),
                                "partial_rotary_factor": 1 / ROTARY_SHARE},
            **({"quantization": quantisation} if kind == "mlx-4" else {"quantization_config": fp8})}


def write(folder, kind, shape, seed):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config_of(kind, shape), file, indent=1)
    tensors, header, end = tensors_of(kind, shape), {}, 0
    for tensor in tensors:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end + tensor.bytes]}
        end += tensor.bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(seed)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            for done in range(0, tensor.count, PIECE):
                tensor.make(random, min(PIECE, tensor.count - done)).tofile(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("shape")
    parser.add_argument("kind", choices=DEVIATION)
    parser.add_argument("target")
    parser.add_argument("--layers", type=int, default=0, help="fewer than the shape has")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    write(options.target, options.kind, find_shape(options.shape, options.layers), options.seed)


if __name__ == "__main__":
    main()
