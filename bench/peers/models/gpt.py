# SPDX-License-Identifier: Apache-2.0
"""The twin of bench/models/gpt.h."""
import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads, approximate):
        super().__init__()
        self.heads, self.approximate = heads, approximate
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attend(self, x):
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
                   for part in self.qkv(x).chunk(3, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))

    def forward(self, x):
        x = x + self.attend(self.ln1(x))
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate=self.approximate))


class Gpt(nn.Module):
    def __init__(self, width=128, depth=4, heads=4, context=128, vocabulary=65, gelu_tanh=0):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, "tanh" if gelu_tanh else "none") for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, index):
        x = self.tokens(index) + self.positions.weight[:index.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight).flatten(0, 1)

    @staticmethod
    def optimizer(parameters, fused):
        return torch.optim.AdamW(parameters, lr=3e-4, fused=fused)
