// Optimizer steps: the CPU's formulas, operation for operation. Compiled without fused multiply-adds.
#include <cmath>
#include <utility>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/scratch.h>
#include <loom/accelerators/cuda/update.h>

namespace loom {

namespace {

using cuda::Told;

template <int N, class T>
using States = std::array<T*, N>;
template <class T>
using Rates = std::array<T, 2>;

template <class T>
struct Sgd {
  T lr, decay, sign;
  __device__ void operator()(T& x, T dx, const States<0, T>&, const Rates<T>&) const {
    x = x - lr * (sign * dx + decay * x);
  }
};

// rates: what the gradient is multiplied with.
template <class T>
struct SgdMomentum {
  T lr, decay, sign, keep;
  bool nesterov;
  __device__ void operator()(T& x, T dx, const States<1, T>& states, const Rates<T>& rates) const {
    T& m = *states[0];
    const T d = sign * dx + decay * x;
    m = keep * m + rates[0] * d;
    x = x - lr * (nesterov ? d + keep * m : m);
  }
};

// rates: of the step, and the root of the square's correction.
template <class T, bool amsgrad>
struct Adam {
  T beta1, rest1, beta2, rest2, eps, shrink, decay, sign;
  __device__ void operator()(T& x, T dx, const States<amsgrad ? 3 : 2, T>& states, const Rates<T>& rates) const {
    T &mean = *states[0], &square = *states[1];
    const T d = sign * dx + decay * x;
    mean = beta1 * mean + rest1 * d;
    square = beta2 * square + rest2 * d * d;
    T under = square;
    if constexpr (amsgrad) {
      T& highest = *states[2];
      under = highest = square > highest || square != square ? square : highest;
    }
    const T denominator = std::sqrt(under) / rates[1] + eps;
    x = shrink * x - rates[0] * (mean / denominator);
  }
};

// rates: of the step.
template <class T>
struct Adagrad {
  T decay, eps, sign;
  __device__ void operator()(T& x, T dx, const States<1, T>& states, const Rates<T>& rates) const {
    T& total = *states[0];
    const T d = sign * dx + decay * x;
    total = total + d * d;
    x = x - rates[0] * (d / (std::sqrt(total) + eps));
  }
};

template <class T>
struct Rmsprop {
  T lr, alpha, rest, decay, eps, sign, keep;
  bool centered, with_momentum;
  __device__ void operator()(T& x, T dx, const States<3, T>& states, const Rates<T>&) const {
    T &square = *states[0], &mean = *states[1], &buffer = *states[2];
    const T d = sign * dx + decay * x;
    square = alpha * square + rest * d * d;
    if (centered) mean = alpha * mean + rest * d;
    const T variance = centered ? square - mean * mean : square;
    const T scaled = d / (std::sqrt(variance) + eps);
    if (with_momentum) buffer = keep * buffer + scaled;
    x = x - lr * (with_momentum ? buffer : scaled);
  }
};

// The makers: what the numbers of a step make of its formula and, with the step's number, of the rates. On the host, or
// on the device where it has these numbers; `take` reads them in the order of their members.
template <class T>
struct MakeSgd {
  using Formula = Sgd<T>;
  SgdStep s;
  LOOM_HOST_DEVICE void take(const double* n) { s.lr = n[0], s.weight_decay = n[3]; }
  LOOM_HOST_DEVICE Formula formula() const {
    return {static_cast<T>(s.lr), static_cast<T>(s.weight_decay), s.maximize ? T(-1) : T(1)};
  }
  LOOM_HOST_DEVICE Told told(int64_t) const { return {{0, 0}, false}; }
};

// The first gradient goes in whole; what the buffer holds before means nothing, and may be NaN.
template <class T>
struct MakeSgdMomentum {
  using Formula = SgdMomentum<T>;
  SgdStep s;
  LOOM_HOST_DEVICE void take(const double* n) {
    s.lr = n[0], s.momentum = n[1], s.dampening = n[2], s.weight_decay = n[3];
  }
  LOOM_HOST_DEVICE Formula formula() const {
    return {static_cast<T>(s.lr), static_cast<T>(s.weight_decay), s.maximize ? T(-1) : T(1), static_cast<T>(s.momentum),
            s.nesterov};
  }
  LOOM_HOST_DEVICE Told told(int64_t step) const { return {{step == 1 ? 1.0 : 1.0 - s.dampening, 0}, step == 1}; }
};

template <class T, bool amsgrad>
struct MakeAdam {
  using Formula = Adam<T, amsgrad>;
  AdamStep s;
  LOOM_HOST_DEVICE void take(const double* n) {
    s.lr = n[0], s.beta1 = n[1], s.beta2 = n[2], s.eps = n[3], s.weight_decay = n[4];
  }
  LOOM_HOST_DEVICE Formula formula() const {
    return {static_cast<T>(s.beta1),
            static_cast<T>(1 - s.beta1),
            static_cast<T>(s.beta2),
            static_cast<T>(1 - s.beta2),
            static_cast<T>(s.eps),
            static_cast<T>(s.decoupled ? 1 - s.lr * s.weight_decay : 1.0),
            static_cast<T>(s.decoupled ? 0.0 : s.weight_decay),
            s.maximize ? T(-1) : T(1)};
  }
  LOOM_HOST_DEVICE Told told(int64_t step) const {
    const auto n = static_cast<double>(step);
    return {{s.lr / (1 - std::pow(s.beta1, n)), std::sqrt(1 - std::pow(s.beta2, n))}, false};
  }
};

template <class T>
struct MakeAdagrad {
  using Formula = Adagrad<T>;
  AdagradStep s;
  LOOM_HOST_DEVICE void take(const double* n) { s.lr = n[0], s.lr_decay = n[1], s.weight_decay = n[2], s.eps = n[3]; }
  LOOM_HOST_DEVICE Formula formula() const {
    return {static_cast<T>(s.weight_decay), static_cast<T>(s.eps), s.maximize ? T(-1) : T(1)};
  }
  LOOM_HOST_DEVICE Told told(int64_t step) const {
    return {{s.lr / (1 + static_cast<double>(step - 1) * s.lr_decay), 0}, false};
  }
};

template <class T>
struct MakeRmsprop {
  using Formula = Rmsprop<T>;
  RmspropStep s;
  LOOM_HOST_DEVICE void take(const double* n) {
    s.lr = n[0], s.alpha = n[1], s.eps = n[2], s.weight_decay = n[3], s.momentum = n[4];
  }
  LOOM_HOST_DEVICE Formula formula() const {
    return {
        static_cast<T>(s.lr),  static_cast<T>(s.alpha),   static_cast<T>(1 - s.alpha), static_cast<T>(s.weight_decay),
        static_cast<T>(s.eps), s.maximize ? T(-1) : T(1), static_cast<T>(s.momentum),  s.centered,
        s.momentum > 0};
  }
  LOOM_HOST_DEVICE Told told(int64_t) const { return {{0, 0}, false}; }
};

bool is_wide(const UpdatePiece& piece) {
  const Dense& state = piece.states[0];
  return piece.value.dtype == f64 || (state.data != nullptr && state.dtype == f64);
}

// The pieces whose arithmetic is done in T, of widths that are known when their kernel is compiled.
template <class Widths, class T, int N, class Maker>
void update_some(cuda::Gpu& gpu, const char* op, std::span<const UpdatePiece> pieces, const Maker& maker,
                 bool on_device) {
  using Formula = typename Maker::Formula;
  const auto belongs = [](const UpdatePiece& p) {
    if (is_wide(p)) return std::is_same_v<T, double>;
    const Dense& main = p.master.data != nullptr ? p.master : p.value;
    return std::is_same_v<T, float> && is_half(main.dtype) == Widths::main && is_half(p.grad.dtype) == Widths::grad;
  };
  int64_t last = -1;  // most pieces have the same number
  Told told{};
  const auto slot_of = [&](const UpdatePiece& p) {
    if (p.step != std::exchange(last, p.step)) told = maker.told(p.step);
    return cuda::slot_of(p, told);
  };
  cuda::for_each_table<cuda::UpdateSlot>(pieces, belongs, slot_of, [&](const cuda::Table<cuda::UpdateSlot>& table) {
    const StepControl& control = maker.s.control;
    const cuda::Scratch scratch(gpu, on_device ? sizeof(cuda::Prepared<Formula>) : 0);
    auto* const prepared = scratch.as<cuda::Prepared<Formula>>();
    if (on_device)
      cuda::launch(gpu, op, &cuda::prepare_kernel<Maker>, 1, cuda::table_length<cuda::UpdateSlot>, 0, table, maker,
                   control.options, control.skip, prepared);
    cuda::launch(gpu, op, &cuda::update_kernel<Widths, T, N, Formula>, table.chunks(), cuda::threads_per_block, 0,
                 table, maker.formula(), prepared);
  });
}
template <class T, int N, class Maker>
void update(cuda::Gpu& gpu, const char* op, std::span<const UpdatePiece> pieces, const Maker& maker) {
  const StepControl& control = maker.s.control;
  bool on_device = control.options != nullptr || control.skip != nullptr;
  for (const UpdatePiece& p : pieces) on_device = on_device || p.count != nullptr;
  update_some<cuda::Widths<false, false>, T, N>(gpu, op, pieces, maker, on_device);
  if constexpr (std::is_same_v<T, float>) {
    update_some<cuda::Widths<false, true>, T, N>(gpu, op, pieces, maker, on_device);
    update_some<cuda::Widths<true, false>, T, N>(gpu, op, pieces, maker, on_device);
    update_some<cuda::Widths<true, true>, T, N>(gpu, op, pieces, maker, on_device);
  }
}

// Calls f<T>() for both types of arithmetic: f64 where the parameter or its state is, else f32.
template <class F>
void update_all(const char* op, std::span<const UpdatePiece> pieces, const F& f) {
  for (const UpdatePiece& piece : pieces)
    check(is_floating(piece.value.dtype), op, ": expects a floating dtype, got ", piece.value.dtype);
  f.template operator()<float>();
  f.template operator()<double>();
}

}  // namespace

void Cuda::sgd(std::span<const UpdatePiece> pieces, const SgdStep& s) {
  update_all("sgd", pieces, [&]<class T> {
    if (s.momentum == 0)
      update<T, 0>(gpu_, "sgd", pieces, MakeSgd<T>{s});
    else
      update<T, 1>(gpu_, "sgd", pieces, MakeSgdMomentum<T>{s});
  });
}

void Cuda::adam(std::span<const UpdatePiece> pieces, const AdamStep& s) {
  update_all("adam", pieces, [&]<class T> {
    if (s.amsgrad)
      update<T, 3>(gpu_, "adam", pieces, MakeAdam<T, true>{s});
    else
      update<T, 2>(gpu_, "adam", pieces, MakeAdam<T, false>{s});
  });
}

void Cuda::adagrad(std::span<const UpdatePiece> pieces, const AdagradStep& s) {
  update_all("adagrad", pieces, [&]<class T> { update<T, 1>(gpu_, "adagrad", pieces, MakeAdagrad<T>{s}); });
}

void Cuda::rmsprop(std::span<const UpdatePiece> pieces, const RmspropStep& s) {
  update_all("rmsprop", pieces, [&]<class T> { update<T, 3>(gpu_, "rmsprop", pieces, MakeRmsprop<T>{s}); });
}

}  // namespace loom
