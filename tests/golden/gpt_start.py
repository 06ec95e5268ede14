# SPDX-License-Identifier: Apache-2.0
"""A GPT's weights by a formula, so that they need not be stored: what tests/golden/gpt_bible.py starts PyTorch from,
and tests/programs/gpt.py the example."""
import array
import json
import math
import random
import struct

SEED = 1
MATRICES = ("attn.c_attn", 1, 3), ("attn.c_proj", 1, 1), ("mlp.c_fc", 1, 4), ("mlp.c_proj", 4, 1)  # in widths


def shapes(vocabulary, layers, width, block):
    """Hugging Face's names of a GPT-2."""
    out = {"wte.weight": [vocabulary, width], "wpe.weight": [block, width]}
    for i in range(layers):
        for name in ("ln_1", "ln_2"):
            out |= {f"h.{i}.{name}.weight": [width], f"h.{i}.{name}.bias": [width]}
        for name, rows, columns in MATRICES:
            out |= {f"h.{i}.{name}.weight": [rows * width, columns * width], f"h.{i}.{name}.bias": [columns * width]}
    return out | {"ln_f.weight": [width], "ln_f.bias": [width]}


def write_start(path, vocabulary, layers=4, width=128, block=128):
    """As safetensors: matrices of the deviation that GPT-2's have, from a uniform distribution; norms 1, biases 0."""
    uniform = random.Random(SEED).random  # the same numbers in every version of Python
    header, data, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, shape in shapes(vocabulary, layers, width, block).items():
        count = math.prod(shape)
        if len(shape) == 1:
            values = [float(name.endswith("weight"))] * count
        else:
            reach = 0.02 * math.sqrt(3) / (math.sqrt(2 * layers) if "c_proj" in name else 1)
            values = [(2 * uniform() - 1) * reach for _ in range(count)]
        data.append(array.array("f", values).tobytes())
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * count]}
        at += 4 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    return path
