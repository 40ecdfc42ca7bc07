#!/usr/bin/env python3
"""Trains for a fixed time, on one GPU or data-parallel on several (torchrun --nproc_per_node N train.py ...).

    train.py --rows DIR --tok DIR --out DIR (--seconds N | --deadline UNIX_TIME)
             [--batch 48 (per GPU)] [--lr 2.5e-3] [--tiny] [--device cpu]

Waits for ROWS/ok, which prepare.py writes last, so that compilation and data preparation overlap.
Writes OUT/model.safetensors (bfloat16, Hugging Face names), OUT/config.json and OUT/log.jsonl.
"""

import argparse
import json
import math
import os
import time

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file

import modeling

SEQUENCE = 1024
LOSS_CHUNK = 16384
# A row's words carry the loss weight in their top bits (prepare.py).
ID_MASK = 0x1FFF
PADDING = 0x4000
TEXT_WEIGHT, ASSISTANT_WEIGHT, PROMPT_WEIGHT = 1.0, 2.0, 0.1
BALANCE_WEIGHT, ROUTER_Z_WEIGHT = 0.01, 1e-4
CLOCK_STEPS = 10  # all ranks take the progress from rank 0 every so many steps
TINY = dict(
    hidden_size=64,
    num_hidden_layers=4,
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    shared_expert_intermediate_size=32,
)


def chat_share(progress):
    """The part of a batch that is conversations: 40 % until 60 % of the time, then up to 80 %."""
    return 0.40 if progress < 0.60 else 0.40 + 0.40 * min(1.0, (progress - 0.60) / 0.15)


def learning_rate_factor(progress, step, warm_up=120):
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(1.0, (step + 1) / warm_up) * (0.02 + 0.98 * cosine)


class Order:
    """A random order of `total` rows, of which each rank takes its part; a new one when used up."""

    def __init__(self, total, generator, rank, world):
        self.total, self.generator, self.rank, self.world = total, generator, rank, world
        self.order = None
        self.position = 0
        self.epochs = 0.0

    def take(self, count):
        """-> indices of the next rows, whether a new order began"""
        fresh = self.order is None or self.position + count > self.total // self.world
        if fresh:
            permutation = torch.randperm(self.total, generator=self.generator)
            self.order = permutation[self.rank :: self.world]
            self.position = 0
        rows = self.order[self.position : self.position + count]
        self.position += count
        self.epochs += count / self.total
        return rows, fresh


class Data:
    """Batches of text (windows of the token stream, shifted anew every epoch) and packed conversations."""

    def __init__(self, folder, batch, device, rank=0, world=1, seed=1):
        self.text = torch.from_numpy(np.load(folder + "/text.npy")).to(device)
        self.chat = torch.from_numpy(np.load(folder + "/chat.npy")).to(device)
        self.generator = torch.Generator(device="cpu").manual_seed(seed)
        self.batch, self.device = batch, device
        windows = (self.text.numel() - 1) // SEQUENCE
        self.text_order = Order(windows, self.generator, rank, world)
        self.chat_order = Order(self.chat.shape[0], self.generator, rank, world)
        self.shift = 0

    def next(self, share):
        """-> ids, targets, loss weights [batch, SEQUENCE], number of text rows (they come first)"""
        num_chat = min(self.batch, max(0, round(self.batch * share)))
        num_text = self.batch - num_chat
        rows = []
        if num_text:
            rows.append(self.text_rows(num_text))
        if num_chat:
            indices, _ = self.chat_order.take(num_chat)
            rows.append(self.chat[indices.to(self.device)])
        words = torch.cat(rows)
        ids = (words & ID_MASK).long()
        targets = words[:, 1:]
        prompt = torch.where((targets & PADDING) != 0, 0.0, PROMPT_WEIGHT)
        weights = torch.where(targets < 0, ASSISTANT_WEIGHT, prompt)
        weights[:num_text] = TEXT_WEIGHT
        return ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights, num_text

    def text_rows(self, count):
        indices, fresh = self.text_order.take(count)
        if fresh:
            self.shift = int(torch.randint(0, SEQUENCE, (1,), generator=self.generator))
        starts = indices.to(self.device) * SEQUENCE + self.shift
        starts = starts % (self.text.numel() - SEQUENCE - 1)
        return self.text[starts[:, None] + torch.arange(SEQUENCE + 1, device=self.device)]

    def epochs(self):
        return [self.text_order.epochs, self.chat_order.epochs]


