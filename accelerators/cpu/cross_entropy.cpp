// Cross entropy of logits against class indices, fused with the logarithm of softmax.
//
// Row n with target t, p = softmax(logits[n]), s = label_smoothing, w = class weights (or ones):
//   loss = (1 - s) * w[t] * -log p[t] + s / C * sum_c w[c] * -log p[c]
#include <algorithm>
#include <array>

#include <loom/accelerators/cpu/exp_rows.h>
#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

// Before any work, in one thread: so the row that the message names does not depend on timing.
void check_targets(const int64_t* target, int64_t rows, int64_t classes, int64_t ignore_index) {
  for (int64_t n = 0; n < rows; ++n)
    check((target[n] >= 0 && target[n] < classes) || target[n] == ignore_index, "cross_entropy: target ", target[n],
          " at row ", n, " is out of range for ", classes, " classes (ignore_index is ", ignore_index, ")");
}

template <class T>
struct Row {
  const T* x;
  int64_t classes, target;
  const T* weight;  // or null
  T smoothing;

  T target_weight() const { return weight != nullptr ? weight[target] : T(1); }
  T loss(T lse) const {
    const T nll = target_weight() * (lse - x[target]);
    if (smoothing == T(0)) return nll;
    const double all = blocked_sum<T>(
        classes, [=, x = x, w = weight](int64_t c) { return w != nullptr ? w[c] * (lse - x[c]) : lse - x[c]; });
    return (T(1) - smoothing) * nll + smoothing * static_cast<T>(all / static_cast<double>(classes));
  }
  // d loss / d x[c] = p[c] * (a + s / C * sum w) - s / C * w[c], less a at the target; a = (1 - s) * w[t]
  struct Factors {
    T of_p, of_w, at_target;
  };
  Factors factors(T g, T weight_sum) const {
    const T share = smoothing / static_cast<T>(classes), a = (T(1) - smoothing) * target_weight();
    return {g * (a + share * weight_sum), share == T(0) ? T(0) : g * share,
            g * a};  // g: infinite where a scale overflows
  }
  // No logit lies above lse but by a rounding.
  void gradient(T* __restrict dx, T g, T lse, T weight_sum) const {
    const auto [of_p, of_w, at_target] = factors(g, weight_sum);
    if (smoothing == T(0) || weight == nullptr) {
      scaled_exp(dx, x, classes, lse, of_p, of_w);
    } else {
      for (int64_t c = 0; c < classes; ++c) dx[c] = of_p * vector_math::exp_below(x[c] - lse) - of_w * weight[c];
    }
    dx[target] -= at_target;
  }
};

// log(sum(exp)) of short rows, a turned tile of them at a time.
template <class T>
void short_lse(T* lse, const T* x, int64_t rows, int64_t n) {
  alignas(64) T tile[short_row * tile_rows], top[tile_rows], sum[tile_rows];
  for (int64_t first = 0; first < rows; first += tile_rows) {
    const int64_t width = std::min(tile_rows, rows - first);
    turn_rows(tile, x + first * n, width, n);
    std::copy_n(tile, width, top);
    std::fill_n(sum, width, T(0));
    for (int64_t c = 1; c < n; ++c)
      for (int64_t r = 0; r < width; ++r) top[r] = tile[c * tile_rows + r] > top[r] ? tile[c * tile_rows + r] : top[r];
    for (int64_t c = 0; c < n; ++c)
      for (int64_t r = 0; r < width; ++r) sum[r] += vector_math::exp_below(tile[c * tile_rows + r] - top[r]);
    for (int64_t r = 0; r < width; ++r) lse[first + r] = top[r] + vector_math::log(sum[r]);
  }
}

// Gradients of up to tile_rows short rows, without what the targets take off.
template <class T>
void short_gradient(T* dx, const Row<T>* rows, const typename Row<T>::Factors* factors, const T* lse, int64_t width) {
  alignas(64) T tile[short_row * tile_rows], p[tile_rows], w[tile_rows];
  for (int64_t r = 0; r < width; ++r) {
    p[r] = factors[r].of_p;
    w[r] = factors[r].of_w;
  }
  const int64_t n = rows[0].classes;
  turn_rows(tile, rows[0].x, width, n);
  for (int64_t c = 0; c < n; ++c) {
    const T weight = rows[0].weight != nullptr ? rows[0].weight[c] : T(1);
    T* const line = tile + c * tile_rows;
    for (int64_t r = 0; r < width; ++r) line[r] = p[r] * vector_math::exp_below(line[r] - lse[r]) - w[r] * weight;
  }
  turn_back(dx, tile, width, n);
}

}  // namespace

