// The model's own turns, token by token: when a client sends one back, these tokens are used.
//
// A client gets text and parsed calls, and sends them back as such. Rendered and cut into tokens anew
// they may come out differently: other blanks in arguments, other cuts of a word that was sampled,
// reasoning left out. Then everything from there on would be evaluated again, and the model would
// read what it never wrote. So each finished turn is kept with the prompt that it answered. Where a
// later prompt's text begins with that prompt's, and the turn behind it is the one that was told,
// its tokens stand in for the text up to the end of the turn. Where the template shows a past turn
// differently (Qwen3.5 drops reasoning before the last question), the texts differ and
// nothing is replaced.
//
//   const ChatPrompt prompt = PENSTOCK_TRY(make_chat_prompt(texts, conversation, &turns));
//   ... answer ...
//   turns.remember({conversation.messages.size(), prompt.text, prompt.tokens, answered, message});
//
// Threads  any
// Memory   kTurnBytesMax; the turn used longest ago goes
#pragma once

#include <cstddef>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/token.h"

namespace penstock {

inline constexpr size_t kTurnBytesMax = 8u << 20;

struct KeptTurn {
  size_t messages = 0;          // before it
  std::string prompt_text;      // as rendered, up to where the answer begins
  std::vector<TokenId> prompt;  // its tokens
  std::vector<TokenId> answer;  // without the token that ended it
  Json message;                 // as it was told: content, reasoning_content, tool_calls
};

class TurnMemory {
 public:
  void remember(KeptTurn turn);

  // The turn that most of this prompt begins with.
  std::optional<KeptTurn> find(const Json& messages, const std::string& rendered);

  size_t size() const;

 private:
  mutable std::mutex mutex_;
  std::list<KeptTurn> turns_;  // guarded by mutex_; the one used last is the first
  size_t bytes_ = 0;           // guarded by mutex_
};

// Whether a client's message is the one that was told: the same text but for blanks around it, the same
// calls; reasoning may be left out, but not differ.
bool is_same_turn(const Json& told, const Json& sent);

}  // namespace penstock
