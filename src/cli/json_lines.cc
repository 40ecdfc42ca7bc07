#include "cli/json_lines.h"

#include <fmt/format.h>

namespace penstock {
namespace {

constexpr uint64_t kReadBytes = 256 << 10;
constexpr size_t kJsonLineBytesMax = 16 << 20;  // far beyond what a context holds

}  // namespace

Result<JsonLines> JsonLines::open(Storage& storage, const Settings& settings,
                                  const std::string& name) {
  if (!settings.is_given(name)) return invalid_argument(fmt::format("--{} FILE is missing", name));
  return open_path(storage, settings.text(name), name);
}

Result<JsonLines> JsonLines::open_path(Storage& storage, const std::string& path,
                                       const std::string& option) {
  Result<std::unique_ptr<StorageFile>> file = storage.open(path, OpenMode::kRead);
  if (!file) return invalid_argument(fmt::format("--{}: {}", option, file.error().message));
  JsonLines lines(*std::move(file));
  size_t count = 0;
  while (PENSTOCK_TRY(lines.next())) ++count;
  lines.rewind();
  lines.count_ = count;
  return lines;
}

void JsonLines::rewind() {
  offset_ = 0;
  buffer_.clear();
  position_ = 0;
  number_ = 0;
}

// False at the end of the file.
Result<bool> JsonLines::next_line(std::string& line) {
  line.clear();
  for (;;) {
    const size_t end = buffer_.find('\n', position_);
    line.append(buffer_, position_, std::min(end, buffer_.size()) - position_);
    if (line.size() > kJsonLineBytesMax) {
      return invalid_argument(fmt::format("{}:{}: the line is longer than {} MiB", file_->path(),
                                          number_ + 1, kJsonLineBytesMax >> 20));
    }
    if (end != std::string::npos) {
      position_ = end + 1;
      break;
    }
    buffer_.resize(kReadBytes);
    position_ = 0;
    const uint64_t got =
        PENSTOCK_TRY(file_->read_some(offset_, std::as_writable_bytes(std::span(buffer_))));
    buffer_.resize(got);
    offset_ += got;
    if (got == 0 && line.empty()) return false;
    if (got == 0) break;
  }
  ++number_;
  return true;
}

Result<std::optional<Json>> JsonLines::next() {
  std::string line;
  while (PENSTOCK_TRY(next_line(line))) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string place = fmt::format("{}:{}", file_->path(), number_);
    Result<Json> json = parse_json(line, place);
    if (!json) return invalid_argument(json.error().message);
    if (json_find(*json, "id") == nullptr) {
      return invalid_argument(fmt::format("{}: expected an object with an id", place));
    }
    return std::optional<Json>(*std::move(json));
  }
  return std::optional<Json>();
}

std::string id_text(const Json& line) {
  const Json& id = line.at("id");
  return id.is_string() ? id.get<std::string>() : to_text(id);
}

}  // namespace penstock
