// What does a token cost under a grammar? Times of compiling, of masks, and of the vocabulary's
// tree.
//
//   grammar_bench [TOKENIZER_JSON | VOCABULARY]
//
// VOCABULARY is a text file with one token a line, its bytes in base64 before a blank. Without a
// file a vocabulary of 248,320 tokens is made: words, code, digits, blanks and ideographs.
//
// For each grammar a text of its own is walked token by token (the longest token that fits the
// text). Printed is the processor time of the masks, cold (nothing is remembered) and in a second
// walk over the same text (warm): median, 99 % and worst, in microseconds.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <iterator>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "grammar/gbnf.h"
#include "grammar/grammar.h"
#include "grammar/json_schema.h"
#include "grammar/matcher.h"
#include "grammar/token_trie.h"
#include "grammar/tool_grammar.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace penstock {
namespace {

// Of this thread on a processor: what else runs on the machine is not counted.
double microseconds_now() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

double microseconds_since(double begin) {
  return microseconds_now() - begin;
}

std::string from_base64(std::string_view text) {
  static constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const size_t value = kAlphabet.find(c);
    if (value == std::string_view::npos) break;
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xFF);
    }
  }
  return bytes;
}

// Shaped like the vocabularies of large models: half of it Latin words with and without a blank
// before, a third beyond ASCII, the rest code and blanks.
std::vector<std::string> made_vocabulary() {
  constexpr size_t kTokens = 248'320;
  std::set<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.insert(std::string(1, static_cast<char>(byte)));
  for (size_t n = 2; n <= 128; ++n) tokens.insert(std::string(n, ' '));
  for (size_t n = 1; n <= 40; ++n) tokens.insert("\n" + std::string(n, ' '));
  std::mt19937_64 random(1);
  const auto below = [&](uint64_t n) { return random() % n; };
  const std::vector<std::string> parts = {"tion", "er",  "in",  "con", "st",  "al",   "re",
                                          "able", "ing", "pro", "com", "ate", "ment", "de",
                                          "un",   "ly",  "est", "or",  "is",  "ph"};
  const std::vector<std::string> marks = {"\"", "\":", "\",",  "\"}", "();", "()", "{\n",
                                          "->", "//",  "',",   "=\"", "\\n", "\\", "</",
                                          ">",  "/>",  ");\n", "],",  "[\"", ": "};
  while (tokens.size() < kTokens) {
    std::string token;
    const uint64_t kind = below(100);
    if (kind < 55) {
      if (below(2) == 0) token = " ";
      for (uint64_t i = 0; i < 1 + below(3); ++i) token += parts[below(parts.size())];
      if (below(2) == 0) token += static_cast<char>('a' + below(26));
      if (below(4) == 0) token += static_cast<char>('a' + below(26));
      if (below(6) == 0) token[token[0] == ' ' ? 1 : 0] &= static_cast<char>(~0x20);
    } else if (kind < 88) {
      const char32_t base = below(3) == 0 ? 0x400 : below(2) == 0 ? 0x4E00 : 0xAC00;
      for (uint64_t i = 0; i < 1 + below(4); ++i) {
        append_utf8(base + static_cast<char32_t>(below(base == 0x400 ? 0x100 : 0x2000)), token);
      }
      if (below(20) == 0) token.pop_back();
    } else {
      if (below(2) == 0) token = parts[below(parts.size())];
      token += marks[below(marks.size())];
      if (below(2) == 0) token += marks[below(marks.size())];
      if (below(3) == 0) token += parts[below(parts.size())];
    }
    tokens.insert(token);
  }
  return {tokens.begin(), tokens.end()};
}

Result<std::vector<std::string>> read_vocabulary(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{ErrorCode::kNotFound, fmt::format("{}: cannot be read", path)};
  const std::string text(std::istreambuf_iterator<char>(file), {});
  std::vector<std::string> tokens;
  if (text.starts_with('{')) {
    const Tokenizer tokenizer = PENSTOCK_TRY(Tokenizer::create(text, path, 0));
    for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
      tokens.emplace_back(tokenizer.is_special(id) ? "" : tokenizer.token_bytes(id));
    }
    return tokens;
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    tokens.push_back(from_base64(std::string_view(text).substr(begin, end - begin)));
    begin = end + 1;
  }
  return tokens;
}

// The text as the longest tokens that fit.
std::vector<std::string_view> cut(std::string_view text, const std::set<std::string_view>& tokens) {
  std::vector<std::string_view> pieces;
  while (!text.empty()) {
    size_t length = std::min<size_t>(text.size(), 32);
    while (length > 1 && !tokens.contains(text.substr(0, length))) --length;
    pieces.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return pieces;
}

void print_times(const char* name, std::vector<double> times) {
  std::ranges::sort(times);
  const double mean =
      std::accumulate(times.begin(), times.end(), 0.0) / static_cast<double>(times.size());
  fmt::print("  {}  mean {:6.1f}  median {:6.1f}  99 % {:7.1f}  worst {:7.1f} us", name, mean,
             times[times.size() / 2], times[times.size() * 99 / 100], times.back());
}

void walk(const char* name, const Grammar& grammar, double compile_us, const TokenTrie& trie,
          const std::set<std::string_view>& tokens, std::string_view text) {
  GrammarMatcher matcher(grammar, trie);
  fmt::print("{:<24} compile {:8.0f} us, {:6} states", name, compile_us, grammar.state_count());
  for (const char* round : {"cold", "warm"}) {
    GrammarState state = matcher.start();
    std::vector<double> times;
    for (const std::string_view piece : cut(text, tokens)) {
      const auto begin = microseconds_now();
      const auto mask = matcher.mask(state);
      times.push_back(microseconds_since(begin));
      const auto accepted = matcher.accept(state, piece);
      if (!mask || !accepted || !*accepted) {
        fmt::print("  the text does not fit at \"{}\"\n", piece);
        return;
      }
    }
    print_times(round, std::move(times));
  }
  fmt::print("\n");
}

constexpr const char* kSchema = R"({"type": "object", "properties": {
  "title": {"type": "string"}, "summary": {"type": "string", "maxLength": 60},
  "year": {"type": "integer", "minimum": 1900, "maximum": 2100},
  "isbn": {"type": "string", "pattern": "^[0-9]{3}-[0-9]{10}$"},
  "tags": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 10},
  "status": {"enum": ["draft", "published", "withdrawn"]}},
  "required": ["title", "year"], "additionalProperties": false})";

