#include <loom/tensor/safetensors_header.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include <loom/tensor/utf8.h>

namespace loom {

namespace {

struct Format {
  const char* name;
  uint64_t bits;
  std::optional<DType> dtype;
};
constexpr std::array<Format, 22> formats{{
    {"BOOL", 8, boolean},   {"F4", 4, {}},      {"F6_E2M3", 6, {}}, {"F6_E3M2", 6, {}}, {"U8", 8, u8},
    {"I8", 8, {}},          {"F8_E5M2", 8, {}}, {"F8_E4M3", 8, {}}, {"F8_E8M0", 8, {}}, {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}}, {"I16", 16, {}},    {"U16", 16, {}},    {"F16", 16, f16},   {"BF16", 16, bf16},
    {"I32", 32, i32},       {"U32", 32, {}},    {"F32", 32, f32},   {"C64", 64, {}},    {"F64", 64, f64},
    {"I64", 64, i64},       {"U64", 64, {}},
}};

const Format* find_format(std::string_view name) {
  const auto found = std::find_if(formats.begin(), formats.end(), [&](const Format& f) { return f.name == name; });
  return found == formats.end() ? nullptr : &*found;
}

constexpr uint64_t largest_extent = uint64_t{1} << 48;
constexpr size_t largest_rank = 64;

// Follows the parser through the one shape that a header may have:
//   {"__metadata__": {text: text}, name: {"dtype": text, "shape": [n, ...], "data_offsets": [begin, end]}}
// A document tree of a 100 MB header would take more than 1 GB; this takes what the result takes.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(std::string context) : context_(std::move(context)) {}
  SafetensorsHeader take() { return std::move(header_); }

