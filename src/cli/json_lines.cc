#include "cli/json_lines.h"

#include <fmt/format.h>

namespace penstock {
namespace {

constexpr uint64_t kFileBytesMax = 512 << 20;

Error wrong(const std::string& message) {
  return {ErrorCode::kInvalidArgument, message};
}

}  // namespace

Result<std::vector<Json>> read_json_lines(Storage& storage, const Settings& settings,
                                          const std::string& name) {
  if (!settings.is_given(name)) return wrong(fmt::format("--{} FILE is missing", name));
  const std::string& path = settings.text(name);
  const Result<std::string> text = read_text(storage, path, kFileBytesMax);
  if (!text) return wrong(fmt::format("--{}: {}", name, text.error().message));
  std::vector<Json> lines;
  std::string_view rest = *text;
  for (int number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{}:{}", path, number);
    Result<Json> json = parse_json(line, place);
    if (!json) return wrong(json.error().message);
    if (json_find(*json, "id") == nullptr) {
      return wrong(fmt::format("{}: expected an object with an id", place));
    }
    lines.push_back(std::move(*json));
  }
  return lines;
}

std::string id_text(const Json& line) {
  const Json& id = line.at("id");
  return id.is_string() ? id.get<std::string>() : to_text(id);
}

}  // namespace penstock
