# SPDX-License-Identifier: Apache-2.0
"""The twin of bench/micro in PyTorch: the same cases, each operation under its name.

micro.py cases=FILE group=NAME [milliseconds=10] [device=cpu] [dtype=f32] [smoke=1]
  only=PATTERN                                   of the cases those that match the regular expression
  numpy=1 blis=1 onednn=1 packed=1               the library of products; packed: oneDNN, the second operand in its own layout
  channels_last=1 compile=1                      ways to make PyTorch faster
"""
import os
import pathlib
import re

import torch
import torch.nn.functional as F

import blis
import timing

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
FUNCTIONS = {"relu": torch.relu, "exp": torch.exp, "gelu": F.gelu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
             "erfc": torch.erfc, "erf": torch.erf, "mish": F.mish, "softplus": F.softplus,
             "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}


as_run = lambda function: function  # compile=1: compiled


def backward(y, inputs):
    seed = torch.randn(y.shape)
    return lambda: torch.autograd.grad(y, inputs, seed, retain_graph=True)


def differentiated(function, which, x):
    """A call of function(x), or of its gradient."""
    if which == "forward":
        return lambda: function(x)
    return backward(as_run(function)(x.requires_grad_()), x)


def operands(form, dtype, m, n, k):
    """[m, k] and [k, n]; t: transposed in memory."""
    a = torch.randn(k, m, dtype=DTYPES[dtype]).t() if form[0] == "t" else torch.randn(m, k, dtype=DTYPES[dtype])
    b = torch.randn(n, k, dtype=DTYPES[dtype]).t() if form[1] == "t" else torch.randn(k, n, dtype=DTYPES[dtype])
    return a, b


def gemm(form, dtype, *sizes):
    a, b = operands(form, dtype, *sizes)
    return lambda: a @ b


def gemm_numpy(form, dtype, *sizes):
    """OpenBLAS, which numpy brings along."""
    a, b = (x.numpy() for x in operands(form, dtype, *sizes))
    return lambda: a @ b


def gemm_blis(form, dtype, *sizes):
    return blis.product(*operands(form, dtype, *sizes))


def gemm_packed(form, dtype, *sizes):
    """oneDNN with the second operand in the layout that it asks for, as weights that do not change may have it."""
    a, b = operands(form, dtype, *sizes)
    weight = torch.ops.mkldnn._reorder_linear_weight(b.t().contiguous(), a.shape[0])
    return lambda: torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], "")


def gemm_onednn(form, dtype, *sizes):
    a, b = operands(form, dtype, *sizes)
    b = b.t()
    return lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


