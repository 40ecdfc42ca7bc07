#!/usr/bin/env python3
"""Tokenizer and training rows.

    prepare.py tokenizer CORPUS_DIR OUT_DIR             trains the byte-level BPE (8,192 entries)
    prepare.py rows CORPUS_DIR TOK_DIR OUT_DIR N_CONV   text.npy (token stream), chat.npy (packed rows)

A row of chat.npy has 1,025 words. A word is an int16: bits 0-12 the id, bit 14 padding (no loss),
bit 15 (negative) full loss weight. The environment variable WORKERS sets the number of processes.
"""

import json
import lzma
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import chatgen
import template

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Added token, whether it is special (hidden when decoding).
ADDED = [
    ("<|endoftext|>", True),
    ("<|im_start|>", True),
    ("<|im_end|>", True),
    ("<think>", False),
    ("</think>", False),
    ("<tool_call>", False),
    ("</tool_call>", False),
    ("<tool_response>", False),
    ("</tool_response>", False),
]
VOCABULARY = 8192
TOKENIZER_CHARACTERS = 60e6
TOKENIZER_CONVERSATIONS = 25000

ROW = 1025
FULL_WEIGHT = -32768
PADDING = 16384
CONVERSATIONS_PER_JOB = 2500
DOCUMENTS_PER_JOB = 400
OPEN_ROWS = 40  # rows that wait for a conversation that fits
NEARLY_FULL = 24


def load_documents(corpus):
    packed = os.path.join(corpus, "train.txt.xz")
    if os.path.exists(packed):
        with lzma.open(packed, "rt", encoding="utf-8") as f:
            return f.read().split("\n\x1e\n")
    with open(os.path.join(corpus, "train.txt"), encoding="utf-8") as f:
        return f.read().split("\n\x1e\n")


# ------------------------------------------------------------------------------------ tokenizer
def tokenizer_texts(corpus):
    """A mixture of documents and of what conversations are made of, without added tokens."""
    rng = random.Random(7)
    documents = load_documents(corpus)
    rng.shuffle(documents)
    texts = []
    characters = 0
    for document in documents:
        texts.append(document)
        characters += len(document)
        if characters > TOKENIZER_CHARACTERS:
            break
    for _ in range(TOKENIZER_CONVERSATIONS):
        conversation = chatgen.conversation(rng)
        texts += conversation_texts(conversation)
        if conversation["tools"] and rng.random() < 0.5:
            texts.append("\n".join(json.dumps(tool) for tool in conversation["tools"]))
    texts += [template.TOOLS_HEAD + template.TOOLS_TAIL] * 300
    for token, _ in ADDED:
        texts = [text.replace(token, "\n") for text in texts]
    return texts


def conversation_texts(conversation):
    messages = conversation["messages"]
    spoken = [m.get(key) for m in messages for key in ("content", "reasoning_content")]
    calls = [call for m in messages for call in m.get("tool_calls", [])]
    written = [template.call_text(call["name"], call["arguments"]) for call in calls]
    return [text for text in spoken if text] + written


def train_tokenizer(corpus, out):
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    byte_level = dict(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, ignore_merges=False))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated", invert=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(**byte_level)]
    )
    tokenizer.post_processor = processors.ByteLevel(**byte_level)
    tokenizer.decoder = decoders.ByteLevel(**byte_level)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(ADDED),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
    )
    tokenizer.train_from_iterator(tokenizer_texts(corpus), trainer)
    special = [AddedToken(t, special=True, normalized=False) for t, hidden in ADDED if hidden]
    others = [AddedToken(t, special=False, normalized=False) for t, hidden in ADDED if not hidden]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(others)
    assert tokenizer.get_vocab_size() == VOCABULARY, tokenizer.get_vocab_size()
    os.makedirs(out, exist_ok=True)
    tokenizer.save(f"{out}/tokenizer.json")
    with open(f"{out}/tokenizer_config.json", "w", encoding="utf-8") as f:
        json.dump(tokenizer_config(tokenizer), f, indent=2, ensure_ascii=False)


def tokenizer_config(tokenizer):
    fixed = dict(lstrip=False, normalized=False, rstrip=False, single_word=False)
    return dict(
        add_bos_token=False,
        add_prefix_space=False,
        added_tokens_decoder={
            str(tokenizer.token_to_id(token)): dict(content=token, **fixed, special=special)
            for token, special in ADDED
        },
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        bos_token=None,
        chat_template=template.CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        eos_token="<|im_end|>",
        errors="replace",
        model_max_length=4096,
        pad_token="<|endoftext|>",
        split_special_tokens=False,
        tokenizer_class="PreTrainedTokenizerFast",
        unk_token=None,
    )


