"""A safetensors reader and writer for torch tensors (F32, BF16, I64, I32, U8), without the package."""

import json
import math
import struct

import torch

NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}
TYPES = {name: dtype for dtype, name in NAMES.items()}


def save_file(tensors, path, metadata=None):
    """Writes {name: tensor} in order of the names."""
    header = {"__metadata__": metadata} if metadata else {}
    blobs = []
    offset = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        plain = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
        blob = plain.numpy().tobytes()
        header[name] = dict(
            dtype=NAMES[tensor.dtype],
            shape=list(tensor.shape),
            data_offsets=[offset, offset + len(blob)],
        )
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        f.writelines(blobs)


def load_file(path):
    """-> {name: tensor}, each with memory of its own"""
    with open(path, "rb") as f:
        (header_bytes,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(header_bytes))
        data = bytearray(f.read())
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        dtype = TYPES[info["dtype"]]
        stored = torch.int16 if dtype == torch.bfloat16 else dtype
        count = math.prod(info["shape"])
        tensor = torch.empty(0, dtype=stored)
        if count:
            offset = info["data_offsets"][0]
            tensor = torch.frombuffer(data, dtype=stored, count=count, offset=offset).clone()
        tensors[name] = tensor.view(dtype).reshape(info["shape"])
    return tensors
