"""A GGUF file of a published shape with random 4-bit weights, for bench/peers.

Pure parts (python's own library): the shapes, as src/model/shapes.cc has them; the metadata and the
tensors that a loader of the architectures qwen35moe and qwen3next asks for; blocks of Q4_0. Only
write_model needs the packages numpy and gguf.

Matrices that every token or an expert multiplies with are Q4_0; norms, the router and small tensors
are F32. Entries are symmetric around zero with a deviation of 1/sqrt(columns), so that activations
stay of order one through any number of layers. There is no tokenizer: token ids go in.
"""

import math
import os
import random
import re
import shutil
import struct
import sys
import time
from collections import namedtuple

from report import ROOT

ARCHITECTURES = {"kQwen35": "qwen35moe", "kNext": "qwen3next"}
Q4_0_WEIGHTS, Q4_0_BYTES = 32, 18
ALIGNMENT = 32
PIECE_BLOCKS = 1 << 14  # of one write; larger ones leave the processor's caches
FREE_LEFT = 1 << 30     # of the disk, after the file
FULL_ATTENTION_INTERVAL = 4
CONV_KERNEL = 4
ROTARY_SHARE = 4        # a quarter of a head is rotated

Shape = namedtuple("Shape", "name short architecture vocab hidden layers heads kv_heads head_dim "
                            "linear_k_heads linear_v_heads linear_head_dim experts experts_used "
                            "ffn context rope_theta")
# kind: "q4" (Q4_0), "random" (F32, of that deviation), "value" (F32, all equal), "decay" (F32)
Tensor = namedtuple("Tensor", "name dims kind value")  # dims: rows last, columns first, as in GGUF


class ModelError(Exception):
    """A sentence for the user."""


def parse_shapes(text):
    """Shapes from the table of src/model/shapes.cc, which is the one home of these numbers; those whose
    tensors this script can write."""
    table = text[text.index("kShapes[]"):]
    rows = re.findall(r'\{"([^"]+)",\s*"([^"]+)",\s*(\w+),([^}]*)\}', table)
    shapes = []
    for name, short, kind, numbers in rows:
        if kind not in ARCHITECTURES:
            continue
        values = [float(v) if "e" in v else int(v) for v in numbers.replace(",", " ").split()]
        shapes.append(Shape(name, short, ARCHITECTURES[kind], *values))
    return shapes


def find_shape(name, layers=0):
    with open(os.path.join(ROOT, "src/model/shapes.cc"), encoding="utf-8") as f:
        shapes = parse_shapes(f.read())
    for shape in shapes:
        if name.lower() in (shape.name.lower(), shape.short.lower()):
            return shape._replace(layers=layers or shape.layers)
    known = ", ".join(f"{shape.short} ({shape.name})" for shape in shapes)
    raise ModelError(f'"{name}" is not a shape that is known here; known are {known}')


