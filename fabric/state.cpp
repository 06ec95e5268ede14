#include <loom/fabric/state.h>

#include <charconv>

#include <loom/tensor/raw.h>

namespace loom {

std::string number_to_text(double value) { return text::number(value); }

double text_to_number(const std::string& text) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(status == std::errc() && end == text.data() + text.size(), "'", text, "' is not a number");
  return value;
}

StateEntry StateEntry::of_tensors(std::function<std::vector<NamedTensor>()> state) {
  return {[state] {
            StateDict out;
            for (const NamedTensor& t : state()) out.tensors.emplace(t.name, t.tensor);
            return out;
          },
          [state](const StateDict& saved, bool strict) { nn::load_state(state(), saved.tensors, strict); }};
}

StateEntry StateEntry::of_number(std::function<std::string()> get, std::function<void(const std::string&)> set) {
  return {[get] {
            return StateDict{{}, {{"value", get()}}};
          },
          [set](const StateDict& saved, bool) {
            const auto found = saved.values.find("value");
            check(found != saved.values.end(), "the checkpoint's entry holds no number or text");
            set(found->second);
          }};
}

StateEntry StateEntry::of_tensor(const Tensor& tensor) {
  return {[tensor] {
            return StateDict{{{"value", tensor}}, {}};
          },
          [tensor](const StateDict& saved, bool strict) {
            nn::load_state({{"value", tensor}}, saved.tensors, strict);
          }};
}

}  // namespace loom
