#include <loom/fabric/agreement.h>

#include <algorithm>
#include <exception>

namespace loom {

std::string error_of(const std::function<void()>& f) {
  try {
    f();
    return {};
  } catch (const std::exception& error) {
    return error.what()[0] ? error.what() : "an exception without a text";
  } catch (...) {
    return "an exception of unknown type";
  }
}

void together(Communicator& ranks, const std::function<void()>& f) {
  const std::string error = error_of(f);
  int32_t failed = error.empty() ? 0 : 1;
  ranks.all_reduce(view_over(&failed, DType::i32, {1})).wait();
  if (failed == 0) return;
  if (failed == ranks.size()) {
    const auto errors = ranks.all_gather_bytes(error);
    if (std::ranges::all_of(errors, [&](const auto& e) { return e == error; })) throw AgreedError(error);
  }
  ranks.agree(error);
}

void check_same_on_ranks(Communicator& ranks, std::string_view what, const std::string& text) {
  const auto texts = ranks.all_gather_bytes(text);
  const auto other = std::ranges::find_if(texts, [&](const std::string& t) { return t != texts.front(); });
  if (other != texts.end())
    throw AgreedError(str(what, ": rank 0 has ", texts.front(), ", rank ", other - texts.begin(), ' ', *other));
}

}  // namespace loom
