// Positions of what is true. One pass through the input makes notes, short enough for the caches to hold or nearly so,
// of which the list is made once there is room for it; pieces of both are shared by threads.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/set_bits.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/positions.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

// Elements of a piece, places that are listed at a time, and how many more are written than there are.
constexpr int64_t piece = 16384, block = 1024, spare = 8;
// Notes of a piece are its places within it, as numbers of 16 bits, where these fit into the room of its bits; else
// these bits. Places are written up to a word's at a time.
constexpr int64_t words = piece / word_bits, notes = piece / 16, most_noted = notes - word_bits;
constexpr int64_t pieces_a_thread = 4;  // at least

// The places of `used` words, few of which are set. Memory is asked for the next piece meanwhile.
void note_places(uint16_t* out, const bool* set, const uint64_t* bits, int64_t used) {
  const auto each = [&](auto list) {
    for (int64_t i = 0; i < used; ++i) {
      prefetch_second(set + piece + i * word_bits);
      out = list(out, bits[i], i * word_bits);
    }
  };
  if constexpr (may_pack_places)
    if (packs_places()) return each([](auto... given) { return pack_places<true>(given...); });
  each([](auto... given) { return list_few_bits(given...); });
}

// Notes of n elements; returns how many are set.
int64_t note(uint16_t* out, const bool* set, int64_t n) {
  uint64_t bits[words];
  int64_t used = n / word_bits, count = 0;
  for (int64_t i = 0; i < used; ++i) bits[i] = bits_of(set + i * word_bits);
  if (const int64_t rest = n % word_bits; rest > 0) {
    bool last[word_bits] = {};
    std::copy_n(set + used * word_bits, rest, last);
    bits[used++] = bits_of(last);
  }
  for (int64_t i = 0; i < used; ++i) count += count_bits(bits[i]);
  if (count > most_noted)
    std::memcpy(out, bits, static_cast<size_t>(used) * sizeof(uint64_t));
  else if (count > 0)
    note_places(out, set, bits, used);
  return count;
}

// Places of n elements of which many are set.
[[maybe_unused]] int64_t pack_block(uint16_t* out, const uint16_t* noted, int64_t n) {
  uint16_t* end = out;
  for (int64_t i = 0; i < n; i += word_bits) {
    uint64_t bits;
    std::memcpy(&bits, noted + i / 16, sizeof(bits));
    end = pack_places<false>(end, bits, i);
  }
  return end - out;
}

// to[k] = first + places[k], up to what is spare more of them.
void widen_places(int64_t* __restrict to, const uint16_t* __restrict places, int64_t count, int64_t first) {
  for (int64_t i = 0; i < count; i += spare)
    for (int64_t k = i; k < i + spare; ++k) to[k] = first + places[k];
}

// Places go to sink.room(), up to a block and what is spare of them, and the sink is told how many they were.
template <class Sink>
void list_piece(Sink& sink, const uint16_t* noted, int64_t n, int64_t count, int64_t first) {
  static_assert(most_noted <= block);
  if (count == 0) return;
  if (count <= most_noted) {
    widen_places(sink.room(), noted, count, first);
    return sink.take(count);
  }
  for (int64_t i = 0; i < n; i += block) {
    if constexpr (may_pack_places)
      if (packs_places()) {
        uint16_t places[block + word_bits];
        const int64_t some = pack_block(places, noted + i / 16, std::min(block, n - i));
        widen_places(sink.room(), places, some, first + i);
        sink.take(some);
        continue;
      }
    int64_t *const to = sink.room(), *end = to;
    for (int64_t at = i; at < std::min(i + block, n); at += word_bits) {
      uint64_t bits;
      std::memcpy(&bits, noted + at / 16, sizeof(bits));
      end = list_bits(end, bits, first + at);
    }
    sink.take(end - to);
  }
}

// Places as they are.
class Flat {
 public:
  Flat(int64_t* begin, const int64_t* end) : out_(begin), end_(end) {}
  int64_t* room() { return end_ - out_ >= block + spare ? out_ : last_; }
  void take(int64_t n) {
    if (end_ - out_ < block + spare) std::copy_n(last_, n, out_);
    out_ += n;
  }

