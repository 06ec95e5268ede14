# SPDX-License-Identifier: Apache-2.0
"""Views, positions, reductions and order, by the name of the op and what is special about the case: "op/what". A case is a
function and its inputs; it may give several results. tests/unit/golden_arrays_test.cpp has the same cases."""
import torch
import torch.nn.functional as F
from torch import randn as r

from operator_cases import inf, nan, rand, t


def views():
    c = {}
    c["reshape"] = (lambda x: x.reshape(6, -1), [r(2, 3, 4)])
    c["reshape/copy"] = (lambda x: x.transpose(0, 2).reshape(6, 4), [r(2, 3, 4)])
    c["flatten"] = (lambda x: x.flatten(1), [r(2, 3, 2)])
    c["unflatten"] = (lambda x: x.unflatten(1, (2, -1)), [r(2, 6)])
    c["transpose"] = (lambda x: x.transpose(0, -1), [r(2, 3, 4)])
    c["permute"] = (lambda x: x.permute(2, 0, -2), [r(2, 3, 4)])
    c["movedim"] = (lambda x: x.movedim(0, -1), [r(2, 3, 4)])
    c["squeeze"] = (lambda x: (x.squeeze(), x.squeeze(-1), x.squeeze(1)), [r(1, 3, 1)])
    c["unsqueeze"] = (lambda x: (x.unsqueeze(1), x.unsqueeze(-1)), [r(2, 3)])
    c["expand"] = (lambda x: x.expand(2, -1, 4), [r(3, 1)])
    c["slice"] = (lambda x: (x[1:4], x[:, ::2], x[-3:-1, 1:100], x[4:2]), [r(5, 3)])
    c["narrow"] = (lambda x: x.narrow(0, 1, 3), [r(5, 3)])
    c["select"] = (lambda x: x.select(-1, -2), [r(4, 3)])
    c["diagonal"] = (lambda x: x.diagonal(), [r(3, 4)])
    c["diagonal/batch"] = (lambda x: x.diagonal(-1, 0, 2), [r(4, 2, 3)])
    c["split"] = (lambda x: x.split(2), [r(5, 2)])
    c["split/sizes"] = (lambda x: x.split([1, 4], 1), [r(2, 5)])
    c["chunk"] = (lambda x: x.chunk(3), [r(5, 2)])
    c["chunk/fewer"] = (lambda x: x.chunk(4, 1), [r(2, 5)])
    c["unbind"] = (lambda x: x.unbind(1), [r(3, 2)])
    c["contiguous"] = (lambda x: x.t().contiguous(), [r(2, 3)])
    c["clone"] = (lambda x: x.clone(), [r(2, 3)])
    c["cat"] = (lambda a, b, d: torch.cat([a, b, d], -1), [r(2, 1), r(2, 3), r(2, 0)])
    c["concat"] = (lambda a, b: torch.concat([a, b]), [r(2), r(3)])
    c["stack"] = (lambda a, b: torch.stack([a, b], 1), [r(2, 3), r(2, 3)])
    c["repeat"] = (lambda x: x.repeat(2, 1, 2), [r(2, 3)])
    c["repeat_interleave"] = (lambda x: torch.repeat_interleave(x, 2, 1), [r(2, 3)])
    c["flip"] = (lambda x: x.flip(-1, 0), [r(2, 3)])
    c["roll"] = (lambda x: (x.roll(2, 1), x.roll(-7, 1)), [r(2, 5)])
    c["triu"] = (lambda x: (x.triu(), x.triu(1), x.triu(-1)), [r(2, 3, 4)])
    c["tril"] = (lambda x: (x.tril(), x.tril(1), x.tril(-1)), [r(2, 4, 3)])
    c["pad"] = (lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), [r(2, 3)])
    c["pad/crop"] = (lambda x: F.pad(x, (-1, 2, 0, -1)), [r(3, 4)])
    c["sum_to"] = (lambda x: x.sum_to_size(3, 1), [r(2, 3, 4)])
    return c


