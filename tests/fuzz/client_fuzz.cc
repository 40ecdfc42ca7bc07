// Bytes of a server, cut in two somewhere: an answer of HTTP, and what its body says as a stream of
// events or as one object. The same wherever they are cut; never more than came.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "client/chat_stream.h"
#include "client/http_response.h"
#include "client/server_url.h"

namespace {

using namespace penstock;

std::string response_of(std::string_view bytes, size_t cut) {
  ResponseReader reader;
  std::string body;
  for (const std::string_view piece : {bytes.substr(0, cut), bytes.substr(cut)}) {
    if (!reader.push(piece, body)) return "refused";
  }
  if (!reader.finish(body)) return "refused";  // what is malformed may show at the end only
  return std::to_string(reader.status()) + reader.header("Content-Type") + '\n' + body;
}

std::string stream_of(std::string_view bytes, size_t cut, bool is_events) {
  ChatStream stream(is_events);
  std::string told;
  const auto note = [&](const ChatDelta& delta) {
    told += static_cast<char>('0' + static_cast<int>(delta.kind));
    told += delta.text;
  };
  for (const std::string_view piece : {bytes.substr(0, cut), bytes.substr(cut)}) {
    if (!stream.push(piece, note)) return "refused";
  }
  const auto answer = stream.finish(note);
  if (!answer) return "refused";
  PENSTOCK_CHECK(answer->content.size() + answer->reasoning.size() <= 3 * bytes.size() + 3);
  PENSTOCK_CHECK(answer->calls.size() <= kAnswerCallsMax);
  told += '\n' + answer->finish_reason;
  for (const CalledTool& call : answer->calls) told += call.id + call.name + call.arguments;
  return told;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t cut = data[1] * bytes.size() / 256;
  switch (data[0] % 4) {
    case 0: PENSTOCK_CHECK(response_of(bytes, cut) == response_of(bytes, bytes.size())); break;
    case 1:
    case 2: {
      const bool is_events = data[0] % 4 == 1;
      PENSTOCK_CHECK(stream_of(bytes, cut, is_events) == stream_of(bytes, bytes.size(), is_events));
      static_cast<void>(error_message_of(bytes));
      break;
    }
    default: {
      const auto url = parse_server_url(std::string(bytes));
      if (url) PENSTOCK_CHECK(url->authority().find_first_of("\r\n @/") == std::string::npos);
    }
  }
  return 0;
}
