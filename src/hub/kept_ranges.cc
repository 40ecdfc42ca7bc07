#include "hub/kept_ranges.h"

#include <cstring>

#include "io/checksum.h"

namespace penstock {
namespace {

constexpr std::string_view kMagic = "PSRANGES";

struct RecordHead {
  uint64_t file = 0, offset = 0, length = 0;
};

std::string first_bytes(std::string_view commit) {
  return std::string(kMagic) + std::string(commit);
}

template <typename Number>
void put(std::string& text, const Number& number) {
  text.append(reinterpret_cast<const char*>(&number), sizeof number);
}

}  // namespace

uint64_t parse_kept_ranges(std::string_view text, std::string_view commit,
                           const std::function<void(const KeptRange&)>& take) {
  const std::string expected = first_bytes(commit);
  if (!text.starts_with(expected)) return 0;
  size_t at = expected.size();
  for (;;) {
    const std::string_view rest = text.substr(at);
    RecordHead head;
    Hash128 sum;
    if (rest.size() < sizeof head + sizeof sum) return at;
    std::memcpy(&head, rest.data(), sizeof head);
    if (head.length > rest.size() - sizeof head - sizeof sum) return at;
    const auto covered = std::as_bytes(std::span(rest)).first(sizeof head + head.length);
    std::memcpy(&sum, rest.data() + covered.size(), sizeof sum);
    if (checksum(covered, 0) != sum) return at;
    take({head.file, head.offset, covered.subspan(sizeof head)});
    at += covered.size() + sizeof sum;
  }
}

Result<KeptRanges> KeptRanges::open(Storage& storage, const std::string& path,
                                    const std::string& commit,
                                    const std::function<void(const KeptRange&)>& take) {
  const Result<std::string> text = read_text(storage, path, kKeptBytesMax);
  const uint64_t good = text ? parse_kept_ranges(*text, commit, take) : 0;
  KeptRanges kept(
      PENSTOCK_TRY(storage.open(path, good > 0 ? OpenMode::kWrite : OpenMode::kCreate)));
  kept.position_ = good;
  if (good == 0) PENSTOCK_TRY(kept.append(first_bytes(commit)));
  return kept;
}

Result<void> KeptRanges::add(std::span<const KeptRange> ranges) {
  std::string text;
  for (const KeptRange& range : ranges) {
    const size_t begin = text.size();
    put(text, RecordHead{range.file, range.offset, range.bytes.size()});
    text.append(reinterpret_cast<const char*>(range.bytes.data()), range.bytes.size());
    put(text, checksum(std::as_bytes(std::span(text)).subspan(begin), 0));
  }
  if (text.size() > kKeptBytesMax - position_) return {};
  return append(text);
}

Result<void> KeptRanges::append(const std::string& text) {
  PENSTOCK_TRY(file_->write(position_, std::as_bytes(std::span(text))));
  position_ += text.size();
  return {};
}

}  // namespace penstock
