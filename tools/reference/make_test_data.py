#!/usr/bin/env python3
"""Cuts tests/data out of the full recorded values: small enough to be checked in, whole enough to test with.

    make_test_data.py MODELS_DIR TESTS_DATA_DIR

MODELS_DIR holds the folders that tools/training makes: random/, golden/, eval/. Nothing is computed
anew here; rows are selected and tensors dropped. What is kept, and why, is told in tests/data/README.md.
"""

import json
import os
import shutil
import sys

import golden_cases
import tensor_file

# Folder -> every how manieth item is kept, and at most how many.
EVAL_PARTS = {"text": (9, 12), "tools": (6, 40), "json": (3, 30), "qa": (5, 40)}
ROUTING_TOKENS = 2000
# One case keeps the residual stream after every layer and the router's logits, to find the layer
# where values part; the others keep what a test compares.
CASE_IN_FULL = "r0-gva2"


def copy_random(source, target):
    for case in sorted(os.listdir(source)):
        os.makedirs(f"{target}/{case}", exist_ok=True)
        for name in sorted(os.listdir(f"{source}/{case}")):
            if name != "expected.safetensors":
                shutil.copyfile(f"{source}/{case}/{name}", f"{target}/{case}/{name}")
        expected = tensor_file.load(f"{source}/{case}/expected.safetensors")
        if case != CASE_IN_FULL:
            expected = {k: v for k, v in expected.items() if is_compared(k)}
        tensor_file.save(f"{target}/{case}/expected.safetensors", expected)


def is_compared(name):
    if name.startswith("hidden."):
        return name == "hidden.final_norm"
    return not (name.startswith("router.") and name.endswith(".logits"))


def copy_golden(source, target):
    os.makedirs(target, exist_ok=True)
    for case in ("plain", "chat", "long"):
        stored = tensor_file.load(f"{source}/{case}.safetensors")
        record = {name: tensor.array for name, tensor in stored.items()}
        tensor_file.save(f"{target}/{case}.safetensors", golden_cases.compact(record))
        with open(f"{source}/{case}.json", encoding="utf-8") as f:
            about = json.load(f)
        about["logits"] = "see tests/data/README.md"
        with open(f"{target}/{case}.json", "w", encoding="utf-8") as f:
            json.dump(about, f, ensure_ascii=False)
            f.write("\n")


def copy_eval(source, target):
    os.makedirs(target, exist_ok=True)
    for kind, (step, most) in EVAL_PARTS.items():
        kept = read_lines(f"{source}/eval_{kind}.jsonl")[::step][:most]
        write_lines(f"{target}/eval_{kind}.jsonl", kept)
        if kind == "text":
            continue
        ids = {json.loads(line)["id"] for line in kept}
        answers = read_lines(f"{source}/greedy_{kind}.jsonl")
        write_lines(
            f"{target}/greedy_{kind}.jsonl", [a for a in answers if json.loads(a)["id"] in ids]
        )
    for name in ("text", "tools"):
        cut_routing(f"{source}/routing_{name}.safetensors", f"{target}/routing_{name}.safetensors")


def cut_routing(source, target):
    """The first sequences of a trace; the last one is cut so that ROUTING_TOKENS remain."""
    trace = tensor_file.load(source)
    lengths = []
    for length in trace.pop("lengths").array.tolist():
        length = min(length, ROUTING_TOKENS - sum(lengths))
        if length > 0:
            lengths.append(length)
    tensors = {name: tensor.array[: sum(lengths)] for name, tensor in trace.items()}
    tensors["lengths"] = tensor_file.np.array(lengths, dtype=tensor_file.np.int32)
    tensor_file.save(target, tensors)


def read_lines(path):
    with open(path, encoding="utf-8") as f:
        return f.readlines()


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(lines)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = sys.argv[1:]
    copy_random(f"{source}/random", f"{target}/random")
    copy_golden(f"{source}/golden", f"{target}/golden")
    copy_eval(f"{source}/eval", f"{target}/eval")


if __name__ == "__main__":
    main()
