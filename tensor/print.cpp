// Text of a tensor as PyTorch prints it: one width for all elements, 4 digits, the edges of what is large.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <loom/tensor/context.h>
#include <loom/tensor/print.h>
#include <loom/tensor/raw.h>

namespace loom {

namespace {

constexpr int64_t summarised_above = 1000, edge = 3;  // torch.set_printoptions' defaults
constexpr size_t line_width = 80;
constexpr std::string_view prefix = "tensor(";

// What is printed: the tensor, or the first and last three positions of every long dimension.
struct Excerpt {
  Tensor tensor;
  bool cut[Dims::max_rank] = {};

  explicit Excerpt(const Tensor& x) : tensor(x) {
    if (x.numel() <= summarised_above) return;
    for (int d = 0; d < x.dim(); ++d) {
      const int64_t size = x.shape()[d];
      cut[d] = size > 2 * edge;
      if (cut[d])
        tensor = raw::cat({raw::slice(tensor, d, 0, edge, 1), raw::slice(tensor, d, size - edge, size, 1)}, d);
    }
  }
};

std::string float_text(double value, bool scientific, bool whole) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  if (scientific) return fmt::format("{:.4e}", value);
  return whole ? fmt::format("{:.0f}.", value) : fmt::format("{:.4f}", value);
}

std::vector<std::string> float_texts(const std::vector<double>& values, size_t& width) {
  bool whole = true, any = false;
  double low = 0, high = 0;
  for (const double v : values) {
    if (!std::isfinite(v) || v == 0) continue;
    whole &= v == std::ceil(v);
    low = any ? std::min(low, std::abs(v)) : std::abs(v);
    high = any ? std::max(high, std::abs(v)) : std::abs(v);
    any = true;
  }
  const bool scientific = any && (high / low > 1000.0 || high > 1.0e8 || low < 1.0e-4);
  std::vector<std::string> texts;
  for (const double v : values) {
    texts.push_back(float_text(v, scientific, whole));
    // Zeros and what is not finite do not widen the column: they are rarely the longest, and so torch does it.
    if (std::isfinite(v) && v != 0) width = std::max(width, texts.back().size());
  }
  return texts;
}

// The elements' texts, all of one width where it suffices.
std::vector<std::string> element_texts(const Tensor& x, size_t& width) {
  std::vector<std::string> texts;
  if (is_floating(x.dtype())) {
    texts = float_texts(x.to_vector<double>(), width);
  } else {
    for (const int64_t v : x.to_vector<int64_t>()) {
      texts.push_back(x.dtype() == DType::boolean ? (v ? "True" : "False") : std::to_string(v));
      width = std::max(width, texts.back().size());
    }
  }
  for (std::string& text : texts)
    if (text.size() < width) text.insert(0, width - text.size(), ' ');
  return texts;
}

struct Layout {
  const Excerpt& excerpt;
  std::vector<std::string> texts;
  size_t width = 1;

  explicit Layout(const Excerpt& e) : excerpt(e) { texts = element_texts(e.tensor, width); }

  // One dimension within brackets, broken into lines.
  std::string row(size_t first, size_t indent) const {
    const auto count = static_cast<size_t>(excerpt.tensor.shape().back());
    std::vector<std::string> items(texts.begin() + static_cast<std::ptrdiff_t>(first),
                                   texts.begin() + static_cast<std::ptrdiff_t>(first + count));
    if (excerpt.cut[excerpt.tensor.dim() - 1]) items.insert(items.begin() + edge, " ...");
    const size_t room = line_width > indent ? line_width - indent : 0,
                 per_line = std::max<size_t>(1, room / (width + 2));
    std::string out = "[";
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += i % per_line == 0 ? ",\n" + std::string(indent + 1, ' ') : ", ";
      out += items[i];
    }
    return out + "]";
  }

  std::string block(int dim, size_t first, size_t indent) const {
    const Dims& shape = excerpt.tensor.shape();
    if (shape.empty()) return texts[0];
    if (dim == shape.size() - 1) return row(first, indent);
    size_t step = 1;
    for (int d = dim + 1; d < shape.size(); ++d) step *= static_cast<size_t>(shape[d]);
    const std::string separator =
        "," + std::string(static_cast<size_t>(shape.size() - 1 - dim), '\n') + std::string(indent + 1, ' ');
    std::string out = "[";
    for (int64_t i = 0; i < shape[dim]; ++i) {
      if (i > 0) out += separator;
      if (excerpt.cut[dim] && i == edge) out += "..." + separator;
      out += block(dim + 1, first + static_cast<size_t>(i) * step, indent + 1);
    }
    return out + "]";
  }
};

std::vector<std::string> suffixes(const Tensor& x) {
  std::vector<std::string> out;
  if (x.device().kind != default_device().kind) out.push_back("device='" + to_string(x.device()) + "'");
  const bool empty = x.numel() == 0;
  if (empty && x.dim() != 1) {
    const std::string shape = to_string(x.shape());
    out.push_back("size=(" + shape.substr(1, shape.size() - 2) + ")");
  }
  // Integers and booleans are told by their looks, unless there are none.
  const bool evident = x.dtype() == default_dtype() || (!empty && (x.dtype() == i64 || x.dtype() == boolean));
  if (!evident) out.push_back("dtype=" + to_string(x.dtype()));
  return out;
}

}  // namespace

std::string to_text(const Tensor& tensor, const std::string& gradient) {
  if (!tensor.defined()) return "tensor(undefined)";
  std::string out(prefix);
  const Excerpt excerpt(tensor);
  out += tensor.numel() == 0 ? "[]" : Layout(excerpt).block(0, 0, prefix.size());
  const size_t line_start = out.rfind('\n');
  size_t used = line_start == std::string::npos ? out.size() + 2 : out.size() - line_start + 1;
  std::vector<std::string> all = suffixes(tensor);
  if (!gradient.empty()) all.push_back(gradient);
  for (const std::string& suffix : all) {
    if (used + suffix.size() + 2 > line_width) {
      out += ",\n" + std::string(prefix.size(), ' ') + suffix;
      used = prefix.size() + suffix.size();
    } else {
      out += ", " + suffix;
      used += suffix.size() + 2;
    }
  }
  return out + ")";
}

}  // namespace loom