def positions():
    c = {}
    pairs = t([0, 0, 3], [1, 2, 1])
    c["index_select"] = (lambda x, i: x.index_select(0, i), [r(4, 3), t(3, 0, 3, 1, 3)])
    c["index_select/last"] = (lambda x, i: x.index_select(-1, i), [r(2, 4), t(2, 2)])
    c["index_add"] = (lambda x, i, s: x.index_add(0, i, s), [r(4, 3), t(3, 0, 3), r(3, 3)])
    c["gather"] = (lambda x, i: x.gather(1, i), [r(2, 4), pairs])
    c["gather/smaller"] = (lambda x, i: x.gather(0, i), [r(4, 3), t([3, 0])])
    c["scatter"] = (lambda x, i, s: x.scatter(1, i, s), [r(3, 4), t([0, 3, 1], [1, 2, 3]), r(2, 3)])
    c["scatter_add"] = (lambda x, i, s: x.scatter_add(1, i, s), [r(2, 4), pairs, r(2, 3)])
    c["scatter_add/smaller"] = (lambda x, i, s: x.scatter_add(0, i, s), [r(4, 3), t([3, 0], [3, 3]), r(2, 2)])
    c["take_along_dim"] = (lambda x, i: torch.take_along_dim(x, i, 1), [r(3, 4), t([3, 0])])
    c["embedding"] = (lambda i, w: F.embedding(i, w, padding_idx=2), [t([0, 2, 1], [3, 3, 2]), r(4, 3)])
    c["one_hot"] = (lambda i: F.one_hot(i, 4), [t([0, 3], [1, 1])])
    c["one_hot/largest"] = (F.one_hot, [t(0, 2, 1)])
    c["nonzero"] = (torch.nonzero, [t([0.0, 1, nan], [-0.0, -2, inf])])
    c["masked_select"] = (torch.masked_select, [r(3, 4), t(1, 0, 1, 1).bool()])
    c["masked_fill"] = (lambda x, m: x.masked_fill(m, -inf), [r(3, 4), t([1], [0], [1]).bool()])
    c["masked_fill/tensor"] = (lambda x, m, v: x.masked_fill(m, v), [r(3, 4), t(1, 0, 1, 1).bool(), t(0.75)[0]])
    c["where"] = (torch.where, [t([1], [0], [1]).bool(), r(4), r(3, 1)])
    c["where/number"] = (lambda m, x: torch.where(m, x, 2.0), [t([1, 0, 1], [0, 0, 1]).bool(), t([nan, nan, 1], [inf, 2, -inf])])

    def index(what, shape, get, *tensors):
        c["index/" + what] = (get, [r(*shape), *tensors])

    two, square = t(1, -2), t([0, 1], [1, 0])
    index("position", (3, 4), lambda x: x[1])
    index("slices", (5, 4), lambda x: x[1::2, :-1])
    index("ellipsis", (2, 3, 4), lambda x: x[..., -1])
    index("new_axis", (2, 3), lambda x: x[None, 0, None])
    index("list", (3, 4), lambda x, i: x[i], t(2, 0, -1, 2))
    index("list_in_the_middle", (2, 3, 2), lambda x, i: x[:, i], square)
    index("adjoining_lists", (2, 3, 2, 2), lambda x, i, j: x[:, i, j], two, square)
    index("separated_lists", (2, 3, 2), lambda x, i, j: x[i, :, j], two, square)
    index("position_and_list", (2, 3, 3), lambda x, i: x[0, :, i], two)
    index("list_new_axis_list", (2, 3, 2), lambda x, i, j: x[i, None, j], two, square)
    index("mask", (3, 4), lambda x, m: x[m], t(1, 0, 1).bool())
    index("mask_of_two", (2, 3, 2), lambda x, m: x[m], t([1, 0, 1], [0, 1, 0]).bool())
    index("slice_and_mask", (3, 4), lambda x, m: x[1:3, m], t(1, 0, 1, 1).bool())
    index("mask_and_list", (3, 2), lambda x, m, i: x[m, i], t(1, 0, 1).bool(), t(1, 0))
    index("nothing", (3, 4), lambda x, m: x[m], t(0, 0, 0).bool())

    def put(what, shape, values, where, *tensors, accumulate=False):
        def run(x, v, *rest):
            y = x.clone()
            if accumulate:  # as index_put, with positions that are not lists
                places = torch.arange(y.numel()).reshape(y.shape)[where(*rest)]
                return y.flatten().index_put((places,), v.expand(places.shape), accumulate=True).reshape(y.shape)
            y[where(*rest)] = v
            return y
        c["index_put/" + what] = (run, [r(*shape), r(1, *values)[0], *tensors])

    put("list", (5, 2), (3, 2), lambda i: i, t(3, 0, -1))
    put("broadcast", (5, 2), (2,), lambda i: i, t(3, 0, -1))
    put("mask", (3, 4), (), lambda m: m, t([1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0]).bool())
    put("slice_and_list", (3, 4), (2, 2), lambda i: (slice(1, None), i), t(3, 1))
    put("separated_lists", (2, 3, 2), (2, 3), lambda i, j: (i, slice(None), j), t(0, 1), t(1, 1))
    put("accumulate", (3, 2), (5, 2), lambda i: i, t(1, 0, -1, 1, -2), accumulate=True)
    put("accumulate_broadcast", (3, 2), (), lambda i, j: (i, j), t(1, 1, 2), t(0, 0, 1), accumulate=True)
    put("accumulate_slices", (3, 4), (2, 3), lambda i: (slice(0, 2), i), t(2, 0, 2), accumulate=True)
    return c


