#!/usr/bin/env python3
"""Greedy answers of the reference to every evaluation item, and routing traces, on a CPU in float32.

    evaluate_cpu.py MODEL_DIR EVAL_DIR OUT_DIR [MAX_TOOLS]

One prompt at a time, with a small decoder of the same mathematics as modeling.py that keeps its
state from token to token. Writes routing_{text,tools}.safetensors, greedy_{qa,json,tools}.jsonl and
baseline.json. The environment variable THREADS sets the number of threads (1).
"""

import json
import os
import sys
import time

import torch
import torch.nn.functional as F

import bpe
import modeling
import st
import template
from routing_stats import routing_stats

torch.set_num_threads(int(os.environ.get("THREADS", 1)))

MAX_TOKENS = {"qa": 48, "json": 120, "tools": 200}
TRACED_TEXTS = 40
TRACED_TOOLS = 24
TRACED_TOKENS = 1024
MOST_POSITIONS = 4096


def delta_rule(q, k, v, decay, beta, state, chunk=64):
    """The gated delta rule in chunks. q, k [heads, n, dk], v [heads, n, dv], decay (logarithms) and
    beta [heads, n], state [heads, dk, dv]. -> outputs [heads, n, dv], the last state"""
    outputs = []
    for start in range(0, q.shape[1], chunk):
        part = slice(start, start + chunk)
        qc, kc, vc, beta_c = q[:, part], k[:, part], v[:, part], beta[:, part, None]
        sums = decay[:, part].cumsum(-1)
        n = qc.shape[1]
        later = torch.ones(n, n, dtype=torch.bool).triu(1)
        between = (sums[:, :, None] - sums[:, None, :]).masked_fill(later, float("-inf")).exp()
        from_start = sums.exp()[..., None]
        to_end = (sums[:, -1:] - sums).exp()[..., None]

        system = ((kc @ kc.transpose(1, 2)) * between * beta_c).tril(-1) + torch.eye(n)
        right = torch.cat([vc * beta_c, kc * beta_c * from_start], -1)
        solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
        written = solved[..., : v.shape[-1]] - solved[..., v.shape[-1] :] @ state
        scores = (qc @ kc.transpose(1, 2)) * between
        outputs.append((qc * from_start) @ state + scores @ written)
        state = state * sums[:, -1, None, None].exp() + (kc * to_end).transpose(1, 2) @ written
    return torch.cat(outputs, 1), state


