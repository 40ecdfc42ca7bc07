#!/usr/bin/env python3
"""Small checkpoints in the formats that people have, with the values that each must be read as.

    pip install gguf 'mlx[cpu]' ml_dtypes numpy safetensors xxhash
    tools/source_cases.py tests/data/sources
    tools/source_cases.py --seeds tests/fuzz/seeds/gguf

Every case is a folder with the model and `expected.json`: for each tensor in normal form (docs/formats.md) and each part of
each expert its shape, how it is coded, and the XXH3-128 of its f32 values. The files are written by the public packages `gguf`
and `mlx`, the values decoded by them, and the orders of the converters undone here by reshaping, not by the index arithmetic
of the reader under test.

gguf-mixed   qwen35moe, today's keys; 8 value heads on 2 key heads; every block type that is decoded, ssm_out in Q4_K
gguf-old     qwen35moe as older or other writers spell it, in three shards: no list of recurrent layers, no output head,
             gate and up fused, q, k and v fused, the shared gate as a vector; tokenizer, sampling defaults
gguf-mtp     qwen35moe with a prediction block; 6 value heads on 2 key heads
gguf-next    qwen3next: b and a interleaved by key head, heads in the model's own order, the shared gate as a column
mlx-4        affine 4 bits in groups of 32, router and shared gate 8 bits in 64, one module left alone
mlx-mxfp4    mode mxfp4
fp8          E4M3 with partial squares, one tensor per expert, the prediction block as well
"""
import json
import os
import shutil
import sys

import gguf
import ml_dtypes
import mlx.core as mx
import numpy as np
import xxhash
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T
from safetensors.numpy import save_file

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from block_golden import SCALES  # noqa: E402

PARTS = ("gate", "up", "down")


class Shape:
    def __init__(self, **changes):
        self.hidden, self.vocab, self.kinds = 64, 300, "da"  # d: delta-net, a: attention
        self.heads, self.kv_heads, self.head_dim = 2, 1, 32
        self.keys, self.per_key, self.key_dim, self.value_dim = 2, 3, 16, 32
        self.kernel, self.experts, self.top_k, self.ffn, self.shared, self.mtp = 4, 4, 2, 32, 32, 0
        self.tied = False
        self.__dict__.update(changes)
        self.values = self.keys * self.per_key
        self.key_rows = 2 * self.keys * self.key_dim
        self.channels = self.key_rows + self.values * self.value_dim

    def config(self, model_type):
        return {"model_type": model_type, "vocab_size": self.vocab, "hidden_size": self.hidden,
                "num_hidden_layers": len(self.kinds),
                "layer_types": [{"d": "linear_attention", "a": "full_attention"}[k] for k in self.kinds],
                "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
                "attention_bias": False, "linear_num_key_heads": self.keys, "linear_num_value_heads": self.values,
                "linear_key_head_dim": self.key_dim, "linear_value_head_dim": self.value_dim,
                "linear_conv_kernel_dim": self.kernel, "num_experts": self.experts, "num_experts_per_tok": self.top_k,
                "moe_intermediate_size": self.ffn, "shared_expert_intermediate_size": self.shared,
                "rms_norm_eps": 1e-6, "max_position_embeddings": 4096, "tie_word_embeddings": self.tied,
                "mtp_num_hidden_layers": self.mtp,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25}}


def attention(s):
    width, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    return {"self_attn.q_proj": (2 * width, s.hidden), "self_attn.k_proj": (kv, s.hidden),
            "self_attn.v_proj": (kv, s.hidden), "self_attn.o_proj": (s.hidden, width),
            "self_attn.q_norm": (s.head_dim,), "self_attn.k_norm": (s.head_dim,)}


def delta_net(s):
    width = s.values * s.value_dim
    return {"linear_attn.in_proj_qkv": (s.channels, s.hidden), "linear_attn.in_proj_z": (width, s.hidden),
            "linear_attn.in_proj_b": (s.values, s.hidden), "linear_attn.in_proj_a": (s.values, s.hidden),
            "linear_attn.conv1d": (s.channels, s.kernel), "linear_attn.decay": (s.values,),
            "linear_attn.dt_bias": (s.values,), "linear_attn.norm": (s.value_dim,),
            "linear_attn.out_proj": (s.hidden, width)}


