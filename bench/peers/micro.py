# SPDX-License-Identifier: Apache-2.0
"""The twins of bench/micro.cpp in PyTorch: one line each, under the same names.

micro.py [filter=TEXT] [seconds=1]
"""
import os

import torch
import torch.nn.functional as F

import timing

N, ROWS, COLUMNS = 10_000_000, 10_000, 1000
NODES = 1000


def unary(shape, function):
    x = torch.randn(shape)
    return lambda: function(x)


def product(n):
    a, b = torch.randn(n, n), torch.randn(n, n)
    return lambda: a @ b


def adamw_step():
    weight = torch.nn.Parameter(torch.randn(N))
    weight.grad = torch.randn(N)
    return torch.optim.AdamW([weight], lr=1e-3, fused=True).step


def add(record):
    a, b = torch.randn(4).requires_grad_(record), torch.randn(4)
    return lambda: a + b


def backward_chain():
    factor = torch.ones(4)
    y = torch.randn(4).requires_grad_()
    for _ in range(NODES):
        y = y * factor
    total = y.sum()
    return lambda: total.backward(retain_graph=True)


# name: unit, what makes the timed function, floating-point operations or calls
OPERATIONS = {
    "gemm 512": ("GFLOP/s", lambda: product(512), 2 * 512**3),
    "gemm 1024": ("GFLOP/s", lambda: product(1024), 2 * 1024**3),
    "relu 10M": ("ms", lambda: unary(N, torch.relu), 1),
    "exp 10M": ("ms", lambda: unary(N, torch.exp), 1),
    "softmax 10M": ("ms", lambda: unary((ROWS, COLUMNS), lambda x: torch.softmax(x, 1)), 1),
    "layer_norm 10M": ("ms", lambda: unary((ROWS, COLUMNS), lambda x: F.layer_norm(x, (COLUMNS,))), 1),
    "sum 10M": ("ms", lambda: unary(N, torch.sum), 1),
    "AdamW 10M": ("ms", adamw_step, 1),
    "add 4 floats": ("ns", lambda: add(False), 1),
    "add 4 floats, recorded": ("ns", lambda: add(True), 1),
    "backward, per node": ("ns", backward_chain, NODES),
}


def run(options):
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for name, (unit, make, count) in OPERATIONS.items():
        if options.get("filter", "") not in name:
            continue
        seconds = timing.seconds_of_a_call(make(), float(options.get("seconds", 1)))
        scale = {"ns": 1e9, "ms": 1e3}
        timing.record(name, count / seconds * 1e-9 if unit == "GFLOP/s" else seconds / count * scale[unit], unit)


timing.main(run)
