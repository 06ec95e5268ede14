// Cross entropy of logits against class indices, fused with the logarithm of softmax.
//
// Row n with target t, p = softmax(logits[n]), s = label_smoothing, w = class weights (or ones):
//   loss = (1 - s) * w[t] * -log p[t] + s / C * sum_c w[c] * -log p[c]
#include <algorithm>

#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/scratch.h>
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
  T lse() const {
    const T top = largest(x, classes);
    const double sum = blocked_sum<T>(classes, [=, x = x](int64_t c) { return vector_exp(x[c] - top); });
    return static_cast<T>(static_cast<double>(top) + std::log(sum));
  }
  T loss(T lse) const {
    const T nll = target_weight() * (lse - x[target]);
    if (smoothing == T(0)) return nll;
    const double all = blocked_sum<T>(
        classes, [=, x = x, w = weight](int64_t c) { return w != nullptr ? w[c] * (lse - x[c]) : lse - x[c]; });
    return (T(1) - smoothing) * nll + smoothing * static_cast<T>(all / static_cast<double>(classes));
  }
  // d loss / d x[c] = p[c] * (a + s / C * sum w) - s / C * w[c], less a at the target; a = (1 - s) * w[t]
  void gradient(T* dx, T g, T lse, T weight_sum) const {
    const T share = smoothing / static_cast<T>(classes), a = (T(1) - smoothing) * target_weight();
    const T of_p = g * (a + share * weight_sum), of_w = g * share;
    if (smoothing == T(0)) {
      for (int64_t c = 0; c < classes; ++c) dx[c] = of_p * vector_exp(x[c] - lse);
    } else if (weight == nullptr) {
      for (int64_t c = 0; c < classes; ++c) dx[c] = of_p * vector_exp(x[c] - lse) - of_w;
    } else {
      for (int64_t c = 0; c < classes; ++c) dx[c] = of_p * vector_exp(x[c] - lse) - of_w * weight[c];
    }
    dx[target] -= g * a;
  }
};

}  // namespace

void Cpu::cross_entropy(const View& loss, const View& lse, const View& logits, const View& target,
                        const CrossEntropy& options) {
  with_floating("cross_entropy", logits.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = logits.shape[0], classes = logits.shape[1];
    const DenseInput<int64_t> t(target);
    check_targets(t.data(), rows, classes, options.ignore_index);
    const DenseInput<T> x(logits), weight(options.weight);
    const DenseOutput<T> loss_out(loss), lse_out(lse);
    parallel_for(rows, grain_of(classes * 4), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const Row<T> row{x.data() + n * classes, classes, t.data()[n], weight.data(),
                         static_cast<T>(options.label_smoothing)};
        const T value = row.lse();
        lse_out.data()[n] = value;
        loss_out.data()[n] = row.target == options.ignore_index ? T(0) : row.loss(value);
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
    const DenseInput<T> x(logits), weight(options.weight), g_in(g), lse_in(lse);
    const DenseOutput<T> out(dlogits);
    const T* w = weight.data();
    const auto weight_sum = w == nullptr ? static_cast<T>(classes)
                                         : static_cast<T>(blocked_sum<T>(classes, [=](int64_t c) { return w[c]; }));
    parallel_for(rows, grain_of(classes * 4), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        T* dx = out.data() + n * classes;
        const Row<T> row{x.data() + n * classes, classes, t.data()[n], w, static_cast<T>(options.label_smoothing)};
        if (row.target == options.ignore_index)
          std::fill_n(dx, classes, T(0));
        else
          row.gradient(dx, g_in.data()[n], lse_in.data()[n], weight_sum);
      }
    });
    out.store();
  });
}

}  // namespace loom
