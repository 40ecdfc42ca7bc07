// The text of one choice as its tokens come: whole characters, stop strings kept out, and whether
// the answer is still inside its reasoning.
//
// Stop strings count behind the reasoning only. What could become one is held back until it is
// known; finish() gives what was held in vain.
//
// Invariants  all texts together are the decoded tokens up to the stop string, wherever tokens end
// Threads     one
// See also    dialogue/stop_strings.h
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dialogue/stop_strings.h"
#include "text/tokenizer.h"
#include "text/utf8_stream.h"

namespace penstock {

class ChoiceText {
 public:
  ChoiceText(const Tokenizer& tokenizer, std::vector<std::string> stop_strings,
             bool opens_reasoning);

  // The text that can be told now. Nothing more comes once is_stopped().
  std::string push(TokenId token);
  std::string finish();

  bool is_stopped() const { return stops_.is_stopped(); }
  const std::string& stopped_by() const { return stops_.matched(); }
  bool in_reasoning() const { return in_reasoning_; }

 private:
  // Tells everything up to </think>, and leaves in `text` what comes behind it.
  std::string pass_reasoning(std::string_view& text);

  const Tokenizer* tokenizer_;
  StopStrings stops_;
  Utf8Stream characters_;
  bool in_reasoning_;
  std::string tail_;  // of the reasoning, that could begin </think>
};

}  // namespace penstock
