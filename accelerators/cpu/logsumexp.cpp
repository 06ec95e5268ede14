// log(sum(exp(x))): a pass for the maximum, a pass for the sum, row by row.
#include <loom/accelerators/cpu/reduce.h>

#include <algorithm>
#include <cmath>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/exp_rows.h>

namespace loom::cpu {

namespace {

template <class T>
void logsumexp_as(const View& y, const View& x) {
  const View kept_x = part_of(x, x, y, false), kept_y = part_of(y, x, y, false), gone_x = part_of(x, x, y, true);
  const Loop<2> kept({&kept_x, &kept_y});
  const Loop<1> gone({&gone_x});
  const int64_t stride = gone.inner_stride(0);
  parallel_for(kept.numel(), std::max<int64_t>(1, grain / 4 / std::max<int64_t>(gone.numel(), 1)),
               [&](int64_t begin, int64_t end) {
                 Reader read(x.dtype, dtype_of<T>());
                 const auto each_run = [&](const char* row, const auto& f) {
                   gone.walk(0, gone.numel(), [&](const auto& p, int64_t length) {
                     for (int64_t i = 0; i < length; i += block) {
                       const int64_t n = std::min(block, length - i);
                       f(static_cast<const T*>(read(row + (p[0] - gone.data()[0]) + i * stride, stride, n)), n);
                     }
                   });
                 };
                 for (int64_t o = begin; o < end; ++o) {
                   const auto at = kept.at(o);
                   T high = neutral<Reduce::max, T>();
                   each_run(at[0], [&](const T* run, int64_t n) {
                     high = combine<Reduce::max, T>(high, reduce_block<Reduce::max, T>(run, n));
                   });
                   double result = static_cast<double>(high);
                   if (high - high == T(0)) {  // else infinite or NaN, and the result is that
                     double total = 0;
                     each_run(at[0], [&](const T* run, int64_t n) {
                       total += sum_of_exp<false>(static_cast<T*>(nullptr), run, n, high);
                     });
                     result += std::log(total);
                   }
                   store_as(y.dtype, at[1], f64, &result);
                 }
               });
}

}  // namespace

void logsumexp(const View& y, const View& x) {
  if (x.dtype == DType::f64)
    logsumexp_as<double>(y, x);
  else
    logsumexp_as<float>(y, x);
}

}  // namespace loom::cpu
