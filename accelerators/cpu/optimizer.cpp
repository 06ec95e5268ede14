// Optimizer steps: one pass over all arrays, the formulas of torch.optim. An element's update depends on that element
// alone and is rounded alike wherever it stands, so a shard's update is bit-equal to the whole one.
#include <algorithm>
#include <array>
#include <cmath>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/cpu.h>

namespace loom {

namespace {

using cpu::block;

// One dense array of a step, seen as runs of T: read, changed in place, written back. Null data: there is none, and
// its run is scratch.
template <class T>
class State {
 public:
  explicit State(const View& v)
      : data_(v.as<char>()), item_(item_size(v.dtype)), read_(v.dtype, dtype_of<T>()), write_(v.dtype, dtype_of<T>()) {}

  T* begin(int64_t first, int64_t n) {
    if (data_ == nullptr) return scratch_;
    char* const at = data_ + first * static_cast<int64_t>(item_);
    T* const run = static_cast<T*>(write_.target(at, static_cast<int64_t>(item_)));
    const void* const stored = read_(at, static_cast<int64_t>(item_), n);
    if (stored != run) std::copy_n(static_cast<const T*>(stored), n, run);
    return run;
  }
  void end(int64_t first, int64_t n) {
    if (data_ != nullptr) write_.commit(data_ + first * static_cast<int64_t>(item_), static_cast<int64_t>(item_), n);
  }

