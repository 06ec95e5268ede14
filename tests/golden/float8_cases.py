# SPDX-License-Identifier: Apache-2.0
"""PyTorch's floats of 8 bits: what each code stands for, and the codes of all numbers of f16 that are in range, which is all
that its rounding and Loom's agree on (Loom's clamps what lies beyond)."""
import torch

FORMATS = {"e4m3": (torch.float8_e4m3fn, 448.0), "e5m2": (torch.float8_e5m2, 57344.0)}


def tables():
    out = {}
    halves = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.float16).float()
    for name, (dtype, largest) in FORMATS.items():
        out[f"{name}.values"] = torch.arange(256, dtype=torch.uint8).view(dtype).float()
        clamped = torch.where(halves.isnan(), halves, halves.clamp(-largest, largest))
        out[f"{name}.codes"] = clamped.to(dtype).view(torch.uint8)
    return out
