// Operands [.., rows, columns] as one batch of matrices.
#pragma once

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom::cuda {

// A view [L, rows, columns], L the product of the leading dimensions: the operand itself where these are one run of
// equal steps, else a dense copy.
class Matrices {
 public:
  enum class Use : uint8_t { read, write };
  Matrices(Cuda& accelerator, Gpu& gpu, const View& x, Use use) : accelerator_(accelerator), operand_(x), view_(x) {
    if (!merge()) {
      copy_ = Scratch(gpu, x.bytes());
      view_ = view_over(copy_.as<void>(), x.dtype, x.shape, x.device);
      if (use == Use::read) accelerator.copy(view_, x);
      merge();
    }
  }

  const View& view() const { return view_; }
  // Rows [row, row + rows) of matrices [first, first + count).
  View part(int64_t first, int64_t count, int64_t row, int64_t rows) const {
    View out = view_;
    out.data = view_.as<char>() +
               (first * view_.strides[0] + row * view_.strides[1]) * static_cast<int64_t>(item_size(view_.dtype));
    out.shape[0] = count;
    out.shape[1] = rows;
    return out;
  }
  // To the operand what was written.
  void store() const {
    if (copy_.as<void>() != nullptr)
      accelerator_.copy(operand_, view_over(view_.data, view_.dtype, operand_.shape, view_.device));
  }

 private:
  bool merge() {
    View x = view_;
    if (x.rank() == 2) {
      x.shape.insert(0, 1);
      x.strides.insert(0, 0);
    }
    while (x.rank() > 3) {
      const int d = x.rank() - 4;
      if (x.shape[d + 1] == 1)
        x.strides[d + 1] = x.strides[d];
      else if (x.shape[d] != 1 && x.strides[d] != x.strides[d + 1] * x.shape[d + 1])
        return false;
      x.shape[d + 1] *= x.shape[d];
      x.shape.erase(d);
      x.strides.erase(d);
    }
    view_ = x;
    return true;
  }

  Cuda& accelerator_;
  View operand_, view_;
  Scratch copy_;
};

}  // namespace loom::cuda
