#include <loom/data/byte_pair_vocabulary.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <queue>

#include <loom/data/readers/compressed_file.h>
#include <loom/data/unicode.h>
#include <loom/tensor/create.h>
#include <loom/tensor/utf8.h>

namespace loom::data {

namespace {

// The bytes that a base64 text (RFC 4648, padded) stands for; none: it is not base64.
std::optional<std::string> from_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.empty() || text.size() % 4 != 0) return {};
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::string out;
  uint32_t bits = 0;
  size_t count = 0;
  for (const char c : text.substr(0, text.size() - padding)) {
    const size_t digit = digits.find(c);
    if (digit == std::string_view::npos) return {};
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count >= 8) out += static_cast<char>(bits >> (count -= 8) & 0xFFu);
  }
  if ((bits & ((1u << count) - 1)) != 0) return {};  // the last digit says more than the bytes hold
  return out;
}

// Bytes from `at` on whose characters are of this kind.
size_t run_of(Character kind, std::string_view text, size_t at) {
  const size_t begin = at;
  while (at < text.size()) {
    const auto [code_point, length] = character_at(text, at);
    if (kind_of(code_point) != kind) break;
    at += length;
  }
  return at - begin;
}

size_t contraction(std::string_view text) {
  if (!text.starts_with('\'')) return 0;
  for (const std::string_view tail : {"s", "d", "m", "t", "ll", "ve", "re"})
    if (text.substr(1).starts_with(tail)) return 1 + tail.size();
  return 0;
}

}  // namespace

size_t gpt2_piece(std::string_view text, size_t at) {
  if (const size_t length = contraction(text.substr(at)); length > 0) return length;
  const size_t blank = text[at] == ' ' && at + 1 < text.size() ? 1 : 0;
  const Character kind = kind_of(character_at(text, at + blank).code_point);
  if (kind != Character::space) return blank + run_of(kind, text, at + blank);
  // White space, but its last character goes to what follows, if it is not alone.
  const size_t length = run_of(Character::space, text, at);
  if (at + length == text.size()) return length;
  size_t last = length - 1;
  while (last > 0 && (static_cast<uint8_t>(text[at + last]) & 0xC0u) == 0x80u) --last;
  return last > 0 ? last : length;
}

BytePairVocabulary::BytePairVocabulary(const std::filesystem::path& path) {
  CompressedFile file(path, "tiktoken");
  read(file.read_all(), file.context());
}

BytePairVocabulary BytePairVocabulary::parse(std::string_view lines, const std::string& context) {
  BytePairVocabulary out;
  out.read(lines, context);
  return out;
}

void BytePairVocabulary::read(std::string_view lines, const std::string& context) {
  for (int64_t number = 1; !lines.empty(); ++number) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(line.size() + 1, lines.size()));
    if (line.empty()) continue;
    const size_t blank = line.find(' ');
    const auto bytes = from_base64(line.substr(0, blank));
    check(blank != std::string_view::npos && bytes, context, "line ", number,
          ": expects a token's bytes in base64, a space and the token's rank");
    int64_t rank = -1;
    const auto [end, error] = std::from_chars(line.data() + blank + 1, line.data() + line.size(), rank);
    check(error == std::errc() && end == line.data() + line.size() && rank >= 0, context, "line ", number, ": \"",
          line.substr(blank + 1), "\" is no rank");
    check(ranks_.emplace(*bytes, rank).second, context, "line ", number, ": the token has a rank already");
  }
  tokens_.resize(ranks_.size());
  for (const auto& [bytes, rank] : ranks_) {
    check(rank < std::ssize(tokens_), context, "rank ", rank, " of ", tokens_.size(),
          " tokens; expects each from 0 on, without gaps");
    check(tokens_[static_cast<size_t>(rank)].empty(), context, "rank ", rank, " stands there twice");
    tokens_[static_cast<size_t>(rank)] = bytes;
  }
  for (int byte = 0; byte < 256; ++byte)
    check(rank(std::string(1, static_cast<char>(byte))) >= 0, context, "no token is the single byte ", byte,
          "; a byte-level vocabulary has all 256");
  tokens_.emplace_back(end_of_text);
}

int64_t BytePairVocabulary::rank(std::string_view bytes) const {
  const auto found = ranks_.find(bytes);
  return found == ranks_.end() ? -1 : found->second;
}

// Joins, again and again, the two neighbours whose union has the least rank, the first of them where several have.
void BytePairVocabulary::encode_piece(std::string_view piece, std::vector<int64_t>& out) const {
  if (const int64_t whole = rank(piece); whole >= 0) {
    out.push_back(whole);
    return;
  }
  struct Join {
    int64_t rank;
    size_t begin, end;
    bool operator>(const Join& other) const { return rank != other.rank ? rank > other.rank : begin > other.begin; }
  };
  std::priority_queue<Join, std::vector<Join>, std::greater<>> joins;
  // Parts by where they begin; a part that has been joined to the one before it has no end.
  std::vector<size_t> ends(piece.size()), before(piece.size());
  const auto consider = [&](size_t begin, size_t end) {
    if (const int64_t found = rank(piece.substr(begin, end - begin)); found >= 0) joins.push({found, begin, end});
  };
  for (size_t i = 0; i < piece.size(); ++i) {
    ends[i] = i + 1;
    before[i] = i == 0 ? 0 : i - 1;
    if (i > 0) consider(i - 1, i + 1);
  }
  while (!joins.empty()) {
    const Join join = joins.top();
    joins.pop();
    const size_t middle = ends[join.begin];
    if (middle == 0 || middle >= join.end || ends[middle] != join.end) continue;  // its parts have changed since
    ends[join.begin] = join.end;
    ends[middle] = 0;
    if (join.end < piece.size()) {
      before[join.end] = join.begin;
      consider(join.begin, ends[join.end]);
    }
    if (join.begin > 0) consider(before[join.begin], join.end);
  }
  for (size_t i = 0; i < piece.size(); i = ends[i]) out.push_back(rank(piece.substr(i, ends[i] - i)));
}

Tensor BytePairVocabulary::encode(std::string_view text) const {
  const size_t error = utf8_error(text);
  check(error == std::string_view::npos, "BytePairVocabulary: the text is not UTF-8 at byte ", error);
  std::vector<int64_t> out;
  out.reserve(text.size() / 3);
  for (size_t at = 0; at < text.size();) {
    const size_t length = gpt2_piece(text, at);
    encode_piece(text.substr(at, length), out);
    at += length;
  }
  return from_vector(out, Dims{std::ssize(out)}, {DType::i64, Device::cpu});
}

std::string BytePairVocabulary::decode(const Tensor& tokens) const { return decode(tokens.to_vector<int64_t>()); }

std::string BytePairVocabulary::decode(std::span<const int64_t> tokens) const {
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    check(tokens[i] >= 0 && tokens[i] < size(), "BytePairVocabulary: token ", tokens[i], " at position ", i,
          " is out of range for ", size(), " tokens");
    out += tokens_[static_cast<size_t>(tokens[i])];
  }
  return out;
}

}  // namespace loom::data
