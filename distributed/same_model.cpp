#include <loom/distributed/same_model.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace loom {

namespace {

constexpr char field_end = '\x1f', entry_end = '\x1e';
constexpr std::array<const char*, 5> fields{"name", "sizes", "strides", "dtype", "requires_grad"};

std::string describe(std::span<const NamedTensor> tensors) {
  std::string out;
  for (const auto& [name, tensor] : tensors) {
    const bool trained = tensor.requires_grad();
    for (const std::string& text :
         {name, str(tensor.shape()), str(tensor.strides()), str(tensor.dtype()), str(trained)})
      out += text + field_end;
    out += entry_end;
  }
  return out;
}

std::vector<std::string_view> pieces(std::string_view text, char end) {
  std::vector<std::string_view> out;
  for (size_t at = text.find(end); at != std::string_view::npos; at = text.find(end)) {
    out.push_back(text.substr(0, at));
    text.remove_prefix(at + 1);
  }
  return out;
}

// FNV-1a from two starts: equal digests of different models are not to be expected.
std::array<int64_t, 2> digest(std::string_view text) {
  std::array<uint64_t, 2> hash{0xcbf29ce484222325u, 0x9e3779b97f4a7c15u};
  for (const char c : text)
    for (uint64_t& h : hash) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return {static_cast<int64_t>(hash[0]), static_cast<int64_t>(hash[1])};
}

std::string entry_difference(const char* what, int rank, size_t i, std::string_view here, std::string_view there) {
  const auto own = pieces(here, field_end), zero = pieces(there, field_end);
  for (size_t f = 0; f < fields.size(); ++f)
    if (own[f] != zero[f])
      return str('[', rank, "]: ", what, '[', i, "] (", own[0], ") in this process with ", fields[f], ' ', own[f],
                 " appears not to match ", fields[f], ' ', zero[f], " of the same ", what, " in process 0.");
  return {};
}

// The first difference from rank 0. Empty if there is none.
std::string difference(const char* what, std::span<const std::string> ranks) {
  const auto zero = pieces(ranks[0], entry_end);
  for (size_t r = 1; r < ranks.size(); ++r) {
    if (ranks[r] == ranks[0]) continue;
    const auto own = pieces(ranks[r], entry_end);
    std::string first;
    for (size_t i = 0; i < std::min(own.size(), zero.size()) && first.empty(); ++i)
      first = entry_difference(what, static_cast<int>(r), i, own[i], zero[i]);
    if (own.size() == zero.size()) return first;
    if (first.empty()) {
      const auto& longer = own.size() > zero.size() ? own : zero;
      const size_t last = std::min(own.size(), zero.size());
      first = str(what, '[', last, "] is ", pieces(longer[last], field_end)[0], ", on one of them only.");
    }
    return str("DDP expects same model across all ranks, but Rank 0 has ", zero.size(), ' ', what, ", while rank ", r,
               " has inconsistent ", own.size(), ' ', what, ". First difference: ", first);
  }
  return {};
}

void check_same(Communicator& communicator, const char* what, const std::string& text) {
  std::array<int64_t, 2> own = digest(text);
  std::vector<int64_t> all(2 * static_cast<size_t>(communicator.size()));
  communicator
      .all_gather(view_over(all.data(), DType::i64, {2 * communicator.size()}), view_over(own.data(), DType::i64, {2}))
      .wait();
  for (size_t i = 2; i < all.size(); ++i)
    if (all[i] != all[i - 2]) throw AgreedError(difference(what, communicator.all_gather_bytes(text)));
}

}  // namespace

void check_same_model(Communicator& communicator, std::span<const NamedTensor> parameters,
                      std::span<const NamedTensor> buffers) {
  check_same(communicator, "params", describe(parameters));
  check_same(communicator, "buffers", describe(buffers));
}

}  // namespace loom
