# SPDX-License-Identifier: Apache-2.0
"""Casts from each dtype to each, and the dtypes of results. tests/unit/golden_dtypes_test.cpp reads what stands here."""
import math

import torch
import torch.nn.functional as F

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
    except (RuntimeError, TypeError, IndexError, ValueError):
        return 255
    return DTYPES.index(result if isinstance(result, torch.dtype) else result.dtype)


def table(function):
    """Of a tensor with dimensions, or without, and: one with, one without, a number (2.5, 2, True). [2, 8, 8 + 8 + 3]"""
    def tensors(shape):
        return [torch.ones(shape, dtype=d) for d in DTYPES]

    others = [*tensors(2), *tensors(()), 2.5, 2, True]
    rows = [[[number_of(lambda: function(x, o)) for o in others] for x in tensors(shape)] for shape in (2, ())]
    return torch.tensor(rows, dtype=torch.uint8)


def mixed_cases():
    """Name of a case of tests/unit/op_sweep -> (operands, function). Real operands take the others' dtype."""
    r, ones = lambda *shape: torch.rand(shape, dtype=torch.float64) * 0.8 + 0.1, torch.ones
    at = torch.tensor([0, 1])
    yes = torch.tensor([True, False])
    c = {}

    def add(name, operands, function):
        c[name] = (operands, function)

    for macro, name, function, _, _ in elementwise_cases.rows():
        if macro in ("BINARY", "COMPARE", "BITWISE") and not name.endswith("_backward"):
            operands = [at, at] if macro == "BITWISE" else [r(2), r(2)]
            add(name, operands, function)
    add("where", [yes, r(2), r(2)], torch.where)
    add("masked_fill (tensor value)", [r(2), yes, r(2).sum()], torch.masked_fill)
    add("lerp", [r(2), r(2), r(2)], torch.lerp)
    add("prelu (one weight)", [r(2, 3), r(1)], F.prelu)
    add("cat (dim -1, three)", [r(2), r(2), r(2)], lambda *x: torch.cat(x))
    add("concat", [r(2), r(2)], lambda *x: torch.concat(x))
    add("stack", [r(2), r(2)], lambda *x: torch.stack(x))
    add("matmul", [r(2, 2), r(2, 2)], torch.matmul)
    add("mm", [r(2, 2), r(2, 2)], torch.mm)
    add("bmm", [r(2, 2, 2), r(2, 2, 2)], torch.bmm)
    add("addmm", [r(2, 2), r(2, 2), r(2, 2)], torch.addmm)
    add("dot", [r(2), r(2)], torch.dot)
    add("outer", [r(2), r(2)], torch.outer)
    add("linear", [r(2, 2), r(2, 2), r(2)], F.linear)
    add("einsum (bij,bjk->bik)", [r(2, 2, 2), r(2, 2, 2)], lambda a, b: torch.einsum("bij,bjk->bik", a, b))
    add("index_select", [r(2), at], lambda x, i: torch.index_select(x, 0, i))
    add("index_add", [r(2), at, r(2)], lambda x, i, y: torch.index_add(x, 0, i, y))
    add("gather", [r(2), at], lambda x, i: torch.gather(x, 0, i))
    add("scatter", [r(2), at, r(2)], lambda x, i, y: torch.scatter(x, 0, i, y))
    add("scatter_add", [r(2), at, r(2)], lambda x, i, y: torch.scatter_add(x, 0, i, y))
    add("take_along_dim", [r(2), at], lambda x, i: torch.take_along_dim(x, i, 0))
    add("embedding", [at, r(2, 2)], F.embedding)
    add("masked_select", [r(2), yes], torch.masked_select)
    add("index (adjoining lists)", [r(2, 2), at, at], lambda x, i, j: x[i, j])
    add("index (mask)", [r(2), yes], lambda x, i: x[i])
    add("index_put (list)", [r(2), at, r(2)], lambda x, i, y: torch.index_put(x, (i,), y))
    add("index_put (mask, number)", [r(2), yes, r(2).sum()], lambda x, i, y: torch.index_put(x, (i,), y))
    add("conv1d", [r(1, 2, 3), r(2, 2, 2), r(2)], F.conv1d)
    add("conv2d", [r(1, 2, 3, 3), r(2, 2, 2, 2), r(2)], F.conv2d)
    add("conv_transpose2d", [r(1, 2, 3, 3), r(2, 2, 2, 2), r(2)], F.conv_transpose2d)
    add("layer_norm", [r(2, 3), r(3), r(3)], lambda x, w, b: F.layer_norm(x, (3,), w, b))
    add("rms_norm", [r(2, 3), r(3)], lambda x, w: F.rms_norm(x, (3,), w))
    add("group_norm", [r(2, 4), r(4), r(4)], lambda x, w, b: F.group_norm(x, 2, w, b))
    add("add_layer_norm", [r(2, 3), r(2, 3), r(3), r(3)], lambda x, y, w, b: F.layer_norm(x + y, (3,), w, b))
    add("add_rms_norm", [r(2, 3), r(2, 3), r(3)], lambda x, y, w: F.rms_norm(x + y, (3,), w))
    add("gelu_mlp", [r(2, 2), r(2, 2), r(2), r(2, 2), r(2)],
        lambda x, v, a, w, b: F.linear(F.gelu(F.linear(x, v, a), approximate="tanh"), w, b))
    add("batch_norm_relu (evaluation)", [r(2, 3), r(2, 3), r(3), r(3), r(3), r(3)],
        lambda x, y, m, v, w, b: F.relu(F.batch_norm(x, m, v, w, b) + y))
    add("batch_norm (evaluation)", [r(2, 3), r(3), r(3), r(3), r(3)], F.batch_norm)
    attention = F.scaled_dot_product_attention
    add("scaled_dot_product_attention (mask)", [r(1, 2, 2), r(1, 2, 2), r(1, 2, 2), ones(2, 2).bool()], attention)
    add("scaled_dot_product_attention (added mask)", [r(1, 2, 2), r(1, 2, 2), r(1, 2, 2), r(2, 2)], attention)
    add("cross_entropy (mean, weighted)", [r(2, 3), at, r(3)], F.cross_entropy)
    add("cross_entropy (probabilities, weighted)", [r(2, 3), r(2, 3), r(3)], F.cross_entropy)
    add("nll_loss (mean, weighted)", [r(2, 3), at, r(3)], F.nll_loss)
    for name, loss in [("mse_loss", F.mse_loss), ("l1_loss", F.l1_loss), ("smooth_l1_loss", F.smooth_l1_loss),
                       ("huber_loss", F.huber_loss), ("kl_div", F.kl_div)]:
        add(f"{name} (mean)", [r(2, 3), r(2, 3)], loss)
    add("binary_cross_entropy (weighted)", [r(2, 3), r(2, 3), r(3)], F.binary_cross_entropy)
    add("binary_cross_entropy_with_logits (weighted)", [r(2, 3), r(2, 3), r(3), r(3)],
        lambda x, y, w, p: F.binary_cross_entropy_with_logits(x, y, w, pos_weight=p))
    return c


# Of the other operands and of the one, as in tests/unit/op_mixed_dtypes_test.cpp.
MIXED_COLUMNS = [(torch.float32, d) for d in DTYPES] + [(torch.bfloat16, d) for d in DTYPES]


def mixed():
    out = {}
    for name, (operands, function) in mixed_cases().items():
        rows = []
        for i in range(len(operands)):
            row = []
            for others, given in MIXED_COLUMNS:
                x = [t.to(others) if t.is_floating_point() else t for t in operands]
                x[i] = x[i].to(given)
                row.append(number_of(lambda: function(*x)))
            rows.append(row)
        out["mixed." + name] = torch.tensor(rows, dtype=torch.uint8)
    return out


def dtypes():
    out = casts() | mixed()
    out["result_type"] = table(torch.result_type)
    for macro, name, function, _, _ in elementwise_cases.rows():
        if macro in ("BINARY", "COMPARE", "BITWISE") and not name.endswith("_backward"):
            out["op." + name] = table(function)
    out["op.where"] = table(lambda a, b: torch.where(torch.tensor([True, False]), a, b))
    out["op.cat"] = table(lambda a, b: torch.cat([a, b]))
    return out
