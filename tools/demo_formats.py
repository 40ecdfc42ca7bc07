#!/usr/bin/env python3
"""Writes a BF16 model (a Hugging Face folder of qwen3_5_moe) in the formats that people have.

    pip install gguf 'mlx[cpu]' ml_dtypes numpy safetensors
    tools/demo_master.py build/demo-model SOURCE           # or any other folder of that shape
    tools/demo_formats.py SOURCE TARGET [q8_0 q4_0 q4_k_m mlx-4 fp8] [--twins FOLDER]

TARGET/q8_0.gguf, q4_0.gguf and q4_k_m.gguf are laid out as the format's converter and quantiser do it (names, order of value
heads, types that never change, types that rows of other widths fall back to), TARGET/mlx-4 as mlx-lm does it, TARGET/fp8
as the published FP8 repositories. 32-blocks are rounded by the package `gguf`, MLX's groups by `mlx`; Q4_K and Q6_K by plain
rounding here, as the package only reads them. Made for tests of running in place: `penstock run TARGET/q4_0.gguf ...`.

FOLDER/KIND is then a folder in F32 of the values that TARGET/KIND stands for, as the public packages decode what was written, with
the names and orders of SOURCE: whoever reads the format must compute the same with both (tests/cli/formats_test.py).
"""
import argparse
import json
import os
import re
import shutil
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

KINDS = ["q8_0", "q4_0", "q4_k_m", "mlx-4", "fp8"]
LAYER = re.compile(r"model\.layers\.(\d+)\.(.*)")
NAMES = {"input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "post_attention_norm.weight",
         "self_attn.q_proj.weight": "attn_q.weight", "self_attn.k_proj.weight": "attn_k.weight",
         "self_attn.v_proj.weight": "attn_v.weight", "self_attn.o_proj.weight": "attn_output.weight",
         "self_attn.q_norm.weight": "attn_q_norm.weight", "self_attn.k_norm.weight": "attn_k_norm.weight",
         "linear_attn.in_proj_qkv.weight": "attn_qkv.weight", "linear_attn.in_proj_z.weight": "attn_gate.weight",
         "linear_attn.in_proj_b.weight": "ssm_beta.weight", "linear_attn.in_proj_a.weight": "ssm_alpha.weight",
         "linear_attn.conv1d.weight": "ssm_conv1d.weight", "linear_attn.A_log": "ssm_a",
         "linear_attn.dt_bias": "ssm_dt.bias", "linear_attn.norm.weight": "ssm_norm.weight",
         "linear_attn.out_proj.weight": "ssm_out.weight", "mlp.gate.weight": "ffn_gate_inp.weight",
         "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
         "mlp.shared_expert.gate_proj.weight": "ffn_gate_shexp.weight",
         "mlp.shared_expert.up_proj.weight": "ffn_up_shexp.weight",
         "mlp.shared_expert.down_proj.weight": "ffn_down_shexp.weight"}
FLOATS = ("norm.weight", "ssm_a", "ssm_dt.bias", "ssm_conv1d.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight")
FALLBACK = {T.Q4_K: T.Q5_0, T.Q6_K: T.Q8_0}


