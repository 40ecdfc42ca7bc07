#include "server/api/reply_parser.h"

#include "server/api/reply.h"

namespace penstock {
namespace {

ToolTypes types_of(const Json& tools) {
  // Tools that cannot be read were refused, or left unconstrained, before.
  Result<ToolTypes> types = tools.is_array() ? ToolTypes::create(tools) : ToolTypes();
  return types ? std::move(*types) : ToolTypes();
}

}  // namespace

void ReplyChoice::add(const ReplyDelta& delta) {
  switch (delta.kind) {
    case ReplyDelta::Kind::kReasoning: reasoning += delta.text; break;
    case ReplyDelta::Kind::kContent: content += delta.text; break;
    case ReplyDelta::Kind::kCallBegin: calls.push_back({delta.id, delta.name, ""}); break;
    case ReplyDelta::Kind::kCallArguments:
      calls.at(static_cast<size_t>(delta.call)).arguments += delta.text;
      break;
    case ReplyDelta::Kind::kCallEnd: break;
  }
}

ReplyParser::ReplyParser(const Options& options)
    : call_id_prefix_(options.call_id_prefix),
      allows_several_calls_(options.allows_several_calls),
      splits_reasoning_(options.splits_reasoning) {
  const bool has_tools = options.tools.is_array() && !options.tools.empty();
  if (!splits_reasoning_ && !has_tools) return;
  types_ = std::make_unique<const ToolTypes>(types_of(options.tools));
  AnswerFormat format;
  if (has_tools) format.form = options.form;
  format.opens_reasoning = options.opens_reasoning;
  parser_ = std::make_unique<AnswerParser>(std::move(format), *types_);
}

std::vector<ReplyDelta> ReplyParser::push(std::string_view text) {
  if (parser_ != nullptr) return deltas_of(parser_->push(text));
  if (text.empty()) return {};
  return {{ReplyDelta::Kind::kContent, std::string(text), 0, "", ""}};
}

std::vector<ReplyDelta> ReplyParser::finish(bool was_cut) {
  if (parser_ == nullptr) return {};
  using Ending = AnswerParser::Ending;
  return deltas_of(parser_->finish(was_cut ? Ending::kCut : Ending::kEnded));
}

int ReplyParser::failures() const {
  return parser_ == nullptr ? 0 : parser_->broken_count() + parser_->untyped_count();
}

std::vector<ReplyDelta> ReplyParser::deltas_of(const std::vector<AnswerEvent>& events) const {
  std::vector<ReplyDelta> deltas;
  for (const AnswerEvent& event : events) {
    const bool is_dropped = event.call > 0 && !allows_several_calls_;
    if (is_dropped) continue;
    switch (event.kind) {
      case AnswerEvent::Kind::kReasoning:
        deltas.push_back(
            {splits_reasoning_ ? ReplyDelta::Kind::kReasoning : ReplyDelta::Kind::kContent,
             event.text, 0, "", ""});
        break;
      case AnswerEvent::Kind::kContent:
        deltas.push_back({ReplyDelta::Kind::kContent, event.text, 0, "", ""});
        break;
      case AnswerEvent::Kind::kCallBegin:
        deltas.push_back(
            {ReplyDelta::Kind::kCallBegin, "", event.call, random_id(call_id_prefix_), event.text});
        break;
      case AnswerEvent::Kind::kArguments:
        deltas.push_back({ReplyDelta::Kind::kCallArguments, event.text, event.call, "", ""});
        break;
      case AnswerEvent::Kind::kCallEnd:
        deltas.push_back({ReplyDelta::Kind::kCallEnd, "", event.call, "", ""});
        break;
    }
  }
  return deltas;
}

}  // namespace penstock
