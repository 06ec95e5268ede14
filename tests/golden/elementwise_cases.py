# SPDX-License-Identifier: Apache-2.0
"""The rows of accelerators/elementwise.def with PyTorch's functions for them, and what they are called with.

A row that PyTorch knows by the same name needs nothing here.
"""
import math
import pathlib
import re

import torch
import torch.nn.functional as F

DEF = pathlib.Path(__file__).parents[2] / "accelerators" / "elementwise.def"
ROW = re.compile(r"^(UNARY|UNARY_P|STEP|PREDICATE|BINARY|COMPARE|BITWISE)\(", re.MULTILINE)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTS = {"i64": torch.int64, "i32": torch.int32, "u8": torch.uint8, "boolean": torch.bool}
aten = torch.ops.aten

# Functions whose names or arguments are not the row's; those with parameters take (x, p, q).
FUNCTIONS = {
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "clamp": torch.clamp,
    "hardtanh": F.hardtanh,
    "leaky_relu": lambda x, p, q: F.leaky_relu(x, p),
    "elu": lambda x, p, q: F.elu(x, p),
    "celu": lambda x, p, q: F.celu(x, p),
    "softplus": F.softplus,
    "softshrink": lambda x, p, q: F.softshrink(x, p),
    "hardshrink": lambda x, p, q: F.hardshrink(x, p),
    "threshold": F.threshold,
    "pow_scalar": lambda x, p, q: x.pow(float(p)),
    "relu_backward": lambda g, y: aten.threshold_backward(g, y, 0),
    "tanh_backward": aten.tanh_backward,
    "sigmoid_backward": aten.sigmoid_backward,
    "silu_backward": aten.silu_backward,
    "gelu_backward": aten.gelu_backward,
    "gelu_tanh_backward": lambda g, x: aten.gelu_backward(g, x, approximate="tanh"),
}

# Pairs of parameters (p, q), the defaults first.
PARAMETERS = {
    "clamp": [(-1, 2), (0, 3)],
    "hardtanh": [(-1, 1), (-2, 1)],
    "leaky_relu": [(0.01, 0), (0.25, 0)],
    "elu": [(1, 0), (0.75, 0)],
    "celu": [(1, 0), (1.5, 0)],
    "softplus": [(1, 20), (2, 3)],
    "softshrink": [(0.5, 0), (1, 0)],
    "hardshrink": [(0.5, 0), (1, 0)],
    "threshold": [(0, 0), (1, 5)],
    "pow_scalar": [(2, 0), (3, 0), (4, 0), (1, 0), (0, 0), (-1, 0), (-2, 0), (0.5, 0), (-0.5, 0), (2.5, 0), (-1.5, 0)],
}

NO_GRADIENT = {"floor_divide", "silu_backward"}  # PyTorch defines none
DIVISIONS = {"floor_divide", "remainder", "fmod"}


def arguments(text):
    """The top-level arguments of `(a, b(c, d))...`, as text."""
    depth, start, out = 0, 1, []
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0 or (depth == 1 and c == ","):
            out.append(text[start:i].strip())
            start = i + 1
        if depth == 0:
            return out
    raise ValueError("unbalanced: " + text[:40])


def rows():
    """(macro, name, function, low, high) of each row; rows without an interval take whole numbers."""
    text = DEF.read_text(encoding="utf-8")
    text = "\n".join(line for line in text.split("\n") if not line.startswith(("//", "#")))
    for match in ROW.finditer(text):
        macro, columns = match.group(1), arguments(text[match.end() - 1:])
        name = columns[0]
        interval = {"STEP": columns[-2:], "PREDICATE": ["-2", "2"], "COMPARE": ["-2", "2"], "BITWISE": ["-9", "10"]}
        low, high = (float(c) for c in interval.get(macro, columns[-3:-1]))
        function = FUNCTIONS.get(name) or getattr(torch, name, None) or getattr(F, name)
        yield macro, name, function, low, high


