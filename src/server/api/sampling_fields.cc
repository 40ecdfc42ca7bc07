#include "server/api/sampling_fields.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <random>

namespace penstock {
namespace {

constexpr double kSmallest = 1e-6;  // "(0, 1]" of the tables, in float

void set(float& field, std::optional<double> value) {
  if (value) field = static_cast<float>(*value);
}

// One entry of logit_bias: a number, or false for never.
std::optional<float> bias_of(const Json& value) {
  if (value.is_boolean() && !value.get<bool>()) return -INFINITY;
  if (!value.is_number()) return {};
  return static_cast<float>(std::clamp(value.get<double>(), -100.0, 100.0));
}

void add_bias(Fields& fields, const ServedModel& model, const std::string& id_text,
              const Json& value, GenerationRequest& request) {
  TokenId id = -1;
  const char* end = id_text.data() + id_text.size();
  const auto [stopped, failure] = std::from_chars(id_text.data(), end, id);
  const std::optional<float> bias = bias_of(value);
  if (failure != std::errc{} || stopped != end || id < 0 || id >= model.vocab || !bias) {
    fields.refuse("logit_bias", fmt::format("\"logit_bias\" must map token ids from 0 to {} to "
                                            "numbers from -100 to 100, or to false",
                                            model.vocab - 1));
    return;
  }
  request.logit_bias.emplace_back(id, *bias);
}

// {"17": -100}, or [[17, -100]] as llama.cpp has it.
void read_bias(Fields& fields, const ServedModel& model, GenerationRequest& request) {
  const Json* biases = fields.any("logit_bias");
  if (biases == nullptr) return;
  if (!biases->is_structured() || biases->size() > kBiasesMax) {
    fields.refuse(
        "logit_bias",
        fmt::format("\"logit_bias\" must be an object of at most {} entries", kBiasesMax));
    return;
  }
  if (biases->is_object()) {
    for (const auto& [id, value] : biases->items()) add_bias(fields, model, id, value, request);
    return;
  }
  for (const Json& pair : *biases) {
    const bool is_pair = pair.is_array() && pair.size() == 2 && pair[0].is_number_integer();
    add_bias(fields, model, is_pair ? pair[0].dump() : "", is_pair ? pair[1] : Json(), request);
  }
}

void read_seed(Fields& fields, SamplingOptions& sampling) {
  const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX);
  sampling.seed = !seed || *seed == -1 ? draw_seed() : static_cast<uint64_t>(*seed);
}

}  // namespace

uint64_t draw_seed() {
  // 53 bits survive the way through JSON, where the seed is told.
  std::random_device device;
  return ((uint64_t{device()} << 32) | device()) >> 11;
}

void read_stop(Fields& fields, std::string_view name, GenerationRequest& request) {
  const Json* stop = fields.any(name);
  if (stop == nullptr) return;
  const Json list = stop->is_array() ? *stop : Json::array({*stop});
  bool is_good = list.size() <= kStopStringsMax;
  for (const Json& text : list) {
    is_good = is_good && text.is_string() && !text.get_ref<const std::string&>().empty() &&
              text.get_ref<const std::string&>().size() <= kStopBytesMax;
    if (!is_good) break;
    request.stop_strings.push_back(text.get<std::string>());
  }
  if (is_good) return;
  fields.refuse(name, fmt::format("\"{}\" must be a string or a list of at most {} strings of 1 to "
                                  "{} bytes",
                                  name, kStopStringsMax, kStopBytesMax));
}

void read_max_tokens(Fields& fields, std::initializer_list<std::string_view> names,
                     const ServedModel& model, GenerationRequest& request) {
  if (model.max_tokens_default > 0) request.max_tokens = model.max_tokens_default;
  for (const std::string_view name : names) {
    // llama.cpp's n_predict has -1 for no limit.
    const int64_t low = name == "n_predict" || name == "num_predict" ? -2 : 0;
    const auto value = fields.integer(name, low, INT32_MAX);
    if (value && *value >= 0) request.max_tokens = *value;
    if (value && *value < 0) request.max_tokens.reset();
  }
}

void read_sampling(Fields& fields, const ServedModel& model, GenerationRequest& request) {
  SamplingOptions& sampling = request.sampling;
  sampling = model.sampling;
  set(sampling.temperature, fields.number("temperature", 0, 5));
  set(sampling.top_p, fields.number("top_p", kSmallest, 1));
  set(sampling.min_p, fields.number("min_p", 0, 1));
  set(sampling.presence_penalty, fields.number("presence_penalty", -2, 2));
  set(sampling.frequency_penalty, fields.number("frequency_penalty", -2, 2));
  for (const char* name : {"repetition_penalty", "repeat_penalty"}) {
    set(sampling.repetition_penalty, fields.number(name, 1e-3, 10));
  }
  if (const auto last = fields.integer("repeat_last_n", -1, 1 << 24)) {
    sampling.repeat_last_n = static_cast<int>(*last);
  }
  // -1 and 0 are off.
  if (const auto top_k = fields.integer("top_k", -1, 1 << 24)) {
    sampling.top_k = static_cast<int>(std::max<int64_t>(*top_k, 0));
  }
  read_seed(fields, sampling);
  read_stop(fields, "stop", request);
  read_bias(fields, model, request);
  request.num_choices = static_cast<int>(fields.integer("n", 1, kChoicesMax).value_or(1));
  request.ignores_end = fields.boolean("ignore_eos").value_or(false);
  request.reuses_prefixes = fields.boolean("cache_prompt").value_or(true);
  const auto slot = fields.integer("id_slot", -1, INT32_MAX);  // -1: any
  if (slot && *slot >= 0) request.slot = static_cast<int>(*slot);
  fields.pass_over({"user", "metadata", "client_metadata", "store", "service_tier",
                    "prompt_cache_key", "prompt_cache_retention", "safety_identifier"});
}

}  // namespace penstock