def read_model(folder):
    """Every tensor in float32."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        data = file.read()
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        if info["dtype"] == "BF16":
            words = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
            values = words.view(np.float32)
        else:
            values = np.frombuffer(data[begin:end], np.float32)
        tensors[name] = values.reshape(info["shape"])
    return tensors


def zero_centred(name):
    return name.endswith(("layernorm.weight", "q_norm.weight", "k_norm.weight")) or name == "model.norm.weight"


# --- K-quants by plain rounding


def k_scales(low, high):
    """Eight scales and eight minima of 6 bits in 12 bytes."""
    packed = np.zeros(low.shape[:-1] + (12,), np.uint8)
    packed[..., :4] = low[..., :4] | (low[..., 4:] >> 4) << 6
    packed[..., 4:8] = high[..., :4] | (high[..., 4:] >> 4) << 6
    packed[..., 8:] = low[..., 4:] & 15 | (high[..., 4:] & 15) << 4
    return packed


def half(values):
    return values.astype(np.float16)[..., None].view(np.uint8)


def to_q4_k(values):
    groups = values.reshape(-1, 8, 32)
    low = np.minimum(groups.min(-1), 0)
    step = (groups.max(-1) - low) / 15
    d, m = (step.max(-1) / 63).astype(np.float16), (-low.min(-1) / 63).astype(np.float16)
    d32, m32 = d.astype(np.float32)[:, None], m.astype(np.float32)[:, None]
    scales = np.clip(np.rint(np.divide(step, d32, out=np.zeros_like(step), where=d32 > 0)), 0, 63)
    minima = np.clip(np.rint(np.divide(-low, m32, out=np.zeros_like(step), where=m32 > 0)), 0, 63)
    real = (scales * d32)[..., None]
    codes = np.divide(groups + (minima * m32)[..., None], real, out=np.zeros_like(groups), where=real > 0)
    codes = np.clip(np.rint(codes), 0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    packed = (codes[:, :, 0] | codes[:, :, 1] << 4).reshape(-1, 128)
    return np.concatenate([half(d).reshape(-1, 2), half(m).reshape(-1, 2),
                           k_scales(scales.astype(np.uint8), minima.astype(np.uint8)), packed], 1)


def to_q6_k(values):
    groups = values.reshape(-1, 16, 16)
    step = np.abs(groups).max(-1) / 31
    d = (step.max(-1) / 127).astype(np.float16)
    d32 = d.astype(np.float32)[:, None]
    scales = np.clip(np.rint(np.divide(step, d32, out=np.zeros_like(step), where=d32 > 0)), 0, 127)
    real = (scales * d32)[..., None]
    codes = np.divide(groups, real, out=np.zeros_like(groups), where=real > 0)
    codes = (np.clip(np.rint(codes), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.concatenate([codes[:, :, 0] & 15 | (codes[:, :, 2] & 15) << 4,
                          codes[:, :, 1] & 15 | (codes[:, :, 3] & 15) << 4], -1).reshape(-1, 128)
    high = (codes[:, :, 0] >> 4 | codes[:, :, 1] >> 4 << 2 | codes[:, :, 2] >> 4 << 4 |
            codes[:, :, 3] >> 4 << 6).reshape(-1, 64)
    return np.concatenate([low, high, scales.astype(np.int8).view(np.uint8), half(d).reshape(-1, 2)], 1)


def quantise(values, kind):
    if kind not in (T.Q4_K, T.Q6_K):
        return quants.quantize(values, kind)
    blocks = (to_q4_k if kind is T.Q4_K else to_q6_k)(values.astype(np.float32))
    packed = blocks.reshape(values.shape[:-1] + (-1,))
    error = np.abs(quants.dequantize(packed, kind) - values).max() / np.abs(values).max()
    assert error < 0.25, (kind, error)
    return packed


# --- GGUF


def tile_heads(name, values, config, back=False):
    """Value heads by number within their key head first, as the converter puts them."""
    keys, heads = config["linear_num_key_heads"], config["linear_num_value_heads"]
    key_rows = 2 * keys * config["linear_key_head_dim"]

    def tile(rows):
        first, second = (heads // keys, keys) if back else (keys, heads // keys)
        grouped = rows.reshape((first, second, rows.shape[0] // heads) + rows.shape[1:])
        return grouped.swapaxes(0, 1).reshape(rows.shape)

    if name in ("attn_qkv.weight", "ssm_conv1d.weight"):
        return np.concatenate([values[:key_rows], tile(values[key_rows:])])
    if name in ("attn_gate.weight", "ssm_alpha.weight", "ssm_beta.weight", "ssm_a", "ssm_dt.bias"):
        return tile(values)
    if name == "ssm_out.weight":
        return tile(values.T).T
    return values


def gguf_tensors(model, config):
    """Names there, values, names here."""
    for name, values in model.items():
        if zero_centred(name):
            values = values + np.float32(1)
        found = LAYER.match(name)
        if not found:
            yield {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                   "lm_head.weight": "output.weight"}[name], values, name
            continue
        block, rest = f"blk.{found[1]}.", found[2]
        if rest == "mlp.experts.gate_up_proj":
            half_rows = values.shape[1] // 2
            yield block + "ffn_gate_exps.weight", values[:, :half_rows], name
            yield block + "ffn_up_exps.weight", values[:, half_rows:], name
        elif rest == "mlp.experts.down_proj":
            yield block + "ffn_down_exps.weight", values, name
        else:
            short = NAMES[rest]
            if short == "ssm_a":
                values = -np.exp(values)
            if short == "ssm_conv1d.weight":
                values = values[:, 0]
            # Queries of a full-attention layer have names of their own; attn_qkv is the delta-net's.
            tiled = rest.startswith("linear_attn.")
            yield block + short, tile_heads(short, values, config) if tiled else values, name


def from_gguf(name, values, here, config):
    """What gguf_tensors made of a tensor, undone."""
    short = name.split(".", 2)[-1]
    if ".linear_attn." in here:
        values = tile_heads(short, values, config, back=True)
    if short == "ssm_a":
        return np.log(-values)
    if short == "ssm_conv1d.weight":
        return values[:, None]
    return values - np.float32(1) if zero_centred(here) else values


def type_of(name, width, layer, layers, kind):
    if name.endswith(FLOATS):
        return T.F32
    if kind == "q8_0":
        wanted = T.Q8_0
    elif kind == "q4_0":
        wanted = T.Q6_K if name == "output.weight" else T.Q4_0
    else:
        is_outer = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
        more = name.endswith(("attn_v.weight", "attn_qkv.weight", "ffn_down_exps.weight", "ffn_down_shexp.weight"))
        wanted = T.Q6_K if name == "output.weight" or (more and is_outer) else T.Q4_K
    if width % 256 != 0:
        wanted = FALLBACK.get(wanted, wanted)
    return wanted if width % 32 == 0 else T.F16


def add_tokenizer(writer, source):
    with open(os.path.join(source, "tokenizer.json")) as file:
        tokenizer = json.load(file)
    vocabulary = {i: (text, 1) for text, i in tokenizer["model"]["vocab"].items()}
    for token in tokenizer["added_tokens"]:
        vocabulary[token["id"]] = (token["content"], 3 if token["special"] else 4)
    count = max(vocabulary) + 1
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen35")
    writer.add_token_list([vocabulary.get(i, (f"[PAD{i}]", 5))[0] for i in range(count)])
    writer.add_token_types([vocabulary.get(i, ("", 5))[1] for i in range(count)])
    writer.add_token_merges(merges)
    with open(os.path.join(source, "generation_config.json")) as file:
        stops = json.load(file)["eos_token_id"]
    writer.add_eos_token_id(stops[0] if isinstance(stops, list) else stops)
    with open(os.path.join(source, "chat_template.jinja")) as file:
        writer.add_chat_template(file.read())


def write_gguf(source, target, kind, model, config):
    arch = "qwen35moe"
    writer = gguf.GGUFWriter(os.path.join(target, kind + ".gguf"), arch)
    layers = config["num_hidden_layers"]
    numbers = {"block_count": layers, "context_length": config["max_position_embeddings"],
               "embedding_length": config["hidden_size"], "attention.head_count": config["num_attention_heads"],
               "attention.head_count_kv": config["num_key_value_heads"], "attention.key_length": config["head_dim"],
               "attention.value_length": config["head_dim"], "expert_count": config["num_experts"],
               "expert_used_count": config["num_experts_per_tok"],
               "expert_feed_forward_length": config["moe_intermediate_size"],
               "expert_shared_feed_forward_length": config["shared_expert_intermediate_size"],
               "ssm.conv_kernel": config["linear_conv_kernel_dim"], "ssm.state_size": config["linear_key_head_dim"],
               "ssm.group_count": config["linear_num_key_heads"],
               "ssm.time_step_rank": config["linear_num_value_heads"],
               "ssm.inner_size": config["linear_num_value_heads"] * config["linear_value_head_dim"],
               "full_attention_interval": 4,
               "rope.dimension_count": int(config["head_dim"] * config["rope_parameters"]["partial_rotary_factor"])}
    for key, value in numbers.items():
        writer.add_uint32(f"{arch}.{key}", value)
    writer.add_float32(f"{arch}.rope.freq_base", config["rope_parameters"]["rope_theta"])
    writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    writer.add_array(f"{arch}.attention.recurrent_layers", [t == "linear_attention" for t in config["layer_types"]])
    add_tokenizer(writer, source)
    twin = {}
    for name, values, here in gguf_tensors(model, config):
        layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
        wanted = type_of(name, values.shape[-1], layer, layers, kind)
        values = np.ascontiguousarray(values)
        if wanted is T.F32:
            writer.add_tensor(name, values)
        else:
            packed = quantise(values, wanted)
            writer.add_tensor(name, packed, raw_dtype=wanted)
            values = quants.dequantize(packed, wanted)
        values = from_gguf(name, values, here, config)
        twin[here] = np.concatenate([twin[here], values], 1) if here in twin else values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return twin


# --- folders


def start_folder(source, folder, changes):
    os.makedirs(folder, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        shutil.copy(os.path.join(source, name), folder)
    with open(os.path.join(source, "config.json")) as file:
        config = json.load(file)
    config.update(changes)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file, indent=1)


def write_mlx(source, target, model, config):
    import mlx.core as mx
    folder = os.path.join(target, "mlx-4")
    own, tensors, twin = {}, {}, {}

    def in_floats(values):
        return np.array(values.astype(mx.float32))

    def put(module, values, bits=4):
        """-> the values that it stands for."""
        values = mx.array(values).astype(mx.bfloat16)
        if values.shape[-1] % 64 != 0:
            tensors[module + ".weight"] = values
            return in_floats(values)
        parts = mx.quantize(values, group_size=64, bits=bits)
        for name, part in zip(("weight", "scales", "biases"), parts):
            tensors[f"{module}.{name}"] = part
        if bits != 4:
            own[module] = {"group_size": 64, "bits": bits}
        codes, scales, biases = parts
        return np.array(mx.dequantize(codes, scales.astype(mx.float32), biases.astype(mx.float32), group_size=64, bits=bits))

    for here, values in model.items():
        name = "language_model." + here
        module = name.removesuffix(".weight")
        if name.endswith("experts.gate_up_proj"):
            base, rows = name.removesuffix("experts.gate_up_proj") + "switch_mlp.", values.shape[1] // 2
            twin[here] = np.concatenate([put(base + "gate_proj", values[:, :rows]), put(base + "up_proj", values[:, rows:])], 1)
        elif name.endswith("experts.down_proj"):
            twin[here] = put(name.removesuffix("experts.down_proj") + "switch_mlp.down_proj", values)
        elif name.endswith("conv1d.weight"):
            tensors[name] = mx.array(values[:, 0, :, None]).astype(mx.bfloat16)
            twin[here] = in_floats(tensors[name])[:, None, :, 0]
        elif name.endswith("A_log"):
            tensors[name] = mx.array(values)
            twin[here] = values
        elif zero_centred(here):
            tensors[name] = mx.array(values + np.float32(1)).astype(mx.bfloat16)
            twin[here] = in_floats(tensors[name]) - 1
        elif values.ndim == 1:
            tensors[name] = mx.array(values).astype(mx.bfloat16)
            twin[here] = in_floats(tensors[name])
        else:
            twin[here] = put(module, values, 8 if name.endswith(("mlp.gate.weight", "shared_expert_gate.weight")) else 4)
    quantisation = {"group_size": 64, "bits": 4, "mode": "affine", **own}
    start_folder(source, folder, {"quantization": quantisation, "quantization_config": quantisation})
    mx.save_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    return twin


def write_fp8(source, target, model, config):
    import ml_dtypes
    from safetensors.numpy import save_file
    folder = os.path.join(target, "fp8")
    tensors, twin = {}, {}

    def put(module, values):
        """-> the values that it stands for."""
        rows, columns = (-(-n // 128) for n in values.shape)
        scales = np.zeros((rows, columns), np.float32)
        codes = np.zeros(values.shape, ml_dtypes.float8_e4m3fn)
        for i in range(rows):
            for j in range(columns):
                square = np.s_[128 * i:128 * i + 128, 128 * j:128 * j + 128]
                scale = max(np.abs(values[square]).max() / 448, 1e-12)
                scales[i, j] = np.float32(np.array(scale).astype(ml_dtypes.bfloat16))
                codes[square] = np.clip(values[square] / scales[i, j], -448, 448).astype(ml_dtypes.float8_e4m3fn)
        tensors[module + ".weight"] = codes
        tensors[module + ".weight_scale_inv"] = scales.astype(ml_dtypes.bfloat16)
        each = scales.repeat(128, 0).repeat(128, 1)[:values.shape[0], :values.shape[1]]
        return codes.astype(np.float32) * each

    for name, values in model.items():
        if ".experts." in name:
            base, part = name.rsplit(".", 1)
            twins = []
            for expert, matrix in enumerate(values):
                rows = values.shape[1] // 2
                if part == "gate_up_proj":
                    twins.append(np.concatenate([put(f"{base}.{expert}.gate_proj", matrix[:rows]),
                                                 put(f"{base}.{expert}.up_proj", matrix[rows:])]))
                else:
                    twins.append(put(f"{base}.{expert}.down_proj", matrix))
            twin[name] = np.stack(twins)
        elif name.endswith(("_proj.weight", "in_proj_qkv.weight", "in_proj_z.weight")):
            twin[name] = put(name.removesuffix(".weight"), values)
        else:
            tensors[name] = values.astype(ml_dtypes.bfloat16)
            twin[name] = tensors[name].astype(np.float32)
    start_folder(source, folder, {"quantization_config": {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
        "modules_to_not_convert": ["lm_head"]}})
    save_file(tensors, os.path.join(folder, "model.safetensors"))
    return twin


def write_twin(source, folder, twin):
    from safetensors.numpy import save_file
    start_folder(source, folder, {})
    tensors = {name: np.ascontiguousarray(values, np.float32) for name, values in twin.items()}
    save_file(tensors, os.path.join(folder, "model.safetensors"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("kinds", nargs="*", default=KINDS, metavar="kind", help=", ".join(KINDS))
    parser.add_argument("--twins", metavar="FOLDER")
    options = parser.parse_args()
    with open(os.path.join(options.source, "config.json")) as file:
        config = json.load(file)
    model = read_model(options.source)
    os.makedirs(options.target, exist_ok=True)
    for kind in options.kinds:
        if kind == "mlx-4":
            twin = write_mlx(options.source, options.target, model, config)
        elif kind == "fp8":
            twin = write_fp8(options.source, options.target, model, config)
        else:
            twin = write_gguf(options.source, options.target, kind, model, config)
        if options.twins:
            write_twin(options.source, os.path.join(options.twins, kind), twin)


if __name__ == "__main__":
    main()
