#include "dialogue/constraints.h"

#include <algorithm>

#include "grammar/gbnf.h"
#include "grammar/grammar_mask.h"
#include "grammar/json_schema.h"

namespace penstock {
namespace {

constexpr size_t kKeptMax = 16;

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
      trie_(std::make_shared<const TokenTrie>(TokenTrie::create(tokenizer_))),
      form_(form_of(texts)) {}

Result<Constraints::Made> Constraints::find_or_compile(const std::string& key,
                                                       const Compile& compile) {
  const auto made = [this](const Compiled& compiled) {
    const auto make = [this, grammar = compiled.grammar,
                       first = std::shared_ptr<GrammarMask>()]() mutable {
      if (first == nullptr) {
        first = std::make_shared<GrammarMask>(grammar, trie_, tokenizer_, stop_ids_);
      }
      return std::unique_ptr<TokenMask>(first->fork());
    };
    return Made{make, compiled.left_out};
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
    GrammarWork work;
    const GrammarSource source =
        is_any ? json_object_grammar() : PENSTOCK_TRY(json_schema_grammar(schema, work));
    Grammar grammar = PENSTOCK_TRY(Grammar::compile(source, work));
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