def reductions():
    c = {}
    special = t([0.0, nan, 1], [-inf, 1, 2], [inf, -inf, 0], [3, inf, 2])
    ties = t([1.0, 2, 2], [3, 1, 3], [0, -0.0, 0])
    for name in ("sum", "mean", "prod", "amax", "amin"):
        f = getattr(torch, name)
        c[name] = (f, [r(2, 3)])
        c[name + "/special"] = (lambda x, f=f: f(x, 1), [special])
        if name != "prod":
            c[name + "/dims"] = (lambda x, f=f: f(x, (0, -1), True), [r(2, 3, 4)])
    c["prod/dim"] = (lambda x: torch.prod(x, 1, True), [r(2, 3, 2)])
    c["prod/zeros"] = (lambda x: torch.prod(x, 1), [t([0.5, 0, 2], [0, 0, 3], [1, 2, 3])])
    c["sum/masks"] = (lambda m: m.sum(0), [t([1, 0], [1, 1]).bool()])
    c["sum/bytes"] = (torch.sum, [t(200, 100).to(torch.uint8)])
    c["prod/whole"] = (lambda i: torch.prod(i, 0), [t([2, -3], [4, 5]).int()])
    for name in ("amax", "amin"):
        c[name + "/ties"] = (lambda x, f=getattr(torch, name): f(x, 1), [ties])
    for name in ("max", "min"):
        f = getattr(torch, name)
        c[name] = (f, [r(3, 4)])
        c[name + "/dim"] = (lambda x, f=f: tuple(f(x, 0, True)), [r(3, 4)])
        c[name + "/ties"] = (f, [ties])
        c[name + "/ties_dim"] = (lambda x, f=f: tuple(f(x, 1)), [ties])
        c[name + "/special"] = (lambda x, f=f: tuple(f(x, 1)), [special])
        c[name + "/whole"] = (lambda i, f=f: tuple(f(i, 1)), [t([3, -1, 3], [0, 7, -7])])
        f = getattr(torch, "arg" + name)
        c["arg" + name] = (f, [r(3, 4)])
        c[f"arg{name}/dim"] = (lambda x, f=f: f(x, -1, True), [r(3, 4)])
        c[f"arg{name}/ties"] = (lambda x, f=f: (f(x), f(x, 1)), [ties])
        c[f"arg{name}/special"] = (lambda x, f=f: (f(x), f(x, 0)), [special])
        c[f"arg{name}/bytes"] = (lambda i, f=f: f(i, 1), [t([3, 9, 9], [0, 0, 255]).to(torch.uint8)])
    for name in ("var", "std"):
        f = getattr(torch, name)
        c[name] = (f, [r(3, 5)])
        c[name + "/dims"] = (lambda x, f=f: f(x, (0, 2), keepdim=True), [r(2, 3, 4)])
        c[name + "/biased"] = (lambda x, f=f: f(x, 1, correction=0), [r(3, 5)])
        c[name + "/correction"] = (lambda x, f=f: f(x, 0, correction=2), [r(4, 3)])
        c[name + "/too_few"] = (lambda x, f=f: f(x, 1), [r(3, 1)])
        c[name + "/equal"] = (lambda x, f=f: f(x, 1), [t([2.0, 2, 2], [1, 2, 3])])
        c[name + "/special"] = (lambda x, f=f: f(x, 1), [special])
    norm = torch.linalg.vector_norm
    for what, p in ("zero", 0), ("one", 1), ("two", 2), ("three", 3), ("half", 0.5), ("infinite", inf):
        c["norm/" + what] = (lambda x, p=p: norm(x, p, 1), [r(2, 3, 4)])
        c[f"norm/{what}_of_zeros"] = (lambda x, p=p: norm(x, p, 1), [t([0.0, 0, 0], [0, -2, 0])])
        c[f"norm/{what}_special"] = (lambda x, p=p: norm(x, p, 1), [special])
    c["norm/all"] = (lambda x: norm(x, 2, keepdim=True), [r(2, 3)])
    c["norm/infinite_ties"] = (lambda x: norm(x, inf), [t([1.0, -2], [2, 0])])
    c["all"] = (lambda x: (torch.all(x), torch.all(x, 1, True)), [t([0.0, nan, 1], [-inf, 1, 2])])
    c["any"] = (lambda x: (torch.any(x), torch.any(x, 1)), [t([0.0, -0.0, 0], [0, nan, 0])])
    c["all/nothing"] = (lambda x: torch.all(x, 1), [r(2, 0)])
    c["any/whole"] = (lambda i: torch.any(i, 0), [t([0, 3], [0, 0])])
    return c


