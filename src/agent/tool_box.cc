#include "agent/tool_box.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <vector>

#include "agent/command.h"
#include "agent/inside_folder.h"
#include "io/system_error.h"

namespace penstock {
namespace {

struct ToolText {
  std::string_view word;  // of --allow
  std::string_view name;
  std::string_view description;
  std::string_view parameter;
  std::string_view parameter_text;
};

constexpr ToolText kTexts[] = {
    {"read", "read_file",
     "Read a text file. Long files come in parts: the answer says with which first_line to go on.",
     "path", "Path of the file, relative to the working folder"},
    {"list", "list_folder", "List the names and sizes of what is in a folder.", "path",
     "Path of the folder, relative to the working folder; . is that folder itself"},
    {"run", "run_command",
     "Run a command of the shell in the working folder, after the user has agreed. It has no "
     "input.",
     "command", "The command line"},
};

const ToolText& text_of(Tool tool) {
  return kTexts[static_cast<int>(tool)];
}

// A text of an argument; the first line may also come as one ("7"), as models write it.
Result<std::string> text_argument(const Json& arguments, std::string_view name, bool is_required) {
  const Json* value = json_find(arguments, name);
  if (value == nullptr && !is_required) return std::string();
  if (value == nullptr || !value->is_string()) {
    return invalid_argument(fmt::format("the argument \"{}\" has to be a text", name));
  }
  return value->get<std::string>();
}

std::string failed(const Error& error) {
  return "error: " + error.message;
}

// Whole lines of the file from `first_line` on, as many as fit.
std::string read_lines(const Descriptor& file, const ToolAction& action) {
  struct stat facts {};
  if (::fstat(file.number(), &facts) != 0) return failed(system_error("read", action.path, errno));
  const auto bytes = static_cast<uint64_t>(facts.st_size);
  if (bytes > kFileBytesMax) {
    return fmt::format("error: {} has {} bytes, more than can be read here ({})", action.path,
                       bytes, kFileBytesMax);
  }
  std::string text;
  int64_t line = 1;
  bool is_full = false;
  char buffer[16 << 10];
  for (ssize_t got = 0; !is_full;) {
    got = ::read(file.number(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(system_error("read", action.path, errno));
    if (got == 0) break;
    for (const char c : std::string_view(buffer, static_cast<size_t>(got))) {
      if (c == '\0') {
        return fmt::format("error: {} is no text ({} bytes)", action.path, bytes);
      }
      if (line >= action.first_line) text += c;
      if (c == '\n') ++line;
      is_full = text.size() > kResultBytesMax;
      if (is_full) break;
    }
  }
  if (!is_full) {
    if (!text.empty() || action.first_line == 1) return text.empty() ? "(the file is empty)" : text;
    return fmt::format("error: {} has only {} lines", action.path, line);
  }
  const size_t end = text.rfind('\n', kResultBytesMax - 1);
  if (end == std::string::npos) {  // one line that is longer than all that fits
    text.resize(kResultBytesMax);
    return text + fmt::format("\n[line {} is longer than {} bytes; {} bytes in all]",
                              action.first_line, kResultBytesMax, bytes);
  }
  text.resize(end + 1);
  const int64_t next = action.first_line + std::ranges::count(text, '\n');
  return text + fmt::format("[it goes on with first_line {}; {} bytes in all]", next, bytes);
}

// A name on a line of its own, whatever it is.
std::string one_line(std::string_view name) {
  std::string out(name);
  std::ranges::replace_if(
      out, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return out;
}

std::string list_entries(Descriptor folder, const ToolAction& action) {
  DIR* const stream = ::fdopendir(folder.number());
  if (stream == nullptr) return failed(system_error("list", action.path, errno));
  folder.release();  // the stream's now
  std::vector<std::string> rows;
  size_t count = 0;
  constexpr size_t kLookedAtMax = 100'000;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (++count > kLookedAtMax) break;
    struct stat facts {};
    const int looked = ::fstatat(::dirfd(stream), entry->d_name, &facts, AT_SYMLINK_NOFOLLOW);
    const std::string row = one_line(name);
    if (looked == 0 && S_ISDIR(facts.st_mode)) {
      rows.push_back(row + "/");
    } else if (looked == 0 && S_ISLNK(facts.st_mode)) {
      rows.push_back(row + " (a link)");
    } else {
      rows.push_back(fmt::format("{} ({} bytes)", row, static_cast<uint64_t>(facts.st_size)));
    }
  }
  ::closedir(stream);
  std::ranges::sort(rows);
  std::string text;
  size_t shown = 0;
  for (; shown < std::min(rows.size(), kEntriesMax) && text.size() < kResultBytesMax; ++shown) {
    text += rows[shown] + '\n';
  }
  if (rows.empty()) return "(the folder is empty)";
  if (shown < rows.size()) {
    text +=
        fmt::format("[{} more{}]", rows.size() - shown, count > kLookedAtMax ? " at least" : "");
  }
  return text;
}

std::string run(const std::string& folder, const std::vector<std::string>& environment,
                const ToolAction& action, const std::stop_token& stop) {
  const CommandLimits limits{.bytes_max = kResultBytesMax - 256};
  const Result<CommandOutcome> done =
      run_command(folder, action.command, environment, limits, stop);
  if (!done) return failed(done.error());
  std::string text = done->text;
  if (!text.empty() && !text.ends_with('\n')) text += '\n';
  switch (done->end) {
    case CommandOutcome::End::kExited: return text + fmt::format("[exit code {}]", done->code);
    case CommandOutcome::End::kKilled:
      return text + fmt::format("[ended by signal {}]", done->code);
    case CommandOutcome::End::kStopped: return text + "[stopped by the user]";
    case CommandOutcome::End::kTimeout: break;
  }
  return text + fmt::format("[ended after {} s, the most that it may take]",
                            std::chrono::duration_cast<std::chrono::seconds>(limits.time).count());
}

}  // namespace

Result<ToolSet> parse_tool_set(std::string_view words) {
  ToolSet tools;
  if (words.empty() || words == "none") return tools;
  while (!words.empty()) {
    const std::string_view word = words.substr(0, words.find(','));
    words.remove_prefix(std::min(word.size() + 1, words.size()));
    const auto found =
        std::ranges::find(kTools, word, [](Tool tool) { return text_of(tool).word; });
    if (found == std::end(kTools)) {
      return invalid_argument(
          fmt::format("\"{}\" is no tool; they are read, list and run, or none", word));
    }
    tools.add(*found);
  }
  return tools;
}

std::string text_of(const ToolSet& tools) {
  std::string text;
  for (const Tool tool : kTools) {
    if (tools.has(tool)) text += fmt::format("{}{}", text.empty() ? "" : ",", text_of(tool).word);
  }
  return text.empty() ? "none" : text;
}

Json tool_definitions(const ToolSet& tools) {
  Json list = Json::array();
  for (const Tool tool : kTools) {
    if (!tools.has(tool)) continue;
    const ToolText& text = text_of(tool);
    Json properties = Json::object();
    properties[text.parameter] = Json{{"type", "string"}, {"description", text.parameter_text}};
    if (tool == Tool::kRead) {
      properties["first_line"] = Json{
          {"type", "integer"}, {"description", "Number of the first line to read; 1 without it"}};
    }
    list.push_back(Json{{"type", "function"},
                        {"function",
                         {{"name", text.name},
                          {"description", text.description},
                          {"parameters",
                           {{"type", "object"},
                            {"properties", properties},
                            {"required", Json::array({text.parameter})}}}}}});
  }
  return list;
}

Result<ToolAction> read_action(const ToolSet& allowed, std::string_view name,
                               const Json& arguments) {
  const auto found = std::ranges::find(kTools, name, [](Tool tool) { return text_of(tool).name; });
  if (found == std::end(kTools) || !allowed.has(*found)) {
    return invalid_argument(
        fmt::format("there is no tool \"{}\", or the user has not allowed it", name));
  }
  if (!arguments.is_object()) return invalid_argument("the arguments are no JSON object");
  ToolAction action{.tool = *found};
  if (action.tool == Tool::kRun) {
    action.command = PENSTOCK_TRY(text_argument(arguments, "command", true));
    if (action.command.find_first_not_of(" \t\n") == std::string::npos) {
      return invalid_argument("the command is empty");
    }
    if (action.command.size() > kCommandBytesMax) {
      return invalid_argument(
          fmt::format("the command has more than {} bytes; put it into a file", kCommandBytesMax));
    }
    if (action.command.find('\0') != std::string::npos)
      return invalid_argument("a command has no NUL");
    return action;
  }
  action.path = PENSTOCK_TRY(text_argument(arguments, "path", action.tool == Tool::kRead));
  if (action.path.empty()) action.path = ".";
  if (const Json* line = json_find(arguments, "first_line"); line != nullptr) {
    const bool is_good = line->is_number_integer() && line->get<int64_t>() >= 1;
    if (!is_good)
      return invalid_argument("the argument \"first_line\" has to be a whole number from 1");
    action.first_line = line->get<int64_t>();
  }
  return action;
}

std::string describe(const ToolAction& action) {
  const std::string_view name = text_of(action.tool).name;
  if (action.tool == Tool::kRun) return fmt::format("{}: {}", name, action.command);
  const std::string text = fmt::format("{} {}", name, action.path);
  return action.first_line > 1 ? fmt::format("{}, from line {}", text, action.first_line) : text;
}

Result<ToolBox> ToolBox::open(const std::string& folder, std::vector<std::string> environment) {
  std::error_code failure;
  const auto real = std::filesystem::canonical(folder, failure);
  if (failure) return system_error("open", folder, failure.value());
  if (!std::filesystem::is_directory(real, failure)) {
    return invalid_argument(fmt::format("{} is no folder", folder));
  }
  return ToolBox(real.string(), std::move(environment));
}

std::string ToolBox::act(const ToolAction& action, const std::stop_token& stop) const {
  if (action.tool == Tool::kRun) return run(folder_, environment_, action, stop);
  const bool reads = action.tool == Tool::kRead;
  Result<Descriptor> opened =
      open_inside(folder_, action.path, reads ? FileKind::kRegular : FileKind::kFolder);
  if (!opened) return failed(opened.error());
  return reads ? read_lines(*opened, action) : list_entries(*std::move(opened), action);
}

}  // namespace penstock
