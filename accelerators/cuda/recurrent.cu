// Cells of recurrent layers: what happens to the gates after the products, one pass each way, a thread an element.
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/layout.h>

namespace loom {

namespace {

using cuda::threads_per_block;

template <class T>
__device__ T sigmoid(T x) {
  return T(1) / (T(1) + std::exp(-x));
}

// Gates of one element, which lie `size` apart.
template <class T>
struct Gates {
  T* first;
  int64_t size;
  __device__ T& operator[](int gate) const { return first[gate * size]; }
};

// Rows of `size` elements, counted in 32 bits where all of them can be.
struct Rows {
  int64_t elements, size;
  cuda::Divider by_size;
  explicit Rows(const View& h)
      : elements(h.numel()),
        size(h.shape[1]),
        by_size(elements <= std::numeric_limits<int32_t>::max() ? static_cast<uint32_t>(size) : 1) {}
  __device__ int64_t of(int64_t i) const {
    return elements <= std::numeric_limits<int32_t>::max() ? by_size.quotient(static_cast<uint32_t>(i)) : i / size;
  }
};

template <class T>
struct Step {
  T *h, *c, *kept;
  const T *from_input, *from_state, *h_before, *c_before;
};

// Element i = n * size + j; the gates of arrays [N, 4 * size] begin at n * 4 * size + j.
template <class T>
__device__ void lstm(const Step<T>& s, int64_t i, Gates<const T> a, Gates<const T> b, Gates<T> kept) {
  const T x[] = {a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]}, before = s.c_before[i];
  const T in = kept[0] = sigmoid(x[0]);
  const T cell = kept[2] = std::tanh(x[2]);
  const T forget = kept[1] = sigmoid(x[1]);
  const T c = forget * before + in * cell;
  const T out = kept[3] = sigmoid(x[3]);
  s.c[i] = c;
  s.h[i] = out * std::tanh(c);
}

template <class T>
__device__ void gru(const Step<T>& s, int64_t i, Gates<const T> a, Gates<const T> b, Gates<T> kept) {
  const T reset = sigmoid(a[0] + b[0]), update = sigmoid(a[1] + b[1]), from_state = b[2];
  const T candidate = std::tanh(a[2] + reset * from_state);
  kept[0] = reset;
  kept[1] = update;
  kept[2] = candidate;
  kept[3] = from_state;
  s.h[i] = candidate + update * (s.h_before[i] - candidate);
}

template <class T, RecurrentCell cell>
__global__ void __launch_bounds__(threads_per_block) step_kernel(Step<T> s, Rows rows) {
  constexpr int gates = cell == RecurrentCell::lstm ? 4 : cell == RecurrentCell::gru ? 3 : 1;
  cuda::for_each_item(rows.elements, [&](int64_t i) {
    const int64_t size = rows.size, row = rows.of(i), j = i - row * size, at = row * gates * size + j;
    const Gates<const T> a{s.from_input + at, size}, b{s.from_state + at, size};
    if constexpr (cell == RecurrentCell::lstm) {
      lstm(s, i, a, b, Gates<T>{s.kept + row * 4 * size + j, size});
    } else if constexpr (cell == RecurrentCell::gru) {
      gru(s, i, a, b, Gates<T>{s.kept + row * 4 * size + j, size});
    } else {
      const T x = a[0] + b[0];
      s.h[i] = cell == RecurrentCell::relu ? (x < T(0) ? T(0) : x) : std::tanh(x);
    }
  });
}

template <class T>
struct Grad {
  T *d_input, *d_state, *dh_before, *dc_before;
  const T *dh, *dc, *kept, *h, *c, *h_before, *c_before;
};

template <class T>
__device__ void lstm_grad(const Grad<T>& s, int64_t i, Gates<T> da, Gates<const T> kept) {
  const T in = kept[0], forget = kept[1], cell = kept[2], out = kept[3];
  const T squashed = std::tanh(s.c[i]), dh = s.dh[i];
  const T d = s.dc[i] + dh * out * (T(1) - squashed * squashed);
  da[0] = d * cell * in * (T(1) - in);
  da[1] = d * s.c_before[i] * forget * (T(1) - forget);
  da[2] = d * in * (T(1) - cell * cell);
  da[3] = dh * squashed * out * (T(1) - out);
  s.dc_before[i] = d * forget;
}

template <class T>
__device__ void gru_grad(const Grad<T>& s, int64_t i, Gates<T> da, Gates<T> db, Gates<const T> kept) {
  const T reset = kept[0], update = kept[1], candidate = kept[2], from_state = kept[3], dh = s.dh[i];
  const T dn = dh * (T(1) - update) * (T(1) - candidate * candidate);
  da[0] = db[0] = dn * from_state * reset * (T(1) - reset);
  da[1] = db[1] = dh * (s.h_before[i] - candidate) * update * (T(1) - update);
  da[2] = dn;
  db[2] = dn * reset;
  s.dh_before[i] = dh * update;
}

template <class T, RecurrentCell cell>
__global__ void __launch_bounds__(threads_per_block) grad_kernel(Grad<T> s, Rows rows) {
  cuda::for_each_item(rows.elements, [&](int64_t i) {
    const int64_t size = rows.size, row = rows.of(i), j = i - row * size, at3 = row * 3 * size + j,
                  at4 = row * 4 * size + j;
    if constexpr (cell == RecurrentCell::lstm) {
      lstm_grad(s, i, Gates<T>{s.d_input + at4, size}, Gates<const T>{s.kept + at4, size});
    } else if constexpr (cell == RecurrentCell::gru) {
      gru_grad(s, i, Gates<T>{s.d_input + at3, size}, Gates<T>{s.d_state + at3, size},
               Gates<const T>{s.kept + at4, size});
    } else {
      const T h = s.h[i], dh = s.dh[i];
      s.d_input[i] = cell == RecurrentCell::relu ? (h <= T(0) ? T(0) : dh) : dh * (T(1) - h * h);
    }
  });
}

// Calls f<T, cell>().
template <class F>
void with_cell(RecurrentCell cell, DType t, const F& f) {
  check(t == f32 || t == f64, "recurrent_cell: not implemented for ", t, " on cuda");
  const auto with_type = [&]<class T> {
    switch (cell) {
      case RecurrentCell::tanh:
        return f.template operator()<T, RecurrentCell::tanh>();
      case RecurrentCell::relu:
        return f.template operator()<T, RecurrentCell::relu>();
      case RecurrentCell::gru:
        return f.template operator()<T, RecurrentCell::gru>();
      case RecurrentCell::lstm:
        return f.template operator()<T, RecurrentCell::lstm>();
    }
  };
  t == f64 ? with_type.template operator()<double>() : with_type.template operator()<float>();
}

}  // namespace

