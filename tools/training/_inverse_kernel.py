"""The inverse of unit triangular 64 x 64 tiles in one Triton kernel; used by modeling.py on a GPU."""

import triton
import triton.language as tl


@triton.jit
def _inv16(a, i):
    """(I - a)^-1 of a strictly lower 16 x 16 block: (I + a)(I + a^2)(I + a^4)(I + a^8)"""
    t = a + tl.where(i[:, None] == i[None, :], 1.0, 0.0)
    p = a
    for _ in tl.static_range(3):
        p = tl.dot(p, p, input_precision="tf32x3")
        t = t + tl.dot(t, p, input_precision="tf32x3")
    return t


@triton.jit
def _mm(a, b):
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def inverse_kernel(A, T):
    """T = (I - A)^-1 of one strictly lower 64 x 64 tile, by 16 x 16 blocks (stable also when keys repeat)"""
    i = tl.arange(0, 16)
    o = i[:, None] * 64 + i[None, :]
    A += tl.program_id(0).to(tl.int64) * 4096
    T += tl.program_id(0).to(tl.int64) * 4096
    t11 = _inv16(tl.load(A + o), i)
    t22 = _inv16(tl.load(A + o + 16 * 65), i)
    t33 = _inv16(tl.load(A + o + 32 * 65), i)
    t44 = _inv16(tl.load(A + o + 48 * 65), i)
    a21 = tl.load(A + o + 16 * 64)
    a31 = tl.load(A + o + 32 * 64)
    a32 = tl.load(A + o + 32 * 64 + 16)
    a41 = tl.load(A + o + 48 * 64)
    a42 = tl.load(A + o + 48 * 64 + 16)
    a43 = tl.load(A + o + 48 * 64 + 32)
    t21 = _mm(t22, _mm(a21, t11))
    t32 = _mm(t33, _mm(a32, t22))
    t43 = _mm(t44, _mm(a43, t33))
    t31 = _mm(t33, _mm(a31, t11) + _mm(a32, t21))
    t42 = _mm(t44, _mm(a42, t22) + _mm(a43, t32))
    t41 = _mm(t44, _mm(a41, t11) + _mm(a42, t21) + _mm(a43, t31))
    b = tl.bfloat16
    z = tl.zeros((16, 16), b)
    tl.store(T + o, t11.to(b))
    tl.store(T + o + 16, z)
    tl.store(T + o + 32, z)
    tl.store(T + o + 48, z)
    tl.store(T + o + 16 * 64, t21.to(b))
    tl.store(T + o + 16 * 65, t22.to(b))
    tl.store(T + o + 16 * 64 + 32, z)
    tl.store(T + o + 16 * 64 + 48, z)
    tl.store(T + o + 32 * 64, t31.to(b))
    tl.store(T + o + 32 * 64 + 16, t32.to(b))
    tl.store(T + o + 32 * 65, t33.to(b))
    tl.store(T + o + 32 * 64 + 48, z)
    tl.store(T + o + 48 * 64, t41.to(b))
    tl.store(T + o + 48 * 64 + 16, t42.to(b))
    tl.store(T + o + 48 * 64 + 32, t43.to(b))
    tl.store(T + o + 48 * 65, t44.to(b))
