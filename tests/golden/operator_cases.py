# SPDX-License-Identifier: Apache-2.0
"""Operators of networks, by the name of the op and what is special about the case: "op/what". A case is a function and its
inputs; it may give several results. tests/unit/golden_operators_test.cpp has the same cases."""
import math

import torch
import torch.nn.functional as F
from torch import randn as r

nan, inf = math.nan, math.inf
aten = torch.ops.aten


def rand(*shape):
    return torch.rand(*shape) * 0.8 + 0.1


def t(*values):
    return torch.tensor(values)


def linear_algebra():
    c = {}
    c["linear"] = (F.linear, [r(2, 3, 4), r(5, 4), r(5)])
    c["linear/no_bias"] = (F.linear, [r(3, 4), r(5, 4)])
    c["matmul"] = (torch.matmul, [r(3, 4), r(4, 2)])
    c["matmul/broadcast"] = (torch.matmul, [r(2, 1, 3, 4), r(3, 4, 2)])
    c["matmul/vector"] = (torch.matmul, [r(2, 3, 4), r(4)])
    c["matmul/vectors"] = (torch.matmul, [r(4), r(4)])
    c["matmul/vector_first"] = (torch.matmul, [r(3), r(2, 3, 4)])
    c["mm"] = (torch.mm, [r(2, 3), r(3, 4)])
    c["bmm"] = (torch.bmm, [r(2, 2, 3), r(2, 3, 4)])
    c["addmm"] = (lambda x, a, b: torch.addmm(x, a, b, beta=0.5, alpha=2), [r(4), r(2, 3), r(3, 4)])
    c["dot"] = (torch.dot, [r(5), r(5)])
    c["outer"] = (torch.outer, [r(3), r(4)])
    c["einsum"] = (lambda a, b: torch.einsum("bij,bkj->bik", a, b), [r(2, 3, 4), r(2, 5, 4)])
    c["einsum/ellipsis"] = (lambda a, b: torch.einsum("...i,ij->...j", a, b), [r(2, 2, 3), r(3, 2)])
    c["einsum/one"] = (lambda a: torch.einsum("ij->j", a), [r(2, 3)])
    sdpa = F.scaled_dot_product_attention
    c["scaled_dot_product_attention"] = (sdpa, [r(2, 2, 3, 4), r(2, 2, 5, 4), r(2, 2, 5, 4)])
    c["scaled_dot_product_attention/causal"] = (
        lambda q, k, v: sdpa(q, k, v, is_causal=True), [r(2, 4, 4), r(2, 4, 4), r(2, 4, 3)])
    c["scaled_dot_product_attention/causal_rectangle"] = (
        lambda q, k, v: sdpa(q, k, v, is_causal=True), [r(2, 3, 4), r(2, 5, 4), r(2, 5, 4)])
    c["scaled_dot_product_attention/mask"] = (
        lambda q, k, v, m: sdpa(q, k, v, attn_mask=m, scale=0.3),
        [r(2, 2, 3, 4), r(2, 2, 5, 4), r(2, 2, 5, 4), torch.tensor([[1, 0, 1, 1, 0]] * 3).bool()])
    c["scaled_dot_product_attention/added"] = (
        lambda q, k, v, m: sdpa(q, k, v, attn_mask=m.detach()), [r(2, 3, 4), r(2, 5, 4), r(2, 5, 4), r(3, 5)])
    c["scaled_dot_product_attention/blind_row"] = (
        lambda q, k, v, m: sdpa(q, k, v, attn_mask=m),
        [r(2, 3, 4), r(2, 4, 4), r(2, 4, 4), t([1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0]).bool()])
    return c


