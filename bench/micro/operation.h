// One line of cases.txt as a function to be timed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <loom/accelerators/dtype.h>
#include <loom/accelerators/error.h>

namespace bench {

// What a call costs at least: bytes read and written (each once, of f32), floating-point operations.
struct Cost {
  double bytes = 0, flops = 0;
  bool bf16 = false;  // the operations are products of bf16
};

struct Operation {
  std::string unit;            // GFLOP/s, ms, us or ns
  std::function<void()> call;  // what is timed
  Cost cost = {};
  double per_call = 1;  // how many operations a call is
};

// The words of a case: the operation's name, then what it says of itself.
class Case {
 public:
  Case(std::string line, bool smoke);
  const std::string& line() const { return line_; }
  const std::string& word(size_t i) const {
    loom::check(i < words_.size(), "case '", line_, "': word ", i, " is missing");
    return words_[i];
  }
  // Tiny in a smoke run.
  int64_t number(size_t i) const { return smoke_ ? std::min<int64_t>(exact(i), 8) : exact(i); }
  int64_t exact(size_t i) const { return std::stoll(word(i)); }
  loom::DType dtype(size_t i) const { return word(i) == "bf16" ? loom::DType::bf16 : loom::DType::f32; }
  // Whether the word is `yes`; it must be that or `no`.
  bool is(size_t i, const std::string& yes, const std::string& no) const {
    loom::check(word(i) == yes || word(i) == no, "case '", line_, "': expected ", yes, " or ", no);
    return word(i) == yes;
  }

 private:
  std::string line_;
  std::vector<std::string> words_;
  bool smoke_;
};

template <class T>
void keep(const T& result) {
  benchmark::DoNotOptimize(&result);
}

inline double count(int64_t elements) { return static_cast<double>(elements); }

using Make = Operation (*)(const Case& given);

// products.cpp
Operation gemm(const Case& given);
Operation conv(const Case& given);
Operation attention(const Case& given);
// rows.cpp
Operation softmax_rows(const Case& given);
Operation layer_norm_rows(const Case& given);
Operation rms_norm_rows(const Case& given);
Operation batch_norm_images(const Case& given);
Operation cross_entropy_rows(const Case& given);
Operation reduction(const Case& given);
Operation largest(const Case& given);
Operation embedding_rows(const Case& given);
Operation rows_selected(const Case& given);
Operation places_of_set(const Case& given);
Operation sorted_rows(const Case& given);
// elementwise.cpp
Operation map(const Case& given);
Operation add(const Case& given);
Operation copied(const Case& given);
Operation power_of(const Case& given);
Operation dropout_of(const Case& given);
Operation dropout_both(const Case& given);
Operation optimizer(const Case& given);
Operation transposed(const Case& given);
Operation strided(const Case& given);
Operation joined(const Case& given);
Operation flipped(const Case& given);
// overhead.cpp
Operation tiny_add(const Case& given);
Operation backward_node(const Case& given);
Operation graph(const Case& given);

}  // namespace bench
