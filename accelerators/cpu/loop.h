// Walking several views of one shape together: dimensions are collapsed first, then visited as runs along the inner
// one.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

#include <loom/accelerators/threads.h>
#include <loom/accelerators/view.h>

namespace loom::cpu {

// Elements worth a thread of their own for cheap work, and the length of the pieces that are staged in L1.
inline constexpr int64_t grain = 32768, block = 512;

enum class Order : uint8_t {
  any,        // dimensions sorted by the strides of operand 0: for work in which order means nothing
  row_major,  // dimensions stay in order: element i of a walk is element i of the views
};

// Views of one shape as base addresses and byte strides; at least one dimension, none of extent 1 but it.
template <size_t N>
class Loop {
 public:
  static constexpr int max_rank = Dims::max_rank;
  using Pointers = std::array<char*, N>;

  explicit Loop(const std::array<const View*, N>& views, Order order = Order::any) {
    for (size_t k = 0; k < N; ++k) data_[k] = static_cast<char*>(views[k]->data);
    for (int i = 0; i < views[0]->rank(); ++i) {
      Dimension d{views[0]->shape[i], {}};
      if (d.extent == 1) continue;
      for (size_t k = 0; k < N; ++k)
        d.strides[k] = views[k]->strides[i] * static_cast<int64_t>(item_size(views[k]->dtype));
      insert(d, order);
    }
    merge();
    if (rank_ == 0) dims_[rank_++] = {1, {}};
    for (int i = 0; i < rank_; ++i) numel_ *= dims_[i].extent;
  }

  int64_t numel() const { return numel_; }
  int rank() const { return rank_; }
  int64_t extent(int i) const { return dims_[i].extent; }
  int64_t inner_extent() const { return dims_[rank_ - 1].extent; }
  int64_t stride(size_t k, int i) const { return dims_[i].strides[k]; }
  int64_t inner_stride(size_t k) const { return dims_[rank_ - 1].strides[k]; }
  const Pointers& data() const { return data_; }
  // Inner elements follow each other in operand k.
  bool dense(size_t k, size_t item) const { return inner_stride(k) == static_cast<int64_t>(item) || numel_ == 1; }

  // A walk goes through operand k's memory from one end to the other.
  bool contiguous(size_t k, size_t item) const {
    auto step = static_cast<int64_t>(item);
    for (int i = rank_ - 1; i >= 0; step *= dims_[i--].extent)
      if (dims_[i].strides[k] != step) return false;
    return true;
  }

  // No operand is walked from high addresses to low ones along any dimension.
  bool forward() const {
    for (int i = 0; i < rank_; ++i)
      for (size_t k = 0; k < N; ++k)
        if (dims_[i].strides[k] < 0) return false;
    return true;
  }

  // Addresses of element `index` of the walk.
  Pointers at(int64_t index) const {
    Pointers p = data_;
    for (int i = rank_ - 1; i >= 0 && index > 0; --i) {
      const int64_t position = index % dims_[i].extent;
      index /= dims_[i].extent;
      for (size_t k = 0; k < N; ++k) p[k] += position * dims_[i].strides[k];
    }
    return p;
  }

  // Addresses of position `index` of the dimensions other than the inner one and `across`, at the start of these.
  Pointers start_of(int64_t index, int across) const {
    Pointers p = data_;
    for (int i = rank_ - 2; i >= 0; --i) {
      if (i == across) continue;
      for (size_t k = 0; k < N; ++k) p[k] += index % dims_[i].extent * dims_[i].strides[k];
      index /= dims_[i].extent;
    }
    return p;
  }

  // Calls f(pointers, n), or f(pointers, n, pointers of the next run), for the runs of elements [begin, end).
  template <class F>
  void walk(int64_t begin, int64_t end, const F& f) const {
    if (begin >= end) return;
    std::array<int64_t, max_rank> position{};
    int64_t rest = begin;
    Pointers p = data_;
    for (int i = rank_ - 1; i >= 0; --i) {
      position[i] = rest % dims_[i].extent;
      rest /= dims_[i].extent;
      for (size_t k = 0; k < N; ++k) p[k] += position[i] * dims_[i].strides[k];
    }
    while (true) {
      const int64_t n = std::min(inner_extent() - position[rank_ - 1], end - begin);
      begin += n;
      Pointers next = p;
      if (begin < end) advance(next, position, n);
      if constexpr (std::is_invocable_v<F, const Pointers&, int64_t, const Pointers&>)
        f(static_cast<const Pointers&>(p), n, static_cast<const Pointers&>(next));
      else
        f(static_cast<const Pointers&>(p), n);
      if (begin >= end) return;
      p = next;
    }
  }

 private:
  struct Dimension {
    int64_t extent;
    std::array<int64_t, N> strides;
  };

  void insert(const Dimension& d, Order order) {
    int at = rank_++;
    for (; order == Order::any && at > 0 && std::abs(dims_[at - 1].strides[0]) < std::abs(d.strides[0]); --at)
      dims_[at] = dims_[at - 1];
    dims_[at] = d;
  }

  void merge() {
    int kept = 0;
    for (int i = 1; i < rank_; ++i) {
      bool joined = true;
      for (size_t k = 0; k < N; ++k) joined &= dims_[kept].strides[k] == dims_[i].strides[k] * dims_[i].extent;
      if (joined) {
        dims_[kept] = {dims_[kept].extent * dims_[i].extent, dims_[i].strides};
      } else {
        dims_[++kept] = dims_[i];
      }
    }
    rank_ = rank_ == 0 ? 0 : kept + 1;
  }

  // Goes to the start of the next run, n elements of the inner dimension after p.
  void advance(Pointers& p, std::array<int64_t, max_rank>& position, int64_t n) const {
    int i = rank_ - 1;
    for (size_t k = 0; k < N; ++k) p[k] += (n - dims_[i].extent) * dims_[i].strides[k];
    position[i] = 0;
    while (--i >= 0) {
      for (size_t k = 0; k < N; ++k) p[k] += dims_[i].strides[k];
      if (++position[i] < dims_[i].extent) return;
      for (size_t k = 0; k < N; ++k) p[k] -= dims_[i].extent * dims_[i].strides[k];
      position[i] = 0;
    }
  }

  std::array<Dimension, max_rank> dims_;
  Pointers data_;
  int rank_ = 0;
  int64_t numel_ = 1;
};

}  // namespace loom::cpu
