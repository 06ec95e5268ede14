#include <loom/distributed/coalesced.h>

#include <deque>
#include <vector>

#include <loom/distributed/buckets.h>
#include <loom/tensor/raw.h>

namespace loom {

namespace {

struct Piece {
  std::vector<Tensor> tensors;
  Tensor flat;
  Work work;
};

// Calls f(tensor, its place in the flat buffer).
template <class F>
void for_each_place(const Piece& piece, const F& f) {
  int64_t offset = 0;
  for (const Tensor& t : piece.tensors) {
    f(t, raw::as_strided(piece.flat, t.shape(), row_major_strides(t.shape()), offset));
    offset += t.numel();
  }
}

Piece send_off(Communicator& communicator, std::vector<Tensor> tensors, int root) {
  Piece piece{std::move(tensors), {}, {}};
  const Tensor& first = piece.tensors.front();
  if (piece.tensors.size() == 1 && first.is_contiguous()) {
    piece.flat = first;  // travels as it lies
  } else {
    int64_t total = 0;
    for (const Tensor& t : piece.tensors) total += t.numel();
    piece.flat = empty({total}, {first.dtype(), first.device()});
    if (communicator.rank() == root)
      for_each_place(piece, [](const Tensor& t, const Tensor& place) { raw::copy_into(place, t); });
  }
  piece.work = communicator.broadcast(piece.flat, root);
  return piece;
}

void receive(const Communicator& communicator, const Piece& piece, int root) {
  piece.work.wait();
  if (communicator.rank() == root) return;
  if (piece.flat.is_same(piece.tensors.front()))
    piece.flat.storage()->bump_version();
  else
    for_each_place(piece, [](const Tensor& t, const Tensor& place) { raw::copy_into(t, place); });
}

}  // namespace

void broadcast_coalesced(Communicator& communicator, std::span<const Tensor> tensors, int root, int64_t chunk_bytes) {
  if (communicator.size() == 1) return;
  std::vector<Tensor> sent;
  std::vector<BucketEntry> entries;
  for (const Tensor& t : tensors)
    if (t.numel() > 0) {
      sent.push_back(t);
      entries.push_back({t.numel() * static_cast<int64_t>(item_size(t.dtype())), t.dtype(), t.device()});
    }
  std::deque<Piece> under_way;
  const auto receive_one = [&] {
    receive(communicator, under_way.front(), root);
    under_way.pop_front();
  };
  for (const std::vector<int>& members : assign_buckets(entries, {{chunk_bytes}}).buckets) {
    if (under_way.size() == 2) receive_one();
    std::vector<Tensor> piece;
    piece.reserve(members.size());
    for (const int i : members) piece.push_back(sent[static_cast<size_t>(i)]);
    under_way.push_back(send_off(communicator, std::move(piece), root));
  }
  while (!under_way.empty()) receive_one();
}

}  // namespace loom
