// The functions of shape.h that copy.
#include <algorithm>

#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

Tensor contiguous(const Tensor& x_) {
  const auto [x] = enter(ops::contiguous, x_);
  if (x.is_contiguous()) return x;
  return record(ops::contiguous, raw::contiguous(x), {x}, [](const Tensor& g) { return Grads(g); });
}

Tensor clone(const Tensor& x_) {
  const auto [x] = enter(ops::clone, x_);
  return record(ops::clone, raw::clone(x), {x}, [](const Tensor& g) { return Grads(g); });
}

Tensor cat(const std::vector<Tensor>& tensors, int dim) {
  const OpRange range(ops::cat, tensors);
  const std::vector<Tensor> parts = enter_all(ops::cat, tensors);
  check(!parts.empty(), "cat: no tensors were given");
  const int at = normalize_dim("cat", dim, parts[0].dim());
  std::vector<int64_t> sizes;
  sizes.reserve(parts.size());
  for (const Tensor& t : parts) sizes.push_back(t.dim() == parts[0].dim() ? t.size(at) : 0);
  Tensor y = raw::cat(parts, at);
  return record_range(ops::cat, std::move(y), parts, [sizes, at](const Tensor& g, const Needs& needs) {
    Grads grads(sizes.size());
    int64_t start = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (needs[i]) grads[i] = narrow(g, at, start, sizes[i]);
      start += sizes[i];
    }
    return grads;
  });
}

Tensor concat(const std::vector<Tensor>& tensors, int dim) {
  return speaking_as("concat", [&] { return cat(tensors, dim); });
}

Tensor stack(const std::vector<Tensor>& tensors, int dim) {
  return speaking_as("stack", [&] {
    check(!tensors.empty(), "stack: no tensors were given");
    const int at = normalize_dim("stack", dim, tensors[0].dim() + 1);
    std::vector<Tensor> parts;
    for (size_t i = 0; i < tensors.size(); ++i) {
      check(tensors[i].shape() == tensors[0].shape(), "stack: tensor ", i, " has shape ", tensors[i].shape(),
            ", the first ", tensors[0].shape());
      parts.push_back(unsqueeze(tensors[i], at));
    }
    return cat(parts, at);
  });
}

// [a, b] repeated {r, s} times: as [1, a, 1, b] expanded to [r, a, s, b] and merged.
Tensor repeat(const Tensor& x, const Dims& repeats) {
  return speaking_as("repeat", [&] {
    check(repeats.size() >= x.dim(), "repeat: ", repeats.size(), " repeats for a tensor of rank ", x.dim());
    Tensor result = x;
    while (result.dim() < repeats.size()) result = unsqueeze(result, 0);
    for (int d = 0; d < repeats.size(); ++d) {
      check(repeats[d] >= 0, "repeat: a repeat of ", repeats[d], " is negative");
      if (repeats[d] == 1) continue;
      Dims shape = result.shape();
      shape.insert(d, repeats[d]);
      result = flatten(expand(unsqueeze(result, d), shape), d, d + 1);
    }
    return result;
  });
}

Tensor repeat_interleave(const Tensor& x, int64_t repeats, int dim) {
  const int at = normalize_dim("repeat_interleave", dim, x.dim());
  check(repeats >= 0, "repeat_interleave: a repeat of ", repeats, " is negative");
  Dims shape = x.shape();
  shape.insert(at + 1, repeats);
  return flatten(expand(unsqueeze(x, at + 1), shape), at, at + 1);
}

Tensor flip(const Tensor& x_, const Dims& dims) {
  const auto [x] = enter(ops::flip, x_);
  return record(ops::flip, raw::flip(x, dims), {x}, [dims](const Tensor& g) { return Grads(flip(g, dims)); });
}

Tensor roll(const Tensor& x, int64_t shift, int dim) {
  return speaking_as("roll", [&] {
    const int64_t size = x.size(dim);
    if (size == 0) return clone(x);
    const int64_t by = ((shift % size) + size) % size;
    return by == 0 ? clone(x) : cat({narrow(x, dim, size - by, by), narrow(x, dim, 0, size - by)}, dim);
  });
}

Tensor triu(const Tensor& x_, int64_t diagonal) {
  const auto [x] = enter(ops::triu, x_);
  return record(ops::triu, raw::triangle(x, diagonal, true), {x},
                [diagonal](const Tensor& g) { return Grads(triu(g, diagonal)); });
}

Tensor tril(const Tensor& x_, int64_t diagonal) {
  const auto [x] = enter(ops::tril, x_);
  return record(ops::tril, raw::triangle(x, diagonal, false), {x},
                [diagonal](const Tensor& g) { return Grads(tril(g, diagonal)); });
}

namespace {

std::vector<int64_t> negated(std::vector<int64_t> amounts) {
  for (int64_t& a : amounts) a = -a;
  return amounts;
}

// Extents after padding; throws where a crop removes more than there is.
Dims padded_shape(const Tensor& x, const std::vector<int64_t>& amounts) {
  check(amounts.size() % 2 == 0 && amounts.size() / 2 <= static_cast<size_t>(x.dim()), "pad: ", amounts.size(),
        " amounts for a tensor of rank ", x.dim(), "; expected pairs, at most one a dimension");
  Dims shape = x.shape();
  for (size_t i = 0; i < amounts.size() / 2; ++i) {
    const int d = x.dim() - 1 - static_cast<int>(i);
    shape[d] += amounts[2 * i] + amounts[2 * i + 1];
    check(shape[d] >= 0, "pad: cropping ", -(amounts[2 * i] + amounts[2 * i + 1]), " from dimension ", d, " of size ",
          x.size(d));
  }
  return shape;
}

}  // namespace

Tensor pad(const Tensor& x_, const std::vector<int64_t>& amounts, double value) {
  const auto [x] = enter(ops::pad, x_);
  Tensor y = full(padded_shape(x, amounts), value, {x.dtype(), x.device()});
  Tensor source = raw::alias(x), target = y;
  for (size_t i = 0; i < amounts.size() / 2; ++i) {
    const int d = x.dim() - 1 - static_cast<int>(i);
    const int64_t low = amounts[2 * i], high = amounts[2 * i + 1];
    const int64_t kept = std::max<int64_t>(x.size(d) + std::min<int64_t>(low, 0) + std::min<int64_t>(high, 0), 0);
    const int64_t from = std::min(std::max<int64_t>(-low, 0), source.size(d));
    source = raw::slice(source, d, from, from + kept, 1);
    target = raw::slice(target, d, std::max<int64_t>(low, 0), std::max<int64_t>(low, 0) + kept, 1);
  }
  raw::copy_into(target, source);
  return record(ops::pad, raw::alias(y), {x}, [amounts](const Tensor& g) { return Grads(pad(g, negated(amounts))); });
}

}  // namespace loom
