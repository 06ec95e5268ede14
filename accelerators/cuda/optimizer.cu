// Optimizer steps: the CPU's formulas, operation for operation. Compiled without fused multiply-adds.
#include <cmath>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/update.h>

namespace loom {

namespace {

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

// What a step's number makes of Adam's rates.
Rates<double> adam_rates(const AdamStep& s, int64_t step) {
  const auto n = static_cast<double>(step);
  return {s.lr / (1 - std::pow(s.beta1, n)), std::sqrt(1 - std::pow(s.beta2, n))};
}

bool is_wide(const UpdatePiece& piece) {
  const Dense& state = piece.states[0];
  return piece.value.dtype == f64 || (state.data != nullptr && state.dtype == f64);
}

// The pieces whose arithmetic is done in T, of widths that are known when their kernel is compiled; slots are made by
// slot_of.
template <class Widths, class T, int N, class Formula, class SlotOf>
void update_some(cuda::Gpu& gpu, const char* op, std::span<const UpdatePiece> pieces, const Formula& formula,
                 const SlotOf& slot_of) {
  const auto belongs = [](const UpdatePiece& p) {
    if (is_wide(p)) return std::is_same_v<T, double>;
    const Dense& main = p.master.data != nullptr ? p.master : p.value;
    return std::is_same_v<T, float> && is_half(main.dtype) == Widths::main && is_half(p.grad.dtype) == Widths::grad;
  };
  cuda::for_each_table<cuda::UpdateSlot>(pieces, belongs, slot_of, [&](const cuda::Table<cuda::UpdateSlot>& table) {
    cuda::launch(gpu, op, &cuda::update_kernel<Widths, T, N, Formula>, table.chunks(), cuda::threads_per_block, 0,
                 table, formula);
  });
}
template <class T, int N, class Formula, class SlotOf>
void update(cuda::Gpu& gpu, const char* op, std::span<const UpdatePiece> pieces, const Formula& formula,
            const SlotOf& slot_of) {
  update_some<cuda::Widths<false, false>, T, N>(gpu, op, pieces, formula, slot_of);
  if constexpr (std::is_same_v<T, float>) {
    update_some<cuda::Widths<false, true>, T, N>(gpu, op, pieces, formula, slot_of);
    update_some<cuda::Widths<true, false>, T, N>(gpu, op, pieces, formula, slot_of);
    update_some<cuda::Widths<true, true>, T, N>(gpu, op, pieces, formula, slot_of);
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

cuda::UpdateSlot plain_slot(const UpdatePiece& p) { return cuda::slot_of(p, {}, false); }

}  // namespace

void Cuda::sgd(std::span<const UpdatePiece> pieces, const SgdStep& s) {
  // The first gradient goes in whole; what the buffer holds before means nothing, and may be NaN.
  const auto slot_of = [&](const UpdatePiece& p) {
    return cuda::slot_of(p, {p.step == 1 ? 1.0 : 1.0 - s.dampening, 0}, p.step == 1);
  };
  update_all("sgd", pieces, [&]<class T> {
    const T lr = static_cast<T>(s.lr), decay = static_cast<T>(s.weight_decay), sign = s.maximize ? T(-1) : T(1);
    if (s.momentum == 0)
      update<T, 0>(gpu_, "sgd", pieces, Sgd<T>{lr, decay, sign}, slot_of);
    else
      update<T, 1>(gpu_, "sgd", pieces, SgdMomentum<T>{lr, decay, sign, static_cast<T>(s.momentum), s.nesterov},
                   slot_of);
  });
}

void Cuda::adam(std::span<const UpdatePiece> pieces, const AdamStep& s) {
  if (pieces.empty()) return;
  const int64_t usual = pieces[0].step;  // pieces that joined later are the exception
  const Rates<double> usual_rates = adam_rates(s, usual);
  const auto slot_of = [&](const UpdatePiece& p) {
    return cuda::slot_of(p, p.step == usual ? usual_rates : adam_rates(s, p.step), false);
  };
  update_all("adam", pieces, [&]<class T> {
    const auto run = [&]<bool amsgrad> {
      const Adam<T, amsgrad> formula{static_cast<T>(s.beta1),
                                     static_cast<T>(1 - s.beta1),
                                     static_cast<T>(s.beta2),
                                     static_cast<T>(1 - s.beta2),
                                     static_cast<T>(s.eps),
                                     static_cast<T>(s.decoupled ? 1 - s.lr * s.weight_decay : 1.0),
                                     static_cast<T>(s.decoupled ? 0.0 : s.weight_decay),
                                     s.maximize ? T(-1) : T(1)};
      update<T, amsgrad ? 3 : 2>(gpu_, "adam", pieces, formula, slot_of);
    };
    s.amsgrad ? run.template operator()<true>() : run.template operator()<false>();
  });
}

void Cuda::adagrad(std::span<const UpdatePiece> pieces, const AdagradStep& s) {
  const auto slot_of = [&](const UpdatePiece& p) {
    return cuda::slot_of(p, {s.lr / (1 + static_cast<double>(p.step - 1) * s.lr_decay), 0}, false);
  };
  update_all("adagrad", pieces, [&]<class T> {
    const Adagrad<T> formula{static_cast<T>(s.weight_decay), static_cast<T>(s.eps), s.maximize ? T(-1) : T(1)};
    update<T, 1>(gpu_, "adagrad", pieces, formula, slot_of);
  });
}

void Cuda::rmsprop(std::span<const UpdatePiece> pieces, const RmspropStep& s) {
  update_all("rmsprop", pieces, [&]<class T> {
    const Rmsprop<T> formula{
        static_cast<T>(s.lr),  static_cast<T>(s.alpha),   static_cast<T>(1 - s.alpha), static_cast<T>(s.weight_decay),
        static_cast<T>(s.eps), s.maximize ? T(-1) : T(1), static_cast<T>(s.momentum),  s.centered,
        s.momentum > 0};
    update<T, 3>(gpu_, "rmsprop", pieces, formula, plain_slot);
  });
}

}  // namespace loom
