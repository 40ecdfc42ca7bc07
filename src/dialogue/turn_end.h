// The token with which a model's chat template ends an answer's turn.
//
// Not every checkpoint lists it among its stop tokens; the template cannot do without it. It is found
// by rendering an answer and looking at what follows it.
//
// Threads  plain function
// Errors   none: a template that refuses the example, or puts plain text behind an answer, has none
#pragma once

#include <optional>

#include "text/model_texts.h"

namespace penstock {

std::optional<TokenId> turn_end(const ModelTexts& texts);

}  // namespace penstock
