#!/usr/bin/env python3
"""Splits the corpus into training text, held-out text and a list of common words.

    finish_corpus.py corpus.jsonl OUT_DIR

Writes train.txt (documents separated by a line of \\x1e, grouped by source), eval_text.jsonl (held-out
documents, 1 MB over all sources), words.txt (common plain words for the synthetic conversations) and
sources.json (characters kept of each source).
"""

import collections
import hashlib
import json
import re
import sys

SEPARATOR = "\n\x1e\n"
MOST_CHARACTERS = {
    "anarchism": 5e6,
    "dict-gcide": 14e6,
    "erlang-doc": 3e6,
    "llvm-14-doc": 3e6,
    "libboost1.74-doc": 3e6,
    "cppreference-doc-en-html": 3.5e6,
}
HELD_OUT_CHARACTERS = 1_000_000
LONGEST_HELD_OUT = 12_000
# Words that a program for the public should not say by chance.
UNWANTED = set("sex sexy fuck shit damn kill killed die died dead nazi slave rape nude".split())
NUM_WORDS = 6000


def split_long(text, length=24_000):
    """Cuts very long documents at paragraph borders."""
    while len(text) > length * 1.3:
        cut = text.rfind("\n\n", length // 2, length)
        if cut < 0:
            cut = length
        yield text[:cut]
        text = text[cut:].lstrip("\n")
    yield text


class Corpus:
    def __init__(self):
        self.train = {}
        self.held_out = []
        self.held_out_characters = 0
        self.kept = collections.Counter()
        self.words = collections.Counter()

    def add(self, source, text):
        """A document's hash decides where it goes, so that a second run decides alike."""
        if "Source code for " in text[:400]:
            return
        if self.kept[source] > MOST_CHARACTERS.get(source, 1e9):
            return
        self.kept[source] += len(text)
        number = int(hashlib.md5(text.encode()).hexdigest(), 16)
        room = self.held_out_characters < HELD_OUT_CHARACTERS
        if number % 150 == 0 and room and len(text) > 500:
            text = text[:LONGEST_HELD_OUT]
            self.held_out.append({"src": source, "text": text})
            self.held_out_characters += len(text)
            return
        self.train.setdefault(source, []).append(text)
        if number % 3 == 0:
            self.words.update(re.findall(r"(?<![\w'-])[a-z]{3,10}(?![\w'-])", text))

    def common_words(self):
        """Without the 150 most common, which say nothing."""
        words = [word for word, _ in self.words.most_common(9000)[150:]]
        return [w for w in words if w not in UNWANTED and re.search("[aeiouy]", w)][:NUM_WORDS]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, out = sys.argv[1:]
    corpus = Corpus()
    with open(source, encoding="utf-8") as f:
        for line in f:
            document = json.loads(line)
            for text in split_long(document["text"]):
                corpus.add(document["src"], text)
    with open(out + "/train.txt", "w", encoding="utf-8") as f:
        f.write(
            SEPARATOR.join(text for name in sorted(corpus.train) for text in corpus.train[name])
        )
    with open(out + "/eval_text.jsonl", "w", encoding="utf-8") as f:
        for number, item in enumerate(corpus.held_out):
            f.write(json.dumps(dict(id=f"text-{number:04d}", **item), ensure_ascii=False) + "\n")
    words = corpus.common_words()
    with open(out + "/words.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(words) + "\n")
    with open(out + "/sources.json", "w", encoding="utf-8") as f:
        json.dump(dict(corpus.kept.most_common()), f, indent=0)
    print(
        f"{sum(corpus.kept.values()) / 1e6} MB kept; {len(corpus.held_out)} held-out documents with"
        f" {corpus.held_out_characters} characters; {len(words)} words"
    )


if __name__ == "__main__":
    main()