def convolutions():
    c = {}
    c["conv1d"] = (lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1, dilation=2), [r(2, 3, 9), r(4, 3, 3), r(4)])
    c["conv2d"] = (F.conv2d, [r(2, 3, 6, 5), r(4, 3, 3, 3), r(4)])
    c["conv2d/geometry"] = (
        lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        [r(2, 3, 7, 6), r(4, 3, 3, 2), r(4)])
    c["conv2d/groups"] = (lambda x, w: F.conv2d(x, w, None, padding=1, groups=2), [r(2, 4, 5, 5), r(6, 2, 3, 3)])
    c["conv2d/depthwise"] = (lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=3), [r(2, 3, 5, 5), r(3, 1, 3, 3), r(3)])
    c["conv2d/pointwise"] = (F.conv2d, [r(2, 3, 4, 4), r(5, 3, 1, 1), r(5)])
    c["conv2d/unbatched"] = (F.conv2d, [r(3, 5, 5), r(2, 3, 3, 3), r(2)])
    c["conv2d_grad_input"] = (
        lambda g, w: torch.nn.grad.conv2d_input((2, 3, 6, 5), w, g, stride=2, padding=1), [r(2, 4, 3, 3), r(4, 3, 3, 3)])
    c["conv2d_grad_weight"] = (
        lambda g, x: torch.nn.grad.conv2d_weight(x, (4, 3, 3, 3), g, stride=2, padding=1), [r(2, 4, 3, 3), r(2, 3, 6, 5)])
    c["conv_transpose2d"] = (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2),
        [r(2, 4, 3, 4), r(4, 3, 3, 3), r(6)])
    c["conv_transpose2d/dilation"] = (
        lambda x, w: F.conv_transpose2d(x, w, None, stride=(2, 1), padding=(1, 0), dilation=(2, 1)),
        [r(1, 2, 3, 4), r(2, 3, 2, 3)])
    c["max_pool2d"] = (lambda x: F.max_pool2d(x, 3, stride=2, padding=1), [r(2, 3, 7, 6)])
    c["max_pool2d/ceil"] = (lambda x: F.max_pool2d(x, 2, stride=2, ceil_mode=True), [r(2, 3, 7, 5)])
    c["max_pool2d/ceil_padding"] = (
        lambda x: F.max_pool2d(x, (3, 2), stride=(2, 3), padding=(1, 0), ceil_mode=True), [r(1, 2, 6, 6)])
    c["max_pool2d/dilation"] = (lambda x: F.max_pool2d(x, 2, stride=1, dilation=2), [r(1, 2, 6, 6)])
    c["max_pool2d/unbatched"] = (lambda x: F.max_pool2d(x, 2), [r(3, 4, 6)])
    c["max_pool2d_with_indices"] = (
        lambda x: F.max_pool2d(x, 2, stride=1, return_indices=True),
        [t([0.0, 1, 1, nan], [2, 1, 1, 0], [-inf, -inf, 3, 3], [-inf, -inf, 3, 3])[None, None]])
    c["max_pool1d"] = (lambda x: F.max_pool1d(x, 3, 2, 1), [r(2, 3, 9)])
    c["avg_pool2d"] = (lambda x: F.avg_pool2d(x, 3, stride=2, padding=1), [r(2, 3, 7, 6)])
    c["avg_pool2d/ceil"] = (
        lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), [r(2, 3, 6, 7)])
    c["avg_pool2d/ceil_counted"] = (
        lambda x: F.avg_pool2d(x, (3, 2), stride=(2, 3), padding=(1, 0), ceil_mode=True), [r(1, 2, 6, 6)])
    c["avg_pool2d/uncounted"] = (
        lambda x: F.avg_pool2d(x, (2, 3), stride=1, padding=(0, 1), count_include_pad=False), [r(1, 2, 4, 5)])
    c["avg_pool2d_grad"] = (
        lambda g: aten.avg_pool2d_backward(g, torch.zeros(1, 2, 5, 6).double(), [3, 2], [2, 2], [1, 0], False, True, None),
        [r(1, 2, 3, 3)])
    c["avg_pool1d"] = (lambda x: F.avg_pool1d(x, 3, 2, 1), [r(2, 3, 9)])
    c["adaptive_avg_pool2d"] = (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), [r(2, 3, 7, 6)])
    c["adaptive_avg_pool2d/larger"] = (lambda x: F.adaptive_avg_pool2d(x, (5, 1)), [r(1, 2, 3, 4)])
    return c