def order():
    c = {}
    ties = t([1.0, 2, 1, 2, 1], [0, -0.0, 0, -1, -0.0])
    special = t([nan, 1, -inf, nan, inf], [inf, nan, 2, -inf, 0])
    for name, scan in ("cumsum", torch.cumsum), ("cumprod", torch.cumprod):
        c[name] = (lambda x, f=scan: f(x, 1), [r(2, 4)])
        c[name + "/first"] = (lambda x, f=scan: f(x, 0), [r(3, 2, 2)])
        c[name + "/special"] = (lambda x, f=scan: f(x, 1), [t([1, inf, 2, nan, 3], [inf, -inf, 1, 1, 1], [2, 3, -inf, 4, 5])])
        c[name + "/whole"] = (lambda i, f=scan: f(i, 0), [t(2, -3, 4).int()])
    c["cumprod/zeros"] = (lambda x: torch.cumprod(x, 1), [t([0.5, 0, 2, 3], [0, -1, 0, 2], [1, 2, 3, 0])])
    c["cumsum/masks"] = (lambda m: torch.cumsum(m, 0), [t(1, 0, 1).bool()])
    for what, x in ("", r(3, 5)), ("/ties", ties), ("/special", special):
        c["sort" + what] = (lambda x: tuple(torch.sort(x, stable=True)), [x])
        c[f"sort{what or '/plain'}_descending"] = (lambda x: tuple(torch.sort(x, descending=True, stable=True)), [x])
        c["argsort" + what] = (lambda x: torch.argsort(x, dim=0, descending=True, stable=True), [x])
    c["sort/first"] = (lambda x: tuple(torch.sort(x, dim=0, stable=True)), [r(4, 2)])
    c["sort/whole"] = (lambda i: tuple(torch.sort(i, stable=True, descending=True)), [t(3, -1, 3, 0, -1)])
    c["sort/masks"] = (lambda m: tuple(torch.sort(m, stable=True)), [t(1, 0, 1, 0).bool()])
    c["topk"] = (lambda x: tuple(torch.topk(x, 2, 0)), [r(4, 3)])
    c["topk/smallest"] = (lambda x: tuple(torch.topk(x, 3, largest=False)), [r(2, 5)])
    c["topk/all"] = (lambda x: tuple(torch.topk(x, 4)), [r(3, 4)])
    c["topk/special"] = (lambda x: tuple(torch.topk(x, 3)), [t([nan, 1, -inf, 2, inf], [inf, 3, 2, -inf, 0])])
    c["topk/special_smallest"] = (lambda x: tuple(torch.topk(x, 3, largest=False)), [t([nan, 1, -inf, 2, inf], [inf, nan, 2, -inf, 0])])
    return c


def in_place():
    """Not differentiated."""
    c = {}

    def add(what, f, *inputs):
        def run(x, *rest):
            with torch.no_grad():
                return f(x.clone(), *rest)
        c[what] = (run, list(inputs))

    add("add_/alpha", lambda x, y: x.add_(y, alpha=0.5), r(3, 4), r(4))
    add("sub_/alpha", lambda x, y: x.sub_(y, alpha=2), r(3, 4), r(3, 1))
    add("mul_", lambda x, y: x.mul_(y), r(3, 4), r(4))
    add("div_", lambda x, y: x.div_(y), r(3, 4), r(4))
    add("pow_", lambda x, y: x.pow_(y), rand(3, 4), r(4))
    add("lerp_", lambda x, y, w: x.lerp_(y, w), r(3, 4), r(3, 4), rand(3, 4))
    add("addcmul_", lambda x, a, b: x.addcmul_(a, b, value=0.3), r(3, 4), r(3, 1), r(4))
    add("copy_", lambda x, y: x.copy_(y), r(3, 4), t(1, 2, 3, 4))
    add("clamp_", lambda x: x.clamp_(-0.5, 0.75), t(-1.0, nan, inf, 0, 0.5))
    add("masked_fill_", lambda x, m: x.masked_fill_(m, 7), r(3, 4), t(1, 0, 1, 1).bool())
    add("index_add_", lambda x, i, s: x.index_add_(1, i, s), r(2, 4), t(3, 0, 3), r(2, 3))
    add("scatter_", lambda x, i, s: x.scatter_(1, i, s), r(2, 4), t([0, 3, 1], [1, 2, 3]), r(2, 3))
    add("scatter_add_", lambda x, i, s: x.scatter_add_(1, i, s), r(2, 4), t([0, 0, 3], [1, 2, 1]), r(2, 3))
    add("index_put_", lambda x, i, v: x.index_put_((i,), v), r(4, 2), t(3, 0), r(2, 2))
    add("index_put_/accumulate", lambda x, i, v: x.index_put_((i,), v, accumulate=True), r(4, 2), t(3, 0, 3), r(3, 2))
    return c


def arrays():
    return views() | positions() | reductions() | order() | in_place()
