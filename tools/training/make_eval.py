#!/usr/bin/env python3
"""Writes the held-out evaluation sets.

make_eval.py eval_text.jsonl OUT_DIR
"""

import json
import os
import shutil
import sys

import chatgen


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    texts, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    shutil.copy(texts, f"{out}/eval_text.jsonl")
    for kind, items in chatgen.eval_sets().items():
        with open(f"{out}/eval_{kind}.jsonl", "w", encoding="utf-8") as f:
            for item in items:
                f.write(json.dumps(item, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
