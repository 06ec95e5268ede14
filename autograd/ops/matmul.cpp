#include <loom/autograd/ops/matmul.h>

#include <algorithm>
#include <map>
#include <string>

#include <loom/autograd/compose.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

// Gradients of a @ b for operands of rank >= 2; the engine sums broadcast batch dims down.
Grads matmul_grads(const Tensor& g, const Tensor& a, const Tensor& b, const Needs& needs) {
  return Grads(needs[0] ? matmul(g, b.mT()) : Tensor(), needs[1] ? matmul(a.mT(), g) : Tensor());
}

}  // namespace

Tensor matmul(const Tensor& a_, const Tensor& b_) {
  const auto [a, b] = enter(ops::matmul, a_, b_);
  if (recording(a, b) && (a.dim() == 1 || b.dim() == 1)) {
    // Vectors become one-row or one-column matrices, so that the rule has one case.
    check(a.dim() > 0 && b.dim() > 0, "matmul: both operands need at least 1 dimension, got shapes ", a.shape(),
          " and ", b.shape());
    Tensor y = matmul(a.dim() == 1 ? unsqueeze(a, 0) : a, b.dim() == 1 ? unsqueeze(b, 1) : b);
    if (b.dim() == 1) y = squeeze(y, -1);
    return a.dim() == 1 ? squeeze(y, b.dim() == 1 ? -1 : -2) : y;
  }
  return record(
      ops::matmul, raw::matmul(a, b), {a, b},
      [a = save(a), b = save(b)](const Tensor& g, const Needs& needs) { return matmul_grads(g, a(), b(), needs); });
}

Tensor mm(const Tensor& a, const Tensor& b) {
  return speaking_as("mm", [&] {
    check(a.dim() == 2 && b.dim() == 2, "mm: expects two matrices, got shapes ", a.shape(), " and ", b.shape());
    return matmul(a, b);
  });
}

Tensor bmm(const Tensor& a, const Tensor& b) {
  return speaking_as("bmm", [&] {
    check(a.dim() == 3 && b.dim() == 3 && a.size(0) == b.size(0), "bmm: expects two batches of matrices, got shapes ",
          a.shape(), " and ", b.shape());
    return matmul(a, b);
  });
}

Tensor addmm(const Tensor& c_, const Tensor& a_, const Tensor& b_, double beta, double alpha) {
  return compose(ops::addmm, std::tie(c_, a_, b_), [&](const Tensor& c, const Tensor& a, const Tensor& b) {
    raw::check_same_device("addmm", a, b);
    raw::check_same_dtype("addmm", a, b);
    if (c.dim() > 0 || c.device().kind != Device::cpu) raw::check_same_device("addmm", c, a);
    if (c.dim() > 0) raw::check_same_dtype("addmm", c, a);
    const auto sum_with_product = [&](const Tensor& given, const Tensor& left, const Tensor& right) {
      return given * beta + mm(left, right) * alpha;
    };
    return in_wide(sum_with_product, c, a, b);
  });
}

Tensor dot(const Tensor& a_, const Tensor& b_) {
  return compose(ops::dot, std::tie(a_, b_), [&](const Tensor& a, const Tensor& b) {
    check(a.dim() == 1 && b.dim() == 1, "dot: expects two vectors, got shapes ", a.shape(), " and ", b.shape());
    return matmul(a, b);
  });
}

Tensor outer(const Tensor& a, const Tensor& b) {
  return speaking_as("outer", [&] {
    check(a.dim() == 1 && b.dim() == 1, "outer: expects two vectors, got shapes ", a.shape(), " and ", b.shape());
    return unsqueeze(a, 1) * b;
  });
}

