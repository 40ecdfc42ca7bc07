// Unicode normalisation form C, in linear time also for hostile runs of combining marks.
//
// utf8proc does the decomposing and composing. Two things are ours: text is cut at code points that
// NFC cannot change (so ordinary text is only looked at), and the marks of a run are sorted in
// n log n before utf8proc, which would sort them in n^2, sees them. Code points that the reference
// tokenizer's normaliser does not know yet stay as they are: see unicode_tables.h.
//
// Source  Unicode Standard Annex #15.
#pragma once

#include <string>
#include <string_view>

namespace penstock {

// The length of the beginning of `text` that NFC leaves as it is; text.size() if all of it.
// `text` is valid UTF-8, here and below.
size_t nfc_prefix_bytes(std::string_view text);

std::string to_nfc(std::string_view text);

}  // namespace penstock
