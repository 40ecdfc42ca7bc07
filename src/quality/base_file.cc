#include "quality/base_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/byte_cursor.h"
#include "base/json.h"
#include "format/text.h"
#include "quality/prediction.h"

namespace penstock {
namespace {

constexpr int kVersion = 2;  // 1 kept no word of what was lossy
constexpr std::string_view kMagic = "PNSTBASE";
constexpr uint64_t kTrailerBytes = 2 * sizeof(uint64_t) + sizeof(Hash128) + 8;
constexpr uint64_t kInfoBytesMax = uint64_t{64} << 20;
constexpr int64_t kCountMax = int64_t{1} << 40;

// --- to JSON ---

Json text_json(const BaseText& text) {
  return {{"id", text.id},
          {"tokens", hex_text(text.tokens)},
          {"predictions", text.predictions},
          {"nll", text.nll},
          {"positions", hex_text(text.positions)}};
}

Json set_json(const BaseSet& set) {
  Json answers = Json::array();
  for (const BaseAnswer& answer : set.answers) {
    answers.push_back({{"id", answer.id},
                       {"prompt", hex_text(answer.prompt)},
                       {"exact", answer.is_exact},
                       {"valid", answer.is_valid}});
  }
  return {{"name", set.name}, {"max_tokens", set.max_tokens}, {"answers", std::move(answers)}};
}

Json info_json(const BaseInfo& info) {
  Json texts = Json::array(), sets = Json::array();
  for (const BaseText& text : info.texts) texts.push_back(text_json(text));
  for (const BaseSet& set : info.sets) sets.push_back(set_json(set));
  return {
      {"version", kVersion}, {"label", info.label},           {"model_id", info.model_id},
      {"lossy", info.lossy}, {"vocab_size", info.vocab_size}, {"window_tokens", info.window_tokens},
      {"top", info.top},     {"texts", std::move(texts)},     {"sets", std::move(sets)}};
}

// --- from JSON ---

Error corrupt(const std::string& what) {
  return {ErrorCode::kCorrupt, what};
}

Result<Hash128> json_hash(const Json& object, std::string_view key, std::string_view what) {
  const std::string text = PENSTOCK_TRY(json_string(object, key, what));
  uint64_t halves[2] = {};
  bool good = text.size() == 32;
  for (size_t i = 0; good && i < 2; ++i) {
    const char* begin = text.data() + 16 * i;
    const auto [end, failure] = std::from_chars(begin, begin + 16, halves[i], 16);
    good = failure == std::errc{} && end == begin + 16;
  }
  if (!good) return corrupt(fmt::format("{}: {} is no hash of 32 digits", what, key));
  return Hash128{.low = halves[1], .high = halves[0]};
}

Result<const Json*> json_list(const Json& object, std::string_view key, std::string_view what) {
  const Json* list = json_find(object, key);
  if (list == nullptr || !list->is_array()) {
    return corrupt(fmt::format("{}: {} is no list", what, key));
  }
  return list;
}

Result<BaseText> text_of(const Json& json) {
  BaseText text;
  text.id = PENSTOCK_TRY(json_string(json, "id", "a text"));
  const std::string what = "text " + text.id;
  text.tokens = PENSTOCK_TRY(json_hash(json, "tokens", what));
  text.predictions = PENSTOCK_TRY(json_int(json, "predictions", what, 0, kCountMax));
  text.nll = PENSTOCK_TRY(json_number(json, "nll", what));
  text.positions = PENSTOCK_TRY(json_hash(json, "positions", what));
  if (!std::isfinite(text.nll)) return corrupt(what + ": nll is no number");
  return text;
}

Result<BaseSet> set_of(const Json& json) {
  BaseSet set;
  set.name = PENSTOCK_TRY(json_string(json, "name", "a set"));
  const std::string what = "set " + set.name;
  set.max_tokens = PENSTOCK_TRY(json_int(json, "max_tokens", what, 0, kCountMax));
  for (const Json& item : *PENSTOCK_TRY(json_list(json, "answers", what))) {
    BaseAnswer answer;
    answer.id = PENSTOCK_TRY(json_string(item, "id", what));
    answer.prompt = PENSTOCK_TRY(json_hash(item, "prompt", what));
    answer.is_exact = PENSTOCK_TRY(json_bool(item, "exact", what));
    answer.is_valid = PENSTOCK_TRY(json_bool(item, "valid", what));
    set.answers.push_back(std::move(answer));
  }
  return set;
}

Result<BaseInfo> info_of(const Json& json) {
  const std::string_view what = "what it tells of itself";
  const int64_t version = PENSTOCK_TRY(json_int(json, "version", what, 0, INT32_MAX));
  if (version != kVersion) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("a reference run of version {}, this program has {}: make it again "
                             "with --write-base",
                             version, kVersion)};
  }
  BaseInfo info;
  info.label = PENSTOCK_TRY(json_string(json, "label", what));
  info.model_id = PENSTOCK_TRY(json_string(json, "model_id", what));
  info.lossy = PENSTOCK_TRY(json_string(json, "lossy", what));
  info.vocab_size = PENSTOCK_TRY(json_int(json, "vocab_size", what, 1, kPositionVocabMax));
  info.window_tokens = PENSTOCK_TRY(json_int(json, "window_tokens", what, 1, INT32_MAX));
  const int64_t top_max = std::min(int64_t{kBaseTopMax}, info.vocab_size);
  info.top = static_cast<int>(PENSTOCK_TRY(json_int(json, "top", what, 1, top_max)));
  for (const Json& text : *PENSTOCK_TRY(json_list(json, "texts", what))) {
    info.texts.push_back(PENSTOCK_TRY(text_of(text)));
  }
  for (const Json& set : *PENSTOCK_TRY(json_list(json, "sets", what))) {
    info.sets.push_back(PENSTOCK_TRY(set_of(set)));
  }
  return info;
}

}  // namespace

