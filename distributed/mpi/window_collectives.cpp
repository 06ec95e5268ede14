// The collectives of a window.
#include <algorithm>
#include <cstring>

#include <loom/distributed/mpi/window.h>
#include <loom/distributed/mpi/window_layout.h>
#include <loom/distributed/reduction.h>

namespace loom::mpi {
namespace {

constexpr int64_t cache_line = 64;

void copy_bytes(std::byte* to, const std::byte* from, size_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, bytes);
}

std::byte* start(const View& v) { return v.as<std::byte>(); }

// Of n elements: rank r's share begins here. Shares begin at cache lines, so that no two ranks write to one.
int64_t share_begin(int64_t n, size_t item, int ranks, int r) {
  const int64_t line = cache_line / static_cast<int64_t>(item);
  const int64_t width = ((n + ranks - 1) / ranks + line - 1) / line * line;
  return std::min(n, r * width);
}

// What this rank contributes.
const View& contribution(const Collective& c) {
  return c.kind == Collective::reduce_scatter || c.kind == Collective::all_gather ? c.in : c.out;
}

// The longest contribution, equal on all ranks even where they are not.
size_t longest(const Collective& c) {
  if (c.kind == Collective::barrier) return 0;
  if (c.counts.empty()) return contribution(c).bytes();
  return static_cast<size_t>(std::ranges::max(c.counts)) * item_size(c.out.dtype);
}

// Element where rank r's part of a gathered whole begins.
int64_t part_begin(const Collective& c, int r) {
  if (c.counts.empty()) return r * c.in.numel();
  int64_t begin = 0;
  for (int q = 0; q < r; ++q) begin += c.counts[static_cast<size_t>(q)];
  return begin;
}

}  // namespace

// How a staged reduction is cut into pieces.
struct Window::Pieces {
  Pieces(const Collective& c, int ranks)
      : whole(c.kind == Collective::all_reduce), item(item_size(c.out.dtype)), count(c.out.numel()), ranks(ranks) {
    const int64_t most = static_cast<int64_t>(layout::box / item) / (whole ? 1 : ranks);
    const int64_t line = cache_line / static_cast<int64_t>(item);
    number = (count + most - 1) / most;
    length = std::min(most, ((count + number - 1) / number + line - 1) / line * line);
    number = (count + length - 1) / length;
  }
  Slice slice(int64_t piece, int r) const {
    const int64_t begin = piece * length, n = std::min(length, count - begin);
    if (!whole) return {bytes_of(r * count + begin), bytes_of(r * n), bytes_of(n)};
    const int64_t first = share_begin(n, item, ranks, r), last = share_begin(n, item, ranks, r + 1);
    return {bytes_of(begin + first), bytes_of(first), bytes_of(last - first)};
  }
  size_t bytes_of(int64_t elements) const { return static_cast<size_t>(elements) * item; }

  bool whole;  // all_reduce: the results go to all; reduce_scatter: each rank keeps its own
  size_t item;
  int64_t count;  // of all_reduce's data, or of reduce_scatter's result
  int ranks;
  int64_t number = 0, length = 0;
};

bool Window::run(const Collective& c) {
  switch (c.kind) {
    case Collective::all_reduce:
    case Collective::reduce_scatter:
    case Collective::all_gather:
    case Collective::broadcast:
    case Collective::barrier: {
      struct Round {  // ends however the collective does
        uint64_t& number;
        ~Round() { ++number; }
      } const round{round_};
      if (longest(c) > layout::slot) return large(c);
      small(c);
      return true;
    }
    default:
      return false;
  }
}

void Window::small(const Collective& c) {
  if (c.kind != Collective::barrier && (c.kind != Collective::broadcast || c.peer == rank_))
    copy_bytes(slot(rank_), start(contribution(c)), contribution(c).bytes());
  meet(c, {});
  const size_t part = c.out.bytes();
  switch (c.kind) {
    case Collective::all_reduce:
    case Collective::reduce_scatter: {
      const size_t from = c.kind == Collective::all_reduce ? 0 : part * static_cast<size_t>(rank_);
      inputs_.clear();
      for (int r = 0; r < size_; ++r) inputs_.push_back(slot(r) + from);
      outputs_.assign(1, c.out.data);
      return reduce_in_rank_order(c.op, c.out.dtype, c.out.numel(), inputs_, outputs_);
    }
    case Collective::all_gather:
      for (int r = 0; r < size_; ++r) {
        const size_t item = item_size(c.out.dtype);
        const int64_t begin = part_begin(c, r), end = part_begin(c, r + 1);
        copy_bytes(start(c.out) + static_cast<size_t>(begin) * item, slot(r), static_cast<size_t>(end - begin) * item);
      }
      return;
    case Collective::broadcast:
      if (c.peer != rank_) copy_bytes(start(c.out), slot(c.peer), part);
      return;
    default:
      return;
  }
}

