// Convolutions: by cuDNN where it takes them, else as matrix products of unfolded columns, some images at a time.
#include <algorithm>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/dnn_conv.h>
#include <loom/accelerators/cuda/scratch.h>
#include <loom/accelerators/cuda/unfold.h>

namespace loom {

namespace {

using cpu::ConvShape;
using cuda::Columns;
using cuda::Scratch;

// A view whose dims from `first` on are one run of equal steps: the operand or a dense copy. Stored back on demand.
class Joined {
 public:
  enum class Use : uint8_t { read, write };
  Joined(Cuda& accelerator, cuda::Gpu& gpu, const View& x, int first, Use use)
      : accelerator_(accelerator), operand_(x), view_(x) {
    int inner = -1;
    for (int d = x.rank() - 1; d >= first; --d) {
      if (x.shape[d] == 1) continue;
      if (inner >= 0 && x.strides[d] != x.strides[inner] * x.shape[inner]) copied_ = true;
      if (inner < 0) step_ = x.strides[d];
      inner = d;
    }
    if (copied_) {
      copy_ = Scratch(gpu, x.bytes());
      view_ = view_over(copy_.as<void>(), x.dtype, x.shape, x.device);
      step_ = 1;
      if (use == Use::read) accelerator.copy(view_, x);
    }
  }
  const View& view() const { return view_; }
  int64_t step() const { return step_; }  // from one element of the run to the next
  void store() const {
    if (copied_) accelerator_.copy(operand_, view_);
  }

 private:
  Cuda& accelerator_;
  View operand_, view_;
  Scratch copy_;
  bool copied_ = false;
  int64_t step_ = 1;
};

// The images [first, first + count).
View images_of(View x, int64_t first, int64_t count) {
  x.data = x.as<char>() + first * x.strides[0] * static_cast<int64_t>(item_size(x.dtype));
  x.shape[0] = count;
  return x;
}

View over_channels(const View& bias, const View& y) {
  return {bias.data, bias.dtype, bias.device, y.shape, {0, bias.strides[0], 0, 0}};
}

// One convolution as products; batches are [images, groups].
class Unfolded {
 public:
  Unfolded(Cuda& accelerator, cuda::Gpu& gpu, const ConvShape& shape)
      : accelerator_(accelerator), gpu_(gpu), s_(shape) {}

  void forward(const View& y, const View& x, const View& w, const View& bias) {
    const Joined out(accelerator_, gpu_, y, 2, Joined::Use::write), kernel(accelerator_, gpu_, w, 1, Joined::Use::read);
    if (bias.data != nullptr) accelerator_.copy(out.view(), over_channels(bias, y));
    const Scratch columns(gpu_, bytes_of(x.dtype));
    for_each_part([&](int64_t first, int64_t count) {
      cuda::unfold(gpu_, columns.as<void>(), Columns::by_image, images_of(x, first, count), s_);
      accelerator_.gemm({.c = outputs(out, first, count),
                         .a = weights(kernel, count),
                         .b = over(columns, x.dtype, {count, s_.groups, s_.taps(), s_.out_plane()}),
                         .bias = {},
                         .beta = bias.data != nullptr ? 1.0 : 0.0});
    });
    out.store();
  }

  void grad_input(const View& dx, const View& dy, const View& w) {
    const Joined gradient(accelerator_, gpu_, dy, 2, Joined::Use::read),
        kernel(accelerator_, gpu_, w, 1, Joined::Use::read);
    const DType sums = sum_type(dx.dtype);
    const Scratch columns(gpu_, bytes_of(sums));
    for_each_part([&](int64_t first, int64_t count) {
      View a = weights(kernel, count);
      turn(a);
      accelerator_.gemm({.c = over(columns, sums, {count, s_.groups, s_.taps(), s_.out_plane()}),
                         .a = a,
                         .b = outputs(gradient, first, count),
                         .bias = {}});
      cuda::fold(gpu_, images_of(dx, first, count), columns.as<void>(), s_);
    });
  }

