"""A GGUF file of a published shape with random 4-bit weights, for bench/peers.

Pure parts (python's own library): the shapes, as src/model/shapes.cc has them; the metadata and the
tensors that a loader of the architectures qwen35moe and qwen3next asks for; blocks of Q4_0, Q4_K and
Q6_K. Only write_model needs the packages numpy and gguf.

Matrices that every token or an expert multiplies with are Q4_0, or as a file of the kind Q4_K_M has
them: Q4_K, and Q6_K for the output, and in the first and the last eighth of the layers and every third
between for values, delta-net's inputs and down. Norms, the router and small tensors are F32. Entries
are symmetric around zero with a deviation of 1/sqrt(columns), so that activations stay of order one
through any number of layers. There is no tokenizer: token ids go in.
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

ARCHITECTURES = {"kQwen35": "qwen35moe", "kQwen3Next": "qwen3next"}
BLOCKS = {"Q4_0": (32, 18), "Q4_K": (256, 144), "Q6_K": (256, 210)}  # weights, bytes
MIXES = ("Q4_0", "Q4_K_M")
ALIGNMENT = 32
PIECE_BYTES = 18 << 14  # of one write; larger ones leave the processor's caches
FREE_LEFT = 1 << 30     # of the disk, after the file
FULL_ATTENTION_INTERVAL = 4
CONV_KERNEL = 4
ROTARY_SHARE = 4        # a quarter of a head is rotated

Shape = namedtuple("Shape", "name short architecture vocab hidden layers heads kv_heads head_dim "
                            "linear_k_heads linear_v_heads linear_head_dim experts experts_used "
                            "ffn context rope_theta")
# kind: "matrix" (of the mix's type), "random" (F32, of that deviation), "value" (F32, all equal), "decay" (F32)
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
    return Tensor(name, (columns, rows, *more), "matrix", 1 / math.sqrt(columns))


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
    return tensors


def has_more_bits(tensor, layers):
    """Whether a file of the kind Q4_K_M has Q6_K here."""
    if tensor.name == "output.weight":
        return True
    named = re.fullmatch(r"blk\.(\d+)\.(attn_v|attn_qkv|ffn_down_exps|ffn_down_shexp)\.weight",
                         tensor.name)
    if not named:
        return False
    layer = int(named[1])
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def type_of(tensor, mix, layers):
    if tensor.kind != "matrix":
        return "F32"
    if mix == "Q4_0":
        return mix
    return "Q6_K" if has_more_bits(tensor, layers) else "Q4_K"


def check_rows(tensors, mix, layers):
    for tensor in tensors:
        kind = type_of(tensor, mix, layers)
        if kind != "F32" and tensor.dims[0] % BLOCKS[kind][0]:
            raise ModelError(f"{tensor.name}: rows of {tensor.dims[0]} do not divide into blocks "
                             f"of {BLOCKS[kind][0]}")


def count_of(tensor):
    return math.prod(tensor.dims)


def bytes_of(tensor, kind):
    if kind == "F32":
        return count_of(tensor) * 4
    weights, size = BLOCKS[kind]
    return count_of(tensor) // weights * size


def padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def data_bytes(tensors, mix, layers):
    return sum(padded(bytes_of(tensor, type_of(tensor, mix, layers))) for tensor in tensors)


# A nibble n of Q4_0 means scale * (n - 8). Without n = 0 the codes are symmetric: a mean, however
# small, is one direction that all rows share, and it grows from layer to layer.
SYMMETRIC = bytes((high or 8) << 4 | (low or 8) for high in range(16) for low in range(16))
CODE_DEVIATION = math.sqrt(sum(((n or 8) - 8) ** 2 for n in range(16)) / 16)


def fill_columns(data, size, first, columns):
    """Of blocks of `size` bytes: the bytes from `first` on, each from a string of one for each block."""
    for i, column in enumerate(columns):
        data[first + i::size] = column


def random_columns(source, blocks, count, table=None):
    codes = source.randbytes(count * blocks)
    codes = codes.translate(table) if table else codes
    return (codes[i * blocks:(i + 1) * blocks] for i in range(count))


def equal_columns(value, blocks):
    return (value[i:i + 1] * blocks for i in range(len(value)))


def q4_0_blocks(source, blocks, deviation):
    """Random blocks: a half-precision scale, then 16 bytes of two weights each."""
    size = BLOCKS["Q4_0"][1]
    data = bytearray(size * blocks)
    fill_columns(data, size, 0, equal_columns(struct.pack("<e", deviation / CODE_DEVIATION), blocks))
    fill_columns(data, size, 2, random_columns(source, blocks, 16, SYMMETRIC))
    return data


# Eight scales of 32 and eight minima of 32, of six bits each: w = d 32 n - m 32, m = 8 d.
Q4_K_SCALE = 32
Q4_K_SCALES = bytes([Q4_K_SCALE | Q4_K_SCALE >> 4 << 6] * 8 + [0] * 4)


def q4_k_blocks(source, blocks, deviation):
    """d, m, the scales of eight groups, then 128 bytes of two weights each."""
    size = BLOCKS["Q4_K"][1]
    d = struct.unpack("<e", struct.pack("<e", deviation / CODE_DEVIATION / Q4_K_SCALE))[0]
    data = bytearray(size * blocks)
    fill_columns(data, size, 0, equal_columns(struct.pack("<ee", d, 8 * d) + Q4_K_SCALES, blocks))
    fill_columns(data, size, 16, random_columns(source, blocks, 128, SYMMETRIC))
    return data


Q6_K_SCALE = 32
Q6_K_DEVIATION = math.sqrt(sum((n - 32) ** 2 for n in range(64)) / 64)
# A code n means scale * (n - 32), of -32 to 31: scales of both signs make it symmetric.
EITHER_SIGN = bytes(Q6_K_SCALE if b < 128 else 256 - Q6_K_SCALE for b in range(256))


def q6_k_blocks(source, blocks, deviation):
    """192 bytes of codes, signed scales of sixteen groups, d."""
    size = BLOCKS["Q6_K"][1]
    data = bytearray(size * blocks)
    fill_columns(data, size, 0, random_columns(source, blocks, 192))
    fill_columns(data, size, 192, random_columns(source, blocks, 16, EITHER_SIGN))
    d = struct.pack("<e", deviation / Q6_K_DEVIATION / Q6_K_SCALE)
    fill_columns(data, size, 208, equal_columns(d, blocks))
    return data


BLOCKS_OF = {"Q4_0": q4_0_blocks, "Q4_K": q4_k_blocks, "Q6_K": q6_k_blocks}


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


def pieces_of(tensor, kind, seed):
    """The tensor's bytes, in pieces, from the seed and its name alone."""
    source = random.Random(f"{seed} {tensor.name}")
    if kind == "F32":
        yield f32_values(source, tensor)
        return
    left = count_of(tensor) // BLOCKS[kind][0]
    while left:
        blocks = min(left, PIECE_BYTES // BLOCKS[kind][1])
        yield BLOCKS_OF[kind](source, blocks, tensor.value)
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


def write_model(shape, target, seed, mix="Q4_0", force=False):
    """Writes TARGET.partial and renames it when it is whole and on the disk."""
    import gguf  # packages of bench/peers setup
    import numpy

    if os.path.exists(target) and not force:
        raise ModelError(f"{target} exists; --force replaces it")
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    tensors = tensors_of(shape)
    check_rows(tensors, mix, shape.layers)
    total = data_bytes(tensors, mix, shape.layers)
    check_space(target, total)
    partial = target + ".partial"
    writer = gguf.GGUFWriter(partial, shape.architecture)
    add_metadata(writer, shape)
    for tensor in tensors:
        kind = type_of(tensor, mix, shape.layers)
        writer.add_tensor_info(tensor.name, tensor.dims[::-1], numpy.dtype(numpy.float32),
                               bytes_of(tensor, kind), gguf.GGMLQuantizationType[kind])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        write_data(writer.fout[0], tensors, shape.layers, mix, seed)
        writer.close()
        os.replace(partial, target)
    except BaseException:
        writer.close()
        if os.path.exists(partial):
            os.remove(partial)
        raise
    return total


def write_data(file, tensors, layers, mix, seed):
    progress = Progress(data_bytes(tensors, mix, layers))
    file.write(bytes(padded(file.tell()) - file.tell()))
    for tensor in tensors:
        kind = type_of(tensor, mix, layers)
        for piece in pieces_of(tensor, kind, seed):
            file.write(piece)
            progress.add(len(piece))
        rest = padded(bytes_of(tensor, kind)) - bytes_of(tensor, kind)
        file.write(bytes(rest))
        progress.add(rest)
    file.flush()
    os.fsync(file.fileno())
