// Fashion-MNIST (Zalando, MIT licence): 28 x 28 grey images of clothes in 10 classes, 60000 to train and 10000 to test.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <tuple>

#include <loom/tensor/tensor.h>

namespace loom::data {

struct FashionMnistOptions {
  std::filesystem::path root;  // empty: the environment's LOOM_DATA, then the Debian package's folder
  bool normalize = true;       // to mean 0 and deviation 1 over the training images; false: [0, 1]
};

class FashionMnist {
 public:
  static constexpr std::array<std::string_view, 10> classes{
      "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"};
  // split: "train" or "test". The files of the package dataset-fashion-mnist, gzipped or plain.
  explicit FashionMnist(std::string_view split, const FashionMnistOptions& options = {});

  int64_t size() const { return images_.size(0); }
  std::tuple<Tensor, int64_t> get(int64_t index) const;                          // f32 [1, 28, 28], label
  std::tuple<Tensor, Tensor> get_batch(std::span<const int64_t> indices) const;  // f32 [n, 1, 28, 28], i64 [n]

  const Tensor& images() const { return images_; }  // u8 [size, 28, 28]
  const Tensor& labels() const { return labels_; }  // u8 [size]

 private:
  Tensor images_, labels_;
  std::array<float, 256> values_{};  // what each grey level becomes
};

}  // namespace loom::data
