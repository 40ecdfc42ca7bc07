// The folders of a call: what a source is good for, and where a target really is.
//
// Threads  one
// Errors   target_folder(): kInvalidArgument, kIo; the others: kNotFound, kCorrupt, kUnsupported
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

// Where a model is to be written: without slashes at its end, at the end of its links.
// kInvalidArgument for what can be no folder's name.
Result<std::string> target_folder(Storage& storage, const std::string& path);

// What the texts of a packed model, a folder of a checkpoint or a GGUF file take away or leave to a flag, as
// sentences; an Error for what makes the model unusable (engine/judge_texts.h).
Result<std::vector<std::string>> judge_folder(Storage& storage, const std::string& path);

// The same of a packed model whose texts will be those of `folder`, where it has them.
Result<std::vector<std::string>> judge_replacement(Storage& storage, const std::string& folder,
                                                   const std::string& model);

}  // namespace penstock
