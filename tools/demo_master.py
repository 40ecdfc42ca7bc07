#!/usr/bin/env python3
"""Writes the demo model, which is kept packed, as a Hugging Face folder again: the values that its codes stand for.

    tools/demo_master.py build/demo-model TARGET [--dtype BF16|F32]

F32 is exactly what the packed model computes with. BF16 rounds that once more: the checkpoint to make other formats of
(tools/demo_formats.py). Reads the first version of the packed format (docs/formats.md), panels of bf16, f32, q8 and q4; needs numpy.
"""
import argparse
import json
import os
import shutil
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference"))
import tensor_file  # noqa: E402

ROWS, COLUMNS = 16, 64
TEXTS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
CODES_OF_A_WORD = {"q8": 4, "q4": 8}


def from_panels(data, dtype, rows, columns):
    """Bytes of a matrix in panels -> float32 [rows, columns]."""
    panels, blocks = -(-rows // ROWS), -(-columns // COLUMNS)
    raw = np.frombuffer(data, np.uint8).reshape(panels, blocks, -1)
    if dtype == "f32":
        values = raw.view(np.float32).reshape(panels, blocks, COLUMNS, ROWS)
    elif dtype == "bf16":
        words = raw.view(np.uint32).reshape(panels, blocks, COLUMNS // 2, 1, ROWS)
        values = (np.concatenate([words << 16, words & 0xFFFF0000], 3)).view(np.float32)
        values = values.reshape(panels, blocks, COLUMNS, ROWS)
    else:
        each = CODES_OF_A_WORD[dtype]
        bits, count = 32 // each, COLUMNS // each
        words = raw[..., :4 * ROWS * count].copy().view(np.uint32).reshape(panels, blocks, count, 1, ROWS)
        shifts = (np.arange(each, dtype=np.uint32) * bits).reshape(each, 1)
        codes = (words >> shifts & np.uint32((1 << bits) - 1)).reshape(panels, blocks, COLUMNS, ROWS)
        tail = raw[..., 4 * ROWS * count:].copy().view(np.uint16).astype(np.uint32) << 16
        scale, bias = np.split(tail.view(np.float32).reshape(panels, blocks, 2, ROWS), 2, 2)
        values = scale * codes.astype(np.float32) + bias
    return values.transpose(0, 3, 1, 2).reshape(panels * ROWS, blocks * COLUMNS)[:rows, :columns]


def resident_tensors(folder, manifest):
    with open(os.path.join(folder, "resident.bin"), "rb") as file:
        data = file.read()
    for tensor in manifest["resident"]["tensors"]:
        piece = data[tensor["offset"]:tensor["offset"] + tensor["bytes"]]
        rows, columns = tensor["rows"], tensor["columns"]
        if tensor["layout"] == "plain":
            yield tensor["name"], np.frombuffer(piece, np.float32).reshape(rows, columns)
        else:
            yield tensor["name"], from_panels(piece, tensor["dtype"], rows, columns)


def named_as_in_the_source(name, values):
    """A resident tensor in normal form -> its name and values in a checkpoint of qwen3_5_moe."""
    if name == "lm_head":
        return "lm_head.weight", values
    name = "model." + name
    if name.endswith(("layernorm", "q_norm", "k_norm", "model.norm")):
        return name + ".weight", values[0] - 1
    if name.endswith("decay"):
        return name.removesuffix("decay") + "A_log", np.log(-values[0])
    if name.endswith("dt_bias"):
        return name, values[0]
    if name.endswith("linear_attn.norm"):
        return name + ".weight", values[0]
    if name.endswith("conv1d"):
        return name + ".weight", values[:, None, :]
    return name + ".weight", values


def expert_tensors(folder, manifest):
    shape = manifest["experts"]
    hidden, width = shape["hidden_size"], shape["intermediate_size"]
    with open(os.path.join(folder, "experts.bin"), "rb") as file:
        records = np.frombuffer(file.read(), np.uint8).reshape(shape["layers"], shape["experts"], -1)
    for layer in range(shape["layers"]):
        for part, name, rows, columns in (("gate_up", "gate_up_proj", 2 * width, hidden), ("down", "down_proj", hidden, width)):
            begin = shape[part + "_offset"]
            matrices = [from_panels(record[begin:begin + shape[part + "_bytes"]].tobytes(), shape["dtype"], rows, columns)
                        for record in records[layer]]
            yield f"model.layers.{layer}.mlp.experts.{name}", np.stack(matrices)


def read_packed(folder):
    """{name in the source: float32 array}"""
    with open(os.path.join(folder, "penstock.json")) as file:
        manifest = json.load(file)
    if manifest["version"] != 1:
        raise SystemExit(f"{folder}: version {manifest['version']} of the format, version 1 can be read")
    model = dict(named_as_in_the_source(name, values) for name, values in resident_tensors(folder, manifest))
    model.update(expert_tensors(folder, manifest))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--dtype", choices=["BF16", "F32"], default="BF16")
    options = parser.parse_args()
    os.makedirs(options.target, exist_ok=True)
    for name in TEXTS:
        shutil.copy(os.path.join(options.source, name), options.target)
    # As in the original: the decay is not rounded.
    tensors = {name: tensor_file.from_float32(values, "F32" if name.endswith("A_log") else options.dtype)
               for name, values in read_packed(options.source).items()}
    tensor_file.save(os.path.join(options.target, "model.safetensors"), tensors)


if __name__ == "__main__":
    main()
