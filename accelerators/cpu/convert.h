// Conversion of runs of elements between dtypes, and staging: kernels are written for contiguous runs of a few compute
// types; Reader and Writer bring any other run (strided, 16 bits, integers) to and from such a run, a block at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/cpu/simd.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/dtype.h>

namespace loom::cpu {

// y[0..n) = x[0..n), contiguous, converted; x and y do not overlap.
using Convert = void (*)(void* y, const void* x, int64_t n);
Convert converter(DType to, DType from);

// n elements of `item` bytes, `stride` bytes apart, to or from contiguous memory.
void gather_run(void* y, const char* x, int64_t stride, int64_t n, size_t item);
void scatter_run(char* y, int64_t stride, const void* x, int64_t n, size_t item);

// The dtype that arithmetic on t is done in.
constexpr DType compute_dtype(DType t) { return t == DType::f16 || t == DType::bf16 ? DType::f32 : t; }
// Calls f.operator()<T>() with its C++ type.
template <class F>
decltype(auto) with_compute_type(DType t, const F& f) {
  return with_type(t, [&]<class T>() -> decltype(auto) { return f.template operator()<compute_type<T>>(); });
}

class Reader {
 public:
  Reader(DType dtype, DType compute)
      : item_(item_size(dtype)), convert_(dtype == compute ? nullptr : converter(compute, dtype)) {}

  // True when runs of this stride are read where they lie, whatever their length.
  bool direct(int64_t stride) const { return convert_ == nullptr && stride == static_cast<int64_t>(item_); }

  // What reading n elements from x on will take from memory, as far as that can be told.
  Expected expected(const char* x, int64_t stride, int64_t n) const {
    return stride == static_cast<int64_t>(item_) ? Expected(x, n * stride) : Expected();
  }

  // Elements x[0], x[stride], ... as a contiguous run of the compute dtype; n <= block unless direct(stride).
  const void* operator()(const char* x, int64_t stride, int64_t n) {
    if (direct(stride)) return x;
    if (stride == 0 && x == repeated_ && n <= repeats_) return result();
    const void* run = x;
    if (stride != static_cast<int64_t>(item_)) {
      gather_run(raw_, x, stride, n, item_);
      run = raw_;
    }
    if (convert_ != nullptr) convert_(converted_, run, n);
    repeated_ = stride == 0 ? x : nullptr;
    repeats_ = n;
    return result();
  }

 private:
  const void* result() const { return convert_ != nullptr ? converted_ : raw_; }

  size_t item_;
  Convert convert_;
  const char* repeated_ = nullptr;  // the element that fills the buffer, when it is one element (stride 0)
  int64_t repeats_ = 0;
  alignas(64) std::byte raw_[block * 8];
  alignas(64) std::byte converted_[block * 8];
};

class Writer {
 public:
  Writer(DType dtype, DType compute)
      : item_(item_size(dtype)), convert_(dtype == compute ? nullptr : converter(dtype, compute)) {}

  bool direct(int64_t stride) const { return convert_ == nullptr && stride == static_cast<int64_t>(item_); }

  // Where a kernel shall write n elements of the compute dtype (n <= block unless direct) before it calls commit.
  void* target(char* y, int64_t stride) { return direct(stride) ? static_cast<void*>(y) : computed_; }
  void commit(char* y, int64_t stride, int64_t n) {
    if (direct(stride)) return;
    const bool dense = stride == static_cast<int64_t>(item_);
    const void* run = computed_;
    if (convert_ != nullptr) {
      convert_(dense ? static_cast<void*>(y) : raw_, computed_, n);
      run = raw_;
    }
    if (!dense) scatter_run(y, stride, run, n, item_);
  }

 private:
  size_t item_;
  Convert convert_;
  alignas(64) std::byte raw_[block * 8];
  alignas(64) std::byte computed_[block * 8];
};

// One element, converted: results of reductions, scalars of any dtype.
inline void store_as(DType to, void* y, DType from, const void* x) { converter(to, from)(y, x, 1); }

}  // namespace loom::cpu
