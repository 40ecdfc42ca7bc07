#!/usr/bin/env python3
"""Matrices quantised by the public package `mlx`, as it writes them, with the values it gives them back.

    pip install 'mlx[cpu]' numpy
    tools/mlx_golden.py tests/data/golden/mlx.safetensors

For each case C (`affine-BITS-GROUP`, `affine-4-64-f16`, `mxfp4`): `C.weight` U32, `C.scales`, `C.biases` as mlx.quantize
makes them from random BF16 weights [5, 384], and `C.values` F32, dequantised in float32. Written by mlx itself, so that
tensors lie at any address. Values are also recomputed here from the bits by the rule that docs/formats.md states.
"""
import sys

import mlx.core as mx
import numpy as np

ROWS, COLUMNS = 5, 384


def codes_of(weight, bits):
    bytes_ = np.array(weight).view(np.uint8).reshape(ROWS, -1)
    stream = np.unpackbits(bytes_, axis=1, bitorder="little").reshape(ROWS, COLUMNS, bits)
    return (stream.astype(np.uint32) << np.arange(bits, dtype=np.uint32)).sum(axis=2)


def affine(weights, bits, group, tensors, name):
    codes, scales, biases = mx.quantize(weights, group_size=group, bits=bits)
    wide = [x.astype(mx.float32) for x in (scales, biases)]
    values = mx.dequantize(codes, *wide, group_size=group, bits=bits)
    s, b = [np.repeat(np.array(x), group, axis=1) for x in wide]
    mine = s * codes_of(codes, bits).astype(np.float32) + b
    assert (mine == np.array(values)).all(), name
    tensors.update({f"{name}.weight": codes, f"{name}.scales": scales, f"{name}.biases": biases,
                    f"{name}.values": values})


def main(path):
    mx.random.seed(20261127)
    weights = (mx.random.normal((ROWS, COLUMNS)) * 0.03).astype(mx.bfloat16)
    tensors = {}
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            affine(weights, bits, group, tensors, f"affine-{bits}-{group}")
    affine(weights.astype(mx.float16), 4, 64, tensors, "affine-4-64-f16")
    codes, scales = mx.quantize(weights, group_size=32, bits=4, mode="mxfp4")
    values = mx.dequantize(codes, scales, group_size=32, bits=4, mode="mxfp4").astype(mx.float32)
    doubled = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.float32)
    power = np.exp2(np.repeat(np.array(scales), 32, axis=1).astype(np.float32) - 128)
    assert (doubled[codes_of(codes, 4)] * power == np.array(values)).all()
    tensors.update({"mxfp4.weight": codes, "mxfp4.scales": scales, "mxfp4.values": values})
    mx.save_safetensors(path, tensors)


if __name__ == "__main__":
    main(sys.argv[1])
