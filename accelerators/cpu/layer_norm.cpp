// Layer, RMS and group norm with their gradients.
#include <algorithm>
#include <cmath>

#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/cpu/sums.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

constexpr int64_t piece = 2048;  // of a row, when it is walked to be written
// The same in backward, where the next row is asked for meanwhile, a little at a time: else memory would wait while the
// second pass over a row and the parameters' sums work in L1.
constexpr int64_t grad_piece = 256;

// How weights lie along rows of n elements: element e of all takes number e / spread % count.
struct Weights {
  int64_t n, count, spread;
  int64_t first(int64_t row) const { return row * (n / spread) % count; }
};

// f(i, length, k) for the stretches of [begin, end) of a row that have one weight, its k-th.
template <class F>
void for_stretches(int64_t begin, int64_t end, int64_t spread, const F& f) {
  for (int64_t i = begin; i < end;) {
    const int64_t k = i / spread, length = std::min((k + 1) * spread, end) - i;
    f(i, length, k);
    i += length;
  }
}

template <class T>
void write_normal(T* __restrict y, const T* x, T mean, T rstd, const T* w, const T* b, int64_t n) {
  const auto normal = [=](int64_t i) { return (x[i] - mean) * rstd; };
  if (w != nullptr && b != nullptr)
    for (int64_t i = 0; i < n; ++i) y[i] = multiply_add(normal(i), w[i], b[i]);
  else if (w != nullptr)
    for (int64_t i = 0; i < n; ++i) y[i] = normal(i) * w[i];
  else
    for (int64_t i = 0; i < n; ++i) y[i] = normal(i) + (b != nullptr ? b[i] : T(0));
}

// The same with one weight and offset for all.
template <class T>
void write_scaled(T* __restrict y, const T* x, T mean, T rstd, T w, T b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = multiply_add((x[i] - mean) * rstd, w, b);
}

template <class T>
struct Statistics {
  T mean, rstd;
};
template <class T>
Statistics<T> statistics_of(const T* x, int64_t n, double eps, bool rms) {
  if (!rms) {
    const Moments m = moments(x, n);
    return {static_cast<T>(m.mean), inverse_deviation<T>(m.variance, eps)};
  }
  const auto squares = sums_of<T, 1>(
      n, [](Vec<T> v) { return std::array{v * v}; }, x);
  return {T(0), inverse_deviation<T>(squares[0] / static_cast<double>(n), eps)};
}

// A row's share in the gradients. h = dy * w is what reaches the normalised value (x - mean) * rstd =: x^;
// dx = rstd * (h - middle - x^ * along) with the means of h and of h * x^ over the row.
template <class T>
struct RowGrad {
  const T *dy, *x, *w;  // w: the row's first weight, or null
  T *dw, *db;           // null: not wanted
  Statistics<T> s;
  int64_t n;
  T along = 0, middle = 0;

