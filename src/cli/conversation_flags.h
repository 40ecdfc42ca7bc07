// The flags that begin a conversation: --system, --tools, --think, --parse-special.
//
// Errors  those of reading --tools; kInvalidArgument when it is no JSON list
#pragma once

#include "cli/settings.h"
#include "dialogue/conversation.h"
#include "io/storage.h"

namespace penstock {

Result<Conversation> conversation_of(Storage& storage, const Settings& settings);

}  // namespace penstock
