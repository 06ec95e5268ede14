// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdlib>

#include <loom/data/data_loader.h>
#include <loom/data/fashion_mnist.h>

#include "temporary_folder.h"

using namespace loom;
using loom::data::FashionMnist;

namespace {

// The data set, or nothing and a message where the machine has none.
bool present() {
  try {
    const FashionMnist test("test");
    return true;
  } catch (const Error& e) {
    MESSAGE("skipped: " << e.what());
    return false;
  }
}

std::string idx(std::initializer_list<int> header, size_t data) {
  std::string out;
  for (const int v : header) out.push_back(static_cast<char>(v));
  return out + std::string(data, '\x01');
}

}  // namespace

TEST_CASE("FashionMnist: sizes, classes and statistics of the training images") {
  if (!present()) return;
  const FashionMnist train("train", {.normalize = false});
  CHECK(train.size() == 60000);
  CHECK(FashionMnist("test").size() == 10000);
  std::array<int, 10> counts{};
  for (const uint8_t label : train.labels().span<uint8_t>()) ++counts[label];
  for (const int count : counts) CHECK(count == 6000);
  double sum = 0, squares = 0;
  for (const uint8_t pixel : train.images().span<uint8_t>()) {
    const double x = pixel / 255.0;
    sum += x;
    squares += x * x;
  }
  const auto n = static_cast<double>(train.images().numel());
  CHECK(sum / n == doctest::Approx(0.2860).epsilon(0.001));
  CHECK(std::sqrt(squares / n - sum / n * (sum / n)) == doctest::Approx(0.3530).epsilon(0.001));
}

TEST_CASE("FashionMnist: samples and batches") {
  if (!present()) return;
  const FashionMnist test("test"), plain("test", {.normalize = false});
  const auto [image, label] = test.get(3);
  CHECK(image.shape() == Dims{1, 28, 28});
  CHECK(image.dtype() == f32);
  CHECK(label == test.labels().to_vector<int>()[3]);
  const auto [grey, same] = plain.get(3);
  CHECK(label == same);
  CHECK(image.to_vector<float>()[400] == doctest::Approx((grey.to_vector<float>()[400] - 0.2860) / 0.3530));
  data::DataLoader loader(test, {.batch_size = 64});
  for (auto [x, y] : loader) {
    CHECK(x.shape() == Dims{64, 1, 28, 28});
    CHECK(y.shape() == Dims{64});
    CHECK(y.dtype() == i64);
    CHECK(y.to_vector<int>()[3] == label);
    break;
  }
  CHECK_THROWS_AS(test.get(10000), Error);
}

TEST_CASE("FashionMnist: errors say what to do") {
  CHECK_THROWS_WITH_AS(
      FashionMnist("train", {.root = "/nowhere"}),
      "FashionMnist: no data set in /nowhere; install the Debian package dataset-fashion-mnist (apt-get install "
      "dataset-fashion-mnist) or pass --data DIR (looked for train-images-idx3-ubyte.gz)",
      Error);
  CHECK_THROWS_WITH_AS(FashionMnist("valid"), "FashionMnist: split \"valid\", expects \"train\" or \"test\"", Error);

  const TemporaryFolder folder;
  const auto images =
      folder.write("t10k-images-idx3-ubyte", idx({0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28}, 1568));
  const auto labels = folder.write("t10k-labels-idx1-ubyte", idx({0, 0, 8, 1, 0, 0, 0, 2}, 2));
  CHECK(FashionMnist("test", {.root = folder.path()}).size() == 2);  // plain files
  setenv("LOOM_DATA", folder.path().c_str(), 1);
  CHECK(FashionMnist("test").size() == 2);
  unsetenv("LOOM_DATA");
  folder.write("t10k-labels-idx1-ubyte", idx({0, 0, 8, 1, 0, 0, 0, 3}, 3));
  CHECK_THROWS_AS(FashionMnist("test", {.root = folder.path()}), Error);
  folder.write("t10k-images-idx3-ubyte", idx({0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28}, 1000));
  CHECK_THROWS_WITH_AS(
      FashionMnist("test", {.root = folder.path()}),
      ("idx: " + images.string() + ": truncated: a file of this size cannot hold [2, 28, 28] of u8").c_str(), Error);
}
