#!/usr/bin/env python3
"""How far apart are two sets of logits? Compares files that `penstock logits --routes` wrote, of the
same tokens, position by position.

    tools/compare_logits.py REFERENCE.safetensors OTHER.safetensors [--json]

KL divergence of OTHER from REFERENCE in nats, largest difference over the largest logit, share of
positions with the same most likely token, share of routed experts that both chose. Needs numpy.
"""

import argparse
import json
import struct

import numpy


def tensors(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        start = 8 + length
        found = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            kind = {"F32": "<f4", "I32": "<i4", "I64": "<i8"}[entry["dtype"]]
            data = numpy.frombuffer(file.read(end - begin), kind)
            found[name] = data.reshape(entry["shape"])
        return found


def log_softmax(logits):
    logits = logits.astype(numpy.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(axis=-1, keepdims=True))


def compare(reference, other):
    a, b = reference["logits"], other["logits"]
    if a.shape != b.shape:
        raise SystemExit(f"logits of shape {list(a.shape)} and {list(b.shape)}: other tokens or models")
    p, q = log_softmax(a), log_softmax(b)
    divergence = (numpy.exp(p) * (p - q)).sum(axis=-1)
    same = shared = total = 0
    for name in reference:
        if name.endswith(".ids"):
            for mine, theirs in zip(reference[name], other[name]):
                shared += len(set(mine.tolist()) & set(theirs.tolist()))
                total += len(mine)
    same = (a.argmax(axis=-1) == b.argmax(axis=-1)).mean()
    return {
        "positions": len(a),
        "kl_mean": float(divergence.mean()),
        "kl_p99": float(numpy.quantile(divergence, 0.99)),
        "kl_max": float(divergence.max()),
        "difference_over_largest_logit": float(numpy.abs(a - b).max() / numpy.abs(a).max()),
        "same_top_token": float(same),
        "same_experts": shared / total if total else None,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("reference")
    parser.add_argument("other")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = compare(tensors(options.reference), tensors(options.other))
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:30} {value}")


if __name__ == "__main__":
    main()
