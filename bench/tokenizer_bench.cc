// How fast is the tokenizer, one thread? Mixed text, and the texts that are hard on purpose.
//
//   tokenizer_bench TOKENIZER_JSON [TEXT_FILE...]
//
// Prints the time and memory of loading and MB/s per text; 1 MB is 10^6 bytes. Without files a
// mixture is made from the tokenizer's own tokens. The last column is a hash of the ids: the same
// on every machine, so a faster tokenizer that gives other ids is seen.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace penstock {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kTextBytes = 4'000'000;
constexpr int kRounds = 5;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{ErrorCode::kNotFound, fmt::format("{}: cannot be read", path)};
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string repeated(std::string_view piece) {
  std::string text;
  while (text.size() < kTextBytes) text += piece;
  return text;
}

// Tokens in an order that favours the frequent ones, as in real text.
std::string mixture(const Tokenizer& tokenizer) {
  std::string text;
  uint64_t state = 1;
  const auto vocab_size = static_cast<uint64_t>(tokenizer.vocab_size());
  while (text.size() < kTextBytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t range = std::max<uint64_t>(vocab_size >> (state >> 60), 1);
    text += tokenizer.token_bytes(static_cast<TokenId>((state >> 20) % range));
  }
  return text;
}

uint64_t hash_of(const std::vector<TokenId>& ids) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const TokenId id : ids) hash = (hash ^ static_cast<uint32_t>(id)) * 0x100000001B3u;
  return hash;
}

void measure(const Tokenizer& tokenizer, const std::string& name, const std::string& text) {
  std::vector<double> seconds;
  std::vector<TokenId> ids;
  for (int round = 0; round < kRounds; ++round) {
    const auto begin = Clock::now();
    ids = tokenizer.encode(text);
    seconds.push_back(seconds_since(begin));
  }
  std::sort(seconds.begin(), seconds.end());
  const auto megabytes = static_cast<double>(text.size()) / 1e6;
  fmt::print("{:<24} {:8.2f} MB {:9} tokens {:8.2f} MB/s median {:8.2f} worst  {:016x}\n", name,
             megabytes, ids.size(), megabytes / seconds[kRounds / 2], megabytes / seconds.back(),
             hash_of(ids));
}

Result<void> run(const std::vector<std::string>& arguments) {
  const std::string json = PENSTOCK_TRY(read_file(arguments[0]));
  const auto begin = Clock::now();
  const Tokenizer tokenizer = PENSTOCK_TRY(Tokenizer::create(json, arguments[0], 0));
  fmt::print("load {:.3f} s, {:.2f} MB of JSON, vocabulary {}, {:.2f} MB held\n",
             seconds_since(begin), static_cast<double>(json.size()) / 1e6, tokenizer.vocab_size(),
             static_cast<double>(tokenizer.memory_bytes()) / 1e6);
  for (size_t i = 1; i < arguments.size(); ++i) {
    measure(tokenizer, arguments[i], PENSTOCK_TRY(read_file(arguments[i])));
  }
  measure(tokenizer, "mixture of tokens", mixture(tokenizer));
  const std::pair<const char*, const char*> kHard[] = {
      {"one letter", "a"},
      {"two letters", "ab"},
      {"spaces", " "},
      {"line ends", "\n"},
      {"spaces and a letter", "    x"},
      {"digits", "1"},
      {"one mark", "\u0301"},
      {"marks out of order", "\u0315\u0316"},
      {"one ideograph", "世"},
      {"apostrophes", "'s"},
      {"begun added tokens", "<|im_"},
      {"invalid bytes", "\xFF"},
      {"punctuation", "=-"},
  };
  for (const auto& [name, piece] : kHard) measure(tokenizer, name, repeated(piece));
  return {};
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: tokenizer_bench TOKENIZER_JSON [TEXT_FILE...]\n");
    return 2;
  }
  const auto result = penstock::run({argv + 1, argv + argc});
  if (result) return 0;
  fmt::print(stderr, "{}\n", result.error().message);
  return 3;
}
