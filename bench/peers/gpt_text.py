# SPDX-License-Identifier: Apache-2.0
"""The twin of examples/gpt.cpp in PyTorch, on the text's characters: the same weights, blocks, optimizer and schedule.

gpt_text.py data=FILE weights=FILE [heads=4] [batch=16] [steps=2000] [seed=42] [every=250] [sample=300]

The weights, which also say how large the model is, are what `gpt --steps 0 --save-weights FILE` writes. As long as
rounding allows, the losses are those of `gpt --data FILE --log DIR`.
"""
import math
import os
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

import fixture

WARMUP, PEAK, LEAST, DECAY, CLIP = 100, 1e-3, 0.1, 0.1, 1.0
EVAL_BATCHES, SAMPLES_PER_EPOCH, MASK = 20, 1 << 16, (1 << 64) - 1


class Conv1D(nn.Module):
    """x W + b with a W of [in, out], as GPT-2's files have it."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(inputs, outputs)), nn.Parameter(torch.empty(outputs))

    def forward(self, x):
        return F.linear(x, self.weight.t(), self.bias)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = Conv1D(width, 3 * width), Conv1D(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
                   for part in self.c_attn(x).chunk(3, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_fc, self.c_proj = Conv1D(width, 4 * width), Conv1D(4 * width, width)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt(nn.Module):
    def __init__(self, vocabulary, width, block, layers, heads):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(block, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe.weight[:tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)


def gpt_of(weights, heads):
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("h."))
    (vocabulary, width), block = weights["wte.weight"].shape, len(weights["wpe.weight"])
    net = Gpt(vocabulary, width, block, layers, heads)
    net.load_state_dict(weights)
    return net


def loss_of(net, x, y, reduction="mean"):
    return F.cross_entropy(net(x).flatten(0, 1), y.flatten(), reduction=reduction)


def split(text, characters):
    """The tokens that train, and those that validate."""
    number = {c: i for i, c in enumerate(characters)}
    tokens = torch.tensor([number[c] for c in text])
    last = len(tokens) // 10
    return tokens[:len(tokens) - last], tokens[len(tokens) - last:]


@torch.no_grad()
def validation_loss(net, tokens, block, blocks):
    """Over some of the blocks, evenly spread; None: all."""
    count = (len(tokens) - 1) // block
    used = min(blocks or count, count)
    begins = [i * count // used * block for i in range(used)]
    total = 0.0
    for at in range(0, len(begins), 16):
        part = begins[at:at + 16]
        x, y = (torch.stack([tokens[b + shift:b + shift + block] for b in part]) for shift in (0, 1))
        total += loss_of(net, x, y, "sum").item()
    return total / (len(begins) * block)


def mixed(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def philox(seed):
    """64 bits: the first of the first block of Philox4x32-10."""
    c, key = [0, 0, 0, 0], [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ key[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ key[1], a & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c[1] << 32 | c[0]


def block_begin(seed, number, choices):
    """Of sample `number` of the run, as Loom's loader draws it."""
    epoch, ticket = divmod(number, SAMPLES_PER_EPOCH)
    return philox(mixed((mixed((mixed(seed) + epoch) & MASK) + ticket) & MASK)) * choices >> 64


def rate(step, steps):
    if step < WARMUP:
        return (step + 1) / (WARMUP + 1)
    way = min(1.0, (step - WARMUP) / max(1, steps - WARMUP))
    return LEAST + (1 - LEAST) * (1 + math.cos(math.pi * way)) / 2


@torch.no_grad()
def written(net, tokens, count, block):
    for _ in range(count):
        scores = net(torch.tensor([tokens[-block:]]))[0, -1]
        tokens.append(torch.multinomial(scores.softmax(0), 1).item())
    return tokens


def training(net, train, batch, steps, seed):
    """Trains, and yields after each step its number and loss."""
    block = len(net.wpe.weight)
    matrices = [p for p in net.parameters() if p.dim() >= 2]
    others = [p for p in net.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0}],
                                  lr=PEAK, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    for step in range(1, steps + 1):
        begins = [block_begin(seed, (step - 1) * batch + i, len(train) - block) for i in range(batch)]
        x, y = (torch.stack([train[b + shift:b + shift + block] for b in begins]) for shift in (0, 1))
        optimizer.zero_grad()
        loss = loss_of(net, x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        yield step, loss.item()


def main():
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    batch, steps, seed = (int(given.get(key, value)) for key, value in (("batch", 16), ("steps", 2000), ("seed", 42)))
    every = int(given.get("every", 250))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(seed)
    text = pathlib.Path(given["data"]).read_bytes().decode()
    characters = sorted(set(text))
    train, validation = split(text, characters)
    net = gpt_of(fixture.load(given["weights"]), int(given.get("heads", 4)))
    block = len(net.wpe.weight)

    start = time.monotonic()
    for step, loss in training(net, train, batch, steps, seed):
        if step <= 10 or step % every == 0:
            seconds = time.monotonic() - start
            print(f"step {step}: loss {loss:.6f}, {step * batch * block / seconds:.0f} tokens/s", flush=True)
        if step % every == 0 or step == steps:
            print(f"step {step}: validation loss {validation_loss(net, validation, block, EVAL_BATCHES * batch):.6f}")
    if "sample" in given:
        tokens = written(net, [characters.index("\n")], int(given["sample"]), block)
        print("".join(characters[t] for t in tokens[1:]))


if __name__ == "__main__":
    main()
