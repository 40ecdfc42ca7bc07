#include "quality/answer_eval.h"

#include <fmt/format.h>

#include "text/utf8_stream.h"

namespace penstock {
namespace {

std::string stripped(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\n\r\v\f";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1));
}

std::string text_of(const Tokenizer& tokenizer, std::span<const TokenId> tokens) {
  Utf8Stream characters;
  std::string text;
  for (const TokenId token : tokens) text += characters.push(tokenizer.token_bytes(token));
  return text + characters.finish();
}

// Whether a grammar allows the tokens, and an end behind them.
bool is_allowed(TokenMask& mask, std::span<const TokenId> tokens, TokenId end) {
  for (const TokenId token : tokens) {
    if (!mask.accept(token)) return false;
  }
  return mask.accept(end).has_value();
}

}  // namespace

Result<EvalItem> eval_item(const ModelTexts& texts, const Json& item) {
  EvalItem made;
  made.id = item.at("id").is_string() ? item.at("id").get<std::string>() : to_text(item.at("id"));
  const auto fill = [&]() -> Result<void> {
    const Conversation conversation = PENSTOCK_TRY(conversation_of_item(item));
    made.expected = stripped(PENSTOCK_TRY(json_string(item, "expected", "it")));
    made.prompt = PENSTOCK_TRY(make_chat_prompt(texts, conversation));
    const Json* kind = json_find(item, "kind");
    const bool is_json =
        kind != nullptr && kind->is_string() && kind->get<std::string>().starts_with("json");
    const Json* schema = json_find(item, "schema");
    if (conversation.tools.is_array() && !conversation.tools.empty()) {
      made.form = EvalItem::Form::kCalls;
      made.tools = conversation.tools;
    } else if (is_json || schema != nullptr) {
      made.form = EvalItem::Form::kJson;
      made.schema = schema != nullptr ? *schema : Json{{"type", Json::array({"object", "array"})}};
    }
    return {};
  };
  const Result<void> filled = fill();
  if (!filled) return Error{filled.error()}.with_context("item " + made.id);
  return made;
}

Result<void> check_base_set(const BaseFile& base, const EvalSet& set, int64_t max_tokens) {
  const auto refused = [&](const std::string& what) {
    return invalid_argument(fmt::format("{}: set {}: {}; make it again with --write-base",
                                        base.path(), set.name, what));
  };
  const BaseSet* known = base.info().find_set(set.name);
  if (known == nullptr) return refused("it does not have it");
  if (known->max_tokens != max_tokens) {
    return refused(fmt::format("its answers had at most {} tokens, here {} (--max-tokens)",
                               known->max_tokens, max_tokens));
  }
  if (known->answers.size() != set.items.size()) {
    return refused(
        fmt::format("it has {} items, here are {}", known->answers.size(), set.items.size()));
  }
  for (size_t i = 0; i < set.items.size(); ++i) {
    if (known->answers[i].prompt == tokens_hash(set.items[i].prompt.tokens)) continue;
    return refused(
        fmt::format("the prompt of item {} is not the one that it was made from", set.items[i].id));
  }
  return {};
}

std::vector<std::string> SetOutcome::wrong() const {
  std::vector<std::string> ids;
  for (const BaseAnswer& answer : answers) {
    if (!answer.is_exact) ids.push_back(answer.id);
  }
  return ids;
}

Result<std::unique_ptr<TokenMask>> AnswerEval::mask_of(const EvalItem& item) {
  if (!constraints_) {
    std::vector<TokenId> stop_ids = engine_.stop_ids();
    stop_ids.insert(stop_ids.end(), item.prompt.stop_ids.begin(), item.prompt.stop_ids.end());
    if (stop_ids.empty()) {
      return Error{ErrorCode::kUnsupported,
                   "the model's files name no token that ends an answer, so none can be valid"};
    }
    constraints_.emplace(engine_.texts(), std::move(stop_ids));
  }
  if (item.form == EvalItem::Form::kJson) {
    return PENSTOCK_TRY(constraints_->of_schema(item.schema)).make();
  }
  ToolChoice choice;
  choice.kind = ToolChoice::Kind::kRequired;
  return PENSTOCK_TRY(constraints_->of_tools(item.tools, choice, item.prompt.opens_reasoning))
      .make();
}

Result<AnswerEval::Answer> AnswerEval::answer(Session& session, const EvalItem& item,
                                              const AnswerWishes& wishes, bool constrained,
                                              const std::stop_token& stop) {
  std::unique_ptr<TokenMask> mask;
  if (item.form != EvalItem::Form::kAny) mask = PENSTOCK_TRY(mask_of(item));
  GenerateOptions options;
  options.max_tokens = wishes.max_tokens;
  options.stop_ids = engine_.stop_ids();
  options.stop_ids.insert(options.stop_ids.end(), item.prompt.stop_ids.begin(),
                          item.prompt.stop_ids.end());
  options.on_route = wishes.on_route;
  if (constrained) options.mask = mask.get();
  const GenerateResult result = PENSTOCK_TRY(session.generate(item.prompt.tokens, options, stop));
  if (result.finish == FinishReason::kCancelled) {
    return Error{ErrorCode::kCancelled, "interrupted"};
  }
  Answer answer{stripped(text_of(*engine_.tokenizer(), result.tokens)), true};
  const bool ended = result.finish == FinishReason::kStop;
  if (constrained) {
    answer.is_valid = ended;
  } else if (mask != nullptr) {
    answer.is_valid = ended && is_allowed(*mask, result.tokens, options.stop_ids.front());
  }
  return answer;
}

Result<SetOutcome> AnswerEval::evaluate(Session& session, const EvalSet& set,
                                        const AnswerWishes& wishes, const std::stop_token& stop) {
  SetOutcome outcome;
  outcome.name = set.name;
  const BaseSet* base = wishes.base != nullptr ? wishes.base->info().find_set(set.name) : nullptr;
  if (base != nullptr) outcome.change.emplace();
  for (size_t i = 0; i < set.items.size(); ++i) {
    const EvalItem& item = set.items[i];
    if (wishes.progress) wishes.progress(i, set.items.size());
    const bool has_form = item.form != EvalItem::Form::kAny;
    for (const bool constrained : {false, true}) {
      if (constrained && !(wishes.constrained && has_form)) continue;
      const Result<Answer> made = answer(session, item, wishes, constrained, stop);
      if (!made) return made.error().with_context("item " + item.id);
      const bool is_exact = made->text == item.expected;
      if (constrained && !outcome.constrained) outcome.constrained.emplace();
      AnswerShares& shares = constrained ? *outcome.constrained : outcome.free;
      shares.exact.add(is_exact);
      if (has_form && !shares.valid) shares.valid.emplace();
      if (has_form) shares.valid->add(made->is_valid);
      if (constrained) continue;
      outcome.answers.push_back(
          {item.id, tokens_hash(item.prompt.tokens), is_exact, made->is_valid});
      if (base == nullptr) continue;
      const bool was_exact = base->answers[i].is_exact;
      outcome.change->lost += was_exact && !is_exact ? 1 : 0;
      outcome.change->gained += !was_exact && is_exact ? 1 : 0;
    }
  }
  if (outcome.change) outcome.change->p = mcnemar(outcome.change->lost, outcome.change->gained);
  return outcome;
}

}  // namespace penstock
