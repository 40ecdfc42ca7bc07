#!/usr/bin/env python3
"""Writes a text for `penstock pack --calibrate` of the demo model: conversations of the kind it was trained
on, with a seed of their own, and pieces of text files. Python's own library only.

    tools/calibration_text.py OUT.jsonl [--conversations 300] [--pieces 300] [--seed 7]
                              [--exclude EVAL.jsonl ...] FILE_OR_FOLDER ...

Each path gives as many pieces as any other; a folder is searched for .txt, .pod and .md files. A piece is
up to 3,000 characters from a paragraph's beginning. What shares a line of 50 characters or more with a file of --exclude is left out, so that
nothing is measured on what it was fitted to; conversations never contain a held-out question.
"""

import argparse
import json
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "training"))
PIECE = 3000
TELLING = 50  # characters of a line that is taken for the same text


def files_of(paths):
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                if name.endswith((".txt", ".pod", ".md")):
                    yield os.path.join(folder, name)


def pieces_of(path):
    with open(path, encoding="utf-8", errors="ignore") as f:
        text = f.read()
    piece = ""
    for paragraph in text.split("\n\n"):
        if piece and len(piece) + len(paragraph) > PIECE:
            yield piece
            piece = ""
        piece += ("\n\n" if piece else "") + paragraph[:PIECE]
    if piece:
        yield piece


def long_lines(text):
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= TELLING}


def texts_in(item):
    if "text" in item:
        return item["text"]
    return "\n".join(str(m.get("content") or "") for m in item["messages"]) + item["expected"]


def main():
    parser = argparse.ArgumentParser(description="A text for pack --calibrate.")
    parser.add_argument("out")
    parser.add_argument("paths", nargs="+", metavar="FILE_OR_FOLDER")
    parser.add_argument("--conversations", type=int, default=300)
    parser.add_argument("--pieces", type=int, default=300)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--exclude", action="append", default=[], metavar="EVAL.jsonl")
    options = parser.parse_args()
    rng = random.Random(options.seed)

    held_out = set()
    for path in options.exclude:
        with open(path, encoding="utf-8") as f:
            for line in f:
                held_out |= long_lines(texts_in(json.loads(line)))
    items = []
    share = -(-options.pieces // len(options.paths))
    for path in options.paths:
        pieces = [p for file in files_of([path]) for p in pieces_of(file)]
        pieces = [p for p in pieces if len(p) > 200 and not long_lines(p) & held_out]
        rng.shuffle(pieces)
        items += [{"text": piece} for piece in pieces[:share]]

    from chatgen import conversation  # reads its tables from the folder above

    for _ in range(options.conversations):
        made = conversation(rng)
        items.append({"messages": made["messages"], "tools": made["tools"]})
    rng.shuffle(items)
    with open(options.out, "w", encoding="utf-8") as f:
        for item in items:
            f.write(json.dumps(item, ensure_ascii=False) + "\n")
    print(f"{len(items)} pieces and conversations: {options.out}")


if __name__ == "__main__":
    main()
