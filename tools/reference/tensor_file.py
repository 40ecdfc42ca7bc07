"""A safetensors reader and writer on numpy alone.

numpy has no bfloat16, so a tensor is kept as it lies in the file: its dtype name and an array of the
same width. BF16 tensors hold their bit patterns as uint16; `to_float32` and `from_float32` convert.

Format: 8 bytes little-endian header length, a JSON object {name: {dtype, shape, data_offsets}},
then the bytes; offsets count from the end of the header. Tensors are written in order of their
names without gaps, and the header is padded with spaces to a multiple of 8 bytes.
"""

import json
import struct
from dataclasses import dataclass

import numpy as np

NUMPY_TYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
}


@dataclass
class StoredTensor:
    """dtype as named in the file; for BF16 the array holds bit patterns."""

    dtype: str
    array: np.ndarray

    def to_float32(self):
        if self.dtype == "BF16":
            return bf16_bits_to_float32(self.array)
        return self.array.astype(np.float32)


def bf16_bits_to_float32(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def float32_to_bf16_bits(values):
    """Rounds to the nearest bfloat16, ties to even. NaN is not expected here."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).astype(np.uint16)


def from_float32(values, dtype):
    """Converts a float32 array to a tensor of dtype F32, F16 or BF16."""
    if dtype == "BF16":
        return StoredTensor(dtype, float32_to_bf16_bits(values))
    return StoredTensor(dtype, np.ascontiguousarray(values).astype(NUMPY_TYPES[dtype]))


def plain(array):
    """Wraps an array whose numpy type names its dtype without doubt (not BF16)."""
    array = np.ascontiguousarray(array)
    for name, numpy_type in NUMPY_TYPES.items():
        if name != "BF16" and array.dtype == numpy_type:
            return StoredTensor(name, array)
    raise ValueError(f"no safetensors dtype for numpy type {array.dtype}")


def load(path):
    """-> {name: StoredTensor}; the arrays are read-only views of the file's bytes."""
    with open(path, "rb") as f:
        (header_bytes,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(header_bytes))
        data = f.read()
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        array = np.frombuffer(data[begin:end], dtype=NUMPY_TYPES[info["dtype"]])
        tensors[name] = StoredTensor(info["dtype"], array.reshape(info["shape"]))
    return tensors


def save(path, tensors, metadata=None):
    """Writes {name: StoredTensor or plain array}."""
    header = {"__metadata__": metadata} if metadata else {}
    blobs = []
    offset = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        if not isinstance(tensor, StoredTensor):
            tensor = plain(tensor)
        blob = np.ascontiguousarray(tensor.array).tobytes()
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.array.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        f.writelines(blobs)