class Decoder:
    """A model that reads tokens piece by piece; reset() forgets what was read."""

    def __init__(self, model_dir):
        with open(model_dir + "/config.json", encoding="utf-8") as f:
            self.config = json.load(f)
        stored = st.load_file(model_dir + "/model.safetensors")
        self.weights = {name: tensor.float() for name, tensor in stored.items()}
        self.tokenizer = bpe.Tokenizer(model_dir + "/tokenizer.json")
        self.cos, self.sin = modeling.rope_tables(self.config, MOST_POSITIONS, "cpu")
        self.eps = self.config["rms_norm_eps"]
        self.reset()

    def reset(self):
        layers = self.config["num_hidden_layers"]
        self.state = [None] * layers
        self.position = 0
        self.trace = [[] for _ in range(layers)]

    def linear_attention(self, layer, w, h):
        """w(name): a weight of the layer; h [n, hidden]. -> [n, hidden]"""
        c, n = self.config, len(h)
        key_heads, value_heads = c["linear_num_key_heads"], c["linear_num_value_heads"]
        dk, dv = c["linear_key_head_dim"], c["linear_value_head_dim"]
        taps = w("conv1d.weight")[:, 0]
        kernel = taps.shape[1]
        tail, state = self.state[layer] or (
            torch.zeros(kernel - 1, taps.shape[0]),
            torch.zeros(value_heads, dk, dv),
        )
        rows = torch.cat([tail, h @ w("in_proj_qkv.weight").T])
        tail = rows[-(kernel - 1) :]
        mixed = F.silu(sum(rows[j : j + n] * taps[:, j] for j in range(kernel)))
        q, k, v = mixed.split([key_heads * dk, key_heads * dk, value_heads * dv], -1)
        q, k = (unit_length(part.reshape(n, key_heads, dk).transpose(0, 1)) for part in (q, k))
        q, k = (part.repeat_interleave(value_heads // key_heads, 0) for part in (q * dk**-0.5, k))
        v = v.reshape(n, value_heads, dv).transpose(0, 1)
        step = F.softplus(h @ w("in_proj_a.weight").T + w("dt_bias"))
        decay = (-w("A_log").exp() * step).T
        beta = (h @ w("in_proj_b.weight").T).sigmoid().T
        out, state = delta_rule(q, k, v, decay, beta, state)
        self.state[layer] = (tail, state)
        out = out.transpose(0, 1)
        gate = F.silu((h @ w("in_proj_z.weight").T).view(n, value_heads, dv))
        out = w("norm.weight") * normalised(out, self.eps) * gate
        return out.reshape(n, -1) @ w("out_proj.weight").T

    def full_attention(self, layer, w, h):
        c, n = self.config, len(h)
        heads, kv_heads, width = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        here = slice(self.position, self.position + n)
        cos, sin = self.cos[here], self.sin[here]
        q, gate = (h @ w("q_proj.weight").T).view(n, heads, 2 * width).chunk(2, -1)
        k = (h @ w("k_proj.weight").T).view(n, kv_heads, width)
        v = (h @ w("v_proj.weight").T).view(n, kv_heads, width).transpose(0, 1)
        q = modeling.rms(q, w("q_norm.weight"), self.eps).transpose(0, 1)
        k = modeling.rms(k, w("k_norm.weight"), self.eps).transpose(0, 1)
        q, k = modeling.rope(q, cos, sin), modeling.rope(k, cos, sin)
        if self.state[layer]:
            k = torch.cat([self.state[layer][0], k], 1)
            v = torch.cat([self.state[layer][1], v], 1)
        self.state[layer] = (k, v)
        k, v = (part.repeat_interleave(heads // kv_heads, 0) for part in (k, v))
        later = torch.ones(n, k.shape[1], dtype=torch.bool).triu(1 + self.position)
        scores = ((q @ k.transpose(1, 2)) * width**-0.5).masked_fill(later, float("-inf"))
        out = (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, -1)
        return (out * gate.reshape(n, -1).sigmoid()) @ w("o_proj.weight").T

    def experts(self, layer, w, h):
        probabilities = (h @ w("gate.weight").T).softmax(-1)
        weights, chosen = probabilities.topk(self.config["num_experts_per_tok"], -1)
        weights = weights / weights.sum(-1, keepdim=True)
        self.trace[layer].append(chosen.to(torch.uint8))
        gate = F.silu(h @ w("shared_expert.gate_proj.weight").T)
        shared = gate * (h @ w("shared_expert.up_proj.weight").T)
        shared = shared @ w("shared_expert.down_proj.weight").T
        out = shared * (h @ w("shared_expert_gate.weight").T).sigmoid()
        gate_up, down = w("experts.gate_up_proj"), w("experts.down_proj")
        for expert in chosen.unique().tolist():
            rows, places = (chosen == expert).nonzero(as_tuple=True)
            a, b = (h[rows] @ gate_up[expert].T).chunk(2, -1)
            result = (F.silu(a) * b) @ down[expert].T
            out.index_add_(0, rows, weights[rows, places, None] * result)
        return out

    @torch.no_grad()
    def forward(self, ids):
        """Reads ids -> logits [vocabulary] after the last of them."""
        x = self.weights["model.embed_tokens.weight"][torch.tensor(ids)]
        for layer, kind in enumerate(self.config["layer_types"]):
            prefix = f"model.layers.{layer}."
            h = modeling.rms(x, self.weights[prefix + "input_layernorm.weight"], self.eps)
            if kind == "linear_attention":
                x = x + self.linear_attention(layer, self.named(prefix + "linear_attn."), h)
            else:
                x = x + self.full_attention(layer, self.named(prefix + "self_attn."), h)
            h = modeling.rms(x, self.weights[prefix + "post_attention_layernorm.weight"], self.eps)
            x = x + self.experts(layer, self.named(prefix + "mlp."), h)
        self.position += len(ids)
        x = modeling.rms(x[-1], self.weights["model.norm.weight"], self.eps)
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        return head @ x

    def named(self, prefix):
        return lambda name: self.weights[prefix + name]

    def greedy(self, text, max_tokens, end):
        """-> the answer's text, without the end token"""
        self.reset()
        best = self.forward(self.tokenizer.encode(text)).argmax().item()
        answer = []
        while len(answer) < max_tokens and best != end:
            answer.append(best)
            best = self.forward([best]).argmax().item()
        return self.tokenizer.decode(answer)


def normalised(x, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def unit_length(x):
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def prompt(item):
    pieces = template.render(item["messages"], item["tools"], True, item["enable_thinking"])
    return "".join(text for text, _ in pieces)


def trace_routing(decoder, texts, path):
    """Records the router's choices over texts. -> figures for baseline.json"""
    layers = [[] for _ in decoder.state]
    lengths = []
    for text in texts:
        ids = decoder.tokenizer.encode(text)[:TRACED_TOKENS]
        decoder.reset()
        decoder.forward(ids)
        lengths.append(len(ids))
        for sequences, trace in zip(layers, decoder.trace):
            sequences.append(torch.cat(trace))
    tensors = {f"layer.{number}": torch.cat(sequences) for number, sequences in enumerate(layers)}
    tensors["lengths"] = torch.tensor(lengths, dtype=torch.int32)
    st.save_file(tensors, path)
    num_experts = decoder.config["num_experts"]
    rows = [routing_stats(number, layer, num_experts) for number, layer in enumerate(layers)]
    return dict(tokens=sum(lengths), sequences=len(lengths), layers=rows)


def answer_all(decoder, items, max_tokens, path):
    """Writes one line an item. -> figures for baseline.json"""
    end = decoder.tokenizer.encode("<|im_end|>")[0]
    exact_count = 0
    with open(path, "w", encoding="utf-8") as f:
        for item in items:
            text = decoder.greedy(prompt(item), max_tokens, end)
            exact = text.strip() == item["expected"]
            exact_count += exact
            row = dict(id=item["id"], exact=exact, output=text)
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
            f.flush()
    return dict(
        n=len(items), exact_count=exact_count, exact=round(exact_count / max(1, len(items)), 4)
    )


def read_items(eval_dir, kind):
    with open(f"{eval_dir}/eval_{kind}.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    model_dir, eval_dir, out = sys.argv[1:4]
    max_tools = int(sys.argv[4]) if len(sys.argv) == 5 else None
    os.makedirs(out, exist_ok=True)
    start = time.time()
    decoder = Decoder(model_dir)
    result = {}

    def done(name, figures):
        result[name] = figures
        with open(f"{out}/baseline.json", "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
        print(f"{name} done after {time.time() - start:.1f} s", flush=True)

    texts = [item["text"] for item in read_items(eval_dir, "text")[:TRACED_TEXTS]]
    done("routing_text", trace_routing(decoder, texts, f"{out}/routing_text.safetensors"))
    tools = read_items(eval_dir, "tools")[:TRACED_TOOLS]
    texts = [prompt(item) + item["expected"] for item in tools]
    done("routing_tools", trace_routing(decoder, texts, f"{out}/routing_tools.safetensors"))
    for kind, max_tokens in MAX_TOKENS.items():
        items = read_items(eval_dir, kind)[: max_tools if kind == "tools" else None]
        done(kind, answer_all(decoder, items, max_tokens, f"{out}/greedy_{kind}.jsonl"))


if __name__ == "__main__":
    main()