def layer(s, base, kind):
    names = {"input_layernorm": (s.hidden,), **(attention(s) if kind == "a" else delta_net(s)),
             "post_attention_layernorm": (s.hidden,), "mlp.gate": (s.experts, s.hidden),
             "mlp.shared_expert_gate": (1, s.hidden), "mlp.shared_expert.gate_proj": (s.shared, s.hidden),
             "mlp.shared_expert.up_proj": (s.shared, s.hidden), "mlp.shared_expert.down_proj": (s.hidden, s.shared),
             "experts.gate": (s.experts, s.ffn, s.hidden), "experts.up": (s.experts, s.ffn, s.hidden),
             "experts.down": (s.experts, s.hidden, s.ffn)}
    return {base + name: shape for name, shape in names.items()}


def normal_shapes(s):
    names = {"embed_tokens": (s.vocab, s.hidden)}
    for i, kind in enumerate(s.kinds):
        names.update(layer(s, f"layers.{i}.", kind))
    names["norm"] = (s.hidden,)
    if not s.tied:
        names["lm_head"] = (s.vocab, s.hidden)
    if s.mtp:
        for norm in ("mtp.pre_fc_norm_embedding", "mtp.pre_fc_norm_hidden", "mtp.norm"):
            names[norm] = (s.hidden,)
        names["mtp.fc"] = (s.hidden, 2 * s.hidden)
        names.update(layer(s, "mtp.", "a"))
    return names


def random_values(rng, shape):
    values = (rng.standard_normal(shape) * 0.1).astype(np.float32)
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def expectation(values):
    values = np.ascontiguousarray(values, dtype="<f4")
    return xxhash.xxh3_128_hexdigest(values.tobytes())


class Case:
    """Collects what must be read, and writes it beside the model."""

    def __init__(self, folder, shape, model_type, kind):
        self.folder, self.shape = folder, shape
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        self.expected = {"format": kind, "config": shape.config(model_type), "tensors": {}, "experts": {}}

    def want(self, name, values, coding):
        if ".experts." in "." + name:
            base, part = name.rsplit(".experts.", 1)
            number = len(self.shape.kinds) if base == "mtp" else int(base.split(".")[1])
            for e, expert in enumerate(values):
                self.expected["experts"][f"{number}.{e}.{part}"] = [list(expert.shape), coding, expectation(expert)]
        else:
            shape = list(values.shape) if values.ndim == 2 else [1, *values.shape]
            self.expected["tensors"][name] = [shape, coding, expectation(values)]

    def finish(self):
        assert set(self.expected["tensors"]) == {n for n in normal_shapes(self.shape) if ".experts." not in n}, self.folder
        with open(os.path.join(self.folder, "expected.json"), "w") as out:
            json.dump(self.expected, out, indent=0)


# GGUF ---------------------------------------------------------------------------------------------------------------

LAYER_NAMES = {"input_layernorm": "attn_norm.weight", "post_attention_layernorm": "post_attention_norm.weight",
               "self_attn.q_proj": "attn_q.weight", "self_attn.k_proj": "attn_k.weight",
               "self_attn.v_proj": "attn_v.weight", "self_attn.o_proj": "attn_output.weight",
               "self_attn.q_norm": "attn_q_norm.weight", "self_attn.k_norm": "attn_k_norm.weight",
               "linear_attn.in_proj_qkv": "attn_qkv.weight", "linear_attn.in_proj_z": "attn_gate.weight",
               "linear_attn.in_proj_b": "ssm_beta.weight", "linear_attn.in_proj_a": "ssm_alpha.weight",
               "linear_attn.conv1d": "ssm_conv1d.weight", "linear_attn.decay": "ssm_a",
               "linear_attn.dt_bias": "ssm_dt.bias", "linear_attn.norm": "ssm_norm.weight",
               "linear_attn.out_proj": "ssm_out.weight", "mlp.gate": "ffn_gate_inp.weight",
               "mlp.shared_expert_gate": "ffn_gate_inp_shexp.weight",
               "mlp.shared_expert.gate_proj": "ffn_gate_shexp.weight",
               "mlp.shared_expert.up_proj": "ffn_up_shexp.weight",
               "mlp.shared_expert.down_proj": "ffn_down_shexp.weight", "experts.gate": "ffn_gate_exps.weight",
               "experts.up": "ffn_up_exps.weight", "experts.down": "ffn_down_exps.weight"}