def conv(which, dtype, n, c, h, o, kernel, stride, layout=torch.contiguous_format):
    x = torch.randn(n, c, h, h, dtype=DTYPES[dtype]).to(memory_format=layout)
    w = torch.randn(o, c, kernel, kernel, dtype=DTYPES[dtype]).to(memory_format=layout)
    if which == "forward":
        return lambda: F.conv2d(x, w, None, stride, kernel // 2)
    wanted = (x if which == "input" else w).requires_grad_()
    y = F.conv2d(x, w, None, stride, kernel // 2)
    seed = torch.randn(y.shape, dtype=y.dtype).to(memory_format=layout)
    return lambda: torch.autograd.grad(y, wanted, seed, retain_graph=True)


def conv_channels_last(*given):
    return conv(*given, layout=torch.channels_last)


def attention(which, n, heads, length, width):
    qkv = [torch.randn(n, heads, length, width, requires_grad=True) for _ in range(3)]
    forward = lambda: F.scaled_dot_product_attention(*qkv, is_causal=True)
    return forward if which == "forward" else backward(forward(), qkv)


def over_rows(function):
    return lambda which, rows, columns: differentiated(function, which, torch.randn(rows, columns))


def layer_norm(which, rows, columns):
    weight, bias = torch.ones(columns), torch.zeros(columns)
    return over_rows(lambda x: F.layer_norm(x, (columns,), weight, bias))(which, rows, columns)


def rms_norm(which, rows, columns):
    weight = torch.ones(columns)
    return over_rows(lambda x: F.rms_norm(x, (columns,), weight))(which, rows, columns)


def batch_norm(which, count, channels, height, layout=torch.contiguous_format):
    x = torch.randn(count, channels, height, height).to(memory_format=layout)
    weight, bias = torch.ones(channels), torch.zeros(channels)
    return differentiated(lambda images: F.batch_norm(images, None, None, weight, bias, training=True), which, x)


def cross_entropy(which, rows, columns):
    target = torch.randint(columns, (rows,))
    return over_rows(lambda x: F.cross_entropy(x, target))(which, rows, columns)


def reduction(name):
    def make(which, first, second, height=None):
        x = torch.randn(first, second) if height is None else torch.randn(first, second, height, height)
        dims = {"all": (0, 1), "rows": 1, "columns": 0, "channels": (0, 2, 3)}[which]
        return lambda: getattr(x, name)(dims)
    return make


def largest(which, rows, columns):
    x, dim = torch.randn(rows, columns), {"rows": 1, "columns": 0}[which]
    return lambda: torch.max(x, dim)


def embedding(which, vocabulary, width, count):
    weight, index = torch.randn(vocabulary, width), torch.randint(vocabulary, (count,))
    return differentiated(lambda table: F.embedding(index, table), which, weight)


def map_of(function, which, count):
    return differentiated(FUNCTIONS[function], which, torch.randn(count))


def add(which, rows, columns):
    a = torch.randn(rows, columns)
    b = torch.randn({"same": (rows, columns), "row": (columns,), "column": (rows, 1)}[which])
    return lambda: a + b


def copy(count):
    start, end = torch.randn(count), torch.empty(count)
    return lambda: end.copy_(start)


def power(count):
    a, b = torch.rand(count) + 0.5, torch.randn(count)
    return lambda: torch.pow(a, b)


def dropout(count):
    x = torch.randn(count)
    return lambda: F.dropout(x, 0.1)


def dropout_both(count):
    x, seed = torch.randn(count).requires_grad_(), torch.randn(count)
    function = as_run(lambda values: F.dropout(values, 0.1))
    return lambda: torch.autograd.grad(function(x), x, seed)


def optimizer(name, tensors, count):
    parameters = [torch.nn.Parameter(torch.randn(count)) for _ in range(tensors)]
    for parameter in parameters:
        parameter.grad = torch.randn(count)
    if name in ("adam", "adamw"):
        return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](parameters, lr=1e-3, fused=True).step
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, fused=True).step


def transpose(which, *sizes):
    if which == "matrix":
        view = torch.randn(*sizes).t()
    else:
        n, c, h = sizes
        view = torch.randn(n, c, h, h).permute(0, 2, 3, 1)
    return view.contiguous


def strided(which, rows, columns):
    x = torch.randn(rows, columns)
    if which == "relu":
        view = x[:, ::2]
        return lambda: torch.relu(view)
    view = torch.randn(columns, rows).t()
    return lambda: x + view


def cat(dim, rows, columns):
    both = [torch.randn(rows, columns) for _ in range(2)]
    return lambda: torch.cat(both, dim)


def flip(dim, rows, columns):
    x = torch.randn(rows, columns)
    return lambda: torch.flip(x, (dim,))


def index_select(rows, width, count):
    x, index = torch.randn(rows, width), torch.randint(rows, (count,))
    return lambda: torch.index_select(x, 0, index)


def nonzero(percent, count):
    x = torch.randint(100, (count,)) < percent
    return lambda: torch.nonzero(x)


def sort(dtype, limit, rows, columns):
    x = torch.randint(limit, (rows, columns)) if dtype == "i64" else torch.randn(rows, columns) * limit
    return lambda: torch.sort(x, 1)


def chain(x, nodes):
    factor = torch.ones(4)
    for _ in range(nodes):
        x = x * factor
    return x


def tiny_add(which):
    a, b = torch.randn(4).requires_grad_(which == "recorded"), torch.randn(4)
    return lambda: a + b


def backward_node(nodes):
    total = chain(torch.randn(4).requires_grad_(), nodes).sum()
    return lambda: total.backward(retain_graph=True)


