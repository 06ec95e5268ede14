#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes gpt_bible.json: the losses of PyTorch's twin of examples/gpt, step by step, on the text it learns by default.

usage: gpt_bible.py      (with PyTorch and Debian's bible-kjv installed; minutes)

The model is the default one, 4 layers of 128, from the weights of gpt_start.py, so that nothing of Loom's is in it but
which blocks are drawn; tests/programs/gpt.py has examples/gpt train the same.
"""
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "bench/peers"))
import fixture  # pylint: disable=wrong-import-position  # noqa: E402
import gpt_start  # pylint: disable=wrong-import-position  # noqa: E402
import gpt_text  # pylint: disable=wrong-import-position  # noqa: E402

BATCH, STEPS, SEED, HEADS, EVERY = 4, 150, 42, 4, 50


def main():
    text = subprocess.run(["bible", "-f", "Gen1:1-Rev22:21"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          check=True).stdout
    characters = sorted(set(text.decode()))
    train, validation = gpt_text.split(text.decode(), characters)
    with tempfile.TemporaryDirectory() as folder:
        weights = fixture.load(gpt_start.write_start(pathlib.Path(folder) / "start.safetensors", len(characters)))
    net = gpt_text.gpt_of(weights, HEADS)
    losses, validations = [], []
    for step, loss in gpt_text.training(net, train, BATCH, STEPS, SEED):
        losses.append(round(loss, 6))
        if step % EVERY == 0:
            blocks = gpt_text.EVAL_BATCHES * BATCH
            value = gpt_text.validation_loss(net, validation, len(net.wpe.weight), blocks)
            validations.append([step, round(value, 6)])
    found = {"torch": torch.__version__, "sha256": hashlib.sha256(text).hexdigest(), "characters": len(characters),
             "flags": ["--batch-size", BATCH, "--steps", STEPS, "--seed", SEED, "--eval-every", EVERY],
             "losses": losses, "validation_losses": validations}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
    (HERE / "gpt_bible.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
