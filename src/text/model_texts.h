// What a model's text files give: the tokenizer and the chat template, each where it has one.
//
// Threads  const use from several threads
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace penstock {

struct ModelTexts {
  std::string folder;                  // of the model, for messages
  std::optional<Tokenizer> tokenizer;  // absent: the folder has no tokenizer.json
  std::optional<ChatTemplate> chat_template;
  std::string template_note;  // why chat_template is absent

  // Held by both, and what rendering a prompt takes, for the memory plan.
  uint64_t bytes() const {
    constexpr uint64_t kRenderBytes = 1 << 20;
    return (tokenizer ? static_cast<uint64_t>(tokenizer->memory_bytes()) : 0) +
           (chat_template ? kRenderBytes + chat_template->memory_bytes() : 0);
  }
};

}  // namespace penstock
