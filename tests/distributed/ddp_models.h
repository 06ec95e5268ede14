// SPDX-License-Identifier: Apache-2.0
// Small models, data and comparisons for the tests of DDP.
#pragma once

#include <chrono>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include <loom/autograd/engine.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/distributed/ddp.h>
#include <loom/nn/linear.h>
#include <loom/tensor/create.h>

#include "ranks.h"

namespace ddp_test {

using namespace loom;
using Ddp = DistributedDataParallel;

struct Net {
  nn::Linear first, second, third;
  explicit Net(DType dtype = f32, int64_t width = 16)
      : first(6, width, {.dtype = dtype}), second(width, width, {.dtype = dtype}), third(width, 3, {.dtype = dtype}) {}
  Tensor operator()(const Tensor& x) const { return third(tanh(second(tanh(first(x))))); }
  LOOM_MEMBERS(first, second, third)
};

// Two branches of which a step may take any.
struct Branches {
  nn::Linear trunk, left{4, 2}, right{4, 2};
  explicit Branches(int64_t inputs = 4) : trunk(inputs, 4) {}
  Tensor operator()(const Tensor& x, bool use_left, bool use_right) const {
    const Tensor h = tanh(trunk(x));
    Tensor y = h.sum();
    if (use_left) y = y + square(left(h)).sum();
    if (use_right) y = y + square(right(h)).sum();
    return y;
  }
  LOOM_MEMBERS(trunk, left, right)
};

// The same weights on every rank and in every run.
template <class M = Net, class... Args>
M seeded(const Args&... args) {
  manual_seed(3);
  return M(args...);
}

// Samples [begin, begin + count) of an endless data set.
inline Tensor samples(int64_t begin, int64_t count, int64_t features, DType dtype = f32) {
  std::vector<double> values;
  values.reserve(static_cast<size_t>(count * features));
  for (int64_t i = begin * features; i < (begin + count) * features; ++i)
    values.push_back(std::sin(static_cast<double>(i * i % 1009) + 0.5));
  return from_vector(values, {count, features}, dtype);
}

// Mean squared error of a batch of `rows` samples from `begin` on.
template <class M>
Tensor loss_of(const M& net, int64_t begin, int64_t rows, DType dtype = f32) {
  return mse_loss(net(samples(begin, rows, 6, dtype)), samples(begin + 7, rows, 3, dtype));
}

inline std::vector<Tensor> gradients(const std::vector<NamedTensor>& parameters) {
  std::vector<Tensor> out;
  out.reserve(parameters.size());
  for (const NamedTensor& p : parameters) out.push_back(p.tensor.grad().defined() ? p.tensor.grad().clone() : Tensor());
  return out;
}
template <class M>
std::vector<Tensor> gradients(const M& net) {
  return gradients(nn::parameters(net));
}

// What `step(rank)` leaves as gradients of `net`, averaged over ranks as the reducer does: added up in rank order, then
// divided. Computed by each rank alone.
template <class M, class Step>
std::vector<Tensor> mean_of_ranks(M& net, int ranks, const Step& step) {
  std::vector<Tensor> total;
  for (int r = 0; r < ranks; ++r) {
    nn::zero_grad(net);
    step(r);
    const auto own = gradients(net);
    if (r == 0)
      total = own;
    else
      for (size_t i = 0; i < own.size(); ++i)
        if (own[i].defined()) total[i].add_(own[i]);
  }
  for (const Tensor& t : total)
    if (t.defined()) t.div_(static_cast<double>(ranks));
  nn::zero_grad(net);
  return total;
}

// Bit for bit; over NCCL, whose sums are in an order of its own, within a few roundings.
inline bool same_numbers(const Tensor& x, const Tensor& y) {
  if (sums_in_rank_order() || x.numel() == 0 || x.shape() != y.shape() || x.dtype() != y.dtype()) return equal(x, y);
  const double unit = is_half(x.dtype()) ? 1e-2 : 1e-5;
  const Tensor a = x.detach().to(f64), b = y.detach().to(f64);
  return (abs(a - b) - (abs(b) + 1.0) * unit).max().item<double>() <= 0;
}

inline bool equal_all(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].defined() != b[i].defined() || (a[i].defined() && !same_numbers(a[i], b[i]))) return false;
  return true;
}

inline double max_difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double out = 0;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].numel() > 0) out = std::max(out, abs(a[i].detach().to(f64) - b[i].detach().to(f64)).max().item<double>());
  return out;
}

inline std::vector<Tensor> values(const std::vector<NamedTensor>& named) {
  std::vector<Tensor> out;
  out.reserve(named.size());
  for (const NamedTensor& n : named) out.push_back(n.tensor.detach());
  return out;
}

// Bit for bit. Collective.
inline bool same_on_all(Communicator& comm, const std::vector<Tensor>& tensors) {
  std::string bytes;
  for (const Tensor& t : tensors) {
    bytes += t.defined() ? '1' : '0';
    if (!t.defined()) continue;
    const Tensor dense = t.detach().contiguous().to(Device()).clone();
    const View v = dense;
    bytes.append(static_cast<const char*>(v.data), v.bytes());
  }
  const auto all = comm.all_gather_bytes(bytes);
  return std::equal(all.begin() + 1, all.end(), all.begin());
}

// f(x), whose backward runs f again and a backward of its own, as reentrant checkpoints do.
template <class F>
Tensor reentrant(const Tensor& x, const F& f) {
  static const autograd::Op op{"reentrant", autograd::Cast::same, true};
  Tensor y;
  {
    const NoGrad off;
    y = f(x).clone();
  }
  return autograd::record(op, y, {x}, [f, kept = x.detach()](const Tensor& g) {
    const EnableGrad on;
    Tensor again = kept.clone();
    again.requires_grad_();
    f(again).backward(g);
    return autograd::Grads(again.grad());
  });
}

inline void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

}  // namespace ddp_test
