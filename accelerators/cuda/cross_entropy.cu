// Cross entropy of logits against class indices, fused with the logarithm of softmax; see the CPU's for the formulas.
// Rows are walked by a warp, or by a block where they are long.
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/dense.h>
#include <loom/accelerators/cuda/row_values.h>
#include <loom/accelerators/cuda/rows.h>

namespace loom {

namespace {

using cuda::Plus;
using cuda::RowValues;
using cuda::Run;
using cuda::threads_per_block;

constexpr int64_t warp_row = 1024;  // classes up to which a row is a warp's
constexpr const char* name = "cross_entropy";

template <class S>
struct Problem {
  using T = compute_type<S>;
  const S* logits;
  int64_t rows, classes;
  bool packs;
  RowValues target, lse;
  const T* weight;     // or null
  T smoothing, share;  // share: of a class in the smoothing
  int64_t ignore_index;
  cuda::Fault* fault;
  const char* op;

  __device__ T weight_of(int64_t c) const { return weight != nullptr ? weight[c] : T(1); }
  // Whether row r counts; a wrong target is told to the host, and does not.
  __device__ bool counts(int64_t r, int64_t t, bool tells) const {
    if (t == ignore_index) return false;
    if (t >= 0 && t < classes) return true;
    if (tells) cuda::report(fault, cuda::FaultKind::target, op, t, r, classes, ignore_index);
    return false;
  }
};

// f(row, whether there is one) for the rows of this thread's team; every thread of a block calls it equally often.
template <int team, class F>
__device__ __forceinline__ void for_rows(int64_t rows, const F& f) {
  constexpr int together = threads_per_block / team;
  for (int64_t first = int64_t{blockIdx.x} * together; first < rows; first += int64_t{gridDim.x} * together) {
    const int64_t r = first + threadIdx.x / team;
    f(r < rows ? r : 0, r < rows);
  }
}

template <class S, int team>
__global__ void __launch_bounds__(threads_per_block) forward_kernel(RowValues loss, Problem<S> p) {
  using T = compute_type<S>;
  const int thread = threadIdx.x % team;
  for_rows<team>(p.rows, [&](int64_t r, bool live) {
    const S* const x = p.logits + r * p.classes;
    const int64_t n = live ? p.classes : 0;
    auto total = cuda::no_exp_sum<T>();
    cuda::for_row(x, n, p.packs, thread, team,
                  [&]<int count>(int64_t i) { cuda::add_exp<S>(total, cuda::read_run<count>(x + i)); });
    total = cuda::across_team<team, threads_per_block>(total, cuda::JoinExpSums<S>());
    const T lse = total.high + std::log(total.sum);
    T all = 0;
    if (p.smoothing != T(0)) {
      cuda::for_row(x, n, p.packs, thread, team, [&]<int count>(int64_t i) {
        const auto run = cuda::read_run<count>(x + i);
#pragma unroll
        for (int j = 0; j < count; ++j) all += p.weight_of(i + j) * (lse - static_cast<T>(run.items[j]));
      });
      all = cuda::across_team<team, threads_per_block>(all, Plus());
    }
    if (!live || thread != 0) return;
    const auto t = p.target.template get<int64_t>(r);
    T value = 0;
    if (p.counts(r, t, true)) {
      const T nll = p.weight_of(t) * (lse - static_cast<T>(x[t]));
      value = (T(1) - p.smoothing) * nll + p.share * all;
    }
    p.lse.put(r, lse);
    loss.put(r, value);
  });
}

// d loss / d x[c] = p[c] * (a + s / C * sum w) - s / C * w[c], less a at the target; a = (1 - s) * w[t]
template <class S, int team>
__global__ void __launch_bounds__(threads_per_block, sizeof(S) == 8 ? 2 : 4)
    grad_kernel(S* dx, RowValues g, Problem<S> p, const compute_type<S>* weight_sum) {
  using T = compute_type<S>;
  const int thread = threadIdx.x % team;
  const T share = p.share;
  const T all = weight_sum != nullptr ? *weight_sum : static_cast<T>(p.classes);
  for_rows<team>(p.rows, [&](int64_t r, bool live) {
    if (!live) return;
    const S* const x = p.logits + r * p.classes;
    S* const to = dx + r * p.classes;
    const auto t = p.target.template get<int64_t>(r);
    const bool counted = p.counts(r, t, thread == 0);
    const T scale = g.template get<T>(r), lse = p.lse.template get<T>(r),
            a = (T(1) - p.smoothing) * p.weight_of(counted ? t : 0);
    const T of_p = scale * (a + share * all), of_w = scale * share, at_target = scale * a;
    cuda::for_row(x, p.classes, p.packs, thread, team, [&]<int count>(int64_t i) {
      const auto in = cuda::read_run<count>(x + i);
      Run<S, count> out;
#pragma unroll
      for (int j = 0; j < count; ++j) {
        T value = of_p * cuda::exp_of<S>(static_cast<T>(in.items[j]) - lse);
        if (of_w != T(0)) value -= of_w * p.weight_of(i + j);
        if (i + j == t) value -= at_target;
        out.items[j] = static_cast<S>(counted ? value : T(0));
      }
      cuda::write_run(to + i, out);
    });
  });
}

template <class T>
__global__ void __launch_bounds__(threads_per_block) weight_sum_kernel(T* sum, const T* weight, int64_t n) {
  T own = 0;
  for (int64_t i = threadIdx.x; i < n; i += threads_per_block) own += weight[i];
  own = cuda::across_block<threads_per_block>(own, Plus());
  if (threadIdx.x == 0) *sum = own;
}

// f.operator()<team>() with the threads that take a row.
template <class F>
void with_team(int64_t classes, const F& f) {
  if (classes <= warp_row)
    f.template operator()<cuda::warp_size>();
  else
    f.template operator()<threads_per_block>();
}

}  // namespace

void Cuda::cross_entropy(const View& loss, const View& lse, const View& logits, const View& target,
                         const CrossEntropy& options) {
  with_floating(name, logits.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = logits.shape[0], classes = logits.shape[1];
    if (rows == 0) return;
    const cuda::DenseInput x(gpu_, *this, logits, logits.dtype), weight(gpu_, *this, options.weight, dtype_of<T>());
    const Problem<S> problem{x.as<S>(),
                             rows,
                             classes,
                             true,
                             RowValues(target),
                             RowValues(lse),
                             weight.as<T>(),
                             static_cast<T>(options.label_smoothing),
                             static_cast<T>(options.label_smoothing / static_cast<double>(classes)),
                             options.ignore_index,
                             gpu_.fault(),
                             name};
    with_team(classes, [&]<int team> {
      cuda::launch(gpu_, name, &forward_kernel<S, team>, cuda::blocks_for_rows(rows, threads_per_block / team),
                   threads_per_block, 0, RowValues(loss), problem);
    });
  });
}

