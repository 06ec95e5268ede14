// The library: whether it is used, its engine, and what differs between its versions 2 and 3.
#pragma once

#include <optional>

#include <oneapi/dnnl/dnnl.hpp>

#include <loom/accelerators/view.h>

namespace loom::onednn {

const dnnl::engine& engine();

// What pays; LOOM_ONEDNN=all has all done by oneDNN that it can do, in small parts.
struct Limits {
  bool all = false;
  int64_t least_flops = 4'000'000;  // below, what the library does around its work takes longer than it saves
  int64_t flops_of_a_part = 64'000'000, side_of_a_part = 256;  // what is packed for a part should last
};
const Limits& limits();

// While it lives, the library's OpenMP runs what this thread calls in this thread.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = 0;
};

std::optional<dnnl::memory::data_type> type_of(DType dtype);  // of what is left to oneDNN: f32, bf16
dnnl::memory::desc desc_of(const View& x);                    // throws dnnl::error where strides are none for it

// The description of a P (matmul, convolution_forward ...): version 2 has it made of another description.
template <class P, class... Args>
typename P::primitive_desc described(const dnnl::primitive_attr& attr, const Args&... args) {
  if constexpr (requires { typename P::desc; })
    return typename P::primitive_desc(typename P::desc(args...), attr, engine());
  else
    return typename P::primitive_desc(engine(), args..., attr);
}
// The same of a gradient, which is told the description of its forward pass.
template <class P, class Forward, class... Args>
typename P::primitive_desc described_after(const Forward& forward, const dnnl::primitive_attr& attr,
                                           const Args&... args) {
  if constexpr (requires { typename P::desc; })
    return typename P::primitive_desc(typename P::desc(args...), attr, engine(), forward);
  else
    return typename P::primitive_desc(engine(), args..., forward, attr);
}

template <class Ops>
void append_scale(Ops& ops, float factor) {
  constexpr auto linear = dnnl::algorithm::eltwise_linear;
  if constexpr (requires { ops.append_eltwise(1.F, linear, factor, 0.F); })
    ops.append_eltwise(1.F, linear, factor, 0.F);
  else
    ops.append_eltwise(linear, factor, 0.F);
}

}  // namespace loom::onednn