def rope_sections(pairs):
    """Pairs of rotated components by axis. All axes of a text are equal, so any split will do."""
    first = -(-pairs // 3)
    return [first, -(-(pairs - first) // 2), (pairs - first) // 2, 0]


def metadata(shape):
    """Keys without the architecture's prefix -> values; bool, int, float, str or list of int."""
    rotary = shape.head_dim // ROTARY_SHARE
    keys = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "vocab_size": shape.vocab,
        "embedding_length": shape.hidden,
        "feed_forward_length": shape.ffn,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": rotary,
        "rope.freq_base": float(shape.rope_theta),
        "expert_count": shape.experts,
        "expert_used_count": shape.experts_used,
        "expert_feed_forward_length": shape.ffn,
        "expert_shared_feed_forward_length": shape.ffn,
        "ssm.conv_kernel": CONV_KERNEL,
        "ssm.state_size": shape.linear_head_dim,
        "ssm.group_count": shape.linear_k_heads,
        "ssm.time_step_rank": shape.linear_v_heads,
        "ssm.inner_size": shape.linear_v_heads * shape.linear_head_dim,
        "full_attention_interval": FULL_ATTENTION_INTERVAL,
    }
    if shape.architecture == "qwen35moe":
        keys["rope.dimension_sections"] = rope_sections(rotary // 2)
    return keys


def matrix(name, columns, rows, *more):
    return Tensor(name, (columns, rows, *more), "q4", 1 / math.sqrt(columns))


def small_matrix(name, columns, *rows):
    return Tensor(name, (columns, *rows), "random", 1 / math.sqrt(columns))


def constant(name, width, value=1.0):
    return Tensor(name, (width,), "value", value)


def attention_tensors(block, shape):
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return [
        matrix(block + "attn_q.weight", shape.hidden, 2 * query),  # and its gate
        matrix(block + "attn_k.weight", shape.hidden, kv),
        matrix(block + "attn_v.weight", shape.hidden, kv),
        matrix(block + "attn_output.weight", query, shape.hidden),
        constant(block + "attn_q_norm.weight", shape.head_dim),
        constant(block + "attn_k_norm.weight", shape.head_dim),
    ]


def delta_net_tensors(block, shape):
    keys = shape.linear_k_heads * shape.linear_head_dim
    values = shape.linear_v_heads * shape.linear_head_dim
    tensors = [
        matrix(block + "attn_qkv.weight", shape.hidden, 2 * keys + values),
        matrix(block + "attn_gate.weight", shape.hidden, values),
        small_matrix(block + "ssm_conv1d.weight", CONV_KERNEL, 2 * keys + values),
        constant(block + "ssm_dt.bias", shape.linear_v_heads, 0.0),
        Tensor(block + "ssm_a", (shape.linear_v_heads,), "decay", None),
        constant(block + "ssm_norm.weight", shape.linear_head_dim),
        matrix(block + "ssm_out.weight", values, shape.hidden),
    ]
    if shape.architecture == "qwen3next":
        return tensors + [small_matrix(block + "ssm_ba.weight", shape.hidden,
                                       2 * shape.linear_v_heads)]
    return tensors + [small_matrix(block + f"ssm_{part}.weight", shape.hidden,
                                   shape.linear_v_heads) for part in ("alpha", "beta")]


def expert_tensors(block, shape):
    hidden, ffn, experts = shape.hidden, shape.ffn, shape.experts
    return [
        small_matrix(block + "ffn_gate_inp.weight", hidden, experts),
        matrix(block + "ffn_gate_exps.weight", hidden, ffn, experts),
        matrix(block + "ffn_up_exps.weight", hidden, ffn, experts),
        matrix(block + "ffn_down_exps.weight", ffn, hidden, experts),
        small_matrix(block + "ffn_gate_inp_shexp.weight", hidden),
        matrix(block + "ffn_gate_shexp.weight", hidden, ffn),
        matrix(block + "ffn_up_shexp.weight", hidden, ffn),
        matrix(block + "ffn_down_shexp.weight", ffn, hidden),
    ]


def tensors_of(shape):
    """All tensors, in the order of the file."""
    tensors = [matrix("token_embd.weight", shape.hidden, shape.vocab)._replace(value=1.0)]
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        is_full = (layer + 1) % FULL_ATTENTION_INTERVAL == 0
        mixer = attention_tensors if is_full else delta_net_tensors
        tensors += [constant(block + "attn_norm.weight", shape.hidden)]
        tensors += mixer(block, shape)
        tensors += [constant(block + "post_attention_norm.weight", shape.hidden)]
        tensors += expert_tensors(block, shape)
    tensors += [constant("output_norm.weight", shape.hidden),
                matrix("output.weight", shape.hidden, shape.vocab)]
    for tensor in tensors:
        if tensor.kind == "q4" and tensor.dims[0] % Q4_0_WEIGHTS:
            raise ModelError(f"{tensor.name}: rows of {tensor.dims[0]} do not divide into blocks "
                             f"of {Q4_0_WEIGHTS}")
    return tensors


def count_of(tensor):
    return math.prod(tensor.dims)


def bytes_of(tensor):
    if tensor.kind == "q4":
        return count_of(tensor) // Q4_0_WEIGHTS * Q4_0_BYTES
    return count_of(tensor) * 4


def padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def data_bytes(tensors):
    return sum(padded(bytes_of(tensor)) for tensor in tensors)


# A nibble n of Q4_0 means scale * (n - 8). Without n = 0 the codes are symmetric: a mean, however
# small, is one direction that all rows share, and it grows from layer to layer.
SYMMETRIC = bytes((high or 8) << 4 | (low or 8) for high in range(16) for low in range(16))
CODE_DEVIATION = math.sqrt(sum(((n or 8) - 8) ** 2 for n in range(16)) / 16)


def q4_0_blocks(source, blocks, deviation):
    """Random blocks: a half-precision scale, then 16 bytes of two weights each."""
    scale = struct.pack("<e", deviation / CODE_DEVIATION)
    codes = source.randbytes(16 * blocks).translate(SYMMETRIC)
    data = bytearray(Q4_0_BYTES * blocks)
    data[0::Q4_0_BYTES] = scale[:1] * blocks
    data[1::Q4_0_BYTES] = scale[1:] * blocks
    for i in range(16):
        data[2 + i::Q4_0_BYTES] = codes[i * blocks:(i + 1) * blocks]
    return data


def f32_values(source, tensor):
    count = count_of(tensor)
    if tensor.kind == "value":
        return struct.pack("<f", tensor.value) * count
    if tensor.kind == "decay":  # -exp(A_log): from heads that hardly forget to heads that do
        values = [-0.005 * 200 ** source.random() for _ in range(count)]
    else:
        span = tensor.value * math.sqrt(3)  # uniform in +-span has this deviation
        values = [source.uniform(-span, span) for _ in range(count)]
    return struct.pack(f"<{count}f", *values)


def pieces_of(tensor, seed):
    """The tensor's bytes, in pieces, from the seed and its name alone."""
    source = random.Random(f"{seed} {tensor.name}")
    if tensor.kind != "q4":
        yield f32_values(source, tensor)
        return
    left = count_of(tensor) // Q4_0_WEIGHTS
    while left:
        blocks = min(left, PIECE_BLOCKS)
        yield q4_0_blocks(source, blocks, tensor.value)
        left -= blocks


def check_space(target, needed):
    folder = os.path.dirname(os.path.abspath(target))
    free = shutil.disk_usage(folder).free
    if needed + FREE_LEFT > free:
        raise ModelError(f"the file takes {needed / 1e9:.1f} GB and {FREE_LEFT / 1e9:.1f} GB shall "
                         f"stay free, but {folder} has {free / 1e9:.1f} GB free; "
                         "choose fewer --layers")


class Progress:
    """One line on a terminal, nothing elsewhere."""

    def __init__(self, total):
        self.total, self.done, self.shown = total, 0, 0.0

    def add(self, size):
        self.done += size
        now = time.monotonic()
        if not sys.stderr.isatty() or (now - self.shown < 0.2 and self.done < self.total):
            return
        self.shown = now
        end = "\n" if self.done >= self.total else ""
        print(f"\r{self.done / 1e9:6.2f} of {self.total / 1e9:.2f} GB", end=end, file=sys.stderr,
              flush=True)


def add_metadata(writer, shape):
    writer.add_name(f"random weights in the shape of {shape.name}")
    writer.add_quantization_version(2)
    writer.add_tokenizer_model("no_vocab")
    for key, value in metadata(shape).items():
        key = f"{shape.architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)


def write_model(shape, target, seed, force=False):
    """Writes TARGET.partial and renames it when it is whole and on the disk."""
    import gguf  # packages of bench/peers setup
    import numpy

    if os.path.exists(target) and not force:
        raise ModelError(f"{target} exists; --force replaces it")
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    tensors = tensors_of(shape)
    total = data_bytes(tensors)
    check_space(target, total)
    partial = target + ".partial"
    writer = gguf.GGUFWriter(partial, shape.architecture)
    add_metadata(writer, shape)
    kinds = gguf.GGMLQuantizationType
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.dims[::-1], numpy.dtype(numpy.float32),
                               bytes_of(tensor),
                               kinds.Q4_0 if tensor.kind == "q4" else kinds.F32)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        write_data(writer.fout[0], tensors, seed)
        writer.close()
        os.replace(partial, target)
    except BaseException:
        writer.close()
        if os.path.exists(partial):
            os.remove(partial)
        raise
    return total


def write_data(file, tensors, seed):
    progress = Progress(data_bytes(tensors))
    file.write(bytes(padded(file.tell()) - file.tell()))
    for tensor in tensors:
        for piece in pieces_of(tensor, seed):
            file.write(piece)
            progress.add(len(piece))
        rest = padded(bytes_of(tensor)) - bytes_of(tensor)
        file.write(bytes(rest))
        progress.add(rest)
    file.flush()
    os.fsync(file.fileno())
