#include <loom/distributed/staged_pieces.h>

#include <algorithm>
#include <array>

#include <loom/distributed/forward.h>
#include <loom/distributed/pinned_block.h>

namespace loom {

namespace {

// What lies in one view: parts of which a piece takes the same elements of each.
struct Side {
  View whole;                   // null data: this rank has none
  std::vector<int64_t> counts;  // of the parts
  bool any() const { return !counts.empty(); }
};

std::vector<int64_t> equal_parts(int64_t parts, int64_t each) {
  return std::vector<int64_t>(static_cast<size_t>(parts), each);
}

int64_t taken(int64_t count, int64_t begin, int64_t length) { return std::clamp<int64_t>(count - begin, 0, length); }

class Pieces {
 public:
  Pieces(Communicator& ranks, const Collective& c, Device device, int64_t piece_bytes)
      : ranks_(ranks), c_(c), device_(device), stream_(stream(device, Lane::communication)) {
    lay_out();
    int64_t longest = 0;  // with what follows, the same on all ranks, also where only the root has all parts
    for (const Side* s : {&in_, &out_})
      for (const int64_t n : s->counts) longest = std::max(longest, n);
    const int64_t parts = in_place() ? 1 : ranks.size();
    length_ = std::clamp<int64_t>(piece_bytes / item() / parts, 1, std::max<int64_t>(longest, 1));
    pieces_ = (longest + length_ - 1) / length_;
    for (Slot& slot : slots_) {
      slot.in = pinned_block(device, bytes_of(in_));
      slot.out = in_place() ? slot.in : pinned_block(device, bytes_of(out_));
    }
  }

  // While the host is about one piece, the device fetches the next and stores the one before.
  Event run(const Event& ready) {
    const StreamScope scope(stream_);
    stream_.wait(ready);
    if (pieces_ > 0) fetch(0);
    for (int64_t k = 0; k < pieces_; ++k) {
      if (k + 1 < pieces_) fetch(k + 1);
      slot(k).fetched.synchronize();  // and so its last contents have been stored
      exchange(k);
      move(out_, slot(k).out.get(), k, false);
    }
    return stream_.record();
  }

 private:
  struct Slot {
    std::shared_ptr<std::byte> in, out;
    Event fetched;
  };

  bool in_place() const { return c_.kind == Collective::all_reduce || c_.kind == Collective::broadcast; }
  int64_t item() const { return static_cast<int64_t>(item_size(c_.in.data != nullptr ? c_.in.dtype : c_.out.dtype)); }
  DType dtype() const { return c_.in.data != nullptr ? c_.in.dtype : c_.out.dtype; }
  Slot& slot(int64_t piece) { return slots_[static_cast<size_t>(piece % 2)]; }
  size_t bytes_of(const Side& side) const {
    return static_cast<size_t>(std::max<int64_t>(std::ssize(side.counts) * length_, 1) * item());
  }

  void lay_out() {
    const int64_t size = ranks_.size();
    switch (c_.kind) {
      case Collective::all_reduce:
      case Collective::broadcast:
        out_ = {c_.out, {c_.out.numel()}};
        if (c_.kind == Collective::all_reduce || c_.peer == ranks_.rank()) in_ = out_;
        if (!in_.any()) in_ = {{}, {c_.out.numel()}};
        return;
      case Collective::all_gather:
        in_ = {c_.in, {c_.in.numel()}};
        out_ = {c_.out, c_.counts.empty() ? equal_parts(size, c_.in.numel()) : c_.counts};
        return;
      case Collective::reduce_scatter:
        in_ = {c_.in, equal_parts(size, c_.out.numel())};
        out_ = {c_.out, {c_.out.numel()}};
        return;
      case Collective::gather:
        in_ = {c_.in, {c_.in.numel()}};
        if (c_.peer == ranks_.rank()) out_ = {c_.out, equal_parts(size, c_.in.numel())};
        return;
      case Collective::scatter:
        out_ = {c_.out, {c_.out.numel()}};
        if (c_.peer == ranks_.rank()) in_ = {c_.in, equal_parts(size, c_.out.numel())};
        return;
      default:  // all_to_all
        in_ = {c_.in, equal_parts(size, c_.in.numel() / size)};
        out_ = {c_.out, equal_parts(size, c_.in.numel() / size)};
    }
  }

  // Between the device and the slot, in which the parts of a piece lie one after the other.
  void move(const Side& side, std::byte* at, int64_t piece, bool to_host) {
    if (side.whole.data == nullptr) return;
    const int64_t begin = piece * length_;
    auto* part = side.whole.as<std::byte>();
    for (const int64_t count : side.counts) {
      const int64_t n = taken(count, begin, length_);
      const View host = view_over(at, dtype(), {n});
      const View device = view_over(part + begin * item(), dtype(), {n}, device_);
      if (n > 0) accelerator(device_).copy_in_stream(to_host ? host : device, to_host ? device : host);
      at += n * item();
      part += count * item();
    }
  }
  void fetch(int64_t piece) {
    move(in_, slot(piece).in.get(), piece, true);
    slot(piece).fetched = stream_.record();
  }

  View in_slot(const Side& side, std::byte* at, int64_t piece) const {
    int64_t n = 0;
    for (const int64_t count : side.counts) n += taken(count, piece * length_, length_);
    return view_over(at, dtype(), {n});
  }
  void exchange(int64_t piece) {
    Collective part = c_;
    part.in = part.out = {};
    if (!in_place() && in_.any()) part.in = in_slot(in_, slot(piece).in.get(), piece);
    if (out_.any()) part.out = in_slot(out_, slot(piece).out.get(), piece);
    for (int64_t& n : part.counts) n = taken(n, piece * length_, length_);
    forward_to(ranks_, part).wait();
  }

  Communicator& ranks_;
  const Collective& c_;
  const Device device_;
  const Stream stream_;
  Side in_, out_;
  int64_t length_ = 0;  // elements of a part in a piece
  int64_t pieces_ = 0;
  std::array<Slot, 2> slots_;
};

}  // namespace

Event run_in_pieces(Communicator& ranks, const Collective& c, Device device, const Event& ready, int64_t piece_bytes) {
  return Pieces(ranks, c, device, piece_bytes).run(ready);
}

}  // namespace loom
