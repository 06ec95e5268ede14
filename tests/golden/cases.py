# SPDX-License-Identifier: Apache-2.0
"""What generate.py runs; tests/unit/golden_*_test.cpp have the same cases by the same names."""
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.optim import lr_scheduler as schedule


def rand(*shape):
    return torch.rand(*shape) * 0.8 + 0.1


def operators():
    r = torch.randn
    target = torch.tensor([1, 0, 4, 2])
    ignoring = torch.tensor([1, -100, 4, 2])
    c = {}
    c["linear"] = (F.linear, [r(2, 3, 4), r(5, 4), r(5)])
    c["matmul_broadcast"] = (torch.matmul, [r(2, 1, 3, 4), r(3, 4, 2)])
    c["matmul_vector"] = (torch.matmul, [r(2, 3, 4), r(4)])
    c["einsum"] = (lambda a, b: torch.einsum("bij,bkj->bik", a, b), [r(2, 3, 4), r(2, 5, 4)])
    c["conv1d"] = (lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1, dilation=2), [r(2, 3, 9), r(4, 3, 3), r(4)])
    c["conv2d"] = (F.conv2d, [r(2, 3, 6, 5), r(4, 3, 3, 3), r(4)])
    c["conv2d_geometry"] = (
        lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        [r(2, 3, 7, 6), r(4, 3, 3, 2), r(4)])
    c["conv2d_groups"] = (lambda x, w: F.conv2d(x, w, None, padding=1, groups=2), [r(2, 4, 5, 5), r(6, 2, 3, 3)])
    c["conv2d_depthwise"] = (lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=3), [r(2, 3, 5, 5), r(3, 1, 3, 3), r(3)])
    c["conv2d_pointwise"] = (F.conv2d, [r(2, 3, 4, 4), r(5, 3, 1, 1), r(5)])
    c["conv2d_unbatched"] = (F.conv2d, [r(3, 5, 5), r(2, 3, 3, 3), r(2)])
    c["conv_transpose2d"] = (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2),
        [r(2, 4, 3, 4), r(4, 3, 3, 3), r(6)])
    c["max_pool2d"] = (lambda x: F.max_pool2d(x, 3, stride=2, padding=1), [r(2, 3, 7, 6)])
    c["max_pool2d_ceil"] = (lambda x: F.max_pool2d(x, 2, stride=2, ceil_mode=True), [r(2, 3, 7, 5)])
    c["max_pool2d_dilation"] = (lambda x: F.max_pool2d(x, 2, stride=1, dilation=2), [r(1, 2, 6, 6)])
    c["max_pool1d"] = (lambda x: F.max_pool1d(x, 3, 2, 1), [r(2, 3, 9)])
    c["avg_pool2d"] = (lambda x: F.avg_pool2d(x, 3, stride=2, padding=1), [r(2, 3, 7, 6)])
    c["avg_pool2d_ceil"] = (
        lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), [r(2, 3, 6, 7)])
    c["avg_pool1d"] = (lambda x: F.avg_pool1d(x, 3, 2, 1), [r(2, 3, 9)])
    c["adaptive_avg_pool2d"] = (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), [r(2, 3, 7, 6)])
    c["layer_norm"] = (lambda x, w, b: F.layer_norm(x, (3, 4), w, b), [r(2, 3, 4), r(3, 4), r(3, 4)])
    c["rms_norm"] = (lambda x, w: F.rms_norm(x, (4,), w, 1e-6), [r(2, 3, 4), r(4)])
    c["group_norm"] = (lambda x, w, b: F.group_norm(x, 2, w, b), [r(2, 4, 3), r(4), r(4)])
    c["batch_norm"] = (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [r(3, 4, 5), r(4), r(4)])
    c["softmax"] = (lambda x: F.softmax(x, 0), [r(3, 4)])
    c["log_softmax"] = (lambda x: F.log_softmax(x, -1), [r(3, 4)])
    c["logsumexp"] = (lambda x: torch.logsumexp(x, (0, 2)), [r(2, 3, 4)])
    for name in ("gelu", "silu", "elu", "softplus", "mish", "hardswish", "leaky_relu", "selu", "logsigmoid"):
        c[name] = (getattr(F, name), [r(3, 5) * 2])
    c["gelu_tanh"] = (lambda x: F.gelu(x, approximate="tanh"), [r(3, 5) * 2])
    c["glu"] = (lambda x: F.glu(x, 1), [r(3, 4)])
    c["prelu"] = (F.prelu, [r(2, 3, 4), r(3)])
    c["cross_entropy"] = (lambda x: F.cross_entropy(x, target), [r(4, 5)])
    c["cross_entropy_weight"] = (
        lambda x, w: F.cross_entropy(x, target, w.detach(), label_smoothing=0.2), [r(4, 5), rand(5)])
    c["cross_entropy_ignore"] = (lambda x: F.cross_entropy(x, ignoring, label_smoothing=0.1), [r(4, 5)])
    c["cross_entropy_none"] = (lambda x: F.cross_entropy(x, ignoring, reduction="none"), [r(4, 5)])
    c["cross_entropy_dense"] = (
        lambda x, t: F.cross_entropy(x, t.detach(), label_smoothing=0.1), [r(4, 5), F.softmax(r(4, 5), 1)])
    c["cross_entropy_2d"] = (F.cross_entropy, [r(2, 5, 3, 2), torch.randint(0, 5, (2, 3, 2))])
    c["nll_loss"] = (lambda x: F.nll_loss(x, ignoring, reduction="sum"), [r(4, 5)])
    c["mse_loss"] = (F.mse_loss, [r(3, 4), r(3, 4)])
    c["l1_loss"] = (F.l1_loss, [r(3, 4), r(3, 4)])
    c["smooth_l1_loss"] = (lambda x, y: F.smooth_l1_loss(x, y, beta=0.5), [r(3, 4), r(3, 4)])
    c["huber_loss"] = (lambda x, y: F.huber_loss(x, y, delta=0.7), [r(3, 4), r(3, 4)])
    c["bce"] = (lambda x, y: F.binary_cross_entropy(x, y.detach()), [rand(3, 4), rand(3, 4)])
    c["bce_logits"] = (
        lambda x, y, p: F.binary_cross_entropy_with_logits(x, y.detach(), pos_weight=p.detach()),
        [r(3, 4), rand(3, 4), rand(4)])
    c["kl_div"] = (
        lambda x, y: F.kl_div(x, y.detach(), reduction="batchmean", log_target=True),
        [F.log_softmax(r(3, 4), 1), F.log_softmax(r(3, 4), 1)])
    c["attention"] = (F.scaled_dot_product_attention, [r(2, 2, 3, 4), r(2, 2, 5, 4), r(2, 2, 5, 4)])
    c["attention_causal"] = (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), [r(2, 4, 4), r(2, 4, 4), r(2, 4, 3)])
    c["attention_mask"] = (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m.bool(), scale=0.3),
        [r(2, 2, 3, 4), r(2, 2, 5, 4), r(2, 2, 5, 4), torch.tensor([[1, 0, 1, 1, 0]] * 3)])
    c["embedding"] = (lambda i, w: F.embedding(i, w, padding_idx=2), [torch.tensor([[0, 2, 1], [3, 3, 2]]), r(4, 3)])
    c["gather"] = (lambda x, i: torch.gather(x, 1, i), [r(2, 4), torch.tensor([[0, 0, 3], [1, 2, 1]])])
    c["scatter_add"] = (
        lambda x, i, s: torch.scatter_add(x, 1, i, s), [r(2, 4), torch.tensor([[0, 0, 3], [1, 2, 1]]), r(2, 3)])
    c["cumsum"] = (lambda x: torch.cumsum(x, 1), [r(2, 4)])
    c["cumprod"] = (lambda x: torch.cumprod(x, 1), [r(2, 4)])
    c["topk"] = (lambda x: torch.topk(x, 2, 0)[0], [r(4, 3)])
    c["var"] = (lambda x: torch.var(x, (0, 2)), [r(2, 3, 4)])
    c["norm"] = (lambda x: torch.linalg.vector_norm(x, 3, 1), [r(2, 3, 4)])
    c["amax_ties"] = (lambda x: torch.amax(x, 1), [torch.tensor([[1.0, 2.0, 2.0], [3.0, 1.0, 0.0]])])
    c["prod"] = (torch.prod, [r(2, 3)])
    c["pad"] = (lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), [r(2, 3)])
    c["repeat_interleave"] = (lambda x: torch.repeat_interleave(x, 2, 1), [r(2, 3)])
    return c


