#include "cli/consent.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <system_error>

#include "base/byte_text.h"
#include "format/text.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

Error not_its_own(const std::string& path, std::string_view why) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{} {}, so --in-place does not remove it", escaped(path), why)};
}

Result<void> check_file(const fs::path& path) {
  std::error_code failure;
  const fs::file_status status = fs::symlink_status(path, failure);
  if (failure) {
    return Error{ErrorCode::kIo, fmt::format("{}: {}", escaped(path.native()), failure.message())};
  }
  if (fs::is_symlink(status)) {
    return not_its_own(path,
                       "is a link, as in the cache of `pull` and other programs, where the file "
                       "belongs to all of them (pack without --in-place and use `penstock rm`, or "
                       "move the files themselves into a folder of their own)");
  }
  if (!fs::is_regular_file(status)) return not_its_own(path, "is no file");
  if (fs::hard_link_count(path, failure) > 1) {
    return not_its_own(path, "has other names (hard links), with which its room would stay taken");
  }
  if ((status.permissions() & fs::perms::owner_write) == fs::perms::none) {
    return not_its_own(path, "is marked read-only (chmod u+w allows it)");
  }
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (::access(folder.c_str(), W_OK) != 0) {
    return not_its_own(path, "is in a folder that may not be written to");
  }
  return {};
}

std::string what_happens(const InPlaceFacts& facts, std::string_view between) {
  std::string text = fmt::format(
      "--in-place removes {} files of weights ({}), each when what is made of it was "
      "read back",
      facts.files.size(), format_bytes(facts.bytes));
  if (facts.staging_bytes > 0) {
    text += fmt::format(", and needs {} beside them at the worst moment",
                        format_bytes(facts.staging_bytes));
  }
  if (facts.num_gone > 0) text += fmt::format("; {} are gone already", facts.num_gone);
  for (const std::string& loss : facts.lost) {
    text += fmt::format("{}it loses for good: {}", between, loss);
  }
  return text;
}

}  // namespace

Result<void> type_name(Call& call, const std::string& what, const std::string& name) {
  call.interrupt.set_policy(Interrupt::Policy::kExit);
  call.terminal.show(table_text(fmt::format("{}type {} to do so: ", what, name)));
  std::string typed;
  std::getline(std::cin, typed);
  if (typed == name) return {};
  return invalid_argument(
      fmt::format("{} is not {}; nothing was removed", escaped(typed), escaped(name)));
}

Result<void> consent_in_place(Call& call, const std::string& source, const InPlaceFacts& facts) {
  for (const InPlaceFacts::File& file : facts.files) PENSTOCK_TRY(check_file(file.path));
  if (call.settings.is_on("yes")) {
    call.terminal.note(what_happens(facts, "\n"));
    return {};
  }
  if (!call.terminal.input_is_interactive()) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: {}; agree with --yes", escaped(source), what_happens(facts, "; "))};
  }
  const std::string name = fs::path(source).filename();
  PENSTOCK_TRY(type_name(call, what_happens(facts, "\n") + '\n', name));
  call.interrupt.set_policy(Interrupt::Policy::kStop);
  return {};
}

}  // namespace penstock
