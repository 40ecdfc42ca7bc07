// Whoever answers in a chat: a model that is loaded here, or a server.
//
// Threads  the computing thread
// Errors   of answer(): the engine's or the server's; the conversation is then as it was before
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "cli/chat_state.h"
#include "cli/program.h"

namespace penstock {

struct PartnerAnswer {
  Json message;  // the assistant's; arguments of its calls are objects wherever they are valid
  FinishReason finish = FinishReason::kStop;

  bool is_empty() const;
  bool has_calls() const { return message.contains("tool_calls"); }
};

// What of an answer becomes a message.
Json answer_message(const std::string& content, const std::string& reasoning, const Json& calls);
Json call_json(const std::string& id, const std::string& name, const std::string& arguments);

class ChatPartner {
 public:
  virtual ~ChatPartner() = default;

  // Answers the last message. What is said is printed as it comes; what it calls is not.
  virtual Result<PartnerAnswer> answer(const ChatState& state) = 0;

  virtual std::string description() = 0;   // for /show
  virtual std::string limits() = 0;        // "context of 4096 tokens", likewise
  virtual std::string last_figures() = 0;  // of the last answer, one line; empty: there was none
  virtual std::string figures() = 0;       // of it, several lines
  virtual uint64_t text_bytes_max() = 0;   // of one message
  virtual Error text_too_long() = 0;       // for one that has more
  virtual std::chrono::milliseconds work_while_idle() = 0;  // line_reader.h
  virtual void tell_news() = 0;                             // after an answer
  virtual Result<void> end() = 0;                           // keeps what is to be kept

  // Whether tools can be offered: kUnsupported, or nothing is wrong.
  virtual Result<void> check_tools(const Json& tools) = 0;
};

// Loads the verb's model.
Result<std::unique_ptr<ChatPartner>> open_local_partner(Call& call, ChatState& state);
// Asks the server of --server what it has.
Result<std::unique_ptr<ChatPartner>> open_remote_partner(Call& call, ChatState& state);

}  // namespace penstock
