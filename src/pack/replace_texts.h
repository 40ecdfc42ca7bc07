// The texts of a packed model, taken anew from a folder: a repaired template, another tokenizer
// configuration. The weights stay as they are and are not read.
//
// Files that the folder does not have stay. The folder may be the model itself: then the texts that
// somebody edited in it become its own. config.json stays in any case: weights follow from it.
//
// Each file is replaced whole, the manifest with the new checksums last. Cut off in between, texts
// and checksums do not fit together, which `run` says, and the same call again mends.
//
// Memory   one text at a time
// Threads  Call from one thread, with no packer at work on the model.
// Errors   kNotFound: the folder has none of the files, or there is no model. kCorrupt: its manifest.
//          kIo.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

struct ReplacedTexts {
  std::vector<std::string> names;  // whose content is another one now
  std::string id;                  // of the model as it is now: Container::id_text
};

Result<ReplacedTexts> replace_texts(Storage& storage, const std::string& folder,
                                    const std::string& model);

}  // namespace penstock
