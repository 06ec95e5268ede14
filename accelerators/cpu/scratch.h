// Memory that lives for one kernel: blocks from the accelerator's cache, and dense copies of awkward views.
#pragma once

#include <cstdint>
#include <utility>

#include <loom/accelerators/cpu/cpu.h>

namespace loom::cpu {

// `count` uninitialised elements.
template <class T>
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(int64_t count)
      : data_(static_cast<T*>(cpu::self().allocate(static_cast<size_t>(count) * sizeof(T)))) {}
  Scratch(Scratch&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Scratch& operator=(Scratch&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~Scratch() {
    if (data_ != nullptr) cpu::self().release(data_);
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
};

// Any view read as a row-major array of T: the view's own memory where it is one, a converted copy elsewhere. So a
// kernel is written for dense f32 and f64 only; a null view gives null.
template <class T>
class DenseInput {
 public:
  explicit DenseInput(const View& x) {
    if (x.data == nullptr || (x.dtype == dtype_of<T>() && x.is_contiguous())) {
      data_ = x.as<const T>();
      return;
    }
    copy_ = Scratch<T>(x.numel());
    cpu::self().copy(view_over(copy_.data(), dtype_of<T>(), x.shape), x);
    data_ = copy_.data();
  }
  const T* data() const { return data_; }

 private:
  Scratch<T> copy_;
  const T* data_ = nullptr;
};

// The same for an output: write all of data(), then call store(). `accumulates`: the old values are in data() at first.
template <class T>
class DenseOutput {
 public:
  explicit DenseOutput(const View& y, bool accumulates = false) : y_(y) {
    if (y.data == nullptr || (y.dtype == dtype_of<T>() && y.is_contiguous())) {
      data_ = y.as<T>();
      return;
    }
    copy_ = Scratch<T>(y.numel());
    data_ = copy_.data();
    if (accumulates) cpu::self().copy(view_over(data_, dtype_of<T>(), y.shape), y);
  }
  T* data() const { return data_; }
  void store() const {
    if (copy_.data() != nullptr) cpu::self().copy(y_, view_over(data_, dtype_of<T>(), y_.shape));
  }

 private:
  View y_;
  Scratch<T> copy_;
  T* data_ = nullptr;
};

// How many items of `cost` simple operations a thread should get at least: waking it costs about a microsecond.
inline int64_t grain_of(int64_t cost, int64_t worth = 32768) {
  return cost >= worth ? 1 : worth / (cost < 1 ? 1 : cost);
}

}  // namespace loom::cpu
