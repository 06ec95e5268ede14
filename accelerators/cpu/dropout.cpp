// SPDX-License-Identifier: Apache-2.0
// Dropout and its gradient: numbers are drawn, compared and multiplied in one pass, and a byte an element is kept.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include <loom/accelerators/cpu/at_most.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/cpu/words.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

constexpr int64_t piece = 512;  // elements: few enough to be on their way to memory while the next numbers are drawn
static_assert(piece / 8 % WordSource::turn == 0);

// Pieces of dense arrays y and x: start(y, x) makes what a thread calls with (first, n) for its own, in their order.
template <class S, class Start>
void for_pieces(const View& y, const View& x, const Start& start) {
  const DenseInput<S> in(x);
  const DenseOutput<S> out(y);
  const int64_t n = y.numel(), pieces = (n + piece - 1) / piece;
  parallel_for(pieces, 8, [&](int64_t begin, int64_t end) {
    auto work = start(out.data(), in.data());
    for (int64_t i = begin * piece; i < std::min(n, end * piece); i += piece) {
      const int64_t count = std::min(piece, n - i);
      prefetch_run(in.data() + i + count, std::min(piece, n - i - count) * static_cast<int64_t>(sizeof(S)));
      work(i, count);
    }
  });
  out.store();
}

// What dropout is given beside its arrays: elements are kept whose 16 bits are at most `last`.
struct Drop {
  const Philox& state;
  uint16_t last;
  double factor;
  uint8_t* mask;
};

template <class S>
class Dropper {
 public:
  using T = compute_type<S>;
  // total: elements of all pieces. The mask goes to memory by the way that y goes.
  Dropper(const Drop& drop, S* y, const S* x, int64_t total)
      : words_(drop.state),
        last_(drop.last),
        factor_(static_cast<T>(drop.factor)),
        y_(y),
        x_(x),
        mask_(drop.mask),
        past_(std::is_same_v<S, T> && bytes(total) >= stream_bytes &&
              reinterpret_cast<uintptr_t>(y) % vector_bytes == 0),
        source_(piece),
        target_(total, piece),
        mask_target_(bytes(total), piece) {}

  void operator()(int64_t first, int64_t n) {
    const T* const x = source_(x_ + first, n);
    uint8_t* const kept = mask_target_.begin(mask_ + first);
    if (past_ && n == piece) {
      if constexpr (std::is_same_v<S, T>) whole<true>(y_ + first, x, kept, first / 8);  // the mask's target has a fence
    } else {
      T* const y = target_.begin(y_ + first);
      if (n == piece)
        whole<false>(y, x, kept, first / 8);
      else
        part(y, x, kept, first / 8, n);
      target_.end(y_ + first, n);
    }
    mask_target_.end(mask_ + first, n);
  }

 private:
  static int64_t bytes(int64_t elements) { return elements * static_cast<int64_t>(sizeof(S)); }

  // A whole piece, from the registers that its numbers are drawn in; block: the first of them. past: y goes past the
  // caches.
  template <bool past>
  [[gnu::noinline]] void whole(T* y, const T* x, uint8_t* kept, int64_t block) const {
    const Vec<T> factor = broadcast(factor_);
    words_.each(block, piece / 8, [=, last = last_](int64_t at, Vec<uint64_t> drawn) {
      const AtMost keeps((Vec<uint16_t>)drawn, last);
      const int64_t i = at / 2;
      keeps.store_flags(kept + i);
      for (int j = 0; j < lanes<uint16_t>; j += lanes<T>) {
        const Vec<T> result = load(x + i + j) * keeps.template choose<T>(j, factor);
        if constexpr (past)
          stream(y + i + j, &result);
        else
          store(y + i + j, result);
      }
    });
  }
  // The last piece: a whole one in L1.
  void part(T* y, const T* x, uint8_t* kept, int64_t block, int64_t n) const {
    alignas(64) T in[piece] = {}, out[piece];
    uint8_t flags[piece];
    std::copy_n(x, n, in);
    whole<false>(out, in, flags, block);
    std::copy_n(out, n, y);
    std::copy_n(flags, n, kept);
  }

  WordSource words_;
  uint16_t last_;
  T factor_;
  S* y_;
  const S* x_;
  uint8_t* mask_;
  bool past_;
  RowSource<S> source_;
  RowTarget<S> target_;
  RowTarget<uint8_t> mask_target_;
};

// y = x * (kept ? factor : 0).
template <class T>
void scale(T* __restrict y, const T* __restrict x, const uint8_t* __restrict kept, T factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * (static_cast<T>(kept[i]) * factor);
}

}  // namespace

void Cpu::dropout(const View& y, const View& mask, const View& x, uint32_t kept, double factor, const Philox& state) {
  check(kept <= 65536, "dropout: keeps ", kept, " of the 65536 values of 16 bits");  // kept - 1 goes into 16 bits below
  if (kept == 0) {
    std::memset(mask.data, 0, static_cast<size_t>(mask.numel()));
    return dropout_grad(y, x, mask, 0);
  }
  const Drop drop{state, static_cast<uint16_t>(kept - 1), factor, mask.as<uint8_t>()};
  with_floating("dropout", x.dtype, [&]<class S> {
    for_pieces<S>(y, x, [&](S* to, const S* from) { return Dropper<S>(drop, to, from, y.numel()); });
  });
}

void Cpu::dropout_grad(const View& dx, const View& g, const View& mask, double factor) {
  with_floating("dropout", g.dtype, [&]<class S> {
    using T = compute_type<S>;
    for_pieces<S>(dx, g, [&](S* to, const S* from) {
      return [=, kept = mask.as<const uint8_t>(), source = RowSource<S>(piece),
              target = RowTarget<S>(dx.numel(), piece)](int64_t first, int64_t n) mutable {
        scale(target.begin(to + first), source(from + first, n), kept + first, static_cast<T>(factor), n);
        target.end(to + first, n);
      };
    });
  });
}

}  // namespace loom
