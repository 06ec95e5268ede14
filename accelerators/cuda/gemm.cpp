// Matrix products over batches of any strides: what the library's layouts cannot say is copied first.
#include <algorithm>
#include <optional>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/matmul.h>
#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom {

namespace cuda {

std::optional<MatrixLayout> layout_of(const View& x) {
  const int row = x.rank() - 2, column = row + 1;
  const auto fits = [&](int outer, int inner) {
    return (x.shape[inner] == 1 || x.strides[inner] == 1) &&
           (x.shape[outer] == 1 || x.strides[outer] >= x.shape[inner]);
  };
  const auto leading = [&](int outer, int inner) { return x.shape[outer] == 1 ? x.shape[inner] : x.strides[outer]; };
  if (fits(row, column)) return MatrixLayout{.transposed = false, .leading = leading(row, column)};
  if (fits(column, row)) return MatrixLayout{.transposed = true, .leading = leading(column, row)};
  return std::nullopt;
}

}  // namespace cuda

namespace {

using cuda::layout_of;
using cuda::Matmul;
using cuda::Scratch;

bool goes_forward(const View& x) {  // from matrix to matrix
  for (int d = 0; d + 2 < x.rank(); ++d)
    if (x.strides[d] < 0) return false;
  return true;
}

void drop_dimension(View& x, int d) {
  x.shape.erase(d);
  x.strides.erase(d);
}

// Whether dims d and d + 1 are one run of equal steps, and that run.
bool can_merge(const View& x, int d) {
  return x.shape[d] == 1 || x.shape[d + 1] == 1 || x.strides[d] == x.strides[d + 1] * x.shape[d + 1];
}
void merge(View& x, int d) {
  if (x.shape[d + 1] == 1) x.strides[d + 1] = x.strides[d];
  x.shape[d + 1] *= x.shape[d];
  drop_dimension(x, d);
}

// Fewer batch dimensions: those of one matrix go, neighbours join, and a batch that shares one b becomes one tall
// product: [B, M, K] @ [K, N] = [B * M, K] @ [K, N].
Gemm collapsed(Gemm g) {
  for (int d = g.c.rank() - 3; d >= 0; --d)
    if (g.c.shape[d] == 1)
      for (View* x : {&g.a, &g.b, &g.c}) drop_dimension(*x, d);
  for (int d = g.c.rank() - 4; d >= 0; --d)
    if (can_merge(g.a, d) && can_merge(g.b, d) && can_merge(g.c, d))
      for (View* x : {&g.a, &g.b, &g.c}) merge(*x, d);
  for (int d = g.c.rank() - 3; d >= 0; --d) {
    if (g.b.strides[d] != 0 || !can_merge(g.a, d) || !can_merge(g.c, d)) break;
    merge(g.a, d);
    merge(g.c, d);
    drop_dimension(g.b, d);
  }
  return g;
}

// One gemm on its way: operands in layouts that the library takes.
class Product {
 public:
  Product(Cuda& accelerator, cuda::Gpu& gpu, const Gemm& args) : accelerator_(accelerator), gpu_(gpu), g_(args) {}

  void run() {
    if (g_.bias.rank() > 1) start_from_bias();
    if (g_.a.shape.back() == 0) use_zeros();
    g_ = collapsed(g_);
    prepare(g_.a, a_copy_);
    prepare(g_.b, b_copy_);
    if (g_.bias.data != nullptr && g_.bias.numel() > 1 && g_.bias.strides[0] != 1) make_dense(g_.bias, bias_copy_);
    const View target = g_.c;
    const auto layout = layout_of(target);
    if (!layout || !goes_forward(target)) {
      make_dense(g_.c, c_copy_, g_.beta != 0);
      batches();
      return accelerator_.copy(target, g_.c);
    }
    layout->transposed ? transposed() : batches();
  }

 private:
  // As much as c: c is it before the product joins.
  void start_from_bias() {
    accelerator_.copy(g_.c, g_.bias);
    g_.bias = {};
    g_.beta = 1;
  }
  // No terms: one term of zeros in their place.
  void use_zeros() {
    const int64_t m = g_.c.shape[g_.c.rank() - 2], n = g_.c.shape.back();
    const size_t bytes = static_cast<size_t>(std::max(m, n)) * item_size(g_.a.dtype);
    zeros_ = Scratch(gpu_, bytes);
    const cuda::DeviceScope scope(gpu_.index());
    cuda::check_cuda(cudaMemsetAsync(zeros_.as<void>(), 0, bytes, gpu_.stream()), "gemm");
    const auto blank = [&](View& x, int64_t rows, int64_t columns) {
      x.data = zeros_.as<void>();
      x.shape = with_matrix(batch_dims(g_.c.shape), rows, columns);
      x.strides = Dims::filled(x.rank(), 0);
      x.strides[x.rank() - 2] = columns;
      x.strides[x.rank() - 1] = 1;
    };
    blank(g_.a, m, 1);
    blank(g_.b, 1, n);
  }

