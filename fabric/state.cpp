#include <loom/fabric/state.h>

#include <charconv>

#include <loom/tensor/raw.h>

namespace loom {

const std::string& StateDict::value(const std::string& name) const {
  const auto found = values.find(name);
  check(found != values.end(), "the checkpoint's entry has no value '", name, "'");
  return found->second;
}

std::string number_to_text(double value) { return text::number(value); }

namespace {

template <class T>
T parsed(const std::string& text, const char* what) {
  T value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(status == std::errc() && end == text.data() + text.size(), "'", text, "' is not a ", what);
  return value;
}

}  // namespace

double text_to_number(const std::string& text) { return parsed<double>(text, "number"); }
int64_t text_to_signed(const std::string& text) { return parsed<int64_t>(text, "whole number"); }
uint64_t text_to_unsigned(const std::string& text) { return parsed<uint64_t>(text, "whole number from 0 on"); }

StateEntry StateEntry::of_tensors(const std::function<std::vector<NamedTensor>()>& state) {
  return {[state] {
            StateDict out;
            for (const NamedTensor& t : state()) out.tensors.emplace(t.name, t.tensor);
            return out;
          },
          [state](const StateDict& saved, bool strict) { nn::check_state(state(), saved.tensors, strict); },
          [state](const StateDict& saved, bool strict) { nn::load_state(state(), saved.tensors, strict); }};
}

StateEntry StateEntry::of_tensor(const Tensor& tensor) {
  return of_tensors([tensor] { return std::vector<NamedTensor>{{"value", tensor}}; });
}

}  // namespace loom
