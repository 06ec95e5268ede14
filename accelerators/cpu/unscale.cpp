// Gradients that carry a loss scale.
#include <algorithm>
#include <atomic>
#include <bit>
#include <type_traits>

#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/pieces.h>

namespace loom {

namespace {

// x *= factor for n numbers; whether all of them were finite: the bits of infinities and NaN are the largest.
template <class T>
bool scale_all(T* x, int64_t n, T factor) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr Bits infinite = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  Bits largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    largest = std::max<Bits>(largest, std::bit_cast<Bits>(x[i]) & ~(Bits{1} << (8 * sizeof(T) - 1)));
    x[i] *= factor;
  }
  return largest < infinite;
}

bool all_finite(const uint16_t* x, int64_t n, uint16_t infinite) {
  uint16_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max<uint16_t>(largest, x[i] & 0x7fffu);
  return largest < infinite;
}

bool unscale_run(const Dense& grad, int64_t begin, int64_t end, float factor) {
  const int64_t n = end - begin;
  if (grad.dtype == f32) return scale_all(static_cast<float*>(grad.data) + begin, n, factor);
  if (grad.dtype == f64) return scale_all(static_cast<double*>(grad.data) + begin, n, static_cast<double>(factor));
  return all_finite(static_cast<const uint16_t*>(grad.data) + begin, n, grad.dtype == f16 ? 0x7c00u : 0x7f80u);
}

}  // namespace

void Cpu::unscale(std::span<const UpdatePiece> pieces, const View& factor, const View& found) {
  for (const UpdatePiece& piece : pieces)
    check(is_floating(piece.grad.dtype), "unscale: expects a floating dtype, got ", piece.grad.dtype);
  const float by = *factor.as<float>();
  std::atomic<bool> finite = true;
  cpu::over_pieces(pieces, [&](const UpdatePiece& piece, int64_t begin, int64_t end) {
    if (!unscale_run(piece.grad, begin, end, by)) finite.store(false, std::memory_order_relaxed);
  });
  if (!finite) *found.as<float>() = 1;
}

}  // namespace loom