const BaseSet* BaseInfo::find_set(const std::string& name) const {
  const auto found = std::ranges::find(sets, name, &BaseSet::name);
  return found == sets.end() ? nullptr : &*found;
}

Hash128 tokens_hash(std::span<const TokenId> tokens) {
  return checksum(std::as_bytes(tokens), 0);
}

// --- writing ---

Result<BaseWriter> BaseWriter::create(Storage& storage, const std::string& path) {
  return BaseWriter(PENSTOCK_TRY(OutputFile::create(storage, path)));
}

Result<void> BaseWriter::append(std::span<const std::byte> positions) {
  of_text_.update(positions);
  bytes_ += positions.size();
  return file_.append(positions);
}

void BaseWriter::end_text(BaseText text) {
  text.positions = of_text_.value();
  of_text_ = RunningChecksum();
  texts_.push_back(std::move(text));
}

Result<void> BaseWriter::finish(BaseInfo info) {
  info.texts = std::move(texts_);
  const std::string json = to_text(info_json(info));
  const auto json_bytes = std::as_bytes(std::span(json));
  const Hash128 sum = checksum(json_bytes, 0);
  const uint64_t numbers[] = {bytes_, json.size(), sum.low, sum.high};
  PENSTOCK_TRY(file_.append(json_bytes));
  PENSTOCK_TRY(file_.append(std::as_bytes(std::span(numbers))));
  PENSTOCK_TRY(file_.append(std::as_bytes(std::span(kMagic))));
  return file_.finish();
}

// --- reading ---

Result<BaseFile> BaseFile::open(Storage& storage, const std::string& path) {
  BaseFile base(PENSTOCK_TRY(storage.open(path, OpenMode::kRead)));
  const Error no_base =
      corrupt(path + ": not a reference run as --write-base makes them, or not all of it");
  const uint64_t bytes = PENSTOCK_TRY(base.file_->stat()).bytes;
  if (bytes < kTrailerBytes) return no_base;
  std::byte trailer[kTrailerBytes];
  PENSTOCK_TRY(read_exactly(*base.file_, bytes - kTrailerBytes, trailer));
  ByteCursor cursor(trailer);
  const auto offset = cursor.read<uint64_t>();
  const auto info_bytes = cursor.read<uint64_t>();
  const auto low = cursor.read<uint64_t>();
  const auto high = cursor.read<uint64_t>();
  if (std::memcmp(cursor.take(kMagic.size()).data(), kMagic.data(), kMagic.size()) != 0) {
    return no_base;
  }
  if (info_bytes > kInfoBytesMax || checked_add(offset, info_bytes) != bytes - kTrailerBytes) {
    return no_base;
  }
  std::string json(info_bytes, '\0');
  PENSTOCK_TRY(read_exactly(*base.file_, offset,
                            std::as_writable_bytes(std::span(json.data(), json.size()))));
  if (checksum(std::as_bytes(std::span(json)), 0) != Hash128{.low = low, .high = high}) {
    return corrupt(path + ": its checksum does not match: make it again with --write-base");
  }
  Result<BaseInfo> info = info_of(PENSTOCK_TRY(parse_json(json, path)));
  if (!info) {
    const bool is_missing = info.error().code == ErrorCode::kNotFound;
    const ErrorCode code = is_missing ? ErrorCode::kCorrupt : info.error().code;
    return Error{code, info.error().message}.with_context(path);
  }
  base.info_ = *std::move(info);
  PENSTOCK_TRY(base.place_texts(offset));
  return base;
}

Result<void> BaseFile::place_texts(uint64_t end) {
  uint64_t at = 0;
  for (const BaseText& text : info_.texts) {
    offsets_.push_back(at);
    const auto bytes =
        checked_multiply(static_cast<uint64_t>(text.predictions), position_bytes(info_.top));
    const auto next = bytes ? checked_add(at, *bytes) : std::nullopt;
    if (!next || *next > end) {
      return corrupt(fmt::format("{}: text {} reaches beyond the end", path(), text.id));
    }
    at = *next;
  }
  if (at != end) return corrupt(path() + ": it has more positions than texts");
  return {};
}

Result<std::span<const std::byte>> BaseFile::read(size_t text, int64_t first, int64_t count) {
  const BaseText& entry = info_.texts[text];
  PENSTOCK_CHECK(first >= 0 && count >= 0 && first + count <= entry.predictions);
  const uint64_t each = position_bytes(info_.top);
  if (first == 0) of_text_ = RunningChecksum();
  window_.resize(static_cast<size_t>(count) * each);
  const uint64_t offset = offsets_[text] + static_cast<uint64_t>(first) * each;
  PENSTOCK_TRY(read_exactly(*file_, offset, window_));
  of_text_.update(window_);
  const bool is_last = first + count == entry.predictions;
  const Error wrong = corrupt(
      fmt::format("{}: the positions of text {} do not match their checksum", path(), entry.id));
  if (is_last && of_text_.value() != entry.positions) return wrong;
  for (int64_t i = 0; i < count; ++i) {
    const auto position = std::span(window_).subspan(static_cast<size_t>(i) * each, each);
    if (!position_fits(position, info_.top, info_.vocab_size)) return wrong;
  }
  return std::span<const std::byte>(window_);
}

}  // namespace penstock
