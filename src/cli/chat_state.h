// What a chat remembers between turns, and the commands that change it.
//
// Errors  kInvalidArgument for the person at the keyboard; those of files that it names
#pragma once

#include <set>
#include <string>
#include <vector>

#include "agent/tool_box.h"
#include "cli/program.h"
#include "dialogue/conversation.h"
#include "engine/engine.h"

namespace penstock {

class ChatPartner;

struct ChatState {
  Conversation conversation;
  SamplingOptions sampling;
  std::set<std::string> sampling_given;  // names of flags: what a server is told
  int64_t max_tokens = 0;
  std::vector<std::string> stops;
  std::string attached;  // text of /read, in front of the next message
  bool shows_figures = false;
  uint64_t num_answers = 0;  // moves the seed on, so that /regen draws anew
  ToolSet allowed;

  // Those of --tools and those that are allowed, or null.
  Json offered_tools() const;
};

enum class ChatAction {
  kStay,
  kLeave,
  kAnswer,  // the last message is the user's and wants an answer (again)
};

// A message of one line that begins with one '/' and is no path.
bool is_chat_command(const std::string& message);

// What is meant by what was typed: of two slashes at the beginning, one.
std::string message_of(const std::string& typed);

// `line` is a command. What it says goes to standard error. Errors are for the person at the
// keyboard: the chat goes on.
Result<ChatAction> run_chat_command(Call& call, ChatPartner& partner, ChatState& state,
                                    const std::string& line);

}  // namespace penstock
