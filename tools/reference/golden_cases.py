"""The compact form of recorded reference values, used for tests/data/golden.

A full record of one prompt is dominated by its logits (32 KiB a position at a vocabulary of 8,192).
The compact form keeps, in a few tens of KiB, what tells a right engine from a wrong one:

    input_ids, greedy_ids        i32 [n]
    logits                       f32 [1, vocabulary]   all columns
    sampled.logits               f32 [p, vocabulary / 32]   columns 0, 32, 64, ... of every position
    top.ids, top.logits          i32, f32 [p, 8]   the largest logits, descending
    logsumexp                    f32 [p]
    router.N.ids, router.N.weights   i32, f32 [r, experts per token], descending weight
    hidden.final_norm            f32 [8, hidden]

Every tensor with an axis of positions holds the LAST positions of the prompt, as many as it has rows.
"""

import numpy as np

FULL_ROWS = 1
COLUMN_STEP = 32
TOP = 8
HIDDEN_ROWS = 8


def compact(record):
    """record: {name: numpy array} with input_ids, greedy_ids, logits and what hooks captured."""
    logits = record["logits"]
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :TOP]
    largest = logits.max(-1, keepdims=True).astype(np.float64)
    logsumexp = largest[:, 0] + np.log(np.exp(logits - largest).sum(-1))
    kept = {
        "input_ids": record["input_ids"],
        "greedy_ids": record["greedy_ids"],
        "logits": logits[-FULL_ROWS:],
        "sampled.logits": logits[:, ::COLUMN_STEP],
        "top.ids": order.astype(np.int32),
        "top.logits": np.take_along_axis(logits, order, axis=-1),
        "logsumexp": logsumexp.astype(np.float32),
        "hidden.final_norm": record["hidden.final_norm"][-HIDDEN_ROWS:],
    }
    for name, array in record.items():
        if name.startswith("router.") and name.endswith((".ids", ".weights")):
            kept[name] = array
    return kept
