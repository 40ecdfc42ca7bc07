#!/usr/bin/env python3
"""Golden values of the demo model: the trained checkpoint with 4-bit experts and 8-bit resident matrices.

    quantised_golden.py MODEL_DIR GOLDEN_DIR [EXPERT_BITS RESIDENT_BITS PREFIX]

MODEL_DIR holds the bfloat16 checkpoint. GOLDEN_DIR holds plain.json, chat.json and long.json, whose
token ids are the prompts; demo_NAME.safetensors and demo_NAME.json are written beside them, in the
form that golden_cases.py describes. The reference is transformers' class in float32 with the
dequantised weights. With 0 0 as bits nothing is quantised, which must give the values of NAME back.
"""

import json
import sys

import golden_cases
import oracle
import packed_weights
import tensor_file
import torch
from tokenizers import Tokenizer

GREEDY_STEPS = 64


def main():
    if len(sys.argv) not in (3, 6):
        sys.exit(__doc__)
    model_dir, golden_dir = sys.argv[1:3]
    expert_bits, resident_bits, prefix = (sys.argv[3:] + ["4", "8", "demo_"])[:3]
    expert_bits, resident_bits = int(expert_bits), int(resident_bits)
    torch.set_num_threads(1)

    config = oracle.read_config(f"{model_dir}/config.json")
    stored = tensor_file.load(f"{model_dir}/model.safetensors")
    model = oracle.build_model(
        config, packed_weights.dequantised(stored, expert_bits, resident_bits)
    )
    tokenizer = Tokenizer.from_file(f"{model_dir}/tokenizer.json")
    for case in ("plain", "chat", "long"):
        with open(f"{golden_dir}/{case}.json", encoding="utf-8") as f:
            about = json.load(f)
        if tokenizer.encode(about["text"], add_special_tokens=False).ids != about["input_ids"]:
            sys.exit(
                f"{golden_dir}/{case}.json: input_ids are not what {model_dir}/tokenizer.json gives"
            )
        values, greedy_ids, margins = oracle.record(model, about["input_ids"], GREEDY_STEPS)
        nll = oracle.mean_nll(values)
        if case == "long":
            values = last_positions(values, 8)
        tensor_file.save(f"{golden_dir}/{prefix}{case}.safetensors", golden_cases.compact(values))
        about.update(
            name=prefix + case,
            expert_bits=expert_bits,
            resident_bits=resident_bits,
            greedy_ids=greedy_ids,
            greedy_margin=margins,
            greedy_text=tokenizer.decode(greedy_ids, skip_special_tokens=False),
            nll=round(nll, 5),
        )
        with open(f"{golden_dir}/{prefix}{case}.json", "w", encoding="utf-8") as f:
            json.dump(about, f, ensure_ascii=False)
            f.write("\n")
        print(
            f"{prefix}{case}: nll {nll:.5f}, smallest margin {min(margins)}, {about['greedy_text'][:90]!r}"
        )


def last_positions(values, count):
    """Cuts what has an axis of positions, so that a long prompt stays small."""
    whole = ("input_ids", "greedy_ids")
    return {name: array if name in whole else array[-count:] for name, array in values.items()}


if __name__ == "__main__":
    main()
