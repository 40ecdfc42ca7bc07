// A conversation, and the tokens that the model's chat template makes of it.
//
// Threads  functions without state of their own; the texts are only read
// Memory   values
// Errors   kUnsupported: the model has no tokenizer or no template; kInvalidArgument: the template
//          refuses the messages
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "dialogue/turn_memory.h"
#include "text/model_texts.h"

namespace penstock {

struct Conversation {
  std::string system;               // empty: none
  Json messages = Json::array();    // user, assistant and tool messages, oldest first
  Json tools;                       // a list, or null
  std::optional<bool> thinking;     // unset: the template's default
  bool parse_special = false;       // contents may form control tokens, as in the reference
  Json variables = Json::object();  // further ones that the template may read
  bool continues_last = false;      // the last message is an answer that is not finished
};

// Of a line of an evaluation set: messages, and tools and enable_thinking where it has them. As the
// reference renders it, so that answers can be compared with the reference's. kInvalidArgument.
Result<Conversation> conversation_of_item(const Json& item);

struct ChatPrompt {
  std::string text;  // as the template made it, for TurnMemory
  std::vector<TokenId> tokens;
  // The tokens up to the place where the answer's turn begins, which the next turn's prompt will
  // have in common with this one; 0 when the template does not work like that.
  int64_t stable_tokens = 0;
  bool opens_reasoning = false;   // the answer begins inside <think>
  std::vector<TokenId> stop_ids;  // end the answer, besides those that the model's files name
};

// kUnsupported when the model has no tokenizer or no chat template.
Result<void> check_can_chat(const ModelTexts& texts);

// The errors of check_can_chat; kInvalidArgument when the template refuses the messages.
// turns: the model's own turns, to be used as they were; none: all text is cut into tokens anew.
Result<ChatPrompt> make_chat_prompt(const ModelTexts& texts, const Conversation& conversation,
                                    TurnMemory* turns = nullptr);

struct Reply {
  std::string reasoning, content;
};

// Cuts an answer at </think>.
Reply split_reply(const std::string& text, bool opens_reasoning);

// The assistant's message that the next turn is rendered with.
Json reply_message(const Reply& reply);

// The model's tokenizer. kUnsupported, with what to do, when the model has none.
Result<const Tokenizer*> tokenizer_of(const ModelTexts& texts);

}  // namespace penstock
