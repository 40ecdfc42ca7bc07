#include "hub/range_journal.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace penstock {
namespace {

constexpr size_t kEtagBytesMax = 1024;

std::string head_line(const PieceMap& map) {
  return fmt::format("penstock-ranges 1 {} {} {}\n", map.bytes, map.piece_bytes, map.etag);
}

std::optional<size_t> piece_of(std::string_view line) {
  size_t piece = 0;
  const auto [end, failure] = std::from_chars(line.data(), line.data() + line.size(), piece);
  const bool good = failure == std::errc{} && end == line.data() + line.size() && !line.empty();
  return good ? std::optional(piece) : std::nullopt;
}

}  // namespace

PieceMap PieceMap::of(uint64_t bytes, uint64_t piece_bytes) {
  PieceMap map{.bytes = bytes, .piece_bytes = piece_bytes, .etag = "", .done = {}};
  map.done.resize((bytes + piece_bytes - 1) / piece_bytes);
  return map;
}

uint64_t PieceMap::end(size_t piece) const {
  return std::min(bytes, (piece + 1) * piece_bytes);
}

uint64_t PieceMap::bytes_done() const {
  uint64_t sum = 0;
  for (size_t piece = 0; piece < done.size(); ++piece) {
    if (done[piece]) sum += end(piece) - begin(piece);
  }
  return sum;
}

PieceMap parse_journal(std::string_view text, uint64_t bytes, uint64_t piece_bytes) {
  PieceMap map = PieceMap::of(bytes, piece_bytes);
  const size_t head_end = text.find('\n');
  if (head_end == text.npos) return map;
  const std::string_view head = text.substr(0, head_end);
  const std::string expected = head_line(map);
  const std::string_view fixed = std::string_view(expected).substr(0, expected.size() - 1);
  if (!head.starts_with(fixed) || head.size() - fixed.size() > kEtagBytesMax) return map;
  map.etag = head.substr(fixed.size());
  text.remove_prefix(head_end + 1);
  for (size_t end = text.find('\n'); end != text.npos; end = text.find('\n')) {
    const auto piece = piece_of(text.substr(0, end));
    if (piece && *piece < map.done.size()) map.done[*piece] = true;
    text.remove_prefix(end + 1);
  }
  return map;
}

Result<RangeJournal> RangeJournal::create(Storage& storage, const std::string& path,
                                          const PieceMap& map) {
  RangeJournal journal(PENSTOCK_TRY(storage.open(path, OpenMode::kCreate)));
  std::string text = head_line(map);
  for (size_t piece = 0; piece < map.done.size(); ++piece) {
    if (map.done[piece]) text += fmt::format("{}\n", piece);
  }
  PENSTOCK_TRY(journal.append(text));
  return journal;
}

Result<void> RangeJournal::add(std::span<const size_t> pieces) {
  std::string text;
  for (const size_t piece : pieces) text += fmt::format("{}\n", piece);
  return append(text);
}

Result<void> RangeJournal::append(const std::string& text) {
  PENSTOCK_TRY(file_->write(position_, std::as_bytes(std::span(text))));
  position_ += text.size();
  return file_->sync();
}

}  // namespace penstock