def layers():
    r = torch.randn

    def run(module, *inputs):
        return module(*inputs)

    c = {}

    def add(name, module, *inputs, call=run):
        c[name] = (module, inputs, call)

    add("linear", nn.Linear(4, 3), r(2, 5, 4))
    add("bilinear", nn.Bilinear(3, 4, 2), r(5, 3), r(5, 4))
    add("conv1d", nn.Conv1d(3, 4, 3, stride=2, padding=1), r(2, 3, 9))
    add("conv2d", nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), r(2, 4, 6, 5))
    add("conv2d_same", nn.Conv2d(2, 3, (3, 4), padding="same", bias=False), r(2, 2, 5, 5))
    add("conv_transpose2d", nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), r(2, 4, 3, 3))
    add("max_pool1d", nn.MaxPool1d(2), r(2, 3, 6))
    add("max_pool2d", nn.MaxPool2d(3, 2, 1), r(2, 3, 6, 6))
    add("avg_pool2d", nn.AvgPool2d(2, padding=1, count_include_pad=False), r(2, 3, 6, 6))
    add("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d((2, 3)), r(2, 3, 5, 5))
    add("prelu", nn.PReLU(3), r(2, 3, 4))
    add("batch_norm1d", nn.BatchNorm1d(4), r(3, 4, 5))
    add("batch_norm2d", nn.BatchNorm2d(3, momentum=None), r(2, 3, 4, 4), call=lambda m, x: (m(x * 2), m(x)))
    add("batch_norm_eval", nn.BatchNorm1d(4), r(3, 4), call=lambda m, x: m.eval()(x))
    add("layer_norm", nn.LayerNorm((3, 4)), r(2, 3, 4))
    add("rms_norm", nn.RMSNorm(4, eps=1e-6), r(2, 3, 4))
    add("group_norm", nn.GroupNorm(2, 4), r(2, 4, 3, 3))
    add("embedding", nn.Embedding(5, 3, padding_idx=-1), torch.tensor([[0, 4, 1], [2, 2, 4]]))
    add("attention", nn.MultiheadAttention(6, 2), r(4, 3, 6), call=lambda m, x: m(x, x, x))
    add("attention_cross", nn.MultiheadAttention(6, 2, kdim=4, vdim=5, batch_first=True, bias=False),
        r(2, 3, 6), r(2, 4, 4), r(2, 4, 5))
    padding = torch.tensor([[False, False, True], [False, False, False]])
    later = torch.ones(3, 3, dtype=torch.bool).triu(1)
    add("attention_masks", nn.MultiheadAttention(6, 3, batch_first=True), r(2, 3, 6),
        call=lambda m, x: m(x, x, x, key_padding_mask=padding, attn_mask=later, average_attn_weights=False))
    add("attention_fast", nn.MultiheadAttention(6, 3, batch_first=True), r(2, 3, 6), r(2, 4, 6),
        call=lambda m, q, k: m(q, k, k, need_weights=False))
    add("rnn", nn.RNN(3, 4), r(5, 2, 3))
    add("rnn_relu", nn.RNN(3, 4, nonlinearity="relu", bidirectional=True, batch_first=True), r(2, 5, 3), r(2, 2, 4))
    add("gru", nn.GRU(3, 4, num_layers=2, bidirectional=True), r(5, 2, 3))
    add("gru_unbatched", nn.GRU(3, 4, bias=False), r(5, 3), r(1, 4))
    add("lstm", nn.LSTM(3, 4), r(5, 2, 3))
    add("lstm_deep", nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True), r(2, 5, 3), r(4, 2, 4), r(4, 2, 4),
        call=lambda m, x, h, k: m(x, (h, k)))
    add("sequential", nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 3), nn.GELU())), r(2, 4))
    return c


