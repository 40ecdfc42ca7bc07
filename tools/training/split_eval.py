#!/usr/bin/env python3
"""Splits every evaluation set in two: even items are shared, odd items kept back.

split_eval.py EVAL_DIR SHARED_DIR HOLDOUT_DIR
"""

import os
import sys


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    source, *targets = sys.argv[1:]
    for name in sorted(os.listdir(source)):
        with open(f"{source}/{name}", encoding="utf-8") as f:
            lines = f.readlines()
        for part, target in enumerate(targets):
            os.makedirs(target, exist_ok=True)
            with open(f"{target}/{name}", "w", encoding="utf-8") as f:
                f.writelines(lines[part::2])
            print(f"{target}/{name}: {len(lines[part::2])}")


if __name__ == "__main__":
    main()
