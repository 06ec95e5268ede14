#include <loom/tensor/safetensors.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include <loom/accelerators/atomic_file.h>
#include <loom/tensor/raw.h>
#include <loom/tensor/utf8.h>

namespace loom {

static_assert(std::endian::native == std::endian::little, "the format is little-endian; swap bytes here");

namespace {

constexpr uint64_t length_bytes = 8;
constexpr uint64_t data_alignment = 64;

// A bool in memory is 0 or 1; another byte would be undefined behaviour wherever it is read.
void check_booleans(const Tensor& x, const std::string& context) {
  const auto* bytes = static_cast<const uint8_t*>(View(x).data);
  for (int64_t i = 0; i < x.numel(); ++i)
    check(bytes[i] <= 1, context, "element ", i, " is the byte ", bytes[i], ", a BOOL is 0 or 1");
}

// Wide dtypes first keeps every tensor aligned to its own size: the reference's order (its enumeration, descending).
int write_rank(DType t) {
  constexpr int ranks[] = {/*f64*/ 1, /*f32*/ 2, /*f16*/ 5, /*bf16*/ 4,
                           /*i64*/ 0, /*i32*/ 3, /*u8*/ 6,  /*boolean*/ 7};
  return ranks[static_cast<int>(t)];
}

void check_name(const std::string& what, const std::string& text, const std::string& context) {
  check(utf8_error(text) == std::string::npos, context, what, " \"", text, "\" is not UTF-8");
}

SafetensorsHeader describe(const std::map<std::string, Tensor>& tensors, const std::vector<std::string>& order) {
  SafetensorsHeader header;
  uint64_t position = 0;
  for (const std::string& name : order) {
    const Tensor& x = tensors.at(name);
    const uint64_t bytes = static_cast<uint64_t>(x.numel()) * item_size(x.dtype());
    const std::vector<uint64_t> shape(x.shape().begin(), x.shape().end());
    header.entries[name] = {safetensors_dtype(x.dtype()), shape, position, position + bytes};
    position += bytes;
  }
  return header;
}

std::vector<std::string> write_order(const std::map<std::string, Tensor>& tensors, const std::string& context) {
  std::vector<std::string> order;
  for (const auto& [name, x] : tensors) {
    check(name != "__metadata__", context, "a tensor cannot be named \"__metadata__\"");
    check(x.defined(), context, "tensor \"", name, "\" is undefined");
    check_name("the name", name, context);
    order.push_back(name);
  }
  std::stable_sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    return write_rank(tensors.at(a).dtype()) < write_rank(tensors.at(b).dtype());
  });
  return order;
}

}  // namespace

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path)
    : file_(std::make_unique<InputFile>(path, "safetensors")) {
  const InputFile& file = *file_;
  file.check(file.size() >= length_bytes, "has ", file.size(), " bytes, expects at least 8 (HeaderTooSmall)");
  uint64_t length = 0;
  file.read(0, &length, length_bytes);
  file.check(length <= safetensors_header_limit, "the header has ", length, " bytes, more than ",
             safetensors_header_limit, " (HeaderTooLarge)");
  file.check(length <= file.size() - length_bytes, "the header has ", length, " bytes, but the file only ",
             file.size() - length_bytes, " after its length (InvalidHeaderLength)");
  std::string text(length, '\0');
  file.read(length_bytes, text.data(), length);
  data_start_ = length_bytes + length;
  header_ = parse_safetensors_header(text, file.size() - data_start_, file.context());
}

const SafetensorsEntry& SafetensorsReader::entry(const std::string& name) const {
  const auto found = header_.entries.find(name);
  file_->check(found != header_.entries.end(), "has no tensor \"", name, "\"");
  return found->second;
}

std::string SafetensorsReader::context(const std::string& name) const {
  return str(file_->context(), "tensor \"", name, "\": ");
}

DType SafetensorsReader::dtype(const std::string& name) const {
  return dtype_from_safetensors(entry(name).dtype, context(name));
}

Dims SafetensorsReader::shape(const std::string& name) const {
  const auto& extents = entry(name).shape;
  check(extents.size() <= static_cast<size_t>(Dims::max_rank), context(name), "has ", extents.size(),
        " dimensions; a tensor has at most ", Dims::max_rank);
  Dims shape;
  for (const uint64_t extent : extents) shape.push_back(static_cast<int64_t>(extent));
  return shape;
}

Tensor SafetensorsReader::read(const std::string& name) const {
  return raw::reshape(read_flat(name, 0, shape(name).numel()), shape(name));
}

Tensor SafetensorsReader::read_flat(const std::string& name, int64_t begin, int64_t count) const {
  const DType type = dtype(name);
  const int64_t total = shape(name).numel();
  check(begin >= 0 && count >= 0 && begin <= total - count, context(name), "elements ", begin, " to ", begin + count,
        " asked for, it has ", total);
  Tensor out = empty(Dims{count}, {type, Device::cpu});
  const uint64_t item = item_size(type);
  file_->read(data_start_ + entry(name).begin + static_cast<uint64_t>(begin) * item, View(out).data,
              static_cast<uint64_t>(count) * item);
  if (type == boolean) check_booleans(out, context(name));
  return out;
}

SafetensorsFile load_safetensors(const std::filesystem::path& path) {
  const SafetensorsReader reader(path);
  SafetensorsFile out;
  out.metadata = reader.metadata();
  for (const auto& [name, entry] : reader.entries()) out.tensors.emplace(name, reader.read(name));
  return out;
}

void save_safetensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  const std::string context = str("safetensors: ", path.string(), ": ");
  for (const auto& [key, value] : metadata) {
    check_name("the metadata key", key, context);
    check_name("the metadata value", value, context);
  }
  const std::vector<std::string> order = write_order(tensors, context);
  SafetensorsHeader header = describe(tensors, order);
  header.metadata = metadata;
  std::string text = format_safetensors_header(header, order);
  text.resize((length_bytes + text.size() + data_alignment - 1) / data_alignment * data_alignment - length_bytes, ' ');
  const uint64_t length = text.size();
  check(length <= safetensors_header_limit, context, "the header would have ", length, " bytes, more than ",
        safetensors_header_limit);

  AtomicFile file(path, "safetensors");
  file.write(&length, length_bytes);
  file.write(text);
  for (const std::string& name : order) {  // one tensor at a time on the host
    const Tensor dense = raw::contiguous(raw::to_device(tensors.at(name), Device::cpu));
    const View view = dense;
    file.write(view.data, view.bytes());
  }
  file.commit();
}

}  // namespace loom