class Trainer:
    """Parameters, optimiser and the step; knows its rank."""

    def __init__(self, config, options):
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        self.cuda = options.device == "cuda"
        self.device = f"cuda:{self.rank}" if self.cuda else "cpu"
        self.config, self.options = config, options
        if self.cuda:
            torch.cuda.set_device(self.rank)
            torch.set_float32_matmul_precision("high")
            modeling.use_triton_inverse(self.device)
        if self.world > 1:
            dist.init_process_group("nccl" if self.cuda else "gloo")
        modeling.compile_pieces()
        self.parameters = modeling.init_params(config, self.device)
        self.optimiser = self.make_optimiser()

    def make_optimiser(self):
        """Matrices decay; norms, convolutions, the embedding and single values do not."""
        named = self.parameters.items()
        decays = {
            name
            for name, value in named
            if value.dim() >= 2 and "conv1d" not in name and "embed" not in name
        }
        groups = [
            dict(params=[v for n, v in named if n in decays], weight_decay=0.1),
            dict(params=[v for n, v in named if n not in decays], weight_decay=0.0),
        ]
        fused = dict(fused=True) if self.cuda else {}
        return torch.optim.AdamW(groups, lr=self.options.lr, betas=(0.9, 0.95), eps=1e-8, **fused)

    def say(self, *words):
        if self.rank == 0:
            print(*words, flush=True)

    def wait_for_device(self):
        if self.cuda:
            torch.cuda.synchronize()

    def wait_for_all(self):
        if self.world > 1:
            dist.barrier()

    def from_rank_0(self, number):
        """The number that rank 0 has."""
        tensor = torch.tensor([number], device=self.device)
        if self.world > 1:
            dist.broadcast(tensor, 0)
        return tensor.item()

    def backward(self, ids, targets, weights, expert_shares=None):
        """-> loss, losses of the tokens, load-balancing loss; gradients are left in the parameters"""
        hidden, head, balance, router_z = modeling.hidden(
            self.parameters,
            self.config,
            ids,
            self.options.impl,
            dtype=torch.bfloat16 if self.cuda else torch.float32,
            stats=expert_shares,
        )
        loss, token_losses = modeling.LinearCE.apply(
            hidden.reshape(-1, hidden.shape[-1]),
            head,
            targets.reshape(-1),
            (weights / weights.sum()).reshape(-1),
            LOSS_CHUNK,
        )
        (loss + BALANCE_WEIGHT * balance + ROUTER_Z_WEIGHT * router_z).backward()
        return loss, token_losses, balance

    def average_gradients(self):
        if self.world == 1:
            return
        values = list(self.parameters.values())
        gradients = [value.grad for value in values]
        flat = torch._utils._flatten_dense_tensors(gradients)
        dist.all_reduce(flat)
        flat.div_(self.world)
        parts = torch._utils._unflatten_dense_tensors(flat, gradients)
        for value, gradient in zip(values, parts):
            value.grad = gradient

    def update(self, progress, step):
        """-> the norm of the gradients before clipping"""
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.lr * learning_rate_factor(progress, step)
        self.average_gradients()
        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return norm

    def warm_up(self):
        """Compiles and tunes outside the clock."""
        for _ in range(2):
            ids = torch.randint(0, 8000, (self.options.batch, SEQUENCE), device=self.device)
            self.backward(ids, ids, torch.ones(ids.shape, device=self.device))
            self.optimiser.zero_grad(set_to_none=True)
            self.wait_for_device()

    def save(self, special_ids):
        out = self.options.out
        tensors = {
            name: value.detach().to(torch.bfloat16).contiguous().cpu()
            for name, value in self.parameters.items()
        }
        save_file(tensors, out + "/model.safetensors", metadata={"format": "pt"})
        config = dict(self.config)
        config["eos_token_id"] = special_ids["<|im_end|>"]
        config["pad_token_id"] = special_ids["<|endoftext|>"]
        config["bos_token_id"] = None
        with open(out + "/config.json", "w", encoding="utf-8") as f:
            json.dump(config, f, indent=2)


class Clock:
    """Progress from 0 to 1 over a fixed time, the same on all ranks, extrapolated between readings."""

    def __init__(self, trainer, seconds):
        self.trainer, self.seconds = trainer, trainer.from_rank_0(float(seconds))
        self.start = time.perf_counter()
        self.reading, self.rate = 0.0, 0.0

    def elapsed(self):
        return time.perf_counter() - self.start

    def progress(self, step):
        """Called once before every step. -> estimate, whether the time is up"""
        if step % CLOCK_STEPS == 0:
            reading = self.trainer.from_rank_0(self.elapsed() / self.seconds)
            self.rate = (reading - self.reading) / CLOCK_STEPS
            self.reading = reading
        estimate = self.reading + self.rate * (step % CLOCK_STEPS) if step >= CLOCK_STEPS else 0.0
        return estimate, self.reading >= 1


