#!/usr/bin/env python3
"""Blocks of every GGUF type with the values that the public package `gguf` gives them.

    pip install gguf numpy safetensors
    tools/block_golden.py fixture tests/data/golden/blocks.safetensors
    tools/block_golden.py grids src/quant/grids.inc

The blocks are random bytes (seeded), so that every code, scale and sign pattern comes; only the f16 scales are kept
finite. For each type T: `T.blocks` U8 [blocks, bytes of a block], `T.values` F32 [blocks, elements of a block].
The grids are tables of numbers that belong to the format; this writes them as one number a row.
"""
import sys

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T
from safetensors.numpy import save_file

TYPES = [T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K,
         T.IQ1_S, T.IQ1_M, T.IQ2_XXS, T.IQ2_XS, T.IQ2_S, T.IQ3_XXS, T.IQ3_S, T.IQ4_NL, T.IQ4_XS, T.TQ1_0, T.TQ2_0,
         T.MXFP4]
# Where the f16 scales of a block are.
SCALES = {T.F16: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82],
          T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ1_S: [0], T.IQ2_XXS: [0], T.IQ2_XS: [0],
          T.IQ2_S: [0], T.IQ3_XXS: [0], T.IQ3_S: [0], T.IQ4_NL: [0], T.IQ4_XS: [0], T.TQ1_0: [52], T.TQ2_0: [64]}


def random_blocks(rng, kind, count):
    blocks = rng.integers(0, 256, (count, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for at in SCALES.get(kind, []):
        high = blocks[:, at + 1]
        blocks[:, at + 1] = np.where(high & 0x7c == 0x7c, high ^ 0x40, high)
    if kind in (T.F32, T.BF16):
        blocks[:, -1] &= 0xbf
    if kind == T.IQ1_M:  # the exponent's top bits are in the highest nibble of the block
        blocks[:, -1] &= 0xbf
    return blocks


def fixture(path):
    rng = np.random.default_rng(20261127)
    tensors = {}
    for kind in TYPES:
        elements = GGML_QUANT_SIZES[kind][0]
        blocks = random_blocks(rng, kind, {1: 256, 32: 24, 256: 8}[elements])
        if kind == T.MXFP4:  # the ends of the exponent as well
            blocks[:6, 0] = [0, 1, 2, 3, 254, 255]
        values = quants.dequantize(blocks, kind).astype(np.float32)
        finite = np.isfinite(values)
        assert finite.all() or kind == T.MXFP4
        tensors[f"{kind.name}.blocks"] = blocks
        tensors[f"{kind.name}.values"] = values.reshape(len(blocks), elements)
    save_file(tensors, path)


def grids(path):
    lines = ["// The grids of GGUF's IQ types, one row a number; written by tools/block_golden.py grids.\n"]
    for name, kind, bits in [("kIq2XxsGrid", quants.IQ2_XXS, 2), ("kIq2XsGrid", quants.IQ2_XS, 2),
                             ("kIq2SGrid", quants.IQ2_S, 2), ("kIq3XxsGrid", quants.IQ3_XXS, 3),
                             ("kIq3SGrid", quants.IQ3_S, 3), ("kIq1Grid", quants.IQ1_S, 2)]:
        kind.init_grid()
        rows = kind.grid.reshape(kind.grid_shape)
        codes = np.searchsorted(kind.grid_map, rows).astype(np.uint32)
        assert (np.array(kind.grid_map)[codes] == rows).all()
        numbers = (codes << (bits * np.arange(rows.shape[1], dtype=np.uint32))).sum(axis=1)
        lines.append(f"constexpr uint16_t {name}[{len(rows)}] = {{\n")
        for i in range(0, len(rows), 16):
            lines.append("    " + " ".join(f"{n}," for n in numbers[i:i + 16]) + "\n")
        lines.append("};\n")
    with open(path, "w") as out:
        out.writelines(lines)


if __name__ == "__main__":
    {"fixture": fixture, "grids": grids}[sys.argv[1]](sys.argv[2])
