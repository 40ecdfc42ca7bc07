"""Runs transformers' own Qwen3.5-MoE, Qwen3-Next and Qwen3-MoE classes in float32 on the CPU and records what they compute.

Needs torch and transformers 5.23 (`Qwen3_5MoeForCausalLM`). Attention and experts run in their plain
("eager") form, and without the optional kernel packages the delta rule does too.
"""

import json

import numpy as np
import torch
from transformers import (
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

CLASSES = {
    "qwen3_5_moe_text": (Qwen3_5MoeTextConfig, Qwen3_5MoeForCausalLM),
    "qwen3_next": (Qwen3NextConfig, Qwen3NextForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
}


def new_model(config):
    """config: the text part of config.json. -> the model with weights of no meaning, in evaluation mode"""
    config_class, model_class = CLASSES[config["model_type"]]
    fields = {k: v for k, v in config.items() if k not in ("architectures", "model_type", "dtype")}
    settings = config_class(**fields)
    settings._attn_implementation = "eager"
    settings._experts_implementation = "eager"
    return model_class(settings).float().eval()


def build_model(config, weights):
    """weights: {name: float32 numpy array} with the names of the class. Fails when a weight is
    missing or left over."""
    model = new_model(config)
    state = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    if config.get("tie_word_embeddings"):
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model


@torch.no_grad()
def record(model, ids, greedy_steps):
    """-> ({name: numpy array} of the prompt's values, greedy ids, margins of the two best logits)

    Names: input_ids, logits [n, V], hidden.embed, hidden.N (residual stream after layer N; the last
    is before the final norm), hidden.final_norm, router.N.logits / ids / weights (N counts the
    layers that have experts), greedy_ids.
    """
    captured = {}
    hooks = _hook(model.model, captured)
    logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    greedy_ids, margins = greedy(model, ids, greedy_steps)
    captured["logits"] = logits
    values = {name: tensor.numpy().copy() for name, tensor in captured.items()}
    values["input_ids"] = np.array(ids, dtype=np.int32)
    values["greedy_ids"] = np.array(greedy_ids, dtype=np.int32)
    return values, greedy_ids, margins


def _hook(base, captured):
    def keep(name):
        def hook(_module, _inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            captured[name] = hidden.reshape(-1, hidden.shape[-1]).clone()

        return hook

    def keep_routing(number):
        def hook(_module, _inputs, output):
            logits, weights, ids = output
            captured[f"router.{number}.logits"] = logits.clone()
            captured[f"router.{number}.weights"] = weights.clone()
            captured[f"router.{number}.ids"] = ids.to(torch.int32)

        return hook

    hooks = [
        base.embed_tokens.register_forward_hook(keep("hidden.embed")),
        base.norm.register_forward_hook(keep("hidden.final_norm")),
    ]
    routers = 0
    for number, layer in enumerate(base.layers):
        hooks.append(layer.register_forward_hook(keep(f"hidden.{number}")))
        if hasattr(layer.mlp, "experts"):
            hooks.append(layer.mlp.gate.register_forward_hook(keep_routing(routers)))
            routers += 1
    return hooks


@torch.no_grad()
def greedy(model, ids, steps):
    """-> ids of greedy decoding with the cache, and at each step best minus second-best logit."""
    new_ids = []
    margins = []
    cache = None
    tokens = torch.tensor([ids])
    for _ in range(steps):
        output = model(tokens, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        best = output.logits[0, -1].topk(2)
        new_ids.append(best.indices[0].item())
        margins.append(round((best.values[0] - best.values[1]).item(), 5))
        tokens = torch.tensor([[new_ids[-1]]])
    return new_ids, margins


def mean_nll(values):
    """Mean negative log-likelihood, in nats, of the prompt's tokens after the first."""
    logits = torch.from_numpy(values["logits"][:-1])
    targets = torch.from_numpy(values["input_ids"][1:].astype(np.int64))
    return torch.nn.functional.cross_entropy(logits, targets).item()


def read_config(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)
