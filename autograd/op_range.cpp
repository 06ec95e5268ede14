// What observers are told of an op.
#include <algorithm>
#include <utility>

#include <loom/autograd/op.h>

namespace loom::autograd {

namespace {

// "Input Dims" and "Input type", as torch.profiler has them; of an optional argument that is not there: [] and "".
std::string shapes_of(std::span<const Tensor* const> arguments) {
  std::string dims, types;
  for (const Tensor* const x : arguments) {
    dims += dims.empty() ? "[" : ", [";
    if (x->defined()) {
      const char* between = "";
      for (const int64_t extent : x->shape()) dims += str(std::exchange(between, ", "), extent);
    }
    dims += ']';
    types += str(types.empty() ? "\"" : ", \"", x->defined() ? to_string(x->dtype()) : std::string(), '"');
  }
  return str("\"Input Dims\": [", dims, "], \"Input type\": [", types, "]");
}

}  // namespace

void OpRange::begin(const Op& op, std::span<const Tensor* const> arguments) {
  profile::Description d{op.name};
  if (profile::records_shapes()) d.args = shapes_of(arguments);
  const auto on_device =
      std::ranges::find_if(arguments, [](const Tensor* x) { return x->defined() && x->device().kind != Device::cpu; });
  if (on_device != arguments.end()) d.device = (*on_device)->device();
  range_.begin(Activity::op, d);
}

void OpRange::begin(const Op& op, std::span<const Tensor> arguments) {
  std::vector<const Tensor*> addresses;
  addresses.reserve(arguments.size());
  for (const Tensor& x : arguments) addresses.push_back(&x);
  begin(op, std::span<const Tensor* const>(addresses));
}

}  // namespace loom::autograd
