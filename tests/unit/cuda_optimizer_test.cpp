// SPDX-License-Identifier: Apache-2.0
// Optimizer steps on a GPU: the CPU's bits, for many pieces of all dtypes at once. Without a GPU the device is one that
// the host plays (tests/cuda/emulated).
#include <deque>

#include <doctest/doctest.h>

#include <loom/accelerators/cuda.h>

#include "device_array.h"

using namespace loom;
using kernel_test::Array;
using kernel_test::DeviceArray;

namespace {

// The arrays of a piece; its elements are those from `first` on, so that they need not be aligned.
struct Parameter {
  Array value, grad, s0, s1, s2, master, factor;
  int64_t first, step;
  bool written, rounds;

  Parameter(DType t, DType grads, DType states, int64_t n, int64_t from, bool has_master)
      : value(kernel_test::random(t, {n + from})),
        grad(kernel_test::random(grads, {n + from})),
        s0(kernel_test::random(states, {n + from}, kernel_test::Layout::dense, 0.1, 1)),
        s1(kernel_test::random(states, {n + from}, kernel_test::Layout::dense, 0.6, 1)),
        s2(kernel_test::random(states, {n + from}, kernel_test::Layout::dense, 0.1, 0.5)),
        master(f32, {has_master ? n + from : 0}),
        factor(kernel_test::random(f32, {1})),
        first(from),
        step(1 + n % 3),
        written(false),
        rounds(false) {
    // What the value was rounded from.
    for (int64_t i = 0; i < master.view.numel(); ++i)
      kernel_test::set(master.view, i, kernel_test::get(value.view, i) * (1 + 0x1p-12));
  }
};

std::deque<Parameter> parameters() {
  std::deque<Parameter> out;
  for (const int64_t n : {0, 1, 3, 4, 7, 33, 1024, 4096, 9001})
    for (const int64_t from : {0, 1}) {
      for (const DType t : kernel_test::floating)
        for (const DType states : {f32, f64}) out.emplace_back(t, t, states, n, from, false);
      for (const DType t : {f16, bf16}) {
        out.emplace_back(t, t, f32, n, from, true);
        out.emplace_back(t, f32, f32, n, from, true).written = true;
        out.emplace_back(t, f32, f32, n, from, false).rounds = true;
      }
    }
  return out;
}

// The piece whose arrays lie where `at` says.
template <class At>
UpdatePiece piece_of(const Parameter& p, const At& at) {
  const auto dense = [&](const Array& a) {
    if (a.view.numel() == 0) return Dense{};
    const View v = at(a);
    return Dense{v.as<std::byte>() + p.first * static_cast<int64_t>(item_size(v.dtype)), v.dtype};
  };
  UpdatePiece out{
      p.value.view.numel() - p.first, dense(p.value), dense(p.grad), {dense(p.s0), dense(p.s1), dense(p.s2)}};
  out.step = p.step;
  out.master = dense(p.master);
  out.value_written = p.written;
  if (p.step == 2) out.factor = {at(p.factor).data, f32};
  if (p.rounds) out.rounding = Philox{7, 1, static_cast<uint64_t>(p.step) * 1000};
  return out;
}

std::vector<Array*> arrays_of(Parameter& p) { return {&p.value, &p.grad, &p.s0, &p.s1, &p.s2, &p.master, &p.factor}; }

// run(accelerator, pieces) on both devices; all arrays are compared.
template <class Run>
void compare(const Run& run) {
  std::deque<Parameter> all = parameters();
  std::deque<std::pair<Array*, DeviceArray>> there;
  std::vector<UpdatePiece> here_pieces, there_pieces;
  for (Parameter& p : all) {
    for (Array* a : arrays_of(p))
      there.emplace_back(std::piecewise_construct, std::tuple(a), std::forward_as_tuple(*a));
    const auto find = [&](const Array& a) -> View {
      for (auto it = there.rbegin();; ++it)
        if (it->first == &a) return it->second;
    };
    here_pieces.push_back(piece_of(p, [](const Array& a) { return a.view; }));
    there_pieces.push_back(piece_of(p, find));
  }
  run(accelerator(Device::cuda), std::span<const UpdatePiece>(there_pieces));
  run(accelerator(Device::cpu), std::span<const UpdatePiece>(here_pieces));
  size_t at = 0;
  for (Parameter& p : all)
    for (Array* a : arrays_of(p)) {
      Array given(a->view.dtype, {0});
      given.memory = a->memory;
      there[at++].second.fetch(given);
      CHECK_MESSAGE(given.memory == a->memory, to_string(p.value.view.dtype), " of ", p.value.view.numel(), ", array ",
                    (at - 1) % 7);
    }
}

bool has_device() {
  const bool has = device_count(Device::cuda) > 0;
  if (!has) MESSAGE("skipped: " << cuda_description());
  return has;
}

}  // namespace

TEST_CASE("optimizer steps on a GPU have the CPU's bits") {
  if (!has_device()) return;
  for (const bool on : {false, true}) {
    const double decay = on ? 0.1 : 0;
    for (const double momentum : {0.0, 0.9}) {
      const SgdStep sgd{0.05, momentum, on ? 0.0 : 0.3, decay, on && momentum > 0, on};
      compare([&](Accelerator& a, auto pieces) { a.sgd(pieces, sgd); });
      const RmspropStep rmsprop{0.01, 0.9, 1e-8, decay, momentum, on, on};
      compare([&](Accelerator& a, auto pieces) { a.rmsprop(pieces, rmsprop); });
    }
    for (const bool amsgrad : {false, true}) {
      const AdamStep adam{0.01, 0.9, 0.99, 1e-8, decay, amsgrad != on, amsgrad, on};
      compare([&](Accelerator& a, auto pieces) { a.adam(pieces, adam); });
    }
    const AdagradStep adagrad{0.01, 0.1, decay, 1e-10, on};
    compare([&](Accelerator& a, auto pieces) { a.adagrad(pieces, adagrad); });
  }
}

TEST_CASE("unscale on a GPU finds what is not finite, and has the CPU's bits") {
  if (!has_device()) return;
  const double none = 0, infinite = std::numeric_limits<double>::infinity(), nan = std::nan("");
  for (const double wrong : {none, infinite, -infinite, nan})
    for (const size_t at : {size_t{30}, size_t{63}, size_t{120}, size_t{205}}) {
      Array factor(f32, {}), found(f32, {});
      kernel_test::set(factor.view, 0, 0.3);
      kernel_test::set(found.view, 0, 0);
      Array other(f32, {});
      const DeviceArray by(factor), seen(found);
      compare([&](Accelerator& a, std::span<const UpdatePiece> pieces) {
        const bool there = &a != &accelerator(Device::cpu);
        std::vector<UpdatePiece> some(pieces.begin(), pieces.end());
        Array bad(some[at].grad.dtype, {some[at].numel});  // the last element is wrong
        for (int64_t i = 0; i < bad.view.numel(); ++i) kernel_test::set(bad.view, i, 1);
        if (wrong != 0) kernel_test::set(bad.view, bad.view.numel() - 1, wrong);
        const DeviceArray copied(bad);
        some[at].grad.data = there ? static_cast<const View&>(copied).data : bad.view.data;
        a.unscale(some, there ? static_cast<const View&>(by) : factor.view,
                  there ? static_cast<const View&>(seen) : found.view);
        a.synchronize();
      });
      seen.fetch(other);
      CHECK(kernel_test::get(found.view, 0) == (wrong == 0 ? 0 : 1));
      CHECK(kernel_test::get(other.view, 0) == kernel_test::get(found.view, 0));
    }
}
