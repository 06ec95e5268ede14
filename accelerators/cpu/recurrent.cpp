// Cells of recurrent layers: what happens to the gates after the products, one pass each way.
#include <algorithm>
#include <cmath>
#include <limits>

#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/vector_math.h>
#include <loom/accelerators/threads.h>

namespace loom {

namespace {

// Inlined at all costs: a call would keep the loops below from becoming vectors.
[[gnu::always_inline]] inline float sigmoid(float x) { return cpu::vector_math::sigmoid(x); }
inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
[[gnu::always_inline]] inline float hyperbolic(float x) { return cpu::vector_math::tanh(x); }
inline double hyperbolic(double x) { return std::tanh(x); }

// Row n of an array [N, C] of which there may be none.
template <class T>
T* row(const View& x, int64_t n) {
  return x.data == nullptr ? nullptr : x.as<T>() + n * x.strides[0];
}

// kept: the gates before their functions, then after.
template <class T>
void lstm_row(T* __restrict h, T* __restrict c, T* __restrict kept, const T* __restrict before, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    kept[j] = sigmoid(kept[j]);
    kept[n + j] = sigmoid(kept[n + j]);
  }
  for (int64_t j = 0; j < n; ++j) {
    kept[2 * n + j] = hyperbolic(kept[2 * n + j]);
    kept[3 * n + j] = sigmoid(kept[3 * n + j]);
  }
  for (int64_t j = 0; j < n; ++j) {
    c[j] = kept[n + j] * before[j] + kept[j] * kept[2 * n + j];
    h[j] = kept[3 * n + j] * hyperbolic(c[j]);
  }
}

template <class T>
void gru_row(T* __restrict h, T* __restrict kept, const T* __restrict a, const T* __restrict b,
             const T* __restrict before, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    kept[j] = sigmoid(a[j] + b[j]);
    kept[n + j] = sigmoid(a[n + j] + b[n + j]);
    kept[3 * n + j] = b[2 * n + j];
  }
  for (int64_t j = 0; j < n; ++j) {
    const T candidate = hyperbolic(a[2 * n + j] + kept[j] * kept[3 * n + j]);
    kept[2 * n + j] = candidate;
    h[j] = candidate + kept[n + j] * (before[j] - candidate);
  }
}

template <class T>
void plain_row(bool relu, T* __restrict h, const T* __restrict a, const T* __restrict b, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    const T x = a[j] + b[j];
    h[j] = relu ? (x < T(0) ? T(0) : x) : hyperbolic(x);
  }
}

// The gates that were kept become their gradients. What was squashed is h / out: cheaper than its function, never above
// 1, off by the two roundings of the product and the quotient (an ulp or so), and of no weight where out is 0.
template <class T>
void lstm_grad_row(T* __restrict in_, T* __restrict forget_, T* __restrict cell_, T* __restrict out_,
                   T* __restrict dc_before, const T* __restrict dh, const T* __restrict dc, const T* __restrict h,
                   const T* __restrict before, int64_t n) {
  constexpr T least = std::numeric_limits<T>::min();
  for (int64_t j = 0; j < n; ++j) {
    const T in = in_[j], forget = forget_[j], cell = cell_[j], out = out_[j];
    const T squashed = h[j] / (out < least ? least : out);
    const T d = dc[j] + dh[j] * out * (T(1) - squashed * squashed);
    in_[j] = d * cell * in * (T(1) - in);
    forget_[j] = d * before[j] * forget * (T(1) - forget);
    cell_[j] = d * in * (T(1) - cell * cell);
    out_[j] = dh[j] * h[j] * (T(1) - out);
    dc_before[j] = d * forget;
  }
}

