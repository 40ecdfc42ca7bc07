#!/usr/bin/env python3
"""The affine quantiser in numpy: groups of 64 along the input, 2, 3, 4 or 8 bits, bfloat16 scale and bias.

    affine.py fixture OUT.safetensors      writes the cases that test the C++ quantiser

The rule, all arithmetic in float32. For a group with minimum m, maximum M and n = 2^bits - 1:

    s = max((M - m) / n, 1e-7);  if |m| <= |M|: s = -s
    e = m if |m| > |M| else M                    # the end of larger magnitude
    q0 = rint(e / s)
    if q0 != 0:  s = e / q0, b = e   else:  b = 0
    code = clamp(rint((w - b) / s), 0, n)        # s and b as they are here, NOT yet rounded
    stored scale = bf16(s), stored bias = bf16(b)      # nearest, ties to even

rint rounds halves to even. Codes are computed with the unrounded s and b; rounding happens only when
they are stored. A reader computes

    w' = float32(scale) * code + float32(bias)

in float32. scale has 8 significant bits and a code at most 8, so the product is exact and it does
not matter whether the sum is fused.

What follows from the rule and is easy to get wrong:
  - The sign of s makes the larger end representable: code 0 is that end, w' there is bf16(e).
  - A constant group c != 0 gives codes 0, bias bf16(c) and a scale near -1e-7 (c > 0: |m| = |M|).
    For |c| < 0.5e-7, q0 is 0: bias 0, and w' is 0.
  - An all-zero group gives codes 0, bias 0, scale -1e-7.
  - (w - b) / s is a true division; multiplying by 1 / s changes codes.
  - Weights must be finite, and so must M - m and e / 1e-7: |w| up to 1e30 is safe.
"""

import sys

import numpy as np

import tensor_file

GROUP = 64
BITS = (2, 3, 4, 8)
SMALLEST_SCALE = np.float32(1e-7)


def quantise(weights, bits):
    """weights [..., width], width a multiple of 64 -> codes u8 [..., width],
    scales and biases as bf16 bit patterns u16 [..., width / 64]."""
    weights = np.asarray(weights, dtype=np.float32)
    if weights.shape[-1] % GROUP:
        raise ValueError(f"width {weights.shape[-1]} is not a multiple of {GROUP}")
    groups = weights.reshape(*weights.shape[:-1], -1, GROUP)
    lowest = groups.min(-1)
    highest = groups.max(-1)
    top_code = np.float32(2**bits - 1)

    low_is_larger = np.abs(lowest) > np.abs(highest)
    scale = np.maximum((highest - lowest) / top_code, SMALLEST_SCALE)
    scale = np.where(low_is_larger, scale, -scale)
    end = np.where(low_is_larger, lowest, highest)
    end_steps = np.rint(end / scale)
    on_grid = end_steps != 0
    scale = np.where(on_grid, end / np.where(on_grid, end_steps, np.float32(1)), scale)
    bias = np.where(on_grid, end, np.float32(0))
    assert scale.dtype == np.float32 and bias.dtype == np.float32

    steps = np.rint((groups - bias[..., None]) / scale[..., None])
    codes = np.clip(steps, 0, top_code).astype(np.uint8).reshape(weights.shape)
    return codes, tensor_file.float32_to_bf16_bits(scale), tensor_file.float32_to_bf16_bits(bias)


def dequantise(codes, scale_bits, bias_bits):
    """-> float32 [..., width]"""
    scale = tensor_file.bf16_bits_to_float32(scale_bits)[..., None]
    bias = tensor_file.bf16_bits_to_float32(bias_bits)[..., None]
    groups = codes.reshape(*codes.shape[:-1], -1, GROUP).astype(np.float32)
    return (scale * groups + bias).astype(np.float32).reshape(codes.shape)


def round_trip(weights, bits):
    """The float32 values that a packed model computes with."""
    return dequantise(*quantise(weights, bits))


def bf16_valued(values):
    return tensor_file.bf16_bits_to_float32(tensor_file.float32_to_bf16_bits(values))


def edge_rows():
    """One group of 64 a row, each a case of its own; the row's name says which."""
    rng = np.random.default_rng(7)
    noise = rng.standard_normal((8, GROUP)).astype(np.float32)
    ramp = np.linspace(-1, 1, GROUP, dtype=np.float32)
    one_hot = np.zeros(GROUP, np.float32)
    one_hot[17] = 0.75
    spread = (np.float32(10) ** rng.uniform(-20, 0, GROUP)).astype(np.float32)
    return {
        "zeros": np.zeros(GROUP, np.float32),
        "negative_zeros": np.full(GROUP, -0.0, np.float32),
        "constant_positive": np.full(GROUP, 0.3125, np.float32),
        "constant_negative": np.full(GROUP, -1.7, np.float32),
        "constant_below_the_floor": np.full(GROUP, 3e-8, np.float32),
        "constant_large": np.full(GROUP, -4e8, np.float32),
        "all_positive": np.abs(noise[0]) + np.float32(0.5),
        "all_negative": -np.abs(noise[1]) - np.float32(0.5),
        "symmetric_ends": ramp,
        "halves_to_even": np.tile(np.float32([-1.5, 1.5, -0.5, 0.5, 1.0, -1.0, 0.25, 0.0]), 8),
        "one_positive": one_hot,
        "one_negative": -one_hot,
        "huge": noise[2] * np.float32(1e30),
        "tiny": noise[3] * np.float32(1e-30),
        "subnormal": noise[4] * np.float32(1e-40),
        "range_near_the_floor": noise[5] * np.float32(1e-7),
        "many_magnitudes": spread * np.sign(noise[6]),
        "bf16_values": bf16_valued(noise[7] * np.float32(0.02)),
    }


def fixture_matrices():
    rng = np.random.default_rng(20)
    bf16_weights = bf16_valued(rng.standard_normal((10, 320)).astype(np.float32) * np.float32(0.02))
    skewed = (rng.standard_normal((6, 128)) ** 3 + rng.uniform(-2, 2, (6, 1))).astype(np.float32)
    return {
        "bf16": bf16_weights,
        "edges": np.stack(list(edge_rows().values())),
        "one_group": rng.standard_normal((1, GROUP)).astype(np.float32),
        "skewed": skewed,
    }


def write_fixture(path):
    tensors = {}
    for name, weights in fixture_matrices().items():
        tensors[f"{name}.weights"] = weights
        for bits in BITS:
            codes, scales, biases = quantise(weights, bits)
            tensors[f"{name}.b{bits}.codes"] = codes
            tensors[f"{name}.b{bits}.scales"] = tensor_file.StoredTensor("BF16", scales)
            tensors[f"{name}.b{bits}.biases"] = tensor_file.StoredTensor("BF16", biases)
            tensors[f"{name}.b{bits}.values"] = dequantise(codes, scales, biases)
    tensor_file.save(path, tensors, {"edges": " ".join(edge_rows())})


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "fixture":
        sys.exit(__doc__)
    write_fixture(sys.argv[2])
