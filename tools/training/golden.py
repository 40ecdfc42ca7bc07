#!/usr/bin/env python3
"""Reference values: transformers' class in float32 on the CPU, eager attention, no fused kernels.

    golden.py model MODEL_DIR EVAL_DIR OUT    prompts on the trained checkpoint, tokenizer and template cases
    golden.py random OUT                      draws the random checkpoints anew, with their values
    golden.py check CASE_DIR ...              computes the values of random checkpoints again and compares

A folder of a random checkpoint holds config.json, the model's files, case.json and
expected.safetensors; the names in the latter are those of reference/oracle.py.
"""

import json
import os
import sys

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "reference"))
import oracle
import tensor_file

import template
from golden_inputs import (
    CHAT_PROMPT,
    EXTRA_CHATS,
    PLAIN_PROMPT,
    RANDOM_CHECKPOINTS,
    TOKENIZER_CASES,
)

LONG_TOKENS = 600
LONG_ROWS = 8
SHARD_BYTES = 500_000
# Two float32 programs agree about as well as this, relative to the largest logit.
TOLERANCE = 5e-5


def load_tokenizer(model_dir):
    """-> encode(text), decode(ids)"""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(model_dir + "/tokenizer.json")

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=False)

    return encode, decode


def chat(messages, tools=None, add_generation_prompt=True, enable_thinking=True):
    """The Jinja chat template, in the environment that transformers gives it."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    return environment.from_string(template.CHAT_TEMPLATE).render(
        messages=messages,
        tools=tools,
        add_generation_prompt=add_generation_prompt,
        enable_thinking=enable_thinking,
    )


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)


def read_items(eval_dir, kind):
    with open(f"{eval_dir}/eval_{kind}.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


# --------------------------------------------------------------------------- the trained checkpoint
def long_prompt(eval_dir, encode, decode):
    text = ""
    for item in read_items(eval_dir, "text"):
        text += item["text"] + "\n\n"
        if len(encode(text)) > LONG_TOKENS + 100:
            break
    return decode(encode(text)[:LONG_TOKENS])


def model_cases(model_dir, eval_dir, out):
    os.makedirs(out, exist_ok=True)
    encode, decode = load_tokenizer(model_dir)
    stored = tensor_file.load(model_dir + "/model.safetensors")
    weights = {name: tensor.to_float32() for name, tensor in stored.items()}
    model = oracle.build_model(oracle.read_config(model_dir + "/config.json"), weights)
    prompts = {
        "plain": PLAIN_PROMPT,
        "chat": chat(CHAT_PROMPT, enable_thinking=True),
        "long": long_prompt(eval_dir, encode, decode),
    }
    for name, text in prompts.items():
        ids = encode(text)
        values, greedy_ids, margins = oracle.record(model, ids, 64)
        about = dict(
            name=name,
            text=text,
            input_ids=ids,
            logits="last 8 positions" if name == "long" else "every position",
            greedy_ids=greedy_ids,
            greedy_margin=margins,
            greedy_text=decode(greedy_ids),
            dtype="float32",
            nll=round(oracle.mean_nll(values), 5),
        )
        tensor_file.save(f"{out}/{name}.safetensors", kept_values(name, values))
        write_json(f"{out}/{name}.json", about)
        print(name, len(ids), "tokens", repr(about["greedy_text"][:160]), flush=True)
    cases = [dict(text=text, ids=encode(text)) for text in TOKENIZER_CASES]
    write_json(f"{out}/tokenizer.json", cases)
    write_json(f"{out}/chat_template.json", chat_cases(eval_dir))


def kept_values(name, values):
    """Everything for the chat prompt; for the others no residual streams, and few rows of `long`."""
    if name == "chat":
        return values
    kept = {}
    for key, array in values.items():
        if key in ("input_ids", "greedy_ids"):
            kept[key] = array
        elif key == "logits":
            kept[key] = array[-LONG_ROWS:] if name == "long" else array
        elif key.startswith("router.") or key == "hidden.final_norm":
            kept[key] = array[-LONG_ROWS:]
    return kept


def chat_cases(eval_dir):
    rows = []
    for item in read_items(eval_dir, "tools")[:12] + read_items(eval_dir, "json")[:4]:
        for thinking in (True, False):
            row = dict(messages=item["messages"], tools=item["tools"], enable_thinking=thinking)
            row.update(add_generation_prompt=True)
            rows.append(dict(**row, text=chat(**row)))
    return rows + [dict(**row, text=chat(**row)) for row in EXTRA_CHATS]


# --------------------------------------------------------------------------- random checkpoints
def full_config(fields):
    fields = dict(fields)
    rotary = fields.pop("rotary")
    theta = fields.pop("rope_theta", 10000000.0)
    pairs = int(fields["head_dim"] * rotary) // 2
    third = pairs // 3
    interval = [
        "full_attention" if (i + 1) % 4 == 0 else "linear_attention"
        for i in range(fields["num_hidden_layers"])
    ]
    config = {
        "model_type": "qwen3_5_moe_text",
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 512,
        "initializer_range": 0.02,
        "use_cache": True,
        **fields,
        "rope_parameters": dict(
            rope_type="default",
            rope_theta=theta,
            partial_rotary_factor=rotary,
            mrope_section=[pairs - 2 * third, third, third],
            mrope_interleaved=True,
        ),
        "eos_token_id": fields["vocab_size"] - 1,
        "pad_token_id": None,
        "bos_token_id": None,
    }
    config.setdefault("layer_types", interval)
    return config


def draw(name, shape, hidden_size, generator):
    """A weight with values of a size that keeps every part of the layer alive."""
    normal = torch.randn(shape, generator=generator)
    if name.endswith("norm.weight"):
        return normal * 0.2 + ("linear_attn.norm" in name)
    if "gate.weight" in name and "shared" not in name:
        return normal * 1.5 / hidden_size**0.5
    if "A_log" in name:
        return torch.log(torch.rand(shape, generator=generator) * 4 + 0.05)
    if "dt_bias" in name:
        return normal
    if "conv" in name or "embed" in name:
        return normal * 0.6
    if len(shape) >= 2:
        return normal * 1.2 / shape[-1] ** 0.5
    return normal * 0.3


def draw_checkpoint(config, dtype, generator):
    """-> {name: StoredTensor}; the head is left out where it is tied."""
    tensors = {}
    for name, parameter in oracle.new_model(config).named_parameters():
        values = draw(name, tuple(parameter.shape), config["hidden_size"], generator)
        tensors[name] = tensor_file.from_float32(values.numpy(), dtype)
    if config["tie_word_embeddings"]:
        tensors.pop("lm_head.weight", None)
    return tensors


def random_cases(out):
    for number, (name, dtype, layout, length, fields) in enumerate(RANDOM_CHECKPOINTS):
        generator = torch.Generator().manual_seed(100 + number)
        config = full_config(fields)
        tensors = draw_checkpoint(config, dtype, generator)
        ids = torch.randint(0, config["vocab_size"] - 6, (length,), generator=generator).tolist()
        values, greedy_ids, margins = evaluate_checkpoint(config, tensors, ids)
        folder = f"{out}/{name}"
        os.makedirs(folder, exist_ok=True)
        tensor_file.save(f"{folder}/expected.safetensors", values)
        config["dtype"] = "bfloat16" if dtype == "BF16" else "float32"
        if layout == "text":
            write_json(
                f"{folder}/config.json", {"architectures": ["Qwen3_5MoeForCausalLM"], **config}
            )
            tensor_file.save(f"{folder}/model.safetensors", tensors, {"format": "pt"})
        else:
            write_wrapped(folder, config, tensors, generator)
        case = dict(name=name, seq=length, compute_dtype="float32", stored_dtype=dtype.lower())
        case.update(params=sum(t.array.size for t in tensors.values()))
        case.update(greedy_ids=greedy_ids, greedy_margin=margins)
        write_json(f"{folder}/case.json", case)
        print(name, case["params"], "params, smallest margin", min(margins), flush=True)


def evaluate_checkpoint(config, tensors, ids):
    weights = {name: tensor.to_float32() for name, tensor in tensors.items()}
    return oracle.record(oracle.build_model(config, weights), ids, 16)


def write_wrapped(folder, config, tensors, generator):
    """The layout of the published checkpoints: nested text_config, language_model prefix, vision and
    MTP tensors to be skipped, several files."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    tensors = {
        name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name: t
        for name, t in tensors.items()
    }
    to_be_skipped = {
        "model.visual.patch_embed.proj.weight": (32, 3, 1, 4, 4),
        "model.visual.pos_embed.weight": (16, 32),
        "model.visual.blocks.0.attn.qkv.weight": (96, 32),
        "model.visual.merger.linear_fc2.weight": (hidden, 128),
        "mtp.fc.weight": (hidden, 2 * hidden),
        "mtp.norm.weight": (hidden,),
        "mtp.pre_fc_norm_embedding.weight": (hidden,),
        "mtp.pre_fc_norm_hidden.weight": (hidden,),
        "mtp.layers.0.input_layernorm.weight": (hidden,),
    }
    for name, shape in to_be_skipped.items():
        values = torch.randn(shape, generator=generator).numpy()
        tensors[name] = tensor_file.from_float32(values, "BF16")
    mtp = dict(
        mtp_num_hidden_layers=1, mtp_use_dedicated_embeddings=False, full_attention_interval=4
    )
    vision = dict(
        model_type="qwen3_5_moe",
        depth=1,
        hidden_size=32,
        intermediate_size=32,
        num_heads=2,
        out_hidden_size=hidden,
        num_position_embeddings=16,
        patch_size=4,
        temporal_patch_size=1,
        in_channels=3,
        spatial_merge_size=2,
    )
    wrapped = {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "tie_word_embeddings": config["tie_word_embeddings"],
        "image_token_id": vocab - 5,
        "video_token_id": vocab - 4,
        "vision_start_token_id": vocab - 3,
        "vision_end_token_id": vocab - 2,
        "text_config": {**config, **mtp},
        "vision_config": vision,
    }
    from make_layouts import write_sharded

    write_sharded(folder, wrapped, tensors, SHARD_BYTES)