def normalisations():
    c = {}
    c["layer_norm"] = (lambda x, w, b: F.layer_norm(x, (3, 4), w, b), [r(2, 3, 4), r(3, 4), r(3, 4)])
    c["layer_norm/plain"] = (lambda x: F.layer_norm(x, (4,), eps=0.1), [r(2, 3, 4)])
    c["rms_norm"] = (lambda x, w: F.rms_norm(x, (4,), w, 1e-6), [r(2, 3, 4), r(4)])
    c["group_norm"] = (lambda x, w, b: F.group_norm(x, 2, w, b), [r(2, 4, 3), r(4), r(4)])
    c["group_norm/plain"] = (lambda x: F.group_norm(x, 4, eps=0.01), [r(2, 4, 3)])
    c["batch_norm"] = (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [r(3, 4, 5), r(4), r(4)])
    c["batch_norm/evaluation"] = (
        lambda x, m, v, w, b: F.batch_norm(x, m.detach(), v.detach(), w, b), [r(3, 2, 4), r(2), rand(2), r(2), r(2)])
    c["dropout/all"] = (lambda x: F.dropout(x, 1.0), [r(2, 3)])
    c["dropout/evaluation"] = (lambda x: F.dropout(x, 0.5, training=False) * 1.0, [r(2, 3)])
    c["softmax"] = (lambda x: F.softmax(x, 0), [r(3, 4)])
    c["softmax/infinite"] = (lambda x: F.softmax(x, 1), [t([0.0, -inf, 1, 2], [-inf] * 4, [nan, 0, 1, 2], [inf, 0, 1, 2])])
    c["softmax/large"] = (lambda x: F.softmax(x, 1), [t([1000.0, 999, -1000], [-1e30, -1e30, -1e30])])
    c["log_softmax"] = (lambda x: F.log_softmax(x, -1), [r(3, 4)])
    c["log_softmax/infinite"] = (lambda x: F.log_softmax(x, 1), [t([0.0, -inf, 1], [1000, 999, -1000], [nan, 0, 1])])
    c["softmin"] = (lambda x: F.softmin(x, 1), [r(3, 4)])
    c["softmax_grad"] = (lambda g, y: aten._softmax_backward_data(g, y, 1, torch.float64), [r(3, 4), rand(3, 4)])
    c["log_softmax_grad"] = (lambda g, y: aten._log_softmax_backward_data(g, y, 0, torch.float64), [r(3, 4), r(3, 4)])
    c["logsumexp"] = (lambda x: torch.logsumexp(x, (0, 2)), [r(2, 3, 4)])
    c["logsumexp/keepdim"] = (lambda x: torch.logsumexp(x, 1, True), [r(2, 3)])
    c["logsumexp/infinite"] = (
        lambda x: torch.logsumexp(x, 1), [t([0.0, -inf, 1], [-inf] * 3, [inf, 0, 1], [100, 99, -100], [nan, 0, 1])])
    c["glu"] = (lambda x: F.glu(x, 1), [r(3, 4)])
    c["prelu"] = (F.prelu, [r(2, 3, 4), r(3)])
    c["prelu/one"] = (F.prelu, [t(-1.0, 0.0, 2.0, -0.0, nan), r(1)])
    c["lerp"] = (torch.lerp, [r(3, 4), r(3, 4), rand(4)])
    c["lerp/number"] = (lambda a, b: torch.lerp(a, b, 0.7), [r(3, 4), r(3, 4)])
    return c