def optimizers():
    o = optim
    return {
        "sgd": lambda p: o.SGD(p, lr=0.1),
        "sgd_momentum": lambda p: o.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.05),
        "sgd_nesterov": lambda p: o.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        "sgd_maximize": lambda p: o.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05, maximize=True),
        "sgd_groups": lambda p: o.SGD([{"params": p[:1]}, {"params": p[1:], "lr": 0.02, "momentum": 0.5}], lr=0.1),
        "adam": lambda p: o.Adam(p, lr=0.05),
        "adam_options": lambda p: o.Adam(p, lr=0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1, amsgrad=True),
        "adam_maximize": lambda p: o.Adam(p, lr=0.05, weight_decay=0.1, maximize=True),
        "adamw": lambda p: o.AdamW(p, lr=0.05),
        "adamw_options": lambda p: o.AdamW(p, lr=0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3, amsgrad=True,
                                           maximize=True),
        "adagrad": lambda p: o.Adagrad(p),
        "adagrad_options": lambda p: o.Adagrad(p, lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.2,
                                               eps=1e-4, maximize=True),
        "rmsprop": lambda p: o.RMSprop(p),
        "rmsprop_momentum": lambda p: o.RMSprop(p, lr=0.02, alpha=0.9, momentum=0.8, weight_decay=0.1),
        "rmsprop_centered": lambda p: o.RMSprop(p, lr=0.02, centered=True, momentum=0.5, eps=1e-4, maximize=True),
    }


