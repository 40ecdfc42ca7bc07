"""The weights that a packed model computes with: `penstock pack --experts BITS --resident BITS`, in numpy.

Experts: every row of experts.gate_up_proj and experts.down_proj, in groups of 64 along the input.
Resident: every other matrix whose input width is a multiple of 64, except those named in KEPT.
Everything else keeps the values of the checkpoint. The quantiser is affine.py.
"""

import affine

# The router and the small projections decide much and weigh nothing; they keep their precision.
KEPT = (
    "mlp.gate.weight",
    "mlp.shared_expert_gate.weight",
    "linear_attn.in_proj_a.weight",
    "linear_attn.in_proj_b.weight",
)


def is_expert(name):
    return name.endswith((".experts.gate_up_proj", ".experts.down_proj"))


def is_quantised_resident(name, shape):
    return len(shape) == 2 and shape[-1] % affine.GROUP == 0 and not name.endswith(KEPT)


def bits_of(name, shape, expert_bits, resident_bits):
    """-> 2, 3, 4, 8, or 0 for a tensor that is kept as it is; 0 also asks for no quantisation."""
    if is_expert(name):
        return expert_bits
    return resident_bits if is_quantised_resident(name, shape) else 0


def dequantised(stored, expert_bits, resident_bits):
    """{name: StoredTensor} -> {name: float32 array}"""
    weights = {}
    for name, tensor in stored.items():
        values = tensor.to_float32()
        bits = bits_of(name, values.shape, expert_bits, resident_bits)
        weights[name] = affine.round_trip(values, bits) if bits else values
    return weights
