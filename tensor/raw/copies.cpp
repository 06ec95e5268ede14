// Copies: to dense memory, another dtype, another device, into memory that exists.
#include <limits>

#include <loom/accelerators/profile.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/pinned.h>
#include <loom/tensor/raw/operand.h>

namespace loom::raw {

Tensor contiguous(const Tensor& x) { return x.is_contiguous() ? x : clone(x); }

Tensor clone(const Tensor& x) {
  Tensor y = uninitialized("clone", x.shape(), x.dtype(), x.device());
  if (y.numel() > 0) accelerator(x.device()).copy(y, x);
  return y;
}

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Tensor y = uninitialized_like("to", {&x}, x.shape(), dtype);
  if (y.numel() > 0) accelerator(x.device()).copy(y, x);
  return y;
}

namespace {

// Between devices memory moves as it is, dense to dense; the device that is not the host does it.
void transfer(std::string_view op, const View& y, const View& x, bool non_blocking) {
  const bool to_host = y.device.kind == Device::cpu;
  const profile::Range range(Activity::copy, [&] {
    return profile::Description{.name = str("copy ", x.device, " to ", y.device),
                                .args = str("\"bytes\": ", y.bytes()),
                                .device = to_host ? x.device : y.device};
  });
  Accelerator& device = accelerator(to_host ? x.device : y.device);
  if (non_blocking && device.is_pinned(to_host ? y.data : x.data)) return device.copy_in_stream(y, x);
  if (to_host) check_may_wait(op, x.device);
  if (x.device.kind == Device::cpu) check_may_read_host(op, y.device);
  device.copy(y, x);
}

}  // namespace

Tensor to_device(const Tensor& x, Device device, bool non_blocking) {
  if (x.device() == device) return x;
  const bool to_pinned = non_blocking && device.kind == Device::cpu;  // where alone the host need not wait
  Tensor y =
      to_pinned ? empty_pinned(x.shape(), x.dtype(), x.device()) : uninitialized("to", x.shape(), x.dtype(), device);
  if (y.numel() > 0) transfer("to", y, contiguous(x), non_blocking);
  return y;
}

// Integral dtypes are filled with integers: a double would not hold all of them.
void fill(std::string_view op, const Tensor& y, double value) {
  Accelerator& device = accelerator(y.device());
  if (is_floating(y.dtype())) {
    if (y.numel() > 0) device.fill(y, value);
    return;
  }
  const bool held = with_type(y.dtype(), [&]<class T> {
    using Limits = std::numeric_limits<T>;
    const double below_first = static_cast<double>(Limits::min()) - 1, last = static_cast<double>(Limits::max());
    return std::is_same_v<T, bool> ||
           (sizeof(T) == 8 ? value >= -0x1p63 && value < 0x1p63 : value > below_first && value < last + 1);
  });
  check(held, op, ": ", value, " cannot be stored in ", y.dtype());
  if (y.numel() > 0) device.fill(y, y.dtype() == DType::boolean ? int64_t{value != 0} : static_cast<int64_t>(value));
}

void fill_into(const Tensor& y, double value) {
  check_writable("fill_", y);
  fill("fill_", y, value);
  y.storage()->bump_version();
}

void copy_into(const Tensor& y, const Tensor& x, bool non_blocking) {
  check_writable("copy_", y);
  check(broadcast_shapes("copy_", y.shape(), x.shape()) == y.shape(), "copy_: shape ", x.shape(),
        " does not broadcast to ", y.shape());
  y.storage()->bump_version();
  if (y.numel() == 0) return;
  if (y.device() != x.device()) {  // convert where x is, move, then spread
    const Tensor source = contiguous(cast(x, y.dtype()));
    if (y.is_contiguous() && y.shape() == x.shape()) return transfer("copy_", y, source, non_blocking);
    return accelerator(y.device()).copy(y, broadcast(to_device(source, y.device()), y.shape()));
  }
  const View target = y, source = broadcast(x, y.shape());
  if (target.data == source.data && target.dtype == source.dtype && target.strides == source.strides) return;
  if (overlaps(target, source))
    accelerator(y.device()).copy(target, broadcast(clone(x), y.shape()));
  else
    accelerator(y.device()).copy(target, source);
}

}  // namespace loom::raw
