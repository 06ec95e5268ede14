#include <loom/nn/mismatches.h>

#include <utility>

namespace loom {

namespace {
void append(std::string& list, const std::string& entry) { list += (list.empty() ? "" : ", ") + entry; }
}  // namespace

void Mismatches::expect(const std::string& key, const Dims& shape, bool needed) {
  known_.insert(key);
  const auto found = values_.find(key);
  if (found == values_.end() || !found->second.defined()) {
    if (needed) append(missing_, key);
  } else if (found->second.shape() != shape) {
    append(shapes_, str(key, " is ", shape, " here and ", found->second.shape(), " in the values"));
  }
}

void Mismatches::refuse_others() {
  for (const auto& [key, value] : values_)
    if (!known_.contains(key)) append(unexpected_, key);
}

std::string Mismatches::text() const {
  std::string text;
  for (const auto& [title, list] : {std::pair("missing keys: ", missing_), std::pair("unexpected keys: ", unexpected_),
                                    std::pair("shapes differ: ", shapes_)})
    if (!list.empty()) text += (text.empty() ? "" : "; ") + (title + list);
  return text;
}

}  // namespace loom
