// What keeps a state from being loaded, found before anything is changed and said all at once.
#pragma once

#include <map>
#include <string>
#include <unordered_set>

#include <loom/tensor/tensor.h>

namespace loom {

class Mismatches {
 public:
  explicit Mismatches(const std::map<std::string, Tensor>& values) : values_(values) {}

  // The state has this key; values without it are refused if it is `needed`, values of another shape always, and those
  // of another kind of dtype: floating, integral or boolean. Whether there is a value that fits.
  bool expect(const std::string& key, const Dims& shape, DType dtype, bool needed);
  void refuse(const std::string& why);  // a value that fits but cannot be
  void refuse_others();                 // keys that are not expected
  std::string text() const;             // empty: nothing is wrong

 private:
  const std::map<std::string, Tensor>& values_;
  std::unordered_set<std::string> known_;
  std::string missing_, unexpected_, shapes_, dtypes_, invalid_;
};

}  // namespace loom
