#include "cli/parsed_reply.h"

namespace penstock {

void ParsedReply::take(const std::vector<AnswerEvent>& events) {
  for (const AnswerEvent& event : events) {
    switch (event.kind) {
      case AnswerEvent::Kind::kReasoning:
        reasoning_ += event.text;
        printer_.add_reasoning(event.text);
        break;
      case AnswerEvent::Kind::kContent:
        content_ += event.text;
        printer_.add_content(event.text);
        break;
      case AnswerEvent::Kind::kCallBegin: calls_.push_back({event.text, ""}); break;
      case AnswerEvent::Kind::kArguments:
        calls_.at(static_cast<size_t>(event.call)).arguments += event.text;
        break;
      case AnswerEvent::Kind::kCallEnd: break;
    }
  }
}

void ParsedReply::end(bool was_cut) {
  take(parser_.finish(was_cut ? AnswerParser::Ending::kCut : AnswerParser::Ending::kEnded));
  printer_.finish();
}

}  // namespace penstock
