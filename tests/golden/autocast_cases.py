# SPDX-License-Identifier: Apache-2.0
"""The dtypes of results under torch.autocast, of the cases of the other parts. tests/unit/golden_autocast_test.cpp reads what
stands here.

PyTorch has a list of ops for each device. CUDA's is asked without a GPU: fake tensors have a device and a dtype, but no memory.
"""
import contextlib
import logging
import warnings

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

import array_cases
import cases
import dtype_cases
import elementwise_cases
import operator_cases

LOWS = [torch.bfloat16, torch.float16]
REFUSED = 255


@contextlib.contextmanager
def autocast(device, low):
    """torch.autocast, which without a GPU does nothing for "cuda"."""
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, low)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])


class OnCuda(TorchFunctionMode):
    """Functions get fake tensors on a GPU for those on the CPU."""

    def __init__(self, fake):
        super().__init__()
        self.fake = fake

    def move(self, x):
        return self.fake.from_tensor(x, static_shapes=True).cuda() if x.device.type == "cpu" else x

    def __torch_function__(self, function, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(torch.Tensor, self.move, (args, kwargs or {}))
        return function(*args, **kwargs)


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [y for part in outputs if part is not None for y in flat(part)]


def numbers_of(call, inputs, device, low):
    """The dtypes of the results, by their places in DTYPES; nothing where PyTorch refuses."""
    with contextlib.ExitStack() as scopes:
        if device == "cuda":
            fake = scopes.enter_context(FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True))
            moving = scopes.enter_context(OnCuda(fake))
            inputs = [moving.move(x) for x in inputs]
            scopes.enter_context(torch.backends.cudnn.flags(enabled=False))  # it asks for the driver
        scopes.enter_context(autocast(device, low))
        try:
            return [dtype_cases.DTYPES.index(y.dtype) for y in flat(call(*inputs))]
        except (RuntimeError, TypeError):
            return []


def patterns(inputs, low):
    """The floating inputs all in f32, all in 16 bits, only the first in f32, only the first in 16 bits."""
    floating = [i for i, x in enumerate(inputs) if x.is_floating_point()]
    for first, others in (torch.float32, torch.float32), (low, low), (torch.float32, low), (low, torch.float32):
        yield [x if i not in floating else x.to(first if i == floating[0] else others) for i, x in enumerate(inputs)]


def table(call, inputs):
    """[cpu and cuda, LOWS, patterns, results]"""
    rows = [numbers_of(call, given, device, low)
            for device in ("cpu", "cuda") for low in LOWS for given in patterns(inputs, low)]
    results = max(1, *map(len, rows))
    return torch.tensor([row or [REFUSED] * results for row in rows], dtype=torch.uint8).reshape(2, len(LOWS), 4, results)


def is_gradient(name):
    """PyTorch computes gradients outside of autocast, by functions that its lists do not know."""
    op = name.split("/")[0]
    return op.endswith("_backward") or "_grad" in op


def everything():
    """(part, case, function, inputs)"""
    for name, (function, inputs) in operator_cases.operators().items():
        yield "operators", name, function, inputs
    for name, (function, inputs) in array_cases.arrays().items():
        yield "arrays", name, function, inputs
    for macro, name, function, _, _ in elementwise_cases.rows():
        if macro == "BITWISE":
            continue
        parameters = elementwise_cases.PARAMETERS.get(name, [()])[0]
        inputs = [torch.full((2,), 0.5)] * (2 if macro in ("BINARY", "COMPARE") else 1)
        yield "elementwise", name, lambda *x, f=function, p=parameters: f(*x, *p), inputs
    for name, (module, inputs, call) in cases.layers().items():
        if isinstance(module, torch.nn.RNNBase):
            yield "layers", name, lambda *x, c=call, m=module: c(m, *x), inputs


def autocasts():
    logging.disable(logging.ERROR)  # a fake op that refuses says so
    warnings.simplefilter("ignore")
    return {f"{part}.{name}": table(function, list(inputs))
            for part, name, function, inputs in everything() if not is_gradient(name)}
