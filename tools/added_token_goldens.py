#!/usr/bin/env python3
"""Writes what the tests of added tokens compare with: ids from the reference, PyPI `tokenizers`.

  tools/added_token_goldens.py [tests/data]                    (needs: pip install tokenizers)

reads   text/tokenizer.json       the demo model's tokenizer
writes  added_token_cases.json    sets of added tokens with every combination of flags, and texts with their ids

Tokens and texts are made of few letters, so that tokens overlap, stand beside words and white space, and contain each other.
With --classes it prints, for every character, whether single_word minds it and whether rstrip takes it.
"""
import json
import os
import random
import sys

import tokenizers

PIECES = ["a", "b", "ab", "<x>", "<", ">", " ", "  ", "\n", "\t", "\u3000", "é", "e\u0301", "\u212b", "世", "_", "1", ".", "!", "\u0301", "\u00bd", "\u24b6", "\u200d"]
FLAGS = ["single_word", "lstrip", "rstrip", "normalized", "special"]


def with_tokens(definition, added, normalizer):
    changed = dict(definition, normalizer=normalizer)
    first = max(definition["model"]["vocab"].values()) + 1
    changed["added_tokens"] = [dict(token, id=first + i) for i, token in enumerate(added)]
    return changed, tokenizers.Tokenizer.from_str(json.dumps(changed))


def token(content, *flags):
    return dict({"content": content}, **{flag: flag in flags for flag in FLAGS})


def make_cases(definition, rng):
    for _ in range(160):
        contents = []
        for _ in range(rng.randint(1, 5)):
            content = "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 3)))
            if content not in contents and content not in definition["model"]["vocab"]:
                contents.append(content)
        added = [token(c, *[flag for flag in FLAGS if rng.random() < 0.4]) for c in contents]
        if not added:
            continue
        normalizer = rng.choice([{"type": "NFC"}, None])
        changed, reference = with_tokens(definition, added, normalizer)
        texts = []
        for _ in range(12):
            text = "".join(rng.choice(contents) if rng.random() < 0.4 else rng.choice(PIECES) for _ in range(rng.randint(1, 9)))
            try:
                texts.append([text, reference.encode(text, add_special_tokens=False).ids])
            except BaseException as error:  # a panic, where a token takes what the one before has taken
                print("left out: %r" % error)
        # "normalized" stays: where it is missing, its value follows from "special".
        tokens = [{k: v for k, v in t.items() if v is not False or k == "normalized"} for t in changed["added_tokens"]]
        yield {"added": tokens, "nfc": normalizer is not None, "texts": texts}


def check_classes(definition):
    """The characters that \\w and \\s stand for."""
    _, word = with_tokens(definition, [token("<w>", "single_word")], None)
    _, space = with_tokens(definition, [token("<s>", "rstrip")], None)
    words, spaces = [], []
    for c in list(range(0xD800)) + list(range(0xE000, 0x110000)):
        if c < 0x20000 or c % 97 == 0 or c >= 0xE0000:
            if len(word.encode("<w>" + chr(c), add_special_tokens=False).ids) and word.token_to_id("<w>") not in word.encode("<w>" + chr(c), add_special_tokens=False).ids:
                words.append(c)
            if space.encode("<s>" + chr(c), add_special_tokens=False).ids == [space.token_to_id("<s>")]:
                spaces.append(c)
    return words, spaces


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] != "--classes" else os.path.join(os.path.dirname(__file__), "..", "tests", "data")
    with open(os.path.join(folder, "text", "tokenizer.json"), encoding="utf-8") as file:
        definition = json.load(file)
    cases = list(make_cases(definition, random.Random(7)))
    with open(os.path.join(folder, "added_token_cases.json"), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases) + "\n]\n")
    print("%d sets, %d texts, tokenizers %s" % (len(cases), sum(len(c["texts"]) for c in cases), tokenizers.__version__))
    if "--classes" in sys.argv:
        words, spaces = check_classes(definition)
        json.dump([words, spaces], sys.stdout)


if __name__ == "__main__":
    main()