  void average(double sum_along, double sum, bool rms) {
    along = static_cast<T>(sum_along / static_cast<double>(n));
    middle = rms ? T(0) : static_cast<T>(sum / static_cast<double>(n));
  }
  // A weight for each element.
  void sums(bool rms) {
    const Vec<T> m = broadcast(s.mean), r = broadcast(s.rstd);
    const auto terms = [=](Vec<T> h, Vec<T> v) { return std::array{h * ((v - m) * r), h}; };
    const auto total = w != nullptr ? sums_of<T, 2>(
                                          n, [=](Vec<T> g, Vec<T> v, Vec<T> k) { return terms(g * k, v); }, dy, x, w)
                                    : sums_of<T, 2>(n, terms, dy, x);
    average(total[0], total[1], rms);
  }
  void parameters() const {
    const auto normal = [x = x, s = s](int64_t i) { return (x[i] - s.mean) * s.rstd; };
    T* __restrict const to_w = dw;
    T* __restrict const to_b = db;
    if (dw != nullptr && db != nullptr)
      for (int64_t i = 0; i < n; ++i) {
        to_w[i] += dy[i] * normal(i);
        to_b[i] += dy[i];
      }
    else if (dw != nullptr)
      for (int64_t i = 0; i < n; ++i) to_w[i] += dy[i] * normal(i);
    else if (db != nullptr)
      for (int64_t i = 0; i < n; ++i) to_b[i] += dy[i];
  }
  // A weight for each `spread` elements: sums of those give the parameters' gradients as well.
  void spread_sums(int64_t spread, bool rms) {
    const Vec<T> m = broadcast(s.mean), r = broadcast(s.rstd);
    double sum_along = 0, sum = 0;
    for_stretches(0, n, spread, [&](int64_t i, int64_t length, int64_t k) {
      const auto total = sums_of<T, 2>(
          length,
          [=](Vec<T> g, Vec<T> v) {
            return std::array{g * ((v - m) * r), g};
          },
          dy + i, x + i);
      const double weight = w != nullptr ? static_cast<double>(w[k]) : 1.0;
      sum_along += weight * total[0];
      sum += weight * total[1];
      if (dw != nullptr) dw[k] += static_cast<T>(total[0]);
      if (db != nullptr) db[k] += static_cast<T>(total[1]);
    });
    average(sum_along, sum, rms);
  }
  // dx of elements [begin, begin + length), to y.
  void input(T* __restrict y, int64_t begin, int64_t length, int64_t spread) const {
    const auto write = [&](int64_t i, int64_t count, const auto& h) {
      const T *v = x + i, *g = dy + i;
      T* __restrict const to = y + (i - begin);
      for (int64_t j = 0; j < count; ++j) to[j] = s.rstd * (h(g[j], i + j) - middle - (v[j] - s.mean) * s.rstd * along);
    };
    if (w == nullptr)
      write(begin, length, [](T g, int64_t) { return g; });
    else if (spread == 1)
      write(begin, length, [w = w](T g, int64_t i) { return g * w[i]; });
    else
      for_stretches(begin, begin + length, spread, [&](int64_t i, int64_t count, int64_t k) {
        write(i, count, [weight = w[k]](T g, int64_t) { return g * weight; });
      });
  }
};

// dw and db are summed in at most 32 parts, cut by the number of rows alone: the same bits for any number of threads.
int64_t parts_for(int64_t rows) { return std::clamp<int64_t>(rows / 16, 1, 32); }

template <class T>
void sum_parts(T* total, const T* parts, int64_t count, int64_t n) {
  if (total == nullptr) return;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (int64_t p = 0; p < count; ++p) sum += static_cast<double>(parts[p * n + i]);
    total[i] = static_cast<T>(sum);
  }
}

}  // namespace

void Cpu::layer_norm(const View& y, const View& mean, const View& rstd, const View& x, const View& w, const View& b,
                     double eps, bool rms, int64_t spread) {
  with_floating(rms ? "rms_norm" : "layer_norm", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = x.shape[0], n = x.shape[1];
    const DenseInput<S> in(x);
    const DenseInput<T> weight(w), bias(b);
    const DenseOutput<S> out(y);
    const DenseOutput<T> mean_out(rms ? View() : mean), rstd_out(rstd);
    const int64_t count = w.data != nullptr ? w.numel() : b.data != nullptr ? b.numel() : 1;
    const Weights weights{n, count, spread};
    parallel_for(rows, grain_of(n * 4), [&](int64_t begin, int64_t end) {
      RowSource<S> source(n);
      RowTarget<S> target(rows * n, std::min(n, piece));
      for (int64_t r = begin; r < end; ++r) {
        if (r + 1 < end) ask_for_row(in.data() + (r + 1) * n, n);
        const T* const row = source(in.data() + r * n, n);
        const Statistics<T> s = statistics_of(row, n, eps, rms);
        if (!rms) mean_out.data()[r] = s.mean;
        rstd_out.data()[r] = s.rstd;
        const T* const wr = w.data != nullptr ? weight.data() + weights.first(r) : nullptr;
        const T* const br = b.data != nullptr ? bias.data() + weights.first(r) : nullptr;
        for (int64_t i = 0; i < n; i += piece) {
          const int64_t length = std::min(piece, n - i);
          T* const to = target.begin(out.data() + r * n + i);
          if (spread == 1 || (wr == nullptr && br == nullptr))
            write_normal(to, row + i, s.mean, s.rstd, wr != nullptr ? wr + i : wr, br != nullptr ? br + i : br, length);
          else
            for_stretches(i, i + length, spread, [&](int64_t j, int64_t m, int64_t k) {
              write_scaled(to + (j - i), row + j, s.mean, s.rstd, wr != nullptr ? wr[k] : T(1),
                           br != nullptr ? br[k] : T(0), m);
            });
          target.end(out.data() + r * n + i, length);
        }
      }
    });
    out.store();
    mean_out.store();
    rstd_out.store();
  });
}

