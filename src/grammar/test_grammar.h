// For tests of this room: whole texts against a grammar, a small vocabulary, random walks.
#pragma once

#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "grammar/grammar.h"
#include "grammar/matcher.h"
#include "grammar/token_trie.h"

namespace penstock {

// All bytes, and pieces that cross the borders of everything that grammars tell apart.
inline const std::vector<std::string>& test_vocabulary() {
  static const std::vector<std::string> texts = [] {
    std::vector<std::string> all;
    for (int byte = 0; byte < 256; ++byte) all.push_back(std::string(1, static_cast<char>(byte)));
    for (const char* text : {"\":",
                             "\": ",
                             "\",",
                             "\", ",
                             "{\"",
                             "\"}",
                             "\"]",
                             "}}",
                             "}]",
                             "},",
                             "], ",
                             "[[",
                             "[]",
                             "{}",
                             ": {",
                             "  ",
                             "    ",
                             "\n  ",
                             "\n\n",
                             ",\n",
                             "\\n",
                             "\\u",
                             "\\\"",
                             "true",
                             "false",
                             "null",
                             "the",
                             " the",
                             " a",
                             "abc",
                             "name",
                             "\"name",
                             "12",
                             "123",
                             "-1",
                             "0.5",
                             "1e",
                             "00",
                             "2024",
                             "-0",
                             "T1",
                             ":0",
                             "é",
                             "世界",
                             "👍",
                             "\xF0\x9F",
                             "\x91\x8D",
                             "\xE4\xB8",
                             "\x96",
                             "a\xC3",
                             "\xA9z",
                             "<tool_call>",
                             "</tool_call>",
                             "<function=",
                             "</function>",
                             "<parameter=",
                             "</parameter>",
                             ">\n",
                             "\n</",
                             "\n</parameter>\n<",
                             "tool_call>",
                             "</think>",
                             "<think>",
                             "世</",
                             "é\"",
                             "👍\\",
                             "世\n",
                             "\xA9\"",
                             "\xE4\xB8<",
                             "\n\n<",
                             "{\"name\": \"",
                             "\"arguments\": {"}) {
      all.push_back(text);
    }
    return all;
  }();
  return texts;
}

inline const TokenTrie& test_tokens() {
  static const TokenTrie trie = [] {
    std::vector<std::string_view> views(test_vocabulary().begin(), test_vocabulary().end());
    return TokenTrie::create(views);
  }();
  return trie;
}

inline bool fits(const Grammar& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar, test_tokens());
  GrammarState state = matcher.start();
  const auto accepted = matcher.accept(state, text);
  PENSTOCK_CHECK(accepted.has_value());
  return *accepted && matcher.can_end(state);
}

// A text by tokens drawn evenly from the mask, ended where that is possible with the given chance
// and at the latest soon after `tokens_max`: then always by the shortest way that a search finds.
inline std::string random_text(const Grammar& grammar, std::mt19937_64& random, double end_chance,
                               size_t tokens_max) {
  GrammarMatcher matcher(grammar, test_tokens());
  GrammarState state = matcher.start();
  std::string text;
  for (size_t i = 0;; ++i) {
    const bool can_end = matcher.can_end(state);
    const bool is_late = i >= tokens_max;
    if (can_end && (is_late || std::uniform_real_distribution<>()(random) < end_chance)) {
      return text;
    }
    const auto mask = matcher.mask(state);
    PENSTOCK_CHECK(mask.has_value());
    std::vector<size_t> allowed;
    for (size_t id = 0; id < test_vocabulary().size(); ++id) {
      if (((*mask)[id / 64] >> (id % 64) & 1) != 0) allowed.push_back(id);
    }
    if (allowed.empty()) {
      // Otherwise a text has begun that cannot be ended.
      if (!can_end) std::fprintf(stderr, "stuck behind: %s\n", text.c_str());
      PENSTOCK_CHECK(can_end);
      return text;
    }
    size_t id = allowed[random() % allowed.size()];
    if (is_late && i % 2 == 0) {
      // Closing bytes end a text sooner than others.
      for (const size_t other : allowed) {
        const std::string& piece = test_vocabulary()[other];
        if (piece == "\"" || piece == "}" || piece == "]" || piece == "/") id = other;
      }
    }
    const auto accepted = matcher.accept(state, test_vocabulary()[id]);
    PENSTOCK_CHECK(accepted.has_value() && *accepted);
    text += test_vocabulary()[id];
    if (i > 200 * tokens_max + 20'000) return {};  // a grammar that hardly ever ends
  }
}

}  // namespace penstock