def graph(nodes):
    x = torch.randn(4).requires_grad_()
    return lambda: chain(x, nodes)


OPERATIONS = {"gemm": gemm, "conv": conv, "attention": attention, "softmax": over_rows(lambda x: torch.softmax(x, 1)),
              "layer_norm": layer_norm, "rms_norm": rms_norm, "batch_norm": batch_norm,
              "copy": copy, "cross_entropy": cross_entropy, "sum": reduction("sum"),
              "amax": reduction("amax"), "max": largest, "embedding": embedding, "index_select": index_select, "nonzero": nonzero,
              "sort": sort, "map": map_of, "add": add, "pow": power, "dropout": dropout, "dropout_both": dropout_both,
              "optimizer": optimizer,
              "transpose": transpose, "strided": strided, "cat": cat, "flip": flip, "tiny_add": tiny_add,
              "backward_node": backward_node, "graph": graph}


PRODUCTS = {"numpy": gemm_numpy, "blis": gemm_blis, "onednn": gemm_onednn, "packed": gemm_packed}


def compile_all():
    import torch._functorch.config as config  # slow to load
    global as_run
    as_run = lambda function: torch.compile(function, dynamic=False)
    config.donated_buffer = False  # backward runs again and again


def flops(name, sizes):
    if name == "gemm":
        m, n, k = sizes
        return 2 * m * n * k
    n, c, h, o, kernel, stride = sizes
    out = (h + 2 * (kernel // 2) - kernel) // stride + 1
    return 2 * n * out * out * o * c * kernel * kernel


def in_unit(name, words, seconds):
    """The number and its unit, as the operation's function in bench/micro has it."""
    sizes = [word for word in words if isinstance(word, int)]
    if name in ("gemm", "conv"):
        return flops(name, sizes) / seconds * 1e-9, "GFLOP/s"
    if name in ("tiny_add", "backward_node"):
        return seconds / (sizes[0] if sizes else 1) * 1e9, "ns"
    if name == "graph" or name == "optimizer" and sizes[0] > 1:
        return seconds * 1e6, "us"
    return seconds * 1e3, "ms"


def cases(file, group, only):
    inside = False
    for line in pathlib.Path(file).read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].rstrip()
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and line and re.search(only, line):
            yield line


TURNS = 4  # of operations of a GPU: together larger than its caches
FIRST_WARM_UP, WARM_UP = 0.15, 0.05  # seconds, on the CPU; bench/micro/micro.cpp has the same


def seconds_of(make, words, given, first):
    cuda = given.get("device", "cpu") == "cuda"
    milliseconds = 0 if "smoke" in given else float(given.get("milliseconds", 40 if cuda else 10))
    if cuda:
        calls = [make(*words) for _ in range(TURNS)]
        return timing.seconds_of_a_call(calls, 0, milliseconds * 1e-3, torch.cuda.synchronize)
    warm_up = 0 if "smoke" in given else FIRST_WARM_UP if first else WARM_UP
    call = make(*words)
    return timing.seconds_of_a_call([call if "backward" in words else as_run(call)], warm_up, milliseconds * 1e-3)


def run(given):
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.set_default_device(given.get("device", "cpu"))
    torch.set_default_dtype(DTYPES[given.get("dtype", "f32")])
    most = 8 if "smoke" in given else float("inf")
    operations = dict(OPERATIONS)
    for library, product in PRODUCTS.items():
        if library in given:
            operations["gemm"] = product
    if "compile" in given:
        compile_all()
    if "channels_last" in given:
        operations["conv"] = conv_channels_last
        operations["batch_norm"] = lambda *words: batch_norm(*words, layout=torch.channels_last)
    for i, line in enumerate(cases(given["cases"], given["group"], given.get("only", ""))):
        if "compile" in given:
            torch.compiler.reset()
        name, *words = [min(int(word), most) if word.isdigit() else word for word in line.split()]
        timing.record(line, *in_unit(name, words, seconds_of(operations[name], words, given, first=i == 0)))


timing.main(run)
