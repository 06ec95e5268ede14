#include <loom/data/fashion_mnist.h>

#include <cstdlib>
#include <string>
#include <system_error>

#include <loom/data/readers/idx.h>
#include <loom/tensor/raw.h>

namespace loom::data {

namespace {

constexpr const char* package_folder = "/usr/share/datasets/fashion-mnist";
constexpr float train_mean = 0.2860F, train_deviation = 0.3530F;
constexpr int64_t pixels = 28 * 28;

std::filesystem::path folder_of(const std::filesystem::path& root) {
  if (!root.empty()) return root;
  const char* environment = std::getenv("LOOM_DATA");
  return environment != nullptr && *environment != '\0' ? environment : package_folder;
}

// FOLDER/NAME.gz or FOLDER/NAME, or in FOLDER/fashion-mnist: a folder may hold several data sets.
std::filesystem::path find_file(const std::filesystem::path& folder, const std::string& name) {
  std::error_code error;
  for (const auto& place : {folder, folder / "fashion-mnist"})
    for (const char* suffix : {".gz", ""})
      if (auto path = place / (name + suffix); std::filesystem::exists(path, error)) return path;
  fail("FashionMnist: no data set in ", folder.string(),
       "; install the Debian package dataset-fashion-mnist (apt-get install dataset-fashion-mnist) or pass --data DIR "
       "(looked for ",
       name, ".gz)");
}

}  // namespace

FashionMnist::FashionMnist(std::string_view split, const FashionMnistOptions& options) {
  check(split == "train" || split == "test", "FashionMnist: split \"", split, "\", expects \"train\" or \"test\"");
  const auto folder = folder_of(options.root);
  const std::string prefix = split == "train" ? "train" : "t10k";
  const auto image_file = find_file(folder, prefix + "-images-idx3-ubyte");
  const auto label_file = find_file(folder, prefix + "-labels-idx1-ubyte");
  images_ = load_idx(image_file);
  labels_ = load_idx(label_file);
  check(images_.numel() > 0, "FashionMnist: ", image_file.string(), " holds no images");
  check(images_.dtype() == u8 && images_.dim() == 3 && images_.size(1) == 28 && images_.size(2) == 28,
        "FashionMnist: ", image_file.string(), ": ", images_.dtype(), " of shape ", images_.shape(),
        ", expects u8 of shape [n, 28, 28]");
  check(labels_.dtype() == u8 && labels_.dim() == 1 && labels_.size(0) == images_.size(0),
        "FashionMnist: ", label_file.string(), ": ", labels_.dtype(), " of shape ", labels_.shape(),
        ", expects u8 of shape [", images_.size(0), "]");
  for (const uint8_t label : labels_.span<uint8_t>())
    check(label < classes.size(), "FashionMnist: ", label_file.string(), ": label ", label, ", expects 0 to 9");
  for (size_t i = 0; i < values_.size(); ++i) {
    values_[i] = static_cast<float>(i) / 255.0F;
    if (options.normalize) values_[i] = (values_[i] - train_mean) / train_deviation;
  }
}

std::tuple<Tensor, int64_t> FashionMnist::get(int64_t index) const {
  const auto [image, label] = get_batch({&index, 1});
  return {raw::select(image, 0, 0), label.item<int64_t>()};
}

std::tuple<Tensor, Tensor> FashionMnist::get_batch(std::span<const int64_t> indices) const {
  const int64_t count = std::ssize(indices);
  const Tensor x = empty({count, 1, 28, 28}, {f32, Device::cpu});
  const Tensor y = empty({count}, {i64, Device::cpu});
  float* to = x.data<float>();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = indices[static_cast<size_t>(i)];
    check(index >= 0 && index < size(), "FashionMnist: index ", index, " is out of range for ", size(), " samples");
    const uint8_t* from = images_.data<uint8_t>() + index * pixels;
    for (int64_t k = 0; k < pixels; ++k) *to++ = values_[from[k]];
    y.data<int64_t>()[i] = labels_.data<uint8_t>()[index];
  }
  return {x, y};
}

}  // namespace loom::data
