#include <loom/nn/mismatches.h>

#include <utility>

namespace loom {

namespace {

void append(std::string& list, const std::string& entry) { list += (list.empty() ? "" : ", ") + entry; }

bool same_kind(DType a, DType b) {
  return is_floating(a) == is_floating(b) && (a == DType::boolean) == (b == DType::boolean);
}

}  // namespace

bool Mismatches::expect(const std::string& key, const Dims& shape, DType dtype, bool needed) {
  known_.insert(key);
  const auto found = values_.find(key);
  if (found == values_.end() || !found->second.defined()) {
    if (needed) append(missing_, key);
    return false;
  }
  const Tensor& x = found->second;
  const bool shaped = x.shape() == shape, typed = same_kind(x.dtype(), dtype);
  if (!shaped) append(shapes_, str(key, " is ", shape, " here and ", x.shape(), " in the values"));
  if (!typed) append(dtypes_, str(key, " is ", dtype, " here and ", x.dtype(), " in the values"));
  return shaped && typed;
}

void Mismatches::refuse(const std::string& why) { append(invalid_, why); }

void Mismatches::refuse_others() {
  for (const auto& [key, value] : values_)
    if (!known_.contains(key)) append(unexpected_, key);
}

std::string Mismatches::text() const {
  std::string text;
  for (const auto& [title, list] : {std::pair("missing keys: ", missing_), std::pair("unexpected keys: ", unexpected_),
                                    std::pair("shapes differ: ", shapes_), std::pair("dtypes differ: ", dtypes_),
                                    std::pair("invalid values: ", invalid_)})
    if (!list.empty()) text += (text.empty() ? "" : "; ") + (title + list);
  return text;
}

}  // namespace loom
