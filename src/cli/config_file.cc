#include "cli/config_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <vector>

#include "cli/options.h"
#include "cli/suggest.h"
#include "format/text.h"
#include "text/utf8.h"

namespace penstock {
namespace {

constexpr std::string_view kBlanks = " \t\r";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

bool is_bare_key(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_';
  });
}

// What follows a value must be nothing or a comment.
bool is_end_of_line(std::string_view rest) {
  rest = trimmed(rest);
  return rest.empty() || rest.front() == '#';
}

std::optional<char> escaped_character(char c) {
  switch (c) {
    case 'n': return '\n';
    case 't': return '\t';
    case '"':
    case '\\': return c;
    default: return std::nullopt;
  }
}

// "text" or 'text' at the beginning of `rest`; the escapes \n \t \" \\ in the former.
std::optional<std::string> parse_string(std::string_view rest) {
  const char quote = rest.front();
  std::string value;
  for (size_t i = 1; i < rest.size(); ++i) {
    if (rest[i] == quote) {
      if (!is_end_of_line(rest.substr(i + 1))) return std::nullopt;
      return value;
    }
    if (rest[i] != '\\' || quote == '\'') {
      value += rest[i];
      continue;
    }
    if (++i == rest.size()) return std::nullopt;
    const std::optional<char> c = escaped_character(rest[i]);
    if (!c) return std::nullopt;
    value += *c;
  }
  return std::nullopt;
}

// true, false or a number; TOML allows underscores between digits.
std::optional<std::string> parse_bare_value(std::string_view rest) {
  std::string value(trimmed(rest.substr(0, rest.find('#'))));
  if (value == "true" || value == "false") return value;
  std::erase(value, '_');
  if (value.starts_with('+')) value.erase(0, 1);
  double number = 0;
  const char* end = value.data() + value.size();
  const auto [stopped, failure] = std::from_chars(value.data(), end, number);
  if (failure != std::errc{} || stopped != end) return std::nullopt;
  return value;
}

class ConfigParser {
 public:
  explicit ConfigParser(const std::string& path) { file_.path = path; }

  Result<ConfigFile> parse(std::string_view text) {
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // as some editors begin
    if (!is_valid_utf8(text)) return wrong("the file is not UTF-8 text");
    while (!text.empty()) {
      ++line_;
      const size_t end = std::min(text.find('\n'), text.size());
      PENSTOCK_TRY(parse_line(trimmed(text.substr(0, end))));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    return std::move(file_);
  }

 private:
  Error wrong(const std::string& message) const {
    return {ErrorCode::kInvalidArgument, fmt::format("{}:{}: {}", file_.path, line_, message)};
  }

  Result<void> parse_line(std::string_view line) {
    if (line.empty() || line.front() == '#') return {};
    if (line.front() == '[') return parse_section(line);
    return parse_entry(line);
  }

  Result<void> parse_section(std::string_view line) {
    const size_t end = line.find(']');
    if (end == std::string_view::npos || !is_end_of_line(line.substr(end + 1))) {
      return wrong("expected [section]");
    }
    section_ = trimmed(line.substr(1, end - 1));
    if (find_verb(section_) != nullptr) return {};
    std::vector<std::string_view> names;
    for (const VerbText& verb : all_verbs()) names.push_back(verb.name);
    return wrong(fmt::format("unknown section {}{}; sections are names of verbs, such as [run]",
                             escaped(section_), suggestion(section_, names)));
  }

  Result<void> parse_entry(std::string_view line) {
    const size_t equals = line.find('=');
    const std::string key(trimmed(line.substr(0, std::min(equals, line.size()))));
    if (equals == std::string_view::npos || !is_bare_key(key)) {
      return wrong("expected: key = value");
    }
    PENSTOCK_TRY(check_key(key));
    const std::string_view rest = trimmed(line.substr(equals + 1));
    std::optional<std::string> value;
    if (!rest.empty()) {
      const bool quoted = rest.front() == '"' || rest.front() == '\'';
      value = quoted ? parse_string(rest) : parse_bare_value(rest);
    }
    if (!value) {
      return wrong(
          fmt::format("the value of {} is not understood; write {} = \"text\", a number, "
                      "true or false",
                      key, key));
    }
    file_.entries.push_back({section_, key, std::move(*value), line_});
    return {};
  }

  Result<void> check_key(const std::string& key) const {
    if (!is_setting(key)) {
      std::vector<std::string_view> names;
      for (const Option& option : all_options()) {
        if (!option.per_call) names.push_back(option.name);
      }
      return wrong(fmt::format("unknown key {}{}; `penstock config show` lists all", escaped(key),
                               suggestion(key, names)));
    }
    if (!section_.empty()) {
      const Option* option = find_option(find_verb(section_)->verb, key);
      if (option == nullptr || option->per_call) {
        return wrong(fmt::format("unknown key {}: {} has no such setting", escaped(key), section_));
      }
    }
    for (const ConfigEntry& entry : file_.entries) {
      if (entry.section == section_ && entry.key == key) {
        return wrong(fmt::format("{} was already set in line {}", key, entry.line));
      }
    }
    return {};
  }

  ConfigFile file_;
  std::string section_;
  int line_ = 0;
};

}  // namespace

const ConfigEntry* ConfigFile::find(std::string_view section, std::string_view key) const {
  const ConfigEntry* general = nullptr;
  for (const ConfigEntry& entry : entries) {
    if (entry.key != key) continue;
    if (entry.section == section) return &entry;
    if (entry.section.empty()) general = &entry;
  }
  return general;
}

Result<ConfigFile> parse_config_file(std::string_view text, const std::string& path) {
  return ConfigParser(path).parse(text);
}

}  // namespace penstock
