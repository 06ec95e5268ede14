// SPDX-License-Identifier: Apache-2.0
// Inputs without elements and inputs without dimensions, for the ops whose other cases have none.
#include <loom/tensor/context.h>

#include "case.h"

namespace loom::sweep {

namespace {

using Call = std::function<Tensor(In)>;

Case& add_empty(Cases& c, const char* op, std::vector<Input> inputs, const Call& f) {
  return c.add(op, "empty input", std::move(inputs), f);
}
Case& add_scalar(Cases& c, const char* op, std::vector<Input> inputs, const Call& f) {
  return c.add(op, "0-dimensional input", std::move(inputs), f);
}
// The same call for both.
void add_both(Cases& c, const char* op, const Dims& empty, const Call& f) {
  add_empty(c, op, {real(empty)}, f);
  add_scalar(c, op, {real({})}, f);
}

void add_shapes(Cases& c) {
  add_empty(c, "flatten", {real({2, 0, 3})}, [](In x) { return flatten(x[0], 1); });
  add_empty(c, "unflatten", {real({0, 6})}, [](In x) { return unflatten(x[0], 1, {2, 3}); });
  add_empty(c, "transpose", {real({0, 3})}, [](In x) { return transpose(x[0], 0, 1); });
  add_scalar(c, "transpose", {real({})}, [](In x) { return transpose(x[0], 0, -1); });
  add_empty(c, "permute", {real({2, 0, 3})}, [](In x) { return permute(x[0], {2, 0, 1}); });
  add_scalar(c, "permute", {real({})}, [](In x) { return permute(x[0], {}); });
  add_empty(c, "movedim", {real({2, 0, 3})}, [](In x) { return movedim(x[0], 0, -1); });
  add_scalar(c, "movedim", {real({})}, [](In x) { return movedim(x[0], 0, -1); });
  add_both(c, "squeeze", {1, 0}, [](In x) { return squeeze(x[0], 0); });
  add_empty(c, "unsqueeze", {real({0, 3})}, [](In x) { return unsqueeze(x[0], 1); });
  add_empty(c, "expand", {real({0, 1})}, [](In x) { return expand(x[0], {2, 0, 4}); });
  add_empty(c, "slice", {real({0, 5})}, [](In x) { return slice(x[0], 1, 1, 4, 2); });
  add_empty(c, "narrow", {real({0, 5})}, [](In x) { return narrow(x[0], 1, 1, 3); });
  add_empty(c, "select", {real({0, 5})}, [](In x) { return select(x[0], 1, 2); });
  add_empty(c, "diagonal", {real({0, 3})}, [](In x) { return diagonal(x[0]); });
  add_empty(c, "split", {real({0, 5})}, [](In x) { return split(x[0], 2, 1)[2]; });
  add_empty(c, "chunk", {real({0, 5})}, [](In x) { return chunk(x[0], 2, 1)[1]; });
  add_empty(c, "unbind", {real({2, 0})}, [](In x) { return unbind(x[0], 0)[1]; });
  add_empty(c, "concat", {real({0, 3}), real({2, 3})}, [](In x) { return concat({x[0], x[1]}); });
  add_empty(c, "stack", {real({0, 3}), real({0, 3})}, [](In x) { return stack({x[0], x[1]}); });
  add_empty(c, "flip", {real({2, 0})}, [](In x) { return flip(x[0], {0, 1}); });
  add_scalar(c, "flip", {real({})}, [](In x) { return flip(x[0], {}); });
  add_empty(c, "roll", {real({2, 0})}, [](In x) { return roll(x[0], 1, 1); });
  add_empty(c, "triu", {real({0, 3})}, [](In x) { return triu(x[0]); });
  add_empty(c, "tril", {real({3, 0})}, [](In x) { return tril(x[0]); });
  add_empty(c, "pad", {real({0, 3})}, [](In x) { return pad(x[0], {1, 0, 2, 0}, 0.5); });
  add_scalar(c, "pad", {real({})}, [](In x) { return pad(x[0], {}); });
  add_both(c, "repeat", {0}, [](In x) { return repeat(x[0], {3}); });
  add_empty(c, "repeat_interleave", {real({0, 3})}, [](In x) { return repeat_interleave(x[0], 2, 1); });
  add_empty(c, "sum_to", {real({0, 3})}, [](In x) { return sum_to(x[0], {3}); });
  add_scalar(c, "sum_to", {real({})}, [](In x) { return sum_to(x[0], {}); });
}

void add_copies(Cases& c) {
  add_both(c, "contiguous", {3, 0}, [](In x) { return contiguous(x[0]); });
  add_scalar(c, "clone", {real({})}, [](In x) { return clone(x[0]); });
  const auto there_and_back = [](In x) { return x[0].to(x[0].dtype() == f64 ? f32 : f64).to(x[0].dtype()); };
  add_empty(c, "cast", {real({0, 3})}, there_and_back);
  add_scalar(c, "cast", {real({})}, there_and_back).differences(0.25, 1e-5);  // exact but for the rounding to f32
  add_both(c, "to_device", {0, 3}, [](In x) { return x[0].to(Device(Device::cpu)).clone(); });
}

void add_choices(Cases& c) {
  const auto choose = [](In x) { return where(x[0], x[1], x[2]); };
  add_empty(c, "where", {mask({0, 3}), real({0, 3}), real({3})}, choose);
  add_scalar(c, "where", {mask({}), real({}), real({})}, choose);
  const auto fill = [](In x) { return masked_fill(x[0], x[1], 7.0); };
  add_empty(c, "masked_fill", {real({0, 3}), mask({3})}, fill);
  add_scalar(c, "masked_fill", {real({}), mask({})}, fill);
  const auto between = [](In x) { return lerp(x[0], x[1], x[2]); };
  add_empty(c, "lerp", {real({0, 3}), real({0, 3}), real({3}, 0, 1)}, between);
  add_scalar(c, "lerp", {real({}), real({}), real({}, 0, 1)}, between);
  add_empty(c, "glu", {real({0, 4})}, [](In x) { return glu(x[0]); });
  const auto leak = [](In x) { return prelu(x[0], x[1]); };
  add_empty(c, "prelu", {real({0, 3}), real({3}, 0.1, 0.5)}, leak);
  add_scalar(c, "prelu", {real({}, -2, -1), real({1}, 0.1, 0.5)}, leak);
}

const char* const nan = "a mean of nothing is NaN";

void add_reductions(Cases& c) {
  add_empty(c, "var", {real({0, 3})}, [](In x) { return var(x[0]); }).no_second_order(nan);
  add_scalar(c, "var", {real({})}, [](In x) { return var(x[0], {}, 0); });
  add_empty(c, "std", {real({0, 3})}, [](In x) { return std(x[0]); }).no_second_order(nan);
  add_scalar(c, "std", {real({})}, [](In x) { return std(x[0], {}, 0); });
  add_empty(c, "max", {real({0, 3})}, [](In x) { return max(x[0], 1).first; });
  add_empty(c, "min", {real({0, 3})}, [](In x) { return min(x[0], 1, true).first; });
  add_scalar(c, "min", {real({})}, [](In x) { return min(x[0]); });
  add_empty(c, "argmax", {real({0, 3})}, [](In x) { return argmax(x[0], 1); }).constant_result();
  add_scalar(c, "argmax", {real({})}, [](In x) { return argmax(x[0], 0); }).constant_result();
  add_empty(c, "argmin", {real({0, 3})}, [](In x) { return argmin(x[0], 1); }).constant_result();
  add_scalar(c, "argmin", {real({})}, [](In x) { return argmin(x[0]); }).constant_result();
  add_scalar(c, "all", {whole({}, 0, 2)}, [](In x) { return all(x[0], {0}); }).constant_result();
  add_empty(c, "any", {whole({0, 3}, 0, 2)}, [](In x) { return any(x[0], {0}); }).constant_result();
  add_scalar(c, "any", {whole({}, 0, 2)}, [](In x) { return any(x[0]); }).constant_result();
  add_empty(c, "nonzero", {whole({0, 3}, 0, 2)}, [](In x) { return nonzero(x[0]); }).constant_result();
  add_both(c, "cumprod", {2, 0}, [](In x) { return cumprod(x[0], 0); });
  add_empty(c, "sort", {real({0, 3})}, [](In x) { return sort(x[0], 0).first; });
  add_empty(c, "argsort", {real({2, 0})}, [](In x) { return argsort(x[0]); }).constant_result();
  add_scalar(c, "argsort", {real({})}, [](In x) { return argsort(x[0]); }).constant_result();
  add_empty(c, "topk", {real({0, 3})}, [](In x) { return topk(x[0], 2, 1).first; });
  add_scalar(c, "topk", {real({})}, [](In x) { return topk(x[0], 1).first; });
}

void add_positions(Cases& c) {
  const Input none = integers({0}, 0, 1), zero = integers({1}, 0, 1), zero_dim = integers({}, 0, 1);
  add_scalar(c, "index_select", {real({}), zero}, [](In x) { return index_select(x[0], 0, x[1]); });
  const auto add_rows = [](In x) { return index_add(x[0], 0, x[1], x[2]); };
  add_empty(c, "index_add", {real({2, 3}), none, real({0, 3})}, add_rows);
  add_scalar(c, "index_add", {real({}), zero, real({})}, add_rows);
  add_empty(c, "gather", {real({0, 3}), integers({0, 2}, 0, 3)}, [](In x) { return gather(x[0], 1, x[1]); });
  for (const auto& [op, write] :
       {std::pair<const char*, Tensor (*)(const Tensor&, int, const Tensor&, const Tensor&)>("scatter", &loom::scatter),
        {"scatter_add", &loom::scatter_add}}) {
    const auto call = [f = write](In x) { return f(x[0], 0, x[1], x[2]); };
    add_empty(c, op, {real({3}), none, real({0})}, call);
    add_scalar(c, op, {real({}), zero_dim, real({})}, call);
  }
  add_empty(c, "take_along_dim", {real({0, 3}), integers({0, 2}, 0, 3)},
            [](In x) { return take_along_dim(x[0], x[1], 1); });
  add_empty(c, "embedding", {integers({0, 2}, 0, 5), real({5, 4})}, [](In x) { return embedding(x[0], x[1]); });
  add_empty(c, "one_hot", {none}, [](In x) { return one_hot(x[0], 3); }).constant_result();
  add_scalar(c, "one_hot", {zero_dim}, [](In x) { return one_hot(x[0], 3); }).constant_result();
  add_empty(c, "masked_select", {real({0, 3}), mask({3})}, [](In x) { return masked_select(x[0], x[1]); });
  add_scalar(c, "masked_select", {real({}), mask({})}, [](In x) { return masked_select(x[0], x[1]); });
  add_scalar(c, "index", {real({})}, [](In x) { return index(x[0], {new_axis, ellipsis}); });
  add_empty(c, "index_put", {real({3, 2}), none, real({0, 2})},
            [](In x) { return index_put(x[0], {Index(x[1])}, x[2]); });
}

void add_products(Cases& c) {
  add_empty(c, "mm", {real({2, 0}), real({0, 3})}, [](In x) { return mm(x[0], x[1]); });
  add_empty(c, "bmm", {real({0, 2, 3}), real({0, 3, 2})}, [](In x) { return bmm(x[0], x[1]); });
  add_empty(c, "addmm", {real({2, 3}), real({2, 0}), real({0, 3})}, [](In x) { return addmm(x[0], x[1], x[2]); });
  add_scalar(c, "addmm", {real({}), real({2, 3}), real({3, 2})}, [](In x) {
    return addmm(x[0], x[1], x[2]);
  }).sum_of(4);
  add_empty(c, "dot", {real({0}), real({0})}, [](In x) { return dot(x[0], x[1]); });
  add_empty(c, "outer", {real({0}), real({3})}, [](In x) { return outer(x[0], x[1]); });
  add_empty(c, "einsum", {real({2, 0}), real({0, 3})}, [](In x) { return einsum("ij,jk->ik", {x[0], x[1]}); });
  add_scalar(c, "einsum", {real({}), real({3})}, [](In x) { return einsum(",i->i", {x[0], x[1]}); }).sum_of(3);
}

void add_planes(Cases& c) {
  const ConvGeometry g{{1, 1}, {0, 0}, {1, 1}, 1};
  add_empty(c, "conv1d", {real({0, 2, 6}), real({3, 2, 3})}, [](In x) { return conv1d(x[0], x[1]); });
  add_empty(c, "conv_transpose2d", {real({0, 2, 3, 3}), real({2, 3, 2, 2})},
            [](In x) { return conv_transpose2d(x[0], x[1]); });
  add_empty(c, "conv2d_grad_input", {real({0, 2, 2, 2}), real({2, 1, 3, 3})}, [g](In x) {
    return conv2d_grad_input(x[0], x[1], {0, 1, 4, 4}, g);
  });
  add_empty(c, "conv2d_grad_weight", {real({0, 2, 2, 2}), real({0, 1, 4, 4})}, [g](In x) {
    return conv2d_grad_weight(x[0], x[1], {2, 1, 3, 3}, g);
  });
  add_empty(c, "max_pool2d_with_indices", {real({0, 2, 4, 4})},
            [](In x) { return max_pool2d_with_indices(x[0], 2).first; });
  add_empty(c, "max_pool1d", {real({0, 2, 6})}, [](In x) { return max_pool1d(x[0], 2); });
  add_empty(c, "avg_pool2d", {real({0, 2, 4, 4})}, [](In x) { return avg_pool2d(x[0], 2); });
  add_empty(c, "avg_pool1d", {real({0, 2, 6})}, [](In x) { return avg_pool1d(x[0], 2); });
  add_empty(c, "avg_pool2d_grad", {real({0, 2, 2, 2})}, [](In x) {
    return avg_pool2d_grad(x[0], {0, 2, 4, 4}, {{2, 2}, {2, 2}, {0, 0}, {1, 1}, true});
  });
  add_empty(c, "adaptive_avg_pool2d", {real({0, 2, 5, 4})}, [](In x) { return adaptive_avg_pool2d(x[0], {3, 2}); });
}

void add_networks(Cases& c) {
  const auto soft = [](In x) { return softmax_grad(x[0], x[1], 0); };
  add_empty(c, "softmax_grad", {real({0, 3}), real({0, 3})}, soft);
  add_scalar(c, "softmax_grad", {real({}), real({})}, soft);
  const auto log_soft = [](In x) { return log_softmax_grad(x[0], x[1], 0); };
  add_empty(c, "log_softmax_grad", {real({0, 3}), real({0, 3})}, log_soft);
  add_scalar(c, "log_softmax_grad", {real({}), real({})}, log_soft);
  add_empty(c, "group_norm", {real({0, 4, 2}), real({4}), real({4})},
            [](In x) { return group_norm(x[0], 2, x[1], x[2]); });
  const auto drop = [](In x) {
    manual_seed(5);
    return dropout(x[0], 0.4);
  };
  add_empty(c, "dropout", {real({0, 3})}, drop);
  add_scalar(c, "dropout", {real({})}, drop).only_f64("each dtype draws its own mask");
  const auto attend = [](In x) { return scaled_dot_product_attention(x[0], x[1], x[2]); };
  const char* const attention = "scaled_dot_product_attention";
  add_empty(c, attention, {real({0, 3, 4}), real({0, 3, 4}), real({0, 3, 2})}, attend);
  c.add(attention, "no queries", {real({2, 0, 4}), real({2, 3, 4}), real({2, 3, 2})}, attend);
  c.add(attention, "no keys", {real({2, 3, 4}), real({2, 0, 4}), real({2, 0, 2})}, attend);
  add_empty(c, "recurrent_steps", {real({3, 0, 6}), real({6, 2}), real({6}), real({0, 2})},
            [](In x) { return recurrent_steps(RecurrentCell::gru, x[0], x[1], x[2], x[3], {}, false).first; });
}

void add_losses(Cases& c) {
  const auto both = [&](const char* op, double low, double high, const Call& f) {
    add_empty(c, op, {real({0, 3}, low, high), real({0, 3}, low, high)}, f).no_second_order(nan);
    add_scalar(c, op, {real({}, low, high), real({}, low, high)}, f);
  };
  both("mse_loss", -2, 2, [](In x) { return mse_loss(x[0], x[1]); });
  both("l1_loss", -2, 2, [](In x) { return l1_loss(x[0], x[1]); });
  both("smooth_l1_loss", -2, 2, [](In x) { return smooth_l1_loss(x[0], x[1]); });
  both("huber_loss", -2, 2, [](In x) { return huber_loss(x[0], x[1]); });
  both("binary_cross_entropy", 0.1, 0.9, [](In x) { return binary_cross_entropy(x[0], x[1]); });
  both("binary_cross_entropy_with_logits", 0.1, 0.9, [](In x) { return binary_cross_entropy_with_logits(x[0], x[1]); });
  both("kl_div", 0.1, 0.9, [](In x) { return kl_div(x[0], x[1]); });
  add_empty(c, "nll_loss", {real({0, 3}), integers({0}, 0, 3)}, [](In x) {
    return nll_loss(x[0], x[1]);
  }).no_second_order(nan);
  add_scalar(c, "nll_loss", {real({3}), integers({}, 0, 3)}, [](In x) { return nll_loss(x[0], x[1]); });
}

}  // namespace

void add_edge_cases(Cases& cases) {
  add_shapes(cases);
  add_copies(cases);
  add_choices(cases);
  add_reductions(cases);
  add_positions(cases);
  add_products(cases);
  add_planes(cases);
  add_networks(cases);
  add_losses(cases);
}

}  // namespace loom::sweep
