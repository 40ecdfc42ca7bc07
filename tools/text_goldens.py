#!/usr/bin/env python3
"""Writes what the tokenizer's tests compare with: ids from the reference, PyPI `tokenizers`.

  tools/text_goldens.py [tests/data/text]                      (needs: pip install tokenizers)

reads   tokenizer.json         the demo model's tokenizer
writes  corpus_pools.json      building blocks of the corpus
        tokenizer_cases.json   texts with their ids
        tokenizer_hashes.json  a hash of the ids of each line of the corpus, per variant

The corpus itself (1.5 MB of odd text) is not stored: corpus_line() below and in tokenizer_test.cc
build the same lines from the pools. Variants of the tokenizer: as it is; with the split pattern of
Qwen2 and Qwen3-Next and merges written as "a b"; without normaliser.
"""
import json
import os
import random
import sys

import tokenizers

LINES = 3000
CASES = 300
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

PROSE = """The harbour was quiet, and nobody on the pier had seen the boat come in; they'd all gone home.
Don't you think we're late? I'll wait, she said, but he's sure it isn't worth it. THEY'VE GONE, I'M SURE.
Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Müßiggang ist aller Laster Anfang.
Dès Noël, où un zéphyr haï me vêt de glaçons würmiens, je dîne d'exquis rôtis de bœuf au kir.
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia; añoraba a su querido cachorro. ¿Por qué?
Съешь ещё этих мягких французских булок, да выпей же чаю. Широкая электрификация южных губерний.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Τάχιστη αλώπηξ βαφής ψημένη γη.
דג סקרן שט בים מאוכזב ולפתע מצא חברה. نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले विष्णुवतार भगवान श्रीराम।
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน いろはにほへと ちりぬるを わかよたれそ つねならむ
天地玄黃 宇宙洪荒 日月盈昃 辰宿列張 寒來暑往 秋收冬藏 다람쥐 헌 쳇바퀴에 타고파 키스의 고유조건은
Příliš žluťoučký kůň úpěl ďábelské ódy. Pchnąć w tę łódź jeża lub ośm skrzyń fig. Đặng Phương ăn phở."""

CODE = r"""def f(x, *, y=1):\n    return {k: v**2 for k, v in x.items() if v != y}  # square
template <class T>\nstruct Box {\n\tT value;\n};
if (a[i] >= 0x7f && !(b->c & ~mask)) { ++n; } else { n <<= 2; }
SELECT id, COUNT(*) FROM t WHERE name LIKE '%x_%' GROUP BY id;
{"key": [1, 2.5e-3, null, true], "nested": {"a": "\u00e9"}}
https://example.org/a/b?c=d&e=%20f#frag  user@example.com
<div class="x" id='y'>&nbsp;<!-- no --></div>
$ grep -rn --include='*.cc' "foo\|bar" . | wc -l
x = y ?? z?.w ?: () => `${t}`;
printf("%5.2f%%\n", 99.9);
#include <vector>\r\n#define MAX(a,b) ((a)>(b)?(a):(b))\r\n"""