def drawn(low, high, *shape):
    """Numbers in the interval that every floating dtype holds exactly."""
    return (torch.rand(*shape) * (high - low) * 0.98 + low + 0.01 * (high - low)).bfloat16()


def special():
    """Limits, zeros, the smallest of each dtype, numbers at which formulas change their form, large ones."""
    smallest = [v for d in FLOATS for v in (torch.finfo(d).smallest_normal * torch.finfo(d).eps,
                                                     torch.finfo(d).smallest_normal)]
    finite = [0.0, *smallest, 0.5, 1, 1.5, 2, 2.5, 3, 6, 20, 50, 100, 800, 60000, 2.0 ** 40]
    return torch.tensor([[math.nan, math.inf, -math.inf] + [s * v for v in finite for s in (1, -1)]]).double()


def special_pairs():
    values = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1, -2, 0.5, 3]).double()
    return torch.cartesian_prod(values, values).T.contiguous()


def whole(dtype):
    if dtype == torch.bool:
        return torch.tensor([False, True])
    if dtype == torch.uint8:
        return torch.tensor([0, 1, 2, 3, 7, 20, 128, 255], dtype=dtype)
    info = torch.iinfo(dtype)
    return torch.tensor([0, 1, -1, 2, -2, 3, -7, 20, info.max, info.min], dtype=dtype)


def whole_pairs(dtype):
    """Those that nothing may be divided by come last: (x, 0), and (min, -1), whose quotient does not exist."""
    values = whole(dtype)
    pairs = torch.cartesian_prod(values, values)
    bad = pairs[:, 1] == 0
    if dtype.is_signed:
        bad |= (pairs[:, 0] == torch.iinfo(dtype).min) & (pairs[:, 1] == -1)
    return torch.cat([pairs[~bad], pairs[bad]]).T.contiguous(), int((~bad).sum())


def call(function, inputs, parameters, cotangent, differentiate):
    """Results and, where there are any, gradients of the inputs: [1 or more, n]."""
    inputs = [x.clone().requires_grad_(differentiate) for x in inputs]
    y = function(*inputs, *(int(p) if p == int(p) else p for p in parameters))
    if not y.requires_grad:
        return y[None]
    grads = torch.autograd.grad(y, inputs, cotangent.to(y.dtype), allow_unused=True)
    return torch.stack([y.detach()] + [torch.zeros_like(y) if g is None else g for g in grads])


def elementwise():
    """Floating ops are computed in f64, integral ones in each dtype that PyTorch has them for."""
    out = {"special.1": special(), "special.2": special_pairs()}
    for key, dtype in INTS.items():
        out[f"whole.1.{key}"], out[f"whole.2.{key}"] = whole(dtype)[None], whole_pairs(dtype)[0]
    out["cotangent"] = cotangent = drawn(-2, 2, 9 + special_pairs().shape[1])
    for macro, name, function, low, high in rows():
        arity = 2 if macro in ("BINARY", "COMPARE", "BITWISE") else 1
        sets = PARAMETERS.get(name, [()])
        if name in PARAMETERS:
            out[f"{name}.parameters"] = torch.tensor(sets, dtype=torch.float64)
        inside = out[f"{name}.in"] = drawn(low, high, arity, 9)
        for key, dtype in ({"f64": torch.float64} | INTS).items():
            inputs = torch.cat([inside, out[f"special.{arity}"]], 1) if key == "f64" else out[f"whole.{arity}.{key}"]
            if name in DIVISIONS and key != "f64":
                inputs = inputs[:, :whole_pairs(dtype)[1]]
            differentiate = key == "f64" and name not in NO_GRADIENT
            try:
                out[f"{name}.{key}"] = torch.stack(
                    [call(function, inputs, p, cotangent[:inputs.shape[1]], differentiate) for p in sets])
            except (RuntimeError, NotImplementedError) as error:  # PyTorch has no such kernel
                if "not implemented" not in str(error) and "not supported" not in str(error):
                    raise
    return out
