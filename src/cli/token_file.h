// Token ids from a JSON file: a list, or an object with the list as "input_ids".
//
// Errors  those of reading it; kInvalidArgument when it holds something else
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/storage.h"
#include "text/token.h"

namespace penstock {

// kInvalidArgument for a file that is missing, holds anything else, or more than tokens_max ids: that
// is found before they are held.
Result<std::vector<TokenId>> read_token_file(Storage& storage, const std::string& path,
                                             int64_t tokens_max);

}  // namespace penstock