def pools():
    rng = random.Random(2026)
    code_points = [c for c in range(0x20, 0x30000) if not 0xD800 <= c < 0xE000]
    chars = lambda *spans: [chr(c) for low, high in spans for c in range(low, high + 1)]
    return {
        "words": [w + " " for w in PROSE.split()] + [" " + w for w in PROSE.split()[::3]],
        "code": [line.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r") for line in CODE.split("\n")]
        + ["(", ")", "{", "}", "[", "]", "==", "->", "::", "//", "/*", "*/", ";\n", ",", ".", "    ", "\t", "\n", "\n\n", "_x", "i++", "0x1F", "3.14", "'a'", '"s"'],
        "apostrophes": ["'s", "'S", "'t", "'re", "'RE", "'Ve", "'m", "'ll", "'lL", "'d", "'", "''", "' s", "’s", "'\u017f", "'\u017fx", "'r", "'v", "'l", "'le", "n't", "x'", "'x", "1's", " 's", "'é"],
        "space": [" ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", " \n", "\n ", "\t\n ", "\u00a0", "\u2003", "\u2028", "\u2029", "\u3000", "\u0085", "\x0b", "\x0c", "\u1680", "\u202f", "x", " x", ".", " .", "1"],
        "not_space": ["\x1c", "\x1d", "\x1e", "\x1f", "\x00", "\x01", "\x7f", "\u200b", "\u200c", "\u200d", "\ufeff", "\u00ad", "\u180e", "\u2060", " ", "a"],
        "digits": list("0123456789") + ["١", "२", "৩", "๔", "５", "½", "²", "Ⅷ", "㊿", "𝟘", "𐄇", "〇", "一", ".", ",", " ", "a", "1234", "3.5e7", "１２"],
        "marks": ["\u0301", "\u0300", "\u0316", "\u0327", "\u0345", "\u0334", "\u0338", "\u20dd", "\u093e", "\u094d", "\u0e31", "\ufe0f", "\u1ab0", "a", "e", " ", "=", "\u05b0", "\u064b", "\u302a", "\u3099"],
        "late_marks": ["\u07fd", "\u0898", "\u08d3", "\u09fe", "\u0c3c", "\u0d3b", "\u1715", "\u1abf", "\U00011930", "\U00011935", "\U0001e4ec", "\u0301", "\u0316", "a", "\u0345"],
        "nfc": ["e\u0301", "A\u030a", "\u212b", "\u2126", "\u0958", "\u0344", "\u0374", "\u037e", "\u1fef", "\u2000", "\uf900", "\ufa1e", "\ufb1d", "\U0001d15e", "\U0002f800", "o\u0328\u0304", "o\u0304\u0328", "\u1e69", "s\u0323\u0307", "s\u0307\u0323",
                "\u09c7\u09be", "\u0b47\u0b57", "\u0f71\u0f72", "\u0f73", "\u0f81", "q\u0323\u0307", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u1112\u1175", "한", "\u11a8", "\u0338", ">\u0338", "x"],
        "cjk": chars((0x4E00, 0x4E40), (0x3041, 0x3060), (0x30A1, 0x30B0), (0xAC00, 0xAC10)) + ["。", "，", "「", "」", "！", "？", "𠀀", "㐀"],
        "emoji": ["👩‍👩‍👧", "👍🏽", "🇩🇪", "❤️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "😀", "1️⃣", "👁️‍🗨️", "™", "©", " ", "ok"],
        "punctuation": list("!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~") + ["…", "—", "«", "»", "“", "”", "·", "€", "°", "×", "  ", "\n", "a"],
        "added": ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "<|im_", "end|>", "<think", ">", "<|", "user\n", " ", "<<", "|>"],
        "letters": chars((0xC0, 0x17F), (0x370, 0x3FF), (0x400, 0x45F), (0x5D0, 0x5EA), (0x627, 0x64A), (0x904, 0x939)),
        "anything": [chr(c) for c in rng.sample(code_points, 3000)],
        "runs": ["a" * 40, " " * 30, "\n" * 20, "ab" * 25, "=" * 60, "\u0301" * 20, "1" * 15, "aA" * 20, "-_" * 20, "\t" * 9, "xyz"],
    }


class SplitMix64:
    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) & mask) % limit


def corpus_line(pool_list, index):
    """One to three pools, mixed; now and then a piece is repeated. The same as in tokenizer_test.cc."""
    rng = SplitMix64(index)
    chosen = [pool_list[rng.below(len(pool_list))] for _ in range(1 + rng.below(3))]
    out = []
    for _ in range(5 + rng.below(150)):
        pool = chosen[rng.below(len(chosen))]
        piece = pool[rng.below(len(pool))]
        out.append(piece * (1 + (rng.below(12) if rng.below(16) == 0 else 0)))
    return "".join(out)


def fnv(ids):
    value = 0xCBF29CE484222325
    for i in ids:
        for byte in i.to_bytes(4, "little"):
            value = ((value ^ byte) * 0x100000001B3) & ((1 << 64) - 1)
    return "%016x" % value


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else "tests/data/text"
    path = lambda name: os.path.join(folder, name)
    with open(path("tokenizer.json"), encoding="utf-8") as file:
        definition = json.load(file)
    with open(path("corpus_pools.json"), "w", encoding="utf-8") as file:
        json.dump(pools(), file, ensure_ascii=True, indent=0)
        file.write("\n")
    pool_list = list(pools().values())

    def variant(change):
        changed = json.loads(json.dumps(definition))
        change(changed)
        reference = tokenizers.Tokenizer.from_str(json.dumps(changed))
        return lambda text: reference.encode(text, add_special_tokens=False).ids

    def qwen2(changed):
        changed["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = QWEN2
        changed["model"]["merges"] = [" ".join(pair) for pair in changed["model"]["merges"]]

    encoders = {
        "as_is": variant(lambda changed: None),
        "qwen2": variant(qwen2),
        "not_normalised": variant(lambda changed: changed.update(normalizer=None)),
    }
    lines = [corpus_line(pool_list, i) for i in range(LINES)]
    print(sum(len(line.encode()) for line in lines), "bytes of corpus")
    hashes = {name: [fnv(encode(line)) for line in lines] for name, encode in encoders.items()}
    hashes["tokenizers_version"] = tokenizers.__version__
    with open(path("tokenizer_hashes.json"), "w") as file:
        json.dump(hashes, file, indent=0)
        file.write("\n")
    texts = [corpus_line(pool_list, LINES + i)[:120] for i in range(CASES)]
    with open(path("tokenizer_cases.json"), "w") as file:
        json.dump([{"text": text, "ids": encoders["as_is"](text)} for text in PROSE.split("\n") + texts], file)
        file.write("\n")


if __name__ == "__main__":
    main()
