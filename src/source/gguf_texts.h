// Tokenizer, chat template, stop tokens and sampling defaults of a GGUF file, as the texts that a
// Hugging Face folder would have.
//
// The file lists every token with a type: ordinary ones become the vocabulary, control and
// user-defined ones added tokens (special, and not), unused ones (padding rows) nothing. How text
// is cut is told by a name only; the names of the Qwen families stand for their published
// tokenizers, which normalise to NFC although no key says so. A second stop token is found by its
// text.
//
// Errors  kUnsupported: another kind of tokenizer. kNotFound, kCorrupt: by the key.
// Source  docs/formats.md, "GGUF"; files of the format's own converter.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "format/gguf_metadata.h"
#include "source/model_source.h"

namespace penstock {

Result<std::vector<SourceText>> gguf_texts(const GgufMetadata& keys, const std::string& what);

}  // namespace penstock
