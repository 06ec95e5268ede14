#include <loom/fabric/state_broadcast.h>

#include <loom/distributed/coalesced.h>
#include <loom/tensor/raw.h>
#include <loom/tensor/safetensors_header.h>

namespace loom {

namespace {

// Names, dtypes and shapes in the form that checkpoints have, and the bytes of all tensors together.
std::pair<std::string, uint64_t> header_of(const StateDict& state) {
  SafetensorsHeader header{{}, state.values};
  std::vector<std::string> order;
  uint64_t end = 0;
  for (const auto& [name, x] : state.tensors) {
    SafetensorsEntry entry{safetensors_dtype(x.dtype()), {}, end, 0};
    for (const int64_t n : x.shape()) entry.shape.push_back(static_cast<uint64_t>(n));
    entry.end = end += static_cast<uint64_t>(x.numel()) * item_size(x.dtype());
    header.entries.emplace(name, std::move(entry));
    order.push_back(name);
  }
  return {format_safetensors_header(header, order), end};
}

StateDict empty_like(const SafetensorsHeader& header) {
  StateDict out({}, header.metadata);
  for (const auto& [name, entry] : header.entries) {
    Dims shape;
    for (const uint64_t n : entry.shape) shape.push_back(static_cast<int64_t>(n));
    out.tensors.emplace(name, empty(shape, {dtype_from_safetensors(entry.dtype, name), Device()}));
  }
  return out;
}

}  // namespace

void broadcast_state(Communicator& ranks, const StateEntry& entry, int root) {
  StateDict state = entry.saved_for(root);  // on all ranks: it may be collective
  const bool sends = ranks.rank() == root;
  for (auto& [name, x] : state.tensors) x = raw::contiguous(raw::to_device(x.detach(), Device()));
  auto [text, bytes] = sends ? header_of(state) : std::pair<std::string, uint64_t>();
  text = ranks.broadcast_bytes(text, root);
  auto size = static_cast<int64_t>(bytes);
  ranks.broadcast(view_over(&size, DType::i64, {1}), root).wait();
  if (!sends) state = empty_like(parse_safetensors_header(text, static_cast<uint64_t>(size), "broadcast_state"));
  std::vector<Tensor> tensors;
  tensors.reserve(state.tensors.size());
  for (const auto& named : state.tensors) tensors.push_back(named.second);
  broadcast_coalesced(ranks, tensors, root);
  if (!sends) entry.load(std::move(state), true);
}

}  // namespace loom
