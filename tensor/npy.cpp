#include <loom/tensor/npy.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include <loom/accelerators/atomic_file.h>
#include <loom/tensor/input_file.h>
#include <loom/tensor/raw.h>

namespace loom {

static_assert(std::endian::native == std::endian::little, "written little-endian; swap bytes here");

namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr uint64_t header_limit = 10'000;  // NumPy's own

struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<int64_t> shape;
};

// The header is a Python dictionary literal; exactly the three keys are allowed, in any order.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const InputFile& file) : text_(text), file_(file) {}

  NpyHeader parse() {
    NpyHeader out;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      bool* seen = key == "descr" ? &descr : key == "fortran_order" ? &order : key == "shape" ? &shape : nullptr;
      if (seen == nullptr || *seen) refuse(str("the key '", key, "' is ", seen ? "repeated" : "unknown"));
      *seen = true;
      expect(':');
      if (seen == &descr)
        out.descr = quoted();
      else if (seen == &order)
        out.fortran_order = boolean_literal();
      else
        out.shape = tuple();
      if (!accept(',') && peek() != '}') refuse("',' or '}' expected");
    }
    if (peek() != '\0') refuse("something follows the dictionary");
    if (!descr || !order || !shape) refuse("'descr', 'fortran_order' and 'shape' are all needed");
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& problem) const {
    fail(file_.context(), "header, at byte ", at_, ": ", problem);
  }
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) refuse(str("'", c, "' expected"));
  }
  std::string quoted() {
    const char quote = peek();
    if (quote == '[') refuse("structured dtypes have no counterpart here");
    if (quote != '\'' && quote != '"') refuse("a text in quotes expected");
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) refuse("the text has no end");
    std::string out(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return out;
  }
  bool boolean_literal() {
    peek();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return value;
    }
    refuse("True or False expected");
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> out;
    expect('(');
    bool comma = true;
    while (!accept(')')) {
      if (!comma) refuse("',' or ')' expected");
      peek();
      int64_t value = 0;
      const char* begin = text_.data() + at_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
      if (error != std::errc() || value < 0) refuse("a number of 0 or more expected");
      at_ += static_cast<size_t>(end - begin);
      out.push_back(value);
      comma = accept(',');
    }
    if (out.size() == 1 && !comma) refuse("'(n)' is a number, a shape is '(n,)'");
    return out;
  }

  std::string_view text_;
  const InputFile& file_;
  size_t at_ = 0;
};

struct Format {
  const char* name;  // without the byte order
  DType dtype;
};
constexpr std::array<Format, 7> formats{
    {{"f8", f64}, {"f4", f32}, {"f2", f16}, {"i8", i64}, {"i4", i32}, {"u1", u8}, {"b1", boolean}}};

DType dtype_of_descr(const std::string& descr, const InputFile& file) {
  file.check(descr.find('O') == std::string::npos, "holds pickled Python objects, which are never loaded");
  const auto known = std::find_if(formats.begin(), formats.end(),
                                  [&](const Format& f) { return !descr.empty() && descr.substr(1) == f.name; });
  const bool order = !descr.empty() && std::string_view("<>|=").find(descr[0]) != std::string_view::npos;
  file.check(order && known != formats.end(), "dtype '", descr,
             "' has no counterpart here; known are f8 f4 f2 i8 i4 u1 b1");
  return known->dtype;
}

struct Layout {
  NpyHeader header;
  uint64_t data_start = 0;
};

