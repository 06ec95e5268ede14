#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes gpt2.safetensors: a small GPT-2 with random weights as Hugging Face saves them, and what PyTorch computes.

usage: gpt2.py      (with PyTorch and safetensors installed)

The metadata holds a text, the loss on its last tenth, and what follows a prompt if the most likely character always
comes next; tests/programs/gpt.py has examples/gpt compute the same. Weights are f32, everything is computed in f64.
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "bench/peers"))
import gpt_text  # pylint: disable=wrong-import-position  # noqa: E402

SEED, LAYERS, HEADS, WIDTH, BLOCK = 1, 2, 2, 16, 12
TEXT = "the quick brown fox jumps over the lazy dog; " * 12
PROMPT, WRITTEN = "the lazy", 40


def main():
    torch.manual_seed(SEED)
    characters = sorted(set(TEXT))
    net = gpt_text.Gpt(len(characters), WIDTH, BLOCK, LAYERS, HEADS)
    for p in net.parameters():
        p.data = (torch.randn(p.shape) * (1 if p.dim() == 1 else 0.5)).float()
    weights = {"transformer." + name: t.clone() for name, t in net.state_dict().items()}
    for layer in range(LAYERS):  # what old versions saved besides
        weights[f"transformer.h.{layer}.attn.bias"] = torch.ones(BLOCK, BLOCK).tril().view(1, 1, BLOCK, BLOCK)
        weights[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()

    net = net.double()
    _, validation = gpt_text.split(TEXT, characters)
    loss = gpt_text.validation_loss(net, validation, BLOCK, None)
    tokens = [characters.index(c) for c in PROMPT]
    with torch.no_grad():
        for _ in range(WRITTEN):
            tokens.append(net(torch.tensor([tokens[-BLOCK:]]))[0, -1].argmax().item())
    save_file(weights, HERE / "gpt2.safetensors",
              {"torch": torch.__version__, "seed": str(SEED), "text": TEXT, "loss": repr(loss), "prompt": PROMPT,
               "written": "".join(characters[t] for t in tokens)})


if __name__ == "__main__":
    main()