  bool null() override { refuse("null"); }
  bool boolean(bool value) override { refuse(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { refuse(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { refuse(text); }
  bool binary(binary_t&) override { refuse("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::shape && place_ != Place::offsets) refuse(std::to_string(value));
    if (place_ == Place::offsets && numbers_.size() == 2) invalid("\"data_offsets\" has more than two numbers");
    if (place_ == Place::shape && numbers_.size() == largest_rank) invalid("\"shape\" has more than 64 dimensions");
    numbers_.push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (place_ == Place::metadata)
      header_.metadata[key_] = value;
    else if (place_ == Place::entry && key_ == "dtype")
      entry_.dtype = value;
    else
      refuse("\"" + value + "\"");
    return true;
  }
  bool key(string_t& value) override {
    if (place_ == Place::top) {
      name_ = value;
      if (value == "__metadata__" ? std::exchange(metadata_seen_, true) : header_.entries.contains(value))
        invalid("the key appears twice");
    } else if (place_ == Place::metadata) {
      if (header_.metadata.contains(value)) invalid(str("the key \"", value, "\" appears twice"));
    } else {
      bool* seen = value == "dtype" ? &dtype_seen_ : value == "shape" ? &shape_seen_ : &offsets_seen_;
      if (seen == &offsets_seen_ && value != "data_offsets") invalid(str("unknown key \"", value, "\""));
      if (std::exchange(*seen, true)) invalid(str("the key \"", value, "\" appears twice"));
    }
    key_ = value;
    return true;
  }
  bool start_object(size_t) override {
    if (place_ == Place::outside)
      place_ = Place::top;
    else if (place_ != Place::top)
      refuse("an object");
    else if (name_ == "__metadata__")
      place_ = Place::metadata;
    else {
      place_ = Place::entry;
      entry_ = {};
      dtype_seen_ = shape_seen_ = offsets_seen_ = false;
    }
    return true;
  }
  bool end_object() override {
    if (place_ == Place::entry) {
      if (!dtype_seen_ || !shape_seen_ || !offsets_seen_)
        invalid(str("\"", !dtype_seen_ ? "dtype" : !shape_seen_ ? "shape" : "data_offsets", "\" is missing"));
      header_.entries.emplace(name_, std::move(entry_));
    }
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return true;
  }
  bool start_array(size_t) override {
    if (place_ != Place::entry || key_ == "dtype") refuse("a list");
    place_ = key_ == "shape" ? Place::shape : Place::offsets;
    numbers_.clear();
    return true;
  }
  bool end_array() override {
    if (place_ == Place::shape) {
      entry_.shape = numbers_;
    } else {
      if (numbers_.size() != 2) invalid("\"data_offsets\" has fewer than two numbers");
      entry_.begin = numbers_[0];
      entry_.end = numbers_[1];
    }
    place_ = Place::entry;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    fail(context_, "the header is not JSON at byte ", position, ": ", error.what(), " (InvalidHeaderDeserialization)");
  }

 private:
  enum class Place { outside, top, metadata, entry, shape, offsets };

  [[noreturn]] void invalid(const std::string& problem) const {
    fail(context_, "header, \"", name_, "\": ", problem, " (InvalidHeaderDeserialization)");
  }
  [[noreturn]] void refuse(const std::string& given) const {
    switch (place_) {
      case Place::outside:
        fail(context_, "the header is ", given, ", expects an object (InvalidHeaderDeserialization)");
      case Place::top:
        invalid(str("expects an object, got ", given));
      case Place::metadata:
        invalid(str("\"", key_, "\" expects a text, got ", given));
      case Place::entry:
        invalid(str("\"", key_, "\" expects a ", key_ == "dtype" ? "text" : "list", ", got ", given));
      default:
        invalid(str("\"", key_, "\" expects unsigned integers, got ", given));
    }
  }

  std::string context_, name_, key_;
  SafetensorsHeader header_;
  SafetensorsEntry entry_;
  std::vector<uint64_t> numbers_;
  Place place_ = Place::outside;
  bool metadata_seen_ = false, dtype_seen_ = false, shape_seen_ = false, offsets_seen_ = false;
};

// What the parser lets pass although it is no JSON text: a NUL byte ends its input, a byte order mark is skipped.
void check_text(std::string_view text, const std::string& context) {
  const size_t bad = utf8_error(text);
  check(bad == std::string_view::npos, context, "the header is not UTF-8 at byte ", bad, " (InvalidHeader)");
  const size_t first = text.find_first_not_of(" \t\r\n");
  check(first != std::string_view::npos && text[first] == '{' && text.find('\0') == std::string_view::npos, context,
        "the header is not a JSON object (InvalidHeaderDeserialization)");
}

// Bytes of a tensor, in the reference's arithmetic: the product in order, each step checked.
uint64_t bytes_of(const SafetensorsEntry& entry, const std::string& context) {
  const Format* format = find_format(entry.dtype);
  check(format != nullptr, context, "dtype \"", entry.dtype, "\" is unknown (InvalidHeaderDeserialization)");
  uint64_t bits = 1;
  bool overflow = false;
  for (const uint64_t extent : entry.shape) overflow |= __builtin_mul_overflow(bits, extent, &bits);
  overflow |= __builtin_mul_overflow(bits, format->bits, &bits);
  check(!overflow, context, "the shape has more elements than 64 bits can count (ValidationOverflow)");
  for (const uint64_t extent : entry.shape)
    check(extent <= largest_extent, context, "an extent of ", extent, " is more than 2^48");
  check(bits % 8 == 0, context, bits, " bits of ", entry.dtype, " are not whole bytes (MisalignedSlice)");
  return bits / 8;
}

// The data has no holes, no overlaps and no rest: otherwise few bytes could stand for many tensors, or hide a second
// file.
void check_layout(const SafetensorsHeader& header, uint64_t data_bytes, const std::string& context) {
  std::vector<const std::pair<const std::string, SafetensorsEntry>*> order;
  order.reserve(header.entries.size());
  for (const auto& item : header.entries) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t position = 0;
  for (const auto* item : order) {
    const auto& [name, entry] = *item;
    const std::string where = str(context, "tensor \"", name, "\": ");
    check(entry.begin == position && entry.end >= entry.begin, where, "data_offsets [", entry.begin, ", ", entry.end,
          "], expects to begin at ", position, ", where the tensor before it ends (InvalidOffset)");
    const uint64_t bytes = bytes_of(entry, where);
    check(entry.end - entry.begin == bytes, where, "data_offsets [", entry.begin, ", ", entry.end, "] span ",
          entry.end - entry.begin, " bytes, but its dtype and shape need ", bytes, " (TensorInvalidInfo)");
    position = entry.end;
  }
  check(position == data_bytes, context, "the tensors need ", position, " bytes of data, the file has ", data_bytes,
        position > data_bytes ? "; it was truncated" : "; something follows them", " (MetadataIncompleteBuffer)");
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t data_bytes, const std::string& context) {
  check_text(text, context);
  HeaderReader reader(context);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);  // the reader throws; it never answers false
  SafetensorsHeader header = reader.take();
  check_layout(header, data_bytes, context);
  return header;
}

std::string format_safetensors_header(const SafetensorsHeader& header, const std::vector<std::string>& order) {
  const auto quoted = [](const std::string& s) { return nlohmann::json(s).dump(); };
  std::string out = "{", comma;
  if (!header.metadata.empty()) {
    out += "\"__metadata__\":{";
    for (const auto& [key, value] : header.metadata)
      out += std::exchange(comma, ",") + quoted(key) + ":" + quoted(value);
    out += "}";
  }
  for (const std::string& name : order) {
    const SafetensorsEntry& entry = header.entries.at(name);
    out += std::exchange(comma, ",") + quoted(name) + ":{\"dtype\":\"" + entry.dtype + "\",\"shape\":[";
    std::string separator;
    for (const uint64_t extent : entry.shape) out += std::exchange(separator, ",") + std::to_string(extent);
    out += str("],\"data_offsets\":[", entry.begin, ",", entry.end, "]}");
  }
  return out + "}";
}

std::string safetensors_dtype(DType t) {
  const auto found = std::find_if(formats.begin(), formats.end(), [&](const Format& f) { return f.dtype == t; });
  return found->name;
}

DType dtype_from_safetensors(const std::string& name, const std::string& context) {
  const Format* format = find_format(name);
  check(format && format->dtype, context, "dtype ", name,
        " has no counterpart here; known are F64 F32 F16 BF16 I64 I32 U8 BOOL");
  return *format->dtype;
}

}  // namespace loom
