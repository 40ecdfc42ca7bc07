#include "server/api/info.h"

namespace penstock {

Json model_json(const ServedModel& model, const std::string& id) {
  Json meta{{"n_ctx", model.context}, {"n_vocab", model.vocab}};
  meta.update(model.about);
  return Json{{"id", id},
              {"object", "model"},
              {"created", model.created},
              {"owned_by", "penstock"},
              {"meta", std::move(meta)}};
}

Json models_json(const ServedModel& model) {
  Json data = Json::array({model_json(model, model.id)});
  for (const std::string& alias : model.aliases) data.push_back(model_json(model, alias));
  return Json{{"object", "list"}, {"data", std::move(data)}};
}

Json sampling_json(const ServedModel& model) {
  const SamplingOptions& sampling = model.sampling;
  return Json{{"temperature", sampling.temperature},
              {"top_k", sampling.top_k},
              {"top_p", sampling.top_p},
              {"min_p", sampling.min_p},
              {"presence_penalty", sampling.presence_penalty},
              {"frequency_penalty", sampling.frequency_penalty},
              {"repeat_penalty", sampling.repetition_penalty},
              {"repeat_last_n", sampling.repeat_last_n},
              {"max_tokens", model.max_tokens_default}};
}

Json props_json(const ServedModel& model, const GeneratorFigures& figures) {
  const bool has_template = model.texts->chat_template.has_value();
  return Json{
      {"default_generation_settings", {{"n_ctx", model.context}, {"params", sampling_json(model)}}},
      {"total_slots", figures.slots.size()},
      {"model_alias", model.id},
      {"build_info", "penstock " + model.version},
      {"system_fingerprint", model.fingerprint},
      {"modalities", {{"vision", false}, {"audio", false}}},
      {"has_chat_template", has_template},
      {"experts", {{"in_all", figures.num_experts}, {"in_memory", figures.num_slots}}},
      {"memory",
       {{"budget_bytes", figures.memory_budget_bytes},
        {"planned_bytes", figures.memory_used_bytes}}},
      {"model", model.about}};
}

Json figures_json(const GeneratorFigures& figures) {
  const StoreStats& store = figures.store;
  return Json{{"running", figures.running},
              {"waiting", figures.waiting},
              {"prompt_tokens", figures.prompt_tokens},
              {"cached_tokens", figures.cached_tokens},
              {"answer_tokens", figures.answer_tokens},
              {"num_slots", figures.num_slots},
              {"num_experts", figures.num_experts},
              {"memory_budget_bytes", figures.memory_budget_bytes},
              {"memory_used_bytes", figures.memory_used_bytes},
              {"store",
               {{"hits", store.hits},
                {"misses", store.misses},
                {"prefetches", store.prefetches},
                {"bytes_read", store.bytes_read},
                {"wait_ns", store.wait_ns},
                {"io_retries", store.io_retries},
                {"checksum_failures", store.checksum_failures}}}};
}

Json slots_json(const GeneratorFigures& figures) {
  Json slots = Json::array();
  for (const SlotFigures& slot : figures.slots) {
    slots.push_back(Json{{"id", slot.id},
                         {"n_ctx", slot.context},
                         {"is_processing", slot.is_busy},
                         {"n_held", slot.held_tokens}});
  }
  return slots;
}

Json slot_action_json(const SlotAction& action, const SlotOutcome& outcome) {
  Json json{{"id_slot", action.slot}};
  switch (action.kind) {
    case SlotAction::Kind::kSave:
      json.update(Json{{"filename", action.name},
                       {"n_saved", outcome.tokens},
                       {"n_written", outcome.bytes},
                       {"timings", {{"save_ms", outcome.ms}}}});
      break;
    case SlotAction::Kind::kRestore:
      json.update(Json{{"filename", action.name},
                       {"n_restored", outcome.tokens},
                       {"n_read", outcome.bytes},
                       {"timings", {{"restore_ms", outcome.ms}}}});
      break;
    case SlotAction::Kind::kErase: json["n_erased"] = outcome.tokens; break;
  }
  return json;
}

ApiError slot_error(const Error& error) {
  ApiError told = api_error(error);
  if (error.code == ErrorCode::kNotFound)
    told = {.status = 404, .message = "there is no such file"};
  // A file that is damaged, or another model's, is a wrong name to give.
  if (error.code == ErrorCode::kCorrupt) told.status = 400;
  if (told.status < 500) told.param = "filename";
  return told;
}

}  // namespace penstock
