#include "text/utf8_stream.h"

#include "text/utf8.h"

namespace penstock {

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string out;
  size_t position = 0;
  while (position < held_.size()) {
    const Utf8Char next = decode_utf8(held_, position);
    if (next.status == Utf8Status::kTruncated) break;
    append_utf8(next.code_point, out);
    position += next.bytes;
  }
  held_.erase(0, position);
  return out;
}

std::string Utf8Stream::finish() {
  std::string out = replace_invalid_utf8(held_);
  held_.clear();
  return out;
}

}  // namespace penstock