namespace {

struct Einsum {
  std::vector<std::string>
      inputs;  // letters of each operand, the ellipsis written as capital-free digits '0', '1', ...
  std::string output;
};

// "b...d,dk->b...k" with the ellipsis spelled out as digits, one for each dimension it stands for.
Einsum parse(std::string_view equation, const std::vector<Tensor>& operands) {
  std::string text(equation);
  text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
  const size_t arrow = text.find("->");
  std::vector<std::string> terms(1);
  for (const char c : text.substr(0, arrow)) {
    if (c == ',')
      terms.emplace_back();
    else
      terms.back() += c;
  }
  check(terms.size() == operands.size(), "einsum: '", equation, "' has ", terms.size(), " operands, ", operands.size(),
        " were given");
  size_t hidden = 0;
  const auto spell = [](const std::string& term, size_t count, size_t most) {
    const size_t at = term.find("...");
    if (at == std::string::npos) return term;
    std::string digits;
    for (size_t i = most - count; i < most; ++i) digits += static_cast<char>('0' + i);
    return term.substr(0, at) + digits + term.substr(at + 3);
  };
  std::vector<size_t> counts;
  for (size_t i = 0; i < terms.size(); ++i) {
    const bool dots = terms[i].find("...") != std::string::npos;
    const size_t letters = terms[i].size() - (dots ? 3 : 0), rank = static_cast<size_t>(operands[i].dim());
    check(dots ? letters <= rank : letters == rank, "einsum: term '", terms[i], "' does not fit operand ", i,
          " of shape ", operands[i].shape());
    counts.push_back(rank - letters);
    hidden = std::max(hidden, rank - letters);
  }
  Einsum e;
  for (size_t i = 0; i < terms.size(); ++i) {
    e.inputs.push_back(spell(terms[i], counts[i], hidden));
    for (const char c : e.inputs.back())
      check(std::count(e.inputs.back().begin(), e.inputs.back().end(), c) == 1, "einsum: '", std::string(1, c),
            "' is repeated in term '", terms[i], "'");
  }
  if (arrow != std::string::npos) {
    e.output = spell(text.substr(arrow + 2), hidden, hidden);
  } else {  // letters that occur once, sorted; the ellipsis first
    std::map<char, int> seen;
    for (const std::string& term : e.inputs)
      for (const char c : term) ++seen[c];
    for (const auto& [c, n] : seen)
      if (n == 1 || (c >= '0' && c <= '9')) e.output += c;
  }
  return e;
}

// x with dims named `from` as [dims of `to`], extents of 1 where it has none.
Tensor aligned(const Tensor& x, const std::string& from, const std::string& to) {
  Dims order;
  for (const char c : to)
    if (const size_t at = from.find(c); at != std::string::npos) order.push_back(static_cast<int64_t>(at));
  Tensor y = permute(x, order);
  for (size_t i = 0; i < to.size(); ++i)
    if (from.find(to[i]) == std::string::npos) y = unsqueeze(y, static_cast<int>(i));
  return y;
}

// Contracts two operands over the letters that nobody needs any more: batch x left x summed @ batch x summed x right.
std::pair<Tensor, std::string> contract(const Tensor& a, const std::string& la, const Tensor& b, const std::string& lb,
                                        const std::string& needed) {
  std::string batch, left, right, summed;
  for (const char c : la) {
    const bool shared = lb.find(c) != std::string::npos, kept = needed.find(c) != std::string::npos;
    (shared ? (kept ? batch : summed) : left) += c;
  }
  for (const char c : lb)
    if (la.find(c) == std::string::npos) right += c;
  const auto pack = [](const Tensor& x, const std::string& from, const std::string& b, const std::string& m,
                       const std::string& n) {
    Tensor y = aligned(x, from, b + m + n);
    Dims shape;
    int at = 0;
    for (size_t i = 0; i < b.size(); ++i) shape.push_back(y.size(at++));
    const auto product = [&](size_t count) {
      int64_t extent = 1;
      for (size_t i = 0; i < count; ++i) extent *= y.size(at++);
      return extent;
    };
    shape.push_back(product(m.size()));
    shape.push_back(product(n.size()));
    return std::pair(reshape(y, shape), y.shape());
  };
  const auto [pa, sa] = pack(a, la, batch, left, summed);
  const auto [pb, sb] = pack(b, lb, batch, summed, right);
  const Tensor product = matmul(pa, pb);
  Dims shape;
  for (size_t i = 0; i < batch.size(); ++i) shape.push_back(product.size(static_cast<int>(i)));
  for (size_t i = 0; i < left.size(); ++i) shape.push_back(sa[static_cast<int>(batch.size() + i)]);
  for (size_t i = 0; i < right.size(); ++i) shape.push_back(sb[static_cast<int>(batch.size() + summed.size() + i)]);
  return {reshape(product, shape), batch + left + right};
}

}  // namespace

Tensor einsum(std::string_view equation, const std::vector<Tensor>& given) {
  const OpRange range(ops::einsum, given);
  const std::vector<Tensor> operands = enter_all(ops::einsum, given);
  const NoAutocast as_given;
  return speaking_as("einsum", [&] {
    const Einsum e = parse(equation, operands);
    for (const Tensor& operand : operands) raw::check_same_device("einsum", operands[0], operand);
    for (const char c : e.output) {
      const bool known = std::any_of(e.inputs.begin(), e.inputs.end(),
                                     [c](const std::string& term) { return term.find(c) != std::string::npos; });
      check(known, "einsum: output '", std::string(1, c), "' of '", equation, "' is in no operand");
    }
    Tensor result = operands[0];
    std::string letters = e.inputs[0];
    for (size_t i = 0; i < operands.size(); ++i) {
      std::string needed = e.output;
      for (size_t j = i + 1; j < operands.size(); ++j) needed += e.inputs[j];
      // Letters of one operand alone that are not in the output are summed at once.
      const auto sum_out = [](Tensor x, std::string& names, const std::string& keep) {
        Dims dims;
        std::string rest;
        for (size_t d = 0; d < names.size(); ++d) {
          if (keep.find(names[d]) == std::string::npos)
            dims.push_back(static_cast<int64_t>(d));
          else
            rest += names[d];
        }
        names = rest;
        return dims.empty() ? x : sum(x, dims);
      };
      if (i == 0) {
        result = sum_out(result, letters, needed);
        continue;
      }
      std::string other = e.inputs[i];
      const Tensor operand = sum_out(operands[i], other, needed + letters);
      std::tie(result, letters) = contract(result, letters, operand, other, needed);
      result = sum_out(result, letters, needed);
    }
    return aligned(result, letters, e.output);
  });
}

}  // namespace loom
