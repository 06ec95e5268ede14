// Optimizer steps: one pass over all arrays of all pieces, the formulas of torch.optim. An element's update depends on
// that element alone and is rounded alike wherever it stands, so a shard's update is bit-equal to the whole one.
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/pieces.h>
#include <loom/accelerators/cpu/words.h>

namespace loom {

namespace {

using cpu::block;
using cpu::over_pieces;

// One dense array of a step, seen as runs of T: read, changed in place, written back. Null data: there is none, and
// its run is scratch.
template <class T>
class State {
 public:
  explicit State(const Dense& v)
      : data_(static_cast<char*>(v.data)),
        item_(item_size(v.dtype)),
        read_(v.dtype, dtype_of<T>()),
        write_(v.dtype, dtype_of<T>()) {}

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

// The gradient of a piece as runs of T, multiplied with its factor.
template <class T>
class Gradient {
 public:
  explicit Gradient(const UpdatePiece& piece)
      : data_(static_cast<const char*>(piece.grad.data)),
        item_(static_cast<int64_t>(item_size(piece.grad.dtype))),
        read_(piece.grad.dtype, dtype_of<T>()),
        factor_(piece.factor.data ? static_cast<T>(*static_cast<const float*>(piece.factor.data)) : T(1)) {}

  const T* operator()(int64_t first, int64_t n) {
    const T* const run = static_cast<const T*>(read_(data_ + first * item_, item_, n));
    if (factor_ == T(1)) return run;
    for (int64_t i = 0; i < n; ++i) scaled_[i] = run[i] * factor_;
    return scaled_;
  }

 private:
  const char* data_;
  int64_t item_;
  cpu::Reader read_;
  T factor_;
  alignas(64) T scaled_[block];
};

// A parameter as runs of T. What a step has made of a run goes to the master, if there is one, and to the value, which
// is rounded to nearest or stochastically: element i with word i of the draw. Where others have written the value, the
// master's element is what they wrote.
template <class T>
class Parameter {
 public:
  explicit Parameter(const UpdatePiece& piece)
      : run_(piece.master.data ? piece.master : piece.value),
        value_(static_cast<char*>(piece.value.data)),
        dtype_(piece.value.dtype),
        convert_(piece.master.data ? cpu::converter(dtype_, dtype_of<T>()) : nullptr),
        widen_(convert_ && piece.value_written ? cpu::converter(dtype_of<T>(), dtype_) : nullptr),
        rounding_(piece.rounding) {}

  T* begin(int64_t first, int64_t n) {
    at_ = run_.begin(first, n);
    if (widen_ != nullptr) take_written(first, n);
    return at_;
  }
  void end(int64_t first, int64_t n) {
    if (rounding_ && dtype_ == bf16) round<BFloat16>(first, n);
    if (rounding_ && dtype_ == f16) round<Half>(first, n);
    if (convert_ != nullptr) convert_(value_ + first * static_cast<int64_t>(item_size(dtype_)), at_, n);
    run_.end(first, n);
  }

 private:
  void take_written(int64_t first, int64_t n) {
    alignas(64) uint16_t rounded[block];
    alignas(64) T written[block];
    const auto* const value = reinterpret_cast<const uint16_t*>(value_) + first;
    convert_(rounded, at_, n);
    widen_(written, value, n);
    for (int64_t i = 0; i < n; ++i) at_[i] = rounded[i] == value[i] ? at_[i] : written[i];
  }

  template <class Number>
  void round(int64_t first, int64_t n) {
    const cpu::WordSource source(*rounding_);
    alignas(64) cpu::Words drawn;
    for (int64_t i = 0; i < n;) {
      const int64_t skipped = (first + i) % 4, count = std::min(n - i, cpu::words - skipped);
      source(drawn, (first + i) / 4);
      const uint32_t* const word = drawn.data() + skipped;
      for (int64_t k = 0; k < count; ++k)
        at_[i + k] = static_cast<T>(Number::stochastic(static_cast<float>(at_[i + k]), word[k]));
      i += count;
    }
  }