# ------------------------------------------------------------------------------------ rows
class Encoder:
    """One per worker process. The long fixed text after the tools is tokenised only once."""

    FIXED_BEGIN, FIXED_END = "</tools>\n\nIf you choose", "</IMPORTANT>"
    current = None

    def __init__(self, folder):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.end_of_text = self.tokenizer.token_to_id("<|endoftext|>")
        tail = template.TOOLS_TAIL
        fixed = tail[tail.index(self.FIXED_BEGIN) : tail.index(self.FIXED_END)]
        self.fixed_ids = self.plain(fixed)
        self.blocked = chatgen.blocked(chatgen.eval_sets())

    def plain(self, text):
        return self.tokenizer.encode(text).ids

    def encode(self, text):
        begin = text.find(self.FIXED_BEGIN)
        if begin < 0:
            return self.plain(text)
        end = text.index(self.FIXED_END, begin)
        return self.plain(text[:begin]) + self.fixed_ids + self.plain(text[end:])

    def conversation(self, conversation):
        words = []
        for text, is_assistant in template.render(conversation["messages"], conversation["tools"]):
            ids = self.encode(text)
            words += [i | FULL_WEIGHT for i in ids] if is_assistant else ids
        return np.array(words + [self.end_of_text], dtype=np.int16)

    def is_blocked(self, conversation):
        messages = conversation["messages"]
        return any(m["role"] == "user" and m["content"] in self.blocked for m in messages)


def start_worker(folder):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    Encoder.current = Encoder(folder)


class Packer:
    """Packs whole conversations into rows, each into the row that it fills best."""

    def __init__(self, end_of_text):
        self.filler = end_of_text | PADDING
        self.open_rows = []  # [free words, conversations]
        self.rows = []

    def add(self, words):
        fitting = [row for row in self.open_rows if row[0] >= len(words)]
        if fitting:
            row = min(fitting, key=lambda row: row[0])
        else:
            row = [ROW, []]
            self.open_rows.append(row)
        row[1].append(words)
        row[0] -= len(words)
        if row[0] < NEARLY_FULL:
            self.close(row)
        elif len(self.open_rows) > OPEN_ROWS:
            self.close(min(self.open_rows, key=lambda row: row[0]))

    def close(self, row):
        words = np.concatenate(row[1])
        padding = np.full(ROW - len(words), self.filler, dtype=np.int16)
        self.rows.append(np.concatenate([words, padding]))
        self.open_rows.remove(row)

    def finish(self):
        for row in list(self.open_rows):
            self.close(row)
        return np.stack(self.rows)


def chat_rows(seed):
    """-> rows of CONVERSATIONS_PER_JOB conversations, how many of them were left out"""
    encoder = Encoder.current
    rng = random.Random(f"train-{seed}")
    packer = Packer(encoder.end_of_text)
    skipped = 0
    for _ in range(CONVERSATIONS_PER_JOB):
        conversation = chatgen.conversation(rng)
        if encoder.is_blocked(conversation):
            skipped += 1
            continue
        words = encoder.conversation(conversation)
        if len(words) > ROW:
            skipped += 1
            continue
        packer.add(words)
    return packer.finish(), skipped


def text_words(documents):
    words = []
    for document in documents:
        words += Encoder.current.plain(document)
        words.append(Encoder.current.end_of_text)
    return np.array(words, dtype=np.int16) | np.int16(FULL_WEIGHT)


def build_rows(corpus, tokenizer_dir, out, num_conversations):
    start = time.time()
    os.makedirs(out, exist_ok=True)
    workers = int(os.environ.get("WORKERS", os.cpu_count()))
    with ProcessPoolExecutor(workers, initializer=start_worker, initargs=(tokenizer_dir,)) as pool:
        chat_jobs = pool.map(chat_rows, range(num_conversations // CONVERSATIONS_PER_JOB))
        documents = load_documents(corpus)
        random.Random(11).shuffle(documents)
        starts = range(0, len(documents), DOCUMENTS_PER_JOB)
        parts = [documents[i : i + DOCUMENTS_PER_JOB] for i in starts]
        text = np.concatenate(list(pool.map(text_words, parts)))
        chat = list(chat_jobs)
    rows = np.concatenate([part for part, _ in chat])
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    np.save(f"{out}/chat.npy", rows)
    np.save(f"{out}/text.npy", text)
    with open(f"{out}/ok", "w", encoding="utf-8"):
        pass  # tells train.py that both files are whole
    padding = np.mean((rows > 0) & ((rows & PADDING) != 0))
    print(
        f"text {len(text) / 1e6:.1f}M tokens; chat {len(rows)} rows = {rows.size / 1e6:.1f}M tokens,"
        f" assistant {np.mean(rows < 0):.3f}, padding {padding:.3f},"
        f" skipped {sum(skipped for _, skipped in chat)}; {time.time() - start:.1f} s"
    )


def main():
    verb, *arguments = sys.argv[1:] or [""]
    if verb == "tokenizer" and len(arguments) == 2:
        train_tokenizer(*arguments)
    elif verb == "rows" and len(arguments) == 4:
        build_rows(*arguments[:3], int(arguments[3]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