bool Window::large(const Collective& c) {
  const bool reduces = c.kind == Collective::all_reduce || c.kind == Collective::reduce_scatter;
  const Place place = place_of(contribution(c));
  if (!reduces) {
    meet(c, place);
    if (c.kind == Collective::broadcast || !all_in_place()) return false;
    gather_in_place(c);
    return true;
  }
  const Pieces pieces(c, size_);
  if (place.segment < 0) copy_in(c, pieces, 0);
  meet(c, place);
  if (all_in_place())
    reduce_in_place(c);
  else
    reduce_staged(c, pieces);
  return true;
}

// Each rank reads and writes its share of the elements in all ranks' memory, and nobody else does.
void Window::reduce_in_place(const Collective& c) {
  const size_t item = item_size(c.out.dtype);
  const int64_t n = c.out.numel();
  const bool whole = c.kind == Collective::all_reduce;
  const int64_t first = whole ? share_begin(n, item, size_, rank_) : n * rank_;
  const int64_t last = whole ? share_begin(n, item, size_, rank_ + 1) : first + n;
  inputs_.clear();
  outputs_.clear();
  for (int r = 0; r < size_; ++r) {
    std::byte* const at = resolve(r) + static_cast<size_t>(first) * item;
    inputs_.push_back(at);
    if (whole) outputs_.push_back(at);
  }
  if (!whole) outputs_.push_back(c.out.data);
  reduce_in_rank_order(c.op, c.out.dtype, last - first, inputs_, outputs_);
  wait_for(advance());
}

void Window::gather_in_place(const Collective& c) {
  const size_t item = item_size(c.out.dtype);
  for (int step = 0; step < size_; ++step) {  // ranks start with different ones
    const int r = (rank_ + step) % size_;
    const auto begin = static_cast<size_t>(part_begin(c, r)), end = static_cast<size_t>(part_begin(c, r + 1));
    copy_bytes(start(c.out) + begin * item, resolve(r), (end - begin) * item);
  }
  wait_for(advance());
}

// The own slice stays where it is: nobody else reads it.
void Window::copy_in(const Collective& c, const Pieces& pieces, int64_t piece) {
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    const Slice s = pieces.slice(piece, r);
    copy_bytes(inbox(rank_, piece) + s.at, start(contribution(c)) + s.from, s.bytes);
  }
}

void Window::reduce_piece(const Collective& c, const Pieces& pieces, int64_t piece) {
  const Slice s = pieces.slice(piece, rank_);
  inputs_.clear();
  for (int r = 0; r < size_; ++r) {
    const std::byte* const placed = r == rank_ ? start(contribution(c)) : resolve(r);
    inputs_.push_back(placed != nullptr ? placed + s.from : inbox(r, piece) + s.at);
  }
  outputs_.clear();
  if (pieces.whole) {
    outputs_.push_back(start(c.out) + s.from);
    outputs_.push_back(outbox(rank_, piece));
  } else {
    outputs_.push_back(start(c.out) + pieces.bytes_of(piece * pieces.length));
  }
  reduce_in_rank_order(c.op, c.out.dtype, static_cast<int64_t>(s.bytes / pieces.item), inputs_, outputs_);
}

void Window::copy_out(const Collective& c, const Pieces& pieces, int64_t piece) const {
  for (int step = 1; step < size_; ++step) {
    const int r = (rank_ + step) % size_;
    const Slice s = pieces.slice(piece, r);
    copy_bytes(start(c.out) + s.from, outbox(r, piece), s.bytes);
  }
}

// One wait a piece: who has come to step k has brought in piece k + 1, reduced k and taken out k - 2. So of three boxes
// in turn one is free when a piece comes to it.
void Window::reduce_staged(const Collective& c, const Pieces& pieces) {
  static_assert(layout::boxes >= 3);
  const bool copies = post(rank_).place.segment < 0;
  for (int64_t k = 0; k < pieces.number; ++k) {  // the first has come in with the post
    if (copies && k + 1 < pieces.number) copy_in(c, pieces, k + 1);
    reduce_piece(c, pieces, k);
    const uint64_t reduced = advance();
    if (pieces.whole && k > 0) copy_out(c, pieces, k - 1);
    wait_for(reduced);
  }
  if (pieces.whole) copy_out(c, pieces, pieces.number - 1);
  pieces_ += static_cast<uint64_t>(pieces.number);
}

}  // namespace loom::mpi