  State<T> run_;
  char* value_;
  DType dtype_;
  cpu::Convert convert_, widen_;
  std::optional<Philox> rounding_;
  T* at_ = nullptr;
};

// Calls update(p, g, states..., n) with runs of a piece's elements [begin, end), a block at a time.
template <class T, size_t N, class Update>
void for_each_block(const UpdatePiece& piece, int64_t begin, int64_t end, const Update& update) {
  [&]<size_t... k>(std::index_sequence<k...>) {
    Parameter<T> parameter(piece);
    Gradient<T> gradient(piece);
    [[maybe_unused]] std::array<State<T>, N> state = {State<T>(piece.states[k])...};
    for (int64_t i = begin; i < end; i += block) {
      const int64_t n = std::min(block, end - i);
      update(parameter.begin(i, n), gradient(i, n), state[k].begin(i, n)..., n);
      parameter.end(i, n);
      (state[k].end(i, n), ...);
    }
  }(std::make_index_sequence<N>());
}

// Calls f<T>(piece, begin, end) for all elements; T is f64 where the parameter or its state is, else f32.
template <class F>
void update_all(const char* op, std::span<const UpdatePiece> pieces, const F& f) {
  for (const UpdatePiece& piece : pieces)
    check(is_floating(piece.value.dtype), op, ": expects a floating dtype, got ", piece.value.dtype);
  over_pieces(pieces, [&](const UpdatePiece& piece, int64_t begin, int64_t end) {
    const Dense& state = piece.states[0];
    if (piece.value.dtype == f64 || (state.data != nullptr && state.dtype == f64))
      f.template operator()<double>(piece, begin, end);
    else
      f.template operator()<float>(piece, begin, end);
  });
}

// What a step's number makes of Adam's rates.
struct AdamRates {
  int64_t number;
  double step, root;
  AdamRates(const AdamStep& s, int64_t n)
      : number(n),
        step(s.lr / (1 - std::pow(s.beta1, static_cast<double>(n)))),
        root(std::sqrt(1 - std::pow(s.beta2, static_cast<double>(n)))) {}
};

}  // namespace

void Cpu::sgd(std::span<const UpdatePiece> pieces, const SgdStep& s) {
  update_all("sgd", pieces, [&]<class T>(const UpdatePiece& piece, int64_t begin, int64_t end) {
    const T lr = static_cast<T>(s.lr), decay = static_cast<T>(s.weight_decay), sign = s.maximize ? T(-1) : T(1);
    if (s.momentum == 0) {
      for_each_block<T, 0>(piece, begin, end, [=](T* __restrict x, const T* __restrict dx, int64_t n) {
        for (int64_t i = 0; i < n; ++i) x[i] = x[i] - lr * (sign * dx[i] + decay * x[i]);
      });
      return;
    }
    // The first gradient goes in whole; what the buffer holds before means nothing, and may be NaN.
    const T keep = static_cast<T>(s.momentum), add = static_cast<T>(piece.step == 1 ? 1.0 : 1.0 - s.dampening);
    const bool nesterov = s.nesterov, first = piece.step == 1;
    for_each_block<T, 1>(piece, begin, end, [=](T* __restrict x, const T* __restrict dx, T* __restrict m, int64_t n) {
      if (first) std::fill_n(m, n, T(0));
      for (int64_t i = 0; i < n; ++i) {
        const T d = sign * dx[i] + decay * x[i];
        m[i] = keep * m[i] + add * d;
        x[i] = x[i] - lr * (nesterov ? d + keep * m[i] : m[i]);
      }
    });
  });
}

void Cpu::adam(std::span<const UpdatePiece> pieces, const AdamStep& s) {
  if (pieces.empty()) return;
  const AdamRates usual(s, pieces[0].step);  // pieces that joined later are the exception
  update_all("adam", pieces, [&]<class T>(const UpdatePiece& piece, int64_t begin, int64_t end) {
    const AdamRates rates = piece.step == usual.number ? usual : AdamRates(s, piece.step);
    const T step = static_cast<T>(rates.step), root = static_cast<T>(rates.root);
    const T beta1 = static_cast<T>(s.beta1), rest1 = static_cast<T>(1 - s.beta1), eps = static_cast<T>(s.eps);
    const T beta2 = static_cast<T>(s.beta2), rest2 = static_cast<T>(1 - s.beta2), sign = s.maximize ? T(-1) : T(1);
    const T shrink = static_cast<T>(s.decoupled ? 1 - s.lr * s.weight_decay : 1.0);
    const T decay = static_cast<T>(s.decoupled ? 0.0 : s.weight_decay);
    const bool amsgrad = s.amsgrad;
    for_each_block<T, 3>(piece, begin, end,
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

void Cpu::adagrad(std::span<const UpdatePiece> pieces, const AdagradStep& s) {
  update_all("adagrad", pieces, [&]<class T>(const UpdatePiece& piece, int64_t begin, int64_t end) {
    const T lr = static_cast<T>(s.lr / (1 + static_cast<double>(piece.step - 1) * s.lr_decay));
    const T decay = static_cast<T>(s.weight_decay), eps = static_cast<T>(s.eps), sign = s.maximize ? T(-1) : T(1);
    for_each_block<T, 1>(piece, begin, end,
                         [=](T* __restrict x, const T* __restrict dx, T* __restrict total, int64_t n) {
                           for (int64_t i = 0; i < n; ++i) {
                             const T d = sign * dx[i] + decay * x[i];
                             total[i] = total[i] + d * d;
                             x[i] = x[i] - lr * (d / (std::sqrt(total[i]) + eps));
                           }
                         });
  });
}

void Cpu::rmsprop(std::span<const UpdatePiece> pieces, const RmspropStep& s) {
  update_all("rmsprop", pieces, [&]<class T>(const UpdatePiece& piece, int64_t begin, int64_t end) {
    const T lr = static_cast<T>(s.lr), alpha = static_cast<T>(s.alpha), rest = static_cast<T>(1 - s.alpha);
    const T decay = static_cast<T>(s.weight_decay), eps = static_cast<T>(s.eps), sign = s.maximize ? T(-1) : T(1);
    const T keep = static_cast<T>(s.momentum);
    const bool centered = s.centered, with_momentum = s.momentum > 0;
    for_each_block<T, 3>(piece, begin, end,
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
