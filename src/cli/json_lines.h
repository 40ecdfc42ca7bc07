// A file of JSON lines: one object a line, each with an "id". Empty lines are skipped.
//
// Read line by line, because such files are larger than budgets are; twice, so that a mistake in the
// last line is told before the first is worked on.
//
//   JsonLines lines = PENSTOCK_TRY(JsonLines::open(storage, settings, "items"));   // all are good
//   while (const auto line = PENSTOCK_TRY(lines.next())) use(*line);
//
// Memory   a line
// Errors   kInvalidArgument naming file and line; kIo
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "cli/settings.h"
#include "io/storage.h"

namespace penstock {

class JsonLines {
 public:
  // The file that the option `name` gives.
  static Result<JsonLines> open(Storage& storage, const Settings& settings,
                                const std::string& name);
  // option: whom errors name.
  static Result<JsonLines> open_path(Storage& storage, const std::string& path,
                                     const std::string& option);

  size_t count() const { return count_; }
  Result<std::optional<Json>> next();  // nothing after the last

 private:
  explicit JsonLines(std::unique_ptr<StorageFile> file) : file_(std::move(file)) {}

  void rewind();
  Result<bool> next_line(std::string& line);

  std::unique_ptr<StorageFile> file_;
  size_t count_ = 0;
  uint64_t offset_ = 0;  // of what follows the buffer
  std::string buffer_;
  size_t position_ = 0;  // in the buffer
  int number_ = 0;       // of the line that was read last
};

// The id of a line, for errors: "qa-0010".
std::string id_text(const Json& line);

}  // namespace penstock
