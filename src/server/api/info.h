// What the server tells about itself and its model, beside answers.
#pragma once

#include "server/api/api_error.h"
#include "server/api/served_model.h"
#include "server/generator.h"

namespace penstock {

Json model_json(const ServedModel& model, const std::string& id);  // of OpenAI's list
Json models_json(const ServedModel& model);
Json props_json(const ServedModel& model, const GeneratorFigures& figures);
Json slots_json(const GeneratorFigures& figures);
// As llama-server tells it.
Json slot_action_json(const SlotAction& action, const SlotOutcome& outcome);
ApiError slot_error(const Error& error);
Json figures_json(const GeneratorFigures& figures);
Json sampling_json(const ServedModel& model);  // the defaults of a request

}  // namespace penstock