void Cuda::recurrent_cell(const View& h, const View& c, const View& kept, const RecurrentStep& s) {
  const int64_t n = h.numel();
  if (n == 0) return;
  with_cell(s.cell, h.dtype, [&]<class T, RecurrentCell cell> {
    const Step<T> step{h.as<T>(),
                       c.as<T>(),
                       kept.as<T>(),
                       s.from_input.as<const T>(),
                       s.from_state.as<const T>(),
                       s.h_before.as<const T>(),
                       s.c_before.as<const T>()};
    cuda::launch(gpu_, "recurrent_cell", &step_kernel<T, cell>, cuda::grid_for(gpu_, n), threads_per_block, 0, step,
                 Rows(h));
  });
}

void Cuda::recurrent_cell_grad(const View& d_input, const View& d_state, const View& dh_before, const View& dc_before,
                               const RecurrentGrad& s) {
  const int64_t n = s.dh.numel();
  if (n == 0) return;
  with_cell(s.cell, s.dh.dtype, [&]<class T, RecurrentCell cell> {
    const Grad<T> grad{d_input.as<T>(),    d_state.as<T>(),          dh_before.as<T>(),       dc_before.as<T>(),
                       s.dh.as<const T>(), s.dc.as<const T>(),       s.kept.as<const T>(),    s.h.as<const T>(),
                       s.c.as<const T>(),  s.h_before.as<const T>(), s.c_before.as<const T>()};
    cuda::launch(gpu_, "recurrent_cell", &grad_kernel<T, cell>, cuda::grid_for(gpu_, n), threads_per_block, 0, grad,
                 Rows(s.dh));
  });
}

}  // namespace loom
