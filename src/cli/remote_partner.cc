// A chat with a server: the conversation is kept here, and sent whole with each message.

#include <fmt/format.h>

#include <algorithm>

#include "cli/answer_printer.h"
#include "cli/chat_partner.h"
#include "cli/progress.h"
#include "cli/sampling_flags.h"
#include "client/remote_chat.h"

namespace penstock {
namespace {

constexpr uint64_t kChatMessageBytesMax = 16 << 20;

// What a stream tells, on its way to a person.
class RemotePrinter {
 public:
  RemotePrinter(Call& call, Output* output)
      : call_(call),
        progress_(call.terminal, "the server reads the prompt", Progress::Unit::kItems),
        printer_(call.terminal, output) {}

  void take(const ChatDelta& delta) {
    switch (delta.kind) {
      case ChatDelta::Kind::kPrompt:
        progress_.update(static_cast<uint64_t>(std::max<int64_t>(delta.done, 0)),
                         static_cast<uint64_t>(std::max<int64_t>(delta.total, 0)));
        return;
      case ChatDelta::Kind::kQueue:
        if (delta.done == position_) return;
        position_ = delta.done;
        call_.terminal.note(fmt::format("the server is busy: number {} in its queue", position_));
        return;
      case ChatDelta::Kind::kReasoning:
        progress_.finish();
        printer_.add_reasoning(delta.text);
        break;
      case ChatDelta::Kind::kContent:
        progress_.finish();
        printer_.add_content(delta.text);
        break;
      case ChatDelta::Kind::kCallBegin: progress_.finish(); break;
    }
    if (!call_.output.is_usable()) call_.interrupt.stop();
  }
  void finish() {
    progress_.finish();
    printer_.finish();
  }

 private:
  Call& call_;
  Progress progress_;
  AnswerPrinter printer_;
  int64_t position_ = 0;
};

FinishReason reason_of(const RemoteAnswer& answer) {
  if (answer.is_cancelled) return FinishReason::kCancelled;
  return answer.answer.finish_reason == "length" ? FinishReason::kLength : FinishReason::kStop;
}

class RemotePartner final : public ChatPartner {
 public:
  RemotePartner(Call& call, RemoteChat chat) : call_(call), chat_(std::move(chat)) {}

  Result<PartnerAnswer> answer(const ChatState& state) override;
  std::string description() override {
    return fmt::format("{} at {}{}", printable(chat_.model()), chat_.url().authority(),
                       chat_.url().base);
  }
  std::string limits() override { return "context as the server has it"; }
  std::string last_figures() override;
  std::string figures() override;
  uint64_t text_bytes_max() override { return kChatMessageBytesMax; }
  Error text_too_long() override {
    return {ErrorCode::kInvalidArgument,
            fmt::format("a message has more than {} MiB", kChatMessageBytesMax >> 20)};
  }
  std::chrono::milliseconds work_while_idle() override { return std::chrono::milliseconds(-1); }
  void tell_news() override {}
  Result<void> end() override { return {}; }
  Result<void> check_tools(const Json&) override { return {}; }  // the server says what it thinks

 private:
  Json fields_of(const ChatState& state) const;
  void print_json(const ChatAnswer& told, const PartnerAnswer& answer);