constexpr const char* kAnswer =
    "{\n  \"title\": \"The long way of a small river to the sea\",\n  \"summary\": \"Water, stones "
    "and people; in ten chapters, 世界 and more.\",\n  \"year\": 1987,\n  \"isbn\": "
    "\"978-0123456789\",\n  \"tags\": [\"rivers\", \"nature\", \"travel notes\"],\n  \"status\": "
    "\"published\"\n}";

constexpr const char* kTools =
    R"([{"name": "write_file", "parameters": {"type": "object", "properties": {
  "path": {"type": "string", "pattern": "^[A-Za-z0-9_./-]+$"}, "text": {"type": "string"},
  "mode": {"type": "string", "maxLength": 40}, "lines": {"type": "integer"},
  "options": {"type": "object"}}, "required": ["path", "text"]}}])";

constexpr const char* kTaggedCall =
    "I will write the file now, as you asked.\n\n<tool_call>\n<function=write_file>\n"
    "<parameter=path>\nsrc/main/river_notes.txt\n</parameter>\n<parameter=text>\nimport river\n\n"
    "def main():\n    print(\"<b>water</b>\")\n    return 0\n</parameter>\n<parameter=mode>\n"
    "overwrite and keep a copy\n</parameter>\n<parameter=options>\n{\"force\": true, \"name\": "
    "[\"a\", \"b\"]}\n</parameter>\n</function>\n</tool_call>";

constexpr const char* kJsonCall =
    "<tool_call>\n{\"name\": \"write_file\", \"arguments\": {\"path\": \"src/main/notes.txt\", "
    "\"text\": \"import river\\n\\ndef main():\\n    return 0\\n\", \"lines\": 4}}\n</tool_call>";

constexpr const char* kGbnf =
    "root ::= line+\nline ::= word (\" \" word)* [.!?] [ \\n]?\nword ::= [a-zA-Z]+ | [0-9]+ | cjk\n"
    "cjk ::= [\\u4e00-\\u9fff]+\n";

constexpr const char* kLines =
    "The river is long and wide. 世界 has 12 of them!\nNobody counted all the small ones?";

Result<void> run(const std::vector<std::string>& arguments) {
  std::vector<std::string> texts;
  if (arguments.empty()) {
    texts = made_vocabulary();
  } else {
    texts = PENSTOCK_TRY(read_vocabulary(arguments[0]));
  }
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const auto begin = microseconds_now();
  const TokenTrie trie = TokenTrie::create(views);
  fmt::print("vocabulary {} tokens, tree {} nodes, {:.1f} MB, made in {:.0f} ms\n", views.size(),
             trie.node_count(), static_cast<double>(trie.memory_bytes()) / 1e6,
             microseconds_since(begin) / 1e3);
  const std::set<std::string_view> tokens(views.begin(), views.end());
  const auto timed = [&](const char* name, auto make, std::string_view text) -> Result<void> {
    const auto start = microseconds_now();
    const Grammar grammar = PENSTOCK_TRY(make());
    walk(name, grammar, microseconds_since(start), trie, tokens, text);
    return {};
  };
  const auto tool = [&](ToolForm form) -> Result<Grammar> {
    const Json tools = PENSTOCK_TRY(parse_json(kTools, "tools"));
    ToolGrammar made = PENSTOCK_TRY(tool_grammar(tools, {.form = form}));
    return std::move(made.grammar);
  };
  const auto object = [] { return Grammar::compile(json_object_grammar()); };
  const auto schema = []() -> Result<Grammar> {
    const Json json = PENSTOCK_TRY(parse_json(kSchema, "schema"));
    const GrammarSource source = PENSTOCK_TRY(json_schema_grammar(json));
    return Grammar::compile(source);
  };
  const auto lines = []() -> Result<Grammar> {
    const GrammarSource source = PENSTOCK_TRY(parse_gbnf(kGbnf));
    return Grammar::compile(source);
  };
  const auto tagged = [&] { return tool(ToolForm::kTagged); };
  const auto json = [&] { return tool(ToolForm::kJson); };
  PENSTOCK_TRY(timed("any JSON object", object, kAnswer));
  PENSTOCK_TRY(timed("JSON schema", schema, kAnswer));
  PENSTOCK_TRY(timed("tool call, tagged", tagged, kTaggedCall));
  PENSTOCK_TRY(timed("tool call, JSON", json, kJsonCall));
  PENSTOCK_TRY(timed("GBNF, lines of words", lines, kLines));
  return {};
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  const auto result = penstock::run({argv + 1, argv + argc});
  if (result) return 0;
  fmt::print(stderr, "{}\n", result.error().message);
  return 3;
}
