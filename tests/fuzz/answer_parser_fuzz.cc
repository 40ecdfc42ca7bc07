// Any bytes as an answer, whole and in pieces: the same events, valid UTF-8, arguments that are
// JSON objects, and nothing that is no tag lost.
//
// The first byte says how the answer is read, the second where it is cut.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/json.h"
#include "dialogue/answer_parser.h"
#include "text/utf8.h"

namespace penstock {
namespace {

using Kind = AnswerEvent::Kind;

const ToolTypes& types() {
  static const ToolTypes all = *ToolTypes::create(*parse_json(
      R"([{"name": "f", "parameters": {"properties": {"s": {"type": "string"},
          "i": {"type": "integer"}, "n": {"type": ["string", "null"]}}}}])",
      "tools"));
  return all;
}

std::vector<AnswerEvent> parsed(const AnswerFormat& format, std::string_view text, size_t piece,
                                AnswerParser::Ending ending) {
  AnswerParser parser(format, types());
  std::vector<AnswerEvent> all;
  const auto join = [&](std::vector<AnswerEvent> more) {
    for (AnswerEvent& event : more) {
      const bool is_marker = event.kind == Kind::kCallBegin || event.kind == Kind::kCallEnd;
      if (!is_marker && !all.empty() && all.back().kind == event.kind) {
        all.back().text += event.text;
      } else {
        all.push_back(std::move(event));
      }
    }
  };
  for (size_t at = 0; at < text.size(); at += piece) join(parser.push(text.substr(at, piece)));
  join(parser.finish(ending));
  return all;
}

}  // namespace
}  // namespace penstock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  AnswerFormat format;
  if (data[0] % 3 != 0) format.form = data[0] % 3 == 1 ? ToolForm::kTagged : ToolForm::kJson;
  format.opens_reasoning = (data[0] & 0x20) != 0;
  if ((data[0] & 0x40) != 0) format.stops = {"END", "\n\n"};
  const auto ending =
      (data[0] & 0x80) != 0 ? AnswerParser::Ending::kCut : AnswerParser::Ending::kEnded;
  const auto whole = parsed(format, text, text.size() + 1, ending);
  PENSTOCK_CHECK(parsed(format, text, 1 + data[1] % 7u, ending) == whole);
  std::string arguments;
  for (const AnswerEvent& event : whole) {
    PENSTOCK_CHECK(is_valid_utf8(event.text));
    if (event.kind == Kind::kCallBegin) arguments.clear();
    if (event.kind == Kind::kArguments) arguments += event.text;
    if (event.kind != Kind::kCallEnd) continue;
    const auto json = parse_json(arguments, "arguments");
    PENSTOCK_CHECK(json ? json->is_object()
                        : json.error().message.find("duplicate key") != std::string::npos);
  }
  return 0;
}
