"""A plain reading of tokenizer.json: NFC, split regex, byte level, BPE merges.

Slow, and written to be read: a second opinion on a tokenizer, and a stand-in where the package
`tokenizers` is missing. Needs the package `regex` for \\p{..} classes.
"""

import functools
import json
import unicodedata

import regex

NO_MERGE = 1 << 30


def byte_letters():
    """The byte-level alphabet: every byte has a printable letter; those without one of their own get
    the letters from U+0100 on, in order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(printable))
    return letters


class Tokenizer:
    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            file = json.load(f)
        model = file["model"]
        merges = [tuple(m if isinstance(m, list) else m.split(" ")) for m in model["merges"]]
        self.rank = {pair: rank for rank, pair in enumerate(merges)}
        self.ids = model["vocab"]
        self.tokens = {i: token for token, i in self.ids.items()}
        self.added_ids = {a["content"]: a["id"] for a in file["added_tokens"]}
        self.added_tokens = {i: token for token, i in self.added_ids.items()}
        longest_first = sorted(self.added_ids, key=len, reverse=True)
        self.added = regex.compile("(" + "|".join(map(regex.escape, longest_first)) + ")")
        split = file["pre_tokenizer"]["pretokenizers"][0]
        self.pieces = regex.compile(split["pattern"]["Regex"])
        self.letters = byte_letters()
        self.bytes = {letter: byte for byte, letter in self.letters.items()}
        self.encode_piece = functools.lru_cache(200_000)(self._encode_piece)

    def _encode_piece(self, piece):
        """Merges the pair of lowest rank, the leftmost first, until none is left."""
        parts = [self.letters[byte] for byte in piece.encode("utf-8")]
        while len(parts) > 1:
            pairs = zip(parts, parts[1:])
            rank, at = min((self.rank.get(pair, NO_MERGE), i) for i, pair in enumerate(pairs))
            if rank == NO_MERGE:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self.ids[part] for part in parts)

    def encode(self, text):
        ids = []
        for part in self.added.split(text):
            if part in self.added_ids:
                ids.append(self.added_ids[part])
            elif part:
                for match in self.pieces.finditer(unicodedata.normalize("NFC", part)):
                    ids.extend(self.encode_piece(match.group()))
        return ids

    def decode(self, ids):
        """Added tokens stand for themselves and end a run of bytes; invalid UTF-8 becomes U+FFFD."""
        text = []
        run = bytearray()
        for i in ids:
            if i in self.added_tokens:
                text.append(run.decode("utf-8", "replace"))
                text.append(self.added_tokens[i])
                run.clear()
            else:
                run.extend(self.bytes[letter] for letter in self.tokens[i])
        return "".join(text) + run.decode("utf-8", "replace")
