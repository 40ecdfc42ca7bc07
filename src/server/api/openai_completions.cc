#include "server/api/openai_completions.h"

#include <fmt/format.h>

#include "server/api/openai_words.h"
#include "server/api/sampling_fields.h"
#include "text/utf8.h"

namespace penstock {
namespace {

// Text, or token ids; a list with one of these is the same.
void read_prompt(Fields& fields, const ServedModel& model, ChatCall& call) {
  const Json* prompt = fields.any("prompt");
  constexpr std::string_view kExpected =
      "\"prompt\" must be a text or a list of token ids; several prompts need several requests";
  if (prompt == nullptr) return fields.refuse("prompt", "\"prompt\" is missing");
  const bool is_wrapped = prompt->is_array() && prompt->size() == 1 && !(*prompt)[0].is_number();
  const Json& given = is_wrapped ? (*prompt)[0] : *prompt;
  std::vector<TokenId>& tokens = call.generation.prompt;
  if (given.is_string()) {
    tokens = model.texts->tokenizer->encode(given.get_ref<const std::string&>());
  } else if (given.is_array()) {
    for (const Json& id : given) {
      const bool is_id =
          id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() < model.vocab;
      if (!is_id) return fields.refuse("prompt", std::string(kExpected));
      tokens.push_back(id.get<TokenId>());
    }
  } else {
    return fields.refuse("prompt", std::string(kExpected));
  }
  // The model has no token for the beginning of a text; an empty one begins after an end of text.
  if (tokens.empty() && !model.stop_ids.empty()) tokens = {model.stop_ids.back()};
}

constexpr std::string_view kCompletionChunk = "text_completion";  // the kind of object

Json completion_chunk(const ReplyState& reply, Json choices) {
  return openai_chunk(reply, kCompletionChunk, std::move(choices));
}

Json logprobs_json(const ReplyState& reply, const std::vector<ReplyToken>& tokens,
                   size_t text_begin) {
  if (!reply.call.generation.logprobs) return nullptr;
  Json json{{"tokens", Json::array()},
            {"token_logprobs", Json::array()},
            {"top_logprobs", Json::array()},
            {"text_offset", Json::array()}};
  size_t offset = text_begin;
  for (const ReplyToken& token : tokens) {
    const std::string text = token_text(reply.model, token.logprob.id);
    json["tokens"].push_back(text);
    // Nothing stands before the first token of an echoed prompt that could foretell it.
    json["token_logprobs"].push_back(token.is_first ? Json() : Json(token.logprob.logprob));
    Json top = Json::object();
    for (const TokenLogprob& other : token.top) {
      top[token_text(reply.model, other.id)] = other.logprob;
    }
    json["top_logprobs"].push_back(token.is_first ? Json() : std::move(top));
    json["text_offset"].push_back(offset);
    offset += text.size();
  }
  return json;
}

Json completion_choice(int index, const std::string& text) {
  return Json{{"text", text}, {"index", index}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
}

std::string echo_of(const ReplyState& reply) {
  if (!reply.call.echoes) return "";
  return replace_invalid_utf8(reply.model.texts->tokenizer->decode(reply.call.generation.prompt));
}

}  // namespace

std::variant<ChatCall, ApiError> read_openai_completion(const Json& body,
                                                        const ServedModel& model) {
  Fields fields(body);
  ChatCall call;
  call.splits_reasoning = false;
  read_prompt(fields, model, call);
  read_sampling(fields, model, call.generation);
  read_max_tokens(fields, {"max_tokens", "max_completion_tokens", "n_predict"}, model,
                  call.generation);
  if (const auto logprobs = fields.integer("logprobs", 0, kTopLogprobsMax)) {
    call.generation.logprobs = static_cast<int>(*logprobs);
  }
  call.echoes = fields.boolean("echo").value_or(false);
  call.generation.echo_logprobs = call.echoes && call.generation.logprobs.has_value();
  const auto best_of = fields.integer("best_of", 1, kChoicesMax);
  if (best_of && *best_of != call.generation.num_choices) {
    fields.refuse("best_of", "\"best_of\" must be equal to \"n\": answers are not ranked here");
  }
  if (const auto suffix = fields.text("suffix"); suffix && !suffix->empty()) {
    fields.refuse("suffix", "\"suffix\" is not supported: this model does not fill gaps", 501);
  }
  read_reply_options(fields, model, call);
  call.splits_reasoning = false;
  finish_reading(fields, model, call);
  if (fields.error()) return *fields.error();
  return call;
}

std::string OpenAiCompletionReplier::begin(const ReplyState& reply) {
  std::string words;
  for (int i = 0; i < reply.call.generation.num_choices; ++i) {
    Json chunk = completion_chunk(reply, Json::array({completion_choice(i, echo_of(reply))}));
    chunk["seed"] = reply.call.generation.sampling.seed;
    words += sse(chunk);
  }
  return words;
}

std::string OpenAiCompletionReplier::heartbeat(const ReplyState& reply) {
  Json chunk = completion_chunk(reply, Json::array({completion_choice(0, "")}));
  if (reply.progress.queue_position > 0) {
    chunk["queue_position"] = reply.progress.queue_position;
  } else if (reply.progress.processed_tokens < reply.progress.prompt_tokens) {
    chunk["prompt_progress"] = progress_json(reply.progress);
  }
  return sse(chunk);
}

std::string OpenAiCompletionReplier::prompt_progress(const ReplyState& reply) {
  return reply.call.tells_progress ? heartbeat(reply) : "";
}

std::string OpenAiCompletionReplier::delta(const ReplyState& reply, int index,
                                           const ReplyDelta& delta) {
  Json choice = completion_choice(index, delta.text);
  if (!reply.new_tokens.empty()) {
    const size_t told = reply.choice(index).content.size() - delta.text.size();
    choice["logprobs"] = logprobs_json(reply, reply.new_tokens, told);
  }
  if (reply.call.tells_tokens) choice["tokens"] = reply.new_ids;
  Json chunk = completion_chunk(reply, Json::array({std::move(choice)}));
  if (reply.call.tells_timings_per_token) chunk["timings"] = timings_of(reply.progress);
  return sse(chunk);
}

std::string OpenAiCompletionReplier::end_choice(const ReplyState& reply, int index) {
  Json choice = completion_choice(index, "");
  if (!reply.new_tokens.empty()) {
    choice["logprobs"] = logprobs_json(reply, reply.new_tokens, reply.choice(index).content.size());
  }
  if (reply.call.tells_tokens) choice["tokens"] = reply.new_ids;
  choice["finish_reason"] = finish_word(reply.choice(index));
  Json chunk = completion_chunk(reply, Json::array({std::move(choice)}));
  if (index + 1 == reply.call.generation.num_choices) chunk["timings"] = timings_of(reply.progress);
  return sse(chunk);
}

std::string OpenAiCompletionReplier::end(const ReplyState& reply) {
  return openai_end(reply, kCompletionChunk);
}

std::string OpenAiCompletionReplier::error(const ReplyState&, const ApiError& error) {
  return sse(error_json(protocol(), error));
}

Json OpenAiCompletionReplier::whole(const ReplyState& reply) {
  Json choices = Json::array();
  for (int i = 0; i < reply.call.generation.num_choices; ++i) {
    const ReplyChoice& choice = reply.choice(i);
    choices.push_back(Json{{"text", echo_of(reply) + choice.content},
                           {"index", i},
                           {"logprobs", logprobs_json(reply, choice.tokens, 0)},
                           {"finish_reason", finish_word(choice)}});
    if (reply.call.tells_tokens) choices.back()["tokens"] = choice.ids;
  }
  return openai_whole(reply, "text_completion", std::move(choices));
}

}  // namespace penstock