Layout read_header(const InputFile& file) {
  std::array<uint8_t, 8> start{};
  file.check(file.size() >= 10, "has ", file.size(), " bytes; not a .npy file");
  file.read(0, start.data(), start.size());
  file.check(std::equal(magic.begin(), magic.end(), start.begin(),
                        [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; }),
             "does not begin with \\x93NUMPY; not a .npy file");
  const int major = start[6], minor = start[7];
  file.check(major >= 1 && major <= 3 && minor == 0, "is of version ", major, ".", minor, ", expects 1.0, 2.0 or 3.0");
  uint32_t length = 0;
  const uint64_t width = major == 1 ? 2 : 4;
  file.read(8, &length, width);
  file.check(length <= header_limit, "the header has ", length, " bytes, more than ", header_limit);
  std::string text(length, '\0');
  file.read(8 + width, text.data(), length);
  file.check(text.find('\0') == std::string::npos, "the header holds a NUL byte");
  return {HeaderParser(text, file).parse(), 8 + width + length};
}

uint64_t checked_bytes(const NpyHeader& header, DType dtype, const InputFile& file) {
  uint64_t bytes = item_size(dtype);
  bool overflow = false;
  for (const int64_t extent : header.shape)
    overflow |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes);
  file.check(!overflow, "the shape has more elements than 64 bits can count");
  file.check(header.shape.size() <= static_cast<size_t>(Dims::max_rank), "has ", header.shape.size(),
             " dimensions; a tensor has at most ", Dims::max_rank);
  return bytes;
}

void swap_bytes(const View& x) {
  const auto width = static_cast<int64_t>(item_size(x.dtype));
  auto* data = x.as<uint8_t>();
  for (int64_t i = 0; i < x.numel(); ++i) std::reverse(data + i * width, data + (i + 1) * width);
}

std::string format_header(const Tensor& x) {
  const auto known =
      std::find_if(formats.begin(), formats.end(), [&](const Format& f) { return f.dtype == x.dtype(); });
  std::string text =
      str("{'descr': '", item_size(x.dtype()) == 1 ? '|' : '<', known->name, "', 'fortran_order': False, 'shape': (");
  for (int i = 0; i < x.dim(); ++i) text += str(x.shape()[i], i + 1 < x.dim() ? ", " : x.dim() == 1 ? "," : "");
  text += "), }";
  text.resize((10 + text.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');  // the data starts at a multiple of 64
  return text + "\n";
}

}  // namespace

Tensor load_npy(const std::filesystem::path& path) {
  const InputFile file(path, "npy");
  const auto [header, start] = read_header(file);
  const DType dtype = dtype_of_descr(header.descr, file);
  const uint64_t bytes = checked_bytes(header, dtype, file);
  file.check(bytes == file.size() - start, "the array needs ", bytes, " bytes of data, the file has ",
             file.size() - start, bytes > file.size() - start ? "; it was truncated" : "; something follows it");

  Dims shape(header.shape);
  if (header.fortran_order) std::reverse(shape.begin(), shape.end());
  Tensor out = empty(shape, {dtype, Device::cpu});
  const View view = out;
  file.read(start, view.data, bytes);
  if (header.descr[0] == '>') swap_bytes(view);
  if (dtype == boolean)
    for (uint64_t i = 0; i < bytes; ++i)
      file.check(view.as<uint8_t>()[i] <= 1, "element ", i, " is the byte ", view.as<uint8_t>()[i], ", a b1 is 0 or 1");
  if (!header.fortran_order) return out;
  Dims reversed;
  for (int i = shape.size() - 1; i >= 0; --i) reversed.push_back(i);
  return raw::contiguous(raw::permute(out, reversed));
}

void save_npy(const std::filesystem::path& path, const Tensor& x) {
  const Tensor host = raw::to_device(x, Device::cpu);
  const Tensor dense = raw::contiguous(host.dtype() == bf16 ? raw::cast(host, f32) : host);
  const std::string header = format_header(dense);
  const auto length = static_cast<uint16_t>(header.size());
  AtomicFile file(path, "npy");
  file.write(magic);
  file.write(std::string_view("\x01\x00", 2));
  file.write(&length, 2);
  file.write(header);
  const View view = dense;
  file.write(view.data, view.bytes());
  file.commit();
}

}  // namespace loom