def plateau_metric(epoch):
    return max(1.0 - 0.2 * epoch, 0.3) + (0.05 if epoch % 7 == 3 else 0)


def sequence(o):
    warm = schedule.LinearLR(o, start_factor=0.1, total_iters=4)
    cosine = schedule.CosineAnnealingLR(o, T_max=12, eta_min=0.001)
    restarts = schedule.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2)
    return schedule.SequentialLR(o, [warm, cosine, restarts], [5, 18])


def schedules():
    s = schedule
    return {
        "step": lambda o: s.StepLR(o, step_size=7, gamma=0.3),
        "multi_step": lambda o: s.MultiStepLR(o, milestones=[3, 8, 8, 20], gamma=0.5),
        "exponential": lambda o: s.ExponentialLR(o, gamma=0.9),
        "constant": lambda o: s.ConstantLR(o, factor=0.25, total_iters=6),
        "linear": lambda o: s.LinearLR(o, start_factor=0.2, end_factor=0.8, total_iters=9),
        "polynomial": lambda o: s.PolynomialLR(o, total_iters=20, power=1.7),
        "cosine": lambda o: s.CosineAnnealingLR(o, T_max=8, eta_min=0.004),
        "cosine_restarts": lambda o: s.CosineAnnealingWarmRestarts(o, T_0=4, T_mult=2, eta_min=0.002),
        "lambda": lambda o: s.LambdaLR(o, [lambda e: 0.95 ** e, lambda e: 1 / (1 + e)]),
        "one_cycle": lambda o: s.OneCycleLR(o, max_lr=[0.5, 0.2], total_steps=32),
        "one_cycle_linear": lambda o: s.OneCycleLR(o, max_lr=0.4, epochs=4, steps_per_epoch=8, anneal_strategy="linear",
                                                   three_phase=True, pct_start=0.25, div_factor=10),
        "plateau": lambda o: s.ReduceLROnPlateau(o, factor=0.5, patience=3, cooldown=2, min_lr=[0.01, 0.001]),
        "sequence": sequence,
    }


class Block(nn.Module):
    """Two positions' worth of a transformer: embedding, attention, feed-forward, pre-norm."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        h = self.embed(x.long())
        n = self.norm1(h)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        h = h + self.attention(n, n, n, attn_mask=later, need_weights=False)[0]
        return self.head((h + self.feed(self.norm2(h))).mean(1))


def trainings():
    mlp = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    cnn = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                        nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    labels = torch.randint(0, 3, (8,))
    return {
        "mlp": (mlp, torch.randn(8, 6), labels),
        "cnn": (cnn, torch.randn(8, 1, 8, 8), labels),
        "transformer": (Block(), torch.randint(0, 7, (8, 5)).float(), labels),
    }