void Cpu::cross_entropy(const View& loss, const View& lse, const View& logits, const View& target,
                        const CrossEntropy& options) {
  with_floating("cross_entropy", logits.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = logits.shape[0], classes = logits.shape[1];
    const DenseInput<int64_t> t(target);
    check_targets(t.data(), rows, classes, options.ignore_index);
    const bool turned = classes <= short_row;
    const DenseInput<S> x(turned ? View() : logits);
    const DenseInput<T> weight(options.weight);
    const DenseOutput<T> loss_out(loss), lse_out(lse);
    const DenseInput<T> short_x(turned ? logits : View());
    const auto put = [&](int64_t n, const T* row_of_x, T value) {
      const Row<T> row{row_of_x, classes, t.data()[n], weight.data(), static_cast<T>(options.label_smoothing)};
      lse_out.data()[n] = value;
      loss_out.data()[n] = row.target == options.ignore_index ? T(0) : row.loss(value);
    };
    parallel_for(rows, grain_of(classes * 4), [&](int64_t begin, int64_t end) {
      if (turned) {
        short_lse(lse_out.data() + begin, short_x.data() + begin * classes, end - begin, classes);
        for (int64_t n = begin; n < end; ++n) put(n, short_x.data() + n * classes, lse_out.data()[n]);
        return;
      }
      RowSource<S> source(classes);
      for (int64_t n = begin; n < end; ++n) {
        const S* const at = x.data() + n * classes;
        const RowAfter<S> after(n + 1 < end ? at + classes : nullptr, classes);
        const ExpRow<T> row = exp_row<false, T>(nullptr, source(at, classes), classes, after);
        put(n, row.x, static_cast<T>(static_cast<double>(row.top) + std::log(row.sum)));
      }
    });
    loss_out.store();
    lse_out.store();
  });
}

void Cpu::cross_entropy_grad(const View& dlogits, const View& g, const View& lse, const View& logits,
                             const View& target, const CrossEntropy& options) {
  with_floating("cross_entropy", logits.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = logits.shape[0], classes = logits.shape[1];
    const DenseInput<int64_t> t(target);
    check_targets(t.data(), rows, classes, options.ignore_index);
    const bool turned = classes <= short_row;
    const DenseInput<S> long_x(turned ? View() : logits);
    const DenseInput<T> x(turned ? logits : View()), weight(options.weight), g_in(g), lse_in(lse);
    const DenseOutput<S> long_out(turned ? View() : dlogits);
    const DenseOutput<T> out(turned ? dlogits : View());
    const T* w = weight.data();
    const auto weight_sum = w == nullptr ? static_cast<T>(classes)
                                         : static_cast<T>(blocked_sum<T>(classes, [=](int64_t c) { return w[c]; }));
    const auto row_of = [&](const T* row, int64_t n) {
      return Row<T>{row, classes, t.data()[n], w, static_cast<T>(options.label_smoothing)};
    };
    const auto ignored = [&](int64_t n) { return t.data()[n] == options.ignore_index; };
    const auto each_row = [&](int64_t begin, int64_t end) {
      RowSource<S> source(classes);
      RowTarget<S> target(rows * classes, classes);
      for (int64_t n = begin; n < end; ++n) {
        if (n + 1 < end) ask_for_row(long_x.data() + (n + 1) * classes, classes);
        T* const dx = target.begin(long_out.data() + n * classes);
        if (ignored(n))
          std::fill_n(dx, classes, T(0));
        else
          row_of(source(long_x.data() + n * classes, classes), n)
              .gradient(dx, g_in.data()[n], lse_in.data()[n], weight_sum);
        target.end(long_out.data() + n * classes, classes);
      }
    };
    const auto each_tile = [&](int64_t begin, int64_t end) {
      std::array<Row<T>, tile_rows> tile;
      std::array<typename Row<T>::Factors, tile_rows> factors;
      for (int64_t first = begin; first < end; first += tile_rows) {
        const int64_t width = std::min(tile_rows, end - first);
        for (int64_t r = 0; r < width; ++r) {
          tile[r] = row_of(x.data() + (first + r) * classes, first + r);
          factors[r] =
              ignored(first + r) ? typename Row<T>::Factors{} : tile[r].factors(g_in.data()[first + r], weight_sum);
        }
        T* const dx = out.data() + first * classes;
        short_gradient(dx, tile.data(), factors.data(), lse_in.data() + first, width);
        for (int64_t r = 0; r < width; ++r) {
          if (ignored(first + r))
            std::fill_n(dx + r * classes, classes, T(0));
          else
            dx[r * classes + tile[r].target] -= factors[r].at_target;
        }
      }
    };
    if (turned)
      parallel_for(rows, grain_of(classes * 4), each_tile);
    else
      parallel_for(rows, grain_of(classes * 4), each_row);
    out.store();
    long_out.store();
  });
}

}  // namespace loom
