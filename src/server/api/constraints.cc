#include "server/api/constraints.h"

#include <algorithm>
#include <cmath>

#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "grammar/matcher.h"

namespace penstock {
namespace {

constexpr size_t kKeptMax = 16;

// A place in a grammar, for one answer.
class GrammarConstraint : public TokenConstraint {
 public:
  GrammarConstraint(std::shared_ptr<const Grammar> grammar, const TokenTrie& trie,
                    const Tokenizer& tokenizer, const std::vector<TokenId>& stop_ids)
      : grammar_(std::move(grammar)),
        tokenizer_(tokenizer),
        stop_ids_(stop_ids),
        matcher_(*grammar_, trie),
        state_(matcher_.start()) {}

  bool apply(std::span<float> logits) override {
    const auto allowed = matcher_.mask(state_);
    if (!allowed) return false;
    const std::span<const uint64_t> bits = *allowed;
    std::vector<std::pair<size_t, float>> ends;  // a stop id is no text, so no bit speaks of it
    for (const TokenId id : stop_ids_) {
      const auto at = static_cast<size_t>(id);
      if (at < logits.size() && matcher_.can_end(state_)) ends.emplace_back(at, logits[at]);
    }
    bool is_any = !ends.empty();
    for (size_t word = 0; word * 64 < logits.size(); ++word) {
      const uint64_t here = word < bits.size() ? bits[word] : 0;
      is_any = is_any || here != 0;
      if (here == UINT64_MAX) continue;
      const size_t end = std::min(logits.size(), word * 64 + 64);
      for (size_t id = word * 64; id < end; ++id) {
        if (((here >> (id % 64)) & 1) == 0) logits[id] = -INFINITY;
      }
    }
    for (const auto& [id, logit] : ends) logits[id] = logit;
    return is_any;
  }

  void accept(TokenId token) override {
    if (std::ranges::find(stop_ids_, token) != stop_ids_.end()) return;
    // What apply() allowed fits; a token that was forced on the answer may not, and is passed over.
    static_cast<void>(matcher_.accept(state_, tokenizer_.token_bytes(token)));
  }

 private:
  std::shared_ptr<const Grammar> grammar_;
  const Tokenizer& tokenizer_;
  const std::vector<TokenId>& stop_ids_;
  GrammarMatcher matcher_;
  GrammarState state_;
};

// How the model's template writes calls: asked of the template itself.
ToolForm form_of(const ModelTexts& texts) {
  if (!texts.chat_template) return ToolForm::kTagged;
  const Json call{{"type", "function"},
                  {"function", {{"name", "f"}, {"arguments", {{"key", "value"}}}}}};
  const Json messages = Json::array(
      {Json{{"role", "user"}, {"content", "x"}},
       Json{{"role", "assistant"}, {"content", ""}, {"tool_calls", Json::array({call})}}});
  ChatOptions options;
  options.add_generation_prompt = false;
  const auto rendered = texts.chat_template->render(messages, Json(), options);
  const bool is_json = rendered && rendered->find("<function=") == std::string::npos &&
                       rendered->find("<tool_call>") != std::string::npos;
  return is_json ? ToolForm::kJson : ToolForm::kTagged;
}

}  // namespace

Constraints::Constraints(const ModelTexts& texts, std::vector<TokenId> stop_ids)
    : tokenizer_(*texts.tokenizer),
      stop_ids_(std::move(stop_ids)),
      trie_(TokenTrie::create(tokenizer_)),
      form_(form_of(texts)) {}

Result<Constraints::Made> Constraints::find_or_compile(const std::string& key,
                                                       const Compile& compile) {
  const auto made = [this](const Compiled& compiled) {
    return Made{[this, grammar = compiled.grammar]() -> std::unique_ptr<TokenConstraint> {
                  return std::make_unique<GrammarConstraint>(grammar, trie_, tokenizer_, stop_ids_);
                },
                compiled.left_out};
  };
  {
    const std::scoped_lock lock(mutex_);
    const auto found = std::ranges::find(kept_, key, &Compiled::key);
    if (found != kept_.end()) {
      kept_.splice(kept_.begin(), kept_, found);
      return made(kept_.front());
    }
  }
  Compiled compiled = PENSTOCK_TRY(compile());  // outside of the lock: it may take a while
  compiled.key = key;
  const std::scoped_lock lock(mutex_);
  kept_.push_front(std::move(compiled));
  if (kept_.size() > kKeptMax) kept_.pop_back();
  return made(kept_.front());
}

Result<Constraints::Made> Constraints::of_schema(const Json& schema) {
  return find_or_compile("schema " + to_text(schema), [&]() -> Result<Compiled> {
    const bool is_any = schema.is_boolean();
    const GrammarSource source =
        is_any ? json_object_grammar() : PENSTOCK_TRY(json_schema_grammar(schema));
    Grammar grammar = PENSTOCK_TRY(Grammar::compile(source));
    return Compiled{"", std::make_shared<const Grammar>(std::move(grammar)), {}};
  });
}

Result<Constraints::Made> Constraints::of_gbnf(const std::string& text) {
  return find_or_compile("gbnf " + text, [&]() -> Result<Compiled> {
    const GrammarSource source = PENSTOCK_TRY(parse_gbnf(text));
    Grammar grammar = PENSTOCK_TRY(Grammar::compile(source));
    return Compiled{"", std::make_shared<const Grammar>(std::move(grammar)), {}};
  });
}

Result<Constraints::Made> Constraints::of_tools(const Json& tools, const ToolChoice& choice,
                                                bool begins_in_reasoning) {
  const std::string key = "tools " + std::to_string(static_cast<int>(choice.kind)) + choice.name +
                          (choice.allows_several ? " several " : " one ") +
                          (begins_in_reasoning ? "reasoning " : "") + to_text(tools);
  return find_or_compile(key, [&]() -> Result<Compiled> {
    ToolGrammar made = PENSTOCK_TRY(tool_grammar(
        tools, {.form = form_, .choice = choice, .begins_in_reasoning = begins_in_reasoning}));
    return Compiled{"", std::make_shared<const Grammar>(std::move(made.grammar)),
                    std::move(made.left_out)};
  });
}

}  // namespace penstock