  // Images are summed over: they lie inside the matrices, those of dy are permuted for it.
  void grad_weight(const View& dw, const View& dy, const View& x) {
    const DType sums = sum_type(dw.dtype);
    const bool direct = sums == dw.dtype && dw.is_contiguous();
    const Scratch wide(gpu_, direct ? 0 : static_cast<size_t>(dw.numel()) * item_size(sums));
    const Scratch columns(gpu_, bytes_of(x.dtype));
    const Scratch turned(gpu_,
                         static_cast<size_t>(images_at_once() * s_.outputs * s_.out_plane()) * item_size(dy.dtype));
    const View sum =
        view_over(direct ? dw.data : wide.as<void>(), sums, {s_.groups, s_.group_outputs, s_.taps()}, dw.device);
    if (s_.images == 0) accelerator_.fill(sum, 0.0);
    for_each_part([&](int64_t first, int64_t count) {
      cuda::unfold(gpu_, columns.as<void>(), Columns::images_inside, images_of(x, first, count), s_);
      const View rows = over(turned, dy.dtype, {s_.outputs, count, s_.out_height, s_.out_width});
      View part = images_of(dy, first, count);
      std::swap(part.shape[0], part.shape[1]);
      std::swap(part.strides[0], part.strides[1]);
      accelerator_.copy(rows, part);
      View b = over(columns, x.dtype, {s_.groups, s_.taps(), count * s_.out_plane()});
      turn(b);
      accelerator_.gemm({.c = sum,
                         .a = over(turned, dy.dtype, {s_.groups, s_.group_outputs, count * s_.out_plane()}),
                         .b = b,
                         .bias = {},
                         .beta = first > 0 ? 1.0 : 0.0});
    });
    if (!direct) accelerator_.copy(dw, view_over(sum.data, sums, dw.shape, dw.device));
  }

 private:
  static DType sum_type(DType t) { return is_half(t) ? DType::f32 : t; }
  static void turn(View& x) {
    std::swap(x.shape[x.rank() - 2], x.shape[x.rank() - 1]);
    std::swap(x.strides[x.rank() - 2], x.strides[x.rank() - 1]);
  }

  // As many images as have their columns in a part of the memory.
  int64_t images_at_once() const {
    const auto most =
        static_cast<int64_t>(std::clamp<size_t>(gpu_.properties().totalGlobalMem / 128, 1 << 15, 512 << 20));
    const int64_t image = s_.groups * s_.taps() * s_.out_plane() * 4;
    return std::clamp<int64_t>(most / std::max<int64_t>(image, 1), 1, std::max<int64_t>(s_.images, 1));
  }
  size_t bytes_of(DType t) const {
    return static_cast<size_t>(images_at_once() * s_.groups * s_.taps() * s_.out_plane()) * item_size(t);
  }
  template <class F>
  void for_each_part(const F& f) const {
    for (int64_t first = 0; first < s_.images; first += images_at_once())
      f(first, std::min(images_at_once(), s_.images - first));
  }
  View over(const Scratch& memory, DType t, const Dims& shape) const {
    return view_over(memory.as<void>(), t, shape, {Device::cuda, gpu_.index()});
  }

  // [images, groups, outputs of a group, taps], the same for each image.
  View weights(const Joined& w, int64_t count) const {
    const View& v = w.view();
    return {v.data,
            v.dtype,
            v.device,
            {count, s_.groups, s_.group_outputs, s_.taps()},
            {0, v.strides[0] * s_.group_outputs, v.strides[0], w.step()}};
  }
  // [images, groups, outputs of a group, plane].
  View outputs(const Joined& y, int64_t first, int64_t count) const {
    const View v = images_of(y.view(), first, count);
    return {v.data,
            v.dtype,
            v.device,
            {count, s_.groups, s_.group_outputs, s_.out_plane()},
            {v.strides[0], v.strides[1] * s_.group_outputs, v.strides[1], y.step()}};
  }

  Cuda& accelerator_;
  cuda::Gpu& gpu_;
  ConvShape s_;
};

}  // namespace

void Cuda::conv2d(const View& y, const View& x, const View& w, const View& bias, const ConvGeometry& g) {
  if (y.numel() == 0) return;
  if (!cuda::conv_by_dnn(*this, gpu_, cuda::GraphOp::conv, y, x, w, g))
    return Unfolded(*this, gpu_, ConvShape(x.shape, w.shape, y.shape, g)).forward(y, x, w, bias);
  if (bias.data != nullptr) binary(Binary::add, y, y, over_channels(bias, y));
}

void Cuda::conv2d_grad_input(const View& dx, const View& dy, const View& w, const ConvGeometry& g) {
  if (dx.numel() == 0 || cuda::conv_by_dnn(*this, gpu_, cuda::GraphOp::conv_grad_input, dx, dy, w, g)) return;
  Unfolded(*this, gpu_, ConvShape(dx.shape, w.shape, dy.shape, g)).grad_input(dx, dy, w);
}

void Cuda::conv2d_grad_weight(const View& dw, const View& dy, const View& x, const ConvGeometry& g) {
  if (dw.numel() == 0 || cuda::conv_by_dnn(*this, gpu_, cuda::GraphOp::conv_grad_weight, dw, dy, x, g)) return;
  Unfolded(*this, gpu_, ConvShape(x.shape, dw.shape, dy.shape, g)).grad_weight(dw, dy, x);
}

}  // namespace loom