def losses():
    target, ignoring = t(1, 0, 4, 2), t(1, -100, 4, 2)
    c = {}
    c["cross_entropy"] = (lambda x: F.cross_entropy(x, target), [r(4, 5)])
    c["cross_entropy/weight"] = (
        lambda x, w: F.cross_entropy(x, target, w.detach(), label_smoothing=0.2), [r(4, 5), rand(5)])
    c["cross_entropy/weight_sum"] = (
        lambda x, w: F.cross_entropy(x, ignoring, w.detach(), reduction="sum", label_smoothing=0.2), [r(4, 5), rand(5)])
    c["cross_entropy/ignore"] = (lambda x: F.cross_entropy(x, ignoring, label_smoothing=0.1), [r(4, 5)])
    c["cross_entropy/ignore_class"] = (lambda x: F.cross_entropy(x, target, ignore_index=4), [r(4, 5)])
    c["cross_entropy/none"] = (lambda x: F.cross_entropy(x, ignoring, reduction="none"), [r(4, 5)])
    c["cross_entropy/dense"] = (
        lambda x, y: F.cross_entropy(x, y.detach(), label_smoothing=0.1), [r(4, 5), F.softmax(r(4, 5), 1)])
    c["cross_entropy/dense_weight"] = (
        lambda x, y, w: F.cross_entropy(x, y.detach(), w.detach(), reduction="none"),
        [r(4, 5), F.softmax(r(4, 5), 1), rand(5)])
    c["cross_entropy/2d"] = (F.cross_entropy, [r(2, 5, 3, 2), torch.randint(0, 5, (2, 3, 2))])
    c["cross_entropy/unbatched"] = (lambda x: F.cross_entropy(x, torch.tensor(3)), [r(5)])
    c["cross_entropy/infinite"] = (
        lambda x: F.cross_entropy(x, t(1, 0), reduction="none"), [t([0.0, -inf, 1], [0.5, -inf, 1])])
    c["nll_loss"] = (lambda x: F.nll_loss(x, ignoring, reduction="sum"), [r(4, 5)])
    c["nll_loss/weight"] = (lambda x, w: F.nll_loss(x, ignoring, w.detach()), [r(4, 5), rand(5)])
    c["nll_loss/none"] = (lambda x, w: F.nll_loss(x, target, w.detach(), reduction="none"), [r(4, 5), rand(5)])
    for name in ("mse_loss", "l1_loss"):
        for reduction in ("mean", "sum", "none"):
            c[name + ("" if reduction == "mean" else "/" + reduction)] = (
                lambda x, y, f=getattr(F, name), how=reduction: f(x, y, reduction=how), [r(3, 4), r(3, 4)])
    c["smooth_l1_loss"] = (lambda x, y: F.smooth_l1_loss(x, y, beta=0.5), [r(3, 4), r(3, 4)])
    c["smooth_l1_loss/corner"] = (lambda x, y: F.smooth_l1_loss(x, y, beta=0.0, reduction="sum"), [r(3, 4), r(3, 4)])
    c["huber_loss"] = (lambda x, y: F.huber_loss(x, y, delta=0.7), [r(3, 4), r(3, 4)])
    c["huber_loss/none"] = (lambda x, y: F.huber_loss(x, y, delta=0.5, reduction="none"), [t(0.0, 0.5, -0.5, 3), t(0.0, 0, 0, 0)])
    c["binary_cross_entropy"] = (lambda x, y: F.binary_cross_entropy(x, y.detach()), [rand(3, 4), rand(3, 4)])
    c["binary_cross_entropy/weight"] = (
        lambda x, y, w: F.binary_cross_entropy(x, y.detach(), w.detach(), reduction="sum"), [rand(3, 4), rand(3, 4), rand(4)])
    c["binary_cross_entropy/ends"] = (
        lambda x, y: F.binary_cross_entropy(x, y.detach(), reduction="none"), [t(0.0, 1, 0, 1), t(0.0, 1, 1, 0)])
    c["binary_cross_entropy_with_logits"] = (
        lambda x, y, p: F.binary_cross_entropy_with_logits(x, y.detach(), pos_weight=p.detach()),
        [r(3, 4), rand(3, 4), rand(4)])
    c["binary_cross_entropy_with_logits/weight"] = (
        lambda x, y, w: F.binary_cross_entropy_with_logits(x, y.detach(), w.detach(), reduction="none"),
        [t(1000.0, -1000, 0, -2), rand(4), rand(4)])
    c["kl_div"] = (
        lambda x, y: F.kl_div(x, y.detach(), reduction="batchmean", log_target=True),
        [F.log_softmax(r(3, 4), 1), F.log_softmax(r(3, 4), 1)])
    c["kl_div/zero"] = (
        lambda x, y: F.kl_div(x, y.detach(), reduction="none"), [F.log_softmax(r(2, 3), 1), t([0.0, 0.25, 0.75], [1, 0, 0])])
    return c


def several_in_one():
    c = {}
    c["add_layer_norm"] = (
        lambda x, y, w, b: (x + y, F.layer_norm(x + y, (3, 4), w, b)), [r(2, 3, 4), r(2, 3, 4), r(3, 4), r(3, 4)])
    c["add_rms_norm"] = (
        lambda x, y, w: (x + y, F.rms_norm(x + y, (4,), w, 0.1)), [r(2, 3, 4), r(2, 3, 4), r(4)])
    c["gelu_mlp"] = (
        lambda x, v, a, w, b: F.linear(F.gelu(F.linear(x, v, a), approximate="tanh"), w, b),
        [r(2, 3, 4), r(5, 4), r(5), r(2, 5), r(2)])
    c["batch_norm_relu"] = (
        lambda x, y, w, b: F.relu(F.batch_norm(x, None, None, w, b, True) + y), [r(3, 4, 5), r(3, 4, 5), r(4), r(4)])
    c["batch_norm_relu/evaluation"] = (
        lambda x, m, v, w, b: F.relu(F.batch_norm(x, m.detach(), v.detach(), w, b)),
        [r(3, 2, 4), r(2), rand(2), r(2), r(2)])
    return c


def operators():
    return linear_algebra() | convolutions() | normalisations() | losses() | several_in_one()
