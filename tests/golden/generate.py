#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the results of PyTorch that tests/unit/golden_*_test.cpp compare with.

usage: generate.py [PART...]      (with PyTorch and safetensors installed; writes PART.safetensors beside itself)

Inputs are drawn in f32 and everything is computed in f64, so that what is written has the rounding of its last digit only.
"""
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import array_cases
import autocast_cases
import cases
import dtype_cases
import elementwise_cases
import float8_cases
import operator_cases

SEED = 20240607
HERE = pathlib.Path(__file__).parent


def save(name, tensors):
    tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
    save_file(tensors, HERE / f"{name}.safetensors", {"torch": torch.__version__, "seed": str(SEED)})


def narrow(t):
    return t.float() if t.dtype == torch.float64 else t


def differentiate(out, name, outputs, leaves):
    """Adds outputs, random cotangents of those that have a gradient, and the leaves' gradients."""
    total = None
    for i, y in enumerate(outputs):
        out[f"{name}.out.{i}"] = narrow(y)
        if y.requires_grad:
            cotangent = torch.randn(y.shape).double()
            out[f"{name}.cotangent.{i}"] = narrow(cotangent)
            total = (0 if total is None else total) + (y * cotangent).sum()
    if total is not None:
        total.backward()
    for key, leaf in leaves.items():
        if leaf.grad is not None:
            out[f"{name}.grad.{key}"] = narrow(leaf.grad)


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [y for part in outputs if part is not None for y in flat(part)]


def operators(name, cases):
    out = {}
    for case, (function, inputs) in cases.items():
        inputs = [x.double() if x.is_floating_point() else x for x in inputs]
        leaves = {str(i): x.requires_grad_() for i, x in enumerate(inputs) if x.is_floating_point()}
        for i, x in enumerate(inputs):
            out[f"{case}.in.{i}"] = narrow(x)
        differentiate(out, case, flat(function(*inputs)), leaves)
    save(name, out)


def layers():
    out = {}
    for name, (module, inputs, call) in cases.layers().items():
        with torch.no_grad():
            for p in module.parameters():  # nothing stays at a special value such as 0 or 1
                p.copy_(torch.randn(p.shape) * 0.4 + (0.7 if p.dim() == 1 else 0))
        for key, value in module.state_dict().items():
            out[f"{name}.state.{key}"] = value.clone()
        module = module.double()
        inputs = [x.double() if x.is_floating_point() else x for x in inputs]
        leaves = {str(i): x.requires_grad_() for i, x in enumerate(inputs) if x.is_floating_point()}
        for i, x in enumerate(inputs):
            out[f"{name}.in.{i}"] = narrow(x)
        leaves |= dict(module.named_parameters())
        differentiate(out, name, flat(call(module, *inputs)), leaves)
        for key, value in module.named_buffers():
            out[f"{name}.after.{key}"] = narrow(value)
    save("layers", out)


def optimizers():
    out = {}
    x, y = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    weight, bias = torch.randn(2, 3).double(), torch.randn(2).double()
    out |= {"x": x, "y": y, "weight": weight, "bias": bias}
    for name, make in cases.optimizers().items():
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        optimizer = make([w, b])
        trace = []
        for _ in range(10):
            optimizer.zero_grad()
            sign = -1 if optimizer.param_groups[0].get("maximize") else 1
            (sign * (F.linear(x, w, b).tanh() - y).square().mean()).backward()
            optimizer.step()
            trace.append(torch.cat([w.detach().flatten(), b.detach()]))
        out[name] = torch.stack(trace)
    save("optimizers", out)


def schedules():
    out = {}
    for name, make in cases.schedules().items():
        a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        groups = [{"params": [a]}, {"params": [b], "lr": 0.03}]
        adam = "adam" in name
        optimizer = torch.optim.Adam(groups, lr=0.1) if adam else torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        schedule = make(optimizer)
        rows = []
        for epoch in range(31):
            rows.append([v for g in optimizer.param_groups for v in (g["lr"], g["betas"][0] if adam else g["momentum"])])
            optimizer.step()
            if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
                schedule.step(cases.plateau_metric(epoch, schedule.mode))
            else:
                schedule.step()
        out[name] = torch.tensor(rows, dtype=torch.float64)
    save("schedules", out)


def training():
    out = {}
    for name, (net, x, y) in cases.trainings().items():
        for key, value in net.state_dict().items():
            out[f"{name}.state.{key}"] = value.clone()
        net, x = net.double(), x.double()
        out[f"{name}.x"], out[f"{name}.y"] = narrow(x), y
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        out[f"{name}.losses"] = torch.stack(losses)
    save("training", out)


PARTS = {
    "operators": lambda: operators("operators", operator_cases.operators()),
    "arrays": lambda: operators("arrays", array_cases.arrays()),
    "autocast": lambda: save("autocast", autocast_cases.autocasts()),
    "dtypes": lambda: save("dtypes", dtype_cases.dtypes()),
    "elementwise": lambda: save("elementwise", elementwise_cases.elementwise()),
    "float8": lambda: save("float8", float8_cases.tables()),
    "layers": layers,
    "optimizers": optimizers,
    "schedules": schedules,
    "training": training,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        torch.manual_seed(SEED)
        PARTS[name]()
