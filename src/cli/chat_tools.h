// Tools in a chat: each call is shown before it acts, a command is asked about, results go back to the
// model as messages.
//
// Threads  one
// Errors   open(): kInvalidArgument naming the flag. What goes wrong with a call is told to the model.
#pragma once

#include <string>

#include "agent/tool_box.h"
#include "cli/line_reader.h"
#include "cli/program.h"

namespace penstock {

class ChatTools {
 public:
  // Commands are asked about, so they need somebody at the keyboard.
  static Result<void> check(const Call& call, const ToolSet& allowed);
  static Result<ChatTools> open(Call& call);

  enum class After {
    kAnswer,  // the model wants to see the results
    kStop,    // nothing was carried out, or the user stops here
  };
  // Carries out the calls of `message` and appends what came of them to `messages`, one for each.
  After carry_out(const ToolSet& allowed, const Json& message, LineReader& lines, Json& messages);

  const std::string& folder() const { return box_.folder(); }

 private:
  ChatTools(Call& call, ToolBox box) : call_(call), box_(std::move(box)) {}

  enum class Consent { kYes, kNo, kLeave };
  struct Outcome {
    std::string text;
    bool was_tried = false;
    bool is_over = false;  // the user has had enough
  };
  Outcome carry_out_one(const ToolSet& allowed, const Json& call, LineReader& lines);
  Consent ask(LineReader& lines) const;

  Call& call_;
  ToolBox box_;
};

}  // namespace penstock
