// Any bytes as a GBNF grammar, and a walk through one that compiles: no crash, no hang, no
// unbounded memory; a mask allows what the matcher takes; a text that has begun can go on or end.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "grammar/gbnf.h"
#include "walk.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  const auto source = parse_gbnf({reinterpret_cast<const char*>(data), size});
  if (!source) return 0;
  const auto grammar = Grammar::compile(*source);
  if (grammar) walk_a_little(*grammar, size);
  return 0;
}