class Log:
    """log.jsonl and the console; rank 0 only."""

    def __init__(self, trainer, clock):
        self.trainer, self.clock = trainer, clock
        self.file = open(trainer.options.out + "/log.jsonl", "w", encoding="utf-8")
        self.last_time, self.last_tokens = 0.0, 0

    def write(self, step, progress, tokens, losses, weights, num_text, figures, expert_shares):
        chat_losses = losses[num_text:][weights[num_text:] > 1.0]
        row = dict(
            step=step,
            p=round(progress, 4),
            tokens=tokens,
            text=round(losses[:num_text].mean().item(), 4) if num_text else None,
            chat=round(chat_losses.mean().item(), 4) if num_text < len(losses) else None,
            **figures,
        )
        now = self.clock.elapsed()
        row["tok_s"] = round((tokens - self.last_tokens) / (now - self.last_time))
        row["t"] = round(now, 1)
        self.last_time, self.last_tokens = now, tokens
        if expert_shares:
            num_experts = self.trainer.config["num_experts"]
            row["expert_max"] = round(max(s.max().item() for s in expert_shares) * num_experts, 2)
            row["expert_min"] = round(min(s.min().item() for s in expert_shares) * num_experts, 3)
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        if step % 100 == 1 or step < 6:
            self.trainer.say(row)
        return row


def train(trainer, data, clock):
    """-> steps, tokens"""
    log = Log(trainer, clock) if trainer.rank == 0 else None
    step = tokens = 0
    while True:
        progress, time_is_up = clock.progress(step)
        if time_is_up:
            return step, tokens
        ids, targets, weights, num_text = data.next(chat_share(progress))
        expert_shares = [] if step % 100 == 0 else None
        _, token_losses, balance = trainer.backward(ids, targets, weights, expert_shares)
        norm = trainer.update(progress, step)
        step += 1
        tokens += ids.numel() * trainer.world
        if log and (step % 25 == 1 or step < 6):
            figures = dict(
                aux=round(balance.item(), 4),
                gnorm=round(norm.item(), 3),
                lr=trainer.optimiser.param_groups[0]["lr"],
                epochs=[round(epochs * trainer.world, 2) for epochs in data.epochs()],
            )
            losses = token_losses.view(ids.shape)
            row = log.write(
                step, progress, tokens, losses, weights, num_text, figures, expert_shares
            )
            if row["text"] is not None and math.isnan(row["text"]):
                trainer.say("the loss is not a number")
                os._exit(3)  # the other ranks wait in a collective and must not be waited for


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", required=True)
    parser.add_argument("--tok", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--deadline", type=float)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--impl", default="fast", help="delta rule: fast or torch")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if (options.seconds is None) == (options.deadline is None):
        parser.error("give either --seconds or --deadline")
    return options


def main():
    options = parse_options()
    os.makedirs(options.out, exist_ok=True)
    config = dict(modeling.CONFIG)
    if options.tiny:
        config.update(TINY, layer_types=config["layer_types"][: TINY["num_hidden_layers"]])
    trainer = Trainer(config, options)
    trainer.say(modeling.count(trainer.parameters, config))
    with open(options.tok + "/tokenizer.json", encoding="utf-8") as f:
        special_ids = {token["content"]: token["id"] for token in json.load(f)["added_tokens"]}
    trainer.warm_up()
    while not os.path.exists(options.rows + "/ok"):
        time.sleep(0.2)
    data = Data(options.rows, options.batch, trainer.device, trainer.rank, trainer.world)
    trainer.wait_for_all()
    clock = Clock(trainer, options.seconds or (options.deadline - time.time()))
    steps, tokens = train(trainer, data, clock)
    trainer.wait_for_device()
    if trainer.rank == 0:
        trainer.save(special_ids)
        trainer.say(f"{steps} steps, {tokens} tokens in {clock.elapsed():.1f} s")
    if trainer.cuda:
        trainer.say("peak GB", torch.cuda.max_memory_allocated() / 1e9)
    trainer.wait_for_all()
    os._exit(0)  # destroying the process group can hang after a long run


if __name__ == "__main__":
    main()