  void make_dense(View& x, Scratch& copy, bool read = true) {
    copy = Scratch(gpu_, x.bytes());
    const View dense = view_over(copy.as<void>(), x.dtype, x.shape, x.device);
    if (read) accelerator_.copy(dense, x);
    x = dense;
  }
  // A copy holds what is repeated over the batch once.
  void prepare(View& x, Scratch& copy) {
    if (layout_of(x) && goes_forward(x)) return;
    View once = x;
    for (int d = 0; d + 2 < x.rank(); ++d)
      if (x.strides[d] == 0) once.shape[d] = 1;
    make_dense(once, copy);
    for (int d = 0; d + 2 < x.rank(); ++d) {
      if (once.shape[d] == 1) once.strides[d] = 0;
      once.shape[d] = x.shape[d];
    }
    x = once;
  }

  // c's columns are dense: c^T = b^T a^T. What was added to columns is then added to rows, which is done first.
  void transposed() {
    if (g_.bias.data != nullptr) {
      View spread = g_.bias;
      spread.shape = g_.c.shape;
      spread.strides = Dims::filled(g_.c.rank(), 0);
      spread.strides.back() = g_.bias.strides[0];
      if (g_.beta != 0) return add_bias_last();
      accelerator_.copy(g_.c, spread);
      g_.beta = 1;
      g_.bias = {};
    }
    const auto turn = [](View& x) {
      std::swap(x.shape[x.rank() - 2], x.shape[x.rank() - 1]);
      std::swap(x.strides[x.rank() - 2], x.strides[x.rank() - 1]);
    };
    std::swap(g_.a, g_.b);
    for (View* x : {&g_.a, &g_.b, &g_.c}) turn(*x);
    batches();
  }
  // The same with a c that is read: by way of a dense one.
  void add_bias_last() {
    const View target = g_.c;
    make_dense(g_.c, c_copy_);
    batches();
    accelerator_.copy(target, g_.c);
  }

  // The longest batch dimension goes to the library as one call, the others are counted here.
  void batches() {
    const int batch_rank = g_.c.rank() - 2;
    int longest = -1;
    for (int d = 0; d < batch_rank; ++d)
      if (longest < 0 || g_.c.shape[d] > g_.c.shape[longest]) longest = d;
    Matmul p = matmul_of(longest);
    int64_t outside = 1;
    for (int d = 0; d < batch_rank; ++d)
      if (d != longest) outside *= g_.c.shape[d];
    for (int64_t i = 0; i < outside; ++i) {
      std::array<int64_t, 3> offset{};
      int64_t rest = i;
      for (int d = batch_rank - 1; d >= 0; --d) {
        if (d == longest) continue;
        const int64_t position = rest % g_.c.shape[d];
        rest /= g_.c.shape[d];
        offset[0] += position * g_.a.strides[d];
        offset[1] += position * g_.b.strides[d];
        offset[2] += position * g_.c.strides[d];
      }
      pieces(p, offset);
    }
  }

  Matmul matmul_of(int longest) const {
    const int row = g_.c.rank() - 2;
    Matmul p{.in = g_.a.dtype, .out = g_.c.dtype, .m = g_.c.shape[row], .n = g_.c.shape[row + 1]};
    p.k = g_.a.shape.back();
    p.a_layout = *layout_of(g_.a);
    p.b_layout = *layout_of(g_.b);
    p.c_layout = *layout_of(g_.c);
    p.c_layout.transposed = false;  // one column or row: both are true of it
    if (longest >= 0) {
      p.batches = g_.c.shape[longest];
      p.a_layout.step = g_.a.strides[longest];
      p.b_layout.step = g_.b.strides[longest];
      p.c_layout.step = g_.c.strides[longest];
    }
    p.bias = g_.bias.data;
    p.alpha = g_.alpha;
    p.beta = g_.beta;
    return p;
  }

  // Offsets in elements. As many batches at a time as a grid's last dimension can count.
  void pieces(Matmul p, std::array<int64_t, 3> offset) {
    constexpr int64_t most = 65535;
    const auto in = static_cast<int64_t>(item_size(p.in)), out = static_cast<int64_t>(item_size(p.out));
    const int64_t all = p.batches;
    for (int64_t first = 0; first < all; first += most) {
      p.batches = std::min(most, all - first);
      p.a = g_.a.as<const char>() + (offset[0] + first * p.a_layout.step) * in;
      p.b = g_.b.as<const char>() + (offset[1] + first * p.b_layout.step) * in;
      p.c = g_.c.as<char>() + (offset[2] + first * p.c_layout.step) * out;
      if (cuda::matmul(gpu_, p)) continue;
      Matmul bare = p;  // no kernel with a bias: it is added by one of its own
      bare.bias = nullptr;
      cuda::matmul(gpu_, bare);
      add_bias(p);
    }
  }

  void add_bias(const Matmul& p) {
    View c{p.c, p.out, g_.c.device, {p.batches, p.m, p.n}, {p.c_layout.step, p.c_layout.leading, 1}};
    View bias{const_cast<void*>(p.bias), p.out, g_.c.device, c.shape, {0, 0, 1}};
    accelerator_.binary(Binary::add, c, c, bias);
  }

  Cuda& accelerator_;
  cuda::Gpu& gpu_;
  Gemm g_;
  Scratch a_copy_, b_copy_, c_copy_, bias_copy_, zeros_;
};

}  // namespace

void Cuda::gemm(const Gemm& args) {
  check(is_floating(args.a.dtype), "gemm: expects a floating dtype, got ", args.a.dtype);
  if (args.c.numel() > 0) Product(*this, gpu_, args).run();
}

}  // namespace loom