void Cpu::layer_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x, const View& w,
                          const View& mean, const View& rstd, bool rms, int64_t spread) {
  with_floating(rms ? "rms_norm" : "layer_norm", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = x.shape[0], n = x.shape[1], parts = parts_for(rows);
    const DenseInput<S> g(dy), in(x);
    const DenseInput<T> weight(w), mean_in(rms ? View() : mean), rstd_in(rstd);
    const DenseOutput<S> dx_out(dx);
    const DenseOutput<T> dw_out(dw), db_out(db);
    const int64_t count = dw.data != nullptr   ? dw.numel()
                          : db.data != nullptr ? db.numel()
                          : w.data != nullptr  ? w.numel()
                                               : 1;
    const Weights weights{n, count, spread};
    const Scratch<T> dw_parts(dw.data != nullptr ? parts * count : 0), db_parts(db.data != nullptr ? parts * count : 0);
    parallel_for(parts, grain_of(rows / parts * n * 4), [&](int64_t begin, int64_t end) {
      RowSource<S> source_g(n), source_x(n);
      RowTarget<S> target(rows * n, std::min(n, grad_piece));
      const int64_t last = rows * end / parts;
      for (int64_t p = begin; p < end; ++p) {
        T* const dw_part = dw.data != nullptr ? dw_parts.data() + p * count : nullptr;
        T* const db_part = db.data != nullptr ? db_parts.data() + p * count : nullptr;
        if (dw_part != nullptr) std::fill_n(dw_part, count, T(0));
        if (db_part != nullptr) std::fill_n(db_part, count, T(0));
        for (int64_t r = rows * p / parts; r < rows * (p + 1) / parts; ++r) {
          const int64_t first = weights.first(r);
          RowGrad<T> grad{source_g(g.data() + r * n, n),
                          source_x(in.data() + r * n, n),
                          w.data != nullptr ? weight.data() + first : nullptr,
                          dw_part != nullptr ? dw_part + first : nullptr,
                          db_part != nullptr ? db_part + first : nullptr,
                          {rms ? T(0) : mean_in.data()[r], rstd_in.data()[r]},
                          n};
          if (spread > 1)
            grad.spread_sums(spread, rms);
          else if (dx.data != nullptr)
            grad.sums(rms);
          for (int64_t i = 0; dx.data != nullptr && i < n; i += grad_piece) {
            const int64_t length = std::min(grad_piece, n - i), next = (r + 1) * n + i;
            if (r + 1 < last) ask_for_row(g.data() + next, length);
            if (r + 1 < last) ask_for_row(in.data() + next, length);
            grad.input(target.begin(dx_out.data() + r * n + i), i, length, spread);
            target.end(dx_out.data() + r * n + i, length);
          }
          if (spread == 1) grad.parameters();
        }
      }
    });
    sum_parts(dw_out.data(), dw_parts.data(), parts, count);
    sum_parts(db_out.data(), db_parts.data(), parts, count);
    dx_out.store();
    dw_out.store();
    db_out.store();
  });
}

}  // namespace loom
