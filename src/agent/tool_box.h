// What a model may do on this machine when its user allows it: read a text file, list a folder, run a
// command. Nobody is asked here: who calls act() has shown the action, and asked where that is due.
//
//   ToolBox box = PENSTOCK_TRY(ToolBox::open(".", environment));
//   const ToolAction action = PENSTOCK_TRY(read_action(allowed, name, arguments));
//   show(describe(action));
//   const std::string result = box.act(action, stop);       // for the model, errors included
//
// Reading stays within one folder: a path is followed to where its links lead, and that has to lie
// below; then it is opened step by step without following any further link, so that nothing can be
// put in its place in between. A command is not held to that folder: it can do what its user can.
//
// Invariants  (1) nothing but regular files and folders is opened; no device, no pipe
//             (2) a result has at most kResultBytesMax and says what was left out
// Threads     one at a time; `stop` from any thread
// Errors      open(): kNotFound, kIo, kInvalidArgument. read_action(): kInvalidArgument, for the model
//             to read. act() has none: what goes wrong is its result.
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace penstock {

enum class Tool : uint8_t { kRead, kList, kRun };
inline constexpr Tool kTools[] = {Tool::kRead, Tool::kList, Tool::kRun};

inline constexpr size_t kResultBytesMax = 32 << 10;
inline constexpr size_t kCommandBytesMax = 4 << 10;
inline constexpr size_t kEntriesMax = 500;
inline constexpr uint64_t kFileBytesMax = 256 << 20;  // of which a part is read

// A set of tools.
class ToolSet {
 public:
  bool has(Tool tool) const { return (bits_ & bit(tool)) != 0; }
  void add(Tool tool) { bits_ |= bit(tool); }
  bool is_empty() const { return bits_ == 0; }
  friend bool operator==(const ToolSet&, const ToolSet&) = default;

 private:
  static uint32_t bit(Tool tool) { return 1u << static_cast<int>(tool); }
  uint32_t bits_ = 0;
};

// "read,list,run", "none". kInvalidArgument naming the word that is none.
Result<ToolSet> parse_tool_set(std::string_view words);
std::string text_of(const ToolSet& tools);

// As APIs list them, with their schemas.
Json tool_definitions(const ToolSet& tools);

struct ToolAction {
  Tool tool = Tool::kRead;
  std::string path = {};     // kRead, kList; as the model wrote it
  int64_t first_line = 1;    // kRead
  std::string command = {};  // kRun
};

Result<ToolAction> read_action(const ToolSet& allowed, std::string_view name,
                               const Json& arguments);

// "read_file notes.txt, from line 7". What the model wrote stands in it as it is.
std::string describe(const ToolAction& action);

class ToolBox {
 public:
  // `environment`: "NAME=value", what commands get.
  static Result<ToolBox> open(const std::string& folder, std::vector<std::string> environment);

  const std::string& folder() const { return folder_; }  // absolute, without links

  std::string act(const ToolAction& action, const std::stop_token& stop) const;

 private:
  ToolBox(std::string folder, std::vector<std::string> environment)
      : folder_(std::move(folder)), environment_(std::move(environment)) {}

  std::string folder_;
  std::vector<std::string> environment_;
};

}  // namespace penstock
