# SPDX-License-Identifier: Apache-2.0
"""What generate.py runs; tests/unit/golden_*_test.cpp have the same cases by the same names."""
import torch
from torch import nn, optim
from torch.optim import lr_scheduler as schedule


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


def plateau_metric(epoch, mode):
    falling = max(1.0 - 0.2 * epoch, 0.3) + (0.05 if epoch % 7 == 3 else 0)
    return falling if mode == "min" else 1.5 - falling


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
        "one_cycle_flat_momentum": lambda o: s.OneCycleLR(o, max_lr=0.5, total_steps=40, cycle_momentum=False),
        "one_cycle_adam": lambda o: s.OneCycleLR(o, max_lr=[0.5, 0.2], total_steps=32),
        "one_cycle_adam_linear": lambda o: s.OneCycleLR(o, max_lr=0.4, total_steps=33, anneal_strategy="linear",
                                                        base_momentum=[0.8, 0.7], max_momentum=0.9, final_div_factor=50),
        "one_cycle_adam_three_phase": lambda o: s.OneCycleLR(o, max_lr=0.4, total_steps=31, three_phase=True, pct_start=0.4),
        "plateau": lambda o: s.ReduceLROnPlateau(o, factor=0.5, patience=3, cooldown=2, min_lr=[0.01, 0.001]),
        "plateau_abs": lambda o: s.ReduceLROnPlateau(o, factor=0.3, patience=1, threshold=0.21, threshold_mode="abs"),
        "plateau_eps": lambda o: s.ReduceLROnPlateau(o, factor=0.9, patience=2, eps=0.0035, threshold=0),
        "plateau_max": lambda o: s.ReduceLROnPlateau(o, mode="max", factor=0.7, patience=0, threshold=0.3, cooldown=1),
        "plateau_max_abs": lambda o: s.ReduceLROnPlateau(o, mode="max", factor=0.2, patience=2, threshold=0.1,
                                                         threshold_mode="abs", cooldown=3, min_lr=0.002),
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