 private:
  char* data_;
  size_t item_;
  cpu::Reader read_;
  cpu::Writer write_;
  alignas(64) T scratch_[block];
};

// Calls update(p, g, states..., n) with runs of all elements, a block at a time.
template <class T, size_t N, class Update>
void for_each_block(const View& p, const View& g, const std::array<const View*, N>& states, const Update& update) {
  parallel_for(p.numel(), cpu::grain / 4, [&](int64_t begin, int64_t end) {
    [&]<size_t... k>(std::index_sequence<k...>) {
      State<T> parameter(p);
      cpu::Reader gradient(g.dtype, dtype_of<T>());
      [[maybe_unused]] std::array<State<T>, N> state = {State<T>(*states[k])...};
      const auto g_item = static_cast<int64_t>(item_size(g.dtype));
      for (int64_t i = begin; i < end; i += block) {
        const int64_t n = std::min(block, end - i);
        update(parameter.begin(i, n), static_cast<const T*>(gradient(g.as<char>() + i * g_item, g_item, n)),
               state[k].begin(i, n)..., n);
        parameter.end(i, n);
        (state[k].end(i, n), ...);
      }
    }
    (std::make_index_sequence<N>());
  });
}

// f64 where the parameter or its state is, else f32.
template <class F>
void with_compute(const char* op, const View& p, const View& state, const F& f) {
  check(is_floating(p.dtype), op, ": expects a floating dtype, got ", p.dtype);
  if (p.dtype == f64 || (state.data != nullptr && state.dtype == f64))
    f.template operator()<double>();
  else
    f.template operator()<float>();
}

}  // namespace

void Cpu::sgd(const View& p, const View& g, const View& momentum, const SgdStep& s) {
  with_compute("sgd", p, momentum, [&]<class T>() {
    const T lr = static_cast<T>(s.lr), decay = static_cast<T>(s.weight_decay), sign = s.maximize ? T(-1) : T(1);
    if (s.momentum == 0) {
      for_each_block<T, 0>(p, g, {}, [=](T* __restrict x, const T* __restrict dx, int64_t n) {
        for (int64_t i = 0; i < n; ++i) x[i] = x[i] - lr * (sign * dx[i] + decay * x[i]);
      });
      return;
    }
    // The first gradient goes in whole; what the buffer holds before means nothing, and may be NaN.
    const T keep = static_cast<T>(s.momentum), add = static_cast<T>(s.first ? 1.0 : 1.0 - s.dampening);
    const bool nesterov = s.nesterov, first = s.first;
    for_each_block<T, 1>(p, g, {&momentum}, [=](T* __restrict x, const T* __restrict dx, T* __restrict m, int64_t n) {
      if (first) std::fill_n(m, n, T(0));
      for (int64_t i = 0; i < n; ++i) {
        const T d = sign * dx[i] + decay * x[i];
        m[i] = keep * m[i] + add * d;
        x[i] = x[i] - lr * (nesterov ? d + keep * m[i] : m[i]);
      }
    });
  });
}

void Cpu::adam(const View& p, const View& g, const View& m, const View& v, const View& v_max, const AdamStep& s) {
  with_compute("adam", p, m, [&]<class T>() {
    const double correction1 = 1 - std::pow(s.beta1, static_cast<double>(s.step));
    const double correction2 = 1 - std::pow(s.beta2, static_cast<double>(s.step));
    const T step = static_cast<T>(s.lr / correction1), root = static_cast<T>(std::sqrt(correction2));
    const T beta1 = static_cast<T>(s.beta1), rest1 = static_cast<T>(1 - s.beta1), eps = static_cast<T>(s.eps);
    const T beta2 = static_cast<T>(s.beta2), rest2 = static_cast<T>(1 - s.beta2), sign = s.maximize ? T(-1) : T(1);
    const T shrink = static_cast<T>(s.decoupled ? 1 - s.lr * s.weight_decay : 1.0);
    const T decay = static_cast<T>(s.decoupled ? 0.0 : s.weight_decay);
    const bool amsgrad = s.amsgrad;
    for_each_block<T, 3>(p, g, {&m, &v, &v_max},
                         [=](T* __restrict x, const T* __restrict dx, T* __restrict mean, T* __restrict square,
                             T* __restrict highest, int64_t n) {
                           for (int64_t i = 0; i < n; ++i) {
                             const T d = sign * dx[i] + decay * x[i];
                             mean[i] = beta1 * mean[i] + rest1 * d;
                             square[i] = beta2 * square[i] + rest2 * d * d;
                             if (amsgrad)
                               highest[i] = square[i] > highest[i] || square[i] != square[i] ? square[i] : highest[i];
                             const T denominator = std::sqrt(amsgrad ? highest[i] : square[i]) / root + eps;
                             x[i] = shrink * x[i] - step * (mean[i] / denominator);
                           }
                         });
  });
}

void Cpu::adagrad(const View& p, const View& g, const View& sum, const AdagradStep& s) {
  with_compute("adagrad", p, sum, [&]<class T>() {
    const T lr = static_cast<T>(s.lr / (1 + static_cast<double>(s.step - 1) * s.lr_decay));
    const T decay = static_cast<T>(s.weight_decay), eps = static_cast<T>(s.eps), sign = s.maximize ? T(-1) : T(1);
    for_each_block<T, 1>(p, g, {&sum}, [=](T* __restrict x, const T* __restrict dx, T* __restrict total, int64_t n) {
      for (int64_t i = 0; i < n; ++i) {
        const T d = sign * dx[i] + decay * x[i];
        total[i] = total[i] + d * d;
        x[i] = x[i] - lr * (d / (std::sqrt(total[i]) + eps));
      }
    });
  });
}

void Cpu::rmsprop(const View& p, const View& g, const View& square_avg, const View& grad_avg, const View& momentum,
                  const RmspropStep& s) {
  with_compute("rmsprop", p, square_avg, [&]<class T>() {
    const T lr = static_cast<T>(s.lr), alpha = static_cast<T>(s.alpha), rest = static_cast<T>(1 - s.alpha);
    const T decay = static_cast<T>(s.weight_decay), eps = static_cast<T>(s.eps), sign = s.maximize ? T(-1) : T(1);
    const T keep = static_cast<T>(s.momentum);
    const bool centered = s.centered, with_momentum = s.momentum > 0;
    for_each_block<T, 3>(p, g, {&square_avg, &grad_avg, &momentum},
                         [=](T* __restrict x, const T* __restrict dx, T* __restrict square, T* __restrict mean,
                             T* __restrict buffer, int64_t n) {
                           for (int64_t i = 0; i < n; ++i) {
                             const T d = sign * dx[i] + decay * x[i];
                             square[i] = alpha * square[i] + rest * d * d;
                             if (centered) mean[i] = alpha * mean[i] + rest * d;
                             const T variance = centered ? square[i] - mean[i] * mean[i] : square[i];
                             const T scaled = d / (std::sqrt(variance) + eps);
                             if (with_momentum) buffer[i] = keep * buffer[i] + scaled;
                             x[i] = x[i] - lr * (with_momentum ? buffer[i] : scaled);
                           }
                         });
  });
}

}  // namespace loom