void Cuda::cross_entropy_grad(const View& dlogits, const View& g, const View& lse, const View& logits,
                              const View& target, const CrossEntropy& options) {
  with_floating(name, logits.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = logits.shape[0], classes = logits.shape[1];
    if (rows == 0 || classes == 0) return;
    const cuda::DenseInput x(gpu_, *this, logits, logits.dtype), weight(gpu_, *this, options.weight, dtype_of<T>());
    const cuda::DenseOutput dx(gpu_, *this, dlogits, dlogits.dtype);
    const bool sums_weights = weight.as<T>() != nullptr && options.label_smoothing != 0;
    const cuda::Scratch sum(gpu_, sums_weights ? sizeof(T) : 0);
    if (sums_weights)
      cuda::launch(gpu_, name, &weight_sum_kernel<T>, 1, threads_per_block, 0, sum.as<T>(), weight.as<T>(), classes);
    const Problem<S> problem{x.as<S>(),
                             rows,
                             classes,
                             cuda::lie_alike(x.as<S>(), dx.as<S>()),
                             RowValues(target),
                             RowValues(lse),
                             weight.as<T>(),
                             static_cast<T>(options.label_smoothing),
                             static_cast<T>(options.label_smoothing / static_cast<double>(classes)),
                             options.ignore_index,
                             gpu_.fault(),
                             name};
    with_team(classes, [&]<int team> {
      cuda::launch(gpu_, name, &grad_kernel<S, team>, cuda::blocks_for_rows(rows, threads_per_block / team),
                   threads_per_block, 0, dx.as<S>(), RowValues(g), problem, sum.as<const T>());
    });
    dx.store();
  });
}

}  // namespace loom
