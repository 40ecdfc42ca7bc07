// Any bytes as generation_config.json, config.json and tokenizer_config.json, one after the other with
// a zero between them: what ends answers are tokens of the model, each once, and what samples is
// within its ranges; what is left out is told.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/json.h"
#include "engine/sampler.h"
#include "engine/stop_tokens.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  constexpr int64_t kVocab = 1000;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::array<Json, 3> files;
  for (Json& file : files) {
    const size_t end = std::min(rest.find('\0'), rest.size());
    Result<Json> parsed = parse_json(rest.substr(0, end), "a file");
    if (parsed) file = std::move(*parsed);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const StopTokens stops = stop_tokens({.generation_config = files[0],
                                        .config = files[1],
                                        .tokenizer_config = files[2],
                                        .tokenizer = nullptr,
                                        .vocab_size = kVocab});
  std::vector<TokenId> ids = stops.ids;
  std::ranges::sort(ids);
  PENSTOCK_CHECK(std::ranges::adjacent_find(ids) == ids.end());
  PENSTOCK_CHECK(ids.empty() || (ids.front() >= 0 && ids.back() < kVocab));
  std::vector<std::string> notes;
  const SamplingOptions sampling = sampling_defaults(files[0], notes);
  PENSTOCK_CHECK(sampling.check().has_value());
  return 0;
}