template <class T>
void gru_grad_row(T* __restrict da, T* __restrict db, T* __restrict dh_before, const T* __restrict dh,
                  const T* __restrict kept, const T* __restrict before, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    const T reset = kept[j], update = kept[n + j], candidate = kept[2 * n + j], from_state = kept[3 * n + j];
    const T dn = dh[j] * (T(1) - update) * (T(1) - candidate * candidate);
    da[j] = db[j] = dn * from_state * reset * (T(1) - reset);
    da[n + j] = db[n + j] = dh[j] * (before[j] - candidate) * update * (T(1) - update);
    da[2 * n + j] = dn;
    db[2 * n + j] = dn * reset;
    dh_before[j] = dh[j] * update;
  }
}

template <class T>
void plain_grad_row(bool relu, T* __restrict da, const T* __restrict dh, const T* __restrict h, int64_t n) {
  for (int64_t j = 0; j < n; ++j) da[j] = relu ? (h[j] <= T(0) ? T(0) : dh[j]) : dh[j] * (T(1) - h[j] * h[j]);
}

// Row n comes from afar, and is too short for the processor's prefetchers.
void ask_for_row(const View& x, int64_t n) {
  if (n >= x.shape[0]) return;
  const auto item = static_cast<int64_t>(item_size(x.dtype));
  const char* const begin = x.as<const char>() + n * x.strides[0] * item;
  for (int64_t i = 0; i < x.shape[1] * item; i += 64) cpu::prefetch_second(begin + i);
}

// Calls f<T>(n) for the rows n of an array of T.
template <class F>
void for_each_row(const View& h, const F& f) {
  check(h.dtype == f32 || h.dtype == f64, "recurrent_cell: not implemented for ", h.dtype, " on cpu");
  parallel_for(h.shape[0], cpu::grain_of(h.shape[1] * 32), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      h.dtype == f64 ? f.template operator()<double>(n) : f.template operator()<float>(n);
  });
}

}  // namespace

void Cpu::recurrent_cell(const View& h, const View& c, const View& kept, const RecurrentStep& s) {
  const int64_t size = h.shape[1];
  for_each_row(h, [&]<class T>(int64_t n) {
    const T *const a = row<const T>(s.from_input, n), *const b = row<const T>(s.from_state, n);
    if (s.cell == RecurrentCell::lstm) {
      T* const gates = row<T>(kept, n);
      for (int64_t j = 0; a != nullptr && j < 4 * size; ++j) gates[j] = a[j] + b[j];
      lstm_row(row<T>(h, n), row<T>(c, n), gates, row<const T>(s.c_before, n), size);
    } else if (s.cell == RecurrentCell::gru) {
      gru_row(row<T>(h, n), row<T>(kept, n), a, b, row<const T>(s.h_before, n), size);
    } else {
      plain_row(s.cell == RecurrentCell::relu, row<T>(h, n), a, b, size);
    }
  });
}

void Cpu::recurrent_cell_grad(const View& d_input, const View& d_state, const View& dh_before, const View& dc_before,
                              const RecurrentGrad& s) {
  const int64_t size = s.dh.shape[1];
  for_each_row(s.dh, [&]<class T>(int64_t n) {
    const T* const dh = row<const T>(s.dh, n);
    if (s.cell == RecurrentCell::lstm) {
      for (const View* const x : {&s.kept, &s.h, &s.c_before}) ask_for_row(*x, n + 1);
      const T* const kept = row<const T>(s.kept, n);
      T* const gates = row<T>(d_input, n);
      if (gates != kept) std::copy_n(kept, 4 * size, gates);
      lstm_grad_row(gates, gates + size, gates + 2 * size, gates + 3 * size, row<T>(dc_before, n), dh,
                    row<const T>(s.dc, n), row<const T>(s.h, n), row<const T>(s.c_before, n), size);
    } else if (s.cell == RecurrentCell::gru) {
      gru_grad_row(row<T>(d_input, n), row<T>(d_state, n), row<T>(dh_before, n), dh, row<const T>(s.kept, n),
                   row<const T>(s.h_before, n), size);
    } else {
      plain_grad_row(s.cell == RecurrentCell::relu, row<T>(d_input, n), dh, row<const T>(s.h, n), size);
    }
  });
}

}  // namespace loom