 private:
  int64_t* out_;
  const int64_t* end_;
  int64_t last_[block + spare];
};

// The same past the caches.
class FlatPast {
 public:
  explicit FlatPast(int64_t* out) { lines_.start(out); }
  ~FlatPast() { lines_.finish(); }
  FlatPast(const FlatPast&) = delete;
  FlatPast& operator=(const FlatPast&) = delete;
  int64_t* room() { return reinterpret_cast<int64_t*>(lines_.room()); }
  void take(int64_t n) { lines_.commit(n * item); }

 private:
  static constexpr int64_t item = sizeof(int64_t);
  LineWriter<block * item> lines_;
};

// Places as coordinates within `shape`, row by row of it; none is before `first`.
class Coordinates {
 public:
  Coordinates(int64_t* out, const Dims& shape, int64_t first)
      : out_(out), shape_(shape), at_(Dims::filled(shape.size(), 0)), last_(shape.size() - 1), inner_(shape[last_]) {
    int64_t rest = first / inner_;
    row_ = first - first % inner_;
    for (int d = last_ - 1; d >= 0; --d) {
      at_[d] = rest % shape[d];
      rest /= shape[d];
    }
  }
  int64_t* room() { return places_; }
  void take(int64_t n) {
    const int64_t rank = shape_.size();
    for (const int64_t *place = places_, *end = places_ + n; place != end;) {
      for (; *place - row_ >= inner_; row_ += inner_)
        for (int d = last_ - 1; d >= 0 && ++at_[d] == shape_[d]; --d) at_[d] = 0;
      const int64_t count = std::lower_bound(place, end, row_ + inner_) - place;
      for (int d = 0; d < last_; ++d)
        for (int64_t k = 0, c = at_[d]; k < count; ++k) out_[k * rank + d] = c;
      for (int64_t k = 0; k < count; ++k) out_[k * rank + last_] = place[k] - row_;
      place += count;
      out_ += count * rank;
    }
  }

 private:
  int64_t* out_;
  const Dims shape_;
  Dims at_;  // of the row
  int last_;
  int64_t inner_, row_ = 0;  // the row's first place
  int64_t places_[block + spare];
};

class NotedPositions final : public Positions {
 public:
  explicit NotedPositions(const View& x)
      : shape_(x.shape), n_(x.numel()), pieces_((n_ + piece - 1) / piece), notes_(pieces_ * notes + spare) {
    starts_.resize(static_cast<size_t>(pieces_) + 1);
    parallel_for(pieces_, pieces_a_thread, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p)
        starts_[p + 1] = note(notes_.data() + p * notes, x.as<const bool>() + p * piece, length(p));
    });
    std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
  }

  int64_t count() const override { return starts_.back(); }

  void list(const View& y) const override {
    const int rank = shape_.size();
    const bool past = count() * static_cast<int64_t>(sizeof(int64_t)) >= stream_bytes;
    parallel_for(pieces_, pieces_a_thread, [&](int64_t begin, int64_t end) {
      int64_t* const out = y.as<int64_t>() + starts_[begin] * rank;
      if (rank > 1)
        list_to(Coordinates(out, shape_, begin * piece), begin, end);
      else if (past)
        list_to(FlatPast(out), begin, end);
      else
        list_to(Flat(out, y.as<const int64_t>() + starts_[end]), begin, end);
    });
  }

 private:
  int64_t length(int64_t p) const { return std::min(piece, n_ - p * piece); }

  template <class Sink>
  void list_to(Sink&& sink, int64_t begin, int64_t end) const {
    for (int64_t p = begin; p < end; ++p)
      list_piece(sink, notes_.data() + p * notes, length(p), starts_[p + 1] - starts_[p], p * piece);
  }

  const Dims shape_;
  const int64_t n_, pieces_;
  const Scratch<uint16_t> notes_;
  std::vector<int64_t> starts_;  // of pieces in the list
};

}  // namespace

std::unique_ptr<Positions> Cpu::positions(const View& x) { return std::make_unique<NotedPositions>(x); }

}  // namespace loom