# --------------------------------------------------------------------------- checking
def read_checkpoint(folder):
    """-> text config, tensors with the names of the class"""
    config = oracle.read_config(folder + "/config.json")
    files = sorted(f for f in os.listdir(folder) if f.startswith("model") and f.endswith("tensors"))
    tensors = {}
    for file in files:
        for name, tensor in tensor_file.load(f"{folder}/{file}").items():
            if not name.startswith(("model.visual.", "mtp.")):
                tensors[name.replace("model.language_model.", "model.")] = tensor
    return config.get("text_config", config), tensors


def check(folder):
    """-> whether the recorded values are those that the installed transformers computes"""
    config, tensors = read_checkpoint(folder)
    config = {k: v for k, v in config.items() if not k.startswith("mtp_")}
    expected = tensor_file.load(folder + "/expected.safetensors")
    ids = expected["input_ids"].array.tolist()
    values, _, _ = evaluate_checkpoint(config, tensors, ids)
    good = True
    for name, tensor in expected.items():
        difference = np.abs(values[name].astype(np.float64) - tensor.array).max()
        good = good and difference <= TOLERANCE * max(1.0, np.abs(tensor.array).max())
    largest = np.abs(values["logits"] - expected["logits"].array).max()
    print(f"{folder}: {'equal' if good else 'DIFFERENT'}, logits differ by at most {largest:.1e}")
    return good


def main():
    torch.set_num_threads(int(os.environ.get("THREADS", 1)))
    verb, *arguments = sys.argv[1:] or [""]
    if verb == "model" and len(arguments) == 3:
        model_cases(*arguments)
    elif verb == "random" and len(arguments) == 1:
        random_cases(*arguments)
    elif verb == "check" and arguments:
        sys.exit(0 if all([check(folder) for folder in arguments]) else 1)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