OTHER_NAMES = {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight", "lm_head": "output.weight"}
NEXTN = {"mtp.fc": "nextn.eh_proj.weight", "mtp.pre_fc_norm_embedding": "nextn.enorm.weight",
         "mtp.pre_fc_norm_hidden": "nextn.hnorm.weight", "mtp.norm": "nextn.shared_head_norm.weight"}
ALWAYS_F32 = ("norm", "conv1d", "decay", "dt_bias", "mlp.gate", "shared_expert_gate", "norm_embedding", "norm_hidden")


def gguf_name(s, name):
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    if name in NEXTN:
        return f"blk.{len(s.kinds)}.{NEXTN[name]}"
    if name.startswith("mtp."):
        return f"blk.{len(s.kinds)}.{LAYER_NAMES[name[4:]]}"
    _, number, rest = name.split(".", 2)
    return f"blk.{number}.{LAYER_NAMES[rest]}"


def heads_to_model(s, values, axis_size):
    """Leading axis of tiled value heads, each `axis_size` rows, to the model's order."""
    tail = values.shape[1:]
    heads = values.reshape(s.per_key, s.keys, axis_size, *tail)
    return heads.swapaxes(0, 1).reshape(-1, *tail)


def to_model(s, name, values, tiled):
    if not tiled or "linear_attn." not in name:
        return values
    if name.endswith(("in_proj_qkv", "conv1d")):
        return np.concatenate([values[:s.key_rows], heads_to_model(s, values[s.key_rows:], s.value_dim)])
    if name.endswith("in_proj_z"):
        return heads_to_model(s, values, s.value_dim)
    if name.endswith(("in_proj_a", "in_proj_b", "decay", "dt_bias")):
        return heads_to_model(s, values, 1)
    if name.endswith("out_proj"):
        return heads_to_model(s, values.T, s.value_dim).T
    return values


def random_stored(rng, kind, shape):
    """Bytes of a tensor of this type, and what they mean."""
    elements, size = GGML_QUANT_SIZES[kind]
    if kind in (T.F32, T.F16, T.BF16):
        values = random_values(rng, shape)
        stored = quants.quantize(values, kind)
        return stored, quants.dequantize(stored, kind)
    blocks = rng.integers(0, 256, (int(np.prod(shape)) // elements, size), dtype=np.uint8)
    for at in SCALES.get(kind, []):
        scale = (rng.uniform(0.001, 0.01, len(blocks))).astype(np.float16)
        blocks[:, at:at + 2] = scale.view(np.uint8).reshape(-1, 2)
    if kind == T.MXFP4:
        blocks[:, 0] = rng.integers(118, 124, len(blocks))
    if kind == T.IQ1_M:
        blocks[:, -1] = (blocks[:, -1] & 0x0f) | 0x10
        blocks[:, -3] &= 0x7f
    stored = blocks.reshape(*shape[:-1], shape[-1] // elements * size)
    return stored, quants.dequantize(stored, kind)




class GgufCase(Case):
    def __init__(self, folder, shape, arch="qwen35moe", wide=(), narrow=(T.Q8_0,), seed=1, **writer):
        super().__init__(folder, shape, "qwen3_next" if arch == "qwen3next" else "qwen3_5_moe_text", "GGUF")
        self.arch, self.wide, self.narrow = arch, wide, narrow
        self.rng = np.random.default_rng(seed)
        self.writer = gguf.GGUFWriter(os.path.join(folder, "m.gguf"), arch, **writer)
        self.used = {"wide": 0, "narrow": 0}

    def next_type(self, name, columns):
        if name.endswith(ALWAYS_F32):
            return T.F32
        which = "wide" if columns % 256 == 0 and self.wide else "narrow"
        types = self.wide if which == "wide" else self.narrow
        kind = types[self.used[which] % len(types)]
        self.used[which] += 1
        return kind

    def keys(self, old=False):
        s, w, a = self.shape, self.writer, self.arch
        for key, value in [("block_count", len(s.kinds) + s.mtp), ("context_length", 4096),
                           ("embedding_length", s.hidden), ("attention.head_count", s.heads),
                           ("attention.head_count_kv", s.kv_heads), ("expert_count", s.experts),
                           ("expert_used_count", s.top_k), ("attention.key_length", s.head_dim),
                           ("attention.value_length", s.head_dim), ("expert_feed_forward_length", s.ffn),
                           ("expert_shared_feed_forward_length", s.shared), ("ssm.conv_kernel", s.kernel),
                           ("ssm.state_size", s.key_dim), ("ssm.group_count", s.keys),
                           ("ssm.time_step_rank", s.values), ("ssm.inner_size", s.values * s.value_dim),
                           ("rope.dimension_count", s.head_dim // 4)]:
            w.add_uint32(f"{a}.{key}", value)
        w.add_float32(f"{a}.rope.freq_base", 1e7)
        w.add_float32(f"{a}.attention.layer_norm_rms_epsilon", 1e-6)
        if s.mtp:
            w.add_uint32(f"{a}.nextn_predict_layers", s.mtp)
        if old:
            w.add_uint32(f"{a}.full_attention_interval", s.kinds.index("a") + 1)
        else:
            w.add_array(f"{a}.attention.recurrent_layers", [k == "d" for k in s.kinds] + [False] * s.mtp)
            w.add_array(f"{a}.rope.dimension_sections", [11, 11, 10, 0])

    def put(self, name, shape, kind=None, file_name=None, file_shape=None):
        s = self.shape
        kind = kind or self.next_type(name, shape[-1])
        stored, values = random_stored(self.rng, kind, shape)
        if name.endswith("decay"):
            values = -np.exp(np.abs(values))
            stored = values
        tiled = self.arch == "qwen35moe"
        self.want(name, to_model(s, name, values, tiled), kind.name)
        if file_shape is not None:
            stored = stored.reshape(file_shape)
        self.writer.add_tensor(file_name or gguf_name(s, name), stored, raw_dtype=kind)

    def close(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        self.finish()


def gguf_mixed(folder):
    shape = Shape(hidden=256, keys=2, per_key=4, key_dim=16, value_dim=32, vocab=64, experts=2)
    wide = [T.IQ1_S, T.Q2_K, T.Q3_K, T.IQ2_XXS, T.Q6_K, T.Q5_K, T.IQ1_M, T.IQ2_XS, T.IQ3_XXS, T.IQ2_S, T.IQ3_S, T.IQ4_XS,
            T.TQ1_0, T.TQ2_0, T.Q4_K, T.BF16, T.F16]
    narrow = [T.MXFP4, T.IQ4_NL, T.Q4_1, T.Q5_0, T.Q5_1]
    case = GgufCase(folder, shape, wide=wide, narrow=narrow)
    case.keys()
    for name, size in normal_shapes(shape).items():
        kind = T.Q4_K if name.endswith("linear_attn.out_proj") else None
        case.put(name, size, kind)
    case.close()


def add_texts(writer, vocab):
    """A byte-level vocabulary: the 256 bytes, three merges, then control and user-defined tokens, then padding."""
    def spelling(byte):
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        return chr(byte) if byte in printable else chr(256 + [b for b in range(256) if b not in printable].index(byte))
    tokens = [spelling(b) for b in range(256)] + ["ab", "abc", "\u0120a"]
    types = [1] * len(tokens)
    for text, kind in (("<|endoftext|>", 3), ("<|im_start|>", 3), ("<|im_end|>", 3), ("<think>", 4)):
        tokens.append(text)
        types.append(kind)
    while len(tokens) < vocab:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen35")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["a b", "ab c", "\u0120 a"])
    writer.add_eos_token_id(261)
    writer.add_pad_token_id(259)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ messages[0].content }}")
    writer.add_int32("general.sampling.top_k", 20)
    writer.add_float32("general.sampling.top_p", 0.95)
    writer.add_float32("general.sampling.temp", 0.6)


def gguf_old(folder):
    shape = Shape(kinds="ddda", tied=True, experts=2, top_k=1, keys=2, per_key=1, value_dim=16)
    case = GgufCase(folder, shape, narrow=[T.Q8_0, T.BF16, T.Q4_0, T.F16], split_max_tensors=24)
    case.keys(old=True)
    add_texts(case.writer, shape.vocab)
    fused = {}
    for name, size in normal_shapes(shape).items():
        if name.endswith(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "experts.gate", "experts.up")):
            fused[name] = size
        elif name.endswith("shared_expert_gate"):
            case.put(name, size, file_shape=(shape.hidden,))
        else:
            case.put(name, size)
    for i, kind in enumerate(shape.kinds):
        base = f"layers.{i}."
        if kind == "a":
            names = [base + "self_attn." + part + "_proj" for part in "qkv"]
            rows = [fused[n][0] for n in names]
            stored, values = random_stored(case.rng, T.Q8_0, (sum(rows), shape.hidden))
            for name, part in zip(names, np.split(values, np.cumsum(rows)[:-1])):
                case.want(name, part, "Q8_0")
            case.writer.add_tensor(f"blk.{i}.attn_qkv.weight", stored, raw_dtype=T.Q8_0)
        stored, values = random_stored(case.rng, T.Q4_1, (shape.experts, 2 * shape.ffn, shape.hidden))
        case.want(base + "experts.gate", values[:, :shape.ffn], "Q4_1")
        case.want(base + "experts.up", values[:, shape.ffn:], "Q4_1")
        case.writer.add_tensor(f"blk.{i}.ffn_gate_up_exps.weight", stored, raw_dtype=T.Q4_1)
    case.close()


def gguf_mtp(folder):
    shape = Shape(mtp=1, experts=2, vocab=32)
    case = GgufCase(folder, shape, narrow=[T.BF16, T.Q5_1, T.Q8_0])
    case.keys()
    for name, size in normal_shapes(shape).items():
        case.put(name, size)
    case.close()


def gguf_next(folder):
    shape = Shape(experts=2, vocab=32, value_dim=16)
    case = GgufCase(folder, shape, arch="qwen3next", narrow=[T.Q8_0, T.BF16])
    case.keys()
    for name, size in normal_shapes(shape).items():
        if name.endswith("in_proj_a"):
            continue
        if not name.endswith("in_proj_b"):
            column = (shape.hidden, 1) if name.endswith("shared_expert_gate") else None
            case.put(name, size, file_shape=column)
            continue
        stored, values = random_stored(case.rng, T.Q8_0, (2 * shape.values, shape.hidden))
        heads = values.reshape(shape.keys, 2, shape.per_key, shape.hidden)
        case.want(name, heads[:, 0].reshape(-1, shape.hidden), "Q8_0")
        case.want(name[:-1] + "a", heads[:, 1].reshape(-1, shape.hidden), "Q8_0")
        case.writer.add_tensor("blk.0.ssm_ba.weight", stored, raw_dtype=T.Q8_0)
    case.close()


# Folders ------------------------------------------------------------------------------------------------------------

def write_config(folder, config):
    with open(os.path.join(folder, "config.json"), "w") as out:
        json.dump(config, out, indent=1)


def hf_name(name):
    if name.startswith("mtp.") and name.count(".") > 1 or name in ("mtp.input_layernorm", "mtp.post_attention_layernorm"):
        return "mtp.layers.0." + name[4:]
    return name


def zero_centred(name):
    return "linear_attn." not in name and name.endswith(("norm", "norm_embedding", "norm_hidden"))


def mlx_case(folder, mode):
    shape = Shape(hidden=128, vocab=64, experts=2, keys=2, per_key=3)
    case = Case(folder, shape, "qwen3_5_moe_text", "MLX")
    mx.random.seed(7)
    rng = np.random.default_rng(7)
    tensors, own = {}, {}
    for name, size in normal_shapes(shape).items():
        values = mx.array(random_values(rng, size)).astype(mx.bfloat16)
        module = "language_model." + ("lm_head" if name == "lm_head" else "model." + name)
        module = module.replace(".experts.", ".mlp.switch_mlp.")
        if ".switch_mlp." in module:
            module += "_proj"
        plain = np.array(values.astype(mx.float32))
        if name.endswith("decay"):
            log = mx.array(rng.uniform(0, 2, size).astype(np.float32))
            tensors[module[:-5] + "A_log"] = log
            case.want(name, (-np.exp(np.array(log).astype(np.float64))).astype(np.float32), "F32")
        elif name.endswith("dt_bias"):
            tensors[module] = values
            case.want(name, plain, "BF16")
        elif name.endswith("conv1d"):
            tensors[module + ".weight"] = values.reshape(*size, 1)
            case.want(name, plain, "BF16")
        elif len(size) == 1 or name.endswith("layers.1.self_attn.o_proj"):  # one module left alone
            tensors[module + ".weight"] = values
            case.want(name, plain, "BF16")
        else:
            is_router = name.endswith(("mlp.gate", "shared_expert_gate"))
            group, bits, how = (64, 8, "affine") if is_router else (32, 4, mode)
            parts = mx.quantize(values, group_size=group, bits=bits, mode=how)
            wide = [parts[0], *[p.astype(mx.float32) if how == "affine" else p for p in parts[1:]]]
            read = mx.dequantize(*wide, group_size=group, bits=bits, mode=how)
            for suffix, part in zip(("weight", "scales", "biases"), parts):
                tensors[f"{module}.{suffix}"] = part
            case.want(name, np.array(read.astype(mx.float32)),
                      "MXFP4" if how == "mxfp4" else f"affine {bits} bits in {group}")
            if is_router:
                own[module] = {"group_size": group, "bits": bits, "mode": "affine"} if mode != "affine" else \
                    {"group_size": group, "bits": bits}
    quantisation = {"group_size": 32, "bits": 4, "mode": mode, **own,
                    "language_model.model.layers.1.self_attn.o_proj": False}
    text = shape.config("qwen3_5_moe_text")
    del text["mtp_num_hidden_layers"]
    text["rope_parameters"]["type"] = text["rope_parameters"].pop("rope_type")
    write_config(folder, {"model_type": "qwen3_5_moe", "eos_token_id": [5, 6], "quantization": quantisation,
                          "quantization_config": quantisation, "text_config": text})
    mx.save_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    case.finish()


def fp8(folder):
    shape = Shape(hidden=160, ffn=32, experts=2, vocab=16, mtp=1, key_dim=8, value_dim=16, kv_heads=2)
    case = Case(folder, shape, "qwen3_5_moe_text", "Hugging Face")
    rng = np.random.default_rng(8)
    tensors, scales16 = {}, ml_dtypes.bfloat16

    def convert(module, size):
        codes = (rng.standard_normal(size) * 50).astype(ml_dtypes.float8_e4m3fn)
        scales = rng.uniform(0.0001, 0.01, [-(-n // 128) for n in size]).astype(scales16)
        tensors[module + ".weight"] = codes
        tensors[module + ".weight_scale_inv"] = scales
        wide = np.repeat(np.repeat(scales.astype(np.float32), 128, 0), 128, 1)[:size[0], :size[1]]
        return codes.astype(np.float32) * wide

    for name, size in normal_shapes(shape).items():
        outer = "" if name.startswith(("mtp.", "lm_head")) else "model.language_model."
        module = outer + hf_name(name)
        values = random_values(rng, size)
        if ".experts." in "." + name:
            base, part = module.rsplit(".experts.", 1)
            read = [convert(f"{base}.mlp.experts.{e}.{part}_proj", size[1:]) for e in range(size[0])]
            case.want(name, np.stack(read), "FP8 E4M3 in 128x128")
        elif name.endswith(("_proj", "in_proj_qkv", "in_proj_z")):
            case.want(name, convert(module, size), "FP8 E4M3 in 128x128")
        elif name.endswith("decay"):
            tensors[module[:-5] + "A_log"] = values
            case.want(name, (-np.exp(values.astype(np.float64))).astype(np.float32), "F32")
        else:
            stored = values.astype(scales16)
            file_name = module if name.endswith("dt_bias") else module + ".weight"
            tensors[file_name] = stored[:, None, :] if name.endswith("conv1d") else stored
            case.want(name, values + np.float32(1) if zero_centred(name) else values, "BF16")
    write_config(folder, {"model_type": "qwen3_5_moe", "text_config": shape.config("qwen3_5_moe_text"),
                          "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                                  "weight_block_size": [128, 128],
                                                  "modules_to_not_convert": ["lm_head"]}})
    save_file(tensors, os.path.join(folder, "model.safetensors"))
    case.finish()


def seeds(folder):
    """Small files with keys of every type, for the fuzzer to start from."""
    os.makedirs(folder, exist_ok=True)
    w = gguf.GGUFWriter(os.path.join(folder, "keys"), "qwen35moe")
    w.add_custom_alignment(64)
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"):
        getattr(w, "add_" + kind)(kind, 3)
    w.add_bool("bool", True)
    w.add_array("strings", ["a", "", "ccc"])
    w.add_array("numbers", [1, 2, 3])
    w.add_array("bools", [True, False])
    w.add_tensor("a", np.zeros((2, 34), dtype=np.uint8), raw_dtype=T.Q8_0)
    w.add_tensor("b", np.zeros((2, 1, 3), dtype=np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    w = gguf.GGUFWriter(os.path.join(folder, "shard"), "qwen35moe", split_max_tensors=1)
    for name in ("a", "b"):
        w.add_tensor(name, np.zeros((1, 144), dtype=np.uint8), raw_dtype=T.Q4_K)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main(root):
    gguf_mixed(os.path.join(root, "gguf-mixed"))
    gguf_old(os.path.join(root, "gguf-old"))
    gguf_mtp(os.path.join(root, "gguf-mtp"))
    gguf_next(os.path.join(root, "gguf-next"))
    mlx_case(os.path.join(root, "mlx-4"), "affine")
    mlx_case(os.path.join(root, "mlx-mxfp4"), "mxfp4")
    fp8(os.path.join(root, "fp8"))


if __name__ == "__main__":
    if sys.argv[1] == "--seeds":
        seeds(sys.argv[2])
    else:
        main(sys.argv[1])
