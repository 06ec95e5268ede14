# SPDX-License-Identifier: Apache-2.0
"""Casts from each dtype to each, and the dtypes of results. tests/unit/golden_dtypes_test.cpp reads what stands here."""
import math

import torch

import elementwise_cases

# In the order of loom::DType.
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]
NAMES = ["f64", "f32", "f16", "bf16", "i64", "i32", "u8", "boolean"]


def real_values():
    """Ties of each narrower dtype and their neighbours, limits, subnormal numbers, numbers between whole ones."""
    values = [0.0, 0.3, 0.5, 1.5, 2.5, 2.75, 255.9, 1e9, 2147483646.5, 1e15, 1e300, 3.4e38, 3.5e38]
    for bits in (7, 10, 23):  # of bf16, f16, f32
        tie = 1 + 2.0 ** -(bits + 1)
        values += [tie, tie + 2.0 ** -bits, tie + 2.0 ** -40, tie - 2.0 ** -40]
    values += [65504, 65519.99, 65520, 2.0 ** -14 * 0.999, 2.0 ** -24, 2.0 ** -25, 2.0 ** -25 * 1.001, 3 * 2.0 ** -25]
    values += [1e-39, 1e-45, 1e-46, 2.0 ** -133, 2.0 ** -134 * 1.01]
    return torch.tensor([math.nan, math.inf, -math.inf] + [s * v for v in values for s in (1, -1)], dtype=torch.float64)


def whole_values():
    values = [0, 1, 2, 127, 128, 255, 256, 257, 259, 2049, 2051, 65519, 65520, 2 ** 24 + 1, 2 ** 24 + 3, 2 ** 31 - 1, 2 ** 31,
              2 ** 53 + 1, 2 ** 53 + 3, 2 ** 63 - 1]
    return torch.tensor(values + [-v for v in values] + [-2 ** 63])


def values_of(dtype):
    if dtype.is_floating_point:
        return real_values().to(dtype)
    if dtype == torch.bool:
        return torch.tensor([False, True])
    info = torch.iinfo(dtype)
    whole = whole_values()
    return whole[(whole >= info.min) & (whole <= info.max)].to(dtype)


def casts():
    out = {}
    for source, name in zip(DTYPES, NAMES):
        for target, other in zip(DTYPES, NAMES):
            x = values_of(source)
            if source.is_floating_point and target not in (torch.bool, *DTYPES[:4]):  # outside of it nothing is defined
                info = torch.iinfo(target)
                wide = x.double().trunc()
                x = x[(wide >= info.min) & (wide <= (info.max if target != torch.int64 else 2.0 ** 62))]
            out[f"cast.{name}.{other}.in"], out[f"cast.{name}.{other}.out"] = x, x.to(target)
    return out


def number_of(call):
    """The dtype of what call gives, by its place in DTYPES; 255: PyTorch refuses."""
    try:
        result = call()
    except (RuntimeError, TypeError):
        return 255
    return DTYPES.index(result if isinstance(result, torch.dtype) else result.dtype)


def table(function):
    """Of a tensor with dimensions, or without, and: one with, one without, a number (2.5, 2, True). [2, 8, 8 + 8 + 3]"""
    def tensors(shape):
        return [torch.ones(shape, dtype=d) for d in DTYPES]

    others = [*tensors(2), *tensors(()), 2.5, 2, True]
    rows = [[[number_of(lambda: function(x, o)) for o in others] for x in tensors(shape)] for shape in (2, ())]
    return torch.tensor(rows, dtype=torch.uint8)


def dtypes():
    out = casts()
    out["result_type"] = table(torch.result_type)
    for macro, name, function, _, _ in elementwise_cases.rows():
        if macro in ("BINARY", "COMPARE", "BITWISE") and not name.endswith("_backward"):
            out["op." + name] = table(function)
    out["op.where"] = table(lambda a, b: torch.where(torch.tensor([True, False]), a, b))
    out["op.cat"] = table(lambda a, b: torch.cat([a, b]))
    return out