  Call& call_;
  RemoteChat chat_;
  Json usage_, timings_;  // of the last answer
};

Json RemotePartner::fields_of(const ChatState& state) const {
  const Conversation& conversation = state.conversation;
  Json fields{{"messages", remote_messages(conversation.system, conversation.messages)}};
  const Json tools = state.offered_tools();
  if (!tools.is_null()) fields["tools"] = tools;
  SamplingOptions sampling = state.sampling;
  sampling.seed += state.num_answers;
  fields.update(asked_sampling(sampling, state.sampling_given));
  if (state.max_tokens > 0) fields["max_tokens"] = state.max_tokens;
  if (!state.stops.empty()) fields["stop"] = state.stops;
  if (conversation.thinking) {
    fields["chat_template_kwargs"] = Json{{"enable_thinking", *conversation.thinking}};
  }
  return fields;
}

void RemotePartner::print_json(const ChatAnswer& told, const PartnerAnswer& answer) {
  Json json{{"content", told.content}, {"reasoning", told.reasoning}};
  if (const Json* calls = json_find(answer.message, "tool_calls")) json["tool_calls"] = *calls;
  json["finish_reason"] =
      answer.finish == FinishReason::kCancelled ? "cancelled" : told.finish_reason;
  json["usage"] = told.usage;
  json["timings"] = told.timings;
  call_.output.write_line(json);
}

Result<PartnerAnswer> RemotePartner::answer(const ChatState& state) {
  RemotePrinter printer(call_, call_.json() ? nullptr : &call_.output);
  const Result<RemoteAnswer> done = chat_.answer(
      fields_of(state), [&](const ChatDelta& delta) { printer.take(delta); },
      call_.interrupt.token());
  printer.finish();
  if (!done) return done.error();
  const ChatAnswer& told = done->answer;
  Json calls = Json::array();
  for (const CalledTool& call : told.calls) {
    calls.push_back(call_json(call.id, call.name, call.arguments));
  }
  PartnerAnswer answer{answer_message(told.content, told.reasoning, calls), reason_of(*done)};
  usage_ = told.usage;
  timings_ = told.timings;
  if (call_.json()) print_json(told, answer);
  return answer;
}

std::string RemotePartner::last_figures() {
  const auto count = [](const Json& json, const char* name) -> int64_t {
    const Json* value = json_find(json, name);
    return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
  };
  if (!usage_.is_object()) return "";
  std::string line = fmt::format("prompt {} tokens", count(usage_, "prompt_tokens"));
  if (const Json* details = json_find(usage_, "prompt_tokens_details")) {
    line += fmt::format(" ({} of them cached)", count(*details, "cached_tokens"));
  }
  line += fmt::format("; answer {} tokens", count(usage_, "completion_tokens"));
  const Json* rate = json_find(timings_, "predicted_per_second");
  if (rate != nullptr && rate->is_number())
    line += fmt::format(", {:.1f} tok/s", rate->get<double>());
  return line;
}

std::string RemotePartner::figures() {
  std::string text = last_figures();
  if (!timings_.is_null()) text += "\n" + to_text(timings_, 1);
  return text;
}

// The first of PENSTOCK_API_KEY, --api-key or the file: what a server of our own takes as a list.
Result<std::string> read_key(const Call& call) {
  std::string key = call.settings.text("api-key");
  const std::string& path = call.settings.text("api-key-file");
  if (!path.empty()) {
    constexpr uint64_t kKeyBytesMax = 64 << 10;
    const Result<std::string> text = read_text(call.storage, path, kKeyBytesMax);
    if (!text) {
      return Error{ErrorCode::kInvalidArgument, "--api-key-file: " + text.error().message};
    }
    key = text->substr(0, text->find_first_of("\r\n"));
    if (key.empty()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--api-key-file: {} has no key in its first line", path)};
    }
  }
  return key.substr(0, key.find(','));
}

}  // namespace

Result<std::unique_ptr<ChatPartner>> open_remote_partner(Call& call, ChatState& state) {
  RemoteOptions options;
  const Result<ServerUrl> url = parse_server_url(call.settings.text("server"));
  if (!url) return url.error().with_context(call.settings.get("server").place);
  options.url = *url;
  options.key = PENSTOCK_TRY(read_key(call));
  options.model = call.settings.text("model");
  if (!options.key.empty() && !options.url.is_local()) {
    call.terminal.warning(fmt::format(
        "the API key goes to {} as it is: http hides nothing on its way", options.url.authority()));
  }
  state.sampling = PENSTOCK_TRY(choose_sampling(call.settings, SamplingOptions{})).options;
  state.sampling_given = given_sampling(call.settings);
  RemoteChat chat = PENSTOCK_TRY(RemoteChat::connect(std::move(options), call.interrupt.token()));
  auto partner = std::make_unique<RemotePartner>(call, std::move(chat));
  call.terminal.note(partner->description());
  return std::unique_ptr<ChatPartner>(std::move(partner));
}

}  // namespace penstock
